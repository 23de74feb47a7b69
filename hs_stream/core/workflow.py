"""The factor graph of a workflow, as its author wrote it: plates, sources, nodes.

1. A source is a raw node; every other node is the output of one factor: a tool applied to input nodes.
2. The plates of a factor's output are the union of its inputs' plates, without those that it aggregates ``over``, and
   with the one that it splits ``into``.
3. Inputs of a factor are matched on plate values: an input that is on fewer plates is shared by all that agree with it.
   Where inputs share no plate, all combinations are made, but only if the factor says so: ``on`` names all its plates.
4. A sub-plate in ``on`` or ``over`` restricts a factor to the streams with those plate values.
5. A graph has no circle, and every name is used once. Names are global in a store: two workflows that have one name
   share what it names, and must define it equally (`check_shared`).
6. Wanted without being asked for is what is ``online``, from ``start`` on, and what lies in ``requested_intervals``.
7. What values mean (`hs_stream.core.kinds`) is said by a source or a node, or carried by a tool from its inputs. No
   result depends on it. What is put together is in units of which one becomes the other.

The Python builder and the YAML file both end here. `Workflow` checks itself when it is made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from semantic_version import Version

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.kinds import UNKNOWN, Meaning, Met
from hs_stream.core.plate import Plate, check_plates, closure, in_order
from hs_stream.core.stream import StreamId
from hs_stream.core.time import EMPTY, MAX_TIME, MIN_TIME, TimeIntervals
from hs_stream.core.tool import AggregateTool, PlateTool, SplitTool, Tool
from hs_stream.core.units import conversion

__all__ = ["NodeDefinition", "SourceDefinition", "WorkflowDefinition", "check_shared", "shown_units"]


@dataclass(frozen=True, slots=True)
class SourceDefinition:
    """A raw node. ``options`` are the connector's: topic template, codec, time, fields. ``plates`` in any order.

    ``meaning``: what is said of its values, and of their fields.
    """

    name: str
    plates: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    meaning: Meaning = UNKNOWN


@dataclass(frozen=True, slots=True)
class NodeDefinition:
    """One factor and its output. ``publish`` is ``None`` for a node that is not published.

    ``over``, ``on`` and ``into`` name plates, the first two sub-plates too; see the module's rules 2 to 4. ``meaning``
    is what is said of its output, over what its tool carries.
    """

    name: str
    tool: Tool
    inputs: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    publish: Mapping[str, Any] | None = None
    pin: str = ""
    on: tuple[str, ...] = ()
    into: str | None = None
    meaning: Meaning = UNKNOWN


@dataclass(frozen=True)
class WorkflowDefinition:
    """A checked workflow. ``start`` (ms) bounds online demand; ``None`` means from the earliest reading on.

    ``requested_intervals`` are computed too, once and again whenever their inputs change; they are for workflows that
    are not online, or that are from ``start`` on: without one, everything is wanted already.

    ``path`` and ``lines`` (``"nodes.smooth"`` -> line) only serve error messages. Raises `ConfigurationError`.
    """

    name: str
    plates: Mapping[str, Plate] = field(default_factory=dict)
    sources: Mapping[str, SourceDefinition] = field(default_factory=dict)
    nodes: Mapping[str, NodeDefinition] = field(default_factory=dict)
    description: str = ""
    online: bool = True
    start: int | None = None
    requested_intervals: TimeIntervals = EMPTY
    path: str = ""
    lines: Mapping[str, int] = field(default_factory=dict)
    retention: Mapping[str, int] = field(default_factory=dict)
    """Per source or node: instances are kept so long (ms) before its watermark; for ever where nothing is said."""
    order: tuple[str, ...] = field(init=False, default=())
    """Nodes (no sources), every node after its inputs."""
    node_plates: Mapping[str, tuple[str, ...]] = field(init=False, default_factory=dict)
    """Plates of every source and node, ancestors first: the order of topic levels."""
    fingerprints: Mapping[str, str] = field(init=False, default_factory=dict)
    """What each source's and node's results depend on, as ``"<major>.<minor>"``: two digests that cover the major, or
    the major and minor, versions of all tools involved. Equal fingerprints mean equal results."""
    meanings: Mapping[str, Meaning] = field(init=False, default_factory=dict)
    """What the values of each source and node mean, as far as it is known (rule 7)."""

    def __post_init__(self) -> None:
        try:
            StreamId.make(self.name)
        except ValueError as error:
            raise self.error("workflow", str(error)) from None
        try:
            check_plates(self.plates)
        except ConfigurationError as error:
            raise self.error("plates", error.message, error.hint) from None
        if self.requested_intervals and self.online and self.start is None:
            raise self.error(
                "requested_intervals",
                "requested_intervals ask for parts of what is online from the earliest reading on",
                "write online: false for these intervals only, or start: for what is online besides them",
            )
        self._check_names()
        object.__setattr__(self, "order", self._ordered())
        object.__setattr__(self, "node_plates", self._resolve_plates())
        object.__setattr__(self, "fingerprints", self._fingerprints())
        object.__setattr__(self, "meanings", self._meanings())

    def error(self, place: str, message: str, hint: str = "") -> ConfigurationError:
        """A `ConfigurationError` at ``place`` (``"nodes.smooth"``), with path and line where they are known."""
        line = self.lines.get(place)
        while line is None and "." in place:
            place = place.rpartition(".")[0]
            line = self.lines.get(place)
        return ConfigurationError(message, hint=hint, path=self.path, line=line)

    @property
    def demand(self) -> TimeIntervals:
        """The times at which every node is wanted (rule 6)."""
        if not self.online:
            return self.requested_intervals
        start = MIN_TIME if self.start is None else self.start
        return self.requested_intervals | TimeIntervals.of(start, MAX_TIME)

    @property
    def begin(self) -> int | None:
        """Where nodes without inputs begin, if not at the earliest reading of the sources."""
        demand = self.demand
        return demand.start if demand and demand.start > MIN_TIME else self.start

    def consumers(self, name: str) -> list[NodeDefinition]:
        """The nodes that read ``name``, in topological order."""
        return [self.nodes[other] for other in self.order if name in self.nodes[other].inputs]

    def keys_over(self, node: NodeDefinition) -> frozenset[str]:
        """The plates that ``node`` aggregates over, a sub-plate as the plate that it is a part of."""
        return frozenset(self.plates[plate].key for plate in node.over)

    def over_in_order(self, node: NodeDefinition) -> list[str]:
        """`keys_over` as the keys of an `AggregateTool` are put together."""
        keys = self.keys_over(node)
        return [plate for plate in self.node_plates[node.inputs[0]] if plate in keys] if keys else []

    def parts(self, node: NodeDefinition) -> tuple[Plate, ...]:
        """The sub-plates that ``node`` is restricted to."""
        return tuple(self.plates[name] for name in (*node.on, *node.over) if self.plates[name].of is not None)

    def ancestors(self, name: str) -> set[str]:
        """Every source and node that ``name`` depends on, itself excluded."""
        result: set[str] = set()
        stack = list(self.nodes[name].inputs) if name in self.nodes else []
        while stack:
            current = stack.pop()
            if current not in result:
                result.add(current)
                stack.extend(self.nodes[current].inputs if current in self.nodes else ())
        return result

    # --- checks ---

    def _check_names(self) -> None:
        for group, names in (("sources", self.sources), ("nodes", self.nodes)):
            for name in names:
                try:
                    StreamId.make(name)
                except ValueError as error:
                    raise self.error(f"{group}.{name}", str(error)) from None
        for name in self.nodes:
            if name in self.sources:
                raise self.error(f"nodes.{name}", f"{name} is both a source and a node", "rename one of them")
        for source in self.sources.values():
            for plate in source.plates:
                if plate not in self.plates:
                    raise self.error(
                        f"sources.{source.name}",
                        f"source {source.name}: the plate {plate!r} is not declared",
                        f"add '{plate}: {{}}' to plates",
                    )
        for node in self.nodes.values():
            self._check_node(node)
        self._check_retention()
        for grown in self.plates.values():
            named = grown.source
            if named is not None and not (named in self.nodes and isinstance(self.nodes[named].tool, PlateTool)):
                raise self.error(
                    f"plates.{grown.name}",
                    f"plate {grown.name}: its values cannot come from {named}",
                    "name a node whose tool finds plate values, such as plate_values",
                )

    def _check_retention(self) -> None:
        for name, kept in self.retention.items():
            place = f"sources.{name}" if name in self.sources else f"nodes.{name}"
            if name not in self.sources and name not in self.nodes:
                raise self.error(place, f"there is no source or node {name!r} to keep", "name one of them")
            if kept <= 0:
                raise self.error(place, f"{name}: retention must be longer than 0", "write for example retention: 30d")
            if any(plate.source == name for plate in self.plates.values()):
                hint = "remove retention"
                raise self.error(place, f"{name}: the values of a plate come from it, so it is kept for ever", hint)

    def _check_node(self, node: NodeDefinition) -> None:
        place = f"nodes.{node.name}"
        splits = isinstance(node.tool, SplitTool)
        if splits != (node.into is not None):
            raise self.error(
                place,
                f"node {node.name}: {node.tool.name} "
                + ("needs 'into'" if splits else "makes one stream, so it takes no 'into'"),
                "name the plate to split into" if splits else "remove 'into'",
            )
        for plate in (*node.over, *node.on, *([node.into] if node.into else ())):
            if plate not in self.plates:
                hint = f"add '{plate}: {{}}' to plates"
                raise self.error(place, f"node {node.name}: there is no plate {plate!r}", hint)
        for name in node.inputs:
            if name not in self.sources and name not in self.nodes:
                known = ", ".join([*self.sources, *self.nodes])
                raise self.error(
                    place, f"node {node.name}: there is no node {name!r} to read from", f"there is {known}"
                )
        arity, given = node.tool.arity, len(node.inputs)
        aggregates = isinstance(node.tool, AggregateTool)
        if aggregates and given != 1:
            raise self.error(place, f"node {node.name}: {node.tool.name} aggregates one node over a plate, not {given}")
        if not aggregates and arity is not None and given != arity:
            raise self.error(place, f"node {node.name}: {node.tool.name} takes {arity} input(s), not {given}")
        if not aggregates and arity is None and given < 1:
            raise self.error(place, f"node {node.name}: {node.tool.name} takes at least one input")
        if aggregates and not node.over:
            raise self.error(
                place, f"node {node.name}: {node.tool.name} needs 'over'", "name the plate to aggregate over"
            )
        if node.over and not aggregates:
            raise self.error(
                place, f"node {node.name}: {node.tool.name} does not aggregate, so it takes no 'over'", "remove 'over'"
            )

    def _ordered(self) -> tuple[str, ...]:
        """The nodes as they are written, but for those that come too early: each follows its inputs."""
        reads = {node.name: [name for name in node.inputs if name in self.nodes] for node in self.nodes.values()}
        try:
            TopologicalSorter(reads).prepare()
        except CycleError as error:
            circle = list(reversed(error.args[1]))
            raise self.error(
                f"nodes.{circle[-2]}", f"nodes form a circle: {' <- '.join(circle)}", "no node may depend on itself"
            ) from None
        order: dict[str, None] = {}
        stack = [*reversed(reads)]
        while stack:
            first = next((name for name in reads[stack[-1]] if name not in order), None)
            if first is None:
                order[stack.pop()] = None
            else:
                stack.append(first)
        return tuple(order)

    def _resolve_plates(self) -> dict[str, tuple[str, ...]]:
        plates = {
            source.name: in_order(self.plates, closure(self.plates, source.plates)) for source in self.sources.values()
        }
        for source in self.sources.values():
            if missing := set(plates[source.name]) - set(source.plates):
                raise self.error(
                    f"sources.{source.name}",
                    f"source {source.name} is on {', '.join(source.plates)} but not on {', '.join(sorted(missing))}, "
                    "which is a parent of one of them",
                    f"bind {{{min(missing)}}} in its topic too",
                )
        for name in self.order:
            node = self.nodes[name]
            together: set[str] = set()
            for other in node.inputs:
                mine = set(plates[other])
                if together and mine and not together & mine and not node.on:
                    raise self.error(
                        f"nodes.{name}",
                        f"node {name}: {other} is on ({', '.join(plates[other])}) but the inputs before it are on "
                        f"({', '.join(in_order(self.plates, together))}): no plate is shared to match them on",
                        "aggregate one of them over its plates first, or, for every combination of their values, "
                        f"write on: [{', '.join(in_order(self.plates, together | mine))}]",
                    )
                together |= mine
            found = together - self._over(node, together) | self._into(node, together)
            plates[name] = self._on(node, in_order(self.plates, found))
        return plates

    def _on(self, node: NodeDefinition, found: tuple[str, ...]) -> tuple[str, ...]:
        keys = [self.plates[name].key for name in node.on]
        # A restriction may name one plate only; who asks for all combinations names them all.
        whole = any(self.plates[name].of is None for name in node.on)
        if set(keys) - set(found) or len(set(keys)) < len(keys) or (whole and set(keys) != set(found)):
            raise self.error(
                f"nodes.{node.name}",
                f"node {node.name}: it is on ({', '.join(found)}), not on ({', '.join(node.on)})",
                f"write on: [{', '.join(found)}], or parts of these plates" if found else "remove 'on'",
            )
        return found

    def _into(self, node: NodeDefinition, together: set[str]) -> set[str]:
        if node.into is None:
            return set()
        place, into = f"nodes.{node.name}", self.plates[node.into]
        if into.of is not None:
            hint = f"write into: {into.of} and on: {into.name}"
            raise self.error(place, f"node {node.name}: {into.name} is a part of {into.of}", hint)
        if into.name in together:
            what = f"node {node.name}: {', '.join(node.inputs)} is on {into.name} already"
            raise self.error(place, what, "split into another plate")
        if missing := closure(self.plates, [into.name]) - together - {into.name}:
            raise self.error(
                place,
                f"node {node.name}: a {into.name} is under {', '.join(in_order(self.plates, missing))}, "
                f"which {', '.join(node.inputs)} is not on",
                f"declare {into.name} without a parent, or split into {min(missing)} first",
            )
        return {into.name}

    def _over(self, node: NodeDefinition, together: set[str]) -> set[str]:
        place = f"nodes.{node.name}"
        over = set(self.keys_over(node))
        for plate in sorted(over):
            if plate not in together:
                have = ", ".join(in_order(self.plates, together)) or "no plate"
                raise self.error(
                    place, f"node {node.name}: {node.inputs[0]} is not on the plate {plate!r}", f"it is on {have}"
                )
        for plate in together - over:
            lost = (closure(self.plates, [plate]) & over) - {plate}
            if lost:
                raise self.error(
                    place,
                    f"node {node.name}: cannot aggregate over {', '.join(sorted(lost))} and keep {plate}, "
                    f"whose parent it is",
                    f"write over: [{', '.join(in_order(self.plates, over | {plate}))}]",
                )
        return over

    def _meanings(self) -> dict[str, Meaning]:
        result = {name: source.meaning for name, source in self.sources.items()}
        for name in self.order:
            node = self.nodes[name]
            inputs = [result[other] for other in node.inputs]
            for met in node.tool.meets(inputs):
                if conversion(met.unit, met.other_unit) is None:
                    one, other = shown_units(node, met)
                    raise self.error(
                        f"nodes.{name}",
                        f"node {name}: {node.tool.name} puts together {one} and {other}: neither becomes the other",
                        "correct the unit of one of them, or what is put together",
                    )
            result[name] = node.meaning.over(node.tool.meaning(inputs))
        return result

    def _fingerprints(self) -> dict[str, str]:
        return {
            name: f"{major}.{minor}"
            for (name, major), minor in zip(self._digests(1).items(), self._digests(2).values(), strict=True)
        }

    def _digests(self, precision: int) -> dict[str, str]:
        result = {name: _digest(["source", name, list(self.node_plates[name])]) for name in self.sources}
        for name in self.order:
            node = self.nodes[name]
            version = Version(node.tool.version)
            result[name] = _digest(
                [
                    node.tool.name,
                    [version.major, version.minor][:precision],
                    _identity(node.tool),
                    [result[other] for other in node.inputs],
                    self.over_in_order(node),
                    *([["into", node.into]] if node.into else ()),
                    *([part.of, sorted(part.values), part.complement] for part in self.parts(node)),
                ]
            )
        return result


def shown_units(node: NodeDefinition, met: Met) -> tuple[str, str]:
    """``("power (W)", "solar (kW)")``: both with their units, inputs by their names."""
    pairs = ((met.one, met.unit), (met.other, met.other_unit))
    one, other = (f"{node.inputs[what] if isinstance(what, int) else what} ({unit})" for what, unit in pairs)
    return one, other


def check_shared(workflow: WorkflowDefinition, other: WorkflowDefinition) -> None:
    """`ConfigurationError` for a name that both have and define differently, at its place in ``workflow``.

    Equal are sources with equal options, and nodes with equal tools that read the same nodes; both on plates that are
    defined equally, and that grow equally where a node splits into one. What one of them says of the meaning, the other
    need not say, but it must not say something else.
    """
    for name in [*workflow.sources, *workflow.order]:
        if name not in other.sources and name not in other.nodes:
            continue
        if different := _difference(workflow, other, name):
            raise workflow.error(
                f"{'sources' if name in workflow.sources else 'nodes'}.{name}",
                f"{name} of workflow {workflow.name} is also defined by workflow {other.name}"
                f"{f' ({other.path})' if other.path else ''}, differently: {different}",
                "rename one of them, since names of streams are global, or make both equal to share it",
            )


def _difference(one: WorkflowDefinition, other: WorkflowDefinition, name: str) -> str:
    plates = one.node_plates[name]
    if plates != other.node_plates[name]:
        return f"on ({', '.join(plates)}) and on ({', '.join(other.node_plates[name])})"
    for plate in plates:
        if one.plates[plate] != other.plates[plate]:
            return f"their plates {plate} differ"
    if conflict := _said(one, name).conflict(_said(other, name)):
        return conflict
    if name in one.sources and name in other.sources:
        mine, its = one.sources[name].options, other.sources[name].options
        return next((f"their {key} differ" for key in {**mine, **its} if mine.get(key) != its.get(key)), "")
    if name in one.sources or name in other.sources:
        return "one is a source, the other a node"
    left, right = one.nodes[name], other.nodes[name]
    if left.inputs != right.inputs:
        return f"from {', '.join(left.inputs) or 'nothing'} and from {', '.join(right.inputs) or 'nothing'}"
    if one.fingerprints[name] != other.fingerprints[name]:
        return "their tools, parameters or plates differ"
    if left.into is not None and _sources_on(one, left.into) != _sources_on(other, left.into):
        return f"other sources bring values of {left.into}"
    # Where nothing is wanted of either, the first of them that is added says where it begins.
    if not left.inputs and (one.demand or other.demand) and _begin(one) != _begin(other):
        return "without inputs they begin with their workflows, and these begin differently"
    return ""


def _said(workflow: WorkflowDefinition, name: str) -> Meaning:
    return (workflow.sources.get(name) or workflow.nodes[name]).meaning


def _sources_on(workflow: WorkflowDefinition, plate: str) -> set[str]:
    return {name for name in workflow.sources if plate in workflow.node_plates[name]}


def _begin(workflow: WorkflowDefinition) -> Any:
    """What decides when nodes without inputs begin."""
    return sorted(workflow.sources) if workflow.begin is None else workflow.begin


def _identity(tool: Tool) -> Any:
    try:
        return tool.parameters()
    except ConfigurationError:  # a plain callable: it has no identity that outlives the process
        return [repr(tool), id(tool)]


def _digest(parts: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
