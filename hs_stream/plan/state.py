"""What is durable of one stream.

A `StreamState` is never changed. What makes another one durable replaces it: a commit, an append (of a raw stream), a
retention, a recovery. Whoever looks from outside sees nothing else.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from hs_stream.core.time import EMPTY, MIN_TIME, TimeIntervals
from hs_stream.core.value import Value

__all__ = ["MOST_FAILED", "Head", "StreamState"]

MOST_FAILED: Final = 128
"""Failed intervals that a stream remembers, the newest ones; what failed before them counts as computed, and empty."""


class Head(NamedTuple):
    """``state`` is a fold's state after all input instances at or before any instant of ``since`` to ``until``.

    Or `hs_stream.core.fold_states.HALTED`. The tool may change it in place, so it is of use to the next step only.
    """

    since: int
    until: int
    state: Value
    passed: int = 0
    """Input instances since the last snapshot."""


class StreamState(NamedTuple):
    """What is durable of a stream, and how far silence carries it."""

    coverage: TimeIntervals = EMPTY
    """What was evaluated, and is stored. Of a raw stream nothing: ``upper`` says it all."""
    stale: TimeIntervals = EMPTY
    """Was computed and is not right any more; what is stored there stays readable until it is replaced."""
    failed: TimeIntervals = EMPTY
    """Where the tool raised, the newest `MOST_FAILED` intervals. What of it is covered failed; the rest is history,
    until it is computed again."""
    error: str = ""
    owed: TimeIntervals = EMPTY
    """What can be computed and did not fit into a step."""
    frontier: int = MIN_TIME
    """No instance, not even a retracted one, was ever stored later than that."""
    upper: int = MIN_TIME
    """Of a raw stream: its watermark without what silence adds."""
    floor: int = MIN_TIME
    """What lies at or before it is forgotten."""
    closed: int = MIN_TIME
    """Not before the floor: nothing at or before it changes any more for those who read the stream."""
    since: int = MIN_TIME
    """Of a raw stream: its readings before it came too late to say where streams without inputs begin."""
    fold: Head | None = None
    settled: bool = False
    """Nothing is owed: silence may prove more than the coverage."""
    due: int | None = None
    """The earliest instant after the coverage at which there may be an output; ``None`` when there is none."""
    old: int | None = None
    """The first instance stored after the coverage, where there is one: silence does not prove it right."""
    wanted_until: int = MIN_TIME
    """The end of what is wanted right after the coverage."""

    def end(self) -> int:
        """The end of the coverage; `MIN_TIME` when nothing is computed."""
        pairs = self.coverage.pairs
        return pairs[-1][1] if pairs else MIN_TIME

    def right(self) -> TimeIntervals:
        """What is computed and right, for the store and for those outside: the coverage without what failed."""
        return self.coverage - self.failed if self.failed else self.coverage
