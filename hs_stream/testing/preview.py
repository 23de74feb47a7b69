"""What a changed workflow would have computed in a past range, compared with what is stored, before it is deployed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.stream import StreamId, difference
from hs_stream.core.time import MIN_TIME, TimeIntervals
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.graph import Graph
from hs_stream.engine.growth import regrow
from hs_stream.engine.ports import Store
from hs_stream.testing.oracle import ABSENT, Mismatch, Scratch

__all__ = ["NodeChange", "preview"]

_SHOWN: Final = 3


@dataclass(slots=True)
class NodeChange:
    """One node over all its streams. ``before`` and ``after`` count instances; ``gone`` and ``new`` are of them.

    ``deviation`` is the largest absolute difference of two numbers at one time, ``None`` where there are none.
    """

    node: str
    state: Literal["same", "changed", "new", "removed"] = "same"
    streams: int = 0
    before: int = 0
    after: int = 0
    revised: int = 0
    new: int = 0
    gone: int = 0
    deviation: float | None = None
    first: list[Mismatch] = field(default_factory=list)
    error: str = ""

    def add(self, mismatch: Mismatch) -> None:
        """Count one difference."""
        if mismatch.stored is ABSENT:
            self.new += 1
        elif mismatch.expected is ABSENT:
            self.gone += 1
        else:
            self.revised += 1
            old, new = mismatch.stored, mismatch.expected
            if isinstance(old, (int, float)) and isinstance(new, (int, float)):
                self.deviation = max(self.deviation or 0.0, abs(float(new) - float(old)))
        if len(self.first) < _SHOWN:
            self.first.append(mismatch)


async def preview(
    store: Store, current: WorkflowDefinition | None, candidate: WorkflowDefinition, start: int, end: int
) -> list[NodeChange]:
    """Per node of ``candidate``, then per node that only ``current`` has. Nothing is written.

    What is stored counts where it is covered; results of the candidate where its inputs are known. Raw readings are
    taken as they are: a source that the candidate reads differently, or a new one, has the readings that are stored.
    """
    records = await store.streams()
    graph = Graph(records)
    graph.add_workflow(candidate)
    await regrow(graph, store)
    scratch = Scratch(store, graph, start, end)
    await scratch.run()
    stored = {record.stream: record for record in records if record.kind == "derived"}
    window = TimeIntervals.of(start, end)
    found = {name: NodeChange(name, "new") for name in candidate.order}
    for stream in graph.streams.values():
        if stream.kind == "raw":
            continue
        change = found[stream.node]
        change.streams += 1
        change.error = change.error or scratch.errors.get(stream.id, "")
        record = stored.get(stream.stream)
        spans = (scratch.known[stream.id] & window) - TimeIntervals.of(MIN_TIME, stream.state.floor)
        if record is not None:
            spans &= record.coverage
            if change.state == "new":
                change.state = "same"
        after = scratch.contents[stream.id].within(spans.pairs)
        before = NOTHING if record is None else await _read(store, record.id, spans)
        change.before, change.after = change.before + len(before), change.after + len(after)
        for mismatch in _mismatches(stream.stream, before, after):
            change.add(mismatch)
    for change in found.values():
        if change.state == "same" and (change.revised or change.new or change.gone):
            change.state = "changed"
    removed = [] if current is None else [name for name in current.order if name not in candidate.nodes]
    for name in removed:
        gone = found[name] = NodeChange(name, "removed")
        for stream_id, record in stored.items():
            if stream_id.name == name:
                gone.streams += 1
                gone.before += await store.count(record.id, start, end)
        gone.gone = gone.before
    return list(found.values())


async def _read(store: Store, stream: int, spans: TimeIntervals) -> Batch:
    if not spans:
        return NOTHING
    hull = spans.span()
    return (await store.read(stream, hull.start, hull.end)).within(spans.pairs)


def _mismatches(stream: StreamId, before: Batch, after: Batch) -> Sequence[Mismatch]:
    times = difference(before, after).times()
    if not times:
        return ()
    old, new = dict(before), dict(after)
    return [Mismatch(stream, time, old.get(time, ABSENT), new.get(time, ABSENT)) for time in times]
