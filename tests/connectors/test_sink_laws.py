"""`check_sink` on the MQTT sink over a real mosquitto; and the suite notices sinks that break a rule."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import aiomqtt
import pytest

from hs_stream.core.errors import LawViolation
from hs_stream.engine.ports import Publication, Unpublished
from hs_stream.service.embedded.broker import EmbeddedBroker
from hs_stream.testing.check_sink import Message, check_sink
from hs_stream_connectors.mqtt.options import MqttOptions
from hs_stream_connectors.mqtt.sink import MqttSink
from tests.chaos.wire import Wire


class Harness:
    """The sink's connection can be cut; the client that sees what the broker has has one of its own."""

    options: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, wire: Wire, client: aiomqtt.Client, version: Any) -> None:
        self._wire, self._client, self._version = wire, client, version
        self._messages: list[Message] = []
        self._marks = 0
        self._marked = asyncio.Event()

    async def follow(self) -> None:
        async for message in self._client.messages:
            if message.topic.matches("mark"):
                self._marked.set()
                continue
            assert isinstance(message.payload, bytes)
            document = json.loads(message.payload)
            self._messages.append((document["stream"], document["time"], document["revision"]))

    def make(self) -> MqttSink:
        url = f"mqtt://127.0.0.1:{self._wire.port}"
        return MqttSink("mqtt", MqttOptions(url, version=self._version, backoff_max=0.2), max_size=100_000)

    async def received(self) -> Sequence[Message]:
        # What the broker has confirmed it passes on before what comes later.
        self._marked.clear()
        await self._client.publish("mark", b"", qos=1)
        await asyncio.wait_for(self._marked.wait(), 10)
        return list(self._messages)

    async def interrupt(self) -> None:
        await self._wire.cut()

    async def resume(self) -> None:
        await self._wire.mend()

    def unwanted(self, good: Publication) -> Publication | None:
        return replace(good, change=replace(good.change, value="x" * 200_000))


@asynccontextmanager
async def harness(broker: EmbeddedBroker, version: Any) -> AsyncIterator[Harness]:
    wire = Wire(broker.port)
    await wire.mend()
    async with aiomqtt.Client("127.0.0.1", broker.port) as client:
        await client.subscribe([("hs/check/#", 1), ("mark", 1)])
        made = Harness(wire, client, version)
        following = asyncio.create_task(made.follow())
        try:
            yield made
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await wire.cut()


async def test_the_mqtt_sink_keeps_the_law_of_sinks(broker: EmbeddedBroker, version: Any) -> None:
    async with harness(broker, version) as made:
        await check_sink(made, many=500)


# --- the suite notices ---


class Other:
    """The other side: a list, and whether it is there."""

    options: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.messages: list[Message] = []
        self.there = asyncio.Event()
        self.there.set()
        self.made = 0

    def make(self) -> Memory:
        self.made += 1
        return Memory(self)

    async def received(self) -> Sequence[Message]:
        return list(self.messages)

    async def interrupt(self) -> None:
        self.there.clear()

    async def resume(self) -> None:
        self.there.set()

    def unwanted(self, good: Publication) -> Publication | None:
        return replace(good, change=replace(good.change, value=None))


class Memory:
    forgets_ms = 0

    def __init__(self, other: Other) -> None:
        self._other, self._fault = other, other.fault
        self.name = f"memory {other.made}" if self._fault == "name" else "memory"
        self._again: Sequence[Publication] = ()

    async def run(self, connected: Callable[[bool], None]) -> None:
        connected(True)
        while self._fault != "returns":
            while self._other.there.is_set():
                await asyncio.sleep(0.005)
            connected(self._fault == "silent")
            await self._other.there.wait()
            connected(True)

    async def publish(self, publications: Sequence[Publication]) -> Sequence[Unpublished]:
        kept = list(publications)
        if self._fault == "order":
            kept = kept[1:] + kept[:1] if len(kept) > 100 else kept
        if self._fault == "loses" and len(kept) > 100:
            del kept[50]
        bad = [one for one in kept if one.change.value is None]
        if self._fault == "early":
            asyncio.get_running_loop().call_later(0.5, self._lay, kept)
            return [Unpublished(one, "", "no", "no", 0) for one in bad]
        try:
            await self._other.there.wait()
        except asyncio.CancelledError:
            if self._fault != "stubborn":
                raise
            await self._other.there.wait()
        if self._fault == "stale":
            kept = [*kept, *kept[:3]] if len(kept) > 100 else kept
        self._lay([one for one in kept if one not in bad])
        if self._fault == "swallows":
            bad = []
        return [Unpublished(one, "", "no", "" if self._fault == "mute" else "no", 0) for one in bad]

    def _lay(self, publications: Sequence[Publication]) -> None:
        self._other.messages += [(str(one.stream), one.change.time, one.change.revision) for one in publications]


async def test_a_plain_one_passes() -> None:
    await check_sink(Other(""), many=50)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("name", "its name is not the same"),
        ("order", "came in another order"),
        ("loses", "confirmed, and not there"),
        ("early", "confirmed, and not there"),
        ("stale", "the last message of"),
        ("swallows", "one publication was to be returned, and 0 were"),
        ("mute", "has no reason or no message"),
    ],
)
async def test_the_suite_notices(fault: str, words: str) -> None:
    with pytest.raises(LawViolation, match=f"^sink: .*{words}"):
        await check_sink(Other(fault), many=50)


async def test_the_suite_notices_who_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hs_stream.testing.check_sink._PATIENCE", 1.0)
    with pytest.raises(LawViolation, match=r"connected\(False\) was not called"):
        await check_sink(Other("silent"), many=50)
    with pytest.raises(LawViolation, match=r"run\(\) returned"):
        await check_sink(Other("returns"), many=50)
    with pytest.raises(LawViolation, match="went on when it was cancelled"):
        await check_sink(Other("stubborn"), many=50)
