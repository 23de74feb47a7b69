"""What the engine asks of the outside: stores, sources, sinks, clocks and backends.

Durability rules of a `Store`, which every adapter keeps and ``hs_stream.testing.check_store`` checks:

1. `Store.append` is durable when it returns. Its ``changed`` marks become durable no later than the readings they are
   about: after a crash inside of it, there may be marks without readings, never late readings without marks.
2. `Store.commit` is atomic and durable: after a crash inside of it, either all of it is there after `Store.open`
   or nothing of it. Its outbox entries are part of it.
3. Both are idempotent: the same `Append` or `Commit` (same ``seq``) once more changes nothing.
4. What is not there is empty, not an error. What fails raises `StoreUnavailable`, and may be tried again.
5. The right to write (`Store.claim`) has a token, which rises with each change of its owner. Every durable write names
   the token that the store object has, and is `Fenced` as a whole when another one is current: so a process that was
   frozen anywhere, however long, changes nothing once it has a successor. What the object has: the token that it
   claimed; without a claim, the one that was current when it was opened. A claim after `Store.open` goes on with what
   is known since then only if nobody had the right in between; else every write is `Fenced` until the next opening.
6. A ``seq`` that is there already is the same append or commit, or else the writer is `Fenced`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, runtime_checkable

from hs_stream.compute.task import Result, Task
from hs_stream.core.batch import Batch
from hs_stream.core.kinds import UNKNOWN, Meaning
from hs_stream.core.records import (
    Append,
    Change,
    Commit,
    DeadLetter,
    DocumentKind,
    HistoryEntry,
    Holder,
    OutboxEntry,
    Recovery,
    Snapshot,
    StreamChange,
    StreamRecord,
    ToolRecord,
    gist,
    within,
)
from hs_stream.core.stream import StreamId
from hs_stream.core.value import Value

__all__ = [
    "Append",
    "Backend",
    "Change",
    "Clock",
    "Commit",
    "DeadLetter",
    "Delivery",
    "DocumentKind",
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
    """It has no time of its own. ``time`` is its arrival; it is stored there, or right after what is there already."""


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
    """One change on its way out. ``newest``: no later instance of the stream was ever published.

    ``meaning``: of which kind and in which unit its value is, as far as that is known.
    """

    stream: StreamId
    workflow: str
    plates: tuple[str, ...]
    tool: str
    change: Change
    newest: bool
    options: Mapping[str, Any]
    meaning: Meaning = UNKNOWN


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
    """A stream that a workflow publishes, with the options of ``publish``; ``meaning`` as in `Publication`."""

    stream: StreamId
    workflow: str
    plates: tuple[str, ...]
    tool: str
    options: Mapping[str, Any]
    meaning: Meaning = UNKNOWN


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


class Backend(Protocol):
    """Runs tasks, here or elsewhere. What travels is bytes: see `hs_stream.compute.packed`, also for what has none."""

    @property
    def slots(self) -> int:
        """So many tasks the engine may give it at once, from 1 on."""

    def run(self, task: Task) -> Result | Awaitable[Result]:
        """What `hs_stream.compute.run.run` says of ``task``: at once, or, when it runs elsewhere, awaited.

        Results may come in any order. Where one does not come (a worker has died), waiting for it raises
        `BackendUnavailable`: the step is broken off, and done again. Who waits may be cancelled: then nobody wants the
        result any more.
        """
