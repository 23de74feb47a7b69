"""What the service logs, also on an MQTT topic: HyperStream's MQTT logger.

1. A record becomes one message at QoS 1, JSON: ``event``, ``level``, ``logger``, ``timestamp``, ``service`` (the client
   id of the service) and whatever else the event says. Texts are cut at `LONGEST` characters.
2. Logging never waits: a record is put into a queue of `QUEUE`, from whatever thread. While the queue is full (the
   broker is away, or slower than we log) new records are dropped and counted: the first ones say what happened.
3. What our own connection logs goes to the other handlers only, so that a failing broker is no reason to talk to it.
4. The connection is one of its own, with ``-log`` after the client id. Whether it works decides about nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from hs_stream.service.logs import json_formatter
from hs_stream_connectors.mqtt.client import ClientStatistics
from hs_stream_connectors.mqtt.options import MqttOptions
from hs_stream_connectors.mqtt.outgoing import Outgoing, Refusal

__all__ = ["LONGEST", "QUEUE", "MqttLog"]

QUEUE: Final = 1_000
LONGEST: Final = 4_000
_WINDOW: Final = 100
_MAX_SIZE: Final = 256 * 1024
_POLL_SECONDS: Final = 0.02

_ours: contextvars.ContextVar[bool] = contextvars.ContextVar("ours", default=False)


class MqttLog(logging.Handler):
    """A handler for the root logger. Records wait until `run` runs. ``dropped()`` is called for each that is lost."""

    def __init__(self, options: MqttOptions, topic: str, level: str, dropped: Callable[[], None]) -> None:
        super().__init__(level.upper())
        service = options.client_id

        def ours(_: Any, __: str, event: Any) -> Any:
            return {key: value[:LONGEST] if isinstance(value, str) else value for key, value in event.items()} | {
                "service": service
            }

        self.setFormatter(json_formatter(ours))
        self._topic = topic
        self._dropped = dropped
        self._waiting: deque[bytes] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context: contextvars.Context
        self._woken = False
        self._outgoing = Outgoing(
            options.with_client_id(f"{service}-log"),
            window=_WINDOW,
            max_size=_MAX_SIZE,
            connected=lambda _: self._pump(),
        )

    def connection_statistics(self) -> ClientStatistics:
        """The live counters of the connection; read only."""
        return self._outgoing.client.statistics()

    # --- any thread ---

    def emit(self, record: logging.LogRecord) -> None:
        """Rules 2 and 3. `logging.Handler.handle` lets one thread in at a time."""
        if _ours.get():
            return
        try:
            payload = self.format(record).encode()
        except Exception:  # noqa: BLE001 - a record that cannot be shown must not break whoever logs it
            self.handleError(record)
            return
        if len(self._waiting) >= QUEUE:
            self._dropped()
            return
        self._waiting.append(payload)
        loop = self._loop
        if loop is not None and not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop has just been closed: nothing is sent any more
                loop.call_soon_threadsafe(self._pump, context=self._context)

    # --- the loop's thread ---

    async def run(self) -> None:
        """Send, over one connection after the other, until cancelled."""
        _ours.set(True)
        self._context = contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        try:
            await self._outgoing.client.run()
        finally:
            self._loop = None

    async def wait_sent(self, seconds: float) -> None:
        """Return when everything is confirmed, the broker is away, or ``seconds`` have passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.connection_statistics().connected and (self._waiting or self._sent):  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_SECONDS)

    @property
    def _sent(self) -> int:
        statistics = self._outgoing.statistics()
        return statistics.waiting + statistics.in_flight

    def _pump(self) -> None:
        """Hand on as many as may be in flight, while there is a connection: the others wait where they are counted."""
        self._woken = False
        while self.connection_statistics().connected and self._waiting and self._sent < _WINDOW:
            self._outgoing.send(self._topic, self._waiting.popleft(), retain=False, done=self._done)
        self._outgoing.pump()

    def _done(self, refusal: Refusal | None) -> None:
        if refusal is not None:
            self._dropped()
        if self._waiting and not self._woken:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._pump, context=self._context)
