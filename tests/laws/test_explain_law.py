"""What an explanation says that a value rests on, it does rest on: without all other readings it is the same.

Random workflows of any tools, over random readings. A value is explained, and then computed from scratch from nothing
but the readings that the explanation says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME
from hs_stream.core.value import same
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.engine import Engine, EngineSettings
from hs_stream.engine.explain import Explanation, Limits
from hs_stream.engine.ports import Delivery, Reading, StreamRecord
from hs_stream.plugins import default_registry
from hs_stream.store.memory import MemoryStore
from hs_stream.testing.clock import VirtualClock
from hs_stream.testing.strategies import SOURCES, values, workflows

REGISTRY = default_registry()
ORIGIN = 1_600_000_000_000
ROOMS = ((("house", "1"), ("room", "a")), (("house", "1"), ("room", "b")))


@st.composite
def readings(draw: st.DrawFn) -> list[Reading]:
    """Of some streams, at times of their own or together."""
    found = {}
    times = st.integers(0, 60).map(lambda step: ORIGIN + 500 * step)
    for name in draw(st.lists(st.sampled_from(sorted(SOURCES)), min_size=1, max_size=20)):
        time, room = draw(times), draw(st.sampled_from(ROOMS))
        found[name, room, time] = Reading(name, room, time, draw(values(SOURCES[name])))
    return sorted(found.values(), key=lambda one: one.time)


async def computed(
    workflow: WorkflowDefinition, given: Iterable[Reading], records: Sequence[StreamRecord] = ()
) -> Engine:
    """An engine that has taken these in, and some silence after them. ``records``: streams that there are anyway."""
    clock, store = VirtualClock(ORIGIN + 60_000), MemoryStore()
    await store.open()
    await store.register(records)
    engine = Engine(store, clock=clock, settings=EngineSettings(idle=1_000))
    await engine.open([workflow])
    engine.connected(True)
    await engine.deliver(Delivery(list(given), [], clock.now(), lambda: None))
    await engine.settle()
    for _ in range(3):
        clock.advance(60_000)
        await engine.settle()
    return engine


def is_read(explained: Explanation, one: Reading) -> bool:
    stream = StreamId(one.source, one.meta)
    return any(level.stream == stream and level.spans.contains(one.time) for level in explained.levels)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(workflow=workflows(REGISTRY), given=readings(), chosen=st.integers(0, 1 << 30))
async def test_nothing_else_is_read(workflow: WorkflowDefinition, given: list[Reading], chosen: int) -> None:
    # What has no inputs begins with the first reading unless that is said.
    workflow = replace(workflow, online=True, start=ORIGIN - 1_000)
    engine = await computed(workflow, given)
    every = [
        (status.stream, time, value)
        for status in engine.status()
        # A plate that grows by results has its streams by readings of any time.
        if status.kind == "derived" and status.stream.value_of("found") is None
        for time, value in await engine.read(status.stream, MIN_TIME, MAX_TIME, limit=20)
    ]
    assume(every)
    stream, time, value = every[chosen % len(every)]
    explained = await engine.explain(stream, time, Limits(depth=100, streams=1000))
    raw = [record for record in await engine.store.streams() if record.kind == "raw"]
    await engine.close()
    assert (explained.state, explained.left_off) == ("computed", 0)
    read = [one for one in given if is_read(explained, one)]
    event("some are left out" if len(read) < len(given) else "all are read")
    again = await computed(workflow, read, raw)
    found = dict(await again.read(stream, time - 1, time))
    await again.close()
    assert time in found, (stream, time)
    assert same(found[time], value)
