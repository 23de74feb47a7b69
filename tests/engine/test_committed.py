"""Who looks at the engine while it works sees what is committed, and nothing of what is on its way (IE-24, IE-25)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from hs_stream.core.batch import Batch
from hs_stream.core.errors import StoreUnavailable
from hs_stream.core.size import size_of_batch
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME, TimeIntervals
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.engine import StreamStatus
from hs_stream.engine.ports import Append, Commit, Reading, StreamRecord
from hs_stream.service.workflows.file import parse_workflow
from hs_stream.store.memory import MemoryStore

from .conftest import REGISTRY, START, Bench


class Held(MemoryStore):
    """While it is closed, calls of one kind wait: for example commits, before or after what they write."""

    def __init__(self) -> None:
        super().__init__()
        self.kind = ""
        self.reached = asyncio.Event()
        self.gate = asyncio.Event()
        self.fails = False
        self.commits: list[Commit] = []

    def close_for(self, kind: str) -> None:
        self.kind, self.reached, self.gate = kind, asyncio.Event(), asyncio.Event()

    def open_up(self) -> None:
        self.kind = ""
        self.gate.set()

    async def _pass(self, kind: str) -> None:
        if self.kind == kind:
            self.reached.set()
            await self.gate.wait()

    async def append(self, append: Append) -> None:
        await super().append(append)
        await self._pass("append")

    async def read(self, *span: int, **how: Any) -> Batch:
        await self._pass("read")
        return await super().read(*span, **how)

    async def register(self, records: Sequence[StreamRecord]) -> None:
        await self._pass("register")
        await super().register(records)

    async def commit(self, commit: Commit) -> None:
        if self.fails:
            self.reached.set()
            raise StoreUnavailable("it is away")
        await self._pass("commit")
        await super().commit(commit)
        if not self.commits or self.commits[-1] != commit:
            self.commits.append(commit)
        await self._pass("commit, after it")

    async def revisions(self, stream: int, times: Sequence[int]) -> dict[int, int]:
        await self._pass("revisions")
        return await super().revisions(stream, times)


class Look:
    """What the engine says of its derived streams at one moment, and what is stored of them where it is computed."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.coverage: dict[StreamId, TimeIntervals] = {}
        self.stale: dict[StreamId, TimeIntervals] = {}
        self.stored: dict[StreamId, dict[int, Any]] = {}

    async def take(self) -> Look:
        """Raises `AssertionError` where what is said to be computed is not what a computation from scratch gives."""
        engine = self._bench.engine
        for status in engine.status():
            if status.kind == "derived":
                self.coverage[status.stream], self.stale[status.stream] = status.coverage, status.stale
                self.stored[status.stream] = await self._right(status)
        found = await self._bench.verify()
        assert not found.count, found.mismatches
        return self

    async def _right(self, status: StreamStatus) -> dict[int, Any]:
        batch = await self._bench.engine.read(status.stream, MIN_TIME, MAX_TIME)
        return dict(batch.within(status.coverage.pairs))

    async def last(self) -> None:
        """Everything is there by now: what was said to be computed has not changed."""
        for stream, coverage in self.coverage.items():
            batch = await self._bench.engine.read(stream, MIN_TIME, MAX_TIME)
            assert self.stored[stream] == dict(batch.within(coverage.pairs)), f"{stream} was said to be computed"

    def is_stale(self, stream: str, time: int) -> bool:
        """At ``time`` milliseconds after START."""
        return START + time in self.stale[StreamId.parse(stream)]


@asynccontextmanager
async def held(bench: Bench, work: Coroutine[Any, Any, Any], at: str = "commit") -> AsyncIterator[Look]:
    """A look at the engine while ``work`` waits for the store. It must be true of what is there in the end."""
    store = bench.store
    assert isinstance(store, Held)
    store.close_for(at)
    task = asyncio.create_task(work)
    try:
        async with asyncio.timeout(5):
            await store.reached.wait()
        look = await Look(bench).take()
        yield look
        await look.take()
    finally:
        store.open_up()
        await task
    await bench.engine.settle()
    assert (await bench.verify()).clean
    await look.last()


