"""Rules 1 to 3 of the port across kills of the process, at random moments and at each chosen one, and of mongod itself.

This file is also the program that gets killed: ``python test_store_crash.py URL``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from hs_stream.core.batch import Batch
from hs_stream.core.errors import StoreUnavailable
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME, TimeIntervals, to_ms
from hs_stream.engine.ports import Append, Commit, HistoryEntry, Recovery, Snapshot, Store, StreamChange, StreamRecord
from hs_stream.service.embedded.mongod import EmbeddedMongod
from hs_stream.store.mongo import MongoStore
from hs_stream.store.open import open_store
from hs_stream.testing.check_store import entries_of
from hs_stream.testing.faults import Crash, FaultyStore, When

RAW, LEFT, RIGHT = 1, 2, 3
FAR = to_ms(datetime(2100, 1, 1, tzinfo=UTC))  # mongod deletes, once a minute, history that is older than 90 days


def late(i: int) -> int:
    return i * 10 - 15


def readings(seq: int, i: int) -> Append:
    """Round ``i``: one reading in order, and in every third round one that is late."""
    inserts = [(RAW, Batch.of([(i * 10, i)]))]
    if i % 3:
        return Append(seq, inserts)
    return Append(seq, inserts, [(RAW, Batch.of([(late(i), -i)]))], {RAW: TimeIntervals.points([late(i)])})


def step(i: int, consumed: int) -> Commit:
    """Round ``i``: insert at i, revise i - 1 in both streams, retract i - 3 in one."""
    coverage = TimeIntervals.of(0, i)
    changes = []
    for stream in (LEFT, RIGHT):
        retracted = [i - 3] if stream == RIGHT and i > 3 else []
        revised = Batch.of([(i - 1, f"revised {i}")] if i > 1 else [])
        revisions = dict.fromkeys([i - 1], 1) if i > 1 else {}
        revisions |= dict.fromkeys(retracted, 2)
        changes.append(
            StreamChange(stream, coverage, i, Batch.of([(i, float(i))]), revised, retracted, revisions,
                         snapshots=[Snapshot(i, {"i": i})], snapshots_dropped=TimeIntervals.of(0, i - 2),
                         publish=stream == LEFT)
        )  # fmt: skip
    return Commit(i, changes, consumed, i, [HistoryEntry(FAR + i, "left", "t@1", 0, i, 1, 1, "arrival")])


def derived(stream: int, k: int) -> dict[int, object]:
    """The contents of a derived stream after commit ``k``."""
    contents: dict[int, object] = {i: f"revised {i + 1}" for i in range(1, k)}
    if k:
        contents[k] = float(k)
    return {t: v for t, v in contents.items() if stream == LEFT or t > k - 3}


async def begin(store: Store) -> tuple[Recovery, int]:
    recovery = await store.open()
    known = {record.id for record in await store.streams()}
    kinds = {RAW: "raw", LEFT: "derived", RIGHT: "derived"}
    new = [StreamRecord(s, StreamId(f"s{s}"), kind) for s, kind in kinds.items() if s not in known]  # type: ignore[arg-type]
    await store.register(new)
    await store.sinks(["sink"])
    return recovery, recovery.commit_seq + 1


async def work(store: Store, report: Callable[[str], None], rounds: int = 1_000_000) -> None:
    recovery, i = await begin(store)
    seq = recovery.append_seq
    for i in range(i, i + rounds):  # noqa: B020 - it goes on from there
        seq += 1
        await store.append(readings(seq, i))
        report(f"a {i}")
        await store.commit(step(i, seq - 1))
        report(f"c {i}")
        if i % 10 == 0:
            await store.published("sink", i - 5)


async def check(store: Store, acked: dict[str, int]) -> int:
    """Everything that must hold after a crash; the last commit that is there."""
    recovery = await store.open()
    k = recovery.commit_seq
    assert acked["c"] <= k <= acked["c"] + 1
    records = {record.id: record for record in await store.streams()}
    for stream in (LEFT, RIGHT):
        assert await store.read(stream, MIN_TIME, MAX_TIME) == Batch.of(derived(stream, k).items())
        if k:
            assert (records[stream].coverage, records[stream].upper) == (TimeIntervals.of(0, k), k)
            assert await store.snapshots(stream, 0, k, limit=9) == [
                Snapshot(i, {"i": i}) for i in range(max(k - 1, 1), k + 1)
            ]
    gone = list(range(1, k - 2))
    assert await store.revisions(RIGHT, range(1, k + 1)) == dict.fromkeys(gone, 2) | dict.fromkeys(
        range(max(k - 2, 1), k), 1
    )
    published = recovery.published.get("sink", 0)
    outbox = entries_of(await store.outbox(published, 10**6))
    assert [entry[0] for entry in outbox] == list(range(published + 1, k + 1))
    assert published <= k
    if outbox and k > 1:
        assert outbox[-1][2] == [[k - 1, "revise", f"revised {k}", 1], [k, "insert", float(k), 0]]
    assert [entry.time - FAR for entry in await store.history(10**6)] == list(range(k, 0, -1))
    present = set((await store.read(RAW, MIN_TIME, MAX_TIME)).times.tolist())
    durable = {i * 10 for i in range(1, acked["a"] + 1)} | {late(i) for i in range(3, acked["a"] + 1, 3)}
    assert durable <= present <= durable | {(acked["a"] + 1) * 10, late(acked["a"] + 1)}
    # Commit k consumed what was appended before its own round: only rounds k and k + 1 may (if late: must) be marked.
    marks = recovery.changed.get(RAW, TimeIntervals())
    possible = TimeIntervals.points([late(i) for i in (k, k + 1) if i and i % 3 == 0])
    assert marks in possible
    for i in (k, k + 1):
        if i and i % 3 == 0 and late(i) in present:
            assert late(i) in marks
    return k


def killed(url: str, pause: float) -> dict[str, int]:
    """Run this file against ``url`` and kill it ``pause`` seconds after its first answer: what it had reported until
    then."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, __file__, url], stdout=subprocess.PIPE, text=True, env=environment
    ) as program:
        assert program.stdout is not None
        lines = [program.stdout.readline()]
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(pause)
        assert program.poll() is None, "the program ended by itself"
        program.send_signal(signal.SIGKILL)
        lines += program.stdout.readlines()
    acked = {"a": 0, "c": 0}
    for line in lines:
        if line.endswith("\n"):
            kind, number = line.split()
            acked[kind] = int(number)
    return acked


