"""Tools that bring several streams, or one stream and a grid, onto common times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce as fold
from typing import Literal

import numpy as np
import numpy.typing as npt

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.errors import ToolError
from hs_stream.core.kinds import Meaning
from hs_stream.core.time import Grid, TimeInterval, format_duration
from hs_stream.core.tool import (
    Drive,
    Duration,
    FromInput,
    FromUnion,
    OnGrid,
    Pointwise,
    Previous,
    Support,
    Tool,
    Window,
    grid_times_near,
)
from hs_stream.core.value import Value
from hs_stream_tools._kinds import named
from hs_stream_tools._lasting import Missing, at, check_age, held

__all__ = ["AlignedMerge", "AsOfJoin", "CombineLatest", "JoinOfStates", "LastValue"]


def check_count(tool: Tool, sources: Sequence[Batch], wanted: int) -> None:
    """`ToolError` unless there are ``wanted`` inputs."""
    if len(sources) != wanted:
        raise ToolError(f"{tool.name} needs {wanted} input(s) with these parameters, but got {len(sources)}")


def check_names(names: Sequence[str], wanted: int | None = None) -> None:
    """``ValueError`` unless ``names`` are ``wanted`` (or at least one) different, non-empty texts."""
    if not names or (wanted is not None and len(names) != wanted):
        raise ValueError(f"names must be {wanted or 'at least one'}, but there are {len(names)}")
    if len(set(names)) != len(names) or "" in names:
        raise ValueError(f"names must differ and not be empty, but are {', '.join(names)}")


def common_times(sources: Sequence[Batch]) -> npt.NDArray[np.int64]:
    """The times at which every source has an instance."""
    times: npt.NDArray[np.int64] = fold(
        lambda left, right: np.intersect1d(left, right, assume_unique=True), [source.times for source in sources]
    )
    return times


def values_at(source: Batch, times: npt.NDArray[np.int64]) -> list[Value]:
    """The values at ``times``, all of which ``source`` has."""
    if isinstance(source.values, np.ndarray):
        values: list[Value] = source.values[source.times.searchsorted(times)].tolist()
        return values
    return [source.values[index] for index in source.times.searchsorted(times).tolist()]


@dataclass(frozen=True, kw_only=True)
class AlignedMerge(Tool):
    """The values of all inputs side by side, at the times at which every input has an instance.

    Output: a list of the values in the order of the inputs; with ``names`` (one for each input) an object. No output
    where any input has no instance at exactly this time: ``as_of_join`` and ``last_value`` join streams that do not
    tick together. Values of any type are passed on unchanged.

    >>> left, right = Batch.of([(1, "a"), (2, "b")]), Batch.of([(2, 5.0), (3, 6.0)])
    >>> list(AlignedMerge().evaluate(TimeInterval(0, 9), [left, right]))
    [(2, ['b', 5.0])]
    """

    name = "aligned_merge"
    version = "1.0.0"
    kind = "merge"
    arity = None
    samples = ({}, {"names": ["a", "b"]})
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.names is not None:
            check_names(self.names)
            # Whoever connects the inputs then sees how many there must be.
            object.__setattr__(self, "arity", len(self.names))

    def meaning(self, inputs: Sequence[Meaning]) -> Meaning:
        """Of an object, that of each input."""
        return named(self.names, inputs)

    def keys_made(self, keys: frozenset[str] | None) -> frozenset[str] | None:
        """``names``."""
        return None if self.names is None else frozenset(self.names)

    def support(self, slot: int) -> Support:
        """The instances at t."""
        return Pointwise()

    def drive(self) -> Drive:
        """The first input's times."""
        return FromInput(0)

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """The common instances in ``interval``."""
        if self.names is not None:
            check_count(self, sources, len(self.names))
        parts = [source.slice(interval.start, interval.end) for source in sources]
        if not all(parts):
            return NOTHING
        times = common_times(parts)
        rows = zip(*(values_at(part, times) for part in parts), strict=True)
        if self.names is None:
            return Batch.build(times, [list(row) for row in rows])
        return Batch.build(times, [dict(zip(self.names, row, strict=True)) for row in rows])


