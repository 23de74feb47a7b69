"""Whether a tool keeps the laws of `hs_stream.core.tool`, tried on random histories.

`check_tool` draws inputs, an interval and cuts, and looks at each of these, bit for bit:

1. Contract: the output lies inside of the interval, ascends, holds canonical values, and its times obey ``drive()``.
   The inputs are left alone.
2. Purity: the same evaluation again, and by another instance with the same parameters, gives the same.
3. Split law: the pieces between the cuts, evaluated in any order, are the whole.
4. Support: a piece (or a single instant) comes out the same when each input is reduced to exactly what ``support()``
   lets it read, and when anything else outside of that is changed, taken away or added.
5. ``build(parameters())`` is the same tool, unless it holds a function that cannot be saved.
6. A `FoldTool` run in pieces, its state stored in between, is the fold in one, and has no output in silence before it
   is ``due``. An `AggregateTool` without the inputs that are empty in the interval gives the same.
7. Bad values: every third history is tried again with some values of another kind than the tool takes. It may raise
   on them, and rules 2 to 6 hold for the instants at which it does as they hold for its outputs.

It needs numpy only, so that it can run where plugins are loaded.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from hs_stream.compute.attempt import Walk, readable
from hs_stream.compute.run import run
from hs_stream.compute.task import Carried, Task
from hs_stream.core.batch import NOTHING, Batch, same_values
from hs_stream.core.errors import ConfigurationError, LawViolation
from hs_stream.core.fold_states import HALTED, INITIAL
from hs_stream.core.stream import difference
from hs_stream.core.time import EMPTY, MAX_TIME, MIN_TIME, TimeInterval, TimeIntervals, format_time, shift
from hs_stream.core.tool import (
    AggregateTool,
    FoldTool,
    FromInput,
    OnGrid,
    Pointwise,
    Prefix,
    Previous,
    Sources,
    SplitTool,
    Support,
    Tool,
)
from hs_stream.core.value import Value, canonical, same
from hs_stream.testing.material import Material
from hs_stream.testing.vary import varied

__all__ = ["bound_tools", "check_tool", "readable", "task_of"]

Outcome = tuple[Batch, TimeIntervals]
"""What comes out, and where the tool raises."""
_SMALLEST: Final = 3
_LARGEST: Final = 24


def check_tool(
    tool: Tool | type[Tool], *, examples: int = 50, seed: int | None = None, missing: bool = False, variants: int = 2
) -> None:
    """Raise `LawViolation` when ``tool`` breaks a law.

    A class is checked with each of its ``samples``, and with ``variants`` random changes of each (see `varied`): a
    parameter set with which it does not work is one that it has to refuse.

    ``examples``: histories per parameter set; the first are the smallest. With a ``seed`` it is deterministic.
    ``missing=True`` also feeds ``None``. The message names the tool, its parameters, the interval, the cuts, the first
    difference and the rule. `ConfigurationError` when a sample is no valid parameter set.
    """
    if seed is None:
        seed = int(np.random.SeedSequence().generate_state(1)[0])
    for given in [tool] if isinstance(tool, Tool) else _parameter_sets(tool, variants, seed):
        _check_parameters(given)
        bound = bound_tools(given)
        for example in range(examples):
            one = bound[example % len(bound)]
            size = _SMALLEST + (_LARGEST - _SMALLEST) * example // max(examples - 1, 1)
            material = Material(one, (seed << 20) + example, missing=missing)
            sources = material.sources(size)
            interval = material.interval(sources)
            cuts = material.cuts(interval, sources)
            label = f"seed={seed}, example {example}"
            _Trial(one, material, interval, cuts, sources, label).run()
            if example % 3 == 1 and sources:
                _Trial(one, material, interval, cuts, material.hurt(sources), f"{label}, bad values", hurt=True).run()


def _parameter_sets(kind: type[Tool], variants: int, seed: int) -> list[Tool]:
    random = np.random.Generator(np.random.Philox(seed))
    tools = [kind.build(sample) for sample in kind.samples]
    others = [varied(kind, sample, random) for _ in range(variants) for sample in kind.samples]
    return tools + [other for at, other in enumerate(others) if other not in tools + others[:at]]


def _untouchable(support: Support, source: Batch, interval: TimeInterval) -> tuple[int, int]:
    """``(low, high]``: outside of it nothing that may be read changes, whatever is there."""
    start, end = interval.start, interval.end
    if isinstance(support, Prefix):
        later = source.slice(end, MAX_TIME).slice_index(0, support.after)
        return MIN_TIME, end if not support.after else later.last_time if later else MAX_TIME
    if isinstance(support, Previous):
        known = source.last(shift(start, 1), support.n)
        return (known.first_time - 1 if len(known) == support.n else MIN_TIME), end
    if isinstance(support, Pointwise):
        return start, end
    first, last = shift(start, 1 - support.lookback), shift(end, support.lookahead)
    low, high = first, last
    if support.before:
        known = source.last(first, support.before)
        low = known.first_time - 1 if len(known) == support.before else MIN_TIME
    if support.after:
        later = source.slice(last, MAX_TIME).slice_index(0, support.after)
        high = later.last_time if len(later) == support.after else MAX_TIME
    return low, high


def _copy(batch: Batch) -> Batch:
    values = batch.values
    copied = values.copy() if isinstance(values, np.ndarray) else [canonical(value) for value in values]
    return Batch(batch.times.copy(), copied)


def _sources_like(sources: Sequence[Batch], batches: Sequence[Batch]) -> Sequence[Batch]:
    return Sources(batches, sources.keys) if isinstance(sources, Sources) else list(batches)


def _check_parameters(tool: Tool) -> None:
    try:
        parameters = tool.parameters()
    except ConfigurationError:
        return
    kind = type(tool)
    again = kind.build(parameters)
    if again != tool:
        raise LawViolation(f"{tool.pin}: build(parameters()) is {again}, not {tool}")
    if kind.build(json.loads(json.dumps(parameters))) != tool:
        raise LawViolation(f"{tool.pin}: parameters() are changed by JSON: {parameters}")


def bound_tools(tool: Tool) -> list[Tool]:
    """The tools of single streams that ``tool`` stands for: of a `SplitTool` one for each plate value."""
    if isinstance(tool, SplitTool):
        return [tool.bound_to({"plate": value}, "plate") for value in tool.plate_values]
    return [tool]


@dataclass
class _Trial:
    """One history, one interval, its cuts."""

    tool: Tool
    material: Material
    interval: TimeInterval
    cuts: list[int]
    drawn: list[Batch]
    label: str
    hurt: bool = False
    """Some values are not of the kind that the tool takes: it may raise."""

    def run(self) -> None:
        self.sources: Sequence[Batch] = (
            Sources(self.drawn, [f"value{i}" for i in range(len(self.drawn))])
            if isinstance(self.tool, AggregateTool)
            else self.drawn
        )
        whole = self.evaluate(self.tool, self.interval, self.sources)
        self.split(whole)
        self.purity(whole)
        self.instants(whole)
        if isinstance(self.tool, AggregateTool):
            self.fewer_inputs(whole)
        if isinstance(self.tool, FoldTool):
            (self.fold_on_bad_values if self.hurt else self.fold)(self.tool)

    # --- laws ---

    def split(self, whole: Outcome) -> None:
        edges = [self.interval.start, *self.cuts, self.interval.end]
        pieces = [TimeInterval(start, end) for start, end in itertools.pairwise(edges)]
        order = self.material.random.permutation(len(pieces)).tolist()
        for at in order:
            got = self.evaluate(self.tool, pieces[at], self.sources)
            self.compare(whole, got, pieces[at], "split law: the piece differs from the same part of the whole")
        for at in order:
            self.support(whole, pieces[at])

    def purity(self, whole: Outcome) -> None:
        again = self.evaluate(self.tool, self.interval, self.sources)
        self.compare(whole, again, self.interval, "purity: the same evaluation again gives another result")
        try:
            other: Tool = type(self.tool).build(self.tool.parameters())
        except ConfigurationError:
            return
        if isinstance(self.tool, SplitTool):
            other = other.bound_to({"plate": self.tool.plate_value}, "plate")
        again = self.evaluate(other, self.interval, self.sources)
        self.compare(
            whole, again, self.interval, "purity: another instance with the same parameters gives another result"
        )

    def instants(self, whole: Outcome) -> None:
        candidates = {self.material.instant(self.sources) for _ in range(3)}
        for some in (whole[0].times.tolist(), [end for _, end in whole[1].pairs]):
            if some:
                candidates |= {self.material.pick(some) for _ in range(3)}
        for time in sorted(candidates):
            if self.interval.start < time <= self.interval.end:
                self.support(whole, TimeInterval(time - 1, time))

    def support(self, whole: Outcome, piece: TimeInterval) -> None:
        if not len(self.sources):
            return
        supports = [self.tool.support(slot) for slot in range(len(self.sources))]
        told = ", ".join(f"input {slot}: {support}" for slot, support in enumerate(supports))
        pairs = list(zip(supports, self.sources, strict=True))
        exact = _sources_like(self.sources, [readable(support, source, piece) for support, source in pairs])
        rule = f"support ({told}): with exactly what it may read the result differs, so it reads more than it declares"
        self.compare(whole, self.evaluate(self.tool, piece, exact), piece, rule)
        noisy = _sources_like(self.sources, [self.disturbed(slot, *pair, piece) for slot, pair in enumerate(pairs)])
        rule = f"support ({told}): a change outside of what it may read changes the result"
        self.compare(whole, self.evaluate(self.tool, piece, noisy), piece, rule)

    def disturbed(self, slot: int, support: Support, source: Batch, piece: TimeInterval) -> Batch:
        """``source`` with everything replaced that an output in ``piece`` may not read."""
        low, high = _untouchable(support, source, piece)
        before = self.material.noise(slot, MIN_TIME, low, 4) if low > MIN_TIME else NOTHING
        after = self.material.noise(slot, high, MAX_TIME, 4) if high < MAX_TIME else NOTHING
        if self.hurt:
            before, after = self.material.hurt([before, after])
        return Batch.concat([before, source.slice(low, high), after])

    def fewer_inputs(self, whole: Outcome) -> None:
        assert isinstance(self.sources, Sources)
        inside = [readable(self.tool.support(0), source, self.interval) for source in self.sources]
        kept = [index for index, source in enumerate(inside) if source]
        sources = Sources([inside[index] for index in kept], [self.sources.keys[index] for index in kept])
        got = self.evaluate(self.tool, self.interval, sources)
        self.compare(whole, got, self.interval, "aggregate: without the inputs that are empty here the result differs")

    def fold(self, tool: FoldTool) -> None:
        source = self.sources[0]
        low, high = MIN_TIME - 1, max([self.interval.end, *source.times[-1:].tolist()])
        end_state, outputs = tool.run_over(tool.initial(), source, low, high)
        state, pieces = tool.initial(), []
        edges = sorted({low, *self.cuts, *(source.times[:1].tolist()), high})
        for start, end in itertools.pairwise(edges):
            given, kept = state, self.stored(state)
            following = tool.following(source, end)
            state, result = tool.run_over(given, source.slice(start, end), start, end, following)
            if not same(given, kept):
                raise self.broken(f"fold: step changes its state in place, from {kept} to {given}")
            again, repeated = tool.run_over(kept, source.slice(start, end), start, end, following)
            if not same(again, state) or repeated != result:
                raise self.broken(f"fold: the state {kept} goes on differently when it is stored in between")
            pieces.append(result)
            self.silence(tool, state, end)
        everything = TimeInterval(MIN_TIME, MAX_TIME)
        pair = (outputs, EMPTY), (Batch.concat(pieces), EMPTY)
        self.compare(*pair, everything, "fold: run in pieces it differs from run in one")
        if not same(self.stored(state), self.stored(end_state)):
            raise self.broken(f"fold: run in pieces it ends in the state {state}, in one in {end_state}")

    def silence(self, tool: FoldTool, state: Value, instant: int) -> None:
        """What it says in silence, it says when it says that it does."""
        if not isinstance(tool.drive(), OnGrid):
            return
        due = tool.due(state, instant)
        if due is not None and due <= instant:
            raise self.broken(f"fold: due({state}, {format_time(instant)}) is not later than that: {format_time(due)}")
        end = instant + 3 * self.material.lengths[-1] if due is None else due - 1
        _, said = tool.run_over(state, NOTHING, instant, end)
        if said:
            told = "nothing" if due is None else f"nothing before {format_time(due)}"
            raise self.broken(
                f"fold: first difference at {format_time(said.first_time)}: an output in silence, where due({state}) "
                f"tells of {told}"
            )

    def fold_on_bad_values(self, tool: FoldTool) -> None:
        source, state = self.sources[0], tool.initial()
        high = max([self.interval.end, *source.times[-1:].tolist()])
        whole = Walk(tool, state, MIN_TIME)
        whole.through(source, high)
        at, pieces, failed = MIN_TIME, [], EMPTY
        for end in sorted({*self.cuts, *source.times[:: 1 + len(source) // 4].tolist(), high}):
            batch = source.slice(at, end)
            walk = Walk(tool, state, at, source=source)
            walk.through(batch, end)
            if batch and state is not HALTED:
                self.steps_in_place(tool, state, batch.slice_index(0, 1))
            pieces.append(walk.results)
            failed |= walk.spans()
            at, state = end, walk.state if walk.state is HALTED else self.stored(walk.state)
        pair = (whole.results, whole.spans()), (Batch.concat(pieces), failed)
        self.compare(*pair, TimeInterval(MIN_TIME, MAX_TIME), "fold: run in pieces it differs from run in one")
        if (state is HALTED) != (whole.state is HALTED) or (state is not HALTED and not same(state, whole.state)):
            raise self.broken(f"fold: run in pieces it ends in the state {state}, in one in {whole.state}")

    def steps_in_place(self, tool: FoldTool, state: Value, batch: Batch) -> None:
        given, kept = self.stored(state), self.stored(state)
        for time, value in batch:
            try:
                tool.step(given, time, value)
            except Exception as error:  # noqa: BLE001 - a tool may raise anything
                if not same(given, kept):
                    raise self.broken(
                        f"fold: step changes its state in place, from {kept} to {given}, and then raises {error!r}"
                    ) from None

    def stored(self, state: Value) -> Value:
        try:
            copied = canonical(state)
        except ValueError as error:
            raise self.broken(f"fold: the state cannot be stored{error}") from None
        if not same(copied, state):
            raise self.broken(f"fold: the state {state!r} is not canonical; it comes back from a store as {copied!r}")
        return copied

    # --- one evaluation ---

    def evaluate(self, tool: Tool, interval: TimeInterval, sources: Sequence[Batch]) -> Outcome:
        given = _sources_like(sources, [_copy(source) for source in sources])
        failed = EMPTY
        try:
            if self.hurt:
                result, failed = _outcome(tool, interval, given)
            else:
                result = tool.evaluate(interval, given)
        except Exception as error:
            raise self.broken(
                f"evaluate({interval}) raised {type(error).__name__}: {error}, on values that "
                f"takes={tool.takes!r} allows"
            ) from error
        for slot, (before, after) in enumerate(zip(sources, given, strict=True)):
            if not np.array_equal(before.times, after.times) or not _same_column(before, after):
                raise self.broken(f"contract: it changes input {slot}; {_first(before, after)}")
        self.contract(interval, sources, result)
        return result, failed

    def contract(self, interval: TimeInterval, sources: Sequence[Batch], result: Batch) -> None:
        if not isinstance(result, Batch):
            raise self.broken(f"contract: evaluate returns {type(result).__name__}, not a Batch")
        times, values = result.times, result.values
        if len(times) != len(values):
            raise self.broken(f"contract: {len(times)} times for {len(values)} values")
        if not len(times):
            return
        if times.dtype != np.int64 or (np.diff(times) <= 0).any():
            raise self.broken("contract: output times are not ascending int64 milliseconds")
        for time in (result.first_time, result.last_time):
            if not interval.start < time <= interval.end:
                raise self.broken(f"contract: first difference at {format_time(time)}: an output outside of {interval}")
        for time, value in result:
            try:
                fine = same(canonical(value), value)
            except ValueError as error:
                raise self.broken(f"contract: the value at {format_time(time)}{error}") from None
            if not fine:
                raise self.broken(f"contract: the value at {format_time(time)} is not canonical: {value!r}")
        if isinstance(values, np.ndarray) and values.dtype not in (np.float64, np.int64, np.bool_):
            raise self.broken(f"contract: an array of {values.dtype} holds no values; use Batch.build")
        self.driven(sources, times.tolist())

    def driven(self, sources: Sequence[Batch], times: list[int]) -> None:
        drive = self.tool.drive()
        if isinstance(drive, OnGrid):
            stray = [time for time in times if not len(drive.grid.times(time - 1, time))]
        else:
            among = [sources[drive.slot]] if isinstance(drive, FromInput) else sources
            allowed = {time for source in among for time in source.times.tolist()}
            stray = [time for time in times if time not in allowed]
        if stray:
            raise self.broken(
                f"drive: first difference at {format_time(stray[0])}: an output that {drive} does not allow"
            )

    def compare(self, expected: Outcome, got: Outcome, piece: TimeInterval, rule: str) -> None:
        part = expected[0].slice(piece.start, piece.end)
        if part != got[0]:
            raise self.broken(f"{rule}; in {piece} {_first(part, got[0])}")
        failed = expected[1] & TimeIntervals([piece])
        if failed != got[1]:
            raise self.broken(f"{rule}; in {piece} it raises on {failed or 'nothing'} against {got[1] or 'nothing'}")

    def broken(self, rule: str) -> LawViolation:
        try:
            parameters = str(self.tool.parameters())
        except ConfigurationError:
            parameters = repr(self.tool)
        cuts = ", ".join(format_time(cut) for cut in self.cuts) or "none"
        return LawViolation(
            f"{self.tool.pin} with {parameters} breaks the {rule}; "
            f"interval {self.interval}, cut at {cuts}; {self.label}"
        )


def task_of(tool: Tool, interval: TimeInterval, sources: Sequence[Batch]) -> Task:
    """The task that has all results of ``tool`` in ``interval``; of a fold all up to its end."""
    if isinstance(tool, FoldTool):
        source = readable(tool.support(0), sources[0], interval)
        return Task(tool, MIN_TIME, interval.end, Sources([source]), carried=Carried(INITIAL, MIN_TIME))
    given = sources if isinstance(sources, Sources) else Sources(sources)
    task = Task(tool, interval.start, interval.end, given)
    if isinstance(tool, SplitTool):
        return task._replace(meta=(("plate", tool.plate_value),), into="plate")
    return task


def _outcome(tool: Tool, interval: TimeInterval, sources: Sequence[Batch]) -> Outcome:
    """What an engine makes of a tool that may raise."""
    found = run(task_of(tool, interval, sources))
    return found.contents.slice(interval.start, interval.end), found.failed & TimeIntervals([interval])


def _same_column(left: Batch, right: Batch) -> bool:
    return len(left) == len(right) and same_values(left.values, right.values)


def _first(expected: Batch, got: Batch) -> str:
    """Where two batches differ first, and how."""
    times = difference(expected or NOTHING, got or NOTHING).times()
    if not times:
        return "the values are in a column of another type"
    time = times[0]
    one, other = dict(expected), dict(got)
    said = [repr(values[time]) if time in values else "nothing" for values in (one, other)]
    return f"first difference at {format_time(time)} ({time}): {said[0]} against {said[1]}"
