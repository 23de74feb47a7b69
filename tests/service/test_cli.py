"""The command line over an SQLite store: import, compute, query, export, streams, verify, tools, workflow, doctor."""

from __future__ import annotations

import json
import socket
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from hs_stream.cli import app
from hs_stream.cli.common import reading_store
from hs_stream.core.errors import ConfigurationError
from hs_stream.service import doctor
from hs_stream.service.doctor_store import look_at_store
from hs_stream.service.embedded.broker import EmbeddedBroker
from hs_stream.service.host import Host
from hs_stream.service.settings import HttpSettings, LoggingSettings, Settings, StoreSettings

pytestmark = pytest.mark.usefixtures("in_site")

STREAM = "climate[house=1,room=kitchen]"
SMOOTH = "smooth[house=1,room=kitchen]"


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
    return result


def refused(*arguments: str, code: int = 2) -> str:
    """The one line on stderr."""
    lines = run(*arguments, code=code).stderr.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture
def imported(in_site: Any) -> None:
    Path("data.csv").write_text(
        "time,temperature,humidity\n"
        + "".join(f"2026-01-01T00:00:{second:02}Z,{second}.0,40\n" for second in range(0, 60, 10)),
        encoding="utf-8",
    )
    result = run("import", "data.csv", "--stream", STREAM, "--time", "time")
    assert "6 readings" in result.stdout


@pytest.mark.usefixtures("imported")
def test_import_computes_what_is_online_and_query_reads_it() -> None:
    rows = json.loads(run("query", SMOOTH, "--format", "json").stdout)
    assert [row["value"] for row in rows] == [0.0, 5.0, 10.0, 15.0, 20.0, 25.0]
    assert rows[0]["time"] == "2026-01-01T00:00:00Z"
    assert run("query", SMOOTH, "--last", "1", "--format", "csv").stdout == "time,value\n2026-01-01T00:00:50Z,25.0\n"
    window = ("--from", "2026-01-01T00:00:00Z", "--to", "2026-01-01T00:00:10Z")
    assert run("query", SMOOTH, *window, "--format", "csv").stdout == "time,value\n2026-01-01T00:00:10Z,5.0\n"
    table = run("query", STREAM).stdout
    assert STREAM in table
    assert '{"temperature":50.0,"humidity":40}' in table
    assert "6 instances, 0 to 25" in run("query", SMOOTH, "--plot").stdout
    assert json.loads(run("query", SMOOTH, "--from", "now", "--format", "json").stdout) == []


@pytest.mark.usefixtures("imported")
def test_a_value_is_explained() -> None:
    said = run("explain", SMOOTH, "--at", "2026-01-01T00:00:20Z", "--rows", "1").stdout
    lines = said.splitlines()
    assert lines[:2] == [
        f"{SMOOTH} at 2026-01-01T00:00:20Z is 10.0",
        "  by sliding_mean@1.0.0 of workflow comfort: width: 1m",
    ]
    assert f"{STREAM}: 3 readings in (2025-12-31T23:59:20Z, 2026-01-01T00:00:20Z]" in lines
    assert '  2026-01-01T00:00:20Z  {"temperature":20.0,"humidity":40}' in lines
    assert any(line.startswith("  raw, from mqtt home/1/kitchen/climate") for line in lines), lines
    document = json.loads(run("explain", SMOOTH, "--json").stdout)
    assert (document["time"], document["value"], document["levels"][2]["instances"]) == (
        "2026-01-01T00:00:50Z",
        25.0,
        6,
    )
    assert "the nearest ones are at 2026-01-01T00:00:10Z and 2026-01-01T00:00:20Z" in refused(
        "explain", SMOOTH, "--at", "2026-01-01T00:00:15Z"
    )
    assert f"did you mean {SMOOTH}?" in refused("explain", "smoth[house=1,room=kitchen]")
    assert "--at" in refused("explain", SMOOTH, "--at", "noon")


