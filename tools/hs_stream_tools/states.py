"""Tools that turn readings into states, through a state of their own."""

from __future__ import annotations

from dataclasses import dataclass

from hs_stream.core.time import format_duration
from hs_stream.core.tool import SKIP, Duration, FoldTool
from hs_stream.core.value import Value, same
from hs_stream_tools._values import number

__all__ = ["Debounce", "Threshold", "equal"]


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


def equal(left: Value, right: Value) -> bool:
    """Whether two values are the same state: ``1`` and ``1.0`` are, ``1`` and ``True`` are not."""
    if type(left) in (int, float) and type(right) in (int, float):
        return bool(left == right)
    return same(left, right)
