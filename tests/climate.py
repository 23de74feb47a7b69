"""Monthly climate data: where it is, and what must come of it by pandas.

The files of ../shared/data/climate are those of HyperStream's tutorials (Census at School New Zealand). Their quirks:
``2000M01`` for a month, ``Date`` or ``DATE``, the columns ``TokyoMax`` and ``TokyoMin``, but also ``Canberramax``,
and ``-`` for a month in which the rain is not known.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pymongo import MongoClient

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "climate"

Contents = dict[str, dict[int, Any]]


def need_data() -> Path:
    """The folder; skips the test where it is not."""
    if not DATA.is_dir():
        pytest.skip("there is no folder ../shared/data/climate")
    return DATA


def by_ms(series: pd.Series) -> dict[int, Any]:
    """Values by milliseconds since the epoch, without missing ones."""
    there = series.dropna()
    times = (there.index - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(milliseconds=1)
    return dict(zip(times.tolist(), there.tolist(), strict=True))


def read_instances(url: str) -> tuple[Contents, dict[str, dict[int, int]]]:
    """Values and revisions by stream and time, as pymongo finds them."""
    contents: Contents = {}
    revisions: dict[str, dict[int, int]] = {}
    with MongoClient[dict[str, Any]](url, tz_aware=True) as client:
        database = client.get_default_database()
        for stream in database["streams"].find():
            meta = ",".join(f"{key}={value}" for key, value in sorted(stream["meta"].items()))
            name = f"{stream['name']}[{meta}]" if meta else stream["name"]
            contents[name], revisions[name] = {}, {}
            span = {"$gte": {"s": stream["_id"]}, "$lt": {"s": stream["_id"] + 1}}
            for document in database["instances"].find({"_id": span}).sort("_id", 1):
                at = round(document["_id"]["t"].timestamp() * 1000)
                contents[name][at] = document["v"]
                revisions[name][at] = document.get("r", 0)
    return contents, revisions
