"""Windows as values: where they lie, what is inside of them, and what is said about windows that reach too far."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from hs_stream.core.batch import Batch
from hs_stream.core.errors import ConfigurationError, ToolError
from hs_stream.core.time import MAX_TIME, MIN_TIME, TimeInterval, from_ms, to_ms
from hs_stream.core.tool import SKIP, Tool, Window
from hs_stream.plugins import default_registry
from hs_stream.testing.check_tool import check_tool
from hs_stream_tools.relative import RelativeApply

REGISTRY = default_registry()
BRUSSELS = ZoneInfo("Europe/Brussels")
NAN = float("nan")


def build(name: str, **parameters: Any) -> Tool:
    return REGISTRY.resolve(name).build(parameters)


def run(name: str, *inputs: Sequence[tuple[int, Any]], end: int = 100_000, **parameters: Any) -> list[tuple[int, Any]]:
    """Over (0, end]."""
    return list(build(name, **parameters).evaluate(TimeInterval(0, end), [Batch.of(items) for items in inputs]))


def ms(text: str) -> int:
    return to_ms(datetime.fromisoformat(text))


def windows(tool: Tool, start: str | int, end: str | int) -> list[tuple[int, TimeInterval]]:
    bounds = [ms(bound) if isinstance(bound, str) else bound for bound in (start, end)]
    return list(tool.evaluate(TimeInterval(*bounds), []))


# --- sliding_window ---


def test_sliding_window_by_default_is_the_last_second_every_second() -> None:
    assert windows(build("sliding_window"), 1000, 3000) == [
        (2000, TimeInterval(1000, 2000)),
        (3000, TimeInterval(2000, 3000)),
    ]


@pytest.mark.parametrize(
    ("lower", "upper", "increment"),
    [("-60s", "0s", "10s"), ("-10s", "0s", "60s"), ("-60s", "-10s", "7s"), ("-5s", "20s", "10s"), ("5s", "20s", "10s")],
)
def test_sliding_window_lies_where_its_bounds_say(lower: str, upper: str, increment: str) -> None:
    """At every multiple of increment, in seconds as they are given, wherever the interval begins."""
    seconds = [int(text.rstrip("s")) * 1000 for text in (lower, upper, increment)]
    expected = [
        (t, TimeInterval(t + seconds[0], t + seconds[1])) for t in range(123_457, 345_679) if t % seconds[2] == 0
    ]
    assert windows(build("sliding_window", lower=lower, upper=upper, increment=increment), 123_456, 345_678) == expected
    assert len(expected) > 2


def test_sliding_window_begins_at_first_and_not_before() -> None:
    first = "2015-02-04T17:51:13.500+01:00"
    tool = build("sliding_window", lower="-90s", upper="-30s", increment="7m", first=first)
    got = windows(tool, "2015-02-03T00:00:00Z", "2015-02-04T17:10:00Z")
    begin = ms(first)
    assert got == [
        (begin + 90_000 + k * 420_000, TimeInterval(begin + k * 420_000, begin + 60_000 + k * 420_000))
        for k in range(3)
    ]


def test_sliding_window_of_local_days() -> None:
    """Across both changes of the clock in 2015: each window is one day of Brussels, of 23, 24 or 25 hours."""
    tool = build("sliding_window", lower="-1d", increment="1d", tz="Europe/Brussels")
    for first, hours in ((datetime(2015, 3, 28, tzinfo=BRUSSELS), 23), (datetime(2015, 10, 24, tzinfo=BRUSSELS), 25)):
        midnights = [to_ms(first + timedelta(days=day)) for day in range(4)]
        got = windows(tool, midnights[0], midnights[-1])
        assert got == [(end, TimeInterval(start, end)) for start, end in pairwise(midnights)]
        assert got[1][1].width == hours * 3_600_000


def test_sliding_window_on_a_local_clock_from_first_on() -> None:
    """The day before yesterday's, from six to six."""
    tool = build(
        "sliding_window", lower="-2d", upper="-1d", increment="1d", tz="Europe/Brussels", first="2015-03-27T05:00:00Z"
    )
    sixes = [to_ms(datetime(2015, 3, 27, 6, tzinfo=BRUSSELS) + timedelta(days=day)) for day in range(5)]
    got = windows(tool, "2015-03-20T00:00:00Z", sixes[-1])
    assert got == [(sixes[k + 2], TimeInterval(sixes[k], sixes[k + 1])) for k in range(3)]


