"""The plan is asked without an engine, a store or a loop: what a change takes back, and what is done first."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from hs_stream.core.affected import affected
from hs_stream.core.batch import Batch
from hs_stream.core.stream import StreamId
from hs_stream.core.time import EMPTY, MIN_TIME, TimeIntervals
from hs_stream.core.tool import Duration, FoldTool, Support, Tool, Window, WindowTool
from hs_stream.core.value import Value
from hs_stream.plan.portions import now_and_later
from hs_stream.plan.state import Head, StreamState
from hs_stream.plan.streams import Stream
from hs_stream.plan.take_back import TakenBack, reaching, take_back

END = 30


@dataclass(frozen=True, kw_only=True)
class Count(WindowTool):
    """Counts what lies within ``width`` before and ``ahead`` after."""

    name = "count"
    version = "1.0.0"
    ahead: int = 0

    def support(self, slot: int) -> Support:
        return Window(self.width, self.ahead)

    def reduce(self, window: Batch, time: int) -> Value:
        return len(window)


@dataclass(frozen=True, kw_only=True)
class Total(FoldTool):
    name = "total"
    version = "1.0.0"

    def initial(self) -> Value:
        return 0

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        return state + 1, state + 1


def computed_by(tool: Tool, *, until: int, fold: Head | None = None) -> Stream:
    source = Stream(1, StreamId("raw"), "raw")
    stream = Stream(2, StreamId("result"), "derived")
    stream.tool = tool
    stream.connect([source], [])
    stream.replace(StreamState(coverage=TimeIntervals.of(MIN_TIME, until), fold=fold))
    return stream


def planned(stream: Stream, changed: TimeIntervals) -> TakenBack:
    work = stream.begin_work()
    reached = {
        slot: affected(stream.support(slot), spans) for slot, spans in reaching(stream, work, {0: changed}).items()
    }
    return take_back(stream, work, {0: changed}, reached, EMPTY, MIN_TIME)


@given(st.integers(1, 5), st.integers(0, 4), st.sets(st.integers(0, END), min_size=1), st.integers(1, END))
def test_what_is_covered_and_reads_what_changed_is_lost(back: int, ahead: int, times: set[int], until: int) -> None:
    stream = computed_by(Count(width=Duration(back), ahead=ahead), until=until)
    taken = planned(stream, TimeIntervals.points(sorted(times)))
    expected = [t for t in range(-9, END + 9) if t <= until and any(t - back < at <= t + ahead for at in times)]
    assert [t for t in range(-9, END + 9) if taken.lost.covers(t - 1, t)] == expected
    assert taken.late == bool(expected)
    assert (taken.unsure, taken.invalid) == (EMPTY, None)


def test_a_fold_keeps_its_states_before_the_change() -> None:
    stream = computed_by(Total(), until=10, fold=Head(10, 12, 3))
    taken = planned(stream, TimeIntervals.of(4, 6))
    assert taken == TakenBack(TimeIntervals.of(4, 10), EMPTY, (4, 6), late=True)


def test_what_a_fold_has_gone_through_in_silence_is_known_too() -> None:
    stream = computed_by(Total(), until=10, fold=Head(10, 12, 3))
    taken = planned(stream, TimeIntervals.of(10, 11))
    assert taken == TakenBack(EMPTY, EMPTY, (10, 11), late=True)


def test_what_is_final_stays() -> None:
    stream = computed_by(Total(), until=10)
    stream.final = 7
    assert planned(stream, TimeIntervals.of(4, 6)).lost == TimeIntervals.of(7, 10)


def test_what_is_new_comes_before_what_was_left() -> None:
    stream = computed_by(Count(width=Duration(1)), until=10)
    stream.replace(stream.state._replace(owed=TimeIntervals.of(10, 20)))
    owed, new = TimeIntervals.of(10, 25), TimeIntervals.of(20, 25)
    work = stream.begin_work()

    def asked(*, is_turn: bool, waits: bool) -> tuple[TimeIntervals, TimeIntervals]:
        return now_and_later(stream, work, owed, is_turn=is_turn, exhausted=False, waits=waits, takes_back=False)

    assert asked(is_turn=False, waits=True) == (new, owed - new)
    assert asked(is_turn=False, waits=False) == (owed, EMPTY)
    stream.requests[1] = TimeIntervals.of(12, 14)
    assert asked(is_turn=True, waits=True) == (TimeIntervals.of(12, 14), owed - TimeIntervals.of(12, 14))


def test_a_fold_does_nothing_before_what_was_left_but_what_it_takes_back() -> None:
    stream = computed_by(Total(), until=10)
    owed, work = TimeIntervals.of(10, 25), stream.begin_work()

    def asked(*, waits: bool, takes_back: bool) -> tuple[TimeIntervals, TimeIntervals]:
        return now_and_later(stream, work, owed, is_turn=False, exhausted=False, waits=waits, takes_back=takes_back)

    assert asked(waits=True, takes_back=False) == (EMPTY, owed)
    assert asked(waits=True, takes_back=True) == (owed, EMPTY)
