"""ST-17 to ST-22: a process that was frozen anywhere, for however long, changes nothing once it has a successor.

Two stores over one database are the two processes; what one of them is about to send is held back while the other one
takes over, opens and corrects. Through real processes: `tests/service/test_takeover.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient, monitoring
from pymongo.monitoring import CommandListener, CommandStartedEvent

from hs_stream.core.batch import Batch
from hs_stream.core.errors import Fenced
from hs_stream.core.packing import pack
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME, TimeIntervals
from hs_stream.engine.ports import Append, Commit, Recovery, Store, StreamChange, StreamRecord
from hs_stream.store.mongo import FRESH_MS, MongoStore, right, writer
from hs_stream.store.mongo.keys import Document
from hs_stream.store.mongo.link import Link
from hs_stream.store.sqlite import SqliteStore
from hs_stream.testing.check_store import entries_of

RAW, OUT = 1, 2
LONG = 600_000


def change(value: Any, *, revised: bool = False, retract: bool = False) -> StreamChange:
    """Of the instance at 5 of ``OUT``."""
    batch = Batch.of([(5, value)])
    what: dict[str, Any] = {"revised": batch} if revised else {"retracted": [5]} if retract else {"inserted": batch}
    revisions = {5: 1} if revised or retract else {}
    return StreamChange(OUT, TimeIntervals.of(0, 9), 9, revisions=revisions, publish=True, **what)


async def began(store: Store, owner: str = "first", instead_of: str = "") -> Recovery:
    held = await store.claim(owner, LONG, instead_of=instead_of)
    assert held.owner == owner
    recovery = await store.open()
    if not await store.streams():
        await store.register([StreamRecord(RAW, StreamId("raw"), "raw"), StreamRecord(OUT, StreamId("out"), "derived")])
    return recovery


class Held:
    """Holds a MongoDB store back before its ``at``-th write to a collection from `arm` on.

    On a replica set that is inside of the transaction, or before the command that looks at the guard; on a standalone
    server before the last look at the lease.
    """

    def __init__(self, store: MongoStore, name: str = "") -> None:
        self._left = -1
        self._name = name
        self.reached, self.go = asyncio.Event(), asyncio.Event()
        its: Any = store._writer
        for method in ("insert", "write", "delete"):
            setattr(its, method, self._holding(getattr(its, method)))

    def _holding(self, call: Callable[..., Any]) -> Callable[..., Any]:
        async def held(name: str, *args: Any, **kwargs: Any) -> Any:
            if self._left >= 0 and name == self._name:
                self._left -= 1
                if self._left < 0:
                    self.reached.set()
                    await self.go.wait()
            return await call(name, *args, **kwargs)

        return held

    def arm(self, name: str, at: int = 0) -> None:
        self._name, self._left = name, at


@contextlib.asynccontextmanager
async def frozen(held: Held, write: Any) -> AsyncIterator[asyncio.Task[None]]:
    """``write`` is under way and held back inside; it goes on after the block, and must be `Fenced`."""
    task = asyncio.create_task(write)
    await asyncio.wait((task, asyncio.create_task(held.reached.wait())), return_when=asyncio.FIRST_COMPLETED)
    assert held.reached.is_set(), task.exception()
    await asyncio.sleep(1.5 * FRESH_MS / 1000)
    yield task
    held.go.set()
    with pytest.raises(Fenced):
        await task


@pytest.fixture(params=["sqlite", "mongo", "replica"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Any]:
    if request.param == "sqlite":
        return lambda: SqliteStore(tmp_path / "store.db")
    url = request.getfixturevalue(f"{request.param}_url")
    return lambda: MongoStore(url, checkpoint_seconds=3600)


@pytest.fixture(params=["mongo", "replica", "members"])
def mongo(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], MongoStore]:
    """``members``: as on a replica set of several, which has transactions only."""
    if request.param == "members":
        monkeypatch.setattr(Link, "_heard", lambda *_: None)
    url = request.getfixturevalue("mongo_url" if request.param == "mongo" else "replica_url")
    return lambda: MongoStore(url, checkpoint_seconds=3600)


async def contents(store: Store, stream: int) -> dict[int, Any]:
    return dict(await store.read(stream, MIN_TIME, MAX_TIME))


async def test_two_writers_of_one_seq(make: Callable[[], Any]) -> None:
    """ST-19: the second one's entry is never lost without a word."""
    first, second = make(), make()
    seq = (await began(first)).commit_seq + 1
    await second.open()
    await second.commit(Commit(seq, [change("second")], 0, 0))
    with pytest.raises(Fenced):
        await first.commit(Commit(seq, [change("first")], 0, 0))
    with pytest.raises(Fenced):
        await first.commit(Commit(seq + 1, [change("first")], 0, 0))
    await second.close()
    await first.close()
    await second.open()
    assert await contents(second, OUT) == {5: "second"}
    assert entries_of(await second.outbox(0, 9)) == [[seq, OUT, [[5, "insert", "second", 0]]]]
    await second.close()


