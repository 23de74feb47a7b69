"""When a reading is stored, and what happens to another value there: the rules of `hs_stream.engine.placing`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hs_stream.core.workflow import SourceDefinition, WorkflowDefinition
from hs_stream.engine.origins import Origins, stranger
from hs_stream.engine.ports import Delivery, Placing, Reading
from hs_stream.testing.clock import VirtualClock
from tests.engine.conftest import START, Bench

ARRIVAL, CORRECT, MERGE, REPLACE = Placing.ARRIVAL, Placing.CORRECT, Placing.MERGE, Placing.REPLACE
UPDATE, REPEAT, RETAINED = Placing.UPDATE, Placing.REPEAT, Placing.RETAINED
Item = tuple[int, Any]


async def send(
    bench: Bench, placing: Placing, *items: Item, topic: str = "t", says: dict[str, Any] | None = None
) -> None:
    """Readings ``(milliseconds after START, value)``, each in a message of its own that ``says`` so."""
    readings = [Reading("s", (), START + time, value, placing) for time, value in items]
    origins = [(at, topic, json.dumps({"value": value} | (says or {})).encode()) for at, (_, value) in enumerate(items)]
    await bench.engine.deliver(Delivery(readings, [], bench.clock.now(), lambda: None, origins=origins))
    await bench.engine.settle()


async def start(bench: Bench, **options: Any) -> None:
    source = SourceDefinition("s", (), {"mqtt": "t", **options})
    await bench.start(WorkflowDefinition("w", sources={"s": source}, nodes={}), run=False)


async def again(bench: Bench, **options: Any) -> None:
    """A new engine over the same store."""
    await bench.stop()
    await start(bench, **options)


async def letters(bench: Bench) -> list[tuple[str, str]]:
    return [(letter.reason, letter.message) for letter in await bench.store.dead_letters(10)]


def overwritten(bench: Bench) -> int:
    return bench.engine.statistics().overwritten


# --- readings without a time of their own ---


async def test_what_arrives_together_stays_apart_and_in_order(bench: Bench) -> None:
    await start(bench)
    await send(bench, ARRIVAL, *((0, 0.2) for _ in range(20)))
    assert await bench.contents("s") == dict.fromkeys(range(20), 0.2)
    bench.clock.advance(10)
    await send(bench, ARRIVAL, (10, 1.0), (10, 2.0))
    assert list((await bench.contents("s")).items())[20:] == [(20, 1.0), (21, 2.0)]
    bench.clock.advance(1000)
    await send(bench, ARRIVAL, (1010, 3.0))
    assert (await bench.contents("s"))[1010] == 3.0
    assert bench.engine.statistics().readings == 23


async def test_arrivals_rise_over_restarts_and_clocks_that_step_back(bench: Bench) -> None:
    await start(bench)
    await send(bench, ARRIVAL, *((0, index) for index in range(3)))
    bench.clock = VirtualClock(START - 3_600_000)
    await again(bench)
    await send(bench, ARRIVAL, (-3_600_000, 3), (-3_600_000, 4))
    assert await bench.contents("s") == {index: index for index in range(5)}
    assert bench.engine.statistics().late == 0


async def test_an_arrival_comes_after_a_device_whose_clock_is_ahead(bench: Bench) -> None:
    await start(bench)
    await send(bench, UPDATE, (5_000, "on"))
    await send(bench, ARRIVAL, (0, "off"))
    await send(bench, ARRIVAL, (0, "on"), (0, "off"))
    assert list((await bench.contents("s")).items()) == [(5_000, "on"), (5_001, "off"), (5_002, "on"), (5_003, "off")]
    assert await letters(bench) == [], "5.003 s ahead, and not `future`"


async def test_an_arrival_is_placed_after_what_is_final(bench: Bench) -> None:
    workflow = WorkflowDefinition("w", sources={"s": SourceDefinition("s")}, nodes={}, retention={"s": 10_000})
    await bench.start(workflow, run=False)
    bench.engine.connected(True)
    await send(bench, ARRIVAL, (0, 0), (0, 0), (0, 0))
    for _ in range(2):
        bench.clock.advance(1_800_000)
        await bench.engine.settle()
    await bench.engine.forget()
    limit = bench.engine.status("s")[0].limit
    assert limit is not None
    assert limit > START + 1
    bench.clock = VirtualClock(START + 1)
    await bench.stop()
    await bench.start(workflow, run=False)
    await send(bench, ARRIVAL, (1, 1))
    assert limit + 1 - START in await bench.contents("s")
    assert await letters(bench) == []


# --- another value at the same time ---


async def test_a_correction_replaces_and_is_counted(bench: Bench) -> None:
    await start(bench)
    await send(bench, CORRECT, (0, 1.0))
    await send(bench, CORRECT, (0, 1.0))
    assert overwritten(bench) == 0
    await send(bench, CORRECT, (0, 2.0), (0, 2.0), (0, 3.0))
    assert await bench.contents("s") == {0: 3.0}
    assert overwritten(bench) == 2
    (found,) = bench.engine.overwritten()
    assert (found.source, str(found.stream), found.time, found.count) == ("s", "s", START, 2)


async def test_there_and_back_in_one_round_is_no_change(bench: Bench) -> None:
    await start(bench)
    await send(bench, CORRECT, (0, 1.0))
    changes = bench.engine.status("s")[0].changes
    await send(bench, CORRECT, (0, 2.0), (0, 1.0))
    assert await bench.contents("s") == {0: 1.0}
    assert bench.engine.status("s")[0].changes == changes
    assert overwritten(bench) == 2


@pytest.mark.parametrize("at_once", [True, False])
async def test_another_device_does_not_overwrite(bench: Bench, at_once: bool) -> None:
    """rtl_433 without ``bind``: two sensors in one whole second."""
    await start(bench, fields=["temperature_C"])
    messages = [({"model": "Prologue-TH", "id": 5}, 21.5), ({"model": "Prologue-TH", "id": 7}, 3.5)]
    readings = [Reading("s", (), START, {"temperature_C": value}, CORRECT) for _, value in messages]
    origins = [(0, "rtl_433/events", json.dumps(says).encode()) for says, _ in messages]
    if at_once:
        together = [(at, *origin[1:]) for at, origin in enumerate(origins)]
        await bench.engine.deliver(Delivery(readings, [], START, lambda: None, origins=together))
    else:
        for reading, origin in zip(readings, origins, strict=True):
            await bench.engine.deliver(Delivery([reading], [], START, lambda: None, origins=[origin]))
            await bench.engine.settle()
    await bench.engine.settle()
    assert await bench.contents("s") == {0: {"temperature_C": 21.5}}
    ((reason, message),) = await letters(bench)
    assert reason == "other_device"
    assert "its id is 5, and here 7; give each device a stream of its own: bind: {device: id}" in message
    figures = bench.engine.statistics()
    assert (figures.readings, figures.dead_letters, figures.overwritten) == (1, 1, 0)


@pytest.mark.parametrize(
    ("before", "now", "fields", "ends"),
    [
        (("a/x/t", b"1"), ("a/y/t", b"2"), [], "mqtt: 'a/{device}/t'"),
        (("a/x", b"1"), ("a/y/z", b"2"), [], "mqtt: 'a/{device#}'"),
        (("x/t/1", b"1"), ("y/t/2", b"2"), [], "mqtt: '{device}/t/{device2}'"),
        (("t", b'{"devEUI": "a"}'), ("t", b'{"devEUI": "b"}'), [], "bind: {device: devEUI}"),
        (("t", b'{"Device_Id": "a"}'), ("t", b'{"Device_Id": "b"}'), ["v"], "bind: {device: Device_Id}"),
        (("t", b'{"channel": 1}'), ("t", b'{"channel": 2}'), ["channel"], ""),
        (("t", b'{"name": "a"}'), ("t", b'{"name": "b"}'), ["name.first"], ""),
        (("t", b'{"id": 1}'), ("t", b'{"id": 1, "mac": "b"}'), [], ""),
        (("t", b'{"id": {"a": 1}}'), ("t", b'{"id": {"a": 2}}'), [], ""),
        (("t", b'{"v": 1}'), ("t", b'{"v": 2}'), [], ""),
        (("t", b"[1]"), ("t", b"\xff"), [], ""),
        (("t", b""), ("t", b'{"id": 1}'), [], ""),
        (("t", b'{"id": 1}'), ("t", b"[" * 60_000), [], ""),
    ],
)
def test_what_tells_devices_apart(
    before: tuple[str, bytes], now: tuple[str, bytes], fields: list[str], ends: str
) -> None:
    found = stranger(before, now, fields)
    assert found.endswith(ends)
    assert bool(found) == bool(ends)


def test_what_a_device_sends_is_cut_in_the_advice() -> None:
    wide = "x" * 5_000
    assert len(stranger((wide, b""), ("y" + wide, b""), [])) < 400
    name = "i" + "_" * 5_000 + "d"
    assert len(stranger(("t", b'{"%s": "a"}' % name.encode()), ("t", b'{"%s": "b"}' % name.encode()), [])) < 400


async def test_after_a_restart_the_earlier_message_is_not_known(bench: Bench) -> None:
    await start(bench)
    await send(bench, CORRECT, (0, 1.0), topic="a")
    await again(bench)
    await send(bench, CORRECT, (0, 2.0), topic="b")
    assert await bench.contents("s") == {0: 2.0}
    assert overwritten(bench) == 1
    await send(bench, CORRECT, (0, 3.0), topic="a")
    assert await bench.contents("s") == {0: 3.0}, "nor who has corrected it since: a redelivery could not tell"
    await send(bench, CORRECT, (1, 1.0), topic="a")
    await send(bench, CORRECT, (1, 2.0), topic="b")
    assert await bench.contents("s") == {0: 3.0, 1: 1.0}


async def test_what_was_refused_is_refused_again(bench: Bench) -> None:
    """The broker sends a suffix again: what was refused must not win then."""
    await start(bench)
    await send(bench, CORRECT, (0, 1.0), topic="a")
    await send(bench, CORRECT, (0, 2.0), topic="b")
    await again(bench)
    await send(bench, CORRECT, (0, 2.0), topic="b")
    assert await bench.contents("s") == {0: 1.0}
    assert [reason for reason, _ in await letters(bench)] == ["other_device"] * 2
    assert overwritten(bench) == 0


async def test_rows_and_imports_replace_wherever_they_stand(bench: Bench) -> None:
    """A row is named by file and line, and a corrected file has it elsewhere."""
    await start(bench)
    await send(bench, REPLACE, (0, 1.0), topic="file:7")
    await send(bench, REPLACE, (0, 2.0), topic="file:8")
    assert await bench.contents("s") == {0: 2.0}
    assert overwritten(bench) == 1


def test_the_messages_that_are_remembered_are_bounded() -> None:
    origins = Origins(most=2_000)
    for stream in range(100):
        origins.note(stream, stream, ("topic", b"x" * 100))
        origins.note(stream, stream + 1, ("topic", b"x" * 100))
    assert origins.size <= 2_000
    assert origins.get(99, 100) == ("topic", b"x" * 100)
    assert origins.get(99, 99) is None
    assert origins.get(1, 2) is None
    origins.note(99, 101, ("topic", b"x" * 10_000))
    assert origins.get(99, 101) == ("topic", b"")
    for stream in range(100):
        origins.note(stream, 0, None if stream % 2 else ("x" * 10_000, b""))
    assert origins.size == 0


# --- parts of one time ---


async def test_parts_of_one_time_are_one_value(bench: Bench) -> None:
    await start(bench)
    bath, hall = {"bath": {"t": 23.6}, "unit": "C"}, {"hall": {"t": 23.8}, "unit": "C"}
    await send(bench, MERGE, (0, bath))
    await send(bench, MERGE, (0, hall), (0, bath))
    assert await bench.contents("s") == {0: bath | hall}
    assert overwritten(bench) == 0
    await send(bench, MERGE, (0, {"hall": {"t": 24.0, "h": 40}}))
    assert await bench.contents("s") == {0: bath | hall | {"hall": {"t": 24.0, "h": 40}}}
    assert overwritten(bench) == 1
    await send(bench, MERGE, (0, {"hall": {"t": 1.0}}), topic="another")
    assert [reason for reason, _ in await letters(bench)] == ["other_device"]


async def test_what_is_merged_is_bounded(bench: Bench) -> None:
    await start(bench)
    for part in range(6):
        await send(bench, MERGE, (0, {f"part{part}": "x" * 250_000}))
    assert list((await bench.contents("s"))[0]) == ["part0", "part1", "part2", "part3"]
    assert [reason for reason, _ in await letters(bench)] == ["too_large"] * 2


async def test_of_parts_from_two_topics_neither_is_known_as_the_first(bench: Bench) -> None:
    """``tele/+/SENSOR`` and ``STATE`` in one source."""
    await start(bench)
    await send(bench, MERGE, (0, {"a": 1}), topic="SENSOR")
    await send(bench, MERGE, (0, {"b": 1}), topic="STATE")
    await send(bench, MERGE, (0, {"a": 2}), topic="SENSOR")
    await send(bench, MERGE, (0, {"b": 2}), topic="STATE")
    assert await bench.contents("s") == {0: {"a": 2, "b": 2}}
    assert (overwritten(bench), await letters(bench)) == (2, [])


# --- a time that does not move with the content ---


async def test_what_differs_at_one_last_seen_is_a_reading_at_its_arrival(bench: Bench) -> None:
    await start(bench)
    bench.clock.advance(60_000)
    await send(bench, UPDATE, (0, {"occupancy": True}))
    await send(bench, UPDATE, (0, {"occupancy": False}))
    await send(bench, UPDATE, (0, {"occupancy": False}))
    assert await bench.contents("s") == {0: {"occupancy": True}, 60_000: {"occupancy": False}}
    assert (overwritten(bench), await letters(bench)) == (0, [])


async def test_it_goes_there_and_back(bench: Bench) -> None:
    """A lamp that does not confirm: switched today, with yesterday's ``last_seen``."""
    await start(bench)
    bench.clock.advance(60_000)
    for value in ("on", "off", "on", "off"):
        await send(bench, UPDATE, (0, value))
    await send(bench, UPDATE, (0, "on"), (0, "off"))
    assert list((await bench.contents("s")).items()) == [
        (0, "on"),
        *zip(range(60_000, 60_005), ("off", "on", "off", "on", "off"), strict=True),
    ]


