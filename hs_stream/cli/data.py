"""``query``, ``streams``, ``import`` and ``export``."""

from __future__ import annotations

import asyncio
import csv
import fnmatch
import sys
from collections.abc import AsyncIterator, Iterator
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TextIO

import orjson
import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from hs_stream.cli.common import (
    Config,
    catalog_of,
    find_record,
    guarded,
    parse_span,
    parse_stream,
    reading_store,
    run,
    say_error,
    settings_of,
    show_table,
    writing_engine,
)
from hs_stream.cli.csv_files import CsvReadings, CsvWriter, Row
from hs_stream.cli.plot import plot
from hs_stream.core.batch import Batch
from hs_stream.core.errors import ConfigurationError
from hs_stream.core.plate import Plate
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME, TimeIntervals, format_time
from hs_stream.core.workflow import SourceDefinition, WorkflowDefinition
from hs_stream.engine.engine import Engine
from hs_stream.engine.ports import Delivery, Reading, Store, StreamRecord
from hs_stream.service.json_values import encode, intervals
from hs_stream.service.settings import Settings

__all__ = ["register"]

_PAGE = 10_000
_ROUND = 2_000
_SHOWN_PROBLEMS = 20
_TABLE_ROWS = 20
_KEYS = 1_000


class Format(StrEnum):
    """How instances are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command()(query)
    app.command()(streams)
    app.command("import")(import_)
    app.command()(export)


StreamArgument = Annotated[str, typer.Argument(help="name, or name[house=1,room=kitchen]")]
FromOption = Annotated[str | None, typer.Option("--from", help="Excluded; ISO 8601, now or -1h.")]
ToOption = Annotated[str | None, typer.Option("--to", help="Included.")]


# --- query and export ---


@guarded
def query(
    stream: StreamArgument,
    start: FromOption = None,
    end: ToOption = None,
    last: Annotated[int | None, typer.Option(min=1, max=1_000_000, help="Only the last N instances.")] = None,
    form: Annotated[Format, typer.Option("--format", help="table, json or csv")] = Format.TABLE,
    compute: Annotated[bool, typer.Option("--compute", help="Compute what is missing first; needs --from.")] = False,
    draw: Annotated[bool, typer.Option("--plot", help="Draw numbers as a line instead of a table.")] = False,
    config: Config = None,
) -> None:
    """Read a stream. A table shows the last 20 instances unless --from, --to or --last say otherwise."""
    settings = settings_of(config)
    parse_stream(stream)
    first, until = parse_span(start, end, until_now=compute)
    if compute:
        if start is None:
            raise ConfigurationError("--compute needs --from", hint="say for example --from -1d")
        run(_compute(settings, catalog_of(settings).workflows, parse_stream(stream), first, until))
    if last is None and start is None and end is None and form is Format.TABLE and not draw:
        last = _TABLE_ROWS
    run(_query(settings, stream, first, until, last, form, draw))


async def _compute(
    settings: Settings, workflows: list[WorkflowDefinition], stream: StreamId, start: int, end: int
) -> None:
    async with writing_engine(settings, workflows, "query it over HTTP with compute=true") as engine:
        if engine.find(stream).kind == "derived":
            await engine.compute([stream], start, end)


async def _query(
    settings: Settings, text: str, start: int, end: int, last: int | None, form: Format, draw: bool
) -> None:
    async with reading_store(settings) as store:
        record = await find_record(store, text)
        if draw:
            batch = Batch.concat([page async for page in _pages(store, record, start, end, last)])
            typer.echo(plot(batch, Console().width))
        elif form is Format.TABLE:
            await _table(store, record, start, end, last)
        elif form is Format.JSON:
            await _json(store, record, start, end, last)
        else:
            await _csv(store, record, start, end, last, sys.stdout)


async def _pages(store: Store, record: StreamRecord, start: int, end: int, last: int | None) -> AsyncIterator[Batch]:
    if last is not None:
        yield await store.read(record.id, start, end, limit=last, newest=True)
        return
    while start < end:
        page = await store.read(record.id, start, end, limit=_PAGE)
        if not page:
            return
        yield page
        start = page.last_time


async def _table(store: Store, record: StreamRecord, start: int, end: int, last: int | None) -> None:
    rows = [
        (format_time(time), value if isinstance(value, str) else _json_text(value))
        async for page in _pages(store, record, start, end, last)
        for time, value in page
    ]
    show_table(("time", "value"), rows, str(record.stream))
    if record.kind == "derived":
        asked = TimeIntervals.of(start, end)
        span = record.coverage & asked
        if start > MIN_TIME and end < MAX_TIME and asked - span:
            typer.echo(f"not computed: {asked - span} (add --compute)", err=True)


def _json_text(value: Any) -> str:
    return orjson.dumps(encode(value)).decode()


async def _json(store: Store, record: StreamRecord, start: int, end: int, last: int | None) -> None:
    separator = "[\n"
    async for page in _pages(store, record, start, end, last):
        for time, value in page:
            sys.stdout.write(f'{separator}{{"time": "{format_time(time)}", "value": {_json_text(value)}}}')
            separator = ",\n"
    sys.stdout.write("[]\n" if separator == "[\n" else "\n]\n")
    sys.stdout.flush()


async def _csv(store: Store, record: StreamRecord, start: int, end: int, last: int | None, file: TextIO) -> int:
    columns = await _columns(store, record, start, end, last)
    writer, count = CsvWriter(file, columns), 0
    async for page in _pages(store, record, start, end, last):
        for time, value in page:
            writer.write(time, value)
        count += len(page)
    file.flush()
    return count


async def _columns(store: Store, record: StreamRecord, start: int, end: int, last: int | None) -> list[str] | None:
    """The keys of all objects, or ``None`` when anything is no object: a pass of its own, so that memory is bounded."""
    keys: dict[str, None] = {}
    found = False
    async for page in _pages(store, record, start, end, last):
        if not isinstance(page.values, list):
            return None
        for value in page.values:
            found = True
            if not isinstance(value, dict) or len(keys) > _KEYS:
                return None
            keys.update(dict.fromkeys(value))
    return list(keys) if found else None


@guarded
def export(
    stream: StreamArgument,
    file: Annotated[Path, typer.Argument(help="The CSV file; - for stdout.")],
    start: FromOption = None,
    end: ToOption = None,
    config: Config = None,
) -> None:
    """Write a stream to a CSV file that hs-stream import reads."""
    settings = settings_of(config)
    first, until = parse_span(start, end)
    count = run(_export(settings, stream, file, first, until))
    typer.echo(f"{count} instances to {file}", err=True)


async def _export(settings: Settings, text: str, file: Path, start: int, end: int) -> int:
    async with reading_store(settings) as store:
        record = await find_record(store, text)
        if str(file) == "-":
            return await _csv(store, record, start, end, None, sys.stdout)
        partial = file.with_name(f"{file.name}.part")
        try:
            with partial.open("w", encoding="utf-8", newline="") as out:
                count = await _csv(store, record, start, end, None, out)
            partial.replace(file)
        except OSError as error:
            raise ConfigurationError(f"cannot write {file}: {error.strerror}", hint="name another file") from None
        return count


# --- streams ---


@guarded
def streams(
    pattern: Annotated[str, typer.Argument(help="A name or text with * and ?, such as 'smooth*'.")] = "*",
    form: Annotated[Format, typer.Option("--format", help="table, json or csv")] = Format.TABLE,
    config: Config = None,
) -> None:
    """List streams with kind, coverage, watermark and counts."""
    rows = run(_streams(settings_of(config), pattern))
    if form is Format.JSON:
        typer.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode())
        return
    names = ("id", "stream", "kind", "workflow", "tool", "upper", "intervals", "instances")
    if form is Format.CSV:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([row[name] for name in names] for row in rows)
        return
    show_table(names, [[str(row[name]) for name in names] for row in rows])


async def _streams(settings: Settings, pattern: str) -> list[dict[str, Any]]:
    async with reading_store(settings) as store:
        records = [
            record
            for record in await store.streams()
            if fnmatch.fnmatchcase(record.stream.name, pattern) or _matches(str(record.stream), pattern)
        ]
        return [
            {
                "id": record.id,
                "stream": str(record.stream),
                "kind": record.kind,
                "workflow": record.workflow,
                "tool": f"{record.tool.name}@{record.tool.version}" if record.tool else "",
                "upper": "" if record.upper is None else format_time(record.upper),
                "intervals": len(record.coverage),
                "coverage": intervals(record.coverage),
                "instances": await store.count(record.id, MIN_TIME, MAX_TIME),
            }
            for record in sorted(records, key=lambda item: (item.stream.name, item.stream.meta))
        ]


def _matches(text: str, pattern: str) -> bool:
    # The brackets of a stream's text are no character class.
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))


# --- import ---


@guarded
def import_(
    file: Annotated[Path, typer.Argument(help="A CSV file with a header.")],
    stream: Annotated[str, typer.Option("--stream", help="A raw stream: name, or name[house=1].")],
    time: Annotated[str, typer.Option("--time", help="The column of the event time.")],
    value: Annotated[str | None, typer.Option(help="The column of the value.")] = None,
    values: Annotated[str | None, typer.Option(help="Columns of objects, with commas; default: all others.")] = None,
    tz: Annotated[str | None, typer.Option(help="The zone of times without an offset, such as UTC.")] = None,
    config: Config = None,
) -> None:
    """Import a CSV file into a raw stream. Rows that cannot be read are named on stderr; exit 1 if there were any."""
    if value is not None and values is not None:
        raise ConfigurationError("--value and --values exclude each other", hint="give one of them")
    settings = settings_of(config)
    columns = [value] if value is not None else [name.strip() for name in values.split(",")] if values else None
    target = parse_stream(stream)
    workflows = _with_source(catalog_of(settings).workflows, target)
    stored, bad = run(_import(settings, workflows, target, CsvReadings(file, time, columns, tz)))
    typer.echo(f"{stored} readings to {target}" + (f", {bad} rows not usable" if bad else ""))
    if bad:
        raise typer.Exit(1)


def _with_source(workflows: list[WorkflowDefinition], target: StreamId) -> list[WorkflowDefinition]:
    """The workflows, with one more that holds only the source when none of them has it."""
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
    name = f"imported-{target.name}"
    source = SourceDefinition(target.name, plates)
    alone = WorkflowDefinition(name, {plate: Plate(plate, max=1_000_000) for plate in plates}, {target.name: source})
    return [*workflows, alone]


async def _import(
    settings: Settings, workflows: list[WorkflowDefinition], target: StreamId, rows: CsvReadings
) -> tuple[int, int]:
    async with writing_engine(settings, workflows, "send the readings over MQTT") as engine:
        columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} readings {task.description}"))
        console = Console(stderr=True)
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("")
            async with asyncio.TaskGroup() as group:
                working = group.create_task(engine.run(), name="engine")
                try:
                    sent, bad = await _feed(engine, target, rows, lambda count: bar.advance(task, count))
                    bar.update(task, description="(computing)")
                    await engine.settle()
                finally:
                    await engine.stop()
                await working
        statistics = engine.statistics()
        if statistics.dead_letters:
            for letter in (await engine.store.dead_letters(statistics.dead_letters))[:_SHOWN_PROBLEMS]:
                say_error(f"{letter.reason}: {letter.message}")
        return sent - statistics.dead_letters, bad + statistics.dead_letters


async def _feed(engine: Engine, target: StreamId, rows: CsvReadings, progress: Any) -> tuple[int, int]:
    sent = bad = 0
    good: Iterator[Row] = iter(rows)
    while chunk := list(islice(good, _ROUND)):
        readings = []
        for row in chunk:
            if row.problem:
                bad += 1
                if bad <= _SHOWN_PROBLEMS:
                    say_error(f"{rows.path}:{row.line}: {row.problem}")
            else:
                readings.append(Reading(target.name, target.meta, row.time, row.value))
        if readings:
            await engine.deliver(Delivery(readings, [], engine.clock.now(), _no_ack))
            sent += len(readings)
        progress(len(chunk))
    if bad > _SHOWN_PROBLEMS:
        say_error(f"... and {bad - _SHOWN_PROBLEMS} more rows")
    return sent, bad


def _no_ack() -> None:
    """The file stays: there is nobody to tell."""
