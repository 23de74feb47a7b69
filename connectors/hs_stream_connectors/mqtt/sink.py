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
4. At most `WINDOW` messages (fewer if the broker says so) are in flight. Messages go out in the order of the calls.
5. What was confirmed within the last `REMEMBERED` seconds before a connection was lost goes out once more on the next
   one, and what the broker will not have is given up and said: see `hs_stream_connectors.mqtt.outgoing`.
6. ``<prefix>/status`` is ``online`` while connected and ``offline`` otherwise, retained, also when we die (last will).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from hs_stream.core.errors import ConfigurationError, did_you_mean
from hs_stream.core.stream import unpublishable
from hs_stream.engine.ports import Publication, Unpublished
from hs_stream_connectors.mqtt.client import ClientStatistics
from hs_stream_connectors.mqtt.options import MqttOptions
from hs_stream_connectors.mqtt.outgoing import SETTLE, Outgoing, OutgoingStatistics, Refusal

__all__ = ["MAX_SIZE", "REMEMBERED", "WINDOW", "MqttSink", "check_publish_option"]

WINDOW: Final = 2_000
REMEMBERED: Final = 5.0
"""Seconds; mosquitto saves its state about once a second with ``autosave_interval 1``."""
MAX_SIZE: Final = 1_048_576
"""Bytes."""
_PAYLOADS: Final = ("json", "msgpack", "value")


def check_publish_option(key: str, value: Any) -> None:
    """``ConfigurationError`` unless ``retain`` and ``payload`` are what they may be."""
    if key == "retain" and not isinstance(value, bool):
        raise ConfigurationError(f"retain is not true or false but {value!r}")
    if key == "payload" and value not in _PAYLOADS:
        hint = did_you_mean(str(value), _PAYLOADS, "write")
        raise ConfigurationError(f"payload is not one of {', '.join(_PAYLOADS)}", hint=hint)


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


class MqttSink:
    """Implements `hs_stream.engine.ports.Sink`. It has a connection of its own, with ``-out`` after the client id.

    ``max_size``: bytes of the largest message, where the broker does not say less (with 3.1.1 it cannot).

    Sharing the source's connection would stop the confirmations whenever the source stops reading.
    """

    def __init__(
        self,
        name: str,
        options: MqttOptions,
        *,
        prefix: str = "hs",
        window: int = WINDOW,
        max_size: int = MAX_SIZE,
        settle: float = SETTLE,
    ) -> None:
        if not prefix or set(prefix) & set("+#") or unpublishable(prefix) or prefix[0] in "/$" or prefix[-1] == "/":
            raise ConfigurationError(
                f"the topic prefix {prefix!r} cannot be used", hint="write for example hs or home/hs"
            )
        self.name = name
        self.forgets_ms = round(REMEMBERED * 1000)
        self.prefix = prefix
        self._report: Callable[[bool], None] = lambda _: None
        self._outgoing = Outgoing(
            options.with_client_id(f"{options.client_id}-out"),
            window=window,
            max_size=max_size,
            status=f"{prefix}/status",
            remember=REMEMBERED,
            settle=settle,
            connected=self._on_connected,
        )

    def _on_connected(self, up: bool) -> None:
        self._report(up)

    async def run(self, connected: Callable[[bool], None]) -> None:
        """See `hs_stream.engine.ports.Sink.run`."""
        self._report = connected
        await self._outgoing.client.run()

    async def publish(self, publications: Sequence[Publication]) -> list[Unpublished]:
        """See `hs_stream.engine.ports.Sink.publish`."""
        if not publications:
            return []
        batch = _Batch(len(publications))
        for item in publications:
            topic = "/".join((self.prefix, item.workflow, item.stream.name, *item.plates))
            try:
                payload = encode(item)
            except Exception as error:  # noqa: BLE001 - a value that no payload can hold must not hold up the others
                batch.end(item, topic, Refusal("not_encodable", f"{topic[:200]!r}: the value does not fit: {error}"))
                continue
            retain = item.newest and bool(item.options.get("retain", False))
            self._outgoing.send(topic, payload, retain=retain, done=partial(batch.end, item, topic))
        self._outgoing.pump()
        await batch.done
        return batch.refused

    async def wait_connected(self, timeout: float) -> None:
        """Return when connected, else `BrokerUnavailable` with what to do. Needs `run` to run."""
        await self._outgoing.client.wait_connected(timeout)

    def statistics(self) -> OutgoingStatistics:
        """The counters, brought up to date; read only."""
        return self._outgoing.statistics()

    def connection_statistics(self) -> ClientStatistics:
        """The live counters of the connection; read only."""
        return self._outgoing.client.statistics()


class _Batch:
    """What one call of `MqttSink.publish` waits for."""

    __slots__ = ("_left", "done", "refused")

    def __init__(self, count: int) -> None:
        self._left = count
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.refused: list[Unpublished] = []

    def end(self, item: Publication, topic: str, refusal: Refusal | None) -> None:
        """One of them is confirmed, or will not be sent."""
        if refusal is not None:
            self.refused.append(Unpublished(item, topic, refusal.reason, refusal.message, refusal.size))
        self._left -= 1
        if not self._left and not self.done.done():
            self.done.set_result(None)
