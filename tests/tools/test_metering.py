"""utility_meter: by hand, and against pandas and plain loops over the calendar."""

from __future__ import annotations

import bisect
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from hs_stream.core.batch import Batch
from hs_stream.core.errors import ConfigurationError
from hs_stream.core.time import TimeInterval, to_ms
from hs_stream.core.tool import FromInput, OnGrid, Prefix
from hs_stream.plugins import default_registry
from hs_stream_tools.metering import UtilityMeter

BRUSSELS = "Europe/Brussels"
HOUR = 3_600_000


def meter(**parameters: Any) -> UtilityMeter:
    built = default_registry().resolve("utility_meter@^1").build(parameters)
    assert isinstance(built, UtilityMeter)
    return built


def run(items: list[tuple[int, Any]], end: int = 1_000_000, **parameters: Any) -> list[tuple[int, Any]]:
    return list(meter(**parameters).evaluate(TimeInterval(-1, end), [Batch.of(items)]))


def ms(text: str, tz: str = BRUSSELS) -> int:
    return to_ms(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(tz)))


# --- what is on which side ---


def test_a_reading_at_the_boundary_is_the_last_of_the_period_that_ends() -> None:
    items = [(10_000, 5.0), (60_000, 7.0), (60_001, 10.0), (120_001, 11.0)]
    assert run(items, every="1m") == [(60_000, 2.0), (120_000, 3.0), (180_000, 1.0)]


def test_an_increase_is_of_the_period_of_its_later_reading() -> None:
    """Nothing came for three minutes: what was used meanwhile is told when it is known."""
    assert run([(10_000, 5.0), (200_000, 9.5)], every="1m") == [(60_000, 0.0), (240_000, 4.5)]


def test_a_period_has_a_value_only_when_it_has_ended() -> None:
    items = [(10_000, 5.0), (50_000, 6.0)]
    assert run(items, 59_999, every="1m") == []
    assert run(items, 60_000, every="1m") == [(60_000, 1.0)]


def test_running_tells_at_each_reading_what_its_period_has_consumed() -> None:
    items = [(10_000, 5.0), (20_000, 6.5), (60_000, 7.0), (70_000, 7.25)]
    assert run(items, every="1m", running=True) == [(10_000, 0.0), (20_000, 1.5), (60_000, 2.0), (70_000, 0.25)]


def test_drive_and_support() -> None:
    assert isinstance(meter(period="day").drive(), OnGrid)
    assert meter(period="day", running=True).drive() == FromInput(0)
    assert meter(period="day").support(0) == Prefix()


# --- resets ---


def test_below_the_reading_before_the_counter_began_at_zero() -> None:
    items = [(1_000, 100.0), (2_000, 103.0), (3_000, 2.0), (4_000, 2.5)]
    assert run(items, every="1m", running=True) == [(1_000, 0.0), (2_000, 3.0), (3_000, 5.0), (4_000, 5.5)]


def test_a_reset_to_zero_and_one_at_the_boundary() -> None:
    items = [(1_000, 7.0), (2_000, 0.0), (3_000, 0.5), (60_001, 0.25)]
    assert run(items, every="1m") == [(60_000, 0.5), (120_000, 0.25)]


def test_below_zero_is_no_consumption() -> None:
    assert run([(1_000, 1.0), (2_000, -5.0), (3_000, -4.0)], every="1m", running=True)[1:] == [
        (2_000, 0.0),
        (3_000, 1.0),
    ]


def test_a_replaced_meter_that_does_not_begin_at_zero() -> None:
    items = [(1_000, 100.0), (2_000, 101.0), (3_000, 8_000.0), (4_000, 8_001.5)]
    assert run(items, every="1m")[0][1] == 7901.5
    assert run(items, every="1m", max_step=10) == [(60_000, 2.5)]


def test_a_meter_that_came_back_with_an_old_state_is_no_reset() -> None:
    """It had saved 1234.25, and lost what came after that."""
    items = [(1_000, 1234.0), (2_000, 1234.5), (3_000, 1234.25), (4_000, 1234.75)]
    assert run(items, every="1m")[0][1] == 0.5 + 1234.25 + 0.5
    assert run(items, every="1m", max_step=10) == [(60_000, 1.0)]


def test_exactly_max_step_is_consumption() -> None:
    items = [(1_000, 0), (2_000, 10), (3_000, 20.5), (4_000, 21)]
    assert run(items, every="1m", max_step=10) == [(60_000, 10.5)]


def test_missing_readings_are_as_if_they_were_not_there() -> None:
    items = [(1_000, None), (2_000, 1.0), (3_000, float("nan")), (61_000, float("inf")), (62_000, None), (63_000, 4.0)]
    assert run(items, every="1m") == [(60_000, 0.0), (120_000, 3.0)]


def test_a_day_is_one_subtraction() -> None:
    """No error adds up over the readings of a period."""
    values = [1234.5 + k * 0.1 for k in range(1000)]
    got = run([(1 + k * 50, value) for k, value in enumerate(values)], every="1m")
    assert got == [(60_000, values[-1] - values[0])]


