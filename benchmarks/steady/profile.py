"""Where the service spends its time at saturation: cProfile around ``hs-stream serve``.

cProfile makes calls dearer than they are, so what consists of many small calls looks worse than it is. Compare with
``py-spy record`` before believing a difference.
"""

from __future__ import annotations

import io
import pstats
import sys

from benchmarks.steady.measures import ROOMS
from benchmarks.steady.parts import Parts

__all__ = ["profile"]


async def profile(readings: int, functions: int = 25) -> str:
    """The top ``functions`` by own time, of the whole life of the process."""
    async with Parts() as parts:
        path = parts.path / "profile"
        wrapper = (sys.executable, "-m", "cProfile", "-o", str(path), "-m", "hs_stream.cli")
        async with parts.service(parts.new_name("profile"), *wrapper) as contender:
            result = await parts.load(contender, rooms=ROOMS, readings=readings)
        shown = io.StringIO()
        statistics = pstats.Stats(str(path), stream=shown)
        statistics.strip_dirs().sort_stats("tottime").print_stats(functions)
        rate = result.sent / (result.last - result.first)
    return f"{result.sent:,} readings at {rate:,.0f}/s under the profiler\n{shown.getvalue()}"
