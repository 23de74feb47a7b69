"""What the engine asks of the outside: stores, sources, sinks and clocks.

Durability rules of a `Store`, which every adapter keeps and ``hs_stream.testing.check_store`` checks:

1. `Store.append` is durable when it returns. Its ``changed`` marks become durable no later than the readings they are
   about: after a crash inside of it, there may be marks without readings, never late readings without marks.
2. `Store.commit` is atomic and durable: after a crash inside of it, either all of it is there after `Store.open`
   or nothing of it. Its outbox entries are part of it.
3. Both are idempotent: the same `Append` or `Commit` (same ``seq``) once more changes nothing.
4. What is not there is empty, not an error. What fails raises `StoreUnavailable`, and may be tried again.
5. The right to write (`Store.claim`) has a token, which rises with each change of its owner. Every durable write names
   the token that the store object has, and is `Fenced` as a whole when another one is current: so a process that was
   frozen anywhere, however long, changes nothing behind its successor. What the object has: the token that it claimed;
   without a claim, the one that was current when it was opened. A claim behind `Store.open` goes on with what is known
   since then only if nobody had the right in between; else every write is `Fenced` until the next opening.
6. A ``seq`` that is there already is the same append or commit, or else the writer is `Fenced`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, Protocol, runtime_checkable

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.stream import StreamId
from hs_stream.core.time import EMPTY, TimeIntervals
from hs_stream.core.value import Value

__all__ = [
    "Append",
    "Change",
    "Clock",
    "Commit",
    "DeadLetter",
    "Delivery",
    "HistoryEntry",
    "Holder",
    "Mirror",
    "OutboxEntry",
    "Placing",
    "Publication",
    "PublishedStream",
    "Reading",
    "Recovery",
    "Results",
    "Sink",
    "Snapshot",
    "Source",
    "Store",
    "StreamChange",
    "StreamRecord",
    "ToolRecord",
    "Unpublished",
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
    """The state of a fold behind the input instance at ``time``; ``state`` is a canonical value."""

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


@dataclass(frozen=True, slots=True)
class StreamChange:
    """What a commit does to one stream.

    ``inserted`` at times without a stored instance, ``revised`` over stored ones, ``retracted`` times whose instances
    go. ``revisions`` gives the new revision of each time of the three whose revision is not 0 (a retracted time keeps
    its revision, so that a later instance at that time continues it). ``fresh``: ``inserted`` lies behind everything
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