def _last_at(
    source: Batch, times: npt.NDArray[np.int64], max_age: int | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """For each time the position of the last instance at or before it, and whether there is one, young enough."""
    found = source.times.searchsorted(times, "right") - 1
    valid = found >= 0
    if max_age is not None and len(source):
        valid &= times - source.times[np.maximum(found, 0)] < max_age
    return found, valid


@dataclass(frozen=True, kw_only=True)
class AsOfJoin(Tool):
    """Each value of input 0 together with the last value of input 1 at that time.

    Output, at each instance of input 0: an object of its value and of the last value of input 1 at or before it,
    under the two ``names`` (default ``left`` and ``right``).

    ``max_age``: only a value of input 1 that is younger than this counts (one of exactly this age does not); without
    it any age does. ``outer: true`` puts ``None`` where input 1 has no value yet (or none young enough); otherwise
    there is no output then. Values of any type are passed on unchanged.

    >>> light, occupancy = Batch.of([(10, 300.0), (20, 310.0)]), Batch.of([(15, 1)])
    >>> list(AsOfJoin(names=("light", "occupancy")).evaluate(TimeInterval(0, 20), [light, occupancy]))
    [(20, {'light': 310.0, 'occupancy': 1})]
    """

    name = "as_of_join"
    version = "1.0.0"
    kind = "merge"
    arity = 2
    alignment = 0
    samples = (
        {},
        {"names": ["light", "occupancy"], "max_age": "5s"},
        {"outer": True},
        {"outer": True, "max_age": "1m"},
    )
    names: tuple[str, ...] = ("left", "right")
    max_age: Duration | None = None
    outer: bool = False

    def __post_init__(self) -> None:
        check_names(self.names, 2)
        check_age(self.max_age)

    def meaning(self, inputs: Sequence[Meaning]) -> Meaning:
        """Of an object, that of each input."""
        return named(self.names, inputs)

    def keys_made(self, keys: frozenset[str] | None) -> frozenset[str] | None:
        """``names``."""
        return frozenset(self.names)

    def support(self, slot: int) -> Support:
        """Input 0 at t; of input 1 the last instance, or those younger than max_age."""
        if slot == 0:
            return Pointwise()
        return Previous(1) if self.max_age is None else Window(self.max_age)

    def drive(self) -> Drive:
        """Input 0's times."""
        return FromInput(0)

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """The pairs in ``interval``."""
        check_count(self, sources, 2)
        left, right = sources[0].slice(interval.start, interval.end), sources[1]
        found, valid = _last_at(right, left.times, self.max_age)
        first, second = self.names
        times, values = [], []
        for (time, value), index, there in zip(left, found.tolist(), valid.tolist(), strict=True):
            if there or self.outer:
                times.append(time)
                values.append({first: value, second: at(right, index) if there else None})
        return Batch.build(times, values)


def _side_by_side(
    tool: JoinOfStates | CombineLatest,
    times: npt.NDArray[np.int64],
    sources: Sequence[Batch],
    held_by: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]],
) -> Batch:
    """Rows of what each source holds at ``times``: the whole ones, or with ``outer`` those that have anything."""
    there = np.array([valid for _, valid in held_by])
    kept = np.flatnonzero(there.any(axis=0) if tool.outer else there.all(axis=0))
    columns = [
        [at(source, position) if valid else None for position, valid in zip(*pair, strict=True)]
        for source, pair in zip(
            sources, ((found[kept].tolist(), valid[kept].tolist()) for found, valid in held_by), strict=True
        )
    ]
    rows = zip(*columns, strict=True)
    if tool.names is None:
        return Batch.build(times[kept], [list(row) for row in rows])
    return Batch.build(times[kept], [dict(zip(tool.names, row, strict=True)) for row in rows])


def _times_of(interval: TimeInterval, sources: Sequence[Batch]) -> npt.NDArray[np.int64]:
    """The union of the times in ``interval``."""
    return np.unique(np.concatenate([source.slice(interval.start, interval.end).times for source in sources]))


def _check_missing(missing: Missing, max_age: int | None) -> None:
    if missing == "keeps" and max_age is None:
        raise ValueError("missing: keeps needs max_age: how old may the value before be?")


