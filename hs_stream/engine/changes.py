"""What the outbox is told of a commit."""

from __future__ import annotations

from hs_stream.engine.ports import OutboxEntry, StreamChange

__all__ = ["changes_of"]


def changes_of(seq: int, change: StreamChange) -> OutboxEntry:
    """The outbox entry of one stream's part of the commit ``seq``."""
    return OutboxEntry(seq, change.stream, change.changes)
