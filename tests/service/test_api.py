"""The HTTP API over a real engine with a memory store: answers, states, pages, errors, token."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from hs_stream.core.errors import StoreUnavailable
from hs_stream.core.time import TimeInterval, format_time
from hs_stream.engine.engine import Engine, EngineSettings
from hs_stream.engine.ports import DeadLetter, Delivery, Reading
from hs_stream.plugins import default_registry
from hs_stream.service.http.api import create_api
from hs_stream.service.http.context import ApiContext
from hs_stream.service.http.security import Tokens
from hs_stream.service.metrics import ServiceTelemetry
from hs_stream.service.workflows.file import parse_workflow
from hs_stream.store.memory import MemoryStore
from hs_stream.testing.clock import VirtualClock

NOW = 1_800_000_000_000
WORKFLOW = """
workflow: comfort
plates: {house: {}, room: {parent: house}}
sources: {climate: {mqtt: "home/{house}/{room}/climate"}}
nodes:
  temperature: {tool: component, from: climate, with: {key: t}}
  smooth: {tool: sliding_mean, from: temperature, with: {width: 1m}}
publish: {smooth: {}}
"""
OFFLINE = """
workflow: later
online: false
sources: {raw: {mqtt: raw}}
nodes:
  wrong: {tool: sliding_mean, from: raw, with: {width: 1m}}
