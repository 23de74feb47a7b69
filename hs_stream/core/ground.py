"""From a workflow's nodes to streams: one stream per node and combination of plate values that its inputs have.

1. A raw stream is bound when its source is seen with new plate values.
2. A derived stream exists when each of its inputs exists, matched on the plates that they share.
3. An aggregate over a plate exists when one stream under it does, and grows by those that come later.
4. A node that splits into a plate has a stream for each input and each value of the plate, whichever comes later.
5. Binding reports what is new, in topological order; the cost of binding follows what is new, not what exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hs_stream.core.plate import Admitted, KnownPlateValues, closure
from hs_stream.core.stream import Meta, StreamId, check_plate_value
from hs_stream.core.tool import AggregateTool, SelectorTool
from hs_stream.core.workflow import NodeDefinition, WorkflowDefinition

__all__ = ["Created", "Ground", "Joined"]


@dataclass(frozen=True, slots=True)
class Created:
    """A new stream of ``node``. ``keys[i]`` is the aggregated plate value of input i, for an aggregate."""

    node: str
    stream: StreamId
    inputs: tuple[StreamId, ...]
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Joined:
    """An existing aggregate ``stream`` has one more input."""

    node: str
    stream: StreamId
    input: StreamId
    key: str


class Ground:
    """The streams of one workflow, for the plate values seen so far."""

    def __init__(self, workflow: WorkflowDefinition) -> None:
        self.workflow = workflow
        self.values = KnownPlateValues(workflow.plates)
        self._streams: dict[str, dict[Meta, StreamId]] = {name: {} for name in (*workflow.sources, *workflow.order)}
        # (node, plates) -> projected meta -> metas of the node's streams: where matches are looked up
        self._index: dict[tuple[str, tuple[str, ...]], dict[Meta, list[Meta]]] = {}
        self._consumers = {name: workflow.consumers(name) for name in self._streams}
        self._parts = {name: workflow.parts(workflow.nodes[name]) for name in workflow.order}
        self._splitters: dict[str, list[str]] = {}
        for name in workflow.order:
            if into := workflow.nodes[name].into:
                self._splitters.setdefault(into, []).append(name)

    def sourceless(self) -> list[Created]:
        """The streams that exist from the beginning: those of tools without inputs, and what follows from them."""
        events: list[Created | Joined] = []
        for name in self.workflow.order:
            node = self.workflow.nodes[name]
            if not node.inputs:
                events += self._add(name, (), ())
        return [event for event in events if isinstance(event, Created)]

    def bind(self, source: str, meta: Meta) -> list[Created | Joined]:
        """The streams that a raw stream ``source[meta]`` brings, itself first; nothing when it is known.

        Raises `hs_stream.core.plate.PlateFull` when a plate takes no more values, and changes nothing then.
        """
        meta = tuple(sorted(meta))
        if meta in self._streams[source]:
            return []
        admitted = self.values.admit(meta)
        return [*self._add(source, meta, ()), *self._split_anew(admitted)]

    def grow(self, node: str, meta: Meta, value: str, *, stored: bool = False) -> list[Created | Joined]:
        """The streams that come of ``node[meta]``, the source of a plate, saying that there is ``value``.

        ``stored``: it was taken in before, perhaps by rules that let more pass. Raises
        `hs_stream.core.plate.PlateFull`, ``ValueError`` for what is no plate value, and changes nothing then.
        """
        admitted = [self.values.admit(found) for found in self.growth(node, meta, value, stored=stored)]
        return [event for one in admitted for event in self._split_anew(one)]

    def growth(self, node: str, meta: Meta, value: str, *, stored: bool = False) -> list[Meta]:
        """The plate values that `grow` would admit. Raises what it would raise."""
        found = []
        for plate in self.workflow.plates.values():
            if plate.source == node:
                if not stored:
                    check_plate_value(value)
                ancestors = closure(self.workflow.plates, [plate.name])
                under = tuple(pair for pair in meta if pair[0] in ancestors)
                found.append(tuple(sorted((*under, (plate.name, value)))))
                self.values.check(found[-1])
        return found

    def check(self, source: str, meta: Meta) -> None:
        """What `bind` would raise."""
        if tuple(sorted(meta)) not in self._streams[source]:
            self.values.check(meta)

    def streams(self, node: str) -> list[StreamId]:
        """The streams of a source or node."""
        return list(self._streams[node].values())

    def _add(self, name: str, meta: Meta, inputs: tuple[StreamId, ...]) -> list[Created | Joined]:
        stream = StreamId(name, meta)
        events: list[Created | Joined] = [Created(name, stream, inputs)]
        self._remember(name, meta, stream)
        for consumer in self._consumers[name]:
            if isinstance(consumer.tool, AggregateTool):
                events += self._aggregate(consumer, stream)
            else:
                for matched in self._matches(consumer, name, meta):
                    events += self._make(consumer, self._output_meta(matched), matched)
        return events

    def _make(self, node: NodeDefinition, meta: Meta, inputs: tuple[StreamId, ...]) -> list[Created | Joined]:
        """The output streams of ``node`` for these inputs that do not exist yet."""
        targets = [meta]
        if node.into is not None:
            targets = [tuple(sorted((*meta, (node.into, value)))) for value in self.values.of(node.into, meta)]
        events: list[Created | Joined] = []
        for target in targets:
            if target not in self._streams[node.name] and self._is_on(node, target):
                if node.into is not None:
                    self.values.admit(target)
                events += self._add(node.name, target, inputs)
        return events

    def _split_anew(self, admitted: Iterable[Admitted]) -> list[Created | Joined]:
        """What plate values that are new bring where something is split into their plate."""
        events: list[Created | Joined] = []
        for plate, meta in admitted:
            under = tuple(pair for pair in meta if pair[0] != plate)
            for name in self._splitters.get(plate, ()):
                node = self.workflow.nodes[name]
                first = node.inputs[0]
                shared = tuple(key for key, _ in under if key in self.workflow.node_plates[first])
                wanted = _project(under, shared)
                for found in list(self._lookup(first, shared).get(wanted, ())):
                    for matched in list(self._matches(node, first, found)):
                        output = self._output_meta(matched)
                        if set(under) <= set(output):
                            events += self._make(node, output, matched)
        return events

    def _is_on(self, node: NodeDefinition, meta: Meta) -> bool:
        """Whether the sub-plates of ``node`` hold a stream with ``meta``."""
        parts = self._parts[node.name]
        return not parts or all(part.holds(dict(meta)) for part in parts)

    def _remember(self, name: str, meta: Meta, stream: StreamId) -> None:
        self._streams[name][meta] = stream
        for (node, plates), index in self._index.items():
            if node == name:
                index.setdefault(_project(meta, plates), []).append(meta)

    def _aggregate(self, node: NodeDefinition, stream: StreamId) -> list[Created | Joined]:
        over = self.workflow.over_in_order(node)
        values = dict(stream.meta)
        key = "/".join(values[plate] for plate in over)
        if not self._is_on(node, stream.meta) or (isinstance(node.tool, SelectorTool) and not node.tool.selects(key)):
            return []
        target = tuple(pair for pair in stream.meta if pair[0] not in over)
        existing = self._streams[node.name].get(target)
        if existing is not None:
            return [Joined(node.name, existing, stream, key)]
        events = self._add(node.name, target, (stream,))
        first = events[0]
        assert isinstance(first, Created)
        return [Created(first.node, first.stream, first.inputs, (key,)), *events[1:]]

    def _matches(self, node: NodeDefinition, name: str, meta: Meta) -> Iterator[tuple[StreamId, ...]]:
        """Every choice of one stream per input that agrees with ``name[meta]`` in its place."""
        partial: list[tuple[tuple[StreamId, ...], dict[str, str]]] = [((), dict(meta))]
        for other in node.inputs:
            extended = []
            for chosen, values in partial:
                if other == name:
                    extended.append(((*chosen, StreamId(name, meta)), values))
                    continue
                shared = tuple(plate for plate in sorted(self.workflow.node_plates[other]) if plate in values)
                wanted = tuple((plate, values[plate]) for plate in shared)
                extended += [
                    ((*chosen, StreamId(other, found)), {**values, **dict(found)})
                    for found in self._lookup(other, shared).get(wanted, ())
                ]
            partial = extended
        return (chosen for chosen, _ in partial)

    def _lookup(self, node: str, plates: tuple[str, ...]) -> dict[Meta, list[Meta]]:
        index = self._index.get((node, plates))
        if index is None:
            index = self._index[node, plates] = {}
            for meta in self._streams[node]:
                index.setdefault(_project(meta, plates), []).append(meta)
        return index

    @staticmethod
    def _output_meta(inputs: tuple[StreamId, ...]) -> Meta:
        values: dict[str, str] = {}
        for stream in inputs:
            values.update(stream.meta)
        return tuple(sorted(values.items()))


def _project(meta: Meta, plates: tuple[str, ...]) -> Meta:
    return tuple(pair for pair in meta if pair[0] in plates)
