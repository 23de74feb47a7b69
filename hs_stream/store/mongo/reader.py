"""Range reads of `hs_stream.store.mongo`, of values of any size."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

import bson
from bson.binary import Binary

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.size import POINTER, size_of
from hs_stream.core.value import Value
from hs_stream.store.mongo.keys import lookup, questions
from hs_stream.store.mongo.link import Link
from hs_stream.store.mongo.replies import aggregate_raw, find_raw
from hs_stream.store.mongo.values import CODEC, Large, batch_of, decode, instances_in

__all__ = ["Reader"]

_READ_AT_ONCE: Final = 100_000


class Reader:
    """What is stored behind ``link``."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def whole(self, value: Value) -> Value:
        """The value that a `Large` stands for; any other value is itself."""
        if not isinstance(value, Large):
            return value
        ids = [{"h": Binary(value.digest), "i": index} for index in range(value.parts)]
        found = self._link.collection("large").find({"_id": {"$in": ids}}).sort("_id", 1)
        encoded = b"".join([part["b"] async for part in found])
        return decode(bson.decode(encoded, CODEC)["v"])

    async def batch(
        self, where: Mapping[str, Any], *, limit: int | None = None, newest: bool = False, budget: int | None = None
    ) -> Batch:
        """The instances that match, ascending; with ``limit`` or ``budget`` the first, or the last, of them."""
        if limit is not None and limit <= 0:
            return NOTHING
        descending = newest and (bool(limit) or budget is not None)
        with self._link.talking():
            found = find_raw(
                self._link.database,
                "instances",
                where,
                descending=descending,
                limit=limit or 0,
                at_once=_READ_AT_ONCE,
            )
            if budget is not None:
                return await self._within(found, budget, descending=descending)
            batches = [batch_of(raw) async for raw in found]
            if newest and limit:
                batches = [Batch(one.times[::-1], one.values[::-1]) for one in reversed(batches)]
            return await self._large_too(Batch.concat(batches))

    async def _within(self, found: AsyncGenerator[bytes, None], budget: int, *, descending: bool) -> Batch:
        """The first of the instances that come, with the one that fills ``budget``. One reply is at most 16 MiB."""
        times: list[int] = []
        values: list[Value] = []
        left = budget
        async with aclosing(found):
            async for raw in found:
                for time, stored in instances_in(raw):
                    times.append(time)
                    values.append(await self.whole(stored))
                    left -= size_of(values[-1]) + POINTER
                    if left <= 0:
                        break
                if left <= 0:
                    break
        return Batch.build(times[::-1], values[::-1]) if descending else Batch.build(times, values)

    async def batch_at(self, stream: int, times: Sequence[int]) -> Batch:
        """The instances at exactly ``times``, ascending."""
        batches: list[Batch] = []
        with self._link.talking():
            for question in questions(stream, times):
                if isinstance(question, list):
                    pipeline = lookup("instances", stream, question)
                    found = aggregate_raw(self._link.database, pipeline, at_once=_READ_AT_ONCE)
                    batches.append(await self._large_too(Batch.concat([batch_of(raw) async for raw in found])))
                else:
                    batches.append(await self.batch(question))
        return Batch.concat(batches)

    async def revised(self, name: str, stream: int, times: Sequence[int]) -> dict[int, int]:
        """The revisions above 0 of those of ``times`` that the collection ``name`` has."""
        revised = {"r": {"$gt": 0}}
        found: dict[int, int] = {}
        for question in questions(stream, times):
            if isinstance(question, list):
                pipeline = [*lookup(name, stream, question), {"$match": revised}, {"$project": {"r": 1}}]
                cursor = await self._link.database.aggregate(pipeline)
            else:
                cursor = self._link.collection(name).find(question | revised, {"r": 1})
            async for document in cursor:
                found[int(document["_id"]["t"])] = int(document["r"])
        return found

    async def _large_too(self, batch: Batch) -> Batch:
        if isinstance(batch.values, list) and any(type(value) is Large for value in batch.values):
            return Batch.build(batch.times, [await self.whole(value) for value in batch.values])
        return batch
