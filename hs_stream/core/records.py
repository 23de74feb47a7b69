"""What a store is given and what it gives. Who writes a store imports all of it from `hs_stream.engine.ports`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.stream import StreamId
from hs_stream.core.time import EMPTY, TimeIntervals
from hs_stream.core.value import Value

__all__ = [
    "Append",
    "Change",
    "Commit",
    "DeadLetter",
    "DocumentKind",
    "HistoryEntry",
    "Holder",
    "OutboxEntry",
    "Recovery",
    "Snapshot",
    "StreamChange",
    "StreamRecord",
    "ToolRecord",
    "gist",
    "within",
]


# --- streams ---


@dataclass(frozen=True, slots=True)
class ToolRecord:
    """Which tool version with which parameters (JSON-like) a stream is computed by."""

    name: str
    version: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """What is stored of a stream besides its instances.

    ``upper``: for a raw stream its watermark, for a derived one the end of everything that was ever computed; ``None``
    when nothing was. ``coverage`` of a raw stream is always ``(-inf, upper]`` and is not stored by callers.
    ``floor``: what lies at or before it is forgotten; a store leaves it out of the coverage that `Store.streams` says.
    ``closed``, not before ``floor``: nothing at or before it changes any more for those who read the stream.
    ``since``, of a raw stream: its readings before it came too late to say where streams without inputs begin.
    """

    id: int
    stream: StreamId
    kind: Literal["raw", "derived"]
    workflow: str = ""
    tool: ToolRecord | None = None
    fingerprint: str = ""
    coverage: TimeIntervals = EMPTY
    upper: int | None = None
    floor: int | None = None
    closed: int | None = None
    since: int | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a fold after the input instance at ``time``; ``state`` is a canonical value."""

    time: int
    state: Value


# --- writes ---


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Something that could not be used, kept with its reason. ``time`` is the arrival (ms).

    ``count``: how many readings or parts of the message it stands for. It is for counting, and not stored: the message
    says it too.
    """

    time: int
    source: str
    reason: str
    message: str
    topic: str = ""
    payload: bytes = b""
    count: int = 1


def within(letters: Iterable[DeadLetter], budget: int | None) -> Iterator[DeadLetter]:
    """The first of ``letters``, with the one with which their payloads and messages fill ``budget`` bytes."""
    left = budget
    for letter in letters:
        yield letter
        if left is not None:
            left -= len(letter.payload) + len(letter.message)
            if left <= 0:
                return


def gist(examples: Sequence[str], count: int) -> str:
    """The message of a letter that stands for ``count``, of which ``examples`` are the first.

    >>> gist(["element 0: no time", "element 1: no time"], 9)
    'element 0: no time; element 1: no time; 7 more (9 in this message)'
    """
    more = f"; {count - len(examples)} more ({count} in this message)" if count > len(examples) else ""
    return "; ".join(examples) + more


@dataclass(frozen=True, slots=True)
class Append:
    """Raw readings of one delivery round.

    ``inserts`` hold instances later than anything stored in their streams; ``upserts`` may replace. ``changed`` marks
    the late part: intervals in which descendants may already be computed. ``purged``: what is stored in these intervals
    goes first; of a derived stream too, at or before its floor. ``seq`` rises by one per append.
    """

    seq: int
    inserts: Sequence[tuple[int, Batch]] = ()
    upserts: Sequence[tuple[int, Batch]] = ()
    changed: Mapping[int, TimeIntervals] = field(default_factory=dict)
    dead_letters: Sequence[DeadLetter] = ()
    purged: Mapping[int, TimeIntervals] = field(default_factory=dict)


@dataclass(frozen=True)  # no slots: `changes` is kept
class StreamChange:
    """What a commit does to one stream.

    ``inserted`` at times without a stored instance, ``revised`` over stored ones, ``retracted`` times whose instances
    go. ``revisions`` gives the new revision of each time of the three whose revision is not 0 (a retracted time keeps
    its revision, so that a later instance at that time continues it). ``fresh``: ``inserted`` is later than everything
    ever stored in the stream (a hint for speed). ``coverage`` and ``upper`` are the values after the commit.
    ``snapshots`` are added; stored ones inside of ``snapshots_dropped`` go first.
    ``publish``: the change goes to the outbox.
    """

    stream: int
    coverage: TimeIntervals
    upper: int | None
    inserted: Batch = field(default_factory=lambda: NOTHING)
    revised: Batch = field(default_factory=lambda: NOTHING)
    retracted: Sequence[int] = ()
    revisions: Mapping[int, int] = field(default_factory=dict)
    fresh: bool = False
    snapshots: Sequence[Snapshot] = ()
    snapshots_dropped: TimeIntervals = EMPTY
    publish: bool = False

    @cached_property
    def changes(self) -> Sequence[Change]:
        """One by one, ascending in time. Worked out once, for the store, the sinks and who listens."""
        revision = self.revisions.get
        changes = [Change(time, "insert", value, revision(time, 0)) for time, value in self.inserted]
        if self.revised or self.retracted:
            changes += [Change(time, "revise", value, revision(time, 0)) for time, value in self.revised]
            changes += [Change(time, "retract", None, revision(time, 0)) for time in self.retracted]
            changes.sort(key=lambda item: item.time)
        return changes


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """Who computed what, when (ms) and why. ``cause``: arrival, late, backfill, request, version, retry."""

    time: int
    stream: str
    tool: str
    start: int
    end: int
    instances: int
    changed: int
    cause: str
    session: str = ""


@dataclass(frozen=True, slots=True)
class Commit:
    """One executor step. ``seq`` rises by one per commit.

    ``consumed``: every append with a ``seq`` up to it is fully accounted for in the coverages of this commit, so its
    marks may be forgotten. ``proven``: the latest instant that idle watermarks were derived from (ms).
    """

    seq: int
    streams: Sequence[StreamChange]
    consumed: int
    proven: int
    history: Sequence[HistoryEntry] = ()


# --- outbox ---


@dataclass(frozen=True, slots=True)
class Change:
    """One published change of one instance. ``value`` of a retraction is ``None``."""

    time: int
    kind: Literal["insert", "revise", "retract"]
    value: Value
    revision: int


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """The changes of one stream by the commit ``seq``, ascending in time."""

    seq: int
    stream: int
    changes: Sequence[Change]


@dataclass(frozen=True, slots=True)
class Recovery:
    """Where a store was left. ``changed`` are the marks of appends not yet consumed.

    ``append_seq`` and ``commit_seq`` are the last used ones, 0 for none. ``published``: the cursor of each known sink.
    """

    changed: Mapping[int, TimeIntervals]
    append_seq: int
    commit_seq: int
    published: Mapping[str, int]
    proven: int | None


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has the right to write to a store, and the token that its writes name."""

    owner: str
    token: int


DocumentKind = Literal["workflows", "plates", "sessions", "feed"]
