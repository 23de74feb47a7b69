"""What the state machine found, shrunk to what matters. Each of these was a difference or a standstill once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hs_stream.core.calendar import Cells
from hs_stream.core.errors import ToolError
from hs_stream.core.plate import Plate
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MIN_TIME, Grid, TimeIntervals
from hs_stream.core.workflow import NodeDefinition, SourceDefinition, WorkflowDefinition
from hs_stream.engine.engine import EngineSettings
from hs_stream.engine.ports import Append, Reading, Store
from hs_stream.plugins import default_registry
from hs_stream.store.memory import MemoryStore
from hs_stream.testing.history import History

REGISTRY = default_registry()
NOW = 1_600_000_000_000
AROUND = TimeIntervals.of(NOW - 60_000, NOW + 60_000)


def node(
    name: str, pin: str, inputs: Sequence[str] = (), over: Sequence[str] = (), **parameters: Any
) -> NodeDefinition:
    return NodeDefinition(name, REGISTRY.resolve(pin).build(parameters), tuple(inputs), tuple(over), {})


def workflow(*nodes: NodeDefinition, **wanted: Any) -> WorkflowDefinition:
    return WorkflowDefinition(
        "w",
        plates={"room": Plate("room")},
        sources={name: SourceDefinition(name, ("room",)) for name in ("power", "light")},
        nodes={item.name: item for item in nodes},
        **wanted,
    )


class Played:
    """A history of one workflow on a memory store."""

    def __init__(self) -> None:
        self.history: History

    async def begin(self, *nodes: NodeDefinition, wanted: Mapping[str, Any] | None = None, **settings: Any) -> History:
        store = MemoryStore()

        async def factory() -> Store:
            return store

        self.history = History(factory, [workflow(*nodes, **(wanted or {}))], EngineSettings(**settings), NOW)
        await self.history.begin()
        return self.history

    async def publish(self, *items: tuple[str, str, int, Any]) -> None:
        """``(source, room, milliseconds before NOW, value)`` in one delivery."""
        readings = [Reading(source, (("room", room),), NOW - back, value) for source, room, back, value in items]
        await self.history.survive(lambda: self.history.deliver(readings))
        await self.history.settle()

    async def finish(self) -> None:
        for _ in range(3):
            await self.history.pass_time(60_000)
        await self.history.check()
        await self.history.end()


@pytest.fixture
async def played() -> AsyncIterator[Played]:
    made = Played()
    yield made
    await made.history.abandon()


async def test_a_hole_that_a_slow_input_keeps_open_is_filled_by_silence(played: Played) -> None:
    history = await played.begin(node("highest", "aggregate", ["power"], over=["room"], function="max"))
    await played.publish(("power", "a", 0, 1.5))
    await history.restart()
    await played.publish(("power", "b", 300_000, 1.5))
    await history.restart()
    await history.purge(StreamId("highest"), NOW - 3_600_000, NOW - 1)
    await played.finish()


async def test_a_clock_without_readings_starts_with_the_first(played: Played) -> None:
    history = await played.begin(node("tick", "clock", every="1d", tz="Europe/Brussels"))
    await history.pass_time(60_000)
    await played.publish(("power", "a", 0, 1.0))
    await played.finish()


async def test_the_newest_readings_are_all_retracted(played: Played) -> None:
    """The store holds what the step has retracted already; what is read must be further on."""
    history = await played.begin(
        node("twice", "expression", ["power"], expression="value * 2"),
        node("changes", "debounce", ["twice"], hold="0s"),
        node("mean", "sliding_mean", ["twice"], width="10s"),
        chunk=3,
    )
    await played.publish(*[("power", "a", back, float(back % 7)) for back in range(0, 40_000, 1000)])
    await history.restart()
    await history.purge(StreamId.parse("twice[room=a]"), NOW - 60_000, NOW)
    await played.finish()


async def test_all_readings_are_purged(played: Played) -> None:
    history = await played.begin(
        node("tick", "clock", every="10s"), node("total", "integral", ["power"]), node("slope", "derivative", ["power"])
    )
    await played.publish(*[("power", "a", back, 1.0) for back in (90_000, 50_000, 0)])
    await history.purge(StreamId.parse("power[room=a]"), NOW - 90_000, NOW)
    await played.finish()
    await history.begin()
    await history.purge(StreamId.parse("power[room=a]"), NOW - 100_000, NOW)
    await history.settle()
    await history.restart()
    await played.finish()


async def test_states_of_another_definition_are_forgotten(played: Played) -> None:
    history = await played.begin(node("total", "integral", ["power"], unit="1h"), chunk=300)
    await played.publish(*[("power", "a", back, 1.0) for back in range(1_500_000, 0, -1000)])
    await history.restart([workflow(node("total", "integral", ["power"], unit="1s"))])
    history.arm(2, "after")
    await history.settle()
    await played.finish()


async def test_a_new_input_takes_coverage_back_as_far_as_it_is_not_known(played: Played) -> None:
    """It may have readings where the aggregate is covered already, which lateness or another node still holds up."""
    history = await played.begin(
        node("steady", "debounce", ["light"], hold="0s"),
        node("mean", "aggregate", ["steady"], over=["room"], function="mean"),
        lateness=2000,
    )
    await played.publish(("light", "a", 0, 0.0))
    await played.publish(("light", "b", 2500, 0.0))
    await history.check(everything=False)
    await history.restart()
    await history.check(everything=False)
    await played.finish()


async def test_a_crash_forgets_that_new_inputs_took_coverage_back(played: Played) -> None:
    """Their readings were durable, and what they took back from the aggregate was not."""
    history = await played.begin(node("mean", "aggregate", ["power"], over=["room"], function="mean"))
    await played.publish(("power", "a", 1, 2.0))
    history.arm(3, "before")  # register, append, commit
    await played.publish(("power", "b", 1000, 1.5), ("power", "c", 1, 1.5))
    await played.finish()


async def test_what_is_stored_after_the_coverage_is_looked_at_again_after_a_restart(played: Played) -> None:
    """A new input took the coverage back, and then the reading that the result came from was purged."""
    history = await played.begin(node("mean", "aggregate", ["power"], over=["room"], function="mean"))
    await played.publish(("power", "b", 0, 0.0))
    await played.publish(("power", "a", 1, 0.0))
    await history.purge(StreamId.parse("power[room=b]"), NOW - 1, NOW)
    await history.settle()
    await history.restart()
    await played.finish()


async def test_a_crash_forgets_that_an_earlier_reading_moved_the_begin(played: Played) -> None:
    """Nothing was stored of the clock, since it had not ticked after the first begin yet."""
    history = await played.begin(node("tick", "clock", every="10m"))
    await history.pass_time(120_000)
    await played.publish(("power", "a", 0, 1.0))
    history.arm(2, "before")  # append, commit
    await played.publish(("power", "a", 1_500_000, 1.0))
    await played.finish()


async def test_a_grid_too_is_looked_at_again_after_a_restart(played: Played) -> None:
    history = await played.begin(
        node("mean", "sliding_mean", ["power"], width="10s", every="1s"),
        node("house", "aggregate", ["mean"], over=["room"], function="mean"),
    )
    await played.publish(("power", "b", 2000, 0.0), ("power", "b", 0, 0.0))
    await played.publish(("power", "a", 2500, 0.0))
    await history.purge(StreamId.parse("power[room=b]"), NOW - 3000, NOW)
    await history.settle()
    await history.restart()
    await played.finish()


async def test_a_head_that_is_met_again_does_not_hold_between_the_new_readings(played: Played) -> None:
    """The state after them is the old one, and in between it was another."""
    history = await played.begin(node("hot", "threshold", ["power"], above=10, hysteresis=5))
    await history.pass_time(60_000)
    await played.publish(("power", "a", 50_000, 0.0))
    # Within the silence that is covered already: on, on, off.
    await played.publish(("power", "a", 40_000, 20.0), ("power", "a", 30_000, 20.0), ("power", "a", 20_000, 0.0))
    await played.publish(("power", "a", 35_000, 7.0))
    await played.finish()


async def test_what_waits_for_an_input_that_fails_is_not_due(played: Played) -> None:
    history = await played.begin(
        node("broken", "apply", ["light"], function="operator:not_"),
        node("number", "expression", ["light"], expression="value * 2"),
        node("joined", "as_of_join", ["power", "number"]),
    )
    await played.publish(("light", "a", 20_000, {"not": "a number"}), ("power", "a", 10_000, 1.0))
    await played.publish(("light", "a", 5_000, 1.0))
    await history.pass_time(60_000)
    await history.settle()
    await played.publish(("light", "a", 20_000, 3.0))
    await played.finish()


async def test_the_last_instances_of_a_step_are_read_where_the_store_has_none_yet(played: Played) -> None:
    """Two instances before an instant were asked for; the tail held one, which only this step had written."""
    history = await played.begin(
        node("speed", "derivative", ["light"]), node("change", "derivative", ["speed"], unit="1m", max_gap="10s")
    )
    online = workflow(node("speed", "derivative", ["light"]), node("change", "derivative", ["speed"]))
    before = replace(history.workflows[0], online=False)
    await history.restart([before])
    await played.publish(("light", "a", 20_500, 1.5))
    await history.restart([replace(online, start=NOW - 2000)])
    await history.request(StreamId("change", (("room", "a"),)), NOW - 3_600_001, NOW - 9000)
    await history.pass_time(30_000)
    await played.publish(("light", "a", 3_540_000, 0), ("light", "a", 0, 1.5))
    await played.finish()


class Pausing(MemoryStore):
    """Appends are durable some turns of the event loop before anybody hears of it."""

    async def append(self, append: Append) -> None:
        await super().append(append)
        for _ in range(50):
            await asyncio.sleep(0)


async def test_a_reading_that_is_stored_and_not_yet_known_of_counts_once() -> None:
    """A step read it from the store before it arrived; then it was in memory twice."""
    store = Pausing()

    async def factory() -> Store:
        return store

    def with_tool(pin: str) -> WorkflowDefinition:
        return workflow(node("n", pin, ["power"], width="10m", every="1s"))

    history = History(factory, [with_tool("sliding_sum")], EngineSettings(), NOW)
    await history.begin()
    room = (("room", "a"),)
    await history.deliver([Reading("power", room, NOW - 60_000, 1)])
    await history.pass_time(600_000)
    await history.restart([with_tool("sliding_count")])
    late = [Reading("power", room, NOW + 600_000 - back, 1) for back in (60_000, 7500)]
    await history.survive(lambda: history.deliver(late))
    await history.pass_time(60_000)
    await history.check()
    await history.end()


async def test_what_waits_to_be_published_of_a_node_that_went_is_given_up(played: Played) -> None:
    doubled = node("doubled", "expression", ["power"], expression="value * 2")
    history = await played.begin(doubled)
    history.workflows = [workflow()]  # of the next engine
    history.arm(3, "after")  # register, append, commit: killed before anything is published
    await played.publish(("power", "a", 20_000, 1.0))
    assert history.crashes == 1
    await history.restart([workflow(doubled)])
    doubled_stream = StreamId("doubled", (("room", "a"),))
    assert history.subscriber.received == 0
    await played.publish(("power", "a", 20_000, 2.0), ("power", "a", 10_000, 3.0))
    assert history.subscriber.contents[doubled_stream] == {NOW - 20_000: 4.0, NOW - 10_000: 6.0}
    assert history.subscriber.received == 2
    await played.finish()


@pytest.mark.parametrize(
    "wanted",
    [{"start": NOW - 3_600_000}, {"start": NOW + 30_000}, {"online": False, "requested_intervals": AROUND}],
    ids=["from before", "from ahead", "in an interval"],
)
async def test_a_stream_that_joins_is_wanted_as_far_as_its_aggregate_is(played: Played, wanted: dict[str, Any]) -> None:
    """A fold wants all of the mean that ever was, and so the mean of every room, whichever came first."""
    nodes = [
        node("double", "expression", ["power"], expression="value * 2"),
        node("mean", "aggregate", ["double"], over=["room"], function="mean"),
        node("hot", "threshold", ["mean"], above=1),
    ]
    history = await played.begin(*nodes, wanted=wanted)
    await played.publish(("power", "a", 1000, 1.0), ("power", "b", 1000, 1.0))
    assert history.engine.find(StreamId.parse("double[room=b]")).coverage.start == MIN_TIME
    await played.publish(("power", "c", 0, 1.0))
    assert history.engine.find(StreamId.parse("double[room=c]")).coverage.start == MIN_TIME
    await played.finish()


async def test_a_state_with_a_reading_that_has_not_arrived_says_nothing_of_what_is_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Somebody wants more, and reads it. When it arrives that state is the same again, and what is later is not."""
    monkeypatch.setattr("hs_stream.engine.fold.SNAPSHOT_EVERY", 1)
    store = Pausing()

    async def factory() -> Store:
        return store

    wanted = TimeIntervals.of(NOW - 30_000, NOW)
    total = workflow(node("total", "integral", ["power"]), online=False, requested_intervals=wanted)
    history = History(factory, [total], EngineSettings(), NOW)
    await history.begin()
    room = (("room", "a"),)
    await history.deliver([Reading("power", room, NOW - 20_000, 2), Reading("power", room, NOW - 10_000, 2)])
    await history.settle()
    await history.restart()  # nothing is in memory
    await history.settle()
    await history.deliver([Reading("power", room, NOW - 60_000, 1)])
    for _ in range(10):
        await asyncio.sleep(0)  # stored by now
    history.engine.want(StreamId("total", room), NOW - 70_000)
    await history.pass_time(60_000)
    await history.check()
    await history.end()


