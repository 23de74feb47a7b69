"""What is wanted: requested intervals, beginnings that lie ahead, and what nobody wants any more."""

from __future__ import annotations

from typing import Any

import pytest

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MIN_TIME, TimeIntervals
from hs_stream.core.workflow import NodeDefinition, WorkflowDefinition

from .conftest import REGISTRY, START, Bench

MEAN = StreamId.parse("mean[room=a]")


def wanted(*pairs: tuple[int, int]) -> TimeIntervals:
    """Intervals in seconds after START."""
    return TimeIntervals((START + first * 1000, START + last * 1000) for first, last in pairs)


def requested(bench: Bench, *pairs: tuple[int, int], nodes: list[NodeDefinition] | None = None) -> WorkflowDefinition:
    made = nodes or [bench.node("mean", "sliding_mean", ["power"], width="2s", publish={})]
    return bench.workflow(*made, online=False, requested_intervals=wanted(*pairs))


async def seconds(bench: Bench, first: int, last: int, **where: str) -> None:
    await bench.publish(*((second * 1000, float(second)) for second in range(first, last)), **where)


async def clean(bench: Bench) -> None:
    found = await bench.verify()
    assert found.clean, found.mismatches
    recent = bench.clock.now() - 10_000
    assert not [stream for stream, spans in found.owed.items() if spans.start < recent], found.owed


async def test_exactly_the_requested_intervals_are_computed(bench: Bench, evaluations: Any) -> None:
    await bench.start(requested(bench, (10, 20), (40, 50)))
    bench.clock.advance(10_000_000)
    await seconds(bench, 0, 100)
    assert sorted(await bench.contents("mean[room=a]")) == [
        1000 * second for second in (*range(11, 21), *range(41, 51))
    ]
    assert bench.engine.find(MEAN).coverage == wanted((10, 20), (40, 50))
    evaluations()
    await seconds(bench, 100, 110)
    assert evaluations() == [], "nobody wants it"
    # A late reading inside, and one outside.
    await bench.publish((15_500, 100.0))
    await bench.publish((30_500, 100.0))
    assert {(name, start > 15_000, end <= 20_000) for name, start, end in evaluations()} == {
        ("mean[room=a]", True, True)
    }
    assert (await bench.contents("mean[room=a]"))[16_000] == (15 + 100 + 16) / 3
    await bench.engine.published()
    assert bench.subscriber.revisions[MEAN, START + 16_000] == 1
    await clean(bench)


async def test_silence_proves_nothing_about_what_is_not_computed(bench: Bench) -> None:
    await bench.start(requested(bench, (10, 20)))
    bench.clock.advance(200_000)
    await seconds(bench, 0, 100)
    await bench.pass_time(100_000)
    assert bench.engine.find(MEAN).coverage == wanted((10, 20))
    await bench.engine.compute([MEAN], START + 40_000, START + 50_000)
    await bench.pass_time(100_000)
    assert bench.engine.find(MEAN).coverage == wanted((10, 20), (40, 50))
    await clean(bench)


async def test_intervals_that_lie_ahead_are_computed_when_their_time_comes(bench: Bench) -> None:
    nodes = [
        bench.node("tick", "clock", every="5s"),
        bench.node("mean", "sliding_mean", ["power"], width="80s", every="10s"),
        bench.node("double", "expression", ["mean"], expression="value * 2"),
    ]
    await bench.start(requested(bench, (30, 50), (75, 95), nodes=nodes))
    await bench.publish((1000, 5.0), (4000, 7.0))
    for _ in range(20):
        await bench.pass_time(0)
    assert sorted(await bench.contents("double[room=a]")) == [40_000, 50_000, 80_000]
    assert sorted(await bench.contents("tick")) == [35_000, 40_000, 45_000, 50_000, 80_000, 85_000, 90_000, 95_000]
    for stream in ("double[room=a]", "mean[room=a]", "tick"):
        assert wanted((30, 50), (75, 95)) in bench.engine.find(StreamId.parse(stream)).coverage, stream
    await clean(bench)


async def test_a_start_that_lies_ahead(bench: Bench) -> None:
    node = bench.node("mean", "sliding_mean", ["power"], width="60s", every="10s")
    await bench.start(bench.workflow(node, start=START + 45_000))
    await bench.publish((1000, 5.0))
    for _ in range(10):
        await bench.pass_time(0)
    assert sorted(await bench.contents("mean[room=a]")) == [50_000, 60_000]
    await clean(bench)


async def test_a_start_that_lies_a_little_ahead_of_what_was_computed(bench: Bench) -> None:
    """Between them nothing is known; its beginning must be looked at, whatever is due later."""
    node = bench.node("mean", "sliding_mean", ["power"], width="2h", every="1h")
    await bench.start(bench.workflow(node))
    bench.clock.advance(60_000)
    await bench.publish((1000, 5.0))
    await bench.pass_time(0)
    await bench.stop()
    end = bench.engine.find(MEAN).coverage.end
    await bench.start(bench.workflow(node, start=end + 1500))
    await bench.pass_time(50_000)
    await clean(bench)
    assert bench.engine.find(MEAN).coverage.covers(end + 1500, bench.clock.now() - 10_000)


async def test_a_new_stream_wants_more_of_what_is_there(bench: Bench) -> None:
    """The first reading of a room brings a stream that reads all that was before `start`, of a silent input too."""
    tick = bench.node("tick", "clock", every="7m")
    held = NodeDefinition("held", REGISTRY.resolve("as_of_join").build({}), ("power", "tick"), on=("room",))
    await bench.start(bench.workflow(tick, held, start=START))
    await bench.pass_time(30_000)
    assert not bench.engine.find(StreamId("tick")).coverage.covers(START - 1000, START)
    await bench.publish((0, 1.0))
    assert bench.engine.find(StreamId("tick")).coverage.covers(START - 1000, START)
    await clean(bench)


