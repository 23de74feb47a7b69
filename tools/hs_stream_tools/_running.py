"""What there was since a period began, told at each reading: `Runs` makes it of the tools of `hs_stream_tools.periods`.

A window would read its whole period anew at each reading; a fold goes on from what it has. So with ``running: true`` a
tool is another one inside, of the same name, version and parameters.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from hs_stream.core.time import Grid, format_time
from hs_stream.core.tool import SKIP, Drive, Duration, FoldTool, FromInput, OnGrid, Tool
from hs_stream.core.value import Value
from hs_stream_tools._exact import added, rounded
from hs_stream_tools._periods import Fills, Periods
from hs_stream_tools._values import wrong

__all__ = ["RunningCount", "RunningMax", "RunningMean", "RunningMin", "RunningSum", "Runs"]


@dataclass(frozen=True, kw_only=True)
class Runs(Periods):
    """A tool with a parameter ``running``: with it, one is made of the class ``runs``."""

    runs: ClassVar[type[Tool] | None] = None
    running: bool = False

    def __new__(cls, **parameters: Any) -> Any:
        """The running one, where that is asked for."""
        if cls.runs is not None and parameters.get("running"):
            return cls.runs(**parameters)
        return super().__new__(cls)


@dataclass(frozen=True, kw_only=True)
class _Running(FoldTool, Periods):
    """The state is ``[end of the period, time of the last reading, what there was]``."""

    running: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.period is None:
            raise ValueError("running needs period: it is since that began")
        if self.label != "end" or self.partial != "keep":
            raise ValueError("running: true is told at readings: give no label and no partial with it")

    @abstractmethod
    def grown(self, was: Value, time: int, value: Value) -> Value:
        """What there was, and ``value``; ``was`` is ``None`` as a period begins. Must not change ``was`` in place."""

    @abstractmethod
    def said(self, was: Value) -> Value:
        """The output."""

    def means(self, value: Value) -> Value:
        """``value`` as a number, ``None`` where it is missing."""
        if value is None or value != value:
            return None
        if isinstance(value, float):
            return value
        if isinstance(value, int):
            return int(value)
        raise wrong(self.name, "numbers", value)

    def initial(self) -> Value:
        """``None``: nothing read yet."""
        return None

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        """Another reading, of the same period or of a new one."""
        self.check_zone()
        found = self.means(value)
        if found is None:
            return state, SKIP
        assert self.grid is not None
        left = self.closed == "left"
        if state is None or time > state[0] - left:
            state = [self.grid.end(time + left), time, None]
        state = [state[0], time, self.grown(state[2], time, found)]
        return state, self.said(state[2]) if isinstance(self.drive(), FromInput) else SKIP

    def drive(self) -> Drive:
        """The input's times."""
        return FromInput(0)


@dataclass(frozen=True, kw_only=True)
class _RunningFilled(_Running, Fills):
    """With ``fill: 0``, 0 as a period begins: at that time, or right after a reading at that time."""

    def drive(self) -> Drive:
        """The input's times, or any."""
        return FromInput(0) if self.fill is None else OnGrid(Grid(1))

    def quiet(self, state: Value, start: int, end: int) -> Iterable[tuple[int, Value]]:
        """At the last reading what there was, and 0 at the begins of the periods after it."""
        if state is None:
            return
        assert self.grid is not None
        ends, last, was = state
        if start < last <= end:
            yield last, self.said(was)
        for time in self.grid.times(max(start, ends) - 1, min(end, last + self.forget)).tolist():
            told = time + 1 if time == last else time
            if start < told <= end:
                yield told, 0

    def due(self, state: Value, after: int) -> int | None:
        """The last reading, and the begins of periods until ``forget``."""
        if state is None:
            return None
        assert self.grid is not None
        end, last, _ = state
        if after < last:
            return int(last)
        if after <= end == last:
            return int(end + 1)
        found = int(end) if after < end else self.grid.next(after)
        return found if found <= last + self.forget else None


@dataclass(frozen=True, kw_only=True)
class RunningSum(_RunningFilled):
    """The sum since the period began."""

    name = "sliding_sum"
    version = "2.0.0"
    takes = "number"

    def grown(self, was: Value, time: int, value: Value) -> Value:
        """An exact sum."""
        return added(0 if was is None else was, [value])

    def said(self, was: Value) -> Value:
        """Rounded once."""
        return rounded(was)


@dataclass(frozen=True, kw_only=True)
class RunningCount(_RunningFilled):
    """How many since the period began."""

    name = "sliding_count"
    version = "2.0.0"

    def means(self, value: Value) -> Value:
        """Anything that is not missing."""
        return None if value is None or value != value else 1

    def grown(self, was: Value, time: int, value: Value) -> Value:
        """One more."""
        return (was or 0) + 1

    def said(self, was: Value) -> Value:
        """The count."""
        return was


@dataclass(frozen=True, kw_only=True)
class RunningMean(_Running):
    """The mean since the period began."""

    name = "sliding_mean"
    version = "2.0.0"
    takes = "number"
    weight: Literal["time"] | None = None
    missing: Literal["ends", "keeps"] = "ends"
    max_age: Duration | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight is not None or self.missing != "ends" or self.max_age is not None:
            raise ValueError("running: true counts readings: give no weight, missing and max_age with it")

    def grown(self, was: Value, time: int, value: Value) -> Value:
        """``[exact sum, count]``."""
        total, count = was or [0, 0]
        return [added(total, [value]), count + 1]

    def said(self, was: Value) -> Value:
        """Sum / count."""
        return rounded(was[0]) / was[1] + 0.0


@dataclass(frozen=True, kw_only=True)
class RunningMin(_Running):
    """The smallest since the period began."""

    name = "sliding_min"
    version = "2.0.0"
    takes = "number"
    held: bool = False
    with_time: bool = False
    missing: Literal["ends", "keeps"] = "ends"
    max_age: Duration | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.held or self.missing != "ends" or self.max_age is not None:
            raise ValueError("running: true looks at readings: give no held, missing and max_age with it")

    def keys_made(self, keys: frozenset[str] | None) -> frozenset[str] | None:
        """With the time: ``value`` and ``time``."""
        return frozenset(("value", "time")) if self.with_time else None

    def beats(self, value: Value, best: Value) -> bool:
        """Whether it is smaller."""
        return bool(value < best)

    def grown(self, was: Value, time: int, value: Value) -> Value:
        """``[extreme, its time]``."""
        return was if was is not None and not self.beats(value, was[0]) else [value, time]

    def said(self, was: Value) -> Value:
        """The number, or it and its time."""
        value = was[0] + 0.0 if isinstance(was[0], float) else was[0]
        return {"value": value, "time": format_time(was[1])} if self.with_time else value


@dataclass(frozen=True, kw_only=True)
class RunningMax(RunningMin):
    """The largest since the period began."""

    name = "sliding_max"

    def beats(self, value: Value, best: Value) -> bool:
        """Whether it is larger."""
        return bool(value > best)
