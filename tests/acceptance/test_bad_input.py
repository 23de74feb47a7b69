"""What a service that runs must survive, and what it must refuse to start with. All parts are real.

Every bad item is published between two good readings of the same source: the first must not be lost, the second must be
processed, and the item itself ends as a dead letter with its reason, counted, or has the effect that is specified.
"""

from __future__ import annotations

import itertools
import json
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

WORKFLOW = """\
workflow: guard
plates: {room: {max: 8}}
sources:
  climate: {mqtt: "home/{room}/climate", time: {field: ts, unit: ms}, fields: [temperature]}
  packed: {mqtt: "home/{room}/packed", codec: msgpack, time: {field: ts, unit: ms}}
  stamped: {mqtt: "home/{room}/stamped", time: {field: at, unit: iso}}
  power: {mqtt: "home/{room}/power", codec: number}
nodes:
  temperature: {tool: component@^1, from: climate, with: {key: temperature}}
  smooth: {tool: sliding_mean@^1, from: temperature, with: {width: 1s}}
publish:
  smooth: {}
"""
YEAR_2100 = 4_102_444_800_000
_steps = itertools.count()


class Guard:
    """The service of this module, and what it has stored."""

    def __init__(self, parts: Any, url: str) -> None:
        self.url = url
        self.broker = parts.mosquitto()
        # A retained message from before we ever subscribed: a value of unknown age.
        self.broker.publish(("home/kitchen/power", b"1200"), retain=True)
        self.broker.publish(("home/kitchen/climate", self.reading(self.next_time(), 19.0)), retain=True)
        self.service = parts.service()
        path = self.service.directory / "guard.yaml"
        path.write_text(WORKFLOW, encoding="utf-8")
        self.service.configure(workflows=[path], broker=self.broker.url, store=url)
        self.service.start()

    @staticmethod
    def next_time() -> int:
        """A new time in the past, more than the width of the window after all that were given before."""
        return time.time_ns() // 1_000_000 - 3_600_000 + next(_steps) * 2_000

    @staticmethod
    def reading(at: int, temperature: Any) -> bytes:
        return json.dumps({"ts": at, "temperature": temperature}).encode()

    def good(self) -> int:
        """Publish a good reading; its time."""
        at = self.next_time()
        self.broker.publish(("home/kitchen/climate", self.reading(at, 21.5)))
        return at

    def stored(self, node: str, room: str = "kitchen") -> dict[int, Any]:
        """The instances of a stream, by time, from MongoDB."""
        with MongoClient[dict[str, Any]](self.url, tz_aware=True) as client:
            database = client.get_default_database()
            stream = database["streams"].find_one({"name": node, "meta.room": room})
            if stream is None:
                return {}
            span = {"$gte": {"s": stream["_id"]}, "$lt": {"s": stream["_id"] + 1}}
            found = database["instances"].find({"_id": span})
            return {round(item["_id"]["t"].timestamp() * 1000): item["v"] for item in found}

    def letters(self, reason: str) -> list[dict[str, Any]]:
        """The dead letters with this reason, oldest first."""
        with MongoClient[dict[str, Any]](self.url, tz_aware=True) as client:
            return list(client.get_default_database()["dead_letters"].find({"reason": reason}).sort("_id", 1))

    def dead(self, source: str, reason: str) -> float:
        return float(self.service.metrics().get(f'hs_dead_letters_total{{reason="{reason}",source="{source}"}}', 0.0))


@pytest.fixture(scope="module")
def guard(shared_parts: Any, mongod_process: Any) -> Iterator[Guard]:
    """One service for all tests of this module; at the end it must stop in an orderly way, and verify clean."""
    name = f"test_{uuid.uuid4().hex}"
    url = mongod_process.database_url(name)
    made = Guard(shared_parts, url)
    yield made
    made.service.stop()
    code, out, errors = made.service.run("verify", "guard")
    with MongoClient[dict[str, Any]](mongod_process.url) as client:
        client.drop_database(name)
    assert code == 0, (out, errors)


