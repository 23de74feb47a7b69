"""Cells of the calendar: by hand, and against a walk over every minute around each change of clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hs_stream.core.calendar import Cells
from hs_stream.core.time import to_ms

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
BERLIN = "Europe/Berlin"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

ZONES = [
    BERLIN,
    "Europe/London",
    "Europe/Dublin",
    "Atlantic/Azores",
    "America/New_York",
    "America/St_Johns",
    "America/Havana",
    "America/Asuncion",
    "America/Sao_Paulo",
    "America/Caracas",
    "America/Nuuk",
    "Africa/Casablanca",
    "Antarctica/Troll",
    "Asia/Gaza",
    "Asia/Tehran",
    "Asia/Kathmandu",
    "Asia/Pyongyang",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Chatham",
]
STRANGE = [
    ("Pacific/Apia", "2011-12-30T10:00"),  # a day that never was
    ("Pacific/Kwajalein", "1969-09-30T13:00"),  # 23 hours back
    ("Pacific/Kwajalein", "1993-08-21T12:00"),
    ("America/St_Johns", "2010-11-07T02:31"),  # at 00:01 back to 23:01 of the day before
    ("Antarctica/Casey", "2010-03-04T15:00"),  # three hours back
]
KINDS: list[dict[str, Any]] = [
    {"period": "hour"},
    {"period": "hour", "offset": 20 * MINUTE},
    {"period": 15 * MINUTE},
    {"period": 20 * MINUTE},
    {"period": 90 * MINUTE},
    {"period": 6 * HOUR},
    {"period": "day"},
    {"period": "day", "offset": 9 * HOUR},
    {"period": "day", "offset": 150 * MINUTE},
    {"period": "week", "week_start": "sunday"},
    {"period": "month"},
    {"period": "month", "offset": 14 * DAY},
    {"period": "quarter", "offset": HOUR},
    {"period": "year"},
]


def ms(text: str, tz: str = BERLIN) -> int:
    return to_ms(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(tz)))


def utc(*texts: str) -> list[int]:
    return [ms(text, "UTC") for text in texts]


def offset_at(tz: str, minute: int) -> int:
    offset = (EPOCH + timedelta(minutes=minute)).astimezone(ZoneInfo(tz)).utcoffset()
    assert offset is not None
    return offset // timedelta(minutes=1)


@cache
def changes(tz: str) -> tuple[int, ...]:
    """The minute of each change of clock in ten years."""
    first, last = (utc(f"{year}-01-01T00:00")[0] // MINUTE for year in (2015, 2025))
    days = [(minute, offset_at(tz, minute)) for minute in range(first, last, 24 * 60)]
    found = []
    for (start, before), (end, after) in pairwise(days):
        if before != after:
            found.append(next(minute for minute in range(start, end + 1) if offset_at(tz, minute) == after))
    return tuple(found)


def walk(tz: str, first: int, last: int, step: int) -> list[tuple[int, int]]:
    """``(minute, wall minute)``."""
    return [(minute, minute + offset_at(tz, minute)) for minute in range(first, last, step)]


@cache
def date_cell(day: int, period: str) -> tuple[int, int]:
    """The number of the cell of a date, and the minutes from its begin to that of the date."""
    date = EPOCH.date() + timedelta(days=day)
    if period == "week":
        begin = date - timedelta(days=(date.weekday() + 1) % 7)
    else:
        months = {"month": 1, "quarter": 3, "year": 12}[period]
        begin = date.replace(month=(date.month - 1) // months * months + 1, day=1)
    return begin.toordinal(), (date - begin) // timedelta(minutes=1)


def place(wall: int, kind: dict[str, Any]) -> tuple[int, int]:
    """The number of the cell on the wall clock, and how many minutes of it have passed."""
    period = kind["period"]
    wall -= kind.get("offset", 0) // MINUTE
    if isinstance(period, int) or period in ("hour", "day"):
        return divmod(wall, length(kind))
    day, minutes = divmod(wall, 24 * 60)
    cell, passed = date_cell(day, period)
    return cell, passed + minutes


def length(kind: dict[str, Any]) -> int:
    period = kind["period"]
    if isinstance(period, int):
        return period // MINUTE
    return {"hour": 60, "day": 24 * 60}.get(period, 7 * 24 * 60)


def turns(steps: list[tuple[int, int]], kind: dict[str, Any]) -> list[int]:
    """Rules 3 and 4, step by step: a cell begins when the clock shows a later one than it has shown.

    What it showed before it went back by a cell or more does not count.
    """
    found = []
    latest, _ = place(steps[0][1], kind)
    for (earlier, before), (minute, wall) in pairwise(steps):
        cell, passed = place(wall, kind)
        if before + (minute - earlier) - wall >= length(kind):
            latest = cell if passed else cell - 1
        if cell > latest:
            found.append(minute * MINUTE)
            latest = cell
    return found


def compare(tz: str, steps: list[tuple[int, int]], after: int) -> None:
    """The ends of cells later than the minute ``after``."""
    first, last = after * MINUTE, steps[-1][0] * MINUTE
    for kind in KINDS:
        expected = [turn for turn in turns(steps, kind) if turn > first]
        assert Cells.of(**kind, tz=tz).times(first, last).tolist() == expected, kind


@pytest.mark.parametrize("tz", ZONES)
def test_cells_at_every_change_of_clock_of_ten_years(tz: str) -> None:
    """Every five minutes: no zone has changed its clock in between. None has gone back by more than three hours."""
    for middle in changes(tz) or (ms("2020-03-01T00:00", tz) // MINUTE,):
        compare(tz, walk(tz, middle - 7 * 60, middle + 26 * 60, 5), middle - 4 * 60)


@pytest.mark.parametrize(("tz", "near"), STRANGE)
def test_cells_at_strange_changes(tz: str, near: str) -> None:
    middle = utc(near)[0] // MINUTE
    steps = walk(tz, middle - 50 * 60, middle + 27 * 60, 1)
    assert len({wall - minute for minute, wall in steps}) == 2
    compare(tz, steps, middle - 25 * 60)


@pytest.mark.parametrize("tz", [None, *ZONES])
@pytest.mark.parametrize("period", ["week", "month", "quarter", "year"])
def test_long_cells_begin_with_the_first_minute_of_their_date(tz: str | None, period: Any) -> None:
    """Over 12 years, against the dates themselves."""
    cells, zone = Cells.of(period, tz=tz), ZoneInfo(tz or "UTC")
    found = cells.times(*utc("2010-01-09T00:00", "2022-01-08T00:00")).tolist()
    for end in found:
        after, before = (datetime.fromtimestamp(at / 1000, zone) for at in (end, end - 1))
        assert place_of(after, period) > place_of(before, period)
    assert len(found) == {"week": 626, "month": 144, "quarter": 48, "year": 12}[period]


def place_of(local: datetime, period: str) -> tuple[int, ...]:
    if period == "week":
        return local.isocalendar()[:2]
    return local.year, {"month": local.month, "quarter": (local.month + 2) // 3, "year": 0}[period]


@st.composite
def kinds_and_instants(draw: st.DrawFn) -> tuple[Cells, int]:
    tz = draw(st.sampled_from(ZONES))
    cells = Cells.of(**draw(st.sampled_from(KINDS)), tz=draw(st.sampled_from([tz, None])))
    near = draw(st.sampled_from(changes(tz) or (25_000_000,))) * MINUTE
    return cells, near + draw(st.integers(-40 * DAY, 40 * DAY) | st.integers(-2 * HOUR, 2 * HOUR))


@given(kinds_and_instants())
def test_cells_cover_time_without_gap_and_overlap(drawn: tuple[Cells, int]) -> None:
    cells, instant = drawn
    begin, end = cells.begin(instant), cells.end(instant)
    assert begin < instant <= end
    assert end - begin <= cells.longest
    assert cells.begin(end) == cells.begin(begin + 1) == begin
    assert cells.end(begin + 1) == end
    assert cells.end(begin) == begin == cells.next(cells.begin(begin))
    assert cells.begin(end + 1) == end
    assert cells.next(begin) == end
    assert cells.times(begin - 1, end).tolist() == [begin, end]
    instants = np.array([begin, begin + 1, instant, end, end + 1])
    assert cells.begins(instants).tolist() == [cells.begin(at) for at in instants.tolist()]


@given(kinds_and_instants(), st.lists(st.integers(0, 50 * HOUR), min_size=3, max_size=3))
def test_times_split(drawn: tuple[Cells, int], ahead: list[int]) -> None:
    cells, instant = drawn
    first, middle, last = (instant + more for more in sorted(ahead))
    parts = np.concatenate([cells.times(first, middle), cells.times(middle, last)])
    assert parts.tolist() == cells.times(first, last).tolist()


# --- by hand ---


def test_hours_and_quarters_of_the_hour_that_happens_twice() -> None:
    start, end = utc("2026-10-25T00:00", "2026-10-25T02:00")
    assert Cells.of("hour", tz=BERLIN).times(start, end).tolist() == utc("2026-10-25T01:00", "2026-10-25T02:00")
    assert len(Cells.of(15 * MINUTE, tz=BERLIN).times(start, end)) == 8
    day = ms("2026-10-25T00:00"), ms("2026-10-26T00:00")
    assert len(Cells.of("hour", tz=BERLIN).times(*day)) == 25
    assert len(Cells.of("day", tz=BERLIN).times(*day)) == 1


def test_half_an_hour_on_lord_howe_island() -> None:
    hours = Cells.of("hour", tz="Australia/Lord_Howe")
    expected = utc("2026-04-04T14:00", "2026-04-04T15:30", "2026-04-04T16:30")
    assert hours.times(*utc("2026-04-04T13:00", "2026-04-04T16:30")).tolist() == expected
    halves = Cells.of(30 * MINUTE, tz="Australia/Lord_Howe")
    assert len(halves.times(*utc("2026-04-04T14:00", "2026-04-04T15:30"))) == 3


def test_blocks_of_six_hours_begin_at_the_same_times_of_each_day() -> None:
    blocks = Cells.of(6 * HOUR, tz=BERLIN)
    expected = utc("2026-03-29T04:00", "2026-03-29T10:00", "2026-03-29T16:00", "2026-03-29T22:00")
    assert blocks.times(*utc("2026-03-28T23:00", "2026-03-29T22:00")).tolist() == expected


def test_from_nine_to_nine_and_from_the_15th_to_the_15th() -> None:
    rain = Cells.of("day", tz=BERLIN, offset=9 * HOUR)
    expected = utc("2026-03-28T08:00", "2026-03-29T07:00", "2026-03-30T07:00")
    assert rain.times(*utc("2026-03-27T08:00", "2026-03-30T07:00")).tolist() == expected
    bill = Cells.of("month", tz=BERLIN, offset=14 * DAY)
    expected = utc("2026-03-14T23:00", "2026-04-14T22:00", "2026-05-14T22:00")
    assert bill.times(*utc("2026-03-01T00:00", "2026-06-01T00:00")).tolist() == expected


def test_weeks_begin_on_monday_or_when_one_says_so() -> None:
    at = ms("2026-03-04T12:00")
    assert Cells.of("week", tz=BERLIN).begin(at) == ms("2026-03-02T00:00")
    assert Cells.of("week", tz=BERLIN, week_start="sunday").begin(at) == ms("2026-03-01T00:00")
    assert Cells.of("week", tz=BERLIN, offset=30 * HOUR).begin(at) == ms("2026-03-03T06:00")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"period": 0}, "a period must be longer than 0"),
        ({"period": "day", "offset": DAY}, "at least 0 and less than 1d, not 1d"),
        ({"period": "month", "offset": -DAY}, "at least 0 and less than 28d, not -1d"),
        ({"period": "day", "week_start": "sunday"}, "week_start is for period: week"),
        ({"period": "day", "tz": "Europe/Brussel"}, "not a known time zone"),
    ],
)
def test_wrong_cells(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cells.of(**wrong)
