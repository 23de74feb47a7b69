"""Evaluating one owed interval of one stream: gather what the supports read, call the tool, check what came back.

1. The interval is never widened on the output side; inputs are read as far as the supports say.
2. Much owed history is done newest first, in pieces of about ``CHUNK`` input instances (a fold: oldest first).
3. A tool that raises costs only the smallest interval that raises: it is searched by halving, which the split law
   allows. That interval is *failed*: not covered, not tried again until an input changes there or somebody asks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.time import MIN_TIME, TimeInterval, format_time
from hs_stream.core.tool import FromInput, OnGrid, Pointwise, Previous, Sources, Tool, Window
from hs_stream.core.value import canonical
from hs_stream.engine.contents import Contents
from hs_stream.engine.streams import Stream
from hs_stream.engine.telemetry import Telemetry

__all__ = ["CHUNK", "Evaluated", "Evaluator", "checked"]

CHUNK: Final = 20_000
_LONG: Final = 64
"""From so many instants of a grid on it does not matter what is read beside them."""
_MOST_FAILURES: Final = 16
"""How many separate failures are located in one piece; the rest of the piece fails as a whole."""


@dataclass(slots=True)
class Evaluated:
    """Results over ``done``; ``failed`` could not be evaluated, ``error`` says why, and ``kind`` what was raised."""

    done: list[tuple[int, int, Batch]]
    failed: list[tuple[int, int]]
    error: str = ""
    kind: str = ""


def checked(tool: Tool, interval: TimeInterval, result: Batch) -> Batch:
    """``result`` if it keeps the contract (ascending times inside of ``interval``, canonical values)."""
    times = result.times
    if times.size:
        if times[0] <= interval.start or times[-1] > interval.end:
            outside = times[0] if times[0] <= interval.start else times[-1]
            raise ValueError(f"{tool.pin} returned an instance at {format_time(int(outside))}, outside of {interval}")
        if times.size > 1 and not (times[1:] > times[:-1]).all():
            raise ValueError(f"{tool.pin} returned times that do not ascend")
        if isinstance(result.values, list):
            return Batch.build(times, [canonical(value) for value in result.values])
    return result


class Evaluator:
    """Evaluates pieces of streams on the given contents."""

    def __init__(self, contents: Contents, telemetry: Telemetry, chunk: int = CHUNK) -> None:
        self._contents = contents
        self._telemetry = telemetry
        self.chunk = chunk

    async def gather(self, stream: Stream, start: int, end: int, limit: int) -> tuple[Sources, int]:
        """What ``(low, end]`` reads, ``low >= start``; ``low > start`` when ``limit`` instances are all that fit.

        On a grid only what its instants read, which is nothing between two of them: most arrivals end a window of no
        output.
        """
        due = self._due(stream, start, end)
        if due is None:
            return Sources([] if stream.aggregate else [NOTHING] * len(stream.inputs)), start
        first, last = due
        sources, low = await self._read(stream, first, last, limit)
        return sources, low if low > first else start

    @staticmethod
    def _due(stream: Stream, start: int, end: int) -> tuple[int, int] | None:
        """The part of ``(start, end]`` in which outputs may lie, if it is not long anyway."""
        if not isinstance(stream.drive, OnGrid) or start <= MIN_TIME:
            return start, end
        grid = stream.drive.grid
        if end - start > _LONG * grid.every:
            return start, end
        times = grid.times(start, end)
        return (int(times[0]) - 1, int(times[-1])) if len(times) else None

    async def _read(self, stream: Stream, start: int, end: int, limit: int) -> tuple[Sources, int]:
        low = start
        pieces: list[Batch] = []
        keys: list[str] = []
        sources = self._sources(stream, start)
        for slot, source in sources:
            support = stream.support(slot)
            if isinstance(support, Pointwise):
                batch, complete = await self._contents.read_some(source, start, end, limit=limit)
                if not complete:
                    low = max(low, batch.first_time - 1)
            elif isinstance(support, Window):
                batch, floor = await self._window(source, support, start, end, limit)
                low = max(low, floor)
            elif isinstance(support, Previous):
                batch, complete = await self._contents.read_some(source, start, end, limit=limit + support.n)
                if complete:
                    before = (await self._contents.last(source, start, support.n)).slice(source.floor, start)
                    batch = Batch.concat([before, batch])
                else:
                    low = max(low, int(batch.times[support.n - 1]))
            else:
                batch = await self._contents.read(source, MIN_TIME, end)
            if batch or not stream.aggregate:
                pieces.append(batch)
                keys.append(stream.keys[slot])
        return Sources(pieces, keys if stream.aggregate else ()), low

    def _sources(self, stream: Stream, start: int) -> list[tuple[int, Stream]]:
        """The inputs that can have something behind ``start``; of an aggregate at its head only those that changed."""
        if not stream.aggregate:
            return list(enumerate(stream.inputs))
        pending = stream.pending_inputs
        if pending is None or start < stream.end():
            slots = stream.order
        else:
            slots = sorted(pending, key=stream.keys.__getitem__)
        return [(slot, stream.inputs[slot]) for slot in slots]

    async def _window(self, source: Stream, support: Window, start: int, end: int, limit: int) -> tuple[Batch, int]:
        back = max(support.lookback - 1, 0)
        first = start if start <= MIN_TIME else start - back
        while True:
            batch, complete = await self._contents.read_some(source, first, end + support.lookahead, limit=limit)
            if complete:
                return batch, start
            floor = batch.first_time - 1 + back
            if floor < end:
                return batch, floor
            limit *= 4

    def evaluate(self, stream: Stream, start: int, end: int, sources: Sources) -> Evaluated:
        """The results over ``(start, end]`` (rule 3). Never raises what a tool raises."""
        result = Evaluated([], [])
        began = time.perf_counter()
        self._attempt(stream, start, end, sources, result)
        assert stream.tool is not None
        self._telemetry.step(stream.tool.name, time.perf_counter() - began)
        return result

    def _attempt(self, stream: Stream, start: int, end: int, sources: Sources, result: Evaluated) -> None:
        tool = stream.tool
        assert tool is not None
        interval = TimeInterval(start, end)
        try:
            batch = checked(tool, interval, tool.evaluate(interval, sources))
        except Exception as error:  # noqa: BLE001 - a tool may raise anything; it becomes a failed interval
            self._telemetry.failed(tool.name)
            result.kind = type(error).__name__
            result.error = f"{tool.pin} on {interval}: {result.kind}: {error}"
            cut = None if len(result.failed) >= _MOST_FAILURES else self._cut(stream, start, end, sources)
            if cut is None:
                result.failed.append((start, end))
                return
            self._attempt(stream, start, cut, sources, result)
            self._attempt(stream, cut, end, sources, result)
            return
        result.done.append((start, end, batch))

    @staticmethod
    def _cut(stream: Stream, start: int, end: int, sources: Sequence[Batch]) -> int | None:
        """Where to halve: so that half of the driving instances are on each side; ``None`` for a single instant."""
        if isinstance(stream.drive, FromInput) and sources:
            times = sources[stream.drive.slot].slice(start, end).times
        else:
            parts = [source.slice(start, end).times for source in sources]
            times = np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)
        if len(times) > 1:
            return int(times[(len(times) - 1) // 2])
        if len(times) == 1:
            only = int(times[0])
            if start < only - 1:
                return only - 1
            return only if only < end else None
        return (start + end) // 2 if MIN_TIME < start < end - 1 else None
