"""A real room through mosquitto, hs-stream serve, MongoDB and mosquitto, against pandas and plain loops."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any

import pytest

from tests.occupancy import (
    DATA,
    FIELDS,
    ROOM,
    TOPIC,
    WORKFLOW,
    Contents,
    Row,
    assert_equal,
    disturb,
    expected,
    generate,
    read_database,
    read_real,
)

# --- MQTT out as 2.4 says ---


def fold(messages: list[tuple[str, int, bool, str]]) -> tuple[Contents, dict[str, dict[int, int]], int]:
    """What a subscriber that applies insert, revise and retract ends with; and how many repeats it dropped."""
    contents: Contents = {}
    revisions: dict[str, dict[int, int]] = {}
    repeats = 0
    for topic, qos, retained, payload in messages:
        if topic == "hs/status":
            assert payload in ("online", "offline")
            continue
        prefix, workflow, node, *plates = topic.split("/")
        assert (prefix, workflow, plates) == ("hs", "occupancy", [ROOM])
        assert qos == 1
        assert not retained
        change = json.loads(payload)
        assert list(change) == ["time", "value", "revision", "kind", "stream", "tool"]
        assert change["stream"] == f"{node}[room={ROOM}]"
        assert change["tool"].partition("@")[2] == "1.0.0"
        at, known = change["time"], revisions.setdefault(node, {})
        if change["revision"] <= known.get(at, -1):
            repeats += 1
            continue
        stream = contents.setdefault(node, {})
        assert change["kind"] in ("insert", "revise", "retract")
        assert (change["kind"] == "insert") == (at not in stream), (topic, change)
        known[at] = change["revision"]
        if change["kind"] == "retract":
            del stream[at]
        else:
            stream[at] = change["value"]
    return {node: dict(sorted(stream.items())) for node, stream in contents.items()}, revisions, repeats


# --- the two runs ---


class Run:
    """Publishes ``rows`` through a service of its own and checks what must hold of every run."""

    def __init__(self, parts: Any, mongo_url: str, rows: list[Row]) -> None:
        broker = parts.mosquitto()
        service = parts.service()
        service.configure(workflows=[WORKFLOW], broker=broker.url, store=mongo_url)
        service.start()
        subscriber = broker.listen("hs/#")
        messages = [(TOPIC, json.dumps(row).encode()) for row in rows]
        began = time.perf_counter()
        self.publishing = broker.publish(*messages)
        service.settle(len({row["ts"] for row in rows}), seconds=300)
        self.seconds = time.perf_counter() - began
        self.rate = len(rows) / self.seconds
        # The last days close when the silence of 10 s has proven that nothing more comes.
        self._wait_for_days(service, rows)
        service.settle(len({row["ts"] for row in rows}), seconds=300)
        self.metrics = service.metrics()
        self.heard = subscriber.finish()
        service.stop()
        self.verified = service.run("verify", "occupancy")
        self.contents, self.revisions = read_database(mongo_url)

    @staticmethod
    def _wait_for_days(service: Any, rows: list[Row]) -> None:
        last = max(row["ts"] for row in rows)
        deadline = time.monotonic() + 30
        while True:
            found = json.loads(service.ask(f"/api/streams/office_co2_day%5Broom={ROOM}%5D/instances?limit=1000"))
            times = [datetime.fromisoformat(row["time"]).timestamp() * 1000 for row in found["instances"]]
            if times and max(times) >= last:
                return
            assert time.monotonic() < deadline, "the last day does not close"
            time.sleep(0.1)

    def check(self, rows: list[Row]) -> None:
        """Against ``rows`` in order, each once."""
        assert self.contents["office"] == {row["ts"]: {name: row[name] for name in FIELDS} for row in rows}
        wanted = expected(rows)
        assert set(self.contents) == {"office", *wanted}
        for node, series in wanted.items():
            assert_equal(node, self.contents[node], series)
        code, out, errors = self.verified
        assert code == 0, (out, errors)
        assert "clean" in out
        published, revisions, repeats = fold(self.heard)
        assert published == {node: self.contents[node] for node in wanted}
        assert {node: self.revisions[node] for node in wanted} == {
            node: {at: known[at] for at in published[node]} for node, known in revisions.items()
        }
        assert repeats == 0, "nobody was killed, so nothing should come twice"
        assert not [name for name in self.metrics if name.startswith("hs_dead_letters_total{")]

    def report(self, title: str, count: int) -> None:
        results = sum(map(len, self.contents.values())) - len(self.contents["office"])
        print(
            f"\n{title}: {count} rows published in {self.publishing:.2f} s, settled after {self.seconds:.2f} s "
            f"({self.rate:.0f} rows/s), {results} results, {len(self.heard)} messages; "
            f"verify: {self.verified[1].strip()}"
        )


@pytest.fixture(scope="module", params=["generated", "real"])
def rows(request: pytest.FixtureRequest) -> list[Row]:
    """The readings in order, one per time."""
    if request.param == "generated":
        return generate()
    if not DATA.is_dir():
        pytest.skip("there is no folder ../shared/data/occupancy")
    found = read_real()
    assert len(found) == 20_560
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_rows_in_order(rows: list[Row], parts: Any, mongo_url: str) -> None:
    run = Run(parts, mongo_url, rows)
    run.report("in order", len(rows))
    run.check(rows)
    assert run.metrics['hs_readings_total{source="office"}'] == len(rows)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_random_order_with_duplicates_and_corrections(rows: list[Row], parts: Any, mongo_url: str) -> None:
    rows = rows[:6_000]  # what is in order is tried with all of them
    disturbed = disturb(rows)
    assert len(disturbed) == len(rows) + len(rows) * 5 // 100 + len(rows) // 100
    run = Run(parts, mongo_url, disturbed)
    run.report("random order", len(disturbed))
    run.check(rows)
    assert run.metrics['hs_readings_total{source="office"}'] == len(disturbed)
    assert run.metrics["hs_late_readings_total"] > 100  # how many depends on how many came at once
