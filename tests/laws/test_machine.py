"""The two laws over anything that may happen: a state machine that hypothesis drives, against the oracle.

``make machine`` is the long form.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from pymongo import MongoClient

from hs_stream.core.stream import StreamId
from hs_stream.core.time import Grid
from hs_stream.core.tool import SKIP, Drive, FoldTool, MapTool, OnGrid
from hs_stream.core.value import Value
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine import executor, fold
from hs_stream.engine.backend import INLINE
from hs_stream.engine.engine import EngineSettings
from hs_stream.engine.ports import Backend, Reading, Store
from hs_stream.plan import backlog, draft
from hs_stream.plugins import default_registry
from hs_stream.service.embedded.mongod import EmbeddedMongod
from hs_stream.store.memory import MemoryStore
from hs_stream.testing.faults import When
from hs_stream.testing.history import History
from hs_stream.testing.strategies import SOURCES, demands, other_definitions, parts_of, workflows
from tests.laws.gated import GatedMongo, GatedSqlite, fenced_often
from tests.shuffled import ShuffledBackend


@dataclass(frozen=True, kw_only=True)
class Scale1(MapTool):
    """Times ``by``."""

    name = "scale"
    version = "1.0.0"
    takes = "number"
    samples = ({"by": 2.0}, {"by": -1.0})
    by: float

    def map(self, value: Value) -> Value:
        return float(value) * self.by


@dataclass(frozen=True, kw_only=True)
class Scale2(Scale1):
    """Times ``by``, plus one."""

    version = "1.1.0"

    def map(self, value: Value) -> Value:
        return float(value) * self.by + 1


@dataclass(frozen=True, kw_only=True)
class Total1(FoldTool):
    """How many so far."""

    name = "total"
    version = "1.0.0"
    takes = "number"
    samples = ({},)

    def initial(self) -> Value:
        return 0

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        return state + 1, state + 1


@dataclass(frozen=True, kw_only=True)
class Total2(Total1):
    """Sum so far, in a list: the state of another version is of no use."""

    version = "2.0.0"

    def initial(self) -> Value:
        return [0.0]

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        return [state[0] + value], state[0] + value


@dataclass(frozen=True, kw_only=True)
class Total3(Total1):
    """Sum so far, told each second until five seconds after the last reading: at other times, by silence alone."""

    version = "3.0.0"

    def drive(self) -> Drive:
        return OnGrid(Grid(1000))

    def initial(self) -> Value:
        return []

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        return [value + sum(state[:1]), time], SKIP

    def quiet(self, state: Value, start: int, end: int) -> Iterable[tuple[int, Value]]:
        if not state:
            return ()
        return [(time, state[0]) for time in Grid(1000).times(start, min(end, state[1] + 5000)).tolist()]


@dataclass(frozen=True, kw_only=True)
class Total4(Total1):
    """Sum so far, of a tool that changes its state before it looks at the value."""

    version = "4.0.0"

    def initial(self) -> Value:
        return [0.0]

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        if isinstance(value, str):
            state[0] += 1000.0  # nobody may ever see that
            raise TypeError(f"{value!r} is no number")
        return [state[0] + value], state[0] + value


@dataclass(frozen=True, kw_only=True)
class Ledger1(Total4):
    """Sum so far, which is worth nothing without one of its parts."""

    name = "ledger"
    version = "1.0.0"
    goes_on = False


REGISTRY = default_registry()
for made in (Scale1, Scale2, Total1, Total2, Total3, Total4, Ledger1):
    REGISTRY.register(made)

BAD = ["unknown", ""]
"""What some tools cannot use: at these instants they fail, and go on."""
HELD: dict[str, st.SearchStrategy[Value]] = {
    "number": st.sampled_from([0.0, 1.5, -2.0, 1e9, 0.1, *BAD]) | st.integers(-3, 3),
    "boolean": st.sampled_from([False, True, False, True, *BAD]),
    "object": st.fixed_dictionaries(
        {"a": st.sampled_from([0.5, 2.0, 0.5, 2.0, *BAD])}, optional={"temperature": st.integers(0, 3)}
    ),
}
PLACES = [(("house", house), ("room", room)) for house in "12" for room in "ab"]
BACK = st.sampled_from([0, 1, 999, 1000, 2500, 10_000, 59_999, 60_000, 300_000, 3_600_000]) | st.integers(0, 60).map(
    lambda steps: 500 * steps  # near each other, so that some come between others
)
READING = st.sampled_from(sorted(SOURCES)).flatmap(
    lambda source: st.tuples(st.just(source), st.sampled_from(PLACES), BACK, HELD[SOURCES[source]])
)
PACE = st.none() | st.integers(0, 255).map(Random)


@st.composite
def backends(draw: st.DrawFn) -> Backend:
    """One in eight is inline; the others answer as another machine would, out of order."""
    slots = draw(st.sampled_from([0, 1, 2, 3, 4, 8, 8, 64]))
    return ShuffledBackend(Random(draw(st.integers(0, 255))), REGISTRY, slots) if slots else INLINE


NOW = 1_600_000_000_000


@st.composite
def wanted_sometimes(draw: st.DrawFn, made: st.SearchStrategy[WorkflowDefinition]) -> WorkflowDefinition:
    """``made``, every other time wanted from a start on, or in some intervals: before, amid and after the data."""
    workflow = draw(made)
    return draw(demands(workflow, NOW)) if draw(st.booleans()) else workflow


class Machine(RuleBasedStateMachine):
    """One history. Subclasses say over which storage."""

    moments: ClassVar[list[When]] = ["before", "after"]
    shared = False
    """Whether two processes may have the storage open at the same time."""
    takeovers = 0
    """In all histories so far."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.history: History | None = None
        self.backend: Backend = INLINE
        self.sent: list[Reading] = []
        self.failed = False
        self.frozen = 0
        """So many are to stand still, or do: which it is may differ each time, and what is drawn must not."""
        self.patch = pytest.MonkeyPatch()

    def factory(self) -> Callable[[], Awaitable[Store]]:
        raise TypeError("a subclass says which store")

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return self.runner.run(work)
        except BaseException:
            self.failed = True
            raise

    @property
    def played(self) -> History:
        assert self.history is not None
        return self.history

    @initialize(
        workflow=wanted_sometimes(workflows(REGISTRY)),
        chunk=st.sampled_from([3, 50, 20_000]),
        lateness=st.sampled_from([0, 0, 2000]),
        snapshot_every=st.sampled_from([1, 3, fold.SNAPSHOT_EVERY]),
        backdate=st.sampled_from([60_000, 86_400_000]),
        budget=st.sampled_from([20, 200, backlog.MOST, backlog.MOST]),
        pace=PACE,
        backend=backends(),
    )
    def begin(
        self,
        workflow: WorkflowDefinition,
        chunk: int,
        lateness: int,
        snapshot_every: int,
        backdate: int,
        budget: int,
        pace: Random | None,
        backend: Backend,
    ) -> None:
        self.patch.setattr(fold, "SNAPSHOT_EVERY", snapshot_every)
        # What a step may read. The clock of a history stands still meanwhile, so it would grow to the most at once.
        for module, name in ((backlog, "MOST"), (backlog, "_FIRST"), (executor, "_LEAST_NEW"), (draft, "_MORSEL")):
            self.patch.setattr(module, name, min(budget, getattr(module, name)))
        self.whole = workflow
        settings = EngineSettings(chunk=chunk, lateness=lateness, backdate=backdate, backdate_ticks=0)
        self.backend = backend
        self.history = History(self.factory(), [workflow], settings, NOW, pace, backend)
        self.run(self.history.begin())

    @rule(readings=st.lists(READING, min_size=1, max_size=8), settle=st.booleans(), asked=st.booleans())
    def publish(self, readings: list[tuple[str, Any, int, Value]], settle: bool, asked: bool) -> None:
        now = self.played.clock.now()
        made = [Reading(source, place, now - back, value) for source, place, back, value in readings]
        self.sent += made
        self.run(self.send(made, asked=asked))
        if settle:
            self.run(self.played.settle())

    @rule(
        places=st.sets(st.sampled_from(PLACES), min_size=2),
        back=BACK,
        each=st.integers(1, 3),
        split=st.booleans(),
        data=st.data(),
    )
    def burst(self, places: set[Any], back: int, each: int, split: bool, data: st.DataObject) -> None:
        """Devices of one kind all send at once, some for the first time: in one delivery or in a quick row of them."""
        read = {name for node in self.whole.nodes.values() for name in node.inputs if name in SOURCES}
        source = data.draw(st.sampled_from(sorted(read or SOURCES)))
        first = self.played.clock.now() - back
        made = [
            Reading(source, place, first - 1000 * index, data.draw(HELD[SOURCES[source]]))
            for index in range(each)
            for place in sorted(places)
        ]
        self.sent += made
        for readings in [[one] for one in made] if split else [made]:
            self.run(self.send(readings))

    async def send(self, readings: list[Reading], *, asked: bool = False) -> None:
        await self.played.survive(lambda: self.played.deliver(readings, asked=asked))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def duplicate_or_correct(self, data: st.DataObject) -> None:
        reading = data.draw(st.sampled_from(self.sent[-20:]))
        value = data.draw(st.just(reading.value) | HELD[SOURCES[reading.source]])
        again = [Reading(reading.source, reading.meta, reading.time, value)]
        self.run(self.send(again))

    @rule(milliseconds=st.sampled_from([1, 500, 1000, 7000, 30_000, 600_000]))
    def advance(self, milliseconds: int) -> None:
        self.run(self.played.pass_time(milliseconds))

    @rule(crash=st.integers(1, 6), moment=st.integers(0, 9))
    def crash_soon(self, crash: int, moment: int) -> None:
        self.played.arm(crash, self.moments[moment % len(self.moments)])

    @precondition(lambda self: isinstance(self.backend, ShuffledBackend))
    @rule(task=st.integers(1, 40))
    def worker_dies_soon(self, task: int) -> None:
        assert isinstance(self.backend, ShuffledBackend)
        self.backend.lose(task)

    @precondition(lambda self: self.shared)
    @rule(points=st.integers(1, 20), readings=st.lists(READING, min_size=1, max_size=4))
    def freeze(self, points: int, readings: list[tuple[str, Any, int, Value]]) -> None:
        """Another process takes the store over. This one wakes later, in the middle of what it was about to write."""
        self.frozen += 1
        self.played.freeze(points)
        self.publish(readings, settle=True, asked=False)

    @precondition(lambda self: self.frozen)
    @rule(quiet=st.booleans())
    def wake(self, quiet: bool) -> None:
        self.frozen -= 1
        self.run(self.played.wake(quiet=quiet))

    @rule()
    def restart(self) -> None:
        self.run(self.played.restart())

    @rule(data=st.data())
    def change_a_definition(self, data: st.DataObject) -> None:
        self.whole = data.draw(other_definitions(REGISTRY, self.whole))
        self.run(self.played.restart([self.whole]))

    @rule(data=st.data())
    def want_other_times(self, data: st.DataObject) -> None:
        self.whole = data.draw(demands(self.whole, self.played.clock.now()))
        self.run(self.played.restart([self.whole]))

    @rule(data=st.data())
    def leave_nodes_out(self, data: st.DataObject) -> None:
        """They come back with the next definition."""
        self.run(self.played.restart([data.draw(parts_of(self.whole))]))

    @rule(data=st.data())
    def share_nodes(self, data: st.DataObject) -> None:
        """A second workflow has some too, and may want them at other times; it goes with the next definition."""
        second = replace(data.draw(parts_of(self.whole)), name="second")
        if all(node.inputs for node in second.nodes.values()):
            # Where nodes without inputs begin, both must agree about.
            second = data.draw(demands(second, self.played.clock.now()))
        self.run(self.played.restart(data.draw(st.permutations([self.whole, second]))))

    @rule(data=st.data())
    def purge(self, data: st.DataObject) -> None:
        self.run(self.played.settle())
        names = [status.stream for status in self.played.engine.status()]
        if names:
            stream = data.draw(st.sampled_from(names))
            self.run(self.played.purge(stream, *self.window(data)))

    @rule(data=st.data())
    def request(self, data: st.DataObject) -> None:
        self.run(self.played.settle())
        names = [status.stream for status in self.played.engine.status() if status.kind == "derived"]
        if names:
            stream: StreamId = data.draw(st.sampled_from(names))
            self.run(self.played.request(stream, *self.window(data)))

    def window(self, data: st.DataObject) -> tuple[int, int]:
        now = self.played.clock.now()
        ends = sorted((now - data.draw(BACK), now - data.draw(BACK)))
        return ends[0] - 1, ends[1]

    @rule()
    def check(self) -> None:
        self.run(self.played.check(everything=False))

    def teardown(self) -> None:
        try:
            if self.history is not None and not self.failed:
                self.run(self.finish(self.history))
        finally:
            self.patch.undo()
            if self.history is not None:
                type(self).takeovers += self.history.takeovers
                self.run(self.history.abandon())
            self.runner.close()

    @staticmethod
    async def finish(history: History) -> None:
        history.arm(0)
        await history.wake_all()
        if history.takeovers:
            await history.restart()
        for _ in range(3):
            await history.pass_time(60_000)
        await history.check()
        await history.end()


