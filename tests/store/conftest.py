from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hs_stream.engine.ports import Store
from hs_stream.store.memory import MemoryStore
from hs_stream.store.mongo import MongoStore
from hs_stream.store.sqlite import SqliteStore


@pytest.fixture(params=["memory", "sqlite", "mongo", "replica"])
def factory(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Makes stores over one and the same storage, at first empty."""
    if request.param == "memory":
        store = MemoryStore()
        return lambda: store
    if request.param == "sqlite":
        return lambda: SqliteStore(tmp_path / "store.db")
    url = request.getfixturevalue(f"{request.param}_url")
    return lambda: MongoStore(url, checkpoint_seconds=0.02)


@pytest.fixture(params=["mongo", "replica"])
def either_url(request: pytest.FixtureRequest) -> str:
    """Of a standalone mongod, and of a replica set."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url
