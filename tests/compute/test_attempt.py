"""Which instants fail where a tool raises: those at which it raises, however time is cut; and a fold goes on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hs_stream.compute.attempt import Walk, attempt
from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.fold_states import HALTED
from hs_stream.core.time import MIN_TIME, Grid, TimeInterval, TimeIntervals
from hs_stream.core.tool import (
    SKIP,
    Drive,
    Duration,
    FoldTool,
    FromUnion,
    MapTool,
    OnGrid,
    Support,
    Tool,
    Window,
    WindowTool,
)
from hs_stream.core.value import Value


@dataclass(frozen=True, kw_only=True)
class Twice(MapTool):
    name = "twice"
    version = "1.0.0"

    def map(self, value: Value) -> Value:
        if isinstance(value, str):
            raise TypeError(f"{value} is no number")
        return value * 2


@dataclass(frozen=True, kw_only=True)
class Sum(WindowTool):
    name = "sum"
    version = "1.0.0"

    def reduce(self, window: Batch, time: int) -> Value:
        return sum(window.plain())


@dataclass(frozen=True, kw_only=True)
class Ahead(Tool):
    """Reads all that it is given before it looks at what it needs, which is more than it may rely on."""

    name = "ahead"
    version = "1.0.0"
    arity = 2

    def support(self, slot: int) -> Support:
        return Window(10, 10)

    def drive(self) -> Drive:
        return FromUnion()

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        totals = [sum(source.plain()) for source in sources]
        times = sorted(
            {time for source in sources for time in source.slice(interval.start, interval.end).times.tolist()}
        )
        assert all(isinstance(total, (int, float)) for total in totals)
        return Batch.build(times, [len(sources)] * len(times))


@dataclass(frozen=True, kw_only=True)
class Kept(FoldTool):
    """All so far, in a list that it changes in place before it looks at the value."""

    name = "kept"
    version = "1.0.0"

    def initial(self) -> Value:
        return {"seen": []}

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        state["seen"].append(value)
        return state, sum(state["seen"])


@dataclass(frozen=True, kw_only=True)
class Final(FoldTool):
    """A sum that is worth nothing without every one of its parts."""

    name = "final"
    version = "1.0.0"
    goes_on: ClassVar[bool] = False

    def initial(self) -> Value:
        return 0

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        return state + value, state + value


@dataclass(frozen=True, kw_only=True)
class Told(FoldTool):
    """The last value at each tenth instant; -1 raises where it comes in, -2 where it is told."""

    name = "told"
    version = "1.0.0"

    def drive(self) -> Drive:
        return OnGrid(Grid(10))

    def initial(self) -> Value:
        return None

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        if value == -1:
            raise ValueError("cannot come in")
        return value, SKIP

    def quiet(self, state: Value, start: int, end: int) -> Iterable[tuple[int, Value]]:
        if state is None:
            return ()
        if state == -2:
            raise ValueError("cannot be told")
        return [(time, state) for time in Grid(10).times(start, end).tolist()]


def walked(tool: FoldTool, items: Sequence[tuple[int, Any]], cuts: Sequence[int], end: int, work: int | None) -> Any:
    """State, outputs and what failed, with the walk cut at ``cuts`` and wherever its work is over."""
    batch, at, state = Batch.of(items), MIN_TIME, tool.initial()
    results, failed = [], TimeIntervals()
    for stop in [*cuts, end]:
        while at < stop:
            walk = Walk(tool, state, at, work)
            walk.through(batch.slice(at, stop), stop)
            assert walk.until > at
            results.append(walk.results)
            failed |= walk.spans()
            state, at = walk.state, walk.until
    return state, list(Batch.concat(results)), failed


def tried(tool: Tool, sources: Sequence[Batch], cuts: Sequence[int], end: int, work: int | None) -> Any:
    results, failed = [], []
    low = MIN_TIME
    for stop in [*cuts, end]:
        high, parts = stop, []
        while high > low:
            found = attempt(tool, low, high, sources, work)
            assert found.low < high
            parts.append(found)
            high = found.low
        results += [part.results for part in reversed(parts)]
        failed += [time for part in reversed(parts) for time in part.failed]
        low = stop
    return list(Batch.concat(results)), failed


def test_a_tool_fails_the_instants_at_which_it_raises() -> None:
    batch = Batch.of([(10, 1), (20, "bad"), (30, 3), (40, "worse"), (50, 5)])
    found = attempt(Twice(), MIN_TIME, 60, [batch])
    assert list(found.results) == [(10, 2), (30, 6), (50, 10)]
    assert found.failed == [20, 40]
    assert found.error == "twice@1.0.0 at 1970-01-01T00:00:00.040Z: TypeError: worse is no number"
    assert found.kind == "TypeError"


def test_on_a_grid_the_outputs_fail_whose_window_holds_it() -> None:
    batch = Batch.of([(10, 1), (25, "bad"), (70, 3)])
    found = attempt(Sum(width=Duration(20), every=Duration(10)), MIN_TIME, 100, [batch])
    assert list(found.results) == [(10, 1), (20, 1), (70, 3), (80, 3)]
    assert found.failed == [30, 40]


def test_what_may_not_be_read_fails_nothing() -> None:
    sources = [Batch.of([(10, 1), (200, 2)]), Batch.of([(100, "bad"), (205, 3)])]
    found = attempt(Ahead(), MIN_TIME, 300, sources)
    assert (found.failed, found.results.times.tolist()) == ([100], [10, 200, 205])
    assert attempt(Ahead(), 199, 200, sources).failed == []


def test_an_error_that_cannot_be_told_or_is_long() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    @dataclass(frozen=True, kw_only=True)
    class Loud(Twice):
        def map(self, value: Value) -> Value:
            raise Mute if value else ValueError("x" * 100_000)

    assert attempt(Loud(), 0, 10, [Batch.of([(5, 1)])]).error.endswith("Mute: it has no text")
    assert len(attempt(Loud(), 0, 10, [Batch.of([(5, 0)])]).error) < 1000


def test_what_cannot_be_stored_fails() -> None:
    found = attempt(Twice(), 0, 10, [Batch.of([(3, 1), (4, 2**62), (5, 3)])])
    assert (list(found.results), found.failed) == ([(3, 2), (5, 6)], [4])


def test_a_fold_goes_on_from_the_state_as_it_was() -> None:
    state, results, failed = walked(Kept(), [(10, 1), (20, "bad"), (30, 3), (40, 4)], [], 50, None)
    assert (state, results) == ({"seen": [1, 3, 4]}, [(10, 1), (30, 4), (40, 8)])
    assert failed == TimeIntervals.points([20])


def test_a_fold_that_must_not_go_on_fails_in_all_that_follows() -> None:
    state, results, failed = walked(Final(), [(10, 1), (20, "bad"), (30, 3)], [25, 40], 50, None)
    assert (state, results) == (HALTED, [(10, 1)])
    assert failed == TimeIntervals.of(19, 50)


def test_on_a_grid_a_bad_instance_fails_and_outputs_go_on() -> None:
    _, results, failed = walked(Told(), [(5, 1), (20, -1), (33, 3), (47, -2), (70, 4)], [], 95, None)
    assert results == [(10, 1), (20, 1), (30, 1), (40, 3), (70, 4), (80, 4), (90, 4)]
    assert failed == TimeIntervals.points([20, 50, 60])


ITEMS = st.dictionaries(st.integers(0, 60), st.sampled_from([1, 2, -1, -2, "bad"]), max_size=10).map(
    lambda items: sorted(items.items())
)
CUTS = st.sets(st.integers(-3, 80), max_size=4).map(sorted)
WORK = st.sampled_from([None, 1, 3, 10])


@pytest.mark.parametrize("tool", [Kept(), Final(), Told()], ids=lambda tool: tool.name)
@given(items=ITEMS, cuts=CUTS, work=WORK)
def test_a_walk_is_the_same_however_it_is_cut(tool: FoldTool, items: Any, cuts: list[int], work: int | None) -> None:
    assert walked(tool, items, cuts, 90, work) == walked(tool, items, [], 90, None)


@pytest.mark.parametrize(
    "tool",
    [Twice(), Sum(width=Duration(7)), Sum(width=Duration(25), every=Duration(10)), Ahead()],
    ids=["map", "window", "grid", "both"],
)
@given(items=ITEMS, others=ITEMS, cuts=CUTS, work=WORK)
def test_an_attempt_is_the_same_however_it_is_cut(
    tool: Tool, items: Any, others: Any, cuts: list[int], work: int | None
) -> None:
    sources = [Batch.of(items), Batch.of(others)][: tool.arity]
    results, failed = tried(tool, sources, cuts, 90, work)
    alone = [tool_at(tool, time, sources) for time in range(-30, 91)]
    assert results == [one for one in alone if one is not None and one != "failed"]
    assert failed == [time for time, one in zip(range(-30, 91), alone, strict=True) if one == "failed"]


def tool_at(tool: Tool, time: int, sources: Sequence[Batch]) -> Any:
    """The output at one instant, by what the tool may read and nothing else."""
    drive = tool.drive()
    if not isinstance(drive, OnGrid) and all(time not in source.times for source in sources):
        return None
    given_it = []
    for slot, source in enumerate(sources):
        support = tool.support(slot)
        back, ahead = (support.lookback, support.lookahead) if isinstance(support, Window) else (1, 0)
        given_it.append(source.slice(time - back, time + ahead))
    try:
        return next(iter(tool.evaluate(TimeInterval(time - 1, time), given_it) or NOTHING), None)
    except (TypeError, ValueError):
        return "failed"
