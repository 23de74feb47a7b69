"""Exactly what is missing is computed, and what is there is what a computation from scratch gives."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from hs_stream import HyperStream
from hs_stream.core.errors import ConfigurationError, NotFound, ToolError
from hs_stream.core.time import TimeInterval, TimeIntervals
from hs_stream.hyperstream import NotComputedWarning, Stream
from hs_stream.hyperstream.tools import BoundTool

from .conftest import T0, at

Opened = Callable[..., HyperStream]


def entries(hs: HyperStream, stream: str) -> list[tuple[str, int, int, int, str]]:
    """History of ``stream``, oldest first: tool, start and end in seconds after `T0`, instances, cause."""
    found = reversed(hs.history(stream=stream))
    return [
        (item.tool, (item.start - T0) // 1000, (item.end - T0) // 1000, item.instances, item.cause) for item in found
    ]


def test_only_what_is_missing_is_computed_and_history_says_so(hs: HyperStream) -> None:
    clock = hs.tools.clock(every="1s")
    ticker = clock.execute(sources=[], sink=hs.get_or_create_stream("ticker"), interval=(at(0), at(60)))
    clock.execute(sources=[], sink=ticker, interval=(at(30), at(90)))
    clock.execute(sources=[], sink=ticker, interval=(at(0), at(90)))
    pin = clock.tool.pin
    assert entries(hs, "ticker") == [(pin, 0, 60, 60, "request"), (pin, 60, 90, 30, "request")]
    assert {item.session for item in hs.history()} == {hs.current_session.id if hs.current_session else ""}
    assert ticker.window().timestamps() == [at(second) for second in range(1, 91)]
    assert ticker.calculated_intervals == TimeIntervals([(at(0), at(90))])


def test_a_view_computes_on_request_only(hs: HyperStream) -> None:
    hs.get_or_create_stream("power").write([(at(second), float(second)) for second in range(100)])
    mean = hs.tools.sliding_mean(width="10s").execute([hs["power"]], "mean", (at(0), at(20)))
    with pytest.warns(NotComputedWarning, match="is not computed"):
        assert mean.window((at(0), at(50))).timestamps()[-1] == at(20)
    assert mean.window((at(0), at(50))).missing() == TimeIntervals([(at(20), at(50))])
    view = mean.window((at(0), at(50)), compute=True)
    assert mean.window().last().timestamp == at(20)
    assert view.last().value == np.mean(np.arange(41, 51))
    assert not view.missing()
    assert [row[1:4] for row in entries(hs, "mean")] == [(0, 20, 20), (20, 50, 30)]


def test_late_and_corrected_readings_take_back_exactly_what_they_touch(hs: HyperStream) -> None:
    power = hs.get_or_create_stream("power")
    power.write([(at(second), 1.0) for second in range(61)])
    window = (at(0), at(60))
    total = hs.tools.sliding_sum(width="10s", every="1s").execute([power], "total", window)
    assert set(total.window((at(10), at(60))).values()) == {10.0}
    power.write([(at(30), 5.0), (at(44.5), 2.0)])
    touched = TimeIntervals([(T0 + 29_999, T0 + 39_999), (T0 + 44_499, T0 + 54_499)])
    assert total.window(window).missing() == touched
    values = dict(zip(range(1, 61), total.window(window, compute=True).values(), strict=True))
    assert values[29] == 10.0
    assert values[30] == values[39] == 14.0
    assert values[40] == 10.0
    assert values[45] == values[54] == 12.0
    assert total.window(window).count() == 60


def random_pieces(seed: int) -> list[tuple[Any, Any]]:
    """Windows in random order that cover two minutes, overlapping."""
    rng = random.Random(seed)
    cuts = sorted({0, 120_000, *(rng.randrange(1, 120_000) for _ in range(6))})
    pieces = [(T0 + first, T0 + last + rng.choice([0, 5000])) for first, last in itertools.pairwise(cuts)]
    rng.shuffle(pieces)
    return pieces


@pytest.mark.parametrize("seed", range(6))
def test_two_windows_in_random_pieces_equal_one_computation_from_scratch(hs: HyperStream, seed: int) -> None:
    """Over pointwise, window, previous and fold tools, and streams without inputs; readings come in between."""
    rng = random.Random(seed)
    readings = [(T0 + rng.randrange(-20_000, 130_000), rng.choice([0.5, 1.0, -3.25, 7.0])) for _ in range(300)]
    tools: dict[str, tuple[str, dict[str, Any], str]] = {
        "double": ("expression", {"expression": "value * 2"}, "power"),
        "mean": ("sliding_mean", {"width": "7s", "every": "2s"}, "double"),
        "slope": ("derivative", {}, "mean"),
        "ticks": ("clock", {"every": "3s"}, ""),
        "second": ("expression", {"expression": "time.second"}, "ticks"),
        "sum": ("sliding_sum", {"width": "10s"}, "second"),
        "smooth": ("ewma", {"half_life": "5s"}, "second"),
    }

    def execute(over: HyperStream, name: str, interval: Any) -> Stream:
        tool, parameters, source = tools[name]
        bound: BoundTool = getattr(over.tools, tool)(**parameters)
        return bound.execute([source] if source else [], name, interval)

    hs.get_or_create_stream("power").write(readings[:100])
    for name in tools:  # defined in this order; what a fold over a clock gives follows from where the clock begins
        execute(hs, name, (T0, T0 + 1))
    for piece in random_pieces(seed):
        for name in rng.sample(list(tools), 3):
            execute(hs, name, piece)
        hs["power"].write(rng.sample(readings, 40))
    hs["power"].write(readings)
    whole = (T0, T0 + 120_000)
    with HyperStream() as scratch:
        scratch.get_or_create_stream("power").write(readings)
        for name in tools:
            expected = execute(scratch, name, whole).window(whole).items()
            assert len(expected) > 10, name
            assert hs[name].window(whole, compute=True).items() == expected, name


def test_a_fold_over_a_clock_begins_where_it_was_first_asked_for(hs: HyperStream) -> None:
    hs.tools.clock(every="10s").execute(sink="ticks", interval=(at(600), at(660)))
    one = hs.tools.expression(expression="1").execute(["ticks"], "one", (at(600), at(660)))
    total = hs.tools.integral(unit="1s").execute([one], "seconds", (at(600), at(660)))
    assert total.window().last().value == 50.0
    # It begins earlier now, where nothing is asked for that would show it.
    hs.tools.clock(every="10s").execute(sink="ticks", interval=(at(501), at(505)))
    assert total.window((at(600), at(660))).missing()
    assert total.window((at(600), at(660)), compute=True).last().value == 150.0


def test_windows_over_a_clock_are_whole_from_the_start(hs: HyperStream) -> None:
    with hs.create_workflow("ticking") as w:
        w.factor("clock", every="1s").sliding_count(width="10s", name="ten")
    w.execute((at(60), at(70)))
    assert set(hs["ten"].window().values()) == {10}
    w.execute((at(0), at(30)), ["ten"])
    assert set(hs["ten"].window().values()) == {10}
    assert [item.cause for item in hs.history(stream="ten")] == ["request", "request"]


def test_grids_go_on_after_the_last_reading_up_to_what_is_asked_for(hs: HyperStream) -> None:
    hs.get_or_create_stream("power").write([(at(0), 4.0), (at(10), 8.0)])
    mean = hs.tools.sliding_mean(width="1m", every="10s").execute(["power"], "mean", (at(-10), at(90)))
    assert mean.window().values() == [4.0, 6.0, 6.0, 6.0, 6.0, 6.0, 8.0]
    assert mean.calculated_intervals == TimeIntervals([(at(-10), at(90))])
    hs["power"].write([(at(75), 10.0)])
    assert mean.window((at(70), at(90)), compute=True).values() == [10.0, 10.0]


def test_another_tool_into_a_stream_defines_it_anew(hs: HyperStream) -> None:
    window = (at(0), at(60))
    ticks = hs.tools.clock(every="10s").execute(sink="ticks", interval=window)
    count = hs.tools.sliding_count(width="1m").execute([ticks], "count", window)
    assert count.window().last().value == 6
    hs.tools.clock(every="20s").execute(sink="ticks", interval=window)
    assert ticks.window(window).count() == 3
    assert count.window(window).missing() == TimeIntervals([window])
    assert count.window(window, compute=True).values() == [3, 3, 3]


def test_plates(hs: HyperStream) -> None:
    for room, offset in (("kitchen", 0.0), ("hall", 10.0)):
        stream = hs.get_or_create_stream("climate", house="1", room=room)
        stream.write([(at(second), {"temperature": offset + second}) for second in range(0, 60, 10)])
    window = (at(-1), at(60))
    component = hs.tools.component(key="temperature")
    kitchen = component.execute(["climate[house=1,room=kitchen]"], "temperature", window)
    assert str(kitchen) == "temperature[house=1,room=kitchen]"
    assert kitchen.window().count() == 6
    assert hs["temperature[house=1,room=hall]"].window().count() == 0
    mean = hs.tools.aggregate("mean").execute(["temperature"], "mean", window, over="room")
    assert str(mean) == "mean[house=1]"
    assert mean.window().values() == [5.0 + second for second in range(0, 60, 10)]
    assert hs["temperature[house=1,room=hall]"].window().count() == 6
    assert [str(stream) for stream in hs.streams("temperature", room="hall")] == ["temperature[house=1,room=hall]"]
    everywhere = component.execute(["climate"], "temperature", window)
    with pytest.raises(NotFound, match=r"there is temperature\[house=1,room=hall\], temperature"):
        everywhere.window().items()
    with pytest.raises(ConfigurationError, match="differ in their room"):
        component.execute(["climate[house=1,room=hall]"], "temperature[house=1,room=kitchen]", window)


def test_a_workflow_in_python(hs: HyperStream) -> None:
    with hs.create_workflow("comfort") as w:
        room = w.plate("room")
        climate = w.source("climate", plates=[room])
        smooth = climate.component(key="t", name="t").sliding_mean(width="20s", name="smooth")
        smooth.aggregate("mean", over=room, name="all")
    with pytest.raises(NotFound, match="they come with readings"):
        w.execute((at(0), at(60)))
    for name in "ab":
        hs.get_or_create_stream(climate, room=name).write([(at(s), {"t": float(s)}) for s in range(0, 60, 10)])
    assert hs["smooth[room=a]"].window().items() == []
    found = w.execute((at(-1), at(60)), [smooth])
    assert [str(stream) for stream in found] == ["smooth[room=a]", "smooth[room=b]"]
    assert hs["all"].window().items() == []
    assert hs["all"].window((at(-1), at(60)), compute=True).values() == [0.0, 5.0, 15.0, 25.0, 35.0, 45.0]
    with pytest.raises(NotFound, match="did you mean smooth"):
        w.execute((at(0), at(1)), ["smoth"])
    with pytest.raises(NotFound, match="did you mean comfort"):
        hs.execute_workflow("comfrt", (at(0), at(1)))


def test_plates_grow_by_what_a_request_reads(hs: HyperStream) -> None:
    with hs.create_workflow("cities") as w:
        country = w.plate("country", source="countries")
        city = w.plate("city", parent=country, source="cities")
        rows = w.source("rows")
        rows.plate_values(name="countries")
        by_country = rows.splitter_of_dict(into=country, name="by_country")
        by_country.plate_values(name="cities")
        by_city = by_country.splitter_of_dict(into=city, name="by_city")
        by_city.aggregate("mean", over=city, name="mean")
    row = {"be": {"Ghent": 9.0}, "uk": {"Bristol": 10.0, "Leeds": 8.0}}
    hs.get_or_create_stream("rows").write([(at(1), row)])
    window = (at(0), at(5))
    w.execute(window, ["mean"])
    assert {stream.meta["country"]: stream.window(window).values() for stream in hs.streams("mean")} == {
        "be": [9.0],
        "uk": [9.0],
    }
    hs["rows"].write([(at(2), {"uk": {"Hull": 7.0}})])
    uk = hs.find_stream("mean", country="uk")
    assert uk.window(window, compute=True).values() == [9.0, 7.0]
    w.execute(window)
    assert hs.find_stream("by_city", country="uk", city="Hull").window(window).values() == [7.0]
    # A value is known from the first reading on that names it, long before what is asked for.
    hs["rows"].write([(at(3), {"fr": {"Lille": 3.0}}), (at(7000), {"fr": {"Lille": 4.0}})])
    assert w.execute((at(6000), at(8000)))
    assert hs.find_stream("by_city", country="fr", city="Lille").window((at(6000), at(8000))).values() == [4.0]


def test_a_failed_interval_raises_and_the_rest_is_computed(hs: HyperStream) -> None:
    hs.get_or_create_stream("power").write([(at(0), 1.0), (at(1), "oops"), (at(2), 3.0)])
    slope = hs.tools.sliding_mean(width="1s")
    with pytest.raises(ToolError, match=r"oops|number"):
        slope.execute(["power"], "mean", (at(-1), at(3)))
    assert hs["mean"].window().values() == [1.0, 3.0]
    assert hs["mean"].status.failed == TimeIntervals([(T0 + 999, T0 + 1000)])
    with pytest.raises(ToolError):
        hs["mean"].window((at(-1), at(3)), compute=True).items()
    hs["power"].write([(at(1), 2.0)])
    assert hs["mean"].window((at(-1), at(3)), compute=True).values() == [1.0, 2.0, 3.0]


def test_a_purge_is_recomputed_on_request(hs: HyperStream) -> None:
    power = hs.get_or_create_stream("power")
    power.write([(at(second), 1.0) for second in range(10)])
    window = (at(-1), at(9))
    total = hs.tools.sliding_sum(width="2s").execute([power], "total", window)
    total.purge((at(3), at(5)))
    assert total.window().count() == 8
    assert total.window(window, compute=True).count() == 10
    power.purge((at(4), at(5)))
    assert total.window(window).missing()
    assert total.window(window, compute=True).values() == [1.0, 2.0, 2.0, 2.0, 2.0, 1.0, 2.0, 2.0, 2.0]


def test_the_next_session_knows_what_was_executed(sqlite_url: str, opened: Opened) -> None:
    with HyperStream(sqlite_url) as hs:
        hs.tools.clock(every="1s").execute(sink="ticker", interval=(at(0), at(60)))
        hs.tools.sliding_count("10s").execute(["ticker"], "count", (at(10), at(60)))
        hs.get_or_create_stream("power").write({at(0): 1.0, at(1): 3.0})
        hs.tools.sliding_mean(width="1m").execute(["power"], "mean", (at(-1), at(5)))
    hs = opened(sqlite_url)
    assert hs["ticker"].status.tool == hs.tools.clock(every="1s").tool.pin
    assert hs["count"].window((at(10), at(70)), compute=True).count() == 60
    assert [row[1:4] for row in entries(hs, "ticker")] == [(0, 60, 60), (60, 70, 10)]
    hs.tools.clock(every="1s").execute(sink="ticker", interval=(at(0), at(70)))
    assert len(entries(hs, "ticker")) == 2
    # Nobody has asked for it in this session, and a late reading takes it back nevertheless.
    hs["power"].write([(at(0.5), 5.0)])
    assert hs["mean"].window((at(-1), at(5))).missing() == TimeIntervals([(T0 + 499, T0 + 5000)])
    assert [session.active for session in hs.sessions] == [True, False]
    assert hs.sessions[1].counters["readings"] == 3  # the begin of the ticker is one
    assert len(hs.sessions[1].history) == 3


def test_an_interval_is_what_people_write(hs: HyperStream) -> None:
    ticks = hs.tools.clock(every="1s").execute(sink="ticks", interval="-30s")
    assert 19 <= ticks.window("-20s").count() <= 20
    assert 19 <= ticks.window(("-25s", "-5s")).count() <= 21
    window = TimeInterval(at(0), at(2))
    assert hs.tools.clock(every="1s").execute((), ticks, window).window(window).count() == 2
    for wrong, message in (
        ((at(2), at(1)), "start < end"),
        ("tomorrow", "is no interval"),
        ("1h", "is no interval"),
        (("2026-01-01T00:00:00", "now"), "no time zone"),
        ((at(0).replace(tzinfo=None), at(1)), "naive datetime"),
        ((at(0), "inf"), "a start and an end"),
        (None, "a start and an end"),
        ((1.5, at(0)), "an instant is"),
        (3, "is no interval"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            ticks.window(wrong, compute=True)  # type: ignore[arg-type]


# --- alignment streams ---


WITH_ALIGNMENT: dict[str, dict[str, Any]] = {
    "relative_window": {"relative_start": "-2s", "relative_end": "0s"},
    "last_value": {},
    "as_of_join": {},
    "aligning_window": {},
    "asset_writer": {"value": 1},
    "meta_instance_from_list": {"values": ["x"]},
    "betavariate": {"alpha": 2, "beta": 5},
    "custom": {"function": "hs_stream_tools.random_generators:day_curve"},
    "expovariate": {"lambd": 0.2},
    "gammavariate": {"alpha": 3, "beta": 2},
    "paretovariate": {"alpha": 3},
    "randint": {"a": 1, "b": 6},
    "randrange": {"start": 3},
    "uniform": {"a": 18, "b": 22},
    "vonmisesvariate": {"mu": 0, "kappa": 4},
    "weibullvariate": {"alpha": 6, "beta": 2},
    **{name: {} for name in ("gauss", "lognormvariate", "normalvariate", "random", "triangular")},
    **{name: {"max_width": "5s"} for name in ("sliding_listify", "sliding_sink")},
    "sliding_apply": {"function": "sum", "max_width": "5s"},
}


@pytest.fixture(scope="module")
def memory() -> Iterator[HyperStream]:
    with HyperStream() as opened:
        yield opened


@pytest.mark.parametrize("name", sorted(WITH_ALIGNMENT))
def test_the_alignment_stream_is_put_where_the_tool_wants_it(memory: HyperStream, name: str) -> None:
    """It says when there are outputs: as the first input by hand, and as ``alignment_stream``, the same comes out."""
    hs, interval = memory, (at(0), at(10))
    clock = hs.tools.clock(every="5s").execute([], "clock", interval)
    if name.startswith("sliding"):
        clock = hs.tools.aligning_window(lower="-5s").execute([clock], "windows", interval)
    power = hs.get_or_create_stream("power")
    power.write([(at(second), float(second)) for second in range(11)])
    tool = getattr(hs.tools, name)(**WITH_ALIGNMENT[name])
    others = [power] if tool.tool.arity == 2 else []
    aligned = tool.execute(others, f"{name}_aligned", interval, alignment_stream=clock)
    by_hand = tool.execute([clock, *others], f"{name}_by_hand", interval)
    assert aligned.window(interval).items() == by_hand.window(interval).items()
    times = aligned.window(interval).timestamps()
    assert set(times) <= {at(5), at(10)}
    assert times or name == "sliding_sink"


def test_every_tool_with_an_alignment_stream_is_tried(memory: HyperStream) -> None:
    found = {tool.name for tool in memory._workspace.registry if tool.alignment is not None}
    assert found == set(WITH_ALIGNMENT)


def test_a_relative_window_lies_around_its_alignment_stream(hs: HyperStream) -> None:
    interval = (at(0), at(10))
    clock = hs.tools.clock(every="5s").execute([], "clock", interval)
    hs.get_or_create_stream("power").write([(at(second), float(second)) for second in range(11)])
    tool = hs.tools.relative_window("-2s", "0s")
    found = tool.execute(["power"], "around", interval, alignment_stream=clock).window(interval)
    assert found.items() == [(at(5), [4.0, 5.0]), (at(10), [9.0, 10.0])]


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("aggregate", {"function": "mean"}, "aggregate has no alignment stream .* takes one or more"),
        ("aligned_merge", {}, "aligned_merge has no alignment stream"),
        ("component", {"key": "t"}, "component has no alignment stream .* takes 1"),
        ("clock", {"every": "1s"}, "clock has no alignment stream .* takes none"),
        ("random", {"every": "1s"}, r"random takes 0 input\(s\), not 1"),
    ],
)
def test_a_tool_without_an_alignment_stream_says_so(
    memory: HyperStream, name: str, parameters: dict[str, Any], words: str
) -> None:
    """There it was ignored; an aggregate would take it for one more stream to aggregate."""
    memory.get_or_create_stream("raw").write([(at(0), 1.0)])
    with pytest.raises(ConfigurationError, match=words):
        getattr(memory.tools, name)(**parameters).execute([], "out", (at(0), at(10)), alignment_stream="raw")


def test_each_plate_value_draws_its_own_numbers_in_whatever_order_they_join(opened: Opened) -> None:
    interval = (at(0), at(10))
    found = []
    for rooms in (["a", "b", "c"], ["c", "a", "b"]):
        hs = opened()
        for room in rooms:
            hs.get_or_create_stream("climate", room=room).write([(at(second), 0.0) for second in range(1, 11)])
            hs.tools.random(seed=7).execute(["climate"], "noise", interval)
        found.append({room: hs.find_stream("noise", room=room).window(interval).values() for room in sorted(rooms)})
    assert found[0] == found[1]
    assert len({value for values in found[0].values() for value in values}) == 30
