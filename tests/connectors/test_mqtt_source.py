"""The MQTT source over a real mosquitto."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from hs_stream.core.errors import BrokerUnavailable, ConfigurationError
from hs_stream.engine.ports import Placing, Source
from hs_stream.service.embedded.broker import EmbeddedBroker
from hs_stream.testing.check_source import check_source
from hs_stream_connectors.codecs import Decoded, codec
from hs_stream_connectors.mqtt.options import MqttOptions
from hs_stream_connectors.mqtt.packets import Message
from hs_stream_connectors.mqtt.source import MAX_DEAD_PAYLOAD, MqttSource, SourceSpec
from hs_stream_connectors.mqtt.topics import TopicTemplate

T0 = 1_700_000_000_000


def spec(name: str, template: str, codec_name: str = "json", **options: object) -> SourceSpec:
    if codec_name == "json" and not options:
        options = {"time": {"field": "ts", "unit": "ms"}}
    return SourceSpec(name, TopicTemplate(template), codec(codec_name, **options))


CLIMATE = spec("climate", "home/{house}/{room}/climate")
NUMBER = spec("number", "check/{sensor}", time=("ts", "ms"), fields=["n"])


class NumbersCodec:
    """The number itself is both the value and the offset of its time."""

    name = "numbers"
    plates: tuple[str, ...] = ()
    placing = Placing.CORRECT

    def decode(self, topic: str, payload: bytes, arrival: int, retained: bool) -> Decoded:
        return [(T0 + int(payload), int(payload))]


class Harness:
    def __init__(self, broker: EmbeddedBroker, version: Literal[3, 5], sending: Any) -> None:
        self.broker, self.version, self.sending = broker, version, sending

    def make(self) -> Source:
        options = MqttOptions(self.broker.url, client_id="checked", version=self.version, backoff_max=0.3)
        return MqttSource("mqtt", options, [SourceSpec("n", TopicTemplate("check/{sensor}"), NumbersCodec())])

    async def send(self, numbers: Sequence[int]) -> None:
        await self.sending(self.broker, [("check/a", str(number).encode()) for number in numbers])

    async def interrupt(self) -> None:
        await self.broker.restart()


async def test_it_keeps_the_law_of_sources(broker: EmbeddedBroker, version: Literal[3, 5], sending: Any) -> None:
    await check_source(Harness(broker, version, sending), many=1_000)


async def test_a_message_becomes_a_reading_with_its_plate_values(
    broker: EmbeddedBroker, version: Literal[3, 5], sending: Any, taker: Any, sources: Any
) -> None:
    async with taker(sources(broker, version, CLIMATE)) as took:
        before = time.time_ns() // 1_000_000
        payload = b'{"ts": 1423072260000, "temperature": 21.43}'
        await sending(broker, [("home/1/kitchen/climate", payload), ("home/1/kitchen/other", b"x")])
        await took.until(1)
        assert took.readings == [
            ("climate", {"house": "1", "room": "kitchen"}, 1_423_072_260_000, {"temperature": 21.43})
        ]
        assert took.deliveries[0].size == len(payload)
        assert before <= took.deliveries[0].arrival <= time.time_ns() // 1_000_000
        assert took.source.statistics().readings == 1
        assert took.source.connection_statistics().connected
        assert took.states == [True]


async def test_one_message_serves_every_source_whose_filter_matches(
    broker: EmbeddedBroker, version: Literal[3, 5], sending: Any, taker: Any, sources: Any
) -> None:
    everything = spec("text", "home/#", "text")
    async with taker(sources(broker, version, CLIMATE, everything)) as took:
        await sending(broker, [("home/1/hall/climate", b'{"ts": 1423072260000, "t": 1}'), ("home/x", b"hello")])
        await asyncio.sleep(0.2)
        assert {reading[0] for reading in took.readings} == {"climate", "text"}
        assert "hello" in took.values


async def test_qos_0_is_delivered_too(
    broker: EmbeddedBroker, version: Literal[3, 5], sending: Any, taker: Any, sources: Any
) -> None:
    async with taker(sources(broker, version, CLIMATE)) as took:
        await sending(broker, [("home/1/hall/climate", b'{"ts": 1423072260000, "t": 1}')], qos=0)
        await took.until(1)
        assert took.values == [{"t": 1}]


async def test_bad_payloads_become_dead_letters_and_good_ones_go_on(
    broker: EmbeddedBroker, version: Literal[3, 5], sending: Any, taker: Any, sources: Any
) -> None:
    huge = b'{"ts": 1423072260000, "x": "' + b"x" * 5_000_000 + b'"}'
    bad = [b"not json", b"\xff\xfe", b"[" * 1000 + b"]" * 1000, b'{"ts": NaN}', b'{"t": 1}', b'{"ts": 5}', huge, b"7"]
    async with taker(sources(broker, version, CLIMATE)) as took:
        messages = [("home/1/hall/climate", payload) for payload in bad]
        messages += [("home/a=b/hall/climate", b"{}"), ("home//hall/climate", b"{}")]
        messages += [("home/1/hall/climate", b'{"ts": 1423072260000, "t": 1}')]
        await sending(broker, messages)
        await took.until(len(messages))
        assert took.reasons == [
            "json", "encoding", "depth", "json", "time_missing", "before_earliest", "too_large", "type",
            "plate_value", "plate_value",
        ]  # fmt: skip
        assert took.values == [{"t": 1}]
        letters = [letter for delivery in took.deliveries for letter in delivery.dead_letters]
        assert letters[6].payload == huge[:MAX_DEAD_PAYLOAD]
        assert f"cut to {MAX_DEAD_PAYLOAD} of {len(huge)}" in letters[6].message
        assert letters[0].topic == "home/1/hall/climate"
        assert letters[0].source == "climate"


def test_a_field_that_no_message_has_is_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    def send(topic: str, payload: bytes, times: int) -> None:
        for _ in range(times):
            source.decode([Message(topic.encode(), payload, 0, 0, False, False)], lambda: None)

    source = MqttSource(
        "mqtt",
        MqttOptions("mqtt://127.0.0.1:1", client_id="x"),
        [
            spec("misspelt", "climate", fields=["temperature", "humidty"]),
            spec("late", "climate", fields=["temperature", "co2"]),
            spec("zigbee", "z/#", "zigbee2mqtt", fields=["temperature"]),
            spec("channel", "s/events/rpc", "shelly", bind={"channel": "component"}, fields=["apower"]),
            spec("whole", "climate"),
        ],
    )
    statistics = source.statistics()
    send("climate", b'{"temperature": 21.5, "humidity": 40}', 19)
    send("z/bridge/logging", b"{}", 50)
    send("s/events/rpc", b'{"method": "NotifyStatus", "params": {"ts": 1700000000, "switch:0": {"apower": 7}}}', 1)
    assert statistics.missing == {"misspelt": {"humidty"}, "late": {"co2"}, "zigbee": {"temperature"}}
    assert not caplog.records
    send("climate", b'{"temperature": 21.5, "humidity": 40, "co2": 400}', 50)
    assert statistics.missing == {"misspelt": {"humidty"}, "zigbee": {"temperature"}}
    (record,) = caplog.records
    assert record.getMessage() == (
        "source misspelt: none of its first 20 messages has the field humidty; "
        "the last one: it has temperature, humidity, co2: did you mean humidity?"
    )


def test_what_the_engine_is_told_of_a_reading() -> None:
    """Whether it has a time of its own, and what its message and its codec say of another value there."""

    def told(topic: str, payload: bytes, retain: bool = False, dup: bool = False) -> list[tuple[int, Placing]]:
        delivery = source.decode([Message(topic.encode(), payload, 1, 1, retain, dup)], lambda: None)
        assert delivery.arrival == 7
        return [(reading.time, reading.placing) for reading in delivery.readings]

    specs = [
        spec("json", "json"),
        spec("arrival", "arrival", time="arrival"),
        spec("zigbee", "z/{device}", "zigbee2mqtt"),
        spec("tasmota", "{device}/SENSOR", "tasmota", zone="UTC"),
        spec("power", "{device}/POWER", "tasmota", zone="UTC"),
        spec("shelly", "{device}/events/rpc", "shelly", fields=["switch:0.apower"]),
    ]
    source = MqttSource("mqtt", MqttOptions("mqtt://127.0.0.1:1", client_id="x"), specs, now=lambda: 7)
    assert told("json", b'{"ts": %d}' % T0, dup=True) == [(T0, Placing.CORRECT)]
    assert told("arrival", b'{"a": 1}') == [(7, Placing.ARRIVAL)]
    seen = b'{"last_seen": %d, "on": true}' % T0
    assert told("z/a", seen) == [(T0, Placing.UPDATE)]
    assert told("z/a", seen, dup=True) == [(T0, Placing.REPEAT)]
    assert told("z/a", seen, retain=True) == told("z/a", seen, retain=True, dup=True) == [(T0, Placing.RETAINED)]
    assert told("z/a", b'{"on": true}', dup=True) == [(7, Placing.ARRIVAL)]
    assert told("p/SENSOR", b'{"Time": "2023-11-14T22:13:20", "A": 1}') == [(T0, Placing.MERGE)]
    assert told("p/POWER", b"ON") == [(7, Placing.ARRIVAL)]
    rpc = b'{"method": "NotifyStatus", "params": {"ts": 1700000000, "switch:0": {"apower": 7}}}'
    assert told("s/events/rpc", rpc) == [(T0, Placing.CORRECT)]


def test_of_long_topics_none_is_remembered() -> None:
    """Twenty thousand of 65,000 bytes were 2.5 GB."""
    specs = [spec("json", "home/{device}")]
    source = MqttSource("mqtt", MqttOptions("mqtt://127.0.0.1:1", client_id="x"), specs, now=lambda: 7)
    for size in (100, 60_000):
        [letter] = source.decode([Message(b"home/" + b"x" * size, b"{", 1, 1, False, False)], lambda: None).dead_letters
        assert letter.topic == "home/" + "x" * size
    assert max(map(len, source._routes)) == len("home/") + 100


async def test_what_comes_again_says_so(
    broker: EmbeddedBroker, version: Literal[3, 5], sending: Any, taker: Any, sources: Any
) -> None:
    """`Placing.REPEAT` rests on it: a broker sets DUP on what it sends again to a session."""
    zigbee = spec("zigbee", "z/{device}", "zigbee2mqtt")
    async with taker(sources(broker, version, zigbee), ack=False) as took:
        await sending(broker, [("z/a", b'{"last_seen": %d}' % T0)])
        await took.until(1)
    await sending(broker, [("z/a", b'{"last_seen": %d, "on": true}' % T0)])
    async with taker(sources(broker, version, zigbee)) as took:
        await took.until(2)
        placings = [reading.placing for delivery in took.deliveries for reading in delivery.readings]
        assert placings == [Placing.REPEAT, Placing.UPDATE]


async def test_one_bad_element_does_not_lose_the_batch(
    broker: EmbeddedBroker, version: Literal[3, 5], sending: Any, taker: Any, sources: Any
) -> None:
    async with taker(sources(broker, version, CLIMATE)) as took:
        batch = b'[{"ts": 1423072260000, "t": 1}, {"t": 2}, {"ts": 1423072261000, "t": 3}]'
        await sending(broker, [("home/1/hall/climate", batch)])
        await took.until(3)
        assert took.values == [{"t": 1}, {"t": 3}]
        assert took.reasons == ["time_missing"]
        assert took.deliveries[0].dead_letters[0].message.startswith("element 1: ")


async def test_a_message_of_bad_elements_is_one_dead_letter(
    broker: EmbeddedBroker, version: Literal[3, 5], sending: Any, taker: Any, sources: Any
) -> None:
    """200 kB would be 6.4 GB of dead letters, one for each element."""
    batch = b"[" + b"0," * 100_000 + b'{"t": 1}, {"ts": 1423072261000, "t": 3}]'
    source = sources(broker, version, CLIMATE)
    async with taker(source) as took:
        await sending(broker, [("home/1/hall/climate", batch)])
        await took.until(2)
        assert took.values == [{"t": 3}]
        letters = {one.reason: one for delivery in took.deliveries for one in delivery.dead_letters}
        assert {reason: one.count for reason, one in letters.items()} == {"type": 100_000, "time_missing": 1}
        assert letters["type"].message.startswith("element 0: the payload is a number, not an object")
        assert "99997 more (100000 in this message)" in letters["type"].message
        assert source.statistics().dead_letters == 100_001


async def test_a_retained_message_is_a_reading_only_with_a_time_of_its_own(
    broker: EmbeddedBroker, version: Literal[3, 5], sending: Any, taker: Any, sources: Any
) -> None:
    await sending(broker, [("home/1/hall/climate", b'{"ts": 1423072260000, "t": 1}'), ("bare/a", b"21.5")], retain=True)
    async with taker(sources(broker, version, CLIMATE, spec("bare", "bare/{s}", "number"))) as took:
        await took.until(2)
        assert took.values == [{"t": 1}]
        assert took.reasons == ["retained"]
        await sending(broker, [("bare/a", b"22.5")], retain=True)
        await took.until(3)
        assert took.values[1:] == [22.5]


async def test_retained_messages_come_once_per_subscription_with_v5(
    broker: EmbeddedBroker, sending: Any, taker: Any, sources: Any
) -> None:
    await sending(broker, [("bare/a", b"21.5")], retain=True)
    bare = spec("bare", "bare/{s}", "number")
    async with taker(sources(broker, 5, bare)) as took:
        await took.until(1)
    async with taker(sources(broker, 5, bare)) as took:
        await asyncio.sleep(0.3)
        assert took.reasons == []


async def test_messages_sent_while_away_come_later(
    broker: EmbeddedBroker, version: Literal[3, 5], sending: Any, taker: Any, sources: Any
) -> None:
    async with taker(sources(broker, version, NUMBER)):
        pass
    await sending(broker, [("check/a", b'{"ts": %d, "n": %d}' % (T0 + i, i)) for i in range(50)])
    async with taker(sources(broker, version, NUMBER)) as took:
        await took.until(50)
        assert [value["n"] for value in took.values] == list(range(50))


async def test_local_times_of_the_night_in_which_clocks_go_back(
    broker: EmbeddedBroker, version: Literal[3, 5], sending: Any, taker: Any
) -> None:
    """What comes live, what the broker sends again, what it kept for hours, and what it retains."""
    times = {"field": "t", "zone": "Europe/Brussels"}
    clock = 0
    specs = [spec("radio", "rtl_433/{sensor}", time=times, fields=["n"])]
    turn = 1_792_890_000_000  # 2026-10-25T01:00:00Z

    def message(minute: int, n: int) -> tuple[str, bytes]:
        return "rtl_433/a", b'{"t": "2026-10-25 02:%02d:00", "n": %d}' % (minute, n)

    def source(client_id: str = "night") -> MqttSource:
        options = MqttOptions(broker.url, client_id=client_id, version=version, backoff_max=0.3)
        return MqttSource("mqtt", options, specs, now=lambda: clock)

    live = [(10, turn - 3_000_000), (40, turn - 1_200_000), (10, turn + 600_000), (40, turn + 2_400_000)]
    async with taker(source()) as took:
        for number, (minute, time_) in enumerate(live):
            clock = time_ + 1_000
            await sending(broker, [message(minute, number)])
            await took.until(number + 1)
        assert [reading[2] for reading in took.readings] == [time_ for _, time_ in live]
    async with taker(source(), ack=False) as took:
        await sending(broker, [message(50, 4), message(51, 5)])
        await took.until(2)
    async with taker(source()) as took:  # again, and then what steps back is no second pass
        clock = turn + 3_061_000
        await took.until(2)
        assert [reading[2] - turn for reading in took.readings] == [3_000_000, 3_060_000]
    kept = [message(10, 6), message(40, 7), message(10, 8), ("rtl_433/a", b'{"t": "2026-10-25 03:00", "n": 9}')]
    await sending(broker, kept)
    clock = turn + 6 * 3_600_000
    async with taker(source()) as took:
        await took.until(len(kept))
        assert [reading[2] - turn for reading in took.readings] == [3_600_000]
        assert took.reasons == ["time_invalid"] * 3
        letter = took.deliveries[0].dead_letters[0]
        assert "occurs twice, at 2026-10-25T00:10:00Z and 2026-10-25T01:10:00Z" in letter.message
    await sending(broker, [message(40, 10)], retain=True)
    clock = turn + 2_401_000
    async with taker(source("another")) as took:
        await took.until(1)
        assert took.reasons == ["time_invalid"]


async def test_it_comes_back_after_the_broker_was_killed(
    broker: EmbeddedBroker, version: Literal[3, 5], sending: Any, taker: Any, sources: Any
) -> None:
    async with taker(sources(broker, version, NUMBER)) as took:
        await broker.kill()
        await asyncio.sleep(0.3)
        assert took.states == [True, False]
        await broker.start()
        await took.source.wait_connected(10)
        await sending(broker, [("check/a", b'{"ts": %d, "n": 1}' % T0)])
        await took.until(1)
        assert took.states == [True, False, True]
        assert took.source.connection_statistics().connects == 2


async def test_it_waits_for_a_broker_that_is_not_there_yet(
    broker: EmbeddedBroker, version: Literal[3, 5], taker: Any, sources: Any
) -> None:
    await broker.stop()
    source = sources(broker, version, NUMBER)
    task = asyncio.create_task(source.run(taker(source).deliver, lambda _: None))
    with pytest.raises(BrokerUnavailable, match=r"no MQTT broker answers at 127\.0\.0\.1.*mqtt\.url"):
        await source.wait_connected(0.5)
    await broker.start()
    async with asyncio.timeout(10):
        while not source.connection_statistics().connected:
            await asyncio.sleep(0.02)
    assert source.connection_statistics().failures >= 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_wrong_password_is_named_and_tried_again(
    tmp_path: Path, version: Literal[3, 5], taker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with EmbeddedBroker(tmp_path, password="right") as guarded:
        wrong = tmp_path / "wrong"
        wrong.write_text("wrong-secret\n")
        url = f"mqtt://127.0.0.1:{guarded.port}"
        options = MqttOptions(url, username="hs-stream", password_file=str(wrong), version=version, backoff_max=0.2)
        source = MqttSource("mqtt", options, [NUMBER])
        task = asyncio.create_task(source.run(taker(source).deliver, lambda _: None))
        with pytest.raises(BrokerUnavailable, match=r"refuses us: .*mqtt\.password_file"):
            await source.wait_connected(10)
        async with asyncio.timeout(10):
            while source.connection_statistics().failures < 3:
                await asyncio.sleep(0.02)
        assert sum("refuses us" in record.getMessage() for record in caplog.records) == 1
        assert "wrong-secret" not in caplog.text + repr(options)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with taker(MqttSource("mqtt", MqttOptions(guarded.url, version=version), [NUMBER])) as took:
            assert took.states == [True]


async def test_a_server_that_does_not_speak_mqtt_is_named(version: Literal[3, 5]) -> None:
    async def chat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(chat, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    options = MqttOptions(f"mqtt://127.0.0.1:{port}", version=version, connect_timeout=0.3)
    source = MqttSource("mqtt", options, [NUMBER])

    async def deliver(_: object) -> None:
        raise AssertionError

    task = asyncio.create_task(source.run(deliver, lambda _: None))
    with pytest.raises(BrokerUnavailable):
        await source.wait_connected(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server.close()


async def test_pings_go_out_while_nobody_takes(
    broker: EmbeddedBroker, version: Literal[3, 5], sending: Any, taker: Any
) -> None:
    options = MqttOptions(broker.url, client_id="slow", version=version, keepalive=1)
    source = MqttSource("mqtt", options, [NUMBER])
    gate = asyncio.Event()
    took = taker(source)

    async def deliver(delivery: object) -> None:
        await took.deliver(delivery)
        await gate.wait()

    states: list[bool] = []
    task = asyncio.create_task(source.run(deliver, states.append))
    await source.wait_connected(5)
    await sending(broker, [("check/a", b'{"ts": %d, "n": 1}' % T0)])
    await asyncio.sleep(3.0)  # mosquitto gives up after 1.5 keepalives
    gate.set()
    await sending(broker, [("check/a", b'{"ts": %d, "n": 2}' % (T0 + 1))])
    await took.until(2)
    assert states == [True]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_second_service_with_the_same_client_id_is_named(
    broker: EmbeddedBroker, taker: Any, sources: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with taker(sources(broker, 5, NUMBER)), taker(sources(broker, 5, NUMBER)):
        async with asyncio.timeout(5):
            while "does another client use the same" not in caplog.text:
                await asyncio.sleep(0.02)


def test_two_sources_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="same name"):
        MqttSource("mqtt", MqttOptions(), [NUMBER, NUMBER])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"url": "http://localhost"}, "not a broker's address"),
        ({"url": "mqtt://user:topsecret@host:x"}, "mqtt.url"),
        ({"version": 4}, "mqtt.version"),
        ({"client_id": ""}, "client_id"),
        ({"cert_file": "a.pem"}, "together"),
        ({"password_file": "/nowhere/at/all"}, "password_file"),
        ({"receive_maximum": 0}, "receive_maximum"),
    ],
)
def test_wrong_options_say_which(options: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match) as caught:
        MqttOptions(**options)  # type: ignore[arg-type]
    assert "topsecret" not in str(caught.value)


async def test_overlapping_filters_get_each_message_once(
    broker: EmbeddedBroker, version: Literal[3, 5], sending: Any, taker: Any, sources: Any, caplog: Any
) -> None:
    """mosquitto sends a copy for each subscription that matches, with MQTT 5; other brokers do with 3.1.1 too."""
    filters = {"wide": "shellies/{plug}/{q#}", "narrow": "shellies/{plug}/relay/0/power", "any": "shellies/+/relay/#"}
    specs = [SourceSpec(name, TopicTemplate(text), NumbersCodec()) for name, text in filters.items()]
    topic = "shellies/a/relay/0/power"
    async with taker(sources(broker, version, *specs)) as took:
        await sending(broker, [(topic, b"1"), ("shellies/a/energy", b"2"), (topic, b"1"), ("other", b"3")])
        await took.until(7)
        await asyncio.sleep(0.3)
        assert sorted(reading[0] for reading in took.readings) == ["any"] * 2 + ["narrow"] * 2 + ["wide"] * 3
        assert ("shellies/+/# and shellies/+/relay/0/power" in caplog.text) == (version == 3)
    # The session still has the other subscriptions.
    async with taker(sources(broker, version, specs[1])) as took:
        await sending(broker, [(topic, b"4")])
        await took.until(1)
        await asyncio.sleep(0.3)
        assert [reading[0] for reading in took.readings] == ["narrow"]
        assert took.source.statistics().unmatched == (2 if version == 5 else 0)
