"""``assets put|get|list``: versioned JSON documents. An asset is a raw stream whose instances are documents.

Each `put` is a version at a time; of all versions, the last one at or before t holds at t.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final

import orjson
import typer

from hs_stream.cli.common import (
    Config,
    catalog_of,
    find_record,
    guarded,
    now_ms,
    parse_stream,
    reading_store,
    run,
    say,
    settings_of,
    show_table,
)
from hs_stream.cli.imports import NewOption, take_in
from hs_stream.core.errors import ConfigurationError, NotFound
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME, format_time, parse_time
from hs_stream.core.value import Value, canonical
from hs_stream.engine.ports import Reading, StreamRecord
from hs_stream.service.json_values import encode
from hs_stream.service.settings import Settings

__all__ = ["app"]

app = typer.Typer(help="Versioned JSON documents as streams.", no_args_is_help=True, rich_markup_mode=None)

_PAGE: Final = 1_000
NameArgument = Annotated[str, typer.Argument(help="name, or name[house=1].")]
AtOption = Annotated[str | None, typer.Option("--at", help="ISO 8601, now or -1h; default: now.")]
MetaOption = Annotated[list[str] | None, typer.Option("--meta", help="A plate value: house=1; may be repeated.")]


@app.command()
@guarded
def put(
    name: NameArgument,
    file: Annotated[Path, typer.Argument(help="A JSON file; - for stdin.")],
    at: AtOption = None,
    meta: MetaOption = None,
    new: NewOption = False,
    config: Config = None,
) -> None:
    """Put a version of an asset; a version at the same time is replaced. A running service does it, where one is."""
    settings = settings_of(config)
    stream, time = _stream(name, meta), _instant(at)
    document = _document(file)
    if take_in(settings, stream, [[Reading(stream.name, stream.meta, time, document)]], new=new):
        raise typer.Exit(1)
    say(f"{stream} has a version at {format_time(time)}")


def _document(file: Path) -> Value:
    try:
        text = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        return canonical(orjson.loads(text))
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}", hint="name a JSON file") from None
    except orjson.JSONDecodeError as error:
        message = str(error).partition(": line")[0]
        raise ConfigurationError(f"this is not JSON: {message}", path=str(file), line=error.lineno) from None
    except ValueError as error:
        raise ConfigurationError(f"the document{error}", path=str(file)) from None


@app.command()
@guarded
def get(name: NameArgument, at: AtOption = None, meta: MetaOption = None, config: Config = None) -> None:
    """Print the version that holds at a time."""
    say(run(_get(settings_of(config), _stream(name, meta), _instant(at))))


async def _get(settings: Settings, stream: StreamId, time: int) -> str:
    async with reading_store(settings) as store:
        record = await find_record(store, str(stream))
        found = await store.last(record.id, time, 1)
        if not found:
            first = await store.read(record.id, MIN_TIME, MAX_TIME, limit=1)
            hint = f"its first version is of {format_time(first.first_time)}" if first else "it has no versions"
            raise NotFound(f"{stream} has no version at or before {format_time(time)}", hint=hint)
        return orjson.dumps(encode(found.plain()[-1]), option=orjson.OPT_INDENT_2).decode()


@app.command("list")
@guarded
def list_(
    name: Annotated[str | None, typer.Argument(help="An asset: its versions. Default: every asset.")] = None,
    meta: MetaOption = None,
    config: Config = None,
) -> None:
    """List assets, or the versions of one. Raw streams without a connector count whose newest value is a document."""
    settings = settings_of(config)
    if name is None:
        workflows = catalog_of(settings).workflows
        fed = {source.name for flow in workflows for source in flow.sources.values() if source.options}
        show_table(("asset", "versions", "newest"), run(_assets(settings, fed)))
    else:
        stream = _stream(name, meta)
        show_table(("from", "document"), run(_versions(settings, stream)), str(stream))


async def _assets(settings: Settings, fed: set[str]) -> list[tuple[str, str, str]]:
    rows = []
    async with reading_store(settings) as store:
        records = [record for record in await store.streams() if record.kind == "raw" and record.stream.name not in fed]
        for record in sorted(records, key=lambda record: record.stream):
            newest = await store.last(record.id, MAX_TIME, 1)
            if newest and isinstance(newest.plain()[0], (dict, list)):
                count = await store.count(record.id, MIN_TIME, MAX_TIME)
                rows.append((str(record.stream), str(count), format_time(newest.last_time)))
    return rows


async def _versions(settings: Settings, stream: StreamId) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    async with reading_store(settings) as store:
        record: StreamRecord = await find_record(store, str(stream))
        start = MIN_TIME
        while page := await store.read(record.id, start, MAX_TIME, limit=_PAGE):
            rows += [(format_time(time), orjson.dumps(encode(value)).decode()) for time, value in page]
            start = page.last_time
    return rows


def _stream(name: str, meta: list[str] | None) -> StreamId:
    stream = parse_stream(name)
    pairs = [pair.partition("=") for pair in meta or ()]
    if bad := [key for key, equals, _ in pairs if not equals]:
        raise ConfigurationError(f"--meta {bad[0]} has no value", hint="write --meta house=1")
    try:
        return StreamId.make(stream.name, (*stream.meta, *((key, value) for key, _, value in pairs)))
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def _instant(at: str | None) -> int:
    now = now_ms()
    try:
        return now if at is None else parse_time(at, now=now)
    except ValueError as error:
        raise ConfigurationError(f"--at: {error}") from None
