"""Folds: streams whose value depends on every earlier input instance, through a state that the engine carries.

1. ``Stream.fold`` is a `Head`: ``state`` is the state behind every input instance at or before any instant of
   ``since`` to ``until`` (``since`` is the last instance's time), both included.
2. Snapshots of the state are stored every `SNAPSHOT_EVERY` input instances. A state that is not at hand is rebuilt
   from the last valid snapshot before it. Stored snapshots are valid: the commit that takes coverage back behind a
   changed instant drops those that it does not confirm.
3. **Convergence.** Recomputing after a late reading goes from state to state. Where the new state is the same as the
   old one at that time, and no input changed behind it, everything behind it is as it was: its coverage is given back
   untouched. So a late reading costs what it really changes. For that, what is covered behind a known state must rest
   on it. A reading that is stored and has not arrived may be in a state, and not in what was covered behind it before:
   such a state is forgotten.
4. An instance on which the tool raises fails everything behind it too, until an input at or before it changes.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.time import EMPTY, MAX_TIME, MIN_TIME, TimeInterval, TimeIntervals
from hs_stream.core.tool import FoldTool, OnGrid
from hs_stream.core.value import Value, canonical, same
from hs_stream.engine.contents import Contents, PatientStore
from hs_stream.engine.evaluate import checked
from hs_stream.engine.ports import Snapshot
from hs_stream.engine.step import Spans, Step
from hs_stream.engine.streams import Head, Stream
from hs_stream.engine.telemetry import Telemetry

__all__ = ["SNAPSHOT_EVERY", "Accept", "Folder", "Invalid"]

SNAPSHOT_EVERY: Final = 512
_MOST_CANDIDATES: Final = 256
_FEW: Final = 4 * SNAPSHOT_EVERY

Accept = Callable[[Stream, Spans, Batch, Step], Awaitable[None]]
"""``accept(stream, spans, contents, step)``: the results inside of ``spans``."""

Invalid = tuple[int, int]
"""``(first, last)``: input changed at instants in ``(first, last]``; old states later than ``first`` are not valid."""


class _Raised(Exception):
    """The tool raised at ``time``; ``results`` are the outputs before it."""

    def __init__(self, time: int, state: Value, results: Batch, error: Exception) -> None:
        super().__init__(str(error))
        self.time = time
        self.state = state
        self.results = results
        self.error = error


class Folder:
    """Evaluates fold streams for one executor."""

    def __init__(
        self,
        contents: Contents,
        store: PatientStore,
        telemetry: Telemetry,
        chunk: int,
        unseen: Callable[[Stream], TimeIntervals],
    ) -> None:
        self._contents = contents
        self._store = store
        self._telemetry = telemetry
        self._chunk = chunk
        self._unseen = unseen

    async def process(
        self,
        stream: Stream,
        owed: TimeIntervals,
        lost: TimeIntervals,
        invalid: Invalid | None,
        step: Step,
        accept: Accept,
    ) -> TimeIntervals:
        """Evaluate what is owed, oldest first; returns what is left for later steps."""
        head = stream.fold
        if invalid is not None:
            self.invalidate(stream, invalid)
            step.write(stream).snapshots_dropped = TimeIntervals.of(invalid[0], MAX_TIME)
        rest = EMPTY
        todo = list(reversed(owed.pairs))
        while todo:
            start, end = todo.pop()
            if rest:
                rest |= TimeIntervals.of(start, end)
                continue
            left, again = await self._piece(stream, start, end, lost, invalid, head, step, accept)
            rest |= left
            todo += reversed(again.pairs)
        return rest

    @staticmethod
    def invalidate(stream: Stream, invalid: Invalid) -> None:
        """Input changed behind ``invalid[0]``: what the head knows ends there."""
        head = stream.fold
        if head is not None and head.until > invalid[0]:
            stream.fold = head._replace(until=invalid[0]) if head.since <= invalid[0] else None

    async def _piece(
        self,
        stream: Stream,
        start: int,
        end: int,
        lost: TimeIntervals,
        invalid: Invalid | None,
        head: Head | None,
        step: Step,
        accept: Accept,
    ) -> tuple[TimeIntervals, TimeIntervals]:
        """Returns what is left for later, and what is still to do now behind a convergence."""
        source = stream.inputs[0]
        began = time.perf_counter()
        try:
            state = await self._state_at(stream, start, invalid, step)
        except _Raised as raised:
            self._fail(stream, min(raised.time - 1, start), raised, step)
            return EMPTY, EMPTY
        batch, complete = await self._read(source, start, end, lost, invalid)
        step.spent += len(batch) + 1
        until = end if complete else batch.last_time
        old = await self._old_states(stream, start, until, lost, invalid, head)
        write = step.write(stream)
        results: list[Batch] = []
        position, at = 0, start
        since = (
            stream.fold.since if stream.fold is not None and stream.fold.since <= start <= stream.fold.until else start
        )
        converged = None
        try:
            for stop in [*sorted(old), until]:
                high = int(batch.times.searchsorted(stop, "right"))
                while position < high:
                    upto = min(high, position + max(SNAPSHOT_EVERY - stream.fold_count, 1))
                    since = int(batch.times[upto - 1])
                    state, part = self._run(stream, state, batch.slice_index(position, upto), at, since)
                    results.append(part)
                    stream.fold_count += upto - position
                    position, at = upto, since
                    if stream.fold_count >= SNAPSHOT_EVERY:
                        write.snapshots.append(Snapshot(since, canonical(state)))
                        stream.fold_count = 0
                if at < stop and isinstance(stream.drive, OnGrid):
                    state, part = self._run(stream, state, NOTHING, at, stop)
                    results.append(part)
                    at = stop
                if stop in old and same(canonical(state), old[stop]):
                    converged = stop
                    break
        except _Raised as raised:
            results.append(raised.results)
            until, state = raised.time - 1, raised.state
            since = until
            self._fail(stream, until, raised, step)
        assert stream.tool is not None
        self._telemetry.step(stream.tool.name, time.perf_counter() - began)
        reached = until if converged is None else converged
        if reached > start:
            interval = TimeInterval(start, reached)
            await accept(stream, ((start, reached),), checked(stream.tool, interval, Batch.concat(results)), step)
        if converged is None:
            stream.fold = Head(since, reached, state)
            if reached < stream.end() and (unseen := self._unseen(source)) and unseen.start < reached:
                stream.fold = None
                write.snapshots = [snapshot for snapshot in write.snapshots if snapshot.time <= start]
            return (TimeIntervals.of(until, end) - stream.failed if until < end else EMPTY), EMPTY
        return EMPTY, self._converge(stream, end, Head(since, converged, state), lost, invalid, head, step)

    async def _read(
        self, source: Stream, start: int, end: int, lost: TimeIntervals, invalid: Invalid | None
    ) -> tuple[Batch, bool]:
        """The first input instances of ``(start, end]``: few where rule 3 will probably stop soon."""
        if lost and invalid is not None:
            few = min(_FEW, self._chunk)
            batch, complete = await self._contents.read_some(source, start, end, limit=few, newest=False)
            if complete or (batch and batch.last_time > invalid[1]):
                return batch, complete
        return await self._contents.read_some(source, start, end, limit=self._chunk, newest=False)

    def _converge(
        self,
        stream: Stream,
        end: int,
        new: Head,
        lost: TimeIntervals,
        invalid: Invalid | None,
        head: Head | None,
        step: Step,
    ) -> TimeIntervals:
        """Rule 3: give back what lies behind ``new.until``; returns what is owed behind that."""
        assert invalid is not None
        at = new.until
        back = lost & TimeIntervals.of(at, MAX_TIME)
        stream.coverage |= back
        # Behind `at` the old head holds as before. In front of it there may be instances now that it does not know.
        stream.fold = new if head is None or head.until < at else head._replace(since=max(head.since, new.since))
        step.write(stream).snapshots_dropped = TimeIntervals.of(invalid[0], at)
        return TimeIntervals.of(at, end) - back

    def _run(self, stream: Stream, state: Value, batch: Batch, start: int, end: int) -> tuple[Value, Batch]:
        """From ``state`` at ``start`` through all input instances of ``(start, end]``."""
        tool = stream.tool
        assert isinstance(tool, FoldTool)
        try:
            return tool.run_over(state, batch, start, end)
        except Exception:  # noqa: BLE001 - found again below, instance by instance
            self._telemetry.failed(tool.name)
        parts: list[Batch] = []
        for index, at in enumerate([*batch.times.tolist(), end + 1]):
            # Silence up to the instance, then the instance itself. What silence raises lies at the state before it.
            for piece, first, last, blame in (
                (NOTHING, start, at - 1, start + 1),
                (batch.slice_index(index, index + 1), at - 1, min(at, end), at),
            ):
                if first >= last:
                    continue
                try:
                    state, part = tool.run_over(state, piece, first, last)
                except Exception as error:  # noqa: BLE001 - a tool may raise anything; it becomes a failed interval
                    raise _Raised(blame, state, Batch.concat(parts), error) from None
                parts.append(part)
            start = at
        return state, Batch.concat(parts)

    def _fail(self, stream: Stream, after: int, raised: _Raised, step: Step) -> None:
        assert stream.tool is not None
        stream.failed |= TimeIntervals.of(after, MAX_TIME)
        kind = type(raised.error).__name__
        self._telemetry.interval_failed(stream.node, stream.name, after, MAX_TIME, kind)
        stream.error = f"{stream.tool.pin} at {TimeInterval(raised.time - 1, raised.time)}: {kind}: {raised.error}"
        step.write(stream)

    async def _state_at(self, stream: Stream, instant: int, invalid: Invalid | None, step: Step) -> Value:
        """The state behind every input instance at or before ``instant``."""
        tool = stream.tool
        assert isinstance(tool, FoldTool)
        begin = stream.inputs[0].floor
        known: tuple[int, Value] | None = None
        head = stream.fold
        if head is not None and head.since <= instant:
            if head.until >= instant:
                return head.state
            known = head.until, head.state
        elif instant > MIN_TIME and max(stream.frontier, begin) > MIN_TIME:
            limit = instant if invalid is None else min(instant, invalid[0])
            found = await self._store("snapshot", self._store.store.snapshot, stream.id, limit)
            if found is not None:
                known = found.time, found.state
        # What is forgotten is, for a fold that knows no state, as if it had never been.
        at, state = known or (begin, tool.initial())
        stream.fold_count = 0
        while at < instant:
            batch, complete = await self._contents.read_some(
                stream.inputs[0], at, instant, limit=self._chunk, newest=False
            )
            step.spent += len(batch)
            upto = instant if complete else batch.last_time
            state, _ = self._run(stream, state, batch, at, upto)
            stream.fold_count += len(batch)
            at = upto
        return state

    async def _old_states(
        self,
        stream: Stream,
        start: int,
        until: int,
        lost: TimeIntervals,
        invalid: Invalid | None,
        head: Head | None,
    ) -> dict[int, Value]:
        """States from before the change at which the recomputation may converge, by time."""
        if invalid is None or not lost:
            return {}
        first = max(start, invalid[1] - 1)
        found: dict[int, Value] = {}
        if first < until:
            snapshots = await self._store(
                "snapshots", self._store.store.snapshots, stream.id, first, until, limit=_MOST_CANDIDATES
            )
            found = {snapshot.time: snapshot.state for snapshot in snapshots}
        if head is not None and head.since <= until and first < head.until:
            found[min(head.until, until)] = canonical(head.state)
        return {at: state for at, state in found.items() if lost.covers(at - 1, at)}
