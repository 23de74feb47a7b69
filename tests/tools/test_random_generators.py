"""Random generators: values that belong to their time, the distributions they come from, and what they refuse."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from hs_stream.builder import Workflow
from hs_stream.core.batch import Batch
from hs_stream.core.errors import ConfigurationError, ToolError
from hs_stream.core.plate import Plate
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME, Grid, TimeInterval
from hs_stream.core.tool import SKIP, FromInput, OnGrid, Pointwise
from hs_stream.core.value import Value
from hs_stream.core.workflow import NodeDefinition, SourceDefinition, WorkflowDefinition
from hs_stream.engine.engine import EngineSettings
from hs_stream.engine.ports import Reading, Store
from hs_stream.plugins import default_registry
from hs_stream.store.memory import MemoryStore
from hs_stream.testing.check_tool import check_tool
from hs_stream.testing.history import History
from hs_stream_tools.random_generators import RandomGenerator

REGISTRY = default_registry()
NOW = 1_600_000_000_000
DAY = 86_400_000

GOLDEN: list[tuple[str, dict[str, Any], list[Value]]] = [
    ("betavariate", {"alpha": 2, "beta": 5}, [0.06263056998278789, 0.3690494549475338, 0.5186345766073025]),
    (
        "betavariate",
        {"alpha": 0.5, "beta": 0.5, "seed": 1},
        [0.718737879836872, 0.9407658765681305, 0.9187418047025083],
    ),
    (
        "custom",
        {"function": "hs_stream_tools.random_generators:day_curve"},
        [7.929190999099402, 8.223395530471825, 16.75098272671322],
    ),
    (
        "custom",
        {"function": "hs_stream_tools.random_generators:day_curve", "seed": 1},
        [8.407262012347266, 6.889783103058208, 17.522851225486907],
    ),
    ("expovariate", {"lambd": 0.2}, [6.3453718837506585, 0.9298300429426959, 1.3752498773560407]),
    ("expovariate", {"lambd": -4, "seed": 1}, [-0.0776954988174794, -0.3568352542566012, -0.17115634011036646]),
    ("gammavariate", {"alpha": 3, "beta": 2}, [4.483792423539516, 3.7639338027496185, 4.3774684098100645]),
    ("gammavariate", {"alpha": 1, "beta": 2, "seed": 1}, [0.05491322620659357, 4.064342743162353, 1.2799305607703426]),
    ("gammavariate", {"alpha": 0.5, "beta": 2, "seed": -7}, [1.815605486253871, 2.078973000131577, 6.584391057672747]),
    ("gauss", {}, [0.5777944771387092, 1.1603725452225269, -0.038788634010435495]),
    ("gauss", {"mu": 21, "sigma": 0.5, "seed": 1}, [21.16954283320051, 21.35825203760411, 20.455613842766756]),
    ("lognormvariate", {}, [0.9905436565189248, 0.8340342857538655, 1.1294885542334951]),
    ("lognormvariate", {"mu": 2, "sigma": 0.25, "seed": 1}, [7.531709561628915, 9.30494905724888, 7.206370609941587]),
    ("normalvariate", {}, [0.5437449762712598, 1.489912475382318, 1.352202398798002]),
    ("normalvariate", {"mu": 21, "sigma": 0.5, "seed": 1}, [21.27538904032989, 20.763451592162316, 20.559422862963043]),
    ("paretovariate", {"alpha": 3}, [1.1475090740507632, 1.3155132359466268, 1.008694591785105]),
    ("paretovariate", {"alpha": 0.5, "seed": 1}, [10.416093334298518, 24.558218535912076, 2.1710440617453983]),
    ("randint", {"a": 1, "b": 6}, [3, 4, 5]),
    ("randint", {"a": -1000000000, "b": 1000000000, "seed": 1}, [-315160787, -388389783, 151542619]),
    ("random", {}, [0.8150485557481988, 0.3082336210697889, 0.007608611344249283]),
    ("random", {"seed": 1}, [0.948543157292128, 0.463272736738659, 0.9157196560325739]),
    ("random", {"seed": -1}, [0.9255935638611547, 0.4455160582375304, 0.5652199904776437]),
    ("random", {"seed": 9223372036854775807}, [0.9193484011648355, 0.37819784940658197, 0.7591492101522778]),
    ("randrange", {"start": 1000}, [119, 258, 778]),
    ("randrange", {"start": 0, "stop": 100, "step": 10, "seed": 1}, [10, 60, 30]),
    ("triangular", {}, [0.2936670225252565, 0.21564265685788717, 0.3800758711387478]),
    (
        "triangular",
        {"low": 0, "high": 10, "mode": 9, "seed": 1},
        [5.2059332226090405, 6.547453132361326, 2.62885151749497],
    ),
    ("uniform", {"a": 18, "b": 22}, [18.874048949238542, 20.031862330408583, 20.738338009101636]),
    ("uniform", {"a": 1, "b": -1, "seed": 1}, [0.7775341125888682, 0.4430519667296826, 0.8590315854239001]),
    ("vonmisesvariate", {"mu": 6, "kappa": 4}, [6.2369189969097425, 6.145487752629712, 5.572936573230064]),
    ("vonmisesvariate", {"mu": 0, "kappa": 0, "seed": 1}, [3.8697321034721033, 5.03033877542243, 0.58129646028626]),
    ("weibullvariate", {"alpha": 6, "beta": 2}, [2.0023053464292158, 11.16171561712216, 2.3142795134228105]),
    (
        "weibullvariate",
        {"alpha": 1, "beta": 0.5, "seed": 1},
        [0.13722533434964373, 0.05325113567927833, 1.1536553870038566],
    ),
]
"""Values at minus one day, the epoch, and `NOW`."""

# Per tool: parameters, then mean and variance by the formulas of the distribution.
DISTRIBUTIONS: list[tuple[str, dict[str, Any], float, float]] = [
    ("random", {}, 1 / 2, 1 / 12),
    ("uniform", {"a": -2, "b": 6}, 2, 64 / 12),
    ("uniform", {"a": 6, "b": -2}, 2, 64 / 12),
    ("triangular", {"low": -1, "high": 11, "mode": 9}, 19 / 3, (1 + 121 + 81 + 11 + 9 - 99) / 18),
    ("triangular", {}, 1 / 2, 1 / 24),
    ("randint", {"a": 1, "b": 6}, 3.5, 35 / 12),
    ("randrange", {"start": 10}, 4.5, 99 / 12),
    ("randrange", {"start": 90, "stop": -10, "step": -10}, 45, 100 * 99 / 12),
    ("gauss", {"mu": 21, "sigma": 0.5}, 21, 0.25),
    ("normalvariate", {"mu": -3, "sigma": 4}, -3, 16),
    ("lognormvariate", {"mu": 0.5, "sigma": 0.25}, math.exp(0.53125), math.expm1(0.0625) * math.exp(1.0625)),
    ("expovariate", {"lambd": 0.2}, 5, 25),
    ("expovariate", {"lambd": -4}, -1 / 4, 1 / 16),
    ("paretovariate", {"alpha": 9}, 9 / 8, 9 / (64 * 7)),
    ("gammavariate", {"alpha": 0.5, "beta": 2}, 1, 2),
    ("gammavariate", {"alpha": 1, "beta": 2}, 2, 4),
    ("gammavariate", {"alpha": 3, "beta": 2}, 6, 12),
    ("betavariate", {"alpha": 2, "beta": 5}, 2 / 7, 10 / (49 * 8)),
    ("betavariate", {"alpha": 0.5, "beta": 0.5}, 1 / 2, 1 / 8),
    (
        "weibullvariate",
        {"alpha": 6, "beta": 2},
        6 * math.gamma(1.5),
        36 * (math.gamma(2) - math.gamma(1.5) ** 2),
    ),
    ("vonmisesvariate", {"mu": math.pi, "kappa": 0}, math.pi, math.pi**2 / 3),
]
NAMES = sorted({name for name, *_ in DISTRIBUTIONS} | {"custom", "vonmisesvariate"})


def build(name: str, **parameters: Any) -> RandomGenerator:
    tool = REGISTRY.resolve(name).build(parameters)
    assert isinstance(tool, RandomGenerator)
    return tool


def drawn(count: int, name: str, *, apart: int = 1000, **parameters: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Values at ``count`` times, ``apart`` ms between them."""
    tool = build(name, **parameters)
    return np.array([tool.at(NOW + k * apart) for k in range(count)], np.float64)


