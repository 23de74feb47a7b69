"""The connection of `hs_stream.store.mongo`: exact inserts and upserts, range reads, values of any size.

What is written inside of `Link.together` is one transaction: its session is in `_CURRENT`, which every write looks at.
In a transaction, whatever fails ends all of it. So what is done in two attempts elsewhere (an insert of what may be
there, a document that may be too large) asks for another round, in which it is done the slow way at once.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import bson
from bson.binary import Binary
from pymongo import AsyncMongoClient, DeleteMany, InsertOne, ReplaceOne, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError, DocumentTooLarge, InvalidURI, OperationFailure
from pymongo.errors import ConfigurationError as InvalidOptions
from pymongo.monitoring import ConnectionPoolListener
from pymongo.write_concern import WriteConcern

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.errors import ConfigurationError, StoreUnavailable
from hs_stream.core.size import POINTER, size_of
from hs_stream.core.urls import ENCODE, check_login, host_of, said_of
from hs_stream.core.value import Value
from hs_stream.store.mongo import errors
from hs_stream.store.mongo.replies import aggregate_raw, find_raw
from hs_stream.store.mongo.values import CODEC, Large, batch_of, date, decode, instances_in

__all__ = ["Collection", "Document", "Link", "Write", "identity", "keys", "lookup", "questions", "span"]

Document = dict[str, Any]
Collection = AsyncCollection[Document]
Write = InsertOne[Document] | ReplaceOne[Document] | UpdateOne | DeleteMany

T = TypeVar("T")
_LAZY: Final = WriteConcern(w=1)
_SYNC: Final = WriteConcern(w="majority", j=True)
_LARGE_PART: Final = 8 << 20
_LARGE_FROM: Final = 12 << 20
_APART: Final = 120_000
"""Milliseconds: reading what 1 Hz leaves in between costs about as much as one more question."""
_KEYS_AT_ONCE: Final = 5_000
_FEW: Final = 16
"""Fewer times that are near each other than this are looked up one by one: a question costs about as much."""
_INSERT_AT_ONCE: Final = 50_000
_READ_AT_ONCE: Final = 100_000
_SOCKET_MS: Final = 60_000
_MOMENT: Final = 0.02
_FAREWELL: Final = 1.0
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


class _Epoch(ConnectionPoolListener):
    """Counts what can mean that another mongod answers now: a new process can only be reached by a new connection."""

    def __init__(self) -> None:
        self.count = 0

    def _count(self, event: object) -> None:
        self.count += 1

    def _ignore(self, event: object) -> None:
        pass

    pool_cleared = connection_created = connection_ready = connection_closed = _count
    pool_created = pool_ready = pool_closed = _ignore
    connection_check_out_started = connection_check_out_failed = _ignore
    connection_checked_out = connection_checked_in = _ignore


class Link:
    """A connection to one database. ``where`` names the server in messages and holds no password."""

    def __init__(self, url: str, server_timeout: float) -> None:
        self._url = url
        self._server_timeout = server_timeout
        self.where = host_of(url)
        self._client: AsyncMongoClient[Document] | None = None
        self._leaving: list[AsyncMongoClient[Document]] = []
        self._epoch = _Epoch()
        self._lazy: dict[str, Collection] = {}
        self._sync: dict[str, Collection] = {}
        self._sessions: dict[str, AsyncClientSession] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self.permitted: Callable[[], Awaitable[None]] | None = None
        """Asked before each command that writes outside of a transaction; raises where it must not be sent."""
        self.transactions = False
        """Whether the server has them: a member of a replica set, or a router. Known when connected."""

    def talking(self) -> AbstractContextManager[None]:
        """Errors of the network and the server become `StoreUnavailable` inside."""
        return errors.unavailable(self.where)

    async def connect(self) -> None:
        """Connect, and log in. `StoreUnavailable`, or `ConfigurationError` for a URL that can never work."""
        if self._client is not None:
            return
        options = {
            "serverSelectionTimeoutMS": round(self._server_timeout * 1000),
            "connectTimeoutMS": round(self._server_timeout * 1000),
            "socketTimeoutMS": _SOCKET_MS,
            "appname": "hs_stream",
        }
        given = self._url.lower()
        options = {name: value for name, value in options.items() if f"{name.lower()}=" not in given}
        # What failed is repeated by who asked, in full. PyMongo 4.20 marks the second attempt behind a lost connection
        # as retryable for a standalone mongod too, which refuses that (code 20, as if it could never write).
        options["retryWrites"] = False
        with self.talking():
            client = self._client_of(options)
            self._leaving.append(client)  # until it is ours
            try:
                hello = await client.get_default_database("hs_stream").command("hello")
            except BaseException:
                # PyMongo gives up at the very moment at which its monitor connects once more, and does not close the
                # socket of a connection that is cut off while it is made.
                await asyncio.sleep(_MOMENT)
                await self._leave()
                raise
            if not self._take(client):
                raise self._closed()
        self._client = client
        self.transactions = "setName" in hello or hello.get("msg") == "isdbgrid"

    def _client_of(self, options: Mapping[str, Any]) -> AsyncMongoClient[Document]:
        try:
            check_login(self._url)
            return AsyncMongoClient(self._url, event_listeners=[self._epoch], **options)
        except (ValueError, InvalidURI) as error:
            said = said_of(self._url, error)
            hint = f"{ENCODE}; the rest is host[:port]/database"
            raise ConfigurationError(f"store.url for {self.where} is not a MongoDB URL{said}", hint=hint) from None
        except InvalidOptions as error:
            said = said_of(self._url, error)
            raise ConfigurationError(f"store.url for {self.where}{said}", hint="check its options") from None

    async def disconnect(self) -> None:
        """Idempotent, and goes on where a cancellation cut it off."""
        if self._client is not None:
            self._leaving.append(self._client)
        self._client = None
        self._lazy.clear()
        self._sync.clear()
        self._sessions.clear()
        await self._leave()

    async def _leave(self) -> None:
        while self._leaving:
            client = self._leaving[-1]
            # It takes leave of the server first, and would wait for one that is away. The second time it does not.
            try:
                async with asyncio.timeout(_FAREWELL):
                    await client.close()
            except TimeoutError:
                await client.close()
            self._take(client)

    def _take(self, client: AsyncMongoClient[Document]) -> bool:
        """Whether it was still leaving. Clients of one server are equal to each other."""
        there = [one for one in self._leaving if one is client]
        self._leaving = [one for one in self._leaving if one is not client]
        return bool(there)

    def _closed(self) -> StoreUnavailable:
        return StoreUnavailable(f"the store at {self.where} is closed", hint="await store.open() first")

    @property
    def epoch(self) -> int:
        """While this stays the same, so does the process of the server that answers."""
        return self._epoch.count

    async def server(self) -> object:
        """What tells the process of the server that answers now from any other."""
        hello = await self.database.command("hello")
        return hello.get("topologyVersion", {}).get("processId")

    @property
    def connected(self) -> bool:
        """Between `connect` and `disconnect`, whether or not the server answers right now."""
        return self._client is not None

    @property
    def database(self) -> Any:
        """PyMongo's database, reading as `CODEC` says."""
        if self._client is None:
            raise self._closed()
        return self._client.get_default_database("hs_stream").with_options(codec_options=CODEC)

    def collection(self, name: str, *, sync: bool = False) -> Collection:
        """A collection; with ``sync`` its writes return when they, and all before them, are durable."""
        known = self._sync if sync else self._lazy
        if name not in known:
            concern = _SYNC if sync else _LAZY
            known[name] = self.database[name].with_options(codec_options=CODEC, write_concern=concern)
        return known[name]

    # --- transactions ---

    def sessions(self, lanes: Iterable[str]) -> list[Binary]:
        """The ids of the sessions in which `together` writes, for who has to end what they left open."""
        if self._client is None:
            raise self._closed()
        for lane in lanes:
            if lane not in self._sessions:
                self._sessions[lane] = self._client.start_session()
        return [self._sessions[lane].session_id["id"] for lane in lanes]

    async def end_sessions(self, ids: Sequence[Binary]) -> None:
        """End what the transactions of another process left open, as far as the server lets us."""
        if ids:
            with suppress(OperationFailure):
                await self.database.command({"killSessions": [{"id": one} for one in ids]})

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
                self.sessions([lane])
                session = self._sessions[lane]
                try:
                    async with await session.start_transaction(write_concern=_SYNC if sync else _LAZY):
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
                    await asyncio.sleep(_MOMENT)

    # --- writes ---

    async def _permit(self) -> None:
        if self.permitted is not None and not self.transactions:
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
            done = await self.collection(name).bulk_write(writes, ordered=False, session=session)
            there += [one for index, one in enumerate(part) if index not in (done.upserted_ids or {})]
        return there

    async def _insert(self, name: str, documents: list[Document], sync: bool) -> list[Document]:
        await self._permit()
        try:
            try:
                await self._insert_command(name, documents, sync)
            except DocumentTooLarge:  # all of them together are, perhaps
                await self.collection(name, sync=sync).insert_many(documents, ordered=False, session=_session())
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
            command["writeConcern"] = (_SYNC if sync else _LAZY).document
        reply = await self.database.command(command, codec_options=CODEC, session=session)
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
            await self.collection(name, sync=sync).bulk_write(writes, ordered=False, session=_session())

    async def delete(self, name: str, where: Document, *, sync: bool = False) -> None:
        """Everything that matches."""
        await self._permit()
        await self.collection(name, sync=sync).delete_many(where, session=_session())

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

    async def whole(self, value: Value) -> Value:
        """The value that a `Large` stands for; any other value is itself."""
        if not isinstance(value, Large):
            return value
        ids = [{"h": Binary(value.digest), "i": index} for index in range(value.parts)]
        found = self.collection("large").find({"_id": {"$in": ids}}).sort("_id", 1)
        encoded = b"".join([part["b"] async for part in found])
        return decode(bson.decode(encoded, CODEC)["v"])

    # --- reads ---

    async def batch(
        self, where: Mapping[str, Any], *, limit: int | None = None, newest: bool = False, budget: int | None = None
    ) -> Batch:
        """The instances that match, ascending; with ``limit`` or ``budget`` the first, or the last, of them."""
        if limit is not None and limit <= 0:
            return NOTHING
        descending = newest and (bool(limit) or budget is not None)
        with self.talking():
            found = find_raw(
                self.database,
                "instances",
                where,
                descending=descending,
                limit=limit or 0,
                at_once=_READ_AT_ONCE,
            )
            if budget is not None:
                return await self._within(found, budget, descending=descending)
            batches = [batch_of(raw) async for raw in found]
            if newest and limit:
                batches = [Batch(one.times[::-1], one.values[::-1]) for one in reversed(batches)]
            return await self._large_too(Batch.concat(batches))

    async def _within(self, found: AsyncGenerator[bytes, None], budget: int, *, descending: bool) -> Batch:
        """The first of the instances that come, with the one that fills ``budget``. One reply is at most 16 MiB."""
        times: list[int] = []
        values: list[Value] = []
        left = budget
        async with aclosing(found):
            async for raw in found:
                for time, stored in instances_in(raw):
                    times.append(time)
                    values.append(await self.whole(stored))
                    left -= size_of(values[-1]) + POINTER
                    if left <= 0:
                        break
                if left <= 0:
                    break
        return Batch.build(times[::-1], values[::-1]) if descending else Batch.build(times, values)

    async def batch_at(self, stream: int, times: Sequence[int]) -> Batch:
        """The instances at exactly ``times``, ascending."""
        batches: list[Batch] = []
        with self.talking():
            for question in questions(stream, times):
                if isinstance(question, list):
                    pipeline = lookup("instances", stream, question)
                    found = aggregate_raw(self.database, pipeline, at_once=_READ_AT_ONCE)
                    batches.append(await self._large_too(Batch.concat([batch_of(raw) async for raw in found])))
                else:
                    batches.append(await self.batch(question))
        return Batch.concat(batches)

    async def revised(self, name: str, stream: int, times: Sequence[int]) -> dict[int, int]:
        """The revisions above 0 of those of ``times`` that the collection ``name`` has."""
        revised = {"r": {"$gt": 0}}
        found: dict[int, int] = {}
        for question in questions(stream, times):
            if isinstance(question, list):
                pipeline = [*lookup(name, stream, question), {"$match": revised}, {"$project": {"r": 1}}]
                cursor = await self.database.aggregate(pipeline)
            else:
                cursor = self.collection(name).find(question | revised, {"r": 1})
            async for document in cursor:
                found[int(document["_id"]["t"])] = int(document["r"])
        return found

    async def _large_too(self, batch: Batch) -> Batch:
        if isinstance(batch.values, list) and any(type(value) is Large for value in batch.values):
            return Batch.build(batch.times, [await self.whole(value) for value in batch.values])
        return batch
