"""``query``, ``streams`` and ``export``."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TextIO

import orjson
import typer
from rich.console import Console

from hs_stream.cli.common import (
    Config,
    Held,
    catalog_of,
    change_store,
    find_record,
    guarded,
    now_ms,
    output,
    parse_span,
    parse_stream,
    reading_store,
    run,
    say,
    settings_of,
    show_table,
)
from hs_stream.cli.csv_files import CsvWriter, write_rows
from hs_stream.cli.plot import plot
from hs_stream.cli.work import compute_through
from hs_stream.core.batch import Batch
from hs_stream.core.errors import ConfigurationError, NotFound
from hs_stream.core.size import PAGE
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME, TimeIntervals, format_time
from hs_stream.core.visible import visible_json
from hs_stream.engine.ports import Store, StreamRecord
from hs_stream.private_files import make_private, open_private
from hs_stream.service.json_values import encode, intervals
from hs_stream.service.remote import Remote
from hs_stream.service.settings import Settings
from hs_stream.service.silence import explain
from hs_stream_connectors.csv_files import PathTemplate

__all__ = ["register"]

_PAGE = 10_000
_TABLE_ROWS = 20
_KEYS = 1_000


class Format(StrEnum):
    """How instances are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    for command in (query, streams, export):
        app.command()(command)


StreamArgument = Annotated[str, typer.Argument(help="name, or name[house=1,room=kitchen]")]
FromOption = Annotated[str | None, typer.Option("--from", help="Excluded; ISO 8601, now or -1h.")]
_COMPUTE_HELP = "Compute what is missing first; needs --from. A running service does it, where one uses the store."
ToOption = Annotated[str | None, typer.Option("--to", help="Included.")]


# --- query and export ---


@guarded
def query(
    stream: StreamArgument,
    start: FromOption = None,
    end: ToOption = None,
    last: Annotated[int | None, typer.Option(min=1, max=1_000_000, help="Only the last N instances.")] = None,
    form: Annotated[Format, typer.Option("--format", help="table, json or csv")] = Format.TABLE,
    compute: Annotated[bool, typer.Option("--compute", help=_COMPUTE_HELP)] = False,
    draw: Annotated[bool, typer.Option("--plot", help="Draw numbers as a line instead of a table.")] = False,
    config: Config = None,
) -> None:
    """Read a stream. A table shows the last 20 instances unless --from, --to or --last say otherwise."""
    settings = settings_of(config)
    parse_stream(stream)
    first, until = parse_span(start, end, until_now=compute)
    if compute and start is None:
        raise ConfigurationError("--compute needs --from", hint="say for example --from -1d")
    if last is None and start is None and end is None and form is Format.TABLE and not draw:
        last = _TABLE_ROWS
    try:
        if compute:
            _compute(settings, parse_stream(stream), first, until)
        empty = run(_query(settings, stream, first, until, last, form, draw))
    except NotFound as error:
        raise NotFound(error.message, hint=_explain(settings, parse_stream(stream), error.hint)) from None
    if empty is not None and (why := _no_result(settings, empty) or _explain(settings, empty.stream)):
        say(why, err=True)


def _compute(settings: Settings, stream: StreamId, start: int, end: int) -> None:
    async def here(held: Held) -> None:
        engine = await held.engine((await held.catalog()).workflows)
        if engine.find(stream).kind == "derived":
            await engine.compute([stream], start, end, complete=True)

    change_store(settings, here, lambda service: _computed(service, stream, start, end))


def _computed(service: Remote, stream: StreamId, start: int, end: int) -> None:
    compute_through(service, [str(stream)], start, end)


async def _query(
    settings: Settings, text: str, start: int, end: int, last: int | None, form: Format, draw: bool
) -> StreamRecord | None:
    """The stream's record where it holds nothing at all."""
    async with reading_store(settings) as store:
        record = await find_record(store, text)
        if record.floor is not None and MIN_TIME < start < record.floor:
            say(f"forgotten: nothing is known up to {format_time(record.floor)}, by retention", err=True)
        if draw:
            batch = Batch.concat([page async for page in _pages(store, record, start, end, last)])
            say(plot(batch, Console().width))
        elif form is Format.TABLE:
            await _table(store, record, start, end, last)
        elif form is Format.JSON:
            await _json(store, record, start, end, last)
        else:
            await _csv(store, [record], (), (start, end), last, output())
        return None if await store.read(record.id, MIN_TIME, MAX_TIME, limit=1) else record


