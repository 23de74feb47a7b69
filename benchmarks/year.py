"""``python -m benchmarks.year [--quick] [--days N] [--power] [--profile]``: a year of a house, on request.

A power in W each second (3.15 x 10^7 readings) with gaps, unknown readings and outages; a counter in kWh each minute
with two new meters; a price for each hour. What comes out per hour, day and month on the clock of Berlin, by tariff
bands and at the price of each hour, is compared with what numpy finds in whole numbers, by the definitions alone. Then
a price of three months ago is corrected: how long until everything is right again?
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from benchmarks.steady.report import described, machine, save, table
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, format_time
from hs_stream.core.value import Value
from hs_stream.engine.engine import Engine, EngineSettings
from hs_stream.engine.ports import Delivery, Reading, Store
from hs_stream.plugins import default_registry
from hs_stream.service.workflows.file import parse_workflow
from hs_stream.store.memory import MemoryStore
from hs_stream.store.sqlite import SqliteStore
from hs_stream.testing.clock import VirtualClock

Ints = npt.NDArray[np.int64]

BERLIN: Final = ZoneInfo("Europe/Berlin")
SECOND, MINUTE, HOUR = 1000, 60_000, 3_600_000
_SEED: Final = 20250101
_CHUNK: Final = 5_000
_BELIEVED: Final = 10 * MINUTE
_TENTHS: Final = 10 * 1000 * 3_600_000
"""So many tenths of a watt for a millisecond are one kWh."""
_CLOSE: Final = 2.0**-48
"""Relative: what a few roundings of floats may make of it. What is added exactly has to be equal."""

WORKFLOW: Final = """
workflow: year
online: false
plates: {band: {values: [day, night, weekend]}}
sources:
  power: {kind: state, unit: W}
  meter: {kind: counter, unit: kWh}
  price: {kind: state, unit: EUR/kWh}
nodes:
  # by the power
  used_hour: {tool: integral@^2, from: power, with: {unit: 1h, scale: 0.001, period: hour, tz: ZONE, max_age: 10m}}
  used_day: {tool: integral@^2, from: power, with: {unit: 1h, scale: 0.001, period: day, tz: ZONE, max_age: 10m}}
  used_month: {tool: sliding_sum@^2, from: used_hour, with: {period: month, tz: ZONE}}
  # by the counter
  meter_hour: {tool: utility_meter@^2, from: meter, with: {period: hour, tz: ZONE, segments: ["SEGMENT"]}}
  meter_day: {tool: utility_meter@^2, from: meter, with: {period: day, tz: ZONE, segments: ["SEGMENT"]}}
  meter_month: {tool: utility_meter@^2, from: meter, with: {period: month, tz: ZONE, segments: ["SEGMENT"]}}
  # bands
  used_band:
    tool: expression@^1
    from: used_hour
    with:
      expression: >-
        'weekend' if weekday(local(time, 'ZONE', 'before')) >= 5
        else 'day' if 7 <= local(time, 'ZONE', 'before').hour < 22 else 'night'
  band_price: {tool: expression@^1, from: used_band, with: {expression: "0.34 if value == 'day' else 0.26"}}
  band_cost: {tool: expression@^1, from: [used_hour, band_price], with: {expression: a * b}}
  band_cost_day: {tool: sliding_sum@^2, from: band_cost, with: {period: day, tz: ZONE}}
  band_cost_month: {tool: sliding_sum@^2, from: band_cost, with: {period: month, tz: ZONE}}
  kwh_and_band: {tool: aligned_merge@^1, from: [used_hour, used_band], with: {names: [kwh, band]}}
  band_hour: {tool: splitter@^1, from: kwh_and_band, into: band, with: {element: band}}
  band_kwh: {tool: component@^1, from: band_hour, with: {key: kwh}}
  band_month: {tool: sliding_sum@^2, from: band_kwh, with: {period: month, tz: ZONE}}
  # the price of each hour
  priced_hour: {tool: as_of_join@^2, from: [used_hour, price], with: {names: [kwh, eur], strict: true}}
  spot_cost: {tool: expression@^1, from: priced_hour, with: {expression: kwh * eur}}
  spot_cost_day: {tool: sliding_sum@^2, from: spot_cost, with: {period: day, tz: ZONE}}
  spot_cost_month: {tool: sliding_sum@^2, from: spot_cost, with: {period: month, tz: ZONE}}
