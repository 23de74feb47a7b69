"""One store, and an engine over it that computes on request: the asynchronous half of a `HyperStream`.

1. A store has one writer. While a service, a command or another HyperStream has it, opening is refused; a heartbeat
   refuses the others (`presence`). With ``read_only`` anything may go on beside it.
2. Whenever what is known changes, the engine begins anew over the same store, as a service that is restarted does. It
   does so too after a call that did not end well (an interrupt, a refusal, a store that went away): memory might know
   more than the store.
3. What is stored of earlier workflows is loaded, so that readings written now take back what rests on them. What does
   not load any more is left alone; `Workspace.unloaded` says why, and `Workspace.write` that it is not taken back.
4. One call at a time.
5. What may run or import code of the user's does so on the thread that calls (see `background`): opening a store of a
   plug-in, loading stored workflows, asking tools what they are, computing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from hs_stream.core.batch import Batch
from hs_stream.core.errors import ConfigurationError, NotFound, ToolError, did_you_mean
from hs_stream.core.registry import ToolRegistry
from hs_stream.core.stream import StreamId
from hs_stream.core.time import EMPTY, MIN_TIME, TimeIntervals
from hs_stream.core.value import Value
from hs_stream.core.workflow import NodeDefinition, SourceDefinition, WorkflowDefinition
from hs_stream.engine.clock import SystemClock
from hs_stream.engine.engine import Engine, StreamStatus
from hs_stream.engine.ports import DeadLetter, Delivery, HistoryEntry, Reading, Store, StreamRecord
from hs_stream.hyperstream.background import AtCaller, at_caller
from hs_stream.hyperstream.catalog import NotebookCatalog, executed
from hs_stream.hyperstream.presence import Presence
from hs_stream.hyperstream.stored import Unloaded, documents, load
from hs_stream.service.host import Host
from hs_stream.service.settings import Settings
from hs_stream.service.silence import suggest
from hs_stream.service.stores import make_store

__all__ = ["Workspace"]

_INSTEAD: Final = "open it with read_only=True and ask the service over HTTP to compute"
_COUNTED: Final = ("readings", "results", "late", "dead_letters", "steps")


class Workspace:
    """See the module. Every coroutine runs in one and the same event loop."""

    def __init__(
        self,
        settings: Settings,
        registry: ToolRegistry,
        workflows: Sequence[WorkflowDefinition] = (),
        *,
        read_only: bool = False,
    ) -> None:
        self.registry = registry
        self.read_only = read_only
        self.catalog = NotebookCatalog()
        self.unloaded: dict[str, Unloaded] = {}
        self._settings = settings
        self._given = workflows
        self._host = Host(settings, read_only=read_only, instead=_INSTEAD, make=_make_at_caller)
        self._clock = SystemClock()
        self._engine: Engine | None = None
        self._running: list[WorkflowDefinition] = []
        self._presence: Presence | None = None
        self._counts: Mapping[str, int] = dict.fromkeys(_COUNTED, 0)
        self._lock = asyncio.Lock()

    # --- life ---

    async def open(self) -> None:
        """Open the store, by rule 1. Raises `ConfigurationError` and `StoreUnavailable`."""
        if self.read_only and self._settings.store.url == "memory://":
            raise ConfigurationError("memory:// is new and empty: there is nothing to read", hint="name another store")
        await self._host.open()
        try:
            if not self.read_only:
                self._presence = Presence(self._host, self._clock, self._running, self._counters)
            for workflow in self._given:
                self.catalog = at_caller(self.catalog.with_workflow, workflow)
            stored = await self._store.documents("workflows")
            self.catalog, self.unloaded = at_caller(load, self.catalog, stored, self.registry)
            if self._presence is not None:
                await self._save([workflow.name for workflow in self._given])
                await self._presence.begin()
        except BaseException:
            await self._shut()
            raise

    @property
    def _store(self) -> Store:
        return self._host.store

    async def close(self) -> None:
        """End the session and let go of the store. Idempotent."""
        async with self._lock:
            self._let_go()
            await self._shut()

    async def _shut(self) -> None:
        presence, self._presence = self._presence, None
        try:
            if presence is not None:
                await presence.end()
        finally:
            await self._host.close()

    @property
    def session(self) -> str:
        """The id of this session; empty for ``read_only``."""
        return "" if self._presence is None else self._presence.session

    def _counters(self) -> Mapping[str, int]:
        """Of all engines of this session together."""
        running = None if self._engine is None else self._engine.statistics()
        return {name: self._counts[name] + getattr(running, name, 0) for name in _COUNTED}

    # --- the engine ---

    @asynccontextmanager
    async def _looking(self) -> AsyncIterator[Engine | None]:
        """For one call that only reads (rules 2 and 4): the engine, or ``None`` where nothing may be written."""
        async with self._lock:
            try:
                yield None if self.read_only else await self._ready()
            except (NotFound, ToolError):
                raise
            except BaseException:
                self._let_go()
                raise

    @asynccontextmanager
    async def _at_work(self) -> AsyncIterator[Engine]:
        """The engine, for one call."""
        async with self._looking() as engine:
            if engine is None:
                raise ConfigurationError("this HyperStream only reads its store", hint="open it without read_only=True")
            yield engine

    async def _ready(self) -> Engine:
        assert self._presence is not None
        if self._engine is None:
            engine = self._host.engine(clock=self._clock, backend=AtCaller())
            self._running[:] = at_caller(self.catalog.definitions)
            async with self._presence.access:
                # What a store only remembers is written when it is closed.
                await self._host.set_down()
                await self._host.take_up(anew=True)
                await self._host.begin(engine, self._running)
            engine.session = self.session
            # Every stream is looked at once, and nothing of it is wanted yet.
            await engine.settle()
            self._engine = engine
        return self._engine

    def _let_go(self) -> None:
        self._counts, self._engine = self._counters(), None

    # --- what is known ---

    async def _save(self, names: Iterable[str]) -> None:
        for name, document in at_caller(documents, self.catalog, names).items():
            await self._store.put("workflows", name, document)

    async def add_workflow(self, workflow: WorkflowDefinition) -> None:
        """Know ``workflow`` from now on, instead of another one of that name. `ConfigurationError`."""
        async with self._at_work():
            await self._learn(at_caller(self.catalog.with_workflow, workflow), workflow.name)

    async def execute(self, node: NodeDefinition, meta: Mapping[str, str], start: int, end: int) -> list[StreamId]:
        """Define ``node`` and compute those of its streams that agree with ``meta``, which are returned."""
        async with self._at_work():
            known = self.catalog.factors.get(node.name)
            if known != node:
                await self._check_sink(node.name)
                raw = [await self._raw(name) for name in node.inputs if self.catalog.node(name) is None]
                await self._learn(at_caller(self.catalog.with_factor, node, raw), executed(node.name))
            engine = await self._ready()
            await self._grow(engine, [node.name], start, end)
            streams = [status.stream for status in engine.status(node.name, meta)]
            if not streams:
                raise NotFound(
                    f"{node.name} has no streams with {dict(meta)}" if meta else f"{node.name} has no streams yet",
                    hint="they come with the readings of what it reads",
                )
            await self._compute(engine, streams, start, end)
            return streams

    async def _learn(self, catalog: NotebookCatalog, name: str) -> None:
        if catalog is self.catalog:
            return
        before, self.catalog = self.catalog, catalog
        self._let_go()
        try:
            await self._ready()
        except BaseException:
            self.catalog = before
            raise
        self.unloaded.pop(name, None)
        await self._save([name])

    async def _check_sink(self, name: str) -> None:
        if any(record.kind == "raw" and record.stream.name == name for record in await self._store.streams()):
            raise ConfigurationError(f"{name} holds readings, not results", hint="name another sink")

    async def _raw(self, name: str) -> SourceDefinition:
        """The raw streams of this name as a source."""
        known = self.catalog.source(name)
        if known is not None:
            return known
        metas = {
            tuple(key for key, _ in record.stream.meta)
            for record in await self._store.streams()
            if record.kind == "raw" and record.stream.name == name
        }
        if not metas:
            raise await self._missing(StreamId(name))
        if len(metas) > 1:
            raise ConfigurationError(
                f"some streams of {name} are on other plates than others", hint="write them to streams of another name"
            )
        return SourceDefinition(name, metas.pop())

    # --- streams ---

    async def streams(self, name: str | None, meta: Mapping[str, str]) -> list[StreamStatus]:
        """Every stream of this name (all names if ``None``) that agrees with ``meta``, by name and plate values."""
        async with self._looking() as engine:
            found = {record.stream: _status_of(record) for record in await self._store.streams()}
            if engine is not None:
                found |= {status.stream: status for status in engine.status()}
            hidden = self.catalog.begins() if name is None else set()
            return [
                found[stream]
                for stream in sorted(found)
                if name in (None, stream.name)
                and stream.name not in hidden
                and meta.items() <= dict(stream.meta).items()
            ]

    async def find(self, stream: StreamId) -> StreamStatus:
        """One stream. `NotFound` says what there is instead."""
        async with self._looking() as engine:
            return await self._find(engine, stream)

    async def _find(self, engine: Engine | None, stream: StreamId) -> StreamStatus:
        if engine is not None:
            with contextlib.suppress(NotFound):
                return engine.find(stream)
        for record in await self._store.streams():
            if record.stream == stream:
                return _status_of(record)
        raise await self._missing(stream)

    async def _missing(self, stream: StreamId) -> NotFound:
        hint = await suggest(self._store, stream)
        return NotFound(f"there is no stream {stream}", hint=hint or "write readings to it, or execute a tool into it")

    async def read(self, stream: int, start: int, end: int, *, limit: int, newest: bool = False) -> Batch:
        """Stored instances of a stream by its id."""
        async with self._looking():
            return await self._store.read(stream, start, end, limit=limit, newest=newest)

    async def count(self, stream: int, start: int, end: int) -> int:
        """How many instances are stored in ``(start, end]``."""
        async with self._looking():
            return await self._store.count(stream, start, end)

    async def write(self, stream: StreamId, items: Sequence[tuple[int, Value]]) -> list[DeadLetter]:
        """Store readings. What could not be stored is returned, newest first."""
        async with self._at_work() as engine:
            await self._check_raw(engine, stream)
            return await self._deliver(engine, stream, items)

    def not_taken_back(self, name: str) -> list[str]:
        """The workflows that read the stream ``name`` and are not loaded (rule 3)."""
        return [workflow for workflow, found in self.unloaded.items() if name in found.reads]

    async def _check_raw(self, engine: Engine, stream: StreamId) -> None:
        kind = "derived" if self.catalog.node(stream.name) is not None else "raw"
        with contextlib.suppress(NotFound):
            kind = (await self._find(engine, stream)).kind
        if kind == "derived":
            raise ConfigurationError(f"{stream.name} is computed", hint="write to a stream that no tool computes")
        for workflow in self.catalog.workflows.values():
            if stream.name in workflow.sources:
                wanted = workflow.node_plates[stream.name]
                if set(wanted) != {key for key, _ in stream.meta}:
                    text = f"{stream.name}[{','.join(f'{plate}=...' for plate in wanted)}]" if wanted else stream.name
                    raise ConfigurationError(
                        f"in the workflow {workflow.name}, {stream.name} is on {', '.join(wanted) or 'no plate'}",
                        hint=f"write to {text}",
                    )

    async def _deliver(self, engine: Engine, stream: StreamId, items: Sequence[tuple[int, Value]]) -> list[DeadLetter]:
        dead = engine.statistics().dead_letters
        readings = [Reading(stream.name, stream.meta, time, value) for time, value in items]
        await engine.deliver(Delivery(readings, [], self._clock.now(), _no_ack, asked=True))
        await engine.settle()
        dead = engine.statistics().dead_letters - dead
        return await self._store.dead_letters(dead) if dead else []

    async def compute(self, stream: StreamId, start: int, end: int) -> None:
        """Compute what is missing of ``stream`` in ``(start, end]``; nothing for a raw one."""
        async with self._at_work() as engine:
            try:
                kind = engine.find(stream).kind
            except NotFound:
                status = await self._find(engine, stream)
                unloaded = self.unloaded.get(status.workflow)
                reason = unloaded.reason if unloaded else "its workflow is not in the store"
                raise ConfigurationError(
                    f"nothing is known of how {stream} is computed: {reason}",
                    hint="load its workflow with load_workflow, or execute its tool again",
                ) from None
            if kind == "derived":
                await self._grow(engine, [stream.name], start, end)
                await self._compute(engine, [stream], start, end)

    async def compute_workflow(self, name: str, nodes: Sequence[str], start: int, end: int) -> list[StreamId]:
        """Compute what is missing of these nodes (all if there are none) of a workflow; their streams."""
        async with self._at_work() as engine:
            workflow = self.catalog.workflows.get(name)
            if workflow is None:
                raise NotFound(f"there is no workflow {name!r}", hint=did_you_mean(name, self.catalog.workflows))
            for node in nodes:
                if node not in workflow.nodes:
                    raise NotFound(f"workflow {name} has no node {node!r}", hint=did_you_mean(node, workflow.nodes))
            await self._grow(engine, nodes or workflow.order, start, end)
            streams = [status.stream for node in nodes or workflow.order for status in engine.status(node)]
            if not streams:
                raise NotFound(
                    f"workflow {name} has no streams yet", hint="they come with readings: write some to its sources"
                )
            await self._compute(engine, streams, start, end)
            return streams

    async def _grow(self, engine: Engine, nodes: Iterable[str], start: int, end: int) -> None:
        """Let plates grow by all that is read up to ``end``: the streams of the ``nodes`` come to be with it.

        From the first reading on, because a plate value is named once. A node that names the values of a plate may be
        on such a plate itself, so again until nothing is new.
        """
        workflows = [item for item in self._running if not item.nodes.keys().isdisjoint(nodes)]
        sources = {plate.source for item in workflows for plate in item.plates.values() if plate.source is not None}
        known: set[StreamId] = set()
        while found := {status.stream for name in sources for status in engine.status(name)} - known:
            await self._compute(engine, sorted(found), start, end, whole=True)
            known |= found

    async def _compute(
        self, engine: Engine, streams: Sequence[StreamId], start: int, end: int, *, whole: bool = False
    ) -> None:
        """Compute what is missing in ``(start, end]``; ``whole``: of everything up to ``end``."""
        for source, first in self.catalog.beginnings({stream.name for stream in streams}, start, end).items():
            await self._begin(engine, source, first)
        problem: ToolError | None = None
        try:
            await engine.compute(streams, MIN_TIME if whole else start, end, complete=True)
        except ToolError as error:
            problem = error
        await engine.write_history()
        if problem is not None:
            raise problem

    async def _begin(self, engine: Engine, source: str, start: int) -> None:
        """Let streams without inputs begin at ``start``, if they do not begin before it (`NotebookCatalog`, rule 4)."""
        stream = StreamId(source)
        with contextlib.suppress(NotFound):
            if await engine.read(stream, MIN_TIME, start + 1, limit=1):
                return
        if start < self._clock.now():
            await self._deliver(engine, stream, [(start + 1, None)])

    async def purge(self, stream: StreamId, start: int, end: int) -> None:
        """Forget what is stored of ``stream`` in ``(start, end]``."""
        async with self._at_work() as engine:
            await engine.purge(stream, start, end)
            await engine.settle()

    # --- books ---

    async def history(self, limit: int, node: str | None) -> list[HistoryEntry]:
        """The newest entries, newest first."""
        async with self._looking():
            return await self._store.history(limit, node)

    async def sessions(self) -> dict[str, dict[str, Any]]:
        """Every session by id."""
        async with self._looking():
            if self._presence is not None:
                await self._presence.write()
            return await self._store.documents("sessions")


def _make_at_caller(settings: Settings, url: str, *, read_only: bool = False) -> Store:
    """By rule 5."""
    return at_caller(partial(make_store, read_only=read_only), settings, url)


def _status_of(record: StreamRecord) -> StreamStatus:
    """What the store says of a stream that no running workflow has."""
    upper = MIN_TIME if record.upper is None else record.upper
    return StreamStatus(
        record.id,
        record.stream,
        record.kind,
        record.workflow,
        record.stream.name,
        "" if record.tool is None else f"{record.tool.name}@{record.tool.version}",
        record.coverage if record.kind == "derived" else TimeIntervals.of(MIN_TIME, upper),
        record.upper,
        EMPTY,
        EMPTY,
        EMPTY,
        "",
        None,
        0,
        0,
    )


def _no_ack() -> None:
    """The caller waits until it is durable: there is nobody else to tell."""
