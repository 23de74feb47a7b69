"""Law 2 over periods: what lasts into them, what stands at their start, what is empty; late, unknown, and crashed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.ports import Store
from hs_stream.store.sqlite import SqliteStore
from hs_stream.testing.check_workflow import check_workflow

from .test_incremental_law import METAS, memory, node, workflow

VALUES = {
    "climate": lambda rng, _: {"t": rng.choice([1.5, 7, rng.random() * 10, None])},
    "light": lambda rng, _: rng.random(),
}
ZONES = {"house": {"1": "America/New_York"}, "default": "Europe/Brussels"}


def periods() -> WorkflowDefinition:
    return workflow(
        [
            node("t", "component", ["climate"], key="t"),
            node("mean", "sliding_mean@^2", ["t"], period="5s", weight="time", publish=True),
            node("mean_aged", "sliding_mean@^2", ["t"], period="5s", weight="time", max_age="20s", publish=True),
            node("start", "sliding_sum@^2", ["t"], period="15m", tz=ZONES, label="start", closed="left"),
            node("filled", "sliding_sum@^2", ["light"], width="4s", every="2s", fill=0, forget="1m", publish=True),
            node("whole", "sliding_count@^2", ["light"], width="10s", every="5s", partial="drop", label="start"),
            node("top", "sliding_max@^2", ["mean"], period="1m", held=True, with_time=True),
            node("change", "sliding_change", ["filled"], width="6s"),
            node("std", "sliding_std@^2", ["mean"], width="30s", weight="time", closed="left"),
            node("running", "sliding_sum@^2", ["t"], period="5s", running=True, fill=0, forget="12s", publish=True),
            node("so_far", "sliding_mean@^2", ["light"], period="15m", tz=ZONES, running=True, closed="left"),
            node("last", "sliding_last@^2", ["filled"], period="5s", held=True, missing="keeps", max_age="11s"),
        ]
    )


@pytest.mark.parametrize("seed", range(7100, 7108))
async def test_any_crash_ends_as_from_scratch(seed: int) -> None:
    report = await check_workflow(memory(), [periods()], VALUES, METAS, seed=seed, crash_moments=["before", "after"])
    assert report.readings > 0


@pytest.mark.parametrize("seed", range(7200, 7202))
async def test_any_crash_on_sqlite_ends_as_from_scratch(seed: int, tmp_path: Path) -> None:
    async def factory() -> Store:
        return SqliteStore(tmp_path / "law.db")

    report = await check_workflow(
        factory, [periods()], VALUES, METAS, seed=seed, crash_moments=["before", "after"], rounds=12
    )
    assert report.readings > 0