# --- values ---


@pytest.mark.parametrize(("name", "parameters", "expected"), GOLDEN)
def test_values_never_change(name: str, parameters: dict[str, Any], expected: list[Value]) -> None:
    """Where one does, a Python version brought another formula: the tool then needs another version."""
    tool = build(name, **parameters)
    got = [tool.at(time) for time in (-DAY, 0, NOW)]
    assert got == expected
    assert [type(value) for value in got] == [type(value) for value in expected]


def test_every_generator_has_golden_values() -> None:
    found = {tool.name for tool in REGISTRY if issubclass(tool, RandomGenerator)}
    assert found == {name for name, *_ in GOLDEN} == set(NAMES)
    assert len(NAMES) == 15


@pytest.mark.parametrize("time", [-1, 0, NOW, -(1 << 61)])
def test_values_are_those_of_python_with_the_documented_key(time: int) -> None:
    digest = hashlib.blake2b(b"gammavariate:-7", digest_size=8).digest()
    rng = random.Random(int.from_bytes(digest + time.to_bytes(8, "big", signed=True), "big"))
    assert build("gammavariate", alpha=3, beta=2, seed=-7).at(time) == rng.gammavariate(3, 2)


@pytest.mark.parametrize(("name", "parameters", "mean", "variance"), DISTRIBUTIONS)
def test_mean_and_variance(name: str, parameters: dict[str, Any], mean: float, variance: float) -> None:
    values = drawn(8000, name, seed=2, **parameters)
    assert abs(values.mean() - mean) < 3 * math.sqrt(variance / 8000)
    assert values.var() == pytest.approx(variance, rel=0.07)