async def test_what_failed_before_a_restart_and_is_corrected_is_a_change_although_nobody_wants_it() -> None:
    """What failed counts as known, so the sum covers it. It is no result of what nobody computes any more."""
    store = MemoryStore()

    async def factory() -> Store:
        return store

    nodes = [
        node("power_of", "expression", ["power"], expression="value * 2"),
        node("sum", "aggregate", ["power_of"], over=["room"], function="sum"),
    ]
    history = History(factory, [workflow(*nodes, online=True)], EngineSettings(), NOW)
    await history.begin()
    room = (("room", "a"),)
    readings = [Reading("power", room, NOW - 20_000, "unknown"), Reading("power", room, NOW - 10_000, 2)]
    await history.deliver(readings)
    await history.settle()
    failed = history.engine.find(StreamId("power_of", room)).failed
    assert failed == TimeIntervals.points([NOW - 20_000])
    await history.restart([workflow(*nodes, online=False)])
    await history.settle()
    await history.deliver([Reading("power", room, NOW - 20_000, 5)])
    await history.settle()
    await history.check(everything=False)
    await history.end()


async def test_what_fails_at_the_newest_instant_of_an_aggregate_is_tried_again_with_all_its_inputs() -> None:
    """Somebody asks for it. Those of them that had not changed since were left out."""
    store = MemoryStore()

    async def factory() -> Store:
        return store

    mean = workflow(node("mean", "aggregate", ["power"], over=["room"], function="mean"), online=True)
    history = History(factory, [mean], EngineSettings(), NOW)
    await history.begin()
    values = {"a": -2, "b": "", "c": -3}
    await history.deliver([Reading("power", (("room", room),), NOW - 4000, value) for room, value in values.items()])
    await history.settle()
    failed = TimeIntervals.points([NOW - 4000])
    assert history.engine.find(StreamId("mean", ())).failed == failed
    with pytest.raises(ToolError):
        await history.engine.compute([StreamId("mean", ())], NOW - 10_000, NOW)
    assert history.engine.find(StreamId("mean", ())).failed == failed
    await history.check(everything=False)
    await history.end()


