"""The keys of instances, snapshots and retracted revisions, and the filters that find them at a price that is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from hs_stream.store.mongo.values import date

__all__ = ["Document", "identity", "keys", "lookup", "questions", "span"]

Document = dict[str, Any]

_APART: Final = 120_000
"""Milliseconds: reading what 1 Hz leaves in between costs about as much as one more question."""
_KEYS_AT_ONCE: Final = 5_000
_FEW: Final = 16
"""Fewer times that are near each other than this are looked up one by one: a question costs about as much."""


def identity(stream: int, time: int) -> Document:
    """The ``_id`` of an instance, a snapshot or a retracted revision."""
    return {"s": stream, "t": date(time)}


def span(stream: int, start: int, end: int) -> Document:
    """The filter for ``(start, end]`` of a stream."""
    return {"_id": {"$gt": identity(stream, start), "$lte": identity(stream, end)}}


def keys(stream: int, times: Sequence[int]) -> Iterable[Document]:
    """Filters for exactly ``times``, which need not be in order.

    mongod 6 answers a bare ``$in`` on the key of a clustered collection by reading all of it, so every filter has
    bounds too; times that are far apart get filters of their own.
    """
    return (_filter(stream, run) for run in _runs(times))


def questions(stream: int, times: Sequence[int]) -> Iterable[Document | list[int]]:
    """`keys`, but times that are far from all others come together, as a list for `lookup`; ascending all in all."""
    alone: list[int] = []
    for run in _runs(times):
        if len(run) < _FEW:
            alone += run
        if alone and (len(run) >= _FEW or len(alone) >= _KEYS_AT_ONCE):
            yield alone
            alone = []
        if len(run) >= _FEW:
            yield _filter(stream, run)
    if alone:
        yield alone


def _runs(times: Sequence[int]) -> Iterable[list[int]]:
    """``times``, ascending, in parts of which all are near each other."""
    order = sorted(int(time) for time in times)
    first = 0
    for at in range(1, len(order) + 1):
        if at == len(order) or order[at] - order[at - 1] > _APART or at - first == _KEYS_AT_ONCE:
            yield order[first:at]
            first = at


def _filter(stream: int, run: Sequence[int]) -> Document:
    wanted = [identity(stream, time) for time in run]
    bounds = {"$gte": wanted[0], "$lte": wanted[-1]}
    return {"_id": wanted[0]} if len(wanted) == 1 else {"_id": bounds | {"$in": wanted}}


def lookup(name: str, stream: int, times: Iterable[int]) -> list[Document]:
    """A pipeline on the database for the documents of ``times`` in a collection, ascending as ``times`` are.

    mongod 6 answers an ``$or`` of keys of a clustered collection by reading all of it, but each equality of a
    ``$lookup`` by its key: some ten times cheaper than a question each.
    """
    return [
        {"$documents": [{"_id": identity(stream, time)} for time in times]},
        {"$lookup": {"from": name, "localField": "_id", "foreignField": "_id", "as": "found"}},
        {"$unwind": "$found"},
        {"$replaceRoot": {"newRoot": "$found"}},
    ]
