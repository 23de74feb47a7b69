"""Statistics over sliding windows ``(t - width, t]``.

Rules of this module:

1. The result for a window is a function of the window's own values in time order, bit for bit (see `_sliding`).
2. Missing values (``None``, NaN) are ignored. A window without a number has no output; only ``sliding_count`` then
   gives 0, if the window holds instances, all of them missing.
3. Results are floats (``count``: int; ``first``, ``last``: the value itself), and never -0.0.
4. Without ``every`` there is an output at each input instance, with it at each grid instant whose window holds one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hs_stream.core.batch import Batch
from hs_stream.core.kinds import Kind, Meaning
from hs_stream.core.tool import SKIP
from hs_stream.core.value import Value
from hs_stream_tools._kinds import Unmeant, not_a_mean, not_a_sum, not_an_extreme, of_window
from hs_stream_tools._sliding import SAMPLES, Floats, Ints, Numbers, Ranked, Sliding, chunks, segment, segments

__all__ = [
    "SlidingCount",
    "SlidingFirst",
    "SlidingLast",
    "SlidingMax",
    "SlidingMean",
    "SlidingMedian",
    "SlidingMin",
    "SlidingPercentile",
    "SlidingStd",
    "SlidingSum",
]

_FEW_LONG: Final = 256
"""A chunk of fewer windows than this holds long ones, which cost less one at a time."""


@dataclass(frozen=True, kw_only=True)
class SlidingMean(Numbers):
    """Arithmetic mean of the numbers in ``(t - width, t]``, each counting once however long it lasted.

    ``width``: length of the window. ``every``: grid of output times (default: the input's own times). ``tz``: IANA
    zone of the grid; with it, a ``width`` of whole days is as many local days. Missing values are ignored; a window
    without a number has no output. Output: float.

    >>> readings = Batch.of([(1000, 1.0), (2000, 2.0), (3000, 6.0)])
    >>> from hs_stream.core.time import TimeInterval
    >>> list(SlidingMean(width=2000).evaluate(TimeInterval(0, 3000), [readings]))
    [(1000, 1.0), (2000, 1.5), (3000, 4.0)]
    """

    name = "sliding_mean"
    version = "1.0.0"
    output_kind = "sample"
    output_unit = "same"

    def unmeant(self, slot: int, kind: Kind) -> Unmeant:
        """A counter has no mean that says anything, and a state is weighed by time."""
        return not_a_mean(self.name, kind, f"write {self.name}@^2 with weight: time")

    def one(self, numbers: Floats) -> float:
        """Sum / count."""
        return segment(np.add, numbers) / len(numbers)

    def many(self, numbers: Floats, low: Ints, high: Ints) -> npt.NDArray[Any]:
        """Sums / counts."""
        means: Floats = segments(np.add, numbers, low, high) / (high - low)
        return means


@dataclass(frozen=True, kw_only=True)
class SlidingSum(Numbers):
    """Sum of the numbers in ``(t - width, t]``.

    Parameters as for ``sliding_mean``. Missing values are ignored; a window without a number has no output (so an
    outage is not a sum of 0). Output: float.

    >>> readings = Batch.of([(1000, 1), (2000, 2), (3000, 6)])
    >>> from hs_stream.core.time import TimeInterval
    >>> list(SlidingSum(width=2000, every=2000).evaluate(TimeInterval(0, 4000), [readings]))
    [(2000, 3.0), (4000, 6.0)]
    """

    name = "sliding_sum"
    version = "1.0.0"
    input_kinds = ("amount", "sample", "event")
    output_kind = "amount"
    output_unit = "same"

    def unmeant(self, slot: int, kind: Kind) -> Unmeant:
        """What is no amount is not added."""
        return not_a_sum(self.name, kind)

    def meaning(self, inputs: Sequence[Meaning]) -> Meaning:
        """Windows that overlap, or leave time out, have no amounts to add."""
        return replace(super().meaning(inputs), kind=of_window(self))

    def one(self, numbers: Floats) -> float:
        """The sum."""
        return segment(np.add, numbers)

    def many(self, numbers: Floats, low: Ints, high: Ints) -> npt.NDArray[Any]:
        """The sums."""
        return segments(np.add, numbers, low, high)


@dataclass(frozen=True, kw_only=True)
class SlidingMin(Numbers):
    """Smallest number in ``(t - width, t]``.

    Parameters as for ``sliding_mean``. Missing values are ignored; a window without a number has no output.
    Output: float.

    >>> readings = Batch.of([(1000, 1.0), (2000, 2.0), (3000, 6.0)])
    >>> from hs_stream.core.time import TimeInterval
    >>> list(SlidingMin(width=2000).evaluate(TimeInterval(2000, 3000), [readings]))
    [(3000, 2.0)]
    """

    name = "sliding_min"
    version = "1.0.0"
    output_kind = "sample"
    output_unit = "same"

    def unmeant(self, slot: int, kind: Kind) -> Unmeant:
        """A state that held as the window began is a value of it."""
        return not_an_extreme(self.name, kind, held=False)

    def one(self, numbers: Floats) -> float:
        """The smallest."""
        return segment(np.minimum, numbers)

    def many(self, numbers: Floats, low: Ints, high: Ints) -> npt.NDArray[Any]:
        """The minima."""
        return segments(np.minimum, numbers, low, high)


@dataclass(frozen=True, kw_only=True)
class SlidingMax(Numbers):
    """Largest number in ``(t - width, t]``.

    Parameters as for ``sliding_mean``. Missing values are ignored; a window without a number has no output.
    Output: float.

    >>> readings = Batch.of([(1000, 1.0), (2000, 2.0), (3000, 0.0)])
    >>> from hs_stream.core.time import TimeInterval
    >>> list(SlidingMax(width=2000).evaluate(TimeInterval(2000, 3000), [readings]))
    [(3000, 2.0)]
    """

    name = "sliding_max"
    version = "1.0.0"
    output_kind = "sample"
    output_unit = "same"

    def unmeant(self, slot: int, kind: Kind) -> Unmeant:
        """A state that held as the window began is a value of it."""
        return not_an_extreme(self.name, kind, held=False)

    def one(self, numbers: Floats) -> float:
        """The largest."""
        return segment(np.maximum, numbers)

    def many(self, numbers: Floats, low: Ints, high: Ints) -> npt.NDArray[Any]:
        """The maxima."""
        return segments(np.maximum, numbers, low, high)


@dataclass(frozen=True, kw_only=True)
class SlidingStd(Numbers):
    """Standard deviation of the numbers in ``(t - width, t]``.

    ``ddof`` >= 0: the divisor is n - ddof (1: of a sample, 0: of the population); other parameters as for
    ``sliding_mean``. Missing values are ignored; a window with ``ddof`` or fewer numbers has no output. Output: float.

    Corrected two-pass formula (Chan, Golub, LeVeque: Algorithms for Computing the Sample Variance, 1983, eq. 1.7), so
    that a large mean does not hide a small spread.

    >>> readings = Batch.of([(1000, 1.0), (2000, 3.0)])
    >>> from hs_stream.core.time import TimeInterval
    >>> list(SlidingStd(width=2000, ddof=0).evaluate(TimeInterval(1000, 2000), [readings]))
    [(2000, 1.0)]
    """

    name = "sliding_std"
    version = "1.0.0"
    output_kind = "sample"
    output_unit = "difference"
    samples = (*SAMPLES, {"width": "10s", "ddof": 0}, {"width": "60s", "every": "10s", "ddof": 2})
    ddof: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ddof < 0:
            raise ValueError(f"ddof must not be negative, but is {self.ddof}")

    def unmeant(self, slot: int, kind: Kind) -> Unmeant:
        """A counter has no mean that says anything, and a state is weighed by time."""
        return not_a_mean(self.name, kind, f"write {self.name}@^2 with weight: time")

    @property
    def needed(self) -> int:
        """More than ddof, and at least one."""
        return self.ddof + 1

    def one(self, numbers: Floats) -> float:
        """Deviations from the mean, squared and added."""
        variance = self._variance(numbers)
        # A comparison with NaN is false, so NaN stays NaN.
        return 0.0 if variance < 0.0 else math.sqrt(variance)

    def _variance(self, numbers: Floats) -> float:
        count = len(numbers)
        off = numbers - segment(np.add, numbers) / count
        drift, squares = segment(np.add, off), segment(np.add, off * off)
        return (squares - drift * drift / count) / (count - self.ddof)

    def many(self, numbers: Floats, low: Ints, high: Ints) -> npt.NDArray[Any]:
        """Deviations from each window's own mean, squared and added."""
        sizes = high - low
        means = segments(np.add, numbers, low, high) / sizes
        variances = np.empty(len(sizes))
        for begin, end in chunks(sizes):
            if end - begin < _FEW_LONG:
                bounds = zip(low[begin:end].tolist(), high[begin:end].tolist(), strict=True)
                variances[begin:end] = [self._variance(numbers[first:last]) for first, last in bounds]
                continue
            counts = sizes[begin:end]
            starts = np.cumsum(counts) - counts
            inside = np.arange(int(counts.sum())) - np.repeat(starts - low[begin:end], counts)
            off = numbers[inside] - np.repeat(means[begin:end], counts)
            drift = segments(np.add, off, starts, starts + counts)
            squares = segments(np.add, off * off, starts, starts + counts)
            variances[begin:end] = (squares - drift * drift / counts) / (counts - self.ddof)
        deviations: Floats = np.sqrt(np.maximum(variances, 0.0))
        return deviations


@dataclass(frozen=True, kw_only=True)
class SlidingMedian(Ranked):
    """Median of the numbers in ``(t - width, t]``; of an even number of them, half the sum of the two in the middle.

    Parameters as for ``sliding_mean``. Missing values are ignored; a window without a number has no output.
    Output: float.

    >>> readings = Batch.of([(1000, 1.0), (2000, 9.0), (3000, 2.0)])
    >>> from hs_stream.core.time import TimeInterval
    >>> list(SlidingMedian(width=5000).evaluate(TimeInterval(1000, 3000), [readings]))
    [(2000, 5.0), (3000, 2.0)]
    """

    name = "sliding_median"
    version = "1.0.0"
    output_kind = "sample"
    output_unit = "same"

    def unmeant(self, slot: int, kind: Kind) -> Unmeant:
        """A counter has no mean that says anything, and a state is weighed by time."""
        return not_a_mean(self.name, kind, "put it on a grid first, with last_value and every: 1m")

    def ranks(self, size: int) -> list[int]:
        """The one in the middle, or both."""
        return [(size - 1) // 2, size // 2]

    def pick(self, ordered: Floats) -> Any:
        """The middle."""
        size = ordered.shape[-1]
        upper = size // 2
        if size % 2:
            return ordered[..., upper]
        # Halves are added, not a sum halved, so that it never overflows.
        return ordered[..., upper - 1] * 0.5 + ordered[..., upper] * 0.5


@dataclass(frozen=True, kw_only=True)
class SlidingPercentile(Ranked):
    """A percentile of the numbers in ``(t - width, t]``, interpolated linearly between neighbours.

    ``percentile``: 0 (minimum) to 100 (maximum); other parameters as for ``sliding_mean``. The formula is type 7 of
    Hyndman and Fan (1996), the default of numpy and pandas. Missing values are ignored; a window without a number has
    no output. Output: float.

    >>> readings = Batch.of([(1000, 1.0), (2000, 9.0), (3000, 2.0)])
    >>> from hs_stream.core.time import TimeInterval
    >>> list(SlidingPercentile(width=5000, percentile=75.0).evaluate(TimeInterval(2000, 3000), [readings]))
    [(3000, 5.5)]
    """

    name = "sliding_percentile"
    version = "1.0.0"
    output_kind = "sample"
    output_unit = "same"
    samples = (
        *({**sample, "percentile": 90} for sample in SAMPLES),
        {"width": "10s", "percentile": 0},
        {"width": "10s", "percentile": 100},
    )
    percentile: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.percentile <= 100:
            raise ValueError(f"percentile must be 0 to 100, but is {self.percentile}")

    def unmeant(self, slot: int, kind: Kind) -> Unmeant:
        """A counter has no mean that says anything, and a state is weighed by time."""
        return not_a_mean(self.name, kind, "put it on a grid first, with last_value and every: 1m")

    def ranks(self, size: int) -> list[int]:
        """The neighbours of (n - 1) * percentile / 100."""
        index = int((size - 1) * (self.percentile / 100))
        return [index, min(index + 1, size - 1)]

    def pick(self, ordered: Floats) -> Any:
        """Interpolated between them."""
        place = (ordered.shape[-1] - 1) * (self.percentile / 100)
        index = int(place)
        below, share = ordered[..., index], place - index
        if share == 0.0:
            return below
        above = ordered[..., index + 1]
        # Equal neighbours first: between two infinities there is nothing to interpolate.
        return np.where(below == above, below, below + (above - below) * share)


@dataclass(frozen=True, kw_only=True)
class SlidingCount(Sliding):
    """How many values in ``(t - width, t]`` are not missing (neither ``None`` nor NaN).

    Parameters as for ``sliding_mean``. Takes values of any type. 0 where the window holds missing values only; a
    window without any instance has no output. Output: int.

    >>> readings = Batch.of([(1000, "on"), (2000, None), (3000, "off")])
    >>> from hs_stream.core.time import TimeInterval
    >>> list(SlidingCount(width=5000).evaluate(TimeInterval(0, 3000), [readings]))
    [(1000, 1), (2000, 1), (3000, 2)]
    """

    name = "sliding_count"
    version = "1.0.0"
    output_kind = "amount"
    output_unit = "none"

    def meaning(self, inputs: Sequence[Meaning]) -> Meaning:
        """Windows that overlap, or leave time out, have no amounts to add."""
        return replace(super().meaning(inputs), kind=of_window(self))

    def quick(self, source: Batch) -> bool:
        """Any values."""
        return True

    def single(self, values: Any) -> Any:
        """How many are there."""
        return int(np.count_nonzero(_there(values)))

    def reduce_windows(self, source: Batch, low: Ints, high: Ints, times: Ints) -> Sequence[Value] | npt.NDArray[Any]:
        """Differences of positions among the values that are there."""
        position = np.concatenate(([0], np.cumsum(_there(source.values))))
        counts: Ints = position[high] - position[low]
        return counts


def _there(values: Any) -> npt.NDArray[np.bool_]:
    if isinstance(values, np.ndarray):
        return ~np.isnan(values) if values.dtype == np.float64 else np.ones(len(values), np.bool_)
    return np.array([value is not None and value == value for value in values], np.bool_)


def _pick(source: Batch, low: Ints, high: Ints, at: Ints, positions: Ints) -> list[Value]:
    """``source``'s values at ``positions[at[i]]`` where that lies in ``low[i]..high[i]``, otherwise SKIP."""
    values = source.values
    result: list[Value] = []
    for first, last, index in zip(low.tolist(), high.tolist(), at.tolist(), strict=True):
        position = int(positions[index]) if 0 <= index < len(positions) else -1
        if not first <= position < last:
            result.append(SKIP)
        else:
            result.append(_plain(values[position]))
    return result


def _plain(value: Value) -> Value:
    return value.item() if isinstance(value, np.generic) else value


@dataclass(frozen=True, kw_only=True)
class SlidingFirst(Sliding):
    """The earliest value in ``(t - width, t]`` that is not missing.

    Parameters as for ``sliding_mean``. Takes and gives values of any type, unchanged. No output where all values are
    missing (``None``, NaN).

    >>> readings = Batch.of([(1000, "on"), (2000, None), (3000, "off")])
    >>> from hs_stream.core.time import TimeInterval
    >>> list(SlidingFirst(width=2000, every=1000).evaluate(TimeInterval(0, 4000), [readings]))
    [(1000, 'on'), (2000, 'on'), (3000, 'off'), (4000, 'off')]
    """

    name = "sliding_first"
    version = "1.0.0"
    output_kind = "same"
    output_unit = "same"

    def quick(self, source: Batch) -> bool:
        """Any values."""
        return True

    def single(self, values: Any) -> Any:
        """The first value that is there."""
        there = np.flatnonzero(_there(values))
        return _plain(values[there[0]]) if len(there) else SKIP

    def reduce_windows(self, source: Batch, low: Ints, high: Ints, times: Ints) -> Sequence[Value] | npt.NDArray[Any]:
        """The first value that is there."""
        there = np.flatnonzero(_there(source.values))
        return _pick(source, low, high, there.searchsorted(low), there)


@dataclass(frozen=True, kw_only=True)
class SlidingLast(Sliding):
    """The latest value in ``(t - width, t]`` that is not missing.

    Parameters as for ``sliding_mean``. Takes and gives values of any type, unchanged. No output where all values are
    missing (``None``, NaN).

    >>> readings = Batch.of([(1000, "on"), (2000, None), (3000, "off")])
    >>> from hs_stream.core.time import TimeInterval
    >>> list(SlidingLast(width=2000, every=2000).evaluate(TimeInterval(0, 4000), [readings]))
    [(2000, 'on'), (4000, 'off')]
    """

    name = "sliding_last"
    version = "1.0.0"
    output_kind = "same"
    output_unit = "same"

    def quick(self, source: Batch) -> bool:
        """Any values."""
        return True

    def single(self, values: Any) -> Any:
        """The last value that is there."""
        there = np.flatnonzero(_there(values))
        return _plain(values[there[-1]]) if len(there) else SKIP

    def reduce_windows(self, source: Batch, low: Ints, high: Ints, times: Ints) -> Sequence[Value] | npt.NDArray[Any]:
        """The last value that is there."""
        there = np.flatnonzero(_there(source.values))
        return _pick(source, low, high, there.searchsorted(high) - 1, there)
