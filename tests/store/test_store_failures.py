"""What goes wrong outside of us is `StoreUnavailable` with a hint, or `ConfigurationError`; no message holds a
password."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sqlite3
import subprocess
import sys
import tracemalloc
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient, MongoClient, ReplaceOne
from pymongo.errors import AutoReconnect

from hs_stream.core.batch import Batch
from hs_stream.core.errors import ConfigurationError, StoreUnavailable
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME, TimeIntervals
from hs_stream.engine.ports import Append, Commit, DeadLetter, HistoryEntry, Store, StreamChange, StreamRecord
from hs_stream.service.embedded.mongod import EmbeddedMongod, find_mongod
from hs_stream.store.memory import MemoryStore
from hs_stream.store.mongo import MongoStore
from hs_stream.store.mongo.books import Books
from hs_stream.store.open import open_store, redacted
from hs_stream.store.sqlite import SqliteStore

ROUND = [(1, Batch.of([(t, "x" * 1000) for t in range(100)]))]


# --- URLs ---


def test_open_store_names() -> None:
    assert isinstance(open_store("memory://"), MemoryStore)
    assert open_store("sqlite:///var/x%20y.db")._file.path == Path("var/x y.db")  # type: ignore[attr-defined]
    assert open_store("sqlite:////var/x.db")._file.path == Path("/var/x.db")  # type: ignore[attr-defined]
    assert open_store("mongodb://localhost/hs").name == "mongodb"


@pytest.mark.parametrize("url", ["", "x", "sqlite://", "sqlite:///", "mysql://a:secret@b/c", "memory", "embedded://"])
def test_open_store_refuses(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_store(url)
    assert "secret" not in str(caught.value)
    assert "mongodb://host" in caught.value.hint


def test_redacted() -> None:
    assert redacted("mongodb://u:p@ss:w@h1,h2/db?x=1") == "mongodb://u:***@h1,h2/db?x=1"
    assert redacted("mongodb://h/db") == "mongodb://h/db"


# --- SQLite ---


async def test_sqlite_disk_full(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    await store.open()
    await store.append(Append(1, ROUND))
    await store._file.run(lambda: store._file.db.execute("PRAGMA max_page_count = 60").fetchone())
    late = Append(2, [(1, Batch.of([(t, "y" * 1000) for t in range(1000, 2000)]))], changed={1: TimeIntervals.of(0, 9)})
    with pytest.raises(StoreUnavailable, match="disk is full") as caught:
        await store.append(late)
    assert "free some disk space" in caught.value.hint
    with pytest.raises(StoreUnavailable, match="disk is full"):
        await store.commit(Commit(1, [StreamChange(1, TimeIntervals(), None, late.inserts[0][1])], 0, 0))
    assert await store.count(1, MIN_TIME, MAX_TIME) == 100, "nothing of a failed write is there"
    await store._file.run(lambda: store._file.db.execute("PRAGMA max_page_count = 100000").fetchone())
    await store.append(late)
    assert await store.count(1, MIN_TIME, MAX_TIME) == 1100, "the same write again succeeds once there is room"
    await store.close()
    recovery = await store.open()
    assert recovery.changed == {1: TimeIntervals.of(0, 9)}
    await store.close()


@pytest.mark.skipif(os.getuid() != 0 or sys.platform != "linux", reason="mounting a small tmpfs needs root")
async def test_sqlite_on_a_real_full_disk(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if (await asyncio.to_thread(subprocess.run, mount, check=False, capture_output=True)).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        store = SqliteStore(tmp_path / "store.db")
        await store.open()
        written = 0
        with pytest.raises(StoreUnavailable, match=r"full|I/O") as caught:  # noqa: PT012 - until it is full
            for seq in range(1, 100):
                await store.append(Append(seq, [(1, Batch.of([(seq, "x" * 50_000)]))]))
                written = seq
        assert "space" in caught.value.hint
        assert 0 < written < 30
        assert (await store.read(1, 0, 1000)).times.tolist() == [*range(1, written + 1)]
        await store.abandon()
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", str(tmp_path)], check=True)


async def test_sqlite_not_a_database(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_text("temperature;humidity\n" * 100)
    with pytest.raises(StoreUnavailable, match="not a database"):
        await SqliteStore(path).open()
    assert path.read_text().startswith("temperature"), "a foreign file is left alone"


async def test_sqlite_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("create table a (b)")
    with pytest.raises(StoreUnavailable, match="layout 0"):
        await SqliteStore(path).open()


@pytest.mark.parametrize(("layout", "columns"), [(1, ("floor", "closed", "since")), (2, ("since",))])
async def test_sqlite_of_an_earlier_layout(tmp_path: Path, layout: int, columns: tuple[str, ...]) -> None:
    """A file of layout 1 or 2 is taken over as it is."""
    path = tmp_path / "x.db"
    store = SqliteStore(path)
    await store.open()
    record = StreamRecord(1, StreamId("s"), "raw", upper=9)
    await store.register([record])
    await store.append(Append(1, [(1, Batch.of([(5, 0.5)]))]))
    await store.close()
    with closing(sqlite3.connect(path)) as db:
        gone = "".join(f"ALTER TABLE streams DROP COLUMN {name};" for name in columns)
        db.executescript(f"{gone} PRAGMA user_version = {layout}")
    for _ in range(2):
        await store.open()
        [found] = await store.streams()
        assert (found.stream, found.upper, found.floor, found.closed, found.since) == (
            StreamId("s"),
            9,
            None,
            None,
            None,
        )
        assert await store.read(1, 0, 9) == Batch.of([(5, 0.5)])
        await store.close()


async def test_sqlite_without_directory(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="unable to open") as caught:
        await SqliteStore(tmp_path / "no" / "store.db").open()
    assert "directory" in caught.value.hint


async def test_sqlite_read_only(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    await store.open()
    # root may write to any file, so the database is told, not the file system
    await store._file.run(lambda: store._file.db.execute("PRAGMA query_only = ON").fetchone())
    with pytest.raises(StoreUnavailable, match="readonly") as caught:
        await store.append(Append(1, ROUND))
    assert "write access" in caught.value.hint
    await store.abandon()


async def test_sqlite_never_blocks_the_loop(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    await store.open()
    big = asyncio.create_task(store.append(Append(1, [(1, Batch.of([(t, {"t": t}) for t in range(100_000)]))])))
    ticks = 0
    while not big.done():
        await asyncio.sleep(0)
        ticks += 1
    assert ticks > 20
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.read(1, 0, 1)


# --- MongoDB ---


async def test_mongo_nobody_listens() -> None:
    with closing(socket.socket()) as held:
        held.bind(("127.0.0.1", 0))
        url = f"mongodb://anna:secret@127.0.0.1:{held.getsockname()[1]}/hs"
        with pytest.raises(StoreUnavailable, match="does not answer") as caught:
            await MongoStore(url, server_timeout=0.2).open()
    assert "secret" not in str(caught.value)
    assert "is mongod running" in caught.value.hint


@pytest.mark.parametrize("url", ["mongodb://h:notaport/x", "mongodb://a:secret@b@c/hs"])
async def test_mongo_bad_url(url: str) -> None:
    with pytest.raises((ConfigurationError, StoreUnavailable)) as caught:
        await MongoStore(url, server_timeout=0.2).open()
    assert "secret" not in str(caught.value)


async def test_mongo_wrong_password(tmp_path: Path) -> None:
    if find_mongod() is None:
        pytest.skip("no mongod runs on this machine")
    mongod = EmbeddedMongod(tmp_path / "data", options=("--auth",))
    await mongod.start()
    try:
        with MongoClient[dict[str, Any]](mongod.url) as client:
            client.admin.command("createUser", "anna", pwd="right", roles=["root"])
        host = mongod.url.partition("://")[2]
        with pytest.raises(StoreUnavailable, match="Authentication failed") as caught:
            await MongoStore(f"mongodb://anna:secret@{host}/hs?authSource=admin").open()
        assert "secret" not in str(caught.value)
        assert "password" in caught.value.hint
        with pytest.raises(StoreUnavailable, match="authentication") as caught:
            await MongoStore(f"mongodb://{host}/hs").open()
        store = MongoStore(f"mongodb://anna:right@{host}/hs?authSource=admin")
        await store.open()
        await store.close()
    finally:
        await mongod.kill()


async def test_mongo_foreign_collection(mongo_url: str) -> None:
    with MongoClient[dict[str, Any]](mongo_url) as client:
        client.get_default_database()["instances"].insert_one({"a": 1})
    with pytest.raises(StoreUnavailable, match="was not made by hs_stream"):
        await MongoStore(mongo_url).open()


async def test_mongo_layout_is_as_promised(mongo_url: str) -> None:
    """People read these collections with their own tools: section 2.6 of the interfaces."""
    store = MongoStore(mongo_url, history_days=1, dead_letter_days=2)
    await store.open()
    await store.register([StreamRecord(7, StreamId.make("smooth", {"house": "1"}), "derived")])
    change = StreamChange(7, TimeIntervals([(MIN_TIME, 5), (10, 20)]), 20, Batch.of([(15, 1.5)]), revisions={15: 2})
    await store.commit(Commit(1, [change], 0, 0, [HistoryEntry(5, "smooth", "t", 0, 1, 1, 1, "late")]))
    await store.append(Append(1, dead_letters=[DeadLetter(9, "mqtt", "not_json", "")]))
    await store.close()
    store = MongoStore(mongo_url, history_days=3, dead_letter_days=2)
    await store.open()
    await store.close()
    with MongoClient[dict[str, Any]](mongo_url, tz_aware=True) as client:
        database = client.get_default_database()
        stream = database["streams"].find_one({"name": "smooth", "meta.house": "1"})
        assert stream is not None
        assert [[b and round(b.timestamp() * 1000) for b in pair] for pair in stream["coverage"]] == [
            [None, 5],
            [10, 20],
        ]
        instance = database["instances"].find_one({"_id.s": 7})
        assert instance is not None
        assert (instance["v"], instance["r"], instance["_id"]["t"].timestamp()) == (1.5, 2, 0.015)
        assert "clusteredIndex" in next(iter(database.list_collections(filter={"name": "instances"})))["options"]
        expires = {
            name: database[name].index_information()["expires"]["expireAfterSeconds"]
            for name in ("history", "dead_letters")
        }
        assert expires == {"history": 3 * 86_400, "dead_letters": 2 * 86_400}


async def test_mongo_read_only_sees_the_truth_and_writes_nothing(mongo_url: str) -> None:
    writer = MongoStore(mongo_url, checkpoint_seconds=3600)
    await writer.open()
    await writer.register([StreamRecord(1, StreamId("a"), "derived")])
    reader = MongoStore(mongo_url, read_only=True)
    await reader.open()
    change = StreamChange(1, TimeIntervals.of(0, 9), 9, Batch.of([(5, 1)]), publish=True)
    await writer.commit(Commit(1, [change], 0, 0, [HistoryEntry(5, "a", "t", 0, 1, 1, 1, "late")]))
    assert (await reader.streams())[0].coverage == TimeIntervals.of(0, 9)
    assert await reader.read(1, 0, 9) == Batch.of([(5, 1)])
    assert await reader.history(5) == []
    for write in (reader.append(Append(1, ROUND)), reader.commit(Commit(2, [], 0, 0)), reader.put("plates", "a", {})):
        with pytest.raises(StoreUnavailable, match="reading only"):
            await write
    await reader.close()
    await writer.close()


async def test_mongo_forgets_what_is_applied_and_published(mongo_url: str) -> None:
    store = MongoStore(mongo_url, checkpoint_seconds=0.01)
    await store.open()
    await store.register([StreamRecord(1, StreamId("a"), "derived")])

    await store.sinks(["sink"])

    async def journal(wanted: int) -> int:
        for _ in range(200):
            found = await store._link.collection("outbox").count_documents({})
            if found == wanted:
                break
            await asyncio.sleep(0.02)
        return found

    for seq in range(1, 6):
        change = StreamChange(1, TimeIntervals.of(0, seq), seq, Batch.of([(seq, 1)]), publish=seq == 3)
        await store.commit(Commit(seq, [change], 0, 0))
    assert await journal(3) == 3, "1 and 2 have nothing to publish; 3 waits, and what comes after it"
    await store.published("sink", 3)
    assert await journal(0) == 0
    await store.close()


@pytest.mark.parametrize("swallowing", [False, True])
async def test_mongo_no_checkpoint_outlives_its_store(
    mongo_url: str, monkeypatch: pytest.MonkeyPatch, swallowing: bool
) -> None:
    """It would delete from the outbox what the next process has yet to publish. PyMongo may swallow a cancellation."""
    under_way, checkpoints = asyncio.Event(), 0

    async def slow(_: Books) -> bool:
        nonlocal checkpoints
        checkpoints += 1
        under_way.set()
        try:
            await asyncio.sleep(0.1 if not swallowing else 60)
        except asyncio.CancelledError:
            if not swallowing:
                raise
        return True

    store = MongoStore(mongo_url, checkpoint_seconds=0.001, server_timeout=0.2 if swallowing else 5)
    await store.open()
    await store.register([StreamRecord(1, StreamId("a"), "derived")])
    monkeypatch.setattr(Books, "checkpoint", slow)
    await store.commit(Commit(1, [StreamChange(1, TimeIntervals.of(0, 9), 9, Batch.of([(5, 1)]))], 0, 0))
    await under_way.wait()
    await store.abandon()
    assert checkpoints == 1
    assert "hs-stream-checkpoint" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_mongo_does_not_have_its_writes_repeated_by_pymongo(tmp_path: Path) -> None:
    """PyMongo would ask a standalone mongod for what only a replica set can do, and mongod's answer sounds final."""
    if find_mongod() is None:
        pytest.skip("no mongod runs on this machine")
    mongod = EmbeddedMongod(tmp_path / "data")
    await mongod.start()
    store = MongoStore(mongod.database_url("hs") + "?retryWrites=true", server_timeout=2)
    seen: list[Exception] = []

    async def writing() -> None:
        while not store._stopping.is_set():
            try:
                await store._writer.write("state", [ReplaceOne({"_id": "x"}, {}, upsert=True)])
            except AutoReconnect as error:
                seen.append(error)
                await asyncio.sleep(0.002)

    try:
        await store.open()
        tasks = [asyncio.create_task(writing()) for _ in range(40)]
        for _ in range(3):
            await asyncio.sleep(0.2)
            await mongod.kill()
            await mongod.start()
        assert not any(task.done() for task in tasks), [task.exception() for task in tasks if task.done()]
        store._stopping.set()
        await asyncio.gather(*tasks)
    finally:
        await store.abandon()
        await mongod.kill()
    assert seen


