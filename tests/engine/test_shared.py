"""What two workflows define equally is one stream; what they define differently is refused."""

from __future__ import annotations

from typing import Any

import pytest

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.plate import Plate
from hs_stream.core.stream import StreamId
from hs_stream.core.workflow import WorkflowDefinition, check_shared
from hs_stream.service.workflows.file import parse_workflow

from .conftest import REGISTRY, START, Bench

FIRST = """
workflow: first
plates:
  room: {max: 3}
  kind: {values: [a, b]}
sources:
  power: {plates: [room]}
  light: {plates: [room]}
nodes:
  tick: {tool: clock, with: {every: 1s}}
  double: {tool: expression, from: power, with: {expression: value * 2}}
  mean: {tool: sliding_mean, from: double, with: {width: 2s}}
  parts: {tool: splitter_of_dict, from: light, into: kind}
  total: {tool: aggregate, from: mean, over: room, with: {function: sum}}
publish:
  mean: {retain: true}
"""
SECOND = FIRST.replace("workflow: first", "workflow: second").replace("retain: true", "payload: value")


def workflow(text: str, path: str = "x.yaml") -> WorkflowDefinition:
    return parse_workflow(text, REGISTRY, path)


def test_equal_definitions_are_shared() -> None:
    check_shared(workflow(SECOND), workflow(FIRST))
    check_shared(workflow(SECOND.replace("retain: true", "payload: msgpack")), workflow(FIRST))
    check_shared(workflow("workflow: x\nsources: {other: {}}"), workflow(FIRST))


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("  light: {plates: [room]}", "  light: {}", 8, r"light .*on \(\) and on \(room\)"),
        ("  light: {plates: [room]}", "  light: {mqtt: 'x/{room}'}", 8, "light .*their mqtt differ"),
        ("max: 3", "max: 4", 7, "power .*their plates room differ"),
        ("values: [a, b]", "values: [a]", 13, "parts .*their plates kind differ"),
        ("value * 2", "value * 3", 11, "double .*their tools, parameters or plates differ"),
        ("width: 2s", "width: 3s", 12, "mean .*their tools"),
        (
            "mean: {tool: sliding_mean, from: double",
            "mean: {tool: sliding_mean, from: power",
            12,
            "mean .*from power and",
        ),
        ("  power: {plates: [room]}", "  power: {plates: [room]}\n  third: {}", 11, "tick .*begin differently"),
        ("workflow: second", "workflow: second\nstart: 2026-01-01T00:00:00Z", 11, "tick .*begin differently"),
    ],
)
def test_different_ones_are_refused_with_both_workflows_and_the_line(old: str, new: str, line: int, words: str) -> None:
    assert old in SECOND
    with pytest.raises(ConfigurationError, match=words) as caught:
        check_shared(workflow(SECOND.replace(old, new), "second.yaml"), workflow(FIRST, "first.yaml"))
    assert str(caught.value).startswith(f"second.yaml:{line}: ")
    assert "workflow first (first.yaml), differently" in str(caught.value)


def test_a_source_is_no_node_and_other_sources_make_other_plates() -> None:
    with pytest.raises(ConfigurationError, match="one is a source, the other a node"):
        check_shared(
            workflow("workflow: x\nplates: {room: {max: 3}}\nsources: {mean: {plates: [room]}}"), workflow(FIRST)
        )
    first = workflow(
        "workflow: a\nplates: {kind: {}}\nsources: {s: {}}\nnodes: {n: {tool: splitter_of_dict, from: s, into: kind}}"
    )
    text = "workflow: b\nplates: {kind: {}}\nsources: {s: {}, t: {plates: [kind]}}\n"
    with pytest.raises(ConfigurationError, match=r"n of workflow b .*other sources bring values of kind"):
        check_shared(workflow(text + "nodes: {n: {tool: splitter_of_dict, from: s, into: kind}}"), first)


def test_the_order_of_plates_that_keys_are_made_of_counts() -> None:
    def made(plates: dict[str, Plate], name: str) -> WorkflowDefinition:
        text = f"workflow: {name}\nplates: {{{', '.join(f'{plate}: {{}}' for plate in plates)}}}\n"
        text += f"sources: {{{name}_s: {{plates: [{', '.join(plates)}]}}}}\n"
        return workflow(
            f"{text}nodes: {{n: {{tool: aggregate, from: {name}_s, over: [a, b], with: {{function: sum}}}}}}"
        )

    one = made({"a": Plate("a"), "b": Plate("b")}, "x")
    other = made({"b": Plate("b"), "a": Plate("a")}, "x")
    assert one.fingerprints["n"] != other.fingerprints["n"]


async def test_both_see_what_is_computed_once(bench: Bench, evaluations: Any) -> None:
    second = SECOND.replace(
        "publish:", "  more: {tool: expression, from: mean, with: {expression: value + 1}}\npublish:"
    )
    await bench.start(workflow(FIRST), workflow(second))
    bench.clock.advance(10_000_000)
    await bench.publish(*((1000 * second, float(second)) for second in range(5)))
    computed = [name for name, _, end in evaluations() if end > 4000 and name != "tick"]
    assert sorted(computed) == ["double[room=a]", "mean[room=a]", "more[room=a]", "total"]
    assert await bench.contents("more[room=a]") == {0: 1.0, 1000: 2.0, 2000: 4.0, 3000: 6.0, 4000: 8.0}
    assert set(bench.engine.statistics().lag) == {"first", "second"}
    assert (await bench.verify()).clean