def test_sliding_window_of_a_day_that_never_was() -> None:
    """Samoa skipped 30 December 2011: the 31st follows the 29th, and no window is empty."""
    tool = build("sliding_window", lower="-2d", upper="-1d", increment="1d", tz="Pacific/Apia")
    got = windows(tool, "2011-12-25T00:00:00Z", "2012-01-04T00:00:00Z")
    assert all(window.width == 86_400_000 for _, window in got)
    assert [window.end for _, window in got] == sorted({window.end for _, window in got})


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"lower": "0s"}, "lower and upper must be in this order, not 0s and 0s"),
        ({"lower": "-1s", "upper": "-2s"}, "lower and upper must be in this order, not -1s and -2s"),
        ({"increment": "0s"}, "increment must be longer than 0, not 0s"),
        ({"first": "yesterday"}, "first is 'yesterday', which is not a time: write 2015-02-04T06:00:00Z"),
        ({"first": "2015-02-04T06:00:00"}, "which has no offset: write 2015-02-04T06:00:00Z for UTC"),
        ({"tz": "Brussels"}, "'Brussels' is not a known time zone"),
        ({"upper": "1d", "tz": "Europe/Brussels"}, "with tz, upper cannot be 1d ahead of a tick"),
        ({"width": "1m"}, "sliding_window has no parameter 'width'"),
    ],
)
def test_sliding_window_wrong_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build("sliding_window", **parameters)


def test_sliding_window_has_no_beginning() -> None:
    with pytest.raises(ToolError, match="finite start"):
        build("sliding_window").evaluate(TimeInterval(MIN_TIME, 0), [])
    with pytest.raises(ToolError, match="no inputs"):
        build("sliding_window").support(0)


# --- aligning_window and relative_window ---


def test_aligning_window_follows_its_stream() -> None:
    got = run("aligning_window", [(1500, "a"), (1501, None), (90_000, {})], lower="-1m", upper="500ms")
    assert got == [(t, TimeInterval(t - 60_000, t + 500)) for t in (1500, 1501, 90_000)]
    assert run("aligning_window", [(1500, 1.0)]) == [(1500, TimeInterval(500, 1500))]
    with pytest.raises(ConfigurationError, match="lower and upper must be in this order"):
        build("aligning_window", lower="1s")


DATA = [(1000, 1.0), (2000, "b"), (4000, None), (4001, [5])]


def test_relative_window_lists_what_lies_around() -> None:
    driving = [(1000, 0), (4000, 0), (9000, 0)]
    got = run("relative_window", driving, DATA, relative_start="-3s", relative_end="0s")
    assert got == [(1000, [1.0]), (4000, ["b", None]), (9000, [])]
    got = run("relative_window", driving, DATA, relative_start="-3s", relative_end="1ms", values_only=False)
    assert got == [
        (1000, [[from_ms(1000), 1.0]]),
        (4000, [[from_ms(2000), "b"], [from_ms(4000), None], [from_ms(4001), [5]]]),
        (9000, []),
    ]
    assert run("relative_window", driving, DATA, relative_start="0s", relative_end="1s") == [
        (1000, ["b"]),
        (4000, [[5]]),
        (9000, []),
    ]
    assert run("relative_window", driving, [], relative_start="0s", relative_end="1s")[0] == (1000, [])


@pytest.mark.parametrize(
    ("start", "end", "support"),
    [("-3s", "0s", Window(3000)), ("-3s", "-1s", Window(3000)), ("-3s", "2s", Window(3000, 2000)),
     ("1s", "2s", Window(0, 2000))],
)  # fmt: skip
def test_relative_window_declares_what_it_reads(start: str, end: str, support: Window) -> None:
    assert build("relative_window", relative_start=start, relative_end=end).support(1) == support


# --- sliding_apply ---

PYTHON: dict[str, Callable[[list[float]], Any]] = {
    "mean": statistics.fmean,
    "sum": math.fsum,
    "min": min,
    "max": max,
    "count": len,
    "median": statistics.median,
    "std": lambda values: statistics.stdev(values) if len(values) > 1 else SKIP,
    "first": lambda values: values[0],
    "last": lambda values: values[-1],
}


