"""Which part of what is owed is done now: pure."""

from __future__ import annotations

from typing import Final

from hs_stream.core.time import EMPTY, TimeIntervals
from hs_stream.core.tool import OnGrid
from hs_stream.plan.streams import Stream
from hs_stream.plan.work import Work

__all__ = ["MOST_IN_GROUP", "PER_INTERVAL", "newest_group", "now_and_later"]

MOST_IN_GROUP: Final = 512
"""Small intervals that are evaluated together at the most."""
PER_INTERVAL: Final = 64
"""Instances that a group may read for each of its intervals: about what one more read of the store costs."""


def now_and_later(
    stream: Stream,
    work: Work,
    owed: TimeIntervals,
    *,
    is_turn: bool,
    exhausted: bool,
    waits: bool,
    takes_back: bool,
) -> tuple[TimeIntervals, TimeIntervals]:
    """What of ``owed`` a step is about, and the rest.

    What is new comes before what was left, and what is asked for before all else that was left. A fold goes on from
    what it has: of one that has much left nothing can be done before that, but for what it has to take back.
    ``is_turn``: the step is one of those that do what was left; ``exhausted``: its budget is used up; ``waits``:
    something was left of the stream before; ``takes_back``: the step took something of it back.
    """
    if stream.is_fold:
        later = not takes_back and (exhausted if is_turn else waits)
        return (EMPTY, owed) if later else (owed, EMPTY)
    first = owed
    if is_turn:
        asked = EMPTY
        for request in stream.requests.values():
            asked |= request
        first = (owed & asked) or owed
    elif waits:
        first = owed - work.owed
    return first, owed - first


def newest_group(stream: Stream, left: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """The newest ``size`` intervals of ``left``; fewer where a grid has too many instants between them."""
    group = left[-size:]
    if isinstance(stream.drive, OnGrid):
        every = stream.drive.grid.every
        while len(group) > 1 and group[-1][1] - group[0][0] > PER_INTERVAL * len(group) * every:
            group = group[len(group) // 2 :]
    return group
