"""From scratch: what every derived stream must hold, computed from raw contents alone, and compared with the store.

The oracle shares nothing with the executor but the tools and the grounding: it reads raw streams, evaluates every node
once over one interval, and knows no tail, coverage, snapshot or order of arrival. It is behind ``hs-stream verify``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from hs_stream.core.affected import available, required
from hs_stream.core.attempt import Walk, attempt
from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.stream import StreamId, difference
from hs_stream.core.time import EMPTY, MAX_TIME, MIN_TIME, TimeIntervals, format_time
from hs_stream.core.tool import FoldTool, Sources
from hs_stream.core.value import Value
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.graph import Graph
from hs_stream.engine.growth import regrow
from hs_stream.engine.ports import Store, StreamRecord
from hs_stream.engine.streams import Stream

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

    ``owed``: parts of those that an evaluation from scratch can compute. ``failed``: where the tool raises then; the
    first error of a stream is in ``not_computable``.
    """

    streams: int = 0
    instances: int = 0
    count: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)
    not_computed: dict[StreamId, TimeIntervals] = field(default_factory=dict)
    owed: dict[StreamId, TimeIntervals] = field(default_factory=dict)
    failed: dict[StreamId, TimeIntervals] = field(default_factory=dict)
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
        self._states: dict[int, tuple[int, Value]] = {}
        self.contents: dict[int, Batch] = {}
        self.known: dict[int, TimeIntervals] = {}
        self.failed: dict[int, TimeIntervals] = {}
        self.errors: dict[int, str] = {}

    async def run(self) -> None:
        """Fill ``contents``, and ``known`` with where they hold, for every stream; ``failed`` is where a tool raises.

        What failed is known: nothing came of it.
        """
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
            found = await self._store.snapshot(stream.id, until)
            begin = stream.inputs[0].floor, stream.tool.initial()
            self._states[stream.id] = begin if found is None else (found.time, found.state)

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
        results, failed, error = self._results(stream, start, end, sources)
        known = EMPTY
        for slot, source in enumerate(stream.inputs):
            may = available(stream.support(slot), self.known[source.id])
            known = may if slot == 0 else known & may
        self.known[stream.id] |= (
            known & TimeIntervals.of(start, end) if stream.inputs else TimeIntervals.of(MIN_TIME, end)
        )
        self.contents[stream.id] = Batch.concat([self.contents[stream.id], results])
        if failed:
            self.failed[stream.id], self.errors[stream.id] = failed, error

    def _results(self, stream: Stream, start: int, end: int, sources: Sources) -> tuple[Batch, TimeIntervals, str]:
        tool = stream.tool
        assert tool is not None
        if not isinstance(tool, FoldTool):
            found = attempt(tool, start, end, sources)
            return found.results, TimeIntervals.points(found.failed), found.error
        at, state = self._states.get(stream.id) or (MIN_TIME, tool.initial())
        walk = Walk(tool, state, at)
        walk.through(sources[0].slice(at, end), end)
        return walk.results.slice(start, end), walk.spans() & TimeIntervals.of(start, end), walk.error

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
            failed = scratch.failed.get(stream.id, EMPTY)
            if owed := (missing & scratch.known[stream.id]) - failed:
                result.owed[stream.stream] = owed
            if failed := (failed & window & stream.demand) - old:
                result.failed[stream.stream] = failed
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
