"""How it is measured. Every function returns plain data; nothing here prints."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from benchmarks.parity.works import BEGIN, FACTOR, WORKS, Work, points
from hs_stream.core.stream import StreamId
from hs_stream.engine.engine import Engine, EngineSettings
from hs_stream.engine.ports import Delivery, Reading, Store
from hs_stream.service.embedded.mongod import EmbeddedMongod
from hs_stream.store.memory import MemoryStore
from hs_stream.store.mongo import MongoStore
from hs_stream.testing.clock import VirtualClock

__all__ = ["FULL", "QUICK", "STORES", "Size", "one_more_second", "speed"]

STORES: Final = ("memory", "mongodb")
_SILENCE: Final = 60_000


@dataclass(frozen=True, slots=True)
class Size:
    """``runs`` of each work; ``intervals`` of one second after ``stored`` instances. ``part``: of the rows."""

    runs: int
    intervals: int
    stored: tuple[int, ...]
    part: int = 1


FULL: Final = Size(7, 100, (1_000, 10_000, 50_000, 1_000_000))
QUICK: Final = Size(1, 10, (1_000, 10_000), 10)


class Bench:
    """Engines over new stores, one after the other."""

    def __init__(self, mongod: EmbeddedMongod) -> None:
        self._mongod = mongod
        self._count = 0

    @contextlib.asynccontextmanager
    async def engine(self, kind: str, work: Work) -> AsyncIterator[Engine]:
        """An engine that nobody feeds, at a time when all readings of ``work`` have long been there."""
        self._count += 1
        store: Store = MemoryStore()
        if kind == "mongodb":
            store = MongoStore(self._mongod.database_url(f"parity{self._count}"))
        clock = VirtualClock(BEGIN + work.rows * 1000)
        engine = Engine(store, clock=clock, settings=EngineSettings(max_in_flight=1 << 30, max_future=1 << 40))
        await engine.open([work.definition])
        try:
            for readings in work.readings():
                await store_readings(engine, readings)
            # Silence says that nothing more comes.
            engine.connected(True)
            clock.advance(_SILENCE)
            engine.connected(True)
            yield engine
        finally:
            await engine.stop()
            await engine.close()


async def store_readings(engine: Engine, readings: list[Reading]) -> None:
    """Durable, and not computed: nobody has asked for it."""
    await engine.deliver(Delivery(readings, [], engine.clock.now(), lambda: None, asked=True))
    await engine.settle()


async def _seconds(bench: Bench, kind: str, work: Work) -> float:
    async with bench.engine(kind, work) as engine:
        gc.collect()
        before = engine.statistics().results
        began = time.perf_counter()
        for start, end in work.intervals():
            await engine.compute([StreamId.parse(work.wanted)], start, end)
        seconds = time.perf_counter() - began
        found = engine.statistics().results - before
        if found != work.results:
            raise RuntimeError(f"{work.title}: {found} of {work.results} results")
    return seconds


async def speed(bench: Bench, size: Size) -> dict[str, Any]:
    """Each work on each store, in turn, so that a slow minute is nobody's disadvantage."""
    works = {name: work.smaller(size.part) for name, work in WORKS.items()}
    runs: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in STORES} for name in works}
    for _ in range(size.runs):
        for name, work in works.items():
            for kind in STORES:
                runs[name][kind].append(await _seconds(bench, kind, work))
    return {
        name: {
            "title": work.title,
            "unit": work.unit,
            "rows": work.rows,
            "results": work.results,
            "seconds": runs[name],
            "rate": {
                "memory": work.counted / median(runs[name]["memory"]),
                "mongodb": (work.outputs or work.counted) / median(runs[name]["mongodb"]),
            },
            "unit_mongodb": "results" if work.outputs else work.unit,
        }
        for name, work in works.items()
    }


async def one_more_second(bench: Bench, size: Size) -> dict[str, Any]:
    """Milliseconds for one new interval of 1 s in a stream that holds much: computed, and with its reading stored."""
    found: dict[str, Any] = {}
    for kind in STORES:
        found[kind] = []
        for stored in size.stored:
            computing, both = await _seconds_after_stored(bench, kind, stored, size)
            found[kind].append({"stored": stored, "ms": median(computing) * 1000, "both_ms": median(both) * 1000})
    return found


async def _seconds_after_stored(bench: Bench, kind: str, stored: int, size: Size) -> tuple[list[float], list[float]]:
    work = Work("", FACTOR.workflow, FACTOR.streams, FACTOR.wanted, stored, stored, stored, "results")
    target, (raw,) = StreamId.parse(work.wanted), work.streams
    computing: list[float] = []
    both: list[float] = []
    async with bench.engine(kind, work) as engine:
        await engine.compute([target], BEGIN, BEGIN + stored * 1000)
        gc.collect()
        for number in range(stored, stored + size.intervals):
            [reading] = points(raw, number, number + 1, 0)
            began = time.perf_counter()
            await store_readings(engine, [reading])
            there = time.perf_counter()
            await engine.compute([target], reading.time - 1000, reading.time)
            done = time.perf_counter()
            computing.append(done - there)
            both.append(done - began)
        found = await engine.store.count(engine.find(target).id, BEGIN, reading.time)
        if found != stored + size.intervals:
            raise RuntimeError(f"{found} of {stored + size.intervals} results")
    return computing, both
