"""The bare loop: what a short Python program without any guarantee beyond the readings themselves costs.

QoS 1 in with paho and manual acknowledgement -> JSON -> ``insert_many`` (``j: true``) into a clustered collection -> ack,
plus one QoS 1 publish per reading. Everything that arrived meanwhile is one batch. No derived results.

Run as ``python -m benchmarks.steady.baseline BROKER_PORT MONGO_URL DATABASE``; prints ``ready``; ends with SIGTERM.
"""

from __future__ import annotations

import signal
import sys
import threading
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
    """One batch after the other."""

    def __init__(self, port: int, url: str, database: str) -> None:
        self._stopping = False
        self._arrived: list[MQTTMessage] = []
        self._wake = threading.Event()
        self._rooms: dict[str, int] = {}
        self._subscribed = threading.Event()
        self._mongo: MongoClient[dict[str, Any]] = MongoClient(url)
        made = self._mongo[database].create_collection(
            "instances", clusteredIndex={"key": {"_id": 1}, "unique": True}
        )
        self._instances = made.with_options(write_concern=WriteConcern(w=1, j=True))
        self._client = Client(CallbackAPIVersion.VERSION2, f"bare-{database}", True, None, MQTTv311, manual_ack=True)
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._out = Client(CallbackAPIVersion.VERSION2, f"bareout-{database}", True, None, MQTTv311)
        self._out.max_inflight_messages_set(_IN_FLIGHT)
        for client in (self._client, self._out):
            client.connect("127.0.0.1", port)
            client.loop_start()
        self._client.subscribe(IN.format(room="+"), qos=1)
        self._subscribed.wait(10)

    def _on_message(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        self._arrived.append(message)
        self._wake.set()

    def stop(self, *_: object) -> None:
        self._stopping = True
        self._wake.set()

    def run(self) -> None:
        while not self._stopping:
            self._wake.wait()
            self._wake.clear()
            while self._arrived:
                batch = self._arrived[:_BATCH]
                del self._arrived[: len(batch)]
                self._do(batch)
        for client in (self._client, self._out):
            client.disconnect()
            client.loop_stop()
        self._mongo.close()

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
            self._out.publish(topic, payload, qos=1)


def main() -> None:
    loop = BareLoop(int(sys.argv[1]), sys.argv[2], sys.argv[3])
    signal.signal(signal.SIGTERM, loop.stop)
    print("ready", flush=True)
    loop.run()


if __name__ == "__main__":
    main()
