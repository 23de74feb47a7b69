"""How a row of a table of tools in docs/guides/from-hyperstream.md is run.

Inputs are JSON: a list holds the values at 1 s, 2 s, ... after the epoch; an object has them by the time since then;
several inputs stand on both sides of ``;``; for an aggregate, an object has the streams of a plate by plate value;
``-`` is no input. The output is the values in (0, 60 s], or for a tool that splits, those of each plate value that has
any. Where the inputs have times, the output has them too, and is that of (0, 2 d].
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from hs_stream.core.batch import Batch
from hs_stream.core.json_form import encode
from hs_stream.core.time import TimeInterval, format_duration, parse_duration, to_ms
from hs_stream.core.tool import AggregateTool, Sources, SplitTool
from hs_stream.plugins import default_registry

REGISTRY = default_registry()
INTERVAL = TimeInterval(0, 60_000)
LONG = TimeInterval(0, 2 * 86_400_000)
"""For inputs with times: two days, so that a local midnight is inside."""
PLATE_VALUES = ("bath", "hall", "x", "y", "one", "two", "co2")
"""Those that a splitting tool is asked for."""


def _value(document: dict[str, Any]) -> Any:
    if list(document) == ["$interval"]:
        start, end = (to_ms(datetime.fromisoformat(text)) for text in document["$interval"])
        return TimeInterval(start, end)
    return document


def _batch(values: list[Any] | dict[str, Any]) -> Batch:
    if isinstance(values, dict):
        return Batch.of((parse_duration(time), value) for time, value in values.items())
    return Batch.of((1000 * (index + 1), value) for index, value in enumerate(values))


def evaluate(name: str, parameters: str, inputs: str) -> Any:
    """The output as JSON."""
    tool = REGISTRY.resolve(name).build(json.loads(parameters))
    given = [json.loads(part, object_hook=_value) for part in inputs.split(" ; ")] if inputs != "-" else []
    if isinstance(tool, AggregateTool):
        (plate,) = given
        sources = Sources([_batch(values) for values in plate.values()], list(plate))
        return [encode(value) for _, value in tool.evaluate(INTERVAL, sources)]
    batches = [_batch(values) for values in given]
    if isinstance(tool, SplitTool):
        parts = {value: tool.bound_to({"plate": value}, "plate").evaluate(INTERVAL, batches) for value in PLATE_VALUES}
        return {key: [encode(value) for _, value in part] for key, part in parts.items() if part}
    if any(isinstance(values, dict) for values in given):
        return {format_duration(time): encode(value) for time, value in tool.evaluate(LONG, batches)}
    return [encode(value) for _, value in tool.evaluate(INTERVAL, batches)]
