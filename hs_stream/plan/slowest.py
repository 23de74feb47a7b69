"""How far many inputs reach together, without looking at each of them."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Protocol

from hs_stream.core.time import MAX_TIME, MIN_TIME, TimeIntervals, shift

__all__ = ["Slowest"]


class Reaching(Protocol):
    """What `Slowest` asks of an input, a `hs_stream.plan.streams.Stream`."""

    ahead: int

    @property
    def is_regular(self) -> bool: ...

    def last(self) -> int: ...

    def next_due(self) -> int | None: ...

    def covered(self, horizon: int) -> TimeIntervals: ...


class Slowest:
    """How far all inputs of an aggregate reach together (rule 4).

    For regular inputs ``min(due - 1, max(end, quiet))`` over all of them is
    ``min(smallest due - 1, max(smallest end, quiet))``, and both smallest ones change only when an input does: they
    stand at the top of two heaps, whose outdated entries are replaced when they surface. So an input may be further
    than it was when it was noted last: a watermark rises as soon as readings are durable, also within a step.
    """

    __slots__ = ("_dues", "_ends", "_irregular")

    def __init__(self) -> None:
        self._ends: list[tuple[int, int]] = []
        self._dues: list[tuple[int, int]] = []
        self._irregular: set[int] = set()

    def note(self, slot: int, inputs: Sequence[Reaching]) -> None:
        """Input ``slot`` is new, or its coverage, watermark or due instant changed."""
        source = inputs[slot]
        if not source.is_regular:
            self._irregular.add(slot)
            return
        self._irregular.discard(slot)
        heapq.heappush(self._ends, (source.last(), slot))
        if (due := source.next_due()) is not None:
            heapq.heappush(self._dues, (due, slot))
        if len(self._ends) + len(self._dues) > 8 * len(inputs) + 64:
            self._tidy(inputs)

    def available(self, inputs: Sequence[Reaching], horizon: int) -> TimeIntervals:
        """What is known of all inputs, silence included."""
        ends, dues, irregular = self._ends, self._dues, self._irregular
        while ends:
            last, slot = ends[0]
            if slot in irregular:
                heapq.heappop(ends)
            elif (now := inputs[slot].last()) != last:
                heapq.heapreplace(ends, (now, slot))
            else:
                break
        while dues:
            due, slot = dues[0]
            if slot in irregular or (next_due := inputs[slot].next_due()) is None:
                heapq.heappop(dues)
            elif next_due != due:
                heapq.heapreplace(dues, (next_due, slot))
            else:
                break
        reach = MAX_TIME
        if ends:
            reach = max(ends[0][0], shift(horizon, -inputs[ends[0][1]].ahead))
        if dues:
            reach = min(reach, max(dues[0][0] - 1, ends[0][0]))
        result = TimeIntervals.of(MIN_TIME, reach)
        for slot in irregular:
            result &= inputs[slot].covered(horizon)
        return result

    def _tidy(self, inputs: Sequence[Reaching]) -> None:
        regular = [slot for slot in range(len(inputs)) if slot not in self._irregular]
        self._ends = [(inputs[slot].last(), slot) for slot in regular]
        self._dues = [(due, slot) for slot in regular if (due := inputs[slot].next_due()) is not None]
        heapq.heapify(self._ends)
        heapq.heapify(self._dues)
