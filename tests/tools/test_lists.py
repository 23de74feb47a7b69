"""Golden cases of the tools on lists."""

from __future__ import annotations

import math
import statistics
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from hs_stream.core.batch import Batch
from hs_stream.core.errors import ConfigurationError
from hs_stream.core.time import TimeInterval
from hs_stream.core.tool import Tool
from hs_stream.plugins import default_registry

REGISTRY = default_registry()
NAN, INF = float("nan"), float("inf")


def build(name: str, **parameters: Any) -> Tool:
    return REGISTRY.resolve(name).build(parameters)


def outputs(name: str, *values: Any, **parameters: Any) -> list[Any]:
    """The outputs for ``values``, one a millisecond; a value without an output gives ``...``."""
    found = build(name, **parameters).evaluate(TimeInterval(-1, 1000), [Batch.of(enumerate(values))])
    there = dict(found)
    return [there.get(time, ...) for time in range(len(values))]


def random_lists(count: int) -> list[list[float]]:
    random = np.random.default_rng(20_150_204)
    return [(random.standard_normal(random.integers(1, 40)) * 1000).tolist() for _ in range(count)]


# --- slice ---


def test_slice_of_one_element() -> None:
    lists = [[5, 6, 7], [5], [], [None, "x"], None]
    assert outputs("slice", *lists, index=0) == [5, 5, ..., None, ...]
    assert outputs("slice", *lists, index=1) == [6, ..., ..., "x", ...]
    assert outputs("slice", *lists, index=-2) == [6, ..., ..., None, ...]


@pytest.mark.parametrize("start", [None, -9, -2, 0, 2, 9])
@pytest.mark.parametrize("stop", [None, -9, -2, 0, 3, 9])
@pytest.mark.parametrize("step", [None, 2, -1])
def test_slice_of_a_part_is_that_of_python(start: int | None, stop: int | None, step: int | None) -> None:
    if (start, stop, step) == (None, None, None):
        return
    lists = [[0, 1, 2, 3, 4], [0], []]
    assert outputs("slice", *lists, start=start, stop=stop, step=step) == [found[start:stop:step] for found in lists]


def test_slice_parameters() -> None:
    for wrong in ({}, {"index": 0, "start": 1}, {"index": 0, "step": 2}):
        with pytest.raises(ConfigurationError, match="give either index, or some of start, stop and step"):
            build("slice", **wrong)
    with pytest.raises(ConfigurationError, match="step must not be 0"):
        build("slice", step=0)
    with pytest.raises(ConfigurationError, match=r"parameter index: 1\.5 is not a whole number"):
        build("slice", index=1.5)


# --- length, sum, mean ---


def test_list_length_counts_everything() -> None:
    assert outputs("list_length", [], [1], [None, NAN, [1, 2], {}], None) == [0, 1, 4, ...]


def test_list_sum_and_mean_are_exactly_rounded() -> None:
    lists = random_lists(50)
    exact = [sum(map(Fraction, found)) for found in lists]
    assert outputs("list_sum", *lists) == [float(total) for total in exact]
    assert outputs("list_mean", *lists) == [
        float(total) / len(found) for total, found in zip(exact, lists, strict=True)
    ]
    assert outputs("list_mean", *lists) == pytest.approx([statistics.fmean(found) for found in lists], rel=1e-15)
    # plain addition gives 2.0 and 0.9999999999999999
    assert outputs("list_sum", [1e16, 1.0, 1.0, -1e16], [0.1] * 10) == [2.0, 1.0]


def test_list_sum_and_mean_of_special_values() -> None:
    lists = [[], [None, NAN], [1, True, 2.5], [1, None, 3], [INF, 1], None]
    assert outputs("list_sum", *lists) == [0.0, 0.0, 4.5, 4.0, INF, ...]
    assert outputs("list_mean", *lists) == [..., ..., 1.5, 2.0, INF, ...]
    assert [type(found) for found in outputs("list_sum", [], [1, 2])] == [float, float]
    assert math.isnan(outputs("list_sum", [INF, -INF])[0])
    assert outputs("list_sum", [1e308, 1e308]) == [INF]


