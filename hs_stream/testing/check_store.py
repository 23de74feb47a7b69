"""The conformance suite of `hs_stream.engine.ports.Store`, for every store that ships with us and for yours.

>>> import asyncio
>>> from hs_stream.store.memory import MemoryStore
>>> store = MemoryStore()
>>> "ranges" in asyncio.run(check_store(lambda: store))
True
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.errors import Fenced, LawViolation
from hs_stream.core.size import fitting, is_full
from hs_stream.core.stream import StreamId
from hs_stream.core.time import EMPTY, EVERYTHING, MAX_TIME, MIN_TIME, TimeInterval, TimeIntervals, to_ms
from hs_stream.core.value import MAX_DEPTH, Value, same
from hs_stream.engine.ports import (
    Append,
    Commit,
    DeadLetter,
    HistoryEntry,
    OutboxEntry,
    Recovery,
    Snapshot,
    Store,
    StreamChange,
    StreamRecord,
    ToolRecord,
)

__all__ = ["CHECKS", "HARD_VALUES", "check_store", "entries_of"]

_LONG: Final = 600_000
_PATIENCE: Final = 1000
_MOMENT: Final = 0.2
"""Seconds for which a store that cannot ask in the same breath may believe what it was told last."""
_FAR: Final = to_ms(datetime(2100, 1, 1, tzinfo=UTC))
"""The time of history and dead letters: a store that forgets them by age may do so at any moment."""
Factory = Callable[[], Awaitable[Store]] | Callable[[], Store]


def _deep() -> Value:
    value: Value = 1.5
    for level in range(MAX_DEPTH - 1):
        value = [value] if level % 2 else {"$deep": value}
    return value


HARD_VALUES: Final[tuple[Value, ...]] = (
    None, True, False, 0, 1, -1, 1.0, 0.0, -0.0, 5e-324, 1e308, math.inf, -math.inf, math.nan,
    (1 << 31) - 1, 1 << 31, -(1 << 31) - 1, (1 << 53) + 1, (1 << 63) - 1, -(1 << 63),
    "", "text", "nul \0 inside", "\u00e4\u20ac\U0001f321", "1", b"", b"\x00\xff\x80", b"\xc3",
    datetime(2015, 2, 4, 17, 51, 0, 123000, UTC), datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC),
    TimeInterval(0, 1), TimeInterval(MIN_TIME, MAX_TIME), TimeInterval(-(1 << 60), 1 << 60),
    [], {}, [1, 1.0, True, None, "x"], [[[]], {}], {"a": 1, "b": {"c": [1.5, -0.0, math.nan]}},
    {"a.b": 1, "$set": 2, "$ref": "x", "$id": 1, ".": 3, "$": 4, "": 5, "_id": 6, "__proto__": 7},
    {"_hs": "interval", "start": 0, "end": 1}, {"_hs": {"_hs": "x"}}, {"_hs_hs": 1, "_hs$a": 2, "_hsx": 3},
    {"$ref": "c", "$id": 1, "$db": "d"}, {"$date": 0}, {"$oid": "0" * 24}, {"$binary": b"x"},
    [TimeInterval(1, 2), {"t": datetime(2020, 1, 1, tzinfo=UTC), "b": b"\x00"}], _deep(),
)  # fmt: skip
"""Values whose type or bits are easily lost, all canonical."""


def _must(condition: bool, rule: str) -> None:
    if not condition:
        raise LawViolation(f"the store breaks the rule: {rule}")


def _equal(found: Any, expected: Any, rule: str) -> None:
    if found != expected:
        raise LawViolation(f"the store breaks the rule: {rule}; found {found!r}, expected {expected!r}")


def entries_of(entries: Iterable[OutboxEntry]) -> list[list[Any]]:
    """Outbox entries as plain lists, so that `hs_stream.core.value.same` can compare them."""
    return [[e.seq, e.stream, [[c.time, c.kind, c.value, c.revision] for c in e.changes]] for e in entries]


class _Bench:
    """A store under test, with the bookkeeping that the engine would do."""

    def __init__(self, factory: Factory) -> None:
        self._factory = factory
        self.store: Store
        self.recovery: Recovery
        self.append_seq = self.commit_seq = self._streams = 0

    async def open(self) -> None:
        made = self._factory()
        self.store = await made if inspect.isawaitable(made) else made
        await self._recover()

    async def _recover(self) -> None:
        self.recovery = await self.store.open()
        self.append_seq = max(self.append_seq, self.recovery.append_seq)
        self.commit_seq = max(self.commit_seq, self.recovery.commit_seq)

    async def reopen_same(self) -> None:
        """The same object once more."""
        await self.store.close()
        await self._recover()

    async def reopen(self) -> Recovery:
        await self.store.close()
        await self.open()
        return self.recovery

    async def stream(self, kind: Any = "derived", **fields: Any) -> int:
        """A new registered stream."""
        if not self._streams:
            self._streams = max((record.id for record in await self.store.streams()), default=0)
        self._streams += 1
        name = f"check_{self._streams}"
        await self.store.register([StreamRecord(self._streams, StreamId.make(name, {"house": "1"}), kind, **fields)])
        return self._streams

    async def append(
        self,
        inserts: Mapping[int, Batch] | None = None,
        upserts: Mapping[int, Batch] | None = None,
        changed: Mapping[int, TimeIntervals] | None = None,
        dead_letters: Sequence[DeadLetter] = (),
        purged: Mapping[int, TimeIntervals] | None = None,
    ) -> Append:
        self.append_seq += 1
        made = Append(
            self.append_seq,
            [*(inserts or {}).items()],
            [*(upserts or {}).items()],
            changed or {},
            dead_letters,
            purged or {},
        )
        await self.store.append(made)
        return made

    async def commit(self, *streams: StreamChange, consumed: int = 0, proven: int = 0, **fields: Any) -> Commit:
        self.commit_seq += 1
        made = Commit(self.commit_seq, streams, consumed, proven, **fields)
        await self.store.commit(made)
        return made

    async def contents(self, stream: int) -> Batch:
        return await self.store.read(stream, MIN_TIME, MAX_TIME)


def _change(stream: int, **fields: Any) -> StreamChange:
    inserted, revised = Batch.of(fields.pop("inserted", ())), Batch.of(fields.pop("revised", ()))
    return StreamChange(
        stream,
        fields.pop("coverage", TimeIntervals.of(0, 100)),
        fields.pop("upper", 100),
        inserted=inserted,
        revised=revised,
        **fields,
    )


# --- instances ---


async def _ranges(b: _Bench) -> None:
    """A range excludes its start and includes its end; limit takes the first, newest the last of it."""
    stream, items = await b.stream("raw"), [(t, t / 2) for t in (-20, -10, 0, 10, 20, 30)]
    await b.append({stream: Batch.of(items)})
    other = await b.stream("raw")
    await b.append({other: Batch.of([(5, 5)])})
    bounds = (MIN_TIME, -21, -20, -1, 0, 9, 10, 30, 31, MAX_TIME)
    for start in bounds:
        for end in bounds:
            inside = Batch.of([item for item in items if start < item[0] <= end])
            _equal(await b.store.read(stream, start, end), inside, f"read is ({start}, {end}]")
            _equal(await b.store.count(stream, start, end), len(inside), f"count is over ({start}, {end}]")
            for limit in (0, 1, 2, 100):
                first = await b.store.read(stream, start, end, limit=limit)
                _equal(first, inside.slice_index(0, limit) if limit else NOTHING, "limit takes the first, ascending")
                last = await b.store.read(stream, start, end, limit=limit, newest=True)
                _equal(last, inside.slice_index(len(inside) - limit, len(inside)) if limit else NOTHING,
                       "newest takes the last, ascending")  # fmt: skip
    everything = Batch.of(items)
    for instant in bounds:
        for count in (0, 1, 3, 100):
            expected = everything.last(instant, count) if count else NOTHING
            _equal(await b.store.last(stream, instant, count), expected, "last is at or before, ascending")
    _equal(
        await b.store.get(stream, [30, 11, -10, 30]),
        Batch.of([(-10, -5.0), (30, 15.0)]),
        "get is ascending, only what exists",
    )
    _equal(await b.store.get(stream, []), NOTHING, "get of no times is empty")


async def _budgets(b: _Bench) -> None:
    """With a budget a read ends after the instance that fills it, from either end, and is full by `is_full`."""
    texts = ["x" * size for size in (10, 5_000, 20, 7_000, 30, 9_000)]
    numbers = [t / 2 for t in range(300)]
    for values in (texts, [{"text": text} for text in texts], numbers, [value > 9 for value in numbers]):
        stream, items = await b.stream("raw"), Batch.of(enumerate(values))
        await b.append({stream: items})
        for budget in (1, 100, 5_100, 6_000, 20_000, 1 << 20):
            for limit in (None, 3, 1000):
                count = min(fitting(values, budget), limit or len(values))
                found = await b.store.read(stream, MIN_TIME, MAX_TIME, limit=limit, budget=budget)
                _equal(found, items.slice_index(0, count), "a budget ends a read after the one that fills it")
                _must(is_full(found, limit, budget) or count == len(values), "a read that ended by its budget is full")
                count = min(fitting(reversed(values), budget), limit or len(values))
                found = await b.store.read(stream, MIN_TIME, MAX_TIME, limit=limit, newest=True, budget=budget)
                wanted = items.slice_index(len(values) - count, len(values))
                _equal(found, wanted, "with newest, a budget ends a read at the one that fills it from the end")
    letters = [DeadLetter(_FAR + n, "mqtt", "json", "no JSON", "a/b", b"x" * 1000) for n in range(10)]
    await b.append({}, dead_letters=letters)
    _equal(await b.store.dead_letters(100, budget=3_000), letters[:-4:-1], "a budget ends dead letters")
    _equal(await b.store.dead_letters(2, budget=1 << 20), letters[:-3:-1], "a limit ends dead letters")


async def _values(b: _Bench) -> None:
    """Every value comes back with its type and bits, from instances, the outbox and snapshots, and after a restart."""
    mixed, alone = await b.stream("raw"), [await b.stream("raw") for _ in HARD_VALUES]
    derived = await b.stream()
    items = Batch.of([*enumerate(HARD_VALUES)])
    await b.append({mixed: items} | {s: Batch.of([(7, v)]) for s, v in zip(alone, HARD_VALUES, strict=True)})
    numbers = {await b.stream("raw"): Batch.of([(t, kind(t % 3)) for t in range(50)]) for kind in (float, int, bool)}
    numbers[await b.stream("raw")] = Batch.of([(t, math.nan if t % 2 else -0.0) for t in range(9)])
    await b.append(numbers)
    await b.append(upserts={mixed: items})
    snapshots = [Snapshot(time, value) for time, value in items]
    await b.commit(_change(derived, inserted=items, snapshots=snapshots, publish=True))
    for _ in range(2):
        for stream in (mixed, derived):
            found = await b.contents(stream)
            for (time, value), (_, expected) in zip(found, items, strict=True):
                _must(same(value, expected), f"{expected!r} comes back as itself, not as {value!r} (time {time})")
        for stream, expected in zip(alone, HARD_VALUES, strict=True):
            _equal(
                await b.contents(stream), Batch.of([(7, expected)]), "a value alone in its stream comes back as itself"
            )
        for stream, batch in numbers.items():
            _equal(await b.contents(stream), batch, "numbers come back as themselves")
        for got, snapshot in zip(await b.store.snapshots(derived, -1, 1000, limit=1000), snapshots, strict=True):
            _must(
                same(got.state, snapshot.state),
                f"the snapshot {snapshot.state!r} comes back as itself, not as {got.state!r}",
            )
        entries = [entry for entry in await b.store.outbox(b.commit_seq - 1, 10) if entry.stream == derived]
        _must(
            same(entries_of(entries), [[b.commit_seq, derived, [[t, "insert", v, 0] for t, v in items]]]),
            "the outbox holds every value as itself",
        )
        await b.reopen()


async def _times(b: _Bench) -> None:
    """Times far outside of the years 1 to 9999 are stored and ordered like any other."""
    stream = await b.stream("raw")
    items = Batch.of([(t, float(i)) for i, t in enumerate((MIN_TIME + 1, -(1 << 50), -1, 0, 1, 1 << 50, MAX_TIME))])
    await b.append({stream: items})
    _equal(await b.contents(stream), items, "far times come back")
    _equal(await b.store.last(stream, -1, 2), items.slice_index(1, 3), "far times keep their order")
    odd = await b.stream(coverage=EVERYTHING, upper=MAX_TIME)
    spans = TimeIntervals([(MIN_TIME, -(1 << 50)), (0, 1), (1 << 50, MAX_TIME)])
    await b.commit(_change(odd, coverage=spans, upper=1 << 50))
    await b.reopen()
    record = {record.id: record for record in await b.store.streams()}[odd]
    _equal((record.coverage, record.upper), (spans, 1 << 50), "infinite and far bounds of a coverage come back")


async def _many(b: _Bench) -> None:
    """A large batch, an update across it, and a retraction of every other instance."""
    stream = await b.stream()
    items = [(t * 1000, float(t)) for t in range(5000)]
    await b.commit(_change(stream, inserted=items, fresh=True))
    _equal(await b.contents(stream), Batch.of(items), "a large batch comes back")
    times = [t for t, _ in items]
    _equal(await b.store.get(stream, times), Batch.of(items), "get takes thousands of times")
    await b.commit(_change(stream, inserted=[(5, -1.0)], revised=[(t, 0.5) for t in times[1::2]], retracted=times[::2],
                           revisions=dict.fromkeys(times, 1)))  # fmt: skip
    _equal(await b.contents(stream), Batch.of([(5, -1.0), *((t, 0.5) for t in times[1::2])]), "a large update is exact")
    _equal(await b.store.revisions(stream, [*times, 5]), dict.fromkeys(times, 1), "revisions of thousands of times")


# --- appends ---


async def _appends(b: _Bench) -> None:
    """An append replaces by time, and the same append once more changes nothing."""
    stream, letter = await b.stream("raw"), DeadLetter(_FAR, "mqtt", "not_json", "no JSON", "a/b", b"\xff\x00")
    made = await b.append({stream: Batch.of([(10, 1), (20, 2)])}, dead_letters=[letter])
    await b.append(upserts={stream: Batch.of([(10, "one"), (15, 1.5)])})
    expected = Batch.of([(10, "one"), (15, 1.5), (20, 2)])
    _equal(await b.contents(stream), expected, "the last write wins")
    letters = await b.store.dead_letters(1000)
    last = await b.append({stream: Batch.of([(30, 3)])}, dead_letters=[letter, letter])
    await b.store.append(last)
    expected = expected.update(Batch.of([(30, 3)]))
    _equal(await b.contents(stream), expected, "the same append twice changes nothing")
    _equal(await b.store.dead_letters(1000), [letter, letter, *letters], "the same append twice adds no dead letter")
    await b.reopen()
    _equal(await b.contents(stream), expected, "an append is durable")
    _equal((await b.store.dead_letters(2)), [letter, letter], "dead letters are durable, payload and all")
    _must(made.seq < last.seq, "sequence numbers rise")
    both = await b.append({stream: Batch.of([(40, 4)])}, {stream: Batch.of([(10, 0.5)])})
    _equal(
        await b.contents(stream), expected.update(Batch.of([(10, 0.5), (40, 4)])), "inserts and upserts in one append"
    )
    await b.store.append(both)


async def _purges(b: _Bench) -> None:
    """What is purged goes before anything is stored, also when nothing is stored; other streams stay."""
    stream, other = await b.stream("raw"), await b.stream("raw")
    items = Batch.of([(time, float(time)) for time in range(0, 100, 10)])
    await b.append({stream: items, other: items})
    spans = TimeIntervals([(10, 30), (80, MAX_TIME)])
    await b.append({}, {stream: Batch.of([(30, "new")])}, {stream: spans}, purged={stream: spans})
    expected = Batch.of([(time, float(time)) for time in (0, 10, 40, 50, 60, 70, 80)] + [(30, "new")])
    _equal(await b.contents(stream), expected, "a purge excludes its start, includes its end, and comes first")
    await b.append(purged={stream: TimeIntervals.of(MIN_TIME, 40)})
    recovery = await b.reopen()
    _equal(await b.contents(stream), expected.slice(40, MAX_TIME), "a purge outlives a restart")
    _equal(await b.contents(other), items, "a purge concerns its stream only")
    _equal(recovery.changed.get(stream), spans, "a purge is marked like every change")
    await b.commit(consumed=b.append_seq)


async def _marks(b: _Bench) -> None:
    """Marks last until a commit consumes the append that made them."""
    first, second = await b.stream("raw"), await b.stream("raw")
    one = await b.append(changed={first: TimeIntervals.of(0, 10)})
    two = await b.append(
        upserts={first: Batch.of([(30, 1)])}, changed={first: TimeIntervals.of(20, 30), second: EVERYTHING}
    )
    await b.store.append(two)
    union = {first: TimeIntervals([(0, 10), (20, 30)]), second: EVERYTHING}
    _equal(dict((await b.reopen()).changed), union, "marks are recovered, one set for each stream")
    _equal(b.recovery.append_seq, two.seq, "the sequence number of an append with marks is recovered")
    await b.commit(consumed=one.seq)
    _equal(
        dict((await b.reopen()).changed),
        {first: TimeIntervals.of(20, 30), second: EVERYTHING},
        "a commit consumes the marks of appends up to its consumed, and no other",
    )
    await b.commit(consumed=two.seq, proven=12345)
    _equal(dict((await b.reopen()).changed), {}, "consumed marks are forgotten")
    _equal(b.recovery.proven, 12345, "proven is recovered")
    plain = [await b.append({first: Batch.of([(t, t)])}) for t in (100, 200)]
    await b.commit(consumed=plain[-1].seq)
    _must((await b.reopen()).append_seq >= plain[-1].seq, "append_seq never falls behind what was consumed")
    fresh = await b.append(upserts={first: Batch.of([(100, 5)])}, changed={first: TimeIntervals.of(99, 100)})
    _equal(dict((await b.reopen()).changed), {first: TimeIntervals.of(99, 100)}, "a mark after a consumption stays")
    await b.commit(consumed=fresh.seq)


# --- commits ---


async def _commits(b: _Bench) -> None:
    """A commit replaces, keeps revisions through retractions, and the same commit once more changes nothing."""
    stream = await b.stream()
    await b.commit(_change(stream, inserted=[(10, 1.0), (20, 2.0), (30, 3.0)], fresh=True, upper=30))
    _equal(await b.store.revisions(stream, [10, 20, 30, 40]), {}, "revision 0 is not listed")
    made = await b.commit(
        _change(stream, inserted=[(25, 2.5)], revised=[(10, "one")], retracted=[20], revisions={10: 1, 20: 1},
                coverage=TimeIntervals([(0, 5), (8, 40)]), upper=40)
    )  # fmt: skip
    expected = Batch.of([(10, "one"), (25, 2.5), (30, 3.0)])
    for _ in range(2):
        _equal(await b.contents(stream), expected, "a commit inserts, revises and retracts")
        _equal(await b.store.revisions(stream, [30, 20, 10]), {10: 1, 20: 1}, "a retracted time keeps its revision")
        record = {record.id: record for record in await b.store.streams()}[stream]
        _equal((record.coverage, record.upper), (TimeIntervals([(0, 5), (8, 40)]), 40), "coverage and upper are kept")
        await b.store.commit(made)
    _equal((await b.reopen()).commit_seq, made.seq, "commit_seq is recovered")
    await b.store.commit(made)
    _equal(await b.contents(stream), expected, "a commit is durable, and idempotent across a restart")
    await b.commit(
        _change(stream, inserted=[(20, 5)], retracted=[10], revisions={20: 2, 10: 2}, upper=None, coverage=EMPTY)
    )
    await b.reopen()
    _equal(await b.contents(stream), Batch.of([(20, 5), (25, 2.5), (30, 3.0)]), "an instance may come back")
    _equal(await b.store.revisions(stream, [10, 20, 25]), {10: 2, 20: 2}, "a revision continues after a retraction")
    record = {record.id: record for record in await b.store.streams()}[stream]
    _equal((record.coverage, record.upper), (EMPTY, None), "coverage can become empty and upper unknown")
    left, right = await b.stream(), await b.stream()
    await b.commit(_change(left, inserted=[(1, 1)]), _change(right, inserted=[(1, 2)]))
    _equal(await b.contents(left), Batch.of([(1, 1)]), "streams are kept apart")
    _equal(await b.contents(right), Batch.of([(1, 2)]), "a commit may change several streams")


async def _snapshots(b: _Bench) -> None:
    """Snapshots are dropped, then added, and found by time."""
    stream, made = await b.stream(), [Snapshot(t, {"n": t}) for t in (10, 20, 30, 40)]
    await b.commit(_change(stream, snapshots=made))
    _equal(await b.store.snapshot(stream, 9), None, "no snapshot before the first")
    for instant, expected in ((10, made[0]), (29, made[1]), (MAX_TIME, made[3])):
        _equal(await b.store.snapshot(stream, instant), expected, "a snapshot is the last at or before")
    _equal(await b.store.snapshots(stream, 10, 40, limit=2), made[1:3], "snapshots are in (start, end], the first ones")
    await b.commit(
        _change(stream, snapshots=[Snapshot(25, "new"), Snapshot(40, [])], snapshots_dropped=TimeIntervals.of(10, 30))
    )
    await b.reopen()
    _equal(
        await b.store.snapshots(stream, MIN_TIME, MAX_TIME, limit=9),
        [made[0], Snapshot(25, "new"), Snapshot(40, [])],
        "dropped snapshots go first, then new ones are added, replacing at equal times",
    )
    [record] = [record for record in await b.store.streams() if record.id == stream]
    await b.store.register([record])
    _equal(await b.store.snapshot(stream, 10), made[0], "registering what is there already changes nothing")
    await b.store.register([replace(record, fingerprint="another")])
    _equal(await b.store.snapshot(stream, MAX_TIME), None, "snapshots go with their fingerprint")
    big = Snapshot(50, [float(i) for i in range(20_000)])
    await b.commit(_change(stream, snapshots=[big]))
    _equal(await b.store.snapshot(stream, 50), big, "a snapshot may be large")


async def _outbox(b: _Bench) -> None:
    """The outbox holds published changes in order until every sink has them."""
    loud, quiet, second = await b.stream(), await b.stream(), await b.stream()
    start = b.commit_seq
    await b.store.sinks(["one"])
    await b.commit(
        _change(second, inserted=[(1, "x")], publish=True), _change(loud, inserted=[(5, 1.0), (6, 2.0)], publish=True)
    )
    await b.commit(_change(quiet, inserted=[(1, 1)]))
    await b.commit(
        _change(loud, inserted=[(4, None)], revised=[(5, 1.5)], retracted=[6], revisions={5: 1, 6: 1}, publish=True)
    )
    await b.commit(_change(loud, publish=True))
    one = [
        [start + 1, loud, [[5, "insert", 1.0, 0], [6, "insert", 2.0, 0]]],
        [start + 1, second, [[1, "insert", "x", 0]]],
    ]
    three = [[start + 3, loud, [[4, "insert", None, 0], [5, "revise", 1.5, 1], [6, "retract", None, 1]]]]
    for _ in range(2):
        _equal(entries_of(await b.store.outbox(start, 10)), [*one, *three], "the outbox is in order of (seq, stream)")
        _equal(entries_of(await b.store.outbox(start, 1)), one, "limit counts commits, and never cuts one")
        _equal(entries_of(await b.store.outbox(start + 1, 10)), three, "the outbox begins after a seq")
        await b.reopen()
    await b.store.published("one", start + 1)
    _equal(entries_of(await b.store.outbox(start + 1, 10)), three, "what is not published stays")
    _equal((await b.reopen()).published, {"one": start + 1}, "the cursor is recovered")
    _equal(entries_of(await b.store.outbox(start + 1, 10)), three, "what is not published survives a restart")
    await b.store.published("one", b.commit_seq)
    await b.store.published("one", start)
    _equal(await b.store.outbox(b.commit_seq, 10), [], "nothing follows the last commit")
    _equal((await b.reopen()).published, {"one": b.commit_seq}, "the cursor never goes back")
    await b.commit(_change(loud, inserted=[(50, 1)], publish=True))
    _equal(len(await b.store.outbox(b.commit_seq - 1, 10)), 1, "the outbox goes on after everything was published")


async def _sinks(b: _Bench) -> None:
    """Each sink has a cursor; the outbox holds what one of them still waits for."""
    loud = await b.stream()
    before = (await b.store.sinks([])) or {}
    _equal(before, {}, "no sink is known where none is named")

    async def commit(time: int) -> int:
        await b.commit(_change(loud, inserted=[(time, time)], publish=True))
        return b.commit_seq

    async def waiting(after: int = 0) -> list[int]:
        return [entry.seq for entry in await b.store.outbox(after, 100)]

    first = await commit(1)
    _equal((await b.reopen()).published, {}, "an empty choice is durable")
    _equal(await waiting(), [first], "what is committed while no sink is known waits")
    two = {"one": first - 1, "a.b $c": first - 1}
    _equal(await b.store.sinks([*two]), two, "the first sinks take all that waits")
    _equal((await b.reopen()).published, two, "sinks are durable")
    second = await commit(2)
    await b.store.published("one", second)
    await b.store.published("nobody", second)
    _equal(await waiting(), [first, second], "what one sink has is kept for the other")
    _equal((await b.reopen()).published, {"one": second, "a.b $c": first - 1}, "each cursor is recovered")
    _equal(await waiting(), [first, second], "what one sink has is kept for the other after a restart")
    await b.store.published("a.b $c", first)
    _equal(await waiting(), [second], "what every sink has goes")
    found = await b.store.sinks(["one", "a.b $c", "late"])
    _equal(found, {"one": second, "a.b $c": first, "late": second}, "a later sink begins at what is committed")
    _equal(await b.store.sinks([*found]), found, "naming the same sinks again changes nothing")
    third = await commit(3)
    _equal(await b.store.sinks(["late"]), {"late": second}, "a sink that stays keeps its cursor")
    _equal(await waiting(), [third], "a sink that is not named any more keeps nothing")
    _equal((await b.reopen()).published, {"late": second}, "a sink that is not named any more is forgotten")
    _equal(await b.store.sinks([]), {}, "all sinks may go")
    _equal(await waiting(), [], "nothing is kept for nobody")
    fourth = await commit(4)
    _equal(await waiting(), [fourth], "what is committed after the last sink has gone waits for the next")
    await b.store.sinks(["one"])
    _equal(await waiting(), [fourth], "the next sink takes what waits")


# --- records and documents ---


async def _records(b: _Bench) -> None:
    """Stream records come back as registered; a raw stream's coverage is everything up to its upper."""
    tool = ToolRecord("sliding_mean", "1.2.0", {"width": 300_000, "every": 1.5, "of": ["a", None], "a.b": {"$x": True}})
    derived = await b.stream(
        workflow="comfort", tool=tool, fingerprint="f00", coverage=TimeIntervals([(0, 5), (9, 12)]), upper=12
    )
    raw, silent = await b.stream("raw", upper=7), await b.stream("raw")
    await b.store.advance({raw: 9, silent: 3, 10**6: 1})
    await b.store.advance({raw: 8})
    for _ in range(2):
        found = {record.id: record for record in await b.store.streams()}
        _equal([*found], sorted(found), "streams come by id")
        _equal(
            found[derived],
            StreamRecord(derived, StreamId.make(f"check_{derived}", {"house": "1"}), "derived", "comfort", tool, "f00",
                         TimeIntervals([(0, 5), (9, 12)]), 12),
            "a record comes back as registered",
        )  # fmt: skip
        _equal((found[raw].upper, found[raw].coverage), (9, TimeIntervals.of(MIN_TIME, 9)), "advance never goes back")
        _equal(found[silent].coverage, TimeIntervals.of(MIN_TIME, 3), "a raw stream is covered up to its upper")
        _must(10**6 not in found, "advance of an unknown stream makes no record")
        await b.reopen()
    await b.commit(_change(derived, inserted=[(1, 1)]))
    await b.store.register([StreamRecord(derived, StreamId("renamed"), "derived", fingerprint="2")])
    await b.reopen()
    found = {record.id: record for record in await b.store.streams()}
    _equal(found[derived], StreamRecord(derived, StreamId("renamed"), "derived", fingerprint="2"), "register replaces")
    _equal(await b.contents(derived), Batch.of([(1, 1)]), "register leaves the instances alone")


