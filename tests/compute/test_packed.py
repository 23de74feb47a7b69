"""A task gives the same result in another process. Nobody lists the tools: the registry is asked."""

from __future__ import annotations

from typing import Any

import pytest

from hs_stream.compute.packed import pack_result, pack_task, unpack_result, unpack_task
from hs_stream.compute.run import run
from hs_stream.compute.task import Carried, Result, Task
from hs_stream.core.batch import Batch
from hs_stream.core.errors import ConfigurationError, UnknownToolError
from hs_stream.core.fold_states import HALTED, INITIAL
from hs_stream.core.registry import ToolRegistry
from hs_stream.core.time import TimeIntervals
from hs_stream.core.tool import AggregateTool, Sources, Tool
from hs_stream.plugins import default_registry
from hs_stream.testing.check_tool import bound_tools, task_of
from hs_stream.testing.material import Material
from hs_stream_tools.functions import Apply

REGISTRY = default_registry()
CASES = [
    pytest.param(tool, sample, id=f"{tool.name}@{tool.version}-{index}")
    for tool in REGISTRY
    for index, sample in enumerate(tool.samples)
]
TOTAL = REGISTRY.resolve("integral").build({"unit": "1h"})


def elsewhere(task: Task) -> Result:
    return unpack_result(pack_result(run(unpack_task(pack_task(task), REGISTRY))))


@pytest.mark.parametrize(("tool", "sample"), CASES)
def test_every_tool_gives_the_same_elsewhere(tool: type[Tool], sample: dict[str, Any]) -> None:
    for one in bound_tools(tool.build(sample)):
        for seed in range(4):
            material = Material(one, seed)
            sources = material.sources(8)
            interval = material.interval(sources)
            if isinstance(one, AggregateTool):
                sources = Sources(sources, [f"value{index}" for index in range(len(sources))])
            for given in (sources, material.hurt(sources)) if seed % 2 and sources else (sources,):
                task = task_of(one, interval, given)
                assert pack_result(elsewhere(task)) == pack_result(run(task))


@pytest.mark.parametrize("state", [INITIAL, HALTED, None, 0, [1.5, {"a": float("nan")}], ["halted", None]])
def test_states_come_back_as_they_were(state: Any) -> None:
    task = Task(TOTAL, 0, 10, Sources([Batch.of([(5, 1.0)])]), 7, Carried(state, 0, 3), {5: state}, 4, wary=False)
    again = unpack_task(pack_task(task), REGISTRY)
    assert repr(again) == repr(task)
    if state in (INITIAL, HALTED):
        assert again.carried is not None
        assert again.carried.state is state
        assert again.old[5] is state
    failed = TimeIntervals.points([4])
    result = Result(0, 10, failed=failed, raised=1, error="no", carried=Carried(state, 5), snapshots=((5, [1]),))
    assert repr(unpack_result(pack_result(result))) == repr(result)


def test_a_registry_without_the_tool_says_so() -> None:
    packed = pack_task(Task(TOTAL, 0, 10, Sources([Batch.of([])])))
    with pytest.raises(UnknownToolError, match="there is no tool 'integral'"):
        unpack_task(packed, ToolRegistry())


def test_what_cannot_travel_says_so() -> None:
    with pytest.raises(ConfigurationError):
        pack_task(Task(Apply(function=lambda value: value), 0, 10, Sources([Batch.of([])])))
    with pytest.raises(ValueError, match="object"):
        pack_task(Task(TOTAL, 0, 10, Sources([Batch.of([])]), carried=Carried(object(), 0)))
