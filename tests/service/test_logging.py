"""Where log records go: stderr, a file that rotates, and MQTT, which must never hold anybody up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
import structlog

from hs_stream.core.errors import ConfigurationError
from hs_stream.service.embedded.broker import EmbeddedBroker
from hs_stream.service.logs import LogFile, configure_logging
from hs_stream.service.metrics import ServiceTelemetry
from hs_stream.service.mqtt_log import LONGEST, QUEUE, MqttLog
from hs_stream_connectors.mqtt.options import MqttOptions

TOPIC = "home/log"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    configure_logging()
    structlog.reset_defaults()
    root.handlers = handlers
    root.setLevel(level)


class Messages:
    """What comes on `TOPIC`."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    async def take(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            self.records.append(json.loads(message.payload))

    async def until(self, count: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(10):
            while len(self.records) < count:
                await asyncio.sleep(0.02)
        return self.records

    def events(self) -> list[str]:
        return [record["event"] for record in self.records]


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    """One that keeps sessions over a restart: messages may come before the listener is back."""
    async with EmbeddedBroker(tmp_path / "broker", persistence=True) as running:
        yield running


@contextlib.asynccontextmanager
async def listening(broker: EmbeddedBroker) -> AsyncIterator[Messages]:
    found = Messages()
    async with aiomqtt.Client(
        "127.0.0.1", broker.port, identifier="listener", clean_session=False, protocol=aiomqtt.ProtocolVersion.V311
    ) as client:
        await client.subscribe(TOPIC, qos=1)
        task = asyncio.create_task(found.take(client))
        yield found
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def attached(url: str, level: str = "warning") -> AsyncIterator[tuple[MqttLog, ServiceTelemetry]]:
    telemetry = ServiceTelemetry()
    handler = MqttLog(MqttOptions(url, backoff_max=0.2), TOPIC, level, telemetry.log_dropped)
    logging.getLogger().addHandler(handler)
    task = asyncio.create_task(handler.run())
    yield handler, telemetry
    logging.getLogger().removeHandler(handler)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def connected(handler: MqttLog) -> None:
    async with asyncio.timeout(10):
        while not handler.connection_statistics().connected:
            await asyncio.sleep(0.02)


def dropped(telemetry: ServiceTelemetry) -> float:
    line = next(line for line in telemetry.exposition().decode().splitlines() if line.startswith("hs_log_records_drop"))
    return float(line.split()[-1])


# --- mqtt ---


async def test_records_at_the_level_and_above_become_messages(broker: EmbeddedBroker) -> None:
    configure_logging()
    async with listening(broker) as found, attached(broker.url) as (handler, telemetry):
        log = structlog.get_logger("hs_stream.engine")
        log.info("not this")
        log.warning("late", stream="t[room=a]", seconds=3.5)
        logging.getLogger("pymongo").warning("plain %s", "words")
        logging.getLogger("pymongo").info("a library that is kept to warnings")
        try:
            _ = dict[str, int]()["inside " * 2000]
        except KeyError:
            log.exception("failed")
        worker = threading.Thread(target=lambda: log.error("from a thread"))
        worker.start()
        worker.join()
        records = await found.until(4)
        await handler.wait_sent(5)
    first = dict(records[0])
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "event": "late",
        "level": "warning",
        "logger": "hs_stream.engine",
        "stream": "t[room=a]",
        "seconds": 3.5,
        "service": "hs-stream",
    }
    assert found.events() == ["late", "plain words", "failed", "from a thread"]
    assert records[1]["logger"] == "pymongo"
    assert records[2]["exception"].startswith("Traceback")
    assert len(records[2]["exception"]) == LONGEST
    assert dropped(telemetry) == 0


async def test_without_a_broker_logging_does_not_wait_and_what_has_no_room_is_counted(broker: EmbeddedBroker) -> None:
    configure_logging("debug")
    async with listening(broker):
        pass
    await broker.stop()
    async with attached(broker.url, "debug") as (handler, telemetry):
        await asyncio.sleep(0.3)
        log = logging.getLogger("hs_stream.engine")
        log.handlers = [logging.NullHandler()]
        began = time.monotonic()
        for number in range(QUEUE + 500):
            log.info("record %d", number)
        assert time.monotonic() - began < 2
        assert dropped(telemetry) == 500
        # What the failing connection itself says is not among them: the queue would fill up with it.
        await asyncio.sleep(0.5)
        assert handler.connection_statistics().failures > 1
        assert dropped(telemetry) == 500
        await broker.start()
        async with listening(broker) as found:
            records = await found.until(QUEUE)
            assert [record["event"] for record in records] == [f"record {number}" for number in range(QUEUE)]
            log.info("there is room again")
            assert (await found.until(QUEUE + 1))[-1]["event"] == "there is room again"
            await asyncio.sleep(0.2)
            assert len(found.records) == QUEUE + 1
        assert dropped(telemetry) == 500


async def test_a_broker_that_restarts_loses_no_record(broker: EmbeddedBroker) -> None:
    configure_logging()
    async with attached(broker.url) as (handler, telemetry):
        await connected(handler)
        async with listening(broker):
            pass
        await broker.stop()
        logging.getLogger("hs_stream.engine").warning("while it is away")
        await broker.start()
        async with listening(broker) as found:
            await found.until(1)
        await handler.wait_sent(5)
        assert "while it is away" in found.events()
        assert dropped(telemetry) == 0


