"""Stores that a process may stand still inside of, and that tell what is stored, whoever has written it.

Their points come on top of those of `hs_stream.testing.faults.FaultyStore`.
"""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hs_stream.store.mongo import FRESH_MS, MongoStore
from hs_stream.store.sqlite import SqliteStore
from hs_stream.testing.faults import Gate

_BOOKS = ("outbox", "marks")
"""After a checkpoint, what is of no use any more goes."""
_WRITES = ("_insert", "_insert_careful", "_merge_command", "write", "delete")
"""Of `hs_stream.store.mongo.writer.Writer`: what sends one command that changes something."""


@contextmanager
def fenced_often() -> Iterator[None]:
    """An engine that is fenced cuts off its other tasks. PyMongo forgets sockets that were about to connect."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            yield
        finally:
            gc.collect()


class GatedSqlite(SqliteStore):
    """A point is in its thread, before each transaction: one that has begun holds the lock of the file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, synchronous="NORMAL")
        self.gate = Gate()
        self._loop = asyncio.get_running_loop()
        begin: Any = self._file.transaction

        @contextmanager
        def transaction(**options: Any) -> Iterator[Any]:
            if not self.gate.is_passed_freely:
                asyncio.run_coroutine_threadsafe(self.gate.point("before a transaction"), self._loop).result()
            with begin(**options) as db:
                yield db

        its: Any = self._file
        its.transaction = transaction

    async def stored(self) -> tuple[set[str], set[str]]:
        tables = await self._select("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {f"{name} {row}" for (name,) in tables for row in await self._select(f"SELECT * FROM {name}")}, set()


class GatedMongo(MongoStore):
    """Points are before and after each command that writes."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.gate = Gate()
        self._sent = 0
        its: Any = self._writer
        for name in _WRITES:
            setattr(its, name, self._gated(name, getattr(its, name)))
        if its.permitted is not None:
            its.permitted = self._permitted

    def _gated(self, name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def gated(*args: Any, **options: Any) -> Any:
            if name == "write" and not args[1]:
                return None
            what = f"{name.strip('_')} ({args[0] if isinstance(args[0], str) else args[1]})"
            await self.gate.point(f"before {what}")
            self._sent += 1
            try:
                result = await call(*args, **options)
            finally:
                self._sent -= 1
            await self.gate.point(f"after {what}")
            return result

        return gated

    async def _permitted(self) -> None:
        """Whoever stood still did so for long."""
        if self.gate.where:
            self._right._asked = -FRESH_MS
        await self._right._permit()

    async def answered(self) -> None:
        """A standalone server may carry out later what it has got: decision 9."""
        while self._sent and not self._link.transactions:
            await asyncio.sleep(0.001)

    async def stored(self) -> tuple[set[str], set[str]]:
        kept: set[str] = set()
        books: set[str] = set()
        for name in await self._link.database.list_collection_names():
            # A guard counts the transactions of a lane, those without anything to write too.
            found = self._link.collection(name).find({}, {"n": 0} if name == "state" else None)
            documents = {f"{name} {one}" async for one in found}
            (books if name in _BOOKS else kept).update(documents)
        return kept, books
