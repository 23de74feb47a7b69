"""How far many inputs reach together is how far each of them reaches, whoever was told of what."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from hs_stream.core.time import MAX_TIME, MIN_TIME, TimeIntervals
from hs_stream.plan.slowest import Slowest


@dataclass
class Raw:
    """A raw stream: its watermark rises as soon as readings are durable."""

    upper: int = MIN_TIME
    ahead: int = 0
    is_regular: bool = True

    def last(self) -> int:
        return self.upper

    def next_due(self) -> int | None:
        return None

    def covered(self, horizon: int) -> TimeIntervals:
        return TimeIntervals.of(MIN_TIME, max(self.upper, horizon))


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 100), st.booleans(), st.booleans()), max_size=30),
    st.integers(-50, 500),
)
def test_a_watermark_may_rise_before_anybody_is_told(
    count: int, rises: list[tuple[int, int, bool, bool]], horizon: int
) -> None:
    """With all of them risen, there was no end to how far they reach: what came next was never computed."""
    inputs = [Raw() for _ in range(count)]
    slowest = Slowest()
    for slot in range(count):
        slowest.note(slot, inputs)
    for at, rise, told, asked in rises:
        slot = at % count
        inputs[slot].upper = max(inputs[slot].upper, 0) + rise
        if told:
            slowest.note(slot, inputs)
        if asked:
            assert slowest.available(inputs, horizon) == _all_of(inputs, horizon)
    assert slowest.available(inputs, horizon) == _all_of(inputs, horizon)


def _all_of(inputs: list[Raw], horizon: int) -> TimeIntervals:
    found = TimeIntervals.of(MIN_TIME, MAX_TIME)
    for one in inputs:
        found &= one.covered(horizon)
    return found
