"""Workflows change while readings come: over HTTP, by file and by command. All parts are real."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

FILE = """\
workflow: comfort
plates: {room: {}}
sources:
  climate: {mqtt: "home/{room}/climate", time: {field: ts, unit: ms}}
nodes:
  temperature: {tool: component@^1, from: climate, with: {key: temperature}}
  smooth: {tool: sliding_mean@^1, from: temperature, with: {width: 5s}}
publish: {smooth: {}}
"""
MORE = """\
workflow: more
plates: {room: {}}
sources:
  climate: {mqtt: "home/{room}/climate", time: {field: ts, unit: ms}}
nodes:
  temperature: {tool: component@^1, from: climate, with: {key: temperature}}
  highest: {tool: sliding_max@^1, from: temperature, with: {width: 3s}}
publish: {highest: {}}
"""
BACKLOG = """\
workflow: backlog
online: false
requested_intervals: [[FROM, TO]]
plates: {room: {}}
sources:
  climate: {mqtt: "home/{room}/climate", time: {field: ts, unit: ms}}
nodes:
  humidity: {tool: component@^1, from: climate, with: {key: humidity}}
"""
ROOMS = ("kitchen", "bath")


class Readings:
    """A thread that publishes readings of two rooms, 500 ms of event time apart, some late, until it is stopped."""

    def __init__(self, broker: Any) -> None:
        self.sent: dict[str, dict[int, float]] = {room: {} for room in ROOMS}
        self.first = (time.time_ns() // 1_000_000 - 7_200_000) // 1000 * 1000
        self._broker = broker
        self._index = itertools.count()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @property
    def count(self) -> int:
        return sum(map(len, self.sent.values()))

    def some(self, count: int) -> None:
        """Publish so many, half of them in each room. Every seventh comes five seconds too late."""
        messages = []
        for index in itertools.islice(self._index, count):
            room = ROOMS[index % 2]
            at = self.first + index * 500 - (5_250 if index % 7 == 3 else 0)
            value = float(index * 37 % 101)
            self.sent[room][at] = value
            payload = json.dumps({"ts": at, "temperature": value, "humidity": value / 2})
            messages.append((f"home/{room}/climate", payload.encode()))
        self._broker.publish(*messages)

    def _run(self) -> None:
        while not self._stop.wait(0.03):
            self.some(10)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def goes_on(readings: Readings, waiting: Callable[..., Any]) -> None:
    """Return when a hundred more are published, so that what follows meets traffic."""
    wanted = readings.count + 100
    waiting(lambda: readings.count >= wanted, "readings are published")


def windows(values: dict[int, float], width: int, of: Callable[[list[float]], float]) -> dict[int, float]:
    """At each time the function of what lies in ``(t - width, t]``, the plain way."""
    times = sorted(values)
    return {at: of([values[other] for other in times if at - width < other <= at]) for at in times}


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def stored(service: Any, node: str, room: str) -> dict[int, float]:
    found: dict[int, float] = {}
    cursor = ""
    while True:
        answer = json.loads(service.ask(f"/api/streams/{node}%5Broom={room}%5D/instances?limit=10000{cursor}"))
        for row in answer["instances"]:
            found[round(datetime.fromisoformat(row["time"]).timestamp() * 1000)] = row["value"]
        if answer["next"] is None:
            return found
        cursor = f"&cursor={answer['next']}"


def told(messages: list[tuple[str, int, bool, str]], topic: str) -> dict[int, float]:
    """What a subscriber holds that applies what it was told."""
    contents: dict[int, float] = {}
    revisions: dict[int, int] = {}
    for where, _, _, payload in messages:
        if where == topic:
            change = json.loads(payload)
            if change["revision"] > revisions.get(change["time"], -1):
                revisions[change["time"]] = change["revision"]
                contents[change["time"]] = change["value"]
    return contents


@pytest.fixture(params=["sqlite", "mongodb"])
def store(request: pytest.FixtureRequest) -> str:
    return "sqlite:///store.db" if request.param == "sqlite" else str(request.getfixturevalue("mongo_url"))


@pytest.fixture
def comfort(parts: Any, store: str) -> tuple[Any, Any]:
    """A broker, and a service with one workflow file."""
    broker, service = parts.mosquitto(), parts.service()
    path = service.directory / "flows" / "comfort.yaml"
    path.parent.mkdir()
    path.write_text(FILE, encoding="utf-8")
    service.configure(workflows=["flows/*.yaml"], broker=broker.url, store=store)
    service.start()
    return broker, service


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_changes_over_http_while_readings_come(comfort: tuple[Any, Any], waiting: Callable[..., Any]) -> None:
    broker, service = comfort
    readings = Readings(broker)
    subscriber = broker.listen("hs/#")
    readings.some(200)
    service.settle(200)

    def is_so(node: str, width: int, of: Callable[[list[float]], float]) -> bool:
        return all(stored(service, node, room) == windows(readings.sent[room], width, of) for room in ROOMS)

    waiting(lambda: is_so("smooth", 5000, mean), "the workflow of the file runs")
    with readings:
        status, body = service.send("PUT", "/api/workflows/more", MORE)
        assert (status, json.loads(body)["action"]) == (202, "add"), body
        goes_on(readings, waiting)
        wrong = MORE.replace("sliding_max", "sliding_maks")
        status, body = service.send("PUT", "/api/workflows/more", wrong)
        assert status == 422
        assert "workflow more:7: node highest: there is no tool 'sliding_maks'" in body
        status, body = service.send("PUT", "/api/workflows/more", MORE.replace("width: 3s", "width: 20s"))
        assert (status, json.loads(body)["nodes"]["changed"]) == (202, ["highest"]), body
        goes_on(readings, waiting)
    waiting(lambda: is_so("highest", 20_000, max), "the new node is computed, for old and new readings", 60)
    waiting(lambda: is_so("smooth", 5000, mean), "and the old one goes on", 60)
    assert json.loads(service.ask("/api/workflows/more"))["nodes"]["highest"]["with"]["width"] == "20s"
    code, out, errors = service.run("verify", "more")
    assert code == 0, (out, errors)
    before = {room: stored(service, "highest", room) for room in ROOMS}
    with readings_again(readings):
        status, body = service.send("DELETE", "/api/workflows/more")
        assert (status, json.loads(body)["action"]) == (202, "remove"), body
        goes_on(readings, waiting)
    waiting(lambda: is_so("smooth", 5000, mean), "the other workflow has lost nothing", 60)
    assert '"hs_dead_letters' not in service.ask("/metrics")
    heard = subscriber.finish()
    for room in ROOMS:
        assert told(heard, f"hs/comfort/smooth/{room}") == windows(readings.sent[room], 5000, mean)
        assert told(heard, f"hs/more/highest/{room}").items() >= before[room].items()
        assert len(stored(service, "temperature", room)) == len(readings.sent[room]), "no reading is lost"
    service.stop()
    assert "error" not in service.errors().lower()
    code, out, errors = service.run("verify", "comfort")
    assert code == 0, (out, errors)
    code, out, _ = service.run("query", "highest[room=bath]", "--format", "json")
    assert len(json.loads(out)) >= len(before["bath"]), "results of a removed workflow stay"


def readings_again(readings: Readings) -> Readings:
    """The same readings, going on in another thread."""
    again = Readings(readings._broker)
    again.sent, again.first, again._index = readings.sent, readings.first, readings._index
    return again


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_files_and_commands(comfort: tuple[Any, Any], waiting: Callable[..., Any]) -> None:
    broker, service = comfort
    readings = Readings(broker)
    readings.some(200)
    service.settle(200)
    first, last = sorted(readings.sent["bath"])[20], sorted(readings.sent["bath"])[40]
    iso = [datetime.fromtimestamp(at / 1000).astimezone().isoformat() for at in (first, last)]
    file = service.directory / "backlog.yaml"
    file.write_text(BACKLOG.replace("FROM", iso[0]).replace("TO", iso[1]), encoding="utf-8")

    def humidity() -> dict[int, float]:
        return stored(service, "humidity", "bath")

    code, out, errors = service.run("workflow", "save", "backlog.yaml")
    assert code == 0, (out, errors)
    assert "backlog is added (new: humidity). The service runs it" in out
    wanted = {at: value / 2 for at, value in readings.sent["bath"].items() if first < at <= last}
    waiting(lambda: humidity() == wanted, "exactly the requested interval is computed")
    readings.some(20)
    late = first + 777
    payload = {"ts": late, "temperature": 1.0, "humidity": 99.0}
    broker.publish(("home/bath/climate", json.dumps(payload).encode()))
    waiting(lambda: humidity() == wanted | {late: 99.0}, "and again when a late reading touches it")
    code, out, errors = service.run("workflow", "list")
    assert code == 0, errors
    rows = [line.split() for line in out.splitlines() if "comfort" in line or "backlog" in line]
    assert ["backlog", "store", "yes", "in", "requested", "intervals", "1", "1", "0"] in rows
    assert any(row[:3] == ["comfort", "flows/comfort.yaml", "yes"] for row in rows), rows
    code, shown, errors = service.run("workflow", "show", "backlog")
    assert code == 0, errors
    (service.directory / "shown.yaml").write_text(shown, encoding="utf-8")
    code, out, errors = service.run("workflow", "save", "shown.yaml")
    assert (code, out) == (0, "backlog stays as it is. The service runs it\n"), errors
    code, out, errors = service.run("workflow", "save", "flows/comfort.yaml")
    assert code == 2
    assert "flows/comfort.yaml, which wins" in errors
    # A file that is added, then one with a mistake.
    (service.directory / "flows" / "more.yaml").write_text(MORE, encoding="utf-8")
    service.hang_up()
    expected = windows(readings.sent["kitchen"], 3000, max)
    waiting(lambda: stored_if_there(service, "highest") == expected, "SIGHUP reads the files again")
    (service.directory / "flows" / "more.yaml").write_text(MORE.replace("sliding_max", "no"), encoding="utf-8")
    service.hang_up()
    waiting(lambda: "the workflows stay as they are" in service.errors(), "a mistake is in the log, with its place")
    assert "more.yaml:7: node highest: there is no tool 'no'" in service.errors()
    assert len(json.loads(service.ask("/api/workflows"))["workflows"]) == 3
    (service.directory / "flows" / "more.yaml").write_text(MORE, encoding="utf-8")
    for name in ("comfort", "backlog", "more"):
        code, out, errors = service.run("verify", name)
        assert code == 0, (name, out, errors)
    service.stop()
    # Without a service: straight to the store, for its next start.
    code, out, errors = service.run("workflow", "remove", "backlog")
    assert (code, out) == (0, "backlog is removed; its results stay\n"), errors
    assert service.run("workflow", "remove", "backlog")[0] == 2
    code, out, errors = service.run("workflow", "save", "backlog.yaml")
    assert (code, out) == (0, "backlog is added (new: humidity). It runs when the service starts\n"), errors
    service.start()
    assert "backlog" in service.ask("/api/workflows")
    service.stop()


def stored_if_there(service: Any, node: str) -> dict[int, float]:
    try:
        return stored(service, node, "kitchen")
    except KeyError:
        return {}
