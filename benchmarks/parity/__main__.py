"""``python -m benchmarks.parity [--quick] [--only speed,second]``."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from typing import Any, Final

from benchmarks.parity import measures
from benchmarks.parity.report import tables
from benchmarks.steady.report import machine, save
from hs_stream.service.embedded.mongod import EmbeddedMongod

_MEASURES: Final = {"speed": measures.speed, "second": measures.one_more_second}


async def _measure(names: list[str], size: measures.Size) -> dict[str, Any]:
    results: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory(prefix="hs-parity-") as directory:
        mongod = EmbeddedMongod(directory)
        await mongod.start()
        try:
            bench = measures.Bench(mongod)
            for name in names:
                began = time.monotonic()
                print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
                results[name] = await _MEASURES[name](bench, size)
                print(f"{time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        finally:
            await mongod.stop()
    return results


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity", description="See benchmarks/README.md.")
    parser.add_argument("--quick", action="store_true", help="some seconds: does it work")
    parser.add_argument("--only", default=",".join(_MEASURES), help="some of " + ",".join(_MEASURES))
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    if unknown := set(names) - set(_MEASURES):
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}; write some of {','.join(_MEASURES)}")
    results = asyncio.run(_measure(names, measures.QUICK if arguments.quick else measures.FULL))
    print(tables(results))
    print(f"\nkept in {save(results, 'parity-quick' if arguments.quick else 'parity')}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