async def _floors(b: _Bench) -> None:
    """A floor is durable, nothing is covered up to it whatever a commit says, and what lies there may go."""
    items = [(t, float(t)) for t in range(0, 100, 10)]
    cut = {"floor": 40, "closed": 60, "since": 50}
    raw = await b.stream("raw", upper=100, **cut)
    derived = await b.stream(coverage=TimeIntervals.of(MIN_TIME, 90), upper=90, **cut)
    before = await b.stream("raw", upper=10, floor=-(10**15), closed=-5)
    await b.append({raw: Batch.of(items)})
    await b.commit(_change(derived, inserted=items, coverage=TimeIntervals.of(MIN_TIME, 95), fresh=True))
    await b.append(purged={raw: TimeIntervals.of(MIN_TIME, 40), derived: TimeIntervals.of(MIN_TIME, 40)})
    for _ in range(2):
        found = {record.id: record for record in await b.store.streams()}
        kept = (found[raw].floor, found[raw].closed, found[raw].since)
        _equal(kept, (40, 60, 50), "floor, closed and since come back")
        _equal((found[before].floor, found[before].closed), (-(10**15), -5), "floor and closed before the epoch")
        _equal(found[raw].coverage, TimeIntervals.of(40, 100), "a raw stream is covered from its floor on")
        _equal(found[derived].coverage, TimeIntervals.of(40, 95), "a derived stream is covered from its floor on")
        for stream in (raw, derived):
            _equal(await b.contents(stream), Batch.of(items[5:]), "what lies at or before the floor may be purged")
        await b.reopen()
    await b.store.register([replace(found[raw], floor=70, closed=80), replace(found[derived], floor=None, closed=None)])
    await b.commit(_change(derived, coverage=TimeIntervals.of(0, 95)))
    await b.reopen()
    found = {record.id: record for record in await b.store.streams()}
    _equal(found[raw].coverage, TimeIntervals.of(70, 100), "a floor is replaced")
    _equal((found[derived].coverage, found[derived].floor), (TimeIntervals.of(0, 95), None), "a floor is taken back")