@pytest.fixture
def between_good_readings(guard: Guard, waiting: Callable[..., Any]) -> Iterator[Guard]:
    """A good reading before and one after; both must become results."""
    before = guard.good()
    waiting(lambda: before in guard.stored("smooth"), "a good reading is a result")
    guard.service.settle(0)
    yield guard
    after = guard.good()
    waiting(lambda: {before, after} <= set(guard.stored("smooth")), "the good readings around it are results")
    assert guard.stored("smooth")[after] == 21.5


def deep(levels: int) -> bytes:
    return b'{"ts": 1700000000000, "temperature": ' + b"[" * levels + b"]" * levels + b"}"


def at(what: str) -> bytes:
    """A payload with this text as its time."""
    return b'{"ts": %s, "temperature": 21.5}' % what.encode()


DEAD = {
    "not JSON": ("climate", b"{temperature: 21", "json"),
    "nothing at all": ("climate", b"", "json"),
    "a text instead of an object": ("climate", b'"21.5"', "type"),
    "a number instead of an object": ("climate", b"21.5", "type"),
    "an object without its fields": ("climate", b'{"ts": 1700000000000, "humidity": 40}', "fields_missing"),
    "no time": ("climate", b'{"temperature": 21.5}', "time_missing"),
    "time is null": ("climate", at("null"), "time_invalid"),
    "time is a truth value": ("climate", at("true"), "time_invalid"),
    "time is a word": ("climate", at('"yesterday"'), "time_invalid"),
    "time is an object": ("climate", at("{}"), "time_invalid"),
    "time is absurd": ("climate", at("1e300"), "time_invalid"),
    "time is in the year -5000": ("climate", at("-220000000000000"), "time_invalid"),
    "time without a zone": ("stamped", b'{"at": "2024-01-01T00:00:00", "x": 1}', "time_invalid"),
    "time is a 30th of February": ("stamped", b'{"at": "2024-02-30T00:00:00Z", "x": 1}', "time_invalid"),
    "1970": ("climate", at("86400000"), "before_earliest"),
    "0": ("climate", at("0"), "before_earliest"),
    "2100": ("climate", at(str(YEAR_2100)), "future"),
    "NaN in JSON": ("climate", b'{"ts": 1700000000000, "temperature": NaN}', "json"),
    "Infinity in JSON": ("climate", b'{"ts": 1700000000000, "temperature": -Infinity}', "json"),
    "a number beyond floats": ("climate", b'{"ts": 1700000000000, "temperature": 1e999}', "not_finite"),
    "NaN in MessagePack": (
        "packed",
        b"\x82\xa2ts\xcf\x00\x00\x01\x8b\xcf\xe5\x68\x00\xa1x\xcb\x7f\xf8" + bytes(6),
        "not_finite",
    ),
    "Infinity as a bare number": ("power", b"-inf", "not_finite"),
    "nan as a bare number": ("power", b"NaN", "not_finite"),
    "an integer beyond 64 bits": ("climate", b'{"ts": 1700000000000, "temperature": 98765432109876543210}', "value"),
    "5 MB": ("climate", b'{"ts": 1700000000000, "temperature": "' + b"x" * 5_000_000 + b'"}', "too_large"),
    "1,000 deep": ("climate", deep(1_000), "depth"),
    "100,000 deep": ("climate", deep(100_000), "depth"),
    "invalid UTF-8": ("climate", b'{"ts": 1700000000000, "temperature": "\xff\xfe"}', "encoding"),
    "a lone surrogate": ("climate", b'{"ts": 1700000000000, "temperature": "\\ud800"}', "json"),
    "a NUL in a key": ("climate", b'{"ts": 1700000000000, "temperature": {"a\\u0000b": 1}}', "value"),
    "not MessagePack": ("packed", b"\xc1", "msgpack"),
    "no number": ("power", b"on", "number"),
}


