"""That somebody is at work on a store: a session with a heartbeat, and the refusal of a second one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from hs_stream.core.errors import StoreUnavailable
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.ports import Clock, Store
from hs_stream.service.session import SessionBook, check_unused
from hs_stream.service.wiring import version

__all__ = ["Presence"]

_BEAT_SECONDS: Final = 10.0
_INSTEAD: Final = "open it with read_only=True and ask the service over HTTP to compute"


class Presence:
    """A session from `begin` to `end`. ``workflows`` may grow meanwhile; ``counters()`` gives its figures.

    Hold ``access`` while the store is closed and opened again: the heartbeat goes on beside every call.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        workflows: Sequence[WorkflowDefinition],
        counters: Callable[[], Mapping[str, int]],
    ) -> None:
        self.access = asyncio.Lock()
        self._store = store
        self._clock = clock
        self._book = SessionBook(store, clock, workflows, version(), counters)
        self._beating: asyncio.Task[None] | None = None

    @property
    def session(self) -> str:
        """Its id."""
        return self._book.id

    async def begin(self) -> None:
        """`ConfigurationError` when a service or another HyperStream is at work on the store."""
        await check_unused(self._store, self._clock.now(), _INSTEAD)
        await self._book.write()
        self._beating = asyncio.create_task(self._beat(), name="session")

    async def _beat(self) -> None:
        # Not the book's own: it writes to the log what is of no use to who works in a notebook.
        while True:
            await asyncio.sleep(_BEAT_SECONDS)
            async with self.access:
                with contextlib.suppress(StoreUnavailable):
                    await self.write()

    async def write(self) -> None:
        """Write down how far it is. Raises `StoreUnavailable`."""
        await self._book.write()

    async def end(self) -> None:
        """Say that it is over, as far as the store answers. Idempotent."""
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None
            with contextlib.suppress(StoreUnavailable):
                await self._book.write(stopped=True)