async def _claims(b: _Bench) -> None:
    """The right to write has one owner at a time, and runs out; its token rises with each change of owner."""
    store = b.store
    first = await store.claim("a", _LONG)
    _equal(first.owner, "a", "claim takes what is free")
    _equal(await store.claim("b", _LONG), first, "claim leaves it to its owner")
    _equal(await store.claim("b", 0), first, "who does not have it cannot give it back, and learns who has")
    _equal(await store.claim("a", _LONG), first, "a renewal keeps the token")
    _equal(await store.claim("c", _LONG, instead_of="b"), first, "instead_of names the owner")
    second = await store.claim("b", _LONG, instead_of="a")
    _equal(second.owner, "b", "claim takes it from the owner that it names")
    _must(second.token > first.token, "the token rises with each change of owner")
    await b.reopen()
    _equal(await b.store.claim("c", _LONG), second, "the owner outlives its process")
    _equal((await b.store.claim("b", 0)).owner, "b", "the owner gives it back")
    _equal((await b.store.claim("c", 0)).owner, "", "what was given back is nobody's")
    third = await b.store.claim("c", 1)
    _equal(third.owner, "c", "claim takes what was given back")
    _must(third.token > second.token, "the token rises when it was given back, too")
    fourth = await b.store.claim("d", _LONG)
    for _ in range(_PATIENCE):
        if fourth.owner == "d":
            break
        await asyncio.sleep(0.01)
        fourth = await b.store.claim("d", _LONG)
    _equal(fourth.owner, "d", "the right runs out by the clock of the store")
    await b.append()
    await b.commit()
    await b.store.claim("d", 0)


