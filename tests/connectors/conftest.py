"""A real mosquitto per test that asks for one, and a publisher that does not share any code with what is tested."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Self

import aiomqtt
import pytest

from hs_stream.engine.ports import Delivery
from hs_stream.service.embedded.broker import EmbeddedBroker
from hs_stream_connectors.mqtt.options import MqttOptions
from hs_stream_connectors.mqtt.source import MqttSource, SourceSpec

Send = Callable[..., Awaitable[None]]


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    """A mosquitto on a free port that keeps sessions over a restart."""
    async with EmbeddedBroker(tmp_path / "broker", persistence=True) as running:
        yield running


@pytest.fixture(params=[5, 3], ids=["v5", "v3.1.1"])
def version(request: pytest.FixtureRequest) -> int:
    """Both versions of MQTT."""
    return int(request.param)


async def send(
    broker: EmbeddedBroker, messages: Sequence[tuple[str, bytes]], *, qos: int = 1, retain: bool = False
) -> None:
    """Publish in order and return when the broker has confirmed."""
    async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        for topic, payload in messages:
            await client.publish(topic, payload, qos=qos, retain=retain)


class Taker:
    """Runs a source and keeps what it delivers."""

    def __init__(self, source: MqttSource, *, ack: bool = True) -> None:
        self.source = source
        self.ack = ack
        self.deliveries: list[Delivery] = []
        self.states: list[bool] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.source.run(self.deliver, self.states.append))
        await self.source.wait_connected(10)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def deliver(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        if self.ack:
            delivery.ack()

    @property
    def readings(self) -> list[tuple[str, dict[str, str], int, object]]:
        return [(r.source, dict(r.meta), r.time, r.value) for d in self.deliveries for r in d.readings]

    @property
    def values(self) -> list[object]:
        return [r.value for d in self.deliveries for r in d.readings]

    @property
    def reasons(self) -> list[str]:
        return [letter.reason for d in self.deliveries for letter in d.dead_letters]

    async def until(self, count: int, seconds: float = 15.0) -> None:
        """Until ``count`` readings and dead letters together are there."""
        async with asyncio.timeout(seconds):
            while len(self.values) + len(self.reasons) < count:
                await asyncio.sleep(0.01)


def make_source(broker: EmbeddedBroker, version: int, *specs: SourceSpec, client_id: str = "hs-test") -> MqttSource:
    """A source with a session of its own at ``broker``, and a short backoff."""
    options = MqttOptions(broker.url, client_id=client_id, version=version, backoff_max=0.3)  # type: ignore[arg-type]
    return MqttSource("mqtt", options, specs)


@pytest.fixture
def sending() -> Send:
    """The function `send`."""
    return send


@pytest.fixture
def taker() -> type[Taker]:
    """The class `Taker`."""
    return Taker


@pytest.fixture
def sources() -> Callable[..., MqttSource]:
    """The function `make_source`."""
    return make_source
