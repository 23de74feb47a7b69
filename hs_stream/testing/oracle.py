"""From scratch: what every derived stream must hold, computed from raw contents alone, and compared with the store.

The oracle shares nothing with the executor but the tools and the grounding: it reads raw streams, evaluates every node
once over one interval, and knows no tail, coverage, snapshot or order of arrival. It is behind ``hs-stream verify``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from hs_stream.core.affected import available, required
from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.stream import StreamId, difference
from hs_stream.core.time import EMPTY, MAX_TIME, MIN_TIME, TimeInterval, TimeIntervals, format_time
from hs_stream.core.tool import FoldTool, Sources, Tool
from hs_stream.core.value import Value
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.clock import SystemClock
from hs_stream.engine.contents import Contents, PatientStore
from hs_stream.engine.evaluate import Evaluator
from hs_stream.engine.graph import Graph
from hs_stream.engine.growth import regrow
from hs_stream.engine.ports import Snapshot, Store, StreamRecord
from hs_stream.engine.streams import Stream
from hs_stream.engine.telemetry import Telemetry

__all__ = ["ABSENT", "Mismatch", "Scratch", "Verification", "verify"]

_MOST_MISMATCHES: Final = 20


class _Absent:
    def __repr__(self) -> str:
        return "nothing"


ABSENT: Final = _Absent()
"""In a `Mismatch`: there is no instance."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """At ``time``, ``stored`` is not ``expected``; either may be `ABSENT`."""

    stream: StreamId
    time: int
    stored: Value
    expected: Value

    def __str__(self) -> str:
        return f"{self.stream} at {format_time(self.time)}: stored {self.stored!r}, from scratch {self.expected!r}"


@dataclass(slots=True)
class Verification:
    """What was compared. ``not_computed``: parts of the asked interval that are not covered in the store.

    ``owed``: parts of those that an evaluation from scratch can compute (nothing before them fails).
    """

    streams: int = 0
    instances: int = 0
    count: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)
    not_computed: dict[StreamId, TimeIntervals] = field(default_factory=dict)
    owed: dict[StreamId, TimeIntervals] = field(default_factory=dict)
    not_computable: dict[StreamId, str] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether everything that is stored and covered is as it must be."""
        return self.count == 0


class Scratch:
    """Evaluates a grounded workflow from raw contents over ``(start, end]``."""

    def __init__(self, store: Store, graph: Graph, start: int, end: int) -> None:
        self._store = store
        self._graph = graph
        self._window = TimeIntervals.of(start, end)
        patient = PatientStore(store, SystemClock(), Telemetry())
        patient.give_up()
        self._evaluator = Evaluator(Contents(patient), Telemetry())
        self.contents: dict[int, Batch] = {}
        self.known: dict[int, TimeIntervals] = {}
        self.errors: dict[int, str] = {}

    async def run(self) -> None:
        """Fill ``contents``, and ``known`` with where they hold, for every stream."""
        streams = sorted(self._graph.streams.values(), key=lambda stream: (stream.rank, stream.id))
        needed = {stream.id: self._window for stream in streams}
        for stream in reversed(streams):
            for slot, source in enumerate(stream.inputs):
                needed[source.id] |= required(stream.support(slot), needed[stream.id])
        begins = await self._begins(streams)
        for stream in streams:
            span = needed[stream.id].span()
            if stream.kind == "raw":
                batch = await self._store.read(stream.id, max(span.start, stream.floor), span.end)
                self.contents[stream.id], self.known[stream.id] = batch, TimeIntervals.of(MIN_TIME, MAX_TIME)
            else:
                await self._trust(stream, span.start, span.end)
                self._evaluate(stream, max(span.start, final(stream)), span.end, begins)

    async def _trust(self, stream: Stream, start: int, end: int) -> None:
        """What cannot be computed again is what is stored, and so is the state of a fold there."""
        until = min(end, final(stream))
        stored = NOTHING
        if start < until:
            stored = (await self._store.read(stream.id, max(start, stream.floor), until)).within(stream.coverage.pairs)
        self.contents[stream.id] = stored
        self.known[stream.id] = stream.coverage & TimeIntervals.of(MIN_TIME, until)
        if isinstance(stream.tool, FoldTool) and stream.line > MIN_TIME:
            state = await self._store.snapshot(stream.id, until)
            stream.tool = cast(Tool, _Resumed(stream.tool, state, stream.inputs[0].floor))

    def _evaluate(self, stream: Stream, start: int, end: int, begins: dict[str, int]) -> None:
        if start >= end:
            return
        if not stream.inputs:
            begin = begins.get(stream.workflow, end) if stream.begin is None else stream.begin
            start = max(start, begin)
            if start >= end:
                self.known[stream.id] = TimeIntervals.of(MIN_TIME, end)
                return
        sources = Sources(
            [self.contents[stream.inputs[slot].id] for slot in stream.order],
            [stream.keys[slot] for slot in stream.order] if stream.aggregate else (),
        )
        result = self._evaluator.evaluate(stream, start, end, sources)
        known = EMPTY
        for slot, source in enumerate(stream.inputs):
            may = available(stream.support(slot), self.known[source.id])
            known = may if slot == 0 else known & may
        done = TimeIntervals((first, last) for first, last, _ in result.done)
        self.known[stream.id] |= (done & known) if stream.inputs else (done | TimeIntervals.of(MIN_TIME, start))
        self.contents[stream.id] = Batch.concat([self.contents[stream.id], *(batch for _, _, batch in result.done)])
        if result.failed:
            self.errors[stream.id] = result.error

    async def _begins(self, streams: Sequence[Stream]) -> dict[str, int]:
        wanted = {stream.workflow for stream in streams if stream.kind == "derived" and not stream.inputs}
        # Where readings are forgotten, the results of streams without inputs still say where it began.
        kept = {name for name in wanted if self._graph.forgets(name)}
        begins: dict[str, int] = {}
        for stream in streams:
            if stream.kind == "raw":
                names = (wanted - kept).intersection(self._graph.readers(stream))
            else:
                names = set() if stream.inputs or stream.begin is not None else kept & {stream.workflow}
            if names:
                first = await self._store.read(stream.id, MIN_TIME, MAX_TIME, limit=1)
                if first:
                    begins |= {name: min(begins.get(name, MAX_TIME), first.first_time - 1) for name in names}
        return begins


