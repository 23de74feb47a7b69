"""What travels through a support, against what an output at each single instant reads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hs_stream.compute.attempt import readable
from hs_stream.core.affected import affected, available, counts_after, looks_on, required
from hs_stream.core.batch import Batch
from hs_stream.core.time import MAX_TIME, MIN_TIME, TimeInterval, TimeIntervals
from hs_stream.core.tool import Pointwise, Prefix, Previous, Support, Window

REACH = 30
CONTENTS = st.dictionaries(st.integers(0, REACH), st.integers(0, 2), max_size=8)
SUPPORTS: st.SearchStrategy[Support] = st.one_of(
    st.just(Pointwise()),
    st.builds(Prefix, st.integers(0, 1)),
    st.builds(Previous, st.integers(1, 3)),
    st.builds(Window, st.integers(1, 6), st.integers(0, 4), st.integers(0, 2), st.integers(0, 1)),
)


def batch(contents: dict[int, int]) -> Batch:
    return Batch.of(sorted(contents.items()))


def read_at(support: Support, contents: Batch, time: int) -> list[tuple[int, object]]:
    """By the definition, one instance after the other."""
    items = list(contents)
    if isinstance(support, Pointwise):
        return [item for item in items if item[0] == time]
    if isinstance(support, Prefix):
        until = [item for item in items if item[0] <= time]
        there = bool(until) and until[-1][0] == time
        return until + [item for item in items if item[0] > time][: 0 if there else support.after]
    if isinstance(support, Previous):
        return [item for item in items if item[0] <= time][-support.n :]
    first, last = time - support.lookback, time + support.lookahead
    before = [item for item in items if item[0] <= first]
    after = [item for item in items if item[0] > last]
    inside = [item for item in items if first < item[0] <= last]
    return before[len(before) - min(support.before, len(before)) :] + inside + after[: support.after]


@given(SUPPORTS, CONTENTS, CONTENTS)
def test_outputs_that_read_something_else_are_affected(
    support: Support, old: dict[int, int], new: dict[int, int]
) -> None:
    times = [time for time in sorted({*old, *new}) if old.get(time) != new.get(time)]
    changed, contents = TimeIntervals.points(times), batch(new)
    later = [_nth_after(contents, end, counts_after(support)) for _, end in changed.pairs]
    earlier = [_nth_before(contents, start, int(looks_on(support))) for start, _ in changed.pairs]
    touched = affected(support, changed, later, earlier)
    for time in range(-10, REACH + 10):
        if read_at(support, batch(old), time) != read_at(support, contents, time):
            assert touched.covers(time - 1, time), time


@given(SUPPORTS, CONTENTS, st.integers(-5, REACH), st.integers(1, 9))
def test_a_piece_is_given_what_its_outputs_read_and_nothing_more(
    support: Support, contents: dict[int, int], start: int, length: int
) -> None:
    given_ = list(readable(support, batch(contents), TimeInterval(start, start + length)))
    wanted = {item for time in range(start + 1, start + length + 1) for item in read_at(support, batch(contents), time)}
    assert set(given_) == wanted or isinstance(support, Prefix)
    assert wanted <= set(given_)
    needed = required(support, TimeIntervals.of(start, start + length))
    assert all(needed.covers(time - 1, time) for time, _ in given_)


@given(SUPPORTS, st.integers(0, 10), st.integers(1, 20), st.booleans(), CONTENTS, CONTENTS)
def test_what_is_available_reads_nothing_outside_of_the_coverage(
    support: Support, start: int, length: int, from_the_start: bool, one: dict[int, int], other: dict[int, int]
) -> None:
    """But for what comes after, which is not waited for."""
    low, high = MIN_TIME if from_the_start else start, start + length
    coverage = TimeIntervals.of(low, high)
    inside = {time: value for time, value in one.items() if low < time <= high}
    outside = {time: value for time, value in other.items() if not low < time <= high}
    waits = support
    if isinstance(support, Window):
        waits = Window(support.lookback, support.lookahead, support.before)
    elif isinstance(support, Prefix):
        waits = Prefix()
    can = available(support, coverage)
    for time in range(-10, REACH + 10):
        if can.covers(time - 1, time):
            assert read_at(waits, batch(inside | outside), time) == read_at(waits, batch(inside), time)


def test_a_window_and_what_held_as_it_began() -> None:
    support = Window(10, 0, before=1)
    change = TimeIntervals.points([100])
    assert affected(support, change, [130]) == TimeIntervals.of(99, 139)
    assert affected(support, change, [None]) == TimeIntervals.of(99, MAX_TIME)
    assert required(support, TimeIntervals.of(50, 60)) == TimeIntervals.of(MIN_TIME, 60)
    assert available(support, TimeIntervals.of(MIN_TIME, 60)) == TimeIntervals.of(MIN_TIME, 60)
    assert not available(support, TimeIntervals.of(0, 60))


def test_a_window_and_what_comes_after_it() -> None:
    support = Window(10, 0, after=1)
    change = TimeIntervals.points([100])
    assert affected(support, change, (), [70]) == TimeIntervals.of(69, 109)
    assert affected(support, change, (), [None]) == TimeIntervals.of(MIN_TIME, 109)
    assert available(support, TimeIntervals.of(0, 60)) == TimeIntervals.of(9, 60)


def test_everything_before_and_what_comes_after_it() -> None:
    support = Prefix(after=1)
    change = TimeIntervals.points([100])
    assert affected(support, change, (), [70]) == TimeIntervals.of(70, MAX_TIME)
    assert affected(support, change, (), [None]) == TimeIntervals.of(MIN_TIME, MAX_TIME)
    assert required(support, TimeIntervals.of(50, 60)) == TimeIntervals.of(MIN_TIME, MAX_TIME)
    assert available(support, TimeIntervals.of(MIN_TIME, 60)) == TimeIntervals.of(MIN_TIME, 60)


def _nth_after(contents: Batch, time: int, n: int) -> int | None:
    later = [at for at in contents.times.tolist() if at > time]
    return later[n - 1] if 0 < n <= len(later) else None


def _nth_before(contents: Batch, time: int, n: int) -> int | None:
    earlier = [at for at in contents.times.tolist() if at <= time]
    return earlier[-n] if 0 < n <= len(earlier) else None
