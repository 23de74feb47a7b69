"""What the log and the session say of dead letters: soon, plainly, and bounded."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from typing import Any
from urllib.parse import quote

import aiomqtt
import pytest
import structlog.testing
from typer.testing import CliRunner

from hs_stream.cli import app
from hs_stream.engine.ports import DeadLetter
from hs_stream.plugins import default_registry
from hs_stream.service.accounts import FEW, LINES, MAX_REASONS, MAX_SOURCES, OTHER, SUMMED, Accounts
from hs_stream.service.embedded.broker import EmbeddedBroker
from hs_stream.service.settings import Settings
from hs_stream.service.silence import Witness, waits_for
from hs_stream.service.workflows.file import parse_workflow
from hs_stream.service.workflows.loading import checks_of
from tests.service.conftest import WORKFLOW


def client_of(broker: EmbeddedBroker) -> aiomqtt.Client:
    return aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5)


def letter(source: str = "climate", reason: str = "json", message: str = "broken", topic: str = "a/b") -> DeadLetter:
    return DeadLetter(1_700_000_000_000, source, reason, message, topic, b"x" * 100)


@pytest.fixture
def log() -> Any:
    with structlog.testing.capture_logs() as lines:
        yield lines


class Book(Accounts):
    """With a clock that is turned by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0
        super().__init__(lambda: self.seconds)


def test_the_first_of_each_reason_is_said_and_the_rest_is_summed_up(log: Any) -> None:
    book = Book()
    book.readings("climate", 5)
    for _ in range(300):
        book.dead_letters([letter(reason="time_invalid", message="no offset")])
    book.dead_letters([letter(), letter(message="last")])
    assert [line["event"] for line in log] == [
        "first dead letter of source 'climate'; hs-stream dead-letters lists them"
    ] * 2
    assert [line["reason"] for line in log] == ["time_invalid", "json"]
    assert (log[0]["says"], log[0]["topic"], log[0]["log_level"]) == ("no offset", "a/b", "warning")
    book.seconds = 300.0
    book.summarize()
    assert log[2:] == [
        {
            "event": "source 'climate': 300 dead letters in the last 5m (time_invalid 299, json 1); "
            "hs-stream dead-letters lists them",
            "log_level": "warning",
            "topic": "a/b",
            "newest": "last",
        }
    ]
    book.dead_letters([letter()])
    book.seconds = 600.0
    book.summarize()
    assert log[3]["event"].startswith(
        "nothing of source 'climate' could be used in the last 5m: 1 dead letters (json 1)"
    )
    book.seconds = 900.0
    book.summarize()
    assert len(log) == 4


def test_a_source_of_which_nothing_can_be_used_is_said_plainly(log: Any) -> None:
    book = Book()
    book.readings("other", 1)
    for source in ("climate", "other"):
        book.dead_letters([letter(source)] * 2 * FEW)
    told = [line["event"] for line in log if line["event"].startswith("nothing")]
    assert "".join(told) == (
        f"nothing of source 'climate' could be used: all of its first {FEW} were dead letters (json {FEW}); hs-stream "
        "dead-letters lists them"
    )


def test_lines_and_memory_are_bounded_whatever_comes(log: Any) -> None:
    book = Book()
    for number in range(5 * MAX_SOURCES):
        book.dead_letters([letter(f"source{number}")])
    for number in range(5 * MAX_REASONS):
        book.dead_letters([letter("source0", f"reason{number}", "long " * 10_000, "t" * 10_000)])
    assert len(log) == LINES
    book.summarize()
    assert len(log) == LINES + SUMMED + 1
    assert "other sources" in log[-1]["event"]
    documents = book.documents()
    assert len(documents) <= MAX_SOURCES + 1
    assert len(documents["source0"]["dead_letters"]) <= MAX_REASONS + 1
    assert sum(documents["source0"]["dead_letters"].values()) == 1 + 5 * MAX_REASONS
    assert documents[OTHER]["dead_letters"]["json"] == 4 * MAX_SOURCES
    assert len(json.dumps(documents)) < 1000 * MAX_SOURCES


def test_what_a_device_sends_is_never_raw_in_the_log(log: Any) -> None:
    book = Book()
    book.dead_letters([letter("a\x1b[31m", "json", "the key '\x1b[2J\n2026 [error] all is lost'", "x\n/\u202e")])
    book.summarize()
    assert log
    assert all(text.isprintable() for line in log for text in map(str, line.values()))


