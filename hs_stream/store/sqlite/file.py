"""The file of `hs_stream.store.sqlite`: the thread that holds it, transactions, and who may write."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from hs_stream.core.errors import StoreReplaced, StoreUnavailable
from hs_stream.core.packing import pack, to_intervals, unpack
from hs_stream.engine.ports import Holder, Recovery
from hs_stream.private_files import make_private, narrow, touch_private
from hs_stream.store.changes import merge_marks, missing
from hs_stream.store.cursors import advanced, chosen, start_of
from hs_stream.store.fence import Fence, boot, host_now
from hs_stream.store.sqlite.rows import SCHEMA, SCHEMA_VERSION, UPGRADES, unavailable

__all__ = ["SqliteFile"]

T = TypeVar("T")

_TRIM_EVERY: Final = 1000
_FENCE: Final = "fence"
"""The key in ``state`` of the token of the right to write."""
_SINK: Final = "sink:"
"""What the keys in ``state`` of the cursors of sinks begin with."""


class SqliteFile:
    """What is not ``async`` is for the thread, inside of `run`.

    ``limits``: of which tables how many rows stay, the newest ones; they are trimmed now and then.
    """

    def __init__(
        self,
        path: Path,
        *,
        synchronous: Literal["FULL", "NORMAL"],
        make_directory: bool,
        limits: Mapping[str, int],
    ) -> None:
        self.path = path
        self._synchronous = synchronous
        self._make_directory = make_directory
        self._limits = limits
        self._executor: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None
        self.state: dict[str, int | None] = {}
        """Up to where everything is appended, committed and published; written with the next transaction."""
        self._saved: dict[str, int | None] = {}
        self._uppers: dict[int, int] = {}
        self._file: tuple[int, int] | None = None
        self._opened = False
        self._writes = 0
        self._fence = Fence(f"the SQLite database {path}")

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """What ``work`` gives, done by the thread. `StoreUnavailable`."""
        if self._executor is None:
            raise StoreUnavailable(f"SQLite database {self.path} is closed", hint="await store.open() first")
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(self._guarded, work, *args))

    def _guarded(self, work: Callable[..., T], *args: Any) -> T:
        with unavailable(self.path):
            return work(*args)

    @property
    def db(self) -> sqlite3.Connection:
        """The connection of an open store. `StoreUnavailable` where it is closed."""
        if self._connection is None or not self._opened:
            raise StoreUnavailable(f"SQLite database {self.path} is closed", hint="await store.open() first")
        return self._connection

    @contextmanager
    def transaction(self, *, alone: bool = False) -> Iterator[sqlite3.Connection]:
        """All or nothing. What rule 5 of the package remembers goes with it.

        ``alone``: for a write with a ``seq``, so nobody else may have used one meanwhile.
        """
        db, state = self.db, dict(self.state)
        if self._fence.broken:
            raise self._fence.refused()
        db.execute("BEGIN IMMEDIATE")
        try:
            self._require_mine(self._require_same(db), alone=alone)
            yield db
            self._write_remembered(db)
            db.execute("COMMIT")
        except BaseException:
            self.state = state
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self._saved = dict(self.state)
        self._uppers.clear()

    def _require_mine(self, found: Mapping[str, int | None], *, alone: bool) -> None:
        """Rule 4: ``found`` is the state as it is stored."""
        self._fence.require(found.get(_FENCE) or 0)
        if alone and any((found.get(name) or 0) > (self._saved.get(name) or 0) for name in ("append", "commit")):
            raise self._fence.refused()

    def _require_same(self, db: sqlite3.Connection) -> dict[str, int | None]:
        """Rule 4; the state as it is stored."""
        where = f"SQLite database {self.path}"
        if self._file != _identity(self.path):
            raise StoreReplaced(where, "another file has its name, and what this service writes is in the old one")
        found = dict(db.execute("SELECT key, value FROM state"))
        if lost := missing(found, self._saved):
            raise StoreReplaced(where, lost)
        return found

    def _write_remembered(self, db: sqlite3.Connection) -> None:
        if news := self.state.items() - self._saved.items():
            db.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", news)
        if gone := self._saved.keys() - self.state.keys():
            db.executemany("DELETE FROM state WHERE key = ?", [(key,) for key in gone])
        if self._saved.get("published") != self.state["published"]:
            db.execute("DELETE FROM outbox WHERE seq <= ?", (self.state["published"],))
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

    async def claim(self, owner: str, for_ms: int, instead_of: str) -> Holder:
        """Rule 6 of the package."""
        return await self._connected(self._claim, owner, for_ms, instead_of)

    async def _connected(self, work: Callable[..., T], *args: Any) -> T:
        """`_run`, over a file that need not be open yet."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="hs-stream-sqlite")
        try:
            return await self.run(work, *args)
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
            touch_private(self.path)
        narrow(*(self.path.with_name(self.path.name + ending) for ending in ("-wal", "-shm")))
        self._connection = sqlite3.connect(self.path, timeout=5.0, isolation_level=None, check_same_thread=False)
        db = self._connection
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION or (
            version == 0 and db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        ):
            raise StoreUnavailable(
                f"SQLite database {self.path} has layout {version}, this version writes layout {SCHEMA_VERSION}",
                hint="it was made by another program or a newer hs_stream; name another file in store.url",
            )
        db.execute("PRAGMA journal_mode = WAL").fetchone()
        db.execute(f"PRAGMA synchronous = {self._synchronous}")
        db.execute("PRAGMA cache_size = -16000")
        if version < SCHEMA_VERSION:
            steps = SCHEMA if version == 0 else "".join(UPGRADES[step] for step in range(version, SCHEMA_VERSION))
            db.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        self._file = _identity(self.path)
        return db

    def _open(self) -> Recovery:
        db = self._connect()
        self.state = {**dict.fromkeys(("append", "commit", "published"), 0), "proven": None}
        self.state |= dict(db.execute("SELECT key, value FROM state"))
        token = self.state.pop(_FENCE, None) or 0
        if not self._opened:
            self._fence.opened(token)
            self._opened = True
        self._saved = dict(self.state)
        marks = [
            (stream, to_intervals(unpack(packed))) for stream, packed in db.execute("SELECT s, intervals FROM marks")
        ]
        state = self.state
        return Recovery(
            merge_marks(marks),
            append_seq=state["append"] or 0,
            commit_seq=state["commit"] or 0,
            published=self._cursors(),
            proven=state["proven"],
        )

    def _create_directory(self) -> None:
        try:
            make_private(self.path.parent)
        except OSError as error:
            raise StoreUnavailable(
                f"cannot make the directory of the SQLite database {self.path}: {error.strerror}",
                hint="correct store.url",
            ) from None

    async def close(self) -> None:
        """Write what is only remembered, and let go of the file. Idempotent."""
        try:
            if self._executor is not None and self._connection is not None:
                await self.run(self._flush)
        finally:
            await self.abandon()

    def _flush(self) -> None:
        if self._opened and not self._fence.broken and (self._uppers or self.state != self._saved):
            with self.transaction():
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
            if self._file is not None and self._file != _identity(self.path):
                # SQLite leaves the log of the file that was here, and would apply it to the one that is here now.
                for ending in ("-wal", "-shm"):
                    with suppress(OSError):
                        log = self.path.with_name(self.path.name + ending)
                        log.rename(log.with_name(f"{log.name}.replaced"))

    # --- what is only remembered ---

    def _cursors(self) -> dict[str, int]:
        return {key.removeprefix(_SINK): at or 0 for key, at in self.state.items() if key.startswith(_SINK)}

    def _remember_cursors(self, cursors: Mapping[str, int], start: int) -> None:
        kept = {key: at for key, at in self.state.items() if not key.startswith(_SINK)}
        self.state = kept | {_SINK + name: seq for name, seq in cursors.items()} | {"published": start}

    def choose_sinks(self, names: Sequence[str]) -> dict[str, int]:
        """`hs_stream.engine.ports.Store.sinks`."""
        known, start, committed = self._cursors(), self.state["published"] or 0, self.state["commit"] or 0
        cursors, begin = chosen(known, start, names, committed)
        if (cursors, begin) != (known, start):
            with self.transaction():
                self._remember_cursors(cursors, begin)
        return cursors

    def published(self, sink: str, seq: int) -> None:
        """`hs_stream.engine.ports.Store.published`."""
        known = self._cursors()
        cursors = advanced(known, sink, seq)
        if cursors is not known:
            self._remember_cursors(cursors, start_of(cursors, 0))

    def advance(self, uppers: Mapping[int, int]) -> None:
        """Watermarks, which never go back."""
        for stream, upper in uppers.items():
            if upper > self._uppers.get(stream, upper - 1):
                self._uppers[stream] = upper

    def upper(self, stream: int, stored: int | None) -> int | None:
        """The watermark of ``stream``, which is ``stored`` or later."""
        later = self._uppers.get(stream)
        return later if later is not None and (stored is None or stored < later) else stored

    def replaces(self, stream: int) -> None:
        """Another watermark is about to be written: what is remembered does not count any more."""
        self._uppers.pop(stream, None)

    # --- the right to write ---

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


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file has this name; ``None`` where none has."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
