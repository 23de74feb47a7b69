"""Every version of every tool keeps the laws. Nobody lists the tools: the registry is asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hs_stream.core.tool import Tool
from hs_stream.plugins import default_registry
from hs_stream.testing.check_tool import check_tool
from hs_stream.testing.vary import varied

CASES = [
    pytest.param(tool, sample, id=f"{tool.name}@{tool.version}-{index}")
    for tool in default_registry()
    for index, sample in enumerate(tool.samples)
]
EVERY = [pytest.param(tool, id=f"{tool.name}@{tool.version}") for tool in default_registry()]


@pytest.mark.parametrize(("tool", "sample"), CASES)
def test_tool_keeps_the_laws(tool: type[Tool], sample: dict[str, Any]) -> None:
    check_tool(tool.build(sample), examples=8, seed=20_150_204)
    check_tool(tool.build(sample), examples=4, seed=20_150_205, missing=True)


@pytest.mark.parametrize("tool", EVERY)
def test_tool_keeps_the_laws_with_other_parameters(tool: type[Tool]) -> None:
    random = np.random.Generator(np.random.Philox(20_150_206))
    others = [varied(tool, sample, random) for sample in tool.samples for _ in range(2)]
    for index, other in enumerate(others):
        if other not in others[:index]:
            check_tool(other, examples=3, seed=index)


@pytest.mark.parametrize("tool", EVERY)
def test_tool_says_what_it_does(tool: type[Tool]) -> None:
    assert tool.summary().endswith((".", "``."))
    assert len(tool.summary()) <= 120
    assert tool.samples
    assert ">>>" in (tool.__doc__ or "")


def test_discovery_finds_the_library() -> None:
    found = {case.values[0].name for case in CASES}  # type: ignore[union-attr]
    assert {"clock", "component", "sliding_mean", "threshold", "aggregate", "expression", "as_of_join"} <= found
