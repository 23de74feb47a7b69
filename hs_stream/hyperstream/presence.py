"""That somebody is at work on a store: the right to write to it, and a session, both renewed by a heartbeat."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from hs_stream.core.errors import Fenced, StoreUnavailable
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.ports import Clock, Store
from hs_stream.service.lease import LEASE_MS, Lease
from hs_stream.service.session import SessionBook
from hs_stream.service.wiring import version

__all__ = ["Presence"]

_BEAT_SECONDS: Final = 10.0
_INSTEAD: Final = "open it with read_only=True and ask the service over HTTP to compute"


class Presence:
    """`take` the right before the store is opened, `begin` the session behind that, and `end` both.

    ``workflows`` may grow meanwhile; ``counters()`` gives the session's figures. Hold ``access`` while the store is
    closed and opened again: the heartbeat goes on beside every call.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        workflows: Sequence[WorkflowDefinition],
        counters: Callable[[], Mapping[str, int]],
        lease_ms: int = LEASE_MS,
    ) -> None:
        self.access = asyncio.Lock()
        self.lease = Lease(store, lease_ms)
        self._book = SessionBook(store, clock, workflows, version(), counters)
        self._beating: asyncio.Task[None] | None = None

    @property
    def session(self) -> str:
        """Its id."""
        return self._book.id

    async def take(self) -> None:
        """`ConfigurationError` when a service, a command or another HyperStream has the store."""
        await self.lease.take(_INSTEAD)

    async def begin(self) -> None:
        """Write the session down, and go on doing so."""
        await self._book.write()
        self._beating = asyncio.create_task(self._beat(), name="session")

    async def _beat(self) -> None:
        # Not those of the lease and the book: they write to the log what is of no use to who works in a notebook. A
        # right that is lost is told by the next call; the one behind that asks for it again.
        while True:
            await asyncio.sleep(_BEAT_SECONDS)
            async with self.access:
                with contextlib.suppress(StoreUnavailable, Fenced):
                    await self.lease.renew()
                    await self.write()

    async def write(self) -> None:
        """Write down how far it is. Raises `StoreUnavailable`."""
        await self._book.write()

    async def end(self) -> None:
        """Say that it is over and give the right back, as far as the store answers and it is still ours."""
        with contextlib.suppress(StoreUnavailable, Fenced):
            if self._beating is not None:
                self._beating.cancel()
                self._beating = None
                await self._book.write(stopped=True)
            await self.lease.give_back()
