"""``import``: CSV files into raw streams. Also how any command takes readings in: `take_in`."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from time import sleep
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from hs_stream.cli.common import (
    Config,
    Held,
    change_store,
    guarded,
    parse_stream,
    say,
    say_error,
    settings_of,
    wait_settled,
)
from hs_stream.core.errors import ConfigurationError, PayloadError, Unavailable
from hs_stream.core.plate import Plate
from hs_stream.core.stream import Meta, StreamId
from hs_stream.core.time import zone
from hs_stream.core.workflow import SourceDefinition, WorkflowDefinition
from hs_stream.engine.ports import DeadLetter, Delivery, Reading
from hs_stream.service.intake import check_target
from hs_stream.service.remote import Remote
from hs_stream.service.settings import Settings
from hs_stream_connectors.csv_files import Columns, CsvFile, PathTemplate, any_time, formatted_time

__all__ = ["NewOption", "register", "take_in"]

_ROUND: Final = 2_000
_PIECE: Final = 1 << 20
_PIECE_STREAMS: Final = 1_000
_PAUSES: Final = (1.0, 2.0, 4.0, 8.0, 15.0)
_SHOWN_PROBLEMS: Final = 20
_HOLE: Final = re.compile(r"\{(.+)\}")
NewOption = Annotated[bool, typer.Option("--new", help="Also into a stream that no workflow declares.")]
_TZ: Final = "--tz "


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("import")(import_)


@guarded
def import_(
    file: Annotated[str, typer.Argument(help="A CSV file with a header, or many: 'data/{country}.csv'.")],
    stream: Annotated[
        str,
        typer.Option("--stream", help="A raw stream; name[house=1,room={room}] takes the path's or a column's room."),
    ],
    time: Annotated[str, typer.Option("--time", help="The column of the event time.")],
    value: Annotated[str | None, typer.Option(help="The column of the value.")] = None,
    values: Annotated[str | None, typer.Option(help="Columns of objects, with commas; default: all others.")] = None,
    tz: Annotated[str | None, typer.Option(help="The zone of times without an offset, such as UTC.")] = None,
    time_format: Annotated[str | None, typer.Option(help="The form of times, such as '%d.%m.%Y %H:%M'.")] = None,
    delimiter: Annotated[str, typer.Option(help="What stands between two cells.")] = ",",
    new: NewOption = False,
    config: Config = None,
) -> None:
    """Import CSV files into raw streams. A running service takes them in, where one uses the store.

    Rows that cannot be read are named on stderr; exit 1 if there were any.
    """
    if value is not None and values is not None:
        raise ConfigurationError("--value and --values exclude each other", hint="give one of them")
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise ConfigurationError(f"--delimiter is one character, not {delimiter!r}", hint="write --delimiter ';'")
    settings = settings_of(config)
    fields = tuple(name.strip() for name in values.split(",")) if values else None
    if fields is not None and len(fields) == 1:
        value, fields = fields[0], None
    try:
        where = zone(tz) if tz else None
    except ValueError as error:
        raise ConfigurationError(f"--tz: {error}") from None
    instant = formatted_time(time_format, where, _TZ) if time_format else any_time(where, _TZ)
    target = parse_stream(stream)
    rows = _Rows(file, target, Columns(time, instant, value, fields, delimiter=delimiter))
    dead = take_in(settings, target, rows.rounds(), new=new)
    bad = rows.bad + dead
    say(f"{rows.good - dead} readings to {target}" + (f", {bad} rows not usable" if bad else ""))
    if bad:
        raise typer.Exit(1)


class _Rows:
    """The readings of all files that ``path`` names. Counts them, and names the rows that are none on stderr."""

    def __init__(self, path: str, target: StreamId, columns: Columns) -> None:
        self.good = self.bad = 0
        self._target = target
        template = PathTemplate(path)
        holes = {plate: match.group(1) for plate, value in target.meta if (match := _HOLE.fullmatch(value))}
        if unused := [name for name in template.names if name not in holes.values()]:
            raise ConfigurationError(
                f"the path names {unused[0]}, but --stream does not use it",
                hint=f"write {target.name}[{unused[0]}={{{unused[0]}}}], or * for any file",
            )
        self._fixed = tuple((plate, value) for plate, value in target.meta if plate not in holes)
        self._by_path = {plate: name for plate, name in holes.items() if name in template.names}
        by_column = tuple((plate, name) for plate, name in holes.items() if name not in template.names)
        self._columns = Columns(
            columns.time, columns.instant, columns.value, columns.fields, by_column, columns.delimiter
        )
        self._template = template
        self._files = template.find()
        if not self._files:
            what = (
                f"no file matches {path}"
                if template.names or "*" in path
                else f"cannot read {path}: there is no such file"
            )
            raise ConfigurationError(what, hint="name existing CSV files")

    def rounds(self) -> Iterator[list[Reading]]:
        """The readings, some thousand at a time."""
        rows = self._readings()
        while part := list(islice(rows, _ROUND)):
            self.good += len(part)
            yield part
        if self.bad > _SHOWN_PROBLEMS:
            say_error(f"... and {self.bad - _SHOWN_PROBLEMS} more rows")

    def _readings(self) -> Iterator[Reading]:
        for path in self._files:
            try:
                file = CsvFile(path, self._columns, self._meta(path))
            except PayloadError as error:
                self._refuse(str(path), error)
                continue
            try:
                for row in file.rows():
                    if row.error is None:
                        yield Reading(self._target.name, row.meta, row.time, row.value)
                    else:
                        self._refuse(f"{path}:{row.line}", row.error)
            except OSError as error:
                raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
            if file.header is None:
                raise ConfigurationError("the file is empty", hint="the first line names the columns", path=str(path))

    def _meta(self, path: Path) -> Meta:
        bound = dict(self._template.bind(str(path)) or ())
        return (*self._fixed, *((plate, bound[name]) for plate, name in self._by_path.items()))

    def _refuse(self, where: str, error: PayloadError) -> None:
        self.bad += 1
        if self.bad <= _SHOWN_PROBLEMS:
            say_error(f"{where}: {error}")


def take_in(settings: Settings, target: StreamId, rounds: Iterable[list[Reading]], *, new: bool) -> int:
    """Take readings of streams like ``target`` in, and return when what is online is computed from them.

    Returns how many were refused, which is said on stderr. ``new``: also into a stream that no workflow declares.
    """

    async def here(held: Held) -> int:
        engine = await held.engine(_with_source((await held.catalog()).workflows, target, new=new))
        refused = _Refused()
        with _progress() as show:
            async with asyncio.TaskGroup() as group:
                working = group.create_task(engine.run(), name="engine")
                try:
                    for readings in rounds:
                        now = engine.clock.now()
                        await engine.deliver(
                            Delivery(readings, [], now, _no_ack, refused=refused.add_letter, asked=True)
                        )
                        show(len(readings), "")
                    show(0, "(computing)")
                    await engine.settle()
                finally:
                    await engine.stop()
                await working
        return refused.count

    def through(service: Remote) -> int:
        refused, taken = _Refused(), 0
        with _progress() as show:
            for piece in _pieces(rounds, new=new):
                try:
                    answer = _send(service, piece)
                except Unavailable as error:
                    message = f"{error.message}, after {taken} readings were taken in"
                    raise Unavailable(message, hint="import it again: what is stored already stays") from None
                for row in answer["refused"]:
                    refused.add(row["reason"], row["message"])
                taken += answer["taken"]
                show(answer["taken"] + len(answer["refused"]), "")
            show(0, "(computing)")
            if not wait_settled(service):
                say("note: the service still computes what follows from it", err=True)
        return refused.count

    return change_store(settings, here, through)


class _Refused:
    """Counts readings that cannot be stored, and names the first of them on stderr."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, reason: str, message: str) -> None:
        self.count += 1
        if self.count <= _SHOWN_PROBLEMS:
            say_error(f"{reason}: {message}")

    def add_letter(self, letter: DeadLetter) -> None:
        self.add(letter.reason, letter.message)


