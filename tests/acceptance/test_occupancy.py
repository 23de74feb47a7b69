"""A real room through real parts: mosquitto -> hs-stream serve -> MongoDB -> mosquitto, against pandas and plain loops.

The rows are those of ../shared/data/occupancy where that folder is there, and always a smaller generated set of the
same shape, with two gaps and the days around a change of the clocks.

Quirks of the files: three parts of one series, not in the order of their names; the header has "sno" (a row number);
`date` stands in quotes in two files and bare in the third, is at whole seconds, and has no zone (taken as UTC here).
"""

from __future__ import annotations

import csv
import json
import random
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pymongo import MongoClient

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data" / "occupancy"
WORKFLOW = ROOT / "config" / "workflows" / "occupancy.yaml"
FIELDS = ("Temperature", "Humidity", "Light", "CO2", "HumidityRatio", "Occupancy")
NODES = {
    "Temperature": "office_temperature",
    "Humidity": "office_humidity",
    "Light": "office_light",
    "CO2": "office_co2",
    "HumidityRatio": "office_humidity_ratio",
    "Occupancy": "office_occupancy",
}
ROOM = "lab"
TOPIC = f"sensors/{ROOM}/office"
ZONE = "Europe/Brussels"

Row = dict[str, Any]
Contents = dict[str, dict[int, Any]]


def read_real() -> list[Row]:
    rows = []
    for path in sorted(DATA.glob("*.txt")):
        with path.open(encoding="utf-8", newline="") as lines:
            for line in csv.DictReader(lines):
                moment = datetime.fromisoformat(line["date"]).replace(tzinfo=UTC)
                rows.append(
                    {"ts": round(moment.timestamp() * 1000)} | {name: json.loads(line[name]) for name in FIELDS}
                )
    rows.sort(key=lambda row: int(row["ts"]))
    return rows


