"""The store itself: what the port asks for, as SQL."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import astuple
from itertools import starmap
from pathlib import Path
from typing import Any, Final, Literal

from hs_stream.core.batch import Batch
from hs_stream.core.packing import flat_batch, flat_intervals, pack, to_batch, to_intervals, unpack
from hs_stream.core.stream import StreamId
from hs_stream.core.time import EMPTY
from hs_stream.engine.changes import changes_of
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
    ToolRecord,
    within,
)
from hs_stream.store.changes import complete, touched
from hs_stream.store.sqlite.file import SqliteFile
from hs_stream.store.sqlite.rows import batch_of, batch_within, rows_of

__all__ = ["SqliteStore"]

_UPSERT: Final = "INSERT INTO instances (s, t, v) VALUES (?, ?, ?) ON CONFLICT (s, t) DO UPDATE SET v = excluded.v"


class SqliteStore:
    """See `hs_stream.store.sqlite`.

    Holds about ``max_dead_letters`` and ``max_history`` entries at most, the newest ones.
    ``make_directory``: `open` makes the directory of the file, too.
    """

    name: str = "sqlite"

    def __init__(
        self,
        path: str | Path,
        *,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        make_directory: bool = False,
        max_dead_letters: int = 100_000,
        max_history: int = 1_000_000,
    ) -> None:
        self._file = SqliteFile(
            Path(path),
            synchronous=synchronous,
            make_directory=make_directory,
            limits={"dead_letters": max_dead_letters, "history": max_history},
        )

    async def open(self) -> Recovery:
        """Create the file if there is none. `StoreUnavailable` when it cannot be opened or is no store of ours."""
        return await self._file.open()

    async def close(self) -> None:
        """Write what is only remembered, and let go of the file. Idempotent."""
        await self._file.close()

    async def abandon(self) -> None:
        """Let go of the file without writing anything more: what a kill of the process would leave."""
        await self._file.abandon()

    async def ping(self) -> None:
        await self._file.run(lambda: self._file.db.execute("SELECT 1 FROM state LIMIT 1").fetchone())

    # --- streams and writes ---

    async def streams(self) -> list[StreamRecord]:
        return await self._file.run(self._streams)

    def _streams(self) -> list[StreamRecord]:
        records = []
        for row in self._file.db.execute("SELECT * FROM streams ORDER BY id"):
            identity, name, meta, kind, workflow, tool, fingerprint, coverage, upper, floor, closed, since = row
            record = StreamRecord(
                identity,
                StreamId(name, tuple(json.loads(meta).items())),
                kind,
                workflow,
                None if tool is None else ToolRecord(*unpack(tool)),
                fingerprint,
                to_intervals(unpack(coverage)),
                self._file.upper(identity, upper),
                floor,
                closed,
                since,
            )
            records.append(complete(record))
        return records

    async def register(self, records: Sequence[StreamRecord]) -> None:
        await self._file.run(self._register, records)

    def _register(self, records: Sequence[StreamRecord]) -> None:
        rows = []
        for record in records:
            tool = record.tool
            rows.append((
                record.id,
                record.stream.name,
                json.dumps(dict(record.stream.meta)),
                record.kind,
                record.workflow,
                None if tool is None else pack([tool.name, tool.version, dict(tool.parameters)]),
                record.fingerprint,
                pack(flat_intervals(record.coverage)),
                record.upper,
                record.floor,
                record.closed,
                record.since,
            ))  # fmt: skip
        for record in records:
            self._file.replaces(record.id)
        with self._file.transaction() as db:
            other = [(record.id, record.id, record.fingerprint) for record in records]
            db.executemany(
                "DELETE FROM snapshots WHERE s = ? AND EXISTS "
                "(SELECT 1 FROM streams WHERE id = ? AND fingerprint IS NOT ?)",
                other,
            )
            db.executemany("INSERT OR REPLACE INTO streams VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    async def append(self, append: Append) -> None:
        await self._file.run(self._append, append)

    def _append(self, append: Append) -> None:
        if append.seq <= (self._file.state["append"] or 0):
            return
        with self._file.transaction(alone=True) as db:
            if append.changed:
                marks = [
                    (append.seq, stream, pack(flat_intervals(intervals)))
                    for stream, intervals in append.changed.items()
                ]
                db.executemany("INSERT OR REPLACE INTO marks VALUES (?, ?, ?)", marks)
            if append.dead_letters:
                db.executemany(
                    "INSERT INTO dead_letters VALUES (NULL, ?, ?, ?, ?, ?, ?)",
                    (astuple(letter)[:6] for letter in append.dead_letters),
                )
            for stream, spans in append.purged.items():
                rows = [(stream, start, end) for start, end in spans.pairs]
                db.executemany("DELETE FROM instances WHERE s = ? AND t > ? AND t <= ?", rows)
            for stream, batch in (*append.inserts, *append.upserts):
                db.executemany(_UPSERT, rows_of(stream, batch))
            self._file.state["append"] = append.seq

    async def commit(self, commit: Commit) -> None:
        await self._file.run(self._commit, commit)

    def _commit(self, commit: Commit) -> None:
        if commit.seq <= (self._file.state["commit"] or 0):
            return
        with self._file.transaction(alone=True) as db:
            for change in commit.streams:
                self._apply(db, change)
                if change.publish and (change.inserted or change.revised or change.retracted):
                    db.execute(
                        "INSERT INTO outbox VALUES (?, ?, ?)", (commit.seq, change.stream, _pack_changes(change))
                    )
            if commit.history:
                db.executemany(
                    "INSERT INTO history VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", map(astuple, commit.history)
                )
            db.execute("DELETE FROM marks WHERE seq <= ?", (commit.consumed,))
            state = self._file.state
            state["append"] = max(state["append"] or 0, commit.consumed)
            state["commit"] = commit.seq
            state["proven"] = commit.proven

    @staticmethod
    def _apply(db: sqlite3.Connection, change: StreamChange) -> None:
        stream = change.stream
        if change.retracted:
            db.executemany("DELETE FROM instances WHERE s = ? AND t = ?", [(stream, t) for t in change.retracted])
        for batch in (change.inserted, change.revised):
            if batch:
                db.executemany(_UPSERT, rows_of(stream, batch))
        if not change.fresh or change.revisions:
            keys = [(stream, time) for time in touched(change)]
            db.executemany("DELETE FROM retracted WHERE s = ? AND t = ?", keys)
            revisions = [(change.revisions.get(time, 0) or None, stream, time) for _, time in keys]
            if change.revised or change.revisions:
                db.executemany("UPDATE instances SET r = ? WHERE s = ? AND t = ? AND r IS NOT ?1", revisions)
            kept = [(stream, t, change.revisions[t]) for t in change.retracted if change.revisions.get(t)]
            db.executemany("INSERT INTO retracted VALUES (?, ?, ?)", kept)
        for start, end in change.snapshots_dropped.pairs:
            db.execute("DELETE FROM snapshots WHERE s = ? AND t > ? AND t <= ?", (stream, start, end))
        if change.snapshots:
            rows = [(stream, snapshot.time, pack(snapshot.state)) for snapshot in change.snapshots]
            db.executemany("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?)", rows)
        db.execute(
            "UPDATE streams SET coverage = ?, upper = ? WHERE id = ?",
            (pack(flat_intervals(change.coverage)), change.upper, stream),
        )

    async def advance(self, uppers: Mapping[int, int]) -> None:
        await self._file.run(self._file.advance, dict(uppers))

    # --- reads ---

    async def _select(self, sql: str, *parameters: Any) -> list[Any]:
        return await self._file.run(lambda: self._file.db.execute(sql, parameters).fetchall())

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
        sql = "SELECT t, v FROM instances WHERE s = ? AND t > ? AND t <= ? ORDER BY t"
        if limit is None and budget is None:
            return await self._file.run(lambda: batch_of(self._file.db.execute(sql, (stream, start, end)).fetchall()))
        sql += " DESC LIMIT ?" if newest else " LIMIT ?"
        parameters = (stream, start, end, -1 if limit is None else max(limit, 0))
        if budget is not None:
            return await self._file.run(self._read_within, sql, parameters, budget, newest)
        rows = await self._select(sql, *parameters)
        return batch_of(rows[::-1] if newest else rows)

    def _read_within(self, sql: str, parameters: tuple[int, ...], budget: int, newest: bool) -> Batch:
        with closing(self._file.db.execute(sql, parameters)) as rows:
            return batch_within(rows, budget, newest=newest)

    async def last(self, stream: int, instant: int, count: int) -> Batch:
        sql = "SELECT t, v FROM instances WHERE s = ? AND t <= ? ORDER BY t DESC LIMIT ?"
        return batch_of((await self._select(sql, stream, instant, max(count, 0)))[::-1])

    async def _at(self, column: str, stream: int, times: Sequence[int]) -> list[Any]:
        sql = f"SELECT t, {column} WHERE s = ? AND t IN (SELECT value FROM json_each(?)) ORDER BY t"  # noqa: S608
        return await self._select(sql, stream, json.dumps([int(time) for time in times]))

    async def get(self, stream: int, times: Sequence[int]) -> Batch:
        return batch_of(await self._at("v FROM instances", stream, times))

    async def revisions(self, stream: int, times: Sequence[int]) -> dict[int, int]:
        gone = dict(await self._at("r FROM retracted", stream, times))
        return gone | {time: r for time, r in await self._at("r FROM instances", stream, times) if r}

    async def count(self, stream: int, start: int, end: int) -> int:
        sql = "SELECT count(*) FROM instances WHERE s = ? AND t > ? AND t <= ?"
        return int((await self._select(sql, stream, start, end))[0][0])

    async def snapshot(self, stream: int, instant: int) -> Snapshot | None:
        sql = "SELECT t, state FROM snapshots WHERE s = ? AND t <= ? ORDER BY t DESC LIMIT 1"
        rows = await self._select(sql, stream, instant)
        return Snapshot(rows[0][0], unpack(rows[0][1])) if rows else None

    async def snapshots(self, stream: int, start: int, end: int, *, limit: int) -> list[Snapshot]:
        sql = "SELECT t, state FROM snapshots WHERE s = ? AND t > ? AND t <= ? ORDER BY t LIMIT ?"
        return [Snapshot(t, unpack(state)) for t, state in await self._select(sql, stream, start, end, max(limit, 0))]

    # --- outbox, small documents ---

    async def outbox(self, after: int, limit: int) -> list[OutboxEntry]:
        return await self._file.run(self._outbox, after, limit)

    def _outbox(self, after: int, limit: int) -> list[OutboxEntry]:
        after = max(after, self._file.state["published"] or 0)
        sql = """SELECT seq, s, changes FROM outbox
                 WHERE seq IN (SELECT DISTINCT seq FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?) ORDER BY seq, s"""
        rows = self._file.db.execute(sql, (after, max(limit, 0))).fetchall()
        return [_unpack_entry(seq, stream, packed) for seq, stream, packed in rows]

    async def sinks(self, names: Sequence[str]) -> Mapping[str, int]:
        return await self._file.run(self._file.choose_sinks, list(names))

    async def published(self, sink: str, seq: int) -> None:
        await self._file.run(self._file.published, sink, seq)

    async def dead_letters(self, limit: int, *, budget: int | None = None) -> list[DeadLetter]:
        return await self._file.run(self._dead_letters, max(limit, 0), budget)

    def _dead_letters(self, limit: int, budget: int | None) -> list[DeadLetter]:
        sql = "SELECT time, source, reason, message, topic, payload FROM dead_letters ORDER BY id DESC LIMIT ?"
        with closing(self._file.db.execute(sql, (limit,))) as rows:
            return list(within(starmap(DeadLetter, rows), budget))

    async def history(self, limit: int, stream: str | None = None) -> list[HistoryEntry]:
        sql = 'SELECT time, stream, tool, start, "end", instances, changed, cause, session FROM history '
        if stream is None:
            rows = await self._select(sql + "ORDER BY id DESC LIMIT ?", max(limit, 0))
        else:
            rows = await self._select(sql + "WHERE stream = ? ORDER BY id DESC LIMIT ?", stream, max(limit, 0))
        return [HistoryEntry(*row) for row in rows]

    async def claim(self, owner: str, for_ms: int, *, instead_of: str = "") -> Holder:
        return await self._file.claim(owner, for_ms, instead_of)

    async def put(self, kind: DocumentKind, key: str, document: Mapping[str, Any]) -> None:
        await self._file.run(self._put, kind, key, pack(dict(document)))

    def _put(self, kind: str, key: str, packed: bytes) -> None:
        with self._file.transaction() as db:
            db.execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?)", (kind, key, packed))

    async def documents(self, kind: DocumentKind) -> dict[str, dict[str, Any]]:
        rows = await self._select("SELECT key, document FROM documents WHERE kind = ? ORDER BY key", kind)
        return {key: unpack(packed) for key, packed in rows}


def _pack_changes(change: StreamChange) -> bytes:
    inserted, revised = flat_batch(change.inserted), flat_batch(change.revised)
    return pack([inserted, revised, list(change.retracted), dict(change.revisions)])


def _unpack_entry(seq: int, stream: int, packed: bytes) -> OutboxEntry:
    inserted, revised, retracted, revisions = unpack(packed)
    change = StreamChange(stream, EMPTY, None, to_batch(inserted), to_batch(revised), retracted, revisions)
    return changes_of(seq, change)