def history(seed: int) -> tuple[Batch, Batch]:
    """Windows of any width within (t - 60 s, t + 20 s], in no order, and numbers."""
    random = np.random.default_rng(seed)
    times = np.unique(random.integers(1, 600_000, 80))
    held = []
    for time in times.tolist():
        start = time + int(random.integers(-60_000, 20_000))
        held.append(TimeInterval(start, int(random.integers(start + 1, time + 20_001))))
    places = np.unique(random.integers(1, 600_000, 300))
    return Batch.build(times, held), Batch.build(places, random.normal(20, 3, len(places)))


@pytest.mark.parametrize("function", PYTHON)
@pytest.mark.parametrize("seed", range(3))
def test_sliding_apply_equals_plain_python(function: str, seed: int) -> None:
    given, data = history(seed)
    tool = build("sliding_apply", function=function, max_width="60s", max_ahead="20s")
    got = dict(tool.evaluate(TimeInterval(0, 600_000), [given, data]))
    expected = {}
    for time, window in given:
        inside = [value for at, value in data if window.start < at <= window.end]
        if inside and (result := PYTHON[function](inside)) is not SKIP:
            expected[time] = result
    assert got.keys() == expected.keys()
    assert list(got.values()) == pytest.approx(list(expected.values()), rel=1e-12)
    assert len(got) > 50


@pytest.mark.parametrize("function", PYTHON)
def test_sliding_apply_over_a_sliding_window_is_the_sliding_tool(function: str) -> None:
    """The same windows, the same bits."""
    _, data = history(7)
    interval = TimeInterval(0, 600_000)
    given = build("sliding_window", lower="-30s", increment="10s").evaluate(interval, [])
    got = build("sliding_apply", function=function, max_width="30s").evaluate(interval, [given, data])
    assert got == build(f"sliding_{function}@^1", width="30s", every="10s").evaluate(interval, [data])
    assert len(got) == 60


def test_sliding_apply_excludes_the_start_and_includes_the_end() -> None:
    given = [(5000, TimeInterval(1000, 4000)), (6000, TimeInterval(999, 3999)), (7000, TimeInterval(6000, 7000))]
    data = [(1000, 1.0), (2000, 2.0), (4000, 4.0)]
    assert run("sliding_apply", given, data, function="sum", max_width="10s") == [(5000, 6.0), (6000, 3.0)]
    assert run("sliding_apply", given, [], function="count", max_width="10s") == []


def test_sliding_apply_ignores_what_is_missing() -> None:
    given = [(5000, TimeInterval(0, 5000)), (6000, None), (7000, NAN), (8000, TimeInterval(1500, 2500))]
    data = [(1000, 1.0), (2000, None), (3000, NAN), (4000, 2)]
    assert run("sliding_apply", given, data, function="mean", max_width="10s") == [(5000, 1.5)]
    assert run("sliding_apply", given, data, function="count", max_width="10s") == [(5000, 2), (8000, 0)]


def pairs(items: list[Any]) -> Any:
    return {"first": items[0], "count": len(items)} if len(items) > 1 else SKIP


def greedy(items: list[Any]) -> Any:
    items[0]["seen"] = True
    return len(items.pop(0))


def test_sliding_apply_of_ones_own_function() -> None:
    given = [(5000, TimeInterval(0, 5000)), (6000, TimeInterval(1000, 2000))]
    data = [(1000, "a"), (2000, "b")]
    got = run("sliding_apply", given, data, function="builtins:repr", max_width="10s")
    assert got == [(5000, "['a', 'b']"), (6000, "['b']")]
    got = run("sliding_apply", given, data, function=pairs, max_width="10s", with_time=True)
    assert got == [(5000, {"first": [datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), "a"], "count": 2})]
    assert build("sliding_apply", function=math.fsum, max_width="10s").parameters() == {
        "function": "math:fsum", "max_width": "10s", "max_ahead": "0s", "with_time": False
    }  # fmt: skip
    with pytest.raises(ConfigurationError, match="cannot be saved: it has no import path"):
        build("sliding_apply", function=lambda values: values[0], max_width="10s").parameters()


