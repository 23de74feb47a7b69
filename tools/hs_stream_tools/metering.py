"""Tools on meters: counters that only grow, until they are reset or replaced."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Final, Literal

from hs_stream.core.time import Grid, format_duration, from_ms, to_ms, zone
from hs_stream.core.tool import SKIP, Drive, Duration, FoldTool, FromInput, OnGrid
from hs_stream.core.value import Value
from hs_stream_tools._values import number

__all__ = ["UtilityMeter"]

_DAY: Final = 86_400_000
_MONDAY: Final = 4 * _DAY
"""1970-01-05 was a Monday."""


@dataclass(frozen=True, kw_only=True)
class UtilityMeter(FoldTool):
    """Consumption per period, such as kWh per local day, from a counter that grows.

    Give one of ``period`` (``day``, ``week`` from Monday on, ``month``, ``year``) and ``every`` (any length: ``15m``).
    ``tz``: IANA zone on whose clock periods begin and end, such as ``Europe/Brussels``; without it UTC. A period is
    ``(begin, end]``: a reading at exactly midnight is the last of the day that ends. A local day has 23 to 25 hours.
    An ``every`` of less than an hour needs no ``tz`` (see `hs_stream.core.time.Grid` for what it does).

    From one reading to the next the counter's increase is consumption, of the period that the *later* reading lies in,
    however far apart they are. So nothing is counted twice or lost: the periods add up to what the counter grew by. The
    very first reading only says where the counter stands.

    A reading below the one before means that the counter began again at 0 (a reset, a new meter): the reading itself
    is the increase, or 0 if it is negative. ``max_step``: an increase of more than this (in the unit of the counter;
    exactly this much is fine) is none, but another meter, or one that came back with an old or a wrong state: it
    counts as 0, and the next increase is taken from there.

    Output: a float at the end of each period with a reading in it. It comes by silence alone, and only then is final:
    a late reading revises it. With ``running: true`` instead at each reading: what its period has consumed so far. A
    missing reading (``None``, NaN, an infinity) is as if it were not there. ``TypeError`` for what is no number.

    >>> from hs_stream.core.batch import Batch
    >>> from hs_stream.core.time import TimeInterval
    >>> counter = Batch.of([(50_000, 7.0), (60_000, 9.0), (61_000, 10.0), (130_000, 1.0)])
    >>> list(UtilityMeter(every=60_000).evaluate(TimeInterval(0, 200_000), [counter]))
    [(60000, 2.0), (120000, 1.0), (180000, 1.0)]
    """

    name = "utility_meter"
    version = "1.0.0"
    takes = "number"
    samples = (
        {"every": "10s"},
        {"every": "1m", "max_step": 2.5, "running": True},
        {"period": "day", "tz": "Europe/Brussels", "max_step": 100},
        {"period": "day", "tz": "Europe/Brussels", "running": True},
        {"period": "week", "tz": "America/New_York"},
        {"period": "month", "tz": "Europe/Brussels"},
        {"period": "year"},
    )
    period: Literal["day", "week", "month", "year"] | None = None
    every: Duration | None = None
    tz: str | None = None
    max_step: float | None = None
    running: bool = False

    def __post_init__(self) -> None:
        if (self.period is None) == (self.every is None):
            raise ValueError("give one of period and every")
        if self.every is not None and self.every <= 0:
            raise ValueError(f"every must be longer than 0, not {format_duration(self.every)}")
        if self.max_step is not None and self.max_step < 0:
            raise ValueError(f"max_step must not be negative, but is {self.max_step}")
        self.grid  # noqa: B018 - looks the zone up now, so that a wrong one is found before the first reading

    @cached_property
    def grid(self) -> Grid:
        """Every period's end; months and years end at some of these instants."""
        if self.every is not None:
            return Grid(self.every, self.tz)
        zoned = self.tz or "UTC"
        return Grid(7 * _DAY, zoned, _MONDAY) if self.period == "week" else Grid(_DAY, zoned)

    def drive(self) -> Drive:
        """The grid of the periods' ends, or the input's times."""
        return FromInput(0) if self.running else OnGrid(self.grid)

    def initial(self) -> Value:
        """``None``: nothing read yet."""
        return None

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        """The state is ``[reading, end, base, kept]`` of the last reading: `_consumed` so far in the period to end."""
        reading = number("utility_meter", value)
        if reading is None or math.isinf(reading):
            return state, SKIP
        if state is None:
            return self._told([reading, self.period_end(time), reading, 0.0])
        last, end, base, kept = state
        if time > end:
            end, base, kept = self.period_end(time), last, 0.0
        begin = last if reading >= last else min(reading, 0.0)
        if self.max_step is not None and reading - begin > self.max_step:
            begin = reading
        if begin != last:
            base, kept = begin, kept + (last - base)
        return self._told([reading, end, base, kept])

    def quiet(self, state: Value, start: int, end: int) -> Iterable[tuple[int, Value]]:
        """What the period of the last reading consumed, at its end."""
        return [(state[1], _consumed(state))] if state is not None and start < state[1] <= end else ()

    def _told(self, state: list[Value]) -> tuple[Value, Value]:
        return state, _consumed(state) if self.running else SKIP

    def period_end(self, time: int) -> int:
        """The end of the period that ``time`` lies in: the first one at or after it."""
        if self.period not in ("month", "year"):
            return self.grid.next(time - 1)
        begin = self._local(time - 1)
        year, month = (begin.year, begin.month + 1) if self.period == "month" else (begin.year + 1, 1)
        first = datetime(year + (month - 1) // 12, (month - 1) % 12 + 1, 1, tzinfo=begin.tzinfo)
        # A zone may skip the first day of a month: then the month ends as the next day begins.
        end = self.grid.next(max(time - 1, to_ms(first) - 3 * _DAY))
        while not self._turns(end):
            end = self.grid.next(end)
        return end

    def _turns(self, midnight: int) -> bool:
        before, after = self._local(midnight - 1), self._local(midnight)
        return before.year != after.year or (self.period == "month" and before.month != after.month)

    def _local(self, time: int) -> datetime:
        return from_ms(time).astimezone(zone(self.tz or "UTC"))


def _consumed(state: list[Value]) -> float:
    """From a base the counter grew to the reading, and what was kept of the period before the base changed."""
    reading, _, base, kept = state
    return float(reading - base + kept)