async def _fences(b: _Bench) -> None:
    """Whoever had the right to write changes nothing once another one has it, and hears of it."""
    raw, derived = await b.stream("raw"), await b.stream()
    await b.store.claim("old", _LONG)
    await b.append({raw: Batch.of([(1, "old")])})
    await b.commit(_change(derived, inserted=[(1, "old")], publish=True))
    await b.store.sinks(["one"])
    old, seq, known = b.store, b.commit_seq + 1, {record.id: record for record in await b.store.streams()}
    await b.open()
    if _storage(b.store) is _storage(old):
        await old.claim("old", 0)
        return  # one object, one writer
    new = b.store
    _equal((await new.claim("new", _LONG, instead_of="old")).owner, "new", "claim takes it from who is named")
    await asyncio.sleep(_MOMENT)
    await b.reopen_same()
    await b.append(upserts={raw: Batch.of([(1, "new")])}, changed={raw: TimeIntervals.of(0, 1)})
    await b.commit(_change(derived, revised=[(1, "new")], revisions={1: 1}, publish=True), consumed=b.append_seq)
    entries = entries_of(await new.outbox(seq - 1, 100))
    again = _change(derived, revised=[(1, "older")], revisions={1: 1}, publish=True)
    writes: dict[str, Callable[[], Awaitable[object]]] = {
        "append": lambda: old.append(Append(b.append_seq + 1, upserts=[(raw, Batch.of([(1, "older"), (2, 2)]))])),
        "purge": lambda: old.append(Append(b.append_seq + 1, purged={raw: TimeIntervals.of(0, 9)})),
        "commit of a seq that is used by now": lambda: old.commit(Commit(seq, [again], 0, 0)),
        "commit": lambda: old.commit(Commit(b.commit_seq + 1, [again], b.append_seq, 0)),
        "register": lambda: old.register([replace(known[derived], upper=7)]),
        "put": lambda: old.put("sessions", "fenced", {}),
        "sinks": lambda: old.sinks([]),
    }
    for _ in range(2):
        for what, write in writes.items():
            await _must_be_fenced(what, write)
        # Another one had it meanwhile: what this object knows is not true any more.
        await old.claim("old", _LONG, instead_of="new")
        await new.claim("new", _LONG, instead_of="old")
    with contextlib.suppress(Fenced):
        await old.advance({raw: 10**6})
    with contextlib.suppress(Fenced):
        await old.published("one", 10**6)
    with contextlib.suppress(Fenced):
        await old.close()
    with contextlib.suppress(Fenced):
        await new.close()
    await b.open()
    _equal(await b.contents(raw), Batch.of([(1, "new")]), "who is fenced changes no reading")
    _equal(await b.contents(derived), Batch.of([(1, "new")]), "who is fenced changes no result")
    _equal(entries_of(await b.store.outbox(seq - 1, 100)), entries, "who is fenced changes nothing in the outbox")
    found = {record.id: record for record in await b.store.streams()}
    _equal((found[raw].upper, found[derived].upper), (known[raw].upper, 100), "who is fenced changes no record")
    _must("fenced" not in await b.store.documents("sessions"), "who is fenced writes no document")
    await b.store.claim("new", 0)


