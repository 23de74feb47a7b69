"""Instants, intervals, sets of intervals, durations and grids.

1. An instant is an ``int``: milliseconds since the Unix epoch, UTC. Aware datetimes exist only at the edges.
2. An interval is ``(start, end]``: ``start`` is excluded, ``end`` is included, and ``start < end``.
3. ``MIN_TIME`` and ``MAX_TIME`` stand for minus and plus infinity. `shift` keeps them where they are.
4. Everything here is immutable; an operator returns a new value.
"""

from __future__ import annotations

import bisect
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, overload
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

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
    "local_marks",
    "parse_duration",
    "parse_time",
    "shift",
    "to_ms",
    "wall_instant",
    "zone",
]

Instant = int | datetime
"""What the edges accept as an instant: integer milliseconds since the epoch or an aware datetime."""

MIN_TIME: Final = -(1 << 62)
MAX_TIME: Final = 1 << 62
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_FIRST_DATETIME: Final = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // _MILLISECOND
_LAST_DATETIME: Final = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) // _MILLISECOND


def to_ms(instant: Instant) -> int:
    """Milliseconds since the epoch; microseconds are cut off towards the past.

    Raises ``TypeError`` for a naive datetime and for anything that is neither an int nor a datetime.

    >>> to_ms(datetime(2015, 2, 4, 17, 51, tzinfo=UTC))
    1423072260000
    """
    if type(instant) is int:
        return instant
    if isinstance(instant, datetime):
        if instant.tzinfo is None:
            raise TypeError(
                f"naive datetime {instant.isoformat()}: it names no instant; give it a time zone, "
                "for example .replace(tzinfo=timezone.utc)"
            )
        return (instant - _EPOCH) // _MILLISECOND
    if isinstance(instant, (int, np.integer)) and not isinstance(instant, bool):
        return int(instant)
    raise TypeError(f"an instant is an aware datetime or integer milliseconds since the epoch, not {instant!r}")


def from_ms(instant: int) -> datetime:
    """The aware UTC datetime of ``instant``. Raises ``OverflowError`` outside of the years 1 to 9999."""
    return _EPOCH + instant * _MILLISECOND


def shift(instant: int, by: int) -> int:
    """``instant + by`` in milliseconds, with the infinities fixed and the result kept within them.

    >>> shift(MIN_TIME, 5) == MIN_TIME
    True
    """
    if instant <= MIN_TIME or instant >= MAX_TIME:
        return instant
    return min(max(instant + by, MIN_TIME), MAX_TIME)


def format_time(instant: int) -> str:
    """ISO 8601 with ``Z``, with milliseconds only where there are any; ``-inf`` and ``inf`` for the infinities.

    >>> format_time(1423072260000), format_time(1423072260001)
    ('2015-02-04T17:51:00Z', '2015-02-04T17:51:00.001Z')
    """
    if instant <= MIN_TIME:
        return "-inf"
    if instant >= MAX_TIME:
        return "inf"
    if not _FIRST_DATETIME <= instant <= _LAST_DATETIME:
        return f"{instant}ms"
    precision = "milliseconds" if instant % 1000 else "seconds"
    return from_ms(instant).isoformat(timespec=precision).replace("+00:00", "Z")


_UNITS: Final = {
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "min": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d|w)")


def parse_duration(value: str | int | float | timedelta) -> int:
    """Milliseconds of a duration: ``"5m"``, ``"1h30m"``, ``"-250ms"``, a ``timedelta``, or a number of *seconds*.

    Units: ``ms s m (or min) h d w``. Raises ``ValueError`` with what to write instead.

    >>> parse_duration("1h30m"), parse_duration(2.5), parse_duration("-1m")
    (5400000, 2500, -60000)
    """
    if isinstance(value, timedelta):
        return value // _MILLISECOND
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        milliseconds = value * 1000
        if milliseconds != milliseconds or abs(milliseconds) > MAX_TIME:
            raise ValueError(f"{value!r} is not a duration: write for example '30s', '5m' or '1h30m'")
        return round(milliseconds)
    if isinstance(value, str):
        text = value.strip()
        sign = -1 if text.startswith("-") else 1
        text = text.lstrip("+-").strip()
        parts = _DURATION.findall(text)
        amount = -1.0
        if parts and not _DURATION.sub("", text).strip():
            amount = sum(float(number) * _UNITS[unit] for number, unit in parts)
        elif text.replace(".", "", 1).isdigit():
            amount = float(text) * 1000
        if 0 <= amount <= MAX_TIME:
            return sign * round(amount)
        if amount > MAX_TIME:
            raise ValueError(f"{text[:40]!r} is longer than all of time: write for example '30s', '5m' or '1h30m'")
    raise ValueError(f"{value!r} is not a duration: write for example '30s', '5m' or '1h30m'")


