"""Hypothesis strategies for instants, values, batches, cuts and arrivals. Needs ``hs_stream[testing]``.

Instants lie close together, on bounds, at equal milliseconds and on days on which a clock changes, because that is
where errors are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError("hs_stream.testing.strategies needs hypothesis: pip install 'hs_stream[testing]'") from error

from hs_stream.core.batch import Batch
from hs_stream.core.errors import ToolError
from hs_stream.core.plate import Plate
from hs_stream.core.registry import ToolRegistry
from hs_stream.core.time import EMPTY, TimeInterval, TimeIntervals
from hs_stream.core.tool import (
    AggregateTool,
    Duration,
    FoldTool,
    PlateTool,
    Pointwise,
    Prefix,
    Sources,
    SplitTool,
    Takes,
    Tool,
    Window,
)
from hs_stream.core.value import Value
from hs_stream.core.workflow import NodeDefinition, SourceDefinition, WorkflowDefinition
from hs_stream.testing.material import ORIGINS

__all__ = [
    "SOURCES",
    "Arrival",
    "arrivals",
    "batches",
    "cuts",
    "demands",
    "durations",
    "instants",
    "interval_sets",
    "intervals",
    "other_definitions",
    "parts_of",
    "values",
    "workflows",
]

Arrival = list[tuple[int, int, Value]]
"""One round of arrivals: ``(input, time, value)`` in the order in which they come."""

_STEPS: Final = (1, 250, 1_000, 10_000, 60_000, 3_600_000)


@st.composite
def instants(draw: st.DrawFn, origin: int | None = None, reach: int = 40) -> int:
    """Milliseconds near ``origin`` (default: one of a few, two of them on days with a change of the clock)."""
    base = draw(st.sampled_from(ORIGINS)) if origin is None else origin
    step = draw(st.sampled_from(_STEPS))
    return base + step * draw(st.integers(-reach, reach)) + draw(st.sampled_from((0, 0, 0, -1, 1)))


def durations() -> st.SearchStrategy[Duration]:
    """From a millisecond to two days."""
    return st.builds(
        lambda step, count: Duration(step * count), st.sampled_from((*_STEPS, 86_400_000)), st.integers(1, 2)
    )


@st.composite
def intervals(draw: st.DrawFn, origin: int | None = 0) -> TimeInterval:
    """``(start, end]`` near ``origin``."""
    start, end = sorted((draw(instants(origin)), draw(instants(origin))))
    return TimeInterval(start, end if start < end else end + 1)


@st.composite
def interval_sets(draw: st.DrawFn, low: int = -20, high: int = 20) -> TimeIntervals:
    """Sets within ``(low, high]``, whose parts often touch or overlap."""
    bounds = st.integers(low, high)
    pairs = draw(st.lists(st.tuples(bounds, bounds), max_size=6))
    return TimeIntervals([(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]])


def values(takes: Takes = "any", *, missing: bool = False) -> st.SearchStrategy[Value]:
    """Canonical values that a tool with this ``takes`` accepts; with ``missing`` also ``None``.

    An ``interval`` is any: only `hs_stream.testing.material` knows which ones a tool accepts at which time.
    ``ValueError`` for ``examples``, which the tool has itself.
    """
    if takes == "examples":
        raise ValueError("only the tool has examples: see Tool.examples")
    numbers: st.SearchStrategy[Value] = st.floats(width=64) | st.integers(-1000, 1000)
    scalars = numbers | st.booleans() | st.text(st.characters(codec="utf-8"), max_size=5)
    keys = st.sampled_from(("a", "b", "temperature", "value"))
    nested = st.recursive(
        scalars | st.none() | intervals(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=6,
    )
    elements = numbers | st.none() if missing else numbers
    counts = st.dictionaries(keys, elements, max_size=3)
    kinds: dict[Takes, st.SearchStrategy[Value]] = {
        "number": numbers,
        "boolean": st.booleans(),
        "object": st.dictionaries(keys, nested, max_size=4),
        "any": nested,
        "[number]": st.lists(elements, max_size=3),
        "{number}": counts,
        "[{number}]": st.lists(counts, max_size=3),
        "[any, text]": st.tuples(nested, keys).map(list),
        "interval": intervals(),
        "{interval}": st.dictionaries(keys, intervals(), max_size=3),
    }
    return kinds[takes] | st.none() if missing else kinds[takes]


@st.composite
def batches(
    draw: st.DrawFn, takes: Takes = "any", *, origin: int | None = 0, max_size: int = 12, missing: bool = False
) -> Batch:
    """Up to ``max_size`` instances: bursts of neighbouring milliseconds, steady stretches and long gaps."""
    base = draw(st.sampled_from(ORIGINS)) if origin is None else origin
    step = draw(st.sampled_from(_STEPS))
    gaps = st.one_of(st.just(1), st.just(step), st.integers(1, 2 * step), st.just(20 * step))
    time, items = base - step * draw(st.integers(0, max_size)), []
    for gap in draw(st.lists(gaps, max_size=max_size)):
        time += gap
        items.append((time, draw(values(takes, missing=missing))))
    return Batch.of(items)


@st.composite
def cuts(draw: st.DrawFn, interval: TimeInterval, near: Sequence[int] = (), max_size: int = 3) -> list[int]:
    """Ascending instants strictly inside of ``interval``, often one of ``near`` or a millisecond beside it."""
    inside = [cut for time in near for cut in (time - 1, time, time + 1) if interval.start < cut < interval.end]
    if interval.width < 2:
        return []
    anywhere = st.integers(interval.start + 1, interval.end - 1)
    one = st.sampled_from(inside) | anywhere if inside else anywhere
    return sorted(draw(st.sets(one, max_size=max_size)))


@st.composite
def arrivals(draw: st.DrawFn, inputs: Sequence[Batch], max_rounds: int = 6) -> list[Arrival]:
    """A history after which, last write winning, exactly ``inputs`` have arrived.

    Instances come in rounds, in any order; some come twice; some come with another value first and are corrected in
    the same round or a later one.
    """
    rounds: list[Arrival] = [[] for _ in range(draw(st.integers(1, max_rounds)))]
    last = len(rounds) - 1
    everything = [(slot, time, value) for slot, batch in enumerate(inputs) for time, value in batch]
    for slot, time, value in draw(st.permutations(everything)):
        at = draw(st.integers(0, last))
        kind = draw(st.sampled_from(("once", "once", "twice", "corrected")))
        if kind == "corrected":
            wrong: Any = draw(values("number"))
            rounds[draw(st.integers(0, at))].append((slot, time, wrong))
        rounds[at].append((slot, time, value))
        if kind == "twice":
            rounds[draw(st.integers(at, last))].append((slot, time, value))
    return [arrival for arrival in rounds if arrival]


SOURCES: Final[Mapping[str, Takes]] = {"power": "number", "light": "number", "door": "boolean", "climate": "object"}
"""The sources of `workflows` and what they hold; each is on the plates ``house`` and ``room``."""


def workflows(registry: ToolRegistry, *, max_nodes: int = 6) -> st.SearchStrategy[WorkflowDefinition]:
    """Any tool of ``registry`` over any inputs that it can use, several levels deep; every node is published.

    Besides house and room there is a plate with declared values, and one that grows by what a node finds. What an
    engine treats in its own way (a fold on a grid, say) is drawn as often as what many tools have in common, and every
    other node reads the one before it, where it can. Two of three workflows begin with a chain whose last node reads
    far back over an aggregate. When they are wanted is drawn by `demands`.
    """
    ways: dict[tuple[Any, ...], list[Tool]] = {}
    for kind in registry:
        for sample in kind.samples:
            tool = kind.build(sample)
            ways.setdefault(_way(tool), []).append(tool)
    every = list(ways.values())
    shapes = [
        [[some for way in every if (some := [tool for tool in way if part(tool)])] for part in shape]
        for shape in _SHAPES
    ]
    return _workflows(every, shapes, max_nodes)


def _way(tool: Tool) -> tuple[Any, ...]:
    """All that an engine looks at: base class, drive, supports."""
    supports = [tool.support(slot) for slot in range(1 if tool.arity is None else tool.arity)]
    windows = [support for support in supports if isinstance(support, Window)]
    ahead = {(bool(one.lookahead), bool(one.before), bool(one.after)) for one in windows}
    ahead |= {(False, False, True) for one in supports if isinstance(one, Prefix) and one.after}
    special = tuple(base for base in (FoldTool, AggregateTool, SplitTool, PlateTool) if isinstance(tool, base))
    halts = isinstance(tool, FoldTool) and not tool.goes_on
    return special, type(tool.drive()), tuple(map(type, supports)), frozenset(ahead), halts


Ways = Sequence[Sequence[Tool]]
"""Tools that an engine treats alike, together."""


def _is_each(tool: Tool) -> bool:
    """Numbers, stream by stream."""
    alone = tool.arity == 1 and not isinstance(tool, (AggregateTool, SplitTool, PlateTool))
    return alone and _output_kind(tool, 1) == "number"


def _is_aggregate(tool: Tool) -> bool:
    """Of numbers, or of anything."""
    return isinstance(tool, AggregateTool) and _fits(tool.takes_at(0), "number")


def _is_far(tool: Tool) -> bool:
    """An output rests on more of the input than the instance at its time."""
    alone = tool.arity == 1 and not isinstance(tool, AggregateTool)
    return alone and not isinstance(tool.support(0), Pointwise)


_SHAPES: Final[Sequence[Sequence[Callable[[Tool], bool]]]] = (
    (),
    (_is_each, _is_aggregate, _is_far),
    (_is_aggregate, _is_far),
)
"""What a workflow begins with: demands and silence have far to go to a fold of an aggregate of a map."""


@st.composite
def _workflows(draw: st.DrawFn, ways: Ways, shapes: Sequence[Sequence[Ways]], max_nodes: int) -> WorkflowDefinition:
    declared = tuple((("kind", value),) for value in ("a", "b", "temperature"))
    plates = {
        "house": Plate("house"),
        "room": Plate("room", "house"),
        "kind": Plate("kind", values=declared),
        "found": Plate("found", max=4),
    }
    sources = {name: SourceDefinition(name, ("house", "room")) for name in SOURCES}
    kinds: dict[str, Takes] = dict(SOURCES)
    on: dict[str, tuple[str, ...]] = dict.fromkeys(SOURCES, ("house", "room"))
    nodes: dict[str, NodeDefinition] = {}
    shape = draw(st.sampled_from(shapes))
    for index in range(max(draw(st.integers(1, max_nodes)), len(shape))):
        last = next(reversed(nodes), None)
        held = list(SOURCES.values()) if last is None else [kinds[last]]
        fit = [some for way in (shape[index] if index < len(shape) else ()) if (some := _that_take(way, held))]
        tool = draw(st.sampled_from(draw(st.sampled_from(fit or ways))))
        aggregates = isinstance(tool, AggregateTool)
        count = 1 if aggregates else draw(st.integers(1, 3)) if tool.arity is None else tool.arity
        if not aggregates and not _takes(tool, count):
            continue
        fitting = [
            [name for name, held in kinds.items() if _fits(tool.takes_at(slot), held) and (on[name] or not aggregates)]
            for slot in range(count)
        ]
        if not all(fitting):
            continue
        if (index < len(shape) or draw(st.booleans())) and last is not None and fitting and last in fitting[0]:
            fitting[0] = [last]
        inputs = tuple(draw(st.sampled_from(names)) for names in fitting)
        over = draw(st.sampled_from([on[inputs[0]], on[inputs[0]][-1:]])) if aggregates else ()
        together = {plate for source in inputs for plate in on[source]} - set(over)
        into = None
        if isinstance(tool, SplitTool):
            free = [plate for plate in ("kind", "found") if plate not in together]
            if not free:
                continue
            into = draw(st.sampled_from(free))
            together.add(into)
        name = f"n{index}"
        on[name] = tuple(plate for plate in plates if plate in together)
        combined = on[name] if len(set(inputs)) > 1 else ()
        nodes[name] = NodeDefinition(name, tool, inputs, over, {}, on=combined, into=into)
        kinds[name] = _output_kind(tool, max(count, 1))
        if isinstance(tool, PlateTool) and plates["found"].source is None:
            plates["found"] = replace(plates["found"], source=name)
    online = draw(st.sampled_from([True, True, True, False]))
    return WorkflowDefinition("w", plates=plates, sources=sources, nodes=nodes, online=online)


@st.composite
def other_definitions(draw: st.DrawFn, registry: ToolRegistry, workflow: WorkflowDefinition) -> WorkflowDefinition:
    """``workflow`` with one node computed by another version of its tool, or with other parameters."""
    if not workflow.nodes:
        return workflow
    node = workflow.nodes[draw(st.sampled_from(sorted(workflow.nodes)))]
    kind = draw(st.sampled_from(registry.versions(node.tool.name)))
    fitting = [tool for sample in kind.samples if _takes(tool := kind.build(sample), len(node.inputs))]
    tool = draw(st.sampled_from(fitting)) if fitting else node.tool
    return replace(workflow, nodes={**workflow.nodes, node.name: replace(node, tool=tool)})


@st.composite
def parts_of(draw: st.DrawFn, workflow: WorkflowDefinition) -> WorkflowDefinition:
    """``workflow`` with only some of its nodes, and what they depend on."""
    kept = draw(st.sets(st.sampled_from(sorted(workflow.nodes)))) if workflow.nodes else set()
    kept |= {plate.source for plate in workflow.plates.values() if plate.source is not None}
    kept |= {name for node in kept for name in workflow.ancestors(node)}
    nodes = {name: node for name, node in workflow.nodes.items() if name in kept}
    retention = {name: after for name, after in workflow.retention.items() if name in nodes or name in workflow.sources}
    return replace(workflow, nodes=nodes, retention=retention)


@st.composite
def demands(draw: st.DrawFn, workflow: WorkflowDefinition, around: int) -> WorkflowDefinition:
    """``workflow``, wanted at other times: always, from an instant near ``around`` on, in some intervals, or never."""
    near = st.integers(-120, 120).map(lambda steps: around + 500 * steps)
    pairs = st.lists(st.tuples(near, near).filter(lambda pair: pair[0] < pair[1]), max_size=3)
    kind = draw(st.sampled_from(("always", "from", "from and in", "in", "in")))
    return replace(
        workflow,
        online=kind != "in",
        start=draw(near) if kind.startswith("from") else None,
        requested_intervals=TimeIntervals(draw(pairs)) if kind.endswith("in") else EMPTY,
    )


def _takes(tool: Tool, inputs: int) -> bool:
    """Whether ``tool`` may have so many inputs: some name each of theirs."""
    names = getattr(tool, "names", None)
    return tool.arity in (None, inputs) and (names is None or len(names) == inputs)


def _that_take(tools: Sequence[Tool], held: Sequence[Takes]) -> list[Tool]:
    return [tool for tool in tools if any(_fits(tool.takes_at(0), kind) for kind in held)]


def _fits(takes: Takes, held: Takes) -> bool:
    """Whether a tool may be fed with what a node holds."""
    return takes in ("any", held) or (takes == "object" and held == "{number}")


_HELD: Final[Mapping[Takes, Callable[[int], Value]]] = {
    "boolean": lambda second: second % 2 == 0,
    "object": lambda second: {"a": float(second), "temperature": second / 2},
    "[number]": lambda second: [float(second), second / 2],
    "{number}": lambda second: {"a": float(second), "temperature": second / 2},
    "[{number}]": lambda second: [{"a": float(second)}, {"a": second / 2}],
    "[any, text]": lambda second: [float(second), "a"],
    "{interval}": lambda second: {"a": TimeInterval(second * 1000 - 1, second * 1000)},
    "interval": lambda second: TimeInterval(second * 1000 - 1, second * 1000),
}


def _output_kind(tool: Tool, inputs: int) -> Takes:
    """What ``tool`` puts out, found by trying it."""
    makes = [_HELD.get(tool.takes_at(slot), float) for slot in range(inputs)]
    sources = [Batch.of((second * 1000, make(second)) for second in range(1, 20)) for make in makes]
    try:
        found = tool.evaluate(TimeInterval(0, 20_000), Sources(sources, [str(at) for at in range(inputs)]))
    except (ToolError, TypeError, ValueError, ArithmeticError):
        return "any"
    kinds = _kinds(value for _, value in found)
    return kinds.pop() if len(kinds) == 1 else "any"


def _kind(value: Value) -> Takes:
    """The narrowest word for ``value``."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, TimeInterval):
        return "interval"
    if isinstance(value, dict):
        return "{number}" if _kinds(value.values()) == {"number"} else "object"
    if isinstance(value, list):
        held = _kinds(value)
        return "[number]" if held == {"number"} else "[{number}]" if held == {"{number}"} else "any"
    return "any"


def _kinds(values: Iterable[Value]) -> set[Takes]:
    return {_kind(value) for value in values}
