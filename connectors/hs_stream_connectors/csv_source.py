"""The connector for the key ``csv`` of a source: files are read at the start, and again where they change.

HyperStream's ``csv_reader`` and ``csv_multi_reader`` are sources here and not tools, because a tool may not read a file
that changes.

1. At the start, every file is read from its beginning. A reading is known by its stream and time, so what is stored
   already changes nothing.
2. Every ``every``, files are looked at: of one that only grew, the new rows are read; one that changed otherwise is
   read as a whole. A row that is gone from a file stays a reading.
3. A last row without an end of line is read when its file was left alone for ``every``.
4. A row that is no reading is a dead letter with its file and line. So is a file without the columns that the source
   names; it is tried again when it changes.
5. Silence means that there was nothing more once every file was read, and while every file that is there can be read.
6. The value of a reading: ``value: COLUMN`` is that cell, ``fields: [COLUMN, COLUMN]`` an object without its empty
   cells, ``list: [COLUMN, COLUMN]`` a list with ``None`` for them. Without these, all columns but that of the time are:
   so a column that a file gains is a field that its readings gain. ``missing: ["-", NA]``: texts for an empty cell.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from hs_stream.core.errors import ConfigurationError, PayloadError
from hs_stream.core.time import parse_duration
from hs_stream.engine.ports import DeadLetter, Delivery, Reading
from hs_stream_connectors.codecs.base import TimeSpec
from hs_stream_connectors.csv_files import Columns, CsvFile, Instant, PathTemplate, Row, formatted_time

__all__ = ["CsvConnector", "CsvSource", "CsvSpec", "check_below"]

_LOG: Final = logging.getLogger(__name__)
_KEYS: Final = ("csv", "time", "value", "fields", "list", "bind", "delimiter", "missing", "every")
_ROUND: Final = 2_000
_MOST_PAYLOAD: Final = 64 * 1024
_EVERY: Final = 5_000
_SHORTEST: Final = 100


@dataclass(frozen=True, slots=True)
class CsvSpec:
    """One source of a workflow: its files, what their columns mean, and how often they are looked at (ms)."""

    name: str
    template: PathTemplate
    columns: Columns
    every: int = _EVERY


class CsvConnector:
    """Sources such as ``{csv: "data/{country}.csv", time: {field: date, format: "%Y-%m-%d", zone: UTC}}``.

    ``directory``: only files in it or below are read, whatever links lead elsewhere; without one, any.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory

    def reads(self, options: Mapping[str, Any]) -> str:
        """The path of the files that a source names: see `hs_stream.service.connectors.ReadsFiles`."""
        return str(options["csv"])

    def plates(self, source: str, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The names in the path, and those that ``bind`` takes from columns."""
        spec = _spec(source, options)
        if self._directory is not None:
            check_below(self._directory, spec.template.text, f"source {source}: csv")
        return (*spec.template.names, *(plate for plate, _ in spec.columns.plates))

    def connect(self, sources: Mapping[str, Mapping[str, Any]]) -> CsvSource:
        """One source that reads the files of all of them."""
        specs = [_spec(name, options) for name, options in sources.items()]
        return CsvSource("csv", specs, directory=self._directory)


def check_below(directory: Path, path: str, what: str) -> None:
    """`ConfigurationError` where ``path`` leads out of ``directory``; links count at reading."""
    root = os.path.abspath(directory)  # noqa: PTH100 - without following links
    if os.path.commonpath((root, os.path.abspath(path))) != root:  # noqa: PTH100
        raise ConfigurationError(
            f"{what}: {path} is not below {directory}, the only directory that files are read from",
            hint="move the file there, or change files.directory in the settings of the service",
        )


def _spec(name: str, options: Mapping[str, Any]) -> CsvSpec:
    def wrong(key: str, what: str, hint: str) -> ConfigurationError:
        return ConfigurationError(f"source {name}: {key} {what}", hint=hint)

    for key in options:
        if key not in _KEYS:
            raise ConfigurationError(f"source {name}: there is no key {key!r}", hint=f"the keys are {', '.join(_KEYS)}")
    path, value = options["csv"], options.get("value")
    if not isinstance(path, str):
        raise wrong("csv", "is not text", 'write csv: "data/{country}.csv"')
    shapes = [key for key in ("value", "fields", "list") if options.get(key) is not None]
    if len(shapes) > 1:
        raise wrong(shapes[1], f"is one thing and {shapes[0]} another", "write one of value, fields and list")
    if value is not None and not isinstance(value, str):
        raise wrong("value", "is not one column", "write value: COLUMN, or fields: [COLUMN, COLUMN]")
    shape = "list" if "list" in shapes else "fields"
    fields = options.get(shape)
    if fields is not None and not (isinstance(fields, list) and fields and all(isinstance(it, str) for it in fields)):
        raise wrong(shape, "is not a list of columns", f"write {shape}: [COLUMN, COLUMN]")
    delimiter = options.get("delimiter", ",")
    if not (isinstance(delimiter, str) and len(delimiter) == 1 and delimiter not in '"\r\n'):
        raise wrong("delimiter", "is not one character", 'write delimiter: ";"')
    missing = options.get("missing", [])
    if not (isinstance(missing, list) and all(isinstance(text, str) for text in missing)):
        raise wrong("missing", "is not a list of texts", 'write missing: ["-", NA]')
    bind = options.get("bind", {})
    if not (isinstance(bind, Mapping) and all(isinstance(column, str) for column in bind.values())):
        raise wrong("bind", "is not a mapping from plates to columns", "write bind: {room: COLUMN}")
    template = PathTemplate(path)
    for plate in set(bind) & set(template.names):
        raise wrong("bind", f"takes {plate} from a column, but the path names it too", "remove one of them")
    try:
        every = parse_duration(options.get("every", "5s"))
    except ValueError as error:
        raise wrong("every", str(error), "write every: 5s") from None
    if every < _SHORTEST:
        raise wrong("every", "is shorter than 100ms", "write every: 5s")
    column, instant = _time(name, options.get("time"))
    plates = tuple((str(plate), str(column)) for plate, column in bind.items())
    names = None if fields is None else tuple(fields)
    empty = frozenset(text.strip() for text in missing)
    columns = Columns(column, instant, value, names, plates, delimiter, shape == "list", empty)
    return CsvSpec(name, template, columns, every)


def _time(name: str, spec: object) -> tuple[str, Instant]:
    """The column, and how its cells are read."""
    hint = "write time: {field: COLUMN}, with unit: ms or s for numbers, zone: UTC, or format: '%d.%m.%Y'"
    if not isinstance(spec, Mapping):
        raise ConfigurationError(f"source {name}: time names no column", hint=hint)
    form = spec.get("format")
    parsed = TimeSpec.parse({key: value for key, value in spec.items() if key != "format"})
    assert parsed.field is not None
    if form is None:
        # Files hold history: no time is too early, and midnight of the first day of 1980 or 2000 is a day like others.
        return parsed.field, parsed.read
    if not isinstance(form, str) or "unit" in spec:
        raise ConfigurationError(f"source {name}: time.format is text, and needs no unit", hint=hint)
    return parsed.field, formatted_time(form, parsed.zone, "zone: ")


class _Watched:
    """One file, ``None`` if its name is of no use, and how it was when it was looked at last."""

    __slots__ = ("file", "rest", "state")

    def __init__(self, file: CsvFile | None) -> None:
        self.file = file
        self.state: tuple[int, int, int] | None = None
        self.rest = False
        """There is a last row without an end, which was not read yet."""


class CsvSource:
    """Implements `hs_stream.engine.ports.Source` for the files of all ``specs``. ``now`` gives arrivals (ms)."""

    def __init__(
        self,
        name: str,
        specs: Iterable[CsvSpec],
        *,
        now: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        directory: Path | None = None,
    ) -> None:
        self.name = name
        self._directory = None if directory is None else directory.resolve()
        self._specs = list(specs)
        self._now = now
        self._stopped = False
        self._watched: dict[tuple[str, Path], _Watched] = {}
        self._trouble: dict[Path, str] = {}

    async def run(self, deliver: Callable[[Delivery], Awaitable[None]], connected: Callable[[bool], None]) -> None:
        """See `hs_stream.engine.ports.Source.run`."""
        due = dict.fromkeys((spec.name for spec in self._specs), 0.0)
        said: bool | None = None
        while not self._stopped:
            for spec in self._specs:
                if due[spec.name] <= time.monotonic():
                    await self._look(spec, deliver)
                    due[spec.name] = time.monotonic() + spec.every / 1000
            if said is not (fine := not self._trouble):
                connected(fine)
                said = fine
            await asyncio.sleep(max(min(due.values()) - time.monotonic(), 0.01))
        # Whoever runs us decides when that ends.
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """See `hs_stream.engine.ports.Source.stop`."""
        self._stopped = True

    async def _look(self, spec: CsvSpec, deliver: Callable[[Delivery], Awaitable[None]]) -> None:
        paths = await asyncio.to_thread(spec.template.find)
        for key in [key for key in self._watched if key[0] == spec.name and key[1] not in set(paths)]:
            # When it comes back it is another file.
            del self._watched[key]
            self._trouble.pop(key[1], None)
        for path in paths:
            try:
                await self._look_at(spec, path, deliver)
            except FileNotFoundError:
                continue
            except OSError as error:
                reason = error.strerror or str(error)
                if self._trouble.get(path) != reason:
                    _LOG.warning("source %s cannot read %s: %s", spec.name, path, reason)
                self._trouble[path] = reason
            else:
                if self._trouble.pop(path, None):
                    _LOG.warning("source %s reads %s again", spec.name, path)

    async def _look_at(self, spec: CsvSpec, path: Path, deliver: Callable[[Delivery], Awaitable[None]]) -> None:
        if self._directory is not None and not (await asyncio.to_thread(path.resolve)).is_relative_to(self._directory):
            raise PermissionError(errno.EACCES, f"it leads out of {self._directory}")
        stat = await asyncio.to_thread(os.stat, path)
        state = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        watched = self._watched.get((spec.name, path))
        if watched is None:
            watched = self._watched[spec.name, path] = _Watched(None)
            try:
                watched.file = CsvFile(path, spec.columns, spec.template.bind(str(path)) or ())
            except PayloadError as error:
                await self._send(spec, path, [Row(0, b"", error=error)], deliver)
        left_alone = watched.state == state
        if watched.file is None or (left_alone and not watched.rest):
            return
        if not left_alone and watched.file.offset and not await asyncio.to_thread(watched.file.continues):
            watched.file = CsvFile(path, spec.columns, watched.file.meta)
        try:
            with closing(watched.file.rows(whole=left_alone)) as rows:
                while part := await asyncio.to_thread(lambda: list(islice(rows, _ROUND))):
                    if self._stopped:
                        return
                    await self._send(spec, path, part, deliver)
        except ConfigurationError as error:
            problem = PayloadError("fields_missing", str(error.message), hint=error.hint)
            await self._send(spec, path, [Row(1, b"", error=problem)], deliver)
            watched.rest = False
        else:
            watched.rest = not left_alone and watched.file.offset < stat.st_size
        watched.state = state

    async def _send(
        self, spec: CsvSpec, path: Path, rows: Sequence[Row], deliver: Callable[[Delivery], Awaitable[None]]
    ) -> None:
        arrival, size = self._now(), 1
        readings: list[Reading] = []
        dead: list[DeadLetter] = []
        origins: list[tuple[int, str, bytes]] = []
        for row in rows:
            size += len(row.text)
            where = f"{path}:{row.line}" if row.line else str(path)
            if row.error is not None:
                text = f"{where}: {row.error}"
                dead.append(DeadLetter(arrival, spec.name, row.error.reason, text, where, row.text[:_MOST_PAYLOAD]))
                continue
            origins.append((len(readings), where, row.text))
            readings.append(Reading(spec.name, row.meta, row.time, row.value))
        await deliver(Delivery(readings, dead, arrival, _no_ack, size, origins, asked=True))


def _no_ack() -> None:
    """The file stays where it is: there is nobody to tell."""
