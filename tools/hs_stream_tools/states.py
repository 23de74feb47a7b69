"""Tools that turn readings into states, through a state of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from hs_stream.core.batch import Batch
from hs_stream.core.time import format_duration
from hs_stream.core.tool import SKIP, Duration, FoldTool
from hs_stream.core.value import Value, same
from hs_stream_tools._lasting import UNKNOWN, Lasting, Said
from hs_stream_tools._per_period import Floats, PerPeriod
from hs_stream_tools._values import number, wrong

__all__ = ["Debounce", "DebounceInSilence", "Threshold", "ThresholdOfState", "TimeInState", "equal"]


@dataclass(frozen=True, kw_only=True)
class Threshold(FoldTool):
    """Whether a number is beyond a limit, with hysteresis.

    Give one of ``above`` and ``below`` (in the unit of the input) and optionally ``hysteresis`` >= 0 (same unit).
    ``above: 26, hysteresis: 0.5`` turns on at a reading > 26 (26 itself is not enough) and off at a reading < 25.5
    (25.5 itself is not enough); between them the state stays what it was. ``below: 18, hysteresis: 0.5`` turns on at
    a reading < 18 and off at one > 18.5. Before the first reading the state is off.

    Output: a bool at each reading; with ``changes_only: true`` at the first reading and where the state changes.
    A missing reading (``None``, NaN) has no output and changes nothing. ``TypeError`` for what is no number.

    >>> tool = Threshold(above=26.0, hysteresis=0.5)
    >>> state, values = tool.initial(), []
    >>> for time, value in enumerate([25.8, 26.0, 26.1, 25.5, 25.4]):
    ...     state, result = tool.step(state, time, value)
    ...     values.append(result)
    >>> values
    [False, False, True, True, False]
    """

    name = "threshold"
    version = "1.0.0"
    output_kind = "state"
    output_unit = "none"
    takes = "number"
    samples = (
        {"above": 0.5},
        {"above": 1, "hysteresis": 1.5},
        {"below": 0, "hysteresis": 2},
        {"above": 0, "hysteresis": 1, "changes_only": True},
    )
    above: float | None = None
    below: float | None = None
    hysteresis: float = 0.0
    changes_only: bool = False

    def __post_init__(self) -> None:
        if (self.above is None) == (self.below is None):
            raise ValueError("give one of above and below")
        if self.hysteresis < 0:
            raise ValueError(f"hysteresis must not be negative, but is {self.hysteresis}")

    def initial(self) -> Value:
        """``None``: nothing read yet."""
        return None

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        """The state is the last output."""
        reading = number("threshold", value)
        if reading is None:
            return state, SKIP
        if self.above is not None:
            on = reading >= self.above - self.hysteresis if state else reading > self.above
        else:
            assert self.below is not None
            on = reading <= self.below + self.hysteresis if state else reading < self.below
        return on, SKIP if self.changes_only and on is state else on


@dataclass(frozen=True, kw_only=True)
class Debounce(FoldTool):
    """A new value only once it has lasted.

    ``hold``: how long the input must keep one value. Output: that value, at the first reading that is at least
    ``hold`` later than the first of an unbroken run of readings with this value, and only if it differs from the
    value given out before. So nothing comes out between readings: a sensor that only sends changes gives no reading
    that confirms one; put ``last_value`` with ``every`` before it. ``hold: 0s`` gives every change at once.

    Takes values of any type; ``1`` and ``1.0`` count as equal. ``None`` and NaN are missing: they have no output and
    break no run.

    >>> tool = Debounce(hold=30_000)
    >>> state, values = tool.initial(), []
    >>> for time, value in [(0, True), (30_000, True), (40_000, False), (50_000, True), (90_000, False)]:
    ...     state, result = tool.step(state, time, value)
    ...     values.append(result)
    >>> values
    [SKIP, True, SKIP, SKIP, SKIP]
    """

    name = "debounce"
    version = "1.0.0"
    output_kind = "same"
    output_unit = "same"
    takes = "any"
    samples = ({"hold": "0s"}, {"hold": "2s"}, {"hold": "5m"})
    hold: Duration

    def __post_init__(self) -> None:
        if self.hold < 0:
            raise ValueError(f"hold must not be negative, but is {format_duration(self.hold)}")

    def initial(self) -> Value:
        """No value given out, no run begun. Both are lists, as ``None`` inside of a list is no value."""
        return {"stable": [], "run": []}

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        """``stable``: ``[value]`` given out last; ``run``: ``[value, time]`` of the first reading of the run."""
        if value is None or value != value:
            return state, SKIP
        stable, run = state["stable"], state["run"]
        if not run or not equal(run[0], value):
            run = [value, time]
        if time - run[1] < self.hold or (stable and equal(stable[0], value)):
            return {"stable": stable, "run": run}, SKIP
        return {"stable": [value], "run": run}, value


@dataclass(frozen=True, kw_only=True)
class ThresholdOfState(Lasting):
    """Whether a number is beyond a limit, with hysteresis where that is asked for.

    Give one of ``above`` and ``below`` (in the unit of the input). ``above: 26`` says whether the number is above 26,
    and nothing else: 26 is not. ``above: 26, hysteresis: 0.5`` (same unit) turns on at a reading > 26 and off at a
    reading < 25.5; at 25.5 and between them the state stays what it was. ``below: 18, hysteresis: 0.5`` turns on at
    a reading < 18 and off at one > 18.5. Before the first reading the state is off.

    Output: a bool at each reading; with ``changes_only: true`` at the first reading and where the state changes.
    ``missing: ends`` (default): a reading that is unknown (``None``, NaN, ``unavailable``, ``unknown``) makes the
    output ``null``, once, and ends the hysteresis: the next reading begins as the first one did. ``missing: keeps``:
    it is as if it were not there. ``max_age``: a reading is believed for less than this; then the output is ``null``,
    told in silence. Other texts, and whatever else is no number, are a ``TypeError``.

    >>> from hs_stream.core.batch import Batch
    >>> from hs_stream.core.time import TimeInterval
    >>> readings = Batch.of([(0, 27), (60, 26), (120, 25), (180, None)])
    >>> list(ThresholdOfState(above=26.0).evaluate(TimeInterval(-1, 240), [readings]))
    [(0, True), (60, False), (120, False), (180, None)]
    """

    name = "threshold"
    version = "2.0.0"
    output_kind = "state"
    output_unit = "none"
    takes = "number"
    samples = (
        {"above": 0.5},
        {"above": 0, "hysteresis": 1.5, "max_age": "2s"},
        {"below": 0, "hysteresis": 2, "missing": "keeps"},
        {"above": 0, "hysteresis": 1, "changes_only": True, "max_age": "5s"},
    )
    above: float | None = None
    below: float | None = None
    hysteresis: float = 0.0
    changes_only: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.above is None) == (self.below is None):
            raise ValueError("give one of above and below")
        if self.hysteresis < 0:
            raise ValueError(f"hysteresis must not be negative, but is {self.hysteresis}")

    @property
    def timed(self) -> bool:
        """Only the end of what is too old comes without a reading."""
        return self.max_age is not None

    def begin(self) -> Value:
        """``[on or off, or None where that is not known, and when to tell it, or None]``."""
        return [None, None]

    def turn(self, now: Value, time: int, value: Value) -> Value:
        """What it is, and whether that is told."""
        was = now[0]
        if value is UNKNOWN:
            return [None, None if was is None else time]
        reading = number("threshold", value)
        assert reading is not None
        back = self.hysteresis if was else 0.0
        if self.above is not None:
            limit = self.above - back
            on = reading >= limit if back else reading > limit
        else:
            assert self.below is not None
            limit = self.below + back
            on = reading <= limit if back else reading < limit
        return [on, None if self.changes_only and on is was else time]

    def says(self, now: Value, after: int) -> Said:
        """The state, as it was read."""
        on, time = now
        return None if time is None or time <= after else (time, on)


@dataclass(frozen=True, kw_only=True)
class DebounceInSilence(Lasting):
    """A new value only once it has lasted, told when it has, in silence.

    ``hold``: how long the input must keep one value; or ``on`` and ``off`` (in Python, and as ESPHome has them,
    ``delayed_on`` and ``delayed_off``), where the one that is not given is ``hold``, or 0s. On is the value ``state``;
    without it ``true`` or a number other than 0, and text is a ``TypeError``. Output: the value, at exactly that time
    after the first of an unbroken run of readings with it, without a further reading, and only if it differs from the
    value given out before. A value that another one follows at that very instant, or before it, is not given out.
    ``hold: 0s`` gives every change at once.

    Takes values of any type; ``1`` and ``1.0`` count as equal. ``missing: ends`` (default): a reading that is unknown
    (``None``, NaN, ``unavailable``, ``unknown``) ends the run; the output is ``null`` at once, if there was one, and
    the next value is given out when it has lasted. ``missing: keeps``: it breaks no run. ``max_age``: a reading is
    believed for less than this, then it is unknown what holds.

    >>> from hs_stream.core.batch import Batch
    >>> from hs_stream.core.time import TimeInterval
    >>> door = Batch.of([(0, "closed"), (100_000, "open"), (110_000, "closed"), (200_000, "open")])
    >>> list(DebounceInSilence(hold=60_000).evaluate(TimeInterval(-1, 300_000), [door]))
    [(60000, 'closed'), (260000, 'open')]
    """

    name = "debounce"
    version = "2.0.0"
    output_kind = "same"
    output_unit = "same"
    takes = "any"
    samples = (
        {"hold": "0s"},
        {"hold": "2s"},
        {"hold": "5m", "max_age": "7m"},
        {"delayed_on": "2s", "state": True},
        {"delayed_on": "1s", "delayed_off": "5s", "state": 1, "missing": "keeps", "max_age": "10s"},
    )
    hold: Duration | None = None
    delayed_on: Duration | None = None
    delayed_off: Duration | None = None
    state: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hold is None and self.delayed_on is None and self.delayed_off is None:
            raise ValueError("give hold, or on and off")
        for name in ("hold", "delayed_on", "delayed_off"):
            if (length := getattr(self, name)) is not None and length < 0:
                raise ValueError(f"{name} must not be negative, but is {format_duration(length)}")

    @classmethod
    def build(cls, parameters: Mapping[str, Any]) -> Self:
        """With ``on`` and ``off`` as short names."""
        short = {"on": "delayed_on", "off": "delayed_off"}
        return super().build({short.get(name, name): value for name, value in parameters.items()})

    def _wait(self, value: Value) -> int:
        if self.delayed_on is None and self.delayed_off is None:
            return self.hold or 0
        if self.state is not None:
            is_on = equal(value, self.state)
        elif isinstance(value, (bool, int, float)):
            is_on = value != 0
        else:
            raise wrong("debounce", "booleans or numbers for on and off", value, "; write state: the value that is on")
        wait = self.delayed_on if is_on else self.delayed_off
        return (self.hold or 0) if wait is None else wait

    def means(self, value: Value) -> Value:
        """The value that is on is always known."""
        return value if self.state is not None and equal(value, self.state) else super().means(value)

    def begin(self) -> Value:
        """``told``: ``[value]`` given out last; ``run``: ``[value, when it is given out]``; ``lost``: when null is."""
        return {"told": [], "run": [], "lost": None}

    def turn(self, now: Value, time: int, value: Value) -> Value:
        """The run goes on, or another one begins."""
        told, run = now["told"], now["run"]
        if value is not UNKNOWN and run and equal(run[0], value):
            return now
        if run and run[1] < time and not (told and equal(told[0], run[0])):
            told = [run[0]]
        if value is not UNKNOWN:
            return {"told": told, "run": [value, time + self._wait(value)], "lost": None}
        if not told or told[0] is None:
            return {"told": told, "run": [], "lost": None}
        return {"told": [None], "run": [], "lost": time}

    def says(self, now: Value, after: int) -> Said:
        """The value of the run, or that there is none."""
        told, run, lost = now["told"], now["run"], now["lost"]
        if not run:
            return None if lost is None or lost <= after else (lost, None)
        value, due = run
        return None if due <= after or (told and equal(told[0], value)) else (due, value)


@dataclass(frozen=True, kw_only=True)
class TimeInState(PerPeriod):
    """How long a state lasted in each period, such as hours on per local day, cut at its ends.

    ``state``: the value that counts; without it ``true``, or a number other than 0, and text is a ``TypeError``.
    ``1`` and ``1.0`` are equal. ``unit``: the time that the output counts in (default 1s).

    ``period``: ``hour``, ``day``, ``week``, ``month``, ``quarter``, ``year`` or a length (``15m``; ``every: 15m`` is
    the same), ``(begin, end]``, on the clock of ``tz`` (IANA zone; without it UTC). ``offset``: how much later a period
    begins: ``month`` with ``14d`` is from the 15th to the 15th. ``week_start``: ``monday`` or another day. Output: a
    float at the end of each period, in silence, also of those without a reading in which the state lasts. A period
    without a reading in which it does not has none; with ``fill: 0`` it is told as 0.0, until ``forget`` (default 7d)
    after the last reading. Without ``period`` and ``every``: the total at each reading, 0.0 at the first.

    ``max_age``: a reading is believed for so long. Without it a state lasts until the next reading, however long that
    takes; periods of less than a day need it. ``missing: ends`` (default): a reading that is unknown (``None``, NaN,
    ``unavailable``, ``unknown``, if that is not the state) ends what lasts; ``missing: keeps``: it is as if it were not
    there.

    >>> from hs_stream.core.batch import Batch
    >>> from hs_stream.core.time import TimeInterval
    >>> hour, pump = 3_600_000, Batch.of([(79_200_000, "on"), (93_600_000, "off")])
    >>> tool = TimeInState(state="on", period="day", unit=hour)
    >>> list(tool.evaluate(TimeInterval(0, 96 * hour), [pump]))
    [(86400000, 2.0), (172800000, 2.0)]
    """

    name = "time_in_state"
    version = "1.0.0"
    input_kinds = ("state", "sample")
    output_kind = "amount"
    output_unit = "parameter"
    takes = "any"
    ignores = ("",)
    samples = (
        {"state": True},
        {"state": "a", "every": "10s", "max_age": "7s"},
        {"state": 1, "period": "5s", "offset": "2s", "max_age": "1m", "fill": 0, "forget": "30s"},
        {"state": "a", "period": "day", "tz": "Europe/Brussels", "unit": "1h"},
        {"state": 1, "period": "hour", "tz": "Australia/Lord_Howe", "max_age": "2h", "missing": "keeps"},
        {"state": 1, "period": "month", "tz": "Europe/Brussels", "offset": "14d", "max_age": "3d"},
    )
    state: Any = None
    unit: Duration = Duration(1000)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unit <= 0:
            raise ValueError(f"unit must be longer than 0, not {format_duration(self.unit)}")

    def means(self, value: Value) -> Value:
        """The state itself is always known."""
        return 1.0 if self.state is not None and equal(value, self.state) else super().means(value)

    def rate(self, value: Value) -> float:
        """1 while the state lasts, else 0."""
        if self.state is not None:
            return 0.0
        if isinstance(value, (bool, int, float)):
            return float(value != 0)
        raise wrong("time_in_state", "booleans or numbers", value, "; write state: the value that counts")

    def rates(self, batch: Batch) -> Floats | None:
        """1 for ``true`` and numbers other than 0, where there is no ``state``."""
        values = batch.values
        if self.state is not None or isinstance(values, list):
            return None
        rates: Floats = (values != 0).astype(np.float64)
        if values.dtype == np.float64:
            rates[np.isnan(values)] = np.nan
        return rates

    def told(self, amount: float) -> Value:
        """In units."""
        return amount / self.unit


def equal(left: Value, right: Value) -> bool:
    """Whether two values are the same state: ``1`` and ``1.0`` are, ``1`` and ``True`` are not."""
    if type(left) in (int, float) and type(right) in (int, float):
        return bool(left == right)
    return same(left, right)