async def test_the_service_logs_to_stderr_a_file_and_mqtt_and_tells_no_secret(
    site: Any, broker: EmbeddedBroker
) -> None:
    url = broker.url.replace("mqtt://", "mqtt://someone:hidden-word@")
    more = '[logging]\nfile = "var/log/hs.log"\nmqtt_topic = "home/log"\nmqtt_level = "info"\n'
    site.write(url, more=more)
    async with listening(broker) as found:
        service = await site.start("serve")
        await service.until("/readyz", lambda answer: isinstance(answer, dict) and answer["ready"])
        async with asyncio.timeout(10):
            while "started" not in found.events():
                await asyncio.sleep(0.05)
        assert "hs_log_records_dropped_total 0.0" in service.ask("/metrics")
        service.process.terminate()
        code, errors = await service.end()
        assert code == 0, errors
        async with asyncio.timeout(5):
            while "stopping" not in found.events():
                await asyncio.sleep(0.05)
    written = (site.directory / "var/log/hs.log").read_text(encoding="utf-8")
    for place in (errors, written, json.dumps(found.records)):
        assert "started" in place
        assert "hidden-word" not in place
    assert {record["service"] for record in found.records} == {"hs-stream"}


async def test_a_broker_that_refuses_the_topic_is_counted(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("topic readwrite other\n")
    more = f"acl_file {tmp_path / 'acl'}\n"
    async with (
        EmbeddedBroker(tmp_path / "broker", kind="mosquitto", more=more) as broker,
        attached(broker.url) as (
            handler,
            telemetry,
        ),
    ):
        await connected(handler)
        logging.getLogger("hs_stream.test").error("nobody may hear this")
        async with asyncio.timeout(10):
            while b"hs_log_records_dropped_total 1.0" not in telemetry.exposition():
                await asyncio.sleep(0.02)


# --- file, levels ---


def test_the_file_rotates(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "hs.log"
    configure_logging("info", "json", file=LogFile(str(path), max_bytes=2_000, keep=2))
    for number in range(100):
        structlog.get_logger("hs_stream").info("event", number=number)
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["hs.log", "hs.log.1", "hs.log.2"]
    assert all(file.stat().st_size <= 2_000 for file in files)
    newest = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert newest[-1]["number"] == 99


def test_a_file_that_cannot_be_written_is_a_mistake_in_the_settings(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"logging\.file: cannot write .*(File exists|Not a directory)"):
        configure_logging(file=LogFile(str(tmp_path / "file" / "hs.log")))


@pytest.mark.parametrize("form", ["console", "json"])
def test_tracebacks_show_no_variables(form: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "hs.log"
    configure_logging("info", form, file=LogFile(str(path)))
    words = ["a secret that is a", "variable"]
    try:
        int("not a number")
    except ValueError:
        structlog.get_logger("hs_stream").exception("failed", length=len(words))
    written = path.read_text(encoding="utf-8")
    assert "not a number" in written
    assert "Traceback" in written
    for place in (written, capsys.readouterr().err):
        assert "a secret" not in place


def test_single_loggers_have_levels_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "hs.log"
    levels = {"hs_stream.engine": "debug", "pymongo": "error", "hs_stream.store": "error"}
    configure_logging("info", "json", levels=levels, file=LogFile(str(path)))

    def say(word: str) -> None:
        logging.getLogger("hs_stream.engine.fold").debug("%s engine debug", word)
        logging.getLogger("hs_stream.store").warning("%s store warning", word)
        logging.getLogger("hs_stream.service").debug("%s service debug", word)
        structlog.get_logger("hs_stream.service").info(f"{word} service info")
        logging.getLogger("pymongo").warning("%s pymongo warning", word)

    say("first")
    configure_logging("info", "json", file=LogFile(str(path)))
    say("then")
    events = [json.loads(line)["event"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert events == [
        "first engine debug",
        "first service info",
        "then store warning",
        "then service info",
        "then pymongo warning",
    ]


def test_nonsense_of_http_clients_is_few_lines_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reaches the port sends it, without a token, and each was a line."""
    path = tmp_path / "hs.log"
    configure_logging("info", "json", file=LogFile(str(path)))
    logger = logging.getLogger("uvicorn.error")
    now = 0.0
    monkeypatch.setattr(logger.filters[0], "_clock", lambda: now)

    def lines() -> list[str]:
        return [json.loads(line)["event"] for line in path.read_text(encoding="utf-8").splitlines()]

    for _ in range(1000):
        logger.warning("Invalid HTTP request received.")
    assert lines() == ["Invalid HTTP request received."]
    for number in range(1000):
        logger.log(logging.WARNING, " ".join(("kind", str(number))))
    assert len(lines()) < 30
    logger.error("an error")
    logger.error("an error")
    assert lines()[-2:] == ["an error"] * 2
    now = 61.0
    logger.warning("Invalid HTTP request received.")
    assert lines()[-1] == "Invalid HTTP request received. (999 more since the last time)"