def means(bench: Bench) -> list[NodeDefinition]:
    """A mean over rooms that only exist while somebody wants it."""
    double = bench.node("double", "expression", ["power"], expression="value * 2")
    return [double, bench.node("house", "aggregate", ["double"], over=["room"], function="mean")]


async def test_who_watches_a_stream_that_nobody_keeps_sees_what_joins_it(bench: Bench) -> None:
    await bench.start(bench.workflow(*means(bench), online=False))
    await bench.publish((0, 1.0))
    token = bench.engine.want(StreamId("house"), START - 1000)
    await bench.publish((1000, 3.0))
    await bench.publish((1000, 5.0), (2000, 5.0), room="b")
    await bench.publish((2000, 3.0))
    assert await bench.contents("house") == {0: 2.0, 1000: 8.0, 2000: 8.0}
    bench.engine.unwant(token)
    await bench.publish((3000, 3.0))
    await bench.publish((3000, 3.0), room="b")
    assert 3000 not in await bench.contents("house"), "nobody wants it any more"
    assert 3000 not in await bench.contents("double[room=b]"), "nor what joined meanwhile"
    await clean(bench)


async def test_who_watches_a_stream_before_its_start_sees_it(bench: Bench) -> None:
    await bench.start(bench.workflow(*means(bench), start=START + 3_600_000))
    await bench.publish((0, 1.0))
    token = bench.engine.want(StreamId("house"), START - 1000)
    await bench.publish((1000, 3.0))
    assert await bench.contents("house") == {0: 2.0, 1000: 6.0}
    bench.engine.unwant(token)
    await bench.publish((2000, 3.0))
    assert sorted(await bench.contents("house")) == [0, 1000]
    # Where its workflow keeps it by now, nothing more is computed for who watches.
    bench.clock.advance(7_200_000)
    bench.engine.want(StreamId("house"), MIN_TIME)
    await bench.publish((3000, 3.0))
    assert sorted(await bench.contents("house")) == [0, 1000]
    await clean(bench)


async def test_online_from_a_start_and_requested_before_it(bench: Bench) -> None:
    node = bench.node("mean", "sliding_mean", ["power"], width="2s")
    workflow = bench.workflow(node, start=START + 50_000, requested_intervals=wanted((10, 20)))
    await bench.start(workflow)
    bench.clock.advance(10_000_000)
    await seconds(bench, 0, 60)
    assert sorted(await bench.contents("mean[room=a]")) == [1000 * s for s in (*range(11, 21), *range(51, 60))]
    await clean(bench)
    with pytest.raises(ConfigurationError, match="requested_intervals ask for parts"):
        bench.workflow(node, requested_intervals=wanted((10, 20)))


async def test_requests_change_over_restarts(bench: Bench) -> None:
    """Whatever is added, moved and taken away: what is covered is right."""
    nodes = [
        bench.node("tick", "clock", every="3s"),
        bench.node("held", "as_of_join", ["tick", "power"], names=["t", "p"]),
        bench.node("mean", "sliding_mean", ["power"], width="4s"),
        bench.node("total", "integral", ["power"]),
    ]
    steps: list[list[tuple[int, int]]] = [[(30, 40)], [(10, 20), (30, 40)], [(10, 20)], [(60, 70)], [], [(5, 90)]]
    for index, pairs in enumerate(steps):
        await bench.start(requested(bench, *pairs, nodes=nodes))
        if not index:
            bench.clock.advance(10_000_000)
            await seconds(bench, 0, 100)
        await bench.engine.settle()
        await bench.publish((1000 * (index * 7) + 500, float(index)))
        if index == 3:
            await bench.engine.compute(
                [StreamId("tick"), StreamId.parse("held[room=a]")], START + 45_000, START + 50_000
            )
        await clean(bench)
        if index < len(steps) - 1:
            await bench.stop()
    assert min(await bench.contents("tick")) == 8_000


async def test_what_comes_back_is_right(bench: Bench) -> None:
    """A workflow goes, its readings are corrected meanwhile, and it comes back."""
    keeps = bench.workflow(bench.node("double", "expression", ["power"], expression="value * 2"))
    goes = WorkflowDefinition(
        "goes",
        plates=keeps.plates,
        sources={"power": keeps.sources["power"]},
        nodes={
            node.name: node
            for node in (
                bench.node("mean", "sliding_mean", ["power"], width="2s"),
                bench.node("sum", "aggregate", ["power"], over=["room"], function="sum"),
                bench.node("total", "integral", ["mean"]),
            )
        },
    )
    await bench.start(keeps, goes, run=False)
    bench.clock.advance(10_000_000)
    await seconds(bench, 0, 20)
    before = await bench.contents("mean[room=a]")
    await bench.stop()
    for change in ("later", "late", "new"):
        await bench.start(keeps, run=False)
        if change == "later":
            await seconds(bench, 20, 30)
        elif change == "late":
            await bench.publish((10_500, 100.0))
        else:
            await seconds(bench, 5, 9, room="b")
        record = next(one for one in await bench.store.streams() if one.stream == MEAN)
        assert bool(record.fingerprint) is (change == "later"), "it is only forgotten when something changed"
        assert len(await bench.store.read(record.id, START, START + 20_000)) >= len(before) - 1
        await bench.stop()
        await bench.start(keeps, goes, run=False)
        await bench.engine.settle()
        found = await bench.verify()
        assert found.clean, found.mismatches
        await bench.stop()
