"""Entities from readings to Home Assistant's topics: described, kept at the newest instance, removed with a node."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import aiomqtt

from hs_stream.service.embedded.broker import EmbeddedBroker

from .test_running_changes import FILE, running

TEMPERATURE = "homeassistant/sensor/hs-comfort-temperature-kitchen"
OFFLINE = "homeassistant/binary_sensor/hs-comfort-silent-kitchen"
HOME = FILE.replace(
    "publish: {temperature: {}}",
    """  silent: {tool: offline_detect@^1, from: temperature, with: {after: 2s, every: 1s}}
publish:
  temperature: {homeassistant: {device_class: temperature, unit_of_measurement: "°C"}}
  silent: {homeassistant: {component: binary_sensor, device_class: problem}}
""",
)


class Home:
    """What Home Assistant knows."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self._broker = broker
        self.last: dict[str, str] = {}

    async def follow(self) -> None:
        async with aiomqtt.Client("127.0.0.1", self._broker.port) as client:
            await client.subscribe([("homeassistant/#", 1), ("hs/status", 1)])
            async for message in client.messages:
                assert isinstance(message.payload, bytes)
                self.last[str(message.topic)] = message.payload.decode()

    async def until(self, check: Callable[[dict[str, str]], bool]) -> None:
        async with asyncio.timeout(20):
            while not check(self.last):
                await asyncio.sleep(0.02)


async def test_from_a_reading_to_an_entity_and_back(tmp_path: Path, broker: EmbeddedBroker) -> None:
    home = Home(broker)
    following = asyncio.create_task(home.follow())
    try:
        async with running(tmp_path, broker, HOME) as it:
            it.base = time.time_ns() // 1_000_000
            await it.publish((-30, 20.0), (-20, 21.0))
            await home.until(lambda last: last.get(f"{TEMPERATURE}/state") == "21.0")
            document = json.loads(home.last[f"{TEMPERATURE}/config"])
            assert document["availability_topic"] == "hs/status"
            assert document["unit_of_measurement"] == "°C"
            await it.publish((-25, 5.0), (-30, 6.0))
            await it.contents("temperature", {-30: 6.0, -25: 5.0, -20: 21.0})
            assert home.last[f"{TEMPERATURE}/state"] == "21.0", "an older instance is not the state"
            # silence alone tells that the sensor is away, and a reading that it is back
            await home.until(lambda last: last.get(f"{OFFLINE}/state") == "ON")
            it.base = time.time_ns() // 1_000_000
            await it.publish((0, 22.0))
            await home.until(lambda last: last.get(f"{OFFLINE}/state") == "OFF")
            assert home.last["hs/status"] == "online"
            (tmp_path / "comfort.yaml").write_text(FILE, encoding="utf-8")
            it.service.read_files_again()
            await home.until(lambda last: last.get(f"{TEMPERATURE}/config") == "" == last.get(f"{OFFLINE}/config"))
        await home.until(lambda last: last.get("hs/status") == "offline")
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_a_unit_and_a_kind_that_are_known_need_not_be_given(tmp_path: Path, broker: EmbeddedBroker) -> None:
    """With the first reading, and in a second run without any, as what is stored is announced."""
    said = HOME.replace("with: {key: temperature}}", "with: {key: temperature}, kind: state, unit: °C}")
    said = said.replace('{device_class: temperature, unit_of_measurement: "°C"}', "{device_class: temperature}")
    assert "unit_of_measurement" not in said
    home = Home(broker)
    following = asyncio.create_task(home.follow())
    try:
        for values in ([(-30, 20.0)], []):
            home.last.clear()
            async with running(tmp_path, broker, said) as it:
                it.base = time.time_ns() // 1_000_000
                await it.publish(*values)
                await home.until(lambda last: bool(last.get(f"{TEMPERATURE}/config")))
                document = json.loads(home.last[f"{TEMPERATURE}/config"])
                assert (document["unit_of_measurement"], document["state_class"]) == ("°C", "measurement")
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_what_was_removed_while_it_was_down_is_removed(tmp_path: Path, broker: EmbeddedBroker) -> None:
    home = Home(broker)
    following = asyncio.create_task(home.follow())
    try:
        async with running(tmp_path, broker, HOME) as it:
            await it.publish((0, 20.0))
            await home.until(lambda last: f"{TEMPERATURE}/config" in last)
        (tmp_path / "comfort.yaml").write_text(FILE, encoding="utf-8")
        async with running(tmp_path, broker):
            await home.until(lambda last: last[f"{TEMPERATURE}/config"] == "")
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