"""
_BANDS: Final = ("day", "night", "weekend")
_TARGETS: Final = (
    *("used_hour", "used_day", "used_month", "meter_hour", "meter_day", "meter_month", "band_cost_day"),
    *("band_cost_month", *(f"band_month[band={band}]" for band in _BANDS), "spot_cost_day", "spot_cost_month"),
)
_EXACT: Final = ("meter_hour", "meter_day", "meter_month")


# --- the house ---


@dataclass(frozen=True)
class House:
    """What it says in ``days`` days from ``begin`` on: per stream the times and the values.

    ``tenths`` of a watt, -1 where the power is unknown; the counter in whole Wh, -1 where it is unknown; prices in
    hundredths of a cent. ``segment``: when the last meter was put in, which goes on from where it stood elsewhere.
    """

    begin: int
    end: int
    segment: int
    power_times: Ints
    tenths: Ints
    meter_times: Ints
    watt_hours: Ints
    price_times: Ints
    prices: Ints

    @classmethod
    def of(cls, days: int, step: int = SECOND) -> House:
        """Always the same one."""
        random = np.random.default_rng(_SEED)
        first = datetime(2025, 1, 1, tzinfo=BERLIN) if days >= 300 else datetime(2025, 3, 25, tzinfo=BERLIN)
        begin, end = _ms(first), _ms(first + timedelta(days=days))
        times = np.arange(begin + step, end + 1, step)
        tenths = np.concatenate([_drawn(random, min(86_400, len(times) - at)) for at in range(0, len(times), 86_400)])
        counted = np.cumsum(tenths * step)
        # Each fourth day the power is away for some hours, each second one unknown for minutes, and once in a while.
        there = np.ones(len(times), np.bool_)
        for low, high in _spans(random, days // 4 + 1, begin, end, 20 * MINUTE, 9 * HOUR):
            there &= (times <= low) | (times > high)
        lost = random.random(len(times)) < 5e-5
        for low, high in _spans(random, days // 2 + 1, begin, end, 2 * MINUTE, 40 * MINUTE):
            lost |= (times > low) & (times <= high)
        said = np.where(lost, -1, tenths)[there]
        # The counter, of 5000 kWh; a third of the time later one of 0, and then one that has 48211.
        minutes = np.arange(begin + 7 * SECOND, end + 1, MINUTE)
        used = counted[np.maximum(times.searchsorted(minutes, "right") - 1, 0)] * 1000 // _TENTHS
        new, other = minutes[len(minutes) // 3], minutes[len(minutes) * 2 // 3]
        hours = used + 5_000_000
        for changed, level in ((new, 0), (other, 48_211_370)):
            at = int(minutes.searchsorted(changed))
            hours[at:] = used[at:] - used[at] + level
        kept = np.ones(len(minutes), np.bool_)
        outages = _spans(random, days // 30 + 1, begin, end, 3 * HOUR, 40 * HOUR)
        for low, high in (*outages, (int(new) - 3 * HOUR, int(new)), (int(other) - HOUR, int(other))):
            kept &= (minutes <= low) | (minutes > high)
        hours[random.random(len(hours)) < 1e-3] = -1
        prices = np.arange(begin, end, HOUR)
        sent = random.random(len(prices)) > 0.01
        sent[0] = True
        quoted = random.integers(500, 4500, len(prices))
        return cls(
            *(begin, end, int(other), times[there], said, minutes[kept], hours[kept], prices[sent], quoted[sent])
        )

    def readings(self) -> Iterator[list[Reading]]:
        """In the order of time, some thousands at once."""
        for low, high in pairwise([*range(self.begin - 1, self.end, 86_400_000), self.end]):
            power, meter = self._part("power", low, high), self._part("meter", low, high)
            some = [*power, *meter, *self._part("price", low, high)]
            some.sort(key=lambda reading: reading.time)
            yield from (some[at : at + _CHUNK] for at in range(0, len(some), _CHUNK))

    def _part(self, source: str, low: int, high: int) -> list[Reading]:
        times, values, unit = {
            "power": (self.power_times, self.tenths, 10),
            "meter": (self.meter_times, self.watt_hours, 1000),
            "price": (self.price_times, self.prices, 10_000),
        }[source]
        first, last = times.searchsorted((low, high), "right").tolist()
        pairs = zip(times[first:last].tolist(), values[first:last].tolist(), strict=True)
        return [Reading(source, (), at, None if value < 0 else value / unit) for at, value in pairs]

    @property
    def count(self) -> int:
        """Readings."""
        return len(self.power_times) + len(self.meter_times) + len(self.price_times)


def _ms(local: datetime) -> int:
    return round(local.timestamp() * 1000)


def _drawn(random: np.random.Generator, count: int) -> Ints:
    """What some hours draw, in tenths of a watt: a base, what is on for minutes, and noise."""
    on = np.where(random.random(count // 300 + 1) < 0.4, random.integers(400, 25_000, count // 300 + 1), 0)
    found: Ints = 1500 + np.repeat(on, 300)[:count] + random.integers(-300, 300, count)
    return found


def _spans(
    random: np.random.Generator, count: int, begin: int, end: int, shortest: int, longest: int
) -> list[tuple[int, int]]:
    lows = random.integers(begin + HOUR, end - HOUR, count)
    highs = lows + random.integers(shortest, longest, count)
    return list(zip(lows.tolist(), highs.tolist(), strict=True))


# --- what has to come out, by the definitions ---


def marks(house: House, period: str) -> list[int]:
    """The begins of the hours, days or months of Berlin from ``begin`` to ``end``; the first is ``begin`` itself."""
    if period == "hour":
        return list(range(house.begin, house.end + 1, HOUR))
    day, last = datetime.fromtimestamp(house.begin / 1000, BERLIN), datetime.fromtimestamp(house.end / 1000, BERLIN)
    found = [day]
    while found[-1] < last:
        found.append(found[-1] + timedelta(days=1))
    return [house.begin, *(_ms(one) for one in found[1:] if period == "day" or one.day == 1)]


def energy(house: House, period: str) -> dict[int, Fraction]:
    """kWh by the end of the period: a reading holds until the next one, or for 10 minutes. Nothing known: no total."""
    times, known = house.power_times, house.tenths >= 0
    rate = np.where(known, house.tenths, 0)
    lasts = np.minimum(np.diff(times, append=MAX_TIME), _BELIEVED)
    before = np.concatenate(([0], np.cumsum(rate * lasts)))
    heard = np.concatenate(([0], np.cumsum(known)))

    def until(instant: int) -> tuple[int, int]:
        at = int(times.searchsorted(instant, "right")) - 1
        if at < 0:
            return 0, 0
        return int(before[at]) + int(rate[at]) * min(instant - int(times[at]), int(lasts[at])), int(heard[at + 1])

    edges = marks(house, period)
    sums = [until(edge) for edge in edges]
    return {
        end: Fraction(after - start, _TENTHS)
        for end, (start, some), (after, more) in zip(edges[1:], sums, sums[1:], strict=False)
        if after > start or more > some
    }


def counted(house: House, period: str) -> dict[int, Fraction]:
    """kWh by the end of the period, each increase of that of the later reading; of floats, exactly."""
    kept = house.watt_hours >= 0
    times, values = house.meter_times[kept], [Fraction(value / 1000) for value in house.watt_hours[kept].tolist()]
    edges = marks(house, period)
    cells = np.array(edges[1:]).searchsorted(times, "left").tolist()
    # What comes after the last reading nobody knows yet.
    found = {end: Fraction(0) for end in edges[1 + cells[0] : 2 + cells[-1]]}
    for at in range(1, len(values)):
        if cells[at] >= len(edges) - 1:
            break
        if times[at - 1] < house.segment <= times[at]:
            continue  # another meter, of which only this is known
        before, after = values[at - 1], values[at]
        # What fell to less than a tenth began again at 0.
        found[edges[cells[at] + 1]] += after if after < before / 10 else after - before
    return found


def band_of(end: int) -> str:
    """The band of the hour that ends."""
    begin = datetime.fromtimestamp((end - HOUR) / 1000, BERLIN)
    return "weekend" if begin.weekday() >= 5 else "day" if 7 <= begin.hour < 22 else "night"


def summed(house: House, hours: Mapping[int, Fraction], period: str) -> dict[int, Fraction]:
    """What is of the hours of each period; none where there is no hour."""
    edges, found = np.array(marks(house, period)[1:]), dict[int, Fraction]()
    for end, value in hours.items():
        at = int(edges.searchsorted(end, "left"))
        if at < len(edges):
            found[int(edges[at])] = found.get(int(edges[at]), Fraction(0)) + value
    return found


def expected(house: House) -> dict[str, dict[int, Fraction]]:
    """All of it."""
    hours = energy(house, "hour")
    band_cost = {
        end: kwh * (Fraction(34, 100) if band_of(end) == "day" else Fraction(26, 100)) for end, kwh in hours.items()
    }
    price_at = house.price_times.searchsorted(list(hours), "left") - 1
    spot = {
        end: kwh * Fraction(int(house.prices[at]), 10_000)
        for (end, kwh), at in zip(hours.items(), price_at.tolist(), strict=True)
    }
    found = {
        "used_hour": hours,
        "used_day": energy(house, "day"),
        "used_month": summed(house, hours, "month"),
        **{f"meter_{period}": counted(house, period) for period in ("hour", "day", "month")},
        **{f"band_cost_{period}": summed(house, band_cost, period) for period in ("day", "month")},
        **{f"spot_cost_{period}": summed(house, spot, period) for period in ("day", "month")},
    }
    for band in _BANDS:
        found[f"band_month[band={band}]"] = summed(
            house, {end: kwh for end, kwh in hours.items() if band_of(end) == band}, "month"
        )
    return found


@dataclass
class Compared:
    """``wrong`` are the first of ``differences``; ``farthest``: relative, of what is no difference."""

    results: int = 0
    differences: int = 0
    farthest: float = 0.0
    wrong: tuple[str, ...] = ()

    def add(self, name: str, time: int, value: Value, right: Fraction | None) -> None:
        """One result."""
        self.results += 1
        if value is not None and right is not None:
            away = abs(value - float(right)) / max(abs(float(right)), 1e-300) if value != float(right) else 0.0
            if away <= (0.0 if name in _EXACT else _CLOSE):
                self.farthest = max(self.farthest, away)
                return
        self.differences += 1
        said = None if right is None else float(right)
        self.wrong = (*self.wrong, f"{name} at {format_time(time)}: {value!r}, not {said!r}")[:10]


async def compare(engine: Engine, house: House) -> Compared:
    """Each result with what it has to be."""
    found = Compared()
    for name, right in expected(house).items():
        stored = dict(await engine.read(StreamId.parse(name), house.begin, house.end))
        for at in sorted({*stored, *right}):
            found.add(name, at, stored.get(at), right.get(at))
    return found


# --- the engine ---


class Year:
    """One store, and engines over it, one after the other."""

    def __init__(self, house: House, directory: Path | None) -> None:
        self.house = house
        self.rss = 0.0
        """MB of memory at the most so far."""
        self._directory = directory
        self._memory = MemoryStore()
        text = WORKFLOW.replace("ZONE", BERLIN.key).replace("SEGMENT", format_time(house.segment))
        self._workflow = parse_workflow(text, default_registry())
        self._clock = VirtualClock(house.end + HOUR)

    def _store(self) -> Store:
        return self._memory if self._directory is None else SqliteStore(self._directory / "year.db")

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[Engine]:
        """One that nobody runs, some time after the last reading."""
        settings = EngineSettings(max_in_flight=1 << 20, max_future=1 << 40)
        engine = Engine(self._store(), clock=self._clock, settings=settings)
        await engine.open([self._workflow])
        try:
            yield engine
        finally:
            await engine.stop()
            await engine.close()

    async def fill(self, engine: Engine) -> None:
        """Store all readings; nobody has asked for anything yet."""
        for some in self.house.readings():
            await engine.deliver(Delivery(some, [], self._clock.now(), lambda: None, asked=True))
            await engine.settle()
            self._look()

    async def compute(self, engine: Engine) -> None:
        """What ``hs-stream compute`` does."""
        targets = [StreamId.parse(name) for name in _TARGETS]
        await engine.compute(targets, self.house.begin, self.house.end, lambda *_: self._look(), complete=True)

    def _look(self) -> None:
        self.rss = max(self.rss, _rss())

    async def correct(self, engine: Engine, source: str, at: int, value: float) -> float:
        """Milliseconds from a late reading until everything is right."""
        began = time.perf_counter()
        refused = await engine.take([Reading(source, (), at, value)])
        await engine.settle()
        if refused:
            raise RuntimeError(str(refused))
        return (time.perf_counter() - began) * 1000

    def keep(self, engine: Engine) -> None:
        """From now on all of it is kept right, as of a workflow that is online."""
        for name in _TARGETS:
            engine.want(StreamId.parse(name), self.house.begin)


async def correct(year: Year, engine: Engine, runs: int, *, power: bool) -> dict[str, list[float]]:
    """Prices of a quarter of the time before the end, one after the other; and readings of the ``power``."""
    house, found = year.house, {"price": list[float](), **({"power": list[float]()} if power else {})}
    year.keep(engine)
    await engine.settle()
    back = house.end - (house.end - house.begin) // 4
    for run in range(runs):
        at = int(house.price_times.searchsorted(back + run * HOUR))
        house.prices[at] += 1000
        when, price = int(house.price_times[at]), int(house.prices[at]) / 10_000
        found["price"].append(await year.correct(engine, "price", when, price))
    for run in range(runs if power else 0):
        at = int(house.power_times.searchsorted(back + run * HOUR))
        house.tenths[at] += 10_000
        when, watts = int(house.power_times[at]), int(house.tenths[at]) / 10
        found["power"].append(await year.correct(engine, "power", when, watts))
    return found


def _rss() -> float:
    """MB of memory right now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def _size(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.iterdir())