@dataclass(frozen=True, kw_only=True)
class JoinOfStates(Tool):
    """Each value of input 0 together with the value that input 1 holds then.

    Output: an object of both under the two ``names`` (default ``left`` and ``right``). ``driven_by: left`` (default):
    at each reading of input 0, with the last value of input 1 at or before it. ``driven_by: either``: at each reading
    of either of them, with the last value of both.

    ``strict: true``: with the last value of input 1 before it, not at it: what held until then. So an hour's
    consumption, which stands at the hour's end, is paid at the price that was set as it began (pandas'
    ``allow_exact_matches=False``). It needs ``driven_by: left``.

    ``max_age``: only a value younger than this counts (one of exactly this age does not; with ``strict`` it does, as
    it held until then). ``missing: ends`` (default): a reading that is unknown (``None``, NaN, ``unavailable``,
    ``unknown``) ends what holds; ``missing: keeps``: the value before it goes on, which needs ``max_age``.
    ``outer: true`` puts ``null`` where there is no value on one side; otherwise there is no output then. Values of any
    type are passed on unchanged.

    >>> used, price = Batch.of([(7_200_000, 0.8)]), Batch.of([(3_600_000, 0.39), (7_200_000, 0.26)])
    >>> list(JoinOfStates(names=("kwh", "eur"), strict=True).evaluate(TimeInterval(0, 7_200_000), [used, price]))
    [(7200000, {'kwh': 0.8, 'eur': 0.39})]
    """

    name = "as_of_join"
    version = "2.0.0"
    kind = "merge"
    arity = 2
    alignment = 0
    samples = (
        {},
        {"names": ["light", "occupancy"], "max_age": "5s"},
        {"outer": True, "max_age": "1m", "missing": "keeps"},
        {"strict": True, "outer": True},
        {"strict": True, "max_age": "3s"},
        {"driven_by": "either"},
        {"driven_by": "either", "max_age": "10s", "outer": True},
    )
    names: tuple[str, ...] = ("left", "right")
    driven_by: Literal["left", "either"] = "left"
    strict: bool = False
    max_age: Duration | None = None
    missing: Missing = "ends"
    outer: bool = False

    def __post_init__(self) -> None:
        check_names(self.names, 2)
        check_age(self.max_age)
        _check_missing(self.missing, self.max_age)
        if self.strict and self.driven_by == "either":
            raise ValueError("strict needs driven_by: left: at its own reading input 1 would have its value before it")

    def meaning(self, inputs: Sequence[Meaning]) -> Meaning:
        """Of an object, that of each input."""
        return named(self.names, inputs)

    def keys_made(self, keys: frozenset[str] | None) -> frozenset[str] | None:
        """``names``."""
        return frozenset(self.names)

    def support(self, slot: int) -> Support:
        """What is held; of input 0 the instance at t where it drives."""
        if slot == 0 and self.driven_by == "left":
            return Pointwise()
        if self.max_age is None:
            return Previous(1 + self.strict)
        return Window(self.max_age + self.strict)

    def drive(self) -> Drive:
        """Input 0's times, or those of both."""
        return FromInput(0) if self.driven_by == "left" else FromUnion()

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """The pairs in ``interval``."""
        check_count(self, sources, 2)
        left, right = sources
        alone = self.driven_by == "left"
        times = left.slice(interval.start, interval.end).times if alone else _times_of(interval, sources)
        # Where input 0 drives, only its own instance counts.
        first = held(left, times, 1 if alone else self.max_age, "ends" if alone else self.missing)
        return _side_by_side(
            self, times, sources, (first, held(right, times, self.max_age, self.missing, strict=self.strict))
        )


@dataclass(frozen=True, kw_only=True)
class CombineLatest(Tool):
    """The values that all inputs hold, side by side, whenever one of them has a reading.

    Output, at each time at which any input has a reading: a list of the last values of all, in the order of the inputs;
    with ``names`` (one for each input) an object. ``max_age``: a value counts while it is younger than this (one of
    exactly this age does not); without it any age does. No output while any of them has no value; ``outer: true``
    puts ``null`` there, as long as one has a value.

    ``missing: ends`` (default): a reading that is unknown (``None``, NaN, ``unavailable``, ``unknown``) ends what its
    input holds; ``missing: keeps``: the value before it goes on, which needs ``max_age``. Values of any type are passed
    on unchanged.

    >>> celsius, humidity = Batch.of([(0, 20.0), (300, 22.0)]), Batch.of([(60, 50.0)])
    >>> list(CombineLatest(names=("c", "rh")).evaluate(TimeInterval(-1, 300), [celsius, humidity]))
    [(60, {'c': 20.0, 'rh': 50.0}), (300, {'c': 22.0, 'rh': 50.0})]
    """

    name = "combine_latest"
    version = "1.0.0"
    kind = "merge"
    arity = None
    samples = (
        {},
        {"max_age": "5s"},
        {"names": ["a", "b"], "max_age": "10s", "missing": "keeps"},
        {"names": ["a", "b"], "outer": True},
    )
    names: tuple[str, ...] | None = None
    max_age: Duration | None = None
    missing: Missing = "ends"
    outer: bool = False

    def __post_init__(self) -> None:
        check_age(self.max_age)
        _check_missing(self.missing, self.max_age)
        if self.names is not None:
            check_names(self.names)
            # Whoever connects the inputs then sees how many there must be.
            object.__setattr__(self, "arity", len(self.names))

    def meaning(self, inputs: Sequence[Meaning]) -> Meaning:
        """Of an object, that of each input."""
        return named(self.names, inputs)

    def keys_made(self, keys: frozenset[str] | None) -> frozenset[str] | None:
        """``names``."""
        return None if self.names is None else frozenset(self.names)

    def support(self, slot: int) -> Support:
        """The last instance, or those younger than max_age."""
        return Previous(1) if self.max_age is None else Window(self.max_age)

    def drive(self) -> Drive:
        """The times of all inputs."""
        return FromUnion()

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """What is held, at the times in ``interval``."""
        if self.names is not None:
            check_count(self, sources, len(self.names))
        times = _times_of(interval, sources)
        return _side_by_side(self, times, sources, [held(one, times, self.max_age, self.missing) for one in sources])


