"""What happens to results that are to be published while nobody publishes: an import, a command, a library."""

from __future__ import annotations

import asyncio

from hs_stream.core.stream import StreamId
from hs_stream.core.workflow import WorkflowDefinition
from tests.engine.conftest import Bench

DOUBLE = StreamId.parse("double[room=a]")


def doubled(bench: Bench) -> WorkflowDefinition:
    return bench.workflow(bench.node("double", "expression", ["power"], expression="value * 2", publish={}))


async def test_what_is_computed_without_a_sink_is_published_by_the_next_engine_that_has_one(bench: Bench) -> None:
    await bench.start(doubled(bench), publishing=False)
    bench.clock.advance(10_000)
    for second in range(3):
        await bench.publish((second * 1000, float(second)))
    await bench.stop()
    # Another one without a sink changes nothing about that.
    await bench.start(doubled(bench), publishing=False)
    await bench.publish((3000, 3.0))
    await bench.stop()
    assert bench.subscriber.contents == {}
    await bench.start(doubled(bench))
    async with asyncio.timeout(5):
        await bench.engine.published()
    assert dict(bench.subscriber.contents[DOUBLE]) == dict(
        await bench.engine.read(DOUBLE, bench.clock.now() - 60_000, bench.clock.now())
    )
    assert len(bench.subscriber.contents[DOUBLE]) == 4


async def test_without_a_sink_nothing_waits_in_memory_and_nobody_waits(bench: Bench) -> None:
    await bench.start(doubled(bench), publishing=False)
    bench.clock.advance(100_000)
    await bench.publish(*((second * 1000, float(second)) for second in range(50)))
    statistics = bench.engine.statistics()
    assert (statistics.results, statistics.published, statistics.outbox_pending) == (50, 0, 0)
    async with asyncio.timeout(1):
        await bench.engine.published()
        await bench.engine.stop()
    assert len(await bench.store.outbox(0, 1000)) == statistics.steps
