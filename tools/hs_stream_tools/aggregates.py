"""Tools over all streams of a plate."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.kinds import NO_UNIT, Meaning
from hs_stream.core.time import TimeInterval, format_duration
from hs_stream.core.tool import SKIP, AggregateTool, Duration, Pointwise, Previous, Sources, Support, Window, batch_of
from hs_stream.core.units import difference
from hs_stream.core.value import Value
from hs_stream_tools._lasting import Missing, at, held
from hs_stream_tools._values import number

__all__ = ["Aggregate", "AggregateOfStates"]

Function = Literal["mean", "sum", "min", "max", "count", "median", "std", "first", "last", "any", "all"]


def exact_sum(values: list[float]) -> float:
    """The sum rounded once, whatever the order. NaN or infinite where plain addition is."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):
        # fsum has no sum for inf - inf or beyond the largest float; plain addition says nan or inf.
        return sum(values)


def _mean(values: list[float]) -> float:
    return exact_sum(values) / len(values)


def _std(values: list[float]) -> Value:
    if len(values) < 2:
        return SKIP
    mean = _mean(values)
    return math.sqrt(exact_sum([(value - mean) * (value - mean) for value in values]) / (len(values) - 1))


_FUNCTIONS: Final[dict[str, Callable[[list[float]], Value]]] = {
    "mean": _mean,
    "sum": exact_sum,
    "min": min,
    "max": max,
    "median": lambda values: float(statistics.median(values)),
    "std": _std,
    "any": lambda values: any(value != 0.0 for value in values),
    "all": lambda values: all(value != 0.0 for value in values),
}


def _meaning(function: Function, one: Meaning) -> Meaning:
    if function in ("count", "any", "all"):
        return Meaning("state", NO_UNIT)
    return replace(one, unit=difference(one.unit)) if function == "std" else one


@dataclass(frozen=True, kw_only=True)
class Aggregate(AggregateTool):
    """One value over all streams of a plate, at each time at which any of them has an instance.

    ``function``: ``mean``, ``sum``, ``min``, ``max``, ``median`` and ``std`` (sample standard deviation, n - 1) give
    floats; ``count`` an int: how many values are not missing; ``any`` and ``all`` a bool: whether any or every value
    is not 0; ``first`` and ``last`` the value itself of the first or last plate value (sorted as text) that has one.

    Only instances at exactly that time count: put streams with times of their own on one grid before, for example
    with ``sliding_mean`` or ``last_value`` and ``every``. Missing values (``None``, NaN) are ignored. No output where
    all are missing (but ``count`` gives 0), nor for ``std`` of one value. Sums are exactly rounded, so the order of
    the streams does not matter. ``TypeError`` for what is no number (``first``, ``last`` and ``count`` take anything).

    >>> Aggregate(function="mean").aggregate([20.0, None, 22.0], ["bath", "hall", "kitchen"])
    21.0
    """

    name = "aggregate"
    version = "1.0.0"
    output_kind = "same"
    output_unit = "same"
    takes = "number"
    samples = tuple({"function": name} for name in Function.__args__)  # type: ignore[attr-defined]
    function: Function

    def meaning(self, inputs: Sequence[Meaning]) -> Meaning:
        """That of the streams; how many there are, and whether, has no unit."""
        return _meaning(self.function, inputs[0])

    def aggregate(self, values: Sequence[Value], keys: Sequence[str]) -> Value:
        """The function of the values that are not missing, or SKIP."""
        if self.function in ("count", "first", "last"):
            there = [value for value in values if value is not None and value == value]
            if self.function == "count":
                return len(there)
            if not there:
                return SKIP
            return there[0] if self.function == "first" else there[-1]
        floats = []
        for key, value in zip(keys, values, strict=True):
            found = number(f"aggregate with function={self.function}", value, f" from {key!r}")
            if found is not None:
                floats.append(found)
        # Adding 0.0 turns -0.0 into 0.0: which of the two min and max find depends on the order.
        if not floats:
            return SKIP
        result = _FUNCTIONS[self.function](floats)
        return result + 0.0 if type(result) is float else result


def _whole_sum(values: list[Any]) -> Value:
    """Of whole numbers a whole number, as long as it can be stored; else `exact_sum`."""
    if all(type(value) is int for value in values) and -(1 << 63) <= (total := sum(values)) < 1 << 63:
        return total
    return exact_sum([float(value) for value in values])


