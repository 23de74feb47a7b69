"""Forgetting what is older than a stream's retention, without making anything wrong that is kept.

Theory of operation (the rules are in ``docs/specs/retention.md``)

1. A stream with a retention is *closed* up to an instant, now and then, that far before its watermark. What lies there
   does not change any more, so nothing that was computed from it needs to be computed again.
2. Its *floor* is where it is cut off: the latest instant up to which nothing is read any more by what may still be
   computed from it. Windows keep their width in front of the closed time, `Previous` its instances, a fold everything
   after a stored state. So nothing is closed for a fold that has no stored state yet, nor where results are owed.
3. Both are durable before the first instance goes. After a crash, only what lies at or before the floor may be gone.
4. A reading that would change what is closed, or what was computed with something that is forgotten by now, is refused
   (`Stream.limit`). Everything else goes on as if nothing had happened: inside of the engine, what is forgotten counts
   as known, and is never read.
5. Instances go in pieces, each in an append of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

from hs_stream.core.affected import looks_on
from hs_stream.core.time import MIN_TIME, TimeIntervals, shift
from hs_stream.core.tool import Prefix, Previous, Window
from hs_stream.engine.contents import PatientStore
from hs_stream.engine.executor import Executor
from hs_stream.engine.graph import Graph
from hs_stream.engine.ingest import Ingest
from hs_stream.engine.ports import Clock
from hs_stream.plan.state import StreamState
from hs_stream.plan.streams import Stream

__all__ = ["Retention"]

_AT_ONCE: Final = 64
"""Streams that are closed together, while no reading is taken in."""
_PARTS: Final = 16
"""A stream is closed for another sixteenth of its retention at a time."""
_SHORTEST: Final = 1_000
_LONGEST: Final = 60_000


class Retention:
    """Closes streams and removes what they forget. ``run`` does it now and then, `forget` at once."""

    def __init__(self, graph: Graph, store: PatientStore, executor: Executor, ingest: Ingest, clock: Clock) -> None:
        self._graph = graph
        self._store = store
        self._executor = executor
        self._ingest = ingest
        self._clock = clock
        self._tried: dict[int, int] = {}
        """Per stream: up to where it was tried to close it last."""
        self._full: dict[int, Stream] = {}
        """Streams whose store may still hold something that they forgot."""
        self._finishing = asyncio.Event()
        self._alone = asyncio.Lock()

    def recover(self) -> None:
        """After a start: what was forgotten may still be there."""
        self._full = {stream.id: stream for stream in self._kept() if stream.state.floor > MIN_TIME}

    async def run(self) -> None:
        """Forget what is due, from time to time, until `finish`."""
        while not self._finishing.is_set():
            shortest = min((stream.retention or _LONGEST for stream in self._kept()), default=_LONGEST)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(shortest // _PARTS, _SHORTEST), _LONGEST) / 1000):
                    await self._finishing.wait()
            await self.forget()

    def finish(self) -> None:
        """Let `run` return after the piece under way: a write that is cut off may be durable and not known to be."""
        self._finishing.set()

    async def forget(self) -> None:
        """Close what can be closed now, and remove all that is forgotten; one call after the other."""
        async with self._alone:
            await self._forget()

    async def _forget(self) -> None:
        horizon = self._executor.horizon(self._clock.now())
        due = [stream for stream in self._kept() if self._is_due(stream, horizon)]
        for first in range(0, len(due), _AT_ONCE):
            if self._finishing.is_set():
                return
            await self._close(due[first : first + _AT_ONCE], horizon)
        for stream in list(self._full.values()):
            assert stream.retention is not None
            # A changed definition may begin later than its retention says; old results stay for that long.
            end = min(stream.state.floor, shift(stream.reach_of(stream.state, horizon), -stream.retention))
            more = True
            while more:
                if self._finishing.is_set():
                    return
                more = await self._ingest.forget(stream, end)
                # Readings first.
                await asyncio.sleep(0)
            del self._full[stream.id]

    def _kept(self) -> list[Stream]:
        return [stream for stream in self._graph.streams.values() if stream.retention is not None]

    def _is_due(self, stream: Stream, horizon: int) -> bool:
        assert stream.retention is not None
        end = shift(stream.reach_of(stream.state, horizon), -stream.retention)
        known = max(self._tried.get(stream.id, MIN_TIME), stream.state.closed)
        return end > known + max(stream.retention // _PARTS, 1)

    # --- closing ---

    async def _close(self, streams: Sequence[Stream], horizon: int) -> None:
        async with self._executor.alone(), self._ingest.undisturbed():
            # Nothing that is on its way reaches what is closed now.
            ahead = max(stream.ahead for stream in self._graph.streams.values())
            latest = shift(self._executor.schedule.quiet_until(), -ahead)
            changed: list[tuple[Stream, StreamState]] = []
            for stream in streams:
                assert stream.retention is not None
                end = shift(stream.reach(horizon), -stream.retention)
                found = await self._cut(stream, min(end, latest), horizon)
                if found is not None:
                    changed.append((stream, _cut_off(stream, *found)))
                elif end <= latest:
                    self._tried[stream.id] = end
            if not changed:
                return
            # What no workflow has now may need what is forgotten here, should one bring it back.
            await self._ingest.forget_strays()
            await self._store("register", self._store.store.register, [one.record(state) for one, state in changed])
            for stream, state in changed:
                stream.replace(state)
                self._full[stream.id] = stream
            self._tell([stream for stream, _ in changed])

    @staticmethod
    def _tell(changed: Sequence[Stream]) -> None:
        """Tell others what is closed."""
        raised: dict[int, Stream] = {}
        for stream in changed:
            for child, slot in stream.children:
                if child.note_closed(slot):
                    raised[child.id] = child
        for child in raised.values():
            child.tell_upstream()

    async def _cut(self, stream: Stream, end: int, horizon: int) -> tuple[int, int] | None:
        """``(closed, floor)`` when ``stream`` is closed up to ``end``, or ``None``: it must wait, or is for nothing."""
        if end <= stream.state.closed:
            return None
        if any(looks_on(child.support(slot)) for child, slot in stream.children):
            last = await self._store("last", self._store.store.last, stream.id, end, 1)
            if not last or last.last_time <= stream.state.closed:
                return None
            end = last.last_time
        floor, instances = end, 1
        for child, slot in stream.children:
            support = child.support(slot)
            # Results later than this may be computed again.
            final = shift(end, -child.lookaheads[slot])
            if not self._is_done(child, final, horizon):
                return None
            if isinstance(support, Window):
                floor = min(floor, final - support.lookback)
                if support.before:
                    held = await self._store("last", self._store.store.last, stream.id, floor, support.before)
                    if len(held) < support.before:
                        return None
                    floor = held.first_time - 1
            elif isinstance(support, Previous):
                instances = max(instances, support.n)
            elif isinstance(support, Prefix) and child.state.coverage:
                state = await self._store("snapshot", self._store.store.snapshot, child.id, end)
                if state is None:
                    return None
                floor = min(floor, state.time)
        last = await self._store("last", self._store.store.last, stream.id, end, instances)
        if len(last) < instances:
            return None
        floor = min(floor, last.first_time - 1)
        first = await self._store("read", self._store.store.read, stream.id, stream.state.floor, floor, limit=1)
        return (end, floor) if first else None

    @staticmethod
    def _is_done(stream: Stream, end: int, horizon: int) -> bool:
        """Whether all that is wanted of ``stream`` up to ``end`` is computed, or failed."""
        missing = (stream.wanted() & TimeIntervals.of(MIN_TIME, end)) - stream.covered(horizon)
        return not missing and not stream.agenda.joined


def _cut_off(stream: Stream, closed: int, floor: int) -> StreamState:
    """The state of ``stream`` when it is; what is forgotten is not known to be wrong any more."""
    state = stream.state._replace(closed=closed, floor=floor)
    if stream.kind == "raw":
        return state
    gone = TimeIntervals.of(MIN_TIME, floor)
    return state._replace(coverage=state.coverage | gone, stale=state.stale - gone, failed=state.failed - gone)
