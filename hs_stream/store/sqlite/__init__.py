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
   transaction holds SQLite's own lock, so whoever comes after it has to wait for its end; it cannot write after them.
5. `SqliteStore.advance` and `SqliteStore.published` only remember; the next transaction, or `SqliteStore.close`, writes
   them. The cursors of sinks are rows of ``state``, so that a file of the last version needs none to be opened.
6. The right to write runs out by the clock of the host since its boot, which all of its processes share. Only where
   another boot, or another host, wrote it down, the time of day decides.
"""

from __future__ import annotations

from hs_stream.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