@pytest.mark.usefixtures("imported")
def test_verify_is_clean_and_finds_what_was_tampered_with(in_site: Any) -> None:
    assert "comfort: clean" in run("verify", "comfort").stdout
    assert "clean" in run("verify", "comfort.yaml", "--from", "2026-01-01T00:00:00Z", "--to", "now").stdout
    [row] = json.loads(run("streams", SMOOTH, "--format", "json").stdout)
    with sqlite3.connect(in_site.directory / "data" / "x.db") as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert "instances" in tables
        changed = db.execute("DELETE FROM instances WHERE s = ? AND t % 20000 = 0", (row["id"],)).rowcount
    db.close()
    assert changed == 3
    result = run("verify", "comfort", code=1)
    assert "3 differences" in result.stdout
    assert f"{SMOOTH} at 2026-01-01T00:00:00Z: stored nothing, from scratch 0.0" in result.stdout


@pytest.mark.usefixtures("imported")
def test_export_and_import_again_are_the_same() -> None:
    run("export", STREAM, "out.csv")
    assert Path("out.csv").read_text(encoding="utf-8").splitlines()[:2] == [
        "time,temperature,humidity",
        "2026-01-01T00:00:00Z,0.0,40",
    ]
    run("import", "out.csv", "--stream", "climate[house=2,room=kitchen]", "--time", "time")
    first, second = (run("query", f"climate[house={house},room=kitchen]", "--format", "csv").stdout for house in "12")
    assert first == second
    assert run("export", STREAM, "-").stdout == first


@pytest.mark.usefixtures("imported")
def test_streams_are_listed_by_pattern() -> None:
    rows = json.loads(run("streams", "--format", "json").stdout)
    assert {row["stream"]: row["instances"] for row in rows} == {
        STREAM: 6,
        "temperature[house=1,room=kitchen]": 6,
        SMOOTH: 6,
    }
    assert [row["stream"] for row in json.loads(run("streams", "smo*", "--format", "json").stdout)] == [SMOOTH]
    assert "sliding_mean@1.0.0" in run("streams", "*kitchen]").stdout
    assert run("streams", "none*", "--format", "csv").stdout.count("\n") == 1


@pytest.mark.usefixtures("imported")
def test_a_stream_that_is_not_there_suggests_others() -> None:
    assert f"did you mean {SMOOTH}?" in refused("query", "smoth[house=1,room=kitchen]")
    assert f"did you mean {SMOOTH}?" in refused("query", "smoth", "--plot")
    assert f"did you mean {STREAM}?" in refused("export", "climat", "-")
    assert f"there is {STREAM}" in refused("query", "climate[house=1,room=kitchn]")
    assert "see hs-stream streams" in refused("query", "wholly_else")
    assert "did you mean" in refused("query", "smoth", "--from", "-1h", "--compute")


def test_a_node_without_results_says_how_many_inputs_gave_none(in_site: Any) -> None:
    text = Path("comfort.yaml").read_text(encoding="utf-8")
    Path("comfort.yaml").write_text(text.replace("key: temperature", "key: temprature"), encoding="utf-8")
    Path("data.csv").write_text(
        "time,temperature,humidity\n2026-01-01T00:00:00Z,1,4\n2026-01-01T00:00:10Z,2,4\n", encoding="utf-8"
    )
    run("import", "data.csv", "--stream", STREAM, "--time", "time")
    result = run("query", "temperature[house=1,room=kitchen]", "--format", "csv")
    assert result.stdout == "time,value\n"
    assert result.stderr.startswith("no result: what there is of climate gave none in what is computed")
    assert "component@1" in result.stderr
    assert run("query", STREAM).stderr == ""


@pytest.mark.usefixtures("imported")
def test_a_declared_stream_without_readings_says_what_it_waits_for() -> None:
    Path("garage.yaml").write_text(
        "workflow: garage\nplates: {house: {}}\nsources:\n  door: {mqtt: 'home/{house}/door'}\n  bell: {mqtt: bell}\n"
        "  clap: {}\nnodes:\n  open: {tool: component@^1, from: door, with: {key: open}}\n"
        "  mean: {tool: sliding_mean@^1, from: bell, with: {width: 1m}}\n",
        encoding="utf-8",
    )
    settings = Path("hs-stream.toml").read_text(encoding="utf-8")
    Path("hs-stream.toml").write_text(settings.replace('"comfort.yaml"', '"*.yaml"'), encoding="utf-8")
    says = "workflow garage declares it; no reading on"
    assert f"there is no stream door ({says} home/{{house}}/door yet)" in refused("query", "door")
    assert f"{says} home/{{house}}/door (source door) yet" in refused("query", "open[house=1]")
    assert f"{says} bell (source bell) yet" in refused("query", "mean", "--from", "-1h", "--compute")
    assert f"{says} source clap yet" in refused("query", "clap")
    assert "declares it" not in refused("query", "climate[house=2,room=kitchen]")


