"""A store that crashes or stands still at chosen moments of its durable writes, or takes its time, for tests.

>>> import asyncio
>>> from hs_stream.engine.ports import Append
>>> from hs_stream.store.memory import MemoryStore
>>> async def crash() -> None:
...     faulty = FaultyStore(MemoryStore(), crash_at=1, when="before")
...     await faulty.open()
...     await faulty.append(Append(1))
>>> asyncio.run(crash())
Traceback (most recent call last):
hs_stream.testing.faults.Crash: before durable write 1 (append)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import Any, Final, Literal, TypeVar

from hs_stream.core.batch import Batch
from hs_stream.engine.ports import (
    Append,
    Commit,
    DeadLetter,
    DocumentKind,
    HistoryEntry,
    Holder,
    OutboxEntry,
    Recovery,
    Snapshot,
    Store,
    StreamRecord,
)

__all__ = ["Crash", "FaultyStore", "Gate", "When"]

Answer = TypeVar("Answer")
_TURNS: Final = (0, 0, 0, 1, 2, 5, 20)
When = Literal["before", "after", "marked", "journaled", "applied"]
"""``marked``, ``journaled`` and ``applied`` are moments inside of a write, for stores with an ``on_step`` hook
(`MongoStore`)."""


class Crash(BaseException):
    """Stands for the end of the process. A ``BaseException``, so that no handler of errors survives it."""


class Gate:
    """What one process passes at each *point* of its writes; at the ``at``-th from now on (0: never) it stands still.

    It does so once, whatever ``at`` is afterwards. From then on everything of it that comes to a point, or calls its
    store, waits until `open`. Use it in one event loop.
    """

    def __init__(self, at: int = 0) -> None:
        self.at = at
        self.where = ""
        """The point at which it stood still; empty before."""
        self._kept = 0
        self._way = asyncio.Event()
        self._way.set()
        self._still: asyncio.Future[None] | None = None

    async def point(self, where: str) -> None:
        """Before or after something durable."""
        if self.at and not self.where:
            self.at -= 1
            if not self.at:
                self.where = where
                self._way.clear()
                self.still().set_result(None)
        await self._way.wait()

    async def passed(self) -> None:
        """Anywhere else."""
        await self._way.wait()

    def still(self) -> asyncio.Future[None]:
        """Done as soon as the process stands still."""
        if self._still is None:
            self._still = asyncio.get_running_loop().create_future()
        return self._still

    @property
    def is_passed_freely(self) -> bool:
        """Whether nobody would wait at the next point."""
        return not self.at and self._way.is_set()

    def close(self) -> None:
        """Hold everybody up, without that the process counts as standing still."""
        self._way.clear()
        self.at, self._kept = 0, self.at

    def open(self) -> None:
        """Let everybody go on."""
        self.at, self._kept = self._kept or self.at, 0
        self._way.set()


class FaultyStore:
    """``store`` until the ``crash_at``-th durable write (from 1; 0 for never), then nothing but `Crash`.

    Durable writes are `register`, `append`, `commit` and `put`. At the crash the store is abandoned
    (``store.abandon()`` if it has that, else ``close()``): what it only remembered is lost, as in a killed process.
    Open a store over the same storage to go on; a `MemoryStore` is its own storage, so open ``inner`` again.

    With a ``gate``, it stands still there: its points are before and after each durable write, and those inside that a
    ``store`` with an attribute ``gate`` passes.

    With ``pace``, other tasks go on for some turns of the event loop before each call takes effect, and again before
    its caller hears of it, as with a database behind a network; how many is drawn from ``pace``.
    """

    def __init__(
        self,
        store: Store,
        crash_at: int = 0,
        when: When = "after",
        *,
        pace: Random | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.name = store.name
        self.inner = store
        self.crash_at = crash_at
        self.when = when
        self.pace = pace
        self.gate = gate or Gate()
        if hasattr(store, "gate"):
            store.gate = self.gate
        self.writes = 0
        self._under_way = 0
        self._rest = asyncio.Event()
        self._rest.set()
        self.crashed = False

    async def _dawdle(self) -> None:
        if self.pace is not None:
            for _ in range(self.pace.choice(_TURNS)):
                await asyncio.sleep(0)

    async def _ask(self, call: Callable[[Store], Awaitable[Answer]]) -> Answer:
        await self._dawdle()
        await self.gate.passed()
        store = self._alive()
        try:
            answer = await call(store)
        except Exception:
            self._alive()  # it was called by a process that has ended meanwhile, and failed for that reason
            raise
        await self._dawdle()
        await self.gate.passed()
        self._alive()
        return answer

    async def at_rest(self) -> None:
        """Return when no durable write is under way: each is done, refused, or held up before it."""
        await self._rest.wait()

    async def _crash(self, what: str) -> None:
        self.crashed = True
        await getattr(self.inner, "abandon", self.inner.close)()
        raise Crash(f"{self.when} durable write {self.writes} ({what})")

    def _alive(self) -> Store:
        if self.crashed:
            raise Crash(f"the process ended {self.when} durable write {self.crash_at}")
        return self.inner

    async def _write(self, what: str, write: Callable[[], Awaitable[None]]) -> None:
        await self._ask(lambda _: self._write_now(what, write))

    async def _write_now(self, what: str, write: Callable[[], Awaitable[None]]) -> None:
        await self.gate.point(f"before {what}")
        self._under_way += 1
        self._rest.clear()
        try:
            await self._crash_or_write(what, write)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._rest.set()
        await self.gate.point(f"after {what}")

    async def _crash_or_write(self, what: str, write: Callable[[], Awaitable[None]]) -> None:
        self.writes += 1
        due = self.writes == self.crash_at
        if due and self.when == "before":
            await self._crash(what)
        if due and self.when not in ("before", "after"):
            await self._write_part(what, write)
            return
        await write()
        if due:
            await self._crash(what)

    async def _write_part(self, what: str, write: Callable[[], Awaitable[None]]) -> None:
        """Crash inside. A write that has no such moment goes through, and the next one takes the fault."""
        reached = False

        def on_step(step: str) -> None:
            nonlocal reached
            if step == self.when:
                reached = True
                raise Crash(step)

        store: Any = self.inner
        previous, store.on_step = store.on_step, on_step
        try:
            await write()
        except Crash:
            await self._crash(what)
        finally:
            store.on_step = previous
        if not reached:
            self.crash_at += 1

    # --- the port ---

    async def claim(self, owner: str, for_ms: int, *, instead_of: str = "") -> Holder:
        return await self._ask(lambda store: store.claim(owner, for_ms, instead_of=instead_of))

    async def open(self) -> Recovery:
        return await self._ask(lambda store: store.open())

    async def close(self) -> None:
        if not self.crashed:
            await self.inner.close()

    async def ping(self) -> None:
        await self._ask(lambda store: store.ping())

    async def streams(self) -> list[StreamRecord]:
        return await self._ask(lambda store: store.streams())

    async def register(self, records: Sequence[StreamRecord]) -> None:
        await self._write("register", lambda: self.inner.register(records))

    async def append(self, append: Append) -> None:
        await self._write("append", lambda: self.inner.append(append))

    async def commit(self, commit: Commit) -> None:
        await self._write("commit", lambda: self.inner.commit(commit))

    async def advance(self, uppers: Mapping[int, int]) -> None:
        await self._ask(lambda store: store.advance(uppers))

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
        return await self._ask(lambda store: store.read(stream, start, end, limit=limit, newest=newest, budget=budget))

    async def last(self, stream: int, instant: int, count: int) -> Batch:
        return await self._ask(lambda store: store.last(stream, instant, count))

    async def get(self, stream: int, times: Sequence[int]) -> Batch:
        return await self._ask(lambda store: store.get(stream, times))

    async def revisions(self, stream: int, times: Sequence[int]) -> dict[int, int]:
        return await self._ask(lambda store: store.revisions(stream, times))

    async def count(self, stream: int, start: int, end: int) -> int:
        return await self._ask(lambda store: store.count(stream, start, end))

    async def snapshot(self, stream: int, instant: int) -> Snapshot | None:
        return await self._ask(lambda store: store.snapshot(stream, instant))

    async def snapshots(self, stream: int, start: int, end: int, *, limit: int) -> list[Snapshot]:
        return await self._ask(lambda store: store.snapshots(stream, start, end, limit=limit))

    async def outbox(self, after: int, limit: int) -> list[OutboxEntry]:
        return await self._ask(lambda store: store.outbox(after, limit))

    async def sinks(self, names: Sequence[str]) -> Mapping[str, int]:
        found: Mapping[str, int] = {}

        async def write() -> None:
            nonlocal found
            found = await self.inner.sinks(names)

        await self._write("sinks", write)
        return found

    async def published(self, sink: str, seq: int) -> None:
        await self._ask(lambda store: store.published(sink, seq))

    async def dead_letters(self, limit: int, *, budget: int | None = None) -> list[DeadLetter]:
        return await self._ask(lambda store: store.dead_letters(limit, budget=budget))

    async def history(self, limit: int, stream: str | None = None) -> list[HistoryEntry]:
        return await self._ask(lambda store: store.history(limit, stream))

    async def put(self, kind: DocumentKind, key: str, document: Mapping[str, Any]) -> None:
        await self._write("put", lambda: self.inner.put(kind, key, document))

    async def documents(self, kind: DocumentKind) -> dict[str, dict[str, Any]]:
        return await self._ask(lambda store: store.documents(kind))
