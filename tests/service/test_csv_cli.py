"""CSV files of many plate values in and out, and as a source of the running service."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from hs_stream.cli import app

pytestmark = pytest.mark.usefixtures("in_site")


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
    return result


def refused(*arguments: str) -> str:
    lines = run(*arguments, code=2).stderr.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def instances(stream: str) -> list[tuple[str, Any]]:
    return [(row["time"], row["value"]) for row in json.loads(run("query", stream, "--format", "json").stdout)]


@pytest.fixture
def climate(in_site: Any) -> None:
    """Monthly temperatures of two countries, a file each."""
    Path("data").mkdir()
    for country, offset in (("nz", 10), ("be", 20)):
        rows = "".join(f"2000M{month:02},{offset + month}.5,{month}\n" for month in range(1, 4))
        Path(f"data/{country}.csv").write_text(f"Date,Max,Min\n{rows}", encoding="utf-8")


IMPORT = ("import", "data/{country}.csv", "--stream", "temp[country={country}]", "--time", "Date", "--new")
FORM = ("--time-format", "%YM%m", "--tz", "UTC")


def test_a_plate_value_never_chooses_the_directory() -> None:
    Path("in.csv").write_text("time,t\n2020-01-01T00:00:00Z,1\n", encoding="utf-8")
    run("import", "in.csv", "--stream", "t[room=../../outside]", "--time", "time", "--new")
    words = refused("export", "t", "out/{room}.csv")
    assert "t[room=../../outside] cannot be a file" in words
    assert "leave {room} out of FILE: it is a column then" in words
    assert not Path("../outside.csv").exists()
    run("export", "t", "out.csv")
    assert "../../outside" in Path("out.csv").read_text(encoding="utf-8")


def test_no_cell_is_a_formula_and_texts_come_back() -> None:
    texts = ["=1+1", "@x", "-12.5 W", "+x", "'quoted", "it's", "-x"]
    rows = "".join(f"2020-01-01T00:00:{second:02}Z,{text}\n" for second, text in enumerate(texts))
    Path("in.csv").write_text(f"time,t\n{rows}", encoding="utf-8")
    run("import", "in.csv", "--stream", "words", "--time", "time", "--new")
    assert [value for _, value in instances("words")] == texts
    run("export", "words", "out.csv")
    lines = Path("out.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert [line.split(",", 1)[1] for line in lines] == ["'=1+1", "'@x", "'-12.5 W", "'+x", "''quoted", "it's", "'-x"]
    run("import", "out.csv", "--stream", "again", "--time", "time", "--new")
    assert instances("again") == instances("words")


@pytest.mark.usefixtures("climate")
def test_a_file_per_plate_value_in_and_out() -> None:
    assert "6 readings to temp[country={country}]" in run(*IMPORT, *FORM).stdout
    assert instances("temp[country=nz]")[0] == ("2000-01-01T00:00:00Z", {"Max": 11.5, "Min": 1})
    result = run("export", "temp", "out/{country}.csv")
    assert "6 instances to 2 files" in result.stderr
    text = Path("out/be.csv").read_text(encoding="utf-8")
    assert text.splitlines()[:2] == ["time,Max,Min", "2000-01-01T00:00:00Z,21.5,1"]
    again = "copy[land={country}]"
    run("import", "out/{country}.csv", "--stream", again, "--time", "time", "--new")
    assert instances("copy[land=be]") == instances("temp[country=be]")


@pytest.mark.usefixtures("climate")
def test_a_column_per_plate_in_and_out() -> None:
    run(*IMPORT, *FORM, "--value", "Max")
    run("export", "temp", "all.csv")
    with Path("all.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[:2] == [["time", "country", "value"], ["2000-01-01T00:00:00Z", "be", "21.5"]]
    assert len(rows) == 7
    run("import", "all.csv", "--stream", "copy[country={country},kind=max]", "--time", "time", "--new")
    assert instances("copy[country=nz,kind=max]") == instances("temp[country=nz]")
    run("export", "temp[country=nz]", "one.csv")
    assert Path("one.csv").read_text(encoding="utf-8").splitlines()[:2] == ["time,value", "2000-01-01T00:00:00Z,11.5"]


@pytest.mark.usefixtures("climate")
def test_rows_of_all_files_are_counted_and_named() -> None:
    Path("data/be.csv").write_text("Date,Max,Min\n2000M01,1,2\n2000X02,1,2\n", encoding="utf-8")
    result = run(*IMPORT, *FORM, code=1)
    assert "4 readings to temp[country={country}], 1 rows not usable" in result.stdout
    assert "data/be.csv:3: '2000X02' is not a time in the form '%YM%m'" in result.stderr
    Path("data/a=b.csv").write_text("Date,Max\n2000M01,1\n", encoding="utf-8")
    assert "data/a=b.csv: plate country: a plate value holds '='" in run(*IMPORT, *FORM, code=1).stderr


def test_delimiters_and_wildcards() -> None:
    for name in "ab":
        Path(f"{name}.csv").write_text(f"t;v\n{1 if name == 'a' else 2};3\n", encoding="utf-8")
    run("import", "?.csv", "--stream", "x", "--time", "t", "--delimiter", ";", "--new")
    assert instances("x") == [("1970-01-01T00:00:01Z", 3), ("1970-01-01T00:00:02Z", 3)]


def test_local_times_of_the_night_in_which_clocks_go_back() -> None:
    labels = ["01:30", "02:00", "02:30", "02:00", "02:30", "03:00"]
    rows = "".join(f"25.10.2015 {label},{index}\n" for index, label in enumerate(labels))
    Path("night.csv").write_text(f"t,v\n{rows}29.03.2015 02:30,9\n", encoding="utf-8")
    where = ("--tz", "Europe/Brussels", "--time-format", "%d.%m.%Y %H:%M")
    result = run("import", "night.csv", "--stream", "x", "--time", "t", "--new", *where, code=1)
    assert [time[11:16] for time, _ in instances("x")] == ["23:30", "00:00", "00:30", "01:00", "01:30", "02:00"]
    assert [value for _, value in instances("x")] == [0, 1, 2, 3, 4, 5]
    assert "night.csv:8: the time '29.03.2015 02:30' does not exist in Europe/Brussels" in result.stderr
    assert "write --tz Etc/GMT-1 if its clock keeps UTC+1h all year" in result.stderr


@pytest.mark.usefixtures("climate")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("import", "none/{country}.csv", "--stream", "t[country={country}]", "--time", "t"), "no file matches none/"),
        (("import", "data/{country}.csv", "--stream", "t", "--time", "t"), "write t[country={country}], or *"),
        (("import", "data/{c c}.csv", "--stream", "t", "--time", "t"), "is not a plate's name"),
        (("import", "data/nz.csv", "--stream", "t", "--time", "date"), "data/nz.csv:1: there is no column 'date'"),
        (("import", "data/nz.csv", "--stream", "t", "--time", "Date", "--time-format", "%Q"), "time.format"),
        (("import", "data/nz.csv", "--stream", "t", "--time", "Date", "--tz", "Mars"), "--tz"),
        (("import", "data/nz.csv", "--stream", "t", "--time", "Date", "--delimiter", ";;"), "--delimiter is one"),
        (("import", "data/nz.csv", "--stream", "t[p={Place}]", "--time", "Date"), "there is no column 'Place'"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], words: str) -> None:
    assert words in refused(*arguments, "--new")


@pytest.mark.usefixtures("climate")
def test_exports_that_cannot_be() -> None:
    run(*IMPORT, *FORM)
    assert "is not on the plate 'city' (it is on country)" in refused("export", "temp", "{city}.csv")
    assert "did you mean temp[country=" in refused("export", "tmp", "x.csv")
    run("import", "data/nz.csv", "--stream", "odd[Max=1]", "--time", "Date", "--new", *FORM)
    run("import", "data/nz.csv", "--stream", "odd[Max=2]", "--time", "Date", "--new", *FORM)
    assert "two columns would be called 'Max'" in refused("export", "odd", "x.csv")
    assert not Path("x.csv").exists()


SOURCE = """\
workflow: climate
plates: {country: {}}
sources:
  temp:
    csv: "data/{country}.csv"
    time: {field: Date, format: "%YM%m", zone: UTC}
    value: Max
    every: 200ms
