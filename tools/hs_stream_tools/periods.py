"""Statistics of windows and of periods of the calendar: version 2 of `hs_stream_tools.windows`.

What holds for all of them is said at ``sliding_mean``; how it is done, in `hs_stream_tools._periods`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt

from hs_stream.core.batch import Batch
from hs_stream.core.kinds import Kind, Meaning
from hs_stream.core.time import format_time
from hs_stream.core.tool import SKIP, Duration, Tool
from hs_stream.core.value import Value
from hs_stream_tools._exact_sums import exact_sum, exact_sums
from hs_stream_tools._kinds import Unmeant, not_a_mean, not_a_sum, not_an_extreme, of_window
from hs_stream_tools._periods import SAMPLES, SOME, Fills, Holds, InPeriods, Kept, Spans
from hs_stream_tools._running import RunningCount, RunningMax, RunningMean, RunningMin, RunningSum, Runs
from hs_stream_tools._sliding import UNSURE, Floats, Ints, segments
from hs_stream_tools.windows import SlidingMedian, SlidingPercentile

__all__ = [
    "SlidingChange",
    "SlidingCount2",
    "SlidingFirst2",
    "SlidingLast2",
    "SlidingMax2",
    "SlidingMean2",
    "SlidingMedian2",
    "SlidingMin2",
    "SlidingPercentile2",
    "SlidingStd2",
    "SlidingSum2",
]

Results = Sequence[Value] | npt.NDArray[Any]
_LONG: Final = 10_000
"""Windows with more numbers than this are added faster in parts (see `hs_stream_tools._exact_sums`)."""

_HELD: Final[tuple[dict[str, Any], ...]] = (
    {"width": "5s", "held": True},
    {"width": "60s", "every": "10s", "held": True, "missing": "keeps", "max_age": "15s"},
    {"period": "day", "tz": "America/New_York", "held": True, "closed": "left", "max_age": "2d"},
)
_WEIGHED: Final[tuple[dict[str, Any], ...]] = (
    {"width": "5s", "weight": "time"},
    {"width": "60s", "every": "10s", "weight": "time", "missing": "keeps", "max_age": "15s"},
    {"width": "10s", "every": "10s", "weight": "time", "partial": "drop", "label": "start"},
    {"period": "day", "tz": "America/New_York", "weight": "time", "closed": "left", "max_age": "2d"},
    {"period": "15m", "tz": "Europe/Brussels", "weight": "time", "max_age": "1h"},
)
_FILLED: Final[tuple[dict[str, Any], ...]] = (
    {"width": "10s", "every": "5s", "fill": 0, "forget": "1m"},
    {"period": "day", "tz": "Europe/Brussels", "fill": 0, "partial": "drop", "closed": "left"},
    {"period": "6h", "tz": "Europe/Brussels", "fill": 0, "forget": "1d", "label": "start"},
)
_RUNNING: Final[tuple[dict[str, Any], ...]] = (
    {"period": "10s", "running": True, "closed": "left"},
    {"period": "day", "tz": "Europe/Brussels", "running": True},
)
_RUNNING_FILLED: Final[tuple[dict[str, Any], ...]] = (
    {"period": "5s", "running": True, "fill": 0, "forget": "20s"},
    {"period": "6h", "tz": "Europe/Brussels", "running": True, "fill": 0, "forget": "2d", "closed": "left"},
)


def _where(enough: npt.NDArray[np.bool_], found: Results) -> Results:
    """``found`` at the windows that have ``enough``, SKIP for the others."""
    if enough.all():
        return found
    results: list[Value] = [SKIP] * len(enough)
    values = found.tolist() if isinstance(found, np.ndarray) else found
    for index, value in zip(np.flatnonzero(enough).tolist(), values, strict=True):
        results[index] = value
    return results


# --- sums and means ---


def _sums(kept: Kept, low: Ints, high: Ints) -> Sequence[Value] | Floats:
    """The sum of each window, rounded once; whole where all of its numbers are."""
    if kept.whole is None:
        return exact_sums(kept.numbers, low, high)
    count = np.concatenate(([0], np.cumsum(kept.whole)))
    whole = (count[high] - count[low]) == high - low
    if kept.exact:
        floats = exact_sums(kept.numbers, low, high)
        if not whole.any():
            return floats
        # Below 2 ** 53 such a sum is exact.
        if bool((np.abs(floats[whole]) < float(1 << 53)).all()):
            if whole.all():
                return floats.astype(np.int64)
            pairs = zip(floats.tolist(), whole.tolist(), strict=True)
            return [int(value) if is_whole else value for value, is_whole in pairs]
    bounds = zip(low.tolist(), high.tolist(), strict=True)
    return [_sum([kept.number(at) for at in range(first, last)]) for first, last in bounds]


def _sum(numbers: list[Value]) -> Value:
    """Of whole numbers a whole one, while it can be stored as such."""
    whole = sum(number for number in numbers if isinstance(number, int))
    floats = [number for number in numbers if isinstance(number, float)]
    if not floats:
        return whole if -(1 << 63) <= whole < 1 << 63 else float(whole)
    while whole:
        floats.append(float(whole))
        whole -= int(floats[-1])
    return exact_sum(floats)


class _Lasted:
    """How long each reading of `Kept` (one or more) lasted in each window: as it began, amid, as it ended (ms)."""

    __slots__ = ("amid", "at_readings", "begun", "ended", "kept", "total")

    def __init__(self, kept: Kept) -> None:
        spans, self.kept = kept.spans, kept
        self.amid: Ints = kept.until - kept.times
        # After the last one there may be anything.
        self.amid[-1:] = 0
        inside, last, held = kept.low < kept.high, np.maximum(kept.high - 1, 0), kept.held
        # Where there is no number, any other one stands for it here.
        begun = np.minimum(kept.until[held], spans.ends) - spans.begins
        lasts = kept.times[last]
        # Where each window ends at a reading nothing lasts into its end.
        ended = spans.ends - lasts
        self.at_readings = not ended.any()
        if not self.at_readings:
            ended = np.where(inside, np.minimum(ended, kept.until[last] - lasts), 0)
        until = np.concatenate(([0], np.cumsum(self.amid)))
        between = until[last] - until[kept.low]
        self.begun: Ints = np.where(held >= 0, begun, 0)
        self.ended: Ints = ended
        self.total: Ints = self.begun + self.ended + np.where(inside, between, 0)

    def lasting(self, index: int) -> tuple[list[float], list[int]]:
        """The numbers that lasted in window ``index``, and for how long each."""
        kept = self.kept
        low, high = int(kept.low[index]), int(kept.high[index])
        numbers, lengths = kept.numbers[low:high].tolist(), self.amid[low:high].tolist()
        if high > low:
            lengths[-1] = int(self.ended[index])
        if self.begun[index]:
            numbers.insert(0, float(kept.numbers[kept.held[index]]))
            lengths.insert(0, int(self.begun[index]))
        pairs = [pair for pair in zip(numbers, lengths, strict=True) if pair[1]]
        return [number for number, _ in pairs], [length for _, length in pairs]


def _mean_over_time(kept: Kept) -> Results:
    """Each number weighed by how long it lasted in the window; where none has lasted yet, the last number."""
    if not len(kept.numbers):
        return [SKIP] * len(kept.low)
    lasted, inside, last = _Lasted(kept), kept.low < kept.high, np.maximum(kept.high - 1, 0)
    begun: Floats = np.where(lasted.begun > 0, kept.numbers[kept.held], 0.0)
    ended: Floats = np.where(inside, kept.numbers[last], 0.0)
    beside: list[Floats] = [begun * lasted.begun]
    if not lasted.at_readings:
        beside.append(np.where(lasted.ended > 0, ended, 0.0) * lasted.ended)
    sums = exact_sums(kept.numbers * lasted.amid, np.minimum(kept.low, last), last, *beside)
    means = sums / np.maximum(lasted.total, 1)
    # What lasted all the time is the mean itself, and so is what has not lasted yet.
    means = np.where(lasted.total == lasted.ended, ended, np.where(lasted.total == lasted.begun, begun, means)) + 0.0
    enough = inside | (lasted.total > 0)
    return _where(enough, means if enough.all() else means[enough])


@dataclass(frozen=True, kw_only=True)
class SlidingMean2(Runs, Holds):
    """Arithmetic mean of a window or a period of the calendar: of its readings, or of what lasted in it.

    Which window: one of

    - ``width``: a duration, such as ``24h``, which is 24 hours on every day. Outputs are at the readings, or with
      ``every`` on a grid, with ``tz`` on that of a wall clock.
    - ``period``: ``hour``, ``day``, ``week``, ``month``, ``quarter``, ``year``, or a length (``15m``, ``6h``), a cell
      of the calendar. A local day has 23 to 25 hours. ``tz``: IANA zone of the calendar, such as ``Europe/Berlin``
      (default UTC); or one for each value of a plate, ``{house: {nyc: America/New_York}, default: Europe/Berlin}``.
      ``offset``: how much later a period begins: ``day`` with ``9h`` at 09:00, ``month`` with ``14d`` on the 15th.
      ``week_start``: ``monday`` or another day.

    ``closed``: ``right`` is ``(begin, end]``, a reading at exactly midnight is of the day that ends; ``left`` is
    ``[begin, end)``, it is of the day that begins. ``label``: the output stands at the ``end``, or at the ``start``; it
    is known no sooner than at the end (and at the latest when the longest such period would end). ``partial: drop``
    leaves out a window that begins before the very first reading. ``running: true``, with ``period``: at each reading,
    of what there was since its period began (there is no ``label``, ``partial``, ``weight`` and ``held`` then).

    ``weight: time`` weighs each value by how long it lasted in the window, also the one that held as it began (the
    ``time_weight`` of TimescaleDB, LOCF): until the next reading, or the window's end. So a window without a reading
    has a mean, as soon as a later reading proves that the value lasted. ``max_age``: for how long a reading is
    believed; silence is enough then. ``missing: ends`` (default): a reading that is unknown (``None``, NaN,
    ``unavailable``, ``unknown``) ends what lasts, and the time after it does not count. ``missing: keeps``: it is as
    if it were not there. A window in which nothing is known has no output. Without ``weight`` each reading counts once,
    however long it lasted, and missing ones (``None``, NaN) not at all.

    Output: float. The sum is rounded once. ``TypeError`` for what is no number.

    >>> readings = Batch.of([(0, 20.0), (50_000, 26.0)])
    >>> from hs_stream.core.time import TimeInterval
    >>> list(SlidingMean2(period=60_000).evaluate(TimeInterval(0, 120_000), [readings]))
    [(60000, 26.0)]
    >>> list(SlidingMean2(period=60_000, weight="time").evaluate(TimeInterval(0, 120_000), [readings]))
    [(60000, 21.0)]
    >>> list(SlidingMean2(period=60_000, weight="time", max_age=90_000).evaluate(TimeInterval(0, 300_000), [readings]))
    [(60000, 21.0), (120000, 26.0), (180000, 26.0)]
    """

    name = "sliding_mean"
    version = "2.0.0"
    output_kind = "sample"
    output_unit = "same"
    runs: ClassVar[type[Tool] | None] = RunningMean
    takes = "number"
    samples = (*SAMPLES, *_WEIGHED, _RUNNING[0])
    asked: ClassVar[str] = "weight: time"
    weight: Literal["time"] | None = None

    def unmeant(self, slot: int, kind: Kind) -> Unmeant:
        """A counter has no mean that says anything, and a state is weighed by time."""
        return not_a_mean(self.name, kind, None if self.weight else "write weight: time")

    @property
    def lasts(self) -> bool:
        """With ``weight: time``."""
        return self.weight is not None

    def single(self, source: Batch, low: int, high: int, end: int) -> Value:
        """Sum / count, or over time; of long windows the general way is the quick one."""
        if high - low > _LONG:
            return UNSURE
        if self.lasts:
            return self._over_time(source, low, high, end)
        total = exact_sum(source.slice_index(low, high).plain())
        return total / (high - low) + 0.0 if math.isfinite(total) else UNSURE

    def _over_time(self, source: Batch, low: int, high: int, end: int) -> Value:
        first = max(low - 1, 0)
        times, numbers = source.times[first:high], source.values[first:high]
        assert isinstance(numbers, np.ndarray)
        assert self.width is not None
        lengths = np.empty(len(times), np.int64)
        np.subtract(times[1:], times[:-1], out=lengths[:-1])
        lengths[-1] = end - times[-1]
        if self.max_age is not None and int(lengths.max()) > self.max_age:
            return UNSURE
        if first < low:
            lengths[0] -= end - self.width - int(times[0])
        total = end - max(int(times[0]), end - self.width)
        if lengths[-1] == total or (first < low and lengths[0] == total):
            only = float(numbers[-1] if lengths[-1] == total else numbers[0])
            return only + 0.0 if math.isfinite(only) and math.isfinite(numbers[0]) else UNSURE
        sum_ = exact_sum((numbers * lengths).tolist())
        return sum_ / total + 0.0 if math.isfinite(sum_) else UNSURE

    def results(self, source: Batch, spans: Spans) -> Results:
        """Sum / count, or over time."""
        kept = Kept(self, source, spans)
        if self.lasts:
            return _mean_over_time(kept)
        enough = kept.low < kept.high
        if not enough.any():
            return [SKIP] * len(enough)
        low, high = kept.low[enough], kept.high[enough]
        sums = _sums(kept, low, high)
        if isinstance(sums, np.ndarray):
            with np.errstate(all="ignore"):
                return _where(enough, sums / (high - low))
        return _where(enough, [value / count for value, count in zip(sums, (high - low).tolist(), strict=True)])


@dataclass(frozen=True, kw_only=True)
class SlidingSum2(Fills, Runs, InPeriods):
    """Sum of the readings of a window or a period of the calendar, rounded once.

    Windows and periods as for ``sliding_mean``. Missing readings (``None``, NaN) are ignored. Whole numbers are added
    as whole numbers, and their sum is one (beyond 64 bits a float). A window without a number has no output, so that an
    outage is not a sum of 0. With ``fill: 0`` it has 0, until ``forget`` (default 7d) after the last reading; with
    ``running: true`` 0 is told as a period begins (a millisecond later where a reading is at exactly that time).

    Output: int where all numbers are whole, float otherwise. ``TypeError`` for what is no number.

    >>> rain = Batch.of([(1000, 0.1), (2000, 0.2), (3000, 0.3), (41_000, 1.0)])
    >>> from hs_stream.core.time import TimeInterval
    >>> list(SlidingSum2(period=20_000, fill=0).evaluate(TimeInterval(0, 60_000), [rain]))
    [(20000, 0.6), (40000, 0), (60000, 1.0)]
    >>> tool = SlidingSum2(period=20_000, running=True, fill=0, forget=20_000)
    >>> list(tool.evaluate(TimeInterval(0, 30_000), [rain]))
    [(1000, 0.1), (2000, 0.30000000000000004), (3000, 0.6), (20000, 0)]
    """

    name = "sliding_sum"
    version = "2.0.0"
    input_kinds = ("amount", "sample", "event")
    output_kind = "amount"
    output_unit = "same"
    runs: ClassVar[type[Tool] | None] = RunningSum
    takes = "number"
    samples = (*SAMPLES, *_FILLED, *_RUNNING, *_RUNNING_FILLED)

    def unmeant(self, slot: int, kind: Kind) -> Unmeant:
        """What is no amount is not added."""
        return not_a_sum(self.name, kind)

    def meaning(self, inputs: Sequence[Meaning]) -> Meaning:
        """Windows that overlap, or leave time out, have no amounts to add."""
        return replace(super().meaning(inputs), kind=of_window(self))

    def single(self, source: Batch, low: int, high: int, end: int) -> Value:
        """The sum; of long windows the general way is the quick one."""
        total = exact_sum(source.slice_index(low, high).plain()) if high - low <= _LONG else math.nan
        return total if math.isfinite(total) else UNSURE

    def results(self, source: Batch, spans: Spans) -> Results:
        """The sums."""
        kept = Kept(self, source, spans)
        enough = kept.low < kept.high
        found = _sums(kept, kept.low[enough], kept.high[enough]) if enough.any() else []
        results = _where(enough, found)
        return results if self.fill is None else [0 if value is SKIP else value for value in _listed(results)]


def _listed(results: Results) -> Sequence[Value]:
    listed: Sequence[Value] = results.tolist() if isinstance(results, np.ndarray) else results
    return listed


@dataclass(frozen=True, kw_only=True)
class SlidingCount2(Fills, Runs, InPeriods):
    """How many readings of a window or a period of the calendar are not missing (neither ``None`` nor NaN).

    Windows and periods as for ``sliding_mean``. Takes values of any type. 0 where the window holds missing readings
    only; a window without a reading has no output, or with ``fill: 0`` 0, until ``forget`` (default 7d) after the last
    reading. Output: int.

    >>> visits = Batch.of([(1000, "cat"), (2000, None), (3000, "dog")])
    >>> from hs_stream.core.time import TimeInterval
    >>> list(SlidingCount2(period=2000, fill=0, forget=5000).evaluate(TimeInterval(0, 20_000), [visits]))
    [(2000, 1), (4000, 1), (6000, 0), (8000, 0)]
    """

    name = "sliding_count"
    version = "2.0.0"
    output_kind = "amount"
    output_unit = "none"
    runs: ClassVar[type[Tool] | None] = RunningCount
    samples = (*SOME, *_FILLED, *_RUNNING_FILLED)

    def meaning(self, inputs: Sequence[Meaning]) -> Meaning:
        """Windows that overlap, or leave time out, have no amounts to add."""
        return replace(super().meaning(inputs), kind=of_window(self))

    def results(self, source: Batch, spans: Spans) -> Results:
        """Differences of positions among those that are there."""
        kept = Kept(self, source, spans, numbers=False)
        counts: Ints = kept.high - kept.low
        return counts


@dataclass(frozen=True, kw_only=True)
class SlidingStd2(Holds):
    """Standard deviation of a window or a period of the calendar: of its readings, or of what lasted in it.

    Windows and periods as for ``sliding_mean``. ``ddof`` >= 0: the divisor is n - ddof (default 1: of a sample; 0: of
    the population); a window with ``ddof`` or fewer numbers has no output. ``weight: time``, with ``missing`` and
    ``max_age``, as for ``sliding_mean``: the root of the mean square of what lasted around its mean; there is no
    ``ddof`` then. Output: float. ``TypeError`` for what is no number.

    >>> readings = Batch.of([(0, 1.0), (45_000, 5.0)])
    >>> from hs_stream.core.time import TimeInterval
    >>> list(SlidingStd2(period=60_000, weight="time").evaluate(TimeInterval(0, 60_000), [readings]))
    [(60000, 1.7320508075688772)]
    """

    name = "sliding_std"
    version = "2.0.0"
    output_kind = "sample"
    output_unit = "difference"
    takes = "number"
    samples = (*SOME, *_WEIGHED[1:3], {"width": "10s", "ddof": 0}, {"width": "60s", "every": "10s", "ddof": 2})
    asked: ClassVar[str] = "weight: time"
    weight: Literal["time"] | None = None
    ddof: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ddof is not None and self.ddof < 0:
            raise ValueError(f"ddof must not be negative, but is {self.ddof}")
        if self.ddof is not None and self.lasts:
            raise ValueError("weight: time divides by the time: there is no ddof")

    def unmeant(self, slot: int, kind: Kind) -> Unmeant:
        """A counter has no mean that says anything, and a state is weighed by time."""
        return not_a_mean(self.name, kind, None if self.weight else "write weight: time")

    @property
    def lasts(self) -> bool:
        """With ``weight: time``."""
        return self.weight is not None

    def results(self, source: Batch, spans: Spans) -> Results:
        """The root of the mean square around the mean, each window alone."""
        kept = Kept(self, source, spans)
        if self.lasts and not len(kept.numbers):
            return [SKIP] * len(spans.times)
        if self.lasts:
            lasted = _Lasted(kept)
            return [_spread(*lasted.lasting(index)) for index in range(len(spans.times))]
        ddof = 1 if self.ddof is None else self.ddof
        results: list[Value] = []
        with np.errstate(all="ignore"):
            for low, high in zip(kept.low.tolist(), kept.high.tolist(), strict=True):
                results.append(_deviation(kept.numbers[low:high], ddof) if high - low > ddof else SKIP)
        return results


def _one_sum(numbers: Floats) -> float:
    bound = np.array([0]), np.array([len(numbers)])
    return float(exact_sums(numbers, *bound)[0])


def _deviation(numbers: Floats, ddof: int) -> float:
    """The corrected two-pass formula of Chan, Golub, LeVeque (1983, eq. 1.7), whose sums are rounded once."""
    count = len(numbers)
    off = numbers - _one_sum(numbers) / count
    drift, squares = _one_sum(off), _one_sum(off * off)
    variance = (squares - drift * drift / count) / (count - ddof)
    # A comparison with NaN is false, so NaN stays NaN.
    return 0.0 if variance < 0.0 else math.sqrt(variance)


def _spread(numbers: list[float], lengths: list[int]) -> Value:
    total = sum(lengths)
    if not total:
        return SKIP
    values, weights = np.array(numbers), np.array(lengths, np.float64)
    with np.errstate(all="ignore"):
        mean = _one_sum(values * weights) / total if len(numbers) > 1 else numbers[0]
        off = values - mean
        squares = _one_sum(off * off * weights)
    return math.sqrt(squares / total)


# --- extremes ---


@dataclass(frozen=True, kw_only=True)
class _Extreme(Holds):
    """The smallest or the largest number."""

    takes = "number"
    samples = (
        *SOME,
        *_HELD,
        {"width": "10s", "with_time": True},
        {**_HELD[1], "with_time": True},
        {**_RUNNING[1], "with_time": True},
    )
    _sign: ClassVar[int] = 1
    held: bool = False
    with_time: bool = False

    def unmeant(self, slot: int, kind: Kind) -> Unmeant:
        """A state that held as the window began is a value of it."""
        return not_an_extreme(self.name, kind, self.held)

    @property
    def lasts(self) -> bool:
        """With ``held: true``."""
        return self.held

    def keys_made(self, keys: frozenset[str] | None) -> frozenset[str] | None:
        """With the time: ``value`` and ``time``."""
        return frozenset(("value", "time")) if self.with_time else None

    def results(self, source: Batch, spans: Spans) -> Results:
        """The extreme of each window, the first one where there are several."""
        kept = Kept(self, source, spans)
        if not self.held and not self.with_time and kept.whole is None:
            enough = kept.low < kept.high
            if not enough.any():
                return [SKIP] * len(enough)
            function = np.minimum if self._sign > 0 else np.maximum
            return _where(enough, segments(function, kept.numbers, kept.low[enough], kept.high[enough]) + 0.0)
        rows = zip(kept.low.tolist(), kept.high.tolist(), kept.held.tolist(), spans.begins.tolist(), strict=True)
        return [self._one(kept, low, high, held, begin) for low, high, held, begin in rows]

    def _one(self, kept: Kept, low: int, high: int, held: int, begin: int) -> Value:
        found = held
        if low < high:
            if kept.exact:
                some = kept.numbers[low:high]
                best = low + int(some.argmin() if self._sign > 0 else some.argmax())
            else:
                best = min(range(low, high), key=lambda at: self._sign * kept.number(at))
            if held < 0 or self._sign * kept.number(best) < self._sign * kept.number(held):
                found = best
        if found < 0:
            return SKIP
        value = kept.number(found)
        if not self.with_time:
            return value
        return {"value": value, "time": format_time(max(int(kept.times[found]), begin))}


@dataclass(frozen=True, kw_only=True)
class SlidingMin2(Runs, _Extreme):
    """Smallest number of a window or a period of the calendar, if wanted with its time.

    Windows and periods as for ``sliding_mean``. ``held: true``: what held as the window began counts too, with
    ``missing`` and ``max_age`` as for ``sliding_mean``. ``with_time: true``: the output is ``{value, time}``, with the
    first time at which it was so small (ISO 8601 text); for what held as the window began that is its begin.

    Output: the number itself, int or float. Missing readings are ignored; a window without a number has no output.
    ``TypeError`` for what is no number.

    >>> readings = Batch.of([(1000, 3), (2000, 1.5), (3000, 2)])
    >>> from hs_stream.core.time import TimeInterval
    >>> list(SlidingMin2(period=4000, with_time=True).evaluate(TimeInterval(0, 4000), [readings]))
    [(4000, {'value': 1.5, 'time': '1970-01-01T00:00:02Z'})]
    """

    name = "sliding_min"
    version = "2.0.0"
    output_kind = "sample"
    output_unit = "same"
    runs: ClassVar[type[Tool] | None] = RunningMin


@dataclass(frozen=True, kw_only=True)
class SlidingMax2(Runs, _Extreme):
    """Largest number of a window or a period of the calendar, if wanted with its time.

    All as for ``sliding_min``.

    >>> readings = Batch.of([(1000, 3), (5000, 2)])
    >>> from hs_stream.core.time import TimeInterval
    >>> list(SlidingMax2(period=4000, held=True).evaluate(TimeInterval(0, 8000), [readings]))
    [(4000, 3), (8000, 3)]
    """

    name = "sliding_max"
    version = "2.0.0"
    output_kind = "sample"
    output_unit = "same"
    runs: ClassVar[type[Tool] | None] = RunningMax
    _sign: ClassVar[int] = -1


# --- the reading itself ---


@dataclass(frozen=True, kw_only=True)
class _Held(Holds):
    samples = (*SOME, *_HELD)
    held: bool = False

    @property
    def lasts(self) -> bool:
        """With ``held: true``."""
        return self.held


@dataclass(frozen=True, kw_only=True)
class SlidingFirst2(_Held):
    """The earliest reading of a window or a period of the calendar that is not missing.

    Windows and periods as for ``sliding_mean``. ``held: true``: what held as the window began, if anything did, with
    ``missing`` and ``max_age`` as for ``sliding_mean``. Takes and gives values of any type, unchanged. No output where
    all are missing.

    >>> door = Batch.of([(1000, "open"), (5000, "closed")])
    >>> from hs_stream.core.time import TimeInterval
    >>> list(SlidingFirst2(period=4000, held=True).evaluate(TimeInterval(0, 8000), [door]))
    [(4000, 'open'), (8000, 'open')]
    """

    name = "sliding_first"
    version = "2.0.0"
    output_kind = "same"
    output_unit = "same"

    def results(self, source: Batch, spans: Spans) -> Results:
        """What held, or the first one."""
        kept = Kept(self, source, spans, numbers=False)
        first = np.where(kept.held >= 0, kept.held, np.where(kept.low < kept.high, kept.low, -1))
        return [kept.value(at) if at >= 0 else SKIP for at in first.tolist()]


@dataclass(frozen=True, kw_only=True)
class SlidingLast2(_Held):
    """The latest reading of a window or a period of the calendar that is not missing.

    Windows and periods as for ``sliding_mean``. ``held: true``: where the window has none, what held as it began, with
    ``missing`` and ``max_age`` as for ``sliding_mean``. Takes and gives values of any type, unchanged. No output where
    all are missing.

    >>> door = Batch.of([(1000, "open"), (9000, "closed")])
    >>> from hs_stream.core.time import TimeInterval
    >>> list(SlidingLast2(period=4000, held=True).evaluate(TimeInterval(0, 12_000), [door]))
    [(4000, 'open'), (8000, 'open'), (12000, 'closed')]
    """

    name = "sliding_last"
    version = "2.0.0"
    output_kind = "same"
    output_unit = "same"

    def results(self, source: Batch, spans: Spans) -> Results:
        """The last one, or what held."""
        kept = Kept(self, source, spans, numbers=False)
        last = np.where(kept.low < kept.high, kept.high - 1, kept.held)
        return [kept.value(at) if at >= 0 else SKIP for at in last.tolist()]


@dataclass(frozen=True, kw_only=True)
class SlidingChange(Holds):
    """By how much a number changed in a window or a period of the calendar: the last one minus what held as it began.

    Windows and periods as for ``sliding_mean``. Where nothing held as the window began (before the first reading, or
    by ``missing`` and ``max_age``, as for ``sliding_mean``), it is the last reading minus the first one. With
    ``held: false`` it always is. A meter that may be reset or replaced is for ``utility_meter``.

    Output: int where both are whole, float otherwise. A window in which no number is known has none. ``TypeError`` for
    what is no number.

    >>> level = Batch.of([(1000, 50), (5000, 47), (6000, 48)])
    >>> from hs_stream.core.time import TimeInterval
    >>> list(SlidingChange(period=4000).evaluate(TimeInterval(0, 12_000), [level]))
    [(4000, 0), (8000, -2)]
    """

    name = "sliding_change"
    version = "1.0.0"
    output_kind = "amount"
    output_unit = "difference"
    takes = "number"
    samples = (*SOME, *_HELD, {"width": "10s", "held": False})
    held: bool = True

    def meaning(self, inputs: Sequence[Meaning]) -> Meaning:
        """Windows that overlap, or leave time out, have no amounts to add."""
        return replace(super().meaning(inputs), kind=of_window(self))

    def unmeant(self, slot: int, kind: Kind) -> Unmeant:
        """A counter that is reset has not changed by so much."""
        if kind == "counter":
            return f"{self.name} takes a reset for a fall", "write utility_meter@^2, or increase"
        return None

    @property
    def lasts(self) -> bool:
        """Unless ``held: false``."""
        return self.held

    def results(self, source: Batch, spans: Spans) -> Results:
        """The differences."""
        kept = Kept(self, source, spans)
        rows = zip(kept.low.tolist(), kept.high.tolist(), kept.held.tolist(), strict=True)
        return [self._one(kept, low, high, held) for low, high, held in rows]

    @staticmethod
    def _one(kept: Kept, low: int, high: int, held: int) -> Value:
        if low >= high and held < 0:
            return SKIP
        first = kept.number(held if held >= 0 else low)
        last = kept.number(high - 1 if low < high else held)
        difference = last - first
        if isinstance(difference, float):
            return difference + 0.0
        return difference if -(1 << 63) <= difference < 1 << 63 else float(difference)


# --- ranks ---


class _Ranked2(InPeriods):
    """Statistics that version 1 has of the numbers of each window."""

    takes = "number"

    def unmeant(self, slot: int, kind: Kind) -> Unmeant:
        """A counter has no mean that says anything, and a state is weighed by time."""
        return not_a_mean(self.name, kind, "put it on a grid first, with last_value and every: 1m")

    @property
    def kernel(self) -> Any:
        """Version 1."""
        raise NotImplementedError

    def results(self, source: Batch, spans: Spans) -> Results:
        """What version 1 gives for the same numbers."""
        kept = Kept(self, source, spans)
        enough = kept.low < kept.high
        if not enough.any():
            return [SKIP] * len(enough)
        with np.errstate(all="ignore"):
            found: Floats = self.kernel.many(kept.numbers, kept.low[enough], kept.high[enough]) + 0.0
        return _where(enough, found)


@dataclass(frozen=True, kw_only=True)
class SlidingMedian2(_Ranked2):
    """Median of the numbers of a window or a period of the calendar.

    Of an even number of them, half the sum of the two in the middle. Windows and periods as for ``sliding_mean``.
    Missing readings are ignored; a window without a number has no output. Output: float. ``TypeError`` for what is no
    number.

    >>> readings = Batch.of([(1000, 1.0), (2000, 9.0), (3000, 2.0)])
    >>> from hs_stream.core.time import TimeInterval
    >>> list(SlidingMedian2(period=4000).evaluate(TimeInterval(0, 4000), [readings]))
    [(4000, 2.0)]
    """

    name = "sliding_median"
    version = "2.0.0"
    output_kind = "sample"
    output_unit = "same"
    samples = SOME

    @property
    def kernel(self) -> SlidingMedian:
        """Version 1."""
        return SlidingMedian(width=Duration(1))


@dataclass(frozen=True, kw_only=True)
class SlidingPercentile2(_Ranked2):
    """A percentile of the numbers of a window or a period of the calendar, linear between neighbours.

    ``percentile``: 0 (minimum) to 100 (maximum), type 7 of Hyndman and Fan (1996), as in numpy and pandas. Windows and
    periods as for ``sliding_mean``. Missing readings are ignored; a window without a number has no output. Output:
    float. ``TypeError`` for what is no number.

    >>> readings = Batch.of([(1000, 1.0), (2000, 9.0), (3000, 2.0)])
    >>> from hs_stream.core.time import TimeInterval
    >>> list(SlidingPercentile2(period=4000, percentile=75.0).evaluate(TimeInterval(0, 4000), [readings]))
    [(4000, 5.5)]
    """

    name = "sliding_percentile"
    version = "2.0.0"
    output_kind = "sample"
    output_unit = "same"
    samples = tuple({**sample, "percentile": share} for sample, share in zip(SOME, (90, 0, 100), strict=True))
    percentile: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.percentile <= 100:
            raise ValueError(f"percentile must be 0 to 100, but is {self.percentile}")

    @property
    def kernel(self) -> SlidingPercentile:
        """Version 1."""
        return SlidingPercentile(width=Duration(1), percentile=self.percentile)
