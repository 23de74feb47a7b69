"""The bare loop: what a short Python program without any guarantee beyond the readings themselves costs.

QoS 1 in with paho and manual acknowledgement -> JSON -> ``insert_many`` (``j: true``) into a clustered collection
-> ack, plus one QoS 1 publish per reading. Everything that arrived meanwhile is one batch. No derived results.

Run as ``python -m benchmarks.steady.baseline BROKER_PORT MONGO_URL DATABASE``; prints ``ready``; ends with SIGTERM.
"""

from __future__ import annotations

import select
import signal
import sys
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from paho.mqtt.client import Client, MQTTMessage, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion
from pymongo import MongoClient
from pymongo.write_concern import WriteConcern

__all__ = ["IN", "OUT"]

IN: Final = "bare/{room}/climate"
OUT: Final = "bareout/{room}"
_BATCH: Final = 5_000
_IN_FLIGHT: Final = 2_000


class BareLoop:
    """One batch after the other, in one thread: with paho's own threads the same work is several times slower."""

    def __init__(self, port: int, url: str, database: str) -> None:
        self._stopping = False
        self._arrived: list[MQTTMessage] = []
        self._rooms: dict[str, int] = {}
        self._mongo: MongoClient[dict[str, Any]] = MongoClient(url)
        made = self._mongo[database].create_collection("instances", clusteredIndex={"key": {"_id": 1}, "unique": True})
        self._instances = made.with_options(write_concern=WriteConcern(w=1, j=True))
        self._client = Client(CallbackAPIVersion.VERSION2, f"bare-{database}", True, None, MQTTv311, manual_ack=True)
        self._client.on_message = lambda _client, _userdata, message: self._arrived.append(message)
        self._out = Client(CallbackAPIVersion.VERSION2, f"bareout-{database}", True, None, MQTTv311)
        # paho's own limit looks through all unconfirmed messages at each confirmation; so it is off, and ours is on.
        self._out.max_inflight_messages_set(0)
        self._unconfirmed = 0
        self._out.on_publish = self._on_publish
        for client in (self._client, self._out):
            client.connect("127.0.0.1", port)
            while not client.is_connected():
                client.loop(0.1)
        subscribed: list[object] = []
        self._client.on_subscribe = lambda *_: subscribed.append(None)
        self._client.subscribe(IN.format(room="+"), qos=1)
        while not subscribed:
            self._client.loop(0.1)

    def _on_publish(self, *_: object) -> None:
        self._unconfirmed -= 1

    def stop(self, *_: object) -> None:
        self._stopping = True

    def run(self) -> None:
        """Until `stop`, or until the other end of standard input is gone."""
        clients = {client.socket().fileno(): client for client in (self._client, self._out)}  # type: ignore[union-attr]
        poll = select.poll()
        poll.register(sys.stdin, 0)
        while not self._stopping:
            for number, client in clients.items():
                poll.register(number, select.POLLIN | (select.POLLOUT if client.want_write() else 0))
            for number, event in poll.poll(1000):
                if number not in clients:
                    return
                if event & select.POLLOUT:
                    clients[number].loop_write()
                if event & select.POLLIN:
                    self._read(clients[number])
            if self._arrived:
                batch, self._arrived = self._arrived, []
                self._do(batch)
            for client in clients.values():
                client.loop_misc()

    def _read(self, client: Client) -> None:
        """All that is there, up to a batch. paho reads one packet at a time and does not say whether there was one."""
        link = client.socket()
        assert link is not None
        for _ in range(_BATCH):
            before = len(self._arrived)
            client.loop_read()
            if len(self._arrived) == before:
                return

    def _do(self, batch: list[MQTTMessage]) -> None:
        documents, answers = [], []
        for message in batch:
            room = message.topic.split("/")[1]
            stream = self._rooms.setdefault(room, len(self._rooms))
            value = orjson.loads(message.payload)
            stamp = value.pop("ts")
            documents.append({"_id": {"s": stream, "t": datetime.fromtimestamp(stamp / 1000, UTC)}, "v": value})
            answer = {"time": stamp, "value": value["temperature"], "revision": 0, "kind": "insert", "stream": room}
            answers.append((OUT.format(room=room), orjson.dumps(answer)))
        self._instances.insert_many(documents, ordered=False)
        for message in batch:
            self._client.ack(message.mid, message.qos)
        for topic, payload in answers:
            while self._unconfirmed >= _IN_FLIGHT:
                self._confirm()
            self._out.publish(topic, payload, qos=1)
            self._unconfirmed += 1

    def _confirm(self) -> None:
        """Wait for confirmations."""
        link = self._out.socket()
        if link is None:
            raise ConnectionError("the broker closed the connection")
        wanted = [link] if self._out.want_write() else []
        readable, writable, _ = select.select([link], wanted, [], 1.0)
        if writable:
            self._out.loop_write()
        if readable:
            self._out.loop_read()


def main() -> None:
    loop = BareLoop(int(sys.argv[1]), sys.argv[2], sys.argv[3])
    signal.signal(signal.SIGTERM, loop.stop)
    print("ready", flush=True)
    loop.run()


if __name__ == "__main__":
    main()
