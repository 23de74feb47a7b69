"""What the engine says of its streams to those outside: what is committed, and nothing of what is on its way.

1. A state is as of the last commit, and a change may be durable that no commit takes account of: a late reading, say,
   or readings of a device that is new. What it reaches is not said to be computed. It is stale where it was.
2. The same holds for what is owed: what reads a stream of which something is still to be computed again.
3. Silence counts up to the horizon of the last step that took what was new. What is due by then is computed, or owed.

All of it is found when somebody asks, from the inputs up. While nothing is on its way that costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hs_stream.core.affected import affected, counts_after, looks_on
from hs_stream.core.time import EMPTY, MIN_TIME, TimeIntervals
from hs_stream.core.tool import FoldTool, Support
from hs_stream.engine.begins import Begins
from hs_stream.engine.schedule import Schedule
from hs_stream.plan.draft import Draft
from hs_stream.plan.streams import Stream

__all__ = ["Outlook"]


class Outlook:
    """One look, not to be kept across an await. ``horizon``: rule 3. ``draft``: of the step under way, if any."""

    def __init__(self, schedule: Schedule, begins: Begins, draft: Draft | None, horizon: int) -> None:
        self._schedule = schedule
        self._begins = begins
        self._draft = draft
        self.horizon = horizon
        self._reached: dict[int, TimeIntervals] = {}
        self._quiet = draft is None and not len(schedule) and not schedule.expects

    def coverage(self, stream: Stream) -> TimeIntervals:
        """What is known, silence included: without what is forgotten, what failed, and what is on its way."""
        state = stream.state
        known = stream.covered_of(state, self.horizon) - TimeIntervals.of(MIN_TIME, state.floor) - self.failed(stream)
        return known if stream.kind == "raw" else known - self._on_its_way(stream)

    def stale(self, stream: Stream) -> TimeIntervals:
        """What was computed and is not right any more."""
        state = stream.state
        reached = self._on_its_way(stream) if stream.kind == "derived" else EMPTY
        return state.stale | (state.right() & reached) if reached else state.stale

    def failed(self, stream: Stream) -> TimeIntervals:
        """Where the tool raised; and all after a value with which it must not go on, up to where silence reaches."""
        state = stream.state
        if not state.failed:
            return EMPTY
        failed = state.failed & state.coverage
        end = state.end()
        if isinstance(stream.tool, FoldTool) and not stream.tool.goes_on and failed and failed.end == end:
            failed |= TimeIntervals.of(end, stream.reach_of(state, self.horizon))
        return failed

    def upper(self, stream: Stream) -> int:
        """The end of what is known: nothing after it is."""
        if stream.kind == "raw" or not self._on_its_way(stream):
            return stream.reach_of(stream.state, self.horizon)
        known = stream.covered_of(stream.state, self.horizon) - self._on_its_way(stream)
        return known.end if known else MIN_TIME

    def _on_its_way(self, stream: Stream) -> TimeIntervals:
        """Where a change that is not committed may reach ``stream``, and some of what it has reached already."""
        if self._quiet:
            return EMPTY
        found = self._reached.get(stream.id)
        if found is None:
            for one in self._above(stream):
                self._reached[one.id] = self._find(one)
            found = self._reached[stream.id]
        return found

    def _above(self, stream: Stream) -> Sequence[Stream]:
        """``stream`` and all before it of which it is not known yet, inputs first."""
        seen = {stream.id: stream}
        stack = [stream]
        while stack:
            for source in stack.pop().inputs:
                if source.id not in seen and source.id not in self._reached:
                    seen[source.id] = source
                    stack.append(source)
        return sorted(seen.values(), key=_rank)

    def _find(self, stream: Stream) -> TimeIntervals:
        changed = self._schedule.changed(stream.id)
        if self._draft is not None:
            changed |= self._draft.changed.get(stream.id, EMPTY)
        if stream.kind == "raw":
            return changed
        if not stream.inputs:
            changed |= self._before_begin(stream)
        for slot, source in enumerate(stream.inputs):
            before = self._reached[source.id]
            if source.state.owed:
                before |= source.state.owed
            if before:
                changed |= _affected(stream.support(slot), before, source)
        joined, moved = self._taken_back(stream)
        for slot in joined:
            source = stream.inputs[slot]
            changed |= stream.state.coverage - source.covered_of(source.state, self.horizon)
        # What is final stays as it is.
        return (changed | moved) - TimeIntervals.of(MIN_TIME, max(stream.state.floor, stream.final))

    def _before_begin(self, stream: Stream) -> TimeIntervals:
        """What begins with its readings may begin with one that is on its way."""
        begin, first = self._begins.of(stream), self._schedule.first_expected
        if stream.begin is not None or begin is None or first >= begin:
            return EMPTY
        return TimeIntervals.of(first, begin)

    def _taken_back(self, stream: Stream) -> tuple[Iterable[int], TimeIntervals]:
        agenda = stream.agenda
        if stream.work is None:
            return agenda.joined, agenda.moved
        taken = stream.work.taken
        return agenda.joined | taken.joined, agenda.moved | taken.moved


def _rank(stream: Stream) -> tuple[int, int]:
    return stream.rank, stream.id


def _affected(support: Support, changed: TimeIntervals, source: Stream) -> TimeIntervals:
    """As `hs_stream.core.affected.affected`, as far as memory knows what comes after a change."""
    later: list[int | None] = []
    earlier: list[int | None] = []
    tail, n = source.tail, counts_after(support)
    times = tail.batch.times
    for start, end in changed.pairs:
        if n:
            at = int(times.searchsorted(end, "right")) + n - 1
            later.append(int(times[at]) if tail.knows(end) and at < len(times) else None)
        if looks_on(support):
            at = int(times.searchsorted(start, "right")) - 1
            earlier.append(int(times[at]) if at >= 0 else None)
    return affected(support, changed, later, earlier)
