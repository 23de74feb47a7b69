"""Live subscribers that are killed and come back, across kills and restarts of the service: in the end they have what
is stored, and were told nothing twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from pymongo import MongoClient

from tests.chaos.rig import Rig, contents, stream_name
from tests.service.live_client import Client

STREAMS = ("climate[room={room}]", "warm[room={room}]", "slope[room={room}]", "house")


class Subscribers:
    """The process of `tests.chaos.live_subscriber`."""

    def __init__(self, port: int, directory: Path, streams: list[str]) -> None:
        self._arguments = [sys.executable, str(Path(__file__).with_name("live_subscriber.py")), str(port)]
        self._arguments += [str(directory), *streams]
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._arguments)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def clients(self, streams: list[str]) -> dict[str, Client]:
        """What each stream's file makes of a client."""
        found = {}
        for stream in streams:
            found[stream] = client = Client()
            path = self._directory / f"{quote(stream, safe='')}.events"
            client.feed(path.read_bytes())
        return found


@contextlib.asynccontextmanager
async def ending(subscribers: Subscribers) -> AsyncIterator[None]:
    try:
        yield
    finally:
        subscribers.kill()


def stored(rig: Rig) -> dict[str, dict[int, tuple[Any, int]]]:
    with MongoClient[dict[str, Any]](rig.mongod.url, tz_aware=True) as client:
        database = client["chaos"]
        return {stream_name(one): contents(database, one["_id"])[0] for one in database["streams"].find()}


@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_subscribers_that_are_killed_end_with_what_is_stored(tmp_path: Path) -> None:
    async with Rig.running(tmp_path, 7, rate=300.0) as rig:
        await asyncio.sleep(2.0)
        rooms = sorted(name.partition("room=")[2][:-1] for name in stored(rig) if name.startswith("climate["))
        names = [pattern.format(room=room) for pattern in STREAMS[:-1] for room in rooms[:: len(rooms) - 1]]
        names.append(STREAMS[-1])
        directory = tmp_path / "subscribers"
        directory.mkdir()
        subscribers = Subscribers(rig.service.port, directory, names)
        async with ending(subscribers):
            for round_ in range(20):
                subscribers.start()
                await asyncio.sleep(rig.random.uniform(0.3, 1.0))
                if round_ == 6:
                    await rig.kill("service", away=0.2)
                elif round_ == 13:
                    # On a busy machine the one that was started in round 6 may still be on its way.
                    await rig.ready()
                    assert await rig.service.stop() == 0
                    await rig.service.start()
                    await rig.ready()
                subscribers.kill()
            subscribers.start()
            rig.gateway.pause()
            await rig.settle()

            async def is_caught_up() -> bool:
                truth = await asyncio.to_thread(stored, rig)
                found = await asyncio.to_thread(subscribers.clients, names)
                return all(found[name].table == truth[name] for name in names)

            with contextlib.suppress(AssertionError):
                await rig.until("the subscribers have not caught up", is_caught_up, 15)
            truth, found = stored(rig), subscribers.clients(names)
        for name in names:
            client = found[name]
            wrong = {at: (client.table.get(at), truth[name].get(at)) for at in client.table.keys() | truth[name].keys()}
            assert {at: pair for at, pair in wrong.items() if pair[0] != pair[1]} == {}, name
            assert client.oddities == [], name
        kinds = {kind for client in found.values() for kind in client.kinds}
        assert {"reset", "insert", "revise", "ready"} <= kinds
        assert sum(len(client.table) for client in found.values()) > 1000
        assert await rig.service.stop() == 0
