"""Where tasks run makes no difference: results that come in any order, late, or not at all (IE-26, IE-27)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

import pytest

from hs_stream.compute.task import Result, Task
from hs_stream.core.batch import Batch
from hs_stream.core.errors import BackendUnavailable
from hs_stream.core.size import size_of_batch
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine import breath
from hs_stream.engine.backend import INLINE, at_once
from hs_stream.engine.contents import Contents, PatientStore
from hs_stream.engine.ports import Append, Backend, Commit, Delivery, Reading, StreamRecord
from hs_stream.engine.telemetry import Telemetry
from hs_stream.plan.draft import Draft
from hs_stream.plan.streams import Stream
from hs_stream.plan.tail import Tail
from hs_stream.service.workflows.file import parse_workflow
from hs_stream.store.memory import MemoryStore
from hs_stream.testing.clock import VirtualClock
from hs_stream.testing.faults import FaultyStore
from hs_stream_tools.functions import Apply
from tests.shuffled import ShuffledBackend

from .conftest import REGISTRY, START, Bench

ROOMS = "abcde"


class Recorded(MemoryStore):
    """Keeps what is committed to it."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[Commit] = []

    async def commit(self, commit: Commit) -> None:
        await super().commit(commit)
        self.commits.append(commit)


def everything(bench: Bench) -> WorkflowDefinition:
    """Each way in which an output may depend on inputs, and several nodes of each rank."""
    return bench.workflow(
        bench.node("double", "expression", ["power"], expression="value * 2"),
        bench.node("again", "expression", ["double"], expression="value + 1"),
        bench.node("mean", "sliding_mean", ["power"], width="2s"),
        bench.node("windows", "sliding_mean", ["power"], width="10s", every="3s"),
        bench.node("slope", "derivative", ["double"]),
        bench.node("total", "integral", ["power"]),
        bench.node("both", "expression", ["power", "light"], expression="a + b"),
        bench.node("rooms", "aggregate", ["double"], over=["room"], function="sum"),
        bench.node("most", "aggregate", ["mean"], over=["room"], function="max"),
        bench.node("ticks", "clock", every="3s"),
    )


async def play(bench: Bench, backend: Backend) -> list[Commit]:
    """What is committed of the same readings, new, late, corrected, of a new room and purged."""
    bench.store = store = Recorded()
    bench.backend = backend
    await bench.start(everything(bench), run=False)
    bench.engine.connected(True)
    bench.clock.advance(20_000)
    for source in ("power", "light"):
        for room in ROOMS:
            items = [(1000 * k, float(k + ord(room))) for k in range(5, 20)]
            await bench.engine.take(readings(source, room, items))
    await bench.engine.settle()
    for value in (1.0, 5.0):
        for room in ROOMS:
            await bench.engine.take(readings("power", room, [(7_500, value), (19_500 + value, value)]))
        await bench.engine.settle()
    await bench.publish((9_000, 3.0), (12_000, 4.0), room="late")
    await bench.pass_time(20_000)
    await bench.engine.purge(StreamId.parse("power[room=b]"), START + 6_000, START + 9_000)
    await bench.engine.settle()
    assert (await bench.verify()).clean
    await bench.stop()
    return store.commits


def readings(source: str, room: str, items: Sequence[tuple[float, float]]) -> list[Reading]:
    return [Reading(source, (("room", room),), START + int(time), value) for time, value in items]


@pytest.mark.parametrize("slots", [1, 2, 5, 64])
async def test_commits_are_the_same_in_whatever_order_results_come(slots: int) -> None:
    """`IE-26`. Stream by stream, cause by cause, number by number."""
    here = await play(Bench(), INLINE)
    backend = ShuffledBackend(Random(slots), REGISTRY, slots)
    elsewhere = await play(Bench(), backend)
    assert elsewhere == here
    assert {entry.cause for commit in here for entry in commit.history} >= {"arrival", "late"}
    assert min(slots, 4 * len(ROOMS)) <= backend.most <= slots
    assert (backend.overtaken > 0) == (slots > 1)


