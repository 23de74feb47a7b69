"""What one append and one commit write, and in which order (rules 1 and 5 of `hs_stream.store.mongo`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bson.binary import Binary
from pymongo import DeleteMany

from hs_stream.core.batch import Batch
from hs_stream.core.packing import pack, unpack
from hs_stream.engine.ports import Append, Commit, StreamChange
from hs_stream.store.changes import touched
from hs_stream.store.mongo.journal import journal_documents, unpack_commit
from hs_stream.store.mongo.keys import Document, identity, keys, span
from hs_stream.store.mongo.layout import letter_document
from hs_stream.store.mongo.link import Link
from hs_stream.store.mongo.right import Right
from hs_stream.store.mongo.values import documents_of, encode
from hs_stream.store.mongo.writer import Write, Writer, replacement

__all__ = ["Applier"]

_FEW: Final = 64
"""More replacements than this are worth a transaction: a guarded command takes longer for each."""


class Applier:
    """``on_step``: see `hs_stream.store.mongo.store.MongoStore`."""

    def __init__(self, link: Link, writer: Writer, right: Right, on_step: Callable[[str], None]) -> None:
        self._link = link
        self._writer = writer
        self._right = right
        self._on_step = on_step
        self._marked = False
        """Whether there are marks of appends."""
        self._retracted: set[int] = set()
        """The streams of which revisions stand in the collection ``retracted``."""

    async def load(self) -> None:
        """Learn of what it must take care."""
        streams = await self._link.collection("retracted").aggregate([{"$group": {"_id": "$_id.s"}}])
        self._retracted = {item["_id"] async for item in streams}

    def revised_in(self, stream: int) -> Sequence[str]:
        """The collections in which revisions of ``stream`` may stand."""
        return ("retracted", "instances") if stream in self._retracted else ("instances",)

    async def marks(self) -> list[tuple[int, dict[int, Any]]]:
        """Of appends that no commit consumed: ``seq``, and what changed."""
        found = [(int(one["_id"]), unpack(one["changed"])) async for one in self._link.collection("marks").find()]
        self._marked = bool(found)
        return found

    async def forget_marks(self, consumed: int) -> None:
        """Delete the marks up to the append ``consumed``."""
        if self._marked and consumed:
            marks = self._link.collection("marks")
            await marks.delete_many({"_id": {"$lte": consumed}})
            self._marked = await marks.find_one({}, {"_id": 1}) is not None

    async def append(self, append: Append) -> None:
        """Durable when it returns."""
        inserts = [document for stream, batch in append.inserts for document in documents_of(stream, batch)]
        upserts = [document for stream, batch in append.upserts for document in documents_of(stream, batch)]
        letters = [letter_document(append.seq, index, one) for index, one in enumerate(append.dead_letters)]
        plain = not append.purged and len(upserts) <= _FEW
        await self._right.write(
            "append", lambda: self._append_all(append, letters, inserts, upserts), sync=True, plain=plain
        )

    async def commit(self, commit: Commit) -> None:
        """Its journal entry is durable when it returns."""
        await self._right.write("commit", lambda: self._commit_all(commit), sync=True, plain=self._is_plain(commit))
        self._on_step("applied")

    def _is_plain(self, commit: Commit) -> bool:
        """Whether guarded commands suffice, and are cheaper than a transaction: nothing is deleted, little replaced."""
        replaced = 0
        for change in commit.streams:
            if change.retracted or change.snapshots_dropped or (change.stream in self._retracted and not change.fresh):
                return False
            replaced += len(change.revised) + len(change.snapshots)
        return replaced <= _FEW

    async def redo(self, packed: bytes) -> Commit:
        """Apply what a journal entry says, whatever of it is there already."""
        commit = unpack_commit(packed)
        await self._right.write("commit", lambda: self._apply(commit, redo=True))
        return commit

    async def claim_seq(self, claim: Commit) -> None:
        """Rule 3 of the journal."""
        await self._right.write("commit", lambda: self._write_journal(claim, claims=True), sync=True)

    async def _commit_all(self, commit: Commit) -> None:
        await self._write_journal(commit)
        self._on_step("journaled")
        await self._apply(commit, redo=False)

    async def _append_all(
        self, append: Append, letters: list[Document], inserts: list[Document], upserts: list[Document]
    ) -> None:
        writer = self._writer
        if append.changed:
            self._marked = True
            await self._write_mark(
                {"_id": append.seq, "k": self._right.token, "changed": Binary(pack(dict(append.changed)))}
            )
            self._on_step("marked")
        for stream, spans in append.purged.items():
            for start, end in spans.pairs:
                await writer.delete("instances", span(stream, start, end), sync=True)
        if letters:
            await writer.insert("dead_letters", letters, sync=True)
        there = await writer.insert("instances", inserts, sync=True)
        if there or upserts:
            # Sets the values, whatever was there; revisions stay.
            await writer.lay("instances", there + upserts, "set", sync=True)

    async def _write_mark(self, mark: Document) -> None:
        if await self._writer.insert("marks", [mark], sync=True):
            found = await self._link.collection("marks").find_one({"_id": mark["_id"]}) or {}
            if (found.get("k"), found.get("changed")) != (mark["k"], bytes(mark["changed"])):
                raise self._right.fence.refused()

    async def _write_journal(self, commit: Commit, *, claims: bool = False) -> None:
        """What is there already is the same commit, from an attempt whose answer was lost, or else we are `Fenced`."""
        documents = journal_documents(commit, self._right.token, claims=claims)
        for there in await self._writer.insert("outbox", documents, sync=True):
            found = await self._link.collection("outbox").find_one({"_id": there["_id"]}) or {}
            if (found.get("k"), found.get("n"), found.get("b")) != (there["k"], there["n"], bytes(there["b"])):
                raise self._right.fence.refused()

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
            if redo or change.retracted or (change.stream in self._retracted and not change.fresh):
                await self._apply_revisions(change, redo)
            if change.snapshots or change.snapshots_dropped:
                await self._apply_snapshots(change)
        replaces += await self._writer.insert("instances", inserts)
        await self._writer.write("instances", deletes)
        await self._writer.lay("instances", replaces, "replace")

    async def _apply_revisions(self, change: StreamChange, redo: bool) -> None:
        """Revisions of retracted times, and only those, stand in ``retracted``."""
        stream = change.stream
        kept = [(time, change.revisions[time]) for time in change.retracted if change.revisions.get(time)]
        writes: list[Write] = []
        if (stream in self._retracted and not change.fresh) or redo:
            back = sorted(set(touched(change)) - {time for time, _ in kept})
            writes += [DeleteMany(where) for where in keys(stream, back)]
        for time, revision in kept:
            writes.append(replacement({"_id": identity(stream, time), "r": revision}))
            self._retracted.add(stream)
        await self._writer.write("retracted", writes)

    async def _apply_snapshots(self, change: StreamChange) -> None:
        stream = change.stream
        for start, end in change.snapshots_dropped.pairs:
            await self._writer.delete("snapshots", span(stream, start, end))
        documents = [{"_id": identity(stream, one.time), "v": encode(one.state)} for one in change.snapshots]
        for document in await self._writer.insert("snapshots", documents):
            await self._writer.write("snapshots", [replacement(await self._writer.shrink(document))])


def _add_revisions(documents: list[Document], batch: Batch, revisions: Mapping[int, int]) -> None:
    for document, time in zip(documents, batch.times.tolist(), strict=True):
        if revision := revisions.get(time):
            document["r"] = revision
