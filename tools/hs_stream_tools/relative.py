"""Functions of lists, as ``relative_window`` and ``sliding_listify`` give them: of numbers, or of objects by field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hs_stream.core.tool import SKIP, MapTool
from hs_stream.core.value import Value
from hs_stream_tools._values import items, number, wrong
from hs_stream_tools._window_functions import WindowFunction
from hs_stream_tools.functions import function_of, import_path, stored

__all__ = ["RelativeApply", "RelativeApply2"]


def _fields(tool: str, rows: list[Value]) -> dict[str, list[float]]:
    """For each field that holds a number in any of the objects: those numbers, in order."""
    found: dict[str, list[float]] = {}
    for index, row in enumerate(rows):
        if row is None:
            continue
        if not isinstance(row, dict):
            raise wrong(tool, "lists of objects", row, f" at index {index}")
        for key, item in row.items():
            if isinstance(item, (int, float)):
                found.setdefault(key, []).append(item)
    return found


@dataclass(frozen=True, kw_only=True)
class RelativeApply(MapTool):
    """A function of each list of numbers; of each list of objects, a function of each field.

    ``function``: ``mean``, ``sum``, ``min``, ``max``, ``count``, ``median``, ``std``, ``first`` or ``last``, each as
    the tool ``sliding_mean``, ...; or an import path ``package.module:function`` or, in Python, the function itself,
    as for ``apply``. Such a function gets the numbers as a list; NaN is among them, ``None`` is not.

    Output: what the function gives for the numbers of the list. Where the list holds objects: an object with what it
    gives for the numbers that each field holds; what is no number in a field is left out, and so is a field without a
    number. No output for ``None`` or an empty list, nor where no field has a result. ``TypeError`` for what is no list,
    and for a list that holds anything else.

    >>> RelativeApply(function="mean").map_at(0, [1.0, 2.0, 6.0])
    3.0
    >>> RelativeApply(function="max").map_at(0, [{"x": 1.0, "uid": "a"}, {"x": 3.0, "y": -1.0}])
    {'x': 3.0, 'y': -1.0}
    """

    name = "relative_apply"
    version = "1.0.0"
    takes = "[number]"
    ignores = ("[]",)
    samples = (
        *({"function": name} for name in ("mean", "sum", "count", "median", "std", "last")),
        {"function": "builtins:repr"},
    )
    function: Any

    def __post_init__(self) -> None:
        self.call  # noqa: B018 - loads it now, so that a wrong path is found before the first reading

    @cached_property
    def call(self) -> WindowFunction:
        """The function."""
        return WindowFunction(self.name, self.function)

    def parameters(self) -> dict[str, Any]:
        """With the import path of the function. `ConfigurationError` when it has none."""
        return super().parameters() | {"function": import_path(self.function)}

    def map_at(self, time: int, value: Value) -> Value:
        """The function of the list, or of each field, or SKIP."""
        elements = items(self.name, value) or []
        there = [element for element in elements if element is not None]
        if not there:
            return SKIP
        if isinstance(there[0], dict):
            results = {key: self.call.of(time, held) for key, held in _fields(self.name, elements).items()}
            return {key: result for key, result in results.items() if result is not SKIP} or SKIP
        for index, element in enumerate(elements):
            number(self.name, element, f" at index {index}")
        return self.call.of(time, there)


@dataclass(frozen=True, kw_only=True)
class RelativeApply2(MapTool):
    """A function of each field of a list of objects: of its name and the numbers that it holds.

    ``function``: the import path ``package.module:function`` or, in Python, the function itself, as for ``apply``. It
    is called with the name of a field and the list of the numbers that the objects hold there, in order; it returns
    ``hs_stream.core.tool.SKIP`` for a field that is to be left out. What is no number is no part of the list.

    Output: one object of the results by field. No output for ``None`` or an empty list, nor where no field has a
    result. ``TypeError`` for what is no list, and for a list that holds anything but objects.

    >>> tool = RelativeApply2(function=lambda key, values: sum(values) if key == "steps" else max(values))
    >>> tool.map_at(0, [{"steps": 10, "heart": 60}, {"steps": 5, "heart": 72}])
    {'steps': 15, 'heart': 72}
    """

    name = "relative_apply2"
    version = "1.0.0"
    takes = "[{number}]"
    ignores = ("[].",)
    samples = ({"function": "operator:ne"},)
    function: Any

    def __post_init__(self) -> None:
        self.call  # noqa: B018 - loads it now, so that a wrong path is found before the first reading

    @cached_property
    def call(self) -> Callable[[str, list[float]], Any]:
        """The function itself."""
        return function_of(self.function)

    def parameters(self) -> dict[str, Any]:
        """With the import path of the function. `ConfigurationError` when it has none."""
        return super().parameters() | {"function": import_path(self.function)}

    def map_at(self, time: int, value: Value) -> Value:
        """The results by field, or SKIP."""
        rows = items(self.name, value) or []
        results = {
            key: stored(self.name, self.function, time, self.call(key, held))
            for key, held in _fields(self.name, rows).items()
        }
        return {key: result for key, result in results.items() if result is not SKIP} or SKIP
