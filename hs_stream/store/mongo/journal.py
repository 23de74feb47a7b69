"""The commit journal of `hs_stream.store.mongo`, which is its outbox too: one packed commit in one or more documents.

1. A document is ``{_id: {q: seq, i: part}, n: parts, p: <publishes something>, k: <token of the writer>, b: <bytes>}``.
   A commit counts once all of its parts are there; the bytes of the parts, one after the other, are `pack_commit` of
   it.
2. An entry is forgotten once it is both applied (its effects are in the other collections, coverage included) and
   published by every sink, in ranges.
3. A writer with another token than the one before begins with an entry of an empty commit, marked ``c: true``, which
   stays: so the writer before cannot use this ``seq`` any more, whenever it wakes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple
from typing import Any, Final

from bson.binary import Binary
from bson.max_key import MaxKey

from hs_stream.core.packing import flat_batch, flat_intervals, pack, to_batch, to_intervals, unpack
from hs_stream.engine.changes import changes_of
from hs_stream.engine.ports import Commit, HistoryEntry, OutboxEntry, Snapshot, StreamChange

__all__ = [
    "Pending",
    "assemble",
    "entries_of",
    "journal_documents",
    "later",
    "pack_commit",
    "publishes",
    "unpack_commit",
]

PART_BYTES: Final = 8 << 20
_CACHED_CHANGES: Final = 20_000


def pack_commit(commit: Commit) -> bytes:
    """All of a commit, as bytes."""
    streams = [
        [
            change.stream,
            flat_intervals(change.coverage),
            change.upper,
            flat_batch(change.inserted),
            flat_batch(change.revised),
            list(change.retracted),
            dict(change.revisions),
            change.fresh,
            [[snapshot.time, snapshot.state] for snapshot in change.snapshots],
            flat_intervals(change.snapshots_dropped),
            change.publish,
        ]
        for change in commit.streams
    ]
    return pack([commit.seq, streams, commit.consumed, commit.proven, [astuple(entry) for entry in commit.history]])


def unpack_commit(packed: bytes) -> Commit:
    """The reverse of `pack_commit`."""
    seq, streams, consumed, proven, history = unpack(packed)
    changes = []
    for stream, coverage, upper, inserted, revised, retracted, revisions, fresh, snapshots, dropped, publish in streams:
        states = [Snapshot(time, state) for time, state in snapshots]
        changes.append(
            StreamChange(
                stream,
                to_intervals(coverage),
                upper,
                to_batch(inserted),
                to_batch(revised),
                retracted,
                revisions,
                fresh,
                states,
                to_intervals(dropped),
                publish,
            )
        )
    return Commit(seq, changes, consumed, proven, [HistoryEntry(*entry) for entry in history])


def publishes(commit: Commit) -> bool:
    """Whether a commit has something for the outbox."""
    return any(c.publish and (c.inserted or c.revised or c.retracted) for c in commit.streams)


def journal_documents(commit: Commit, token: int, *, claims: bool = False) -> list[dict[str, Any]]:
    """The documents of rule 1, of the writer with ``token``; ``claims``: of an entry of rule 3."""
    packed = pack_commit(commit)
    parts = range(0, len(packed), PART_BYTES)
    publish = publishes(commit)
    return [
        {
            "_id": {"q": commit.seq, "i": index},
            "n": len(parts),
            "p": publish,
            "k": token,
            **({"c": True} if claims else {}),
            "b": Binary(packed[start : start + PART_BYTES]),
        }
        for index, start in enumerate(parts)
    ]


def later(seq: int) -> dict[str, Any]:
    """The filter for all entries after ``seq``."""
    return {"_id": {"$gt": {"q": seq, "i": MaxKey()}}}


def assemble(documents: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, bytes | None]]:
    """``(seq, packed commit)`` of journal documents in order of ``_id``; ``None`` where a part is missing."""
    seq, total = 0, 0
    parts: list[bytes] = []
    for document in documents:
        key = document["_id"]
        if key["q"] != seq:
            if seq:
                yield seq, b"".join(parts) if len(parts) == total else None
            seq, total, parts = int(key["q"]), document["n"], []
        parts.append(document["b"])
    if seq:
        yield seq, b"".join(parts) if len(parts) == total else None


def entries_of(commit: Commit) -> list[OutboxEntry]:
    """What the outbox shows of a commit, by stream."""
    parts = sorted(commit.streams, key=lambda change: change.stream)
    entries = [changes_of(commit.seq, change) for change in parts if change.publish]
    return [entry for entry in entries if entry.changes]


class Pending:
    """Which commits wait to be published, and a bounded number of them in memory."""

    def __init__(self) -> None:
        self._seqs: list[int] = []
        self._entries: dict[int, list[OutboxEntry]] = {}
        self._cached = 0

    def add(self, seq: int, commit: Commit | None = None) -> None:
        """A commit that publishes something, later than any before. Kept in memory while there is room."""
        self._seqs.append(seq)
        if commit is None:
            return
        size = sum(len(c.inserted) + len(c.revised) + len(c.retracted) for c in commit.streams if c.publish)
        if self._cached + size <= _CACHED_CHANGES:
            self._entries[seq] = entries_of(commit)
            self._cached += sum(len(entry.changes) for entry in self._entries[seq])

    def published(self, seq: int) -> None:
        """Forget everything up to ``seq``."""
        upto = bisect_right(self._seqs, seq)
        for done in self._seqs[:upto]:
            for entry in self._entries.pop(done, ()):
                self._cached -= len(entry.changes)
        del self._seqs[:upto]

    def after(self, seq: int, limit: int) -> list[int]:
        """The first ``limit`` that wait, later than ``seq``."""
        at = bisect_right(self._seqs, seq)
        return self._seqs[at : at + max(limit, 0)]

    def entries(self, seq: int) -> list[OutboxEntry] | None:
        """The entries of a commit, if they are in memory."""
        return self._entries.get(seq)

    def oldest(self) -> int | None:
        """The first that waits."""
        return self._seqs[0] if self._seqs else None
