"""``purge``, ``dead-letters``, ``failed`` and ``history``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import orjson
import typer

from hs_stream.cli.common import (
    Config,
    Held,
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
    wait_settled,
)
from hs_stream.cli.csv_files import write_rows
from hs_stream.cli.data import Format, FromOption, ToOption
from hs_stream.core.errors import ConfigurationError, NotFound, did_you_mean
from hs_stream.core.stream import StreamId
from hs_stream.core.time import parse_time
from hs_stream.core.visible import visible_json
from hs_stream.service.json_documents import entry_json, letter_json
from hs_stream.service.purging import NotConfirmed, matching
from hs_stream.service.purging import purge as remove
from hs_stream.service.remote import Refused, Remote
from hs_stream.service.session import running_session
from hs_stream.service.settings import Settings

__all__ = ["register"]

_SHOWN: Final = 10
_PURGE_SECONDS: Final = 600.0
FormatOption = Annotated[Format, typer.Option("--format", help="table, json or csv")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    for command in (purge, dead_letters, failed, history):
        app.command()(command)


# --- purge ---


@guarded
def purge(
    stream: Annotated[
        str, typer.Argument(help="name[house=1,room=kitchen]; plate values that are left out match all.")
    ],
    start: FromOption = None,
    end: ToOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: Config = None,
) -> None:
    """Remove instances of a stream, or of all streams of a name. A running service does it, where one uses the store.

    Asks first where more than one stream is meant, or --from or --to is not given. What is demanded of it, and of what
    is computed from it, is computed again from what is left.
    """
    settings = settings_of(config)
    first, until = parse_span(start, end)
    wanted = parse_stream(stream)
    gone = _purge(settings, wanted, first, until, yes)
    what = gone[0]["stream"] if len(gone) == 1 else f"{len(gone)} streams of {wanted}"
    say(f"{sum(row['instances'] for row in gone)} instances of {what} removed")
    kept = [row["limit"] for row in gone if row["limit"] is not None and parse_time(row["limit"], now=0) > first]
    if kept:
        say(f"kept: what lies up to {max(kept)} is final, by retention", err=True)


def _purge(settings: Settings, wanted: StreamId, start: int, end: int, yes: bool) -> list[dict[str, Any]]:
    """Of each stream how many instances went. What joined since the question is not meant by the answer to it."""

    def attempt(confirm: int | None) -> list[dict[str, Any]]:
        async def here(held: Held) -> list[dict[str, Any]]:
            engine = await held.engine((await held.catalog()).workflows)
            try:
                found = matching(engine, wanted)
            except NotFound:
                record = await find_record(held.store, str(wanted))
                message = f"no workflow of the settings has {record.stream}"
                raise NotFound(message, hint="add its workflow to the settings") from None
            gone = await remove(engine, found, start, end, confirm)
            await engine.settle()
            return gone

        def through(service: Remote) -> list[dict[str, Any]]:
            query: dict[str, Any] = {"name": wanted, "start": start, "end": end}
            query |= {} if confirm is None else {"confirm": confirm}
            answer = service.ask("DELETE", f"/api/streams?{urlencode(query)}", timeout=_PURGE_SECONDS)
            if not wait_settled(service):
                say("note: the service still computes what follows from it", err=True)
            rows: list[dict[str, Any]] = answer["purged"]
            return rows

        return change_store(settings, here, through)

    confirm: int | None = None
    while True:
        try:
            return attempt(confirm)
        except NotConfirmed as error:
            extent = error.extent.document()
        except Refused as error:
            if "extent" not in error.document:
                raise
            extent = error.document["extent"]
        if not yes:
            _ask(extent)
        confirm = extent["count"]


def _ask(extent: Mapping[str, Any]) -> None:
    """Show what would go, and return when that is meant. `ConfigurationError` where nobody is there to say so."""
    streams = extent["streams"]
    what = streams[0]["stream"] if extent["count"] == 1 else f"{extent['count']} streams"
    line = f"{extent['instances']} instances of {what} in ({extent['start']}, {extent['end']}]"
    if sys.stdin is None or not sys.stdin.isatty():
        names = ", ".join(row["stream"] for row in streams[:_SHOWN])
        more = f" and {extent['count'] - _SHOWN} more" if extent["count"] > _SHOWN else ""
        also = f": {names}{more}" if extent["count"] > 1 else ""
        raise ConfigurationError(
            f"nothing is removed: this would remove {line}{also}, and nobody is here to be asked",
            hint="run it in a terminal, or confirm it with --yes",
        )
    say(f"This removes {line}:")
    for row in streams[:_SHOWN]:
        say(f"  {row['stream']}: {row['instances']}")
    if extent["count"] > _SHOWN:
        say(f"  ... and {extent['count'] - _SHOWN} more streams")
    if not typer.confirm("Remove them?"):
        say("nothing is removed")
        raise typer.Exit(1)


# --- what could not be used, or computed ---


@guarded
def dead_letters(
    last: Annotated[int, typer.Option(min=1, max=10_000, help="The newest N.")] = 20,
    form: FormatOption = Format.TABLE,
    config: Config = None,
) -> None:
    """List what could not be used, newest first: when, from where, and why. JSON and CSV have the payloads."""
    rows = run(_dead_letters(settings_of(config), last))
    names = ("time", "source", "reason", "topic", "message", "payload")
    _show(rows, names[:-1] if form is Format.TABLE else names, form)


async def _dead_letters(settings: Settings, count: int) -> list[dict[str, Any]]:
    async with reading_store(settings) as store:
        return [letter_json(letter) for letter in await store.dead_letters(count)]


@guarded
def failed(form: FormatOption = Format.TABLE, config: Config = None) -> None:
    """List what tools could not compute, as the service last wrote it down (every 10 seconds).

    A failed interval is computed again when what it reads changes, on request, and by the next start of the service.
    """
    seen, rows = run(_failed(settings_of(config)))
    say(seen, err=True)
    _show(rows, ("stream", "workflow", "tool", "start", "end", "error"), form)


async def _failed(settings: Settings) -> tuple[str, list[dict[str, Any]]]:
    async with reading_store(settings) as store:
        now = now_ms()
        sessions = await store.documents("sessions")
        if not sessions:
            raise NotFound("no service has used this store yet", hint="hs-stream compute says itself what failed")
        running = await running_session(store, now)
        newest = running or max(sessions, key=lambda key: parse_time(str(sessions[key]["seen"]), now=now))
        session = sessions[newest]
    rows = [
        {**{key: stream[key] for key in ("stream", "workflow", "tool", "error")}, "start": start, "end": end}
        for stream in session.get("failed", ())
        for start, end in stream["failed"]
    ]
    return f"as of {session['seen']}, {'running' if running else 'not running now'}", rows


@guarded
def history(
    node: Annotated[str | None, typer.Argument(help="Only what was computed of this node.")] = None,
    last: Annotated[int, typer.Option(min=1, max=10_000, help="The newest N.")] = 20,
    form: FormatOption = Format.TABLE,
    config: Config = None,
) -> None:
    """List what was computed, newest first: of which interval, by which version of which tool, and why.

    Causes: arrival, late, backfill, request, version, retry. ``changed`` of the ``instances`` were new or different.
    What a service computes of a node for one cause within ten seconds is one entry, from the first to the last of it;
    it is written with what is computed next.
    """
    rows = run(_history(settings_of(config), node, last))
    names = ("time", "node", "tool", "cause", "start", "end", "instances", "changed", "session")
    _show(rows, names[:-1] if form is Format.TABLE else names, form)


async def _history(settings: Settings, node: str | None, count: int) -> list[dict[str, Any]]:
    async with reading_store(settings) as store:
        entries = await store.history(count, node)
        known = set() if entries or node is None else {record.stream.name for record in await store.streams()}
        if known and node is not None and node not in known:
            raise NotFound(f"nothing of {node!r} is stored", hint=did_you_mean(node, known))
        return [entry_json(entry) for entry in entries]


def _show(rows: Sequence[dict[str, Any]], names: Sequence[str], form: Format) -> None:
    if form is Format.JSON:
        say(visible_json(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode()))
    elif form is Format.CSV:
        write_rows(output(), names, ([row[name] for name in names] for row in rows))
    else:
        show_table(names, [[str(row[name]) for name in names] for row in rows])
