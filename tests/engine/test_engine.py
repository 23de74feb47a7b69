"""What an arrival does (rule 1.6), demand (1.7) and versions (1.8), step by step."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from hs_stream.core.batch import Batch
from hs_stream.core.errors import ConfigurationError, StoreUnavailable, ToolError, Unavailable
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME, TimeIntervals
from hs_stream.core.tool import FoldTool, MapTool
from hs_stream.core.value import Value
from hs_stream.core.workflow import NodeDefinition
from hs_stream.engine.evaluate import Evaluator
from hs_stream.engine.ports import Append, Commit, Delivery, Publication, Reading
from hs_stream.engine.telemetry import Telemetry
from hs_stream.plan.state import MOST_FAILED
from hs_stream.store.memory import MemoryStore

from .conftest import START, Bench

Evaluations = Callable[[], list[tuple[str, int, int]]]


async def test_a_reading_is_acknowledged_stored_computed_and_published(bench: Bench) -> None:
    await bench.start(bench.workflow(bench.node("double", "expression", ["power"], expression="value * 2", publish={})))
    await bench.publish((0, 1.5), (10, 2.0))
    await bench.engine.published()
    assert bench.acknowledged == 1
    assert await bench.contents("power[room=a]") == {0: 1.5, 10: 2.0}
    assert await bench.contents("double[room=a]") == {0: 3.0, 10: 4.0}
    assert bench.subscriber.contents[StreamId.parse("double[room=a]")] == {START: 3.0, START + 10: 4.0}


@pytest.mark.parametrize("running", [True, False])
async def test_who_hands_readings_over_learns_which_are_stored(bench: Bench, running: bool) -> None:
    double = bench.node("double", "expression", ["power"], expression="value * 2")
    await bench.start(bench.workflow(double, max_rooms=1), run=running)
    readings = [
        Reading("power", (("room", "a"),), START, 1.0),
        Reading("power", (("room", "b"),), START, 1.0),
        Reading("power", (("room", "a"),), START + 60_000, 1.0),
        Reading("power", (("room", "a"),), MIN_TIME, 1.0),
    ]
    refused = await bench.engine.take(readings)
    assert [letter.reason for letter in refused] == ["plate_full", "future", "time_invalid"]
    assert await bench.contents("power[room=a]") == {0: 1.0}
    await bench.engine.settle()
    assert bench.engine.settled
    assert await bench.contents("double[room=a]") == {0: 2.0}
    await bench.stop()
    with pytest.raises(Unavailable, match="stops"):
        await bench.engine.take(readings)


async def test_who_hands_readings_over_does_not_wait_for_an_engine_that_ends(bench: Bench) -> None:
    asked = asyncio.Event()

    class Stuck(MemoryStore):
        async def append(self, append: Append) -> None:
            asked.set()
            await asyncio.Event().wait()

    bench.store = Stuck()
    await bench.start(bench.workflow())
    taking = asyncio.create_task(bench.engine.take([Reading("power", (("room", "a"),), START, 1.0)]))
    await asked.wait()
    running, bench.task = bench.task, None
    assert running is not None
    running.cancel()
    with pytest.raises(Unavailable, match="the engine stops"):
        await taking
    await asyncio.wait([running])


async def test_the_same_value_again_is_no_change(bench: Bench, evaluations: Evaluations) -> None:
    await bench.start(bench.workflow(bench.node("double", "expression", ["power"], expression="value * 2", publish={})))
    await bench.publish((0, 1.5))
    evaluations()
    await bench.publish((0, 1.5))
    await bench.engine.published()
    assert bench.acknowledged == 2
    assert evaluations() == []
    assert bench.subscriber.received == 1


async def test_a_correction_replaces_and_is_revised_once_per_level(bench: Bench) -> None:
    await bench.start(
        bench.workflow(
            bench.node("double", "expression", ["power"], expression="value * 2", publish={}),
            bench.node("big", "expression", ["double"], expression="value > 2", publish={}),
        )
    )
    await bench.publish((0, 1.5), (10, 4.0))
    await bench.publish((0, 1.6))
    await bench.engine.published()
    assert await bench.contents("double[room=a]") == {0: 3.2, 10: 8.0}
    double, big = StreamId.parse("double[room=a]"), StreamId.parse("big[room=a]")
    assert bench.subscriber.revisions[double, START] == 1
    assert bench.subscriber.revisions[double, START + 10] == 0
    assert bench.subscriber.revisions[big, START] == 0, "an equal result stops the propagation"


async def test_two_values_for_one_millisecond_last_write_wins(bench: Bench) -> None:
    await bench.start(bench.workflow())
    await bench.publish((0, 1), (0, 2), (0, 3))
    assert await bench.contents("power[room=a]") == {0: 3}


async def test_a_late_reading_recomputes_only_what_it_affects(bench: Bench, evaluations: Evaluations) -> None:
    await bench.start(bench.workflow(bench.node("mean", "sliding_mean", ["power"], width="10s", every="5s")))
    bench.clock.advance(10_000_000)
    await bench.publish(*((second * 1000, float(second)) for second in range(600)))
    evaluations()
    await bench.publish((300_500, 0.0))
    assert evaluations() == [("mean[room=a]", 300_499, 310_499)]
    assert (await bench.verify()).clean


async def test_a_late_reading_in_a_fold_converges(bench: Bench, evaluations: Evaluations) -> None:
    await bench.start(bench.workflow(bench.node("hot", "threshold", ["power"], above=5, hysteresis=1)))
    bench.clock.advance(10_000_000)
    await bench.publish(*((second * 1000, float(second % 10)) for second in range(6000)))
    evaluations()
    await bench.publish((1_000_500, 9.0))
    (name, start, end), *others = evaluations()
    assert (name, start, others) == ("hot[room=a]", 1_000_499, [])
    assert end <= 1_000_500 + 1_024_000, "the state is the same again at a snapshot, long before the end"
    assert (await bench.contents("hot[room=a]"))[5_999_000] is True
    assert (await bench.verify()).clean


async def test_a_retracted_result_comes_back_with_a_later_revision(bench: Bench) -> None:
    await bench.start(bench.workflow(bench.node("t", "component", ["power"], key="t", publish={})))
    await bench.publish((0, {"t": 1}), (10, {"t": 1}))
    await bench.publish((0, {"x": 1}))
    await bench.engine.published()
    stream = StreamId.parse("t[room=a]")
    assert bench.subscriber.contents[stream] == {START + 10: 1}
    assert bench.subscriber.revisions[stream, START] == 1
    await bench.publish((0, {"t": 1}))
    await bench.engine.published()
    assert bench.subscriber.contents[stream] == {START: 1, START + 10: 1}
    assert bench.subscriber.revisions[stream, START] == 2


async def test_a_silent_sensor_does_not_stall_a_join(bench: Bench) -> None:
    await bench.start(bench.workflow(bench.node("both", "as_of_join", ["power", "light"], names=["p", "l"])))
    await bench.publish((0, 7.0), source="light")
    await bench.publish((1000, 1.0))
    assert await bench.contents("both[room=a]") == {}
    await bench.pass_time(2000)
    assert await bench.contents("both[room=a]") == {1000: {"p": 1.0, "l": 7.0}}


async def test_while_the_broker_is_away_silence_proves_nothing(bench: Bench) -> None:
    await bench.start(bench.workflow(bench.node("mean", "sliding_mean", ["power"], width="1s", every="1s")))
    await bench.publish((100, 1.0))
    bench.engine.connected(False)
    await bench.pass_time(3_600_000)
    assert await bench.contents("mean[room=a]") == {}
    bench.engine.connected(True)
    await bench.pass_time(1000)
    assert await bench.contents("mean[room=a]") == {1000: 1.0}


async def test_a_window_closes_when_its_sensor_falls_silent(bench: Bench) -> None:
    await bench.start(bench.workflow(bench.node("mean", "sliding_mean", ["power"], width="60s", every="60s")))
    await bench.publish((1000, 1.0), (2000, 3.0))
    await bench.pass_time(120_000)
    contents = await bench.contents("mean[room=a]")
    assert list(contents.values()) == [2.0]


async def test_one_fast_clock_does_not_make_others_late(bench: Bench) -> None:
    await bench.start(bench.workflow())
    bench.clock.advance(10)
    await bench.publish((4000, 1.0), room="fast")
    await bench.publish((0, 1.0), room="slow")
    assert bench.engine.statistics().late == 0


async def test_the_far_future_is_quarantined(bench: Bench) -> None:
    await bench.start(bench.workflow())
    await bench.publish((5001, 1.0), (5000, 2.0))
    assert await bench.contents("power[room=a]") == {5000: 2.0}
    (letter,) = await bench.store.dead_letters(10)
    assert (letter.source, letter.reason) == ("power", "future")
    assert letter.message.endswith(": check the clock of the device")
    assert bench.acknowledged == 1


async def test_a_future_that_is_as_far_as_a_zone_says_so(bench: Bench) -> None:
    await bench.start(bench.workflow())
    await bench.publish((7_199_000, 1.0))
    (letter,) = await bench.store.dead_letters(10)
    assert letter.reason == "future"
    assert "it is 2h ahead, as much as a zone" in letter.message
    assert "zone: Europe/Berlin" in letter.message


async def test_a_full_plate_refuses_and_says_so(bench: Bench) -> None:
    await bench.start(bench.workflow(max_rooms=2))
    for room in ("a", "b", "c", "a"):
        await bench.publish((0, room), room=room)
    names = [str(status.stream) for status in bench.engine.status("power")]
    assert names == ["power[room=a]", "power[room=b]"]
    (letter,) = await bench.store.dead_letters(10)
    assert letter.reason == "plate_full"
    assert "plates.room.max" in letter.message


async def test_an_aggregate_grows_while_running(bench: Bench) -> None:
    await bench.start(bench.workflow(bench.node("total", "aggregate", ["power"], over=["room"], function="sum")))
    await bench.publish((0, 1.0), room="b")
    await bench.publish((0, 2.0), room="a")
    await bench.pass_time(1000)
    assert await bench.contents("total") == {0: 3.0}


async def test_a_stream_of_existing_inputs_is_computed_from_their_beginning(bench: Bench) -> None:
    await bench.start(bench.workflow())
    bench.clock.advance(10_000_000)
    await bench.publish(*((second * 1000, float(second)) for second in range(100)))
    await bench.stop()
    await bench.start(bench.workflow(bench.node("total", "integral", ["power"])), chunk=7)
    await bench.engine.settle()
    assert len(await bench.contents("total[room=a]")) == 100
    assert (await bench.verify()).clean


# --- demand ---


async def test_nothing_is_computed_that_nobody_wants(bench: Bench, evaluations: Evaluations) -> None:
    await bench.start(
        bench.workflow(bench.node("double", "expression", ["power"], expression="value * 2"), online=False)
    )
    await bench.publish((0, 1.0), (1000, 2.0))
    assert evaluations() == []


async def test_a_request_computes_exactly_what_is_missing(bench: Bench, evaluations: Evaluations) -> None:
    await bench.start(
        bench.workflow(bench.node("mean", "sliding_mean", ["power"], width="2s"), online=False), run=False
    )
    bench.clock.advance(10_000_000)
    await bench.publish(*((second * 1000, float(second)) for second in range(100)))
    mean = StreamId.parse("mean[room=a]")
    await bench.engine.compute([mean], START + 10_000, START + 20_000)
    assert evaluations() == [("mean[room=a]", 10_000, 20_000)]
    progress: list[tuple[int, int]] = []
    await bench.engine.compute(
        [mean], START + 15_000, START + 30_000, lambda done, total: progress.append((done, total))
    )
    assert evaluations() == [("mean[room=a]", 20_000, 30_000)]
    assert progress[-1] == (10_000, 10_000)
    assert bench.engine.find(mean).coverage == TimeIntervals.of(START + 10_000, START + 30_000)
    assert sorted(await bench.contents("mean[room=a]")) == [second * 1000 for second in range(11, 31)]


async def test_late_data_takes_requested_results_back(bench: Bench) -> None:
    await bench.start(
        bench.workflow(
            bench.node("mean", "sliding_mean", ["power"], width="2s"),
            bench.node("double", "expression", ["mean"], expression="value * 2"),
            online=False,
        ),
        run=False,
    )
    bench.clock.advance(10_000_000)
    await bench.publish(*((second * 1000, float(second)) for second in range(100)))
    double = StreamId.parse("double[room=a]")
    await bench.engine.compute([double], START + 10_000, START + 30_000)
    await bench.publish((20_500, 100.0))
    assert not bench.engine.find(double).coverage.covers(START + 20_000, START + 22_000)
    assert bench.engine.find(double).coverage.covers(START + 10_000, START + 20_000)
    assert (await bench.verify()).clean
    await bench.engine.compute([double], START + 10_000, START + 30_000)
    assert bench.engine.find(double).coverage == TimeIntervals.of(START + 10_000, START + 30_000)
    assert (await bench.verify()).clean


async def test_online_demand_begins_at_start_and_widens_to_ancestors(bench: Bench) -> None:
    await bench.start(
        bench.workflow(
            bench.node("inner", "expression", ["power"], expression="value"),
            bench.node("mean", "sliding_mean", ["inner"], width="2s"),
            start=START + 10_000,
        )
    )
    bench.clock.advance(10_000_000)
    await bench.publish(*((second * 1000, float(second)) for second in range(20)))
    assert min(await bench.contents("mean[room=a]")) == 11_000
    assert (await bench.contents("mean[room=a]"))[11_000] == 10.5
    assert (await bench.verify()).clean


async def test_a_clock_ticks_from_the_earliest_reading(bench: Bench) -> None:
    await bench.start(
        bench.workflow(
            bench.node("tick", "clock", every="1s"), bench.node("double", "expression", ["power"], expression="value")
        )
    )
    await bench.publish((2500, 1.0))
    await bench.pass_time(0)
    assert min(await bench.contents("tick")) == 3000
    await bench.publish((500, 1.0))
    assert min(await bench.contents("tick")) == 1000
    assert max(await bench.contents("tick")) == 10_000
    assert (await bench.verify()).clean


# --- versions and definitions ---


async def test_a_changed_parameter_recomputes_the_stream_and_its_descendants(
    bench: Bench, evaluations: Evaluations
) -> None:
    def nodes(factor: int) -> list[NodeDefinition]:
        return [
            bench.node("scaled", "expression", ["power"], expression=f"value * {factor}", publish={}),
            bench.node("more", "expression", ["scaled"], expression="value + 1"),
            bench.node("other", "expression", ["power"], expression="value"),
        ]

    await bench.start(bench.workflow(*nodes(2)))
    await bench.publish((0, 1.0), (1000, 2.0))
    await bench.stop()
    evaluations()
    await bench.start(bench.workflow(*nodes(3)))
    await bench.engine.settle()
    assert {name for name, _, end in evaluations() if end == 1000} == {"scaled[room=a]", "more[room=a]"}
    assert await bench.contents("more[room=a]") == {0: 4.0, 1000: 7.0}
    await bench.engine.published()
    assert bench.subscriber.contents[StreamId.parse("scaled[room=a]")] == {START: 3.0, START + 1000: 6.0}


async def test_an_unchanged_definition_recomputes_nothing(bench: Bench, evaluations: Evaluations) -> None:
    workflow = bench.workflow(bench.node("double", "expression", ["power"], expression="value * 2"))
    await bench.start(workflow)
    await bench.publish((0, 1.0), (1000, 2.0))
    await bench.stop()
    evaluations()
    await bench.start(workflow)
    await bench.engine.settle()
    assert [item for item in evaluations() if item[1] < 1000] == []


@pytest.mark.parametrize(
    ("version", "recompute_on", "recomputed"),
    [("1.0.1", "minor", False), ("1.1.0", "minor", True), ("1.1.0", "major", False), ("2.0.0", "major", True)],
)
async def test_versions_decide_what_is_stale(
    bench: Bench, evaluations: Evaluations, version: str, recompute_on: Any, recomputed: bool
) -> None:
    await bench.start(bench.workflow(NodeDefinition("n", _tool("1.0.0"), ("power",))), recompute_on=recompute_on)
    await bench.publish((0, 1.0))
    await bench.stop()
    evaluations()
    await bench.start(bench.workflow(NodeDefinition("n", _tool(version), ("power",))), recompute_on=recompute_on)
    await bench.engine.settle()
    assert bool([item for item in evaluations() if item[1] < 0]) is recomputed


def _tool(number: str) -> MapTool:
    @dataclass(frozen=True, kw_only=True)
    class Same(MapTool):
        """The value."""

        name = "same"
        version = number

        def map(self, value: Any) -> Any:
            return value

    return Same()


async def test_two_workflows_share_equal_nodes_and_refuse_different_ones(bench: Bench) -> None:
    first = bench.workflow(bench.node("double", "expression", ["power"], expression="value * 2"))
    same = dataclasses.replace(first, name="second")
    await bench.start(first, same)
    await bench.publish((0, 1.0))
    assert await bench.contents("double[room=a]") == {0: 2.0}
    await bench.stop()
    other = dataclasses.replace(
        bench.workflow(bench.node("double", "expression", ["power"], expression="value * 3")), name="second"
    )
    with pytest.raises(
        ConfigurationError, match="double of workflow second is also defined by workflow w, differently: their tools"
    ):
        await bench.start(first, other, run=False)


# --- failures ---


async def test_a_tool_that_raises_fails_only_its_instant_and_nobody_else(bench: Bench) -> None:
    await bench.start(
        bench.workflow(
            bench.node("double", "sliding_sum", ["power"], width="1s"),
            bench.node("more", "expression", ["double"], expression="value + 1"),
            bench.node("length", "expression", ["power"], expression="1"),
        )
    )
    await bench.publish((0, 1.0), (2000, "broken"), (4000, 2.0), (5000, 3.0))
    assert await bench.contents("double[room=a]") == {0: 1.0, 4000: 2.0, 5000: 3.0}
    assert await bench.contents("more[room=a]") == {0: 2.0, 4000: 3.0, 5000: 4.0}
    status = bench.engine.find(StreamId.parse("double[room=a]"))
    assert START + 2000 in status.failed
    assert START + 4000 not in status.failed
    assert "sliding_sum" in status.error
    assert "broken" in status.error
    assert len(await bench.contents("length[room=a]")) == 4
    await bench.publish((2000, 5.0))
    assert await bench.contents("more[room=a]") == {0: 2.0, 2000: 6.0, 4000: 3.0, 5000: 4.0}
    assert not bench.engine.find(StreamId.parse("double[room=a]")).failed


LEARN: dict[str, Any] = {"features": ["x"], "label": "y", "classes": [0, 1]}
BAD: dict[str, tuple[str, dict[str, Any], Any, Any]] = {
    "a fold": ("integral", {}, "warm", 1.0),
    "a learner": ("learn_classifier", LEARN, {"x": "warm", "y": 0}, {"x": 1.0, "y": 0}),
    "a learner that cannot bear it": ("learn_classifier", LEARN, {"x": 1e300, "y": 1}, {"x": 1.0, "y": 0}),
}


@pytest.mark.parametrize("kind", list(BAD))
@pytest.mark.parametrize("by", ["correction", "null", "purge"])
@pytest.mark.parametrize("restart", [False, True])
async def test_one_bad_value_fails_its_instant_and_a_fold_goes_on(
    bench: Bench, kind: str, by: str, restart: bool
) -> None:
    """What docs/guides/first-workflow.md and learning.md promise."""
    tool, parameters, bad, good = BAD[kind]
    workflow = bench.workflow(bench.node("out", tool, ["power"], **parameters))
    await bench.start(workflow)
    bench.clock.advance(10_000)
    values = [good, good, bad, good, good, good]
    await bench.publish(*((1000 * index, value) for index, value in enumerate(values)))
    failed = TimeIntervals.points([START + 2000])
    assert [one.failed for one in bench.engine.status("out")] == [failed]
    assert sorted(await bench.contents("out[room=a]"))[-3:] == [3000, 4000, 5000]
    assert (await bench.verify()).clean
    if restart:
        await bench.stop()
        await bench.start(workflow)
        await bench.engine.settle()
    await bench.publish((1000, good), (7000, good))
    [status] = bench.engine.status("out")
    assert (status.failed, status.stale) == (failed, TimeIntervals())
    assert tool in status.error
    if by == "purge":
        await bench.engine.purge(StreamId.parse("power[room=a]"), START + 1999, START + 2000)
        await bench.engine.settle()
    else:
        nothing = None if isinstance(good, float) else good | {"x": None}
        await bench.publish((2000, good if by == "correction" else nothing))
    assert not bench.engine.failed()
    found = sorted(await bench.contents("out[room=a]"))
    assert found[-4:] == [3000, 4000, 5000, 7000]
    assert (2000 in found) is (by == "correction")
    assert (await bench.verify()).clean


async def test_nobody_waits_for_an_instant_that_failed(bench: Bench) -> None:
    """Neither a fold, a window, an aggregate nor a join of it; and all of them follow its correction."""
    await bench.start(
        bench.workflow(
            bench.node("double", "expression", ["power"], expression="value * 2"),
            bench.node("total", "integral", ["double"], rule="left"),
            bench.node("mean", "sliding_mean", ["double"], width="2s", every="1s"),
            bench.node("all", "aggregate", ["double"], over=("room",), function="sum"),
            bench.node("both", "as_of_join", ["double", "light"]),
        )
    )
    bench.clock.advance(60_000)
    await bench.publish((0, 7.0), source="light")
    await bench.publish((0, 1.0), (1000, "unknown"), (2000, 3.0), (3000, 4.0))
    await bench.publish((0, 1.0), (1000, 1.0), (2000, 1.0), (3000, 1.0), room="b")
    assert [status.node for status in bench.engine.failed()] == ["double"]
    assert await bench.contents("total[room=a]") == {0: 0.0, 2000: 4.0, 3000: 10.0}
    assert await bench.contents("mean[room=a]") == {0: 2.0, 1000: 2.0, 2000: 6.0, 3000: 7.0, 4000: 8.0}
    assert await bench.contents("all") == {0: 4.0, 1000: 2.0, 2000: 8.0, 3000: 10.0}
    assert sorted(await bench.contents("both[room=a]")) == [0, 2000, 3000]
    assert (await bench.verify()).clean
    await bench.publish((1000, 2.0))
    assert not bench.engine.failed()
    assert await bench.contents("total[room=a]") == {0: 0.0, 1000: 2.0, 2000: 6.0, 3000: 12.0}
    assert (await bench.contents("all"))[1000] == 6.0
    assert (await bench.verify()).clean


@dataclasses.dataclass(frozen=True, kw_only=True)
class Smudge(FoldTool):
    """Sum so far. It writes into its state before it finds that it cannot use the value."""

    name = "smudge"
    version = "1.0.0"
    goes_on: ClassVar[bool] = True

    def initial(self) -> Value:
        return {"sums": [0]}

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        if not isinstance(value, int):
            state["sums"][0] += 1000
            raise TypeError(f"{value!r} is no number")
        return {"sums": [state["sums"][0] + value]}, state["sums"][0] + value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ledger(Smudge):
    """It must not go on."""

    name = "ledger"
    goes_on = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoBeginning(Smudge):
    """It reads its weights from somewhere else."""

    name = "no_beginning"

    def initial(self) -> Value:
        raise LookupError("no file of weights")


@pytest.mark.parametrize("restart", [False, True])
async def test_a_fold_without_a_beginning_fails_and_holds_up_nobody(bench: Bench, restart: bool) -> None:
    workflow = bench.workflow(
        NodeDefinition("sum", NoBeginning(), ("power",), (), {}),
        bench.node("doubled", "expression", ["power"], expression="value * 2"),
    )
    await bench.start(workflow)
    bench.clock.advance(60_000)
    await bench.publish((0, 1), (1000, 2))
    if restart:
        await bench.stop()
        await bench.start(workflow)
        await bench.engine.settle()
    await bench.publish((2000, 3))
    status = bench.engine.find(StreamId.parse("sum[room=a]"))
    assert status.failed.covers(START + 1999, START + 2000)
    assert "no file of weights" in status.error
    assert await bench.contents("doubled[room=a]") == {0: 2, 1000: 4, 2000: 6}
    assert (await bench.verify()).clean


@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
@pytest.mark.parametrize("restart", [False, True], ids=["", "restart"])
async def test_what_a_tool_did_to_its_state_before_it_raised_is_not_seen(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, at_once: bool, restart: bool
) -> None:
    """The first one fails, two in the middle, and the newest."""
    monkeypatch.setattr("hs_stream.engine.fold.SNAPSHOT_EVERY", 3)
    workflow = bench.workflow(NodeDefinition("sum", Smudge(), ("power",), (), {}))
    await bench.start(workflow)
    bench.clock.advance(60_000)
    items = [(1000 * at, "" if at in (0, 4, 5, 9) else 1) for at in range(10)]
    for some in [items] if at_once else [[item] for item in items]:
        await bench.publish(*some)
        if restart:
            await bench.stop()
            await bench.start(workflow)
            await bench.engine.settle()
    good = [time for time, value in items if value == 1]
    assert await bench.contents("sum[room=a]") == {time: at + 1 for at, time in enumerate(good)}
    [status] = bench.engine.status("sum")
    assert status.failed == TimeIntervals.points([START + time for time, value in items if value == ""])
    assert status.coverage & status.failed == TimeIntervals()
    assert (await bench.verify()).clean


@pytest.mark.parametrize("restart", [False, True])
async def test_a_fold_that_must_not_go_on_fails_after_it_until_it_is_corrected(bench: Bench, restart: bool) -> None:
    workflow = bench.workflow(
        NodeDefinition("sum", Ledger(), ("power",), (), {}),
        bench.node("all", "aggregate", ["sum"], over=("room",), function="sum"),
    )
    await bench.start(workflow)
    bench.clock.advance(60_000)
    await bench.publish((0, 1), (1000, ""), (2000, 1))
    await bench.publish((0, 1), (1000, 1), (2000, 1), (3000, 1), room="b")
    if restart:
        await bench.stop()
        await bench.start(workflow)
        await bench.engine.settle()
    await bench.publish((3000, 1))
    assert await bench.contents("sum[room=a]") == {0: 1}
    status = bench.engine.find(StreamId.parse("sum[room=a]"))
    assert status.failed.covers(START + 999, START + 3000)
    assert await bench.contents("all") == {0: 2.0, 1000: 2.0, 2000: 3.0, 3000: 4.0}, "the others are not held up"
    assert (await bench.verify()).clean
    await bench.publish((1000, 5))
    assert await bench.contents("sum[room=a]") == {0: 1, 1000: 6, 2000: 7, 3000: 8}
    assert not bench.engine.failed()
    assert (await bench.verify()).clean


@pytest.mark.parametrize("tool", ["fold", "map"])
async def test_many_bad_values_cost_a_bounded_memory_and_end_with_the_first_good_one(bench: Bench, tool: str) -> None:
    nodes = {
        "fold": NodeDefinition("out", Smudge(), ("power",), (), {}),
        "map": bench.node("out", "expression", ["power"], expression="value + 0"),
    }
    await bench.start(bench.workflow(nodes[tool]), chunk=1000)
    bench.clock.advance(600_000)
    await bench.publish((0, 1), *((10 * at, "unknown") for at in range(1, 5000)), (50_000, 2))
    await bench.publish(*((10 * at + 5, at if at % 2 else "unknown") for at in range(5000)))
    [status] = bench.engine.status("out")
    assert len(status.failed) == MOST_FAILED
    assert status.failed.end == START + 49_990, "the newest ones"
    assert len(await bench.contents("out[room=a]")) == 2502
    assert (await bench.verify()).clean


async def test_what_fails_is_told_with_its_place_and_without_values(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[Any, ...]] = []
    monkeypatch.setattr(Telemetry, "failed", lambda _, *what: told.append(what))
    nodes = (bench.node("sum", "sliding_sum", ["power"], width="1s"), bench.node("total", "integral", ["power"]))
    await bench.start(bench.workflow(*nodes))
    await bench.publish((0, 1.0), (2000, "secret"), (4000, 1.0))
    where = (START + 1999, START + 2000, 1, "TypeError")
    failed = [("integral", "total", "total[room=a]", *where), ("sliding_sum", "sum", "sum[room=a]", *where)]
    assert sorted(told) == failed
    await bench.publish((5000, 1.0))
    assert sorted(told) == failed, "each once"
    await bench.publish((2000, "other"))
    assert sorted(told) == sorted(2 * failed)


async def test_a_correction_that_breaks_a_tool_takes_results_back_downstream(bench: Bench) -> None:
    await bench.start(
        bench.workflow(
            bench.node("sum", "sliding_sum", ["power"], width="1s"),
            bench.node("more", "expression", ["sum"], expression="value + 1"),
        )
    )
    await bench.publish((0, 1.0), (2000, 2.0), (4000, 3.0))
    await bench.publish((2000, "broken"))
    more = bench.engine.find(StreamId.parse("more[room=a]"))
    assert more.coverage.covers(START + 1999, START + 4000)
    assert await bench.contents("more[room=a]") == {0: 2.0, 4000: 4.0}
    assert START + 2000 not in bench.engine.find(StreamId.parse("sum[room=a]")).coverage


async def test_a_request_for_a_failing_interval_raises(bench: Bench) -> None:
    await bench.start(bench.workflow(bench.node("sum", "sliding_sum", ["power"], width="1s"), online=False), run=False)
    await bench.publish((0, "broken"))
    with pytest.raises(ToolError, match="sliding_sum"):
        await bench.engine.compute([StreamId.parse("sum[room=a]")], START - 1000, START + 1000)


class Flaky(MemoryStore):
    """Unavailable for a while."""

    down = 0

    async def append(self, append: Append) -> None:
        if self.down:
            self.down -= 1
            raise StoreUnavailable("the disk is full", hint="make room")
        await super().append(append)


async def test_a_store_that_is_away_means_back_pressure_and_no_loss(bench: Bench) -> None:
    store = bench.store = Flaky()
    await bench.start(bench.workflow(), max_in_flight=3)
    store.down = 50
    readings = [Reading("power", (("room", "a"),), START + index, float(index)) for index in range(10)]
    acknowledged: list[int] = []

    async def deliver_all() -> None:
        for index, reading in enumerate(readings):
            ack = lambda index=index: acknowledged.append(index)  # noqa: E731
            await bench.engine.deliver(Delivery([reading], [], bench.clock.now(), ack))
            assert bench.engine.statistics().in_flight_readings <= 3

    async with asyncio.timeout(10):
        await deliver_all()
        await bench.engine.settle()
    assert acknowledged == list(range(10)), "in the order of arrival"
    assert len(await bench.contents("power[room=a]")) == 10


async def test_payloads_in_flight_are_bounded_in_bytes(bench: Bench) -> None:
    store = bench.store = Flaky()
    await bench.start(bench.workflow(), in_flight=1000)
    store.down = 50
    async with asyncio.timeout(10):
        for index in range(20):
            reading = Reading("power", (("room", "a"),), START + index, "x" * 400)
            await bench.engine.deliver(Delivery([reading], [], bench.clock.now(), lambda: None, 400))
            use = bench.engine.memory()["in_flight"]
            assert use.used <= use.limit + 400, "what one delivery brought"
        await bench.engine.settle()
    assert bench.engine.memory()["in_flight"].used == 0
    assert len(await bench.contents("power[room=a]")) == 20


async def test_stopping_while_the_store_is_away_does_not_hang(bench: Bench) -> None:
    store = bench.store = Flaky()
    await bench.start(bench.workflow())
    store.down = 10**9
    await bench.engine.deliver(
        Delivery([Reading("power", (("room", "a"),), START, 1.0)], [], bench.clock.now(), lambda: None)
    )
    await asyncio.sleep(0.01)
    assert not bench.engine.statistics().store_available
    assert "disk is full" in bench.engine.store_trouble
    bench.engine.hurry()
    task, bench.task = bench.task, None
    assert task is not None
    async with asyncio.timeout(10):
        with pytest.raises(ExceptionGroup) as caught:
            await task
    assert caught.group_contains(StoreUnavailable)


class Full(MemoryStore):
    """A store whose disk is full: it answers whoever reads, and refuses appends."""

    full = False

    async def append(self, append: Append) -> None:
        if self.full:
            raise StoreUnavailable("the disk is full", hint="free some disk space")
        await super().append(append)


async def test_a_store_that_refuses_writes_is_in_trouble_although_it_can_be_read(bench: Bench) -> None:
    store = bench.store = Full()
    await bench.start(bench.workflow())
    await bench.publish((0, 1.0))
    store.full = True
    acknowledged: list[int] = []
    reading = Reading("power", (("room", "a"),), START + 1000, 1.0)
    await bench.engine.deliver(Delivery([reading], [], bench.clock.now(), lambda: acknowledged.append(1)))
    await asyncio.sleep(0.01)
    await bench.engine._patient("read", store.read, 1, 0, START)
    trouble, available = bench.engine.store_trouble, bench.engine.statistics().store_available
    store.full = False
    assert "free some disk space" in trouble
    assert not available
    assert not acknowledged
    async with asyncio.timeout(10):
        await bench.engine.settle()
    assert acknowledged == [1]
    assert bench.engine.store_trouble == ""


class Swallower(MemoryStore):
    """A driver that swallows a cancellation in its second append, which lasts until the first commit breaks."""

    def __init__(self) -> None:
        super().__init__()
        self.committing, self.appending = asyncio.Event(), asyncio.Event()

    async def append(self, append: Append) -> None:
        if self.committing.is_set():
            self.appending.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
        await super().append(append)

    async def commit(self, commit: Commit) -> None:
        self.committing.set()
        await self.appending.wait()
        raise RuntimeError("broken")


async def test_what_cannot_be_retried_ends_the_engine_even_if_a_driver_swallows_cancellations(bench: Bench) -> None:
    store = bench.store = Swallower()
    await bench.start(bench.workflow(bench.node("double", "expression", ["power"], expression="value * 2")))
    task, bench.task = bench.task, None
    assert task is not None
    async with asyncio.timeout(5):
        for second in (0, 1):
            readings = [Reading("power", (("room", "a"),), START + second, 1.0)]
            await bench.engine.deliver(Delivery(readings, [], bench.clock.now(), lambda: None))
            await store.committing.wait()
        with pytest.raises(ExceptionGroup) as caught:
            await task
    assert caught.group_contains(RuntimeError, match="broken")


# --- outbox ---


async def test_what_a_slow_subscriber_leaves_is_read_back_from_the_store(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hs_stream.engine.outbox._MEMORY", 5)
    gate = asyncio.Event()
    publish = bench.subscriber.publish

    async def slow(publications: list[Publication]) -> None:
        await gate.wait()
        await publish(publications)

    monkeypatch.setattr(bench.subscriber, "publish", slow)
    await bench.start(bench.workflow(bench.node("double", "expression", ["power"], expression="value * 2", publish={})))
    bench.clock.advance(10_000_000)
    for second in range(40):
        await bench.publish((second * 1000, float(second)))
    assert bench.engine.statistics().outbox_pending > 5
    gate.set()
    async with asyncio.timeout(10):
        await bench.engine.published()
    assert len(bench.subscriber.contents[StreamId.parse("double[room=a]")]) == 40


async def test_silence_proves_nothing_of_what_is_computed_on_request_only(bench: Bench) -> None:
    await bench.start(
        bench.workflow(
            bench.node("double", "expression", ["power"], expression="value * 2"),
            bench.node("mean", "aggregate", ["double"], over=["room"], function="mean"),
            online=False,
        )
    )
    bench.clock.advance(200_000)
    for room in "ab":
        await bench.publish(*[(second * 1000, float(second)) for second in range(100)], room=room)
    for name, until in (("double[room=a]", 50_000), ("mean", 30_000)):
        await bench.engine.compute([StreamId.parse(name)], START, START + until)
    await bench.pass_time(60_000)
    assert bench.engine.find(StreamId.parse("double[room=a]")).coverage == TimeIntervals.of(START, START + 50_000)
    assert bench.engine.find(StreamId.parse("mean")).coverage == TimeIntervals.of(START, START + 30_000)
    assert (await bench.verify()).clean
    await bench.engine.compute([StreamId.parse("mean")], START, START + 90_000)
    assert len(await bench.contents("mean")) == 90


async def test_a_step_is_pending_until_its_commit_is_durable(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.start(bench.workflow(bench.node("double", "expression", ["power"], expression="value * 2")))
    store = bench.engine.store
    commit, gate = store.commit, asyncio.Event()

    async def slow(made: Commit) -> None:
        await gate.wait()
        await commit(made)

    monkeypatch.setattr(store, "commit", slow)
    await bench.engine.deliver(
        Delivery([Reading("power", (("room", "a"),), START, 1.0)], [], bench.clock.now(), lambda: None)
    )
    async with asyncio.timeout(10):
        while not bench.engine.statistics().pending_steps:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert bench.engine.statistics().pending_steps
        gate.set()
        await bench.engine.settle()
    assert not bench.engine.statistics().pending_steps


async def test_idle_streams_are_not_looked_at(bench: Bench, evaluations: Evaluations) -> None:
    await bench.start(bench.workflow(bench.node("mean", "sliding_mean", ["power"], width="5s", every="1s")))
    for index in range(300):
        await bench.publish((0, 1.0), room=f"idle{index}")
    await bench.pass_time(60_000)
    evaluations()
    await bench.publish((70_000, 1.0), room="live")
    assert {name for name, _, _ in evaluations()} == {"mean[room=live]"}


async def test_steady_arrivals_are_served_from_memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.start(
        bench.workflow(
            bench.node("mean", "sliding_mean", ["power"], width="60s", every="10s"),
            bench.node("hot", "threshold", ["mean"], above=5),
            bench.node("slope", "derivative", ["power"]),
        )
    )
    reads: list[str] = []
    for name in ("read", "last", "get", "snapshot", "snapshots"):
        method = getattr(bench.store, name)

        def spy(*args: Any, name: str = name, method: Any = method, **kwargs: Any) -> Any:
            reads.append(name)
            return method(*args, **kwargs)

        monkeypatch.setattr(bench.store, name, spy)
    for second in range(600):
        bench.clock.advance(1000)
        await bench.publish((second * 1000 + 1000, float(second % 10)))
    assert reads == []
    batch: Batch = await bench.store.read(1, MIN_TIME, MAX_TIME)
    assert len(batch) == 600


async def test_a_long_window_is_read_where_an_output_is_due(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window that does not fit into memory was read at every arrival, of which 59 of 60 gave nothing."""
    await bench.start(bench.workflow(bench.node("mean", "sliding_mean", ["power"], width="1d", every="1m")))
    bench.clock.advance(12_000_000)
    await bench.publish(*((second * 1000 + 1, float(second % 7)) for second in range(12_000)))
    reads, read = [], bench.store.read

    def spy(*args: Any, **kwargs: Any) -> Any:
        reads.append(args)
        return read(*args, **kwargs)

    monkeypatch.setattr(bench.store, "read", spy)
    for second in range(12_000, 12_120):
        bench.clock.advance(1000)
        await bench.publish((second * 1000 + 1, float(second % 7)))
    assert len(reads) == 2
    assert (await bench.verify()).clean


