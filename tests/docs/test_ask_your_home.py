"""The guide "Ask your home": each answer comes out of the lines that stand above it, also where readings are late.

The examples are the test. A line of them is a stream, a local time and a value: a reading, where the stream is of a
source, else all that comes out of that node. They were worked out by hand.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from textwrap import indent
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME, to_ms
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.engine import Engine, EngineSettings
from hs_stream.engine.ports import Delivery, Reading
from hs_stream.plugins import default_registry
from hs_stream.service.json_values import encode
from hs_stream.service.settings import Settings
from hs_stream.service.workflows.doubts import doubts_about
from hs_stream.service.workflows.file import load_workflow
from hs_stream.service.workflows.loading import checks_of
from hs_stream.store.memory import MemoryStore
from hs_stream.testing.clock import VirtualClock
from hs_stream.testing.oracle import verify

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "ask-your-home.md"
BERLIN = ZoneInfo("Europe/Berlin")
QUESTION = re.compile(r"^### (.+?)$.*?^```yaml\n(.*?)^```\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"(\S+) +(\d+ \w+ [\d:]+) +(.+)")
REGISTRY = default_registry()
Row = tuple[str, int, Any]


@dataclass(frozen=True)
class Question:
    """What stands in the guide: lines of a workflow, and an example."""

    text: str
    nodes: str
    rows: list[Row]


def instant(text: str) -> int:
    form = "%Y %d %b %H:%M:%S" if text.count(":") == 2 else "%Y %d %b %H:%M"
    return to_ms(datetime.strptime(f"2026 {text}", form).replace(tzinfo=BERLIN))


def value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def row(line: str) -> Row:
    found = ROW.fullmatch(line)
    assert found, line
    return found[1], instant(found[2]), value(found[3])


def questions() -> list[Question]:
    text = GUIDE.read_text(encoding="utf-8")
    return [
        Question(title, nodes, [row(line) for line in rows.splitlines()])
        for title, nodes, rows in QUESTION.findall(text)
    ]


def shared() -> str:
    """The workflow that all questions share."""
    [found] = re.findall(r"^```yaml\n(workflow:.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(found)


def workflow_of(nodes: str, scratch: Path) -> WorkflowDefinition:
    path = scratch / "home.yaml"
    path.write_text(shared() + indent(nodes, "  "), encoding="utf-8")
    return load_workflow(path, REGISTRY, checks_of(Settings()))


def near(one: Any) -> Any:
    """Equal to it, as far as the guide has digits. A boolean equals no number."""
    return pytest.approx(one, rel=1e-5) if type(one) in (int, float) else one


async def answers(workflow: WorkflowDefinition, rows: list[Row], *, late: bool) -> dict[str, list[tuple[int, Any]]]:
    """What comes out of the readings; ``late``: every second one only after all others."""
    readings = [one for one in rows if StreamId.parse(one[0]).name in workflow.sources]
    readings.sort(key=lambda one: one[1])
    clock, store = VirtualClock(max(one[1] for one in rows) + 1_000), MemoryStore()
    engine = Engine(store, clock=clock, settings=EngineSettings(idle=1_000))
    await engine.open([workflow])
    running = asyncio.create_task(engine.run())
    engine.connected(True)
    for part in (readings[::2], readings[1::2]) if late else ([one] for one in readings):
        made = []
        for name, time, content in part:
            stream = StreamId.parse(name)
            made.append(Reading(stream.name, stream.meta, time, content))
        await engine.deliver(Delivery(made, [], clock.now(), lambda: None))
        await engine.settle()
    for _ in range(3):
        clock.advance(2_000)
        await asyncio.sleep(0)
        await engine.settle()
    found = {}
    for name in {one[0] for one in rows}:
        batch = await engine.read(StreamId.parse(name), MIN_TIME, MAX_TIME)
        found[name] = [(time, json.loads(json.dumps(encode(content)))) for time, content in batch]
    proven = await verify(store, [workflow], MIN_TIME, clock.now(), records=engine.records(), horizon=engine.horizon)
    await engine.stop()
    await running
    await engine.close()
    assert proven.clean
    return found


@pytest.mark.parametrize("late", [False, True], ids=["in order", "late"])
@pytest.mark.parametrize("question", questions(), ids=lambda question: question.text)
async def test_the_answer_is_right(question: Question, late: bool, tmp_path: Path) -> None:
    workflow = workflow_of(question.nodes, tmp_path)
    found = await answers(workflow, question.rows, late=late)
    asked = [name for name, _, _ in question.rows if StreamId.parse(name).name in workflow.nodes]
    assert asked
    for name in asked:
        assert found[name] == [(time, near(one)) for stream, time, one in question.rows if stream == name], name


def test_every_question_has_an_answer_and_all_of_them_fit_together(tmp_path: Path) -> None:
    found = questions()
    assert [one.text for one in found] == re.findall(r"^### (.+)$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(found) >= 30
    lines = dict.fromkeys(line for one in found for line in one.nodes.splitlines())
    workflow = workflow_of("\n".join(lines), tmp_path)
    assert set(workflow.sources) <= {name for node in workflow.nodes.values() for name in node.inputs}
    assert [str(doubt) for doubt in doubts_about(Settings(), [workflow])] == []