def test_compute_without_any_reading() -> None:
    """No source is connected, so nothing is waited for: a clock ticks."""
    Path("ticks.yaml").write_text(
        "workflow: ticks\nonline: false\nstart: 2026-01-01T00:00:00Z\nplates: {}\nsources: {}\n"
        "nodes:\n  tick: {tool: clock@^1, with: {every: 20s}}\n",
        encoding="utf-8",
    )
    run("compute", "ticks.yaml", "--from", "2026-01-01T00:00:00Z", "--to", "2026-01-01T00:01:00Z")
    rows = json.loads(run("query", "tick", "--format", "json").stdout)
    assert [row["time"][-9:] for row in rows] == ["00:00:20Z", "00:00:40Z", "00:01:00Z"]


def test_compute_says_where_it_cannot_begin() -> None:
    Path("ticks.yaml").write_text(
        "workflow: ticks\nonline: false\nplates: {}\nsources: {}\n"
        "nodes:\n  tick: {tool: clock@^1, with: {every: 20s}}\n",
        encoding="utf-8",
    )
    result = run("compute", "ticks.yaml", "--from", "2026-01-01T00:00:00Z", "--to", "2026-01-01T00:01:00Z")
    assert "not all of it can be computed, of tick and 0 others" in result.stderr
    assert "give the workflow a start" in result.stderr


def test_compute_on_request() -> None:
    text = Path("comfort.yaml").read_text(encoding="utf-8")
    Path("comfort.yaml").write_text(
        text.replace("workflow: comfort", "workflow: comfort\nonline: false"), encoding="utf-8"
    )
    Path("data.csv").write_text("t,v\n1767225600,1\n1767225610,3\n1767225620,5\n", encoding="utf-8")
    lines = Path("data.csv").read_text(encoding="utf-8").replace("t,v", "t,temperature")
    Path("data.csv").write_text(
        lines.replace("\n", ",0\n").replace("temperature,0", "temperature,humidity"), encoding="utf-8"
    )
    run("import", "data.csv", "--stream", STREAM, "--time", "t")
    assert json.loads(run("query", SMOOTH, "--format", "json").stdout) == []
    window = ("--from", "2026-01-01T00:00:00Z", "--to", "2026-01-01T00:00:20Z")
    result = run("compute", "comfort", *window, "--node", "smooth")
    assert "comfort: 1 streams computed" in result.stdout
    assert "note" not in result.stderr
    rows = json.loads(run("query", SMOOTH, "--format", "json").stdout)
    assert [row["value"] for row in rows] == [2.0, 3.0]
    more = run(
        "query",
        SMOOTH,
        "--from",
        "2025-12-31T00:00:00Z",
        "--to",
        "2026-01-01T00:00:00Z",
        "--compute",
        "--format",
        "json",
    )
    assert [row["value"] for row in json.loads(more.stdout)] == [1.0]
    assert "clean" in run("verify", "comfort").stdout
    assert "did you mean smooth" in refused("compute", "comfort", *window, "--node", "smoth")


def test_rows_that_cannot_be_read_are_named_and_counted() -> None:
    Path("bad.csv").write_text(
        "time,value\n2026-01-01T00:00:00Z,1\nyesterday,2\n2026-01-01T00:00:10,3\n2026-01-01T00:00:20Z,4,5\n2199-01-01T00:00:00Z,6\n",
        encoding="utf-8",
    )
    result = run("import", "bad.csv", "--stream", "loose", "--time", "time", "--new", code=1)
    assert "1 readings to loose, 4 rows not usable" in result.stdout
    for words in ("bad.csv:3: 'yesterday'", "bad.csv:4: ", "--tz", "bad.csv:5: 3 cells", "future"):
        assert words in result.stderr
    assert run("query", "loose", "--format", "csv").stdout == "time,value\n2026-01-01T00:00:00Z,1\n"


