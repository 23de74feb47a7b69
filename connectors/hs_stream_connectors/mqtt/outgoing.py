"""Messages on their way to a broker at QoS 1, each until it is confirmed, or known to be one that it will not have.

One message must never hold up the others for ever. Theory of operation (the rules are DE-32 to DE-35 in
``docs/specs/delivery.md``):

1. At most ``window`` messages and `WINDOW_BYTES` bytes are in flight (fewer if the broker says so). They go out in the
   order of the calls; after a reconnect everything unconfirmed goes out again first, in order.
2. A broker that is killed forgets what it confirmed and had not saved yet. So what was confirmed within the last
   ``remember`` seconds before a connection was lost goes out once more on the next one, before anything newer; but for
   where the broker is known to live: it closed the connection over a message (rules 4 and 5), and is there at once.
3. What MQTT forbids in a topic, and what is larger than the broker or the settings allow, is not sent.
4. A PUBACK that says no for now (quota exceeded) means later: what came after it on the same topic is sent once more,
   so that the order holds. One that says no for good ends the message, and where it is about the topic, whatever else
   comes on it within `_REFUSED` seconds. (mosquitto 2.0 closes the connection as well: that is nobody else's fault.)
5. Some messages make a broker close the connection, without a word why. A message is given up when that was so
   `LOSSES` times **while it was on trial**: on a connection that the broker had accepted and kept open for `SETTLE`
   seconds (and on which it had confirmed ``status``), with nothing else in flight, until `_GRACE` seconds after its
   confirmation. The first trial needs no `SETTLE`. When a connection is lost, whoever was confirmed just then (some
   brokers confirm first, and close then) and whoever is first unconfirmed go on trial, once each, one after the other.
6. So an outage gives nothing up. A trial lasts for one round trip and `_GRACE`: a broker that is killed, or a second
   service with our client id, would have to strike within that of the same message, three times in a row. A connection
   that is refused, times out, or ends for a reason that has nothing to do with us (the broker stops, is busy, ...)
   proves nothing, and trials begin again at the first.
7. After a loss the window opens again from one message on, by one with each confirmation (of what was never confirmed
   before): so a message that closes connections is found within few of them, even where confirmations are lost too.
8. What was given up on a topic is not tried again for `_GIVEN_UP` seconds unless it is smaller: trials cost time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from hs_stream.backoff import backoff
from hs_stream.core.stream import unpublishable
from hs_stream_connectors.mqtt.client import MqttClient
from hs_stream_connectors.mqtt.connection import FIRST_MID, Connection
from hs_stream_connectors.mqtt.options import MqttOptions, Will
from hs_stream_connectors.mqtt.packets import publish_size
from hs_stream_connectors.mqtt.replies import FAILURE, reason_text

__all__ = ["LOSSES", "SETTLE", "WINDOW_BYTES", "Outgoing", "OutgoingStatistics", "Refusal"]

logger = logging.getLogger(__name__)

LOSSES: Final = 3
SETTLE: Final = 1.0
WINDOW_BYTES: Final = 16 * 1024 * 1024
_MOST_REMEMBERED: Final = 20_000
_MOST_REMEMBERED_BYTES: Final = 32 * 1024 * 1024
_STATUS_MID: Final = 65_535
_ONLINE: Final = b"online"
_OFFLINE: Final = b"offline"
_MAX_TOPIC: Final = 65_535
_MOST_HEAD: Final = 16
"""Bytes of a PUBLISH besides its topic and payload, and some."""
_GRACE: Final = 0.05
"""Seconds. A broker that closes over a message that it has confirmed does both at once."""
_GIVEN_UP: Final = 600.0
_REFUSED: Final = 60.0
_MOST_BARRED: Final = 1_000
_LATER: Final = frozenset({0x91, 0x96, 0x97})
"""Packet identifier in use, message rate too high, quota exceeded."""
_NOT_AUTHORIZED: Final = 0x87
_TOPIC_INVALID: Final = 0x90
_TOO_LARGE: Final = 0x95
_FIRST_LATER, _LAST_LATER = 0.5, 30.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a message does not go out. ``reason`` is one of a few words, ``message`` says what to do."""

    reason: str
    message: str
    size: int = 0


