"""What connects hs_stream to the world: MQTT in and out, payload codecs, and a simulated house."""
