"""An engine on a memory store and a clock that is turned by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from hs_stream.core.plate import Plate
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME
from hs_stream.core.workflow import NodeDefinition, SourceDefinition, WorkflowDefinition
from hs_stream.engine.backend import INLINE
from hs_stream.engine.engine import Engine, EngineSettings
from hs_stream.engine.ports import Backend, Delivery, Reading, Store
from hs_stream.plugins import default_registry
from hs_stream.store.memory import MemoryStore
from hs_stream.testing.check_workflow import Subscriber
from hs_stream.testing.clock import VirtualClock
from hs_stream.testing.oracle import Verification, verify

REGISTRY = default_registry()
START = 1_600_000_000_000


class Bench:
    """One store, one clock, one subscriber, and engines over them, one after the other."""

    def __init__(self) -> None:
        self.store: Store = MemoryStore()
        self.backend: Backend = INLINE
        self.clock = VirtualClock(START)
        self.subscriber = Subscriber()
        self.workflows: list[WorkflowDefinition] = []
        self.engine: Engine
        self.task: asyncio.Task[None] | None = None
        self.acknowledged = 0

    def node(self, name: str, pin: str, inputs: Sequence[str] = (), **parameters: Any) -> NodeDefinition:
        over = parameters.pop("over", ())
        publish = parameters.pop("publish", None)
        return NodeDefinition(name, REGISTRY.resolve(pin).build(parameters), tuple(inputs), tuple(over), publish)

    def workflow(self, *nodes: NodeDefinition, max_rooms: int = 1000, **options: Any) -> WorkflowDefinition:
        return WorkflowDefinition(
            "w",
            plates={"room": Plate("room", max=max_rooms)},
            sources={"power": SourceDefinition("power", ("room",)), "light": SourceDefinition("light", ("room",))},
            nodes={node.name: node for node in nodes},
            **options,
        )

    async def start(
        self, *workflows: WorkflowDefinition, run: bool = True, publishing: bool = True, **settings: Any
    ) -> Engine:
        self.workflows = list(workflows)
        sinks = [self.subscriber] if publishing else []
        made = EngineSettings(**settings)
        self.engine = Engine(self.store, clock=self.clock, sinks=sinks, settings=made, backend=self.backend)
        await self.engine.open(self.workflows)
        if run:
            self.task = asyncio.create_task(self.engine.run(), name="engine")
            self.engine.connected(True)
        return self.engine

    async def stop(self) -> None:
        await self.engine.stop()
        if self.task is not None:
            await self.task
            self.task = None
        await self.engine.close()

    async def again(self) -> None:
        """A process that has ended begins again over the same store."""
        self.task = None
        await self.engine.close()
        await self.start(*self.workflows)
        await self.engine.settle()

    async def publish(self, *items: tuple[int, Any], room: str = "a", source: str = "power") -> None:
        """Readings ``(milliseconds after START, value)`` in one delivery; returns when they are computed."""
        readings = [Reading(source, (("room", room),), START + time, value) for time, value in items]

        def acknowledge() -> None:
            self.acknowledged += 1

        await self.engine.deliver(Delivery(readings, [], self.clock.now(), acknowledge))
        await self.engine.settle()

    async def pass_time(self, milliseconds: int) -> None:
        """Turn the clock in two turns, so that silence is trusted after the first."""
        for part in (10_000, milliseconds):
            self.clock.advance(part)
            await asyncio.sleep(0)
            await self.engine.settle()

    async def contents(self, stream: str) -> dict[int, Any]:
        """What is stored, by milliseconds after START."""
        batch = await self.engine.read(StreamId.parse(stream), MIN_TIME, MAX_TIME)
        return {time - START: value for time, value in batch}

    async def verify(self) -> Verification:
        now, records, horizon = self.clock.now(), self.engine.records(), self.engine.horizon
        return await verify(self.store, self.workflows, MIN_TIME, now, records=records, horizon=horizon)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    if hasattr(made, "engine"):
        await made.stop()


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[tuple[str, int, int]]]:
    """What was evaluated since the last call: (stream, start, end), times relative to START."""
    from hs_stream.engine.pieces import Pieces

    seen: list[tuple[str, int, int]] = []
    put = Pieces.put

    def spy(self: Pieces, stream: Any, spans: Any, *rest: Any) -> None:
        seen.extend((stream.name, max(start - START, -(10**9)), end - START) for start, end in spans)
        put(self, stream, spans, *rest)

    monkeypatch.setattr(Pieces, "put", spy)

    def take() -> list[tuple[str, int, int]]:
        taken, seen[:] = list(seen), []
        return taken

    return take