def test_what_a_stream_waits_for_depends_on_who_can_say_it() -> None:
    check = checks_of(Settings())
    workflow = parse_workflow(WORKFLOW, default_registry(), "w.yaml", check)
    says = "workflow comfort declares it; no reading on home/{house}/{room}/climate (source climate) yet"

    def said(witness: Witness | None) -> str:
        return waits_for([workflow], "smooth", set(), witness)

    assert said(None) == says
    assert said(Witness("T", {}, running=False)) == f"{says}: no service runs on this store now, hs-stream serve is one"
    away = said(Witness("T", {}, "no MQTT broker answers at x"))
    assert away == f"{says}: the service is not connected to the broker (no MQTT broker answers at x)"
    ignored = said(Witness("T", {"climate": {"readings": 0, "dead_letters": {}, "ignored": 3}}))
    assert ignored == f"{says}: 3 messages were ignored, since its codec finds no reading in them: does its topic fit?"
    assert waits_for([workflow], "smooth", {"climate"}, None).endswith(
        "no result yet of the readings of climate, hs-stream compute comfort --from -1d --to now "
        "computes the last day of it"
    )
    assert waits_for([workflow], "other", set(), None) == ""


async def test_dead_letters_are_in_the_log_and_in_the_session(site: Any, broker: EmbeddedBroker) -> None:
    site.write(broker.url)
    service = await site.start("serve")
    await service.until("/readyz", lambda answer: isinstance(answer, dict) and answer.get("ready") is True, 60)
    async with client_of(broker) as client:
        for _ in range(FEW):
            await client.publish("home/1/kitchen/climate", "{bad", qos=1)

    told = {"json": FEW}
    await service.until("/api/sessions", lambda answer: came_of(answer, "climate").get("dead_letters") == told)
    service.process.send_signal(signal.SIGTERM)
    code, errors = await service.end()
    assert code == 0
    assert errors.count("first dead letter of source 'climate'") == 1
    assert errors.count("nothing of source 'climate' could be used: all of its first 10 were dead letters") == 1
    assert "topic=home/1/kitchen/climate" in errors


async def test_who_asks_in_vain_hears_what_came_instead(in_site: Any, broker: EmbeddedBroker) -> None:
    site = in_site
    site.write(broker.url)

    def refused(*arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == 2
        return result.stderr

    service = await site.start("serve")
    await service.until("/readyz", lambda answer: isinstance(answer, dict) and answer.get("ready") is True, 60)
    waits = "workflow comfort declares it; no reading on home/{house}/{room}/climate"
    said = service.ask("/api/streams/climate")
    assert said["hint"].startswith(f"{waits} yet: nothing has come on it since the service began at ")
    assert "mosquitto_sub -v -t 'home/+/+/climate'" in said["hint"]
    async with client_of(broker) as client:
        for payload in ["{bad", "{bad", json.dumps({"temperature": 3})]:
            await client.publish("home/1/kitchen/climate", payload, qos=1)
        came = "3 dead letters since "
        said = await service.until("/api/streams/climate", lambda answer: came in answer["hint"])
        assert "(json 2, time_missing 1), the newest: \"the object has no 'ts'" in said["hint"]
        assert "hs-stream dead-letters lists them" in said["hint"]
        assert service.ask("/api/streams?name=smooth") == {
            "streams": [],
            "total": 0,
            "next": None,
            "hint": said["hint"].replace("/climate yet", "/climate (source climate) yet"),
        }
        assert "hint" not in service.ask("/api/streams?name=nothing")
        await service.until(
            "/api/sessions", lambda answer: sum(came_of(answer, "climate").get("dead_letters", {}).values()) == 3
        )
        text = await asyncio.to_thread(refused, "query", "smooth[house=1,room=kitchen]")
        assert f"{waits} (source climate) yet: {came}" in text
        assert "(json 2, time_missing 1)" in text
        # A stream that is there and never had a value is no suggestion.
        good = json.dumps({"ts": time.time_ns() // 1_000_000, "humidity": 3})
        await client.publish("home/1/kitchen/climate", good, qos=1)
        await service.until("/api/streams?name=temperature", lambda answer: answer["total"] == 1)
    for name in ("temperature[house=1,room=bath]", "temperatur"):
        assert "[house=1,room=kitchen]" not in service.ask(f"/api/streams/{quote(name)}")["hint"]
        assert "[house=1,room=kitchen]" not in await asyncio.to_thread(refused, "query", name)
    text = await asyncio.to_thread(refused, "query", "climate[house=1,room=bath]")
    assert f"(there is climate[house=1,room=kitchen]; {came}" in text
    result = await asyncio.to_thread(CliRunner().invoke, app, ["query", "temperature[house=1,room=kitchen]"])
    assert result.exit_code == 0
    assert result.stderr.startswith(("no result: what there is of climate gave none", "workflow comfort declares it"))
    service.process.send_signal(signal.SIGTERM)
    assert (await service.end())[0] == 0
    text = await asyncio.to_thread(refused, "query", "smoth")
    assert "did you mean" not in text


def came_of(answer: Any, source: str) -> Any:
    return answer["sessions"][0]["sources"].get(source, {})
