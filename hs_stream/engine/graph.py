"""The streams of all running workflows, by id and name, and how they come to be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from hs_stream.core.affected import required
from hs_stream.core.ground import Created, Ground, Joined
from hs_stream.core.stream import StreamId
from hs_stream.core.time import EVERYTHING, MAX_TIME, MIN_TIME, TimeIntervals
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.ports import StreamRecord
from hs_stream.engine.streams import Stream
from hs_stream.engine.tail import Tail

__all__ = ["Graph"]


class Graph:
    """Every stream by id and name."""

    def __init__(self, records: Iterable[StreamRecord] = (), *, restrict_to_major: bool = False) -> None:
        self.records = {record.stream: record for record in records}
        self.streams: dict[StreamId, Stream] = {}
        self.by_id: dict[int, Stream] = {}
        self.grounds: dict[str, Ground] = {}
        self.sources: dict[str, list[Ground]] = {}
        self._next_id = max((record.id for record in self.records.values()), default=0) + 1
        self._restrict_to_major = restrict_to_major
        self._joined: list[tuple[Stream, int]] = []

    def add_workflow(self, workflow: WorkflowDefinition) -> list[Stream]:
        """Ground ``workflow`` over the raw streams on record; returns its streams, inputs before outputs."""
        if workflow.name in self.grounds:
            raise workflow.error("workflow", f"there are two workflows named {workflow.name}", "rename one of them")
        for name, other in self.grounds.items():
            self._check_shared(workflow, name, other.workflow)
        ground = self.grounds[workflow.name] = Ground(workflow)
        fresh = self._apply(workflow, ground.sourceless())
        for name in workflow.sources:
            self.sources.setdefault(name, []).append(ground)
        for record in sorted(self.records.values(), key=lambda record: record.id):
            source = workflow.sources.get(record.stream.name)
            if record.kind == "raw" and source is not None:
                plates = workflow.node_plates[source.name]
                if {key for key, _ in record.stream.meta} == set(plates):
                    fresh += self._apply(workflow, ground.bind(source.name, record.stream.meta))
        return fresh

    def bind(self, source: str, meta: tuple[tuple[str, str], ...]) -> list[Stream]:
        """New streams that a raw stream brings, in every workflow that reads it, inputs before outputs.

        Raises `hs_stream.core.plate.PlateFull`.
        """
        fresh: list[Stream] = []
        for ground in self.sources.get(source, ()):
            fresh += self._apply(ground.workflow, ground.bind(source, meta))
        return fresh

    def grow(self, stream: Stream, value: str) -> list[Stream]:
        """New streams that come of ``stream``, the source of a plate, saying that there is ``value``.

        Raises `hs_stream.core.plate.PlateFull`, and ``ValueError`` for what is no plate value.
        """
        fresh: list[Stream] = []
        for ground in self.grounds.values():
            if stream.node in ground.workflow.nodes:
                fresh += self._apply(ground.workflow, ground.grow(stream.node, stream.stream.meta, value))
        return fresh

    def growing(self) -> list[Stream]:
        """The streams that are sources of plates."""
        return [stream for stream in self.streams.values() if stream.grows]

    def joined(self) -> list[Stream]:
        """The aggregates that have new inputs since the last call: their coverage holds for the others only."""
        found, self._joined = self._joined, []
        for stream, slot in found:
            stream.joined.add(slot)
        return [stream for stream, _ in found]

    def adopt(self, stream: StreamId) -> Stream:
        """A raw stream that no workflow reads (an import)."""
        known = self.streams.get(stream)
        return known if known is not None else self._make(stream, "raw", self.records.get(stream))

    def _check_shared(self, workflow: WorkflowDefinition, name: str, other: WorkflowDefinition) -> None:
        for node in {*workflow.sources, *workflow.nodes} & {*other.sources, *other.nodes}:
            if workflow.fingerprints[node] != other.fingerprints[node]:
                place = "sources" if node in workflow.sources else "nodes"
                raise workflow.error(
                    f"{place}.{node}",
                    f"{node} is also defined by workflow {name}, differently; names of streams are global",
                    "rename one of them, or make both definitions equal to share the stream",
                )

    def _apply(self, workflow: WorkflowDefinition, events: Sequence[Created | Joined]) -> list[Stream]:
        fresh: list[Stream] = []
        for event in events:
            if isinstance(event, Joined):
                stream, source = self.streams[event.stream], self.streams[event.input]
                if source not in stream.inputs:
                    self._joined.append((stream, stream.attach(source, event.key)))
                continue
            existing = self.streams.get(event.stream)
            if existing is not None:
                self._share(existing, workflow, event)
                continue
            fresh.append(self._create(workflow, event))
        return fresh

    def _share(self, stream: Stream, workflow: WorkflowDefinition, event: Created) -> None:
        if workflow.online and stream.kind == "derived":
            stream.demand |= _online(workflow)
        node = workflow.nodes.get(event.node)
        if node is not None and node.publish is not None and stream.publish is None:
            stream.publish, stream.workflow = node.publish, workflow.name

    def _create(self, workflow: WorkflowDefinition, event: Created) -> Stream:
        raw = event.node in workflow.sources
        record = self.records.get(event.stream)
        stream = self._make(event.stream, "raw" if raw else "derived", record)
        stream.workflow = workflow.name
        stream.node = event.node
        stream.plates = workflow.node_plates[event.node]
        stream.fingerprint = workflow.fingerprints[event.node]
        if raw:
            return stream
        node = workflow.nodes[event.node]
        stream.tool = node.tool.bound_to(dict(event.stream.meta), node.into)
        stream.grows = any(plate.source == node.name for plate in workflow.plates.values())
        stream.publish = node.publish
        stream.connect([self.streams[source] for source in event.inputs], event.keys)
        stream.rank = 1 + max((source.rank for source in stream.inputs), default=0)
        if workflow.online:
            stream.demand = _online(workflow)
        if record is not None:
            if self._unchanged(record.fingerprint, stream.fingerprint):
                stream.coverage = record.coverage
                if record.upper is not None:
                    # Of what is always wanted, everything up to there was computed once.
                    stream.stale = (stream.demand & TimeIntervals.of(MIN_TIME, record.upper)) - record.coverage
            else:
                stream.stale = record.coverage
            stream.pending_inputs = None
        return stream

    def _unchanged(self, stored: str, current: str) -> bool:
        if self._restrict_to_major:
            return stored.partition(".")[0] == current.partition(".")[0]
        return stored == current

    def _make(self, stream: StreamId, kind: Literal["raw", "derived"], record: StreamRecord | None) -> Stream:
        identity = self._next_id if record is None else record.id
        self._next_id += record is None
        made = Stream(identity, stream, kind)
        if record is not None:
            made.tail = Tail(low=MAX_TIME)
            last = MIN_TIME if record.upper is None else record.upper
            if kind == "raw":
                made.upper = last
            made.frontier = last
        self.streams[stream] = made
        self.by_id[identity] = made
        return made

    def widen_demand(self, fresh: Iterable[Stream]) -> None:
        """Widen the demand on every ancestor of ``fresh`` to what its consumers' supports read of it."""
        stack = [stream for stream in fresh if stream.demand and stream.demand != EVERYTHING]
        while stack:
            stream = stack.pop()
            for slot, source in enumerate(stream.inputs):
                wider = source.demand | required(stream.support(slot), stream.demand)
                if source.kind == "derived" and wider != source.demand:
                    source.demand = wider
                    stack.append(source)


def _online(workflow: WorkflowDefinition) -> TimeIntervals:
    return TimeIntervals.of(MIN_TIME if workflow.start is None else workflow.start, MAX_TIME)
