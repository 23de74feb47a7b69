"""The engine: one object that takes deliveries in and keeps every demanded stream right.

``open`` recovers, ``run`` works until ``stop``; in between, `deliver` readings. Everything waits with a bound, and
every task belongs to the one TaskGroup of `run`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from hs_stream.compute.run import run
from hs_stream.compute.task import Result, Task
from hs_stream.core.batch import Batch
from hs_stream.core.errors import NotFound, StoreUnavailable, ToolError, Unavailable
from hs_stream.core.plate import PlateFull
from hs_stream.core.size import Use
from hs_stream.core.stream import SUGGESTED, StreamId, nearest_streams, suggestion
from hs_stream.core.time import EMPTY, MAX_TIME, MIN_TIME, Grid, TimeIntervals
from hs_stream.core.tool import OnGrid
from hs_stream.core.watermark import Silence
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.clock import SystemClock
from hs_stream.engine.contents import PatientStore
from hs_stream.engine.evaluate import CHUNK
from hs_stream.engine.executor import Executor
from hs_stream.engine.feed import Feed
from hs_stream.engine.graph import Graph
from hs_stream.engine.growth import regrow
from hs_stream.engine.ingest import Ingest, Overwritten
from hs_stream.engine.outbox import Outbox
from hs_stream.engine.ports import (
    Clock,
    DeadLetter,
    Delivery,
    Guard,
    Mirror,
    Reading,
    Recovery,
    Sink,
    Store,
    StreamRecord,
)
from hs_stream.engine.retention import Retention
from hs_stream.engine.streams import Stream
from hs_stream.engine.tail import ROOM, Room
from hs_stream.engine.telemetry import Telemetry
from hs_stream.engine.unpublished import Unsent

__all__ = ["Engine", "EngineSettings", "EngineStatistics", "StreamStatus"]

_LAST_PUBLISH: Final = 2.0
"""Seconds for what is committed to be published while stopping; the rest is published after the next start."""
_AT_ONCE: Final = 64
"""Streams that are looked up in the store at the same time while opening."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """All times in ms. ``max_in_flight``: readings taken in but not yet durable. ``chunk``: see `evaluate`.

    In bytes: ``tails`` for the newest instances of all streams, ``in_flight`` for the payloads that are not durable.
    ``backdate``: so far before its arrival a reading may say that streams without inputs begin.
    """

    lateness: int = 0
    idle: int = 10_000
    max_future: int = 5_000
    backdate: int = 31 * 86_400_000
    max_in_flight: int = 20_000
    recompute_on: Literal["minor", "major"] = "minor"
    chunk: int = CHUNK
    tails: int = ROOM
    in_flight: int = 16 << 20


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """One stream as it is now.

    ``coverage`` and ``upper`` include what silence proves. ``pending`` is owed and can be computed. ``stale`` was
    computed once and is not right any more. ``newest`` is the newest instance that was ever stored. ``changes`` counts
    instances written since the start, ``changes_behind`` how often that was at or before the newest one. What lies at
    or before ``floor`` is forgotten, and no change at or before ``limit`` is taken; ``None`` while nothing is.
    ``since``, of a raw stream: its readings before it came too late to say where streams without inputs begin.
    """

    id: int
    stream: StreamId
    kind: Literal["raw", "derived"]
    workflow: str
    node: str
    tool: str
    coverage: TimeIntervals
    upper: int | None
    pending: TimeIntervals
    stale: TimeIntervals
    failed: TimeIntervals
    error: str
    newest: int | None = None
    changes: int = 0
    changes_behind: int = 0
    floor: int | None = None
    limit: int | None = None
    since: int | None = None


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """Counters since the start, and what waits right now.

    Per workflow, in seconds before now: ``lag`` is the newest reading, ``watermark`` the instant up to which every raw
    stream is complete. ``owed``: of how many streams of each workflow something is left that did not fit into a step.
    ``outbox_pending`` is over all sinks, ``pending_by_sink`` for each.
    """

    pending_steps: int
    in_flight_readings: int
    outbox_pending: int
    steps: int
    readings: int
    results: int
    published: int
    dead_letters: int
    late: int
    streams: int
    store_available: bool
    lag: Mapping[str, float]
    watermark: Mapping[str, float]
    overwritten: int = 0
    owed: Mapping[str, int] = field(default_factory=dict)
    pending_by_sink: Mapping[str, int] = field(default_factory=dict)


class Engine:
    """Workflows over one store. Not thread-safe: use it from one event loop.

    ``sinks`` get what is published, each with a cursor in the store; one that is not among them any more keeps nothing.
    Without ``sinks`` this is no engine that publishes: what it commits waits in the store for one that does.
    ``computing`` runs the tasks, for who wants that done elsewhere: it returns what `hs_stream.compute.run.run` does.
    """

    def __init__(
        self,
        store: Store,
        *,
        settings: EngineSettings | None = None,
        clock: Clock | None = None,
        telemetry: Telemetry | None = None,
        sinks: Sequence[Sink] | None = None,
        mirrors: Sequence[Mirror] = (),
        guard: Guard | None = None,
        computing: Callable[[Task], Result] = run,
    ) -> None:
        self.settings = settings or EngineSettings()
        self.clock = clock or SystemClock()
        self.store = store
        self._telemetry = telemetry or Telemetry()
        self._patient = PatientStore(store, self.clock, self._telemetry, guard)
        self.feed = Feed(self._patient, self.clock)
        self._sinks, self._mirrors = sinks, mirrors
        self._computing = computing
        self._graph = Graph()
        self._executor: Executor
        self._ingest: Ingest
        self._outbox: Outbox
        self._retention: Retention
        self._opened = False
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()
        self._running = False
        self._requests = 0

    # --- life ---

    async def open(self, workflows: Sequence[WorkflowDefinition]) -> None:
        """Open the store, recover, and ground ``workflows`` over the plate values that are stored.

        Raises `ConfigurationError` (definitions that contradict each other) and `StoreUnavailable`.
        """
        recovery = await self.store.open()
        await self.feed.open()
        cursors = {} if self._sinks is None else await self.store.sinks([sink.name for sink in self._sinks])
        records = await self.store.streams()
        settings = self.settings
        self._graph = Graph(
            records,
            restrict_to_major=settings.recompute_on == "major",
            tails=Room(settings.tails),
        )
        silence = Silence(settings.idle, MIN_TIME if recovery.proven is None else recovery.proven)
        self._executor = Executor(
            self._graph,
            self._patient,
            silence,
            self.clock,
            self._telemetry,
            self.feed,
            computing=self._computing,
            commit_seq=recovery.commit_seq,
            chunk=settings.chunk,
        )
        self._ingest = Ingest(
            self._graph,
            self._patient,
            self._executor,
            self.clock,
            self._telemetry,
            append_seq=recovery.append_seq,
            lateness=settings.lateness,
            max_future=settings.max_future,
            backdate=settings.backdate,
            max_in_flight=settings.max_in_flight,
            max_bytes=settings.in_flight,
        )
        self._outbox = Outbox(
            *(self._graph, self._patient, self._sinks or (), self._mirrors, self.clock, self._telemetry),
            cursors=cursors,
            bury=self._ingest.bury,
        )
        self._retention = Retention(self._graph, self._patient, self._executor, self._ingest, self.clock)
        self._executor.committed = self._outbox.offer
        self._executor.grow = self._grow
        self.clock.subscribe(self._executor.wake.set)
        for workflow in workflows:
            self._graph.add_workflow(workflow)
        for record in records:
            if record.kind == "raw" and record.stream not in self._graph.streams:
                self._graph.adopt(record.stream)
        await self._recover(recovery)
        self._opened = True

    async def _recover(self, recovery: Recovery) -> None:
        """Bring memory up to the store, and take up what was left to do."""
        await regrow(self._graph, self.store)
        streams = list(self._graph.streams.values())
        raw = [stream for stream in streams if stream.kind == "raw"]
        for first in range(0, len(raw), _AT_ONCE):
            await asyncio.gather(*(self._recall(stream) for stream in raw[first : first + _AT_ONCE]))
        changed = [stream for stream in streams if self._is_new(stream)]
        if changed:
            await self.store.register([stream.record() for stream in changed])
        self._ingest.strays = [
            record
            for record in self._graph.records.values()
            if record.kind == "derived" and record.fingerprint and record.stream not in self._graph.streams
        ]
        self._executor.sourceless = [stream for stream in streams if stream.tool is not None and not stream.inputs]
        await self._recall_begins()
        now = self.clock.now()
        for identity, spans in recovery.changed.items():
            stream = self._graph.by_id.get(identity)
            if stream is not None:
                self._executor.arrived(stream, spans, now)
        if recovery.changed:
            # Late readings that nobody has taken account of: what rests on them and is left out does not hear of them.
            await self._ingest.forget_strays()
        self._executor.marked = recovery.append_seq
        self._graph.disturbed()
        self._executor.welcome((stream for stream in streams if stream.kind == "derived"), "backfill")
        self._outbox.recover(recovery.commit_seq)
        self._retention.recover()
        for stream in streams:
            if stream.outlets:
                stream.published_until = stream.frontier

    async def _grow(self, stream: Stream, values: Sequence[str]) -> None:
        """Plates grow by what ``stream`` found: their streams are durable before the results that name them."""
        fresh: list[Stream] = []
        refused: list[DeadLetter] = []
        for value in values:
            try:
                fresh += self._graph.grow(stream, value)
            except ValueError as error:
                reason = "plate_full" if isinstance(error, PlateFull) else "plate_value"
                payload = json.dumps({"stream": stream.name, "value": value}).encode()
                refused.append(DeadLetter(self.clock.now(), stream.node, reason, str(error), "", payload))
        if refused:
            await self._ingest.bury(refused)
        if fresh:
            await self._patient("register", self.store.register, [one.record() for one in fresh])
            self._executor.welcome((one for one in fresh if one.kind == "derived"), "backfill")
            self._executor.look_at(self._graph.disturbed(), "backfill")

    def _is_new(self, stream: Stream) -> bool:
        record = self._graph.records.get(stream.stream)
        return record is None or record.fingerprint != stream.fingerprint or record.workflow != stream.workflow

    async def _recall(self, stream: Stream) -> None:
        """The newest instance of a raw stream: its watermark follows from it."""
        newest = await self.store.last(stream.id, MAX_TIME, 1)
        stream.frontier = newest.last_time if newest else MIN_TIME
        if newest:
            stream.upper = max(stream.upper, stream.frontier - self.settings.lateness)

    async def _recall_begins(self) -> None:
        """Where the streams without inputs begin: only asked for where there are such streams."""
        for workflow in {stream.workflow for stream in self._executor.sourceless}:
            first = await self._earliest(workflow)
            if first is not None:
                self._executor.begin[workflow] = first
        for stream in self._executor.sourceless:
            if not isinstance(stream.drive, OnGrid):
                continue
            if stream.begin is None and self._graph.forgets(stream.workflow):
                await self._keep_begin(stream)
            elif stream.coverage:
                begin = self._executor.begin_of(stream)
                if begin is None:
                    # All readings were purged, and then we were killed.
                    begin = self._executor.begin[stream.workflow] = MAX_TIME
                lost = await self._begun_elsewhere(stream, stream.drive.grid, begin)
                # Up to there all is final, wherever it began.
                self._void(stream, lost - TimeIntervals.of(MIN_TIME, stream.limit))

    async def _keep_begin(self, stream: Stream) -> None:
        """``stream`` began before what is left of the readings, and does not begin anew."""
        found = await self.store.read(stream.id, MIN_TIME, MAX_TIME, limit=1)
        begin = self._executor.begin.get(stream.workflow)
        if found and (begin is None or found.first_time < begin):
            self._executor.begin[stream.workflow] = found.first_time

    async def _begun_elsewhere(self, stream: Stream, grid: Grid, begin: int) -> TimeIntervals:
        """What ``stream``, without inputs, covers as it is not with this ``begin``: it had another one when it ran."""
        lost = EMPTY
        for low, high in stream.coverage.pairs:
            if low < begin and await self.store.read(stream.id, low, min(high, begin), limit=1):
                lost |= TimeIntervals.of(low, min(high, begin))
            if begin < high:
                start = max(low, begin)
                found = await self.store.read(stream.id, start, high, limit=1)
                first = found.first_time if found else high + 1
                if grid.next(start) < first:
                    lost |= TimeIntervals.of(start, first - 1)
        return lost

    def _void(self, stream: Stream, lost: TimeIntervals) -> None:
        """Take ``lost`` out of the coverage, for a reason that lies before our start."""
        stream.coverage -= lost
        stream.stale |= lost
        # What is wanted is computed again, and compared. What rests on the rest of it is not right any more either.
        if unwanted := lost - stream.demand:
            self._executor.arrived(stream, unwanted, self.clock.now())

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
                self._write_down_silence()
                await self._executor.step()
                await self._executor.write_history()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LAST_PUBLISH):
                        await self._outbox.drained()
                outbox.cancel()
            await self._executor.write_uppers(self.clock.now())
            await self._outbox.record(final=True)
        finally:
            self._running = False
            self._stopped.set()

    def _write_down_silence(self) -> None:
        """Let the last step put what silence proves into the stored coverage too."""
        horizon = self._executor.horizon(self.clock.now())
        streams = self._graph.streams.values()
        self._executor.look_at(
            [stream for stream in streams if stream.kind == "derived" and stream.reach(horizon) > stream.end()],
            "arrival",
        )

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
        refused: list[DeadLetter] = []
        durable = asyncio.Event()

        async def taken() -> None:
            now = self.clock.now()
            await self.deliver(Delivery(list(readings), [], now, durable.set, refused=refused.append, asked=True))
            if not self._running:
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

    def connected(self, up: bool) -> None:
        """The source's connection came or went: while it is away, silence proves nothing."""
        self._executor.silence.connected(up, self.clock.now())
        self._executor.wake.set()

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
        targets = [self._stream(stream) for stream in streams]
        self._requests += 1
        token = self._requests
        window = TimeIntervals.of(start, end)
        involved, until = self._graph.request(targets, window, token)
        if complete:
            self._executor.silence.assume(until, self.clock.now())
        total = sum((window - target.coverage).measure() for target in targets)
        try:
            for stream in involved:
                stream.retried |= stream.failed & stream.requests[token]
            self._executor.look_at(involved, "request")
            owes = True
            while owes:
                worked = await self._executor.step()
                owes = self._executor.owes(self._graph.requested(token), token)
                if (worked or owes) and self._stopping.is_set():
                    raise Unavailable("the engine stops", hint="ask again in a moment: what was computed stays")
                if progress is not None:
                    left = sum((window - target.coverage).measure() for target in targets)
                    progress(max(total - left, 0), total)
        finally:
            self._graph.release(token)
        horizon = self._executor.silence.horizon
        for stream in targets:
            if stream.failing(horizon) & window:
                raise ToolError(stream.error, hint="see the stream's failed intervals", stream=stream.name)

    async def write_history(self) -> None:
        """Write down what was computed and is not in the store's history yet. `run` does it by itself."""
        await self._executor.write_history()

    def want(self, stream: StreamId, start: int, token: int | None = None) -> int:
        """Keep ``stream`` computed from ``start`` on, whether or not its workflow is online, until `unwant`.

        With the ``token`` of an earlier call: look again, as inputs may have joined or fallen silent. `NotFound`.
        """
        if token is None:
            self._requests += 1
            token = self._requests
        target = self._stream(stream)
        # Where a workflow keeps it, from its own start on, that is enough; a start that lies ahead is not.
        kept = target.demand.pairs[-1] if target.demand else None
        if kept is None or kept[1] < MAX_TIME or kept[0] > max(start, self.clock.now()):
            involved, _ = self._graph.request([target], TimeIntervals.of(start, MAX_TIME), token)
            self._executor.look_at(involved, "request")
        return token

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
        target = self._stream(stream)
        if self._stopping.is_set():
            raise Unavailable("the engine stops", hint="ask again in a moment")
        if target.kind == "derived":
            return await self._executor.purge(target, start, end)
        count = await self._ingest.purge(target, start, end)
        for workflow in self._graph.readers(target):
            await self._begin_again(workflow)
        return count

    async def forget(self) -> None:
        """Remove what the retention of its node allows to forget by now; `run` does it from time to time.

        Nothing becomes stale by it, and nothing is computed again.
        """
        await self._retention.forget()

    async def _begin_again(self, workflow: str) -> None:
        """Streams without inputs begin at the earliest reading that is left."""
        known = self._executor.begin.get(workflow)
        if known is None or not any(stream.workflow == workflow for stream in self._executor.sourceless):
            return
        if self._graph.forgets(workflow):
            return
        first = await self._earliest(workflow)
        if first != known:
            self._executor.begin_at(workflow, MAX_TIME if first is None else first)

    async def _earliest(self, workflow: str) -> int | None:
        """The time of the earliest reading of any raw stream of ``workflow`` that did not come too late to count."""
        firsts = []
        for stream in self._graph.streams.values():
            if stream.kind == "raw" and workflow in self._graph.readers(stream):
                found = await self._patient("read", self.store.read, stream.id, MIN_TIME, MAX_TIME, limit=1)
                firsts += [max(found.first_time, stream.since)] if found else []
        return min(firsts, default=None)

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
        return await self.store.read(self._stream(stream).id, start, end, limit=limit, newest=newest, budget=budget)

    def find(self, stream: StreamId) -> StreamStatus:
        """The status of ``stream``. Raises `NotFound`."""
        return self._status(self._stream(stream))

    def failed(self) -> list[StreamStatus]:
        """The status of every stream of which something failed, by id."""
        horizon = self._executor.silence.horizon
        return [self._status(stream) for stream in self._graph.by_id.values() if stream.failing(horizon)]

    def pending(self) -> list[str]:
        """The nodes of which something is left for later steps: much owed history is computed behind live data."""
        return sorted({stream.node for stream in self._executor.backlog})

    def find_id(self, identity: int) -> StreamStatus:
        """The status of the stream with this id. Raises `NotFound`."""
        found = self._graph.by_id.get(identity)
        if found is None:
            raise NotFound(f"there is no stream with the id {identity}", hint="see /api/streams, or hs-stream streams")
        return self._status(found)

    def status(self, name: str | None = None, meta: Mapping[str, str] | None = None) -> list[StreamStatus]:
        """The status of every stream of this name (all names if ``None``) that agrees with ``meta``, by id."""
        wanted = (meta or {}).items()
        return [
            self._status(stream)
            for stream in self._graph.by_id.values()
            if (name is None or stream.stream.name == name) and wanted <= dict(stream.stream.meta).items()
        ]

    def records(self) -> list[StreamRecord]:
        """What the store would hold of every stream if everything known by now were written down."""
        horizon = self._executor.silence.horizon
        return [
            replace(stream.record(), coverage=stream.known(horizon) if stream.kind == "derived" else EMPTY)
            for stream in self._graph.by_id.values()
        ]

    def overwritten(self) -> list[Overwritten]:
        """Where readings were replaced by others of the same time, since the start: by source."""
        return sorted(self._ingest.overwritten.values(), key=lambda found: found.source)

    @property
    def horizon(self) -> int:
        """Up to where silence of every source is proven (ms); `MIN_TIME` while it is not."""
        return self._executor.silence.horizon

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
        self._executor.tally.session = session

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
        newest: dict[str, int] = {}
        complete: dict[str, int] = {}
        horizon = self._executor.silence.horizon
        for stream in self._graph.streams.values():
            if stream.kind == "raw" and stream.frontier > MIN_TIME:
                for workflow in self._graph.readers(stream):
                    newest[workflow] = max(newest.get(workflow, MIN_TIME), stream.frontier)
                    complete[workflow] = min(complete.get(workflow, MAX_TIME), stream.reach(horizon))
        return EngineStatistics(
            self._executor.pending,
            self._ingest.in_flight,
            self._outbox.pending,
            self._executor.steps,
            self._ingest.readings,
            self._executor.results,
            self._outbox.count,
            self._ingest.dead_letters,
            self._ingest.late,
            len(self._graph.streams),
            self._patient.available,
            {name: max(now - at, 0) / 1000 for name, at in newest.items()},
            {name: max(now - at, 0) / 1000 for name, at in complete.items()},
            sum(found.count for found in self._ingest.overwritten.values()),
            self._executor.owed(),
            self._outbox.pending_by_sink,
        )

    def _stream(self, stream: StreamId) -> Stream:
        found = self._graph.streams.get(stream)
        if found is None:
            # One that never had a value is of no use to who looks for values.
            known = (other for other, one in self._graph.streams.items() if one.frontier > MIN_TIME)
            hint = suggestion(stream, nearest_streams(stream, known, SUGGESTED))
            raise NotFound(f"there is no stream {stream}", hint=hint or "hs-stream streams lists those there are")
        return found

    def _status(self, stream: Stream) -> StreamStatus:
        horizon = self._executor.silence.horizon
        coverage = stream.known(horizon)
        upper, failed = stream.reach(horizon), stream.failing(horizon)
        return StreamStatus(
            stream.id,
            stream.stream,
            stream.kind,
            stream.workflow,
            stream.node,
            "" if stream.tool is None else stream.tool.pin,
            coverage,
            None if upper <= MIN_TIME else upper,
            stream.owed,
            stream.stale,
            failed,
            stream.error if failed else "",
            None if stream.frontier <= MIN_TIME else stream.frontier,
            stream.changes,
            stream.changes_behind,
            None if stream.floor <= MIN_TIME else stream.floor,
            None if stream.limit <= MIN_TIME else stream.limit,
            None if stream.since <= MIN_TIME else stream.since,
        )


def _stops() -> Unavailable:
    return Unavailable("the engine stops", hint="send it again in a moment: what is stored by now stays as it is")
