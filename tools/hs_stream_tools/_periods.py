"""Windows that end at readings, on a grid, or with the cells of a calendar; and what held as they began.

1. A window is ``(begin, end]``; with ``closed: left`` it is ``[begin, end)``. Of a ``period`` it is a cell of the
   calendar (`hs_stream.core.calendar`), over every change of clock; else ``width`` is how long it is, always.
2. Its output stands at its end, or with ``label: start`` at its begin.
3. The result for a window is a function of its begin and end, of its own readings, and of the one that held as it
   began, bit for bit. Sums are rounded once (`hs_stream_tools._exact_sums`).
4. What holds as a window begins was read before it, and has not ended by then: by another reading, by one that is
   unknown (``missing: ends``), or by its age (``max_age``). Without ``max_age``, a window without a reading has an
   output as soon as a later reading proves that it lasted; with it, silence is enough.
5. The bounds of a `Window` support are those of the longest cell. What is read besides changes nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.calendar import Cells, Period, Weekday
from hs_stream.core.time import MAX_TIME, TimeInterval, format_duration
from hs_stream.core.tool import Drive, Duration, FromInput, OnGrid, Support, Window, batch_of, grid_times_near
from hs_stream.core.value import Value
from hs_stream_tools._sliding import UNSURE, Floats, Ints
from hs_stream_tools._zones import Zoned

__all__ = ["SAMPLES", "SOME", "Fills", "Holds", "InPeriods", "Kept", "Periods", "Spans", "plain_at", "unknown"]

SAMPLES: Final[tuple[dict[str, Any], ...]] = (
    {"width": "10s"},
    {"width": "60s", "every": "10s", "closed": "left"},
    {"width": "2s", "every": "5s", "label": "start", "partial": "drop"},
    {"period": "day", "tz": "Europe/Brussels"},
    {"period": "6h", "tz": "Australia/Lord_Howe", "label": "start", "closed": "left"},
    {"period": "month", "offset": "14d", "tz": {"house": {"1": "America/New_York"}, "default": "Europe/Brussels"}},
)
SOME: Final = (SAMPLES[1], SAMPLES[4], SAMPLES[5])
"""For tools that share what the others check."""
_WORDS: Final = ("unavailable", "unknown")
_FEW: Final = 64
"""So many instants of a grid are looked at one by one, wherever there are instances."""
_QUICK: Final = 8
"""So many windows are computed one at a time, where that is quicker."""
_EXACT: Final = 1 << 53
"""Whole numbers below this are floats, exactly, and no others become one of them."""


class Spans(NamedTuple):
    """Windows: where their outputs stand, from when to when they are, and which instances lie in each."""

    times: Ints
    begins: Ints
    ends: Ints
    low: Ints
    high: Ints

    def some(self, chosen: npt.NDArray[np.bool_]) -> Spans:
        """Those that are chosen."""
        return self if chosen.all() else Spans(*(column[chosen] for column in self))


@dataclass(frozen=True, kw_only=True)
class Periods(Zoned):
    """The parameters that say which windows, and when there are outputs."""

    samples: ClassVar[Sequence[Mapping[str, Any]]] = SAMPLES
    width: Duration | None = None
    every: Duration | None = None
    tz: Any = None
    period: Period | Duration | None = None
    offset: Duration = Duration(0)
    week_start: Weekday = "monday"
    closed: Literal["right", "left"] = "right"
    label: Literal["end", "start"] = "end"
    partial: Literal["keep", "drop"] = "keep"

    def __post_init__(self) -> None:
        if (self.width is None) == (self.period is None):
            raise ValueError("give one of width (a duration) and period (a cell of the calendar)")
        for name in ("width", "every"):
            length = getattr(self, name)
            if length is not None and length <= 0:
                raise ValueError(f"{name} must be longer than 0, not {format_duration(length)}")
        if self.period is not None and self.every is not None:
            raise ValueError("a period says itself how often it ends: every is for width")
        if self.period is None and (self.offset or self.week_start != "monday"):
            raise ValueError("offset and week_start need period: they say when it begins")
        if self.width is not None and self.every is None:
            if self.tz is not None:
                raise ValueError("tz needs period or every: it says on whose clock they lie")
            if self.label == "start":
                raise ValueError("label: start needs period or every: at a reading, a window ends")
        self.check_tz()
        self.grid  # noqa: B018 - so that what is wrong is found before the first reading

    @cached_property
    def grid(self) -> Cells | None:
        """The cells of the period, or the grid of ``every``; ``None`` for the input's own times."""
        length = self.every if self.period is None else self.period
        if length is None:
            return None
        return Cells.of(length, tz=self.local_zone, offset=self.offset, week_start=self.week_start)


