"""Tools that break one law each: the checker finds every one, and says where."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest

from hs_stream.core.batch import Batch
from hs_stream.core.errors import ConfigurationError, LawViolation
from hs_stream.core.time import MIN_TIME, Grid, TimeInterval
from hs_stream.core.tool import (
    SKIP,
    AggregateTool,
    Drive,
    FoldTool,
    FromInput,
    MapTool,
    OnGrid,
    Pointwise,
    Prefix,
    Previous,
    Sources,
    Support,
    Tool,
    Window,
)
from hs_stream.core.value import Value
from hs_stream.testing.check_tool import check_tool


class Broken(Tool):
    """A general tool on numbers, driven by its input."""

    version = "0.1.0"
    takes = "number"

    def support(self, slot: int) -> Support:
        return Window(5_000)

    def drive(self) -> Drive:
        return FromInput(0)


@dataclass(frozen=True, kw_only=True)
class RunningSum(Broken):
    """A window's sum by adding what comes and subtracting what goes."""

    name = "running_sum"

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        source, total, first, result = sources[0], 0.0, None, []
        values = np.nan_to_num(source.numbers())
        for at, time in enumerate(source.times.tolist()):
            if not interval.start < time <= interval.end:
                continue
            low = int(source.times.searchsorted(time - 5_000, "right"))
            if first is None:
                first, total = low, sum(values[low : at + 1].tolist())
            else:
                total = total + float(values[at]) - sum(values[first:low].tolist())
                first = low
            result.append((time, float(total)))
        return Batch.of(result)


@dataclass(frozen=True, kw_only=True)
class PhaseFromStart(Broken):
    """A grid that begins where the interval begins."""

    name = "phase_from_start"

    def drive(self) -> Drive:
        return OnGrid(Grid(1))

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        source = sources[0]
        if not source:
            return source
        start = interval.start if interval.start > MIN_TIME else source.first_time
        times = [t for t in range(start + 3_000, interval.end + 1, 3_000) if source.slice(t - 5_000, t)]
        return Batch.build(times, [float(len(source.slice(t - 5_000, t))) for t in times])


@dataclass(frozen=True, kw_only=True)
class StateOnTheInstance(Broken):
    """Counts its outputs over all calls."""

    name = "state_on_the_instance"
    seen: ClassVar[list[int]] = []

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        result = []
        for time, _ in sources[0].slice(interval.start, interval.end):
            self.seen.append(time)
            result.append((time, len(self.seen)))
        return Batch.of(result)


@dataclass(frozen=True, kw_only=True)
class SequentialRandom(Broken):
    """Adds noise from a generator whose next number depends on how many came before."""

    name = "sequential_random"
    generator: ClassVar[random.Random] = random.Random(1)

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        return Batch.of([(t, self.generator.random()) for t, _ in sources[0].slice(interval.start, interval.end)])


@dataclass(frozen=True, kw_only=True)
class ReadsBeyond(Broken):
    """Declares five seconds and reads six."""

    name = "reads_beyond"

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        source = sources[0]
        times = source.slice(interval.start, interval.end).times.tolist()
        return Batch.build(times, [len(source.slice(time - 6_000, time)) for time in times])


@dataclass(frozen=True, kw_only=True)
class ReadsTwoBefore(Broken):
    """Declares what held as the window began, and reads what held before that too."""

    name = "reads_two_before"

    def support(self, slot: int) -> Support:
        return Window(5_000, before=1)

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        source = sources[0]
        times = source.slice(interval.start, interval.end).times.tolist()
        return Batch.build(times, [len(source.last(time - 5_000, 2)) for time in times])


@dataclass(frozen=True, kw_only=True)
class ReadsTwoAfter(Broken):
    """Declares the next instance, and reads the one after that too."""

    name = "reads_two_after"

    def support(self, slot: int) -> Support:
        return Window(5_000, after=1)

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        source = sources[0]
        times = source.slice(interval.start, interval.end).times.tolist()
        return Batch.build(times, [sum(source.slice(time, time + 10**9).times[:2].tolist()) for time in times])


@dataclass(frozen=True, kw_only=True)
class ReadsOneMore(Broken):
    """Declares the last two instances and reads three."""

    name = "reads_one_more"

    def support(self, slot: int) -> Support:
        return Previous(2)

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        source = sources[0]
        times = source.slice(interval.start, interval.end).times.tolist()
        return Batch.build(times, [len(source.last(time, 3)) for time in times])


@dataclass(frozen=True, kw_only=True)
class ReadsTheFuture(Broken):
    """Declares everything before t and looks at what is after it."""

    name = "reads_the_future"

    def support(self, slot: int) -> Support:
        return Prefix()

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        source = sources[0]
        times = source.slice(interval.start, interval.end).times.tolist()
        return Batch.build(times, [bool(source.slice(time, time + 10_000)) for time in times])


@dataclass(frozen=True, kw_only=True)
class MutatesItsInput(Broken):
    """Doubles in place, in its caller's memory."""

    name = "mutates_its_input"

    def support(self, slot: int) -> Support:
        return Pointwise()

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        batch = sources[0].slice(interval.start, interval.end)
        for index in range(len(batch)):
            batch.values[index] = batch.values[index] * 2 + 1
        return Batch.build(batch.times.copy(), list(batch.plain()))


