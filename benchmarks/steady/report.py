"""Tables for people, JSON for comparing."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

__all__ = ["described", "machine", "save", "table", "tables"]

RESULTS: Final = Path(__file__).resolve().parents[1] / "results"


def machine() -> dict[str, Any]:
    """Where and when; ``load`` says how much else was going on."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _commit(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "load": os.getloadavg()[0],
        "loop_seconds": _speed(),
    }


def _commit() -> str:
    """What is measured; with a ``+`` where files differ from it, empty outside of a clone."""
    command = ["git", "describe", "--always", "--abbrev=7", "--exclude=*", "--dirty=+"]
    found = subprocess.run(command, cwd=RESULTS.parent, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def _speed() -> float:
    """Seconds for ten million additions in Python: tells a busy or slow machine from a slow program."""
    began, total = time.perf_counter(), 0
    for number in range(10_000_000):
        total += number
    return time.perf_counter() - began


def described(where: dict[str, Any]) -> str:
    """One line for people of what `machine` found."""
    return (
        f"{where['time']}, commit {where['commit']}, {where['cpus']} cores, Python {where['python']}, load before "
        f"{where['load']:.1f}, ten million additions in {where['loop_seconds']:.2f} s"
    )


def save(results: dict[str, Any], name: str) -> Path:
    """Write ``results`` below ``benchmarks/results``, which is not under version control."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return path


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    shown = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(f"| {line} |" for line in shown)


def tables(results: dict[str, Any]) -> str:
    """Markdown, one table per measurement that is there."""
    made = []
    made.append(described(results["machine"]))
    for name, show in (("rate", _rate), ("latency", _latency), ("stored", _stored), ("idle", _idle)):
        if name in results:
            made.append(show(results[name]))
    return "\n\n".join(made)


def _rate(found: dict[str, Any]) -> str:
    def row(name: str, one: dict[str, Any]) -> list[str]:
        all_rates = ", ".join(f"{run['rate']:,.0f}" for run in one["runs"])
        cpu = [f"{one[key]:.0f}" for key in ("cpu_us", "mongod_us", "rss")]
        return [name, f"{one['rate']:,.0f}", *cpu, all_rates]

    head = ["steady", "readings/s", "CPU us/reading", "mongod us/reading", "RSS MB", "runs"]
    ratios = ", ".join(f"{ratio:.2f}" for ratio in found["ratios"])
    return (
        table(head, [row("bare loop", found["bare"]), row("hs-stream serve", found["ours"])])
        + f"\n\nratio {found['ratio']:.2f} (goal 0.6, then 0.8), of the runs: {ratios}; "
        f"{found['readings']:,} readings each"
    )


def _latency(found: dict[str, Any]) -> str:
    head = ["readings/s", "latency, ms", "p50", "p90", "p99", "max", "sent late", "CPU us/reading"]
    bare = {one["per_second"]: one for one in found["levels"] if one["who"] == "bare loop"}

    def times(one: dict[str, Any], key: str, digits: int) -> str:
        least = bare[one["per_second"]]
        return f"{one[key]:.{digits}f}" + ("" if one is least else f" ({one[key] / least[key]:.1f})")

    rows = [
        [f"{one['per_second']:,}", one["who"] if one in bare.values() else f"hs-stream serve, {one['who']}"]
        + [times(one, key, 1) for key in ("p50", "p90", "p99", "max")]
        + [f"{one['behind']:.0f}", times(one, "cpu_us", 0)]
        for one in found["levels"]
    ]
    return (
        table(head, rows)
        + f"\n\nmedians of {len(found['levels'][0]['runs'])} runs of {found['seconds']} s in turn, and how many times "
        "the bare loop's (goals at 1,000/s: p50 2, p99 3, CPU 1.2 times; at 100/s p99 15 ms)"
    )


def _levels(found: dict[str, Any], key: str, label: str, extra: str, extra_label: str) -> str:
    first = found["levels"][0]
    rows = [
        [
            f"{level[key]:,}",
            f"{level['rate']:,.0f}",
            f"{level['rate'] / first['rate']:.2f}",
            f"{level['cpu_us']:.0f}",
            f"{level['cpu_us'] / first['cpu_us']:.2f}",
            f"{level['mongod_us']:.0f}",
            f"{level['mongod_us'] / first['mongod_us']:.2f}",
            f"{level['rss']:.0f}",
            f"{level[extra]:.1f}",
        ]
        for level in found["levels"]
    ]
    head = [
        label,
        "readings/s",
        "ratio",
        "CPU us/reading",
        "ratio",
        "mongod us/reading",
        "ratio",
        "RSS MB",
        extra_label,
    ]
    return table(head, rows)


def _stored(found: dict[str, Any]) -> str:
    return (
        _levels(found, "stored", "stored before", "start", "start s")
        + f"\n\ngoal: within 1.15 of each other; the largest store was filled in {found['fill_seconds']:.0f} s\n\n"
        + table(
            ["stored before", "one late reading, 3 levels: ms", "slowest"],
            [[f"{one['stored']:,}", f"{one['late']:.1f}", f"{one['latest']:.1f}"] for one in found["levels"]],
        )
        + "\n\nfrom publishing it to receiving its result (goal: <= 20 ms)"
    )


def _idle(found: dict[str, Any]) -> str:
    return (
        _levels(found, "idle", "idle streams", "silent_cpu", "CPU % in silence")
        + "\n\ngoal: within 1.15 of each other, RSS <= 200 MB beside 10,000 streams"
    )
