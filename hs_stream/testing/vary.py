"""Parameters beside those that a tool's author thought of: its samples, with some of them changed."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.time import format_duration, parse_duration
from hs_stream.core.tool import Duration, Tool

__all__ = ["varied"]

_ATTEMPTS: Final = 8
_FACTORS: Final = (0.5, 2.0, 3.0, 1 / 7)
_ZONES: Final = ("Europe/Brussels", "Australia/Lord_Howe", "America/St_Johns", "Asia/Kathmandu", "UTC")


def varied(kind: type[Tool], sample: Mapping[str, Any], random: np.random.Generator) -> Tool:
    """The tool with ``sample``, of which durations, numbers, choices and zones are changed at random.

    Texts, functions and switches stay, for only the author knows which others mean something together; so does what
    the sample leaves out. A set that the tool refuses is drawn anew, up to 8 times; then it is ``sample`` itself.
    """
    hints = typing.get_type_hints(kind)
    for _ in range(_ATTEMPTS):
        drawn = {
            name: _changed(name, value, hints.get(name), random) if random.random() < 0.6 else value
            for name, value in sample.items()
        }
        try:
            return kind.build(drawn)
        except ConfigurationError:
            continue
    return kind.build(sample)


def _changed(name: str, value: Any, hint: Any, random: np.random.Generator) -> Any:
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if value is None:
        return None
    for option in options:
        # A period is a word or a duration, and stays what it is.
        if typing.get_origin(option) is typing.Literal and (
            Duration not in options or value in typing.get_args(option)
        ):
            return random.choice(np.array(typing.get_args(option), dtype=object))
    if Duration in options:
        return _duration(value, random)
    if name == "tz":
        return _ZONES[int(random.integers(len(_ZONES)))]
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and int in options:
        return value + int(random.integers(-2, 3))
    if isinstance(value, (int, float)) and float in options:
        return float(value) * _factor(random) + float(random.choice([0.0, 0.0, 1.0]))
    return value


def _duration(value: Any, random: np.random.Generator) -> str:
    milliseconds = round(parse_duration(value) * _factor(random))
    return format_duration(milliseconds + int(random.choice([0, 0, 0, 1, -1])))


def _factor(random: np.random.Generator) -> float:
    return _FACTORS[int(random.integers(len(_FACTORS)))]
