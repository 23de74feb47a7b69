"""Retention: what is forgotten when, what stays right without it, and what late readings may still change."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME, TimeIntervals
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine import fold, retention
from hs_stream.engine.engine import StreamStatus
from hs_stream.engine.ports import Append, Store
from hs_stream.engine.telemetry import Telemetry
from hs_stream.store.memory import MemoryStore
from hs_stream.store.mongo import MongoStore
from hs_stream.store.sqlite import SqliteStore
from hs_stream.testing.faults import Crash, FaultyStore
from tests.engine.conftest import START, Bench

MINUTE = 60_000
KEPT = {"power": MINUTE}


@pytest.fixture(autouse=True)
def _states_are_stored_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold, "SNAPSHOT_EVERY", 16)


@pytest.fixture(params=["memory", "sqlite", "mongodb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "sqlite":
        return SqliteStore(tmp_path / "x.db", synchronous="NORMAL")
    return MongoStore(request.getfixturevalue("mongo_url"))


@pytest.fixture
def on(store: Store, bench: Bench) -> Bench:
    """A bench on each of the stores. It stops before its database goes."""
    bench.store = store
    return bench


def every_support(bench: Bench, **options: Any) -> WorkflowDefinition:
    return bench.workflow(
        bench.node("scaled", "expression@^1", ["power"], expression="value * 2", publish={}),
        bench.node("mean", "sliding_mean@^1", ["power"], width="10s", publish={}),
        bench.node("minutely", "sliding_mean@^1", ["scaled"], width="20s", every="5s", publish={}),
        bench.node("slope", "derivative@^1", ["power"], publish={}),
        bench.node("total", "integral@^1", ["power"], publish={}),
        bench.node("rooms", "aggregate@^1", ["mean"], over=["room"], function="sum", publish={}),
        **options,
    )


async def feed(bench: Bench, seconds: range, *, room: str = "a", source: str = "power", at_once: int = 20) -> None:
    """A reading a second, and the clock with it."""
    items = [(second * 1000, float(second * 7 % 11)) for second in seconds]
    for first in range(0, len(items), at_once):
        part = items[first : first + at_once]
        bench.clock.advance(max(START + part[-1][0] - bench.clock.now(), 0))
        await bench.publish(*part, room=room, source=source)


def status(bench: Bench, stream: str) -> StreamStatus:
    return bench.engine.find(StreamId.parse(stream))


def cut(bench: Bench, stream: str) -> tuple[int | None, int | None]:
    """Floor and limit, in seconds after START."""
    found = status(bench, stream)
    floor, limit = (None if at is None else (at - START) / 1000 for at in (found.floor, found.limit))
    return floor, limit  # type: ignore[return-value]


async def results(bench: Bench) -> dict[str, dict[int, Any]]:
    streams = [str(found.stream) for found in bench.engine.status() if found.kind == "derived"]
    return {stream: await bench.contents(stream) for stream in streams}


async def refused(bench: Bench) -> list[str]:
    return [letter.reason for letter in await bench.store.dead_letters(100)]


# --- what goes, and what stays ---


async def test_forgetting_is_no_change(on: Bench, evaluations: Callable[[], list[Any]]) -> None:
    await on.start(every_support(on, retention=KEPT))
    for room in "ab":
        await feed(on, range(300), room=room)
    before, received, steps = await results(on), on.subscriber.received, on.engine.statistics().steps
    evaluations()
    await on.engine.forget()
    assert evaluations() == []
    assert await results(on) == before
    assert (on.subscriber.received, on.engine.statistics().steps) == (received, steps)
    for found in on.engine.status():
        assert not found.stale
        if found.kind == "derived":
            assert (found.floor, found.coverage.start) == (None, MIN_TIME)
    for room in "ab":
        floor, limit = cut(on, f"power[room={room}]")
        assert limit == 239  # the newest reading of room b is at 299 s
        assert floor is not None
        assert 200 < floor <= 229  # the mean of 10 s may be computed again after 239 s
        assert min(await on.contents(f"power[room={room}]")) == (floor + 1) * 1000
        assert status(on, f"power[room={room}]").coverage.start == START + floor * 1000
    assert (await on.verify()).clean


async def test_forgetting_twice_at_once(bench: Bench) -> None:
    """On request, and by itself: the second once removed what the first was about to."""
    bench.store = FaultyStore(MemoryStore(), pace=random.Random(1))
    await bench.start(every_support(bench, retention=KEPT))
    await feed(bench, range(300))
    await asyncio.gather(*(bench.engine.forget() for _ in range(3)))
    assert cut(bench, "power[room=a]")[1] == 239
    assert (await bench.verify()).clean


async def test_each_support_keeps_what_it_needs(on: Bench) -> None:
    async def floor_of(*nodes: Any) -> float | None:
        engine = await on.start(on.workflow(*nodes, retention=KEPT))
        await feed(on, range(200))
        await engine.forget()
        await on.stop()
        found = status(on, "power[room=a]").floor
        return None if found is None else (found - START) / 1000

    on.store = MemoryStore()
    assert await floor_of() == 138.999  # closed up to 139 s, and one instance stays
    for nodes, expected in (
        ([on.node("x", "expression@^1", ["power"], expression="value")], 138.999),
        ([on.node("x", "sliding_mean@^1", ["power"], width="30s")], 109),
        ([on.node("x", "derivative@^1", ["power"])], 137.999),
        ([on.node("x", "integral@^1", ["power"])], 127),  # the state after 8 * 16 instances
        ([on.node("x", "integral@^1", ["power"]), on.node("y", "sliding_mean@^1", ["power"], width="30s")], 109),
    ):
        on.store = MemoryStore()
        assert await floor_of(*nodes) == expected, nodes


async def test_a_silent_stream_keeps_its_newest_instances(on: Bench) -> None:
    joined = on.node("joined", "as_of_join@^1", ["light", "power"], names=["light", "power"])
    await on.start(on.workflow(joined, retention={"power": MINUTE, "light": MINUTE}))
    await on.publish((0, 1.0), (1000, 2.0))
    await feed(on, range(1, 400), source="light")
    await on.engine.forget()
    assert await on.contents("power[room=a]") == {1000: 2.0}
    await on.publish((400_000, 5.0), source="light")
    await on.pass_time(10_000)
    assert (await on.contents("joined[room=a]"))[400_000] == {"light": 5.0, "power": 2.0}
    assert (await on.verify()).clean


async def test_a_fold_without_a_stored_state_holds_what_it_reads(on: Bench) -> None:
    await on.start(on.workflow(on.node("total", "integral@^1", ["power"]), retention=KEPT))
    await feed(on, range(10))
    on.clock.advance(10 * MINUTE)
    await on.pass_time(1000)
    await on.engine.forget()
    assert cut(on, "power[room=a]") == (None, None)
    assert len(await on.contents("power[room=a]")) == 10


async def test_what_is_owed_holds_what_it_reads(on: Bench) -> None:
    joined = on.node("sum", "expression@^1", ["power", "light"], expression="a + b", names=["a", "b"])
    engine = await on.start(on.workflow(joined, retention={"power": MINUTE, "light": MINUTE}), run=False)
    await feed(on, range(1), source="light")
    await feed(on, range(300))
    await engine.forget()
    assert cut(on, "power[room=a]") == (None, None)  # whether light has anything there is not known
    await feed(on, range(1, 300), source="light")
    await engine.forget()
    assert cut(on, "power[room=a]")[1] == 239
    assert len(await on.contents("sum[room=a]")) == 300


async def test_in_pieces(on: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hs_stream.engine.ingest._ROUND", 7)
    pieces: list[int] = []
    append = on.store.append

    async def spy(made: Append) -> None:
        pieces.extend(len(spans) for spans in made.purged.values())
        await append(made)

    counted: list[int] = []
    await on.start(on.workflow(retention=KEPT))
    await feed(on, range(200), at_once=5)
    monkeypatch.setattr(on.store, "append", spy)
    monkeypatch.setattr(Telemetry, "forgotten", lambda _, count: counted.append(count))
    await on.engine.forget()
    assert len(pieces) == 20
    assert counted == [7] * 19 + [6]
    assert sorted(await on.contents("power[room=a]")) == [second * 1000 for second in range(139, 200)]


async def test_retention_of_a_node_that_others_read(on: Bench) -> None:
    scaled = on.node("scaled", "expression@^1", ["power"], expression="value * 2")
    mean = on.node("mean", "sliding_mean@^1", ["scaled"], width="10s")
    await on.start(on.workflow(scaled, mean, retention={"scaled": MINUTE}))
    await feed(on, range(300))
    await on.engine.forget()
    assert cut(on, "scaled[room=a]") == (229, 239)
    assert cut(on, "power[room=a]") == (None, 239)  # what reads it through scaled is final up to there
    assert len(await on.contents("power[room=a]")) == len(await on.contents("mean[room=a]")) == 300
    assert sorted(await on.contents("scaled[room=a]")) == [second * 1000 for second in range(230, 300)]
    await on.publish((100_500, 9.0), (239_500, 9.0))
    assert await refused(on) == ["expired"]
    assert (await on.verify()).clean


async def test_retention_of_a_node_that_nobody_reads_binds_nobody(on: Bench) -> None:
    mean = on.node("mean", "sliding_mean@^1", ["power"], width="10s")
    total = on.node("total", "integral@^1", ["power"])
    await on.start(on.workflow(mean, total, retention={"mean": MINUTE, "total": MINUTE}))
    await feed(on, range(300))
    await on.engine.forget()
    assert cut(on, "power[room=a]") == (None, None)
    assert cut(on, "mean[room=a]") == (238.999, 239)
    before = await on.contents("total[room=a]")
    await on.publish((100_500, 1000.0), (235_000, 1000.0))
    assert await refused(on) == []
    means, totals = await on.contents("mean[room=a]"), await on.contents("total[room=a]")
    assert min(means) == min(totals) == 239_000
    assert means[239_000] == pytest.approx(
        (sum(second * 7 % 11 for second in range(230, 240)) + 1000 - 235 * 7 % 11) / 10
    )
    assert all(totals[time] > before[time] + 900 for time in totals)
    assert status(on, "total[room=a]").coverage == TimeIntervals.of(START + 238_999, START + 299_000)
    assert (await on.verify()).clean


# --- late readings ---


async def test_late_readings_repair_all_that_is_not_final(on: Bench) -> None:
    """What is not refused has the same effect, bit for bit, as where nothing was ever forgotten."""
    rng = random.Random(5)
    twin = Bench()
    readings = [(int(rng.uniform(0, 300_000)), rng.choice([1.5, 2.0, -1.0, 7.25])) for _ in range(400)]
    await on.start(every_support(on, retention=KEPT))
    await twin.start(every_support(twin))
    for bench in (on, twin):
        await feed(bench, range(300))
    await on.engine.forget()
    dead = 0
    for time, value in readings:
        for bench in (on, twin):
            bench.clock.advance(500)
        limit = status(on, "power[room=a]").limit
        await on.publish((time, value))
        count = on.engine.statistics().dead_letters
        if status(on, "power[room=a]").limit == limit:  # the engine forgets by itself, too
            assert (count > dead) == (limit is not None and START + time <= limit)
        if count == dead:
            await twin.publish((time, value))
        dead = count
        if rng.random() < 0.1:
            await on.engine.forget()
    assert 100 < dead < 390
    assert set(await refused(on)) == {"expired"}
    for bench in (on, twin):
        await bench.pass_time(60_000)
    assert await results(on) == await results(twin)
    assert (await on.verify()).clean
    await twin.stop()


@pytest.mark.parametrize("late", [-1, 0, 1])
async def test_the_limit_itself_is_refused(bench: Bench, late: int) -> None:
    await bench.start(every_support(bench, retention=KEPT))
    await feed(bench, range(300))
    await bench.engine.forget()
    limit = status(bench, "power[room=a]").limit
    assert limit is not None
    before = await results(bench)
    await bench.publish((limit - START + late, 1e6))
    assert await refused(bench) == (["expired"] if late <= 0 else [])
    assert (await results(bench) == before) == (late <= 0)
    letter = (await bench.store.dead_letters(1))[:1]
    assert all("retention" in found.message and found.source == "power" for found in letter)
    assert (await bench.verify()).clean


async def test_readings_of_others_that_reach_into_what_is_forgotten(on: Bench) -> None:
    """Power is forgotten, light is not; but what is made of both cannot be computed again."""
    joined = on.node("joined", "as_of_join@^1", ["power", "light"], names=["power", "light"])
    alone = on.node("alone", "sliding_mean@^1", ["light"], width="10s")
    await on.start(on.workflow(joined, alone, retention=KEPT))
    await on.publish((0, 1.0), source="light")
    await feed(on, range(300))
    await on.publish((5_000, 2.0), source="light")  # nothing is forgotten yet
    assert (await on.contents("joined[room=a]"))[6_000]["light"] == 2.0
    await on.publish((300_000, 3.0), source="light")
    await on.engine.forget()
    await on.publish((100_000, 4.0), source="light")
    assert await refused(on) == ["expired"]
    await on.publish((250_000, 5.0), source="light")
    joins = await on.contents("joined[room=a]")
    assert (joins[100_000]["light"], joins[249_000]["light"], joins[250_000]["light"]) == (2.0, 2.0, 5.0)
    assert cut(on, "light[room=a]") == (None, 239)
    assert (await on.verify()).clean


async def test_a_stream_that_joins_an_aggregate_counts_after_what_is_final(on: Bench) -> None:
    rooms = on.node("rooms", "aggregate@^1", ["power"], over=["room"], function="sum")
    await on.start(on.workflow(rooms, retention=KEPT))
    await feed(on, range(300))
    await on.engine.forget()
    before = await on.contents("rooms")
    await on.publish(*((second * 1000, 100.0) for second in range(200, 260)), room="b")
    assert await refused(on) == ["expired"]
    assert on.engine.statistics().dead_letters == 40
    after = await on.contents("rooms")
    assert {time: after[time] - before[time] for time in before if after[time] != before[time]} == {
        second * 1000: 100.0 for second in range(240, 260)
    }
    assert status(on, "rooms").coverage == TimeIntervals.of(MIN_TIME, START + 289_000)
    assert status(on, "rooms").stale == TimeIntervals.of(START + 289_000, START + 299_000)  # not known of b yet
    assert (await on.verify()).clean


# --- restarts, crashes, definitions ---


async def test_after_a_restart_it_is_still_forgotten(on: Bench) -> None:
    workflow = every_support(on, retention=KEPT)
    await on.start(workflow)
    await feed(on, range(300))
    await on.engine.forget()
    before, cuts = await results(on), cut(on, "power[room=a]")
    await on.stop()
    await on.start(workflow)
    await on.engine.settle()
    assert cut(on, "power[room=a]") == cuts
    assert await results(on) == before
    await on.publish((100_000, 1.0), (250_500, 1.0))
    assert await refused(on) == ["expired"]
    assert (await on.verify()).clean
    await feed(on, range(300, 600))
    await on.engine.forget()
    assert cut(on, "power[room=a]")[1] == 539
    assert (await on.verify()).clean


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("write", [1, 2, 3])
async def test_killed_while_it_forgets(store: Store, write: int, when: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what lies at or before a durable floor is ever missing."""
    monkeypatch.setattr("hs_stream.engine.ingest._ROUND", 50)
    bench = Bench()
    bench.store = store
    workflow = every_support(bench, retention=KEPT)
    await bench.start(workflow, run=False)
    await feed(bench, range(300))
    everything = await bench.contents("power[room=a]")
    faulty = FaultyStore(store)
    for part in (bench.engine, bench.engine._patient):
        monkeypatch.setattr(part, "store", faulty)
    faulty.crash_at, faulty.when = write, when
    with pytest.raises(Crash):
        await bench.engine.forget()
    await bench.start(workflow)
    floor = status(bench, "power[room=a]").floor
    left = await bench.contents("power[room=a]")
    later = {time: value for time, value in everything.items() if floor is None or START + time > floor}
    assert {time: value for time, value in left.items() if floor is None or START + time > floor} == later
    assert (floor is None) == (write == 1 and when == "before")
    assert (await bench.verify()).clean
    await bench.engine.forget()
    floor = status(bench, "power[room=a]").floor
    assert floor is not None
    assert min(await bench.contents("power[room=a]")) == floor - START + 1000
    assert (await bench.verify()).clean
    await bench.stop()


