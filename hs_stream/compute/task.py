"""What evaluating a span of a stream needs, and what comes of it: values that can travel to another process.

A `Task` holds everything that its result depends on. Whoever gathers it reads the store; whoever runs it reads nothing
(`hs_stream.compute.run`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.time import EMPTY, TimeIntervals
from hs_stream.core.tool import Sources, Tool
from hs_stream.core.value import Value

__all__ = ["NO_STATES", "Carried", "Result", "Task"]

NO_STATES: Final[Mapping[int, Value]] = {}


class Carried(NamedTuple):
    """A fold's ``state``, which holds from the instance at ``since`` on.

    ``passed``: instances since the last snapshot.
    """

    state: Value
    since: int
    passed: int = 0


class Task(NamedTuple):
    """Evaluate ``(start, end]`` of a stream.

    ``sources`` hold what the supports of ``tool`` let an output of the span read; of a fold the instances of the span
    (and the next one, if it looks on to it).
    ``work`` bounds the instances that may be read in search of what raises, so far as at least one instant is done;
    ``None`` is no bound.

    Of a fold: ``carried`` is the state at ``start``. ``old`` are states of before a change, by time: the task ends at
    the first of them that is the same again. A snapshot of the state is taken every ``every`` instances, 0 for never.
    ``wary``: the tool is known to raise, so it gets copies of the state.

    ``meta`` and ``into`` are what ``tool`` is bound to (`Tool.bound_to`), for who makes it anew elsewhere.
    """

    tool: Tool
    start: int
    end: int
    sources: Sources
    work: int | None = None
    carried: Carried | None = None
    old: Mapping[int, Value] = NO_STATES
    every: int = 0
    wary: bool = True
    meta: tuple[tuple[str, str], ...] = ()
    into: str | None = None


class Result(NamedTuple):
    """``(start, end]`` of a task, or the part of it that was done: the newest part, of a fold the oldest.

    ``contents`` are its instances. The tool raised at ``raised`` instants, which are ``failed``; ``error`` is what it
    said, ``kind`` the type. ``spent``: instances read in search of them.

    Of a fold: ``carried`` is the state at ``end``, ``snapshots`` are ``(time, state)``. ``converged``: that state is
    the one of before the change. ``torn``: the tool raised after ``end``, and may have changed the state at ``end`` in
    place. So that state must be made anew, and the rest done by a wary task.
    """

    start: int
    end: int
    contents: Batch = NOTHING
    failed: TimeIntervals = EMPTY
    raised: int = 0
    error: str = ""
    kind: str = ""
    spent: int = 0
    carried: Carried | None = None
    snapshots: tuple[tuple[int, Value], ...] = ()
    converged: bool = False
    torn: bool = False

    def then(self, later: Result) -> Result:
        """Both as one: ``later`` begins where the first ends."""
        return later._replace(
            start=self.start,
            contents=Batch.concat([self.contents, later.contents]),
            failed=self.failed | later.failed,
            raised=self.raised + later.raised,
            error=later.error or self.error,
            kind=later.kind or self.kind,
            spent=self.spent + later.spent,
            snapshots=self.snapshots + later.snapshots,
        )
