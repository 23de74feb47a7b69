"""The connector ``csv``: what it reads when, what it refuses, and what a workflow file may say."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hs_stream.core.errors import ConfigurationError
from hs_stream.engine.ports import DeadLetter, Delivery, Source
from hs_stream.testing.check_source import check_source
from hs_stream_connectors.codecs import REASONS
from hs_stream_connectors.csv_source import CsvConnector, CsvSource

TIME = {"field": "t", "unit": "ms"}
FAST = {"time": TIME, "every": "100ms"}


def make(**options: Any) -> CsvSource:
    connector = CsvConnector()
    connector.plates("s", options)
    return connector.connect({"s": options})


class Taker:
    """Runs a source and keeps what it delivers."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.states: list[bool] = []

    async def deliver(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        delivery.ack()

    @property
    def readings(self) -> list[tuple[Mapping[str, str], int, object]]:
        return [(dict(r.meta), r.time, r.value) for delivery in self.deliveries for r in delivery.readings]

    @property
    def dead(self) -> list[DeadLetter]:
        return [letter for delivery in self.deliveries for letter in delivery.dead_letters]

    async def until(self, condition: Any, seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(source: CsvSource) -> AsyncIterator[Taker]:
    taker = Taker()
    task = asyncio.create_task(source.run(taker.deliver, taker.states.append))
    try:
        yield taker
        assert not task.done()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Harness:
    """Numbers are rows of one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.write_text("t,v\n", encoding="utf-8")

    def make(self) -> Source:
        return make(csv=str(self._path), **FAST)

    async def send(self, numbers: Sequence[int]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(f"{number * 1000},{number}\n" for number in numbers)

    async def interrupt(self) -> None:
        raise NotImplementedError


async def test_it_keeps_the_law_of_sources(tmp_path: Path) -> None:
    """But for sessions, of which files have none: each run begins at the beginning."""
    await check_source(Harness(tmp_path / "a.csv"), session=False)


async def test_files_per_plate_value_come_and_grow(tmp_path: Path) -> None:
    (tmp_path / "nz.csv").write_text("t,v\n1,10\n", encoding="utf-8")
    (tmp_path / "a=b.csv").write_text("t,v\n1,10\n", encoding="utf-8")
    source = make(csv=f"{tmp_path}/{{country}}.csv", **FAST)
    async with running(source) as taker:
        await taker.until(lambda: taker.states == [True])
        assert taker.readings == [({"country": "nz"}, 1, 10)]
        assert [(letter.reason, letter.topic) for letter in taker.dead] == [("plate_value", f"{tmp_path}/a=b.csv")]
        (tmp_path / "be.csv").write_text("t,v\n1,11\n", encoding="utf-8")
        with (tmp_path / "nz.csv").open("a", encoding="utf-8") as file:
            file.write("2,20\n3,3")
        await taker.until(lambda: len(taker.readings) == 4)
        assert taker.readings[1:3] == [({"country": "be"}, 1, 11), ({"country": "nz"}, 2, 20)]
        assert taker.readings[3] == ({"country": "nz"}, 3, 3)  # left alone for a while, so it is taken as it is
        with (tmp_path / "nz.csv").open("a", encoding="utf-8") as file:
            file.write("0\n")
        await taker.until(lambda: len(taker.readings) == 5)
        assert taker.readings[4] == ({"country": "nz"}, 3, 30)
    assert len(taker.dead) == 1


async def test_a_changed_file_is_read_again_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("t,v\n1,10\n2,20\n", encoding="utf-8")
    async with running(make(csv=str(path), **FAST)) as taker:
        await taker.until(lambda: len(taker.readings) == 2)
        path.write_text("t,v\n1,10\n2,21\n3,30\n", encoding="utf-8")
        await taker.until(lambda: len(taker.readings) == 5)
        assert [value for _, _, value in taker.readings[2:]] == [10, 21, 30]
        path.unlink()
        await asyncio.sleep(0.25)
        path.write_text("t,v\n1,10\n2,21\n3,30\n", encoding="utf-8")
        await taker.until(lambda: len(taker.readings) == 8)
        os.utime(path)  # touched, and the same
        await asyncio.sleep(0.25)
        assert len(taker.readings) == 8
    assert taker.states == [True]


async def test_columns_make_an_object_or_a_list_and_a_new_column_a_new_field(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("t,x,y\n1,-, -\n2,-9,21\n", encoding="utf-8")
    for options, values in (
        ({"list": ["y", "x"]}, [[None, None], [21, -9]]),
        ({"fields": ["y", "x"]}, [{}, {"y": 21, "x": -9}]),
        ({"value": "x"}, [None, -9]),
    ):
        async with running(make(csv=str(path), missing=["-"], **options, **FAST)) as taker:
            await taker.until(lambda taker=taker: taker.states == [True])
            assert [value for _, _, value in taker.readings] == values
    path.write_text("t,x,y\n1,10,\n2,20,21\n", encoding="utf-8")
    async with running(make(csv=str(path), list=["y", "x"], **FAST)) as taker:
        await taker.until(lambda: taker.states == [True])
        assert taker.readings == [({}, 1, [None, 10]), ({}, 2, [21, 20])]
    async with running(make(csv=str(path), **FAST)) as taker:
        await taker.until(lambda: taker.states == [True])
        assert taker.readings == [({}, 1, {"x": 10}), ({}, 2, {"x": 20, "y": 21})]
        path.write_text("t,x,y,z\n1,10,,12\n2,20,21,\n", encoding="utf-8")
        await taker.until(lambda: len(taker.readings) == 4)
        assert taker.readings[2:] == [({}, 1, {"x": 10, "z": 12}), ({}, 2, {"x": 20, "y": 21})]


async def test_what_cannot_be_used_is_a_dead_letter_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"t,v,room\n1,10,hall\nnoon,20,hall\n3\n4,\xff,hall\n5,50,a=b\n6,60,\n7,70,hall\n")
    source = make(csv=str(path), bind={"room": "room"}, **FAST)
    async with running(source) as taker:
        await taker.until(lambda: taker.states == [True])
    assert taker.readings == [({"room": "hall"}, 1, 10), ({"room": "hall"}, 7, 70)]
    assert [(letter.reason, letter.topic, letter.payload) for letter in taker.dead] == [
        ("time_invalid", f"{path}:3", b"noon,20,hall\n"),
        ("csv", f"{path}:4", b"3\n"),
        ("encoding", f"{path}:5", b"4,\xff,hall\n"),
        ("plate_value", f"{path}:6", b"5,50,a=b\n"),
        ("plate_value", f"{path}:7", b"6,60,\n"),
    ]
    assert all(letter.message.startswith(f"{path}:") for letter in taker.dead)
    assert {letter.reason for letter in taker.dead} <= REASONS
    # What the engine refuses later is found in the file again.
    assert taker.deliveries[0].origin(1) == (f"{path}:8", b"7,70,hall\n")


async def test_a_file_without_the_columns_waits_for_a_better_one(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("time,v\n1,10\n", encoding="utf-8")
    (tmp_path / "empty.csv").touch()
    async with running(make(csv=f"{tmp_path}/*.csv", value="v", **FAST)) as taker:
        await taker.until(lambda: taker.states == [True])
        await asyncio.sleep(0.25)
        assert [(letter.reason, letter.topic) for letter in taker.dead] == [("fields_missing", f"{path}:1")]
        assert "there is no column 't'" in taker.dead[0].message
        path.write_text("t,v\n1,10\n", encoding="utf-8")
        await taker.until(lambda: taker.readings == [({}, 1, 10)])


async def test_silence_proves_nothing_while_a_file_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.mkdir()
    async with running(make(csv=str(path), **FAST)) as taker:
        await taker.until(lambda: taker.states == [False])
        path.rmdir()
        await taker.until(lambda: taker.states == [False, True])
        path.write_text("t,v\n1,10\n", encoding="utf-8")
        await taker.until(lambda: taker.readings == [({}, 1, 10)])


async def test_links_do_not_lead_out_of_the_directory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    inside, outside = tmp_path / "in", tmp_path / "secret.csv"
    inside.mkdir()
    outside.write_text("t,v\n1,10\n", encoding="utf-8")
    (inside / "link.csv").symlink_to(outside)
    (inside / "own.csv").write_text("t,v\n2,20\n", encoding="utf-8")
    connector = CsvConnector(inside)
    options = {"csv": str(inside / "{name}.csv"), "time": {"field": "t", "unit": "ms"}}
    assert connector.plates("s", options) == ("name",)
    with pytest.raises(ConfigurationError, match="is not below") as caught:
        connector.plates("s", options | {"csv": str(inside / "../{name}.csv")})
    assert "files.directory" in caught.value.hint
    readings: list[Any] = []

    async def deliver(delivery: Any) -> None:
        readings.extend(delivery.readings)

    source = connector.connect({"s": options})
    task = asyncio.create_task(source.run(deliver, lambda _: None))
    async with asyncio.timeout(10):
        while not readings or "leads out of" not in caplog.text:
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [reading.time for reading in readings] == [2]


def test_options_say_where_plates_and_times_are() -> None:
    connector = CsvConnector()
    options = {"csv": "d/{country}/x.csv", "bind": {"city": "town"}, "time": {"field": "t"}, "fields": ["a"]}
    assert connector.plates("s", options) == ("country", "city")
    assert connector.plates("s", {"csv": "x.csv", "time": {"field": "t", "format": "%Y", "zone": "UTC"}}) == ()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "time names no column"),
        ({"time": "arrival"}, "time names no column"),
        ({"time": {"field": "t", "unit": "parsec"}}, "ms, s, us, ns"),
        ({"time": {"field": "t", "zone": "Mars"}}, "time.zone"),
        ({"time": {"field": "t", "format": "%Y", "unit": "ms"}}, "needs no unit"),
        ({"time": {"field": "t", "format": "%Q"}}, "time.format"),
        ({"time": TIME, "csv": 3}, "csv is not text"),
        ({"time": TIME, "csv": "{a b}"}, "not a plate's name"),
        ({"time": TIME, "value": ["a"]}, "value is not one column"),
        ({"time": TIME, "value": "a", "fields": ["b"]}, "fields is one thing and value another"),
        ({"time": TIME, "list": ["a"], "fields": ["b"]}, "list is one thing and fields another"),
        ({"time": TIME, "missing": "-"}, "missing is not a list of texts"),
        ({"time": TIME, "list": "a"}, "list is not a list of columns"),
        ({"time": TIME, "fields": "a"}, "fields is not a list"),
        ({"time": TIME, "bind": ["room"]}, "bind is not a mapping"),
        ({"time": TIME, "csv": "{room}.csv", "bind": {"room": "r"}}, "the path names it too"),
        ({"time": TIME, "every": "1ms"}, "every is shorter"),
        ({"time": TIME, "every": "often"}, "every"),
        ({"time": TIME, "delimiter": ";;"}, "delimiter is not one character"),
        ({"time": TIME, "codec": "json"}, "there is no key 'codec'"),
    ],
)
def test_options_that_are_wrong(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=r"source s|path|time") as caught:
        CsvConnector().plates("s", {"csv": "x.csv"} | options)
    assert words in str(caught.value)
