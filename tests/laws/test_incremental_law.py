"""Law 2 of the semantics: after any arrivals, in any order, with crashes, contents equal a from-scratch evaluation."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from hs_stream.core.plate import Plate
from hs_stream.core.workflow import NodeDefinition, SourceDefinition, WorkflowDefinition
from hs_stream.engine.ports import Store
from hs_stream.plugins import default_registry
from hs_stream.store.memory import MemoryStore
from hs_stream.store.sqlite import SqliteStore
from hs_stream.testing.check_workflow import check_workflow
from hs_stream.testing.faults import When

REGISTRY = default_registry()
ROOMS = [(("house", "1"), ("room", room)) for room in "abc"] + [(("house", "2"), ("room", "a"))]


def node(
    name: str, pin: str, inputs: Sequence[str], *, publish: bool = False, over: Sequence[str] = (), **parameters: Any
) -> NodeDefinition:
    return NodeDefinition(
        name, REGISTRY.resolve(pin).build(parameters), tuple(inputs), tuple(over), {} if publish else None
    )


def workflow(nodes: Sequence[NodeDefinition]) -> WorkflowDefinition:
    return WorkflowDefinition(
        "w",
        plates={"house": Plate("house"), "room": Plate("room", "house")},
        sources={
            "climate": SourceDefinition("climate", ("house", "room")),
            "light": SourceDefinition("light", ("house", "room")),
        },
        nodes={item.name: item for item in nodes},
    )


def every_support() -> WorkflowDefinition:
    """Every support and drive, plates, three levels deep."""
    return workflow(
        [
            node("t", "component", ["climate"], key="t"),
            node("smooth", "sliding_mean", ["t"], width="5s", every="1s"),
            node("recent", "sliding_sum", ["t"], width="3s", publish=True),
            node("house_mean", "aggregate", ["smooth"], over=["room"], function="mean", publish=True),
            node("all_houses", "aggregate", ["house_mean"], over=["house"], function="max"),
            node("hot", "threshold", ["house_mean"], above=5, hysteresis=1, publish=True),
            node("slope", "derivative", ["t"]),
            node("total", "integral", ["t"], publish=True),
            node("joined", "as_of_join", ["t", "light"], names=["t", "light"], publish=True),
            node("trend", "ewma", ["slope"], half_life="10s"),
            node("daily", "sliding_max", ["t"], width="1d", every="1d", tz="Europe/Brussels"),
        ]
    )


VALUES = {
    "climate": lambda rng, _: {"t": rng.choice([1.5, 7.0, rng.random() * 10])},
    "light": lambda rng, _: rng.random(),
}
METAS = {"climate": ROOMS, "light": ROOMS}


def memory() -> Callable[[], Awaitable[Store]]:
    store = MemoryStore()

    async def factory() -> Store:
        return store

    return factory


@pytest.mark.parametrize("seed", range(20))
async def test_any_order_ends_as_from_scratch(seed: int) -> None:
    report = await check_workflow(memory(), [every_support()], VALUES, METAS, seed=seed)
    assert report.readings > 0


@pytest.mark.parametrize("seed", range(1000, 1020))
async def test_any_crash_ends_as_from_scratch(seed: int) -> None:
    moments: list[When] = ["before", "after"]
    report = await check_workflow(memory(), [every_support()], VALUES, METAS, seed=seed, crash_moments=moments)
    assert report.readings > 0


@pytest.mark.parametrize("seed", range(2000, 2004))
async def test_any_crash_on_sqlite_ends_as_from_scratch(seed: int, tmp_path: Path) -> None:
    async def factory() -> Store:
        return SqliteStore(tmp_path / "law.db")

    report = await check_workflow(
        factory, [every_support()], VALUES, METAS, seed=seed, crash_moments=["before", "after"], rounds=12
    )
    assert report.readings > 0


@pytest.mark.parametrize("seed", range(3000, 3004))
async def test_any_crash_on_mongo_ends_as_from_scratch(seed: int, mongo_url: str) -> None:
    from hs_stream.store.mongo import MongoStore

    async def factory() -> Store:
        return MongoStore(mongo_url)

    report = await check_workflow(
        factory,
        [every_support()],
        VALUES,
        METAS,
        seed=seed,
        crash_moments=["before", "after", "marked", "journaled", "applied"],
        rounds=8,
    )
    assert report.readings > 0


@pytest.mark.parametrize("seed", range(4000, 4010))
async def test_random_graphs_end_as_from_scratch(seed: int) -> None:
    graph = random_graph(random.Random(seed))
    report = await check_workflow(
        memory(),
        [graph],
        {"climate": lambda rng, _: rng.choice([1.0, 2.5, rng.random()])},
        METAS,
        seed=seed,
        crash_moments=["before", "after"],
    )
    assert report.readings > 0


def random_graph(rng: random.Random) -> WorkflowDefinition:
    """Up to nine numeric nodes, each over earlier ones on the same plates."""
    tools: list[Callable[[str, Sequence[str]], NodeDefinition]] = [
        lambda name, inputs: node(
            name, "sliding_mean", inputs[:1], width=f"{rng.randint(1, 9)}s", publish=rng.random() < 0.5
        ),
        lambda name, inputs: node(name, "sliding_max", inputs[:1], width="4s", every=f"{rng.randint(1, 5)}s"),
        lambda name, inputs: node(name, "derivative", inputs[:1]),
        lambda name, inputs: node(name, "integral", inputs[:1], publish=rng.random() < 0.5),
        lambda name, inputs: node(name, "ewma", inputs[:1], half_life="3s"),
        lambda name, inputs: node(name, "expression", inputs[:1], expression="value * 2 + 1"),
        lambda name, inputs: (
            node(name, "expression", inputs[:2], expression="a - b", publish=True)
            if len(set(inputs[:2])) == 2
            else node(name, "sliding_count", inputs[:1], width="7s", every="2s")
        ),
    ]
    nodes: list[NodeDefinition] = []
    for index in range(rng.randint(3, 9)):
        names = ["climate", *(item.name for item in nodes)]
        inputs = [rng.choice(names), rng.choice(names)]
        nodes.append(rng.choice(tools)(f"n{index}", inputs))
    return workflow(nodes)
