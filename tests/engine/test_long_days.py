"""Days of a house at a high rate, over a change of clock and the end of a month, against plain loops over its readings.

The power has gaps and unknown readings; two new meters come, one that begins at 0 and one that goes on from where it
stood elsewhere. `benchmarks/year.py` does the same with a year of a reading a second.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime
from fractions import Fraction
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from hs_stream.core.time import format_time, to_ms
from hs_stream.engine.ports import Delivery, Reading
from hs_stream.service.workflows.file import parse_workflow
from hs_stream.testing.clock import VirtualClock

from .conftest import REGISTRY, START, Bench

BERLIN = ZoneInfo("Europe/Berlin")
SECOND, MINUTE, HOUR = 1000, 60_000, 3_600_000
BEGIN, END = (to_ms(datetime(2025, month, day, tzinfo=BERLIN)) for month, day in ((3, 29), (4, 2)))
MIDNIGHTS = [to_ms(datetime(2025, *day, tzinfo=BERLIN)) for day in ((3, 30), (3, 31), (4, 1), (4, 2))]
APRIL = MIDNIGHTS[2]
NEW, OTHER = BEGIN + 30 * HOUR + 7 * MINUTE, BEGIN + 71 * HOUR + 12 * MINUTE
Totals = dict[int, Fraction]

WORKFLOW = """
workflow: days
online: true
plates: {band: {values: [day, night]}}
sources:
  power: {kind: state, unit: W}
  meter: {kind: counter, unit: kWh}
  price: {kind: state, unit: EUR/kWh}
nodes:
  used_hour: {tool: integral@^2, from: power, with: {unit: 1h, scale: 0.001, period: hour, max_age: 10m}}
  used_day:
    tool: integral@^2
    from: power
    with: {unit: 1h, scale: 0.001, period: day, tz: Europe/Berlin, max_age: 10m}
  used_month: {tool: sliding_sum@^2, from: used_hour, with: {period: month, tz: Europe/Berlin}}
  meter_day: {tool: utility_meter@^2, from: meter, with: {period: day, tz: Europe/Berlin, segments: [OTHER]}}
  meter_month: {tool: utility_meter@^2, from: meter, with: {period: month, tz: Europe/Berlin, segments: [OTHER]}}
  used_band:
    tool: expression@^1
    from: used_hour
    with: {expression: "'day' if 7 <= local(time, 'Europe/Berlin', 'before').hour < 22 else 'night'"}
  kwh_and_band: {tool: aligned_merge@^1, from: [used_hour, used_band], with: {names: [kwh, band]}}
  band_hour: {tool: splitter@^1, from: kwh_and_band, into: band, with: {element: band}}
  band_kwh: {tool: component@^1, from: band_hour, with: {key: kwh}}
  band_day: {tool: sliding_sum@^2, from: band_kwh, with: {period: day, tz: Europe/Berlin}}
  priced: {tool: as_of_join@^2, from: [used_hour, price], with: {names: [kwh, eur], strict: true}}
  cost: {tool: expression@^1, from: priced, with: {expression: kwh * eur}}
  cost_day: {tool: sliding_sum@^2, from: cost, with: {period: day, tz: Europe/Berlin}}
