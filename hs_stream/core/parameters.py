"""Parameters of tools: what a workflow file says for them becomes values of their types, and JSON-like values again."""

from __future__ import annotations

import types
import typing
import weakref
from typing import Any, Final, Literal, NewType

from hs_stream.core.time import format_duration, parse_duration
from hs_stream.core.value import canonical

__all__ = ["Duration", "coerce", "plain", "types_of"]

Duration = NewType("Duration", int)
"""A parameter in milliseconds, given as ``"5m"``, a ``timedelta`` or a number of seconds (see `parse_duration`)."""

_TYPES: Final[weakref.WeakKeyDictionary[type, dict[str, Any]]] = weakref.WeakKeyDictionary()


def types_of(kind: type) -> dict[str, Any]:
    """The types of its parameters. Python compiles them anew whenever it is asked, which takes about a millisecond."""
    found = _TYPES.get(kind)
    if found is None:
        found = _TYPES[kind] = typing.get_type_hints(kind)
    return found


def coerce(value: Any, hint: Any) -> Any:
    """``value`` as ``hint`` wants it, or ``ValueError`` that says what is expected. No silent narrowing."""
    origin = typing.get_origin(hint)
    if hint is Any:
        return canonical(value) if not callable(value) else value
    if hint is Duration:
        return parse_duration(value)
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(hint)
        if value is None and type(None) in options:
            return None
        failures = []
        for option in options:
            try:
                return coerce(value, option)
            except (TypeError, ValueError) as error:
                failures.append(str(error))
        raise ValueError("; or ".join(failures[: len(options)]))
    if origin is Literal:
        if value in typing.get_args(hint):
            return value
        raise ValueError(f"{value!r} is not one of {', '.join(map(repr, typing.get_args(hint)))}")
    if origin in (tuple, list):
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{value!r} is not a list")
        return tuple(coerce(item, typing.get_args(hint)[0]) for item in value)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError(f"{value!r} is not a finite number")
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    if hint is type(None) and value is None:
        return None
    names = {float: "a number", int: "a whole number", str: "text", bool: "true or false", type(None): "null"}
    raise ValueError(f"{value!r} is not {names.get(hint, getattr(hint, '__name__', str(hint)))}")


def plain(value: Any, hint: Any) -> Any:
    """``value``, a parameter of type ``hint``, as `coerce` takes it: a duration is text."""
    if type(value) is int and (hint is Duration or Duration in typing.get_args(hint)):
        return format_duration(value)
    if isinstance(value, tuple):
        return list(value)
    return value
