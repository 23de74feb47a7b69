"""Windows and periods of version 2: golden cases, pandas, and plain computations over random readings."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hs_stream.core.batch import Batch
from hs_stream.core.errors import ConfigurationError
from hs_stream.core.time import MIN_TIME, TimeInterval, to_ms
from hs_stream.core.tool import Tool, Window
from hs_stream.plugins import default_registry
from hs_stream_tools._exact_sums import exact_sum, exact_sums

REGISTRY = default_registry()
HOUR = 3_600_000
DAY = 24 * HOUR
BERLIN = "Europe/Berlin"


def tool(name: str, **parameters: Any) -> Tool:
    return REGISTRY.resolve(name).build(parameters)


def run(name: str, items: list[tuple[int, Any]], end: int = 20_000, **parameters: Any) -> list[tuple[int, Any]]:
    return list(tool(name, **parameters).evaluate(TimeInterval(MIN_TIME, end), [Batch.of(items)]))


def at(text: str, tz: str = BERLIN) -> int:
    return to_ms(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(tz)))


STEPS = [(1000, 4), (2000, 1), (3000, 7), (5000, 2)]


# --- golden cases ---


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, [(2000, 5), (4000, 7), (6000, 2)]),
        ({"closed": "left"}, [(2000, 4), (4000, 8), (6000, 2)]),
        ({"label": "start"}, [(0, 5), (2000, 7), (4000, 2)]),
        ({"closed": "left", "label": "start"}, [(0, 4), (2000, 8), (4000, 2)]),
        ({"partial": "drop"}, [(4000, 7), (6000, 2)]),
        ({"fill": 0, "forget": "4s"}, [(2000, 5), (4000, 7), (6000, 2), (8000, 0)]),
        ({"fill": 0, "forget": "5s"}, [(2000, 5), (4000, 7), (6000, 2), (8000, 0), (10_000, 0)]),
    ],
)
def test_sums_of_two_seconds(parameters: dict[str, Any], expected: list[tuple[int, Any]]) -> None:
    assert run("sliding_sum", STEPS, period="2s", **parameters) == expected
    if "label" not in parameters:
        assert run("sliding_sum", STEPS, width="2s", every="2s", **parameters) == expected


def test_at_readings_a_window_closed_on_the_left_has_what_came_before() -> None:
    assert run("sliding_sum", STEPS, width="2s", closed="left") == [(2000, 4), (3000, 5), (5000, 7)]


def test_a_value_that_stands_until_the_next_one_is_weighed_by_its_time() -> None:
    """20 for half a minute, 26 for ten seconds, unknown for the rest; then nothing is known."""
    items = [(0, 20.0), (30_000, 26.0), (40_000, None), (70_000, float("nan")), (130_000, 8.0)]
    got = run("sliding_mean", items, 180_000, period="1m", weight="time")
    assert got == [(0, 20.0), (60_000, 21.5), (180_000, 8.0)]
    got = run("sliding_mean", items, 180_000, period="1m", weight="time", missing="keeps", max_age="1d")
    assert got == [(0, 20.0), (60_000, 23.0), (120_000, 26.0), (180_000, (26 * 10 + 8 * 50) / 60)]


def test_a_reading_is_believed_for_its_max_age() -> None:
    got = run("sliding_mean", [(0, 20.0), (50_000, 26.0)], 400_000, period="1m", weight="time", max_age="90s")
    assert got == [(0, 20.0), (60_000, 21.0), (120_000, 26.0), (180_000, 26.0)]
    assert run("sliding_max", [(0, 5)], 400_000, period="1m", held=True, max_age="1m") == [(0, 5), (60_000, 5)]


def test_without_a_max_age_a_later_reading_proves_what_lasted() -> None:
    """Nothing is told of the windows after the last reading, until another one comes."""
    for name, more in (("sliding_mean", {"weight": "time"}), ("sliding_last", {"held": True})):
        assert run(name, [(0, 20)], 400_000, period="1m", **more) == [(0, 20)]
        assert run(name, [(0, 20), (150_000, None)], 170_000, period="1m", **more) == [
            (0, 20),
            (60_000, 20),
            (120_000, 20),
        ]


@pytest.mark.parametrize("word", ["unavailable", "unknown"])
def test_words_for_unknown_end_what_lasts_and_other_texts_are_errors(word: str) -> None:
    items = [(0, 20.0), (30_000, word)]
    assert run("sliding_mean", items, 60_000, period="1m", weight="time") == [(0, 20.0), (60_000, 20.0)]
    assert run("sliding_min", [*items, (170_000, 1)], 175_000, period="1m", held=True) == [(0, 20.0), (60_000, 20.0)]
    with pytest.raises(TypeError, match=f"sliding_mean needs numbers: '{word}' at time 30000"):
        run("sliding_mean", items, 60_000, period="1m")
    with pytest.raises(TypeError, match="'open' at time 30000"):
        run("sliding_mean", [(0, 20.0), (30_000, "open")], 60_000, period="1m", weight="time")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sliding_min", [4, 1, 1]),
        ("sliding_max", [4, 7, 2]),
        ("sliding_first", [4, 4, 1]),
        ("sliding_last", [4, 1, 2]),
        ("sliding_change", [0, -3, 1]),
    ],
)
def test_what_held_as_the_window_began_counts(name: str, expected: list[int]) -> None:
    items = [(1000, 4), (3000, 7), (3500, 1), (5000, 2)]
    assert run(name, items, 6000, period="2s", held=True) == list(zip([2000, 4000, 6000], expected, strict=True))


def test_the_time_of_an_extreme() -> None:
    items = [(1000, 3), (2000, 1.5), (3000, 1.5), (9000, 4)]
    told = run("sliding_min", items, 12_000, period="4s", with_time=True, held=True)
    assert told == [
        (4000, {"value": 1.5, "time": "1970-01-01T00:00:02Z"}),
        (8000, {"value": 1.5, "time": "1970-01-01T00:00:04Z"}),
        (12_000, {"value": 1.5, "time": "1970-01-01T00:00:08Z"}),
    ]
    assert run("sliding_max", items, 4000, period="4s", with_time=True)[0][1]["time"] == "1970-01-01T00:00:01Z"


def test_whole_numbers_stay_whole_and_exact() -> None:
    big = (1 << 53) + 1
    assert run("sliding_sum", [(1, big), (2, 1), (3, True)], period="20s") == [(20_000, big + 2)]
    assert run("sliding_max", [(1, big - 1), (2, big)], period="20s") == [(20_000, big)]
    assert run("sliding_sum", [(1, 1), (2, 0.5)], width="1ms") == [(1, 1), (2, 0.5)]
    (_, total), *_ = run("sliding_sum", [(1, 1 << 62), (2, 1 << 62)], period="20s")
    assert total == 2.0**63
    assert isinstance(total, float)
    assert run("sliding_mean", [(1, big), (2, big + 1)], period="20s") == [(20_000, (2 * big + 1) / 2)]


def test_sums_are_rounded_once() -> None:
    items = [(1, 1.0), (2, 1e16), (3, 1.0), (4, -1e16)]
    assert run("sliding_sum", items, period="20s") == [(20_000, 2.0)]
    assert run("sliding_mean", items, period="20s") == [(20_000, 0.5)]
    assert run("sliding_sum", [(1, 1 << 53), (2, 1), (3, 0.5)], period="20s") == [(20_000, float((1 << 53) + 2))]


def test_results_are_never_negative_zero() -> None:
    for name in ("sliding_sum", "sliding_mean", "sliding_min", "sliding_max", "sliding_change"):
        got = run(name, [(1, -0.0), (2, -0.0)], period="20s")
        assert math.copysign(1.0, got[0][1]) == 1.0
    got = run("sliding_mean", [(1, -0.0), (2, -0.0)], period="20s", weight="time")
    assert math.copysign(1.0, got[0][1]) == 1.0


# --- the calendar ---


def test_a_day_a_width_of_24_hours_and_a_change_of_clock() -> None:
    hours = [(at("2026-10-24T00:30") + k * HOUR, 1) for k in range(60)]
    end = at("2026-10-26T00:00")
    days = run("sliding_sum", hours, end, period="day", tz=BERLIN)
    assert days == [(at("2026-10-25T00:00"), 24), (end, 25)]
    last = run("sliding_sum", hours, end, width="24h", every="12h", tz=BERLIN)
    assert last[-2:] == [(at("2026-10-25T12:00"), 24), (end, 24)]
    assert sum(value for _, value in run("sliding_sum", hours, end, period="hour", tz=BERLIN)) == 49


def test_a_zone_for_each_house() -> None:
    zones = {"house": {"nyc": "America/New_York"}, "default": BERLIN}
    made = tool("sliding_sum", period="day", tz=zones)
    reading = [Batch.of([(at("2026-03-04T12:00"), 1)])]
    interval = TimeInterval(MIN_TIME, at("2026-03-08T00:00"))
    for house, zone in (("nyc", "America/New_York"), ("paris", BERLIN)):
        bound = made.bound_to({"house": house}, None)
        assert bound.evaluate(interval, reading).times.tolist() == [at("2026-03-05T00:00", zone)]
    assert type(made).build(made.parameters()) == made


def test_a_house_without_a_zone_says_what_to_add() -> None:
    made = tool("sliding_sum", period="day", tz={"house": {"nyc": "America/New_York"}})
    with pytest.raises(ValueError, match="tz has no zone for house=paris: add it, or a default beside house"):
        made.bound_to({"house": "paris"}, None).evaluate(TimeInterval(0, DAY), [Batch.of([(1, 1)])])


ZONES = [BERLIN, "America/New_York", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Chatham"]


@settings(deadline=None)
@given(
    st.sampled_from(ZONES),
    st.sampled_from(["day", "month", "quarter", "year"]),
    st.sampled_from([2015, 2020, 2024]),
    st.lists(st.integers(0, 365 * 24 * 4), min_size=1, max_size=40, unique=True),
    st.sampled_from(["right", "left"]),
    st.sampled_from(["end", "start"]),
)
def test_long_periods_are_dates_of_the_zone(
    tz: str, period: str, year: int, quarters: list[int], closed: str, label: str
) -> None:
    """The date of a reading, as `datetime` has it, says which cell it is in."""
    items = [(at(f"{year}-01-01T00:00", tz) + k * 900_000, k) for k in sorted(quarters)]
    sums: dict[tuple[int, int], int] = defaultdict(int)
    for time, value in items:
        local = datetime.fromtimestamp((time - (closed == "right")) / 1000, ZoneInfo(tz)).date()
        first = {
            "day": local,
            "month": local.replace(day=1),
            "quarter": local.replace(month=(local.month - 1) // 3 * 3 + 1, day=1),
            "year": local.replace(month=1, day=1),
        }[period]
        sums[_midnight(first, tz), _midnight(_next(first, period), tz)] += value
    expected = sorted((begin if label == "start" else end, total) for (begin, end), total in sums.items())
    until = at(f"{year + 2}-01-01T00:00", tz)
    assert run("sliding_sum", items, until, period=period, tz=tz, closed=closed, label=label) == expected


def _midnight(day: date, tz: str) -> int:
    return at(f"{day.isoformat()}T00:00", tz)


def _next(day: date, period: str) -> date:
    later = day + timedelta(days={"day": 1, "month": 31, "quarter": 92, "year": 366}[period])
    return later if period == "day" else later.replace(day=1)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 300_000), st.integers(-100, 100)), min_size=1, max_size=60, unique_by=lambda p: p[0]
    ),
    st.sampled_from([1_000, 10_000, 60_000]),
    st.sampled_from(["right", "left"]),
    st.sampled_from(["end", "start"]),
    st.sampled_from(["sum", "mean", "min", "max", "count", "first", "last", "median", "std"]),
)
def test_equals_pandas_resample(
    pairs: list[tuple[int, int]], width: int, closed: Any, label: Any, function: str
) -> None:
    items = sorted(pairs)
    index = pd.to_datetime([time for time, _ in items], unit="ms", utc=True)
    series = pd.Series([float(value) for _, value in items], index=index)
    side = "right" if label == "end" else "left"
    grouped = series.resample(f"{width}ms", closed=closed, label=side, origin="epoch")
    kept = grouped.count() > (1 if function == "std" else 0)
    expected = getattr(grouped, function)()[kept]
    got = run(f"sliding_{function}", items, 400_000, period=f"{width}ms", closed=closed, label=label)
    assert [time for time, _ in got] == [int(time.value) // 1_000_000 for time in expected.index]
    assert np.allclose([float(value) for _, value in got], expected.to_numpy(), rtol=1e-12, atol=1e-9)


# --- what lasts, against a plain computation ---

READINGS = st.lists(
    st.tuples(st.integers(0, 200), st.sampled_from([None, float("nan"), -2.5, 0.0, 1, 20.1, 1e6, 7])),
    min_size=1,
    max_size=25,
    unique_by=lambda pair: pair[0],
).map(lambda pairs: sorted((time * 1000, value) for time, value in pairs))


def lasting(items: list[tuple[int, Any]], missing: str, max_age: int | None) -> list[tuple[int, int, float]]:
    """``(from, until, number)`` of all that is known."""
    kept = [item for item in items if missing == "ends" or not (item[1] is None or item[1] != item[1])]
    found = []
    for index, (time, value) in enumerate(kept):
        until = kept[index + 1][0] if index + 1 < len(kept) else 1 << 50
        if max_age is not None:
            until = min(until, time + max_age)
        if value is not None and value == value:
            found.append((time, until, value))
    return found


@settings(deadline=None)
@given(
    READINGS,
    st.sampled_from([("ends", None), ("ends", 30_000), ("keeps", 30_000), ("keeps", 500_000)]),
    st.sampled_from([{"period": 20_000}, {"width": 50_000, "every": 10_000}]),
    st.sampled_from(["right", "left"]),
)
def test_what_lasts_is_what_a_plain_computation_finds(
    items: list[tuple[int, Any]], how: tuple[str, int | None], window: dict[str, int], closed: str
) -> None:
    missing, max_age = how
    known, last = lasting(items, missing, max_age), items[-1][0]
    length, step = window.get("width", 20_000), window.get("every", 20_000)
    means, spreads, extremes = {}, {}, {}
    for end in range(0, 400_000, step):
        begin = end - length
        if max_age is None and last <= begin - (closed == "left"):
            continue
        parts = [(min(until, end) - max(start, begin), Fraction(v)) for start, until, v in known]
        parts = [(duration, number) for duration, number in parts if duration > 0]
        total = sum(duration for duration, _ in parts)
        at_end = [v for start, _, v in known if start == end and closed == "right"]
        if total:
            mean = sum(duration * number for duration, number in parts) / total
            means[end] = float(mean)
            spreads[end] = math.sqrt(sum(duration * (number - mean) ** 2 for duration, number in parts) / total)
        elif at_end:
            means[end] = at_end[0]
        if total or at_end:
            extremes[end] = max([float(number) for _, number in parts] + at_end)
    text = {name: f"{length}ms" for name, length in window.items()}
    more = {"closed": closed, "missing": missing, "max_age": None if max_age is None else f"{max_age}ms"}
    for name, option, expected in (
        ("sliding_mean", {"weight": "time"}, means),
        ("sliding_std", {"weight": "time"}, spreads),
        ("sliding_max", {"held": True}, extremes),
    ):
        got = dict(run(name, items, 399_999, **text, **option, **more))
        assert got.keys() == expected.keys(), name
        assert np.allclose([got[end] for end in expected], list(expected.values()), rtol=1e-9, atol=1e-6), name


@settings(deadline=None)
@given(
    st.lists(st.floats(-1e12, 1e12) | st.sampled_from([1e16, -1e16, 1.0, 5e-324, 1e300, -1e300, 1e308]), max_size=400),
    st.integers(1, 60),
)
def test_exact_sums_of_many_windows_are_those_of_each(numbers: list[float], size: int) -> None:
    array = np.array(numbers * (2 if len(numbers) > 100 else 1))
    high = np.arange(len(array) + 1)
    low = np.maximum(high - size, 0)
    if not len(array):
        return
    expected = [exact_sum(array[first:last].tolist()) for first, last in zip(low.tolist(), high.tolist(), strict=True)]
    assert exact_sums(array, low, high).tolist() == expected


@pytest.mark.parametrize("seed", range(50))
def test_exact_sums_of_three_parts_are_rounded_once(seed: int) -> None:
    """Numbers that are far from each other: a sum may be just beside the middle between two floats."""
    random = np.random.default_rng(seed)
    array = random.choice([2.0**53, 2.0**52, 3.0, 1.0, 0.5, 2.0**-60, 2.0**-70], 300) * random.choice([1.0, -1.0], 300)
    size = int(random.integers(2, 9))
    beside = array[::-1].copy()
    high = np.arange(1, len(array) + 1)
    low = np.maximum(high - size, 0)
    rows = zip(low.tolist(), high.tolist(), beside.tolist(), strict=True)
    expected = [exact_sum([*array[first:last].tolist(), more]) for first, last, more in rows]
    assert exact_sums(array, low, high, beside).tolist() == expected


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 200), st.sampled_from([0.1, -2.5, 1e16, -0.0, 20.1, float("nan"), float("inf")])),
        min_size=1,
        max_size=40,
        unique_by=lambda pair: pair[0],
    ),
    st.sampled_from([{}, {"weight": "time"}, {"weight": "time", "max_age": "20s"}]),
    st.sampled_from([{"width": "30s"}, {"width": "30s", "every": "10s"}]),
    st.integers(1, 50),
)
def test_a_few_windows_are_computed_as_many_are(
    items: list[tuple[int, float]], how: dict[str, str], window: dict[str, str], step: int
) -> None:
    batch = Batch.of((time * 1000, value) for time, value in items)
    for made in (tool("sliding_mean", **window, **how), tool("sliding_sum", **window)):
        whole = made.evaluate(TimeInterval(MIN_TIME, 260_000), [batch])
        edges = range(-60_000, 260_001, step * 1000)
        parts = [made.evaluate(TimeInterval(a, b), [batch]) for a, b in itertools.pairwise(edges)]
        assert Batch.concat(parts) == whole.slice(MIN_TIME, edges[-1])


# --- supports ---


@pytest.mark.parametrize(
    ("parameters", "support"),
    [
        ({"width": "1h"}, Window(HOUR)),
        ({"period": "1h", "label": "start"}, Window(0, HOUR)),
        ({"period": "1h", "label": "start", "closed": "left"}, Window(1, HOUR - 1)),
        ({"period": "1h", "weight": "time"}, Window(HOUR, before=1, after=1)),
        ({"width": "1h", "weight": "time"}, Window(HOUR, before=1)),
        ({"period": "1h", "weight": "time", "max_age": "10m"}, Window(HOUR + 600_000)),
        ({"period": "1h", "partial": "drop"}, Window(HOUR, before=1)),
    ],
)
def test_supports(parameters: dict[str, Any], support: Window) -> None:
    assert tool("sliding_mean", **parameters).support(0) == support


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("sliding_mean", {}, "give one of width .* and period"),
        ("sliding_mean", {"width": "1m", "period": "day"}, "give one of width .* and period"),
        ("sliding_mean", {"width": "0s"}, "width must be longer than 0"),
        ("sliding_mean", {"period": "day", "every": "1h"}, "every is for width"),
        ("sliding_mean", {"width": "1m", "tz": BERLIN}, "tz needs period or every"),
        ("sliding_mean", {"width": "1m", "offset": "1s"}, "offset and week_start need period"),
        ("sliding_mean", {"width": "1m", "label": "start"}, "label: start needs period or every"),
        ("sliding_mean", {"period": "fortnight"}, "'fortnight' is not one of 'hour', 'day'"),
        ("sliding_mean", {"period": "day", "tz": "Europe/Berln"}, "not a known time zone"),
        ("sliding_mean", {"period": "day", "tz": {"nyc": "America/New_York"}}, "write a zone such as Europe/Berlin"),
        ("sliding_mean", {"period": "day", "tz": {"house": {"nyc": 5}}}, "5 is not a known time zone"),
        ("sliding_mean", {"period": "day", "max_age": "1h"}, "max_age and missing need weight: time"),
        ("sliding_max", {"period": "day", "max_age": "1h"}, "max_age and missing need held: true"),
        ("sliding_mean", {"period": "day", "weight": "time", "missing": "keeps"}, "missing: keeps needs max_age"),
        ("sliding_std", {"period": "day", "weight": "time", "ddof": 0}, "there is no ddof"),
        ("sliding_sum", {"width": "1m", "fill": 0}, "fill needs period or every"),
        ("sliding_sum", {"period": "day", "fill": 1}, "1 is not one of 0"),
        ("sliding_sum", {"period": "day", "fill": 0, "forget": "0s"}, "forget must be longer than 0"),
    ],
)
def test_wrong_parameters(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        tool(name, **parameters)


# --- since a period began ---


def test_a_running_total_says_0_as_its_period_begins() -> None:
    items = [(1000, 1), (4000, 2), (10_000, 4), (11_000, 8)]
    told = run("sliding_sum", items, 30_000, period="5s", running=True, fill=0, forget="9s")
    # A reading at exactly 10 s is of the period that ends there.
    assert told == [(1000, 1), (4000, 3), (5000, 0), (10_000, 4), (10_001, 0), (11_000, 8), (15_000, 0), (20_000, 0)]
    left = run("sliding_sum", items, 12_000, period="5s", running=True, fill=0, closed="left")
    assert left == [(1000, 1), (4000, 3), (5000, 0), (10_000, 4), (11_000, 12)]
    assert run("sliding_count", items, 30_000, period="5s", running=True) == [
        (1000, 1),
        (4000, 2),
        (10_000, 1),
        (11_000, 1),
    ]


@settings(deadline=None)
@given(READINGS, st.sampled_from(["right", "left"]), st.sampled_from(["sum", "count", "mean", "min", "max"]))
def test_what_there_was_since_a_period_began(items: list[tuple[int, Any]], closed: str, function: str) -> None:
    left = closed == "left"
    there = [(time, value) for time, value in items if value is not None and value == value]
    expected = []
    for time, _ in there:
        begin = (time + left - 1) // 20_000 * 20_000
        since = [value for at, value in there if begin - left < at <= time]
        plain: dict[str, Any] = {
            "sum": sum,
            "count": len,
            "min": min,
            "max": max,
            "mean": lambda some: sum(some) / len(some),
        }
        expected.append((time, pytest.approx(plain[function](since), rel=1e-12, abs=1e-9)))
    assert run(f"sliding_{function}", items, 300_000, period="20s", running=True, closed=closed) == expected


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("sliding_sum", {"width": "1m", "running": True}, "running needs period"),
        ("sliding_sum", {"period": "day", "running": True, "label": "start"}, "give no label and no partial"),
        ("sliding_mean", {"period": "day", "running": True, "weight": "time"}, "give no weight"),
        ("sliding_max", {"period": "day", "running": True, "held": True}, "give no held"),
    ],
)
def test_wrong_running(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        tool(name, **parameters)
