"""``hs.tools``: every tool of the registry as a function, and tools that execute into streams."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hs_stream.builder import bind_parameters
from hs_stream.core.errors import ConfigurationError
from hs_stream.core.plate import Plate
from hs_stream.core.registry import ToolRegistry
from hs_stream.core.tool import SplitTool, Tool
from hs_stream.core.workflow import NodeDefinition
from hs_stream.hyperstream.handles import StoreHandle, StreamLike
from hs_stream.hyperstream.spans import Interval, finite, interval_of, now_ms
from hs_stream.hyperstream.streams import Stream
from hs_stream.hyperstream.tables import Listing

__all__ = ["BoundTool", "Tools"]


class Tools:
    """``hs.tools.<name>(parameters)`` gives a tool. Names complete with TAB; ``help(hs.tools.clock)`` describes one."""

    def __init__(self, channel: StoreHandle, registry: ToolRegistry) -> None:
        self._channel = channel
        self._registry = registry

    def __getattr__(self, name: str) -> Callable[..., BoundTool]:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            newest = self._registry.resolve(name)
        except ConfigurationError as error:
            raise AttributeError(str(error), name=name, obj=self) from None

        def tool(*positional: Any, version: str = "", **parameters: Any) -> BoundTool:
            pin = f"{name}@{version}" if version else name
            kind = self._registry.resolve(pin)
            return BoundTool(self._channel, kind.build(bind_parameters(kind, positional, parameters)), pin)

        tool.__name__ = tool.__qualname__ = name
        tool.__doc__ = inspect.getdoc(newest)
        tool.__signature__ = _signature(newest)  # type: ignore[attr-defined]
        return tool

    def __dir__(self) -> list[str]:
        return self._registry.names()

    def _listing(self) -> Listing[type[Tool]]:
        def row(kind: type[Tool]) -> Sequence[str]:
            return kind.name, kind.version, kind.summary()

        newest = (self._registry.resolve(name) for name in self._registry.names())
        return Listing(newest, "tools", ("tool", "version", "what it does"), row, most=1_000)

    def __repr__(self) -> str:
        return repr(self._listing())

    def _repr_html_(self) -> str:
        return self._listing()._repr_html_()


class BoundTool:
    """A tool with its parameters. ``version`` ranges such as ``"^1.2"`` were resolved when it was made."""

    def __init__(self, channel: StoreHandle, tool: Tool, pin: str) -> None:
        self.tool = tool
        self._channel = channel
        self._pin = pin

    def execute(
        self,
        sources: Iterable[StreamLike] = (),
        sink: StreamLike = "",
        interval: Interval = None,
        alignment_stream: StreamLike | None = None,
        *,
        over: Plate | str | Iterable[Plate | str] = (),
    ) -> Stream:
        """Compute ``interval`` of the stream ``sink`` from ``sources``, as far as it is missing; returns the sink.

        From now on ``sink`` is what this tool makes of the sources: its workflow of one node is stored, with the tool's
        version and parameters, so that `hs_stream.hyperstream.streams.Stream.window` can compute more of it, today or
        in another session. Another tool into the same sink defines it anew.

        ``alignment_stream`` is the source that says when there are outputs: it is put where the tool wants it
        (`hs_stream.core.tool.Tool.alignment`), and refused by a tool that has none. ``over``: the plates that an
        aggregate works over. Where the sources are on plates, the sink is too: it has a stream for each of theirs, and
        those that agree with the plate values of the given sources are computed. `ToolError` where the tool failed.
        """
        if isinstance(self.tool, SplitTool):
            raise ConfigurationError(
                f"{self.tool.name} makes a stream for each value of a plate",
                hint="build a workflow: it says which plate, and which values that has",
            )
        given = [*([sources] if isinstance(sources, (str, Stream)) else sources)]
        if alignment_stream is not None:
            given.insert(self._alignment(), alignment_stream)
        channel = sink.channel if isinstance(sink, Stream) else self._channel
        target = channel.identity(sink, {})
        span = finite(interval_of(interval, now_ms()))
        inputs = [channel.identity(source, {}) for source in given]
        plates = [over] if isinstance(over, (Plate, str)) else over
        names = [plate.name if isinstance(plate, Plate) else plate for plate in plates]
        node = NodeDefinition(
            target.name, self.tool, tuple(item.name for item in inputs), tuple(names), None, self._pin
        )
        meta = {plate: value for item in (*inputs, target) for plate, value in item.meta if plate not in names}
        for item in inputs:
            for plate, value in item.meta:
                if meta.get(plate, value) != value:
                    raise ConfigurationError(f"{self.tool.name}: sources and sink differ in their {plate}")
        found = channel.execute(node, meta, span)
        return Stream(channel, found[0] if len(found) == 1 else target)

    def _alignment(self) -> int:
        """Among its sources, where the alignment stream is."""
        if self.tool.alignment is not None:
            return self.tool.alignment
        wants = {None: "one or more", 0: "none"}.get(self.tool.arity, str(self.tool.arity))
        raise ConfigurationError(
            f"{self.tool.name} has no alignment stream",
            hint=f"give it all that it reads as sources, of which it takes {wants}",
        )

    def __repr__(self) -> str:
        fields = dataclasses.fields(self.tool)  # type: ignore[arg-type]
        given = {field.name: getattr(self.tool, field.name) for field in fields}
        changed = [field.name for field in fields if given[field.name] != field.default]
        with contextlib.suppress(ConfigurationError):  # what has a lambda in it is shown as it is
            given = self.tool.parameters()
        return f"<tool {self.tool.pin}({', '.join(f'{name}={given[name]!r}' for name in changed)})>"


def _signature(kind: type[Tool]) -> inspect.Signature:
    """The parameters of a tool as an editor shows them. They may be given in order, too."""
    parameters = []
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
        parameters.append(
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=field.type)
        )
    version = inspect.Parameter("version", inspect.Parameter.KEYWORD_ONLY, default="", annotation="str")
    return inspect.Signature([*parameters, version])
