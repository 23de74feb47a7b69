"""What the step in progress would change: one `Draft`, until its commit makes it so.

A step walks the touched streams in topological order, rank by rank: of one rank, none reads results of another. For
each it takes back the affected coverage, evaluates what is available, demanded and not covered, and hands the
*difference* on to the stream's consumers. All of it is written to the draft, and read from there by what comes later.
Streams of one rank may be under way at once, and what comes of each does not depend on the order in which they are done
(`Draft.streams` and the commit are in order of rank and id). Then:

1. It becomes one atomic `hs_stream.engine.ports.Commit`. When that is durable, `Draft.keep` makes the working states
   and tails those of the streams.
2. A step that is broken off before (an error, or whoever waits for it is cancelled) is a draft that is forgotten:
   `Draft.drop`. Nobody outside of the step has seen anything of it. What it took on is done by the next step.
3. Of a commit that is broken off nobody knows whether it is durable. Such a draft is neither kept nor dropped: the same
   commit is written again before anything else is done (`hs_stream.engine.executor.Executor.alone`).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from typing import Final

from hs_stream.core.time import EMPTY, TimeIntervals
from hs_stream.plan.backlog import MOST
from hs_stream.plan.owed import drives
from hs_stream.plan.streams import Stream
from hs_stream.plan.work import Work

__all__ = ["Draft"]


_MORSEL: Final = 64
"""What is new may read so many instances also where the budget is used up: it waits for no other's history."""


class Draft:
    """The work list of one step, and what comes of it. ``horizon`` is what silence proves (ms), fixed for the step.

    ``budget``: input instances beyond which what is owed is left to later steps. ``is_turn``: this is a turn of those.
    ``changed``: what of streams it takes account of, durable by now and not committed.
    """

    def __init__(
        self,
        horizon: int,
        now: int,
        budget: int = MOST,
        *,
        is_turn: bool = False,
        changed: Mapping[int, TimeIntervals] | None = None,
    ) -> None:
        self.horizon = horizon
        self.now = now
        self.budget = budget
        self.is_turn = is_turn
        self.changed: Mapping[int, TimeIntervals] = {} if changed is None else changed
        self.streams: list[Stream] = []
        """Those that have a work, in order of rank and id."""
        self.spent = 0
        self.working = 0
        """Milliseconds in which it evaluated."""
        self._evaluating = 0
        self._since = 0
        self.causes: dict[int, str] = {}
        self._touched: dict[int, dict[int, TimeIntervals]] = {}
        self._heap: list[tuple[int, int, Stream]] = []

    @property
    def exhausted(self) -> bool:
        """Whether the budget is used up."""
        return self.spent >= self.budget

    def most(self, chunk: int) -> int:
        """Instances that one evaluation may read, at most ``chunk``: what it costs is known only after it."""
        return min(chunk, _MORSEL if self.exhausted else self.budget)

    def spend(self, instances: int) -> None:
        """So many were read."""
        self.spent += instances

    def evaluates(self, now: int) -> None:
        """A stream is evaluated from ``now`` on, perhaps beside others."""
        if not self._evaluating:
            self._since = now
        self._evaluating += 1

    def evaluated(self, now: int) -> None:
        """Until ``now``."""
        self._evaluating -= 1
        if not self._evaluating:
            self.working += now - self._since

    def is_late(self, stream: Stream) -> None:
        """What arrived takes back something of ``stream``."""
        if self.causes[stream.id] == "arrival":
            self.causes[stream.id] = "late"

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

    def next(self) -> list[tuple[Stream, dict[int, TimeIntervals]]]:
        """The touched streams of the next rank, by id, and what changed per input slot; none at the end.

        Each has a work from now on, so that `drop` knows of it.
        """
        heap = self._heap
        rank = heap[0][0] if heap else 0
        found: list[tuple[Stream, dict[int, TimeIntervals]]] = []
        while heap and heap[0][0] == rank:
            _, identity, stream = heapq.heappop(heap)
            self.of(stream)
            found.append((stream, self._touched.pop(identity)))
        return found

    def of(self, stream: Stream) -> Work:
        """What is done to ``stream``; begins with its state."""
        known = stream.work
        if known is None:
            known = stream.begin_work()
            self.streams.append(stream)
        return known

    def write(self, stream: Stream) -> Work:
        """The same; it takes part in the commit."""
        work = self.of(stream)
        work.take_part()
        return work

    def __len__(self) -> int:
        return len(self._heap)

    # --- the end ---

    def keep(self) -> None:
        """The commit is durable: what the draft says is so."""
        for stream in self.streams:
            stream.end_work()

    def drop(self) -> Iterable[tuple[Stream, str]]:
        """Nothing of it is so, or will be. The streams that the next step must look at instead, each with its cause."""
        touched = {stream.id: stream for _, _, stream in self._heap}
        for stream in self.streams:
            stream.drop_work()
            agenda = stream.agenda
            end = stream.end()
            for slot, source in enumerate(stream.inputs):
                if source.state.frontier > end and drives(stream, slot):
                    agenda.wait_for(TimeIntervals.of(end, source.state.frontier))
            touched[stream.id] = stream
        return [(stream, self.causes[identity]) for identity, stream in touched.items()]