@contextmanager
def _progress() -> Iterator[Callable[[int, str], object]]:
    """A line that says how many readings are in; ``show(more, what)`` moves it."""
    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} readings {task.description}"))
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("")
        yield lambda more, what: bar.update(task, advance=more, description=what)


def _pieces(rounds: Iterable[list[Reading]], *, new: bool) -> Iterator[bytes]:
    """Bodies for ``POST /api/readings``, of about `_PIECE` bytes at most; no more than one is held."""
    end = f']}}],"new":{"true" if new else "false"}}}'
    for readings in rounds:
        by_stream: dict[StreamId, list[str]] = {}
        size = 0
        for reading in readings:
            text = json.dumps({"time": reading.time, "value": reading.value})
            by_stream.setdefault(StreamId(reading.source, reading.meta), []).append(text)
            size += len(text)
            if size >= _PIECE or len(by_stream) >= _PIECE_STREAMS:
                yield _body(by_stream, end)
                by_stream, size = {}, 0
        if by_stream:
            yield _body(by_stream, end)


def _body(by_stream: dict[StreamId, list[str]], end: str) -> bytes:
    parts = (
        f'{{"stream":{json.dumps(str(stream))},"instances":[{",".join(texts)}' for stream, texts in by_stream.items()
    )
    return f'{{"streams":[{"]},".join(parts)}{end}'.encode()


def _send(service: Remote, piece: bytes) -> Any:
    """The answer of the service. It is asked again, but not for long, while it cannot take the piece.

    It may be loading workflows, or its store is away. The same piece once more changes nothing.
    """
    for pause in (*_PAUSES, None):
        try:
            return service.ask("POST", "/api/readings", piece, "application/json")
        except Unavailable:
            if pause is None:
                raise
            sleep(pause)
    return None


def _with_source(workflows: list[WorkflowDefinition], target: StreamId, *, new: bool) -> list[WorkflowDefinition]:
    """The workflows, with one more that holds only the source of ``target`` when none of them has it (``new``)."""
    plates = tuple(key for key, _ in target.meta)
    if check_target(workflows, target.name, plates, new=new):
        return workflows
    name = f"imported-{target.name}"
    source = SourceDefinition(target.name, plates)
    alone = WorkflowDefinition(name, {plate: Plate(plate, max=1_000_000) for plate in plates}, {target.name: source})
    return [*workflows, alone]


def _no_ack() -> None:
    """The file stays: there is nobody to tell."""
