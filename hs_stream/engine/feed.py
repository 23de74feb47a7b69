"""What changed: for those who listen now, and for those who come back after the service was restarted.

1. A listener of a stream is told of each change of its instances once, in order, after the write that made it
   durable.
2. A *position* ``(epoch, newest)`` of a watched stream can be given to somebody who knows the stream's contents of that
   moment. `Feed.changed_since` of it contains every instant at which the contents are different now, also after a kill
   of the service at any moment.
3. To that end a change at or before a stream's newest instance leaves a durable *mark* before it is written: the
   minutes that it touches, in the current epoch. What is later than everything stored needs no mark, because it is
   later than the ``newest`` of every position given out before. What takes the newest instance away is marked, and
   lowers ``newest``.
4. Epochs only rise. A write belongs to the epoch of its mark until it is done, and no position is given out with a
   later epoch meanwhile.
5. Marks are bounded: those of the oldest epochs are merged, many intervals become one. So an old position gives more
   than what changed, never less. A stream that nobody watched for `_FORGET` has no marks any more, and a position of
   before then gives everything.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.time import EMPTY, MAX_TIME, MIN_TIME, TimeIntervals
from hs_stream.core.value import same
from hs_stream.engine.contents import PatientStore
from hs_stream.engine.ports import Append, Change, Clock, Commit, StreamChange

__all__ = ["Feed", "Listener", "News"]


@dataclass(frozen=True, slots=True)
class News:
    """What one write did to one stream: ``changes`` ascending in time, and ``gone``, where nothing is left.

    The position in the middle of it is ``(epoch, min(before, after))``, at its end ``(epoch, after)``.
    """

    changes: Sequence[Change]
    gone: TimeIntervals
    epoch: int
    before: int
    after: int


Listener = Callable[[News], None]

_MARK: Final = 60_000
"""Marks begin and end at multiples of so many milliseconds, so that many late readings share one."""
_MOST_SPANS: Final = 64
_MOST_EPOCHS: Final = 64
_EPOCH: Final = 30_000
"""Milliseconds from the first mark of an epoch until the next one begins."""
_MOST_WATCHED: Final = 10_000
_FORGET: Final = 24 * 3_600_000
_REFRESH: Final = 3_600_000


class _Ticket:
    """A write under way."""

    __slots__ = ("done", "epoch")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.done = asyncio.Event()


class Feed:
    """See the module. One per engine; every write to instances goes through `append` or `commit`."""

    def __init__(self, store: PatientStore, clock: Clock) -> None:
        self.token = ""
        """Tells this store from others; positions of another one are worth nothing."""
        self._store = store
        self._clock = clock
        self._epoch = 1
        self._epoch_at: int | None = None
        """When the first mark of the current epoch was made."""
        self._marks: dict[int, dict[int, TimeIntervals]] = {}
        self._slots: dict[int, int] = {}
        self._watched: dict[int, tuple[int, int]] = {}
        """Stream -> the first epoch whose positions are good, and when it was last known to be watched (ms)."""
        self._listeners: dict[int, list[Listener]] = {}
        self._newest: dict[int, int] = {}
        self._lowered: set[int] = set()
        self._tickets: set[_Ticket] = set()
        self._lock = asyncio.Lock()
        self._joining = asyncio.Lock()

    # --- life ---

    async def open(self) -> None:
        """Recall what is watched, and the marks. Before anything is written."""
        documents = await self._store.store.documents("feed")
        watched = documents.get("watched", {})
        self.token = str(watched.get("token", ""))
        oldest = self._clock.now() - _FORGET
        self._watched = {
            int(stream): (since, seen) for stream, (since, seen) in watched.get("streams", {}).items() if seen > oldest
        }
        for key, document in documents.items():
            if key.startswith("marks-"):
                epoch = int(document["epoch"])
                marks = {int(stream): _spans(flat) for stream, flat in document["marks"].items()}
                self._marks[epoch] = marks
                self._slots[epoch] = int(key.removeprefix("marks-"))
        self._marks = dict(sorted(self._marks.items()))
        # Positions of the run before had this epoch at the most: it rises after a mark, or is written down.
        self._epoch = 1 + max([int(watched.get("epoch", 0)), *self._marks])

    # --- who listens, who may come back ---

    async def watch(self, stream: int) -> None:
        """From now on positions of ``stream`` can be given out. To be called again every hour while they are."""
        now = self._clock.now()
        known = self._watched.get(stream)
        if known is not None and now < known[1] + _REFRESH:
            return
        async with self._lock:
            known = self._watched.get(stream)
            if known is None:
                # Positions of an epoch before may be from a time when nothing was marked.
                self._next_epoch()
            self._watched[stream] = (self._epoch if known is None else known[0], now)
            self._forget(now)
            self.token = self.token or secrets.token_hex(4)
            await self._write_watched()

    def _forget(self, now: int) -> None:
        idle = [one for one, (_, seen) in self._watched.items() if one not in self._listeners and seen < now - _FORGET]
        rest = len(self._watched) - len(idle) - _MOST_WATCHED
        if rest > 0:
            others = sorted((seen, one) for one, (_, seen) in self._watched.items() if one not in self._listeners)
            idle += [one for _, one in others[:rest]]
        for one in idle:
            self._watched.pop(one, None)

    async def _write_watched(self) -> None:
        streams = {str(stream): list(pair) for stream, pair in self._watched.items()}
        document = {"token": self.token, "epoch": self._epoch, "streams": streams}
        await self._store("put", self._store.store.put, "feed", "watched", document)

    async def listen(self, stream: int, listener: Listener) -> None:
        """Call ``listener`` for every change of ``stream`` from now on; `watch` it too."""
        await self.watch(stream)
        async with self._joining:
            if stream not in self._listeners:
                self._listeners[stream] = [listener]
                await self._find_newest(stream)
            else:
                self._listeners[stream].append(listener)

    async def _find_newest(self, stream: int) -> None:
        self._newest.pop(stream, None)
        self._lowered.discard(stream)
        found = await self._store("last", self._store.store.last, stream, MAX_TIME, 1)
        await self.settled()
        newest = found.last_time if found else MIN_TIME
        known = self._newest.get(stream, newest)
        # What was taken away meanwhile may be what was just found. Lower than the truth is never wrong.
        self._newest[stream] = min(newest, known) if stream in self._lowered else max(newest, known)

    def ignore(self, stream: int, listener: Listener) -> None:
        """Undo `listen`."""
        left = [one for one in self._listeners.get(stream, ()) if one is not listener]
        if left:
            self._listeners[stream] = left
        else:
            self._listeners.pop(stream, None)
            self._newest.pop(stream, None)

    async def settled(self) -> None:
        """Return when every write that is under way now is durable and told to the listeners."""
        for ticket in tuple(self._tickets):
            await ticket.done.wait()

    def position(self, stream: int) -> tuple[int, int]:
        """The position after the last change that the listeners of ``stream`` were told of (rules 2 to 4)."""
        self._turn()
        epoch = min((ticket.epoch for ticket in self._tickets), default=self._epoch)
        return min(epoch, self._epoch), self._newest.get(stream, MIN_TIME)

    def changed_since(self, stream: int, epoch: int, newest: int) -> TimeIntervals | None:
        """Where ``stream`` may have changed since that position; ``None`` when that is not known."""
        known = self._watched.get(stream)
        if known is None or not known[0] <= epoch <= self._epoch:
            return None
        changed = TimeIntervals.of(newest, MAX_TIME) if newest < MAX_TIME else EMPTY
        for at, marks in self._marks.items():
            if at >= epoch and stream in marks:
                changed |= marks[stream]
        return changed

    # --- writes ---

    @asynccontextmanager
    async def append(self, append: Append) -> AsyncIterator[None]:
        """Around the write of ``append``."""
        late: dict[int, TimeIntervals] = {}
        for stream, batch in append.upserts:
            if stream in self._watched:
                late[stream] = late.get(stream, EMPTY) | _minutes(batch.times)
        for stream, spans in append.purged.items():
            if stream in self._watched:
                late[stream] = late.get(stream, EMPTY) | spans
        async with self._write(late) as ticket:
            before = {
                stream: await self._store("get", self._store.store.get, stream, batch.times.tolist())
                for stream, batch in append.upserts
                if stream in self._listeners
            }
            yield
            for stream, spans in append.purged.items():
                self._tell(stream, (), spans, ticket)
            for stream, batch in append.upserts:
                if stream in self._listeners:
                    self._tell(stream, _compared(before.get(stream, NOTHING), batch), EMPTY, ticket)
            for stream, batch in append.inserts:
                if stream in self._listeners:
                    changes = [Change(time, "insert", value, 0) for time, value in batch]
                    self._tell(stream, changes, EMPTY, ticket)

    @asynccontextmanager
    async def commit(self, commit: Commit) -> AsyncIterator[None]:
        """Around the write of ``commit``."""
        late = {
            change.stream: _minutes(_times(change))
            for change in commit.streams
            if change.stream in self._watched and not change.fresh and _times(change).size
        }
        async with self._write(late) as ticket:
            yield
            for change in commit.streams:
                if change.stream in self._listeners:
                    self._tell(change.stream, change.changes, EMPTY, ticket)

    @asynccontextmanager
    async def _write(self, late: Mapping[int, TimeIntervals]) -> AsyncIterator[_Ticket]:
        if late:
            async with self._lock:
                ticket = await self._mark(late)
        else:
            ticket = self._begin()
        try:
            yield ticket
        finally:
            self._tickets.discard(ticket)
            ticket.done.set()

    def _begin(self) -> _Ticket:
        ticket = _Ticket(self._epoch)
        self._tickets.add(ticket)
        return ticket

    def _tell(self, stream: int, changes: Sequence[Change], gone: TimeIntervals, ticket: _Ticket) -> None:
        listeners = self._listeners.get(stream, ())
        if not listeners or not (changes or gone):
            return
        before = newest = self._newest.get(stream, MIN_TIME)
        lost = [change.time for change in changes if change.kind == "retract"]
        lowest = min([*lost, *(start + 1 for start, _ in gone.pairs)], default=None)
        if lowest is not None and max([*lost, *(end for _, end in gone.pairs)]) >= newest:
            newest = lowest - 1
            self._lowered.add(stream)
        came = max((change.time for change in changes if change.kind != "retract"), default=newest)
        self._newest[stream] = newest = max(newest, came)
        news = News(changes, gone, ticket.epoch, before, newest)
        for listener in listeners:
            listener(news)

    # --- marks ---

    def _turn(self) -> None:
        if self._epoch_at is not None and self._clock.now() >= self._epoch_at + _EPOCH:
            self._next_epoch()

    def _next_epoch(self) -> None:
        self._epoch += 1
        self._epoch_at = None

    async def _mark(self, late: Mapping[int, TimeIntervals]) -> _Ticket:
        """Make the marks durable; the write's ticket is there before positions of a later epoch can be."""
        self._turn()
        ticket = self._begin()
        try:
            marks = self._marks.get(ticket.epoch, {})
            news = {
                stream: _fewer(marks.get(stream, EMPTY) | spans)
                for stream, spans in late.items()
                if spans not in marks.get(stream, EMPTY)
            }
            if news:
                await self._make_room()
                self._marks[ticket.epoch] = marks | news
                await self._write_marks(ticket.epoch)
                if self._epoch_at is None and ticket.epoch == self._epoch:
                    self._epoch_at = self._clock.now()
        except BaseException:
            self._tickets.discard(ticket)
            ticket.done.set()
            raise
        return ticket

    async def _make_room(self) -> None:
        """Merge the two oldest epochs, as often as there are too many."""
        while len(self._marks) >= _MOST_EPOCHS:
            first, second = list(self._marks)[:2]
            merged = dict(self._marks[second])
            for stream, spans in self._marks[first].items():
                if stream in self._watched:
                    merged[stream] = _fewer(merged.get(stream, EMPTY) | spans)
            self._marks[second] = merged
            await self._write_marks(second)
            del self._marks[first], self._slots[first]

    async def _write_marks(self, epoch: int) -> None:
        if epoch not in self._slots:
            taken = set(self._slots.values())
            self._slots[epoch] = next(slot for slot in range(len(taken) + 1) if slot not in taken)
        marks = {str(stream): _flat(spans) for stream, spans in self._marks[epoch].items()}
        key = f"marks-{self._slots[epoch]}"
        await self._store("put", self._store.store.put, "feed", key, {"epoch": epoch, "marks": marks})


