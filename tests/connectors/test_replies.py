"""Whatever a broker answers: no bytes of it and no reason code end anything but the connection."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from hs_stream.core.errors import BrokerUnavailable
from hs_stream_connectors.mqtt.client import MqttClient
from hs_stream_connectors.mqtt.connection import Connection, open_socket
from hs_stream_connectors.mqtt.options import MqttOptions
from hs_stream_connectors.mqtt.packets import ProtocolError
from hs_stream_connectors.mqtt.replies import connack, disconnect, reason_text, suback
from tests.fake_broker import CLOSE, FakeBroker, packet


@given(st.sampled_from([0x20, 0x90, 0xE0]), st.binary(max_size=60), st.booleans())
def test_random_answers_are_understood_or_refused(head: int, body: bytes, v5: bool) -> None:
    for whole in (packet(head, body), packet(head, body)[:-1] or b"\x20"):
        for read in (lambda it: connack(it, v5=v5), lambda it: suback(it, v5=v5), disconnect):
            with contextlib.suppress(ProtocolError):
                read(whole)


def test_every_code_has_words_or_a_number() -> None:
    for code, names in ReasonCode(PacketTypes.CONNACK, "Success").names.items():
        if code >= 0x80:
            assert reason_text(code) == f"{next(iter(names))} (0x{code:02x})", "paho has the same words"
    assert reason_text(0xB7) == "unknown reason code 0xb7"
    assert all(f"0x{code:02x}" in reason_text(code) for code in range(256))


def test_what_the_broker_says_with_a_connack() -> None:
    properties = Properties(PacketTypes.CONNACK)  # type: ignore[no-untyped-call]
    properties.ReceiveMaximum = 20
    properties.MaximumPacketSize = 1000
    properties.ServerKeepAlive = 7
    properties.RetainAvailable = 0
    properties.SubscriptionIdentifierAvailable = 0
    properties.AssignedClientIdentifier = "x"
    properties.ReasonString = "why"
    properties.UserProperty = ("a", "b")
    said = connack(packet(0x20, b"\1\0" + properties.pack()), v5=True)  # type: ignore[no-untyped-call]
    assert said == (0, True, 20, 1000, 7, False, False)
    silent = connack(packet(0x20, b"\0\0\0"), v5=True)
    assert (silent.receive_maximum, silent.keepalive, silent.retains, silent.identifies) == (65_535, None, True, True)
    assert silent.maximum_packet > 268_435_455


@pytest.mark.parametrize("code", [*range(1, 6), *range(0x80, 0x100)])
def test_a_refusing_connack_says_why_in_both_versions(code: int) -> None:
    assert connack(packet(0x20, bytes([0, code, 0])), v5=True).code >= 0x80
    assert connack(packet(0x20, bytes([0, code])), v5=False).code >= 0x80


BAD: list[bytes] = [
    packet(0x20, b"\0\0\0"),  # a second CONNACK
    packet(0x90, b""),
    packet(0x90, b"\0\1\xff\xff\xff\xff\xff"),
    packet(0x40, b"\1"),
    packet(0x40, b""),
    packet(0x50, b"\0\1\x87"),  # PUBREC
    packet(0x50, b"\0\1\xb7\0"),
    packet(0x70, b"\0\1"),
    packet(0x30, b"\0\x09a"),
    b"\x30\xff\xff\xff\xff\x01",
    packet(0xE0, b"\xb7"),  # an unknown reason to go
    packet(0xE0, b"\x81\x04\x1f\x00\x00\x00"),
    packet(0xE0, b""),
    packet(0xF0, b"\x18\0"),  # AUTH, which ends nothing
]


@pytest.mark.parametrize("v", [5, 3])
async def test_bad_packets_cost_a_connection_at_most(v: Literal[3, 5]) -> None:
    raised: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))

    def confirm(peer: Any, _: Any) -> object:
        if peer.number >= len(BAD):
            return None
        peer.send(BAD[peer.number])
        return CLOSE

    done = asyncio.Event()

    def confirmed(mid: int, _: int) -> None:
        if mid == 40_000:
            done.set()

    async with FakeBroker(v5=v == 5, puback=confirm) as broker:
        ready: Callable[[Any], None] = lambda it: it.publish("a", b"x", mid=40_000)  # noqa: E731
        client = MqttClient(
            MqttOptions(broker.url, version=v, backoff_min=0.01, backoff_max=0.01),
            clean=True,
            ready=ready,
            confirmed=confirmed,
        )
        task = asyncio.create_task(client.run())
        async with asyncio.timeout(20):
            await done.wait()
        assert len(broker.peers) == len(BAD) + 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert raised == []


async def test_a_bug_of_ours_costs_a_connection_too(caplog: pytest.LogCaptureFixture) -> None:
    raised: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    calls: list[int] = []
    done = asyncio.Event()

    def confirmed(mid: int, _: int) -> None:
        calls.append(mid)
        if len(calls) == 1:
            raise ZeroDivisionError("ours")
        done.set()

    async with FakeBroker() as broker:
        client = MqttClient(
            MqttOptions(broker.url, backoff_min=0.01, backoff_max=0.01),
            clean=True,
            ready=lambda it: it.publish("a", b"x", mid=40_000),
            confirmed=confirmed,
        )
        task = asyncio.create_task(client.run())
        async with asyncio.timeout(10):
            await done.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(broker.peers) == 2
    assert raised == []
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(("v", "codes"), [(5, [0x87, 0xB7]), (3, [0x80])])
async def test_a_refused_subscription_is_shown_and_asked_for_again(
    v: Literal[3, 5], codes: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[list[str]] = []

    def answer(_: Any, filters: list[str]) -> bytes | None:
        asked.append(filters)
        head = b"\0" if v == 5 else b""
        refusing = "secret/#" in filters and len(asked) <= 5
        return head + bytes(codes[-1] if name == "secret/#" and refusing else 1 for name in filters)

    async with FakeBroker(v5=v == 5, suback=answer) as broker:
        client = MqttClient(MqttOptions(broker.url, version=v, backoff_max=0.05))
        client.set_filters(["home/#", "secret/#"])
        task = asyncio.create_task(client.run())
        await client.wait_connected(5)
        assert client.statistics().refused == {"secret/#": reason_text(codes[-1])}
        async with asyncio.timeout(10):
            while client.statistics().refused:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert all(filters == ["secret/#"] for filters in asked[3:]), "only what was refused is asked for again"
    lines = [record.getMessage() for record in caplog.records if "refuses the subscription" in record.getMessage()]
    assert len(lines) == 1
    assert f"0x{codes[-1]:02x}" in lines[0]


async def test_what_comes_to_a_client_that_subscribed_to_nothing_is_acknowledged_and_forgotten() -> None:
    stray = packet(0x32, b"\0\1a\0\7\0payload")
    async with FakeBroker(puback=lambda peer, _: peer.send(stray)) as broker:
        confirmed: list[int] = []

        def ready(connection: Connection) -> None:
            for mid in range(40_000, 40_010):
                connection.publish("a", b"x", mid=mid)

        client = MqttClient(
            MqttOptions(broker.url, backoff_max=0.05),
            clean=True,
            ready=ready,
            confirmed=lambda mid, _: confirmed.append(mid),
        )
        task = asyncio.create_task(client.run())
        async with asyncio.timeout(10):
            while len(confirmed) < 10 or len(broker.acknowledged) < 10:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert client.statistics().strays == 10
    assert broker.acknowledged == [7] * 10


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_reset_after_the_last_words_is_noticed_at_once(loop: str) -> None:
    """A broker that closes with something unread resets the connection: both may be there in one poll."""
    factory = asyncio.new_event_loop if loop == "asyncio" else pytest.importorskip("uvloop").new_event_loop

    def end(sock: socket.socket) -> None:
        sock.recv(1000)
        sock.send(packet(0x20, b"\0\0\0"))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            lost: list[BrokerUnavailable] = []
            options = MqttOptions(f"mqtt://127.0.0.1:{server.getsockname()[1]}")
            ours = open_socket(options)
            theirs, _ = server.accept()
            said: list[str] = []
            connection = Connection(
                options,
                ours,
                clean=True,
                will=None,
                connected_cb=lambda: said.append("accepted"),
                subscribed_cb=lambda _: None,
                confirmed_cb=lambda *_: None,
                burst_cb=lambda: None,
                lost_cb=lost.append,
            )
            connection.start()
            await asyncio.sleep(0)
            connection._write()
            end(theirs)  # before the loop polls again
            async with asyncio.timeout(5):
                while not lost:
                    await asyncio.sleep(0.01)
            assert said == ["accepted"]
            assert connection.closed_on_us

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(run())
