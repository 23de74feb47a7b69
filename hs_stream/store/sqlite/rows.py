"""How values become SQLite columns, the schema, and what SQLite's errors mean.

A value is stored natively where SQLite keeps its exact type: ``None``, ``int``, ``float`` (not NaN, which SQLite turns
into NULL) and ``str``. Everything else is a blob of `hs_stream.core.packing`; ``bytes`` too, so every blob is packed.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.errors import StoreUnavailable
from hs_stream.core.packing import pack, unpack
from hs_stream.core.size import fitting
from hs_stream.core.value import Value

__all__ = ["SCHEMA", "SCHEMA_VERSION", "UPGRADES", "batch_of", "batch_within", "rows_of", "unavailable"]

SCHEMA_VERSION: Final = 3
SCHEMA: Final = """
CREATE TABLE state (key TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
CREATE TABLE streams (id INTEGER PRIMARY KEY, name TEXT NOT NULL, meta TEXT NOT NULL, kind TEXT NOT NULL,
    workflow TEXT NOT NULL, tool BLOB, fingerprint TEXT NOT NULL, coverage BLOB NOT NULL, upper INTEGER,
    floor INTEGER, closed INTEGER, since INTEGER);
CREATE TABLE instances (s INTEGER NOT NULL, t INTEGER NOT NULL, v, r INTEGER, PRIMARY KEY (s, t)) WITHOUT ROWID;
CREATE TABLE retracted (s INTEGER NOT NULL, t INTEGER NOT NULL, r INTEGER NOT NULL, PRIMARY KEY (s, t)) WITHOUT ROWID;
CREATE TABLE snapshots (s INTEGER NOT NULL, t INTEGER NOT NULL, state BLOB NOT NULL, PRIMARY KEY (s, t));
CREATE TABLE outbox (seq INTEGER NOT NULL, s INTEGER NOT NULL, changes BLOB NOT NULL, PRIMARY KEY (seq, s));
CREATE TABLE marks (seq INTEGER NOT NULL, s INTEGER NOT NULL, intervals BLOB NOT NULL, PRIMARY KEY (seq, s));
CREATE TABLE dead_letters (id INTEGER PRIMARY KEY, time INTEGER NOT NULL, source TEXT NOT NULL, reason TEXT NOT NULL,
    message TEXT NOT NULL, topic TEXT NOT NULL, payload BLOB NOT NULL);
CREATE TABLE history (id INTEGER PRIMARY KEY, time INTEGER NOT NULL, stream TEXT NOT NULL, tool TEXT NOT NULL,
    start INTEGER NOT NULL, "end" INTEGER NOT NULL, instances INTEGER NOT NULL, changed INTEGER NOT NULL,
    cause TEXT NOT NULL, session TEXT NOT NULL);
CREATE INDEX history_by_stream ON history (stream, id);
CREATE TABLE documents (kind TEXT NOT NULL, key TEXT NOT NULL, document BLOB NOT NULL, PRIMARY KEY (kind, key));
"""

UPGRADES: Final = {
    1: "ALTER TABLE streams ADD COLUMN floor INTEGER; ALTER TABLE streams ADD COLUMN closed INTEGER;",
    2: "ALTER TABLE streams ADD COLUMN since INTEGER;",
}
"""From each earlier layout to the next one."""

_NATIVE: Final = frozenset({int, float, str, type(None)})
_BOOLS: Final = {pack(True): True, pack(False): False}


def _native(value: Value) -> Any:
    if type(value) in _NATIVE and value == value:
        return value
    return pack(value)


def rows_of(stream: int, batch: Batch) -> Iterable[tuple[int, int, Any]]:
    """Rows ``(s, t, v)`` of a batch."""
    values = batch.values
    columns: Iterable[Any]
    if isinstance(values, np.ndarray) and (
        values.dtype == np.int64 or (values.dtype == np.float64 and not np.isnan(values).any())
    ):
        columns = values.tolist()
    else:
        columns = map(_native, batch.plain())
    return [(stream, time, value) for time, value in zip(batch.times.tolist(), columns, strict=True)]


def batch_of(rows: list[tuple[int, Any]]) -> Batch:
    """The batch of rows ``(t, v)`` ascending in ``t``."""
    if not rows:
        return NOTHING
    times, values = zip(*rows, strict=True)
    kinds = set(map(type, values))
    if bytes not in kinds:
        return Batch.build(np.array(times, np.int64), list(values))
    return Batch.build(
        np.array(times, np.int64), [_unpacked(value) if type(value) is bytes else value for value in values]
    )


def batch_within(rows: Iterable[tuple[int, Any]], budget: int, *, newest: bool) -> Batch:
    """The batch of the first ``rows``, with the one that fills ``budget`` bytes; ``newest``: they descend in time."""
    times: list[int] = []

    def values() -> Iterator[Value]:
        for time, value in rows:
            times.append(time)
            found.append(_unpacked(value) if type(value) is bytes else value)
            yield found[-1]

    found: list[Value] = []
    fitting(values(), budget)
    return Batch.build(times[::-1], found[::-1]) if newest else Batch.build(times, found)


def _unpacked(value: bytes) -> Value:
    found = _BOOLS.get(value)
    return unpack(value) if found is None else found


_HINTS: Final = {
    sqlite3.SQLITE_FULL: "free some disk space; nothing of this write was stored",
    sqlite3.SQLITE_READONLY: "give this user write access to the file and its directory",
    sqlite3.SQLITE_NOTADB: "the file is not an SQLite database; name another one in store.url",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; restore a backup, or move it away to begin anew",
    sqlite3.SQLITE_CANTOPEN: "check that the directory exists and that this user may write into it",
    sqlite3.SQLITE_IOERR: "check the disk and free some space",
    sqlite3.SQLITE_BUSY: "another process holds the database; is a second service running?",
    sqlite3.SQLITE_LOCKED: "another process holds the database; is a second service running?",
    sqlite3.SQLITE_PERM: "give this user access to the file and its directory",
}


@contextlib.contextmanager
def unavailable(path: Path) -> Iterator[None]:
    """Turns what the disk or another process is to blame for into `StoreUnavailable`; leaves our own mistakes alone."""
    try:
        yield
    except sqlite3.Error as error:
        hint = _HINTS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
        if hint is None:
            raise
        raise StoreUnavailable(f"SQLite database {path}: {error}", hint=hint) from error
