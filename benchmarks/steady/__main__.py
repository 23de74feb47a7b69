"""``python -m benchmarks.steady [--quick] [--only rate,latency,stored,idle]``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from typing import Any

from benchmarks.steady import measures
from benchmarks.steady.parts import Parts
from benchmarks.steady.profile import profile
from benchmarks.steady.report import machine, save, tables

_MEASURES = {
    "rate": measures.rate,
    "latency": measures.latency,
    "stored": measures.stored,
    "idle": measures.idle,
}


async def _measure(names: list[str], size: measures.Size) -> dict[str, Any]:
    results: dict[str, Any] = {"machine": machine()}
    async with Parts() as parts:
        for name in names:
            began = time.monotonic()
            print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
            try:
                results[name] = await _MEASURES[name](parts, size)
            except (RuntimeError, OSError) as error:
                # What was measured before it is kept, and shown.
                results.setdefault("failed", {})[name] = str(error)
                print(f"failed: {error}", end=" ", file=sys.stderr)
            print(f"{time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return results


async def _stoppable(work: Any) -> Any:
    """SIGTERM ends it as Ctrl-C does: what was started is stopped."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await work


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steady", description="See benchmarks/README.md.")
    parser.add_argument("--quick", action="store_true", help="about a minute: does it work, is it roughly right")
    parser.add_argument("--only", default=",".join(_MEASURES), help="some of " + ",".join(_MEASURES))
    parser.add_argument("--profile", action="store_true", help="where the service spends its time at saturation")
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    if unknown := set(names) - set(_MEASURES):
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}; write some of {','.join(_MEASURES)}")
    size = measures.QUICK if arguments.quick else measures.FULL
    with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
        if arguments.profile:
            print(asyncio.run(_stoppable(profile(size.readings))))
            return 0
        results = asyncio.run(_stoppable(_measure(names, size)))
        print(tables(results))
        print(f"\nkept in {save(results, 'steady-quick' if arguments.quick else 'steady')}", file=sys.stderr)
        return 1 if "failed" in results else 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
