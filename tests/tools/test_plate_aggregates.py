"""Golden cases of the tools over a plate that keep the plate value."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pandas as pd
import pytest

from hs_stream.core.batch import Batch
from hs_stream.core.errors import ConfigurationError, ToolError
from hs_stream.core.time import TimeInterval
from hs_stream.core.tool import AggregateTool, Sources, Tool
from hs_stream.plugins import default_registry

REGISTRY = default_registry()
NAN = float("nan")


def build(name: str, **parameters: Any) -> Tool:
    return REGISTRY.resolve(name).build(parameters)


def run(name: str, streams: Mapping[str, Any], **parameters: Any) -> list[tuple[int, Any]]:
    """Over (0, 100 s]; ``streams`` holds times and values under plate values."""
    sources = Sources([Batch.of(items) for items in streams.values()], list(streams))
    return list(build(name, **parameters).evaluate(TimeInterval(0, 100_000), sources))


STREAMS: dict[str, list[tuple[int, Any]]] = {
    "bath": [(10, 1.0), (30, None)],
    "hall": [(10, {"a": 1}), (20, 2)],
    "kitchen": [(10, [1]), (20, 2), (40, "on")],
}


# --- aggregate_plate ---


def test_aggregate_plate_loses_nothing() -> None:
    got = run("aggregate_plate", STREAMS, plate="room")
    assert got == [
        (10, [{"room": "bath", "value": 1.0}, {"room": "hall", "value": {"a": 1}}, {"room": "kitchen", "value": [1]}]),
        (20, [{"room": "hall", "value": 2}, {"room": "kitchen", "value": 2}]),
        (30, [{"room": "bath", "value": None}]),
        (40, [{"room": "kitchen", "value": "on"}]),
    ]
    back: dict[str, list[tuple[int, Any]]] = {room: [] for room in STREAMS}
    for time, entries in got:
        for entry in entries:
            back[entry["room"]].append((time, entry["value"]))
    assert back == STREAMS
    assert run("aggregate_plate", {"a": [(1, True)]}) == [(1, [{"plate": "a", "value": True}])]


def test_aggregate_plate_parameters() -> None:
    for wrong in ("", "value"):
        with pytest.raises(ConfigurationError, match="plate must name a field other than 'value'"):
            build("aggregate_plate", plate=wrong)


# --- aggregate_into_dict_and_apply ---


def wide(value: float) -> list[float]:
    return [value - 1, value + 1]


def spoil(value: dict[str, int]) -> int:
    value["spoiled"] = 1
    return len(value)


NUMBERS: dict[str, list[tuple[int, Any]]] = {"bath": [(10, 4), (30, 0)], "hall": [(10, 9.0), (20, 16.0)]}


def test_aggregate_into_dict_without_a_function() -> None:
    assert run("aggregate_into_dict_and_apply", STREAMS) == [
        (10, {"bath": 1.0, "hall": {"a": 1}, "kitchen": [1]}),
        (20, {"hall": 2, "kitchen": 2}),
        (30, {"bath": None}),
        (40, {"kitchen": "on"}),
    ]


def test_aggregate_into_dict_and_apply_a_function() -> None:
    expected = [(10, {"bath": 2.0, "hall": 3.0}), (20, {"hall": 4.0}), (30, {"bath": 0.0})]
    assert run("aggregate_into_dict_and_apply", NUMBERS, function="math:sqrt") == expected
    assert run("aggregate_into_dict_and_apply", NUMBERS, function=math.sqrt) == expected
    assert run("aggregate_into_dict_and_apply", NUMBERS, expression="sqrt(value)") == expected
    assert run("aggregate_into_dict_and_apply", {"a": [(1, 1)]}, function=lambda value: (value,)) == [(1, {"a": [1]})]


def test_what_has_no_result_has_no_field() -> None:
    assert run("aggregate_into_dict_and_apply", NUMBERS, expression="8 / value") == [
        (10, {"bath": 2.0, "hall": 8 / 9}),
        (20, {"hall": 0.5}),
    ]
    fields = {"a": [(1, {"data": 1}), (2, {})], "b": [(1, {"data": True})]}
    assert run("aggregate_into_dict_and_apply", fields, expression="0 + data") == [(1, {"a": 1, "b": 1})]


def test_expression_knows_the_time() -> None:
    assert run("aggregate_into_dict_and_apply", {"a": [(65_000, 1)]}, expression="time.second + value") == [
        (65_000, {"a": 6})
    ]


def test_function_cannot_spoil_the_input() -> None:
    batch = Batch.of([(1, {"a": 1})])
    tool = build("aggregate_into_dict_and_apply", function=spoil)
    assert list(tool.evaluate(TimeInterval(0, 5), Sources([batch], ["x"]))) == [(1, {"x": 2})]
    assert batch.get(1) == {"a": 1}


def test_function_is_saved_by_its_import_path() -> None:
    saved = build("aggregate_into_dict_and_apply", function=math.sqrt).parameters()
    assert saved == {"function": "math:sqrt", "expression": None}
    assert build("aggregate_into_dict_and_apply", **saved).parameters() == saved
    assert build("aggregate_into_dict_and_apply", expression="value").parameters() == {
        "function": None,
        "expression": "value",
    }
    with pytest.raises(ConfigurationError, match="cannot be saved: it has no import path"):
        build("aggregate_into_dict_and_apply", function=lambda value: value).parameters()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"function": "math:sqrt", "expression": "value"}, "give function or expression, not both"),
        ({"function": "sqrt"}, "not an import path"),
        ({"function": "math:nosuch"}, "cannot be loaded"),
        ({"function": 5}, "function must be an import path or a function"),
        ({"expression": "value +"}, "expression 'value \\+'"),
        ({"expression": "().__class__"}, "is not allowed"),
    ],
)
def test_wrong_function_is_found_early(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build("aggregate_into_dict_and_apply", **parameters)


def test_error_names_tool_and_plate_value() -> None:
    streams = {"bath": [(1, 1)], "hall": [(1, "on")]}
    with pytest.raises(TypeError, match=r"aggregate_into_dict_and_apply, from 'hall': expression 'value - 1' at "):
        run("aggregate_into_dict_and_apply", streams, expression="value - 1")
    with pytest.raises(ToolError, match=r"from 'bath': .* result of builtins:complex at .*: complex cannot be stored"):
        run("aggregate_into_dict_and_apply", streams, function="builtins:complex")
    with pytest.raises(ToolError, match="there is no x here"):
        run("aggregate_into_dict_and_apply", streams, expression="x")


# --- CSV ---


def rows(got: list[tuple[int, str]]) -> list[list[str]]:
    return [row for _, text in got for row in csv.reader(io.StringIO(text))]


HISTOGRAMS: dict[str, list[tuple[int, Any]]] = {
    "bath": [(1000, [1, 0, 2]), (2000, [0, 0, 5])],
    'hall, "old"': [(1000, [3, None, 4])],
    "kitchen": [(1500, None), (2000, [])],
}


def test_histograms_to_csv() -> None:
    got = run("histograms_to_csv", HISTOGRAMS)
    assert got == [
        (1000, '1970-01-01T00:00:01Z,bath,1,0,2\n1970-01-01T00:00:01Z,"hall, ""old""",3,,4\n'),
        (2000, "1970-01-01T00:00:02Z,bath,0,0,5\n1970-01-01T00:00:02Z,kitchen\n"),
    ]
    assert rows(got)[1] == ["1970-01-01T00:00:01Z", 'hall, "old"', "3", "", "4"]


