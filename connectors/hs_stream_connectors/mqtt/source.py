"""The MQTT source: one connection, one session, every source of every workflow.

One delivery is what one read from the socket brought. Its ``ack()`` acknowledges the QoS 1 messages in it in arrival
order, on the connection that they came on; when that is gone it does nothing, and the broker sends them again.

A reading without a time of its own goes on with its arrival and `Placing.ARRIVAL`: one arrival is taken for all of a
delivery, and the engine puts them apart.

Where the filters of two sources overlap, a broker sends a copy of a message for each of them, or one for both. With
MQTT 5 a copy says for which subscriptions it is, and goes to the sources with those filters only.

A field that a source names is misspelt, perhaps, while no message of the source has had it: `SourceStatistics.missing`.
After `_UNSEEN_MESSAGES` of them the log asks about it, once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Protocol, runtime_checkable

from hs_stream.core.errors import ConfigurationError, PayloadError
from hs_stream.core.size import Use
from hs_stream.engine.ports import DeadLetter, Delivery, Placing, Reading, gist
from hs_stream_connectors.codecs import BatchError, Codec, Decoded, fields_of, max_payload_of
from hs_stream_connectors.codecs.base import has
from hs_stream_connectors.codecs.objects import load_json
from hs_stream_connectors.mqtt.client import ClientStatistics, MqttClient
from hs_stream_connectors.mqtt.connection import Connection
from hs_stream_connectors.mqtt.options import MqttOptions
from hs_stream_connectors.mqtt.packets import Message
from hs_stream_connectors.mqtt.topics import Meta, TopicTemplate, overlapping

__all__ = ["MAX_DEAD_PAYLOAD", "MqttSource", "SourceSpec", "SourceStatistics"]

logger = logging.getLogger(__name__)

MAX_DEAD_PAYLOAD: Final = 64 * 1024
_CACHED_TOPICS: Final = 20_000
_CACHED_LENGTH: Final = 500
"""Bytes of a topic that is remembered: MQTT lets one have 65,535, and whoever publishes chooses."""
_BESIDE: Final = 128 * 1024
"""Bytes that a packet may have besides its payload: the longest topic, and properties."""
_UNSEEN_MESSAGES: Final = 20
_ARRIVAL, _UPDATE = Placing.ARRIVAL, Placing.UPDATE


def _now() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """One source of a workflow: the topics it reads and how it decodes them. ``name`` becomes `Reading.source`."""

    name: str
    template: TopicTemplate
    codec: Codec

    @property
    def plates(self) -> tuple[str, ...]:
        """The plates that its readings are on."""
        return (*self.template.names, *self.codec.plates)


@dataclass(slots=True)
class SourceStatistics:
    """Since the source was made. ``ignored``: messages that are neither readings nor errors, by source.

    ``missing``: by source, the fields that it names and no message has had. ``unmatched``: messages for no source, such
    as those of a subscription of an earlier configuration.
    """

    messages: int = 0
    readings: int = 0
    dead_letters: int = 0
    ignored: dict[str, int] = field(default_factory=dict)
    missing: dict[str, set[str]] = field(default_factory=dict)
    unmatched: int = 0
    redelivered: int = 0


@dataclass(frozen=True, slots=True)
class _Route:
    """``identifier``: of the subscription of the source; 0 for a topic that none can have been subscribed to."""

    identifier: int
    source: str
    topic: str
    meta: Meta
    decode: Callable[[str, bytes, int, bool], Decoded]
    placing: Placing
    error: PayloadError | None


@runtime_checkable
class Remembering(Protocol):
    """A codec with a memory that may want to say something to a gateway (Sparkplug)."""

    @property
    def remembered(self) -> int:
        """How much it remembers."""

    @property
    def remembered_bytes(self) -> Use:
        """How many bytes that takes."""

    def remember_within(self, size: int) -> None:
        """Remember at most so many bytes."""

    def requests(self) -> list[tuple[str, bytes]]:
        """Topics and payloads to publish at QoS 0, each once."""


class MqttSource:
    """Implements `hs_stream.engine.ports.Source` for all ``specs`` over one connection. ``now`` gives arrivals (ms).

    ``memory``: how many bytes all codecs together may remember.
    """

    def __init__(
        self,
        name: str,
        options: MqttOptions,
        specs: Iterable[SourceSpec],
        *,
        now: Callable[[], int] = _now,
        memory: int = 32 << 20,
    ) -> None:
        self.name = name
        self._specs = list(specs)
        names = [spec.name for spec in self._specs]
        if len(set(names)) != len(names):
            raise ConfigurationError(f"MQTT source {name}: two sources have the same name")
        self._remembering = {spec.name: spec.codec for spec in self._specs if isinstance(spec.codec, Remembering)}
        self._memory = memory
        for codec in self._remembering.values():
            codec.remember_within(memory // len(self._remembering))
        self._now = now
        self._routes: dict[bytes, list[_Route]] = {}
        self._connected: Callable[[bool], None] = lambda _: None
        fields = {spec.name: set(fields_of(spec.codec)) for spec in self._specs}
        self._statistics = SourceStatistics(missing={name: names for name, names in fields.items() if names})
        self._unseen = dict.fromkeys(self._statistics.missing, 0)
        """Messages with readings of the sources with a missing field."""
        self._filters = [spec.template.filter for spec in self._specs]
        self._largest = _BESIDE + max([max_payload_of(spec.codec) for spec in self._specs], default=0)
        self._client = MqttClient(
            options, largest=self._largest, ready=self._ready, lost=lambda: self._connected(False)
        )
        self._client.set_filters(self._filters)

    def _ready(self, connection: Connection) -> None:
        overlap = None if connection.identifies else overlapping(self._filters)
        if overlap is not None:
            logger.warning(
                "%s and %s overlap: if the broker sends a copy of a message for each, it counts twice, as this "
                "connection cannot tell the copies apart (set mqtt.version = 5, or choose topics that do not overlap)",
                *overlap,
            )
        self._connected(True)

    async def run(self, deliver: Callable[[Delivery], Awaitable[None]], connected: Callable[[bool], None]) -> None:
        """See `hs_stream.engine.ports.Source.run`."""
        self._connected = connected
        connection_task = asyncio.create_task(self._client.run(), name=f"{self.name}: connection")
        delivery_task = asyncio.create_task(self._deliver(deliver), name=f"{self.name}: deliveries")
        tasks = (connection_task, delivery_task)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def stop(self) -> None:
        """See `hs_stream.engine.ports.Source.stop`."""
        self._client.stop_receiving()

    async def wait_connected(self, timeout: float) -> None:
        """Return when connected and subscribed, else `BrokerUnavailable` with what to do. Needs `run` to run."""
        await self._client.wait_connected(timeout)

    def statistics(self) -> SourceStatistics:
        """The live counters; read only."""
        return self._statistics

    def connection_statistics(self) -> ClientStatistics:
        """The live counters of the connection; read only."""
        return self._client.statistics()

    @property
    def filters(self) -> list[str]:
        """The topic filters of all sources."""
        return list(self._filters)

    def refused(self) -> list[tuple[str, str, str]]:
        """Source, filter and the broker's reason, of each subscription that it does not give us now."""
        found = self._client.statistics().refused
        specs = [spec for spec in self._specs if spec.template.filter in found] if found else []
        return [(spec.name, spec.template.filter, found[spec.template.filter]) for spec in specs]

    def remembered(self) -> dict[str, int]:
        """How much the codec of each source remembers, of those that have a memory."""
        return {name: codec.remembered for name, codec in self._remembering.items()}

    def remembered_bytes(self) -> Use:
        """How many bytes all codecs remember, of how many."""
        found = [codec.remembered_bytes for codec in self._remembering.values()]
        return Use(sum(use.used for use in found), self._memory, sum(use.forgotten for use in found))

    async def _deliver(self, deliver: Callable[[Delivery], Awaitable[None]]) -> None:
        while True:
            connection, messages = await self._client.receive()
            delivery = self.decode(messages, partial(connection.acknowledge, messages))
            # Several sources that miss the same thing ask for it once.
            requests = dict(request for codec in self._remembering.values() for request in codec.requests())
            for topic, payload in requests.items():
                connection.publish(topic, payload, mid=0)
            await deliver(delivery)

    def decode(self, messages: list[Message], ack: Callable[[], None]) -> Delivery:
        """One delivery of all ``messages``, in their order."""
        arrival = self._now()
        readings: list[Reading] = []
        dead: list[DeadLetter] = []
        origins: list[tuple[int, str, bytes]] = []
        routes_of = self._routes
        size = 0
        for message in messages:
            payload, retained = message.payload, message.retain
            size += len(payload)
            identifiers = message.identifiers
            routes = routes_of.get(message.topic) or self._route(message.topic)
            if identifiers:
                wanted = [route for route in routes if route.identifier in identifiers or not route.identifier]
                self._statistics.unmatched += bool(routes and not wanted)
                routes = wanted
            for route in routes:
                if message.left_out:
                    dead.append(_letter(route, payload, arrival, self._too_large(message), message.left_out))
                    continue
                if route.error is not None:
                    dead.append(_letter(route, payload, arrival, route.error))
                    continue
                try:
                    decoded = route.decode(route.topic, payload, arrival, retained)
                except BatchError as error:
                    decoded = error.readings
                    dead += _letters(route, payload, arrival, error)
                except PayloadError as error:
                    dead.append(_letter(route, payload, arrival, error))
                    continue
                else:
                    if not decoded:
                        self._statistics.ignored[route.source] = self._statistics.ignored.get(route.source, 0) + 1
                if decoded and route.source in self._unseen:
                    self._look(route.source, payload, decoded)
                origins.append((len(readings), route.topic, payload))
                placing = route.placing
                if placing is _UPDATE and (retained or message.dup):
                    placing = Placing.RETAINED if retained else Placing.REPEAT
                for reading in decoded:
                    time = reading[0]
                    meta = route.meta if len(reading) == 2 else tuple(sorted(route.meta + reading[2]))
                    if time is None:
                        readings.append(Reading(route.source, meta, arrival, reading[1], _ARRIVAL))
                    else:
                        readings.append(Reading(route.source, meta, time, reading[1], placing))
        statistics = self._statistics
        statistics.messages += len(messages)
        statistics.readings += len(readings)
        statistics.dead_letters += sum([letter.count for letter in dead])
        statistics.redelivered += sum([message.dup for message in messages])
        return Delivery(readings, dead, arrival, ack, size, origins)

    def _too_large(self, message: Message) -> PayloadError:
        size = len(message.payload) + message.left_out
        text = f"the payload has about {size} bytes; a message may have {self._largest} at most"
        return PayloadError("too_large", text)

    def _look(self, source: str, payload: bytes, decoded: Decoded) -> None:
        """Take the fields that ``decoded`` has from those that are missing."""
        missing = self._statistics.missing[source]
        for reading in decoded:
            if type(reading[1]) is dict:
                missing.difference_update(reading[1])
            else:
                missing.clear()  # a codec whose fields choose streams, or the bare value: what came was chosen
        if not missing:
            del self._statistics.missing[source], self._unseen[source]
            return
        self._unseen[source] += 1
        if self._unseen[source] == _UNSEEN_MESSAGES:
            names = sorted(missing)
            logger.warning(
                "source %s: none of its first %d messages has the field%s %s; %s",
                *(source, _UNSEEN_MESSAGES, "s" * (len(names) > 1), ", ".join(names), _fields_of(payload, names)),
            )

    def _route(self, raw: bytes) -> list[_Route]:
        try:
            topic = raw.decode()
        except UnicodeDecodeError as error:
            bad = PayloadError("encoding", f"the topic: {error}")
            return [_Route(0, self.name, repr(raw), (), _refuse, Placing.REPLACE, bad)]
        routes = []
        for spec in self._specs:
            identifier, decode, placing = spec.template.identifier, spec.codec.decode, spec.codec.placing
            try:
                meta = spec.template.bind(topic)
            except PayloadError as error:
                routes.append(_Route(identifier, spec.name, topic, (), decode, placing, error))
            else:
                if meta is not None:
                    routes.append(_Route(identifier, spec.name, topic, meta, decode, placing, None))
        if not routes:
            self._statistics.unmatched += 1
        elif len(raw) <= _CACHED_LENGTH:
            if len(self._routes) >= _CACHED_TOPICS:
                del self._routes[next(iter(self._routes))]
            self._routes[raw] = routes
        return routes


