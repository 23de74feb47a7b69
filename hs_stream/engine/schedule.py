"""What waits for a step: changes that are durable, streams to look at, what is owed, and what is due when.

All of it can be made again from the states of the streams. So it is nowhere written down, and a step that is given up
puts back what it took.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable, Mapping

from hs_stream.core.time import EMPTY, MAX_TIME, TimeIntervals
from hs_stream.engine.graph import Graph
from hs_stream.plan.backlog import Backlog
from hs_stream.plan.draft import Draft
from hs_stream.plan.streams import Stream

__all__ = ["Schedule"]


class Schedule:
    """See the module. ``wake`` is set when there is something new."""

    def __init__(self, graph: Graph) -> None:
        self.wake = asyncio.Event()
        self.backlog = Backlog()
        self._graph = graph
        self._expected: dict[int, TimeIntervals] = {}
        self._arrived: dict[int, TimeIntervals] = {}
        self._oldest = 0
        self._touched: dict[int, tuple[Stream, str]] = {}
        self._due: list[tuple[int, int]] = []
        self._due_at: dict[int, int] = {}

    # --- what comes ---

    def expect(self, stream: Stream, changed: TimeIntervals) -> None:
        """What is on its way into a raw stream may be durable from now on: a step may read it before `arrived`."""
        self._expected[stream.id] = changed

    def arrived(self, stream: Stream, changed: TimeIntervals, arrival: int) -> None:
        """A raw stream's durable contents changed on ``changed``, or its watermark rose.

        Of a derived stream: it is no longer covered on ``changed``, and nobody wants it to be.
        """
        self._expected.pop(stream.id, None)
        self._arrive(stream, changed, arrival)

    def _arrive(self, stream: Stream, changed: TimeIntervals, arrival: int) -> None:
        known = self._arrived.get(stream.id)
        self._arrived[stream.id] = changed if known is None else known | changed
        if changed:
            # A step under way may see how far the stream reaches now: an aggregate must then look at this input too.
            for child, slot in stream.children:
                child.agenda.note_input(slot, changed.end)
        self._oldest = min(self._oldest, arrival) if self._oldest else arrival
        self.wake.set()

    def look_at(self, streams: Iterable[Stream], cause: str) -> None:
        """Touch derived streams in the next step, whatever changed."""
        for stream in streams:
            self._touched.setdefault(stream.id, (stream, cause))
        self.wake.set()

    def unseen(self, stream: Stream) -> TimeIntervals:
        """Changes of a raw stream that the step under way may read, and that only a later one takes account of."""
        return self._expected.get(stream.id, EMPTY) | self._arrived.get(stream.id, EMPTY)

    @property
    def expects(self) -> bool:
        """Whether something is on its way into a raw stream."""
        return bool(self._expected)

    @property
    def first_expected(self) -> int:
        """Nothing at or before it is on its way into a raw stream; `MAX_TIME` while nothing is."""
        return min((spans.start for spans in self._expected.values() if spans), default=MAX_TIME)

    def changed(self, identity: int) -> TimeIntervals:
        """The same by id; also of a derived stream."""
        if not self._expected and not self._arrived:
            return EMPTY
        return self._expected.get(identity, EMPTY) | self._arrived.get(identity, EMPTY)

    # --- steps ---

    def take(self) -> tuple[dict[int, TimeIntervals], int]:
        """What has arrived, and when the oldest of it did; 0 for nothing. It belongs to a step now."""
        taken = self._arrived, self._oldest
        self._arrived, self._oldest = {}, 0
        return taken

    def waits(self, horizon: int) -> bool:
        """Whether a stream is to be looked at besides, or is due by ``horizon``."""
        due = self.next_due()
        return bool(self._touched) or (due is not None and due <= horizon)

    def touch_others(self, draft: Draft) -> None:
        """What is to be looked at, and what is due by the horizon of the step."""
        touched, self._touched = self._touched, {}
        for stream, cause in touched.values():
            draft.touch(stream, cause=cause)
        while (due := self.next_due()) is not None and due <= draft.horizon:
            _, identity = heapq.heappop(self._due)
            del self._due_at[identity]
            draft.touch(self._graph.by_id[identity])

    def put_back(self, draft: Draft, arrival: int) -> None:
        """The step is given up."""
        for identity, changed in draft.changed.items():
            self._arrive(self._graph.by_id[identity], changed, arrival)
        for stream, cause in draft.drop():
            self.look_at([stream], cause)

    # --- what is due ---

    def due_at(self, stream: Stream, at: int | None) -> None:
        """Look at ``stream`` again when silence reaches ``at``; ``None``: only when something changes."""
        if at is None:
            self._due_at.pop(stream.id, None)
        elif self._due_at.get(stream.id) != at:
            self._due_at[stream.id] = at
            heapq.heappush(self._due, (at, stream.id))
            if self._due[0][1] == stream.id:
                self.wake.set()

    def next_due(self) -> int | None:
        """The horizon at which silence makes something computable; ``None`` when there is nothing of the kind."""
        while self._due and self._due_at.get(self._due[0][1]) != self._due[0][0]:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    # --- what is owed ---

    def owes(self, stream: Stream, rest: TimeIntervals, *, served: bool) -> None:
        """``rest`` of ``stream`` did not fit into the step."""
        if rest:
            self.backlog.add(stream, served=served)
            self.wake.set()
        else:
            self.backlog.discard(stream)

    def owed_of(self, streams: Iterable[Stream], token: int) -> bool:
        """Whether any of ``streams`` has something left that can be computed of what was asked for with ``token``."""
        return any(
            stream.id in self._touched or (stream in self.backlog and stream.state.owed & stream.requests[token])
            for stream in streams
        )

    def owed(self) -> Mapping[str, int]:
        """Per workflow, of how many streams something is owed that did not fit into a step."""
        return self.backlog.counts()

    def quiet_until(self) -> int:
        """No reading before it waits to be taken account of, and nothing that is owed."""
        waiting = (*self.backlog, *(stream for stream, _ in self._touched.values()))
        owed = (stream.wanted() - stream.state.coverage for stream in waiting)
        return min((spans.start for spans in (*self._arrived.values(), *owed) if spans), default=MAX_TIME)

    def __len__(self) -> int:
        return len(self._arrived) + len(self._touched) + len(self.backlog)