@pytest.mark.parametrize("item", DEAD)
def test_a_dead_letter_with_its_reason(item: str, between_good_readings: Guard, waiting: Callable[..., Any]) -> None:
    guard = between_good_readings
    source, payload, reason = DEAD[item]
    known, counted = len(guard.letters(reason)), guard.dead(source, reason)
    topic = f"home/kitchen/{source}"
    raw = guard.stored(source)
    guard.broker.publish((topic, payload))
    waiting(lambda: len(guard.letters(reason)) > known, f"a dead letter with reason {reason}")
    letters = guard.letters(reason)
    assert len(letters) == known + 1
    letter = letters[-1]
    assert letter["source"] == source
    assert len(letter["message"]) > 10
    assert abs(letter["time"].timestamp() - time.time()) < 60
    assert letter["payload"] == payload[:65_536]
    assert letter["topic"] == topic
    assert guard.dead(source, reason) == counted + 1
    assert set(guard.stored(source)) >= set(raw)
    assert 1_700_000_000_000 not in guard.stored(source)


@pytest.mark.parametrize("room", ["", " ", "a=b", "x,y", "[0]", "r" * 200])
def test_a_plate_value_that_no_plate_may_hold(
    room: str, between_good_readings: Guard, waiting: Callable[..., Any]
) -> None:
    guard = between_good_readings
    known, counted = len(guard.letters("plate_value")), guard.dead("climate", "plate_value")
    guard.broker.publish((f"home/{room}/climate", guard.reading(guard.next_time(), 1.0)))
    waiting(lambda: len(guard.letters("plate_value")) > known, "a dead letter")
    letter = guard.letters("plate_value")[-1]
    assert letter["topic"] == f"home/{room}/climate"
    assert "room" in letter["message"]
    assert guard.dead("climate", "plate_value") == counted + 1


def test_a_hostile_plate_value_is_only_a_name(between_good_readings: Guard, waiting: Callable[..., Any]) -> None:
    guard = between_good_readings
    room = """'; drop {"$gt": ""} <b>&amp;../..%2f"""
    topic = room.replace("/", "%")
    moment = guard.next_time()
    guard.broker.publish((f"home/{topic}/climate", guard.reading(moment, 3.5)))
    waiting(lambda: guard.stored("smooth", topic), "it is a room like every other")
    assert guard.stored("smooth", topic) == {moment: 3.5}
    streams = json.loads(guard.service.ask("/api/streams?name=smooth"))
    assert f"smooth[room={topic}]" in [stream["stream"] for stream in streams["streams"]]
    assert "; drop" not in guard.service.ask("/metrics")


def test_more_plate_values_than_allowed(between_good_readings: Guard, waiting: Callable[..., Any]) -> None:
    guard = between_good_readings
    guard.broker.publish(
        *[(f"home/extra{index}/climate", guard.reading(guard.next_time(), 5.0)) for index in range(20)]
    )
    waiting(lambda: len(guard.letters("plate_full")) >= 12, "the plate is full")
    letters = guard.letters("plate_full")
    assert "8" in letters[0]["message"]
    assert guard.dead("climate", "plate_full") == len(letters)
    with MongoClient[dict[str, Any]](guard.url) as client:
        rooms = client.get_default_database()["streams"].distinct("meta.room")
    assert len(rooms) == 8
    assert len({letter["topic"] for letter in letters} | {f"home/{room}/climate" for room in rooms}) >= 20


def test_a_retained_repeat(between_good_readings: Guard) -> None:
    """What was retained before we came: with a time of its own it is a reading, without one it is a dead letter."""
    guard = between_good_readings
    [letter] = guard.letters("retained")
    assert (letter["source"], letter["topic"], letter["payload"]) == ("power", "home/kitchen/power", b"1200")
    assert guard.dead("power", "retained") == 1
    assert 1200 not in guard.stored("power").values()
    assert 19.0 in guard.stored("smooth").values()