@dataclass(frozen=True, kw_only=True)
class OutputOutside(Broken):
    """Also returns what lies before the interval."""

    name = "output_outside"

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        return sources[0].slice(interval.start - 5_000, interval.end)


@dataclass(frozen=True, kw_only=True)
class OffItsDrive(Broken):
    """Shifts its output times."""

    name = "off_its_drive"

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        batch = sources[0].slice(interval.start - 1, interval.end - 1)
        return Batch.build(batch.times + 1, batch.plain())


@dataclass(frozen=True, kw_only=True)
class NotCanonical(Broken):
    """Returns tuples, which come back from a store as lists."""

    name = "not_canonical"

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        return Batch.of([(time, (value, 1)) for time, value in sources[0].slice(interval.start, interval.end)])


ALL = [
    (RunningSum, "split law|support"),
    (PhaseFromStart, "split law|support"),
    (StateOnTheInstance, "split law|support|purity"),
    (SequentialRandom, "split law|support|purity"),
    (ReadsBeyond, r"support \(input 0: window 5s\)"),
    (ReadsTwoBefore, r"support \(input 0: window 5s, 1 before\)"),
    (ReadsTwoAfter, r"support \(input 0: window 5s, 1 after\)"),
    (ReadsOneMore, r"support \(input 0: previous 2\)"),
    (ReadsTheFuture, r"support \(input 0: prefix\)"),
    (MutatesItsInput, "contract: it changes input 0"),
    (OutputOutside, "contract"),
    (OffItsDrive, "drive"),
]


@pytest.mark.parametrize(("tool", "rule"), ALL, ids=lambda value: getattr(value, "__name__", None))
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_checker_finds(tool: type[Tool], rule: str, seed: int) -> None:
    with pytest.raises(LawViolation) as caught:
        check_tool(tool, examples=50, seed=seed)
    message = str(caught.value)
    assert f"{tool.name}@0.1.0 with {{}}" in message
    assert re.search(rule, message)
    assert re.search(r"cut at (none|.*Z)", message)
    assert "interval (" in message
    assert "first difference at" in message
    assert f"seed={seed}" in message


def test_difference_is_the_one_at_that_time() -> None:
    with pytest.raises(LawViolation, match=r"first difference at \S+ \(-?\d+\): \d+ against \d+"):
        check_tool(ReadsBeyond, examples=50, seed=5)


def test_values_that_no_store_keeps_are_found() -> None:
    with pytest.raises(LawViolation, match=r"not canonical: \(.*, 1\)"):
        check_tool(NotCanonical, examples=20, seed=1)


@dataclass(frozen=True, kw_only=True)
class StateInPlace(FoldTool):
    """Appends to the state that it was given."""

    name = "state_in_place"
    version = "0.1.0"
    takes = "number"

    def initial(self) -> Value:
        return []

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        state.append(time)
        return state[-3:], len(state)


@dataclass(frozen=True, kw_only=True)
class StateNotStored(FoldTool):
    """Holds a tuple, which no store gives back."""

    name = "state_not_stored"
    version = "0.1.0"
    takes = "number"

    def initial(self) -> Value:
        return (0, 0)

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        return (state[0] + 1, time), state[0]


@dataclass(frozen=True, kw_only=True)
class AgeOfThePiece(FoldTool):
    """Tells in silence how long it has been asked about, not how long the silence is."""

    name = "age_of_the_piece"
    version = "0.1.0"
    takes = "number"

    def drive(self) -> Drive:
        return OnGrid(Grid(1000))

    def initial(self) -> Value:
        return 0

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        return state + 1, SKIP

    def quiet(self, state: Value, start: int, end: int) -> list[tuple[int, Value]]:
        return [(time, time - start) for time in Grid(1000).times(start, min(end, start + 60_000)).tolist()]


@dataclass(frozen=True, kw_only=True)
class SpeaksTooEarly(FoldTool):
    """Says that it speaks ten seconds after an instance, and does after five."""

    name = "speaks_too_early"
    version = "0.1.0"
    takes = "number"

    def drive(self) -> Drive:
        return OnGrid(Grid(1))

    def initial(self) -> Value:
        return None

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        return time, SKIP

    def quiet(self, state: Value, start: int, end: int) -> list[tuple[int, Value]]:
        return [(state + 5_000, 1)] if state is not None and start < state + 5_000 <= end else []

    def due(self, state: Value, after: int) -> int | None:
        return None if state is None or after >= state + 10_000 else state + 10_000


def test_when_a_fold_speaks_in_silence_is_checked() -> None:
    with pytest.raises(LawViolation, match="an output in silence, where due"):
        check_tool(SpeaksTooEarly, examples=30, seed=1)


def test_what_a_fold_tells_in_silence_is_checked() -> None:
    with pytest.raises(LawViolation, match="fold: run in pieces it differs from run in one"):
        check_tool(AgeOfThePiece, examples=30, seed=1)


