"""Random histories of appends, commits, restarts and crashes against every store and a plain dict."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo import MongoClient

from hs_stream.core.batch import Batch
from hs_stream.core.packing import pack, unpack
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME, TimeInterval, TimeIntervals
from hs_stream.core.value import same
from hs_stream.engine.ports import Append, Commit, Recovery, Snapshot, Store, StreamChange, StreamRecord
from hs_stream.service.embedded.mongod import EmbeddedMongod
from hs_stream.store.memory import MemoryStore
from hs_stream.store.mongo import MongoStore
from hs_stream.store.sqlite import SqliteStore
from hs_stream.testing.check_store import entries_of

RAW, DERIVED = 1, 2
TIMES = st.integers(-6, 20)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats()
    | st.text(max_size=4)
    | st.binary(max_size=4)
    | st.builds(TimeInterval, st.integers(-5, 0) | st.just(MIN_TIME), st.integers(1, 9) | st.just(MAX_TIME))
)
KEYS = st.sampled_from(["a", "a.b", "$a", "_hs", "_hs_hs", ""])
VALUES = (
    SCALARS
    | st.lists(SCALARS, max_size=2)
    | st.dictionaries(KEYS, SCALARS | st.dictionaries(KEYS, SCALARS, max_size=2), max_size=2)
)
CONTENTS = st.dictionaries(TIMES, VALUES, max_size=5)
INTERVALS = st.lists(st.tuples(TIMES, st.integers(1, 5)), max_size=3).map(
    lambda found: TimeIntervals((start, start + width) for start, width in found)
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), CONTENTS, INTERVALS),
        st.tuples(st.just("append"), CONTENTS, INTERVALS, INTERVALS),
        st.tuples(st.just("commit"), st.dictionaries(TIMES, VALUES | st.just(...), max_size=6), INTERVALS,
                  st.dictionaries(TIMES, SCALARS, max_size=2), st.booleans(), st.integers(0, 2)),
        st.tuples(st.just("publish"), st.integers(0, 3)),
        st.sampled_from([("restart",), ("crash",), ("repeat",)]),
    ),
    max_size=12,
)  # fmt: skip


class Model:
    """What the store should hold, as plain as can be; and the engine's part: it builds appends and commits."""

    def __init__(self) -> None:
        self.raw: dict[int, Any] = {}
        self.derived: dict[int, Any] = {}
        self.revisions: dict[int, int] = {}
        self.snapshots: dict[int, Any] = {}
        self.marks: dict[int, TimeIntervals] = {}
        self.outbox: dict[int, list[Any]] = {}
        self.coverage = TimeIntervals()
        self.append_seq = self.commit_seq = self.published = 0

    def append(self, contents: dict[int, Any], changed: TimeIntervals, purged: TimeIntervals | None = None) -> Append:
        self.append_seq += 1
        self.raw = {t: v for t, v in self.raw.items() if purged is None or t not in purged}
        newest = max(self.raw, default=MIN_TIME)
        new = {t: v for t, v in contents.items() if t > newest}
        old = {t: v for t, v in contents.items() if t <= newest}
        self.raw |= contents
        if changed:
            self.marks[self.append_seq] = changed
        return Append(
            self.append_seq,
            [(RAW, Batch.of(new.items()))],
            [(RAW, Batch.of(old.items()))],
            {RAW: changed} if changed else {},
            purged={} if purged is None else {RAW: purged},
        )

    def commit(
        self, wanted: dict[int, Any], coverage: TimeIntervals, snapshots: dict[int, Any], publish: bool, lag: int
    ) -> Commit:
        self.commit_seq += 1
        retracted = [t for t, v in wanted.items() if v is ... and t in self.derived]
        revised = {t: v for t, v in wanted.items() if v is not ... and t in self.derived}
        inserted = {t: v for t, v in wanted.items() if v is not ... and t not in self.derived}
        fresh = all(t > max(self.derived, default=MIN_TIME) and t not in self.revisions for t in inserted)
        bumped = {*retracted, *revised, *(t for t in inserted if t in self.revisions)}
        revisions = {t: self.revisions.get(t, 0) + 1 for t in bumped}
        self.revisions |= revisions
        self.derived = {t: v for t, v in (self.derived | inserted | revised).items() if t not in retracted}
        self.snapshots = {t: v for t, v in self.snapshots.items() if t not in coverage} | snapshots
        self.coverage = coverage
        consumed = max(self.append_seq - lag, 0)
        self.marks = {seq: mark for seq, mark in self.marks.items() if seq > consumed}
        changes = [[t, "insert", v, revisions.get(t, 0)] for t, v in inserted.items()]
        changes += [[t, "revise", v, revisions[t]] for t, v in revised.items()]
        changes += [[t, "retract", None, revisions[t]] for t in retracted]
        if publish and changes:
            self.outbox[self.commit_seq] = [self.commit_seq, DERIVED, sorted(changes, key=lambda change: change[0])]
        change = StreamChange(
            DERIVED, coverage, 7, Batch.of(inserted.items()), Batch.of(revised.items()), retracted, revisions, fresh,
            [Snapshot(t, v) for t, v in snapshots.items()], coverage, publish,
        )  # fmt: skip
        return Commit(self.commit_seq, [change], consumed, self.commit_seq)

    def recovered(self, recovery: Recovery, *, crashed: bool) -> None:
        union = TimeIntervals()
        for mark in self.marks.values():
            union = union | mark
        assert recovery.changed.get(RAW, TimeIntervals()) == union
        assert recovery.commit_seq == self.commit_seq
        assert max(self.marks, default=0) <= recovery.append_seq <= self.append_seq
        published = recovery.published["sink"]
        assert published <= self.published if crashed else published == self.published
        self.append_seq, self.published = recovery.append_seq, published


