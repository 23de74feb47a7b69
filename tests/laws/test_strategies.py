"""What the shipped strategies promise."""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from hs_stream.core.batch import Batch
from hs_stream.core.registry import ToolRegistry
from hs_stream.core.time import TimeInterval
from hs_stream.core.tool import MapTool, Pointwise, Takes
from hs_stream.core.value import Value, canonical, same
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.plugins import default_registry
from hs_stream.testing.material import Material
from hs_stream.testing.strategies import arrivals, batches, cuts, durations, intervals, values, workflows


@given(st.data())
@settings(deadline=None, max_examples=25)
def test_arrivals_end_at_the_inputs(data: st.DataObject) -> None:
    inputs = [data.draw(batches("number", max_size=6)) for _ in range(2)]
    contents: list[dict[int, object]] = [{}, {}]
    for arrival in data.draw(arrivals(inputs)):
        assert arrival
        for slot, time, value in arrival:
            contents[slot][time] = value
    assert [Batch.of(known.items()) for known in contents] == inputs


@given(st.data(), intervals(None))
@settings(deadline=None, max_examples=25)
def test_cuts_lie_inside(data: st.DataObject, interval: TimeInterval) -> None:
    drawn = data.draw(cuts(interval, near=[interval.start, interval.end]))
    assert drawn == sorted(set(drawn))
    assert all(interval.start < cut < interval.end for cut in drawn)


@given(values("any", missing=True), durations())
@settings(deadline=None, max_examples=25)
def test_values_are_canonical(value: object, duration: int) -> None:
    assert same(canonical(value), value)
    assert duration >= 1


def is_number(value: Value) -> bool:
    return type(value) in (int, float)


def is_list_of(held: Callable[[Value], bool]) -> Callable[[Value], bool]:
    return lambda value: type(value) is list and all(map(held, value))


def is_object_of(held: Callable[[Value], bool]) -> Callable[[Value], bool]:
    return lambda value: type(value) is dict and all(map(held, value.values()))


FITS: dict[str, Callable[[Value], bool]] = {
    "number": is_number,
    "boolean": lambda value: type(value) is bool,
    "object": lambda value: type(value) is dict,
    "any": lambda value: same(canonical(value), value),
    "[number]": is_list_of(is_number),
    "{number}": is_object_of(is_number),
    "[{number}]": is_list_of(is_object_of(is_number)),
    "interval": lambda value: type(value) is TimeInterval,
    "{interval}": is_object_of(lambda value: type(value) is TimeInterval),
    "[any, text]": lambda value: type(value) is list and len(value) == 2 and type(value[1]) is str,
    "examples": lambda value: value in ({"model": 1}, ["b"]),
}


@pytest.mark.parametrize("takes", typing.get_args(Takes))
def test_a_tool_is_fed_with_what_it_takes(takes: Takes) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Probe(MapTool):
        """Only says what it takes."""

        def examples(self, slot: int) -> Sequence[Value]:
            return [{"model": 1}, ("b",)]

    Probe.takes = takes
    fed = [value for seed in range(30) for value in Material(Probe(), seed).values(0, range(10))]
    assert [value for value in fed if not FITS[takes](value)] == []
    assert len(fed) == 300
    if takes == "examples":
        with pytest.raises(ValueError, match="only the tool has examples"):
            values(takes)
        return

    @given(values(takes))
    @settings(deadline=None, max_examples=25)
    def drawn(value: Value) -> None:
        assert FITS[takes](value)

    drawn()


def test_each_input_of_a_tool_gets_what_it_takes() -> None:
    """Windows come first and numbers second, also where both are at hand."""
    registry = ToolRegistry()
    for name in ("aligning_window", "sliding_apply"):
        registry.register(default_registry().resolve(name))
    found = find(workflows(registry), lambda flow: any(node.tool.arity == 2 for node in flow.nodes.values()))
    [applied] = [node for node in found.nodes.values() if node.tool.arity == 2]
    assert found.nodes[applied.inputs[0]].tool.name == "aligning_window"
    assert applied.inputs[1] in ("power", "light") or found.nodes[applied.inputs[1]].tool.name == "sliding_apply"


def test_many_workflows_read_far_back_over_an_aggregate_of_nodes() -> None:
    """Where the state machine once did not look."""
    found: list[bool] = []

    @given(workflows(default_registry()))
    @settings(deadline=None, max_examples=60, derandomize=True, database=None)
    def drawn(flow: WorkflowDefinition) -> None:
        over = {name for name, node in flow.nodes.items() if node.over and node.inputs[0] in flow.nodes}
        far = [node for node in flow.nodes.values() if over & set(node.inputs[:1])]
        found.append(any(not isinstance(node.tool.support(0), Pointwise) for node in far))

    drawn()
    assert sum(found) >= 6, f"{sum(found)} of {len(found)}"
