"""The incremental executor: from changed intervals to committed results.

1. **Changed -> affected.** A change of an input takes the affected part of the output out of its coverage, before
   anything is recomputed. What was stored there stays readable, and is what the new results are compared with.
2. **Owed** is ``available & demanded - covered``. It is evaluated, newest first, in bounded pieces; what does not fit
   into the step is done in later ones. A step takes either what is new, or one turn of what is owed, of one workflow
   (`hs_stream.plan.backlog`). So what is new waits for one turn at the most. An instant that failed is covered: it is
   known that nothing came of it, so that nobody waits for it.
3. **Cut off.** Only the difference between old and new contents is a change for the consumers, and is published.
4. A step writes to a draft (`hs_stream.plan.draft`), which ends as one atomic commit. Coverage in the commit is the
   only record of what is owed: after a crash, what is not covered is simply owed again. Marks of late readings are
   forgotten by the commit whose coverages reflect them.
5. Between the instants at which something is *due*, a silent stream needs no work: `Stream.covered` knows.
6. Streams of one rank read no results of each other. Where the backend has several slots, as many of them are evaluated
   at once (`hs_stream.engine.backend`). A step that the backend breaks off is done again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

from hs_stream.backoff import backoff
from hs_stream.core.errors import BackendUnavailable, Unavailable
from hs_stream.core.time import TimeIntervals
from hs_stream.core.watermark import Silence
from hs_stream.engine.backend import at_once
from hs_stream.engine.begins import Begins
from hs_stream.engine.breath import Breath
from hs_stream.engine.commit import Committer
from hs_stream.engine.contents import Contents, PatientStore
from hs_stream.engine.evaluate import Evaluator
from hs_stream.engine.feed import Feed
from hs_stream.engine.fold import Folder
from hs_stream.engine.graph import Graph
from hs_stream.engine.history import Tally
from hs_stream.engine.outlook import Outlook
from hs_stream.engine.pieces import Pieces
from hs_stream.engine.ports import Backend, Clock
from hs_stream.engine.process import Done, Processor
from hs_stream.engine.schedule import Schedule
from hs_stream.engine.status import EngineSettings
from hs_stream.engine.telemetry import Telemetry
from hs_stream.plan.backlog import Lane, Pace
from hs_stream.plan.draft import Draft
from hs_stream.plan.owed import drives
from hs_stream.plan.streams import Stream

__all__ = ["Executor"]

_FIRST_DELAY: Final = 0.05
_LAST_DELAY: Final = 1.0
_LEAST_NEW: Final = 4_000
"""Input instances that a step may always spend on what is new."""

Grow = Callable[[Stream, Sequence[str]], Awaitable[None]]
"""Called with new plate values, before the commit with the results that they stand in."""


class Executor:
    """Runs steps over a `Graph`. One step at a time; the only writer of derived streams.

    ``schedule`` is what waits for it, ``begins`` where streams without inputs begin, ``committer`` what it has done.
    """

    def __init__(
        self,
        graph: Graph,
        store: PatientStore,
        silence: Silence,
        clock: Clock,
        telemetry: Telemetry,
        feed: Feed,
        *,
        backend: Backend,
        commit_seq: int,
        settings: EngineSettings,
    ) -> None:
        self.silence = silence
        self.tally = Tally()
        self.schedule = Schedule(graph)
        backdate, ticks = settings.backdate, settings.backdate_ticks
        self.begins = Begins(graph, store, self.schedule, telemetry, backdate=backdate, ticks=ticks)
        self.contents = Contents(store)
        self._graph = graph
        self._clock = clock
        self._telemetry = telemetry
        self._chunk = settings.chunk
        self._slots = backend.slots
        self._breath = Breath()
        self._pace = Pace(least=_LEAST_NEW)
        evaluator = Evaluator(self.contents, telemetry, backend, settings.chunk)
        pieces = Pieces(self.contents, evaluator, self.begins, self.tally, telemetry, self._breath)
        folder = Folder(self.contents, store, evaluator, pieces, self.schedule.unseen)
        self._processor = Processor(self.contents, pieces, folder, self.schedule, self.begins, silence, clock)
        self.committer = Committer(store, feed, silence, self.tally, telemetry, self._breath, seq=commit_seq)
        self._grow: Grow | None = None
        self._make_sure: Callable[[], Awaitable[None]] | None = None
        self._marked = 0
        """The last append with marks of late readings that `arrived` was told of."""
        self._undurable: int | None = None
        """The arrival of the oldest delivery that is not durable yet."""
        self._draft: Draft | None = None
        self._under_way = 0
        self._seen = silence.horizon
        """The horizon of the last step that took what was new."""
        self._accounted: set[int] = set()
        """The raw streams that a commit of this process takes account of."""
        self._new = False
        """Whether the last step took what was new."""
        self._lock = asyncio.Lock()
        self._finishing = False
        self._broken = 0
        """So many steps were broken off by the backend since one was done."""

    def on_growth(self, grow: Grow, make_sure: Callable[[], Awaitable[None]]) -> None:
        """Call ``grow`` with the values that are found for plates, and ``make_sure`` before each step."""
        self._grow, self._make_sure = grow, make_sure

    # --- what there is to do ---

    def mark(self, seq: int) -> None:
        """All changes of appends up to ``seq`` are told to the schedule."""
        self._marked = seq

    def hold(self, arrival: int) -> None:
        """A delivery that came at ``arrival`` is not durable yet: silence proves nothing later than the oldest."""
        if self._undurable is None:
            self._undurable = arrival

    def release(self, oldest: int | None) -> None:
        """The deliveries that came before ``oldest`` are durable; ``None``: all are."""
        self._undurable = oldest

    def horizon(self, now: int) -> int:
        """What silence proves at ``now``."""
        return self.silence.advance(now if self._undurable is None else min(now, self._undurable))

    def is_young(self, stream: Stream) -> bool:
        """Whether no commit of this process takes account of this raw stream yet."""
        return stream.id not in self._accounted

    def welcome(self, streams: Iterable[Stream], cause: str) -> None:
        """Take new derived streams in. Nothing is known of earlier changes of their inputs, so assume the most."""
        for stream in streams:
            end = stream.end()
            for slot, source in enumerate(stream.inputs):
                if source.latest.frontier > end and drives(stream, slot):
                    stream.agenda.wait_for(TimeIntervals.of(end, source.latest.frontier))
                    stream.agenda.forget_inputs()
            self.schedule.look_at([stream], cause)

    @property
    def pending(self) -> int:
        """How many streams wait for a step, or for the commit of the step under way."""
        return len(self.schedule) + self._under_way

    @property
    def busy(self) -> bool:
        """Whether a step is under way or waits, or something is due."""
        due = self.schedule.next_due()
        return bool(self.pending) or self._lock.locked() or (due is not None and due <= self.silence.horizon)

    def look(self) -> Outlook:
        """What is committed, for those outside."""
        return Outlook(self.schedule, self.begins, self._draft, self._seen)

    # --- steps ---

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """No step is under way meanwhile, and what was committed and what has grown before is durable.

        May be held together with the lock of `hs_stream.engine.ingest.Ingest`: this one first.
        """
        async with self._lock:
            if self.committer.unsure is not None:
                await self.committer.make_sure()
                self._over()
            if self._make_sure is not None:
                await self._make_sure()
            await self.begins.make_sure()
            yield

    def _over(self) -> None:
        self._draft, self._under_way = None, 0

    async def step(self) -> bool:
        """Do one step: what is new, or else a turn of what is owed. Returns whether there was anything to do.

        Safe to call from several tasks.
        """
        async with self.alone():
            self._new = await self._step()
            return self._new or await self._turn()

    async def turn(self) -> bool:
        """Do a turn of what is owed, whatever is new; returns whether there was anything to do."""
        async with self.alone():
            return await self._turn()

    async def _turn(self) -> bool:
        found = self.schedule.backlog.turn()
        if found is None:
            return False
        lane, streams = found
        now = self._clock.now()
        draft = Draft(self.horizon(now), now, lane.pace.budget, is_turn=True)
        for stream in streams:
            draft.touch(stream, cause="backfill")
        await self._work(draft, 0, now, lane)
        return True

    async def _step(self) -> bool:
        now = self._clock.now()
        horizon, marked = self.horizon(now), self._marked
        arrived, oldest = self.schedule.take()
        worked = bool(arrived) or self.schedule.waits(horizon)
        if worked:
            draft = Draft(horizon, now, self._pace.budget, changed=arrived)
            await self._work(draft, marked, oldest or now, self._pace)
            self._accounted.update(arrived)
        self._seen = horizon
        return worked

    async def _work(self, draft: Draft, consumed: int, arrival: int, pace: Pace | Lane) -> None:
        """Do what ``draft`` has touched, commit, and let ``pace`` know how long it took."""
        async with self._drafting(draft, arrival):
            for identity, changed in draft.changed.items():
                stream = self._graph.by_id[identity]
                if stream.kind == "raw":
                    self.committer.note_upper(stream)
                self._processor.note(stream)
                for child, slot in stream.children:
                    draft.touch(child, slot, changed)
                await self._breath()
            if not draft.is_turn:
                self.schedule.touch_others(draft)
            self._under_way = len(draft.changed) + len(draft)
            await self._process(draft)
            await self.committer.commit(draft, consumed, arrival)
        pace.follow(self._clock.now() - draft.now, draft.working, exhausted=draft.exhausted)

    @asynccontextmanager
    async def _drafting(self, draft: Draft, arrival: int) -> AsyncIterator[None]:
        """A step that is broken off before its commit has done nothing: what it took is there for the next one."""
        self._draft, self._under_way = draft, len(draft.changed) + len(draft)
        self._breath.begin()
        try:
            yield
        except BaseException:
            if self.committer.unsure is None:
                self.schedule.put_back(draft, arrival)
                for stream in draft.streams:
                    self._processor.note(stream)
                self._over()
            raise
        self._over()
        tails = self._graph.tails
        if tails.crowded:
            tails.clear(stream.tail for stream in self._graph.by_id.values())

    async def _process(self, draft: Draft) -> None:
        while streams := draft.next():
            if self._slots > 1 and len(streams) > 1:
                each = [partial(self._evaluate, stream, changed, draft) for stream, changed in streams]
                for (stream, _), done in zip(streams, await at_once(each, self._slots), strict=True):
                    self._processor.finish(stream, done, draft)
                    await self._breath()
            else:
                for stream, changed in streams:
                    ready = self._processor.process(stream, changed, draft)
                    self._processor.finish(stream, ready if isinstance(ready, tuple) else await ready, draft)
                    if self._breath.is_due():
                        await self._breath()
            for stream, _ in streams:
                if stream.grows and self._grow is not None:
                    found = [part for one in draft.of(stream).differences for part in (one.inserted, one.revised)]
                    if values := [value for part in found for _, names in part for value in names]:
                        await self._grow(stream, values)

    async def _evaluate(self, stream: Stream, changed: dict[int, TimeIntervals], draft: Draft) -> Done:
        ready = self._processor.process(stream, changed, draft)
        done = ready if isinstance(ready, tuple) else await ready
        await self._breath()
        return done

    async def purge(self, stream: Stream, start: int, end: int) -> int:
        """Retract what is stored of a derived stream in ``(start, end]``, newest first, and take it out of coverage.

        What cannot be computed again stays: only its retention takes it away. Returns how many instances went.
        """
        count = 0
        start = max(start, stream.limit, stream.final)
        while end > start:
            if self._finishing:
                raise Unavailable("the engine stops", hint="ask again in a moment: what is removed stays away")
            async with self.alone():
                now = self._clock.now()
                batch, complete = await self.contents.read_some(stream, start, end, limit=self._chunk)
                low = start if complete else batch.first_time - 1
                gone = TimeIntervals.of(low, end)
                draft = Draft(self.horizon(now), now, changed={stream.id: gone})
                draft.touch(stream, cause="request")
                draft.next()
                async with self._drafting(draft, now):
                    self._processor.purge(stream, low, end, batch, draft)
                    self.schedule.look_at([stream], "request")
                    await self._process(draft)
                    await self.committer.commit(draft, 0, now)
            count += len(batch)
            end = low
        return count

    async def run(self) -> None:
        """Step whenever there is something to do, until `finish`."""
        while not self._finishing:
            self.schedule.wake.clear()
            if await self._try() or self.pending:
                await asyncio.sleep(0)
                continue
            due = self.schedule.next_due()
            wait = None if due is None else self.silence.wait(due, self._clock.now())
            # Not wait_for: in Python 3.11 it may swallow a cancellation.
            with suppress(TimeoutError):
                async with asyncio.timeout(None if wait is None else max(wait, 1) / 1000):
                    await self.schedule.wake.wait()

    async def _try(self) -> bool:
        """Do a step and a turn. What the backend breaks off is done again, a little later."""
        try:
            worked = await self._step_and_turn()
        except BackendUnavailable as error:
            self._telemetry.backend_failed(str(error), first=not self._broken)
            await self._clock.sleep(backoff(self._broken, _FIRST_DELAY, _LAST_DELAY))
            self._broken += 1
            return True
        self._broken = 0
        return worked

    async def _step_and_turn(self) -> bool:
        """What is new, and a turn of what is owed after it: neither waits for the end of the other."""
        worked = await self.step()
        if self._new and len(self.schedule.backlog):
            await asyncio.sleep(0)
            if not self._finishing:
                await self.turn()
        return worked

    def finish(self) -> None:
        """Let `run` return after the step under way."""
        self._finishing = True
        self.schedule.wake.set()

    async def conclude(self) -> None:
        """The last step, after `run`. It puts what silence proves into the stored coverage too."""
        horizon = self.horizon(self._clock.now())
        streams = self._graph.streams.values()
        silent = [one for one in streams if one.kind == "derived" and one.reach(horizon) > one.end()]
        self.schedule.look_at(silent, "arrival")
        with suppress(BackendUnavailable):  # it is owed, to the next start
            await self.step()
        await self.write_history()

    async def write_history(self) -> None:
        """Write down what was computed and is not in the store's history yet."""
        async with self.alone():
            await self.committer.write_history(self._clock.now())
