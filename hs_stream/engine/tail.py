"""The newest part of one stream in memory.

1. A tail knows *all* instances later than ``low``. A read that begins at or behind ``low`` is served from it.
2. It keeps what its readers need (``keep_ms`` before its newest instance, and ``keep_count`` instances), at least
   `LEAST` and at most `MOST` instances, and forgets the rest in large pieces.
3. ``version`` rises with every change, so that a slow read from the store never overwrites newer contents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.time import MAX_TIME, MIN_TIME

__all__ = ["Tail"]

LEAST: Final = 64
MOST: Final = 8192


class Tail:
    """See the module's rules. A new tail of a stream that holds nothing has ``low = MIN_TIME``."""

    __slots__ = ("batch", "keep_count", "keep_ms", "low", "version")

    def __init__(self, low: int = MIN_TIME, batch: Batch = NOTHING) -> None:
        self.low = low
        self.batch = batch
        self.keep_ms = 0
        self.keep_count = 1
        self.version = 0

    def need(self, keep_ms: int, keep_count: int) -> None:
        """A reader looks back this far from the newest instance."""
        self.keep_ms = max(self.keep_ms, keep_ms)
        self.keep_count = max(self.keep_count, keep_count)

    def knows(self, start: int) -> bool:
        """Whether everything later than ``start`` is here."""
        return start >= self.low

    def fill(self, low: int, batch: Batch, version: int) -> None:
        """Contents read from the store, complete behind ``low``, if nothing changed since ``version``."""
        if version == self.version and low < self.low and len(batch) <= MOST:
            self.low, self.batch = low, batch

    def extend(self, frontier: int, new: Batch) -> None:
        """``new`` lies behind ``frontier``, and so far nothing did: also a tail that knew nothing knows this much."""
        self.version += 1
        if self.low >= MAX_TIME:
            self.low, self.batch = frontier, new
        else:
            self.batch = Batch.concat((self.batch, new)) if self.batch.times.size else new
        self._trim()

    def replace(self, spans: Sequence[tuple[int, int]], new: Batch) -> None:
        """Contents inside of ``spans`` (sorted, disjoint) are now ``new``."""
        self.version += 1
        if spans[-1][1] <= self.low:
            return
        batch = self.batch
        if not batch.times.size or batch.times[-1] <= spans[0][0]:
            if spans[0][0] < self.low:
                new = new.slice(self.low, MAX_TIME)
            self.batch = Batch.concat((batch, new)) if batch.times.size else new
        else:
            inside = [(max(start, self.low), end) for start, end in spans if end > self.low]
            self.batch = batch.replace(inside, new.slice(self.low, MAX_TIME))
        self._trim()

    def update(self, new: Batch) -> None:
        """``new`` laid over the contents: at equal times it wins."""
        self.version += 1
        known = new.slice(self.low, MAX_TIME)
        if known:
            self.batch = self.batch.update(known)
            self._trim()

    def _trim(self) -> None:
        size = self.batch.times.size
        if size <= 2 * LEAST:
            return
        times = self.batch.times
        first = int(np.searchsorted(times, times[-1] - self.keep_ms, "right"))
        first = max(min(first, size - max(self.keep_count + 1, LEAST)), size - MOST)
        if first * 2 > size or size > MOST:
            first = max(first, size - MOST)
            self.low = int(times[first - 1])
            # A copy, so that the forgotten part is freed.
            values = self.batch.values[first:]
            self.batch = Batch(times[first:].copy(), values if isinstance(values, list) else values.copy())
