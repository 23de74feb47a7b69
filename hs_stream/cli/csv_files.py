"""CSV in and out: rows to readings, instances to rows."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TextIO

import orjson

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.time import format_time, to_ms, zone
from hs_stream.core.value import Value
from hs_stream.service.json_values import encode
from hs_stream.service.yaml_items import did_you_mean

__all__ = ["CsvReadings", "CsvWriter", "Row"]

_MS_FROM: Final = 100_000_000_000
"""A whole number from here on is milliseconds (from 1973 on), below it is seconds (up to the year 5138)."""
_WORDS: Final = {"true": True, "false": False, "null": None, "none": None, "": None}
_LARGEST: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its line (from 1), and a reading or what is wrong with it."""

    line: int
    time: int = 0
    value: Value = None
    problem: str = ""


class CsvReadings:
    """The readings of a CSV file with a header.

    ``time``: the column of the event time: ISO 8601 (``tz`` for times without an offset), or a number since the epoch,
    in seconds or milliseconds by its size. ``values``: one column gives bare values, several give objects (empty cells
    are left out); without it every other column is taken. Cells are numbers, true, false, empty (``None``) or text.
    A header with one cell less than the rows is taken to lack the name of the first column (of row numbers).
    """

    def __init__(self, path: Path, time: str, values: Sequence[str] | None, tz: str | None) -> None:
        self.path = path
        self._time = time
        self._values = list(values) if values else None
        self._single = len(self._values or ()) == 1
        try:
            self._zone = zone(tz) if tz else None
        except ValueError as error:
            raise ConfigurationError(f"--tz: {error}") from None

    def __iter__(self) -> Iterator[Row]:
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                yield from self._rows(csv.reader(file))
        except OSError as error:
            raise ConfigurationError(f"cannot read {self.path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigurationError("this is not UTF-8 text", path=str(self.path)) from None

    def _rows(self, reader: Any) -> Iterator[Row]:
        header = next(reader, None)
        if not header:
            raise ConfigurationError("the file is empty", hint="the first line names the columns", path=str(self.path))
        first = True
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield Row(reader.line_num, problem=str(error))
                continue
            if cells is None:
                return
            if not cells:
                continue
            if first:
                first = False
                header = ["", *header] if len(cells) == len(header) + 1 else header
                self._check_columns(header)
            if len(cells) != len(header):
                yield Row(reader.line_num, problem=f"{len(cells)} cells, but the header has {len(header)}")
                continue
            yield self._row(reader.line_num, dict(zip(header, cells, strict=True)))

    def _check_columns(self, header: Sequence[str]) -> None:
        names = [name for name in header if name]
        for column in [self._time, *(self._values or [])]:
            if column not in names:
                raise ConfigurationError(
                    f"there is no column {column!r}", hint=did_you_mean(column, names), path=str(self.path), line=1
                )
        if self._values is None:
            self._values = [name for name in names if name != self._time]
            self._single = len(self._values) == 1

    def _row(self, line: int, cells: dict[str, str]) -> Row:
        try:
            time = self._instant(cells[self._time].strip())
        except ValueError as error:
            return Row(line, problem=str(error))
        columns = self._values or []
        if self._single:
            return Row(line, time, _cell(cells[columns[0]]))
        return Row(line, time, {name: _cell(cells[name]) for name in columns if cells[name].strip()})

    def _instant(self, text: str) -> int:
        try:
            number = float(text)
        except ValueError:
            pass
        else:
            if number != number or abs(number) > _LARGEST:
                raise ValueError(f"{text!r} is not a time")
            whole = text.lstrip("-").isdigit()
            return int(text) if whole and abs(number) >= _MS_FROM else round(number * 1000)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a time: ISO 8601, or seconds or milliseconds since the epoch") from None
        if moment.tzinfo is None:
            if self._zone is None:
                raise ValueError(f"{text!r} has no offset: give --tz UTC or --tz Europe/Brussels")
            moment = moment.replace(tzinfo=self._zone)
        return to_ms(moment)


def _cell(text: str) -> Value:
    text = text.strip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if kind is float or -_LARGEST <= number < _LARGEST:
            return number if "_" not in text else text
    return text


class CsvWriter:
    """Rows ``time,value`` or, for objects, ``time`` and one column per key. ``columns`` are the keys, or ``None``."""

    def __init__(self, file: TextIO, columns: Sequence[str] | None) -> None:
        self._writer = csv.writer(file, lineterminator="\n")
        self._columns = columns
        self._writer.writerow(["time", *(columns or ["value"])])

    def write(self, time: int, value: Value) -> None:
        """One instance. Lists, objects inside of objects and special values are JSON."""
        if self._columns is None:
            cells = [_text(value)]
        else:
            cells = [_text(value.get(name)) for name in self._columns] if isinstance(value, dict) else []
        self._writer.writerow([format_time(time), *cells])


def _text(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, (str, int)):
        return str(value)
    return orjson.dumps(encode(value)).decode()
