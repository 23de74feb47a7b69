"""Sliding statistics: golden cases, pandas, and that a window's bits depend on nothing but the window."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hs_stream.core.batch import Batch
from hs_stream.core.errors import ConfigurationError
from hs_stream.core.time import MAX_TIME, MIN_TIME, TimeInterval, to_ms
from hs_stream.core.tool import WindowTool
from hs_stream.plugins import default_registry

REGISTRY = default_registry()
START = 1_423_072_260_000


def tool(name: str, **parameters: Any) -> WindowTool:
    built = REGISTRY.resolve(f"{name}@^1").build(parameters)
    assert isinstance(built, WindowTool)
    return built


def run(name: str, items: list[tuple[int, Any]], end: int = 10_000, **parameters: Any) -> list[tuple[int, Any]]:
    return list(tool(name, **parameters).evaluate(TimeInterval(0, end), [Batch.of(items)]))


STEPS = [(1000, 4.0), (2000, 1.0), (3000, 7.0), (5000, 2.0)]


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("sliding_mean", {}, [4.0, 2.5, 4.0, 2.0]),
        ("sliding_sum", {}, [4.0, 5.0, 8.0, 2.0]),
        ("sliding_min", {}, [4.0, 1.0, 1.0, 2.0]),
        ("sliding_max", {}, [4.0, 4.0, 7.0, 2.0]),
        ("sliding_count", {}, [1, 2, 2, 1]),
        ("sliding_median", {}, [4.0, 2.5, 4.0, 2.0]),
        ("sliding_percentile", {"percentile": 25}, [4.0, 1.75, 2.5, 2.0]),
        ("sliding_first", {}, [4.0, 4.0, 1.0, 2.0]),
        ("sliding_last", {}, [4.0, 1.0, 7.0, 2.0]),
        ("sliding_std", {"ddof": 0}, [0.0, 1.5, 3.0, 0.0]),
    ],
)
def test_two_seconds_at_each_reading(name: str, parameters: dict[str, Any], expected: list[Any]) -> None:
    """The window (t - 2 s, t] excludes a reading exactly 2 s old."""
    got = run(name, STEPS, width="2s", **parameters)
    assert got == list(zip([1000, 2000, 3000, 5000], expected, strict=True))
    assert [type(value) for _, value in got] == [type(value) for value in expected]


def test_std_of_one_reading_has_no_output() -> None:
    assert run("sliding_std", STEPS, width="2s") == [(2000, math.sqrt(4.5)), (3000, math.sqrt(18.0))]


def test_grid_is_that_of_the_epoch() -> None:
    """Windows on a grid end at multiples of ``every``, also where no reading is; empty windows have no output."""
    got = run("sliding_mean", [(1500, 1.0), (2000, 3.0), (9999, 5.0)], end=20_000, width="4s", every="2s")
    assert got == [(2000, 2.0), (4000, 2.0), (10_000, 5.0), (12_000, 5.0)]


def test_missing_values_are_ignored() -> None:
    items = [(1000, None), (2000, 1), (3000, float("nan")), (4000, 3.0), (9000, None)]
    assert run("sliding_mean", items, width="5s") == [(2000, 1.0), (3000, 1.0), (4000, 2.0)]
    assert run("sliding_count", items, width="5s") == [(1000, 0), (2000, 1), (3000, 1), (4000, 2), (9000, 0)]
    assert run("sliding_last", items, width="5s") == [(2000, 1), (3000, 1), (4000, 3.0)]


def test_first_skips_missing_values() -> None:
    items = [(1000, None), (2000, "a"), (3000, "b")]
    assert run("sliding_first", items, width="10s") == [(2000, "a"), (3000, "a")]


def test_ints_and_bools_become_floats() -> None:
    assert run("sliding_sum", [(1000, 1), (2000, True)], width="5s") == [(1000, 1.0), (2000, 2.0)]
    assert type(run("sliding_max", [(1000, 1)], width="5s")[0][1]) is float


def test_negative_zero_never_comes_out() -> None:
    for name in ("sliding_min", "sliding_max", "sliding_sum", "sliding_mean", "sliding_median"):
        for items in ([(1000, -0.0)], [(1000, -0.0), (1001, 0.0), (1002, -0.0)]):
            assert all(math.copysign(1.0, value) == 1.0 for _, value in run(name, items, width="5s"))


def test_infinities_are_numbers() -> None:
    items = [(1000, math.inf), (2000, -math.inf), (3000, 1e308), (3001, 1e308)]
    assert run("sliding_max", items, width="9s")[-1] == (3001, math.inf)
    assert math.isnan(run("sliding_sum", items, width="9s")[1][1])
    assert run("sliding_sum", items[2:], width="9s")[-1] == (3001, math.inf)
    assert run("sliding_median", items[2:], width="9s")[-1] == (3001, 1e308)


@pytest.mark.parametrize("name", ["sliding_mean", "sliding_std", "sliding_percentile", "sliding_max"])
def test_text_is_an_error(name: str) -> None:
    more = {"percentile": 50} if name == "sliding_percentile" else {}
    with pytest.raises(TypeError, match=f"{name} needs numbers: 'warm' at time 2000"):
        run(name, [(1000, 1.0), (2000, "warm")], width="5s", **more)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "needs the parameter 'width'"),
        ({"width": "0s"}, "width must be longer than 0"),
        ({"width": "1 fortnight"}, "not a duration"),
        ({"width": "1m", "every": "-1s"}, "every must be longer than 0"),
        ({"width": "1m", "tz": "Europe/Brussels"}, "tz needs every"),
        ({"width": "1d", "every": "1d", "tz": "Europe/Brussel"}, "'Europe/Brussel' is not a known time zone"),
        ({"width": "1m", "size": 3}, "no parameter 'size'"),
    ],
)
def test_wrong_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        tool("sliding_mean", **parameters)


def test_wrong_percentile_and_ddof() -> None:
    with pytest.raises(ConfigurationError, match="0 to 100, but is 101"):
        tool("sliding_percentile", width="1m", percentile=101)
    with pytest.raises(ConfigurationError, match="ddof must not be negative"):
        tool("sliding_std", width="1m", ddof=-1)


# --- against pandas ---


def history(seed: int, count: int = 2_000, missing: float = 0.05) -> Batch:
    random = np.random.default_rng(seed)
    times = START + np.cumsum(random.choice([1, 250, 1000, 1100, 60_000], count))
    values = random.normal(20.0, 3.0, count)
    values[random.random(count) < missing] = np.nan
    return Batch(times.astype(np.int64), values)


def series(batch: Batch) -> pd.Series[float]:
    return pd.Series(batch.values, index=pd.to_datetime(batch.times, unit="ms", utc=True))


@pytest.mark.parametrize(
    ("name", "pandas_name", "arguments"),
    [
        ("sliding_mean", "mean", {}),
        ("sliding_sum", "sum", {}),
        ("sliding_min", "min", {}),
        ("sliding_max", "max", {}),
        ("sliding_count", "count", {}),
        ("sliding_median", "median", {}),
        ("sliding_std", "std", {}),
        ("sliding_percentile", "quantile", {"q": 0.9}),
    ],
)
@pytest.mark.parametrize("width", ["5s", "90s"])
def test_equals_pandas_rolling(name: str, pandas_name: str, arguments: dict[str, Any], width: str) -> None:
    batch = history(len(name))
    more = {"percentile": 90} if name == "sliding_percentile" else {}
    got = dict(tool(name, width=width, **more).evaluate(TimeInterval(MIN_TIME, MAX_TIME), [batch]))
    rolling = series(batch).rolling(width, closed="right", min_periods=1)
    expected = getattr(rolling, pandas_name)(**arguments)
    known = {int(t.value) // 1_000_000: value for t, value in expected.items() if not math.isnan(value)}
    assert got.keys() == known.keys()
    # pandas keeps a running sum, so it is the one that drifts.
    assert np.allclose([got[t] for t in known], list(known.values()), rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("day", ["2015-03-29", "2015-10-25"])
def test_local_days_across_changes_of_the_clock(day: str) -> None:
    """``width: 1d, every: 1d`` with a zone is the mean of each local day of 23, 24 or 25 hours, at its end."""
    noon = pd.Timestamp(day, tz="Europe/Brussels") + pd.Timedelta(hours=12)
    index = pd.date_range(noon - pd.Timedelta(days=3), noon + pd.Timedelta(days=3), freq="10min").tz_convert("UTC")
    # An instant at local midnight belongs to the day that it ends.
    values = np.random.default_rng(1).normal(20, 2, len(index))
    data = pd.Series(values, index=index.tz_convert("Europe/Brussels"))
    batch = Batch.build([int(t.value) // 1_000_000 for t in index], values)
    got = tool("sliding_mean", width="1d", every="1d", tz="Europe/Brussels").evaluate(
        TimeInterval(MIN_TIME, MAX_TIME), [batch]
    )
    shifted = data.copy()
    shifted.index = shifted.index - pd.Timedelta("1ms")
    by_day = shifted.groupby(shifted.index.date)
    ends = [pd.Timestamp(d).tz_localize("Europe/Brussels") + pd.DateOffset(days=1) for d in by_day.groups]
    assert got.times.tolist() == [int(end.value) // 1_000_000 for end in ends]
    assert np.allclose(got.values, by_day.mean().to_numpy(), rtol=1e-12)
    sizes = set(by_day.count().tolist())
    assert (138 if day == "2015-03-29" else 150) in sizes


# --- rule 1: the bits of a result depend on the window only ---

SLIDING = [cls for cls in REGISTRY if cls.__module__ == "hs_stream_tools.windows"]


@pytest.mark.parametrize("cls", SLIDING, ids=lambda cls: cls.name)
@pytest.mark.parametrize("size", [1, 2, 8, 9, 129, 1000])
def test_result_does_not_depend_on_place_or_neighbours(cls: type[WindowTool], size: int) -> None:
    """One window alone, at every offset in memory, with hostile neighbours, by the quick way and by the general."""
    random = np.random.default_rng(size)
    parameters = {"percentile": 37.5} if cls.name == "sliding_percentile" else {}
    built = cls.build({"width": f"{size}ms", **parameters})
    values = random.normal(0, 1, size) * 10.0 ** random.integers(-8, 9, size)
    end = START + size
    alone = Batch(np.arange(START + 1, end + 1), values)
    expected = list(built.evaluate(TimeInterval(end - 1, end), [alone]))
    for offset in (0, 1, 3, 8):
        for filler in (1e300, 7.7):
            padded = np.full(offset + size + 13, filler)
            padded[offset : offset + size] = values
            times = np.arange(START + 1 - offset, START + 1 - offset + len(padded))
            moved = Batch(times, padded)
            for interval in (
                TimeInterval(end - 1, end),
                TimeInterval(end - 3, end + 3),
                TimeInterval(MIN_TIME, MAX_TIME),
            ):
                whole = built.evaluate(interval, [moved])
                assert whole.slice(end - 1, end) == Batch.of(expected)
                general = WindowTool.evaluate(built, interval, [moved])
                assert general == whole


@pytest.mark.parametrize("cls", SLIDING, ids=lambda cls: cls.name)
@pytest.mark.parametrize("every", [None, "7s"])
def test_quick_way_equals_general_way(cls: type[WindowTool], every: str | None) -> None:
    parameters = {"percentile": 90} if cls.name == "sliding_percentile" else {}
    built = cls.build({"width": "30s", "every": every, **parameters})
    batch = history(3, 300, missing=0.2)
    whole = WindowTool.evaluate(built, TimeInterval(MIN_TIME, MAX_TIME), [batch])
    pieces = [
        built.evaluate(TimeInterval(start, start + 9_999), [batch])
        for start in range(START - 1, batch.last_time + 40_000, 9_999)
    ]
    assert Batch.concat(pieces) == whole
    assert len(whole) > 100


def test_results_do_not_drift() -> None:
    """A window of small numbers right after huge ones is exact: there is no running sum."""
    items = [(1000, 1e16), (2000, -1e16), *((3000 + k, 0.1) for k in range(10))]
    got = run("sliding_sum", items, width="10ms")
    assert got[-1] == (3009, pytest.approx(1.0, abs=1e-15))
    assert run("sliding_std", [(k, 1e9 + k % 2) for k in range(1, 5)], width="4ms", ddof=0)[-1] == (4, 0.5)


def test_many_overlapping_windows_in_bounded_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    import hs_stream_tools._sliding as sliding

    batch = history(9, 500, missing=0.0)
    names = [("sliding_std", {}), ("sliding_median", {}), ("sliding_percentile", {"percentile": 10})]
    everything = TimeInterval(MIN_TIME, MAX_TIME)
    for name, more in names:
        built = tool(name, width="10m", **more)
        whole = built.evaluate(everything, [batch])
        monkeypatch.setattr(sliding, "_CHUNK", 64)
        assert built.evaluate(everything, [batch]) == whole
        monkeypatch.undo()


@pytest.mark.parametrize("size", [511, 512, 513, 4096])
@pytest.mark.parametrize("percentile", [0, 12.5, 50, 99.9, 100])
def test_long_windows_are_selected_and_not_sorted(size: int, percentile: float) -> None:
    """With ties, both zeros, infinities and a missing value, alone and beside others: as numpy has it after sorting."""
    random = np.random.default_rng(size)
    values = np.concatenate((random.normal(0, 1, size - 6).round(1), [0.0, -0.0, math.inf, -math.inf, 7.5, 7.5]))
    random.shuffle(values)
    batch = Batch(np.arange(1, size + 2), np.append(values, math.nan))
    for interval in (TimeInterval(size - 1, size), TimeInterval(size, size + 1), TimeInterval(0, size + 1)):
        got = tool("sliding_percentile", width=f"{2 * size}ms", percentile=percentile).evaluate(interval, [batch])
        median = tool("sliding_median", width=f"{2 * size}ms").evaluate(interval, [batch])
        ordered = np.sort(values)
        below = int((size - 1) * (percentile / 100))
        share = (size - 1) * (percentile / 100) - below
        expected = ordered[below] if share == 0 else ordered[below] + (ordered[below + 1] - ordered[below]) * share
        assert got.get(interval.end) == expected
        assert median.get(interval.end) == ordered[(size - 1) // 2] * 0.5 + ordered[size // 2] * 0.5


def test_zone_without_every_day() -> None:
    """With a zone, an ``every`` of hours stays on the local clock, and a ``width`` of hours is elapsed time."""
    start = to_ms(pd.Timestamp("2015-03-28T23:00Z").to_pydatetime())
    batch = Batch.of([(start + k * 600_000, 1.0) for k in range(60)])
    got = tool("sliding_sum", width="1h", every="1h", tz="Europe/Brussels").evaluate(
        TimeInterval(start, start + 5 * 3_600_000), [batch]
    )
    assert [value for _, value in got] == [6.0] * 5
