"""SIGKILL in the middle of a replay of a real room; every stream must end as pandas computes it from all rows.

``make chaos`` replays a generated room with a kill of each part, and ../shared/data/occupancy with ten of each, in
order and disturbed. After each kill everything is looked at, by the rig and by ``verify``.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.chaos.gateway import Replay
from tests.chaos.rig import Kind, Report, Rig
from tests.occupancy import (
    DATA,
    FIELDS,
    ROOM,
    TOPIC,
    WORKFLOW,
    Row,
    assert_equal,
    disturb,
    expected,
    generate,
    read_database,
    read_real,
)

KINDS: tuple[Kind, ...] = ("service", "mongod", "mosquitto")
RATE = 700.0


async def replay(
    rows: list[Row], sent: list[Row], kills: list[Kind], tmp_path: Path, report: Report, seed: int
) -> None:
    """``sent`` ends as ``rows`` in order, with ``kills`` spread over all of it."""
    source = Replay(TOPIC.replace(ROOM, "{room}"), ROOM, sent)
    async with Rig.running(tmp_path, seed, rate=RATE, source=source, workflow=WORKFLOW.read_text("utf-8")) as rig:
        share = len(sent) / len(kills)
        for index, kind in enumerate(kills):
            at = share * (index + rig.random.uniform(0.1, 0.7))
            while len(rig.gateway.log) < at:
                await asyncio.sleep(0.005)
            assert not rig.gateway.ended
            await rig.kill(kind, away=rig.random.uniform(0.0, 0.5))
            report.kills += 1
            await asyncio.sleep(rig.random.uniform(0.0, 0.5))
            await rig.check(report)
        while not rig.gateway.ended:
            await asyncio.sleep(0.1)
        await rig.check(report)
        # A second of silence more than a workflow's `idle` closes the last day; then it is published too.
        await rig.until("the last day does not close", lambda: closed(rig, rows), 30)
        await rig.check(report)
        assert await rig.service.stop() == 0
        contents, _ = read_database(rig.mongod.database_url("chaos"))
    assert contents["office"] == {row["ts"]: {name: row[name] for name in FIELDS} for row in rows}
    wanted = expected(rows)
    assert set(contents) == {"office", *wanted}
    for node, series in wanted.items():
        assert_equal(node, contents[node], series)


async def closed(rig: Rig, rows: list[Row]) -> bool:
    seen = rig.listener.state.get(f"office_co2_day[room={ROOM}]", {})
    return bool(seen) and max(seen) >= rows[-1]["ts"]


@pytest.mark.chaos
@pytest.mark.timeout(120)
async def test_a_generated_room(tmp_path: Path, long: bool, reports: list[Report]) -> None:
    if not long:
        pytest.skip("make chaos")
    report = Report("generated")
    reports.append(report)
    rows = generate()
    await replay(rows, disturb(rows), list(KINDS), tmp_path, report, 6)


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("order", ["in order", "disturbed"])
@pytest.mark.parametrize("kind", KINDS)
async def test_the_real_room(order: str, kind: Kind, tmp_path: Path, long: bool, reports: list[Report]) -> None:
    if not long or not DATA.is_dir():
        pytest.skip("make chaos, with ../shared/data/occupancy")
    report = Report(f"{kind}, {order}")
    reports.append(report)
    rows = read_real()
    await replay(rows, rows if order == "in order" else disturb(rows), [kind] * 10, tmp_path, report, 7)
