"""Up to where each sink of a store has published: what all stores share of `hs_stream.engine.ports.Store.sinks`.

1. ``start`` is the seq from which the outbox is kept: the lowest cursor. While no sink is known, it stays.
2. The first sinks of a store begin at ``start``. So does whoever is there when a store is opened of the last version,
   which had one cursor for all.
3. A sink that comes to others begins at what is committed. A sink that is not named any more is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["advanced", "chosen", "start_of"]


def start_of(cursors: Mapping[str, int], start: int) -> int:
    """Rule 1."""
    return min(cursors.values(), default=start)


def chosen(cursors: Mapping[str, int], start: int, names: Iterable[str], committed: int) -> tuple[dict[str, int], int]:
    """The cursors and the start after `Store.sinks`. With no name, nothing that is committed is kept for anybody."""
    begin = committed if cursors else start
    # The last version moves the start alone: what is before it is gone.
    found = {name: max(cursors.get(name, begin), start) for name in names}
    return found, start_of(found, committed)


def advanced(cursors: Mapping[str, int], sink: str, seq: int) -> Mapping[str, int]:
    """The cursors after `Store.published`: they never go back. The same object where nothing is news."""
    known = cursors.get(sink)
    return cursors if known is None or seq <= known else {**cursors, sink: seq}
