"""One generation of the service: an engine over the store with its connectors, from one set of workflows to the next.

A generation ends as the service does: the sources take nothing more, the engine finishes its step, commits and
acknowledges, then the connectors end. What comes meanwhile waits at the broker, in the session that the next
generation takes up.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Final

import structlog

from hs_stream.core.errors import BrokerUnavailable, StoreUnavailable
from hs_stream.core.size import Use
from hs_stream.core.time import format_time
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.engine import EngineStatistics
from hs_stream.engine.ports import Clock
from hs_stream.service.connectors import AllConnected, Connectors
from hs_stream.service.host import Host
from hs_stream.service.http.live import Hub
from hs_stream.service.http.outgoing import Backlog
from hs_stream.service.json_documents import failed_json
from hs_stream.service.lease import name_of
from hs_stream.service.metrics import ServiceTelemetry
from hs_stream.service.outputs import Outputs
from hs_stream.service.session import SessionBook
from hs_stream.service.settings import Settings
from hs_stream.service.side_tasks import SideTasks, careful
from hs_stream.service.silence import Witness
from hs_stream.service.wiring import version
from hs_stream_connectors.mqtt.options import MqttOptions
from hs_stream_connectors.mqtt.source import MqttSource

__all__ = ["READY_LAG", "Generation"]

logger = structlog.get_logger(__name__)

READY_LAG: Final = 300.0
"""Seconds of event lag above which the service is not ready while it has something to do: it is catching up."""
_UNPUBLISHED_MS: Final = 3_600_000
_STOP_SECONDS: Final = 6.0
_STORE_PATIENCE: Final = 2.0
_BROKER_SECONDS: Final = 5.0
_PING_SECONDS: Final = 2.0


class Generation:
    """`open` it over the open store of a host, then `serve`."""

    def __init__(
        self,
        settings: Settings,
        options: MqttOptions,
        host: Host,
        clock: Clock,
        telemetry: ServiceTelemetry,
        workflows: Sequence[WorkflowDefinition],
        side: SideTasks,
        *,
        told: Collection[str] = (),
        url: str = "",
    ) -> None:
        """``told``: the lasting sinks that an earlier generation told of streams, which they may have to remove.

        ``url``: where HTTP is served, for commands that look for the service of the store.
        """
        self.workflows = list(workflows)
        self._sources = Connectors(settings).sources_of(self.workflows)
        self._broker_address = (options.host, options.port)
        self._mqtt = next((one.source for one in self._sources if isinstance(one.source, MqttSource)), None)
        self._outputs = Outputs(settings, self.workflows, side, told=told)
        self._side = side
        self._host, self._clock = host, clock
        self.engine = host.engine(
            clock=clock,
            telemetry=careful(telemetry, side),
            sinks=self._outputs.sinks,
            mirrors=self._outputs.mirrors,
        )
        self.hub = Hub(self.engine, settings.http.max_subscribers, telemetry.live_ended, events=settings.memory.live)
        failed = functools.partial(failed_json, self.engine)
        self.backlog: Backlog | None = None
        """Of the HTTP server, which outlives generations."""
        self._accounts = telemetry.accounts
        self._session = SessionBook(
            host.store,
            clock,
            self.workflows,
            version(),
            self._counters,
            failed,
            telemetry.accounts.documents,
            self._broker_trouble,
            telemetry.accounts.news,
            pending=self.engine.pending,
            address={"url": url, "lease": name_of(host.lease.owner)},
        )

    async def open(self) -> None:
        """Recover. Raises `ConfigurationError` and `StoreUnavailable`."""
        await self._host.begin(self.engine, self.workflows)
        self.engine.session = self._session.id
        await self._session.write()
        self.engine.session = self._session.id

    async def serve(
        self, begun: Callable[[], Awaitable[None]], over: Callable[[], Awaitable[None]], hurry: asyncio.Event
    ) -> None:
        """Take readings in, compute and publish until ``over`` returns, then end in order.

        ``begun`` is awaited first, with everything running. ``hurry``: the end must not take long, whatever waits.
        """
        async with asyncio.TaskGroup() as group:
            engine = group.create_task(self.engine.run(), name="engine")
            others = [
                group.create_task(self._side.keep("session", self._session.beat), name="session"),
                group.create_task(self._host.lease.beat(), name="lease"),
            ]
            for name, running in self._outputs.running(self.engine):
                others.append(group.create_task(running, name=name))
            together = AllConnected((one.kind for one in self._sources), self.engine.connected)
            for one in self._sources:
                reading = one.run(self.engine.deliver, together.of(one.kind))
                others.append(group.create_task(reading, name=f"{one.kind} source"))
            if not self._sources:
                self.engine.connected(True)  # nobody can be waited for: clocks tick
            await begun()
            await over()
            # They come back with their last id, to the next generation or the next start.
            self.hub.stop("stopping" if hurry.is_set() else "reload")
            await self._finish(engine, hurry)
            for task in others:
                task.cancel()

    async def end_session(self) -> None:
        """Write down that it is over. Raises `StoreUnavailable`."""
        await self._session.write(stopped=True)

    async def _finish(self, engine: asyncio.Task[None], hurry: asyncio.Event) -> None:
        finishing = asyncio.create_task(self._drain(engine), name="finishing")
        hurried = asyncio.create_task(hurry.wait(), name="in a hurry")
        try:
            await asyncio.wait((finishing, hurried), return_when=asyncio.FIRST_COMPLETED)
            if finishing.done():
                return
            # A store that is away must not hold the end up: what is not acknowledged comes again.
            away = bool(self.engine.store_trouble)
            asyncio.get_running_loop().call_later(0.0 if away else _STORE_PATIENCE, self.engine.hurry)
            async with asyncio.timeout(_STOP_SECONDS / 2 if away else _STOP_SECONDS):
                await finishing
        except TimeoutError:
            # Nothing is lost: what was not acknowledged comes again, what was not published is in the outbox.
            logger.warning("not everything was finished in time; it will be when the service starts again")
            engine.cancel()
        finally:
            hurried.cancel()
            finishing.cancel()

    async def _drain(self, engine: asyncio.Task[None]) -> None:
        for one in self._sources:
            await one.source.stop()
        await self.engine.stop()
        await asyncio.wait([engine])

    async def check_broker(self) -> None:
        """Raise when the broker refuses us; only say so when it does not answer."""
        parts = [part for part in (self._mqtt, self._outputs.mqtt) if part is not None]
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

    # --- what it says of itself ---

    async def ready(self) -> dict[str, Any]:
        """``{"ready", "parts": {broker, store, lag}, "degraded": [{what, error, count}]}``.

        What is degraded does not make the service unready: it goes on, and somebody should look.
        """
        parts = {"broker": self._broker_part(), "store": await self._store_part(), "lag": self._lag_part()}
        ready = all(part["ok"] for part in parts.values())
        return {"ready": ready, "parts": parts, "degraded": self._degraded()}

    def _degraded(self) -> list[dict[str, Any]]:
        """Side tasks that fail, sinks that are away, what was not published within the last `_UNPUBLISHED_MS`."""
        found = [*self._side.troubles(), *self._outputs.degraded(self.engine)]
        since = self._clock.now() - _UNPUBLISHED_MS
        for reason, last in self.engine.unpublished().items():
            if last.time >= since:
                what = f"unpublished: {reason}"
                found.append({"what": what, "error": last.message, "count": last.count, "last": format_time(last.time)})
        return found

    def _broker_part(self) -> dict[str, Any]:
        parts = {"in": self._mqtt, "out": self._outputs.mqtt}
        states = {name: part.connection_statistics() for name, part in parts.items() if part is not None}
        broken = [name for name, state in states.items() if not state.connected]
        part: dict[str, Any] = {"ok": not broken, "connections": {name: s.connected for name, s in states.items()}}
        refused = self._mqtt.refused() if self._mqtt is not None else []
        if refused:
            part["refused"] = [{"source": name, "filter": shown, "error": error} for name, shown, error in refused]
        if broken:
            part["error"] = states[broken[0]].last_error or "not connected yet"
        elif refused:
            name, shown, error = refused[0]
            more = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
            part["ok"] = False
            part["error"] = (
                f"the broker refuses source {name} the subscription to {shown}: {error}{more}; it is asked again "
                "(check the broker's access list)"
            )
        return part

    async def _store_part(self) -> dict[str, Any]:
        try:
            async with asyncio.timeout(_PING_SECONDS):
                await self._host.store.ping()
        except StoreUnavailable as error:
            return {"ok": False, "error": str(error)}
        except TimeoutError:
            return {"ok": False, "error": f"no answer within {_PING_SECONDS:g} s"}
        if trouble := self._store_trouble():
            return {"ok": False, "error": trouble}
        return {"ok": True, "name": self._host.store.name}

    def _store_trouble(self) -> str:
        """What the store refuses, and what to do about it: one with a full disk answers a ping.

        The heartbeat tells of one to which nothing else is written.
        """
        return self.engine.store_trouble or self._session.trouble

    def _lag_part(self) -> dict[str, Any]:
        statistics = self.engine.statistics()
        lag = dict(statistics.lag)
        waiting = statistics.pending_steps or statistics.in_flight_readings or statistics.outbox_pending
        slow = [name for name, seconds in lag.items() if seconds > READY_LAG and waiting]
        part: dict[str, Any] = {"ok": not slow, "seconds": lag}
        if slow:
            part["error"] = f"{slow[0]} is {lag[slow[0]]:.0f} s behind"
        return part

    def witness(self) -> Witness:
        """What came of each source since this generation began."""
        return Witness(self._session.started, self._accounts.documents(), self._broker_trouble())

    def _broker_trouble(self) -> str:
        return str(self._broker_part().get("error", ""))

    def _counters(self) -> dict[str, int]:
        statistics = self.engine.statistics()
        return {
            "readings": statistics.readings,
            "results": statistics.results,
            "published": statistics.published,
            "late": statistics.late,
            "overwritten": statistics.overwritten,
            "dead_letters": statistics.dead_letters,
            "steps": statistics.steps,
        }

    # --- `hs_stream.service.metrics.Gauges` ---

    def statistics(self) -> EngineStatistics:
        """The engine's figures."""
        return self.engine.statistics()

    def store_available(self) -> bool:
        """Whether the store took all that was asked of it last."""
        return not self._store_trouble()

    def mqtt_connected(self) -> bool:
        """Whether every connection is there, and there is one."""
        connections = self._connections()
        return bool(connections) and all(state.connected for state in connections)

    def mqtt_refused(self) -> int:
        """Subscriptions that the broker does not give us."""
        return len(self._mqtt.connection_statistics().refused) if self._mqtt is not None else 0

    def live_subscribers(self) -> int:
        """Who follows a stream over HTTP."""
        return self.hub.count

    def mqtt_reconnects(self) -> int:
        """Connections after the first one of each."""
        return sum(max(state.connects - 1, 0) for state in self._connections())

    def ignored(self) -> dict[str, int]:
        """Messages of each source that were neither readings nor errors."""
        return self._mqtt.statistics().ignored if self._mqtt is not None else {}

    def remembered(self) -> dict[str, int]:
        """What the codec of each source remembers."""
        return self._mqtt.remembered() if self._mqtt is not None else {}

    def missing(self) -> dict[str, int]:
        """How many fields each source names that no message has had."""
        found = self._mqtt.statistics().missing if self._mqtt is not None else {}
        return {source: len(fields) for source, fields in found.items()}

    def memory(self) -> dict[str, Use]:
        """Bytes that are held of data whose size others decide, by the keys of `[memory]`."""
        found = self.engine.memory() | {"live": self.hub.use()}
        if self.backlog is not None:
            found["sending"] = self.backlog.use()
        if self._mqtt is not None:
            found["codecs"] = self._mqtt.remembered_bytes()
        return found

    def _connections(self) -> list[Any]:
        return [part.connection_statistics() for part in (self._mqtt, self._outputs.mqtt) if part is not None]
