"""What a chart asks for, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from nicegui import Client, core, ui

from hs_stream.core.batch import Batch
from hs_stream.core.errors import StoreUnavailable
from hs_stream.core.kinds import Meaning
from hs_stream.core.stream import StreamId
from hs_stream.viewer.chart import LiveChart

if TYPE_CHECKING:
    from hs_stream.service.http.context import ApiContext

STREAM = StreamId("power")
NOW = 10_000_000


class _Engine:
    """The part of an engine that is asked, and takes its time for it."""

    def __init__(self) -> None:
        self.reads = 0
        self.broken = False
        self.meaning = Meaning()

    def find(self, stream: StreamId) -> SimpleNamespace:
        return SimpleNamespace(
            id=1, stream=stream, kind="raw", changes_before_newest=7, newest=NOW, meaning=self.meaning
        )

    async def read(
        self,
        _: StreamId,
        start: int,
        end: int,
        *,
        limit: int | None = None,
        newest: bool = False,
        budget: int | None = None,
    ) -> Batch:
        del limit, newest, budget
        self.reads += 1
        await asyncio.sleep(0.05)
        if self.broken:
            raise StoreUnavailable("gone")
        return Batch.of([(NOW - 1000, 1.0), (NOW, 2.0)]).slice(start, end)


@pytest.fixture
async def client(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    monkeypatch.setattr(core, "loop", asyncio.get_running_loop())
    client = Client(ui.page("/"))
    yield client
    if not client.is_deleted:
        client.delete()
    await asyncio.sleep(0.05)


def _chart(engine: _Engine, client: Client) -> LiveChart:
    context = SimpleNamespace(engine=engine, clock=SimpleNamespace(now=lambda: NOW))
    with client:
        return LiveChart(cast("ApiContext", context), [STREAM])


async def test_it_is_read_once_and_before_the_browser_has_connected(client: Client) -> None:
    engine = _Engine()
    chart = _chart(engine, client)
    await asyncio.sleep(0.01)
    assert engine.reads == 1
    await chart._tick()
    await asyncio.sleep(0.1)
    assert engine.reads == 1
    assert chart._plot.options["series"][0]["data"] == [[NOW - 1000, 1.0], [NOW, 2.0]]
    assert chart._note.text == "2 instances, each drawn."


async def test_what_cannot_be_read_is_said(client: Client) -> None:
    engine = _Engine()
    engine.broken = True
    chart = _chart(engine, client)
    await asyncio.sleep(0.1)
    assert chart._note.text == "cannot be read: gone"


async def test_a_page_that_was_left_is_not_drawn(client: Client) -> None:
    engine = _Engine()
    chart = _chart(engine, client)
    await asyncio.sleep(0.01)
    client.delete()
    await asyncio.sleep(0.1)
    assert chart._plot.options["series"][0]["data"] == []


async def test_the_axis_has_the_unit_of_all_or_each_line_its_own(client: Client) -> None:
    engine = _Engine()
    engine.meaning = Meaning("state", "W")
    chart = _chart(engine, client)
    await asyncio.sleep(0.1)
    assert chart._plot.options["yAxis"]["name"] == "W"
    assert chart._plot.options["series"][0]["name"] == "power"

    class Two(_Engine):
        def find(self, stream: StreamId) -> SimpleNamespace:
            self.meaning = Meaning(unit="W" if stream == STREAM else "°C")
            return super().find(stream)

    context = SimpleNamespace(engine=Two(), clock=SimpleNamespace(now=lambda: NOW))
    with client:
        both = LiveChart(cast("ApiContext", context), [STREAM, StreamId("heat")])
    await asyncio.sleep(0.2)
    assert both._plot.options["yAxis"]["name"] == ""
    assert [one["name"] for one in both._plot.options["series"][:2]] == ["power (W)", "heat (°C)"]
