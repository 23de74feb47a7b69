"""Values as JSON that tells all of them apart: in HTTP answers, exported files, output of commands, and by ``jsonify``.

Messages over MQTT are plain JSON instead (`hs_stream_connectors.mqtt.sink`): NaN is ``null`` there.

================  ==========================================================================
value             JSON
================  ==========================================================================
NaN, Infinity     ``{"$number": "NaN"}``, ``"Infinity"``, ``"-Infinity"``
bytes             ``{"$binary": "<base64>"}``
datetime          ``{"$date": "2015-02-04T17:51:00Z"}``
TimeInterval      ``{"$interval": ["2015-02-04T17:51:00Z", "2015-02-04T17:52:00Z"]}``
all others        themselves
================  ==========================================================================
"""

from __future__ import annotations

import base64
import math
from datetime import datetime
from typing import Any

from hs_stream.core.time import TimeInterval, format_time, to_ms
from hs_stream.core.value import Value

__all__ = ["encode"]


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
