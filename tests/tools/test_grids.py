"""resample and interpolate: by hand, and against pandas and plain loops."""

from __future__ import annotations

import bisect
import itertools
import math
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from hs_stream.core.batch import Batch
from hs_stream.core.errors import ConfigurationError
from hs_stream.core.time import MAX_TIME, MIN_TIME, TimeInterval, to_ms
from hs_stream.core.tool import Tool, Window
from hs_stream.plugins import default_registry

HOUR = 3_600_000
START = 1_423_072_260_000


def build(name: str, **parameters: Any) -> Tool:
    return default_registry().resolve(name).build(parameters)


def run(name: str, items: list[tuple[int, Any]], end: int = 100_000, **parameters: Any) -> list[tuple[int, Any]]:
    return list(build(name, **parameters).evaluate(TimeInterval(-1, end), [Batch.of(items)]))


def history(seed: int, size: int, *, start: int = START, gap: int = 5_000, missing: float = 0.0) -> Batch:
    random = np.random.default_rng(seed)
    gaps = random.integers(1, gap, size)
    gaps[random.random(size) < 0.05] *= 20
    values = random.normal(20.0, 3.0, size)
    values[random.random(size) < missing] = np.nan
    return Batch.build(start + np.cumsum(gaps), values)


def series(batch: Batch) -> pd.Series:
    return pd.Series(batch.numbers(), pd.to_datetime(batch.times, unit="ms", utc=True)).dropna()


def in_ms(result: pd.Series) -> list[tuple[int, float]]:
    return [(to_ms(time.to_pydatetime()), value) for time, value in result.dropna().items()]


def everything(name: str, batch: Batch, **parameters: Any) -> Batch:
    return build(name, **parameters).evaluate(TimeInterval(MIN_TIME, MAX_TIME), [batch])


# --- resample ---

STEPS = [(1_000, 4.0), (9_999, 1.0), (10_000, 7.0), (10_001, 2.0), (45_000, 5.0)]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("last", [(10_000, 7.0), (20_000, 2.0), (50_000, 5.0)]),
        ("mean", [(10_000, 4.0), (20_000, 2.0), (50_000, 5.0)]),
        ("min", [(10_000, 1.0), (20_000, 2.0), (50_000, 5.0)]),
        ("max", [(10_000, 7.0), (20_000, 2.0), (50_000, 5.0)]),
        ("nearest", [(0, 4.0), (10_000, 7.0), (40_000, 5.0)]),
    ],
)
def test_ten_seconds(method: str, expected: list[tuple[int, float]]) -> None:
    """A reading at a grid instant belongs to the cell that ends there; empty cells have no output."""
    assert run("resample", STEPS, every="10s", method=method) == expected


@pytest.mark.parametrize("method", ["last", "mean", "min", "max"])
@pytest.mark.parametrize(("every", "rule"), [("1m", "60s"), ("7s", "7s"), ("1d", "24h")])
def test_resample_against_pandas(method: str, every: str, rule: str) -> None:
    batch = history(3, 3000, missing=0.1)
    cells = series(batch).resample(rule, closed="right", label="right", origin="epoch")
    got = everything("resample", batch, every=every, method=method)
    expected = in_ms(getattr(cells, method)())
    assert got.times.tolist() == [time for time, _ in expected]
    np.testing.assert_allclose(got.numbers(), [value for _, value in expected], rtol=1e-13)


