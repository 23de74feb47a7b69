"""How to reach an MQTT broker. The keys are those of the ``[mqtt]`` settings."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self
from urllib.parse import unquote

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.urls import ENCODE, checked_url, redacted

__all__ = ["NEVER_EXPIRES", "MqttOptions", "Will"]

NEVER_EXPIRES = 0xFFFF_FFFF
_PORTS = {"mqtt": 1883, "mqtts": 8883}
_MAX_CLIENT_ID = 65_535


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained and at QoS 1, when the connection is lost without a goodbye."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class MqttOptions:
    """Where the broker is and who we are there. ``ConfigurationError`` from the constructor for what cannot work.

    ``url``: ``mqtt://host[:1883]`` or ``mqtts://host[:8883]``; a user and password inside of it win over ``username``
    and ``password_file``. ``version`` is 5 or 3 (3.1.1). ``client_id`` names the session that the broker keeps for us,
    so it must be stable, and no two services may share one. ``keepalive`` and ``connect_timeout`` in seconds,
    ``session_expiry`` in seconds (v5; with 3.1.1 the broker decides). ``receive_maximum``: how many readings the
    broker may have in flight to us (v5; with 3.1.1 the broker's ``max_inflight_messages`` decides).
    """

    url: str = "mqtt://localhost:1883"
    client_id: str = "hs-stream"
    username: str = ""
    password_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    version: Literal[3, 5] = 5
    keepalive: int = 30
    connect_timeout: float = 5.0
    session_expiry: int = NEVER_EXPIRES
    receive_maximum: int = 10_000
    backoff_min: float = 0.1
    backoff_max: float = 10.0
    host: str = field(init=False, default="")
    port: int = field(init=False, default=0)
    tls: bool = field(init=False, default=False)
    _user: str = field(init=False, default="", repr=False)
    _password: str = field(init=False, default="", repr=False)

    def __post_init__(self) -> None:
        try:
            parts = checked_url(self.url)
        except ValueError as error:
            raise ConfigurationError(f"mqtt.url {error}", hint=f"{_URL_HINT}; {ENCODE}") from None
        if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
            raise ConfigurationError(f"mqtt.url {redacted(self.url)!r} is not a broker's address", hint=_URL_HINT)
        if self.version not in (3, 5):
            raise ConfigurationError(f"mqtt.version is {self.version!r}", hint="write 5, or 3 for MQTT 3.1.1")
        if not self.client_id or len(self.client_id.encode()) > _MAX_CLIENT_ID or "\0" in self.client_id:
            raise ConfigurationError("mqtt.client_id must be a text that names this service, such as hs-stream")
        if bool(self.cert_file) != bool(self.key_file):
            raise ConfigurationError("mqtt.cert_file and mqtt.key_file only work together", hint="set both or none")
        if not 1 <= self.receive_maximum <= 65_535 or not 1 <= self.keepalive <= 65_535:
            raise ConfigurationError("mqtt.receive_maximum and mqtt.keepalive must be from 1 to 65535")
        for name, value in {
            "url": _bare(self.url),
            "host": parts.hostname,
            "port": parts.port or _PORTS[parts.scheme],
            "tls": parts.scheme == "mqtts",
            "_user": unquote(parts.username or "") or self.username,
            "_password": unquote(parts.password or "") or self._read_password(),
        }.items():
            object.__setattr__(self, name, value)

    def _read_password(self) -> str:
        if self._password or not self.password_file:
            return self._password
        try:
            return Path(self.password_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"mqtt.password_file {self.password_file}: {error}",
                hint="a text file that holds nothing but the password",
            ) from None

    @property
    def credentials(self) -> tuple[str, str] | None:
        """User and password, or ``None`` to connect anonymously."""
        return (self._user, self._password) if self._user or self._password else None

    def with_client_id(self, client_id: str) -> Self:
        """The same broker, another session."""
        other = replace(self, client_id=client_id)
        object.__setattr__(other, "_user", self._user)
        object.__setattr__(other, "_password", self._password)
        return other

    def tls_context(self) -> ssl.SSLContext:
        """Verifies the broker against ``ca_file`` (default: the system's authorities) and its host name."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                f"mqtt: cannot load the certificates: {error}", hint="check ca_file, cert_file and key_file (PEM)"
            ) from None
        return context


_URL_HINT = "write mqtt://host:1883 or mqtts://host:8883"


def _bare(url: str) -> str:
    """Without user and password, which are kept apart."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else url
