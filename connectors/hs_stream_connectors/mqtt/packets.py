"""The two MQTT packets that a service sees tens of thousands of times a second.

1. `PacketReader` cuts the byte stream into packets. PUBLISH becomes a `Message`, PUBACK a confirmation, everything else
   is handed on whole (see `hs_stream_connectors.mqtt.replies`).
2. Of the properties of an MQTT 5 PUBLISH only the subscription identifiers count: none of the others changes what a
   reading is. (We never allow topic aliases.)
3. `ProtocolError` for bytes that no broker may send, such as QoS 2, which we never subscribe with.
4. A PUBLISH larger than ``largest`` is read and not kept, but for its topic and the first bytes of its payload: whoever
   sends 200 MB costs their time on the wire, and no memory. It is a `Message` once all of it has come, so that it is
   acknowledged as others are. Any other packet of that size is a `ProtocolError`.

paho's own parser costs several times as much per PUBLISH, and ten times with MQTT 5, where it builds a table of all
properties per packet (see docs/decisions/0002-one-mqtt-client.md).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from hs_stream.core.errors import BrokerUnavailable

__all__ = [
    "DISCONNECT",
    "LARGEST",
    "PINGREQ",
    "Message",
    "PacketReader",
    "ProtocolError",
    "puback",
    "publish",
    "publish_size",
    "variable_length",
]

PINGREQ: Final = b"\xc0\x00"
DISCONNECT: Final = b"\xe0\x00"
_PUBLISH: Final = 3
_PUBACK: Final = 0x40
_FAILURE: Final = 0x80
_QOS2: Final = 2
_U16: Final = struct.Struct("!H")
_ACK: Final = struct.Struct("!BBH")
_IDENTIFIER: Final = 0x0B
_FIXED: Final = {0x01: 1, 0x02: 4, 0x23: 2}
"""Bytes of the payload format, the expiry and the topic alias."""
_TEXTS: Final = {0x03: 1, 0x08: 1, 0x09: 1, 0x26: 2}
"""How many strings: of the content type, the response topic, the correlation data and a user property."""
_LONGEST_IDENTIFIER: Final = 5
LARGEST: Final = 1 << 20
_KEPT: Final = 192 * 1024
"""Of what is larger: the longest topic, properties of usual length, and a payload as long as a dead letter keeps."""
_CACHED: Final = 1_000


class ProtocolError(BrokerUnavailable):
    """The other side does not speak MQTT as it should."""


class Message(NamedTuple):
    """One PUBLISH that came in. ``topic`` is as on the wire; ``mid`` is 0 at QoS 0.

    ``identifiers``: of the subscriptions that this copy is for; empty where the broker does not say. ``left_out``:
    bytes that were not kept, since the packet was too large: about so much of the payload is missing.
    """

    topic: bytes
    payload: bytes
    mid: int
    qos: int
    retain: bool
    dup: bool
    identifiers: tuple[int, ...] = ()
    left_out: int = 0


class PacketReader:
    """Feed it bytes; it appends to ``messages`` and calls ``confirmed(mid, reason)`` and ``other(packet)`` in order.

    Of an unfinished packet it keeps the bytes so far, and joins them once. ``largest`` in bytes: see rule 4.
    """

    def __init__(
        self,
        *,
        v5: bool,
        confirmed: Callable[[int, int], None],
        other: Callable[[bytes], None],
        largest: int = LARGEST,
    ) -> None:
        self.messages: list[Message] = []
        self._v5 = v5
        self._confirmed, self._other = confirmed, other
        self._identifiers: dict[bytes, tuple[int, ...]] = {}
        self._kept: list[bytes] = []
        self._kept_size = 0
        self._needed = 0
        self._largest = largest
        self._begun: Message | None = None
        """A message that is too large, and of which ``_rest`` bytes have still to come."""
        self._rest = 0

    def feed(self, data: bytes) -> None:
        """Raises `ProtocolError`; the reader is of no use after that."""
        if self._begun is not None:
            if len(data) < self._rest:
                self._rest -= len(data)
                return
            self.messages.append(self._begun)
            data, self._begun, self._rest = data[self._rest :], None, 0
        if self._kept:
            self._kept.append(data)
            self._kept_size += len(data)
            if self._kept_size < self._needed:
                return
            data = b"".join(self._kept)
        try:
            done = self._cut(data)
        except (IndexError, struct.error):
            raise ProtocolError("the broker sent a malformed packet") from None
        self._kept = [data[done:]] if done < len(data) else []
        self._kept_size = len(data) - done

    def _cut(self, data: bytes) -> int:
        position, size = 0, len(data)
        self._needed = 0
        while position + 2 <= size:
            head, length, start = data[position], data[position + 1], position + 2
            if length & 0x80:
                header = variable_length(data, position + 1)
                if header is None:
                    break
                length, start = header
            end = start + length
            kind = head >> 4
            if end > size:
                if length <= self._largest:
                    self._needed = end - position
                elif kind != _PUBLISH:
                    raise ProtocolError(f"the broker sent {length} bytes that are no message")
                elif size - position >= _KEPT:
                    self._begun, self._rest = self._beginning(head, data, start, end), end - size
                    return size
                else:
                    self._needed = _KEPT
                break
            if kind == _PUBLISH:
                self.messages.append(self._message(head, data, start, end))
            elif head == _PUBACK:
                if length < 2:
                    raise IndexError
                self._confirmed(_U16.unpack_from(data, start)[0], data[start + 2] if length > 2 else 0)
            else:
                self._other(data[position:end])
            position = end
        return position

    def _beginning(self, head: int, data: bytes, start: int, end: int) -> Message:
        """Of a message of which ``data`` holds the first part only: what is kept of it."""
        kept = min(len(data), start + _KEPT)
        try:
            begun = self._message(head, data, start, kept)
        except IndexError:
            # Its properties alone are longer than that.
            topic = start + 2 + (data[start] << 8 | data[start + 1])
            qos = head >> 1 & 3
            mid = data[topic] << 8 | data[topic + 1] if qos else 0
            begun = Message(data[start + 2 : topic], b"", mid, qos, bool(head & 1), bool(head & 8))
        return begun._replace(left_out=end - kept)

    def _message(self, head: int, data: bytes, start: int, end: int) -> Message:
        qos = head >> 1 & 3
        at = start + 2 + (data[start] << 8 | data[start + 1])
        topic = data[start + 2 : at]
        mid = 0
        identifiers: tuple[int, ...] = ()
        if qos:
            if qos >= _QOS2:
                raise ProtocolError(f"the broker sent a message with QoS {qos}, which was not asked for")
            mid = data[at] << 8 | data[at + 1]
            at += 2
        if self._v5:
            properties = data[at]
            at += 1
            if properties:
                if properties & 0x80:
                    header = variable_length(data, at - 1)
                    if header is None:
                        raise IndexError
                    properties, at = header
                if at + properties > end:
                    raise IndexError
                raw = data[at : at + properties]
                found = self._identifiers.get(raw)
                identifiers = self._identifiers_in(raw) if found is None else found
                at += properties
        if at > end:
            raise IndexError
        return Message(topic, data[at:end], mid, qos, bool(head & 1), bool(head & 8), identifiers)

    def _identifiers_in(self, properties: bytes) -> tuple[int, ...]:
        """Most messages of a subscription have no other property, so the same bytes come again and again."""
        found = tuple(_identifiers(properties))
        if len(properties) <= _LONGEST_IDENTIFIER and len(self._identifiers) < _CACHED:
            self._identifiers[properties] = found
        return found


def variable_length(data: bytes, position: int) -> tuple[int, int] | None:
    """The variable length at ``position`` and where it ends; ``None`` when it is not all there."""
    value = 0
    for shift in (0, 7, 14, 21):
        if position >= len(data):
            return None
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, position
    raise ProtocolError("the broker sent a malformed packet length")


def _identifiers(properties: bytes) -> Iterator[int]:
    """The subscription identifiers in the properties of a PUBLISH (MQTT 5, sections 2.2.2.2 and 3.3.2.3)."""
    at = 0
    while at < len(properties):
        kind = properties[at]
        at += 1
        if kind == _IDENTIFIER:
            header = variable_length(properties, at)
            if header is None:
                raise IndexError
            identifier, at = header
            yield identifier
        elif kind in _FIXED:
            at += _FIXED[kind]
        elif kind in _TEXTS:
            for _ in range(_TEXTS[kind]):
                at += 2 + _U16.unpack_from(properties, at)[0]
        else:
            raise ProtocolError(f"the broker sent a message with the unknown property {kind}")
    if at > len(properties):
        raise IndexError


def puback(mids: Iterable[int]) -> bytes:
    """One PUBACK per packet id, in order. The same bytes in MQTT 3.1.1 and 5."""
    return b"".join([_ACK.pack(_PUBACK, 2, mid) for mid in mids])


def publish_size(topic: bytes, payload: bytes, *, v5: bool) -> int:
    """The bytes of what `publish` makes at QoS 1."""
    length = len(topic) + len(payload) + (5 if v5 else 4)
    return length + 2 + (length > 0x7F) + (length > 0x3FFF) + (length > 0x1F_FFFF)


def publish(topic: bytes, payload: bytes, *, mid: int, retain: bool, dup: bool, v5: bool) -> bytes:
    """A PUBLISH at QoS 1, or at QoS 0 where ``mid`` is 0."""
    length = len(topic) + len(payload) + (5 if v5 else 4) - (0 if mid else 2)
    head = bytearray(((0x32 if mid else 0x30) | retain | dup << 3,))
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    head += _U16.pack(len(topic))
    head += topic
    if mid:
        head += _U16.pack(mid)
    if v5:
        head.append(0)
    head += payload
    return bytes(head)
