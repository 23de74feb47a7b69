"""Every store that ships keeps every rule of the port; and the suite notices stores that do not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from hs_stream.core.batch import Batch
from hs_stream.core.errors import LawViolation
from hs_stream.engine.ports import Append, Commit, Store, StreamRecord
from hs_stream.store.memory import MemoryStore
from hs_stream.testing.check_store import CHECKS, check_store
from hs_stream.testing.faults import FaultyStore


@pytest.mark.parametrize("check", CHECKS)
async def test_rule(factory: Callable[[], Store], check: str) -> None:
    assert await check_store(factory, only=[check]) == [check]


async def test_all_rules_on_one_storage(factory: Callable[[], Store]) -> None:
    assert await check_store(factory) == [*CHECKS]


async def test_factory_may_be_async_and_a_faulty_store_without_fault_is_the_store() -> None:
    store = MemoryStore()

    async def make() -> Store:
        return FaultyStore(store)

    assert await check_store(make) == [*CHECKS]


class _Broken(MemoryStore):
    """Breaks the rule that ``fault`` names."""

    fault = ""

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
        if self.fault == "start included":
            start -= 1
        if self.fault == "newest ignored":
            newest = False
        if self.fault == "budget ignored":
            budget = None
        batch = await super().read(stream, start, end, limit=limit, newest=newest, budget=budget)
        if self.fault == "ints become floats":
            return Batch.of((t, float(v) if type(v) is int else v) for t, v in batch)
        return batch

    async def append(self, append: Append) -> None:
        if self.fault == "marks lost":
            append = Append(append.seq, append.inserts, append.upserts, {}, append.dead_letters)
        if self.fault == "append repeated":
            self._append_seq = 0
        await super().append(append)

    async def register(self, records: Sequence[StreamRecord]) -> None:
        if self.fault == "floor lost":
            records = [replace(record, floor=None) for record in records]
        await super().register(records)

    async def commit(self, commit: Commit) -> None:
        if self.fault == "commit repeated":
            self._commit_seq = commit.seq - 1
        await super().commit(commit)
        if self.fault == "revisions lost":
            for change in commit.streams:
                for time in change.retracted:
                    self._make(change.stream).revisions.pop(time, None)

    async def revisions(self, stream: int, times: Sequence[int]) -> dict[int, int]:
        found = await super().revisions(stream, times)
        return {time: found.get(time, 0) for time in times} if self.fault == "revision zero" else found

    async def sinks(self, names: Sequence[str]) -> dict[str, int]:
        if self.fault == "a new sink takes what others had":
            self._cursors = dict.fromkeys(names, self._start) | dict(self._cursors)
        if self.fault == "a sink stays":
            names = [*names, *(name for name in self._cursors if name not in names)]
        return await super().sinks(names)

    async def published(self, sink: str, seq: int) -> None:
        if self.fault == "cursor goes back":
            self._cursors = dict.fromkeys(self._cursors, 0)
        for name in [*self._cursors] if self.fault == "one cursor for all" else [sink]:
            if self.fault != "never forgets":
                await super().published(name, seq)


FAULTS = {
    "start included": "ranges",
    "newest ignored": "ranges",
    "budget ignored": "budgets",
    "ints become floats": "values",
    "marks lost": "marks",
    "append repeated": "appends",
    "commit repeated": "histories",
    "revisions lost": "commits",
    "revision zero": "commits",
    "cursor goes back": "outbox",
    "never forgets": "outbox",
    "one cursor for all": "sinks",
    "a new sink takes what others had": "sinks",
    "a sink stays": "sinks",
    "floor lost": "floors",
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_suite_notices(fault: str) -> None:
    store = _Broken()
    store.fault = fault
    with pytest.raises(LawViolation, match="the store breaks the rule"):
        await check_store(lambda: store, only=[FAULTS[fault]])
