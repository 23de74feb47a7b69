"""How much of what lasts falls into each period: cut where the period ends, told in silence.

1. A reading says how much comes per time from then on, and holds as `hs_stream_tools._lasting` says.
2. A period is a cell of the calendar, ``(begin, end]`` (`hs_stream.core.calendar`). What holds is cut at its end.
3. A period has an output when something in it is known: a reading, or time in which more than nothing comes. One that
   nobody speaks of and in which nothing comes has none, unless ``fill: 0`` asks for it.
4. Sums are Neumaier's: what plain addition loses is kept beside the sum.
5. Many readings of one period are added in the same order as one by one, so that the sums are the same, bit for bit.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from hs_stream.core.batch import Batch
from hs_stream.core.calendar import Cells, Period, Weekday
from hs_stream.core.time import MAX_TIME, format_duration
from hs_stream.core.tool import SKIP, Drive, Duration, FoldTool, FromInput, OnGrid
from hs_stream.core.value import Value
from hs_stream_tools._lasting import UNKNOWN, Missing, check_age, unknown

__all__ = ["Floats", "PerPeriod"]

_DAY: Final = 86_400_000
_MANY: Final = 16
"""From so many readings on arrays are faster."""

Floats = npt.NDArray[np.float64]


def _plus(total: float, rest: float, term: float) -> tuple[float, float]:
    """``total + rest + term``, as a sum and what it lost."""
    found = total + term
    lost = (total - found) + term if abs(total) >= abs(term) else (term - found) + total
    return found, rest + lost


def _plus_all(total: float, rest: float, terms: Floats) -> tuple[float, float]:
    """`_plus` of one after the other."""
    with np.errstate(all="ignore"):
        found = np.add.accumulate(np.concatenate(([total], terms)))
        before, after = found[:-1], found[1:]
        lost = np.where(np.abs(before) >= np.abs(terms), (before - after) + terms, (terms - after) + before)
        return float(found[-1]), float(np.add.accumulate(np.concatenate(([rest], lost)))[-1])


@dataclass(frozen=True, kw_only=True)
class PerPeriod(FoldTool):
    """A fold over what comes per time. Its author writes `rate`, and what a unit of it is in `told`.

    The state is ``None`` or ``[rate, time, total, rest, end, known]``: of the last reading (``None``: unknown), and of
    the period that it lies in up to it (``end``: where that ends; ``known``: whether it will have an output).
    """

    period: Period | Duration | None = None
    every: Duration | None = None
    tz: str | None = None
    offset: Duration = Duration(0)
    week_start: Weekday = "monday"
    max_age: Duration | None = None
    missing: Missing = "ends"
    fill: Literal[0] | None = None
    forget: Duration = Duration(7 * _DAY)

    def __post_init__(self) -> None:
        check_age(self.max_age)
        if self.period is not None and self.every is not None:
            raise ValueError("give one of period and every")
        if self.forget <= 0:
            raise ValueError(f"forget must be longer than 0, not {format_duration(self.forget)}")
        cells = self.cells
        if cells is None:
            if self.tz is not None or self.offset or self.fill is not None or self.week_start != "monday":
                raise ValueError("tz, offset, week_start and fill are for periods: give period or every with them")
        elif self.max_age is None and cells.every < _DAY:
            raise ValueError("periods of less than a day need max_age: how long is a reading believed in silence?")

    @cached_property
    def cells(self) -> Cells | None:
        """The periods; ``None`` for one that never ends."""
        length = self.every if self.period is None else self.period
        if length is None:
            return None
        return Cells.of(length, tz=self.tz, offset=self.offset, week_start=self.week_start)

    @abstractmethod
    def rate(self, value: Value) -> float:
        """How much comes per millisecond while ``value``, which is known, holds."""

    @abstractmethod
    def told(self, amount: float) -> Value:
        """The output for what came."""

    def means(self, value: Value) -> Value:
        """The rate, or `UNKNOWN`."""
        if unknown(value):
            return UNKNOWN
        found = self.rate(value)
        return UNKNOWN if math.isinf(found) else found

    def between(self, before: float, after: Value, elapsed: int, believed: int) -> float:
        """What came in ``elapsed`` from one reading to the next, of which the first is believed for ``believed``."""
        return before * min(elapsed, believed)

    def rates(self, batch: Batch) -> Floats | None:
        """`means` of each value, NaN for `UNKNOWN`; ``None`` where they are looked at one by one.

        Override it, for values that numpy has, where `between` is as it is here.
        """
        return None

    def drive(self) -> Drive:
        """The ends of the periods, or the input's times."""
        return FromInput(0) if self.cells is None else OnGrid(self.cells)

    def initial(self) -> Value:
        """``None``: nothing read yet."""
        return None

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        """What held until now is cut at the begin of this period."""
        rate = self.means(value)
        if rate is UNKNOWN and (state is None or self.missing == "keeps"):
            return state, SKIP
        is_known = rate is not UNKNOWN
        kept = rate if is_known else None
        if state is None:
            total, rest, end, known = 0.0, 0.0, self._end(time), True
        else:
            before, since, total, rest, end, known = state
            believed = MAX_TIME if self.max_age is None else self.max_age
            known = known or is_known
            if time > end:
                assert self.cells is not None
                begin, end = self.cells.begin(time), self.cells.end(time)
                total = rest = 0.0
                believed, since = max(believed - (begin - since), 0), begin
                known = is_known or self.fill is not None or (bool(before) and believed > 0)
            if before is not None:
                total, rest = _plus(total, rest, self.between(before, kept, time - since, believed))
        after = [kept, time, total, rest, end, known]
        return after, self.told(total + rest) if self.cells is None and is_known else SKIP

    def steps(self, state: Value, batch: Batch) -> Value:
        """Many readings of one period (rule 5)."""
        rates = self.rates(batch) if len(batch) >= _MANY else None
        if rates is None:
            return super().steps(state, batch)
        known = ~np.isnan(rates)
        if state is None or state[4] < batch.last_time:
            # Up to the first that says something, which begins the period.
            first = int(known.argmax()) + 1 if state is None or self.missing == "keeps" else 1
            state = super().steps(state, batch.slice_index(0, first))
            batch, rates, known = batch.slice_index(first, len(batch)), rates[first:], known[first:]
        times = batch.times
        if self.missing == "keeps":
            times, rates, known = times[known], rates[known], known[known]
        if state is None or not len(times):
            return state
        rate, since, total, rest, end, told = state
        before = np.concatenate(([np.nan if rate is None else rate], rates[:-1]))
        lasted = np.diff(times, prepend=since)
        if self.max_age is not None:
            lasted = np.minimum(lasted, self.max_age)
        held = ~np.isnan(before)
        with np.errstate(all="ignore"):
            total, rest = _plus_all(total, rest, before[held] * lasted[held])
        kept = float(rates[-1]) if known[-1] else None
        return [kept, int(times[-1]), total, rest, end, told or bool(known.any())]

    def _end(self, time: int) -> int:
        return MAX_TIME if self.cells is None else self.cells.end(time)

    def quiet(self, state: Value, start: int, end: int) -> Iterator[tuple[int, Value]]:
        """The period of the last reading, and those after it for as long as something comes or is filled."""
        if state is None or self.cells is None:
            return
        rate, time, total, rest, begin, known = state
        until = self._until(rate, time)
        if start < begin <= end and known:
            if rate is not None:
                total, rest = _plus(total, rest, rate * (min(begin, until) - time))
            yield begin, self.told(total + rest)
        last = min(end, max(self._last_of(until), self._last_filled(time)))
        ends = self.cells.times(max(start, begin), last).tolist() if max(start, begin) < last else []
        begin = self.cells.begin(ends[0]) if ends else begin
        for one in ends:
            if begin < until and rate is not None and rate != 0.0:
                yield one, self.told(rate * (min(one, until) - begin))
            elif self.fill is not None and one <= time + self.forget:
                yield one, self.told(0.0)
            begin = one

    def _until(self, rate: float | None, time: int) -> int:
        """Until when more than nothing comes, if nobody says otherwise."""
        if not rate:
            return time
        return MAX_TIME if self.max_age is None else time + self.max_age

    def _last_of(self, until: int) -> int:
        """The end of the period in which it ends."""
        assert self.cells is not None
        return until if until >= MAX_TIME else self.cells.end(until)

    def _last_filled(self, time: int) -> int:
        return time if self.fill is None else time + self.forget

    def due(self, state: Value, after: int) -> int | None:
        """The end of the next period that may have an output."""
        if state is None or self.cells is None:
            return None
        rate, time, _, _, end, known = state
        if after < end and known:
            return int(end)
        found = self.cells.next(max(after, end))
        return found if found <= max(self._last_of(self._until(rate, time)), self._last_filled(time)) else None
