"""Folds: streams whose value depends on every earlier input instance, through a state that the engine carries.

1. ``StreamState.fold`` is a `Head`: ``state`` is the state after every input instance at or before any instant of
   ``since`` to ``until`` (``since`` is the last instance's time), both included.
2. Snapshots of the state are stored every `SNAPSHOT_EVERY` input instances. A state that is not at hand is rebuilt
   from the last valid snapshot before it. Stored snapshots are valid: the commit that takes coverage back after a
   changed instant drops those that it does not confirm.
3. **Convergence.** Recomputing after a late reading goes from state to state (`hs_stream.compute.run`). Where the new
   state is the same as the old one at that time, and no input changed after it, everything after it is as it was: its
   coverage is given back untouched. So a late reading costs what it really changes. For that, what is covered after a
   known state must rest on it. A reading that is stored and has not arrived may be in a state, and not in what was
   covered after it before: such a state is forgotten.
4. An instance on which the tool raises fails, and the fold goes on from the state before it, as it was
   (`hs_stream.compute.attempt`). That state is not at hand any more, since the tool may have changed it in place: it is
   rebuilt. Where that was needed once, a stream's tasks are wary from then on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from hs_stream.compute.task import NO_STATES, Carried, Result
from hs_stream.core.batch import Batch
from hs_stream.core.fold_states import HALTED, INITIAL
from hs_stream.core.time import EMPTY, MAX_TIME, MIN_TIME, TimeIntervals
from hs_stream.core.tool import Sources
from hs_stream.core.value import Value, canonical
from hs_stream.engine.contents import Contents, PatientStore
from hs_stream.engine.evaluate import Evaluator
from hs_stream.plan.draft import Draft
from hs_stream.plan.state import Head
from hs_stream.plan.streams import Stream
from hs_stream.plan.take_back import Invalid
from hs_stream.plan.work import Spans

__all__ = ["SNAPSHOT_EVERY", "Accept", "Folder"]

SNAPSHOT_EVERY: Final = 512
_MOST_CANDIDATES: Final = 256
_FEW: Final = 4 * SNAPSHOT_EVERY

Accept = Callable[[Stream, Spans, Batch, Draft, TimeIntervals], Awaitable[None]]
"""``accept(stream, spans, contents, draft, failed)``: the results inside of ``spans``, and where the tool raised."""

Fail = Callable[[Stream, TimeIntervals, int, str, str, Draft], None]
"""``fail(stream, failed, count, error, kind, draft)``: the tool raised at ``count`` instants in ``failed``."""


class Folder:
    """Evaluates fold streams for one executor."""

    def __init__(
        self,
        contents: Contents,
        store: PatientStore,
        evaluator: Evaluator,
        accept: Accept,
        fail: Fail,
        unseen: Callable[[Stream], TimeIntervals],
    ) -> None:
        self._contents = contents
        self._accept = accept
        self._fail = fail
        self._store = store
        self._evaluator = evaluator
        self._unseen = unseen

    async def process(
        self,
        stream: Stream,
        owed: TimeIntervals,
        lost: TimeIntervals,
        invalid: Invalid | None,
        draft: Draft,
    ) -> TimeIntervals:
        """Evaluate what is owed, oldest first; returns what is left for later steps."""
        work = draft.write(stream)
        head = work.fold
        if invalid is not None:
            work.invalidate(invalid[0])
        rest = EMPTY
        todo = list(reversed(owed.pairs))
        while todo:
            start, end = todo.pop()
            if rest:
                rest |= TimeIntervals.of(start, end)
                continue
            left, again = await self._piece(stream, start, end, lost, invalid, head, draft)
            rest |= left
            todo += reversed(again.pairs)
        return rest

    async def _piece(
        self,
        stream: Stream,
        start: int,
        end: int,
        lost: TimeIntervals,
        invalid: Invalid | None,
        head: Head | None,
        draft: Draft,
    ) -> tuple[TimeIntervals, TimeIntervals]:
        """Returns what is left for later, and what is still to do now after a convergence."""
        source = stream.inputs[0]
        carried = await self._state_at(stream, start, invalid, draft)
        batch, complete = await self._read(source, start, end, lost, invalid, draft.most(self._evaluator.chunk))
        draft.spend(len(batch) + 1)
        until = end if complete else batch.last_time
        if stream.looks_on:
            batch = Batch.concat([batch, await self._contents.first(source, until, 1)])
        old = await self._old_states(stream, start, until, lost, invalid, head)
        work = draft.write(stream)
        done = await self._through(stream, start, until, batch, carried, invalid, draft, old, SNAPSHOT_EVERY)
        if done.raised:
            self._fail(stream, done.failed, done.raised, done.error, done.kind, draft)
        reached = done.end
        if reached > start:
            await self._accept(stream, ((start, reached),), done.contents, draft, done.failed)
        assert done.carried is not None
        new = Head(done.carried.since, reached, done.carried.state, done.carried.passed)
        if done.converged:
            return EMPTY, self._converge(stream, end, new, lost, invalid, head, draft)
        work.carry(new)
        if reached < stream.end() and (unseen := self._unseen(source)) and unseen.start < reached:
            work.carry(None)
            work.forget_snapshots(start)
        return (TimeIntervals.of(reached, end) if reached < end else EMPTY), EMPTY

    async def _through(
        self,
        stream: Stream,
        start: int,
        end: int,
        batch: Batch,
        carried: Carried,
        invalid: Invalid | None,
        draft: Draft,
        old: Mapping[int, Value] = NO_STATES,
        every: int = 0,
    ) -> Result:
        """From ``carried`` at ``start`` through ``batch``, all input instances of ``(start, end]`` (rule 4).

        It comes less far where much is raised, and where the state is that of ``old`` again.
        """
        done = self._evaluator.run(stream, start, end, Sources([batch]), carried, old, every)
        if not isinstance(done, Result):
            done = await done
        draft.spend(done.spent)
        draft.write(stream).snap(done.snapshots)
        if not done.torn:
            return done
        stream.agenda.beware()
        assert done.carried is not None
        rebuilt = await self._rebuilt(stream, done.end, invalid, draft)
        later = {time: state for time, state in old.items() if time > done.end}
        rest = batch.slice(done.end, MAX_TIME)
        again = done.carried._replace(state=rebuilt)
        return done.then(await self._through(stream, done.end, end, rest, again, invalid, draft, later, every))

    async def _read(
        self, source: Stream, start: int, end: int, lost: TimeIntervals, invalid: Invalid | None, limit: int
    ) -> tuple[Batch, bool]:
        """The first ``limit`` input instances of ``(start, end]``: fewer where rule 3 will probably stop soon."""
        if lost and invalid is not None:
            few = min(_FEW, limit)
            batch, complete = await self._contents.read_some(source, start, end, limit=few, newest=False)
            if complete or (batch and batch.last_time > invalid[1]):
                return batch, complete
        return await self._contents.read_some(source, start, end, limit=limit, newest=False)

    def _converge(
        self,
        stream: Stream,
        end: int,
        new: Head,
        lost: TimeIntervals,
        invalid: Invalid | None,
        head: Head | None,
        draft: Draft,
    ) -> TimeIntervals:
        """Rule 3: give back what is later than ``new.until``; returns what of it is owed."""
        assert invalid is not None
        at = new.until
        back = lost & TimeIntervals.of(at, MAX_TIME)
        work = draft.write(stream)
        work.cover(back)
        # After `at` the old head holds as before. Before it there may be instances now that it does not know.
        work.carry(new if head is None or head.until < at else head._replace(since=max(head.since, new.since)))
        work.confirm(invalid[0], at)
        return TimeIntervals.of(at, end) - back

    async def _state_at(self, stream: Stream, instant: int, invalid: Invalid | None, draft: Draft) -> Carried:
        """The state after every input instance at or before ``instant``."""
        head = draft.of(stream).fold
        if head is not None and head.since <= instant <= head.until:
            return Carried(head.state, head.since, head.passed)
        known = None
        if head is not None and head.since <= instant:
            known = head.until, head.state
        if head is None or known is None or stream.inputs[0].latest_tail.low > head.until:
            # The last stored state may be nearer than what was looked at last.
            stored = await self._stored(stream, instant, invalid)
            if stored is not None and (known is None or stored[0] > known[0]):
                known = stored
        return await self._rebuild(stream, known, instant, invalid, draft)

    async def _stored(self, stream: Stream, instant: int, invalid: Invalid | None) -> tuple[int, Value] | None:
        """The last stored state at or before ``instant`` that is valid."""
        if instant <= MIN_TIME or max(stream.latest.frontier, stream.inputs[0].state.floor) <= MIN_TIME:
            return None
        limit = instant if invalid is None else min(instant, invalid[0])
        found = await self._store("snapshot", self._store.store.snapshot, stream.id, limit)
        return None if found is None else (found.time, canonical(found.state))

    async def _rebuilt(self, stream: Stream, instant: int, invalid: Invalid | None, draft: Draft) -> Value:
        """The state at ``instant``, of what is stored and of what this step will store."""
        known = await self._stored(stream, instant, invalid)
        for snapshot in draft.of(stream).snapshots:
            if snapshot.time <= instant and (known is None or snapshot.time > known[0]):
                known = snapshot.time, snapshot.state
        return (await self._rebuild(stream, known, instant, invalid, draft)).state

    async def _rebuild(
        self, stream: Stream, known: tuple[int, Value] | None, instant: int, invalid: Invalid | None, draft: Draft
    ) -> Carried:
        """The state at ``instant``, from a ``known`` one (by time) or from the beginning."""
        # What is forgotten is, for a fold that knows no state, as if it had never been.
        at, state = known or (stream.inputs[0].state.floor, INITIAL)
        carried = Carried(state, instant)
        while at < instant and carried.state is not HALTED:
            batch, complete = await self._contents.read_some(
                stream.inputs[0], at, instant, limit=self._evaluator.chunk, newest=False
            )
            draft.spend(len(batch))
            upto = instant if complete else batch.last_time
            while at < upto:
                done = await self._through(stream, at, upto, batch.slice(at, upto), carried, invalid, draft)
                assert done.carried is not None
                carried, at = done.carried, done.end
        return carried._replace(since=instant)

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
            found[min(head.until, until)] = head.state
        return {at: state for at, state in found.items() if lost.covers(at - 1, at)}