async def test_many_late_readings_are_evaluated_in_groups(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One evaluation and one read each made a backlog in random order quadratic."""
    await bench.start(
        bench.workflow(
            bench.node("double", "expression", ["power"], expression="value * 2", publish={}),
            bench.node("mean", "sliding_mean", ["double"], width="2s", every="1s", publish={}),
            bench.node("slope", "derivative", ["power"], publish={}),
        )
    )
    bench.clock.advance(100_000_000)
    await bench.publish(*[(second * 10_000, float(second)) for second in range(2000)])
    counts = {"read": 0, "evaluate": 0}
    read, evaluate = bench.store.read, Evaluator.run

    def reading(*args: Any, **kwargs: Any) -> Any:
        counts["read"] += 1
        return read(*args, **kwargs)

    def evaluating(*args: Any, **kwargs: Any) -> Any:
        counts["evaluate"] += 1
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(bench.store, "read", reading)
    monkeypatch.setattr(Evaluator, "run", evaluating)
    await bench.publish(*[(second * 10_000 + 5000, -float(second)) for second in range(0, 1990, 3)])
    assert counts["evaluate"] < 60
    assert counts["read"] < 150
    await bench.engine.published()
    assert (await bench.verify()).clean
    assert bench.subscriber.contents[StreamId.parse("slope[room=a]")] == {
        START + time: value for time, value in (await bench.contents("slope[room=a]")).items()
    }


@pytest.mark.parametrize("node", ["scale", "grid"])
async def test_a_failure_at_the_newest_instant_is_not_due_for_ever(bench: Bench, node: str) -> None:
    """Found by the state machine: the executor evaluated it again and again."""
    nodes = {
        "scale": bench.node("out", "expression", ["power"], expression="value * 2"),
        "grid": bench.node("out", "sliding_mean", ["power"], width="10s", every="1s"),
    }
    await bench.start(bench.workflow(nodes[node]))
    bench.clock.advance(10_000)
    await bench.publish((0, {"not": "a number"}))
    await bench.pass_time(60_000)
    async with asyncio.timeout(5):
        await bench.engine.settle()
    steps = bench.engine.statistics().steps
    await asyncio.sleep(0.05)
    assert bench.engine.statistics().steps == steps
    await bench.publish((30_000, 1.0))
    await bench.pass_time(60_000)
    assert 30_000 in await bench.contents("out[room=a]")
    await bench.publish((0, 2.0))
    await bench.pass_time(60_000)
    assert 0 in await bench.contents("out[room=a]")
    assert (await bench.verify()).clean
    [status] = bench.engine.status("out")
    assert not status.failed


async def test_what_was_computed_by_another_definition_is_stale_and_readable(bench: Bench) -> None:
    await bench.start(bench.workflow(bench.node("double", "expression", ["power"], expression="value * 2")))
    bench.clock.advance(10_000_000)
    await bench.publish((0, 1.0), (1000, 2.0))
    await bench.stop()
    changed = bench.workflow(bench.node("double", "expression", ["power"], expression="value * 3"))
    engine = await bench.start(changed, run=False)
    status = engine.find(StreamId.parse("double[room=a]"))
    assert not status.coverage
    assert START + 1000 in status.stale
    assert await bench.contents("double[room=a]") == {0: 2.0, 1000: 4.0}
    await engine.settle()
    status = engine.find(StreamId.parse("double[room=a]"))
    assert START + 1000 in status.coverage
    assert not status.stale
    assert await bench.contents("double[room=a]") == {0: 3.0, 1000: 6.0}