@dataclass(slots=True)
class OutgoingStatistics:
    """Since it was made. ``refused``: messages that were not and will not be sent; ``repeated``: sent once more."""

    confirmed: int = 0
    refused: int = 0
    repeated: int = 0
    waiting: int = 0
    in_flight: int = 0


@dataclass(slots=True, eq=False)
class _Out:
    topic: str
    payload: bytes
    retain: bool
    done: Callable[[Refusal | None], None] | None
    """``None``: nobody waits, it was confirmed before."""


class _Bar(NamedTuple):
    """Until when (monotonic) nothing of ``least`` or more bytes is sent on a topic, and why."""

    until: float
    least: int
    refusal: Refusal


class Outgoing:
    """One connection that publishes. Run its `client`.

    ``status``: a topic that is ``online`` (retained) while connected and ``offline`` otherwise, by last will too.
    ``max_size``: bytes of the largest message, where the broker does not say less. ``connected`` is told of changes.
    """

    def __init__(
        self,
        options: MqttOptions,
        *,
        window: int,
        max_size: int,
        status: str = "",
        remember: float = 0.0,
        settle: float = SETTLE,
        connected: Callable[[bool], None] | None = None,
    ) -> None:
        self.client = MqttClient(
            options,
            clean=True,
            will=Will(status, _OFFLINE) if status else None,
            ready=self._on_ready,
            lost=self._on_lost,
            missed=self._on_missed,
            confirmed=self._on_confirmed,
            goodbye=self._on_goodbye,
            explain=self._explain,
        )
        self._v5 = options.version == 5
        self._status, self._remember_seconds, self._settle = status, remember, settle
        self._connected = connected
        self._connection: Connection | None = None
        self._largest_window = self._window = window
        self._max_size = self._limit = max_size
        self._surely = 0
        """Bytes of topic and payload with which a message is not too large, whatever else is in its packet."""
        self._waiting: deque[_Out] = deque()
        self._in_flight: dict[int, _Out] = {}
        self._in_flight_bytes = 0
        self._remembered: deque[tuple[float, _Out]] = deque()
        self._remembered_bytes = 0
        self._lost_at = 0.0
        self._next_mid = FIRST_MID
        self._statistics = OutgoingStatistics()
        # Rules 5 to 8.
        self._suspects: list[_Out] = []
        self._trial: _Out | None = None
        """The first suspect, while it is on trial."""
        self._losses = 0
        """Of the first suspect, on trial."""
        self._last: tuple[float, _Out] | None = None
        """Who was confirmed last on this connection, and when."""
        self._why = ""
        """What the last connection was lost for, where that is known."""
        self._proven = self._settled = False
        self._room = window
        self._new = 0
        """How many in flight were never confirmed: `_room` bounds these."""
        self._barred: dict[str, _Bar] = {}
        self._was_refused = False
        """Whether the last word of this connection was a no."""
        # Rule 4.
        self._held: list[_Out] = []
        self._holding = False
        self._holds = 0

    def send(self, topic: str, payload: bytes, *, retain: bool, done: Callable[[Refusal | None], None]) -> None:
        """Take a message. ``done`` is called once: with ``None`` when it is confirmed, else with why it will not be."""
        self._waiting.append(_Out(topic, payload, retain, done))

    def pump(self) -> None:
        """Send what may be sent now; call it after one or many `send`."""
        connection = self._connection
        if connection is None or not connection.is_open or self._holding or self._trial is not None:
            return
        waiting, in_flight = self._waiting, self._in_flight
        window = self._window if self._proven else self._window - 1  # the status is in flight
        while waiting and len(in_flight) < window and self._in_flight_bytes < WINDOW_BYTES:
            out = waiting[0]
            if out.done is not None and self._new >= self._room:
                return
            suspected = bool(self._suspects) and out is self._suspects[0]
            if suspected and (in_flight or not self._proven or (self._losses and not self._settled)):
                return
            waiting.popleft()
            if (refusal := self._refusal(out)) is not None:
                self._end(out, refusal)
                continue
            mid = self._take_mid()
            in_flight[mid] = out
            self._new += out.done is not None
            self._in_flight_bytes += len(out.payload)
            connection.publish(out.topic, out.payload, mid=mid, retain=out.retain and connection.retains)
            if suspected:
                self._trial = out
                return

    def statistics(self) -> OutgoingStatistics:
        """The counters, brought up to date; read only."""
        statistics = self._statistics
        statistics.waiting, statistics.in_flight = len(self._waiting) + len(self._held), len(self._in_flight)
        return statistics

    def _take_mid(self) -> int:
        while True:
            mid = self._next_mid
            self._next_mid = mid + 1 if mid + 1 < _STATUS_MID else FIRST_MID
            if mid not in self._in_flight:
                return mid

    # --- what the broker will not have ---

    def _refusal(self, out: _Out) -> Refusal | None:
        """Rules 3 and 8."""
        topic = out.topic
        if topic.isascii() and topic.isprintable():
            if not self._barred and len(topic) + len(out.payload) < self._surely and len(topic) <= _MAX_TOPIC:
                return None
        elif found := unpublishable(topic):
            return Refusal(
                "plate_value",
                f"the topic {topic[:200]!r} holds {found!r}, which MQTT forbids: rename the device",
                len(out.payload),
            )
        raw = topic.encode()
        size = publish_size(raw, out.payload, v5=self._v5)
        if len(raw) > _MAX_TOPIC:
            return Refusal("topic_too_long", f"the topic has {len(raw)} bytes; MQTT allows {_MAX_TOPIC}", size)
        if size > self._limit:
            whose = "mqtt.max_publish allows" if self._limit == self._max_size else "the broker takes"
            return Refusal(
                "too_large_to_publish",
                f"{size} bytes for {topic[:200]!r}, and {whose} {self._limit}: publish less, or raise it",
                size,
            )
        bar = self._barred.get(topic)
        if bar is not None and size >= bar.least and time.monotonic() < bar.until:
            return replace(bar.refusal, size=size)
        return None

    def _bar(self, topic: str, seconds: float, least: int, refusal: Refusal) -> None:
        self._barred.pop(topic, None)
        self._barred[topic] = _Bar(time.monotonic() + seconds, least, refusal)
        if len(self._barred) > _MOST_BARRED:
            del self._barred[next(iter(self._barred))]

    def _end(self, out: _Out, refusal: Refusal) -> None:
        """It will not be sent."""
        if out in self._suspects:
            self._acquit(out)
        self._statistics.refused += 1
        if out.done is not None:
            out.done(refusal)

    # --- confirmations ---

    def _on_confirmed(self, mid: int, code: int) -> None:
        if mid == _STATUS_MID:
            self._proven = True
            if code >= FAILURE:
                logger.error("the MQTT broker refuses %s on %s: %s", "online", self._status, reason_text(code))
            self.pump()
            return
        out = self._in_flight.pop(mid, None)
        if out is None:
            return
        self._in_flight_bytes -= len(out.payload)
        if out.done is not None:
            self._new -= 1
            if self._room < self._window:
                self._room += 1
        connection = self._connection
        if out is self._trial and connection is not None:
            asyncio.get_running_loop().call_later(_GRACE, self._survived, connection, out)
        self._was_refused = code >= FAILURE
        if code in _LATER:
            self._hold(out)
        elif code >= FAILURE:
            self._refused(out, code)
        else:
            if self._barred:
                self._forgive(out)
            self._statistics.confirmed += out.done is not None
            self._last = time.monotonic(), out
            if self._remember_seconds:
                self._remember(out)
            if self._holding:
                self._follow(out)
            else:
                self._holds = 0
            if (done := out.done) is not None:
                out.done = None
                done(None)
        if self._holding and not self._in_flight:
            self._hold_over()
        self.pump()

    def _refused(self, out: _Out, code: int) -> None:
        size = publish_size(out.topic.encode(), out.payload, v5=self._v5)
        reason = {_NOT_AUTHORIZED: "not_authorized", _TOO_LARGE: "too_large_to_publish"}.get(code, "refused")
        why = f"the broker refuses {out.topic[:200]!r}: {reason_text(code)}: check its access list and limits"
        refusal = Refusal(reason, why, size)
        if code in (_NOT_AUTHORIZED, _TOPIC_INVALID):
            self._bar(out.topic, _REFUSED, 0, refusal)
        self._end(out, refusal)

    def _remember(self, out: _Out) -> None:
        """Rule 2."""
        assert self._last is not None
        now, remembered = self._last[0], self._remembered
        remembered.append(self._last)
        self._remembered_bytes += len(out.payload)
        while remembered and (
            remembered[0][0] < now - self._remember_seconds
            or len(remembered) > _MOST_REMEMBERED
            or self._remembered_bytes > _MOST_REMEMBERED_BYTES
        ):
            self._remembered_bytes -= len(remembered.popleft()[1].payload)

    # --- later (rule 4) ---

    def _hold(self, out: _Out) -> None:
        if not self._holding:
            self._holding = True
            if not self._holds:
                logger.warning("the MQTT broker takes no more messages for now (%r); trying again", out.topic[:200])
        self._held.append(out)

    def _follow(self, out: _Out) -> None:
        """``out`` was confirmed after something that is held; if that is on the same topic, it goes out again."""
        if any(held.topic == out.topic for held in self._held):
            self._held.append(replace(out, done=None))

    def _hold_over(self) -> None:
        """Nothing is in flight any more: go on after a delay, with what is held first."""
        delay = backoff(self._holds, _FIRST_LATER, _LAST_LATER)
        self._holds += 1
        self._statistics.repeated += len(self._held)
        self._waiting.extendleft(reversed(self._held))
        self._held.clear()
        asyncio.get_running_loop().call_later(delay, self._go_on)

    def _go_on(self) -> None:
        if not self._held:
            self._holding = False
            self.pump()

    # --- trials (rules 5 to 8) ---

    def _survived(self, connection: Connection, out: _Out) -> None:
        if self._connection is connection and connection.is_open and self._trial is out:
            self._trial = None
            self._acquit(out)
            self.pump()

    def _acquit(self, out: _Out) -> None:
        self._suspects = [one for one in self._suspects if one is not out]
        self._losses = 0

    def _accuse(self, connection: Connection) -> None:
        """A connection was lost with nobody on trial."""
        self._losses = 0
        before, self._suspects = self._suspects, []
        if not connection.closed_on_us:
            return
        if self._last is not None and time.monotonic() - self._last[0] < _GRACE:
            self._suspects.append(self._last[1])
        if self._in_flight:
            self._suspects.append(next(iter(self._in_flight.values())))
        else:  # whoever waits for its trial had nothing to do with it
            self._suspects += [out for out in before if out not in self._suspects]

    def _judge(self, connection: Connection, first: _Out) -> None:
        """The connection was lost while ``first`` was on trial."""
        if not connection.closed_on_us:
            self._losses = 0
            return
        self._losses += 1
        size = publish_size(first.topic.encode(), first.payload, v5=self._v5)
        self._why = (
            f"it closes it when it is sent {size} bytes on {first.topic[:200]!r}: {self._losses} of {LOSSES} times"
        )
        if self._losses < LOSSES:
            return
        logger.error(
            "a message of %d bytes on %r is given up: the MQTT broker closed the connection each of the %d times that "
            "it was sent alone (see the broker's log)",
            *(size, first.topic[:200], LOSSES),
        )
        refusal = Refusal(
            "closes_connection",
            f"the broker closes the connection when it is sent {size} bytes on {first.topic[:200]!r}: see the broker's "
            "log and access list; if they are too many for it, set mqtt.max_publish",
            size,
        )
        # Who was confirmed all the same is refused for its topic, it seems, not for its size.
        self._bar(first.topic, _GIVEN_UP, size if self._in_flight else 0, refusal)
        self._in_flight.clear()
        self._end(first, refusal)

    def _forgive(self, out: _Out) -> None:
        """``out`` was confirmed, so what is not larger is no problem any more."""
        bar = self._barred.get(out.topic)
        if bar is not None and publish_size(out.topic.encode(), out.payload, v5=self._v5) >= bar.least:
            del self._barred[out.topic]

    def _explain(self) -> str:
        return self._why

    # --- the connection ---

    def _on_ready(self, connection: Connection) -> None:
        self._connection = connection
        self._window = min(self._largest_window, connection.receive_maximum)
        self._limit = min(self._max_size, connection.maximum_packet)
        self._surely = self._limit - _MOST_HEAD
        self._room = min(self._room, self._window)
        self._proven, self._settled, self._was_refused = not self._status, False, False
        asyncio.get_running_loop().call_later(self._settle, self._on_settled, connection)
        if self._status:
            connection.publish(self._status, _ONLINE, mid=_STATUS_MID, retain=connection.retains)
        unconfirmed, self._in_flight, self._in_flight_bytes, self._new = self._in_flight, {}, 0, 0
        self._statistics.repeated += len(unconfirmed) + len(self._held)
        # The window of the new connection may be smaller than the old one, so they queue up again in front.
        self._waiting.extendleft(reversed([*self._held, *unconfirmed.values()]))
        self._held.clear()
        self._holding = False
        again = [] if self._why else self._forgotten()
        if self._suspects and (first := self._suspects[0]) not in unconfirmed.values() and first.done is None:
            # It was confirmed; it goes before all others, as these may not get so far.
            with contextlib.suppress(ValueError):
                self._waiting.remove(first)
            again.append(first)
        self._statistics.repeated += len(again)
        self._waiting.extendleft(again)
        self.pump()
        if self._connected is not None:
            self._connected(True)

    def _on_settled(self, connection: Connection) -> None:
        if self._connection is connection:
            self._settled = True
            self.pump()

    def _forgotten(self) -> list[_Out]:
        """What rule 2 sends again, newest first; of a topic only its newest instance is retained."""
        newer = {out.topic for out in self._waiting if out.retain}
        again = []
        for at, out in reversed(self._remembered):
            if at >= self._lost_at - self._remember_seconds:
                again.append(replace(out, done=None, retain=out.retain and out.topic not in newer))
                if out.retain:
                    newer.add(out.topic)
        self._remembered.clear()
        self._remembered_bytes = 0
        return again

    def _on_lost(self) -> None:
        connection, self._connection, self._why = self._connection, None, ""
        trial, self._trial = self._trial, None
        self._lost_at = time.monotonic()
        assert connection is not None
        if connection.closed_on_us and self._was_refused:
            self._why = "it closes it when it refuses a message"
        elif trial is not None:
            self._judge(connection, trial)
        else:
            self._accuse(connection)
        if self._in_flight:
            self._room = 1
        self._last = None
        if self._connected is not None:
            self._connected(False)

    def _on_missed(self) -> None:
        """Rule 6: the broker itself is away."""
        self._suspects, self._losses, self._why = [], 0, ""

    def _on_goodbye(self, connection: Connection) -> None:
        if self._status:
            connection.publish(self._status, _OFFLINE, mid=_STATUS_MID, retain=connection.retains)
