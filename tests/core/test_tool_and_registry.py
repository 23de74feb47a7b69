"""Parameters of tools, the base classes' loops, and versions side by side."""

from __future__ import annotations

import itertools
import math
import types
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import numpy as np
import pytest

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.errors import ConfigurationError, UnknownToolError
from hs_stream.core.registry import ToolRegistry, parse_pin
from hs_stream.core.time import MAX_TIME, MIN_TIME, Grid, TimeInterval
from hs_stream.core.tool import (
    SKIP,
    Drive,
    Duration,
    FoldTool,
    MapTool,
    OnGrid,
    Previous,
    PreviousTool,
    Sources,
    Tool,
    Window,
    WindowTool,
    grid_times_near,
)
from hs_stream.core.value import Value

ALL = TimeInterval(MIN_TIME, MAX_TIME)


@dataclass(frozen=True, kw_only=True)
class Many(MapTool):
    """Has a parameter of every kind."""

    name = "many"
    version = "1.0.0"
    number: float
    count: int = 1
    text: str = "x"
    flag: bool = False
    length: Duration = Duration(1000)
    maybe: Duration | None = None
    either: str | int = 0
    choice: Literal["a", "b"] = "a"
    names: tuple[str, ...] = ()
    anything: Any = None

    def map(self, value: Value) -> Value:
        return SKIP if value == 0 else value


