"""CSV files as readings: which files a path names, which columns count, and what is read of a file that grows.

1. A `PathTemplate` names files; ``{name}`` in it binds a plate: ``data/{country}.csv``.
2. The first line of a file names its columns. `Columns` say which of them are the time, the value and plate values.
3. A row becomes one reading, or a `PayloadError` that says why not. Nothing in a row ever ends the reading of a file.
   Of a local time that occurs twice, the rows before it tell which is meant (`codecs.local`).
4. `CsvFile` goes on after the last row that it read. Only rows with an end of line count as read, because whoever
   writes the file may not be done with the last one.
"""

from __future__ import annotations

import csv
import difflib
import glob
import hashlib
import math
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final
from zoneinfo import ZoneInfo

from hs_stream.core.errors import ConfigurationError, PayloadError
from hs_stream.core.stream import Meta, check_plate_value
from hs_stream.core.time import to_ms
from hs_stream.core.value import Value
from hs_stream_connectors.codecs.local import RowOrder, Twice, passes, twice_error
from hs_stream_connectors.codecs.times import is_date

__all__ = ["Columns", "CsvFile", "Instant", "PathTemplate", "Row", "any_time", "formatted_time", "spreadsheet_safe"]

MOST_LINE: Final = 1 << 20
"""Bytes of a line that are read at most."""
_BLOCK: Final = 1 << 20
_MS_FROM: Final = 100_000_000_000
"""A whole number from here on is milliseconds (from 1973 on), below it is seconds (up to the year 5138)."""
_WORDS: Final = {"true": True, "false": False, "null": None, "none": None, "": None}
_LARGEST: Final = 1 << 63
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "'")
_NUMBER: Final = re.compile(r"[+-]?[0-9.][0-9.eE+-]*")
_PART: Final = re.compile(r"\{([^{}]*)\}|(\*)|(\?)")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


# --- files ---


class PathTemplate:
    """A path whose parts may be named: ``{name}`` binds a plate, ``*`` and ``?`` match any part of one directory level.

    >>> PathTemplate("data/{country}-{year}.csv").bind("data/nz-2015.csv")
    (('country', 'nz'), ('year', '2015'))
    """

    def __init__(self, text: str) -> None:
        self.text = text
        pattern, expression, names, at = "", "", list[str](), 0
        for match in _PART.finditer(text):
            literal = text[at : match.start()]
            at = match.end()
            pattern += glob.escape(literal) + (match.group(3) or "*")
            expression += re.escape(literal)
            name = match.group(1)
            if name is None:
                expression += "[^/]" if match.group(3) else "[^/]*"
                continue
            if not _NAME.fullmatch(name) or name in names:
                why = "is named twice" if name in names else "is not a plate's name"
                raise ConfigurationError(f"path {text!r}: {name!r} {why}", hint="write for example data/{country}.csv")
            names.append(name)
            expression += f"(?P<{name}>[^/]+)"
        if not text.strip() or {"{", "}"} & set(_PART.sub("", text)):
            raise ConfigurationError(
                f"path {text!r} is not a path template", hint="write for example data/{country}.csv"
            )
        self._pattern = pattern + glob.escape(text[at:])
        self._expression = re.compile(expression + re.escape(text[at:]))
        self.names = tuple(names)

    def bind(self, path: str) -> Meta | None:
        """The plate values in ``path``, ``None`` if it does not match. `PayloadError` for a value that is none."""
        match = self._expression.fullmatch(path)
        if match is None:
            return None
        for name, value in match.groupdict().items():
            _plate_value(name, value)
        return tuple(sorted(match.groupdict().items()))

    def find(self) -> list[Path]:
        """The files that are there now, sorted."""
        if self._pattern == glob.escape(self.text):
            return [Path(self.text)] if Path(self.text).exists() else []
        return [Path(name) for name in sorted(glob.glob(self._pattern)) if self._expression.fullmatch(name)]  # noqa: PTH207 - the pattern may be absolute


def _plate_value(plate: str, value: str) -> str:
    try:
        return check_plate_value(value)
    except ValueError as error:
        raise PayloadError("plate_value", f"plate {plate}: {error}") from None


# --- times ---


Instant = Callable[[str], int | Twice]
"""Reads a cell: ms, or both passes of a local time that occurs twice. Raises ``ValueError`` or `PayloadError`."""

_TIME_OF_DAY: Final = re.compile(r"%[-_#]?[HIcXTRrs]")


def any_time(zone: ZoneInfo | None, key: str) -> Instant:
    """Reads ISO 8601, and numbers since the epoch: seconds or milliseconds by their size.

    ``zone`` is that of times without an offset; without one, they are an error. ``key`` is how a user writes a zone,
    such as ``zone: ``.
    """

    def instant(text: str) -> int | Twice:
        try:
            number = float(text)
        except ValueError:
            pass
        else:
            if not math.isfinite(number) or abs(number) > _LARGEST:
                raise ValueError(f"{text!r} is not a time")
            whole = text.lstrip("-").isdigit()
            return int(text) if whole and abs(number) >= _MS_FROM else round(number * 1000)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a time: ISO 8601, or seconds or milliseconds since the epoch") from None
        return _with_zone(moment, text, zone, key, day=is_date(text))

    return instant


