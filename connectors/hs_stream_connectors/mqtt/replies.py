"""What a broker answers: CONNACK, SUBACK, DISCONNECT, and reason codes in words.

1. Every function takes one whole packet and raises `ProtocolError` for what no broker may send, and nothing else.
2. A reason code that the standard does not have is no error: it is shown as its number.
3. MQTT 3.1.1 has codes of its own for CONNACK; they are given as those of MQTT 5 that mean the same.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from hs_stream_connectors.mqtt.packets import ProtocolError, variable_length

__all__ = ["FAILURE", "Connack", "connack", "disconnect", "reason_text", "suback"]

FAILURE: Final = 0x80
"""Codes from here on say no."""
_REASONS: Final = {
    0x00: "Success",
    0x04: "Disconnect with will message",
    0x10: "No matching subscribers",
    0x80: "Unspecified error",
    0x81: "Malformed packet",
    0x82: "Protocol error",
    0x83: "Implementation specific error",
    0x84: "Unsupported protocol version",
    0x85: "Client identifier not valid",
    0x86: "Bad user name or password",
    0x87: "Not authorized",
    0x88: "Server unavailable",
    0x89: "Server busy",
    0x8A: "Banned",
    0x8B: "Server shutting down",
    0x8C: "Bad authentication method",
    0x8D: "Keep alive timeout",
    0x8E: "Session taken over",
    0x8F: "Topic filter invalid",
    0x90: "Topic name invalid",
    0x91: "Packet identifier in use",
    0x92: "Packet identifier not found",
    0x93: "Receive maximum exceeded",
    0x94: "Topic alias invalid",
    0x95: "Packet too large",
    0x96: "Message rate too high",
    0x97: "Quota exceeded",
    0x98: "Administrative action",
    0x99: "Payload format invalid",
    0x9A: "Retain not supported",
    0x9B: "QoS not supported",
    0x9C: "Use another server",
    0x9D: "Server moved",
    0x9E: "Shared subscription not supported",
    0x9F: "Connection rate exceeded",
    0xA0: "Maximum connect time",
    0xA1: "Subscription identifiers not supported",
    0xA2: "Wildcard subscription not supported",
}
_OLD_CONNACK: Final = {0: 0x00, 1: 0x84, 2: 0x85, 3: 0x88, 4: 0x86, 5: 0x87}
_WIDTHS: Final = {0x11: 4, 0x13: 2, 0x21: 2, 0x22: 2, 0x24: 1, 0x25: 1, 0x27: 4, 0x28: 1, 0x29: 1, 0x2A: 1}
"""Bytes of the numbers among the properties of an answer (MQTT 5, section 2.2.2.2)."""
_TEXTS: Final = {0x12: 1, 0x15: 1, 0x16: 1, 0x1A: 1, 0x1C: 1, 0x1F: 1, 0x26: 2}
"""How many strings each of the other properties has."""
_KEEPALIVE: Final = 0x13
_RECEIVE_MAXIMUM: Final = 0x21
_RETAIN: Final = 0x25
_MAXIMUM_PACKET: Final = 0x27
_IDENTIFIERS: Final = 0x29
_LARGEST: Final = 0x0FFF_FFFF + 5
"""Bytes of the largest packet that MQTT has."""


class Connack(NamedTuple):
    """``code`` as in MQTT 5. The rest is what the broker said, or what holds where it says nothing."""

    code: int
    session_present: bool = False
    receive_maximum: int = 65_535
    maximum_packet: int = _LARGEST
    keepalive: int | None = None
    identifies: bool = False
    retains: bool = True


def reason_text(code: int) -> str:
    """A reason code in words and as its number."""
    return f"{_REASONS[code]} (0x{code:02x})" if code in _REASONS else f"unknown reason code 0x{code:02x}"


def connack(packet: bytes, *, v5: bool) -> Connack:
    """The answer to CONNECT."""
    body = _body(packet, 2)
    present = bool(body[0] & 1)
    if not v5:
        return Connack(_OLD_CONNACK.get(body[1], body[1] | FAILURE), present)
    if body[1] in _OLD_CONNACK and body[1]:
        # A broker that does not have MQTT 5 may say so in the words of 3.1.1.
        return Connack(_OLD_CONNACK[body[1]])
    # Who refuses needs no properties.
    found = {} if body[1] >= FAILURE else _properties(body, 2)[0]
    return Connack(
        body[1],
        present,
        found.get(_RECEIVE_MAXIMUM, 0) or 65_535,
        found.get(_MAXIMUM_PACKET, 0) or _LARGEST,
        found.get(_KEEPALIVE),
        bool(found.get(_IDENTIFIERS, 1)),
        bool(found.get(_RETAIN, 1)),
    )


def suback(packet: bytes, *, v5: bool) -> tuple[int, bytes]:
    """The packet id of a SUBSCRIBE, and a reason code for each of its filters."""
    body = _body(packet, 3)
    at = _properties(body, 2)[1] if v5 else 2
    return body[0] << 8 | body[1], body[at:]


def disconnect(packet: bytes) -> int:
    """Why the broker ends the connection."""
    body = _body(packet, 0)
    return body[0] if body else 0


def _body(packet: bytes, least: int) -> bytes:
    header = variable_length(packet, 1)
    if header is None or len(packet) - header[1] < least:
        raise ProtocolError(f"the broker sent an answer that is too short: {packet[:20].hex()}")
    return packet[header[1] :]


def _properties(body: bytes, at: int) -> tuple[dict[int, int], int]:
    """The numbers among the properties that begin at ``at``, and where they end."""
    malformed = ProtocolError(f"the broker sent a malformed answer: {body[:40].hex()}")
    header = variable_length(body, at)
    if header is None or header[0] + header[1] > len(body):
        raise malformed
    size, at = header
    end, found = at + size, {}
    while at < end:
        kind = body[at]
        at += 1
        if kind in _WIDTHS:
            found[kind] = int.from_bytes(body[at : at + _WIDTHS[kind]])
            at += _WIDTHS[kind]
            continue
        if kind not in _TEXTS:
            raise ProtocolError(f"the broker sent an answer with the unknown property 0x{kind:02x}")
        for _ in range(_TEXTS[kind]):
            at += 2 + int.from_bytes(body[at : at + 2])
    if at != end:
        raise malformed
    return found, end
