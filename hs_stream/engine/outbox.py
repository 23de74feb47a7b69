"""From committed changes to confirmed publications.

1. An entry is published after its commit, entries in order of commit, changes of a stream in order of event time.
2. The cursor (``Store.published``) follows confirmations, not attempts: after a crash, what was not recorded as
   confirmed is published again (at least once; ``(stream, time, revision)`` tells repeats).
3. What the other side may still forget (`Sink.forgets_ms`) is confirmed and not recorded yet, but for an orderly stop.
4. At most `_MEMORY` changes wait in memory. What does not fit is read back from the store when its turn comes.
5. What the other side will never have is counted and kept as a dead letter (`hs_stream.engine.unpublished`) before the
   cursor passes it, and holds nothing up.
6. Without a sink nothing is published, and nothing is taken for it: it waits in the store for an engine with a sink.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from hs_stream.core.time import MIN_TIME
from hs_stream.engine.contents import PatientStore
from hs_stream.engine.graph import Graph
from hs_stream.engine.ports import Change, Clock, DeadLetter, OutboxEntry, Publication, Sink, Unpublished
from hs_stream.engine.telemetry import Telemetry
from hs_stream.engine.unpublished import Refusals

__all__ = ["Outbox"]

_MEMORY: Final = 20_000
_AT_ONCE: Final = 2_000
_CURSOR_EVERY: Final = 250
"""Milliseconds between two writes of the cursor while there is more to publish."""


class Outbox:
    """Publishes what the executor commits. ``bury`` keeps dead letters."""

    def __init__(
        self,
        graph: Graph,
        store: PatientStore,
        sink: Sink | None,
        clock: Clock,
        telemetry: Telemetry,
        published: int,
        bury: Callable[[Sequence[DeadLetter]], Awaitable[None]],
    ) -> None:
        self.published = published
        """The last commit whose changes are all confirmed."""
        self.committed = published
        self.count = 0
        self.refusals = Refusals()
        self._graph = graph
        self._store = store
        self._sink = sink
        self._clock = clock
        self._telemetry = telemetry
        self._bury = bury
        self._waiting: deque[tuple[int, Sequence[OutboxEntry], int]] = deque()
        self._size = 0
        self._overflow = False
        self._recorded = published
        self._recorded_at = 0
        self._forgets = 0 if sink is None else sink.forgets_ms
        self._sure = published
        self._newest: dict[int, int] = {}
        """Per stream: the newest instance that was published."""
        self._marks: deque[tuple[int, int]] = deque()
        """Rule 3: ``(confirmed at, seq)``, at most one each `_CURSOR_EVERY`; up to ``_sure`` nothing is forgotten."""
        self._news = asyncio.Event()
        self._progress = asyncio.Event()

    def recover(self, committed: int) -> None:
        """After a start: what was committed and not recorded as published is read from the store."""
        self.committed = committed
        self._overflow = self._sink is not None and self.published < committed
        streams = self._graph.streams.values()
        self._newest = {stream.id: stream.state.frontier for stream in streams if stream.outlets}
        self._news.set()

    def offer(self, seq: int, entries: Sequence[OutboxEntry], arrival: int) -> None:
        """A commit is durable."""
        self.committed = seq
        self._news.set()
        if self._sink is None:
            return
        size = sum(len(entry.changes) for entry in entries)
        if self._overflow or self._size + size > _MEMORY:
            self._overflow = True
        else:
            self._waiting.append((seq, entries, arrival))
            self._size += size

    @property
    def pending(self) -> int:
        """How many changes wait, or how many commits where it is not known how many changes they hold."""
        return self._size + (max(self.committed - self.published, 0) if self._overflow else 0)

    async def run(self) -> None:
        """Publish until cancelled."""
        sink = self._sink
        while sink is not None:
            while self.published < self.committed:
                await self._some(sink)
                self._progress.set()
            await self.record()
            self._news.clear()
            if self.published >= self.committed:
                # Until what is confirmed is sure, there is a cursor to write.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._forgets / 1000 if self._marks else None):
                        await self._news.wait()

    async def drained(self) -> None:
        """Wait until everything that is committed is confirmed; not without a sink, which nothing will be."""
        while self._sink is not None and self.published < self.committed:
            self._progress.clear()
            await self._progress.wait()

    async def record(self, *, final: bool = False) -> None:
        """Write the cursor now; ``final``: nobody will be there to notice that the other side forgets."""
        now = self._clock.now()
        while self._marks and (final or self._marks[0][0] <= now - self._forgets):
            self._sure = self._marks.popleft()[1]
        if not self._forgets or (final and not self._marks):
            self._sure = self.published
        if self._recorded < self._sure:
            seq = self._sure
            await self._store("published", self._store.store.published, seq)
            self._recorded, self._recorded_at = seq, self._clock.now()

    async def _some(self, sink: Sink) -> None:
        if not self._waiting:
            await self._read_back()
            if not self._waiting:
                return
        batch: list[Publication] = []
        refused: Sequence[Unpublished] = ()
        last, oldest, count = self.published, 0, 0
        while self._waiting and count < _AT_ONCE:
            seq, entries, arrival = self._waiting.popleft()
            for entry in entries:
                count += len(entry.changes)
                batch += self._publications(entry)
            last, oldest = seq, oldest or arrival
        if batch:
            await self._store.permitted()
            refused = await sink.publish(batch) or ()
            if refused:
                await self._refused(refused)
            now = self._clock.now()
            if oldest:
                self._telemetry.end_to_end((now - oldest) / 1000, len(batch))
        self._size -= count
        self.count += max(count - len(refused), 0)
        self.published = last
        self._mark(last)
        if self._clock.now() >= self._recorded_at + _CURSOR_EVERY:
            await self.record()

    async def _refused(self, refused: Sequence[Unpublished]) -> None:
        """Rule 5."""
        for one in refused:
            self._telemetry.unpublished(one.reason, 1)
        if letters := self.refusals.take(refused, self._clock.now()):
            await self._bury(letters)

    def _mark(self, seq: int) -> None:
        now = self._clock.now()
        if len(self._marks) > 1 and now < self._marks[-2][0] + _CURSOR_EVERY:
            self._marks[-1] = (now, seq)
        elif self._forgets:
            self._marks.append((now, seq))

    async def _read_back(self) -> None:
        committed = self.committed
        entries = await self._store("outbox", self._store.store.outbox, self.published, 50)
        if not entries:
            # Nothing to publish up to what was committed when the question was asked.
            self.published = max(self.published, committed)
            self._mark(self.published)
            self._overflow = self.committed > committed
            return
        by_seq: dict[int, list[OutboxEntry]] = {}
        for entry in entries:
            by_seq.setdefault(entry.seq, []).append(entry)
        for seq, group in by_seq.items():
            self._waiting.append((seq, group, 0))
            self._size += sum(len(entry.changes) for entry in group)

    def _publications(self, entry: OutboxEntry) -> list[Publication]:
        stream = self._graph.by_id.get(entry.stream)
        if stream is None or not stream.outlets:
            return []
        tool = "" if stream.tool is None else stream.tool.pin
        meta = dict(stream.stream.meta)
        values = [tuple(meta[plate] for plate in outlet.plates) for outlet in stream.outlets]
        result = []
        for change in entry.changes:
            newest = self._is_newest(change, self._newest.get(stream.id, MIN_TIME))
            if newest:
                self._newest[stream.id] = change.time
            result += [
                Publication(stream.stream, outlet.workflow, plates, tool, change, newest, outlet.options)
                for outlet, plates in zip(stream.outlets, values, strict=True)
            ]
        return result

    @staticmethod
    def _is_newest(change: Change, until: int) -> bool:
        """A retraction of the newest instance is newest too: what is retained must not outlive it."""
        return change.time >= until
