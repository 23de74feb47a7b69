"""What one old reading may cost, and that nobody waits for the work of others."""

from __future__ import annotations

import random
from typing import Any

import pytest

from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME
from hs_stream.core.workflow import SourceDefinition, WorkflowDefinition
from hs_stream.engine.ports import Delivery, Reading
from hs_stream.engine.telemetry import Telemetry
from hs_stream.plan import backlog
from hs_stream.plan.backlog import Backlog, Pace
from hs_stream.plan.streams import Stream
from tests.engine.conftest import START, Bench

DAY = 86_400_000
TICKS = StreamId("ticks")


def clocked(bench: Bench, name: str, source: str, *nodes: Any, every: str = "1s") -> WorkflowDefinition:
    """A workflow with a clock of its own, ``ticks`` and the like, beside what else it has."""
    made = (bench.node(f"{name}ticks", "clock", every=every), *nodes)
    return WorkflowDefinition(
        name or "w",
        plates=bench.workflow().plates,
        sources={source: SourceDefinition(source, ("room",))},
        nodes={node.name: node for node in made},
    )


async def send(bench: Bench, *times: int, asked: bool = False, source: str = "power", room: str = "a") -> None:
    """Readings at these times (ms after START) in one delivery, durable and not computed yet."""
    readings = [Reading(source, (("room", room),), START + time, 1.0) for time in times]
    await bench.engine.deliver(Delivery(readings, [], bench.clock.now(), lambda: None, asked=asked))
    await bench.engine._ingest.drain()


async def rest(bench: Bench) -> None:
    """Until silence is proven and all is computed."""
    bench.engine.connected(True)
    for _ in range(3):
        bench.clock.advance(20_000)
        await bench.engine._executor.step()
        await bench.engine.settle()


async def first_tick(bench: Bench) -> int:
    await bench.engine.settle()
    return min(await bench.contents("ticks"))


# --- where a clock begins ---


@pytest.mark.parametrize("alone", [True, False])
async def test_an_old_reading_moves_the_begin_by_so_much_and_no_more(bench: Bench, alone: bool) -> None:
    """`WF-13`. Whether or not there are others already; and what is asked for is meant."""
    seen: list[tuple[str, int, int, bool]] = []

    class Told(Telemetry):
        def backdated(self, source: str, stream: str, time: int, since: int, count: int, *, clocks: bool) -> None:
            seen.append((source, since - START, count, clocks))

    workflow = clocked(bench, "", "power")
    await bench.start(workflow, run=False, backdate=60_000, backdate_ticks=0)
    bench.engine._executor.begins._telemetry = Told()
    bench.engine.connected(True)
    bench.clock.advance(1_000_000)
    if not alone:
        await send(bench, 990_500)
    await send(bench, -9000 * DAY)
    await rest(bench)
    assert await first_tick(bench) == 940_000
    assert seen == [("power", 940_000, 1, True)]
    assert bench.engine.find(StreamId.parse("power[room=a]")).since == START + 940_000
    for _ in range(2):
        assert (await bench.verify()).clean
        await bench.stop()
        await bench.start(workflow, run=False, backdate=60_000, backdate_ticks=0)
        bench.engine.connected(True)
    await send(bench, 900_500)  # as old as that, and not more than it may be
    assert await first_tick(bench) == 940_000
    await send(bench, 700_500, asked=True)
    assert await first_tick(bench) == 701_000
    await send(bench, -9000 * DAY)  # once more
    assert await first_tick(bench) == 701_000
    await send(bench, 600_500, room="b", asked=True)
    assert await first_tick(bench) == 601_000
    assert (await bench.verify()).clean
    await bench.engine.purge(StreamId.parse("power[room=b]"), MIN_TIME, MAX_TIME)
    assert await first_tick(bench) == 701_000
    await bench.engine.purge(StreamId.parse("power[room=a]"), MIN_TIME, START + 800_000)
    assert await first_tick(bench) == 901_000
    assert (await bench.verify()).clean