async def test_new_and_changed_nodes_begin_where_nothing_forgotten_is_read(on: Bench) -> None:
    old = on.workflow(on.node("mean", "sliding_mean@^1", ["power"], width="10s"), retention=KEPT)
    await on.start(old)
    await feed(on, range(300))
    await on.engine.forget()
    assert cut(on, "power[room=a]") == (229, 239)
    results_before = await on.contents("mean[room=a]")
    await on.stop()
    new = on.workflow(
        on.node("mean", "sliding_mean@^1", ["power"], width="30s"),
        on.node("total", "integral@^1", ["power"]),
        on.node("slope", "derivative@^1", ["mean"]),
        retention=KEPT,
    )
    await on.start(new)
    await on.engine.settle()
    assert cut(on, "mean[room=a]")[0] == 258.999  # 30 s after the floor
    means = await on.contents("mean[room=a]")
    assert {time: value for time, value in means.items() if time < 259_000} == {
        time: value for time, value in results_before.items() if time < 259_000
    }  # of another definition: readable, and not covered
    assert status(on, "mean[room=a]").coverage.start == START + 258_999
    assert status(on, "mean[room=a]").stale == TimeIntervals.of(MIN_TIME, START + 258_999)
    assert means[270_000] == pytest.approx(sum(second * 7 % 11 for second in range(241, 271)) / 30)
    assert min(await on.contents("total[room=a]")) == 240_000
    assert min(await on.contents("slope[room=a]")) == 260_000
    assert (await on.verify()).clean
    await feed(on, range(300, 500))
    await on.engine.forget()
    assert (await on.verify()).clean


