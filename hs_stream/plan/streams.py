"""One stream of a running workflow, in memory.

1. A `Stream` is how it is wired, what is durable of it (`Stream.state`, see `hs_stream.plan.state`), what is still to
   be done (`Stream.agenda`), and its newest instances (`Stream.tail`).
2. ``coverage`` is what was evaluated (and is stored). While nothing is owed, silence proves more of what is wanted: up
   to ``min(due - 1, horizon - ahead)`` there is certainly nothing (`Stream.covered`). So an idle stream costs nothing.
   Of what nobody wants it proves nothing, because nobody computes what there may be.
3. A step reads what it has done so far: `Stream.latest`. So do those methods whose text does not say otherwise.
4. A stream is *regular* when all of it is covered up to one end and nothing is left to do: the usual case. Of the many
   inputs of an aggregate only the slowest counts; `Slowest` finds it without looking at the others.
5. What is forgotten (`hs_stream.engine.retention`) counts as covered here, since nobody reads it any more. So does what
   failed: it is known that nothing came of it, and its consumers go on. Those who ask from outside are told otherwise
   (`hs_stream.engine.outlook`), and so is the store, so that the next start tries again what failed
   (`StreamState.right`).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from typing import Any, Literal

from hs_stream.core.affected import looks_on
from hs_stream.core.errors import ConfigurationError
from hs_stream.core.records import StreamRecord, ToolRecord
from hs_stream.core.stream import StreamId
from hs_stream.core.time import EMPTY, MAX_TIME, MIN_TIME, TimeIntervals, shift
from hs_stream.core.tool import (
    Previous,
    Tool,
    Window,
)
from hs_stream.plan.agenda import Agenda
from hs_stream.plan.slowest import Slowest
from hs_stream.plan.state import StreamState
from hs_stream.plan.tail import Tail
from hs_stream.plan.wiring import Wiring
from hs_stream.plan.work import Work

__all__ = ["Stream"]


class Stream(Wiring):
    """One stream of a running workflow. See the module's rules."""

    __slots__ = (
        "agenda",
        "ahead",
        "changes",
        "changes_before_newest",
        "children",
        "final",
        "final_downstream",
        "inputs",
        "keys",
        "looks_on",
        "order",
        "slowest",
        "state",
        "tail",
        "work",
    )

    def __init__(
        self, identity: int, stream: StreamId, kind: Literal["raw", "derived"], tail: Tail | None = None
    ) -> None:
        super().__init__(identity, stream, kind)
        self.inputs: list[Stream] = []
        self.keys: list[str] = []
        self.order: list[int] = []
        """Slots by key: results never depend on the order in which inputs joined."""
        self.children: list[tuple[Stream, int]] = []
        self.ahead = 0
        self.slowest: Slowest | None = None
        """Of an aggregate: how far its inputs reach together."""
        self.looks_on = False
        """It reads what comes after: `Window.after`, `Prefix.after`."""
        self.final = MIN_TIME
        """Results at or before it cannot be computed any more: what they read may be forgotten."""
        self.final_downstream = MIN_TIME
        """A change at or before it would reach a result downstream that cannot be computed any more."""

        self.state = StreamState()
        self.work: Work | None = None
        """What the step in progress has made of ``state``."""
        self.agenda = Agenda()
        self.tail = Tail() if tail is None else tail
        self.changes = 0
        """Instances inserted, revised or retracted since the start."""
        self.changes_before_newest = 0
        """How often something at or before the newest instance was among them."""

    @property
    def latest(self) -> StreamState | Work:
        """As the step in progress sees it."""
        return self.state if self.work is None else self.work

    @property
    def latest_tail(self) -> Tail:
        """The same, of its newest instances."""
        return self.tail if self.work is None else self.work.tail

    def begin_work(self) -> Work:
        """A step changes it from now on."""
        self.work = Work(self.id, self.state, self.tail, self.agenda)
        return self.work

    def end_work(self) -> None:
        """The step is committed."""
        work = self.work
        assert work is not None
        self.work, self.state = None, work.state()
        if work.fork is not None:
            work.fork.take_place_of(self.tail)
            self.tail = work.fork

    def drop_work(self) -> None:
        """The step is given up: all is as it was. But a tool may have gone on with the very state of a fold."""
        work = self.work
        assert work is not None
        self.work, self.state = None, self.state._replace(fold=None)
        if work.fork is not None:
            work.fork.drop()
        self.agenda.put_back(work.taken)
        self.agenda.doubt()
        self.agenda.forget_inputs()

    def replace(self, state: StreamState) -> None:
        """``state`` is durable. Not while a step changes it."""
        assert self.work is None
        self.state = state

    def count(self, changes: int, *, before_newest: bool) -> None:
        """So many instances were written; ``before_newest``: some of them at or before the newest one."""
        self.changes += changes
        self.changes_before_newest += before_newest

    def end(self) -> int:
        """The end of the coverage; `MIN_TIME` when nothing is computed."""
        return self.latest.end()

    def last(self) -> int:
        """The same; of a raw stream its watermark without what silence adds."""
        return self.state.upper if self.kind == "raw" else self.latest.end()

    def next_due(self) -> int | None:
        """The earliest instant after the coverage at which there may be an output."""
        return self.latest.due

    def reach(self, horizon: int) -> int:
        """The end of what is known, silence included."""
        return self.reach_of(self.latest, horizon)

    def reach_of(self, known: StreamState | Work, horizon: int) -> int:
        """The same, of one of its states."""
        if self.kind == "raw":
            return max(known.upper, horizon)
        end = known.end()
        if not known.settled or end >= MAX_TIME:
            return end
        quiet = min(shift(horizon, -self.ahead), known.wanted_until)
        if known.due is not None and known.due - 1 < quiet:
            quiet = known.due - 1
        return max(quiet, end)

    def covered(self, horizon: int) -> TimeIntervals:
        """What is known, silence included (rule 2)."""
        return self.covered_of(self.latest, horizon)

    def covered_of(self, known: StreamState | Work, horizon: int) -> TimeIntervals:
        """The same, of one of its states."""
        if self.kind == "raw":
            return TimeIntervals.of(MIN_TIME, max(known.upper, horizon))
        reach = self.reach_of(known, horizon)
        pairs = known.coverage.pairs
        if not pairs or reach <= pairs[-1][1]:
            return known.coverage
        return known.coverage | TimeIntervals.of(pairs[-1][1], reach)

    @property
    def is_regular(self) -> bool:
        """Rule 4."""
        if self.kind == "raw":
            return True
        known = self.latest
        pairs = known.coverage.pairs
        if not known.settled or known.wanted_until < MAX_TIME:
            return False
        return len(pairs) == 1 and pairs[0][0] == MIN_TIME

    def wanted(self) -> TimeIntervals:
        """Demand: online, and what is asked for right now, as far as it can still be computed."""
        wanted = self.demand
        for request in self.requests.values():
            wanted |= request
        return wanted - TimeIntervals.of(MIN_TIME, max(self.state.floor, self.final))

    @property
    def limit(self) -> int:
        """No change at or before it is taken."""
        return max(self.state.closed, self.final_downstream)

    def record(self, state: StreamState | None = None) -> StreamRecord:
        """What the store keeps of it: of its state, or of one that is to be durable."""
        state = self.state if state is None else state
        tool = None
        if self.tool is not None:
            tool = ToolRecord(self.tool.name, self.tool.version, parameters_of(self.tool))
        last = state.upper if self.kind == "raw" else state.frontier
        return StreamRecord(
            self.id,
            self.stream,
            self.kind,
            self.workflow,
            tool,
            self.fingerprint,
            state.right() if self.kind == "derived" else EMPTY,
            None if last <= MIN_TIME else last,
            None if state.floor <= MIN_TIME else state.floor,
            None if state.closed <= MIN_TIME else state.closed,
            None if state.since <= MIN_TIME else state.since,
        )

    def recall(self, record: StreamRecord) -> None:
        """What was forgotten before this process began stays forgotten, and what came too late then still has."""
        last = MIN_TIME if record.upper is None else record.upper
        self.state = StreamState(
            frontier=last,
            upper=last if self.kind == "raw" else MIN_TIME,
            floor=MIN_TIME if record.floor is None else record.floor,
            closed=MIN_TIME if record.closed is None else record.closed,
            since=MIN_TIME if record.since is None else record.since,
        )

    def resume(self, record: StreamRecord) -> None:
        """Of a derived stream: go on from what the store has of it, under the same definition."""
        coverage = record.coverage | TimeIntervals.of(MIN_TIME, self.state.floor)
        stale = EMPTY
        if record.upper is not None:
            # Of what is always wanted, everything up to there was computed once.
            stale = (self.demand & TimeIntervals.of(MIN_TIME, record.upper)) - coverage
        self.state = self.state._replace(coverage=coverage, stale=stale)

    def begin_anew(self, stale: TimeIntervals = EMPTY) -> None:
        """A new or changed derived stream begins where nothing that its inputs forgot is read.

        What needs everything before it (`Previous`, `Prefix`) takes what is left for all there ever was. What it forgot
        itself, under another definition, stays forgotten. ``stale``: what it had computed under that one.
        """
        floor = self.state.floor
        for slot, source in enumerate(self.inputs):
            support = self.support(slot)
            back = max(support.lookback - 1, 0) if isinstance(support, Window) else 0
            floor = max(floor, source.state.closed, shift(source.state.floor, back))
        closed, coverage = max(self.state.closed, floor), TimeIntervals.of(MIN_TIME, floor)
        self.state = self.state._replace(floor=floor, closed=closed, coverage=coverage, stale=stale)

    def connect(self, inputs: Sequence[Stream], keys: Sequence[str]) -> None:
        """Read from ``inputs``."""
        self.know_tool(len(inputs))
        if self.aggregate:
            self.agenda.has_inputs()
            self.slowest = Slowest()
        for index, source in enumerate(inputs):
            self.attach(source, keys[index] if keys else "")
        self.rank_after(source.rank for source in inputs)

    def attach(self, source: Stream, key: str) -> int:
        """One more input; returns its slot."""
        slot = len(self.inputs)
        self.inputs.append(source)
        self.keys.append(key)
        insort(self.order, slot, key=self.keys.__getitem__)
        source.children.append((self, slot))
        support = self.support(slot)
        lookahead = 0
        if isinstance(support, Window):
            lookahead = support.lookahead
            source.tail.need(support.lookback + support.lookahead, 1, support.before)
        elif isinstance(support, Previous):
            source.tail.need(0, support.n)
        self.looks_on = self.looks_on or looks_on(support)
        # What is closed up to an instance closes what reads on to it, but (of a window) not its own instant.
        self.lookaheads.append(lookahead + (looks_on(support) and not self.is_fold))
        if self.slowest is not None:
            self.slowest.note(slot, self.inputs)
        self.ahead = max(self.ahead, source.ahead + lookahead)
        self.note_closed(slot)
        self.tell_upstream()
        return slot

    def note_closed(self, slot: int) -> bool:
        """Take account of what is closed of input ``slot``; whether more is final."""
        final = shift(self.inputs[slot].state.closed, -self.lookaheads[slot])
        if final <= self.final:
            return False
        self.final = final
        return True

    def tell_upstream(self) -> None:
        """Tell all that this one is computed from up to where a change of theirs would reach a final result."""
        final = max(shift(self.final, self.ahead), self.final_downstream)
        stack = list(self.inputs) if final > MIN_TIME else []
        while stack:
            source = stack.pop()
            if source.final_downstream < final:
                source.final_downstream = final
                stack += source.inputs


def parameters_of(tool: Tool) -> dict[str, Any]:
    try:
        return tool.parameters()
    except ConfigurationError:
        return {"unsaved": repr(tool)}
