"""Replies of mongod, taken apart: against PyMongo's own decoding, and against a real mongod in several replies."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymongo import AsyncMongoClient

from hs_stream.core.batch import Batch
from hs_stream.core.time import TimeInterval
from hs_stream.store.mongo.replies import _cut, documents_in, find_raw
from hs_stream.store.mongo.values import batch_of, documents_of, encode

MAKE: dict[str, Callable[[int], Any]] = {
    "numbers": float,
    "integers": bson.Int64,
    "texts": lambda at: "x" * (at % 7),
    "nested": lambda at: {"a": [at, {"b": None}]},
    "one of another length": lambda at: "longer" if at == 55 else "short",
    "one of another type": lambda at: "12345678901" if at == 55 else {"": "1234"},
}


def elements_of(documents: list[dict[str, Any]]) -> bytes:
    array = bson.encode({"a": documents})
    return array[4 + 3 + 4 : -2]


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("count", [1, 9, 10, 11, 99, 100, 101, 1000, 1001, 12_345])
def test_every_document_is_there(kind: str, count: int) -> None:
    documents = [{"_id": {"s": 1, "t": at}, "v": MAKE[kind](at)} for at in range(count)]
    assert documents_in(elements_of(documents)) == b"".join(map(bson.encode, documents))


def test_documents_of_one_length_need_no_walk() -> None:
    documents = [{"v": float(at)} for at in range(1234)]
    assert _cut(elements_of(documents)) == b"".join(map(bson.encode, documents))
    assert _cut(elements_of([*documents, {"v": "text"}])) is None


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["v", "0", "x"]), st.integers(0, 2**40) | st.text(max_size=5)), max_size=40
    )
)
def test_any_documents(documents: list[dict[str, Any]]) -> None:
    assert documents_in(elements_of(documents)) == b"".join(map(bson.encode, documents))


@pytest.mark.parametrize(
    ("limit", "at_once", "replies"), [(0, 100, 11), (0, 5000, 1), (250, 100, 3), (250, 1000, 1), (1, 9, 1)]
)
@pytest.mark.parametrize("descending", [False, True])
async def test_several_replies_of_a_real_mongod(
    mongo_url: str, limit: int, at_once: int, replies: int, descending: bool
) -> None:
    async with AsyncMongoClient[dict[str, Any]](mongo_url) as client:
        database = client.get_default_database()
        await database["c"].insert_many([{"_id": at, "v": at * 0.5} for at in range(1050)])
        where = {"_id": {"$gte": 3}}
        found = [
            raw async for raw in find_raw(database, "c", where, descending=descending, limit=limit, at_once=at_once)
        ]
        expected = list(range(3, 1050))[:: -1 if descending else 1][: limit or None]
        assert [document["_id"] for raw in found for document in bson.decode_all(raw)] == expected
        assert len(found) == replies
        assert [raw async for raw in find_raw(database, "none", {}, descending=False, limit=0, at_once=9)] == []
        status = await client.admin.command("serverStatus")
        assert status["metrics"]["cursor"]["open"]["total"] == 0


async def test_a_reply_that_is_full_before_its_limit_is_not_all(mongo_url: str) -> None:
    """A reply has 16 MiB; who wants no more lets go of the rest."""
    async with AsyncMongoClient[dict[str, Any]](mongo_url) as client:
        database = client.get_default_database()
        await database["large"].insert_many([{"_id": at, "v": "x" * 1_000_000} for at in range(20)])
        found = find_raw(database, "large", {}, descending=False, limit=1000, at_once=100_000)
        assert [one["_id"] async for raw in found for one in bson.decode_all(raw)] == list(range(20))
        found = find_raw(database, "large", {}, descending=False, limit=1000, at_once=100_000)
        async with aclosing(found):
            async for raw in found:
                assert len(bson.decode_all(raw)) < 20
                break
        status = await client.admin.command("serverStatus")
        assert status["metrics"]["cursor"]["open"]["total"] == 0


@given(st.lists(st.tuples(st.integers(-(1 << 62), -1), st.integers(0, 1 << 62)), min_size=1, max_size=20))
def test_windows_are_encoded_together_as_each_alone(bounds: list[tuple[int, int]]) -> None:
    windows = [TimeInterval(start >> 20, end >> 20) for start, end in bounds] + [
        TimeInterval(*pair) for pair in bounds if pair[0] == -(1 << 62)
    ]
    batch = Batch.build(range(len(windows)), windows)
    documents = documents_of(1, batch)
    one_by_one = [document | {"v": encode(window)} for document, window in zip(documents, windows, strict=True)]
    assert [*map(bson.encode, documents)] == [*map(bson.encode, one_by_one)]
    assert batch_of(b"".join(map(bson.encode, documents))) == batch
