"""Tools over all streams of a plate."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from hs_stream.core.tool import SKIP, AggregateTool
from hs_stream.core.value import Value
from hs_stream_tools._values import number

__all__ = ["Aggregate"]

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
    takes = "number"
    samples = tuple({"function": name} for name in Function.__args__)  # type: ignore[attr-defined]
    function: Function

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
