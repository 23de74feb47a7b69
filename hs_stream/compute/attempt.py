"""What becomes of a tool that raises: the instants at which it raises fail, and nothing else does.

1. The instant t *fails* when evaluating ``(t - 1, t]`` alone raises, with exactly what the supports let it read there.
   So what fails is a function of the tool and of its inputs, like what comes out, and never of how time was cut.
   Where nothing can come out (`hs_stream.core.tool.Drive`), nothing fails.
2. A fold fails at the instance at which ``step`` raises, and goes on from the state before it, as if the instance were
   not there. On a grid the outputs come from that state too, also the one at this very instant. Where ``quiet``
   raises, the output's instant fails.
3. A fold that must not go on (`FoldTool.goes_on`) is `HALTED` from there on: everything later fails.
4. A value that cannot be stored, or a time outside of the interval, counts as raised.
5. A state is a value. Whatever ``step`` did to the one that it was given before it raised, the fold goes on from it as
   it was.

The instants are found by halving, newest first (a fold: oldest first), with a bound on the work of one call: what is
left is left to the next one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.fold_states import HALTED
from hs_stream.core.time import MAX_TIME, MIN_TIME, Grid, TimeInterval, TimeIntervals, format_time, shift
from hs_stream.core.tool import FoldTool, FromInput, OnGrid, Pointwise, Prefix, Previous, Sources, Support, Tool, Window
from hs_stream.core.value import Value, canonical

__all__ = ["Attempt", "Walk", "attempt", "checked", "readable", "told"]

_LONGEST: Final = 500
"""Characters of an error's text: it may quote the value, and a value may be long."""


def readable(support: Support, source: Batch, interval: TimeInterval) -> Batch:
    """The part of ``source`` that an output at any t of ``interval`` may read, and nothing more."""
    start, end = interval.start, interval.end
    if isinstance(support, Prefix):
        return source.slice_index(0, min(int(source.times.searchsorted(end, "right")) + support.after, len(source)))
    if isinstance(support, Previous):
        high = int(source.times.searchsorted(shift(start, 1), "right"))
        return source.slice_index(max(high - support.n, 0), int(source.times.searchsorted(end, "right")))
    if isinstance(support, Pointwise):
        return source.slice(start, end)
    first, last = shift(start, 1 - support.lookback), shift(end, support.lookahead)
    if not support.before and not support.after:
        return source.slice(first, last)
    low, high = source.times.searchsorted((first, last), "right").tolist()
    return source.slice_index(max(low - support.before, 0), min(high + support.after, len(source)))


def checked(tool: Tool, interval: TimeInterval, result: Batch) -> Batch:
    """``result`` if it keeps the contract (ascending times inside of ``interval``, canonical values)."""
    times = result.times
    if times.size:
        if times[0] <= interval.start or times[-1] > interval.end:
            outside = times[0] if times[0] <= interval.start else times[-1]
            raise ValueError(f"{tool.pin} returned an instance at {format_time(int(outside))}, outside of {interval}")
        if times.size > 1 and not (times[1:] > times[:-1]).all():
            raise ValueError(f"{tool.pin} returned times that do not ascend")
        if isinstance(result.values, list):
            return Batch.build(times, [canonical(value) for value in result.values])
    return result


def told(tool: Tool, time: int, error: Exception) -> tuple[str, str]:
    """What an error says, with its place; and its type."""
    kind = type(error).__name__
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an error is what a tool made it
        text = "it has no text"
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}..."
    return f"{tool.pin} at {format_time(time)}: {kind}: {text}", kind


class _Work:
    """How many instances a call may still read on the way to what raises; ``None`` is no bound."""

    __slots__ = ("left", "spent")

    def __init__(self, bound: int | None) -> None:
        self.left = bound
        self.spent = 0

    def spend(self, count: int) -> None:
        self.spent += count
        if self.left is not None:
            self.left -= count

    @property
    def over(self) -> bool:
        return self.left is not None and self.left <= 0


# --- tools that the engine asks for an interval --------------------------------------------------------------------


class Attempt(NamedTuple):
    """``results`` and ``failed`` instants of ``(low, end]``, ascending; ``low`` is the start unless work ran out.

    ``error`` is what the newest of them raised, ``kind`` its type; ``spent``: instances read on the way.
    """

    low: int
    results: Batch
    failed: list[int]
    error: str = ""
    kind: str = ""
    spent: int = 0


