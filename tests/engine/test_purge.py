"""What a purge while no service runs tells subscribers of the next one."""

from __future__ import annotations

from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME
from tests.engine.conftest import START, Bench


async def test_the_next_service_retracts_what_was_purged_before_it(bench: Bench) -> None:
    workflow = bench.workflow(bench.node("mean", "sliding_mean@^1", ["power"], width="10s", publish={}))
    mean = StreamId.parse("mean[room=a]")
    await bench.start(workflow)
    bench.clock.advance(9_000)
    await bench.publish(*((second * 1000, float(second)) for second in range(10)))
    await bench.engine.published()
    await bench.stop()
    assert len(bench.subscriber.contents[mean]) == 10
    engine = await bench.start(workflow, run=False)
    assert await engine.purge(StreamId.parse("power[room=a]"), START + 4_000, MAX_TIME) == 5
    assert await engine.purge(StreamId.parse("power[room=a]"), MIN_TIME, START - 1) == 0
    await engine.settle()
    await engine.close()
    assert len(bench.subscriber.contents[mean]) == 10
    await bench.start(workflow)
    await bench.engine.published()
    assert sorted(bench.subscriber.contents[mean]) == [START + second * 1000 for second in range(5)]
