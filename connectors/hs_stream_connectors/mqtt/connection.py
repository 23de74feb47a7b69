"""One connection to a broker: paho-mqtt's protocol, our socket, asyncio's loop.

1. paho never touches the network itself. It gets a `BufferedSocket`, which is connected (and through the TLS handshake)
   before paho sees it: paho's ``connect()`` blocks. It writes CONNECT and SUBSCRIBE, and reads nothing. Whole packets
   are cut from one large read and decoded by `hs_stream_connectors.mqtt.packets` and `replies`: whatever stands in
   them, the worst that comes of it is another connection. What goes out is collected into one large write.
2. A `Connection` is used once. After a loss there is a new one, so an acknowledgement that comes too late finds a
   closed connection and does nothing; the broker sends those messages again.
3. Nothing here waits: bytes in, callbacks out, all on the loop's thread.
4. paho's own keepalive would give up on a connection that we do not read on purpose (back-pressure). So pings are sent
   here, by a timer, and an answer is only expected while we read.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from hs_stream.core.errors import BrokerUnavailable
from hs_stream_connectors.mqtt.options import MqttOptions, Will
from hs_stream_connectors.mqtt.packets import (
    DISCONNECT,
    LARGEST,
    PINGREQ,
    Message,
    PacketReader,
    ProtocolError,
    puback,
    publish,
)
from hs_stream_connectors.mqtt.replies import FAILURE, connack, disconnect, reason_text, suback
from hs_stream_connectors.mqtt.topics import identifier_of

__all__ = ["FIRST_MID", "BrokerRefuses", "BufferedSocket", "Connection", "open_socket"]

logger = logging.getLogger(__name__)

_GOODBYE_SECONDS = 1.0
_POLL_SECONDS = 0.005
_READ_SIZE = 256 * 1024
_WRITE_HIGH = 256 * 1024
_CONNACK, _PUBREC, _PUBREL, _PUBCOMP, _SUBACK, _DISCONNECT = 0x20, 0x50, 0x60, 0x70, 0x90, 0xE0
FIRST_MID = 32_768
"""paho numbers its own packets from 1 on."""
_HINTS = {
    0x84: "set mqtt.version = 3",
    0x85: "choose another mqtt.client_id",
    0x86: "check mqtt.username and mqtt.password_file",
    0x87: "check mqtt.username, mqtt.password_file and the broker's access list",
    0x8E: "another client uses the same mqtt.client_id; give each service its own",
    0x93: "the broker allows fewer messages in flight; raise its max_inflight_messages",
    0x9A: "let the broker keep retained messages: hs/status is one",
}
_NOT_ABOUT_US = frozenset({0x89, 0x8B, 0x8D, 0x8E, 0x96, 0x98, 0x9C, 0x9D, 0x9F, 0xA0})
"""Reasons to end a connection that have nothing to do with what was sent on it: the broker stops, is busy, ..."""


class BufferedSocket:
    """What paho needs of a socket, over a connected non-blocking one. See rule 1 of the module."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._out = bytearray()
        self.broken = False
        sock.setblocking(False)

    # --- what paho calls ---

    def recv(self, _: int) -> bytes:
        """Nothing: paho reads nothing."""
        raise BlockingIOError

    def send(self, data: bytes | bytearray) -> int:
        """Take all of ``data``, or nothing (``BlockingIOError``) when the peer reads too slowly."""
        if len(self._out) > _WRITE_HIGH:
            self.flush()
            if len(self._out) > _WRITE_HIGH:
                raise BlockingIOError
        self._out += data
        return len(data)

    def put(self, packets: bytes) -> None:
        """Take whole packets without a limit: the caller bounds them by its window."""
        self._out += packets

    def close(self) -> None:
        """Close it, after one attempt to write what is left."""
        if self._sock.fileno() >= 0:
            self.flush()
        self._sock.close()

    def fileno(self) -> int:
        """The descriptor, -1 when closed."""
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        """Nothing: it never blocks."""

    # --- what `Connection` calls ---

    def read(self) -> bytes | None:
        """What is there, at most 256 KiB; ``b""`` when nothing is, ``None`` when the peer is gone."""
        try:
            return self._sock.recv(_READ_SIZE) or None
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return b""
        except OSError:
            return None

    @property
    def failed(self) -> bool:
        """Whether the connection was reset. Ask it after each `read`: uvloop tells of data and a reset only once."""
        return self._sock.fileno() >= 0 and self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0

    @property
    def decrypted(self) -> bool:
        """Whether the TLS layer holds bytes that the loop does not know of."""
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.fileno() >= 0 and self._sock.pending() > 0

    def flush(self) -> bool:
        """Write what can be written; True when nothing is left. A dead peer sets ``broken``."""
        while self._out:
            try:
                sent = self._sock.send(self._out)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            except OSError:
                self._out.clear()
                self.broken = True
                return True
            del self._out[:sent]
        return True


