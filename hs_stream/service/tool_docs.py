"""A tool class as a JSON document, for the API and the command line."""

from __future__ import annotations

import dataclasses
from typing import Any

from hs_stream.core.time import format_duration
from hs_stream.core.tool import Duration, Tool
from hs_stream.service.json_values import encode

__all__ = ["tool_json"]


def tool_json(tool: type[Tool]) -> dict[str, Any]:
    """Name, version, what it does, and its parameters."""
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
        "summary": tool.summary(),
        "parameters": parameters,
    }
