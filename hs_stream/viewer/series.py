"""What a chart shows of a stream: at most some thousand points, whatever is stored.

1. Up to `MOST` instances of the interval, with at most `PAGE` bytes, are read, and drawn as they are or, above
   `POINTS`, thinned out so that extremes stay (MinMaxLTTB: Van Der Donckt et al., 2023). Such a series is *exact* or
   *thinned*.
2. Of more, the first `_EACH` of `_BINS` equal parts of the interval are read: the series is *sampled*, and says so.
   The cost of opening a chart is bounded, and never delays live data by more than one such read.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from tsdownsample import NaNMinMaxLTTBDownsampler

from hs_stream.core.batch import Batch
from hs_stream.core.size import PAGE, is_full
from hs_stream.core.value import Value

if TYPE_CHECKING:
    from hs_stream.core.stream import StreamId
    from hs_stream.engine.engine import Engine

__all__ = ["MOST", "POINTS", "Series", "number_at", "numeric_fields", "read_series"]

MOST: Final = 20_000
POINTS: Final = 2_000
_BINS: Final = 250
_EACH: Final = 40
_AT_ONCE: Final = 8
_MOST_FIELDS: Final = 30

Point = list[float | int | None]
"""``[time in ms, number]``: as ECharts wants it."""


@dataclass(frozen=True, slots=True)
class Series:
    """``kind``: see the module's rules. ``numeric`` is false when instances were read and none of them is a number."""

    points: list[Point]
    kind: Literal["exact", "thinned", "sampled"]
    read: int
    numeric: bool
    last_time: int | None


def number_at(value: Value, field: str | None) -> float | int | None:
    """``value`` (its component ``field``) as a number to draw: true is 1; ``None`` when it is none."""
    if field is not None:
        value = value.get(field) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, (int, float)) and value == value and abs(value) != float("inf"):
        return value
    return None


def numeric_fields(values: Sequence[Value]) -> list[str]:
    """The components of objects that can be drawn, sorted."""
    names = {
        name for value in values if isinstance(value, dict) for name in value if number_at(value, name) is not None
    }
    return sorted(names)[:_MOST_FIELDS]


async def read_series(engine: Engine, stream: StreamId, start: int, end: int, field: str | None = None) -> Series:
    """The series of ``(start, end]``. Raises `NotFound`."""
    batch = await engine.read(stream, start, end, limit=MOST + 1, budget=PAGE)
    if not is_full(batch, MOST + 1, PAGE):
        return _series(_numbers(batch, field), "exact")
    first = max(start, batch.first_time - 1)
    edges = np.linspace(first, end, _BINS + 1).astype(np.int64).tolist()
    gate = asyncio.Semaphore(_AT_ONCE)

    async def part(low: int, high: int) -> Batch:
        async with gate:
            # The values, which may be large, are not kept.
            return _numbers(await engine.read(stream, low, high, limit=_EACH, budget=PAGE // _AT_ONCE), field)

    parts = await asyncio.gather(*(part(low, high) for low, high in itertools.pairwise(edges)))
    newest = await engine.read(stream, start, end, limit=_EACH, newest=True, budget=PAGE // _AT_ONCE)
    return _series(Batch.concat([*parts]).update(_numbers(newest, field)), "sampled")


def _numbers(batch: Batch, field: str | None) -> Batch:
    """What is drawn of ``batch``: ``None`` where it is no number."""
    return Batch.build(batch.times, [number_at(value, field) for value in batch.plain()])


def _series(batch: Batch, kind: Literal["exact", "sampled"]) -> Series:
    times = batch.times
    numbers = batch.plain()
    points: list[Point] = [[time, number] for time, number in zip(times.tolist(), numbers, strict=True)]
    numeric = any(number is not None for number in numbers)
    last = batch.last_time if batch else None
    if len(points) <= POINTS:
        return Series(points, kind, len(batch), numeric or not points, last)
    column = np.array([np.nan if number is None else number for number in numbers], dtype=np.float64)
    kept = NaNMinMaxLTTBDownsampler().downsample(times, column, n_out=POINTS)
    thinned = [points[index] for index in np.unique(kept).tolist()]
    return Series(thinned, "thinned" if kind == "exact" else kind, len(batch), numeric, last)
