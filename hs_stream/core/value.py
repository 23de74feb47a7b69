"""The values that an instance may hold, and when two of them are the same.

1. A value is ``None``, ``bool``, ``int`` (64 bits, signed), ``float``, ``str``, ``list``, ``dict`` with ``str`` keys,
   an aware ``datetime`` (UTC, whole milliseconds), ``bytes`` or a ``TimeInterval``, nested at most `MAX_DEPTH` deep.
2. `same` compares type and bits: ``1`` is not ``1.0`` and not ``True``; NaN is NaN; ``0.0`` is not ``-0.0``.
3. `canonical` turns what callers naturally pass (tuples, numpy scalars and arrays, datetimes in any zone) into 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, cast

import numpy as np

from hs_stream.core.time import TimeInterval, from_ms, to_ms

__all__ = ["MAX_DEPTH", "Value", "canonical", "same"]

Value = Any
"""A value as in rule 1. An alias: Python's type system has no useful recursive JSON type."""

MAX_DEPTH: Final = 64
_INT64_MIN: Final = -(1 << 63)
_INT64_MAX: Final = (1 << 63) - 1


def same(left: Value, right: Value) -> bool:
    """Whether two canonical values are the same, by rule 2.

    >>> same(float("nan"), float("nan")), same(1, 1.0), same([0.0], [-0.0])
    (True, False, False)
    """
    kind = type(left)
    if kind is not type(right):
        return False
    if kind is float:
        if left == right:
            return left != 0.0 or math.copysign(1.0, left) == math.copysign(1.0, right)
        return bool(left != left and right != right)
    if kind is dict:
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    if kind is list:
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def canonical(value: Any, depth: int = 0) -> Value:
    """``value`` in the form of rule 1. A value that already has it is returned as it is, containers copied.

    Raises ``ValueError`` with the place (``.a[2]: ...``) and what is allowed.
    """
    kind = type(value)
    if kind is float or kind is bool or value is None or kind is bytes or kind is TimeInterval:
        return value
    if kind is int:
        if _INT64_MIN <= value <= _INT64_MAX:
            return value
        raise ValueError(f": the integer {value:.3e} does not fit into 64 bits; send it as a float or as text")
    if kind is str:
        return _text(value)
    if depth >= MAX_DEPTH:
        raise ValueError(f": nested more than {MAX_DEPTH} deep")
    if kind is dict:
        return _mapping(value, depth)
    if kind in (list, tuple):
        return _sequence(value, depth)
    if isinstance(value, datetime):
        try:
            return from_ms(to_ms(value)).astimezone(UTC)
        except TypeError as error:
            raise ValueError(f": {error}") from None
    return _foreign(value, depth)


def _text(value: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(": the text holds a lone surrogate, which is not valid Unicode") from None
    return value


def _mapping(value: dict[Any, Any], depth: int) -> dict[str, Value]:
    result = {}
    for key, item in value.items():
        if type(key) is not str:
            raise ValueError(f": the key {key!r} of an object is not text; use text keys")
        if "\0" in key:
            raise ValueError(f": the key {key!r} of an object holds a NUL character")
        _text(key)
        try:
            result[key] = canonical(item, depth + 1)
        except ValueError as error:
            raise ValueError(f".{key}{error}") from None
    return result


def _sequence(value: list[Any] | tuple[Any, ...], depth: int) -> list[Value]:
    result = []
    for index, item in enumerate(value):
        try:
            result.append(canonical(item, depth + 1))
        except ValueError as error:
            raise ValueError(f"[{index}]{error}") from None
    return result


def _foreign(value: Any, depth: int) -> Value:
    if isinstance(value, np.ndarray):
        return canonical(value.tolist(), depth)
    if isinstance(value, np.generic):
        return canonical(value.item(), depth)
    bases: tuple[Callable[[Any], Value], ...] = (bool, int, float, str, bytes, dict, list, tuple)
    for base in bases:
        if isinstance(value, cast("type", base)):
            return canonical(base(value), depth)
    raise ValueError(
        f": {type(value).__name__} cannot be stored; "
        "use None, bool, int, float, str, list, dict, datetime, bytes or TimeInterval"
    )
