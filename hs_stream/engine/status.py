"""How an engine is set, and what it says of itself and of its streams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from hs_stream.core.kinds import UNKNOWN, Meaning
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME, TimeIntervals
from hs_stream.engine.evaluate import CHUNK
from hs_stream.engine.graph import Graph
from hs_stream.engine.outlook import Outlook
from hs_stream.plan.streams import Stream
from hs_stream.plan.tail import ROOM

__all__ = ["EngineSettings", "EngineStatistics", "StreamStatus", "progress", "status_of"]


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """All times in ms. ``max_in_flight``: readings taken in but not yet durable. ``chunk``: see `evaluate`.

    In bytes: ``tails`` for the newest instances of all streams, ``in_flight`` for the payloads that are not durable.
    ``backdate``: so far before its arrival a reading may say that streams without inputs begin; ``backdate_ticks`` of
    the fastest of them if that is longer.
    """

    lateness: int = 0
    idle: int = 10_000
    max_future: int = 5_000
    backdate: int = 31 * 86_400_000
    backdate_ticks: int = 10_000
    max_in_flight: int = 20_000
    recompute_on: Literal["minor", "major"] = "minor"
    chunk: int = CHUNK
    tails: int = ROOM
    in_flight: int = 16 << 20


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """One stream as it is now.

    ``coverage`` and ``upper`` include what silence proves. ``pending`` is owed and can be computed. ``stale`` was
    computed once and is not right any more. ``newest`` is the newest instance that was ever stored. ``changes`` counts
    instances written since the start, ``changes_before_newest`` how often that was at or before the newest one. What is
    at or before ``floor`` is forgotten, and no change at or before ``limit`` is taken; ``None`` while nothing is.
    ``since``, of a raw stream: its readings before it came too late to say where streams without inputs begin.
    ``meaning``: of what kind its values are and in which unit, as far as its workflows know.
    """

    id: int
    stream: StreamId
    kind: Literal["raw", "derived"]
    workflow: str
    node: str
    tool: str
    coverage: TimeIntervals
    upper: int | None
    pending: TimeIntervals
    stale: TimeIntervals
    failed: TimeIntervals
    error: str
    newest: int | None = None
    changes: int = 0
    changes_before_newest: int = 0
    floor: int | None = None
    limit: int | None = None
    since: int | None = None
    meaning: Meaning = UNKNOWN


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """Counters since the start, and what waits right now.

    Per workflow, in seconds before now: ``lag`` is the newest reading, ``watermark`` the instant up to which every raw
    stream is complete. ``owed``: of how many streams of each workflow something is left that did not fit into a step.
    ``outbox_pending`` is over all sinks, ``pending_by_sink`` for each.
    """

    pending_steps: int
    in_flight_readings: int
    outbox_pending: int
    steps: int
    readings: int
    results: int
    published: int
    dead_letters: int
    late: int
    streams: int
    store_available: bool
    lag: Mapping[str, float]
    watermark: Mapping[str, float]
    overwritten: int = 0
    owed: Mapping[str, int] = field(default_factory=dict)
    pending_by_sink: Mapping[str, int] = field(default_factory=dict)


def status_of(stream: Stream, look: Outlook) -> StreamStatus:
    """What ``look`` says of ``stream``."""
    state, failed, upper = stream.state, look.failed(stream), look.upper(stream)
    return StreamStatus(
        stream.id,
        stream.stream,
        stream.kind,
        stream.workflow,
        stream.node,
        "" if stream.tool is None else stream.tool.pin,
        look.coverage(stream),
        None if upper <= MIN_TIME else upper,
        state.owed,
        look.stale(stream),
        failed,
        state.error if failed else "",
        None if state.frontier <= MIN_TIME else state.frontier,
        stream.changes,
        stream.changes_before_newest,
        None if state.floor <= MIN_TIME else state.floor,
        None if stream.limit <= MIN_TIME else stream.limit,
        None if state.since <= MIN_TIME else state.since,
        stream.meaning,
    )


def progress(graph: Graph, look: Outlook) -> tuple[dict[str, int], dict[str, int]]:
    """Per workflow: the newest reading, and up to where all its raw streams are complete (ms)."""
    newest: dict[str, int] = {}
    complete: dict[str, int] = {}
    for stream in graph.streams.values():
        if stream.kind == "raw" and stream.state.frontier > MIN_TIME:
            for workflow in graph.readers(stream):
                newest[workflow] = max(newest.get(workflow, MIN_TIME), stream.state.frontier)
                complete[workflow] = min(complete.get(workflow, MAX_TIME), look.upper(stream))
    return newest, complete
