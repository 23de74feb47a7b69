"""Who computed what, when and why: evaluations are summed up per node and cause, and written every `PERIOD`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hs_stream.core.time import MAX_TIME, MIN_TIME
from hs_stream.engine.ports import HistoryEntry
from hs_stream.plan.streams import Stream

__all__ = ["PERIOD", "Tally"]

PERIOD: Final = 10_000
"""Milliseconds between two history entries of one node and cause."""


@dataclass(slots=True)
class _Sum:
    tool: str
    first: int
    """The lowest id of its streams."""
    start: int = MAX_TIME
    end: int = MIN_TIME
    instances: int = 0
    changed: int = 0


class Tally:
    """Sums of evaluations since the last `take`. Its size is bounded by nodes times causes."""

    def __init__(self) -> None:
        self.session = ""
        self._sums: dict[tuple[str, str], _Sum] = {}
        self._taken = MIN_TIME

    def belongs_to(self, session: str) -> None:
        """The session that entries name from now on."""
        self.session = session

    def add(self, stream: Stream, cause: str, start: int, end: int, instances: int, changed: int) -> None:
        """``stream`` was evaluated on ``(start, end]`` because of ``cause``."""
        key = (stream.node, cause)
        known = self._sums.get(key)
        if known is None:
            known = self._sums[key] = _Sum("" if stream.tool is None else stream.tool.pin, stream.id)
        known.first = min(known.first, stream.id)
        known.start = min(known.start, start)
        known.end = max(known.end, end)
        known.instances += instances
        known.changed += changed

    def take(self, now: int, *, everything: bool = False) -> list[HistoryEntry]:
        """The entries that are due at ``now``, by stream; all of them with ``everything``."""
        if not self._sums or (now < self._taken + PERIOD and not everything):
            return []
        entries = [
            HistoryEntry(
                now, node, found.tool, found.start, found.end, found.instances, found.changed, cause, self.session
            )
            for (node, cause), found in sorted(self._sums.items(), key=lambda item: (item[1].first, item[0]))
        ]
        self._sums.clear()
        self._taken = now
        return entries
