"""The real parts: one mosquitto and one mongod for the whole run, a process per contender, and what these cost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, Self

from pymongo import MongoClient

from benchmarks.steady import baseline
from benchmarks.steady.load import Order, Result
from hs_stream.service.embedded.broker import EmbeddedBroker
from hs_stream.service.embedded.mongod import EmbeddedMongod

__all__ = ["PER_READING", "Contender", "Cost", "Parts"]

ROOT: Final = Path(__file__).resolve().parents[2]
PER_READING: Final = 4
"""Instances that the service stores per reading: the reading and three results."""
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_START_SECONDS: Final = 60.0
_STORED_SECONDS: Final = 60.0

_WORKFLOW: Final = """\
workflow: steady
plates: {room: {max: 100000}}
sources:
  climate: {mqtt: "{topic}", time: {field: ts, unit: ms}}
nodes:
  temperature: {tool: component@^1, from: climate, with: {key: temperature}}
  smooth: {tool: sliding_mean@^1, from: temperature, with: {width: 1s}}
  hot: {tool: threshold@^1, from: smooth, with: {above: 25, hysteresis: 0.5}}
publish:
  smooth: {}
"""
_SETTINGS: Final = """\
workflows = ["steady.yaml"]
[store]
url = "{store}"
[mqtt]
url = "{broker}"
client_id = "{name}"
[http]
port = 0
[logging]
level = "info"
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds so far and resident memory (MB) now."""

    cpu: float
    rss: float

    @classmethod
    def of(cls, pid: int) -> Self:
        """Of a process with all its threads, without its children."""
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        ticks = int(fields[11]) + int(fields[12])
        return cls(ticks / _TICKS, pages * os.sysconf("SC_PAGE_SIZE") / 1e6)


@dataclass(frozen=True, slots=True)
class Contender:
    """A running process that takes readings at ``topic`` and publishes one result each below ``results``."""

    pid: int
    topic: str
    results: str
    database: str
    per_reading: int
    started_in: float
    stored: Callable[[], int]
    """How many instances there are."""

    @property
    def cost(self) -> Cost:
        """What it cost until now."""
        return Cost.of(self.pid)


class Parts:
    """Use as an async context manager; everything that was started ends with it."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="hs-steady-")
        self.path = Path(self._directory.name)
        self.broker = EmbeddedBroker(self.path / "broker", kind="mosquitto")
        self.mongod = EmbeddedMongod(self.path / "mongod")
        self.mongo: MongoClient[dict[str, Any]]
        self._names = 0

    async def __aenter__(self) -> Self:
        await self.broker.start()
        try:
            await self.mongod.start()
        except BaseException:
            await self.broker.stop()
            raise
        self.mongo = MongoClient(self.mongod.url)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.mongo.close()
        await self.mongod.stop()
        await self.broker.stop()
        self._directory.cleanup()

    def new_name(self, kind: str) -> str:
        """A name for a database that does not exist yet."""
        self._names += 1
        return f"{kind}{self._names}"

    def drop(self, database: str) -> None:
        """Forget a database, so that later measurements find room in the page cache."""
        self.mongo.drop_database(database)

    # --- contenders ---

    @contextlib.asynccontextmanager
    async def bare_loop(self) -> AsyncIterator[Contender]:
        """The bare loop over a new database, which is dropped at the end."""
        database = self.new_name("bare")
        arguments = [sys.executable, "-m", "benchmarks.steady.baseline"]
        arguments += [str(self.broker.port), self.mongod.url, database]
        began = time.monotonic()
        with (self.path / f"{database}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *arguments, cwd=ROOT, env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        async with _ending(process, self.path / f"{database}.log"):
            assert process.stdout is not None
            if await asyncio.wait_for(process.stdout.readline(), _START_SECONDS) != b"ready\n":
                raise RuntimeError(f"the bare loop does not start: {_end_of(self.path / f'{database}.log')}")
            yield Contender(
                process.pid,
                baseline.IN,
                baseline.OUT.format(room="+"),
                database,
                1,
                time.monotonic() - began,
                partial(self._stored, database),
            )
        self.drop(database)

    @contextlib.asynccontextmanager
    async def service(
        self, database: str, *wrapper: str, store: Literal["mongodb", "sqlite"] = "mongodb"
    ) -> AsyncIterator[Contender]:
        """``hs-stream serve`` over ``database``. ``wrapper`` (a profiler) comes before the interpreter's arguments.

        Each has a topic of its own: the broker keeps the sessions of those before it, and would queue for them.
        """
        name = self.new_name("site")
        site = self.path / name
        site.mkdir()
        topic = f"{name}/{{room}}/climate"
        (site / "steady.yaml").write_text(_WORKFLOW.replace("{topic}", topic), encoding="utf-8")
        file = site / "store.db"
        url = self.mongod.database_url(database) if store == "mongodb" else f"sqlite:///{file}"
        settings = _SETTINGS.format(store=url, broker=self.broker.url, name=database)
        (site / "hs-stream.toml").write_text(settings, encoding="utf-8")
        arguments = wrapper or (sys.executable, "-m", "hs_stream.cli")
        began = time.monotonic()
        with (site / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *arguments, "serve", cwd=site, env=_environment(), stdout=log, stderr=log
            )
        async with _ending(process, site / "log"):
            await _until_ready(process, site / "log")
            yield Contender(
                process.pid,
                topic,
                "hs/steady/smooth/+",
                database,
                PER_READING,
                time.monotonic() - began,
                partial(self._stored, database) if store == "mongodb" else partial(_rows, file),
            )

    # --- load ---

    async def load(self, contender: Contender, **order: Any) -> Result:
        """Send readings to ``contender`` from a process of its own. `RuntimeError` when results are missing."""
        wanted = Order(port=self.broker.port, topic=contender.topic, results=contender.results, **order)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.steady.load", json.dumps(asdict(wanted))),
            cwd=ROOT,
            env=_environment(),
            stdout=subprocess.PIPE,
        )
        output, _ = await process.communicate()
        if process.returncode:
            raise RuntimeError("the load failed; its error is above")
        result = Result(**json.loads(output))
        if result.error or result.results != result.sent:
            raise RuntimeError(f"{contender.database}: {result.results} of {result.sent} results. {result.error}")
        return result

    def _stored(self, database: str) -> int:
        """How many instances there are, without counting them."""
        return self.mongo[database]["instances"].estimated_document_count()

    async def until_stored(self, contender: Contender, count: int) -> float:
        """Wait for ``count`` instances; the monotonic time at which they were seen, 0 if they were there already."""
        if contender.stored() >= count:
            return 0.0
        deadline = time.monotonic() + _STORED_SECONDS
        while time.monotonic() < deadline:
            if contender.stored() >= count:
                return time.monotonic()
            await asyncio.sleep(0.005)
        found = contender.stored()
        raise RuntimeError(f"{contender.database}: {found} of {count} instances stored")


