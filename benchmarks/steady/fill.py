"""Instances that were there before: a database as the service would have left it after readings of 1 Hz.

The rooms are registered by the service itself (one reading each), then it is stopped, and older instances are put
behind its back into the documented layout (``instances``: ``{_id: {s, t}, v}``). They are what the workflow computes:

* one reading per second that ends ten seconds before the first real one, so that no window holds two of them: the mean
  of the last second is the reading itself;
* never above 24 degrees, so that the threshold is off at each of them;
* a snapshot of the threshold's state after each 512th of them, as the service writes them.

A stream's coverage reaches back for ever from its first reading, so it holds for them too. ``hs-stream verify`` agrees.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import bson
import numpy as np
from bson.datetime_ms import DatetimeMS, _datetime_to_millis
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.write_concern import WriteConcern

from hs_stream.engine.fold import SNAPSHOT_EVERY

__all__ = ["fill"]

_BATCH: Final = 10_000
_STEP_MS: Final = 1_000
_GAP: Final = timedelta(seconds=10)
_CLIMATE: Final = {"temperature": 20.25, "humidity": 40.5}
_VALUES: Final[dict[str, Any]] = {"climate": _CLIMATE, "temperature": 20.25, "smooth": 20.25, "hot": False}


def fill(database: Database[dict[str, Any]], instances: int) -> int:
    """Put about ``instances`` into ``database``, the same number into each stream; returns how many."""
    streams = list(database["streams"].find({"name": {"$in": list(_VALUES)}}))
    each = instances // len(streams)
    target = database["instances"].with_options(write_concern=WriteConcern(w=1, j=False))
    for stream in streams:
        last = _datetime_to_millis(stream["upper"] - _GAP)
        for first in range(0, each, _BATCH):
            ages = np.arange(each - first, max(each - first - _BATCH, 0), -1)
            _insert(target, int(stream["_id"]), last - (ages - 1) * _STEP_MS, _VALUES[stream["name"]])
        if stream["name"] == "hot":
            states = [
                {"_id": {"s": stream["_id"], "t": DatetimeMS(last - age * _STEP_MS)}, "v": False}
                for age in range(0, each, SNAPSHOT_EVERY)
            ]
            database["snapshots"].insert_many(states)
    database.client.admin.command("fsync")
    return each * len(streams)


def _insert(target: Collection[dict[str, Any]], stream: int, times: np.ndarray[Any, Any], value: Any) -> None:
    """Documents of one length, so numpy writes all their times at once."""
    sample = bson.encode({"_id": {"s": stream, "t": DatetimeMS(0x0123456789AB)}, "v": value})
    at = sample.index((0x0123456789AB).to_bytes(8, "little"))
    rows = np.tile(np.frombuffer(sample, np.uint8), (len(times), 1))
    rows[:, at : at + 8] = times.astype("<i8").view(np.uint8).reshape(-1, 8)
    data, size = rows.tobytes(), len(sample)
    documents: list[Any] = [RawBSONDocument(data[start : start + size]) for start in range(0, len(data), size)]
    target.insert_many(documents, ordered=False)
