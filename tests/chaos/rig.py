"""The real parts of one chaos test, how they are killed, and what must hold afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import statistics
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from pymongo import MongoClient
from ruamel.yaml import YAML

from hs_stream.service.embedded.broker import EmbeddedBroker
from hs_stream.service.embedded.child import free_port
from hs_stream.service.embedded.mongod import EmbeddedMongod, find_mongod
from tests.chaos.gateway import Gateway, Listener, Mixture, Readings, Source
from tests.chaos.wire import Wire

ROOT = Path(__file__).resolve().parents[2]
SAVES_EVERY = 2.0
"""Seconds between two saves of mosquitto with ``autosave_interval 1``: it compares whole seconds."""

WORKFLOW = """\
workflow: chaos
plates: {room: {max: 50}}
sources:
  climate: {mqtt: "home/{room}/climate", time: {field: ts, unit: ms}, fields: [temperature, co2]}
nodes:
  temperature: {tool: component@^1, from: climate, with: {key: temperature}}
  co2: {tool: component@^1, from: climate, with: {key: co2}}
  warm: {tool: sliding_mean@^1, from: temperature, with: {width: 1s}}
  slope: {tool: derivative@^1, from: temperature}
  stuffy: {tool: threshold@^1, from: co2, with: {above: 800, hysteresis: 50}}
  joined: {tool: as_of_join@^1, from: [temperature, stuffy], with: {names: [temperature, stuffy]}}
  per_2s: {tool: sliding_mean@^1, from: temperature, with: {width: 2s, every: 2s}}
  house: {tool: aggregate@^1, from: per_2s, over: room, with: {function: mean}}
