"""What the tools share in reading values."""

from __future__ import annotations

import math
import reprlib
from datetime import datetime

from hs_stream.core.time import to_ms
from hs_stream.core.value import Value

__all__ = ["describe", "instant", "items", "number", "numbers", "wrong"]


def describe(value: Value) -> str:
    """``float 21.5``: type and shortened text of a value, for messages."""
    return "None" if value is None else f"{type(value).__name__} {reprlib.repr(value)}"


def wrong(tool: str, wanted: str, value: Value, where: str = "") -> TypeError:
    """The error that says what ``tool`` wants and what came, and ``where``."""
    return TypeError(f"{tool} needs {wanted}, but got {describe(value)}{where}")


def number(tool: str, value: Value, where: str = "") -> float | None:
    """``value`` as a float, or ``None`` when it is missing (``None`` or NaN). ``TypeError`` for what is no number."""
    if type(value) is float:
        return None if math.isnan(value) else value
    if value is None:
        return None
    if isinstance(value, (int, float)):
        return float(value)
    raise wrong(tool, "numbers", value, where)


def items(tool: str, value: Value) -> list[Value] | None:
    """The elements of a list, or ``None`` where the whole value is. ``TypeError`` for what is no list."""
    if value is None or isinstance(value, list):
        return value
    raise wrong(tool, "lists", value)


def numbers(tool: str, value: Value) -> list[float] | None:
    """As `items`, without those that are missing. ``TypeError`` names the first that is no number, and its index."""
    found = items(tool, value)
    if found is None:
        return None
    floats = (number(tool, item, f" at index {index}") for index, item in enumerate(found))
    return [item for item in floats if item is not None]


def instant(name: str, text: str) -> int:
    """The milliseconds of the parameter ``name``, ISO 8601 with an offset. ``ValueError`` says what to write."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}, which is not a time: write 2015-02-04T06:00:00Z") from None
    if found.tzinfo is None:
        raise ValueError(f"{name} is {text!r}, which has no offset: write {found.isoformat()}Z for UTC")
    return to_ms(found)
