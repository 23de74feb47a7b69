"""What may fail beside the service without ending it, and where an operator sees it."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from structlog.testing import capture_logs

from hs_stream.core.errors import HsStreamError, StoreUnavailable
from hs_stream.engine.telemetry import Telemetry
from hs_stream.service.embedded.broker import EmbeddedBroker
from hs_stream.service.http.server import HttpServer
from hs_stream.service.metrics import ServiceTelemetry
from hs_stream.service.mqtt_log import MqttLog
from hs_stream.service.session import SessionBook
from hs_stream.service.settings import LoggingSettings
from hs_stream.service.side_tasks import SideTasks, careful
from hs_stream_connectors.mqtt.homeassistant import HomeAssistant
from tests.fake_broker import FakeBroker, Peer
from tests.service.conftest import Process

from .test_homeassistant import HOME, TEMPERATURE
from .test_running_changes import running

# --- the supervisor ---


async def test_it_is_started_again_counted_and_logged_once_for_each_cause() -> None:
    counted: list[str] = []
    errors: list[BaseException] = [
        ValueError("odd"),
        ValueError("odd"),
        StoreUnavailable("the store is away"),
        RecursionError("deep\x1b[2J"),
        ExceptionGroup("several", [MemoryError("much")]),
        asyncio.CancelledError(),
    ]
    done = asyncio.Event()

    async def run() -> None:
        if errors:
            raise errors.pop(0)
        done.set()
        await asyncio.Event().wait()

    side = SideTasks(counted.append, first=0.001)
    with capture_logs() as logs:
        task = asyncio.create_task(side.keep("talk", run))
        async with asyncio.timeout(5):
            await done.wait()
    assert counted == ["talk"] * 6
    assert side.troubles() == [{"what": "side task talk", "error": "CancelledError: ", "count": 6}]
    assert [line["error"] for line in logs] == [
        "ValueError: odd",
        "the store is away",
        "RecursionError: deep\\x1b[2J",
        "MemoryError: much",
        "CancelledError: ",
    ]
    assert re.fullmatch(r"side_tasks\.py:\d+ keep > test_side_tasks\.py:\d+ run", logs[0]["where"])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_it_is_in_order_again_when_it_was_calm_for_a_while() -> None:
    failures = [HsStreamError("no")]

    async def run() -> None:
        if failures:
            raise failures.pop()
        await asyncio.Event().wait()

    side = SideTasks(lambda _: None, first=0.001, calm=0.05)
    task = asyncio.create_task(side.keep("talk", run))
    async with asyncio.timeout(5):
        while failures or side.troubles():
            await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_end_does_not_wait_for_the_next_try() -> None:
    async def run() -> None:
        raise HsStreamError("no")

    side = SideTasks(lambda _: None, first=1000.0)
    task = asyncio.create_task(side.keep("talk", run))
    while not side.troubles():
        await asyncio.sleep(0)
    side.stop()
    await asyncio.wait_for(task, 5)


def test_no_counter_fails_the_reading_that_it_counts() -> None:
    class Bad(ServiceTelemetry):
        def readings(self, source: str, count: int) -> None:
            raise ValueError(source)

    bad = Bad()

    async def use() -> None:
        side = SideTasks(bad.side_task_failed, calm=0.05)
        made = careful(bad, side)
        made.readings("climate", 1)
        made.late(3)
        assert side.troubles()[0]["error"] == "ValueError: climate"
        await asyncio.sleep(0.06)
        assert side.troubles() == [], "not for ever"
        with capture_logs() as logs:
            for number in range(1_000):
                made.readings(f"source {number}", 1)
        assert 0 < len(logs) <= 10, "whatever it says, the log is not full of it"

    asyncio.run(use())
    text = bad.exposition().decode()
    assert 'hs_side_task_failures_total{task="metrics"} 1001.0' in text
    assert "hs_late_readings_total 3.0" in text
    names = [name for name in vars(Telemetry) if not name.startswith("_")]
    assert len(names) > 10
    assert all(callable(vars(Telemetry)[name]) for name in names), "`careful` covers methods only"


# --- each side task of a running service ---


def broken(once: dict[str, int], name: str) -> Callable[..., Any]:
    async def run(*_: Any) -> None:
        once[name] = once.get(name, 0) + 1
        raise ZeroDivisionError(name)

    return run


async def test_whichever_of_them_fails_readings_become_results(
    tmp_path: Path, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: dict[str, int] = {}
    monkeypatch.setattr(HomeAssistant, "run", broken(tried, "home assistant"))
    monkeypatch.setattr(MqttLog, "run", broken(tried, "mqtt log"))
    monkeypatch.setattr(SessionBook, "beat", broken(tried, "session"))

    def observe(*_: Any) -> bool:
        raise ZeroDivisionError("observe")

    monkeypatch.setattr(HomeAssistant, "observe", observe)
    logs = LoggingSettings(mqtt_topic="home/log")
    async with running(tmp_path, broker, HOME, logging=logs) as it:
        monkeypatch.setattr(it.service._catalog, "read_files", observe)
        it.service.read_files_again()
        it.base = time.time_ns() // 1_000_000
        await it.publish((-20, 21.0))
        await it.contents("temperature", {-20: 21.0})
        async with asyncio.timeout(10):
            while tried.get("home assistant", 0) < 2:
                await asyncio.sleep(0.02)
        ready = await it.get("/readyz")
        assert ready["ready"] is True
        whats = {one["what"]: one for one in ready["degraded"]}
        assert {f"side task {name}" for name in ("home assistant", "mqtt log", "session", "files")} <= whats.keys()
        assert "ZeroDivisionError" in whats["side task home assistant"]["error"]
        assert whats["side task home assistant"]["count"] >= 2
        text = (await it.client.get("/metrics")).text
        for name in ("home assistant", "mqtt log", "session"):
            assert f'hs_side_task_failures_total{{task="{name}"}}' in text
        assert "side task home assistant" in (await it.client.get("/")).text


async def test_http_comes_back(tmp_path: Path, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = 0
    right = HttpServer.run

    async def run(server: HttpServer) -> None:
        nonlocal runs
        runs += 1
        serving = asyncio.create_task(right(server))
        if runs == 1:
            await server.wait_started()
            server._server.should_exit = True
        await serving

    monkeypatch.setattr(HttpServer, "run", run)
    async with running(tmp_path, broker) as it:
        async with asyncio.timeout(15):
            while runs < 2:
                await asyncio.sleep(0.02)
        ready = await it.get("/readyz")
        assert [one["what"] for one in ready["degraded"]] == ["side task http"]


# --- processes ---

POISON = [b'"\xff\xfe"', b"[" * 100_000]


@pytest.mark.parametrize("payload", POISON, ids=["no UTF-8", "deep"])
async def test_a_retained_description_of_any_kind_does_not_end_the_service(
    site: Any, broker: EmbeddedBroker, payload: bytes
) -> None:
    site.write(broker.url)
    text = HOME.replace("home/{room}/climate", "home/{house}/{room}/climate")
    (site.directory / "comfort.yaml").write_text(text.replace("{room: {}}", "{house: {}, room: {parent: house}}"))
    async with aiomqtt.Client("127.0.0.1", broker.port) as client:
        await client.publish("homeassistant/sensor/x/config", payload, qos=1, retain=True)
        await client.subscribe("homeassistant/#", qos=1)
        service = await site.start("serve")
        await service.until("/readyz", lambda answer: isinstance(answer, dict) and answer["ready"])
        reading = json.dumps({"ts": time.time_ns() // 1_000_000 - 5_000, "temperature": 20.5})
        await client.publish("home/1/kitchen/climate", reading, qos=1)
        async with asyncio.timeout(15):
            async for message in client.messages:
                if str(message.topic) == TEMPERATURE.replace("kitchen", "1-kitchen") + "/state":
                    assert message.payload == b"20.5"
                    break
        assert service.ask("/readyz")["degraded"] == []
        check = await site.start("doctor")
        out = (await check.process.communicate())[0].decode()
        assert "ok   the running service: ready, and nothing is degraded" in out
        service.process.terminate()
        code, errors = await service.end()
        assert code == 0, errors


async def test_a_refused_subscription_makes_it_unready_until_it_is_given(site: Any) -> None:
    allowed = False

    def answer(_: Peer, filters: list[str]) -> bytes | None:
        return None if allowed else b"\0" + b"\x87" * len(filters)

    async with FakeBroker(suback=answer) as broker:
        site.write(broker.url)
        service = await site.start("serve")
        said = await service.until(
            "/readyz", lambda answer: isinstance(answer, dict) and answer["parts"]["broker"].get("refused")
        )
        assert said["ready"] is False
        assert said["parts"]["broker"]["connections"] == {"in": True, "out": True}
        refused = {"source": "climate", "filter": "home/+/+/climate", "error": "Not authorized (0x87)"}
        assert said["parts"]["broker"]["refused"] == [refused]
        assert all(word in said["parts"]["broker"]["error"] for word in ("climate", "home/+/+/climate", "0x87"))
        assert "hs_mqtt_refused_subscriptions 1.0" in service.ask("/metrics")
        check = await site.start("doctor")
        out = (await check.process.communicate())[0].decode()
        assert check.process.returncode == 1
        assert "FAIL the running service: broker: the broker refuses source climate" in out
        assert "FAIL broker:" in out
        assert "home/+/+/climate: Not authorized (0x87)" in out
        allowed = True
        await service.until("/readyz", lambda answer: answer["ready"] is True)
        assert "hs_mqtt_refused_subscriptions 0.0" in service.ask("/metrics")
        await ended(service)


async def test_what_the_broker_will_not_have_is_seen_and_the_rest_goes_out(site: Any, tmp_path: Path) -> None:
    acl = "topic readwrite home/#\ntopic readwrite hs/status\ntopic readwrite hs/comfort/smooth/1/kitchen\n"
    (tmp_path / "acl").write_text(acl)
    more = f"acl_file {tmp_path / 'acl'}\n"
    async with EmbeddedBroker(tmp_path / "broker", kind="mosquitto", more=more) as broker:
        site.write(broker.url)
        service = await site.start("serve")
        await service.until("/readyz", lambda answer: isinstance(answer, dict) and answer["ready"])
        async with aiomqtt.Client("127.0.0.1", broker.port) as client:
            await client.subscribe("hs/#", qos=1)
            for second in range(3):
                for room in ("bath", "kitchen"):
                    stamp = time.time_ns() // 1_000_000 - 60_000 + 1000 * second
                    reading = json.dumps({"ts": stamp, "temperature": 20.5})
                    await client.publish(f"home/1/{room}/climate", reading, qos=1)
            got = 0
            async with asyncio.timeout(15):
                async for message in client.messages:
                    got += str(message.topic) == "hs/comfort/smooth/1/kitchen"
                    if got == 3:
                        break
        said = await service.until("/readyz", lambda answer: answer["degraded"] and answer["degraded"][0]["count"] == 3)
        assert said["ready"] is True
        assert said["degraded"][0]["what"] == "unpublished: not_authorized"
        assert "'hs/comfort/smooth/1/bath'" in said["degraded"][0]["error"]
        assert 'hs_unpublished_total{reason="not_authorized"} 3.0' in service.ask("/metrics")
        letters = service.ask("/api/deadletters")["dead_letters"]
        assert [(one["source"], one["reason"], one["topic"]) for one in letters] == [
            ("smooth", "not_authorized", "hs/comfort/smooth/1/bath")
        ]
        check = await site.start("doctor")
        out = (await check.process.communicate())[0].decode()
        assert check.process.returncode == 1
        assert "FAIL the running service: unpublished: not_authorized" in out
        await ended(service)


async def ended(service: Process) -> None:
    service.process.terminate()
    code, errors = await service.end()
    assert code == 0, errors
