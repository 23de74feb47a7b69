"""Exact inserts and upserts of `hs_stream.store.mongo`, values of any size, and what a write depends on.

Inside of `Writer.guarded` each command is one that the server refuses unless a document of ``state`` holds the right
token. Inside of `Writer.together` all commands are one transaction. Which of them it is stands in `_CURRENT`, which
every write looks at. In a transaction, what is done in two attempts elsewhere (an insert of what may be there, a
document that may be too large) asks for another round, in which it is done the slow way at once; so does what a guarded
command cannot do.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

import bson
from bson.binary import Binary
from pymongo import DeleteMany, InsertOne, ReplaceOne, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import BulkWriteError, DocumentTooLarge, DuplicateKeyError, OperationFailure

from hs_stream.store.mongo import errors
from hs_stream.store.mongo.keys import Document
from hs_stream.store.mongo.link import LAZY, MOMENT, SYNC, Link
from hs_stream.store.mongo.values import CODEC, Large

__all__ = ["LONGEST_MS", "AnotherRound", "How", "Refused", "Write", "Writer", "replacement"]

How = Literal["replace", "set"]
"""Whole documents, or only their ``v``."""
Write = InsertOne[Document] | ReplaceOne[Document] | UpdateOne | DeleteMany

T = TypeVar("T")
_LARGE_PART: Final = 8 << 20
_LARGE_FROM: Final = 12 << 20
_INSERT_AT_ONCE: Final = 50_000
_MERGE_AT_ONCE: Final = 10_000
LONGEST_MS: Final = 60_000
"""The server gives a guarded command up after this, as it does a transaction."""
_UNAUTHORIZED: Final = 13
_CONVERSION_FAILURE: Final = 241
_ONCE_MORE: Final = frozenset({112, 225, 251, 256, 11601})
"""Write conflict, transaction too old, no such transaction, transaction aborted, interrupted: another round. Else who
is to be told that it has lost the right to write would hear of this instead."""


class Refused(Exception):
    """The guard holds another token, or is not there."""


class AnotherRound(Exception):
    """What was begun can only be done in a transaction, and the slow way."""


@dataclass(frozen=True, slots=True)
class _Transaction:
    session: AsyncClientSession
    careful: bool


@dataclass(frozen=True, slots=True)
class _Guard:
    """The document ``name`` of ``state`` must hold ``token``."""

    session: AsyncClientSession
    name: str
    token: int


_CURRENT: ContextVar[_Transaction | _Guard | None] = ContextVar("hs_stream_mongo_condition", default=None)


def _session() -> AsyncClientSession | None:
    current = _CURRENT.get()
    return None if current is None else current.session


def _require_no_guard() -> None:
    if isinstance(_CURRENT.get(), _Guard):
        raise AnotherRound


def replacement(document: Document) -> ReplaceOne[Document]:
    """``document``, whatever stood under its ``_id``."""
    return ReplaceOne({"_id": document["_id"]}, document, upsert=True)


def guarded(guard: str, token: int, documents: Sequence[Document]) -> list[Document]:
    """A pipeline over ``state``: ``documents``, or an error unless the document ``guard`` holds ``token``."""
    holds = {"$eq": ["$guards.token", [token]]}
    no_number = {"$concat": ["refused ", {"$toString": {"$size": "$guards"}}]}
    return [
        {"$match": {"_id": guard}},
        {"$facet": {"guards": [{"$project": {"token": 1}}]}},  # one document, whether or not there is a guard
        {"$project": {"documents": {"$cond": [holds, {"$literal": documents}, {"$toInt": no_number}]}}},
        {"$unwind": "$documents"},
        {"$replaceRoot": {"newRoot": "$documents"}},
    ]


def _into(name: str, matched: str) -> Document:
    """Where a document is there already, ``matched`` says what becomes of it."""
    # Without "on", which mongod 6 does not take for a clustered collection.
    return {"$merge": {"into": name, "whenMatched": matched, "whenNotMatched": "insert"}}


def _value(document: Document) -> UpdateOne:
    return UpdateOne({"_id": document["_id"]}, {"$set": {"v": document["v"]}}, upsert=True)


class Writer:
    """Writes over ``link``."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._locks: dict[str, asyncio.Lock] = {}
        self._unanswered: set[str] = set()
        """Lanes whose last guarded command may still be under way in the server."""
        self.permitted: Callable[[], Awaitable[None]] | None = None
        """Asked before each command that writes outside of a transaction; raises where it must not be sent."""

    # --- transactions ---

    def sessions(self, lanes: Iterable[str]) -> list[Binary]:
        """The ids of the sessions in which `together` writes, for who has to end what they left open."""
        return [self._link.session(lane).session_id["id"] for lane in lanes]

    async def end_sessions(self, ids: Sequence[Binary]) -> None:
        """End what the transactions of another process left open, as far as the server lets us."""
        if ids:
            with suppress(OperationFailure):
                await self._link.database.command({"killSessions": [{"id": one} for one in ids]})

    async def left(self, ids: Sequence[Binary]) -> bool:
        """End these sessions, and return when the server carries out nothing more of what was sent in them.

        Whether we may see all of it: what other users sent, only who has the right to may see.
        """
        sees_all = True
        while ids:
            await self.end_sessions(ids)
            operations = {"$currentOp": {"allUsers": sees_all, "idleSessions": False}}
            question = [operations, {"$match": {"lsid.id": {"$in": [*ids]}}}, {"$limit": 1}]
            try:
                found = await (await self._link.database.client.admin.aggregate(question)).to_list()
            except OperationFailure as error:
                if error.code != _UNAUTHORIZED or not sees_all:
                    raise
                sees_all = False
                continue
            if not found:
                break
            await asyncio.sleep(MOMENT)
        return sees_all

    async def guarded(self, lane: str, guard: str, token: int, work: Callable[[], Awaitable[T]]) -> T:
        """What ``work`` writes, command by command, each refused unless the document ``guard`` holds ``token``.

        `Refused`; `AnotherRound` where something else than inserts and replacements would be needed, and what was
        written until then is to be written again. Those of one lane come one after the other.
        """
        async with self._lane(lane):
            self._unanswered.add(lane)
            reset = _CURRENT.set(_Guard(self._link.session(lane), guard, token))
            try:
                result = await work()
            except OperationFailure as error:
                self._unanswered.discard(lane)
                if error.code == _CONVERSION_FAILURE:
                    raise Refused from None
                if error.code in _ONCE_MORE:
                    raise AnotherRound from None
                raise
            except AnotherRound:
                self._unanswered.discard(lane)
                raise
            finally:
                _CURRENT.reset(reset)
            self._unanswered.discard(lane)
            return result

    @asynccontextmanager
    async def _lane(self, lane: str) -> AsyncIterator[None]:
        """One after the other; and not while the server may still carry out what it has not answered."""
        async with self._locks.setdefault(lane, asyncio.Lock()):
            if lane in self._unanswered:
                await self.left(self.sessions([lane]))
                self._unanswered.discard(lane)
            yield

    async def together(
        self,
        lane: str,
        begin: Callable[[AsyncClientSession], Awaitable[None]],
        work: Callable[[], Awaitable[T]],
        *,
        sync: bool,
        careful: bool = False,
    ) -> T:
        """``begin`` and everything that ``work`` writes as one transaction; with ``sync``, durable.

        Those of one lane come one after the other. Either may be called several times. ``careful``: the slow way.
        """
        async with self._lane(lane):
            while True:
                session = self._link.session(lane)
                try:
                    async with await session.start_transaction(write_concern=SYNC if sync else LAZY):
                        await begin(session)
                        reset = _CURRENT.set(_Transaction(session, careful))
                        try:
                            return await work()
                        finally:
                            _CURRENT.reset(reset)
                except AnotherRound:
                    careful = True
                except OperationFailure as error:
                    if error.code not in _ONCE_MORE:
                        raise
                    await asyncio.sleep(MOMENT)

    # --- writes ---

    async def _permit(self) -> None:
        if self.permitted is not None and not self._link.transactions:
            await self.permitted()

    async def insert(self, name: str, documents: list[Document], *, sync: bool = False) -> list[Document]:
        """Insert; the documents whose ``_id`` was there already are left alone and returned."""
        there: list[Document] = []
        current = _CURRENT.get()
        if isinstance(current, _Guard):
            await self._merge(current, name, documents, "fail", sync=sync)
            return []
        if current is not None and current.careful:
            return await self._insert_careful(name, documents, current.session)
        try:
            for first in range(0, len(documents), _INSERT_AT_ONCE):
                there += await self._insert(name, documents[first : first + _INSERT_AT_ONCE], sync)
        except (OperationFailure, DocumentTooLarge) as error:
            if not errors.too_large(error):
                raise
            if current is not None:
                raise AnotherRound from None
            return await self._insert_large(name, documents, sync)
        return there

    async def _insert_careful(
        self, name: str, documents: list[Document], session: AsyncClientSession
    ) -> list[Document]:
        """In a transaction, where no insert may fail."""
        small = [await self.shrink(document) for document in documents]
        there: list[Document] = []
        for first in range(0, len(small), _INSERT_AT_ONCE):
            part = small[first : first + _INSERT_AT_ONCE]
            writes = [UpdateOne({"_id": one["_id"]}, {"$setOnInsert": one}, upsert=True) for one in part]
            done = await self._link.collection(name).bulk_write(writes, ordered=False, session=session)
            there += [one for index, one in enumerate(part) if index not in (done.upserted_ids or {})]
        return there

    async def _insert(self, name: str, documents: list[Document], sync: bool) -> list[Document]:
        await self._permit()
        try:
            try:
                await self._insert_command(name, documents, sync)
            except DocumentTooLarge:  # all of them together are, perhaps
                await self._link.collection(name, sync=sync).insert_many(documents, ordered=False, session=_session())
        except BulkWriteError as error:
            there = errors.duplicates(error)
            if there is None:
                raise
            if _CURRENT.get() is not None:
                raise AnotherRound from None
            return [documents[index] for index in there]
        return []

    async def _insert_command(self, name: str, documents: list[Document], sync: bool) -> None:
        """``insert_many`` as one plain command: it looks at each document, which costs as much as to encode them."""
        command: Document = {"insert": name, "documents": documents, "ordered": False}
        session = _session()
        if session is None:
            command["writeConcern"] = (SYNC if sync else LAZY).document
        reply = await self._link.database.command(command, codec_options=CODEC, session=session)
        failed, unsure = reply.get("writeErrors", []), reply.get("writeConcernError")
        if failed or unsure:
            raise BulkWriteError({"writeErrors": failed, "writeConcernErrors": [unsure] if unsure else []})

    async def _insert_large(self, name: str, documents: list[Document], sync: bool) -> list[Document]:
        small = [await self.shrink(document) for document in documents]
        # Some of them may have been sent before the large one was found: replacing them is the same.
        await self.write(name, [replacement(one) for one in small], sync=sync)
        return []

    async def write(self, name: str, writes: Sequence[Write], *, sync: bool = False) -> None:
        """Any mixture of writes to different documents."""
        if writes:
            _require_no_guard()
            await self._permit()
            await self._link.collection(name, sync=sync).bulk_write(writes, ordered=False, session=_session())

    async def delete(self, name: str, where: Document, *, sync: bool = False) -> None:
        """Everything that matches."""
        _require_no_guard()
        await self._permit()
        await self._link.collection(name, sync=sync).delete_many(where, session=_session())

    async def lay(self, name: str, documents: Sequence[Document], how: How, *, sync: bool = False) -> None:
        """Each of ``documents``, whatever is there; their values may be of any size."""
        write: Callable[[Document], Write] = _value if how == "set" else replacement
        current = _CURRENT.get()
        if isinstance(current, _Guard):
            await self._merge(current, name, documents, "merge" if how == "set" else "replace", sync=sync)
            return
        try:
            if current is not None and current.careful:
                documents = [await self.shrink(document) for document in documents]
            await self.write(name, [*map(write, documents)], sync=sync)
        except (OperationFailure, DocumentTooLarge) as error:
            if not errors.too_large(error):
                raise
            if current is not None and current.careful:
                raise
            if current is not None:
                raise AnotherRound from None
            await self.write(name, [write(await self.shrink(document)) for document in documents], sync=sync)

    async def _merge(
        self, guard: _Guard, name: str, documents: Sequence[Document], matched: str, *, sync: bool
    ) -> None:
        """Write ``documents`` in their order, in commands of which each looks at the guard first."""
        for first in range(0, len(documents), _MERGE_AT_ONCE):
            part = documents[first : first + _MERGE_AT_ONCE]
            try:
                await self._merge_command(guard, name, part, matched, sync)
            except DuplicateKeyError:
                raise AnotherRound from None
            except (OperationFailure, DocumentTooLarge) as error:
                if not errors.too_large(error):
                    raise
                half = len(part) // 2
                if half:
                    await self._merge(guard, name, part[:half], matched, sync=sync)
                    await self._merge(guard, name, part[half:], matched, sync=sync)
                elif (small := await self.shrink(part[0])) is not part[0]:
                    await self._merge(guard, name, [small], matched, sync=sync)
                else:
                    raise

    async def _merge_command(
        self, guard: _Guard, name: str, documents: Sequence[Document], matched: str, sync: bool
    ) -> None:
        command = {
            "aggregate": "state",
            "pipeline": [*guarded(guard.name, guard.token, documents), _into(name, matched)],
            "cursor": {},
            "maxTimeMS": LONGEST_MS,
            "writeConcern": (SYNC if sync else LAZY).document,
        }
        await self._link.database.command(command, codec_options=CODEC, session=guard.session)

    # --- values of any size ---

    async def shrink(self, document: Document) -> Document:
        """``document``, or one whose ``v`` stands for a value in the collection ``large``."""
        value = document.get("v")
        if not isinstance(value, (str, bytes, list, dict)):
            return document
        encoded = bson.encode({"v": value})
        if len(encoded) < _LARGE_FROM:
            return document
        digest = hashlib.blake2b(encoded, digest_size=16).digest()
        starts = range(0, len(encoded), _LARGE_PART)
        for index, start in enumerate(starts):
            part = {"_id": {"h": Binary(digest), "i": index}, "b": Binary(encoded[start : start + _LARGE_PART])}
            current = _CURRENT.get()
            if isinstance(current, _Guard):
                await self._merge(current, "large", [part], "keepExisting", sync=False)
            else:
                await self.insert("large", [part])
        return {**document, "v": Large(digest, len(starts)).document()}
