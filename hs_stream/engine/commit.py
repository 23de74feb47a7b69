"""From a draft to one durable commit, and from there to the states that everybody sees.

A commit that is broken off (its task is cancelled, or nobody waits for the store any more) may be durable or not, and
the next one would have its number. So it is kept (`Committer.unsure`), and written again before anything else is done:
the store takes a commit of the same number by the same writer once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from hs_stream.core.stream import Difference
from hs_stream.core.time import MIN_TIME
from hs_stream.core.watermark import Silence
from hs_stream.engine.breath import Breath
from hs_stream.engine.changes import changes_of
from hs_stream.engine.contents import PatientStore
from hs_stream.engine.feed import Feed
from hs_stream.engine.history import Tally
from hs_stream.engine.ports import Commit, OutboxEntry, StreamChange
from hs_stream.engine.telemetry import Telemetry
from hs_stream.plan.draft import Draft
from hs_stream.plan.streams import Stream
from hs_stream.plan.work import Work

__all__ = ["Committer"]

_UPPERS_EVERY: Final = 1000
"""Milliseconds between two writes of raw watermarks, which nothing but readers of the store depends on."""

Told = Callable[[int, Sequence[OutboxEntry], int], None]
"""``told(seq, entries, arrival)``: a commit, what it publishes, and the arrival of the oldest reading in it."""


class _Unsure(NamedTuple):
    """A commit of which it is not known whether it is durable."""

    commit: Commit
    draft: Draft | None
    arrival: int


class Committer:
    """The only one who commits. ``seq`` is the last commit."""

    def __init__(
        self,
        store: PatientStore,
        feed: Feed,
        silence: Silence,
        tally: Tally,
        telemetry: Telemetry,
        breath: Breath,
        *,
        seq: int,
    ) -> None:
        self.seq = seq
        self.steps = 0
        self.results = 0
        self.unsure: _Unsure | None = None
        self._store = store
        self._feed = feed
        self._silence = silence
        self._tally = tally
        self._telemetry = telemetry
        self._breath = breath
        self._told: Told | None = None
        self._consumed = 0
        """The last append with marks of late readings that a commit has taken account of."""
        self._uppers: dict[int, int] = {}
        self._uppers_at = MIN_TIME

    def tell(self, told: Told) -> None:
        """Call ``told`` after each commit."""
        self._told = told

    async def commit(self, draft: Draft, consumed: int, arrival: int) -> None:
        """Make ``draft`` durable and then what everybody sees. ``consumed``: marks up to there are accounted for."""
        changes = []
        for stream in draft.streams:
            work = draft.of(stream)
            if work.writes:
                merged = work.merged()
                if merged and not work.fresh:
                    await self._number(work, merged)
                changes.append(work.change(merged, publish=bool(stream.outlets)))
                if self._breath.is_due():
                    await self._breath()
        if self._uppers and draft.now >= self._uppers_at + _UPPERS_EVERY:
            await self.write_uppers(draft.now)
        consumed = max(consumed, self._consumed)
        if not changes and consumed <= self._consumed:
            draft.keep()
            return
        history = self._tally.take(draft.now)
        await self._write(Commit(self.seq + 1, changes, consumed, self._silence.proven, history), draft, arrival)

    async def _number(self, work: Work, merged: Difference) -> None:
        inserted = merged.inserted.times.tolist()
        work.number(await self._numbers(work.id, merged.revised.times.tolist(), merged.retracted, inserted))

    async def _numbers(
        self, stream: int, revised: Sequence[int], retracted: Sequence[int], inserted: Sequence[int]
    ) -> dict[int, int]:
        """Number what changes: one more than before for what was there, and for what comes back after a retraction."""
        times = sorted({*revised, *retracted, *inserted})
        stored = await self._store("revisions", self._store.store.revisions, stream, times)
        return {time: stored.get(time, 0) + 1 for time in (*revised, *retracted)} | {
            time: stored[time] + 1 for time in inserted if time in stored
        }

    async def write_history(self, now: int) -> None:
        """Write down what was not yet: by itself it waits for a commit that comes `PERIOD` after the last entries."""
        if history := self._tally.take(now, everything=True):
            await self._write(Commit(self.seq + 1, [], self._consumed, self._silence.proven, history), None, now)

    async def _write(self, commit: Commit, draft: Draft | None, arrival: int) -> None:
        self.unsure = _Unsure(commit, draft, arrival)
        await self.make_sure()

    async def make_sure(self) -> None:
        """Write the commit again of which it is not known whether it is durable, if there is one."""
        if self.unsure is None:
            return
        commit, draft, arrival = self.unsure
        async with self._feed.commit(commit):
            await self._store("commit", self._store.store.commit, commit)
        self.unsure = None
        self.seq = commit.seq
        self._consumed = commit.consumed
        if draft is None:
            return
        self.steps += 1
        self._count(draft, commit.streams)
        draft.keep()
        if self._told is not None:
            entries = [changes_of(commit.seq, change) for change in commit.streams if change.publish]
            self._told(commit.seq, entries, arrival)

    def _count(self, draft: Draft, changes: Sequence[StreamChange]) -> None:
        streams = {stream.id: stream for stream in draft.streams}
        inserted = revised = retracted = 0
        for change in changes:
            came, other, gone = len(change.inserted.times), len(change.revised.times), len(change.retracted)
            if count := came + other + gone:
                inserted += came
                revised += other
                retracted += gone
                streams[change.stream].count(count, before_newest=not change.fresh)
        for kind, count in (("insert", inserted), ("revise", revised), ("retract", retracted)):
            if count:
                self._telemetry.written(kind, count)
                self.results += count

    def note_upper(self, stream: Stream) -> None:
        """A raw stream's watermark rose."""
        self._uppers[stream.id] = stream.state.upper

    async def write_uppers(self, now: int) -> None:
        """Let readers of the store see how far raw streams are."""
        uppers, self._uppers, self._uppers_at = self._uppers, {}, now
        await self._store("advance", self._store.store.advance, uppers)