class Store(Protocol):
    """Keeps streams, instances, snapshots, the outbox and small documents. See the module's rules."""

    name: str

    async def claim(self, owner: str, for_ms: int, *, instead_of: str = "") -> Holder:
        """Take or renew the right to write, for ``for_ms`` from now on; who has it then.

        With 0 the owner gives it back; who does not have it changes nothing, and learns who has: ``""`` is nobody, so
        that it could be taken. Another owner keeps it until its own time is up, unless it is ``instead_of``. The time
        is that of the store, never the caller's: one clock for all that ask. Atomic. A renewal keeps the token,
        everything else that succeeds makes it rise. May be called before `open`.
        """

    async def open(self) -> Recovery:
        """Connect, create what is missing, finish an interrupted commit. `StoreUnavailable` says what to do."""

    async def close(self) -> None:
        """Flush and disconnect. Idempotent."""

    async def ping(self) -> None:
        """Return when the store answers, else raise `StoreUnavailable`."""

    async def streams(self) -> list[StreamRecord]:
        """Every stream, by id."""

    async def register(self, records: Sequence[StreamRecord]) -> None:
        """Insert or replace these records, all of them; durable.

        Snapshots of a stream whose fingerprint changes go with the old one.
        """

    async def append(self, append: Append) -> None:
        """Rules 1 and 3."""

    async def commit(self, commit: Commit) -> None:
        """Rules 2 and 3."""

    async def advance(self, uppers: Mapping[int, int]) -> None:
        """Remember watermarks of raw streams (a convenience for readers; need not be durable at once)."""

    async def read(
        self,
        stream: int,
        start: int,
        end: int,
        *,
        limit: int | None = None,
        newest: bool = False,
        budget: int | None = None,
    ) -> Batch:
        """Instances in ``(start, end]``, ascending; with ``limit`` the first (or with ``newest`` the last) of them.

        ``budget`` bounds the bytes, since a value may be of any size: reading ends with the instance that fills it, and
        what follows is not loaded. `hs_stream.core.size` measures, and its ``is_full`` says whether there may be more.
        """

    async def last(self, stream: int, instant: int, count: int) -> Batch:
        """The last ``count`` instances at or before ``instant``, ascending."""

    async def get(self, stream: int, times: Sequence[int]) -> Batch:
        """The instances that exist at ``times``, ascending."""

    async def revisions(self, stream: int, times: Sequence[int]) -> dict[int, int]:
        """The revisions of ``times``, retracted ones included, where they are not 0."""

    async def count(self, stream: int, start: int, end: int) -> int:
        """How many instances are in ``(start, end]``."""

    async def snapshot(self, stream: int, instant: int) -> Snapshot | None:
        """The last snapshot at or before ``instant``."""

    async def snapshots(self, stream: int, start: int, end: int, *, limit: int) -> list[Snapshot]:
        """The first ``limit`` snapshots in ``(start, end]``, ascending."""

    async def outbox(self, after: int, limit: int) -> list[OutboxEntry]:
        """Entries with ``seq > after`` in order of (seq, stream): all of at most ``limit`` commits."""

    async def sinks(self, names: Sequence[str]) -> Mapping[str, int]:
        """From now on the outbox is for the sinks ``names``: up to which ``seq`` each of them has published; durable.

        An entry is kept until each of them has published it. One that comes to others begins at what is committed; the
        first ones take all that waits. One that is not named any more is forgotten, and keeps nothing. Before the first
        call, nobody is known, and everything waits.
        """

    async def published(self, sink: str, seq: int) -> None:
        """``sink``, one that `sinks` named last, has published every entry up to ``seq``. Need not be durable at once.

        The cursor never goes back.
        """

    async def dead_letters(self, limit: int, *, budget: int | None = None) -> list[DeadLetter]:
        """The newest dead letters, newest first; with ``budget`` no more than the one that fills so many bytes."""

    async def history(self, limit: int, stream: str | None = None) -> list[HistoryEntry]:
        """The newest history entries, newest first."""

    async def put(self, kind: DocumentKind, key: str, document: Mapping[str, Any]) -> None:
        """Insert or replace a small document; durable."""

    async def documents(self, kind: DocumentKind) -> dict[str, dict[str, Any]]:
        """Every document of ``kind`` by key."""


# --- connectors ---


class Placing(Enum):
    """At which time a reading is stored, and what happens to another value that stands there already.

    The same value at the same time is never a change. `hs_stream.engine.placing` has the rules.
    """

    REPLACE = "replace"
    """The later one wins."""
    CORRECT = "correct"
    """The later one wins, unless it came on another topic or names another device: then it is refused."""
    MERGE = "merge"
    """Objects become one with the members of both. A member that differs is treated as by `CORRECT`."""
    UPDATE = "update"
    """The time does not move with the content: what differs is a reading at its arrival."""
    REPEAT = "repeat"
    """As `UPDATE`, of a message that the broker may have sent before: what is there already, it changes nothing."""
    RETAINED = "retained"
    """As `REPEAT`, of a retained message: when it came to differ is not known, so then it is refused."""
    ARRIVAL = "arrival"
    """It has no time of its own. ``time`` is its arrival; it is stored there, or right behind what is there already."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One decoded reading of one source: event time (ms) and a canonical value."""

    source: str
    meta: tuple[tuple[str, str], ...]
    time: int
    value: Value
    placing: Placing = Placing.REPLACE


@dataclass(slots=True)
class Delivery:
    """Readings together with their acknowledgement.

    ``arrival`` in ms. ``ack()`` is called exactly once, after the readings are durable, in the order in which the
    source produced its deliveries, and never from another thread. ``size`` is the payload's size in bytes.
    ``origins`` are ``(first, topic, payload)``: the readings from index ``first`` on, up to the next entry's, came in
    that message. They are kept for dead letters and to tell devices apart, and may be missing. ``refused(letter)`` is
    told of each reading that cannot be stored, before ``ack()``. ``asked``: somebody asked for these readings (a file,
    an import), so that one of long ago is meant, and no clock that goes wrong.
    """

    readings: list[Reading]
    dead_letters: list[DeadLetter]
    arrival: int
    ack: Callable[[], None]
    size: int = 0
    origins: Sequence[tuple[int, str, bytes]] = ()
    refused: Callable[[DeadLetter], None] | None = None
    asked: bool = False

    def origin(self, index: int) -> tuple[str, bytes] | None:
        """Topic and payload of the message that reading ``index`` came in, if it is known."""
        at = bisect_left(self.origins, (index + 1,)) - 1
        return self.origins[at][1:] if at >= 0 else None


