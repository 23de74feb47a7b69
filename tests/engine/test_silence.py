"""What silence alone brings about: folds on a grid, ages on a grid, and tools that look ahead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME, Grid, TimeIntervals
from hs_stream.core.tool import SKIP, Drive, FoldTool, OnGrid
from hs_stream.core.value import Value
from hs_stream.core.workflow import NodeDefinition
from hs_stream.engine import fold

from .conftest import START, Bench

HOUR = 3_600_000
MIDNIGHT = 34_400_000
"""The end of the local day in Brussels, after START (12:26:40 UTC)."""

Evaluations = Callable[[], list[tuple[str, int, int]]]


async def turn(bench: Bench, milliseconds: int) -> None:
    bench.clock.advance(milliseconds)
    await asyncio.sleep(0)
    await bench.engine.settle()


def day(bench: Bench, **parameters: Any) -> NodeDefinition:
    given = {"period": "day", "tz": "Europe/Brussels"} | parameters
    return bench.node("day", "utility_meter@^1", ["power"], publish={}, **given)


async def test_a_day_ends_in_silence(bench: Bench) -> None:
    await bench.start(bench.workflow(day(bench)))
    bench.clock.advance(HOUR)
    await bench.publish((0, 100.0), (HOUR, 103.0))
    assert await bench.contents("day[room=a]") == {}
    await bench.pass_time(MIDNIGHT)
    assert await bench.contents("day[room=a]") == {MIDNIGHT: 3.0}
    await bench.pass_time(72 * HOUR)
    assert await bench.contents("day[room=a]") == {MIDNIGHT: 3.0}, "days without a reading have no value"
    assert (await bench.verify()).clean


async def test_a_late_reading_revises_the_days_it_is_of(bench: Bench) -> None:
    await bench.start(bench.workflow(day(bench)))
    bench.clock.advance(5 * 24 * HOUR)
    await bench.publish(*((k * HOUR, 100.0 + k) for k in range(100)))
    before = await bench.contents("day[room=a]")
    assert list(before.values()) == [9.0, 24.0, 24.0, 24.0, 18.0]
    await bench.publish((30 * HOUR + 1, 200.0), room="a")
    after = await bench.contents("day[room=a]")
    # It reads 200 and then 131 again: the counter began at 0 in between.
    assert list(after.values()) == [9.0, 21.0 + 70.0 + 131.0 + 2.0, 24.0, 24.0, 18.0]
    await bench.engine.published()
    assert bench.subscriber.revisions[StreamId.parse("day[room=a]"), START + MIDNIGHT + 24 * HOUR] == 1
    assert (await bench.verify()).clean


async def test_a_late_reading_stops_where_the_state_is_the_same_again(
    bench: Bench, evaluations: Evaluations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fold, "SNAPSHOT_EVERY", 16)
    await bench.start(bench.workflow(bench.node("open", "state_duration", ["power"], every="7s", max_gap="1m")))
    bench.clock.advance(10_000_000)
    await bench.publish(*((k * 1000, k // 10) for k in range(1000)))
    evaluations()
    await bench.publish((300_500, 30))
    [(_, start, end)] = evaluations()
    assert start <= 300_500 <= end < 350_000
    assert (await bench.verify()).clean


async def test_two_late_readings_and_the_same_state_between_them(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state that is met again before the second one says nothing about what is later than that one."""
    monkeypatch.setattr(fold, "SNAPSHOT_EVERY", 16)
    await bench.start(bench.workflow(bench.node("open", "state_duration", ["power"], every="1s", max_gap="1m")))
    bench.clock.advance(10_000_000)
    await bench.publish(*((k * 1000, k // 10) for k in range(1000)))
    await bench.publish((300_500, 30), (600_500, -1))
    contents = await bench.contents("open[room=a]")
    assert contents[309_000] == 9.0
    assert [contents[time] for time in (600_000, 601_000, 602_000)] == [0.0, 0.0, 1.0], "60 was broken by -1"
    assert (await bench.verify()).clean


async def test_a_restart_in_the_middle_of_a_day(bench: Bench) -> None:
    workflow = bench.workflow(day(bench))
    await bench.start(workflow)
    bench.clock.advance(HOUR)
    await bench.publish((0, 100.0), (HOUR, 103.0))
    await bench.stop()
    await bench.start(workflow)
    await bench.pass_time(2 * HOUR)
    await bench.publish((2 * HOUR, 104.0))
    await bench.pass_time(MIDNIGHT)
    assert await bench.contents("day[room=a]") == {MIDNIGHT: 4.0}
    assert (await bench.verify()).clean


@dataclass(frozen=True, kw_only=True)
class Brittle(FoldTool):
    """The last value at each second; -1 breaks it at once, -2 in the silence after it."""

    name = "brittle"
    version = "1.0.0"

    def drive(self) -> Drive:
        return OnGrid(Grid(1000))

    def initial(self) -> Value:
        return None

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        if value == -1:
            raise ValueError("broken at once")
        return [value, time], SKIP

    def quiet(self, state: Value, start: int, end: int) -> Iterable[tuple[int, Value]]:
        if state is None:
            return ()
        if state[0] == -2 and end > state[1] + 500:
            raise ValueError("broken in silence")
        times = Grid(1000).times(start, min(end, state[1] + 5000)).tolist()
        return [(time, state[0]) for time in times]


@pytest.mark.parametrize("wrong", [-1, -2])
async def test_a_fold_on_a_grid_that_raises_goes_on_when_the_reading_is_corrected(bench: Bench, wrong: int) -> None:
    await bench.start(bench.workflow(NodeDefinition("b", Brittle(), ("power",), (), {})))
    bench.clock.advance(1_000_000)
    await bench.publish((0, 1), (2_300, wrong), (3_300, 3))
    contents = await bench.contents("b[room=a]")
    told = {3_000: 1} if wrong == -1 else {}
    assert contents == dict.fromkeys(range(0, 3_000, 1_000), 1) | told | dict.fromkeys(range(4_000, 9_000, 1_000), 3)
    [status] = [status for status in bench.engine.status() if status.kind == "derived"]
    assert status.failed == TimeIntervals.points([START + (2_300 if wrong == -1 else 3_000)])
    assert "ValueError: broken" in status.error
    assert (await bench.verify()).clean
    await bench.publish((2_300, 2))
    assert await bench.contents("b[room=a]") == {
        **dict.fromkeys(range(0, 3_000, 1_000), 1),
        3_000: 2,
        **dict.fromkeys(range(4_000, 9_000, 1_000), 3),
    }
    assert not any(status.failed for status in bench.engine.status())
    assert (await bench.verify()).clean


# --- offline_detect ---


async def test_offline_is_told_by_silence_and_never_before_the_first_reading(bench: Bench) -> None:
    node = bench.node("offline", "offline_detect", ["power"], after="25s", every="10s", forget="1m", publish={})
    await bench.start(bench.workflow(node))
    await bench.pass_time(60_000)
    assert bench.engine.status() == []
    await bench.publish((70_000, 1.0))
    assert await bench.contents("offline[room=a]") == {70_000: False}
    await turn(bench, 30_000)
    assert await bench.contents("offline[room=a]") == {70_000: False, 80_000: False, 90_000: False}
    await turn(bench, 10_000)
    assert (await bench.contents("offline[room=a]"))[100_000] is True, "10 s (idle) after the instant itself"
    await bench.publish((110_000, 1.0))
    assert (await bench.contents("offline[room=a]"))[110_000] is False
    await bench.pass_time(10 * HOUR)
    assert max(await bench.contents("offline[room=a]")) == 160_000, "and then it is forgotten"
    assert (await bench.verify()).clean


async def test_while_the_broker_is_away_nobody_is_offline(bench: Bench) -> None:
    await bench.start(bench.workflow(bench.node("offline", "offline_detect", ["power"], after="25s", every="10s")))
    await bench.publish((0, 1.0))
    bench.engine.connected(False)
    await bench.pass_time(300_000)
    assert await bench.contents("offline[room=a]") == {0: False}
    bench.engine.connected(True)
    await bench.publish((300_000, 1.0), (120_000, 1.0))
    got = await bench.contents("offline[room=a]")
    assert [time for time, offline in got.items() if not offline] == [
        0,
        10_000,
        20_000,
        120_000,
        130_000,
        140_000,
        300_000,
    ]
    assert (await bench.verify()).clean


# --- looking ahead ---


@pytest.mark.parametrize("restart", [False, True])
async def test_waiting_for_what_lies_ahead_costs_a_step_per_reading(bench: Bench, restart: bool) -> None:
    workflow = bench.workflow(bench.node("sessions", "session_window@^1", ["power"], gap="30s"))
    await bench.start(workflow)
    await bench.publish(*((-k * 1000, 1.0) for k in range(60)))
    if restart:
        await bench.stop()
        await bench.start(workflow)
        await bench.pass_time(0)
    steps = bench.engine.statistics().steps
    for _ in range(5_000):
        await turn(bench, 10)
    assert bench.engine.statistics().steps - steps < 100
    assert list(await bench.contents("sessions[room=a]")) == [0]
    assert (await bench.verify()).clean


async def test_nobody_is_told_of_a_session_that_may_go_on(bench: Bench) -> None:
    await bench.start(bench.workflow(bench.node("sessions", "session_window@^1", ["power"], gap="30s", publish={})))
    for k in range(10):
        await bench.publish((10_000 * k, 1.0))
        assert await bench.contents("sessions[room=a]") == {}
        bench.clock.advance(10_000)
    await bench.pass_time(60_000)
    [(time, session)] = (await bench.contents("sessions[room=a]")).items()
    assert (time, session["count"]) == (90_000, 10)
    await bench.engine.published()
    assert bench.subscriber.received == 1


async def test_sessions_are_joined_by_a_late_reading(bench: Bench) -> None:
    await bench.start(bench.workflow(bench.node("sessions", "session_window@^1", ["power"], gap="30s", publish={})))
    bench.clock.advance(1_000_000)
    await bench.publish((0, 1.0), (20_000, 1.0), (70_000, 1.0))
    await bench.pass_time(60_000)
    assert {time: one["count"] for time, one in (await bench.contents("sessions[room=a]")).items()} == {
        20_000: 2,
        70_000: 1,
    }
    await bench.publish((45_000, 1.0))
    assert {time: one["count"] for time, one in (await bench.contents("sessions[room=a]")).items()} == {70_000: 4}
    await bench.engine.published()
    assert list(bench.subscriber.contents[StreamId.parse("sessions[room=a]")]) == [START + 70_000]
    assert (await bench.verify()).clean


async def test_a_definition_that_looks_further_ahead_takes_back_what_it_cannot_know_yet(bench: Bench) -> None:
    """What the old one had stored after what the new one covers was taken for right by silence."""

    def lines(every: str, max_gap: str) -> NodeDefinition:
        return bench.node("lines", "interpolate", ["power"], every=every, max_gap=max_gap, publish={})

    await bench.start(bench.workflow(lines("1ms", "1ms")))
    await bench.publish((1, 5.0))
    assert await bench.contents("lines[room=a]") == {1: 5.0}
    await bench.stop()
    await bench.start(bench.workflow(lines("1m", "15s")))
    await bench.engine.settle()
    assert await bench.contents("lines[room=a]") == {1: 5.0}, "it stays readable until the new one knows"
    stream = next(status for status in bench.engine.status() if status.kind == "derived")
    assert stream.coverage.end < START
    await bench.pass_time(60_000)
    assert await bench.contents("lines[room=a]") == {}
    assert (await bench.verify()).clean
    assert (await bench.engine.read(StreamId.parse("power[room=a]"), MIN_TIME, MAX_TIME)).get(START + 1) == 5.0
