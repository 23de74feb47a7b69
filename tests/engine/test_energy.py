"""config/workflows/energy.yaml over two local days, one of them of 25 hours, against plain loops."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from hs_stream.core.time import to_ms
from hs_stream.engine.ports import Delivery, Reading
from hs_stream.service.workflows.file import load_workflow
from hs_stream.testing.clock import VirtualClock

from .conftest import REGISTRY, START, Bench

WORKFLOW = Path(__file__).resolve().parents[2] / "config" / "workflows" / "energy.yaml"
BRUSSELS = ZoneInfo("Europe/Brussels")
FIRST, SECOND, THIRD = (to_ms(datetime(2020, 10, day, tzinfo=BRUSSELS)) for day in (24, 25, 26))
MINUTE = 60_000


async def test_energy_of_a_weekend_with_an_outage(bench: Bench) -> None:
    """A plug that draws 600 W; without power from 20:00 to 21:00 on the first day, and its counter at 0 after that."""
    bench.clock = VirtualClock(FIRST)
    await bench.start(load_workflow(WORKFLOW, REGISTRY))
    off, on = FIRST + 20 * 60 * MINUTE, FIRST + 21 * 60 * MINUTE
    counted, restarted = 0.0, FIRST
    for time in range(FIRST + 30_000, THIRD, 30_000):
        if off <= time < on:
            continue
        if time >= on and restarted < on:
            restarted = on - 30_000
        counted = 600 * (time - restarted) / MINUTE
        plug = (("plug", "washer"),)
        bench.clock.advance(time - bench.clock.now())
        readings = [Reading("plug_power", plug, time, 600.0), Reading("plug_energy", plug, time, round(counted))]
        await bench.engine.deliver(Delivery(readings, [], time, lambda: None))
    await bench.engine.settle()
    await bench.pass_time(MINUTE)

    first, second = FIRST - START + 86_400_000, THIRD - START
    assert second - first == 25 * 60 * MINUTE
    hours = {first: 23.0, second: 25.0}
    by_counter = await bench.contents("plug_kwh_day[plug=washer]")
    by_power = await bench.contents("plug_sum_day[plug=washer]")
    assert list(by_counter) == list(by_power) == [first, second]
    for midnight, expected in hours.items():
        # What lies between an outage and the reading before or after it is not measured: half a minute each.
        assert by_counter[midnight] == pytest.approx(0.6 * expected, abs=0.6 / 60)
        assert by_power[midnight] == pytest.approx(0.6 * expected, abs=0.6 / 60)
    assert await bench.contents("plugs_kwh_day") == by_counter
    today = await bench.contents("plug_kwh_today[plug=washer]")
    assert today[max(today)] == by_counter[second]
    assert await bench.contents("plug_kwh_month[plug=washer]") == {}

    changes = await bench.contents("plug_offline[plug=washer]")
    assert {START + time: value for time, value in changes.items()} == {
        FIRST + MINUTE: False,
        off + 5 * MINUTE: True,
        on: False,
    }
    assert (await bench.verify()).clean
