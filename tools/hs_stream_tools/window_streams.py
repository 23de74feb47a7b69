"""Windows as values: streams of `TimeInterval`. What to do with them is in `hs_stream_tools.over_windows`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from hs_stream.core.batch import Batch
from hs_stream.core.errors import ToolError
from hs_stream.core.time import MIN_TIME, Grid, TimeInterval, format_duration, from_ms, to_ms, zone
from hs_stream.core.tool import Drive, Duration, MapTool, OnGrid, Support, Tool
from hs_stream.core.value import Value
from hs_stream_tools._values import instant

__all__ = ["AligningWindow", "SlidingWindow"]

_DAY: Final = 86_400_000


def check_order(lower: int, upper: int, names: str) -> None:
    """``ValueError`` unless a window with these bounds has a width."""
    if lower >= upper:
        raise ValueError(
            f"{names} must be in this order, not {format_duration(lower)} and {format_duration(upper)}: "
            "a window is (start, end]"
        )


@dataclass(frozen=True, kw_only=True)
class SlidingWindow(Tool):
    """A window at each tick of a grid: ``(t + lower, t + upper]``.

    Output: a `TimeInterval` at each tick t. ``lower`` and ``upper``: its bounds as seen from t (negative: before it;
    default: the last second). ``increment``: time between ticks. They are counted from the Unix epoch, or from
    ``first`` (ISO 8601 with an offset): then one window begins there, and none earlier. ``tz``: IANA zone on
    whose wall clock the ticks lie; with it, bounds of whole days before t are local days of 23 to 25 hours, and none
    may lie whole days ahead of t.

    >>> tool = SlidingWindow(lower=-60_000, upper=-10_000, increment=30_000)
    >>> [(time, window.start, window.end) for time, window in tool.evaluate(TimeInterval(60_000, 120_000), [])]
    [(90000, 30000, 80000), (120000, 60000, 110000)]
    """

    name = "sliding_window"
    version = "1.0.0"
    kind = "generator"
    output_kind = "event"
    output_unit = "none"
    arity = 0
    samples = (
        {},
        {"lower": "-60s", "increment": "10s"},
        {"lower": "-20m", "upper": "-5m", "increment": "7m", "first": "2015-02-04T17:51:13.500+01:00"},
        {"lower": "-10s", "upper": "20s", "increment": "30s"},
        {"lower": "-1d", "increment": "1d", "tz": "Europe/Brussels"},
        {"lower": "-2d", "upper": "-1d", "increment": "1d", "tz": "Europe/Brussels", "first": "2015-03-27T06:00:00Z"},
    )
    lower: Duration = Duration(-1000)
    upper: Duration = Duration(0)
    increment: Duration = Duration(1000)
    first: str | None = None
    tz: str | None = None

    def __post_init__(self) -> None:
        check_order(self.lower, self.upper, "lower and upper")
        if self.increment <= 0:
            raise ValueError(f"increment must be longer than 0, not {format_duration(self.increment)}")
        for name, bound in (("lower", self.lower), ("upper", self.upper)):
            if self.tz is not None and bound > 0 and bound % _DAY == 0:
                raise ValueError(
                    f"with tz, {name} cannot be {format_duration(bound)} ahead of a tick: "
                    "let windows end at their tick, which comes later then"
                )
        self.grid  # noqa: B018 - finds a wrong zone or first now

    @cached_property
    def grid(self) -> Grid:
        """Where the ticks lie."""
        if self.begin is None:
            return Grid(self.increment, self.tz)
        begin = self.begin
        if self.tz is not None:
            begin = to_ms(from_ms(begin).astimezone(zone(self.tz)).replace(tzinfo=UTC))
        return Grid(self.increment, self.tz, (begin - self.lower) % self.increment)

    @cached_property
    def begin(self) -> int | None:
        """``first`` in milliseconds."""
        return None if self.first is None else instant("first", self.first)

    def support(self, slot: int) -> Support:
        """Never asked: there is no input."""
        raise ToolError(f"sliding_window has no inputs, so there is no input {slot}")

    def drive(self) -> Drive:
        """The ticks."""
        return OnGrid(self.grid)

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """The windows at the ticks of ``interval``, whose start must be finite."""
        if interval.start <= MIN_TIME:
            raise ToolError(
                "sliding_window goes for ever into the past", hint="ask for an interval with a finite start"
            )
        times = self.grid.times(interval.start, interval.end)
        starts, ends = self._bounds(times, self.lower), self._bounds(times, self.upper)
        # A zone may skip a day, and with it the window of that day.
        there = starts < ends
        if self.begin is not None:
            there &= starts >= self.begin
        return Batch.build(times[there], list(map(TimeInterval, starts[there].tolist(), ends[there].tolist())))

    def _bounds(self, times: npt.NDArray[np.int64], by: int) -> npt.NDArray[np.int64]:
        if by >= 0 or self.tz is None:
            return times + by
        return np.array([self.grid.back(time, -by) for time in times.tolist()], np.int64)


@dataclass(frozen=True, kw_only=True)
class AligningWindow(MapTool):
    """A window at each instance of a stream: ``(t + lower, t + upper]``.

    Output: a `TimeInterval` at each instance, whose value does not matter. ``lower`` and ``upper``: its bounds as seen
    from t (negative: before it; default: the last second).

    >>> AligningWindow(lower=-5000, upper=1000).map_at(60_000, "any value")
    TimeInterval(start=55000, end=61000)
    """

    name = "aligning_window"
    version = "1.0.0"
    output_kind = "event"
    output_unit = "none"
    alignment = 0
    samples = ({}, {"lower": "-1m", "upper": "-10s"}, {"lower": "-10s", "upper": "20s"})
    lower: Duration = Duration(-1000)
    upper: Duration = Duration(0)

    def __post_init__(self) -> None:
        check_order(self.lower, self.upper, "lower and upper")

    def map_at(self, time: int, value: Value) -> Value:
        """The window."""
        return TimeInterval(time + self.lower, time + self.upper)
