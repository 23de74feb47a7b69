"""Instances as rows of a CSV file. Rows as readings: `hs_stream_connectors.csv_files`."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

import orjson

from hs_stream.core.time import format_time
from hs_stream.core.value import Value
from hs_stream.service.json_values import encode
from hs_stream_connectors.csv_files import spreadsheet_safe

__all__ = ["CsvWriter", "write_rows"]


class CsvWriter:
    """Rows ``time, plate values, value`` or, for objects, with one column per key instead of ``value``.

    A text that a spreadsheet would take for a formula begins with ``'``, which it shows as that text.
    ``columns`` are the keys, or ``None``; ``plates`` the plates that have a column.
    """

    def __init__(self, file: TextIO, columns: Sequence[str] | None, plates: Sequence[str] = ()) -> None:
        self._writer = csv.writer(file, lineterminator="\n")
        self._columns = columns
        self._writer.writerow(["time", *plates, *(["value"] if columns is None else columns)])

    def write(self, time: int, value: Value, plate_values: Sequence[str] = ()) -> None:
        """One instance. Lists, objects inside of objects and special values are JSON."""
        if self._columns is None:
            cells = [_text(value)]
        else:
            cells = [_text(value.get(name)) for name in self._columns] if isinstance(value, dict) else []
        self._writer.writerow([format_time(time), *map(spreadsheet_safe, plate_values), *cells])


def write_rows(file: TextIO, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table with a header. Texts are as in `CsvWriter`."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([spreadsheet_safe(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)


def _text(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        return spreadsheet_safe(value)
    if isinstance(value, int):
        return str(value)
    return orjson.dumps(encode(value)).decode()
