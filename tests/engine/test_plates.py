"""Plates that are declared, grow by results, are divided and combined: through the engine, against the oracle."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine import breath
from hs_stream.engine.engine import EngineSettings
from hs_stream.engine.ports import Commit, Delivery, Reading, StreamRecord
from hs_stream.service.workflows.document import to_document
from hs_stream.service.workflows.file import from_document, parse_workflow
from hs_stream.store.memory import MemoryStore
from hs_stream.testing.history import History

from .conftest import REGISTRY, START, Bench


def workflow(text: str) -> WorkflowDefinition:
    made = parse_workflow(f"workflow: w\n{text}", REGISTRY)
    assert from_document(to_document(made), REGISTRY).fingerprints == made.fingerprints
    return made


GROWING = """
plates:
  country: {}
  city: {parent: country, from: cities, max: 3}
sources:
  rows: {plates: [country]}
nodes:
  cities: {tool: plate_values, from: rows}
  temperature: {tool: splitter_of_dict, from: rows, into: city}
  fahrenheit: {tool: expression, from: temperature, with: {expression: value * 1.8 + 32}}
  mean: {tool: aggregate, from: fahrenheit, over: city, with: {function: mean}}
"""


async def send(bench: Bench, source: str, time: int, value: Any, **meta: str) -> None:
    reading = Reading(source, tuple(sorted(meta.items())), START + time, value)
    await bench.engine.deliver(Delivery([reading], [], bench.clock.now(), lambda: None))
    await bench.engine.settle()


async def clean(bench: Bench) -> None:
    result = await bench.verify()
    assert result.clean, result.mismatches
    assert result.instances
    # Of what is later than silence has proven, nothing is known yet.
    recent = bench.clock.now() - 10_000
    assert not [stream for stream, spans in result.owed.items() if spans.start < recent]


async def test_a_plate_grows_by_what_a_node_finds(bench: Bench, evaluations: Any) -> None:
    await bench.start(workflow(GROWING))
    bench.clock.advance(10_000_000)
    await send(bench, "rows", 1000, {"Ghent": 10.0, "Liege": 20.0}, country="be")
    await send(bench, "rows", 2000, {"Ghent": 20.0}, country="be")
    await send(bench, "rows", 1000, {"Bristol": 0.0}, country="uk")
    assert bench.engine.plates()["w"]["city"] == [
        {"country": "be", "city": "Ghent"},
        {"country": "be", "city": "Liege"},
        {"country": "uk", "city": "Bristol"},
    ]
    assert await bench.contents("fahrenheit[country=be,city=Ghent]") == {1000: 50.0, 2000: 68.0}
    assert await bench.contents("mean[country=be]") == {1000: 59.0, 2000: 68.0}
    assert await bench.contents("mean[country=uk]") == {1000: 32.0}
    evaluations()
    # A new city: its own streams from the beginning, and the mean where it counts.
    await send(bench, "rows", 3000, {"Ghent": 20.0, "Namur": 0.0}, country="be")
    assert await bench.contents("mean[country=be]") == {1000: 59.0, 2000: 68.0, 3000: 50.0}
    assert not [name for name, _, _ in evaluations() if "uk" in name]
    await clean(bench)


async def test_found_plate_values_outlive_a_restart(bench: Bench) -> None:
    await bench.start(workflow(GROWING))
    bench.clock.advance(10_000_000)
    await send(bench, "rows", 1000, {"Ghent": 10.0}, country="be")
    await bench.stop()
    later = GROWING + "  doubled: {tool: expression, from: temperature, with: {expression: value * 2}}\n"
    later += "  again: {tool: splitter_of_dict, from: rows, into: city}\n"
    await bench.start(workflow(later))
    await bench.engine.settle()
    assert await bench.contents("doubled[country=be,city=Ghent]") == {1000: 20.0}
    assert await bench.contents("again[country=be,city=Ghent]") == {1000: 10.0}
    await send(bench, "rows", 2000, {"Ghent": 1.0, "Namur": 2.0}, country="be")
    assert await bench.contents("doubled[country=be,city=Namur]") == {2000: 4.0}
    await clean(bench)


async def test_a_value_that_was_taken_in_by_older_rules_stays(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that holds it opens unchanged; what is refused now stays refused over a restart."""
    with monkeypatch.context() as older:
        older.setattr("hs_stream.core.ground.check_plate_value", lambda value: value)
        await bench.start(workflow(GROWING))
        bench.clock.advance(10_000_000)
        await send(bench, "rows", 1000, {"a\x85": 10.0}, country="be")
        before = {record.stream for record in await bench.store.streams()}
        await bench.stop()
    await bench.start(workflow(GROWING))
    await send(bench, "rows", 2000, {"a\x85": 20.0, "b\uffff": 1.0}, country="be")
    assert await bench.contents("fahrenheit[country=be,city=a\x85]") == {1000: 50.0, 2000: 68.0}
    assert [letter.reason for letter in await bench.store.dead_letters(10)] == ["plate_value"]
    await bench.pass_time(20_000)
    await clean(bench)
    await bench.stop()
    await bench.start(workflow(GROWING))
    assert {record.stream for record in await bench.store.streams()} == before