def test_fold_states_are_checked() -> None:
    with pytest.raises(LawViolation, match="state"):
        check_tool(StateInPlace, examples=30, seed=1)
    with pytest.raises(LawViolation, match="comes back from a store as"):
        check_tool(StateNotStored, examples=30, seed=1)


@dataclass(frozen=True, kw_only=True)
class CountsInputs(AggregateTool):
    """Says how many streams there are, although it is only given those with an instance."""

    name = "counts_inputs"
    version = "0.1.0"
    takes = "number"

    def aggregate(self, values: Sequence[Value], keys: Sequence[str]) -> Value:
        return len(values)

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        count = len(sources)
        return Batch.of([(time, count) for time, _ in super().evaluate(interval, sources)])


def test_aggregate_must_not_count_empty_inputs() -> None:
    with pytest.raises(LawViolation, match="without the inputs that are empty here"):
        check_tool(CountsInputs, examples=50, seed=1)


@dataclass(frozen=True, kw_only=True)
class Raises(MapTool):
    """Needs positive numbers, and does not say so."""

    name = "raises"
    version = "0.1.0"
    takes = "number"

    def map(self, value: Value) -> Value:
        if value < 0:
            raise ValueError("negative")
        return value


def test_error_on_values_that_it_takes_is_a_violation() -> None:
    with pytest.raises(LawViolation, match=r"raised ValueError: negative, on values that takes='number' allows"):
        check_tool(Raises, examples=20, seed=1)


@dataclass(frozen=True, kw_only=True)
class ForgetsAParameter(MapTool):
    """Saves less than it is."""

    name = "forgets_a_parameter"
    version = "0.1.0"
    samples = ({"factor": 2.0},)
    factor: float = 1.0
    names: tuple[str, ...] = field(default=())

    def parameters(self) -> dict[str, Any]:
        return {}

    def map(self, value: Value) -> Value:
        return value


def test_parameters_must_come_back() -> None:
    with pytest.raises(LawViolation, match=r"build\(parameters\(\)\)"):
        check_tool(ForgetsAParameter, examples=1, seed=1)


def test_samples_must_be_parameters() -> None:
    @dataclass(frozen=True, kw_only=True)
    class NoSample(MapTool):
        name = "no_sample"
        version = "0.1.0"
        width: int

    with pytest.raises(ConfigurationError, match="needs the parameter 'width'"):
        check_tool(NoSample, examples=1, seed=1)


def test_seed_decides_everything() -> None:
    def message() -> str:
        with pytest.raises(LawViolation) as caught:
            check_tool(ReadsBeyond, seed=11)
        return str(caught.value)

    assert message() == message()


def test_one_instance_can_be_checked() -> None:
    check_tool(MapIdentity(), examples=10, seed=0)


@dataclass(frozen=True, kw_only=True)
class MapIdentity(MapTool):
    """What comes."""

    name = "identity"
    version = "0.1.0"

    def map(self, value: Value) -> Value:
        return value


def test_aggregate_gets_keys() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Keys(AggregateTool):
        name = "keys"
        version = "0.1.0"

        def aggregate(self, values: Sequence[Value], keys: Sequence[str]) -> Value:
            return list(keys)

    check_tool(Keys(), examples=10, seed=0)
    sources = Sources([Batch.of([(1, 1)]), Batch.of([(1, 2)])], ["hall", "kitchen"])
    assert Keys().evaluate(TimeInterval(0, 1), sources).get(1) == ["hall", "kitchen"]


class OverWindow(Tool):
    """At each window of input 0 something about input 1 inside of it."""

    version = "0.1.0"
    arity = 2
    takes = ("interval", "boolean")

    def support(self, slot: int) -> Support:
        return Pointwise() if slot == 0 else Window(5_000, 2_000)

    def drive(self) -> Drive:
        return FromInput(0)

    def low(self, window: TimeInterval) -> int:
        return window.start

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        windows, data = sources
        result = []
        for time, window in windows.slice(interval.start, interval.end):
            assert time - 5_000 <= window.start < window.end <= time + 2_000
            inside = data.slice(self.low(window), window.end).plain()
            assert all(type(value) is bool for value in inside)
            result.append((time, len(inside)))
        return Batch.of(result)


@dataclass(frozen=True, kw_only=True)
class CountsInWindow(OverWindow):
    """How many values."""

    name = "counts_in_window"


@dataclass(frozen=True, kw_only=True)
class IncludesTheStart(OverWindow):
    """Also counts what lies exactly at the start of a window."""

    name = "includes_the_start"

    def low(self, window: TimeInterval) -> int:
        return window.start - 1


def test_each_input_gets_what_it_takes_and_windows_that_may_be_read() -> None:
    """`OverWindow` asserts so; a window's start that is the support's is no part of either."""
    check_tool(CountsInWindow, examples=100, seed=1)
    with pytest.raises(LawViolation, match=r"support \(input 0: pointwise, input 1: window 5s \+2s\)"):
        check_tool(IncludesTheStart, examples=100, seed=1)
    assert [CountsInWindow.takes_at(slot) for slot in (0, 1)] == ["interval", "boolean"]
    assert [Raises.takes_at(slot) for slot in (0, 1)] == ["number", "number"]
