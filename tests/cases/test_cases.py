"""Everyday questions of a home, each with the right answer.

A folder is one question: ``workflow.yaml`` as one would write it, ``messages.jsonl`` that gateways publish,
``expected.json`` with the values that are right, and ``case.json`` with why. The values were worked out by hand.
Messages go through the codecs of the sources into an engine; nothing of MQTT or a store on disk is needed.
"""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME, parse_duration, to_ms
from hs_stream.engine.engine import Engine, EngineSettings
from hs_stream.plugins import default_registry
from hs_stream.service.connectors import Connectors
from hs_stream.service.json_values import encode
from hs_stream.service.settings import Settings
from hs_stream.service.workflows.file import load_workflow
from hs_stream.service.workflows.loading import checks_of
from hs_stream.store.memory import MemoryStore
from hs_stream.testing.clock import VirtualClock
from hs_stream.testing.oracle import verify
from hs_stream_connectors.mqtt.packets import Message
from hs_stream_connectors.mqtt.source import MqttSource

HERE = Path(__file__).parent
NOW = to_ms(datetime.fromisoformat("2026-12-01T00:00:00+00:00"))
"""All messages are of before it. Silence since then has ended what it can end."""
SETTINGS = Settings.model_validate({"store": {"url": "sqlite:///unused.db"}, "mqtt": {"url": "mqtt://127.0.0.1:1"}})
REGISTRY = default_registry()


def instant(text: str) -> int:
    return to_ms(datetime.fromisoformat(text))


async def answer(case: Path) -> tuple[dict[str, Any], Any]:
    """The contents of the streams that are asked for, and what a run from scratch says of all."""
    workflow = load_workflow(case / "workflow.yaml", REGISTRY, checks_of(SETTINGS))
    [made] = Connectors(SETTINGS).sources_of([workflow])
    source, clock, store = made.source, VirtualClock(NOW), MemoryStore()
    assert isinstance(source, MqttSource)
    settings = json.loads((case / "case.json").read_text("utf-8")).get("settings", {}).get("watermark", {})
    lateness = parse_duration(settings.get("lateness", "0s"))
    engine = Engine(store, clock=clock, settings=EngineSettings(lateness=lateness, idle=1_000))
    await engine.open([workflow])
    running = asyncio.create_task(engine.run())
    engine.connected(True)
    for line in (case / "messages.jsonl").read_text("utf-8").splitlines():
        message = json.loads(line)
        payload = message["payload"]
        body = (payload if isinstance(payload, str) else json.dumps(payload)).encode()
        one = Message(message["topic"].encode(), body, 0, 1, bool(message.get("retain")), False)
        await engine.deliver(source.decode([one], lambda: None))
        await engine.settle()
    for _ in range(3):
        clock.advance(10_000)
        await asyncio.sleep(0)
        await engine.settle()
    wanted = json.loads((case / "expected.json").read_text("utf-8"))
    found = {}
    for name in wanted:
        batch = await engine.read(StreamId.parse(name), MIN_TIME, MAX_TIME)
        found[name] = [(time, json.loads(json.dumps(encode(value)))) for time, value in batch]
    proven = await verify(store, [workflow], MIN_TIME, clock.now(), records=engine.records(), horizon=engine.horizon)
    await engine.stop()
    await running
    await engine.close()
    return found, proven


def near(value: Any) -> Any:
    """Equal to it, but for the last digits of floats."""
    if type(value) is dict:
        return {name: near(one) for name, one in value.items()}
    if type(value) is list:
        return [near(one) for one in value]
    return pytest.approx(value, rel=1e-9) if type(value) is float else value


@pytest.mark.parametrize("case", sorted(path.parent.name for path in HERE.glob("*/case.json")))
async def test_the_answer_is_right(case: str) -> None:
    found, proven = await answer(HERE / case)
    wanted = json.loads((HERE / case / "expected.json").read_text("utf-8"))
    for name, rows in wanted.items():
        assert found[name] == [(instant(time), near(value)) for time, value in rows], name
    assert proven.clean
