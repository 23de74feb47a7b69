"""The law of live streams: who does what the events say has what is stored, whatever was cut, killed or restarted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import pytest

from hs_stream.core.batch import Batch
from hs_stream.core.errors import NotFound, Unavailable
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME
from hs_stream.engine.engine import Engine, EngineSettings
from hs_stream.engine.ports import Append, Commit, Delivery, DocumentKind, Reading, Store
from hs_stream.plugins import default_registry
from hs_stream.service.http import live, live_ring
from hs_stream.service.http.live import Hub, Subscription
from hs_stream.service.workflows.file import parse_workflow
from hs_stream.store.memory import MemoryStore
from hs_stream.testing.clock import VirtualClock
from hs_stream.testing.faults import Crash, FaultyStore
from tests.service.live_client import Client

NOW = 1_800_000_000_000
WORKFLOW = """
workflow: w
sources: {raw: {mqtt: raw}}
nodes:
  mean: {tool: sliding_mean, from: raw, with: {width: 5s}}
  total: {tool: integral, from: raw}
"""
LATER = """
workflow: later
online: false
sources: {other: {mqtt: other}}
nodes:
  double: {tool: sliding_mean, from: other, with: {width: 5s}}
"""
KEPT = """
workflow: kept
sources: {short: {mqtt: short, retention: 10m}}
nodes:
  smooth: {tool: sliding_mean, from: short, with: {width: 5s}, retention: 10m}