def _storage(store: Store) -> Any:
    """A store in memory is its own storage, also inside of a `FaultyStore`."""
    return getattr(store, "inner", store)


async def _must_be_fenced(what: str, write: Callable[[], Awaitable[object]]) -> None:
    try:
        await write()
    except Fenced:
        return
    raise LawViolation(f"the store breaks the rule: who has lost the right to write is Fenced; not so: {what}")


async def _documents(b: _Bench) -> None:
    """Documents are kept by kind and key."""
    document = {"name": "x", "a.b": [1, 1.0, True, None], "$in": {"t": datetime(2020, 1, 1, tzinfo=UTC)}, "n": 1 << 40}
    await b.store.put("workflows", "with.dot $and / more", {"old": 1})
    await b.store.put("workflows", "with.dot $and / more", document)
    await b.store.put("plates", "with.dot $and / more", {})
    await b.reopen()
    found = await b.store.documents("workflows")
    _must(same(found.get("with.dot $and / more"), document), f"a document comes back as itself, not as {found!r}")
    _equal((await b.store.documents("plates")).get("with.dot $and / more"), {}, "kinds are kept apart")


async def _histories(b: _Bench) -> None:
    """History and dead letters come newest first, and history can be asked for one stream."""
    made = [HistoryEntry(_FAR + t, f"s{t % 2}", "mean@1.0.0", MIN_TIME, t, 5, 2, "late", "session") for t in range(6)]
    await b.commit(history=made[:3])
    last = await b.commit(history=made[3:])
    await b.store.commit(last)
    await b.reopen()
    _equal(await b.store.history(4), made[:1:-1], "history is newest first, the same commit twice adds nothing")
    _equal(await b.store.history(2, "s1"), [made[5], made[3]], "history of one stream")
    letters = [DeadLetter(_FAR + t, "mqtt", "future", "", "t", bytes([t, 0, 255])) for t in range(5)]
    await b.append(dead_letters=letters)
    _equal(await b.store.dead_letters(3), letters[:1:-1], "dead letters are newest first")