@dataclass(frozen=True, kw_only=True)
class InPeriods(Periods):
    """One input; a function of each window's instances, and of what held as it began. Subclasses write `results`."""

    kind = "window"

    @property
    def _longest(self) -> int:
        """A bound of how long a window is."""
        if self.width is not None:
            return self.width
        assert self.grid is not None
        return self.grid.longest

    @property
    def held_for(self) -> int | None:
        """For how long a reading before a window matters to it: 0 for not at all, ``None`` for ever."""
        return 0

    @property
    def told_for(self) -> int:
        """For how long after the last reading a window has an output."""
        return 0

    def support(self, slot: int) -> Support:
        """The window, or a bound of it; what held as it began; for ``partial: drop`` whether there is anything."""
        left, held = int(self.closed == "left"), self.held_for
        back, ahead = self._longest + left, 0
        if self.label == "start":
            back, ahead = left, self._longest - left
        if held:
            back = max(back, held if self.label == "start" else self._longest + held)
        if self.told_for:
            back = max(back, self.told_for + 1)
        before = int(held is None or self.partial == "drop")
        return Window(back, ahead, before=before, after=int(held is None and self.grid is not None))

    def drive(self) -> Drive:
        """The grid, or the input's times."""
        return FromInput(0) if self.grid is None else OnGrid(self.grid)

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """The windows whose outputs stand in ``interval``."""
        self.check_zone()
        source = sources[0]
        if not source:
            return NOTHING
        times = self._times(source, interval)
        if not len(times):
            return NOTHING
        if len(times) <= _QUICK and self.period is None and self._quick(source):
            quickly = self._each(source, times.tolist())
            if quickly is not None:
                return quickly
        begins, ends = self._bounds(times)
        left = int(self.closed == "left")
        low, high = source.times.searchsorted(begins - left, "right"), source.times.searchsorted(ends - left, "right")
        spans = Spans(times, begins, ends, low, high)
        if self.partial == "drop":
            spans = spans.some(begins >= source.first_time)
        if self.told_for:
            last = source.times[np.maximum(spans.high - 1, 0)]
            spans = spans.some((spans.high > 0) & ((spans.low < spans.high) | (spans.ends - last <= self.told_for)))
        elif self.held_for == 0:
            spans = spans.some(spans.low < spans.high)
        elif self.held_for is None and self.grid is not None:
            spans = spans.some((spans.low < spans.high) | ((spans.high > 0) & (spans.high < len(source))))
        else:
            spans = spans.some(spans.high > 0)
        if not len(spans.times):
            return NOTHING
        with np.errstate(all="ignore"):
            return batch_of(spans.times, self.results(source, spans))

    def single(self, source: Batch, low: int, high: int, end: int) -> Value:
        """The output for one window that ends at ``end``, quickly: of floats, closed on the right; or `UNSURE`.

        None of the numbers before ``low`` is looked at but the one before, where what holds counts.
        """
        return UNSURE

    def _quick(self, source: Batch) -> bool:
        plain = self.closed == "right" and self.label == "end" and self.partial == "keep" and not self.told_for
        values = source.values
        return plain and type(values) is np.ndarray and values.dtype == np.float64 and values.flags.aligned

    def _each(self, source: Batch, ends: list[int]) -> Batch | None:
        """`single` of each window; ``None`` where it takes the general way to tell."""
        assert self.width is not None
        kept, values = [], []
        with np.errstate(all="ignore"):
            for end in ends:
                low, high = source.times.searchsorted((end - self.width, end), "right").tolist()
                if low == high and self.held_for == 0:
                    continue
                value = self.single(source, low, high, end) if low < high else UNSURE
                if value is UNSURE:
                    return None
                kept.append(end)
                values.append(value)
        return Batch.build(kept, values)

    @abstractmethod
    def results(self, source: Batch, spans: Spans) -> Sequence[Value] | npt.NDArray[Any]:
        """The output for each of ``spans`` (at least one), or `SKIP`."""

    def _times(self, source: Batch, interval: TimeInterval) -> Ints:
        if self.grid is None:
            return source.slice(interval.start, interval.end).times
        if interval.start > interval.end - _FEW * self.grid.every:
            return self.grid.times(interval.start, interval.end)
        support = self.support(0)
        assert isinstance(support, Window)
        if self.held_for is None:
            first, last = source.first_time - support.lookahead - 1, source.last_time + support.lookback
            return self.grid.times(max(interval.start, first), min(interval.end, last))
        return grid_times_near(self.grid, source.times, interval, support.lookback, support.lookahead)

    def _bounds(self, times: Ints) -> tuple[Ints, Ints]:
        if self.width is not None:
            return (times, times + self.width) if self.label == "start" else (times - self.width, times)
        assert self.grid is not None
        if self.label == "end":
            return self.grid.begins(times), times
        ends = self.grid.times(int(times[0]), int(times[-1]) + self.grid.longest)
        return times, ends[ends.searchsorted(times, "right")]


