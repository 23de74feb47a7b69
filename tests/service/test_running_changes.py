"""Workflows that are added, changed and removed while the service runs: over HTTP, and by SIGHUP's way."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
import pytest

from hs_stream.core.errors import StoreUnavailable
from hs_stream.core.time import parse_time
from hs_stream.engine.executor import Executor
from hs_stream.engine.pieces import Pieces
from hs_stream.plugins import default_registry
from hs_stream.service.app import Service
from hs_stream.service.embedded.broker import EmbeddedBroker
from hs_stream.service.settings import HttpSettings, MqttSettings, Settings, StoreSettings
from hs_stream.service.workflows.catalog import Catalog
from hs_stream.store.sqlite import SqliteStore

FILE = """
workflow: comfort
plates: {room: {}}
sources:
  climate: {mqtt: "home/{room}/climate", time: {field: ts, unit: ms}}
nodes:
  temperature: {tool: component@^1, from: climate, with: {key: temperature}}
publish: {temperature: {}}
"""
SAVED = """
workflow: more
plates: {room: {}}
sources:
  climate: {mqtt: "home/{room}/climate", time: {field: ts, unit: ms}}
nodes:
  temperature: {tool: component@^1, from: climate, with: {key: temperature}}
  scaled: {tool: expression@^1, from: temperature, with: {expression: value * 2}}
publish:
  scaled: {}
  temperature: {payload: value}
