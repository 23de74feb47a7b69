"""Golden cases of the tools on objects and of those on single values."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from hs_stream.core.batch import Batch
from hs_stream.core.errors import ConfigurationError, ToolError
from hs_stream.core.time import TimeInterval
from hs_stream.core.tool import Tool
from hs_stream.plugins import default_registry

REGISTRY = default_registry()
NAN, INF = float("nan"), float("inf")


def build(name: str, **parameters: Any) -> Tool:
    return REGISTRY.resolve(name).build(parameters)


def run(name: str, *inputs: list[tuple[int, Any]], **parameters: Any) -> list[tuple[int, Any]]:
    """Over (0, 100]."""
    return list(build(name, **parameters).evaluate(TimeInterval(0, 100), [Batch.of(items) for items in inputs]))


# --- component_set, dict_argmax, dict_values_to_const ---


def test_component_set() -> None:
    items = [(1, {"a": 1, "b": None, "c": 3}), (2, {"c": 3}), (3, None), (4, {})]
    assert run("component_set", items, keys=["a", "b", "x"]) == [(1, {"a": 1, "b": None}), (2, {}), (4, {})]


def test_dict_argmax() -> None:
    items = [
        (1, {"hall": 0.2, "kitchen": 0.7, "bath": 0.1}),
        (2, {"a": -2.0, "b": -1}),
        (3, {"a": NAN, "b": None, "c": -INF}),
        (4, {"a": False, "b": True}),
    ]
    assert run("dict_argmax", items) == [(1, "kitchen"), (2, "b"), (3, "c"), (4, "b")]
    assert run("dict_argmax", [(1, {}), (2, {"a": None, "b": NAN}), (3, None)]) == []


def test_dict_argmax_does_not_depend_on_the_order_of_fields() -> None:
    assert run("dict_argmax", [(1, {"b": 1.0, "a": 1.0}), (2, {"a": 1.0, "b": 1.0})]) == [(1, "a"), (2, "a")]


def test_dict_values_to_const() -> None:
    items = [(1, {"hall": 0.2, "kitchen": None}), (2, {}), (3, None)]
    assert run("dict_values_to_const", items) == [(1, {"hall": 1, "kitchen": 1}), (2, {})]
    assert run("dict_values_to_const", items, const=None) == [(1, {"hall": None, "kitchen": None}), (2, {})]
    for const in (2, 0.5, True, "seen", None):
        got = build("dict_values_to_const", const=const).parameters()["const"]
        assert (got, type(got)) == (const, type(const))
    with pytest.raises(ConfigurationError, match=r"parameter const: \[1\] is not a whole number; or"):
        build("dict_values_to_const", const=[1])


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("component_set", {"keys": ["a"]}),
        ("dict_argmax", {}),
        ("dict_values_to_const", {}),
        ("group_fields", {"endings": {"a": "b"}}),
    ],
)
def test_what_is_no_object_is_an_error(name: str, parameters: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=rf"{name} needs objects, but got list \[1\]"):
        run(name, [(1, [1])], **parameters)


def test_dict_argmax_names_the_field() -> None:
    with pytest.raises(TypeError, match="dict_argmax needs numbers, but got str 'on' in 'b'"):
        run("dict_argmax", [(1, {"a": 1, "b": "on"})])


# --- group_fields ---


def test_group_fields() -> None:
    items = [
        (1, {"TokyoMax": 11.2, "TokyoMin": None, "Canberramax": 24.5, "Max": 1, "wind": 3, "": 4}),
        (2, {"wind": 3}),
        (3, None),
    ]
    assert run("group_fields", items, endings={"high": "Max", "low": "MIN"}) == [
        (1, {"Tokyo": {"high": 11.2, "low": None}, "Canberra": {"high": 24.5}}),
        (2, {}),
    ]
    longest = run("group_fields", [(1, {"hall_air_t": 20.5, "hall_t": 21})], endings={"t": "_t", "air": "_air_t"})
    assert longest == [(1, {"hall": {"air": 20.5, "t": 21}})]


def test_group_fields_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="group_fields: 'AMAX' and another field are both 'high' of 'A'"):
        run("group_fields", [(1, {"Amax": 1, "AMAX": 2})], endings={"high": "Max"})
    with pytest.raises(ConfigurationError, match="endings gives two fields one ending"):
        build("group_fields", endings={"high": "Max", "top": "max"})
    for endings in ({}, {"high": 3}, {"high": ""}, ["Max"]):
        with pytest.raises(ConfigurationError, match="endings must give an ending for each field"):
            build("group_fields", endings=endings)


# --- copy ---


def test_copy() -> None:
    items = [(1, 1), (2, 1.0), (3, None), (4, {"a": [b"x"]}), (5, True)]
    assert run("copy", [(0, "before"), *items, (101, "after")]) == items
    floats = Batch.of([(1, 1.5), (2, NAN)])
    assert build("copy").evaluate(TimeInterval(0, 9), [floats]) == floats
    assert build("copy").arity == 1


# --- jsonify ---


def test_jsonify_is_json_of_time_and_value() -> None:
    time = 1_423_072_260_123
    value = {"b": [1, 2.5, True, None], "a": {"z": "süß", "y": 1}}
    [(at, text)] = build("jsonify").evaluate(TimeInterval(0, time), [Batch.of([(time, value)])])
    assert (at, json.loads(text)) == (time, ["2015-02-04T17:51:00.123Z", value])
    assert text.index('"a"') < text.index('"b"')
    assert text.index('"y"') < text.index('"z"')


def test_jsonify_of_what_json_has_no_form_for() -> None:
    values = [NAN, -INF, b"\x00", datetime(2015, 2, 4, tzinfo=UTC), TimeInterval(0, 1000)]
    found = [json.loads(text, parse_constant=pytest.fail)[1] for _, text in run("jsonify", [*enumerate(values, 1)])]
    assert found == [
        {"$number": "NaN"},
        {"$number": "-Infinity"},
        {"$binary": "AA=="},
        {"$date": "2015-02-04T00:00:00Z"},
        {"$interval": ["1970-01-01T00:00:00Z", "1970-01-01T00:00:01Z"]},
    ]


# --- product ---


def test_product_at_common_times() -> None:
    left = [(1, 2.0), (2, 3), (3, None), (4, NAN), (5, True), (7, INF)]
    right = [(2, 0.5), (3, 1.0), (4, 1.0), (5, 4), (6, 1.0), (7, -2.0)]
    got = run("product", left, right)
    assert got == [(2, 1.5), (5, 4.0), (7, -INF)]
    assert all(type(value) is float for _, value in got)
    assert run("product", right, left) == got
    assert run("product", left, []) == []


def test_product_pairs_by_time_and_not_by_place() -> None:
    """HyperStream multiplies the k-th with the k-th instance, wherever they lie."""
    assert run("product", [(1, 2.0), (2, 3.0)], [(2, 5.0), (3, 7.0)]) == [(2, 15.0)]


def test_product_equals_a_plain_loop() -> None:
    left = [(k, k * 0.1) for k in range(1, 100)]
    right = [(k, 1 / k) for k in range(1, 100, 3)]
    assert run("product", left, right) == [(k, (k * 0.1) * (1 / k)) for k in range(1, 100, 3)]
    assert run("product", [(1, 1e300)], [(1, 1e300)]) == [(1, INF)]


def test_product_mistakes() -> None:
    assert build("product").arity == 2
    with pytest.raises(TypeError, match="product needs numbers: 'on' at time 1 is not a number"):
        run("product", [(1, "on")], [(1, 2)])
    assert run("product", [(1, "on"), (2, 1)], [(2, 2)]) == [(2, 2.0)]
    with pytest.raises(ToolError, match=r"product needs 2 input\(s\)"):
        run("product", [(1, 1)])
