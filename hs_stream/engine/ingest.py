"""From deliveries to durable raw streams, and only then to acknowledgements.

1. A round takes what has been delivered so far: rounds follow the load, no timer is involved.
2. Within a round and a stream the later delivery wins at equal times. Against the store: the same value again is no
   change; a different one replaces the stored one.
3. What lies behind the watermark is marked as changed in the same append, before it is stored. So are all readings of
   a stream until the first commit that takes account of it: see `Stream.young`.
4. After the append is durable: memory, watermark, executor, acknowledgements in the order of arrival. Always all.
5. What no workflow has any more is not followed. Before something changes that it may rest on, its definition is
   forgotten, so that a workflow that brings it back computes it again.
6. What cannot be stored (too far in the future, a plate that is full) is a dead letter of the same round. Nothing that
   a device sends raises out of here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.errors import PayloadError
from hs_stream.core.plate import PlateFull
from hs_stream.core.stream import StreamId, difference
from hs_stream.core.time import MAX_TIME, MIN_TIME, TimeIntervals, format_duration, format_time
from hs_stream.engine.contents import PatientStore
from hs_stream.engine.executor import Executor
from hs_stream.engine.graph import Graph
from hs_stream.engine.ports import Append, Clock, DeadLetter, Delivery, Reading, StreamRecord
from hs_stream.engine.streams import Stream
from hs_stream.engine.telemetry import Telemetry

__all__ = ["Ingest"]

_MOST_PAYLOAD: Final = 65_536
"""Bytes of a payload that a dead letter keeps."""
_ROUND: Final = 5_000
"""Readings in one append, about."""


class Ingest:
    """Takes deliveries from a bounded queue. One round at a time; the only writer of raw streams."""

    def __init__(
        self,
        graph: Graph,
        store: PatientStore,
        executor: Executor,
        clock: Clock,
        telemetry: Telemetry,
        *,
        append_seq: int,
        lateness: int,
        max_future: int,
        max_in_flight: int,
    ) -> None:
        self.seq = append_seq
        self.in_flight = 0
        self.readings = 0
        self.dead_letters = 0
        self.late = 0
        self.strays: Sequence[StreamRecord] = ()
        """Derived streams on record that no workflow has (rule 5)."""
        self._graph = graph
        self._store = store
        self._executor = executor
        self._clock = clock
        self._telemetry = telemetry
        self._lateness = lateness
        self._max_future = max_future
        self._limit = max_in_flight
        self._queue: asyncio.Queue[Delivery | None] = asyncio.Queue()
        self.lock = asyncio.Lock()
        self._broken: BaseException | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._known: dict[tuple[str, tuple[tuple[str, str], ...]], Stream] = {}

    async def deliver(self, delivery: Delivery) -> None:
        """Take ``delivery`` in as soon as fewer than ``max_in_flight`` readings wait to become durable."""
        while self.in_flight >= self._limit:
            self._room.clear()
            await self._room.wait()
        self.in_flight += max(len(delivery.readings), 1)
        if self._executor.undurable is None:
            self._executor.undurable = delivery.arrival
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

        What is acknowledged behind a delivery that is not would be lost with it, as the broker sends in order.
        """
        async with self.lock:
            if self._broken is not None:
                raise self._broken
            try:
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
        dead = [letter for delivery in deliveries for letter in delivery.dead_letters]
        latest: dict[int, tuple[Stream, dict[int, Reading]]] = {}
        taken: dict[str, int] = {}
        fresh: list[Stream] = []
        for delivery in deliveries:
            for index, reading in enumerate(delivery.readings):
                try:
                    stream = self._admit(reading, now, fresh)
                except PayloadError as error:
                    dead.append(_letter(delivery, index, now, error))
                    if delivery.refused is not None:
                        delivery.refused(dead[-1])
                else:
                    latest.setdefault(stream.id, (stream, {}))[1][reading.time] = reading
                    taken[stream.node] = taken.get(stream.node, 0) + 1
        if fresh:
            await self._store("register", self._store.store.register, [stream.record() for stream in fresh])
            self._executor.welcome((stream for stream in fresh if stream.kind == "derived"), "arrival")
        plans = [await self._plan(stream, readings, horizon) for stream, readings in latest.values()]
        if fresh or any(plan.late for plan in plans):
            await self.forget_strays()
        await self._append(plans, dead)
        arrival = min(delivery.arrival for delivery in deliveries)
        for plan in plans:
            plan.remember(self._lateness)
            self._executor.arrived(plan.stream, plan.changed, arrival)
            self._notice_begin(plan)
        self._executor.look_at(self._graph.disturbed(), "arrival")
        for source, count in taken.items():
            self._telemetry.readings(source, count)
            self.readings += count
        self._count_dead(dead)
        for delivery in deliveries:
            delivery.ack()
            self.in_flight -= max(len(delivery.readings), 1)
        # What arrived meanwhile is younger than this round.
        self._executor.undurable = now if self.in_flight else None
        self._room.set()

    def _admit(self, reading: Reading, now: int, fresh: list[Stream]) -> Stream:
        """The raw stream of ``reading``. `PayloadError` where it cannot be stored."""
        if reading.time > now + self._max_future:
            raise PayloadError(
                "future",
                f"event time {format_time(reading.time)} is more than {format_duration(self._max_future)} ahead of "
                f"{format_time(now)}: check the clock of the device",
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
            self._graph.widen_demand(fresh)
            self._known[key] = stream
        if reading.time <= stream.limit:
            raise PayloadError(
                "expired",
                f"event time {format_time(reading.time)} is at or before {format_time(stream.limit)}, up to where "
                "results are final, since the retention of a source or node has passed",
            )
        return stream

    async def _plan(self, stream: Stream, readings: dict[int, Reading], horizon: int) -> _Plan:
        """What of a round's readings is new, what replaces, and what changes."""
        times = sorted(readings)
        batch = Batch.build(times, [readings[time].value for time in times])
        upper = max(stream.upper, horizon)
        if times[0] > stream.frontier:
            inserts, upserts = batch, NOTHING
            changed = TimeIntervals.of(times[0] - 1, times[-1])
        else:
            inserts = batch.slice(stream.frontier, MAX_TIME)
            again = batch.slice(times[0] - 1, stream.frontier)
            old = await self._stored(stream, again.times.tolist())
            found = difference(old, again)
            upserts = found.inserted.update(found.revised)
            changed = TimeIntervals.points(upserts.times.tolist())
            if inserts:
                changed |= TimeIntervals.of(inserts.first_time - 1, inserts.last_time)
        late = changed & TimeIntervals.of(MIN_TIME, upper)
        count = int(np.searchsorted(batch.times, upper, "right"))
        if count:
            self.late += count
            self._telemetry.late(count)
        # An aggregate may cover these times from before the stream was there, and still does in what is durable.
        marks = changed if stream.young else late
        return _Plan(stream, inserts, upserts, changed, late, marks)

    async def _stored(self, stream: Stream, times: list[int]) -> Batch:
        if times[0] > stream.tail.low:
            wanted = set(times)
            return Batch.of(item for item in stream.tail.batch.slice(times[0] - 1, times[-1]) if item[0] in wanted)
        return await self._store("get", self._store.store.get, stream.id, times)

    async def _append(self, plans: Sequence[_Plan], dead: Sequence[DeadLetter]) -> None:
        marks = {plan.stream.id: plan.marks for plan in plans if plan.marks}
        inserts = [(plan.stream.id, plan.inserts) for plan in plans if plan.inserts]
        upserts = [(plan.stream.id, plan.upserts) for plan in plans if plan.upserts]
        if not inserts and not upserts and not dead:
            return
        append = Append(self.seq + 1, inserts, upserts, marks, dead)
        async with self._executor.feed.append(append):
            await self._store("append", self._store.store.append, append)
        self.seq += 1
        if marks:
            self._executor.marked = self.seq
        written = sum(len(batch) for _, batch in inserts) + sum(len(batch) for _, batch in upserts)
        if written:
            self._telemetry.written("raw", written)

    async def forget_strays(self) -> None:
        """Rule 5."""
        if self.strays:
            forgotten = [replace(record, fingerprint="") for record in self.strays]
            await self._store("register", self._store.store.register, forgotten)
            self._graph.records |= {record.stream: record for record in forgotten}
            self.strays = ()

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keep and count what the executor could not use."""
        async with self.lock:
            await self._append((), letters)
            self._count_dead(letters)

    async def purge(self, stream: Stream, start: int, end: int) -> int:
        """Remove what is stored of a raw stream in ``(start, end]``; its descendants are owed there again.

        Watermarks never fall, so the stream's is written down first: the instances it follows from may go. What results
        rest on that cannot be computed again stays: only retention takes it away. Returns how many instances went.
        """
        async with self.lock:
            spans = TimeIntervals.of(max(start, stream.limit), min(end, stream.frontier))
            if not spans:
                return 0
            await self.forget_strays()
            count = await self._store("count", self._store.store.count, stream.id, spans.start, spans.end)
            await self._store("register", self._store.store.register, [stream.record()])
            append = Append(self.seq + 1, changed={stream.id: spans}, purged={stream.id: spans})
            async with self._executor.feed.append(append):
                await self._store("append", self._store.store.append, append)
            self.seq += 1
            self._executor.marked = self.seq
            stream.tail.replace(spans.pairs, NOTHING)
            self._executor.arrived(stream, spans, self._clock.now())
            return count

    async def forget(self, stream: Stream, end: int) -> bool:
        """Remove a piece of what a stream of any kind holds at or before ``end``, where nobody reads.

        Unlike a purge it is no change: nothing is computed again. Returns whether there is more.
        """
        async with self.lock:
            some = await self._store("read", self._store.store.read, stream.id, MIN_TIME, end, limit=_ROUND)
            if some:
                gone = TimeIntervals.of(MIN_TIME, some.last_time)
                append = Append(self.seq + 1, purged={stream.id: gone})
                async with self._executor.feed.append(append):
                    await self._store("append", self._store.store.append, append)
                self.seq += 1
                stream.tail.replace(gone.pairs, NOTHING)
                self._telemetry.forgotten(len(some))
            return len(some) == _ROUND

    def _notice_begin(self, plan: _Plan) -> None:
        """Streams without inputs begin at the earliest reading of their workflow."""
        if not plan.changed:
            return
        first = plan.changed.start + 1
        for workflow in self._graph.readers(plan.stream):
            known = self._executor.begin.get(workflow)
            if known is None or (first < known and not self._graph.forgets(workflow)):
                self._executor.begin_at(workflow, first)

    def _count_dead(self, dead: Iterable[DeadLetter]) -> None:
        for letter in dead:
            self.dead_letters += 1
            self._telemetry.dead_letters(letter.source, letter.reason, 1)


class _Plan:
    """What one round does to one raw stream."""

    __slots__ = ("changed", "inserts", "late", "marks", "stream", "upserts")

    def __init__(
        self,
        stream: Stream,
        inserts: Batch,
        upserts: Batch,
        changed: TimeIntervals,
        late: TimeIntervals,
        marks: TimeIntervals,
    ) -> None:
        self.stream = stream
        self.inserts = inserts
        self.upserts = upserts
        self.changed = changed
        self.late = late
        self.marks = marks

    def remember(self, lateness: int) -> None:
        """Bring memory up to the store: tail, newest instance, watermark."""
        stream = self.stream
        stream.changes += len(self.inserts) + len(self.upserts)
        if self.upserts:
            stream.tail.update(self.upserts)
            stream.changes_behind += 1
        if self.inserts:
            stream.tail.extend(stream.frontier, self.inserts)
            stream.frontier = self.inserts.last_time
            stream.upper = max(stream.upper, stream.frontier - lateness)


def _letter(delivery: Delivery, index: int, now: int, error: PayloadError) -> DeadLetter:
    """The message that the reading came in; where that is not known (an import), the reading."""
    reading = delivery.readings[index]
    origin = delivery.origin(index)
    if origin is None:
        what = {"stream": str(StreamId(reading.source, reading.meta)), "time": reading.time, "value": reading.value}
        origin = "", json.dumps(what, default=str).encode()
    topic, payload = origin
    return DeadLetter(now, reading.source, error.reason, error.message, topic, payload[:_MOST_PAYLOAD])
