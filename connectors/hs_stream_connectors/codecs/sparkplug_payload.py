"""The payload of Sparkplug B: which fields a metric has, and what its value is by its data type.

Field numbers and data types are those of the Sparkplug 3.0 specification, chapter 6 (payloads). Only what a reading
needs is decoded: metadata, property sets, data sets and templates are skipped; a metric whose value is a data set or a
template has none that we know (``type``).

======================  ====================================================================
Int8 ... Int64          int, from two's complement
UInt8 ... UInt64        int; beyond 63 bits it is refused (``value``)
Float, Double           float; NaN and infinity are refused (``not_finite``)
Boolean                 bool
String, Text, UUID      text
DateTime                int, milliseconds since the epoch
Bytes, File             bytes
arrays of numbers       list
======================  ====================================================================
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from hs_stream.core.errors import PayloadError
from hs_stream_connectors.codecs.protobuf import FIXED32, FIXED64, LENGTH, VARINT, encode, fields

__all__ = ["BIRTH_SEQUENCE", "REBIRTH", "Metric", "Payload", "parse", "rebirth_command", "value_of"]

BIRTH_SEQUENCE: Final = "bdSeq"
REBIRTH: Final = "Node Control/Rebirth"
_SIGNED: Final = {1: 8, 2: 16, 3: 32, 4: 64}
_UNSIGNED: Final = frozenset({5, 6, 7, 8, 13})
_BOOLEAN: Final = 11
_TEXTS: Final = frozenset({12, 14, 15})
_BYTES: Final = frozenset({17, 18})
_ARRAYS: Final = {
    22: "<i1", 23: "<i2", 24: "<i4", 25: "<i8", 26: "<u1", 27: "<u2", 28: "<u4", 29: "<u8", 30: "<f4", 31: "<f8",
    34: "<i8",
}  # fmt: skip

# Of a metric's fields with a value: the number, what it is called, and how it stands there.
_VALUES: Final = {
    10: ("int", VARINT),
    11: ("int", VARINT),
    12: ("float", FIXED32),
    13: ("float", FIXED64),
    14: ("bool", VARINT),
    15: ("text", LENGTH),
    16: ("bytes", LENGTH),
    17: ("data set", LENGTH),
    18: ("template", LENGTH),
    19: ("extension", LENGTH),
}


@dataclass(slots=True)
class Metric:
    """One metric. ``kind`` says what ``content`` is, ``""`` for none; ``datatype`` is 0 where it is not there."""

    name: str = ""
    alias: int | None = None
    timestamp: int | None = None
    datatype: int = 0
    transient: bool = False
    null: bool = False
    kind: str = ""
    content: Any = None


@dataclass(slots=True)
class Payload:
    """One message."""

    timestamp: int | None = None
    seq: int | None = None
    metrics: list[Metric] = field(default_factory=list)


def parse(data: bytes) -> Payload:
    """The message in ``data``. `PayloadError`: ``protobuf``, ``encoding``."""
    payload = Payload()
    try:
        for number, kind, content in fields(data):
            if number == 1 and kind == VARINT:
                payload.timestamp = int(content)
            elif number == 2 and kind == LENGTH:
                assert isinstance(content, bytes)
                payload.metrics.append(_metric(content))
            elif number == 3 and kind == VARINT:
                payload.seq = int(content)
    except UnicodeDecodeError as error:
        raise PayloadError("encoding", f"a text in the payload is not UTF-8: {error}") from None
    except ValueError as error:
        raise PayloadError("protobuf", f"the payload is not Sparkplug B: {error}") from None
    return payload


def _metric(data: bytes) -> Metric:
    metric = Metric()
    for number, kind, content in fields(data):
        if isinstance(content, int):
            if number == 2:
                metric.alias = content
            elif number == 3:
                metric.timestamp = content
            elif number == 4:
                metric.datatype = content
            elif number == 6:
                metric.transient = bool(content)
            elif number == 7:
                metric.null = bool(content)
        elif number == 1 and kind == LENGTH:
            metric.name = content.decode()
        if number in _VALUES and kind == _VALUES[number][1]:
            metric.kind = _VALUES[number][0]
            metric.content = _content(metric.kind, kind, content)
    return metric


def _content(kind: str, wire: int, content: int | bytes) -> Any:
    if isinstance(content, int):
        return bool(content) if kind == "bool" else content
    if wire in (FIXED32, FIXED64):
        return struct.unpack("<f" if wire == FIXED32 else "<d", content)[0]
    return content.decode() if kind == "text" else content


def value_of(metric: Metric, datatype: int) -> Any:
    """The metric's value as ``datatype``. `PayloadError`: ``type``, ``not_finite``."""
    kind, content = metric.kind, metric.content
    if metric.null:
        return None
    if kind == "float":
        if not math.isfinite(content):
            raise PayloadError("not_finite", f"it is {content}")
        return content
    if kind == "int" and datatype in _SIGNED:
        bits = _SIGNED[datatype]
        content &= (1 << bits) - 1
        return content - (1 << bits) if content >> (bits - 1) else content
    if (
        (kind == "int" and datatype in _UNSIGNED)
        or (kind == "bool" and datatype in (0, _BOOLEAN))
        or (kind == "text" and (datatype == 0 or datatype in _TEXTS))
        or (kind == "bytes" and (datatype == 0 or datatype in _BYTES))
    ):
        return content
    if kind == "bytes" and datatype in _ARRAYS:
        return _array(content, _ARRAYS[datatype])
    raise PayloadError("type", f"a value of kind {kind or 'none'!r} with data type {datatype} is not supported")


def _array(content: bytes, dtype: str) -> list[Any]:
    try:
        numbers = np.frombuffer(content, dtype)
    except ValueError:
        raise PayloadError("type", f"{len(content)} bytes are no array of {dtype[1:]}") from None
    if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
        raise PayloadError("not_finite", "the array holds a number that is not finite")
    return list(numbers.tolist())


def rebirth_command(now: int) -> bytes:
    """What asks an edge node for its births, sent to ``spBv1.0/<group>/NCMD/<edge>``."""
    metric = encode(1, REBIRTH.encode()) + encode(3, now) + encode(4, _BOOLEAN) + encode(14, 1)
    return encode(1, now) + encode(2, metric)
