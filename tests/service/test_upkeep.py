"""Retention, purges, dead letters and what failed, as a user sees them: command line, service, files."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from hs_stream.cli import app

pytestmark = pytest.mark.usefixtures("in_site")

WORKFLOW = """\
workflow: power
plates: {room: {}}
sources:
  power: {csv: "data/{room}.csv", time: {field: t, zone: UTC}, value: v, every: 200ms}
nodes:
  smooth: {tool: sliding_mean@^1, from: power, with: {width: 30s}}
"""
KITCHEN, HALL = "power[room=kitchen]", "power[room=hall]"


def run(*arguments: str, code: int = 0, stdin: str | None = None) -> Result:
    result = CliRunner().invoke(app, list(arguments), input=stdin)
    assert result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
    return result


def refused(*arguments: str) -> str:
    lines = run(*arguments, code=2).stderr.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def instances(stream: str) -> list[tuple[str, Any]]:
    return [(row["time"][11:19], row["value"]) for row in json.loads(run("query", stream, "--format", "json").stdout)]


async def later(*arguments: str) -> Result:
    """`run` beside a loop that runs already."""
    return await asyncio.to_thread(run, *arguments)


def write_workflow(text: str) -> None:
    Path("comfort.yaml").write_text(text, encoding="utf-8")


def write_csv(room: str, minutes: int, odd: str = "") -> None:
    Path("data").mkdir(exist_ok=True)
    rows = [f"2026-01-01T00:{minute:02}:00Z,{minute}" for minute in range(minutes)]
    Path(f"data/{room}.csv").write_text("\n".join(["t,v", *rows, odd]), encoding="utf-8")


@pytest.fixture
def imported(in_site: Any) -> None:
    """Six readings, a minute apart, in each of two rooms."""
    write_workflow(WORKFLOW)
    for room in ("kitchen", "hall"):
        write_csv(room, 6)
    run("import", "data/{room}.csv", "--stream", "power[room={room}]", "--time", "t")


@pytest.mark.usefixtures("imported")
def test_purge_of_an_interval_of_a_stream_and_of_a_node() -> None:
    window = ("--from", "2026-01-01T00:00:00Z", "--to", "2026-01-01T00:02:00Z")
    assert "2 instances of power[room=kitchen] removed" in run("purge", KITCHEN, *window, "--yes").stdout
    assert [time for time, _ in instances("smooth[room=kitchen]")] == ["00:00:00", "00:03:00", "00:04:00", "00:05:00"]
    assert len(instances("smooth[room=hall]")) == 6
    assert "6 instances of power[room=hall] removed" in run("purge", HALL, "--yes").stdout
    assert instances("smooth[room=hall]") == []
    # A node is computed again from what is left.
    assert "4 instances of 2 streams of smooth removed" in run("purge", "smooth", "--yes").stdout
    assert [value for _, value in instances("smooth[room=kitchen]")] == [0.0, 3.0, 4.0, 5.0]
    assert "4 instances of 2 streams of power removed" in run("purge", "power", "--yes").stdout
    assert instances(KITCHEN) == instances("smooth[room=kitchen]") == []
    assert "clean" in run("verify", "power").stdout


ASKED = "Remove them? [y/N]: "


def in_terminal(site: Any, answer: str, *arguments: str) -> tuple[int, str]:
    """Exit code and what stands in a terminal in which somebody types ``answer`` when asked."""
    here, there = os.openpty()
    try:
        command = [sys.executable, "-m", "hs_stream.cli", *arguments]
        with subprocess.Popen(command, stdin=there, stdout=there, stderr=there, env=site.environment()) as process:
            shown = b""
            while not shown.endswith(ASKED.encode()):
                shown += os.read(here, 1)
            os.write(here, f"{answer}\n".encode())
            return process.wait(60), (shown + os.read(here, 10_000)).decode().replace("\r\n", "\n")
    finally:
        os.close(here)
        os.close(there)


@pytest.mark.usefixtures("imported")
def test_purge_asks_first(in_site: Any) -> None:
    rooms, refusal = f"  {HALL}: 3\n  {KITCHEN}: 3\n", f"{ASKED}n\nnothing is removed\n"
    assert in_terminal(in_site, "n", "purge", "power", "--to", "2026-01-01T00:02:00Z") == (
        1,
        f"This removes 6 instances of 2 streams in (-inf, 2026-01-01T00:02:00Z]:\n{rooms}{refusal}",
    )
    assert len(instances(KITCHEN)) == 6
    code, shown = in_terminal(in_site, "y", "purge", KITCHEN)
    assert (code, f"This removes 6 instances of {KITCHEN} in (-inf, inf]:\n" in shown) == (0, True)
    assert (instances(KITCHEN), len(instances(HALL))) == ([], 6)


@pytest.mark.usefixtures("imported")
def test_an_answer_that_nobody_typed_is_none() -> None:
    # Such as the next line of a file that a shell loop reads.
    result = run("purge", "power", stdin="y\n", code=2)
    assert "confirm it with --yes" in result.stderr
    assert len(instances(KITCHEN)) == 6


@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize("stdin", [subprocess.DEVNULL, None])
async def test_purge_without_anybody_to_ask_names_the_option(in_site: Any, stdin: int | None) -> None:
    arguments = [sys.executable, "-m", "hs_stream.cli", "purge", "power"]
    closed = ["sh", "-c", 'exec "$@" <&-', "sh", *arguments]
    command = arguments if stdin is not None else closed
    process = await asyncio.create_subprocess_exec(
        *command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=in_site.environment()
    )
    _, errors = await process.communicate()
    line = (
        "nothing is removed: this would remove 12 instances of 2 streams in (-inf, inf]: power[room=hall], "
        "power[room=kitchen], and nobody is here to be asked (run it in a terminal, or confirm it with --yes)"
    )
    assert (process.returncode, errors.decode()) == (2, f"hs-stream: {line}\n")
    assert len(await asyncio.to_thread(instances, HALL)) == 6


@pytest.mark.usefixtures("imported")
def test_purges_that_cannot_be() -> None:
    assert "there is power[room=hall], power[room=kitchen]" in refused("purge", "power[room=attic]", "--yes")
    assert "there is no stream pow" in refused("purge", "pow", "--yes")
    write_workflow(WORKFLOW.replace("smooth:", "soft:"))
    line = refused("purge", "smooth[room=hall]", "--yes")
    assert "no workflow of the settings has smooth[room=hall] (add its workflow to the settings)" in line


async def test_a_service_forgets_and_every_view_says_so(site: Any) -> None:
    write_workflow(WORKFLOW.replace("every: 200ms}", "every: 200ms, retention: 16s}"))
    write_csv("kitchen", 30)
    service = await site.start("serve")
    path = "/api/streams/power%5Broom=kitchen%5D"
    status = await service.until(path, lambda answer: answer.get("floor"))
    # Closed up to the newest reading less 16 s; the reading that held then is kept.
    assert (status["floor"], status["limit"]) == ("2026-01-01T00:27:59.999Z", "2026-01-01T00:28:44Z")
    assert status["coverage"][0][0] == status["floor"]
    await service.until("/metrics", lambda answer: "hs_forgotten_instances_total 28.0" in answer)
    shown = service.ask(f"{path}/instances?start=2026-01-01T00:00:00Z&end=2026-01-01T00:29:00Z")
    assert [row["value"] for row in shown["instances"]] == [28, 29]
    assert shown["floor"] == status["floor"]
    assert [state["state"] for state in shown["states"]] == ["not-computed", "computed"]
    smooth = service.ask("/api/streams/smooth%5Broom=kitchen%5D/instances")
    assert len(smooth["instances"]) == 30, "results stay"
    service.process.send_signal(signal.SIGTERM)
    assert (await service.end())[0] == 0
    rows = json.loads((await later("streams", "power", "--format", "json")).stdout)
    assert [row["floor"] for row in rows] == [status["floor"]]
    assert "floor" in (await later("streams")).stdout
    result = await later("query", KITCHEN, "--from", "2026-01-01T00:00:00Z")
    assert "forgotten: nothing is known up to 2026-01-01T00:27:59.999Z, by retention" in result.stderr
    result = await later("purge", "power", "--yes")
    assert "1 instances of power[room=kitchen] removed" in result.stdout
    assert "kept: what lies up to 2026-01-01T00:28:44Z is final, by retention" in result.stderr
    assert "clean" in (await later("verify", "power")).stdout


async def test_failures_and_dead_letters(site: Any) -> None:
    write_workflow(WORKFLOW)
    write_csv("kitchen", 3, odd="2026-01-01T00:03:00Z,warm\nnever,1\n")
    service = await site.start("serve")
    [found] = (await service.until("/api/failed", lambda answer: answer["failed"]))["failed"]
    await service.until("/api/deadletters", lambda answer: answer["dead_letters"])
    service.process.send_signal(signal.SIGTERM)
    code, log = await service.end()
    assert code == 0
    [line] = [line for line in log.splitlines() if "a tool failed" in line]
    [[start, end]] = found["failed"]
    for word in (
        "warning",
        "hs-stream failed",
        "node=smooth",
        "smooth[room=kitchen]",
        f"({start}, {end}]",
        "TypeError",
    ):
        assert word in line
    assert "warm" not in log
    result = await later("failed", "--format", "json")
    assert "not running now" in result.stderr
    [row] = json.loads(result.stdout)
    assert (row["stream"], row["tool"]) == ("smooth[room=kitchen]", "sliding_mean@1.0.0")
    assert [[row["start"], row["end"]]] == found["failed"]
    assert row["error"] == found["error"]
    text = (await later("failed", "--format", "csv")).stdout
    assert text.startswith("stream,workflow,tool,start,end,error\nsmooth[room=kit")
    assert "smooth[room=kitchen]" in (await later("failed")).stdout
    [letter] = json.loads((await later("dead-letters", "--format", "json")).stdout)
    assert (letter["reason"], letter["topic"]) == ("time_invalid", "data/kitchen.csv:6")
    table = (await later("dead-letters", "--last", "1")).stdout
    assert "data/kitchen.csv:6" in table
    assert "payload" not in table
    text = (await later("dead-letters", "--format", "csv")).stdout
    assert text.startswith("time,source,reason,topic,message,payload\n")


@pytest.mark.usefixtures("imported")
def test_history() -> None:
    [newest, *_] = rows = json.loads(run("history", "smooth", "--format", "json").stdout)
    assert {row["node"] for row in rows} == {"smooth"}
    assert (newest["tool"], newest["cause"]) == ("sliding_mean@1.0.0", "arrival")
    assert newest["end"] >= "2026-01-01T00:05:00Z"
    assert sum(row["changed"] for row in rows) == 12
    assert run("history", "--format", "csv").stdout.startswith("time,node,tool,cause,start,end,instances,changed,ses")
    assert "sliding_mean@1.0.0" in run("history", "--last", "1").stdout
    assert "did you mean smooth?" in refused("history", "smoth")


@pytest.mark.usefixtures("imported")
def test_failed_without_a_service() -> None:
    assert "no service has used this store yet" in refused("failed")


@pytest.mark.usefixtures("imported")
def test_the_title_of_a_table_is_not_folded() -> None:
    assert run("query", KITCHEN, "--last", "1").stdout.splitlines()[0] == KITCHEN
