"""Formulas that can be taken from others.

1. What may be written is a list of allowed syntax, names and functions, checked when the formula is parsed. There are
   no loops, comprehensions, lambdas, assignments, format strings, keyword arguments or methods, and no attributes but
   those of a time.
2. What a formula costs is bounded by its length: each operation is one of a few, and those that could make much out of
   little (powers, repetition, rounding) check their operands first.
3. simpleeval walks the tree; Python's own ``eval`` is not used.
"""

from __future__ import annotations

import ast
import math
import operator
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import simpleeval

from hs_stream.core.errors import ConfigurationError, ToolError
from hs_stream.core.kinds import Met
from hs_stream.core.time import format_time, from_ms, zone
from hs_stream.core.tool import SKIP
from hs_stream.core.value import Value, canonical
from hs_stream_tools._expression_units import units_of
from hs_stream_tools._values import describe

__all__ = ["Formula"]

_MAX_LENGTH: Final = 1000
_MAX_DEPTH: Final = 40
_MAX_TEXT: Final = 10_000
_MAX_BITS: Final = 1024
_MOMENT: Final = timedelta(milliseconds=1)
_TIME_FIELDS: Final = frozenset({"year", "month", "day", "hour", "minute", "second", "microsecond"})

_SYNTAX: Final = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.BoolOp,
    ast.Compare,
    ast.IfExp,
    ast.Call,
    ast.Name,
    ast.Constant,
    ast.Subscript,
    ast.Attribute,
    ast.Load,
    ast.operator,
    ast.unaryop,
    ast.boolop,
    ast.cmpop,
)


class _NoResult(ArithmeticError):
    """The formula has no result for these values, and that is no mistake."""


def _size(*values: Any) -> int:
    return sum(len(value) for value in values if isinstance(value, (str, list, dict, bytes)))


def _add(left: Any, right: Any) -> Any:
    if _size(left, right) > _MAX_TEXT:
        raise _NoResult(f"the result is longer than {_MAX_TEXT}")
    return left + right


def _multiply(left: Any, right: Any) -> Any:
    if _size(left, right):
        raise TypeError(f"{describe(left)} * {describe(right)}: only numbers can be multiplied")
    return _small(left * right)


def _modulo(left: Any, right: Any) -> Any:
    if _size(left, right) or isinstance(left, (str, bytes)):
        raise TypeError(f"{describe(left)} % {describe(right)}: only numbers have a remainder")
    return left % right


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and isinstance(exponent, int) and abs(base).bit_length() * abs(exponent) > _MAX_BITS:
        raise _NoResult(f"{base} ** {exponent} is too large")
    result = base**exponent
    if isinstance(result, complex):
        raise _NoResult(f"{base} ** {exponent} is not a real number")
    return _small(result)


def _small(number: Any) -> Any:
    if isinstance(number, int) and number.bit_length() > _MAX_BITS:
        raise _NoResult("the number is too large")
    return number


def _round(number: Any, digits: int = 0) -> Any:
    if isinstance(number, float) and not math.isfinite(number):
        raise _NoResult(f"{number} cannot be rounded")
    if not isinstance(digits, int) or not -20 <= digits <= 20:
        raise TypeError(f"round takes -20 to 20 digits, not {describe(digits)}")
    rounded = round(number, digits) if digits else round(number)
    return _small(rounded)


def _int(value: Any) -> Any:
    if isinstance(value, str) and len(value) > 20:
        raise _NoResult("the number is too long")
    if isinstance(value, float) and not math.isfinite(value):
        raise _NoResult(f"{value} is no integer")
    return _small(int(value))


def _str(value: Any) -> str:
    if _size(value) > _MAX_TEXT or isinstance(value, (dict, list)):
        raise TypeError(f"str takes numbers and short texts, not {describe(value)}")
    return str(value)


def _local(time: Any, name: Any, which: Any = "at") -> datetime:
    if not isinstance(time, datetime) or not isinstance(name, str):
        raise TypeError(f"local takes a time and the name of a zone, not {describe(time)}, {describe(name)}")
    if which not in ("at", "before"):
        raise TypeError(f"local takes 'before' as its third, not {describe(which)}")
    return (time - _MOMENT if which == "before" else time).astimezone(zone(name))


