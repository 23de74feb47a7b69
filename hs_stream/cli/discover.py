"""``discover``: listen to a broker, and write a workflow file for what it carries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from hs_stream.cli.common import Config, guarded, run, say, settings_of, unlogged
from hs_stream.core.errors import ConfigurationError
from hs_stream.core.registry import ToolRegistry
from hs_stream.core.time import zone
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.service.connectors import mqtt_options
from hs_stream.service.settings import Settings
from hs_stream.service.wiring import load_registry
from hs_stream.service.workflows.file import load_workflow, parse_workflow
from hs_stream.service.workflows.loading import checks_of, workflow_files
from hs_stream_connectors.discovery.discover import discover
from hs_stream_connectors.discovery.survey import Survey
from hs_stream_connectors.mqtt.listen import listen

__all__ = ["register"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("discover")(discover_)


@guarded
def discover_(
    seconds: Annotated[float, typer.Option("--for", min=1, max=86_400, help="Listen for so many seconds.")] = 30,
    url: Annotated[str | None, typer.Option(help="The broker; default: that of the settings.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="A file to write; default: stdout.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the workflow; default: the file's name.")] = None,
    tz: Annotated[str | None, typer.Option(help="The zone of Tasmota devices, such as Europe/Brussels.")] = None,
    config: Config = None,
) -> None:
    """Listen to a broker and write a workflow file for what it carries: topics, codecs, times, plates, fields."""
    name = name or (output.stem if output is not None else "discovered")
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{name!r} is no name for a workflow", hint="give --name, such as home")
    if output is not None and output.exists():
        raise ConfigurationError(f"{output} is there already", hint="remove it, or give another -o")
    if tz is not None:
        try:
            zone(tz)
        except ValueError as error:
            raise ConfigurationError(f"--tz: {error}") from None
    settings = settings_of(config)
    registry = load_registry(settings)
    served = list(_served(settings, registry))
    for other in served:
        if other.name == name:
            raise ConfigurationError(f"{other.path} is a workflow {name!r} already", hint="give another --name")
    options = mqtt_options(settings)
    if url is not None:
        options = replace(options, url=url)
    survey = Survey()
    with unlogged():
        run(listen(options, seconds, survey.add))
    found = discover(
        survey,
        own_prefix=settings.mqtt.prefix,
        log_topic=settings.logging.mqtt_topic,
        zone=tz,
        taken={word for other in served for word in (*other.sources, *other.nodes)},
        read=[
            str(source.options["mqtt"])
            for other in served
            for source in other.sources.values()
            if "mqtt" in source.options
        ],
    )
    text = found.workflow_file(name)
    # What is written is checked as `workflow check` would.
    parse_workflow(text, registry, str(output or "<discovered>"), checks_of(settings))
    if output is None:
        say(text, nl=False)
    elif found.sources:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    for line in found.counts():
        say(line, err=True)
    for source in found.sources:
        say(f"  {source.name}: {source.options['codec']}, {source.options['mqtt']}", err=True)
    if output is not None and not found.sources:
        say(f"there is nothing to read: {output} is not written", err=True)


def _served(settings: Settings, registry: ToolRegistry) -> Iterator[WorkflowDefinition]:
    """The workflows that `serve` would run. A file that is not there yet may be the one that is to be written."""
    checks = checks_of(settings)
    files: dict[Path, None] = {}
    for pattern in settings.workflows:
        with suppress(ConfigurationError):
            files |= dict.fromkeys(workflow_files([pattern]))
    for path in files:
        try:
            yield load_workflow(path, registry, checks)
        except ConfigurationError as error:
            say(f"warning: what this file reads and names is not known: {error}", err=True)