def generate() -> list[Row]:
    """Three days of about one row a minute around the night of 2015-03-29, which has 23 hours in Brussels."""
    chance = random.Random(29)
    at = round(datetime(2015, 3, 28, 7, 51, tzinfo=UTC).timestamp())
    rows = []
    co2 = 600.0
    for index in range(3_000):
        at += {1_000: 7 * 3600, 2_000: 29 * 3600}.get(index, chance.choice((59, 60, 60, 61)))
        there = int(at // 3600 % 24 in range(7, 18) and chance.random() < 0.9)
        co2 = max(400.0, co2 + (7 if there else -6) * chance.random())
        rows.append(
            {
                "ts": at * 1000,
                "Temperature": round(20 + there + chance.random(), 3),
                "Humidity": round(25 + 3 * chance.random(), 4),
                "Light": chance.choice((426, 429.5, 433.0)) if there else 0,
                "CO2": round(co2, 2),
                "HumidityRatio": round(0.004 + chance.random() / 1000, 15),
                "Occupancy": there,
            }
        )
    # A reading at local midnight belongs to the day that ends there.
    midnight = round(datetime(2015, 3, 28, 23, tzinfo=UTC).timestamp() * 1000)
    if all(row["ts"] != midnight for row in rows):
        rows.append({**rows[900], "ts": midnight, "Temperature": 35.5})
    return sorted(rows, key=lambda row: int(row["ts"]))


def expected(rows: list[Row]) -> dict[str, pd.Series]:
    """Every derived stream over all rows, by pandas and plain loops; the index is in ms."""
    frame = pd.DataFrame(rows)
    stamps = pd.to_datetime(frame.pop("ts"), unit="ms", utc=True)
    frame.index = pd.DatetimeIndex(stamps).as_unit("ns")
    result: dict[str, pd.Series] = {}
    for field, node in NODES.items():
        result[node] = frame[field]
        result[f"{node}_15m"] = frame[field].rolling("15min", closed="right").mean()
    # (midnight, midnight]: what falls on a midnight belongs to the day before.
    days = (frame.index - pd.Timedelta(milliseconds=1)).tz_convert(ZONE).normalize()
    for field in ("Temperature", "CO2"):
        daily = frame[field].groupby(days).mean()
        daily.index = (daily.index + pd.DateOffset(days=1)).tz_convert("UTC").as_unit("ns")
        result[f"{NODES[field]}_day"] = daily
    on, states = False, []
    for level in frame["CO2"]:
        on = (level >= 900) if on else (level > 1000)
        states.append(on)
    result["office_air_bad"] = pd.Series(states, index=frame.index)
    light = frame[["Light"]].rename_axis("time").reset_index()
    occupancy = frame[["Occupancy"]].rename_axis("time").reset_index()
    joined = pd.merge_asof(light, occupancy, on="time").set_index("time")
    result["office_light_occupancy"] = pd.Series(
        [{"light": a, "occupancy": b} for a, b in zip(joined["Light"], joined["Occupancy"], strict=True)],
        index=joined.index,
    )
    for series in result.values():
        series.index = (series.index - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(milliseconds=1)
    return result


def assert_equal(node: str, found: dict[int, Any], wanted: pd.Series) -> None:
    """All rows: the same times, and the same values to 1e-9."""
    assert list(found) == wanted.index.tolist(), f"{node}: other times than pandas"
    values = list(found.values())
    if node == "office_light_occupancy":
        assert values == wanted.tolist()
    elif node == "office_air_bad":
        assert all(type(value) is bool for value in values)
        assert values == wanted.tolist()
    else:
        numbers = wanted.to_numpy(float)
        # pandas adds and subtracts as the window slides, so where all is 0 it may be left with 1e-14.
        np.testing.assert_allclose(
            np.array(values, float), numbers, rtol=1e-9, atol=1e-12 * numbers.max(), err_msg=node
        )


# --- MongoDB as 2.6 of the interfaces says, read with nothing but pymongo ---


def read_database(url: str) -> tuple[Contents, dict[str, dict[int, int]]]:
    """Values and revisions by node and time, in the order of time."""
    contents: Contents = {}
    revisions: dict[str, dict[int, int]] = {}
    with MongoClient[dict[str, Any]](url, tz_aware=True) as client:
        database = client.get_default_database()
        options = database["instances"].options()
        assert options["clusteredIndex"]["key"] == {"_id": 1}
        for stream in database["streams"].find():
            assert stream["meta"] == {"room": ROOM}
            assert stream["workflow"] == "occupancy"
            name = stream["name"]
            assert stream["kind"] == ("raw" if name == "office" else "derived")
            assert (stream["tool"] is None) == (name == "office")
            if name.endswith("_15m"):
                assert stream["tool"]["name"] == "sliding_mean"
                assert stream["tool"]["version"] == "1.0.0"
            span = {"$gte": {"s": stream["_id"]}, "$lt": {"s": stream["_id"] + 1}}
            found = database["instances"].find({"_id": span}).sort("_id", 1)
            contents[name], revisions[name] = {}, {}
            for document in found:
                assert set(document) <= {"_id", "v", "r"}
                assert list(document["_id"]) == ["s", "t"]
                at = round(document["_id"]["t"].timestamp() * 1000)
                contents[name][at] = document["v"]
                revisions[name][at] = document.get("r", 0)
    return contents, revisions


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


def disturb(rows: list[Row]) -> list[Row]:
    """In random order, with 5 % of the rows sent twice and 1 % sent with wrong values before the right ones."""
    chance = random.Random(5)
    indices = range(len(rows))
    twice = set(chance.sample(indices, len(rows) * 5 // 100))
    wrong = set(chance.sample(indices, len(rows) // 100))
    placed: list[tuple[float, Row]] = []
    for index, row in enumerate(rows):
        versions = [row, row] if index in twice else [row]
        if index in wrong:
            bad = {name: value if name == "ts" else value * 1.5 + 1 for name, value in row.items()}
            versions.insert(0, bad)
        # Publish order decides, so the versions of one row keep theirs.
        placed += zip(sorted(chance.random() for _ in versions), versions, strict=True)
    return [row for _, row in sorted(placed, key=lambda pair: pair[0])]


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
        service.settle(len({row["ts"] for row in rows}))
        self.seconds = time.perf_counter() - began
        self.rate = len(rows) / self.seconds
        # The last days close when the silence of 10 s has proven that nothing more comes.
        self._wait_for_days(service, rows)
        service.settle(len({row["ts"] for row in rows}))
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
@pytest.mark.timeout(180)
def test_all_rows_in_order(rows: list[Row], parts: Any, mongo_url: str) -> None:
    run = Run(parts, mongo_url, rows)
    run.report("in order", len(rows))
    run.check(rows)
    assert run.metrics['hs_readings_total{source="office"}'] == len(rows)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_random_order_with_duplicates_and_corrections(rows: list[Row], parts: Any, mongo_url: str) -> None:
    disturbed = disturb(rows)
    assert len(disturbed) == len(rows) + len(rows) * 5 // 100 + len(rows) // 100
    run = Run(parts, mongo_url, disturbed)
    run.report("random order", len(disturbed))
    run.check(rows)
    assert run.metrics['hs_readings_total{source="office"}'] == len(disturbed)
    assert run.metrics["hs_late_readings_total"] > len(rows) / 2
