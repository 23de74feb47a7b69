"""Functions of lists, as ``relative_window`` and ``sliding_listify`` give them: of numbers, or of objects by field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hs_stream.core.time import format_time
from hs_stream.core.tool import SKIP, MapTool
from hs_stream.core.value import Value
from hs_stream_tools._values import number, wrong
from hs_stream_tools._window_functions import WindowFunction
from hs_stream_tools.functions import function_of, import_path, stored

__all__ = ["RelativeApply", "RelativeApply2"]


class OverList(MapTool):
    """One input, of lists; missing lists (``None``, NaN) have no output."""

    def listed(self, time: int, value: Value) -> list[Value] | None:
        """The elements that are not ``None``, or ``None`` for a missing list."""
        if value is None or value != value:
            return None
        if not isinstance(value, list):
            raise wrong(self.name, "lists", value, f" at {format_time(time)}")
        return [element for element in value if element is not None]

    def fields(self, time: int, rows: list[Value]) -> dict[str, list[float]]:
        """For each field of objects that holds a number in any of them: those numbers, in order."""
        found: dict[str, list[float]] = {}
        for row in rows:
            if not isinstance(row, dict):
                raise wrong(self.name, "lists of objects", row, f" in the list at {format_time(time)}")
            for key, item in row.items():
                if isinstance(item, (int, float)):
                    found.setdefault(key, []).append(item)
        return found


@dataclass(frozen=True, kw_only=True)
class RelativeApply(OverList):
    """A function of each list of numbers; of each list of objects, a function of each field.

    ``function``: ``mean``, ``sum``, ``min``, ``max``, ``count``, ``median``, ``std``, ``first`` or ``last``, each as
    the tool ``sliding_mean``, ...; or an import path ``package.module:function`` or, in Python, the function itself,
    as for ``apply``. Such a function gets the numbers as a list; NaN is among them, ``None`` is not.

    Output: what the function gives for the numbers of the list. Where the list holds objects: an object with what it
    gives for the numbers that each field holds; what is no number in a field is left out, and so is a field without a
    number. No output for an empty list (or where no field has a result). ``TypeError`` for a list that holds anything
    else.

    >>> RelativeApply(function="mean").map_at(0, [1.0, 2.0, 6.0])
    3.0
    >>> RelativeApply(function="max").map_at(0, [{"x": 1.0, "uid": "a"}, {"x": 3.0, "y": -1.0}])
    {'x': 3.0, 'y': -1.0}
    """

    name = "relative_apply"
    version = "1.0.0"
    takes = "[number]"
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
        elements = self.listed(time, value)
        if not elements:
            return SKIP
        if isinstance(elements[0], dict):
            results = {key: self.call.of(time, items) for key, items in self.fields(time, elements).items()}
            return {key: result for key, result in results.items() if result is not SKIP} or SKIP
        for element in elements:
            number(self.name, element, f" in the list at {format_time(time)}")
        return self.call.of(time, elements)


@dataclass(frozen=True, kw_only=True)
class RelativeApply2(OverList):
    """A function of each field of a list of objects: of its name and the numbers that it holds.

    ``function``: the import path ``package.module:function`` or, in Python, the function itself, as for ``apply``. It
    is called with the name of a field and the list of the numbers that the objects hold there, in order; it returns
    ``hs_stream.core.tool.SKIP`` for a field that is to be left out. What is no number is no part of the list.

    Output: one object of the results by field. None for an empty list, or where no field has a result. ``TypeError``
    for a list that holds anything but objects.

    >>> tool = RelativeApply2(function=lambda key, values: sum(values) if key == "steps" else max(values))
    >>> tool.map_at(0, [{"steps": 10, "heart": 60}, {"steps": 5, "heart": 72}])
    {'steps': 15, 'heart': 72}
    """

    name = "relative_apply2"
    version = "1.0.0"
    takes = "[{number}]"
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
        rows = self.listed(time, value)
        results = {
            key: stored(self.name, self.function, time, self.call(key, numbers))
            for key, numbers in self.fields(time, rows or []).items()
        }
        return {key: result for key, result in results.items() if result is not SKIP} or SKIP
