"""That somebody is at work on a store: a session, which a heartbeat renews together with the right to write."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from hs_stream.core.errors import Fenced, StoreUnavailable
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.ports import Clock
from hs_stream.service.host import Host
from hs_stream.service.session import SessionBook
from hs_stream.service.wiring import version

__all__ = ["Presence"]

_BEAT_SECONDS: Final = 10.0


class Presence:
    """The session of ``host``: `begin` and `end` it while that is open.

    ``workflows`` may grow meanwhile; ``counters()`` gives the session's figures. Hold ``access`` while the store is
    closed and opened again: the heartbeat goes on beside every call.
    """

    def __init__(
        self,
        host: Host,
        clock: Clock,
        workflows: Sequence[WorkflowDefinition],
        counters: Callable[[], Mapping[str, int]],
    ) -> None:
        self.access = asyncio.Lock()
        self._lease = host.lease
        self._book = SessionBook(host.store, clock, workflows, version(), counters)
        self._beating: asyncio.Task[None] | None = None

    @property
    def session(self) -> str:
        """Its id."""
        return self._book.id

    async def begin(self) -> None:
        """Write the session down, and go on doing so."""
        await self._book.write()
        self._beating = asyncio.create_task(self._beat(), name="session")

    async def _beat(self) -> None:
        # Not those of the lease and the book: they write to the log what is of no use to who works in a notebook. A
        # right that is lost is told by the next call; the call after that one asks for it again.
        while True:
            await asyncio.sleep(_BEAT_SECONDS)
            async with self.access:
                with contextlib.suppress(StoreUnavailable, Fenced):
                    await self._lease.renew()
                    await self.write()

    async def write(self) -> None:
        """Write down how far it is. Raises `StoreUnavailable`."""
        await self._book.write()

    async def end(self) -> None:
        """Say that it is over, as far as the store answers and is still ours. Idempotent."""
        beating, self._beating = self._beating, None
        if beating is not None:
            beating.cancel()
            with contextlib.suppress(StoreUnavailable, Fenced):
                await self._book.write(stopped=True)