async def test_what_a_step_takes_away_of_a_full_read_leaves_too_few_before_the_end() -> None:
    """Of the last readings that fit, a new definition leaves one, at the very end: nothing was left to evaluate."""
    store = MemoryStore()

    async def factory() -> Store:
        return store

    def sessions(**parameters: Any) -> WorkflowDefinition:
        return workflow(
            node("sessions", "session_window@^1", ["power"], **parameters),
            node("offline", "offline_detect", ["sessions"], after="10s", every="5s"),
            online=True,
        )

    history = History(factory, [sessions(gap="1ms", max_length="1ms")], EngineSettings(chunk=3), NOW)
    await history.begin()
    await history.deliver([Reading("power", (("room", "a"),), NOW + at, 1) for at in range(0, 6000, 1000)])
    await history.pass_time(30_000)
    await history.restart([sessions(gap="2s", max_length="5s")])
    await history.check()
    await history.end()


async def test_a_late_reading_of_before_a_crash_counts_for_what_is_left_out_and_comes_back() -> None:
    """Its mark was forgotten while no workflow had the node, and the node still claimed to know that time."""
    store = MemoryStore()

    async def factory() -> Store:
        return store

    whole = workflow(node("double", "expression", ["power"], expression="value * 2"), online=True)
    history = History(factory, [whole], EngineSettings(), NOW)
    await history.begin()
    room = (("room", "a"),)
    await history.deliver([Reading("power", room, NOW, 1)])
    await history.settle()
    history.arm(2, "before")  # append, commit
    await history.survive(lambda: history.deliver([Reading("power", room, NOW - 5000, 2)]))
    await history.settle()
    history.arm(0)
    await history.restart([workflow(online=True)])
    await history.deliver([Reading("power", room, NOW + 1, 3)])
    await history.settle()
    await history.restart([whole])
    await history.pass_time(60_000)
    await history.check()
    await history.end()


