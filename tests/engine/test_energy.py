"""config/workflows/energy.yaml over local days, one of them of 25 hours, against plain loops."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
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
    by_counter = await bench.contents("plug_day[plug=washer]")
    by_power = await bench.contents("plug_day_by_power[plug=washer]")
    assert list(by_counter) == list(by_power) == [first, second]
    for midnight, expected in hours.items():
        # What lies between an outage and the reading before or after it is not measured: half a minute each.
        assert by_counter[midnight] == pytest.approx(0.6 * expected, abs=0.6 / 60)
    # The last word before the outage, half a minute before it, is believed for 5 minutes. The first word ever was late.
    assert by_power == pytest.approx({first: 0.6 * (23 + 4.5 / 60 - 0.5 / 60), second: 0.6 * 25})
    assert await bench.contents("plugs_day") == by_counter
    today = await bench.contents("plug_today[plug=washer]")
    assert today[max(today)] == by_counter[second]
    assert await bench.contents("plug_month[plug=washer]") == {}

    changes = await bench.contents("plug_offline[plug=washer]")
    assert {START + time: value for time, value in changes.items()} == {
        FIRST + MINUTE: False,
        off + 5 * MINUTE: True,
        on: False,
    }
    assert (await bench.verify()).clean


# --- the house ---

HOUR = 60 * MINUTE
LAST = to_ms(datetime(2020, 11, 2, 3, tzinfo=BRUSSELS))
"""It begins on Saturday, 24 October; so there are both ends of a weekend, a change of clock and the end of a month."""


def meter(seed: int) -> dict[int, float]:
    """A counter in Wh that is read at odd times, and not at all for five hours."""
    random = np.random.default_rng(seed)
    times = np.cumsum(random.integers(20 * MINUTE, 50 * MINUTE, 400)) + FIRST
    away = FIRST + 60 * HOUR
    kept = times[(times < LAST) & ~((away < times) & (times <= away + 5 * HOUR))]
    return dict(zip(kept.tolist(), (1e6 + np.cumsum(random.integers(0, 500, len(kept)))).tolist(), strict=True))


def local(time: int) -> datetime:
    return datetime.fromtimestamp(time / 1000, BRUSSELS)


def midnights() -> list[int]:
    days = [datetime(2020, 10, 24, tzinfo=BRUSSELS) + timedelta(days=day) for day in range(1, 10)]
    return [to_ms(day) for day in days]


def day_of(time: int) -> int:
    """The midnight that ends its day; of a midnight itself, that one."""
    return next(midnight for midnight in midnights() if time <= midnight)


def per_hour(counter: dict[int, float]) -> dict[int, float]:
    """kWh by the end of the hour, on the straight lines between readings."""
    times, totals = list(counter), list(counter.values())
    ends = range(-(-times[0] // HOUR) * HOUR, times[-1] + 1, HOUR)
    return {end: float(np.diff(np.interp([end - HOUR, end], times, totals))[0]) / 1000 for end in ends}


def per_day(counter: dict[int, float]) -> dict[int, float]:
    """kWh by midnight, each increase of the day of the later reading."""
    found = dict.fromkeys(midnights(), 0.0)
    for (_, before), (time, after) in zip(list(counter.items())[:-1], list(counter.items())[1:], strict=True):
        if time <= midnights()[-1]:
            found[day_of(time)] += (after - before) / 1000
    return found


def band_of(end: int) -> str:
    begin = local(end - HOUR)
    return "weekend" if begin.weekday() >= 5 else "day" if 7 <= begin.hour < 22 else "night"


def summed(hours: dict[int, float]) -> dict[int, float]:
    found = dict.fromkeys(midnights(), 0.0)
    for end, value in hours.items():
        if end <= midnights()[-1]:
            found[day_of(end)] += value
    return found


def price_at(begin: int) -> float:
    return 0.2 + 0.01 * (begin // HOUR % 24)


async def test_what_the_house_takes_gives_and_costs(bench: Bench) -> None:
    """Totals, bands, a price for each hour, one that is corrected nine days later, feed-in and the standing charge."""
    bench.clock = VirtualClock(FIRST)
    await bench.start(load_workflow(WORKFLOW, REGISTRY))
    taken, given = meter(1), meter(2)
    rows: list[tuple[int, str, Any]] = [(time, "grid_taken", value) for time, value in taken.items()]
    rows += [(time, "grid_given", value) for time, value in given.items()]
    rows += [(begin, "grid_price", {"eur": price_at(begin)}) for begin in range(FIRST, LAST, HOUR)]
    for time, source, value in sorted(rows, key=lambda row: row[0]):
        bench.clock.advance(time - bench.clock.now())
        await bench.engine.deliver(Delivery([Reading(source, (), time, value)], [], time, lambda: None))
    await bench.engine.settle()
    await bench.pass_time(MINUTE)

    async def contents(name: str) -> dict[int, Any]:
        return {START + time: value for time, value in (await bench.contents(name)).items()}

    async def check(name: str, expected: dict[int, float]) -> None:
        assert await contents(name) == pytest.approx(expected), name

    hours = {end: kwh for end, kwh in per_hour(taken).items() if end <= LAST}
    november = to_ms(datetime(2020, 11, 1, tzinfo=BRUSSELS))
    band_cost = summed({end: kwh * (0.34 if band_of(end) == "day" else 0.26) for end, kwh in hours.items()})
    bill = {day: band_cost[day] - 0.08 * per_day(given)[day] + 0.45 for day in midnights()}
    await check("taken_day", per_day(taken))
    await check("given_day", per_day(given))
    await check("net_day", {day: per_day(taken)[day] - per_day(given)[day] for day in midnights()})
    await check("taken_month", {november: sum(kwh for day, kwh in per_day(taken).items() if day <= november)})
    await check("band_cost_day", band_cost)
    await check("bill_day", bill)
    await check("bill_month", {november: sum(cost for day, cost in bill.items() if day <= november)})
    for band in ("day", "night", "weekend"):
        kwh = sum(kwh for end, kwh in hours.items() if end <= november and band_of(end) == band)
        await check(f"band_month[band={band}]", {november: kwh})
    await check("spot_cost_day", summed({end: kwh * price_at(end - HOUR) for end, kwh in hours.items()}))

    wrong = FIRST + 12 * HOUR
    price = Reading("grid_price", (), wrong, {"eur": 0.9})
    await bench.engine.deliver(Delivery([price], [], bench.clock.now(), lambda: None))
    await bench.engine.settle()
    corrected = {end: kwh * (0.9 if end - HOUR == wrong else price_at(end - HOUR)) for end, kwh in hours.items()}
    await check("spot_cost_day", summed(corrected))
    assert (await bench.verify()).clean


def test_its_units_follow_from_what_the_meters_say() -> None:
    meanings = load_workflow(WORKFLOW, REGISTRY).meanings
    found = {name: (one.kind, one.unit) for name, one in meanings.items()}
    assert found["taken_hour"] == found["plug_day"] == found["plug_day_by_power"] == ("amount", "kWh")
    assert found["taken_today"] == ("counter", "kWh")
    assert found["band_cost_day"] == found["spot_cost_day"] == found["bill_month"] == ("amount", "EUR")
