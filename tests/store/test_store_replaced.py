"""A backup that is restored under a running service is noticed, whichever way: nothing more is written."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pymongo import MongoClient

from hs_stream.core.batch import Batch
from hs_stream.core.errors import StoreReplaced, StoreUnavailable
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MIN_TIME, TimeIntervals
from hs_stream.engine.ports import Append, Commit, Store, StreamChange, StreamRecord
from hs_stream.store.mongo import MongoStore
from hs_stream.store.sqlite import SqliteStore

Opened = TypeVar("Opened", SqliteStore, MongoStore)
AT = 1_700_000_000_000


async def work(store: Store, first: int, last: int) -> None:
    for seq in range(first, last + 1):
        batch = Batch.of([(AT + seq, float(seq))])
        await store.append(Append(seq, [(1, batch)], changed={1: TimeIntervals.of(AT + seq - 1, AT + seq)}))
        change = StreamChange(2, TimeIntervals.of(MIN_TIME, AT + seq), AT + seq, batch)
        await store.commit(Commit(seq, [change], seq, AT + seq))


async def opened(store: Opened) -> Opened:
    await store.open()
    await store.register([StreamRecord(1, StreamId.make("r"), "raw"), StreamRecord(2, StreamId.make("d"), "derived")])
    return store


def restored_into(path: Path, backup: Path) -> None:
    """As the shell of SQLite does with ``.restore``."""
    with closing(sqlite3.connect(backup)) as source, closing(sqlite3.connect(path)) as target:
        source.backup(target)


def moved_over(path: Path, backup: Path) -> None:
    backup.replace(path)


def removed(path: Path, backup: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("restore", "said"),
    [
        (
            restored_into,
            "append 2 instead of 5 and commit 2 instead of 5; what came after about 2023-11-14T22:13:20.002Z",
        ),
        (moved_over, "another file has its name"),
        (removed, "another file has its name"),
    ],
)
async def test_an_sqlite_database(tmp_path: Path, restore: Callable[[Path, Path], None], said: str) -> None:
    path, backup = tmp_path / "x.db", tmp_path / "backup.db"
    store = await opened(SqliteStore(path))
    await work(store, 1, 2)
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    await work(store, 3, 5)
    restore(path, backup)
    for write in (
        store.append(Append(6, [(1, Batch.of([(AT, 6.0)]))])),
        store.put("sessions", "a", {}),
        work(store, 6, 6),
    ):
        with pytest.raises(StoreReplaced, match=said) as caught:
            await write
        assert not isinstance(caught.value, StoreUnavailable), "it must not be tried again"
    await store.abandon()
    again = SqliteStore(path)
    recovery = await again.open()
    assert recovery.append_seq == recovery.commit_seq == (0 if restore is removed else 2)
    await again.close()


async def test_ordinary_work_is_no_restoration(tmp_path: Path) -> None:
    store = await opened(SqliteStore(tmp_path / "x.db"))
    await work(store, 1, 3)
    shutil.copy(tmp_path / "x.db", tmp_path / "copy.db")
    await work(store, 4, 5)
    await store.close()
    await store.open()
    await work(store, 6, 7)
    await store.close()


@pytest.mark.parametrize("dropped", [False, True])
async def test_a_mongodb_database(mongo_url: str, dropped: bool) -> None:
    store = await opened(MongoStore(mongo_url, checkpoint_seconds=0.01))
    await work(store, 1, 2)
    with MongoClient[dict[str, Any]](mongo_url) as client:
        database = client.get_default_database()
        backup: dict[str, Any] = {}
        async with asyncio.timeout(10):
            while backup.get("commit") != 2:
                backup = database["state"].find_one({"_id": "store"}) or {}
                await asyncio.sleep(0.02)
        await work(store, 3, 5)
        async with asyncio.timeout(10):
            while (database["state"].find_one({"_id": "store"}) or {}).get("commit") != 5:
                await asyncio.sleep(0.02)
        if dropped:
            client.drop_database(database.name)
        else:
            database["state"].replace_one({"_id": "store"}, backup)
        said = "0 instead of 5" if dropped else "append 2 instead of 5 and commit 2 instead of 5; what came after"

        async def go_on() -> None:
            for seq in range(6, 1000):
                await work(store, seq, seq)
                await asyncio.sleep(0.02)

        with pytest.raises(StoreReplaced, match=said):
            await asyncio.wait_for(go_on(), 10)
        with pytest.raises(StoreReplaced):
            await store.claim("me", 1)
        with pytest.raises(StoreReplaced):
            await store.close()
        assert (database["state"].find_one({"_id": "store"}) or {}).get("commit") == (None if dropped else 2)
