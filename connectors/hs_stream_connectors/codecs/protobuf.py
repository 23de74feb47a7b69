"""The wire format of Protocol Buffers: a message as its fields, without a schema.

1. `fields` gives ``(number, kind, content)`` in the message's order, repeated fields as often as they stand there.
2. ``content`` is an int for ``VARINT`` (64 bits, unsigned) and bytes for the others: 8, 4, or as many as there are.
3. What is cut off, has a number of 0, or is of another kind (groups, which nobody writes any more) is ``ValueError``.

Source: the encoding guide of Protocol Buffers. A test compares with Google's own implementation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

__all__ = ["FIXED32", "FIXED64", "LENGTH", "VARINT", "encode", "fields"]

VARINT: Final = 0
FIXED64: Final = 1
LENGTH: Final = 2
FIXED32: Final = 5
_FIXED: Final = {FIXED64: 8, FIXED32: 4}
_LONGEST: Final = 10
_MASK: Final = (1 << 64) - 1
_MAX_NUMBER: Final = (1 << 29) - 1


def fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    r"""The fields of one message.

    >>> list(fields(b"\x08\x96\x01\x12\x02hi"))
    [(1, 0, 150), (2, 2, b'hi')]
    """
    at, size = 0, len(data)
    while at < size:
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if not 0 < number <= _MAX_NUMBER:
            raise ValueError(f"there is no field {number}")
        if kind == VARINT:
            content, at = _varint(data, at)
            yield number, kind, content
            continue
        if kind == LENGTH:
            length, at = _varint(data, at)
        elif kind in _FIXED:
            length = _FIXED[kind]
        else:
            raise ValueError(f"field {number} is of the unknown kind {kind}")
        if at + length > size:
            raise ValueError(f"field {number} is cut off")
        yield number, kind, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for count, byte in enumerate(data[at : at + _LONGEST]):
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return value & _MASK, at + count + 1
    raise ValueError("a number is cut off")


def encode(number: int, content: int | bytes) -> bytes:
    r"""One field: an int >= 0 as ``VARINT``, bytes as ``LENGTH``. The inverse of `fields` for these two.

    >>> encode(1, 150) + encode(2, b"hi")
    b'\x08\x96\x01\x12\x02hi'
    """
    if isinstance(content, int):
        return _put(number << 3 | VARINT) + _put(content)
    return _put(number << 3 | LENGTH) + _put(len(content)) + content


def _put(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
