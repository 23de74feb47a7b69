"""How the sliding statistics are computed: many windows at once, or a few quickly, with the same bits.

1. The result for a window is a function of the window's own numbers in time order. There is no running sum:
   ``np.add.reduceat`` adds each segment by itself, in an order that only its length decides.
2. A call for a few windows (a steady arrival) takes each as a slice; a call for many (history) computes all segments in
   one pass. Both use ``reduceat`` on aligned float64, so both round alike. ``np.add.reduce`` would not.
3. Missing values are taken out before anything else.
4. Of a long window, medians and percentiles select what they need instead of sorting: the number of a given rank is
   the same either way.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.time import MIN_TIME, TimeInterval
from hs_stream.core.tool import SKIP, WindowTool
from hs_stream.core.value import Value

__all__ = ["SAMPLES", "UNSURE", "Floats", "Ints", "Numbers", "Ranked", "Sliding", "chunks", "segment", "segments"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SAMPLES: Final[tuple[dict[str, Any], ...]] = (
    {"width": "10s"},
    {"width": "60s", "every": "10s"},
    {"width": "2s", "every": "5s"},
    {"width": "1d", "every": "1d", "tz": "Europe/Brussels"},
    {"width": "90m", "every": "1h", "tz": "Europe/Brussels"},
)
UNSURE: Final = object()
"""What `Sliding.single` returns when it takes the general way to tell."""

_CHUNK: Final = 1 << 20
"""How many numbers overlapping windows are copied into at once: bounds the memory, never the result."""
_FEW: Final = 8
_LONG: Final = 512
"""From this many numbers on, selecting is faster than sorting."""
_WHOLE: Final = np.zeros(1, np.intp)


def segment(function: np.ufunc, numbers: Floats) -> float:
    """What `segments` gives for all of ``numbers`` (aligned, not empty)."""
    return float(function.reduceat(numbers, _WHOLE)[0])


def segments(function: np.ufunc, numbers: Floats, low: Ints, high: Ints) -> Floats:
    """``function`` over each ``numbers[low[i]:high[i]]``, none of them empty, by itself."""
    bounds = np.empty(2 * len(low), np.intp)
    bounds[0::2], bounds[1::2] = low, high
    # reduceat wants every bound inside of the array, and a window may end where the array does.
    padded = np.empty(len(numbers) + 1)
    padded[:-1] = numbers
    padded[-1] = 0.0
    result: Floats = function.reduceat(padded, bounds)[::2]
    return result


def chunks(sizes: Ints) -> list[tuple[int, int]]:
    """Runs of windows that together hold about a million numbers."""
    ends = np.cumsum(sizes)
    if ends[-1] <= _CHUNK:
        return [(0, len(sizes))]
    cuts = np.flatnonzero(np.diff(ends // _CHUNK)) + 1
    edges = [0, *cuts.tolist(), len(sizes)]
    return list(itertools.pairwise(edges))


class Sliding(WindowTool):
    """A `WindowTool` with a quick way for a few windows."""

    samples = SAMPLES

    @abstractmethod
    def quick(self, source: Batch) -> bool:
        """Whether `single` can take slices of ``source.values``."""

    @abstractmethod
    def single(self, values: Any) -> Any:
        """The output for one window, a slice of the values; SKIP, or `UNSURE`."""

    @property
    def needed(self) -> int:
        """Windows with fewer instances (`Numbers`: numbers) have no output."""
        return 1

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """As `WindowTool.evaluate`; quickly, where there are few outputs."""
        source = sources[0]
        few = self._few_times(source.times, interval) if self.tz is None and self.quick(source) else None
        if few is not None:
            result = self._each(source, few)
            if result is not None:
                return result
        return super().evaluate(interval, sources)

    def _few_times(self, times: Ints, interval: TimeInterval) -> list[int] | None:
        start, end = interval.start, interval.end
        if self.every is not None:
            if start <= MIN_TIME:
                return None
            first, last = start // self.every + 1, end // self.every
            return [k * self.every for k in range(first, last + 1)] if last - first < _FEW else None
        low, high = times.searchsorted((start, end), "right").tolist()
        found: list[int] | None = times[low:high].tolist() if high - low <= _FEW else None
        return found

    def _each(self, source: Batch, ends: list[int]) -> Batch | None:
        times, values, width, needed = source.times, source.values, self.width, self.needed
        kept, results = [], []
        with np.errstate(all="ignore"):
            for time in ends:
                low, high = times.searchsorted((time - width, time), "right").tolist()
                if high - low < needed:
                    continue
                result = self.single(values[low:high])
                if result is UNSURE:
                    return None
                if result is not SKIP:
                    kept.append(time)
                    results.append(result)
        return Batch.build(kept, results) if kept else NOTHING


class Numbers(Sliding):
    """Windows of numbers: subclasses say what the numbers of each window give."""

    takes = "number"

    def quick(self, source: Batch) -> bool:
        """Floats without conversion, where numpy need not copy them."""
        values = source.values
        return type(values) is np.ndarray and values.dtype == np.float64 and values.flags.aligned

    @abstractmethod
    def one(self, numbers: Floats) -> float:
        """Result for one window of at least `needed` numbers; NaN if one of them is."""

    @abstractmethod
    def many(self, numbers: Floats, low: Ints, high: Ints) -> npt.NDArray[Any]:
        """Result i for ``numbers[low[i]:high[i]]``, which holds at least `needed` numbers and no NaN."""

    def single(self, values: Any) -> Any:
        """`one`, unless it is NaN: then a value is missing (or infinities cancel)."""
        result = self.one(values)
        # Adding 0.0 turns -0.0 into 0.0.
        return result + 0.0 if result == result else UNSURE

    def reduce_windows(self, source: Batch, low: Ints, high: Ints, times: Ints) -> Sequence[Value] | npt.NDArray[Any]:
        """`many` of the windows that hold enough numbers, SKIP for the others."""
        # A later window may begin earlier: on a local clock that is set back, or where windows are values.
        first, last = int(low.min()), int(high.max())
        try:
            numbers = source.slice_index(first, last).numbers()
        except TypeError as error:
            raise TypeError(f"{self.name} needs numbers: {error}") from None
        if first:
            low, high = low - first, high - first
        missing = np.isnan(numbers)
        if missing.any():
            there = ~missing
            numbers = numbers[there]
            position = np.concatenate(([0], np.cumsum(there)))
            low, high = position[low], position[high]
        enough = high - low >= self.needed
        with np.errstate(all="ignore"):
            if enough.all():
                return self.many(numbers, low, high) + 0.0
            results: list[Value] = [SKIP] * len(low)
            if enough.any():
                found = (self.many(numbers, low[enough], high[enough]) + 0.0).tolist()
                for index, value in zip(np.flatnonzero(enough).tolist(), found, strict=True):
                    results[index] = value
        return results


class Ranked(Numbers):
    """Windows of which the numbers of one or a few ranks matter: subclasses say which, and what they give."""

    @abstractmethod
    def ranks(self, size: int) -> list[int]:
        """The ranks (0: the smallest) that `pick` reads of ``size`` numbers."""

    @abstractmethod
    def pick(self, ordered: Floats) -> Any:
        """The results for windows along the last axis, in which the numbers of `ranks` are in their places."""

    def one(self, numbers: Floats) -> float:
        """`pick` of the window alone. A NaN is larger than everything."""
        if len(numbers) < _LONG:
            ordered = np.sort(numbers)
            return math.nan if math.isnan(ordered[-1]) else float(self.pick(ordered))
        if math.isnan(numbers.max()):
            return math.nan
        return float(self.pick(np.partition(numbers, self.ranks(len(numbers)))))

    def many(self, numbers: Floats, low: Ints, high: Ints) -> npt.NDArray[Any]:
        """`pick` of the windows of one size at a time, as the rows of one array; of a long one alone."""
        sizes = high - low
        result = np.empty(len(sizes))
        for size in np.unique(sizes).tolist():
            rows = np.flatnonzero(sizes == size)
            if size >= _LONG:
                result[rows] = [self.one(numbers[first : first + size]) for first in low[rows].tolist()]
                continue
            step = max(_CHUNK // size, 1)
            for at in range(0, len(rows), step):
                some = rows[at : at + step]
                ordered = numbers[low[some][:, None] + np.arange(size)]
                ordered.sort(axis=1)
                result[some] = self.pick(ordered)
        # Either of 0.0 and -0.0 may come first, and `reduce_windows` makes no difference between them.
        return result