def everything(bench: Bench) -> WorkflowDefinition:
    """Each way in which an output may depend on inputs."""
    return bench.workflow(
        bench.node("double", "expression", ["power"], expression="value * 2"),
        bench.node("again", "expression", ["double"], expression="value + 1"),
        bench.node("mean", "sliding_mean", ["power"], width="2s"),
        bench.node("windows", "sliding_mean", ["power"], width="10s", every="3s"),
        bench.node("slope", "derivative", ["double"]),
        bench.node("total", "integral", ["power"]),
        bench.node("rooms", "aggregate", ["double"], over=["room"], function="sum"),
        bench.node("ticks", "clock", every="3s"),
    )


async def begin(bench: Bench) -> None:
    bench.store = Held()
    await bench.start(everything(bench))
    bench.clock.advance(20_000)
    await bench.publish(*((1000 * k, float(k)) for k in range(5, 20)))
    await bench.publish(*((1000 * k, float(k)) for k in range(5, 20)), room="b")


ARRIVALS: dict[str, Callable[[Bench], Coroutine[Any, Any, Any]]] = {
    "new": lambda bench: bench.publish((20_000, 20.0)),
    "late": lambda bench: bench.publish((10_500, 7.0)),
    "corrected": lambda bench: bench.publish((10_000, 7.0)),
    "earlier than all": lambda bench: bench.publish((500, 7.0)),
    "of a new room": lambda bench: bench.publish((10_000, 7.0), (10_500, 8.0), room="c"),
    "purged": lambda bench: bench.engine.purge(StreamId.parse("power[room=a]"), START + 9_000, START + 12_000),
    "purged results": lambda bench: bench.engine.purge(StreamId.parse("double[room=a]"), START + 9_000, START + 12_000),
}


@pytest.mark.parametrize("at", ["commit", "append"])
@pytest.mark.parametrize("arrival", ARRIVALS)
async def test_what_is_on_its_way_is_not_said_to_be_computed(bench: Bench, arrival: str, at: str) -> None:
    """`IE-24`. Neither before the step that computes it nor within it; silence, meanwhile, proves nothing of it."""
    if at == "append" and arrival == "purged results":
        pytest.skip("nothing is appended")
    await begin(bench)
    async with held(bench, ARRIVALS[arrival](bench), at) as look:
        bench.clock.advance(100_000)
        for _ in range(10):
            await asyncio.sleep(0)
        await look.take()


async def test_what_a_late_reading_reaches_is_stale_until_it_is_committed(bench: Bench) -> None:
    """`IE-24`. All else that was computed stays computed."""
    await begin(bench)
    async with held(bench, bench.publish((10_500, 7.0))) as look:
        for stream in ("double[room=a]", "again[room=a]", "mean[room=a]", "total[room=a]", "slope[room=a]", "rooms"):
            assert look.is_stale(stream, 10_500), stream
            assert START + 10_000 in look.coverage[StreamId.parse(stream)], stream
        assert not look.is_stale("double[room=a]", 10_600)
        assert not look.is_stale("mean[room=a]", 12_500)
        assert look.is_stale("total[room=a]", 12_500)
        assert not any(look.stale[StreamId.parse(f"{name}[room=b]")] for name in ("double", "mean", "total"))
    assert not any(status.stale for status in bench.engine.status())


async def test_what_arrives_while_a_step_is_written_is_not_said_to_be_computed(bench: Bench) -> None:
    """`IE-24`."""
    await begin(bench)
    async with held(bench, bench.publish((20_000, 20.0))) as look:
        more = asyncio.create_task(bench.publish((10_500, 7.0), (21_000, 21.0)))
        bench.clock.advance(100_000)
        for _ in range(10):
            await asyncio.sleep(0)
        await look.take()
        assert look.is_stale("double[room=a]", 10_500)
    await more