@pytest.mark.timeout(60)
async def test_mongo_a_server_that_is_away_does_not_hold_up_the_close(tmp_path: Path) -> None:
    """PyMongo takes leave of it first, for as long as it looks for a server: docker kills what takes 10 s to stop."""
    if find_mongod() is None:
        pytest.skip("no mongod runs on this machine")
    mongod = EmbeddedMongod(tmp_path / "data")
    await mongod.start()
    store = MongoStore(mongod.database_url("x"), server_timeout=30.0)
    try:
        await store.open()
    finally:
        await mongod.kill()
    async with asyncio.timeout(15):
        await store.abandon()


async def test_mongo_a_close_that_was_cut_off_is_finished_by_the_next(
    mongo_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MongoStore(mongo_url)
    await store.open()
    closed: list[Any] = []
    close = AsyncMongoClient.close

    async def slow(client: AsyncMongoClient[Any]) -> None:
        await asyncio.sleep(0.05)
        await close(client)
        closed.append(client)

    monkeypatch.setattr(AsyncMongoClient, "close", slow)
    cut = asyncio.create_task(store.abandon())
    await asyncio.sleep(0.01)
    cut.cancel()
    await asyncio.wait({cut})
    assert not closed
    await store.abandon()
    assert len(closed) == 1


async def test_mongo_inserts_what_no_single_command_can_hold(either_url: str) -> None:
    store = MongoStore(either_url)
    await store.open()
    await store.register([StreamRecord(1, StreamId("raw"), "raw")])
    values = [(time, f"{time}" * (5 << 20)) for time in range(1, 6)]
    await store.append(Append(1, [(1, Batch.of(values[1:3]))]))
    await store.append(Append(2, [(1, Batch.of([*values[:1], *values[2:]]))]))
    assert await store.read(1, 0, 9) == Batch.of(values)
    await store.close()


async def test_mongo_forgets_no_more_than_its_checkpoint_says(mongo_url: str) -> None:
    """What is published while a checkpoint is written is in the outbox for who opens after a kill."""
    store = MongoStore(mongo_url, checkpoint_seconds=3600)
    await store.open()
    await store.register([StreamRecord(1, StreamId("a"), "derived")])
    await store.sinks(["sink"])
    change = StreamChange(1, TimeIntervals.of(0, 9), 9, Batch.of([(5, 1)]), publish=True)
    await store.commit(Commit(1, [change], 0, 0))
    original = store._writer.write

    async def write(*arguments: Any, **options: Any) -> None:
        await original(*arguments, **options)
        await store.published("sink", 1)

    store._writer.write = write  # type: ignore[method-assign]
    assert await store._books.checkpoint()
    await store.abandon()
    again = MongoStore(mongo_url)
    recovery = await again.open()
    assert recovery.published == {"sink": 0}
    assert len(await again.outbox(0, 10)) == 1
    await again.close()


async def one_cursor(store: Store) -> None:
    """What the last version left: three commits, of which the first is published."""
    await store.open()
    await store.register([StreamRecord(1, StreamId("a"), "derived")])
    await store.sinks(["old"])
    for seq in range(1, 4):
        change = StreamChange(1, TimeIntervals.of(0, seq), seq, Batch.of([(seq, 1)]), publish=True)
        await store.commit(Commit(seq, [change], 0, 0))
    await store.published("old", 1)
    await store.close()


async def takes_the_cursor_over(store: Store) -> None:
    assert (await store.open()).published == {}
    assert await store.sinks(["mqtt", "file"]) == {"mqtt": 1, "file": 1}
    assert [entry.seq for entry in await store.outbox(0, 9)] == [2, 3]
    await store.close()


async def test_sqlite_of_the_last_version_had_one_cursor(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    await one_cursor(SqliteStore(path))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM state WHERE key LIKE 'sink:%'")
        assert dict(db.execute("SELECT key, value FROM state")) == {"commit": 3, "published": 1, "proven": 0}
    await takes_the_cursor_over(SqliteStore(path))
    # It comes back, and publishes on with its one cursor.
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE state SET value = 3 WHERE key = 'published'")
        db.execute("DELETE FROM outbox")
    again = SqliteStore(path)
    await again.open()
    assert await again.sinks(["mqtt", "file"]) == {"mqtt": 3, "file": 3}
    await again.close()


async def test_mongo_of_the_last_version_had_one_cursor(mongo_url: str) -> None:
    await one_cursor(MongoStore(mongo_url))
    with MongoClient[dict[str, Any]](mongo_url) as client:
        state = client.get_default_database()["state"]
        state.update_one({"_id": "store"}, {"$unset": {"sinks": 1}})
        assert (state.find_one({"_id": "store"}) or {})["published"] == 1
    await takes_the_cursor_over(MongoStore(mongo_url))


async def test_mongo_leaves_no_socket_open_where_nobody_listens() -> None:
    """A warning of the garbage collector fails the test."""
    with closing(socket.socket()) as held:
        held.bind(("127.0.0.1", 0))
        for _ in range(6):
            with pytest.raises(StoreUnavailable):
                await MongoStore(f"mongodb://127.0.0.1:{held.getsockname()[1]}/hs", server_timeout=0.2).open()
            gc.collect()


async def test_what_a_budget_leaves_out_is_not_loaded(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "large.db")
    await store.open()
    await store.register([StreamRecord(1, StreamId("raw"), "raw")])
    letters = [DeadLetter(1, "raw", "json", "no JSON", "t", b"x" * 60_000) for _ in range(100)]
    values = [(time, {"text": f"{time % 10}" * 500_000}) for time in range(1, 21)]
    await store.append(Append(1, inserts=[(1, Batch.of(values))], dead_letters=letters))
    del values, letters
    tracemalloc.start()
    assert len(await store.read(1, MIN_TIME, MAX_TIME, limit=1000, budget=1_000_000)) == 2
    assert len(await store.dead_letters(1000, budget=200_000)) == 4
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000, "and not the 10 MB and 6 MB of all"
    await store.close()