def attempt(tool: Tool, start: int, end: int, sources: Sequence[Batch], work: int | None = None) -> Attempt:
    """Evaluate ``(start, end]``. Never raises what a tool raises (rule 1).

    ``work`` bounds the instances that are read beyond the first evaluation, so far as at least one instant is done.
    """
    interval = TimeInterval(start, end)
    try:
        return Attempt(start, checked(tool, interval, tool.evaluate(interval, sources)), [])
    except Exception:  # noqa: BLE001 - a tool may raise anything; it becomes failed instants
        return _Search(tool, start, end, sources, work).result()


class _Search:
    """Halves until each instant that raises is alone."""

    def __init__(self, tool: Tool, start: int, end: int, sources: Sequence[Batch], work: int | None) -> None:
        self.tool = tool
        self.end = end
        self.low = end
        self.parts: list[Batch] = []
        self.failed: list[int] = []
        self.error = self.kind = ""
        self.work = _Work(work)
        self.supports = [tool.support(slot) for slot in range(len(sources))]
        drive = tool.drive()
        self.grid = drive.grid if isinstance(drive, OnGrid) else None
        self.times = np.empty(0, np.int64)
        if isinstance(drive, FromInput):
            self.times = sources[drive.slot].slice(start, end).times if sources else self.times
        elif self.grid is None:
            times = [source.slice(start, end).times for source in sources]
            self.times = np.unique(np.concatenate(times)) if times else self.times
        first = self._first(start, sources)
        if not self._split(first, end, sources):
            self._through(first, end, sources)
        if self.low <= first:
            self.low = start

    def result(self) -> Attempt:
        results = Batch.concat(self.parts[::-1])
        return Attempt(self.low, results, self.failed[::-1], self.error, self.kind, self.work.spent)

    def _first(self, start: int, sources: Sequence[Batch]) -> int:
        """On a grid that is asked for from minus infinity on: before everything that can be read."""
        if self.grid is None or start > MIN_TIME:
            return start
        ahead = max((support.lookahead for support in self.supports if isinstance(support, Window)), default=0)
        firsts = [shift(source.first_time, -ahead - 1) for source in sources if source]
        return min(firsts, default=self.end)

    def _through(self, start: int, end: int, sources: Sequence[Batch]) -> None:
        """``(start, end]``; everything later is done, unless the work is over."""
        if self.work.over and self.low < self.end:
            return
        interval = TimeInterval(start, end)
        given = [readable(support, source, interval) for support, source in zip(self.supports, sources, strict=True)]
        exact = Sources(given, sources.keys) if isinstance(sources, Sources) else given
        self.work.spend(1 + sum(map(len, given)))
        try:
            part = checked(self.tool, interval, self.tool.evaluate(interval, exact))
        except Exception as error:  # noqa: BLE001 - see `attempt`
            if not self._split(start, end, exact):
                self.failed.append(end)
                if not self.error:
                    self.error, self.kind = told(self.tool, end, error)
                self.low = start
            return
        self.parts.append(part)
        self.low = start

    def _split(self, start: int, end: int, sources: Sequence[Batch]) -> bool:
        """Do it in parts; ``False`` for one that is a single instant at which something may come out."""
        instants = self._instants(start, end)
        if instants is None:
            self.low = start
            return True
        first, middle, last = instants
        if first == last and start == end - 1:
            return False
        # Before the first and after the last one nothing can come out.
        self.low = last
        if first < last:
            self._through(middle, last, sources)
        self._through(first - 1, middle, sources)
        if self.low < first:
            self.low = start
        return True

    def _instants(self, start: int, end: int) -> tuple[int, int, int] | None:
        """The first instant of ``(start, end]`` at which something may come out, one in the middle, and the last."""
        if self.grid is not None:
            return _ticks(self.grid, start, end)
        low, high = self.times.searchsorted((start, end), "right").tolist()
        if low == high:
            return None
        return int(self.times[low]), int(self.times[(low + high - 1) // 2]), int(self.times[high - 1])


def _ticks(grid: Grid, start: int, end: int) -> tuple[int, int, int] | None:
    """The first instant of ``grid`` in ``(start, end]``, where to halve them, and a bound of the last one.

    The first and the last are equal where there is one only.
    """
    if start >= min(end, MAX_TIME - 1) or (first := grid.next(start)) > end:
        return None
    if (second := grid.next(first)) > end:
        return first, first, first
    middle = (first + end) // 2
    return first, middle if second <= middle else first, end


# --- folds ---------------------------------------------------------------------------------------------------------


class Walk:
    """Takes a fold from ``state`` at ``start`` through its instances, whatever it raises (rules 2 to 5).

    ``state`` is the one at ``until``, up to where the walk came; ``failed`` are instants; from ``halted`` on everything
    failed. ``state`` of the caller stays as it is. ``work`` bounds the instances read beyond those that raise nothing,
    so far as at least one is done. ``source`` has what comes after, for a fold that looks on to it (`Prefix.after`).
    """

    def __init__(
        self, tool: FoldTool, state: Value, start: int, work: int | None = None, source: Batch = NOTHING
    ) -> None:
        self.tool = tool
        self._source = source
        self.state = state
        self.start = self.until = start
        self.failed: list[int] = []
        self.halted: int | None = None
        self.error = self.kind = ""
        self._parts: list[Batch] = []
        self._work = _Work(work)
        drive = tool.drive()
        self._grid = drive.grid if isinstance(drive, OnGrid) else None

    @property
    def results(self) -> Batch:
        """The outputs up to ``until``."""
        return Batch.concat(self._parts)

    @property
    def spent(self) -> int:
        """Instances read on the way to those that raise."""
        return self._work.spent

    def spans(self) -> TimeIntervals:
        """What failed."""
        spans = TimeIntervals.points(self.failed)
        return spans if self.halted is None else spans | TimeIntervals.of(self.halted - 1, self.until)

    def through(self, batch: Batch, end: int) -> None:
        """All instances of ``(until, end]``; stops earlier where the work is over."""
        start = self.until
        if start >= end or self._stopped():
            return
        if self.state is HALTED:
            self.halted = start + 1 if self.halted is None else self.halted
            self.until = end
            return
        try:
            state, part = self.tool.run_over(
                _copy(self.state), batch, start, end, self.tool.following(self._source, end)
            )
            part = checked(self.tool, TimeInterval(start, end), part)
        except Exception as error:  # noqa: BLE001 - a tool may raise anything; it becomes failed instants
            self._work.spend(1 + len(batch))
            self._part(batch, end, error)
        else:
            self._done(state, part, end)

    def _stopped(self) -> bool:
        return self._work.over and self.until > self.start

    def _done(self, state: Value, part: Batch, end: int) -> None:
        self.state = state
        self._parts.append(part)
        self.until = end

    def _part(self, batch: Batch, end: int, error: Exception) -> None:
        """In parts what raised in one."""
        if len(batch) > 1:
            middle = int(batch.times[(len(batch) - 1) // 2])
            self.through(batch.slice(MIN_TIME - 1, middle), middle)
            if self.until == middle:
                self.through(batch.slice(middle, MAX_TIME), end)
        elif batch:
            self._instance(batch, end, error)
        elif self._grid is not None:
            self._silence(self._grid, end, error)
        else:
            self.until = end

    def _instance(self, batch: Batch, end: int, error: Exception) -> None:
        """The silence before the one instance, the instance, and the silence after it."""
        time = batch.first_time
        if self._grid is None:
            self._fail(time, error)
            self.until = time
        else:
            self.through(NOTHING, time - 1)
            if self.until < time - 1:
                return
            self._step(time, batch.plain()[0])
        self.through(NOTHING, end)

    def _step(self, time: int, value: Value) -> None:
        """On a grid: take one instance in, and emit what comes out at this instant."""
        try:
            self.state, _ = self.tool.step(_copy(self.state), time, value)
        except Exception as error:  # noqa: BLE001 - see `through`
            self._fail(time, error)
        self.until = time
        if self.state is HALTED:
            return
        try:
            _, part = self.tool.run_over(_copy(self.state), NOTHING, time - 1, time)
            self._parts.append(checked(self.tool, TimeInterval(time - 1, time), part))
        except Exception as error:  # noqa: BLE001 - see `through`
            if time not in self.failed[-1:]:
                self._tell(time, error)

    def _silence(self, grid: Grid, end: int, error: Exception) -> None:
        """Outputs of one state: the instants of the grid at which it raises fail."""
        instants = _ticks(grid, self.until, end)
        if instants is None:
            self.until = end
            return
        first, middle, last = instants
        if first < last:
            self.through(NOTHING, middle)
            if self.until == middle:
                self.through(NOTHING, end)
        elif self.until == end - 1:
            self._tell(end, error)
            self.until = end
        else:
            self.until = first - 1
            self.through(NOTHING, first)
            if self.until == first:
                self.until = end

    def _fail(self, time: int, error: Exception) -> None:
        self._tell(time, error)
        if not self.tool.goes_on:
            self.state, self.halted = HALTED, time

    def _tell(self, time: int, error: Exception) -> None:
        self.failed.append(time)
        self.error, self.kind = told(self.tool, time, error)


def _copy(state: Value) -> Value:
    """``state``, so that what is done to it in place is not done to ours."""
    if type(state) not in (list, dict):
        return state
    try:
        return canonical(state)
    except ValueError:
        return copy.deepcopy(state)
