"""Live events and computing on request over a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from hs_stream.core.stream import StreamId
from hs_stream.service import sse
from hs_stream.service.api import create_api
from hs_stream.service.http import HttpServer, bind
from hs_stream.service.live import Hub
from tests.service.live_client import Client
from tests.service.test_api import NOW, SMOOTH, Context, make_context

ROOM = {"house": "1", "room": "kitchen"}


@dataclass
class Served:
    api: Context
    hub: Hub
    client: httpx.AsyncClient


@asynccontextmanager
async def served(limit: int = 10) -> AsyncIterator[Served]:
    async with make_context() as api:
        await api.deliver("climate", ROOM, [(NOW - 5000, {"t": 1.0})])
        hub = Hub(api.engine, limit)
        api.context.hub = hub
        listener = bind("127.0.0.1", 0)
        server = HttpServer(create_api(api.context), listener)
        running = asyncio.create_task(server.run())
        await server.wait_started()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=10) as client:
            yield Served(api, hub, client)
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


async def test_events_come_and_go_on_behind_the_last_id() -> None:
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
