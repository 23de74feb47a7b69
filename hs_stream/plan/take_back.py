"""What a change of inputs takes back of a stream's coverage: pure, given what the change affects.

Whoever plans asks in two steps. `reaching` says which changes may affect what is known. How far each of them reaches
may depend on what is stored, so the caller finds that out. With the answers, `take_back` says what is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from hs_stream.core.affected import looks_on
from hs_stream.core.time import EMPTY, MAX_TIME, MIN_TIME, TimeIntervals
from hs_stream.core.tool import Window
from hs_stream.plan.streams import Stream
from hs_stream.plan.work import Work

__all__ = ["Invalid", "TakenBack", "looked_on", "reaching", "take_back"]

Invalid = tuple[int, int]
"""``(first, last)``: input changed at instants in ``(first, last]``; old states later than ``first`` are not valid."""


class TakenBack(NamedTuple):
    """``lost``: was covered, and is not any more. ``late``: something changed at or before what was known.

    ``unsure``: was affected and not covered, before the end of the coverage. Consumers may still cover it: it failed
    before a restart, counted as known without an instance, and nobody has asked for it since.
    ``invalid``: of a fold, which of its old states.
    """

    lost: TimeIntervals
    unsure: TimeIntervals
    invalid: Invalid | None
    late: bool


def looked_on(stream: Stream, work: Work) -> dict[int, TimeIntervals]:
    """By slot: what may have come after what is covered and nobody has told of, or the step that was told is given up.

    Of a stream that reads what comes after.
    """
    end = work.end()
    if not (stream.looks_on and stream.agenda.unsure and end > MIN_TIME):
        return {}
    later = TimeIntervals.of(end, MAX_TIME)
    return {slot: later for slot in range(len(stream.inputs)) if looks_on(stream.support(slot))}


def reaching(stream: Stream, work: Work, changed: Mapping[int, TimeIntervals]) -> dict[int, TimeIntervals]:
    """Those of ``changed``, by slot, that may affect what is known."""
    until = _known_until(work)
    return {
        slot: spans
        for slot, spans in changed.items()
        if slot >= 0 and spans and (_first(stream, slot, spans) < until or looks_on(stream.support(slot)))
    }


def take_back(
    stream: Stream,
    work: Work,
    changed: Mapping[int, TimeIntervals],
    affected: Mapping[int, TimeIntervals],
    unseen: TimeIntervals,
    horizon: int,
) -> TakenBack:
    """``affected``: what each of `reaching` affects; ``unseen``: what all of `looked_on` affects."""
    end, until = work.end(), _known_until(work)
    unsure, invalid = EMPTY, None
    late = bool(work.taken.joined) or bool(work.taken.moved)
    lost = (work.taken.moved | unseen) & work.coverage
    for slot in work.taken.joined:
        # What is covered and a new input does not: it may have readings there that are not known yet.
        lost |= work.coverage - stream.inputs[slot].covered(horizon)
    for slot, touched in affected.items():
        spans = changed[slot]
        late = late or _first(stream, slot, spans) < until
        lost |= touched & work.coverage
        if touched and touched.start < end:
            unsure |= (touched & TimeIntervals.of(MIN_TIME, end)) - work.coverage
        if stream.is_fold and spans.start < until:
            first, last = invalid or (spans.start, spans.end)
            invalid = (min(first, spans.start), max(last, spans.end))
    # What is final stays as it is (an aggregate's new input counts from there on).
    lost -= TimeIntervals.of(MIN_TIME, max(work.floor, stream.final))
    return TakenBack(lost, unsure, invalid, late)


def _first(stream: Stream, slot: int, spans: TimeIntervals) -> int:
    """Before the first output that a window with a lookahead may read ``spans`` for."""
    support = stream.support(slot)
    return spans.start - (support.lookahead if isinstance(support, Window) else 0)


def _known_until(work: Work) -> int:
    """The end of what is covered, or of what a fold has gone through."""
    end = work.end()
    return end if work.fold is None else max(end, work.fold.until)