async def measure(house: House, directory: Path | None, runs: int, *, power: bool) -> dict[str, Any]:
    """All of it; plain data."""
    year = Year(house, directory)
    seconds: dict[str, float] = {}
    made = {"readings": house.count, "rss_before": _rss(), "seconds": seconds}
    async with year.engine() as engine:
        began = time.perf_counter()
        await year.fill(engine)
        seconds["store"] = time.perf_counter() - began
        print(f"stored in {seconds['store']:.1f} s, {year.rss:.0f} MB", flush=True)
        began = time.perf_counter()
        await year.compute(engine)
        seconds["compute"] = time.perf_counter() - began
        print(f"computed in {seconds['compute']:.1f} s, {year.rss:.0f} MB", flush=True)
        made["rss"] = year.rss
        made["compared"] = vars(await compare(engine, house))
        made["late"] = await correct(year, engine, runs, power=power)
        made["compared_after"] = vars(await compare(engine, house))
    if directory is not None:
        made["bytes"] = _size(directory)
        async with year.engine() as engine:
            made["late_after_start"] = await correct(year, engine, runs, power=power)
            made["compared_after_start"] = vars(await compare(engine, house))
    return made


def shown(found: dict[str, Any]) -> str:
    """For people."""
    readings, seconds = found["readings"], found["seconds"]
    rows = [
        ["readings", f"{readings:,}"],
        ["stored, s", f"{seconds['store']:.1f} ({readings / seconds['store']:,.0f} readings/s)"],
        ["computed, s", f"{seconds['compute']:.1f} ({readings / seconds['compute']:,.0f} readings/s)"],
        ["most memory, MB", f"{found['rss']:.0f}; {found['rss_before']:.0f} of them with the readings to send, before"],
        ["stored bytes", f"{found.get('bytes', 0):,}"],
    ]
    for key, when in (("compared", "computed"), ("compared_after", "corrected"), ("compared_after_start", "cold")):
        if one := found.get(key):
            told = f"{one['differences']} of {one['results']:,} results (farthest of the others {one['farthest']:.1e})"
            rows.append([f"differences, {when}", told])
    for key, when in (("late", ""), ("late_after_start", " after a start")):
        for source, times in found.get(key, {}).items():
            label = f"a {source} corrected{when}, ms"
            rows.append([label, f"{median(times):.0f} ({min(times):.0f} to {max(times):.0f})"])
    wrong = [
        line
        for key in ("compared", "compared_after", "compared_after_start")
        for line in found.get(key, {}).get("wrong", ())
    ]
    return "\n".join([table(["what", "measured"], rows), *wrong])


def main() -> None:
    """Measure, print, and save to ``benchmarks/results``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10 days")
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--runs", type=int, default=5, help="corrections of each kind")
    parser.add_argument("--power", action="store_true", help="correct readings of the power too")
    parser.add_argument("--store", choices=("sqlite", "memory"), default="sqlite")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    where = machine()
    house = House.of(10 if options.quick else options.days)
    profile = cProfile.Profile()
    with tempfile.TemporaryDirectory(prefix="hs-stream-benchmark-") as name:
        work = measure(house, None if options.store == "memory" else Path(name), options.runs, power=options.power)
        found = profile.runcall(asyncio.run, work) if options.profile else asyncio.run(work)
    if options.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(40)
    print(described(where))
    print(shown(found))
    save({"machine": where, **found}, "year")


if __name__ == "__main__":
    main()
