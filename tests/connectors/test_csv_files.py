"""CSV files as readings: paths, columns, times, cells, and files that grow while they are read."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from hs_stream.core.errors import ConfigurationError, PayloadError
from hs_stream.core.time import to_ms
from hs_stream_connectors.csv_files import MOST_LINE, Columns, CsvFile, PathTemplate, Row, any_time, formatted_time

UTC_TIME = any_time(ZoneInfo("UTC"), "--tz ")
COLUMNS = Columns("t", int)


def rows_of(path: Path, columns: Columns = COLUMNS) -> list[Row]:
    return list(CsvFile(path, columns).rows())


def readings(rows: list[Row]) -> list[tuple[int, object]]:
    return [(row.time, row.value) for row in rows if row.error is None]


def reasons(rows: list[Row]) -> list[tuple[int, str]]:
    return [(row.line, row.error.reason) for row in rows if row.error is not None]


# --- paths ---


def test_a_path_binds_plates(tmp_path: Path) -> None:
    for name in ("nz-2015.csv", "nz-2016.csv", "be-2015.csv", "be.csv", "be-2015.txt"):
        (tmp_path / name).touch()
    template = PathTemplate(f"{tmp_path}/{{country}}-{{year}}.csv")
    assert template.names == ("country", "year")
    found = template.find()
    assert [path.name for path in found] == ["be-2015.csv", "nz-2015.csv", "nz-2016.csv"]
    assert template.bind(str(found[0])) == (("country", "be"), ("year", "2015"))
    assert template.bind(f"{tmp_path}/be.csv") is None
    with pytest.raises(PayloadError, match=r"plate country: .*'='"):
        template.bind(f"{tmp_path}/a=b-2015.csv")


def test_wildcards_and_characters_that_mean_something_elsewhere(tmp_path: Path) -> None:
    for name in ("a[1].csv", "a1.csv", "ab.csv", "b.csv"):
        (tmp_path / name).touch()
    assert [path.name for path in PathTemplate(f"{tmp_path}/a[1].csv").find()] == ["a[1].csv"]
    assert [path.name for path in PathTemplate(f"{tmp_path}/a?.csv").find()] == ["a1.csv", "ab.csv"]
    assert [path.name for path in PathTemplate(f"{tmp_path}/a*.csv").find()] == ["a1.csv", "a[1].csv", "ab.csv"]
    assert PathTemplate(f"{tmp_path}/none.csv").find() == []
    nested = tmp_path / "x" / "kitchen"
    nested.mkdir(parents=True)
    (nested / "t.csv").touch()
    template = PathTemplate(f"{tmp_path}/x/{{room}}/t.csv")
    assert [template.bind(str(path)) for path in template.find()] == [(("room", "kitchen"),)]


@pytest.mark.parametrize("text", ["", " ", "a/{b", "a/b}", "{a}{a}.csv", "{a b}.csv", "{}.csv", "{{a}}.csv"])
def test_what_is_no_path_template(text: str) -> None:
    with pytest.raises(ConfigurationError, match="path"):
        PathTemplate(text)


# --- rows ---


def test_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("t,a,b,room\n1,2,x,kitchen\n2,,y,hall\n", encoding="utf-8")
    assert readings(rows_of(path)) == [
        (1, {"a": 2, "b": "x", "room": "kitchen"}),
        (2, {"b": "y", "room": "hall"}),
    ]
    assert readings(rows_of(path, Columns("t", int, value="a"))) == [(1, 2), (2, None)]
    assert readings(rows_of(path, Columns("t", int, fields=("b",)))) == [(1, {"b": "x"}), (2, {"b": "y"})]
    bound = rows_of(path, Columns("t", int, plates=(("place", "room"),)))
    assert [(row.meta, row.value) for row in bound] == [
        ((("place", "kitchen"),), {"a": 2, "b": "x"}),
        ((("place", "hall"),), {"b": "y"}),
    ]
    one = rows_of(path, Columns("t", int, plates=(("place", "room"), ("kind", "b"))))
    assert [(row.meta, row.value) for row in one] == [
        ((("kind", "x"), ("place", "kitchen")), 2),
        ((("kind", "y"), ("place", "hall")), None),
    ]


def test_cells_keep_their_types(tmp_path: Path) -> None:
    cells = ["1", "1.0", "-0.0", "true", "FALSE", "null", "", "text", "9" * 25, "1_000", "nan", " 5 ", "1e3"]
    path = tmp_path / "a.csv"
    path.write_text("t,v\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells)), encoding="utf-8")
    values = [value for _, value in readings(rows_of(path))]
    nan = values.pop(10)
    assert nan != nan
    assert [(type(value), value) for value in values] == [
        (int, 1),
        (float, 1.0),
        (float, -0.0),
        (bool, True),
        (bool, False),
        (type(None), None),
        (type(None), None),
        (str, "text"),
        (float, 1e25),
        (str, "1_000"),
        (int, 5),
        (float, 1000.0),
    ]


def test_the_same_rows_as_the_csv_module_reads(tmp_path: Path) -> None:
    texts = ["plain", "with, comma", 'with "quotes"', "two\nlines", "crlf\r\ninside", "", "ümläut €", "x" * 3000]
    path = tmp_path / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["t", "a", "b"])
        writer.writerows([i, text, text] for i, text in enumerate(texts))
    with path.open(encoding="utf-8", newline="") as file:
        expected = [(int(row["t"]), row["a"]) for row in csv.DictReader(file)]
    assert [(time, value or "") for time, value in readings(rows_of(path, Columns("t", int, value="a")))] == expected
    found = rows_of(path, Columns("t", int, value="a"))
    assert b"".join(row.text for row in found) == path.read_bytes().partition(b"\r\n")[2]
    assert [row.line for row in found] == [2, 3, 4, 5, 8, 11, 12, 13]


def test_bad_rows_are_named_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(
        b"t,v\n1,1\nx,2\n3\n4,4,4\n\xff,5\n6,6\n\n8,"
        + b"y" * (MOST_LINE + 5)
        + b"\n9,9\n"
        + b'10,"'
        + b"z" * 200_000
        + b'"\n11,11'
    )
    rows = rows_of(path)
    assert readings(rows) == [(1, 1), (6, 6), (9, 9), (11, 11)]
    assert reasons(rows) == [
        (3, "time_invalid"),
        (4, "csv"),
        (5, "csv"),
        (6, "encoding"),
        (9, "too_large"),
        (11, "csv"),
    ]
    assert max(len(row.text) for row in rows) <= MOST_LINE


def test_headers(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbf"t";"v"\r\n1;2,5\r\n')
    assert readings(rows_of(path, Columns("t", int, delimiter=";"))) == [(1, "2,5")]
    path.write_text("t,v\n0,1,5\n1,2,6\n", encoding="utf-8")  # rows have a number that the header does not name
    assert readings(rows_of(path)) == [(1, 5), (2, 6)]
    for columns in (Columns("tt", int), Columns("t", int, value="w"), Columns("t", int, plates=(("p", "w"),))):
        with pytest.raises(ConfigurationError, match=r"a\.csv:1: there is no column '(tt|w)'"):
            rows_of(path, columns)
    path.write_bytes(b"")
    file = CsvFile(path, COLUMNS)
    assert list(file.rows()) == []
    assert file.header is None


# --- times ---


def test_any_time() -> None:
    instant = to_ms(datetime(2015, 2, 4, 17, 51, tzinfo=UTC))
    for text in (
        "2015-02-04T17:51:00Z",
        "2015-02-04 17:51:00",
        "2015-02-04T18:51:00+01:00",
        "1423072260",
        "1423072260000",
    ):
        assert UTC_TIME(text) == instant
    assert UTC_TIME("1423072260.25") == instant + 250
    assert UTC_TIME("-86400") == -86_400_000
    with pytest.raises(ValueError, match="has no offset: write --tz UTC or --tz Europe/Brussels"):
        any_time(None, "--tz ")("2015-02-04")
    for text in ("yesterday", "nan", "1e300", ""):
        with pytest.raises(ValueError, match="is not a time"):
            UTC_TIME(text)


def test_formatted_time() -> None:
    read = formatted_time("%YM%m", ZoneInfo("UTC"), "")
    assert read("2000M02") == to_ms(datetime(2000, 2, 1, tzinfo=UTC))
    local = formatted_time("%d.%m.%Y %H:%M", ZoneInfo("Europe/Brussels"), "")
    assert local("29.03.2015 01:30") == to_ms(datetime(2015, 3, 29, 0, 30, tzinfo=UTC))
    assert local("29.03.2015 03:30") == to_ms(datetime(2015, 3, 29, 1, 30, tzinfo=UTC))
    assert local("25.10.2015 02:30") == (1_445_733_000_000, 1_445_736_600_000)
    with pytest.raises(PayloadError, match="does not exist in Europe/Brussels"):
        local("29.03.2015 02:30")
    assert formatted_time("%d.%m.%Y", ZoneInfo("America/Havana"), "")("01.11.2026") == 1_793_505_600_000
    with pytest.raises(ValueError, match="'2000' is not a time in the form '%YM%m'"):
        read("2000")
    with pytest.raises(ConfigurationError, match=r"time\.format"):
        formatted_time("%Q", None, "")
    with pytest.raises(ValueError, match="has no offset: write zone: UTC"):
        formatted_time("%Y", None, "zone: ")("2000")


# --- files that grow ---


@pytest.mark.parametrize("whole", [False, True])
def test_fed_in_every_possible_cut(tmp_path: Path, whole: bool) -> None:
    """Whatever is there at a moment, in the end each row was read once, and nothing was read of a half row."""
    text = 't,v\r\n1,1\n2,"a\nb"\n\n3,"c""d"\nx,4\n5,ü\n'.encode()
    path = tmp_path / "a.csv"
    expected = [(1, 1), (2, "a\nb"), (3, 'c"d'), (5, "ü")]
    for cut in range(len(text) + 1):
        path.write_bytes(text[:cut])
        file = CsvFile(path, COLUMNS)
        before = list(file.rows(whole=False))
        assert readings(before) == expected[: len(readings(before))]
        if whole:
            offset = file.offset
            list(file.rows(whole=True))  # a last row without its end may be read, but does not count as read
            assert file.offset == offset
        path.write_bytes(text)
        assert file.continues()
        after = list(file.rows(whole=False))
        assert readings(before) + readings(after) == expected, cut
        assert reasons(before) + reasons(after) == [(7, "time_invalid")], cut
        assert file.offset == len(text)
        assert list(file.rows()) == []


def test_a_file_that_changed_does_not_continue(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("t,v\n1,1\n2,2\n", encoding="utf-8")
    file = CsvFile(path, COLUMNS)
    list(file.rows())
    path.write_text("t,v\n1,1\n2,2\n3,", encoding="utf-8")
    assert file.continues()
    path.write_text("t,v\n1,7\n2,2\n3,3\n", encoding="utf-8")
    assert not file.continues()
    path.write_text("t,v\n1,1\n", encoding="utf-8")
    assert not file.continues()
