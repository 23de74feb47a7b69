"""Tools for values that are objects (dicts): which fields, and what in them."""

from __future__ import annotations

from dataclasses import dataclass

from hs_stream.core.tool import SKIP, MapTool
from hs_stream.core.value import Value
from hs_stream_tools._values import number, wrong

__all__ = ["ComponentSet", "DictArgmax", "DictValuesToConst"]


def _fields(tool: str, value: Value) -> dict[str, Value] | None:
    """The object, or ``None`` where the whole value is. ``TypeError`` for anything else."""
    if value is None or isinstance(value, dict):
        return value
    raise wrong(tool, "objects", value)


@dataclass(frozen=True, kw_only=True)
class ComponentSet(MapTool):
    """Each object with only the named fields.

    ``keys``: the names of the fields to keep. Names that an object does not have are ignored, so the output may be
    ``{}``. No output where the whole value is ``None``; ``TypeError`` for anything else that is no object.

    >>> ComponentSet(keys=("a", "c")).map({"a": 1, "b": 2})
    {'a': 1}
    """

    name = "component_set"
    version = "1.0.0"
    takes = "object"
    samples = ({"keys": ["a", "temperature"]}, {"keys": []})
    keys: tuple[str, ...]

    def map(self, value: Value) -> Value:
        """The object with fewer fields, or SKIP."""
        fields = _fields(self.name, value)
        return SKIP if fields is None else {key: item for key, item in fields.items() if key in self.keys}


@dataclass(frozen=True, kw_only=True)
class DictArgmax(MapTool):
    """The name of the field with the largest number.

    Of equal ones the first in alphabetical order, since the fields of an object have no order. Missing values
    (``None``, NaN) are ignored. No output where there is no number, or the whole value is ``None``; ``TypeError`` for a
    field that holds something else, and for a value that is no object. Output: text.

    >>> DictArgmax().map({"hall": 0.2, "kitchen": 0.7, "bath": 0.1})
    'kitchen'
    """

    name = "dict_argmax"
    version = "1.0.0"
    takes = "{number}"

    def map(self, value: Value) -> Value:
        """The name, or SKIP."""
        fields = _fields(self.name, value)
        best: Value = SKIP
        largest = 0.0
        for key in sorted(fields or ()):
            found = number(self.name, value[key], f" in {key!r}")
            if found is not None and (best is SKIP or found > largest):
                best, largest = key, found
        return best


@dataclass(frozen=True, kw_only=True)
class DictValuesToConst(MapTool):
    """Each object with one and the same value in all of its fields.

    ``const``: this value, a number, text, ``true``, ``false`` or ``null``. With 1, a list of the results and
    ``list_dict_sum`` count how often each name occurs. No output where the whole value is ``None``; ``TypeError`` for
    anything else that is no object.

    >>> DictValuesToConst().map({"hall": 0.2, "kitchen": 0.7})
    {'hall': 1, 'kitchen': 1}
    """

    name = "dict_values_to_const"
    version = "1.0.0"
    takes = "object"
    samples = ({}, {"const": 0.5}, {"const": "seen"}, {"const": True}, {"const": None})
    const: int | float | bool | str | None = 1

    def map(self, value: Value) -> Value:
        """The object with other values, or SKIP."""
        fields = _fields(self.name, value)
        return SKIP if fields is None else dict.fromkeys(fields, self.const)