async def _absence(b: _Bench) -> None:
    """What is not there is empty, not an error."""
    store, unknown = b.store, 987_654
    await store.ping()
    for stream in (unknown, await b.stream()):
        _equal(await b.contents(stream), NOTHING, "an unknown stream has no instances")
        _equal(await store.last(stream, MAX_TIME, 5), NOTHING, "an unknown stream has no last instance")
        _equal(await store.get(stream, [1, 2]), NOTHING, "an unknown stream has nothing to get")
        _equal(await store.revisions(stream, [1, 2]), {}, "an unknown stream has no revisions")
        _equal(await store.count(stream, MIN_TIME, MAX_TIME), 0, "an unknown stream counts 0")
        _equal(await store.snapshot(stream, MAX_TIME), None, "an unknown stream has no snapshot")
        _equal(await store.snapshots(stream, MIN_TIME, MAX_TIME, limit=5), [], "an unknown stream has no snapshots")
    _equal(await store.documents("sessions"), {}, "no document is an empty dict")
    _equal(await store.history(5, "nobody"), [], "an unknown stream has no history")
    _equal(await store.outbox(1 << 40, 5), [], "nothing follows a far seq")
    await b.append()
    await b.commit()
    await b.append({unknown: NOTHING}, {unknown: NOTHING})
    await b.store.close()
    await b.store.close()
    await b.open()


CHECKS: Final[Mapping[str, Callable[[_Bench], Awaitable[None]]]] = {
    "absence": _absence,
    "ranges": _ranges,
    "budgets": _budgets,
    "values": _values,
    "times": _times,
    "many": _many,
    "appends": _appends,
    "purges": _purges,
    "marks": _marks,
    "commits": _commits,
    "snapshots": _snapshots,
    "outbox": _outbox,
    "sinks": _sinks,
    "records": _records,
    "floors": _floors,
    "claims": _claims,
    "fences": _fences,
    "documents": _documents,
    "histories": _histories,
}
"""The checks by name, in the order in which they run."""


async def check_store(factory: Factory, *, only: Iterable[str] = ()) -> list[str]:
    """Run the suite (or ``only`` some of its `CHECKS`) over one storage; the names of what was checked.

    ``factory`` returns a store that is not open, over *the same, at first empty* storage each time: it is called once
    more for each restart, after the store before was closed. `LawViolation` names the first rule that does not hold.
    """
    names = [*(only or CHECKS)]
    bench = _Bench(factory)
    await bench.open()
    try:
        for name in names:
            await CHECKS[name](bench)
    finally:
        await bench.store.close()
    return names
