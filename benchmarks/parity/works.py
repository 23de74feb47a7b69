"""The works: a workflow, the readings that are there before, and what is computed of them.

Each is computed on request, as the original does it. Its cost is that of the whole: reading the inputs, the tools, and
storing results and coverage, durably on MongoDB. The readings are stored before, and are not measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np

from hs_stream.core.stream import StreamId
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.ports import Reading
from hs_stream.plugins import default_registry
from hs_stream.service.workflows.file import parse_workflow

__all__ = ["BEGIN", "FACTOR", "WORKS", "Work", "double", "points"]

BEGIN: Final = 1_600_000_000_000
_REGISTRY: Final = default_registry()


def double(value: float) -> float:
    """What ``apply`` applies."""
    return value * 2


@dataclass(frozen=True, slots=True)
class Work:
    """``rows`` readings, one a second, on each of ``streams``; then ``wanted`` is computed, in ``runs`` intervals.

    ``results`` are stored, of all nodes. A rate is ``counted`` divided by seconds, or on MongoDB ``outputs`` where they
    are given: rows read, or results of ``wanted``, whichever the original's figure counts.
    """

    title: str
    workflow: str
    streams: tuple[StreamId, ...]
    wanted: str
    rows: int
    results: int
    counted: int
    unit: str
    runs: int = 1
    outputs: int = 0

    @property
    def definition(self) -> WorkflowDefinition:
        """The workflow, checked."""
        return parse_workflow(self.workflow, _REGISTRY)

    def readings(self) -> Iterator[list[Reading]]:
        """In the order of time, some thousands at once."""
        each = max(10_000 // max(len(self.streams), 1), 1)
        for first in range(0, self.rows if self.streams else 0, each):
            last = min(first + each, self.rows)
            yield [one for at, stream in enumerate(self.streams) for one in points(stream, first, last, at)]

    def intervals(self) -> Sequence[tuple[int, int]]:
        """What is computed one after the other."""
        cuts = [BEGIN + self.rows * 1000 * run // self.runs for run in range(self.runs + 1)]
        return list(pairwise(cuts))

    def smaller(self, part: int) -> Work:
        """The same with the ``part``-th of the rows."""
        sizes = {name: getattr(self, name) // part for name in ("rows", "results", "counted", "outputs")}
        return replace(self, **sizes)


def points(stream: StreamId, first: int, last: int, seed: int) -> list[Reading]:
    """The readings number ``first`` to ``last`` of a stream."""
    values = np.random.default_rng((seed, first)).uniform(-10, 40, last - first).round(3).tolist()
    times = range(BEGIN + (first + 1) * 1000, BEGIN + (last + 1) * 1000, 1000)
    return [Reading(stream.name, stream.meta, time, value) for time, value in zip(times, values, strict=True)]


def _work(title: str, nodes: str, streams: Sequence[str], wanted: str, **sizes: int | str) -> Work:
    names = tuple(StreamId.parse(text) for text in streams)
    plates = sorted({plate for stream in names for plate, _ in stream.meta})
    declared = "".join(f"  {plate}: {{}}\n" for plate in plates)
    sources = "".join(
        f"  {name}: {{plates: [{', '.join(plates)}]}}\n" for name in dict.fromkeys(one.name for one in names)
    )
    head = "workflow: parity\nonline: false\n"
    text = head + (f"plates:\n{declared}" if plates else "") + (f"sources:\n{sources}" if sources else "")
    return Work(title, f"{text}nodes:\n{nodes}", names, wanted, **sizes)  # type: ignore[arg-type]


_APPLY: Final = "  doubled: {tool: apply, from: raw, with: {function: 'benchmarks.parity.works:double'}}\n"
FACTOR: Final = _work("one factor", _APPLY, ["raw"], "doubled", rows=1, results=1, counted=1, unit="results")
"""What is computed for one more second of a stream that holds much."""

WORKS: Final = {
    "clock": _work(
        "clock", "  ticks: {tool: clock, with: {every: 1s}}\n", ["raw"], "ticks",
        rows=10_000, results=10_000, counted=10_000, unit="instances",
    ),
    "apply": _work(
        "apply on 10k points", _APPLY, ["raw"], "doubled",
        rows=10_000, results=10_000, counted=10_000, unit="points",
    ),
    "windows": _work(
        "60 s window every 10 s + mean, as two tools",
        "  windows: {tool: sliding_window, with: {lower: -60s, upper: 0s, increment: 10s}}\n"
        "  means: {tool: sliding_apply, from: [windows, raw], with: {function: mean, max_width: 60s}}\n",
        ["raw"], "means",
        rows=100_000, results=20_000, counted=100_000, unit="inputs", outputs=10_000,
    ),
    "sliding": _work(
        "60 s window every 10 s + mean, as one tool (sliding_mean)",
        "  means: {tool: sliding_mean, from: raw, with: {width: 60s, every: 10s}}\n",
        ["raw"], "means",
        rows=100_000, results=10_000, counted=100_000, unit="inputs", outputs=10_000,
    ),
    "merge": _work(
        "aligned_merge of 3 x 5k", "  merged: {tool: aligned_merge, from: [a, b, c]}\n", ["a", "b", "c"], "merged",
        rows=5_000, results=5_000, counted=5_000, unit="results",
    ),
    "plate": _work(
        "plate of 100: raw -> apply -> mean over plate, in two contiguous runs",
        f"{_APPLY}  mean: {{tool: aggregate, from: doubled, over: sensor, with: {{function: mean}}}}\n",
        [f"raw[sensor={number:02}]" for number in range(100)], "mean",
        rows=100, results=10_100, counted=10_000, unit="rows", runs=2,
    ),
}  # fmt: skip
