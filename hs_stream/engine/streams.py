"""One stream of a running workflow, in memory.

1. A `Stream` is the engine's whole knowledge of one stream: what is computed, its tail, its fold state, what is owed.
2. ``explicit`` coverage is what was evaluated (and is stored). While nothing is owed, silence proves more of what is
   wanted: up to ``min(due - 1, horizon - ahead)`` there is certainly nothing (`Stream.covered`). So an idle stream
   costs nothing. Of what nobody wants it proves nothing, because nobody computes what there may be.
3. ``due`` is the earliest instant behind the coverage at which there may be an output; ``None`` when there is none.
4. A stream is *regular* when all of it is covered up to one end and nothing is left to do: the usual case. Of the many
   inputs of an aggregate only the slowest counts; `Slowest` finds it without looking at the others.
5. What is forgotten (`hs_stream.engine.retention`) counts as covered here, since nobody reads it any more. So does what
   failed: it is known that nothing came of it, and its consumers go on. Those who ask from outside are told otherwise
   (`Stream.known`), and so is the store, so that the next start tries again what failed (`Stream.right`).
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.stream import StreamId
from hs_stream.core.time import EMPTY, MAX_TIME, MIN_TIME, TimeIntervals, shift
from hs_stream.core.tool import (
    AggregateTool,
    FoldTool,
    FromInput,
    FromUnion,
    OnGrid,
    Previous,
    Support,
    Tool,
    Window,
)
from hs_stream.core.value import Value
from hs_stream.engine.ports import StreamRecord, ToolRecord
from hs_stream.engine.tail import Tail

__all__ = ["MOST_FAILED", "Head", "Outlet", "Slowest", "Stream"]

MOST_FAILED: Final = 128
"""Failed intervals that a stream remembers, the newest ones; what failed before them counts as computed, and empty."""


class Head(NamedTuple):
    """``state`` is a fold's state behind all input instances at or before any instant of ``since`` to ``until``.

    Or `hs_stream.compute.task.HALTED`.
    """

    since: int
    until: int
    state: Value
    passed: int = 0
    """Input instances since the last snapshot."""


class Outlet(NamedTuple):
    """A workflow that publishes a stream. ``plates`` are in its order, ``options`` are the sink's."""

    workflow: str
    plates: tuple[str, ...]
    options: Mapping[str, Any]


