"""What the tools share in reading values."""

from __future__ import annotations

import math
import reprlib

from hs_stream.core.value import Value

__all__ = ["describe", "number", "wrong"]


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
