"""The five states of a stream's time; streams, what failed, and dead letters as JSON.

=================  ========================================================================
state              in an interval of that state
=================  ========================================================================
``computed``       the contents are right, and there are instances
``computed-empty`` the contents are right: there is no instance
``stale``          was computed, and will be computed again since something before it changed
``failed``         the tool raised; the stream's ``error`` says what
``not-computed``   nothing is known yet, or not any more (at or before the stream's ``floor``)
=================  ========================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hs_stream.core.time import TimeIntervals, format_time
from hs_stream.service.json_values import encode, intervals

if TYPE_CHECKING:
    from hs_stream.core.kinds import Meaning
    from hs_stream.engine.engine import Engine, StreamStatus
    from hs_stream.engine.ingest import Overwritten
    from hs_stream.engine.ports import DeadLetter, HistoryEntry

__all__ = [
    "MAX_PIECES",
    "entry_json",
    "failed_json",
    "letter_json",
    "meaning_json",
    "overwritten_json",
    "stream_json",
    "stream_states",
]

MAX_PIECES: Final = 100


def partition(status: StreamStatus, start: int, end: int) -> list[tuple[str, int, int]]:
    """``(start, end]`` cut into ``(state, start, end)``, ascending, ``computed`` standing for both kinds of it."""
    asked = TimeIntervals.of(start, end)
    failed = status.failed & asked
    computed = (status.coverage & asked) - failed
    stale = (status.stale & asked) - failed - computed
    rest = asked - failed - computed - stale
    parts = (("failed", failed), ("computed", computed), ("stale", stale), ("not-computed", rest))
    pieces = [(state, *pair) for state, spans in parts for pair in spans.pairs]
    return sorted(pieces, key=lambda piece: piece[1])


async def stream_states(engine: Engine, status: StreamStatus, start: int, end: int) -> dict[str, Any]:
    """``{states: [{state, start, end}], truncated}``: at most `MAX_PIECES` pieces, the latest ones."""
    pieces = partition(status, start, end)
    states = []
    for state, first, last in pieces[-MAX_PIECES:]:
        word = state
        if state == "computed" and not await engine.read(status.stream, first, last, limit=1):
            word = "computed-empty"
        states.append({"state": word, "start": format_time(first), "end": format_time(last)})
    return {"states": states, "truncated": len(pieces) > MAX_PIECES}


def stream_json(status: StreamStatus) -> dict[str, Any]:
    """What is known of a stream without reading it. ``coverage`` has at most `MAX_PIECES` intervals, the latest."""
    return {
        "id": status.id,
        "stream": str(status.stream),
        "name": status.stream.name,
        "meta": dict(status.stream.meta),
        "kind": status.kind,
        "workflow": status.workflow,
        "node": status.node,
        "tool": status.tool or None,
        "upper": None if status.upper is None else format_time(status.upper),
        "coverage": intervals(TimeIntervals(status.coverage.pairs[-MAX_PIECES:])),
        "coverage_intervals": len(status.coverage),
        "floor": None if status.floor is None else format_time(status.floor),
        "limit": None if status.limit is None else format_time(status.limit),
        "since": None if status.since is None else format_time(status.since),
        "pending": intervals(TimeIntervals(status.pending.pairs[-MAX_PIECES:])),
        "stale": intervals(TimeIntervals(status.stale.pairs[-MAX_PIECES:])),
        "failed": intervals(TimeIntervals(status.failed.pairs[-MAX_PIECES:])),
        "error": status.error or None,
        "meaning": meaning_json(status.meaning),
    }


def meaning_json(meaning: Meaning) -> dict[str, Any]:
    """``{kind, unit, fields: {name: {kind, unit}}}``, each where it is known."""
    fields = {name: meaning_json(one) for name, one in meaning.fields.items()}
    return {**meaning.said(), **({"fields": fields} if fields else {})}


def failed_json(engine: Engine) -> list[dict[str, Any]]:
    """Streams of which something failed, at most `MAX_PIECES`, each with its latest failed intervals and the error."""
    return [
        {
            "stream": str(status.stream),
            "workflow": status.workflow,
            "tool": status.tool,
            "failed": intervals(TimeIntervals(status.failed.pairs[-MAX_PIECES:])),
            "error": status.error,
        }
        for status in engine.failed()[:MAX_PIECES]
    ]


def letter_json(letter: DeadLetter) -> dict[str, Any]:
    """``payload`` is text, or ``{"$binary": base64}``."""
    try:
        payload: Any = letter.payload.decode()
    except UnicodeDecodeError:
        payload = encode(letter.payload)
    return {
        "time": format_time(letter.time),
        "source": letter.source,
        "reason": letter.reason,
        "message": letter.message,
        "topic": letter.topic,
        "payload": payload,
    }


def overwritten_json(found: Overwritten) -> dict[str, Any]:
    """How many readings of a source were overwritten, and where the last one was."""
    where = {"stream": str(found.stream), "time": format_time(found.time)}
    return {"source": found.source, "count": found.count, **where}


def entry_json(entry: HistoryEntry) -> dict[str, Any]:
    """Who computed what, when and why."""
    return {
        "time": format_time(entry.time),
        "node": entry.stream,
        "tool": entry.tool,
        "cause": entry.cause,
        "start": format_time(entry.start),
        "end": format_time(entry.end),
        "instances": entry.instances,
        "changed": entry.changed,
        "session": entry.session,
    }