async def test_a_slow_clock_begins_further_back(bench: Bench) -> None:
    """`WF-13`. What a reading brings about is bounded in ticks: those of a day are few."""
    workflow = clocked(bench, "", "power")
    await bench.start(workflow, run=False, backdate=60_000, backdate_ticks=200)
    bench.engine.connected(True)
    bench.clock.advance(1_000_000)
    await send(bench, 850_500)
    assert await first_tick(bench) == 851_000
    await send(bench, 100_500)
    assert await first_tick(bench) == 800_000
    await rest(bench)
    assert (await bench.verify()).clean


@pytest.mark.parametrize("seed", range(12))
async def test_the_begin_does_not_depend_on_rounds_and_restarts(bench: Bench, seed: int) -> None:
    """`WF-13`. Each reading decides for itself: the earliest of what they say is the begin."""
    rng = random.Random(seed)
    workflow = clocked(bench, "", "power", bench.node("count", "sliding_count", ["ticks"], width="5s"))
    await bench.start(workflow, run=False, backdate=30_000, backdate_ticks=0)
    says: list[int] = []
    for _ in range(12):
        bench.clock.advance(rng.choice([1, 1000, 7000, 40_000]))
        now = bench.clock.now() - START
        backs = [rng.choice([0, 500, 29_000, 31_000, 90_000, 400_000]) for _ in range(rng.randint(1, 3))]
        asked = rng.random() < 0.15
        says += [now - back if asked else max(now - back, now - 30_000) for back in backs]
        readings = [Reading("power", (("room", rng.choice("ab")),), START + now - back, 1.0) for back in backs]
        for some in [readings] if rng.random() < 0.5 else [[one] for one in readings]:
            await bench.engine.deliver(Delivery(some, [], bench.clock.now(), lambda: None, asked=asked))
        await bench.engine._ingest.drain()
        if rng.random() < 0.5:
            await bench.engine.settle()
        if rng.random() < 0.3:
            await bench.start(workflow, run=False, backdate=30_000, backdate_ticks=0)  # the one before was killed
    await rest(bench)
    begin = min(says)
    assert await first_tick(bench) == begin + -begin % 1000
    assert (await bench.verify()).clean


# --- whose turn it is ---


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """So many instances are one turn's work."""
    monkeypatch.setattr(backlog, "MOST", 100)
    monkeypatch.setattr(backlog, "_FIRST", 100)
    return 100


async def owing(bench: Bench, *names: str) -> None:
    """Each of these workflows owes 30,000 ticks."""
    means = [bench.node(f"{name}mean", "sliding_mean", [f"{name}power"], width="5s") for name in names]
    flows = [clocked(bench, name, f"{name}power", mean) for name, mean in zip(names, means, strict=True)]
    await bench.start(*flows, run=False)
    bench.engine.connected(True)
    bench.clock.advance(30_000_000)
    for name in names:
        await send(bench, 500, asked=True, source=f"{name}power")
    bench.clock.advance(20_000)
    for _ in range(3):
        assert await bench.engine._executor.step()
    assert sum(bench.engine.statistics().owed.values()) == len(names)


async def test_what_is_new_comes_before_what_is_owed(bench: Bench, small: int) -> None:
    """`IE-22`. A new room of another workflow, of the same one, and a tick of the clock, which owes history too."""
    await owing(bench, "first", "second")
    executor = bench.engine._executor
    for name in ("second", "first"):
        await send(bench, 30_019_000, source=f"{name}power", room="new")
        assert await executor.step()
        assert await bench.contents(f"{name}mean[room=new]") == {30_019_000: 1.0}
    before = max(await bench.contents("firstticks"))
    done = len(await bench.contents("firstticks"))
    bench.clock.advance(2000)
    assert await executor.step()
    assert max(await bench.contents("firstticks")) == before + 2000
    assert len(await bench.contents("firstticks")) == done + 2
    assert (await bench.verify()).count == 0


