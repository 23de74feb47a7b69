"""The streams of all running workflows and their connections, in memory.

1. A `Stream` is the engine's whole knowledge of one stream: what is computed, its tail, its fold state, what is owed.
2. ``explicit`` coverage is what was evaluated (and is stored). While nothing is owed, silence proves more: up to
   ``min(due - 1, horizon - ahead)`` there is certainly nothing (`Stream.covered`). So an idle stream costs nothing.
3. ``due`` is the earliest instant behind the coverage at which there may be an output; ``None`` when there is none.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from hs_stream.core.affected import required
from hs_stream.core.errors import ConfigurationError
from hs_stream.core.ground import Created, Ground, Joined
from hs_stream.core.stream import StreamId
from hs_stream.core.time import EMPTY, EVERYTHING, MAX_TIME, MIN_TIME, TimeIntervals, shift
from hs_stream.core.tool import (
    AggregateTool,
    FoldTool,
    FromInput,
    FromUnion,
    OnGrid,
    Previous,
    Support,
    Tool,
    Window,
)
from hs_stream.core.value import Value
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.ports import StreamRecord, ToolRecord
from hs_stream.engine.tail import Tail

__all__ = ["Graph", "Head", "Stream"]


class Head(NamedTuple):
    """``state`` is a fold's state behind all input instances at or before any instant of ``since`` to ``until``."""

    since: int
    until: int
    state: Value


class Stream:
    """One stream of a running workflow. See the module's rules."""

    __slots__ = (
        "aggregate",
        "ahead",
        "children",
        "coverage",
        "demand",
        "drive",
        "due",
        "error",
        "failed",
        "fingerprint",
        "fold",
        "fold_count",
        "frontier",
        "id",
        "inputs",
        "keys",
        "kind",
        "lookaheads",
        "node",
        "order",
        "owed",
        "pending_inputs",
        "plates",
        "publish",
        "published_until",
        "rank",
        "requests",
        "settled",
        "stream",
        "supports",
        "tail",
        "tool",
        "upper",
        "waiting",
        "workflow",
    )

    def __init__(self, identity: int, stream: StreamId, kind: Literal["raw", "derived"]) -> None:
        self.id = identity
        self.stream = stream
        self.kind = kind
        self.workflow = ""
        self.node = stream.name
        self.plates: tuple[str, ...] = ()
        self.rank = 0
        self.tool: Tool | None = None
        self.drive: FromInput | FromUnion | OnGrid | None = None
        self.supports: list[Support] = []
        self.lookaheads: list[int] = []
        self.aggregate = False
        self.inputs: list[Stream] = []
        self.keys: list[str] = []
        self.order: list[int] = []
        """Slots by key: results never depend on the order in which inputs joined."""
        self.children: list[tuple[Stream, int]] = []
        self.ahead = 0
        self.fingerprint = ""
        self.publish: Mapping[str, Any] | None = None

        self.coverage = EMPTY
        self.upper = MIN_TIME
        """Of a raw stream: its watermark without what silence adds."""
        self.frontier = MIN_TIME
        """No instance, not even a retracted one, was ever stored behind it."""
        self.demand = EMPTY
        self.requests: dict[int, TimeIntervals] = {}
        self.owed = EMPTY
        self.settled = False
        self.failed = EMPTY
        self.error = ""
        self.due: int | None = None
        self.waiting = EMPTY
        """Changes of driving inputs behind the coverage: they become outputs once the other inputs allow."""
        self.pending_inputs: dict[int, TimeIntervals] | None = None
        """Of an aggregate: the same per input slot; ``None`` while unknown (every input must be looked at)."""
        self.tail = Tail()
        self.fold: Head | None = None
        self.fold_count = 0
        self.published_until = MIN_TIME

    def __repr__(self) -> str:
        return f"<{self.stream} #{self.id}>"

    @property
    def name(self) -> str:
        """The text of the stream id."""
        return str(self.stream)

    def support(self, slot: int) -> Support:
        """How this stream reads its input ``slot``."""
        return self.supports[0 if self.aggregate else slot]

    def end(self) -> int:
        """The end of the explicit coverage; `MIN_TIME` when nothing is computed."""
        pairs = self.coverage.pairs
        return pairs[-1][1] if pairs else MIN_TIME

    def reach(self, horizon: int) -> int:
        """The end of what is known, silence included."""
        if self.kind == "raw":
            return max(self.upper, horizon)
        end = self.end()
        if not self.settled or end >= MAX_TIME:
            return end
        quiet = shift(horizon, -self.ahead)
        if self.due is not None and self.due - 1 < quiet:
            quiet = self.due - 1
        return max(end, quiet)

    def covered(self, horizon: int) -> TimeIntervals:
        """What is known, silence included (rule 2)."""
        if self.kind == "raw":
            return TimeIntervals.of(MIN_TIME, max(self.upper, horizon))
        reach = self.reach(horizon)
        pairs = self.coverage.pairs
        if not pairs or reach <= pairs[-1][1]:
            return self.coverage
        return self.coverage | TimeIntervals.of(pairs[-1][1], reach)

    def wanted(self) -> TimeIntervals:
        """Demand: online, and what is asked for right now."""
        wanted = self.demand
        for request in self.requests.values():
            wanted |= request
        return wanted

    def record(self) -> StreamRecord:
        """What the store keeps of it."""
        tool = None
        if self.tool is not None:
            tool = ToolRecord(self.tool.name, self.tool.version, _parameters(self.tool))
        last = self.upper if self.kind == "raw" else self.frontier
        return StreamRecord(
            self.id,
            self.stream,
            self.kind,
            self.workflow,
            tool,
            self.fingerprint,
            self.coverage if self.kind == "derived" else EMPTY,
            None if last <= MIN_TIME else last,
        )

    def connect(self, inputs: Sequence[Stream], keys: Sequence[str]) -> None:
        """Read from ``inputs``."""
        assert self.tool is not None
        self.aggregate = isinstance(self.tool, AggregateTool)
        self.drive = self.tool.drive()
        self.supports = [self.tool.support(slot) for slot in range(1 if self.aggregate else len(inputs))]
        if self.aggregate:
            self.pending_inputs = {}
        for index, source in enumerate(inputs):
            self.attach(source, keys[index] if keys else "")

    def attach(self, source: Stream, key: str) -> int:
        """One more input; returns its slot."""
        slot = len(self.inputs)
        self.inputs.append(source)
        self.keys.append(key)
        insort(self.order, slot, key=self.keys.__getitem__)
        source.children.append((self, slot))
        support = self.support(slot)
        lookahead = 0
        if isinstance(support, Window):
            lookahead = support.lookahead
            source.tail.need(support.lookback + support.lookahead, 1)
        elif isinstance(support, Previous):
            source.tail.need(0, support.n)
        self.lookaheads.append(lookahead)
        self.ahead = max(self.ahead, source.ahead + lookahead)
        return slot

    @property
    def is_fold(self) -> bool:
        """Whether the engine carries a state for it."""
        return isinstance(self.tool, FoldTool)


def _parameters(tool: Tool) -> dict[str, Any]:
    try:
        return tool.parameters()
    except ConfigurationError:
        return {"unsaved": repr(tool)}


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
                    stream.attach(source, event.key)
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
        stream.tool = node.tool
        stream.publish = node.publish
        stream.connect([self.streams[source] for source in event.inputs], event.keys)
        stream.rank = 1 + max((source.rank for source in stream.inputs), default=0)
        if workflow.online:
            stream.demand = _online(workflow)
        if record is not None:
            if self._unchanged(record.fingerprint, stream.fingerprint):
                stream.coverage = record.coverage
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