def test_kinds_of_times_and_cells() -> None:
    Path("kinds.csv").write_text(
        '"date","a","b"\n"1","2015-02-04 17:51:00",1,x\n"2","1423072320",2.5,true\n"3","1423072380000",,\n',
        encoding="utf-8",
    )
    run("import", "kinds.csv", "--stream", "kinds[room=1]", "--time", "date", "--tz", "UTC", "--new")
    rows = json.loads(run("query", "kinds[room=1]", "--format", "json").stdout)
    assert rows == [
        {"time": "2015-02-04T17:51:00Z", "value": {"a": 1, "b": "x"}},
        {"time": "2015-02-04T17:52:00Z", "value": {"a": 2.5, "b": True}},
        {"time": "2015-02-04T17:53:00Z", "value": {}},
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("query", "nothing"), "there is no SQLite database"),
        (("query", "a[b"), "write name"),
        (("query", "a", "--from", "yesterday"), "--from: 'yesterday' is not a time"),
        (("query", "a", "--from", "now", "--to", "-1h"), "--from is not before --to"),
        (("query", "a", "--compute"), "--compute needs --from"),
        (("verify", "comfrt"), "did you mean comfort"),
        (("workflow", "check", "none.yaml"), "none.yaml: cannot read it"),
        (("tools", "show", "sliding_maen"), "did you mean sliding_mean"),
        (("import", "none.csv", "--stream", "x", "--time", "t", "--new"), "cannot read none.csv"),
        (
            ("import", "hs-stream.toml", "--stream", "climat", "--time", "t"),
            "no workflow has a source climat, and --new is not given (did",
        ),
        (("import", "hs-stream.toml", "--stream", "smooth", "--time", "t"), "computed by the workflow comfort"),
        (("import", "hs-stream.toml", "--stream", "climate", "--time", "t"), "climate[house=...,room=...]"),
        (("import", "x", "--stream", "x", "--time", "t", "--value", "a", "--values", "b"), "exclude each other"),
        (("streams", "--config", "none.toml"), "--config names none.toml"),
    ],
)
def test_errors_are_one_line_that_says_what_to_do(arguments: tuple[str, ...], words: str) -> None:
    line = refused(*arguments, code=3 if "SQLite" in words else 2)
    assert line.startswith("hs-stream: ")
    assert words in line


def test_workflow_commands() -> None:
    assert "fine. Workflow comfort: 1 sources, 2 nodes, 1 published" in run("workflow", "check", "comfort.yaml").stdout
    assert run("workflow", "graph", "comfort.yaml").stdout.startswith("flowchart LR")
    assert run("workflow", "graph", "comfort.yaml", "--format", "dot").stdout.startswith("digraph")
    assert json.loads(run("workflow", "graph", "comfort.yaml", "--format", "json").stdout)["workflow"] == "comfort"
    assert "comfort.yaml" in run("workflow", "list").stdout


def test_tool_commands() -> None:
    assert "sliding_mean" in run("tools", "list").stdout
    shown = run("tools", "show", "sliding_mean@^1").stdout
    assert "sliding_mean@1.0.0" in shown
    assert "Duration" in shown
    assert "ok   component@1.0.0" in run("tools", "check", "component", "--examples", "2").stdout


def test_doctor_says_what_to_do() -> None:
    result = run("doctor", code=3)
    assert "ok   workflows: 1 load" in result.stdout
    assert "ok   store: sqlite:///data/x.db can be read and written" in result.stdout
    assert "FAIL broker: no MQTT broker answers at 127.0.0.1:1" in result.stdout
    assert "-> start it, or correct mqtt.url" in result.stdout


