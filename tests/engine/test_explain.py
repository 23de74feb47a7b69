"""What an explanation says of each level: what is read there, how much of it is shown, and what would change it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hs_stream.core.errors import NotFound
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME
from hs_stream.engine.explain import Explanation, Level, Limits
from hs_stream.service.explaining import explain_stored, explanation_json, explanation_text

from .conftest import START, Bench

FIRST, LAST = MIN_TIME, MAX_TIME


def spans(level: Level) -> list[tuple[int, int]]:
    """In milliseconds after START, but for what is for ever."""
    return [(_after(start), _after(end)) for start, end in level.spans.pairs]


def _after(time: int) -> int:
    return time if time in (FIRST, LAST) else time - START


def levels(explained: Explanation) -> dict[str, Level]:
    return {level.stream.name: level for level in explained.levels}


async def told(bench: Bench, node: str, time: int, **limits: Any) -> Explanation:
    return await bench.engine.explain(StreamId(node, (("room", "a"),)), START + time, Limits(**limits))


@pytest.mark.parametrize(
    ("pin", "inputs", "parameters", "time", "expected"),
    [
        ("expression@^1", ["power"], {"expression": "value"}, 3000, (2999, 3000)),
        ("sliding_mean@^1", ["power"], {"width": "2s"}, 3000, (1000, 3000)),
        ("session_window@^1", ["power"], {"gap": "2s", "max_length": "3s"}, 4000, (-1000, 5999)),
        # what held as the window began: that of 2000
        ("sliding_mean@^2", ["power"], {"width": "500ms", "weight": "time", "max_age": "5s"}, 3000, (-2500, 3000)),
        ("sliding_mean@^2", ["power"], {"width": "500ms", "weight": "time"}, 3000, (1999, 3000)),
        # and the next one after it, on a grid; there is none after the last one
        ("sliding_mean@^2", ["power"], {"width": "1s", "every": "1s", "weight": "time"}, 3000, (1999, 4000)),
        ("sliding_mean@^2", ["power"], {"width": "1s", "every": "1s", "weight": "time"}, 4000, (2999, LAST)),
        ("derivative@^1", ["power"], {}, 3000, (1999, 3000)),
        ("derivative@^1", ["power"], {}, 1000, (-1, 1000)),
        ("integral@^1", ["power"], {}, 3000, (FIRST, 3000)),
        ("utility_meter@^2", ["power"], {"every": "2s"}, 2000, (FIRST, 3000)),
    ],
)
async def test_what_each_support_reads(
    bench: Bench, pin: str, inputs: list[str], parameters: dict[str, Any], time: int, expected: tuple[int, int]
) -> None:
    await bench.start(bench.workflow(bench.node("n", pin, inputs, **parameters)))
    await bench.publish(*((step * 1000, float(step)) for step in range(5)))
    await bench.pass_time(10_000)
    explained = await told(bench, "n", time)
    assert [level.stream.name for level in explained.levels] == ["n", "power"]
    assert spans(explained.levels[1]) == [expected]


async def test_what_holds_is_looked_for_for_ever_where_there_is_nothing_yet(bench: Bench) -> None:
    """A light that was on earlier would be the one that holds, however early that was."""
    join = bench.node("j", "as_of_join@^2", ["power", "light"], names=["p", "l"], outer=True)
    await bench.start(bench.workflow(join))
    await bench.publish((2000, 3.0))
    await bench.publish((5000, 1.0), source="light")
    explained = await told(bench, "j", 2000)
    assert {name: (spans(level), level.count) for name, level in levels(explained).items()} == {
        "j": ([(1999, 2000)], 1),
        "power": ([(1999, 2000)], 1),
        "light": ([(FIRST, 2000)], 0),
    }


async def chain(bench: Bench) -> None:
    """Two ways from one source, over a plate, three levels deep."""
    bench.clock.advance(20_000)
    await bench.start(
        bench.workflow(
            bench.node("double", "expression@^1", ["power"], expression="value * 2"),
            bench.node("recent", "sliding_sum@^1", ["double"], width="3s"),
            bench.node("both", "expression@^1", ["recent", "power"], expression="a - b"),
            bench.node("all", "aggregate@^2", ["both"], over=["room"], function="sum", hold="1m"),
        )
    )
    for room in ("a", "b"):
        await bench.publish(*((step * 1000, float(step)) for step in range(20)), room=room)
    await bench.pass_time(10_000)


async def test_each_stream_stands_once_outputs_first_with_all_that_is_read_of_it(bench: Bench) -> None:
    await chain(bench)
    explained = await told(bench, "both", 9000)
    assert [(level.stream.name, level.depth, spans(level), level.count) for level in explained.levels] == [
        ("both", 0, [(8999, 9000)], 1),
        ("recent", 1, [(8999, 9000)], 1),
        ("double", 2, [(6000, 9000)], 3),
        ("power", 1, [(6000, 9000)], 3),
    ]
    [(_, value)] = explained.levels[0].first
    assert (value, explained.state, explained.left_off) == (2 * (7 + 8 + 9) - 9.0, "computed", 0)
    over = await bench.engine.explain(StreamId("all"), None)
    assert over.time == START + 19_000
    assert [str(level.stream) for level in over.levels if level.record.kind == "raw"] == [
        "power[room=a]",
        "power[room=b]",
    ]


async def test_it_is_bounded(bench: Bench) -> None:
    await chain(bench)
    shallow = await told(bench, "both", 9000, depth=1)
    assert [level.stream.name for level in shallow.levels] == ["both", "recent", "power"]
    few = await bench.engine.explain(StreamId("all"), None, Limits(streams=3))
    assert (len(few.levels), few.left_off > 0) == (3, True)
    double = levels(await told(bench, "both", 9000, rows=1))["double"]
    assert ([time - START for time in double.first.times], double.first.plain()) == ([7000], [14.0])
    assert ([time - START for time in double.last.times], double.last.plain()) == ([9000], [18.0])
    total = await told(bench, "recent", 19_000, rows=2)
    assert levels(total)["double"].count == 3
    assert len(levels(total)["double"].first) == 3


async def test_nobody_counts_all_that_there_ever_was(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The total of ten years rests on ten years of readings. Who asks about it, again and again, holds up no store."""
    monkeypatch.setattr("hs_stream.engine.explain._COUNTED", 4)
    await bench.start(bench.workflow(bench.node("total", "integral@^1", ["power"])))
    await bench.publish(*((step * 1000, float(step)) for step in range(5)))

    async def counted(time: int) -> tuple[int, bool]:
        found = levels(await told(bench, "total", time))["power"]
        return found.count, found.more

    assert await counted(3000) == (4, False)
    assert await counted(4000) == (4, True)
    document = explanation_json(await told(bench, "total", 4000, rows=1), bench.workflows)
    assert "power[room=a]: 4 or more readings up to 2020-09-13T12:26:44Z" in explanation_text(document)
    assert [row["value"] for part in ("first", "last") for row in document["levels"][1][part]] == [0.0, 4.0]
    monkeypatch.setattr("hs_stream.engine.explain._COUNTED_BYTES", 10)
    assert await counted(3000) == (1, True)


