"""Grids: instants that come at equal steps, of UTC or of the wall clock of a time zone. See `hs_stream.core.time`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from hs_stream.core.instants import MILLISECOND, MIN_TIME, from_ms, to_ms

__all__ = ["Grid", "local_marks", "wall_instant", "zone"]


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
    return offset // MILLISECOND


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
    wall = datetime(1970, 1, 1) + wall_ms * MILLISECOND  # noqa: DTZ001 - a wall clock has no zone yet
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
        wall = (local.replace(tzinfo=None) - datetime(1970, 1, 1)) // MILLISECOND  # noqa: DTZ001 - wall clock
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