def format_duration(milliseconds: int) -> str:
    """The shortest text that `parse_duration` reads back.

    >>> format_duration(5_400_000), format_duration(0), format_duration(-250)
    ('1h30m', '0s', '-250ms')
    """
    if milliseconds == 0:
        return "0s"
    rest, text = abs(milliseconds), "-" if milliseconds < 0 else ""
    for unit in ("d", "h", "m", "s", "ms"):
        amount, rest = divmod(rest, _UNITS[unit])
        if amount:
            text += f"{amount}{unit}"
    return text


def parse_time(text: str, *, now: int) -> int:
    """An instant from ISO 8601 with an offset, ``now``, or a duration relative to ``now`` (``-1h``).

    Raises ``ValueError`` for anything else, a date and time without an offset included.

    >>> parse_time("-1m", now=60_000), parse_time("2015-02-04T17:51:00Z", now=0)
    (0, 1423072260000)
    """
    text = text.strip()
    if text == "now":
        return now
    if text in ("-inf", "inf"):
        return MIN_TIME if text == "-inf" else MAX_TIME
    if text[:1] in "+-" and text[1:2].isdigit():
        return shift(now, parse_duration(text))
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a time: write 2015-02-04T17:51:00Z, now, or -1h") from None
    if instant.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone: write {instant.isoformat()}Z for UTC")
    return to_ms(instant)


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


@lru_cache(maxsize=256)
def zone(name: str) -> ZoneInfo:
    """The IANA time zone ``name``. ``ValueError`` says what a name looks like."""
    try:
        return ZoneInfo(name)
    except Exception as error:
        raise ValueError(f"{name!r} is not a known time zone: write for example 'Europe/Brussels'") from error


_DAY: Final = 86_400_000


def _offset(tz: ZoneInfo, instant: int) -> int:
    offset = from_ms(instant).astimezone(tz).utcoffset()
    assert offset is not None
    return offset // _MILLISECOND


@lru_cache(maxsize=4096)
def _changes(name: str, day: int) -> tuple[int, tuple[tuple[int, int], ...]]:
    """The zone's offset (ms) as a UTC day (counted from the epoch) begins, and each ``(instant, new offset)`` in it."""
    tz, start = zone(name), day * _DAY
    first = before = _offset(tz, start)
    changes = []
    for hour in range(24):
        low, high = start + hour * 3_600_000, start + (hour + 1) * 3_600_000
        after = _offset(tz, high)
        if after == before:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            if _offset(tz, middle) == before:
                low = middle
            else:
                high = middle
        if high < start + _DAY:
            changes.append((high, after))
        before = after
    return first, tuple(changes)


