"""Tools on single sensors: what changed, how long it lasted, what cannot be true."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.kinds import Kind
from hs_stream.core.time import Grid, TimeInterval, format_duration
from hs_stream.core.tool import SKIP, Drive, Duration, FoldTool, FromInput, OnGrid, Support, Tool, Window
from hs_stream.core.value import Value
from hs_stream_tools._kinds import Unmeant
from hs_stream_tools._sliding import Floats, Ints
from hs_stream_tools.states import equal

__all__ = ["ChangeDetect", "OutlierFilter", "StateDuration"]

_NUMBERS: Final = (int, float)


@dataclass(frozen=True, kw_only=True)
class ChangeDetect(FoldTool):
    """Only the readings that differ from the one before.

    Output: the reading itself, unchanged, where it is the first or differs from the last one that came out. So what was
    dropped is known: without ``tolerance`` it equals the last output, with it a number is within ``tolerance`` of the
    last output. (Compared with the reading before instead, a slow drift in small steps would never come out.)

    ``tolerance`` >= 0, in the unit of the input: two numbers (bools are none) differ if they are further apart than
    this; exactly this far is no change. Values of any type; ``1`` and ``1.0`` are equal. ``None`` and NaN are missing,
    as if there were no reading.

    >>> tool = ChangeDetect(tolerance=0.5)
    >>> state, values = tool.initial(), []
    >>> for time, value in enumerate([20.0, 20.4, 20.5, 20.6, 20.2]):
    ...     state, result = tool.step(state, time, value)
    ...     values.append(result)
    >>> values
    [20.0, SKIP, SKIP, 20.6, SKIP]
    """

    name = "change_detect"
    version = "1.0.0"
    output_kind = "same"
    output_unit = "same"
    takes = "any"
    samples = ({}, {"tolerance": 0.5})
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if self.tolerance < 0:
            raise ValueError(f"tolerance must not be negative, but is {self.tolerance}")

    def unmeant(self, slot: int, kind: Kind) -> Unmeant:
        """Of what is added or counted each one counts."""
        if kind in ("amount", "event"):
            return f"{self.name} leaves out those that are equal", "read it as it is"
        return None

    def initial(self) -> Value:
        """Nothing came out. A list, as ``None`` inside of a list is no value."""
        return []

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        """The state is ``[value]`` that came out last."""
        if value is None or value != value or (state and self._alike(state[0], value)):
            return state, SKIP
        return [value], value

    def _alike(self, last: Value, value: Value) -> bool:
        if equal(last, value):
            return True
        return type(last) in _NUMBERS and type(value) in _NUMBERS and abs(value - last) <= self.tolerance


@dataclass(frozen=True, kw_only=True)
class StateDuration(FoldTool):
    """How long a value has lasted by now, or had lasted when it ended.

    A value lasts from the first of an unbroken run of readings with it. ``1`` and ``1.0`` are equal; ``None`` and NaN
    are missing: they break no run. ``state``: only this value is of interest, for others the output is 0.0 or none;
    without it any value. ``unit``: the time that the output counts in (default 1s). ``max_gap``: a value is not
    believed for longer than this after its last reading (up to and including it); a run that is broken by silence
    ended at its last reading, and the next reading begins another one. Without it any silence is believed.

    ``tell: running`` (default): float at each reading, how long its value has lasted; 0.0 at the first of a run. With
    ``every`` (``tz``: IANA zone) instead at each grid instant, for the value of the last reading at or before it. That
    comes by silence alone, which a contact that only sends changes needs; it needs ``max_gap``, so that it comes to an
    end. ``tell: ended``: float at the reading that ended a run, how long that had lasted, from its first reading to
    this one.

    Hours in a state per day are another thing: ``expression`` (``value == 'on'``), ``integral`` (``rule: left, unit:
    1h``), ``utility_meter`` (``period: day``).

    >>> tool = StateDuration(state="open", every=60_000, max_gap=3_600_000)
    >>> from hs_stream.core.time import TimeInterval
    >>> list(tool.evaluate(TimeInterval(0, 180_000), [Batch.of([(50_000, "open"), (130_000, "closed")])]))
    [(60000, 10.0), (120000, 70.0), (180000, 0.0)]
    """

    name = "state_duration"
    version = "1.0.0"
    input_kinds = ("state", "sample")
    output_kind = "sample"
    output_unit = "parameter"
    takes = "any"
    ignores = ("",)
    samples = (
        {},
        {"state": True, "tell": "ended", "unit": "1m"},
        {"tell": "ended", "max_gap": "5s"},
        {"state": 1, "max_gap": "1m"},
        {"every": "10s", "max_gap": "1m"},
        {"every": "1d", "tz": "Europe/Brussels", "max_gap": "3d", "state": "a", "unit": "1h"},
    )
    state: Any = None
    tell: Literal["running", "ended"] = "running"
    every: Duration | None = None
    tz: str | None = None
    max_gap: Duration | None = None
    unit: Duration = Duration(1000)

    def __post_init__(self) -> None:
        for name in ("every", "max_gap", "unit"):
            length = getattr(self, name)
            if length is not None and length <= 0:
                raise ValueError(f"{name} must be longer than 0, not {format_duration(length)}")
        if self.every is None:
            if self.tz is not None:
                raise ValueError("tz needs every: it says on whose clock the grid lies")
            return
        if self.max_gap is None:
            raise ValueError("every needs max_gap: how long a value is believed when the sensor is silent")
        if self.tell == "ended":
            raise ValueError("tell: ended is told at readings; take every out")
        Grid(self.every, self.tz)

    def drive(self) -> Drive:
        """The grid, or the input's times."""
        return FromInput(0) if self.every is None else OnGrid(Grid(self.every, self.tz))

    def initial(self) -> Value:
        """``None``: nothing read yet."""
        return None

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        """The state is ``[value, time of its first reading, time of its last reading]``."""
        if value is None or value != value:
            return state, SKIP
        silent = state is not None and self.max_gap is not None and time - state[2] > self.max_gap
        goes_on = state is not None and not silent and equal(state[0], value)
        after = [state[0], state[1], time] if goes_on else [value, time, time]
        if self.every is not None:
            return after, SKIP
        if self.tell == "running":
            return after, self._lasted(after, time)
        if state is None or goes_on or not self._counts(state[0]):
            return after, SKIP
        return after, self._lasted(state, state[2] if silent else time)

    def quiet(self, state: Value, start: int, end: int) -> Iterable[tuple[int, Value]]:
        """How long the last reading's value has lasted, as long as it is believed."""
        if state is None:
            return ()
        assert self.every is not None
        assert self.max_gap is not None
        times = Grid(self.every, self.tz).times(start, min(end, state[2] + self.max_gap))
        return [(time, self._lasted(state, time)) for time in times.tolist()]

    def _counts(self, value: Value) -> bool:
        return self.state is None or equal(self.state, value)

    def _lasted(self, state: list[Value], until: int) -> float:
        return float((until - state[1]) / self.unit) if self._counts(state[0]) else 0.0


