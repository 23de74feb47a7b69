"""Tools by name and semantic version, every released version side by side.

1. A pin is ``name`` or ``name@SPEC``; SPEC is a ``semantic_version.SimpleSpec`` such as ``^1.2`` or ``==1.0.3``.
2. The newest version that a pin allows is taken. Major 0 is a development version, refused unless allowed.
3. Registering another class under a name and version that is taken is an error; the same class again is not.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType

from semantic_version import SimpleSpec, Version

from hs_stream.core.errors import ConfigurationError, UnknownToolError
from hs_stream.core.tool import Tool

__all__ = ["ToolRegistry", "parse_pin"]


def parse_pin(pin: str) -> tuple[str, str]:
    """``("sliding_mean", "^1.2")`` from ``"sliding_mean@^1.2"``; without ``@`` the spec is ``*``.

    Raises `ConfigurationError` for a spec that is none.
    """
    name, _, spec = pin.partition("@")
    name, spec = name.strip(), spec.strip() or "*"
    try:
        SimpleSpec(spec)
    except ValueError:
        raise ConfigurationError(
            f"{pin!r}: {spec!r} is not a version range", hint="write for example ^1, ^1.2, ==1.0.3 or >=1.2,<2"
        ) from None
    return name, spec


class ToolRegistry:
    """The tools that a workflow may name."""

    def __init__(self, *, allow_development: bool = True) -> None:
        self.allow_development = allow_development
        self._tools: dict[str, dict[Version, type[Tool]]] = {}

    def register(self, tool: type[Tool]) -> None:
        """Add one tool class. `ConfigurationError` when it has no name or version, or the place is taken."""
        if not tool.name or not tool.version:
            raise ConfigurationError(f"{tool.__module__}.{tool.__qualname__} needs a name and a version")
        try:
            version = Version(tool.version)
        except ValueError:
            raise ConfigurationError(
                f"{tool.__module__}.{tool.__qualname__}: {tool.version!r} is not a semantic version",
                hint="write for example 1.0.0",
            ) from None
        versions = self._tools.setdefault(tool.name, {})
        taken = versions.get(version)
        if taken is not None and taken is not tool:
            raise ConfigurationError(
                f"{tool.name}@{version} is both {taken.__module__}.{taken.__qualname__} "
                f"and {tool.__module__}.{tool.__qualname__}",
                hint="give one of them another version",
            )
        versions[version] = tool

    def add_module(self, module: ModuleType) -> list[type[Tool]]:
        """Register every concrete tool class that ``module`` itself defines, and return them."""
        found = [
            item
            for item in vars(module).values()
            if inspect.isclass(item)
            and issubclass(item, Tool)
            and item.__module__ == module.__name__
            and not inspect.isabstract(item)
            and item.name
        ]
        for tool in found:
            self.register(tool)
        return found

    def __iter__(self) -> Iterator[type[Tool]]:
        """Every version of every tool, by name, oldest version first."""
        for name in sorted(self._tools):
            versions = self._tools[name]
            yield from (versions[version] for version in sorted(versions))

    def __contains__(self, name: object) -> bool:
        return name in self._tools

    def names(self) -> list[str]:
        """Every name, sorted."""
        return sorted(self._tools)

    def versions(self, name: str) -> list[type[Tool]]:
        """Every version of ``name``, oldest first. `UnknownToolError` when there is none."""
        if name not in self._tools:
            raise UnknownToolError(f"there is no tool {name!r}", hint=self._suggestion(name))
        versions = self._tools[name]
        return [versions[version] for version in sorted(versions)]

    def resolve(self, pin: str) -> type[Tool]:
        """The newest version that ``pin`` allows. `UnknownToolError` says what there is instead."""
        name, spec = parse_pin(pin)
        known = self.versions(name)
        allowed = [tool for tool in known if self.allow_development or Version(tool.version).major > 0]
        best = SimpleSpec(spec).select(Version(tool.version) for tool in allowed)
        if best is None:
            have = ", ".join(tool.version for tool in known)
            refused = "" if len(allowed) == len(known) else "; versions 0.x need tools.allow_development_tools = true"
            raise UnknownToolError(f"no version of {name} satisfies {spec!r}", hint=f"there is {have}{refused}")
        return self._tools[name][best]

    def _suggestion(self, name: str) -> str:
        import difflib  # noqa: PLC0415 - only on the way to an error

        close = difflib.get_close_matches(name, self._tools, n=3)
        return f"did you mean {' or '.join(close)}?" if close else "see hs-stream tools list"