class OnMemory(Machine):
    def factory(self) -> Callable[[], Awaitable[Store]]:
        store = MemoryStore()

        async def same() -> Store:
            return store

        return same


class OnSqlite(Machine):
    shared = True
    directory: tempfile.TemporaryDirectory[str] | None = None

    def factory(self) -> Callable[[], Awaitable[Store]]:
        self.directory = tempfile.TemporaryDirectory(prefix="hs-stream-machine-")
        path = Path(self.directory.name) / "machine.db"

        async def again() -> Store:
            return GatedSqlite(path)

        return again

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            if self.directory is not None:
                self.directory.cleanup()


class OnMongo(Machine):
    shared = True
    moments: ClassVar[list[When]] = ["before", "after", "marked", "journaled", "applied"]
    mongod: ClassVar[EmbeddedMongod]
    name = ""

    def factory(self) -> Callable[[], Awaitable[Store]]:
        self.name = f"test_{uuid.uuid4().hex}"
        url = self.mongod.database_url(self.name)

        async def again() -> Store:
            return GatedMongo(url)

        return again

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            with MongoClient[dict[str, Any]](self.mongod.url) as client:
                client.drop_database(self.name)


def play(machine: type[Machine], examples: int, steps: int = 25) -> None:
    long = os.environ.get("HS_STREAM_MACHINE")
    examples = int(long or examples)
    machine.takeovers = 0
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            phases=list(Phase) if long else [Phase.generate],  # shrinking may take longer than CI has
            derandomize=not long,  # always the same ones in CI; `make machine` is for finding new ones
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
    print(f"{machine.__name__}: {machine.takeovers} takeovers")
    assert not machine.shared or machine.takeovers >= examples // 10


@pytest.mark.slow
@pytest.mark.timeout(36_000)
def test_on_memory() -> None:
    play(OnMemory, 300)


@pytest.mark.slow
@pytest.mark.timeout(36_000)
def test_on_sqlite() -> None:
    play(OnSqlite, 80)


@pytest.mark.slow
@pytest.mark.timeout(36_000)
@fenced_often()
def test_on_mongo(mongod_process: EmbeddedMongod) -> None:
    OnMongo.mongod = mongod_process
    play(OnMongo, 10, steps=15)


@pytest.mark.slow
@pytest.mark.timeout(36_000)
@fenced_often()
def test_on_a_replica_set(replica_process: EmbeddedMongod) -> None:
    OnMongo.mongod = replica_process
    play(OnMongo, 10, steps=15)
