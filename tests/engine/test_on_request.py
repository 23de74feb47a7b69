"""What is computed on request only: what is known of it, what silence proves, where clocks begin, what history says."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from hs_stream.core.stream import StreamId
from hs_stream.core.time import MIN_TIME, TimeIntervals
from hs_stream.core.tool import FoldTool
from hs_stream.core.value import Value
from hs_stream.core.workflow import NodeDefinition, WorkflowDefinition
from hs_stream.engine.ports import Delivery, Reading

from .conftest import START, Bench


@dataclass(frozen=True, kw_only=True)
class Count(FoldTool):
    """How many so far."""

    name = "count"
    version = "1.0.0"

    def initial(self) -> Value:
        return 0

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        return state + 1, state + 1


def counting_ticks(bench: Bench) -> WorkflowDefinition:
    ticks = bench.node("ticks", "clock", every="10s")
    return bench.workflow(ticks, NodeDefinition("count", Count(), ("ticks",)), online=False)


def span(start: int, end: int) -> TimeIntervals:
    return TimeIntervals.of(START + start, START + end)


async def test_silence_proves_nothing_of_what_nobody_asked_for(bench: Bench) -> None:
    await bench.start(bench.workflow(bench.node("mean", "sliding_mean", ["power"], width="2s"), online=False))
    await bench.publish(*((second * 1000, 1.0) for second in range(100)))
    await bench.pass_time(1_000_000)
    mean = StreamId.parse("mean[room=a]")
    await bench.engine.compute([mean], START + 10_000, START + 20_000)
    assert bench.engine.find(mean).coverage == span(10_000, 20_000)
    await bench.pass_time(1_000_000)
    assert bench.engine.find(mean).coverage == span(10_000, 20_000)
    assert (await bench.verify()).clean


async def test_a_request_may_take_the_readings_as_complete(bench: Bench) -> None:
    mean = bench.node("mean", "sliding_mean", ["power"], width="10s", every="1s")
    await bench.start(bench.workflow(mean, online=False), run=False)
    await bench.publish((0, 1.0), (2000, 3.0))
    bench.clock.advance(60_000)
    stream, power = StreamId.parse("mean[room=a]"), StreamId.parse("power[room=a]")
    await bench.engine.compute([stream], START - 1000, START + 5_000)
    assert bench.engine.find(stream).coverage == span(-1000, 2000)
    await bench.engine.compute([stream], START - 1000, START + 5_000, complete=True)
    assert bench.engine.find(stream).coverage == span(-1000, 5000)
    assert bench.engine.find(power).upper == START + 5000  # and not more than was needed
    assert list((await bench.contents("mean[room=a]")).values()) == [1.0, 1.0, 2.0, 2.0, 2.0, 2.0]
    # What comes after all is late, also for an engine that begins anew.
    await bench.stop()
    await bench.start(*bench.workflows, run=False)
    assert bench.engine.find(power).upper == START + 5000
    await bench.publish((4000, 8.0))
    assert bench.engine.find(stream).coverage == span(-1000, 3999)
    # Up to now, silence proves what it would prove a service: nothing of the last ten seconds.
    await bench.engine.compute([stream], START, START + 1_000_000, complete=True)
    assert bench.engine.find(stream).coverage.end == bench.clock.now() - 10_000
    assert (await bench.verify()).clean


@pytest.mark.parametrize("crash", [False, True])
async def test_a_begin_that_moves_takes_back_what_rests_on_the_ticks(bench: Bench, crash: bool) -> None:
    workflow = counting_ticks(bench)
    await bench.start(workflow, run=False)
    bench.clock.advance(1_000_000)
    await bench.publish((500_001, 1.0))
    count = StreamId.parse("count")
    await bench.engine.compute([count], START + 500_000, START + 560_000, complete=True)
    assert list((await bench.contents("count")).values()) == [1, 2, 3, 4, 5, 6]
    earlier = [Reading("power", (("room", "a"),), START + 401_001, 1.0)]
    await bench.engine.deliver(Delivery(earlier, [], bench.clock.now(), lambda: None))
    if crash:
        await bench.engine._ingest.drain()
        await bench.start(workflow, run=False)
    await bench.engine.settle()
    # Asked for where there is no tick: nothing shows the move but the coverage.
    await bench.engine.compute([StreamId.parse("ticks")], START + 401_000, START + 405_000, complete=True)
    assert not bench.engine.find(count).coverage
    assert bench.engine.find(count).stale
    assert (await bench.verify()).clean
    await bench.engine.compute([count], START + 500_000, START + 560_000, complete=True)
    assert (await bench.contents("count"))[510_000] == 11
    assert (await bench.verify()).clean


@pytest.mark.parametrize("seed", range(8))
async def test_random_requests_and_readings_are_as_from_scratch(bench: Bench, seed: int) -> None:
    rng = random.Random(seed)
    nodes = [
        bench.node("double", "expression", ["power"], expression="value * 2"),
        bench.node("mean", "sliding_mean", ["double"], width="7s", every="2s"),
        bench.node("slope", "derivative", ["mean"]),
        bench.node("all", "aggregate", ["double"], function="sum", over=("room",)),
        bench.node("ticks", "clock", every="3s"),
        bench.node("sum", "sliding_count", ["ticks"], width="9s"),
        NodeDefinition("count", Count(), ("ticks",)),
        NodeDefinition("counts", Count(), ("slope",)),
    ]
    workflow = bench.workflow(*nodes, online=False)
    await bench.start(workflow, run=False, chunk=rng.choice([3, 20_000]))
    for _ in range(40):
        bench.clock.advance(rng.choice([1, 1000, 20_000]))
        now = bench.clock.now()
        choice = rng.random()
        if choice < 0.4:
            times = [now - START - rng.randrange(90_000) for _ in range(rng.randint(1, 5))]
            await bench.publish(*((time, rng.choice([1.0, -2.0])) for time in times), room=rng.choice("ab"))
        elif choice < 0.9:
            targets = [status.stream for status in bench.engine.status() if status.kind == "derived"]
            if targets:
                start, end = sorted(rng.sample(range(now - 100_000, now + 20_000), 2))
                await bench.engine.compute(rng.sample(targets, 1), start, end, complete=rng.random() < 0.7)
        else:
            await bench.stop()
            await bench.start(workflow, run=False)
        found = await bench.verify()
        assert found.clean, found.mismatches[:3]


async def test_history_names_the_session_and_is_whole_at_the_end(bench: Bench) -> None:
    await bench.start(bench.workflow(bench.node("double", "expression", ["power"], expression="value * 2")))
    bench.engine.session = "one"
    for second in range(3):
        await bench.publish((second, 1.0))
    await bench.stop()
    await bench.store.open()
    entries = await bench.store.history(10)
    assert sum(entry.instances for entry in entries) == 3
    assert {entry.session for entry in entries} == {"one"}
    assert {entry.stream for entry in entries} == {"double"}


async def test_history_of_a_request_is_there_at_once(bench: Bench) -> None:
    await bench.start(
        bench.workflow(bench.node("double", "expression", ["power"], expression="value * 2"), online=False), run=False
    )
    await bench.publish((0, 1.0), (1000, 2.0), (2000, 3.0))
    double = StreamId.parse("double[room=a]")
    for end in (0, 1000, 2000):
        await bench.engine.compute([double], START - 1, START + end)
        await bench.engine.write_history()
    entries = await bench.store.history(10)
    assert [(entry.start - START, entry.end - START, entry.cause) for entry in entries] == [
        (1000, 2000, "request"),
        (0, 1000, "request"),
        (-1, 0, "request"),
    ]
    assert (await bench.store.read(bench.engine.find(double).id, MIN_TIME, START + 9_000)).plain() == [2.0, 4.0, 6.0]