async def over_two(backend: Backend) -> list[Commit]:
    """What reads two streams of one rank, of which one is late in the step, and the other not."""
    bench = Bench()
    bench.store = store = Recorded()
    bench.backend = backend
    nodes = [bench.node(f"of_{name}", "expression", [name], expression="value") for name in ("power", "light")]
    nodes.append(bench.node("sum", "expression", ["of_power", "of_light"], expression="a + b"))
    await bench.start(bench.workflow(*nodes), run=False)
    bench.clock.advance(20_000)
    for room in ROOMS:
        await bench.publish(*((1000 * k, 1.0) for k in range(12, 20)), room=room)
        await bench.publish((12_000, 1.0), room=room, source="light")
    await bench.engine.write_history()
    for room in ROOMS:
        await bench.engine.take(readings("power", room, [(15_000, 2.0)]))
        await bench.engine.take(readings("light", room, [(16_000, 2.0)]))
    await bench.engine.settle()
    await bench.engine.write_history()
    await bench.stop()
    return store.commits


@pytest.mark.parametrize("seed", range(4))
async def test_causes_are_the_same_whoever_is_ready_first(seed: int) -> None:
    """`IE-26`. The first to tell a stream that something changed says why it is computed."""
    here = await over_two(INLINE)
    assert await over_two(ShuffledBackend(Random(seed), REGISTRY, 8)) == here
    assert [entry.cause for entry in here[-1].history if entry.stream == "sum"] == ["late"]


GROWING = """
workflow: w
plates:
  country: {}
  city: {parent: country, from: cities}
sources:
  rows: {plates: [country]}
nodes:
  cities: {tool: plate_values, from: rows}
  temperature: {tool: splitter_of_dict, from: rows, into: city}
  count: {tool: sliding_count, from: temperature, with: {width: 9s}}
  most: {tool: aggregate, from: count, over: city, with: {function: max}}
"""


async def test_plates_grow_alike_in_whatever_order_results_come() -> None:
    """`IE-26`. New streams have the numbers that they have inline."""
    found: list[tuple[list[StreamRecord], list[Commit]]] = []
    for backend in (INLINE, ShuffledBackend(Random(1), REGISTRY, 8)):
        bench = Bench()
        bench.store = store = Recorded()
        bench.backend = backend
        await bench.start(parse_workflow(GROWING, REGISTRY), run=False)
        bench.clock.advance(20_000)
        for step in range(3):
            for country in ("be", "fr", "nl", "de"):
                row = {f"{country}{step}": 5.0, f"{country}0": 1.0}
                await bench.engine.take([Reading("rows", (("country", country),), START + 2000 + 1000 * step, row)])
            await bench.engine.settle()
        assert (await bench.verify()).clean
        found.append((await store.streams(), store.commits))
        await bench.stop()
    assert found[0] == found[1]
    assert sum(record.stream.name == "temperature" for record in found[0][0]) == 4 * 3


async def test_inline_makes_no_task_and_waits_for_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """`IE-27`. A step of new readings is a plain call, from the schedule to the commit."""
    monkeypatch.setattr(breath, "_LONG", float("inf"))
    await bench.start(everything(bench), run=False)
    bench.clock.advance(20_000)
    for room in ROOMS:
        await bench.publish((5_000, 5.0), room=room)
    for room in ROOMS:
        await bench.engine.take(readings("power", room, [(6_000, 6.0)]))
    executor = bench.engine._executor
    before, tasks = executor.committer.seq, asyncio.all_tasks()
    step = executor.step()
    with pytest.raises(StopIteration):
        step.send(None)
    assert asyncio.all_tasks() == tasks
    assert executor.committer.seq == before + 1


class Failing:
    """One that raises, once, at its ``n``-th task."""

    def __init__(self, n: int, slots: int = 4) -> None:
        self.slots = slots
        self.inner = ShuffledBackend(Random(n), REGISTRY, slots)
        self.left = n

    def run(self, task: Task) -> Result | Awaitable[Result]:
        self.left -= 1
        if not self.left:
            raise RuntimeError("it is broken")
        return self.inner.run(task)


