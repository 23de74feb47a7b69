"""A store in one SQLite file: the embedded default wherever no mongod runs.

1. The database is in WAL mode. `SqliteStore.append` and `SqliteStore.commit` are one transaction each, so rules 1 to 3
   of `hs_stream.engine.ports` follow from SQLite's. With ``synchronous="FULL"`` (the default) the transaction has
   reached the disk when they return; with ``"NORMAL"`` it survives a kill of the process, but not a loss of power.
2. One thread of the store's own holds the connection: the event loop never waits for the disk, and calls keep their
   order.
3. The file, its ``-wal`` and its ``-shm`` may be read by nobody else; those of an earlier version are narrowed.
4. Each transaction looks whether the file is still the one that was opened, and no older than what was last stored:
   `StoreReplaced` when a backup was restored meanwhile; and whether the token of the right to write is still this
   object's, and nobody else has appended or committed: else it is `Fenced`. A process that is frozen inside of a
   transaction holds SQLite's own lock, so whoever comes after it has to wait for its end; it cannot write behind them.
5. `SqliteStore.advance` and `SqliteStore.published` only remember; the next transaction, or `SqliteStore.close`, writes
   them.
6. The right to write runs out by the clock of the host since its boot, which all of its processes share. Only where
   another boot, or another host, wrote it down, the time of day decides.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import astuple
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from hs_stream.core.batch import Batch
from hs_stream.core.errors import StoreReplaced, StoreUnavailable
from hs_stream.core.packing import flat_batch, flat_intervals, pack, to_batch, to_intervals, unpack
from hs_stream.core.stream import StreamId
from hs_stream.engine.ports import (
    Append,
    Change,
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
from hs_stream.private_files import make_private, narrow, touch_private
from hs_stream.store.changes import changes_of, complete, merge_marks, missing, touched
from hs_stream.store.fence import Fence, boot, host_now
from hs_stream.store.sqlite.rows import SCHEMA, SCHEMA_VERSION, UPGRADES, batch_of, batch_within, rows_of, unavailable

__all__ = ["SqliteStore"]

T = TypeVar("T")

_TRIM_EVERY: Final = 1000
_FENCE: Final = "fence"
"""The key in ``state`` of the token of the right to write."""
_UPSERT: Final = "INSERT INTO instances (s, t, v) VALUES (?, ?, ?) ON CONFLICT (s, t) DO UPDATE SET v = excluded.v"


class SqliteStore:
    """See the module. Holds about ``max_dead_letters`` and ``max_history`` entries at most, the newest ones.

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
        self._path = Path(path)
        self._synchronous = synchronous
        self._make_directory = make_directory
        self._limits = {"dead_letters": max_dead_letters, "history": max_history}
        self._executor: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None
        self._state: dict[str, int | None] = {}
        self._saved: dict[str, int | None] = {}
        self._uppers: dict[int, int] = {}
        self._file: tuple[int, int] | None = None
        self._opened = False
        self._writes = 0
        self._fence = Fence(f"the SQLite database {self._path}")

    # --- the thread ---

    async def _run(self, work: Callable[..., T], *args: Any) -> T:
        if self._executor is None:
            raise StoreUnavailable(f"SQLite database {self._path} is closed", hint="await store.open() first")
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(self._guarded, work, *args))

    def _guarded(self, work: Callable[..., T], *args: Any) -> T:
        with unavailable(self._path):
            return work(*args)

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None or not self._opened:
            raise StoreUnavailable(f"SQLite database {self._path} is closed", hint="await store.open() first")
        return self._connection

    @contextmanager
    def _transaction(self, *, alone: bool = False) -> Iterator[sqlite3.Connection]:
        """All or nothing. What rule 5 of the module remembers goes with it.

        ``alone``: for a write with a ``seq``, so nobody else may have used one meanwhile.
        """
        db, state = self._db, dict(self._state)
        if self._fence.broken:
            raise self._fence.refused()
        db.execute("BEGIN IMMEDIATE")
        try:
            self._require_mine(self._require_same(db), alone=alone)
            yield db
            self._write_remembered(db)
            db.execute("COMMIT")
        except BaseException:
            self._state = state
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self._saved = dict(self._state)
        self._uppers.clear()

    def _require_mine(self, found: Mapping[str, int | None], *, alone: bool) -> None:
        """Rule 4: ``found`` is the state as it is stored."""
        self._fence.require(found.get(_FENCE) or 0)
        if alone and any((found.get(name) or 0) > (self._saved.get(name) or 0) for name in ("append", "commit")):
            raise self._fence.refused()

    def _require_same(self, db: sqlite3.Connection) -> dict[str, int | None]:
        """Rule 4; the state as it is stored."""
        where = f"SQLite database {self._path}"
        if self._file != _identity(self._path):
            raise StoreReplaced(where, "another file has its name, and what this service writes is in the old one")
        found = dict(db.execute("SELECT key, value FROM state"))
        if lost := missing(found, self._saved):
            raise StoreReplaced(where, lost)
        return found

    def _write_remembered(self, db: sqlite3.Connection) -> None:
        news = [item for item in self._state.items() if self._saved.get(item[0], 0) != item[1]]
        if news:
            db.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", news)
        if self._saved.get("published") != self._state["published"]:
            db.execute("DELETE FROM outbox WHERE seq <= ?", (self._state["published"],))
        if self._uppers:
            db.executemany(
                "UPDATE streams SET upper = max(coalesce(upper, ?2), ?2) WHERE id = ?1", [*self._uppers.items()]
            )
        self._writes += 1
        if self._writes % _TRIM_EVERY == 1:
            for table, limit in self._limits.items():
                db.execute(f"DELETE FROM {table} WHERE id <= (SELECT max(id) FROM {table}) - ?", (limit,))  # noqa: S608

    async def open(self) -> Recovery:
        """Create the file if there is none. `StoreUnavailable` when it cannot be opened or is no store of ours."""
        return await self._connected(self._open)

    async def _connected(self, work: Callable[..., T], *args: Any) -> T:
        """`_run`, over a file that need not be open yet."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="hs-stream-sqlite")
        try:
            return await self._run(work, *args)
        except BaseException:
            if not self._opened:
                await self.abandon()
            raise

    def _connect(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        if self._make_directory:
            self._create_directory()
        # SQLite makes the files beside it with the mode of the database. What cannot be opened, it says itself.
        with suppress(OSError):
            touch_private(self._path)
        narrow(*(self._path.with_name(self._path.name + ending) for ending in ("-wal", "-shm")))
        self._connection = sqlite3.connect(self._path, timeout=5.0, isolation_level=None, check_same_thread=False)
        db = self._connection
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION or (
            version == 0 and db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        ):
            raise StoreUnavailable(
                f"SQLite database {self._path} has layout {version}, this version writes layout {SCHEMA_VERSION}",
                hint="it was made by another program or a newer hs_stream; name another file in store.url",
            )
        db.execute("PRAGMA journal_mode = WAL").fetchone()
        db.execute(f"PRAGMA synchronous = {self._synchronous}")
        db.execute("PRAGMA cache_size = -16000")
        if version < SCHEMA_VERSION:
            steps = SCHEMA if version == 0 else "".join(UPGRADES[step] for step in range(version, SCHEMA_VERSION))
            db.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        self._file = _identity(self._path)
        return db

    def _open(self) -> Recovery:
        db = self._connect()
        self._state = dict.fromkeys(("append", "commit", "published"), 0) | {"proven": None}
        self._state |= dict(db.execute("SELECT key, value FROM state"))
        token = self._state.pop(_FENCE, None) or 0
        if not self._opened:
            self._fence.opened(token)
            self._opened = True
        self._saved = dict(self._state)
        marks = [
            (stream, to_intervals(unpack(packed))) for stream, packed in db.execute("SELECT s, intervals FROM marks")
        ]
        state = self._state
        return Recovery(
            merge_marks(marks),
            append_seq=state["append"] or 0,
            commit_seq=state["commit"] or 0,
            published_seq=state["published"] or 0,
            proven=state["proven"],
        )

    def _create_directory(self) -> None:
        try:
            make_private(self._path.parent)
        except OSError as error:
            raise StoreUnavailable(
                f"cannot make the directory of the SQLite database {self._path}: {error.strerror}",
                hint="correct store.url",
            ) from None

    async def close(self) -> None:
        """Write what is only remembered, and let go of the file. Idempotent."""
        try:
            if self._executor is not None and self._connection is not None:
                await self._run(self._flush)
        finally:
            await self.abandon()

    def _flush(self) -> None:
        if self._opened and not self._fence.broken and (self._uppers or self._state != self._saved):
            with self._transaction():
                pass

    async def abandon(self) -> None:
        """Let go of the file without writing anything more: what a kill of the process would leave."""
        self._opened, self._saved = False, {}
        executor, self._executor = self._executor, None
        if executor is not None:
            await asyncio.get_running_loop().run_in_executor(executor, self._disconnect)
            executor.shutdown()  # its thread has nothing left to do
        self._uppers.clear()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            if self._file is not None and self._file != _identity(self._path):
                # SQLite leaves the log of the file that was here, and would apply it to the one that is here now.
                for ending in ("-wal", "-shm"):
                    with suppress(OSError):
                        log = self._path.with_name(self._path.name + ending)
                        log.rename(log.with_name(f"{log.name}.replaced"))

    async def ping(self) -> None:
        await self._run(lambda: self._db.execute("SELECT 1 FROM state LIMIT 1").fetchone())

    # --- streams and writes ---

    async def streams(self) -> list[StreamRecord]:
        return await self._run(self._streams)

    def _streams(self) -> list[StreamRecord]:
        records = []
        for row in self._db.execute("SELECT * FROM streams ORDER BY id"):
            identity, name, meta, kind, workflow, tool, fingerprint, coverage, upper, floor, closed, since = row
            later = self._uppers.get(identity)
            if later is not None and (upper is None or upper < later):
                upper = later
            record = StreamRecord(
                identity,
                StreamId(name, tuple(json.loads(meta).items())),
                kind,
                workflow,
                None if tool is None else ToolRecord(*unpack(tool)),
                fingerprint,
                to_intervals(unpack(coverage)),
                upper,
                floor,
                closed,
                since,
            )
            records.append(complete(record))
        return records

    async def register(self, records: Sequence[StreamRecord]) -> None:
        await self._run(self._register, records)

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
            self._uppers.pop(record.id, None)
        with self._transaction() as db:
            other = [(record.id, record.id, record.fingerprint) for record in records]
            db.executemany(
                "DELETE FROM snapshots WHERE s = ? AND EXISTS "
                "(SELECT 1 FROM streams WHERE id = ? AND fingerprint IS NOT ?)",
                other,
            )
            db.executemany("INSERT OR REPLACE INTO streams VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    async def append(self, append: Append) -> None:
        await self._run(self._append, append)

    def _append(self, append: Append) -> None:
        if append.seq <= (self._state["append"] or 0):
            return
        with self._transaction(alone=True) as db:
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
            self._state["append"] = append.seq

    async def commit(self, commit: Commit) -> None:
        await self._run(self._commit, commit)

    def _commit(self, commit: Commit) -> None:
        if commit.seq <= (self._state["commit"] or 0):
            return
        with self._transaction(alone=True) as db:
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
            state = self._state
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
        await self._run(self._advance, dict(uppers))

    def _advance(self, uppers: Mapping[int, int]) -> None:
        for stream, upper in uppers.items():
            if upper > self._uppers.get(stream, upper - 1):
                self._uppers[stream] = upper

    # --- reads ---

    async def _select(self, sql: str, *parameters: Any) -> list[Any]:
        return await self._run(lambda: self._db.execute(sql, parameters).fetchall())

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
            return await self._run(lambda: batch_of(self._db.execute(sql, (stream, start, end)).fetchall()))
        sql += " DESC LIMIT ?" if newest else " LIMIT ?"
        parameters = (stream, start, end, -1 if limit is None else max(limit, 0))
        if budget is not None:
            return await self._run(self._read_within, sql, parameters, budget, newest)
        rows = await self._select(sql, *parameters)
        return batch_of(rows[::-1] if newest else rows)

    def _read_within(self, sql: str, parameters: tuple[int, ...], budget: int, newest: bool) -> Batch:
        with closing(self._db.execute(sql, parameters)) as rows:
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
        return await self._run(self._outbox, after, limit)

    def _outbox(self, after: int, limit: int) -> list[OutboxEntry]:
        after = max(after, self._state["published"] or 0)
        sql = """SELECT seq, s, changes FROM outbox
                 WHERE seq IN (SELECT DISTINCT seq FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?) ORDER BY seq, s"""
        rows = self._db.execute(sql, (after, max(limit, 0))).fetchall()
        return [OutboxEntry(seq, stream, _unpack_changes(packed)) for seq, stream, packed in rows]

    async def published(self, seq: int) -> None:
        await self._run(self._published, seq)

    def _published(self, seq: int) -> None:
        self._state["published"] = max(self._state["published"] or 0, seq)

    async def dead_letters(self, limit: int, *, budget: int | None = None) -> list[DeadLetter]:
        return await self._run(self._dead_letters, max(limit, 0), budget)

    def _dead_letters(self, limit: int, budget: int | None) -> list[DeadLetter]:
        sql = "SELECT time, source, reason, message, topic, payload FROM dead_letters ORDER BY id DESC LIMIT ?"
        with closing(self._db.execute(sql, (limit,))) as rows:
            return list(within(starmap(DeadLetter, rows), budget))

    async def history(self, limit: int, stream: str | None = None) -> list[HistoryEntry]:
        sql = 'SELECT time, stream, tool, start, "end", instances, changed, cause, session FROM history '
        if stream is None:
            rows = await self._select(sql + "ORDER BY id DESC LIMIT ?", max(limit, 0))
        else:
            rows = await self._select(sql + "WHERE stream = ? ORDER BY id DESC LIMIT ?", stream, max(limit, 0))
        return [HistoryEntry(*row) for row in rows]

    async def claim(self, owner: str, for_ms: int, *, instead_of: str = "") -> Holder:
        return await self._connected(self._claim, owner, for_ms, instead_of)

    def _claim(self, owner: str, for_ms: int, instead_of: str) -> Holder:
        db = self._connect()
        db.execute("BEGIN IMMEDIATE")
        try:
            self._require_same(db)
            token = (db.execute("SELECT value FROM state WHERE key = ?", (_FENCE,)).fetchone() or (0,))[0]
            found = db.execute("SELECT document FROM documents WHERE kind = 'lease'").fetchone()
            # The last version wrote owner and time of day only.
            holder, ends, *since_boot = unpack(found[0]) if found else ("", 0)
            now, here = time.time_ns() // 1_000_000, boot()
            left = since_boot[1] - host_now() if since_boot and here and since_boot[0] == here else ends - now
            free = holder in ("", instead_of) or left <= 0
            mine = holder == owner or (free and for_ms > 0)
            if mine:
                token += holder != owner
                until = [now + for_ms, here, host_now() + for_ms] if for_ms else [0]
                packed = pack([owner, *until])
                db.execute("INSERT OR REPLACE INTO documents VALUES ('lease', 'store', ?)", (packed,))
                db.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (_FENCE, token))
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
        if mine:
            self._fence.claimed(token)
        return Holder(owner if mine else "" if free else str(holder), token)

    async def put(self, kind: DocumentKind, key: str, document: Mapping[str, Any]) -> None:
        await self._run(self._put, kind, key, pack(dict(document)))

    def _put(self, kind: str, key: str, packed: bytes) -> None:
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?)", (kind, key, packed))

    async def documents(self, kind: DocumentKind) -> dict[str, dict[str, Any]]:
        rows = await self._select("SELECT key, document FROM documents WHERE kind = ? ORDER BY key", kind)
        return {key: unpack(packed) for key, packed in rows}


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file has this name; ``None`` where none has."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _pack_changes(change: StreamChange) -> bytes:
    inserted, revised = flat_batch(change.inserted), flat_batch(change.revised)
    return pack([inserted, revised, list(change.retracted), dict(change.revisions)])


def _unpack_changes(packed: bytes) -> list[Change]:
    inserted, revised, retracted, revisions = unpack(packed)
    return changes_of(to_batch(inserted), to_batch(revised), retracted, revisions)
