"""Tools for values that are objects (dicts): which fields, and what in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hs_stream.core.kinds import Meaning
from hs_stream.core.tool import SKIP, MapTool
from hs_stream.core.value import Value
from hs_stream_tools._values import number, wrong

__all__ = ["ComponentSet", "DictArgmax", "DictValuesToConst", "GroupFields"]


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
    output_kind = "same"
    output_unit = "same"
    takes = "object"
    samples = ({"keys": ["a", "temperature"]}, {"keys": []})
    keys: tuple[str, ...]

    def meaning(self, inputs: Sequence[Meaning]) -> Meaning:
        """That of the fields that are kept."""
        return Meaning(fields={key: one for key, one in inputs[0].fields.items() if key in self.keys})

    def keys_named(self) -> tuple[str, ...]:
        """``keys``."""
        return self.keys

    def keys_made(self, keys: frozenset[str] | None) -> frozenset[str] | None:
        """``keys``, as far as they are there."""
        return frozenset(self.keys) if keys is None else keys.intersection(self.keys)

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
    output_kind = "same"
    output_unit = "none"
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


@dataclass(frozen=True, kw_only=True)
class GroupFields(MapTool):
    """Fields with names of two parts as objects in an object: ``TokyoMax`` and ``TokyoMin`` under ``Tokyo``.

    ``endings``: for each inner field the ending of the names that it is taken from, ``{high: Max, low: Min}``. Upper
    and lower case do not matter in an ending; where several fit, the longest counts. What stands before the ending is
    the outer name. Fields that end otherwise, or have nothing before the ending, are left out, so the output may be
    ``{}``. Values of any type are passed on unchanged. ``ValueError`` for two fields with one place (``TokyoMax`` and
    ``Tokyomax``), ``TypeError`` for what is no object. No output where the whole value is ``None``.

    >>> row = {"TokyoMax": 11.2, "TokyoMin": 4.2, "Canberramax": 24.5}
    >>> GroupFields(endings={"high": "Max", "low": "Min"}).map(row)
    {'Tokyo': {'high': 11.2, 'low': 4.2}, 'Canberra': {'high': 24.5}}
    """

    name = "group_fields"
    version = "1.0.0"
    takes = "object"
    samples = ({"endings": {"x": "emperature", "y": "PERATURE"}}, {"endings": {"a": "a", "b": "nothing"}})
    endings: Any

    def __post_init__(self) -> None:
        endings = self.endings
        texts = isinstance(endings, Mapping) and all(isinstance(text, str) for pair in endings.items() for text in pair)
        if not texts or not endings or "" in endings.values():
            raise ValueError(f"endings must give an ending for each field, such as {{high: Max}}, not {endings!r}")
        if len({ending.lower() for ending in endings.values()}) < len(endings):
            raise ValueError("endings gives two fields one ending")

    def map(self, value: Value) -> Value:
        """The objects by outer name, or SKIP."""
        fields = _fields(self.name, value)
        if fields is None:
            return SKIP
        endings = sorted(self.endings.items(), key=lambda pair: -len(pair[1]))
        groups: dict[str, dict[str, Value]] = {}
        for key, item in fields.items():
            found = next(((inner, len(end)) for inner, end in endings if key.lower().endswith(end.lower())), None)
            if found is None or not (outer := key[: -found[1]]):
                continue
            group = groups.setdefault(outer, {})
            if found[0] in group:
                raise ValueError(f"{self.name}: {key!r} and another field are both {found[0]!r} of {outer!r}")
            group[found[0]] = item
        return groups