async def test_doctor_knows_http_and_logs() -> None:
    async def said(**settings: Any) -> str:
        try:
            return await doctor._http(Settings(http=HttpSettings(port=0).model_copy(update=settings)))
        except ConfigurationError as error:
            return error.message

    assert "is free, asks for no token" in await said()
    assert "http.token_file: cannot read none" in await said(token_file="none")
    assert "cannot be used" in await said(cert_file="comfort.yaml", key_file="comfort.yaml")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "is in use" in await said(port=taken.getsockname()[1])
    with pytest.raises(ConfigurationError, match="no directory to write to"):
        doctor._logs(LoggingSettings(file="nowhere/hs.log"))
    assert "on the topic logs/hs from warning" in doctor._logs(LoggingSettings(mqtt_topic="logs/hs"))


@pytest.fixture(params=["sqlite", "mongodb"])
def store_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("mongo_url")) if request.param == "mongodb" else "sqlite:///data/x.db"


async def test_doctor_leaves_no_session_and_hinders_nobody(store_url: str) -> None:
    settings = Settings(store=StoreSettings(url=store_url))
    for _ in range(2):
        [store, *_] = await look_at_store(settings)
        assert "can be read and written, 0 streams" in store.text
    async with reading_store(settings) as reader:
        assert await reader.documents("sessions") == {}
    async with Host(settings) as host:
        [store, *_] = await look_at_store(settings)
        assert "and a service is writing to it" in store.text
        await host.lease.renew()
        assert await host.lease.holder() == host.lease.owner


async def test_doctor_is_content_with_a_broker(in_site: Any, broker: EmbeddedBroker) -> None:
    in_site.write(broker.url)
    process = await in_site.start("doctor")
    out, errors = await process.process.communicate()
    assert process.process.returncode == 0, (out, errors)
    assert b"takes us, with MQTT 5" in out


async def test_usage_errors_and_debug(in_site: Any) -> None:
    code, errors = await (await in_site.start("query")).end(30)
    assert code == 2
    assert errors.lower() == "hs-stream: missing argument 'stream'. (see hs-stream query --help)\n"
    code, errors = await (await in_site.start("verify", "nope", "--debug")).end(30)
    assert code != 0
    assert "Traceback" in errors


def test_an_import_of_several_rounds_stores_every_row() -> None:
    lines = [f"{1_767_225_600_000 + index * 1000},{index % 7}" for index in range(7_500)]
    Path("many.csv").write_text("\n".join(["t,v", *lines]) + "\n", encoding="utf-8")
    assert "7500 readings" in run("import", "many.csv", "--stream", "many", "--time", "t", "--new").stdout
    [row] = json.loads(run("streams", "many", "--format", "json").stdout)
    assert row["instances"] == 7_500
    rows = json.loads(run("query", "many", "--format", "json").stdout)
    assert [row["value"] for row in rows] == [index % 7 for index in range(7_500)]


@pytest.mark.usefixtures("imported")
def test_verify_shows_what_a_candidate_would_change(in_site: Any) -> None:
    [path] = Path().rglob("comfort.yaml")
    text = path.read_text(encoding="utf-8")
    same = Path("same.yaml")
    same.write_text(text, encoding="utf-8")
    assert "same.yaml: 0 of " in run("verify", "comfort", "--candidate", "same.yaml").stdout
    candidate = Path("candidate.yaml")
    changed = text.replace("key: temperature", "key: humidity").replace("smooth", "soft")
    candidate.write_text(changed, encoding="utf-8")
    lines = run("verify", "comfort", "--candidate", "candidate.yaml").stdout.splitlines()
    assert any(line.startswith("  temperature: changed, 1 streams, 6 -> 6 instances; 6 revised") for line in lines)
    assert any("at most 40 apart" in line for line in lines)
    assert "    temperature[house=1,room=kitchen] at 2026-01-01T00:00:00Z: 0.0 -> 40" in lines
    assert any(line.startswith("  soft: new") for line in lines)
    assert any(line.startswith("  smooth: removed") for line in lines)
    assert run("verify", "comfort").exit_code == 0, "nothing was written"


MORE = """\
workflow: more
plates: {house: {}, room: {parent: house, max: 20}}
sources:
  climate: {mqtt: "home/{house}/{room}/climate", time: {field: ts, unit: ms}}
nodes:
  humidity: {tool: component@^1, from: climate, with: {key: humidity}}
"""


