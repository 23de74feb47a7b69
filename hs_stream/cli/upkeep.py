"""``purge``, ``dead-letters``, ``failed`` and ``history``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import orjson
import typer

from hs_stream.cli.common import (
    Config,
    catalog_of,
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
    writing_engine,
)
from hs_stream.cli.csv_files import write_rows
from hs_stream.cli.data import Format, FromOption, ToOption
from hs_stream.core.errors import ConfigurationError, NotFound, did_you_mean
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MIN_TIME, format_time, parse_time
from hs_stream.core.visible import visible_json
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.service.session import running_session
from hs_stream.service.settings import Settings
from hs_stream.service.states import entry_json, letter_json

__all__ = ["register"]

FormatOption = Annotated[Format, typer.Option("--format", help="table, json or csv")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    for command in (purge, dead_letters, failed, history):
        app.command()(command)


# --- purge ---


@guarded
def purge(
    stream: Annotated[str, typer.Argument(help="name[house=1,room=kitchen]; without plate values, all of them.")],
    start: FromOption = None,
    end: ToOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: Config = None,
) -> None:
    """Remove instances of a stream, or of all streams of a name. Not while a service uses the store.

    What is demanded of it, and of what is computed from it, is computed again from what is left.
    """
    settings = settings_of(config)
    first, until = parse_span(start, end)
    run(_purge(settings, catalog_of(settings).workflows, parse_stream(stream), first, until, yes))


async def _purge(
    settings: Settings, workflows: Sequence[WorkflowDefinition], wanted: StreamId, start: int, end: int, yes: bool
) -> None:
    instead = f"send it DELETE /api/streams?name={wanted.name}, with its token"
    async with writing_engine(settings, workflows, instead) as engine:
        found = engine.status(wanted.name, dict(wanted.meta))
        if not found:
            record = await find_record(engine.store, str(wanted))
            raise NotFound(f"no workflow of the settings has {record.stream}", hint="add its workflow to the settings")
        counts = [
            await engine.store.count(status.id, max(start, MIN_TIME if status.limit is None else status.limit), end)
            for status in found
            if status.limit is None or status.limit < end
        ]
        what = f"{found[0].stream}" if len(found) == 1 else f"{len(found)} streams of {wanted.name}"
        span = f"({format_time(start)}, {format_time(end)}]"
        if not yes:
            _confirm(f"Remove {sum(counts)} instances of {what} in {span}?")
        gone = sum([await engine.purge(status.stream, start, end) for status in found])
        await engine.settle()
    say(f"{gone} instances of {what} removed")
    if limits := [status.limit for status in found if status.limit is not None and status.limit > start]:
        say(f"kept: what lies up to {format_time(max(limits))} is final, by retention", err=True)


def _confirm(question: str) -> None:
    """Return when the answer is yes. `ConfigurationError` where nobody is there to give one."""
    if sys.stdin is not None:
        try:
            if typer.confirm(question):
                return
        except typer.Abort:
            if sys.stdin.isatty():
                raise
        else:
            raise typer.Abort
    raise ConfigurationError(
        "what is removed needs a confirmation, and nobody answers",
        hint="run it in a terminal, or confirm it with --yes",
    )


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
