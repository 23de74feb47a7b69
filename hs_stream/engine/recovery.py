"""After a start: memory is brought up to the store, and what was left to do is taken up."""

from __future__ import annotations

import asyncio
from typing import Final

from hs_stream.core.time import MAX_TIME, MIN_TIME
from hs_stream.engine.executor import Executor
from hs_stream.engine.graph import Graph
from hs_stream.engine.growth import regrow
from hs_stream.engine.ingest import Ingest
from hs_stream.engine.ports import Clock, Recovery, Store
from hs_stream.plan.streams import Stream

__all__ = ["recover"]

_AT_ONCE: Final = 64
"""Streams that are looked up in the store at the same time."""


async def recover(
    found: Recovery, store: Store, graph: Graph, executor: Executor, ingest: Ingest, clock: Clock, *, lateness: int
) -> None:
    """``found`` is how ``store`` was left; the streams on record are in ``graph``. ``lateness`` in ms."""
    now = clock.now()
    await regrow(graph, store)
    streams = list(graph.streams.values())
    raw = [stream for stream in streams if stream.kind == "raw"]
    for first in range(0, len(raw), _AT_ONCE):
        await asyncio.gather(*(_recall(stream, store, lateness) for stream in raw[first : first + _AT_ONCE]))
    changed = [stream for stream in streams if _is_new(stream, graph)]
    if changed:
        await store.register([stream.record() for stream in changed])
    ingest.leave_out(
        [
            record
            for record in graph.records.values()
            if record.kind == "derived" and record.fingerprint and record.stream not in graph.streams
        ]
    )
    await executor.begins.recover(now)
    for identity, spans in found.changed.items():
        stream = graph.by_id.get(identity)
        if stream is not None:
            executor.schedule.arrived(stream, spans, now)
    if found.changed:
        # Late readings that nobody has taken account of: what rests on them and is left out does not hear of them.
        await ingest.forget_strays()
    executor.mark(found.append_seq)
    graph.disturbed()
    executor.welcome((stream for stream in streams if stream.kind == "derived"), "backfill")


def _is_new(stream: Stream, graph: Graph) -> bool:
    record = graph.records.get(stream.stream)
    return record is None or record.fingerprint != stream.fingerprint or record.workflow != stream.workflow


async def _recall(stream: Stream, store: Store, lateness: int) -> None:
    """The newest instance of a raw stream: its watermark follows from it."""
    newest = await store.last(stream.id, MAX_TIME, 1)
    state = stream.state
    frontier, upper = MIN_TIME, state.upper
    if newest:
        frontier, upper = newest.last_time, max(upper, newest.last_time - lateness)
    stream.replace(state._replace(frontier=frontier, upper=upper))
