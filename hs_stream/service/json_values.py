"""Values and times as JSON, for HTTP answers and exported files.

Values are encoded as in `hs_stream.core.json_form`. Times that are not values are ISO 8601 texts; the infinities are
``"-inf"`` and ``"inf"``.
"""

from __future__ import annotations

from typing import Any

import orjson

from hs_stream.core.json_form import encode
from hs_stream.core.time import TimeIntervals, format_time

__all__ = ["dumps", "encode", "intervals"]


def intervals(spans: TimeIntervals) -> list[list[str]]:
    """``[[start, end], ...]`` as ISO texts; each start is excluded, each end included."""
    return [[format_time(start), format_time(end)] for start, end in spans.pairs]


def dumps(document: Any) -> bytes:
    """Compact UTF-8 JSON of a document whose values are encoded."""
    return orjson.dumps(document)
