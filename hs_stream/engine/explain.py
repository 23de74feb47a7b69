"""Why a stream has the value that it has at an instant: what was read for it, from stream to stream down to readings.

1. Each stream that it rests on is a `Level`, once, outputs before inputs. Its ``spans`` are what the supports of those
   that read it let them read, for what is explained of them. A change outside of the spans changes nothing.
2. ``spans`` begin with the instance that counts (`Previous`, ``before``) and end with it (``after``); where there is
   none yet, they go on for ever, as any that comes would count.
3. It reads what is committed. The first and the last few instances of each stream are shown, and counted are so many of
   them as one bounded read has. So the whole costs a few such reads for each stream, however much is stored.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.errors import NotFound
from hs_stream.core.size import is_full
from hs_stream.core.stream import StreamId
from hs_stream.core.support import Pointwise, Prefix, Previous, Support, Window
from hs_stream.core.time import EMPTY, MAX_TIME, MIN_TIME, TimeIntervals, format_time, shift
from hs_stream.engine.graph import Graph
from hs_stream.engine.ports import Store, StreamRecord
from hs_stream.plan.streams import Stream

__all__ = ["LIMITS", "Explanation", "Level", "Limits", "explain"]

_MOST_SPANS: Final = 16
"""A stream of which more pieces matter has them as one, from the first to the last."""
_COUNTED: Final = 1_000
_COUNTED_BYTES: Final = 1 << 20
"""So many instances of a stream are counted, and no more than fill so many bytes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is shown.

    ``depth``: levels of inputs; ``streams``: of them all; ``rows``: the first and the last so many instances of each,
    and no more of them than fill ``size`` bytes.
    """

    depth: int = 20
    streams: int = 50
    rows: int = 3
    size: int = 65_536


LIMITS: Final = Limits()
"""Where nothing is said."""


@dataclass(frozen=True, slots=True)
class Level:
    """One stream, and what of it is read: ``count`` instances in ``spans``, of which ``first`` and ``last`` are shown.

    ``more``: there are at least so many, and nobody went on counting. ``last`` is empty where ``first`` has all.
    ``reads``: each input with the support, as text; not where it is raw, or as deep as was asked for. ``changes``: of a
    raw stream, where a reading that is still taken would change the value. ``retention`` in ms. ``floor``: what lies up
    to it is forgotten.
    """

    record: StreamRecord
    depth: int
    spans: TimeIntervals
    reads: tuple[tuple[StreamId, str], ...]
    aggregate: bool
    count: int
    more: bool
    first: Batch
    last: Batch
    revisions: Mapping[int, int]
    changes: TimeIntervals
    retention: int | None

    @property
    def stream(self) -> StreamId:
        """Its name and plate values."""
        return self.record.stream


@dataclass(frozen=True, slots=True)
class Explanation:
    """``levels``: the stream itself, then what it rests on. ``left_off``: streams that are not among them.

    ``state``: ``computed``, or ``stale`` where the value will be computed again, or is not taken to be right any more.
    """

    time: int
    state: Literal["computed", "stale"]
    levels: tuple[Level, ...]
    left_off: int


async def explain(
    graph: Graph,
    store: Store,
    stream: Stream,
    time: int | None,
    coverage: TimeIntervals,
    limits: Limits,
) -> Explanation:
    """Why ``stream`` has the value that it has at ``time`` (``None``: the newest one).

    ``coverage``: where ``stream`` is right. `NotFound` where there is no value, with the nearest ones.
    """
    return await _Explainer(graph, store, limits).all(stream, await _time(store, stream, time), coverage)


async def _time(store: Store, stream: Stream, time: int | None) -> int:
    if time is None:
        newest = await store.last(stream.id, MAX_TIME, 1)
        if newest:
            return newest.last_time
        raise NotFound(f"{stream.stream} has no value", hint="hs-stream query says what it waits for")
    near = [*(await store.last(stream.id, time, 1)).times.tolist()]
    if near == [time]:
        return time
    near += (await store.read(stream.id, time, MAX_TIME, limit=1)).times.tolist()
    nearest = "the nearest ones are at " if len(near) > 1 else "the nearest one is at "
    hint = nearest + " and ".join(map(format_time, near)) if near else "it has none at all"
    raise NotFound(f"{stream.stream} has no value at {format_time(time)}", hint=hint)


class _Explainer:
    def __init__(self, graph: Graph, store: Store, limits: Limits) -> None:
        self._graph, self._store, self._limits = graph, store, limits
        self._spans: dict[int, TimeIntervals] = {}
        self._depths: dict[int, int] = {}
        self._waiting: list[tuple[int, int]] = []
        self._left = 0

    async def all(self, target: Stream, time: int, coverage: TimeIntervals) -> Explanation:
        span = TimeIntervals.of(time - 1, time)
        right = target.kind == "raw" or not span - coverage
        self._wait(target, span, 0)
        levels: list[Level] = []
        while self._waiting and len(levels) < self._limits.streams:
            # Of a higher rank is what reads it: all that is read of a stream is known when its turn comes.
            _, identity = heapq.heappop(self._waiting)
            levels.append(await self._level(self._graph.by_id[identity]))
        return Explanation(time, "computed" if right else "stale", tuple(levels), self._left + len(self._waiting))

    def _wait(self, stream: Stream, spans: TimeIntervals, depth: int) -> None:
        if stream.id not in self._spans:
            heapq.heappush(self._waiting, (-stream.rank, stream.id))
        spans |= self._spans.get(stream.id, EMPTY)
        if len(spans) > _MOST_SPANS:
            spans = TimeIntervals.of(spans.start, spans.end)
        self._spans[stream.id] = spans
        self._depths[stream.id] = min(depth, self._depths.get(stream.id, depth))

    async def _level(self, stream: Stream) -> Level:
        spans, depth = self._spans[stream.id], self._depths[stream.id]
        reads = []
        if depth < self._limits.depth:
            slots = stream.order if stream.aggregate else range(len(stream.inputs))
            self._left += max(len(slots) - self._limits.streams, 0)
            for slot in slots[: self._limits.streams]:
                source, support = stream.inputs[slot], stream.support(slot)
                reads.append((source.stream, str(support)))
                self._wait(source, await self._read_by(support, spans, source), depth + 1)
        count, more = await self._count(stream, spans)
        first, last = await self._shown(stream, spans, count, more=more)
        times = [*first.times.tolist(), *last.times.tolist()]
        changes = spans - TimeIntervals.of(MIN_TIME, stream.limit) if stream.kind == "raw" else EMPTY
        return Level(
            stream.record(),
            depth,
            spans,
            tuple(reads),
            stream.aggregate,
            count,
            more,
            first,
            last,
            await self._store.revisions(stream.id, times) if stream.kind == "derived" and times else {},
            changes,
            stream.retention,
        )

    async def _read_by(self, support: Support, spans: TimeIntervals, source: Stream) -> TimeIntervals:
        """What outputs in ``spans`` read of ``source``."""
        if isinstance(support, Pointwise):
            return spans
        found = EMPTY
        for start, end in spans.pairs:
            found |= TimeIntervals.of(*await self._bounds(support, start, end, source))
        return found

    async def _bounds(self, support: Support, start: int, end: int, source: Stream) -> tuple[int, int]:
        if isinstance(support, Previous):
            return await self._back_to(source, shift(start, 1), support.n), end
        after = 0
        if isinstance(support, Window):
            low, high, after = shift(start, 1 - support.lookback), shift(end, support.lookahead), support.after
            if support.before:
                low = await self._back_to(source, low, support.before)
            else:
                low = shift(start, -max(support.lookback - 1, 0))
        else:
            assert isinstance(support, Prefix)
            low, high, after = MIN_TIME, end, support.after
        if after:
            following = await self._store.read(source.id, high, MAX_TIME, limit=1)
            high = following.first_time if following else MAX_TIME
        return low, high

    async def _back_to(self, source: Stream, time: int, count: int) -> int:
        """Just before the last ``count`` instances at or before ``time``."""
        found = await self._store.last(source.id, time, count)
        return found.first_time - 1 if len(found) == count else MIN_TIME

    async def _count(self, stream: Stream, spans: TimeIntervals) -> tuple[int, bool]:
        """How many instances there are in ``spans``, and whether there may be more."""
        count = 0
        for pair in spans.pairs:
            limit = _COUNTED - count
            page = await self._store.read(stream.id, *pair, limit=limit + 1, budget=_COUNTED_BYTES)
            if is_full(page, limit + 1, _COUNTED_BYTES):
                return count + min(len(page), limit), True
            count += len(page)
        return count, False

    async def _shown(self, stream: Stream, spans: TimeIntervals, count: int, *, more: bool) -> tuple[Batch, Batch]:
        rows = self._limits.rows
        if not more and count <= 2 * rows:
            return await self._some(stream, spans, 2 * rows, newest=False), NOTHING
        first = await self._some(stream, spans, rows, newest=False)
        return first, await self._some(stream, spans, rows, newest=True)

    async def _some(self, stream: Stream, spans: TimeIntervals, rows: int, *, newest: bool) -> Batch:
        found: list[Batch] = []
        for pair in reversed(spans.pairs) if newest else spans.pairs:
            if rows > 0:
                page = await self._store.read(
                    stream.id, *pair, limit=rows, newest=newest, budget=self._limits.size // 2
                )
                found.append(page)
                rows -= len(page)
        return Batch.concat(found[::-1] if newest else found)
