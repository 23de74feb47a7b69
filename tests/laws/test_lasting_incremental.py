"""Law 2 over tools on what lasts: late readings, unknown ones, and streams that join change what was said."""

from __future__ import annotations

from pathlib import Path

import pytest

from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.ports import Store
from hs_stream.store.sqlite import SqliteStore
from hs_stream.testing.check_workflow import check_workflow

from .test_incremental_law import METAS, VALUES, memory, node, workflow


def lasting() -> WorkflowDefinition:
    return workflow(
        [
            node("t", "component@^1", ["climate"], key="t"),
            node("hot", "threshold@^2", ["t"], above=5, hysteresis=1, max_age="20s"),
            node("steady", "debounce@^2", ["hot"], on="3s", off="7s"),
            node("any", "aggregate@^2", ["steady"], over=["room"], function="any", hold="forever"),
            node("sum", "aggregate@^2", ["t"], over=["room"], function="sum", hold="5s"),
            node("half", "aggregate@^2", ["light"], over=["room"], function="mean", hold="10s", require=0.5),
            node("both", "combine_latest@^1", ["t", "light"], names=["t", "light"], max_age="10s"),
            node("ever", "combine_latest@^1", ["steady", "light"], outer=True),
            node("strict", "as_of_join@^2", ["t", "light"], strict=True),
            node("young", "as_of_join@^2", ["light", "hot"], strict=True, max_age="4s", outer=True),
            node("on", "time_in_state@^1", ["steady"], every="10s", max_age="25s"),
            node("energy", "integral@^2", ["t"], every="10s", max_age="20s", fill=0, forget="1m"),
            node("total", "integral@^2", ["light"], missing="keeps"),
            node("days", "time_in_state@^1", ["steady"], period="day", tz="Europe/Brussels"),
            node("session", "session_window@^2", ["t"], gap="4s", above=0, max_age="12s"),
            node("followed", "followed_by@^1", ["t", "light"], within="5s"),
            node("events", "merge_events@^1", ["t", "light"], names=["t", "light"]),
            node("absent", "absence@^1", ["events"], after="t", of="light", within="3s"),
            node("either", "as_of_join@^2", ["sum", "half"], driven_by="either"),
        ]
    )


@pytest.mark.parametrize("seed", range(7100, 7106))
async def test_any_order_ends_as_from_scratch(seed: int) -> None:
    report = await check_workflow(memory(), [lasting()], VALUES, METAS, seed=seed)
    assert report.readings > 0


@pytest.mark.parametrize("seed", range(8100, 8110))
async def test_any_crash_ends_as_from_scratch(seed: int) -> None:
    report = await check_workflow(memory(), [lasting()], VALUES, METAS, seed=seed, crash_moments=["before", "after"])
    assert report.readings > 0


@pytest.mark.parametrize("seed", range(9100, 9102))
async def test_any_crash_on_sqlite_ends_as_from_scratch(seed: int, tmp_path: Path) -> None:
    async def factory() -> Store:
        return SqliteStore(tmp_path / "law.db")

    report = await check_workflow(
        factory, [lasting()], VALUES, METAS, seed=seed, crash_moments=["before", "after"], rounds=12
    )
    assert report.readings > 0
