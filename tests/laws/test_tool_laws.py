"""Every version of every tool keeps the laws. Nobody lists the tools: the registry is asked."""

from __future__ import annotations

from typing import Any

import pytest

from hs_stream.core.tool import Tool
from hs_stream.plugins import default_registry
from hs_stream.testing.check_tool import check_tool

CASES = [
    pytest.param(tool, sample, id=f"{tool.name}@{tool.version}-{index}")
    for tool in default_registry()
    for index, sample in enumerate(tool.samples)
]


@pytest.mark.parametrize(("tool", "sample"), CASES)
def test_tool_keeps_the_laws(tool: type[Tool], sample: dict[str, Any]) -> None:
    check_tool(tool.build(sample), examples=16, seed=20_150_204)
    check_tool(tool.build(sample), examples=8, seed=20_150_205, missing=True)


@pytest.mark.parametrize("tool", [pytest.param(tool, id=f"{tool.name}@{tool.version}") for tool in default_registry()])
def test_tool_says_what_it_does(tool: type[Tool]) -> None:
    assert tool.summary().endswith((".", "``."))
    assert len(tool.summary()) <= 120
    assert tool.samples
    assert ">>>" in (tool.__doc__ or "")


def test_discovery_finds_the_library() -> None:
    found = {case.values[0].name for case in CASES}  # type: ignore[union-attr]
    assert {"clock", "component", "sliding_mean", "threshold", "aggregate", "expression", "as_of_join"} <= found
