"""What only this process knows, and the checkpoints that write it (rules 2, 4 and 8 of `hs_stream.store.mongo`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from bson.max_key import MaxKey
from pymongo import UpdateOne

from hs_stream.core.errors import StoreReplaced
from hs_stream.core.time import TimeIntervals
from hs_stream.engine.ports import Commit, StreamRecord
from hs_stream.store.changes import complete, missing
from hs_stream.store.cursors import advanced, chosen, start_of
from hs_stream.store.mongo import layout
from hs_stream.store.mongo.applier import Applier
from hs_stream.store.mongo.journal import Pending, publishes
from hs_stream.store.mongo.keys import Document
from hs_stream.store.mongo.link import Link
from hs_stream.store.mongo.right import Right
from hs_stream.store.mongo.values import decode, encode
from hs_stream.store.mongo.writer import Writer, replacement

__all__ = ["Books"]

_SEQS: Final = ("append", "commit", "published", "consumed", "applied", "token")
_STATE: Final[Mapping[str, Any]] = {**dict.fromkeys(_SEQS, 0), "proven": None, "sinks": {}}
"""``sinks``: the cursor of each (never changed in place). ``published``: where the outbox begins."""


class Books:
    """Streams, their progress, history, and up to where everything is written, applied, consumed and published."""

    def __init__(
        self, link: Link, writer: Writer, right: Right, applier: Applier, on_step: Callable[[str], None]
    ) -> None:
        self._link = link
        self._writer = writer
        self._right = right
        self._applier = applier
        self._on_step = on_step
        self._lock = asyncio.Lock()
        self.records: dict[int, StreamRecord] = {}
        """What the collection says."""
        self.state: dict[str, Any] = dict(_STATE)
        self.saved: dict[str, Any] = {}
        self._progress: dict[int, tuple[TimeIntervals, int | None]] = {}
        self.history: list[Document] = []
        self.pending = Pending()
        self._forgotten = 0
        self.replaced: StoreReplaced | None = None
        self._server: object = None

    def found(self, state: Document, records: Iterable[StreamRecord]) -> None:
        """What is stored: the state document, empty where there is none, and the streams."""
        self.saved = _known(state) if state else {}
        self.state = {**_STATE, **self.saved}
        self.registered(records)

    def registered(self, records: Iterable[StreamRecord]) -> None:
        """What the collection now says of these streams."""
        self.records.update((record.id, record) for record in records)

    def vouched_by(self, server: object) -> None:
        """The process of the server that answered when all that is known was there."""
        self._server = server

    def is_vouched_by(self, server: object) -> bool:
        """Whether it is that process."""
        return server == self._server

    def records_now(self) -> list[StreamRecord]:
        """What is known of all streams now."""
        return [self._record(stream) for stream in sorted(self.records)]

    def advance(self, uppers: Mapping[int, int]) -> None:
        """Watermarks, which never go back."""
        for stream, upper in uppers.items():
            if stream in self.records:
                coverage, known = self._progress_of(stream)
                if known is None or known < upper:
                    self._progress[stream] = (coverage, upper)

    def known_appends(self, seqs: Iterable[int]) -> None:
        """Of marks: each of these was used by an append."""
        self.state["append"] = max([self.state["append"], self.state["consumed"], *seqs])

    def choose_sinks(self, names: Iterable[str]) -> None:
        """`hs_stream.engine.ports.Store.sinks`, for the next checkpoint."""
        state = self.state
        self._set_cursors(*chosen(state["sinks"], state["published"], names, state["commit"]))

    def published(self, sink: str, seq: int) -> bool:
        """Whether it is news that ``sink`` has published everything up to ``seq``."""
        known = self.state["sinks"]
        cursors = advanced(known, sink, seq)
        if cursors is known:
            return False
        self._set_cursors(cursors, start_of(cursors, self.state["published"]))
        return True

    def _set_cursors(self, cursors: Mapping[str, int], start: int) -> None:
        self.state["sinks"], self.state["published"] = cursors, start
        self.pending.published(start)

    def _progress_of(self, stream: int) -> tuple[TimeIntervals, int | None]:
        record = self.records[stream]
        return self._progress.get(stream) or (record.coverage, record.upper)

    def _record(self, stream: int) -> StreamRecord:
        coverage, upper = self._progress_of(stream)
        return complete(replace(self.records[stream], coverage=coverage, upper=upper))

    def note(self, commit: Commit) -> None:
        """What this process now knows, and the next checkpoint writes."""
        for change in commit.streams:
            if change.stream in self.records:
                self._progress[change.stream] = (change.coverage, change.upper)
        self.history += [
            layout.history_document(commit.seq, index, entry) for index, entry in enumerate(commit.history)
        ]
        if commit.seq > self.state["published"] and publishes(commit):
            self.pending.add(commit.seq, commit)
        state = self.state
        state["commit"] = state["applied"] = commit.seq
        state["consumed"] = max(state["consumed"], commit.consumed)
        state["append"] = max(state["append"], commit.consumed)
        state["proven"] = commit.proven

    def is_raw(self, stream: int) -> bool:
        """Whether appends write it, too."""
        record = self.records.get(stream)
        return record is not None and record.kind == "raw"

    async def require_same(self) -> None:
        """Rule 8."""
        if not self.saved:
            return
        found = await self._link.collection("state").find_one({"_id": "store"}) or {}
        if lost := missing(_known(found), self.saved):
            self.replaced = StoreReplaced(f"the database at {self._link.where}", lost)
            raise self.replaced

    def unsaved(self) -> bool:
        """Whether a checkpoint would write anything."""
        return bool(self._progress or self.history or self.state != self.saved)

    async def checkpoint(self) -> bool:
        """Write what only this process knows. The state document goes last: it vouches for the rest (rule 4)."""
        async with self._lock:
            if not self.unsaved():
                return True
            await self.require_same()
            state, progress, history = dict(self.state), self._progress, self.history
            waiting = self.pending.oldest()  # now: what is published from here on, the state document does not know of
            records = {stream: self._record(stream) for stream in progress}
            self.records.update(records)
            self._progress, self.history = {}, []
            try:
                await self._right.write("books", lambda: self._write_progress(records, history))
                # If the process that acknowledged the writes above is still there, this one made them durable.
                await self._writer.write("state", [replacement({"_id": "barrier"})], sync=True)
                if await self._link.server() != self._server:
                    self._keep(progress, history)
                    return False
                document = {"_id": "store", "layout": layout.LAYOUT, **state, "sinks": encode(state["sinks"])}
                await self._right.write("books", lambda: self._write_state(document), sync=True)
            except BaseException:
                self._keep(progress, history)
                raise
            self.saved = state
            self._on_step("checkpointed")
            await self._forget(state, waiting)
            return True

    async def _write_progress(self, records: Mapping[int, StreamRecord], history: list[Document]) -> None:
        await self._writer.insert("history", history)
        progress = [UpdateOne({"_id": one.id}, {"$set": layout.progress(one)}) for one in records.values()]
        await self._writer.write("streams", progress)

    async def _write_state(self, document: Document) -> None:
        await self._writer.write("state", [replacement(document)], sync=True)

    def _keep(self, progress: dict[int, tuple[TimeIntervals, int | None]], history: list[Document]) -> None:
        """Put back what a checkpoint could not write, under what came since."""
        self._progress = progress | self._progress
        self.history = history + self.history

    async def _forget(self, state: Mapping[str, Any], waiting: int | None) -> None:
        """Delete consumed marks, and journal entries that are applied and published, as ``state`` says.

        Both were of no use any more when the state was written, so nobody minds when they go.
        """
        await self._applier.forget_marks(state["consumed"])
        upto = state["applied"] if waiting is None else min(state["applied"], waiting - 1)
        if upto > self._forgotten:
            span = {"$gt": {"q": self._forgotten, "i": MaxKey()}, "$lte": {"q": upto, "i": MaxKey()}}
            await self._link.collection("outbox").delete_many({"_id": span, "c": {"$exists": False}})
            self._forgotten = upto


def _known(document: Document) -> dict[str, Any]:
    found = {name: decode(document.get(name)) for name in _STATE}
    return {**found, "sinks": found["sinks"] or {}}
