"""What is asked before something is removed, over HTTP and on the command line.

1. What is named is one name and some plate values; each stream of that name that agrees with them is meant.
2. One stream in an interval with both ends is removed as it is asked for. More streams, or an open interval, need a
   confirmation: the number of streams. Where that is not their number, nothing is removed.
3. What would go is counted for whoever is asked. Up to a stream's limit nothing would: that is final, by retention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from hs_stream.core.errors import ConfigurationError, HsStreamError, NotFound, did_you_mean
from hs_stream.core.stream import SUGGESTED, StreamId, nearest_streams, suggestion
from hs_stream.core.time import MAX_TIME, MIN_TIME, format_time
from hs_stream.engine.engine import Engine, StreamStatus

__all__ = ["NotConfirmed", "matching", "purge"]

_NAMED: Final = 100
"""Streams that a question names one by one."""


@dataclass(frozen=True, slots=True)
class Extent:
    """What a purge would remove: ``count`` streams, the first of them with their instances, and all ``instances``."""

    count: int
    instances: int
    start: int
    end: int
    streams: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        what = self.streams[0][0] if self.count == 1 else f"{self.count} streams"
        return f"{self.instances} instances of {what} in ({format_time(self.start)}, {format_time(self.end)}]"

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "count": self.count,
            "instances": self.instances,
            "start": format_time(self.start),
            "end": format_time(self.end),
            "streams": [{"stream": stream, "instances": count} for stream, count in self.streams],
        }


class NotConfirmed(HsStreamError):
    """Rule 2. Nothing is removed; ``extent`` is what would go."""

    def __init__(self, extent: Extent) -> None:
        super().__init__(
            f"this removes {extent}, and is not confirmed",
            hint=f"add confirm={extent.count} to this very request if that is meant",
        )
        self.extent = extent


def matching(engine: Engine, wanted: StreamId) -> list[StreamStatus]:
    """Rule 1, by id. `NotFound` where there is none, `ConfigurationError` for a plate that the name is not on."""
    named = engine.status(wanted.name)
    plates = {key for status in named for key, _ in status.stream.meta}
    for key, _ in wanted.meta:
        if named and key not in plates:
            # Not what to write instead: that could be more than what was meant.
            hint = did_you_mean(key, sorted(plates), "it is on") or "it is on none"
            raise ConfigurationError(f"{wanted.name} is not on a plate {key!r}", hint=hint)
    found = [status for status in named if set(wanted.meta) <= set(status.stream.meta)]
    if not found:
        known = [status.stream for status in named or engine.status()]
        hint = (
            suggestion(wanted, nearest_streams(wanted, known, SUGGESTED))
            or "hs-stream streams, or /api/streams, lists those there are"
        )
        raise NotFound(f"there is no stream {wanted}", hint=hint)
    return sorted(found, key=lambda status: status.id)


async def purge(
    engine: Engine, found: Sequence[StreamStatus], start: int, end: int, confirm: int | None
) -> list[dict[str, Any]]:
    """Remove what ``found`` hold in ``(start, end]``: of each stream how many went. `NotConfirmed`."""
    open_ended = start <= MIN_TIME or end >= MAX_TIME
    if confirm != len(found) and (confirm is not None or open_ended or len(found) > 1):
        raise NotConfirmed(await _extent(engine, found, start, end))
    return [
        {
            "stream": str(status.stream),
            "instances": await engine.purge(status.stream, start, end),
            "limit": None if status.limit is None else format_time(status.limit),
        }
        for status in found
    ]


async def _extent(engine: Engine, found: Sequence[StreamStatus], start: int, end: int) -> Extent:
    streams: list[tuple[str, int]] = []
    total = 0
    for status in found:
        low = start if status.limit is None else max(start, status.limit)
        count = await engine.store.count(status.id, low, end) if low < end else 0
        total += count
        if len(streams) < _NAMED:
            streams.append((str(status.stream), count))
    return Extent(len(found), total, start, end, tuple(streams))
