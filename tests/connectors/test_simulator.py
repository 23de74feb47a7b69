"""The simulated house: the same values again, and exactly what it says it sent."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from hs_stream.core.errors import ConfigurationError
from hs_stream.service.embedded.broker import EmbeddedBroker
from hs_stream_connectors.codecs import codec
from hs_stream_connectors.mqtt.options import MqttOptions
from hs_stream_connectors.mqtt.source import MqttSource, SourceSpec
from hs_stream_connectors.mqtt.topics import TopicTemplate
from hs_stream_connectors.simulated_house import HOUSE_SOURCES, SimulatedHouse
from hs_stream_connectors.simulator import HouseSimulator

T0 = 1_700_000_000_000
HOUR = 3_600_000


def specs() -> list[SourceSpec]:
    found = []
    for name, options in HOUSE_SOURCES.items():
        rest = {key: value for key, value in options.items() if key not in ("mqtt", "codec")}
        found.append(SourceSpec(name, TopicTemplate(options["mqtt"]), codec(options["codec"], **rest)))
    return found


def test_the_same_seed_sends_the_same() -> None:
    def sent(seed: int, cuts: list[int]) -> list[tuple[str, bytes]]:
        house = SimulatedHouse("1", ["kitchen", "cellar"], seed, 1)
        messages = [item for a, b in pairwise(cuts) for item in house.live(a, b)]
        return sorted(
            (item.topic, item.payload) for item in [*messages, *house.flush(cuts[-1])] if b"[" not in item.payload
        )

    whole = sent(7, [T0, T0 + HOUR])
    assert whole == sent(7, [T0, T0 + 1_234_567, T0 + 1_234_568, T0 + HOUR])
    assert whole != sent(8, [T0, T0 + HOUR])


def test_a_day_has_every_mishap_and_plausible_values() -> None:
    house = SimulatedHouse("1", ["kitchen", "bath", "cellar"], 7, 1)
    messages = list(house.live(T0, T0 + 8 * HOUR))
    dead = Counter(reason for item in messages for reason in item.dead)
    assert dead["json"] > 50
    assert dead["future"] == 8 * 3600 / 5
    repeats = sum(item.readings - item.instances for item in messages)
    assert repeats > 100
    kitchen = sum(item.instances for item in messages if item.topic == "home/1/kitchen/climate")
    assert 0.9 * 5_760 < kitchen < 5_760  # gaps
    temperatures = [house.climate("kitchen", T0 + i * HOUR)["temperature"] for i in range(24)]
    assert 15 < min(temperatures) < max(temperatures) < 30
    assert max(temperatures) - min(temperatures) > 3


async def test_what_it_counts_is_what_arrives(broker: EmbeddedBroker, taker: Any) -> None:
    simulator = HouseSimulator(broker.url, rooms=["kitchen", "cellar"], seed=3, speed=40, history="20s")
    source = MqttSource("mqtt", MqttOptions(broker.url), specs())
    async with taker(source) as took:
        running = asyncio.create_task(simulator.run())
        await asyncio.sleep(3)
        simulator.stop()
        await asyncio.wait_for(running, 20)
        sent = simulator.statistics()
        # `future` is the engine's to find; a source has no clock to compare with.
        await took.until(sum(sent.readings.values()) + sum(sent.dead_letters.values()))
        await asyncio.sleep(0.1)
        good = Counter(r.source for d in took.deliveries for r in d.readings)
        good["climate"] -= sent.dead_letters["future"]
        assert good == Counter(sent.readings)
        assert Counter(took.reasons)["json"] == sent.dead_letters.get("json", 0)
        distinct = Counter(
            source for source, _, _ in {(r.source, r.meta, r.time) for d in took.deliveries for r in d.readings}
        )
        assert distinct["motion"] == sent.instances["motion"]
        assert distinct["power"] == sent.instances["power"]
        assert distinct["climate"] - sent.dead_letters["future"] == sent.instances["climate"]
        assert min(sent.instances.values()) > 10
        assert sent.retries == 0
        assert {"house", "room"} == {key for d in took.deliveries for r in d.readings for key, _ in r.meta}


async def test_it_goes_on_after_the_broker_was_away(broker: EmbeddedBroker) -> None:
    simulator = HouseSimulator(broker.url, rooms=["kitchen"], speed=20)
    running = asyncio.create_task(simulator.run())
    await asyncio.sleep(0.6)
    await broker.kill()
    await asyncio.sleep(0.6)
    await broker.start()
    before = simulator.statistics().messages
    async with asyncio.timeout(15):
        while simulator.statistics().messages <= before:
            await asyncio.sleep(0.05)
    simulator.stop()
    await asyncio.wait_for(running, 20)
    assert simulator.statistics().retries > 0


def test_what_cannot_be_simulated_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="different names"):
        SimulatedHouse("1", ["a", "a"], 1, 1)
    with pytest.raises(ConfigurationError, match="speed"):
        SimulatedHouse("1", ["a"], 1, 0)
