"""Tools without inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hs_stream.core.batch import Batch
from hs_stream.core.errors import ToolError
from hs_stream.core.time import MIN_TIME, Grid, TimeInterval, format_duration, from_ms
from hs_stream.core.tool import Drive, Duration, OnGrid, Support, Tool

__all__ = ["Clock"]


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
    arity = 0
    samples = (
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

    def drive(self) -> Drive:
        """The grid of ticks."""
        return OnGrid(Grid(self.every, self.tz))

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """The ticks of ``interval``, whose start must be finite: there is no first tick."""
        if interval.start <= MIN_TIME:
            raise ToolError("clock ticks for ever into the past", hint="ask for an interval with a finite start")
        times = Grid(self.every, self.tz).times(interval.start, interval.end)
        return Batch.build(times, [from_ms(time) for time in times.tolist()])
