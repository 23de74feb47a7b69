"""The store in MongoDB: `hs_stream.store.mongo.store` says how it works."""

from __future__ import annotations

from hs_stream.store.mongo.store import FRESH_MS, MongoStore

__all__ = ["FRESH_MS", "MongoStore"]
