"""From deliveries to durable raw streams, and only then to acknowledgements.

1. A round takes what has been delivered so far: rounds follow the load, no timer is involved.
2. Readings are placed one by one, in the order of arrival, against the store and what came before in the round: the
   same value at the same time is no change; a different one is treated as its reading says. What has no time of its
   own gets one here, once: what is stored is what is computed with. The rules are in `hs_stream.engine.placing`.
3. What is not later than the watermark is marked as changed in the same append, before it is stored. So are all
   readings of a stream until the first commit that takes account of it: see `Executor.is_young`.
4. After the append is durable: memory, watermark, executor, acknowledgements in the order of arrival. Always all.
5. What no workflow has any more is not followed. Before something changes that it may rest on, its definition is
   forgotten, so that a workflow that brings it back computes it again.
6. What cannot be stored (too far in the future, a plate that is full, the value of another device) is a dead letter of
   the same round, and no reading. Nothing that a device sends raises out of here.
7. Where streams without inputs begin by a reading (`hs_stream.engine.begins`) is durable no later than the reading.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from hs_stream.core.batch import NOTHING
from hs_stream.core.clocks import advice
from hs_stream.core.errors import PayloadError
from hs_stream.core.plate import PlateFull
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MIN_TIME, TimeIntervals, format_duration, format_time
from hs_stream.engine.append import Appender
from hs_stream.engine.arrivals import Arrival
from hs_stream.engine.breath import Breath
from hs_stream.engine.contents import PatientStore
from hs_stream.engine.executor import Executor
from hs_stream.engine.feed import Feed
from hs_stream.engine.graph import Graph
from hs_stream.engine.placing import Came, Placer
from hs_stream.engine.ports import Append, Clock, DeadLetter, Delivery, Placing, Reading, StreamRecord
from hs_stream.engine.telemetry import Telemetry
from hs_stream.engine.unusable import Allowance, Unusable
from hs_stream.plan.state import StreamState
from hs_stream.plan.streams import Stream

__all__ = ["Ingest", "Overwritten"]

_ROUND: Final = 5_000
"""Readings in one append, about."""
_FRESH: Final = 256
"""New streams after which they are registered, and others may run."""
_ARRIVAL = Placing.ARRIVAL


@dataclass(slots=True)
class Overwritten:
    """Readings of ``source`` that others of the same time replaced: how many, and where the last one was."""

    source: str
    count: int
    stream: StreamId
    time: int


class Ingest:
    """Takes deliveries from a bounded queue. One round at a time; the only writer of raw streams."""

    def __init__(
        self,
        graph: Graph,
        store: PatientStore,
        executor: Executor,
        feed: Feed,
        clock: Clock,
        telemetry: Telemetry,
        *,
        append_seq: int,
        lateness: int,
        max_future: int,
        max_in_flight: int,
        max_bytes: int,
    ) -> None:
        self.in_flight = 0
        self.in_flight_bytes = 0
        """Of their payloads."""
        self.readings = 0
        self.dead_letters = 0
        self.late = 0
        self.overwritten: dict[str, Overwritten] = {}
        """Since the start, by source."""
        self.strays: Sequence[StreamRecord] = ()
        """Derived streams on record that no workflow has (rule 5)."""
        self._graph = graph
        self._store = store
        self._executor = executor
        self._appender = Appender(store, feed, seq=append_seq)
        self._clock, self._telemetry = clock, telemetry
        self._lateness, self._max_future = lateness, max_future
        self._limit, self._most_bytes = max_in_flight, max_bytes
        self._queue: asyncio.Queue[Delivery | None] = asyncio.Queue()
        self.lock = asyncio.Lock()
        self._broken: BaseException | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._known: dict[tuple[str, tuple[tuple[str, str], ...]], Stream] = {}
        self._allowance = Allowance()
        self._placer = Placer(store, self._fields_of)

    async def deliver(self, delivery: Delivery) -> None:
        """Take ``delivery`` in as soon as fewer than ``max_in_flight`` readings wait to become durable.

        And, of payloads, fewer than ``max_bytes``.
        """
        while self.in_flight >= self._limit or self.in_flight_bytes >= self._most_bytes:
            self._room.clear()
            await self._room.wait()
        self.in_flight += max(len(delivery.readings), 1)
        self.in_flight_bytes += delivery.size
        self._executor.hold(delivery.arrival)
        self._queue.put_nowait(delivery)

    async def run(self) -> None:
        """Round after round, until `finish`; everything delivered before that is still done."""
        while (first := await self._queue.get()) is not None:
            await self._alone(self._take(first))

    async def drain(self) -> None:
        """Do what has been delivered, without `run`."""
        while not self._queue.empty():
            first = self._queue.get_nowait()
            if first is not None:
                await self._alone(self._take(first))

    def finish(self) -> None:
        """Let `run` return when the queue is empty."""
        self._queue.put_nowait(None)

    @property
    def idle(self) -> bool:
        """Whether everything that was delivered is durable and acknowledged."""
        return self.in_flight == 0

    async def _alone(self, deliveries: Sequence[Delivery]) -> None:
        """One round at a time: `settle` may drain while `run` begins. None follows one that was broken off.

        What is acknowledged after a delivery that is not would be lost with it, as the broker sends in order.
        """
        async with self.lock:
            if self._broken is not None:
                raise self._broken
            try:
                await self._appender.make_sure()
                await self._round(deliveries)
            except BaseException as error:
                self._broken = error
                raise

    def _take(self, first: Delivery) -> list[Delivery]:
        deliveries, size = [first], len(first.readings)
        while size < _ROUND and not self._queue.empty():
            delivery = self._queue.get_nowait()
            if delivery is None:
                self.finish()
                break
            deliveries.append(delivery)
            size += len(delivery.readings)
        return deliveries

    async def _round(self, deliveries: Sequence[Delivery]) -> None:
        now = self._clock.now()
        horizon = self._executor.horizon(now)
        schedule, begins = self._executor.schedule, self._executor.begins
        unusable = Unusable((letter for delivery in deliveries for letter in delivery.dead_letters), now)
        came: dict[int, tuple[Stream, list[Came]]] = {}
        fresh: list[Stream] = []
        registered = 0
        breath = Breath()
        for delivery in deliveries:
            for index, reading in enumerate(delivery.readings):
                try:
                    stream = self._admit(reading, now, fresh)
                except PayloadError as error:
                    unusable.add(delivery, index, error)
                    continue
                found = came.get(stream.id)
                if found is None:
                    found = came[stream.id] = stream, []
                found[1].append((reading, delivery, index))
                if len(fresh) - registered >= _FRESH:
                    registered = await self._register(fresh, registered)
                    await breath()
        if fresh:
            await self._register(fresh, registered)
            self._executor.welcome((stream for stream in fresh if stream.kind == "derived"), "arrival")
        taken: dict[str, int] = {}
        arrivals = []
        held: list[tuple[Stream, StreamState]] = []
        oldest = min(delivery.arrival for delivery in deliveries)
        for stream, readings in came.values():
            count = len(readings)
            placed = self._placer.place_in_order(stream, readings)
            if placed is None:
                placed = await self._placer.place(stream, readings)
                for (_, delivery, at), why in placed.refused:
                    unusable.add(delivery, at, why)
                count -= len(placed.refused)
                if placed.overwritten:
                    self._count_overwritten(stream, placed.overwritten)
            taken[stream.node] = taken.get(stream.node, 0) + count
            if placed.times:
                arrival = Arrival.of(stream, placed, horizon, young=self._executor.is_young(stream))
                arrivals.append(arrival)
                if arrival.late_readings:
                    self.late += arrival.late_readings
                    self._telemetry.late(arrival.late_readings)
                if begins.may_hold_back(stream, placed, oldest):
                    since = await begins.hold_back(stream, readings, placed, oldest)
                    if since is not None:
                        held.append((stream, stream.state._replace(since=since)))
            if breath.is_due():
                await breath()
        if fresh or any(arrival.late for arrival in arrivals):
            await self.forget_strays()
        if held:
            await self._store("register", self._store.store.register, [one.record(state) for one, state in held])
            for stream, state in held:
                stream.replace(state)
        for arrival in arrivals:
            schedule.expect(arrival.stream, arrival.changed)
        dead = unusable.letters()
        await self._append(arrivals, dead)
        for arrival in arrivals:
            arrival.remember(self._lateness)
            schedule.arrived(arrival.stream, arrival.changed, oldest)
            begins.notice(arrival.stream, arrival.changed)
            if breath.is_due():
                await breath()
        if any(arrival.marks for arrival in arrivals):
            # Not before: a step in between takes account of some of them only.
            self._executor.mark(self._appender.seq)
        schedule.look_at(self._graph.disturbed(), "arrival")
        for source, count in taken.items():
            if count:
                self._telemetry.readings(source, count)
                self.readings += count
        for delivery in deliveries:
            delivery.ack()
            self.in_flight -= max(len(delivery.readings), 1)
            self.in_flight_bytes -= delivery.size
        # What arrived meanwhile is younger than this round.
        self._executor.release(now if self.in_flight else None)
        self._room.set()

    async def _register(self, fresh: Sequence[Stream], done: int) -> int:
        """Make new streams durable, but for the first ``done``, before a step can write to them; how many are by now.

        Many of them come in pieces, so that others run in between.
        """
        await self._store("register", self._store.store.register, [stream.record() for stream in fresh[done:]])
        return len(fresh)

    def _admit(self, reading: Reading, now: int, fresh: list[Stream]) -> Stream:
        """The raw stream of ``reading``. `PayloadError` where it cannot be stored."""
        if reading.time > now + self._max_future and reading.placing is not _ARRIVAL:
            raise PayloadError(
                "future",
                f"event time {format_time(reading.time)} is more than {format_duration(self._max_future)} ahead of "
                f"{format_time(now)}: {advice(reading.time - now)}",
            )
        if reading.time <= MIN_TIME:
            raise PayloadError("time_invalid", f"{reading.time} is no event time")
        key = (reading.source, reading.meta)
        stream = self._known.get(key)
        if stream is None:
            try:
                fresh += self._graph.bind(reading.source, reading.meta)
            except PlateFull as error:
                raise PayloadError("plate_full", str(error)) from None
            identity = StreamId(reading.source, reading.meta)
            stream = self._graph.streams.get(identity)
            if stream is None:
                stream = self._graph.adopt(identity)
                fresh.append(stream)
            self._known[key] = stream
        if reading.time <= stream.limit and reading.placing is not _ARRIVAL:
            raise PayloadError(
                "expired",
                f"event time {format_time(reading.time)} is at or before {format_time(stream.limit)}, up to where "
                "results are final, since the retention of a source or node has passed",
            )
        return stream

    def _fields_of(self, source: str) -> Collection[str]:
        """The fields that a source chooses; none where it takes all."""
        for ground in self._graph.sources.get(source, ()):
            fields = ground.workflow.sources[source].options.get("fields")
            return fields if isinstance(fields, (list, tuple)) else ()
        return ()

    def _count_overwritten(self, stream: Stream, times: Sequence[int]) -> None:
        known = self.overwritten.get(stream.node)
        if known is None:
            known = self.overwritten[stream.node] = Overwritten(stream.node, 0, stream.stream, times[-1])
        known.count += len(times)
        known.stream, known.time = stream.stream, times[-1]
        self._telemetry.overwritten(stream.node, stream.name, times[-1], len(times))

    async def _append(self, arrivals: Sequence[Arrival], dead: Sequence[DeadLetter]) -> None:
        marks = {arrival.stream.id: arrival.marks for arrival in arrivals if arrival.marks}
        inserts = [(arrival.stream.id, arrival.inserts) for arrival in arrivals if arrival.inserts]
        upserts = [(arrival.stream.id, arrival.upserts) for arrival in arrivals if arrival.upserts]
        if not inserts and not upserts and not dead:
            return
        kept = self._allowance.kept(dead, self._clock.now()) if dead else []
        if len(kept) < len(dead):
            self._telemetry.unkept(len(dead) - len(kept))
        written = sum(len(batch) for _, batch in inserts) + sum(len(batch) for _, batch in upserts)

        def durable() -> None:
            if written:
                self._telemetry.written("raw", written)
            self._count_dead(dead)

        await self._appender.write(Append(self._appender.seq + 1, inserts, upserts, marks, kept), durable)

    def leave_out(self, records: Sequence[StreamRecord]) -> None:
        """No workflow has these derived streams."""
        self.strays = records

    async def forget_strays(self) -> None:
        """Rule 5."""
        if self.strays:
            forgotten = [replace(record, fingerprint="") for record in self.strays]
            await self._store("register", self._store.store.register, forgotten)
            self._graph.remember(forgotten)
            self.strays = ()

    @asynccontextmanager
    async def undisturbed(self) -> AsyncIterator[None]:
        """No round is under way meanwhile, and what was appended before is durable."""
        async with self.lock:
            await self._appender.make_sure()
            yield

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keep and count what the executor could not use."""
        async with self.undisturbed():
            await self._append((), letters)

    async def purge(self, stream: Stream, start: int, end: int) -> int:
        """Remove what is stored of a raw stream in ``(start, end]``; its descendants are owed there again.

        Watermarks never fall, so the stream's is written down first: the instances it follows from may go. What results
        rest on that cannot be computed again stays: only retention takes it away. Returns how many instances went.
        """
        async with self.undisturbed():
            spans = TimeIntervals.of(max(start, stream.limit), min(end, stream.state.frontier))
            if not spans:
                return 0
            await self.forget_strays()
            count = await self._store("count", self._store.store.count, stream.id, spans.start, spans.end)
            await self._store("register", self._store.store.register, [stream.record()])
            append = Append(self._appender.seq + 1, changed={stream.id: spans}, purged={stream.id: spans})

            def durable() -> None:
                self._executor.mark(append.seq)
                self._executor.begins.forget(stream)
                self._executor.begins.doubt(stream)
                stream.tail.replace(spans.pairs, NOTHING)
                self._executor.schedule.arrived(stream, spans, self._clock.now())

            self._executor.schedule.expect(stream, spans)
            await self._appender.write(append, durable)
            return count

    async def forget(self, stream: Stream, end: int) -> bool:
        """Remove a piece of what a stream of any kind holds at or before ``end``, where nobody reads.

        Unlike a purge it is no change: nothing is computed again. Returns whether there is more.
        """
        async with self.undisturbed():
            some = await self._store("read", self._store.store.read, stream.id, MIN_TIME, end, limit=_ROUND)
            if some:
                gone = TimeIntervals.of(MIN_TIME, some.last_time)

                def durable() -> None:
                    self._executor.begins.forget(stream)
                    stream.tail.replace(gone.pairs, NOTHING)
                    self._telemetry.forgotten(len(some))

                await self._appender.write(Append(self._appender.seq + 1, purged={stream.id: gone}), durable)
            return len(some) == _ROUND

    def _count_dead(self, dead: Sequence[DeadLetter]) -> None:
        if dead:
            self.dead_letters += sum([letter.count for letter in dead])
            self._telemetry.dead_letters(dead)
