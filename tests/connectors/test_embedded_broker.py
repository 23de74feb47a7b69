"""The embedded broker: mosquitto and iotcore."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
from pathlib import Path
from typing import Any, Literal

import pytest

from hs_stream.core.errors import BrokerUnavailable, ConfigurationError
from hs_stream.service.embedded.broker import EmbeddedBroker
from hs_stream.service.embedded.child import free_port
from hs_stream_connectors.codecs import codec
from hs_stream_connectors.mqtt.options import MqttOptions
from hs_stream_connectors.mqtt.source import MqttSource, SourceSpec
from hs_stream_connectors.mqtt.topics import TopicTemplate

T0 = 1_700_000_000_000
SPEC = SourceSpec("n", TopicTemplate("check/{s}"), codec("json", time=("ts", "ms")))
needs_iotcore = pytest.mark.skipif(importlib.util.find_spec("iotcore") is None, reason="iotcore is not installed")
KINDS = ["mosquitto", pytest.param("iotcore", marks=needs_iotcore)]


def message(number: int) -> tuple[str, bytes]:
    return "check/a", b'{"ts": %d, "n": %d}' % (T0 + number, number)


@pytest.mark.parametrize("kind", KINDS)
async def test_it_carries_messages_and_restarts_on_the_same_port(
    tmp_path: Path, kind: Literal["mosquitto", "iotcore"], version: Literal[3, 5], sending: Any, taker: Any
) -> None:
    async with EmbeddedBroker(tmp_path / "deep" / "er", kind=kind) as broker:
        port, url = broker.port, broker.url if version == 5 else broker.url_v3
        source = MqttSource("mqtt", MqttOptions(url, version=version, backoff_max=0.2), [SPEC])
        async with taker(source) as took:
            await sending(broker, [message(i) for i in range(100)])
            await sending(broker, [("check/a", b'{"ts": %d, "n": "%s"}' % (T0 + 1000, b"x" * 100_000))])
            await took.until(101)
            assert [value["n"] for value in took.values[:100]] == list(range(100))
            assert len(took.values[100]["n"]) == 100_000
            await broker.kill()
            assert not broker.is_running
            await broker.start()
            assert (broker.port, broker.is_running) == (port, True)
            async with asyncio.timeout(10):
                while source.connection_statistics().connects < 2 or not source.connection_statistics().connected:
                    await asyncio.sleep(0.02)
            await sending(broker, [message(2000)])
            await took.until(102)
    assert not broker.is_running
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


@needs_iotcore
async def test_unacknowledged_messages_come_again_over_iotcore(
    tmp_path: Path, version: Literal[3, 5], sending: Any, taker: Any
) -> None:
    async with EmbeddedBroker(tmp_path, kind="iotcore") as broker:
        options = MqttOptions(broker.url if version == 5 else broker.url_v3, version=version)
        async with taker(MqttSource("mqtt", options, [SPEC]), ack=False) as took:
            await sending(broker, [message(i) for i in range(6)])
            await took.until(6)
        async with taker(MqttSource("mqtt", options, [SPEC])) as took:
            await took.until(6)
            assert [value["n"] for value in took.values] == list(range(6))


@pytest.mark.parametrize("kind", KINDS)
async def test_only_the_password_opens_it(
    tmp_path: Path, kind: Literal["mosquitto", "iotcore"], version: Literal[3, 5], taker: Any
) -> None:
    async with EmbeddedBroker(tmp_path, kind=kind, password="let-me-in") as broker:
        url = broker.url if version == 5 else broker.url_v3
        async with taker(MqttSource("mqtt", MqttOptions(url, version=version), [SPEC])) as took:
            assert took.states == [True]
        stranger = MqttSource("mqtt", MqttOptions(url.replace("let-me-in", "open"), version=version), [SPEC])
        task = asyncio.create_task(stranger.run(took.deliver, lambda _: None))
        with pytest.raises(BrokerUnavailable):
            await stranger.wait_connected(1)
        assert stranger.connection_statistics().connects == 0
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_messages_for_a_session_survive_a_restart(tmp_path: Path, sending: Any, taker: Any) -> None:
    async with EmbeddedBroker(tmp_path, kind="mosquitto", persistence=True) as broker:
        options = MqttOptions(broker.url)
        async with taker(MqttSource("mqtt", options, [SPEC])):
            pass
        await sending(broker, [message(i) for i in range(20)])
        await broker.restart()
        async with taker(MqttSource("mqtt", options, [SPEC])) as took:
            await took.until(20)
            assert [value["n"] for value in took.values] == list(range(20))


async def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BrokerUnavailable, match=rf"port {port} is in use .*another port"):
            await EmbeddedBroker(tmp_path, port, kind="mosquitto").start()


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    if importlib.util.find_spec("iotcore") is not None:
        with pytest.raises(ConfigurationError, match="keeps nothing on disk"):
            EmbeddedBroker(tmp_path, kind="iotcore", persistence=True)
    assert free_port() > 0