async def kill_and_check(url: str, seed: int, times: int) -> None:
    dice, k = random.Random(seed), 0
    for _ in range(times):
        acked = await asyncio.to_thread(killed, url, dice.uniform(0.05, 0.5))
        # What was acknowledged in an earlier life counts too.
        acked = {kind: max(number, k) for kind, number in acked.items()}
        async with closing(open_store(url)) as store:
            before, k = k, await check(store, acked)
            assert k > before


async def test_sqlite_survives_kills(tmp_path: Path) -> None:
    await kill_and_check(f"sqlite:///{tmp_path}/store.db", seed=1, times=3)


async def test_mongo_survives_kills(mongo_url: str) -> None:
    await kill_and_check(mongo_url, seed=2, times=3)


CRASHES: list[When] = ["before", "after"]
INSIDE: list[When] = ["marked", "journaled", "applied"]


@pytest.mark.parametrize("at", range(2, 13, 2))
@pytest.mark.parametrize("when", CRASHES)
async def test_crash_between_any_two_writes(factory: Callable[[], Store], at: int, when: When) -> None:
    await crash_once(factory, at, when)


async def test_mongo_transactions_survive_kills(replica_url: str) -> None:
    await kill_and_check(replica_url, seed=3, times=2)


@pytest.mark.parametrize("at", range(2, 12, 3))
@pytest.mark.parametrize("when", INSIDE)
async def test_crash_inside_of_a_write(either_url: str, at: int, when: When) -> None:
    # On a replica set, what retracts is a transaction.
    await crash_once(
        lambda: MongoStore(either_url, checkpoint_seconds=3600),
        at,
        when,
        journal_decides="replicaSet" not in either_url,
    )


@contextlib.asynccontextmanager
async def closing(store: Store) -> AsyncIterator[Store]:
    """The store, closed whatever happens: what a failed test leaves open fails the tests after it."""
    try:
        yield store
    finally:
        await store.close()


async def crash_once(factory: Callable[[], Store], at: int, when: When, *, journal_decides: bool = True) -> None:
    acked = {"a": 0, "c": 0}

    def report(line: str) -> None:
        kind, number = line.split()
        acked[kind] = int(number)

    with pytest.raises(Crash):
        await work(FaultyStore(factory(), at, when), report)
    async with closing(factory()) as store:
        k = await check(store, acked)
        if when == "applied" or (when == "journaled" and journal_decides):
            assert k == acked["c"] + 1, "the journal is the commit point"
        await work(store, report, rounds=5)
    async with closing(factory()) as store:
        assert await check(store, acked) == k + 5