async def test_what_is_refused_as_final_is_not_taken_in_by_a_later_definition(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check forgot that it had been refused: without the node that kept it out, it missed it."""
    monkeypatch.setattr("hs_stream.engine.fold.SNAPSHOT_EVERY", 3)
    mean = node("mean", "aggregate@^1", ["light"], ["room"], function="mean")
    changed = node("changed", "change_detect@^1", ["mean"])  # kept for ever, and what it read is not
    history = await played.begin(mean, changed, wanted={"online": True, "retention": {"mean": 1000}})
    await played.publish(*(("light", "a", 60_000 - 1000 * index, 1.0) for index in range(60)))
    await history.pass_time(60_000)
    await history.survive(history.engine.forget)
    await played.publish(("light", "a", 30_500, 2.0))
    [limit] = [status.limit for status in history.engine.status("light")]
    assert limit is not None
    assert limit > NOW - 30_500
    await history.restart([workflow(online=True)])
    await played.finish()


async def test_what_comes_next_of_a_mean_counts_once_the_slowest_room_is_known(played: Played) -> None:
    """Rooms joined, and what held before was said to be wrong: the check knew of a mean that cannot be computed yet."""
    mean = node("mean", "aggregate@^1", ["power"], over=["room"], function="mean")
    change = node("change", "sliding_change@^1", ["mean"], width="60s", every="10s", closed="left", held=True)
    history = await played.begin(mean, change, wanted={"online": True})
    await played.publish(("power", "a", 0, 1.0))
    await history.pass_time(600_000)
    await played.publish(("power", "b", -600_000, 1.0), ("power", "c", -600_000, 1.0))
    await history.check(everything=False)
    await played.finish()


@pytest.mark.parametrize("steps", [(), (("count", "sliding_count@^1", {"width": "20s", "every": "10s"}),)])
async def test_who_looks_on_over_a_clock_is_not_checked_for_ever(
    played: Played, monkeypatch: pytest.MonkeyPatch, steps: tuple[tuple[str, str, dict[str, Any]], ...]
) -> None:
    """What comes next may be at any time, and a clock ticks at all times: the check took all memory that there was."""
    for grid in (Grid, Cells):

        def few(
            self: Grid, start: int, end: int, times: Callable[..., npt.NDArray[np.int64]] = grid.times
        ) -> npt.NDArray[np.int64]:
            assert end - start < 86_400_000
            return times(self, start, end)

        monkeypatch.setattr(grid, "times", few)
    nodes, last = [node("random", "random", every="10s")], "random"
    for name, pin, parameters in steps:
        nodes.append(node(name, pin, [last], **parameters))
        last = name
    nodes.append(node("mean", "sliding_mean@^2", [last], width="60s", every="10s", weight="time"))
    history = await played.begin(*nodes, wanted={"online": True})
    await played.publish(("power", "a", 0, 1.0))
    await history.pass_time(600_000)
    assert len(await history.engine.read(StreamId("mean"), NOW, NOW + 600_000)) > 50
    await played.finish()
