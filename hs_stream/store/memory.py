"""A store in this process's memory, for tests, notebooks and the oracle.

The object itself is the durable medium: `MemoryStore.close` and `MemoryStore.open` again is a restart of the process
over a storage that survived, and every write is done in one go without awaiting anything, so it can never be half
there. It has one writer by nature: the object that is shared. The right to write still has its owners, one at a time,
and a clock that a test may turn.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Final

import numpy as np

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.errors import StoreUnavailable
from hs_stream.core.packing import pack, unpack
from hs_stream.core.size import fitting
from hs_stream.core.time import TimeIntervals
from hs_stream.core.value import Value
from hs_stream.engine.changes import changes_of
from hs_stream.engine.ports import (
    Append,
    Commit,
    DeadLetter,
    DocumentKind,
    HistoryEntry,
    Holder,
    OutboxEntry,
    Recovery,
    Snapshot,
    StreamChange,
    StreamRecord,
    within,
)
from hs_stream.store.changes import complete, merge_marks, touched
from hs_stream.store.cursors import advanced, chosen, start_of
from hs_stream.store.fence import Fence, host_now

__all__ = ["MemoryStore"]

_SPARSE: Final = 64
"""Rewriting this many stored instances at once costs about as much as one insertion in the middle."""


class _Contents:
    """One stream's instances, revisions and snapshots, each sorted by time."""

    __slots__ = ("revisions", "snapshot_times", "snapshots", "times", "values")

    def __init__(self) -> None:
        self.times = array("q")
        self.values: list[Value] = []
        self.revisions: dict[int, int] = {}
        self.snapshot_times: list[int] = []
        self.snapshots: list[Snapshot] = []

    def batch(self, low: int, high: int) -> Batch:
        if low >= high:
            return NOTHING
        return Batch.build(np.array(self.times[low:high], np.int64), self.values[low:high])

    def lay(self, new: Batch) -> None:
        """Insert or replace the instances of ``new``."""
        if not new:
            return
        times, values = self.times, self.values
        if not times or times[-1] < new.first_time:
            times.frombytes(new.times.astype(np.int64, copy=False).tobytes())
            values.extend(new.plain())
            return
        low, high = bisect_left(times, new.first_time), bisect_right(times, new.last_time)
        if high - low > _SPARSE * len(new):
            for time, value in new:
                at = bisect_left(times, time, low)
                if at < len(times) and times[at] == time:
                    values[at] = value
                else:
                    times.insert(at, time)
                    values.insert(at, value)
            return
        merged = dict(zip(times[low:high], values[low:high], strict=True))
        merged.update(new)
        order = sorted(merged)
        times[low:high] = array("q", order)
        values[low:high] = [merged[time] for time in order]

    def remove(self, gone: Sequence[int]) -> None:
        """Remove the instances at the times ``gone``, as far as there are any."""
        if not gone:
            return
        times, values = self.times, self.values
        low, high = bisect_left(times, min(gone)), bisect_right(times, max(gone))
        if high - low > _SPARSE * len(gone):
            for time in gone:
                at = bisect_left(times, time)
                if at < len(times) and times[at] == time:
                    del times[at]
                    del values[at]
            return
        drop = set(gone)
        kept = [
            (time, value) for time, value in zip(times[low:high], values[low:high], strict=True) if time not in drop
        ]
        times[low:high] = array("q", [time for time, _ in kept])
        values[low:high] = [value for _, value in kept]

    def purge(self, start: int, end: int) -> None:
        """Remove every instance in ``(start, end]``."""
        low, high = bisect_right(self.times, start), bisect_right(self.times, end)
        del self.times[low:high]
        del self.values[low:high]

    def forget_snapshots(self) -> None:
        """Remove every snapshot."""
        self.snapshot_times.clear()
        self.snapshots.clear()

    def change(self, change: StreamChange) -> None:
        """Apply one stream's part of a commit."""
        self.remove(change.retracted)
        self.lay(change.inserted)
        self.lay(change.revised)
        if self.revisions or change.revisions:
            for time in touched(change):
                if revision := change.revisions.get(time, 0):
                    self.revisions[time] = revision
                else:
                    self.revisions.pop(time, None)
        for start, end in change.snapshots_dropped.pairs:
            low, high = bisect_right(self.snapshot_times, start), bisect_right(self.snapshot_times, end)
            del self.snapshot_times[low:high]
            del self.snapshots[low:high]
        for snapshot in change.snapshots:
            at = bisect_left(self.snapshot_times, snapshot.time)
            if at < len(self.snapshot_times) and self.snapshot_times[at] == snapshot.time:
                self.snapshots[at] = snapshot
            else:
                self.snapshot_times.insert(at, snapshot.time)
                self.snapshots.insert(at, snapshot)