@dataclass(frozen=True, kw_only=True)
class Holds(InPeriods):
    """Windows that know what held as they began, where `lasts` says so."""

    missing: Literal["ends", "keeps"] = "ends"
    max_age: Duration | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_age is not None and self.max_age <= 0:
            raise ValueError(f"max_age must be longer than 0, not {format_duration(self.max_age)}")
        if not self.lasts and (self.max_age is not None or self.missing != "ends"):
            raise ValueError(f"max_age and missing need {self.asked}: they say how long a reading lasts")
        if self.missing == "keeps" and self.max_age is None:
            raise ValueError("missing: keeps needs max_age: how long a reading is believed, whatever comes after it")

    asked: ClassVar[str] = "held: true"
    """What asks for it."""

    @property
    def lasts(self) -> bool:
        """Whether what held as a window began counts."""
        return False

    @property
    def held_for(self) -> int | None:
        """``max_age``."""
        return self.max_age if self.lasts else 0


@dataclass(frozen=True, kw_only=True)
class Fills(Periods):
    """Windows of which those without a reading have an output too, with ``fill: 0``."""

    fill: Literal[0] | None = None
    forget: Duration = Duration(7 * 86_400_000)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.forget <= 0:
            raise ValueError(f"forget must be longer than 0, not {format_duration(self.forget)}")
        if self.fill is not None and self.grid is None:
            raise ValueError("fill needs period or every: without them there are outputs at readings only")

    @property
    def told_for(self) -> int:
        """``forget``."""
        return 0 if self.fill is None else self.forget


def unknown(value: Value) -> bool:
    """Whether a reading says that nothing is known: ``None``, NaN, ``unavailable`` and ``unknown``."""
    return value is None or (isinstance(value, str) and value in _WORDS) or bool(value != value)


def plain_at(source: Batch, position: int) -> Value:
    """The value at ``position``, as Python has it."""
    value = source.values[position]
    return value.item() if isinstance(value, np.generic) else value