async def test_ticks_that_are_due_are_not_said_to_be_computed(bench: Bench) -> None:
    """`IE-24`. Neither of the clock nor of what reads it, which nothing but silence has touched."""
    bench.store = Held()
    node = bench.node
    sums = node("sums", "sliding_count", ["ticks"], width="9s"), node("next", "expression", ["ticks"], expression="1")
    await bench.start(bench.workflow(node("ticks", "clock", every="3s"), *sums))
    bench.clock.advance(20_000)
    await bench.publish((5_000, 1.0))
    await bench.pass_time(20_000)
    async with held(bench, bench.pass_time(100_000)):
        pass


@pytest.mark.parametrize("at", ["revisions", "commit", "commit, after it"])
async def test_a_step_that_is_broken_off_is_done_by_the_next_one(bench: Bench, at: str) -> None:
    """`IE-25`. Before its commit nothing of it is so; of a commit nobody knows, so the same is written again."""
    bench.store = store = Held()
    nodes = everything(bench).nodes.values()
    await bench.start(bench.workflow(*nodes, online=False), run=False)
    bench.clock.advance(20_000)
    await bench.publish(*((1000 * k, float(k)) for k in range(5, 20)))
    await bench.publish((19_000, 1.0), room="b")
    targets = [status.stream for status in bench.engine.status() if status.kind == "derived"]
    await bench.engine.compute(targets, START, START + 15_000)
    for value in (3.0, 5.0):
        await bench.publish((10_500, value), (11_500, value))
        store.close_for(at)
        task = asyncio.create_task(bench.engine.compute(targets, START, START + 15_000))
        async with asyncio.timeout(5):
            await store.reached.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        store.open_up()
        await Look(bench).take()
        await bench.publish((12_500, value))
        await bench.engine.compute(targets, START, START + 15_000)
        await Look(bench).take()
        for stream in targets:
            if stream.name != "ticks":  # which wait for the time
                assert bench.engine.find(stream).coverage.covers(START + 6_000, START + 15_000), stream
        assert bench.engine.memory()["tails"].used == sum(tail_sizes(bench))
    assert [change.seq for change in store.commits] == list(range(1, len(store.commits) + 1)), "none twice"


def tail_sizes(bench: Bench) -> list[int]:
    return [size_of_batch(stream.tail.batch) for stream in bench.engine._graph.streams.values()]


async def test_what_the_store_does_not_take_is_not_said_to_be_computed(bench: Bench) -> None:
    """`IE-25`. While it is asked again, and when it is given up."""
    await begin(bench)
    store = bench.store
    assert isinstance(store, Held)
    before = {status.stream: status.coverage for status in bench.engine.status()}
    store.fails = True
    task = asyncio.create_task(bench.publish((20_000, 20.0), (10_500, 7.0)))
    await store.reached.wait()
    look = await Look(bench).take()
    assert look.is_stale("double[room=a]", 10_500)
    task.cancel()
    bench.engine.hurry()
    running = bench.task
    assert running is not None
    with pytest.raises(ExceptionGroup):
        await running
    for status in bench.engine.status():
        if status.kind == "derived":
            assert status.coverage in before[status.stream], "nothing was added"
    store.fails = False
    await bench.again()
    assert (await bench.verify()).clean


async def test_what_follows_an_append_that_is_broken_off_is_stored(bench: Bench) -> None:
    """Nobody knows whether it is durable, so the same is written again. The next one had its number, and was lost."""
    bench.store = store = Held()
    await bench.start(bench.workflow(bench.node("double", "expression", ["power"], expression="2 * value")), run=False)
    bench.clock.advance(20_000)
    await bench.publish((5_000, 5.0), (6_000, 6.0))
    store.close_for("append")
    [power] = [status.stream for status in bench.engine.status("power")]
    task = asyncio.create_task(bench.engine.purge(power, START, START + 5_000))
    async with asyncio.timeout(5):
        await store.reached.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    store.open_up()
    await bench.publish((7_000, 7.0))
    assert await bench.contents("power[room=a]") == {6_000: 6.0, 7_000: 7.0}
    assert await bench.contents("double[room=a]") == {6_000: 12.0, 7_000: 14.0}
    assert (await bench.verify()).clean


