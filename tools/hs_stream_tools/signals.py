"""Tools on physical quantities: rates, amounts, smoothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from types import NoneType
from typing import Final, Literal

import numpy as np

from hs_stream.core.batch import Batch
from hs_stream.core.kinds import Kind, Meaning
from hs_stream.core.time import Grid, format_duration
from hs_stream.core.tool import SKIP, Drive, Duration, FoldTool, FromInput, OnGrid, PreviousTool
from hs_stream.core.value import Value
from hs_stream_tools._counters import CounterModel, reading
from hs_stream_tools._exact import added, rounded
from hs_stream_tools._kinds import NOT_AN_INTEGRAL, Unmeant, not_a_mean
from hs_stream_tools._per_period import Floats, PerPeriod
from hs_stream_tools._values import number

__all__ = ["Derivative", "Derivative2", "Ewma", "Integral", "IntegralOfState"]

_NUMBERS: Final = frozenset((float, int, NoneType))


def _positive(**durations: int | None) -> None:
    for name, duration in durations.items():
        if duration is not None and duration <= 0:
            raise ValueError(f"{name} must be longer than 0, not {format_duration(duration)}")


@dataclass(frozen=True, kw_only=True)
class Derivative(PreviousTool):
    """Rate of change from the previous reading to this one: ``(v1 - v0) / ((t1 - t0) / unit)``.

    ``unit``: the time that the rate is per (default 1s: kWh become kWh per second; with 1h kW). ``max_gap``: no output
    where the two readings are further apart than this (exactly this far is fine). Output: float at each reading; none
    at the first, nor where this or the previous reading is missing (``None``, NaN). ``TypeError`` for what is no
    number.

    >>> Derivative(unit=3_600_000).combine([(0, 10.0), (1_800_000, 11.5)], 1_800_000)
    3.0
    """

    name = "derivative"
    version = "1.0.0"
    input_kinds = ("state", "sample", "counter")
    output_kind = "sample"
    output_unit = "per time"
    takes = "number"
    samples = ({}, {"unit": "1h"}, {"unit": "1m", "max_gap": "10s"})
    unit: Duration = Duration(1000)
    max_gap: Duration | None = None

    def __post_init__(self) -> None:
        _positive(unit=self.unit, max_gap=self.max_gap)

    def unmeant(self, slot: int, kind: Kind) -> Unmeant:
        """A counter that is reset has no rate here."""
        if kind == "counter":
            return f"{self.name} is negative over a reset", "write derivative@^2 with counter: true"
        return super().unmeant(slot, kind)

    def combine(self, previous: Sequence[tuple[int, Value]], time: int) -> Value:
        """The rate between the two readings, or SKIP."""
        after = number("derivative", previous[-1][1])
        if len(previous) < 2 or after is None:
            return SKIP
        before = number("derivative", previous[0][1])
        elapsed = time - previous[0][0]
        if before is None or (self.max_gap is not None and elapsed > self.max_gap):
            return SKIP
        return (after - before) / (elapsed / self.unit)


@dataclass(frozen=True, kw_only=True)
class Derivative2(CounterModel, FoldTool):
    """Rate of change from the reading before to this one; of a counter, never negative over a reset.

    ``(v1 - v0) / ((t1 - t0) / unit)``. ``unit``: the time that the rate is per (default 1s: kWh become kWh per second;
    with 1h kW). ``max_gap``: no output where the two readings are further apart than this (exactly this far is fine).
    ``timeout``: where no reading follows within so long, the rate is 0 from then on. Silence tells that, once: the flow
    of a gas meter that is sent on change only. The next reading has its rate since the one before all the same.

    ``counter: true``: the readings are those of a counter, and v1 - v0 is what it grew by. A fall to less than
    ``reset`` (a share, default 0.1) of the highest reading is a reset to 0; a smaller one is a dip, a rate of 0, as is
    climbing back. A reset that was a wrong reading is known when the counter comes back within ``glitch`` (default 1d):
    the rate then is that since the reading before the wrong one. ``max_rate``, ``wrap``, ``net``, ``delta`` and
    ``segments`` are as for ``utility_meter``. No output at an increase faster than ``max_rate``, nor at the first
    reading of another device.

    Output: float at each reading but the first; 0.0 at ``timeout`` after a reading whose rate is not 0. Of a counter a
    missing reading (``None``, NaN, an infinity) is as if it were not there; otherwise nothing comes out at it, nor at
    the next one. ``TypeError`` for what is no number.

    >>> tool = Derivative2(unit=3_600_000, counter=True)
    >>> state, _ = tool.step(tool.initial(), 0, 100.0)
    >>> state, rate = tool.step(state, 3_600_000, 0.25)
    >>> rate, tool.step(state, 7_200_000, 0.75)[1]
    (0.25, 0.5)
    """

    name = "derivative"
    version = "2.0.0"
    input_kinds = ("state", "sample", "counter")
    output_kind = "state"
    output_unit = "per time"
    takes = "number"
    samples = (
        {},
        {"unit": "1m", "max_gap": "10s"},
        {"unit": "1h", "counter": True, "reset": 0.5, "glitch": "10s"},
        {"counter": True, "wrap": 64, "max_rate": "2/s", "segments": ["2015-02-04T17:51:00Z"]},
        {"counter": True, "net": True, "max_rate": "2/s"},
        {"counter": True, "delta": True},
        {"timeout": "5s"},
        {"unit": "1h", "counter": True, "reset": 0.5, "glitch": "10s", "timeout": "3s", "max_gap": "20s"},
    )
    unit: Duration = Duration(1000)
    max_gap: Duration | None = None
    timeout: Duration | None = None
    counter: bool = False

    def __post_init__(self) -> None:
        _positive(unit=self.unit, max_gap=self.max_gap, timeout=self.timeout)
        self.check_counter()
        if not self.counter and (self.net or self.delta or self.wrap or self.max_rate is not None or self.segments):
            raise ValueError("net, delta, wrap, max_rate and segments are of a counter: write counter: true with them")

    def drive(self) -> Drive:
        """The input's times; with ``timeout`` any time."""
        return FromInput(0) if self.timeout is None else OnGrid(Grid(1))

    def unmeant(self, slot: int, kind: Kind) -> Unmeant:
        """A counter that is not read as one."""
        if kind == "counter" and not self.counter:
            return f"{self.name} is negative over a reset", "write counter: true"
        return super().unmeant(slot, kind)

    def initial(self) -> Value:
        """``None``: nothing read yet."""
        return None

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        """The state is ``[line, time, sure]``: of the counter, the last reading, and the last one that is no doubt.

        Without a counter the line is the last reading. With ``timeout`` it has a fourth, what is told at ``time``.
        """
        if self.timeout is None:
            return self._advance(state, time, value)
        before = state
        state, rate = self._advance(None if before is None else before[:3], time, value)
        if state is None:
            return None, SKIP
        if before is not None and state[1] == before[1]:
            return before, SKIP
        return [*state, None if rate is SKIP else rate], SKIP

    def quiet(self, state: Value, start: int, end: int) -> Iterable[tuple[int, Value]]:
        """The rate at the last reading, and 0 ``timeout`` after it."""
        if state is None or self.timeout is None:
            return
        _, last, _, rate = state
        if rate is not None and start < last <= end:
            yield last, rate
        if rate != 0 and start < last + self.timeout <= end:
            yield last + self.timeout, 0.0

    def due(self, state: Value, after: int) -> int | None:
        """The last reading, and ``timeout`` after it."""
        if state is None or self.timeout is None:
            return None
        last = int(state[1])
        if after < last:
            return last
        return last + self.timeout if state[3] != 0 and after < last + self.timeout else None

    def _advance(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        found = reading(self.name, value)
        if found is None:
            return state if self.counter else None, SKIP
        if not self.counter:
            if state is None:
                return [found, time, time], SKIP
            return [found, time, time], self._rate(float(found) - float(state[0]), time - state[1])
        if state is None:
            return [self.first(time, found)[0], time, time], SKIP
        line, last, sure = state
        line, step = self.advance(line, time, found)
        if step.void:
            last = sure
        elif step.settled:
            sure = last
        if not step.doubtful:
            sure = time
        if not step.known:
            return [line, time, sure], SKIP
        return [line, time, sure], self._rate(float(rounded(added([], step.terms))), time - last)

    def _rate(self, increase: float, elapsed: int) -> Value:
        if self.max_gap is not None and elapsed > self.max_gap:
            return SKIP
        return increase / (elapsed / self.unit)


@dataclass(frozen=True, kw_only=True)
class Integral(FoldTool):
    """Running total of a rate over time, such as power (W) to energy (kWh), from the first reading on.

    ``unit``: the time that the input is per (W are J per second: ``1s`` gives J, ``1h`` gives Wh). ``scale``: factor
    on the result (0.001: kWh). ``rule``: ``trapezoid`` takes the value to change linearly between two readings;
    ``left`` takes each reading to hold until the next one, which fits a sensor that reports changes. ``max_gap``:
    between two readings further apart than this nothing is added (exactly this far is fine).

    Output: float at each reading, 0.0 at the first. A repeated, unchanged reading counts like any other. A missing
    reading (``None``, NaN) is as if it were not there. ``TypeError`` for what is no number.

    >>> tool = Integral(unit=3_600_000, scale=0.001)
    >>> state, _ = tool.step(tool.initial(), 0, 1000.0)
    >>> tool.step(state, 1_800_000, 3000.0)[1]
    1.0
    """

    name = "integral"
    version = "1.0.0"
    input_kinds = ("state", "sample")
    output_kind = "counter"
    output_unit = "times time"
    takes = "number"
    samples = ({}, {"unit": "1h", "scale": 0.001, "rule": "left"}, {"max_gap": "10s"})
    unit: Duration = Duration(1000)
    rule: Literal["trapezoid", "left"] = "trapezoid"
    scale: float = 1.0
    max_gap: Duration | None = None

    def __post_init__(self) -> None:
        _positive(unit=self.unit, max_gap=self.max_gap)

    def unmeant(self, slot: int, kind: Kind) -> Unmeant:
        """What is a total, or belongs to an interval, already."""
        return NOT_AN_INTEGRAL.get(kind) or super().unmeant(slot, kind)

    def initial(self) -> Value:
        """``None``: nothing read yet."""
        return None

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        """The state is ``[time, value, total]`` of the last reading."""
        reading = number("integral", value)
        if reading is None:
            return state, SKIP
        if state is None:
            return [time, reading, 0.0], 0.0
        last_time, last, total = state
        elapsed = time - last_time
        if self.max_gap is None or elapsed <= self.max_gap:
            height = last if self.rule == "left" else (last + reading) / 2
            total += height * (elapsed / self.unit) * self.scale
        return [time, reading, total], total


@dataclass(frozen=True, kw_only=True)
class IntegralOfState(PerPeriod):
    """What a rate adds up to per period, cut where it ends, such as kWh per day from power (W); or for ever.

    ``unit``: the time that the input is per (W are J per second: ``1s`` gives J, ``1h`` gives Wh). ``scale``: factor
    on the result (0.001: kWh). ``rule: left`` (default): a reading holds until the next one. ``rule: trapezoid``: the
    value changes linearly between two readings; only for a total for ever, as at the end of a period it is not known
    yet.

    ``period``: ``hour``, ``day``, ``week``, ``month``, ``quarter``, ``year`` or a length (``15m``; ``every: 15m`` is
    the same), ``(begin, end]``, on the clock of ``tz`` (IANA zone; without it UTC). ``offset``: how much later a period
    begins: ``month`` with ``14d`` is from the 15th to the 15th. ``week_start``: ``monday`` or another day. Output: a
    float at the end of each period, in silence, also of those without a reading in which something comes. A period
    without a reading in which nothing comes has none; with ``fill: 0`` it is told as 0.0, until ``forget`` (default 7d)
    after the last reading. Without ``period`` and ``every``: the total at each reading, 0.0 at the first.

    ``max_age``: a reading is believed for so long; of what comes later nobody knows (with ``trapezoid`` nothing
    is added between readings that are further apart). Without it a reading holds until the next one, however long that
    takes; periods of less than a day need it. ``missing: ends`` (default): a reading that is unknown (``None``, NaN, an
    infinity, ``unavailable``, ``unknown``) ends what holds; ``missing: keeps``: it is as if it were not there.
    ``TypeError`` for what is no number.

    >>> from hs_stream.core.batch import Batch
    >>> from hs_stream.core.time import TimeInterval
    >>> hour, watts = 3_600_000, Batch.of([(82_800_000, 60.0), (90_000_000, 0.0)])
    >>> tool = IntegralOfState(unit=hour, period="day")
    >>> list(tool.evaluate(TimeInterval(0, 96 * hour), [watts]))
    [(86400000, 60.0), (172800000, 60.0)]
    """

    name = "integral"
    version = "2.0.0"
    input_kinds = ("state", "sample")
    output_kind = "amount"
    output_unit = "times time"
    takes = "number"
    samples = (
        {},
        {"unit": "1h", "scale": 0.001, "missing": "keeps"},
        {"rule": "trapezoid", "max_age": "10s"},
        {"every": "10s", "max_age": "7s"},
        {"period": "5s", "offset": "2s", "max_age": "1m", "fill": 0, "forget": "30s"},
        {"period": "day", "tz": "Europe/Brussels", "unit": "1h", "scale": 0.001},
        {"period": "hour", "tz": "Australia/Lord_Howe", "max_age": "2h", "missing": "keeps"},
        {"period": "month", "tz": "Europe/Brussels", "offset": "14d", "max_age": "3d"},
    )
    unit: Duration = Duration(1000)
    scale: float = 1.0
    rule: Literal["left", "trapezoid"] = "left"

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(unit=self.unit)
        if self.rule == "trapezoid" and self.cells is not None:
            raise ValueError("rule: trapezoid has no periods: what lies between two readings is known at the second")

    def unmeant(self, slot: int, kind: Kind) -> Unmeant:
        """What is a total, or belongs to an interval, already."""
        return NOT_AN_INTEGRAL.get(kind) or super().unmeant(slot, kind)

    def meaning(self, inputs: Sequence[Meaning]) -> Meaning:
        """A total that still runs is a counter."""
        found = super().meaning(inputs)
        return replace(found, kind="counter") if self.cells is None else found

    def rate(self, value: Value) -> float:
        """The number itself; `told` has the units."""
        found = number("integral", value)
        assert found is not None
        return found

    def rates(self, batch: Batch) -> Floats | None:
        """The numbers, if all of them are or are missing."""
        values = batch.values
        if isinstance(values, list):
            if not _NUMBERS.issuperset(map(type, values)):
                return None
            numbers: Floats = np.array(values, np.float64)
        else:
            numbers = values.astype(np.float64)
        numbers[np.isinf(numbers)] = np.nan
        return numbers

    def between(self, before: float, after: Value, elapsed: int, believed: int) -> float:
        """By the rule."""
        if self.rule == "left":
            return super().between(before, after, elapsed, believed)
        return 0.0 if after is None or elapsed > believed else (before + after) / 2 * elapsed

    def told(self, amount: float) -> Value:
        """In units, scaled."""
        return amount / self.unit * self.scale


@dataclass(frozen=True, kw_only=True)
class Ewma(FoldTool):
    """Exponentially weighted moving average that knows how far apart the readings are.

    Give one of ``half_life`` (after which a reading's weight has halved) and ``time_constant`` (after which it is
    1/e; half_life = time_constant * ln 2). At reading x after a time d: ``y = w * y_before + (1 - w) * x`` with
    ``w = exp(-d / time_constant)``; the first y is the first x. This is EMA_next of A. Eckner, Algorithms for Unevenly
    Spaced Time Series: Moving Averages and Other Rolling Operators (2019), and pandas' ``ewm(halflife=..., times=...,
    adjust=False)``.

    Output: float at each reading. A missing reading (``None``, NaN) is as if it were not there. ``TypeError`` for what
    is no number.

    >>> tool = Ewma(half_life=10_000)
    >>> state, _ = tool.step(tool.initial(), 0, 20.0)
    >>> tool.step(state, 10_000, 30.0)[1]
    25.0
    """

    name = "ewma"
    version = "1.0.0"
    output_kind = "same"
    output_unit = "same"
    takes = "number"
    samples = ({"half_life": "10s"}, {"time_constant": "1m"})
    half_life: Duration | None = None
    time_constant: Duration | None = None

    def __post_init__(self) -> None:
        if (self.half_life is None) == (self.time_constant is None):
            raise ValueError("give one of half_life and time_constant")
        _positive(half_life=self.half_life, time_constant=self.time_constant)

    def unmeant(self, slot: int, kind: Kind) -> Unmeant:
        """A counter has no mean that says anything."""
        return not_a_mean(self.name, kind, None)

    def initial(self) -> Value:
        """``None``: nothing read yet."""
        return None

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        """The state is ``[time, average]`` of the last reading."""
        reading = number("ewma", value)
        if reading is None:
            return state, SKIP
        if state is None:
            return [time, reading], reading
        last_time, average = state
        elapsed = time - last_time
        if self.half_life is not None:
            weight = 0.5 ** (elapsed / self.half_life)
        else:
            assert self.time_constant is not None
            weight = math.exp(-elapsed / self.time_constant)
        average = weight * average + (1.0 - weight) * reading
        return [time, average], average
