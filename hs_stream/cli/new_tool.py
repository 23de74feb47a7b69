"""``tools new``: a folder with a tool, its test and its README, to begin from."""

from __future__ import annotations

import keyword
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from hs_stream.builder import Node
from hs_stream.cli.common import Config, guarded, settings_of
from hs_stream.cli.tool_templates import TEMPLATES
from hs_stream.core.errors import ConfigurationError
from hs_stream.core.registry import ToolRegistry
from hs_stream.service.wiring import load_registry

__all__ = ["new"]

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


class Kind(StrEnum):
    """Which base class; see docs/guides/write-a-tool.md."""

    MAP = "map"
    WINDOW = "window"
    PREVIOUS = "previous"
    FOLD = "fold"
    AGGREGATE = "aggregate"


@guarded
def new(
    name: Annotated[str, typer.Argument(help="Of the tool: small letters, digits and _.")],
    kind: Annotated[Kind, typer.Option(help="map, window, previous, fold or aggregate")] = Kind.MAP,
    path: Annotated[
        Path | None, typer.Option(help="The folder to write into; default: one of the tool's name.")
    ] = None,
    config: Config = None,
) -> None:
    """Write a new tool, its test and its README. Nothing that is there is overwritten."""
    check_name(name, load_registry(settings_of(config)))
    folder = Path(name) if path is None else path
    files = {folder / file: text for file, text in TEMPLATES[kind].files(name).items()}
    for file in files:
        if file.exists():
            raise ConfigurationError(f"{file} is there already", hint="name another folder with --path")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            # "x": also what came in between is not overwritten.
            with file.open("x", encoding="utf-8") as out:
                out.write(text)
            typer.echo(file)
    except OSError as error:
        raise ConfigurationError(f"cannot write into {folder}: {error.strerror}", hint="name another --path") from None
    typer.echo(f"Next: python -m pytest {folder} (to install pytest: pip install 'hs_stream[testing]')")
    typer.echo(f"Then: tools.paths = [{str(folder)!r}] in the settings")


def check_name(name: str, registry: ToolRegistry) -> None:
    """`ConfigurationError` with the reason why a new tool cannot have this name."""
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} is no name for a tool", hint="use small letters, digits and _, beginning with a letter"
        )
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise ConfigurationError(f"{name!r} is a word of Python's own", hint="choose another name")
    if name in registry:
        versions = ", ".join(tool.version for tool in registry.versions(name))
        raise ConfigurationError(
            f"there is a tool {name} already ({versions})",
            hint="choose another name, or write its next version beside it",
        )
    if name in sys.stdlib_module_names:
        raise ConfigurationError(
            f"{name}.py would hide Python's module {name} from its test", hint="choose another name"
        )
    if name.startswith("test_") or name == "conftest":
        raise ConfigurationError(f"{name}.py would be taken for a test", hint="choose another name")
    if hasattr(Node, name):
        raise ConfigurationError(f"nodes in Python have a method {name} already", hint="choose another name")