def test_sliding_apply_cannot_spoil_its_input() -> None:
    """Neither for others nor for the next window, which holds the same object."""
    data = Batch.of([(1000, {"a": 1})])
    given = Batch.of([(t, TimeInterval(0, 1000)) for t in (1000, 2000)])
    tool = build("sliding_apply", function=greedy, max_width="10s")
    assert list(tool.evaluate(TimeInterval(0, 5000), [given, data])) == [(1000, 2), (2000, 2)]
    assert list(data) == [(1000, {"a": 1})]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"function": "meen"}, "function is 'meen': write one of mean, sum, .*, or an import path"),
        ({"function": "nosuchmodule:f"}, "cannot be loaded"),
        ({"function": 5}, "function must be an import path or a function, not 5"),
        ({"function": "mean", "with_time": True}, "with_time is for functions of yours: mean looks at values only"),
        ({"function": "mean", "max_width": "-1s"}, "neither may be negative, nor both 0, as -1s and 0s are"),
        ({"function": "mean", "max_width": "0s"}, "neither may be negative, nor both 0, as 0s and 0s are"),
        ({}, "sliding_apply needs the parameter 'function'"),
    ],
)
def test_sliding_apply_wrong_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build("sliding_apply", **{"max_width": "10s"} | parameters)


@pytest.mark.parametrize(
    ("window", "message"),
    [
        (TimeInterval(0, 90_000), r"begins more than max_width before its time \(write max_width: 1m30s\)"),
        (TimeInterval(80_000, 90_001), r"ends more than max_ahead after its time \(write max_ahead: 1ms\)"),
        (TimeInterval(MIN_TIME, 90_000), r"begins more than max_width before its time \(give it a start\)"),
        (TimeInterval(80_000, MAX_TIME), r"ends more than max_ahead after its time \(give it an end\)"),
    ],
)
@pytest.mark.parametrize("name", ["sliding_apply", "sliding_listify", "sliding_sink"])
def test_a_window_that_reaches_too_far_says_what_to_write(name: str, window: TimeInterval, message: str) -> None:
    more: dict[str, Any] = {"function": "mean"} if name == "sliding_apply" else {}
    with pytest.raises(ToolError, match=f"{name}: the window .* at 1970-01-01T00:01:30Z {message}"):
        run(name, [(90_000, window)], [(1, 1.0)], max_width="1m", **more)


def test_what_is_no_window_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"sliding_apply needs windows \(.*\) as its first input, but got float 1.5 at"):
        run("sliding_apply", [(2000, 1.5)], [(1000, 1.0)], function="mean", max_width="10s")
    with pytest.raises(TypeError, match="sliding_apply with function=mean: sliding_mean needs numbers: 'warm' at time"):
        run("sliding_apply", [(2000, TimeInterval(0, 2000))], [(1000, "warm")], function="mean", max_width="10s")
    with pytest.raises(ToolError, match=r"sliding_apply: the result of builtins:set at .*: set cannot be stored"):
        run("sliding_apply", [(2000, TimeInterval(0, 2000))], [(1000, 1)], function="builtins:set", max_width="10s")


# --- sliding_listify and sliding_sink ---


def test_sliding_listify() -> None:
    given = [(5000, TimeInterval(1000, 4000)), (6000, TimeInterval(4001, 6000)), (7000, TimeInterval(0, 1000))]
    assert run("sliding_listify", given, DATA, max_width="10s") == [(5000, ["b", None]), (7000, [1.0])]
    got = run("sliding_listify", given, DATA, max_width="10s", include_time=True)
    assert got == [(5000, [[from_ms(2000), "b"], [from_ms(4000), None]]), (7000, [[from_ms(1000), 1.0]])]


def test_sliding_sink_has_no_output_and_reads_all_the_same() -> None:
    assert run("sliding_sink", [(5000, TimeInterval(1000, 4000))], DATA, max_width="10s") == []
    assert build("sliding_sink", max_width="10s", max_ahead="1s").support(1) == Window(10_000, 1000)


# --- relative_apply ---


