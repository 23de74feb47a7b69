"""The first tick of ``clock`` 1.1.0: golden cases, and the wall clock by plain loops."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from hs_stream.core.errors import ConfigurationError, ToolError
from hs_stream.core.time import MAX_TIME, MIN_TIME, TimeInterval, to_ms
from hs_stream.core.tool import Tool
from hs_stream.plugins import default_registry

REGISTRY = default_registry()
BRUSSELS = ZoneInfo("Europe/Brussels")


def clock(**parameters: Any) -> Tool:
    return REGISTRY.resolve("clock@==1.1.0").build(parameters)


def ticks(tool: Tool, start: datetime | int, end: datetime | int) -> list[datetime]:
    got = tool.evaluate(TimeInterval(start, end), [])
    assert [to_ms(value) for value in got.plain()] == got.times.tolist()
    return got.plain()


def test_ticks_are_counted_from_the_first() -> None:
    tool = clock(every="7m", first="2016-04-01T00:00:13.500Z")
    first = datetime(2016, 4, 1, 0, 0, 13, 500_000, tzinfo=UTC)
    expected = [first + k * timedelta(minutes=7) for k in range(200)]
    assert ticks(tool, first - timedelta(days=1), expected[-1]) == expected
    assert ticks(tool, MIN_TIME, expected[-1]) == expected, "there is a first tick"
    assert ticks(tool, expected[9], expected[-1]) == expected[10:]
    assert ticks(tool, first - timedelta(milliseconds=1), first) == [first]
    assert ticks(tool, MIN_TIME, first - timedelta(milliseconds=1)) == []


def test_the_offset_of_the_first_is_understood() -> None:
    early = clock(every="1h", first="2016-04-01T02:30:00+02:00")
    assert early.drive() == clock(every="1h", first="2016-04-01T00:30:00Z").drive()


def test_local_ticks_keep_their_wall_clock_time() -> None:
    first = datetime(2015, 1, 20, 6, 30, tzinfo=BRUSSELS)
    tool = clock(every="1d", tz="Europe/Brussels", first=first.isoformat())
    got = ticks(tool, MIN_TIME, first + timedelta(days=364))
    assert [value.astimezone(BRUSSELS).replace(tzinfo=None) for value in got] == [
        datetime(2015, 1, 20, 6, 30) + k * timedelta(days=1)  # noqa: DTZ001 - a wall clock has no zone
        for k in range(365)
    ]
    hours = {(b - a) // timedelta(hours=1) for a, b in itertools.pairwise(got)}
    assert hours == {23, 24, 25}


def test_without_a_first_it_is_the_clock_of_before() -> None:
    before = REGISTRY.resolve("clock@==1.0.0").build({"every": "1d", "tz": "Europe/Brussels"})
    now = clock(every="1d", tz="Europe/Brussels")
    interval = TimeInterval(datetime(2015, 3, 1, tzinfo=UTC), datetime(2015, 11, 1, tzinfo=UTC))
    assert now.evaluate(interval, []) == before.evaluate(interval, [])
    with pytest.raises(ToolError, match="finite start"):
        now.evaluate(TimeInterval(MIN_TIME, MAX_TIME), [])


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ("yesterday", "first is 'yesterday', which is not a time: write 2015-02-04T06:00:00Z"),
        ("-1h", "is not a time"),
        ("2016-04-01T06:00", "which has no offset: write 2016-04-01T06:00:00Z for UTC"),
        ("2015-10-25T02:30:00+01:00", "when clocks of Europe/Brussels show an hour again: write the earlier one"),
        (5, "parameter first: 5 is not text"),
    ],
)
def test_wrong_first(first: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        clock(every="1d", tz="Europe/Brussels", first=first)


def test_the_earlier_of_two_equal_hours_can_be_the_first() -> None:
    tool = clock(every="1d", tz="Europe/Brussels", first="2015-10-25T02:30:00+02:00")
    assert ticks(tool, MIN_TIME, datetime(2015, 10, 26, 12, tzinfo=UTC)) == [
        datetime(2015, 10, 25, 0, 30, tzinfo=UTC),
        datetime(2015, 10, 26, 1, 30, tzinfo=UTC),
    ]