async def test_what_a_gateway_repeats_from_its_memory_is_not_new(bench: Bench) -> None:
    await start(bench)
    bench.clock.advance(60_000)
    await send(bench, UPDATE, (0, "on"), (10_000, "off"))
    await send(bench, UPDATE, (0, "on"))
    await send(bench, UPDATE, (10_000, "off"))
    assert await bench.contents("s") == {0: "on", 10_000: "off"}
    # ... nor after something that came of it, where the device was heard since.
    await send(bench, UPDATE, (0, "dim"), (20_000, "bright"), (0, "on"))
    assert await bench.contents("s") == {0: "on", 10_000: "off", 20_000: "bright", 60_000: "dim"}


async def test_a_redelivery_is_not_new(bench: Bench) -> None:
    await start(bench)
    bench.clock.advance(60_000)
    for value in ("press", "", "hold", ""):
        await send(bench, UPDATE, (0, value))
    before = await bench.contents("s")
    assert len(before) == 4
    await again(bench)
    await send(bench, REPEAT, *((0, value) for value in ("", "hold", "")))
    assert await bench.contents("s") == before
    await send(bench, REPEAT, (0, "release"))
    assert list((await bench.contents("s")).values()) == ["press", "", "hold", "", "release"]


async def test_a_retained_one_that_differs_is_of_unknown_age(bench: Bench) -> None:
    await start(bench)
    bench.clock.advance(60_000)
    await send(bench, RETAINED, (0, "on"))
    await send(bench, RETAINED, (0, "on"), (0, "off"))
    assert await bench.contents("s") == {0: "on"}
    ((reason, message),) = await letters(bench)
    assert (reason, "not known" in message) == ("retained", True)
    await send(bench, UPDATE, (0, "off"))
    await send(bench, RETAINED, (0, "off"))
    assert len(await letters(bench)) == 1, "what is there already it only repeats"
    assert len(await bench.contents("s")) == 2


async def test_what_is_given_a_time_is_later_than_a_clock_that_is_ahead(bench: Bench) -> None:
    await start(bench)
    await send(bench, UPDATE, (1_000, "on"), (1_000, "off"))
    assert await bench.contents("s") == {1_000: "on", 1_001: "off"}
