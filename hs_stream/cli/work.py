"""``compute`` and ``verify``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from hs_stream.cli.common import (
    Config,
    find_workflow,
    guarded,
    now_ms,
    parse_span,
    reading_store,
    run,
    say,
    settings_of,
    writing_engine,
)
from hs_stream.core.errors import ConfigurationError, NotFound, did_you_mean
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MIN_TIME, TimeIntervals, format_time, parse_time, shift
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.ports import Store
from hs_stream.service.session import running_session
from hs_stream.service.settings import Settings
from hs_stream.service.wiring import engine_settings, load_registry, recovered_store, source_check
from hs_stream.service.workflow_file import load_workflow
from hs_stream.testing import oracle
from hs_stream.testing.oracle import Verification
from hs_stream.testing.preview import NodeChange, preview

__all__ = ["register"]

_TRIES = 6
_PAUSE = 1.0
_BEAT_LOOKS = 30
_SHOWN = 10


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
    """Compute on request: exactly what is missing in the interval."""
    settings = settings_of(config)
    found, workflows = find_workflow(settings, workflow)
    first, last = parse_span(start, end)
    for name in node or []:
        if name not in found.nodes:
            raise NotFound(f"workflow {found.name} has no node {name!r}", hint=did_you_mean(name, found.nodes))
    run(_compute(settings, workflows, found, set(node or found.nodes), first, last))


async def _compute(
    settings: Settings,
    workflows: list[WorkflowDefinition],
    workflow: WorkflowDefinition,
    nodes: set[str],
    start: int,
    end: int,
) -> None:
    instead = "ask it for /api/streams/ID/instances?compute=true"
    async with writing_engine(settings, workflows, instead) as engine:
        # Plates may grow by what is computed, and so may the streams that are asked for.
        nodes = nodes | {plate.source for plate in workflow.plates.values() if plate.source is not None}

        def wanted() -> list[StreamId]:
            return [status.stream for status in engine.status() if status.kind == "derived" and status.node in nodes]

        streams = wanted()
        if not streams:
            raise NotFound(
                f"workflow {workflow.name} has no streams yet",
                hint="they come with readings: hs-stream import or serve",
            )
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(f"{len(streams)} streams", total=None)
            computed: set[StreamId] = set()
            while fresh := [stream for stream in streams if stream not in computed]:
                await engine.compute(
                    fresh,
                    start,
                    end,
                    lambda done, total: bar.update(task, completed=done, total=max(total, 1)),
                    complete=True,
                )
                computed.update(fresh)
                streams = wanted()
        written = engine.statistics().results
        asked = TimeIntervals.of(start, end)
        left = [status.stream for status in engine.status() if status.stream in computed and asked - status.coverage]
    if left:
        say(
            f"note: not all of it can be computed, of {left[0]} and {len(left) - 1} others. What has no inputs begins "
            "at the workflow's `start`, or else at its first reading: give the workflow a start.",
            err=True,
        )
    say(f"{workflow.name}: {len(streams)} streams computed in {_span(start, end)}, {written} instances changed")


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
        changed = load_workflow(candidate, load_registry(settings), source_check(settings))
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
    behind = set(beat.get("pending", ()))
    pending = {
        stream: times
        for stream, times in result.missing.items()
        if behind & {stream.name, *workflow.ancestors(stream.name)}
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
