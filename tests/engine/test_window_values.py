"""Streams of windows through the engine: stored, read back, and right after late data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hs_stream.core.stream import StreamId
from hs_stream.core.time import TimeInterval
from hs_stream.core.workflow import NodeDefinition
from hs_stream.store.memory import MemoryStore
from hs_stream.store.sqlite import SqliteStore

from .conftest import START, Bench

Evaluations = Callable[[], list[tuple[str, int, int]]]


@pytest.fixture(params=["memory", "sqlite"])
def stored(bench: Bench, request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    bench.store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "windows.db")
    return bench


def window(start: int, end: int) -> TimeInterval:
    return TimeInterval(START + start, START + end)


def minutes(bench: Bench) -> list[NodeDefinition]:
    """The mean of the last minute, every 20 s, by way of windows."""
    return [
        bench.node("windows", "sliding_window", lower="-60s", increment="20s"),
        bench.node("mean", "sliding_apply", ["windows", "power"], function="mean", max_width="60s", publish={}),
    ]


async def fill(bench: Bench, seconds: int = 200) -> None:
    bench.clock.advance(seconds * 1000)
    await bench.publish(*((second * 1000, float(second)) for second in range(1, seconds + 1)))
    await bench.pass_time(1000)


def expected(end: int) -> float:
    return sum(range(end - 59, end + 1)) / 60


async def test_windows_are_values(stored: Bench) -> None:
    """A restart reads them back as what they were: the original's stores gave lists."""
    await stored.start(stored.workflow(*minutes(stored)))
    await fill(stored)
    held = await stored.contents("windows")
    assert held[80_000] == window(20_000, 80_000)
    assert (await stored.contents("mean[room=a]"))[80_000] == expected(80)
    await stored.engine.published()
    assert stored.subscriber.contents[StreamId.parse("mean[room=a]")][START + 80_000] == expected(80)
    await stored.stop()
    await stored.start(*stored.workflows)
    assert await stored.contents("windows") == held
    assert (await stored.verify()).clean


async def test_late_data_recomputes_the_windows_that_it_lies_in(stored: Bench, evaluations: Evaluations) -> None:
    await stored.start(stored.workflow(*minutes(stored)))
    await fill(stored)
    before = await stored.contents("mean[room=a]")
    evaluations()
    await stored.publish((100_500, 1000.0))
    recomputed = [evaluation for evaluation in evaluations() if evaluation[1] < 200_000]
    assert recomputed == [("mean[room=a]", 100_499, 160_499)], "not the windows, and nothing further on"
    after = await stored.contents("mean[room=a]")
    assert {time for time in before if before[time] != after[time]} == {120_000, 140_000, 160_000}
    assert after[120_000] == pytest.approx((expected(120) * 60 + 1000) / 61, rel=1e-15)
    assert (await stored.verify()).clean


async def test_late_windows_are_computed_when_they_come(stored: Bench) -> None:
    """Windows at the instances of another stream: a late one, and one that is gone again with its correction."""
    await stored.start(
        stored.workflow(
            stored.node("on", "expression", ["light"], expression="value if value > 0 else 1 / 0"),
            stored.node("around", "aligning_window", ["on"], lower="-3s", upper="2s"),
            stored.node(
                "power_around", "sliding_apply", ["around", "power"], function="sum", max_width="3s", max_ahead="2s"
            ),
            stored.node("values", "sliding_listify", ["around", "power"], max_width="3s", max_ahead="2s"),
        )
    )
    await fill(stored)
    await stored.publish((150_000, 1.0), source="light")
    await stored.pass_time(1000)
    assert await stored.contents("power_around[room=a]") == {150_000: 148.0 + 149 + 150 + 151 + 152}
    await stored.publish((50_500, 1.0), source="light")
    assert await stored.contents("around[room=a]") == {
        50_500: window(47_500, 52_500),
        150_000: window(147_000, 152_000),
    }
    assert await stored.contents("power_around[room=a]") == {50_500: 250.0, 150_000: 750.0}
    assert (await stored.contents("values[room=a]"))[50_500] == [48.0, 49.0, 50.0, 51.0, 52.0]
    await stored.publish((150_000, 0.0), source="light")
    assert await stored.contents("power_around[room=a]") == {50_500: 250.0}
    assert (await stored.verify()).clean


async def test_a_window_ahead_waits_for_its_data(stored: Bench) -> None:
    await stored.start(
        stored.workflow(
            stored.node("next", "aligning_window", ["light"], lower="0s", upper="5s"),
            stored.node("after", "sliding_apply", ["next", "power"], function="max", max_width="0s", max_ahead="5s"),
        )
    )
    await stored.publish((0, 1.0), source="light")
    await stored.publish((1000, 1.0), (4999, 7.0))
    assert await stored.contents("after[room=a]") == {}
    await stored.publish((5000, 3.0), (5001, 9.0))
    await stored.pass_time(1000)
    assert await stored.contents("after[room=a]") == {0: 7.0}
    assert (await stored.verify()).clean


async def test_a_window_that_reaches_too_far_fails_alone(stored: Bench) -> None:
    """Its error says what to write; the windows beside it are computed."""
    await stored.start(
        stored.workflow(
            stored.node("windows", "apply", ["light"], function=lambda value: window(*value)),
            stored.node("sum", "sliding_apply", ["windows", "power"], function="sum", max_width="10s"),
        )
    )
    await fill(stored)
    given = [(20_000, [10_000, 20_000]), (40_000, [29_999, 40_000]), (60_000, [58_000, 60_000])]
    await stored.publish(*given, source="light")
    await stored.pass_time(1000)
    assert await stored.contents("sum[room=a]") == {20_000: sum(range(11, 21)), 60_000: 59.0 + 60}
    [status] = [status for status in stored.engine.status() if status.stream.name == "sum"]
    assert "begins more than max_width before its time (write max_width: 10s1ms)" in status.error


async def test_a_sink_has_its_data_computed(stored: Bench) -> None:
    """Nobody wants ``double``, until the sink is asked for: then exactly what its windows lie over."""
    await stored.start(
        stored.workflow(
            stored.node("windows", "sliding_window", lower="-30s", upper="-10s", increment="20s"),
            stored.node("double", "expression", ["power"], expression="value * 2"),
            stored.node("sink", "sliding_sink", ["windows", "double"], max_width="30s"),
            online=False,
        )
    )
    await fill(stored)
    assert await stored.contents("double[room=a]") == {}
    await stored.engine.compute([StreamId.parse("sink[room=a]")], START + 99_999, START + 120_000)
    await stored.engine.settle()
    held = await stored.contents("double[room=a]")
    assert held == {second * 1000: second * 2.0 for second in range(71, 121)}
    assert await stored.contents("sink[room=a]") == {}
