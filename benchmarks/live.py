"""``python -m benchmarks.live [--quick] [--subscribers N] [--rate N]``: many live subscribers of one stream.

Readings of one room at a fixed rate over MQTT; every subscriber gets each of the results. Measured: from sending a
reading to each of the subscribers having read its result, and how many readings a second the service takes at
saturation with the subscribers and without them, turn about.

The subscribers are one process with a socket each, which looks for event times in what comes and does nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final, cast

from benchmarks.steady.parts import Contender, Parts, _addresses, _environment
from benchmarks.steady.report import machine, save
from hs_stream.service.app import loop_factory

ROOT: Final = Path(__file__).resolve().parents[1]
_ROOMS: Final = 20
"""At saturation: so many that each has about 500 readings a second."""
_TIME: Final = re.compile(rb'"time":"(\S{19})(?:\.(\d{3}))?Z"')


# --- the subscribers, as a process of their own ---


class _Reader(asyncio.Protocol):
    """Counts events, and notes of each how old it is when it comes."""

    ages: list[float] = []  # noqa: RUF012 - shared by all on purpose
    events = 0

    def __init__(self, request: bytes) -> None:
        self._request, self._rest = request, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.WriteTransport", transport).write(self._request)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        cut = data.rfind(b"\n\n") + 2
        whole, self._rest = data[:cut], data[cut:]
        count = whole.count(b"\nevent: insert") + whole.count(b"\nevent: revise")
        if count:
            _Reader.events += count
            # The oldest of what comes together waited longest.
            found = _TIME.search(whole)
            if found is not None:
                seconds = _instant(found[1]) + int(found[2] or b"0") / 1000
                _Reader.ages.append((time.time() - seconds) * 1000)


_known: dict[bytes, float] = {}


def _instant(text: bytes) -> float:
    found = _known.get(text)
    if found is None:
        found = _known[text] = datetime.fromisoformat(text.decode() + "+00:00").timestamp()
    return found


async def _subscribe(port: int, streams: list[str], subscribers: int) -> None:
    """Prints ``ready``; at a line of input the figures so far, which begin anew; ends with the input."""
    loop = asyncio.get_running_loop()
    for index in range(subscribers):
        path = f"/api/streams/{streams[index % len(streams)]}/live"
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n".encode()
        await loop.create_connection(lambda request=request: _Reader(request), "127.0.0.1", port)  # type: ignore[misc]
    print("ready", flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        ages = sorted(_Reader.ages)
        print(json.dumps({"events": _Reader.events, "ages": ages[:: max(len(ages) // 10_000, 1)]}), flush=True)
        _Reader.ages.clear()
        _Reader.events = 0


@contextlib.asynccontextmanager
async def _subscribers(port: int, streams: list[str], count: int) -> AsyncIterator[Any]:
    command = [sys.executable, "-m", "benchmarks.live", "--subscribe", json.dumps([port, streams, count])]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=1 << 24
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        await asyncio.wait_for(process.stdout.readline(), 30)
        yield process
    finally:
        process.stdin.close()
        process.kill()
        await process.wait()


async def _figures(process: Any) -> dict[str, Any]:
    process.stdin.write(b"\n")
    found: dict[str, Any] = json.loads(await process.stdout.readline())
    return found


# --- the measurement ---


def _percentile(ages: list[float], percent: float) -> float | None:
    return ages[max(math.ceil(percent / 100 * len(ages)) - 1, 0)] if ages else None


def _port(parts: Parts, contender: Contender) -> int:
    [log] = [path for path in parts.path.glob("site*/log") if path.parent.name in contender.topic]
    return int(next(iter(_addresses(log))).rpartition(":")[2])


def _streams(port: int, name: str) -> list[str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/streams?name={name}&limit=1000", timeout=5) as answer:
        return [str(stream["id"]) for stream in json.load(answer)["streams"]]


async def _deliveries(parts: Parts, contender: Contender, count: int, rate: int, seconds: int) -> dict[str, Any]:
    """All of ``count`` subscribers at one stream, ``rate`` results a second in it."""
    port = _port(parts, contender)
    await parts.load(contender, rooms=1, readings=10, rate=100.0)
    [stream] = _streams(port, "smooth")[:1]
    async with _subscribers(port, [stream], count) as process:
        await parts.load(contender, rooms=1, readings=rate, rate=float(rate))
        await asyncio.sleep(1.0)
        await _figures(process)
        before, began = contender.cost, time.monotonic()
        published = await parts.load(contender, rooms=1, readings=rate * seconds, rate=float(rate))
        await asyncio.sleep(0.5)
        cpu = (contender.cost.cpu - before.cpu) / (time.monotonic() - began) * 100
        found = await _figures(process)
    ages = found["ages"]
    return {
        "subscribers": count,
        "updates": rate,
        "delivered": found["events"],
        "expected": count * rate * seconds,
        "p50": _percentile(ages, 50),
        "p99": _percentile(ages, 99),
        "max": _percentile(ages, 100),
        # The same results over MQTT: what of it is the machine's, and how much the subscribers disturb.
        "mqtt_p50": _percentile(sorted(published.latencies), 50),
        "mqtt_p99": _percentile(sorted(published.latencies), 99),
        "cpu_percent": cpu,
    }


async def _capacity(parts: Parts, contender: Contender, count: int, readings: int, runs: int) -> dict[str, Any]:
    """Readings a second at saturation, with ``count`` subscribers of one of the rooms and without, turn about."""
    port = _port(parts, contender)
    await parts.load(contender, rooms=_ROOMS, readings=_ROOMS, prefix="c")
    newest = _streams(port, "smooth")[-1]
    rates: dict[str, list[float]] = {"without": [], "with": []}
    cost: dict[str, list[float]] = {"without": [], "with": []}
    delivered = 0.0
    for run in range(2 * runs):
        kind = ("without", "with", "with", "without")[run % 4]
        async with contextlib.AsyncExitStack() as stack:
            process = None
            if kind == "with":
                process = await stack.enter_async_context(_subscribers(port, [newest], count))
            before = contender.cost.cpu
            result = await parts.load(contender, rooms=_ROOMS, readings=readings, prefix="c")
            cost[kind].append((contender.cost.cpu - before) / result.sent * 1e6)
            if process is not None:
                await asyncio.sleep(0.5)
                delivered = (await _figures(process))["events"] / count / (result.last - result.first)
        rates[kind].append(result.sent / (result.last - result.first))
    medians = {kind: statistics.median(found) for kind, found in rates.items()}
    ratio = medians["with"] / medians["without"]
    each = {kind: statistics.median(found) for kind, found in cost.items()}
    return medians | {"ratio": ratio, "cpu_us_per_reading": each, "updates": delivered, "runs": rates}


async def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    seconds, readings, runs = (4, 10_000, 1) if arguments.quick else (20, 50_000, 3)
    async with Parts() as parts:
        results: dict[str, Any] = {"machine": machine()}
        async with parts.service(parts.new_name("live")) as contender:
            for count in (0, arguments.subscribers):
                results[f"live{count}"] = await _deliveries(parts, contender, count, arguments.rate, seconds)
            results["capacity"] = await _capacity(parts, contender, arguments.subscribers, readings, runs)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live", description="See benchmarks/README.md.")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--subscribers", type=int, default=200)
    parser.add_argument("--rate", type=int, default=500, help="results a second in the stream")
    parser.add_argument("--subscribe", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.subscribe:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_subscribe(*json.loads(arguments.subscribe)))
        return 0
    results = asyncio.run(_measure(arguments))
    print(json.dumps(results, indent=1))
    print(f"\nkept in {save(results, 'live')}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
