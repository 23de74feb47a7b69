"""Assets: versions of JSON documents, and as-of joins that read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from hs_stream.cli import app

pytestmark = pytest.mark.usefixtures("in_site")

WORKFLOW = """\
workflow: lamps
plates: {house: {}, room: {parent: house}}
sources:
  power: {mqtt: "home/{house}/{room}/power", time: {field: ts, unit: ms}}
  devices: {plates: [house]}
nodes:
  known: {tool: as_of_join@^1, from: [power, devices], with: {names: [power, devices]}}
"""


def run(*arguments: str, code: int = 0, stdin: str | None = None) -> Result:
    result = CliRunner().invoke(app, list(arguments), input=stdin)
    assert result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
    return result


def refused(*arguments: str) -> str:
    lines = run(*arguments, code=2).stderr.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def put(document: Any, *arguments: str, name: str = "devices") -> str:
    Path("asset.json").write_text(json.dumps(document), encoding="utf-8")
    return run("assets", "put", name, "asset.json", "--new", *arguments).stdout


def get(*arguments: str) -> Any:
    return json.loads(run("assets", "get", *arguments).stdout)


def test_the_last_version_at_or_before_a_time_holds() -> None:
    assert put({"lamp": 40}, "--at", "2026-01-01T00:00:00Z", "--meta", "house=1") == (
        "devices[house=1] has a version at 2026-01-01T00:00:00Z\n"
    )
    put({"lamp": 9, "bulbs": [1, None, "é"]}, "--at", "2026-02-01T00:00:00Z", name="devices[house=1]")
    put({"lamp": 60}, "--at", "2026-01-01T00:00:00Z", "--meta", "house=2")
    assert get("devices[house=1]") == {"lamp": 9, "bulbs": [1, None, "é"]}
    assert get("devices", "--meta", "house=1", "--at", "2026-01-31T23:59:59.999Z") == {"lamp": 40}
    assert get("devices[house=1]", "--at", "2026-02-01T00:00:00Z")["lamp"] == 9
    put({"lamp": 41}, "--at", "2026-01-01T00:00:00Z", "--meta", "house=1")
    assert get("devices[house=1]", "--at", "2026-01-15T00:00:00Z") == {"lamp": 41}
    line = refused("assets", "get", "devices[house=1]", "--at", "2025-12-31T23:59:59.999Z")
    assert "its first version is of 2026-01-01T00:00:00Z" in line
    listed = run("assets", "list").stdout
    assert [row.split()[:2] for row in listed.splitlines() if "devices" in row] == [
        ["devices[house=1]", "2"],
        ["devices[house=2]", "1"],
    ]
    versions = run("assets", "list", "devices[house=1]").stdout
    assert versions.index('{"lamp":41}') < versions.index('{"lamp":9,')


def test_any_json_and_now() -> None:
    run("assets", "put", "notes", "-", "--new", stdin='["a", 1.5, true, null]')
    assert get("notes") == ["a", 1.5, True, None]
    Path("data.csv").write_text("t,v\n1,2\n", encoding="utf-8")
    run("import", "data.csv", "--stream", "numbers", "--time", "t", "--new")
    assert "numbers" not in run("assets", "list").stdout


def test_documents_as_of_each_reading() -> None:
    Path("comfort.yaml").write_text(WORKFLOW, encoding="utf-8")
    put({"lamp": 40}, "--at", "2026-01-01T00:00:00Z", "--meta", "house=1")
    Path("power.csv").write_text(
        "t,power\n2025-12-31T00:00:00Z,1\n2026-01-01T00:00:00Z,2\n2026-01-02T00:00:00Z,3\n2026-01-04T00:00:00Z,4\n",
        encoding="utf-8",
    )
    run("import", "power.csv", "--stream", "power[house=1,room=hall]", "--time", "t")
    # Version and reading at one time: it holds from then on. What is after the newest version is known once silence
    # shows that no newer one came, or a newer one did.
    put({"lamp": 9}, "--at", "2026-01-03T00:00:00Z", "--meta", "house=1")
    put({"lamp": 9}, "--at", "2026-02-01T00:00:00Z", "--meta", "house=1")
    rows = json.loads(run("query", "known[house=1,room=hall]", "--format", "json").stdout)
    assert [(row["value"]["power"], row["value"].get("devices")) for row in rows][-3:] == [
        (2, {"lamp": 40}),
        (3, {"lamp": 40}),
        (4, {"lamp": 9}),
    ]
    assert "clean" in run("verify", "lamps").stdout
    # A version that comes late repairs what was joined with another one.
    put({"lamp": 25}, "--at", "2026-01-01T12:00:00Z", "--meta", "house=1")
    rows = json.loads(run("query", "known[house=1,room=hall]", "--format", "json").stdout)
    assert [row["value"].get("devices") for row in rows][-3:] == [{"lamp": 40}, {"lamp": 25}, {"lamp": 9}]
    assert "devices[house=1]" in run("assets", "list").stdout
    assert "power" not in run("assets", "list").stdout


def test_mistakes() -> None:
    Path("bad.json").write_text('{"a": 1,\n "b": }', encoding="utf-8")
    assert "bad.json:2: this is not JSON" in refused("assets", "put", "x", "bad.json", "--new")
    Path("nan.json").write_text("NaN", encoding="utf-8")
    assert "nan.json:1: this is not JSON" in refused("assets", "put", "x", "nan.json", "--new")
    assert "cannot read none.json" in refused("assets", "put", "x", "none.json", "--new")
    Path("good.json").write_text("{}", encoding="utf-8")
    assert "--at: 'soon' is not a time" in refused("assets", "put", "x", "good.json", "--new", "--at", "soon")
    assert "--meta house has no value" in refused("assets", "put", "x", "good.json", "--new", "--meta", "house")
    assert "a plate is named twice" in refused("assets", "put", "x[a=1]", "good.json", "--new", "--meta", "a=2")
    assert "no workflow has a source smoth, and" in refused("assets", "put", "smoth", "good.json")
    assert "computed by the workflow" in refused("assets", "put", "smooth", "good.json")
    run("assets", "put", "x", "good.json", "--new")
    assert "there is x" in refused("assets", "get", "x[house=1]")
    future = run("assets", "put", "x", "good.json", "--new", "--at", "2199-01-01T00:00:00Z", code=1)
    assert "future: event time 2199-01-01T00:00:00Z" in future.stderr