async def test_what_was_forgotten_stays_forgotten_under_another_definition(on: Bench) -> None:
    def workflow(width: str) -> WorkflowDefinition:
        return on.workflow(on.node("mean", "sliding_mean@^1", ["power"], width=width), retention={"mean": MINUTE})

    await on.start(workflow("10s"))
    await feed(on, range(300))
    await on.engine.forget()
    await on.stop()
    await on.start(workflow("20s"))
    await on.engine.settle()
    assert min(await on.contents("mean[room=a]")) == 239_000
    assert cut(on, "mean[room=a]") == (238.999, 239)
    assert (await on.verify()).clean


async def test_a_longer_retention_forgets_no_more(on: Bench) -> None:
    await on.start(on.workflow(retention=KEPT))
    await feed(on, range(300))
    await on.engine.forget()
    await on.stop()
    await on.start(on.workflow(retention={"power": 10 * MINUTE}))
    await feed(on, range(300, 800))
    await on.engine.forget()
    assert cut(on, "power[room=a]") == (238.999, 239)
    await on.stop()
    await on.start(on.workflow())
    await feed(on, range(800, 2000), at_once=100)
    await on.engine.forget()
    assert cut(on, "power[room=a]") == (238.999, 239)


async def test_a_node_that_was_away_while_something_was_forgotten_is_new(on: Bench) -> None:
    mean = on.node("mean", "sliding_mean@^1", ["power"], width="30s")
    total = on.node("total", "integral@^1", ["power"])
    both, neither = on.workflow(mean, total, retention=KEPT), on.workflow(retention=KEPT)
    await on.start(both)
    await feed(on, range(100))
    await on.stop()
    await on.start(neither)
    await feed(on, range(100, 300))
    await on.engine.forget()
    assert cut(on, "power[room=a]") == (238.999, 239)
    await on.stop()
    await on.start(both)
    await on.engine.settle()
    assert status(on, "mean[room=a]").coverage.start == START + 268_998  # 30 s after the floor
    means, totals = await on.contents("mean[room=a]"), await on.contents("total[room=a]")
    assert max(time for time in means if time < 268_998) == 99_000  # as it was before: readable, and not covered
    assert means[280_000] == pytest.approx(sum(second * 7 % 11 for second in range(251, 281)) / 30)
    assert totals[299_000] - totals[298_000] == totals[288_000] - totals[287_000]
    assert (await on.verify()).clean


