"""No tool ignores a value of a wrong type without a word (TS-10). Nobody lists the tools: the registry is asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from hs_stream.core.tool import SKIP, MapTool, Tool
from hs_stream.core.value import Value
from hs_stream.plugins import default_registry
from tests.laws.wrong_types import Findings, findings

EVERY = [
    pytest.param(tool, id=f"{tool.name}@{tool.version}")
    for tool in default_registry()
    if any(tool.build(sample).arity != 0 for sample in tool.samples)
]
VALUES_DO_NOT_MATTER = {"gap_detect", "meta_instance_from_list", "plate_sink", "sink", "sliding_sink"}
"""Tools without an output that a value, or its being there, could change in the surroundings that are tried."""
THEIR_OWN_WORDS = {"meta_instance": "not iterable"}
"""Errors of a function that the samples name."""


def together(tool: type[Tool], seeds: Iterable[int]) -> list[Findings]:
    return [findings(made, seeds) for sample in tool.samples if (made := tool.build(sample)).arity != 0]


@pytest.mark.parametrize("tool", EVERY)
def test_a_wrong_type_is_an_error_or_changes_something(tool: type[Tool]) -> None:
    # scikit-learn takes a millisecond for each instance.
    found = together(tool, range(2 if tool.__module__ == "hs_stream_tools.learning" else 8))
    for one in found:
        for (slot, path), words in one.ignored().items():
            assert path in tool.ignores, f"{tool.pin} ignores {', '.join(sorted(words))} at {path!r} of input {slot}"
        for told in one.errors():
            kind, _, said = told.partition(": ")
            assert kind in ("TypeError", "ValueError", "ToolError"), told
            assert said.startswith(tool.name) or THEIR_OWN_WORDS.get(tool.name, "\0") in said, told
    tried = {slot for one in found for slot, path in one.taken if path == ""}
    assert tried or tool.name in VALUES_DO_NOT_MATTER, "no value changed anything: nothing was tried"


@pytest.mark.parametrize("tool", [case for case in EVERY if case.values[0].ignores])  # type: ignore[union-attr]
def test_what_a_tool_says_that_it_ignores_it_does_ignore(tool: type[Tool]) -> None:
    found: set[str] = set()
    for seed in range(64):
        found |= {path for one in together(tool, [seed]) for _, path in one.ignored()}
        if found == set(tool.ignores):
            return
    assert found == set(tool.ignores)


@dataclass(frozen=True, kw_only=True)
class Lengths(MapTool):
    """The length of each text in a field; anything else goes nowhere.

    >>> Lengths().map({"a": "four"})
    4
    """

    name = "lengths"
    version = "1.0.0"
    takes = "examples"
    samples: ClassVar[Any] = ({},)

    def map(self, value: Value) -> Value:
        """The length, or SKIP."""
        text = value.get("a") if isinstance(value, dict) else None
        return len(text) if isinstance(text, str) else SKIP

    def examples(self, slot: int) -> list[Value]:
        """Objects with a text."""
        return [{"a": "four"}, {"a": "x", "b": 1}]


def test_the_search_finds_a_tool_that_ignores() -> None:
    """As `splitter_with_unlist` did."""
    found = findings(Lengths(), range(4))
    assert found.ignored()[0, ""] == {"number", "text", "list", "time", "bytes", "interval"}
    assert found.ignored()[0, "."] == {"list", "object", "time", "bytes", "interval"}, "a field may hold a number"
