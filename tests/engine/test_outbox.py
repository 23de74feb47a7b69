"""What happens to results that are to be published while nobody publishes: an import, a command, a library."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from hs_stream.core.stream import StreamId
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.engine import Engine
from hs_stream.engine.ports import Change, Publication, Unpublished
from hs_stream.engine.telemetry import Telemetry
from hs_stream.engine.unpublished import LETTER_EVERY, MOST_TOPICS, Refusals
from hs_stream.testing.check_workflow import Subscriber
from tests.engine.conftest import START, Bench

DOUBLE = StreamId.parse("double[room=a]")


def doubled(bench: Bench) -> WorkflowDefinition:
    return bench.workflow(bench.node("double", "expression", ["power"], expression="value * 2", publish={}))


async def test_what_is_computed_without_a_sink_is_published_by_the_next_engine_that_has_one(bench: Bench) -> None:
    await bench.start(doubled(bench), publishing=False)
    bench.clock.advance(10_000)
    for second in range(3):
        await bench.publish((second * 1000, float(second)))
    await bench.stop()
    # Another one without a sink changes nothing about that.
    await bench.start(doubled(bench), publishing=False)
    await bench.publish((3000, 3.0))
    await bench.stop()
    assert bench.subscriber.contents == {}
    await bench.start(doubled(bench))
    async with asyncio.timeout(5):
        await bench.engine.published()
    assert dict(bench.subscriber.contents[DOUBLE]) == dict(
        await bench.engine.read(DOUBLE, bench.clock.now() - 60_000, bench.clock.now())
    )
    assert len(bench.subscriber.contents[DOUBLE]) == 4


async def test_without_a_sink_nothing_waits_in_memory_and_nobody_waits(bench: Bench) -> None:
    await bench.start(doubled(bench), publishing=False)
    bench.clock.advance(100_000)
    await bench.publish(*((second * 1000, float(second)) for second in range(50)))
    statistics = bench.engine.statistics()
    assert (statistics.results, statistics.published, statistics.outbox_pending) == (50, 0, 0)
    async with asyncio.timeout(1):
        await bench.engine.published()
        await bench.engine.stop()
    assert len(await bench.store.outbox(0, 1000)) == statistics.steps


class Choosy(Subscriber):
    """Will not have results above 100."""

    async def publish(self, publications: Sequence[Publication]) -> list[Unpublished]:
        bad = [one for one in publications if float(str(one.change.value)) > 100]
        await super().publish([one for one in publications if one not in bad])
        return [Unpublished(one, f"hs/{one.stream}", "not_authorized", "the broker says no", 77) for one in bad]


async def test_what_the_other_side_will_not_have_is_counted_and_kept_and_passed(bench: Bench) -> None:
    counted: list[tuple[str, int]] = []

    class Counting(Telemetry):
        def unpublished(self, reason: str, count: int) -> None:
            counted.append((reason, count))

    bench.subscriber = Choosy()
    engine = Engine(bench.store, clock=bench.clock, sink=bench.subscriber, telemetry=Counting())
    bench.engine = engine
    await engine.open([doubled(bench)])
    task = asyncio.create_task(engine.run())
    bench.clock.advance(10_000)
    for second, value in enumerate([1.0, 60.0, 2.0, 70.0]):
        await bench.publish((second * 1000, value))
    await bench.publish((0, 80.0), room="b")
    async with asyncio.timeout(5):
        await engine.published()
    assert list(bench.subscriber.contents[DOUBLE].values()) == [2.0, 4.0]
    assert counted == [("not_authorized", 1)] * 3
    assert engine.statistics().published == 2
    last = engine.unpublished()["not_authorized"]
    assert (last.count, last.topic, last.message) == (3, "hs/double[room=b]", "the broker says no")
    letters = await bench.store.dead_letters(10)
    assert sorted(letter.topic for letter in letters) == ["hs/double[room=a]", "hs/double[room=b]"], "one for a topic"
    assert {(letter.source, letter.reason, letter.message) for letter in letters} == {
        ("double", "not_authorized", "the broker says no")
    }
    assert json.loads(letters[-1].payload) == {
        "stream": "double[room=a]", "time": START + 1000, "revision": 0, "kind": "insert", "size": 77
    }  # fmt: skip
    bench.clock.advance(LETTER_EVERY)
    await bench.publish((LETTER_EVERY, 90.0))
    async with asyncio.timeout(5):
        await engine.published()
    newest = (await bench.store.dead_letters(1))[0]
    assert "(2 results since " in newest.message
    await engine.stop()
    await task
    assert await bench.store.outbox(0, 1000) == [], "the cursor has passed them"


def test_letters_are_bounded_whatever_topics_there_are() -> None:
    refusals, letters = Refusals(), 0
    change = Change(0, "insert", 1.0, 0)
    for number in range(3 * MOST_TOPICS):
        publication = Publication(DOUBLE, "w", ("a",), "t", change, True, {})
        letters += len(refusals.take([Unpublished(publication, f"t/{number}", "refused", "no", 1)], LETTER_EVERY))
    assert letters == MOST_TOPICS + 1
    assert refusals.by_reason["refused"].count == 3 * MOST_TOPICS