@pytest.mark.parametrize("name", ["slice", "list_length", "list_sum", "list_mean", "list_dict_sum", "list_dict_mean"])
def test_what_is_no_list_is_an_error(name: str) -> None:
    parameters = {"index": 0} if name == "slice" else {}
    for value, told in ((21.5, r"float 21\.5"), ("abc", "str 'abc'"), ({"a": [1]}, "dict")):
        with pytest.raises(TypeError, match=f"{name} needs lists, but got {told}"):
            outputs(name, value, **parameters)


@pytest.mark.parametrize("name", ["list_sum", "list_mean"])
def test_what_is_no_number_is_named_with_its_index(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} needs numbers, but got str 'on' at index 2"):
        outputs(name, [1, None, "on"])


# --- lists of objects ---

ROWS = [{"hall": 0.5, "bath": 0.25}, {"hall": 1}, {"kitchen": True, "hall": 0.75}]


def test_list_dict_sum() -> None:
    assert outputs("list_dict_sum", ROWS, [], [{}], None) == [
        {"hall": 2.25, "bath": 0.25, "kitchen": 1.0},
        {},
        {},
        ...,
    ]
    assert outputs("list_dict_sum", [{"a": 0.1}] * 10) == [{"a": 1.0}]


def test_list_dict_sum_begins_anew_for_every_list() -> None:
    """HyperStream adds to one and the same start_dict."""
    start = {"a": 1, "b": 0.5}
    got = outputs("list_dict_sum", [{"a": 2}, {"c": 3}], [{"a": 2}], [], start_dict=start)
    assert got == [{"a": 3.0, "b": 0.5, "c": 3.0}, {"a": 3.0, "b": 0.5}, {"a": 1.0, "b": 0.5}]
    assert start == {"a": 1, "b": 0.5}
    got = outputs("list_dict_sum", [{"a": 2}, {"c": 3}], start_dict=start, insert_new_keys=False)
    assert got == [{"a": 3.0, "b": 0.5}]
    assert outputs("list_dict_sum", [{"a": 2}], insert_new_keys=False) == [{}]


def test_list_dict_mean_divides_by_the_number_of_objects() -> None:
    assert outputs("list_dict_mean", ROWS, [], [{}, {}], None) == [
        {"hall": 0.75, "bath": 0.25 / 3, "kitchen": 1 / 3},
        {},
        {},
        ...,
    ]
    assert outputs("list_dict_mean", ROWS, absent_is_zero=False) == [{"hall": 0.75, "bath": 0.25, "kitchen": 1.0}]


def test_list_dict_tools_ignore_what_is_missing() -> None:
    rows = [{"a": 1.0, "b": None}, None, {"a": NAN, "c": 3.0}, {"a": 2.0}]
    assert outputs("list_dict_sum", rows) == [{"a": 3.0, "c": 3.0}]
    # a: two are known. b: one is unknown, two count as 0. c: one and two that count as 0.
    assert outputs("list_dict_mean", rows) == [{"a": 1.5, "b": 0.0, "c": 1.0}]
    assert outputs("list_dict_mean", rows, absent_is_zero=False) == [{"a": 1.5, "c": 3.0}]
    assert outputs("list_dict_mean", [{"a": None}], [None]) == [{}, {}]


@pytest.mark.parametrize("name", ["list_dict_sum", "list_dict_mean"])
def test_list_dict_tools_name_what_they_cannot_use(name: str) -> None:
    with pytest.raises(TypeError, match=rf"{name} needs numbers, but got str 'on' in 'a' at index 1"):
        outputs(name, [{"a": 1}, {"a": "on"}])
    with pytest.raises(TypeError, match=rf"{name} needs lists of objects, but got float 1\.5 at index 0"):
        outputs(name, [1.5])


def test_list_dict_sum_parameters() -> None:
    for wrong in ([1], {"a": "x"}, {"a": True}, {"a": NAN}, {"a": None}, "a"):
        with pytest.raises(ConfigurationError, match="start_dict must be an object of finite numbers"):
            build("list_dict_sum", start_dict=wrong)
    with pytest.raises(ConfigurationError, match="the key 1 of an object is not text"):
        build("list_dict_sum", start_dict={1: 1})
    assert build("list_dict_sum", start_dict={"a": 1}).parameters() == {
        "start_dict": {"a": 1.0},
        "insert_new_keys": True,
    }