async def test_incomplete_journal_entry_is_dropped(either_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hs_stream.store.mongo.journal.PART_BYTES", 16)
    store = MongoStore(either_url, checkpoint_seconds=3600)
    await work(store, lambda _: None, rounds=3)
    await store._link.collection("outbox", sync=True).delete_one({"_id": {"q": 3, "i": 2}})
    assert await store._link.collection("outbox").count_documents({"_id.q": 3}) > 2
    await store.abandon()
    recovery = await store.open()
    assert recovery.commit_seq == 2
    assert await store._link.collection("outbox").count_documents({"_id.q": 3}) == 0
    assert len(await store.outbox(0, 10)) == 2, "entries of many parts come back whole"
    await store.close()


async def test_large_commit_and_large_values(either_url: str) -> None:
    """Neither a commit nor a value nor a snapshot of more than 16 MB breaks anything."""
    store = MongoStore(either_url, checkpoint_seconds=3600)
    await begin(store)
    text, other = "x" * 17_000_000, {"list": [1.5] * 1_600_000}
    await store.append(Append(1, [(RAW, Batch.of([(1, text), (2, 2.0)]))], [(RAW, Batch.of([(3, other)]))]))
    change = StreamChange(
        LEFT, TimeIntervals.of(0, 9), 9, Batch.of([(1, text), (2, 1)]), snapshots=[Snapshot(1, text)], publish=True
    )
    await store.commit(Commit(1, [change], 1, 0))
    revise = StreamChange(LEFT, TimeIntervals.of(0, 9), 9, revised=Batch.of([(2, text)]), revisions={2: 1})
    await store.commit(Commit(2, [revise], 1, 0))
    await store.abandon()
    await store.open()
    assert await store.read(RAW, 0, 9) == Batch.of([(1, text), (2, 2.0), (3, other)])
    assert await store.read(LEFT, 0, 9) == Batch.of([(1, text), (2, text)])
    assert await store.snapshot(LEFT, 9) == Snapshot(1, text)
    assert [change.value for change in (await store.outbox(0, 9))[0].changes] == [text, 1]
    await store.close()


async def test_purge_of_a_raw_stream_is_never_redone_over_a_later_append(either_url: str) -> None:
    store = MongoStore(either_url, checkpoint_seconds=3600)
    await begin(store)
    await store.append(readings(1, 1))
    await store.commit(Commit(1, [StreamChange(RAW, TimeIntervals(), None, retracted=[10])], 1, 0))
    await store.append(Append(2, [(RAW, Batch.of([(10, "again")]))]))
    await store.abandon()
    await store.open()
    assert await store.read(RAW, 0, 100) == Batch.of([(10, "again")])
    await store.close()


@pytest.mark.parametrize("replica_set", [None, "hs"])
async def test_mongod_killed_and_restarted(tmp_path: Path, replica_set: str | None) -> None:
    """The service goes on by itself: what failed is tried again until mongod answers."""
    mongod, dice = EmbeddedMongod(tmp_path / "data", replica_set=replica_set), random.Random(3)
    await mongod.start()
    acked = {"a": 0, "c": 0}
    store = MongoStore(mongod.database_url("crash"), server_timeout=0.3, checkpoint_seconds=0.05)
    try:
        _, i = await begin(store)
        for _ in range(2):
            kill = asyncio.create_task(kill_later(mongod, dice.uniform(0.05, 0.4)))
            failed = False
            while not (failed and mongod.pid):
                for write in (partial(store.append, readings(i, i)), partial(store.commit, step(i, i - 1))):
                    while True:
                        try:
                            await write()
                            break
                        except StoreUnavailable:
                            failed = True
                            if kill.done() and not mongod.pid:
                                await mongod.start()
                acked = {"a": i, "c": i}
                i += 1
            await kill
        await store.abandon()
        store = MongoStore(mongod.database_url("crash"))
        assert await check(store, acked) == acked["c"] > 0
    finally:
        await store.abandon()
        await mongod.kill()


async def test_mongod_restarted_behind_our_back(tmp_path: Path) -> None:
    """Nothing fails, PyMongo just reconnects; what the killed mongod had acknowledged only in memory is redone."""
    mongod = EmbeddedMongod(tmp_path / "data", options=("--syncdelay", "0", "--journalCommitInterval", "500"))
    await mongod.start()
    store = MongoStore(mongod.database_url("crash"), checkpoint_seconds=3600)
    try:
        await work(store, lambda _: None, rounds=12)
        for stream in (LEFT, RIGHT):
            await mongod.kill()
            await mongod.start()
            assert await store.read(stream, MIN_TIME, MAX_TIME) == Batch.of(derived(stream, 12).items())
            assert await store.revisions(RIGHT, [9, 10, 11]) == {9: 2, 10: 1, 11: 1}
            assert await store.snapshot(stream, 99) == Snapshot(12, {"i": 12})
        await mongod.kill()
        await mongod.start()
        await store.close()
        assert await check(store, {"a": 12, "c": 12}) == 12
    finally:
        await store.abandon()
        await mongod.kill()


async def kill_later(mongod: EmbeddedMongod, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await mongod.kill()


if __name__ == "__main__":
    asyncio.run(work(open_store(sys.argv[1]), lambda line: print(line, flush=True)))
