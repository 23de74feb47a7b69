"""Interval algebra against sets of integers; grids against brute force over every millisecond or minute."""

from __future__ import annotations

import itertools
import operator as op
from datetime import UTC, date, datetime, timedelta, timezone
from functools import cache
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hs_stream.core.time import (
    EMPTY,
    EVERYTHING,
    MAX_TIME,
    MIN_TIME,
    Grid,
    RelativeTimeInterval,
    TimeInterval,
    TimeIntervals,
    format_duration,
    format_time,
    from_ms,
    parse_duration,
    parse_time,
    shift,
    to_ms,
    zone,
)
from hs_stream.testing.strategies import interval_sets, intervals

LOW, HIGH = -20, 20
INSIDE = [TimeInterval(start, end) for start in range(LOW, HIGH) for end in range(start + 1, HIGH + 1)]


def model(intervals: TimeIntervals) -> set[int]:
    """The instants of a set within (-30, 30]."""
    return {t for start, end in intervals.pairs for t in range(max(start, -30) + 1, min(end, 30) + 1)}


@given(interval_sets(LOW, HIGH), interval_sets(LOW, HIGH))
def test_algebra_is_that_of_sets(left: TimeIntervals, right: TimeIntervals) -> None:
    before = left.pairs, right.pairs
    assert model(left | right) == model(left) | model(right)
    assert model(left & right) == model(left) & model(right)
    assert model(left - right) == model(left) - model(right)
    assert (right in left) == (model(right) <= model(left))
    assert (left.pairs, right.pairs) == before


@given(interval_sets(LOW, HIGH), interval_sets(LOW, HIGH))
def test_results_are_canonical(left: TimeIntervals, right: TimeIntervals) -> None:
    for result in (left | right, left & right, left - right, left.complement(), left.dilate(2, 3), left.dilate(-1, -2)):
        assert all(start < end for start, end in result.pairs)
        assert all(a[1] < b[0] for a, b in zip(result.pairs, result.pairs[1:], strict=False))
        assert result == TimeIntervals(list(result))
        assert hash(result) == hash(TimeIntervals(reversed(list(result))))


@given(interval_sets(LOW, HIGH))
def test_complement_twice_is_the_set(some: TimeIntervals) -> None:
    assert some.complement().complement() == some
    assert some | some.complement() == EVERYTHING
    assert not some & some.complement()


@given(interval_sets(LOW, HIGH), st.integers(0, 5), st.integers(0, 5))
def test_dilate_is_what_windows_touch(some: TimeIntervals, before: int, after: int) -> None:
    expected = {t + d for t in model(some) for d in range(-before, after + 1)}
    assert model(some.dilate(before, after)) == expected


@given(interval_sets(LOW, HIGH), st.integers(LOW - 2, HIGH + 2))
def test_membership(some: TimeIntervals, instant: int) -> None:
    assert (instant in some) == (instant in model(some)) == some.contains(instant)
    around = some.around(instant)
    assert (around is not None) == (instant in model(some))
    if around is not None:
        assert around in some.pairs
        assert around[0] < instant <= around[1]


@given(interval_sets(LOW, HIGH))
def test_measure_counts_milliseconds(some: TimeIntervals) -> None:
    assert some.measure() == len(model(some))
    assert TimeIntervals.points(model(some)) == some
    if some:
        assert some in TimeIntervals([some.span()])
        assert (some.start, some.end) == (min(model(some)) - 1, max(model(some)))


@given(intervals(), intervals())
def test_intersection_of_two_intervals(left: TimeInterval, right: TimeInterval) -> None:
    both = left & right
    assert TimeIntervals([left]) & right == (TimeIntervals([both]) if both else EMPTY)
    assert left.intersection(right) == right.intersection(left)


def test_boundaries() -> None:
    interval = TimeInterval(0, 5)
    assert 0 not in interval
    assert 5 in interval
    assert from_ms(5) in interval
    with pytest.raises(ValueError, match="start < end"):
        TimeInterval(5, 5)
    assert TimeIntervals.of(5, 5) == EMPTY
    with pytest.raises(ValueError, match="empty"):
        _ = EMPTY.start
    assert str(EMPTY) == "(empty)"


@given(st.sampled_from(INSIDE), interval_sets(LOW, HIGH), st.integers(LOW - 2, HIGH + 2))
def test_operators_of_an_interval_are_those_of_the_set_of_it(
    interval: TimeInterval, some: TimeIntervals, instant: int
) -> None:
    alone = TimeIntervals([interval])
    for item in (instant, some, *some, interval):
        assert (item in interval) == (item in alone)
    assert (some in interval) == (model(some) <= model(alone))
    assert interval | some == some | interval == alone | some
    assert interval & some == some & interval == alone & some
    assert interval - some == alone - some
    assert interval == alone
    assert alone == interval
    assert (interval == some) == (some == interval) == (model(some) == model(alone))
    assert hash(interval) == hash(alone)