nodes:
  smooth: {tool: sliding_mean@^1, from: temp, with: {width: 61d}}
"""


async def test_files_as_a_source_of_the_service(site: Any, climate: None) -> None:
    (site.directory / "comfort.yaml").write_text(SOURCE, encoding="utf-8")
    file = site.directory / "data" / "be.csv"
    service = await site.start("serve")

    def values(answer: Any) -> list[float]:
        return [item["value"] for item in answer["instances"]]

    await service.until("/api/streams?name=smooth", lambda answer: len(answer["streams"]) == 2)
    [be] = [s["id"] for s in service.ask("/api/streams?name=smooth")["streams"] if s["meta"] == {"country": "be"}]
    path = f"/api/streams/{be}/instances"
    await service.until(path, lambda answer: values(answer) == [21.5, 22.0, 22.5])
    file.write_text(file.read_text(encoding="utf-8") + "2000M04,24.5,4\nnever,0,0\n", encoding="utf-8")
    await service.until(path, lambda answer: values(answer) == [21.5, 22.0, 22.5, 23.5])
    file.write_text("Date,Max,Min\n2000M01,0,0\n2000M02,22.5,2\n", encoding="utf-8")
    await service.until(path, lambda answer: values(answer)[:2] == [0.0, 11.25])
    letters = service.ask("/api/deadletters")
    [letter] = letters["dead_letters"] if isinstance(letters, dict) else letters
    assert (letter["reason"], letter["topic"]) == ("time_invalid", "data/be.csv:6")
    service.process.terminate()
    code, errors = await service.end()
    assert code == 0, errors
