"""Instants, intervals, sets of intervals, durations and grids.

1. An instant is an ``int``: milliseconds since the Unix epoch, UTC. Aware datetimes exist only at the edges.
2. An interval is ``(start, end]``: ``start`` is excluded, ``end`` is included, and ``start < end``.
3. ``MIN_TIME`` and ``MAX_TIME`` stand for minus and plus infinity. `shift` keeps them where they are.
4. Everything here is immutable; an operator returns a new value.

Intervals stand here; instants and grids in modules of their own, and all of it is to be imported from here.
"""

from __future__ import annotations

import bisect
import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, overload

import numpy as np

from hs_stream.core.grid import Grid, zone
from hs_stream.core.instants import (
    MAX_TIME,
    MIN_TIME,
    Instant,
    format_duration,
    format_time,
    from_ms,
    parse_duration,
    parse_time,
    shift,
    to_ms,
)

__all__ = [
    "EMPTY",
    "EVERYTHING",
    "MAX_TIME",
    "MIN_TIME",
    "Grid",
    "Instant",
    "RelativeTimeInterval",
    "TimeInterval",
    "TimeIntervals",
    "format_duration",
    "format_time",
    "from_ms",
    "parse_duration",
    "parse_time",
    "shift",
    "to_ms",
    "zone",
]


@dataclass(frozen=True, slots=True, order=True)
class TimeInterval:
    """``(start, end]``. Accepts ints (ms) or aware datetimes; ``ValueError`` unless ``start < end``.

    ``in`` takes an instant, an interval or a set of them: whether all of it is inside. ``|``, ``&`` and ``-`` take
    intervals and sets, and give a set (two intervals that meet have one in common, others ``None``). All of these raise
    ``TypeError`` for anything else. ``<`` only sorts, by start and then by end.

    >>> interval = TimeInterval(0, 10)
    >>> 0 in interval, 10 in interval, TimeInterval(0, 10) in interval, interval.width
    (False, True, True, 10)
    >>> interval - TimeInterval(2, 3)
    TimeIntervals([(0, 2), (3, 10)])
    """

    start: int
    end: int

    def __init__(self, start: Instant, end: Instant) -> None:
        first, last = to_ms(start), to_ms(end)
        if first >= last:
            raise ValueError(
                f"an interval needs start < end, not ({format_time(first)}, {format_time(last)}]: start is excluded"
            )
        object.__setattr__(self, "start", max(first, MIN_TIME))
        object.__setattr__(self, "end", min(last, MAX_TIME))

    def __contains__(self, item: object) -> bool:
        if isinstance(item, (TimeInterval, TimeIntervals)):
            return all(self.start <= start and end <= self.end for start, end in _pairs_of(item))
        return self.start < _instant(item) <= self.end

    @property
    def width(self) -> int:
        """Milliseconds from ``start`` to ``end``."""
        return self.end - self.start

    def intersection(self, other: TimeInterval) -> TimeInterval | None:
        """What both contain, or ``None``. ``TypeError`` for anything else than an interval."""
        if not isinstance(other, TimeInterval):
            raise _no_set(other)
        start, end = max(self.start, other.start), min(self.end, other.end)
        return TimeInterval(start, end) if start < end else None

    @overload
    def __and__(self, other: TimeInterval) -> TimeInterval | None: ...
    @overload
    def __and__(self, other: TimeIntervals) -> TimeIntervals: ...
    def __and__(self, other: TimeInterval | TimeIntervals) -> TimeInterval | TimeIntervals | None:
        return other & self if isinstance(other, TimeIntervals) else self.intersection(other)

    def __or__(self, other: TimeInterval | TimeIntervals) -> TimeIntervals:
        return TimeIntervals([self]) | other

    def __sub__(self, other: TimeInterval | TimeIntervals) -> TimeIntervals:
        return TimeIntervals([self]) - other

    def dilate(self, before: int = 0, after: int = 0) -> TimeInterval:
        """``(start - before, end + after]`` in milliseconds."""
        return TimeInterval(shift(self.start, -before), shift(self.end, after))

    def __str__(self) -> str:
        return f"({format_time(self.start)}, {format_time(self.end)}]"


@dataclass(frozen=True, slots=True)
class RelativeTimeInterval:
    """``(instant + start, instant + end]`` for an instant given later. Durations as in `parse_duration`.

    >>> RelativeTimeInterval("-60s", 0).absolute(100_000)
    TimeInterval(start=40000, end=100000)
    """

    start: int
    end: int

    def __init__(self, start: str | int | float | timedelta, end: str | int | float | timedelta) -> None:
        first, last = parse_duration(start), parse_duration(end)
        if first >= last:
            raise ValueError(f"a relative interval needs start < end, not {start!r}, {end!r}")
        object.__setattr__(self, "start", first)
        object.__setattr__(self, "end", last)

    def absolute(self, instant: Instant) -> TimeInterval:
        """The interval as seen from ``instant``."""
        at = to_ms(instant)
        return TimeInterval(shift(at, self.start), shift(at, self.end))

    def __str__(self) -> str:
        return f"({format_duration(self.start)}, {format_duration(self.end)}]"