def test_von_mises_directions() -> None:
    """The mean of ``exp(i * angle)`` is ``exp(i * mu) * I1(kappa) / I0(kappa)``."""
    angles = drawn(8000, "vonmisesvariate", mu=6, kappa=4)
    assert angles.min() >= 0
    assert angles.max() <= math.tau
    turns = np.linspace(0, math.pi, 10_001)
    weights = np.exp(4 * np.cos(turns))
    length = (weights * np.cos(turns)).sum() / weights.sum()
    mean = np.exp(1j * angles).mean()
    assert abs(mean) == pytest.approx(length, abs=0.01)
    assert np.angle(mean) % math.tau == pytest.approx(6, abs=0.02)


@pytest.mark.parametrize("apart", [1, 1000, 1024, 60_000, DAY])
def test_neighbouring_times_are_independent(apart: int) -> None:
    """Pairs of neighbours fill a square of 8 x 8 evenly: 99.9 % of chi squared (63 degrees) is below 103.4."""
    values = drawn(6400, "random", apart=apart)
    for lag in (1, 2):
        pairs = (values[lag:] * 8).astype(int) * 8 + (values[:-lag] * 8).astype(int)
        counts, expected = np.bincount(pairs, minlength=64), len(pairs) / 64
        assert ((counts - expected) ** 2 / expected).sum() < 103.4


