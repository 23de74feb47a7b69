"""What mongod reads for a question: its cost must follow the answer, not what is stored."""

from __future__ import annotations

from typing import Any

from pymongo import MongoClient

from hs_stream.core.batch import Batch
from hs_stream.core.stream import StreamId
from hs_stream.core.time import TimeIntervals
from hs_stream.engine.ports import Append, Commit, StreamChange, StreamRecord
from hs_stream.store.mongo import MongoStore
from hs_stream.store.mongo.keys import keys, lookup, questions, span

SECONDS = 20_000
START = 1_600_000_000_000


async def fill(url: str) -> MongoStore:
    store = MongoStore(url)
    await store.open()
    await store.register([StreamRecord(1, StreamId("raw"), "raw"), StreamRecord(2, StreamId("derived"), "derived")])
    batch = Batch.build([START + 1000 * second for second in range(SECONDS)], [1.5] * SECONDS)
    await store.append(Append(1, [(1, batch)]))
    await store.commit(Commit(1, [StreamChange(2, TimeIntervals.of(0, 1), 1, inserted=batch)], 0, 0))
    return store


async def test_every_filter_reads_about_what_it_finds(mongo_url: str) -> None:
    store = await fill(mongo_url)
    times = [START + 1000 * second for second in (3, 4, 5, 7, 9_000, 9_030, 19_999)]
    with MongoClient[dict[str, Any]](mongo_url) as client:
        instances = client.get_default_database()["instances"]

        def examined(where: dict[str, Any]) -> int:
            plan = instances.database.command(
                {"explain": {"find": "instances", "filter": where}, "verbosity": "executionStats"}
            )
            return int(plan["executionStats"]["totalDocsExamined"])

        filters = list(keys(2, times))
        assert len(filters) == 3
        assert sum(map(examined, filters)) <= 5 + 31 + 1 + 3
        assert examined(span(1, START + 5000, START + 15_000)) <= 12
    await store.close()


async def test_times_that_are_far_apart_are_looked_up_at_once(mongo_url: str) -> None:
    store = await fill(mongo_url)
    near = [START + 1000 * second for second in range(5_000, 5_040)]
    apart = [START + 1000 * second for second in (3, 4, 5, 7, 9_000, 9_030, 19_999)]
    times = sorted([*near, *apart, START + 1, START + 999_999_999])
    pieces = list(questions(2, times))
    assert pieces[0] == [START + 1, *apart[:4]]
    assert pieces[2] == [*apart[4:], START + 999_999_999]
    assert len(pieces) == 3
    with MongoClient[dict[str, Any]](mongo_url) as client:
        explained = client.get_default_database().command(
            {
                "explain": {"aggregate": 1, "pipeline": lookup("instances", 2, apart), "cursor": {}},
                "verbosity": "executionStats",
            }
        )
        looked_up = next(stage for stage in explained["stages"] if "$lookup" in stage)
        assert looked_up["totalDocsExamined"] <= 2 * len(apart), "of each scan perhaps the next document too"
    assert (await store.get(2, times)).times.tolist() == sorted([*near, *apart])
    assert (await store.get(2, times[::-1])).times.tolist() == sorted([*near, *apart])
    await store.close()


async def test_questions_for_single_times_are_answered(mongo_url: str) -> None:
    store = await fill(mongo_url)
    times = [START + 1000 * second for second in (19_999, 3, 9_000, 4)]
    assert (await store.get(2, [*times, START + 1])).times.tolist() == sorted(times)
    await store.commit(
        Commit(
            2, [StreamChange(2, TimeIntervals.of(0, 1), 1, retracted=times, revisions=dict.fromkeys(times, 1))], 0, 0
        )
    )
    assert not await store.get(2, times)
    assert await store.count(2, 0, 1 << 60) == SECONDS - 4
    assert await store.revisions(2, times) == dict.fromkeys(times, 1)
    await store.close()