GROWING = """
workflow: w
plates:
  country: {}
  city: {parent: country, from: cities, max: 3}
sources:
  rows: {plates: [country]}
nodes:
  cities: {tool: plate_values, from: rows}
  temperature: {tool: splitter_of_dict, from: rows, into: city}
"""


async def test_what_has_grown_in_a_step_that_is_broken_off_has_a_record(bench: Bench) -> None:
    """Its number was given away by the next start, and another stream found its data."""
    bench.store = store = Held()
    await bench.start(parse_workflow(GROWING, REGISTRY), run=False)
    bench.clock.advance(20_000)
    row = Reading("rows", (("country", "be"),), START + 2000, {"Namur": 5.0})
    await bench.engine.take([row])
    store.close_for("register")
    cities = StreamId.parse("cities[country=be]")
    task = asyncio.create_task(bench.engine.compute([cities], START, START + 5000))
    async with asyncio.timeout(5):
        await store.reached.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    store.open_up()
    await bench.engine.settle()
    assert await bench.contents("temperature[city=Namur,country=be]") == {2000: 5.0}
    known = {record.stream for record in await store.streams()}
    assert {status.stream for status in bench.engine.status()} == known


@pytest.mark.parametrize("kind", ["append", "read"])
async def test_a_clock_begins_anew_after_a_purge_that_is_broken_off(bench: Bench, kind: str) -> None:
    """It went on to begin with the reading that was gone, until a restart."""
    bench.store = store = Held()
    await bench.start(bench.workflow(bench.node("tick", "clock", every="1s")), run=False)
    bench.engine.connected(True)
    bench.clock.advance(20_000)
    await bench.publish((1_000, 5.0), (6_000, 6.0))
    await bench.pass_time(20_000)
    [power] = [status.stream for status in bench.engine.status("power")]
    store.close_for(kind)
    purging = asyncio.create_task(bench.engine.purge(power, START, START + 5_000))
    settling = asyncio.create_task(bench.engine.settle()) if kind == "read" else purging
    async with asyncio.timeout(5):
        await store.reached.wait()
    settling.cancel()
    await asyncio.wait({settling})
    store.open_up()
    await bench.publish((7_000, 7.0))
    assert min(await bench.contents("tick")) == 6_000
    assert (await bench.verify()).clean


async def test_a_room_that_joins_while_a_clock_looks_for_its_begin_counts(bench: Bench) -> None:
    """The look went over the streams of the engine, which ended as one more came."""
    bench.store = store = Held()
    await bench.start(bench.workflow(bench.node("tick", "clock", every="1s")), run=False)
    bench.engine.connected(True)
    bench.clock.advance(20_000)
    await bench.publish((1_000, 5.0), (6_000, 6.0))
    await bench.publish((6_000, 1.0), room="b")
    await bench.pass_time(20_000)
    [power, _] = [status.stream for status in bench.engine.status("power")]
    await bench.engine.purge(power, START, START + 5_000)
    store.close_for("read")
    stepping = asyncio.create_task(bench.engine.compute([StreamId.parse("tick")], START, START + 9_000))
    async with asyncio.timeout(5):
        await store.reached.wait()
    store.kind = ""
    readings = [Reading("power", (("room", "c"),), START + 3_000, 1.0)]
    await bench.engine.take(readings)
    store.open_up()
    await stepping
    await bench.engine.settle()
    assert min(await bench.contents("tick")) == 3_000
    assert (await bench.verify()).clean