@dataclass(frozen=True, kw_only=True)
class AggregateOfStates(AggregateTool):
    """One value over all streams of a plate, each with the value that it holds, when any of them has a reading.

    ``function``: ``mean``, ``median`` and ``std`` (sample standard deviation, n - 1) give floats; ``sum``, ``min`` and
    ``max`` whole numbers where all are whole, else floats, and a sum is rounded once; ``count`` an int: of how many
    streams a value is known; ``any`` and ``all`` a bool: whether any or every value is not 0; ``first`` and ``last``
    the value itself of the first or last plate value (sorted as text) of which one is known.

    ``hold``: each stream counts with its last value that is younger than this (exactly this old is too old);
    ``forever``: with its last value. So streams with times of their own meet. Without it only readings at exactly the
    same time do.

    ``require``: without as many values there is no output, since the sum of a part is no sum. ``3``: of at least so
    many streams. ``0.5``, a number with a point, above 0 and not above 1: of at least this share of the streams that
    have had a reading by then. ``all``: of each of these, which for ``sum`` is the default where there is ``hold``.
    Otherwise the default is one value, and ``count`` needs none.

    ``missing: ends`` (default): a reading that is unknown (``None``, NaN, ``unavailable``, ``unknown``) ends what its
    stream holds, and is a time of output too. ``missing: keeps``: the value before it goes on, which needs ``hold`` to
    be a duration. ``TypeError`` for what is no number (``first``, ``last`` and ``count`` take anything).

    >>> phases = Sources([Batch.of([(0, 100), (10_000, 110)]), Batch.of([(120, 200)])], ["l1", "l2"])
    >>> list(AggregateOfStates(function="sum", hold=60_000, require=2).evaluate(TimeInterval(-1, 20_000), phases))
    [(120, 300), (10000, 310)]
    """

    name = "aggregate"
    version = "2.0.0"
    output_kind = "same"
    output_unit = "same"
    takes = "number"
    samples = (
        *({"function": name} for name in Function.__args__),  # type: ignore[attr-defined]
        {"function": "sum", "hold": "5s"},
        {"function": "sum", "hold": "5s", "require": 2},
        {"function": "mean", "hold": "1m", "require": 0.5, "missing": "keeps"},
        {"function": "any", "hold": "forever"},
        {"function": "max", "hold": "forever", "require": "all"},
        {"function": "count", "hold": "10s", "require": 0.7},
    )
    function: Function
    hold: Duration | Literal["forever"] | None = None
    require: Literal["all"] | int | float | None = None
    missing: Missing = "ends"

    def __post_init__(self) -> None:
        if isinstance(self.hold, int) and self.hold <= 0:
            raise ValueError(f"hold must be longer than 0, not {format_duration(self.hold)}")
        if self.missing == "keeps" and not isinstance(self.hold, int):
            raise ValueError("missing: keeps needs hold with a duration: how old may the value before be?")
        if isinstance(self.require, float) and not 0 < self.require <= 1:
            raise ValueError(f"require is a share above 0 and not above 1, or a whole number, not {self.require}")
        if isinstance(self.require, int) and self.require < 1:
            raise ValueError(f"require must be at least 1, but is {self.require}")
        if self.hold is None and self._share is not None:
            raise ValueError("require with all or a share needs hold: who else had a reading is not known without it")

    def meaning(self, inputs: Sequence[Meaning]) -> Meaning:
        """That of the streams; how many there are, and whether, has no unit."""
        return _meaning(self.function, inputs[0])

    @property
    def _share(self) -> float | None:
        """Of those that have had a reading, how many must have a value."""
        if self.require is None:
            return 1.0 if self.function == "sum" and self.hold is not None else None
        return 1.0 if self.require == "all" else self.require if isinstance(self.require, float) else None

    def support(self, slot: int) -> Support:
        """The instances at t; with ``hold`` what is younger, and whether there was any before."""
        if self.hold is None:
            return Pointwise()
        if not isinstance(self.hold, int):
            return Previous(1)
        return Window(self.hold, before=0 if self._share is None else 1)

    def aggregate(self, values: Sequence[Value], keys: Sequence[str]) -> Value:
        """The function of the values, of which none is unknown; or SKIP where there is none."""
        if self.function == "count":
            return len(values)
        if not values:
            return SKIP
        if self.function in ("first", "last"):
            return values[0] if self.function == "first" else values[-1]
        numbers: list[Any] = []
        for key, value in zip(keys, values, strict=True):
            found = number(f"aggregate with function={self.function}", value, f" from {key!r}")
            numbers.append(int(value) if isinstance(value, int) else found)
        if self.function == "sum":
            result = _whole_sum(numbers)
        elif self.function in ("min", "max"):
            result = min(numbers) if self.function == "min" else max(numbers)
        else:
            result = _FUNCTIONS[self.function]([float(one) for one in numbers])
        # 0.0 is the same whichever of 0.0 and -0.0 comes first.
        return result + 0.0 if type(result) is float else result

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """`aggregate` of what is held, at each time of the union in ``interval`` at which there is enough."""
        keys = sources.keys if isinstance(sources, Sources) and sources.keys else [str(i) for i in range(len(sources))]
        inside = [source.slice(interval.start, interval.end).times for source in sources]
        if not any(len(some) for some in inside):
            return NOTHING
        times = np.unique(np.concatenate(inside))
        begun = np.zeros(len(times), np.int64)
        at_each: list[tuple[list[Value], list[str]]] = [([], []) for _ in range(len(times))]
        max_age = 1 if self.hold is None else self.hold if isinstance(self.hold, int) else None
        for key, source in zip(keys, sources, strict=True):
            found, valid = held(source, times, max_age, self.missing)
            if self._share is not None:
                begun += source.times.searchsorted(times, "right") > 0
            for index in np.flatnonzero(valid).tolist():
                values, names = at_each[index]
                values.append(at(source, int(found[index])))
                names.append(key)
        results = []
        for (values, names), count in zip(at_each, begun.tolist(), strict=True):
            results.append(self.aggregate(values, names) if self._enough(len(values), count) else SKIP)
        return batch_of(times, results)

    def _enough(self, known: int, begun: int) -> bool:
        if self._share is not None:
            return known >= round(self._share * begun, 9)
        return known >= self.require if isinstance(self.require, int) else True
