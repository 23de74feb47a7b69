"""Tools for values that are lists.

What holds for all of them: no output where the whole value is ``None``; ``TypeError`` for what is no list, and for an
element that the tool cannot use, with its index.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hs_stream.core.tool import SKIP, MapTool
from hs_stream.core.value import Value
from hs_stream_tools._values import items, number, numbers, wrong
from hs_stream_tools.aggregates import exact_sum

__all__ = ["ListDictMean", "ListDictSum", "ListLength", "ListMean", "ListSum", "Slice"]


@dataclass(frozen=True, kw_only=True)
class Slice(MapTool):
    """One element, or a part, of each list.

    Either ``index``: the element at this place, from 0, negative from the end; no output where the list is too short
    (an element that holds ``None`` is there). Or some of ``start``, ``stop`` and ``step``: the list of the elements
    that Python's ``list[start:stop:step]`` gives, start included and stop excluded; it may be empty.

    >>> Slice(index=-1).map([5, 6, 7]), Slice(start=1).map([5, 6, 7]), Slice(stop=2).map([5])
    (7, [6, 7], [5])
    """

    name = "slice"
    version = "1.0.0"
    takes = "[number]"
    samples = ({"index": 0}, {"index": -2}, {"start": 1}, {"start": -2, "stop": 5}, {"step": -1})
    index: int | None = None
    start: int | None = None
    stop: int | None = None
    step: int | None = None

    def __post_init__(self) -> None:
        part = (self.start, self.stop, self.step) != (None, None, None)
        if (self.index is not None) is part:
            raise ValueError("give either index, or some of start, stop and step")
        if self.step == 0:
            raise ValueError("step must not be 0")

    def map(self, value: Value) -> Value:
        """The element or the part, or SKIP."""
        found = items(self.name, value)
        if found is None:
            return SKIP
        if self.index is None:
            return found[self.start : self.stop : self.step]
        return found[self.index] if -len(found) <= self.index < len(found) else SKIP


@dataclass(frozen=True, kw_only=True)
class ListLength(MapTool):
    """How many elements each list has.

    Every element counts, ``None`` and NaN too. Output: int.

    >>> ListLength().map([20.5, None])
    2
    """

    name = "list_length"
    version = "1.0.0"
    output_kind = "same"
    output_unit = "none"
    takes = "[number]"

    def map(self, value: Value) -> Value:
        """The length, or SKIP."""
        found = items(self.name, value)
        return SKIP if found is None else len(found)


@dataclass(frozen=True, kw_only=True)
class ListSum(MapTool):
    """The sum of the numbers in each list.

    Exactly rounded. Missing elements (``None``, NaN) are ignored; the sum of no numbers is 0. Output: float.

    >>> ListSum().map([0.1] * 10)
    1.0
    """

    name = "list_sum"
    version = "1.0.0"
    takes = "[number]"

    def map(self, value: Value) -> Value:
        """The sum, or SKIP."""
        found = numbers(self.name, value)
        return SKIP if found is None else exact_sum(found)


@dataclass(frozen=True, kw_only=True)
class ListMean(MapTool):
    """The mean of the numbers in each list.

    The sum is exactly rounded, then divided by how many there are. Missing elements (``None``, NaN) are ignored; no
    output for a list without a number. Output: float.

    >>> ListMean().map([20.0, None, 22.0])
    21.0
    """

    name = "list_mean"
    version = "1.0.0"
    takes = "[number]"

    def map(self, value: Value) -> Value:
        """The mean, or SKIP."""
        found = numbers(self.name, value)
        return exact_sum(found) / len(found) if found else SKIP


def _columns(tool: str, rows: list[Value]) -> tuple[dict[str, list[float | None]], int]:
    """What each field holds in those objects that have it (``None`` where it is missing), and how many objects."""
    columns: dict[str, list[float | None]] = {}
    count = 0
    for index, row in enumerate(rows):
        if row is None:
            continue
        if not isinstance(row, dict):
            raise wrong(tool, "lists of objects", row, f" at index {index}")
        count += 1
        for key, value in row.items():
            columns.setdefault(key, []).append(number(tool, value, f" in {key!r} at index {index}"))
    return columns, count


@dataclass(frozen=True, kw_only=True)
class ListDictSum(MapTool):
    """The sum, field by field, of the objects in each list.

    ``start_dict``: an object of numbers to begin with; its fields are in every output. ``insert_new_keys: false``
    leaves out fields that ``start_dict`` does not have. Output: an object of floats, exactly rounded; ``{}`` where
    there is nothing to add. Missing values (``None``, NaN) and elements that are ``None`` are ignored.

    >>> ListDictSum(start_dict={"a": 1}).map([{"a": 2}, {"a": 3, "b": 4}])
    {'a': 6.0, 'b': 4.0}
    """

    name = "list_dict_sum"
    version = "1.0.0"
    takes = "[{number}]"
    samples = (
        {},
        {"start_dict": {"a": 1, "x": 0.5}},
        {"start_dict": {"a": 0, "temperature": 0}, "insert_new_keys": False},
    )
    start_dict: Any = None
    insert_new_keys: bool = True

    def __post_init__(self) -> None:
        start = self.start_dict
        if start is None:
            return
        if not isinstance(start, dict) or not all(_is_number(item) for item in start.values()):
            raise ValueError(f"start_dict must be an object of finite numbers, not {start!r}")
        object.__setattr__(self, "start_dict", {key: float(item) for key, item in start.items()})

    def map(self, value: Value) -> Value:
        """The sums, or SKIP."""
        rows = items(self.name, value)
        if rows is None:
            return SKIP
        columns, _ = _columns(self.name, rows)
        start = self.start_dict or {}
        sums = {key: [item] for key, item in start.items()}
        for key, column in columns.items():
            there = [item for item in column if item is not None]
            if there and (self.insert_new_keys or key in start):
                sums[key] = [*sums.get(key, ()), *there]
        return {key: exact_sum(column) for key, column in sums.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True, kw_only=True)
class ListDictMean(MapTool):
    """The mean, field by field, of the objects in each list.

    A field that an object does not have counts as 0, as is right for counts and for probabilities of which only those
    above 0 are written; with ``absent_is_zero: false`` only the objects that have the field count. Missing values
    (``None``, NaN) are unknown and never count, nor do elements that are ``None``. Sums are exactly rounded. Output: an
    object of floats, without fields for which nothing counts; ``{}`` for an empty list.

    >>> ListDictMean().map([{"hall": 1.0}, {"hall": 0.5, "bath": 0.5}])
    {'hall': 0.75, 'bath': 0.25}
    >>> ListDictMean(absent_is_zero=False).map([{"hall": 1.0}, {"hall": 0.5, "bath": 0.5}])
    {'hall': 0.75, 'bath': 0.5}
    """

    name = "list_dict_mean"
    version = "1.0.0"
    takes = "[{number}]"
    samples = ({}, {"absent_is_zero": False})
    absent_is_zero: bool = True

    def map(self, value: Value) -> Value:
        """The means, or SKIP."""
        rows = items(self.name, value)
        if rows is None:
            return SKIP
        columns, count = _columns(self.name, rows)
        means = {}
        for key, column in columns.items():
            there = [item for item in column if item is not None]
            absent = count - len(column) if self.absent_is_zero else 0
            if there or absent:
                means[key] = exact_sum(there) / (len(there) + absent)
        return means
