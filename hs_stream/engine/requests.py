"""What somebody asks for: to take readings in, to compute an interval, to keep a stream computed, to purge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from hs_stream.core.errors import ToolError, Unavailable
from hs_stream.core.time import MAX_TIME, TimeIntervals
from hs_stream.engine.executor import Executor
from hs_stream.engine.graph import Graph
from hs_stream.engine.ingest import Ingest
from hs_stream.engine.ports import Clock, DeadLetter, Delivery, Reading
from hs_stream.plan.streams import Stream

__all__ = ["Requests"]


class Requests:
    """Those for computing have a token each. ``stopping`` ends them all; ``stopped`` is set after that."""

    def __init__(
        self,
        graph: Graph,
        executor: Executor,
        ingest: Ingest,
        clock: Clock,
        stopping: asyncio.Event,
        stopped: asyncio.Event,
    ) -> None:
        self._graph = graph
        self._executor = executor
        self._ingest = ingest
        self._clock = clock
        self._stopping = stopping
        self._stopped = stopped
        self._last = 0

    def _token(self) -> int:
        self._last += 1
        return self._last

    async def compute(
        self,
        targets: Sequence[Stream],
        start: int,
        end: int,
        progress: Callable[[int, int], None] | None,
        *,
        complete: bool,
    ) -> None:
        """See `hs_stream.engine.engine.Engine.compute`."""
        token = self._token()
        window = TimeIntervals.of(start, end)
        involved, until = self._graph.request(targets, window, token)
        if complete:
            self._executor.silence.assume(until, self._clock.now())
        total = sum((window - target.state.coverage).measure() for target in targets)
        try:
            for stream in involved:
                stream.agenda.retry(stream.state.failed & stream.requests[token])
            self._executor.schedule.look_at(involved, "request")
            owes = True
            while owes:
                worked = await self._executor.step()
                owes = self._executor.schedule.owed_of(self._graph.requested(token), token)
                if (worked or owes) and self._stopping.is_set():
                    raise Unavailable("the engine stops", hint="ask again in a moment: what was computed stays")
                if progress is not None:
                    left = sum((window - target.state.coverage).measure() for target in targets)
                    progress(max(total - left, 0), total)
        finally:
            self._graph.release(token)
        look = self._executor.look()
        for stream in targets:
            if look.failed(stream) & window:
                raise ToolError(stream.state.error, hint="see the stream's failed intervals", stream=stream.name)

    def want(self, target: Stream, start: int, token: int | None) -> int:
        """See `hs_stream.engine.engine.Engine.want`."""
        if token is None:
            token = self._token()
        # Where a workflow keeps it, from its own start on, that is enough; a start that lies ahead is not.
        kept = target.demand.pairs[-1] if target.demand else None
        if kept is None or kept[1] < MAX_TIME or kept[0] > max(start, self._clock.now()):
            involved, _ = self._graph.request([target], TimeIntervals.of(start, MAX_TIME), token)
            self._executor.schedule.look_at(involved, "request")
        return token

    async def take(self, readings: Sequence[Reading], running: Callable[[], bool]) -> list[DeadLetter]:
        """See `hs_stream.engine.engine.Engine.take`."""
        refused: list[DeadLetter] = []
        durable = asyncio.Event()

        async def taken() -> None:
            now = self._clock.now()
            delivery = Delivery(list(readings), [], now, durable.set, refused=refused.append, asked=True)
            await self._ingest.deliver(delivery)
            if not running():
                await self._ingest.drain()
            await durable.wait()

        if self._stopping.is_set():
            raise _stops()
        taking = asyncio.create_task(taken(), name="take")
        over = asyncio.create_task(self._stopped.wait(), name="take: until the end")
        try:
            await asyncio.wait((taking, over), return_when=asyncio.FIRST_COMPLETED)
            if not taking.done():
                raise _stops()
            taking.result()
        finally:
            taking.cancel()
            over.cancel()
        return refused

    async def purge(self, target: Stream, start: int, end: int) -> int:
        """See `hs_stream.engine.engine.Engine.purge`."""
        if self._stopping.is_set():
            raise Unavailable("the engine stops", hint="ask again in a moment")
        if target.kind == "derived":
            return await self._executor.purge(target, start, end)
        return await self._ingest.purge(target, start, end)


def _stops() -> Unavailable:
    return Unavailable("the engine stops", hint="send it again in a moment: what is stored by now stays as it is")
