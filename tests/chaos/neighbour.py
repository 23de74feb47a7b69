"""A hostile neighbour as a process of its own: bad messages over MQTT, and bad clients over HTTP, for some seconds.

``python neighbour.py SEED SECONDS MQTT_PORT HTTP_PORT READ_TOKEN STREAM...`` prints one JSON object at its end: what it
did, and how often (`Neighbour.did`). What it sends, one after the other, comes from the seed; when, from the machine.

It may publish to every topic, as any device of a broker without rights per topic may, and has the token that reads. It
does not lie about the rooms of others: that is what rights per topic are for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator

RATE = 20.0
"""Messages a second, on average; they come in bursts."""
REQUESTS = 8.0
"""Requests a second, on average."""
FOLLOWERS = 12
"""Who follows a stream live and hardly reads."""
IDLE = 150
"""Sockets that say nothing, or not enough."""
YEAR = 365 * 86_400_000
FORBIDDEN = ["\x01", "\x1b[2J", "\x7f", "\x85", "\x9b", "\ufdd0", "\uffff", "\U0001ffff", "+", "#", "a#"]
ODD = [
    "<b>x</b>",
    "..",
    "../../etc",
    "%s%n",
    "a b",
    "'; --",
    "\u202egnp",
    "\u200b",
    "$x",
    "é" * 60,
    "y" * 128,
    "z" * 129,
]

Message = tuple[str | bytes, bytes, bool]
"""Topic, payload, and whether it is retained."""


class Broken(Exception):
    """The other side ended the connection."""


class Client:
    """MQTT 3.1.1 with no rules: sends what it is given, at QoS 1, and does not look at what comes back."""

    def __init__(self, port: int, name: str) -> None:
        self._port, self._name = port, name
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._mid = 0

    async def send(self, topic: bytes, payload: bytes, retain: bool) -> None:
        """Raises `Broken` where the broker does not take it; the next call connects again."""
        if self._writer is None:
            await self._connect()
        assert self._writer is not None
        self._mid = self._mid % 65_535 + 1
        body = len(topic).to_bytes(2) + topic + self._mid.to_bytes(2) + payload
        self._writer.write(packet(0x32 | retain, body))
        try:
            await self._writer.drain()
        except OSError as error:
            self.close()
            raise Broken from error

    async def _connect(self) -> None:
        try:
            reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
            name = self._name.encode()
            self._writer.write(packet(0x10, b"\0\4MQTT\4\2\0\0" + len(name).to_bytes(2) + name))
            await asyncio.wait_for(reader.readexactly(4), 10)
        except (OSError, EOFError, TimeoutError) as error:
            self.close()
            raise Broken from error
        self._reading = asyncio.create_task(self._discard(reader))

    async def _discard(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while await reader.read(65_536):
                pass
        self.close()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None


def packet(kind: int, body: bytes) -> bytes:
    """An MQTT control packet."""
    size, length = len(body), b""
    while True:
        size, rest = divmod(size, 128)
        length += bytes([rest | 0x80 * bool(size)])
        if not size:
            return bytes([kind]) + length + body


class Neighbour:
    """See the module."""

    def __init__(self, seed: int, seconds: float, mqtt: int, http: int, token: str, streams: list[str]) -> None:
        self._random, self._web = random.Random(seed), random.Random(seed + 1)
        self._end = time.monotonic() + seconds
        self._http, self._token, self._streams = http, token, streams
        self._client, self._forbidden = Client(mqtt, "neighbour"), Client(mqtt, "neighbour-2")
        self.did: Counter[str] = Counter()
        self._kinds: dict[str, Callable[[], Iterator[Message]]] = {
            "malformed": self.malformed,
            "huge": self.huge,
            "parts": self.parts,
            "ancient": self.ancient,
            "future": self.future,
            "plates": self.plates,
            "nested": self.nested,
            "discovery": self.discovery,
            "sparkplug": self.sparkplug,
            "gateways": self.gateways,
        }

    async def run(self) -> None:
        jobs = [self._publish(), self._ask(), self._sit()]
        jobs += [self._follow(self._web.choice(self._streams)) for _ in range(FOLLOWERS)]
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)
        self._client.close()
        self._forbidden.close()

    @property
    def _over(self) -> bool:
        return time.monotonic() >= self._end

    # --- MQTT ---

    async def _publish(self) -> None:
        chance = self._random
        names = list(self._kinds)
        while not self._over:
            burst = chance.choice((1, 1, 2, 5, 20))
            for _ in range(burst):
                kind = chance.choice(names)
                for topic, payload, retain in self._kinds[kind]():
                    await self._send(kind, topic, payload, retain)
            await asyncio.sleep(chance.expovariate(RATE / burst))
        await self._forbid()

    async def _forbid(self) -> None:
        """Every code point that MQTT forbids, where the broker must decide."""
        for text in FORBIDDEN:
            await self._send("forbidden", f"home/{text}/climate", b'{"ts": 1}', False)

    async def _send(self, kind: str, topic: str | bytes, payload: bytes, retain: bool) -> None:
        raw = topic.encode("utf-8", "surrogatepass") if isinstance(topic, str) else topic
        client = self._forbidden if isinstance(topic, bytes) or kind == "forbidden" else self._client
        self.did[kind] += 1
        self.did["bytes"] += len(raw) + len(payload)
        try:
            await client.send(raw, payload, retain)
        except Broken:
            self.did["refused by the broker"] += 1
            await asyncio.sleep(0.05)

    def _room(self) -> str:
        """Of the honest half the time, for what can be no reading anyway."""
        return self._random.choice((f"live{self._random.randrange(20)}", f"evil{self._random.randrange(30)}"))

    def _own(self, room: str, payload: bytes) -> Message:
        """What may be a reading, of a room of its own."""
        self.did["bytes of readings"] += len(payload)
        return f"home/{room}/climate", payload, False

    def malformed(self) -> Iterator[Message]:
        chance = self._random
        good = b'{"ts": 1, "temperature": 21.5}'  # of 1970, so that it is no reading whatever is made of it
        bad = chance.choice(
            [
                chance.randbytes(chance.randrange(1, 2000)),
                good[: chance.randrange(len(good))],
                good.replace(b"21.5", chance.choice((b"NaN", b"1e999", b"9" * 400, b'"\\ud800"', b'"\xff"', b"\x00"))),
                b"\xef\xbb\xbf" + good[:-1],
                good[:-1] + b',"' + chance.randbytes(8) + b'":1}',
                b"",
                b"\x1b]0;owned\x07" * 100,
                b'{"temperature": 1}',
                b'{"ts": "yesterday", "temperature": 1}',
                b"true",
            ]
        )
        yield f"home/{self._room()}/climate", bad, chance.random() < 0.1
        yield f"packed/{self._room()}", chance.choice((bad, b"\xdd\xff\xff\xff\xff", b"\x81\x01\x01")), False

    def huge(self) -> Iterator[Message]:
        chance = self._random
        text = b'"' + b"x" * 300_000 + b'"'
        at = b'{"ts": %d, "temperature": ' % now()
        yield (
            chance.choice((f"home/{self._room()}/climate", f"packed/{self._room()}", f"nobody/{chance.random()}")),
            chance.choice((chance.randbytes(300_000), b"[" + text + b"]", b" " * 1_200_000, b'{"%s": 1}' % text[1:-1])),
            False,
        )
        if chance.random() < 0.1:
            yield self._own(f"evil{chance.randrange(30)}", at + chance.choice((text, b"[1]")) + b"}")

    def parts(self) -> Iterator[Message]:
        """Messages of very many parts that are no readings."""
        chance = self._random
        some = self._random.choice((1, 50, 5_000))
        later = now() + YEAR
        readings = [{"ts": later + at, "temperature": 1} for at in range(min(some, 2_000))]
        every = [
            b"[" + b"0," * 100_000 + b"0]",
            b"[" + b"{}," * 100_000 + b"0]",
            b"[" + b'{"ts":1},' * 20_000 + b"0]",
            json.dumps(readings).encode(),
            json.dumps([{"ts": now(), str(at): at} for at in range(some)]).encode(),
        ]
        yield f"home/{self._room()}/climate", chance.choice(every), False

    def ancient(self) -> Iterator[Message]:
        chance = self._random
        times = [0, 1, -1, -(10**15), 315_532_800_000, 946_684_800_000, now() - 20 * YEAR]
        reading: dict[str, float] = {"ts": chance.choice(times), "temperature": 1}
        yield f"home/{self._room()}/climate", json.dumps(reading).encode(), chance.random() < 0.1
        reading = {"ts": now() - chance.choice((15 * YEAR, YEAR, 86_400_000)), "temperature": chance.random()}
        yield self._own(f"evil{chance.randrange(5)}", json.dumps(reading).encode())

    def future(self) -> Iterator[Message]:
        chance = self._random
        times = [now() + 60_000, now() + YEAR, 10**15, 2**53, 2**63 - 1, 2**63, 2**64, 10**30]
        reading = {"ts": chance.choice(times), "temperature": 1}
        yield f"home/{self._room()}/climate", json.dumps(reading).encode(), chance.random() < 0.1

    def plates(self) -> Iterator[Message]:
        """Rooms with names that are forbidden or odd, and more rooms than there may be."""
        chance = self._random
        reading = json.dumps({"ts": now(), "temperature": 1, "uid": chance.choice(FORBIDDEN + ODD)}).encode()
        yield self._own(chance.choice(ODD), reading)
        yield self._own(f"invented{chance.randrange(10**9)}", reading)
        yield f"bound/{chance.randrange(10**9)}", reading, False
        yield f"home/{'long' * chance.choice((50, 5_000, 16_000))}/climate", reading, False
        if chance.random() < 0.2:
            yield chance.choice([b"home/\xff\xfe/climate", b"", b"home/\x00/climate", b"\xed\xa0\x80"]), reading, False

    def nested(self) -> Iterator[Message]:
        depth = self._random.choice((40, 1_000, 100_000))
        objects = b'{"ts": %d, "temperature": ' % now() + b'{"a":' * depth + b"1" + b"}" * (depth + 1)
        yield f"home/{self._room()}/climate", self._random.choice((b"[" * depth, b"[" * depth + b"]" * depth)), False
        room = f"evil{self._random.randrange(30)}"
        yield self._own(room, objects) if depth == 40 else (f"home/{room}/climate", objects, False)
        yield f"packed/{self._room()}", b"\x91" * depth, False

    def discovery(self) -> Iterator[Message]:
        """Descriptions for Home Assistant that are none, kept by the broker for every later start."""
        chance = self._random
        one = chance.choice([b"\xff\xfe", b"[" * 100_000, b"{}", b'{"unique_id": 1}', b"null", chance.randbytes(64)])
        kind = chance.choice(("sensor", "binary_sensor", "\U0001f4a3", "x" * 200))
        topic = f"homeassistant/{kind}/{chance.choice(('hs-soak-warm-1', chance.randrange(200)))}/config"
        yield topic, one, True
        yield "homeassistant/status", chance.choice((b"online", b"\xff", b"x" * 100_000)), chance.random() < 0.2

    def sparkplug(self) -> Iterator[Message]:
        chance = self._random
        kind = chance.choice(("NBIRTH", "DBIRTH", "NDATA", "DDATA", "NDEATH", "NCMD", "STATE", ""))
        topic = f"spBv1.0/g{chance.randrange(5)}/{kind}/e{chance.randrange(50)}/d{chance.randrange(50)}"
        metric = b"\x12\x06\x0a\x01" + chance.randbytes(1) + b"\x20\x03"
        every = [chance.randbytes(500), metric * 5_000, b"\x12\xff\xff\xff\xff\x0f", b"\x12" * 100_000, b""]
        yield topic, chance.choice(every), False

    def gateways(self) -> Iterator[Message]:
        chance = self._random
        every = [b"{", b'{"temperature": "' + b"x" * 1000 + b'"}', b'{"update": {"a": [1, 2]}}', chance.randbytes(100)]
        yield f"zigbee2mqtt/{chance.choice(ODD)}", chance.choice(every), chance.random() < 0.2
        yield f"tele/evil/{chance.choice(('SENSOR', 'STATE'))}", chance.choice(every), False

    # --- HTTP ---

    async def _ask(self) -> None:
        """Wrong tokens, odd hosts, odd requests; and, with the token, everything that can be read."""
        chance = self._web
        right = f"Authorization: Bearer {self._token}"
        stream = self._streams[0]
        while not self._over:
            wrong = f"Authorization: Bearer {chance.randbytes(chance.choice((1, 16, 4000))).hex()}"
            host = chance.choice(["localhost", "evil.example", "", "a" * 5000, "[::1", "127.0.0.1:99999999", "\xff"])
            path = chance.choice(
                [
                    "/",
                    "/healthz",
                    "/readyz",
                    "/metrics",
                    "/api/streams",
                    "/api/deadletters?limit=100",
                    f"/api/streams/{stream}/instances?start=-1m",
                    f"/api/streams/{stream}/instances?start=-99999999999999999999h",
                    f"/api/streams/{stream}/instances?start=-1h&compute=true",
                    "/api/streams/%00%ff/live",
                    "/../../etc/passwd",
                    "/" + "x" * 70_000,
                ]
            )
            method = chance.choice(("GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "\x16\x03\x01"))
            header = chance.choice((right, wrong, wrong, "X: " + "y" * 100_000, "Range: bytes=" + "0-1," * 5_000))
            body = chance.choice((b"", b"", b"{", b"x" * 100_000))
            text = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{header}\r\nContent-Length: {len(body)}\r\n\r\n"
            self.did["requests"] += 1
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(self._request(text.encode("latin-1") + body), 5)
            await asyncio.sleep(chance.expovariate(REQUESTS))

    async def _request(self, text: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._http)
        try:
            writer.write(text)
            answer = await reader.read(65_536)
            self.did[f"answers {answer[9:12].decode('ascii', 'replace') or 'none'}"] += 1
        finally:
            writer.transport.abort()

    async def _sit(self) -> None:
        """Sockets that say nothing, or half of a request; who is closed comes again."""
        seats: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        try:
            while not self._over:
                seats = [seat for seat in seats if not seat[0].at_eof()]
                with contextlib.suppress(OSError):
                    while len(seats) < IDLE:
                        seat = await asyncio.open_connection("127.0.0.1", self._http)
                        seat[1].write(self._web.choice((b"", b"GET", b"GET / HTTP/1.1\r\nX: ")))
                        seats.append(seat)
                        self.did["idle sockets"] += 1
                await asyncio.sleep(0.5)
        finally:
            for _, writer in seats:
                writer.transport.abort()

    async def _follow(self, stream: str) -> None:
        """Follow a stream from its beginning, and read a few bytes a second of it."""
        while not self._over:
            self.did["slow readers"] += 1
            link = socket.socket()
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            link.setblocking(False)
            loop = asyncio.get_running_loop()
            try:
                await loop.sock_connect(link, ("127.0.0.1", self._http))
                head = f"GET /api/streams/{stream}/live?from=-inf HTTP/1.1\r\nHost: localhost\r\n"
                head += f"Accept: text/event-stream\r\nAuthorization: Bearer {self._token}\r\n\r\n"
                await loop.sock_sendall(link, head.encode())
                while not self._over:
                    async with asyncio.timeout(60):
                        if not await loop.sock_recv(link, 64):
                            break
                    await asyncio.sleep(1.0)
            except (OSError, TimeoutError):
                await asyncio.sleep(0.2)
            finally:
                link.close()


def now() -> int:
    return time.time_ns() // 1_000_000


async def main() -> None:
    seed, seconds, mqtt, http = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    neighbour = Neighbour(seed, seconds, mqtt, http, sys.argv[5], sys.argv[6:])
    await neighbour.run()
    print(json.dumps(neighbour.did))


if __name__ == "__main__":
    asyncio.run(main())
