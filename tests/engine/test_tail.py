"""Tails: what they know is right, and they keep to their room."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from hs_stream.core.batch import Batch
from hs_stream.core.size import size_of_batch
from hs_stream.core.time import MAX_TIME
from hs_stream.plan.tail import LEAST, Room, Tail

from .conftest import Bench

SMALL = 1 << 14
values = (
    st.floats(0, 1) | st.builds(lambda count: "x" * count, st.integers(0, SMALL // 8)) | st.lists(st.integers(0, 9))
)


class OneTail(RuleBasedStateMachine):
    """Any writes, against all that was ever written."""

    def __init__(self) -> None:
        super().__init__()
        self.room = Room(SMALL)
        self.tail = Tail(room=self.room)
        self.other = Tail(batch=Batch.of((time, 0.5) for time in range(64)), room=self.room)
        self.all: dict[int, Any] = {}
        self.frontier = 0

    @rule(new=st.lists(values, min_size=1, max_size=40))
    def extend(self, new: list[Any]) -> None:
        batch = Batch.of(enumerate(new, self.frontier + 1))
        self.tail.extend(self.frontier, batch)
        self._stored(batch)

    def _stored(self, batch: Batch) -> None:
        self.all |= dict(batch)
        self.frontier = max([self.frontier, *batch.times.tolist()])

    @rule(start=st.integers(0, 200), new=st.dictionaries(st.integers(1, 40), values))
    def replace(self, start: int, new: dict[int, Any]) -> None:
        batch = Batch.of((start + time, value) for time, value in new.items())
        self.tail.replace(((start, start + 40),), batch)
        self.all = {time: value for time, value in self.all.items() if not start < time <= start + 40}
        self._stored(batch)

    @rule(new=st.dictionaries(st.integers(1, 200), values, min_size=1))
    def update(self, new: dict[int, Any]) -> None:
        self.tail.update(Batch.of(new.items()))
        self._stored(Batch.of(new.items()))

    @rule(low=st.integers(0, 200))
    def fill(self, low: int) -> None:
        batch = Batch.of((time, value) for time, value in self.all.items() if time > low)
        self.tail.fill(low, batch, self.tail.version)

    @rule()
    def clear(self) -> None:
        self.room.clear([self.tail, self.other])
        assert self.room.used <= self.room.limit

    @invariant()
    def what_it_knows_is_right(self) -> None:
        assert self.tail.batch == Batch.of((time, value) for time, value in self.all.items() if time > self.tail.low)

    @invariant()
    def it_is_measured_right_and_has_room(self) -> None:
        assert self.tail.size == size_of_batch(self.tail.batch) <= self.room.one
        assert self.room.used == self.tail.size + self.other.size


def test_any_writes_of_a_tail() -> None:
    run_state_machine_as_test(OneTail)


@given(st.integers(1, 400))
def test_a_tail_of_numbers_is_cut_where_it_is_full(count: int) -> None:
    tail = Tail(room=Room(8 * 1600))
    tail.need(MAX_TIME, 1)
    for time in range(count):
        tail.extend(time, Batch.of([(time + 1, 1.0)]))
    assert tail.size == 16 * len(tail.batch) <= 1600
    assert count <= 100 or len(tail.batch) >= 50, "half of what it may have is kept"


def test_what_is_read_is_kept_only_where_there_is_room() -> None:
    room = Room(8 * 1600)
    idle = [Tail(batch=Batch.of((time, 1.0) for time in range(90)), room=room) for _ in range(8)]
    tail, read = Tail(MAX_TIME, room=room), Batch.of((time, 1.0) for time in range(1, 91))
    tail.fill(0, read, 0)
    assert (tail.low, room.crowded) == (MAX_TIME, True)
    room.clear([*idle, tail])
    assert not room.crowded
    tail.fill(0, read, 0)
    assert tail.batch == read
    assert room.used == sum(one.size for one in (*idle, tail)) <= room.limit


async def test_results_are_right_without_room(bench: Bench) -> None:
    flow = bench.workflow(
        bench.node("watts", "component@^1", ["power"], key="watts"),
        bench.node("mean", "sliding_mean@^1", ["watts"], width="20s", every="1s"),
        bench.node("rest", "component_set@^1", ["power"], keys=["note", "watts"]),
        bench.node("total", "integral@^1", ["mean"]),
    )
    await bench.start(flow, tails=8192)
    for second in range(2 * LEAST):
        bench.clock.advance(1000)
        await bench.publish((1000 * second, {"watts": float(second % 7), "note": "x" * 200}))
    late = ((1000 * second + 500, {"watts": 9.0, "note": "y" * 2000}) for second in range(0, 2 * LEAST, 9))
    await bench.publish(*late)
    use = bench.engine.memory()["tails"]
    assert use.used <= use.limit
    assert use.forgotten > 0
    found = await bench.verify()
    assert found.clean
    assert found.instances > 4 * LEAST
