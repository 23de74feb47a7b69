"""Exact inserts and upserts of `hs_stream.store.mongo`, values of any size, and transactions.

What is written inside of `Writer.together` is one transaction: its session is in `_CURRENT`, which every write looks
at. In a transaction, whatever fails ends all of it. So what is done in two attempts elsewhere (an insert of what may be
there, a document that may be too large) asks for another round, in which it is done the slow way at once.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, TypeVar

import bson
from bson.binary import Binary
from pymongo import DeleteMany, InsertOne, ReplaceOne, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import BulkWriteError, DocumentTooLarge, OperationFailure

from hs_stream.store.mongo import errors
from hs_stream.store.mongo.keys import Document
from hs_stream.store.mongo.link import LAZY, MOMENT, SYNC, Link
from hs_stream.store.mongo.values import CODEC, Large

__all__ = ["Write", "Writer"]

Write = InsertOne[Document] | ReplaceOne[Document] | UpdateOne | DeleteMany

T = TypeVar("T")
_LARGE_PART: Final = 8 << 20
_LARGE_FROM: Final = 12 << 20
_INSERT_AT_ONCE: Final = 50_000
_ONCE_MORE: Final = frozenset({112, 225, 251, 256})
"""Write conflict, transaction too old, no such transaction, transaction aborted: another round, or who is to be told
that it has lost the right to write would hear of this instead."""


class _AnotherRound(Exception):
    """Of a transaction, in which everything is done the slow way."""


@dataclass(frozen=True, slots=True)
class _Current:
    session: AsyncClientSession
    careful: bool


_CURRENT: ContextVar[_Current | None] = ContextVar("hs_stream_mongo_transaction", default=None)


def _session() -> AsyncClientSession | None:
    current = _CURRENT.get()
    return None if current is None else current.session


class Writer:
    """Writes over ``link``."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._locks: dict[str, asyncio.Lock] = {}
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

    async def together(
        self,
        lane: str,
        begin: Callable[[AsyncClientSession], Awaitable[None]],
        work: Callable[[], Awaitable[T]],
        *,
        sync: bool,
    ) -> T:
        """``begin`` and everything that ``work`` writes as one transaction; with ``sync``, durable.

        Those of one lane come one after the other. Either may be called several times.
        """
        careful = False
        async with self._locks.setdefault(lane, asyncio.Lock()):
            while True:
                session = self._link.session(lane)
                try:
                    async with await session.start_transaction(write_concern=SYNC if sync else LAZY):
                        await begin(session)
                        token = _CURRENT.set(_Current(session, careful))
                        try:
                            return await work()
                        finally:
                            _CURRENT.reset(token)
                except _AnotherRound:
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
        if current is not None and current.careful:
            return await self._insert_careful(name, documents, current.session)
        try:
            for first in range(0, len(documents), _INSERT_AT_ONCE):
                there += await self._insert(name, documents[first : first + _INSERT_AT_ONCE], sync)
        except (OperationFailure, DocumentTooLarge) as error:
            if not errors.too_large(error):
                raise
            if current is not None:
                raise _AnotherRound from None
            return await self._insert_large(name, documents, sync)
        return there

    async def _insert_careful(
        self, name: str, documents: list[Document], session: AsyncClientSession
    ) -> list[Document]:
        """In a transaction, where no insert may fail."""
        small = [await self.shrink(document) if "v" in document else document for document in documents]
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
                raise _AnotherRound from None
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
        await self.write(name, [ReplaceOne({"_id": one["_id"]}, one, upsert=True) for one in small], sync=sync)
        return []

    async def write(self, name: str, writes: Sequence[Write], *, sync: bool = False) -> None:
        """Any mixture of writes to different documents."""
        if writes:
            await self._permit()
            await self._link.collection(name, sync=sync).bulk_write(writes, ordered=False, session=_session())

    async def delete(self, name: str, where: Document, *, sync: bool = False) -> None:
        """Everything that matches."""
        await self._permit()
        await self._link.collection(name, sync=sync).delete_many(where, session=_session())

    async def write_documents(
        self, name: str, documents: Sequence[Document], write: Callable[[Document], Write], *, sync: bool = False
    ) -> None:
        """``write(document)`` for each, whose values may be of any size. Repeating it must change nothing."""
        current = _CURRENT.get()
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
                raise _AnotherRound from None
            await self.write(name, [write(await self.shrink(document)) for document in documents], sync=sync)

    # --- values of any size ---

    async def shrink(self, document: Document) -> Document:
        """``document``, or one whose ``v`` stands for a value in the collection ``large``."""
        value = document["v"]
        if not isinstance(value, (str, bytes, list, dict)):
            return document
        encoded = bson.encode({"v": value})
        if len(encoded) < _LARGE_FROM:
            return document
        digest = hashlib.blake2b(encoded, digest_size=16).digest()
        starts = range(0, len(encoded), _LARGE_PART)
        for index, start in enumerate(starts):
            part = {"_id": {"h": Binary(digest), "i": index}, "b": Binary(encoded[start : start + _LARGE_PART])}
            await self.insert("large", [part])
        return {**document, "v": Large(digest, len(starts)).document()}
