"""A second service takes the store over while the first one is frozen under load, and the first one wakes.

ST-17 and ST-20. SQLite is not here: a process that is frozen inside of a transaction keeps the lock of the file, and
nobody can take over. `tests/service/test_takeover.py` freezes one that is at rest.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tests.chaos.rig import Report, Rig, Service

RATE = 100.0
"""Readings a second. Nobody takes any for the seconds of a takeover, and the successor must catch up."""


async def wake(first: Service) -> None:
    """It must end, with its own code and one line."""
    first.signal(signal.SIGCONT)
    code = await first.ended(30)
    log = first.log.read_text()
    assert code == 4, log[-3000:]
    said = [line for line in log.splitlines() if line.startswith("hs-stream: ")]
    assert len(said) == 1, log[-3000:]
    assert "has taken over" in said[0]


@pytest.mark.chaos
@pytest.mark.timeout(3600)
async def test_takeovers_lose_and_double_nothing(tmp_path: Path, long: bool, reports: list[Report]) -> None:
    report = Report("takeover")
    reports.append(report)
    async with Rig.running(tmp_path, 8, rate=RATE, replica_set="hs", lease="2s") as rig:
        for takeover in range(25 if long else 1):
            await asyncio.sleep(rig.random.uniform(0.0, 2.0) if long else 0.3)
            first, began = await rig.freeze_and_take_over()
            report.kills += 1
            if rig.random.random() < 0.5:  # else it wakes while its successor catches up
                report.recover.append(await rig.recovered(began))
                await asyncio.sleep(rig.random.uniform(0.0, 0.5))
            await wake(first)
            if long and takeover % 5 == 4:
                await rig.check(report)
        await rig.check(report)
        assert report.readings > 300
        assert await rig.service.stop() == 0
