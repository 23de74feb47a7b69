"""What can be computed of a stream, and when silence will allow more: pure functions over streams in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hs_stream.core.affected import available
from hs_stream.core.fold_states import HALTED
from hs_stream.core.time import EVERYTHING, MAX_TIME, MIN_TIME, Grid, TimeIntervals, shift
from hs_stream.core.tool import FoldTool, FromInput, FromUnion, OnGrid, Pointwise, Prefix, Previous, Window
from hs_stream.core.value import Value
from hs_stream.plan.streams import Stream

__all__ = ["available_now", "drives", "find_due", "next_wanted", "steady", "wanted_until"]

_ALWAYS: Final = EVERYTHING.pairs


def drives(stream: Stream, slot: int) -> bool:
    """Whether output times come from input ``slot``."""
    drive = stream.drive
    return isinstance(drive, FromUnion) or (isinstance(drive, FromInput) and drive.slot == slot)


def steady(stream: Stream, changed: Mapping[int, TimeIntervals], horizon: int) -> tuple[int, int] | None:
    """What is owed in the usual case, ``(start, end]`` with ``start >= end`` for nothing; ``None`` in any other case.

    The usual case: everything is covered up to an end, all that changed is later, and the inputs are regular.
    The answer is the same as the general way gives, without its set algebra.
    """
    inputs = stream.inputs
    if not inputs or stream.aggregate:
        return None
    known = stream.latest
    pairs = known.coverage.pairs
    if len(pairs) != 1:
        return None
    start, end = pairs[0]
    if (
        start > MIN_TIME
        or stream.agenda.retried
        or (stream.looks_on and not _looks_on_to_nothing(stream, end))
        or stream.demand.pairs != _ALWAYS
    ):
        return None
    lookaheads = stream.lookaheads
    fold = known.fold
    known_until = end if fold is None or fold.until < end else fold.until
    for slot, spans in changed.items():
        if slot >= 0 and (moved := spans.pairs) and moved[0][0] - lookaheads[slot] < known_until:
            return None
    reach = MAX_TIME
    for slot, source in enumerate(inputs):
        latest = source.latest
        if source.kind == "derived":
            covered = latest.coverage.pairs
            if len(covered) != 1 or covered[0][0] > MIN_TIME:
                return None
        upto = source.reach_of(latest, horizon)
        if lookaheads[slot]:
            upto = shift(upto, -lookaheads[slot])
        reach = min(reach, upto)
    return end, reach


def _looks_on_to_nothing(stream: Stream, end: int) -> bool:
    """Of a fold that reads what comes after: it has no instant between the last instance that it covers and its end."""
    if not stream.is_fold or stream.agenda.unsure:
        return False
    times = stream.inputs[0].latest_tail.batch.times
    at = int(times.searchsorted(end, "right")) - 1
    if at < 0 or not isinstance(stream.drive, OnGrid):
        return False
    last = int(times[at])
    return last == end or stream.drive.grid.next(last) > end


def available_now(stream: Stream, horizon: int, proven: int) -> TimeIntervals:
    """Where everything that the supports read of the inputs is known. ``proven``: for a stream without inputs."""
    if not stream.inputs:
        return TimeIntervals.of(MIN_TIME, proven)
    if stream.slowest is not None:
        return available(stream.supports[0], stream.slowest.available(stream.inputs, horizon))
    result = available(stream.supports[0], stream.inputs[0].covered(horizon))
    for slot in range(1, len(stream.inputs)):
        result &= available(stream.supports[slot], stream.inputs[slot].covered(horizon))
    return result


def find_due(stream: Stream, begin: int | None, horizon: int) -> int | None:
    """The earliest instant after what is known at which silence does not prove that there is no output.

    ``begin``: where a stream without inputs begins, ``None`` while that is not known.
    """
    if not stream.inputs:
        return _next_own_tick(stream, begin)
    due, hole = _next_output(stream), _next_hole(stream, horizon)
    return due if hole is None else hole if due is None else min(due, hole)


def next_wanted(stream: Stream) -> int | None:
    """The earliest instant that silence alone will make computable and that is wanted, as far as is known by now.

    Where the next part that is wanted lies ahead, that is its first instant, so that its beginning is covered.
    """
    known, demand = stream.latest, stream.demand
    due = known.due
    if demand.pairs == _ALWAYS or (due is not None and due <= known.wanted_until):
        return due
    end = stream.end()
    return next((start + 1 for start, _ in demand.pairs if start >= end), None)


def wanted_until(stream: Stream) -> int:
    """The end of what is wanted right after what is known; `MIN_TIME` where nothing is."""
    if stream.demand.pairs == _ALWAYS:
        return MAX_TIME
    end = stream.end()
    around = None if end >= MAX_TIME else stream.demand.around(end + 1)
    return MIN_TIME if around is None else around[1]


def _next_own_tick(stream: Stream, begin: int | None) -> int | None:
    drive, end = stream.drive, stream.end()
    if not isinstance(drive, OnGrid) or begin is None or max(end, begin) >= MAX_TIME - 1:
        return None
    # Before its first instant it is known to be empty, which its consumers wait for.
    return drive.grid.next(max(end, begin)) if stream.latest.coverage else begin + 1


def _next_hole(stream: Stream, horizon: int) -> int | None:
    """The end of the first part before the coverage's end that is owed and not known to be silent yet.

    A new stream of an aggregate may know less than the others did when the coverage was taken back.
    """
    known = stream.latest
    pairs = known.coverage.pairs
    if not stream.demand or not pairs or (len(pairs) == 1 and pairs[0][0] <= stream.demand.pairs[0][0]):
        return None
    holes = (stream.demand & TimeIntervals.of(MIN_TIME, pairs[-1][1])) - known.coverage
    quiet = shift(horizon, -stream.ahead)
    return next((end for _, end in holes.pairs if end > quiet), None)


def _next_output(stream: Stream) -> int | None:
    """The earliest instant after what is known at which there may be an output, or an old one is stored."""
    drive, known, end = stream.drive, stream.latest, stream.end()
    if end >= MAX_TIME or not known.coverage:
        return None
    due = _next_tick(stream, drive.grid, end) if isinstance(drive, OnGrid) else _next_driving(stream)
    return due if known.old is None else known.old if due is None else min(due, known.old)


def _next_driving(stream: Stream) -> int | None:
    """The first instant of ``waiting`` at which a driving input has an instance, as far as memory tells."""
    waiting = stream.agenda.waiting
    if not waiting:
        return None
    after = waiting.start
    if stream.aggregate:
        return after + 1
    found = []
    for slot, source in enumerate(stream.inputs):
        if drives(stream, slot):
            tail = source.latest_tail
            if not tail.knows(after):
                return after + 1
            found += tail.batch.slice(after, MAX_TIME).times[:1].tolist()
    return min(found, default=None)


def _next_tick(stream: Stream, grid: Grid, end: int) -> int | None:
    head = stream.latest.fold
    if stream.is_fold and stream.inputs[0].latest.frontier <= MIN_TIME:
        return None
    if head is not None and isinstance(stream.tool, FoldTool) and head.since <= end <= head.until:
        said, state_ends = _next_said(stream.tool, head.state, grid, end), _next_instant(stream, grid, end)
        return said if state_ends is None else state_ends if said is None else min(said, state_ends)
    due = grid.next(end)
    for slot, source in enumerate(stream.inputs):
        support = stream.support(slot)
        lasts = isinstance(support, Window) and support.before and not support.after
        if lasts or isinstance(support, (Previous, Prefix)):
            needed = MIN_TIME + 1
        elif isinstance(support, Pointwise):
            needed = due
        else:
            # What waits for the next instance says nothing in silence.
            needed = due - support.lookback + 1
        if source.latest.frontier >= needed:
            return due
    return None


def _next_instant(stream: Stream, grid: Grid, end: int) -> int | None:
    """Of a fold: the first of ``grid`` later than ``end`` at which the state of there does not say what comes out.

    That is at the next instance that it has not gone through, or on the way to it.
    """
    source = stream.inputs[0]
    if source.latest.frontier <= end:
        return None
    tail = source.latest_tail
    if stream.looks_on or not tail.knows(end):
        return grid.next(end)
    later = tail.batch.slice(end, MAX_TIME)
    return grid.next(later.first_time - 1) if later else None


def _next_said(tool: FoldTool, state: Value, grid: Grid, end: int) -> int | None:
    """What the tool says of its state. One that raises is asked again by evaluating it, which tells of the error."""
    if state is HALTED:
        return grid.next(end)
    try:
        due = tool.due(state, end)
    except Exception:  # noqa: BLE001 - a tool may raise anything
        return grid.next(end)
    return None if due is None else max(due, end + 1)
