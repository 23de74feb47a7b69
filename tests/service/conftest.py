"""A real broker, and hs-stream as a real process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hs_stream.service.embedded.broker import EmbeddedBroker
from hs_stream.service.embedded.child import free_port

ROOT = Path(__file__).resolve().parents[2]

WORKFLOW = """\
workflow: comfort
plates: {house: {}, room: {parent: house, max: 20}}
sources:
  climate: {mqtt: "home/{house}/{room}/climate", time: {field: ts, unit: ms}}
nodes:
  temperature: {tool: component@^1, from: climate, with: {key: temperature}}
  smooth: {tool: sliding_mean@^1, from: temperature, with: {width: 1m}}
publish:
  smooth: {retain: true}
"""


class Process:
    """One run of the command line as a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    def ask(self, path: str) -> Any:
        """The JSON (or text) of a path, whatever its status."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                body = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                body = error.read()
        return json.loads(body) if body[:1] in b"{[" else body.decode()

    async def until(self, path: str, check: Any, seconds: float = 20) -> Any:
        """Ask until ``check(answer)`` holds."""
        deadline = time.monotonic() + seconds
        answer: Any = None
        while time.monotonic() < deadline:
            if self.process.returncode is not None:
                raise AssertionError((await self.process.stderr.read()).decode() if self.process.stderr else "ended")
            try:
                answer = await asyncio.to_thread(self.ask, path)
            except OSError:
                answer = None
            if answer is not None and check(answer):
                return answer
            await asyncio.sleep(0.05)
        raise AssertionError(f"{path} says {answer}")

    async def end(self, seconds: float = 10) -> tuple[int, str]:
        """Wait for the end: exit code and stderr."""
        _, errors = await asyncio.wait_for(self.process.communicate(), seconds)
        assert self.process.returncode is not None
        return self.process.returncode, errors.decode()


class Site:
    """A directory with settings and a workflow file, and processes in it that end with the test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.paths = [ROOT, ROOT / "connectors", ROOT / "tools"]
        self._processes: list[asyncio.subprocess.Process] = []

    def write(self, broker_url: str = "mqtt://127.0.0.1:1", store: str = "sqlite:///data/x.db", more: str = "") -> Path:
        """Settings with these parts, and the workflow."""
        (self.directory / "comfort.yaml").write_text(WORKFLOW, encoding="utf-8")
        path = self.directory / "hs-stream.toml"
        path.write_text(
            f'workflows = ["comfort.yaml"]\n[store]\nurl = "{store}"\n[mqtt]\nurl = "{broker_url}"\n'
            f"[http]\nport = {self.port}\n{more}",
            encoding="utf-8",
        )
        return path

    def environment(self) -> dict[str, str]:
        paths = os.pathsep.join(map(str, self.paths))
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HS_STREAM")}
        return clean | {"PYTHONPATH": paths}

    async def start(self, *arguments: str) -> Process:
        """Start ``hs-stream`` with these arguments."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "hs_stream.cli",
            *arguments,
            cwd=self.directory,
            env=self.environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self._processes.append(process)
        return Process(process, self.port)

    async def close(self) -> None:
        for process in self._processes:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
                await process.communicate()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A directory for the service of this test."""
    made = Site(tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    """A broker of this test's own."""
    async with EmbeddedBroker(tmp_path / "broker") as running:
        yield running


@pytest.fixture
def in_site(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The working directory is the site, with settings for an SQLite store and no broker."""
    monkeypatch.chdir(site.directory)
    for name in list(os.environ):
        if name.startswith("HS_STREAM"):
            monkeypatch.delenv(name)
    site.write()
    return site
