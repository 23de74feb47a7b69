"""What is after the last checkpoint is redone from the journal: when a store is opened, and when mongod was restarted.

Rules 3 and 6 of `hs_stream.store.mongo`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from bson.max_key import MaxKey

from hs_stream.core.errors import StoreUnavailable
from hs_stream.engine.ports import Commit
from hs_stream.store.mongo import layout
from hs_stream.store.mongo.applier import Applier
from hs_stream.store.mongo.books import Books
from hs_stream.store.mongo.journal import assemble, later, unpack_commit
from hs_stream.store.mongo.link import Link
from hs_stream.store.mongo.right import Right

__all__ = ["Redo"]

_LOG: Final = logging.getLogger(__name__)
T = TypeVar("T")
_CLAIMS: Final = 1000
"""So many entries that claimed a ``seq`` stay."""


class Redo:
    """``lock`` is held by who commits; ``opened``: whether the store is. What is ``read_only`` redoes nothing."""

    def __init__(
        self,
        link: Link,
        right: Right,
        applier: Applier,
        books: Books,
        lock: asyncio.Lock,
        opened: Callable[[], bool],
        *,
        read_only: bool,
    ) -> None:
        self._link = link
        self._right = right
        self._applier = applier
        self._books = books
        self._lock = lock
        self._opened = opened
        self._read_only = read_only
        self._verified = -1
        """While the connections stay as they were then, everything committed is there to be read."""

    async def load(self) -> None:
        """Learn what is stored, and redo what was interrupted."""
        self._books.vouched_by(await self._link.server())
        found = await self._link.collection("state").find_one({"_id": "store"}) or {}
        if found.get("layout", layout.LAYOUT) > layout.LAYOUT:
            raise StoreUnavailable(
                f"the database at {self._link.where} has layout {found['layout']}, this version writes {layout.LAYOUT}",
                hint="it was made by a newer hs_stream; install that, or name another database in store.url",
            )
        records = [layout.stream_record(document) async for document in self._link.collection("streams").find()]
        self._books.found(found, records)
        await self._applier.load()
        await self._replay()

    async def _replay(self) -> None:
        """Rule 3. A read-only store only takes notice of what the entries say about streams."""
        journal = self._link.collection("outbox")
        applied, published = self._books.state["applied"], self._books.state["published"]
        async for document in journal.find(
            {"_id": {"$lte": {"q": applied, "i": MaxKey()}}, "p": True}, {"_id": 1}
        ).sort("_id", 1):
            seq = int(document["_id"]["q"])
            if seq > published and seq not in self._books.pending.after(seq - 1, 1):
                self._books.pending.add(seq)
        rest = [document async for document in journal.find(later(applied)).sort("_id", 1)]
        for seq, packed in assemble(rest):
            if packed is None:
                if not self._read_only:
                    await self._link.collection("outbox", sync=True).delete_many(later(seq - 1))
                break
            self._books.note(unpack_commit(packed) if self._read_only else await self._applier.redo(packed))
        if not self._read_only:
            await self._claim_seq()
            await self.settled_checkpoint()

    async def _claim_seq(self) -> None:
        """Rule 3 of the journal: the first entry of a token is its own."""
        token, state = self._right.token, self._books.state
        if token == state["token"]:
            return
        journal = self._link.collection("outbox")
        claim = Commit(state["commit"] + 1, (), state["consumed"], state["proven"])
        await self._applier.claim_seq(claim)
        self._books.note(claim)
        state["token"] = token
        found = journal.find({"c": True}, {"_id": 1}).sort("_id", -1).skip(_CLAIMS).limit(1)
        for old in [one["_id"] async for one in found]:
            await journal.delete_many({"_id": {"$lte": old}, "c": True})

    async def settled_checkpoint(self) -> None:
        """For who holds the lock: a checkpoint, whatever became of the server."""
        while not await self._books.checkpoint():
            self._verified = -1
            await self.settle_locked()

    async def settle(self) -> None:
        """Return when everything committed is there to be read (rule 6). Costs nothing while the connections stay."""
        if self._opened() and not self._read_only and self._link.epoch != self._verified:
            async with self._lock:
                with self._link.talking():
                    await self.settle_locked()

    async def settle_locked(self) -> None:
        """`settle`, for who holds the lock."""
        while (epoch := self._link.epoch) != self._verified:
            server = await self._link.server()
            if not self._books.is_vouched_by(server):
                _LOG.warning("mongod at %s was restarted: redoing the latest commits", self._link.where)
                await self._books.require_same()
                await self._redo()
                if await self._link.server() != server:
                    continue
                self._books.vouched_by(server)
            self._verified = epoch

    async def _redo(self) -> None:
        journal = self._link.collection("outbox").find(later(self._books.saved.get("applied", 0))).sort("_id", 1)
        for seq, packed in assemble([document async for document in journal]):
            if packed is not None and seq <= self._books.state["commit"]:
                await self._applier.redo(packed)

    async def steady(self, read: Callable[[], Awaitable[T]]) -> T:
        """The result of a read that saw everything committed, even if mongod was killed and restarted meanwhile."""
        while True:
            await self.settle()
            result = await read()
            if self._read_only or self._link.epoch == self._verified:
                return result