async def test_of_workflows_that_share_a_source_the_longest_retention_counts(on: Bench) -> None:
    one = on.workflow(retention=KEPT)
    longer, for_ever = replace(one, name="x", retention={"power": 2 * MINUTE}), replace(one, name="y", retention={})
    await on.start(one, longer)
    await feed(on, range(300))
    await on.engine.forget()
    assert cut(on, "power[room=a]") == (178.999, 179)
    await on.stop()
    await on.start(for_ever, one)
    await feed(on, range(300, 600))
    await on.engine.forget()
    assert cut(on, "power[room=a]") == (178.999, 179)


# --- purges, requests, streams without inputs ---


async def test_a_purge_leaves_what_is_final_and_what_it_needs(on: Bench) -> None:
    await on.start(every_support(on, retention=KEPT))
    await feed(on, range(300))
    await on.engine.forget()
    before = await results(on)
    held = len(await on.contents("power[room=a]"))
    gone = await on.engine.purge(StreamId.parse("power[room=a]"), MIN_TIME, START + 259_000)
    await on.engine.settle()
    assert held - gone == len(await on.contents("power[room=a]")) < held
    raw = await on.contents("power[room=a]")
    limit = (status(on, "power[room=a]").limit or 0) - START
    assert [time for time in raw if limit < time < 260_000] == []
    assert [time for time in raw if time <= limit] != []
    after = await results(on)
    for stream, contents in before.items():
        assert {time: value for time, value in after[stream].items() if time <= limit} == {
            time: value for time, value in contents.items() if time <= limit
        }, stream
    # What is final of it is up to 239 s; readings were left from 260 s on.
    assert await on.engine.purge(StreamId.parse("mean[room=a]"), MIN_TIME, MAX_TIME) == 40
    await on.engine.settle()
    assert await results(on) == after
    assert (await on.verify()).clean


