"""How many bytes of memory a value takes, about: one measure for whatever is bounded in bytes.

1. A number costs nothing to measure: a column of numbers has its array's bytes. Only text, bytes and containers are
   looked into.
2. What two values share is counted for each (a text that is interned, a small integer). So the sum is rather too high.
3. It is never less than the bytes of the value as MessagePack.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from sys import getsizeof
from typing import Final, NamedTuple

import numpy as np

from hs_stream.core.batch import Batch, Values
from hs_stream.core.time import TimeInterval
from hs_stream.core.value import Value

__all__ = ["PAGE", "POINTER", "Use", "fitting", "is_full", "size_of", "size_of_batch", "size_of_values"]

POINTER: Final = 8
PAGE: Final = 8 << 20
"""The bytes of what is read and shown at once, where nobody says otherwise."""
_FIXED: Final[dict[type, int]] = {type(None): POINTER, bool: POINTER, float: 24 + POINTER, int: 32 + POINTER}
_OTHER: Final = 48 + POINTER
"""A datetime."""
_INTERVAL: Final = _OTHER + 2 * 32


class Use(NamedTuple):
    """Bytes in use, how many there may be, and how often something was forgotten or ended to keep to it."""

    used: int
    limit: int
    forgotten: int = 0


def size_of(value: Value) -> int:
    """The bytes of a canonical value, and of the reference to it.

    >>> size_of(21.5), size_of("x" * 1000) > 1000, size_of({"temperature": 21.5}) < 500
    (32, True, True)
    """
    kind = type(value)
    fixed = _FIXED.get(kind)
    if fixed is not None:
        return fixed
    if kind is dict:
        total = getsizeof(value) + POINTER
        for key, item in value.items():
            fixed = _FIXED.get(type(item))
            total += getsizeof(key) + (size_of(item) if fixed is None else fixed)
        return total
    if kind is list or kind is tuple:
        total = 56 + POINTER
        for item in value:
            fixed = _FIXED.get(type(item))
            total += size_of(item) if fixed is None else fixed
        return total
    if kind is str or kind is bytes:
        return getsizeof(value) + POINTER
    return _INTERVAL if kind is TimeInterval else _OTHER


def size_of_values(values: Values | Sequence[Value]) -> int:
    """The bytes of a column of a batch."""
    if isinstance(values, np.ndarray):
        return int(values.nbytes)
    return sum(map(size_of, values))


def size_of_batch(batch: Batch) -> int:
    """The bytes of times and values.

    >>> size_of_batch(Batch.of([(1, 1.5), (2, 2.5)]))
    32
    """
    return int(batch.times.nbytes) + size_of_values(batch.values)


def fitting(values: Iterable[Value], budget: int) -> int:
    """How many instances with these ``values`` come before ``budget`` bytes are full, with the one that fills them.

    >>> fitting(["x" * 1000] * 9, 2500), fitting(["x" * 1000], 1), fitting([], 1)
    (3, 1, 0)
    """
    count, left = 0, budget
    for value in values:
        count += 1
        left -= size_of(value) + POINTER
        if left <= 0:
            break
    return count


def is_full(batch: Batch, limit: int | None, budget: int | None) -> bool:
    """Whether a read of at most ``limit`` instances, within ``budget`` bytes, ended there: there may be more.

    As in `fitting`, a number has the size of an object, also in an array.
    """
    if limit is not None and len(batch) >= limit:
        return True
    if budget is None or not batch:
        return False
    values = batch.values
    if isinstance(values, np.ndarray):
        return len(values) * (size_of(values[0].item()) + POINTER) >= budget
    return sum(map(size_of, values)) + POINTER * len(values) >= budget
