"""The newest part of one stream in memory.

1. A tail knows *all* instances later than ``low``. A read that begins at or after ``low`` is served from it.
2. It keeps what its readers need (``keep_ms`` before its newest instance, ``keep_before`` instances before that, and
   ``keep_count`` instances), at least
   `LEAST` and at most `MOST` instances, and forgets the rest in large pieces.
3. ``version`` rises with every change, so that a slow read from the store never overwrites newer contents.
4. All tails of an engine have a `Room` in bytes, and one of them at most `ONE` of it. A tail that grows beyond that
   keeps the newest half of what it may have, perhaps nothing. When all are too large together, or there was no room for
   what was read, `Room.clear` shortens the largest ones, between two steps. What is forgotten is read from the store:
   slower, never different.
5. A step changes a `Tail.fork`, which takes the tail's place after the commit, or is forgotten.
6. ``size`` is kept up with what comes and goes (`hs_stream.core.size`): an instance is measured once each time, and a
   column of numbers by its length.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.size import size_of, size_of_batch
from hs_stream.core.time import MAX_TIME, MIN_TIME

__all__ = ["ROOM", "Room", "Tail"]

LEAST: Final = 64
MOST: Final = 8192
ROOM: Final = 64 << 20
ONE: Final = 1 / 8
_TIME: Final = 8
_LEFT: Final = 3 / 4
"""What is left of the room when it was cleared: so much has to come before the next time."""


class Room:
    """How many bytes all tails of an engine may have, ``used``, and how often they were shortened for it."""

    __slots__ = ("limit", "one", "refused", "shortened", "used")

    def __init__(self, limit: int = ROOM) -> None:
        self.limit = limit
        self.one = int(limit * ONE)
        self.used = 0
        self.refused = False
        """Something that was read could not be kept since it was last cleared."""
        self.shortened = 0

    @property
    def crowded(self) -> bool:
        """Whether to `clear` it."""
        return self.used > self.limit or self.refused

    def has(self, size: int) -> bool:
        """Whether so many bytes fit."""
        if self.used + size <= self.limit:
            return True
        self.refused = True
        return False

    def clear(self, tails: Iterable[Tail]) -> None:
        """Shorten the largest of ``tails``, all there are, until they fit. Not while a step is under way."""
        self.refused = False
        for tail in sorted(tails, key=_size, reverse=True):
            if self.used <= self.limit * _LEFT:
                break
            tail.shorten(tail.size // 2)


def _size(tail: Tail) -> int:
    return tail.size


class Tail:
    """See the module's rules. A new tail of a stream that holds nothing has ``low = MIN_TIME``."""

    __slots__ = ("_counted", "batch", "keep_before", "keep_count", "keep_ms", "low", "room", "size", "version")

    def __init__(self, low: int = MIN_TIME, batch: Batch = NOTHING, room: Room | None = None) -> None:
        self.low = low
        self.batch = NOTHING
        self.keep_ms = 0
        self.keep_count = 1
        self.keep_before = 0
        self.version = 0
        self.room = Room() if room is None else room
        self.size = 0
        self._counted = 0
        """Of a fork: so much of its size the room has counted with the tail that it comes from."""
        self._hold(batch, batch)

    def fork(self) -> Tail:
        """Another one that holds the same (rule 5); to be followed by `take_place_of` or `drop`."""
        made = Tail.__new__(Tail)
        made.low = self.low
        made.batch = self.batch
        made.keep_ms = self.keep_ms
        made.keep_count = self.keep_count
        made.keep_before = self.keep_before
        made.version = self.version
        made.room = self.room
        made.size = made._counted = self.size
        return made

    def take_place_of(self, tail: Tail) -> None:
        """``tail``, from which this is a fork, is not used any more."""
        self.room.used -= tail.size - self._counted
        self.need(tail.keep_ms, tail.keep_count, tail.keep_before)

    def drop(self) -> None:
        """Nobody uses the fork any more."""
        self.room.used -= self.size - self._counted

    def need(self, keep_ms: int, keep_count: int, keep_before: int = 0) -> None:
        """A reader looks back this far from the newest instance, and at so many instances before that."""
        self.keep_ms = max(self.keep_ms, keep_ms)
        self.keep_count = max(self.keep_count, keep_count)
        self.keep_before = max(self.keep_before, keep_before)

    def knows(self, start: int) -> bool:
        """Whether everything later than ``start`` is here."""
        return start >= self.low

    def fill(self, low: int, batch: Batch, version: int) -> None:
        """Contents read from the store, complete after ``low``, if nothing changed since ``version``."""
        if version == self.version and low < self.low and len(batch) <= MOST:
            size = size_of_batch(batch)
            if size <= self.room.one and self.room.has(size - self.size):
                self.low = low
                self._hold(batch, batch, self.batch)

    def extend(self, frontier: int, new: Batch) -> None:
        """``new`` is later than ``frontier``, and so far nothing was: also a tail that knew nothing knows this much."""
        self.version += 1
        if self.low >= MAX_TIME:
            self.low = frontier
        self._hold(self.batch.then(new), new)
        self._trim()

    def replace(self, spans: Sequence[tuple[int, int]], new: Batch) -> None:
        """Contents inside of ``spans`` (sorted, disjoint) are now ``new``."""
        self.version += 1
        if spans[-1][1] <= self.low:
            return
        batch = self.batch
        if spans[0][0] < self.low:
            new = new.slice(self.low, MAX_TIME)
        if not batch.times.size or batch.times[-1] <= spans[0][0]:
            self._hold(batch.then(new), new)
        else:
            inside = [(max(start, self.low), end) for start, end in spans if end > self.low]
            self._hold(batch.replace(inside, new), new, batch.within(inside))
        self._trim()

    def update(self, new: Batch) -> None:
        """``new`` laid over the contents: at equal times it wins."""
        self.version += 1
        known = new.slice(self.low, MAX_TIME)
        if known:
            batch = self.batch
            gone = batch.take(np.flatnonzero(np.isin(batch.times, known.times, assume_unique=True)))
            self._hold(batch.update(known), known, gone)
            self._trim()

    def shorten(self, size: int) -> None:
        """Keep the newest instances with at most ``size`` bytes together."""
        batch = self.batch
        values = batch.values
        if isinstance(values, list):
            first, kept = len(values), 0
            while first:
                kept += size_of(values[first - 1]) + batch.times.itemsize
                if kept > size:
                    break
                first -= 1
        else:
            first = len(values) - size // (values.itemsize + batch.times.itemsize)
        if first > 0:
            self.room.shortened += 1
            self._forget(first)

    def _trim(self) -> None:
        size = self.batch.times.size
        if size > 2 * LEAST:
            times = self.batch.times
            first = int(np.searchsorted(times, times[-1] - self.keep_ms, "right")) - self.keep_before
            first = max(min(first, size - max(self.keep_count + 1, LEAST)), size - MOST)
            if first * 2 > size or size > MOST:
                self._forget(max(first, size - MOST))
        if self.size > self.room.one:
            self.shorten(self.room.one // 2)

    def _forget(self, first: int) -> None:
        """The first so many instances."""
        batch = self.batch
        times, values = batch.times, batch.values
        self.low = int(times[first - 1])
        if first >= len(times):
            self._hold(NOTHING, NOTHING, batch)
            return
        # A copy, so that the forgotten part is freed.
        left = Batch(times[first:].copy(), values[first:] if isinstance(values, list) else values[first:].copy())
        self._hold(left, NOTHING, batch.slice_index(0, first))

    def _hold(self, batch: Batch, new: Batch, gone: Batch = NOTHING) -> None:
        """Hold ``batch`` from now on, in which ``new`` came and ``gone`` is not any more (rule 6)."""
        before, values = self.batch.values, batch.values
        self.batch = batch
        if not isinstance(values, list):
            size = batch.times.size * (values.itemsize + _TIME)
        elif not isinstance(before, list):
            size = size_of_batch(batch)  # numbers are objects from now on, beside what is none
        else:
            size = self.size + _size_as_objects(new) - size_of_batch(gone)
        self.room.used += size - self.size
        self.size = size


def _size_as_objects(batch: Batch) -> int:
    """Beside what is no number, numbers are objects."""
    return size_of_batch(batch if isinstance(batch.values, list) else Batch(batch.times, batch.plain()))