def test_a_duplicate_changes_nothing(between_good_readings: Guard, waiting: Callable[..., Any]) -> None:
    guard = between_good_readings
    listener = guard.broker.listen("hs/guard/smooth/kitchen")
    message = ("home/kitchen/climate", guard.reading(moment := guard.next_time(), 22.5))
    before = guard.service.metrics()
    for _ in range(3):
        guard.broker.publish(message)
        time.sleep(0.1)
    name = 'hs_readings_total{source="climate"}'
    waiting(lambda: guard.service.metrics()[name] == before[name] + 3, "all three are in")
    waiting(lambda: moment in guard.stored("smooth"), "the first is a result")
    guard.service.settle(0)
    heard = [json.loads(payload) for *_, payload in listener.finish()]
    assert [(change["time"], change["value"], change["revision"]) for change in heard] == [(moment, 22.5, 0)]
    written = 'hs_instances_written_total{kind="raw"}'
    assert guard.service.metrics()[written] == before[written] + 1


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one after the other"])
def test_two_values_for_one_millisecond(
    together: bool, between_good_readings: Guard, waiting: Callable[..., Any]
) -> None:
    """The later one wins; whoever has heard the earlier one hears a revision."""
    guard = between_good_readings
    listener = guard.broker.listen("hs/guard/smooth/kitchen")
    moment = guard.next_time()
    first, second = guard.reading(moment, 10.0), guard.reading(moment, 20.0)
    if together:
        guard.broker.publish(("home/kitchen/climate", b"[" + first + b"," + second + b"]"))
    else:
        guard.broker.publish(("home/kitchen/climate", first))
        waiting(lambda: guard.stored("smooth").get(moment) == 10.0, "the first is a result")
        guard.broker.publish(("home/kitchen/climate", second))
    waiting(lambda: guard.stored("smooth").get(moment) == 20.0, "the second wins")
    assert guard.stored("climate")[moment] == {"temperature": 20.0}
    guard.service.settle(0)
    heard = [json.loads(payload) for *_, payload in listener.finish()]
    changes = [(change["kind"], change["value"], change["revision"]) for change in heard]
    assert changes == ([] if together else [("insert", 10.0, 0)]) + (
        [("insert", 20.0, 0)] if together else [("revise", 20.0, 1)]
    )


def test_a_batch_with_a_bad_element_keeps_the_good_ones(
    between_good_readings: Guard, waiting: Callable[..., Any]
) -> None:
    guard = between_good_readings
    known = len(guard.letters("time_missing"))
    one, two = guard.next_time(), guard.next_time()
    batch = [{"ts": one, "temperature": 1.5}, {"temperature": 2.5}, {"ts": two, "temperature": 3.5}]
    guard.broker.publish(("home/kitchen/climate", json.dumps(batch).encode()))
    waiting(lambda: {one, two} <= set(guard.stored("smooth")), "the good elements are results")
    letters = guard.letters("time_missing")
    assert len(letters) == known + 1
    assert "element 1" in letters[-1]["message"]


def test_a_value_of_the_wrong_type_fails_only_what_reads_it(guard: Guard, waiting: Callable[..., Any]) -> None:
    """It is stored as it came; the mean over it is failed and says so, and is right again once it is corrected."""
    moment = guard.next_time()
    guard.broker.publish(("home/kitchen/climate", guard.reading(moment, "warm")))
    after = guard.good()
    waiting(lambda: guard.stored("smooth").get(after) == 21.5, "the next good reading is a result")
    assert guard.stored("temperature")[moment] == "warm"
    assert moment not in guard.stored("smooth")
    shown = json.loads(guard.service.ask("/api/streams/smooth%5Broom=kitchen%5D"))
    assert shown["failed"]
    assert "'warm'" in shown["error"]
    assert guard.service.metrics()['hs_failed_steps_total{tool="sliding_mean"}'] >= 1
    guard.broker.publish(("home/kitchen/climate", guard.reading(moment, 23.0)))
    waiting(lambda: guard.stored("smooth").get(moment) == 23.0, "the correction is a result")
    assert json.loads(guard.service.ask("/api/streams/smooth%5Broom=kitchen%5D"))["failed"] == []


# --- what it refuses to start with ---

GOOD = """workflow: small
plates: {room: {}, house: {}}
sources:
  climate: {mqtt: "home/{room}/climate"}
  meter: {mqtt: "meter/{house}/power"}
nodes:
  level: {tool: component@^1, from: climate, with: {key: level}}
  smooth: {tool: sliding_mean@^1, from: level, with: {width: 1m}}
"""