async def test_requests_compute_nothing_of_what_is_final(on: Bench) -> None:
    mean = on.node("mean", "sliding_mean@^1", ["power"], width="10s")
    total = on.node("total", "integral@^1", ["power"])
    await on.start(on.workflow(mean, total, online=False, retention=KEPT), run=False)
    await feed(on, range(300))
    await on.engine.forget()
    assert cut(on, "power[room=a]") == (229, 239)
    streams = [StreamId.parse("mean[room=a]"), StreamId.parse("total[room=a]")]
    await on.engine.compute(streams, START, START + 299_000)
    assert sorted(await on.contents("mean[room=a]")) == [second * 1000 for second in range(240, 300)]
    assert status(on, "mean[room=a]").coverage == TimeIntervals.of(START + 239_000, START + 299_000)
    assert min(await on.contents("total[room=a]")) == 240_000  # of what is left: nobody knew a state
    assert (await on.verify()).clean
    await feed(on, range(300, 600))
    await on.engine.compute(streams, START, START + 599_000)
    before = await results(on)
    await on.engine.forget()
    assert cut(on, "power[room=a]")[1] == 539
    await on.publish((570_500, 3.0))
    await on.engine.compute(streams, START, START + 599_000)
    after = await results(on)
    for stream in map(str, streams):
        assert {time: value for time, value in after[stream].items() if time < 570_000} == {
            time: value for time, value in before[stream].items() if time < 570_000
        }
    assert (await on.verify()).clean