def test_relative_apply_to_lists_of_numbers() -> None:
    lists = [(1, [1, 2.0, 6.0]), (2, []), (3, [None, NAN, 4.0]), (4, None), (5, [True, False])]
    assert run("relative_apply", lists, function="mean") == [(1, 3.0), (3, 4.0), (5, 0.5)]
    assert run("relative_apply", lists, function="first") == [(1, 1), (3, 4.0), (5, True)]
    assert run("relative_apply", lists, function="count") == [(1, 3), (3, 1), (5, 2)]
    assert run("relative_apply", lists[:2], function="builtins:max") == [(1, 6.0)]
    assert run("relative_apply", lists[2:3], function="builtins:repr") == [(3, "[nan, 4.0]")]


@pytest.mark.parametrize("function", PYTHON)
def test_relative_apply_is_sliding_apply_to_the_same_numbers(function: str) -> None:
    given, data = history(11)
    interval = TimeInterval(0, 600_000)
    lists = build("sliding_listify", max_width="60s", max_ahead="20s").evaluate(interval, [given, data])
    got = build("relative_apply", function=function).evaluate(interval, [lists])
    assert got == build("sliding_apply", function=function, max_width="60s", max_ahead="20s").evaluate(
        interval, [given, data]
    )


ROWS = [{"x": 1, "uid": "a"}, {"x": 3.0, "y": -1.0}, None, {"x": None, "y": NAN, "z": "text"}]


def test_relative_apply_to_lists_of_objects() -> None:
    assert run("relative_apply", [(1, ROWS)], function="sum") == [(1, {"x": 4.0, "y": -1.0})]
    assert run("relative_apply", [(1, ROWS)], function="std") == [(1, {"x": math.sqrt(2.0)})]
    assert run("relative_apply", [(1, [{"uid": "a"}])], function="sum") == []


def test_relative_apply_to_objects_keeps_the_laws() -> None:
    @dataclass(frozen=True, kw_only=True)
    class OverObjects(RelativeApply):
        """The other half of what it takes."""

        takes = "[{number}]"  # type: ignore[assignment]

    check_tool(OverObjects, examples=10, seed=1, missing=True)


def test_relative_apply_to_anything_else() -> None:
    with pytest.raises(TypeError, match="relative_apply needs lists, but got int 5"):
        run("relative_apply", [(1000, 5)], function="mean")
    with pytest.raises(TypeError, match="relative_apply needs numbers, but got str 'warm' at index 1"):
        run("relative_apply", [(1000, [1.0, "warm"])], function="mean")
    with pytest.raises(TypeError, match=r"relative_apply needs lists of objects, but got float 2\.0 at index 1"):
        run("relative_apply", [(1000, [{"x": 1}, 2.0])], function="mean")
    with pytest.raises(ConfigurationError, match="function is 'meen'"):
        build("relative_apply", function="meen")


def by_key(key: str, values: list[float]) -> Any:
    return max(values) - min(values) if key == "x" else SKIP if key == "uid" else len(values)


def test_relative_apply2_knows_the_field() -> None:
    """One object at each time: the original gives several instances for one millisecond."""
    assert run("relative_apply2", [(1, ROWS), (2, []), (3, [{"uid": 7}]), (4, None)], function=by_key) == [
        (1, {"x": 2.0, "y": 2})
    ]
    with pytest.raises(TypeError, match=r"relative_apply2 needs lists of objects, but got float 2\.0 at index 0"):
        run("relative_apply2", [(1, [2.0])], function=by_key)
    with pytest.raises(ConfigurationError, match="'mean' is not an import path"):
        build("relative_apply2", function="mean")


def test_the_whole_chain_equals_pandas() -> None:
    """aligning_window, sliding_listify and relative_apply over local hours, against a rolling mean."""
    index = pd.date_range("2015-03-29", periods=400, freq="7min", tz="UTC")
    numbers = pd.Series(np.random.default_rng(3).normal(20, 3, 400), index=index)
    data = Batch.build([int(t.value) // 1_000_000 for t in index], numbers.to_numpy())
    everything = TimeInterval(MIN_TIME, MAX_TIME)
    given = build("aligning_window", lower="-1h").evaluate(everything, [data])
    lists = build("sliding_listify", max_width="1h").evaluate(everything, [given, data])
    got = build("relative_apply", function="mean").evaluate(everything, [lists])
    expected = numbers.rolling("1h", closed="right").mean()
    assert got.times.tolist() == data.times.tolist()
    assert np.allclose(got.values, expected.to_numpy(), rtol=1e-12)
