"""Sums over many windows at once that are rounded once each, as ``math.fsum`` rounds.

Each number is cut into parts on common grids, so coarse that all partial sums of a part are exact (the extraction of
S. M. Rump, T. Ogita, S. Oishi: Accurate Floating-Point Summation, 2008). So a part's sum over a window is a difference
of two of its running sums, exactly, and the parts' sums are added with one rounding.
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
    if len(parts) == 1:
        return parts[0] + 0.0
    if len(parts) == 2:
        return parts[0] + parts[1] + 0.0
    return np.array([math.fsum(some) + 0.0 for some in zip(*(part.tolist() for part in parts), strict=True)])


def _part_sums(numbers: Floats, low: Ints, high: Ints, beside: Sequence[Floats]) -> list[Floats] | None:
    """For each window numbers that together are its sum, exactly; ``None`` where three are not enough."""
    parts = _parts(np.concatenate((numbers, *beside)) if beside else numbers)
    if parts is None:
        return None
    found, count, windows = [], len(numbers), len(low)
    for part in parts:
        until = np.empty(count + 1)
        until[0] = 0.0
        np.cumsum(part[:count], out=until[1:])
        total = until[high] - until[low]
        for at in range(count, len(part), windows):
            total = total + part[at : at + windows]
        found.append(total)
    return found


def _parts(numbers: Floats) -> list[Floats] | None:
    """Arrays that add up to ``numbers``, whose running sums are exact; ``None`` where three are not enough."""
    largest = float(np.abs(numbers).max())
    if not math.isfinite(largest):
        return None
    # All are at most 2 ** top, and there are fewer than 2 ** more.
    top, more = math.frexp(largest)[1], (len(numbers) + 2).bit_length()
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