async def test_what_a_plate_cannot_take_is_counted_and_kept(bench: Bench) -> None:
    await bench.start(workflow(GROWING))
    bench.clock.advance(10_000_000)
    await send(bench, "rows", 1000, {"a": 1, "b": 2, "c": 3, "d": 4, "e/[x]": 5}, country="be")
    assert len(bench.engine.plates()["w"]["city"]) == 3
    letters = await bench.store.dead_letters(10)
    assert sorted(letter.reason for letter in letters) == ["plate_full", "plate_value"]
    assert "plates.city.max" in next(letter.message for letter in letters if letter.reason == "plate_full")
    assert await bench.contents("mean[country=be]") == {1000: pytest.approx(35.6)}
    await clean(bench)


async def test_late_and_corrected_names_bring_streams_too(bench: Bench) -> None:
    await bench.start(workflow(GROWING))
    bench.clock.advance(10_000_000)
    await send(bench, "rows", 5000, {"Ghent": 10.0}, country="be")
    await send(bench, "rows", 1000, {"Liege": 20.0}, country="be")
    await send(bench, "rows", 5000, {"Namur": 30.0}, country="be")
    assert await bench.contents("mean[country=be]") == {1000: 68.0, 5000: 86.0}
    assert await bench.contents("temperature[country=be,city=Ghent]") == {}
    await clean(bench)


PARTS = """
plates:
  house: {}
  room: {parent: house, max: 10}
  wet: {of: room, values: [kitchen, bath]}
  dry: {of: room, values: [kitchen, bath], complement: true}
  bath_of_1: {of: room, values: {1: [bath]}}
sources:
  humidity: {plates: [house, room]}
nodes:
  damp: {tool: expression, from: humidity, on: wet, with: {expression: value > 70}}
  driest: {tool: aggregate, from: humidity, over: dry, with: {function: min}}
  all: {tool: aggregate, from: humidity, over: room, with: {function: count}}
  everywhere: {tool: aggregate, from: humidity, over: [house, room], with: {function: max}}
  one: {tool: expression, from: humidity, on: bath_of_1, with: {expression: value}}
  kitchen: {tool: index_of, from: humidity, over: room, with: {index: kitchen}}
"""


async def test_parts_of_a_plate(bench: Bench) -> None:
    await bench.start(workflow(PARTS))
    bench.clock.advance(10_000_000)
    for house in "12":
        for index, room in enumerate(("kitchen", "bath", "hall", "attic")):
            await send(bench, "humidity", 1000, 60 + 10 * index + int(house), house=house, room=room)
    names = {str(status.stream) for status in bench.engine.status()}
    assert {name for name in names if name.startswith("damp")} == {
        f"damp[house={house},room={room}]" for house in "12" for room in ("kitchen", "bath")
    }
    assert {name for name in names if name.startswith("one")} == {"one[house=1,room=bath]"}
    await bench.pass_time(60_000)
    assert await bench.contents("driest[house=1]") == {1000: 81.0}
    assert await bench.contents("all[house=2]") == {1000: 4}
    assert await bench.contents("everywhere") == {1000: 92.0}
    assert await bench.contents("kitchen[house=2]") == {1000: 62}
    await clean(bench)


async def test_a_selector_does_not_wait_for_the_others(bench: Bench) -> None:
    await bench.start(workflow(PARTS))
    await send(bench, "humidity", 1000, 50, house="1", room="hall")
    await send(bench, "humidity", 2000, 60, house="1", room="kitchen")
    # Nothing is known of the hall after 1000, and no silence has passed.
    assert await bench.contents("kitchen[house=1]") == {2000: 60}


async def test_every_combination_of_plates_without_a_shared_ancestor(bench: Bench) -> None:
    text = """
plates: {house: {}, model: {}}
sources: {power: {plates: [house]}, price: {plates: [model]}}
nodes:
  cost: {tool: expression, from: [power, price], ON with: {expression: a * b}}
  best: {tool: aggregate, from: cost, over: model, with: {function: min}}
"""
    with pytest.raises(ConfigurationError, match="no plate is shared") as caught:
        workflow(text.replace("ON", ""))
    assert "on: [house, model]" in caught.value.hint
    await bench.start(workflow(text.replace("ON", "on: [house, model],")))
    bench.clock.advance(10_000_000)
    for house, power in (("1", 2.0), ("2", 3.0)):
        await send(bench, "power", 1000, power, house=house)
    for model, price in (("a", 10.0), ("b", 4.0)):
        await send(bench, "price", 1000, price, model=model)
    await bench.pass_time(60_000)
    assert await bench.contents("cost[house=2,model=a]") == {1000: 30.0}
    assert await bench.contents("best[house=1]") == {1000: 8.0}
    await clean(bench)


DECLARED = """
plates:
  house: {values: ["1", "2"]}
  axis: {values: [x, y]}
  floor: {parent: house, values: {1: [ground], 2: [ground, first]}}
sources: {position: {plates: [house]}, weather: {}}
nodes:
  coordinate: {tool: splitter_of_list, from: position, into: axis, with: {mapping: [x, y]}}
  outside: {tool: stream_broadcaster, from: weather, into: house}
  per_floor: {tool: stream_broadcaster, from: outside, into: floor}
"""


