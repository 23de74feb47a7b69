"""Who has a store: the one place that opens a store, takes the right to write to it, and sets engines to work over it.

A service, a command and a notebook differ in the parameters of `Host` only.

1. Taken in this order: the server that is embedded for the store, the store, the right to write to it, the open store,
   an engine. Given back in the opposite one, whatever comes: also where something fails in between, or is cancelled.
2. What came first is raised. A store that is away, or that another process has by now, holds nobody up who ends:
   it is no error that it was not told.
3. Engines come one after the other: `begin`, and before the next one `set_down` and `take_up`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final, Self

from hs_stream.core.errors import ConfigurationError, Fenced, HsStreamError, StoreUnavailable
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.backend import INLINE
from hs_stream.engine.engine import Engine
from hs_stream.engine.ports import Backend, Clock, Mirror, Recovery, Sink, Store
from hs_stream.engine.telemetry import Telemetry
from hs_stream.service.lease import Lease
from hs_stream.service.settings import Settings
from hs_stream.service.stores import EmbeddedStore, MakeStore, make_store
from hs_stream.service.wiring import engine_settings

__all__ = ["Host", "reading_store", "recovered_store"]

_AWAY_SECONDS: Final = 1.0
"""So long is waited for a store that is away."""


class Host:
    """``async with`` opens it and gives everything back (rule 1).

    ``read_only``: without the right to write, and without engines; works beside whoever has it. ``beside``: also the
    server that another process has embedded for the store is taken. ``instead``: what to do where another process has
    the right. ``patient``: engines wait for a store that is away. ``make`` makes the store.
    """

    store: Store
    """Open, but between `set_down` and `take_up`."""
    recovery: Recovery
    """Where the store was left."""

    def __init__(
        self,
        settings: Settings,
        *,
        read_only: bool = False,
        beside: bool = False,
        instead: str = "",
        patient: bool = False,
        make: MakeStore = make_store,
    ) -> None:
        self._settings = settings
        self._read_only, self._instead, self._patient = read_only, instead, patient
        self._place = EmbeddedStore(settings, beside=beside or read_only, read_only=read_only, make=make)
        self._lease: Lease | None = None
        self._made = self._has_right = self._is_away = False
        self._engine: Engine | None = None

    @property
    def shown(self) -> str:
        """The URL of the store for people: without a password."""
        return self._place.shown

    @property
    def lease(self) -> Lease:
        """The right to write, from `open` on. There is none with ``read_only``."""
        assert self._lease is not None
        return self._lease

    # --- life ---

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            await self.close()
        else:
            await self._close_after(error)

    async def open(self) -> None:
        """Take everything but an engine. `StoreInUse`, `ConfigurationError`, `StoreUnavailable`: nothing is left."""
        try:
            self.store = await self._place.open()
            self._made = True
            if not self._read_only:
                self._lease = Lease(self.store, self._settings.store.lease)
            await self._open_store(anew=True)
        except BaseException as error:
            await self._close_after(error)
            raise

    async def close(self) -> bool:
        """Give everything back. Whether the store was told: not where it is away. Idempotent."""
        told = True
        failed: BaseException | None = None
        for give_back in (self._give_right_back, self._close_store, self._end_place):
            try:
                told &= await give_back()
            except BaseException as error:  # noqa: BLE001 - it is raised when the others are given back
                failed = failed or error
        if failed is not None:
            raise failed
        return told

    async def _close_after(self, error: BaseException) -> None:
        """`close`; what goes wrong with that must not hide ``error``."""
        try:
            await self.close()
        except BaseException as another:  # noqa: BLE001 - `error` is raised
            error.add_note(f"and while the store was given back: {another!r}")

    async def _give_right_back(self) -> bool:
        has, self._has_right = self._has_right, False
        return not has or await self.briefly(self.lease.give_back())

    async def _close_store(self) -> bool:
        made, self._made = self._made, False
        # What a store only remembers is of no use to who has it by now.
        with contextlib.suppress(Fenced):
            return not made or await self.briefly(self.store.close())
        return True

    async def _end_place(self) -> bool:
        await self._place.close()
        return True

    async def briefly(self, call: Awaitable[None]) -> bool:
        """``await call``, but not for long when the store is away. Whether the store took it."""
        away = self._is_away or (self._engine is not None and bool(self._engine.store_trouble))
        try:
            async with asyncio.timeout(_AWAY_SECONDS if away else None):
                await call
        except (TimeoutError, StoreUnavailable):
            return False
        return True

    # --- engines ---

    def engine(
        self,
        *,
        clock: Clock | None = None,
        telemetry: Telemetry | None = None,
        sinks: Sequence[Sink] = (),
        mirrors: Sequence[Mirror] = (),
        backend: Backend = INLINE,
    ) -> Engine:
        """An engine over the store, which is set to work by `begin`."""
        engine = Engine(
            self.store,
            settings=engine_settings(self._settings),
            clock=clock,
            telemetry=telemetry,
            sinks=sinks,
            mirrors=mirrors,
            guard=self.lease,
            backend=backend,
        )
        if not self._patient:
            engine.hurry()
        return engine

    async def begin(self, engine: Engine, workflows: Sequence[WorkflowDefinition]) -> None:
        """Recover, with ``engine`` and these workflows. `ConfigurationError`, `StoreUnavailable`."""
        self._engine = engine
        with self._noticing():
            await engine.open(workflows)

    async def set_down(self) -> bool:
        """Close the store: what it only remembers is written. Whether it took that; `Fenced`."""
        return await self.briefly(self.store.close())

    async def take_up(self, *, anew: bool = False) -> None:
        """Renew the right, and open the store again. `StoreUnavailable`: try again.

        `Fenced` when another process has the right, or had it in between; ``anew``: then it is asked for again.
        """
        await self._open_store(anew=anew)

    async def _open_store(self, *, anew: bool) -> None:
        with self._noticing():
            if self._lease is not None:
                await (self._take(self._lease) if anew else self._lease.renew())
            self.recovery = await self.store.open()

    @contextlib.contextmanager
    def _noticing(self) -> Iterator[None]:
        """Whether the store is away."""
        try:
            yield
        except StoreUnavailable:
            self._is_away = True
            raise
        self._is_away = False

    async def _take(self, lease: Lease) -> None:
        # Cancelled, nobody knows whether the store has given it.
        self._has_right = True
        try:
            await lease.take(self._instead)
        except HsStreamError:
            self._has_right = False
            raise


@asynccontextmanager
async def reading_store(settings: Settings) -> AsyncIterator[Store]:
    """The store, only to be read: works beside a running service."""
    async with recovered_store(settings) as (store, _):
        yield store


@asynccontextmanager
async def recovered_store(settings: Settings) -> AsyncIterator[tuple[Store, Recovery]]:
    """`reading_store`, and where it was left."""
    if settings.store.url.startswith("memory://"):
        raise ConfigurationError(
            "memory:// keeps nothing between two commands", hint="set store.url to the store of your service"
        )
    async with Host(settings, read_only=True) as host:
        yield host.store, host.recovery
