"""The MQTT sink: changes of published nodes, at QoS 1, confirmed by the broker.

::

    publish:                                # in a workflow file
      smooth: {retain: true}                # the broker keeps the newest instance for whoever subscribes later
      too_hot: {payload: value}             # json (default) | msgpack | value

1. The topic is ``<prefix>/<workflow>/<node>[/<plate value>...]`` in plate order, the payload
   ``{"time": ms, "value": ..., "revision": n, "kind": "insert|revise|retract", "stream": ..., "tool": ...}``.
2. ``payload: value`` sends the bare value: a text or binary data as it is, anything else as JSON; a retraction is
   ``null``. In JSON a NaN is ``null``, a datetime is ISO 8601 in UTC, binary data is base64, an interval
   ``{"start": ms, "end": ms}``.
3. With ``retain`` the retain flag is set exactly on changes of the newest instance.
4. At most `WINDOW` messages (fewer if the broker says so) are in flight. Messages go out in the order of the calls;
   after a reconnect everything unconfirmed goes out again first, in order.
5. A broker that is killed forgets what it confirmed and had not saved yet. So what was confirmed within the last
   `REMEMBERED` seconds before a connection was lost goes out once more on the next one, before anything newer.
6. ``<prefix>/status`` is ``online`` while connected and ``offline`` otherwise, retained, also when we die (last will).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from hs_stream.core.errors import ConfigurationError
from hs_stream.engine.ports import Publication
from hs_stream_connectors.mqtt.client import ClientStatistics, MqttClient
from hs_stream_connectors.mqtt.connection import FIRST_MID, Connection
from hs_stream_connectors.mqtt.homeassistant import check_homeassistant
from hs_stream_connectors.mqtt.options import MqttOptions, Will

__all__ = ["REMEMBERED", "WINDOW", "MqttSink", "SinkStatistics", "check_publish_options"]

logger = logging.getLogger(__name__)

WINDOW: Final = 2_000
REMEMBERED: Final = 5.0
"""Seconds; mosquitto saves its state about once a second with ``autosave_interval 1``."""
_MOST_REMEMBERED: Final = 20_000
_STATUS_MID: Final = 65_535
_PAYLOADS: Final = ("json", "msgpack", "value")
_ONLINE: Final = b"online"
_OFFLINE: Final = b"offline"


def check_publish_options(options: Mapping[str, Any]) -> None:
    """``ConfigurationError`` unless ``retain``, ``payload`` and ``homeassistant`` are what they may be."""
    if not isinstance(options.get("retain", False), bool):
        raise ConfigurationError(f"retain is {options['retain']!r}", hint="write true or false")
    if options.get("payload", "json") not in _PAYLOADS:
        raise ConfigurationError(f"payload is {options['payload']!r}", hint=f"write one of {', '.join(_PAYLOADS)}")
    if "homeassistant" in options:
        check_homeassistant(options["homeassistant"])


_json: Final = msgspec.json.Encoder()
_msgpack: Final = msgspec.msgpack.Encoder()


def encode(publication: Publication) -> bytes:
    """The payload, by rules 1 and 2 of the module."""
    change, kind = publication.change, publication.options.get("payload", "json")
    if kind == "value":
        value = change.value
        return value if isinstance(value, bytes) else value.encode() if isinstance(value, str) else _json.encode(value)
    document = {
        "time": change.time,
        "value": change.value,
        "revision": change.revision,
        "kind": change.kind,
        "stream": str(publication.stream),
        "tool": publication.tool,
    }
    return _msgpack.encode(document) if kind == "msgpack" else _json.encode(document)


@dataclass(slots=True)
class SinkStatistics:
    """Since the sink was made. ``refused``: the broker said no (MQTT 5); ``repeated``: sent again after a reconnect."""

    confirmed: int = 0
    refused: int = 0
    repeated: int = 0
    waiting: int = 0
    in_flight: int = 0


@dataclass(slots=True)
class _Batch:
    left: int
    done: asyncio.Future[None]


@dataclass(slots=True)
class _Out:
    topic: str
    payload: bytes
    retain: bool
    batch: _Batch | None
    """``None``: nobody waits, it was confirmed before."""


class MqttSink:
    """Implements `hs_stream.engine.ports.Sink`. It has a connection of its own, with ``-out`` behind the client id.

    ``published`` is told what the broker has confirmed.

    Sharing the source's would stop the confirmations whenever the source stops reading.
    """

    def __init__(
        self,
        name: str,
        options: MqttOptions,
        *,
        prefix: str = "hs",
        window: int = WINDOW,
        published: Callable[[Sequence[Publication]], None] | None = None,
    ) -> None:
        if not prefix or set(prefix) & set("+#\0") or prefix.startswith(("/", "$")) or prefix.endswith("/"):
            raise ConfigurationError(
                f"the topic prefix {prefix!r} cannot be used", hint="write for example hs or home/hs"
            )
        self.name = name
        self.forgets_ms = round(REMEMBERED * 1000)
        self.prefix = prefix
        self._status_topic = f"{prefix}/status"
        self._client = MqttClient(
            options.with_client_id(f"{options.client_id}-out"),
            clean=True,
            will=Will(self._status_topic, _OFFLINE),
            ready=self._on_ready,
            lost=self._on_lost,
            confirmed=self._on_confirmed,
            goodbye=self._on_goodbye,
        )
        self._connected: Callable[[bool], None] = lambda _: None
        self._connection: Connection | None = None
        self._largest_window = self._window = window
        self._published = published
        self._waiting: deque[_Out] = deque()
        self._in_flight: dict[int, _Out] = {}
        self._remembered: deque[tuple[float, _Out]] = deque(maxlen=_MOST_REMEMBERED)
        self._lost_at = 0.0
        self._next_mid = FIRST_MID
        self._statistics = SinkStatistics()

    async def run(self, connected: Callable[[bool], None]) -> None:
        """See `hs_stream.engine.ports.Sink.run`."""
        self._connected = connected
        await self._client.run()

    async def publish(self, publications: Sequence[Publication]) -> None:
        """See `hs_stream.engine.ports.Sink.publish`."""
        if not publications:
            return
        batch = _Batch(len(publications), asyncio.get_running_loop().create_future())
        self._waiting.extend(
            [
                _Out(
                    "/".join((self.prefix, item.workflow, item.stream.name, *item.plates)),
                    encode(item),
                    item.newest and bool(item.options.get("retain", False)),
                    batch,
                )
                for item in publications
            ]
        )
        self._pump()
        await batch.done
        if self._published is not None:
            self._published(publications)

    async def wait_connected(self, timeout: float) -> None:
        """Return when connected, else `BrokerUnavailable` with what to do. Needs `run` to run."""
        await self._client.wait_connected(timeout)

    def statistics(self) -> SinkStatistics:
        """The counters, brought up to date; read only."""
        statistics = self._statistics
        statistics.waiting, statistics.in_flight = len(self._waiting), len(self._in_flight)
        return statistics

    def connection_statistics(self) -> ClientStatistics:
        """The live counters of the connection; read only."""
        return self._client.statistics()

    # --- the window ---

    def _pump(self) -> None:
        connection, waiting, in_flight = self._connection, self._waiting, self._in_flight
        if connection is None:
            return
        while waiting and len(in_flight) < self._window:
            out = waiting.popleft()
            mid = self._take_mid()
            in_flight[mid] = out
            connection.publish(out.topic, out.payload, mid=mid, retain=out.retain)

    def _take_mid(self) -> int:
        while True:
            mid = self._next_mid
            self._next_mid = mid + 1 if mid + 1 < _STATUS_MID else FIRST_MID
            if mid not in self._in_flight:
                return mid

    def _on_confirmed(self, mid: int, error: str) -> None:
        out = self._in_flight.pop(mid, None)
        if out is None:
            return
        if error:
            if not self._statistics.refused:
                logger.error("the MQTT broker refuses to publish on %s: %s (check its access list)", out.topic, error)
            self._statistics.refused += 1
        else:
            self._statistics.confirmed += out.batch is not None
            self._remember(out)
        batch = out.batch
        if batch is not None:
            batch.left -= 1
            if not batch.left and not batch.done.done():
                batch.done.set_result(None)
        self._pump()

    def _remember(self, out: _Out) -> None:
        """Rule 5."""
        now, remembered = time.monotonic(), self._remembered
        remembered.append((now, out))
        while remembered[0][0] < now - REMEMBERED:
            remembered.popleft()

    # --- the connection ---

    def _on_ready(self, connection: Connection) -> None:
        self._connection = connection
        self._window = min(self._largest_window, connection.receive_maximum)
        connection.publish(self._status_topic, _ONLINE, mid=_STATUS_MID, retain=True)
        unconfirmed, self._in_flight = self._in_flight, {}
        self._statistics.repeated += len(unconfirmed)
        # The window of the new connection may be smaller than the old one, so they queue up again in front.
        self._waiting.extendleft(reversed(unconfirmed.values()))
        again = self._forgotten()
        self._statistics.repeated += len(again)
        self._waiting.extendleft(again)
        self._pump()
        self._connected(True)

    def _forgotten(self) -> list[_Out]:
        """What rule 5 sends again, newest first; of a topic only its newest instance is retained."""
        newer = {out.topic for out in self._waiting if out.retain}
        again = []
        for at, out in reversed(self._remembered):
            if at >= self._lost_at - REMEMBERED:
                again.append(replace(out, batch=None, retain=out.retain and out.topic not in newer))
                if out.retain:
                    newer.add(out.topic)
        self._remembered.clear()
        return again

    def _on_lost(self) -> None:
        self._connection = None
        self._lost_at = time.monotonic()
        self._connected(False)

    def _on_goodbye(self, connection: Connection) -> None:
        connection.publish(self._status_topic, _OFFLINE, mid=_STATUS_MID, retain=True)
