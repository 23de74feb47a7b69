"""MQTT in and out.

::

    [mqtt]                                        # config/hs-stream.toml
    url = "mqtt://localhost:1883"                 # mqtts:// for TLS
    client_id = "hs-stream"                       # stable: the broker keeps what we miss under this name
    username = "hs"                               # optional
    password_file = "/run/secrets/mqtt"           # optional: a file that holds nothing but the password
    ca_file = "/etc/hs-stream/ca.pem"             # optional, also cert_file and key_file
    version = 5                                   # or 3 for MQTT 3.1.1

`options` says where the broker is, `connection` is one connection, `client` stays connected, `topics` binds plate
values, `source` and `sink` are the ports of the engine.
"""
