"""``compute`` and ``verify``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from hs_stream.cli.common import (
    Config,
    Held,
    change_store,
    find_workflow,
    guarded,
    now_ms,
    parse_span,
    reading_store,
    run,
    say,
    settings_of,
)
from hs_stream.core.errors import ConfigurationError, NotFound, Unavailable, did_you_mean
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MIN_TIME, TimeIntervals, format_time, parse_time, shift
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.ports import Store
from hs_stream.service.host import recovered_store
from hs_stream.service.json_values import dumps, encode
from hs_stream.service.remote import Remote
from hs_stream.service.session import running_session
from hs_stream.service.settings import Settings
from hs_stream.service.wiring import engine_settings, load_registry
from hs_stream.service.workflows.document import to_document
from hs_stream.service.workflows.file import load_workflow
from hs_stream.service.workflows.loading import checks_of
from hs_stream.testing import oracle
from hs_stream.testing.oracle import Verification
from hs_stream.testing.preview import NodeChange, preview

__all__ = ["compute_through", "register"]

_TRIES = 6
_PAUSE = 1.0
_BEAT_LOOKS = 30
_SHOWN = 10
_MOST_STREAMS = 1_000


class Backend(StrEnum):
    """Where steps are evaluated."""

    LOCAL = "local"


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    for command in (compute, verify):
        app.command()(command)


@guarded
def compute(
    workflow: Annotated[str, typer.Argument(help="Its name in the settings, or its file.")],
    start: Annotated[str, typer.Option("--from", help="Excluded; ISO 8601, now or -1h.")],
    end: Annotated[str, typer.Option("--to", help="Included.")],
    node: Annotated[list[str] | None, typer.Option(help="Only this node; may be repeated.")] = None,
    backend: Annotated[Backend, typer.Option(help="Only local exists.")] = Backend.LOCAL,  # noqa: ARG001
    config: Config = None,
) -> None:
    """Compute on request: exactly what is missing in the interval. A running service does it, where one is."""
    settings = settings_of(config)
    say(change_store(settings, *_computing(settings, workflow, node, *parse_span(start, end))))


def _computing(
    settings: Settings, name: str, chosen: list[str] | None, start: int, end: int
) -> tuple[Callable[[Held], Coroutine[Any, Any, str]], Callable[[Remote], str]]:
    """Both ways of it; they return what to say."""

    async def here(held: Held) -> str:
        workflow, workflows = find_workflow(settings, name, (await held.catalog()).workflows)
        nodes = _nodes(workflow.name, chosen, workflow.nodes)
        # Plates may grow by what is computed, and so may the streams that are asked for.
        nodes |= {plate.source for plate in workflow.plates.values() if plate.source is not None}
        engine = await held.engine(workflows)

        def streams() -> list[str]:
            return [str(one.stream) for one in engine.status() if one.kind == "derived" and one.node in nodes]

        left: list[str] = []
        asked, count = TimeIntervals.of(start, end), 0
        with _progress() as show:
            for fresh in _every(workflow.name, streams):
                targets = [StreamId.parse(text) for text in fresh]
                await engine.compute(targets, start, end, show, complete=True)
                count += len(targets)
                left += [str(target) for target in targets if asked - engine.find(target).coverage]
        _note(
            left,
            "What has no inputs begins at the workflow's `start`, or else at its first reading: give the workflow "
            "a start",
        )
        written = engine.statistics().results
        return f"{workflow.name}: {count} streams computed in {_span(start, end)}, {written} instances changed"

    def through(service: Remote) -> str:
        workflow = _running(settings, service, name)
        nodes = _nodes(workflow["workflow"], chosen, workflow["nodes"])
        nodes |= {plate["source"] for plate in workflow.get("plates", {}).values() if plate.get("source")}

        def streams() -> list[str]:
            return [text for node in sorted(nodes) for text in _streams_of(service, node)]

        left: list[str] = []
        count = 0
        with _progress() as show:
            for fresh in _every(workflow["workflow"], streams):
                for first in range(0, len(fresh), _MOST_STREAMS):
                    some = fresh[first : first + _MOST_STREAMS]
                    left += compute_through(service, some, start, end, show)
                count += len(fresh)
        _note(left, "What its inputs do not cover yet, the service computes when they do")
        return f"{workflow['workflow']}: {count} streams computed in {_span(start, end)} by the service"

    return here, through


def compute_through(
    service: Remote, streams: Sequence[str], start: int, end: int, show: Callable[[int, int], object] = lambda *_: None
) -> list[str]:
    """Let ``service`` compute what is missing of ``streams``; of which of them not all of it could be (yet).

    ``show`` is told of progress. Raises what the service says.
    """
    wanted = {"streams": streams, "start": str(start), "end": str(end)}
    for kind, document in service.events("/api/compute", json.dumps(wanted).encode()):
        show(document["done"], document["total"])
        if kind == "done":
            left: list[str] = document["incomplete"]
            return left
    raise Unavailable(
        f"the service at {service.url} ended before it was done", hint="ask again: what is computed stays"
    )


def _running(settings: Settings, service: Remote, name: str) -> dict[str, Any]:
    """The document of the workflow ``name`` that the service runs. `ConfigurationError` where its file has another."""
    given = None
    if Path(name).is_file():
        given = load_workflow(name, load_registry(settings), checks_of(settings))
        name = given.name
    document: dict[str, Any] = service.ask("GET", f"/api/workflows/{quote(name, safe='')}?resolved=false")
    if given is not None and document != json.loads(dumps(encode(to_document(given)))):
        raise ConfigurationError(
            f"the service runs another workflow {name} than that of {given.path}",
            hint=f"name it {name} to compute what it runs, or let it run the file first: send it SIGHUP, or "
            f"hs-stream workflow save {given.path}",
        )
    return document


def _streams_of(service: Remote, node: str) -> Iterator[str]:
    cursor = -1
    while cursor is not None:
        page = service.ask("GET", f"/api/streams?name={quote(node, safe='')}&limit=1000&cursor={cursor}")
        yield from (row["stream"] for row in page["streams"] if row["kind"] == "derived")
        cursor = page["next"]


def _nodes(workflow: str, chosen: list[str] | None, known: Collection[str]) -> set[str]:
    for name in chosen or []:
        if name not in known:
            raise NotFound(f"workflow {workflow} has no node {name!r}", hint=did_you_mean(name, known))
    return set(chosen or known)


def _every(workflow: str, streams: Callable[[], list[str]]) -> Iterator[list[str]]:
    """What ``streams`` says, and again what is new, until that is nothing. `NotFound` where it never says anything."""
    seen: set[str] = set()
    while fresh := [stream for stream in streams() if stream not in seen]:
        yield fresh
        seen.update(fresh)
    if not seen:
        raise NotFound(
            f"workflow {workflow} has no streams yet", hint="they come with readings: hs-stream import or serve"
        )


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar; ``show(done, total)`` moves it."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("computing", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=max(total, 1))


def _note(left: Sequence[str], why: str) -> None:
    if left:
        say(f"note: not all of it can be computed, of {left[0]} and {len(left) - 1} others. {why}.", err=True)


def _span(start: int, end: int) -> str:
    return f"({format_time(start)}, {format_time(end)}]"


@guarded
def verify(
    workflow: Annotated[str, typer.Argument(help="Its name in the settings, or its file.")],
    start: Annotated[str | None, typer.Option("--from", help="Excluded; default: the beginning.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Included; default: the end.")] = None,
    candidate: Annotated[
        Path | None, typer.Option(help="A changed workflow file: show how stored results would change; nothing fails.")
    ] = None,
    config: Config = None,
) -> None:
    """Compare what is stored with an evaluation from scratch. Exit 1 and the first differences if they differ.

    What is wanted, could be computed by now and is missing is a difference too. What the running service has still to
    compute is called pending, and is none.
    """
    settings = settings_of(config)
    found, _ = find_workflow(settings, workflow)
    first, last = parse_span(start, end)
    if candidate is not None:
        changed = load_workflow(candidate, load_registry(settings), checks_of(settings))
        for line in preview_lines(changed.path, run(_preview(settings, found, changed, first, last))):
            say(line)
        return
    result, looked = run(_verify(settings, found, first, last))
    say(summary(found.name, result, looked, last))
    if not result.clean:
        for mismatch in result.mismatches[:_SHOWN]:
            say(f"  {mismatch}")
        if result.count > _SHOWN:
            say(f"  ... and {result.count - _SHOWN} more")
        raise typer.Exit(1)


async def _preview(
    settings: Settings, current: WorkflowDefinition, candidate: WorkflowDefinition, start: int, end: int
) -> list[NodeChange]:
    async with reading_store(settings) as store:
        return await preview(store, current, candidate, start, end)


def preview_lines(path: str, changes: Sequence[NodeChange]) -> Iterator[str]:
    """A line a node, and the first differences below it."""
    different = [change for change in changes if change.state != "same"]
    yield f"{path}: {len(different)} of {len(changes)} nodes would change"
    for change in changes:
        line = f"  {change.node}: {change.state}, {change.streams} streams, {change.before} -> {change.after} instances"
        if change.state == "changed":
            line += f"; {change.revised} revised, {change.new} new, {change.gone} gone"
        if change.deviation is not None:
            line += f"; at most {change.deviation:g} apart"
        yield line + (f"; cannot be computed: {change.error}" if change.error else "")
        if change.state == "changed":
            for one in change.first:
                yield f"    {one.stream} at {format_time(one.time)}: {one.stored!r} -> {one.expected!r}"


@dataclass(frozen=True, slots=True)
class _Looked:
    """Beside what `verify` found: whether a service is at work, and what it will compute by itself."""

    served: bool = False
    pending: Mapping[StreamId, list[int]] = field(default_factory=dict)


async def _verify(
    settings: Settings, workflow: WorkflowDefinition, start: int, end: int
) -> tuple[Verification, _Looked]:
    """What is wrong in every one of several looks: on a live store readings are in flight.

    What is missing in all of them may be a long backlog. The service says so with its heartbeat, so we wait for one.
    """
    began = now_ms()
    result, beat = await _look(settings, workflow, start, end)
    for _ in range(_TRIES - 1):
        if result.clean or beat is None:
            break
        await asyncio.sleep(_PAUSE)
        before = result
        result, beat = await _look(settings, workflow, start, end)
        _drop_moving(result, before)
    for _ in range(_BEAT_LOOKS):
        if not result.missing or beat is None or parse_time(str(beat["seen"]), now=now_ms()) >= began:
            break
        await asyncio.sleep(_PAUSE)
        async with reading_store(settings) as store:
            beat = await _heartbeat(store)
    if not result.missing or beat is None:
        return result, _Looked(beat is not None)
    before = result
    result, _ = await _look(settings, workflow, start, end)
    _drop_moving(result, before)
    computing = set(beat.get("pending", ()))
    pending = {
        stream: times
        for stream, times in result.missing.items()
        if computing & {stream.name, *workflow.ancestors(stream.name)}
    }
    result.missing = {stream: times for stream, times in result.missing.items() if stream not in pending}
    return result, _Looked(True, pending)


async def _look(
    settings: Settings, workflow: WorkflowDefinition, start: int, end: int
) -> tuple[Verification, Mapping[str, Any] | None]:
    """What is wrong now, and what a service at work has said of itself."""
    async with recovered_store(settings) as (store, left):
        names = {*workflow.sources, *workflow.nodes}
        if not any(record.stream.name in names for record in await store.streams()):
            raise ConfigurationError(
                f"the store has no streams of {workflow.name}", hint="check store.url; hs-stream streams lists them"
            )
        proven = MIN_TIME if left.proven is None else left.proven
        horizon = shift(proven, -engine_settings(settings).idle)
        return await oracle.verify(store, [workflow], start, end, horizon=horizon), await _heartbeat(store)


async def _heartbeat(store: Store) -> Mapping[str, Any] | None:
    """The document of the running service."""
    session = await running_session(store, now_ms())
    return None if session is None else (await store.documents("sessions")).get(session)


def _drop_moving(now: Verification, before: Verification) -> None:
    """Leave out of ``now`` what is missing only since the look before: it is being computed."""
    both = {stream: set(times).intersection(before.missing.get(stream, ())) for stream, times in now.missing.items()}
    now.missing = {stream: sorted(times) for stream, times in both.items() if times}


def summary(name: str, result: Verification, looked: _Looked, end: int) -> str:
    """One line, and one for each thing to know: what is missing, pending, not computed."""
    wrong = [f"{result.count} differences"] if result.count else []
    wrong += [f"{len(result.missing)} streams are incomplete"] if result.missing else []
    text = f"{name}: {', '.join(wrong) or 'clean'}. {result.streams} streams, {result.instances} instances compared"
    lines = [f"{text} with a run from scratch"]
    lines += _some([f"missing: {_of(stream, times)}" for stream, times in result.missing.items()])
    if result.missing and looked.served:
        lines.append("  nothing is pending there: this is an error of hs-stream, please report it; a restart of the")
        lines.append("  service looks at all of it again")
    elif result.missing:
        lines.append("  no service is at work on this store: `hs-stream serve` computes what is missing")
    lines += _some([f"pending: {_of(stream, times)}" for stream, times in looked.pending.items()])
    # What is not computed up to the end is the normal state of a running stream; a hole before it is worth a word.
    named = {*result.missing, *looked.pending}
    holes = {
        stream: TimeIntervals(pair for pair in spans.pairs if pair[1] < end)
        for stream, spans in result.not_computed.items()
        if stream not in named
    }
    lines += _some([f"not computed: {stream} in {spans}" for stream, spans in holes.items() if spans])
    lines += _some([f"cannot be computed: {stream}: {error}" for stream, error in result.not_computable.items()])
    return "\n".join(lines)


def _some(lines: Sequence[str], most: int = 3) -> list[str]:
    more = [f"  ... and {len(lines) - most} more streams"] if len(lines) > most else []
    return [*(f"  {line}" for line in lines[:most]), *more]


def _of(stream: StreamId, times: Sequence[int]) -> str:
    return f"{stream} in {_span(times[0] - 1, times[-1])}, {len(times)} instances"
