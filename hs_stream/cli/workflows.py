"""``workflow check|graph|list|show|save|remove``: the last two in the running service, else in its store."""

from __future__ import annotations

import contextlib
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import orjson
import typer

from hs_stream.cli.common import (
    Config,
    Held,
    catalog_of,
    change_store,
    guarded,
    run,
    say,
    say_error,
    settings_of,
    show_table,
)
from hs_stream.core.errors import NotFound, StoreUnavailable, did_you_mean
from hs_stream.core.visible import visible_json
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.service.http.pages import computed
from hs_stream.service.json_values import encode
from hs_stream.service.remote import Remote, running_service
from hs_stream.service.settings import Settings
from hs_stream.service.wiring import load_registry
from hs_stream.service.workflows.catalog import Catalog
from hs_stream.service.workflows.document import to_document
from hs_stream.service.workflows.doubts import doubts_about
from hs_stream.service.workflows.file import load_workflow
from hs_stream.service.workflows.graph import dot, graph_json, mermaid
from hs_stream.service.workflows.loading import checks_of
from hs_stream.service.workflows.yaml_items import write_yaml

__all__ = ["app"]

app = typer.Typer(help="Check, draw, list, save and remove workflows.", no_args_is_help=True, rich_markup_mode=None)


class TextFormat(StrEnum):
    """How a workflow is written."""

    YAML = "yaml"
    JSON = "json"


class GraphFormat(StrEnum):
    """How a graph is written."""

    MERMAID = "mermaid"
    DOT = "dot"
    JSON = "json"


@app.command()
@guarded
def check(file: Path, config: Config = None) -> None:
    """Check a workflow file: tools, parameters, sources, plates, topics. Errors name file and line.

    A warning is for what loads and is probably not meant: the exit code is 0, and the service says it once.
    """
    settings = settings_of(config)
    workflow = load_workflow(file, load_registry(settings), checks_of(settings))
    doubts = _warn(settings, workflow)
    published = sum(node.publish is not None for node in workflow.nodes.values())
    verdict = f"it loads, with {doubts} warning{'s' * (doubts > 1)}" if doubts else "fine"
    say(
        f"{file}: {verdict}. Workflow {workflow.name}: {len(workflow.sources)} sources, {len(workflow.nodes)} nodes, "
        f"{published} published"
    )


def _warn(settings: Settings, workflow: WorkflowDefinition) -> int:
    """Say what is probably not meant in ``workflow``, a line each below a heading; how many lines."""
    doubts = doubts_about(settings, [workflow])
    if doubts:
        say("probably not meant:", err=True)
    for doubt in doubts:
        say(f"warning: {doubt}", err=True)
    return len(doubts)


@app.command()
@guarded
def graph(
    file: Path,
    form: Annotated[GraphFormat, typer.Option("--format", help="mermaid, dot or json")] = GraphFormat.MERMAID,
    config: Config = None,
) -> None:
    """Draw the factor graph of a workflow file."""
    settings = settings_of(config)
    workflow = load_workflow(file, load_registry(settings), checks_of(settings))
    if form is GraphFormat.JSON:
        say(visible_json(orjson.dumps(encode(graph_json(workflow)), option=orjson.OPT_INDENT_2).decode()))
    else:
        say(mermaid(workflow) if form is GraphFormat.MERMAID else dot(workflow), nl=False)


@app.command("list")
@guarded
def list_(config: Config = None) -> None:
    """List the workflows of the settings' files and of the store, where each comes from, and whether it runs."""
    settings = settings_of(config)
    service = run(running_service(settings))
    try:
        catalog = catalog_of(settings)
    except StoreUnavailable as error:
        say_error(f"only the files are listed: {error}")
        catalog = Catalog(settings, load_registry(settings))
    rows = {one.name: (catalog.origin(one.name), "no", *_row(one)) for one in catalog.workflows}
    for item in service.ask("GET", "/api/workflows")["workflows"] if service is not None else ():
        mode = computed(item["online"], bool(item["requested_intervals"]))
        counts = (str(len(item[key])) for key in ("sources", "nodes", "published"))
        rows[item["name"]] = (item["from"], "yes", mode, *counts, item["description"])
    names = ("workflow", "from", "runs", "computed", "sources", "nodes", "published", "description")
    show_table(names, [(name, *row) for name, row in rows.items()])


def _row(workflow: WorkflowDefinition) -> tuple[str, ...]:
    published = sum(node.publish is not None for node in workflow.nodes.values())
    counts = (str(len(workflow.sources)), str(len(workflow.nodes)), str(published))
    return (computed(workflow.online, bool(workflow.requested_intervals)), *counts, workflow.description)


@app.command()
@guarded
def show(
    name: str,
    form: Annotated[TextFormat, typer.Option("--format", help="yaml or json")] = TextFormat.YAML,
    config: Config = None,
) -> None:
    """Print a workflow as a workflow file: as the service runs it, else as it is in its file or in the store."""
    settings = settings_of(config)
    service = run(running_service(settings))
    document = None
    if service is not None:
        with contextlib.suppress(NotFound):
            document = service.ask("GET", f"/api/workflows/{quote(name, safe='')}?resolved=false")
    if document is None:
        found = {one.name: one for one in catalog_of(settings).workflows}
        if name not in found:
            raise NotFound(f"there is no workflow {name!r}", hint=did_you_mean(name, found))
        document = encode(to_document(found[name]))
    if form is TextFormat.JSON:
        say(visible_json(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()))
    else:
        say(write_yaml(document), nl=False)


@app.command()
@guarded
def save(file: Path, config: Config = None) -> None:
    """Save the workflow of a file in the store. A running service runs it at once, else its next start does."""
    settings = settings_of(config)
    workflow = load_workflow(file, load_registry(settings), checks_of(settings))
    _warn(settings, workflow)

    async def here(held: Held) -> str:
        catalog = await held.catalog()
        return f"{await catalog.save(held.store, workflow)}. It runs when the service starts"

    def through(service: Remote) -> str:
        path = f"/api/workflows/{quote(workflow.name, safe='')}"
        answer = service.ask("PUT", path, file.read_bytes(), "application/yaml")
        return f"{answer['message']}. The service runs it"

    say(change_store(settings, here, through))


@app.command()
@guarded
def remove(name: str, config: Config = None) -> None:
    """Remove a saved workflow. What it has computed stays."""
    settings = settings_of(config)

    async def here(held: Held) -> str:
        # Not `Held.catalog`: a saved workflow that does not load must be removable.
        return str(await Catalog(settings, load_registry(settings)).remove(held.store, name))

    def through(service: Remote) -> str:
        return str(service.ask("DELETE", f"/api/workflows/{quote(name, safe='')}")["message"])

    say(change_store(settings, here, through))
