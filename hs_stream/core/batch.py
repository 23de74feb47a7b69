"""A run of instances of one stream: times and values, ascending in time, one instance per millisecond.

1. ``times`` is an int64 array, strictly increasing. It is never written to.
2. ``values`` is a ``float64``, ``int64`` or ``bool`` array when *all* values are Python floats, ints or bools, and a
   list otherwise. It is never written to. So the type of every value survives, and numbers are ready for numpy.
3. A `Batch` is immutable; slices share memory with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hs_stream.core.time import MAX_TIME, MIN_TIME
from hs_stream.core.value import Value, same

__all__ = ["NOTHING", "Batch", "column"]

Times = npt.NDArray[np.int64]
Values = npt.NDArray[Any] | list[Value]

_DTYPES: Final = {float: np.float64, int: np.int64, bool: np.bool_}


def column(values: Sequence[Value] | Times | Values) -> Values:
    """``values`` (canonical Python values) as rule 2 wants them: an array where all have one numeric type.

    >>> column([1.5, 2.0]).dtype, column([1, 2.0])
    (dtype('float64'), [1, 2.0])
    """
    if isinstance(values, np.ndarray):
        if values.dtype in (np.float64, np.int64, np.bool_):
            return values
        return column(values.tolist())
    if values:
        dtype = _DTYPES.get(type(values[0]))
        if dtype is not None and len(set(map(type, values))) == 1:
            return np.array(values, dtype)
    return values if isinstance(values, list) else list(values)


class Batch:
    """Instances ``(times[i], values[i])``. See the module's rules.

    >>> batch = Batch.of([(10, 1.0), (20, 2.0), (30, 3.0)])
    >>> list(batch.slice(10, 30))
    [(20, 2.0), (30, 3.0)]
    """

    __slots__ = ("times", "values")
    times: Times
    values: Values

    def __init__(self, times: Times, values: Values) -> None:
        """Trusts its caller to keep rules 1 and 2; `Batch.of` and `Batch.build` establish them."""
        self.times = times
        self.values = values

    @classmethod
    def of(cls, items: Iterable[tuple[int, Value]]) -> Batch:
        """From ``(time, value)`` pairs in any order. Of two for one millisecond the later pair wins."""
        latest = dict(items)
        times = sorted(latest)
        return cls.build(times, [latest[time] for time in times])

    @classmethod
    def build(cls, times: Sequence[int] | Times, values: Sequence[Value] | Values) -> Batch:
        """From strictly increasing times and as many canonical values."""
        if not len(times):
            return NOTHING
        return cls(np.asarray(times, np.int64), column(values))

    def __len__(self) -> int:
        return len(self.times)

    def __bool__(self) -> bool:
        return self.times.size != 0

    def __iter__(self) -> Iterator[tuple[int, Value]]:
        return zip(self.times.tolist(), self.plain(), strict=True)

    def __repr__(self) -> str:
        head = ", ".join(f"{time}: {value!r}" for time, value in list(self.slice_index(0, 4)))
        return f"Batch({len(self)}: {{{head}{', ...' if len(self) > 4 else ''}}})"

    def __eq__(self, other: object) -> bool:
        """Same times and, by `hs_stream.core.value.same`, same values."""
        if not isinstance(other, Batch):
            return NotImplemented
        return np.array_equal(self.times, other.times) and same_values(self.values, other.values)

    __hash__ = None  # type: ignore[assignment]

    @property
    def first_time(self) -> int:
        """The earliest time. ``IndexError`` when empty."""
        return int(self.times[0])

    @property
    def last_time(self) -> int:
        """The latest time. ``IndexError`` when empty."""
        return int(self.times[-1])

    def plain(self) -> list[Value]:
        """The values as a list of Python values."""
        return self.values if isinstance(self.values, list) else self.values.tolist()

    def slice_index(self, low: int, high: int) -> Batch:
        """Instances ``low <= i < high`` by position."""
        if low <= 0 and high >= len(self.times):
            return self
        times = self.times[low:high]
        return Batch(times, self.values[low:high]) if len(times) else NOTHING

    def slice(self, start: int, end: int) -> Batch:
        """Instances in ``(start, end]``."""
        times = self.times
        if not len(times) or (start < times[0] and times[-1] <= end):
            return self
        low, high = times.searchsorted((start, end), "right").tolist()
        return self.slice_index(low, high)

    def last(self, instant: int, count: int) -> Batch:
        """The last ``count`` instances at or before ``instant``."""
        high = int(self.times.searchsorted(instant, "right"))
        return self.slice_index(max(high - count, 0), high)

    def get(self, instant: int, default: Value = None) -> Value:
        """The value at ``instant``, or ``default``."""
        at = int(self.times.searchsorted(instant))
        if at < len(self.times) and self.times[at] == instant:
            value = self.values[at]
            return value.item() if isinstance(value, np.generic) else value
        return default

    def numbers(self) -> npt.NDArray[np.float64]:
        """The values as floats; bools and ints become 0.0, 1.0, ...; ``None`` becomes NaN.

        Raises ``TypeError`` that names the first value that is no number.
        """
        values = self.values
        if isinstance(values, np.ndarray):
            return values if values.dtype == np.float64 else values.astype(np.float64)
        result = np.empty(len(values), np.float64)
        for index, value in enumerate(values):
            if value is None:
                result[index] = np.nan
            elif isinstance(value, (int, float)):
                result[index] = value
            else:
                raise TypeError(f"{value!r} at time {self.times[index]} is not a number")
        return result

    def then(self, later: Batch) -> Batch:
        """These instances and then those of ``later``, which begins after the last of them."""
        times, more = self.times, later.times
        if not more.size:
            return self
        if not times.size:
            return later
        values, others = self.values, later.values
        if isinstance(values, list) or isinstance(others, list) or values.dtype != others.dtype:
            others = others if isinstance(others, list) else others.tolist()
            return Batch(np.concatenate((times, more)), column([*self.plain(), *others]))
        return Batch(np.concatenate((times, more)), np.concatenate((values, others)))

    @staticmethod
    def concat(parts: Sequence[Batch]) -> Batch:
        """The batches one after the other. Each must end before the next begins."""
        if len(parts) == 2:
            return parts[0].then(parts[1])
        parts = [part for part in parts if part.times.size]
        if len(parts) < 2:
            return parts[0] if parts else NOTHING
        times = np.concatenate([part.times for part in parts])
        first = parts[0].values
        if isinstance(first, np.ndarray) and all(
            isinstance(part.values, np.ndarray) and part.values.dtype == first.dtype for part in parts
        ):
            return Batch(times, np.concatenate([part.values for part in parts]))
        return Batch(times, column([value for part in parts for value in part.plain()]))

    def take(self, positions: npt.NDArray[np.int64]) -> Batch:
        """The instances at ``positions`` (ascending)."""
        if not len(positions):
            return NOTHING
        values = self.values
        if isinstance(values, list):
            return Batch(self.times[positions], [values[at] for at in positions.tolist()])
        return Batch(self.times[positions], values[positions])

    def within(self, spans: Sequence[tuple[int, int]], *, inside: bool = True) -> Batch:
        """The instances inside of ``spans`` (sorted, disjoint), or with ``inside=False`` all others."""
        if inside and len(spans) == 1:
            return self.slice(*spans[0])
        if not spans or not self:
            return NOTHING if inside else self
        bounds = np.array(spans, np.int64)
        at = bounds[:, 0].searchsorted(self.times) - 1
        found = (at >= 0) & (self.times <= bounds[at, 1])
        return self.take(np.flatnonzero(found if inside else ~found))

    def replace(self, spans: Sequence[tuple[int, int]], new: Batch) -> Batch:
        """The contents with the instances inside of ``spans`` (sorted, disjoint) replaced by ``new`` (all inside)."""
        if len(spans) == 1:
            start, end = spans[0]
            return Batch.concat([self.slice(MIN_TIME - 1, start), new, self.slice(end, MAX_TIME + 1)])
        return self.within(spans, inside=False).update(new)

    def update(self, new: Batch) -> Batch:
        """The contents with ``new`` laid over them: at equal times ``new`` wins."""
        if not new or not self or self.last_time < new.first_time:
            return Batch.concat([self, new])
        if new.last_time < self.first_time:
            return Batch.concat([new, self])
        old = self.take(np.flatnonzero(~np.isin(self.times, new.times, assume_unique=True)))
        times = np.concatenate((old.times, new.times))
        order = times.argsort(kind="stable")
        before, after = old.values, new.values
        if isinstance(before, np.ndarray) and isinstance(after, np.ndarray) and before.dtype == after.dtype:
            return Batch(times[order], np.concatenate((before, after))[order])
        values = [*old.plain(), *new.plain()]
        return Batch(times[order], column([values[at] for at in order.tolist()]))


def same_values(left: Values, right: Values) -> bool:
    """Element by element `hs_stream.core.value.same`, for columns of equal length."""
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        if left.dtype != right.dtype:
            return not len(left) and not len(right)
        if left.dtype == np.float64:
            bits = left.view(np.int64) == right.view(np.int64)
            return bool(np.all(bits | (np.isnan(left) & np.isnan(right))))
        return np.array_equal(left, right)
    # A slice of a list may hold one numeric type only, and is still a list.
    left = left.tolist() if isinstance(left, np.ndarray) else left
    right = right.tolist() if isinstance(right, np.ndarray) else right
    return len(left) == len(right) and all(map(same, left, right))


NOTHING: Final = Batch(np.empty(0, np.int64), [])
