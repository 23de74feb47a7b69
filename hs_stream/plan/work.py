"""What a step does to one stream, until its commit.

1. A `Work` begins as a copy of the stream's state, when a step touches the stream first. The step changes it, and what
   comes after it in the step reads it.
2. After the commit it becomes the new state, and its tail the stream's. Without a commit it is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.records import Snapshot, StreamChange
from hs_stream.core.stream import Difference, difference
from hs_stream.core.time import EMPTY, MAX_TIME, MIN_TIME, TimeIntervals
from hs_stream.core.value import Value
from hs_stream.plan.agenda import NOTHING_TAKEN, Agenda
from hs_stream.plan.state import MOST_FAILED, Head, StreamState
from hs_stream.plan.tail import Tail

__all__ = ["Spans", "Work"]

Spans = tuple[tuple[int, int], ...]
"""Intervals ``(start, end]``, sorted and disjoint."""


class Work:
    """What a step does to one stream: a working copy of its `StreamState`, with the same fields, and of its tail."""

    __slots__ = (
        "_before",
        "_covers",
        "_inside",
        "_merged",
        "_seen",
        "_tail",
        "agenda",
        "coverage",
        "differences",
        "due",
        "error",
        "failed",
        "floor",
        "fold",
        "fork",
        "fresh",
        "frontier",
        "id",
        "low",
        "old",
        "owed",
        "revisions",
        "settled",
        "snapshots",
        "snapshots_dropped",
        "stale",
        "taken",
        "until",
        "upper",
        "wanted_until",
        "writes",
        "written",
    )

    def __init__(self, identity: int, state: StreamState, tail: Tail, agenda: Agenda) -> None:
        self.id = identity
        self.agenda = agenda
        self._before = state
        self.coverage = state.coverage
        self.stale = state.stale
        self.failed = state.failed
        self.error = state.error
        self.owed = state.owed
        self.frontier = state.frontier
        self.upper: Final = state.upper
        self.floor: Final = state.floor
        self.fold = state.fold
        self.settled = state.settled
        self.due = state.due
        self.old = state.old
        self.wanted_until = state.wanted_until
        self._tail = tail
        self.writes = False
        """It takes part in the commit."""
        self.until = state.frontier
        """The frontier before the step: after it there is nothing old to compare with, in whatever order the step
        evaluates it."""
        self.written: list[tuple[Spans, Batch]] = []
        """What was evaluated, in pieces: these are disjoint, and the contents inside of each are the batch."""
        self.differences: list[Difference] = []
        self.low = MAX_TIME
        """The lowest start of all that was written."""
        self.fresh = True
        self.revisions: Mapping[int, int] = {}
        self.snapshots: list[Snapshot] = []
        self.snapshots_dropped = EMPTY
        self.fork: Tail | None = None
        """The tail with what was written; none while nothing was."""
        self.taken = NOTHING_TAKEN
        self._covers = False
        self._inside = EMPTY
        self._merged = NOTHING
        self._seen = 0

    def end(self) -> int:
        """See `StreamState.end`."""
        pairs = self.coverage.pairs
        return pairs[-1][1] if pairs else MIN_TIME

    def right(self) -> TimeIntervals:
        """See `StreamState.right`."""
        return self.coverage - self.failed if self.failed else self.coverage

    def found(self, spans: TimeIntervals, failed: TimeIntervals) -> None:
        """``spans`` were evaluated, and the tool raised on ``failed`` of them."""
        known = (self.failed - spans) | failed
        self.failed = known if len(known) <= MOST_FAILED else TimeIntervals(known.pairs[-MOST_FAILED:])

    def state(self) -> StreamState:
        """As it is by now, for good."""
        before = self._before
        return StreamState(
            self.coverage,
            self.stale,
            self.failed,
            self.error,
            self.owed,
            self.frontier,
            before.upper,
            before.floor,
            before.closed,
            before.since,
            self.fold,
            self.settled,
            self.due,
            self.old,
            self.wanted_until,
        )

    # --- contents ---

    def is_new(self, start: int) -> bool:
        """Whether nothing old is later than ``start``."""
        return start >= self.until

    def put(self, spans: Spans, old: Batch, new: Batch, failed: TimeIntervals) -> int:
        """The contents inside of ``spans``, of which the tool raised on ``failed``, were ``old`` and are ``new``.

        Returns at how many instants they differ.
        """
        start, end = spans[0][0], spans[-1][1]
        found = difference(old, new)
        changed = len(found)
        if changed:
            self.differences.append(found)
            self.fresh = self.fresh and self.is_new(start)
        self.written.append((spans, new))
        if start < self.frontier:
            self._own_tail().replace(spans, new)
        elif new:
            self._own_tail().extend(self.frontier, new)
        self._lower(start)
        if new:
            self.frontier = max(self.frontier, new.last_time)
        inside = TimeIntervals.of(start, end) if len(spans) == 1 else TimeIntervals(spans)
        self.coverage |= inside
        if failed or (self.failed and start < self.failed.end):
            self.found(inside, failed)
        return changed

    def remove(self, start: int, end: int, old: Batch) -> None:
        """Nothing is left of ``old``, the contents of ``(start, end]``."""
        self.fresh = False
        if old:
            spans = ((start, end),)
            self.differences.append(Difference(NOTHING, NOTHING, old.times.tolist()))
            self.written.append((spans, NOTHING))
            self._own_tail().replace(spans, NOTHING)
            self._lower(start)

    @property
    def tail(self) -> Tail:
        """The newest instances, with what was written."""
        return self._tail if self.fork is None else self.fork

    def _own_tail(self) -> Tail:
        if self.fork is None:
            self.fork = self._tail.fork()
        return self.fork

    def _lower(self, start: int) -> None:
        self.low = min(self.low, start)
        self._covers = self._covers or self.low < self.tail.low

    @property
    def covers_store(self) -> bool:
        """Whether it wrote something that is not in the tail: what the store has must be read with `apply`."""
        return self._covers

    def apply(self, stored: Batch, start: int, end: int) -> Batch:
        """``stored`` contents of ``(start, end]`` with the step's changes in them."""
        if len(self.written) != self._seen:
            fresh, self._seen = self.written[self._seen :], len(self.written)
            self._inside |= TimeIntervals(pair for spans, _ in fresh for pair in spans)
            for _, new in fresh:
                self._merged = self._merged.update(new)
        inside = (self._inside & TimeIntervals.of(start, end)).pairs
        return stored.replace(inside, self._merged.slice(start, end)) if inside else stored

    # --- coverage ---

    def take_back(self, lost: TimeIntervals) -> None:
        """``lost`` was computed and is not right any more."""
        self.coverage -= lost
        self.stale |= lost

    def uncover(self, spans: TimeIntervals) -> None:
        """What is there of ``spans`` is as it is: neither computed nor stale."""
        self.coverage -= spans
        self.stale -= spans
        self.settled = False

    def take(self) -> None:
        """Take on what the agenda has of take-backs and retries."""
        taken = self.agenda.take()
        self.taken = taken if self.taken is NOTHING_TAKEN else self.taken.plus(taken)

    def try_again(self, failed: TimeIntervals) -> None:
        """``failed`` is owed again; where that was the newest, every input must be looked at there."""
        end = self.end()
        self.coverage -= failed
        if self.end() < end:
            self.agenda.forget_inputs()

    def fail(self, error: str) -> None:
        """The tool raised."""
        self.error = error

    def note_old(self, first: int | None) -> None:
        """The first instance after the coverage."""
        self.old = first

    def settle(self, rest: TimeIntervals, due: int | None, wanted_until: int) -> None:
        """``rest`` is left for later steps; see `StreamState` for the others."""
        self.owed = rest
        self.settled = not rest
        if self.stale:
            self.stale -= self.coverage - TimeIntervals.of(MIN_TIME, self.floor)
        self.due = due
        self.wanted_until = wanted_until

    def number(self, revisions: Mapping[int, int]) -> None:
        """What of the changes is not the first of its instance (by time)."""
        self.revisions = revisions

    def cover(self, spans: TimeIntervals) -> None:
        """``spans`` are right as they were."""
        self.coverage |= spans

    # --- folds ---

    def carry(self, head: Head | None) -> None:
        """The fold goes on from ``head``; ``None``: from a stored state."""
        self.fold = head

    def invalidate(self, first: int) -> None:
        """Input changed after ``first``: what the head knows ends there, and stored states after it are dropped."""
        self.snapshots_dropped = TimeIntervals.of(first, MAX_TIME)
        head = self.fold
        if head is not None and head.until > first:
            self.fold = head._replace(until=first) if head.since <= first else None

    def confirm(self, first: int, until: int) -> None:
        """Of the stored states those later than ``until`` are valid after all; those of ``(first, until]`` are not."""
        self.snapshots_dropped = TimeIntervals.of(first, until)

    def snap(self, states: Iterable[tuple[int, Value]]) -> None:
        """To be stored: the states at these times."""
        self.snapshots += [Snapshot(time, state) for time, state in states]

    def forget_snapshots(self, after: int) -> None:
        """Those to be stored later than ``after`` are not."""
        self.snapshots = [snapshot for snapshot in self.snapshots if snapshot.time <= after]

    # --- commit ---

    def take_part(self) -> None:
        """It is in the commit."""
        self.writes = True

    def merged(self) -> Difference:
        """All differences as one."""
        if len(self.differences) == 1:
            return self.differences[0]
        if not self.differences:
            return _UNCHANGED
        parts = sorted(self.differences, key=_first_time)
        return Difference(
            Batch.concat([part.inserted for part in parts]),
            Batch.concat([part.revised for part in parts]),
            [time for part in parts for time in part.retracted],
        )

    def change(self, difference: Difference, *, publish: bool) -> StreamChange:
        """The part of the commit for this stream."""
        return StreamChange(
            self.id,
            self.right(),
            self.frontier,
            difference.inserted,
            difference.revised,
            difference.retracted,
            self.revisions,
            self.fresh,
            self.snapshots,
            self.snapshots_dropped,
            publish and bool(self.differences),
        )


_UNCHANGED: Final = Difference(NOTHING, NOTHING, [])


def _first_time(difference: Difference) -> int:
    firsts = [part.first_time for part in (difference.inserted, difference.revised) if part]
    return min([*firsts, *difference.retracted[:1]], default=MAX_TIME)