class Kept:
    """The readings of ``spans`` that are not missing: `low` to `high` of each window, and `held` as it began, or -1.

    ``at``: their positions in ``source``. ``numbers``: as floats, where they are wanted; ``whole``: which of them are
    whole numbers, or ``None`` where none is; ``exact``: whether the floats are them, exactly.
    """

    __slots__ = ("at", "exact", "held", "high", "low", "numbers", "source", "spans", "times", "until", "whole")

    def __init__(self, tool: InPeriods, source: Batch, spans: Spans, *, numbers: bool = True) -> None:
        lasts = tool.held_for != 0
        first = max(int(spans.low.min()) - (tool_reach(tool, source, spans) if lasts else 0), 0)
        last = int(spans.high.max())
        part = source.slice_index(first, last)
        self.source, self.spans = source, spans
        self.numbers: Floats = np.empty(0)
        self.whole: npt.NDArray[np.bool_] | None = None
        self.exact = True
        missing = self._read(tool, part, lasts) if numbers else _missing(part, lasts)
        low, high = spans.low - first, spans.high - first
        there = None if missing is None else ~missing
        times = part.times
        self.until: Ints = np.empty(0, np.int64)
        if lasts:
            self.until = np.empty(len(times), np.int64)
            self.until[:-1], self.until[-1:] = times[1:], MAX_TIME
        if there is None:
            self.at: Ints = np.arange(first, last)
            self.times, self.low, self.high = times, low, high
        else:
            position = np.concatenate(([0], np.cumsum(there)))
            self.at = np.flatnonzero(there) + first
            self.times, self.low, self.high = times[there], position[low], position[high]
            if numbers:
                self.numbers = self.numbers[there]
                self.whole = None if self.whole is None else self.whole[there]
            if lasts and tool.missing == "ends":  # type: ignore[attr-defined]
                self.until = self.until[there]
            elif lasts:
                self.until = np.concatenate((self.times[1:], [MAX_TIME]))[: len(self.times)]
        self.held: Ints = np.full(len(low), -1)
        if lasts:
            age = tool.held_for
            if age is not None:
                self.until = np.minimum(self.until, self.times + age)
            before = self.low - 1
            if len(self.until):
                self.held = np.where((before >= 0) & (self.until[before] > spans.begins), before, -1)

    def _read(self, tool: InPeriods, part: Batch, words: bool) -> npt.NDArray[np.bool_] | None:
        values = part.values
        if isinstance(values, np.ndarray):
            self.numbers = values if values.dtype == np.float64 else values.astype(np.float64)
            if values.dtype == np.float64:
                missing = np.isnan(values)
                return missing if missing.any() else None
            self.whole = np.ones(len(values), np.bool_)
            self.exact = bool(np.abs(self.numbers).max(initial=0.0) < _EXACT)
            return None
        self.numbers = np.empty(len(values))
        self.whole = np.zeros(len(values), np.bool_)
        for index, value in enumerate(values):
            if isinstance(value, float):
                self.numbers[index] = value
            elif isinstance(value, int):
                self.numbers[index] = value
                self.whole[index] = True
                self.exact = self.exact and abs(value) < _EXACT
            elif value is None or (words and value in _WORDS):
                self.numbers[index] = np.nan
            else:
                raise TypeError(f"{tool.name} needs numbers: {value!r} at time {part.times[index]} is not a number")
        missing = np.isnan(self.numbers)
        return missing if missing.any() else None

    def value(self, kept: int) -> Value:
        """The reading itself."""
        return plain_at(self.source, int(self.at[kept]))

    def number(self, kept: int) -> Value:
        """The number itself: whole or a float, never -0.0."""
        value = self.value(kept)
        return int(value) if isinstance(value, int) else value + 0.0


def tool_reach(tool: InPeriods, source: Batch, spans: Spans) -> int:
    """How many instances before the first window may hold as it begins."""
    first, age = int(spans.low.min()), tool.held_for
    if tool.missing == "ends" or age is None:  # type: ignore[attr-defined]
        return 1
    return first - int(source.times.searchsorted(int(spans.begins.min()) - age, "right"))


def _missing(part: Batch, words: bool) -> npt.NDArray[np.bool_] | None:
    values = part.values
    if isinstance(values, np.ndarray):
        missing = np.isnan(values) if values.dtype == np.float64 else np.zeros(len(values), np.bool_)
    elif words:
        missing = np.fromiter(map(unknown, values), np.bool_, len(values))
    else:
        missing = np.array([value is None or value != value for value in values], np.bool_)
    return missing if missing.any() else None
