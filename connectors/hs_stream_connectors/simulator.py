"""Publishes a simulated house over real MQTT, QoS 1, and counts what must become of it.

::

    simulator = HouseSimulator("mqtt://localhost:1883", seed=7, history="30m")
    await simulator.run(60)
    simulator.statistics().instances["climate"]     # what the store must hold: nothing lost, nothing doubled

aiomqtt publishes here: what the service reads is then not written by the service's own code.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import aiomqtt

from hs_stream.core.time import parse_duration
from hs_stream_connectors.mqtt.options import MqttOptions
from hs_stream_connectors.simulated_house import HOUSE_SOURCES, Outgoing, SimulatedHouse

__all__ = ["HOUSE_SOURCES", "HouseSimulator", "SimulatorStatistics"]

logger = logging.getLogger(__name__)

ROOMS: Final = ("kitchen", "living", "bedroom", "bath", "cellar")
_TICK_SECONDS: Final = 0.2
_RETRY_SECONDS: Final = 0.3


def _now() -> int:
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class SimulatorStatistics:
    """What the broker has confirmed, by source.

    ``readings``: good readings, repeats and corrections included. ``instances``: distinct ones, so many instances must
    be stored in all streams of the source together. ``dead_letters``: by reason. ``retries``: messages sent again
    because the confirmation did not come; each may have arrived twice (only ``co2``, timed by arrival,
    may be stored twice).
    """

    messages: int = 0
    readings: dict[str, int] = field(default_factory=dict)
    instances: dict[str, int] = field(default_factory=dict)
    dead_letters: dict[str, int] = field(default_factory=dict)
    retries: int = 0

    def count(self, message: Outgoing) -> None:
        """Add one confirmed message."""
        self.messages += 1
        source = message.source
        self.readings[source] = self.readings.get(source, 0) + message.readings
        self.instances[source] = self.instances.get(source, 0) + message.instances
        for reason, number in message.dead.items():
            self.dead_letters[reason] = self.dead_letters.get(reason, 0) + number


class HouseSimulator:
    """One or more simulated houses at the broker ``url`` (MQTT 5; a user and password may stand in the URL).

    ``history``: a duration; so much of the past is sent in batches first. ``now``: milliseconds since the epoch.
    """

    def __init__(
        self,
        url: str,
        *,
        rooms: Sequence[str] = ROOMS,
        houses: Sequence[str] = ("1",),
        seed: int = 1,
        speed: float = 1.0,
        history: str | float = 0,
        now: Callable[[], int] = _now,
    ) -> None:
        self._options = MqttOptions(url, client_id=f"hs-simulator-{seed}")
        self._houses = [SimulatedHouse(house, rooms, seed, speed) for house in houses]
        self._history = parse_duration(history)
        self._now = now
        self._stopping = asyncio.Event()
        self._statistics = SimulatorStatistics()

    def statistics(self) -> SimulatorStatistics:
        """The live counters; read only. Exact when `run` has returned."""
        return self._statistics

    def stop(self) -> None:
        """Let `run` send what is left and return."""
        self._stopping.set()

    async def run(self, seconds: float | None = None) -> None:
        """Send the history, then live for ``seconds`` (``None``: until `stop`), then the late gateway's backlog.

        A lost connection is opened again, and unconfirmed messages are sent again.
        """
        start = self._now()
        last = start
        client = _Publisher(self._options, self._statistics)
        try:
            if self._history:
                await client.send(
                    item for house in self._houses for item in house.history(start - self._history, start)
                )
            while not self._stopping.is_set() and (seconds is None or last - start < seconds * 1000):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), _TICK_SECONDS)
                end = max(self._now(), last)
                await client.send(item for house in self._houses for item in house.live(last, end))
                last = end
            await client.send(item for house in self._houses for item in house.flush(last))
        finally:
            await client.close()


class _Publisher:
    """Publishes in order per call until confirmed, over as many connections as it takes."""

    def __init__(self, options: MqttOptions, statistics: SimulatorStatistics) -> None:
        self._options, self._statistics = options, statistics
        self._client: aiomqtt.Client | None = None

    async def send(self, messages: Iterable[Outgoing]) -> None:
        """One after the other: a correction must not overtake what it corrects when something is sent again."""
        for message in messages:
            while not await self._sent(message):
                await self.close()
                await asyncio.sleep(_RETRY_SECONDS)

    async def _sent(self, message: Outgoing) -> bool:
        try:
            client = await self._connected()
            await client.publish(message.topic, message.payload, qos=1)
        except aiomqtt.MqttError as error:
            self._statistics.retries += 1
            logger.info("simulator: %s; trying again", error)
            return False
        self._statistics.count(message)
        return True

    async def _connected(self) -> aiomqtt.Client:
        if self._client is None:
            user, password = self._options.credentials or (None, None)
            client = aiomqtt.Client(
                self._options.host,
                self._options.port,
                identifier=self._options.client_id,
                username=user,
                password=password,
                protocol=aiomqtt.ProtocolVersion.V5,
                tls_context=self._options.tls_context() if self._options.tls else None,
                timeout=5,
            )
            await client.__aenter__()
            self._client = client
        return self._client

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            try:
                await client.__aexit__(None, None, None)
            except aiomqtt.MqttError as error:
                logger.info("simulator: %s", error)
