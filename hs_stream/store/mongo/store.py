"""A store in MongoDB that people can read with their own tools; a standalone mongod is enough.

Theory of operation

1. A commit is first written to the journal (``outbox``, see `hs_stream.store.mongo.journal`) with ``j: true``. The last
   part of it is the commit point. Then instances, retracted revisions and snapshots are applied.
2. Coverage, watermarks, history and the state document follow together, at most every ``checkpoint_seconds`` and on
   `MongoStore.close`: the *checkpoint*. Its last write says up to which commit everything is applied.
3. `MongoStore.open` redoes each complete journal entry behind the last checkpoint, in order, and drops an incomplete
   one. Redoing is idempotent: every write of it is an upsert or a delete. Until then this process knows the truth from
   memory.
4. All of this rests on one property of the server: its journal is a sequential log, and a write with ``j: true`` makes
   every earlier write that the same mongod process acknowledged durable too. So applying a commit need not wait for
   the disk, and a durable checkpoint proves that what it speaks of is durable. (In a replica set ``w: majority`` does
   the same for the oplog.)
5. An append writes its marks, then dead letters, then readings. One without marks leaves no trace of its ``seq``, so
   ``Recovery.append_seq`` may be lower than the last one used, but never lower than a mark or than what was consumed.
6. A mongod that is killed while we go on forgets acknowledged writes that no ``j: true`` followed, and PyMongo
   reconnects without a word. So whenever connections changed, and in each checkpoint behind a durable write, we ask
   which process answers; if it is another, everything behind the last checkpoint is redone from the journal before
   anybody reads. Every write of an append is durable by itself.
7. A commit that touches a raw stream (a purge) is followed by a checkpoint at once: appends are not in the journal, so
   it must never be redone over a later one.
8. Before each checkpoint, and before anything is redone, the state document must be no older than we left it:
   `StoreReplaced` when the database was dropped or restored from a backup meanwhile, and nothing more is written.
9. After a `StoreUnavailable` the *same* append or commit must be tried again, because it may be half there.
10. The right to write is the document ``lease`` of ``state``; it runs out by the clock of the server. On a replica set,
   everything that is written is a transaction that begins with a conditional write: on a document of its lane, which
   holds the token, and which a claim changes before it is answered. So a claim waits for the transactions that are
   under way (it ends those of the owner before), and later ones are `Fenced`, wherever their process was frozen. Lanes,
   so that appends, commits and the rest do not wait for each other, and none of them for a renewal.
11. A standalone server has no transactions. There each command that writes is preceded by a look at the lease, if the
   last one is not younger than `FRESH_MS`: whoever was frozen for longer notices. And a ``seq`` of the journal belongs
   to one token for ever (`hs_stream.store.mongo.journal`, rule 3). Decision 9 says what that does not promise.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, replace
from typing import Any, Final, TypeVar

from bson.binary import Binary
from bson.int64 import Int64
from bson.max_key import MaxKey
from pymongo import DeleteMany, ReplaceOne, ReturnDocument, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import DuplicateKeyError

from hs_stream.core.batch import Batch
from hs_stream.core.errors import Fenced, StoreReplaced, StoreUnavailable
from hs_stream.core.packing import pack, unpack
from hs_stream.core.time import MAX_TIME, MIN_TIME, TimeIntervals
from hs_stream.engine.ports import (
    Append,
    Commit,
    DeadLetter,
    DocumentKind,
    HistoryEntry,
    Holder,
    OutboxEntry,
    Recovery,
    Snapshot,
    StreamChange,
    StreamRecord,
)
from hs_stream.store.changes import complete, merge_marks, missing, touched
from hs_stream.store.fence import Fence, host_now
from hs_stream.store.mongo import layout
from hs_stream.store.mongo.journal import Pending, assemble, entries_of, journal_documents, publishes, unpack_commit
from hs_stream.store.mongo.link import Document, Link, Write, identity, keys, span
from hs_stream.store.mongo.values import date, decode, documents_of, encode

__all__ = ["FRESH_MS", "MongoStore"]

_LOG: Final = logging.getLogger(__name__)
T = TypeVar("T")
_LETTERS_AT_ONCE: Final = 100
_LANES: Final = ("append", "commit", "books")
"""Of what is written together, and what waits for each other: readings; commits and records; all the rest."""
FRESH_MS: Final = 100
"""Milliseconds, those of a suspension too, for which rule 11 believes the last answer."""
_CLAIMS: Final = 1000
"""So many entries that claimed a ``seq`` stay."""
_STATE: Final = {"append": 0, "commit": 0, "published": 0, "consumed": 0, "applied": 0, "proven": None, "token": 0}


class MongoStore:
    """See the module.

    ``url`` names the database in its path, ``hs_stream`` by default. ``server_timeout``: seconds until an unreachable
    server is `StoreUnavailable`. With ``read_only`` nothing is created, redone or written; writing raises
    `StoreUnavailable`. ``on_step`` is called with ``marked``, ``journaled``, ``applied`` and ``checkpointed`` behind
    each of these steps, so that tests can stop there.
    """

    name: str = "mongodb"

    def __init__(
        self,
        url: str,
        *,
        server_timeout: float = 5.0,
        history_days: float = 90.0,
        dead_letter_days: float = 30.0,
        checkpoint_seconds: float = 0.5,
        read_only: bool = False,
    ) -> None:
        self._link = Link(url, server_timeout)
        self._days = {"history_days": history_days, "dead_letter_days": dead_letter_days}
        self._server_timeout = server_timeout
        self._checkpoint_seconds = checkpoint_seconds
        self._read_only = read_only
        self.on_step: Callable[[str], None] = lambda _step: None
        self._append_lock = asyncio.Lock()
        self._commit_lock = asyncio.Lock()
        self._checkpoint_lock = asyncio.Lock()
        self._opened = False
        self._fence = Fence(f"the database at {self._link.where}")
        if not read_only:
            self._link.permitted = self._require_mine
        self._reset()

    def _reset(self) -> None:
        self._records: dict[int, StreamRecord] = {}
        self._state: dict[str, Any] = dict(_STATE)
        self._saved: dict[str, Any] = {}
        self._progress: dict[int, tuple[TimeIntervals, int | None]] = {}
        self._history: list[Document] = []
        self._pending = Pending()
        self._forgotten = 0
        self._replaced: StoreReplaced | None = None
        self._marked = False
        self._retracted: set[int] = set()
        self._server: object = None
        self._verified = -1
        self._timer: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._asked = -FRESH_MS

    # --- opening ---

    async def open(self) -> Recovery:
        """Connect, create what is missing, redo what was interrupted. `StoreUnavailable` says what to do."""
        if not self._opened:
            self._reset()
        await self._link.connect()
        try:
            with self._link.talking():
                if not self._opened:
                    if not self._read_only:
                        await self._begin_writing()
                    await self._load()
                marks = await self._marks()
        except BaseException:
            await self.abandon()
            raise
        self._opened = True
        state = self._state
        state["append"] = max([state["append"], state["consumed"], *(seq for seq, _ in marks)])
        self._marked = bool(marks)
        changed = merge_marks(pair for seq, one in marks if seq > state["consumed"] for pair in one.items())
        return Recovery(changed, state["append"], state["commit"], state["published"], state["proven"])

    async def _begin_writing(self) -> None:
        """Create what is missing; from here on, nobody with an earlier token writes."""
        await layout.create(self._link.database, **self._days)
        lease = await self._link.collection("state").find_one({"_id": "lease"}) or {}
        self._fence.opened(int(lease.get("token", 0)))
        self._fence.require(int(lease.get("token", 0)))  # it may have been lost since it was claimed
        await self._raise_fences(self._token)

    async def _load(self) -> None:
        self._server = await self._link.server()
        found = await self._link.collection("state").find_one({"_id": "store"}) or {}
        if found.get("layout", layout.LAYOUT) > layout.LAYOUT:
            raise StoreUnavailable(
                f"the database at {self._link.where} has layout {found['layout']}, this version writes {layout.LAYOUT}",
                hint="it was made by a newer hs_stream; install that, or name another database in store.url",
            )
        self._saved = {name: decode(found.get(name)) for name in _STATE} if found else {}
        self._state = _STATE | self._saved
        await self._load_streams()
        retracted = self._link.collection("retracted")
        self._retracted = {item["_id"] async for item in await retracted.aggregate([{"$group": {"_id": "$_id.s"}}])}
        await self._replay()

    async def _load_streams(self) -> None:
        found = [layout.stream_record(document) async for document in self._link.collection("streams").find()]
        self._records = {record.id: record for record in found}

    async def _marks(self) -> list[tuple[int, dict[int, Any]]]:
        return [(int(mark["_id"]), unpack(mark["changed"])) async for mark in self._link.collection("marks").find()]

    async def _replay(self) -> None:
        """Rule 3. A read-only store only takes notice of what the entries say about streams."""
        journal = self._link.collection("outbox")
        applied, published = self._state["applied"], self._state["published"]
        async for document in journal.find(
            {"_id": {"$lte": {"q": applied, "i": MaxKey()}}, "p": True}, {"_id": 1}
        ).sort("_id", 1):
            seq = int(document["_id"]["q"])
            if seq > published and seq not in self._pending.after(seq - 1, 1):
                self._pending.add(seq)
        behind = [document async for document in journal.find(_later(applied)).sort("_id", 1)]
        for seq, packed in assemble(behind):
            if packed is None:
                if not self._read_only:
                    await self._link.collection("outbox", sync=True).delete_many(_later(seq - 1))
                break
            self._note(unpack_commit(packed) if self._read_only else await self._redo_one(packed))
        if not self._read_only:
            await self._claim_seq()
            await self._settled_checkpoint()

    async def _claim_seq(self) -> None:
        """Rule 3 of the journal: the first entry of a token is its own."""
        token, state = self._token, self._state
        if token == state["token"]:
            return
        journal = self._link.collection("outbox")
        claim = Commit(state["commit"] + 1, (), state["consumed"], state["proven"])
        await self._write("commit", lambda: self._write_journal(claim, claims=True), sync=True)
        self._note(claim)
        state["token"] = token
        found = journal.find({"c": True}, {"_id": 1}).sort("_id", -1).skip(_CLAIMS).limit(1)
        for old in [one["_id"] async for one in found]:
            await journal.delete_many({"_id": {"$lte": old}, "c": True})

    async def close(self) -> None:
        """Write a last checkpoint and disconnect. Idempotent."""
        try:
            if self._opened and not self._read_only and self._link.connected and not self._fence.broken:
                await self._stop_timer()
                async with self._commit_lock:
                    with self._link.talking():
                        await self._settled_checkpoint()
        finally:
            await self.abandon()

    async def abandon(self) -> None:
        """Disconnect without beginning to write anything more: what a kill of the process would leave."""
        self._opened = False
        try:
            await self._stop_timer()
        finally:
            await self._link.disconnect()

    async def _stop_timer(self) -> None:
        """Return when no checkpoint is under way any more.

        It is not cut off at once: mongod would carry out what it has received, perhaps after the next process has
        opened the database.
        """
        self._stopping.set()
        timer, self._timer = self._timer, None
        if timer is not None and not (await asyncio.wait({timer}, timeout=self._server_timeout))[0]:
            timer.cancel()
            await asyncio.wait({timer})

    async def ping(self) -> None:
        with self._link.talking():
            await self._link.database.command("ping")

    def _require_writable(self) -> None:
        if self._read_only:
            raise StoreUnavailable(f"the store at {self._link.where} is open for reading only")
        if not self._opened:
            raise StoreUnavailable(f"the store at {self._link.where} is closed", hint="await store.open() first")
        if self._replaced is not None:
            raise self._replaced
        if self._fence.broken:
            raise self._fence.refused()

    # --- the right to write (rules 10 and 11) ---

    @property
    def _token(self) -> int:
        return self._fence.token or 0

    async def _write(self, lane: str, work: Callable[[], Awaitable[T]], *, sync: bool = False) -> T:
        """Let ``work`` write, if this object has the right to. Where there are transactions, it is one."""
        if not self._link.transactions:
            return await work()

        async def begin(session: AsyncClientSession) -> None:
            own = {"q": {"_id": f"fence.{lane}", "token": self._token}, "u": {"$inc": {"n": 1}}}
            done = await self._link.database.command({"update": "state", "updates": [own]}, session=session)
            if not done["n"]:
                raise self._fence.refused()

        return await self._link.together(lane, begin, work, sync=sync)

    async def _require_mine(self) -> None:
        """Rule 11."""
        now = host_now()
        if self._fence.broken or now > self._asked + FRESH_MS:
            where = {"filter": {"_id": "lease"}, "projection": {"token": 1}, "limit": 1, "singleBatch": True}
            found = (await self._link.database.command({"find": "state", **where}))["cursor"]["firstBatch"]
            self._fence.require(int(found[0].get("token", 0)) if found else 0)
            self._asked = now

    async def _exchange(self, name: str, change: Any, which: bool = ReturnDocument.AFTER) -> Document:
        """Change a document of ``state``, made where there is none; as it was before or is after it."""
        state = self._link.collection("state", sync=True)
        while True:
            with suppress(DuplicateKeyError):  # two of us made it at the same time
                found = await state.find_one_and_update({"_id": name}, change, upsert=True, return_document=which)
                return found or {}

    async def _raise_fences(self, token: int) -> None:
        """No transaction with an earlier token than this begins or ends behind this."""
        if not self._link.transactions:
            return
        state = self._link.collection("state", sync=True)
        # What a process that was frozen or killed left open would hold us up for a minute.
        mine = self._link.sessions(_LANES)
        before = await self._exchange("sessions", {"$set": {"ids": mine}}, ReturnDocument.BEFORE)
        await self._link.end_sessions([one for one in before.get("ids", ()) if one not in mine])
        for lane in _LANES:
            with suppress(DuplicateKeyError):  # it has this token, or a later one
                older = {"_id": f"fence.{lane}", "token": {"$lt": token}}
                await state.update_one(older, {"$set": {"token": token}}, upsert=True)

    async def _require_same(self) -> None:
        """Rule 8."""
        if not self._saved:
            return
        found = await self._link.collection("state").find_one({"_id": "store"}) or {}
        if lost := missing({name: decode(found.get(name)) for name in _STATE}, self._saved):
            self._replaced = StoreReplaced(f"the database at {self._link.where}", lost)
            raise self._replaced

    # --- streams ---

    async def streams(self) -> list[StreamRecord]:
        if self._read_only:
            with self._link.talking():
                self._reset()
                await self._load()
        elif not self._opened:
            raise StoreUnavailable(f"the store at {self._link.where} is closed", hint="await store.open() first")
        return [self._record(stream) for stream in sorted(self._records)]

    def _progress_of(self, stream: int) -> tuple[TimeIntervals, int | None]:
        record = self._records[stream]
        return self._progress.get(stream) or (record.coverage, record.upper)

    def _record(self, stream: int) -> StreamRecord:
        """What is known of a stream now; `_records` is what the collection says."""
        coverage, upper = self._progress_of(stream)
        return complete(replace(self._records[stream], coverage=coverage, upper=upper))

    async def register(self, records: Sequence[StreamRecord]) -> None:
        self._require_writable()
        if not records:
            return
        async with self._commit_lock:
            with self._link.talking():
                # A journal entry must not be redone over what is registered now.
                await self._settled_checkpoint()
                await self._write("commit", lambda: self._register(records), sync=True)
            self._records.update((record.id, record) for record in records)

    async def _register(self, records: Sequence[StreamRecord]) -> None:
        for record in records:
            known = self._records.get(record.id)
            if known is not None and known.fingerprint != record.fingerprint:
                # Before the record: a crash in between only costs the states.
                await self._link.delete("snapshots", span(record.id, MIN_TIME, MAX_TIME))
        documents = [layout.stream_document(record) for record in records]
        await self._link.write("streams", [_replace(document) for document in documents], sync=True)

    async def advance(self, uppers: Mapping[int, int]) -> None:
        self._require_writable()
        for stream, upper in uppers.items():
            if stream in self._records:
                coverage, known = self._progress_of(stream)
                if known is None or known < upper:
                    self._progress[stream] = (coverage, upper)
        self._schedule()

    # --- append ---

    async def append(self, append: Append) -> None:
        self._require_writable()
        async with self._append_lock:
            if append.seq <= self._state["append"]:
                return
            with self._link.talking():
                await self._append(append)
            self._state["append"] = append.seq

    async def _append(self, append: Append) -> None:
        inserts = [document for stream, batch in append.inserts for document in documents_of(stream, batch)]
        upserts = [document for stream, batch in append.upserts for document in documents_of(stream, batch)]
        letters = [_letter_document(append.seq, index, one) for index, one in enumerate(append.dead_letters)]
        await self._write("append", lambda: self._append_all(append, letters, inserts, upserts), sync=True)

    async def _append_all(
        self, append: Append, letters: list[Document], inserts: list[Document], upserts: list[Document]
    ) -> None:
        link = self._link
        if append.changed:
            self._marked = True
            await self._write_mark({"_id": append.seq, "k": self._token, "changed": Binary(pack(dict(append.changed)))})
            self.on_step("marked")
        for stream, spans in append.purged.items():
            for start, end in spans.pairs:
                await link.delete("instances", span(stream, start, end), sync=True)
        if letters:
            await link.insert("dead_letters", letters, sync=True)
        there = await link.insert("instances", inserts, sync=True)
        if there or upserts:
            # Sets the values, whatever was there; revisions stay.
            await link.write_documents("instances", there + upserts, _set_value, sync=True)

    async def _write_mark(self, mark: Document) -> None:
        if await self._link.insert("marks", [mark], sync=True):
            found = await self._link.collection("marks").find_one({"_id": mark["_id"]}) or {}
            if (found.get("k"), found.get("changed")) != (mark["k"], bytes(mark["changed"])):
                raise self._fence.refused()

    # --- commit ---

    async def commit(self, commit: Commit) -> None:
        self._require_writable()
        async with self._commit_lock:
            if commit.seq <= self._state["commit"]:
                return
            with self._link.talking():
                await self._settle_locked()
                await self._write("commit", lambda: self._commit_all(commit), sync=True)
                self.on_step("applied")
                self._note(commit)
                if any(self._is_raw(change.stream) for change in commit.streams):
                    await self._settled_checkpoint()
                await self._settle_locked()
            self._schedule()

    async def _commit_all(self, commit: Commit) -> None:
        await self._write_journal(commit)
        self.on_step("journaled")
        await self._apply(commit, redo=False)

    async def _write_journal(self, commit: Commit, *, claims: bool = False) -> None:
        """What is there already is the same commit, from an attempt whose answer was lost, or else we are `Fenced`."""
        documents = journal_documents(commit, self._token, claims=claims)
        for there in await self._link.insert("outbox", documents, sync=True):
            found = await self._link.collection("outbox").find_one({"_id": there["_id"]}) or {}
            if (found.get("k"), found.get("n"), found.get("b")) != (there["k"], there["n"], bytes(there["b"])):
                raise self._fence.refused()

    def _is_raw(self, stream: int) -> bool:
        record = self._records.get(stream)
        return record is not None and record.kind == "raw"

    def _note(self, commit: Commit) -> None:
        """What this process now knows, and the next checkpoint writes."""
        for change in commit.streams:
            if change.stream in self._records:
                self._progress[change.stream] = (change.coverage, change.upper)
        self._history += [
            layout.history_document(commit.seq, index, entry) for index, entry in enumerate(commit.history)
        ]
        if commit.seq > self._state["published"] and publishes(commit):
            self._pending.add(commit.seq, commit)
        state = self._state
        state["commit"] = state["applied"] = commit.seq
        state["consumed"] = max(state["consumed"], commit.consumed)
        state["append"] = max(state["append"], commit.consumed)
        state["proven"] = commit.proven

    async def _redo_one(self, packed: bytes) -> Commit:
        commit = unpack_commit(packed)
        await self._write("commit", lambda: self._apply(commit, redo=True))
        return commit

    async def _apply(self, commit: Commit, *, redo: bool) -> None:
        inserts: list[Document] = []
        replaces: list[Document] = []
        deletes: list[Write] = []
        for change in commit.streams:
            inserted = documents_of(change.stream, change.inserted)
            revised = documents_of(change.stream, change.revised)
            if change.revisions:
                _add_revisions(inserted, change.inserted, change.revisions)
                _add_revisions(revised, change.revised, change.revisions)
            (replaces if redo else inserts).extend(inserted)
            replaces += revised
            if change.retracted:
                deletes += [DeleteMany(where) for where in keys(change.stream, change.retracted)]
            await self._apply_revisions(change, redo)
            await self._apply_snapshots(change)
        replaces += await self._link.insert("instances", inserts)
        await self._link.write("instances", deletes)
        await self._link.write_documents("instances", replaces, _replace)

    async def _apply_revisions(self, change: StreamChange, redo: bool) -> None:
        """Revisions of retracted times, and only those, stand in ``retracted``."""
        stream = change.stream
        kept = [(time, change.revisions[time]) for time in change.retracted if change.revisions.get(time)]
        writes: list[Write] = []
        if (stream in self._retracted and not change.fresh) or redo:
            back = sorted(set(touched(change)) - {time for time, _ in kept})
            writes += [DeleteMany(where) for where in keys(stream, back)]
        for time, revision in kept:
            writes.append(_replace({"_id": identity(stream, time), "r": revision}))
            self._retracted.add(stream)
        await self._link.write("retracted", writes)

    async def _apply_snapshots(self, change: StreamChange) -> None:
        stream = change.stream
        for start, end in change.snapshots_dropped.pairs:
            await self._link.delete("snapshots", span(stream, start, end))
        documents = [{"_id": identity(stream, one.time), "v": encode(one.state)} for one in change.snapshots]
        for document in await self._link.insert("snapshots", documents):
            await self._link.write("snapshots", [_replace(await self._link.shrink(document))])

    # --- checkpoints ---

    def _schedule(self) -> None:
        """See to it that a checkpoint comes."""
        if self._timer is None:
            self._timer = asyncio.create_task(self._checkpoint_soon(), name="hs-stream-checkpoint")
        elif self._timer.done():
            timer, self._timer = self._timer, None
            timer.result()
            self._schedule()

    async def _checkpoint_soon(self) -> None:
        while self._unsaved():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._checkpoint_seconds):
                    await self._stopping.wait()
            if self._stopping.is_set():
                return  # also where PyMongo swallowed a cancellation
            try:
                with self._link.talking():
                    settled = await self._checkpoint()
                if not settled:
                    await self._settle()
            except StoreUnavailable as error:
                _LOG.warning("the checkpoint waits: %s", error)
            except (Fenced, StoreReplaced):
                return  # the next write says so

    def _unsaved(self) -> bool:
        return bool(self._progress or self._history or self._state != self._saved)

    async def _settled_checkpoint(self) -> None:
        """For who holds the commit lock: a checkpoint, whatever became of the server."""
        while not await self._checkpoint():
            self._verified = -1
            await self._settle_locked()

    async def _settle(self) -> None:
        """Return when everything committed is there to be read (rule 6). Costs nothing while the connections stay."""
        if self._opened and not self._read_only and self._link.epoch != self._verified:
            async with self._commit_lock:
                with self._link.talking():
                    await self._settle_locked()

    async def _settle_locked(self) -> None:
        while (epoch := self._link.epoch) != self._verified:
            server = await self._link.server()
            if server != self._server:
                _LOG.warning("mongod at %s was restarted: redoing the latest commits", self._link.where)
                await self._require_same()
                await self._redo()
                if await self._link.server() != server:
                    continue
                self._server = server
            self._verified = epoch

    async def _redo(self) -> None:
        journal = self._link.collection("outbox").find(_later(self._saved.get("applied", 0))).sort("_id", 1)
        for seq, packed in assemble([document async for document in journal]):
            if packed is not None and seq <= self._state["commit"]:
                await self._redo_one(packed)

    async def _steady(self, read: Callable[[], Awaitable[T]]) -> T:
        """The result of a read that saw everything committed, even if mongod was killed and restarted meanwhile."""
        while True:
            await self._settle()
            result = await read()
            if self._read_only or self._link.epoch == self._verified:
                return result

    async def _checkpoint(self) -> bool:
        """Write what only this process knows. The state document goes last: it vouches for the rest (rule 4)."""
        async with self._checkpoint_lock:
            if not self._unsaved():
                return True
            await self._require_same()
            state, progress, history = dict(self._state), self._progress, self._history
            waiting = self._pending.oldest()  # now: what is published from here on, the state document does not know of
            records = {stream: self._record(stream) for stream in progress}
            self._records.update(records)
            self._progress, self._history = {}, []
            try:
                await self._write("books", lambda: self._write_progress(records, history))
                # If the process that acknowledged the writes above is still there, this one made them durable.
                await self._link.write("state", [_replace({"_id": "barrier"})], sync=True)
                if await self._link.server() != self._server:
                    self._keep(progress, history)
                    return False
                document = {"_id": "store", "layout": layout.LAYOUT, **state}
                await self._write("books", lambda: self._write_state(document), sync=True)
            except BaseException:
                self._keep(progress, history)
                raise
            self._saved = state
            self.on_step("checkpointed")
            await self._forget(state, waiting)
            return True

    async def _write_progress(self, records: Mapping[int, StreamRecord], history: list[Document]) -> None:
        await self._link.insert("history", history)
        progress = [UpdateOne({"_id": one.id}, {"$set": layout.progress(one)}) for one in records.values()]
        await self._link.write("streams", progress)

    async def _write_state(self, document: Document) -> None:
        await self._link.write("state", [_replace(document)], sync=True)

    def _keep(self, progress: dict[int, tuple[TimeIntervals, int | None]], history: list[Document]) -> None:
        """Put back what a checkpoint could not write, under what came since."""
        self._progress = progress | self._progress
        self._history = history + self._history

    async def _forget(self, state: Mapping[str, Any], waiting: int | None) -> None:
        """Delete consumed marks, and journal entries that are applied and published, as ``state`` says.

        Both were of no use any more when the state was written, so nobody minds when they go.
        """
        if self._marked and state["consumed"]:
            marks = self._link.collection("marks")
            await marks.delete_many({"_id": {"$lte": state["consumed"]}})
            self._marked = await marks.find_one({}, {"_id": 1}) is not None
        upto = state["applied"] if waiting is None else min(state["applied"], waiting - 1)
        if upto > self._forgotten:
            span = {"$gt": {"q": self._forgotten, "i": MaxKey()}, "$lte": {"q": upto, "i": MaxKey()}}
            await self._link.collection("outbox").delete_many({"_id": span, "c": {"$exists": False}})
            self._forgotten = upto

    # --- reads ---

    async def read(
        self,
        stream: int,
        start: int,
        end: int,
        *,
        limit: int | None = None,
        newest: bool = False,
        budget: int | None = None,
    ) -> Batch:
        where = span(stream, start, end)
        return await self._steady(lambda: self._link.batch(where, limit=limit, newest=newest, budget=budget))

    async def last(self, stream: int, instant: int, count: int) -> Batch:
        # The document with only ``s`` is before every one with ``t`` too.
        where = {"_id": {"$gt": {"s": stream}, "$lte": identity(stream, instant)}}
        return await self._steady(lambda: self._link.batch(where, limit=max(count, 0), newest=True))

    async def get(self, stream: int, times: Sequence[int]) -> Batch:
        wanted = sorted(set(times))
        return await self._steady(lambda: self._link.batch_at(stream, wanted))

    async def revisions(self, stream: int, times: Sequence[int]) -> dict[int, int]:
        return await self._steady(lambda: self._revisions(stream, times))

    async def _revisions(self, stream: int, times: Sequence[int]) -> dict[int, int]:
        found: dict[int, int] = {}
        with self._link.talking():
            for name in ("retracted", "instances") if stream in self._retracted else ("instances",):
                found |= await self._link.revised(name, stream, times)
        return found

    async def count(self, stream: int, start: int, end: int) -> int:
        with self._link.talking():
            instances = self._link.collection("instances")
            return await self._steady(lambda: instances.count_documents(span(stream, start, end)))

    async def snapshot(self, stream: int, instant: int) -> Snapshot | None:
        found = await self._steady(lambda: self._snapshots(span(stream, MIN_TIME, instant), -1, 1))
        return found[0] if found else None

    async def snapshots(self, stream: int, start: int, end: int, *, limit: int) -> list[Snapshot]:
        return await self._steady(lambda: self._snapshots(span(stream, start, end), 1, limit))

    async def _snapshots(self, where: Document, direction: int, limit: int) -> list[Snapshot]:
        if limit <= 0:
            return []
        with self._link.talking():
            cursor = self._link.collection("snapshots").find(where).sort("_id", direction).limit(limit)
            return [Snapshot(int(one["_id"]["t"]), await self._link.whole(decode(one["v"]))) async for one in cursor]

    # --- outbox, small documents ---

    async def outbox(self, after: int, limit: int) -> list[OutboxEntry]:
        wanted = self._pending.after(max(after, self._state["published"]), limit)
        cached = [self._pending.entries(seq) for seq in wanted]
        known = [entries for entries in cached if entries is not None]
        if len(known) < len(wanted):
            with self._link.talking():
                where = {"_id": {"$gt": {"q": wanted[0], "i": -1}, "$lte": {"q": wanted[-1], "i": MaxKey()}}, "p": True}
                found = [document async for document in self._link.collection("outbox").find(where).sort("_id", 1)]
            known = [entries_of(unpack_commit(packed)) for _, packed in assemble(found) if packed is not None]
        return [entry for entries in known for entry in entries]

    async def published(self, seq: int) -> None:
        self._require_writable()
        if seq > self._state["published"]:
            self._state["published"] = seq
            self._pending.published(seq)
            self._schedule()

    async def dead_letters(self, limit: int, *, budget: int | None = None) -> list[DeadLetter]:
        if limit <= 0:
            return []
        with self._link.talking():
            cursor = self._link.collection("dead_letters").find().sort("_id", -1).limit(limit)
            found: list[DeadLetter] = []
            left = budget
            async for one in cursor.batch_size(_LETTERS_AT_ONCE):
                found.append(
                    DeadLetter(
                        int(one["time"]), one["source"], one["reason"], one["message"], one["topic"], one["payload"]
                    )
                )
                if left is not None:
                    left -= len(found[-1].payload) + len(found[-1].message)
                    if left <= 0:
                        break
            await cursor.close()
            return found

    async def history(self, limit: int, stream: str | None = None) -> list[HistoryEntry]:
        if limit <= 0:
            return []
        with self._link.talking():
            if self._history and not self._read_only:
                await self._checkpoint()
            where = {} if stream is None else {"stream": stream}
            cursor = self._link.collection("history").find(where).sort("_id", -1).limit(limit)
            return [layout.history_entry(one) async for one in cursor]

    async def claim(self, owner: str, for_ms: int, *, instead_of: str = "") -> Holder:
        if self._read_only:
            raise StoreUnavailable(f"the store at {self._link.where} is open for reading only")
        if self._replaced is not None:
            raise self._replaced
        await self._link.connect()
        with self._link.talking():
            if not for_ms:
                return await self._give_back(owner, instead_of)
            lease = await self._exchange("lease", layout.claim_pipeline(owner, for_ms, instead_of))
            holder = Holder(str(lease["owner"]), int(lease["token"]))
            if holder.owner == owner:
                if self._fence.is_news(holder.token):
                    await self._raise_fences(holder.token)
                self._fence.claimed(holder.token)
        return holder

    async def _give_back(self, owner: str, instead_of: str) -> Holder:
        """`claim` for no time."""
        state = self._link.collection("state", sync=True)
        await state.update_one({"_id": "lease", "owner": owner}, {"$set": {"until": Int64(0)}})
        looked = await state.aggregate(layout.holder_pipeline(owner, instead_of))
        found = await looked.to_list(1)
        return Holder(str(found[0]["owner"]), int(found[0]["token"])) if found else Holder("", 0)

    async def put(self, kind: DocumentKind, key: str, document: Mapping[str, Any]) -> None:
        self._require_writable()
        stored = {"_id": key, "document": encode(dict(document))}
        with self._link.talking():
            await self._write("books", lambda: self._link.write(kind, [_replace(stored)], sync=True), sync=True)

    async def documents(self, kind: DocumentKind) -> dict[str, dict[str, Any]]:
        with self._link.talking():
            found = self._link.collection(kind).find().sort("_id", 1)
            return {one["_id"]: decode(one["document"]) async for one in found}


def _later(seq: int) -> Document:
    return {"_id": {"$gt": {"q": seq, "i": MaxKey()}}}


def _set_value(document: Document) -> UpdateOne:
    return UpdateOne({"_id": document["_id"]}, {"$set": {"v": document["v"]}}, upsert=True)


def _replace(document: Document) -> ReplaceOne[Document]:
    return ReplaceOne({"_id": document["_id"]}, document, upsert=True)


def _add_revisions(documents: list[Document], batch: Batch, revisions: Mapping[int, int]) -> None:
    for document, time in zip(documents, batch.times.tolist(), strict=True):
        if revision := revisions.get(time):
            document["r"] = revision


def _letter_document(seq: int, index: int, letter: DeadLetter) -> Document:
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