@pytest.mark.parametrize("day", ["2015-03-28", "2015-10-24"])
def test_local_days_against_pandas(day: str) -> None:
    start = to_ms(pd.Timestamp(day, tz="Europe/Brussels").to_pydatetime())
    batch = history(4, 400, start=start, gap=2 * HOUR // 3)
    local = series(batch).tz_convert("Europe/Brussels")
    expected = in_ms(local.resample("D", closed="right", label="right").mean())
    got = everything("resample", batch, every="1d", tz="Europe/Brussels", method="mean")
    assert got.times.tolist() == [time for time, _ in expected]
    np.testing.assert_allclose(got.numbers(), [value for _, value in expected], rtol=1e-13)
    assert {23, 25} & {gap // HOUR for gap in np.diff(got.times).tolist()}


@pytest.mark.parametrize("zone", ["Europe/Brussels", "Australia/Lord_Howe", "America/Havana"])
@pytest.mark.parametrize("every", [1, 6])
def test_cells_on_a_local_clock_leave_nothing_out(zone: str, every: int) -> None:
    """Every reading of the two weeks around each change of the clock is in exactly one cell."""
    tz = ZoneInfo(zone)
    times = range(to_ms(pd.Timestamp("2015-01-01T00Z")), to_ms(pd.Timestamp("2016-01-01T00Z")), HOUR // 2)
    walls = [datetime.fromtimestamp(time / 1000, tz) for time in times]
    changes = [times[k] for k in range(1, len(times)) if walls[k].utcoffset() != walls[k - 1].utcoffset()]
    assert len(changes) == 2
    # A cell ends where the wall clock reaches a multiple of every that it has not reached before.
    ends, latest = [], (0, 0)
    for time, wall in zip(times, walls, strict=True):
        if (wall.toordinal(), wall.hour // every) > latest:
            latest = (wall.toordinal(), wall.hour // every)
            ends.append(time)
    for change in changes:
        near = range(change - 7 * 24 * HOUR, change + 7 * 24 * HOUR, 20 * 60_000 + 7)
        batch = Batch.of([(time, float(k)) for k, time in enumerate(near)])
        expected: dict[int, float] = {}
        for time, value in batch:
            end = ends[bisect.bisect_left(ends, time)]
            expected[end] = max(expected.get(end, value), value)
        got = everything("resample", batch, every=f"{every}h", tz=zone, method="max")
        assert dict(got) == expected


def nearest_by_loop(batch: Batch, every: int) -> dict[int, Any]:
    """Each instant's nearest reading within half of every, the earlier of two."""
    found: dict[int, Any] = {}
    for tick in range(batch.first_time // every * every - every, batch.last_time + 2 * every, every):
        near = [
            (abs(time - tick), time, value)
            for time, value in batch
            if value is not None and tick - (every - every // 2) < time <= tick + every // 2
        ]
        if near:
            found[tick] = min(near)[2]
    return found


@pytest.mark.parametrize("every", [2, 5, 10, 1000])
def test_nearest_against_a_plain_loop(every: int) -> None:
    random = np.random.default_rng(every)
    for _ in range(30):
        times = np.unique(random.integers(0, 40 * every, 40)) + START
        values: list[Any] = ["on" if k % 3 else None for k in range(len(times))]
        batch = Batch.build(times, [value and f"{value} {k}" for k, value in enumerate(values)])
        got = everything("resample", batch, every=every / 1000, method="nearest")
        assert dict(got) == nearest_by_loop(batch, every)


def test_nearest_against_pandas() -> None:
    batch = history(8, 500)
    grid = pd.date_range(pd.Timestamp(START // 10_000 * 10_000, unit="ms", tz="UTC"), periods=3000, freq="10s")
    expected = series(batch).reindex(grid, method="nearest", tolerance=pd.Timedelta("4999ms"))
    got = everything("resample", batch, every="10s", method="nearest")
    assert in_ms(expected) == [(time, value) for time, value in got if time <= to_ms(grid[-1].to_pydatetime())]
    assert len(in_ms(expected)) > 100


def test_last_and_nearest_take_any_values_and_skip_missing_ones() -> None:
    items = [(1_000, "on"), (9_000, None), (9_500, float("nan")), (10_100, {"a": 1})]
    assert run("resample", items, every="10s", method="last") == [(10_000, "on"), (20_000, {"a": 1})]
    assert run("resample", items, every="10s", method="nearest") == [(0, "on"), (10_000, {"a": 1})]
    assert run("resample", [(1_000, None)], every="10s", method="nearest") == []
    assert run("resample", [(1_000, True), (2_000, False)], every="10s", method="nearest") == [(0, True)]
    assert run("resample", [(1_000, None)], every="10s", method="mean") == []
    assert run("resample", [], every="10s", method="mean") == []


def test_resample_supports() -> None:
    assert build("resample", every="10s", method="mean").support(0) == Window(10_000)
    assert build("resample", every="5ms", method="nearest").support(0) == Window(3, 2)
    assert build("resample", every="1h", method="max", tz="Europe/Brussels").support(0) == Window(4 * HOUR)
    assert build("resample", every="1d", method="max", tz="Europe/Brussels").support(0) == Window(49 * HOUR)


def test_resample_of_text() -> None:
    with pytest.raises(TypeError, match=r"resample with method=mean: .* needs numbers: 'warm' at time 2000"):
        run("resample", [(1_000, 1.0), (2_000, "warm")], every="10s", method="mean")


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("resample", {"every": "10s"}, "needs the parameter 'method'"),
        ("resample", {"every": "0s", "method": "mean"}, "every must be longer than 0"),
        ("resample", {"every": "1d", "method": "mode"}, "'mode' is not one of 'last', 'mean', 'min', 'max', 'nearest'"),
        ("resample", {"every": "1d", "method": "mean", "tz": "Mars"}, "'Mars' is not a known time zone"),
        ("interpolate", {"every": "10s"}, "needs the parameter 'max_gap'"),
        ("interpolate", {"every": "-1s", "max_gap": "1m"}, "every must be longer than 0, not -1s"),
        ("interpolate", {"every": "1s", "max_gap": "0s"}, "max_gap must be longer than 0"),
    ],
)
def test_wrong_parameters(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build(name, **parameters)


# --- interpolate ---


def test_a_reading_at_the_instant_is_its_value_and_nothing_is_extrapolated() -> None:
    items = [(10_000, 1), (30_000, 3.0), (95_000, 9.0)]
    got = run("interpolate", items, every="10s", max_gap="20s")
    assert got == [(10_000, 1.0), (20_000, 2.0), (30_000, 3.0)]
    assert [type(value) for _, value in got] == [float] * 3


def test_exactly_max_gap_is_fine() -> None:
    items = [(5_000, 1.0), (25_000, 3.0), (45_001, 9.0)]
    assert run("interpolate", items, every="10s", max_gap="20s") == [(10_000, 1.5), (20_000, 2.5)]


def test_missing_readings_are_not_there() -> None:
    items = [(5_000, 1.0), (9_000, None), (10_000, float("nan")), (15_000, 2.0)]
    assert run("interpolate", items, every="10s", max_gap="10s") == [(10_000, 1.5)]
    assert run("interpolate", items, every="10s", max_gap="9s") == []
    assert run("interpolate", [(5_000, None)], every="10s", max_gap="9s") == []


def test_between_infinities_and_no_negative_zero() -> None:
    items = [(5_000, math.inf), (15_000, math.inf), (29_000, -0.0), (31_000, -0.0)]
    got = run("interpolate", items, every="10s", max_gap="10s")
    assert got == [(10_000, math.inf), (30_000, 0.0)]
    assert math.copysign(1.0, got[-1][1]) == 1.0


@pytest.mark.parametrize(("every", "max_gap"), [(10_000, 60_000), (1_000, 4_000), (60_000, 15_000)])
def test_interpolate_against_pandas(every: int, max_gap: int) -> None:
    batch = history(5, 2000, missing=0.1)
    known = series(batch)
    first, last = to_ms(known.index[0].to_pydatetime()), to_ms(known.index[-1].to_pydatetime())
    ticks = range(-(-first // every) * every, last + 1, every)
    grid = pd.DatetimeIndex([pd.Timestamp(tick, unit="ms", tz="UTC") for tick in ticks])
    lines = known.reindex(known.index.union(grid)).interpolate("time").reindex(grid)
    near: set[int] = set()
    times = [to_ms(time.to_pydatetime()) for time in known.index]
    near.update(time for time in times if time % every == 0)
    for before, after in itertools.pairwise(times):
        if after - before <= max_gap:
            near.update(range(-(-before // every) * every, after + 1, every))
    expected = [(time, value) for time, value in in_ms(lines) if time in near]
    got = everything("interpolate", batch, every=every / 1000, max_gap=max_gap / 1000)
    assert got.times.tolist() == [time for time, _ in expected]
    np.testing.assert_allclose(got.numbers(), [value for _, value in expected], rtol=1e-11)
    assert len(got) > 50


def test_interpolate_at_local_midnights() -> None:
    """Straight through the day on which the clock is set back: 25 hours between the midnights."""
    tz = ZoneInfo("Europe/Brussels")
    start, end = (to_ms(datetime(2015, 10, day, tzinfo=tz)) for day in (25, 26))
    items = [(start - HOUR, 0.0), (end + HOUR, 27.0)]
    got = build("interpolate", every="1d", max_gap="2d", tz="Europe/Brussels").evaluate(
        TimeInterval(start - HOUR, end + HOUR), [Batch.of(items)]
    )
    assert list(got) == [(start, 1.0), (end, 26.0)]


def test_interpolate_support_and_text() -> None:
    assert build("interpolate", every="10s", max_gap="1m").support(0) == Window(60_000, 59_999)
    with pytest.raises(TypeError, match="interpolate needs numbers: 'warm' at time 2000"):
        run("interpolate", [(1_000, 1.0), (2_000, "warm")], every="10s", max_gap="1m")
