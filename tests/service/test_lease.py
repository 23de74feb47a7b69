"""One service writes to a store at a time."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.plate import Plate
from hs_stream.core.workflow import SourceDefinition, WorkflowDefinition
from hs_stream.engine.engine import Engine
from hs_stream.engine.ports import Delivery, Reading
from hs_stream.service.lease import LEASE_MS, Lease
from hs_stream.store.memory import MemoryStore
from hs_stream.testing.clock import VirtualClock

NOW = 1_700_000_000_000


async def test_a_second_service_is_refused_and_told_whose_it_is() -> None:
    store, clock = MemoryStore(), VirtualClock(NOW)
    first, second = Lease(store, clock), Lease(store, clock)
    await first.take()
    with pytest.raises(ConfigurationError) as caught:
        await second.take("ask it over HTTP")
    assert f"/{os.getpid()}/" in caught.value.message
    assert "ask it over HTTP" in caught.value.hint
    await first.give_back()
    await second.take()


async def test_it_runs_out() -> None:
    store, clock = MemoryStore(), VirtualClock(NOW)
    first, second = Lease(store, clock), Lease(store, clock)
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
        "from hs_stream.testing.clock import VirtualClock\n"
        "print(Lease(MemoryStore(), VirtualClock(0)).owner, flush=True)\ninput()"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", made]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().decode().strip()
        process.kill()


async def test_a_killed_process_of_this_host_holds_nobody_up() -> None:
    store, clock = MemoryStore(), VirtualClock(NOW)
    with process_with_a_lease() as (process, owner):
        await store.claim(owner, NOW, NOW + LEASE_MS)
        with pytest.raises(ConfigurationError):
            await Lease(store, clock).take()
        process.kill()
        process.wait()
        await Lease(store, clock).take()


async def test_a_process_of_another_host_is_never_taken_for_dead() -> None:
    store, clock = MemoryStore(), VirtualClock(NOW)
    await store.claim("elsewhere/1/2/abc", NOW, NOW + LEASE_MS)
    with pytest.raises(ConfigurationError, match="elsewhere/1/2"):
        await Lease(store, clock).take()


async def test_who_was_frozen_for_too_long_writes_nothing_more() -> None:
    store, clock = MemoryStore(), VirtualClock(NOW)
    lease = Lease(store, clock)
    await lease.take()
    workflow = WorkflowDefinition("w", {"room": Plate("room")}, {"power": SourceDefinition("power", ("room",))})
    engine = Engine(store, clock=clock, guard=lease)
    await engine.open([workflow])

    async def send(time: int) -> None:
        reading = Reading("power", (("room", "a"),), NOW + time, 1.0)
        await engine.deliver(Delivery([reading], [], NOW, lambda: None))
        await engine.settle()

    await send(1)
    lease._renewed -= LEASE_MS / 1000
    await send(2)
    assert not lease.is_due(), "nobody else had taken it, so it was renewed"
    lease._renewed -= LEASE_MS / 1000
    clock.advance(LEASE_MS)
    await store.claim("elsewhere/1/2/abc", clock.now(), clock.now() + LEASE_MS)
    with pytest.raises(ConfigurationError, match="taken over this store"):
        await send(3)
    assert await store.count(1, NOW, NOW + 10) == 2
    await engine.close()