def _compared(old: Batch, new: Batch) -> list[Change]:
    """What replacing ``old`` by ``new`` at the times of ``new`` changes."""
    before = dict(old)
    missing = object()
    changes = []
    for time, value in new:
        known: Any = before.get(time, missing)
        if known is missing:
            changes.append(Change(time, "insert", value, 0))
        elif not same(known, value):
            changes.append(Change(time, "revise", value, 0))
    return changes


def _times(change: StreamChange) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.concatenate(
        [change.inserted.times, change.revised.times, np.array(change.retracted, np.int64)], dtype=np.int64
    )


def _minutes(times: np.ndarray[Any, np.dtype[np.int64]]) -> TimeIntervals:
    """The intervals of `_MARK` in which ``times`` lie."""
    starts = np.unique((np.asarray(times, np.int64) - 1) // _MARK).tolist()
    if len(starts) > 4 * _MOST_SPANS:
        return TimeIntervals.of(starts[0] * _MARK, (starts[-1] + 1) * _MARK)
    return TimeIntervals((start * _MARK, (start + 1) * _MARK) for start in starts)


def _fewer(spans: TimeIntervals) -> TimeIntervals:
    """``spans``, or the one interval around them when they are many."""
    return spans if len(spans) <= _MOST_SPANS else TimeIntervals.of(spans.start, spans.end)


def _flat(spans: TimeIntervals) -> list[int]:
    return [bound for pair in spans.pairs for bound in pair]


def _spans(flat: Iterable[int]) -> TimeIntervals:
    bounds = list(flat)
    return TimeIntervals(zip(bounds[::2], bounds[1::2], strict=True))