class Source(Protocol):
    """Produces deliveries. Must bound what it holds: while nobody takes deliveries, it stops taking from outside."""

    name: str

    async def run(self, deliver: Callable[[Delivery], Awaitable[None]], connected: Callable[[bool], None]) -> None:
        """Deliver until cancelled. ``await deliver(d)`` returns when there is room, not when ``d`` is durable.

        ``connected(True/False)`` reports whether silence means that nothing was sent (rule 1.5 of the semantics).
        Raises only `ConfigurationError`; everything else is retried with a bounded, jittered backoff.
        """

    async def stop(self) -> None:
        """Take no more deliveries from outside. Acknowledgements still go out until `run` is cancelled."""


@dataclass(frozen=True, slots=True)
class Publication:
    """One change on its way out. ``newest``: no later instance of the stream was ever published."""

    stream: StreamId
    workflow: str
    plates: tuple[str, ...]
    tool: str
    change: Change
    newest: bool
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Unpublished:
    """A publication that the other side will not have. ``reason`` is one of few words; ``size`` in bytes."""

    publication: Publication
    topic: str
    reason: str
    message: str
    size: int


class Sink(Protocol):
    """Publishes changes, at least once and in order per stream.

    ``name``: no two sinks of an engine have the same. The store keeps a cursor under it, from one start to the next.
    ``forgets_ms``: the other side, when it is killed, may forget what it confirmed within so many ms before. The sink
    sends that again by itself when it reconnects, and the engine when it was killed meanwhile.
    """

    name: str
    forgets_ms: int

    async def run(self, connected: Callable[[bool], None]) -> None:
        """Keep the connection until cancelled; reconnect with a bounded, jittered backoff."""

    async def publish(self, publications: Sequence[Publication]) -> Sequence[Unpublished]:
        """Return when the other side has confirmed all of them, but for those that it will never have.

        May wait for a connection for ever. One that can never be confirmed must not hold up the others: it is returned.
        Where it is cancelled, or raises, the same publications come again.
        """

    # A sink may have ``takes(options) -> bool`` besides: whether it publishes a node with these options of ``publish``.
    # Without it, it gets every node that is published.


@dataclass(frozen=True, slots=True)
class PublishedStream:
    """A stream that a workflow publishes, with the options of ``publish``."""

    stream: StreamId
    workflow: str
    plates: tuple[str, ...]
    tool: str
    options: Mapping[str, Any]


class Results(Protocol):
    """What there is to publish, for whom that helps."""

    def published(self) -> Iterable[PublishedStream]:
        """Every stream of today that is published."""

    async def newest(self, stream: StreamId) -> Value:
        """The newest value of ``stream``, ``None`` where there is none. Waits while the store is away."""


@runtime_checkable
class Mirror(Protocol):
    """Shows the newest value of each stream elsewhere, and learns from `Results` what there is when it begins.

    So nothing is owed to it: it has no cursor, and what comes while it is not there it need not be told. That it fails
    must end nothing.
    """

    name: str

    async def run(self, connected: Callable[[bool], None]) -> None:
        """As `Sink.run`."""

    def observe(self, publications: Sequence[Publication]) -> None:
        """Take notice of changes that are stored by now. Must return at once."""

    # ``takes`` as in `Sink`.


class Guard(Protocol):
    """Says whether this process may still write to its store."""

    def is_due(self) -> bool:
        """Whether `renew` must be called before anything is written. Asked before every write: must cost nothing."""

    async def renew(self) -> None:
        """Return when this process may write. Raises what ends it, and `StoreUnavailable`."""


class Clock(Protocol):
    """Where the engine gets the time from. ``hs_stream.testing`` has one that is turned by hand."""

    def now(self) -> int:
        """Milliseconds since the epoch."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    def subscribe(self, turned: Callable[[], None]) -> None:
        """Call ``turned`` whenever the time is turned by hand (a virtual clock); a real one need not."""
