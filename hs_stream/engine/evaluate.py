"""Evaluating one owed interval of one stream: gather what the supports read, and run the task that this makes.

1. The interval is never widened on the output side; inputs are read as far as the supports say.
2. Much owed history is done newest first, in pieces of about ``CHUNK`` input instances (a fold: oldest first).
3. A tool that raises fails the instants at which it does, and no others (`hs_stream.compute.attempt`). How much is read
   on the way to them is bounded; what is left then is left to a later step.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping
from typing import Final

from hs_stream.compute.task import NO_STATES, Carried, Result, Task
from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.time import MIN_TIME
from hs_stream.core.tool import OnGrid, Pointwise, Previous, Sources, Support, Window
from hs_stream.core.value import Value
from hs_stream.engine.contents import Contents
from hs_stream.engine.ports import Backend
from hs_stream.engine.telemetry import Telemetry
from hs_stream.plan.streams import Stream

__all__ = ["CHUNK", "SEARCH", "Evaluator"]

CHUNK: Final = 20_000
_LONG: Final = 64
"""From so many instants of a grid on it does not matter what is read beside them."""
SEARCH: Final = 4
"""So many chunks of instances are read at the most in search of what raises in one piece."""


class Evaluator:
    """Evaluates pieces of streams on the given contents. ``backend`` runs the tasks."""

    def __init__(self, contents: Contents, telemetry: Telemetry, backend: Backend, chunk: int = CHUNK) -> None:
        self._contents = contents
        self._telemetry = telemetry
        self._run = backend.run
        self.chunk = chunk

    async def gather(self, stream: Stream, start: int, end: int, limit: int) -> tuple[Sources, int]:
        """What ``(low, end]`` reads, ``low >= start``; ``low > start`` when ``limit`` instances are all that fit.

        On a grid only what its instants read, which is nothing between two of them: most arrivals end a window of no
        output.
        """
        due = self._due(stream, start, end)
        if due is None:
            return Sources([] if stream.aggregate else [NOTHING] * len(stream.inputs)), start
        first, last = due
        sources, low = await self._read(stream, first, last, limit)
        return sources, low if low > first else start

    def at_hand(self, stream: Stream, start: int, end: int) -> Sources | None:
        """What `gather` gives for all of ``(start, end]``, where the tails have it. Not of an aggregate."""
        due = self._due(stream, start, end)
        if due is None:
            return Sources([NOTHING] * len(stream.inputs))
        first, last = due
        pieces = []
        for source, support in zip(stream.inputs, stream.supports, strict=True):
            batch = self._at_hand(source, support, first, last)
            if batch is None:
                return None
            pieces.append(batch)
        return Sources(pieces)

    def _at_hand(self, source: Stream, support: Support, start: int, end: int) -> Batch | None:
        low, before = start, 0
        if isinstance(support, Window):
            if support.after or start <= MIN_TIME:
                return None
            low, end, before = start - max(support.lookback - 1, 0), end + support.lookahead, support.before
        elif isinstance(support, Previous):
            before = support.n
        elif not isinstance(support, Pointwise):
            return None
        batch = self._contents.at_hand(source, low, end)
        if batch is None or not before:
            return batch
        held = self._contents.last_at_hand(source, low, before)
        return None if held is None else held.slice(source.state.floor, low).then(batch)

    @staticmethod
    def _due(stream: Stream, start: int, end: int) -> tuple[int, int] | None:
        """The part of ``(start, end]`` in which outputs may lie, if it is not long anyway."""
        if not isinstance(stream.drive, OnGrid) or start <= MIN_TIME:
            return start, end
        grid = stream.drive.grid
        if end - start > _LONG * grid.every:
            return start, end
        times = grid.times(start, end)
        return (int(times[0]) - 1, int(times[-1])) if len(times) else None

    async def _read(self, stream: Stream, start: int, end: int, limit: int) -> tuple[Sources, int]:
        low = start
        pieces: list[Batch] = []
        keys: list[str] = []
        sources = self._sources(stream, start)
        for slot, source in sources:
            support = stream.support(slot)
            if isinstance(support, Pointwise):
                batch, complete = await self._contents.read_some(source, start, end, limit=limit)
                if not complete:
                    low = max(low, batch.first_time - 1)
            elif isinstance(support, Window):
                batch, floor = await self._window(source, support, start, end, limit)
                low = max(low, floor)
            elif isinstance(support, Previous):
                batch, floor = await self._previous(source, support.n, start, end, limit + support.n)
                low = max(low, floor)
            else:
                batch = await self._contents.read(source, MIN_TIME, end)
            if batch or not stream.aggregate:
                pieces.append(batch)
                keys.append(stream.keys[slot])
        return Sources(pieces, keys if stream.aggregate else ()), low

    def _sources(self, stream: Stream, start: int) -> list[tuple[int, Stream]]:
        """The inputs that can have something after ``start``.

        Of an aggregate that reads nothing earlier, at its head only those that changed.
        """
        if not stream.aggregate:
            return list(enumerate(stream.inputs))
        pending = stream.agenda.pending_inputs
        if pending is None or start < stream.end() or not isinstance(stream.supports[0], Pointwise):
            slots = stream.order
        else:
            slots = sorted(pending, key=stream.keys.__getitem__)
        return [(slot, stream.inputs[slot]) for slot in slots]

    async def _window(self, source: Stream, support: Window, start: int, end: int, limit: int) -> tuple[Batch, int]:
        back, before, last = max(support.lookback - 1, 0), support.before, end + support.lookahead
        first = start if start <= MIN_TIME else start - back
        after = await self._contents.first(source, last, support.after) if support.after else NOTHING
        while True:
            batch, complete = await self._contents.read_some(source, first, last, limit=limit)
            if complete:
                if before and first > MIN_TIME:
                    held = (await self._contents.last(source, first, before)).slice(source.state.floor, first)
                    batch = Batch.concat([held, batch])
                return Batch.concat([batch, after]), start
            # The step may have taken away some of what was read.
            if len(batch) > before:
                floor = (int(batch.times[before - 1]) if before else batch.first_time - 1) + back
                if floor < end:
                    return Batch.concat([batch, after]), floor
            limit *= 4

    async def _previous(self, source: Stream, n: int, start: int, end: int, limit: int) -> tuple[Batch, int]:
        while True:
            batch, complete = await self._contents.read_some(source, start, end, limit=limit)
            if complete:
                before = (await self._contents.last(source, start, n)).slice(source.state.floor, start)
                return Batch.concat([before, batch]), start
            # The step may have taken away some of what was read.
            if len(batch) > n:
                return batch, int(batch.times[n - 1])
            limit *= 4

    def run(
        self,
        stream: Stream,
        start: int,
        end: int,
        sources: Sources,
        carried: Carried | None = None,
        old: Mapping[int, Value] = NO_STATES,
        every: int = 0,
    ) -> Result | Awaitable[Result]:
        """The results over ``(start, end]``, or over a part of it (rule 3). See `Task` for what folds need.

        They are there at once where the backend has them at once. Never raises what a tool raises.
        """
        assert stream.tool is not None
        bound = stream.stream.meta, stream.into
        task = Task(
            stream.tool, start, end, sources, SEARCH * self.chunk, carried, old, every, stream.agenda.wary, *bound
        )
        began = time.perf_counter()
        done = self._run(task)
        if not isinstance(done, Result):
            return self._wait(done, stream.tool.name, began)
        self._telemetry.step(stream.tool.name, time.perf_counter() - began)
        return done

    async def _wait(self, coming: Awaitable[Result], tool: str, began: float) -> Result:
        done = await coming
        self._telemetry.step(tool, time.perf_counter() - began)
        return done