def _rows(file: Path) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM instances").fetchone()[0])


def _environment() -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HS_STREAM")}
    paths = [ROOT, ROOT / "connectors", ROOT / "tools"]
    return clean | {"PYTHONPATH": os.pathsep.join(map(str, paths))}


def _end_of(log: Path) -> str:
    return " | ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])


@contextlib.asynccontextmanager
async def _ending(process: asyncio.subprocess.Process, log: Path) -> AsyncIterator[None]:
    """Stop ``process`` in an orderly way; `RuntimeError` when it does not end with 0."""
    try:
        yield
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        print(f"the last words of {log.parent.name}/{log.name}: {_end_of(log)}", file=sys.stderr)
        raise
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    if await asyncio.wait_for(process.wait(), 30):
        raise RuntimeError(f"it ended with {process.returncode}: {_end_of(log)}")


def _addresses(log: Path) -> Iterator[str]:
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(encoding="utf-8", errors="replace"))
    yield from re.findall(r"http://127\.0\.0\.1:\d+", text)


async def _until_ready(process: asyncio.subprocess.Process, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.returncode is None:
        for address in _addresses(log):
            if await asyncio.to_thread(_is_ready, address):
                return
        await asyncio.sleep(0.02)
    raise RuntimeError(f"the service does not become ready: {_end_of(log)}")


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=5) as answer:
            return bool(json.loads(answer.read())["ready"])
    except (urllib.error.URLError, OSError):
        return False
