"""HyperStream's tutorial on composing tools: the sea ice of both poles, from a reader through list_sum, in MongoDB."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator
from typing import Any

import pandas as pd
import pytest

from hs_stream.core.stream import StreamId
from hs_stream.engine.engine import Engine
from hs_stream.plugins import default_registry
from hs_stream.service.settings import Settings
from hs_stream.service.workflows.file import parse_workflow
from hs_stream.service.workflows.loading import checks_of
from hs_stream.store.mongo import MongoStore
from hs_stream_connectors.csv_source import CsvConnector
from tests.climate import by_ms, need_data, read_instances

WORKFLOW = """
workflow: sea_ice
online: false
sources:
  poles:
    csv: "{data}/sea_ice.csv"
    time: {{field: Time}}
    list: [Arctic, Antarctica]
nodes:
  ice: {{tool: list_sum@^1, from: poles}}
"""
ICE = StreamId.parse("ice")


@contextlib.asynccontextmanager
async def opened(url: str, workflow: Any) -> AsyncIterator[Engine]:
    engine = Engine(MongoStore(url, checkpoint_seconds=0.02))
    await engine.open([workflow])
    yield engine
    await engine.stop()
    await engine.close()


async def read(engine: Engine, workflow: Any) -> None:
    """All rows of the file."""
    source = CsvConnector().connect({"poles": workflow.sources["poles"].options})
    ready = asyncio.Event()
    task = asyncio.create_task(source.run(engine.deliver, lambda up: ready.set() if up else None))
    await ready.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await engine.settle()


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_the_sum_of_both_poles_in_random_pieces(seed: int, mongo_url: str) -> None:
    data = need_data()
    frame = pd.read_csv(data / "sea_ice.csv", parse_dates=["Time"], index_col="Time")
    wanted = by_ms(frame["Arctic"] + frame["Antarctica"])
    assert len(wanted) == 255
    assert [round(value, 9) for value in list(wanted.values())[:2]] == [15.99, 15.48]

    chance = random.Random(seed)
    first, last = min(wanted) - 1, max(wanted)
    cuts = sorted({first, last, *(chance.randint(first, last) for _ in range(20)), *chance.sample(list(wanted), 5)})
    pieces = list(itertools.pairwise(cuts))
    chance.shuffle(pieces)
    text = WORKFLOW.format(data=data)
    workflow = parse_workflow(text, default_registry(), checks=checks_of(Settings()))

    done: list[tuple[int, int]] = []
    async with opened(mongo_url, workflow) as engine:
        await read(engine, workflow)
        assert read_instances(mongo_url)[0]["ice"] == {}, "nobody has asked for it yet"
    for some in (pieces[:9], pieces[9:]):  # two processes, one after the other
        async with opened(mongo_url, workflow) as engine:
            for start, end in some:
                await engine.compute([ICE], start, end)
                done.append((start, end))
                asked = {at: value for at, value in wanted.items() if any(a < at <= b for a, b in done)}
                assert dict(await engine.read(ICE, first, last)) == asked
            assert engine.statistics().results == sum(a < at <= b for at in wanted for a, b in some)
    contents, revisions = read_instances(mongo_url)
    assert contents["ice"] == wanted
    assert contents["poles"] == {at: list(row) for at, row in zip(wanted, frame.to_numpy().tolist(), strict=True)}
    assert not any(revisions["ice"].values()), "each month was computed once"