async def test_a_long_value_is_cut(bench: Bench) -> None:
    await bench.start(bench.workflow(bench.node("n", "copy@^1", ["power"])))
    await bench.publish((0, "x" * 5000))
    document = explanation_json(await told(bench, "n", 0), bench.workflows)
    assert (document["bytes"], len(document["begins"])) == (5002, 250)
    assert "... (5002 bytes)" in explanation_text(document)


async def test_where_there_is_no_value_the_nearest_are_named(bench: Bench) -> None:
    await chain(bench)
    with pytest.raises(NotFound, match="the nearest ones are at 2020-09-13T12:26:49Z and 2020-09-13T12:26:50Z"):
        await told(bench, "both", 9500)
    with pytest.raises(NotFound, match="the nearest one is at 2020-09-13T12:26:59Z"):
        await told(bench, "both", 99_500)


async def test_a_revised_value_says_how_often_and_a_stale_one_that_it_is(bench: Bench) -> None:
    await chain(bench)
    await bench.publish((7000, 70.0))
    explained = await told(bench, "both", 9000)
    document = explanation_json(explained, bench.workflows)
    assert (document["value"], document["revision"]) == (2 * (70 + 8 + 9) - 9.0, 1)
    assert "(revision 1)" in explanation_text(document)
    await bench.stop()
    await bench.start(*[replace(one, online=False) for one in bench.workflows])
    await bench.publish((7000, 7.0))
    assert (await told(bench, "both", 9000)).state == "stale"


