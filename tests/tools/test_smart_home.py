"""change_detect, state_duration and outlier_filter: by hand, and against plain loops."""

from __future__ import annotations

import math
import statistics
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from hs_stream.core.batch import Batch
from hs_stream.core.errors import ConfigurationError
from hs_stream.core.time import MAX_TIME, MIN_TIME, TimeInterval, to_ms
from hs_stream.core.tool import Prefix, Tool, Window
from hs_stream.plugins import default_registry

EVERYTHING = TimeInterval(MIN_TIME, MAX_TIME)
NAN = float("nan")


def build(name: str, **parameters: Any) -> Tool:
    return default_registry().resolve(f"{name}@^1").build(parameters)


def run(name: str, items: list[tuple[int, Any]], **parameters: Any) -> list[tuple[int, Any]]:
    return list(build(name, **parameters).evaluate(EVERYTHING, [Batch.of(items)]))


def values(name: str, given: list[Any], **parameters: Any) -> list[Any]:
    """The outputs for readings a second apart, ``"-"`` for none."""
    got = dict(run(name, [(k * 1000, value) for k, value in enumerate(given)], **parameters))
    return [got.get(k * 1000, "-") for k in range(len(given))]


# --- change_detect ---


def test_only_what_differs() -> None:
    assert values("change_detect", ["on", "on", "off", "off", "on"]) == ["on", "-", "off", "-", "on"]
    assert values("change_detect", [{"a": 1}, {"a": 1}, {"a": 1, "b": 2}, [1], [1], []])[1:] == [
        "-",
        {"a": 1, "b": 2},
        [1],
        "-",
        [],
    ]


def test_one_is_one_point_zero_and_not_true() -> None:
    got = values("change_detect", [1, 1.0, True, 1, 0.0, -0.0])
    assert got == [1, "-", True, 1, 0.0, "-"]
    assert [type(value) for value in got if value != "-"] == [int, bool, int, float]


def test_missing_readings_change_nothing() -> None:
    assert values("change_detect", [None, "on", None, "on", NAN, "off"]) == ["-", "on", "-", "-", "-", "off"]


def test_tolerance_is_to_the_last_one_that_came_out() -> None:
    assert values("change_detect", [20.0, 20.25, 20.5, 20.75, 21.0, 21.5], tolerance=0.5) == [
        20.0,
        "-",
        "-",
        20.75,
        "-",
        21.5,
    ]
    assert values("change_detect", [math.inf, math.inf, 5, -math.inf], tolerance=1) == [math.inf, "-", 5, -math.inf]
    assert values("change_detect", [5, "unavailable", 5.5, True, 1], tolerance=1) == [5, "unavailable", 5.5, True, 1]


@pytest.mark.parametrize("tolerance", [0.0, 0.7, 3.0])
def test_changes_against_a_plain_loop(tolerance: float) -> None:
    given = np.random.default_rng(1).integers(-3, 4, 500).astype(float).tolist()
    last, expected = math.inf, []
    for value in given:
        expected.append(value if abs(value - last) > tolerance else "-")
        last = value if expected[-1] != "-" else last
    assert values("change_detect", given, tolerance=tolerance) == expected


# --- state_duration ---


def test_how_long_it_has_lasted() -> None:
    assert values("state_duration", ["a", "a", "b", "b", "b", "a"]) == [0.0, 1.0, 0.0, 1.0, 2.0, 0.0]
    assert values("state_duration", ["a", "a", "b", "b", "b", "a"], state="b") == [0.0, 0.0, 0.0, 1.0, 2.0, 0.0]
    assert values("state_duration", [True, None, True, NAN, True], state=True) == [0.0, "-", 2.0, "-", 4.0]
    assert values("state_duration", [True, 1, 1.0], state=1) == [0.0, 0.0, 1.0]
    assert run("state_duration", [(0, 1), (90_000, 1)], unit="1m") == [(0, 0.0), (90_000, 1.5)]


def test_how_long_it_had_lasted_when_it_ended() -> None:
    items = [(0, "open"), (10_000, "open"), (30_000, "closed"), (31_000, "closed"), (100_000, "open")]
    assert run("state_duration", items, tell="ended") == [(30_000, 30.0), (100_000, 70.0)]
    assert run("state_duration", items, tell="ended", state="open") == [(30_000, 30.0)]


def test_silence_ends_a_run_at_its_last_reading() -> None:
    items = [(0, "on"), (10_000, "on"), (20_000, "on"), (30_001, "on"), (40_001, "off")]
    assert run("state_duration", items, max_gap="10s") == [
        (0, 0.0),
        (10_000, 10.0),
        (20_000, 20.0),
        (30_001, 0.0),
        (40_001, 0.0),
    ]
    assert run("state_duration", items, max_gap="10s", tell="ended") == [(30_001, 20.0), (40_001, 10.0)]
    assert run("state_duration", items, tell="ended") == [(40_001, 40.001)]


