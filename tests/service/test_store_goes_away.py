"""A store that goes away while the service runs ends nothing, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from hs_stream.core.errors import StoreUnavailable
from hs_stream.service.embedded.broker import EmbeddedBroker
from hs_stream.service.generation import Generation
from hs_stream.store.sqlite.file import SqliteFile
from hs_stream_connectors.mqtt.homeassistant import HomeAssistant

from .test_running_changes import SAVED, running

PUBLISHED = SAVED.replace("workflow: more", "workflow: comfort").replace(
    "scaled: {}\n", "scaled: {homeassistant: {}}\n"
)


class Away:
    """While it is ``set``, every SQLite store answers nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.set = False
        self.asked: set[str] = set()
        work = SqliteFile.run

        async def run(file: SqliteFile, call: Any, *args: Any) -> Any:
            if self.set:
                self.asked.add(getattr(call, "__name__", ""))
                raise StoreUnavailable("it is away", hint="wait")
            return await work(file, call, *args)

        monkeypatch.setattr(SqliteFile, "run", run)

    async def until_asked(self, *names: str) -> None:
        async with asyncio.timeout(15):
            while not self.asked & set(names):
                await asyncio.sleep(0.02)


async def test_home_assistant_asks_for_states_meanwhile(
    tmp_path: Path, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Away(monkeypatch)
    async with running(tmp_path, broker, PUBLISHED) as it, aiomqtt.Client("127.0.0.1", broker.port) as home:
        await home.subscribe("hs/+/+/+/state", qos=1)
        await home.subscribe("homeassistant/+/+/state", qos=1)
        await it.publish((1, 1.0))
        await it.contents("scaled", {1: 2.0})
        away.set = True
        [assistant] = [mirror.made for mirror in it.service._generation._outputs.mirrors]
        assert isinstance(assistant, HomeAssistant)
        assistant._states.clear()  # as after a start: nothing is known yet, and the store is asked
        await it.publish((2, 2.0))
        await it.mqtt.publish("homeassistant/status", "online", qos=1)
        await away.until_asked("<lambda>", "_append")
        await asyncio.sleep(1.5)  # longer than the jitter after a birth
        assert (await it.get("/healthz"))["ok"]
        assert "it is away" in (await it.get("/readyz", 503))["parts"]["store"]["error"]
        away.set = False
        async with asyncio.timeout(40):
            async for message in home.messages:
                if b"4" in bytes(message.payload):
                    break
        await it.contents("scaled", {1: 2.0, 2: 4.0})


async def test_the_workflows_are_loaded_again_meanwhile(
    tmp_path: Path, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Away(monkeypatch)
    async with running(tmp_path, broker, PUBLISHED) as it:
        await it.publish((1, 1.0))
        await it.contents("scaled", {1: 2.0})
        await asyncio.to_thread((tmp_path / "comfort.yaml").write_text, PUBLISHED.replace("* 2", "* 3"), "utf-8")
        away.set = True
        it.service.read_files_again()
        await away.until_asked("_append", "_commit", "_put", "_open", "_claim")
        await asyncio.sleep(1.5)
        assert (await it.get("/healthz"))["ok"]
        away.set = False
        await it.publish((2, 2.0))
        await it.contents("scaled", {1: 3.0, 2: 6.0})


async def test_a_stop_waits_for_no_store_that_goes_away_while_the_workflows_are_loaded(
    tmp_path: Path, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = asyncio.Event()

    async def open_for_ever(_: Generation) -> None:
        opening.set()
        await asyncio.Event().wait()

    async with running(tmp_path, broker, PUBLISHED) as it:
        monkeypatch.setattr(Generation, "open", open_for_ever)
        await asyncio.to_thread((tmp_path / "comfort.yaml").write_text, PUBLISHED.replace("* 2", "* 3"), "utf-8")
        it.service.read_files_again()
        async with asyncio.timeout(10):
            await opening.wait()
    # `running` has stopped it, within 10 seconds.