"""
registry = lru_cache(default_registry)


class Site:
    """An engine with a hub over a store that outlives them."""

    def __init__(self, store: Store | None = None, lateness: int = 0) -> None:
        self.medium = store or MemoryStore()
        self.store: Store = self.medium
        self.clock = VirtualClock(NOW)
        self.lateness = lateness
        self.ended: list[str] = []
        self.engine: Engine
        self.hub: Hub

    async def start(self, crash_at: int = 0, when: Any = "after") -> Site:
        self.store = FaultyStore(self.medium, crash_at, when) if crash_at else self.medium
        settings = EngineSettings(lateness=self.lateness)
        self.engine = Engine(self.store, settings=settings, clock=self.clock)
        self.hub = Hub(self.engine, limit=20, ended=self.ended.append)
        await self.engine.open([parse_workflow(text, registry()) for text in (WORKFLOW, LATER, KEPT)])
        return self

    async def deliver(self, items: dict[int, float], source: str = "raw") -> None:
        readings = [Reading(source, (), time, value) for time, value in items.items()]
        await self.engine.deliver(Delivery(readings, [], self.clock.now(), lambda: None))
        await self.engine.settle()

    async def contents(self, name: str, start: int = MIN_TIME) -> dict[int, tuple[Any, int]]:
        status = self.engine.find(StreamId(name))
        batch = await self.engine.read(status.stream, start, MAX_TIME)
        revisions = {}
        if status.kind == "derived":
            revisions = await self.engine.store.revisions(status.id, batch.times.tolist())
        return {time: (value, revisions.get(time, 0)) for time, value in batch}

    async def subscribe(self, name: str, client: Client, start: int | None = None) -> Line:
        client.connect()
        status = self.engine.find(StreamId(name))
        return Line(await self.hub.subscribe(status, client.last_id, start), client)


class Line:
    """One connection of a client."""

    def __init__(self, subscription: Subscription, client: Client) -> None:
        self.subscription = subscription
        self.client = client
        self.busy = False
        self._chunks = subscription.chunks()

    async def read(self, pieces: int = 1_000_000) -> None:
        """Take what there is now, at most so many pieces."""
        for _ in range(pieces):
            follows = self.client.ready and self.subscription._cursor == self.subscription.ring.last
            if follows and not self.subscription._hub.over:
                return
            self.subscription.news.set()
            chunk = await anext(self._chunks, b"")
            if not chunk:
                return
            self.client.feed(chunk)

    async def read_part(self, share: float) -> None:
        """One piece, of which only a share arrives."""
        self.subscription.news.set()
        chunk = await anext(self._chunks, b"")
        self.client.feed(chunk[: int(len(chunk) * share)])

    async def close(self) -> None:
        await self._chunks.aclose()
        self.subscription.close()


async def test_who_may_only_read_makes_nothing_computed() -> None:
    """The node is not online: it is computed for who may, and for as long as they look."""
    site, writer, reader = await Site().start(), Client(), Client()
    await site.deliver({NOW - 5000: 1.0})
    wanted = site.engine.want
    asked: list[StreamId] = []

    def want(stream: StreamId, start: int, token: int | None = None) -> int:
        asked.append(stream)
        return wanted(stream, start, token)

    site.engine.want = want  # type: ignore[method-assign]
    status = site.engine.find(StreamId("mean"))
    for client, computes, count in ((reader, False, 0), (writer, True, 1)):
        client.connect()
        line = Line(await site.hub.subscribe(status, "", MIN_TIME, computes=computes), client)
        await line.read()
        assert len(asked) >= count
        assert bool(asked) is computes
        await line.close()


async def test_a_new_subscriber_gets_only_news() -> None:
    site, client = await Site().start(), Client()
    await site.deliver({NOW - 5000: 1.0})
    line = await site.subscribe("raw", client)
    await line.read()
    assert (client.kinds, client.table) == (["ready"], {})
    await site.deliver({NOW - 4000: 2.0})
    await site.deliver({NOW - 5000: 3.0, NOW - 4500: 4.0})
    await line.read()
    assert client.kinds == ["ready", "insert", "insert", "revise"] or client.kinds[2:] == ["revise", "insert"]
    assert client.table == {NOW - 4000: (2.0, 0), NOW - 5000: (3.0, 0), NOW - 4500: (4.0, 0)}
    await line.close()
    assert site.ended == ["left"]


async def test_derived_corrections_carry_their_revision() -> None:
    site, client = await Site().start(), Client()
    await site.deliver({NOW - 5000: 1.0, NOW - 4000: 3.0})
    line = await site.subscribe("mean", client, MIN_TIME)
    await line.read()
    assert client.kinds == ["reset", "insert", "insert", "ready"]
    await site.deliver({NOW - 5000: 2.0})
    await line.read()
    assert client.kinds[4:] == ["revise", "revise"]
    assert client.table == await site.contents("mean") == {NOW - 5000: (2.0, 1), NOW - 4000: (2.5, 1)}
    await line.close()


async def test_from_gives_what_is_later_than_it() -> None:
    site, client = await Site().start(), Client()
    await site.deliver({NOW - 5000 + index: float(index) for index in range(1500)})
    line = await site.subscribe("raw", client, NOW - 4500)
    await line.read()
    assert client.table == await site.contents("raw", NOW - 4500)
    assert len(client.table) == 999
    await line.close()


async def test_a_resume_within_the_ring_sends_what_was_missed_and_nothing_else() -> None:
    site, client = await Site().start(), Client()
    await site.deliver({NOW - 5000: 1.0})
    line = await site.subscribe("raw", client, MIN_TIME)
    await line.read()
    await line.close()
    await site.deliver({NOW - 4000: 2.0})
    await site.deliver({NOW - 5000: 7.0})
    before = len(client.kinds)
    line = await site.subscribe("raw", client, MIN_TIME)
    await line.read()
    assert client.kinds[before:] == ["insert", "revise", "ready"]
    assert client.table == await site.contents("raw")
    await line.close()


async def test_a_resume_after_a_restart_without_corrections_repeats_nothing() -> None:
    site, client = await Site().start(), Client()
    await site.deliver({NOW - 5000: 1.0, NOW - 4000: 2.0})
    line = await site.subscribe("raw", client, MIN_TIME)
    await line.read()
    await site.start()
    await site.deliver({NOW - 3000: 3.0})
    before = len(client.kinds)
    line = await site.subscribe("raw", client)
    await line.read()
    assert client.kinds[before:] == ["reset", "insert", "ready"]
    assert client.table == await site.contents("raw")
    assert not client.oddities


async def test_a_resume_after_a_restart_learns_of_corrections() -> None:
    site, client = await Site().start(), Client()
    hour = 3_600_000
    await site.deliver({NOW - hour - index * hour: float(index) for index in range(20)})
    line = await site.subscribe("raw", client, MIN_TIME)
    await line.read()
    await site.deliver({NOW - 4 * hour: 44.0})
    await site.start()
    await site.deliver({NOW - 8 * hour: 88.0, NOW - 8 * hour - 1: 89.0})
    before = len(client.kinds)
    line = await site.subscribe("raw", client)
    await line.read()
    assert client.table == await site.contents("raw")
    assert client.kinds[before:] == ["reset", "insert", "insert", "reset", "insert", "reset", "ready"]
    assert not client.oddities


@pytest.mark.parametrize("last_id", ["nonsense", "a.b.c", "x.1.y.1.1.1", "\x00", "9" * 200])
async def test_an_unknown_id_begins_anew(last_id: str) -> None:
    site, client = await Site().start(), Client()
    await site.deliver({NOW - 5000: 1.0})
    client.last_id, client.table = last_id, {1: ("old", 0)}
    line = await site.subscribe("raw", client)
    await line.read()
    assert client.table == {NOW - 5000: (1.0, 0)}
    await line.close()


async def test_an_id_of_another_store_begins_anew() -> None:
    one, other, client = await Site().start(), await Site().start(), Client()
    await one.deliver({NOW - 5000: 1.0})
    line = await one.subscribe("raw", client, MIN_TIME)
    await line.read()
    await other.deliver({NOW - 6000: 2.0})
    line = await other.subscribe("raw", client)
    await line.read()
    assert client.table == {NOW - 6000: (2.0, 0)}


async def test_an_id_of_a_stream_that_nobody_watched_for_a_day_begins_anew() -> None:
    site, client = await Site().start(), Client()
    await site.deliver({NOW - 5000: 1.0})
    line = await site.subscribe("raw", client, MIN_TIME)
    await line.read()
    await line.close()
    site.clock.advance(25 * 3_600_000)
    await site.start()
    await site.deliver({NOW - 5000: 2.0})
    line = await site.subscribe("raw", client)
    await line.read()
    assert client.table == {NOW - 5000: (2.0, 0)}
    assert client.kinds[-3:] == ["reset", "insert", "ready"]


async def test_what_is_purged_is_gone() -> None:
    site, client = await Site().start(), Client()
    await site.deliver({NOW - 5000: 1.0, NOW - 4000: 2.0, NOW - 3000: 3.0})
    line = await site.subscribe("raw", client, MIN_TIME)
    await line.read()
    await site.engine.purge(StreamId("raw"), NOW - 4500, NOW)
    await site.engine.settle()
    await line.read()
    assert client.table == await site.contents("raw") == {NOW - 5000: (1.0, 0)}
    await site.start()
    await site.deliver({NOW - 3500: 4.0})
    line = await site.subscribe("raw", client)
    await line.read()
    assert client.table == await site.contents("raw")


@pytest.mark.parametrize("name", ["short", "smooth"])
async def test_what_retention_forgets_is_gone(name: str) -> None:
    site, here, away = await Site().start(), Client(), Client()
    minutes = [NOW - 3_600_000 + 60_000 * index for index in range(60)]
    await site.deliver(dict.fromkeys(minutes[:30], 1.0), "short")
    lines = [await site.subscribe(name, client, MIN_TIME) for client in (here, away)]
    for line in lines:
        await line.read()
    await lines[1].close()
    await site.deliver(dict.fromkeys(minutes[30:], 2.0), "short")
    await site.engine.forget()
    await lines[0].read()
    assert here.table == await site.contents(name)
    assert minutes[0] not in here.table
    await site.start()
    line = await site.subscribe(name, away, MIN_TIME)
    await line.read()
    assert away.table == here.table


async def test_a_slow_subscriber_is_ended_and_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_ring, "_MOST_EVENTS", 100)
    site, slow, quick = await Site().start(), Client(), Client()
    await site.deliver({NOW - 5001: 0.0})
    lines = [await site.subscribe("raw", client, MIN_TIME) for client in (slow, quick)]
    for line in lines:
        await line.read()
    for index in range(150):
        await site.deliver({NOW - 5000 + index: float(index)})
        await lines[1].read()
    await lines[0].read()
    assert (slow.end, len(slow.table)) == ("slow", 1)
    assert quick.table == await site.contents("raw")
    for line in lines:
        await line.close()
    assert site.ended == ["slow", "left"]
    # It comes back with its last id: the ring does not reach so far, but what may have changed is known.
    line = await site.subscribe("raw", slow)
    await line.read()
    assert slow.table == quick.table


async def test_the_number_of_subscribers_is_bounded() -> None:
    site = await Site().start()
    await site.deliver({NOW - 5000: 1.0})
    lines = [await site.subscribe("raw", Client()) for _ in range(20)]
    assert site.hub.count == 20
    with pytest.raises(Unavailable, match=r"http\.max_subscribers"):
        await site.subscribe("raw", Client())
    await lines[0].close()
    await lines[0].close()
    assert site.hub.count == 19
    await site.subscribe("raw", Client())


async def test_the_end_of_the_service_is_told() -> None:
    site, client = await Site().start(), Client()
    await site.deliver({NOW - 5000: 1.0})
    line = await site.subscribe("raw", client)
    await line.read()
    site.hub.stop()
    await line.read()
    assert client.end == "stopping"
    with pytest.raises(Unavailable):
        await site.subscribe("raw", Client())


async def test_a_subscriber_is_demand() -> None:
    site, client = await Site().start(), Client()
    await site.deliver({NOW - 5000: 1.0}, "other")
    assert await site.contents("double") == {}
    line = await site.subscribe("double", client, MIN_TIME)
    await line.read()
    await site.engine.settle()
    await line.read()
    await site.deliver({NOW - 4000: 3.0}, "other")
    await line.read()
    assert client.table == await site.contents("double") == {NOW - 5000: (1.0, 0), NOW - 4000: (2.0, 0)}
    await line.close()
    await site.deliver({NOW - 3000: 5.0}, "other")
    assert NOW - 3000 not in await site.contents("double")


async def test_many_subscribers_share_one_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    site = await Site().start()
    await site.deliver({NOW - 5000: 1.0})
    clients = [Client() for _ in range(10)]
    lines = [await site.subscribe("raw", client) for client in clients]
    for line in lines:
        await line.read()
    encoded: list[int] = []
    plain = live_ring.instance_json

    def counted(time: int, value: Any, revision: int) -> bytes:
        encoded.append(time)
        return plain(time, value, revision)

    monkeypatch.setattr(live_ring, "instance_json", counted)
    await site.deliver({NOW - 4000: 2.0})
    for line in lines:
        await line.read()
    assert encoded == [NOW - 4000]
    assert all(client.table == {NOW - 4000: (2.0, 0)} for client in clients)
    ring = lines[0].subscription.ring
    assert ring.piece(ring.last - 1)[0] is ring.piece(ring.last - 1)[0]


class Hesitant(MemoryStore):
    """Lets others run before and after each operation, a random number of times."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        self._draw = draw

    async def _pause(self) -> None:
        for _ in range(self._draw.choice([0, 0, 1, 2, 5])):
            await asyncio.sleep(0)

    async def append(self, append: Append) -> None:
        await self._pause()
        await super().append(append)
        await self._pause()

    async def commit(self, commit: Commit) -> None:
        await self._pause()
        await super().commit(commit)
        await self._pause()

    async def read(
        self,
        stream: int,
        start: int,
        end: int,
        *,
        limit: int | None = None,
        newest: bool = False,
        budget: int | None = None,
    ) -> Batch:
        await self._pause()
        found = await super().read(stream, start, end, limit=limit, newest=newest, budget=budget)
        await self._pause()
        return found

    async def put(self, kind: DocumentKind, key: str, document: Mapping[str, Any]) -> None:
        await self._pause()
        await super().put(kind, key, document)
        await self._pause()


