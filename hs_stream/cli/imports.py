"""``import``: CSV files into raw streams. Also how any command takes readings in: `take_in`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from hs_stream.cli.common import (
    Config,
    catalog_of,
    guarded,
    parse_stream,
    run,
    say,
    say_error,
    settings_of,
    writing_engine,
)
from hs_stream.core.errors import ConfigurationError, PayloadError, did_you_mean
from hs_stream.core.plate import Plate
from hs_stream.core.stream import Meta, StreamId
from hs_stream.core.time import zone
from hs_stream.core.workflow import SourceDefinition, WorkflowDefinition
from hs_stream.engine.ports import Delivery, Reading
from hs_stream.service.settings import Settings
from hs_stream_connectors.csv_files import Columns, CsvFile, PathTemplate, any_time, formatted_time

__all__ = ["NewOption", "register", "take_in", "with_source"]

_ROUND: Final = 2_000
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
    """Import CSV files into raw streams. Rows that cannot be read are named on stderr; exit 1 if there were any."""
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
    workflows = catalog_of(settings).workflows
    target = parse_stream(stream)
    workflows = with_source(workflows, target, new=new)
    rows = _Rows(file, target, Columns(time, instant, value, fields, delimiter=delimiter))
    dead = run(take_in(settings, workflows, rows.rounds()))
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


def with_source(workflows: list[WorkflowDefinition], target: StreamId, *, new: bool) -> list[WorkflowDefinition]:
    """The workflows, with one more that holds only the source of ``target`` when none of them has it (``new``)."""
    plates = tuple(key for key, _ in target.meta)
    for workflow in workflows:
        if target.name in workflow.nodes:
            raise ConfigurationError(
                f"{target.name} is computed by the workflow {workflow.name}", hint="import into a raw stream, a source"
            )
        if target.name in workflow.sources:
            wanted = workflow.node_plates[target.name]
            if set(wanted) != set(plates):
                text = ",".join(f"{plate}=..." for plate in wanted)
                raise ConfigurationError(
                    f"the source {target.name} is on {', '.join(wanted) or 'no plate'}",
                    hint=f"write {target.name}[{text}]" if wanted else f"write {target.name}",
                )
            return workflows
    if not new:
        sources = [name for workflow in workflows for name in workflow.sources]
        raise ConfigurationError(
            f"no workflow has a source {target.name}, and --new is not given", hint=did_you_mean(target.name, sources)
        )
    name = f"imported-{target.name}"
    source = SourceDefinition(target.name, plates)
    alone = WorkflowDefinition(name, {plate: Plate(plate, max=1_000_000) for plate in plates}, {target.name: source})
    return [*workflows, alone]


async def take_in(settings: Settings, workflows: list[WorkflowDefinition], rounds: Iterable[list[Reading]]) -> int:
    """Take readings in and compute what is online; returns how many were refused, which is said on stderr."""
    async with writing_engine(settings, workflows, "send the readings over MQTT") as engine:
        columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} readings {task.description}"))
        console = Console(stderr=True)
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("")
            async with asyncio.TaskGroup() as group:
                working = group.create_task(engine.run(), name="engine")
                try:
                    for readings in rounds:
                        await engine.deliver(Delivery(readings, [], engine.clock.now(), _no_ack))
                        bar.advance(task, len(readings))
                    bar.update(task, description="(computing)")
                    await engine.settle()
                finally:
                    await engine.stop()
                await working
        dead = engine.statistics().dead_letters
        for letter in (await engine.store.dead_letters(dead))[:_SHOWN_PROBLEMS] if dead else ():
            say_error(f"{letter.reason}: {letter.message}")
        return dead


def _no_ack() -> None:
    """The file stays: there is nobody to tell."""
