"""One executor step: what it touched, what it evaluated, and the commit that it becomes.

A step walks the touched streams in topological order. For each it takes back the affected coverage, evaluates what is
available, demanded and not covered, and hands the *difference* on to the stream's consumers. Everything that it found
goes into one atomic `hs_stream.engine.ports.Commit`.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Final

from hs_stream.core.batch import Batch
from hs_stream.core.stream import Difference
from hs_stream.core.time import EMPTY, MAX_TIME, TimeIntervals
from hs_stream.engine.backlog import MOST
from hs_stream.engine.ports import Snapshot, StreamChange
from hs_stream.engine.streams import Stream

__all__ = ["Spans", "Step", "Write"]


_MORSEL: Final = 64
"""What is new may read so many instances also where the budget is used up: it waits for no other's history."""
Spans = tuple[tuple[int, int], ...]
"""Intervals ``(start, end]``, sorted and disjoint."""


@dataclass(slots=True)
class Write:
    """What a step did to one stream."""

    stream: Stream
    written: list[tuple[Spans, Batch]] = field(default_factory=list)
    """What was evaluated, piece by piece: the pieces are disjoint, and the contents inside of each are the batch."""
    differences: list[Difference] = field(default_factory=list)
    low: int = MAX_TIME
    """The lowest start of all that was written."""
    fresh: bool = True
    floor: int = field(init=False)
    """The stream's frontier before the step: behind it there is nothing old to compare with, in whatever order the
    step evaluates it."""
    revisions: dict[int, int] = field(default_factory=dict)
    snapshots: list[Snapshot] = field(default_factory=list)
    snapshots_dropped: TimeIntervals = EMPTY

    def __post_init__(self) -> None:
        self.floor = self.stream.frontier

    def merged(self) -> Difference:
        """All differences as one."""
        if len(self.differences) == 1:
            return self.differences[0]
        parts = sorted(self.differences, key=_first_time)
        return Difference(
            Batch.concat([part.inserted for part in parts]),
            Batch.concat([part.revised for part in parts]),
            [time for part in parts for time in part.retracted],
        )

    def change(self, difference: Difference) -> StreamChange:
        """The part of the commit for this stream."""
        stream = self.stream
        return StreamChange(
            stream.id,
            stream.right(),
            stream.frontier,
            difference.inserted,
            difference.revised,
            difference.retracted,
            self.revisions,
            self.fresh,
            self.snapshots,
            self.snapshots_dropped,
            bool(stream.outlets) and bool(difference),
        )


def _first_time(difference: Difference) -> int:
    firsts = [part.first_time for part in (difference.inserted, difference.revised) if part]
    return min([*firsts, *difference.retracted[:1]], default=MAX_TIME)


class Step:
    """The work list of one step. ``horizon`` is what silence proves (ms), fixed for the whole step.

    ``budget``: input instances beyond which what is owed is left to later steps. ``behind``: it is a turn of those.
    """

    def __init__(self, horizon: int, now: int, budget: int = MOST, *, behind: bool = False) -> None:
        self.horizon = horizon
        self.now = now
        self.budget = budget
        self.behind = behind
        self.writes: dict[int, Write] = {}
        self.spent = 0
        self.working = 0
        """Milliseconds in which it evaluated."""
        self.causes: dict[int, str] = {}
        self._touched: dict[int, dict[int, TimeIntervals]] = {}
        self._heap: list[tuple[int, int, Stream]] = []

    @property
    def exhausted(self) -> bool:
        """Whether the budget is used up."""
        return self.spent >= self.budget

    def most(self, chunk: int) -> int:
        """Instances that one evaluation may read, at most ``chunk``: what it costs is known only behind it."""
        return min(chunk, _MORSEL if self.exhausted else self.budget)

    def touch(self, stream: Stream, slot: int = -1, changed: TimeIntervals = EMPTY, cause: str = "arrival") -> None:
        """Look at ``stream``; its input ``slot`` changed on ``changed``."""
        slots = self._touched.get(stream.id)
        if slots is None:
            slots = self._touched[stream.id] = {}
            self.causes[stream.id] = cause
            heapq.heappush(self._heap, (stream.rank, stream.id, stream))
        if changed:
            known = slots.get(slot)
            slots[slot] = changed if known is None else known | changed

    def next(self) -> tuple[Stream, dict[int, TimeIntervals]] | None:
        """The next touched stream in topological order, and what changed per input slot."""
        if not self._heap:
            return None
        _, _, stream = heapq.heappop(self._heap)
        return stream, self._touched.pop(stream.id)

    def write(self, stream: Stream) -> Write:
        """The record of what is done to ``stream``."""
        known = self.writes.get(stream.id)
        if known is None:
            known = self.writes[stream.id] = Write(stream)
        return known

    def __len__(self) -> int:
        return len(self._heap)
