"""One engine's life, played by a test: deliveries, time, restarts, crashes at chosen writes, and what must hold after.

`History` holds what the outside world knows: what was published and acknowledged, and what a subscriber was told. It is
behind `hs_stream.testing.check_workflow` and the state machine of our own tests. Nothing in it waits for real time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Final

from hs_stream.core.errors import BackendUnavailable, LawViolation, ToolError
from hs_stream.core.stream import StreamId
from hs_stream.core.time import EMPTY, MAX_TIME, MIN_TIME, format_time
from hs_stream.core.value import Value, same
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.backend import INLINE
from hs_stream.engine.engine import Engine, EngineSettings
from hs_stream.engine.ports import Backend, Delivery, Publication, Reading, Store, Unpublished
from hs_stream.engine.state import MOST_FAILED
from hs_stream.testing.clock import VirtualClock
from hs_stream.testing.faults import Crash, FaultyStore, When
from hs_stream.testing.oracle import Verification, verify

__all__ = ["History", "Subscriber"]

_REST_SECONDS: Final = 20.0
"""Real time, of which a history takes milliseconds: what is not at rest by then goes round in circles."""
_SLACK: Final = 15_000
"""Milliseconds behind the clock beyond which every input must be computed: idle time, lateness and some steps."""


class Subscriber:
    """A sink that keeps, per stream, what its messages say."""

    name = "subscriber"
    forgets_ms = 0

    def __init__(self) -> None:
        self.contents: dict[StreamId, dict[int, Value]] = {}
        self.revisions: dict[tuple[StreamId, int], int] = {}
        self.received = 0

    async def run(self, connected: Callable[[bool], None]) -> None:
        """Always connected."""
        connected(True)

    async def publish(self, publications: Sequence[Publication]) -> Sequence[Unpublished]:
        """Apply what is not a repeat."""
        for publication in publications:
            self.received += 1
            change, stream = publication.change, publication.stream
            key = (stream, change.time)
            if change.revision <= self.revisions.get(key, -1):
                continue
            self.revisions[key] = change.revision
            contents = self.contents.setdefault(stream, {})
            if change.kind == "retract":
                contents.pop(change.time, None)
            else:
                contents[change.time] = change.value
        return ()


class History:
    """``factory`` gives an unopened store over the same storage every time it is called.

    Crashes: `arm` it, and the next actions may end the engine; `survive` then starts another one over what is stored.
    ``pace`` makes the store take its time, see `FaultyStore`. ``backend`` is the engine's.
    """

    def __init__(
        self,
        factory: Callable[[], Awaitable[Store]],
        workflows: Sequence[WorkflowDefinition],
        settings: EngineSettings,
        now: int = 1_600_000_000_000,
        pace: Random | None = None,
        backend: Backend = INLINE,
    ) -> None:
        self.workflows = list(workflows)
        self.clock = VirtualClock(now)
        self.subscriber = Subscriber()
        self.crashes = self.restarts = 0
        self.acknowledged: dict[StreamId, dict[int, Value]] = {}
        self.engine: Engine
        self._factory = factory
        self._settings = settings
        self._pace = pace
        self._backend = backend
        self._fault: tuple[int, When] = (0, "after")
        self._store: FaultyStore
        self._task: asyncio.Task[None]
        self._unacknowledged: list[tuple[list[Reading], bool]] = []
        self._unfollowed: set[StreamId] = set()

    # --- life ---

    async def begin(self) -> None:
        """Start the first engine."""
        await self._open()

    def arm(self, writes: int, when: When = "after") -> None:
        """Crash at the ``writes``-th durable write from now on (0: never), also of the engines that come after."""
        self._fault = (writes, when)
        if hasattr(self, "_store"):
            self._store.crash_at = self._store.writes + writes if writes else 0
            self._store.when = when

    async def _open(self) -> None:
        while True:
            await self._let_go()
            self._store = FaultyStore(await self._factory(), *self._fault, pace=self._pace)
            self.engine = Engine(
                self._store,
                clock=self.clock,
                sinks=[self.subscriber],
                settings=self._settings,
                backend=self._backend,
            )
            try:
                await self.engine.open(self.workflows)
            except Crash:
                self._crashed()
                continue
            break
        await self._follow()
        self._task = asyncio.create_task(self.engine.run(), name="engine")
        self.engine.connected(True)
        # A broker sends again what was not acknowledged, in order.
        again, self._unacknowledged = self._unacknowledged, []
        for readings, asked in again:
            await self.deliver(readings, asked=asked)

    async def _follow(self) -> None:
        """What no workflow has is not published; a subscriber reads it anew when it is back."""
        store = self._store.inner
        there = {status.stream for status in self.engine.status()}
        for record in await store.streams():
            if record.stream not in there:
                self._unfollowed.add(record.stream)
            elif record.stream in self._unfollowed:
                self._unfollowed.remove(record.stream)
                self.subscriber.contents[record.stream] = dict(await store.read(record.id, MIN_TIME, MAX_TIME))

    def _crashed(self) -> None:
        self.crashes += 1
        self._fault = (0, "after")

    async def survive(self, action: Callable[[], Awaitable[object]]) -> bool:
        """``action``, and whether it went through. When the engine crashes meanwhile, start another one."""
        running = asyncio.ensure_future(action())
        await asyncio.wait({running, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done() and _crash_of(self._task) is not None:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError, Crash):
                await running
            self._crashed()
            await self._open()
            return False
        try:
            await running
        except Crash:
            # Our own call hit the fault; the engine's next one would.
            await self.abandon()
            self._crashed()
            await self._open()
            return False
        return True

    async def abandon(self) -> None:
        """End the engine's task, whatever it is doing."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Crash, BaseExceptionGroup):
            await self._task
        await self._let_go()

    async def _let_go(self) -> None:
        """Of the store before, also where a crash cancelled its own tidying up."""
        if hasattr(self, "_store"):
            inner = self._store.inner
            await getattr(inner, "abandon", inner.close)()

    async def restart(self, workflows: Sequence[WorkflowDefinition] | None = None) -> None:
        """Stop in order (a crash may come in between) and start again, perhaps with other definitions."""
        stopping = asyncio.ensure_future(self.engine.stop())
        await asyncio.wait({self._task})
        with contextlib.suppress(Crash):
            await stopping
        if _crash_of(self._task) is None:
            await self.engine.close()
            self.restarts += 1
        else:
            self._crashed()
        if workflows is not None:
            self.workflows = list(workflows)
        await self._open()

    async def end(self) -> None:
        """Stop the engine, without a crash."""
        self.arm(0)
        await self.engine.stop()
        await asyncio.wait({self._task})
        await self.engine.close()
        self._task.result()

    # --- what happens to it ---

    async def deliver(self, readings: list[Reading], *, asked: bool = False) -> None:
        """One delivery, of readings that somebody ``asked`` for or not; use it through `survive`."""
        self._unacknowledged.append((readings, asked))

        def acknowledge() -> None:
            first, _ = self._unacknowledged.pop(0)
            if first is not readings:
                raise LawViolation("deliveries are acknowledged out of order")
            limits = self._limits()
            for reading in readings:
                stream = StreamId(reading.source, reading.meta)
                if reading.time > limits.get(stream, MIN_TIME):
                    self.acknowledged.setdefault(stream, {})[reading.time] = reading.value

        await self.engine.deliver(Delivery(readings, [], self.clock.now(), acknowledge, asked=asked))

    def _limits(self) -> dict[StreamId, int]:
        """Up to where readings are refused now. Another definition may move that back: what was refused stays so."""
        if not any(workflow.retention for workflow in self.workflows):
            return {}
        return {status.stream: status.limit for status in self.engine.status() if status.limit is not None}

    async def settle(self) -> None:
        """Until everything delivered is durable, computed and committed, whatever crashes on the way."""
        while not await self.survive(self.engine_settle):
            pass

    # The engine of the moment: a crash in between brings another one.

    async def engine_settle(self) -> None:
        """`Engine.settle`."""
        try:
            async with asyncio.timeout(_REST_SECONDS):
                await self.engine.settle()
        except TimeoutError:
            raise LawViolation(f"the engine does not come to rest: {self.engine.statistics()}") from None

    async def _published(self) -> None:
        await self.engine.published()

    async def _forget(self) -> None:
        await self.engine.forget()

    async def pass_time(self, milliseconds: int) -> None:
        """Settle, and turn the clock, so that silence is proven."""
        await self.settle()
        self.clock.advance(milliseconds)
        await asyncio.sleep(0)

    async def purge(self, stream: StreamId, start: int, end: int) -> None:
        """Settle, and forget ``(start, end]`` of ``stream``, again after each crash until it went through."""
        await self.settle()
        known = self.acknowledged.get(stream)
        if known is not None:
            self.acknowledged[stream] = {time: value for time, value in known.items() if not start < time <= end}

        async def purge() -> None:
            await self._until_done(lambda: self.engine.purge(stream, start, end))

        while not await self.survive(purge):
            await self.settle()
            if not self._has(stream):
                break

    async def forget(self) -> None:
        """Forget what retention allows to forget by now, whatever else is under way."""
        await self.survive(self._forget)

    async def request(self, stream: StreamId, start: int, end: int) -> None:
        """Compute a window of ``stream`` on request; a tool that raises there is no violation."""

        async def compute() -> None:
            with contextlib.suppress(ToolError):
                await self._until_done(lambda: self.engine.compute([stream], start, end))

        await self.settle()
        while not await self.survive(compute):
            await self.settle()
            if not self._has(stream):
                break

    @staticmethod
    async def _until_done(call: Callable[[], Awaitable[object]]) -> None:
        """Ask again where the backend broke a step off."""
        while True:
            with contextlib.suppress(BackendUnavailable):
                await call()
                return

    def _has(self, stream: StreamId) -> bool:
        """Streams of a plate that grows by results do not outlive a crash where the results are others by now."""
        return any(status.stream == stream for status in self.engine.status())

    # --- what must hold ---

    async def check(self, *, everything: bool = True) -> Verification:
        """Raise `LawViolation` unless contents equal the oracle's, what was acknowledged, and what was published.

        All that is demanded must be computed, up to the watermarks less what its tools look ahead. With ``everything``,
        silence must have brought these to shortly before now (let time pass before), once there is a reading.
        """
        await self.settle()
        while not await self.survive(self._published):
            await self.settle()
        now = self.clock.now()
        store = self._store.inner
        horizon = self.engine.horizon
        found = await verify(store, self.workflows, MIN_TIME, now, records=self.engine.records(), horizon=horizon)
        if found.count:
            raise LawViolation(f"{found.count} differences, first {found.mismatches[0]}")
        self._check_failed(found)
        for stream, missing in found.owed.items():
            raise LawViolation(f"{stream} is not computed on {missing}, although its inputs are known")
        if everything and any(self.acknowledged.values()) and horizon < now - _SLACK:
            raise LawViolation(f"silence is proven up to {format_time(horizon)} only, and it is {format_time(now)}")
        await self._check_raw(store)
        await self._check_subscriber(store)
        return found

    def _check_failed(self, found: Verification) -> None:
        """What fails from scratch is told, where it is computed at all; what does not is in ``owed``."""
        for status in self.engine.status():
            silent = status.coverage & found.failed.get(status.stream, EMPTY)
            if silent and len(status.failed) < MOST_FAILED:
                raise LawViolation(f"{status.stream} fails on {silent}, and says nothing of it")

    async def _check_raw(self, store: Store) -> None:
        statuses = {status.stream: status for status in self.engine.status()}
        for stream, acknowledged in self.acknowledged.items():
            # Up to the limit, readings are refused by now, and may be forgotten.
            known = statuses[stream].limit
            limit = MIN_TIME if known is None else known
            expected = {time: value for time, value in acknowledged.items() if time > limit}
            stored = dict(await store.read(statuses[stream].id, limit, MAX_TIME))
            for time, value in expected.items():
                if time not in stored or not same(stored[time], value):
                    raise LawViolation(f"{stream} at {time}: {value!r} was acknowledged, {stored.get(time)!r} stored")
            if len(stored) != len(expected):
                raise LawViolation(f"{stream} holds {len(stored)} readings, {len(expected)} were acknowledged")

    async def _check_subscriber(self, store: Store) -> None:
        published = {
            name for workflow in self.workflows for name, node in workflow.nodes.items() if node.publish is not None
        }
        for record in await store.streams():
            if record.stream.name not in published or record.stream in self._unfollowed:
                continue
            floor = MIN_TIME if record.floor is None else record.floor
            stored = dict(await store.read(record.id, floor, MAX_TIME))
            told = self.subscriber.contents.get(record.stream, {})
            seen = {time: value for time, value in told.items() if time > floor}
            wrong = [
                time
                for time in stored.keys() | seen.keys()
                if (time in stored) != (time in seen) or not same(stored.get(time), seen.get(time))
            ]
            if wrong:
                time = min(wrong)
                raise LawViolation(
                    f"{record.stream} at {time}: a subscriber holds {seen.get(time)!r}, stored is {stored.get(time)!r}"
                )


def _crash_of(task: asyncio.Task[None]) -> BaseException | None:
    if task.cancelled():
        return None
    error = task.exception()
    if isinstance(error, BaseExceptionGroup):
        crashes, rest = error.split(Crash)
        if rest is not None:
            raise rest
        return crashes
    if error is not None and not isinstance(error, Crash):
        raise error
    return error
