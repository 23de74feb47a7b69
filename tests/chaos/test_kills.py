"""SIGKILL of the service, of mongod and of mosquitto under load: nothing lost, nothing doubled, everything published.

``make chaos`` runs the long form. See `tests.chaos.gateway` for what a killed mosquitto may forget, and what a gateway
does about it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.chaos.rig import Kind, Report, Rig

KINDS: tuple[Kind, ...] = ("service", "mongod", "mosquitto")

RATE = 600.0


@pytest.mark.chaos
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("kind", "seed"), [("service", 1), ("mongod", 2), ("mosquitto", 3)])
async def test_kills_lose_and_double_nothing(
    kind: Kind, seed: int, tmp_path: Path, long: bool, reports: list[Report]
) -> None:
    report = Report(kind)
    reports.append(report)
    async with Rig.running(tmp_path, seed, rate=RATE) as rig:
        for kill in range(20 if long else 3):
            # In the short form kills follow each other, so that some hit the recovery from the one before.
            await asyncio.sleep(rig.random.uniform(0.2, 3.0))
            killed = await rig.kill(kind, away=rig.random.uniform(0.0, 1.0))
            report.kills += 1
            if long or kill != 1:
                report.recover.append(await rig.recovered(killed))
            if long and kill % 4 == 3:
                await asyncio.sleep(rig.random.uniform(0.0, 1.0))
                await rig.check(report)
        if long:
            for _ in range(5):
                await asyncio.sleep(rig.random.uniform(0.1, 1.5))
                await rig.kill(kind, away=0.0)
                report.kills += 1
        await asyncio.sleep(0.5)
        await rig.check(report)
        assert report.readings > 300
        assert await rig.service.stop() == 0


@pytest.mark.chaos
@pytest.mark.timeout(1800)
async def test_whatever_goes_wrong(tmp_path: Path, long: bool, reports: list[Report]) -> None:
    """Kills, frozen processes, cut and slow connections, in random order and on top of each other."""
    report = Report("mixed")
    reports.append(report)
    async with Rig.running(tmp_path, 4, rate=RATE) as rig:
        chance = rig.random
        for round_ in range(70 if long else 8):
            kind = chance.choice(KINDS)
            peer = chance.choice(KINDS[1:])
            what = chance.choice(["kill", "kill", "freeze", "cut", "slow"])
            await asyncio.sleep(chance.uniform(0.0, 1.0))
            if what == "kill" or (not long and round_ < 3):
                began = await rig.kill(kind, away=chance.uniform(0.0, 0.5))
                report.kills += 1
            elif what == "freeze":
                began = await rig.freeze(kind, chance.uniform(0.5, 3.0))
            elif what == "cut":
                began = await rig.cut(peer, chance.uniform(0.2, 2.0))
            else:
                began = await rig.slow(peer, chance.uniform(0.5, 2.0))
            if chance.random() < 0.5:
                report.recover.append(await rig.recovered(began))
            if long and round_ % 10 == 9:
                await rig.check(report)
        await rig.check(report)
        assert report.kills >= 3
        assert await rig.service.stop() == 0
