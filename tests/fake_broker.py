"""A tiny broker that answers what it is told to: for what mosquitto never says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, Self

from hs_stream_connectors.mqtt.packets import variable_length

CLOSE = object()
"""An answer: end the connection without a word."""


class Publish(NamedTuple):
    """What a client published."""

    topic: str
    payload: bytes
    mid: int
    retain: bool


class Peer:
    """One connection of a client. ``number`` counts from 0."""

    def __init__(self, number: int, client_id: str, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.client_id = client_id
        self.writer = writer
        self.published: list[Publish] = []

    def send(self, packet: bytes) -> None:
        self.writer.write(packet)


def packet(head: int, body: bytes) -> bytes:
    assert len(body) < 128
    return bytes([head, len(body)]) + body


def puback(mid: int, code: int = 0) -> bytes:
    return packet(0x40, mid.to_bytes(2) + (bytes([code, 0]) if code else b""))


class FakeBroker:
    """Confirms everything, unless the callbacks say otherwise.

    ``connack(peer)``, ``puback(peer, publish)`` and ``suback(peer, filters)`` give the packet to answer with, ``b""``
    for none, or `CLOSE`; ``None`` stands for the usual answer.
    """

    def __init__(
        self,
        *,
        v5: bool = True,
        connack: Callable[[Peer], object] = lambda _: None,
        puback: Callable[[Peer, Publish], object] = lambda *_: None,
        suback: Callable[[Peer, list[str]], object] = lambda *_: None,
    ) -> None:
        self.v5 = v5
        self.peers: list[Peer] = []
        self.acknowledged: list[int] = []
        self.port = 0
        self._connack, self._puback, self._suback = connack, puback, suback
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def published(self) -> list[Publish]:
        """By all connections, but for the status."""
        return [one for peer in self.peers for one in peer.published if not one.topic.endswith("/status")]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections, and end those that there are."""
        assert self._server is not None
        self._server.close()
        for peer in self.peers:
            peer.writer.close()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(len(self.peers), "", writer)
        try:
            while True:
                head = (await reader.readexactly(1))[0]
                length = b""
                while not length or length[-1] & 0x80:
                    length += await reader.readexactly(1)
                found = variable_length(length, 0)
                assert found is not None
                answer = self._answer(peer, head, await reader.readexactly(found[0]))
                if answer is CLOSE:
                    return
                assert isinstance(answer, bytes)
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, peer: Peer, head: int, body: bytes) -> object:
        kind = head & 0xF0
        if kind == 0x10:
            at = 10 + (1 + body[10] if self.v5 else 0)
            peer.client_id = body[at + 2 : at + 2 + int.from_bytes(body[at : at + 2])].decode()
            self.peers.append(peer)
            usual: bytes = packet(0x20, b"\0\0\0" if self.v5 else b"\0\0")
            return _or(self._connack(peer), usual)
        if kind == 0x80:
            mid, filters = body[:2], self._filters(body)
            usual = packet(0x90, mid + (b"\0" if self.v5 else b"") + b"\1" * len(filters))
            answer = self._suback(peer, filters)
            return _or(packet(0x90, mid + answer) if isinstance(answer, bytes) else answer, usual)
        if kind == 0x30:
            publish = self._publish(head, body)
            peer.published.append(publish)
            return _or(self._puback(peer, publish), puback(publish.mid) if publish.mid else b"")
        if kind == 0x40:
            self.acknowledged.append(int.from_bytes(body[:2]))
        return packet(0xD0, b"") if kind == 0xC0 else b""

    def _publish(self, head: int, body: bytes) -> Publish:
        at = 2 + int.from_bytes(body[:2])
        topic = body[2:at].decode()
        mid = int.from_bytes(body[at : at + 2]) if head & 6 else 0
        at += 2 if head & 6 else 0
        return Publish(topic, body[at + (1 if self.v5 else 0) :], mid, bool(head & 1))

    def _filters(self, body: bytes) -> list[str]:
        at = 2 + (1 + body[2] if self.v5 else 0)
        filters = []
        while at < len(body):
            size = int.from_bytes(body[at : at + 2])
            filters.append(body[at + 2 : at + 2 + size].decode())
            at += 3 + size
        return filters


def _or(answer: object, usual: bytes) -> object:
    return usual if answer is None else answer
