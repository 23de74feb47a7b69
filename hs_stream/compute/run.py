"""A `Task` in, a `Result` out. No store, clock, log or event loop: the same task has the same result everywhere.

1. A tool that raises fails the instants at which it does, and no others (`hs_stream.compute.attempt`).
2. A fold goes from state to state. It ends early where its state is that of before the change (``Task.old``): what
   was computed after that instant is right.
3. A healthy fold copies no state. So where its tool raises, the state may be changed in place, and the task ends in
   front of that, ``torn``. A wary task copies each state before the tool gets it, and goes on.
4. A fold whose `FoldTool.initial` raises has no state, so all of it fails.
"""

from __future__ import annotations

from hs_stream.compute.attempt import Walk, attempt, checked, told
from hs_stream.compute.task import Carried, Result, Task
from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.fold_states import HALTED, INITIAL
from hs_stream.core.time import EMPTY, TimeInterval, TimeIntervals
from hs_stream.core.tool import FoldTool, OnGrid
from hs_stream.core.value import Value, canonical, same

__all__ = ["run"]


def run(task: Task) -> Result:
    """Evaluate ``task``, or as much of it as ``task.work`` allows. Never raises what a tool raises."""
    if task.carried is not None:
        return _Fold(task, task.carried).result()
    found = attempt(task.tool, task.start, task.end, task.sources, task.work)
    failed = TimeIntervals.points(found.failed) if found.failed else EMPTY
    return Result(found.low, task.end, found.results, failed, len(found.failed), found.error, found.kind, found.spent)


class _Fold:
    """One task of a fold."""

    def __init__(self, task: Task, carried: Carried) -> None:
        assert isinstance(task.tool, FoldTool)
        self.task = task
        self.tool = task.tool
        self.state, self.since, self.passed = carried
        self.until = task.start
        self.parts: list[Batch] = []
        self.snapshots: list[tuple[int, Value]] = []
        self.failed = EMPTY
        self.raised = 0
        self.error = self.kind = ""
        self.spent = 0
        self.torn = self.converged = False
        self.on_grid = isinstance(task.tool.drive(), OnGrid)
        if self.state is INITIAL:
            self._begin()

    def result(self) -> Result:
        """Run it."""
        task, position = self.task, 0
        for stop in [*sorted(task.old), task.end]:
            position = self._through(position, stop)
            if self.until < stop:
                break
            if stop in task.old and _alike(self.state, task.old[stop]):
                self.converged = True
                break
        return Result(
            task.start,
            self.until,
            Batch.concat(self.parts),
            self.failed,
            self.raised,
            self.error,
            self.kind,
            self.spent,
            Carried(self.state, self.since, self.passed),
            tuple(self.snapshots),
            self.converged,
            self.torn,
        )

    def _begin(self) -> None:
        try:
            self.state = self.tool.initial()
        except Exception as error:  # noqa: BLE001 - see `_go`
            self.state, self.raised = HALTED, 1
            self.error, self.kind = told(self.tool, self.until, error)

    def _through(self, position: int, stop: int) -> int:
        """All instances up to ``stop``, from that at ``position`` on, and the silence after them; how many are done.

        Less far where the work is over, or the state torn.
        """
        batch, every = self.task.sources[0], self.task.every
        high = int(batch.times.searchsorted(stop, "right"))
        while position < high:
            upto = min(high, position + max(every - self.passed, 1)) if every else high
            wanted = int(batch.times[upto - 1])
            self._go(batch.slice_index(position, upto), wanted)
            upto = int(batch.times.searchsorted(self.until, "right"))
            if upto > position:
                self.since = int(batch.times[upto - 1])
            self.passed += upto - position
            position = upto
            if every and self.passed >= every and not self.torn:
                self._snapshot()
            if self.until < wanted:
                return position
        if self.on_grid or self.state is HALTED:
            if self.until < stop:
                self._go(NOTHING, stop)
        else:
            self.until = stop
        return position

    def _go(self, batch: Batch, end: int) -> None:
        """Through ``batch``, all instances of ``(until, end]``."""
        if self.task.wary or self.state is HALTED:
            self._walk(batch, end)
            return
        try:
            following = self.tool.following(self.task.sources[0], end)
            state, part = self.tool.run_over(self.state, batch, self.until, end, following)
            part = checked(self.tool, TimeInterval(self.until, end), part)
        except Exception:  # noqa: BLE001 - a tool may raise anything; a wary task finds out where
            self.torn = True
        else:
            self.state, self.until = state, end
            self.parts.append(part)

    def _walk(self, batch: Batch, end: int) -> None:
        walk = Walk(self.tool, self.state, self.until, self.task.work, self.task.sources[0])
        walk.through(batch, end)
        self.state, self.until = walk.state, walk.until
        self.parts.append(walk.results)
        self.spent += walk.spent
        self.failed |= walk.spans()
        self.raised += len(walk.failed)
        if walk.error:
            self.error, self.kind = walk.error, walk.kind

    def _snapshot(self) -> None:
        self.passed = 0
        if self.state is HALTED:
            return  # what comes later is computed from the state before, should it ever be
        try:
            self.snapshots.append((self.since, canonical(self.state)))
        except ValueError:
            return  # a state that cannot be stored is rebuilt from an older one


def _alike(state: Value, old: Value) -> bool:
    """Whether a fold goes on from both alike."""
    if state is HALTED or old is HALTED:
        return state is old
    try:
        return same(canonical(state), canonical(old))
    except ValueError:
        return False
