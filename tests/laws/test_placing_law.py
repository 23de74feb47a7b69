"""Readings at one time, and without a time: however they are cut into deliveries, repeated and interrupted.

The contents are those of a small model that takes one message after the other. A redelivery (a suffix again, in order,
also after a restart) changes nothing; of readings without a time of their own each counts again.
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME
from hs_stream.core.workflow import SourceDefinition, WorkflowDefinition
from hs_stream.engine.engine import Engine
from hs_stream.engine.ports import Delivery, Placing, Reading
from hs_stream.store.memory import MemoryStore
from hs_stream.testing.clock import VirtualClock

START = 1_600_000_000_000
WORKFLOW = WorkflowDefinition("w", sources={"s": SourceDefinition("s", (), {"fields": ["v"]})}, nodes={})
EXAMPLES = int(os.environ.get("HS_STREAM_EXAMPLES", "300"))
FAMILIES = [Placing.REPLACE, Placing.CORRECT, Placing.MERGE, Placing.UPDATE, Placing.ARRIVAL]


@dataclass(frozen=True)
class Message:
    time: int
    value: Any
    topic: str
    device: int
    placing: Placing

    @property
    def payload(self) -> bytes:
        return json.dumps({"ts": self.time, "v": self.value, "id": self.device}).encode()


@dataclass(frozen=True)
class Again:
    """The last ``count`` messages once more."""

    count: int
    restart: bool


@dataclass
class Model:
    """What one message after the other leaves."""

    contents: dict[int, Any] = field(default_factory=dict)
    origin: Message | None = None
    given: tuple[int, int] | None = None
    refused: set[bytes] = field(default_factory=set)
    overwritten: int = 0
    letters: int = 0

    def restart(self) -> None:
        self.origin = self.given = None

    def newest(self) -> int:
        return max(self.contents, default=0)

    def put(self, time: int, value: Any, origin: Message | None) -> None:
        if time >= self.newest():
            self.origin = origin
        self.contents[time] = value

    def take(self, message: Message, arrival: int) -> None:
        time, value, placing = message.time, message.value, message.placing
        there = self.contents.get(time)
        aged = placing in (Placing.UPDATE, Placing.REPEAT, Placing.RETAINED)
        if placing is Placing.ARRIVAL:
            self.put(max(arrival, self.newest() + 1), value, None)
        elif there is None:
            self.put(time, value, None if aged else message)
            if aged and self.given and time > self.given[0]:
                self.given = None
        elif aged:
            self.take_aged(message, there, arrival)
        else:
            self.meet(message, there)

    def take_aged(self, message: Message, there: Any, arrival: int) -> None:
        time, value, newest = message.time, message.value, self.newest()
        if self.contents[newest] == value:
            return
        if message.placing is Placing.UPDATE:
            if there == value and self.given != (time, newest):
                return
        elif value in [other for at, other in self.contents.items() if at >= time]:
            return
        if message.placing is Placing.RETAINED:
            self.letters += 1
            return
        at = max(arrival, newest + 1)
        self.put(at, value, None)
        self.given = time, at

    def meet(self, message: Message, there: Any) -> None:
        time, value, known = message.time, message.value, self.origin if message.time == self.newest() else None
        told_apart = message.placing is not Placing.REPLACE
        foreign = known is not None and (known.topic != message.topic or known.device != message.device)
        if there == value:
            return
        origin = None if known is None else message
        clash = True
        if message.placing is Placing.MERGE:
            clash = any(there.get(key, member) != member for key, member in value.items())
            value = there | value
            if value == there:
                return
            origin = None if foreign and not clash else origin
        name = message.payload + message.topic.encode()
        if told_apart and ((clash and foreign) or name in self.refused):
            self.refused.add(name)
            self.letters += 1
            return
        self.put(time, value, origin)
        self.overwritten += clash


def scripts(family: Placing) -> st.SearchStrategy[list[Message | Again | str]]:
    values: st.SearchStrategy[Any] = st.integers(0, 2)
    if family is Placing.MERGE:
        values = st.dictionaries(st.sampled_from("ab"), st.integers(1, 2), min_size=1)
    placings = (
        st.sampled_from([Placing.UPDATE] * 3 + [Placing.RETAINED]) if family is Placing.UPDATE else st.just(family)
    )
    times = st.integers(0, 2).map(lambda second: START - 2_000 + second * 1000)
    message = st.builds(Message, times, values, st.sampled_from("xy"), st.integers(1, 2), placings)
    again = st.builds(Again, st.integers(1, 6), st.booleans())
    other = st.sampled_from(["deliver", "settle", "turn"])
    return st.lists(message | message | message | other | again, min_size=1, max_size=25)


class Run:
    """The engine and the model, side by side."""

    def __init__(self) -> None:
        self.store, self.clock, self.model = MemoryStore(), VirtualClock(START), Model()
        self.log: list[Message] = []
        self.waiting: list[Message] = []
        self.counted = {"readings": 0, "dead_letters": 0, "overwritten": 0}
        self.taken = 0
        self.engine = Engine(self.store, clock=self.clock)

    async def open(self) -> None:
        self.engine = Engine(self.store, clock=self.clock)
        await self.engine.open([WORKFLOW])

    async def close(self) -> None:
        figures = self.engine.statistics()
        for name in self.counted:
            self.counted[name] += getattr(figures, name)
        await self.engine.close()

    async def deliver(self) -> None:
        waiting, self.waiting = self.waiting, []
        now = self.clock.now()
        for message in waiting:
            self.model.take(message, now)
        times = [now if message.placing is Placing.ARRIVAL else message.time for message in waiting]
        readings = [Reading("s", (), at, one.value, one.placing) for at, one in zip(times, waiting, strict=True)]
        origins = [(at, message.topic, message.payload) for at, message in enumerate(waiting)]
        self.taken += len(waiting)
        await self.engine.deliver(Delivery(readings, [], now, lambda: None, origins=origins))

    async def contents(self) -> dict[int, Any]:
        await self.deliver()
        await self.engine.settle()
        if "s" not in [status.node for status in self.engine.status()]:
            return {}
        return dict(await self.engine.read(StreamId("s"), MIN_TIME, MAX_TIME))

    async def again(self, count: int, restart: bool) -> None:
        before = await self.contents()
        if restart:
            await self.close()
            await self.open()
            self.model.restart()
        suffix = self.log[-count:]
        for message in suffix:
            placing = Placing.REPEAT if message.placing is Placing.UPDATE else message.placing
            self.waiting.append(Message(message.time, message.value, message.topic, message.device, placing))
            if message.value == 0:
                await self.deliver()
        after = await self.contents()
        if any(message.placing is Placing.ARRIVAL for message in suffix):
            assert len(after) == len(before) + len(suffix)
            assert list(after.items())[: len(before)] == list(before.items())
        else:
            assert after == before

    async def play(self, script: list[Message | Again | str]) -> None:
        await self.open()
        for part in script:
            if isinstance(part, Message):
                self.log.append(part)
                self.waiting.append(part)
            elif isinstance(part, Again):
                await self.again(part.count, part.restart)
            elif part == "deliver":
                await self.deliver()
            elif part == "settle":
                await self.contents()
            else:
                await self.deliver()
                self.clock.advance(700)
        assert await self.contents() == self.model.contents
        await self.close()
        assert self.counted == {
            "readings": self.taken - self.model.letters,
            "dead_letters": self.model.letters,
            "overwritten": self.model.overwritten,
        }


@pytest.mark.parametrize("family", FAMILIES)
def test_contents_are_those_of_one_message_after_the_other(family: Placing) -> None:
    @settings(max_examples=EXAMPLES, deadline=None)
    @given(scripts(family))
    def run(script: list[Message | Again | str]) -> None:
        asyncio.run(Run().play(script))

    run()
