"""One engine's life, played by a test: deliveries, time, restarts, crashes and takeovers at chosen writes.

`History` holds what the outside world knows: what was published and acknowledged, and what a subscriber was told. It is
what `hs_stream.testing.check_workflow` and the state machine of our own tests play. Nothing in it waits for real time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any, Final

from hs_stream.core.errors import BackendUnavailable, LawViolation, ToolError
from hs_stream.core.stream import StreamId
from hs_stream.core.time import EMPTY, MAX_TIME, MIN_TIME, format_time
from hs_stream.core.value import Value, same
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.backend import INLINE
from hs_stream.engine.engine import Engine, EngineSettings
from hs_stream.engine.ports import Backend, Delivery, Reading, Store
from hs_stream.plan.state import MOST_FAILED
from hs_stream.testing.clock import VirtualClock
from hs_stream.testing.faults import Crash, FaultyStore, Gate, When
from hs_stream.testing.oracle import Verification, verify
from hs_stream.testing.owner import Owner, crash_of
from hs_stream.testing.subscriber import Line, Subscriber

__all__ = ["History", "Subscriber"]

_LEASE_MS: Final = 3_600_000
_PAUSE: Final = 0.005
_REST_SECONDS: Final = 20.0
"""Real time, of which a history takes milliseconds: what is not at rest by then goes round in circles."""
_SLACK: Final = 15_000
"""What is older than so many milliseconds must be computed: idle time, lateness and some steps."""


class History:
    """``factory`` gives an unopened store over the same storage every time it is called.

    Crashes: `arm` it, and the next actions may end the engine; `survive` then starts another one over what is stored.
    Takeovers, for stores that several objects may have open: `freeze` it, and at some point the process stands still;
    `survive` then starts another one, which takes the store over. `wake` lets the first one go on. A store may have two
    methods for it: ``stored()`` is what is stored, as two sets, of which the second may lose members any time;
    ``answered()`` returns when its server has carried out what it got, where a claim does not wait for that.
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
        self.crashes = self.restarts = self.takeovers = 0
        self.acknowledged: dict[StreamId, dict[int, Value]] = {}
        self.engine: Engine
        self._factory = factory
        self._settings = settings
        self._pace = pace
        self._backend = backend
        self._fault: tuple[int, When] = (0, "after")
        self._freeze = 0
        self._owner: Owner
        self._aside: list[Owner] = []
        """Who stands still, while another one has the store."""
        self._awake: list[Owner] = []
        self._holder = ""
        self._last: Reading | None = None
        self._unacknowledged: list[tuple[list[Reading], bool]] = []
        self._unfollowed: set[StreamId] = set()

    # --- life ---

    async def begin(self) -> None:
        """Start the first engine."""
        await self._open()

    def arm(self, writes: int, when: When = "after") -> None:
        """Crash at the ``writes``-th durable write from now on (0: never), also of the engines that come after."""
        self._fault = (writes, when)
        if hasattr(self, "_owner"):
            store = self._owner.store
            store.crash_at = store.writes + writes if writes else 0
            store.when = when

    def freeze(self, points: int) -> None:
        """Let the process stand still at the ``points``-th point from now on, see `FaultyStore` (0: never)."""
        self._freeze = points
        if hasattr(self, "_owner"):
            self._owner.gate.at = points

    async def _open(self) -> None:
        while not await self._open_one():
            pass
        await self._follow()
        self._owner.run()
        self.engine.connected(True)
        # A broker sends again what was not acknowledged, in order.
        again, self._unacknowledged = self._unacknowledged, []
        for readings, asked in again:
            await self.deliver(readings, asked=asked)

    async def _open_one(self) -> bool:
        """Another process; whether it has opened."""
        takes_over = bool(self._aside) and self._aside[-1] is self._owner
        if hasattr(self, "_owner") and not takes_over:
            await self._owner.let_go()
        store = FaultyStore(await self._factory(), *self._fault, pace=self._pace, gate=Gate(self._freeze))
        name = f"owner {self.takeovers}" if takes_over else ""
        if takes_over:
            held = await store.inner.claim(name, _LEASE_MS, instead_of=self._holder)
            if held.owner != name:
                raise LawViolation(f"{held.owner} keeps the store")
            self._holder = name
        self.engine = Engine(
            store,
            clock=self.clock,
            sinks=[Line(self.subscriber, store.gate)],
            settings=self._settings,
            backend=self._backend,
        )
        self._owner = Owner(store, self.engine, name)
        try:
            if await self._owner.open(self.workflows):
                return True
        except Crash:
            self._crashed()
        else:
            await self._set_aside()
        return False

    async def _set_aside(self, call: asyncio.Future[Any] | None = None) -> None:
        """The process stands still, and ``call`` with it: the next one takes the store over."""
        self.takeovers += 1
        self._freeze = 0
        self._aside.append(self._owner)
        await self._owner.left(call)

    async def _follow(self) -> None:
        """What no workflow has is not published; a subscriber reads it anew when it is back."""
        store = self._owner.store.inner
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
        owner = self._owner
        await owner.unless_still(running, owner.task)
        if owner.task.done() and crash_of(owner.task) is not None:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError, Crash):
                await running
            self._crashed()
            await self._open()
            return False
        if owner.gate.where and not running.done():
            await self._set_aside(running)
            await self._open()
            return False
        try:
            await running
        except Crash:
            # Our own call hit the fault; the engine's next one would.
            await owner.abandon()
            self._crashed()
            await self._open()
            return False
        return True

    async def abandon(self) -> None:
        """End the engine's task, whatever it is doing, and all that stand still."""
        for owner in (*self._aside, *self._awake, self._owner):
            await owner.abandon()

    async def restart(self, workflows: Sequence[WorkflowDefinition] | None = None) -> None:
        """Stop in order (a crash or a takeover may come in between) and start again, perhaps with other definitions."""
        stopping = asyncio.ensure_future(self._owner.stop())
        await self._owner.unless_still(stopping)
        if workflows is not None:
            self.workflows = list(workflows)
        if not stopping.done():
            await self._set_aside(stopping)
        elif stopping.result():
            self.restarts += 1
        else:
            self._crashed()
        await self._open()

    async def wake(self, *, quiet: bool = True) -> None:
        """The process that stands still for the longest, if there is one, goes on, and must be fenced.

        ``quiet``: it does so at once, while its successor does nothing. Then nothing that is stored may change.
        """
        if not quiet:
            if self._aside:
                self._wake_first()
            return
        await self._finish()
        await self.settle()
        while self._owner.gate.where:  # it was not at rest, but for what it writes now and then
            await self._set_aside()
            await self._open()
            await self.settle()
        if not self._aside:
            return
        heir = self._owner
        heir.gate.close()
        await heir.store.at_rest()
        kept, books = await self._stored()
        self._wake_first()
        await self._finish()
        kept_then, books_then = await self._stored()
        heir.gate.open()
        if changed := (kept ^ kept_then) | (books_then - books):
            raise LawViolation(f"a process that had stood still changed what is stored: {sorted(changed)[:3]}")

    def _wake_first(self) -> None:
        owner = self._aside.pop(0)
        self._awake.append(owner)
        now = self.clock.now()
        came = []
        if self._last is not None:
            came = [replace(self._last, time=now + len(self._awake))]
            came += [replace(one, meta=(*one.meta[:-1], (one.meta[-1][0], "new"))) for one in came if one.meta]
        owner.wake(came, now)

    async def _finish(self) -> None:
        """Return when all that woke have ended."""
        while self._awake:
            await self._awake[0].end()
            del self._awake[0]

    async def _stored(self) -> tuple[set[str], set[str]]:
        """What only the next write may change, and of what some may go any time, where the store says so.

        The owner is held up; what it has sent before is done when nothing changes any more.
        """
        stored = getattr(self._owner.store.inner, "stored", None)
        if stored is None:
            return set(), set()
        found: tuple[set[str], set[str]] = await stored()
        while True:
            await asyncio.sleep(_PAUSE)
            before, found = found, await stored()
            if found == before:
                return found

    async def wake_all(self) -> None:
        """`wake`, until nobody stands still, and nobody will."""
        self.freeze(0)
        await self.wake()
        while self._aside:
            await self.wake()

    async def end(self) -> None:
        """Stop the engine, without a crash."""
        self.arm(0)
        await self._owner.stop()
        self._owner.task.result()

    # --- what happens to it ---

    async def deliver(self, readings: list[Reading], *, asked: bool = False) -> None:
        """One delivery, of readings that somebody ``asked`` for or not; use it through `survive`."""
        self._unacknowledged.append((readings, asked))
        self._last = readings[-1] if readings else self._last
        engine = self.engine

        def acknowledge() -> None:
            if engine is not self.engine:
                return  # the connection is that of its successor by now
            first, _ = self._unacknowledged.pop(0)
            if first is not readings:
                raise LawViolation("deliveries are acknowledged out of order")
            limits = self._limits()
            for reading in readings:
                stream = StreamId(reading.source, reading.meta)
                if reading.time > limits.get(stream, MIN_TIME):
                    self.acknowledged.setdefault(stream, {})[reading.time] = reading.value

        await engine.deliver(Delivery(readings, [], self.clock.now(), acknowledge, asked=asked))

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
            engine = self.engine
            await self._until_done(lambda: engine.purge(stream, start, end))

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
            engine = self.engine
            with contextlib.suppress(ToolError):
                await self._until_done(lambda: engine.compute([stream], start, end))

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
        await self._finish()
        await self.settle()
        while not await self.survive(self._published):
            await self.settle()
        now = self.clock.now()
        store = self._owner.store.inner
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