def test_text_is_an_error() -> None:
    with pytest.raises(TypeError, match="utility_meter needs numbers, but got str 'high'"):
        run([(1_000, "high")], every="1m")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "give one of period and every"),
        ({"period": "day", "every": "1d"}, "give one of period and every"),
        ({"period": "fortnight"}, "'fortnight' is not one of 'day', 'week', 'month', 'year'"),
        ({"every": "0s"}, "every must be longer than 0"),
        ({"period": "day", "tz": "Europe/Brussel"}, "'Europe/Brussel' is not a known time zone"),
        ({"period": "day", "max_step": -1}, "max_step must not be negative, but is -1"),
    ],
)
def test_wrong_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        meter(**parameters)


# --- the calendar ---


@pytest.mark.parametrize(("midnight", "hours"), [("2015-03-30", 23), ("2015-10-26", 25), ("2015-11-01", 24)])
def test_local_days_on_which_the_clock_changes(midnight: str, hours: int) -> None:
    """One unit per hour, read on the hour."""
    end = ms(midnight)
    items = [(end + k * HOUR, 100 + k) for k in range(-30, 30)]
    got = dict(run(items, end, period="day", tz=BRUSSELS))
    assert got[end] == float(hours)
    assert end - hours * HOUR in got


@pytest.mark.parametrize(
    ("tz", "around"),
    [
        (BRUSSELS, "2015-03-29"),
        (BRUSSELS, "2015-10-25"),
        ("America/Havana", "2015-11-01"),  # 00:00 happens twice, on the first of a month
        ("America/Asuncion", "2017-10-01"),  # and here it does not happen
        ("America/Sao_Paulo", "2018-02-17"),  # midnight became 23:00 of the same day
        ("Pacific/Kiritimati", "1995-01-01"),  # a day that never was
        ("Asia/Kathmandu", "2024-01-01"),
    ],
)
@pytest.mark.parametrize("period", ["day", "week", "month", "year"])
def test_period_ends_are_where_the_calendar_turns(tz: str, around: str, period: str) -> None:
    """Against every quarter of an hour around it, looked up in the zone itself."""
    zone, middle = ZoneInfo(tz), ms(around, "UTC")

    def page(time: int) -> tuple[int, ...]:
        local = datetime.fromtimestamp(time / 1000, zone)
        week = local.date() - timedelta(days=local.weekday())
        pages = {"day": local.timetuple()[:3], "week": week.timetuple()[:3], "month": local.timetuple()[:2]}
        return pages.get(period, (local.year,))

    days = 400 if period == "year" else 35
    quarters = range(middle - 20 * 24 * HOUR, middle + days * 24 * HOUR, HOUR // 4)
    pages = [page(time) for time in quarters]
    turns = [quarters[k] for k in range(1, len(quarters)) if pages[k] != pages[k - 1]]
    assert turns
    built = meter(period=period, tz=tz)
    random = np.random.default_rng(7)
    near = [turn + off for turn in turns for off in (-1, 0, 1, -HOUR, HOUR)]
    instants = [*near, *random.integers(quarters[0], turns[-1], 50).tolist()]
    for time in instants:
        if quarters[0] < time <= turns[-1]:
            assert built.period_end(time) == turns[bisect.bisect_left(turns, time)]


def history(seed: int, start: int, days: int, *, resets: bool) -> list[tuple[int, int]]:
    """A whole-numbered counter, read at irregular times, with outages of up to two days."""
    random = np.random.default_rng(seed)
    time, value, items = start, 1000, []
    while time < start + days * 24 * HOUR:
        items.append((time, value))
        time += int(random.integers(1, 48 * HOUR if random.random() < 0.01 else HOUR))
        value += int(random.integers(0, 50))
        if resets and random.random() < 0.05:
            value = int(random.integers(0, 20))
    return items


@pytest.mark.parametrize("start", ["2015-03-20", "2015-10-10", "2023-12-20"])
@pytest.mark.parametrize(("period", "frequency"), [("day", "D"), ("week", "W-SUN"), ("month", "M"), ("year", "Y")])
@pytest.mark.parametrize("resets", [False, True])
def test_against_pandas(start: str, period: str, frequency: str, resets: bool) -> None:
    items = history(5, ms(start), 75, resets=resets)
    end = items[-1][0] + 400 * 24 * HOUR
    got = run(items, end, period=period, tz=BRUSSELS)

    values = pd.Series([value for _, value in items], [pd.Timestamp(time, unit="ms", tz="UTC") for time, _ in items])
    increase = values.diff().fillna(0)
    increase[increase < 0] = values[increase < 0]
    walls = (values.index - pd.Timedelta(milliseconds=1)).tz_convert(BRUSSELS).tz_localize(None)
    sums = increase.groupby(walls.to_period(frequency)).sum()
    expected = [((key + 1).start_time.tz_localize(BRUSSELS), value) for key, value in sums.items()]
    assert got == [(to_ms(time.to_pydatetime()), value) for time, value in expected]
    assert len(got) >= (60 if period == "day" else 1)
    if not resets:
        assert sum(value for _, value in got) == items[-1][1] - items[0][1]


def test_the_last_running_value_of_a_period_is_its_value() -> None:
    items = history(6, ms("2015-03-20"), 30, resets=True)
    end = items[-1][0] + 48 * HOUR
    built = meter(period="day", tz=BRUSSELS)
    expected: dict[int, float] = {}
    for time, value in run(items, end, period="day", tz=BRUSSELS, running=True):
        expected[built.period_end(time)] = value
    assert dict(run(items, end, period="day", tz=BRUSSELS)) == expected
