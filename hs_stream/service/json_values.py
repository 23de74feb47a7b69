"""Values and times as JSON, for HTTP answers and exported files.

================  ==========================================================================
value             JSON
================  ==========================================================================
NaN, Infinity     ``{"$number": "NaN"}``, ``"Infinity"``, ``"-Infinity"``
bytes             ``{"$binary": "<base64>"}``
datetime          ``{"$date": "2015-02-04T17:51:00Z"}``
TimeInterval      ``{"$interval": ["2015-02-04T17:51:00Z", "2015-02-04T17:52:00Z"]}``
all others        themselves
================  ==========================================================================

Times that are not values are ISO 8601 texts; the infinities are ``"-inf"`` and ``"inf"``.
"""

from __future__ import annotations

import base64
import math
from datetime import datetime
from typing import Any

import orjson

from hs_stream.core.time import TimeInterval, TimeIntervals, format_time, to_ms
from hs_stream.core.value import Value

__all__ = ["dumps", "encode", "intervals"]


def encode(value: Value) -> Any:
    """``value`` as something that every JSON writer takes.

    >>> encode([1.5, float("nan"), b"x"])
    [1.5, {'$number': 'NaN'}, {'$binary': 'eA=='}]
    """
    if isinstance(value, float) and not math.isfinite(value):
        return {"$number": "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"}
    if isinstance(value, dict):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    if isinstance(value, bytes):
        return {"$binary": base64.b64encode(value).decode()}
    if isinstance(value, datetime):
        return {"$date": format_time(to_ms(value))}
    if isinstance(value, TimeInterval):
        return {"$interval": [format_time(value.start), format_time(value.end)]}
    return value


def intervals(spans: TimeIntervals) -> list[list[str]]:
    """``[[start, end], ...]`` as ISO texts; each start is excluded, each end included."""
    return [[format_time(start), format_time(end)] for start, end in spans.pairs]


def dumps(document: Any) -> bytes:
    """Compact UTF-8 JSON of a document whose values are encoded."""
    return orjson.dumps(document)