Pair = tuple[int, int]


class TimeIntervals:
    """An immutable set of instants, kept as sorted, disjoint, coalesced intervals ``(start, end]``.

    Two intervals that touch (``(0, 5]`` and ``(5, 9]``) are one. Equal sets are equal and hash alike, and a set of one
    interval equals that. Operators take intervals and sets, and raise ``TypeError`` for anything else.

    >>> TimeIntervals([(0, 5), (5, 9)]) - TimeIntervals([(2, 3)])
    TimeIntervals([(0, 2), (3, 9)])
    """

    __slots__ = ("_pairs",)
    _pairs: tuple[Pair, ...]

    def __init__(self, intervals: Iterable[TimeInterval | tuple[Instant, Instant]] = ()) -> None:
        pairs = []
        for item in intervals:
            interval = item if isinstance(item, TimeInterval) else TimeInterval(*item)
            pairs.append((interval.start, interval.end))
        self._pairs = _coalesce(pairs)

    @classmethod
    def of(cls, start: int, end: int) -> TimeIntervals:
        """``(start, end]``, or the empty set when ``start >= end``."""
        return cls._make(((start, end),)) if start < end else EMPTY

    @classmethod
    def points(cls, instants: Iterable[int]) -> TimeIntervals:
        """The set of exactly these instants (milliseconds)."""
        return cls._make(_coalesce([(instant - 1, instant) for instant in instants]))

    @classmethod
    def _make(cls, pairs: tuple[Pair, ...]) -> TimeIntervals:
        made = object.__new__(cls)
        made._pairs = pairs
        return made

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The intervals as ``(start, end)`` tuples of milliseconds, ascending."""
        return self._pairs

    def __iter__(self) -> Iterator[TimeInterval]:
        return (TimeInterval(start, end) for start, end in self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __bool__(self) -> bool:
        return bool(self._pairs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (TimeIntervals, TimeInterval)) and self._pairs == _pairs_of(other)

    def __hash__(self) -> int:
        return hash(self._pairs[0] if len(self._pairs) == 1 else self._pairs)

    def __repr__(self) -> str:
        return f"TimeIntervals({list(self._pairs)!r})"

    def __str__(self) -> str:
        return " | ".join(str(interval) for interval in self) or "(empty)"

    @property
    def start(self) -> int:
        """The excluded start of the first interval. ``ValueError`` when empty."""
        if not self._pairs:
            raise ValueError("an empty set of intervals has no start")
        return self._pairs[0][0]

    @property
    def end(self) -> int:
        """The included end of the last interval. ``ValueError`` when empty."""
        if not self._pairs:
            raise ValueError("an empty set of intervals has no end")
        return self._pairs[-1][1]

    def span(self) -> TimeInterval:
        """The smallest interval that contains the set. ``ValueError`` when empty."""
        return TimeInterval(self.start, self.end)

    def __contains__(self, item: object) -> bool:
        """Whether an instant, a whole interval or a whole set is inside. ``TypeError`` for anything else."""
        if isinstance(item, TimeInterval):
            return self.covers(item.start, item.end)
        if isinstance(item, TimeIntervals):
            return all(self.covers(start, end) for start, end in item._pairs)
        instant = _instant(item)
        return self.covers(instant - 1, instant)

    def contains(self, item: object) -> bool:
        """The same as ``item in self``."""
        return item in self

    def covers(self, start: int, end: int) -> bool:
        """Whether all of ``(start, end]`` is inside."""
        at = bisect.bisect_right(self._pairs, (start, MAX_TIME)) - 1
        return at >= 0 and self._pairs[at][0] <= start and end <= self._pairs[at][1]

    def around(self, instant: int) -> Pair | None:
        """The interval of the set that contains ``instant``, or ``None``."""
        at = bisect.bisect_left(self._pairs, (instant, MIN_TIME - 1)) - 1
        if at >= 0 and self._pairs[at][0] < instant <= self._pairs[at][1]:
            return self._pairs[at]
        return None

    @overload
    def __or__(self, other: TimeIntervals) -> TimeIntervals: ...
    @overload
    def __or__(self, other: TimeInterval) -> TimeIntervals: ...
    def __or__(self, other: TimeIntervals | TimeInterval) -> TimeIntervals:
        pairs = _pairs_of(other)
        if not pairs:
            return self
        if not self._pairs:
            return TimeIntervals._make(pairs)
        if len(pairs) == 1 and self._pairs[-1][0] <= pairs[0][0]:
            return TimeIntervals._make(_append(self._pairs, pairs[0]))
        return TimeIntervals._make(_coalesce([*self._pairs, *pairs]))

    def __and__(self, other: TimeIntervals | TimeInterval) -> TimeIntervals:
        left, right = self._pairs, _pairs_of(other)
        if not left or not right:
            return EMPTY
        result: list[Pair] = []
        i = max(bisect.bisect_right(left, (right[0][0], MAX_TIME)) - 1, 0)
        j = max(bisect.bisect_right(right, (left[0][0], MAX_TIME)) - 1, 0)
        while i < len(left) and j < len(right):
            start, end = max(left[i][0], right[j][0]), min(left[i][1], right[j][1])
            if start < end:
                result.append((start, end))
            if left[i][1] < right[j][1]:
                i += 1
            else:
                j += 1
        return TimeIntervals._make(tuple(result))

    def __sub__(self, other: TimeIntervals | TimeInterval) -> TimeIntervals:
        pairs = _pairs_of(other)
        if not pairs or not self._pairs or pairs[-1][1] <= self._pairs[0][0] or pairs[0][0] >= self._pairs[-1][1]:
            return self
        result: list[Pair] = []
        j = 0
        for first, end in self._pairs:
            start = first
            while j < len(pairs) and pairs[j][1] <= start:
                j += 1
            k = j
            while k < len(pairs) and pairs[k][0] < end:
                if start < pairs[k][0]:
                    result.append((start, pairs[k][0]))
                start = max(start, pairs[k][1])
                k += 1
            if start < end:
                result.append((start, end))
        return TimeIntervals._make(tuple(result))

    def complement(self) -> TimeIntervals:
        """Everything that is not inside."""
        return EVERYTHING - self

    def dilate(self, before: int = 0, after: int = 0) -> TimeIntervals:
        """Each interval widened to ``(start - before, end + after]``; negative ones narrow, and drop what vanishes."""
        widened = ((shift(start, -before), shift(end, after)) for start, end in self._pairs)
        return TimeIntervals._make(_coalesce([pair for pair in widened if pair[0] < pair[1]]))

    def measure(self) -> int:
        """Total width in milliseconds."""
        return sum(end - start for start, end in self._pairs)


def _pairs_of(other: TimeIntervals | TimeInterval) -> tuple[Pair, ...]:
    if isinstance(other, TimeIntervals):
        return other._pairs
    if isinstance(other, TimeInterval):
        return ((other.start, other.end),)
    raise _no_set(other)


def _no_set(other: object) -> TypeError:
    return TypeError(f"{_shown(other)} is no TimeInterval and no TimeIntervals: {_instead(other)}")


def _instant(item: Any) -> int:
    """The milliseconds of what may lie in an interval. ``TypeError`` says what to write."""
    if isinstance(item, datetime):
        return to_ms(item)
    if isinstance(item, (int, np.integer)) and not isinstance(item, bool):
        return int(item)
    raise TypeError(f"{_shown(item)} is neither an instant nor an interval: {_instead(item)}")


def _shown(item: object) -> str:
    return reprlib.repr(item)


def _instead(item: object) -> str:
    """What to write for ``item``, which is no instant, no interval and no set."""
    if isinstance(item, RelativeTimeInterval):
        return "write relative.absolute(instant)"
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return "write TimeInterval(start, end)"
    if isinstance(item, str):
        return "write datetime.fromisoformat(text), with an offset in the text"
    if isinstance(item, float):
        return "write whole milliseconds since the epoch"
    return "write an aware datetime, milliseconds since the epoch, or TimeInterval(start, end)"


def _append(pairs: tuple[Pair, ...], pair: Pair) -> tuple[Pair, ...]:
    start, end = pairs[-1]
    if pair[0] <= end:
        return pairs if pair[1] <= end else (*pairs[:-1], (start, pair[1]))
    return (*pairs, pair)


def _coalesce(pairs: list[Pair]) -> tuple[Pair, ...]:
    if len(pairs) < 2:
        return tuple(pairs)
    pairs = sorted(pairs)
    result = [pairs[0]]
    for start, end in pairs[1:]:
        if start <= result[-1][1]:
            if end > result[-1][1]:
                result[-1] = (result[-1][0], end)
        else:
            result.append((start, end))
    return tuple(result)


EMPTY: Final = TimeIntervals()
EVERYTHING: Final = TimeIntervals.of(MIN_TIME, MAX_TIME)
