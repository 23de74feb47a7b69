"""The service: settings in, everything else started in order, and stopped in the opposite one.

Start: store, workflows, engine (recovers), HTTP, connectors. Stop: the source takes nothing more, the engine finishes
its step, commits and acknowledges, then connectors and HTTP end, then the store closes. A broker that does not answer
is tried again while running; one that refuses us, and a store that does not answer at the start, end the start. While
it runs, only an essential task can end the service: see `hs_stream.service.side_tasks`.

When the workflows change, the service does in one process what a restart does: it ends the `Generation`, opens the
store again, and begins another one. HTTP stays up, and lets requests wait meanwhile. What changes is checked before
anything is stopped, so that a mistake leaves everything as it is.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog

from hs_stream.core.errors import StoreUnavailable
from hs_stream.core.registry import ToolRegistry
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.clock import SystemClock
from hs_stream.engine.engine import Engine
from hs_stream.engine.ports import Store
from hs_stream.service.connectors import Author, mqtt_options
from hs_stream.service.garbage import settle
from hs_stream.service.generation import Generation
from hs_stream.service.host import Host
from hs_stream.service.http.api import Viewer, create_api
from hs_stream.service.http.context import ApiContext
from hs_stream.service.http.gate import Gate
from hs_stream.service.http.outgoing import Backlog
from hs_stream.service.http.security import read_tokens
from hs_stream.service.http.server import HttpServer, bind, check_certificate
from hs_stream.service.lease import name_of
from hs_stream.service.metrics import ServiceTelemetry
from hs_stream.service.mqtt_log import MqttLog
from hs_stream.service.settings import Settings
from hs_stream.service.side_tasks import SideTasks, first_error
from hs_stream.service.silence import Witness
from hs_stream.service.stores import without_server
from hs_stream.service.wiring import load_registry, version
from hs_stream.service.workflows.catalog import Catalog, Plan, Unread
from hs_stream.service.workflows.doubts import doubts_about
from hs_stream.service.workflows.watch import FileWatch

__all__ = ["Service", "run_service", "serve"]

logger = structlog.get_logger(__name__)

_CLOSE_SECONDS: Final = 1.0
_DRAIN_SECONDS: Final = 5.0
"""So long a reload waits for requests under way. What they compute or remove ends with the engine."""
_RETRY_SECONDS: Final = 1.0
_DOUBTS: Final = 20
_HTTP_SECONDS: Final = 10.0
"""So long a start waits for HTTP."""


class Service:
    """One run of the service. `run` returns after `stop`; ``started`` is set when everything is up.

    ``workflows`` replaces those of the files; ``viewer`` adds its pages to HTTP; ``begun`` is called whenever a
    generation runs, before requests are answered. The constructor reads files and raises `ConfigurationError`.
    """

    def __init__(
        self,
        settings: Settings,
        workflows: Sequence[WorkflowDefinition] | None = None,
        *,
        viewer: Viewer | None = None,
        begun: Callable[[], None] | None = None,
    ) -> None:
        self.settings = settings
        self._viewer = viewer
        self._begun = begun
        self.registry: ToolRegistry = load_registry(settings)
        self.telemetry = ServiceTelemetry()
        self._side = SideTasks(self.telemetry.side_task_failed)
        self.started = asyncio.Event()
        self.port = 0
        self._host = Host(settings, patient=True)
        self._catalog = Catalog(settings, self.registry, workflows)
        if settings.http.cert_file:
            check_certificate(settings.http.cert_file, settings.http.key_file)
        self._tokens = read_tokens(settings.http)
        self._options = mqtt_options(settings)
        logs = settings.logging
        topic, dropped = logs.mqtt_topic, self.telemetry.log_dropped
        self._log = MqttLog(self._options, topic, logs.mqtt_level, dropped) if topic else None
        self._clock = SystemClock()
        self._stopping, self._reload = asyncio.Event(), asyncio.Event()
        self._changing = asyncio.Lock()
        self._doubted: frozenset[str] = frozenset()
        self._gate = Gate()
        undisturbed = partial(self._gate.passing, patience=None)
        self._files = FileWatch(self._catalog, self._changing, undisturbed, self._begin_reload)
        self._backlog: Backlog | None = None
        self._generation: Generation
        self._context: ApiContext

    @property
    def url(self) -> str:
        """Where HTTP is served."""
        host = self.settings.http.host
        scheme = "https" if self.settings.http.cert_file else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def store(self) -> Store:
        """From the start on."""
        return self._host.store

    @property
    def engine(self) -> Engine:
        """The engine of the moment."""
        return self._generation.engine

    @property
    def workflows(self) -> list[WorkflowDefinition]:
        """Those that run."""
        return self._generation.workflows

    def stop(self) -> None:
        """Begin the orderly stop. May be called from a signal handler of the loop."""
        self._stopping.set()

    def read_files_again(self) -> None:
        """Look for what changed in the workflow files, and run that. May be called from a signal handler."""
        self._files.ask()

    async def run(self) -> None:
        """Serve until `stop`. Raises `ConfigurationError`, `StoreUnavailable` or `BrokerUnavailable` from the start."""
        listener = bind(self.settings.http.host, self.settings.http.port)
        self.port = int(listener.getsockname()[1])
        if self._log is not None:
            logging.getLogger().addHandler(self._log)
        try:
            try:
                fresh, shown = await self._open_first(), self._host.shown
                logger.info("store open", store=shown, workflows=[item.name for item in self.workflows])
                if fresh:
                    text = "the store is new and empty; if it should not be, check store.url and the directory"
                    logger.info(text, store=shown, directory=str(Path.cwd()))
                await self._serve(listener)
            finally:
                _say_untold(await self._host.close())
        finally:
            if self._log is not None:
                logging.getLogger().removeHandler(self._log)
            listener.close()

    async def _open_first(self) -> bool:
        """The first generation. Whether nothing was ever in the store. A store that is away ends the start."""
        try:
            await self._host.open()
            fresh = not await self.store.streams() and not await self.store.documents("sessions")
            await self._open_generation()
        except StoreUnavailable as error:
            ends = "the service ends here, start it again when the store answers"
            hint = "; ".join(filter(None, (without_server(error), ends)))
            raise StoreUnavailable(error.message, hint=hint) from None
        return fresh

    async def _open_generation(self) -> None:
        await self._catalog.open(self.store)
        workflows = self._catalog.workflows
        made = Generation(
            self.settings,
            self._options,
            self._host,
            self._clock,
            self.telemetry,
            workflows,
            self._side,
            told=self._catalog.told,
            url=self.url,
        )
        await made.open()
        await self._catalog.record(self.store)
        self._doubt(workflows)
        made.backlog = self._backlog
        self._generation = made
        self.telemetry.attach(made)

    def _doubt(self, workflows: Sequence[WorkflowDefinition]) -> None:
        """Say once what is doubtful about them: a generation that has no new doubt says nothing."""
        doubts = [str(doubt) for doubt in doubts_about(self.settings, workflows)]
        fresh = [doubt for doubt in doubts if doubt not in self._doubted]
        for doubt in fresh[:_DOUBTS]:
            logger.warning(doubt)
        if len(fresh) > _DOUBTS:
            text = f"{len(fresh) - _DOUBTS} more doubts about workflows; hs-stream workflow check FILE says them"
            logger.warning(text)
        self._doubted = frozenset(doubts)

    async def _serve(self, listener: socket.socket) -> None:
        self._context = ApiContext(
            engine=self.engine,
            store=self.store,
            clock=self._clock,
            workflows=self.workflows,
            registry=self.registry,
            metrics=self.telemetry.exposition,
            ready=self.ready,
            version=version(),
            tokens=self._tokens,
            hub=self._generation.hub,
            origins=self.settings.http.cors_origins,
            tls=bool(self.settings.http.cert_file),
            gate=self._gate,
            changes=self,
            witness=self.witness,
            page=self.settings.memory.page,
            lease=name_of(self._host.lease.owner),
        )
        api = create_api(self._context, self._viewer)
        section = self.settings.http
        server = HttpServer(api, listener, section.cert_file, section.key_file, self.settings.memory.sending)
        self._backlog = self._generation.backlog = server.backlog
        try:
            async with asyncio.TaskGroup() as group:
                keep = self._side.keep
                http = group.create_task(keep("http", server.run), name="http")
                others = [
                    group.create_task(keep("files", self._files.load), name="files"),
                    group.create_task(keep("looking at files", self._files.look), name="looking at files"),
                    group.create_task(keep("dead letters", self.telemetry.accounts.run), name="dead letters"),
                ]
                if self._log is not None:
                    others.append(group.create_task(keep("mqtt log", self._log.run), name="mqtt log"))
                await self._rounds(server)
                if self._log is not None:
                    await self._log.wait_sent(_CLOSE_SECONDS)
                for task in others:
                    task.cancel()
                self._side.stop()
                server.stop()
                await http
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None
        logger.info("stopped")

    # --- generations ---

    async def _rounds(self, server: HttpServer) -> None:
        async def begun() -> None:
            if self._begun is not None:
                self._begun()
            if not self.started.is_set():
                await self._generation.check_broker()
                try:
                    async with asyncio.timeout(_HTTP_SECONDS):
                        await server.wait_started()
                except TimeoutError:
                    logger.warning("HTTP does not answer yet; everything else works")
                logger.info("started", version=version(), url=self.url)
                self.started.set()
            self._gate.open()

        while True:
            await self._generation.serve(begun, self._until_over, self._stopping)
            _say_untold(await self._host.briefly(self._generation.end_session()))
            if self._stopping.is_set() or not await self._open_next():
                return

    async def _until_over(self) -> None:
        waiting = [asyncio.create_task(event.wait()) for event in (self._stopping, self._reload)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        logger.info("stopping" if self._stopping.is_set() else "loading the workflows again")

    async def _open_next(self) -> bool:
        """The next generation over the same store, however long that is away; false when the service is to stop."""
        await self._gate.emptied(_DRAIN_SECONDS)
        self._reload.clear()
        _say_untold(await self._host.set_down())
        while not self._stopping.is_set():
            try:
                if not await self._unless_stopping(self._take_up()):
                    return False
            except StoreUnavailable as error:
                logger.warning("the store is away; trying again", error=error.message)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                self._context.engine, self._context.workflows = self.engine, self.workflows
                self._context.hub = self._generation.hub
                logger.info("workflows loaded", workflows=[item.name for item in self.workflows])
                return True
        return False

    async def _take_up(self) -> None:
        await self._host.take_up()
        await self._open_generation()

    async def _unless_stopping(self, work: Coroutine[Any, Any, None]) -> bool:
        """``await work``; given up, and false, when the service is to stop: an engine waits for its store for ever."""
        working, stopping = asyncio.create_task(work), asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            if not working.done():
                working.cancel()
                await asyncio.wait((working,))
        if working.cancelled():
            return False
        await working
        return True

    # --- changes (`hs_stream.service.http.context.Changes`) ---

    async def save(self, name: str, text: str, *, as_json: bool) -> Plan:
        """Save the workflow ``name`` and run it. Raises what is wrong with it; then everything stays as it is."""
        async with self._changing:
            author: Author = "token" if self._tokens.write else "anybody"
            workflow = await self._catalog.parse(name, text, as_json=as_json, author=author)
            return self._changed(await self._catalog.save(self.store, workflow))

    async def remove(self, name: str) -> Plan:
        """Save the workflow ``name`` no longer, and do not run it. `NotFound`, `FromFile`."""
        async with self._changing:
            return self._changed(await self._catalog.remove(self.store, name))

    def origin(self, name: str) -> str:
        """The path of the workflow's file, or `hs_stream.service.workflows.catalog.STORE`."""
        return self._catalog.origin(name)

    def unread(self) -> Unread | None:
        """The workflow files that differ from what runs, as they were looked at last."""
        return self._files.unread

    def _changed(self, plan: Plan) -> Plan:
        logger.info("workflow changed over HTTP", workflow=plan.workflow, action=plan.action)
        if plan.action != "nothing":
            self._begin_reload()
        return plan

    def _begin_reload(self) -> None:
        # At once, so that who asks next is answered by what there will be then.
        self._gate.close()
        self._reload.set()

    def witness(self) -> Witness:
        """What came of each source in this generation."""
        return self._generation.witness()

    async def ready(self) -> dict[str, Any]:
        """``{"ready", "parts": {broker, store, lag}, "degraded": [{what, error, count}]}``."""
        return await self._generation.ready()


def _say_untold(told: bool) -> None:
    if not told:
        logger.warning("the store is away; it was not told that this ends")


async def serve(settings: Settings, viewer: Viewer | None = None) -> None:
    """Run a service until SIGTERM or SIGINT; a second signal ends the process at once. SIGHUP reads the files again."""
    service = Service(settings, viewer=viewer, begun=settle)
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if service._stopping.is_set():
            os._exit(1)
        service.stop()

    handlers = {signal.SIGTERM: on_signal, signal.SIGINT: on_signal, signal.SIGHUP: service.read_files_again}
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        await service.run()
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


def run_service(settings: Settings, viewer: Viewer | None = None) -> None:
    """`serve` in a loop of its own, uvloop's where it is installed."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(settings, viewer))


def loop_factory() -> Any:
    """The loop of uvloop where it is installed, else the default one."""
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        return None
    return uvloop.new_event_loop
