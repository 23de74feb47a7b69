"""The MQTT sink over a real mosquitto, seen through mosquitto_sub."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.stream import StreamId
from hs_stream.core.time import TimeInterval
from hs_stream.engine.ports import Change, Publication
from hs_stream.service.embedded.broker import EmbeddedBroker
from hs_stream_connectors.mqtt.options import MqttOptions
from hs_stream_connectors.mqtt.sink import MqttSink, check_publish_option, encode

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
async def running(broker: EmbeddedBroker, version: Literal[3, 5], **options: Any) -> AsyncIterator[MqttSink]:
    settings = MqttOptions(broker.url, client_id="hs-sink", version=version, backoff_max=0.3)
    sink = MqttSink("mqtt", settings, **options)
    task = asyncio.create_task(sink.run(lambda _: None))
    try:
        await sink.wait_connected(10)
        yield sink
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Lines:
    """Lines `<retain flag> <topic> <payload>` of a mosquitto_sub."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._seen: deque[str] = deque()

    async def ready(self, broker: EmbeddedBroker, sending: Any) -> None:
        """Publish probes until one comes back, so that the subscription is known to stand."""
        async with asyncio.timeout(20):
            while True:
                await sending(broker, [("probe", b"x")])
                with contextlib.suppress(TimeoutError):
                    while (line := await self._read(0.3)) != "0 probe x":
                        self._seen.append(line)
                    return

    async def next(self, seconds: float = 15) -> str:
        while True:
            line = self._seen.popleft() if self._seen else await self._read(seconds)
            if line != "0 probe x":
                return line

    async def _read(self, seconds: float) -> str:
        return (await asyncio.wait_for(self._reader.readline(), seconds)).decode().rstrip("\n")


Watch = Callable[..., contextlib.AbstractAsyncContextManager[Lines]]


@pytest.fixture
def watching(broker: EmbeddedBroker, sending: Any) -> Watch:
    """Subscribe with mosquitto_sub."""

    @contextlib.asynccontextmanager
    async def watch(topic: str, *arguments: str) -> AsyncIterator[Lines]:
        command = ["mosquitto_sub", "-V", "5", "-p", str(broker.port), "-t", topic, "-t", "probe", "-q", "1"]
        process = await asyncio.create_subprocess_exec(
            *command, "-F", "%r %t %p", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        assert process.stdout is not None
        lines = Lines(process.stdout)
        try:
            await lines.ready(broker, sending)
            yield lines
        finally:
            process.terminate()
            await process.wait()

    return watch


async def test_topic_and_payload_are_as_specified(
    broker: EmbeddedBroker, version: Literal[3, 5], watching: Watch
) -> None:
    async with watching("hs/comfort/#") as lines, running(broker, version) as sink:
        await sink.publish([publication()])
        flag, topic, payload = (await lines.next()).split(" ", 2)
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


async def test_only_the_newest_instance_is_retained(
    broker: EmbeddedBroker, version: Literal[3, 5], watching: Watch
) -> None:
    async with running(broker, version) as sink:
        await sink.publish([publication(1, retain=True)])
        await sink.publish([publication(0, time=T0 - 1, kind="revise", newest=False, retain=True)])
        await sink.publish([publication(5, room="hall")])
    async with watching("hs/comfort/#") as lines:
        flag, topic, payload = (await lines.next()).split(" ", 2)
        assert (flag, topic, json.loads(payload)["value"]) == ("1", "hs/comfort/smooth/1/kitchen", 1)
        with pytest.raises(TimeoutError):
            await lines.next(0.3)


async def test_status_is_online_then_offline(broker: EmbeddedBroker, version: Literal[3, 5], watching: Watch) -> None:
    async with watching("+/status") as lines:
        async with running(broker, version, prefix="house"):
            assert await lines.next() == "0 house/status online"
        assert await lines.next() == "0 house/status offline"
    async with watching("+/status") as lines:
        assert await lines.next() == "1 house/status offline"


async def test_status_is_offline_when_we_die(
    broker: EmbeddedBroker, version: Literal[3, 5], tmp_path: Path, watching: Watch
) -> None:
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

    async with watching("hs/status") as lines:
        paths = os.pathsep.join(sys.path)
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(script), env={**os.environ, "PYTHONPATH": paths}
        )
        assert await lines.next() == "0 hs/status online"
        assert await process.wait() == 9
        assert await lines.next() == "0 hs/status offline"


async def test_everything_is_confirmed_across_a_broker_restart(
    broker: EmbeddedBroker, version: Literal[3, 5], watching: Watch
) -> None:
    count = 2_000
    # The subscriber has a session of its own at the broker, and comes back to it by itself.
    async with (
        watching("hs/comfort/#", "-c", "-i", "watcher", "-x", "3600") as lines,
        running(broker, version, window=100) as sink,
    ):
        publishing = asyncio.create_task(sink.publish([publication(i, time=T0 + i) for i in range(count)]))
        while sink.statistics().confirmed < 500:
            await asyncio.sleep(0)
        await broker.stop()
        assert not publishing.done()
        await broker.start()
        await asyncio.wait_for(publishing, 30)
        await sink.publish([publication(-1, time=T0 + count)])
        seen: dict[int, None] = {}
        while -1 not in seen:
            seen.setdefault(json.loads((await lines.next()).split(" ", 2)[2])["value"])
        assert list(seen) == [*range(count), -1]
        assert sink.statistics().confirmed == count + 1
        assert sink.statistics().in_flight == sink.statistics().waiting == 0


async def test_large_values_fill_the_window_and_arrive(broker: EmbeddedBroker) -> None:
    async with running(broker, 5) as sink:
        big = "x" * 100_000
        await asyncio.wait_for(sink.publish([publication(big, time=T0 + i) for i in range(100)]), 20)
        assert sink.statistics().confirmed == 100


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
    check_publish_option("retain", value=True)
    check_publish_option("payload", "value")
    with pytest.raises(ConfigurationError, match="json, msgpack, value"):
        check_publish_option("payload", "xml")
    with pytest.raises(ConfigurationError, match="true or false"):
        check_publish_option("retain", "yes")
    with pytest.raises(ConfigurationError, match="prefix"):
        MqttSink("mqtt", MqttOptions(), prefix="hs/+")