class Walk:
    """Random arrivals, cuts, reconnects, restarts and kills; three streams, each with two clients."""

    def __init__(self, seed: int, lateness: int) -> None:
        self.random = random.Random(seed)
        self.site = Site(Hesitant(self.random), lateness)
        self.clients = {(name, index): Client() for name in ("raw", "mean", "total") for index in range(2)}
        self.lines: dict[tuple[str, int], Line] = {}
        self.at = NOW - 600_000

    async def arrive(self) -> None:
        draw = self.random
        items: dict[int, float] = {}
        for _ in range(draw.randint(1, 5)):
            self.at += draw.choice([1, 100, 1000, 20_000])
            items[self.at] = float(draw.randint(0, 3))
        for _ in range(draw.choice([0, 0, 1, 3])):
            items[self.at - draw.choice([0, 1, 500, 5000, 100_000, 400_000])] = float(draw.randint(0, 3))
        await self.site.deliver(items)

    async def connect(self) -> None:
        key = self.random.choice([*self.clients])
        if key in self.lines and self.lines[key].busy:
            return
        await self.leave(key)
        try:
            self.lines[key] = await self.site.subscribe(key[0], self.clients[key], MIN_TIME)
        except NotFound:
            return

    async def meanwhile(self) -> None:
        """Several of them at the same time, all of them ended by a crash of one."""
        tasks = [asyncio.ensure_future(doing()) for doing in (self.arrive, self.read, self.connect, self.arrive)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled():
                    task.exception()

    async def leave(self, key: tuple[str, int]) -> None:
        if (line := self.lines.pop(key, None)) is not None:
            await line.close()

    async def read(self) -> None:
        if not self.lines:
            return
        line = self.random.choice([*self.lines.values()])
        if line.busy:
            return
        line.busy = True
        try:
            await self._read(line)
        finally:
            line.busy = False

    async def _read(self, line: Line) -> None:
        if self.random.random() < 0.7:
            await line.read(self.random.choice([1, 2, 3, 1000]))
            return
        if line.subscription._cursor != line.subscription.ring.last or not line.client.ready:
            await line.read_part(self.random.random())
            line.busy = False
            for key in [key for key, one in self.lines.items() if one is line]:
                await self.leave(key)

    async def purge(self) -> None:
        start = self.at - self.random.choice([1, 5000, 100_000])
        try:
            await self.site.engine.purge(StreamId("raw"), start, start + self.random.choice([1, 3000, 200_000]))
            await self.site.engine.settle()
        except NotFound:
            return

    async def restart(self) -> None:
        self.lines.clear()
        at = self.random.choice([0, self.random.randint(1, 30)])
        await self.site.start(at, self.random.choice(["before", "after"]))

    async def run(self, steps: int) -> None:
        await self.site.start()
        doings = (
            [self.arrive] * 5
            + [self.meanwhile] * 4
            + [self.connect] * 4
            + [self.read] * 12
            + [self.purge, self.restart]
        )
        for _ in range(steps):
            self.site.clock.advance(self.random.choice([0, 0, 500, 20_000, 50_000]))
            doing = self.random.choice(doings)
            try:
                await doing()
            except Crash:
                self.lines.clear()
                await self.site.start()
        await self.check()

    async def check(self) -> None:
        for key in [*self.lines]:
            await self.leave(key)
        await self.site.start()
        for key, client in self.clients.items():
            line = await self.site.subscribe(key[0], client, MIN_TIME)
            await line.read()
            assert client.table == await self.site.contents(key[0]), key
            assert client.oddities == []
            await line.close()


@pytest.mark.parametrize("lateness", [0, 3000])
@pytest.mark.parametrize("seed", range(20))
async def test_whatever_happens_a_simple_client_has_what_is_stored(
    seed: int, lateness: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (live, live_ring):
        monkeypatch.setattr(module, "PAGE", 7)
    monkeypatch.setattr(live_ring, "_MOST_EVENTS", random.Random(seed).choice([5, 40, 10_000]))
    walk = Walk(seed, lateness)
    await walk.run(250)
    await asyncio.sleep(0)


async def test_a_ring_and_a_piece_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who falls out of the ring begins where the ids say, and has all of it in the end."""
    for module in (live, live_ring):
        monkeypatch.setattr(module, "PIECE", 10_000)
    site, client = await Site().start(), Client()
    site.hub = Hub(site.engine, limit=20, ended=site.ended.append, events=200_000)
    await site.deliver({NOW - 20_000: 1.0})
    line = await site.subscribe("raw", client, MIN_TIME)
    await line.read()
    for first in range(0, 400, 20):
        texts = {NOW - 10_000 + first + index: "x" * 2_000 for index in range(20)}
        await site.deliver(texts)  # type: ignore[arg-type]
        use = site.hub.use()
        assert use.used <= use.limit
        if first == 20:
            sizes = [len(line.subscription.ring.piece(number)[0]) for number in range(1, 30)]
            assert 4_000 < max(sizes) <= 10_000
        if first < 40:
            await line.read()
    assert line.subscription.ring.first > 200
    await line.read()
    assert client.end == "slow"
    await line.close()
    line = await site.subscribe("raw", client)
    await line.read()
    assert client.table == await site.contents("raw")
    await line.close()