async def test_a_clock_of_which_nothing_is_stored_begins_where_readings_are_left(on: Bench) -> None:
    clock = on.node("clock", "clock@^1", every="1h")
    workflow = on.workflow(clock, retention=KEPT)
    await on.start(workflow)
    await feed(on, range(60, 300))
    await on.pass_time(10_000)
    await on.engine.forget()
    assert cut(on, "power[room=a]")[1] is not None
    assert await on.contents("clock") == {}
    await on.stop()
    await on.start(workflow)
    await on.pass_time(3_600_000)
    assert len(await on.contents("clock")) == 1
    assert (await on.verify()).clean


async def test_clocks_go_on_where_they_began(on: Bench) -> None:
    clock = on.node("clock", "clock@^1", every="10s")
    ticks = on.node("ticks", "as_of_join@^1", ["clock", "power"], names=["clock", "power"])
    workflow = on.workflow(clock, ticks, retention=KEPT)
    await on.start(workflow)
    await feed(on, range(300))
    await on.pass_time(10_000)
    before = await results(on)
    await on.engine.forget()
    assert cut(on, "power[room=a]")[1] is not None
    await on.stop()
    await on.start(workflow)
    await on.pass_time(1000)
    after = await results(on)
    for stream, contents in before.items():
        assert {time: value for time, value in after[stream].items() if time <= 290_000} == {
            time: value for time, value in contents.items() if time <= 290_000
        }
    assert (await on.verify()).clean


