"""Every command that changes a store, with and without a service that has it. All parts are real."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from typer.testing import CliRunner

from hs_stream.cli import app

HOME = """\
workflow: home
plates: {house: {}, room: {parent: house, max: 50}}
sources:
  climate: {mqtt: "home/{house}/{room}/climate", time: {field: ts, unit: ms}}
  devices: {plates: [house]}
nodes:
  temperature: {tool: component@^1, from: climate, with: {key: temperature}}
  known: {tool: as_of_join@^1, from: [temperature, devices], with: {names: [temperature, devices]}}
publish: {temperature: {}}
"""
LATER = """\
workflow: later
online: false
plates: {house: {}, room: {parent: house, max: 50}}
sources:
  climate: {mqtt: "home/{house}/{room}/climate", time: {field: ts, unit: ms}}
nodes:
  humidity: {tool: component@^1, from: climate, with: {key: humidity}}
"""
PLACES = [("1", "office"), ("1", "kitchen"), ("2", "office")]
ROWS = 30
SQLITE = "sqlite"


class Place:
    """A home, and the command line beside its service or alone."""

    def __init__(self, parts: Any, store: str, more: str = "") -> None:
        self.broker, self.service = parts.mosquitto(), parts.service()
        self.served = False
        self.directory: Path = self.service.directory
        store = f"sqlite:///{self.directory / 'store.db'}" if store == SQLITE else store
        (self.directory / "home.yaml").write_text(HOME, encoding="utf-8")
        (self.directory / "later.yaml").write_text(LATER, encoding="utf-8")
        files = [self.directory / "home.yaml"]
        self.service.configure(workflows=files, broker=self.broker.url, store=store, more=more)
        # Beyond what "now - 20 s" reaches, and a second apart.
        self.first = time.time_ns() // 1_000_000 // 1000 * 1000 - 100_000
        self.times = [self.first + 1000 * index for index in range(ROWS)]

    def run(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """What it says on stdout and stderr."""
        got, out, errors = self.service.run(*arguments)
        assert got == code, (arguments, out, errors)
        if code == 2:
            assert len(errors.splitlines()) == 1, errors
        return out, errors

    def stored(self, stream: str) -> list[Any]:
        return [row["value"] for row in json.loads(self.look("query", stream, "--format", "json"))]

    def look(self, *arguments: str, code: int = 0) -> str:
        """What a command says that changes nothing: in this process, which is quicker."""
        found = CliRunner().invoke(app, [*arguments, "--config", str(self.directory / "hs-stream.toml")])
        assert found.exit_code == code, (arguments, found.output)
        return found.stderr if code else found.stdout

    def fill(self) -> None:
        """`ROWS` readings in each of `PLACES`, by `import`."""
        for house, room in PLACES:
            rows = [f"{at},{index},{index + 40}" for index, at in enumerate(self.times)]
            path = self.directory / f"{house}-{room}.csv"
            path.write_text("\n".join(["ts,temperature,humidity", *rows]) + "\n", encoding="utf-8")
        stream = "climate[house={house},room={room}]"
        out, errors = self.run("import", "{house}-{room}.csv", "--stream", stream, "--time", "ts")
        assert (out, errors) == (f"{ROWS * 3} readings to {stream}\n", "")
        for house, room in PLACES:
            assert self.stored(f"temperature[house={house},room={room}]") == list(range(ROWS))


@pytest.fixture(params=["sqlite beside", "mongodb beside", "sqlite alone"])
def home(parts: Any, request: pytest.FixtureRequest) -> Place:
    kind, _, how = str(request.param).partition(" ")
    store = SQLITE if kind == "sqlite" else str(request.getfixturevalue("mongo_url"))
    made = Place(parts, store)
    made.served = how == "beside"
    if made.served:
        made.service.start()
    return made


def span(home: Place, first: int, last: int) -> list[str]:
    """``--from`` and ``--to`` of the readings ``first`` to ``last``."""
    ends = [home.times[first] - 1, home.times[last]]
    return [word for option, at in zip(("--from", "--to"), ends, strict=True) for word in (option, iso(at))]


def iso(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at // 1000)) + f".{at % 1000:03}Z"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_purges(home: Place) -> None:
    home.fill()
    office, kitchen, other = (f"[house={house},room={room}]" for house, room in PLACES)
    # One stream, in an interval: at once, and nothing else.
    out, errors = home.run("purge", f"climate{office}", *span(home, 0, 4))
    assert (out, errors) == (f"5 instances of climate{office} removed\n", "")
    assert home.stored(f"temperature{office}") == list(range(5, ROWS))
    # Part of a name: every stream that agrees with it, which has to be confirmed, with and without an interval.
    for stream, window in (("climate[room=office]", span(home, 5, 6)), ("climate", []), (f"climate{kitchen}", [])):
        _, errors = home.run("purge", stream, *window, code=2)
        assert "nothing is removed: this would remove " in errors
        assert errors.endswith("(run it in a terminal, or confirm it with --yes)\n")
        told = set(re.findall(r"climate\[[^\]]*\]", errors))
        meant = {"climate": {office, kitchen, other}, "climate[room=office]": {office, other}}
        assert told == {f"climate{text}" for text in meant.get(stream, {kitchen})}
        assert (f"({iso(home.times[5] - 1)}, " in errors) == bool(window)
    assert [len(home.stored(f"climate{text}")) for text in (office, kitchen, other)] == [ROWS - 5, ROWS, ROWS]
    out, errors = home.run("purge", "climate[room=office]", *span(home, 5, 6), "--yes")
    assert (out, errors) == ("4 instances of 2 streams of climate[room=office] removed\n", "")
    assert home.stored(f"temperature{other}") == [*range(5), *range(7, ROWS)]
    assert home.stored(f"temperature{kitchen}") == list(range(ROWS))
    # A purge of results computes them anew.
    out, _ = home.run("purge", "temperature", "--yes")
    assert out == f"{3 * ROWS - 9} instances of 3 streams of temperature removed\n"
    assert home.stored(f"temperature{kitchen}") == list(range(ROWS))
    for wrong, words in (
        ("climate[room=offic]", "there is climate[house=2,room=office], climate[house=1,room=office]"),
        ("climate[rom=office]", "did you mean room?"),
        ("climat", "did you mean climate[house="),
    ):
        assert words in home.look("purge", wrong, "--yes", code=2)
    home.look("verify", "home")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_readings_and_documents(home: Place) -> None:
    home.fill()
    # Many, some of which cannot be; and what is not declared.
    path, place = home.directory / "more.csv", "[house=1,room=attic]"
    rows = [f"{home.first + index},{index},1" for index in range(5000)]
    path.write_text("\n".join(["ts,temperature,humidity", *rows, "never,1,1", "7e12,1,1", ""]), encoding="utf-8")
    out, errors = home.run("import", "more.csv", "--stream", f"climate{place}", "--time", "ts", code=1)
    assert out == f"5000 readings to climate{place}, 2 rows not usable\n"
    assert "more.csv:5002: " in errors
    assert "hs-stream: future: event time " in errors
    assert len(home.stored(f"temperature{place}")) == 5000
    path.write_text("t,v\n1,true\n2,x\n3,\n4,NaN\n", encoding="utf-8")
    errors = home.look("import", str(path), "--stream", "notes", "--time", "t", code=2)
    assert "no workflow has a source notes, and --new is not given" in errors
    home.run("import", "more.csv", "--stream", "notes", "--time", "t", "--new")
    assert home.stored("notes") == [True, "x", None, {"$number": "NaN"}]
    for stream, words in (("temperature", "computed by the workflow home"), ("climate", "climate[house=...,room=...]")):
        assert words in home.look("import", str(path), "--stream", stream, "--time", "t", code=2)
    # A document, and what is computed of it.
    (home.directory / "devices.json").write_text('{"$date": "as it is", "lamp": 40}', encoding="utf-8")
    out, _ = home.run("assets", "put", "devices[house=1]", "devices.json", "--at", iso(home.times[3]))
    assert out == f"devices[house=1] has a version at {iso(home.times[3]).replace('.000Z', 'Z')}\n"
    assert json.loads(home.look("assets", "get", "devices[house=1]")) == {"$date": "as it is", "lamp": 40}
    assert "devices[house=1]" in home.look("assets", "list")
    late = [value["devices"]["lamp"] for value in home.stored("known[house=1,room=office]") if value.get("devices")]
    assert set(late) <= {40}
    home.look("verify", "home")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_workflows_and_requests(home: Place) -> None:
    home.fill()
    # A workflow that is computed on request only.
    out, _ = home.run("workflow", "save", "later.yaml")
    assert out.startswith("later is added (new: humidity). ")
    humidity = "humidity[house=1,room=office]"
    window = span(home, 0, 9)
    home.run("query", humidity, "--compute", *window)
    assert home.stored(humidity) == list(range(40, 50))
    out, _ = home.run("compute", "later.yaml", "--node", "humidity", *span(home, 0, ROWS - 1))
    assert out.startswith("later: 3 streams computed in (")
    assert home.stored(humidity) == list(range(40, 40 + ROWS))
    assert "did you mean humidity?" in home.look("compute", "later", "--node", "humidty", *window, code=2)
    for reading in (
        ("streams",),
        ("export", "climate", str(home.directory / "all.csv")),
        ("history",),
        ("dead-letters",),
        ("workflow", "list"),
        ("workflow", "show", "later"),
        ("failed",) if home.served else ("assets", "list"),
        ("doctor",) if home.served else ("streams", "climate"),
        ("verify", "home"),
        ("verify", "later"),
    ):
        home.look(*reading)
    out, _ = home.run("workflow", "remove", "later")
    assert out == "later is removed; its results stay\n"
    assert home.stored(humidity) == list(range(40, 40 + ROWS))


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["sqlite", "mongodb"])
def test_who_listens_to_the_service_is_told(parts: Any, request: pytest.FixtureRequest, kind: str) -> None:
    store = SQLITE if kind == "sqlite" else str(request.getfixturevalue("mongo_url"))
    home = Place(parts, store)
    subscriber = home.broker.listen("hs/#")
    home.service.start()
    home.fill()
    home.run("purge", "climate[house=1,room=office]", *span(home, 2, 3))
    home.service.settle(ROWS * 3)
    told = [(topic, json.loads(payload)) for topic, _, _, payload in subscriber.finish() if topic != "hs/status"]
    assert len([1 for _, change in told if change["kind"] == "insert"]) == ROWS * 3
    gone = [(topic, change["time"]) for topic, change in told if change["kind"] == "retract"]
    assert sorted(gone) == [("hs/home/temperature/1/office", at) for at in home.times[2:4]]
    found = json.loads(home.service.ask(f"/api/streams/{quote('climate[house=1,room=office]')}/instances"))
    assert len(found["instances"]) == ROWS - 2
    home.service.stop()
    assert "error" not in home.service.errors().lower()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_only_the_service_of_the_store_is_asked(parts: Any) -> None:
    home, other = Place(parts, SQLITE), Place(parts, SQLITE)
    home.service.start()
    home.fill()
    # Settings of another home, whose service does not run, with the address of one that does.
    toml = other.directory / "hs-stream.toml"
    toml.write_text(toml.read_text().replace(str(other.service.port), str(home.service.port)), encoding="utf-8")
    other.fill()
    other.run("purge", "climate", "--yes")
    assert "no" in other.look("workflow", "list").split()
    assert len(home.stored("climate[house=1,room=office]")) == ROWS
    # Settings of the home, with the address of nobody: the store says where its service listens.
    toml = home.directory / "hs-stream.toml"
    toml.write_text(toml.read_text().replace(f"port = {home.service.port}", "port = 0"), encoding="utf-8")
    home.run("purge", "climate[house=1,room=office]", *span(home, 0, 0))
    assert (
        len(
            json.loads(home.service.ask(f"/api/streams/{quote('climate[house=1,room=office]')}/instances"))["instances"]
        )
        == ROWS - 1
    )
    # One that is stopped for a while holds the store and does not answer.
    home.service._child.send_signal(signal.SIGSTOP)
    try:
        _, errors = home.run("purge", "climate[house=1,room=office]", *span(home, 1, 1), code=3)
    finally:
        home.service._child.send_signal(signal.SIGCONT)
    assert "a running service is using this store: " in errors
    assert f"and does not answer at http://127.0.0.1:{home.service.port} (say where it does with http.host" in errors
