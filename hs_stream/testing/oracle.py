"""From scratch: what every derived stream must hold, computed from raw contents alone, and compared with the store.

The oracle shares nothing with the executor but the tools and the grounding: it reads raw streams, evaluates every node
once over one interval, and knows no tail, coverage, snapshot or order of arrival. ``hs-stream verify`` uses it.

Two things can be wrong with what is stored. It *differs* where it is covered. Or something is *missing*: it is wanted,
its inputs are known up to their watermarks, and nobody has computed it. What is wanted the oracle works out by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Any, Final

from hs_stream.compute.run import run
from hs_stream.compute.task import Carried, Task
from hs_stream.core.affected import available, looks_on, required
from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.fold_states import INITIAL
from hs_stream.core.stream import StreamId, difference
from hs_stream.core.time import EMPTY, MAX_TIME, MIN_TIME, TimeIntervals, format_time, shift
from hs_stream.core.tool import FoldTool, OnGrid, Sources
from hs_stream.core.value import Value
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.graph import Graph
from hs_stream.engine.growth import regrow
from hs_stream.engine.ports import Store, StreamRecord
from hs_stream.plan.streams import Stream

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
    """What was compared.

    ``count`` differences where the store says that it is right, ``mismatches`` are the first of them. ``not_computed``:
    parts of the asked interval that are wanted and not covered. ``owed``: those of them that can be computed by now
    (the inputs are known, the tool does not raise). ``missing``: the times in ``owed`` at which the store is not as it
    would be from scratch. ``failed``: where the tool raises; the first error of a stream is in ``not_computable``.
    """

    streams: int = 0
    instances: int = 0
    count: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)
    not_computed: dict[StreamId, TimeIntervals] = field(default_factory=dict)
    owed: dict[StreamId, TimeIntervals] = field(default_factory=dict)
    missing: dict[StreamId, list[int]] = field(default_factory=dict)
    failed: dict[StreamId, TimeIntervals] = field(default_factory=dict)
    not_computable: dict[StreamId, str] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether everything that is covered is as it must be, and nothing that is wanted and computable is missing."""
        return not self.count and not self.missing