async def test_the_same_commit_once_more_is_no_other_writer(mongo: Callable[[], MongoStore]) -> None:
    """ST-19: an answer that was lost."""
    store = mongo()
    made = Commit((await began(store)).commit_seq + 1, [change("once")], 0, 0)
    await store._right.write("commit", lambda: store._applier._write_journal(made), sync=True)
    await store.commit(made)
    assert await contents(store, OUT) == {5: "once"}
    await store.close()


@pytest.mark.parametrize("retract", [False, True])
async def test_frozen_between_journal_and_application(mongo: Callable[[], MongoStore], retract: bool) -> None:
    first, second = mongo(), mongo()
    seq = (await began(first)).commit_seq + 1
    held = Held(first)
    held.arm("instances")
    async with frozen(held, first.commit(Commit(seq, [change("old")], 0, 0))):
        recovery = await began(second, "second", "first")
        redone = await contents(second, OUT)
        alone = second._link.guards or not second._link.transactions
        assert redone == ({5: "old"} if alone else {}), "what was journaled is redone"
        if redone or not retract:
            correction = change("new", revised=bool(redone) and not retract, retract=retract)
            await second.commit(Commit(recovery.commit_seq + 1, [correction], 0, 0))
        told = entries_of(await second.outbox(0, 9))
    assert await contents(second, OUT) == ({} if retract else {5: "new"})
    assert entries_of(await second.outbox(0, 9)) == told
    await first.close()
    await second.close()


async def test_frozen_before_the_journal(mongo: Callable[[], MongoStore]) -> None:
    """ST-19: the takeover has the ``seq`` that the one before was about to use."""
    first, second = mongo(), mongo()
    seq = (await began(first)).commit_seq + 1
    held = Held(first)
    held.arm("outbox")
    async with frozen(held, first.commit(Commit(seq, [change("old")], 0, 0))):
        assert (await began(second, "second", "first")).commit_seq == seq
        await second.close()
        await second.open()
    assert await contents(second, OUT) == {}
    await first.close()
    await second.close()


@pytest.mark.parametrize("at", ["marks", "instances"])
async def test_frozen_inside_of_an_append(mongo: Callable[[], MongoStore], at: str) -> None:
    first, second = mongo(), mongo()
    await began(first)
    await first.append(Append(1, [(RAW, Batch.of([(1, "a")]))]))
    held = Held(first)
    held.arm(at)
    late = TimeIntervals.of(0, 1)
    spans = {RAW: late}
    async with frozen(held, first.append(Append(2, (), [(RAW, Batch.of([(1, "old"), (2, "old")]))], spans))):
        recovery = await began(second, "second", "first")
        await second.append(Append(recovery.append_seq + 1, (), [(RAW, Batch.of([(1, "new")]))], spans))
    assert await contents(second, RAW) == {1: "new"}
    await second.abandon()
    assert (await second.open()).changed == spans
    await first.close()
    await second.close()