async def test_another_start_counts_after_what_is_final(on: Bench) -> None:
    """Up to its limit the clock's results are final; after it, those before its start are nobody's any more."""
    clock = on.node("clock", "clock@^1", every="10s")
    ticks = on.node("ticks", "as_of_join@^1", ["clock", "power"], names=["clock", "power"])

    def begun(second: int) -> WorkflowDefinition:
        return on.workflow(clock, ticks, retention=KEPT, start=START + second * 1000)

    await on.start(begun(0))
    await feed(on, range(300))
    await on.pass_time(10_000)
    await on.engine.forget()
    assert cut(on, "clock")[1] == 249
    await on.stop()
    await on.start(begun(265))
    await on.pass_time(1000)
    around = TimeIntervals.of(START + 240_000, START + 290_000)
    assert status(on, "clock").coverage & around == around - TimeIntervals.of(START + 249_000, START + 265_000)
    assert (await on.verify()).clean


# --- by itself ---


async def test_it_happens_by_itself(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_SHORTEST", 1)
    await bench.start(bench.workflow(retention={"power": 1000}))
    await feed(bench, range(300))
    async with asyncio.timeout(10):
        while len(await bench.contents("power[room=a]")) > 3:
            await asyncio.sleep(0.01)
    assert (await bench.verify()).clean


async def test_streams_are_not_looked_at_again_and_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await bench.start(bench.workflow(retention=KEPT))
    for room in "abc":
        await feed(bench, range(100), room=room)
    await engine.forget()
    asked = []
    last = bench.store.last

    def spy(stream: int, *rest: Any) -> Awaitable[Any]:
        asked.append(stream)
        return last(stream, *rest)

    monkeypatch.setattr(bench.store, "last", spy)
    for _ in range(10):
        await engine.forget()
    assert asked == []


def test_definitions(bench: Bench) -> None:
    from hs_stream.core.errors import ConfigurationError

    workflow = bench.workflow(bench.node("mean", "sliding_mean@^1", ["power"], width="10s"))
    for wrong, words in (({"nothing": 5}, "no source or node 'nothing'"), ({"mean": 0}, "longer than 0")):
        with pytest.raises(ConfigurationError, match=words):
            replace(workflow, retention=wrong)
    assert replace(workflow, retention={"mean": 5}).fingerprints == workflow.fingerprints