def test_on_a_grid_it_lasts_through_silence_until_that_is_too_long() -> None:
    items = [(5_000, "open"), (32_000, "closed")]
    assert run("state_duration", items, every="10s", max_gap="1m", state="open") == [
        (10_000, 5.0),
        (20_000, 15.0),
        (30_000, 25.0),
        (40_000, 0.0),
        (50_000, 0.0),
        (60_000, 0.0),
        (70_000, 0.0),
        (80_000, 0.0),
        (90_000, 0.0),
    ]
    assert run("state_duration", [(10_000, "open")], every="10s", max_gap="20s") == [
        (10_000, 0.0),
        (20_000, 10.0),
        (30_000, 20.0),
    ]


def test_at_local_midnights() -> None:
    tz = ZoneInfo("Europe/Brussels")
    noon, *midnights = (
        to_ms(datetime(2015, 3, 28, 12, tzinfo=tz)),
        *(to_ms(datetime(2015, 3, day, tzinfo=tz)) for day in (29, 30)),
    )
    got = run("state_duration", [(noon, "on")], every="1d", tz="Europe/Brussels", max_gap="36h", unit="1h")
    assert got == [(midnights[0], 12.0), (midnights[1], 35.0)]


@pytest.mark.parametrize("max_gap", [None, 4_000])
@pytest.mark.parametrize("state", [None, 2])
def test_durations_against_a_plain_loop(max_gap: int | None, state: int | None) -> None:
    random = np.random.default_rng(3)
    times = np.cumsum(random.integers(1, 6_000, 400)).tolist()
    given = random.integers(1, 4, 400).tolist()
    running, ended = [], []
    first = 0
    for k, (time, value) in enumerate(zip(times, given, strict=True)):
        silent = k > 0 and max_gap is not None and time - times[k - 1] > max_gap
        if k > 0 and (value != given[k - 1] or silent):
            if state in (None, given[k - 1]):
                ended.append((time, ((times[k - 1] if silent else time) - times[first]) / 1000))
            first = k
        running.append((time, (time - times[first]) / 1000 if state in (None, value) else 0.0))
    parameters = {"state": state, "max_gap": None if max_gap is None else max_gap / 1000}
    items = list(zip(times, given, strict=True))
    assert run("state_duration", items, **parameters) == running
    assert run("state_duration", items, tell="ended", **parameters) == ended
    assert len(ended) > 50

    if max_gap is not None:
        ticks = []
        for tick in range(0, times[-1] + 10_000, 1_000):
            at = max((k for k in range(400) if times[k] <= tick), default=None)
            if at is not None and tick - times[at] <= max_gap:
                since = times[at] - round(running[at][1] * 1000)
                ticks.append((tick, (tick - since) / 1000 if state in (None, given[at]) else 0.0))
        assert run("state_duration", items, every="1s", **parameters) == ticks


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"every": "1m"}, "every needs max_gap: how long a value is believed"),
        ({"every": "1m", "max_gap": "1h", "tell": "ended"}, "tell: ended is told at readings; take every out"),
        ({"tz": "Europe/Brussels"}, "tz needs every"),
        ({"every": "1d", "max_gap": "1h", "tz": "Mars"}, "'Mars' is not a known time zone"),
        ({"every": "0s", "max_gap": "1h"}, "every must be longer than 0"),
        ({"max_gap": "-1s"}, "max_gap must be longer than 0, not -1s"),
        ({"unit": "0s"}, "unit must be longer than 0"),
        ({"tell": "both"}, "'both' is not one of 'running', 'ended'"),
    ],
)
def test_state_duration_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        run("state_duration", [], **parameters)
    with pytest.raises(ConfigurationError, match=r"tolerance must not be negative, but is -0\.5"):
        run("change_detect", [], tolerance=-0.5)


def test_state_duration_support() -> None:
    assert build("state_duration").support(0) == Prefix()


# --- outlier_filter ---


