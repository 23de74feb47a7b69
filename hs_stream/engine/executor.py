"""The incremental executor: from changed intervals to committed results.

1. **Changed -> affected.** A change of an input takes the affected part of the output out of its coverage, before
   anything is recomputed. What was stored there stays readable, and is what the new results are compared with.
2. **Owed** is ``available & demanded - covered``. It is evaluated, newest first, in bounded pieces; what does not fit
   into the step is done in later ones. A step takes either what is new, or one turn of what is owed, of one workflow
   (`hs_stream.engine.backlog`). So what is new waits for one turn at the most. An instant that failed is covered: it is
   known that nothing came of it, so that nobody waits for it.
3. **Cut off.** Only the difference between old and new contents is a change for the consumers, and is published.
4. A step ends with one atomic commit. Coverage in the commit is the only record of what is owed: after a crash, what
   is not covered is simply owed again. Marks of late readings are forgotten by the commit whose coverages reflect them.
5. Between the instants at which something is *due*, a silent stream needs no work: `Stream.covered` knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from hs_stream.compute.task import Result, Task
from hs_stream.core.affected import affected
from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.errors import Unavailable
from hs_stream.core.stream import Difference, difference
from hs_stream.core.time import EMPTY, MAX_TIME, MIN_TIME, TimeIntervals, shift
from hs_stream.core.tool import OnGrid, Previous, Sources, Window
from hs_stream.core.watermark import Silence
from hs_stream.engine.backlog import Backlog, Lane, Pace
from hs_stream.engine.breath import Breath
from hs_stream.engine.changes import changes_of
from hs_stream.engine.contents import Contents, Overlay, PatientStore
from hs_stream.engine.evaluate import Evaluator
from hs_stream.engine.feed import Feed
from hs_stream.engine.fold import Folder, Invalid
from hs_stream.engine.graph import Graph
from hs_stream.engine.history import Tally
from hs_stream.engine.owed import available_now, drives, find_due, next_wanted, steady, wanted_until
from hs_stream.engine.ports import Clock, Commit, OutboxEntry
from hs_stream.engine.step import Spans, Step, Write
from hs_stream.engine.streams import Stream
from hs_stream.engine.telemetry import Telemetry

__all__ = ["Executor"]

_LEAST_NEW: Final = 4_000
"""Input instances that a step may always spend on what is new."""
_UPPERS_EVERY: Final = 1000
"""Milliseconds between two writes of raw watermarks, which nothing but readers of the store depends on."""
_MOST_IN_GROUP: Final = 512
"""Small intervals that are evaluated together at the most."""
_PER_INTERVAL: Final = 64
"""Instances that a group may read for each of its intervals: about what one more read of the store costs."""
_MOST_WAITING: Final = 256
"""Intervals in which a stream remembers changes behind its coverage; beyond that, the one that contains them."""
_MOST_POINTS: Final = 4096
"""More changed instants than this are handed on as one interval that contains them."""


class Executor:
    """Runs steps over a `Graph`. One step at a time; the only writer of derived streams."""

    def __init__(
        self,
        graph: Graph,
        store: PatientStore,
        silence: Silence,
        clock: Clock,
        telemetry: Telemetry,
        feed: Feed,
        *,
        computing: Callable[[Task], Result],
        commit_seq: int,
        chunk: int,
    ) -> None:
        self.graph = graph
        self.feed = feed
        self.silence = silence
        self.contents = Contents(store)
        self.tally = Tally()
        self.steps = 0
        self.results = 0
        self.seq = commit_seq
        self.marked = 0
        """The last append with marks of late readings that was reported by `arrived`."""
        self._consumed = 0
        self.undurable: int | None = None
        """The arrival of the oldest delivery that is not durable yet."""
        self.committed: Callable[[int, Sequence[OutboxEntry], int], None] | None = None
        """Called after each commit with its seq, what it publishes, and the arrival of the oldest reading behind it."""
        self.grow: Callable[[Stream, Sequence[str]], Awaitable[None]] | None = None
        """Called with new plate values, before the commit with the results that they stand in."""
        self.begin: dict[str, int] = {}
        """Per workflow: its earliest reading; streams without inputs begin there."""
        self.sourceless: list[Stream] = []
        self._store = store
        self._clock = clock
        self._telemetry = telemetry
        self._evaluator = Evaluator(self.contents, telemetry, computing, chunk)
        self._folder = Folder(self.contents, store, self._evaluator, self.fail, self._unseen)
        self._arrived: dict[int, TimeIntervals] = {}
        self._oldest_arrival = 0
        self._touched: dict[int, tuple[Stream, str]] = {}
        self._backlog = Backlog()
        self._pace = Pace(least=_LEAST_NEW)
        self._breath = Breath()
        self._uppers: dict[int, int] = {}
        self._uppers_at = MIN_TIME
        self._due: list[tuple[int, int]] = []
        self._due_at: dict[int, int] = {}
        self._under_way = 0
        self._new = False
        """Whether the last step took what was new."""
        self.lock = asyncio.Lock()
        """Held by a step. May be held together with that of `hs_stream.engine.ingest.Ingest`: this one first."""
        self.wake = asyncio.Event()
        self._finishing = False

    # --- what there is to do ---

    def arrived(self, stream: Stream, changed: TimeIntervals, arrival: int) -> None:
        """A raw stream's durable contents changed on ``changed``, or its watermark rose.

        Of a derived stream: it is no longer covered on ``changed``, and nobody wants it to be.
        """
        known = self._arrived.get(stream.id)
        self._arrived[stream.id] = changed if known is None else known | changed
        if changed:
            # A step under way may see how far the stream reaches now: an aggregate must then look at this input too.
            for child, slot in stream.children:
                if child.pending_inputs is not None:
                    child.pending_inputs[slot] = max(child.pending_inputs.get(slot, MIN_TIME), changed.end)
        if not self._oldest_arrival:
            self._oldest_arrival = arrival
        self.wake.set()

    def _unseen(self, stream: Stream) -> TimeIntervals:
        """Changes of a raw stream that the step under way may read, and that only a later one takes account of."""
        return stream.coming | self._arrived.get(stream.id, EMPTY)

    def look_at(self, streams: Iterable[Stream], cause: str) -> None:
        """Touch derived streams in the next step, whatever changed."""
        for stream in streams:
            self._touched.setdefault(stream.id, (stream, cause))
        self.wake.set()

    def begin_at(self, workflow: str, first: int) -> None:
        """The earliest reading of ``workflow`` is now at ``first``: streams without inputs begin there."""
        known = self.begin.get(workflow)
        self.begin[workflow] = first
        for stream in self.sourceless:
            if stream.workflow == workflow and stream.begin is None:
                if known is not None:
                    stream.moved |= TimeIntervals.of(MIN_TIME, max(known, first) - 1)
                self.look_at([stream], "arrival")

    def has_clocks(self, workflow: str) -> bool:
        """Whether a stream without inputs begins with the readings of ``workflow``."""
        return any(stream.workflow == workflow and stream.begin is None for stream in self.sourceless)

    async def purge(self, stream: Stream, start: int, end: int) -> int:
        """Retract what is stored of a derived stream in ``(start, end]``, newest first, and take it out of coverage.

        What cannot be computed again stays: only its retention takes it away. Returns how many instances went.
        """
        count = 0
        start = max(start, stream.limit, stream.line)
        while end > start:
            if self._finishing:
                raise Unavailable("the engine stops", hint="ask again in a moment: what is removed stays away")
            async with self.lock:
                now = self._clock.now()
                step = Step(self.horizon(now), now)
                batch, complete = await self.contents.read_some(stream, start, end, limit=self._evaluator.chunk)
                low = start if complete else batch.first_time - 1
                step.touch(stream, cause="request")
                step.next()
                await self._purge_piece(stream, low, end, batch, step)
                while (item := step.next()) is not None:
                    await self._process(*item, step)
                await self._commit(step, self._consumed, now)
            count += len(batch)
            end = low
        return count

    async def _purge_piece(self, stream: Stream, start: int, end: int, old: Batch, step: Step) -> None:
        write = step.write(stream)
        spans = ((start, end),)
        write.fresh = False
        if old:
            write.differences.append(Difference(NOTHING, NOTHING, old.times.tolist()))
            write.written.append((spans, NOTHING))
            stream.tail.replace(spans, NOTHING)
        lost = TimeIntervals.of(start, end) & stream.coverage
        before = stream.end()
        stream.coverage -= lost
        stream.stale -= TimeIntervals.of(start, end)
        if stream.end() < before:
            stream.pending_inputs = None
            stream.waiting |= lost
        stream.settled = False
        self._note(stream)
        self._hand_on(stream, step, lost)
        self.look_at([stream], "request")

    @property
    def pending(self) -> int:
        """How many streams wait for a step, or for the commit of the step under way."""
        return len(self._arrived) + len(self._touched) + len(self._backlog) + self._under_way

    @property
    def backlog(self) -> Iterable[Stream]:
        """Streams of which something is owed that did not fit into a step."""
        return self._backlog

    def owed(self) -> Mapping[str, int]:
        """Per workflow, of how many streams something is owed that did not fit into a step."""
        return self._backlog.counts()

    def horizon(self, now: int) -> int:
        """What silence proves at ``now``: nothing later than the oldest delivery that is not durable yet."""
        return self.silence.advance(now if self.undurable is None else min(now, self.undurable))

    @property
    def busy(self) -> bool:
        """Whether a step is under way or waits, or something is due."""
        due = self.next_due()
        return bool(self.pending) or self.lock.locked() or (due is not None and due <= self.silence.horizon)

    def quiet_until(self) -> int:
        """No reading before it waits to be taken account of, and nothing that is owed."""
        waiting = (*self._backlog, *(stream for stream, _ in self._touched.values()))
        owed = (stream.wanted() - stream.coverage for stream in waiting)
        return min((spans.start for spans in (*self._arrived.values(), *owed) if spans), default=MAX_TIME)

    def owes(self, streams: Iterable[Stream], token: int) -> bool:
        """Whether any of ``streams`` has something left that can be computed of what was asked for with ``token``."""
        return any(
            stream.id in self._touched or (stream in self._backlog and stream.owed & stream.requests[token])
            for stream in streams
        )

    def next_due(self) -> int | None:
        """The horizon at which silence makes something computable; ``None`` when there is nothing of the kind."""
        while self._due and self._due_at.get(self._due[0][1]) != self._due[0][0]:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    # --- one step ---

    async def step(self) -> bool:
        """Do one step: what is new, or else a turn of what is owed. Returns whether there was anything to do.

        Safe to call from several tasks.
        """
        async with self.lock:
            self._new = await self._step()
            return self._new or await self._turn()

    async def turn(self) -> bool:
        """Do a turn of what is owed, whatever is new; returns whether there was anything to do."""
        async with self.lock:
            return await self._turn()

    async def _turn(self) -> bool:
        found = self._backlog.turn()
        if found is None:
            return False
        lane, streams = found
        now = self._clock.now()
        step = Step(self.horizon(now), now, lane.pace.budget, behind=True)
        self._breath = Breath()
        for stream in streams:
            step.touch(stream, cause="backfill")
        await self._work(step, self._consumed, now, lane)
        return True

    async def _step(self) -> bool:
        now = self._clock.now()
        horizon = self.horizon(now)
        step = Step(horizon, now, self._pace.budget)
        consumed, arrival = self.marked, self._oldest_arrival
        arrived, self._arrived, self._oldest_arrival = self._arrived, {}, 0
        self._under_way = len(arrived)
        self._breath = Breath()
        for identity, changed in arrived.items():
            stream = self.graph.by_id[identity]
            if stream.kind == "raw":
                self._uppers[identity] = stream.upper
            self._note(stream)
            for child, slot in stream.children:
                step.touch(child, slot, changed)
            await self._breath()
        self._touch_others(step)
        if not len(step) and not arrived:
            return False
        await self._work(step, consumed, arrival or now, self._pace)
        for identity in arrived:
            self.graph.by_id[identity].young = False
        return True

    async def _work(self, step: Step, consumed: int, arrival: int, pace: Pace | Lane) -> None:
        """Do what ``step`` has touched, commit, and let ``pace`` know how long it took."""
        self._under_way += len(step)
        try:
            while (item := step.next()) is not None:
                await self._process(*item, step)
                await self._breath()
            await self._commit(step, consumed, arrival)
        finally:
            self._under_way = 0
        if self.graph.tails.crowded:
            self.graph.tails.clear(stream.tail for stream in self.graph.by_id.values())
        pace.follow(self._clock.now() - step.now, step.working, exhausted=step.exhausted)

    def _touch_others(self, step: Step) -> None:
        touched, self._touched = self._touched, {}
        for stream, cause in touched.values():
            step.touch(stream, cause=cause)
        while (due := self.next_due()) is not None and due <= step.horizon:
            _, identity = heapq.heappop(self._due)
            del self._due_at[identity]
            step.touch(self.graph.by_id[identity])

    async def _process(self, stream: Stream, changed: dict[int, TimeIntervals], step: Step) -> None:
        await self._compute(stream, changed, step)
        write = step.writes.get(stream.id) if stream.grows else None
        if write is not None and self.grow is not None:
            found = [part for item in write.differences for part in (item.inserted, item.revised)]
            if values := [value for part in found for _, names in part for value in names]:
                await self.grow(stream, values)

    async def _compute(self, stream: Stream, changed: dict[int, TimeIntervals], step: Step) -> None:
        usual = steady(stream, changed, step.horizon)
        if usual is not None:
            start, end = usual
            rest = EMPTY
            if end > start:
                if stream.is_fold:
                    rest = await self._folder.process(
                        stream, TimeIntervals.of(start, end), EMPTY, None, step, self.accept
                    )
                elif left := await self._evaluate_piece(stream, ((start, end),), step):
                    rest = TimeIntervals(left)
            self._wait_for_rest(stream, changed)
            self._hand_on(stream, step, EMPTY)
            await self._find_old(stream)
            self._settle(stream, rest, step)
            return
        before = stream.end()
        lost, unsure, invalid = await self._take_back(stream, changed, step)
        may = available_now(stream, step.horizon, self.silence.proven) & stream.wanted()
        if stream.retried:
            self._try_again(stream, stream.retried & stream.failed & may)
            stream.retried = EMPTY
        owed = may - stream.coverage
        owed, rest = self._now_and_later(stream, owed, step, lost)
        if owed:
            began = self._clock.now()
            if stream.is_fold:
                rest |= await self._folder.process(stream, owed, lost, invalid, step, self.accept)
            else:
                rest |= await self._evaluate_all(stream, owed, step)
            step.working += self._clock.now() - began
        elif invalid is not None:
            self._folder.invalidate(stream, invalid)
            step.write(stream).snapshots_dropped = TimeIntervals.of(invalid[0], MAX_TIME)
        # What is lost and will not come back by itself is a change for the consumers: their results rest on it.
        gone = lost | unsure
        self._hand_on(stream, step, gone - stream.coverage - rest if gone else EMPTY)
        if lost and stream.end() < before:
            stream.waiting |= lost
        await self._find_old(stream)
        self._settle(stream, rest, step)

    def _now_and_later(
        self, stream: Stream, owed: TimeIntervals, step: Step, lost: TimeIntervals
    ) -> tuple[TimeIntervals, TimeIntervals]:
        """What of ``owed`` this step is about, and the rest.

        What is new comes before what was left, and what is asked for before all else that was left. A fold goes on from
        what it has: of one that is behind nothing can be done before that, but for what it has to take back.
        """
        if stream.is_fold:
            later = not lost and (step.exhausted if step.behind else stream in self._backlog)
            return (EMPTY, owed) if later else (owed, EMPTY)
        first = owed
        if step.behind:
            asked = EMPTY
            for request in stream.requests.values():
                asked |= request
            first = (owed & asked) or owed
        elif stream in self._backlog:
            first = owed - stream.owed
        return first, owed - first

    @staticmethod
    def _try_again(stream: Stream, failed: TimeIntervals) -> None:
        """What failed is owed again; where that was the newest, every input must be looked at there."""
        end = stream.end()
        stream.coverage -= failed
        if stream.end() < end and stream.pending_inputs is not None:
            stream.pending_inputs = None

    async def _find_old(self, stream: Stream) -> None:
        """What is stored behind the coverage has to be replaced or retracted: silence does not prove it right."""
        end = stream.end()
        if stream.frontier <= end:
            stream.old = None
            return
        first, _ = await self.contents.read_some(stream, end, stream.frontier, limit=1, newest=False)
        stream.old = first.first_time if first else None

    def _wait_for_rest(self, stream: Stream, changed: dict[int, TimeIntervals]) -> None:
        """Remember changes of driving inputs that the steady way could not turn into outputs yet."""
        end = stream.end()
        for slot, spans in changed.items():
            if slot >= 0 and spans and spans.end > end and drives(stream, slot):
                stream.waiting |= spans

    async def _take_back(
        self, stream: Stream, changed: dict[int, TimeIntervals], step: Step
    ) -> tuple[TimeIntervals, TimeIntervals, Invalid | None]:
        """Rule 1: what was covered and is not any more, and for a fold which of its old states are not valid.

        In between: what was affected and not covered, before the end of the coverage. Consumers may still cover it: it
        failed before a restart, counted as known without an instance, and nobody has asked for it since.
        """
        end = stream.end()
        lost, invalid = self._take_joined(stream, step), None
        unsure = EMPTY
        if stream.moved:
            lost |= stream.moved & stream.coverage
            stream.moved = EMPTY
        known_until = end if stream.fold is None else max(end, stream.fold.until)
        for slot, spans in changed.items():
            if slot < 0 or not spans:
                continue
            support = stream.support(slot)
            if drives(stream, slot) and spans.end > end:
                stream.waiting |= spans
                if stream.pending_inputs is not None:
                    stream.pending_inputs[slot] = max(stream.pending_inputs.get(slot, MIN_TIME), spans.end)
            ahead = support.lookahead if isinstance(support, Window) else 0
            if spans.start - ahead >= known_until:
                continue
            later: Sequence[int | None] = ()
            if isinstance(support, Previous):
                later = await self.contents.nth_after(stream.inputs[slot], [pair[1] for pair in spans.pairs], support.n)
            touched = affected(support, spans, later)
            lost |= touched & stream.coverage
            if touched and touched.start < end:
                unsure |= (touched & TimeIntervals.of(MIN_TIME, end)) - stream.coverage
            if stream.is_fold and spans.start < known_until:
                first, last = invalid or (spans.start, spans.end)
                invalid = (min(first, spans.start), max(last, spans.end))
        # What is final stays as it is (an aggregate's new input counts from there on).
        lost -= TimeIntervals.of(MIN_TIME, max(stream.floor, stream.line))
        if lost:
            stream.coverage -= lost
            stream.stale |= lost
            if stream.end() < end and stream.pending_inputs is not None:
                stream.pending_inputs = None
            if step.causes[stream.id] == "arrival":
                step.causes[stream.id] = "late"
            step.write(stream)
        return lost, unsure, invalid

    @staticmethod
    def _take_joined(stream: Stream, step: Step) -> TimeIntervals:
        """What an aggregate covers and a new input does not: it may have readings there that are not known yet."""
        lost = EMPTY
        for slot in stream.joined:
            lost |= stream.coverage - stream.inputs[slot].covered(step.horizon)
        stream.joined.clear()
        return lost

    async def _evaluate_all(self, stream: Stream, owed: TimeIntervals, step: Step) -> TimeIntervals:
        """Rule 2: newest first. Returns what is left for later steps.

        Many small intervals near each other (random order, a flushed backlog) are evaluated in groups, over all that
        lies between them, because one reading and one call cost more than a few instances. Groups grow while what lies
        between costs little, and shrink when it does not fit.
        """
        left = list(owed.pairs)
        size = stream.grouped
        some = not step.behind
        while left and (some or not step.exhausted):
            some = False
            group = self._group(stream, left, size)
            rest = await self._evaluate_piece(stream, tuple(group), step)
            await self._breath()
            if len(group) > 1 and rest == tuple(group):
                size = 1
                continue
            size = max(len(group) // 2, 1) if rest else min(2 * len(group), _MOST_IN_GROUP)
            stream.grouped = size
            left[len(left) - len(group) :] = rest
        return TimeIntervals(left) if left else EMPTY

    @staticmethod
    def _group(stream: Stream, left: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
        """The newest ``size`` intervals; fewer where a grid has too many instants between them."""
        group = left[-size:]
        if isinstance(stream.drive, OnGrid):
            every = stream.drive.grid.every
            while len(group) > 1 and group[-1][1] - group[0][0] > _PER_INTERVAL * len(group) * every:
                group = group[len(group) // 2 :]
        return group

    async def _evaluate_piece(self, stream: Stream, spans: Spans, step: Step) -> Spans:
        """Evaluate the newest part of ``spans``; returns what is left of them."""
        start, end = spans[0][0], spans[-1][1]
        if not stream.inputs:
            return await self._generate(stream, start, end, step)
        single = len(spans) == 1
        limit = step.most(self._evaluator.chunk) if single else min(_PER_INTERVAL * len(spans), self._evaluator.chunk)
        sources, low = await self._evaluator.gather(stream, start, end, limit)
        step.spent += sum(map(len, sources)) + 1
        low = await self._evaluate(stream, spans, low, end, sources, step)
        if low <= start:
            return ()
        return ((start, low),) if single else (TimeIntervals(spans) & TimeIntervals.of(start, low)).pairs

    async def _evaluate(self, stream: Stream, spans: Spans, low: int, end: int, sources: Sources, step: Step) -> int:
        """The part of ``spans`` in ``(low, end]``, or the newest part of that; returns where it begins."""
        found = self._evaluator.run(stream, low, end, sources)
        step.spent += found.spent if stream.inputs else found.spent + len(found.contents) + 1
        done: Spans = ((found.start, end),)
        if len(spans) > 1:
            done = (TimeIntervals(spans) & TimeIntervals.of(found.start, end)).pairs
        if failed := found.failed & TimeIntervals(done) if found.failed else EMPTY:
            self.fail(stream, failed, len(failed), found.error, found.kind)
        if done:
            await self.accept(
                stream, done, found.contents if len(spans) == 1 else found.contents.within(done), step, failed
            )
        return found.start

    def fail(self, stream: Stream, failed: TimeIntervals, count: int, error: str, kind: str) -> None:
        """Tell that the tool raised at ``count`` instants in ``failed``; `accept` is told too."""
        assert stream.tool is not None
        stream.error = error
        where = stream.tool.name, stream.node, stream.name, failed.start, failed.end
        self._telemetry.failed(*where, count, kind)

    async def _generate(self, stream: Stream, start: int, end: int, step: Step) -> Spans:
        """The newest part of ``(start, end]`` of a stream without inputs, from its workflow's begin on."""
        begin = self.begin_of(stream)
        if begin is None:
            return ()  # `begin_at` will look at it
        if end <= begin:
            await self.accept(stream, ((start, end),), NOTHING, step)
            return ()
        low = max(start, begin, end - self._span(stream, step))
        low = await self._evaluate(stream, ((low, end),), low, end, _NO_SOURCES, step)
        if low <= begin and start < begin:
            await self.accept(stream, ((start, begin),), NOTHING, step)
            start = begin
        return ((start, low),) if low > start else ()

    def _span(self, stream: Stream, step: Step) -> int:
        drive = stream.drive
        assert isinstance(drive, OnGrid)
        return drive.grid.every * step.most(self._evaluator.chunk)

    def begin_of(self, stream: Stream) -> int | None:
        """A stream without inputs has nothing at or before this instant; ``None`` while there is no reading."""
        earliest = self.begin.get(stream.workflow)
        return stream.begin if stream.begin is not None else None if earliest is None else earliest - 1

    async def accept(self, stream: Stream, spans: Spans, new: Batch, step: Step, failed: TimeIntervals = EMPTY) -> None:
        """The contents inside of ``spans`` (not empty) are ``new``: compare, remember, cover.

        The tool raised on ``failed`` of them.
        """
        write = step.write(stream)
        start, end = spans[0][0], spans[-1][1]
        fresh = start >= write.floor
        old = NOTHING if fresh else (await self.contents.before(stream, start, end)).within(spans)
        found = difference(old, new)
        if found:
            write.differences.append(found)
            write.fresh = write.fresh and fresh
        write.written.append((spans, new))
        tail = stream.tail
        if start < stream.frontier:
            tail.replace(spans, new)
        elif new:
            tail.extend(stream.frontier, new)
        write.low = min(write.low, start)
        if write.low < tail.low and stream.id not in self.contents.overlays:
            self.contents.overlays[stream.id] = Overlay(write.written)
        if new:
            stream.frontier = max(stream.frontier, new.last_time)
        inside = TimeIntervals.of(start, end) if len(spans) == 1 else TimeIntervals(spans)
        stream.coverage |= inside
        if failed or (stream.failed and start < stream.failed.end):
            stream.found(inside, failed)
        cause = step.causes[stream.id]
        self.tally.add(stream, cause, start, end, len(new), len(found))
        if cause != "arrival" and new:
            self._telemetry.recomputed(cause, len(new))

    def _hand_on(self, stream: Stream, step: Step, failed: TimeIntervals) -> None:
        """Tell the consumers what changed (rule 3), and that more is covered."""
        write = step.writes.get(stream.id)
        if (write is None and not failed) or not stream.children:
            return
        changed = failed
        if write is not None:
            for found in write.differences:
                changed |= _changed(found.times(), fresh=write.fresh and len(write.differences) == 1)
        cause = step.causes[stream.id]
        for child, slot in stream.children:
            step.touch(child, slot, changed, cause)

    @staticmethod
    def _note(stream: Stream) -> None:
        """Tell aggregates that how far ``stream`` reaches has changed."""
        for child, slot in stream.children:
            if child.slowest is not None:
                child.slowest.note(slot, child.inputs)

    def _settle(self, stream: Stream, rest: TimeIntervals, step: Step) -> None:
        """What is left, and when silence alone makes more computable."""
        stream.owed = rest
        stream.settled = not rest
        if rest:
            self._backlog.add(stream, served=step.behind and stream.id in step.writes)
            self.wake.set()
        else:
            self._backlog.discard(stream)
        end = stream.end()
        if stream.stale:
            stream.stale -= stream.coverage - TimeIntervals.of(MIN_TIME, stream.floor)
        if stream.waiting:
            stream.waiting = EMPTY if stream.waiting.end <= end else stream.waiting - TimeIntervals.of(MIN_TIME, end)
            if len(stream.waiting) > _MOST_WAITING:
                # Of what nobody wants, only its beginning matters.
                stream.waiting = TimeIntervals([stream.waiting.span()])
        if stream.pending_inputs:
            stream.pending_inputs = {slot: last for slot, last in stream.pending_inputs.items() if last > end}
        elif stream.aggregate and stream.pending_inputs is None and stream.coverage:
            stream.pending_inputs = {
                slot: source.frontier for slot, source in enumerate(stream.inputs) if source.frontier > end
            }
        stream.due = find_due(stream, self.begin_of(stream) if not stream.inputs else None, self.silence.horizon)
        stream.wanted_until = wanted_until(stream)
        self._note(stream)
        # A stream without inputs waits for the time itself, not for silence.
        ahead = stream.ahead if stream.inputs else -self.silence.idle
        wanted = next_wanted(stream)
        at = None if wanted is None else shift(wanted, ahead)
        if at is None or at <= step.horizon:
            # What silence has proven already and is still missing waits for an input (one that fails, or that nobody
            # wants): its next change touches this stream.
            self._due_at.pop(stream.id, None)
            return
        if self._due_at.get(stream.id) != at:
            self._due_at[stream.id] = at
            heapq.heappush(self._due, (at, stream.id))
            if self._due[0][1] == stream.id:
                self.wake.set()

    async def run(self) -> None:
        """Step whenever there is something to do, until `finish`."""
        while not self._finishing:
            self.wake.clear()
            if await self._step_and_turn() or self.pending:
                await asyncio.sleep(0)
                continue
            due = self.next_due()
            wait = None if due is None else self.silence.wait(due, self._clock.now())
            # Not wait_for: in Python 3.11 it may swallow a cancellation.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if wait is None else max(wait, 1) / 1000):
                    await self.wake.wait()

    async def _step_and_turn(self) -> bool:
        """What is new, and a turn of what is owed behind it: neither waits for the end of the other."""
        worked = await self.step()
        if self._new and self._backlog:
            await asyncio.sleep(0)
            if not self._finishing:
                await self.turn()
        return worked

    def finish(self) -> None:
        """Let `run` return behind the step under way."""
        self._finishing = True
        self.wake.set()

    def welcome(self, streams: Iterable[Stream], cause: str) -> None:
        """Take new derived streams in. Nothing is known of earlier changes of their inputs, so assume the most."""
        for stream in streams:
            end = stream.end()
            for slot, source in enumerate(stream.inputs):
                if source.frontier > end and drives(stream, slot):
                    stream.waiting |= TimeIntervals.of(end, source.frontier)
                    stream.pending_inputs = None
            self.look_at([stream], cause)

    # --- commit ---

    async def _commit(self, step: Step, consumed: int, arrival: int) -> None:
        changes = []
        for write in step.writes.values():
            merged = write.merged() if write.differences else _NOTHING_CHANGED
            if merged and not write.fresh:
                await self._revise(
                    write, merged.revised.times.tolist(), merged.retracted, merged.inserted.times.tolist()
                )
            changes.append(write.change(merged))
            await self._breath()
            if merged:
                for kind, count in (
                    ("insert", len(merged.inserted)),
                    ("revise", len(merged.revised)),
                    ("retract", len(merged.retracted)),
                ):
                    if count:
                        self._telemetry.written(kind, count)
                self.results += len(merged)
                write.stream.changes += len(merged)
                write.stream.changes_behind += not write.fresh
        if self._uppers and step.now >= self._uppers_at + _UPPERS_EVERY:
            await self.write_uppers(step.now)
        if not changes and consumed <= self._consumed:
            return
        history = self.tally.take(step.now)
        consumed = max(consumed, self._consumed)
        commit = Commit(self.seq + 1, changes, consumed, self.silence.proven, history)
        await self._write(commit)
        self.steps += 1
        self._consumed = consumed
        self.contents.overlays.clear()
        entries = [changes_of(commit.seq, change) for change in changes if change.publish]
        if self.committed is not None:
            self.committed(commit.seq, entries, arrival)

    async def _write(self, commit: Commit) -> None:
        async with self.feed.commit(commit):
            await self._store("commit", self._store.store.commit, commit)
        self.seq += 1

    async def write_history(self) -> None:
        """Write down what was not yet: by itself it waits for a commit that comes `PERIOD` after the last entries."""
        async with self.lock:
            if history := self.tally.take(self._clock.now(), everything=True):
                await self._write(Commit(self.seq + 1, [], self._consumed, self.silence.proven, history))

    async def write_uppers(self, now: int) -> None:
        """Let readers of the store see how far raw streams are."""
        uppers, self._uppers, self._uppers_at = self._uppers, {}, now
        await self._store("advance", self._store.store.advance, uppers)

    async def _revise(self, write: Write, revised: list[int], retracted: list[int], inserted: list[int]) -> None:
        """Number what changes: one more than before for what was there, and for what comes back after a retraction."""
        times = sorted({*revised, *retracted, *inserted})
        stored = await self._store("revisions", self._store.store.revisions, write.stream.id, times)
        for time in (*revised, *retracted):
            write.revisions[time] = stored.get(time, 0) + 1
        for time in inserted:
            if time in stored:
                write.revisions[time] = stored[time] + 1


def _changed(times: list[int], *, fresh: bool) -> TimeIntervals:
    if fresh or len(times) > _MOST_POINTS:
        return TimeIntervals.of(times[0] - 1, times[-1])
    if len(times) > 8:
        instants = np.array(times, np.int64)
        breaks = np.flatnonzero(np.diff(instants) > 1)
        starts = instants[np.concatenate(([0], breaks + 1))] - 1
        ends = instants[np.concatenate((breaks, [len(instants) - 1]))]
        return TimeIntervals(zip(starts.tolist(), ends.tolist(), strict=True))
    return TimeIntervals.points(times)


_NO_SOURCES: Final = Sources()
_NOTHING_CHANGED: Final = difference(NOTHING, NOTHING)
