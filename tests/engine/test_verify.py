"""What an evaluation from scratch finds: differences, and what is wanted and missing."""

from __future__ import annotations

from hs_stream.core.stream import StreamId
from hs_stream.core.time import EMPTY, MAX_TIME, MIN_TIME, TimeIntervals
from hs_stream.testing.oracle import verify
from tests.engine.conftest import START, Bench

MEAN = StreamId.parse("mean[room=a]")
SLOPE = StreamId.parse("slope[room=a]")


async def test_what_an_engine_forgets_to_compute_is_missing(bench: Bench) -> None:
    mean = bench.node("mean", "sliding_mean", ["power"], width="2s")
    await bench.start(bench.workflow(mean, bench.node("slope", "derivative", ["mean"])))
    bench.clock.advance(10_000)
    await bench.publish((0, 1.0), (1000, 3.0))
    assert (await bench.verify()).missing == {}
    bench.engine._graph.streams[MEAN].demand = EMPTY  # what no engine should do
    await bench.publish((2000, 5.0), (3000, 7.0))
    found = await bench.verify()
    assert (found.count, found.clean) == (0, False), "all that is covered is right"
    assert found.missing == {MEAN: [START + 2000, START + 3000], SLOPE: [START + 2000, START + 3000]}
    assert found.owed[MEAN] == TimeIntervals.of(START + 1000, START + 3000)


async def test_what_cannot_be_known_yet_is_not_missing(bench: Bench) -> None:
    """Not before the watermark has passed it; nor what nobody wants, or a tool refuses."""
    nodes = [
        bench.node("mean", "sliding_mean", ["power"], width="10s", every="10s"),
        bench.node("slope", "derivative", ["light"]),
    ]
    await bench.start(bench.workflow(*nodes, start=START + 15_000), lateness=5000)
    bench.clock.advance(30_000)
    await bench.publish((0, 1.0), (9000, 3.0), (21_000, 3.0))
    await bench.publish((20_000, "no number"), (29_000, 1.0), source="light")
    found = await bench.verify()
    assert found.clean, found.missing
    assert MEAN in found.not_computed
    assert MEAN not in found.owed
    assert SLOPE in found.not_computable


async def test_clocks_tick_no_further_than_time_has_come(bench: Bench) -> None:
    tick = bench.node("tick", "clock", every="10s")
    await bench.start(bench.workflow(tick, bench.node("count", "sliding_count", ["tick"], width="30s")))
    await bench.publish((0, 1.0))
    await bench.pass_time(60_000)
    records, horizon = bench.engine.records(), bench.engine.horizon
    found = await verify(bench.store, bench.workflows, MIN_TIME, MAX_TIME, records=records, horizon=horizon)
    assert (found.clean, found.not_computable) == (True, {})
    assert found.instances >= 12