@pytest.mark.usefixtures("imported")
def test_a_saved_workflow_is_one_like_those_of_files() -> None:
    Path("more.yaml").write_text(MORE, encoding="utf-8")
    saved = run("workflow", "save", "more.yaml").stdout
    assert saved == "more is added (new: humidity). It runs when the service starts\n"
    rows = [line.split() for line in run("workflow", "list").stdout.splitlines()]
    assert ["more", "store", "no", "online", "1", "1", "0"] in rows
    assert ["comfort", "comfort.yaml", "no", "online", "1", "2", "1"] in rows
    assert run("workflow", "show", "comfort").stdout.splitlines()[0] == "workflow: comfort"
    assert json.loads(run("workflow", "show", "more", "--format", "json").stdout)["nodes"]["humidity"] == {
        "tool": "component@^1",
        "from": "climate",
        "with": {"key": "humidity"},
    }
    # An import computes what is online of it too, and so does everything that takes a workflow by its name.
    run("import", "data.csv", "--stream", "climate[house=1,room=bath]", "--time", "time")
    rows = json.loads(run("query", "humidity[house=1,room=bath]", "--format", "json").stdout)
    assert [row["value"] for row in rows] == [40] * 6
    assert "more: clean" in run("verify", "more").stdout
    assert "more: 2 streams computed" in run("compute", "more", "--from", "2026-01-01T00:00:00Z", "--to", "now").stdout
    assert run("workflow", "save", "more.yaml").stdout.startswith("more stays as it is")
    changed = MORE.replace("key: humidity", "key: temperature")
    Path("more.yaml").write_text(changed, encoding="utf-8")
    assert "more is changed (changed: humidity)" in run("workflow", "save", "more.yaml").stdout
    assert run("workflow", "remove", "more").stdout == "more is removed; its results stay\n"
    assert "there is no workflow 'more'" in refused("verify", "more")
    rows = json.loads(run("query", "humidity[house=1,room=bath]", "--format", "json").stdout)
    assert len(rows) == 6


def test_what_cannot_be_saved_or_removed_says_why() -> None:
    Path("more.yaml").write_text(MORE.replace("component@^1", "compnent@^1"), encoding="utf-8")
    line = refused("workflow", "save", "more.yaml")
    assert line.startswith("hs-stream: more.yaml:6: node humidity: there is no tool")
    Path("more.yaml").write_text(MORE.replace("{house}/{room}/climate", "{house}/{room}/c"), encoding="utf-8")
    line = refused("workflow", "save", "more.yaml")
    words = "climate of workflow more is also defined by workflow comfort (comfort.yaml)"
    assert line.startswith(f"hs-stream: more.yaml:4: {words}")
    assert "the file comfort.yaml, which wins" in refused("workflow", "save", "comfort.yaml")
    assert "the file comfort.yaml" in refused("workflow", "remove", "comfort")
    assert "there is no saved workflow 'mor'" in refused("workflow", "remove", "mor")
    assert "did you mean comfort" in refused("workflow", "show", "comfrt")


def test_a_saved_workflow_that_does_not_load_any_more_can_be_removed(in_site: Any) -> None:
    folder = in_site.directory / "tools"
    folder.mkdir()
    plugin = folder / "halve.py"
    plugin.write_text(
        "from dataclasses import dataclass\nfrom hs_stream.core.tool import MapTool\n\n\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Halve(MapTool):\n"
        '    """Half."""\n\n    name = "halve"\n    version = "1.0.0"\n\n'
        "    def map(self, value):\n        return value / 2\n",
        encoding="utf-8",
    )
    in_site.write(more=f'[tools]\npaths = ["{folder}"]\n')
    text = MORE.replace("component@^1", "halve").replace(", with: {key: humidity}", "")
    Path("more.yaml").write_text(text, encoding="utf-8")
    run("workflow", "save", "more.yaml")
    plugin.unlink()
    line = refused("verify", "comfort")
    assert "saved workflow more: node humidity: there is no tool 'halve'" in line
    assert "hs-stream workflow remove more" in line
    assert "saved workflow more" in run("doctor", code=3).stdout
    assert "more is removed" in run("workflow", "remove", "more").stdout
    assert "no streams of comfort" in refused("verify", "comfort")