async def run(factory: Callable[[], Store], steps: list[Any]) -> None:
    opened: list[Any] = []

    def made() -> Store:
        opened.append(factory())
        return opened[-1]  # type: ignore[no-any-return]

    try:
        await play(made, steps)
    finally:
        for store in opened:
            await store.abandon()  # a history that fails leaves nothing to the tests after it


async def play(factory: Callable[[], Store], steps: list[Any]) -> None:
    store, model = factory(), Model()
    await store.open()
    await store.register(
        [StreamRecord(RAW, StreamId("raw"), "raw"), StreamRecord(DERIVED, StreamId("derived"), "derived")]
    )
    await store.sinks(["sink"])
    repeat: Callable[[], Any] | None = None
    for step in steps:
        if step[0] == "append":
            repeat = partial(store.append, model.append(*step[1:]))
            await repeat()
        elif step[0] == "commit":
            repeat = partial(store.commit, model.commit(*step[1:]))
            await repeat()
        elif step[0] == "publish":
            model.published = max(model.published, model.commit_seq - step[1])
            await store.published("sink", max(model.commit_seq - step[1], 0))
        elif step[0] == "repeat":
            if repeat is not None:
                await repeat()
        else:
            await (store.close() if step[0] == "restart" else store.abandon())  # type: ignore[attr-defined]
            store, repeat = factory(), None
            model.recovered(await store.open(), crashed=step[0] == "crash")
    await compare(store, model)
    await store.abandon()  # type: ignore[attr-defined]
    store = factory()
    model.recovered(await store.open(), crashed=True)
    await compare(store, model)
    await store.close()


async def compare(store: Store, model: Model) -> None:
    for stream, contents in ((RAW, model.raw), (DERIVED, model.derived)):
        expected = Batch.of(contents.items())
        assert await store.read(stream, MIN_TIME, MAX_TIME) == expected
        assert await store.read(stream, 3, 11, limit=2, newest=True) == expected.slice(3, 11).last(11, 2)
        assert await store.last(stream, 5, 2) == expected.last(5, 2)
        assert await store.get(stream, range(-6, 9, 2)) == Batch.of(
            (t, contents[t]) for t in range(-6, 9, 2) if t in contents
        )
        assert await store.count(stream, 0, 9) == len(expected.slice(0, 9))
    assert await store.revisions(DERIVED, range(-6, 21)) == model.revisions
    snapshots = await store.snapshots(DERIVED, MIN_TIME, MAX_TIME, limit=100)
    assert same([[s.time, s.state] for s in snapshots], [[t, model.snapshots[t]] for t in sorted(model.snapshots)])
    assert {record.id: record for record in await store.streams()}[DERIVED].coverage == model.coverage
    outbox = [model.outbox[seq] for seq in sorted(model.outbox) if seq > model.published]
    assert same(entries_of(await store.outbox(model.published, 1000)), outbox)


RELAXED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@given(STEPS)
@settings(max_examples=150, deadline=None, suppress_health_check=RELAXED)
def test_memory(steps: list[Any]) -> None:
    store = MemoryStore()
    asyncio.run(run(lambda: store, steps))


@given(STEPS)
@settings(max_examples=40, deadline=None, suppress_health_check=RELAXED)
def test_sqlite(steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run(lambda: SqliteStore(Path(directory) / "store.db", synchronous="NORMAL"), steps))


@pytest.mark.parametrize("checkpoint_seconds", [0.001, 3600])
def test_mongo(mongod_process: EmbeddedMongod, checkpoint_seconds: float) -> None:
    with MongoClient[dict[str, Any]](mongod_process.url) as client:

        @given(STEPS)
        @settings(max_examples=12, deadline=None, suppress_health_check=RELAXED)
        def histories(steps: list[Any]) -> None:
            name = f"test_{uuid.uuid4().hex}"
            try:
                url = mongod_process.database_url(name)
                asyncio.run(run(lambda: MongoStore(url, checkpoint_seconds=checkpoint_seconds), steps))
            finally:
                client.drop_database(name)

        histories()


@given(VALUES | CONTENTS.map(lambda contents: [contents[t] for t in contents]))
@settings(max_examples=200, deadline=None)
def test_packing(value: Any) -> None:
    assert same(unpack(pack(value)), value)
    batch = Batch.of(enumerate([value, value]))
    assert unpack(pack([batch]))[0] == batch