"""
CODE = """
workflow: code
sources: {r: {mqtt: r}}
nodes: {n: {tool: apply, from: r, with: {function: "math:sqrt"}}}
"""
BASE = time.time_ns() // 1_000_000 - 600_000


class Running:
    """A service in this process, and a client of its API and its broker."""

    def __init__(self, service: Service, client: httpx.AsyncClient, mqtt: aiomqtt.Client) -> None:
        self.service, self.client, self.mqtt = service, client, mqtt
        self.base = BASE

    async def publish(self, *items: tuple[int, float], room: str = "kitchen") -> None:
        for second, value in items:
            payload = json.dumps({"ts": self.base + second * 1000, "temperature": value})
            await self.mqtt.publish(f"home/{room}/climate", payload, qos=1)

    async def put(self, name: str, text: str, status: int = 202, **headers: str) -> Any:
        answer = await self.client.put(f"/api/workflows/{name}", content=text.encode(), headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def get(self, path: str, status: int = 200) -> Any:
        answer = await self.client.get(path)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def delete(self, name: str, status: int = 202) -> Any:
        answer = await self.client.delete(f"/api/workflows/{name}")
        assert answer.status_code == status, answer.text
        return answer.json()

    async def contents(self, node: str, expected: dict[int, Any], room: str = "kitchen") -> None:
        """By seconds after the base: wait until they are so."""
        async with asyncio.timeout(10):
            while True:
                answer = await self.client.get(f"/api/streams/{node}%5Broom={room}%5D/instances")
                rows = answer.json().get("instances", [])
                found = {self.second(row["time"]): row["value"] for row in rows}
                if found == expected:
                    return
                await asyncio.sleep(0.02)

    def second(self, text: str) -> int:
        return (parse_time(text, now=0) - self.base) // 1000


@asynccontextmanager
async def running(directory: Path, broker: EmbeddedBroker, text: str = FILE, **more: Any) -> AsyncIterator[Running]:
    path = directory / "comfort.yaml"
    if not path.exists():
        path.write_text(text, encoding="utf-8")
    settings = Settings().model_copy(
        update={
            "workflows": (f"{directory}/*.yaml",),
            "store": StoreSettings(url=f"sqlite:///{directory}/x.db"),
            "mqtt": MqttSettings(url=broker.url),
            "http": HttpSettings(port=0),
            **more,
        }
    )
    service = Service(settings)
    task = asyncio.create_task(service.run())
    started = asyncio.create_task(service.started.wait())
    await asyncio.wait((task, started), return_when=asyncio.FIRST_COMPLETED)
    started.cancel()
    if task.done():
        task.result()
    try:
        async with (
            httpx.AsyncClient(base_url=service.url, timeout=15) as client,
            aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as mqtt,
        ):
            yield Running(service, client, mqtt)
    finally:
        service.stop()
        async with asyncio.timeout(10):
            await task


async def test_added_changed_and_removed(tmp_path: Path, broker: EmbeddedBroker) -> None:
    async with running(tmp_path, broker) as it:
        await it.publish((1, 1.0), (2, 2.0))
        await it.contents("temperature", {1: 1.0, 2: 2.0})
        answer = await it.put("more", SAVED)
        assert answer["action"] == "add"
        assert answer["nodes"] == {"new": ["scaled"], "changed": [], "unchanged": ["temperature"], "removed": []}
        assert "scaled" in answer["message"]
        # Who asks next is answered by the new workflows.
        names = {row["name"]: row["from"] for row in (await it.get("/api/workflows"))["workflows"]}
        assert names == {"comfort": f"{tmp_path}/comfort.yaml", "more": "store"}
        await it.publish((3, 3.0))
        await it.contents("scaled", {1: 2.0, 2: 4.0, 3: 6.0})
        assert await it.put("more", SAVED, 200) == {
            "workflow": "more",
            "action": "nothing",
            "message": "more stays as it is",
            "nodes": {"new": [], "changed": [], "unchanged": ["temperature", "scaled"], "removed": []},
        }
        changed = await it.put("more", SAVED.replace("value * 2", "value * 3"))
        assert changed["nodes"] == {"new": [], "changed": ["scaled"], "unchanged": ["temperature"], "removed": []}
        await it.contents("scaled", {1: 3.0, 2: 6.0, 3: 9.0})
        document = await it.get("/api/workflows/more?resolved=false")
        assert document["nodes"]["scaled"] == {
            "tool": "expression@^1",
            "from": "temperature",
            "with": {"expression": "value * 3", "names": None},
        }
        removed = await it.delete("more")
        assert (removed["action"], removed["nodes"]["removed"]) == ("remove", ["scaled"]), "comfort has the temperature"
        assert [row["name"] for row in (await it.get("/api/workflows"))["workflows"]] == ["comfort"]
        await it.publish((4, 4.0))
        await it.contents("temperature", {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0})
        assert "did you mean" not in (await it.delete("more", 404))["error"]
        sessions = (await it.get("/api/sessions"))["sessions"]
        assert [session["workflows"] for session in sessions[::-1]] == [
            ["comfort"],
            ["comfort", "more"],
            ["comfort", "more"],
            ["comfort"],
        ]
        assert [bool(session["stopped"]) for session in sessions] == [False, True, True, True]
    store = SqliteStore(tmp_path / "x.db")
    await store.open()
    [stored] = [record for record in await store.streams() if record.stream.name == "scaled"]
    assert await store.count(stored.id, 0, it.base + 10_000) == 3, "results of removed workflows stay"
    documents = await store.documents("workflows")
    assert documents["more"]["saved"] is None
    assert documents["more"]["definition"]["nodes"]["scaled"]["tool"].startswith("expression@==")
    await store.close()


async def test_a_change_makes_only_what_changed_stale_and_old_results_stay_until_they_are_replaced(
    tmp_path: Path, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = SAVED.replace(
        "publish:", "  shifted: {tool: expression, from: scaled, with: {expression: value + 1}}\npublish:"
    )
    chain = chain.replace(
        "publish:", "  beside: {tool: expression, from: temperature, with: {expression: -value}}\npublish:"
    )
    held, go_on = [Executor.step], asyncio.Event()
    evaluated: list[str] = []
    accept = Pieces.accept

    async def spy(self: Pieces, stream: Any, *rest: Any) -> None:
        evaluated.append(stream.node)
        await accept(self, stream, *rest)

    async with running(tmp_path, broker) as it:
        await it.put("more", chain)
        await it.publish((1, 1.0), (2, 2.0))
        for node, first, second in (("shifted", 3.0, 5.0), ("beside", -1.0, -2.0)):
            await it.contents(node, {1: first, 2: second})
        engine = it.service.engine

        async def step(self: Executor) -> bool:
            if self is not engine._executor:
                await go_on.wait()
            return await held[0](self)

        monkeypatch.setattr(Executor, "step", step)
        monkeypatch.setattr(Pieces, "accept", spy)
        answer = await it.put("more", chain.replace("value * 2", "value * 3"))
        assert answer["nodes"]["changed"] == ["scaled", "shifted"]
        assert answer["nodes"]["unchanged"] == ["temperature", "beside"]
        streams = {row["node"]: row for row in (await it.get("/api/streams"))["streams"]}
        assert {node for node, row in streams.items() if row["stale"]} == {"scaled", "shifted"}
        assert all(streams[node]["coverage"] for node in ("temperature", "beside"))
        await it.contents("scaled", {1: 2.0, 2: 4.0})
        await it.contents("shifted", {1: 3.0, 2: 5.0})
        go_on.set()
        await it.contents("scaled", {1: 3.0, 2: 6.0})
        await it.contents("shifted", {1: 4.0, 2: 7.0})
        assert set(evaluated) == {"scaled", "shifted"}


async def test_what_is_saved_runs_again_after_a_restart_and_a_file_wins(
    tmp_path: Path, broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, broker) as it:
        await it.put("more", SAVED)
    async with running(tmp_path, broker) as it:
        assert (await it.get("/api/workflows/more"))["nodes"]["scaled"]["tool"].startswith("expression@==")
        await it.publish((1, 1.0))
        await it.contents("scaled", {1: 2.0})
    (tmp_path / "more.yaml").write_text(SAVED.replace("value * 2", "value * 5"), encoding="utf-8")
    async with running(tmp_path, broker) as it:
        await it.contents("scaled", {1: 5.0})
        answer = await it.put("more", SAVED, 409)
        assert "more.yaml" in answer["error"]
        assert "SIGHUP" in answer["hint"]
        # The saved one is still there, and may be removed; the file goes on.
        assert (await it.delete("more", 200))["action"] == "nothing"
        assert f"{tmp_path}/more.yaml" in (await it.delete("more", 409))["error"]
        await it.contents("scaled", {1: 5.0})


async def test_files_are_read_again(tmp_path: Path, broker: EmbeddedBroker) -> None:
    async with running(tmp_path, broker) as it:
        await it.publish((1, 1.0))
        await it.contents("temperature", {1: 1.0})
        first = it.service.engine
        it.service.read_files_again()
        await asyncio.sleep(0.3)
        assert it.service.engine is first, "nothing is different"
        (tmp_path / "more.yaml").write_text(SAVED, encoding="utf-8")
        it.service.read_files_again()
        await it.contents("scaled", {1: 2.0})
        assert it.service.engine is not first
        second = it.service.engine
        # A mistake, and a contradiction, change nothing.
        for text in (SAVED.replace("expression: value", "expresion: value"), SAVED.replace("key: temp", "key: Temp")):
            (tmp_path / "more.yaml").write_text(text, encoding="utf-8")
            it.service.read_files_again()
            await asyncio.sleep(0.3)
            assert it.service.engine is second
        (tmp_path / "more.yaml").unlink()
        it.service.read_files_again()
        async with asyncio.timeout(10):
            while it.service.engine is second:
                await asyncio.sleep(0.02)
        assert [one.name for one in it.service.workflows] == ["comfort"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("expression@^1", "expresion@^1", "workflow more:8: node scaled: there is no tool 'expresion'"),
        ("value * 2", "value *", "workflow more:8: node scaled"),
        ("workflow: more", "workflow: other", "this is the workflow other, not more"),
        ("key: temperature", "key: Temperature", "temperature of workflow more is also defined by workflow comfort"),
        ("{room}/climate", "{room}/climates", "climate of workflow more is also defined by workflow comfort"),
        ("nodes:", "nodes: [", "this is not YAML"),
    ],
)
async def test_what_does_not_load_changes_nothing_and_says_why(
    tmp_path: Path, broker: EmbeddedBroker, old: str, new: str, words: str
) -> None:
    async with running(tmp_path, broker) as it:
        engine = it.service.engine
        answer = await it.put("more", SAVED.replace(old, new, 1), 422)
        assert words in answer["error"]
        assert it.service.engine is engine
        assert [row["name"] for row in (await it.get("/api/workflows"))["workflows"]] == ["comfort"]


async def test_what_a_connector_does_not_take_changes_nothing(tmp_path: Path, broker: EmbeddedBroker) -> None:
    password = tmp_path / "password"
    password.write_text("s3cret", encoding="utf-8")
    mqtt = MqttSettings(url=broker.url, username="hs", password_file=str(password))
    async with running(tmp_path, broker, mqtt=mqtt) as it:
        engine = it.service.engine
        password.unlink()
        assert str(password) in (await it.put("more", SAVED, 422))["error"]
        (tmp_path / "more.yaml").write_text(SAVED, encoding="utf-8")
        it.service.read_files_again()
        await asyncio.sleep(0.3)
        assert it.service.engine is engine, "the next start would fail, but this service goes on"
        assert [row["name"] for row in (await it.get("/api/workflows"))["workflows"]] == ["comfort"]


async def test_bodies(tmp_path: Path, broker: EmbeddedBroker) -> None:
    async with running(tmp_path, broker) as it:
        document = {"workflow": "tiny", "sources": {"tiny_raw": {"mqtt": "x"}}, "description": "\N{THERMOMETER}"}
        as_json: dict[str, Any] = {"content-type": "application/json"}
        assert (await it.put("tiny", json.dumps(document, indent="\t"), **as_json))["action"] == "add"
        assert (await it.get("/api/workflows/tiny"))["description"] == "\N{THERMOMETER}"
        bad = await it.put("tiny", '{"workflow": ', 422, **as_json)
        assert "this is not JSON" in bad["error"]
        assert "has at most" in (await it.put("tiny", "#" * 1_000_001, 413))["error"]
        answer = await it.put("code", CODE.replace("math:sqrt", "os:getpid"), 422)
        assert answer["error"] == "workflow code:4: node n: apply runs the code of os:getpid"
        assert "token" in answer["hint"]
        elsewhere = await it.client.put("/api/workflows/tiny", content=b"x", headers={"host": "evil.example:80"})
        assert elsewhere.status_code == 403
        wrong = await it.client.post("/api/workflows/tiny")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "DELETE, GET, PUT")
        assert "read-only" not in (await it.client.get("/openapi.json")).text.lower()


FILES = """
workflow: files
sources: {door: {csv: %s, time: {field: time}}}
"""


async def test_without_a_token_no_workflow_reads_files_of_this_machine(
    tmp_path: Path, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    secret = tmp_path.parent / f"{tmp_path.name}-secret"
    secret.write_text("root:x:0:0\n", encoding="utf-8")
    async with running(tmp_path, broker) as it:
        answer = await it.put("files", FILES % secret, 422)
        assert answer["error"] == "workflow files:3: source door: it reads files of the service's machine"
        assert "set http.token_file" in answer["hint"]
        assert (await it.get("/api/deadletters"))["dead_letters"] == []


async def test_with_a_token_a_workflow_reads_files_below_the_directory(
    tmp_path: Path, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text("s3cret", encoding="utf-8")
    http = HttpSettings(port=0, token_file=str(tmp_path / "token"))
    async with running(tmp_path, broker, http=http) as it:
        for path in ("/etc/passwd", "../x.csv", "data/../../x.csv", str(tmp_path.parent / "x.csv")):
            answer = await it.put("files", FILES % path, 422, authorization="Bearer s3cret")
            assert f"csv: {path} is not below" in answer["error"]
        await it.put("files", FILES % "data/door.csv", 202, authorization="Bearer s3cret")


async def test_a_token_is_asked_for_and_lets_code_in(tmp_path: Path, broker: EmbeddedBroker) -> None:
    (tmp_path / "token").write_text("s3cret", encoding="utf-8")
    http = HttpSettings(port=0, token_file=str(tmp_path / "token"))
    async with running(tmp_path, broker, http=http) as it:
        await it.put("code", CODE, 401)
        await it.put("code", CODE, 202, authorization="Bearer s3cret")
        # No name is refused to who has the token: a proxy may have changed it.
        await it.put("code", CODE, 200, authorization="Bearer s3cret", host="hs.example")


async def test_nothing_is_lost_and_nothing_stalls_while_workflows_change(
    tmp_path: Path, broker: EmbeddedBroker
) -> None:
    async with running(tmp_path, broker) as it:
        expected: dict[int, Any] = {}
        done = asyncio.Event()

        async def publisher() -> None:
            second = 0
            while not done.is_set():
                second += 1
                expected[second] = float(second)
                await it.publish((second, float(second)))
                await asyncio.sleep(0.003)

        task = asyncio.create_task(publisher())
        factor = 2
        while len(expected) < 200 or factor < 6:
            factor += 1
            answer = await it.put("more", SAVED.replace("value * 2", f"value * {factor}"))
            assert answer["action"] in ("add", "change")
        await it.delete("more")
        await it.put("more", SAVED)
        done.set()
        await task
        await it.contents("temperature", expected)
        await it.contents("scaled", {second: value * 2 for second, value in expected.items()})


async def test_a_shared_node_is_computed_once_and_published_by_both(tmp_path: Path, broker: EmbeddedBroker) -> None:
    async with running(tmp_path, broker) as it:
        await it.put("more", SAVED)
        await it.get("/api/workflows")
        await it.mqtt.subscribe("hs/#", qos=1)
        await it.publish((1, 1.5))
        await it.contents("scaled", {1: 3.0})
        found = {}
        async with asyncio.timeout(10):
            async for message in it.mqtt.messages:
                if str(message.topic) != "hs/status":
                    found[str(message.topic)] = json.loads(message.payload)
                if len(found) == 3:
                    break
        assert found["hs/more/temperature/kitchen"] == 1.5
        assert found["hs/comfort/temperature/kitchen"]["value"] == 1.5
        assert found["hs/more/scaled/kitchen"]["value"] == 3.0
        statistics = it.service.engine.statistics()
        assert (statistics.readings, statistics.results, statistics.streams) == (1, 2, 3)
        assert set(statistics.lag) == {"comfort", "more"}
        metrics = (await it.client.get("/metrics")).text
        assert 'hs_step_seconds_count{tool="component"} 1.0' in metrics
        rows = {row["name"]: row for row in (await it.get("/api/workflows"))["workflows"]}
        assert (rows["comfort"]["streams"], rows["more"]["streams"]) == (2, 3)


async def test_a_request_that_computes_ends_with_its_engine(tmp_path: Path, broker: EmbeddedBroker) -> None:
    later = SAVED.replace("workflow: more", "workflow: more\nonline: false")
    async with running(tmp_path, broker) as it:
        await it.put("more", later)
        await it.publish((1, 1.0))
        await it.contents("temperature", {1: 1.0})
        step = it.service.engine._executor.step
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow() -> bool:
            begun.set()
            await go_on.wait()
            return await step()

        it.service.engine._executor.step = slow  # type: ignore[method-assign]
        path = "/api/streams/scaled%5Broom=kitchen%5D/instances?compute=true&start=-1h&end=now"
        request = asyncio.create_task(it.client.get(path))
        await begun.wait()
        it.service._begin_reload()
        await asyncio.sleep(0.1)
        go_on.set()
        answer = await request
        assert answer.status_code == 503
        assert "ask again" in answer.json()["hint"]
        again = await it.client.get(path)
        assert [row["value"] for row in again.json()["instances"]] == [2.0]


async def test_a_store_that_is_away_meanwhile_is_waited_for(tmp_path: Path, broker: EmbeddedBroker) -> None:
    async with running(tmp_path, broker) as it:
        opened = it.service.store.open
        failures = 2

        async def away() -> Any:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise StoreUnavailable("gone")
            return await opened()

        it.service.store.open = away  # type: ignore[method-assign]
        await it.put("more", SAVED)
        assert (await it.get("/healthz"))["ok"], "the process answers all the time"
        await it.publish((1, 1.0))
        await it.contents("scaled", {1: 2.0})
        assert failures < 0


async def test_a_stop_in_the_middle_of_a_change(tmp_path: Path, broker: EmbeddedBroker) -> None:
    async with running(tmp_path, broker) as it:
        await it.put("more", SAVED)
        it.service.stop()
    async with running(tmp_path, broker) as it:
        assert {row["name"] for row in (await it.get("/api/workflows"))["workflows"]} == {"comfort", "more"}


async def test_code_is_imported_in_the_thread_of_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a file takes long and is done beside the loop; what it names is imported where it runs."""
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("code_of_a_file", "code_of_a_text"):
        code = "import threading\nTHREAD = threading.current_thread()\ndef half(x):\n    return x / 2\n"
        (tmp_path / f"{name}.py").write_text(code)
    settings = Settings().model_copy(update={"workflows": (f"{tmp_path}/*.yaml",)})
    catalog = Catalog(settings, default_registry())
    (tmp_path / "code.yaml").write_text(CODE.replace("math:sqrt", "code_of_a_file:half"), encoding="utf-8")
    assert await catalog.read_files()
    await catalog.parse("code", CODE.replace("math:sqrt", "code_of_a_text:half"))
    for name in ("code_of_a_file", "code_of_a_text"):
        assert sys.modules.pop(name).THREAD is threading.current_thread()