async def test_what_is_owed_takes_turns(bench: Bench, small: int) -> None:
    """`IE-22`. Workflows take turns, and so do the streams of one."""
    names = "first", "second", "third"
    await owing(bench, *names)
    before = [len(await bench.contents(f"{name}ticks")) for name in names]
    for _ in range(30):
        assert await bench.engine._executor.step()
    done = [len(await bench.contents(f"{name}ticks")) for name in names]
    assert [new - old for new, old in zip(done, before, strict=True)] == [10 * small] * 3


async def test_new_readings_without_end_do_not_hold_up_what_is_owed(bench: Bench, small: int) -> None:
    """`IE-22`, the other way round."""
    await owing(bench, "first")
    done = len(await bench.contents("firstticks"))
    for step in range(5):
        await send(bench, 30_010_000 + step, source="firstpower")
        assert await bench.engine._executor._step_and_turn()
    assert len(await bench.contents("firstticks")) >= done + 5 * small


async def test_who_asks_does_not_wait_for_the_rest(bench: Bench, small: int) -> None:
    """`IE-22`. Exactly what is asked for is computed, between two turns of what is owed besides."""
    await owing(bench, "first", "second")
    steps = bench.engine.statistics().steps
    await bench.engine.compute([StreamId("firstticks")], START + 1_000_000, START + 1_050_000)
    assert bench.engine.statistics().steps - steps < 8
    batch = await bench.engine.read(StreamId("firstticks"), MIN_TIME, START + 20_000_000)
    assert len(batch) == 50
    assert bench.engine.find(StreamId("firstticks")).pending


async def test_all_that_is_owed_is_done_in_the_end(bench: Bench, small: int) -> None:
    """`IE-1` with many turns; and how much is left is told (`IE-23`)."""
    await owing(bench, "first", "second")
    assert bench.engine.statistics().owed == {"first": 1, "second": 1}
    await bench.engine.settle()
    assert bench.engine.statistics().owed == {}
    assert (await bench.verify()).clean


def test_the_budget_follows_how_long_steps_take() -> None:
    """`IE-22`. It is never nothing, and grows only where it is used up."""
    pace = Pace(least=1000)
    first = pace.budget
    pace.follow(10, 10, exhausted=False)
    assert pace.budget == first
    pace.follow(10, 10, exhausted=True)
    assert pace.budget == 2 * first
    pace.follow(170, 170, exhausted=True)
    assert pace.budget == 2 * first
    for _ in range(20):
        pace.follow(5000, 5000, exhausted=True)
    assert pace.budget == 1000
    for _ in range(20):
        pace.follow(0, 0, exhausted=True)
    assert pace.budget == backlog.MOST


def test_a_turn_is_not_made_smaller_than_what_it_costs_anyway() -> None:
    """`IE-22`. Thousands of holes, or a slow commit: twice as many turns would take twice as long."""
    pace = Pace()
    first = pace.budget
    pace.follow(800, 500, exhausted=True)
    assert pace.budget == first
    pace.follow(800, 100, exhausted=True)
    assert pace.budget == 2 * first
    pace.follow(800, 700, exhausted=True)
    assert pace.budget == first


def test_streams_of_a_lane_take_turns_also_where_one_uses_all_up() -> None:
    """`IE-22`. Who got nothing keeps its place, and in the end a turn looks at one stream alone."""
    streams = [Stream(index, StreamId(f"s{index}"), "derived") for index in range(4)]
    waiting = Backlog()
    for stream in streams:
        stream.workflow = "w"
        waiting.add(stream, served=False)
    served = []
    for _ in range(20):
        found = waiting.turn()
        assert found is not None
        lane, some = found
        served.append(some[0].id)
        waiting.add(some[0], served=True)
        for stream in some[1:]:
            waiting.add(stream, served=False)
        lane.follow(0, 0, exhausted=True)
    assert served == [0, 1, 2, 3] * 5
    assert len(some) == 1
    for stream in streams:
        waiting.discard(stream)
    assert waiting.turn() is None
    assert not waiting
