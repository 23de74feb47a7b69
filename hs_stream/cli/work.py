"""``compute`` and ``verify``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

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
from hs_stream.core.time import TimeIntervals, format_time
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.service.session import running_session
from hs_stream.service.settings import Settings
from hs_stream.service.wiring import load_registry, source_check
from hs_stream.service.workflow_file import load_workflow
from hs_stream.testing import oracle
from hs_stream.testing.oracle import Verification
from hs_stream.testing.preview import NodeChange, preview

__all__ = ["register"]

_TRIES = 6
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
    """Compare what is stored with an evaluation from scratch. Exit 1 and the first differences if they differ."""
    settings = settings_of(config)
    found, _ = find_workflow(settings, workflow)
    first, last = parse_span(start, end)
    if candidate is not None:
        changed = load_workflow(candidate, load_registry(settings), source_check(settings))
        for line in preview_lines(changed.path, run(_preview(settings, found, changed, first, last))):
            say(line)
        return
    result = run(_verify(settings, found, first, last))
    say(summary(found.name, result, last))
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


async def _verify(settings: Settings, workflow: WorkflowDefinition, start: int, end: int) -> Verification:
    """A difference counts when it is there in every one of several looks: on a live store readings are in flight."""
    result = Verification()
    for attempt in range(_TRIES):
        async with reading_store(settings) as store:
            names = {*workflow.sources, *workflow.nodes}
            if not any(record.stream.name in names for record in await store.streams()):
                raise ConfigurationError(
                    f"the store has no streams of {workflow.name}", hint="check store.url; hs-stream streams lists them"
                )
            result = await oracle.verify(store, [workflow], start, end)
            if result.clean or not await running_session(store, now_ms()):
                return result
        if attempt < _TRIES - 1:
            await asyncio.sleep(1.0)
    return result


def summary(name: str, result: Verification, end: int) -> str:
    """One line, and one for what was not compared."""
    state = "clean" if result.clean else f"{result.count} differences"
    text = f"{name}: {state}. {result.streams} streams, {result.instances} instances compared with a run from scratch"
    # What is not computed up to the end is the normal state of a running stream; a hole before it is worth a word.
    holes = {
        stream: TimeIntervals(pair for pair in spans.pairs if pair[1] < end)
        for stream, spans in result.not_computed.items()
    }
    holes = {stream: spans for stream, spans in holes.items() if spans}
    for stream, spans in list(holes.items())[:3]:
        text += f"\n  not computed: {stream} in {spans}"
    if len(holes) > 3:
        text += f"\n  not computed: {len(holes) - 3} more streams"
    for stream, error in list(result.not_computable.items())[:3]:
        text += f"\n  cannot be computed: {stream}: {error}"
    return text
