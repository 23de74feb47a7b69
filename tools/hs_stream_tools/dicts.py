"""Tools that take objects apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hs_stream.core.kinds import UNKNOWN, Meaning
from hs_stream.core.tool import SKIP, MapTool
from hs_stream.core.value import Value, same
from hs_stream_tools._values import wrong

__all__ = ["Component", "ComponentFilter"]


@dataclass(frozen=True, kw_only=True)
class Component(MapTool):
    """One field of each object, or one element of each list.

    ``key``: a field's name (taken literally: dots have no meaning) or, for lists, an index from 0, negative from the
    end. No output where the field or the element is not there, or the whole value is ``None``; a field that holds
    ``None`` is there. ``TypeError`` for other values, and for a text key on a list or an index on an object.

    >>> Component(key="temperature").map({"temperature": 21.5, "humidity": 40})
    21.5
    """

    name = "component"
    version = "1.0.0"
    output_kind = "same"
    output_unit = "same"
    takes = "object"
    samples = ({"key": "a"}, {"key": "temperature"})
    key: str | int

    def meaning(self, inputs: Sequence[Meaning]) -> Meaning:
        """That of the field."""
        return inputs[0].field(self.key) if isinstance(self.key, str) else UNKNOWN

    def keys_named(self) -> tuple[str, ...]:
        """``key``."""
        return (self.key,) if isinstance(self.key, str) else ()

    def map(self, value: Value) -> Value:
        """The component, or SKIP."""
        return _component(self.name, self.key, value)


def _component(tool: str, key: str | int, value: Value) -> Value:
    """The component of ``value``, or SKIP."""
    if value is None:
        return SKIP
    if isinstance(value, dict) and isinstance(key, str):
        return value.get(key, SKIP)
    if isinstance(value, list) and isinstance(key, int):
        return value[key] if -len(value) <= key < len(value) else SKIP
    raise wrong(f"{tool} with key={key!r}", "objects" if isinstance(key, str) else "lists", value)


@dataclass(frozen=True, kw_only=True)
class ComponentFilter(MapTool):
    """Only the objects whose component is one of some values.

    ``key``: the component, as in ``component``. ``values``: compared by type and value (1 is not 1.0). ``complement:
    true`` passes all others instead: ``values: [null]`` then drops objects whose component is ``None``. Objects without
    the component never pass. ``TypeError`` as in ``component``. To drop fields of objects see ``component_set``.

    >>> off = ComponentFilter(key="state", values=("off",))
    >>> off.map({"state": "off", "n": 1}), off.map({"state": "on", "n": 2})
    ({'state': 'off', 'n': 1}, SKIP)
    """

    name = "component_filter"
    version = "1.0.0"
    output_kind = "same"
    output_unit = "same"
    takes = "object"
    ignores = (".",)
    samples = ({"key": "a", "values": [1, 2, "x"]}, {"key": "temperature", "values": [None], "complement": True})
    key: str | int
    values: tuple[Any, ...]
    complement: bool = False

    def keys_named(self) -> tuple[str, ...]:
        """``key``."""
        return (self.key,) if isinstance(self.key, str) else ()

    def keys_made(self, keys: frozenset[str] | None) -> frozenset[str] | None:
        """The same."""
        return keys

    def map(self, value: Value) -> Value:
        """The object itself, or SKIP."""
        found = _component(self.name, self.key, value)
        if found is SKIP:
            return SKIP
        return value if any(same(found, one) for one in self.values) is not self.complement else SKIP
