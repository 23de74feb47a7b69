"""What all stores share: marks, what a commit touches, and what a stream record says about a raw stream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from hs_stream.core.time import MIN_TIME, TimeIntervals, format_time
from hs_stream.engine.ports import StreamChange, StreamRecord

__all__ = ["complete", "merge_marks", "missing", "touched"]


def missing(found: Mapping[str, Any], saved: Mapping[str, Any]) -> str:
    """What a store has lost that ``found`` what this process had ``saved`` as its state; empty where it is nothing."""
    older = [
        f"{name} {found.get(name) or 0} instead of {saved[name]}"
        for name in ("append", "commit")
        if (found.get(name) or 0) < (saved.get(name) or 0)
    ]
    if not older:
        return ""
    proven = found.get("proven") or 0
    since = f"; what came after about {format_time(proven)} is missing" if proven > 0 else ""
    return f"it is at {' and '.join(older)}{since}"


def complete(record: StreamRecord) -> StreamRecord:
    """``record`` as `hs_stream.engine.ports.Store.streams` says it.

    The coverage of a raw stream is ``(-inf, upper]``, empty without an ``upper``; nothing is covered up to ``floor``.
    """
    coverage, floor = record.coverage, record.floor
    if record.kind == "raw":
        coverage = TimeIntervals() if record.upper is None else TimeIntervals.of(MIN_TIME, record.upper)
    if floor is not None:
        coverage -= TimeIntervals.of(MIN_TIME, floor)
    return record if coverage is record.coverage else replace(record, coverage=coverage)


def touched(change: StreamChange) -> list[int]:
    """Every time that ``change`` writes or retracts, in no particular order."""
    return [*change.inserted.times.tolist(), *change.revised.times.tolist(), *change.retracted]


def merge_marks(marks: Iterable[tuple[int, TimeIntervals]]) -> dict[int, TimeIntervals]:
    """The union of the marks of each stream."""
    merged: dict[int, TimeIntervals] = {}
    for stream, intervals in marks:
        merged[stream] = merged[stream] | intervals if stream in merged else intervals
    return merged
