"""The incremental law, tried: random histories of arrivals, restarts and crashes, compared with the oracle.

A history publishes, repeats, corrects and delays readings of every source, turns the clock, stops and starts the
engine, and crashes it between any two durable writes. Whatever happens, in the end

1. every delivery that was acknowledged is stored (the latest value per stream and time),
2. stored contents equal a from-scratch evaluation, bit for bit, and everything that can be computed is,
3. a subscriber that applies each ``insert``, ``revise`` and ``retract`` (and skips repeats and older revisions)
   holds exactly what is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from hs_stream.core.errors import LawViolation
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME
from hs_stream.core.value import Value, same
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.engine import Engine, EngineSettings
from hs_stream.engine.ports import Delivery, Publication, Reading, Store
from hs_stream.testing.clock import VirtualClock
from hs_stream.testing.faults import Crash, FaultyStore, When
from hs_stream.testing.oracle import verify

__all__ = ["Report", "Subscriber", "check_workflow"]

_SLACK: Final = 15_000
"""Milliseconds behind the clock beyond which everything must be computed: idle time, lateness and some steps."""

Values = Mapping[str, Callable[[random.Random], Value]]
"""Per source: draws a value."""


@dataclass(slots=True)
class Report:
    """What a history did."""

    readings: int = 0
    instances: int = 0
    published: int = 0
    restarts: int = 0
    crashes: int = 0


class Subscriber:
    """A sink that keeps, per stream, what its messages say."""

    name = "subscriber"

    def __init__(self) -> None:
        self.contents: dict[StreamId, dict[int, Value]] = {}
        self.revisions: dict[tuple[StreamId, int], int] = {}
        self.received = 0

    async def run(self, connected: Callable[[bool], None]) -> None:
        """Always connected."""
        connected(True)

    async def publish(self, publications: Sequence[Publication]) -> None:
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


@dataclass
class _History:
    rng: random.Random
    factory: Callable[[], Awaitable[Store]]
    workflows: Sequence[WorkflowDefinition]
    values: Values
    metas: Mapping[str, Sequence[tuple[tuple[str, str], ...]]]
    crash_moments: Sequence[When]
    report: Report = field(default_factory=Report)
    clock: VirtualClock = field(default_factory=lambda: VirtualClock(1_600_000_000_000))
    subscriber: Subscriber = field(default_factory=Subscriber)
    acknowledged: dict[tuple[str, Any], dict[int, Value]] = field(default_factory=dict)
    unacknowledged: list[list[Reading]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.settings = EngineSettings(
            chunk=self.rng.choice([5, 50, 20_000]), lateness=self.rng.choice([0, 0, 2000]), max_future=5000
        )
        self.engine: Engine | None = None
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        store: Store = await self.factory()
        if self.crash_moments and self.rng.random() < 0.7:
            store = FaultyStore(store, self.rng.randint(1, 30), self.rng.choice(self.crash_moments))
        self.engine = Engine(store, clock=self.clock, sink=self.subscriber, settings=self.settings)
        await self.engine.open(self.workflows)
        self.task = asyncio.create_task(self.engine.run(), name="engine")
        self.engine.connected(True)
        # A broker sends again what was not acknowledged, in order.
        again, self.unacknowledged = self.unacknowledged, []
        for readings in again:
            await self.deliver(readings)

    async def deliver(self, readings: list[Reading]) -> None:
        assert self.engine is not None
        self.unacknowledged.append(readings)

        def acknowledge() -> None:
            first = self.unacknowledged.pop(0)
            if first is not readings:
                raise LawViolation("deliveries are acknowledged out of order")
            for reading in readings:
                self.acknowledged.setdefault((reading.source, reading.meta), {})[reading.time] = reading.value

        await self.engine.deliver(Delivery(readings, [], self.clock.now(), acknowledge))

    def draw(self) -> list[Reading]:
        rng, now = self.rng, self.clock.now()
        readings = []
        for _ in range(rng.randint(1, 30)):
            source = rng.choice(list(self.values))
            late = rng.choice([0, 0, 0, 500, 5_000, 60_000, 600_000])
            time = now - late - rng.randrange(0, 3000, rng.choice([1, 100, 500]))
            readings.append(Reading(source, rng.choice(self.metas[source]), time, self.values[source](rng)))
        self.report.readings += len(readings)
        return readings

    async def survive(self, action: Callable[[], Awaitable[None]]) -> None:
        """``action``; when the engine crashes meanwhile, start another one over what is stored."""
        assert self.task is not None
        running = asyncio.ensure_future(action())
        await asyncio.wait({running, self.task}, return_when=asyncio.FIRST_COMPLETED)
        if self.task.done() and not self.task.cancelled() and _crash_of(self.task) is not None:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError, Crash):
                await running
            await self.restart_after_crash()
            return
        await running

    async def restart_after_crash(self) -> None:
        while True:
            self.report.crashes += 1
            try:
                await self.start()
            except Crash:
                continue
            return

    async def check(self) -> None:
        assert self.engine is not None
        now = self.clock.now()
        store = self.engine.store
        found = await verify(store, self.workflows, MIN_TIME, now, records=self.engine.records())
        if not found.clean:
            raise LawViolation(f"{found.count} differences, first {found.mismatches[0]}")
        for stream, missing in found.not_computed.items():
            if missing.start < now - _SLACK:
                raise LawViolation(f"{stream} is not computed on {missing}, although its inputs are known")
        self.report.instances = found.instances
        await self._check_raw(store)
        await self._check_subscriber(store)

    async def _check_raw(self, store: Store) -> None:
        identities = {record.stream: record.id for record in await store.streams()}
        for (source, meta), expected in self.acknowledged.items():
            stored = dict(await store.read(identities[StreamId(source, meta)], MIN_TIME, MAX_TIME))
            for time, value in expected.items():
                if time not in stored or not same(stored[time], value):
                    raise LawViolation(
                        f"{source}{meta} at {time}: {value!r} was acknowledged, {stored.get(time)!r} stored"
                    )
            if len(stored) != len(expected):
                raise LawViolation(f"{source}{meta} holds {len(stored)} readings, {len(expected)} were acknowledged")

    async def _check_subscriber(self, store: Store) -> None:
        published = {
            name for workflow in self.workflows for name, node in workflow.nodes.items() if node.publish is not None
        }
        for record in await store.streams():
            if record.stream.name not in published:
                continue
            stored = dict(await store.read(record.id, MIN_TIME, MAX_TIME))
            seen = self.subscriber.contents.get(record.stream, {})
            self.report.published += len(seen)
            wrong = [time for time in stored.keys() | seen.keys() if not same(stored.get(time), seen.get(time))]
            if wrong:
                time = min(wrong)
                raise LawViolation(
                    f"{record.stream} at {time}: a subscriber holds {seen.get(time)!r}, stored is {stored.get(time)!r}"
                )


def _crash_of(task: asyncio.Task[None]) -> BaseException | None:
    error = task.exception()
    if isinstance(error, BaseExceptionGroup):
        crashes, rest = error.split(Crash)
        if rest is not None:
            raise rest
        return crashes
    if error is not None and not isinstance(error, Crash):
        raise error
    return error


async def check_workflow(
    factory: Callable[[], Awaitable[Store]],
    workflows: Sequence[WorkflowDefinition],
    values: Values,
    metas: Mapping[str, Sequence[tuple[tuple[str, str], ...]]],
    *,
    seed: int,
    rounds: int = 25,
    crash_moments: Sequence[When] = (),
) -> Report:
    """Play the random history ``seed`` and raise `LawViolation` where the module's promises do not hold.

    ``factory`` gives an unopened store over the same storage every time it is called. ``metas``: per source the plate
    values to publish under. ``crash_moments``: at which moments of a durable write to crash (none by default).
    """
    rng = random.Random(seed)  # noqa: S311 - reproducible, no secret
    history = _History(rng, factory, workflows, values, metas, crash_moments)
    await history.restart_after_crash()
    history.report.crashes = 0
    for _ in range(rng.randint(1, rounds)):
        readings = history.draw()
        await history.survive(lambda readings=readings: history.deliver(readings))  # type: ignore[misc]
        if rng.random() < 0.5:
            await history.survive(lambda: _settle(history))
        history.clock.advance(rng.choice([0, 10, 1000, 30_000]))
        if rng.random() < 0.15:
            await _restart(history)
    history.crash_moments = ()
    for advance in (60_000, 60_000, 60_000, 1):
        await history.survive(lambda: _settle(history))
        history.clock.advance(advance)
        await asyncio.sleep(0)
    await history.survive(lambda: _settle(history))
    await history.survive(lambda: _published(history))
    await history.check()
    assert history.engine is not None
    await history.engine.stop()
    await history.engine.close()
    return history.report


async def _settle(history: _History) -> None:
    assert history.engine is not None
    await history.engine.settle()


async def _restart(history: _History) -> None:
    assert history.engine is not None
    assert history.task is not None
    await history.engine.stop()
    await asyncio.wait({history.task})
    if _crash_of(history.task) is None:
        await history.engine.close()
        history.report.restarts += 1
        history.report.crashes -= 1
    await history.restart_after_crash()


async def _published(history: _History) -> None:
    assert history.engine is not None
    await history.engine.published()
