"""The contract of a tool, and base classes that keep the split law by construction.

1. A tool is a frozen dataclass of parameters. It holds no state: state is a value that the engine holds.
2. Its output at ``t`` depends on the parameters, on ``t``, and on the part of each input that `Tool.support` declares.
3. ``evaluate((a, c])`` equals ``evaluate((a, b])`` followed by ``evaluate((b, c])``, bit for bit.
4. `Tool.evaluate` gets, for input ``i``, every instance that rule 2 lets it read *for any t of the interval*: possibly
   more (a superset in time), never less. It must not change them.
5. It returns instances inside of the interval only, with canonical values, in ascending time.
6. It never reads a clock, a global that changes, a file, the network, or a sequential random generator.

Base classes own the loop over time, so that an author cannot break rule 3 with them:

===============  ======================================  ====================================================
base class       the author writes                        support
===============  ======================================  ====================================================
`MapTool`        ``map(value)``                           `Pointwise`
`WindowTool`     ``reduce(window, t)``                    `Window`: ``(t - width, t]``
`PreviousTool`   ``combine(previous, t)``                 `Previous` (n)
`FoldTool`       ``initial()``, ``step(state, t, value)`` `Prefix` (on a grid also ``quiet(state, start, end)``)
`AggregateTool`  ``aggregate(values, keys)``              `Pointwise` on every stream of a plate
`SelectorTool`   ``selects(key)``                        `Pointwise` on the selected streams of a plate
`SplitTool`      ``part(time, value)``                   `Pointwise`, one output stream per plate value
`PlateTool`      ``values_in(value)``                    `Prefix`; its results are new plate values
`Tool`           ``support``, ``drive``, ``evaluate``     any; must pass ``hs_stream.testing.check_tool``
===============  ======================================  ====================================================

A tool is the same on every stream of its node, but for what `Tool.bound_to` makes of it: a `SplitTool` knows its plate
value.
"""

from __future__ import annotations

import copy
import dataclasses
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, Self

import numpy as np
import numpy.typing as npt

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.errors import ConfigurationError
from hs_stream.core.kinds import NO_UNIT, UNKNOWN, Carried, Kind, Meaning, Met, UnitRule, unit_of_time
from hs_stream.core.parameters import Duration, coerce, plain, types_of
from hs_stream.core.support import (
    Drive,
    FromInput,
    FromUnion,
    OnGrid,
    Pointwise,
    Prefix,
    Previous,
    Support,
    Window,
)
from hs_stream.core.time import MIN_TIME, Grid, TimeInterval, format_duration
from hs_stream.core.units import difference, per, scaled, times
from hs_stream.core.value import Value

__all__ = [
    "SKIP",
    "AggregateTool",
    "Drive",
    "Duration",
    "FoldTool",
    "FromInput",
    "FromUnion",
    "MapTool",
    "OnGrid",
    "PlateTool",
    "Pointwise",
    "Prefix",
    "Previous",
    "PreviousTool",
    "SelectorTool",
    "Sources",
    "SplitTool",
    "Support",
    "Takes",
    "Tool",
    "Window",
    "WindowTool",
]


Takes = Literal[
    "number",
    "boolean",
    "object",
    "any",
    "[number]",
    "{number}",
    "[{number}]",
    "[any, text]",
    "interval",
    "{interval}",
    "examples",
]
"""What values a tool takes. ``[x]`` is a list of x, ``[x, y]`` one of an x and a y, ``{x}`` an object whose fields are
all x; an ``interval`` at t is a `TimeInterval` inside of what the tool's `Window` supports let an output at t read;
``examples`` is what only the tool itself can tell: see `Tool.examples`."""


class _Skip:
    """The type of `SKIP`."""

    def __repr__(self) -> str:
        return "SKIP"


SKIP: Final = _Skip()
"""What ``map``, ``reduce``, ``combine``, ``step`` and ``aggregate`` return for "no instance here".

``None`` is a value."""