def refusal(service: Any) -> tuple[int, str]:
    """Exit code and the one line that ``serve`` says about it."""
    code, _, errors = service.run("serve", seconds=30)
    lines = [line for line in errors.splitlines() if line.startswith("hs-stream:")]
    assert "Traceback" not in errors
    assert len(lines) == 1, errors
    return code, lines[0]


WRONG_FILES = {
    "unknown tool": (
        "sliding_mean@^1",
        "sliding_men@^1",
        ["guard.yaml:8:", "sliding_men", "did you mean sliding_mean"],
    ),
    "version": ("sliding_mean@^1", "sliding_mean@^7", ["guard.yaml:8:", "sliding_mean", "^7", "1.0.0"]),
    "cycle": ("from: climate", "from: smooth", ["guard.yaml:", "level <- smooth <- level"]),
    "plates": (
        "component@^1, from: climate, with: {key: level}",
        "aligned_merge@^1, from: [climate, meter]",
        ["guard.yaml:7:", "level", "room", "house", "plate"],
    ),
    "unknown input": ("from: climate", "from: climat", ["guard.yaml:7:", "climat", "did you mean climate"]),
    "bad parameter": ("width: 1m", "width: soon", ["guard.yaml:8:", "soon"]),
    "not YAML": ("plates: {room", "plates: {{room", ["guard.yaml:"]),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_a_wrong_workflow_is_exit_2(case: str, parts: Any) -> None:
    old, new, words = WRONG_FILES[case]
    service = parts.service()
    (service.directory / "guard.yaml").write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    service.configure(workflows=[Path("guard.yaml")], broker="mqtt://127.0.0.1:1", store="memory://")
    code, line = refusal(service)
    assert code == 2
    assert [word for word in words if word not in line] == [], line


def test_a_port_in_use_is_exit_2(parts: Any) -> None:
    service = parts.service()
    (service.directory / "guard.yaml").write_text(GOOD, encoding="utf-8")
    service.configure(workflows=[Path("guard.yaml")], broker="mqtt://127.0.0.1:1", store="memory://")
    with socket.create_server(("127.0.0.1", service.port)):
        code, line = refusal(service)
    assert code == 2
    assert f"{service.port}" in line
    assert "http.port" in line


def test_a_wrong_password_for_the_broker_is_exit_3(parts: Any) -> None:
    broker = parts.mosquitto(password="right")
    service = parts.service()
    (service.directory / "guard.yaml").write_text(GOOD, encoding="utf-8")
    (service.directory / "password").write_text("wrong-one\n", encoding="utf-8")
    more = 'username = "hs"\npassword_file = "password"\n'
    service.configure(workflows=[Path("guard.yaml")], broker=broker.url, store="memory://", more=more)
    code, line = refusal(service)
    assert code == 3
    assert "mqtt.password_file" in line
    assert "wrong-one" not in line


def test_a_wrong_password_for_mongodb_is_exit_3(parts: Any, mongo_url: str) -> None:
    service = parts.service()
    (service.directory / "guard.yaml").write_text(GOOD, encoding="utf-8")
    with MongoClient[dict[str, Any]](mongo_url) as client:
        database = client.get_default_database()
        database.command("createUser", "hs", pwd="right", roles=["readWrite"])
        try:
            store = mongo_url.replace("mongodb://", "mongodb://hs:wrong-one@")
            service.configure(workflows=[Path("guard.yaml")], broker="mqtt://127.0.0.1:1", store=store)
            code, line = refusal(service)
        finally:
            database.command("dropUser", "hs")
    assert code == 3
    assert "password" in line
    assert "store.url" in line
    assert "wrong-one" not in line


def test_an_unreachable_mongodb_is_exit_3(parts: Any, free_ports: Callable[[], int]) -> None:
    service = parts.service()
    (service.directory / "guard.yaml").write_text(GOOD, encoding="utf-8")
    store = f"mongodb://hs:secret@127.0.0.1:{free_ports()}/x?serverSelectionTimeoutMS=500"
    service.configure(workflows=[Path("guard.yaml")], broker="mqtt://127.0.0.1:1", store=store)
    code, line = refusal(service)
    assert code == 3
    assert "store.url" in line
    assert "secret" not in line
