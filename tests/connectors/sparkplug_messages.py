"""Sparkplug B payloads, written without the code that reads them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

FIELDS = {
    "name": 1, "alias": 2, "timestamp": 3, "datatype": 4, "is_historical": 5, "is_transient": 6, "is_null": 7,
    "int": 10, "long": 11, "float": 12, "double": 13, "bool": 14, "string": 15, "bytes": 16, "dataset": 17,
}  # fmt: skip


def number(value: int) -> bytes:
    """A varint, by binary digits."""
    digits = f"{value:b}"
    digits = digits.zfill(-(-len(digits) // 7) * 7)
    groups = [int(digits[at : at + 7], 2) for at in range(0, len(digits), 7)][::-1]
    return bytes([group | 0x80 for group in groups[:-1]] + [groups[-1]])


def metric(**given: Any) -> bytes:
    """One metric; negative ints in two's complement of 32 (``int``) or 64 bits (``long``)."""
    out = b""
    for key, value in given.items():
        tag = FIELDS[key] << 3
        if key == "float":
            out += number(tag | 5) + struct.pack("<f", value)
        elif key == "double":
            out += number(tag | 1) + struct.pack("<d", value)
        elif isinstance(value, int):
            out += number(tag) + number(value % (1 << (32 if key == "int" else 64)))
        else:
            data = value.encode() if isinstance(value, str) else value
            out += number(tag | 2) + number(len(data)) + data
    return out


def payload(seq: int | None, *metrics: Mapping[str, Any], timestamp: int | None = None) -> bytes:
    """One message."""
    out = b"" if timestamp is None else b"\x08" + number(timestamp)
    for given in metrics:
        data = metric(**given)
        out += b"\x12" + number(len(data)) + data
    return out if seq is None else out + b"\x18" + number(seq)
