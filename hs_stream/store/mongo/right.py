"""The right to write: taken, given back, and named by all that is written.

Rules 10 and 11 of `hs_stream.store.mongo`.
"""

from __future__ import annotations

import json
from asyncio import create_task, sleep, wait
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

from bson.int64 import Int64
from pymongo import ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import DuplicateKeyError

from hs_stream.engine.ports import Holder
from hs_stream.store.fence import Fence, host_now
from hs_stream.store.mongo import layout
from hs_stream.store.mongo.keys import Document
from hs_stream.store.mongo.link import Link
from hs_stream.store.mongo.writer import LONGEST_MS, AnotherRound, Refused, Writer

__all__ = ["FRESH_MS", "Right"]

T = TypeVar("T")
_LANES: Final = ("append", "commit", "books")
"""Of what is written together, and what waits for each other: readings; commits and records; all the rest."""
_AGAIN: Final = 0.5
"""Seconds until what was begun meanwhile is ended."""
FRESH_MS: Final = 100
"""Milliseconds, those of a suspension too, for which rule 11 believes the last answer."""


class Right:
    """What `writer` is asked for. ``asks``: not where nothing may be written anyway."""

    def __init__(self, link: Link, writer: Writer, *, asks: bool) -> None:
        self._link = link
        self._writer = writer
        self.fence = Fence(f"the database at {link.where}")
        self._asked = -FRESH_MS
        if asks:
            writer.permitted = self._permit

    async def opened(self) -> None:
        """From here on, nobody with an earlier token writes."""
        self._asked = -FRESH_MS
        lease = await self._link.collection("state").find_one({"_id": "lease"}) or {}
        self.fence.opened(int(lease.get("token", 0)))
        self.fence.require(int(lease.get("token", 0)))  # it may have been lost since it was claimed
        await self._raise_fences(self.token)

    @property
    def token(self) -> int:
        """What is written names it."""
        return self.fence.token or 0

    async def write(self, lane: str, work: Callable[[], Awaitable[T]], *, sync: bool = False, plain: bool = False) -> T:
        """Let ``work`` write, if this object has the right to; it may be called several times.

        What is ``plain`` is guarded command by command, if the server can do that. All the rest is one transaction, if
        the server has them; with ``sync`` it is durable.
        """
        guard, careful = f"fence.{lane}", False
        if not self._link.transactions:
            return await work()
        if plain and self._link.guards:
            try:
                return await self._writer.guarded(lane, guard, self.token, work)
            except Refused:
                raise self.fence.refused() from None
            except AnotherRound:
                careful = True

        async def begin(session: AsyncClientSession) -> None:
            own = {"q": {"_id": guard, "token": self.token}, "u": {"$inc": {"n": 1}}}
            done = await self._link.database.command({"update": "state", "updates": [own]}, session=session)
            if not done["n"]:
                raise self.fence.refused()

        return await self._writer.together(lane, begin, work, sync=sync, careful=careful)

    async def _permit(self) -> None:
        """Rule 11."""
        now = host_now()
        if self.fence.broken or now > self._asked + FRESH_MS:
            where = {"filter": {"_id": "lease"}, "projection": {"token": 1}, "limit": 1, "singleBatch": True}
            found = (await self._link.database.command({"find": "state", **where}))["cursor"]["firstBatch"]
            self.fence.require(int(found[0].get("token", 0)) if found else 0)
            self._asked = now

    async def _exchange(self, name: str, change: Any, which: bool = ReturnDocument.AFTER) -> Document:
        """Change a document of ``state``, made where there is none; as it was before or is after it."""
        state = self._link.collection("state", sync=True)
        while True:
            with suppress(DuplicateKeyError):  # two of us made it at the same time
                found = await state.find_one_and_update({"_id": name}, change, upsert=True, return_document=which)
                return found or {}

    async def _raise_fences(self, token: int) -> None:
        """Nothing that names an earlier token than this is carried out after this."""
        if not self._link.transactions:
            return
        state = self._link.collection("state", sync=True)
        mine, user = self._writer.sessions(_LANES), await self._user()
        known = {"$addToSet": {"ids": {"$each": mine}, "users": user}}
        before = await self._exchange("sessions", known, ReturnDocument.BEFORE)
        others = [one for one in before.get("ids", ()) if one not in mine]
        # What a process that was frozen or killed left open would hold us up for a minute; and so would what it begins
        # now, if it goes on for a moment and is frozen again.
        await self._writer.end_sessions(others)
        raising = create_task(self._raise_guards(token), name="hs-stream-claim")
        try:
            while not (await wait({raising}, timeout=_AGAIN))[0]:
                await self._writer.end_sessions(others)
        finally:
            raising.cancel()
        raised = raising.result()
        # A command that looked at a fence before may be about to write.
        if not await self._writer.left(others) and not {*before.get("users", ())} <= {user}:
            await sleep(LONGEST_MS / 1000)
        if raised:  # else some of them may have the same token
            gone = {"$pullAll": {"ids": others}, "$set": {"users": [user]}}
            await state.update_one({"_id": "sessions"}, gone)

    async def _raise_guards(self, token: int) -> bool:
        """Whether this was news to any of them."""
        state, raised = self._link.collection("state", sync=True), False
        for lane in _LANES:
            with suppress(DuplicateKeyError):  # it has this token, or a later one
                older = {"_id": f"fence.{lane}", "token": {"$lt": token}}
                await state.update_one(older, {"$set": {"token": token}}, upsert=True)
                raised = True
        return raised

    async def _user(self) -> str:
        """As whom we have logged in: nobody sees what another user sent, without the right to."""
        status = await self._link.database.command("connectionStatus")
        return json.dumps(status["authInfo"]["authenticatedUsers"], sort_keys=True)

    async def claim(self, owner: str, for_ms: int, instead_of: str) -> Holder:
        """Rule 5 of `hs_stream.engine.ports`. It is answered when no write with an earlier token can take effect."""
        if not for_ms:
            return await self._give_back(owner, instead_of)
        lease = await self._exchange("lease", layout.claim_pipeline(owner, for_ms, instead_of))
        holder = Holder(str(lease["owner"]), int(lease["token"]))
        if holder.owner == owner:
            if self.fence.is_news(holder.token):
                await self._raise_fences(holder.token)
            self.fence.claimed(holder.token)
        return holder

    async def _give_back(self, owner: str, instead_of: str) -> Holder:
        """`claim` for no time."""
        state = self._link.collection("state", sync=True)
        await state.update_one({"_id": "lease", "owner": owner}, {"$set": {"until": Int64(0)}})
        looked = await state.aggregate(layout.holder_pipeline(owner, instead_of))
        found = await looked.to_list(1)
        return Holder(str(found[0]["owner"]), int(found[0]["token"])) if found else Holder("", 0)
