"""Evaluating what is owed of a stream in pieces, as much as the step may do; what comes of it goes to the draft."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

from hs_stream.compute.task import Result
from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.time import EMPTY, TimeIntervals
from hs_stream.core.tool import OnGrid, Sources
from hs_stream.engine.begins import Begins
from hs_stream.engine.breath import Breath
from hs_stream.engine.contents import Contents
from hs_stream.engine.evaluate import Evaluator
from hs_stream.engine.history import Tally
from hs_stream.engine.telemetry import Telemetry
from hs_stream.plan.draft import Draft
from hs_stream.plan.portions import MOST_IN_GROUP, PER_INTERVAL, newest_group
from hs_stream.plan.streams import Stream
from hs_stream.plan.work import Spans

__all__ = ["Pieces"]

_NO_SOURCES: Final = Sources()


class Pieces:
    """See the module. ``tally`` sums up what was evaluated."""

    def __init__(
        self,
        contents: Contents,
        evaluator: Evaluator,
        begins: Begins,
        tally: Tally,
        telemetry: Telemetry,
        breath: Breath,
    ) -> None:
        self._contents = contents
        self._evaluator = evaluator
        self._begins = begins
        self._tally = tally
        self._telemetry = telemetry
        self._breath = breath

    def at_hand(self, stream: Stream, start: int, end: int, draft: Draft) -> Result | Awaitable[Result] | None:
        """Evaluate ``(start, end]``, later than all there is, from memory; ``None`` where more is needed.

        `accept_at_hand` takes what comes of it.
        """
        sources = self._evaluator.at_hand(stream, start, end)
        if sources is None:
            return None
        draft.spend(sum(map(len, sources)) + 1)
        return self._evaluator.run(stream, start, end, sources)

    def accept_at_hand(self, stream: Stream, found: Result, end: int, draft: Draft) -> TimeIntervals:
        """Returns what is left for later steps, up to ``end``."""
        start = stream.end()
        draft.spend(found.spent)
        done = ((found.start, end),)
        if failed := found.failed & TimeIntervals(done) if found.failed else EMPTY:
            self.fail(stream, failed, len(failed), found.error, found.kind, draft)
        self.put(stream, done, NOTHING, found.contents, draft, failed)
        return TimeIntervals.of(start, found.start)

    async def evaluate_all(self, stream: Stream, owed: TimeIntervals, draft: Draft) -> TimeIntervals:
        """Newest first. Returns what is left for later steps.

        Many small intervals near each other (random order, a flushed backlog) are evaluated in groups, over all that
        lies between them, because one reading and one call cost more than a few instances. Groups grow while what lies
        between costs little, and shrink when it does not fit.
        """
        left = list(owed.pairs)
        size = stream.agenda.grouped
        some = not draft.is_turn
        while left and (some or not draft.exhausted):
            some = False
            group = newest_group(stream, left, size)
            rest = await self.evaluate(stream, tuple(group), draft)
            await self._breath()
            if len(group) > 1 and rest == tuple(group):
                size = 1
                continue
            size = max(len(group) // 2, 1) if rest else min(2 * len(group), MOST_IN_GROUP)
            stream.agenda.group(size)
            left[len(left) - len(group) :] = rest
        return TimeIntervals(left) if left else EMPTY

    async def evaluate(self, stream: Stream, spans: Spans, draft: Draft) -> Spans:
        """Evaluate the newest part of ``spans``; returns what is left of them."""
        start, end = spans[0][0], spans[-1][1]
        if not stream.inputs:
            return await self._generate(stream, start, end, draft)
        single = len(spans) == 1
        limit = draft.most(self._evaluator.chunk) if single else min(PER_INTERVAL * len(spans), self._evaluator.chunk)
        sources, low = await self._evaluator.gather(stream, start, end, limit)
        draft.spend(sum(map(len, sources)) + 1)
        low = await self._evaluate(stream, spans, low, end, sources, draft)
        if low <= start:
            return ()
        return ((start, low),) if single else (TimeIntervals(spans) & TimeIntervals.of(start, low)).pairs

    async def _evaluate(self, stream: Stream, spans: Spans, low: int, end: int, sources: Sources, draft: Draft) -> int:
        """The part of ``spans`` in ``(low, end]``, or the newest part of that; returns where it begins."""
        found = self._evaluator.run(stream, low, end, sources)
        if not isinstance(found, Result):
            found = await found
        draft.spend(found.spent if stream.inputs else found.spent + len(found.contents) + 1)
        done: Spans = ((found.start, end),)
        if len(spans) > 1:
            done = (TimeIntervals(spans) & TimeIntervals.of(found.start, end)).pairs
        if failed := found.failed & TimeIntervals(done) if found.failed else EMPTY:
            self.fail(stream, failed, len(failed), found.error, found.kind, draft)
        if done:
            await self.accept(
                stream, done, found.contents if len(spans) == 1 else found.contents.within(done), draft, failed
            )
        return found.start

    async def _generate(self, stream: Stream, start: int, end: int, draft: Draft) -> Spans:
        """The newest part of ``(start, end]`` of a stream without inputs, from its workflow's begin on."""
        begin = self._begins.of(stream)
        if begin is None:
            return ()  # `Begins.begin_at` will look at it
        if end <= begin:
            await self.accept(stream, ((start, end),), NOTHING, draft)
            return ()
        low = max(start, begin, end - self._span(stream, draft))
        low = await self._evaluate(stream, ((low, end),), low, end, _NO_SOURCES, draft)
        if low <= begin and start < begin:
            await self.accept(stream, ((start, begin),), NOTHING, draft)
            start = begin
        return ((start, low),) if low > start else ()

    def _span(self, stream: Stream, draft: Draft) -> int:
        drive = stream.drive
        assert isinstance(drive, OnGrid)
        return drive.grid.every * draft.most(self._evaluator.chunk)

    def fail(self, stream: Stream, failed: TimeIntervals, count: int, error: str, kind: str, draft: Draft) -> None:
        """Tell that the tool raised at ``count`` instants in ``failed``; `accept` is told too."""
        assert stream.tool is not None
        draft.of(stream).fail(error)
        where = stream.tool.name, stream.node, stream.name, failed.start, failed.end
        self._telemetry.failed(*where, count, kind)

    async def accept(
        self, stream: Stream, spans: Spans, new: Batch, draft: Draft, failed: TimeIntervals = EMPTY
    ) -> None:
        """The contents inside of ``spans`` (not empty) are ``new``: compare, write down, cover.

        The tool raised on ``failed`` of them.
        """
        start, end = spans[0][0], spans[-1][1]
        old = NOTHING
        if not draft.write(stream).is_new(start):
            old = (await self._contents.before(stream, start, end)).within(spans)
        self.put(stream, spans, old, new, draft, failed)

    def put(
        self, stream: Stream, spans: Spans, old: Batch, new: Batch, draft: Draft, failed: TimeIntervals = EMPTY
    ) -> None:
        """`accept`, where what was there is known: it is ``old``."""
        changed = draft.write(stream).put(spans, old, new, failed)
        cause = draft.causes[stream.id]
        self._tally.add(stream, cause, spans[0][0], spans[-1][1], len(new), changed)
        if cause != "arrival" and new:
            self._telemetry.recomputed(cause, len(new))
