"""The engine: one object that takes deliveries in and keeps every demanded stream right.

``open`` recovers, ``run`` works until ``stop``; in between, `deliver` readings. Everything waits with a bound, and
every task belongs to the one TaskGroup of `run`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from hs_stream.core.batch import Batch
from hs_stream.core.errors import StoreUnavailable
from hs_stream.core.records import DeadLetter, StreamRecord
from hs_stream.core.size import Use
from hs_stream.core.stream import StreamId
from hs_stream.core.time import EMPTY, MIN_TIME
from hs_stream.core.watermark import Silence
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.backend import INLINE
from hs_stream.engine.clock import SystemClock
from hs_stream.engine.contents import PatientStore
from hs_stream.engine.executor import Executor
from hs_stream.engine.explain import LIMITS, Explanation, Limits, explain
from hs_stream.engine.feed import Feed
from hs_stream.engine.graph import Graph
from hs_stream.engine.growth import Growth
from hs_stream.engine.ingest import Ingest, Overwritten
from hs_stream.engine.outbox import Outbox
from hs_stream.engine.ports import Backend, Clock, Delivery, Guard, Mirror, Reading, Sink, Store
from hs_stream.engine.recovery import recover
from hs_stream.engine.requests import Requests
from hs_stream.engine.retention import Retention
from hs_stream.engine.status import EngineSettings, EngineStatistics, StreamStatus, progress, status_of
from hs_stream.engine.telemetry import Telemetry
from hs_stream.engine.unpublished import Unsent
from hs_stream.plan.tail import Room

__all__ = ["Engine", "EngineSettings", "EngineStatistics", "StreamStatus"]

_LAST_PUBLISH: Final = 2.0
"""Seconds for what is committed to be published while stopping; the rest is published after the next start."""


class Engine:
    """Workflows over one store. Not thread-safe: use it from one event loop.

    ``sinks`` get what is published, each with a cursor in the store; one that is not among them any more keeps nothing.
    Without ``sinks`` nothing is published, and nothing is taken for it: what waits in the store goes on waiting.
    ``backend`` runs the tasks, for who wants that done elsewhere.
    """

    def __init__(
        self,
        store: Store,
        *,
        settings: EngineSettings | None = None,
        clock: Clock | None = None,
        telemetry: Telemetry | None = None,
        sinks: Sequence[Sink] = (),
        mirrors: Sequence[Mirror] = (),
        guard: Guard | None = None,
        backend: Backend = INLINE,
    ) -> None:
        self.settings = settings or EngineSettings()
        self.clock = clock or SystemClock()
        self.store = store
        self._telemetry = telemetry or Telemetry()
        self._patient = PatientStore(store, self.clock, self._telemetry, guard)
        self.feed = Feed(self._patient, self.clock)
        self._sinks, self._mirrors = sinks, mirrors
        self._backend = backend
        self._graph = Graph()
        self._executor: Executor
        self._ingest: Ingest
        self._outbox: Outbox
        self._retention: Retention
        self._opened = False
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()
        self._running = False
        self._requests: Requests

    # --- life ---

    async def open(self, workflows: Sequence[WorkflowDefinition]) -> None:
        """Open the store, recover, and ground ``workflows`` over the plate values that are stored.

        Raises `ConfigurationError` (definitions that contradict each other) and `StoreUnavailable`.
        """
        recovery = await self.store.open()
        await self.feed.open()
        cursors = await self.store.sinks([sink.name for sink in self._sinks]) if self._sinks else {}
        records = await self.store.streams()
        settings = self.settings
        major = settings.recompute_on == "major"
        self._graph = Graph(records, restrict_to_major=major, tails=Room(settings.tails))
        silence = Silence(settings.idle, MIN_TIME if recovery.proven is None else recovery.proven)
        self._executor = Executor(
            self._graph,
            self._patient,
            silence,
            self.clock,
            self._telemetry,
            self.feed,
            backend=self._backend,
            commit_seq=recovery.commit_seq,
            settings=settings,
        )
        self._ingest = Ingest(
            self._graph,
            self._patient,
            self._executor,
            self.feed,
            self.clock,
            self._telemetry,
            append_seq=recovery.append_seq,
            lateness=settings.lateness,
            max_future=settings.max_future,
            max_in_flight=settings.max_in_flight,
            max_bytes=settings.in_flight,
        )
        self._outbox = Outbox(
            *(self._graph, self._patient, self._sinks, self._mirrors, self.clock, self._telemetry),
            cursors=cursors,
            bury=self._ingest.bury,
        )
        self._retention = Retention(self._graph, self._patient, self._executor, self._ingest, self.clock)
        self._executor.committer.tell(self._outbox.offer)
        growth = Growth(self._graph, self._patient, self._executor, self._ingest, self.clock)
        self._executor.on_growth(growth.grow, growth.make_sure)
        parts = self._graph, self._executor, self._ingest, self.clock
        self._requests = Requests(*parts, self._stopping, self._stopped)
        self.clock.subscribe(self._executor.schedule.wake.set)
        for workflow in workflows:
            self._graph.add_workflow(workflow)
        for record in records:
            if record.kind == "raw" and record.stream not in self._graph.streams:
                self._graph.adopt(record.stream)
        await recover(recovery, self.store, *parts, lateness=settings.lateness)
        self._outbox.recover(recovery.commit_seq)
        self._retention.recover()
        self._opened = True

    async def run(self) -> None:
        """Work until `stop`. Raises what cannot be retried; then nothing that was acknowledged is lost."""
        self._running = True
        try:
            async with asyncio.TaskGroup() as group:
                ingest = group.create_task(self._ingest.run(), name="ingest")
                executor = group.create_task(self._executor.run(), name="executor")
                outbox = group.create_task(self._outbox.run(), name="outbox")
                retention = group.create_task(self._retention.run(), name="retention")
                await self._stopping.wait()
                self._retention.finish()
                await retention
                self._ingest.finish()
                await ingest
                self._executor.finish()
                await executor
                await self._executor.conclude()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LAST_PUBLISH):
                        await self._outbox.drained()
                outbox.cancel()
            await self._executor.committer.write_uppers(self.clock.now())
            await self._outbox.record(final=True)
        finally:
            self._running = False
            self._stopped.set()

    async def stop(self) -> None:
        """Finish the append and the step under way, commit, acknowledge, return. Idempotent."""
        self._stopping.set()
        if self._running:
            await self._stopped.wait()

    def hurry(self) -> None:
        """Do not wait for a store that is away: `stop` then ends with `StoreUnavailable` instead of waiting."""
        self._patient.give_up()

    async def close(self) -> None:
        """Close the store."""
        with contextlib.suppress(StoreUnavailable):
            await self.store.close()

    # --- input ---

    async def deliver(self, delivery: Delivery) -> None:
        """Take ``delivery`` in; waits while too much is in flight. ``delivery.ack`` is called when it is durable."""
        await self._ingest.deliver(delivery)

    async def take(self, readings: Sequence[Reading]) -> list[DeadLetter]:
        """`deliver` them and return when they are durable, also without `run`; those that cannot be stored.

        Raises `Unavailable` when `stop` is called before: whether they are stored is not known, and to take them once
        more changes nothing.
        """
        return await self._requests.take(readings, running=lambda: self._running)

    def connected(self, up: bool) -> None:
        """The source's connection came or went: while it is away, silence proves nothing."""
        self._executor.silence.connected(up, self.clock.now())
        self._executor.schedule.wake.set()

    async def settle(self) -> None:
        """Return when everything delivered is durable, computed and committed. What only silence can complete stays."""
        while not self.settled:
            if self._running:
                await asyncio.sleep(0.002)
            else:
                await self._ingest.drain()
                await self._executor.step()
                await asyncio.sleep(0)

    @property
    def settled(self) -> bool:
        """Whether `settle` would return at once."""
        return self._ingest.idle and not self._executor.busy

    async def published(self) -> None:
        """Return when everything committed so far is confirmed by every sink. Needs `run`."""
        await self._outbox.drained()

    # --- on request ---

    async def compute(
        self,
        streams: Sequence[StreamId],
        start: int,
        end: int,
        progress: Callable[[int, int], None] | None = None,
        *,
        complete: bool = False,
    ) -> None:
        """Compute exactly what is missing of ``streams`` in ``(start, end]``, also without `run`.

        ``progress(done, total)`` is called with milliseconds of stream time. Returns when all that the inputs allow
        is computed. ``complete``: no source is connected, and what is not here by now is taken not to exist, as if
        silence had proven it up to where the request reads; what comes after all is late. Raises `NotFound`,
        `ToolError` when an interval failed, and `Unavailable` when `stop` is called.
        """
        targets = [self._graph.find(stream) for stream in streams]
        await self._requests.compute(targets, start, end, progress, complete=complete)

    async def write_history(self) -> None:
        """Write down what was computed and is not in the store's history yet. `run` does it by itself."""
        await self._executor.write_history()

    def want(self, stream: StreamId, start: int, token: int | None = None) -> int:
        """Keep ``stream`` computed from ``start`` on, whether or not its workflow is online, until `unwant`.

        With the ``token`` of an earlier call: look again, as inputs may have joined or fallen silent. `NotFound`.
        """
        return self._requests.want(self._graph.find(stream), start, token)

    def unwant(self, token: int) -> None:
        """Undo `want`."""
        self._graph.release(token)

    async def purge(self, stream: StreamId, start: int, end: int) -> int:
        """Forget what is stored of ``stream`` in ``(start, end]``, durably; whatever rests on it becomes stale.

        Of a raw stream the readings are gone. What is demanded of a derived stream, and of all descendants, is computed
        again from what is left; the rest stays as it was, readable and not covered. Up to `StreamStatus.limit` nothing
        is purged, since what rests on it cannot be computed again. Returns how many instances went. Raises `NotFound`,
        and `Unavailable` when `stop` is called.
        """
        return await self._requests.purge(self._graph.find(stream), start, end)

    async def forget(self) -> None:
        """Remove what the retention of its node allows to forget by now; `run` does it from time to time.

        Nothing becomes stale by it, and nothing is computed again.
        """
        await self._retention.forget()

    # --- output ---

    async def read(
        self,
        stream: StreamId,
        start: int,
        end: int,
        *,
        limit: int | None = None,
        newest: bool = False,
        budget: int | None = None,
    ) -> Batch:
        """Stored instances in ``(start, end]``, as `hs_stream.engine.ports.Store.read` has them. Raises `NotFound`."""
        return await self.store.read(self._graph.find(stream).id, start, end, limit=limit, newest=newest, budget=budget)

    async def explain(self, stream: StreamId, time: int | None = None, limits: Limits = LIMITS) -> Explanation:
        """Why ``stream`` has its value at ``time``, or its newest one. `NotFound`: no such stream, or no value."""
        found = self._graph.find(stream)
        return await explain(self._graph, self.store, found, time, self._executor.look().coverage(found), limits)

    def find(self, stream: StreamId) -> StreamStatus:
        """The status of ``stream``. Raises `NotFound`."""
        return status_of(self._graph.find(stream), self._executor.look())

    def failed(self) -> list[StreamStatus]:
        """The status of every stream of which something failed, by id."""
        look = self._executor.look()
        return [status_of(stream, look) for stream in self._graph.by_id.values() if look.failed(stream)]

    def pending(self) -> list[str]:
        """The nodes of which something is left for later steps: much owed history waits until live data is computed."""
        return sorted({stream.node for stream in self._executor.schedule.backlog})

    def find_id(self, identity: int) -> StreamStatus:
        """The status of the stream with this id. Raises `NotFound`."""
        return status_of(self._graph.find_id(identity), self._executor.look())

    def status(self, name: str | None = None, meta: Mapping[str, str] | None = None) -> list[StreamStatus]:
        """The status of every stream of this name (all names if ``None``) that agrees with ``meta``, by id."""
        wanted, look = (meta or {}).items(), self._executor.look()
        return [
            status_of(stream, look)
            for stream in self._graph.by_id.values()
            if (name is None or stream.stream.name == name) and wanted <= dict(stream.stream.meta).items()
        ]

    def records(self) -> list[StreamRecord]:
        """What the store would hold of every stream if everything known by now were written down."""
        look = self._executor.look()
        return [
            replace(stream.record(), coverage=look.coverage(stream) if stream.kind == "derived" else EMPTY)
            for stream in self._graph.by_id.values()
        ]

    def overwritten(self) -> list[Overwritten]:
        """Where readings were replaced by others of the same time, since the start: by source."""
        return sorted(self._ingest.overwritten.values(), key=lambda found: found.source)

    @property
    def horizon(self) -> int:
        """Up to where silence of every source is proven, and taken account of (ms); `MIN_TIME` while it is not."""
        return self._executor.look().horizon

    def plates(self) -> dict[str, dict[str, list[dict[str, str]]]]:
        """Per workflow and plate: the values seen so far, each with those of its ancestors."""
        return {name: ground.values.tree() for name, ground in self._graph.grounds.items()}

    def unpublished(self) -> dict[str, Unsent]:
        """By reason, what the other side would not have."""
        return self._outbox.refusals.by_reason

    @property
    def workflows(self) -> list[WorkflowDefinition]:
        """The running workflows."""
        return [ground.workflow for ground in self._graph.grounds.values()]

    @property
    def session(self) -> str:
        """The session that history entries name, once the engine is open."""
        return self._executor.tally.session

    @session.setter
    def session(self, session: str) -> None:
        self._executor.tally.belongs_to(session)

    @property
    def store_trouble(self) -> str:
        """What the store said when it last failed; empty while it works."""
        return "" if self._patient.available else self._patient.trouble

    def memory(self) -> dict[str, Use]:
        """What grows with what is sent, in bytes."""
        tails, ingest = self._graph.tails, self._ingest
        return {
            "tails": Use(tails.used, tails.limit, tails.shortened),
            "in_flight": Use(ingest.in_flight_bytes, self.settings.in_flight),
        }

    def statistics(self) -> EngineStatistics:
        """What happened and what waits."""
        now = self.clock.now()
        newest, complete = progress(self._graph, self._executor.look())
        return EngineStatistics(
            self._executor.pending,
            self._ingest.in_flight,
            self._outbox.pending,
            self._executor.committer.steps,
            self._ingest.readings,
            self._executor.committer.results,
            self._outbox.count,
            self._ingest.dead_letters,
            self._ingest.late,
            len(self._graph.streams),
            self._patient.available,
            {name: max(now - at, 0) / 1000 for name, at in newest.items()},
            {name: max(now - at, 0) / 1000 for name, at in complete.items()},
            sum(found.count for found in self._ingest.overwritten.values()),
            self._executor.schedule.owed(),
            self._outbox.pending_by_sink,
        )