"""


def power(rng: random.Random) -> dict[int, int | None]:
    """Tenths of a watt, each ten seconds; away for hours, once over midnight, and unknown for minutes."""
    gaps = [(BEGIN + 5 * HOUR, 90 * MINUTE), (MIDNIGHTS[0] - HOUR, 5 * HOUR), (BEGIN + 50 * HOUR, 13 * MINUTE)]
    lost = [(BEGIN + rng.randrange(90) * HOUR, rng.randrange(1, 40) * MINUTE) for _ in range(4)]
    found: dict[int, int | None] = {}
    level = 3000
    for time in range(BEGIN + 10 * SECOND, END + 1, 10 * SECOND):
        level = rng.randrange(1000, 25_000) if rng.random() < 0.01 else level
        if not any(begin < time <= begin + length for begin, length in gaps):
            unknown = rng.random() < 1e-3 or any(begin < time <= begin + length for begin, length in lost)
            found[time] = None if unknown else level + rng.randrange(-300, 300)
    return found


def meter(rng: random.Random) -> dict[int, int | None]:
    """Wh, each five minutes."""
    found: dict[int, int | None] = {}
    level = 5_000_000
    for time in range(BEGIN + 7 * SECOND, END + 1, 5 * MINUTE):
        if time - 5 * MINUTE < NEW <= time:
            level = 3
        elif time - 5 * MINUTE < OTHER <= time:
            level = 48_211_370
        level += rng.randrange(0, 90)
        if not NEW - 2 * HOUR < time < NEW and not OTHER - HOUR < time < OTHER:
            found[time] = None if rng.random() < 0.01 else level
    return found


def used_by_hour(readings: dict[int, int | None]) -> Totals:
    """kWh by the end of the hour: each known reading holds until the next one, for 10 minutes at the most."""
    times, found = list(readings), Totals()
    for time, following in zip(times, [*times[1:], END + HOUR], strict=True):
        tenths = readings[time]
        if tenths is None:
            continue
        found.setdefault(-(-time // HOUR) * HOUR, Fraction(0))
        at, until = time, min(following, time + 10 * MINUTE)
        while at < until:
            end = (at // HOUR + 1) * HOUR
            part = Fraction(tenths * (min(until, end) - at), 10 * 1000 * HOUR)
            found[end] = found.get(end, Fraction(0)) + part
            at = end
    return {hour: kwh for hour, kwh in found.items() if hour <= END}


def day_of(time: int) -> int:
    return next(midnight for midnight in MIDNIGHTS if time <= midnight)


def summed(values: Totals, cell: Callable[[int], int | None]) -> Totals:
    found = Totals()
    for time, value in values.items():
        if (end := cell(time)) is not None:
            found[end] = found.get(end, Fraction(0)) + value
    return found


def increases(readings: dict[int, int | None]) -> Totals:
    """kWh by the time of the later reading. Of a meter that began at 0 what it shows, of another one nothing."""
    kept = [(time, Fraction(value / 1000)) for time, value in readings.items() if value is not None]
    found = {kept[0][0]: Fraction(0)}
    for (before, was), (time, now) in pairwise(kept):
        found[time] = Fraction(0) if before < OTHER <= time else now if before < NEW <= time else now - was
    return found


def month_of(time: int) -> int | None:
    return APRIL if time <= APRIL else None


@pytest.mark.parametrize("seed", [1, 2])
async def test_totals_of_days_are_those_of_plain_loops_also_after_corrections(bench: Bench, seed: int) -> None:
    rng = random.Random(seed)
    watts, counter = power(rng), meter(rng)
    prices = {time: rng.randrange(500, 4500) for time in range(BEGIN, END, HOUR) if time == BEGIN or rng.random() > 0.1}
    bench.clock = VirtualClock(BEGIN)
    await bench.start(parse_workflow(WORKFLOW.replace("OTHER", f'"{format_time(OTHER)}"'), REGISTRY))

    def read(source: str, time: int, value: int | None, unit: int) -> Reading:
        return Reading(source, (), time, None if value is None else value / unit)

    rows = [read("power", time, value, 10) for time, value in watts.items()]
    rows += [read("meter", time, value, 1000) for time, value in counter.items()]
    rows += [read("price", time, value, 10_000) for time, value in prices.items()]
    rows.sort(key=lambda row: row.time)
    for at in range(0, len(rows), 700):
        some = rows[at : at + 700]
        bench.clock.advance(max(some[-1].time - bench.clock.now(), 0))
        await bench.engine.deliver(Delivery(some, [], bench.clock.now(), lambda: None))
        await bench.engine.settle()
    await bench.pass_time(HOUR)

    async def check(name: str, expected: Totals, *, exactly: bool = False) -> None:
        stored = {START + time: value for time, value in (await bench.contents(name)).items() if START + time <= END}
        right = {time: float(value) for time, value in expected.items()}
        assert stored == (right if exactly else pytest.approx(right, rel=1e-14)), name

    async def check_all() -> None:
        hours = used_by_hour(watts)
        await check("used_hour", hours)
        await check("used_day", summed(hours, day_of))
        await check("used_month", summed(hours, month_of))
        await check("meter_day", summed(increases(counter), day_of), exactly=True)
        await check("meter_month", summed(increases(counter), month_of), exactly=True)
        for band in ("day", "night"):
            bands = {
                end: kwh
                for end, kwh in hours.items()
                if (7 <= datetime.fromtimestamp((end - HOUR) / 1000, BERLIN).hour < 22) is (band == "day")
            }
            await check(f"band_day[band={band}]", summed(bands, day_of))
        holds = {end: max(time for time in prices if time < end) for end in hours}
        cost = {end: kwh * Fraction(prices[holds[end]], 10_000) for end, kwh in hours.items()}
        await check("cost_day", summed(cost, day_of))

    async def correct(late: Reading) -> None:
        await bench.engine.deliver(Delivery([late], [], bench.clock.now(), lambda: None))
        await bench.engine.settle()

    await check_all()
    time = rng.choice(list(prices))
    prices[time] += 3000
    await correct(read("price", time, prices[time], 10_000))
    await check_all()
    time = rng.choice([time for time, value in watts.items() if value is not None])
    watts[time] = 99_999
    await correct(read("power", time, 99_999, 10))
    await check_all()
    time = BEGIN + 33 * HOUR + 7 * SECOND
    counter = dict(sorted((counter | {time: None}).items()))
    await correct(read("meter", time, None, 1000))
    await check_all()
    assert (await bench.verify()).clean
