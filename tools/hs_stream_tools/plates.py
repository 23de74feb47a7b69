"""Tools that find the values of a plate, and tools that select streams of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hs_stream.core.stream import check_plate_value
from hs_stream.core.tool import SKIP, AggregateTool, PlateTool, SelectorTool
from hs_stream.core.value import Value
from hs_stream_tools._values import wrong
from hs_stream_tools.functions import Apply
from hs_stream_tools.splitters import as_text, fields_of, names_in, some_names

__all__ = [
    "AssetPlateGenerator",
    "IndexOf",
    "IndexOfByStream",
    "MetaInstance",
    "MetaInstanceFromList",
    "PlateSink",
    "PlateValues",
]


@dataclass(frozen=True, kw_only=True)
class PlateValues(PlateTool):
    """The plate values that values name, when they are new.

    ``element``: the field of an object that names them; without it the value itself does. A text, a whole number or a
    boolean names one, a list several, an object one by each field's name (``use_values: true``: by each field's value).
    What is missing names none, ``TypeError`` for anything else. Output: the sorted list of those that were not named
    before. Connect a plate to it with ``from`` in the plate's definition.

    >>> tool = PlateValues(element="room")
    >>> tool.step(["hall"], 0, {"room": "kitchen"})
    (['hall', 'kitchen'], ['kitchen'])
    """

    name = "plate_values"
    version = "1.0.0"
    takes = "examples"
    samples = ({}, {"element": "a"}, {"use_values": True})
    element: str | None = None
    use_values: bool = False

    def values_in(self, value: Value) -> list[str]:
        """The plate values that ``value`` names."""
        return names_in(self.name, _held(self.name, value, self.element), use_keys=not self.use_values)

    def examples(self, slot: int) -> Sequence[Value]:
        """Names of all forms."""
        return _examples(self.element, use_keys=not self.use_values)


def _held(tool: str, value: Value, element: str | None) -> Value:
    """The field ``element`` of ``value``, ``None`` where it is missing; ``value`` itself without an ``element``."""
    return value if element is None else fields_of(tool, value).get(element)


def _examples(element: str | None, *, use_keys: bool) -> list[Value]:
    names = some_names(use_keys=use_keys)
    return names if element is None else [*({element: name, "q": 2.5} for name in names), {"q": 1}, {}]


@dataclass(frozen=True, kw_only=True)
class AssetPlateGenerator(PlateTool):
    """The plate values that an asset names, when they are new.

    ``element``: the field of the asset that holds them; without it the asset itself. Of an object its fields' names are
    plate values, with ``use_value_instead_of_key`` its fields' values; of a list its elements. ``filters``: the only
    ones that are wanted. What is missing names none, ``TypeError`` for anything else.

    >>> AssetPlateGenerator(element="residents").step([], 0, {"residents": {"R2": 68, "R1": 70}})
    (['R1', 'R2'], ['R1', 'R2'])
    """

    name = "asset_plate_generator"
    version = "1.0.0"
    takes = "examples"
    samples = ({}, {"element": "x"}, {"filters": ["a", "b"], "use_value_instead_of_key": True})
    element: str | None = None
    filters: tuple[str, ...] = ()
    use_value_instead_of_key: bool = False

    def values_in(self, value: Value) -> Iterator[str]:
        """The plate values that ``value`` names and ``filters`` allow."""
        held = _held(self.name, value, self.element)
        for name in names_in(self.name, held, use_keys=not self.use_value_instead_of_key):
            if not self.filters or name in self.filters:
                yield name

    def examples(self, slot: int) -> Sequence[Value]:
        """Names of all forms."""
        return _examples(self.element, use_keys=not self.use_value_instead_of_key)


@dataclass(frozen=True, kw_only=True)
class MetaInstance(PlateTool):
    """The plate values that a Python function finds in each value, when they are new.

    ``function``: as of the tool ``apply``; it gets the value and returns a text, a list of texts, or ``None`` for none
    (``TypeError`` for anything else). It is not asked about missing values (``None``).

    >>> MetaInstance(function="builtins:sorted").step([], 0, ["hall", "bath"])
    (['bath', 'hall'], ['bath', 'hall'])
    """

    name = "meta_instance"
    version = "1.0.0"
    takes = "object"
    samples = ({"function": "builtins:sorted"},)
    function: Any

    def __post_init__(self) -> None:
        self.apply  # noqa: B018 - loads it now, so that a wrong path is found before the first reading

    @cached_property
    def apply(self) -> Apply:
        """The function as a tool."""
        return Apply(function=self.function)

    def parameters(self) -> dict[str, Any]:
        """With the import path of the function. `ConfigurationError` when it has none."""
        return {"function": self.apply.parameters()["function"]}

    def values_in(self, value: Value) -> list[str]:
        """The plate values that the function finds."""
        found = None if value is None else self.apply.map_at(0, value)
        return [] if found is SKIP else names_in(self.name, found, use_keys=True)


@dataclass(frozen=True, kw_only=True)
class MetaInstanceFromList(PlateTool):
    """Given plate values, at the first instance of the input.

    Values that are known beforehand can be declared with the plate instead (``values`` in its definition).

    >>> MetaInstanceFromList(values=("x", "y", "z")).step([], 0, None)
    (['x', 'y', 'z'], ['x', 'y', 'z'])
    """

    name = "meta_instance_from_list"
    version = "1.0.0"
    alignment = 0
    samples = ({"values": ["x", "y", "z"]},)
    values: tuple[str, ...]

    def __post_init__(self) -> None:
        for value in self.values:
            check_plate_value(value)

    def values_in(self, value: Value) -> Iterator[str]:
        """Always the same."""
        return iter(self.values)


@dataclass(frozen=True, kw_only=True)
class IndexOf(SelectorTool):
    """The stream of one plate value, off the plate.

    ``index``: the plate value (of several plates, joined by ``/`` in the order of the plates). The other streams are
    not read, and not waited for.

    >>> IndexOf(index="hall").aggregate([18.0], ["hall"])
    18.0
    """

    name = "index_of"
    version = "1.0.0"
    samples = ({"index": "value1"},)
    index: str

    def selects(self, key: str) -> bool:
        """Only ``index``."""
        return key == self.index

    def aggregate(self, values: Sequence[Value], keys: Sequence[str]) -> Value:
        """The value of ``index``, or nothing."""
        return values[keys.index(self.index)] if self.index in keys else SKIP


@dataclass(frozen=True, kw_only=True)
class IndexOfByStream(AggregateTool):
    """Of the streams of a plate the one that another stream names, off the plate.

    The input holds both: join the streams of the plate with the one that names a plate value first, so that each value
    is ``[value, plate value]`` (``as_of_join``), or an object where ``fields`` names the two. Output: at each time the
    value of the stream whose own plate value is named (``TypeError`` for anything else than such pairs, and for what
    names no plate value).

    >>> IndexOfByStream().aggregate([[18.0, "hall"], [21.5, "hall"]], ["kitchen", "hall"])
    21.5
    """

    name = "index_of_by_stream"
    version = "1.0.0"
    together = False
    takes = "[any, text]"
    samples = ({},)
    fields: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.fields is not None and len(self.fields) != 2:
            raise ValueError("fields names two fields: that of the value, and that of the plate value")

    def aggregate(self, values: Sequence[Value], keys: Sequence[str]) -> Value:
        """The value at the plate value that it names itself, or SKIP."""
        for pair, key in zip(values, keys, strict=True):
            if pair is None:
                continue
            value, named = self._pair(pair)
            if as_text(self.name, named, key) == key:
                return value
        return SKIP

    def _pair(self, pair: Value) -> tuple[Value, Value]:
        if self.fields is not None and isinstance(pair, dict):
            return pair.get(self.fields[0], SKIP), pair.get(self.fields[1])
        if self.fields is None and isinstance(pair, list) and len(pair) == 2:
            return pair[0], pair[1]
        raise wrong(self.name, "pairs of a value and a plate value", pair)


@dataclass(frozen=True, kw_only=True)
class PlateSink(SelectorTool):
    """Nothing: it only makes all streams of a plate wanted, so that they are computed.

    >>> PlateSink().aggregate([18.0], ["hall"])
    SKIP
    """

    name = "plate_sink"
    version = "1.0.0"
    samples = ({},)

    def selects(self, key: str) -> bool:
        """All of them."""
        return True

    def aggregate(self, values: Sequence[Value], keys: Sequence[str]) -> Value:
        """Nothing."""
        return SKIP
