"""One late reading at a time, half a second beside an instance in the middle of what is stored: how long it takes.

The result is published after the commit of the whole step, so it stands for all three derived levels: the component,
the mean of a second around it, and the threshold's state, which is folded again from a stored state before it until it
meets the old one.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import aiomqtt
import orjson
from bson.datetime_ms import DatetimeMS
from pymongo.database import Database

from benchmarks.steady.parts import Contender

__all__ = ["late_readings"]

_SECONDS: Final = 10.0
_PAUSE: Final = 0.05


async def late_readings(
    port: int, database: Database[dict[str, Any]], contender: Contender, stored: int
) -> list[float]:
    """Milliseconds from publishing to the result, one room after the other."""
    places = await asyncio.to_thread(_places, database, stored)
    found = []
    async with aiomqtt.Client("127.0.0.1", port) as client:
        await client.subscribe(contender.results, qos=1)
        for room, instant in places:
            payload = orjson.dumps({"ts": instant, "temperature": 21.5, "humidity": 40.5})
            await asyncio.sleep(_PAUSE)
            began = time.perf_counter()
            await client.publish(contender.topic.format(room=room), payload, qos=1)
            async with asyncio.timeout(_SECONDS):
                async for message in client.messages:
                    assert isinstance(message.payload, bytes)
                    if orjson.loads(message.payload)["time"] == instant:
                        break
            found.append((time.perf_counter() - began) * 1000)
    return found


def _places(database: Database[dict[str, Any]], stored: int) -> list[tuple[str, int]]:
    """Per room an instant in the middle of its filled history at which nothing is stored."""
    streams = list(database["streams"].find())
    each = stored // len(streams)
    places = []
    for stream in streams:
        if stream["name"] == "climate":
            where = {"_id": {"$gte": {"s": stream["_id"]}, "$lt": {"s": stream["_id"] + 1}}}
            first = database["instances"].find_one(where, {"_id": 1}, sort=[("_id", 1)])
            assert first is not None
            begin = int(DatetimeMS(first["_id"]["t"]))
            places.append((stream["meta"]["room"], begin + each // 2 * 1000 + 500))
    return places
