"""Tools that bring the readings of one stream onto a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.kinds import Kind
from hs_stream.core.time import Grid, TimeInterval, format_duration
from hs_stream.core.tool import Drive, Duration, OnGrid, Support, Tool, Window, WindowTool, batch_of, grid_times_near
from hs_stream_tools._kinds import Unmeant, not_a_mean, not_an_extreme
from hs_stream_tools._sliding import Ints
from hs_stream_tools.windows import SlidingLast, SlidingMax, SlidingMean, SlidingMin

__all__ = ["Interpolate", "Resample"]

_DAY: Final = 86_400_000
_SET_BACK: Final = 3 * 3_600_000
_CELLS: Final[dict[str, type[WindowTool]]] = {
    "last": SlidingLast,
    "max": SlidingMax,
    "mean": SlidingMean,
    "min": SlidingMin,
}


def _check(every: int, tz: str | None) -> None:
    if every <= 0:
        raise ValueError(f"every must be longer than 0, not {format_duration(every)}")
    Grid(every, tz)


@dataclass(frozen=True, kw_only=True)
class Resample(Tool):
    """One value per grid instant, from the readings since the grid instant before (or the nearest one).

    ``every``: distance of the grid instants; ``tz``: IANA zone on whose clock they lie. ``method``: ``mean`` (each
    reading counts once, however long it lasted), ``min``, ``max`` (floats) and ``last`` (the reading itself, of any
    type) of the cell ``(grid instant before, t]``: a reading exactly at t belongs to t, one exactly at the instant
    before does not. So every reading is in one cell, on days on which the clock changes too; only where a zone set its
    clock back by more than 3 h does a cell of less than a day leave out what lies further back than ``every`` + 3 h.

    ``nearest``: the reading nearest to t, at most half of ``every`` away (exactly half: only before the reading, not
    after it), of two equally near ones the earlier; known half of ``every`` later.

    Missing values (``None``, NaN) are ignored. A cell without a reading has no output: an outage is not a value, and
    ``last_value`` or ``interpolate`` fill it, with a bound. ``TypeError`` for what is no number, where numbers are
    needed.

    >>> readings = Batch.of([(1_000, 20.0), (10_000, 22.0), (12_000, 23.0), (31_000, 25.0)])
    >>> list(Resample(every=10_000, method="mean").evaluate(TimeInterval(0, 40_000), [readings]))
    [(10000, 21.0), (20000, 23.0), (40000, 25.0)]
    >>> list(Resample(every=10_000, method="nearest").evaluate(TimeInterval(0, 40_000), [readings]))
    [(10000, 22.0), (30000, 25.0)]
    """

    name = "resample"
    version = "1.0.0"
    kind = "window"
    output_kind = "same"
    output_unit = "same"
    takes = "number"
    samples = (
        {"every": "10s", "method": "mean"},
        {"every": "1d", "tz": "Europe/Brussels", "method": "max"},
        {"every": "6h", "tz": "Europe/Brussels", "method": "min"},
        {"every": "7s", "method": "last"},
        {"every": "5ms", "method": "nearest"},
        {"every": "1h", "tz": "Europe/Brussels", "method": "nearest"},
    )
    every: Duration
    method: Literal["last", "mean", "min", "max", "nearest"]
    tz: str | None = None

    def __post_init__(self) -> None:
        _check(self.every, self.tz)

    def unmeant(self, slot: int, kind: Kind) -> Unmeant:
        """As for the statistics of the same name."""
        if self.method == "mean":
            return not_a_mean(self.name, kind, "write sliding_mean@^2 with period and weight: time")
        if self.method in ("min", "max"):
            return not_an_extreme(f"sliding_{self.method}", kind, held=False)
        return None

    def support(self, slot: int) -> Window:
        """The cell, or a bound of it; for ``nearest`` half of ``every`` on both sides."""
        if self.method == "nearest":
            return Window(self.every - self.every // 2, self.every // 2)
        if self.tz is None:
            return Window(self.every)
        whole_days = self.every % _DAY == 0
        return Window(Grid(self.every, self.tz).lookback(self.every) if whole_days else self.every + _SET_BACK)

    def drive(self) -> Drive:
        """The grid."""
        return OnGrid(Grid(self.every, self.tz))

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """The cells that end in ``interval``."""
        source, support = sources[0], self.support(0)
        times = grid_times_near(Grid(self.every, self.tz), source.times, interval, support.lookback, support.lookahead)
        if not len(times):
            return NOTHING
        if self.method == "nearest":
            return self._nearest(_there(source), times, support)
        low = source.times.searchsorted(self._begins(times, support.lookback), "right")
        high = source.times.searchsorted(times, "right")
        filled = low < high
        if not filled.any():
            return NOTHING
        low, high, times = low[filled], high[filled], times[filled]
        try:
            values = _CELLS[self.method](width=self.every).reduce_windows(source, low, high, times)
        except TypeError as error:
            raise TypeError(f"resample with method={self.method}: {error}") from None
        return batch_of(times, values)

    def _begins(self, times: Ints, lookback: int) -> Ints:
        if self.tz is None:
            return times - self.every
        grid = Grid(self.every, self.tz)
        begins = times - lookback
        for index, (begin, time) in enumerate(zip(begins.tolist(), times.tolist(), strict=True)):
            before = grid.times(begin, time - 1)
            if len(before):
                begins[index] = before[-1]
        return begins

    @staticmethod
    def _nearest(source: Batch, times: Ints, support: Window) -> Batch:
        if not source:
            return NOTHING
        after = source.times.searchsorted(times, "right")
        before = np.maximum(after - 1, 0)
        after = np.minimum(after, len(source) - 1)
        back, ahead = times - source.times[before], source.times[after] - times
        has_before = (back >= 0) & (back < support.lookback)
        has_after = (ahead > 0) & (ahead <= support.lookahead)
        nearest = np.where(has_after & ~(has_before & (back <= ahead)), after, before)
        kept = has_before | has_after
        times, nearest = times[kept], nearest[kept]
        if isinstance(source.values, np.ndarray):
            return Batch.build(times, source.values[nearest])
        return Batch.build(times, [source.values[index] for index in nearest.tolist()])


def _there(source: Batch) -> Batch:
    """Without what is missing."""
    values = source.values
    if isinstance(values, np.ndarray):
        kept = np.flatnonzero(values == values)
    else:
        kept = np.array([at for at, value in enumerate(values) if value is not None and value == value], np.int64)
    return source if len(kept) == len(source) else source.take(kept)


@dataclass(frozen=True, kw_only=True)
class Interpolate(Tool):
    """The value at grid instants, on the straight line between the reading before and the one after.

    ``every``: distance of the grid instants; ``tz``: IANA zone on whose clock they lie. ``max_gap``: there is no
    output between two readings that are further apart than this (exactly this far is fine). A reading exactly at a
    grid instant is its value, whatever lies around it. Nothing is extrapolated.

    Output: float. As the reading after it may come as much later, a grid instant is told ``max_gap`` after itself. A
    missing reading (``None``, NaN) is as if it were not there. ``TypeError`` for what is no number.

    >>> readings = Batch.of([(1_000, 20.0), (5_000, 22.0), (20_000, 30.0)])
    >>> list(Interpolate(every=2_000, max_gap=10_000).evaluate(TimeInterval(0, 20_000), [readings]))
    [(2000, 20.5), (4000, 21.5), (20000, 30.0)]
    """

    name = "interpolate"
    version = "1.0.0"
    kind = "window"
    output_kind = "same"
    output_unit = "same"
    takes = "number"
    samples = (
        {"every": "10s", "max_gap": "1m"},
        {"every": "1m", "max_gap": "15s"},
        {"every": "1ms", "max_gap": "1ms"},
        {"every": "1d", "max_gap": "2d", "tz": "Europe/Brussels"},
    )
    every: Duration
    max_gap: Duration
    tz: str | None = None

    def __post_init__(self) -> None:
        _check(self.every, self.tz)
        if self.max_gap <= 0:
            raise ValueError(f"max_gap must be longer than 0, not {format_duration(self.max_gap)}")

    def support(self, slot: int) -> Support:
        """As both readings are at most max_gap apart, each is nearer to t than that, or at t."""
        return Window(self.max_gap, self.max_gap - 1)

    def drive(self) -> Drive:
        """The grid."""
        return OnGrid(Grid(self.every, self.tz))

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """The values at the grid instants in ``interval``."""
        grid = Grid(self.every, self.tz)
        times = grid_times_near(grid, sources[0].times, interval, self.max_gap, self.max_gap - 1)
        if not len(times):
            return NOTHING
        source = sources[0].slice(int(times[0]) - self.max_gap, int(times[-1]) + self.max_gap - 1)
        try:
            numbers = source.numbers()
        except TypeError as error:
            raise TypeError(f"interpolate needs numbers: {error}") from None
        there = ~np.isnan(numbers)
        known, numbers = source.times[there], numbers[there]
        before, after = known.searchsorted(times, "right") - 1, known.searchsorted(times, "left")
        between = (before >= 0) & (after < len(known))
        times, before, after = times[between], before[between], after[between]
        width = known[after] - known[before]
        near = width <= self.max_gap
        times, before, after, width = times[near], before[near], after[near], width[near]
        low, high = numbers[before], numbers[after]
        with np.errstate(all="ignore"):
            share = (times - known[before]) / np.maximum(width, 1)
            # Equal neighbours first: between two infinities there is nothing to interpolate.
            values = np.where(low == high, low, low + (high - low) * share)
        return Batch.build(times, values + 0.0)
