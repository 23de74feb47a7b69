"""What a person is told at the moment when it helps: at the start, when a file changes, by doctor."""

from __future__ import annotations

import asyncio
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from hs_stream.cli import app
from hs_stream.core.time import to_ms
from hs_stream.engine.engine import Engine
from hs_stream.engine.ports import Delivery, Reading
from hs_stream.plugins import default_registry
from hs_stream.service.doctor_store import look_at_store
from hs_stream.service.settings import Settings, StoreSettings
from hs_stream.service.workflows.file import parse_workflow
from hs_stream.store.sqlite import SqliteStore
from tests.service.conftest import WORKFLOW

TICKS = "workflow: ticks\nnodes:\n  tick: {tool: clock@^1, with: {every: 20s}}\n"
DISCOVER = "hs-stream discover --for 30 -o config/workflows/home.yaml"


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
    return result


def settle(site: Any, patterns: str, store: str = "sqlite:///data/x.db") -> None:
    """Settings with these patterns, without a broker."""
    (site.directory / "hs-stream.toml").write_text(
        f'workflows = {patterns}\n[store]\nurl = "{store}"\n[mqtt]\nurl = "mqtt://127.0.0.1:1"\n'
        f"[http]\nport = {site.port}\n",
        encoding="utf-8",
    )


def put(name: str, text: str | None) -> None:
    """Write the file, or with ``None`` remove it."""
    if text is None:
        Path(name).unlink()
    else:
        Path(name).write_text(text, encoding="utf-8")


def up(answer: Any) -> bool:
    return isinstance(answer, dict) and "parts" in answer


async def ended(service: Any) -> str:
    service.process.send_signal(signal.SIGTERM)
    code, errors = await service.end()
    assert code == 0, errors
    return str(errors)


# --- nothing to run ---


