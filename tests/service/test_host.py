"""What a host takes it gives back in the opposite order, wherever it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from hs_stream.core.errors import StoreUnavailable
from hs_stream.core.workflow import SourceDefinition, WorkflowDefinition
from hs_stream.engine.ports import Holder, Recovery
from hs_stream.service.host import Host
from hs_stream.service.lease import LEASE_MS, Lease, StoreInUse
from hs_stream.service.settings import Settings, StoreSettings
from hs_stream.service.stores import EmbeddedStore
from hs_stream.store.memory import MemoryStore

MEMORY = Settings(store=StoreSettings(url="memory://"))
BACK = ["give back", "close", "end"]


class Watched(MemoryStore):
    """Says what is done with it. ``wrong``: what happens instead of the end of a step."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []
        self.wrong: dict[str, Callable[[], Any]] = {}

    async def _did(self, what: str) -> None:
        self.done.append(what)
        if what in self.wrong and asyncio.iscoroutine(waits := self.wrong[what]()):
            await waits

    async def claim(self, owner: str, for_ms: int, *, instead_of: str = "") -> Holder:
        held = await super().claim(owner, for_ms, instead_of=instead_of)
        await self._did("take" if for_ms else "give back")
        return held

    async def open(self) -> Recovery:
        await self._did("open")
        return await super().open()

    async def close(self) -> None:
        await self._did("close")
        await super().close()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Watched:
    made = Watched()

    async def end(_: EmbeddedStore) -> None:
        made.done.append("end")

    monkeypatch.setattr(EmbeddedStore, "close", end)
    return made


def host_of(store: Watched, **parameters: Any) -> Host:
    return Host(MEMORY, make=lambda *_, **__: store, **parameters)


def broken() -> None:
    raise ZeroDivisionError("broken")


def away() -> None:
    raise StoreUnavailable("away")


async def free(store: Watched) -> bool:
    return await Lease(store).holder() == ""


async def test_the_opposite_order(store: Watched) -> None:
    async with host_of(store) as host:
        engine = host.engine()
        await host.begin(engine, [WorkflowDefinition("w", {}, {"power": SourceDefinition("power")})])
        assert [workflow.name for workflow in engine.workflows] == ["w"]
        assert await Lease(store).holder() == host.lease.owner
        store.done.clear()
    assert store.done == BACK
    assert await host.close(), "again, and nothing is left to give back"
    assert await free(store)


@pytest.mark.parametrize("step", ["take", "open"])
async def test_what_fails_in_between_leaves_nothing(store: Watched, step: str) -> None:
    store.wrong[step] = broken
    with pytest.raises(ZeroDivisionError):
        await host_of(store).open()
    assert store.done[store.done.index(step) + 1 :] == BACK
    assert await free(store)


@pytest.mark.parametrize("step", ["take", "open"])
async def test_so_does_what_is_cancelled_in_between(store: Watched, step: str) -> None:
    reached = asyncio.Event()

    async def stuck() -> None:
        reached.set()
        await asyncio.Event().wait()

    store.wrong[step] = stuck
    opening = asyncio.create_task(host_of(store).open())
    await reached.wait()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert store.done[store.done.index(step) + 1 :] == BACK
    assert await free(store)


async def test_an_engine_that_does_not_begin_leaves_nothing(store: Watched) -> None:
    async def begin() -> None:
        async with host_of(store) as host:
            store.wrong["open"] = broken
            await host.begin(host.engine(), [])

    with pytest.raises(ZeroDivisionError):
        await begin()
    assert store.done[-3:] == BACK


@pytest.mark.parametrize("step", ["give back", "close"])
async def test_what_fails_while_giving_back_keeps_nothing_else_back(store: Watched, step: str) -> None:
    store.wrong[step] = broken
    with pytest.raises(ZeroDivisionError):
        async with host_of(store):
            pass
    assert store.done[-3:] == BACK
    store.done.clear()
    store.wrong = {"open": broken, step: away}
    with pytest.raises(ZeroDivisionError):
        await host_of(store).open()
    assert store.done[-3:] == BACK


async def test_what_came_first_is_raised(store: Watched) -> None:
    store.wrong["close"] = broken
    with pytest.raises(KeyError) as raised:
        async with host_of(store):
            raise KeyError
    assert "ZeroDivisionError('broken')" in raised.value.__notes__[0]


async def test_a_store_that_is_away_holds_nobody_up(store: Watched) -> None:
    host = host_of(store)
    await host.open()
    await host.set_down()
    store.wrong["take"] = away
    host.lease._renewed -= LEASE_MS
    with pytest.raises(StoreUnavailable):
        await host.take_up()
    store.wrong["give back"] = store.wrong["close"] = asyncio.Event().wait
    assert not await host.close()
    assert store.done[-3:] == BACK


async def test_what_another_one_has_is_not_given_back(store: Watched) -> None:
    await store.claim("elsewhere/1/2/abc", LEASE_MS)
    store.done.clear()
    with pytest.raises(StoreInUse, match="ask the other one"):
        await host_of(store, instead="ask the other one").open()
    assert store.done == ["take", "close", "end"]
    async with host_of(store, read_only=True):
        assert store.done[3:] == ["open"]
    assert store.done[4:] == ["close", "end"]
