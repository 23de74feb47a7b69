"""Sums over many windows at once that are rounded once each, as ``math.fsum`` rounds.

Each number is cut into parts on common grids, so coarse that all partial sums of a part are exact (the extraction of
S. M. Rump, T. Ogita, S. Oishi: Accurate Floating-Point Summation, 2008). So a part's sum over a window is a difference
of two of its running sums, exactly, and the parts' sums are added with one rounding (of three: S. Boldo, G. Melquiond,
Emulation of FMA and correctly rounded sums, 2008).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from hs_stream_tools._sliding import Floats, Ints

__all__ = ["exact_sum", "exact_sums"]

_FEW: Final = 192
"""So many numbers in all windows are added faster one by one."""
_PARTS: Final = 3
_LARGEST: Final = 1020
_BESIDE: Final = 2.0**_LARGEST


def exact_sum(numbers: Sequence[float]) -> float:
    """The sum rounded once; NaN or infinite where plain addition is. Never -0.0.

    >>> exact_sum([1.0, 1e16, 1.0, -1e16])
    2.0
    """
    try:
        return math.fsum(numbers) + 0.0
    except (OverflowError, ValueError):
        # fsum has no sum for inf - inf or beyond the largest float; plain addition says nan or inf.
        return sum(numbers)


def exact_sums(numbers: Floats, low: Ints, high: Ints, *beside: Floats) -> Floats:
    """`exact_sum` of each ``numbers[low[i]:high[i]]``, together with ``beside[...][i]``."""
    parts = None if int((high - low).sum()) <= _FEW else _part_sums(numbers, low, high, beside)
    if parts is None:
        rows = zip(low.tolist(), high.tolist(), *(column.tolist() for column in beside), strict=True)
        return np.array([exact_sum([*numbers[first:last].tolist(), *more]) for first, last, *more in rows])
    return (parts[0] if len(parts) == 1 else parts[0] + parts[1] if len(parts) == 2 else _sum_of_three(*parts)) + 0.0


def _sum_of_three(a: Floats, b: Floats, c: Floats) -> Floats:
    """``a + b + c``, rounded once: what is lost of it before the last addition is in the last bit of what that adds."""
    high, low = _two_sum(b, c)
    top, rest = _two_sum(a, high)
    odd, lost = _two_sum(rest, low)
    bits = odd.view(np.int64)
    is_even = (bits & 1) == 0
    bits += np.where((lost != 0.0) & is_even, np.where((lost > 0.0) == (odd > 0.0), 1, -1), 0)
    total: Floats = top + odd
    return total


def _two_sum(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """The rounded sum and what rounding lost, exactly (D. E. Knuth)."""
    found = a + b
    of_b = found - a
    return found, (a - (found - of_b)) + (b - of_b)


def _part_sums(numbers: Floats, low: Ints, high: Ints, beside: Sequence[Floats]) -> list[Floats] | None:
    """For each window numbers that together are its sum, exactly; ``None`` where three are not enough."""
    # So many numbers are added at the most.
    more = (len(numbers) + len(beside) + 2).bit_length()
    parts = _parts(numbers, more)
    if parts is None:
        return None
    if beside and len(parts) + len(beside) <= _PARTS:
        if any(not np.abs(column).max() < _BESIDE for column in beside):
            return None
        return [*(_differences(part, low, high) for part in parts), *beside]
    if beside:
        parts = _parts(np.concatenate((numbers, *beside)), more)
        if parts is None:
            return None
    found, count, windows = [], len(numbers), len(low)
    for part in parts:
        total = _differences(part[:count], low, high)
        for at in range(count, len(part), windows):
            total = total + part[at : at + windows]
        found.append(total)
    return found


def _differences(part: Floats, low: Ints, high: Ints) -> Floats:
    """The sum of each ``part[low[i]:high[i]]``, all of whose running sums are exact."""
    until = np.empty(len(part) + 1)
    until[0] = 0.0
    np.cumsum(part, out=until[1:])
    found: Floats = until[high] - until[low]
    return found


def _parts(numbers: Floats, more: int) -> list[Floats] | None:
    """Arrays that add up to ``numbers``, of which sums of less than 2 ** ``more`` are exact; ``None``: three do not."""
    largest = float(np.abs(numbers).max())
    if not math.isfinite(largest):
        return None
    # All are at most 2 ** top.
    top = math.frexp(largest)[1]
    parts, rest = [], numbers
    for _ in range(_PARTS):
        if top + more > _LARGEST:
            return None
        unit = math.ldexp(1.0, top + more)
        part = (rest + unit) - unit
        parts.append(part)
        rest = rest - part
        if not rest.any():
            return parts
        top += more - 53
    return None
