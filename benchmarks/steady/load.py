"""The load: a process that publishes readings and waits for what comes back, on two raw sockets.

1. PUBLISH packets of one length are kept as rows of a numpy array; sending patches packet ids, event times and values
   into them. So the load costs a few percent of one core, and a slow client library hides no limit of the service.
2. The event time of a reading is the time at which it is sent. Rooms take turns, and a room never has two readings in
   one millisecond; so with 50 rooms no more than 50,000 readings are sent a second.
3. Saturation: at most ``window`` readings are without their result. This keeps the service busy, keeps its backlog
   short (what waits for long would be late, and late readings are other work) and is the same for every contender.
4. Paced: reading ``i`` is sent at ``i / rate`` seconds. What is behind the schedule is sent at once, and counted.

Run as ``python -m benchmarks.steady.load '<JSON of Order>'``; prints the JSON of a `Result`.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Order", "Result"]

_QUIET_SECONDS: Final = 20.0
_MOST_ROUNDS: Final = 20
_DIGITS: Final = 13
_PAYLOAD: Final = b'{"ts": 0000000000000, "temperature": 00.00, "humidity": 00.00}'
Bytes: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to send. ``topic`` holds ``{room}``; ``results`` is the topic filter of one result per reading.

    ``rate`` 0 is saturation with ``window``. The rooms are called ``<prefix>00000`` and so on.
    """

    port: int
    topic: str
    results: str
    rooms: int
    readings: int
    prefix: str = "r"
    window: int = 10_000
    rate: float = 0.0
    warm_up: int = 0

    def __post_init__(self) -> None:
        if not self.rate and (self.readings % self.rooms or self.window < self.rooms):
            raise ValueError("rooms take full turns: readings is a multiple of rooms, and window no less than rooms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was seen. ``first`` and ``last`` are of the system's monotonic clock: first reading out, last result in.

    ``latencies`` (ms, only when paced) from before the reading was sent until its result was read, without the first
    ``warm_up`` readings. ``behind``: readings sent more than 5 ms after their time. ``error``: why it is not complete.
    """

    sent: int
    results: int
    first: float
    last: float
    latencies: list[float]
    behind: int
    error: str


class _Packets:
    """The readings of all rooms, one row each, ready to be sent."""

    def __init__(self, order: Order) -> None:
        rows = []
        for room in range(order.rooms):
            topic = order.topic.format(room=f"{order.prefix}{room:05d}").encode()
            body = struct.pack("!H", len(topic)) + topic + b"\0\0" + _PAYLOAD
            rows.append(b"\x32" + _length(len(body)) + body)
        self.rooms = order.rooms
        self._rows: Bytes = np.frombuffer(b"".join(rows), np.uint8).reshape(order.rooms, -1)
        start = self._rows.shape[1] - len(_PAYLOAD)
        self._mid = start - 2
        self._time = start + _PAYLOAD.index(b"0000000000000")
        self._values = [start + _PAYLOAD.index(b"00.00", at) for at in (20, 50)]
        self._generator = np.random.default_rng(1)
        self._next = 0

    def build(self, rooms: npt.NDArray[np.int64], times: list[int]) -> bytes:
        """Packets of ``rooms``; ``times`` divides them into equal parts."""
        count = len(rooms)
        packets = self._rows[rooms]
        mids = (np.arange(self._next, self._next + count) % 65_535 + 1).astype(">u2")
        self._next += count
        packets[:, self._mid : self._mid + 2] = mids.view(np.uint8).reshape(-1, 2)
        digits: Bytes = np.frombuffer("".join(map(str, times)).encode(), np.uint8).reshape(-1, _DIGITS)
        packets[:, self._time : self._time + _DIGITS] = np.repeat(digits, count // len(times), axis=0)
        for at in self._values:
            number = self._generator.integers(1500, 3000, count)
            for place, weight in ((0, 1000), (1, 100), (3, 10), (4, 1)):
                packets[:, at + place] = number // weight % 10 + ord("0")
        return packets.tobytes()


def _length(size: int) -> bytes:
    found = bytearray()
    while True:
        size, digit = divmod(size, 128)
        found.append(digit | (0x80 if size else 0))
        if not size:
            return bytes(found)


def _connect(port: int, name: str) -> socket.socket:
    """A clean session of MQTT 3.1.1, without keep-alive."""
    link = socket.create_connection(("127.0.0.1", port), timeout=10)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    body = b"\0\4MQTT\4\2\0\0" + struct.pack("!H", len(name)) + name.encode()
    link.sendall(b"\x10" + _length(len(body)) + body)
    if (answer := link.recv(4)) != b"\x20\x02\0\0":
        raise ConnectionError(f"the broker on port {port} refuses us: {answer!r}")
    return link


def _subscribe(link: socket.socket, topic: str) -> None:
    body = b"\0\1" + struct.pack("!H", len(topic)) + topic.encode() + b"\0"
    link.sendall(b"\x82" + _length(len(body)) + body)
    if (answer := link.recv(5))[:1] != b"\x90":
        raise ConnectionError(f"the broker does not let us subscribe: {answer!r}")


class _Load:
    def __init__(self, order: Order) -> None:
        self._order = order
        self._packets = _Packets(order)
        self._out = _connect(order.port, f"load-{time.time_ns()}")
        self._in = _connect(order.port, f"look-{time.time_ns()}")
        _subscribe(self._in, order.results)
        self._out.setblocking(False)
        self._in.setblocking(False)
        self._poll = select.poll()
        self._unsent = memoryview(b"")
        self._kept = b""
        self._acks = self.sent = self.results = self.behind = 0
        self._newest = self._spent = 0
        self.first = self.last = 0.0
        self._under_way: dict[tuple[bytes, bytes], tuple[int, float]] = {}
        self.latencies: list[float] = []

    def run(self) -> Result:
        self.first = self.last = time.monotonic()
        error = ""
        while self.results < self._order.readings or self._acks < 4 * self._order.readings:
            self._send()
            self._wait()
            self._take_acks()
            self._take_results()
            if time.monotonic() - max(self.last, self.first) > _QUIET_SECONDS:
                error = f"no result for {_QUIET_SECONDS:.0f} s: {self.sent} sent, {self._acks // 4} confirmed"
                break
        return Result(
            sent=self.sent,
            results=self.results,
            first=self.first,
            last=self.last,
            latencies=self.latencies,
            behind=self.behind,
            error=error,
        )

    def _send(self) -> None:
        if not self._unsent and self.sent < self._order.readings:
            self._unsent = memoryview(self._paced() if self._order.rate else self._saturating())
        if self._unsent:
            try:
                self._unsent = self._unsent[self._out.send(self._unsent) :]
            except BlockingIOError:
                return

    def _saturating(self) -> bytes:
        now = time.time_ns() // 1_000_000
        rooms = self._packets.rooms
        left = self._order.readings - self.sent
        rounds = min((self._order.window - self.sent + self.results) // rooms, now - self._newest, _MOST_ROUNDS)
        rounds = min(rounds, -(-left // rooms))
        if rounds <= 0:
            return b""
        turns = np.tile(np.arange(rooms), rounds)
        self._newest = now
        self.sent += len(turns)
        return self._packets.build(turns, list(range(now - rounds + 1, now + 1)))

    def _paced(self) -> bytes:
        began = time.monotonic()
        due = min(int((began - self.first) * self._order.rate) + 1, self._order.readings)
        if due <= self.sent:
            return b""
        now = time.time_ns() // 1_000_000
        rooms = self._packets.rooms
        # A room must not have two readings in one millisecond: what is more than one turn follows in the next one.
        self._spent = self._spent if self._newest == now else 0
        turns = np.arange(self.sent, min(due, self.sent + rooms - self._spent)) % rooms
        if not len(turns):
            return b""
        self._spent += len(turns)
        for room in turns.tolist():
            self._under_way[(b"%s%05d" % (self._order.prefix.encode(), room), b"%d" % now)] = (self.sent, began)
            if began - self.first - self.sent / self._order.rate > 0.005:
                self.behind += 1
            self.sent += 1
        self._newest = now
        return self._packets.build(turns, [now])

    def _wait(self) -> None:
        wait = 5.0
        if self._unsent:
            self._poll.register(self._out, select.POLLIN | select.POLLOUT)
        else:
            self._poll.register(self._out, select.POLLIN)
            if self.sent < self._order.readings:
                at = self.first + self.sent / self._order.rate if self._order.rate else 0.0
                wait = max(at - time.monotonic(), 0.0) * 1000
                if not self._order.rate:
                    wait = 1.0
        self._poll.register(self._in, select.POLLIN)
        self._poll.poll(wait)

    def _take_acks(self) -> None:
        try:
            taken = len(self._out.recv(1 << 16))
        except BlockingIOError:
            return
        if not taken:
            raise ConnectionError("the broker hung up")
        self._acks += taken

    def _take_results(self) -> None:
        try:
            data = self._in.recv(1 << 18)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionError("the broker hung up on the subscriber")
        now = time.monotonic()
        data = self._kept + data
        at, size = 0, len(data)
        while size - at >= 5:
            length, shift, body = 0, 0, at + 1
            while True:
                digit = data[body]
                length |= (digit & 0x7F) << shift
                body += 1
                shift += 7
                if digit < 0x80:
                    break
            if body + length > size:
                break
            if data[at] & 0xF0 == 0x30:
                self.results += 1
                self.last = now
                if self._order.rate:
                    self._time_one(data[body : body + length], now)
            at = body + length
        self._kept = data[at:]

    def _time_one(self, packet: bytes, now: float) -> None:
        end = 2 + int.from_bytes(packet[:2], "big")
        room = packet[2:end].rpartition(b"/")[2]
        position = packet.index(b'"time":', end) + 7
        stamp = packet[position : position + _DIGITS + 1].strip()[:_DIGITS]
        index, sent = self._under_way.pop((room, stamp))
        if index >= self._order.warm_up:
            self.latencies.append((now - sent) * 1000)


def main() -> None:
    wanted: dict[str, Any] = json.loads(sys.argv[1])
    json.dump(asdict(_Load(Order(**wanted)).run()), sys.stdout)


if __name__ == "__main__":
    main()