@pytest.mark.parametrize("task", [1, 2, 7, 12, 20, 26, 30])
async def test_a_step_that_the_backend_breaks_off_is_done_by_the_next_one(bench: Bench, task: int) -> None:
    """`IE-27`. Of whatever kind the error is; none of its tasks is under way any more when it is told."""
    bench.store = store = Recorded()
    bench.backend = backend = Failing(0)
    await bench.start(everything(bench), run=False)
    bench.clock.advance(20_000)
    for room in ROOMS:
        await bench.publish(*((1000 * k, float(k)) for k in range(5, 15)), room=room)
    for room in ROOMS:
        await bench.engine.take(readings("power", room, [(7_500, 1.0), (16_000, 3.0)]))
    before = len(store.commits)
    backend.left = task
    with pytest.raises(RuntimeError, match="broken"):
        await bench.engine.settle()
    assert backend.inner.under_way == 0
    assert len(store.commits) == before
    assert all(stream.work is None for stream in bench.engine._graph.streams.values())
    await bench.engine.settle()
    assert not (await bench.verify()).count
    for name in ("again", "mean", "slope", "total"):
        assert bench.engine.find(StreamId.parse(f"{name}[room=e]")).coverage.covers(START + 5_000, START + 16_000)


@pytest.mark.parametrize("slots", [1, 2])
async def test_what_was_not_begun_when_a_step_is_broken_off_is_not_forgotten(bench: Bench, slots: int) -> None:
    """`IE-27`. Of a rank that is larger than the backend has slots."""
    bench.backend = backend = Failing(0, slots)
    await bench.start(bench.workflow(*everything(bench).nodes.values(), online=False), run=False)
    bench.clock.advance(20_000)
    for room in ROOMS:
        await bench.publish((5_000, 5.0), (6_000, 6.0), room=room)
    wanted = [StreamId.parse(f"mean[room={room}]") for room in ROOMS]
    for stream in wanted:
        bench.engine.want(stream, START)
    backend.left = 1
    with pytest.raises(RuntimeError, match="broken"):
        await bench.engine.settle()
    await bench.engine.settle()
    for stream in wanted:
        assert bench.engine.find(stream).coverage.covers(START + 5_000, START + 6_000), stream


@pytest.mark.parametrize("task", [1, 3, 12, 22])
async def test_a_worker_that_dies_ends_nothing(bench: Bench, task: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`IE-27`. The engine does its step again; who asks for something is told to ask again."""
    bench.backend = backend = ShuffledBackend(Random(task), REGISTRY)
    told: list[bool] = []
    monkeypatch.setattr(Telemetry, "backend_failed", lambda _, __, *, first: told.append(first))
    await bench.start(everything(bench))
    bench.clock.advance(20_000)
    for room in ROOMS:
        await bench.publish((5_000, 5.0), room=room)
    for _ in range(2):
        backend.lose(task)
        for room in ROOMS:
            await bench.engine.deliver(Delivery(readings("power", room, [(7_000, 1.0)]), [], START, lambda: None))
        await bench.engine.settle()
        bench.clock.advance(1_000)
    assert told == [True, True]
    assert (await bench.verify()).clean


async def test_who_asks_is_told_that_a_worker_has_died(bench: Bench) -> None:
    """`IE-27`."""
    bench.backend = backend = ShuffledBackend(Random(1), REGISTRY)
    await bench.start(bench.workflow(*everything(bench).nodes.values(), online=False), run=False)
    bench.clock.advance(20_000)
    await bench.publish((5_000, 5.0), (6_000, 6.0))
    wanted = StreamId.parse("mean[room=a]")
    backend.lose(1)
    with pytest.raises(BackendUnavailable):
        await bench.engine.compute([wanted], START, START + 6_000)
    await bench.engine.compute([wanted], START, START + 6_000)
    assert await bench.contents("mean[room=a]") == {5_000: 5.0, 6_000: 5.5}


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 21, 34])
async def test_a_step_that_is_cancelled_leaves_nothing_under_way(bench: Bench, turns: int) -> None:
    """`IE-25`. Its streams are put back after the last of its tasks, however impatient who cancels is."""
    bench.store = store = Recorded()
    bench.backend = backend = ShuffledBackend(Random(3), REGISTRY, 4)
    await bench.start(bench.workflow(*everything(bench).nodes.values(), online=False), run=False)
    bench.clock.advance(20_000)
    for room in ROOMS:
        await bench.publish(*((1000 * k, float(k)) for k in range(5, 15)), room=room)
    wanted = [status.stream for status in bench.engine.status() if status.kind == "derived"]
    tasks, before = asyncio.all_tasks(), len(store.commits)
    asking = asyncio.create_task(bench.engine.compute(wanted, START, START + 14_000))
    while not backend.under_way:
        await asyncio.sleep(0)
    for _ in range(turns):
        await asyncio.sleep(0)
    for _ in range(3):
        asking.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (backend.under_way, asyncio.all_tasks() - tasks, len(store.commits)) == (0, set(), before)
    await bench.engine.compute(wanted, START, START + 14_000)
    assert not (await bench.verify()).count
    for stream in wanted:
        if stream.name != "ticks":  # which wait for the time
            assert bench.engine.find(stream).coverage.covers(START + 5_000, START + 14_000), stream
    sizes = [size_of_batch(stream.tail.batch) for stream in bench.engine._graph.streams.values()]
    assert bench.engine.memory()["tails"].used == sum(sizes)


async def test_what_has_no_bytes_is_computed_here(bench: Bench) -> None:
    """A function of a notebook, say. Beside it, all else is done elsewhere."""
    bench.backend = backend = ShuffledBackend(Random(1), REGISTRY)
    node = bench.node("double", "expression", ["power"], expression="value * 2")
    local = replace(node, name="local", tool=Apply(function=lambda value: value + 1))
    await bench.start(bench.workflow(node, local))
    bench.clock.advance(20_000)
    for room in ROOMS:
        await bench.publish((5_000, 5.0), room=room)
    assert await bench.contents("local[room=e]") == {5_000: 6.0}
    assert await bench.contents("double[room=e]") == {5_000: 10.0}
    assert backend.here == len(ROOMS)
    assert backend.most


# --- the parts ---


def test_what_is_evaluated_at_once_takes_its_time_once() -> None:
    """Or a step would seem to have taken longer than it did, and the next ones got less to do."""
    draft = Draft(0, 0)
    draft.evaluates(100)
    draft.evaluates(105)
    draft.evaluated(108)
    draft.evaluated(110)
    draft.evaluates(150)
    draft.evaluated(151)
    assert draft.working == 11


class Stubborn:
    """Calls that take some turns to end also when they are cancelled."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.under_way = 0

    async def call(self, number: int, *, raises: bool = False) -> int:
        self.begun.append(number)
        self.under_way += 1
        try:
            for _ in range(3 * (5 - number % 3)):
                await asyncio.sleep(0)
            if raises:
                raise ValueError(number)
            return number
        except asyncio.CancelledError:
            for _ in range(10):
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)
            raise
        finally:
            self.under_way -= 1


