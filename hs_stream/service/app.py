"""The service: settings in, everything else started in order, and stopped in the opposite one.

Start: store, engine (recovers), HTTP, connectors. Stop: the source takes nothing more, the engine finishes its step,
commits and acknowledges, then connectors and HTTP end, then the store closes. A broker that does not answer is tried
again while running; one that refuses us, and a store that does not answer at the start, end the start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Coroutine, Sequence
from typing import Any, Final

import structlog

from hs_stream.core.errors import BrokerUnavailable, StoreUnavailable
from hs_stream.core.registry import ToolRegistry
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.clock import SystemClock
from hs_stream.engine.engine import Engine
from hs_stream.engine.ports import Store
from hs_stream.service.api import ApiContext, create_api
from hs_stream.service.connectors import AllConnected, Connectors, mqtt_options
from hs_stream.service.http import HttpServer, bind, check_certificate
from hs_stream.service.lease import Lease
from hs_stream.service.live import Hub
from hs_stream.service.metrics import ServiceTelemetry
from hs_stream.service.security import Tokens
from hs_stream.service.session import SessionBook
from hs_stream.service.settings import HttpSettings, Settings, read_secret
from hs_stream.service.tasks import first_error
from hs_stream.service.wiring import (
    EmbeddedStore,
    engine_settings,
    load_registry,
    load_workflows,
    version,
)
from hs_stream.service.workflow_file import to_document
from hs_stream_connectors.mqtt.sink import MqttSink
from hs_stream_connectors.mqtt.source import MqttSource

__all__ = ["READY_LAG", "Service", "run_service", "serve"]

logger = structlog.get_logger(__name__)

READY_LAG: Final = 300.0
"""Seconds of event lag above which the service is not ready while it has something to do: it is catching up."""
_STOP_SECONDS: Final = 6.0
_STORE_PATIENCE: Final = 2.0
_CLOSE_SECONDS: Final = 1.0
_BROKER_SECONDS: Final = 5.0
_PING_SECONDS: Final = 2.0


class Service:
    """One run of the service. `run` returns after `stop`; ``started`` is set when everything is up.

    ``workflows`` replaces those of the settings. The constructor reads files and raises `ConfigurationError`.
    """

    def __init__(self, settings: Settings, workflows: Sequence[WorkflowDefinition] | None = None) -> None:
        self.settings = settings
        self.registry: ToolRegistry = load_registry(settings)
        self.workflows = list(load_workflows(settings, self.registry) if workflows is None else workflows)
        self.telemetry = ServiceTelemetry()
        self.started = asyncio.Event()
        self.port = 0
        self._tokens = _tokens(settings.http)
        self._hub: Hub
        self._clock = SystemClock()
        self._stopping = asyncio.Event()
        options = mqtt_options(settings)
        self._feeds = Connectors(settings).feeds(self.workflows)
        publishes = any(node.publish is not None for workflow in self.workflows for node in workflow.nodes.values())
        self._broker_address = (options.host, options.port)
        self._source = next((feed.source for feed in self._feeds if isinstance(feed.source, MqttSource)), None)
        self._sink = MqttSink("mqtt", options, prefix=settings.mqtt.prefix) if publishes else None
        self.engine: Engine
        self.store: Store
        self._session: SessionBook
        self._lease: Lease

    @property
    def url(self) -> str:
        """Where HTTP is served."""
        host = self.settings.http.host
        scheme = "https" if self.settings.http.cert_file else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    def stop(self) -> None:
        """Begin the orderly stop. May be called from a signal handler of the loop."""
        self._stopping.set()

    async def run(self) -> None:
        """Serve until `stop`. Raises `ConfigurationError`, `StoreUnavailable` or `BrokerUnavailable` from the start."""
        listener = bind(self.settings.http.host, self.settings.http.port)
        self.port = int(listener.getsockname()[1])
        embedded = EmbeddedStore(self.settings)
        try:
            self.store = await embedded.open()
            self._lease = Lease(self.store, self._clock)
            self.engine = Engine(
                self.store,
                settings=engine_settings(self.settings),
                clock=self._clock,
                telemetry=self.telemetry,
                sink=self._sink,
                guard=self._lease,
            )
            try:
                await self._lease.take()
                await self.engine.open(self.workflows)
                logger.info("store open", store=embedded.shown, workflows=[item.name for item in self.workflows])
                self._hub = Hub(self.engine, self.settings.http.max_subscribers, self.telemetry.live_ended)
                self.telemetry.attach(_Gauges(self.engine, self._source, self._sink, self._hub))
                await self._begin_session()
                await self._serve(listener)
                await self._briefly(self._session.write(stopped=True))
                await self._briefly(self._lease.give_back())
            finally:
                await self._briefly(self.engine.close())
        finally:
            listener.close()
            await embedded.close()

    async def _briefly(self, call: Coroutine[Any, Any, None]) -> None:
        """``await call``, but not for long when the store is away."""
        patience = _CLOSE_SECONDS if self.engine.store_trouble else None
        try:
            async with asyncio.timeout(patience):
                await call
        except TimeoutError:
            logger.warning("the store is away; it was not told that the service ends")

    async def _serve(self, listener: socket.socket) -> None:
        http_settings = self.settings.http
        server = HttpServer(create_api(self._api_context()), listener, http_settings.cert_file, http_settings.key_file)
        try:
            async with asyncio.TaskGroup() as group:
                engine = group.create_task(self.engine.run(), name="engine")
                http = group.create_task(server.run(), name="http")
                connectors = [
                    group.create_task(self._session.beat(), name="session"),
                    group.create_task(self._lease.beat(), name="lease"),
                ]
                if self._sink is not None:
                    connectors.append(group.create_task(self._sink.run(_ignore), name="mqtt sink"))
                together = AllConnected((feed.kind for feed in self._feeds), self.engine.connected)
                for feed in self._feeds:
                    reading = feed.run(self.engine.deliver, together.of(feed.kind))
                    connectors.append(group.create_task(reading, name=f"{feed.kind} source"))
                await self._check_broker()
                await server.wait_started()
                logger.info("started", version=version(), url=self.url)
                self.started.set()
                await self._stopping.wait()
                await self._finish(engine)
                self._hub.stop()
                server.stop()
                for task in connectors:
                    task.cancel()
                await http
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None
        logger.info("stopped")

    async def _finish(self, engine: asyncio.Task[None]) -> None:
        logger.info("stopping")
        try:
            # A store that is away must not hold us up: what is not acknowledged comes again.
            patience = 0.0 if self.engine.store_trouble else _STORE_PATIENCE
            asyncio.get_running_loop().call_later(patience, self.engine.hurry)
            async with asyncio.timeout(_STOP_SECONDS / 2 if self.engine.store_trouble else _STOP_SECONDS):
                for feed in self._feeds:
                    await feed.source.stop()
                await self.engine.stop()
                await asyncio.wait([engine])
        except TimeoutError:
            # Nothing is lost: what was not acknowledged comes again, what was not published is in the outbox.
            logger.warning("not everything was finished in time; it will be when the service starts again")
            engine.cancel()

    async def _check_broker(self) -> None:
        """Raise when the broker refuses us; only say so when it does not answer."""
        parts = [part for part in (self._source, self._sink) if part is not None]
        if not parts:
            return
        host, port = self._broker_address
        try:
            async with asyncio.timeout(_BROKER_SECONDS):
                _, writer = await asyncio.open_connection(host, port)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        except (OSError, TimeoutError):
            logger.warning("no MQTT broker answers yet; trying again", host=host, port=port)
            return
        for part in parts:
            try:
                await part.wait_connected(_BROKER_SECONDS)
            except BrokerUnavailable as error:
                if error.hint:
                    raise
                logger.warning("not connected yet; trying again", error=error.message)

    # --- what the API shows ---

    def _api_context(self) -> ApiContext:
        return ApiContext(
            engine=self.engine,
            store=self.store,
            clock=self._clock,
            workflows=self.workflows,
            registry=self.registry,
            metrics=self.telemetry.exposition,
            ready=self.ready,
            version=version(),
            tokens=self._tokens,
            hub=self._hub,
            origins=self.settings.http.cors_origins,
            tls=bool(self.settings.http.cert_file),
        )

    async def ready(self) -> dict[str, Any]:
        """``{"ready", "parts": {broker, store, lag}}``."""
        parts = {"broker": self._broker_part(), "store": await self._store_part(), "lag": self._lag_part()}
        return {"ready": all(part["ok"] for part in parts.values()), "parts": parts}

    def _broker_part(self) -> dict[str, Any]:
        parts = {"in": self._source, "out": self._sink}
        states = {name: part.connection_statistics() for name, part in parts.items() if part is not None}
        broken = [name for name, state in states.items() if not state.connected]
        part: dict[str, Any] = {"ok": not broken, "connections": {name: s.connected for name, s in states.items()}}
        if broken:
            part["error"] = states[broken[0]].last_error or "not connected yet"
        return part

    async def _store_part(self) -> dict[str, Any]:
        try:
            async with asyncio.timeout(_PING_SECONDS):
                await self.store.ping()
        except StoreUnavailable as error:
            return {"ok": False, "error": error.message}
        except TimeoutError:
            return {"ok": False, "error": f"no answer within {_PING_SECONDS:g} s"}
        return {"ok": True, "name": self.store.name}

    def _lag_part(self) -> dict[str, Any]:
        statistics = self.engine.statistics()
        lag = dict(statistics.lag)
        waiting = statistics.pending_steps or statistics.in_flight_readings or statistics.outbox_pending
        slow = [name for name, seconds in lag.items() if seconds > READY_LAG and waiting]
        part: dict[str, Any] = {"ok": not slow, "seconds": lag}
        if slow:
            part["error"] = f"{slow[0]} is {lag[slow[0]]:.0f} s behind"
        return part

    # --- books ---

    async def _begin_session(self) -> None:
        for workflow in self.workflows:
            document = to_document(workflow, resolved=True)
            await self.store.put("workflows", workflow.name, {"path": workflow.path, "definition": document})
            plates = {"workflow": workflow.name, "plates": document["plates"]}
            await self.store.put("plates", workflow.name, plates)
        self._session = SessionBook(self.store, self._clock, self.workflows, version(), self._counters)
        await self._session.write()

    def _counters(self) -> dict[str, int]:
        statistics = self.engine.statistics()
        return {
            "readings": statistics.readings,
            "results": statistics.results,
            "published": statistics.published,
            "late": statistics.late,
            "dead_letters": statistics.dead_letters,
            "steps": statistics.steps,
        }


class _Gauges:
    """`hs_stream.service.metrics.Gauges` of a running service."""

    def __init__(self, engine: Engine, source: MqttSource | None, sink: MqttSink | None, hub: Hub) -> None:
        self._engine = engine
        self._hub = hub
        self._connections = [part.connection_statistics for part in (source, sink) if part is not None]

    def pending_steps(self) -> int:
        return self._engine.statistics().pending_steps

    def in_flight_readings(self) -> int:
        return self._engine.statistics().in_flight_readings

    def outbox_pending(self) -> int:
        return self._engine.statistics().outbox_pending

    def lag(self) -> dict[str, float]:
        return dict(self._engine.statistics().lag)

    def mqtt_connected(self) -> bool:
        return bool(self._connections) and all(statistics().connected for statistics in self._connections)

    def live_subscribers(self) -> int:
        return self._hub.count

    def mqtt_reconnects(self) -> int:
        return sum(max(statistics().connects - 1, 0) for statistics in self._connections)


def _tokens(http: HttpSettings) -> Tokens:
    """Reads the files. `ConfigurationError` where one cannot be used."""
    if http.cert_file:
        check_certificate(http.cert_file, http.key_file)
    return Tokens(
        read_secret(http.token_file, "http.token_file") if http.token_file else "",
        read_secret(http.read_token_file, "http.read_token_file") if http.read_token_file else "",
    )


def _ignore(_: bool) -> None:
    """The sink keeps its own state."""


async def serve(settings: Settings) -> None:
    """Run a service until SIGTERM or SIGINT; a second signal ends the process at once."""
    service = Service(settings)
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if service._stopping.is_set():
            os._exit(1)
        service.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        await service.run()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def run_service(settings: Settings) -> None:
    """`serve` in a loop of its own, uvloop's where it is installed."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(settings))


def loop_factory() -> Any:
    """The loop of uvloop where it is installed, else the default one."""
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        return None
    return uvloop.new_event_loop