def test_names_and_seeds_are_independent() -> None:
    """Columns of 4000 independent values correlate by less than 0.07 (4.4 standard deviations)."""
    some: dict[str, dict[str, Any]] = {name: parameters for name, parameters, *_ in DISTRIBUTIONS}
    some |= {"custom": {"function": draw_unit}}
    columns = {(name, 0): drawn(4000, name, **some[name]) for name in NAMES}
    columns |= {("gauss", seed): drawn(4000, "gauss", seed=seed) for seed in (1, -1, 2, (1 << 63) - 1)}
    for (left, one), (right, other) in itertools.combinations(columns.items(), 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.07, (left, right)


def test_one_name_and_seed_draw_the_same_numbers() -> None:
    """As the documentation says: the parameters only use them differently."""
    assert drawn(50, "gauss", mu=5, sigma=2) == pytest.approx(5 + 2 * drawn(50, "gauss"))


# --- plates ---


@pytest.mark.parametrize(("name", "parameters", "expected"), GOLDEN)
def test_without_plates_both_versions_give_the_same(
    name: str, parameters: dict[str, Any], expected: list[Value]
) -> None:
    assert [tool.version for tool in REGISTRY.versions(name)] == ["1.0.0", "1.1.0"]
    assert REGISTRY.resolve(f"{name}@^1").version == REGISTRY.resolve(name).version == "1.1.0"
    for kind in REGISTRY.versions(name):
        tool = kind.build(parameters).bound_to({}, None)
        assert isinstance(tool, RandomGenerator)
        assert [tool.at(time) for time in (-DAY, 0, NOW)] == expected


@pytest.mark.parametrize("name", NAMES)
def test_each_plate_value_has_its_own_numbers(name: str) -> None:
    metas = [
        {"room": "hall"},
        {"room": "bath"},
        {"house": "bath"},
        {"house": "1", "room": "2"},
        {"house": "2", "room": "1"},
        {"house": '1", "room": "2'},
    ]
    sample = {key: value for key, value in REGISTRY.resolve(name).samples[0].items() if key not in ("every", "tz")}
    before, now = (kind.build(sample) for kind in REGISTRY.versions(name))
    wide = {"randint": {"a": 1, "b": 1 << 40}, "randrange": {"start": 1 << 40}}.get(name)
    if wide is not None:
        before, now = (kind.build(wide) for kind in REGISTRY.versions(name))
    times = Batch.of((time, None) for time in (0, 1000, NOW))
    interval = TimeInterval(-1, NOW)
    drawn = [now.bound_to(meta, None).evaluate(interval, [times]).plain() for meta in metas]
    drawn.append(now.evaluate(interval, [times]).plain())
    for place in range(3):
        assert len({values[place] for values in drawn}) == len(drawn)
    assert all(before.bound_to(meta, None).evaluate(interval, [times]).plain() == drawn[-1] for meta in metas)


def test_plate_values_in_whatever_order_and_after_whatever_was_drawn() -> None:
    tool = build("gauss", seed=3)
    tool.at(0)
    one, other = (
        tool.bound_to({"house": "1", "room": "hall"}, None),
        tool.bound_to({"room": "hall", "house": "1"}, None),
    )
    assert one.at(NOW) == other.at(NOW) == build("gauss", seed=3).bound_to({"room": "hall", "house": "1"}, None).at(NOW)
    assert one.at(NOW) == 0.6798036197311447
    assert tool.at(NOW) == build("gauss", seed=3).at(NOW)


def test_the_documented_key_of_a_plate_value() -> None:
    digest = hashlib.blake2b(b'random:7{"house": "1", "room": "hall"}', digest_size=8).digest()
    rng = random.Random(int.from_bytes(digest + NOW.to_bytes(8, "big", signed=True), "big"))
    assert build("random", seed=7).bound_to({"room": "hall", "house": "1"}, None).at(NOW) == rng.random()


def test_plate_values_are_independent() -> None:
    """As `test_names_and_seeds_are_independent`."""
    columns = []
    for room in ("a", "b", "c", "hall", "Hall", "hall "):
        tool = build("gauss").bound_to({"room": room}, None)
        columns.append(np.array([tool.at(NOW + k * 1000) for k in range(4000)], np.float64))
    for one, other in itertools.combinations([*columns, drawn(4000, "gauss")], 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.07


# --- times ---


def test_a_value_depends_on_its_time_only() -> None:
    driven, ticking = build("gauss", seed=3), build("gauss", seed=3, every="1s")
    times = list(range(0, 20_000, 1000))
    whole = list(ticking.evaluate(TimeInterval(-1, 19_000), []))
    assert whole == [(time, driven.at(time)) for time in times]
    inputs: list[list[Value]] = [[1.5] * 20, ["on"] * 20, [None] * 20, [{"a": time} for time in times]]
    for values in inputs:
        batch = Batch.of(zip(times, values, strict=True))
        assert list(driven.evaluate(TimeInterval(MIN_TIME, MAX_TIME), [batch])) == whole
        cuts = [-1, 0, 2500, 3000, 3001, 19_000]
        pieces = [driven.evaluate(TimeInterval(a, b), [batch]) for a, b in reversed(list(itertools.pairwise(cuts)))]
        assert list(Batch.concat(pieces[::-1])) == whole
    again = build("gauss", seed=3)
    assert [again.at(time) for time in reversed(times)] == [value for _, value in reversed(whole)]


@pytest.mark.parametrize("name", NAMES)
def test_inputs_and_times(name: str) -> None:
    sample = {key: value for key, value in REGISTRY.resolve(name).samples[0].items() if key not in ("every", "tz")}
    driven = build(name, **sample)
    assert driven.arity == 1
    assert driven.support(0) == Pointwise()
    assert driven.drive() == FromInput(0)
    ticking = build(name, **sample, every="1d", tz="Europe/Brussels", seed=5)
    assert ticking.arity == 0
    assert ticking.drive() == OnGrid(Grid(DAY, "Europe/Brussels"))
    assert build(name, **ticking.parameters()) == ticking
    spring = [
        datetime(2015, 3, 27, 23, tzinfo=UTC),
        datetime(2015, 3, 28, 23, tzinfo=UTC),
        datetime(2015, 3, 29, 22, tzinfo=UTC),
    ]
    got = ticking.evaluate(TimeInterval(spring[0], spring[2]), [])
    assert got.times.tolist() == [int(day.timestamp()) * 1000 for day in spring[1:]]


def test_a_grid_has_no_beginning_and_no_input() -> None:
    with pytest.raises(ToolError, match=r"gauss with every has no first time .*finite start"):
        build("gauss", every="1s").evaluate(TimeInterval(MIN_TIME, 0), [])
    with pytest.raises(ToolError, match="gauss with every has no inputs, so there is no input 0"):
        build("gauss", every="1s").support(0)


def test_a_workflow_checks_the_inputs() -> None:
    w = Workflow("w")
    power = w.source("power", mqtt="power")
    noise = power.gauss(21, 0.5, 7)
    dice = w.factor("randint", 1, 6, every="1s")
    nodes = w.definition.nodes
    assert nodes[noise.name].tool == build("gauss", mu=21, sigma=0.5, seed=7)
    assert nodes[dice.name].inputs == ()
    power.randint(1, 6, every="1s", name="wrong")
    with pytest.raises(ConfigurationError, match=r"node wrong: randint takes 0 input\(s\), not 1"):
        _ = w.definition
    other = Workflow("w")
    other.factor("random", name="wrong")
    with pytest.raises(ConfigurationError, match=r"node wrong: random takes 1 input\(s\), not 0"):
        _ = other.definition


async def test_restarts_crashes_and_late_readings_change_nothing() -> None:
    store = MemoryStore()

    async def factory() -> Store:
        return store

    tools = {"noise": build("gauss", seed=1), "dice": build("randint", a=1, b=6, every="10s")}
    definition = WorkflowDefinition(
        "w",
        plates={"room": Plate("room")},
        sources={"power": SourceDefinition("power", ("room",))},
        nodes={
            "noise": NodeDefinition("noise", tools["noise"], ("power",), (), {}),
            "dice": NodeDefinition("dice", tools["dice"], (), (), {}),
        },
    )
    history = History(factory, [definition], EngineSettings(chunk=3), NOW)
    await history.begin()

    async def publish(*backs: int, room: str = "a") -> None:
        readings = [Reading("power", (("room", room),), NOW - back, float(back)) for back in backs]
        await history.survive(lambda: history.deliver(readings))
        await history.settle()

    await publish(60_000, 40_000, 39_000)
    await history.restart()
    await publish(40_000, 39_000, room="b")
    history.arm(2)
    await publish(20_000, 0, 50_000)
    await publish(95_000, 40_000)
    await history.restart()
    await history.pass_time(60_000)
    assert history.crashes == 1
    checked = await history.check()
    assert checked.clean
    for stream, name, times in (
        ("noise[room=a]", "noise", [NOW - back for back in (95_000, 60_000, 50_000, 40_000, 39_000, 20_000, 0)]),
        ("noise[room=b]", "noise", [NOW - back for back in (40_000, 39_000)]),
        ("dice", "dice", range(NOW - 90_000, NOW + 50_000, 10_000)),
    ):
        identity = StreamId.parse(stream)
        got = dict(await history.engine.read(identity, MIN_TIME, MAX_TIME))
        tool = tools[name].bound_to(dict(identity.meta), None)
        assert {time: got[time] for time in times} == {time: tool.at(time) for time in times}
    await history.end()


# --- parameters ---


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("random", {"seed": 1 << 63}, "seed must fit into 64 bits, and 9223372036854775808 does not"),
        ("random", {"seed": 1.5}, r"parameter seed: 1\.5 is not a whole number"),
        ("random", {"every": "0s"}, "every must be longer than 0"),
        ("random", {"tz": "Europe/Brussels"}, "tz needs every"),
        ("random", {"every": "1d", "tz": "Brussels"}, "'Brussels' is not a known time zone"),
        ("uniform", {"a": 1}, "uniform needs the parameter 'b'"),
        ("uniform", {"a": -1e308, "b": 1e308}, "uniform: -1e.308 and 1e.308 are further apart"),
        ("triangular", {"low": 2}, "low must not be above high, but 2 is above 1"),
        ("triangular", {"mode": 1.5}, r"mode must lie from low 0 to high 1, not at 1\.5"),
        ("triangular", {"low": -1e308, "high": 1e308}, "further apart"),
        ("randint", {"a": 6, "b": 1}, "randint: there is no whole number from a = 6 to b = 1"),
        ("randint", {"a": 0, "b": 1 << 63}, "do not all fit into 64 bits"),
        ("randint", {"a": 1.5, "b": 2}, "parameter a: 1.5 is not a whole number"),
        ("randrange", {"start": 0}, "randrange: there is no whole number from 0 to before 0"),
        ("randrange", {"start": 5, "stop": 1}, "there is no whole number from 5 to before 1 in steps of 1"),
        ("randrange", {"start": 5, "stop": 1, "step": 0}, "step must not be 0"),
        ("randrange", {"start": 5, "step": 2}, "step needs stop"),
        ("randrange", {"start": -(1 << 64), "stop": 1}, "do not all fit into 64 bits"),
        ("gauss", {"sigma": -1}, "gauss: sigma must not be negative, and is -1"),
        ("gauss", {"sigma": 1e308}, "too large for a 64-bit float"),
        ("normalvariate", {"sigma": -0.5}, r"sigma must not be negative, and is -0\.5"),
        ("lognormvariate", {"sigma": -1}, "sigma must not be negative"),
        ("lognormvariate", {"mu": 1000}, "lognormvariate: with these parameters a value may be too large"),
        ("expovariate", {"lambd": 0}, "lambd must not be 0: it is 1 divided by the mean"),
        ("expovariate", {"lambd": 1e-310}, "too large"),
        ("paretovariate", {"alpha": 0}, "alpha must be greater than 0, not 0"),
        ("paretovariate", {"alpha": 0.05}, "too large"),
        ("weibullvariate", {"alpha": 0, "beta": 1}, "alpha must be greater than 0, not 0"),
        ("weibullvariate", {"alpha": 1, "beta": -1}, "beta must be greater than 0, not -1"),
        ("weibullvariate", {"alpha": 1, "beta": 0.005}, "too large"),
        ("gammavariate", {"alpha": -1, "beta": 1}, "alpha must be greater than 0, not -1"),
        ("gammavariate", {"alpha": 1, "beta": 0}, "beta must be greater than 0, not 0"),
        ("gammavariate", {"alpha": 1, "beta": 1e307}, "too large"),
        ("betavariate", {"alpha": 0, "beta": 1}, "betavariate: alpha must be greater than 0, not 0"),
        ("betavariate", {"alpha": 1, "beta": -2}, "beta must be greater than 0, not -2"),
        ("betavariate", {"alpha": 1e307, "beta": 1}, "too large"),
        ("vonmisesvariate", {"mu": 0, "kappa": -1}, "kappa must not be negative, and is -1"),
        ("custom", {"function": 5}, "function must be an import path or a function, not 5"),
        ("custom", {"function": "math:nosuch"}, "cannot be loaded"),
        ("custom", {"function": "math:sqrt"}, r"custom: function must take a random\.Random and a time: too many"),
        ("custom", {"function": lambda: 1}, r"function must take a random\.Random and a time: too many"),
    ],
)
def test_wrong_parameters_are_found_when_the_tool_is_built(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build(name, **parameters)


class Given(random.Random):
    """Repeats the given numbers instead of random ones."""

    def __init__(self, *numbers: float) -> None:
        super().__init__(0)
        self.numbers = itertools.cycle(numbers)

    def random(self) -> float:
        return next(self.numbers)


LARGEST = 1 - 2.0**-53
"""The largest number that ``random()`` gives."""


@pytest.mark.parametrize(
    ("name", "parameters", "numbers", "at_least"),
    [
        ("paretovariate", {"alpha": 0.052}, [LARGEST], 1e306),
        ("weibullvariate", {"alpha": 1, "beta": 0.0051}, [LARGEST], 1e306),
        ("weibullvariate", {"alpha": 1e300, "beta": 1}, [LARGEST], 3e301),
        ("expovariate", {"lambd": 1e-306}, [LARGEST], 3e307),
        ("gauss", {"sigma": 1e306}, [0.0, LARGEST], 8e306),
        ("normalvariate", {"sigma": 1e306}, [0.5 + 7 * 2.0**-53, LARGEST], 1e307),
        ("lognormvariate", {"mu": 700, "sigma": 0.7}, [0.5 + 7 * 2.0**-53, LARGEST], 1e307),
        ("gammavariate", {"alpha": 1, "beta": 1e300}, [LARGEST], 3e301),
        ("uniform", {"a": -8e307, "b": 8e307}, [LARGEST], 7e307),
        ("triangular", {"low": -8e307, "high": 8e307}, [LARGEST], 7e307),
    ],
)
def test_the_largest_values_that_are_allowed_fit(
    name: str, parameters: dict[str, Any], numbers: list[float], at_least: float
) -> None:
    value = build(name, **parameters).draw(Given(*numbers), 0)
    assert at_least < value < math.inf


def test_bounds_of_whole_numbers() -> None:
    assert {build("randint", a=-2, b=1).at(time) for time in range(200)} == {-2, -1, 0, 1}
    assert {build("randrange", start=4).at(time) for time in range(200)} == {0, 1, 2, 3}
    assert {build("randrange", start=7, stop=0, step=-3).at(time) for time in range(200)} == {7, 4, 1}
    wide = build("randint", a=-(1 << 63), b=(1 << 63) - 1, every="1ms")
    values = wide.evaluate(TimeInterval(0, 500), []).values
    assert isinstance(values, np.ndarray)
    assert values.dtype == np.int64
    assert values.min() < -(1 << 62) < (1 << 62) < values.max()


# --- functions and tools of one's own ---


def draw_unit(rng: random.Random, time: datetime) -> float:
    return rng.random()


def rarely(rng: random.Random, time: datetime) -> Value:
    assert time.tzinfo is UTC
    return SKIP if rng.random() < 0.75 else (time.second, None)


def unstorable(rng: random.Random, time: datetime) -> Value:
    return complex(rng.random(), 0)


def test_custom_calls_a_function_with_a_generator_and_the_time() -> None:
    tool = build("custom", function=rarely, every="1s", seed=4)
    got = list(tool.evaluate(TimeInterval(0, 60_000), []))
    assert 5 < len(got) < 30
    assert got == [(time, [time // 1000 % 60, None]) for time, _ in got]
    pieces = [tool.evaluate(TimeInterval(a, b), []) for a, b in itertools.pairwise([0, 7000, 7001, 60_000])]
    assert list(Batch.concat(pieces)) == got


def test_custom_is_saved_by_its_import_path() -> None:
    path = "hs_stream_tools.random_generators:day_curve"
    by_path = build("custom", function=path, seed=1)
    assert by_path.parameters() == {"function": path, "seed": 1, "every": None, "tz": None}
    assert build("custom", function=by_path.call, seed=1).parameters() == by_path.parameters()  # type: ignore[attr-defined]
    unnamed = build("custom", function=lambda rng, _: rng.random())
    assert 0 <= unnamed.at(0) < 1
    with pytest.raises(ConfigurationError, match="cannot be saved: it has no import path"):
        unnamed.parameters()


def test_custom_result_that_cannot_be_stored() -> None:
    with pytest.raises(ToolError, match=r"custom: the result of .* at 1970-01-01T00:00:00Z: complex cannot be stored"):
        build("custom", function=unstorable).at(0)


@dataclass(frozen=True, kw_only=True)
class Coin(RandomGenerator):
    """Heads or tails."""

    name = "coin"
    version = "1.0.0"
    seed: int = 0

    def draw(self, rng: random.Random, time: int) -> Value:
        """Either side."""
        return rng.choice(["heads", "tails"])


def test_a_generator_of_ones_own_keeps_the_laws() -> None:
    check_tool(Coin, examples=10, seed=1)
    assert {Coin().at(time) for time in range(20)} == {"heads", "tails"}
    with pytest.raises(ConfigurationError, match="coin has no parameter 'every'"):
        Coin.build({"every": "1s"})