def hampel(
    batch: Batch, width: int, ahead: int, limit: float, min_spread: float, least: int
) -> tuple[list[tuple[int, Any]], list[tuple[int, Any]]]:
    """What is kept, and everything with outliers replaced."""
    kept, replaced = [], []
    for time, value in batch:
        if value is None or value != value:
            continue
        near = [v for t, v in batch if time - width < t <= time + ahead and v is not None and v == v]
        median = statistics.median(near)
        spread = statistics.median(abs(v - median) for v in near) / statistics.NormalDist().inv_cdf(0.75)
        if len(near) >= least and abs(value - median) > limit * max(spread, min_spread):
            replaced.append((time, median))
        else:
            kept.append((time, value))
            replaced.append((time, value))
    return kept, replaced


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize(
    ("width", "ahead", "limit", "min_spread", "least"),
    [(60_000, 0, 3.0, 0.0, 3), (30_000, 30_000, 3.0, 0.0, 3), (60_000, 1_000, 2.0, 2.5, 1), (20_000, 0, 0.5, 0.0, 6)],
)
def test_outliers_against_a_plain_loop(
    width: int, ahead: int, limit: float, min_spread: float, least: int, missing: float
) -> None:
    random = np.random.default_rng(width + ahead)
    given: list[Any] = random.normal(20.0, 1.0, 400).tolist()
    for at in random.integers(0, 400, 30).tolist():
        given[at] += float(random.choice([-40.0, 15.0]))
    for at in np.flatnonzero(random.random(400) < missing).tolist():
        given[at] = None if at % 2 else NAN
    batch = Batch.build(np.cumsum(random.integers(100, 6_000, 400)), given)
    parameters = {
        "width": width / 1000, "ahead": ahead / 1000, "limit": limit, "min_spread": min_spread, "least": least
    }  # fmt: skip
    kept, replaced = hampel(batch, width, ahead, limit, min_spread, least)
    assert run("outlier_filter", list(batch), **parameters) == kept
    got = run("outlier_filter", list(batch), outliers="median", **parameters)
    assert [time for time, _ in got] == [time for time, _ in replaced]
    np.testing.assert_allclose([value for _, value in got], [value for _, value in replaced], rtol=1e-14)
    assert len(kept) < len(replaced)


def test_too_few_numbers_and_equal_ones() -> None:
    assert values("outlier_filter", [20, 90, 20], width="1m") == [20, 90, 20], "two readings cannot tell, three can"
    assert values("outlier_filter", [20, 20, 20.1], width="1m") == [20, 20, "-"]
    assert values("outlier_filter", [20, 20, 20.1], width="1m", min_spread=0.1) == [20, 20, 20.1]
    assert values("outlier_filter", [20, 20, 20.1], width="1m", least=4) == [20, 20, 20.1]


def test_values_keep_their_type() -> None:
    got = values("outlier_filter", [20, 21, 20, 21, 500, True], width="1m", outliers="median", min_spread=10)
    assert got == [20, 21, 20, 21, 21.0, True]
    assert [type(value) for value in got] == [int, int, int, int, float, bool]
    items = [(k, value) for k, value in enumerate([1, 2, 3])]
    batch = build("outlier_filter", width="1s").evaluate(EVERYTHING, [Batch.of(items)])
    assert isinstance(batch.values, np.ndarray)


def test_an_infinity_is_an_outlier() -> None:
    assert values("outlier_filter", [20.0, 20.5, 20.25, math.inf], width="1m") == [20.0, 20.5, 20.25, "-"]


def test_ahead_judges_by_what_comes_after() -> None:
    given = [90.0, 20.0, 20.5, 20.25, 20.5]
    assert values("outlier_filter", given, width="10s", outliers="median")[0] == 90.0
    assert values("outlier_filter", given, width="10s", ahead="10s", outliers="median")[0] == 20.5
    assert build("outlier_filter", width="10s", ahead="5s").support(0) == Window(10_000, 5_000)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "outlier_filter needs the parameter 'width'"),
        ({"width": "0s"}, "width must be longer than 0"),
        ({"width": "1m", "ahead": "-1s"}, "ahead must not be negative, but is -1s"),
        ({"width": "1m", "limit": -1}, "limit must not be negative, but is -1.0"),
        ({"width": "1m", "min_spread": -1}, "min_spread must not be negative"),
        ({"width": "1m", "least": 0}, "least must be at least 1, but is 0"),
        ({"width": "1m", "outliers": "mark"}, "'mark' is not one of 'drop', 'median'"),
    ],
)
def test_outlier_filter_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        run("outlier_filter", [], **parameters)


def test_outlier_filter_of_text() -> None:
    with pytest.raises(TypeError, match="outlier_filter needs numbers: 'warm' at time 1000"):
        values("outlier_filter", [1.0, "warm"], width="1m")


def test_outliers_in_bounded_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    import hs_stream_tools.smart_home as module

    items = list(enumerate(np.random.default_rng(5).standard_cauchy(300).tolist()))
    whole = run("outlier_filter", items, width="50ms", ahead="10ms", outliers="median")
    monkeypatch.setattr(module, "_AT_ONCE", 64)
    assert run("outlier_filter", items, width="50ms", ahead="10ms", outliers="median") == whole
