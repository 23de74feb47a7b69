"""What one round of deliveries brings to one raw stream."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.stream import difference
from hs_stream.core.time import EMPTY, MAX_TIME, MIN_TIME, TimeIntervals
from hs_stream.engine.placing import Placed
from hs_stream.plan.streams import Stream

__all__ = ["Arrival"]


class Arrival(NamedTuple):
    """``inserts`` are later than all there is, ``upserts`` are not; both are changes on ``changed``.

    ``late`` is what of that lies at or before the watermark, ``late_readings`` how many readings do, repeats included.
    ``marks``: what is marked as changed in the append.
    """

    stream: Stream
    inserts: Batch
    upserts: Batch
    changed: TimeIntervals
    late: TimeIntervals
    late_readings: int
    marks: TimeIntervals

    @classmethod
    def of(cls, stream: Stream, placed: Placed, horizon: int, *, young: bool) -> Arrival:
        """What of a round's readings is new, what replaces, and what changes. ``young``: no commit knows the stream."""
        batch = placed.contents
        frontier, upper = stream.state.frontier, max(stream.state.upper, horizon)
        if not batch or batch.first_time > frontier:
            inserts, upserts = batch, NOTHING
            changed = TimeIntervals.of(batch.first_time - 1, batch.last_time) if batch else EMPTY
        else:
            inserts = batch.slice(frontier, MAX_TIME)
            again = batch.slice(batch.first_time - 1, frontier)
            old = Batch.of((time, placed.stored[time]) for time in again.times.tolist() if time in placed.stored)
            found = difference(old, again)
            upserts = found.inserted.update(found.revised)
            changed = TimeIntervals.points(upserts.times.tolist())
            if inserts:
                changed |= TimeIntervals.of(inserts.first_time - 1, inserts.last_time)
        late = changed & TimeIntervals.of(MIN_TIME, upper) if changed and changed.start < upper else EMPTY
        # An aggregate may cover these times from before the stream was there, and still does in what is durable.
        marks = changed if young else late
        return cls(stream, inserts, upserts, changed, late, bisect_right(placed.times, upper), marks)

    def remember(self, lateness: int) -> None:
        """It is durable: bring memory up to the store, which is tail, newest instance, watermark."""
        stream, state = self.stream, self.stream.state
        stream.count(len(self.inserts) + len(self.upserts), before_newest=bool(self.upserts))
        if self.upserts:
            stream.tail.update(self.upserts)
        if self.inserts:
            stream.tail.extend(state.frontier, self.inserts)
            frontier = self.inserts.last_time
            stream.replace(state._replace(frontier=frontier, upper=max(state.upper, frontier - lateness)))
