"""What is measured. Every function returns plain data; nothing here prints."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final, Literal

import numpy as np

from benchmarks.steady.fill import fill
from benchmarks.steady.late import late_readings
from benchmarks.steady.parts import Contender, Cost, Parts

__all__ = ["FULL", "QUICK", "Size", "idle", "latency", "rate", "stored"]

ROOMS: Final = 50
STORES: Final[tuple[Literal["mongodb", "sqlite"], ...]] = ("mongodb", "sqlite")


@dataclass(frozen=True, slots=True)
class Size:
    """How much to measure. ``readings`` are per run; ``pause`` in seconds, longer than the service's ``idle`` of 10 s
    so that silent streams are settled before anything is measured."""

    runs: int
    readings: int
    flat_runs: int
    flat_readings: int
    latency_seconds: int
    stored: tuple[int, ...]
    idle: tuple[int, ...]
    pause: float


FULL: Final = Size(5, 60_000, 3, 30_000, 25, (1_000, 100_000, 10_000_000), (10, 1_000, 10_000), 12.0)
QUICK: Final = Size(1, 10_000, 1, 5_000, 5, (1_000, 100_000), (10, 1_000), 1.0)


@dataclass(frozen=True, slots=True)
class Run:
    """One saturated run. CPU in microseconds per reading; ``rss`` (MB) at its end."""

    rate: float
    cpu_us: float
    mongod_us: float
    rss: float


async def _warm_up(parts: Parts, contender: Contender) -> int:
    """Rooms are known, connections open, code is warm; returns how many instances there should be now."""
    before = contender.stored()
    result = await parts.load(contender, rooms=ROOMS, readings=20 * ROOMS)
    expected = before + result.sent * contender.per_reading
    await parts.until_stored(contender, expected)
    return expected


async def _saturate(parts: Parts, contender: Contender, readings: int) -> Run:
    there = await _warm_up(parts, contender)
    cost, mongod = contender.cost, Cost.of(parts.mongod.pid)
    result = await parts.load(contender, rooms=ROOMS, readings=readings)
    stored = await parts.until_stored(contender, there + result.sent * contender.per_reading)
    after = contender.cost
    return Run(
        rate=result.sent / (max(result.last, stored) - result.first),
        cpu_us=(after.cpu - cost.cpu) / result.sent * 1e6,
        mongod_us=(Cost.of(parts.mongod.pid).cpu - mongod.cpu) / result.sent * 1e6,
        rss=after.rss,
    )


def _summary(runs: list[Run]) -> dict[str, Any]:
    medians = {name: median(getattr(run, name) for run in runs) for name in ("rate", "cpu_us", "mongod_us")}
    return medians | {"rss": max(run.rss for run in runs), "runs": [asdict(run) for run in runs]}


# --- 1: rate ---


async def rate(parts: Parts, size: Size) -> dict[str, Any]:
    """The bare loop and the service in turn. ``ratio``: the median of the ratios of neighbours in time."""
    bare, ours = [], []
    for _ in range(size.runs):
        async with parts.bare_loop() as contender:
            bare.append(await _saturate(parts, contender, size.readings))
        database = parts.new_name("ours")
        async with parts.service(database) as contender:
            ours.append(await _saturate(parts, contender, size.readings))
        parts.drop(database)
    ratios = [one.rate / other.rate for one, other in zip(ours, bare, strict=True)]
    return {
        "readings": size.readings,
        "bare": _summary(bare),
        "ours": _summary(ours),
        "ratio": median(ratios),
        "ratios": ratios,
    }


# --- 2: latency ---


async def latency(parts: Parts, size: Size) -> dict[str, Any]:
    """Below saturation: of the bare loop, which writes to MongoDB, and of the service on either store, in turn."""
    runs: dict[tuple[int, str], list[dict[str, float]]] = {}
    for _ in range(size.flat_runs):
        for per_second in (1_000, 100):
            async with parts.bare_loop() as contender:
                one = await _paced(parts, contender, size.latency_seconds, per_second)
                runs.setdefault((per_second, "bare loop"), []).append(one)
            for store in STORES:
                database = parts.new_name("ours")
                async with parts.service(database, store=store) as contender:
                    one = await _paced(parts, contender, size.latency_seconds, per_second)
                    runs.setdefault((per_second, store), []).append(one)
                parts.drop(database)
    levels = [
        {"per_second": per_second, "who": who, "runs": found}
        | {key: median(one[key] for one in found) for key in found[0]}
        for (per_second, who), found in runs.items()
    ]
    return {"seconds": size.latency_seconds, "levels": levels}


async def _paced(parts: Parts, contender: Contender, seconds: int, per_second: int) -> dict[str, float]:
    await _warm_up(parts, contender)
    before = contender.cost
    result = await parts.load(
        contender, rooms=ROOMS, readings=(seconds + 1) * per_second, rate=float(per_second), warm_up=per_second
    )
    cpu = (contender.cost.cpu - before.cpu) / result.sent * 1e6
    values = np.array(result.latencies)
    p50, p90, p99 = np.percentile(values, (50, 90, 99)).tolist()
    return {
        "p50": p50,
        "p90": p90,
        "p99": p99,
        "max": float(values.max()),
        "readings": len(values),
        "behind": result.behind,
        "cpu_us": cpu,
    }


# --- 3: flat cost ---


async def stored(parts: Parts, size: Size) -> dict[str, Any]:
    """Rate and cost with so many instances in the store before the service starts; the levels take turns.

    ``late``: ms from one late reading in the middle of them to its published result (median of the rooms).
    """
    largest = max(size.stored)
    kept, seconds = "", 0.0
    runs: dict[int, list[Run]] = {count: [] for count in size.stored}
    starts: dict[int, list[float]] = {count: [] for count in size.stored}
    late: dict[int, list[float]] = {}
    for _ in range(size.flat_runs):
        for count in size.stored:
            if count != largest or not kept:
                database = parts.new_name("stored")
                began = time.monotonic()
                await _prepare(parts, database, count)
                seconds = max(seconds, time.monotonic() - began)
            else:
                database = kept
            kept = database if count == largest else kept
            async with parts.service(database) as contender:
                starts[count].append(contender.started_in)
                runs[count].append(await _saturate(parts, contender, size.flat_readings))
                if count not in late:
                    late[count] = await late_readings(parts.broker.port, parts.mongo[database], contender, count)
            if database != kept:
                parts.drop(database)
    parts.drop(kept)
    levels = [
        {"stored": count, "start": median(starts[count]), "late": median(late[count]), "latest": max(late[count])}
        | _summary(runs[count])
        for count in size.stored
    ]
    return {"readings": size.flat_readings, "fill_seconds": seconds, "levels": levels}


async def _prepare(parts: Parts, database: str, count: int) -> None:
    async with parts.service(database) as contender:
        await parts.load(contender, rooms=ROOMS, readings=ROOMS)
    await asyncio.to_thread(fill, parts.mongo[database], count)


async def idle(parts: Parts, size: Size) -> dict[str, Any]:
    """Rate, cost and memory beside so many streams that had one reading each. ``silent_cpu``: share of one core in
    percent while nothing arrives at all. The levels take turns."""
    runs: dict[int, list[Run]] = {count: [] for count in size.idle}
    silent: dict[int, list[float]] = {count: [] for count in size.idle}
    streams: dict[int, int] = {}
    for _ in range(size.flat_runs):
        for count in size.idle:
            database = parts.new_name("idle")
            async with parts.service(database) as contender:
                rooms = max(round(count / contender.per_reading), 1)
                await parts.load(contender, rooms=rooms, readings=rooms, prefix="i")
                streams[count] = rooms * contender.per_reading
                await _warm_up(parts, contender)
                silent[count].append(await _silence(contender, size.pause))
                runs[count].append(await _saturate(parts, contender, size.flat_readings))
            parts.drop(database)
    levels = [
        {"idle": streams[count], "silent_cpu": median(silent[count])} | _summary(runs[count]) for count in size.idle
    ]
    return {"readings": size.flat_readings, "levels": levels}


async def _silence(contender: Contender, pause: float) -> float:
    """Percent of a core in the last quarter of ``pause`` seconds without readings."""
    await asyncio.sleep(pause * 0.75)
    before = contender.cost.cpu
    await asyncio.sleep(pause * 0.25)
    return (contender.cost.cpu - before) / (pause * 0.25) * 100