async def test_frozen_inside_of_a_purge(mongo: Callable[[], MongoStore]) -> None:
    first, second = mongo(), mongo()
    await began(first)
    await first.append(Append(1, [(RAW, Batch.of([(1, "a")]))]))
    held = Held(first)
    held.arm("instances")
    async with frozen(held, first.append(Append(2, purged={RAW: TimeIntervals.of(0, 9)}))):
        await began(second, "second", "first")
    assert await contents(second, RAW) == {1: "a"}
    await first.close()
    await second.close()


async def test_frozen_inside_of_a_checkpoint(mongo: Callable[[], MongoStore]) -> None:
    """The state document of the successor is not set back."""
    first, second = mongo(), mongo()
    await first.commit(Commit((await began(first)).commit_seq + 1, [change("old")], 0, 0))
    held = Held(first)
    held.arm("streams")
    async with frozen(held, first.close()):
        recovery = await began(second, "second", "first")
        await second.commit(Commit(recovery.commit_seq + 1, [change("new", revised=True)], 0, 0))
        await second.close()
    assert (await second.open()).commit_seq == recovery.commit_seq + 1
    await second.close()


async def test_an_sqlite_writer_frozen_before_its_transaction(tmp_path: Path) -> None:
    """Its thread has passed every check but that of the transaction itself."""
    first, second = SqliteStore(tmp_path / "store.db"), SqliteStore(tmp_path / "store.db")
    await began(first)
    await first.append(Append(1, [(RAW, Batch.of([(1, "a")]))]))
    await began(second, "second", "first")
    await second.append(Append(2, (), [(RAW, Batch.of([(1, "new")]))]))
    for write in (
        first.append(Append(2, (), [(RAW, Batch.of([(1, "old")]))])),
        first.append(Append(3, (), [(RAW, Batch.of([(1, "old")]))])),
        first.commit(Commit(1, [change("old")], 0, 0)),
    ):
        with pytest.raises(Fenced, match=r"has taken over the SQLite database .*store\.db"):
            await write
    await first.close()
    assert await contents(second, RAW) == {1: "new"}
    assert await contents(second, OUT) == {}
    await second.close()