class BrokerRefuses(BrokerUnavailable):
    """The broker answers, and does not let us in."""


def open_socket(options: MqttOptions) -> socket.socket:
    """Connect, with TLS where the URL says so. Blocks, at most about twice ``connect_timeout``.

    Name resolution and the TLS handshake have no asynchronous form that works on a plain socket, so the caller runs
    this in a thread. Raises `BrokerUnavailable`.
    """
    where = f"{options.host}:{options.port}"
    context = options.tls_context() if options.tls else None
    try:
        sock = socket.create_connection((options.host, options.port), timeout=options.connect_timeout)
    except OSError as error:
        raise BrokerUnavailable(
            f"no MQTT broker answers at {where}: {error}", hint="start it, or correct mqtt.url"
        ) from None
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is None:
        return sock
    try:
        return context.wrap_socket(sock, server_hostname=options.host)
    except (OSError, ValueError) as error:
        sock.close()
        raise BrokerUnavailable(
            f"TLS with {where} failed: {error}", hint="check mqtt.ca_file and that the port speaks TLS"
        ) from None


class _Paho(Client):
    """paho on a socket that is connected already: the one place where one of its internals is replaced."""

    ready: BufferedSocket

    def _create_socket(self) -> BufferedSocket:
        return self.ready


class Connection:
    """One connection's life: CONNECT to loss. The callbacks are called on the loop.

    ``connected_cb()`` after a good CONNACK, ``subscribed_cb(refused)`` after every SUBACK has come, with the reason
    code of each filter that is refused by now, ``confirmed_cb(packet id, reason code)`` per PUBACK, ``burst_cb()`` when
    a read brought messages (see `take`), ``lost_cb(error)`` exactly once, at the end.

    What the broker said is known from ``connected_cb`` on: ``identifies`` (it says for which subscription a copy of a
    message is), ``receive_maximum`` messages and ``maximum_packet`` bytes that it takes, ``retains``. ``closed_on_us``:
    it ended because the broker closed it, and gave no reason that has nothing to do with what it was sent.
    """

    def __init__(
        self,
        options: MqttOptions,
        sock: socket.socket,
        *,
        clean: bool,
        will: Will | None,
        connected_cb: Callable[[], None],
        subscribed_cb: Callable[[dict[str, int]], None],
        confirmed_cb: Callable[[int, int], None],
        burst_cb: Callable[[], None],
        lost_cb: Callable[[BrokerUnavailable], None],
        largest: int = LARGEST,
    ) -> None:
        self.options = options
        self.is_open = True
        self.session_present = False
        self.identifies = False
        self.receive_maximum = 65_535
        self.maximum_packet = 0
        self.retains = True
        self.closed_on_us = False
        self._loop = asyncio.get_running_loop()
        self._sock = BufferedSocket(sock)
        self._v5 = options.version == 5
        self._reader = PacketReader(v5=self._v5, confirmed=confirmed_cb, other=self._on_other, largest=largest)
        self._fd = sock.fileno()
        self._connected_cb, self._subscribed_cb = connected_cb, subscribed_cb
        self._burst_cb, self._lost_cb = burst_cb, lost_cb
        self._keepalive: float = options.keepalive
        self._reading = False
        self._writing = self._write_scheduled = False
        self._last_read = self._loop.time()
        self._subscribing: dict[int, list[str]] = {}
        self._refused: dict[str, int] = {}
        self._clean = clean
        self._timer: asyncio.TimerHandle | None = None
        self._paho = self._make_paho(clean, will)

    def _make_paho(self, clean: bool, will: Will | None) -> _Paho:
        options = self.options
        v5 = options.version == 5
        paho = _Paho(
            CallbackAPIVersion.VERSION2,
            client_id=options.client_id,
            protocol=MQTTProtocolVersion.MQTTv5 if v5 else MQTTProtocolVersion.MQTTv311,
            clean_session=None if v5 else clean,
            reconnect_on_failure=False,
        )
        paho.ready = self._sock
        if options.credentials is not None:
            paho.username_pw_set(*options.credentials)
        if will is not None:
            paho.will_set(will.topic, will.payload, qos=1, retain=True)
        paho.on_socket_register_write = self._on_want_write
        paho.on_socket_close = self._on_socket_close
        return paho

    def start(self) -> None:
        """Send CONNECT and begin to read."""
        options, clean, properties = self.options, self._clean, None
        if options.version == 5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = 0 if clean else options.session_expiry
            properties.ReceiveMaximum = options.receive_maximum
            self._paho.connect(options.host, options.port, options.keepalive, clean_start=clean, properties=properties)
        else:
            self._paho.connect(options.host, options.port, options.keepalive)
        self.resume()
        self._timer = self._loop.call_later(options.connect_timeout, self._refuse_silence)

    # --- out ---

    def subscribe(self, filters: Sequence[str]) -> None:
        """Subscribe to all of ``filters`` at QoS 1.

        With MQTT 5 retained messages come only for subscriptions that are new, and each copy of a message says for
        which subscription it is (`identifier_of` its filter), if the broker can do that.
        """
        at_once = 1 if self.identifies else 100  # an identifier is of a whole packet
        for first in range(0, len(filters), at_once):
            part = list(filters[first : first + at_once])
            properties = None
            if self.identifies:
                properties = Properties(PacketTypes.SUBSCRIBE)  # type: ignore[no-untyped-call]
                properties.SubscriptionIdentifier = identifier_of(part[0])
            if self._v5:
                wish = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
                _, mid = self._paho.subscribe([(name, wish) for name in part], properties=properties)
            else:
                _, mid = self._paho.subscribe([(name, 1) for name in part])
            if mid is not None:
                self._subscribing[mid] = part

    def publish(self, topic: str, payload: bytes, *, mid: int, retain: bool = False, dup: bool = False) -> None:
        """Send one message at QoS 1. The caller gives packet ids from `FIRST_MID` on, and bounds what is in flight.

        At QoS 0 where ``mid`` is 0.
        """
        if self.is_open:
            self._send_raw(publish(topic.encode(), payload, mid=mid, retain=retain, dup=dup, v5=self._v5))

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """PUBACK for ``messages`` in this order. Nothing when the connection is gone."""
        if self.is_open:
            packets = puback([message.mid for message in messages if message.qos])
            if packets:
                self._send_raw(packets)

    async def close(self) -> None:
        """Say goodbye (no last will), and wait up to a second until the broker has read all of it.

        Closing at once could reset the connection while acknowledgements are still on their way.
        """
        if not self.is_open:
            return
        self._send_raw(DISCONNECT)
        self._end(BrokerUnavailable("the connection was closed by us"), close=False)
        try:
            async with asyncio.timeout(_GOODBYE_SECONDS):
                while not self._sock.flush():  # noqa: ASYNC110 - the loop no longer watches this socket
                    await asyncio.sleep(_POLL_SECONDS)
                while self._sock.read() is not None:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            logger.info("the MQTT broker did not answer our goodbye")
        finally:
            self._sock.close()

    def _send_raw(self, packets: bytes) -> None:
        # Whole packets between paho's whole packets: `BufferedSocket.send` never takes a part of one.
        self._sock.put(packets)
        self._schedule_write()

    def _on_want_write(self, *_: object) -> None:
        self._schedule_write()

    def _on_socket_close(self, *_: object) -> None:
        # The loop must forget the descriptor before it is closed: its number may be reused at once.
        self.pause()
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._fd)

    def _schedule_write(self) -> None:
        if not self._write_scheduled and not self._writing and self.is_open:
            self._write_scheduled = True
            self._loop.call_soon(self._write)

    def _write(self) -> None:
        self._write_scheduled = False
        if not self.is_open:
            return
        if self._paho.want_write():
            self._paho.loop_write()
        done = self._sock.flush() and not self._paho.want_write()
        if self._sock.broken:
            self._read()  # what it said before it closed
            self._on_closed()
        elif done == self._writing:
            self._writing = not done
            if done:
                self._loop.remove_writer(self._fd)
            else:
                self._loop.add_writer(self._fd, self._write)

    # --- in ---

    def pause(self) -> None:
        """Stop reading; the broker's messages stay in the kernel's buffers and at the broker."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def resume(self) -> None:
        """Read again."""
        if not self._reading and self.is_open:
            self._reading = True
            self._last_read = self._loop.time()
            self._loop.add_reader(self._fd, self._read)
            if self._sock.decrypted:
                self._loop.call_soon(self._read)

    def _read(self) -> None:
        if not self._reading or not self.is_open:
            return
        data = self._sock.read()
        self._last_read = self._loop.time()
        if data is None:
            self._on_closed()
            return
        if data:
            try:
                self._reader.feed(data)
            except ProtocolError as error:
                self._end(error)
                return
            except Exception as error:
                # A bug of ours. A connection that nobody reads any more would look like one that is fine.
                logger.exception("what the MQTT broker sent could not be handled")
                self._end(ProtocolError(f"what the MQTT broker sent could not be handled: {type(error).__name__}"))
                return
        if self._reader.messages:
            self._burst_cb()
        if self.is_open and self._sock.failed:
            self._on_closed()
        if self._sock.decrypted and self._reading and self.is_open:
            self._loop.call_soon(self._read)

    def take(self) -> list[Message]:
        """The messages of the last burst, once."""
        messages, self._reader.messages = self._reader.messages, []
        return messages

    # --- answers ---

    def _on_other(self, packet: bytes) -> None:
        kind = packet[0] & 0xF0
        if kind == _CONNACK:
            self._on_connack(packet)
        elif kind == _SUBACK:
            self._on_suback(packet)
        elif kind == _DISCONNECT:
            code = disconnect(packet)
            self._on_closed(code, f": {reason_text(code)}")
        elif kind in (_PUBREC, _PUBREL, _PUBCOMP):
            raise ProtocolError(f"the broker answers 0x{kind:02x} as for QoS 2, which it was not asked for")

    def _on_connack(self, packet: bytes) -> None:
        if self.maximum_packet:
            raise ProtocolError("the broker accepts us twice")
        said = connack(packet, v5=self._v5)
        if said.code >= FAILURE:
            where, hint = f"{self.options.host}:{self.options.port}", _HINTS.get(said.code, "")
            text = f"the MQTT broker at {where} refuses us: {reason_text(said.code)}"
            self._end(BrokerRefuses(text, hint=hint))
            return
        self.session_present = said.session_present
        self.receive_maximum, self.maximum_packet = said.receive_maximum, said.maximum_packet
        self.retains = said.retains
        self.identifies = self._v5 and said.identifies
        self._keepalive = self.options.keepalive if said.keepalive is None else said.keepalive
        self._schedule_ping()
        self._connected_cb()

    def _on_suback(self, packet: bytes) -> None:
        mid, codes = suback(packet, v5=self._v5)
        filters = self._subscribing.pop(mid, None)
        if filters is None:
            return
        if len(codes) != len(filters):
            raise ProtocolError(f"the broker answers {len(codes)} of {len(filters)} subscriptions")
        for name, code in zip(filters, codes, strict=True):
            self._refused.pop(name, None)
            if code >= FAILURE:
                self._refused[name] = code
        if not self._subscribing:
            self._subscribed_cb(dict(self._refused))

    # --- time and the end ---

    def _schedule_ping(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.is_open and self._keepalive:
            self._timer = self._loop.call_later(self._keepalive / 2, self._ping)

    def _ping(self) -> None:
        if self._reading and self._loop.time() - self._last_read > 1.5 * self._keepalive:
            self._drop(f"the MQTT broker did not answer for {1.5 * self._keepalive:.0f} s")
            return
        self._send_raw(PINGREQ)
        self._schedule_ping()

    def _refuse_silence(self) -> None:
        self._drop(
            f"{self.options.host}:{self.options.port} accepts us but does not speak MQTT {self.options.version}",
            0x84,
        )

    def _on_closed(self, code: int = 0, why: str = "") -> None:
        """The broker closed the connection, or it was reset."""
        if self.is_open:
            self.closed_on_us = code not in _NOT_ABOUT_US
        self._drop(f"the connection to the MQTT broker was lost{why}", code)

    def _drop(self, text: str, code: int = 0) -> None:
        self._end(BrokerUnavailable(text, hint=_HINTS.get(code, "")))

    def _end(self, error: BrokerUnavailable, *, close: bool = True) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self._on_socket_close()
        if self._timer is not None:
            self._timer.cancel()
        if close:
            self._sock.close()
        self._lost_cb(error)
