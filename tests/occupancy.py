"""A real room, what its streams must hold, and what a database holds: for the runs with and without kills.

The rows are those of ../shared/data/occupancy where that folder is there, and always a smaller generated set of the
same shape, with two gaps and the days around a change of the clocks.

Quirks of the files: three parts of one series, not in the order of their names; the header has "sno" (a row number);
`date` stands in quotes in two files and bare in the third, is at whole seconds, and has no zone (taken as UTC here).
"""

from __future__ import annotations

import csv
import json
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pymongo import MongoClient

ROOT = Path(__file__).resolve().parents[1]
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


# --- the same rows, disturbed ---


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
