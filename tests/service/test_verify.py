"""What ``hs-stream verify`` says of what is missing: without a service, beside one at work, and beside one at rest."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hs_stream.cli import app, work
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME, TimeIntervals, format_time
from hs_stream.engine.clock import SystemClock
from hs_stream.engine.ports import Commit, StreamChange
from hs_stream.store.sqlite import SqliteStore
from hs_stream.testing.oracle import Verification

pytestmark = pytest.mark.usefixtures("in_site")

WORKFLOW = """\
workflow: comfort
plates: {room: {}}
sources:
  power: {csv: "data/{room}.csv", time: {field: t, zone: UTC}, value: v}
nodes:
  double: {tool: expression@^1, from: power, with: {expression: value * 2}}
  smooth: {tool: sliding_mean@^1, from: double, with: {width: 30s}}
"""
DOUBLE, SMOOTH = StreamId.parse("double[room=hall]"), StreamId.parse("smooth[room=hall]")
SPAN = "in (2026-01-01T00:00:59.999Z, 2026-01-01T00:05:00Z], 5 instances"


def verify(code: int) -> list[str]:
    result = CliRunner().invoke(app, ["verify", "comfort"])
    assert result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
    return [line.strip() for line in result.stdout.splitlines()]


@pytest.fixture
def forgotten(in_site: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store in which nobody has computed one stream after its first instance; its path."""
    monkeypatch.setattr(work, "_PAUSE", 0.0)
    Path("comfort.yaml").write_text(WORKFLOW, encoding="utf-8")
    Path("data").mkdir(exist_ok=True)
    rows = [f"2026-01-01T00:{minute:02}:00Z,{minute}" for minute in range(6)]
    Path("data/hall.csv").write_text("\n".join(["t,v", *rows]), encoding="utf-8")
    imported = CliRunner().invoke(app, ["import", "data/hall.csv", "--stream", "power[room=hall]", "--time", "t"])
    assert imported.exit_code == 0, imported.output
    assert "comfort: clean" in verify(0)[0]
    path: Path = in_site.directory / "data" / "x.db"
    asyncio.run(forget(path))
    return path


async def forget(path: Path) -> None:
    store = SqliteStore(path)
    left = await store.open()
    [record] = [record for record in await store.streams() if record.stream == SMOOTH]
    held = await store.read(record.id, MIN_TIME, MAX_TIME)
    lost = held.times.tolist()[1:]
    covered = record.coverage & TimeIntervals.of(MIN_TIME, held.first_time)
    change = StreamChange(record.id, covered, record.upper, retracted=lost, revisions=dict.fromkeys(lost, 1))
    await store.commit(Commit(left.commit_seq + 1, [change], left.append_seq, left.proven or 0))
    await store.close()


def at_work(path: Path, **said: Any) -> None:
    """A service that says this of itself, in a moment from now on."""

    async def put() -> None:
        store = SqliteStore(path)
        await store.open()
        document: Mapping[str, Any] = {"seen": format_time(SystemClock().now() + 20_000), "stopped": None, **said}
        await store.put("sessions", "one", document)
        await store.close()

    asyncio.run(put())


@pytest.mark.usefixtures("forgotten")
def test_what_is_missing_is_named_and_counted() -> None:
    lines = verify(1)
    assert lines[0].startswith("comfort: 1 streams are incomplete. 2 streams, 7 instances compared")
    assert lines[1] == f"missing: {SMOOTH} {SPAN}"
    assert lines[2] == "no service is at work on this store: `hs-stream serve` computes what is missing"


def test_what_a_service_has_forgotten_is_an_error(forgotten: Path) -> None:
    at_work(forgotten, pending=["other"])
    lines = verify(1)
    assert lines[1] == f"missing: {SMOOTH} {SPAN}"
    assert lines[2].startswith("nothing is pending there: this is an error of hs-stream")


@pytest.mark.parametrize("node", ["smooth", "double"])
def test_what_a_service_has_still_to_compute_is_pending(forgotten: Path, node: str) -> None:
    """Itself, or what it is computed from."""
    at_work(forgotten, pending=[node])
    lines = verify(0)
    assert lines[0].startswith("comfort: clean")
    assert lines[1:] == [f"pending: {SMOOTH} {SPAN}"]


def test_what_is_computed_while_we_look_is_not_missing(forgotten: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_work(forgotten, pending=[])
    seen = [[1, 2, 3], [3, 4], [4, 5]]

    async def look(*_: Any, **__: Any) -> Verification:
        return Verification(missing={SMOOTH: seen.pop(0)})

    monkeypatch.setattr("hs_stream.testing.oracle.verify", look)
    assert verify(0)[0].startswith("comfort: clean")
    assert not seen
