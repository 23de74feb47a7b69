"""One compact binary form of everything that a store keeps as a blob: MessagePack with a few extension types.

1. ``unpack(pack(x))`` has the same types and bits as ``x``: ``1``, ``1.0`` and ``True`` differ, NaN, ``-0.0`` and
   infinities stay.
2. Beyond plain MessagePack: aware ``datetime`` (whole milliseconds, comes back in UTC), `TimeInterval`,
   `TimeIntervals`, `Batch`, and one-dimensional ``float64``, ``int64`` and ``bool`` arrays. Tuples come back as lists.
3. The form is portable: little endian wherever it was written. Nothing in it can run code.
"""

from __future__ import annotations

import struct
from datetime import datetime
from typing import Any, Final

import msgpack
import numpy as np

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.time import TimeInterval, TimeIntervals, from_ms, to_ms

__all__ = ["flat_batch", "flat_intervals", "pack", "to_batch", "to_intervals", "unpack"]

_DATETIME: Final = 1
_INTERVAL: Final = 2
_INTERVALS: Final = 3
_BATCH: Final = 4
_FLOATS: Final = 5
_INTS: Final = 6
_BOOLS: Final = 7

_ONE: Final = struct.Struct("<q")
_TWO: Final = struct.Struct("<qq")
_ARRAYS: Final = {
    np.dtype(np.float64): (_FLOATS, np.dtype("<f8")),
    np.dtype(np.int64): (_INTS, np.dtype("<i8")),
    np.dtype(np.bool_): (_BOOLS, np.dtype("?")),
}
_DTYPES: Final = {code: (stored, native) for native, (code, stored) in _ARRAYS.items()}


def pack(value: Any) -> bytes:
    """The packed form of a canonical value, or of anything in rule 2, nested as it likes.

    ``TypeError`` for every other type and for a naive datetime, ``OverflowError`` for an int beyond 64 bits.
    """
    packed: bytes = msgpack.packb(value, default=_to_extension)
    return packed


def unpack(packed: bytes) -> Any:
    """What `pack` was given. Arrays and batches are read-only views of ``packed``. ``ValueError`` for other bytes."""
    return msgpack.unpackb(packed, ext_hook=_from_extension, strict_map_key=False)


_SMALL: Final = 32


def flat_batch(batch: Batch) -> list[Any] | None:
    """A batch as plain lists if it is small: they pack several times faster than arrays. `to_batch` reverses it."""
    if len(batch.times) > _SMALL:
        return [batch.times, batch.values]
    return [batch.times.tolist(), batch.plain()] if len(batch.times) else None


def to_batch(flat: list[Any] | None) -> Batch:
    """The reverse of `flat_batch`, before or after packing."""
    return NOTHING if flat is None else Batch.build(flat[0], flat[1])


def flat_intervals(intervals: TimeIntervals) -> list[int]:
    """``[start, end, start, end, ...]``."""
    return [instant for pair in intervals.pairs for instant in pair]


def to_intervals(flat: list[int]) -> TimeIntervals:
    """The reverse of `flat_intervals`."""
    return TimeIntervals(zip(flat[::2], flat[1::2], strict=True))


def _to_extension(value: Any) -> Any:
    if isinstance(value, Batch):
        return msgpack.ExtType(_BATCH, pack([value.times, value.values]))
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype in _ARRAYS:
        code, stored = _ARRAYS[value.dtype]
        return msgpack.ExtType(code, value.astype(stored, copy=False).tobytes())
    if isinstance(value, TimeIntervals):
        return msgpack.ExtType(_INTERVALS, np.array(value.pairs, "<i8").tobytes())
    if isinstance(value, TimeInterval):
        return msgpack.ExtType(_INTERVAL, _TWO.pack(value.start, value.end))
    if isinstance(value, datetime):
        return msgpack.ExtType(_DATETIME, _ONE.pack(to_ms(value)))
    raise TypeError(f"{type(value).__name__} cannot be packed: {value!r}")


def _from_extension(code: int, data: bytes) -> Any:
    if code in _DTYPES:
        stored, native = _DTYPES[code]
        return np.frombuffer(data, stored).astype(native, copy=False)
    if code == _BATCH:
        times, values = unpack(data)
        return Batch(times, values) if len(times) else NOTHING
    if code == _DATETIME:
        return from_ms(_ONE.unpack(data)[0])
    if code == _INTERVAL:
        return TimeInterval(*_TWO.unpack(data))
    if code == _INTERVALS:
        return TimeIntervals(map(tuple, np.frombuffer(data, "<i8").reshape(-1, 2).tolist()))
    raise ValueError(f"packed by a newer version: extension type {code} is unknown")