def _offsets(name: str, start: int, end: int) -> list[tuple[int, int, int]]:
    """Runs ``(first, last, offset)`` over ``(start, end]``: the zone's offset (ms) at each t in ``(first, last]``."""
    runs: list[tuple[int, int, int]] = []
    first, offset = start, _offset(zone(name), start + 1)
    for day in range((start + 1) // _DAY, end // _DAY + 1):
        begin, changes = _changes(name, day)
        for instant, new in ((day * _DAY, begin), *changes):
            if start + 1 < instant <= end and new != offset:
                runs.append((first, instant - 1, offset))
                first, offset = instant - 1, new
    runs.append((first, end, offset))
    return runs


Marks = Callable[[int, int], npt.NDArray[np.int64]]
"""``marks(start, end)``: the marks of a wall clock in ``(start, end]``, ascending; all of them in its milliseconds."""


def local_marks(marks: Marks, tz: str, start: int, end: int, again: int | None = None) -> npt.NDArray[np.int64]:
    """The instants in ``(start, end]`` at which the clock of ``tz`` comes to a mark, ascending.

    A mark that the clock skips stands for the instant of that change. Of one that it shows twice the first time counts,
    and the second one too where the clock was set back by ``again`` milliseconds or more.
    """
    pieces: list[npt.NDArray[np.int64]] = []
    # What occurs twice began at most two days before its second time.
    runs = _offsets(tz, start - 2 * _DAY, end)
    fresh, before = MIN_TIME, runs[0][2]
    for first, last, offset in runs:
        if offset < before and (again is None or before - offset < again):
            fresh = first + before - offset + 1
        low, high = max(first, start, fresh - 1), min(last, end)
        found = marks(low + offset, high + offset) - offset
        skipped = offset > before and len(marks(first + before, first + offset))
        if skipped and start < first + 1 <= end and not (len(found) and found[0] == first + 1):
            pieces.append(np.array([first + 1], np.int64))
        pieces.append(found)
        before = offset
    return np.concatenate(pieces)


def wall_instant(tz: str, wall_ms: int) -> int:
    """The instant at which the clock of ``tz`` shows ``wall_ms`` (milliseconds since its own 1970-01-01 00:00).

    The first one where it does so twice, and the instant of the change where it skips it.
    """
    clock = zone(tz)
    wall = datetime(1970, 1, 1) + wall_ms * _MILLISECOND  # noqa: DTZ001 - a wall clock has no zone yet
    first = to_ms(wall.replace(tzinfo=clock, fold=0))
    second = to_ms(wall.replace(tzinfo=clock, fold=1))
    if first <= second:
        return first
    # A gap: fold=0 and fold=1 lie on both sides of the change of offset, which is the instant we want.
    low, high = second, first
    offset = from_ms(low).astimezone(clock).utcoffset()
    while high - low > 1:
        middle = (low + high) // 2
        if from_ms(middle).astimezone(clock).utcoffset() == offset:
            low = middle
        else:
            high = middle
    return high


@dataclass(frozen=True, slots=True)
class Grid:
    """Instants at which something is due: ``offset + k * every`` milliseconds, ``every > 0``.

    Without a zone, k counts from the Unix epoch. With one, the same holds for the *local wall clock* counted
    from local 1970-01-01 00:00, so that ``every="1d"`` is each local midnight and a day has 23, 24 or 25 hours.
    A wall-clock instant that a change of offset skips maps to the instant of the change (PEP 495, fold=0, moved
    forward); of one that occurs twice the first counts. So neighbouring instants may coincide: each counts once.

    >>> Grid(60_000).times(0, 180_000).tolist()
    [60000, 120000, 180000]
    """

    every: int
    tz: str | None = None
    offset: int = 0

    def __post_init__(self) -> None:
        if self.every <= 0:
            raise ValueError("a grid needs every > 0")
        if self.tz is not None:
            zone(self.tz)

    def times(self, start: int, end: int) -> npt.NDArray[np.int64]:
        """Grid instants in ``(start, end]``, ascending. Both bounds must be finite."""
        if start >= end:
            return np.empty(0, np.int64)
        if self.tz is None:
            return self._wall_times(start, end)
        return self._local_times(start, end)

    def _local_times(self, start: int, end: int) -> npt.NDArray[np.int64]:
        return local_marks(self._wall_times, self.tz or "UTC", start, end)

    def _wall_times(self, start: int, end: int) -> npt.NDArray[np.int64]:
        first = (start - self.offset) // self.every + 1
        last = (end - self.offset) // self.every
        return np.arange(first, last + 1, dtype=np.int64) * self.every + self.offset

    def next(self, after: int) -> int:
        """The first grid instant later than ``after`` (finite)."""
        if self.tz is None:
            return ((after - self.offset) // self.every + 1) * self.every + self.offset
        reach = min(self.every, _DAY)
        while not len(found := self.times(after, after + reach)):
            after += reach
        return int(found[0])

    def back(self, instant: int, width: int) -> int:
        """``width`` before ``instant``: whole days are days of the grid's zone, everything else is elapsed time.

        Always earlier than ``instant``, and less than `lookback` (``width``) before ``instant``, or exactly that much.
        """
        if self.tz is None or width % _DAY:
            return instant - width
        local = from_ms(instant).astimezone(zone(self.tz))
        wall = (local.replace(tzinfo=None) - datetime(1970, 1, 1)) // _MILLISECOND  # noqa: DTZ001 - wall clock
        # A zone that skips a whole day maps its midnight to the next one's: that day does not count.
        while (found := self._instant(wall - width)) >= instant:
            wall -= _DAY
        return found

    def lookback(self, width: int) -> int:
        """An upper bound of ``instant - back(instant, width)``: no zone ever moved by more than 25 h at once."""
        return width if self.tz is None or width % _DAY else width + 25 * 3_600_000

    def _instant(self, wall_ms: int) -> int:
        assert self.tz is not None
        return wall_instant(self.tz, wall_ms)
