"""The MQTT sink over a real mosquitto, seen through mosquitto_sub."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.stream import StreamId
from hs_stream.core.time import TimeInterval
from hs_stream.engine.ports import Change, Publication
from hs_stream.service.embedded_broker import EmbeddedBroker
from hs_stream_connectors.mqtt.options import MqttOptions
from hs_stream_connectors.mqtt.sink import MqttSink, check_publish_options, encode

T0 = 1_423_072_260_000


def publication(
    value: Any = 21.43,
    *,
    time: int = T0,
    kind: Literal["insert", "revise", "retract"] = "insert",
    newest: bool = True,
    room: str = "kitchen",
    **options: Any,
) -> Publication:
    stream = StreamId("smooth", (("house", "1"), ("room", room)))
    change = Change(time, kind, value, 0)
    return Publication(stream, "comfort", ("1", room), "sliding_mean@1.0.0", change, newest, options)


@contextlib.asynccontextmanager
async def running(broker: EmbeddedBroker, version: int, **options: Any) -> AsyncIterator[MqttSink]:
    settings = MqttOptions(broker.url, client_id="hs-sink", version=version, backoff_max=0.3)  # type: ignore[arg-type]
    sink = MqttSink("mqtt", settings, **options)
    task = asyncio.create_task(sink.run(lambda _: None))
    try:
        await sink.wait_connected(10)
        yield sink
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def watching(broker: EmbeddedBroker, topic: str, *arguments: str) -> AsyncIterator[asyncio.StreamReader]:
    """Lines `<retain flag> <topic> <payload>` of mosquitto_sub, which is subscribed when this begins."""
    process = await asyncio.create_subprocess_exec(
        "mosquitto_sub", "-V", "5", "-p", str(broker.port), "-t", topic, "-q", "1", "-F", "%r %t %p", *arguments,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    await asyncio.sleep(0.3)
    try:
        yield process.stdout
    finally:
        process.terminate()
        await process.wait()


async def line(reader: asyncio.StreamReader) -> str:
    return (await asyncio.wait_for(reader.readline(), 10)).decode().rstrip("\n")


async def test_topic_and_payload_are_as_specified(broker: EmbeddedBroker, version: int) -> None:
    async with watching(broker, "hs/comfort/#") as lines, running(broker, version) as sink:
        await sink.publish([publication()])
        flag, topic, payload = (await line(lines)).split(" ", 2)
        assert (flag, topic) == ("0", "hs/comfort/smooth/1/kitchen")
        assert json.loads(payload) == {
            "time": 1423072260000,
            "value": 21.43,
            "revision": 0,
            "kind": "insert",
            "stream": "smooth[house=1,room=kitchen]",
            "tool": "sliding_mean@1.0.0",
        }
        assert sink.statistics().confirmed == 1


async def test_only_the_newest_instance_is_retained(broker: EmbeddedBroker, version: int) -> None:
    async with running(broker, version) as sink:
        await sink.publish([publication(1, retain=True)])
        await sink.publish([publication(0, time=T0 - 1, kind="revise", newest=False, retain=True)])
        await sink.publish([publication(5, room="hall")])
    async with watching(broker, "hs/comfort/#") as lines:
        flag, topic, payload = (await line(lines)).split(" ", 2)
        assert (flag, topic, json.loads(payload)["value"]) == ("1", "hs/comfort/smooth/1/kitchen", 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(lines.readline(), 0.3)


async def test_status_is_online_then_offline(broker: EmbeddedBroker, version: int) -> None:
    async with watching(broker, "+/status") as lines:
        async with running(broker, version, prefix="house"):
            assert await line(lines) == "0 house/status online"
        assert await line(lines) == "0 house/status offline"
    async with watching(broker, "+/status") as lines:
        assert await line(lines) == "1 house/status offline"


async def test_status_is_offline_when_we_die(broker: EmbeddedBroker, version: int, tmp_path: Path) -> None:
    script = tmp_path / "dies.py"
    script.write_text(
        "import asyncio, os\n"
        "from hs_stream_connectors.mqtt.options import MqttOptions\n"
        "from hs_stream_connectors.mqtt.sink import MqttSink\n"
        "async def main():\n"
        f"    sink = MqttSink('mqtt', MqttOptions({broker.url!r}, version={version}))\n"
        "    task = asyncio.create_task(sink.run(lambda _: None))\n"
        "    await sink.wait_connected(10)\n"
        "    await asyncio.sleep(0.2)\n"
        "    os._exit(9)\n"
        "asyncio.run(main())\n"
    )
    import os
    import sys

    async with watching(broker, "hs/status") as lines:
        paths = os.pathsep.join(sys.path)
        process = await asyncio.create_subprocess_exec(sys.executable, str(script), env={**os.environ, "PYTHONPATH": paths})
        assert await line(lines) == "0 hs/status online"
        assert await process.wait() == 9
        assert await line(lines) == "0 hs/status offline"


async def test_everything_is_confirmed_across_a_broker_restart(broker: EmbeddedBroker, version: int) -> None:
    count = 3_000
    async with running(broker, version, window=100) as sink:
        publishing = asyncio.create_task(sink.publish([publication(i, time=T0 + i) for i in range(count)]))
        while sink.statistics().confirmed < 500:
            await asyncio.sleep(0)
        await broker.stop()
        assert not publishing.done()
        await asyncio.sleep(0.1)
        await broker.start()
        # The subscriber comes in time for everything that was not confirmed before.
        confirmed = sink.statistics().confirmed
        async with watching(broker, "hs/comfort/#") as lines:
            late = asyncio.create_task(sink.publish([publication(-1, time=T0 + count)]))
            await asyncio.wait_for(asyncio.gather(publishing, late), 30)
            values = []
            while not values or values[-1] != -1:
                values.append(json.loads((await line(lines)).split(" ", 2)[2])["value"])
        assert values == sorted(values[:-1]) + [-1]
        assert len(set(values)) == len(values)
        assert sink.statistics().confirmed == count + 1
        assert confirmed < count
        assert sink.statistics().in_flight == sink.statistics().waiting == 0


async def test_publishing_waits_for_a_connection(broker: EmbeddedBroker) -> None:
    await broker.stop()
    sink = MqttSink("mqtt", MqttOptions(broker.url, backoff_max=0.2))
    states: list[bool] = []
    task = asyncio.create_task(sink.run(states.append))
    publishing = asyncio.create_task(sink.publish([publication()]))
    await asyncio.sleep(0.3)
    assert not publishing.done()
    assert states == []
    await broker.start()
    await asyncio.wait_for(publishing, 10)
    assert states == [True]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("value", "payload"),
    [
        (21.5, b"21.5"),
        (True, b"true"),
        ("on", b"on"),
        (b"\x00\xff", b"\x00\xff"),
        (None, b"null"),
        ({"a": [1, 2.0]}, b'{"a":[1,2.0]}'),
        (float("nan"), b"null"),
        (datetime(2015, 2, 4, 17, 51, tzinfo=UTC), b'"2015-02-04T17:51:00Z"'),
        (TimeInterval(1, 5), b'{"start":1,"end":5}'),
    ],
)
def test_the_bare_value(value: Any, payload: bytes) -> None:
    assert encode(publication(value, payload="value")) == payload


def test_msgpack_has_the_same_keys() -> None:
    item = publication({"a": 1})
    assert msgspec.msgpack.decode(encode(publication({"a": 1}, payload="msgpack"))) == json.loads(encode(item))


def test_wrong_options_are_named() -> None:
    check_publish_options({"retain": True, "payload": "value", "homeassistant": {}})
    with pytest.raises(ConfigurationError, match="json, msgpack, value"):
        check_publish_options({"payload": "xml"})
    with pytest.raises(ConfigurationError, match="true or false"):
        check_publish_options({"retain": "yes"})
    with pytest.raises(ConfigurationError, match="prefix"):
        MqttSink("mqtt", MqttOptions(), prefix="hs/+")