class Scratch:
    """Evaluates a grounded workflow from raw contents over ``(start, end]``.

    ``horizon`` is what silence has proven for every raw stream. So far the time of streams without inputs has come.
    ``as_computed``: who reads what comes next has heard of an instance of a derived stream once that is computed. A
    mean of rooms waits for the slowest of them, and until it is there, what looks on to it takes it that nothing comes.
    """

    def __init__(
        self, store: Store, graph: Graph, start: int, end: int, horizon: int = MIN_TIME, *, as_computed: bool = False
    ) -> None:
        self._horizon = horizon
        self._as_computed = as_computed
        self._store = store
        self._graph = graph
        # Later than all that anybody knows of there is nothing but the endless ticks of clocks.
        last = max(max((_last(stream) for stream in graph.streams.values()), default=MIN_TIME), horizon)
        self._window = TimeIntervals.of(start, max(min(end, last), start + 1))
        ahead = max((stream.ahead for stream in graph.streams.values()), default=0)
        self._last = shift(max(last, self._window.end), ahead)
        self._states: dict[int, tuple[int, Any]] = {}
        self.contents: dict[int, Batch] = {}
        self.known: dict[int, TimeIntervals] = {}
        self.settled: dict[int, TimeIntervals] = {}
        self.failed: dict[int, TimeIntervals] = {}
        self.errors: dict[int, str] = {}
        self._reach: dict[int, int] = {}

    async def run(self) -> None:
        """Fill, for every stream, ``contents``, and ``known`` with where they hold if no more readings come.

        ``settled`` is the part of it that an engine can compute by now: the watermarks are later than all that is read.
        ``failed`` is where a tool raises. What failed is known: nothing came of it.
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
                batch = await self._store.read(stream.id, max(span.start, stream.state.floor), span.end)
                self.contents[stream.id], self.known[stream.id] = batch, TimeIntervals.of(MIN_TIME, MAX_TIME)
                self._reach[stream.id] = max(stream.state.upper, self._horizon)
                self.settled[stream.id] = TimeIntervals.of(MIN_TIME, self._reach[stream.id])
            else:
                await self._trust(stream, span.start, span.end)
                self._evaluate(stream, max(span.start, final(stream)), span.end, begins)
                self._settle(stream, begins)

    def _settle(self, stream: Stream, begins: dict[str, int]) -> None:
        """Where ``stream`` can be computed by now: each input reaches so far, and what is looked ahead on the way."""
        settled = self.known[stream.id]
        for slot, source in enumerate(stream.inputs):
            settled &= available(stream.support(slot), self.settled[source.id])
        reach = min((self._reach[source.id] for source in stream.inputs), default=self._horizon)
        if not stream.inputs and stream.begin is None and stream.workflow not in begins:
            reach = MIN_TIME  # it begins with a reading, and there is none
        self._reach[stream.id] = reach
        self.settled[stream.id] = settled & TimeIntervals.of(MIN_TIME, shift(reach, -stream.ahead))

    async def _trust(self, stream: Stream, start: int, end: int) -> None:
        """What cannot be computed again is what is stored, and so is the state of a fold there."""
        until = min(end, final(stream))
        stored = NOTHING
        if start < until:
            stored = (await self._store.read(stream.id, max(start, stream.state.floor), until)).within(
                stream.state.coverage.pairs
            )
        self.contents[stream.id] = stored
        self.known[stream.id] = stream.state.coverage & TimeIntervals.of(MIN_TIME, until)
        if isinstance(stream.tool, FoldTool) and stream.final > MIN_TIME:
            found = await self._store.snapshot(stream.id, until)
            begin = stream.inputs[0].state.floor, INITIAL
            self._states[stream.id] = begin if found is None else (found.time, found.state)

    def _evaluate(self, stream: Stream, start: int, end: int, begins: dict[str, int]) -> None:
        if end >= MAX_TIME and isinstance(stream.drive, OnGrid):
            # Who looks on to the next instance asks for all times. Of what is not known yet the next tick is enough.
            end = stream.drive.grid.next(max(self._last, start))
        if start >= end:
            return
        if not stream.inputs:
            begin = begins.get(stream.workflow, end) if stream.begin is None else stream.begin
            start = max(start, begin)
            if start >= end:
                self.known[stream.id] = TimeIntervals.of(MIN_TIME, end)
                return
        sources = Sources(
            [self._read(stream, slot) for slot in stream.order],
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

    def _read(self, stream: Stream, slot: int) -> Batch:
        source = stream.inputs[slot]
        contents = self.contents[source.id]
        if not self._as_computed or source.kind == "raw" or not looks_on(stream.support(slot)):
            return contents
        return contents.slice(MIN_TIME, source.state.end())

    def _results(self, stream: Stream, start: int, end: int, sources: Sources) -> tuple[Batch, TimeIntervals, str]:
        tool = stream.tool
        assert tool is not None
        if not isinstance(tool, FoldTool):
            found = run(Task(tool, start, end, sources))
            return found.contents, found.failed, found.error
        at, state = self._states.get(stream.id) or (MIN_TIME, INITIAL)
        given = sources[0].slice(at, MAX_TIME if looks_on(tool.support(0)) else end)
        found = run(Task(tool, at, end, Sources([given]), carried=Carried(state, at)))
        return found.contents.slice(start, end), found.failed & TimeIntervals.of(start, end), found.error

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
                    at = max(first.first_time, stream.state.since) - 1
                    begins |= {name: min(begins.get(name, MAX_TIME), at) for name in names}
        return begins


def _last(stream: Stream) -> int:
    """The latest instant at which something of ``stream`` is stored or known."""
    known = [end for _, end in stream.state.coverage.pairs if end < MAX_TIME]
    return max(stream.state.upper, stream.state.frontier, *known[-1:])


def final(stream: Stream) -> int:
    """Up to where ``stream`` is not computed any more, since what it reads, or itself, may be forgotten.

    One that begins with its workflow's start may have begun elsewhere, and kept what others read of it.
    """
    return max(stream.state.floor, stream.final, MIN_TIME if stream.begin is None else stream.limit)


async def verify(
    store: Store,
    workflows: Sequence[WorkflowDefinition],
    start: int,
    end: int,
    *,
    records: Sequence[StreamRecord] | None = None,
    horizon: int = MIN_TIME,
) -> Verification:
    """Compare every derived stream of ``workflows`` in ``(start, end]`` with a from-scratch evaluation. Bit for bit.

    What is covered in the store must be equal there. What is wanted and can be computed, up to the watermarks, must be
    covered, or nothing of it may be missing: silence is not written down at once. Where readings are forgotten, what
    was computed from them before is taken as it is stored, and only what is later is compared. ``records`` replaces
    the store's own (an engine that runs knows more than its store's last checkpoint). ``horizon``: up to where silence
    of every source is proven (ms); by default only the readings say how far the sources are.
    """
    records = await store.streams() if records is None else records
    graph = Graph(records)
    for workflow in workflows:
        graph.add_workflow(workflow)
    await regrow(graph, store)
    scratch = Scratch(store, graph, start, end, horizon, as_computed=True)
    await scratch.run()
    result = Verification()
    wanted = _wanted(graph, workflows)
    window = TimeIntervals.of(start, end)
    for stream in graph.streams.values():
        if stream.kind == "raw":
            continue
        result.streams += 1
        if stream.id in scratch.errors:
            result.not_computable[stream.stream] = scratch.errors[stream.id]
        asked = window - TimeIntervals.of(MIN_TIME, final(stream))
        for low, high in (stream.state.coverage & asked & scratch.known[stream.id]).pairs:
            stored = await store.read(stream.id, low, high)
            _compare(result, stream.stream, stored, scratch.contents[stream.id].slice(low, high))
        missing = (wanted[stream.id] & asked) - stream.state.coverage
        if missing:
            result.not_computed[stream.stream] = missing
        failed = scratch.failed.get(stream.id, EMPTY)
        if found := failed & missing:
            result.failed[stream.stream] = found
        if owed := (missing & scratch.settled[stream.id]) - failed:
            result.owed[stream.stream] = owed
            expected = scratch.contents[stream.id]
            times = [
                time
                for low, high in owed.pairs
                for time in difference(await store.read(stream.id, low, high), expected.slice(low, high)).times()
            ]
            if times:
                result.missing[stream.stream] = times
    return result


def _wanted(graph: Graph, workflows: Sequence[WorkflowDefinition]) -> dict[int, TimeIntervals]:
    """Per stream, where its workflows want it, or something that reads it."""
    wanted: dict[int, TimeIntervals] = {}
    for stream in sorted(graph.streams.values(), key=lambda stream: -stream.rank):
        own = (workflow.demand for workflow in workflows if stream.node in workflow.nodes)
        wanted[stream.id] = reduce(or_, own, wanted.get(stream.id, EMPTY))
        for slot, source in enumerate(stream.inputs):
            read = required(stream.support(slot), wanted[stream.id])
            wanted[source.id] = wanted.get(source.id, EMPTY) | read
    return wanted


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
