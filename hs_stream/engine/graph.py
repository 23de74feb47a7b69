"""The streams of all running workflows, by id and name, how they come to be, and what is wanted of each.

What is wanted of a stream is wanted of its inputs too, as far as its supports read them. That holds at any time: a
stream that is new, one more input of an aggregate, a wider demand and a request each hand on what they want at once,
input by input. So it costs nothing later, and does not depend on who came first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from hs_stream.core.affected import required
from hs_stream.core.errors import NotFound
from hs_stream.core.ground import Created, Ground, Joined
from hs_stream.core.stream import SUGGESTED, StreamId, nearest_streams, suggestion
from hs_stream.core.time import EMPTY, EVERYTHING, MAX_TIME, MIN_TIME, TimeIntervals
from hs_stream.core.workflow import WorkflowDefinition, check_shared
from hs_stream.engine.ports import StreamRecord
from hs_stream.plan.streams import Stream
from hs_stream.plan.tail import Room, Tail

__all__ = ["Graph"]


class Graph:
    """Every stream by id and name."""

    def __init__(
        self,
        records: Iterable[StreamRecord] = (),
        *,
        restrict_to_major: bool = False,
        tails: Room | None = None,
    ) -> None:
        self.tails = Room() if tails is None else tails
        self.records = {record.stream: record for record in records}
        self.streams: dict[StreamId, Stream] = {}
        self.by_id: dict[int, Stream] = {}
        self.grounds: dict[str, Ground] = {}
        self.sources: dict[str, list[Ground]] = {}
        self._next_id = max((record.id for record in self.records.values()), default=0) + 1
        self._restrict_to_major = restrict_to_major
        self._joined: list[tuple[Stream, int]] = []
        self._widened: list[Stream] = []
        self._requested: dict[int, dict[int, Stream]] = {}

    def add_workflow(self, workflow: WorkflowDefinition) -> list[Stream]:
        """Ground ``workflow`` over the raw streams on record; returns what is new, inputs before outputs.

        What another workflow defines equally is one stream, computed once. `ConfigurationError` where they differ.
        """
        if workflow.name in self.grounds:
            raise workflow.error("workflow", f"there are two workflows named {workflow.name}", "rename one of them")
        for other in self.grounds.values():
            check_shared(workflow, other.workflow)
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
        grounds = self.sources.get(source, ())
        for ground in grounds:
            ground.check(source, meta)
        return [stream for one in grounds for stream in self._apply(one.workflow, one.bind(source, meta))]

    def grow(self, stream: Stream, value: str, *, stored: bool = False) -> list[Stream]:
        """New streams that come of ``stream``, the source of a plate, saying that there is ``value``.

        ``stored``: see `hs_stream.core.ground.Ground.grow`. Raises `hs_stream.core.plate.PlateFull`, and ``ValueError``
        for what is no plate value.
        """
        node, meta = stream.node, stream.stream.meta
        grounds = [ground for ground in self.grounds.values() if node in ground.workflow.nodes]
        for ground in grounds:
            ground.growth(node, meta, value, stored=stored)
        return [
            fresh for one in grounds for fresh in self._apply(one.workflow, one.grow(node, meta, value, stored=stored))
        ]

    def find(self, stream: StreamId) -> Stream:
        """The stream of this name and plate values. Raises `NotFound`."""
        found = self.streams.get(stream)
        if found is None:
            # One that never had a value is of no use to who looks for values.
            known = (other for other, one in self.streams.items() if one.state.frontier > MIN_TIME)
            hint = suggestion(stream, nearest_streams(stream, known, SUGGESTED))
            raise NotFound(f"there is no stream {stream}", hint=hint or "hs-stream streams lists those there are")
        return found

    def find_id(self, identity: int) -> Stream:
        """The stream with this id. Raises `NotFound`."""
        found = self.by_id.get(identity)
        if found is None:
            raise NotFound(f"there is no stream with the id {identity}", hint="see /api/streams, or hs-stream streams")
        return found

    def growing(self) -> list[Stream]:
        """The streams that are sources of plates."""
        return [stream for stream in self.streams.values() if stream.grows]

    def remember(self, records: Iterable[StreamRecord]) -> None:
        """What is on record by now, of streams that no workflow has."""
        self.records |= {record.stream: record for record in records}

    def readers(self, stream: Stream) -> list[str]:
        """The workflows that have this raw stream."""
        return [ground.workflow.name for ground in self.sources.get(stream.node, ())]

    def disturbed(self) -> list[Stream]:
        """Since the last call: aggregates with new inputs (they cover the others only), and what is wanted more of."""
        found, self._joined = self._joined, []
        widened, self._widened = self._widened, []
        for stream, slot in found:
            stream.agenda.join(slot)
        return [*(stream for stream, _ in found), *widened]

    def forgets(self, workflow: str) -> bool:
        """Whether something of ``workflow`` is final by retention already: then it keeps beginning where it began."""
        definition = self.grounds[workflow].workflow
        names = {*definition.sources, *definition.nodes}
        return any(stream.limit > MIN_TIME and stream.node in names for stream in self.streams.values())

    def adopt(self, stream: StreamId) -> Stream:
        """A raw stream that no workflow reads (an import)."""
        known = self.streams.get(stream)
        return known if known is not None else self._make(stream, "raw", self.records.get(stream))

    def _apply(self, workflow: WorkflowDefinition, events: Sequence[Created | Joined]) -> list[Stream]:
        fresh: list[Stream] = []
        for event in events:
            if isinstance(event, Joined):
                stream, source = self.streams[event.stream], self.streams[event.input]
                if all(child is not stream for child, _ in source.children):
                    slot = stream.attach(source, event.key)
                    self._joined.append((stream, slot))
                    self._want_inputs([(stream, slot)])
                    for token, wanted in stream.requests.items():
                        wider, _ = self.request([source], required(stream.support(slot), wanted), token)
                        self._widened += wider
                continue
            existing = self.streams.get(event.stream)
            if existing is not None:
                existing.share(workflow, event.node)
            else:
                existing = self._create(workflow, event)
                fresh.append(existing)
            self._want_inputs([(existing, slot) for slot in range(len(existing.inputs))])
        return fresh

    def _create(self, workflow: WorkflowDefinition, event: Created) -> Stream:
        raw = event.node in workflow.sources
        record = self.records.get(event.stream)
        stream = self._make(event.stream, "raw" if raw else "derived", record)
        stream.define(workflow, event.node)
        if raw:
            return stream
        stream.connect([self.streams[source] for source in event.inputs], event.keys)
        stream.share(workflow, event.node)
        if not stream.inputs:
            stream.begin_at(workflow.begin)
        if record is None:
            stream.begin_anew()
            return stream
        if self._unchanged(record.fingerprint, stream.fingerprint):
            stream.resume(record)
        else:
            stream.begin_anew(stale=record.coverage)
        stream.agenda.forget_inputs()
        return stream

    def _unchanged(self, stored: str, current: str) -> bool:
        if self._restrict_to_major:
            return stored.partition(".")[0] == current.partition(".")[0]
        return stored == current

    def _make(self, stream: StreamId, kind: Literal["raw", "derived"], record: StreamRecord | None) -> Stream:
        identity = self._next_id if record is None else record.id
        self._next_id += record is None
        tail = Tail(MIN_TIME if record is None else MAX_TIME, room=self.tails)
        made = Stream(identity, stream, kind, tail)
        if record is not None:
            made.recall(record)
        self.streams[stream] = made
        self.by_id[identity] = made
        return made

    def _want_inputs(self, edges: list[tuple[Stream, int]]) -> None:
        """Hand on what is always wanted of these streams to these inputs, and from there to all before them."""
        while edges:
            stream, slot = edges.pop()
            source = stream.inputs[slot]
            if source.kind == "raw" or not stream.demand or source.demand == EVERYTHING:
                continue
            wider = source.demand | required(stream.support(slot), stream.demand)
            if wider != source.demand:
                source.want(wider)
                self._widened.append(source)
                edges += [(source, index) for index in range(len(source.inputs))]

    def request(self, targets: Sequence[Stream], window: TimeIntervals, token: int) -> tuple[Collection[Stream], int]:
        """Want ``window`` of ``targets``, and all that it reads, until `release`. An input that joins takes part too.

        Returns the derived streams that take part, and the latest instant that is read.
        """
        involved: dict[int, Stream] = {}
        until = window.end
        stack = [(target, window) for target in targets]
        while stack:
            stream, wanted = stack.pop()
            until = max(until, wanted.end)
            if stream.kind == "raw":
                continue
            known = stream.requests.get(token, EMPTY)
            if stream.id in involved and wanted in known:
                continue
            stream.requests[token] = known | wanted
            involved[stream.id] = stream
            for slot, source in enumerate(stream.inputs):
                stack.append((source, required(stream.support(slot), wanted)))
        self._requested.setdefault(token, {}).update(involved)
        return involved.values(), until

    def requested(self, token: int) -> Collection[Stream]:
        """The derived streams that take part in a request by now."""
        return self._requested[token].values()

    def release(self, token: int) -> None:
        """Undo every `request` with this ``token``."""
        for stream in self._requested.pop(token, {}).values():
            del stream.requests[token]
