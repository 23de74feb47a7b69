"""The store in one SQLite file: `hs_stream.store.sqlite.store` says how it works."""

from __future__ import annotations

from hs_stream.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
