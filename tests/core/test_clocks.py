"""What a wrong time tells about the clock that it is from."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from hs_stream.core.clocks import advice, fixed_zone, offset_near, rolled_over
from hs_stream.core.time import from_ms, parse_time

HOUR = 3_600_000


@pytest.mark.parametrize(
    ("ahead", "words"),
    [
        (HOUR, "it is 1h ahead"),
        (2 * HOUR - 59_000, "it is 2h ahead"),
        (2 * HOUR + 60_000, "it is 2h ahead"),
        (5.5 * HOUR, "it is 5h30m ahead"),
        (5.75 * HOUR, "it is 5h45m ahead"),
        (12.75 * HOUR, "it is 12h45m ahead"),
        (14 * HOUR, "it is 14h ahead"),
    ],
)
def test_a_lead_that_is_a_zone(ahead: float, words: str) -> None:
    assert words in advice(int(ahead))
    assert "zone: Europe/Berlin" in advice(int(ahead))
    assert "clock" not in advice(int(ahead))


@pytest.mark.parametrize("ahead", [5_001, 60_000, 2 * HOUR - 61_000, 2 * HOUR + 61_000, 1.25 * HOUR, 15 * HOUR, 10**13])
def test_a_lead_that_is_a_clock(ahead: float) -> None:
    assert advice(int(ahead)) == "check the clock of the device"


def test_a_fixed_zone_is_always_as_much_ahead() -> None:
    for hours in range(-12, 15):
        name = fixed_zone(hours * HOUR)
        assert name is not None
        offset = from_ms(1_700_000_000_000).astimezone(ZoneInfo(name)).utcoffset()
        assert offset is not None
        assert offset.total_seconds() * 1000 == hours * HOUR == offset_near(hours * HOUR + 60_000)
    assert fixed_zone(15 * HOUR) is fixed_zone(-13 * HOUR) is fixed_zone(HOUR // 2) is None


def test_a_gps_receiver_that_began_to_count_again() -> None:
    now = parse_time("2026-11-30T12:00:00Z", now=0)
    assert rolled_over(parse_time("2007-04-16T12:30:00Z", now=0), now)
    assert rolled_over(parse_time("1987-08-31T12:00:00Z", now=0), now)
    assert not rolled_over(parse_time("2007-04-18T12:30:00Z", now=0), now)
    assert not rolled_over(now, now)