def test_serve_refuses_where_there_is_nothing_to_run_and_makes_nothing(
    in_site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(in_site, '["config/workflows/*.yaml"]')
    Path("hs-stream.toml").unlink()
    monkeypatch.setenv("HS_STREAM__STORE__URL", "sqlite:///data/x.db")
    [line] = run("serve", code=2).stderr.splitlines()
    assert "there is no workflow to run: no file matches config/workflows/*.yaml" in line
    for part in (str(in_site.directory), "sqlite:///data/x.db", "settings: no file here", DISCOVER, "--empty"):
        assert part in line
    assert not Path("data").exists()
    [line] = run("serve", "--config", "hs-stream.toml", code=2).stderr.splitlines()
    assert "names hs-stream.toml, which is no file" in line


async def test_serve_begins_empty_with_settings_and_says_so_unless_no_file_is_wanted(site: Any) -> None:
    settle(site, '["config/workflows/*.yaml"]')
    service = await site.start("serve")
    await service.until("/readyz", up, 60)
    log = await ended(service)
    assert "there is no workflow to run: no file matches config/workflows/*.yaml" in log
    assert "settings: hs-stream.toml" in log
    assert "the store is new and empty" in log
    assert f"directory={site.directory}" in log
    assert "workflows='config/workflows/*.yaml: 0 files'" in log
    settle(site, "[]")
    service = await site.start("serve")
    await service.until("/readyz", up, 60)
    log = await ended(service)
    assert "the store is new and empty" not in log
    assert "there is no workflow to run" not in log


async def test_a_saved_workflow_is_enough_to_begin(in_site: Any) -> None:
    settle(in_site, '["config/workflows/*.yaml"]')
    assert (
        "It runs when the service starts" in (await asyncio.to_thread(run, "workflow", "save", "comfort.yaml")).stdout
    )
    service = await in_site.start("serve")
    answer = await service.until("/api/workflows", lambda answer: answer["workflows"], 60)
    assert [one["name"] for one in answer["workflows"]] == ["comfort"]
    await ended(service)


# --- files that are not loaded ---


async def test_a_file_that_changed_is_said_once_and_not_loaded(in_site: Any) -> None:
    settle(in_site, '["*.yaml"]')
    service = await in_site.start("serve")
    answer = await service.until("/api/workflows", lambda answer: answer["workflows"], 60)
    assert answer["unread"] is None
    changed = WORKFLOW.replace("width: 1m", "width: 2m")
    put("comfort.yaml", changed)
    put("ticks.yaml", TICKS)
    unread = (await service.until("/api/workflows", lambda answer: answer["unread"]))["unread"]
    assert unread["files"] == [{"file": "comfort.yaml", "is": "changed"}, {"file": "ticks.yaml", "is": "new"}]
    assert "comfort is changed (changed: smooth); ticks is added (new: tick)" in unread["text"]
    assert unread["hint"] == f"send the service SIGHUP to load it: kill -HUP {service.process.pid}"
    said = await asyncio.to_thread(CliRunner().invoke, app, ["doctor"])
    assert "FAIL workflow files: comfort.yaml is changed, ticks.yaml is new, and is not loaded" in said.stdout
    assert [one["name"] for one in service.ask("/api/workflows")["workflows"]] == ["comfort"]
    service.process.send_signal(signal.SIGHUP)
    answer = await service.until("/api/workflows", lambda answer: len(answer.get("workflows", ())) == 2)
    assert answer["unread"] is None
    put("ticks.yaml", None)
    put("comfort.yaml", changed.replace("sliding_mean", "sliding_maen"))
    unread = (await service.until("/api/workflows", lambda answer: answer["unread"]))["unread"]
    assert "comfort.yaml is changed, ticks.yaml is gone, and does not load: comfort.yaml:7: " in unread["text"]
    assert unread["hint"].startswith("did you mean sliding_mean")
    assert unread["hint"].endswith("; what runs stays as it is")
    put("ticks.yaml", TICKS)
    put("comfort.yaml", "# a comment changes nothing\n" + changed)
    await service.until("/api/workflows", lambda answer: answer["unread"] is None)
    log = await ended(service)
    assert log.count("and is not loaded") == 1
    assert log.count("and does not load") == 1


# --- a store that is away, nothing read yet ---

AWAY = "mongodb://127.0.0.1:1/x?serverSelectionTimeoutMS=300"
SQLITE = "or set HS_STREAM__STORE__URL=sqlite:///var/hs_stream.db: a file, which needs no server"


async def test_a_start_without_a_store_says_that_it_ends_and_what_to_do(site: Any) -> None:
    settle(site, "[]", AWAY)
    code, errors = await (await site.start("serve")).end(30)
    [line] = [line for line in errors.splitlines() if line.startswith("hs-stream: ")]
    assert code == 3
    assert SQLITE in line
    assert "the service ends here" in line
    assert "by itself" not in line


async def test_doctor_offers_a_file_where_no_server_answers() -> None:
    [store] = await look_at_store(Settings(store=StoreSettings(url=AWAY)))
    assert store.hint.endswith(SQLITE)
    assert store.unreachable


def test_doctor_offers_discover_where_there_is_no_workflow_or_reading(in_site: Any) -> None:
    said = run("doctor", code=3).stdout
    assert "readings: 0 of 1 connected sources have some, not climate" in said
    assert "no reading on home/{house}/{room}/climate yet; hs-stream discover --for 30 -o" in said
    settle(in_site, '["config/workflows/*.yaml"]')
    said = run("doctor", code=3).stdout
    assert f"FAIL workflows: no file matches config/workflows/*.yaml in {in_site.directory}" in said
    assert f"-> {DISCOVER} writes one" in said
    settle(in_site, '["*.yaml"]')
    run("workflow", "save", "comfort.yaml", code=2)
    Path("saved.yaml").write_text("workflow: saved\nnodes:\n  tock: {tool: clock@^1, with: {every: 20s}}\n")
    settle(in_site, '["none/*.yaml"]')
    run("workflow", "save", "saved.yaml")
    assert "ok   workflows: no file matches none/*.yaml; saved in the store: saved" in run("doctor", code=3).stdout


async def test_doctor_says_which_readings_are_too_old_for_a_clock(in_site: Any) -> None:
    """`WF-14`."""
    settle(in_site, '["*.yaml"]')
    text = f"{TICKS}sources: {{power: {{}}}}\n"
    put("ticks.yaml", text)
    data = in_site.directory / "data"
    data.mkdir(exist_ok=True)
    engine = Engine(SqliteStore(data / "x.db"))
    await engine.open([parse_workflow(text, default_registry())])
    old = Reading("power", (), to_ms(datetime(2011, 1, 1, tzinfo=UTC)), 1.0)
    await engine.deliver(Delivery([old], [], engine.clock.now(), lambda: None))
    await engine.settle()
    await engine.close()
    said = (await asyncio.to_thread(CliRunner().invoke, app, ["doctor"])).stdout
    assert (
        "clocks: tick of workflow ticks begins later than power, whose first reading, of 2011-01-01T00:00:00Z" in said
    )
    assert "write start: 2011-01-01T00:00:00Z into the workflow" in said
    put("ticks.yaml", f"{TICKS}start: 2011-01-01T00:00:00Z\nsources: {{power: {{}}}}\n")
    assert "clocks:" not in (await asyncio.to_thread(CliRunner().invoke, app, ["doctor"])).stdout


@pytest.mark.parametrize("store", ["sqlite:///data/x.db"])
def test_a_named_file_that_is_not_there_says_in_which_directory(in_site: Any, store: str) -> None:
    settle(in_site, '["nothere.yaml"]', store)
    assert f"there is no file nothere.yaml in {in_site.directory}" in run("serve", code=2).stderr