async def test_a_change_of_one_workflow_leaves_the_others_alone(bench: Bench, evaluations: Any) -> None:
    """What both have goes on as it was; exactly what the change touches, and what rests on that, is computed again."""
    second = SECOND.replace(
        "publish:",
        "  more: {tool: expression, from: mean, with: {expression: value + 1}}\n"
        "  most: {tool: aggregate, from: more, over: room, with: {function: max}}\npublish:",
    )
    await bench.start(workflow(FIRST), workflow(second))
    bench.clock.advance(10_000_000)
    await bench.publish(*((1000 * second, float(second)) for second in range(5)))
    before = {name: await bench.contents(name) for name in ("mean[room=a]", "more[room=a]", "most", "total")}
    await bench.stop()
    evaluations()
    await bench.start(workflow(FIRST), workflow(second.replace("value + 1", "value + 2")), run=False)
    stale = {status.stream.name for status in bench.engine.status() if status.stale}
    assert stale == {"more", "most"}
    for name, contents in before.items():
        assert await bench.contents(name) == contents, "old results are there until they are replaced"
    await bench.engine.settle()
    assert {name for name, start, end in evaluations() if start < 4000 <= end} == {"more[room=a]", "most"}
    assert await bench.contents("most") == {time: value + 1 for time, value in before["most"].items()}
    assert await bench.contents("total") == before["total"]
    await bench.stop()
    evaluations()
    await bench.start(workflow(FIRST), run=False)
    await bench.engine.settle()
    assert not [name for name, start, end in evaluations() if start < 4000 <= end], "a workflow that goes takes nothing"
    assert await bench.contents("total") == before["total"]


async def test_either_publishes_on_topics_of_its_own(bench: Bench) -> None:
    heard: list[Any] = []
    publish = bench.subscriber.publish

    async def listen(publications: Any) -> Any:
        heard.extend((one.workflow, one.plates, dict(one.options)) for one in publications)
        return await publish(publications)

    bench.subscriber.publish = listen  # type: ignore[method-assign]
    await bench.start(workflow(FIRST), workflow(SECOND.replace("mean: {payload", "total: {}\n  mean: {payload")))
    await bench.publish((0, 1.0))
    await bench.engine.published()
    assert ("first", ("a",), {"retain": True}) in heard
    assert ("second", ("a",), {"payload": "value"}) in heard
    assert ("second", (), {}) in heard, "publishing is either's: only the second one publishes the total"
    assert len(heard) == 3


async def test_a_full_plate_refuses_for_all_or_none(bench: Bench) -> None:
    other = SECOND.replace("  light: {plates: [room]}\n", "  light: {plates: [room]}\n  extra: {plates: [room]}\n")
    other = other.replace("  tick: {tool: clock, with: {every: 1s}}\n", "")
    await bench.start(workflow(FIRST), workflow(other))
    for room in "abc":
        await bench.publish((0, 1.0), room=room, source="extra")
    before = {status.stream for status in bench.engine.status()}
    await bench.publish((0, 1.0), room="d")
    assert {status.stream for status in bench.engine.status()} == before
    assert [letter.reason for letter in await bench.store.dead_letters(5)] == ["plate_full"]


async def test_demands_add_up(bench: Bench) -> None:
    """One wants it online, the other one only for an hour: it is online."""
    node = "nodes: {double: {tool: expression, from: power, with: {expression: value * 2}}}"
    rest = f"plates: {{room: {{}}}}\nsources: {{power: {{plates: [room]}}}}\n{node}"
    offline = workflow(f"workflow: offline\nonline: false\n{rest}")
    online = workflow(f"workflow: online\n{rest}")
    for order in ((offline, online), (online, offline)):
        await bench.start(*order)
        await bench.publish((0, 1.0))
        assert await bench.contents("double[room=a]") == {0: 2.0}
        await bench.stop()
    await bench.start(offline)
    await bench.publish((1000, 1.0))
    assert await bench.contents("double[room=a]") == {0: 2.0}, "nobody wants more"
    await bench.stop()
    await bench.start(online)
    await bench.engine.settle()
    assert await bench.contents("double[room=a]") == {0: 2.0, 1000: 2.0}
    assert (await bench.verify()).clean


async def test_a_clock_begins_with_the_readings_of_sources_that_are_shared(bench: Bench) -> None:
    sources = "plates: {room: {}}\nsources: {power: {plates: [room]}}\n"
    first = workflow(f"workflow: first\n{sources}")
    second = workflow(f"workflow: second\n{sources}nodes: {{tick: {{tool: clock, with: {{every: 1s}}}}}}")
    await bench.start(first, second)
    await bench.publish((2500, 1.0))
    await bench.pass_time(0)
    assert min(await bench.contents("tick")) == 3000
    assert bench.engine.find(StreamId("tick")).workflow == "second"
    await bench.engine.purge(StreamId.parse("power[room=a]"), START, START + 3000)
    await bench.publish((4500, 1.0))
    await bench.pass_time(0)
    assert min(await bench.contents("tick")) == 5000
    assert (await bench.verify()).clean
