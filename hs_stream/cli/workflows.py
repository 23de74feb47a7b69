"""``workflow check|graph|list``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import orjson
import typer

from hs_stream.cli.common import Config, all_workflows, guarded, settings_of, show_table
from hs_stream.service.json_values import encode
from hs_stream.service.wiring import load_registry, source_check
from hs_stream.service.workflow_file import load_workflow
from hs_stream.service.workflow_graph import dot, graph_json, mermaid

__all__ = ["app"]

app = typer.Typer(help="Check, draw and list workflows.", no_args_is_help=True, rich_markup_mode=None)


class GraphFormat(StrEnum):
    """How a graph is written."""

    MERMAID = "mermaid"
    DOT = "dot"
    JSON = "json"


@app.command()
@guarded
def check(file: Path, config: Config = None) -> None:
    """Check a workflow file: tools, parameters, sources, plates, topics. Errors name file and line."""
    settings = settings_of(config)
    workflow = load_workflow(file, load_registry(settings), source_check(settings))
    published = sum(node.publish is not None for node in workflow.nodes.values())
    typer.echo(
        f"{file}: fine. Workflow {workflow.name}: {len(workflow.sources)} sources, {len(workflow.nodes)} nodes, "
        f"{published} published"
    )


@app.command()
@guarded
def graph(
    file: Path,
    form: Annotated[GraphFormat, typer.Option("--format", help="mermaid, dot or json")] = GraphFormat.MERMAID,
    config: Config = None,
) -> None:
    """Draw the factor graph of a workflow file."""
    settings = settings_of(config)
    workflow = load_workflow(file, load_registry(settings), source_check(settings))
    if form is GraphFormat.JSON:
        typer.echo(orjson.dumps(encode(graph_json(workflow)), option=orjson.OPT_INDENT_2).decode())
    else:
        typer.echo(mermaid(workflow) if form is GraphFormat.MERMAID else dot(workflow), nl=False)


@app.command("list")
@guarded
def list_(config: Config = None) -> None:
    """List the workflows of the settings."""
    _, workflows = all_workflows(settings_of(config))
    rows = []
    for workflow in workflows:
        published = sum(node.publish is not None for node in workflow.nodes.values())
        counts = (str(len(workflow.sources)), str(len(workflow.nodes)), str(published))
        mode = "online" if workflow.online else "on request"
        rows.append((workflow.name, workflow.path, mode, *counts, workflow.description))
    show_table(("workflow", "file", "computed", "sources", "nodes", "published", "description"), rows)
