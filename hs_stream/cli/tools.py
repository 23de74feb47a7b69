"""``tools list|show|check``; ``tools new`` is in `hs_stream.cli.new_tool`."""

from __future__ import annotations

import inspect
from typing import Annotated

import typer

from hs_stream.cli.common import Config, guarded, say, say_error, settings_of, show_table
from hs_stream.cli.new_tool import new
from hs_stream.core.errors import LawViolation, MissingPackage
from hs_stream.service.tool_docs import kinds_of, tool_json
from hs_stream.service.wiring import load_registry

__all__ = ["app"]

app = typer.Typer(help="The tool library and its checker.", no_args_is_help=True, rich_markup_mode=None)
app.command()(new)


@app.command("list")
@guarded
def list_(config: Config = None) -> None:
    """List every version of every tool."""
    rows = [
        (tool.name, tool.version, tool.kind, "one or more" if tool.arity is None else str(tool.arity), tool.summary())
        for tool in load_registry(settings_of(config))
    ]
    show_table(("tool", "version", "kind", "inputs", "summary"), rows)


@app.command()
@guarded
def show(name: str, config: Config = None) -> None:
    """Show a tool: its versions, parameters and documentation. NAME may hold a version range: ``ewma@^1``."""
    registry = load_registry(settings_of(config))
    newest = registry.resolve(name)
    versions = registry.versions(newest.name)
    say(f"{newest.name}@{newest.version} ({newest.kind}); versions: {', '.join(t.version for t in versions)}")
    if kinds := kinds_of(newest):
        say(f"kinds: {kinds}")
    say("")
    say(inspect.getdoc(newest) or "")
    say("")
    rows = [
        (parameter["name"], parameter["type"], "required" if parameter["required"] else str(parameter["default"]))
        for parameter in tool_json(newest)["parameters"]
    ]
    show_table(("parameter", "type", "default"), rows)


@app.command()
@guarded
def check(
    name: Annotated[str | None, typer.Argument(help="A tool or tool@version range; default: all tools.")] = None,
    examples: Annotated[int, typer.Option(min=1, help="Histories per parameter set.")] = 20,
    config: Config = None,
) -> None:
    """Check the split law of tools with random sources and cuts. Exit 1 when one breaks it."""
    from hs_stream.testing.check_tool import check_tool  # noqa: PLC0415 - only this command needs the checker

    registry = load_registry(settings_of(config))
    if name is None:
        tools = list(registry)
    elif "@" in name:
        tools = [registry.resolve(name)]
    else:
        tools = registry.versions(name)
    broken = 0
    for tool in tools:
        try:
            check_tool(tool, examples=examples)
        except MissingPackage as error:
            say(f"skip {tool.name}@{tool.version}: {error}")
        except LawViolation as error:
            broken += 1
            say_error(f"{tool.name}@{tool.version}: {error}")
        else:
            say(f"ok   {tool.name}@{tool.version} ({len(tool.samples)} parameter sets, {examples} histories each)")
    if broken:
        raise typer.Exit(1)
