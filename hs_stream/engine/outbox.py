"""From committed changes to confirmed publications, for each sink by itself.

1. An entry is published after its commit, entries in order of commit, changes of a stream in order of event time.
2. Each sink has a cursor of its own (``Store.published``), and a task of its own. So one that is away holds up no
   other, and misses nothing.
3. The cursor follows confirmations, not attempts: after a crash, what was not recorded as confirmed is published again
   (at least once; ``(stream, time, revision)`` tells repeats).
4. What the other side may still forget (`Sink.forgets_ms`) is confirmed and not recorded yet, but for an orderly stop.
5. At most `_MEMORY` changes wait in memory for each sink. What does not fit is read back from the store when its turn
   comes.
6. What the other side will never have is counted and kept as a dead letter (`hs_stream.engine.unpublished`) before the
   cursor passes it, and holds nothing up.
7. A `Mirror` is told of a commit when it is durable. Nothing waits for it.
8. Where an engine has no ``sinks``, nothing is taken for published: it waits in the store for an engine that has some.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from hs_stream.core.time import MIN_TIME
from hs_stream.engine.contents import PatientStore
from hs_stream.engine.graph import Graph
from hs_stream.engine.ports import (
    Change,
    Clock,
    DeadLetter,
    Mirror,
    OutboxEntry,
    Publication,
    Sink,
    Unpublished,
)
from hs_stream.engine.telemetry import Telemetry
from hs_stream.engine.unpublished import Refusals
from hs_stream.plan.streams import Stream

__all__ = ["Outbox"]

_MEMORY: Final = 20_000
_AT_ONCE: Final = 2_000
_CURSOR_EVERY: Final = 250
"""Milliseconds between two writes of a cursor while there is more to publish."""

Takes = Callable[[Mapping[str, Any]], bool]
Bury = Callable[[Sequence[DeadLetter]], Awaitable[None]]


class Outbox:
    """Publishes what the executor commits. ``cursors``: that of each sink. ``bury`` keeps dead letters."""

    def __init__(
        self,
        graph: Graph,
        store: PatientStore,
        sinks: Sequence[Sink],
        mirrors: Sequence[Mirror],
        clock: Clock,
        telemetry: Telemetry,
        cursors: Mapping[str, int],
        bury: Bury,
    ) -> None:
        self.refusals = Refusals()
        self._lines = [
            _Line(graph, store, sink, clock, telemetry, cursors[sink.name], bury, self.refusals) for sink in sinks
        ]
        self._mirrors = [(mirror, _Publications(graph, mirror)) for mirror in mirrors]

    def recover(self, committed: int) -> None:
        """After a start: what was committed and not recorded as published is read from the store."""
        for line in self._lines:
            line.recover(committed)
        for _, publications in self._mirrors:
            publications.recover()

    def offer(self, seq: int, entries: Sequence[OutboxEntry], arrival: int) -> None:
        """A commit is durable."""
        for line in self._lines:
            line.offer(seq, entries, arrival)
        for mirror, publications in self._mirrors:
            if found := publications.of(entries):
                mirror.observe(found)

    @property
    def pending(self) -> int:
        """How many changes wait, those for several sinks as many times; or commits, where that is not known."""
        return sum(line.pending for line in self._lines)

    @property
    def pending_by_sink(self) -> dict[str, int]:
        """The same for each sink."""
        return {line.name: line.pending for line in self._lines}

    @property
    def count(self) -> int:
        """How many changes were confirmed since the start, by all sinks."""
        return sum(line.count for line in self._lines)

    async def run(self) -> None:
        """Publish until cancelled."""
        if len(self._lines) == 1:
            await self._lines[0].run()
        async with asyncio.TaskGroup() as group:
            for line in self._lines:
                group.create_task(line.run(), name=f"outbox of {line.name}")

    async def drained(self) -> None:
        """Wait until everything that is committed is confirmed by every sink."""
        for line in self._lines:
            await line.drained()

    async def record(self, *, final: bool = False) -> None:
        """Write the cursors now; ``final``: nobody will be there to notice that the other side forgets."""
        for line in self._lines:
            await line.record(final=final)


class _Publications:
    """Entries as one receiver gets them: of the streams that it takes, each change marked when it is the newest."""

    def __init__(self, graph: Graph, receiver: Sink | Mirror) -> None:
        self._graph = graph
        self.takes: Takes | None = getattr(receiver, "takes", None)
        self._newest: dict[int, int] = {}
        """By stream: the newest event time that was published, or stored when this began."""

    def recover(self) -> None:
        """After a start: what is stored is no news."""
        streams = self._graph.streams.values()
        self._newest = {stream.id: stream.state.frontier for stream in streams if stream.outlets}

    def of(self, entries: Iterable[OutboxEntry]) -> list[Publication]:
        """In the order of ``entries``; nothing of streams that nobody publishes any more."""
        return [publication for entry in entries for publication in self._of(entry)]

    def _of(self, entry: OutboxEntry) -> Iterable[Publication]:
        stream = self._graph.by_id.get(entry.stream)
        if stream is None or not stream.outlets:
            return
        outlets = stream.outlets
        if self.takes is not None:
            outlets = [outlet for outlet in outlets if self.takes(outlet.options)]
            if not outlets:
                return
        tool = "" if stream.tool is None else stream.tool.pin
        meta = dict(stream.stream.meta)
        values = [tuple(meta[plate] for plate in outlet.plates) for outlet in outlets]
        for change in entry.changes:
            newest = self._is_newest(change, stream)
            for outlet, plates in zip(outlets, values, strict=True):
                yield Publication(
                    stream.stream, outlet.workflow, plates, tool, change, newest, outlet.options, outlet.meaning
                )

    def _is_newest(self, change: Change, stream: Stream) -> bool:
        """A retraction of the newest instance is newest too: what is retained must not outlive it."""
        if change.time < self._newest.get(stream.id, MIN_TIME):
            return False
        self._newest[stream.id] = change.time
        return True


class _Line:
    """What waits for one sink."""

    def __init__(
        self,
        graph: Graph,
        store: PatientStore,
        sink: Sink,
        clock: Clock,
        telemetry: Telemetry,
        published: int,
        bury: Bury,
        refusals: Refusals,
    ) -> None:
        self.name = sink.name
        self.count = 0
        self._published = published
        """The last commit whose changes are all confirmed."""
        self._committed = published
        self._store = store
        self._sink = sink
        self._clock = clock
        self._telemetry = telemetry
        self._bury = bury
        self._refusals = refusals
        self._publications = _Publications(graph, sink)
        self._waiting: deque[tuple[int, Sequence[OutboxEntry], int]] = deque()
        self._size = 0
        self._overflow = False
        self._recorded = published
        self._recorded_at = 0
        self._forgets = sink.forgets_ms
        self._sure = published
        self._confirmed: deque[tuple[int, int]] = deque()
        """Rule 4: ``(confirmed at, seq)``, at most one each `_CURSOR_EVERY`; up to ``_sure`` nothing is forgotten."""
        self._news = asyncio.Event()
        self._progress = asyncio.Event()

    def recover(self, committed: int) -> None:
        """See `Outbox.recover`."""
        self._committed = committed
        self._overflow = self._published < committed
        self._publications.recover()
        self._news.set()

    def offer(self, seq: int, entries: Sequence[OutboxEntry], arrival: int) -> None:
        """See `Outbox.offer`."""
        self._committed = seq
        self._news.set()
        size = sum(len(entry.changes) for entry in entries)
        if self._overflow or self._size + size > _MEMORY:
            self._overflow = True
        else:
            self._waiting.append((seq, entries, arrival))
            self._size += size

    @property
    def pending(self) -> int:
        """See `Outbox.pending`."""
        return self._size + (max(self._committed - self._published, 0) if self._overflow else 0)

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            while self._published < self._committed:
                await self._some()
                self._progress.set()
            await self.record()
            self._news.clear()
            if self._published >= self._committed:
                # Until what is confirmed is sure, there is a cursor to write.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._forgets / 1000 if self._confirmed else None):
                        await self._news.wait()

    async def drained(self) -> None:
        """Wait until everything that is committed is confirmed."""
        while self._published < self._committed:
            self._progress.clear()
            await self._progress.wait()

    async def record(self, *, final: bool = False) -> None:
        """See `Outbox.record`."""
        now = self._clock.now()
        while self._confirmed and (final or self._confirmed[0][0] <= now - self._forgets):
            self._sure = self._confirmed.popleft()[1]
        if not self._forgets or (final and not self._confirmed):
            self._sure = self._published
        if self._recorded < self._sure:
            seq = self._sure
            await self._store("published", self._store.store.published, self.name, seq)
            self._recorded, self._recorded_at = seq, self._clock.now()

    async def _some(self) -> None:
        if not self._waiting:
            await self._read_back()
            if not self._waiting:
                return
        batch: list[Publication] = []
        refused: Sequence[Unpublished] = ()
        last, oldest, count = self._published, 0, 0
        while self._waiting and count < _AT_ONCE:
            seq, entries, arrival = self._waiting.popleft()
            count += sum(len(entry.changes) for entry in entries)
            batch += self._publications.of(entries)
            last, oldest = seq, oldest or arrival
        if batch:
            await self._store.permitted()
            refused = await self._sink.publish(batch) or ()
            if refused:
                await self._refused(refused)
            now = self._clock.now()
            if oldest:
                self._telemetry.end_to_end((now - oldest) / 1000, len(batch))
        self._size -= count
        taken = count if self._publications.takes is None else len(batch)
        self.count += max(taken - len(refused), 0)
        self._published = last
        self._note_confirmed(last)
        if self._clock.now() >= self._recorded_at + _CURSOR_EVERY:
            await self.record()

    async def _refused(self, refused: Sequence[Unpublished]) -> None:
        """Rule 6."""
        for one in refused:
            self._telemetry.unpublished(one.reason, 1)
        if letters := self._refusals.take(refused, self._clock.now()):
            await self._bury(letters)

    def _note_confirmed(self, seq: int) -> None:
        now = self._clock.now()
        if len(self._confirmed) > 1 and now < self._confirmed[-2][0] + _CURSOR_EVERY:
            self._confirmed[-1] = (now, seq)
        elif self._forgets:
            self._confirmed.append((now, seq))

    async def _read_back(self) -> None:
        committed = self._committed
        entries = await self._store("outbox", self._store.store.outbox, self._published, 50)
        if not entries:
            # Nothing to publish up to what was committed when the question was asked.
            self._published = max(self._published, committed)
            self._note_confirmed(self._published)
            self._overflow = self._committed > committed
            return
        by_seq: dict[int, list[OutboxEntry]] = {}
        for entry in entries:
            by_seq.setdefault(entry.seq, []).append(entry)
        for seq, group in by_seq.items():
            self._waiting.append((seq, group, 0))
            self._size += sum(len(entry.changes) for entry in group)
