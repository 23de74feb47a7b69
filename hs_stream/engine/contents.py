"""Reading a stream's contents as the step in progress sees them: tail first, then the store under what it changed.

A store that does not answer is asked again, with a bounded, jittered delay, until the engine stops: nothing is given up
and nothing is skipped, so a store that is away means back-pressure, not loss.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

from hs_stream.backoff import backoff
from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.errors import StoreUnavailable
from hs_stream.core.time import MAX_TIME, MIN_TIME
from hs_stream.engine.ports import Clock, Guard, Store
from hs_stream.engine.telemetry import Telemetry
from hs_stream.plan.streams import Stream
from hs_stream.plan.work import Work

__all__ = ["Contents", "PatientStore"]

Result = TypeVar("Result")
_FIRST_DELAY: Final = 0.05
_LAST_DELAY: Final = 5.0
_PIECE: Final = 0.2


class PatientStore:
    """Calls a store, times every call, and repeats it while the store is unavailable.

    ``available`` is false while any operation fails: a store whose disk is full answers readers, and refuses what is
    written. After `give_up`, an unavailable store raises. A cancellation that a driver swallowed in the middle of a
    call is raised after it.
    """

    def __init__(self, store: Store, clock: Clock, telemetry: Telemetry, guard: Guard | None = None) -> None:
        self.store = store
        self._guard = guard
        self._troubles: dict[str, str] = {}
        """What the store says to each operation that fails; none for those that work."""
        self._clock = clock
        self._telemetry = telemetry
        self._patient = True

    @property
    def available(self) -> bool:
        return not self._troubles

    @property
    def trouble(self) -> str:
        """What the store said to an operation that fails since; empty while all work."""
        return next(iter(self._troubles.values()), "")

    def give_up(self) -> None:
        """From now on, do not wait for the store."""
        self._patient = False

    async def __call__(
        self, operation: str, call: Callable[..., Awaitable[Result]], *args: Any, **kwargs: Any
    ) -> Result:
        """``await call(*args, **kwargs)``, again and again on `StoreUnavailable`."""
        try:
            result = await self._until_answered(operation, call, *args, **kwargs)
        except StoreUnavailable:
            raise
        except BaseException:
            self._troubles.pop(operation, None)  # nobody waits for it any more
            raise
        if self._troubles and self._troubles.pop(operation, "") and self.available:
            self._telemetry.store_back()
        return result

    async def permitted(self) -> None:
        """Return when this process may go on: what it would tell the outside may have been corrected by another one.

        Costs nothing while the right to write is fresh. Raises what ends the process.
        """
        if self._guard is not None and self._guard.is_due():
            await self("lease", _nothing)

    async def _until_answered(
        self, operation: str, call: Callable[..., Awaitable[Result]], *args: Any, **kwargs: Any
    ) -> Result:
        attempt = 0
        while True:
            started = time.perf_counter()
            try:
                if self._guard is not None and self._guard.is_due():
                    await self._guard.renew()
                result = await call(*args, **kwargs)
            except StoreUnavailable as error:
                _raise_if_cancelled()
                self._telemetry.store_failed(operation, str(error), first=operation not in self._troubles)
                self._troubles[operation] = str(error)
                if not self._patient:
                    raise
                await self._pause(backoff(attempt, _FIRST_DELAY, _LAST_DELAY))
                attempt += 1
                continue
            _raise_if_cancelled()
            self._telemetry.store(operation, time.perf_counter() - started)
            return result

    async def _pause(self, seconds: float) -> None:
        """Wait, in small pieces, so that `give_up` is noticed soon."""
        while seconds > 0 and self._patient:
            await self._clock.sleep(min(seconds, _PIECE))
            seconds -= _PIECE


async def _nothing() -> None:
    """What is asked of the store when only the right to write is in question."""


def _raise_if_cancelled() -> None:
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _over_store(stream: Stream) -> Work | None:
    """What the step wrote to ``stream``, where the store must not be read without it."""
    work = stream.work
    return work if work is not None and work.covers_store else None


class Contents:
    """Reads for one executor: what is committed, and over it what the draft of the step says."""

    def __init__(self, store: PatientStore) -> None:
        self._call = store
        self._store = store.store
        self.served_by_tail = 0
        self.served_by_store = 0

    async def read(self, stream: Stream, start: int, end: int) -> Batch:
        """All instances in ``(start, end]``."""
        found = self.at_hand(stream, start, end)
        if found is None:
            found, _ = await self.read_some(stream, start, end, limit=None)
        return found

    def at_hand(self, stream: Stream, start: int, end: int) -> Batch | None:
        """What `read` gives, where the tail has it."""
        tail = stream.latest_tail
        if start < tail.low:
            return None
        self.served_by_tail += 1
        return tail.batch.slice(start, end)

    def last_at_hand(self, stream: Stream, instant: int, count: int) -> Batch | None:
        """What `last` gives, where the tail has it."""
        tail = stream.latest_tail
        found = tail.batch.last(instant, count)
        return found if len(found) == count or tail.low <= MIN_TIME else None

    async def before(self, stream: Stream, start: int, end: int) -> Batch:
        """All instances in ``(start, end]`` as they were before this step, where the step wrote nothing so far."""
        tail = stream.latest_tail
        low, known = tail.low, tail.batch
        if start >= low:
            self.served_by_tail += 1
            return known.slice(start, end)
        self.served_by_store += 1
        older = await self._call("read", self._store.read, stream.id, start, min(end, low))
        return Batch.concat([older, known.slice(low, end)]) if low < end else older

    async def read_some(
        self, stream: Stream, start: int, end: int, *, limit: int | None, newest: bool = True
    ) -> tuple[Batch, bool]:
        """At most about ``limit`` instances of ``(start, end]`` from one of its ends, and whether these are all."""
        tail = stream.latest_tail
        # Another stream may read the same meanwhile, and fill the tail with it: of that, only what it was here counts.
        low, known, version = tail.low, tail.batch, tail.version
        if start >= low:
            self.served_by_tail += 1
            return known.slice(start, end), True
        self.served_by_store += 1
        over = _over_store(stream)
        if low < end and over is None:
            # The tail may hold what this step changed: the store only serves what is older.
            older = await self._call("read", self._store.read, stream.id, start, low, limit=limit, newest=newest)
            if tail.version == version:
                if limit is not None and len(older) >= limit:
                    return (Batch.concat([older, known.slice(low, end)]) if newest else older), False
                everything = Batch.concat([older, known])
                self._keep(stream, start, everything, version)
                return everything.slice(start, end), True
            return await self.read_some(stream, start, end, limit=limit, newest=newest)
        batch = await self._call("read", self._store.read, stream.id, start, end, limit=limit, newest=newest)
        complete = limit is None or len(batch) < limit
        if over is not None:
            low, high = start, end
            if not complete:
                low, high = (batch.first_time - 1, end) if newest else (start, batch.last_time)
            batch = over.apply(batch, low, high)
            if limit is not None and not complete and not batch:
                # The step retracted all of them; what is left is further on.
                return await self.read_some(stream, start, end, limit=4 * limit, newest=newest)
        elif complete and end >= max(stream.latest.frontier, stream.latest.upper):
            self._keep(stream, start, batch, version)
        return batch, complete

    async def last(self, stream: Stream, instant: int, count: int) -> Batch:
        """The last ``count`` instances at or before ``instant``."""
        at_hand = self.last_at_hand(stream, instant, count)
        if at_hand is not None:
            return at_hand
        self.served_by_store += 1
        over = _over_store(stream)
        tail = stream.latest_tail
        version = tail.version
        if over is None:
            # What this step wrote is in the tail only: the store serves what is older.
            known = tail.batch.slice(tail.low, instant).last(instant, count) if tail.low < instant else NOTHING
            older = await self._call("last", self._store.last, stream.id, min(instant, tail.low), count - len(known))
            if tail.version != version:
                return await self.last(stream, instant, count)
            found = Batch.concat([older, known])
            if tail.version == version and found and instant >= max(stream.latest.frontier, stream.latest.upper):
                self._keep(stream, found.first_time - 1, found, version)
            return found
        # The step may have removed some of those that the store still holds: read back until there are enough.
        wanted = count
        while True:
            stored = await self._call("last", self._store.last, stream.id, instant, wanted)
            everything = len(stored) < wanted
            start = MIN_TIME if everything else stored.first_time - 1
            found = over.apply(stored, start, instant).last(instant, count)
            if len(found) == count or everything:
                return found
            wanted *= 4

    def _keep(self, stream: Stream, low: int, batch: Batch, version: int) -> None:
        """Remember all that is known after ``low``.

        A reading may be stored already and not have arrived yet: remembered now, it would then be there twice.
        """
        frontier = stream.latest.frontier
        stream.latest_tail.fill(min(low, frontier), batch.slice(low, frontier), version)

    async def first(self, stream: Stream, instant: int, count: int) -> Batch:
        """The first ``count`` instances later than ``instant``."""
        wanted = count
        while True:
            found, complete = await self.read_some(stream, instant, MAX_TIME, limit=wanted, newest=False)
            if complete or len(found) >= count:
                return found.slice_index(0, min(count, len(found)))
            wanted *= 4

    async def before_each(self, stream: Stream, instants: Sequence[int]) -> list[int | None]:
        """For each of the ascending ``instants``: the time of the last instance at or before it, or ``None``."""
        before = await self.last(stream, instants[0], 1)
        times = [*before.times.tolist(), *(await self.read(stream, instants[0], instants[-1])).times.tolist()]
        ranks = Batch.build(times, [0] * len(times)).times.searchsorted(instants, "right").tolist()
        return [times[rank - 1] if rank else None for rank in ranks]

    async def nth_after(self, stream: Stream, instants: Sequence[int], n: int) -> list[int | None]:
        """For each of the ascending ``instants``: the time of the n-th instance later than it, or ``None``."""
        first, last = instants[0], instants[-1]
        batch, later = await self.read(stream, first, last), await self.first(stream, last, n)
        times = [*batch.times.tolist(), *later.times.tolist()]
        ranks = Batch.build(times, [0] * len(times)).times.searchsorted(instants, "right").tolist()
        return [times[rank + n - 1] if rank + n - 1 < len(times) else None for rank in ranks]
