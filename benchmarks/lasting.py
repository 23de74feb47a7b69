"""``python -m benchmarks.lasting [--quick]``: what ``weight: time`` costs a mean, next to the same one without it.

Both take turns on the same readings, of a sensor that sends about once a second and is silent now and then: over
history at once, in an engine that reads and stores too, and at one reading after the other as they arrive. Seconds are
those of the CPU. The bar of the time-weighted mean is 1.3 times the plain one.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from statistics import median
from typing import Any, Final

import numpy as np

from benchmarks.steady.report import described, machine, save, table
from hs_stream.core.batch import Batch
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MIN_TIME, TimeInterval
from hs_stream.core.tool import Tool
from hs_stream.engine.engine import Engine, EngineSettings
from hs_stream.engine.ports import Delivery, Reading
from hs_stream.plugins import default_registry
from hs_stream.service.workflows.file import parse_workflow
from hs_stream.store.memory import MemoryStore
from hs_stream.testing.clock import VirtualClock

_BEGIN: Final = 1_600_000_000_000
_REGISTRY: Final = default_registry()
WINDOWS: Final = {
    "a day": {"period": "day", "tz": "Europe/Berlin"},
    "15 minutes": {"period": "15m", "tz": "Europe/Berlin"},
    "10 minutes, each minute": {"width": "10m", "every": "1m"},
    "60 s, each 10 s": {"width": "60s", "every": "10s"},
    "60 s, at each reading": {"width": "60s"},
    "10 minutes, at each reading": {"width": "10m"},
}
_VALUES: Final = {
    "tenths": lambda random, count: random.integers(-100, 400, count) / 10,
    "any digits": lambda random, count: random.uniform(-10, 40, count),
}
_LATEST: Final = 2_000
"""Readings that arrive one by one, after the others."""


def readings(count: int, values: str) -> Batch:
    """About one a second, and none for some minutes once in a thousand."""
    random = np.random.default_rng(1)
    waits = np.where(random.random(count) < 1e-3, random.integers(60_000, 600_000, count), 1000)
    times = _BEGIN + np.cumsum(waits + random.integers(-200, 200, count))
    return Batch.build(times, _VALUES[values](random, count))


def mean(windows: dict[str, str], *, weighted: bool) -> Tool:
    """The tool."""
    return _REGISTRY.resolve("sliding_mean@^2").build({**windows, **({"weight": "time"} if weighted else {})})


def history(tool: Tool, batch: Batch, piece: int) -> float:
    """Seconds (of CPU, as all here) for all of it, in pieces as an engine has them."""
    began = time.process_time()
    for first in range(0, len(batch), piece):
        some = batch.slice_index(max(first - 2_000, 0), first + piece)
        start = MIN_TIME if not first else int(batch.times[first - 1])
        tool.evaluate(TimeInterval(start, some.last_time), [some])
    return time.process_time() - began


def one_by_one(tool: Tool, batch: Batch) -> float:
    """Seconds for the last readings, each by itself."""
    times = batch.times[-_LATEST - 1 :].tolist()
    began = time.process_time()
    for at, (start, end) in enumerate(pairwise(times), len(batch) - _LATEST + 1):
        tool.evaluate(TimeInterval(start, end), [batch.slice_index(max(at - 700, 0), at)])
    return time.process_time() - began


async def in_engine(windows: dict[str, str], batch: Batch, *, weighted: bool) -> float:
    """Seconds to compute and store it on request, in memory."""
    given = ", ".join(f"{name}: {value}" for name, value in windows.items())
    given += ", weight: time" if weighted else ""
    text = "workflow: lasting\nonline: false\nsources: {raw: {}}\n"
    text += f"nodes: {{mean: {{tool: sliding_mean@^2, from: raw, with: {{{given}}}}}}}\n"
    clock = VirtualClock(batch.last_time + 1)
    engine = Engine(MemoryStore(), clock=clock, settings=EngineSettings(max_in_flight=1 << 30, max_future=1 << 40))
    await engine.open([parse_workflow(text, _REGISTRY)])
    made = [Reading("raw", (), time, value) for time, value in batch]
    for at in range(0, len(made), 5_000):
        await engine.deliver(Delivery(made[at : at + 5_000], [], clock.now(), lambda: None, asked=True))
        await engine.settle()
    gc.collect()
    began = time.process_time()
    await engine.compute([StreamId("mean")], _BEGIN, batch.last_time, complete=True)
    seconds = time.process_time() - began
    await engine.stop()
    await engine.close()
    return seconds


async def in_turns(work: Callable[[bool], Awaitable[float]], runs: int) -> tuple[float, float]:
    """Seconds of the plain and of the weighted one: medians, after one run of each that does not count."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for run in range(runs + 1):
        for weighted in (False, True) if run % 2 else (True, False):
            seconds[weighted].append(await work(weighted))
    return median(seconds[False][1:]), median(seconds[True][1:])


async def measure(count: int, runs: int) -> list[dict[str, Any]]:
    """A row for each kind of window and of values."""
    found = []
    for values in _VALUES:
        batch = readings(count, values)
        some = batch.slice_index(0, count // 4)
        for name, windows in WINDOWS.items():

            async def over_history(weighted: bool, windows: Any = windows, batch: Batch = batch) -> float:
                piece = len(batch) if "day" in windows.values() else 20_000
                return history(mean(windows, weighted=weighted), batch, piece)

            async def arriving(weighted: bool, windows: Any = windows, batch: Batch = batch) -> float:
                return one_by_one(mean(windows, weighted=weighted), batch)

            async def stored(weighted: bool, windows: Any = windows, some: Batch = some) -> float:
                return await in_engine(windows, some, weighted=weighted)

            row: dict[str, Any] = {"windows": name, "values": values}
            for what, work, each in (("history", over_history, count), ("engine", stored, len(some))):
                plain, weighted = await in_turns(work, runs)
                row[what] = {"plain_us": plain / each * 1e6, "ratio": weighted / plain}
            if "every" not in windows and "period" not in windows:
                plain, weighted = await in_turns(arriving, runs)
                row["arriving"] = {"plain_us": plain / _LATEST * 1e6, "ratio": weighted / plain}
            found.append(row)
    return found


def shown(found: list[dict[str, Any]]) -> str:
    """Microseconds a reading of the plain mean, and how many times that the weighted one takes."""

    def cell(row: dict[str, Any], what: str) -> str:
        return f"{row[what]['plain_us']:.2f}, {row[what]['ratio']:.2f}" if what in row else ""

    rows = [
        [row["windows"], row["values"], *(cell(row, what) for what in ("history", "engine", "arriving"))]
        for row in found
    ]
    return table(["plain us a reading, times", "values", "over history", "in an engine", "as it arrives"], rows)


def main() -> None:
    """Measure, print, and save to ``benchmarks/results``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    where = machine()
    found = asyncio.run(measure(20_000, 1) if options.quick else measure(100_000, 5))
    print(described(where))
    print(shown(found))
    save({"machine": where, "rows": found}, "lasting")


if __name__ == "__main__":
    main()
