"""Every sample of every tool, fed in a random order with crashes, ends as from scratch. The registry is asked."""

from __future__ import annotations

import random
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from hs_stream.core.plate import Plate
from hs_stream.core.tool import AggregateTool, SplitTool, Tool
from hs_stream.core.value import Value
from hs_stream.core.workflow import NodeDefinition, SourceDefinition, WorkflowDefinition
from hs_stream.engine.ports import Store
from hs_stream.plugins import default_registry
from hs_stream.store.memory import MemoryStore
from hs_stream.testing.check_workflow import check_workflow
from hs_stream.testing.material import Material

ROOMS = [(("house", "1"), ("room", room)) for room in "ab"] + [(("house", "2"), ("room", "a"))]
CASES = [
    pytest.param(tool, sample, id=f"{tool.name}@{tool.version}-{index}")
    for tool in default_registry()
    for index, sample in enumerate(tool.samples)
]


@pytest.mark.parametrize(("tool", "sample"), CASES)
async def test_any_order_of_arrival_ends_as_from_scratch(tool: type[Tool], sample: dict[str, Any]) -> None:
    built = tool.build(sample)
    material = Material(built, zlib.crc32(repr(sample).encode()))
    inputs = [f"in{slot}" for slot in range(material.inputs if not isinstance(built, AggregateTool) else 1)]
    report = await check_workflow(
        memory(),
        [alone(built, inputs)],
        {name: drawn_for(material, slot) for slot, name in enumerate(inputs)} or {"other": lambda _, __: 1.0},
        dict.fromkeys(inputs or ["other"], ROOMS),
        seed=len(inputs),
        rounds=8,
        crash_moments=["before", "after"],
    )
    assert report.readings > 0


def alone(tool: Tool, inputs: list[str]) -> WorkflowDefinition:
    """A workflow of one node, and of a source that makes time pass where the node has no input."""
    values = tuple((("kind", value),) for value in tool.plate_values) if isinstance(tool, SplitTool) else ()
    over = ("room",) if isinstance(tool, AggregateTool) else ()
    into = "kind" if isinstance(tool, SplitTool) else None
    return WorkflowDefinition(
        "alone",
        plates={"house": Plate("house"), "room": Plate("room", "house"), "kind": Plate("kind", values=values)},
        sources={name: SourceDefinition(name, ("house", "room")) for name in inputs or ["other"]},
        nodes={"out": NodeDefinition("out", tool, tuple(inputs), over, {}, into=into)},
    )


def drawn_for(material: Material, slot: int) -> Callable[[random.Random, int], Value]:
    def draw(_: random.Random, time: int) -> Value:
        return material.values(slot, [time])[0]

    return draw


def memory() -> Callable[[], Awaitable[Store]]:
    store = MemoryStore()

    async def factory() -> Store:
        return store

    return factory
