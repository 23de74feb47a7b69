"""The usual case: what is new is later than all there is, and all that it takes is in memory."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import pytest

from hs_stream.compute.run import run
from hs_stream.compute.task import Result, Task
from hs_stream.core.stream import StreamId
from hs_stream.core.time import TimeIntervals
from hs_stream.core.tool import FoldTool
from hs_stream.core.value import Value
from hs_stream.core.workflow import NodeDefinition, WorkflowDefinition
from hs_stream.engine.process import Processor
from hs_stream.store.memory import MemoryStore
from tests.engine.conftest import START, Bench

EXPECTED = {
    "double": {3_000: 6.0, 4_000: 8.0, 5_000: 10.0},
    "mean": {3_000: 2.5, 4_000: 3.5, 5_000: 4.5},
    "held": {3_000: 2.5, 4_000: 3.5, 5_000: 4.5},
    "slope": {3_000: 1.0, 4_000: 1.0, 5_000: 1.0},
    "total": {3_000: 6, 4_000: 10, 5_000: 15},
}


@dataclass(frozen=True, kw_only=True)
class Total(FoldTool):
    """Sum so far. It writes into its state before it finds that it cannot use a value."""

    name = "total"
    version = "1.0.0"

    def initial(self) -> Value:
        return [0]

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        state[0] += int(value)
        if value < 0:
            raise ValueError("no less than nothing")
        return [state[0]], state[0]


class Later:
    """A backend that has its results a little later."""

    slots = 1

    def run(self, task: Task) -> Result | Awaitable[Result]:
        async def later() -> Result:
            return run(task)

        return later()


class Deaf(MemoryStore):
    """It answers no question about instances once it is ``deaf``."""

    deaf = False

    async def read(self, *arguments: Any, **options: Any) -> Any:
        assert not self.deaf
        return await super().read(*arguments, **options)

    async def last(self, *arguments: Any) -> Any:
        assert not self.deaf
        return await super().last(*arguments)


def everything(bench: Bench) -> WorkflowDefinition:
    return bench.workflow(
        bench.node("double", "expression", ["power"], expression="value * 2"),
        bench.node("mean", "sliding_mean", ["power"], width="2s"),
        bench.node("held", "sliding_mean", ["mean"], width="1s"),
        bench.node("slope", "derivative", ["power"]),
        NodeDefinition("total", Total(), ("power",), (), {}),
    )


@pytest.fixture
async def ready(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Two readings are there; from now on only the usual way is open."""
    bench.store = store = Deaf()
    await bench.start(everything(bench))
    bench.clock.advance(6_000)
    await bench.publish((1_000, 1.0))
    await bench.publish((2_000, 2.0))
    store.deaf = True

    async def awaited(*_: Any) -> Any:
        raise AssertionError("it was not done at once")

    for way in ("_usual", "_general", "_wait"):
        monkeypatch.setattr(Processor, way, awaited)
    return bench


async def contents(bench: Bench) -> dict[str, dict[int, Any]]:
    assert isinstance(bench.store, Deaf)
    bench.store.deaf = False
    found = {name: await bench.contents(f"{name}[room=a]") for name in EXPECTED}
    return {name: {time: value for time, value in one.items() if time > 2_000} for name, one in found.items()}


async def test_new_readings_need_no_store_and_no_waiting(ready: Bench) -> None:
    for second in (3, 4, 5):
        await ready.publish((1_000 * second, float(second)))
    assert await contents(ready) == EXPECTED
    assert (await ready.verify()).clean


async def test_nor_do_several_at_once(ready: Bench) -> None:
    await ready.publish((3_000, 3.0), (4_000, 4.0), (5_000, 5.0))
    assert await contents(ready) == EXPECTED
    assert (await ready.verify()).clean


async def test_a_backend_may_have_its_results_later(bench: Bench) -> None:
    bench.backend = Later()
    bench.store = Deaf()
    await bench.start(everything(bench))
    bench.clock.advance(6_000)
    for second in (1, 2, 3, 4, 5):
        await bench.publish((1_000 * second, float(second)))
    assert await contents(bench) == EXPECTED
    assert (await bench.verify()).clean


@pytest.mark.parametrize("later", [False, True])
async def test_a_fold_that_breaks_its_state_goes_on_from_it_as_it_was(bench: Bench, *, later: bool) -> None:
    if later:
        bench.backend = Later()
    await bench.start(bench.workflow(NodeDefinition("total", Total(), ("power",), (), {})))
    bench.clock.advance(6_000)
    await bench.publish((1_000, 1.0))
    await bench.publish((2_000, 2.0), (3_000, -5.0), (4_000, 4.0))
    await bench.publish((5_000, -1.0))
    await bench.publish((6_000, 1.0))
    assert await bench.contents("total[room=a]") == {1_000: 1, 2_000: 3, 4_000: 7, 6_000: 8}
    failed = bench.engine.find(StreamId.parse("total[room=a]")).failed
    assert failed == TimeIntervals.points([START + 3_000, START + 5_000])
    assert (await bench.verify()).clean


async def test_a_tool_that_raises_fails_its_instant_only(bench: Bench) -> None:
    await bench.start(bench.workflow(bench.node("inverse", "expression", ["power"], expression="1 / value")))
    bench.clock.advance(6_000)
    await bench.publish((1_000, 1.0))
    await bench.publish((2_000, 2.0), (3_000, "three"), (4_000, 4.0))
    assert await bench.contents("inverse[room=a]") == {1_000: 1.0, 2_000: 0.5, 4_000: 0.25}
    failed = bench.engine.find(StreamId.parse("inverse[room=a]")).failed
    assert failed == TimeIntervals.points([START + 3_000])
    assert (await bench.verify()).clean
