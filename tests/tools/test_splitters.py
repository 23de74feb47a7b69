"""Splitters and finders of plate values: a wrong type is an error that says what to give."""

from __future__ import annotations

from typing import Any

import pytest

from hs_stream import HyperStream
from hs_stream.core.batch import Batch
from hs_stream.core.errors import ToolError
from hs_stream.core.time import TimeInterval
from hs_stream.core.tool import SplitTool
from hs_stream.core.value import Value
from hs_stream.plugins import default_registry

REGISTRY = default_registry()
WINDOW = TimeInterval(0, 10)
NAMES = "texts, whole numbers or booleans, which name plate values"
WRONG: list[tuple[str, dict[str, Any], list[Value], str]] = [
    ("splitter", {"element": "e"}, [21.5], "splitter needs objects, but got float 21.5"),
    ("splitter", {"element": "e"}, [{"e": 1.5}], f"splitter needs {NAMES}, but got float 1.5 in 'e'"),
    ("splitter", {"element": "e"}, [{"e": ["a"]}], f"splitter needs {NAMES}, but got list \\['a'\\] in 'e'"),
    (
        "splitter_from_stream",
        {"element": "e"},
        [{"e": "x"}, [["x", "a"]]],
        "needs objects, but got list .* in 'the mapping'",
    ),
    ("splitter_from_stream", {"element": "e"}, [{"e": "x"}, {"x": {}}], "but got dict {} in 'the mapping' in 'x'"),
    ("splitter_of_dict", {}, [["a"]], "splitter_of_dict needs objects"),
    ("splitter_of_list", {"mapping": ["a"]}, [{"a": 1}], "splitter_of_list needs lists"),
    (
        "splitter_time_aware_from_stream",
        {},
        [1.0, [["a", TimeInterval(0, 10)]]],
        r"needs objects that give each plate value its interval, such as \{'a': \[START, END\]\}, but got list",
    ),
    ("splitter_time_aware_from_stream", {}, [1.0, {"a": [None, 5]}], "needs time intervals, but got list .* not None"),
    ("splitter_time_aware_from_stream", {}, [1.0, {"a": "today"}], "needs time intervals, such as"),
    (
        "splitter_with_unlist",
        {"element": "e", "subelement": "n"},
        [{"e": {"n": "a"}}],
        "splitter_with_unlist needs lists of objects, but got dict .* in 'e'",
    ),
    (
        "splitter_with_unlist",
        {"element": "e", "subelement": "n"},
        [{"e": [{"n": "a"}, 7]}],
        "splitter_with_unlist needs objects, but got int 7 in 'e' at index 1",
    ),
    (
        "splitter_with_unlist",
        {"element": "e", "subelement": "n"},
        [{"e": [{"n": [1]}]}],
        f"needs {NAMES}, but got list .* in 'e' at index 0 in 'n'",
    ),
    ("asset_splitter", {}, [["a"]], "asset_splitter needs objects, but got list"),
    ("asset_splitter", {"element": "e"}, [{"e": ["a"]}], "asset_splitter needs objects, but got list .* in 'e'"),
    ("stream_broadcaster_from_stream", {}, [1.0, 1.5], f"needs {NAMES}, but got float 1.5"),
    ("stream_broadcaster_from_stream", {}, [1.0, ["a", ["b"]]], "but got list .* at index 1"),
]


def evaluate(name: str, parameters: dict[str, Any], values: list[Value], plate_value: str = "a") -> Batch:
    tool = REGISTRY.resolve(name).build(parameters)
    if isinstance(tool, SplitTool):
        tool = tool.bound_to({"plate": plate_value}, "plate")
    return tool.evaluate(WINDOW, [Batch.of([(5, value)]) for value in values])


@pytest.mark.parametrize(("name", "parameters", "values", "words"), WRONG)
def test_a_wrong_type_says_what_to_give(name: str, parameters: dict[str, Any], values: list[Value], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        evaluate(name, parameters, values)


@pytest.mark.parametrize(
    ("name", "parameters", "values", "words"),
    [
        ("plate_values", {}, [1.5], f"plate_values needs {NAMES}, but got float 1.5"),
        ("plate_values", {"element": "e"}, ["a"], "plate_values needs objects"),
        ("plate_values", {"use_values": True}, [{"x": {}}], "but got dict {} in 'x'"),
        ("asset_plate_generator", {"element": "e"}, ["a"], "asset_plate_generator needs objects"),
        ("asset_plate_generator", {"element": "e"}, [{"e": [{}]}], "but got dict {} at index 0"),
        ("meta_instance", {"function": "builtins:float"}, ["1.5"], f"meta_instance needs {NAMES}, but got float 1.5"),
        ("index_of_by_stream", {}, [[1.5, 2.5]], "index_of_by_stream needs .* but got float 2.5"),
    ],
)
def test_what_names_no_plate_value_is_an_error(
    name: str, parameters: dict[str, Any], values: list[Value], words: str
) -> None:
    with pytest.raises(TypeError, match=words):
        evaluate(name, parameters, values)


@pytest.mark.parametrize(
    ("name", "parameters", "values"),
    [
        ("splitter", {"element": "e"}, [None]),
        ("splitter", {"element": "e"}, [{"e": None, "x": 1}]),
        ("splitter", {"element": "e"}, [{"x": 1}]),
        ("splitter_time_aware_from_stream", {}, [1.0, None]),
        ("splitter_time_aware_from_stream", {}, [1.0, {"a": None}]),
        ("splitter_with_unlist", {"element": "e", "subelement": "n"}, [{"e": None}]),
        ("splitter_with_unlist", {"element": "e", "subelement": "n"}, [{"e": [None, {"n": None}, {}]}]),
        ("asset_splitter", {"element": "e"}, [{"e": None}]),
        ("asset_splitter", {"element": "e"}, [{}]),
        ("stream_broadcaster_from_stream", {}, [1.0, [None, float("nan")]]),
        ("plate_values", {"element": "e"}, [{"e": None}]),
        ("plate_values", {}, [float("nan")]),
    ],
)
def test_what_is_missing_goes_nowhere(name: str, parameters: dict[str, Any], values: list[Value]) -> None:
    assert not evaluate(name, parameters, values)


def test_a_workflow_says_so_too() -> None:
    with HyperStream() as hs:
        hs.get_or_create_stream("power").write([("2026-01-01T00:00:01Z", 4.0)])
        hs.get_or_create_stream("visits").write([("2026-01-01T00:00:00Z", [["one", 1.0]])])
        with hs.create_workflow("w") as w:
            visit = w.plate("visit", values=["one"])
            power, visits = w.source("power"), w.source("visits")
            power.splitter_time_aware_from_stream(visits, into=visit, name="split")
        with pytest.raises(ToolError, match="splitter_time_aware_from_stream needs objects that give each plate value"):
            w.execute(("2026-01-01T00:00:00Z", "2026-01-01T00:00:10Z"))