async def test_a_clock_that_is_ahead_takes_nothing(make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """ST-18: the right runs out by the clock of the store."""
    first, second = make(), make()
    mine = await first.claim("first", LONG)
    ahead = time.time_ns() + 10 * LONG * 1_000_000
    monkeypatch.setattr(time, "time_ns", lambda: ahead)
    monkeypatch.setattr(time, "time", lambda: ahead / 1e9)
    assert await second.claim("second", LONG) == mine
    monkeypatch.undo()
    assert (await first.claim("first", 0)).owner == "first"
    assert (await second.claim("second", LONG)).token == mine.token + 1
    await first.close()
    await second.close()


async def test_a_lease_that_was_written_on_another_boot_runs_out_by_the_time_of_day(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    await store.claim("first", 60_000)
    with contextlib.closing(sqlite3.connect(tmp_path / "store.db")) as db:
        for until, owner in ((time.time_ns() // 1_000_000 + 60_000, "first"), (1, "second")):
            lease = pack(["first", until, "another boot", 1 << 60])
            db.execute("INSERT OR REPLACE INTO documents VALUES ('lease', 'store', ?)", (lease,))
            db.commit()
            assert (await store.claim("second", 60_000)).owner == owner
    await store.close()


async def test_an_sqlite_lease_of_the_last_version(tmp_path: Path) -> None:
    """ST-22."""
    store = SqliteStore(tmp_path / "store.db")
    await store.open()
    await store.close()
    now = time.time_ns() // 1_000_000
    with contextlib.closing(sqlite3.connect(tmp_path / "store.db")) as db:
        db.execute("DELETE FROM state WHERE key = 'fence'")
        db.execute("INSERT INTO documents VALUES ('lease', 'store', ?)", (pack(["first", now + 60_000]),))
        db.commit()
    assert (await store.claim("second", LONG)).owner == "first"
    await began(store, "second", "first")
    await store.commit(Commit(1, [change("new")], 0, 0))
    await store.close()


@pytest.mark.parametrize("url", ["mongo_url", "replica_url"])
async def test_a_mongodb_lease_of_the_last_version(request: pytest.FixtureRequest, url: str) -> None:
    """ST-22: by its clock, without a token, and 0 where it was given back."""
    address = request.getfixturevalue(url)
    store = MongoStore(address)
    now = time.time_ns() // 1_000_000
    with MongoClient[dict[str, Any]](address) as client:
        state = client.get_default_database()["state"]
        for until in (now + 60_000, 0, now - 1):
            state.replace_one({"_id": "lease"}, {"owner": "first", "until": until}, upsert=True)
            held = await store.claim(f"second {until}", 1)
            assert held.owner == ("first" if until > now else f"second {until}")
        state.replace_one({"_id": "lease"}, {"owner": "first", "until": 0})
    await began(store, "second")
    await store.commit(Commit((await store.open()).commit_seq + 1, [change("new")], 0, 0))
    await store.close()


# --- guarded commands, on a replica set ---


@pytest.fixture
def replica(replica_url: str) -> Callable[[], MongoStore]:
    return lambda: MongoStore(replica_url, checkpoint_seconds=3600)


class Spoken(CommandListener):
    """The commands that were sent."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.names.append(event.command_name)

    def succeeded(self, event: object) -> None: ...

    def failed(self, event: object) -> None: ...


@pytest.fixture
def spoken() -> Iterator[Spoken]:
    """By all clients that are made from here on."""
    listener = Spoken()
    monitoring.register(listener)
    yield listener
    monitoring._LISTENERS.command_listeners.remove(listener)


def slow(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """A guarded command of this process stays in the server between its look at the guard and its write."""
    pipeline = writer.guarded

    def guarded(*args: Any) -> list[Document]:
        sleep = {"body": f"function() {{ sleep({seconds * 1000}); return true; }}", "args": [], "lang": "js"}
        return [*pipeline(*args), {"$match": {"$expr": {"$function": sleep}}}]

    monkeypatch.setattr(writer, "guarded", guarded)


async def under_way(url: str) -> None:
    """Return when the server carries out a slow command."""
    with MongoClient[dict[str, Any]](url) as client:
        while not list(client.admin.aggregate([{"$currentOp": {}}, {"$match": {"command.aggregate": "state"}}])):
            await asyncio.sleep(0.01)


async def test_small_writes_are_one_command_each(spoken: Spoken, replica: Callable[[], MongoStore]) -> None:
    """ST-9: a reading costs one durable round trip, a result two of which one is durable."""
    store = replica()
    seq = (await began(store)).commit_seq + 1
    await store.commit(Commit(seq, [], 0, 0))
    for write, commands in (
        (store.append(Append(1, [(RAW, Batch.of([(1, "a")]))])), 1),
        (store.append(Append(2, (), [(RAW, Batch.of([(1, "b")]))], {RAW: TimeIntervals.of(0, 1)})), 2),
        (store.commit(Commit(seq + 1, [change("new")], 0, 0)), 2),
        (store.commit(Commit(seq + 2, [change("newer", revised=True)], 0, 0)), 2),
    ):
        spoken.names.clear()
        await write
        assert spoken.names == ["aggregate"] * commands
    assert (await contents(store, RAW), await contents(store, OUT)) == ({1: "b"}, {5: "newer"})
    assert await store.revisions(OUT, [5]) == {5: 1}
    await store.close()


async def test_with_another_electable_member_it_is_a_transaction(
    spoken: Spoken, replica: Callable[[], MongoStore]
) -> None:
    """A command may outlive that its server is primary, and be there still when it is primary again."""
    store = replica()
    await began(store)
    store._link._heard({"setName": "hs", "hosts": ["a:1", "b:1"]})
    spoken.names.clear()
    await store.append(Append(1, [(RAW, Batch.of([(1, "a")]))]))
    assert spoken.names == ["update", "insert", "commitTransaction"]
    await store.close()


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("append", [True, False])
async def test_a_command_that_the_server_has_not_ended_changes_nothing_after_the_claim(
    replica_url: str, replica: Callable[[], MongoStore], monkeypatch: pytest.MonkeyPatch, append: bool, ends: bool
) -> None:
    """ST-17: it had looked at the token before. ``ends``: the server lets the claim end it."""
    first, second = replica(), replica()
    seq = (await began(first)).commit_seq + 1
    with monkeypatch.context() as patch:
        slow(patch, 1.0)
        old = Append(1, [(RAW, Batch.of([(1, "old")]))])
        task = asyncio.create_task(first.append(old) if append else first.commit(Commit(seq, [change("old")], 0, 0)))
        await under_way(replica_url)

    async def nothing(_: object) -> None: ...

    if not ends:
        monkeypatch.setattr(second._writer, "end_sessions", nothing)
    await began(second, "second", "first")
    found = [await contents(second, RAW), await contents(second, OUT)]
    with contextlib.suppress(Fenced):
        await task
        assert any(found), "it was done before the claim was answered, or not at all"
    assert [await contents(second, RAW), await contents(second, OUT)] == found
    await first.abandon()
    await second.close()


async def test_a_transaction_that_begins_during_a_claim_does_not_hold_it_up(
    replica: Callable[[], MongoStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a process that goes on for a moment, and is frozen again: the server would wait for it for a minute."""
    first, second = replica(), replica()
    await began(first)
    await first.append(Append(1, [(RAW, Batch.of([(1, "a")]))]))
    held = Held(first)
    held.arm("instances")
    end_sessions = second._writer.end_sessions
    tasks: list[asyncio.Task[None]] = []

    async def and_then_it_goes_on(ids: Sequence[Any]) -> None:
        await end_sessions(ids)
        if not tasks:
            tasks.append(asyncio.create_task(first.append(Append(2, purged={RAW: TimeIntervals.of(0, 9)}))))
            await held.reached.wait()

    monkeypatch.setattr(second._writer, "end_sessions", and_then_it_goes_on)
    async with asyncio.timeout(30):
        await began(second, "second", "first")
    held.go.set()
    with pytest.raises(Fenced):
        await tasks[0]
    assert await contents(second, RAW) == {1: "a"}
    await first.close()
    await second.close()


async def test_what_the_server_has_not_answered_is_ended_before_the_next_write(
    replica_url: str, replica: Callable[[], MongoStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be carried out after it: here, it would insert again what was purged."""
    store = replica()
    await began(store)
    with monkeypatch.context() as patch:
        slow(patch, 1.0)
        task = asyncio.create_task(store.append(Append(1, [(RAW, Batch.of([(1, "old")]))])))
        await under_way(replica_url)
        task.cancel()
        await asyncio.wait({task})
    await store.append(Append(1, purged={RAW: TimeIntervals.of(0, 9)}))
    with MongoClient[dict[str, Any]](replica_url) as client:
        while list(client.admin.aggregate([{"$currentOp": {}}, {"$match": {"command.aggregate": "state"}}])):
            await asyncio.sleep(0.01)
    assert await contents(store, RAW) == {}
    await store.close()


async def test_without_its_guard_a_write_is_refused(replica: Callable[[], MongoStore]) -> None:
    """A dropped database."""
    store = replica()
    await began(store)
    await store._link.database.client.drop_database(store._link.database.name)
    with pytest.raises(Fenced):
        await store.append(Append(1, [(RAW, Batch.of([(1, "a")]))]))
    await store.close()


async def test_what_another_user_sent_is_waited_for(
    replica_url: str, replica: Callable[[], MongoStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """We cannot see it, and the server gives it up in time."""
    waited: list[float] = []

    async def left(*_: object) -> bool:
        return False

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    store = replica()
    monkeypatch.setattr(store._writer, "left", left)
    monkeypatch.setattr(right, "sleep", sleep)
    with MongoClient[dict[str, Any]](replica_url) as client:
        sessions = {"_id": "sessions", "ids": [], "users": ["another"]}
        client.get_default_database()["state"].insert_one(sessions)
    await store.claim("first", LONG)
    assert waited == [writer.LONGEST_MS / 1000]
    await store.open()
    assert len(waited) == 1
    await store.close()
