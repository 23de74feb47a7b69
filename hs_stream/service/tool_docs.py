"""A tool class as a JSON document, for the API and the command line."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from hs_stream.core.kinds import UnitRule
from hs_stream.core.time import format_duration
from hs_stream.core.tool import Duration, Tool
from hs_stream.service.json_values import encode

__all__ = ["kinds_of", "tool_json"]

_UNITS: Final[dict[UnitRule, str]] = {
    "same": "in the unit of its input",
    "difference": "in the unit of a difference of its input",
    "times time": "in the unit of its input times the time `unit`",
    "per time": "in the unit of its input per the time `unit`",
    "product": "in the product of the units of its inputs",
    "none": "without a unit",
    "parameter": "in the unit of a parameter",
}


def kinds_of(tool: type[Tool]) -> str:
    """A line for people: ``reads state or sample, makes amount, in the unit of its input``; empty: nothing is known."""
    words = [f"reads {' or '.join(tool.input_kinds)}"] if tool.input_kinds else []
    if tool.output_kind != "unknown":
        words.append(f"makes {'the kind of its input' if tool.output_kind == 'same' else tool.output_kind}")
    return ", ".join([*words, *([_UNITS[tool.output_unit]] if tool.output_unit in _UNITS else [])])


def tool_json(tool: type[Tool]) -> dict[str, Any]:
    """Name, version, what it does, of which kinds its values are, and its parameters."""
    parameters = []
    for field in dataclasses.fields(tool):  # type: ignore[arg-type]
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        default = None if field.default is dataclasses.MISSING else field.default
        if isinstance(default, int) and not isinstance(default, bool) and "Duration" in str(field.type):
            default = format_duration(Duration(default))
        kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))
        entry = {"name": field.name, "type": kind, "required": required}
        parameters.append(entry if required else entry | {"default": encode(default)})
    return {
        "name": tool.name,
        "version": tool.version,
        "kind": tool.kind,
        "inputs": tool.arity,
        "takes": tool.takes,
        "input_kinds": list(tool.input_kinds),
        "output_kind": tool.output_kind,
        "output_unit": tool.output_unit,
        "summary": tool.summary(),
        "parameters": parameters,
    }
