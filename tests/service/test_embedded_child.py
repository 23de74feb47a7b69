"""Servers that are children of this process: none of them outlives it, or a start that came to nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from hs_stream.core.errors import HsStreamError
from hs_stream.service.embedded.child import ChildServer
from hs_stream.service.embedded.mongod import find_mongod

ROOT = Path(__file__).resolve().parents[2]
STARTING = """
import asyncio, sys
from hs_stream.service.embedded.{module} import {kind}
server = {kind}(sys.argv[1])
asyncio.run(server.start())
print(server.pid, flush=True)
input()
"""


class Shell(ChildServer):
    """A shell that never answers."""

    start_seconds = 60.0
    stop_seconds = 5.0
    in_use = "taken"

    def __init__(self, directory: Path, script: str, port: int | None = None) -> None:
        super().__init__(directory, port)
        self.script = script
        self.ports: list[int] = []

    def _command(self, port: int) -> Sequence[str]:
        self.ports.append(port)
        return ["sh", "-c", self.script]

    @contextlib.contextmanager
    def _asking(self) -> Iterator[Callable[[], bool]]:
        yield lambda: False

    def _last_words(self) -> str:
        return self._output().read_text(encoding="utf-8").strip()

    def _failed(self, why: str) -> HsStreamError:
        return HsStreamError(f"it says: {why}")

    def _output(self) -> Path:
        return self.directory / "log"


def is_there(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    return False


async def gone(pid: int) -> None:
    while is_there(pid):
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(("module", "kind"), [("broker", "EmbeddedBroker"), ("mongod", "EmbeddedMongod")])
async def test_it_ends_with_whoever_started_it(tmp_path: Path, module: str, kind: str) -> None:
    if module == "mongod" and find_mongod() is None:
        pytest.skip("no mongod runs on this machine")
    script = STARTING.format(module=module, kind=kind)
    command = [sys.executable, "-c", script, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = asyncio.subprocess.PIPE
    parent = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=environment)
    try:
        assert parent.stdout is not None
        pid = int(await parent.stdout.readline())
        assert is_there(pid)
    finally:
        parent.kill()
        await parent.communicate()
    await gone(pid)


async def test_a_server_that_loses_the_first_signal_is_asked_again(tmp_path: Path) -> None:
    heard = tmp_path / "heard"

    class Deaf(Shell):
        stop_seconds = 20.0

        @contextlib.contextmanager
        def _asking(self) -> Iterator[Callable[[], bool]]:
            yield heard.exists

    again = f"echo again >> {heard}; exit"
    lost = f"echo lost >> {heard}; trap '{again}' TERM"
    server = Deaf(tmp_path, f'trap "{lost}" TERM; echo ready > {heard}; while :; do sleep 0.05; done')
    await server.start()
    await server.stop()
    assert heard.read_text().split() == ["ready", "lost", "again"]


async def test_a_start_that_is_cancelled_leaves_nothing_behind(tmp_path: Path) -> None:
    server = Shell(tmp_path, "echo there; exec sleep 60")
    starting = asyncio.create_task(server.start())
    while not server.pid:
        await asyncio.sleep(0.005)
    pid = server.pid
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not server.is_running
    assert not is_there(pid)


async def test_a_port_that_somebody_took_is_given_up_for_another_one(tmp_path: Path) -> None:
    server = Shell(tmp_path, "echo this port is taken")
    with pytest.raises(HsStreamError, match="it says: this port is taken"):
        await server.start()
    assert len(set(server.ports)) == 3
    asked_for = Shell(tmp_path, "echo this port is taken", port=7)
    with pytest.raises(HsStreamError):
        await asked_for.start()
    assert asked_for.ports == [7]
    broken = Shell(tmp_path, "echo broken >&2; exit 1")
    (tmp_path / "log").unlink()
    with pytest.raises(HsStreamError, match="it says: broken"):
        await broken.start()
    assert len(broken.ports) == 1
