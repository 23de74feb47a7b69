"""Tools on meters: counters that only grow, until they are reset or replaced."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Final, Literal

from hs_stream.core.calendar import Cells, Period, Weekday
from hs_stream.core.kinds import Kind, Meaning
from hs_stream.core.time import MAX_TIME, Grid, format_duration, from_ms, to_ms, zone
from hs_stream.core.tool import SKIP, Drive, Duration, FoldTool, FromInput, OnGrid, Prefix, Support
from hs_stream.core.value import Value
from hs_stream_tools._counters import CounterModel, Step, reading
from hs_stream_tools._exact import Number, Sum, added, empty, negative, rounded, together
from hs_stream_tools._kinds import Unmeant, not_a_counter, of_window
from hs_stream_tools._values import number

__all__ = ["Increase", "UtilityMeter", "UtilityMeter2"]

_DAY: Final = 86_400_000
_MONDAY: Final = 4 * _DAY
"""1970-01-05 was a Monday."""
_MOST_CELLS: Final = 10_000


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
    input_kinds = ("counter",)
    output_kind = "amount"
    output_unit = "same"
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

    def unmeant(self, slot: int, kind: Kind) -> Unmeant:
        """Anything but a counter."""
        return not_a_counter(self.name, kind)

    def meaning(self, inputs: Sequence[Meaning]) -> Meaning:
        """A total that still runs is a counter."""
        found = super().meaning(inputs)
        return replace(found, kind="counter") if self.running else found

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


@dataclass(frozen=True, kw_only=True)
class UtilityMeter2(CounterModel, FoldTool):
    """Consumption per period, such as kWh per local day or per bill, from a counter; or for ever.

    ``period``: ``hour``, ``day``, ``week``, ``month``, ``quarter``, ``year``, a length (``15m``; ``every: 15m`` is the
    same), or ``none`` for a total for ever. ``tz``: IANA zone on whose clock periods begin and end, such as
    ``Europe/Brussels``; without it UTC. ``offset``: how much later than the period itself it begins, on that clock:
    ``month`` with ``14d`` is a bill from the 15th to the 15th, ``day`` with ``9h`` a day from 09:00 to 09:00.
    ``week_start``: ``monday`` or another day. A period is ``(begin, end]``: a reading at exactly midnight is the last
    of the day that ends. For days on which the clock changes see `hs_stream.core.calendar`.

    From one reading to the next the counter's increase is consumption. ``split: later``: of the period that the *later*
    reading lies in. ``split: linear``: of the periods between them, in proportion to time. Either way periods add up to
    what the counter grew by. The very first reading only says where the counter stands.

    Output: at the end of each period with a reading in it what it consumed, as soon as silence tells that it is over; a
    late reading revises it. A period without a reading that lies between two readings is told when the later one has
    come: 0, or with ``split: linear`` its share; the period of the earlier one is then told anew with its share. That
    is so for readings at most ``forget`` (default 7d) apart: an increase over a longer gap is of the later reading,
    and nothing is told of the periods in between. With ``fill: 0`` periods without a reading are told in silence too,
    as 0, until ``forget`` after the last reading.

    With ``running: true`` (always for ``period: none``) the output is at each reading instead: what its period has
    consumed so far; then ``fill: 0`` tells 0 as a period begins (a millisecond later where a reading is at exactly that
    time).

    What the counter grew by from one reading to the next:

    - ``reset`` (a share, default 0.1): a fall to less than that share of the highest reading is a reset to 0, and what
      the counter shows is the increase. A smaller fall is a dip, which counts nothing, and climbing back from it does
      not either. With 0 every fall is a dip, with 1 every one is a reset.
    - ``glitch`` (default 1d): for so long after a reset a reading at 1 - ``reset`` of the old base or above tells that
      it was none, but a wrong reading (a 0 that a gateway made up): consumption goes on from the old base. Where a
      period has ended with such a reading, it is told anew; where it had told of several, the one in which the counter
      comes back is less by what was counted of them, so that periods still add up. A counter that climbs so far from 0
      in a single step, and is meant to, such as one of single charges of a car, needs ``glitch: 0s``.
    - ``max_rate`` (per hour, or ``5/min``): an increase that is faster, from when the base was first reached, is none,
      but another meter or a wrong reading (exactly so fast is fine). For ``glitch`` long, a fall to nearer the old base
      tells that it was wrong.
    - ``wrap``: the register begins at 0 again at this value. A fall by more than half of it goes on over the end, if
      the counter was in the last tenth (with ``reset: 0`` wherever it was).
    - ``net: true``: every difference counts with its sign: a meter that also runs backwards.
    - ``delta: true``: readings are increments, each counts with its sign, the first one too.
    - ``segments``: times with offset (``2026-03-01T10:00:00+01:00``) at which the device was replaced: the first
      reading at or after each only says where the new one stands.

    Sums are exact and rounded once; integers as long as all readings are. A missing reading (``None``, NaN, an
    infinity) is as if it were not there. ``TypeError`` for what is no number.

    >>> from hs_stream.core.batch import Batch
    >>> from hs_stream.core.time import TimeInterval
    >>> counter = Batch.of([(50_000, 7.0), (60_000, 9.0), (61_000, 0.0), (70_000, 9.5), (190_000, 12.5)])
    >>> list(UtilityMeter2(period=60_000).evaluate(TimeInterval(0, 300_000), [counter]))
    [(60000, 2.0), (120000, 0.5), (180000, 0.0), (240000, 3.0)]
    >>> list(UtilityMeter2(period=60_000, split="linear").evaluate(TimeInterval(0, 300_000), [counter]))
    [(60000, 2.0), (120000, 1.75), (180000, 1.5), (240000, 0.25)]
    """

    name = "utility_meter"
    version = "2.0.0"
    input_kinds = ("counter",)
    output_kind = "amount"
    output_unit = "same"
    takes = "number"
    samples = (
        {"every": "10s", "reset": 0.5, "glitch": "20s"},
        {"period": "5s", "split": "linear", "reset": 0.5, "glitch": "20s", "forget": "30s"},
        {"period": "10s", "split": "linear", "fill": 0, "forget": "1m", "max_rate": "2/s", "reset": 0.9},
        {"period": "1m", "split": "linear", "running": True, "delta": True},
        {"period": "10s", "fill": 0, "forget": "1m", "max_rate": "2/s", "reset": 0.9, "glitch": "3s"},
        {"period": "5s", "reset": 1, "wrap": 64, "offset": "2s", "glitch": "0s"},
        {"period": "1m", "running": True, "net": True, "max_rate": "1/min"},
        {"period": "day", "tz": "Europe/Brussels", "offset": "9h", "running": True, "delta": True},
        {"period": "hour", "tz": "Australia/Lord_Howe", "fill": 0, "forget": "1d", "max_rate": 1000.0},
        {"period": "1m", "fill": 0, "forget": "5m", "running": True, "glitch": "20s"},
        {"period": "week", "week_start": "sunday", "tz": "America/New_York", "segments": ["2015-02-04T17:51:00Z"]},
        {"period": "month", "tz": "Europe/Brussels", "offset": "14d"},
        {"period": "quarter", "fill": 0, "forget": "1000d"},
        {"period": "year", "reset": 0},
        {"period": "none", "segments": ["2015-02-04T17:51:00Z", "2015-02-04T17:51:10Z"]},
    )
    period: Period | Literal["none"] | Duration | None = None
    every: Duration | None = None
    tz: str | None = None
    offset: Duration = Duration(0)
    week_start: Weekday = "monday"
    running: bool = False
    split: Literal["later", "linear"] = "later"
    fill: Literal[0] | None = None
    forget: Duration = Duration(7 * _DAY)

    def __post_init__(self) -> None:
        if (self.period is None) == (self.every is None):
            raise ValueError("give one of period and every")
        if self.forget <= 0:
            raise ValueError(f"forget must be longer than 0, not {format_duration(self.forget)}")
        if self.period == "none":
            given = self.tz, self.offset, self.week_start, self.fill, self.split
            if given != (None, 0, "monday", None, "later"):
                raise ValueError("period: none has no periods: give no tz, offset, week_start, fill and split with it")
        self.cells  # noqa: B018 - looks the zone up now, so that a wrong one is found before the first reading
        self.check_counter()

    def unmeant(self, slot: int, kind: Kind) -> Unmeant:
        """Anything but a counter, or with ``delta`` an amount."""
        if not self.delta:
            return not_a_counter(self.name, kind)
        return None if kind == "amount" else (f"{self.name} with delta: true reads amounts", "remove delta: true")

    def meaning(self, inputs: Sequence[Meaning]) -> Meaning:
        """A total that still runs is a counter."""
        found = super().meaning(inputs)
        return replace(found, kind="counter") if self.running or self.period == "none" else found

    @cached_property
    def cells(self) -> Cells | None:
        """The periods; ``None`` for one that never ends."""
        length = self.every if self.period is None else self.period
        assert length is not None
        if length == "none":
            return None
        return Cells.of(length, tz=self.tz, offset=self.offset, week_start=self.week_start)

    @cached_property
    def _looks_on(self) -> bool:
        """Whether what a period consumed may depend on the next reading after its end."""
        return self.cells is not None and not self.running and (self.fill is None or self.split == "linear")

    def support(self, slot: int) -> Support:
        """Everything up to t, and the next reading where it tells more of a period that ended before it."""
        return Prefix(after=int(self._looks_on))

    def drive(self) -> Drive:
        """The ends of the periods; the input's times; or any time, where both matter."""
        if self.cells is None or (self.running and self.fill is None):
            return FromInput(0)
        return OnGrid(Grid(1) if self.running else self.cells)

    def initial(self) -> Value:
        """``None``: nothing read yet."""
        return None

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        """The state is ``[line, time, end, sure, doubtful, since]``.

        ``line`` is that of the counter, ``time`` the last reading, ``end`` that of its period. ``sure`` and
        ``doubtful`` are what the period has consumed so far. What was told of earlier periods and may be void is taken
        off ``sure``, so that their sum is what it consumed, and less if that turns out to be void. What comes next is
        spread from ``since`` on: the last reading, or the last end of a period that was told since then.
        """
        found = reading(self.name, value)
        if found is None:
            return self._silent(state, time), SKIP
        if state is None:
            line, step = self.first(time, found)
            kind: Sum = 0 if isinstance(found, int) and self.split == "later" else []
            return self._told([line, time, self._end(time), *_grown(kind, kind, step), time])
        line, _, end, sure, doubtful, since = state
        line, step = self.advance(line, time, found)
        if isinstance(found, float):
            sure, doubtful = together(sure, []), together(doubtful, [])
        if time > end:
            assert self.cells is not None
            anew = self._looks_on and since == state[1] < end
            sure = empty(sure) if step.void and anew else negative(doubtful)
            if spread := self._spread(state, time, step):
                begin = max(self.cells.begin(time), since)
                if step.doubtful:
                    sure = added(sure, [-spread * (begin - since)])
                else:
                    step = step._replace(terms=(spread * (time - begin),))
            end = self._end(time)
        return self._told([line, time, end, *_grown(sure, doubtful, step), time])

    def _silent(self, state: Value, time: int) -> Value:
        """What ended before a reading that says nothing has been told, and nothing that comes later is of it."""
        if state is None or self.cells is None or time < state[2]:
            return state
        return [*state[:5], max(state[5], self.cells.begin(time + 1))]

    def _spread(self, state: list[Value], time: int, step: Step) -> float:
        """How much of the increase is of each millisecond before ``time``; 0 where all of it is of ``time`` itself."""
        _, last, _, _, _, since = state
        if self.split == "later" or time - last > self.forget or not step.terms:
            return 0.0
        return float(rounded(added([], step.terms)) / (time - since))

    def _end(self, time: int) -> int:
        return MAX_TIME if self.cells is None else self.cells.end(time)

    def _told(self, state: list[Value]) -> tuple[Value, Value]:
        return state, _so_far(state) if self.cells is None or (self.running and self.fill is None) else SKIP

    def before_next(
        self, state: Value, start: int, end: int, following: tuple[int, Value]
    ) -> Iterable[tuple[int, Value]]:
        """As `quiet`, and what the next reading says of the periods that ended before it."""
        time, value = following
        found = _number_or_none(value)
        if state is None or self.cells is None or found is None:
            yield from self.quiet(state, start, end)
            return
        line, last, ends, sure, doubtful, since = state
        _, step = self.advance(line, time, found)
        spread = self._spread(state, time, step)
        consumed = sure if step.void else together(sure, doubtful)
        if isinstance(found, float):
            consumed = together(consumed, [])
        until = end if time - last <= self.forget else ends if self.fill is None else min(end, last + self.forget)
        for told in self.cells.times(start, min(end, until)).tolist():
            share = [spread * (told - max(self.cells.begin(told), since))] if spread and told > since else []
            yield told, rounded(added(consumed if told == ends else empty(consumed), share))

    def quiet(self, state: Value, start: int, end: int) -> Iterable[tuple[int, Value]]:
        """What the period of the last reading consumed, at its end, and 0 for those after it."""
        if state is None or self.cells is None:
            return
        _, last, ends, _, _, _ = state
        if self.running and start < last <= end:
            yield last, _so_far(state)
        elif not self.running and start < ends <= end:
            yield ends, _so_far(state)
        if self.fill is None:
            return
        first = max(start, ends) if not self.running else max(start, ends) - 1
        for time in self.cells.times(first, min(end, last + self.forget)).tolist():
            told = time + 1 if time == last else time
            if start < told <= end:
                yield told, rounded(empty(state[3]))

    def due(self, state: Value, after: int) -> int | None:
        """The last reading where it is running, the end of its period, and with ``fill`` ends until ``forget``."""
        if state is None or self.cells is None:
            return None
        _, last, end, _, _, _ = state
        if self.running and after < last:
            return int(last)
        if after < end:
            return int(end + 1 if self.running and end == last else end)
        if self.fill is None:
            return None
        if self.running and after == end == last:
            return int(end + 1)
        found = self.cells.next(after)
        return found if found <= last + self.forget else None


