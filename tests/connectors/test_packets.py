"""PUBLISH and PUBACK: our framing against paho's own, in every possible cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt import _packet
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from hs_stream_connectors.mqtt.packets import LARGEST, PINGREQ, Message, PacketReader, ProtocolError, puback, publish


class Log:
    def __init__(self, *, v5: bool, largest: int = LARGEST) -> None:
        self.acks: list[tuple[int, int]] = []
        self.others: list[bytes] = []
        self.reader = PacketReader(
            v5=v5, confirmed=lambda mid, code: self.acks.append((mid, code)), other=self.others.append, largest=largest
        )


messages = st.lists(
    st.tuples(
        st.text(st.characters(codec="utf-8", exclude_characters="\0+#"), min_size=1, max_size=20),
        st.binary(max_size=300),
        st.integers(1, 65_535),
        st.booleans(),
        st.booleans(),
    ),
    max_size=6,
)


@given(messages, st.lists(st.integers(1, 400), max_size=8), st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_is_packed_is_read_in_every_cut(
    items: list[tuple[str, bytes, int, bool, bool]], cuts: list[int], v5: bool
) -> None:
    stream = b""
    for topic, payload, mid, retain, dup in items:
        stream += publish(topic.encode(), payload, mid=mid, retain=retain, dup=dup, v5=v5) + puback([mid]) + PINGREQ
    log, at = Log(v5=v5), 0
    for size in [*cuts, len(stream)]:
        if stream[at : at + size]:
            log.reader.feed(stream[at : at + size])
        at += size
    assert log.reader.messages == [Message(t.encode(), p, mid, 1, retain, dup) for t, p, mid, retain, dup in items]
    assert log.acks == [(mid, 0) for _, _, mid, _, _ in items]
    assert log.others == [PINGREQ] * len(items)


@pytest.mark.parametrize("v5", [True, False])
@pytest.mark.parametrize("size", [0, 100, 127, 128, 16_383, 16_384, 3_000_000])
def test_paho_reads_what_we_pack(v5: bool, size: int) -> None:
    packet = publish(b"a/b", b"x" * size, mid=77, retain=True, dup=False, v5=v5)
    header = 1
    while packet[header] & 0x80:
        header += 1
    version = MQTTProtocolVersion.MQTTv5 if v5 else MQTTProtocolVersion.MQTTv311
    decoded = _packet.decode_publish(packet[0], packet[header + 1 :], version)
    assert (decoded.topic, len(decoded.payload), decoded.mid, decoded.qos) == (b"a/b", size, 77, 1)
    assert decoded.retain
    assert not decoded.dup
    log = Log(v5=v5, largest=4_000_000)
    log.reader.feed(packet)
    assert log.reader.messages[0].payload == b"x" * size


def test_properties_of_mqtt_5_other_than_identifiers_are_skipped() -> None:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.UserProperty = ("key", "x" * 200)
    properties.ContentType = "application/json"
    body = b"\x00\x01a" + properties.pack() + b"payload"  # type: ignore[no-untyped-call]
    log = Log(v5=True)
    log.reader.feed(bytes([0x30, len(body) & 0x7F | 0x80, len(body) >> 7]) + body)
    assert log.reader.messages == [Message(b"a", b"payload", 0, 0, False, False)]


def test_identifiers_of_subscriptions_among_all_properties() -> None:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.PayloadFormatIndicator = 1
    properties.MessageExpiryInterval = 7
    properties.ContentType = "application/json"
    properties.ResponseTopic = "r"
    properties.CorrelationData = b"\x0b\x0b"
    properties.TopicAlias = 3
    properties.UserProperty = ("key", "\x0b")
    packed = properties.pack()[1:]  # type: ignore[no-untyped-call]
    log = Log(v5=True)
    for before, after in [(b"\x0b\x05", b"\x0b\xff\xff\xff\x7f"), (b"", b"\x0b\x80\x01")]:
        for middle in (packed, b"", b""):
            body = b"\x00\x01a" + bytes([len(before + middle + after)]) + before + middle + after + b"payload"
            log.reader.feed(bytes([0x30, len(body)]) + body)
    assert {message.payload for message in log.reader.messages} == {b"payload"}
    assert [message.identifiers for message in log.reader.messages] == [(5, 268_435_455)] * 3 + [(128,)] * 3


@pytest.mark.parametrize(
    "properties", [b"\x0b", b"\x0b\x80", b"\x0b\xff\xff\xff\xff", b"\x7e\x01", b"\x03\x00", b"\x03\x00\x05ab"]
)
def test_malformed_properties(properties: bytes) -> None:
    body = b"\x00\x01a" + bytes([len(properties)]) + properties
    with pytest.raises(ProtocolError):
        Log(v5=True).reader.feed(bytes([0x30, len(body)]) + body)


def test_a_refusing_puback_carries_its_reason() -> None:
    log = Log(v5=True)
    log.reader.feed(b"\x40\x03\x00\x07\x87" + b"\x40\x04\x00\x08\x10\x00")
    assert log.acks == [(7, 0x87), (8, 0x10)]


@pytest.mark.parametrize(
    "stream",
    [
        b"\x34\x07\x00\x01a\x00\x01xy",  # QoS 2
        b"\x30\x01\x00",  # no room for the topic's length
        b"\x30\x02\x00\x09",  # a topic longer than the packet
        b"\x32\x03\x00\x01a",  # no packet id
        b"\x30\xff\xff\xff\xff\x01",  # a length of five bytes
        b"\x30\x05\x00\x01a\x09b",  # properties longer than the packet
    ],
)
def test_what_no_broker_may_send_is_an_error(stream: bytes) -> None:
    with pytest.raises(ProtocolError):
        Log(v5=True).reader.feed(stream)


@given(st.binary(max_size=100), st.booleans())
def test_random_bytes_never_crash(stream: bytes, v5: bool) -> None:
    log = Log(v5=v5)
    try:
        log.reader.feed(stream)
    except ProtocolError:
        return
    assert len(log.reader.messages) <= len(stream)


@pytest.mark.parametrize("v5", [True, False])
@pytest.mark.parametrize("cut", [1, 70_000, 262_144])
def test_of_a_message_that_is_too_large_only_the_beginning_is_kept(v5: bool, cut: int) -> None:
    small = publish(b"a/small", b"21.5", mid=6, retain=False, dup=False, v5=v5)
    stream = small + publish(b"a/large", b"x" * 2_000_000, mid=7, retain=True, dup=False, v5=v5) + small
    log, most = Log(v5=v5, largest=1_000_000), 0
    cuts = [*range(0, 300, cut), *range(300, len(stream), max(cut, 9_000))]
    for start, end in zip(cuts, [*cuts[1:], len(stream)], strict=True):
        log.reader.feed(stream[start:end])
        most = max(most, log.reader._kept_size)
        if end < len(stream) - len(small):
            assert len(log.reader.messages) <= 1, "it is not acknowledged before all of it has come"
    first, large, last = log.reader.messages
    assert first == last == Message(b"a/small", b"21.5", 6, 1, False, False)
    assert (large.topic, large.mid, large.qos, large.retain) == (b"a/large", 7, 1, True)
    assert set(large.payload) == {ord("x")}
    assert len(large.payload) + large.left_out == 2_000_000
    assert most < 200_000
    assert 65_536 <= len(large.payload) < 200_000


def test_properties_that_are_too_large_are_not_kept_either() -> None:
    properties = b"\x26" + b"\x00\x01k" + b"\xff\xff" + b"v" * 65_535
    body = b"\x00\x01a\x00\x07" + bytes([0xC4, 0x80, 0x28]) + (properties * 10)[: 0x28 << 14 | 0x44] + b"21.5"
    length = len(body)
    log = Log(v5=True, largest=100_000)
    packet = bytes([0x32, length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14]) + body
    for start in range(0, len(packet), 10_000):
        log.reader.feed(packet[start : start + 10_000])
    assert [(one.topic, one.mid, one.payload) for one in log.reader.messages] == [(b"a", 7, b"")]
    assert log.reader.messages[0].left_out > 400_000


def test_a_large_packet_that_is_no_message_ends_the_connection() -> None:
    with pytest.raises(ProtocolError):
        Log(v5=True).reader.feed(b"\xe0\xff\xff\xff\x7f")