def test_histograms_to_csv_of_categories() -> None:
    streams = {"bath": [(1000, {"b": 2, "a,b": 1})], "hall": [(1000, {}), (2000, {"c": NAN})]}
    assert rows(run("histograms_to_csv", streams)) == [
        ["1970-01-01T00:00:01Z", "bath", "a,b", "1"],
        ["1970-01-01T00:00:01Z", "bath", "b", "2"],
        ["1970-01-01T00:00:02Z", "hall", "c", ""],
    ]


def test_csv_of_histograms_reads_back_in_pandas() -> None:
    lists = {room: [(k * 1000, [k, k * 2, seed]) for k in range(1, 20)] for seed, room in enumerate(("a", "b"))}
    histogram = build("histogram_from_list", breaks=[5, 10])
    made = {room: list(histogram.evaluate(TimeInterval(0, 20_000), [Batch.of(items)])) for room, items in lists.items()}
    text = "".join(part for _, part in run("histograms_to_csv", made))
    frame = pd.read_csv(io.StringIO(text), header=None, names=["time", "room", "low", "middle", "high"])
    assert len(frame) == 38
    for row in frame.itertuples(index=False):
        at = round(datetime.fromisoformat(row.time).timestamp() * 1000)
        assert dict(made[row.room])[at] == [row.low, row.middle, row.high]


def test_percentiles_to_csv() -> None:
    streams = {"bath": [(1, [18.5, 0.1, NAN])], "hall": [(1, [True, 2]), (2, None)]}
    assert run("percentiles_to_csv", streams) == [
        (1, "1970-01-01T00:00:00.001Z,bath,18.5,0.1,\n1970-01-01T00:00:00.001Z,hall,1,2\n")
    ]


def test_csv_names_what_it_cannot_use() -> None:
    with pytest.raises(TypeError, match="histograms_to_csv needs numbers, but got str 'on' from 'hall'"):
        run("histograms_to_csv", {"hall": [(1, [1, "on"])]})
    with pytest.raises(TypeError, match=r"histograms_to_csv needs numbers, but got list .* from 'hall'"):
        run("histograms_to_csv", {"hall": [(1, {"a": [1]})]})
    with pytest.raises(TypeError, match=r"histograms_to_csv needs lists or objects of counts, but got float 1\.5"):
        run("histograms_to_csv", {"hall": [(1, 1.5)]})
    with pytest.raises(TypeError, match=r"percentiles_to_csv needs lists of numbers, but got dict .* from 'hall'"):
        run("percentiles_to_csv", {"hall": [(1, {"a": 1})]})


@pytest.mark.parametrize(
    "name", ["aggregate_plate", "aggregate_into_dict_and_apply", "histograms_to_csv", "percentiles_to_csv"]
)
def test_they_are_aggregates(name: str) -> None:
    assert isinstance(build(name), AggregateTool)