class Sources(list[Batch]):
    """One `Batch` per input. ``keys[i]`` is the plate value that input i comes from, for an `AggregateTool`.

    An `AggregateTool` may get only those inputs that have an instance in what it may read.
    """

    def __init__(self, batches: Iterable[Batch] = (), keys: Sequence[str] = ()) -> None:
        super().__init__(batches)
        self.keys = tuple(keys)


class Tool(ABC):
    """A pure function of declared inputs. Subclass a narrower base class where one fits (see the module's table).

    A concrete tool is decorated with ``@dataclass(frozen=True, kw_only=True)`` and sets ``name`` and ``version``; the
    first line of its docstring is its summary. Several versions are several classes of one name, side by side.
    """

    name: ClassVar[str] = ""
    version: ClassVar[str] = ""
    kind: ClassVar[str] = "tool"
    arity: ClassVar[int | None] = 1
    """How many inputs; ``None`` for one or more (or, for an `AggregateTool`, all streams over a plate)."""
    takes: ClassVar[Takes | tuple[Takes, ...]] = "any"
    """What values the checker may feed: one word for all inputs, or one for each of ``arity`` inputs. A tool that meets
    another type raises ``TypeError`` or ``ValueError``."""
    ignores: ClassVar[Sequence[str]] = ()
    """Where in an input's values the tool ignores those of types that it has no use for, and says so in its docstring:
    ``""`` is a value itself, ``[]`` an element of a list, ``.`` a field; ``[].`` a field of an object in a list.
    Everywhere else what it cannot use is an error (see `takes`), unless it is missing (``None``, NaN)."""
    alignment: ClassVar[int | None] = None
    """Which input is the alignment stream, the one that says when there are outputs; ``None`` where there is none."""
    samples: ClassVar[Sequence[Mapping[str, Any]]] = ({},)
    """Parameter sets that the checker and the documentation use: all interesting combinations."""
    input_kinds: ClassVar[Sequence[Kind]] = ()
    """Of which kinds its first input is meant to be (see `hs_stream.core.kinds`); none: of any."""
    output_kind: ClassVar[Carried] = "unknown"
    """Of which kind its output is."""
    output_unit: ClassVar[UnitRule] = "unknown"
    """What the unit of its output is."""

    @abstractmethod
    def support(self, slot: int) -> Support:
        """Which part of input ``slot`` the output at t may read."""

    @abstractmethod
    def drive(self) -> Drive:
        """Where output times come from."""

    @abstractmethod
    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """The output's contents in ``interval``. See the module's rules 3 to 6.

        ``interval.start`` may be minus infinity unless the tool has no inputs.
        """

    def bound_to(self, meta: Mapping[str, str], into: str | None) -> Self:
        """The tool for the stream with this meta data; ``into`` is the plate that a `SplitTool` splits into."""
        return self

    def keys_named(self) -> tuple[str, ...]:
        """The fields of its first input's objects that its parameters name: for doubts about a workflow file."""
        return ()

    def keys_made(self, keys: frozenset[str] | None) -> frozenset[str] | None:
        """The fields that objects of its output can have, where those of its first input have ``keys`` at most.

        ``None``, for both: not known. For doubts about a workflow file.
        """
        return None

    def meaning(self, inputs: Sequence[Meaning]) -> Meaning:
        """What its output means, where its inputs mean ``inputs``: by `output_kind` and `output_unit`.

        Override it where parameters decide, or where the output is an object. It is asked when a workflow is loaded.
        """
        first = inputs[0] if inputs else UNKNOWN
        if self.output_kind == "same" and self.output_unit == "same":
            return first
        carried = self.output_kind
        kind = first.kind if carried == "same" else None if carried == "unknown" else carried
        return Meaning(kind, self._unit(first))

    def _unit(self, first: Meaning) -> str | None:
        if self.output_unit == "same":
            return first.unit
        if self.output_unit == "difference":
            return difference(first.unit)
        if self.output_unit in ("times time", "per time"):
            time = unit_of_time(getattr(self, "unit", 0))
            if self.output_unit == "per time":
                return per(difference(first.unit), time)
            return scaled(times(first.unit, time), getattr(self, "scale", 1.0))
        if self.output_unit == "parameter":
            given = getattr(self, "unit", None)
            return unit_of_time(given) if isinstance(given, int) else None
        return NO_UNIT if self.output_unit == "none" else None

    def meets(self, inputs: Sequence[Meaning]) -> Iterable[Met]:
        """What it puts together as if it were in one unit, where its inputs mean ``inputs``.

        Equal units may be left out. Where one cannot become the other the workflow is refused; otherwise it is doubted.
        """
        return ()

    def unmeant(self, slot: int, kind: Kind) -> tuple[str, str] | None:
        """Why input ``slot`` is probably not meant to be of ``kind``, and what to write instead; ``None``: it may be.

        By `input_kinds`. Override it for words that fit better, or where parameters decide. For doubts about a
        workflow file.
        """
        if slot or not self.input_kinds or kind in self.input_kinds:
            return None
        wanted = " or ".join(f"{'an' if one[0] in 'ae' else 'a'} {one}" for one in self.input_kinds)
        return f"{self.name} reads {wanted}", f"read {wanted}, or correct the kind"

    @classmethod
    def takes_at(cls, slot: int) -> Takes:
        """What input ``slot`` takes."""
        return cls.takes if isinstance(cls.takes, str) else cls.takes[slot]

    def examples(self, slot: int) -> Sequence[Value]:
        """Values of all kinds that input ``slot`` takes, for the checker, where no other word of `Takes` fits."""
        raise TypeError(f"{type(self).__name__} takes examples and gives none")

    # --- parameters ---

    @classmethod
    def build(cls, parameters: Mapping[str, Any]) -> Self:
        """The tool with these parameters. `ConfigurationError` names a parameter that is unknown, missing or wrong."""
        fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        for given in parameters:
            if given not in fields:
                raise ConfigurationError(
                    f"{cls.name} has no parameter {given!r}", hint=f"its parameters are {', '.join(fields) or 'none'}"
                )
        hints = types_of(cls)
        values = {}
        for field in fields.values():
            if field.name in parameters:
                try:
                    values[field.name] = coerce(parameters[field.name], hints[field.name])
                except (TypeError, ValueError) as error:
                    raise ConfigurationError(f"{cls.name}: parameter {field.name}: {error}") from None
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise ConfigurationError(f"{cls.name} needs the parameter {field.name!r}")
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{cls.name}: {error}") from None

    @classmethod
    def imports(cls, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """The import paths of code that these parameters of `build` name: who chooses them runs that code here.

        By convention ``function`` holds one, ``package.module:function``. Override it for any other parameter.
        """
        given = parameters.get("function")
        return (given,) if isinstance(given, str) and ":" in given else ()

    def parameters(self) -> dict[str, Any]:
        """The parameters as JSON-like values that `build` turns into an equal tool."""
        hints = types_of(type(self))
        return {
            field.name: plain(getattr(self, field.name), hints[field.name])
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
        }

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring."""
        return (cls.__doc__ or "").strip().split("\n", 1)[0]

    @property
    def pin(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"


class MapTool(Tool):
    """One input; at each of its instances one output instance or none."""

    kind = "map"

    def support(self, slot: int) -> Support:
        """The input instance at t."""
        return Pointwise()

    def drive(self) -> Drive:
        """The input's times."""
        return FromInput(0)

    def map(self, value: Value) -> Value:
        """The output for ``value``, or `SKIP`."""
        raise TypeError(f"{type(self).__name__} defines neither map, map_at nor map_batch")

    def map_at(self, time: int, value: Value) -> Value:
        """The output for ``value`` at ``time``, or `SKIP`. Override it instead of `map` where the time matters."""
        return self.map(value)

    def map_batch(self, batch: Batch) -> Batch:
        """All outputs at once. Override it for speed; each output may depend on its own instance only."""
        times, values = [], []
        for time, value in batch:
            result = self.map_at(time, value)
            if result is not SKIP:
                times.append(time)
                values.append(result)
        return Batch.build(times, values)

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """`map_batch` of the instances in ``interval``."""
        batch = sources[0].slice(interval.start, interval.end)
        return self.map_batch(batch) if batch else NOTHING


@dataclass(frozen=True, kw_only=True)
class WindowTool(Tool):
    """One input; a function of its instances in ``(t - width, t]``, at each of its times or on a grid.

    ``every`` gives a grid of output times, ``tz`` puts it on a local clock (see `hs_stream.core.time.Grid`), where a
    ``width`` of whole days is as many local days (23 to 25 hours each). A window without an instance has no output.
    """

    kind = "window"
    width: Duration
    every: Duration | None = None
    tz: str | None = None

    def __post_init__(self) -> None:
        if self.width <= 0:
            raise ValueError(f"width must be longer than 0, not {format_duration(self.width)}")
        if self.every is not None and self.every <= 0:
            raise ValueError(f"every must be longer than 0, not {format_duration(self.every)}")
        if self.tz is not None and self.every is None:
            raise ValueError("tz needs every: it says on whose clock the grid lies")
        if self.tz is not None:
            Grid(1000, self.tz)

    @property
    def grid(self) -> Grid | None:
        """The grid of output times, or ``None`` for the input's own times."""
        return None if self.every is None else Grid(self.every, self.tz)

    def support(self, slot: int) -> Support:
        """``(t - width, t]``; with a zone a bound of it."""
        grid = self.grid
        return Window(self.width if grid is None else grid.lookback(self.width))

    def drive(self) -> Drive:
        """The grid, or the input's times."""
        grid = self.grid
        return FromInput(0) if grid is None else OnGrid(grid)

    def reduce(self, window: Batch, time: int) -> Value:
        """The output at ``time`` for the instances of ``(time - width, time]`` (at least one), or `SKIP`."""
        raise TypeError(f"{type(self).__name__} defines neither reduce nor reduce_windows")

    def reduce_windows(
        self, source: Batch, low: npt.NDArray[np.int64], high: npt.NDArray[np.int64], times: npt.NDArray[np.int64]
    ) -> Sequence[Value] | npt.NDArray[Any]:
        """The outputs for the windows ``source.slice_index(low[i], high[i])``, ``low < high``, ending at ``times[i]``.

        Override it for speed. Output i may depend on window i and ``times[i]`` only, bit for bit; `SKIP` is allowed
        in a list.
        """
        return [
            self.reduce(source.slice_index(first, last), time)
            for first, last, time in zip(low.tolist(), high.tolist(), times.tolist(), strict=True)
        ]

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """`reduce_windows` over every window that ends in ``interval`` and is not empty."""
        source, grid = sources[0], self.grid
        if not source:
            return NOTHING
        if grid is None:
            times = source.slice(interval.start, interval.end).times
            begins = times - self.width
        else:
            times = grid_times_near(grid, source.times, interval, grid.lookback(self.width))
            if grid.tz is None:
                begins = times - self.width
            else:
                begins = np.array([grid.back(time, self.width) for time in times.tolist()], np.int64)
        low = source.times.searchsorted(begins, "right")
        high = source.times.searchsorted(times, "right")
        filled = low < high
        if not filled.all():
            low, high, times = low[filled], high[filled], times[filled]
        if not len(times):
            return NOTHING
        return batch_of(times, self.reduce_windows(source, low, high, times))


class PreviousTool(Tool):
    """One input; at each of its instances a function of the last ``count`` instances, that one included."""

    kind = "previous"
    count: ClassVar[int] = 2

    def support(self, slot: int) -> Support:
        """The last ``count`` instances."""
        return Previous(self.count)

    def drive(self) -> Drive:
        """The input's times."""
        return FromInput(0)

    @abstractmethod
    def combine(self, previous: Sequence[tuple[int, Value]], time: int) -> Value:
        """The output at ``time`` for up to ``count`` instances, oldest first, the last one at ``time``; or `SKIP`."""

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """`combine` at each instance in ``interval``."""
        source = sources[0]
        low = int(source.times.searchsorted(interval.start, "right"))
        high = int(source.times.searchsorted(interval.end, "right"))
        first = max(low - self.count + 1, 0)
        items = list(source.slice_index(first, high)) if high > low else []
        times, values = [], []
        for at in range(low - first, high - first):
            time = items[at][0]
            result = self.combine(items[max(at - self.count + 1, 0) : at + 1], time)
            if result is not SKIP:
                times.append(time)
                values.append(result)
        return Batch.build(times, values)


class FoldTool(Tool):
    """One input; a state that steps through its instances in time order. The engine holds and stores the state.

    Outputs come from `step`, at the input's times. Where `drive` gives a grid they come from `quiet` instead, and
    silence alone is enough for them. On a grid of a millisecond it can speak at any instant: `due` says at which.

    Where `step` raises, that instant fails, and the fold goes on from the state before it, as if the instance were not
    there (`hs_stream.compute.attempt` has the rules).
    """

    kind = "fold"
    goes_on: ClassVar[bool] = True
    """``False``: what comes after a value that `step` cannot use would be wrong without it. Then everything later
    fails too, until that value is corrected or removed."""

    def support(self, slot: int) -> Support:
        """Everything up to t."""
        return Prefix()

    def drive(self) -> Drive:
        """The input's times."""
        return FromInput(0)

    @abstractmethod
    def initial(self) -> Value:
        """The state before the first instance: a canonical value (it is stored)."""

    @abstractmethod
    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        """``(next state, output or SKIP)``, on a grid always SKIP. Must not change ``state`` in place.

        A value that it cannot use is an exception that says so, best a ``TypeError`` or ``ValueError``.
        """

    def steps(self, state: Value, batch: Batch) -> Value:
        """Of a fold on a grid: the state after ``batch``, between whose instances there is no instant of the grid.

        Override it for speed: the state is that of `step` with each of them, bit for bit, and what `step` raises of one
        of them is raised.
        """
        for time, value in batch:
            state, _ = self.step(state, time, value)
        return state

    def quiet(self, state: Value, start: int, end: int) -> Iterable[tuple[int, Value]]:
        """Of a fold on a grid: the outputs at its instants in ``(start, end]``, at all of which ``state`` holds.

        A function of the state and each output's time only. It is asked piece by piece, and for long silences too, so
        it should come to an end by itself: how long is a state believed without a new instance?
        """
        return ()

    def due(self, state: Value, after: int) -> int | None:
        """Of a fold on a grid: the first instant later than ``after`` at which `quiet` may have an output.

        ``None``: it has none until the next instance. So a stream that is silent costs nothing before that instant.
        """
        drive = self.drive()
        return drive.grid.next(after) if isinstance(drive, OnGrid) else None

    def before_next(
        self, state: Value, start: int, end: int, following: tuple[int, Value]
    ) -> Iterable[tuple[int, Value]]:
        """Of a fold on a grid with ``Prefix(after=1)``: as `quiet`, where the next instance is known.

        ``following`` is its time, later than ``end``, and its value. The last instance is not later than ``start``. An
        output that `quiet` has at such an instant is replaced by that of here, or taken away.
        """
        return self.quiet(state, start, end)

    def following(self, source: Batch, instant: int) -> tuple[int, Value] | None:
        """The first instance of ``source`` later than ``instant``, if `support` looks on to it."""
        support = self.support(0)
        if not isinstance(support, Prefix) or not support.after:
            return None
        at = int(source.times.searchsorted(instant, "right"))
        return next(iter(source.slice_index(at, at + 1))) if at < len(source) else None

    def run(self, state: Value, batch: Batch) -> tuple[Value, Batch]:
        """`step` through ``batch``: the state at its end and the outputs."""
        times, values = [], []
        for time, value in batch:
            state, result = self.step(state, time, value)
            if result is not SKIP:
                times.append(time)
                values.append(result)
        return state, Batch.build(times, values)

    def run_over(
        self, state: Value, batch: Batch, start: int, end: int, following: tuple[int, Value] | None = None
    ) -> tuple[Value, Batch]:
        """From ``state`` at ``start`` through all instances of ``(start, end]``: the state at ``end`` and the outputs.

        ``start`` may be minus infinity; before the first instance there are no outputs then. ``following`` is the first
        instance later than ``end``, for a fold that looks on to it and where there is one.
        """
        drive = self.drive()
        if not isinstance(drive, OnGrid):
            return self.run(state, batch)
        if start <= MIN_TIME:
            if not batch:
                return state, NOTHING
            start = batch.first_time - 1
        support = self.support(0)
        looks_on = isinstance(support, Prefix) and support.after
        outputs: list[tuple[int, Value]] = []
        due, last = drive.grid.next(start), start
        times, values, at = batch.times.tolist(), batch.plain(), 0
        while at < len(times):
            time, value = times[at], values[at]
            if due < time:
                if looks_on:
                    outputs += self._silence(state, start, last, time - 1, (time, value))
                else:
                    outputs += self.quiet(state, start, time - 1)
                due = drive.grid.next(time - 1)
            if at + 1 < len(times) and times[at + 1] <= due:
                upto = bisect_right(times, due, at)
                state = self.steps(state, batch.slice_index(at, upto))
            else:
                upto = at + 1
                state, _ = self.step(state, time, value)
            at, last = upto, times[upto - 1]
            start = last - 1
        if due <= end:
            outputs += self._silence(state, start, last, end, following)
        return state, Batch.build([time for time, _ in outputs], [value for _, value in outputs])

    def _silence(
        self, state: Value, start: int, last: int, end: int, following: tuple[int, Value] | None
    ) -> list[tuple[int, Value]]:
        """The outputs in ``(start, end]``; ``last`` is ``start``, or the time of the last instance, one later."""
        if following is None:
            return list(self.quiet(state, start, end))
        found = list(self.quiet(state, start, last)) if start < last else []
        if last < end:
            found += self.before_next(state, last, end, following)
        return found

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """From `initial` through the whole input, then the part in ``interval``."""
        source = sources[0].slice(-(1 << 63) + 1, interval.end)
        following = self.following(sources[0], interval.end)
        _, result = self.run_over(self.initial(), source, MIN_TIME, interval.end, following)
        return result.slice(interval.start, interval.end)


class AggregateTool(Tool):
    """All streams over a plate; at each time at which any of them has an instance, a function of those that have."""

    kind = "aggregate"
    arity = None
    together: ClassVar[bool] = True
    """Whether an output of a single stream, where others have none at that time, says something else than is meant."""

    def support(self, slot: int) -> Support:
        """The instances at t."""
        return Pointwise()

    def drive(self) -> Drive:
        """The union of the inputs' times."""
        return FromUnion()

    @abstractmethod
    def aggregate(self, values: Sequence[Value], keys: Sequence[str]) -> Value:
        """The output for the values at one time, in the order of their plate values ``keys``; or `SKIP`."""

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """`aggregate` at each time of the union in ``interval``."""
        keys = sources.keys if isinstance(sources, Sources) and sources.keys else [str(i) for i in range(len(sources))]
        at: dict[int, tuple[list[Value], list[str]]] = {}
        for key, source in zip(keys, sources, strict=True):
            for time, value in source.slice(interval.start, interval.end):
                values, names = at.setdefault(time, ([], []))
                values.append(value)
                names.append(key)
        times, results = [], []
        for time in sorted(at):
            result = self.aggregate(*at[time])
            if result is not SKIP:
                times.append(time)
                results.append(result)
        return Batch.build(times, results)


class SelectorTool(AggregateTool):
    """Of the streams of a plate those that it selects by plate value; the others are not looked at or waited for."""

    kind = "selector"
    output_kind = "same"
    output_unit = "same"
    together = False

    @abstractmethod
    def selects(self, key: str) -> bool:
        """Whether the stream with this plate value (several are joined by ``/``) is an input."""

    def aggregate(self, values: Sequence[Value], keys: Sequence[str]) -> Value:
        """The value of the last selected plate value that has one at that time."""
        return values[-1]


class SplitTool(Tool):
    """One input, and one output stream for each value of a plate: at each of the input's times an output, or none.

    HyperStream's multi-output tools. The plate is the factor's (``into``), so is which values there are.
    """

    kind = "multi-output"
    plate_values: ClassVar[Sequence[str]] = ("a", "b", "1")
    """Plate values that the checker and the documentation use."""
    plate_value: ClassVar[str] = ""
    """Set on what `bound_to` returns: the plate value of the output stream."""

    def bound_to(self, meta: Mapping[str, str], into: str | None) -> Self:
        """The tool for one plate value."""
        bound = copy.copy(self)
        object.__setattr__(bound, "plate_value", meta[into or ""])
        return bound

    def support(self, slot: int) -> Support:
        """The input instance at t."""
        return Pointwise()

    def drive(self) -> Drive:
        """The first input's times."""
        return FromInput(0)

    def part(self, time: int, value: Value) -> Value:
        """What of ``value`` belongs to ``self.plate_value``, or `SKIP`."""
        raise TypeError(f"{type(self).__name__} defines neither part nor evaluate")

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """`part` of each instance in ``interval``."""
        times, values = [], []
        for time, value in sources[0].slice(interval.start, interval.end):
            result = self.part(time, value)
            if result is not SKIP:
                times.append(time)
                values.append(result)
        return Batch.build(times, values)


class PlateTool(FoldTool):
    """One input that says which values a plate has: the output is a list of plate values, when they are new.

    HyperStream's plate creation tools. A plate that names the node as its source grows by them.
    """

    kind = "plate-creation"
    output_kind = "event"
    output_unit = "none"

    @abstractmethod
    def values_in(self, value: Value) -> Iterable[str]:
        """The plate values that ``value`` speaks of."""

    def initial(self) -> Value:
        """No plate values yet."""
        return []

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        """What is new by now."""
        fresh = sorted(set(self.values_in(value)).difference(state))[: MAX_NAMES - len(state)]
        return (sorted([*state, *fresh]), fresh) if fresh else (state, SKIP)


MAX_NAMES: Final = 10_000
"""A `PlateTool` finds no more plate values than this."""


def grid_times_near(
    grid: Grid, times: npt.NDArray[np.int64], interval: TimeInterval, lookback: int, lookahead: int = 0
) -> npt.NDArray[np.int64]:
    """Grid instants t of ``interval`` whose window ``(t - lookback, t + lookahead]`` may hold one of ``times``.

    Its cost follows the number of ``times`` and of results, not the width of ``interval``, which may be infinite.
    """
    if not len(times):
        return np.empty(0, np.int64)
    begins, ends = times - lookahead - 1, times + max(lookback - 1, 0)
    gaps = np.flatnonzero(begins[1:] > ends[:-1])
    firsts = begins[np.concatenate(([0], gaps + 1))].tolist()
    lasts = ends[np.concatenate((gaps, [len(times) - 1]))].tolist()
    pieces = [
        grid.times(max(first, interval.start), min(last, interval.end))
        for first, last in zip(firsts, lasts, strict=True)
        if last > interval.start and first < interval.end
    ]
    return np.concatenate(pieces) if pieces else np.empty(0, np.int64)


def batch_of(times: npt.NDArray[np.int64], values: Sequence[Value] | npt.NDArray[Any]) -> Batch:
    """``values`` at ``times``, without those that are `SKIP`."""
    if isinstance(values, np.ndarray):
        return Batch.build(times, values)
    kept = [index for index, value in enumerate(values) if value is not SKIP]
    if len(kept) == len(values):
        return Batch.build(times, values)
    return Batch.build(times[kept], [values[index] for index in kept])
