"""The connection of `hs_stream.store.mongo` to one database."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import ConfigurationError as InvalidOptions
from pymongo.errors import InvalidURI
from pymongo.monitoring import ConnectionPoolListener
from pymongo.write_concern import WriteConcern

from hs_stream.core.errors import ConfigurationError, StoreUnavailable
from hs_stream.core.urls import ENCODE, check_login, host_of, said_of
from hs_stream.store.mongo import errors
from hs_stream.store.mongo.keys import Document
from hs_stream.store.mongo.values import CODEC

__all__ = ["LAZY", "MOMENT", "SYNC", "Collection", "Link"]

Collection = AsyncCollection[Document]

LAZY: Final = WriteConcern(w=1)
SYNC: Final = WriteConcern(w="majority", j=True)
MOMENT: Final = 0.02
"""Seconds."""
_REFUSED: Final = 0.15
"""Seconds in which a connection that nobody takes is given up, also on a busy machine."""
_SOCKET_MS: Final = 60_000
_FAREWELL: Final = 1.0


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
        self.transactions = False
        """Whether the server has them: a member of a replica set, or a router. Known when connected."""
        self.guards = False
        """Whether `hs_stream.store.mongo.writer.Writer.guarded` may be used: no other member can be elected primary."""

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
        # What failed is repeated by who asked, in full. PyMongo 4.20 marks the second attempt after a lost connection
        # as retryable for a standalone mongod too, which refuses that (code 20, as if it could never write).
        options["retryWrites"] = False
        with self.talking():
            client = self._client_of(options)
            self._leaving.append(client)  # until it is ours
            try:
                hello = await client.get_default_database("hs_stream").command("hello")
            except BaseException:
                # PyMongo gives up at the very moment at which its monitor connects once more, and does not close the
                # socket of a connection that is cut off while it is made. The next one it makes half a second later.
                await asyncio.sleep(_REFUSED)
                await self._leave()
                raise
            if not self._take(client):
                raise self._closed()
        self._client = client
        self.transactions = "setName" in hello or hello.get("msg") == "isdbgrid"
        self._heard(hello)

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
        self._heard(hello)
        return hello.get("topologyVersion", {}).get("processId")

    def _heard(self, hello: Document) -> None:
        """A member may have joined since."""
        self.guards = len(hello.get("hosts", ())) == 1

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
            concern = SYNC if sync else LAZY
            known[name] = self.database[name].with_options(codec_options=CODEC, write_concern=concern)
        return known[name]

    def session(self, name: str) -> AsyncClientSession:
        """The session of this connection that has this name among us."""
        if self._client is None:
            raise self._closed()
        if name not in self._sessions:
            self._sessions[name] = self._client.start_session()
        return self._sessions[name]