def _no_result(settings: Settings, record: StreamRecord) -> str:
    """That instances of its inputs gave the stream of ``record`` nothing: a wrong parameter is else silent."""
    if record.kind != "derived" or not record.coverage:
        return ""
    try:
        workflows = catalog_of(settings).workflows
    except ConfigurationError:
        return ""
    name = record.stream.name
    inputs = {
        source
        for item in workflows
        if item.name == record.workflow and name in item.nodes
        for source in item.nodes[name].inputs
    }
    found = run(_with_instances(settings, record, inputs))
    tool = f"{record.tool.name}@{record.tool.version}" if record.tool else "its tool"
    what = f"no result: what there is of {', '.join(found)} gave none in what is computed"
    return f"{what} (if one was due, check {tool})" if found else ""


async def _with_instances(settings: Settings, record: StreamRecord, inputs: set[str]) -> list[str]:
    """Those of ``inputs`` that have an instance between the ends of what is computed of ``record``."""
    mine = dict(record.stream.meta)
    start, end = record.coverage.pairs[0][0], record.coverage.pairs[-1][1]
    async with reading_store(settings) as store:
        of_inputs = [other for other in await store.streams() if other.stream.name in inputs]
        return sorted(
            {
                other.stream.name
                for other in of_inputs
                if all(mine.get(key, value) == value for key, value in other.stream.meta)
                and await store.read(other.id, start, end, limit=1)
            }
        )


def _explain(settings: Settings, stream: StreamId, otherwise: str = "") -> str:
    """Why ``stream`` holds nothing, where a workflow declares it; else ``otherwise``."""
    try:
        workflows = catalog_of(settings).workflows
    except ConfigurationError:
        return otherwise

    async def read() -> str:
        async with reading_store(settings) as store:
            return await explain(store, workflows, stream, now_ms(), otherwise)

    return run(read())


async def _pages(store: Store, record: StreamRecord, start: int, end: int, last: int | None) -> AsyncIterator[Batch]:
    if last is not None:
        yield await store.read(record.id, start, end, limit=last, newest=True)
        return
    while start < end:
        page = await store.read(record.id, start, end, limit=_PAGE, budget=PAGE)
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
        missing = asked - record.coverage
        if record.floor is not None:
            missing -= TimeIntervals.of(MIN_TIME, record.floor)
        if start > MIN_TIME and end < MAX_TIME and missing:
            say(f"not computed: {missing} (add --compute)", err=True)


def _json_text(value: Any) -> str:
    return visible_json(orjson.dumps(encode(value)).decode())


async def _json(store: Store, record: StreamRecord, start: int, end: int, last: int | None) -> None:
    separator = "[\n"
    async for page in _pages(store, record, start, end, last):
        for time, value in page:
            sys.stdout.write(f'{separator}{{"time": "{format_time(time)}", "value": {_json_text(value)}}}')
            separator = ",\n"
    sys.stdout.write("[]\n" if separator == "[\n" else "\n]\n")
    sys.stdout.flush()


async def _csv(
    store: Store,
    records: Sequence[StreamRecord],
    plates: Sequence[str],
    span: tuple[int, int],
    last: int | None,
    file: TextIO,
) -> int:
    """All of ``records`` in one file, one after the other, with a column for each of ``plates``."""
    keys = await _keys(store, records, span, last)
    if twice := {"time", *plates} & set(keys or ()):
        raise ConfigurationError(
            f"two columns would be called {min(twice)!r}", hint="export a part of it, such as one plate value"
        )
    writer, count = CsvWriter(file, keys, plates), 0
    for record in records:
        values = [record.stream.value_of(plate) or "" for plate in plates]
        async for page in _pages(store, record, *span, last):
            for time, value in page:
                writer.write(time, value, values)
            count += len(page)
    file.flush()
    return count


