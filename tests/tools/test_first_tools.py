"""Golden cases of the tools that are no windows, computed by hand."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.errors import ConfigurationError, HsStreamError, ToolError
from hs_stream.core.time import MIN_TIME, TimeInterval, to_ms
from hs_stream.core.tool import Sources, Tool
from hs_stream.plugins import default_registry

REGISTRY = default_registry()
NAN = float("nan")


def build(name: str, **parameters: Any) -> Tool:
    return REGISTRY.resolve(f"{name}@^1").build(parameters)


def run(name: str, *inputs: list[tuple[int, Any]], end: int = 100_000, **parameters: Any) -> list[tuple[int, Any]]:
    """Over (0, end]."""
    return list(build(name, **parameters).evaluate(TimeInterval(0, end), [Batch.of(items) for items in inputs]))


# --- clock ---


def test_clock_ticks_carry_their_time() -> None:
    got = build("clock", every="1m").evaluate(TimeInterval(59_999, 120_000), [])
    assert list(got) == [
        (60_000, datetime(1970, 1, 1, 0, 1, tzinfo=UTC)),
        (120_000, datetime(1970, 1, 1, 0, 2, tzinfo=UTC)),
    ]


def test_clock_on_local_midnights() -> None:
    start, end = datetime(2015, 3, 28, tzinfo=UTC), datetime(2015, 3, 31, tzinfo=UTC)
    got = build("clock", every="1d", tz="Europe/Brussels").evaluate(TimeInterval(to_ms(start), to_ms(end)), [])
    assert [value.isoformat() for _, value in got] == [
        "2015-03-28T23:00:00+00:00",
        "2015-03-29T22:00:00+00:00",
        "2015-03-30T22:00:00+00:00",
    ]


def test_clock_has_no_beginning() -> None:
    with pytest.raises(ToolError, match="finite start"):
        build("clock", every="1s").evaluate(TimeInterval(MIN_TIME, 0), [])
    with pytest.raises(ConfigurationError, match="every must be longer than 0"):
        build("clock", every="0s")
    with pytest.raises(ToolError, match="no inputs"):
        build("clock", every="1s").support(0)


# --- component ---


def test_component() -> None:
    items = [(1, {"temperature": 21.5}), (2, {"humidity": 40}), (3, {"temperature": None}), (4, None)]
    assert run("component", items, key="temperature") == [(1, 21.5), (3, None)]
    assert run("component", [(1, [5, 6]), (2, []), (3, [7])], key=-1) == [(1, 6), (3, 7)]
    assert run("component", [(1, {"a.b": 1, "a": {"b": 2}})], key="a.b") == [(1, 1)]


def test_component_of_something_else() -> None:
    with pytest.raises(TypeError, match=r"component with key='a' needs objects, but got float 21\.5"):
        run("component", [(1, 21.5)], key="a")
    with pytest.raises(TypeError, match="needs objects, but got list"):
        run("component", [(1, [1])], key="a")
    with pytest.raises(TypeError, match="needs lists, but got dict"):
        run("component", [(1, {})], key=0)
    with pytest.raises(ConfigurationError, match="parameter key: True is not text; or True is not a whole number"):
        build("component", key=True)


def test_component_filter() -> None:
    items = [(1, {"a": 1, "b": 2}), (2, {"a": 1.0}), (3, {"b": 1}), (4, None), (5, {"a": None})]
    assert run("component_filter", items, key="a", values=[1, None]) == [items[0], items[4]]
    assert run("component_filter", items, key="a", values=[1, None], complement=True) == [items[1]]
    assert run("component_filter", [(1, [5, 6])], key=1, values=[6]) == [(1, [5, 6])]
    with pytest.raises(TypeError, match="needs objects, but got str 'on'"):
        run("component_filter", [(1, "on")], key="a", values=[1])


# --- apply ---


def double(value: float) -> float:
    return value * 2


def spoil(value: dict[str, int]) -> int:
    value["spoiled"] = 1
    return len(value)


def test_apply_by_import_path() -> None:
    assert run("apply", [(1, 9.0)], function="math:sqrt") == [(1, 3.0)]
    assert run("apply", [(1, 9.0)], function="operator:ne", with_time=True) == [(1, True)]
    assert build("apply", function=math.sqrt).parameters() == {"function": "math:sqrt", "with_time": False}


def test_apply_of_a_lambda_runs_but_is_not_saved() -> None:
    tool = build("apply", function=lambda value: (value, value + 1))
    assert list(tool.evaluate(TimeInterval(0, 5), [Batch.of([(1, 2)])])) == [(1, [2, 3])]
    with pytest.raises(ConfigurationError, match="cannot be saved: it has no import path"):
        tool.parameters()


def test_apply_cannot_spoil_its_input() -> None:
    batch = Batch.of([(1, {"a": 1})])
    assert list(build("apply", function=spoil).evaluate(TimeInterval(0, 5), [batch])) == [(1, 2)]
    assert batch.get(1) == {"a": 1}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("sqrt", "not an import path"),
        ("nosuchmodule:f", "cannot be loaded"),
        ("math:nosuch", "cannot be loaded"),
        ("math:pi", "is a float, not a function"),
        (5, "function must be an import path or a function"),
    ],
)
def test_apply_wrong_function(function: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build("apply", function=function)


def test_apply_result_that_cannot_be_stored() -> None:
    with pytest.raises(ToolError, match=r"apply: the result of builtins:complex at .*: complex cannot be stored"):
        run("apply", [(1, 1.0)], function="builtins:complex")


# --- aggregate ---


def aggregate(function: str, *inputs: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
    sources = Sources([Batch.of(items) for items in inputs], [f"room{i}" for i in range(len(inputs))])
    return list(build("aggregate", function=function).evaluate(TimeInterval(0, 100), sources))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("mean", [(1, 20.0), (2, 4.0)]),
        ("sum", [(1, 60.0), (2, 4.0)]),
        ("min", [(1, 10.0), (2, 4.0)]),
        ("max", [(1, 30.0), (2, 4.0)]),
        ("count", [(1, 3), (2, 1), (3, 0)]),
        ("median", [(1, 20.0), (2, 4.0)]),
        ("std", [(1, 10.0)]),
        ("first", [(1, 10.0), (2, 4)]),
        ("last", [(1, 30), (2, 4)]),
        ("any", [(1, True), (2, True)]),
        ("all", [(1, True), (2, True)]),
    ],
)
def test_aggregate(function: str, expected: list[tuple[int, Any]]) -> None:
    got = aggregate(function, [(1, 10.0), (3, None)], [(1, 20.0), (2, NAN)], [(1, 30), (2, 4)])
    assert got == expected
    assert [type(value) for _, value in got] == [type(value) for _, value in expected]


def test_aggregate_does_not_depend_on_the_order_of_streams() -> None:
    values = [1e16, 1.0, -1e16, 0.1, 1e308, 1e308, -1e308]
    forward = aggregate("sum", *([(1, value)] for value in values[:4]))
    assert forward == aggregate("sum", *([(1, value)] for value in reversed(values[:4]))) == [(1, 1.1)]
    assert aggregate("sum", *([(1, math.inf)] for _ in range(2))) == [(1, math.inf)]


def test_aggregate_of_text_names_the_stream() -> None:
    with pytest.raises(TypeError, match="aggregate with function=mean needs numbers, but got str 'on' from 'room1'"):
        aggregate("mean", [(1, 1.0)], [(1, "on")])
    assert aggregate("first", [(1, "on")], [(1, "off")]) == [(1, "on")]
    with pytest.raises(ConfigurationError, match="function: 'avg' is not one of 'mean', 'sum'"):
        build("aggregate", function="avg")


# --- joins ---


def test_aligned_merge() -> None:
    left, right = [(1, 1.0), (2, 2.0), (4, 4.0)], [(2, "b"), (3, "c"), (4, None)]
    assert run("aligned_merge", left, right) == [(2, [2.0, "b"]), (4, [4.0, None])]
    assert run("aligned_merge", left, right, names=["x", "y"]) == [
        (2, {"x": 2.0, "y": "b"}),
        (4, {"x": 4.0, "y": None}),
    ]
    assert run("aligned_merge", left, []) == []
    assert build("aligned_merge", names=["x", "y"]).arity == 2
    with pytest.raises(ToolError, match=r"needs 2 input\(s\) with these parameters, but got 1"):
        run("aligned_merge", left, names=["x", "y"])
    with pytest.raises(ConfigurationError, match="names must differ"):
        build("aligned_merge", names=["x", "x"])


LIGHT = [(10_000, 300), (20_000, 310), (30_000, 320)]
OCCUPANCY = [(15_000, True), (25_000, False), (30_000, True)]


def test_as_of_join() -> None:
    got = run("as_of_join", LIGHT, OCCUPANCY, names=["light", "occupancy"])
    assert got == [(20_000, {"light": 310, "occupancy": True}), (30_000, {"light": 320, "occupancy": True})]
    assert run("as_of_join", LIGHT, OCCUPANCY, outer=True)[0] == (10_000, {"left": 300, "right": None})
    assert run("as_of_join", LIGHT, [], outer=False) == []
    assert len(run("as_of_join", LIGHT, [], outer=True)) == 3


def test_as_of_join_max_age_is_exclusive() -> None:
    assert [time for time, _ in run("as_of_join", LIGHT, OCCUPANCY, max_age="5s")] == [30_000]
    assert [time for time, _ in run("as_of_join", LIGHT, OCCUPANCY, max_age="5001ms")] == [20_000, 30_000]
    outer = run("as_of_join", LIGHT, OCCUPANCY, max_age="5s", outer=True)
    assert [value["right"] for _, value in outer] == [None, None, True]


def test_as_of_join_equals_pandas() -> None:
    left = [(k * 700 + 13, k) for k in range(200)]
    right = [(k * 1100, k * 10) for k in range(1, 120)]
    got = run("as_of_join", left, right, end=10**6)
    frame = pd.merge_asof(
        pd.DataFrame(left, columns=["t", "l"]), pd.DataFrame(right, columns=["t", "r"]), on="t"
    ).dropna()
    assert [(time, value["left"], value["right"]) for time, value in got] == [
        (int(t), int(a), int(b)) for t, a, b in frame.itertuples(index=False)
    ]


def test_last_value_on_a_grid() -> None:
    items = [(1_500, "on"), (9_000, "off")]
    got = run("last_value", items, every="1s", max_age="3s", end=20_000)
    assert got == [(2000, "on"), (3000, "on"), (4000, "on"), (9000, "off"), (10_000, "off"), (11_000, "off")]
    tool = build("last_value", every="1s", max_age="3s")
    forever = tool.evaluate(TimeInterval(MIN_TIME, 1 << 61), [Batch.of(items)])
    assert list(forever) == got


def test_last_value_at_the_times_of_another() -> None:
    drive = [(5, "x"), (15, None), (25, 3)]
    assert run("last_value", drive, [(10, 1.0), (25, 2.0)]) == [(15, 1.0), (25, 2.0)]
    assert run("last_value", drive, [(10, 1.0)], max_age="10ms") == [(15, 1.0)]


def test_last_value_parameters() -> None:
    assert build("last_value").arity == 2
    assert build("last_value", every="1s", max_age="1m").arity == 1
    with pytest.raises(ConfigurationError, match="every needs max_age"):
        build("last_value", every="1s")
    with pytest.raises(ConfigurationError, match="tz needs every"):
        build("last_value", tz="Europe/Brussels")
    with pytest.raises(ConfigurationError, match="max_age must be longer than 0"):
        build("last_value", max_age="0s")
    with pytest.raises(ToolError, match=r"needs 1 input\(s\)"):
        run("last_value", [], [], every="1s", max_age="1m")


# --- signals ---


def test_derivative() -> None:
    items = [(0, 1.0), (1000, 10.0), (3000, 11), (4000, None), (5000, 2.0), (6000, 1.0)]
    got = list(build("derivative").evaluate(TimeInterval(-1, 9000), [Batch.of(items)]))
    assert got == [(1000, 9.0), (3000, 0.5), (6000, -1.0)]
    assert run("derivative", items[1:3], unit="1h") == [(3000, 1800.0)]
    assert run("derivative", items[1:3], max_gap="1999ms") == []
    assert run("derivative", items[1:3], max_gap="2s") == [(3000, 0.5)]
    with pytest.raises(TypeError, match="derivative needs numbers, but got str 'on'"):
        run("derivative", [(1, "on")])
    with pytest.raises(ConfigurationError, match="unit must be longer than 0"):
        build("derivative", unit="0s")


def test_integral_watts_to_kilowatt_hours() -> None:
    hour = 3_600_000
    items = [(hour, 1000.0), (2 * hour, 1000.0), (3 * hour, 3000), (4 * hour, None), (5 * hour, 0.0)]
    kwh = {"unit": "1h", "scale": 0.001}
    assert run("integral", items, end=9 * hour, **kwh) == [
        (hour, 0.0),
        (2 * hour, 1.0),
        (3 * hour, 3.0),
        (5 * hour, 6.0),
    ]
    assert [v for _, v in run("integral", items, end=9 * hour, rule="left", **kwh)] == [0.0, 1.0, 2.0, 8.0]
    assert [v for _, v in run("integral", items, end=9 * hour, max_gap="1h", **kwh)] == [0.0, 1.0, 3.0, 3.0]
    with pytest.raises(ConfigurationError, match="rule: 'right' is not one of 'trapezoid', 'left'"):
        build("integral", rule="right")


def test_ewma_equals_pandas() -> None:
    times = [1000, 4000, 4001, 90_000]
    values = [20.0, 30.0, 10.0, 25.0]
    got = run("ewma", list(zip(times, values, strict=True)), half_life="10s")
    expected = pd.Series(values).ewm(halflife="10s", times=pd.to_datetime(times, unit="ms"), adjust=False).mean()
    assert [value for _, value in got] == pytest.approx(expected.tolist(), rel=1e-12)


def test_ewma_halves_after_the_half_life() -> None:
    assert run("ewma", [(1, 20.0), (5, NAN), (10_001, 30.0)], half_life="10s") == [(1, 20.0), (10_001, 25.0)]
    got = run("ewma", [(1, 0.0), (10_001, 1.0)], time_constant="10s")
    assert got[1][1] == pytest.approx(1 - math.exp(-1), rel=1e-15)
    for wrong in ({}, {"half_life": "1s", "time_constant": "1s"}):
        with pytest.raises(ConfigurationError, match="give one of half_life and time_constant"):
            build("ewma", **wrong)


# --- states ---


def test_threshold_above_with_hysteresis() -> None:
    """above=26, hysteresis=0.5: on when > 26, off when < 25.5."""
    values = [25.8, 26.0, 26.1, 25.5, None, 25.4, 25.9, 27]
    got = run("threshold", list(enumerate(values, 1)), above=26, hysteresis=0.5)
    assert got == [(1, False), (2, False), (3, True), (4, True), (6, False), (7, False), (8, True)]
    changes = run("threshold", list(enumerate(values, 1)), above=26, hysteresis=0.5, changes_only=True)
    assert changes == [(1, False), (3, True), (6, False), (8, True)]


def test_threshold_below_with_hysteresis() -> None:
    values = [18.2, 18.0, 17.9, 18.5, 18.6, 18.0]
    got = run("threshold", list(enumerate(values, 1)), below=18, hysteresis=0.5)
    assert [value for _, value in got] == [False, False, True, True, False, False]


def test_threshold_parameters() -> None:
    for wrong in ({}, {"above": 1, "below": 2}):
        with pytest.raises(ConfigurationError, match="give one of above and below"):
            build("threshold", **wrong)
    with pytest.raises(ConfigurationError, match="hysteresis must not be negative"):
        build("threshold", above=1, hysteresis=-1)
    with pytest.raises(ConfigurationError, match="parameter above: nan is not a finite number"):
        build("threshold", above=NAN)
    with pytest.raises(TypeError, match="threshold needs numbers, but got dict"):
        run("threshold", [(1, {})], above=1)


def test_debounce_confirms_at_a_reading() -> None:
    items = [
        (1_000, "off"),
        (30_999, "off"),
        (31_000, "off"),
        (40_000, "on"),
        (60_000, None),
        (69_999, "on"),
        (70_000, "on"),
    ]
    assert run("debounce", items, hold="30s") == [(31_000, "off"), (70_000, "on")]
    flicker = [(0 + k, k % 2 == 0) for k in range(1, 50)]
    assert run("debounce", flicker, hold="30s") == []
    assert run("debounce", [(1, 1), (2, 1.0), (3, 2)], hold="0s") == [(1, 1), (3, 2)]


def test_debounce_returns_to_the_stable_value_silently() -> None:
    items = [(1, True), (1001, True), (2000, False), (2500, True), (9000, True)]
    assert run("debounce", items, hold="1s") == [(1001, True)]
    with pytest.raises(ConfigurationError, match="hold must not be negative"):
        build("debounce", hold="-1s")


def test_every_tool_gives_nothing_for_nothing() -> None:
    for cls in REGISTRY:
        for sample in cls.samples:
            tool = cls.build(sample)
            count = 2 if tool.arity is None else tool.arity
            if count:
                assert tool.evaluate(TimeInterval(MIN_TIME, 10**12), [NOTHING] * count) == NOTHING, (cls.name, sample)


def test_errors_are_of_the_hs_stream_kind() -> None:
    with pytest.raises(HsStreamError, match="did you mean sliding_mean"):
        REGISTRY.resolve("sliding_means")