@dataclass(frozen=True, kw_only=True)
class LastValue(Tool):
    """The last value of a stream, at the ticks of a grid or at the times of another stream.

    With ``every``: one input; at each grid instant its last value at or before it. ``tz``: IANA zone of the grid.
    ``max_age`` is then needed, so that a silent sensor comes to an end. Without ``every``: two inputs; at each
    instance of input 0, whose values do not matter, the last value of input 1 at or before it.

    ``max_age``: only a value younger than this is given out (one of exactly this age is not). No output where there is
    none. Values of any type are passed on unchanged, ``None`` included: it is the last value then.

    >>> power = Batch.of([(1_500, 60.0), (9_000, 0.0)])
    >>> list(LastValue(every=1000, max_age=3000).evaluate(TimeInterval(0, 10_000), [power]))
    [(2000, 60.0), (3000, 60.0), (4000, 60.0), (9000, 0.0), (10000, 0.0)]
    """

    name = "last_value"
    version = "1.0.0"
    kind = "merge"
    output_kind = "same"
    output_unit = "same"
    arity = None
    alignment = 0
    samples = (
        {},
        {"max_age": "5s"},
        {"every": "1s", "max_age": "10s"},
        {"every": "10m", "max_age": "1m"},
        {"every": "1d", "max_age": "30h", "tz": "Europe/Brussels"},
    )
    every: Duration | None = None
    max_age: Duration | None = None
    tz: str | None = None

    def __post_init__(self) -> None:
        check_age(self.max_age)
        if self.every is not None:
            if self.max_age is None:
                raise ValueError("every needs max_age: how long a value may be held when the sensor is silent")
            if self.every <= 0:
                raise ValueError(f"every must be longer than 0, not {format_duration(self.every)}")
            Grid(self.every, self.tz)
        elif self.tz is not None:
            raise ValueError("tz needs every: it says on whose clock the grid lies")
        # Whoever connects the inputs then sees how many there must be.
        object.__setattr__(self, "arity", 2 if self.every is None else 1)

    def meaning(self, inputs: Sequence[Meaning]) -> Meaning:
        """That of the stream whose last value it is."""
        return inputs[-1]

    def support(self, slot: int) -> Support:
        """The driving input at t; of the other the last instance, or those younger than max_age."""
        if self.every is None and slot == 0:
            return Pointwise()
        return Previous(1) if self.max_age is None else Window(self.max_age)

    def drive(self) -> Drive:
        """The grid, or input 0's times."""
        return FromInput(0) if self.every is None else OnGrid(Grid(self.every, self.tz))

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """The values held in ``interval``."""
        if self.every is None:
            check_count(self, sources, 2)
            times, source = sources[0].slice(interval.start, interval.end).times, sources[1]
        else:
            check_count(self, sources, 1)
            assert self.max_age is not None
            source = sources[0]
            times = grid_times_near(Grid(self.every, self.tz), source.times, interval, self.max_age)
        found, valid = _last_at(source, times, self.max_age)
        times, found = times[valid], found[valid]
        if isinstance(source.values, np.ndarray):
            return Batch.build(times, source.values[found])
        return Batch.build(times, [source.values[index] for index in found.tolist()])
