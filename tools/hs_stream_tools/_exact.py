"""Exact sums as values: what a fold adds up is rounded once, when it is told, whatever the order and the number.

A `Sum` is a canonical value, so that a state can hold it: an integer as long as only integers were added, and then a
list of floats that together are the sum, exactly (J. R. Shewchuk, Adaptive Precision Floating-Point Arithmetic, 1997;
as in ``math.fsum``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

__all__ = ["Number", "Sum", "added", "empty", "negative", "rounded", "together"]

Number = int | float
Sum = int | list[float]

_INT64 = 1 << 63


def empty(like: Sum) -> Sum:
    """Nothing, as an integer or as a float, as ``like`` is."""
    return 0 if isinstance(like, int) else []


def added(total: Sum, numbers: Iterable[Number]) -> Sum:
    """``total`` and each of ``numbers`` (finite). ``OverflowError`` beyond the largest float."""
    for number in numbers:
        if isinstance(number, int):
            if isinstance(total, int):
                whole = total + number
                total = whole if -_INT64 <= whole < _INT64 else _parts(whole)
            else:
                for part in _parts(number):
                    total = _grown(total, part)
        else:
            total = _grown(_parts(total) if isinstance(total, int) else total, number)
    return total


def together(one: Sum, other: Sum) -> Sum:
    """The sum of two sums: a float as soon as one of them is."""
    if isinstance(other, int):
        return added(one, [other]) if other else one
    return added(added([], [one]) if isinstance(one, int) else one, other)


def negative(total: Sum) -> Sum:
    """``-total``."""
    return added(0, [-total]) if isinstance(total, int) else [-part for part in total]


def rounded(total: Sum) -> Number:
    """The sum: an integer, or the float that is nearest to it; never -0.0."""
    return total if isinstance(total, int) else math.fsum(total) + 0.0


def _parts(whole: int) -> list[float]:
    """``whole`` as floats."""
    parts: list[float] = []
    while whole:
        part = float(whole)
        parts.insert(0, part)
        whole -= int(part)
    return parts


def _grown(parts: list[float], number: float) -> list[float]:
    """``parts`` and ``number``: what does not fit into one float stays behind in another."""
    grown = []
    for part in parts:
        larger, smaller = (number, part) if abs(number) >= abs(part) else (part, number)
        number = larger + smaller
        if rest := smaller - (number - larger):
            grown.append(rest)
    if math.isinf(number):
        raise OverflowError("a sum is larger than any float")
    grown.append(number)
    return grown
