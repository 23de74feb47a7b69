"""Workflows in Python: the same graph, the same checks and the same definition as the YAML file.

>>> with Workflow("comfort") as w:
...     house = w.plate("house")
...     room = w.plate("room", parent=house)
...     climate = w.source("climate", mqtt="home/{house}/{room}/climate", time=("ts", "ms"))
...     temperature = climate.component(key="temperature", name="temperature")
...     smooth = temperature.sliding_mean(width="5m", every="30s").publish(retain=True)
...     house_mean = smooth.aggregate("mean", over=room)
>>> house_mean
<node temperature_sliding_mean_aggregate>

1. Every tool of the registry is a method of a node: ``node.<tool>(...)``. Arguments that are nodes are further inputs;
   other positional arguments are the tool's parameters in the order in which it declares them.
2. ``name``, ``version`` (a range such as ``"^1.2"``), ``over``, ``on`` and ``into`` (plates) are the factor's, not the
   tool's.
3. A node's default name is ``<first input>_<tool>``, or ``<tool>`` without inputs. It never depends on the order of
   other nodes, since stored results are found by it: where that name is taken, ``name`` must be given.
4. Leaving the ``with`` block checks the whole graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.plate import Plate
from hs_stream.core.time import Instant, TimeInterval, TimeIntervals, format_time, to_ms
from hs_stream.core.tool import Tool
from hs_stream.service.json_values import intervals
from hs_stream.service.workflows.document import plate_document, to_document
from hs_stream.service.workflows.file import from_document
from hs_stream.service.workflows.parser import topic_plates
from hs_stream.service.workflows.yaml_items import write_yaml

if TYPE_CHECKING:
    from hs_stream.core.registry import ToolRegistry
    from hs_stream.core.workflow import WorkflowDefinition

__all__ = ["Node", "Workflow", "bind_parameters"]


class Node:
    """A source or the output of a factor. Its methods are the tools of the registry (rule 1)."""

    def __init__(self, workflow: Workflow, name: str) -> None:
        self._workflow = workflow
        self.name = name

    def __repr__(self) -> str:
        return f"<node {self.name}>"

    def __getattr__(self, tool: str) -> Callable[..., Node]:
        if tool.startswith("_"):
            raise AttributeError(tool)
        try:
            self._workflow.registry.versions(tool)
        except ConfigurationError as error:
            raise AttributeError(str(error), name=tool, obj=self) from None

        def factor(*arguments: Any, **options: Any) -> Node:
            return self._workflow.factor(tool, self, *arguments, **options)

        factor.__name__ = tool
        return factor

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._workflow.registry.names()]

    def publish(self, **options: Any) -> Self:
        """Publish this node over MQTT; ``options`` are those of the workflow file."""
        self._workflow.publish(self, options)
        return self

    def means(self, kind: str | None = None, unit: str | None = None) -> Self:
        """Say of which kind and in which unit its values are, as ``kind`` and ``unit`` of the workflow file do."""
        self._workflow.means(self, kind, unit)
        return self

    def keep(self, retention: str) -> Self:
        """Keep instances this long (``"30d"``) before the watermark, and not for ever."""
        self._workflow.keep(self, retention)
        return self


class Workflow:
    """A workflow under construction. ``start`` is an aware datetime or milliseconds since the epoch.

    ``requested_intervals`` are pairs of such times, or intervals: what is computed besides what is online.
    ``registry`` defaults to every installed tool. Raises `ConfigurationError` for every mistake.
    """

    def __init__(
        self,
        name: str,
        *,
        description: str = "",
        online: bool = True,
        start: Instant | None = None,
        requested_intervals: Iterable[TimeInterval | tuple[Instant, Instant]] = (),
        registry: ToolRegistry | None = None,
    ) -> None:
        self.name = name
        self._registry = registry
        self._document: dict[str, Any] = {"workflow": name, "description": description or None, "online": online}
        if start is not None:
            self._document["start"] = format_time(to_ms(start))
        if wanted := TimeIntervals(requested_intervals):
            self._document["requested_intervals"] = intervals(wanted)
        self._plates: dict[str, Any] = {}
        self._sources: dict[str, Any] = {}
        self._nodes: dict[str, Any] = {}
        self._publish: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            _ = self.definition

    @property
    def registry(self) -> ToolRegistry:
        """The tools that nodes have as methods."""
        if self._registry is None:
            from hs_stream.plugins import default_registry  # noqa: PLC0415 - loads every tool, only when it is needed

            self._registry = default_registry()
        return self._registry

    @property
    def definition(self) -> WorkflowDefinition:
        """The checked graph as it is now."""
        groups = {"plates": self._plates, "sources": self._sources, "nodes": self._nodes, "publish": self._publish}
        return from_document({**self._document, **groups}, self.registry, f"workflow {self.name}")

    def to_yaml(self) -> str:
        """The text of its workflow file. `ConfigurationError` for a function that has no import path."""
        return write_yaml(to_document(self.definition))

    def plate(
        self,
        name: str,
        *,
        parent: Plate | str | None = None,
        max: int | None = None,  # noqa: A002 - the file's word
        values: Iterable[str | Mapping[str, str]] = (),
        of: Plate | str | None = None,
        complement: bool = False,
        source: Node | str | None = None,
    ) -> Plate:
        """Declare a plate; the arguments are those of `hs_stream.core.plate.Plate`.

        ``values`` are texts, or mappings that tie each to values of the plate's ancestors. ``source`` may be the name
        of a node that is declared later.
        """
        if name in self._plates:
            raise ConfigurationError(f"workflow {self.name}: the plate {name!r} is declared twice")
        plate = Plate(
            name,
            _plate_name(parent),
            **({} if max is None else {"max": max}),
            values=tuple(
                tuple(sorted(value.items())) if isinstance(value, Mapping) else ((_plate_name(of) or name, str(value)),)
                for value in values
            ),
            of=_plate_name(of),
            complement=complement,
            source=source.name if isinstance(source, Node) else source,
        )
        self._plates[name] = plate_document(plate)
        return plate

    def source(
        self,
        name: str,
        *,
        plates: Iterable[Plate | str] = (),
        time: tuple[str, str] | Mapping[str, Any] | str | None = None,
        kind: str | None = None,
        unit: str | None = None,
        **options: Any,
    ) -> Node:
        """Declare a raw node. ``options`` are the connector's (``mqtt``, ``codec``, ``fields``, ...).

        ``time`` is ``(field, unit)``, ``"arrival"``, or a mapping as in the file. ``plates`` must be those that the
        topic or path binds; without a connector they say on which plates imported readings are. ``kind`` and ``unit``
        say what a bare value means; ``fields`` may be a mapping that says it of each field.
        """
        self._check_free(name)
        names = [_plate_name(plate) or "" for plate in plates]
        if isinstance(time, tuple):
            time = {"field": time[0], "unit": time[1]}
        source = {**options} if time is None else {**options, "time": time}
        if options:
            bound = topic_plates(name, options)
            if names and set(names) != set(bound):
                raise ConfigurationError(
                    f"source {name}: its topic binds {', '.join(bound) or 'no plate'}, not {', '.join(names)}",
                    hint="write each plate as {plate} into the topic or path",
                )
        elif names:
            source["plates"] = names
        self._sources[name] = source
        return Node(self, name).means(kind, unit)

    def factor(
        self,
        tool: str,
        *arguments: Any,
        name: str | None = None,
        version: str = "",
        over: Plate | str | Iterable[Plate | str] = (),
        on: Plate | str | Iterable[Plate | str] = (),
        into: Plate | str | None = None,
        **parameters: Any,
    ) -> Node:
        """The output of ``tool`` applied to the nodes in ``arguments``; ``w.factor("clock", every="1m")`` has none.

        What its values mean is said with `Node.means`.
        """
        inputs = [argument for argument in arguments if isinstance(argument, Node)]
        pin = f"{tool}@{version}" if version else tool
        positional = [item for item in arguments if not isinstance(item, Node)]
        # Checked at once, so that the error points at the line of the caller.
        given = bind_parameters(self.registry.resolve(pin), positional, parameters)
        if name is None:
            name = "_".join([*(node.name for node in inputs[:1]), tool])
        self._check_free(name)
        for node in inputs:
            if node._workflow is not self:
                raise ConfigurationError(f"node {name}: {node.name} belongs to another workflow")
        document: dict[str, Any] = {"tool": pin, "from": [node.name for node in inputs], "with": given}
        for key, plates in (("over", over), ("on", on)):
            if names := [_plate_name(item) for item in ([plates] if isinstance(plates, (Plate, str)) else plates)]:
                document[key] = names
        if into is not None:
            document["into"] = _plate_name(into)
        self._nodes[name] = document
        return Node(self, name)

    def publish(self, node: Node, options: Mapping[str, Any] | None = None) -> None:
        """The same as ``node.publish(**options)``."""
        self._publish[node.name] = dict(options or {})

    def keep(self, node: Node, retention: str) -> None:
        """The same as ``node.keep(retention)``."""
        self._document_of(node)["retention"] = retention

    def means(self, node: Node, kind: str | None = None, unit: str | None = None) -> None:
        """The same as ``node.means(kind, unit)``."""
        self._document_of(node).update(
            {key: value for key, value in (("kind", kind), ("unit", unit)) if value is not None}
        )

    def _document_of(self, node: Node) -> dict[str, Any]:
        found: dict[str, Any] = (self._sources if node.name in self._sources else self._nodes)[node.name]
        return found

    def _check_free(self, name: str) -> None:
        if name in self._sources or name in self._nodes:
            raise ConfigurationError(
                f"workflow {self.name}: there is a node {name!r} already", hint="give this one a name: name=..."
            )


def bind_parameters(kind: type[Tool], positional: Sequence[Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by name, the positional ones in the order in which ``kind`` declares them; checked."""
    fields = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    if len(positional) > len(fields):
        raise ConfigurationError(
            f"{kind.name} has {len(fields)} parameters, but {len(positional)} are given",
            hint=f"its parameters are {', '.join(fields) or 'none'}",
        )
    by_position = dict(zip(fields, positional, strict=False))
    for twice in by_position.keys() & parameters.keys():
        raise ConfigurationError(f"{kind.name}: the parameter {twice} is given twice")
    given = {**by_position, **parameters}
    kind.build(given)
    return given


def _plate_name(plate: Plate | str | None) -> str | None:
    return plate.name if isinstance(plate, Plate) else plate