@given(intervals(), intervals())
def test_operators_of_two_intervals(left: TimeInterval, right: TimeInterval) -> None:
    assert (left in right) == (TimeIntervals([left]) in TimeIntervals([right]))
    assert left | right == TimeIntervals([left, right])
    assert left - right == TimeIntervals([left]) - right


def test_what_is_inside_of_an_interval() -> None:
    interval = TimeInterval(0, 10)
    for inside in (
        1,
        10,
        np.int64(10),
        from_ms(10),
        TimeInterval(0, 10),
        TimeInterval(0, 1),
        TimeInterval(9, 10),
        EMPTY,
    ):
        assert inside in interval
        assert inside in TimeIntervals([interval])
    for outside in (0, 11, np.int64(0), from_ms(0), TimeInterval(-1, 10), TimeInterval(0, 11), TimeInterval(20, 30)):
        assert outside not in interval
        assert outside not in TimeIntervals([interval])
    assert TimeIntervals([(0, 2), (8, 10)]) in interval
    assert TimeIntervals([(0, 2), (8, 11)]) not in interval
    assert interval & TimeIntervals([(-5, 2), (8, 99)]) == TimeIntervals([(0, 2), (8, 10)])


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (datetime(2026, 1, 1), "give it a time zone"),  # noqa: DTZ001
        ("2026-01-01T00:00:00Z", "write datetime.fromisoformat"),
        ((0, 5), r"write TimeInterval\(start, end\)"),
        (RelativeTimeInterval("-1m", 0), r"write relative.absolute\(instant\)"),
        (1.0, "write whole milliseconds"),
        (True, "is neither an instant nor an interval: write an aware datetime"),
        (None, "is neither an instant nor an interval: write an aware datetime"),
        (date(2026, 1, 1), "write an aware datetime"),
    ],
)
def test_what_is_no_instant_and_no_interval_is_an_error(item: object, words: str) -> None:
    for whole in (TimeInterval(0, 10), TimeIntervals([(0, 10)]), EMPTY):
        with pytest.raises(TypeError, match=words):
            _ = item in whole
    for operator in (op.and_, op.or_, op.sub):
        for whole in (TimeInterval(0, 10), TimeIntervals([(0, 10)])):
            with pytest.raises(TypeError, match="is no TimeInterval and no TimeIntervals: write"):
                operator(whole, item)
    with pytest.raises(TypeError, match="is no TimeInterval"):
        TimeInterval(0, 10).intersection(item)  # type: ignore[arg-type]


def test_infinities_stay_where_they_are() -> None:
    assert shift(MIN_TIME, 10) == MIN_TIME
    assert shift(MAX_TIME, -10) == MAX_TIME
    assert shift(MAX_TIME - 5, 10) == MAX_TIME
    assert TimeInterval(MIN_TIME, 5).dilate(10, 10) == TimeInterval(MIN_TIME, 15)
    assert str(TimeInterval(MIN_TIME, MAX_TIME)) == "(-inf, inf]"
    assert EVERYTHING.dilate(5, 5) == EVERYTHING


def test_instants_and_datetimes() -> None:
    assert to_ms(datetime(2015, 2, 4, 18, 51, tzinfo=timezone(timedelta(hours=1)))) == 1_423_072_260_000
    assert to_ms(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)) == -1
    with pytest.raises(TypeError, match="naive datetime"):
        to_ms(datetime(2015, 2, 4))  # noqa: DTZ001 - what is refused
    for wrong in (True, 1.5, "now", None):
        with pytest.raises(TypeError, match="an instant is"):
            to_ms(wrong)  # type: ignore[arg-type]


@given(st.integers(-(10**12), 10**12))
def test_duration_text_round_trip(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds)) == milliseconds


@given(st.integers(-62_135_596_800_000, 253_402_214_400_000))
def test_time_text_round_trip(instant: int) -> None:
    assert to_ms(from_ms(instant)) == instant
    assert parse_time(format_time(instant), now=0) == instant


