"""The safe formula: what it computes, what it refuses, what it costs."""

from __future__ import annotations

import math
import threading
import time as clock
from typing import Any

import pytest

from hs_stream.core.batch import Batch
from hs_stream.core.errors import ConfigurationError, ToolError
from hs_stream.core.time import TimeInterval
from hs_stream.core.tool import SKIP
from hs_stream_tools.functions import Expression


def compute(expression: str, *values: Any, time: int = 0, names: list[str] | None = None) -> Any:
    return Expression.build({"expression": expression, "names": names}).compute(time, values)


@pytest.mark.parametrize(
    ("expression", "value", "expected"),
    [
        ("value * 2 + 1", 4, 9),
        ("value * 2 + 1", 4.0, 9.0),
        ("a // 3 + a % 3 - -a", 7, 10),
        ("value ** 0.5", 9, 3.0),
        ("1 < value <= 3 and not value == 2", 3, True),
        ("'warm' if value > 20 else 'cold'", 21, "warm"),
        ("max(value, 3) + min(1, 2) + abs(-2)", 1, 6),
        ("round(value, 1)", 2.345, 2.3),
        ("round(value)", 2.6, 3),
        ("int(value) + float('1.5')", 2.9, 3.5),
        ("sqrt(value) + hypot(3, 4) + floor(1.7)", 16.0, 10.0),
        ("degrees(pi)", 0, 180.0),
        ("str(value) + '!'", 5, "5!"),
        ("temperature - dew", {"temperature": 21.5, "dew": 1.5}, 20.0),
        ("value['a'][1]", {"a": [1, 2]}, 2),
        ("len(value) + value[-1]", [1, 2, 3], 6),
        ("'on' in value", "power on", True),
        ("0 if value is None else value", None, 0),
        ("a is not None", None, False),
        ("weekday(time)", 0, 3),
        ("local(time, 'Europe/Brussels').hour + time.hour", 0, 1),
        ("weekday(local(time, 'UTC', 'before')) * 100 + local(time, 'UTC', 'before').hour", 0, 223),
        ("not value", False, True),
    ],
)
def test_result(expression: str, value: Any, expected: Any) -> None:
    got = compute(expression, value)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 / value", 0),
        ("1 // value", 0.0),
        ("value % 0", 3),
        ("sqrt(value)", -1),
        ("log(value)", 0),
        ("value ** 0.5", -1.0),
        ("exp(value)", 1e9),
        ("9 ** 9 ** 9", 0),
        ("value * value", 1 << 62),
        ("value ** 99999999", 3),
        ("2.0 ** 99999", 0),
        ("int(value)", math.inf),
        ("floor(value)", math.nan),
        ("value + 1", None),
        ("temperature + 1", {"humidity": 40}),
        ("value['x']", {"y": 1}),
        ("value[5]", [1]),
    ],
)
def test_no_result_is_no_output(expression: str, value: Any) -> None:
    assert compute(expression, value) is SKIP


@pytest.mark.parametrize(
    "expression",
    [
        "().__class__.__bases__",
        "value.__class__",
        "value.real",
        "time.tzinfo",
        "time.astimezone()",
        "'{0.__class__}'.format(value)",
        "f'{value.__class__}'",
        "__import__('os').system('true')",
        "__builtins__",
        "eval('1')",
        "open('/etc/passwd')",
        "getattr(value, 'real')",
        "(lambda: 1)()",
        "lambda: 1",
        "[x for x in value]",
        "[1, 2]",
        "{'a': 1}",
        "{1}",
        "(1, 2)",
        "(x := 5)",
        "x = 5",
        "import os",
        "max(*value)",
        "round(number=1)",
        "max",
        "max.__self__",
        "1 << 5",
        "value | 1",
        "~value",
        "value[0:5]",
        "1j",
        "b'x'",
        "...",
        "await value",
        "yield",
        "1 if",
        "",
        "value value",
        "value; value",
        "\0",
        "-" * 900 + "1",
        "(" * 300 + "1" + ")" * 300,
        "1" + "+1" * 400,
        "1" * 900,
        "value" + " " * 1000,
    ],
)
def test_refused_when_it_is_read(expression: str) -> None:
    with pytest.raises(ConfigurationError, match="expression"):
        Expression.build({"expression": expression})


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("'a' * 10 ** 9", 0),
        ("'%999999999d' % value", 1),
        ("value * 3", [1]),
        ("round(1, -10 ** 9)", 0),
        ("value['__class__']", 1.5),
        ("value + 'x'", 1),
        ("floor(value)", "x"),
        ("int(value)", "x"),
        ("local(time, 'Nowhere/Land')", 0),
        ("local(value, 'UTC')", 0),
        ("local(time, 'UTC', 'after').hour", 0),
        ("str(value)", {"a": 1}),
        ("time - time", 0),
    ],
)
def test_wrong_types_are_errors_that_say_what_came(expression: str, value: Any) -> None:
    with pytest.raises(TypeError, match=r"expression .* at 1970-01-01T00:00:00Z"):
        compute(expression, value)


def test_name_that_cannot_be_there() -> None:
    with pytest.raises(ToolError, match=r"there is no temprature here \(the names are a, time, value\)"):
        compute("temprature + 1", 5.0)


def test_worst_formulas_are_cheap() -> None:
    text = "x" * 9_000
    worst = ["value" + "+value" * 30, "9 ** 300 ** 1 * " * 30 + "1", "(value + value) + (value + value)"]
    begin = clock.perf_counter()
    for expression in worst:
        for value in (text, 5):
            try:
                assert compute(expression, value) is not None
            except TypeError as error:
                assert "only numbers" in str(error)  # noqa: PT017
    assert clock.perf_counter() - begin < 2.0


def evaluate(parameters: dict[str, Any], *inputs: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
    return list(Expression.build(parameters).evaluate(TimeInterval(0, 100), [Batch.of(items) for items in inputs]))


def test_several_inputs_where_all_have_an_instance() -> None:
    power, price = [(1, 100.0), (2, 200.0), (4, 1.0)], [(2, 0.25), (3, 0.3), (4, None)]
    assert evaluate({"expression": "a * b"}, power, price) == [(2, 50.0)]
    assert evaluate({"expression": "power * price", "names": ["power", "price"]}, power, price) == [(2, 50.0)]
    with pytest.raises(ToolError, match=r"needs 2 input\(s\)"):
        evaluate({"expression": "power", "names": ["power", "price"]}, power)
    assert Expression.build({"expression": "x", "names": ["x", "y"]}).arity == 2


@pytest.mark.parametrize("names", [["time"], ["a b"], ["x", "x"], []])
def test_names_must_be_usable(names: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=r"name|names"):
        Expression.build({"expression": "1", "names": names})


def test_field_does_not_hide_the_value() -> None:
    assert compute("value['value'] + x", {"value": 1, "x": 2}) == 3


def test_threads_do_not_mix_their_names() -> None:
    tool = Expression.build({"expression": "value + value * 2 - value"})
    wrong: list[int] = []

    def work(value: int) -> None:
        wrong.extend(value for _ in range(300) if tool.compute(0, [value]) != 2 * value)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
