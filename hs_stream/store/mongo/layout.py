"""The collections of `hs_stream.store.mongo`, and how they are created."""

from __future__ import annotations

import hashlib
from dataclasses import astuple
from typing import Any, Final

from bson.binary import Binary
from bson.int64 import Int64
from pymongo import ASCENDING, DESCENDING
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import CollectionInvalid, OperationFailure

from hs_stream.core.errors import StoreUnavailable
from hs_stream.core.packing import pack
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME
from hs_stream.engine.ports import DeadLetter, HistoryEntry, StreamRecord, ToolRecord
from hs_stream.store.changes import complete
from hs_stream.store.mongo.values import (
    bound,
    date,
    decode,
    decode_intervals,
    encode,
    encode_intervals,
    unbound,
)

__all__ = [
    "LAYOUT",
    "claim_pipeline",
    "create",
    "dead_letter",
    "history_document",
    "history_entry",
    "holder_pipeline",
    "letter_document",
    "stream_document",
    "stream_record",
]

LAYOUT: Final = 1
_CLUSTERED: Final = ("instances", "snapshots", "retracted", "outbox")
_PLAIN: Final = (
    *("streams", "history", "dead_letters", "marks", "large", "state", "workflows", "plates", "sessions", "feed"),
)
_NAMESPACE_EXISTS: Final = 48
_INDEX_CONFLICTS: Final = (85, 86)
_DAY: Final = 86_400


async def create(database: AsyncDatabase[dict[str, Any]], *, history_days: float, dead_letter_days: float) -> None:
    """Create what is missing, and set the days after which history and dead letters expire."""
    found = {item["name"]: item async for item in await database.list_collections()}
    for name in _CLUSTERED:
        if name not in found:
            await _create(database, name, clusteredIndex={"key": {"_id": 1}, "unique": True})
        elif "clusteredIndex" not in found[name].get("options", {}):
            raise StoreUnavailable(
                f"the collection {name} of database {database.name} was not made by hs_stream (it is not clustered)",
                hint="name another database in store.url",
            )
    for name in _PLAIN:
        if name not in found:
            await _create(database, name)
    await database["history"].create_index([("stream", ASCENDING), ("_id", DESCENDING)])
    await _expire(database, "history", history_days)
    await _expire(database, "dead_letters", dead_letter_days)


async def _create(database: AsyncDatabase[dict[str, Any]], name: str, **options: Any) -> None:
    try:
        await database.create_collection(name, check_exists=False, **options)
    except CollectionInvalid:
        return
    except OperationFailure as error:
        if error.code != _NAMESPACE_EXISTS:
            raise


async def _expire(database: AsyncDatabase[dict[str, Any]], name: str, days: float) -> None:
    seconds = round(days * _DAY)
    try:
        await database[name].create_index([("time", ASCENDING)], name="expires", expireAfterSeconds=seconds)
    except OperationFailure as error:
        if error.code not in _INDEX_CONFLICTS:
            raise
        await database.command("collMod", name, index={"name": "expires", "expireAfterSeconds": seconds})


# --- the right to write ---


def _is_free(instead_of: str) -> dict[str, Any]:
    """Of the lease: whether anybody may take it. The last version wrote ``until`` by its own clock, and no token."""
    runs_out = {"$lte": [{"$toLong": {"$ifNull": ["$until", 0]}}, {"$toLong": "$$NOW"}]}
    return {"$or": [{"$in": [{"$ifNull": ["$owner", ""]}, {"$literal": ["", instead_of]}]}, runs_out]}


def claim_pipeline(owner: str, for_ms: int, instead_of: str) -> list[dict[str, Any]]:
    """The change of the lease by which ``owner`` takes or renews it, if that is possible."""
    mine, changes = "$mine", {"$and": ["$mine", {"$ne": ["$owner", {"$literal": owner}]}]}
    token = {"$ifNull": ["$token", 0]}
    until = {"$add": [{"$toLong": "$$NOW"}, Int64(for_ms)]}
    return [
        {"$set": {"mine": {"$or": [{"$eq": ["$owner", {"$literal": owner}]}, _is_free(instead_of)]}}},
        {
            "$set": {
                "owner": {"$cond": [mine, {"$literal": owner}, "$owner"]},
                "until": {"$cond": [mine, until, "$until"]},
                "token": {"$cond": [changes, {"$add": [token, 1]}, token]},
            }
        },
        {"$unset": "mine"},
    ]