class Stream:
    """One stream of a running workflow. See the module's rules."""

    __slots__ = (
        "aggregate",
        "ahead",
        "begin",
        "bound",
        "changes",
        "changes_behind",
        "children",
        "closed",
        "coming",
        "coverage",
        "demand",
        "drive",
        "due",
        "error",
        "failed",
        "fingerprint",
        "first",
        "floor",
        "fold",
        "frontier",
        "grouped",
        "grows",
        "id",
        "inputs",
        "into",
        "joined",
        "keys",
        "kind",
        "line",
        "lookaheads",
        "moved",
        "node",
        "old",
        "order",
        "outlets",
        "owed",
        "pending_inputs",
        "published_until",
        "rank",
        "requests",
        "retention",
        "retried",
        "settled",
        "since",
        "slowest",
        "stale",
        "stream",
        "supports",
        "tail",
        "tool",
        "upper",
        "waiting",
        "wanted_until",
        "wary",
        "workflow",
        "young",
    )

    def __init__(
        self, identity: int, stream: StreamId, kind: Literal["raw", "derived"], tail: Tail | None = None
    ) -> None:
        self.id = identity
        self.stream = stream
        self.kind = kind
        self.workflow = ""
        """The first of those that have it."""
        self.node = stream.name
        self.rank = 0
        self.tool: Tool | None = None
        self.into: str | None = None
        """The plate that its tool splits into."""
        self.drive: FromInput | FromUnion | OnGrid | None = None
        self.supports: list[Support] = []
        self.lookaheads: list[int] = []
        self.aggregate = False
        self.begin: int | None = None
        """Of a stream without inputs: it has nothing at or before it. ``None``: it begins with its readings."""
        self.grows = False
        """Its results are values of a plate."""
        self.inputs: list[Stream] = []
        self.keys: list[str] = []
        self.order: list[int] = []
        """Slots by key: results never depend on the order in which inputs joined."""
        self.children: list[tuple[Stream, int]] = []
        self.ahead = 0
        self.fingerprint = ""
        self.outlets: list[Outlet] = []
        """Who publishes it: each workflow that does, on topics of its own."""

        self.retention: int | None = None
        """How long (ms) behind its watermark instances are kept; ``None`` is for ever."""
        self.floor = MIN_TIME
        """What lies at or before it is forgotten."""
        self.closed = MIN_TIME
        """Not before the floor: nothing at or before it changes any more for those who read the stream."""
        self.line = MIN_TIME
        """Results at or before it cannot be computed any more: what they read may be forgotten."""
        self.bound = MIN_TIME
        """A change at or before it would reach a result of others that cannot be computed any more."""

        self.coverage = EMPTY
        self.upper = MIN_TIME
        """Of a raw stream: its watermark without what silence adds."""
        self.first: int | None = None
        """Of a raw stream: its earliest reading, `MAX_TIME` without one; ``None`` while nobody has looked."""
        self.since = MIN_TIME
        """Of a raw stream: its readings before it came too late to say where streams without inputs begin."""
        self.frontier = MIN_TIME
        """No instance, not even a retracted one, was ever stored behind it."""
        self.demand = EMPTY
        self.requests: dict[int, TimeIntervals] = {}
        self.owed = EMPTY
        self.grouped = 1
        """So many small intervals were evaluated together last, or may be next."""
        self.stale = EMPTY
        """Was computed and is not right any more; what is stored there stays readable until it is replaced."""
        self.settled = False
        self.failed = EMPTY
        """Where the tool raised, the newest `MOST_FAILED` intervals. What of it is covered failed; the rest is history,
        until it is computed again."""
        self.retried = EMPTY
        """What of it somebody asks to be tried again."""
        self.error = ""
        self.due: int | None = None
        self.moved = EMPTY
        """Of a stream without inputs: what its workflow's begin has moved over, and the next step takes back."""
        self.old: int | None = None
        """The first instance stored behind the coverage, where there is one: silence does not prove it right."""
        self.wanted_until = MIN_TIME
        """The end of what is wanted right behind what is known (rule 2)."""
        self.waiting = EMPTY
        """Changes of driving inputs behind the coverage: they become outputs once the other inputs allow."""
        self.joined: set[int] = set()
        """Of an aggregate: inputs that its coverage has not taken account of yet."""
        self.pending_inputs: dict[int, int] | None = None
        """Of an aggregate: the latest of these per input slot; ``None`` while unknown (each must be looked at)."""
        self.slowest: Slowest | None = None
        """Of an aggregate: how far its inputs reach together."""
        self.changes = 0
        """Instances inserted, revised or retracted since the start."""
        self.changes_behind = 0
        """How often something at or before the newest instance was among them."""
        self.tail = Tail() if tail is None else tail
        self.fold: Head | None = None
        self.wary = False
        """Of a fold: its tool has raised, so that its states are copied before the tool gets them."""
        self.published_until = MIN_TIME
        self.coming = EMPTY
        """Of a raw stream: changes that may be stored already, and that nobody has been told of."""
        self.young = True
        """Of a raw stream: no commit of this process takes account of it yet."""

    def __repr__(self) -> str:
        return f"<{self.stream} #{self.id}>"

    @property
    def name(self) -> str:
        """The text of the stream id."""
        return str(self.stream)

    def support(self, slot: int) -> Support:
        """How this stream reads its input ``slot``."""
        return self.supports[0 if self.aggregate else slot]

    def end(self) -> int:
        """The end of the explicit coverage; `MIN_TIME` when nothing is computed."""
        pairs = self.coverage.pairs
        return pairs[-1][1] if pairs else MIN_TIME

    def failing(self, horizon: int) -> TimeIntervals:
        """Where the tool raised; and all behind a value after which it must not go on, up to where silence reaches."""
        if not self.failed:
            return EMPTY
        failed = self.failed & self.coverage
        if isinstance(self.tool, FoldTool) and not self.tool.goes_on and failed and failed.end == self.end():
            failed |= TimeIntervals.of(self.end(), self.reach(horizon))
        return failed

    def found(self, spans: TimeIntervals, failed: TimeIntervals) -> None:
        """``spans`` were evaluated, and the tool raised on ``failed`` of them."""
        known = (self.failed - spans) | failed
        self.failed = known if len(known) <= MOST_FAILED else TimeIntervals(known.pairs[-MOST_FAILED:])

    def right(self) -> TimeIntervals:
        """What is computed and right, for the store and for those outside: the coverage without what failed."""
        return self.coverage - self.failed if self.failed else self.coverage

    def reach(self, horizon: int) -> int:
        """The end of what is known, silence included."""
        if self.kind == "raw":
            return max(self.upper, horizon)
        end = self.end()
        if not self.settled or end >= MAX_TIME:
            return end
        quiet = min(shift(horizon, -self.ahead), self.wanted_until)
        if self.due is not None and self.due - 1 < quiet:
            quiet = self.due - 1
        return max(quiet, end)

    def covered(self, horizon: int) -> TimeIntervals:
        """What is known, silence included (rule 2)."""
        if self.kind == "raw":
            return TimeIntervals.of(MIN_TIME, max(self.upper, horizon))
        reach = self.reach(horizon)
        pairs = self.coverage.pairs
        if not pairs or reach <= pairs[-1][1]:
            return self.coverage
        return self.coverage | TimeIntervals.of(pairs[-1][1], reach)

    def known(self, horizon: int) -> TimeIntervals:
        """`covered`, for those outside: without what is forgotten and what failed."""
        return self.covered(horizon) - TimeIntervals.of(MIN_TIME, self.floor) - self.failing(horizon)

    def wanted(self) -> TimeIntervals:
        """Demand: online, and what is asked for right now, as far as it can still be computed."""
        wanted = self.demand
        for request in self.requests.values():
            wanted |= request
        return wanted - TimeIntervals.of(MIN_TIME, max(self.floor, self.line))

    @property
    def limit(self) -> int:
        """No change at or before it is taken."""
        return max(self.closed, self.bound)

    def record(self) -> StreamRecord:
        """What the store keeps of it."""
        tool = None
        if self.tool is not None:
            tool = ToolRecord(self.tool.name, self.tool.version, parameters_of(self.tool))
        last = self.upper if self.kind == "raw" else self.frontier
        return StreamRecord(
            self.id,
            self.stream,
            self.kind,
            self.workflow,
            tool,
            self.fingerprint,
            self.right() if self.kind == "derived" else EMPTY,
            None if last <= MIN_TIME else last,
            None if self.floor <= MIN_TIME else self.floor,
            None if self.closed <= MIN_TIME else self.closed,
            None if self.since <= MIN_TIME else self.since,
        )

    def remember(self, record: StreamRecord) -> None:
        """What was forgotten before this process began stays forgotten, and what came too late then still has."""
        self.floor = MIN_TIME if record.floor is None else record.floor
        self.closed = MIN_TIME if record.closed is None else record.closed
        self.since = MIN_TIME if record.since is None else record.since

    def begin_anew(self) -> None:
        """A new or changed derived stream begins where nothing that its inputs forgot is read.

        What needs everything before it (`Previous`, `Prefix`) takes what is left for all there ever was. What it forgot
        itself, under another definition, stays forgotten.
        """
        for slot, source in enumerate(self.inputs):
            support = self.support(slot)
            back = max(support.lookback - 1, 0) if isinstance(support, Window) else 0
            self.floor = max(self.floor, source.closed, shift(source.floor, back))
        self.closed = max(self.closed, self.floor)
        self.coverage = TimeIntervals.of(MIN_TIME, self.floor)

    def connect(self, inputs: Sequence[Stream], keys: Sequence[str]) -> None:
        """Read from ``inputs``."""
        assert self.tool is not None
        self.aggregate = isinstance(self.tool, AggregateTool)
        self.drive = self.tool.drive()
        self.supports = [self.tool.support(slot) for slot in range(1 if self.aggregate else len(inputs))]
        if self.aggregate:
            self.pending_inputs = {}
            self.slowest = Slowest()
        for index, source in enumerate(inputs):
            self.attach(source, keys[index] if keys else "")

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
            source.tail.need(support.lookback + support.lookahead, 1)
        elif isinstance(support, Previous):
            source.tail.need(0, support.n)
        self.lookaheads.append(lookahead)
        if self.slowest is not None:
            self.slowest.note(slot, self.inputs)
        self.ahead = max(self.ahead, source.ahead + lookahead)
        self.draw(slot)
        self.lift()
        return slot

    def draw(self, slot: int) -> bool:
        """Take account of what is closed of input ``slot``; whether the line rose."""
        line = shift(self.inputs[slot].closed, -self.lookaheads[slot])
        if line <= self.line:
            return False
        self.line = line
        return True

    def lift(self) -> None:
        """Tell all streams before this one up to where a change of theirs would do harm here."""
        harm = max(shift(self.line, self.ahead), self.bound)
        stack = list(self.inputs) if harm > MIN_TIME else []
        while stack:
            source = stack.pop()
            if source.bound < harm:
                source.bound = harm
                stack += source.inputs

    @property
    def is_fold(self) -> bool:
        """Whether the engine carries a state for it."""
        return isinstance(self.tool, FoldTool)


