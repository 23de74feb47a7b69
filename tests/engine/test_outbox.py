"""What happens to results that are to be published while nobody publishes: an import, a command, a library."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hs_stream.core.batch import Batch
from hs_stream.core.kinds import Meaning
from hs_stream.core.stream import StreamId
from hs_stream.core.time import EMPTY
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.changes import changes_of
from hs_stream.engine.engine import Engine
from hs_stream.engine.ports import Change, Publication, StreamChange, Unpublished
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


async def test_a_sink_is_told_what_values_mean(bench: Bench) -> None:
    seen: list[Publication] = []

    class Reading(Subscriber):
        async def publish(self, publications: Sequence[Publication]) -> list[Unpublished]:
            seen.extend(publications)
            await super().publish(publications)
            return []

    bench.subscriber = Reading()
    plain = bench.node("double", "expression", ["power"], expression="value * 2", publish={})
    await bench.start(bench.workflow(replace(plain, meaning=Meaning("state", "W"))))
    bench.clock.advance(10_000)
    await bench.publish((0, 1.0))
    async with asyncio.timeout(5):
        await bench.engine.published()
    assert [one.meaning for one in seen] == [Meaning("state", "W")]


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
    engine = Engine(bench.store, clock=bench.clock, sinks=[bench.subscriber], telemetry=Counting())
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


class Away(Subscriber):
    """Confirms nothing until it is ``back``. Of what nodes it takes, ``says`` decides."""

    def __init__(self, name: str, says: str = "") -> None:
        super().__init__()
        self.name, self._says = name, says
        self.back = asyncio.Event()

    def takes(self, options: Mapping[str, Any]) -> bool:
        return self._says in options or not self._says

    async def publish(self, publications: Sequence[Publication]) -> Sequence[Unpublished]:
        await self.back.wait()
        return await super().publish(publications)


async def begin(bench: Bench, *sinks: Subscriber, **more: Any) -> asyncio.Task[None]:
    """An engine after the one before, if there was one."""
    bench.engine = Engine(bench.store, clock=bench.clock, sinks=sinks, **more)
    await bench.engine.open([doubled(bench)])
    bench.clock.advance(10_000)
    return asyncio.create_task(bench.engine.run())


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not check():
            await asyncio.sleep(0)


async def test_a_sink_that_is_away_holds_up_no_other_and_misses_nothing(bench: Bench) -> None:
    here, away = Away("here"), Away("away")
    here.back.set()
    task = await begin(bench, here, away)
    for second in range(4):
        await bench.publish((second * 1000, float(second)))
    await until(lambda: len(here.contents.get(DOUBLE, {})) == 4)
    statistics = bench.engine.statistics()
    assert (statistics.outbox_pending, statistics.pending_by_sink) == (4, {"here": 0, "away": 4})
    await bench.engine.stop()
    await task
    assert here.received == 4
    assert away.received == 0
    # After a start too, the one gets what waits for it, and the other nothing again.
    away.back.set()
    task = await begin(bench, here, away)
    await bench.publish((9000, 9.0))
    async with asyncio.timeout(5):
        await bench.engine.published()
    assert list(away.contents[DOUBLE].values()) == [0.0, 2.0, 4.0, 6.0, 18.0]
    assert (here.received, away.received) == (5, 5)
    await bench.engine.stop()
    await task
    assert await bench.store.outbox(0, 1000) == []


async def test_a_new_sink_begins_now_and_one_that_is_gone_keeps_nothing(bench: Bench) -> None:
    first, second = Away("first"), Away("second")
    task = await begin(bench, first)
    await bench.publish((0, 1.0))
    await bench.engine.stop()
    await task
    second.back.set()
    task = await begin(bench, first, second)
    await bench.publish((1000, 2.0))
    await until(lambda: bool(second.contents))
    assert list(second.contents[DOUBLE].values()) == [4.0], "what was committed before it came is not for it"
    assert len(await bench.store.outbox(0, 1000)) == 2, "the first one waits for both"
    await bench.engine.stop()
    await task
    task = await begin(bench, second)
    assert await bench.store.outbox(0, 1000) == [], "nobody waits for it any more"
    await bench.engine.stop()
    await task


async def test_a_sink_gets_what_it_takes_and_a_mirror_is_told(bench: Bench) -> None:
    everything, nothing = Away("everything"), Away("nothing", "a key that no node has")
    for one in (everything, nothing):
        one.back.set()
    seen: list[tuple[Any, bool]] = []

    class Mirror:
        name = "mirror"

        async def run(self, connected: Callable[[bool], None]) -> None: ...

        def observe(self, publications: Sequence[Publication]) -> None:
            seen.extend((one.change.value, one.newest) for one in publications)

    task = await begin(bench, everything, nothing, mirrors=[Mirror()])
    await bench.publish((5000, 1.0))
    await bench.publish((1000, 2.0))
    async with asyncio.timeout(5):
        await bench.engine.published()
    assert (everything.received, nothing.received) == (2, 0)
    assert bench.engine.statistics().published == 2
    assert seen == [(2.0, True), (4.0, False)]
    await bench.engine.stop()
    await task
    assert await bench.store.sinks(["nothing"]) == {"nothing": 2}, "the cursor passes what it does not take"


def test_letters_are_bounded_whatever_topics_there_are() -> None:
    refusals, letters = Refusals(), 0
    change = Change(0, "insert", 1.0, 0)
    for number in range(3 * MOST_TOPICS):
        publication = Publication(DOUBLE, "w", ("a",), "t", change, True, {})
        letters += len(refusals.take([Unpublished(publication, f"t/{number}", "refused", "no", 1)], LETTER_EVERY))
    assert letters == MOST_TOPICS + 1
    assert refusals.by_reason["refused"].count == 3 * MOST_TOPICS


def test_changes_are_worked_out_once_for_the_store_the_sinks_and_who_listens() -> None:
    inserted, revised = Batch.of([(1, 1.0), (4, 4.0)]), Batch.of([(3, 3.0)])
    change = StreamChange(1, EMPTY, 9, inserted, revised, [2], {3: 1, 2: 5})
    assert changes_of(8, change).changes == [
        Change(1, "insert", 1.0, 0),
        Change(2, "retract", None, 5),
        Change(3, "revise", 3.0, 1),
        Change(4, "insert", 4.0, 0),
    ]
    assert changes_of(8, change).changes is changes_of(8, change).changes