def _grown(sure: Sum, doubtful: Sum, step: Step) -> tuple[Sum, Sum]:
    """Both with what a reading says."""
    if step.void:
        doubtful = empty(doubtful)
    elif step.settled:
        sure, doubtful = together(sure, doubtful), empty(doubtful)
    if step.doubtful:
        return sure, added(doubtful, step.terms)
    return added(sure, step.terms), doubtful


def _number_or_none(value: Value) -> Number | None:
    """As `reading`; what is no number fails at its own time, and says nothing of the time before."""
    try:
        return reading("utility_meter", value)
    except TypeError:
        return None


def _so_far(state: list[Value]) -> Number:
    return rounded(together(state[3], state[4]))


@dataclass(frozen=True, kw_only=True)
class Increase(CounterModel, FoldTool):
    """What a counter grew by in the time before now, such as the kWh of the last 24 hours at each full hour.

    Output at each grid instant t (``every``): what the readings in ``(t - width, t]`` add to those before them, 0 where
    that is nothing. ``width``: a multiple of ``every``, at most 10,000 times that. There is no output where no reading
    lies in the window: of a counter that is silent for longer nobody knows. Nor is there one before the first reading.

    Parameters of the counter (``reset``, ``glitch``, ``net``, ``delta``, ``wrap``, ``max_rate``, ``segments``), exact
    sums and missing readings are as for ``utility_meter``. What turns out to be a wrong reading is taken out of the
    windows to come.

    >>> from hs_stream.core.batch import Batch
    >>> from hs_stream.core.time import TimeInterval
    >>> counter = Batch.of([(5_000, 7.0), (12_000, 9.0), (18_000, 0.5), (32_000, 1.0)])
    >>> list(Increase(width=20_000, every=10_000).evaluate(TimeInterval(0, 60_000), [counter]))
    [(10000, 0.0), (20000, 2.5), (30000, 2.5), (40000, 0.5), (50000, 0.5)]
    """

    name = "increase"
    version = "1.0.0"
    input_kinds = ("counter",)
    output_kind = "amount"
    output_unit = "same"
    takes = "number"
    samples = (
        {"width": "1m", "every": "10s", "reset": 0.5, "glitch": "20s"},
        {"width": "5s", "every": "5s", "max_rate": "2/s", "reset": 0.9, "glitch": "3s"},
        {"width": "1h", "every": "15m", "wrap": 64, "segments": ["2015-02-04T17:51:00Z"]},
        {"width": "20s", "every": "2s", "net": True},
        {"width": "20s", "every": "2s", "delta": True},
    )
    width: Duration
    every: Duration

    def __post_init__(self) -> None:
        if self.every <= 0:
            raise ValueError(f"every must be longer than 0, not {format_duration(self.every)}")
        if not 1 <= self.width / self.every <= _MOST_CELLS or self.width % self.every:
            raise ValueError(
                f"width must be a multiple of every ({format_duration(self.every)}), at most {_MOST_CELLS} times that, "
                f"not {format_duration(self.width)}"
            )
        self.check_counter()

    def unmeant(self, slot: int, kind: Kind) -> Unmeant:
        """Anything but a counter, or with ``delta`` an amount."""
        if not self.delta:
            return not_a_counter(self.name, kind)
        return None if kind == "amount" else (f"{self.name} with delta: true reads amounts", "remove delta: true")

    def meaning(self, inputs: Sequence[Meaning]) -> Meaning:
        """Windows that overlap, or leave time out, have no amounts to add."""
        return replace(super().meaning(inputs), kind=of_window(self))

    def drive(self) -> Drive:
        """The grid."""
        return OnGrid(Grid(self.every))

    def initial(self) -> Value:
        """``None``: nothing read yet."""
        return None

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        """The state is ``[line, time, sure, doubtful, nothing]``: of the counter, the last reading, and 0.

        ``sure`` and ``doubtful`` are ``[t, sum]`` for each grid instant t that a window to come may hold: what the
        counter grew by since the grid instant before.
        """
        found = reading(self.name, value)
        if found is None:
            return state, SKIP
        if state is None:
            line, step = self.first(time, found)
            state = [line, time, [], [], 0]
        else:
            line, step = self.advance(state[0], time, found)
        _, _, sure, doubtful, nothing = state
        if isinstance(found, float):
            nothing = []
        if step.void:
            doubtful = []
        elif step.settled:
            sure, doubtful = _joined(sure, doubtful), []
        sure, doubtful = ([cell for cell in cells if cell[0] > time - self.width] for cells in (sure, doubtful))
        if step.terms:
            grown = [[Grid(self.every).next(time - 1), added(nothing, step.terms)]]
            sure, doubtful = (sure, _joined(doubtful, grown)) if step.doubtful else (_joined(sure, grown), doubtful)
        return [line, time, sure, doubtful, nothing], SKIP

    def quiet(self, state: Value, start: int, end: int) -> Iterable[tuple[int, Value]]:
        """What lies in the window, as long as the last reading does."""
        if state is None:
            return
        _, last, sure, doubtful, nothing = state
        for time in Grid(self.every).times(start, min(end, last + self.width - 1)).tolist():
            total = nothing
            for cell, grown in (*sure, *doubtful):
                if cell > time - self.width:
                    total = together(total, grown)
            yield time, rounded(total)

    def due(self, state: Value, after: int) -> int | None:
        """The next grid instant, as long as the last reading lies in its window."""
        found = Grid(self.every).next(after)
        return found if state is not None and found < state[1] + self.width else None


def _joined(cells: list[list[Value]], others: list[list[Value]]) -> list[list[Value]]:
    """Both, ascending; ``others`` begin where ``cells`` end, or later."""
    if cells and others and cells[-1][0] == others[0][0]:
        return [*cells[:-1], [cells[-1][0], together(cells[-1][1], others[0][1])], *others[1:]]
    return [*cells, *others]
