"""Tools that take objects apart."""

from __future__ import annotations

from dataclasses import dataclass

from hs_stream.core.tool import SKIP, MapTool
from hs_stream.core.value import Value
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
    takes = "object"
    samples = ({"key": "a"}, {"key": "temperature"})
    key: str | int

    def map(self, value: Value) -> Value:
        """The component, or SKIP."""
        key = self.key
        if isinstance(value, dict) and isinstance(key, str):
            return value.get(key, SKIP)
        if value is None:
            return SKIP
        if isinstance(value, list) and isinstance(key, int):
            return value[key] if -len(value) <= key < len(value) else SKIP
        raise wrong(f"component with key={key!r}", "objects" if isinstance(key, str) else "lists", value)


@dataclass(frozen=True, kw_only=True)
class ComponentFilter(MapTool):
    """Each object with only some of its fields.

    ``keep``: the names of the fields to keep. ``complement: true`` keeps all others instead. Names that an object does
    not have are ignored, so the output may be ``{}``. No output where the whole value is ``None``; ``TypeError`` for
    anything else that is no object.

    >>> ComponentFilter(keep=("a",)).map({"a": 1, "b": 2})
    {'a': 1}
    >>> ComponentFilter(keep=("a",), complement=True).map({"a": 1, "b": 2})
    {'b': 2}
    """

    name = "component_filter"
    version = "1.0.0"
    takes = "object"
    samples = ({"keep": ["a", "b"]}, {"keep": ["a", "temperature"], "complement": True})
    keep: tuple[str, ...]
    complement: bool = False

    def map(self, value: Value) -> Value:
        """The object with fewer fields, or SKIP."""
        if isinstance(value, dict):
            return {key: item for key, item in value.items() if (key in self.keep) is not self.complement}
        if value is None:
            return SKIP
        raise wrong("component_filter", "objects", value)
