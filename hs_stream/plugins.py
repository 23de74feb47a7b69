"""Where tools come from: our own library, installed distributions, and folders of the user's.

1. Every module named by an entry point of the group ``hs_stream.tools``, and every module of ``hs_stream_tools`` (so
   that a checkout works without being installed).
2. Every ``*.py`` of the given folders, in alphabetical order, but for ``_*.py``, ``test_*.py`` and ``conftest.py``.
3. A tool of somebody else that does not leave its loop to one of the base classes must pass
   `hs_stream.testing.check_tool` before it is registered. (Ours pass it in our own tests.)
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Final

from hs_stream.core.errors import ConfigurationError, LawViolation
from hs_stream.core.registry import ToolRegistry
from hs_stream.core.tool import AggregateTool, FoldTool, MapTool, PreviousTool, SplitTool, Tool, WindowTool
from hs_stream.entry_points import TOOLS, load, owner

__all__ = ["default_registry", "keeps_law", "load_folder"]

_LIBRARY: Final = "hs_stream_tools"
_BASES: Final = (MapTool, WindowTool, PreviousTool, FoldTool, AggregateTool, SplitTool)
_LOOP: Final = ("support", "drive", "evaluate", "run", "map_batch", "reduce_windows")


def default_registry(paths: Iterable[str | Path] = (), allow_development: bool = True) -> ToolRegistry:
    """Every tool there is. ``paths`` are folders of ``*.py`` files.

    ``allow_development = False`` refuses versions 0.x when a workflow asks for them. `ConfigurationError` names the
    file and line, or the distribution, that cannot be loaded.
    """
    registry = ToolRegistry(allow_development=allow_development)
    for module, brought_by in _installed_modules():
        try:
            if brought_by:
                for tool in ToolRegistry().add_module(module):
                    _prove(tool)
            registry.add_module(module)
        except ConfigurationError as error:
            if not brought_by:
                raise
            raise ConfigurationError(f"the tools of {brought_by}: {error.message}", hint=error.hint) from error
    for path in paths:
        load_folder(registry, Path(path))
    return registry


def keeps_law(tool: type[Tool]) -> bool:
    """Whether a base class owns the loop over time of ``tool``, so that it keeps the split law by construction."""
    base = next((base for base in _BASES if issubclass(tool, base)), None)
    return base is not None and all(
        getattr(tool, method) is getattr(base, method) for method in _LOOP if hasattr(base, method)
    )


def load_folder(registry: ToolRegistry, folder: Path) -> list[type[Tool]]:
    """Register the tools of every ``*.py`` in ``folder`` and return them."""
    if not folder.is_dir():
        raise ConfigurationError(
            f"tools.paths: {folder} is not a folder", hint="create it, or take it out of the settings"
        )
    found: list[type[Tool]] = []
    for path in sorted(folder.glob("*.py")):
        if path.name.startswith(("_", "test_")) or path.name == "conftest.py":
            continue
        module = _load_file(path)
        try:
            for tool in ToolRegistry().add_module(module):
                _prove(tool)
            found += registry.add_module(module)
        except _Unproven as error:
            line = inspect.getsourcelines(error.tool)[1]
            raise ConfigurationError(error.message, hint=error.hint, path=str(path), line=line) from error
        except ConfigurationError as error:
            raise ConfigurationError(error.message, hint=error.hint, path=str(path), line=error.line) from error
    return found


def _installed_modules() -> list[tuple[ModuleType, str]]:
    """Modules with tools, each with the distribution that brings it. Our own come first, with an empty one."""
    modules: dict[str, tuple[ModuleType, str]] = {}
    for entry in sorted(entry_points(group=TOOLS), key=lambda entry: (entry.name, entry.value)):
        module = load(entry, "tools")
        if not isinstance(module, ModuleType):
            raise ConfigurationError(
                f"the tools {entry.name} = {entry.value!r} of {owner(entry)} are no module",
                hint="name a module that defines tools",
            )
        own = module.__name__.startswith(f"{_LIBRARY}.")
        modules[module.__name__] = (module, "" if own else owner(entry))
    try:
        library = importlib.import_module(_LIBRARY)
    except ModuleNotFoundError as error:
        if error.name != _LIBRARY:
            raise
    else:
        for found in pkgutil.iter_modules(library.__path__):
            if not found.name.startswith("_"):
                name = f"{_LIBRARY}.{found.name}"
                modules.setdefault(name, (importlib.import_module(name), ""))
    return sorted(modules.values(), key=lambda item: bool(item[1]))


def _load_file(path: Path) -> ModuleType:
    # Two folders may hold files of one name.
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    name = f"hs_stream_plugin_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigurationError("is not a Python file", path=str(path))
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and type hints look their module up by its name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigurationError(
            f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}",
            hint="this tool plugin cannot be loaded",
            path=str(path),
            line=_line(error, path),
        ) from error
    return module


def _line(error: BaseException, path: Path) -> int | None:
    """The last line of ``path`` that the error passed through."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    frames = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return frames[-1] if frames else None


class _Unproven(ConfigurationError):
    def __init__(self, tool: type[Tool], error: LawViolation) -> None:
        super().__init__(
            f"{tool.name}@{tool.version} breaks a law of tools: {error}",
            hint="subclass MapTool, WindowTool, PreviousTool or FoldTool, or repair evaluate",
        )
        self.tool = tool


def _prove(tool: type[Tool]) -> None:
    if keeps_law(tool):
        return
    # A service whose tools all keep the law by construction does not need the checker.
    from hs_stream.testing.check_tool import check_tool  # noqa: PLC0415

    try:
        check_tool(tool, examples=20, seed=0)
    except LawViolation as error:
        raise _Unproven(tool, error) from error