def formatted_time(form: str, zone: ZoneInfo | None, key: str) -> Instant:
    """Reads times in the form ``form`` of ``datetime.strptime``. ``zone`` and ``key`` as in `any_time`."""
    try:
        datetime.strptime(datetime(2000, 1, 2).strftime(form), form)  # noqa: DTZ001, DTZ007 - only tried
    except ValueError as error:
        raise ConfigurationError(f"time.format: {error}", hint="write for example '%d.%m.%Y %H:%M'") from None
    day = not _TIME_OF_DAY.search(form)

    def instant(text: str) -> int | Twice:
        try:
            moment = datetime.strptime(text, form)  # noqa: DTZ007 - _with_zone sees to it
        except ValueError:
            raise ValueError(f"{text!r} is not a time in the form {form!r}") from None
        return _with_zone(moment, text, zone, key, day=day)

    return instant


def _with_zone(moment: datetime, text: str, zone: ZoneInfo | None, key: str, *, day: bool) -> int | Twice:
    if moment.tzinfo is not None:
        return to_ms(moment)
    if zone is None:
        raise ValueError(f"{text!r} has no offset: write {key}UTC or {key}Europe/Brussels")
    return passes(moment, text, zone, day=day, arrival=None, key=key)


# --- rows ---


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns are what.

    ``instant`` reads the cell of the column ``time``; it raises ``ValueError`` or `PayloadError`. ``value``: the column
    of a bare value. ``fields``: the columns of an object, in which empty cells are left out, or with ``as_list`` those
    of a list, in which they are ``None``. Without either, all other columns are the value: one as a bare value, several
    as an object. ``plates``: per plate the column of its values. ``missing``: texts that stand for an empty cell.
    """

    time: str
    instant: Instant
    value: str | None = None
    fields: tuple[str, ...] | None = None
    plates: tuple[tuple[str, str], ...] = ()
    delimiter: str = ","
    as_list: bool = False
    missing: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file: where it began (lines from 1), its text, and a reading or what is wrong with it."""

    line: int
    text: bytes
    meta: Meta = ()
    time: int = 0
    value: Value = None
    error: PayloadError | None = None


class CsvFile:
    """The rows of one file (rules 2 to 4). ``meta``: the plate values in its path; ``header``: once it was read."""

    def __init__(self, path: Path, columns: Columns, meta: Meta = ()) -> None:
        self.path = path
        self.header: list[str] | None = None
        self.offset = 0
        self._columns = columns
        self.meta = meta
        self._lines = 0
        self._digest = hashlib.blake2b()
        self._layout: _Layout | None = None
        self._order = RowOrder()

    def rows(self, *, whole: bool = True) -> Generator[Row]:
        """The rows after those that were read. ``whole``: also a last one without an end of line.

        Raises ``OSError``, and `ConfigurationError` when the first line does not have the columns.
        """
        with self.path.open("rb") as file:
            file.seek(self.offset)
            lines = _Lines(file, self._digest, first=self.offset == 0)
            reader = csv.reader(lines, delimiter=self._columns.delimiter)
            while True:
                lines.begin()
                self._order.begin()
                error: PayloadError | None = None
                cells: list[str] | None = []
                try:
                    cells = next(reader, None)
                except csv.Error as problem:
                    error = PayloadError("csv", str(problem))
                except PayloadError as problem:
                    error = problem
                if not lines.text or not (whole or lines.complete):
                    return
                known = self.header, self._layout
                row = self._row(self._lines + 1, bytes(lines.text), cells or [], error)
                if lines.complete:
                    self.offset += lines.size
                    self._lines += lines.count
                    self._digest = lines.digest
                else:
                    self.header, self._layout = known
                    self._order.take_back()
                if row is not None:
                    yield row

    def continues(self) -> bool:
        """Whether the file still begins with what was read of it. Raises ``OSError``."""
        digest, left = hashlib.blake2b(), self.offset
        with self.path.open("rb") as file:
            while left and (block := file.read(min(left, _BLOCK))):
                digest.update(block)
                left -= len(block)
        return not left and digest.digest() == self._digest.digest()

    def _row(self, line: int, text: bytes, cells: list[str], error: PayloadError | None) -> Row | None:
        if error is not None:
            return Row(line, text, error=error)
        if not cells:
            return None
        if self.header is None:
            _check_header(cells, self._columns, self.path)
            self.header = cells
            return None
        if self._layout is None:
            # A header with one cell less than the rows lacks the name of the first column, that of row numbers.
            header = ["", *self.header] if len(cells) == len(self.header) + 1 else self.header
            self._layout = _Layout(header, self._columns)
        try:
            meta, found, value = self._layout.read(cells)
        except PayloadError as problem:
            return Row(line, text, error=problem)
        except ValueError as problem:
            return Row(line, text, error=PayloadError("time_invalid", str(problem)))
        meta = tuple(sorted((*self.meta, *meta))) if meta else self.meta
        time = self._order.place(meta, found)
        if time is None:
            assert not isinstance(found, int)
            why = "the rows before do not tell which, as they are not in the order of time"
            return Row(line, text, error=twice_error(self._layout.time_of(cells), found, why, "write UTC"))
        return Row(line, text, meta, time, value)


