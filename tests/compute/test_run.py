"""What comes of a task of a fold: where it ends, which state it leaves, what it may not touch."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from hs_stream.compute.run import run
from hs_stream.compute.task import Carried, Result, Task
from hs_stream.core.batch import Batch
from hs_stream.core.fold_states import HALTED, INITIAL
from hs_stream.core.time import TimeIntervals
from hs_stream.core.tool import FoldTool, Sources
from hs_stream.core.value import Value


@dataclass(frozen=True, kw_only=True)
class Sum(FoldTool):
    """Changes its state before it looks at the value."""

    name = "sum"
    version = "1.0.0"

    def initial(self) -> Value:
        return [0]

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        state[0] += 1000
        if isinstance(value, str):
            raise TypeError("no number")
        state[0] += value - 1000
        return state, state[0]


@dataclass(frozen=True, kw_only=True)
class Ledger(Sum):
    name = "ledger"
    goes_on = False


@dataclass(frozen=True, kw_only=True)
class NoBeginning(Sum):
    name = "no_beginning"

    def initial(self) -> Value:
        raise LookupError("no file of weights")


def of(values: list[object], tool: FoldTool | None = None, **how: object) -> Task:
    batch = Batch.of((time, value) for time, value in enumerate(values, 1))
    task = Task(tool or Sum(), 0, 10, Sources([batch]), carried=Carried(INITIAL, 0), wary=False)
    return task._replace(**how)  # type: ignore[arg-type]


def state(result: Result) -> object:
    assert result.carried is not None
    return result.carried.state


def test_a_healthy_fold() -> None:
    done = run(of([1, 2, 3], every=2))
    assert (done.start, done.end, dict(done.contents)) == (0, 10, {1: 1, 2: 3, 3: 6})
    assert done.carried == Carried([6], 3, 1)
    assert done.snapshots == ((2, [3]),)
    assert not done.torn


def test_a_state_that_may_be_changed_in_place_is_not_passed_on_as_good() -> None:
    done = run(of([1, 2, "x", 4], every=2))
    assert (done.end, dict(done.contents), done.torn) == (2, {1: 1, 2: 3}, True)
    # Whoever asked makes the state anew, and goes on.
    assert done.carried is not None
    rest = of([1, 2, "x", 4], start=2, carried=done.carried._replace(state=[3]), wary=True)
    again = run(rest._replace(sources=Sources([rest.sources[0].slice(2, 10)])))
    both = done.then(again)
    assert (both.start, both.end, dict(both.contents)) == (0, 10, {1: 1, 2: 3, 4: 7})
    assert both.failed == TimeIntervals.points([3])
    assert both.snapshots == ((2, [3]),)
    assert (both.raised, both.kind) == (1, "TypeError")


def test_a_wary_task_leaves_the_state_that_it_was_given_alone() -> None:
    given = [5]
    assert state(run(of([1, "x"], carried=Carried(given, 0), wary=True))) == [6]
    assert given == [5]


def test_it_ends_where_the_state_is_that_of_before() -> None:
    done = run(of([1, 2, 3], old={1: [7], 2: [3], 10: [6]}))
    assert (done.end, done.converged, dict(done.contents)) == (2, True, {1: 1, 2: 3})
    assert state(done) == [3]
    assert not run(of([1, 2, 3], old={2: [4]})).converged


def test_a_fold_that_must_not_go_on_is_halted() -> None:
    done = run(of([1, "x", 3], Ledger(), wary=True, every=1))
    assert state(done) is HALTED
    assert done.failed == TimeIntervals.of(1, 10)
    assert done.snapshots == ((1, [1]),)


@pytest.mark.parametrize("wary", [True, False])
def test_a_fold_without_a_beginning_fails_everywhere(wary: bool) -> None:
    done = run(of([1, 2], NoBeginning(), wary=wary))
    assert (done.end, len(done.contents), done.raised, done.kind) == (10, 0, 1, "LookupError")
    assert done.failed == TimeIntervals.of(0, 10)
    assert "no file of weights" in done.error


def test_work_has_a_bound() -> None:
    done = run(of(["x"] * 8, wary=True, work=3))
    assert 0 < done.end < 8
    assert done.failed == TimeIntervals.of(0, done.end)


def test_no_snapshot_is_made_of_a_state_that_is_torn() -> None:
    """It was due before the tool raised: what was stored then was 1000 too much, in any store."""
    result = run(of(["", 1], carried=Carried([7], 0, 5), every=1))
    assert result.torn
    assert result.snapshots == ()
