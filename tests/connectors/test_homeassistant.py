"""Entities of Home Assistant over a real mosquitto, seen by a client that shares no code with what is tested."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import aiomqtt
import pytest

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.kinds import Meaning
from hs_stream.core.stream import StreamId
from hs_stream.core.value import Value
from hs_stream.engine.ports import Change, Publication, PublishedStream
from hs_stream.service.embedded.broker import EmbeddedBroker
from hs_stream_connectors.mqtt.homeassistant import Entity, HomeAssistant, check_homeassistant, state_text
from hs_stream_connectors.mqtt.homeassistant_classes import DEVICE_CLASSES, STATE_CLASSES
from hs_stream_connectors.mqtt.options import MqttOptions

TEMPERATURE = {"device_class": "temperature", "unit_of_measurement": "°C", "expire_after": "10m"}
STATE = "homeassistant/sensor/hs-comfort-smooth-1-kitchen/state"
CONFIG = "homeassistant/sensor/hs-comfort-smooth-1-kitchen/config"


def entity(name: str = "smooth", room: str = "kitchen", **options: Any) -> Entity:
    stream = StreamId(name, (("house", "1"), ("room", room)))
    return Entity(stream, "comfort", ("1", room), "sliding_mean@1.0.0", options or TEMPERATURE)


def publication(
    value: Value, *, newest: bool = True, kind: Literal["insert", "revise", "retract"] = "insert", room: str = "kitchen"
) -> Publication:
    of = entity(room=room)
    change = Change(1000, kind, value, 0)
    return Publication(of.stream, of.workflow, of.plates, of.tool, change, newest, {"homeassistant": of.options})


class Seen:
    """What Home Assistant would know: the last payload per topic, and how often each came."""

    def __init__(self) -> None:
        self.last: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self._news = asyncio.Event()

    async def follow(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            assert isinstance(message.payload, bytes)
            topic = str(message.topic)
            self.last[topic] = message.payload.decode(errors="replace")
            self.counts[topic] = self.counts.get(topic, 0) + 1
            self._news.set()

    async def until(self, check: Callable[[Seen], bool]) -> None:
        async with asyncio.timeout(15):
            while not check(self):
                self._news.clear()
                await self._news.wait()


@contextlib.asynccontextmanager
async def home(broker: EmbeddedBroker) -> AsyncIterator[tuple[Seen, aiomqtt.Client]]:
    async with aiomqtt.Client("127.0.0.1", broker.port) as client:
        seen = Seen()
        await client.subscribe("homeassistant/#", qos=1)
        task = asyncio.create_task(seen.follow(client))
        try:
            yield seen, client
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@contextlib.asynccontextmanager
async def ours(
    broker: EmbeddedBroker,
    *entities: Entity,
    prefix: str = "hs",
    published: Sequence[PublishedStream] | None = None,
    **stored: Value,
) -> AsyncIterator[Any]:
    async def newest(stream: StreamId) -> Value:
        return stored.get(dict(stream.meta)["room"])

    options = MqttOptions(broker.url, client_id=f"hs-{prefix}")
    assistant = HomeAssistant(options, prefix=prefix, version="0.1.0", newest=newest)
    assistant.announce(entities)
    if published is not None:
        assistant = HomeAssistant(
            options, prefix=prefix, version="0.1.0", newest=newest, published=lambda: published or ()
        )
    task = asyncio.create_task(assistant.run(lambda _: None))
    try:
        yield assistant
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_what_is_published_is_announced_and_nothing_else(broker: EmbeddedBroker) -> None:
    """With nothing after ``homeassistant:`` too."""
    of = entity()
    asked = [
        PublishedStream(of.stream, "comfort", of.plates, of.tool, {"homeassistant": None}),
        PublishedStream(of.stream, "other", of.plates, of.tool, {"retain": True}),
    ]
    async with home(broker) as (seen, _), ours(broker, published=asked, kitchen=21.5) as assistant:
        await seen.until(lambda seen: {STATE, CONFIG} <= seen.last.keys())
        change = Change(1000, "insert", 22.5, 0)
        assistant.observe([
            Publication(of.stream, "comfort", of.plates, of.tool, change, True, one.options) for one in asked
        ])  # fmt: skip
        await seen.until(lambda seen: seen.last[STATE] == "22.5")
    assert set(seen.last) == {STATE, CONFIG}


@pytest.mark.parametrize(
    ("meaning", "options", "expected"),
    [
        (Meaning("state", "°C"), {}, ("°C", "measurement")),
        (Meaning("sample", "W"), {"device_class": "power"}, ("W", "measurement")),
        (Meaning("counter", "kWh"), {"device_class": "energy"}, ("kWh", "total_increasing")),
        (Meaning("amount", "kWh"), {"device_class": "energy"}, ("kWh", None)),
        (Meaning("state", "kWh"), {"device_class": "energy"}, ("kWh", None)),
        (Meaning("state", "W"), {"unit_of_measurement": "kW"}, ("kW", "measurement")),
        (Meaning("counter", "kWh"), {"state_class": "total"}, ("kWh", "total")),
        (Meaning("state", "kWh"), {"device_class": "temperature"}, (None, None)),
        (Meaning("counter"), {"unit_of_measurement": "L"}, ("L", "total_increasing")),
        (Meaning("state"), {}, (None, None)),
        (Meaning("state", "1"), {}, (None, None)),
        (Meaning("state", "W"), {"component": "binary_sensor"}, (None, None)),
        (Meaning("state", "W"), {"value_template": "{{ value_json.p }}"}, (None, None)),
        (Meaning(), {}, (None, None)),
    ],
)
def test_what_is_known_of_the_values_need_not_be_given(
    meaning: Meaning, options: dict[str, str], expected: tuple[str | None, str | None]
) -> None:
    document = json.loads(replace(entity(), options=options, meaning=meaning).config("hs/status", "0.1.0"))
    assert (document.get("unit_of_measurement"), document.get("state_class")) == expected


async def test_what_is_published_is_announced_with_its_meaning(broker: EmbeddedBroker) -> None:
    of = entity()
    meaning = Meaning("state", "°C")
    asked = PublishedStream(of.stream, "comfort", of.plates, of.tool, {"homeassistant": None}, meaning)
    async with home(broker) as (seen, _), ours(broker, published=[asked], kitchen=21.5):
        await seen.until(lambda seen: CONFIG in seen.last)
    assert json.loads(seen.last[CONFIG])["unit_of_measurement"] == "°C"
    async with home(broker) as (seen, _), ours(broker) as assistant:
        one = publication(21.5)
        assistant.observe([replace(one, options={"homeassistant": None}, meaning=meaning)])
        await seen.until(lambda seen: '"measurement"' in seen.last.get(CONFIG, ""))


async def test_an_entity_is_described_and_has_its_stored_state(broker: EmbeddedBroker) -> None:
    async with home(broker) as (seen, _), ours(broker, entity(), kitchen=21.5):
        await seen.until(lambda seen: {STATE, CONFIG} <= seen.last.keys())
    assert seen.last[STATE] == "21.5"
    document = json.loads(seen.last[CONFIG])
    assert document == {
        "name": "smooth",
        "unique_id": "hs-comfort-smooth-1-kitchen",
        "state_topic": STATE,
        "availability_topic": "hs/status",
        "device_class": "temperature",
        "unit_of_measurement": "°C",
        "expire_after": 600,
        "device": {
            "identifiers": ["hs-comfort-1-kitchen"],
            "name": "comfort 1 kitchen",
            "manufacturer": "hs-stream",
            "model": "workflow comfort",
        },
        "origin": {"name": "hs-stream", "sw_version": "0.1.0"},
    }


async def test_an_older_instance_never_becomes_the_state(broker: EmbeddedBroker) -> None:
    async with home(broker) as (seen, _), ours(broker, entity()) as assistant:
        assistant.observe([publication(20.0)])
        await seen.until(lambda seen: seen.last.get(STATE) == "20.0")
        assistant.observe([publication(5.0, newest=False, kind="revise"), publication(6.0, newest=False)])
        assistant.observe([publication(20.5, kind="revise")])
        await seen.until(lambda seen: seen.last.get(STATE) == "20.5")
        assistant.observe([publication(None, kind="retract")])
        await seen.until(lambda seen: seen.last.get(STATE) == "None")
    assert seen.counts[STATE] <= 4, "unknown or nothing at first, and three changes of the newest"


async def test_a_new_stream_is_an_entity_at_its_first_result(broker: EmbeddedBroker) -> None:
    async with home(broker) as (seen, _), ours(broker) as assistant:
        assistant.observe([publication(19.0, room="Living Room/1")])
        await seen.until(lambda seen: "19.0" in seen.last.values() and len(seen.last) == 2)
    for topic in seen.last:
        assert re.fullmatch(r"homeassistant/sensor/hs-comfort-smooth-1-Living_Room_1-[0-9a-f]{8}/(config|state)", topic)


async def test_it_is_told_again_at_its_birth(broker: EmbeddedBroker) -> None:
    async with home(broker) as (seen, client), ours(broker, entity(), kitchen=21.5):
        await seen.until(lambda seen: {STATE, CONFIG} <= seen.last.keys())
        await client.publish("homeassistant/status", "offline", qos=1)
        await client.publish("homeassistant/status", "online", qos=1)
        await seen.until(lambda seen: seen.counts[CONFIG] >= 2 and seen.counts[STATE] >= 2)


async def test_what_is_gone_is_removed_and_nobody_elses(broker: EmbeddedBroker) -> None:
    """Also over a restart: what was there before is known by what the broker retains."""
    other = entity(name="other")
    before = (entity(), entity(room="hall"))
    async with (
        ours(broker, other, prefix="second"),
        ours(broker, *before, kitchen=1, hall=2),
        home(broker) as (seen, _),
    ):
        await seen.until(lambda seen: len(seen.last) == 6)
    async with home(broker) as (seen, client):
        async with ours(broker, entity(room="hall"), hall=2) as assistant:
            await seen.until(lambda seen: seen.last.get(CONFIG) == "")
            assistant.announce([])
            await seen.until(lambda seen: list(seen.last.values()).count("") == 4)
        await client.publish("homeassistant/sensor/foreign/config", "{no json", qos=1)
        assert seen.last[other.topic("config")]


async def test_whatever_others_retain_is_theirs(broker: EmbeddedBroker) -> None:
    """Bytes, depth and size that no description has: it goes on, and still finds what is ours."""
    gone = entity(room="gone")
    ours_still = gone.config("hs/status", "0.1.0")
    hostile = [
        b'"\xff\xfe"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 3_000_000,
        b"1e999",
        b"{",
        b"null",
    ]
    async with home(broker) as (seen, client):
        for number, payload in enumerate(hostile):
            await client.publish(f"homeassistant/sensor/x{number}/config", payload, qos=1, retain=True)
        padded = json.dumps({**json.loads(ours_still), "pad": "x" * 100_000})
        await client.publish("homeassistant/sensor/long/config", padded, qos=1, retain=True)
        await client.publish(gone.topic("config"), ours_still, qos=1, retain=True)
        async with ours(broker, entity(), kitchen=21.5) as assistant:
            await seen.until(lambda seen: seen.last.get(gone.topic("config")) == "" and STATE in seen.last)
            assistant.observe([publication("\ud800"), publication(1.5, room="hall")])
            await seen.until(lambda seen: seen.last.get(STATE) == "None" and "1.5" in seen.last.values())
            assistant.observe([publication("x" * 100_000)])
            assert assistant.connection_statistics().connects == 1
        assert seen.counts["homeassistant/sensor/long/config"] == 1, "what is too long is not even looked at"


async def test_a_state_that_the_broker_does_not_take_holds_up_no_other(tmp_path: Path) -> None:
    async with (
        EmbeddedBroker(tmp_path / "small", kind="mosquitto", more="max_packet_size 2000\n") as small,
        home(small) as (seen, _),
        ours(small) as assistant,
    ):
        assistant.observe([publication("x" * 5_000), publication(2.5, room="hall")])
        await seen.until(lambda seen: "2.5" in seen.last.values())
        assert (assistant.refused, assistant.connection_statistics().connects) == (1, 1)


async def test_a_broker_that_went_away_is_told_everything(broker: EmbeddedBroker) -> None:
    async with ours(broker, entity(), kitchen=21.5) as assistant:
        async with home(broker) as (seen, _):
            await seen.until(lambda seen: CONFIG in seen.last)
        await broker.stop()
        assistant.observe([publication(30.0)])
        await broker.start()
        async with home(broker) as (seen, _):
            await seen.until(lambda seen: seen.last.get(STATE) == "30.0")


def test_two_names_are_two_entities() -> None:
    names = ["a b", "a_b", "a/b", "a-b", "ä"]
    assert len({entity(room=name).unique_id for name in names}) == len(names)


@pytest.mark.parametrize(
    ("value", "component", "text"),
    [
        (True, "binary_sensor", "ON"),
        (False, "binary_sensor", "OFF"),
        (True, "sensor", "true"),
        (1.5, "sensor", "1.5"),
        ("warm", "sensor", "warm"),
        ({"t": 1}, "sensor", '{"t":1}'),
        (None, "sensor", "None"),
        (float("nan"), "sensor", "None"),
    ],
)
def test_states(value: Value, component: str, text: str) -> None:
    assert state_text(value, component) == text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"devce_class": "x"}, "no key 'devce_class'"),
        ({"component": "light"}, "component is 'light'"),
        ({"device_class": 1}, "device_class is 1"),
        ({"expire_after": "soon"}, "expire_after: 'soon'"),
        ({"expire_after": "1ms"}, "expire_after is '1ms'"),
        ({"force_update": "yes"}, "force_update is 'yes'"),
        ({"suggested_display_precision": -1}, "suggested_display_precision is -1"),
        ({"component": "binary_sensor", "unit_of_measurement": "W"}, "no unit_of_measurement"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        check_homeassistant(options)
    check_homeassistant(TEMPERATURE)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"devce_class": "x"}, "did you mean device_class?"),
        ({"component": "binary-sensor"}, "did you mean binary_sensor?"),
        ({"state_class": "total_increase"}, "did you mean total_increasing?"),
        ({"state_class": "x"}, "write one of measurement, total, total_increasing, measurement_angle"),
        ({"device_class": "temprature"}, "did you mean temperature?"),
        ({"device_class": "heat"}, "it is one of a binary_sensor: add component: binary_sensor"),
        ({"component": "binary_sensor", "device_class": "ocupancy"}, "did you mean occupancy?"),
    ],
)
def test_mistakes_have_a_suggestion(options: dict[str, Any], hint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_homeassistant(options)
    assert hint in caught.value.hint


@pytest.mark.parametrize("component", DEVICE_CLASSES)
def test_all_classes_of_home_assistant_are_taken(component: str) -> None:
    for word in DEVICE_CLASSES[component]:
        check_homeassistant({"component": component, "device_class": word})
    for word in STATE_CLASSES:
        check_homeassistant({"state_class": word})
