"""From scratch: what every derived stream must hold, computed from raw contents alone, and compared with the store.

The oracle shares nothing with the executor but the tools and the grounding: it reads raw streams, evaluates every node
once over one interval, and knows no tail, coverage, snapshot or order of arrival. It is behind ``hs-stream verify``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from hs_stream.core.affected import available, required
from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.stream import StreamId, difference
from hs_stream.core.time import EMPTY, MAX_TIME, MIN_TIME, TimeIntervals, format_time
from hs_stream.core.tool import Sources
from hs_stream.core.value import Value
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.clock import SystemClock
from hs_stream.engine.contents import Contents, PatientStore
from hs_stream.engine.evaluate import Evaluator
from hs_stream.engine.graph import Graph
from hs_stream.engine.growth import regrow
from hs_stream.engine.ports import Store, StreamRecord
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
                self.contents[stream.id] = await self._store.read(stream.id, span.start, span.end)
                self.known[stream.id] = TimeIntervals.of(MIN_TIME, MAX_TIME)
            else:
                self._evaluate(stream, span.start, span.end, begins)

    def _evaluate(self, stream: Stream, start: int, end: int, begins: dict[str, int]) -> None:
        if not stream.inputs:
            begin = begins.get(stream.workflow, end) if stream.begin is None else stream.begin
            start = max(start, begin)
            if start >= end:
                self.contents[stream.id], self.known[stream.id] = NOTHING, TimeIntervals.of(MIN_TIME, end)
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
        self.known[stream.id] = (done & known) if stream.inputs else (done | TimeIntervals.of(MIN_TIME, start))
        self.contents[stream.id] = Batch.concat([batch for _, _, batch in result.done])
        if result.failed:
            self.errors[stream.id] = result.error

    async def _begins(self, streams: Sequence[Stream]) -> dict[str, int]:
        wanted = {stream.workflow for stream in streams if stream.kind == "derived" and not stream.inputs}
        begins: dict[str, int] = {}
        for stream in streams:
            if stream.kind == "raw" and (readers := wanted.intersection(self._graph.readers(stream))):
                first = await self._store.read(stream.id, MIN_TIME, MAX_TIME, limit=1)
                if first:
                    begins |= {name: min(begins.get(name, MAX_TIME), first.first_time - 1) for name in readers}
        return begins


async def verify(
    store: Store,
    workflows: Sequence[WorkflowDefinition],
    start: int,
    end: int,
    *,
    records: Sequence[StreamRecord] | None = None,
) -> Verification:
    """Compare every derived stream of ``workflows`` in ``(start, end]`` with a from-scratch evaluation.

    Only what is covered in the store counts; the rest is reported as not computed. Bit for bit. ``records`` replaces
    the store's own (an engine that runs knows more than its store's last checkpoint).
    """
    records = await store.streams() if records is None else records
    graph = Graph(records)
    for workflow in workflows:
        graph.add_workflow(workflow)
    await regrow(graph, store)
    graph.widen_demand(list(graph.streams.values()))
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
        coverage = (stream.coverage & window) & scratch.known[stream.id]
        missing = (window & stream.demand) - stream.coverage
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