def _weekday(time: Any) -> int:
    if not isinstance(time, datetime):
        raise TypeError(f"weekday takes a time, not {describe(time)}")
    return time.weekday()


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` for numbers only: ``math`` would ask an object for ``__floor__`` and the like."""

    def checked(*values: Any) -> Any:
        for value in values:
            if not isinstance(value, (int, float)):
                raise TypeError(f"{function.__name__} takes numbers, not {describe(value)}")
        try:
            return function(*values)
        except ValueError as error:
            raise _NoResult(str(error)) from None

    return checked


_MATH: Final = (
    "floor ceil trunc sqrt exp log log2 log10 sin cos tan asin acos atan atan2 sinh cosh tanh degrees radians hypot "
    "isfinite"
)
_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    **{name: _plain(getattr(math, name)) for name in _MATH.split()},
    "abs": _plain(abs),
    "min": min,
    "max": max,
    "round": _round,
    "int": _int,
    "float": float,
    "str": _str,
    "len": len,
    "local": _local,
    "weekday": _weekday,
}
_OPERATORS: Final[dict[type[ast.AST], Callable[..., Any]]] = {
    ast.Add: _add,
    ast.Sub: operator.sub,
    ast.Mult: _multiply,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: _modulo,
    ast.Pow: _power,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Gt: operator.gt,
    ast.Lt: operator.lt,
    ast.GtE: operator.ge,
    ast.LtE: operator.le,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.And: lambda left, right: left and right,
    ast.Or: lambda left, right: left or right,
}
_CONSTANTS: Final = {"True": True, "False": False, "None": None, "pi": math.pi, "e": math.e}
_threads = threading.local()


def _evaluator() -> simpleeval.SimpleEval:
    """One evaluator for each thread: the names of the formula at work are set on it."""
    found = getattr(_threads, "evaluator", None)
    if found is None:
        found = simpleeval.SimpleEval(
            operators=_OPERATORS, functions=_FUNCTIONS, names={}, allowed_attrs={datetime: _TIME_FIELDS}
        )
        _threads.evaluator = found
    return found


class Formula:
    """A parsed formula. `ConfigurationError` says what in it is not allowed."""

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > _MAX_LENGTH:
            raise ConfigurationError(f"an expression of {len(text)} characters is too long; at most {_MAX_LENGTH}")
        try:
            tree = ast.parse(text.strip(), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = error.msg if isinstance(error, SyntaxError) else type(error).__name__
            raise ConfigurationError(f"expression {_short(text)}: {reason}") from None
        _check(text, tree)
        self._body = tree.body
        self.names = frozenset(
            node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id not in _FUNCTIONS
        ) - frozenset(_CONSTANTS)

    def result(self, time: int, named: Mapping[str, Value], fields: Mapping[str, Value] | None) -> Value:
        """The canonical result, or SKIP. ``fields`` are names too where ``named`` does not have them."""
        names: dict[str, Any] = {**_CONSTANTS, **(fields or {}), **named}
        if "time" in self.names:
            names["time"] = from_ms(time)
        missing = self.names - names.keys()
        if missing:
            if fields is not None:
                return SKIP
            have = ", ".join(sorted({*named, "time"}))
            raise ToolError(
                f"expression {_short(self.text)}: there is no {', '.join(sorted(missing))} here",
                hint=f"the names are {have}",
            )
        evaluator = _evaluator()
        evaluator.names = names
        try:
            result = evaluator.eval(self.text, previously_parsed=self._body)
            # An integer beyond 64 bits is no value.
            return SKIP if isinstance(result, int) and result.bit_length() > 63 else canonical(result)
        except (ArithmeticError, LookupError):
            return SKIP
        except (TypeError, ValueError, simpleeval.InvalidExpression) as error:
            if isinstance(error, TypeError) and any(names[name] is None for name in self.names):
                return SKIP
            raise self._wrong(time, names, error) from None
        finally:
            evaluator.names = {}

    def units(self, units: Mapping[str, tuple[int | str, str | None]]) -> tuple[str | None, list[Met]]:
        """The result's unit, and what meets that must be in one: see `hs_stream_tools._expression_units`."""
        return units_of(self._body, units)

    def _wrong(self, time: int, names: Mapping[str, Any], error: Exception) -> TypeError:
        used = ", ".join(f"{name} = {describe(names[name])}" for name in sorted(self.names))
        return TypeError(f"expression {_short(self.text)} at {format_time(time)}{used and ' with '}{used}: {error}")


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _check(text: str, tree: ast.AST) -> None:
    """`ConfigurationError` for anything that is not on the list of rule 1."""
    level: list[ast.AST] = [tree]
    depth, called = 0, set()
    while level:
        depth += 1
        if depth > _MAX_DEPTH:
            raise ConfigurationError(f"expression {_short(text)} is nested more than {_MAX_DEPTH} deep")
        for node in level:
            if isinstance(node, ast.Call):
                called.add(node.func)
            reason = _objection(node)
            if isinstance(node, ast.Name) and node.id in _FUNCTIONS and node not in called:
                reason = f"{node.id} is a function; write value[{node.id!r}] for a field of this name"
            if reason:
                raise ConfigurationError(
                    f"expression {_short(text)}: {reason}", hint="see hs-stream tools show expression"
                )
        level = [child for node in level for child in ast.iter_child_nodes(node)]


def _objection(node: ast.AST) -> str:
    if not isinstance(node, _SYNTAX):
        return f"{type(node).__name__} is not allowed"
    if isinstance(node, (ast.operator, ast.unaryop, ast.cmpop)) and type(node) not in _OPERATORS:
        return f"the operator {type(node).__name__} is not allowed"
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id not in _FUNCTIONS:
            name = ast.unparse(node.func)
            return f"{name} is not a function that can be called; there are {', '.join(sorted(_FUNCTIONS))}"
        if node.keywords:
            return "arguments by keyword are not allowed"
    if isinstance(node, ast.Attribute) and node.attr not in _TIME_FIELDS:
        return f".{node.attr} is not allowed; write value[{node.attr!r}] for a field"
    if isinstance(node, ast.Name) and node.id.startswith("__"):
        return f"the name {node.id} is not allowed"
    if isinstance(node, ast.Constant) and not isinstance(node.value, (bool, int, float, str, type(None))):
        return f"the constant {node.value!r} is not allowed"
    if isinstance(node, ast.Constant) and isinstance(node.value, int) and abs(node.value).bit_length() > _MAX_BITS:
        return "a number in it is too large"
    return ""
