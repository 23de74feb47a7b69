"""One service writes to a store at a time."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from hs_stream.core.errors import ConfigurationError, Fenced
from hs_stream.core.plate import Plate
from hs_stream.core.workflow import SourceDefinition, WorkflowDefinition
from hs_stream.engine.engine import Engine
from hs_stream.engine.ports import Delivery, Reading
from hs_stream.service.lease import LEASE_MS, Lease
from hs_stream.store.memory import MemoryStore
from hs_stream.testing.clock import VirtualClock

NOW = 1_700_000_000_000


async def test_a_second_service_is_refused_and_told_whose_it_is() -> None:
    store = MemoryStore()
    first, second = Lease(store), Lease(store)
    await first.take()
    with pytest.raises(ConfigurationError) as caught:
        await second.take("ask it over HTTP")
    assert f"/{os.getpid()}/" in caught.value.message
    assert "ask it over HTTP" in caught.value.hint
    assert await second.holder() == first.owner
    await first.give_back()
    assert await second.holder() == ""
    await second.take()


async def test_it_runs_out_by_the_clock_of_the_store() -> None:
    clock = VirtualClock(NOW)
    store = MemoryStore(now=clock.now)
    first, second = Lease(store), Lease(store)
    await first.take()
    clock.advance(LEASE_MS - 1)
    with pytest.raises(ConfigurationError):
        await second.take()
    clock.advance(1)
    await second.take()


@contextlib.contextmanager
def process_with_a_lease() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    made = (
        "from hs_stream.service.lease import Lease\nfrom hs_stream.store.memory import MemoryStore\n"
        "print(Lease(MemoryStore()).owner, flush=True)\ninput()"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", made]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().decode().strip()
        process.kill()


async def test_a_killed_process_of_this_host_holds_nobody_up() -> None:
    store = MemoryStore()
    with process_with_a_lease() as (process, owner):
        await store.claim(owner, LEASE_MS)
        with pytest.raises(ConfigurationError):
            await Lease(store).take()
        process.kill()
        process.wait()
        assert await Lease(store).holder() == ""
        await Lease(store).take()


async def test_a_process_of_another_host_is_never_taken_for_dead() -> None:
    store = MemoryStore()
    await store.claim("elsewhere/1/2/abc", LEASE_MS)
    with pytest.raises(ConfigurationError, match="elsewhere/1/2"):
        await Lease(store).take()


async def test_who_was_frozen_for_too_long_writes_nothing_more() -> None:
    clock = VirtualClock(NOW)
    store = MemoryStore(now=clock.now)
    lease = Lease(store)
    await lease.take()
    workflow = WorkflowDefinition("w", {"room": Plate("room")}, {"power": SourceDefinition("power", ("room",))})
    engine = Engine(store, clock=clock, guard=lease)
    await engine.open([workflow])

    async def send(time: int) -> None:
        reading = Reading("power", (("room", "a"),), NOW + time, 1.0)
        await engine.deliver(Delivery([reading], [], NOW, lambda: None))
        await engine.settle()

    await send(1)
    lease._renewed -= LEASE_MS
    await send(2)
    assert not lease.is_due(), "nobody else had taken it, so it was renewed"
    lease._renewed -= LEASE_MS
    clock.advance(LEASE_MS)
    await store.claim("elsewhere/1/2/abc", LEASE_MS)
    with pytest.raises(Fenced, match=r"elsewhere/1/2 .* has taken over this store"):
        await send(3)
    assert await store.count(1, NOW, NOW + 10) == 2
    await engine.close()


async def test_who_had_it_before_and_after_another_one_ends_too() -> None:
    """What it knows of the store is not true any more."""
    store = MemoryStore()
    lease = Lease(store)
    await lease.take()
    await store.claim("elsewhere/1/2/abc", LEASE_MS, instead_of=lease.owner)
    await store.claim("elsewhere/1/2/abc", 0)
    lease._renewed -= LEASE_MS
    with pytest.raises(Fenced):
        await lease.renew()
    assert await Lease(store).holder() == "", "and keeps nobody else out"


async def test_a_suspended_machine_has_been_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """ST-21: its monotonic clock stood still."""
    lease = Lease(MemoryStore())
    await lease.take()
    suspended = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + LEASE_MS * 1_000_000
    real, monotonic = time.clock_gettime_ns, time.monotonic()
    monkeypatch.setattr(time, "clock_gettime_ns", lambda c: suspended if c == time.CLOCK_BOOTTIME else real(c))
    monkeypatch.setattr(time, "monotonic", lambda: monotonic)
    assert lease.is_due()
