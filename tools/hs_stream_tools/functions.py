"""Tools that apply a function of the user's: Python code by its import path, or a safe expression."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.errors import ConfigurationError, ToolError
from hs_stream.core.kinds import Meaning, Met
from hs_stream.core.time import TimeInterval, format_time, from_ms
from hs_stream.core.tool import SKIP, Drive, FromInput, MapTool, Pointwise, Support, Tool
from hs_stream.core.value import Value, canonical
from hs_stream_tools._expression import Formula
from hs_stream_tools.joins import check_count, check_names, common_times, values_at

__all__ = ["Apply", "Expression"]


def load(path: str) -> Callable[..., Any]:
    """The callable at ``package.module:name``. `ConfigurationError` says what is not there.

    It imports the module on the thread that calls, which is the one that may hold its import lock already.
    """
    module_name, colon, name = path.partition(":")
    if not colon or not module_name or not name:
        raise ConfigurationError(f"{path!r} is not an import path", hint="write package.module:function")
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        told = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        raise ConfigurationError(
            f"{path!r} cannot be loaded: {told}", hint="can the module be imported where this runs?"
        ) from error
    try:
        found = _at(found, name)
    except AttributeError as error:
        raise ConfigurationError(
            f"{path!r} cannot be loaded: {error}",
            hint=f"define {name} above the line that computes with it"
            if _unfinished(module_name)
            else f"correct the name, or define {name} in {module_name}",
        ) from error
    if not callable(found):
        raise ConfigurationError(f"{path!r} is a {type(found).__name__}, not a function")
    return found  # type: ignore[no-any-return]


def _at(module: Any, name: str) -> Any:
    return reduce(getattr, name.split("."), module)


def _unfinished(module: str) -> bool:
    """Whether the module is being imported right now."""
    return bool(getattr(getattr(sys.modules.get(module), "__spec__", None), "_initializing", False))


def function_of(parameter: Any) -> Callable[..., Any]:
    """The function that a parameter is, or that it is the import path of."""
    if isinstance(parameter, str):
        return load(parameter)
    if callable(parameter):
        return parameter  # type: ignore[no-any-return]
    raise ValueError(f"function must be an import path or a function, not {parameter!r}")


def import_path(function: str | Callable[..., Any]) -> str:
    """``package.module:name`` of a function that can be found there again. `ConfigurationError` for any other.

    Nothing is imported: a function that is at hand comes from a module that is there, finished or not. So any thread
    may ask.
    """
    if isinstance(function, str):
        return function
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if module and name and module != "__main__" and "<" not in name:
        with contextlib.suppress(AttributeError):
            if _at(sys.modules.get(module), name) is function:
                return f"{module}:{name}"
    raise ConfigurationError(
        f"{function!r} cannot be saved: it has no import path",
        hint="move it to the top level of a module, or use the tool expression",
    )


def stored(tool: str, function: str | Callable[..., Any], time: int, result: Any) -> Value:
    """What ``function`` returned for ``time`` in canonical form, or `SKIP`. `ToolError` if it cannot be stored."""
    if result is SKIP:
        return SKIP
    try:
        return canonical(result)
    except ValueError as error:
        raise ToolError(f"{tool}: the result of {function} at {format_time(time)}{error}") from None


@dataclass(frozen=True, kw_only=True)
class Apply(MapTool):
    """A Python function of each value.

    ``function``: its import path ``package.module:function``; in Python also the function itself (a workflow with a
    lambda runs, but cannot be saved). ``with_time: true`` calls ``function(time, value)`` with an aware UTC datetime,
    otherwise ``function(value)``. Output: what it returns; ``None`` is a value; ``hs_stream.core.tool.SKIP`` gives no
    output. It must be a pure function: same value in, same value out.

    An import path runs code of that module with the rights of the service: ``expression`` is for formulas of others.

    >>> Apply(function="math:sqrt").map_at(0, 9.0)
    3.0
    """

    name = "apply"
    version = "1.0.0"
    takes = "number"
    samples = ({"function": "builtins:repr"}, {"function": "operator:ne", "with_time": True})
    function: Any
    with_time: bool = False

    def __post_init__(self) -> None:
        self.call  # noqa: B018 - loads it now, so that a wrong path is found before the first reading

    @cached_property
    def call(self) -> Callable[..., Any]:
        """The function itself."""
        return function_of(self.function)

    def parameters(self) -> dict[str, Any]:
        """With the import path of the function. `ConfigurationError` when it has none."""
        return super().parameters() | {"function": import_path(self.function)}

    def map_at(self, time: int, value: Value) -> Value:
        """What the function returns, in canonical form. It gets its own copy of an object or a list."""
        if isinstance(value, (dict, list)):
            value = canonical(value)
        result = self.call(from_ms(time), value) if self.with_time else self.call(value)
        return stored(self.name, self.function, time, result)


@dataclass(frozen=True, kw_only=True)
class Expression(Tool):
    """A formula, safe to take from others: ``value * 2 + 1``.

    ``expression``: arithmetic ``+ - * / // % **``, comparisons, ``and or not in is``, ``a if condition else b``,
    indexing, and the functions ``abs min max round floor ceil trunc sqrt exp log log2 log10 sin cos tan asin acos atan
    atan2 sinh cosh tanh degrees radians hypot isfinite int float str len local weekday``. At most 1,000 characters.

    With one input its value is ``value`` (and ``a``); where that is an object, its fields are names too, unless hidden
    by those. With several inputs there is an output at the times at which all have an instance, and their values are
    ``a``, ``b``, ``c``, ... in order; or give ``names``, one for each input. ``time`` is the time of the instance, an
    aware UTC datetime with ``.year .month .day .hour .minute .second .microsecond``; ``local(time,
    "Europe/Brussels")`` is the same in a zone, ``weekday(time)`` is 0 on Mondays. ``local(time, "Europe/Brussels",
    "before")`` is a millisecond earlier: a total stands at the end of its hour or day, and is of the time before it.

    No output where the formula has no result: an object without a field that the formula uses, arithmetic with
    ``None``, division by zero, a square root or logarithm outside of its domain, a number too large. A name that can
    never be there, and an operation that the types do not allow, are errors.

    >>> Expression(expression="(temperature - 32) / 1.8").compute(0, [{"temperature": 212}])
    100.0
    """

    name = "expression"
    version = "1.0.0"
    arity = None
    takes = "number"
    samples = (
        {"expression": "a * 2 + 1"},
        {"expression": "x + y if time.second % 2 else -x", "names": ["x", "y"]},
        {"expression": "1 / a + sqrt(a)"},
    )
    expression: str
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.names is not None:
            check_names(self.names)
            for name in self.names:
                if not name.isidentifier() or name == "time":
                    raise ValueError(f"{name!r} cannot be used as a name in an expression")
            # Whoever connects the inputs then sees how many there must be.
            object.__setattr__(self, "arity", len(self.names))
        self.formula  # noqa: B018 - parses it now, so that a mistake is found before the first reading

    @cached_property
    def formula(self) -> Formula:
        """The parsed formula."""
        return Formula(self.expression)

    def keys_named(self) -> tuple[str, ...]:
        """The names in the formula that must be fields where there is one input."""
        return () if self.names is not None else tuple(sorted(self.formula.names - {"a", "value", "time"}))

    def meaning(self, inputs: Sequence[Meaning]) -> Meaning:
        """The unit that follows from the formula; of which kind its result is nobody knows."""
        return Meaning(unit=self._units(inputs)[0])

    def meets(self, inputs: Sequence[Meaning]) -> Iterable[Met]:
        """What the formula adds, compares or chooses from."""
        return self._units(inputs)[1]

    def _units(self, inputs: Sequence[Meaning]) -> tuple[str | None, list[Met]]:
        units: dict[str, tuple[int | str, str | None]] = {}
        if len(inputs) == 1:
            units.update({name: (name, field.unit) for name, field in inputs[0].fields.items()})
            units["value"] = (0, inputs[0].unit)
        names = self.names or "abcdefghijklmnopqrstuvwxyz"
        units.update({name: (slot, one.unit) for slot, (name, one) in enumerate(zip(names, inputs, strict=False))})
        return self.formula.units(units)

    def support(self, slot: int) -> Support:
        """The instances at t."""
        return Pointwise()

    def drive(self) -> Drive:
        """The first input's times."""
        return FromInput(0)

    def compute(self, time: int, values: Sequence[Value]) -> Value:
        """The result for the inputs' values at ``time``, or SKIP."""
        named: dict[str, Value] = {}
        if self.names is not None:
            named.update(zip(self.names, values, strict=True))
        else:
            named.update(zip("abcdefghijklmnopqrstuvwxyz", values, strict=False))
            if len(values) == 1:
                named["value"] = values[0]
        fields = values[0] if len(values) == 1 and isinstance(values[0], dict) else None
        return self.formula.result(time, named, fields)

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """The results at the common instances in ``interval``."""
        if self.names is not None:
            check_count(self, sources, len(self.names))
        elif len(sources) > 26:
            raise ToolError(f"expression has {len(sources)} inputs", hint="more than 26 need names")
        parts = [source.slice(interval.start, interval.end) for source in sources]
        if not all(parts):
            return NOTHING
        common = common_times(parts)
        columns = [values_at(part, common) for part in parts]
        times, results = [], []
        for time, *values in zip(common.tolist(), *columns, strict=True):
            result = self.compute(time, values)
            if result is not SKIP:
                times.append(time)
                results.append(result)
        return Batch.build(times, results)
