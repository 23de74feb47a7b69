"""Live events and computing on request over a real socket."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from hs_stream.core.stream import StreamId
from hs_stream.service.http import outgoing, sse
from hs_stream.service.http.api import create_api
from hs_stream.service.http.live import Hub
from hs_stream.service.http.outgoing import SENDING, Backlog
from hs_stream.service.http.server import HttpServer, bind
from tests.service.live_client import Client
from tests.service.test_api import NOW, SMOOTH, Context, make_context

ROOM = {"house": "1", "room": "kitchen"}


@dataclass
class Served:
    api: Context
    hub: Hub
    client: httpx.AsyncClient
    backlog: Backlog
    ended: list[str]


@asynccontextmanager
async def served(limit: int = 10, sending: int = SENDING) -> AsyncIterator[Served]:
    async with make_context() as api:
        await api.deliver("climate", ROOM, [(NOW - 5000, {"t": 1.0})])
        ended: list[str] = []
        hub = Hub(api.engine, limit, ended.append)
        api.context.hub = hub
        listener = bind("127.0.0.1", 0)
        server = HttpServer(create_api(api.context), listener, sending=sending)
        running = asyncio.create_task(server.run())
        await server.wait_started()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=10) as client:
            yield Served(api, hub, client, server.backlog, ended)
        hub.stop()
        server.stop()
        await running
        listener.close()


async def until(check: Any) -> None:
    async with asyncio.timeout(10):
        while not check():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def following(site: Served, client: Client, query: str = "") -> AsyncIterator[None]:
    client.connect()
    headers = {"Last-Event-ID": client.last_id} if client.last_id else {}
    async with site.client.stream("GET", f"{SMOOTH}/live{query}", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "content-encoding" not in answer.headers

        async def read() -> None:
            async for piece in answer.aiter_raw():
                client.feed(piece)

        task = asyncio.create_task(read())
        await until(lambda: client.ready)
        yield
        task.cancel()
        await asyncio.wait((task,))


async def test_events_come_and_go_on_after_the_last_id() -> None:
    client = Client()
    async with served() as site:
        async with following(site, client, "?from=-inf"):
            await site.api.deliver("climate", ROOM, [(NOW - 4000, {"t": 3.0})])
            await until(lambda: len(client.table) == 2)
            assert site.hub.count == 1
        await until(lambda: site.hub.count == 0)
        await site.api.deliver("climate", ROOM, [(NOW - 5000, {"t": 2.0})])
        before = len(client.kinds)
        async with following(site, client, "?from=-inf"):
            pass
        assert client.kinds[before:] == ["revise", "revise", "ready"]
        assert client.table == {NOW - 5000: (2.0, 1), NOW - 4000: (2.5, 1)}


async def test_too_many_are_told_to_come_later() -> None:
    async with served(limit=1) as site, following(site, Client()):
        answer = await site.client.get(f"{SMOOTH}/live")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "max_subscribers" in answer.json()["hint"]


async def test_the_end_is_told_and_the_server_stops() -> None:
    client = Client()
    async with served() as site, following(site, client):
        site.hub.stop()
        await until(lambda: client.end == "stopping")


async def test_who_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "PATIENCE", 0.3)
    async with served() as site:
        await site.api.deliver("climate", ROOM, [(NOW - 4000, {"t": 1.0, "x": "y" * 1000})])
        address = site.client.base_url
        reader, writer = await asyncio.open_connection(address.host, address.port, limit=1024)
        path = SMOOTH.replace("smooth", "climate")
        writer.write(f"GET {path}/live HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await until(lambda: site.hub.count == 1)
        for index in range(3000):
            if site.hub.count == 0:
                break
            items = [(NOW - 3000 + index, {"t": 1.0, "x": "z" * 100_000})]
            await site.api.deliver("climate", ROOM, items)
            await asyncio.sleep(0.002)
        await until(lambda: site.hub.count == 0)
        writer.close()
        del reader


@asynccontextmanager
async def silent(site: Served, path: str, number: int = 1) -> AsyncIterator[list[socket.socket]]:
    """Clients that ask for ``path``, and read nothing."""
    made = []
    for _ in range(number):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((site.client.base_url.host, site.client.base_url.port))
        client.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        made.append(client)
    yield made
    for client in made:
        client.close()


async def test_who_reads_nothing_takes_no_memory_from_others() -> None:
    """Values of 400 kB: of four that read nothing, the oldest are cut off; who reads has all of it."""
    path, reading = SMOOTH.replace("smooth", "climate"), Client()
    async with served(sending=2_000_000) as site, silent(site, f"{path}/live", 4):
        await until(lambda: site.hub.count == 4)
        reading.connect()
        async with site.client.stream("GET", f"{path}/live?from=-inf") as answer:

            async def read() -> None:
                async for piece in answer.aiter_raw():
                    reading.feed(piece)

            task = asyncio.create_task(read())
            await until(lambda: reading.ready)
            for index in range(30):
                await site.api.deliver("climate", ROOM, [(NOW - 4000 + index, {"x": "z" * 400_000})])
                await until(lambda seen=index: len(reading.table) == 2 + seen)
                use = site.backlog.use()
                assert use.used <= use.limit
            task.cancel()
            await asyncio.wait((task,))
        assert use.forgotten > 0
        assert site.ended.count("slow") == use.forgotten, "and none of them for another reason"
        assert not reading.oddities


async def test_a_page_that_nobody_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "PATIENCE", 0.2)
    async with served() as site:
        items = [(NOW - 4000 + index, {"x": "z" * 1_000_000}) for index in range(7)]
        await site.api.deliver("climate", ROOM, items)
        path = SMOOTH.replace("smooth", "climate")
        async with silent(site, f"{path}/instances?start=-inf&end=inf"):
            await until(lambda: site.backlog.use().used > 0)
            await until(lambda: site.backlog.use().used == 0)


async def test_who_reads_slowly_is_not_given_up() -> None:
    async with served() as site:
        items = [(NOW - 4000 + index, {"x": "z" * 1_000_000}) for index in range(7)]
        await site.api.deliver("climate", ROOM, items)
        path = SMOOTH.replace("smooth", "climate")
        async with silent(site, f"{path}/instances?start=-inf&end=inf") as (client,):
            client.setblocking(False)
            await until(lambda: site.backlog.use().used > 0)
            (one,) = site.backlog._stuck
            before = one.size
            while one.size == before:
                assert await asyncio.get_running_loop().sock_recv(client, 1 << 20)
            one._look()
            assert not one.given_up
            one._look()
            assert one.given_up, "nothing was read since"


LATER = {"streams": ["wrong"], "start": "2027-01-15T07:00:00Z", "end": "2027-01-15T08:00:00Z"}


async def test_computing_on_request_shows_its_progress() -> None:
    async with served() as site:
        await site.api.deliver("raw", {}, [(NOW - 1_000_000 + 1000 * index, 1.0) for index in range(500)])
        events: list[tuple[str, Any]] = []
        async with site.client.stream(
            "POST", "/api/compute", json=LATER, headers={"Accept": "text/event-stream"}
        ) as answer:
            text = "".join([piece async for piece in answer.aiter_text()])
        for block in text.strip().split("\n\n"):
            kind, data = block.split("\n")
            events.append((kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
        assert events[-1][0] == "done"
        assert events[-1][1]["streams"] == ["wrong"]
        assert len(await site.api.engine.read(StreamId("wrong"), 0, NOW)) == 500
        again = await site.client.post("/api/compute", json=LATER)
        assert again.status_code == 200


@pytest.mark.parametrize(
    ("change", "status", "word"),
    [
        ({"streams": ["nothing"]}, 404, "nothing"),
        ({"streams": []}, 422, "streams"),
        ({"start": "-inf"}, 422, "start and end"),
        ({"start": "tomorrow"}, 422, "start"),
        ({"more": 1}, 422, "more"),
    ],
)
async def test_what_cannot_be_computed(change: dict[str, Any], status: int, word: str) -> None:
    async with served() as site:
        await site.api.deliver("raw", {}, [(NOW - 1000, 1.0)])
        answer = await site.client.post("/api/compute", json=LATER | change)
        assert answer.status_code == status
        assert word in answer.text


async def test_a_tool_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served() as site:
        await site.api.deliver("raw", {}, [(NOW - 1000, "no number")])
        headers = {"Accept": "text/event-stream"}
        answer = await site.client.post("/api/compute", json=LATER, headers=headers)
        assert "event: error" in answer.text
