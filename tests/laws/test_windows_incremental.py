"""Law 2 over streams of windows: windows on a grid, at late instances and ahead of their time, three levels deep."""

from __future__ import annotations

from pathlib import Path

import pytest

from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.ports import Store
from hs_stream.store.sqlite import SqliteStore
from hs_stream.testing.check_workflow import check_workflow

from .test_incremental_law import METAS, VALUES, memory, node, workflow


def windows() -> WorkflowDefinition:
    return workflow(
        [
            node("t", "component", ["climate"], key="t"),
            node("grid", "sliding_window", [], lower="-5s", upper="-1s", increment="2s"),
            node("mean", "sliding_apply", ["grid", "t"], function="mean", max_width="5s", publish=True),
            node("around", "aligning_window", ["light"], lower="-2s", upper="1500ms", publish=True),
            node("high", "sliding_apply", ["around", "t"], function="max", max_width="2s", max_ahead="1500ms"),
            node("listed", "sliding_listify", ["around", "light"], max_width="1m", max_ahead="2s", include_time=True),
            node("lists", "relative_window", ["mean", "t"], relative_start="-3s", relative_end="20s"),
            node("std", "relative_apply", ["lists"], function="std", publish=True),
            node("sink", "sliding_sink", ["around", "std"], max_width="2s", max_ahead="1500ms"),
        ]
    )


@pytest.mark.parametrize("seed", range(5000, 5010))
async def test_any_crash_ends_as_from_scratch(seed: int) -> None:
    report = await check_workflow(memory(), [windows()], VALUES, METAS, seed=seed, crash_moments=["before", "after"])
    assert report.readings > 0


@pytest.mark.parametrize("seed", range(6000, 6003))
async def test_any_crash_on_sqlite_ends_as_from_scratch(seed: int, tmp_path: Path) -> None:
    async def factory() -> Store:
        return SqliteStore(tmp_path / "law.db")

    report = await check_workflow(
        factory, [windows()], VALUES, METAS, seed=seed, crash_moments=["before", "after"], rounds=12
    )
    assert report.readings > 0