def final(stream: Stream) -> int:
    """Up to where ``stream`` is not computed any more, since what it reads, or itself, may be forgotten.

    One that begins with its workflow's start may have begun elsewhere, and kept what others read of it.
    """
    return max(stream.floor, stream.line, MIN_TIME if stream.begin is None else stream.limit)


class _Resumed:
    """A fold that goes on from a stored state, or from where its input begins."""

    def __init__(self, tool: FoldTool, snapshot: Snapshot | None, begin: int) -> None:
        self._tool = tool
        self._at = begin if snapshot is None else snapshot.time
        self._state = tool.initial() if snapshot is None else snapshot.state

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tool, name)

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        source = sources[0].slice(self._at, interval.end)
        _, result = self._tool.run_over(self._state, source, self._at, interval.end)
        return result.slice(interval.start, interval.end)


async def verify(
    store: Store,
    workflows: Sequence[WorkflowDefinition],
    start: int,
    end: int,
    *,
    records: Sequence[StreamRecord] | None = None,
) -> Verification:
    """Compare every derived stream of ``workflows`` in ``(start, end]`` with a from-scratch evaluation.

    Only what is covered in the store counts; the rest is reported as not computed. Bit for bit. Where readings are
    forgotten, what was computed from them before is taken as it is stored, and only what lies behind is compared.
    ``records`` replaces the store's own (an engine that runs knows more than its store's last checkpoint).
    """
    records = await store.streams() if records is None else records
    graph = Graph(records)
    for workflow in workflows:
        graph.add_workflow(workflow)
    await regrow(graph, store)
    scratch = Scratch(store, graph, start, end)
    await scratch.run()
    result = Verification()
    by_stream = {record.stream: record for record in records}
    window = TimeIntervals.of(start, end)
    for stream in graph.streams.values():
        record = by_stream.get(stream.stream)
        if stream.kind == "raw" or record is None:
            continue
        result.streams += 1
        if stream.id in scratch.errors:
            result.not_computable[stream.stream] = scratch.errors[stream.id]
        old = TimeIntervals.of(MIN_TIME, final(stream))
        coverage = ((stream.coverage & window) & scratch.known[stream.id]) - old
        missing = (window & stream.demand) - stream.coverage - old
        if missing:
            result.not_computed[stream.stream] = missing
            if owed := missing & scratch.known[stream.id]:
                result.owed[stream.stream] = owed
        for low, high in coverage.pairs:
            stored = await store.read(record.id, low, high)
            _compare(result, stream.stream, stored, scratch.contents[stream.id].slice(low, high))
    return result


def _compare(result: Verification, stream: StreamId, stored: Batch, expected: Batch) -> None:
    result.instances += len(expected)
    found = difference(stored, expected)
    if not found:
        return
    result.count += len(found)
    before, after = dict(stored), dict(expected)
    for time in found.times():
        if len(result.mismatches) >= _MOST_MISMATCHES:
            return
        result.mismatches.append(Mismatch(stream, time, before.get(time, ABSENT), after.get(time, ABSENT)))
