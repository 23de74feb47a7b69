"""The command line put together; each group of commands is a module of its own."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from hs_stream.cli import assets, data, discover, explain, imports, service, tools, upkeep, work, workflows
from hs_stream.cli.common import DEBUG, say_error
from hs_stream.service.wiring import version

__all__ = ["app", "main"]

# click's, or of the copy of click that newer versions of typer bring along
_UsageError: Any = typer.BadParameter.__base__

app = typer.Typer(
    name="hs-stream",
    help="Streams of a smart home, recomputed incrementally.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"hs-stream {version()}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    _show: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    DEBUG.set(debug)


for module in (service, work, data, explain, imports, upkeep, discover):
    module.register(app)
app.add_typer(tools.app, name="tools")
app.add_typer(workflows.app, name="workflow")
app.add_typer(assets.app, name="assets")


def main() -> None:
    """The entry point: one line on stderr for every error, also for wrong usage."""
    arguments = sys.argv[1:]
    if "--debug" in arguments:
        arguments = ["--debug", *(word for word in arguments if word != "--debug")]
    try:
        code = app(arguments, prog_name="hs-stream", standalone_mode=False)
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(error.format_message())
        else:
            command = error.ctx.command_path if error.ctx else "hs-stream"
            say_error(f"{error.format_message()} (see {command} --help)")
        code = 2
    except typer.Abort:
        code = 130
    except BrokenPipeError:
        # Whoever read our output has had enough; Python would complain once more while it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    raise SystemExit(code or 0)