_AT_ONCE: Final = 1 << 20
"""How many numbers overlapping windows are copied into at once: bounds the memory, never the result."""
_NORMAL: Final = 1.482602218505602
"""1 / the 0.75 quantile of the normal distribution: of normal numbers, MAD times this estimates the deviation."""


@dataclass(frozen=True, kw_only=True)
class OutlierFilter(Tool):
    """Readings without those that are far from the median around them (Hampel identifier).

    At a reading x at t, over the numbers of ``(t - width, t + ahead]``, x included: m is their median, S is 1.4826
    times the median of their distances from m (MAD). x is an outlier if ``|x - m| > limit * max(S, min_spread)``.
    With fewer than ``least`` numbers in the window nothing is one.

    ``ahead``: default 0s, which judges at once from the past alone; with ``ahead`` equal to ``width`` about centred,
    and told that much later. ``limit``: default 3. ``min_spread`` (in the unit of the input, default 0): where more
    than half of the numbers are equal, S is 0 and any other number would be an outlier. ``outliers``: ``drop``
    (default) has no output there, ``median`` has m, a float. Output otherwise: the reading itself, unchanged.

    Missing values (``None``, NaN) have no output and count nowhere. ``TypeError`` for what is no number.

    F. R. Hampel, The Influence Curve and Its Role in Robust Estimation, J. Am. Stat. Assoc. 69 (1974); as a filter: R.
    K. Pearson, Outliers in Process Modeling and Identification, IEEE Trans. Control Syst. Technol. 10 (2002).

    >>> readings = Batch.of([(1000, 20.1), (2000, 20.3), (3000, 85.0), (4000, 20.2), (5000, 20.4)])
    >>> tool = OutlierFilter(width=60_000, outliers="median")
    >>> [value for _, value in tool.evaluate(TimeInterval(0, 5000), [readings])]
    [20.1, 20.3, 20.3, 20.2, 20.4]
    """

    name = "outlier_filter"
    version = "1.0.0"
    kind = "filter"
    output_kind = "same"
    output_unit = "same"
    takes = "number"
    samples = (
        {"width": "10s"},
        {"width": "10s", "ahead": "10s", "outliers": "median"},
        {"width": "1m", "limit": 0, "min_spread": 0.5, "least": 1},
    )
    width: Duration
    ahead: Duration = Duration(0)
    limit: float = 3.0
    min_spread: float = 0.0
    least: int = 3
    outliers: Literal["drop", "median"] = "drop"

    def __post_init__(self) -> None:
        if self.width <= 0:
            raise ValueError(f"width must be longer than 0, not {format_duration(self.width)}")
        if self.ahead < 0:
            raise ValueError(f"ahead must not be negative, but is {format_duration(self.ahead)}")
        for name in ("limit", "min_spread"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, but is {getattr(self, name)}")
        if self.least < 1:
            raise ValueError(f"least must be at least 1, but is {self.least}")

    def support(self, slot: int) -> Support:
        """``(t - width, t + ahead]``."""
        return Window(self.width, self.ahead)

    def drive(self) -> Drive:
        """The input's times."""
        return FromInput(0)

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """The readings of ``interval``, outliers dropped or replaced."""
        inside = sources[0].slice(interval.start, interval.end)
        if not inside:
            return NOTHING
        around = sources[0].slice(inside.first_time - self.width, inside.last_time + self.ahead)
        try:
            numbers = around.numbers()
        except TypeError as error:
            raise TypeError(f"outlier_filter needs numbers: {error}") from None
        there = ~np.isnan(numbers)
        first = int(around.times.searchsorted(inside.first_time))
        own = np.flatnonzero(there[first : first + len(inside)])
        if not len(own):
            return NOTHING
        kept = inside.take(own)
        times, readings, numbers = around.times[there], numbers[first + own], numbers[there]
        low = times.searchsorted(kept.times - self.width, "right")
        high = times.searchsorted(kept.times + self.ahead, "right")
        with np.errstate(all="ignore"):
            medians, deviations = _medians(numbers, low, high)
            spreads = np.maximum(deviations * _NORMAL, self.min_spread)
            far = (np.abs(readings - medians) > self.limit * spreads) & (high - low >= self.least)
        if self.outliers == "drop" or not far.any():
            return kept.take(np.flatnonzero(~far))
        values = list(kept.plain())
        for at in np.flatnonzero(far).tolist():
            values[at] = float(medians[at])
        return Batch.build(kept.times, values)


def _medians(numbers: Floats, low: Ints, high: Ints) -> tuple[Floats, Floats]:
    """Of each ``numbers[low[i]:high[i]]`` the median, and the median of the distances from it."""
    sizes = high - low
    medians, deviations = np.empty(len(sizes)), np.empty(len(sizes))
    for size in np.unique(sizes).tolist():
        same_size = np.flatnonzero(sizes == size)
        step = max(_AT_ONCE // size, 1)
        for at in range(0, len(same_size), step):
            some = same_size[at : at + step]
            rows = numbers[low[some][:, None] + np.arange(size)]
            medians[some] = middle = np.median(rows, axis=1)
            deviations[some] = np.median(np.abs(rows - middle[:, None]), axis=1)
    # Either of 0.0 and -0.0 may be in the middle.
    return medians + 0.0, deviations
