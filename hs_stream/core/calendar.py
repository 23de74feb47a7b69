"""Cells of a calendar: hours, days, weeks, months, quarters, years, and any length, on the clock of a zone.

1. A cell is ``(begin, end]``, like every interval. Cells cover time without a gap and without an overlap, over every
   change of clock: each end is the begin of the next cell.
2. An end is where the clock of the zone comes to a mark. Marks are the beginnings of the period on the wall clock
   (Monday 00:00, the 1st of a month 00:00), and ``offset`` later: ``month`` with ``14d`` has the 15th of each month,
   ``day`` with ``9h`` has 09:00. They do not care how many hours lie between them: a day has 23 to 25.
3. A mark that the clock skips is at the instant of that change; cells without any time vanish.
4. Where the clock goes back by a cell or more, the times that it shows again have cells of their own again: the hour
   that happens twice is two hours, and four quarters of an hour are eight. Where it goes back by less, the cell in
   which it does is longer by as much: a block of six hours has seven, a day 25, and on Lord Howe Island, which sets
   its clock by half an hour, an hour has 90 minutes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, Self

import numpy as np
import numpy.typing as npt

from hs_stream.core.grid import Grid, local_marks, wall_instant
from hs_stream.core.instants import format_duration, from_ms

__all__ = ["Cells", "Period", "Weekday"]

Period = Literal["hour", "day", "week", "month", "quarter", "year"]
"""The periods that have a name."""
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]

_HOUR: Final = 3_600_000
_DAY: Final = 24 * _HOUR
_WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONDAY: Final = 4 * _DAY
"""1970-01-05 was a Monday."""
_FIXED: Final = {"hour": _HOUR, "day": _DAY, "week": 7 * _DAY}
_MONTHS: Final = {"month": (1, 28, 31), "quarter": (3, 90, 92), "year": (12, 365, 366)}
"""How many months, and how many days at least and at most."""
_CHANGE: Final = 2 * _DAY
"""No zone has changed its clock by more in all, within a month or a year of its own."""


@dataclass(frozen=True, slots=True)
class Cells(Grid):
    """The ends of the cells of a calendar, as a `Grid`. Make it with `of`.

    ``every`` is the shortest length on the wall clock (of a month 28 days), ``months`` how many months a cell has, or
    0 where each has the same length.

    >>> from hs_stream.core.instants import format_time, to_ms
    >>> bills = Cells.of("month", tz="Europe/Berlin", offset=14 * 86_400_000)
    >>> at = to_ms(datetime.fromisoformat("2026-03-20T12:00:00+01:00"))
    >>> format_time(bills.begin(at)), format_time(bills.end(at))
    ('2026-03-14T23:00:00Z', '2026-04-14T22:00:00Z')
    """

    months: int = 0

    @classmethod
    def of(
        cls, period: Period | int, *, tz: str | None = None, offset: int = 0, week_start: Weekday = "monday"
    ) -> Self:
        """Cells of a named period, or of ``period`` milliseconds each, on the clock of ``tz`` (without it UTC).

        ``offset``: how much later than the period itself a cell begins, on the wall clock (milliseconds), less than
        the shortest such period (28 days for a month). Cells with a length are counted from 1970-01-01 00:00 of the
        wall clock: ``15m`` and ``6h`` begin with each day. ``week_start`` is for ``week``. ``ValueError`` says what is
        wrong.
        """
        if week_start != "monday" and period != "week":
            raise ValueError("week_start is for period: week")
        every, months, first = period if isinstance(period, int) else 0, 0, 0
        if isinstance(period, str):
            if period in _MONTHS:
                months, days, _ = _MONTHS[period]
                every = days * _DAY
            else:
                every = _FIXED[period]
        if every <= 0:
            raise ValueError(f"a period must be longer than 0, not {format_duration(every)}")
        if not 0 <= offset < every:
            raise ValueError(
                f"offset is how much later than the period a cell begins, at least 0 and less than "
                f"{format_duration(every)}, not {format_duration(offset)}"
            )
        if period == "week":
            first = _MONDAY + _WEEKDAYS.index(week_start) * _DAY
        return cls(every, tz, first + offset, months)

    @property
    def longest(self) -> int:
        """A bound of how long a cell is (milliseconds)."""
        most = next((days * _DAY for months, _, days in _MONTHS.values() if months == self.months), self.every)
        return most if self.tz is None else most + min(most, _CHANGE)

    def times(self, start: int, end: int) -> npt.NDArray[np.int64]:
        """The ends of cells in ``(start, end]``, ascending. Both bounds must be finite."""
        if start >= end:
            return np.empty(0, np.int64)
        if self.months:
            return self._month_ends(start, end)
        if self.tz is None:
            return self._wall_times(start, end)
        return local_marks(self._wall_times, self.tz, start, end, self.every)

    def _month_ends(self, start: int, end: int) -> npt.NDArray[np.int64]:
        # The wall clock of a zone is less than two days ahead of UTC.
        day = from_ms(start - self.offset - 2 * _DAY)
        step = (day.year * 12 + day.month - 1) // self.months
        found: list[int] = []
        while (instant := self._month_begin(step * self.months)) <= end:
            if instant > max(start, found[-1] if found else start):
                found.append(instant)
            step += 1
        return np.array(found, np.int64)

    def _month_begin(self, month: int) -> int:
        """The instant of the mark of the ``month``-th month since year 0."""
        days = datetime(month // 12, month % 12 + 1, 1) - datetime(1970, 1, 1)  # noqa: DTZ001 - wall clock
        wall = days.days * _DAY + self.offset
        return wall if self.tz is None else wall_instant(self.tz, wall)

    def next(self, after: int) -> int:
        """The first end of a cell later than ``after`` (finite)."""
        if self.tz is None and not self.months:
            return Grid.next(self, after)
        reach = min(self.every, _DAY) if not self.months else self.longest
        while not len(found := self.times(after, after + reach)):
            after += reach
        return int(found[0])

    def end(self, instant: int) -> int:
        """The end of the cell that ``instant`` (finite) lies in: of an end the end itself."""
        return self.next(instant - 1)

    def begin(self, instant: int) -> int:
        """The begin of the cell that ``instant`` (finite) lies in, which is no part of it: always earlier."""
        return int(self.times(instant - 1 - self.longest, instant - 1)[-1])

    def begins(self, times: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """`begin` of each of the ascending ``times``."""
        if not len(times):
            return times
        ends = self.times(int(times[0]) - 1 - self.longest, int(times[-1]))
        found: npt.NDArray[np.int64] = ends[ends.searchsorted(times, "left") - 1]
        return found
