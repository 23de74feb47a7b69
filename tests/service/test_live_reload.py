"""Live subscribers while the workflows are loaded again: they are told, come back, and miss nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hs_stream.service.embedded.broker import EmbeddedBroker
from tests.service.live_client import Client
from tests.service.test_running_changes import Running, running

STREAM = "/api/streams/temperature%5Broom=kitchen%5D"
TINY = "workflow: tiny\nsources: {tiny_raw: {mqtt: x}}\n"


async def follow(it: Running, client: Client) -> None:
    """One connection until it ends."""
    client.connect()
    headers = {"Last-Event-ID": client.last_id} if client.last_id else {}
    async with it.client.stream("GET", f"{STREAM}/live?from=-inf", headers=headers, timeout=20) as answer:
        assert answer.status_code == 200
        async for piece in answer.aiter_raw():
            client.feed(piece)


async def test_a_reload_ends_subscriptions_which_go_on_after_it(tmp_path: Path, broker: EmbeddedBroker) -> None:
    client = Client()
    async with running(tmp_path, broker) as it:
        await it.publish((0, 20.0), (10, 22.0))
        await it.contents("temperature", {0: 20.0, 10: 22.0})
        first = asyncio.create_task(follow(it, client))
        async with asyncio.timeout(20):
            while not client.ready:
                await asyncio.sleep(0.01)
            await it.put("tiny", TINY)
            await first
        assert client.end == "reload"
        second = asyncio.create_task(follow(it, client))
        await it.publish((0, 24.0), (20, 22.0))
        async with asyncio.timeout(20):
            while len(client.table) < 3 or (24.0, 1) not in client.table.values():
                await asyncio.sleep(0.01)
        assert it.service._generation.live_subscribers() == 1
        second.cancel()
        await asyncio.wait((second,))
        assert client.oddities == []