class MemoryStore:
    """See the module. Holds at most ``max_dead_letters`` and ``max_history`` entries, the newest ones.

    ``now`` is its clock, in ms, which says when the right to write runs out.
    """

    name: str = "memory"

    def __init__(
        self, *, max_dead_letters: int = 10_000, max_history: int = 100_000, now: Callable[[], int] = host_now
    ) -> None:
        self._open = False
        self._now = now
        self._fence = Fence("the memory store")
        self._lease, self._until = Holder("", 0), 0
        self._contents: dict[int, _Contents] = {}
        self._records: dict[int, StreamRecord] = {}
        self._marks: dict[int, Mapping[int, TimeIntervals]] = {}
        self._outbox: dict[int, list[OutboxEntry]] = {}
        self._documents: dict[str, dict[str, bytes]] = {}
        self._dead_letters: deque[DeadLetter] = deque(maxlen=max_dead_letters)
        self._history: deque[HistoryEntry] = deque(maxlen=max_history)
        self._append_seq = self._commit_seq = self._start = 0
        self._cursors: Mapping[str, int] = {}
        self._proven: int | None = None

    async def open(self) -> Recovery:
        """Never fails."""
        if not self._open:
            self._fence.opened(self._lease.token)
        self._open = True
        marks = merge_marks(pair for changed in self._marks.values() for pair in changed.items())
        return Recovery(marks, self._append_seq, self._commit_seq, dict(self._cursors), self._proven)

    async def close(self) -> None:
        """Keep everything; `open` continues from there."""
        self._open = False

    async def abandon(self) -> None:
        """What a crash of the process would leave: here the same as `close`."""
        self._open = False

    async def ping(self) -> None:
        """`StoreUnavailable` while closed."""
        self._require_open()

    def _require_open(self) -> None:
        if not self._open:
            raise StoreUnavailable("the memory store is closed", hint="await store.open() first")

    def _require_mine(self) -> None:
        self._require_open()
        self._fence.require(self._lease.token)

    def _of(self, stream: int) -> _Contents:
        self._require_open()
        return self._contents.get(stream) or _Contents()

    def _make(self, stream: int) -> _Contents:
        return self._contents.setdefault(stream, _Contents())

    # --- streams and writes ---

    async def streams(self) -> list[StreamRecord]:
        self._require_open()
        return [complete(self._records[stream]) for stream in sorted(self._records)]

    async def register(self, records: Sequence[StreamRecord]) -> None:
        self._require_mine()
        for record in records:
            known = self._records.get(record.id)
            if known is not None and known.fingerprint != record.fingerprint and record.id in self._contents:
                self._contents[record.id].forget_snapshots()
            self._records[record.id] = record

    async def append(self, append: Append) -> None:
        self._require_mine()
        if append.seq <= self._append_seq:
            return
        if append.changed:
            self._marks[append.seq] = dict(append.changed)
        self._dead_letters.extend(append.dead_letters)
        for stream, spans in append.purged.items():
            for start, end in spans.pairs:
                self._make(stream).purge(start, end)
        for stream, batch in (*append.inserts, *append.upserts):
            self._make(stream).lay(batch)
        self._append_seq = append.seq

    async def commit(self, commit: Commit) -> None:
        self._require_mine()
        if commit.seq <= self._commit_seq:
            return
        entries = []
        for change in sorted(commit.streams, key=lambda change: change.stream):
            self._make(change.stream).change(change)
            if record := self._records.get(change.stream):
                self._records[change.stream] = replace(record, coverage=change.coverage, upper=change.upper)
            if change.publish and (entry := changes_of(commit.seq, change)).changes:
                entries.append(entry)
        if entries:
            self._outbox[commit.seq] = entries
        self._history.extend(commit.history)
        for seq in [seq for seq in self._marks if seq <= commit.consumed]:
            del self._marks[seq]
        self._commit_seq = commit.seq
        self._append_seq = max(self._append_seq, commit.consumed)
        self._proven = commit.proven

    async def advance(self, uppers: Mapping[int, int]) -> None:
        self._require_mine()
        for stream, upper in uppers.items():
            record = self._records.get(stream)
            if record is not None and (record.upper is None or record.upper < upper):
                self._records[stream] = replace(record, upper=upper)

    # --- reads ---

    async def read(
        self,
        stream: int,
        start: int,
        end: int,
        *,
        limit: int | None = None,
        newest: bool = False,
        budget: int | None = None,
    ) -> Batch:
        contents = self._of(stream)
        low, high = bisect_right(contents.times, start), bisect_right(contents.times, end)
        if limit is not None:
            low, high = (max(low, high - limit), high) if newest else (low, min(high, low + limit))
        if budget is not None and low < high:
            values = reversed(contents.values[low:high]) if newest else iter(contents.values[low:high])
            count = fitting(values, budget)
            low, high = (high - count, high) if newest else (low, low + count)
        return contents.batch(low, high)

    async def last(self, stream: int, instant: int, count: int) -> Batch:
        contents = self._of(stream)
        high = bisect_right(contents.times, instant)
        return contents.batch(max(high - count, 0), high)

    async def get(self, stream: int, times: Sequence[int]) -> Batch:
        contents = self._of(stream)
        found = []
        for time in sorted(set(times)):
            at = bisect_left(contents.times, time)
            if at < len(contents.times) and contents.times[at] == time:
                found.append((time, contents.values[at]))
        return Batch.of(found)

    async def revisions(self, stream: int, times: Sequence[int]) -> dict[int, int]:
        revisions = self._of(stream).revisions
        return {time: revisions[time] for time in times if time in revisions}

    async def count(self, stream: int, start: int, end: int) -> int:
        times = self._of(stream).times
        return max(bisect_right(times, end) - bisect_right(times, start), 0)

    async def snapshot(self, stream: int, instant: int) -> Snapshot | None:
        contents = self._of(stream)
        at = bisect_right(contents.snapshot_times, instant)
        return contents.snapshots[at - 1] if at else None

    async def snapshots(self, stream: int, start: int, end: int, *, limit: int) -> list[Snapshot]:
        contents = self._of(stream)
        low, high = bisect_right(contents.snapshot_times, start), bisect_right(contents.snapshot_times, end)
        return contents.snapshots[low : min(high, low + limit)]

    # --- outbox, small documents ---

    async def outbox(self, after: int, limit: int) -> list[OutboxEntry]:
        self._require_open()
        after = max(after, self._start)
        result: list[OutboxEntry] = []
        commits = 0
        for seq, entries in self._outbox.items():
            if seq > after:
                if commits == limit:
                    break
                commits += 1
                result += entries
        return result

    async def sinks(self, names: Sequence[str]) -> dict[str, int]:
        self._require_mine()
        self._cursors, start = chosen(self._cursors, self._start, names, self._commit_seq)
        self._forget_until(start)
        return dict(self._cursors)

    async def published(self, sink: str, seq: int) -> None:
        self._require_mine()
        self._cursors = advanced(self._cursors, sink, seq)
        self._forget_until(start_of(self._cursors, self._start))

    def _forget_until(self, start: int) -> None:
        self._start = start
        while self._outbox and (oldest := next(iter(self._outbox))) <= start:
            del self._outbox[oldest]

    async def dead_letters(self, limit: int, *, budget: int | None = None) -> list[DeadLetter]:
        self._require_open()
        return list(within(islice(reversed(self._dead_letters), max(limit, 0)), budget))

    async def history(self, limit: int, stream: str | None = None) -> list[HistoryEntry]:
        self._require_open()
        found = [entry for entry in reversed(self._history) if stream is None or entry.stream == stream]
        return found[:limit]

    async def claim(self, owner: str, for_ms: int, *, instead_of: str = "") -> Holder:
        now, held = self._now(), self._lease
        if held.owner in ("", owner, instead_of) or self._until <= now:
            if not for_ms and held.owner != owner:
                return Holder("", held.token)
            self._lease = held if held.owner == owner else Holder(owner, held.token + 1)
            self._until = now + for_ms if for_ms else 0
            self._fence.claimed(self._lease.token)
        return self._lease

    async def put(self, kind: DocumentKind, key: str, document: Mapping[str, Any]) -> None:
        self._require_mine()
        self._documents.setdefault(kind, {})[key] = pack(dict(document))

    async def documents(self, kind: DocumentKind) -> dict[str, dict[str, Any]]:
        self._require_open()
        return {key: unpack(packed) for key, packed in self._documents.get(kind, {}).items()}
