"""What a step does to one stream that it touches: take back, evaluate what is owed, hand on what changed, settle.

The rules are those of `hs_stream.engine.executor`. Everything is written to the draft of the step.

`Processor.process` is the part that reads and evaluates. Several streams of one rank may be in it at once: it changes
nothing that another stream of its rank looks at, but for what of the budget is left. `Processor.finish` tells others.
It does not wait for anything, and comes in order of rank and id, so that causes and turns do not depend on who was
ready first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from typing import Any, Final

import numpy as np

from hs_stream.compute.task import Result
from hs_stream.core.affected import affected, counts_after, looks_on
from hs_stream.core.batch import Batch
from hs_stream.core.time import EMPTY, TimeIntervals, shift
from hs_stream.core.tool import OnGrid, Prefix, Support
from hs_stream.core.watermark import Silence
from hs_stream.engine.begins import Begins
from hs_stream.engine.contents import Contents
from hs_stream.engine.fold import Folder
from hs_stream.engine.pieces import Pieces
from hs_stream.engine.ports import Clock
from hs_stream.engine.schedule import Schedule
from hs_stream.plan.draft import Draft
from hs_stream.plan.owed import available_now, drives, find_due, next_wanted, steady, wanted_until
from hs_stream.plan.portions import now_and_later
from hs_stream.plan.streams import Stream
from hs_stream.plan.take_back import TakenBack, looked_on, reaching, take_back
from hs_stream.plan.work import Work

__all__ = ["Done", "Processor"]

Done = tuple[TimeIntervals, TimeIntervals]
"""``(rest, gone)``: what is left for later steps, and what consumers must take back since it will not come back."""

_MOST_POINTS: Final = 4096
"""More changed instants than this are handed on as one interval that contains them."""


class Processor:
    """Processes the streams of a step, each once, inputs before outputs."""

    def __init__(
        self,
        contents: Contents,
        pieces: Pieces,
        folder: Folder,
        schedule: Schedule,
        begins: Begins,
        silence: Silence,
        clock: Clock,
    ) -> None:
        self._contents = contents
        self._pieces = pieces
        self._folder = folder
        self._schedule = schedule
        self._begins = begins
        self._silence = silence
        self._clock = clock

    def process(
        self, stream: Stream, changed: dict[int, TimeIntervals], draft: Draft
    ) -> Done | Coroutine[Any, Any, Done]:
        """Take back and evaluate; then it can be finished. ``changed``: per input slot.

        In the usual case all that it takes is in memory, and it is done at once. Else what it returns is to be awaited.
        """
        usual = steady(stream, changed, draft.horizon)
        if usual is None:
            return self._general(stream, changed, draft)
        start, end = usual
        if draft.of(stream).frontier > start:
            return self._usual(stream, start, end, changed, draft)
        rest = EMPTY
        if end > start:
            part = self._folder if stream.is_fold else self._pieces
            found = part.at_hand(stream, start, end, draft)
            if found is None:
                return self._usual(stream, start, end, changed, draft)
            if not isinstance(found, Result) or found.torn:
                return self._wait(found, stream, changed, end, draft)
            rest = part.accept_at_hand(stream, found, end, draft)
        return self._done_at_hand(stream, changed, rest, draft)

    async def _wait(
        self,
        coming: Result | Awaitable[Result],
        stream: Stream,
        changed: dict[int, TimeIntervals],
        end: int,
        draft: Draft,
    ) -> Done:
        found = coming if isinstance(coming, Result) else await coming
        part = self._folder if stream.is_fold else self._pieces
        if found.torn:
            rest = await self._folder.accept_torn(stream, found, end, draft)
        else:
            rest = part.accept_at_hand(stream, found, end, draft)
        return self._done_at_hand(stream, changed, rest, draft)

    def _done_at_hand(
        self, stream: Stream, changed: dict[int, TimeIntervals], rest: TimeIntervals, draft: Draft
    ) -> Done:
        self._wait_for_rest(stream, changed)
        draft.of(stream).note_old(None)
        return rest, EMPTY

    async def _usual(
        self, stream: Stream, start: int, end: int, changed: dict[int, TimeIntervals], draft: Draft
    ) -> Done:
        """The usual case, where something has to be read."""
        rest = EMPTY
        if end > start:
            if stream.is_fold:
                rest = await self._folder.process(stream, TimeIntervals.of(start, end), EMPTY, None, draft)
            elif left := await self._pieces.evaluate(stream, ((start, end),), draft):
                rest = TimeIntervals(left)
        self._wait_for_rest(stream, changed)
        await self._find_old(stream, draft.of(stream))
        return rest, EMPTY

    async def _general(self, stream: Stream, changed: dict[int, TimeIntervals], draft: Draft) -> Done:
        """Any case."""
        work = draft.of(stream)
        before = work.end()
        work.take()
        lost, unsure, invalid, _ = await self._take_back(stream, work, changed, draft)
        may = available_now(stream, draft.horizon, self._silence.proven) & stream.wanted()
        if work.taken.retried:
            work.try_again(work.taken.retried & work.failed & may)
        owed = may - work.coverage
        owed, rest = now_and_later(
            stream,
            work,
            owed,
            is_turn=draft.is_turn,
            exhausted=draft.exhausted,
            waits=stream in self._schedule.backlog,
            takes_back=bool(lost),
        )
        if owed:
            draft.evaluates(self._clock.now())
            if stream.is_fold:
                rest |= await self._folder.process(stream, owed, lost, invalid, draft)
            else:
                rest |= await self._pieces.evaluate_all(stream, owed, draft)
            draft.evaluated(self._clock.now())
        elif invalid is not None:
            draft.write(stream).invalidate(invalid[0])
        # What is lost and will not come back by itself is a change for the consumers: their results rest on it.
        gone = lost | unsure
        if gone:
            gone = gone - work.coverage - rest
        if lost and work.end() < before:
            stream.agenda.wait_for(lost)
        await self._find_old(stream, work)
        return rest, gone

    def finish(self, stream: Stream, done: Done, draft: Draft) -> None:
        """Tell its consumers what changed, and the schedule what is left."""
        work, (rest, gone) = draft.of(stream), done
        self._hand_on(stream, work, draft, gone)
        self._settle(stream, work, rest, draft)

    def purge(self, stream: Stream, start: int, end: int, old: Batch, draft: Draft) -> None:
        """Nothing is left of ``old``, all that is stored in ``(start, end]``, and it is not covered any more."""
        work = draft.write(stream)
        lost = TimeIntervals.of(start, end) & work.coverage
        before = work.end()
        work.remove(start, end, old)
        work.uncover(TimeIntervals.of(start, end))
        if work.end() < before:
            stream.agenda.forget_inputs()
            stream.agenda.wait_for(lost)
        self.note(stream)
        self._hand_on(stream, work, draft, lost)

    async def _find_old(self, stream: Stream, work: Work) -> None:
        """What is stored after the coverage has to be replaced or retracted: silence does not prove it right."""
        end = work.end()
        if work.frontier <= end:
            work.note_old(None)
            return
        first, _ = await self._contents.read_some(stream, end, work.frontier, limit=1, newest=False)
        work.note_old(first.first_time if first else None)

    @staticmethod
    def _wait_for_rest(stream: Stream, changed: Mapping[int, TimeIntervals]) -> None:
        """Remember changes of driving inputs that the steady way could not turn into outputs yet."""
        end = stream.end()
        for slot, spans in changed.items():
            if slot >= 0 and spans and spans.end > end and drives(stream, slot):
                stream.agenda.wait_for(spans)

    async def _take_back(
        self, stream: Stream, work: Work, changed: Mapping[int, TimeIntervals], draft: Draft
    ) -> TakenBack:
        """Rule 1. Changes of driving inputs after the coverage are remembered."""
        end = work.end()
        unseen = EMPTY
        for slot, spans in looked_on(stream, work).items():
            stream.agenda.is_told()
            unseen |= await self._affected(stream, stream.inputs[slot], stream.support(slot), spans)
        for slot, spans in changed.items():
            if slot >= 0 and spans and drives(stream, slot) and spans.end > end:
                stream.agenda.wait_for(spans)
                stream.agenda.note_input(slot, spans.end)
        reached = {
            slot: await self._affected(stream, stream.inputs[slot], stream.support(slot), spans)
            for slot, spans in reaching(stream, work, changed).items()
        }
        taken = take_back(stream, work, changed, reached, unseen, draft.horizon)
        if taken.lost:
            draft.write(stream).take_back(taken.lost)
            if taken.late:
                draft.is_late(stream)
            if work.end() < end:
                stream.agenda.forget_inputs()
        return taken

    async def _affected(self, stream: Stream, source: Stream, support: Support, spans: TimeIntervals) -> TimeIntervals:
        later: Sequence[int | None] = ()
        earlier: Sequence[int | None] = ()
        if count := counts_after(support):
            later = await self._contents.nth_after(source, [end for _, end in spans.pairs], count)
        if looks_on(support):
            earlier = await self._contents.before_each(source, [start for start, _ in spans.pairs])
            if isinstance(support, Prefix) and isinstance(stream.drive, OnGrid) and earlier[0] is not None:
                # Up to its first instant nothing comes out. There the state is at hand.
                earlier[0] = min(stream.drive.grid.next(earlier[0]) - 1, spans.start)
        return affected(support, spans, later, earlier)

    def _hand_on(self, stream: Stream, work: Work, draft: Draft, failed: TimeIntervals) -> None:
        """Tell the consumers what changed (rule 3), and that more is covered."""
        if not (work.writes or failed) or not stream.children:
            return
        changed, differences = failed, work.differences
        if len(differences) == 1 and work.fresh:
            times = differences[0].inserted.times
            changed |= TimeIntervals.of(int(times[0]) - 1, int(times[-1]))
        else:
            for found in differences:
                changed |= _changed(found.times())
        cause = draft.causes[stream.id]
        for child, slot in stream.children:
            draft.touch(child, slot, changed, cause)

    @staticmethod
    def note(stream: Stream) -> None:
        """Tell aggregates that how far ``stream`` reaches has changed."""
        for child, slot in stream.children:
            if child.slowest is not None:
                child.slowest.note(slot, child.inputs)

    def _settle(self, stream: Stream, work: Work, rest: TimeIntervals, draft: Draft) -> None:
        """What is left, and when silence alone makes more computable."""
        end = work.end()
        self._schedule.owes(stream, rest, served=draft.is_turn and work.writes)

        def further() -> dict[int, int]:
            inputs = enumerate(stream.inputs)
            return {slot: one.latest.frontier for slot, one in inputs if one.latest.frontier > end}

        stream.agenda.advance(end, further if stream.aggregate and work.coverage else None)
        # A stream without inputs waits for the time itself, not for silence.
        begin, ahead = (None, stream.ahead) if stream.inputs else (self._begins.of(stream), -self._silence.idle)
        due = find_due(stream, begin, self._silence.horizon)
        work.settle(rest, due, wanted_until(stream))
        self.note(stream)
        wanted = next_wanted(stream)
        at = None if wanted is None else shift(wanted, ahead)
        # What silence has proven already and is still missing waits for an input (one that fails, or that nobody
        # wants): its next change touches this stream.
        self._schedule.due_at(stream, None if at is None or at <= draft.horizon else at)


def _changed(times: list[int]) -> TimeIntervals:
    if len(times) > _MOST_POINTS:
        return TimeIntervals.of(times[0] - 1, times[-1])
    if len(times) > 8:
        instants = np.array(times, np.int64)
        breaks = np.flatnonzero(np.diff(instants) > 1)
        starts = instants[np.concatenate(([0], breaks + 1))] - 1
        ends = instants[np.concatenate((breaks, [len(instants) - 1]))]
        return TimeIntervals(zip(starts.tolist(), ends.tolist(), strict=True))
    return TimeIntervals.points(times)
