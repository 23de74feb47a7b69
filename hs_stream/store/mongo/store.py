"""The store itself: what the port asks for, out of the parts beside it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from bson.max_key import MaxKey

from hs_stream.core.batch import Batch
from hs_stream.core.errors import Fenced, StoreReplaced, StoreUnavailable
from hs_stream.core.time import MAX_TIME, MIN_TIME
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
    StreamRecord,
)
from hs_stream.store.changes import merge_marks
from hs_stream.store.mongo import layout
from hs_stream.store.mongo.applier import Applier
from hs_stream.store.mongo.books import Books
from hs_stream.store.mongo.journal import assemble, entries_of, unpack_commit
from hs_stream.store.mongo.keys import Document, identity, span
from hs_stream.store.mongo.link import Link
from hs_stream.store.mongo.reader import Reader
from hs_stream.store.mongo.redo import Redo
from hs_stream.store.mongo.right import Right
from hs_stream.store.mongo.values import decode, encode
from hs_stream.store.mongo.writer import Writer, replacement

__all__ = ["MongoStore"]

_LOG: Final = logging.getLogger(__name__)
_LETTERS_AT_ONCE: Final = 100


class MongoStore:
    """See `hs_stream.store.mongo`.

    ``url`` names the database in its path, ``hs_stream`` by default. ``server_timeout``: seconds until an unreachable
    server is `StoreUnavailable`. With ``read_only`` nothing is created, redone or written; writing raises
    `StoreUnavailable`. ``on_step`` is called with ``marked``, ``journaled``, ``applied`` and ``checkpointed`` after
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
        self._opened = False
        self._writer = Writer(self._link)
        self._reader = Reader(self._link)
        self._right = Right(self._link, self._writer, asks=not read_only)
        self._reset()

    def _reset(self) -> None:
        link, writer, right, lock = self._link, self._writer, self._right, self._commit_lock
        self._applier = Applier(link, writer, right, self._step)
        self._books = Books(link, writer, right, self._applier, self._step)
        self._redo = Redo(
            link, right, self._applier, self._books, lock, lambda: self._opened, read_only=self._read_only
        )
        self._timer: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    def _step(self, step: str) -> None:
        self.on_step(step)

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
                        await layout.create(self._link.database, **self._days)
                        await self._right.opened()
                    await self._redo.load()
                marks = await self._applier.marks()
        except BaseException:
            await self.abandon()
            raise
        self._opened = True
        state = self._books.state
        self._books.known_appends(seq for seq, _ in marks)
        changed = merge_marks(pair for seq, one in marks if seq > state["consumed"] for pair in one.items())
        return Recovery(changed, state["append"], state["commit"], dict(state["sinks"]), state["proven"])

    async def close(self) -> None:
        """Write a last checkpoint and disconnect. Idempotent."""
        try:
            if self._opened and not self._read_only and self._link.connected and not self._right.fence.broken:
                await self._stop_timer()
                async with self._commit_lock:
                    with self._link.talking():
                        await self._redo.settled_checkpoint()
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
        if self._books.replaced is not None:
            raise self._books.replaced
        if self._right.fence.broken:
            raise self._right.fence.refused()

    # --- streams ---

    async def streams(self) -> list[StreamRecord]:
        if self._read_only:
            with self._link.talking():
                self._reset()
                await self._redo.load()
        elif not self._opened:
            raise StoreUnavailable(f"the store at {self._link.where} is closed", hint="await store.open() first")
        return self._books.records_now()

    async def register(self, records: Sequence[StreamRecord]) -> None:
        self._require_writable()
        if not records:
            return
        async with self._commit_lock:
            with self._link.talking():
                # A journal entry must not be redone over what is registered now.
                await self._redo.settled_checkpoint()
                await self._right.write("commit", lambda: self._register(records), sync=True)
            self._books.registered(records)

    async def _register(self, records: Sequence[StreamRecord]) -> None:
        for record in records:
            known = self._books.records.get(record.id)
            if known is not None and known.fingerprint != record.fingerprint:
                # Before the record: a crash in between only costs the states.
                await self._writer.delete("snapshots", span(record.id, MIN_TIME, MAX_TIME))
        documents = [layout.stream_document(record) for record in records]
        await self._writer.write("streams", [replacement(document) for document in documents], sync=True)

    async def advance(self, uppers: Mapping[int, int]) -> None:
        self._require_writable()
        self._books.advance(uppers)
        self._schedule()

    async def append(self, append: Append) -> None:
        self._require_writable()
        async with self._append_lock:
            if append.seq <= self._books.state["append"]:
                return
            with self._link.talking():
                await self._applier.append(append)
            self._books.known_appends([append.seq])

    async def commit(self, commit: Commit) -> None:
        self._require_writable()
        async with self._commit_lock:
            if commit.seq <= self._books.state["commit"]:
                return
            with self._link.talking():
                await self._redo.settle_locked()
                await self._applier.commit(commit)
                self._books.note(commit)
                if any(self._books.is_raw(change.stream) for change in commit.streams):
                    await self._redo.settled_checkpoint()
                await self._redo.settle_locked()
            self._schedule()

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
        while self._books.unsaved():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._checkpoint_seconds):
                    await self._stopping.wait()
            if self._stopping.is_set():
                return  # also where PyMongo swallowed a cancellation
            try:
                with self._link.talking():
                    settled = await self._books.checkpoint()
                if not settled:
                    await self._redo.settle()
            except StoreUnavailable as error:
                _LOG.warning("the checkpoint waits: %s", error)
            except (Fenced, StoreReplaced):
                return  # the next write says so

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
        return await self._redo.steady(lambda: self._reader.batch(where, limit=limit, newest=newest, budget=budget))

    async def last(self, stream: int, instant: int, count: int) -> Batch:
        # The document with only ``s`` is before every one with ``t`` too.
        where = {"_id": {"$gt": {"s": stream}, "$lte": identity(stream, instant)}}
        return await self._redo.steady(lambda: self._reader.batch(where, limit=max(count, 0), newest=True))

    async def get(self, stream: int, times: Sequence[int]) -> Batch:
        wanted = sorted(set(times))
        return await self._redo.steady(lambda: self._reader.batch_at(stream, wanted))

    async def revisions(self, stream: int, times: Sequence[int]) -> dict[int, int]:
        return await self._redo.steady(lambda: self._revisions(stream, times))

    async def _revisions(self, stream: int, times: Sequence[int]) -> dict[int, int]:
        found: dict[int, int] = {}
        with self._link.talking():
            for name in self._applier.revised_in(stream):
                found |= await self._reader.revised(name, stream, times)
        return found

    async def count(self, stream: int, start: int, end: int) -> int:
        with self._link.talking():
            instances = self._link.collection("instances")
            return await self._redo.steady(lambda: instances.count_documents(span(stream, start, end)))

    async def snapshot(self, stream: int, instant: int) -> Snapshot | None:
        found = await self._redo.steady(lambda: self._snapshots(span(stream, MIN_TIME, instant), -1, 1))
        return found[0] if found else None

    async def snapshots(self, stream: int, start: int, end: int, *, limit: int) -> list[Snapshot]:
        return await self._redo.steady(lambda: self._snapshots(span(stream, start, end), 1, limit))

    async def _snapshots(self, where: Document, direction: int, limit: int) -> list[Snapshot]:
        if limit <= 0:
            return []
        with self._link.talking():
            cursor = self._link.collection("snapshots").find(where).sort("_id", direction).limit(limit)
            return [Snapshot(int(one["_id"]["t"]), await self._reader.whole(decode(one["v"]))) async for one in cursor]

    # --- outbox, small documents ---

    async def outbox(self, after: int, limit: int) -> list[OutboxEntry]:
        wanted = self._books.pending.after(max(after, self._books.state["published"]), limit)
        cached = [self._books.pending.entries(seq) for seq in wanted]
        known = [entries for entries in cached if entries is not None]
        if len(known) < len(wanted):
            with self._link.talking():
                where = {"_id": {"$gt": {"q": wanted[0], "i": -1}, "$lte": {"q": wanted[-1], "i": MaxKey()}}, "p": True}
                found = [document async for document in self._link.collection("outbox").find(where).sort("_id", 1)]
            known = [entries_of(unpack_commit(packed)) for _, packed in assemble(found) if packed is not None]
        return [entry for entries in known for entry in entries]

    async def sinks(self, names: Sequence[str]) -> dict[str, int]:
        self._require_writable()
        async with self._commit_lock:
            self._books.choose_sinks(names)
            if self._books.unsaved():
                with self._link.talking():
                    await self._redo.settled_checkpoint()
        return dict(self._books.state["sinks"])

    async def published(self, sink: str, seq: int) -> None:
        self._require_writable()
        if self._books.published(sink, seq):
            self._schedule()

    async def dead_letters(self, limit: int, *, budget: int | None = None) -> list[DeadLetter]:
        if limit <= 0:
            return []
        with self._link.talking():
            cursor = self._link.collection("dead_letters").find().sort("_id", -1).limit(limit)
            found: list[DeadLetter] = []
            left = budget
            async for one in cursor.batch_size(_LETTERS_AT_ONCE):
                found.append(layout.dead_letter(one))
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
            if self._books.history and not self._read_only:
                await self._books.checkpoint()
            where = {} if stream is None else {"stream": stream}
            cursor = self._link.collection("history").find(where).sort("_id", -1).limit(limit)
            return [layout.history_entry(one) async for one in cursor]

    async def claim(self, owner: str, for_ms: int, *, instead_of: str = "") -> Holder:
        if self._read_only:
            raise StoreUnavailable(f"the store at {self._link.where} is open for reading only")
        if self._books.replaced is not None:
            raise self._books.replaced
        await self._link.connect()
        with self._link.talking():
            return await self._right.claim(owner, for_ms, instead_of)

    async def put(self, kind: DocumentKind, key: str, document: Mapping[str, Any]) -> None:
        self._require_writable()
        stored = {"_id": key, "document": encode(dict(document))}
        with self._link.talking():
            await self._right.write(
                "books", lambda: self._writer.write(kind, [replacement(stored)], sync=True), sync=True
            )

    async def documents(self, kind: DocumentKind) -> dict[str, dict[str, Any]]:
        with self._link.talking():
            found = self._link.collection(kind).find().sort("_id", 1)
            return {one["_id"]: decode(one["document"]) async for one in found}
