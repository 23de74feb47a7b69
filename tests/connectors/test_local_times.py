"""Local times without an offset: what a zone shows, and which pass of an hour that occurs twice is meant."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from hs_stream.core.errors import PayloadError
from hs_stream.core.time import MIN_TIME, format_time, from_ms, parse_time, to_ms
from hs_stream_connectors.codecs import BatchError, TimeSpec, codec
from hs_stream_connectors.codecs.local import RowOrder, Twice, by_arrival, by_order, passes
from hs_stream_connectors.csv_files import Columns, CsvFile, any_time

HOUR = 3_600_000
DAY = 24 * HOUR
ZONES = sorted(available_timezones() - {"Factory", "localtime"})
ODD = (
    *("Europe/Brussels", "Australia/Lord_Howe", "America/Havana", "America/Sao_Paulo", "Africa/Casablanca"),
    *("Asia/Gaza", "Antarctica/Troll", "Pacific/Apia", "Europe/Dublin", "Africa/Monrovia", "America/Toronto"),
)
BACK = "Europe/Brussels", parse_time("2026-10-25T01:00:00Z", now=0)
"""A zone, and the instant at which its clocks go back from 03:00 to 02:00."""


def wall(zone: str, instant: int) -> datetime:
    return from_ms(instant).astimezone(ZoneInfo(zone)).replace(tzinfo=None)


def offset(zone: str, instant: int) -> int:
    return to_ms(wall(zone, instant).replace(tzinfo=UTC)) - instant


def instants(zone: str, moment: datetime) -> tuple[int, ...]:
    """When ``zone`` shows ``moment``, tried with every offset that it has in the days around."""
    middle = to_ms(moment.replace(tzinfo=UTC))
    offsets = {offset(zone, middle + half * 1_800_000) for half in range(-96, 97)}
    return tuple(sorted(time for ahead in offsets if wall(zone, time := middle - ahead) == moment))


def found(zone: str, moment: datetime) -> int | Twice:
    return passes(moment, str(moment), ZoneInfo(zone), day=False, arrival=None, key="zone: ")


@lru_cache(64)
def changes(zone: str, year: int) -> tuple[int, ...]:
    """The instants of a year at which the offset changes, to the quarter of an hour."""
    start = to_ms(datetime(year, 1, 1, tzinfo=UTC))
    days = [start + day * DAY for day in range(367)]
    spans = [(a, b) for a, b in pairwise(days) if offset(zone, a) != offset(zone, b)]
    steps = [range(a, b + 1, 900_000) for a, b in spans]
    return tuple(b for times in steps for a, b in pairwise(times) if offset(zone, a) != offset(zone, b))


@st.composite
def moments(draw: st.DrawFn) -> tuple[str, datetime]:
    """A zone and a wall time, often near to a change of its clocks."""
    zone, year = draw(st.sampled_from(ODD) | st.sampled_from(ZONES)), draw(st.integers(1850, 2200))
    near = changes(zone, year)
    if near:
        start, away = draw(st.sampled_from(near)), draw(st.integers(-3 * HOUR, 3 * HOUR))
    else:
        start, away = to_ms(datetime(year, 1, 1, tzinfo=UTC)), draw(st.integers(0, 365 * DAY))
    return zone, from_ms(start + away + offset(zone, start)).replace(tzinfo=None)


@given(moments())
@example(("Australia/Lord_Howe", datetime(2026, 4, 5, 1, 45)))  # noqa: DTZ001 - wall clocks, here and below
@example(("Australia/Lord_Howe", datetime(2026, 10, 4, 2, 15)))  # noqa: DTZ001
@example(("Pacific/Apia", datetime(2011, 12, 30, 12)))  # noqa: DTZ001 - a day that was not
@example(("Africa/Monrovia", datetime(1972, 1, 7, 0, 20)))  # noqa: DTZ001 - clocks went forward by 44:30
def test_every_wall_time_is_each_instant_that_shows_it(case: tuple[str, datetime]) -> None:
    zone, moment = case
    expected = instants(zone, moment)
    if not expected:
        with pytest.raises(PayloadError, match="does not exist in") as caught:
            found(zone, moment)
        assert caught.value.reason == "time_invalid"
        assert len(caught.value.message) < 300
        return
    times = found(zone, moment)
    assert (times if isinstance(times, tuple) else (times,)) == expected


@given(moments(), st.lists(st.integers(-2 * HOUR, 4 * HOUR), min_size=2, max_size=6).map(sorted))
def test_later_arrivals_mean_no_earlier_pass(case: tuple[str, datetime], delays: list[int]) -> None:
    zone, moment = case
    spec = TimeSpec("t", "iso", ZoneInfo(zone))
    expected = instants(zone, moment)
    assume(expected)
    assert [spec.instant(str(moment), MIN_TIME, time) for time in expected] == list(expected)
    told: list[int] = []
    for delay in delays:
        try:
            told.append(spec.instant(str(moment), MIN_TIME, expected[0] + delay))
        except PayloadError:
            assert len(expected) == 2
            told.append(expected[1] + 1)
        if len(expected) == 2:
            with pytest.raises(PayloadError, match="a retained message may be of either"):
                spec.instant(str(moment), MIN_TIME, expected[0] + delay, retained=True)
    assert told == sorted(told)


@pytest.mark.parametrize(
    ("after", "which"), [(-HOUR, 0), (0, 0), (44, 0), (45, 1), (60, 1), (75, 1), (76, None), (600, None)]
)
def test_how_near_an_arrival_must_be(after: int, which: int | None) -> None:
    twice = BACK[1] - 50 * 60_000, BACK[1] + 10 * 60_000
    told = by_arrival(twice, twice[0] + after * 60_000)
    assert told == (None if which is None else twice[which])


@pytest.mark.parametrize("text", ["24:00", "2026-01-01T24:00", "2026-01-01T24:00:00", "9999-12-31T24:00", "T", "-", ""])
def test_times_at_the_edge_are_read_or_refused(text: str) -> None:
    """``24:00`` is a time from Python 3.13 on."""
    found, reason = outcome(BACK[0], text)
    assert reason == "time_invalid" or (isinstance(found, int) and wall(BACK[0], found).hour == 0)


def outcome(zone: str, text: str) -> tuple[int | Twice | None, str | None]:
    try:
        return TimeSpec("t", "iso", ZoneInfo(zone)).read(text), None
    except PayloadError as error:
        return None, error.reason


@given(st.sampled_from(ODD), st.text("0123456789-:T .+ZW", max_size=30) | st.datetimes().map(str))
@example("America/Toronto", "0001-01-01 00:00:00")
@example("America/Toronto", "9999-12-31T23:59:59.999999")
def test_no_text_crashes(zone: str, text: str) -> None:
    assert outcome(zone, text)[1] in (None, "time_invalid")
    with contextlib.suppress(PayloadError, ValueError):
        any_time(ZoneInfo(zone), "--tz ")(text)


@pytest.mark.parametrize(
    ("zone", "day"),
    [("America/Havana", "2026-03-08"), ("America/Havana", "2026-11-01"), ("America/Sao_Paulo", "2015-10-18")],
)
def test_a_date_is_the_beginning_of_its_day(zone: str, day: str) -> None:
    for read in (TimeSpec("t", "iso", ZoneInfo(zone)).read, any_time(ZoneInfo(zone), "")):
        time = read(day)
        assert isinstance(time, int)
        assert str(wall(zone, time).date()) == day > str(wall(zone, time - 1).date())


def test_a_time_that_does_not_exist_says_what_to_write() -> None:
    def message(text: str, zone: str, late: int | None) -> str:
        arrival = None if late is None else parse_time("2026-03-29T01:30:00Z", now=0) + late
        with pytest.raises(PayloadError) as caught:
            TimeSpec("t", "iso", ZoneInfo(zone)).instant(text, MIN_TIME, arrival)
        return caught.value.message

    text = "2026-03-29 02:30:00"
    assert "write zone: Etc/GMT-1 if its clock keeps UTC+1h all year" in message(text, BACK[0], None)
    assert "write zone: Etc/GMT-1 if its clock keeps UTC+1h all year" in message(text, BACK[0], 2_000)
    assert "write zone: UTC if its clock keeps UTC all year" in message(text, BACK[0], HOUR)
    assert "write zone: Etc/GMT-1 " in message(text, BACK[0], 7 * 60_000)
    assert "write zone: the zone of its clock, " in message("2026-10-04 02:15", "Australia/Lord_Howe", None)


# --- the order of an array, and of the rows of a file ---


def label(zone: str, time: int) -> int | Twice:
    return found(zone, wall(zone, time))


@st.composite
def rising(draw: st.DrawFn) -> tuple[str, list[int]]:
    """Times of a stream around an hour that occurs twice."""
    zone, turn = draw(st.sampled_from([BACK, ("Australia/Lord_Howe", parse_time("2026-04-04T15:00:00Z", now=0))]))
    minutes = draw(st.lists(st.integers(-90, 90), min_size=1, max_size=8, unique=True).map(sorted))
    return zone, [turn + minute * 60_000 for minute in minutes]


@given(rising(), st.integers(0, 5 * HOUR), st.booleans())
def test_the_order_of_an_array_never_errs(case: tuple[str, list[int]], late: int, newest_first: bool) -> None:
    zone, times = case
    sent = times[::-1] if newest_first else times
    for time, told in zip(sent, by_order([label(zone, time) for time in sent], times[-1] + late), strict=True):
        assert told in (None, time)


@pytest.mark.parametrize("minutes", [range(-50, 60, 10), range(-75, 30, 15), [-30, -5, 30, 55]])
@pytest.mark.parametrize("newest_first", [False, True])
def test_an_array_over_both_passes_is_told_by_its_order(minutes: Sequence[int], newest_first: bool) -> None:
    zone, turn = BACK
    times = [turn + minute * 60_000 for minute in minutes]
    sent = times[::-1] if newest_first else times
    assert by_order([label(zone, time) for time in sent], times[-1] + 5 * HOUR) == sent


def test_an_array_of_several_streams() -> None:
    zone, turn = BACK
    times = [turn + minute * 60_000 for minute in (-50, -20, 10, 40)]
    read = codec("json", time={"field": "t", "zone": zone}, bind={"id": "id"})

    def decode(times: Sequence[int], late: int) -> list[int | None]:
        items = [{"t": str(wall(zone, time)), "id": name} for time in times for name in "ab"]
        return [reading[0] for reading in read.decode("x", json.dumps(items).encode(), times[-1] + late, True)]

    assert decode(times, 9 * HOUR) == [time for time in times for _ in "ab"]
    with pytest.raises(BatchError, match="may be of either") as caught:
        decode(times[:1], 9 * HOUR)
    assert len(caught.value.errors) == 2


def placed(zone: str, times: Sequence[int]) -> list[int | None]:
    order = RowOrder()
    return [order.place("a", label(zone, time)) for time in times]


@given(
    st.sampled_from([BACK, ("Australia/Lord_Howe", parse_time("2026-04-04T15:00:00Z", now=0))]),
    st.integers(1, 180),
    st.integers(0, 179),
    st.booleans(),
)
def test_rows_at_equal_steps_are_where_they_were(
    back: tuple[str, int], step: int, shift: int, newest_first: bool
) -> None:
    zone, turn = back
    times = list(range(turn - 14 * HOUR + shift * 60_000, turn + 14 * HOUR, step * 60_000))
    times = times[::-1] if newest_first else times
    assert placed(zone, times) == times


def minutes(*them: int) -> list[int]:
    return [BACK[1] + minute * 60_000 for minute in them]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (minutes(-60, 0), [BACK[1] - HOUR, None]),  # 02:00, 02:00: every hour, or a repeat?
        (minutes(-120, -60, 0, 60), minutes(-120, -60, 0, 60)),
        (minutes(-80, -70, -50, -50, -40, -30, 0), minutes(-80, -70, -50, -50, -40, -30, 0)),  # a repeat
        (minutes(-50, -30, -40, -10, 5, 70), [*minutes(-50, -30), None, None, None, *minutes(70)]),  # out of order
        (minutes(-70, 70, -30, 80), [*minutes(-70, 70), None, *minutes(80)]),  # from before, after the hour
        (minutes(-50, -20, 10, 40, 30), minutes(-50, -20, 10, 40, 30)),  # a little out of order, in the second
    ],
)
def test_rows_out_of_order(times: list[int], expected: list[int | None]) -> None:
    assert placed(BACK[0], times) == expected


def test_a_file_with_local_times(tmp_path: Path) -> None:
    text = "v,id,t\n" + "".join(
        f"{index},{name},{wall(BACK[0], time)}\n"
        for index, time in enumerate(minutes(-70, -50, -20, 10, 40, 70))
        for name in "ab"
    )
    path, head = tmp_path / "a.csv", text.index("\n") + 1
    columns = Columns("t", any_time(ZoneInfo(BACK[0]), "--tz "), value="v", plates=(("id", "id"),))
    expected = [time for time in minutes(-70, -50, -20, 10, 40, 70) for _ in "ab"]
    for cut in range(head, len(text) + 1):  # as it grows, its last row read before it was complete
        path.write_text(text[:cut])
        file = CsvFile(path, columns)
        list(file.rows())
        path.write_text(text)
        read = [row.time for row in file.rows()]
        assert read == expected[len(expected) - len(read) :]
    path.write_text("t,v\n2026-10-25 02:00,1\n2026-10-25 02:00,2\n2026-03-29 02:30,3\n")
    rows = list(CsvFile(path, Columns("t", any_time(ZoneInfo(BACK[0]), "--tz "))).rows())
    assert [format_time(row.time) if row.error is None else row.error.message[:60] for row in rows] == [
        "2026-10-25T00:00:00Z",
        "the time '2026-10-25 02:00' occurs twice, at 2026-10-25T00:0",
        "the time '2026-03-29 02:30' does not exist in Europe/Brussel",
    ]
    assert "write --tz Etc/GMT-1" in str(rows[2].error)