"""


registry_once = lru_cache(default_registry)


@dataclass
class Context:
    context: ApiContext
    engine: Engine
    clock: VirtualClock
    store: MemoryStore

    async def deliver(self, source: str, meta: dict[str, str], items: list[tuple[int, Any]]) -> None:
        readings = [Reading(source, tuple(sorted(meta.items())), time, value) for time, value in items]
        await self.engine.deliver(Delivery(readings, [], self.clock.now(), lambda: None))
        await self.engine.settle()


@dataclass
class Api(Context):
    client: httpx.AsyncClient

    async def get(self, path: str, status: int = 200) -> Any:
        answer = await self.client.get(path)
        assert answer.status_code == status, answer.text
        return answer.json()


@asynccontextmanager
async def make_context(
    token: str = "", ready: bool = True, workflows: Sequence[str] = (WORKFLOW, OFFLINE)
) -> AsyncIterator[Context]:
    clock, store, telemetry = VirtualClock(NOW), MemoryStore(), ServiceTelemetry()
    registry = registry_once()
    parsed = [parse_workflow(text, registry) for text in workflows]
    engine = Engine(store, settings=EngineSettings(), clock=clock, telemetry=telemetry)
    await engine.open(parsed)

    async def parts() -> dict[str, Any]:
        part = {"ok": True} if ready else {"ok": False, "error": "gone"}
        return {"ready": ready, "parts": {"broker": part}}

    tokens = Tokens(token)
    context = ApiContext(engine, store, clock, parsed, registry, telemetry.exposition, parts, "1.2.3", tokens)
    yield Context(context, engine, clock, store)
    await engine.close()


@asynccontextmanager
async def make_api(
    token: str = "", ready: bool = True, workflows: Sequence[str] = (WORKFLOW, OFFLINE)
) -> AsyncIterator[Api]:
    async with make_context(token, ready, workflows) as made:
        transport = httpx.ASGITransport(create_api(made.context), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield Api(made.context, made.engine, made.clock, made.store, client)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with make_api() as made:
        for room in ("kitchen", "attic/lamp"):
            items = [(NOW - 100_000 + 10_000 * index, {"t": float(index)}) for index in range(10)]
            await made.deliver("climate", {"house": "1", "room": room}, items)
        yield made


SMOOTH = "/api/streams/smooth%5Bhouse=1,room=kitchen%5D"


async def test_health_and_readiness() -> None:
    async with make_api() as api:
        assert await api.get("/healthz") == {"ok": True, "version": "1.2.3"}
        assert (await api.get("/readyz"))["ready"] is True
    async with make_api(ready=False) as api:
        assert (await api.get("/readyz", 503))["parts"]["broker"]["error"] == "gone"
        assert (await api.get("/healthz"))["ok"] is True


async def test_a_stream_tells_kind_and_unit_of_its_values() -> None:
    told = WORKFLOW.replace('climate"}}', 'climate", fields: {t: {kind: state, unit: °C}}}}')
    async with make_api(workflows=(told,)) as api:
        await api.deliver("climate", {"house": "1", "room": "hall"}, [(NOW, {"t": 20.5})])
        found = {one["name"]: one["meaning"] for one in (await api.get("/api/streams"))["streams"]}
        one = await api.get("/api/streams/temperature%5Bhouse=1,room=hall%5D")
    assert found["climate"] == {"fields": {"t": {"kind": "state", "unit": "°C"}}}
    assert found["temperature"] == one["meaning"] == {"kind": "state", "unit": "°C"}
    assert found["smooth"]["unit"] == "°C"


async def test_a_stream_of_which_nobody_knows_says_nothing(api: Api) -> None:
    assert (await api.get("/api/streams/temperature%5Bhouse=1,room=kitchen%5D"))["meaning"] == {}


async def test_streams_are_found_by_name_and_plate_and_paged(api: Api) -> None:
    everything = await api.get("/api/streams")
    assert everything["total"] == len(everything["streams"]) == 6
    kitchen = await api.get("/api/streams?name=smooth&room=kitchen")
    assert [stream["stream"] for stream in kitchen["streams"]] == ["smooth[house=1,room=kitchen]"]
    assert kitchen["streams"][0]["tool"] == "sliding_mean@2.0.0"
    assert kitchen["streams"][0]["meta"] == {"house": "1", "room": "kitchen"}
    found: list[str] = []
    cursor = ""
    while True:
        page = await api.get(f"/api/streams?limit=2{cursor}")
        found += [stream["stream"] for stream in page["streams"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert found == [stream["stream"] for stream in everything["streams"]]


async def test_a_stream_by_id_by_text_and_with_a_slash(api: Api) -> None:
    by_text = await api.get(SMOOTH)
    by_id = await api.get(f"/api/streams/{by_text['id']}")
    assert by_id == by_text
    slash = await api.get("/api/streams/smooth%5Bhouse=1,room=attic%2Flamp%5D/instances")
    assert len(slash["instances"]) == 10


async def test_instances_and_their_pages(api: Api) -> None:
    whole = await api.get(f"{SMOOTH}/instances")
    assert [row["value"] for row in whole["instances"]][:3] == [0.0, 0.5, 1.0]
    assert whole["instances"][0]["time"] == "2027-01-15T07:58:20Z"
    assert whole["next"] is None
    rows: list[Any] = []
    cursor = ""
    while cursor is not None:
        page = await api.get(f"{SMOOTH}/instances?limit=3{cursor and f'&cursor={cursor}'}")
        assert len(page["instances"]) <= 3
        rows += page["instances"]
        cursor = page["next"]
    assert rows == whole["instances"]
    newest = await api.get(f"{SMOOTH}/instances?limit=2&newest=true")
    assert newest["instances"] == whole["instances"][-2:]


@pytest.mark.parametrize(
    "query",
    [
        f"start={NOW - 100_000}&end={NOW - 90_000}",
        "start=2027-01-15T07:58:20Z&end=2027-01-15T07:58:30Z",
        "start=2027-01-15T08:58:20%2B01:00&end=2027-01-15T08:58:30+01:00",
        "start=-100s&end=-90s",
    ],
)
async def test_the_start_is_excluded_and_the_end_included_in_every_form_of_time(api: Api, query: str) -> None:
    found = await api.get(f"{SMOOTH}/instances?{query}")
    assert [row["value"] for row in found["instances"]] == [0.5]


async def test_a_revision_is_shown(api: Api) -> None:
    await api.deliver("climate", {"house": "1", "room": "kitchen"}, [(NOW - 100_000, {"t": 50.0})])
    found = await api.get(f"{SMOOTH}/instances?limit=1")
    assert found["instances"][0] == {"time": "2027-01-15T07:58:20Z", "value": 50.0, "revision": 1}


async def test_a_value_is_explained(api: Api) -> None:
    room = {"house": "1", "room": "attic"}
    await api.deliver("climate", room, [(NOW - 5000 + step * 1000, {"t": float(step)}) for step in range(3)])
    stream = "smooth[house=1,room=attic]"
    at = format_time(NOW - 4000)
    document = await api.get(f"/api/streams/{stream}/explain?at={at}")
    assert (document["stream"], document["time"], document["value"], document["state"]) == (stream, at, 0.5, "computed")
    names = [level["stream"].partition("[")[0] for level in document["levels"]]
    assert names == ["smooth", "temperature", "climate"]
    assert document["levels"][0]["tool"]["name"] == "sliding_mean"
    assert document["levels"][2]["instances"] == 2
    assert document["levels"][2]["source"]["mqtt"] == "home/1/attic/climate"
    assert document["changes"][0]["spans"] == document["levels"][2]["spans"]
    shallow = await api.get(f"/api/streams/{stream}/explain?depth=1")
    assert (shallow["value"], len(shallow["levels"])) == (1.0, 2)
    missing = await api.get(f"/api/streams/{stream}/explain?at={format_time(NOW - 4500)}", 404)
    assert "the nearest ones are at" in missing["hint"]
    assert "at: " in (await api.get(f"/api/streams/{stream}/explain?at=noon", 422))["error"]


async def test_the_states_of_an_interval(api: Api) -> None:
    asked = f"start={NOW - 200_000}&end={NOW}"
    found = await api.get(f"{SMOOTH}/instances?{asked}")
    assert [state["state"] for state in found["states"]] == ["computed", "not-computed"]
    assert (await api.get(f"{SMOOTH}?{asked}"))["states"] == found["states"]
    empty = await api.get(f"{SMOOTH}?start={NOW - 300_000}&end={NOW - 200_000}")
    assert [state["state"] for state in empty["states"]] == ["computed-empty"]


async def test_compute_on_request_and_failure(api: Api) -> None:
    await api.deliver("raw", {}, [(NOW - 50_000, 1.0), (NOW - 40_000, 3.0)])
    window = f"start={NOW - 60_000}&end={NOW - 40_000}"
    before = await api.get(f"/api/streams/wrong/instances?{window}")
    assert before["instances"] == []
    assert [state["state"] for state in before["states"]] == ["not-computed"]
    after = await api.get(f"/api/streams/wrong/instances?{window}&compute=true")
    assert [row["value"] for row in after["instances"]] == [1.0, 2.0]
    assert [state["state"] for state in after["states"]] == ["computed"]
    await api.deliver("raw", {}, [(NOW - 30_000, {"no": "number"})])
    window = f"start={NOW - 40_000}&end={NOW - 30_000}"
    assert await api.get("/api/failed") == {"failed": []}
    failed = await api.get(f"/api/streams/wrong/instances?{window}&compute=true")
    [listed] = (await api.get("/api/failed"))["failed"]
    assert (listed["stream"], listed["tool"]) == ("wrong", "sliding_mean@2.0.0")
    assert listed["failed"] == [["2027-01-15T07:59:29.999Z", "2027-01-15T07:59:30Z"]]
    assert listed["error"] in failed["error"]
    assert "failed" in [state["state"] for state in failed["states"]]
    assert failed["error"]


async def test_values_that_json_does_not_know(api: Api) -> None:
    value = [float("nan"), float("-inf"), b"\xff", datetime(2026, 1, 1, tzinfo=UTC), TimeInterval(0, 1000), 2**53 + 1]
    await api.deliver("raw", {}, [(NOW - 1_000, value)])
    answer = await api.client.get("/api/streams/raw/instances")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    rows = json.loads(answer.content, parse_constant=refuse)["instances"]
    assert rows[0]["value"] == [
        {"$number": "NaN"},
        {"$number": "-Infinity"},
        {"$binary": "/w=="},
        {"$date": "2026-01-01T00:00:00Z"},
        {"$interval": ["1970-01-01T00:00:00Z", "1970-01-01T00:00:01Z"]},
        2**53 + 1,
    ]


async def test_workflows_plates_tools_and_books(api: Api) -> None:
    workflows = (await api.get("/api/workflows"))["workflows"]
    assert [item["name"] for item in workflows] == ["comfort", "later"]
    assert workflows[0]["streams"] == 6
    graph = await api.get("/api/workflows/comfort/graph")
    assert {"from": "temperature", "to": "smooth", "slot": 0} in graph["edges"]
    assert (await api.client.get("/api/workflows/comfort/graph?format=mermaid")).text.startswith("flowchart")
    assert (await api.get("/api/workflows/comfort"))["nodes"]["smooth"]["tool"] == "sliding_mean@==2.0.0"
    plates = {plate["name"]: plate["values"] for plate in (await api.get("/api/plates"))["plates"]}
    assert plates["house"] == [{"house": "1"}]
    assert {"house": "1", "room": "attic/lamp"} in plates["room"]
    tools = {tool["name"]: tool for tool in (await api.get("/api/tools"))["tools"]}
    assert {"name": "every", "type": "Duration", "required": True} in tools["interpolate"]["parameters"]
    assert await api.get("/api/sessions") == {"sessions": []}


async def test_history_says_what_was_computed_and_why(api: Api) -> None:
    found = (await api.get("/api/history"))["history"]
    assert found
    assert {"node", "tool", "cause", "start", "end", "instances", "changed", "session", "time"} == set(found[0])
    node = found[0]["node"]
    of_node = (await api.get(f"/api/history?node={node}&limit=1"))["history"]
    assert [entry["node"] for entry in of_node] == [node]
    assert await api.get("/api/history?node=none") == {"history": []}


async def test_dead_letters_are_shown_with_their_payload(api: Api) -> None:
    letters = [DeadLetter(NOW, "climate", "json", "not JSON", "t", payload) for payload in (b"{x", b"\xff")]
    await api.engine.deliver(Delivery([], letters, NOW, lambda: None))
    await api.engine.settle()
    found = (await api.get("/api/deadletters"))["dead_letters"]
    assert sorted(str(letter["payload"]) for letter in found) == ["{'$binary': '/w=='}", "{x"]
    assert found[0]["reason"] == "json"
    assert len((await api.get("/api/deadletters?limit=1"))["dead_letters"]) == 1


async def test_pages_of_large_values_end_by_their_bytes(api: Api) -> None:
    api.context.page = 100_000
    sizes = [10, 70_000, 70_000, 20, 30, 500_000, 40, 50]
    items = [(NOW - 900 + index, {"x": "z" * size}) for index, size in enumerate(sizes)]
    await api.deliver("climate", {"house": "2", "room": "hall"}, items)
    path, found, pages = "/api/streams/climate%5Bhouse=2,room=hall%5D/instances?limit=1000", [], []
    cursor = ""
    while True:
        page = await api.get(path + cursor)
        found += [len(row["value"]["x"]) for row in page["instances"]]
        pages.append(len(page["instances"]))
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert found == sizes
    assert pages == [3, 3, 2]
    newest = await api.get(path + "&newest=true")
    assert [len(row["value"]["x"]) for row in newest["instances"]] == [500_000, 40, 50]
    letters = [DeadLetter(NOW, "climate", "json", "not JSON", "t", b"x" * 60_000) for _ in range(9)]
    await api.engine.deliver(Delivery([], letters, NOW, lambda: None))
    await api.engine.settle()
    assert len((await api.get("/api/deadletters"))["dead_letters"]) == 2


async def test_overwritten_readings_are_told_by_source(api: Api) -> None:
    assert (await api.get("/api/deadletters"))["overwritten"] == []
    for value in ({"temperature": 1.0}, {"temperature": 2.0}, {"temperature": 2.0}, {"temperature": 3.0}):
        await api.deliver("climate", {"house": "1", "room": "hall"}, [(NOW - 1000, value)])
    assert (await api.get("/api/deadletters"))["overwritten"] == [
        {
            "source": "climate",
            "count": 2,
            "stream": "climate[house=1,room=hall]",
            "time": format_time(NOW - 1000),
        }
    ]


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/nowhere", 404, "/docs"),
        ("/api/streams/999", 404, "/api/streams"),
        ("/api/streams/nothing", 404, ""),
        ("/api/streams/a%5Bb/instances", 422, "write name"),
        ("/api/streams?rom=kitchen", 422, "did you mean room"),
        ("/api/streams?limit=0", 422, "limit"),
        ("/api/streams?limit=x", 422, "limit"),
        (f"{SMOOTH}/instances?limit=1000000", 422, "limit"),
        (f"{SMOOTH}/instances?start=yesterday", 422, "start"),
        (f"{SMOOTH}/instances?start=2026-01-01T00:00:00", 422, "no time zone"),
        (f"{SMOOTH}/instances?start=now&end=-1h", 422, "not before"),
        (f"{SMOOTH}/instances?cursor=abc", 422, "cursor"),
        (f"{SMOOTH}/instances?compute=true", 422, "start and end"),
        ("/api/workflows/comfrt/graph", 404, "did you mean comfort"),
        ("/api/workflows/comfort/graph?format=png", 422, "mermaid"),
    ],
)
async def test_errors_say_what_and_what_to_do(api: Api, path: str, status: int, words: str) -> None:
    body = await api.get(path, status)
    assert set(body) == {"error", "hint"}
    assert words in f"{body['error']} {body['hint']}"


async def test_streams_are_purged_one_by_one_or_a_node_at_once() -> None:
    async with make_api(token="s3cret") as api:
        api.client.headers["authorization"] = "Bearer s3cret"
        items = [(NOW - 100_000 + 10_000 * index, {"t": float(index)}) for index in range(10)]
        for room in ("kitchen", "attic/lamp"):
            await api.deliver("climate", {"house": "1", "room": room}, items)

        async def left(stream: str) -> list[float]:
            found = await api.get(f"/api/streams/{stream}%5Bhouse=1,room=kitchen%5D/instances")
            return [row["value"] for row in found["instances"]]

        window = f"start={NOW - 100_000}&end={NOW - 70_000}"
        answer = await api.client.delete(f"/api/streams/climate%5Bhouse=1,room=kitchen%5D/instances?{window}")
        assert answer.json()["purged"] == [
            {"stream": "climate[house=1,room=kitchen]", "instances": 3, "limit": None},
        ]
        await api.engine.settle()
        assert await left("temperature") == [0.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]
        refused = await api.client.delete("/api/streams?name=climate&house=1")
        assert refused.status_code == 409
        assert refused.json() == {
            "error": "this removes 17 instances of 2 streams in (-inf, inf], and is not confirmed",
            "hint": "add confirm=2 to this very request if that is meant",
            "extent": {
                "count": 2,
                "instances": 17,
                "start": "-inf",
                "end": "inf",
                "streams": [
                    {"stream": "climate[house=1,room=kitchen]", "instances": 7},
                    {"stream": "climate[house=1,room=attic/lamp]", "instances": 10},
                ],
            },
        }
        answer = await api.client.delete("/api/streams?name=climate&house=1&confirm=2")
        assert {row["stream"]: row["instances"] for row in answer.json()["purged"]} == {
            "climate[house=1,room=kitchen]": 7,
            "climate[house=1,room=attic/lamp]": 10,
        }
        await api.engine.settle()
        assert await left("climate") == await left("temperature") == await left("smooth") == []
        # What is demanded of a node is computed again.
        await api.deliver("climate", {"house": "1", "room": "kitchen"}, items)
        answer = await api.client.delete("/api/streams?name=smooth%5Broom=kitchen%5D&confirm=1")
        assert [row["instances"] for row in answer.json()["purged"]] == [10]
        await api.engine.settle()
        assert (await left("smooth"))[:3] == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/api/streams", 422, "name"),
        ("/api/streams?name=climat", 404, "there is no stream climat"),
        ("/api/streams?name=climate%5Brom=kitchen%5D", 422, "did you mean room"),
        ("/api/streams?name=climate%5Broom=kitchen%5D&room=attic", 422, "a plate is named twice"),
        ("/api/streams?name=climate%5Broom=attic%5D", 404, "there is climate[house=1,room=kitchen]"),
        ("/api/streams?name=climate&confirm=0", 422, "confirm"),
        ("/api/streams?name=raw%5Broom=kitchen%5D", 422, "it is on none"),
        ("/api/streams?name=climate&rom=kitchen", 422, "did you mean room"),
        ("/api/streams?name=climate&start=now&end=-1h", 422, "not before"),
        ("/api/streams/nothing/instances", 404, "there is no stream nothing"),
        ("/api/streams/climat/instances", 404, "did you mean climate[house=1,room=kitchen]?"),
        ("/api/streams/climate[rom=attic]/instances", 404, "rom is no plate of climate; there is climate[house=1,"),
    ],
)
async def test_purges_that_cannot_be(path: str, status: int, words: str) -> None:
    async with make_api(token="s3cret") as api:
        await api.deliver("climate", {"house": "1", "room": "kitchen"}, [(NOW - 1000, {"t": 1.0})])
        await api.deliver("raw", {}, [(NOW - 1000, 1.0)])
        answer = await api.client.delete(path, headers={"Authorization": "Bearer s3cret"})
        assert answer.status_code == status
        assert words in str(answer.json())


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("?name=climate&start={start}&end={end}", 2),
        ("?name=climate%5Bhouse=1%5D&start={start}&end={end}", 2),
        ("?name=climate&room=kitchen", 1),
        ("?name=climate&room=kitchen&start={start}", 1),
        ("?name=climate&room=kitchen&end={end}", 1),
        ("?name=climate&room=kitchen&start=-inf&end={end}", 1),
        ("/climate%5Bhouse=1,room=kitchen%5D/instances", 1),
        ("/climate%5Bhouse=1,room=kitchen%5D/instances?start={start}", 1),
    ],
)
async def test_what_is_wide_is_purged_only_when_its_number_is_said(api: Api, query: str, count: int) -> None:
    path = "/api/streams" + query.format(start=NOW - 100_000, end=NOW - 90_000)
    also = "&" if "?" in path else "?"
    for wrong in ("", f"{also}confirm={count + 1}", f"{also}confirm={3 - count}"):
        answer = await api.client.delete(path + wrong)
        assert (answer.status_code, answer.json()["extent"]["count"]) == (409, count)
        assert answer.json()["hint"] == f"add confirm={count} to this very request if that is meant"
    assert await api.store.count(1, 0, NOW) == 10
    answer = await api.client.delete(f"{path}{also}confirm={count}")
    assert len(answer.json()["purged"]) == count


async def test_one_stream_in_an_interval_is_purged_as_it_is_asked_for(api: Api) -> None:
    window = f"start={NOW - 100_000}&end={NOW - 90_000}"
    answer = await api.client.delete(f"/api/streams?name=climate&room=kitchen&{window}")
    assert [row["instances"] for row in answer.json()["purged"]] == [1]
    assert (await api.client.delete(f"/api/streams?name=climate&room=kitchen&{window}&confirm=2")).status_code == 409


def given(stream: str, *items: tuple[Any, Any]) -> dict[str, Any]:
    return {"stream": stream, "instances": [{"time": time, "value": value} for time, value in items]}


async def test_readings_are_taken_in_and_what_is_computed_follows(api: Api) -> None:
    kitchen, attic = "climate[house=1,room=kitchen]", "climate[room=new,house=2]"
    streams = [
        given(kitchen, (NOW - 500, {"t": 1.5}), ("-1s", {"t": 2.5}), (NOW - 500, {"t": 3.5})),
        given(attic, ("2027-01-15T07:59:59+00:00", {"t": [None, 1, "x"]}), (NOW + 60_000, {"t": 9}), (-(1 << 62), 1)),
    ]
    for _ in range(2):
        answer = await api.client.post("/api/readings", json={"streams": streams})
        assert answer.status_code == 200, answer.text
        assert answer.json()["taken"] == 4
        assert [row["reason"] for row in answer.json()["refused"]] == ["future", "time_invalid"]
        await api.get("/api/settled?seconds=0")
        await api.engine.settle()
        assert await api.get("/api/settled") == {"settled": True}
    rows = (await api.get(f"/api/streams/temperature%5Bhouse=1,room=kitchen%5D/instances?start={NOW - 2000}"))[
        "instances"
    ]
    assert [row["value"] for row in rows] == [2.5, 3.5]
    assert len((await api.get("/api/streams/climate%5Bhouse=2,room=new%5D/instances"))["instances"]) == 1
    assert len((await api.get("/api/deadletters"))["dead_letters"]) == 4
    answer = await api.client.post("/api/readings", json={"streams": [given("notes", (1, "x"))], "new": True})
    assert answer.json() == {"taken": 1, "refused": []}
    body = b'{"streams": [{"stream": "notes", "instances": [{"time": 2, "value": NaN}]}], "new": true}'
    await api.client.post("/api/readings", content=body, headers={"Content-Type": "application/json"})
    rows = (await api.get("/api/streams/notes/instances"))["instances"]
    assert [row["value"] for row in rows] == ["x", {"$number": "NaN"}]


@pytest.mark.parametrize(
    ("streams", "words"),
    [
        ([], "streams"),
        ([given("notes", (1, 1))], "no workflow has a source notes"),
        ([given("smooth[house=1,room=kitchen]", (1, 1))], "computed by the workflow comfort"),
        ([given("climate[house=1]", (1, 1))], "write climate[house=...,room=...]"),
        ([given("climate[", (1, 1))], "is not a stream"),
        ([given("climate[house=1,room=a]", ("soon", 1))], "'soon' is not a time"),
        ([given("climate[house=1,room=a]", (1.5, 1))], "time"),
        ([given("climate[house=1,room=a]", (1, {"a": [1 << 64]}))], "does not fit into 64 bits"),
        ([given("climate[house=1,room=a]", (1, {"a\0": 1}))], "NUL"),
        ([given("climate[house=1,room=a]", *[(index, 1) for index in range(10_001)])], "instances"),
        ([given(f"climate[house=1,room={n}]", *[(i, 1) for i in range(5_001)]) for n in "ab"], "10003 instances are"),
        ([{"stream": "climate[house=1,room=a]", "instances": [], "more": 1}], "more"),
    ],
)
async def test_readings_that_cannot_be(api: Api, streams: list[Any], words: str) -> None:
    before = await api.get("/api/streams")
    # Nothing of a request is taken in where a part of it is wrong.
    answer = await api.client.post(
        "/api/readings", json={"streams": [*streams, given("climate[house=1,room=z]", (1, 1))] if streams else []}
    )
    assert (answer.status_code, words in str(answer.json())) == (422, True), answer.text
    assert await api.get("/api/streams") == before


async def test_what_is_not_possible_says_what_is(api: Api) -> None:
    answer = await api.client.post("/api/streams")
    assert answer.status_code == 405
    assert answer.json()["hint"] == "use DELETE, GET"
    assert answer.headers["allow"] == "DELETE, GET"


async def test_a_store_that_is_away_is_503_and_a_bug_is_500(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(error: Exception) -> Callable[..., Any]:
        async def documents(*_: object) -> None:
            raise error

        return documents

    monkeypatch.setattr(api.store, "documents", failing(StoreUnavailable("gone", hint="start it")))
    assert await api.get("/api/sessions", 503) == {"error": "gone", "hint": "start it"}
    monkeypatch.setattr(api.store, "documents", failing(RuntimeError("secret inside")))
    body = await api.get("/api/sessions", 500)
    assert set(body) == {"error", "hint"}
    assert "secret" not in body["error"]


async def test_a_token_is_asked_for_everywhere_but_health() -> None:
    async with make_api(token="s3cret") as api:
        for header in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "s3cret"},
            {"Authorization": "Bearer é"},
        ):
            answer = await api.client.get("/", headers=[(k.encode(), v.encode()) for k, v in header.items()])
            assert answer.status_code == 401
            assert answer.headers.get_list("www-authenticate")[0] == "Bearer"
            assert set(answer.json()) == {"error", "hint"}
        assert (await api.client.get("/healthz")).status_code == 200
        good = await api.client.get("/api/streams", headers={"Authorization": "bearer s3cret"})
        assert good.status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_pages_load_nothing_from_elsewhere(api: Api, path: str) -> None:
    answer = await api.client.get(path)
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "<script" not in answer.text
    assert "://" not in answer.text
    assert "comfort" in answer.text if path == "/" else "/api/streams" in answer.text


async def test_descriptions_are_markdown_and_the_page_shows_them(api: Api) -> None:
    described = (await api.client.get("/openapi.json")).text
    assert "``" not in described
    assert "parameter too: `?room=kitchen`. `next` is" in described
    page = (await api.client.get("/docs")).text
    assert "`" not in page
    assert "parameter too: <code>?room=kitchen</code>. <code>next</code> is" in page


async def test_every_request_is_answered_on_the_loop(api: Api) -> None:
    """The engine changes there alone. In a thread, a scrape failed with 500 while a room joined."""
    app = create_api(api.context)
    endpoints = [route.endpoint for route in app.routes if isinstance(route, APIRoute)]
    assert len(endpoints) > 20
    assert [one.__qualname__ for one in endpoints if not inspect.iscoroutinefunction(one)] == []


async def test_metrics_and_the_description(api: Api) -> None:
    answer = await api.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'hs_readings_total{source="climate"} 20.0' in answer.text
    paths = (await api.get("/openapi.json"))["paths"]
    assert {"/healthz", "/readyz", "/metrics", "/api/streams", "/api/tools", "/api/plates"} <= set(paths)
