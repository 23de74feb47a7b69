"""What is owed and did not fit into a step: whose turn it is, and how much one turn may do.

1. Each workflow has a lane, and so has what somebody asks for. Lanes take turns, so that one with hours of work holds
   up no other.
2. Within a lane streams take turns too. A turn looks at as many of them as its budget is enough for, as far as the
   turns before tell.
3. A budget counts input instances, and follows how long steps take: live data waits for no more than one turn. Part of
   that time is the same for any budget (a stream with thousands of holes, a commit): a turn that would do less work
   than that is not made smaller. What a step does never changes results, only how soon they are there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Final

from hs_stream.plan.streams import Stream

__all__ = ["Backlog", "Lane", "Pace"]

MOST: Final = 60_000
"""Input instances in one turn, at the most."""
_LEAST: Final = 64
_FIRST: Final = 8_000
_LONG: Final = 250
_SHORT: Final = 100
"""Milliseconds: a step that takes longer, or less long, makes the next budget smaller, or larger."""
_WIDEST: Final = 256
"""Streams that one turn looks at, at the most."""
_ASKED: Final = ""
"""The lane of what somebody asks for; no workflow has this name."""


class Pace:
    """A budget that follows how long steps take, and is never smaller than ``least``."""

    __slots__ = ("_least", "budget")

    def __init__(self, least: int = _LEAST) -> None:
        self._least = least
        self.budget = _FIRST

    def follow(self, milliseconds: int, working: int, *, exhausted: bool) -> None:
        """A step took so long, ``working`` of it to evaluate, and used its budget up or not."""
        beside = milliseconds - working
        if milliseconds > _LONG and working > 2 * beside:
            self.budget = max(self.budget // 2, self._least)
        elif exhausted and (milliseconds < _SHORT or working < beside):
            self.budget = min(self.budget * 2, MOST)


class Lane:
    """The streams of one workflow, next first."""

    __slots__ = ("name", "pace", "streams", "width")

    def __init__(self, name: str) -> None:
        self.name = name
        self.pace = Pace()
        self.width = _WIDEST
        self.streams: dict[int, Stream] = {}

    def follow(self, milliseconds: int, working: int, *, exhausted: bool) -> None:
        """See `Pace.follow`. What used its budget up looked at too many streams: some may have got nothing."""
        self.pace.follow(milliseconds, working, exhausted=exhausted)
        self.width = max(self.width // 2, 1) if exhausted else min(self.width * 2, _WIDEST)


class Backlog:
    """Streams of which something is owed that did not fit into a step."""

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}
        """Those that have streams, next first."""
        self._of: dict[int, Lane] = {}

    def add(self, stream: Stream, *, served: bool) -> None:
        """Something is left of ``stream``. It goes to the end where it was ``served``, and keeps its place if not."""
        name = _ASKED if stream.requests else stream.workflow
        lane = self._of.get(stream.id)
        if lane is not None and (served or lane.name != name):
            self.discard(stream)
            lane = None
        if lane is None:
            lane = self._lanes.get(name)
            if lane is None:
                lane = self._lanes[name] = Lane(name)
            lane.streams[stream.id] = stream
            self._of[stream.id] = lane

    def discard(self, stream: Stream) -> None:
        """Nothing is left of ``stream``."""
        lane = self._of.pop(stream.id, None)
        if lane is not None:
            del lane.streams[stream.id]

    def turn(self) -> tuple[Lane, list[Stream]] | None:
        """The lane whose turn it is, and those of its streams that are looked at; it goes to the end of the row."""
        for name in list(self._lanes):
            lane = self._lanes.pop(name)
            if lane.streams:
                self._lanes[name] = lane
                return lane, list(islice(lane.streams.values(), lane.width))
        return None

    def counts(self) -> Counter[str]:
        """Per workflow, of how many streams something is owed."""
        return Counter(stream.workflow for stream in self)

    def __contains__(self, stream: Stream) -> bool:
        return stream.id in self._of

    def __iter__(self) -> Iterator[Stream]:
        for lane in self._lanes.values():
            yield from lane.streams.values()

    def __len__(self) -> int:
        return len(self._of)
