"""A gateway as people build them: plain paho at QoS 1, and a log of its own that it reads from.

1. Every reading is in the log before it is sent, whether or not there is a broker: readings go on while it is away.
2. What the broker has not confirmed is sent again on the next connection, in the order of the log.
3. After a broker was killed, what it confirmed within the last `REMEMBERED` seconds before is sent again too, since it
   may not have been saved (`Gateway.broker_was_killed`).
4. So the broker gets the log, in order, with parts of it repeated. What must be stored is the last value of each time
   in the order of the log: `Gateway.truth`.

Half of the rooms are live (event times are now), the other half replay an older day. Some readings are late, some are
repeated, some are corrected, some come in batches.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Protocol

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

REMEMBERED = 5.0
WINDOW = 400
HISTORY = 300
REPLAY_STEP = 50
Value = dict[str, Any]


def close_socket(client: Client) -> None:
    """paho leaves the socket of a connection that died in the middle of something to the garbage collector."""
    if (link := client.socket()) is not None:
        link.close()


@dataclass
class Message:
    """One PUBLISH: readings of one room. ``confirmed`` is when the broker last said that it has it."""

    room: str
    readings: list[tuple[int, Value]]
    confirmed: float = 0.0

    @property
    def payload(self) -> bytes:
        documents = [{"ts": at, **value} for at, value in self.readings]
        return json.dumps(documents[0] if len(documents) == 1 else documents).encode()


@dataclass
class Mixture:
    """Which share of the readings is late, repeated and corrected."""

    late: float = 0.02
    repeated: float = 0.02
    corrected: float = 0.02


class Source(Protocol):
    """Where a gateway has its readings from, and ``topic`` with a ``{room}``."""

    rooms: list[str]
    topic: str

    def next(self) -> Message | None:
        """The next readings of one room, or ``None`` after the last."""


class Readings:
    """The readings of some rooms, made up by a seeded generator."""

    topic = "home/{room}/climate"

    def __init__(self, seed: int, live: int, replayed: int, mixture: Mixture) -> None:
        self._random = random.Random(seed)
        self._mixture = mixture
        self.live = [f"live{index}" for index in range(live)]
        self.rooms = self.live + [f"old{index}" for index in range(replayed)]
        day_ago = time.time_ns() // 1_000_000 - 86_400_000
        self._newest = dict.fromkeys(self.rooms, day_ago)
        self._recent: dict[str, deque[tuple[int, Value]]] = {room: deque(maxlen=HISTORY) for room in self.rooms}
        self._values = {room: [20.0, 700.0] for room in self.rooms}

    def next(self) -> Message:
        """The next one to five readings of some room."""
        room = self._random.choice(self.rooms)
        return Message(room, [self._reading(room) for _ in range(self._random.choice((1, 1, 1, 5)))])

    def _reading(self, room: str) -> tuple[int, Value]:
        recent, share = self._recent[room], self._random.random()
        mixture = self._mixture
        if len(recent) > 10:
            at, value = self._random.choice(recent)
            if (share := share - mixture.late) < 0:
                return at + self._random.choice((-3, 1, 3)), self._value(room)
            if (share := share - mixture.repeated) < 0:
                return at, value
            if share - mixture.corrected < 0:
                recent.append((at, value := self._value(room)))
                return at, value
        newest = self._newest[room]
        step = max(newest + 1, time.time_ns() // 1_000_000) if room in self.live else newest + REPLAY_STEP
        self._newest[room] = step
        recent.append((step, self._value(room)))
        return recent[-1]

    def _value(self, room: str) -> Value:
        values = self._values[room]
        values[0] = round(values[0] + self._random.gauss(0, 0.1), 2)
        values[1] = round(min(max(values[1] + self._random.gauss(0, 20), 400), 1200), 1)
        return {"temperature": values[0], "co2": values[1]}


class Replay:
    """Rows of one room, each a reading with its time in ``ts``."""

    def __init__(self, topic: str, room: str, rows: list[dict[str, Any]]) -> None:
        self.topic, self.rooms = topic, [room]
        self._left = deque((row["ts"], {name: value for name, value in row.items() if name != "ts"}) for row in rows)

    def next(self) -> Message | None:
        return Message(self.rooms[0], [self._left.popleft()]) if self._left else None


class Gateway:
    """Publishes at ``rate`` readings a second from `start` until `finish`, whatever becomes of the broker."""

    def __init__(self, port: int, readings: Source, rate: float) -> None:
        self._port, self._readings, self._rate = port, readings, rate
        self.log: list[Message] = []
        self.count = 0
        self.ended = False
        """There are no more readings."""
        self.repeated = 0
        self._cursor = self._furthest = 0
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, int]] = deque()
        self._confirmations: deque[tuple[Client, int, float]] = deque()
        self._client: Client | None = None
        self._connected = False
        self._paused = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def pause(self) -> None:
        """Make no new readings; what is in the log is still sent."""
        self._paused.set()

    def resume(self) -> None:
        self._paused.clear()

    def close(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(10)
        self._disconnect()

    def state(self) -> str:
        """For an error."""
        return (
            f"{self._cursor} of {len(self.log)} messages sent, {len(self._waiting)} not confirmed, up {self._connected}"
        )

    @property
    def all_confirmed(self) -> bool:
        with self._lock:
            self._confirm()
            return self._cursor >= len(self.log) and not self._waiting

    def broker_was_killed(self, at: float) -> None:
        """Rule 3: what was confirmed since ``at - REMEMBERED`` (a `time.time`) is sent again."""
        with self._lock:
            self._confirm()
            # All that is confirmed, in front of whatever waits: the log is confirmed in its order.
            first = self._waiting[0][0] if self._waiting else self._cursor
            while first and self.log[first - 1].confirmed > at - REMEMBERED:
                first -= 1
            self._cursor = first
            self._waiting.clear()
            self._connected = False

    def truth(self) -> dict[str, dict[int, Value]]:
        """Rule 4, by room."""
        found: dict[str, dict[int, Value]] = {room: {} for room in self._readings.rooms}
        for message in self.log:
            found[message.room].update(message.readings)
        return found

    # --- the thread ---

    def _run(self) -> None:
        began, made, idle = time.monotonic(), 0, 0.0
        while not self._stopping.is_set():
            now = time.monotonic()
            if self._paused.is_set():
                idle = now - began - made / self._rate
            while made < (now - began - idle) * self._rate and not self._paused.is_set():
                message = self._readings.next()
                if message is None:
                    self.ended = True
                    self.pause()
                    break
                made += len(message.readings)
                self.log.append(message)
            self.count = made
            if not self._connected:
                self._connect()
            if not (self._connected and self._send()):
                time.sleep(0.005)

    def _send(self) -> bool:
        """Send one message, if there is one and the window has room."""
        with self._lock:
            self._confirm()
            if self._cursor >= len(self.log) or len(self._waiting) >= WINDOW or not self._connected:
                return False
            assert self._client is not None
            message = self.log[self._cursor]
            sent = self._client.publish(self._readings.topic.format(room=message.room), message.payload, qos=1)
            self._waiting.append((self._cursor, sent.mid))
            self.repeated += self._cursor < self._furthest
            self._cursor += 1
            self._furthest = max(self._furthest, self._cursor)
            return True

    def _connect(self) -> None:
        self._disconnect()
        with self._lock:
            self._confirm()
            if self._waiting:
                self._cursor = self._waiting[0][0]
                self._waiting.clear()
        # A client per connection: what is sent again is this class's business, not paho's.
        client = Client(CallbackAPIVersion.VERSION2, client_id="gateway", clean_session=True)
        client.max_inflight_messages_set(2 * WINDOW)
        up = threading.Event()
        client.on_connect = lambda *_: up.set()
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        try:
            client.connect("127.0.0.1", self._port)
        except OSError:
            close_socket(client)
            time.sleep(0.05)
            return
        self._client = client
        client.loop_start()
        self._connected = up.wait(2)

    def _disconnect(self) -> None:
        client, self._client, self._connected = self._client, None, False
        if client is not None:
            client.disconnect()
            client.loop_stop()
            close_socket(client)

    def _on_publish(self, client: Client, _userdata: Any, mid: int, *_: Any) -> None:
        # paho holds a lock of its own here that `publish` wants: ours must not be waited for.
        self._confirmations.append((client, mid, time.time()))

    def _confirm(self) -> None:
        """Take note of what the broker has confirmed. Needs the lock."""
        while self._confirmations:
            client, mid, at = self._confirmations.popleft()
            if client is self._client and self._waiting and self._waiting[0][1] == mid:
                self.log[self._waiting.popleft()[0]].confirmed = at

    def _on_disconnect(self, client: Client, *_: Any) -> None:
        if client is self._client:
            self._connected = False


@dataclass
class Seen:
    """The newest revision of one instance."""

    revision: int
    kind: str
    value: Any


@dataclass
class Tally:
    """What a listener saw."""

    messages: int = 0
    repeats: int = 0
    contradictions: list[str] = field(default_factory=list)


class Listener:
    """A subscriber with a session that outlives connections; keeps the newest revision of every instance."""

    def __init__(self, port: int, topic: str = "hs/#") -> None:
        self.state: dict[str, dict[int, Seen]] = {}
        self.first: dict[tuple[str, int], float] = {}
        """When the first message about ``(stream, time)`` came, by `time.time`."""
        self.tally = Tally()
        self.last_message = 0.0
        self._known: dict[tuple[str, int, int], tuple[str, str]] = {}
        self.newest_live = 0
        """The latest event time of a result of a live room."""
        self._ready = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id="listener", clean_session=False)
        self._client.reconnect_delay_set(0.1, 0.5)  # type: ignore[arg-type]
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._ready.wait(5)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: Client, _userdata: Any, message: Any) -> None:
        if message.topic == "hs/status":
            return
        document = json.loads(message.payload)
        stream, at, revision = document["stream"], document["time"], document["revision"]
        self.last_message = now = time.time()
        self.tally.messages += 1
        self.first.setdefault((stream, at), now)
        body = (document["kind"], json.dumps(document["value"], sort_keys=True))
        known = self._known.setdefault((stream, at, revision), body)
        self.tally.repeats += known is not body
        if known != body:
            self.tally.contradictions.append(f"{stream} at {at} revision {revision}: {known} and {body}")
        instances = self.state.setdefault(stream, {})
        if at not in instances or instances[at].revision < revision:
            instances[at] = Seen(revision, document["kind"], document["value"])
        if "live" in stream and stream.startswith("warm"):
            self.newest_live = max(self.newest_live, at)