def _fields_of(payload: bytes, wanted: list[str]) -> str:
    try:
        item = load_json(payload)
    except PayloadError:
        return "check `fields`"
    items = item if isinstance(item, list) else [item]
    return f"the last one: {has(items[0], wanted)}" if items and isinstance(items[0], dict) else "check `fields`"


def _refuse(_topic: str, _payload: bytes, _arrival: int, _retained: bool) -> Decoded:
    return []


def _letters(route: _Route, payload: bytes, arrival: int, error: BatchError) -> Iterator[DeadLetter]:
    """One for each reason."""
    for reason, count in error.counts.items():
        examples = [bad.message for bad in error.errors if bad.reason == reason]
        yield replace(_letter(route, payload, arrival, PayloadError(reason, gist(examples, count))), count=count)


def _letter(route: _Route, payload: bytes, arrival: int, error: PayloadError, left_out: int = 0) -> DeadLetter:
    message = error.message
    if len(payload) > MAX_DEAD_PAYLOAD or left_out:
        kept = min(len(payload), MAX_DEAD_PAYLOAD)
        message += f" (payload cut to {kept} of {len(payload) + left_out} bytes)"
    return DeadLetter(arrival, route.source, error.reason, message, route.topic, payload[:MAX_DEAD_PAYLOAD])
