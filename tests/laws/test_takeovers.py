"""ST-17 through the engine: a process stands still at points of one short history, and another takes its store over.

`tests.laws.test_machine` draws them in histories of any kind. With ``HS_STREAM_MACHINE`` it is every point.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from hs_stream.core.plate import Plate
from hs_stream.core.stream import StreamId
from hs_stream.core.workflow import NodeDefinition, SourceDefinition, WorkflowDefinition
from hs_stream.engine.engine import EngineSettings
from hs_stream.engine.ports import Reading, Store
from hs_stream.plugins import default_registry
from hs_stream.testing.faults import Gate
from hs_stream.testing.history import History
from tests.laws.gated import GatedMongo, GatedSqlite, fenced_often

REGISTRY = default_registry()
NOW = 1_600_000_000_000
Make = Callable[[], Awaitable[Store]]


def node(name: str, pin: str, inputs: str, **parameters: Any) -> NodeDefinition:
    return NodeDefinition(name, REGISTRY.resolve(pin).build(parameters), (inputs,), (), {})


WORKFLOW = WorkflowDefinition(
    "w",
    plates={"room": Plate("room")},
    sources={"power": SourceDefinition("power", ("room",))},
    nodes={
        one.name: one
        for one in (
            node("mean", "sliding_mean", "power", width="5s"),
            node("total", "sliding_sum", "power", width="1d"),
            node("changes", "debounce", "mean", hold="0s"),
        )
    },
)


@pytest.fixture(params=["sqlite", "mongod", "replica"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Callable[[], Make], int]]:
    """What makes storages of one kind, each of which gives store objects over it; and how many points to go on by."""
    names: list[str] = []
    server = None if request.param == "sqlite" else request.getfixturevalue(f"{request.param}_process")

    def new() -> Make:
        names.append(f"test_{uuid.uuid4().hex}")

        async def make() -> Store:
            if server is None:
                return GatedSqlite(tmp_path / f"{names[-1]}.db")
            return GatedMongo(server.database_url(names[-1]))

        return make

    yield new, 1 if "HS_STREAM_MACHINE" in os.environ else 3 if server is None else 29
    if server is not None:
        with MongoClient[dict[str, Any]](server.url) as client:
            for name in names:
                client.drop_database(name)


async def play(make: Make, points: int, *, quiet: bool) -> bool:
    """Whether anybody stood still."""
    history = History(make, [WORKFLOW], EngineSettings(), NOW)
    history.freeze(points)
    await history.begin()

    async def send(*items: tuple[str, int, float]) -> None:
        readings = [Reading("power", (("room", room),), NOW - back, value) for room, back, value in items]
        await history.survive(lambda: history.deliver(readings))
        await history.settle()

    try:
        await send(("a", 9000, 1.0), ("a", 8000, 2.0), ("b", 8000, 5.0))
        await send(("a", 8000, 3.0), ("a", 8500, 1.0))
        await history.purge(StreamId.parse("power[room=a]"), NOW - 9500, NOW - 8600)
        await history.request(StreamId.parse("mean[room=a]"), NOW - 60_000, NOW)
        await history.pass_time(5000)
        await send(("a", 8500, 7.0), ("b", 8000, 6.0))
        await history.wake(quiet=quiet)
        await send(("a", 8500, 8.0), ("a", 3000, 6.0))
        await history.wake_all()
        stood = history.takeovers > 0
        await history.restart()
        for _ in range(3):
            await history.pass_time(60_000)
        await history.check()
        await history.end()
    finally:
        await history.abandon()
    return stood


async def test_whoever_stood_still_does_not_do_so_again() -> None:
    gate = Gate(at=1)
    passing = asyncio.ensure_future(gate.point("here"))
    await gate.still()
    gate.at = 1
    gate.open()
    await passing
    await gate.point("there")
    assert gate.where == "here"


async def test_whoever_stood_still_changes_nothing(storage: tuple[Callable[[], Make], int]) -> None:
    new, step = storage
    point = 1
    with fenced_often():
        while await play(new(), point, quiet=point % 2 > 0):
            point += step
    assert point > 30
