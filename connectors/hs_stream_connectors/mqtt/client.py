"""An MQTT client that stays connected: reconnects with a jittered backoff, and hands out messages in bursts.

One `MqttClient` is one client id and so one session at the broker. It holds at most one burst (what one read of at most
256 KiB brought); until that is taken it reads nothing more, so the rest stays at the broker.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from hs_stream.backoff import backoff
from hs_stream.core.errors import BrokerUnavailable
from hs_stream_connectors.mqtt.connection import BrokerRefuses, Connection, open_socket
from hs_stream_connectors.mqtt.options import MqttOptions, Will
from hs_stream_connectors.mqtt.packets import LARGEST, Message
from hs_stream_connectors.mqtt.replies import reason_text

__all__ = ["ClientStatistics", "MqttClient"]

logger = logging.getLogger(__name__)

_STABLE_SECONDS = 5.0
_SUSPICIOUS = 3
_SHOWN = 20
# Not every broker says "session taken over": mosquitto 2.0 just closes the connection of the first client.
_TAKEN = "does another client use the same mqtt.client_id? give each service its own"


@dataclass(slots=True)
class ClientStatistics:
    """Since the client was made. ``connects`` counts good CONNACKs, so reconnects are ``connects - 1``.

    ``refused``: the subscriptions that the broker does not give us now, with its reason; they are tried again.
    ``strays``: messages that came although nothing was subscribed to.
    """

    connected: bool = False
    connects: int = 0
    failures: int = 0
    received: int = 0
    confirmed: int = 0
    last_error: str = ""
    strays: int = 0
    refused: dict[str, str] = field(default_factory=dict)


class MqttClient:
    """Keeps one session connected while `run` runs.

    ``clean``: no session at the broker (for a client that subscribes to nothing). ``ready(connection)`` is called when
    the connection is good and every filter was answered, ``lost()`` when a ready connection is gone,
    ``missed()`` when one did not become ready, ``confirmed(mid, reason code)`` per PUBACK, ``goodbye(connection)``
    before we close a ready connection. ``explain()`` says what to do about connections that are lost again and again,
    where the caller knows. All callbacks are on the loop's thread. Of a message above ``largest`` bytes only the
    beginning is kept (`Message.left_out`).

    A client without filters acknowledges whatever comes all the same, and forgets it: brokers and their bridges do not
    always do what they should.
    """

    def __init__(
        self,
        options: MqttOptions,
        *,
        clean: bool = False,
        will: Will | None = None,
        ready: Callable[[Connection], None] | None = None,
        lost: Callable[[], None] | None = None,
        missed: Callable[[], None] | None = None,
        confirmed: Callable[[int, int], None] | None = None,
        goodbye: Callable[[Connection], None] | None = None,
        explain: Callable[[], str] | None = None,
        largest: int = LARGEST,
    ) -> None:
        self.options = options
        self._clean, self._will = clean, will
        self._ready, self._lost, self._confirmed, self._goodbye = ready, lost, confirmed, goodbye
        self._missed, self._explain = missed, explain
        self._largest = largest
        self._again: asyncio.TimerHandle | None = None
        """Subscribes again to what was refused."""
        self._refusals = 0
        self._filters: list[str] = []
        self._connection: Connection | None = None
        self._changed = asyncio.Event()
        self._stopped = False
        self._last_error: BrokerUnavailable | None = None
        self._statistics = ClientStatistics()

    def set_filters(self, filters: Sequence[str]) -> None:
        """What to subscribe to, from now and at every connection; each filter once."""
        self._filters = list(dict.fromkeys(filters))
        if self._connection is not None and self._statistics.connected:
            self._connection.subscribe(self._filters)

    def statistics(self) -> ClientStatistics:
        """The live counters; read only."""
        return self._statistics

    async def run(self) -> None:
        """Connect, and again whenever the connection is lost, until cancelled. Raises only `ConfigurationError`."""
        attempt = short = 0
        while True:
            started = asyncio.get_running_loop().time()
            connects = self._statistics.connects
            try:
                await self._one_connection()
            except BrokerUnavailable as error:
                accepted = self._statistics.connects > connects
                if asyncio.get_running_loop().time() - started > _STABLE_SECONDS:
                    attempt = short = 0
                elif accepted:
                    short += 1
                if not accepted and self._missed is not None:
                    self._missed()
                known = self._explain() if self._explain is not None else ""
                if known:
                    attempt = short = 0
                hint = error.hint or known or (_TAKEN if short >= _SUSPICIOUS else "")
                told = error if hint == error.hint else BrokerUnavailable(error.message, hint=hint)
                self._report(told, known=bool(known))
            await asyncio.sleep(self._delay(attempt))
            attempt += 1

    def _delay(self, attempt: int) -> float:
        return backoff(attempt, self.options.backoff_min, self.options.backoff_max)

    async def wait_connected(self, timeout: float) -> None:
        """Return when connected and subscribed.

        Raises `BrokerUnavailable`: at once with the broker's own words when it answers and refuses us, or after
        ``timeout`` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                while not self._statistics.connected:
                    if isinstance(self._last_error, BrokerRefuses):
                        raise self._last_error
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise self._last_error or BrokerUnavailable(
                f"no connection to {self.options.url} within {timeout:g} s", hint="check mqtt.url"
            ) from None

    async def receive(self) -> tuple[Connection, list[Message]]:
        """The next burst of messages and the connection to acknowledge them on. For one caller at a time."""
        while True:
            connection = self._connection
            if connection is not None and connection.is_open and not self._stopped:
                messages = connection.take()
                if messages:
                    self._statistics.received += len(messages)
                    return connection, messages
                connection.resume()
            self._changed.clear()
            await self._changed.wait()

    def stop_receiving(self) -> None:
        """Hand out no more messages; acknowledgements and pings still go out."""
        self._stopped = True
        if self._connection is not None:
            self._connection.pause()

    async def _one_connection(self) -> None:
        sock = await _open_in_thread(self.options)
        over: asyncio.Future[BrokerUnavailable] = asyncio.get_running_loop().create_future()

        def lost(error: BrokerUnavailable) -> None:
            if not over.done():
                over.set_result(error)

        connection = Connection(
            self.options,
            sock,
            clean=self._clean,
            will=self._will,
            connected_cb=self._on_connected,
            subscribed_cb=self._on_subscribed,
            confirmed_cb=self._on_confirmed,
            burst_cb=self._on_burst,
            largest=self._largest,
            lost_cb=lost,
        )
        self._connection = connection
        try:
            connection.start()
            raise await over
        finally:
            if connection.is_open and self._statistics.connected and self._goodbye is not None:
                self._goodbye(connection)
            self._connection = None
            if self._again is not None:
                self._again.cancel()
                self._again = None
            await connection.close()
            if self._statistics.connected:
                self._statistics.connected = False
                if self._lost is not None:
                    self._lost()

    def _on_connected(self) -> None:
        assert self._connection is not None
        self._statistics.connects += 1
        if self._filters:
            self._connection.subscribe(self._filters)
        else:
            self._on_subscribed({})

    def _on_subscribed(self, refused: dict[str, int]) -> None:
        assert self._connection is not None
        self._note_refused(self._connection, {name: reason_text(code) for name, code in refused.items()})
        if self._statistics.connected:
            return
        self._last_error = None
        self._statistics.connected = True
        logger.info("connected to %s as %s", self.options.url, self.options.client_id)
        self._changed.set()
        if self._ready is not None:
            self._ready(self._connection)

    def _note_refused(self, connection: Connection, refused: dict[str, str]) -> None:
        """Say what changed, and ask again for what is refused with a bounded, jittered delay."""
        if self._again is not None:
            self._again.cancel()
        before, self._statistics.refused = self._statistics.refused, refused
        for name in list(refused)[:_SHOWN]:
            if before.get(name) != refused[name]:
                hint = "it is asked again; check the broker's access list"
                logger.error("the MQTT broker refuses the subscription to %s: %s (%s)", name, refused[name], hint)
        for name in list(before)[:_SHOWN]:
            if name not in refused:
                logger.info("the MQTT broker gives us the subscription to %s now", name)
        if not refused:
            self._refusals = 0
            return
        again = partial(connection.subscribe, list(refused))
        self._again = asyncio.get_running_loop().call_later(self._delay(self._refusals), again)
        self._refusals += 1

    def _on_confirmed(self, mid: int, code: int) -> None:
        self._statistics.confirmed += 1
        if self._confirmed is not None:
            self._confirmed(mid, code)

    def _on_burst(self) -> None:
        if self._connection is not None and not self._filters:
            messages = self._connection.take()
            self._statistics.strays += len(messages)
            self._connection.acknowledge(messages)
            return
        if self._connection is not None:
            self._connection.pause()
        self._changed.set()

    def _report(self, error: BrokerUnavailable, *, known: bool) -> None:
        """``known``: what is known to come again and again is said once."""
        self._statistics.failures += 1
        if str(error) != self._statistics.last_error or (self._last_error is None and not known):
            logger.error("%s; trying again", error)
        self._statistics.last_error = str(error)
        self._last_error = error
        self._changed.set()


async def _open_in_thread(options: MqttOptions) -> socket.socket:
    opening = asyncio.get_running_loop().run_in_executor(None, open_socket, options)
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_discard)
        raise


def _discard(opening: asyncio.Future[socket.socket]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
