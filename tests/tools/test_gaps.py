"""gap_detect, offline_detect and session_window: by hand, and against plain loops."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from hs_stream.core.batch import Batch
from hs_stream.core.errors import ConfigurationError
from hs_stream.core.time import MAX_TIME, MIN_TIME, TimeInterval, from_ms, to_ms
from hs_stream.core.tool import FromInput, Previous, Tool, Window
from hs_stream.plugins import default_registry

HOUR = 3_600_000
EVERYTHING = TimeInterval(MIN_TIME, MAX_TIME)


def build(name: str, **parameters: Any) -> Tool:
    return default_registry().resolve(f"{name}@^1").build(parameters)


def run(name: str, times: list[int], interval: TimeInterval = EVERYTHING, **parameters: Any) -> list[tuple[int, Any]]:
    """The values are of different types, and some are missing: only the times matter."""
    values = [[1, "on", None, float("nan"), {}][k % 5] for k in range(len(times))]
    return list(build(name, **parameters).evaluate(interval, [Batch.build(times, values)]))


def instants(seed: int, size: int, around: tuple[int, ...]) -> list[int]:
    """Distances of exactly the given ones and a millisecond beside them, and any other."""
    random = np.random.default_rng(seed)
    gaps = random.choice([*around, *(a + 1 for a in around), *(max(a - 1, 1) for a in around)], size)
    other = random.random(size) < 0.3
    gaps[other] = random.integers(1, 3 * max(around), int(other.sum()))
    times: list[int] = np.cumsum(gaps).tolist()
    return times


# --- gap_detect ---


def test_gaps_are_told_at_the_reading_that_ends_them() -> None:
    assert run("gap_detect", [0, 60_000, 120_001, 500_000], max_gap="1m") == [(120_001, 60.001), (500_000, 379.999)]
    assert run("gap_detect", [0, 7_200_000], max_gap="1m", unit="1h") == [(7_200_000, 2.0)]
    assert run("gap_detect", [5], max_gap="1m") == []


def test_gaps_against_differences() -> None:
    times = instants(1, 500, (10_000, 3_000))
    expected = [(b, (b - a) / 1000) for a, b in itertools.pairwise(times) if b - a > 10_000]
    assert run("gap_detect", times, max_gap="10s") == expected
    assert len(expected) > 50


# --- offline_detect ---


def test_a_reading_exactly_after_old_is_too_old() -> None:
    got = run("offline_detect", [10_000], TimeInterval(0, 50_000), after="20s", every="10s")
    assert got == [(10_000, False), (20_000, False), (30_000, True), (40_000, True), (50_000, True)]


def test_nothing_before_the_first_reading_and_after_a_while_nothing_again() -> None:
    """An interval without an end: only ``forget`` ends it."""
    got = run("offline_detect", [15_000, 100_000], after="20s", every="10s", forget="40s")
    assert got == [
        (20_000, False),
        (30_000, False),
        (40_000, True),
        (50_000, True),
        (100_000, False),
        (110_000, False),
        (120_000, True),
        (130_000, True),
    ]
    assert run("offline_detect", [], after="20s", every="10s") == []


@pytest.mark.parametrize(
    ("after", "every", "forget"), [(10_000, 3_000, 60_000), (3_000, 10_000, 10_001), (10_000, 10_000, 20_000)]
)
def test_offline_against_a_plain_loop(after: int, every: int, forget: int) -> None:
    times = instants(2, 300, (after, every, forget))
    expected = []
    for tick in range(0, times[-1] + forget + every, every):
        before = [time for time in times if time <= tick]
        if before and tick - before[-1] < forget:
            expected.append((tick, not any(tick - after < time <= tick for time in times)))
    got = run("offline_detect", times, after=after / 1000, every=every / 1000, forget=forget / 1000)
    assert got == expected
    assert {value for _, value in got} == {False, True}


@pytest.mark.parametrize(("month", "day", "hours"), [(3, 29, 23), (10, 25, 25)])
def test_offline_at_local_midnights(month: int, day: int, hours: int) -> None:
    """The last reading came as the day began; it is too old at its end when that took 24 hours or more."""
    tz = ZoneInfo("Europe/Brussels")
    begin, end = (to_ms(datetime(2015, month, at, tzinfo=tz)) for at in (day, day + 1))
    assert end - begin == hours * HOUR
    got = run("offline_detect", [begin], TimeInterval(begin - 1, end), after="24h", every="1d", tz="Europe/Brussels")
    assert got == [(begin, False), (end, hours >= 24)]


def test_offline_supports_and_parameters() -> None:
    assert build("offline_detect", after="1s", every="1s").support(0) == Previous(1)
    with pytest.raises(ConfigurationError, match="offline_detect needs the parameter 'every'"):
        run("offline_detect", [], after="1m")
    with pytest.raises(ConfigurationError, match=r"forget must be longer than after \(8d\), not 7d"):
        run("offline_detect", [], after="8d", every="1d")
    with pytest.raises(ConfigurationError, match="after must be longer than 0, not 0s"):
        run("offline_detect", [], after="0s", every="1d")
    with pytest.raises(ConfigurationError, match="'Mars' is not a known time zone"):
        run("offline_detect", [], after="1m", every="1d", tz="Mars")


# --- session_window ---


def test_sessions() -> None:
    got = run("session_window", [0, 59_999, 119_999, 120_000], gap="1m")
    assert got == [
        (
            59_999,
            {
                "start": datetime(1970, 1, 1, tzinfo=UTC),
                "end": from_ms(59_999),
                "seconds": 59.999,
                "count": 2,
                "complete": True,
            },
        ),
        (
            120_000,
            {
                "start": from_ms(119_999),
                "end": from_ms(120_000),
                "seconds": 0.001,
                "count": 2,
                "complete": True,
            },
        ),
    ]
    assert run("session_window", [], gap="1m") == []


def test_session_values_are_all_its_readings() -> None:
    readings = Batch.of([(0, 1.5), (10, "a"), (2_000, None)])
    got = build("session_window", gap="1s", values=True).evaluate(EVERYTHING, [readings])
    assert [session["values"] for _, session in got] == [[1.5, "a"], [None]]


def test_a_session_that_is_too_long_is_told_in_part() -> None:
    times = list(range(0, 10_000, 500))
    [(time, session)] = run("session_window", times, gap="1s", max_length="3s")
    assert (time, session["start"], session["count"]) == (9_500, from_ms(6_500), 7)
    assert (session["seconds"], session["complete"]) == (3.0, False)
    [(_, session)] = run("session_window", times, gap="1s", max_length="9.5s")
    assert (session["count"], session["complete"]) == (20, True)
    [(_, session)] = run("session_window", times, gap="1s", max_length="9.499s")
    assert (session["count"], session["complete"]) == (19, False)


@pytest.mark.parametrize(("gap", "longest"), [(2_000, 5_000), (1_000, 60_000), (1, 1), (5_000, 100)])
def test_sessions_against_a_plain_loop(gap: int, longest: int) -> None:
    times = instants(gap, 600, (gap, longest))
    sessions: list[list[int]] = []
    for time in times:
        if sessions and time - sessions[-1][-1] < gap:
            sessions[-1].append(time)
        else:
            sessions.append([time])
    expected = []
    for members in sessions:
        told = [time for time in members if time >= members[-1] - longest]
        expected.append((members[-1], (told[0], members[-1], len(told), told == members)))
    got = run("session_window", times, gap=gap / 1000, max_length=longest / 1000)
    assert [
        (time, (to_ms(one["start"]), to_ms(one["end"]), one["count"], one["complete"])) for time, one in got
    ] == expected
    assert len(got) > 100


def test_session_support_and_parameters() -> None:
    assert build("session_window", gap="1s", max_length="5s").support(0) == Window(6000, 999)
    assert build("session_window", gap="1ms").support(0) == Window(86_400_001, 0)
    assert build("session_window", gap="1ms").drive() == FromInput(0)
    with pytest.raises(ConfigurationError, match="gap must be longer than 0, not -1s"):
        run("session_window", [], gap="-1s")
    with pytest.raises(ConfigurationError, match="max_length must be longer than 0"):
        run("session_window", [], gap="1s", max_length="0s")
    with pytest.raises(ConfigurationError, match="max_gap must be longer than 0"):
        run("gap_detect", [], max_gap="0s")