async def test_without_an_engine_the_store_says_the_same(bench: Bench) -> None:
    await chain(bench)
    stream = StreamId("both", (("room", "a"),))
    running = await bench.engine.explain(stream, START + 9000)
    stored = await explain_stored(bench.store, bench.workflows, stream, START + 9000, Limits())
    assert explanation_json(stored, bench.workflows) == explanation_json(running, bench.workflows)
    with pytest.raises(NotFound, match="no workflow computes both"):
        await explain_stored(bench.store, [], stream, None, Limits())


async def test_the_text_says_it_all(bench: Bench) -> None:
    await chain(bench)
    document = explanation_json(await told(bench, "recent", 9000), bench.workflows)
    assert explanation_text(document).splitlines() == [
        "recent[room=a] at 2020-09-13T12:26:49Z is 48.0",
        "  by sliding_sum@1.0.0 of workflow w: width: 3s",
        "  reads double[room=a] (window 3s)",
        "",
        "double[room=a]: 3 values in (2020-09-13T12:26:46Z, 2020-09-13T12:26:49Z]",
        "  2020-09-13T12:26:47Z  14.0",
        "  2020-09-13T12:26:48Z  16.0",
        "  2020-09-13T12:26:49Z  18.0",
        "  by expression@1.0.0 of workflow w: expression: value * 2",
        "  reads power[room=a] (pointwise)",
        "",
        "power[room=a]: 3 readings in (2020-09-13T12:26:46Z, 2020-09-13T12:26:49Z]",
        "  2020-09-13T12:26:47Z  7.0",
        "  2020-09-13T12:26:48Z  8.0",
        "  2020-09-13T12:26:49Z  9.0",
        "  raw",
        "",
        "What would change it:",
        "  a reading of power[room=a] in (2020-09-13T12:26:46Z, 2020-09-13T12:26:49Z]",
        "  another tool version, parameter or input of a node above",
        "Not kept: when a reading arrived, in which message, and what it replaced.",
    ]


async def test_what_is_final_by_retention_no_reading_changes(bench: Bench) -> None:
    workflow = replace(
        bench.workflow(bench.node("n", "sliding_sum@^1", ["power"], width="3s")), retention={"power": 5000}
    )
    bench.clock.advance(20_000)
    await bench.start(workflow)
    await bench.publish(*((step * 1000, float(step)) for step in range(20)))
    await bench.pass_time(10_000)
    await bench.engine.forget()
    document = explanation_json(await told(bench, "n", 9000), bench.workflows)
    assert document["changes"] == [
        {
            "stream": "power[room=a]",
            "spans": [],
            "final": [["2020-09-13T12:26:46Z", "2020-09-13T12:26:49Z"]],
            "retention": "5s",
        }
    ]
    assert "  no reading of power[room=a]: it is final by retention" in explanation_text(document).splitlines()


async def test_what_held_as_a_window_began_is_at_its_begin_or_before_it(bench: Bench) -> None:
    await bench.start(bench.workflow(bench.node("n", "sliding_mean@^2", ["power"], width="1s", weight="time")))
    await bench.publish((1500, 1.0), (2000, 2.0), (2001, 3.0), (3000, 4.0))
    explained = await told(bench, "n", 3000)
    assert spans(explained.levels[1]) == [(1999, 3000)]
