"""One process that has a store, as `hs_stream.testing.history.History` plays it: it may crash, or stand still.

A process that stands still does nothing and hears nothing, for as long as another one needs to take its store over and
to go on. Then it wakes in the middle of what it was about to write, and finds readings that came meanwhile. It must be
`Fenced`, and must not acknowledge any of these.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final

from hs_stream.core.errors import Fenced, LawViolation
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.engine import Engine
from hs_stream.engine.ports import Delivery, Reading
from hs_stream.testing.faults import Crash, FaultyStore

__all__ = ["Owner", "crash_of"]

_END_SECONDS: Final = 20.0
"""Real time, of which it takes milliseconds: what does not end by then goes on although it has a successor."""


class Owner:
    """Its store, its engine, and what was asked of it. ``name`` is that of its claim, if it made one."""

    task: asyncio.Task[None]
    """What the engine does."""

    def __init__(self, store: FaultyStore, engine: Engine, name: str = "") -> None:
        self.store = store
        self.engine = engine
        self.gate = store.gate
        self._name = name
        self._calls: list[asyncio.Future[Any]] = []
        self._opening: asyncio.Task[None]
        self._sent: list[Reading] = []
        self._acknowledged = self._stops = False

    async def open(self, workflows: Sequence[WorkflowDefinition]) -> bool:
        """Open the engine; whether it has opened, and does not stand still instead. `Crash`."""
        self._opening = asyncio.create_task(self.engine.open(workflows), name="opening")
        await self.unless_still(self._opening)
        if self._opening.done():
            self._opening.result()
        return self._opening.done()

    def run(self) -> None:
        """Let the engine work, as soon as it has opened."""
        self.task = asyncio.create_task(self._run(), name="engine")

    async def _run(self) -> None:
        await self._opening
        await self.engine.run()

    async def unless_still(self, *ends: asyncio.Future[Any]) -> None:
        """Return when one of ``ends`` is done, or the process stands still."""
        await asyncio.wait({*ends, self.gate.still()}, return_when=asyncio.FIRST_COMPLETED)

    async def stop(self) -> bool:
        """Stop in order; whether it did, and has not crashed instead."""
        self._stops = True
        stopping = asyncio.ensure_future(self.engine.stop())
        await asyncio.wait({self.task})
        with contextlib.suppress(Crash):
            await stopping
        if crash_of(self.task) is not None:
            return False
        await self.engine.close()
        return True

    async def abandon(self) -> None:
        """End everything, whatever it is doing."""
        tasks = [*self._calls, *(getattr(self, name) for name in ("_opening", "task") if hasattr(self, name))]
        for one in tasks:
            one.cancel()
        self.gate.open()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.let_go()

    async def let_go(self) -> None:
        """Of the store, as a crash would."""
        inner = self.store.inner
        await getattr(inner, "abandon", inner.close)()

    # --- once it has a successor ---

    async def left(self, call: asyncio.Future[Any] | None = None) -> None:
        """It stands still, and ``call`` with it. Return when the store has done what it got before."""
        self._calls += [] if call is None else [call]
        self.store.crash_at = 0
        if not hasattr(self, "task"):
            self.run()
        await getattr(self.store.inner, "answered", _nothing)()

    def wake(self, came: Sequence[Reading], now: int) -> None:
        """Go on, with ``came`` in the buffer of its connection."""
        self._sent = list(came)
        if self._sent:
            self._calls.append(asyncio.ensure_future(self._take(now)))
        self.gate.open()

    async def _take(self, now: int) -> None:
        await self._opening
        await self.engine.deliver(Delivery(self._sent, [], now, self._acknowledge))

    def _acknowledge(self) -> None:
        self._acknowledged = True

    async def end(self) -> None:
        """Return when it has ended, and has given back what it can. `LawViolation` unless it was fenced."""
        if not self._sent:
            self._calls.append(asyncio.ensure_future(self.stop()))
        where = f"a process that stood still {self.gate.where}"
        if not (await asyncio.wait({self.task}, timeout=_END_SECONDS))[0]:
            raise LawViolation(f"{where} goes on although it has a successor")
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        if self._name:
            await self.store.inner.claim(self._name, 0)
        with contextlib.suppress(Fenced):
            await self.store.inner.close()
        error = None if self.task.cancelled() else self.task.exception()
        fenced, others = (error, None) if not isinstance(error, BaseExceptionGroup) else error.split((Fenced, Crash))
        if others is not None or not isinstance(fenced, (Fenced, Crash, BaseExceptionGroup, type(None))):
            raise LawViolation(f"{where} ended with another error") from (others or fenced)
        if self._acknowledged:
            raise LawViolation(f"{where} acknowledged a reading that came once it had a successor")
        if fenced is None and self._sent and not self._stops:
            raise LawViolation(f"{where} ended without being told that it lost the store")


async def _nothing() -> None:
    """Of stores whose claim waits for that itself."""


def crash_of(task: asyncio.Task[None]) -> BaseException | None:
    """The `Crash` that ended ``task``, if one did; every other error is raised."""
    if task.cancelled():
        return None
    error = task.exception()
    if isinstance(error, BaseExceptionGroup):
        crashes, rest = error.split(Crash)
        if rest is not None:
            raise rest
        return crashes
    if error is not None and not isinstance(error, Crash):
        raise error
    return error
