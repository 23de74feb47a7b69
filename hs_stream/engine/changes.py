"""What the outbox, and who listens, are told of a commit."""

from __future__ import annotations

from hs_stream.engine.ports import Change, OutboxEntry, StreamChange

__all__ = ["changes_of"]


def changes_of(seq: int, change: StreamChange) -> OutboxEntry:
    """The outbox entry of one stream's part of a commit: its changes, ascending in time."""
    revision = change.revisions.get
    changes = [Change(time, "insert", value, revision(time, 0)) for time, value in change.inserted]
    if change.revised or change.retracted:
        changes += [Change(time, "revise", value, revision(time, 0)) for time, value in change.revised]
        changes += [Change(time, "retract", None, revision(time, 0)) for time in change.retracted]
        changes.sort(key=lambda item: item.time)
    return OutboxEntry(seq, change.stream, changes)