def calls(stubborn: Stubborn, count: int, raising: int = -1) -> list[Callable[[], Coroutine[Any, Any, int]]]:
    return [partial(stubborn.call, number, raises=number == raising) for number in range(count)]


async def test_results_are_in_the_order_of_the_calls() -> None:
    stubborn = Stubborn()
    assert await at_once(calls(stubborn, 9), 3) == list(range(9))
    assert stubborn.begun == list(range(9))


async def test_the_first_error_is_raised_after_all_others_have_ended() -> None:
    stubborn = Stubborn()
    with pytest.raises(ValueError, match="2"):
        await at_once(calls(stubborn, 9, raising=2), 3)
    assert stubborn.under_way == 0
    assert len(stubborn.begun) < 9
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_who_is_cancelled_twice_still_leaves_nothing_under_way() -> None:
    stubborn = Stubborn()
    task = asyncio.create_task(at_once(calls(stubborn, 9, raising=2), 3))
    for turn in range(20):
        await asyncio.sleep(0)
        if turn in (4, 8, 10):
            task.cancel()
            assert stubborn.under_way or turn > 8
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stubborn.under_way == 0


@pytest.mark.parametrize("seed", range(8))
async def test_two_may_read_the_same_at_once(seed: int) -> None:
    """What one of them has remembered meanwhile was read twice by the other."""
    store = MemoryStore()
    await store.open()
    whole = Batch.of([(time, float(time)) for time in range(1, 31)])
    await store.append(Append(1, inserts=[(1, whole)]))
    slow = FaultyStore(store, pace=Random(seed))
    contents = Contents(PatientStore(slow, VirtualClock(), Telemetry()))
    stream = Stream(1, StreamId("power"), "raw", Tail(20, whole.slice(20, MAX_TIME)))
    stream.replace(stream.state._replace(frontier=30, upper=30))
    reads = [contents.read_some(stream, start, 28, limit=100) for start in (2, 10, 5, 15, 1)]
    for (batch, complete), start in zip(await asyncio.gather(*reads), (2, 10, 5, 15, 1), strict=True):
        assert complete
        assert batch == whole.slice(start, 28), start
