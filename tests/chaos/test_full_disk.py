"""A disk that is full, and has room again: nothing is lost, and nothing ends meanwhile."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from hs_stream.core.time import MAX_TIME, MIN_TIME
from hs_stream.service.embedded.broker import EmbeddedBroker
from hs_stream.store.sqlite import SqliteStore
from tests.chaos.gateway import Gateway, Mixture, Readings
from tests.chaos.rig import Service


async def mount(where: Path, *options: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(where)]
    done = await asyncio.to_thread(subprocess.run, command, check=False, capture_output=True)
    if done.returncode:
        pytest.skip("mounting is not allowed here")


async def until(what: str, check: Callable[[], Awaitable[bool]], service: Service) -> None:
    deadline = time.monotonic() + 60
    while not await check():
        service.must_run()
        assert time.monotonic() < deadline, f"{what}\n{service.log.read_text()[-2000:]}"
        await asyncio.sleep(0.1)


@pytest.mark.chaos
@pytest.mark.timeout(180)
@pytest.mark.skipif(os.getuid() != 0 or sys.platform != "linux", reason="mounting a small tmpfs needs root")
async def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    await mount(small, "size=2m")
    broker = EmbeddedBroker(tmp_path / "broker", kind="mosquitto")
    service = Service(tmp_path, broker.url, f"sqlite:///{small}/chaos.db")
    gateway = Gateway(broker.port, Readings(5, 2, 2, Mixture()), 600)
    try:
        await broker.start()
        await service.start()

        async def ready() -> bool:
            answer = await service.ask("/readyz")
            return isinstance(answer, dict) and answer.get("ready") is True

        async def refused() -> bool:
            text = await service.ask("/metrics")
            return bool(
                re.search(r'^hs_store_errors_total\{operation="(append|commit)"\} [1-9]', text or "", re.MULTILINE)
            )

        async def at_rest() -> bool:
            gauges = await service.gauges() or {"hs_pending_steps": 1.0}
            waiting = ("hs_pending_steps", "hs_in_flight_readings", "hs_outbox_pending")
            return gateway.all_confirmed and not any(gauges.get(name) for name in waiting)

        await until("not ready", ready, service)
        gateway.start()
        await until("the disk is not full yet", refused, service)
        await asyncio.sleep(1.0)
        service.must_run()
        assert "disk" in service.log.read_text()
        part = (await service.ask("/readyz"))["parts"]["store"]
        assert part["ok"] is False
        assert "free some disk space" in part["error"]
        assert (await service.gauges() or {})["hs_store_available"] == 0
        code, words = await service.command("doctor")
        assert (code, "free some disk space" in words) == (3, True), words
        await mount(small, "remount", "size=200m")
        await asyncio.sleep(1.0)
        gateway.pause()
        await until("no rest", at_rest, service)
        await asyncio.sleep(0.5)
        await until("no rest", at_rest, service)
        await until("not ready again", ready, service)
        code, words = await service.verify()
        assert code == 0, words
        assert await service.stop() == 0
        store = SqliteStore(small / "chaos.db")
        await store.open()
        truth = gateway.truth()
        for record in await store.streams():
            if record.kind == "raw":
                room = record.stream.value_of("room")
                assert room is not None
                assert dict(await store.read(record.id, MIN_TIME, MAX_TIME)) == truth.pop(room)
        assert not truth
        await store.close()
    finally:
        gateway.close()
        await service.close()
        await broker.kill()
        await asyncio.to_thread(subprocess.run, ["umount", "-l", str(small)], check=True)