@pytest.mark.parametrize("wrong", ["", "5 fortnights", "m5", "1h 30", None, True, float("nan"), float("inf"), [5]])
def test_wrong_durations(wrong: object) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["", "yesterday", "2015-02-04T17:51:00", "2015-02-04"])
def test_wrong_times(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_time(wrong, now=0)


def test_relative_interval() -> None:
    assert RelativeTimeInterval("-1m", "5s").absolute(from_ms(60_000)) == TimeInterval(0, 65_000)
    with pytest.raises(ValueError, match="start < end"):
        RelativeTimeInterval(0, "-1m")


def test_unknown_zone() -> None:
    with pytest.raises(ValueError, match="'Mars/Olympus' is not a known time zone"):
        zone("Mars/Olympus")
    with pytest.raises(ValueError, match="every > 0"):
        Grid(0)


# --- grids ---

HOUR, DAY = 3_600_000, 86_400_000
SPOTS = [
    ("Europe/Brussels", datetime(2015, 3, 29, tzinfo=UTC)),
    ("Europe/Brussels", datetime(2015, 10, 25, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2015, 4, 4, 15, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2015, 10, 3, 15, 30, tzinfo=UTC)),
    ("Pacific/Apia", datetime(2011, 12, 30, 10, tzinfo=UTC)),
    ("Pacific/Apia", datetime(2012, 3, 31, 14, tzinfo=UTC)),
    ("America/Sao_Paulo", datetime(2018, 11, 4, 3, tzinfo=UTC)),
    ("America/Sao_Paulo", datetime(2018, 2, 18, 2, tzinfo=UTC)),
    ("Asia/Kathmandu", datetime(1985, 12, 31, 18, 30, tzinfo=UTC)),
    ("UTC", datetime(2015, 3, 29, tzinfo=UTC)),
]
EVERIES = [DAY, 2 * DAY, HOUR, 5 * HOUR, 7 * 60_000, 90 * 60_000]


@cache
def local_minutes(tz: str, first: int, last: int) -> list[tuple[int, datetime]]:
    """Every whole UTC minute of (first, last] with its wall clock."""
    begin = first // 60_000 + 1
    return [
        (minute * 60_000, from_ms(minute * 60_000).astimezone(ZoneInfo(tz)).replace(tzinfo=None))
        for minute in range(begin, last // 60_000 + 1)
    ]


def brute_force(every: int, tz: str, first: int, last: int) -> list[int]:
    """Walks the wall clock minute by minute: it shows a grid instant, or it jumps over one."""
    epoch, found, seen = datetime(1970, 1, 1), [], None  # noqa: DTZ001 - a wall clock
    for time, wall in local_minutes(tz, first - 2 * DAY, last):
        at = (wall - epoch) // timedelta(milliseconds=1)
        if seen is not None and at <= seen:
            continue  # a wall-clock instant that occurs twice counts at its first time
        if at // every * every > (seen if seen is not None else at - 1):
            found.append(time)
        seen = at
    return [time for time in found if first < time <= last]


@pytest.mark.parametrize(("tz", "change"), SPOTS, ids=lambda value: str(value)[:19])
@pytest.mark.parametrize("every", EVERIES, ids=format_duration)
def test_grid_on_a_local_clock(tz: str, change: datetime, every: int) -> None:
    middle = to_ms(change)
    first, last = middle - 3 * DAY, middle + 3 * DAY
    grid = Grid(every, tz)
    expected = brute_force(every, tz, first, last)
    assert grid.times(first, last).tolist() == expected
    steps, after = [], first
    while (after := grid.next(after)) <= last:
        steps.append(after)
    assert steps == expected


@given(st.integers(1, 50), st.integers(-60, 60), st.integers(-300, 300), st.integers(0, 300))
def test_grid_without_a_zone(every: int, offset: int, start: int, width: int) -> None:
    grid = Grid(every, offset=offset)
    expected = [t for t in range(start + 1, start + width + 1) if (t - offset) % every == 0]
    assert grid.times(start, start + width).tolist() == expected
    assert grid.next(start) == next(t for t in range(start + 1, start + every + 1) if (t - offset) % every == 0)


@given(
    st.sampled_from(SPOTS), st.sampled_from(EVERIES), st.lists(st.integers(-3 * DAY, 3 * DAY), min_size=2, max_size=4)
)
def test_grid_times_split(spot: tuple[str, datetime], every: int, offsets: list[int]) -> None:
    grid, edges = Grid(every, spot[0]), [to_ms(spot[1]) + offset for offset in sorted(offsets)]
    pieces = [time for a, b in itertools.pairwise(edges) for time in grid.times(a, b).tolist()]
    assert pieces == grid.times(edges[0], edges[-1]).tolist()


@given(
    st.sampled_from(SPOTS), st.sampled_from([DAY, 2 * DAY, 7 * DAY, HOUR, 36 * HOUR]), st.integers(-3 * DAY, 3 * DAY)
)
def test_back_stays_within_lookback(spot: tuple[str, datetime], width: int, offset: int) -> None:
    grid, instant = Grid(DAY, spot[0]), to_ms(spot[1]) + offset
    back = grid.back(instant, width)
    assert back < instant
    assert instant - back <= grid.lookback(width)
    if width % DAY:
        assert back == instant - width


def test_back_one_local_day() -> None:
    grid = Grid(DAY, "Europe/Brussels")
    ends = grid.times(to_ms(datetime(2015, 3, 28, tzinfo=UTC)), to_ms(datetime(2015, 3, 31, tzinfo=UTC))).tolist()
    assert [end - grid.back(end, DAY) for end in ends] == [24 * HOUR, 23 * HOUR, 24 * HOUR]
