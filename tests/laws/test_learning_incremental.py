"""Law 2 over learners: late and corrected readings, restarts and crashes end in the model of the right order."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine import fold
from hs_stream.engine.engine import EngineSettings
from hs_stream.engine.ports import Reading, Store
from hs_stream.store.memory import MemoryStore
from hs_stream.store.sqlite import SqliteStore
from hs_stream.testing.check_workflow import check_workflow
from hs_stream.testing.history import History

from .test_incremental_law import METAS, memory, node, workflow

ROOM = METAS["climate"][0]
WHAT: dict[str, Any] = {"features": ["t", "h"], "label": "there", "classes": [False, True]}


def learners() -> WorkflowDefinition:
    """Each kind of model; a model as a stream, and what is told from it elsewhere; minibatches into a learner."""
    return workflow(
        [
            node("told", "learn_classifier", ["climate"], publish=True, **WHAT),
            node("bayes", "learn_classifier", ["climate"], model="naive_bayes", **WHAT),
            node("model", "learn_model", ["climate"], every=2, **WHAT),
            node("guess", "predict", ["light", "model"], publish=True),
            node("odd", "anomaly_score", ["climate"], features=["t", "h"]),
            node("rare", "anomaly_score", ["climate"], features=["t"], model="half_space_trees", trees=2, height=3,
                 window=5),
            node("groups", "cluster", ["climate"], features=["t"], clusters=2, publish=True),
            node("some", "minibatch", ["climate"], size=3),
            node("from_some", "learn_classifier", ["some"], model="passive_aggressive", **WHAT),
            node("spans", "minibatch_by_time", ["climate"], width="2s"),
            node("from_spans", "cluster", ["spans"], features=["t", "h"], clusters=2),
        ]
    )  # fmt: skip


def reading(rng: random.Random, _: int) -> dict[str, Any]:
    there = rng.random() < 0.5
    item: dict[str, Any] = {"t": rng.gauss(20 + there, 1), "h": rng.choice([40, 40.5, None, 50.0])}
    return item if rng.random() < 0.2 else item | {"there": there}


VALUES = {"climate": reading, "light": lambda rng, _: {"t": rng.gauss(20, 2), "h": 41}}


@pytest.fixture(autouse=True)
def snapshots_after_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that short histories go through snapshots."""
    monkeypatch.setattr(fold, "SNAPSHOT_EVERY", 4)


@pytest.mark.parametrize("seed", range(7000, 7010))
async def test_any_crash_ends_as_from_scratch(seed: int) -> None:
    report = await check_workflow(
        memory(), [learners()], VALUES, METAS, seed=seed, rounds=10, crash_moments=["before", "after"]
    )
    assert report.readings > 0


@pytest.mark.parametrize("seed", range(7100, 7103))
async def test_any_crash_on_sqlite_ends_as_from_scratch(seed: int, tmp_path: Path) -> None:
    async def factory() -> Store:
        return SqliteStore(tmp_path / "law.db")

    report = await check_workflow(
        factory, [learners()], VALUES, METAS, seed=seed, rounds=6, crash_moments=["before", "after"]
    )
    assert report.readings > 0


async def test_on_mongo_a_snapshot_is_the_model(mongo_url: str) -> None:
    from hs_stream.store.mongo import MongoStore

    async def factory() -> Store:
        return MongoStore(mongo_url)

    report = await check_workflow(factory, [learners()], VALUES, METAS, seed=7200, rounds=8)
    assert report.readings > 0


async def test_a_late_and_a_corrected_reading_are_learnt_anew_from_the_snapshot_before_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fold, "SNAPSHOT_EVERY", 100)
    tool_runs: list[int] = []
    told = node("told", "learn_classifier", ["climate"], **WHAT)
    kind: Any = type(told.tool)
    run = kind.run

    def counted(self: Any, state: Any, batch: Any) -> Any:
        tool_runs.append(len(batch))
        return run(self, state, batch)

    monkeypatch.setattr(kind, "run", counted)
    store = MemoryStore()

    async def factory() -> Store:
        return store

    now = 1_600_000_000_000
    history = History(factory, [workflow([told])], EngineSettings(), now)
    await history.begin()
    rng = random.Random(5)
    every = [Reading("climate", ROOM, now - 1_000_000 + 1000 * at, reading(rng, at)) for at in range(1000)]
    await history.deliver([item for at, item in enumerate(every) if at != 950])
    await history.pass_time(60_000)
    await history.check()
    before = await contents(store)

    async def arrives(item: Reading) -> int:
        tool_runs.clear()
        await history.deliver([item])
        await history.settle()
        learnt = sum(tool_runs)
        await history.check()
        return learnt

    # The snapshot before instance 950 is at most 100 instances earlier; 49 come after it.
    assert 50 <= await arrives(every[950]) <= 150
    late = await contents(store)
    assert [time for time in late if late[time] != before.get(time)][:1] >= [every[950].time]
    corrected = Reading("climate", ROOM, every[400].time, {"t": 35.0, "h": 40.0, "there": True})
    assert 600 <= await arrives(corrected) <= 700
    assert (await contents(store)) != late
    await history.end()


async def contents(store: Store) -> dict[int, Any]:
    record = next(item for item in await store.streams() if item.stream == StreamId("told", ROOM))
    return dict(await store.read(record.id, MIN_TIME, MAX_TIME))
