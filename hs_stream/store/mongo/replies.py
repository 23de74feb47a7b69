"""Many documents in the reply of a ``find`` or an ``aggregate`` as one piece of bytes, without an object for each.

PyMongo's raw batches make one anyway, which costs more than mongod takes to find them. So the command is sent as it is,
and the array in the reply is taken apart here: ``{cursor: {firstBatch: [...], id, ns}}``, where a BSON array is a
document whose keys are ``"0"``, ``"1"``, ... (bsonspec.org).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

import numpy as np
from bson.codec_options import CodecOptions
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from pymongo.asynchronous.database import AsyncDatabase

__all__ = ["aggregate_raw", "documents_in", "find_raw"]

_RAW: Final[CodecOptions[RawBSONDocument]] = CodecOptions(document_class=RawBSONDocument)
_INT: Final = 4
_ARRAY: Final = 0x04
_DOCUMENT: Final = 0x03
_STRING: Final = 0x02
_SIZES: Final = {0x01: 8, 0x08: 1, 0x09: 8, 0x0A: 0, 0x10: 4, 0x11: 8, 0x12: 8}
"""Bytes of a value by its type; the others begin with their length."""


async def find_raw(
    database: AsyncDatabase[Any],
    collection: str,
    where: Mapping[str, Any],
    *,
    descending: bool,
    limit: int,
    at_once: int,
) -> AsyncGenerator[bytes, None]:
    """What matches in order of ``_id``, as concatenated BSON documents, reply by reply. ``limit`` 0 is no limit."""
    command: dict[str, Any] = {
        "find": collection,
        "filter": where,
        "sort": {"_id": -1 if descending else 1},
        "batchSize": at_once,
    }
    if limit:
        # Not in a single batch: one of large documents is full at 16 MiB, and the rest would be left out.
        command |= {"limit": limit, "batchSize": min(limit + 1, at_once)}
    async with aclosing(_replies(database, command, collection, at_once)) as replies:
        async for documents in replies:
            yield documents


async def aggregate_raw(
    database: AsyncDatabase[Any], pipeline: Sequence[Mapping[str, Any]], *, at_once: int
) -> AsyncIterator[bytes]:
    """What a pipeline that begins with ``$documents`` gives, as `find_raw` does."""
    command = {"aggregate": 1, "pipeline": pipeline, "cursor": {"batchSize": at_once}}
    async for documents in _replies(database, command, "$cmd.aggregate", at_once):
        yield documents


async def _replies(
    database: AsyncDatabase[Any], command: dict[str, Any], collection: str, at_once: int
) -> AsyncGenerator[bytes, None]:
    while True:
        reply = await database.command(command, codec_options=_RAW)
        batch, identity = _batch(bytes(reply["cursor"].raw))
        try:
            if batch:
                yield documents_in(batch)
        except GeneratorExit:
            if identity:
                await database.command({"killCursors": collection, "cursors": [Int64(identity)]})
            raise
        if not identity:
            return
        command = {"getMore": Int64(identity), "collection": collection, "batchSize": at_once}


def _batch(cursor: bytes) -> tuple[bytes, int]:
    """The elements of the array in a reply's cursor, and the cursor's id."""
    batch, identity, at = b"", 0, _INT
    while at < len(cursor) - 1:
        kind, name_end = cursor[at], cursor.index(b"\0", at + 1)
        name, at = cursor[at + 1 : name_end], name_end + 1
        size = _SIZES.get(kind)
        if size is None:
            size = int.from_bytes(cursor[at : at + _INT], "little") + (_INT if kind == _STRING else 0)
        if kind == _ARRAY and name in (b"firstBatch", b"nextBatch"):
            batch = cursor[at + _INT : at + size - 1]
        elif name == b"id":
            identity = int.from_bytes(cursor[at : at + size], "little", signed=True)
        at += size
    return batch, identity


def documents_in(elements: bytes) -> bytes:
    """The documents of an array's elements, one after the other.

    Where all are of one length, which is the rule for numbers, the keys are cut out by numpy.
    """
    return _cut(elements) or _walk(elements)


def _cut(elements: bytes) -> bytes | None:
    length = int.from_bytes(elements[3 : 3 + _INT], "little")
    size = elements[3 : 3 + _INT]
    parts, at, digits = [], 0, 1
    while at < len(elements):
        stride = digits + 2 + length
        count = min((len(elements) - at) // stride, 10**digits - (10 ** (digits - 1) if digits > 1 else 0))
        if not count:
            return None
        rows = np.frombuffer(elements, np.uint8, count * stride, at).reshape(count, stride)
        sizes = rows[:, digits + 2 : digits + 2 + _INT]
        if not ((rows[:, 0] == _DOCUMENT).all() and (sizes == np.frombuffer(size, np.uint8)).all()):
            return None
        parts.append(rows[:, digits + 2 :].tobytes())
        at += count * stride
        digits += 1
    return b"".join(parts)


def _walk(elements: bytes) -> bytes:
    parts, at = [], 0
    while at < len(elements):
        start = elements.index(b"\0", at + 1) + 1
        at = start + int.from_bytes(elements[start : start + _INT], "little")
        parts.append(elements[start:at])
    return b"".join(parts)