def parameters_of(tool: Tool) -> dict[str, Any]:
    try:
        return tool.parameters()
    except ConfigurationError:
        return {"unsaved": repr(tool)}


class Slowest:
    """How far all inputs of an aggregate reach together (rule 4).

    For regular inputs ``min(due - 1, max(end, quiet))`` over all of them is
    ``min(smallest due - 1, max(smallest end, quiet))``, and both smallest ones change only when an input does: they
    stand at the top of two heaps, whose outdated entries are dropped when they surface.
    """

    __slots__ = ("_dues", "_ends", "_irregular")

    def __init__(self) -> None:
        self._ends: list[tuple[int, int]] = []
        self._dues: list[tuple[int, int]] = []
        self._irregular: set[int] = set()

    def note(self, slot: int, inputs: Sequence[Stream]) -> None:
        """Input ``slot`` is new, or its coverage, watermark or due instant changed."""
        source = inputs[slot]
        if not _regular(source):
            self._irregular.add(slot)
            return
        self._irregular.discard(slot)
        heapq.heappush(self._ends, (_end(source), slot))
        if source.due is not None:
            heapq.heappush(self._dues, (source.due, slot))
        if len(self._ends) + len(self._dues) > 8 * len(inputs) + 64:
            self._tidy(inputs)

    def available(self, inputs: Sequence[Stream], horizon: int) -> TimeIntervals:
        """What is known of all inputs, silence included."""
        ends, dues, irregular = self._ends, self._dues, self._irregular
        while ends and (ends[0][1] in irregular or _end(inputs[ends[0][1]]) != ends[0][0]):
            heapq.heappop(ends)
        while dues and (dues[0][1] in irregular or inputs[dues[0][1]].due != dues[0][0]):
            heapq.heappop(dues)
        reach = MAX_TIME
        if ends:
            reach = max(ends[0][0], shift(horizon, -inputs[ends[0][1]].ahead))
        if dues:
            reach = min(reach, max(dues[0][0] - 1, ends[0][0]))
        result = TimeIntervals.of(MIN_TIME, reach)
        for slot in irregular:
            result &= inputs[slot].covered(horizon)
        return result

    def _tidy(self, inputs: Sequence[Stream]) -> None:
        regular = [slot for slot in range(len(inputs)) if slot not in self._irregular]
        self._ends = [(_end(inputs[slot]), slot) for slot in regular]
        self._dues = [(due, slot) for slot in regular if (due := inputs[slot].due) is not None]
        heapq.heapify(self._ends)
        heapq.heapify(self._dues)


def _regular(stream: Stream) -> bool:
    if stream.kind == "raw":
        return True
    pairs = stream.coverage.pairs
    if not stream.settled or stream.wanted_until < MAX_TIME:
        return False
    return len(pairs) == 1 and pairs[0][0] == MIN_TIME


def _end(stream: Stream) -> int:
    return stream.upper if stream.kind == "raw" else stream.end()
