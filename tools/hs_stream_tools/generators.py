"""Tools without inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from functools import cached_property
from typing import Any, ClassVar

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.errors import ToolError
from hs_stream.core.time import MIN_TIME, Grid, TimeInterval, format_duration, from_ms, to_ms, zone
from hs_stream.core.tool import Drive, Duration, OnGrid, Support, Tool
from hs_stream_tools._values import instant

__all__ = ["Clock", "ClockFrom"]


@dataclass(frozen=True, kw_only=True)
class Clock(Tool):
    """Ticks on a grid; the value of a tick is its own time.

    Output: an aware UTC datetime at each grid instant. Ticks are counted from the Unix epoch, not from where an
    evaluation begins; see `hs_stream.core.time.Grid` for what days and changes of the clock do.

    ``every``: time between ticks. ``tz``: IANA zone on whose wall clock the grid lies, such as ``Europe/Brussels``
    (``every: 1d`` then ticks at each local midnight); without it UTC.

    >>> [time for time, _ in Clock(every=60_000).evaluate(TimeInterval(0, 120_000), [])]
    [60000, 120000]
    """

    name = "clock"
    version = "1.0.0"
    kind = "generator"
    output_kind = "event"
    output_unit = "none"
    arity = 0
    samples: ClassVar[Sequence[Mapping[str, Any]]] = (
        {"every": "1s"},
        {"every": "7m", "tz": "Europe/Brussels"},
        {"every": "1d", "tz": "Europe/Brussels"},
    )
    every: Duration
    tz: str | None = None

    def __post_init__(self) -> None:
        if self.every <= 0:
            raise ValueError(f"every must be longer than 0, not {format_duration(self.every)}")
        self.drive()

    def support(self, slot: int) -> Support:
        """Never asked: there is no input."""
        raise ToolError(f"clock has no inputs, so there is no input {slot}")

    @property
    def grid(self) -> Grid:
        """Where the ticks lie."""
        return Grid(self.every, self.tz)

    def drive(self) -> Drive:
        """The grid of ticks."""
        return OnGrid(self.grid)

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """The ticks of ``interval``, whose start must be finite: there is no first tick."""
        if interval.start <= MIN_TIME:
            raise ToolError("clock ticks for ever into the past", hint="ask for an interval with a finite start")
        times = self.grid.times(interval.start, interval.end)
        return Batch.build(times, [from_ms(time) for time in times.tolist()])


@dataclass(frozen=True, kw_only=True)
class ClockFrom(Clock):
    """Ticks on a grid, which may have a first tick; the value of a tick is its own time.

    Output: an aware UTC datetime at each grid instant. Ticks are counted from ``first`` or else from the Unix epoch,
    never from where an evaluation begins; see `hs_stream.core.time.Grid` for what days and changes of the clock do.

    ``every``: time between ticks. ``tz``: IANA zone on whose wall clock the grid lies, such as ``Europe/Brussels``
    (``every: 1d`` then ticks at each local midnight); without it UTC. ``first``: the first tick, in ISO 8601 with an
    offset; there is none before it. With ``tz`` the ticks keep its wall-clock time: ``every: 1d`` with a first tick at
    06:00 in Brussels ticks at 06:00 there, in summer and in winter.

    >>> clock = ClockFrom(every=60_000, first="1970-01-01T00:00:15Z")
    >>> [time for time, _ in clock.evaluate(TimeInterval(0, 99_000), [])]
    [15000, 75000]
    """

    version = "1.1.0"
    samples: ClassVar[Sequence[Mapping[str, Any]]] = (
        *Clock.samples,
        {"every": "1m", "first": "2015-02-04T17:51:13.500+01:00"},
        {"every": "1d", "tz": "Europe/Brussels", "first": "2015-03-28T02:30:00+01:00"},
    )
    first: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        first = self.first_ms
        if first is not None and not len(self.grid.times(first - 1, first)):
            raise ValueError(
                f"first is {self.first}, when clocks of {self.tz} show an hour again: write the earlier one"
            )

    @cached_property
    def first_ms(self) -> int | None:
        """The first tick, if there is one."""
        return None if self.first is None else instant("first", self.first)

    @property
    def grid(self) -> Grid:
        """Where the ticks lie. A grid has no begin: that is for `evaluate`."""
        first = self.first_ms
        if first is None:
            return super().grid
        if self.tz is not None:
            first = to_ms(from_ms(first).astimezone(zone(self.tz)).replace(tzinfo=UTC))
        return Grid(self.every, self.tz, first % self.every)

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """The ticks of ``interval``."""
        first = self.first_ms
        if first is None or first <= interval.start:
            return super().evaluate(interval, sources)
        return super().evaluate(TimeInterval(first - 1, interval.end), sources) if first <= interval.end else NOTHING