async def test_declared_values_and_broadcasts(bench: Bench) -> None:
    await bench.start(workflow(DECLARED))
    bench.clock.advance(10_000_000)
    await send(bench, "position", 1000, [1.0, 2.0], house="1")
    await send(bench, "weather", 1000, "rain")
    await send(bench, "position", 2000, [1.0, 2.0], house="3")
    assert await bench.contents("coordinate[house=1,axis=y]") == {1000: 2.0}
    assert await bench.contents("outside[house=2]") == {1000: "rain"}
    assert await bench.contents("outside[house=3]") == {1000: "rain"}
    found = {str(status.stream) for status in bench.engine.status("per_floor")}
    assert found == {
        "per_floor[floor=ground,house=1]",
        "per_floor[floor=ground,house=2]",
        "per_floor[floor=first,house=2]",
    }
    await clean(bench)


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ("into: city", "", "needs 'into'", "name the plate"),
        ("from: cities,", "from: mean,", "values cannot come from mean", "plate_values"),
        ("into: city", "into: country", "is on country already", "another plate"),
        ("plates: [country]", "plates: []", "is under country, which rows is not on", "declare city without a parent"),
        ("over: city", "over: city, into: city", "makes one stream", "remove 'into'"),
        ("over: city", "over: town", "no plate 'town'", ""),
        (
            "from: temperature,",
            "from: temperature, on: country,",
            "it is on (country, city), not on (country)",
            "on: [",
        ),
    ],
)
def test_what_cannot_be_is_said(old: str, new: str, message: str, hint: str) -> None:
    assert old in GROWING
    with pytest.raises(ConfigurationError) as caught:
        workflow(GROWING.replace(old, new))
    assert message in str(caught.value)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("plates", "message"),
    [
        ("{wet: {of: room, values: [bath]}}", "'room' is not declared"),
        ("{room: {}, wet: {of: room}}", "needs values"),
        ("{room: {}, wet: {of: room, values: [bath]}, wetter: {of: wet, values: [bath]}}", "itself a part of room"),
        ("{room: {values: [a, b, c], max: 2}}", "3 values are declared and max is 2"),
        ("{room: {values: ['a[b']}}", "a plate value holds"),
        ("{room: {values: {1: [a]}}}", "is not a list"),
    ],
)
def test_wrong_plates_are_refused(plates: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        workflow(f"plates: {plates}\n")
    assert message in str(caught.value)


class Counting(MemoryStore):
    """How many streams were registered in each call; nothing else may be committed to."""

    def __init__(self) -> None:
        super().__init__()
        self.registered: list[int] = []
        self.known: set[int] = set()

    async def register(self, records: Sequence[StreamRecord]) -> None:
        await super().register(records)
        self.registered.append(len(records))
        self.known |= {record.id for record in records}

    async def commit(self, commit: Commit) -> None:
        assert {change.stream for change in commit.streams} <= self.known
        await super().commit(commit)


MANY = """
plates: {room: {max: 10000}}
sources: {power: {plates: [room]}}
nodes:
  double: {tool: expression, from: power, with: {expression: value * 2}}
  sum: {tool: aggregate, from: double, over: room, with: {function: sum}}
"""


def many_rooms(count: int, time: int) -> list[Reading]:
    return [Reading("power", (("room", f"r{number}"),), START + time, 1.0) for number in range(count)]


async def test_many_new_values_at_once_let_others_run(bench: Bench) -> None:
    """`PL-10`. Others have their turn, and no step writes to what is not registered."""
    bench.store = store = Counting()
    await bench.start(workflow(MANY), run=False)
    bench.clock.advance(10_000)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(breath, "_LONG", 0.0)
            await bench.engine.deliver(Delivery(many_rooms(1500, 5000), [], bench.clock.now(), lambda: None))
            await bench.engine.settle()
    finally:
        task.cancel()
    assert sum(store.registered) == 2 * 1500 + 1
    assert max(store.registered) <= 300
    assert turns > 3000, "about one for each stream"
    bench.engine.connected(True)
    for _ in range(3):
        bench.clock.advance(20_000)
        await bench.engine._executor.step()
        await bench.engine.settle()
    assert await bench.contents("sum") == {5000: 3000.0}
    await clean(bench)


@pytest.mark.parametrize("write", [2, 3, 5])
async def test_a_crash_amid_many_new_values(write: int) -> None:
    """`PL-10`. Some are registered, and the delivery comes again."""
    store = MemoryStore()

    async def same() -> MemoryStore:
        return store

    history = History(same, [workflow(MANY)], EngineSettings(), START)
    await history.begin()
    try:
        history.clock.advance(10_000)
        history.arm(write, "before")
        await history.survive(lambda: history.deliver(many_rooms(700, 5000)))
        await history.settle()
        assert history.crashes == 1
        for _ in range(3):
            await history.pass_time(20_000)
        await history.check()
    finally:
        await history.end()