def test_build_and_parameters_are_inverse() -> None:
    given = {
        "number": 2,
        "count": 3,
        "text": "y",
        "flag": True,
        "length": "1h30m",
        "maybe": timedelta(seconds=2),
        "either": "k",
        "choice": "b",
        "names": ["p", "q"],
        "anything": {"a": [1, 2.5]},
    }
    tool = Many.build(given)
    assert (tool.number, tool.length, tool.maybe, tool.names) == (2.0, 5_400_000, 2000, ("p", "q"))
    parameters = tool.parameters()
    assert parameters["length"] == "1h30m"
    assert parameters["names"] == ["p", "q"]
    assert Many.build(parameters) == tool
    assert Many.build(Many.build({"number": 1.5}).parameters()) == Many(number=1.5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "many needs the parameter 'number'"),
        ({"number": 1, "nubmer": 1}, "many has no parameter 'nubmer' .its parameters are number, count"),
        ({"number": "1"}, "parameter number: '1' is not a number"),
        ({"number": True}, "parameter number: True is not a number"),
        ({"number": math.inf}, "parameter number: inf is not a finite number"),
        ({"number": 1, "count": 1.0}, "parameter count: 1.0 is not a whole number"),
        ({"number": 1, "count": True}, "parameter count: True is not a whole number"),
        ({"number": 1, "flag": 1}, "parameter flag: 1 is not true or false"),
        ({"number": 1, "length": "soon"}, "parameter length: 'soon' is not a duration"),
        ({"number": 1, "maybe": "soon"}, "parameter maybe: 'soon' is not a duration"),
        ({"number": 1, "choice": "c"}, "parameter choice: 'c' is not one of 'a', 'b'"),
        ({"number": 1, "names": "pq"}, "parameter names: 'pq' is not a list"),
        ({"number": 1, "names": [1]}, "parameter names: 1 is not text"),
        ({"number": 1, "anything": {1}}, "parameter anything: : set cannot be stored"),
    ],
)
def test_wrong_parameters_say_which(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Many.build(given)


def test_numbers_of_a_duration_are_seconds() -> None:
    assert Many.build({"number": 1, "length": 2.5}).length == 2500


@dataclass(frozen=True, kw_only=True)
class Content(WindowTool):
    """What the window holds."""

    name = "content"
    version = "1.0.0"

    def reduce(self, window: Batch, time: int) -> Value:
        return [t for t, _ in window]


def test_window_is_half_open() -> None:
    source = Batch.of([(1000, 1), (2000, 2), (3000, 3)])
    got = Content(width=Duration(2000)).evaluate(ALL, [source])
    assert list(got) == [(1000, [1000]), (2000, [1000, 2000]), (3000, [2000, 3000])]
    grid = Content(width=Duration(1500), every=Duration(1000)).evaluate(ALL, [source])
    assert list(grid) == [(1000, [1000]), (2000, [1000, 2000]), (3000, [2000, 3000]), (4000, [3000])]


def test_window_on_an_infinite_interval_costs_by_its_readings() -> None:
    source = Batch.of([(0, 1), (10**15, 2)])
    got = Content(width=Duration(60_000), every=Duration(1000)).evaluate(ALL, [source])
    assert len(got) == 120


@pytest.mark.parametrize("lookahead", [0, 70, 500])
def test_grid_times_near_finds_every_filled_window(lookahead: int) -> None:
    random = np.random.default_rng(5)
    for _ in range(50):
        times = np.unique(random.integers(-3000, 3000, 8))
        grid, lookback = Grid(int(random.integers(1, 200))), int(random.integers(1, 400))
        start, end = sorted(random.integers(-4000, 4000, 2).tolist())
        interval = TimeInterval(start, end + 1)
        got = grid_times_near(grid, times, interval, lookback, lookahead).tolist()
        needed = [
            t for t in grid.times(start, end + 1).tolist() if ((times > t - lookback) & (times <= t + lookahead)).any()
        ]
        assert set(needed) <= set(got)
        assert got == sorted(set(got))
        assert set(got) <= set(grid.times(start, end + 1).tolist())


def test_supports_refuse_what_makes_no_sense() -> None:
    for wrong in ((-1, 0), (0, 0), (1, -1)):
        with pytest.raises(ConfigurationError, match="lookback >= 0 and lookahead >= 0"):
            Window(*wrong)
    assert str(Window(1000, 500)) == "window 1s +500ms"
    assert str(Previous(3)) == "previous 3"


@dataclass(frozen=True, kw_only=True)
class LastThree(PreviousTool):
    """The last three times."""

    name = "last_three"
    version = "1.0.0"
    count = 3

    def combine(self, previous: Sequence[tuple[int, Value]], time: int) -> Value:
        return SKIP if time == 40 else [t for t, _ in previous]


def test_previous_reaches_before_the_interval() -> None:
    source = Batch.of([(t, t) for t in (10, 20, 30, 40, 50)])
    got = LastThree().evaluate(TimeInterval(10, 50), [source])
    assert list(got) == [(20, [10, 20]), (30, [10, 20, 30]), (50, [30, 40, 50])]
    assert LastThree().support(0) == Previous(3)
    assert LastThree().evaluate(TimeInterval(50, 60), [source]) == NOTHING


@dataclass(frozen=True, kw_only=True)
class Total(FoldTool):
    """A running total of what is not 0."""

    name = "total"
    version = "1.0.0"

    def initial(self) -> Value:
        return 0

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        return state + value, SKIP if value == 0 else state + value


def test_fold() -> None:
    source = Batch.of([(1, 5), (2, 0), (3, 7)])
    assert list(Total().evaluate(TimeInterval(1, 9), [source])) == [(3, 12)]
    state, outputs = Total().run(100, source)
    assert (state, list(outputs)) == (112, [(1, 105), (3, 112)])


@dataclass(frozen=True, kw_only=True)
class Held(Total):
    """The total at every tenth millisecond, for 25 ms after the last instance."""

    name = "held"

    def drive(self) -> Drive:
        return OnGrid(Grid(10))

    def initial(self) -> Value:
        return None

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        return [time, value + (state[1] if state else 0)], SKIP

    def quiet(self, state: Value, start: int, end: int) -> list[tuple[int, Value]]:
        if state is None:
            return []
        return [(time, state[1]) for time in Grid(10).times(start, min(end, state[0] + 25)).tolist()]


def test_fold_on_a_grid() -> None:
    """An instance at a grid instant is in its state; silence is told piece by piece or at once."""
    source = Batch.of([(5, 1), (20, 2), (21, 4), (70, 8)])
    whole = [(10, 1), (20, 3), (30, 7), (40, 7), (70, 15), (80, 15), (90, 15)]
    assert list(Held().evaluate(ALL, [source])) == whole
    assert Held().run_over(None, NOTHING, MIN_TIME, 1000) == (None, NOTHING)
    for cuts in ([19, 20, 21], [25], [4, 5, 69, 70], [45, 60], list(range(1, 100))):
        state: Value = None
        pieces: list[tuple[int, Value]] = []
        for start, end in itertools.pairwise([MIN_TIME, *cuts, 1000]):
            state, piece = Held().run_over(state, source.slice(start, end), start, end)
            pieces += list(piece)
        assert pieces == whole


def test_map_skips() -> None:
    tool = Many(number=1.0)
    assert list(tool.evaluate(ALL, [Batch.of([(1, 0), (2, 3)])])) == [(2, 3)]
    assert (tool.pin, Many.summary(), repr(SKIP)) == ("many@1.0.0", "Has a parameter of every kind.", "SKIP")
    assert Sources([NOTHING], ["a"]).keys == ("a",)


# --- registry ---


def versions(*names: str) -> list[type[Tool]]:
    return [type(f"V{i}", (Total,), {"name": "total", "version": version}) for i, version in enumerate(names)]


def test_newest_allowed_version_wins() -> None:
    registry = ToolRegistry()
    for tool in versions("1.0.0", "1.2.3", "2.0.0", "0.9.0"):
        registry.register(tool)
    assert registry.resolve("total").version == "2.0.0"
    assert registry.resolve("total@^1").version == "1.2.3"
    assert registry.resolve("total@==1.0.0").version == "1.0.0"
    assert registry.resolve("total@^0.9").version == "0.9.0"
    assert [tool.version for tool in registry.versions("total")] == ["0.9.0", "1.0.0", "1.2.3", "2.0.0"]
    assert "total" in registry
    assert registry.names() == ["total"]
    with pytest.raises(UnknownToolError, match=r"no version of total satisfies '\^3' .there is 0.9.0, 1.0.0"):
        registry.resolve("total@^3")
    with pytest.raises(UnknownToolError, match="did you mean total"):
        registry.resolve("totl")


def test_development_versions_can_be_refused() -> None:
    registry = ToolRegistry(allow_development=False)
    for tool in versions("0.9.0"):
        registry.register(tool)
    with pytest.raises(UnknownToolError, match=r"need tools\.allow_development_tools = true"):
        registry.resolve("total")


def test_one_version_has_one_class() -> None:
    registry = ToolRegistry()
    first, second = versions("1.0.0", "1.0.0")
    registry.register(first)
    registry.register(first)
    with pytest.raises(ConfigurationError, match=r"total@1\.0\.0 is both"):
        registry.register(second)
    with pytest.raises(ConfigurationError, match="'one' is not a semantic version"):
        registry.register(versions("one")[0])
    with pytest.raises(ConfigurationError, match="needs a name and a version"):
        registry.register(versions("")[0])


def test_module_gives_its_own_tools_only() -> None:
    module = types.ModuleType("somewhere")
    mine = type("Mine", (Total,), {"name": "mine", "version": "1.0.0", "__module__": "somewhere"})
    module.Mine, module.Total, module.MapTool = mine, Total, MapTool  # type: ignore[attr-defined]
    registry = ToolRegistry()
    assert registry.add_module(module) == [mine]
    assert list(registry) == [mine]


def test_pins() -> None:
    assert parse_pin("a") == ("a", "*")
    assert parse_pin(" a @ ^1.2 ") == ("a", "^1.2")
    with pytest.raises(ConfigurationError, match="'banana' is not a version range"):
        parse_pin("a@banana")