def holder_pipeline(owner: str, instead_of: str) -> list[dict[str, Any]]:
    """Of the collection ``state``: who has the lease. ``""`` is nobody."""
    free = {"$and": [{"$ne": ["$owner", {"$literal": owner}]}, _is_free(instead_of)]}
    held = {"owner": {"$cond": [free, "", "$owner"]}, "token": {"$ifNull": ["$token", 0]}}
    return [{"$match": {"_id": "lease"}}, {"$project": held}]


# --- streams and history as documents ---


_RARE: Final = ("floor", "closed", "since")


def stream_document(record: StreamRecord) -> dict[str, Any]:
    """A stream record as people read it in the collection ``streams``."""
    tool = record.tool
    return {
        "_id": record.id,
        "name": record.stream.name,
        "meta": {encode_key(key): value for key, value in record.stream.meta},
        "kind": record.kind,
        "workflow": record.workflow,
        "tool": None
        if tool is None
        else {"name": tool.name, "version": tool.version, "parameters": encode(dict(tool.parameters))},
        "fingerprint": record.fingerprint,
        # Few streams have any of them.
        **{key: date(at) for key in _RARE if (at := getattr(record, key)) is not None},
        **progress(record),
    }


def encode_key(key: str) -> str:
    """A plate's name as a key that MongoDB takes."""
    return str(next(iter(encode({key: None}))))


def progress(record: StreamRecord) -> dict[str, Any]:
    """The part of a stream's document that a commit changes."""
    record = complete(record)
    return {
        "coverage": encode_intervals(record.coverage),
        "upper": None if record.upper is None else bound(record.upper) or ("inf" if record.upper > 0 else "-inf"),
    }


def stream_record(document: dict[str, Any]) -> StreamRecord:
    """The reverse of `stream_document`."""
    tool, upper = document["tool"], document["upper"]
    if isinstance(upper, str):
        upper = MAX_TIME if upper == "inf" else MIN_TIME
    record = StreamRecord(
        int(document["_id"]),
        StreamId(document["name"], tuple(decode(document["meta"]).items())),
        document["kind"],
        document["workflow"],
        None if tool is None else ToolRecord(tool["name"], tool["version"], decode(tool["parameters"])),
        document["fingerprint"],
        decode_intervals(document["coverage"]),
        None if upper is None else int(upper),
        *(int(at) if (at := document.get(key)) is not None else None for key in _RARE),
    )
    return complete(record)


def history_document(seq: int, index: int, entry: HistoryEntry) -> dict[str, Any]:
    """A history entry; ``time`` is when it was computed, and what it expires by."""
    return {
        "_id": {"q": seq, "i": index},
        "time": date(entry.time),
        "stream": entry.stream,
        "tool": entry.tool,
        "start": bound(entry.start),
        "end": bound(entry.end),
        "instances": entry.instances,
        "changed": entry.changed,
        "cause": entry.cause,
        "session": entry.session,
    }


def history_entry(document: dict[str, Any]) -> HistoryEntry:
    """The reverse of `history_document`."""
    return HistoryEntry(
        int(document["time"]),
        document["stream"],
        document["tool"],
        unbound(document["start"], MIN_TIME),
        unbound(document["end"], MAX_TIME),
        int(document["instances"]),
        int(document["changed"]),
        document["cause"],
        document["session"],
    )


def letter_document(seq: int, index: int, letter: DeadLetter) -> dict[str, Any]:
    """Its ``_id`` tells a repeated append from one that uses the ``seq`` again after a crash."""
    digest = hashlib.blake2b(pack(astuple(letter)[:6]), digest_size=8).digest()
    return {
        "_id": {"q": seq, "i": index, "h": Binary(digest)},
        "time": date(letter.time),
        "source": letter.source,
        "reason": letter.reason,
        "message": letter.message,
        "topic": letter.topic,
        "payload": Binary(letter.payload),
    }


def dead_letter(document: dict[str, Any]) -> DeadLetter:
    """The reverse of `letter_document`."""
    one = document
    return DeadLetter(int(one["time"]), one["source"], one["reason"], one["message"], one["topic"], one["payload"])
