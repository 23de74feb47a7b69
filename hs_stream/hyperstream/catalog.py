"""What a HyperStream knows how to compute: the workflows of its user, and what was executed tool by tool.

1. A tool that is executed into a stream is a workflow of one node, ``executed-<stream>``, which also holds whatever the
   node reads. So it is stored, versioned and recomputed like every other workflow.
2. Executing another tool into the same stream defines it anew; what rests on it then rests on the new one.
3. Here nothing is computed that nobody asks for, whatever ``online`` says: that is for the service.
4. Streams without inputs (a clock) begin at the earliest reading of their workflow. One that has no sources gets one,
   ``<workflow>.begin`` or ``<stream>.begin``, whose earliest reading says from where on it was ever asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Final

from hs_stream.core.affected import required
from hs_stream.core.errors import ConfigurationError
from hs_stream.core.plate import Plate
from hs_stream.core.time import EMPTY, MIN_TIME, TimeIntervals
from hs_stream.core.tool import AggregateTool
from hs_stream.core.workflow import NodeDefinition, SourceDefinition, WorkflowDefinition
from hs_stream.engine.graph import Graph

__all__ = ["NotebookCatalog", "executed"]

_MOST_VALUES: Final = 1_000_000


def executed(stream: str) -> str:
    """The name of the workflow by rule 1."""
    return f"executed-{stream}"


def _same(one: WorkflowDefinition, other: WorkflowDefinition) -> bool:
    """Whether both say the same. Fingerprints do not count: those of a lambda change whenever it is written down."""
    fields = ("name", "plates", "sources", "nodes", "description", "online", "start")
    return all(getattr(one, name) == getattr(other, name) for name in fields)


@dataclass(frozen=True)
class NotebookCatalog:
    """See the module. Immutable: ``with_...`` gives a new one, or `ConfigurationError` when it contradicts itself."""

    workflows: Mapping[str, WorkflowDefinition] = field(default_factory=dict)
    factors: Mapping[str, NodeDefinition] = field(default_factory=dict)
    """What was executed, by stream."""
    sources: Mapping[str, SourceDefinition] = field(default_factory=dict)
    """The raw streams that factors read and no workflow declares."""

    def node(self, name: str) -> NodeDefinition | None:
        """What computes the stream ``name``."""
        if name in self.factors:
            return self.factors[name]
        return next((workflow.nodes[name] for workflow in self.workflows.values() if name in workflow.nodes), None)

    def source(self, name: str) -> SourceDefinition | None:
        """The source ``name`` of a workflow, or the raw stream that a factor reads."""
        found = (workflow.sources[name] for workflow in self.workflows.values() if name in workflow.sources)
        return next(found, self.sources.get(name))

    def owner(self, name: str) -> str:
        """The workflow of the user that has a source or node ``name``, or an empty text."""
        found = (key for key, item in self.workflows.items() if name in item.nodes or name in item.sources)
        return next(found, "")

    # --- changes ---

    def with_workflow(self, workflow: WorkflowDefinition) -> NotebookCatalog:
        """With a new workflow, or instead of one of that name."""
        known = self.workflows.get(workflow.name)
        if known is not None and _same(known, workflow):
            return self
        for name in self.factors:
            if name in workflow.nodes or name in workflow.sources:
                raise workflow.error(f"nodes.{name}", f"{name} was executed by hand already", "rename the node")
        return replace(self, workflows={**self.workflows, workflow.name: workflow}).checked()

    def with_factor(self, node: NodeDefinition, sources: Iterable[SourceDefinition] = ()) -> NotebookCatalog:
        """With ``node`` executed; ``sources`` are raw streams that it reads."""
        if self.factors.get(node.name) == node:
            return self
        if owner := self.owner(node.name):
            raise ConfigurationError(f"{node.name} belongs to the workflow {owner}", hint="name another sink")
        fresh = {source.name: source for source in sources if not self.owner(source.name)}
        return replace(self, factors={**self.factors, node.name: node}, sources={**self.sources, **fresh}).checked()

    def checked(self) -> NotebookCatalog:
        """Itself."""
        graph = Graph()
        for definition in self.definitions():
            graph.add_workflow(definition)
        return self

    # --- what the engine gets ---

    def definitions(self) -> list[WorkflowDefinition]:
        """Every workflow, those that others read from before them: the first one that names a stream owns it."""
        tree = {name: [item for item in node.inputs if item in self.factors] for name, node in self.factors.items()}
        try:
            order = list(TopologicalSorter(tree).static_order())
        except CycleError as error:
            circle = " <- ".join(error.args[1])
            raise ConfigurationError(f"streams form a circle: {circle}", hint="name another sink") from None
        return [*map(self._on_request, self.workflows.values()), *map(self.factor_workflow, order)]

    def _on_request(self, workflow: WorkflowDefinition) -> WorkflowDefinition:
        sources = dict(workflow.sources)
        if not sources and not all(node.inputs for node in workflow.nodes.values()):
            begin = f"{workflow.name}.begin"
            sources = {begin: SourceDefinition(begin)}
        return replace(workflow, online=False, sources=sources)

    def factor_workflow(self, name: str) -> WorkflowDefinition:
        """The workflow by rule 1 for the stream ``name``."""
        nodes: dict[str, NodeDefinition] = {}
        sources: dict[str, SourceDefinition] = {}
        declared: dict[str, Plate] = {}
        stack = [name]
        while stack:
            current = stack.pop()
            if current in nodes or current in sources:
                continue
            node, source = self.node(current), self.source(current)
            if node is not None:
                nodes[current] = replace(node, publish=None)
                stack += node.inputs
            elif source is not None:
                sources[current] = source
            else:
                raise ConfigurationError(f"{name} reads {current}, which nothing is known of")
            if owner := self.owner(current):
                declared |= self.workflows[owner].plates
                stack += [plate.source for plate in declared.values() if plate.source is not None]
        bound = {plate: Plate(plate, max=_MOST_VALUES) for source in sources.values() for plate in source.plates}
        plates = {**declared, **{plate: made for plate, made in bound.items() if plate not in declared}}
        if not self.factors[name].inputs:
            sources[f"{name}.begin"] = SourceDefinition(f"{name}.begin")
        return WorkflowDefinition(executed(name), plates, sources, nodes, online=False)

    # --- where streams without inputs begin ---

    def _begin_of(self, name: str) -> str | None:
        """The source by rule 4 that says where the node ``name``, which has no inputs, begins."""
        if name in self.factors:
            return f"{name}.begin"
        owner = self.owner(name)
        return None if self.workflows[owner].sources else f"{owner}.begin"

    def begins(self) -> set[str]:
        """Every source by rule 4."""
        nodes = [*self.factors.values(), *(node for item in self.workflows.values() for node in item.nodes.values())]
        found = (self._begin_of(node.name) for node in nodes if not node.inputs)
        return {name for name in found if name is not None}

    def beginnings(self, names: Iterable[str], start: int, end: int) -> dict[str, int]:
        """For the nodes ``names`` in ``(start, end]``: which sources by rule 4 must reach back to which start (ms).

        What reads everything before (a fold) is content with what begins at ``start``.
        """
        result: dict[str, int] = {}
        wanted: dict[str, TimeIntervals] = {}
        stack = [(name, TimeIntervals.of(start, end)) for name in names]
        while stack:
            name, span = stack.pop()
            node = self.node(name)
            before = wanted.get(name, EMPTY)
            if node is None or (name in wanted and span in before):
                continue
            wanted[name] = before | span
            begin = None if node.inputs else self._begin_of(name)
            if begin is not None:
                result[begin] = min(result.get(begin, start), span.start if span.start > MIN_TIME else start)
            for slot, source in enumerate(node.inputs):
                support = node.tool.support(0 if isinstance(node.tool, AggregateTool) else slot)
                stack.append((source, required(support, span)))
        return result