publish: {warm: {}, slope: {}, stuffy: {}, joined: {}, per_2s: {retain: true}, house: {}}
"""
Kind = Literal["service", "mongod", "mosquitto"]


@dataclass
class Report:
    """One row of the table that the long form prints."""

    kind: str
    kills: int = 0
    readings: int = 0
    results: int = 0
    lost: int = 0
    doubled: int = 0
    unpublished: int = 0
    late: int = 0
    repeats: int = 0
    recover: list[float] = field(default_factory=list)

    HEAD = ("kind", "kills", "readings", "results", "lost", "doubled", "unpublished", "late", "repeats", "recover s")

    def row(self) -> tuple[str, ...]:
        seconds = f"{statistics.median(self.recover):.1f} / {max(self.recover):.1f}" if self.recover else "-"
        numbers = (self.kills, self.readings, self.results, self.lost, self.doubled, self.unpublished, self.late)
        return (self.kind, *map(str, numbers), str(self.repeats), seconds)


class Service:
    """``hs-stream serve`` as a process that can be killed and started again."""

    def __init__(
        self,
        directory: Path,
        broker_url: str,
        store_url: str,
        more: str = "",
        workflow: str = WORKFLOW,
        token: str = "",
        lease: str = "30s",
    ) -> None:
        self._directory = directory
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._workflow = YAML(typ="safe").load(workflow)["workflow"]
        self.port = free_port()
        self._process: asyncio.subprocess.Process | None = None
        (directory / "workflow.yaml").write_text(workflow, encoding="utf-8")
        (directory / "hs-stream.toml").write_text(
            f'workflows = ["workflow.yaml"]\n[store]\nurl = "{store_url}"\nlease = "{lease}"\n'
            f'[mqtt]\nurl = "{broker_url}"\n[http]\nport = {self.port}\n{more}',
            encoding="utf-8",
        )

    def _environment(self) -> dict[str, str]:
        paths = os.pathsep.join(map(str, (ROOT, ROOT / "connectors", ROOT / "tools")))
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HS_STREAM")}
        return clean | {"PYTHONPATH": paths}

    async def run(self, *arguments: str, log: Any) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "hs_stream.cli",
            *arguments,
            cwd=self._directory,
            env=self._environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = await self.run("serve", log=log)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self.must_run()
        self._process.send_signal(number)

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self._process is not None
        await self._process.wait()

    async def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return await self.ended(15)

    async def ended(self, seconds: float) -> int:
        """Its exit code, which must come by itself."""
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), seconds)

    def was_refused(self) -> bool:
        """Whether it has ended because another one has the store. It must not end for any other reason."""
        assert self._process is not None
        code = self._process.returncode
        if code == 2 and "a running service is using this store" in self.log.read_text():
            return True
        if code is not None:
            self.must_run()
        return False

    async def close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    @property
    def log(self) -> Path:
        return self._directory / "service.log"

    def must_run(self) -> None:
        assert self._process is not None
        code = self._process.returncode
        assert code is None, f"the service ended by itself ({code}):\n{self.log.read_text()[-3000:]}"

    async def ask(self, path: str) -> Any:
        """The JSON or text of ``path``; ``None`` while nobody answers."""
        return await asyncio.to_thread(self._ask, path)

    def _ask(self, path: str) -> Any:
        try:
            asked = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=self._headers)
            with urllib.request.urlopen(asked, timeout=5) as answer:
                body = answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                body = error.read().decode()
        except OSError:
            return None
        return json.loads(body) if body.startswith(("{", "[")) else body

    async def gauges(self) -> dict[str, float] | None:
        text = await self.ask("/metrics")
        return text and {
            name: float(number) for name, number in re.findall(r"^(hs_\w+)(?:{.*})? (\S+)$", text, re.MULTILINE)
        }

    async def verify(self) -> tuple[int, str]:
        return await self.command("verify", self._workflow)

    async def command(self, *arguments: str) -> tuple[int, str]:
        """Exit code and everything that a command prints."""
        process = await self.run(*arguments, log=asyncio.subprocess.PIPE)
        try:
            out, _ = await asyncio.wait_for(process.communicate(), 120)
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode is not None
        return process.returncode, out.decode()


class Rig:
    """Broker, mongod, service, gateway and listener of one test."""

    def __init__(
        self,
        directory: Path,
        seed: int,
        rate: float,
        source: Source,
        workflow: str,
        more: str,
        replica_set: str | None,
        lease: str,
    ) -> None:
        self._directory, self._rate, self._lease = directory, rate, lease
        self.random = random.Random(seed)
        self.broker = EmbeddedBroker(directory / "broker", persistence=True, kind="mosquitto")
        self.mongod = EmbeddedMongod(directory / "mongod", replica_set=replica_set)
        self._source = source
        self._workflow = workflow
        self._published = frozenset(YAML(typ="safe").load(workflow)["publish"])
        self._more = more
        self.services = 0
        self.service: Service
        """The one that has the store."""
        self.gateway: Gateway
        self.listener: Listener
        self.wires: dict[Kind, Wire] = {}
        self._stack = contextlib.AsyncExitStack()

    @classmethod
    @contextlib.asynccontextmanager
    async def running(
        cls,
        directory: Path,
        seed: int,
        *,
        rate: float,
        source: Source | None = None,
        workflow: str = WORKFLOW,
        more: str = "",
        replica_set: str | None = None,
        lease: str = "30s",
    ) -> Any:
        """``replica_set``: the service reaches its mongod not through the wire, as that says where it is."""
        if find_mongod() is None:
            pytest.skip("no mongod runs on this machine")
        source = source or Readings(seed, 4, 4, Mixture())
        rig = cls(directory, seed, rate, source, workflow, more, replica_set, lease)
        async with rig._stack as stack:
            await rig.broker.start()
            stack.push_async_callback(rig.broker.kill)
            await rig.mongod.start()
            stack.push_async_callback(rig.mongod.stop)
            rig.wires = {"mosquitto": Wire(rig.broker.port), "mongod": Wire(port_of(rig.mongod.url))}
            for wire in rig.wires.values():
                await wire.mend()
                stack.push_async_callback(wire.cut)
            rig.service = rig.another_service()
            rig.listener = Listener(rig.broker.port)
            stack.callback(rig.listener.close)
            rig.gateway = Gateway(rig.broker.port, rig._source, rate)
            stack.callback(rig.gateway.close)
            await rig.service.start()
            await rig.ready()
            # Sessions have been saved, so from here on a killed broker knows its subscribers.
            await asyncio.sleep(SAVES_EVERY + 0.5)
            rig.gateway.start()
            yield rig

    def another_service(self) -> Service:
        """One over the same broker and store, with a directory of its own; not started."""
        self.services += 1
        directory = self._directory / f"service{self.services}"
        directory.mkdir()
        broker, mongod = self.wires["mosquitto"].port, self.wires["mongod"].port
        url = self.mongod.database_url("chaos").replace(f":{port_of(self.mongod.url)}", f":{mongod}")
        made = Service(directory, f"mqtt://127.0.0.1:{broker}", url, self._more, self._workflow, lease=self._lease)
        self._stack.push_async_callback(made.close)
        return made

    async def until(self, what: str, check: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not await check():
            self.service.must_run()
            if time.monotonic() >= deadline:
                sent = self.gateway.state() if hasattr(self, "gateway") else "not begun"
                log = self.service.log.read_text()[-4000:]
                raise AssertionError(
                    f"after {seconds:g} s: {what}; gateway: {sent}; {await self.service.gauges()}\n{log}"
                )
            await asyncio.sleep(0.05)

    async def ready(self) -> None:
        await self.until("not ready", self.is_ready)

    async def is_ready(self) -> bool:
        answer = await self.service.ask("/readyz")
        return isinstance(answer, dict) and answer.get("ready") is True

    # --- kills ---

    async def kill(self, kind: Kind, away: float) -> float:
        """SIGKILL, ``away`` seconds of nothing, and the start on the same port. When it was killed."""
        if kind == "service":
            await self.service.kill()
            killed = time.time()
            await asyncio.sleep(away)
            await self.service.start()
        elif kind == "mongod":
            killed = time.time()
            await self.mongod.kill()
            await asyncio.sleep(away)
            await self.mongod.start()
        else:
            killed = time.time()
            await self.broker.kill()
            self.gateway.broker_was_killed(killed)
            await asyncio.sleep(away)
            await self.broker.start()
        return killed

    async def freeze_and_take_over(self) -> tuple[Service, float]:
        """SIGSTOP of the service, while a standby is started again and again until it has the store.

        Who is frozen, and since when.
        """
        first, began = self.service, time.time()
        first.signal(signal.SIGSTOP)
        self.service = self.another_service()
        deadline = time.monotonic() + 60
        await self.service.start()
        while not await self.is_ready():
            assert time.monotonic() < deadline, self.service.log.read_text()[-4000:]
            if self.service.was_refused():
                await self.service.start()
            await asyncio.sleep(0.05)
        return first, began

    async def freeze(self, kind: Kind, seconds: float) -> float:
        """SIGSTOP, and SIGCONT after ``seconds``. When it was stopped."""
        began = time.time()
        pid = {"service": self.service.pid, "mongod": self.mongod.pid, "mosquitto": self.broker.pid}[kind]
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        os.kill(pid, signal.SIGCONT)
        return began

    async def cut(self, kind: Kind, seconds: float) -> float:
        """The service does not reach its broker or database for ``seconds``. When that began."""
        began = time.time()
        await self.wires[kind].cut()
        await asyncio.sleep(seconds)
        await self.wires[kind].mend()
        return began

    async def slow(self, kind: Kind, seconds: float) -> float:
        """Every answer of the broker or database takes 50 ms longer for ``seconds``. When that ended."""
        self.wires[kind].delay = 0.05
        await asyncio.sleep(seconds)
        self.wires[kind].delay = 0.0
        return time.time()

    async def recovered(self, killed: float) -> float:
        """Seconds from the kill to the first result of a reading that was taken after it."""
        event_time = round(killed * 1000)

        async def is_there() -> bool:
            return self.listener.newest_live > event_time

        await self.until(f"no result of a reading later than {event_time}", is_there)
        return self.listener.last_message - killed

    # --- what must hold ---

    async def settle(self) -> None:
        """The log is confirmed, everything is stored, computed and published, and the listener has it."""

        async def is_confirmed() -> bool:
            return self.gateway.all_confirmed

        async def is_idle() -> bool:
            gauges = await self.service.gauges()
            if not gauges or gauges["hs_mqtt_connected"] != 1:
                return False
            waiting = ("hs_pending_steps", "hs_in_flight_readings", "hs_outbox_pending")
            return not any(gauges[name] for name in waiting) and time.time() - self.listener.last_message > 1.0

        await self.until("the broker does not confirm", is_confirmed)
        idle = 0
        while idle < 3:  # a reconnect, or a delivery on its way, may look like rest
            await self.until("the service does not come to rest", is_idle, 180)
            await asyncio.sleep(0.2)
            idle = idle + 1 if await is_idle() else 0

    async def check(self, report: Report) -> None:
        """Pause, settle, look at everything that the broker, the store and the subscriber hold, and go on."""
        self.gateway.pause()
        await asyncio.sleep(0.1)
        await self.settle()
        code, words = await self.service.verify()
        wrong = await asyncio.to_thread(self._compare, report)
        problems = [f"{kind}: {examples}" for kind, examples in wrong.items() if examples]
        if code or any(word in words for word in ("not computed", "cannot", "pending")):
            problems.append(f"verify: exit {code}: {words}")
        problems += [f"contradiction: {text}" for text in self.listener.tally.contradictions[:3]]
        assert not problems, "\n".join(problems) + f"\n{self.service.log.read_text()[-2000:]}"
        self.gateway.resume()

    def _compare(self, report: Report) -> dict[str, list[str]]:
        wrong: dict[str, list[str]] = {}
        truth = self.gateway.truth()
        with MongoClient[dict[str, Any]](self.mongod.url, tz_aware=True) as client:
            database = client["chaos"]
            streams = list(database["streams"].find())
            raw = [stream for stream in streams if stream["kind"] == "raw"]
            names = sorted(stream["meta"]["room"] for stream in raw)
            doubled = [name for name in names if names.count(name) > 1]
            lost = []
            for stream in raw:
                room = stream["meta"]["room"]
                stored, extra = contents(database, stream["_id"])
                doubled += [f"{room} twice at {at}" for at in extra]
                found = {at: value for at, (value, _) in stored.items()}
                lost += [
                    f"{room} at {at}: {v} not {found.get(at)}" for at, v in truth[room].items() if found.get(at) != v
                ]
                doubled += [f"{room} at {at} was never sent" for at in found.keys() - truth[room].keys()]
            lost += [f"all of {room}" for room, readings in truth.items() if readings and room not in names]
            unpublished = []
            late = results = 0
            for stream in streams:
                if stream["name"] in self._published:
                    stored, _ = contents(database, stream["_id"])
                    results += len(stored)
                    unpublished += self._unpublished(stream_name(stream), stored)
                    if stream["name"] == "warm" and "live" in stream["meta"]["room"]:
                        first = self.listener.first
                        name = stream_name(stream)
                        late += sum(1 for at in stored if first.get((name, at), 0.0) - at / 1000 > 2.0)
            wrong["averages"] = self._wrong_averages(database, streams, truth)
        report.readings = sum(len(message.readings) for message in self.gateway.log)
        report.results, report.late, report.repeats = results, late, self.listener.tally.repeats
        report.lost += len(lost)
        report.doubled += len(doubled)
        report.unpublished += len(unpublished)
        return wrong | {"lost": lost[:5], "doubled": doubled[:5], "unpublished": unpublished[:5]}

    def _unpublished(self, name: str, stored: dict[int, tuple[Any, int]]) -> list[str]:
        """Where the subscriber's newest revision is not what is stored."""
        state = self.listener.state.get(name, {})
        wrong = []
        for at, (value, revision) in stored.items():
            seen = state.get(at)
            if seen is None:
                wrong.append(f"{name} at {at} revision {revision}: never published")
            elif (seen.revision, seen.value) != (revision, value) or seen.kind == "retract":
                wrong.append(f"{name} at {at}: stored {value} revision {revision}, published {seen}")
        gone = [at for at in state.keys() - stored.keys() if state[at].kind != "retract"]
        return wrong + [f"{name} at {at}: published {state[at]}, not stored" for at in gone]

    @staticmethod
    def _wrong_averages(database: Any, streams: list[Any], truth: dict[str, dict[int, Any]]) -> list[str]:
        """The sliding mean, computed here from what was published: independent of tools, engine and oracle."""
        wrong = []
        for stream in streams:
            if stream["name"] != "warm":
                continue
            readings = sorted((at, value["temperature"]) for at, value in truth[stream["meta"]["room"]].items())
            stored, _ = contents(database, stream["_id"])
            first = 0
            for last, (at, _value) in enumerate(readings):
                while readings[first][0] <= at - 1000:
                    first += 1
                expected = statistics.fmean(value for _, value in readings[first : last + 1])
                if at not in stored or abs(stored[at][0] - expected) > 1e-9:
                    wrong.append(f"{stream_name(stream)} at {at}: {stored.get(at)} not {expected}")
            if len(stored) != len(readings):
                wrong.append(f"{stream_name(stream)}: {len(stored)} means of {len(readings)} readings")
        return wrong[:5]


def port_of(url: str) -> int:
    port = urllib.parse.urlsplit(url).port
    assert port is not None
    return port


def stream_name(stream: dict[str, Any]) -> str:
    meta = ",".join(f"{key}={value}" for key, value in sorted(stream["meta"].items()))
    return f"{stream['name']}[{meta}]" if meta else str(stream["name"])


def contents(database: Any, identity: int) -> tuple[dict[int, tuple[Any, int]], list[int]]:
    """Time -> (value, revision) of a stream as MongoDB holds it, and the times that are there twice."""
    found: dict[int, tuple[Any, int]] = {}
    twice = []
    for one in database["instances"].find({"_id": {"$gte": {"s": identity}, "$lt": {"s": identity + 1}}}):
        at = round(one["_id"]["t"].timestamp() * 1000)
        if at in found:
            twice.append(at)
        found[at] = (one["v"], one.get("r", 0))
    return found, twice