class _Lines:
    """Decoded lines of a file, and what was taken of it since `begin`.

    ``text``: the bytes of the lines, of a line that is too long only the first. ``complete``: the last of them has its
    end, and there was no need for one more.
    """

    def __init__(self, file: BinaryIO, digest: hashlib.blake2b, *, first: bool) -> None:
        self._file = file
        self._first = first
        self.digest = digest
        self.text = bytearray()
        self.size = self.count = 0
        self.complete = False

    def begin(self) -> None:
        """A row begins."""
        self.digest = self.digest.copy()
        self.text = bytearray()
        self.size = self.count = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._take(MOST_LINE)
        if not line:
            self.complete = False
            raise StopIteration
        self.count += 1
        self.text += line
        if len(line) == MOST_LINE and not self.complete:
            while not self.complete and self._take(MOST_LINE):
                pass
            raise PayloadError("too_large", f"a line has more than {MOST_LINE} bytes")
        encoding = "utf-8-sig" if self._first else "utf-8"
        self._first = False
        try:
            return line.decode(encoding)
        except UnicodeDecodeError as error:
            raise PayloadError("encoding", f"this is not UTF-8 text: {error.reason} at byte {error.start}") from None

    def _take(self, most: int) -> bytes:
        part = self._file.readline(most)
        self.size += len(part)
        self.digest.update(part)
        self.complete = part.endswith(b"\n")
        return part


class _Layout:
    """Where in a row everything is."""

    def __init__(self, header: Sequence[str], columns: Columns) -> None:
        self._width = len(header)
        self._instant = columns.instant
        self._time = header.index(columns.time)
        self._plates = [(plate, header.index(column)) for plate, column in columns.plates]
        taken = {columns.time, *(column for _, column in columns.plates)}
        others = [name for name in header if name and name not in taken]
        names = [columns.value] if columns.value else [*columns.fields] if columns.fields else others
        self._values = [(name, header.index(name)) for name in names]
        self._bare = bool(columns.value) or (columns.fields is None and len(names) == 1)
        self._as_list = columns.as_list
        self._missing = columns.missing

    def time_of(self, cells: Sequence[str]) -> str:
        """The cell with the time."""
        return cells[self._time].strip()

    def read(self, cells: Sequence[str]) -> tuple[Meta, int | Twice, Value]:
        """Plate values, time or both passes of it, and value. `PayloadError`, or ``ValueError`` for the time."""
        if len(cells) != self._width:
            raise PayloadError("csv", f"{len(cells)} cells, but the header has {self._width}")
        if self._missing:
            cells = ["" if cell.strip() in self._missing else cell for cell in cells]
        meta = tuple([(plate, _plate_value(plate, _as_written(cells[at].strip()))) for plate, at in self._plates])
        time = self._instant(self.time_of(cells))
        if self._bare:
            return meta, time, _cell(cells[self._values[0][1]])
        if self._as_list:
            return meta, time, [_cell(cells[at]) for _, at in self._values]
        return meta, time, {name: _cell(cells[at]) for name, at in self._values if cells[at].strip()}


def _check_header(header: Sequence[str], columns: Columns, path: Path) -> None:
    names = [name for name in header if name]
    for column in (
        columns.time,
        *filter(None, [columns.value]),
        *(columns.fields or ()),
        *dict(columns.plates).values(),
    ):
        if column not in names:
            close = difflib.get_close_matches(column, names, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there is {', '.join(names)}"
            raise ConfigurationError(f"there is no column {column!r}", hint=hint, path=str(path), line=1)


def spreadsheet_safe(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: ``'`` goes before such a text, and is taken away at reading.

    >>> spreadsheet_safe("=1+1"), spreadsheet_safe("-12.5"), spreadsheet_safe("kitchen")
    ("'=1+1", '-12.5', 'kitchen')
    """
    return f"'{text}" if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text


def _as_written(text: str) -> str:
    """The reverse of `spreadsheet_safe`."""
    return text[1:] if text[:1] == "'" and text.startswith(_FORMULA, 1) else text


def _cell(text: str) -> Value:
    text = text.strip()
    if text[:1] == "'":
        return _as_written(text)
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
