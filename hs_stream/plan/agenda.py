"""What is still to be done for one stream: notes of the executor.

They can be made again from the states at any time, by assuming that everything waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from hs_stream.core.time import EMPTY, MIN_TIME, TimeIntervals

__all__ = ["Agenda", "Taken"]

_MOST_WAITING: Final = 256
"""Intervals in which a stream remembers changes after its coverage; when there are more, they become one."""


class Taken(NamedTuple):
    """What a step took from an agenda, to be put back where the step is given up."""

    joined: frozenset[int] = frozenset()
    moved: TimeIntervals = EMPTY
    retried: TimeIntervals = EMPTY

    def plus(self, other: Taken) -> Taken:
        """Both."""
        return Taken(self.joined | other.joined, self.moved | other.moved, self.retried | other.retried)


NOTHING_TAKEN: Final = Taken()


class Agenda:
    """See the module."""

    __slots__ = ("grouped", "joined", "moved", "pending_inputs", "retried", "unsure", "waiting", "wary")

    def __init__(self) -> None:
        self.waiting = EMPTY
        """Changes of driving inputs after the coverage: they become outputs once the other inputs allow."""
        self.pending_inputs: dict[int, int] | None = None
        """Of an aggregate: the latest of these per input slot; ``None`` while unknown (each must be looked at)."""
        self.joined: set[int] = set()
        """Of an aggregate: inputs that its coverage has not taken account of yet."""
        self.unsure = True
        """Of a stream that reads what comes after its windows: something may have come that it was not told of."""
        self.moved = EMPTY
        """Of a stream without inputs: what its workflow's begin has moved over, and the next step takes back."""
        self.retried = EMPTY
        """What failed and somebody asks to be tried again."""
        self.grouped = 1
        """So many small intervals were evaluated together last, or may be next."""
        self.wary = False
        """Of a fold: its tool has raised, so that its states are copied before the tool gets them."""

    def has_inputs(self) -> None:
        """Of a new aggregate: nothing of its inputs waits."""
        self.pending_inputs = {}

    def wait_for(self, spans: TimeIntervals) -> None:
        """A driving input changed on ``spans``, after the coverage."""
        self.waiting |= spans

    def note_input(self, slot: int, end: int) -> None:
        """Of an aggregate: input ``slot`` may have something up to ``end`` that is not taken account of."""
        if self.pending_inputs is not None:
            self.pending_inputs[slot] = max(self.pending_inputs.get(slot, MIN_TIME), end)

    def forget_inputs(self) -> None:
        """Each input must be looked at."""
        self.pending_inputs = None

    def join(self, slot: int) -> None:
        """Input ``slot`` is new."""
        self.joined.add(slot)

    def move(self, spans: TimeIntervals) -> None:
        """The begin moved over ``spans``."""
        self.moved |= spans

    def retry(self, failed: TimeIntervals) -> None:
        """Somebody asks for ``failed``."""
        self.retried |= failed

    def take(self) -> Taken:
        """What a step takes back and tries again."""
        if not (self.joined or self.moved or self.retried):
            return NOTHING_TAKEN
        taken = Taken(frozenset(self.joined), self.moved, self.retried)
        self.joined.clear()
        self.moved = self.retried = EMPTY
        return taken

    def put_back(self, taken: Taken) -> None:
        """The step that took it is given up."""
        self.joined |= taken.joined
        self.moved |= taken.moved
        self.retried |= taken.retried

    def doubt(self) -> None:
        """A step that was told of what came after is given up."""
        self.unsure = True

    def is_told(self) -> None:
        """The step looks at all that came after."""
        self.unsure = False

    def group(self, size: int) -> None:
        """So many small intervals may be evaluated together next."""
        self.grouped = size

    def beware(self) -> None:
        """The tool has raised."""
        self.wary = True

    def advance(self, end: int, find: Callable[[], dict[int, int]] | None) -> None:
        """All up to ``end`` is taken account of. ``find`` knows the inputs that reach further, where it is unknown."""
        if self.waiting:
            self.waiting = EMPTY if self.waiting.end <= end else self.waiting - TimeIntervals.of(MIN_TIME, end)
            if len(self.waiting) > _MOST_WAITING:
                # Of what nobody wants, only its beginning matters.
                self.waiting = TimeIntervals([self.waiting.span()])
        if self.pending_inputs:
            self.pending_inputs = {slot: last for slot, last in self.pending_inputs.items() if last > end}
        elif self.pending_inputs is None and find is not None:
            self.pending_inputs = find()
