"""The laws where things are forgotten: the machine of `test_machine`, with a retention on some sources and nodes."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.engine import EngineSettings
from hs_stream.engine.ports import Backend, Reading
from hs_stream.service.embedded.mongod import EmbeddedMongod
from hs_stream.testing.history import History
from hs_stream.testing.strategies import SOURCES, workflows
from tests.laws.gated import fenced_often
from tests.laws.test_machine import (
    HELD,
    NOW,
    PACE,
    PLACES,
    REGISTRY,
    Machine,
    OnMemory,
    OnMongo,
    OnSqlite,
    backends,
    play,
    wanted_sometimes,
)

KEPT = st.sampled_from([1_000, 10_000, 60_000, 600_000])
WORKFLOWS = wanted_sometimes(workflows(REGISTRY))  # once: it tries every tool


@st.composite
def forgetful(draw: st.DrawFn) -> WorkflowDefinition:
    """Any workflow, with a retention on any of its sources and nodes; often the same on all sources."""
    workflow = draw(WORKFLOWS)
    grown = {plate.source for plate in workflow.plates.values()}
    retention = dict.fromkeys(workflow.sources, draw(KEPT)) if draw(st.booleans()) else {}
    for name in (*workflow.sources, *workflow.nodes):
        if name not in grown and draw(st.sampled_from([True, False, False])):
            retention[name] = draw(KEPT)
    return replace(workflow, retention=retention)


class Forgetful(Machine):
    """A machine that may forget at any time."""

    @initialize(
        workflow=forgetful(),
        chunk=st.sampled_from([3, 50, 20_000]),
        lateness=st.sampled_from([0, 0, 2000]),
        pace=PACE,
        backend=backends(),
    )
    def begin(
        self, workflow: WorkflowDefinition, chunk: int, lateness: int, pace: Random | None, backend: Backend
    ) -> None:
        self.whole = workflow
        settings = EngineSettings(chunk=chunk, lateness=lateness)
        self.backend = backend
        self.history = History(self.factory(), [workflow], settings, NOW, pace, backend)
        self.run(self.history.begin())

    @rule(source=st.sampled_from(sorted(SOURCES)), place=st.sampled_from(PLACES[:2]), data=st.data())
    def steady(self, source: str, place: tuple[tuple[str, str], ...], data: st.DataObject) -> None:
        """A device that sends for a while: there must be something to forget."""
        every = data.draw(st.sampled_from([250, 1000, 3000]))
        values = data.draw(st.lists(HELD[SOURCES[source]], min_size=4, max_size=30))
        now = self.played.clock.now()
        made = [Reading(source, place, now + every * index, value) for index, value in enumerate(values)]
        self.played.clock.advance(every * len(values))
        self.sent += made
        self.run(self.played.survive(lambda: self.played.deliver(made)))
        self.run(self.played.settle())

    @rule()
    def forget(self) -> None:
        self.run(self.played.forget())


class ForgetfulOnMemory(Forgetful, OnMemory):
    """On memory."""


class ForgetfulOnSqlite(Forgetful, OnSqlite):
    """On SQLite."""


class ForgetfulOnMongo(Forgetful, OnMongo):
    """On MongoDB."""


@pytest.fixture(autouse=True)
def _states_are_stored_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or no fold would ever let anything be forgotten in so short a history."""
    monkeypatch.setattr("hs_stream.engine.fold.SNAPSHOT_EVERY", 3)


@pytest.mark.slow
@pytest.mark.timeout(36_000)
def test_on_memory() -> None:
    play(ForgetfulOnMemory, 120)


@pytest.mark.slow
@pytest.mark.timeout(36_000)
def test_on_sqlite() -> None:
    play(ForgetfulOnSqlite, 50)


@pytest.mark.slow
@pytest.mark.timeout(36_000)
@fenced_often()
def test_on_mongo(mongod_process: EmbeddedMongod) -> None:
    ForgetfulOnMongo.mongod = mongod_process
    play(ForgetfulOnMongo, 10, steps=15)
