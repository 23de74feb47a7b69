"""Law 2 over what held as a window began, over what comes after it, and over folds that speak at any instant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from hs_stream.core.batch import Batch
from hs_stream.core.time import Grid, TimeInterval
from hs_stream.core.tool import (
    SKIP,
    AggregateTool,
    Drive,
    Duration,
    FoldTool,
    FromInput,
    FromUnion,
    OnGrid,
    Prefix,
    Support,
    Tool,
    Window,
    grid_times_near,
)
from hs_stream.core.value import Value
from hs_stream.core.workflow import NodeDefinition, WorkflowDefinition
from hs_stream.engine.ports import Store
from hs_stream.store.sqlite import SqliteStore
from hs_stream.testing.check_tool import check_tool
from hs_stream.testing.check_workflow import check_workflow

from .test_incremental_law import METAS, VALUES, memory, node, workflow


@dataclass(frozen=True, kw_only=True)
class Held(Tool):
    """The numbers of a window, and in front of them the one that held as it began."""

    name = "held"
    version = "0.1.0"
    takes = "number"
    samples = ({"width": "5s", "before": 1}, {"width": "1s", "before": 2, "every": "2s"})
    width: Duration
    before: int
    every: Duration | None = None

    def support(self, slot: int) -> Support:
        return Window(self.width, before=self.before)

    def drive(self) -> Drive:
        return FromInput(0) if self.every is None else OnGrid(Grid(self.every))

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        source = sources[0]
        times = source.slice(interval.start, interval.end).times
        if self.every is not None:
            times = grid_times_near(Grid(self.every), source.times, interval, 60_000)
        rows = []
        for time in times.tolist():
            kept = [
                *source.last(time - self.width, self.before).plain(),
                *source.slice(time - self.width, time).plain(),
            ]
            if kept and source.first_time <= time and time - source.last(time, 1).last_time < 60_000:
                rows.append((time, kept))
        return Batch.of(rows)


@dataclass(frozen=True, kw_only=True)
class UntilNext(Tool):
    """How long it takes until the next instance that is later than ``ahead`` after this one."""

    name = "until_next"
    version = "0.1.0"
    takes = "number"
    samples = ({}, {"ahead": "2s"})
    ahead: Duration = Duration(0)

    def support(self, slot: int) -> Support:
        return Window(1, self.ahead, after=1)

    def drive(self) -> Drive:
        return FromInput(0)

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        source = sources[0]
        rows = []
        for time in source.slice(interval.start, interval.end).times.tolist():
            at = int(source.times.searchsorted(time + self.ahead, "right"))
            if at < len(source):
                rows.append((time, int(source.times[at]) - time))
        return Batch.of(rows)


@dataclass(frozen=True, kw_only=True)
class Alarm(FoldTool):
    """``wait`` after an instance, unless another one came before: how many there were in a row."""

    name = "alarm"
    version = "0.1.0"
    takes = "number"
    samples = ({"wait": "3s"}, {"wait": "1ms"})
    wait: Duration

    def drive(self) -> Drive:
        return OnGrid(Grid(1))

    def initial(self) -> Value:
        return None

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        goes_on = state is not None and time - state[0] <= self.wait
        return [time, state[1] + 1 if goes_on else 1], SKIP

    def quiet(self, state: Value, start: int, end: int) -> list[tuple[int, Value]]:
        due = self.due(state, start)
        return [(due, state[1])] if due is not None and due <= end else []

    def due(self, state: Value, after: int) -> int | None:
        return None if state is None or state[0] + self.wait <= after else state[0] + self.wait


@dataclass(frozen=True, kw_only=True)
class Line(FoldTool):
    """On a grid how many instances there were, and on the way from one to the next a part of one more.

    In silence it tells the same for ``forget``, as if nothing came.
    """

    name = "line"
    version = "0.1.0"
    takes = "number"
    samples = ({"every": "1s", "forget": "4s"}, {"every": "7s", "forget": "1s"})
    every: Duration
    forget: Duration

    def support(self, slot: int) -> Support:
        return Prefix(after=1)

    def drive(self) -> Drive:
        return OnGrid(Grid(self.every))

    def initial(self) -> Value:
        return None

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        return [time, 1 if state is None else state[1] + 1], SKIP

    def quiet(self, state: Value, start: int, end: int) -> list[tuple[int, Value]]:
        if state is None:
            return []
        times = Grid(self.every).times(start, min(end, state[0] + self.forget)).tolist()
        return [(time, state[1]) for time in times]

    def due(self, state: Value, after: int) -> int | None:
        due = Grid(self.every).next(after)
        return due if state is not None and due <= state[0] + self.forget else None

    def before_next(self, state: Value, start: int, end: int, following: tuple[int, Value]) -> list[tuple[int, Value]]:
        if state is None:
            return []
        way = following[0] - state[0]
        times = Grid(self.every).times(max(start, following[0] - 20 * self.every), end).tolist()
        return [(time, [state[1], time - state[0], way, following[1]]) for time in times]


@dataclass(frozen=True, kw_only=True)
class Lately(AggregateTool):
    """Of each stream of a plate the last instance that is younger than ``hold``, by plate value."""

    name = "lately"
    version = "0.1.0"
    samples = ({"hold": "3s"}, {"hold": "3s", "ever": True})
    hold: Duration
    ever: bool = False

    def support(self, slot: int) -> Support:
        return Window(self.hold, before=int(self.ever))

    def drive(self) -> Drive:
        return FromUnion()

    def aggregate(self, values: Sequence[Value], keys: Sequence[str]) -> Value:
        return dict(zip(keys, values, strict=True))

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        keys = getattr(sources, "keys", ())
        times = sorted({t for source in sources for t in source.slice(interval.start, interval.end).times.tolist()})
        rows = []
        for time in times:
            found = [(key, source.last(time, 1)) for key, source in zip(keys, sources, strict=True)]
            young = {
                key: one.plain()[0] for key, one in found if one and (self.ever or time - one.last_time < self.hold)
            }
            rows.append((time, young))
        return Batch.of(rows)


@pytest.mark.parametrize("tool", [Held, UntilNext, Alarm, Line, Lately])
def test_the_tools_keep_the_laws(tool: type[Tool]) -> None:
    check_tool(tool, examples=60, seed=1)


def made(name: str, tool: Tool, inputs: Sequence[str], over: Sequence[str] = ()) -> NodeDefinition:
    return NodeDefinition(name, tool, tuple(inputs), tuple(over), {})


def supports() -> WorkflowDefinition:
    wait, width = Duration(3000), Duration(5000)
    return workflow(
        [
            node("t", "component", ["climate"], key="t"),
            node("smooth", "sliding_mean", ["t"], width="5s", every="1s"),
            made("held", Held(width=width, before=1), ["t"]),
            made("on_grid", Held(width=Duration(1000), before=2, every=Duration(2000)), ["t"]),
            made("next", UntilNext(), ["t"]),
            made("next_of_raw", UntilNext(), ["light"]),
            made("next_but", UntilNext(ahead=Duration(2000)), ["smooth"]),
            made("long", UntilNext(), ["next"]),
            made("alarm", Alarm(wait=wait), ["t"]),
            made("again", Alarm(wait=wait), ["alarm"]),
            made("soon", Alarm(wait=Duration(100)), ["light"]),
            made("line", Line(every=Duration(1000), forget=wait), ["t"]),
            made("line_of_raw", Line(every=Duration(2000), forget=Duration(1)), ["light"]),
            made("line_of_it", Line(every=Duration(1000), forget=wait), ["next"]),
            made("lately", Lately(hold=wait), ["t"], ["room"]),
            made("ever", Lately(hold=wait, ever=True), ["light"], ["room"]),
            node("change", "change_detect", ["next"]),
        ]
    )


@pytest.mark.parametrize("seed", range(7000, 7012))
async def test_any_order_ends_as_from_scratch(seed: int) -> None:
    report = await check_workflow(memory(), [supports()], VALUES, METAS, seed=seed)
    assert report.readings > 0


@pytest.mark.parametrize("seed", range(8000, 8024))
async def test_any_crash_ends_as_from_scratch(seed: int) -> None:
    report = await check_workflow(memory(), [supports()], VALUES, METAS, seed=seed, crash_moments=["before", "after"])
    assert report.readings > 0


@pytest.mark.parametrize("seed", range(9000, 9003))
async def test_any_crash_on_sqlite_ends_as_from_scratch(seed: int, tmp_path: Path) -> None:
    async def factory() -> Store:
        return SqliteStore(tmp_path / "law.db")

    report = await check_workflow(
        factory, [supports()], VALUES, METAS, seed=seed, crash_moments=["before", "after"], rounds=12
    )
    assert report.readings > 0