async def _keys(
    store: Store, records: Sequence[StreamRecord], span: tuple[int, int], last: int | None
) -> list[str] | None:
    """The keys of all objects, or ``None`` when anything is no object: a pass of its own, so that memory is bounded."""
    keys: dict[str, None] = {}
    found = False
    for record in records:
        async for page in _pages(store, record, *span, last):
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
    stream: Annotated[str, typer.Argument(help="name[house=1,room=kitchen]; without plate values, all of them.")],
    file: Annotated[str, typer.Argument(help="The CSV file; - for stdout; 'out/{room}.csv' for a file per room.")],
    start: FromOption = None,
    end: ToOption = None,
    config: Config = None,
) -> None:
    """Write a stream, or all streams of a name, to CSV files that hs-stream import reads.

    Plate values that neither STREAM nor FILE says become columns.
    """
    settings = settings_of(config)
    first, until = parse_span(start, end)
    count, files = run(_export(settings, parse_stream(stream), file, first, until))
    say(f"{count} instances to {file if files == 1 else f'{files} files'}", err=True)


async def _export(settings: Settings, wanted: StreamId, file: str, start: int, end: int) -> tuple[int, int]:
    names = () if file == "-" else PathTemplate(file).names
    async with reading_store(settings) as store:
        records = await _matching(store, wanted)
        plates = [plate for plate, _ in records[0].stream.meta]
        if unknown := [name for name in names if name not in plates]:
            raise ConfigurationError(
                f"{wanted.name} is not on the plate {unknown[0]!r}", hint=f"it is on {', '.join(plates) or 'none'}"
            )
        columns = [plate for plate in plates if plate not in names and wanted.value_of(plate) is None]
        by_file: dict[str, list[StreamRecord]] = {}
        for record in records:
            values = {name: record.stream.value_of(name) or "" for name in names}
            for name, value in values.items():
                # A device chose it: it must not lead into another directory.
                if value in (".", "..") or not set(value).isdisjoint("/\\\0"):
                    raise ConfigurationError(
                        f"{record.stream} cannot be a file: {name} is {value!r}",
                        hint=f"leave {{{name}}} out of FILE: it is a column then",
                    )
            by_file.setdefault(file.format(**values) if names else file, []).append(record)
        span = (start, end)
        counts = [await _write(store, found, columns, path, *span) for path, found in by_file.items()]
        return sum(counts), len(by_file)


async def _matching(store: Store, wanted: StreamId) -> list[StreamRecord]:
    """Every stream of the name that agrees with the plate values. `NotFound` when there is none."""
    records = [
        record
        for record in await store.streams()
        if record.stream.name == wanted.name and set(wanted.meta) <= set(record.stream.meta)
    ]
    return sorted(records, key=lambda record: record.stream) or [await find_record(store, str(wanted))]


async def _write(
    store: Store, records: Sequence[StreamRecord], plates: Sequence[str], file: str, start: int, end: int
) -> int:
    if file == "-":
        return await _csv(store, records, plates, (start, end), None, output())
    path = Path(file)
    partial = path.with_name(f"{path.name}.part")
    try:
        make_private(path.parent)
        with open_private(partial) as out:
            count = await _csv(store, records, plates, (start, end), None, out)
        partial.replace(path)
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
    """List streams with kind, coverage, watermark and counts. What lies up to the floor is forgotten, by retention."""
    rows = run(_streams(settings_of(config), pattern))
    if form is Format.JSON:
        say(visible_json(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode()))
        return
    names = ["id", "stream", "kind", "workflow", "tool", "upper", "intervals", "instances", "floor"]
    if form is Format.CSV:
        write_rows(output(), names, ([row[name] for name in names] for row in rows))
        return
    if not any(row["floor"] for row in rows):
        names.remove("floor")
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
                "floor": "" if record.floor is None else format_time(record.floor),
                "intervals": len(record.coverage),
                "coverage": intervals(record.coverage),
                "instances": await store.count(record.id, MIN_TIME, MAX_TIME),
            }
            for record in sorted(records, key=lambda item: (item.stream.name, item.stream.meta))
        ]


def _matches(text: str, pattern: str) -> bool:
    # The brackets of a stream's text are no character class.
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))
