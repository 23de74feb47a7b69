"""Tools over all streams of a plate that keep every value and the plate value it comes from.

What holds for all of them: at each time at which any of the streams has an instance there is one output, which holds
what each of them has at exactly that time. So two streams with an instance in the same millisecond lose nothing.
"""

from __future__ import annotations

import csv
import io
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hs_stream.core.batch import Batch
from hs_stream.core.errors import ToolError
from hs_stream.core.time import TimeInterval, format_time
from hs_stream.core.tool import SKIP, AggregateTool, Sources
from hs_stream.core.value import Value
from hs_stream_tools._values import number, wrong
from hs_stream_tools.functions import Apply, Expression

__all__ = ["AggregateIntoDictAndApply", "AggregatePlate", "HistogramsToCsv", "PercentilesToCsv"]


@dataclass(frozen=True, kw_only=True)
class AggregatePlate(AggregateTool):
    """The streams of a plate interleaved in one, each value with the plate value that it comes from.

    Output, at each time at which any stream has an instance: a list of objects, in the order of the plate values, one
    for each stream that has an instance then. It is a list also where there is one only, so that what happens in the
    same millisecond is kept without moving it in time. ``plate``: the name of the field that holds the plate value, for
    example that of the plate; the field ``value`` holds the value, of any type and unchanged.

    >>> AggregatePlate(plate="room").aggregate([20.5, None], ["hall", "kitchen"])
    [{'room': 'hall', 'value': 20.5}, {'room': 'kitchen', 'value': None}]
    """

    name = "aggregate_plate"
    version = "1.0.0"
    together = False
    samples = ({}, {"plate": "room"})
    plate: str = "plate"

    def __post_init__(self) -> None:
        if self.plate in ("", "value"):
            raise ValueError(f"plate must name a field other than 'value', but is {self.plate!r}")

    def aggregate(self, values: Sequence[Value], keys: Sequence[str]) -> Value:
        """One object for each value."""
        return [{self.plate: key, "value": value} for key, value in zip(keys, values, strict=True)]


@dataclass(frozen=True, kw_only=True)
class AggregateIntoDictAndApply(AggregateTool):
    """The values of a plate in one object, under their plate values, a function applied to each.

    Either ``function``: an import path or a Python function, as for ``apply``; it is called with one value. Or
    ``expression``: a formula, as for ``expression`` with one input. Without both the values are passed on unchanged.
    Output, at each time at which any stream has an instance: an object with one field for each stream that has one
    then, and for whose value the function or formula has a result; no output where there is none.

    >>> streams = Sources([Batch.of([(1, 20.7)]), Batch.of([(1, 19.2), (2, 18.0)])], ["hall", "kitchen"])
    >>> list(AggregateIntoDictAndApply(function=round).evaluate(TimeInterval(0, 9), streams))
    [(1, {'hall': 21, 'kitchen': 19}), (2, {'kitchen': 18})]
    """

    name = "aggregate_into_dict_and_apply"
    version = "1.0.0"
    together = False
    takes = "number"
    samples = ({"function": "builtins:repr"}, {"expression": "1 / value"}, {})
    function: Any = None
    expression: str | None = None

    def __post_init__(self) -> None:
        if self.function is not None and self.expression is not None:
            raise ValueError("give function or expression, not both")
        self.each  # noqa: B018 - made now, so that a mistake in it is found before the first reading

    @cached_property
    def each(self) -> Apply | Expression | None:
        """The tool that is applied to each value."""
        if self.function is not None:
            return Apply(function=self.function)
        return None if self.expression is None else Expression(expression=self.expression)

    def parameters(self) -> dict[str, Any]:
        """With the import path of the function. `ConfigurationError` when it has none."""
        function = self.each.parameters()["function"] if isinstance(self.each, Apply) else None
        return {"function": function, "expression": self.expression}

    def aggregate(self, values: Sequence[Value], keys: Sequence[str]) -> Value:
        """The object."""
        return dict(zip(keys, values, strict=True))

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """The objects in ``interval``, of what the function or formula makes of each stream."""
        keys = sources.keys if isinstance(sources, Sources) else [str(slot) for slot in range(len(sources))]
        made = [self._made(interval, key, source) for key, source in zip(keys, sources, strict=True)]
        return super().evaluate(interval, Sources(made, keys))

    def _made(self, interval: TimeInterval, key: str, source: Batch) -> Batch:
        if self.each is None:
            return source
        try:
            return self.each.evaluate(interval, [source])
        except (ToolError, TypeError) as error:
            raise type(error)(f"{self.name}, from {key!r}: {error}") from error


class _ToCsv(AggregateTool):
    """Rows of CSV: time, plate value, and what `cells` makes of the value. `HistogramsToCsv` says the rest."""

    together = False

    @abstractmethod
    def cells(self, key: str, value: Value) -> list[list[Value]]:
        """The rows for ``value``, which is not ``None``, of the plate value ``key``: what follows the plate value."""

    def numbers(self, key: str, values: Sequence[Value]) -> list[Value]:
        """``values`` as fields. ``TypeError`` for what is no number."""
        where = f" from {key!r}"
        # Plus makes 0 or 1 of a bool.
        return [None if number(self.name, value, where) is None else +value for value in values]

    def aggregate(self, values: Sequence[Value], keys: Sequence[str]) -> Value:
        """The rows without their time, or SKIP."""
        pairs = zip(keys, values, strict=True)
        rows = [[key, *cells] for key, value in pairs if value is not None for cells in self.cells(key, value)]
        return rows or SKIP

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """The texts in ``interval``."""
        found = super().evaluate(interval, sources)
        return Batch.build(found.times, [_csv(time, rows) for time, rows in found])


def _csv(time: int, rows: list[list[Value]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([format_time(time), *row] for row in rows)
    return text.getvalue()


@dataclass(frozen=True, kw_only=True)
class HistogramsToCsv(_ToCsv):
    """The histograms of a plate as rows of CSV, at each time at which any stream has one.

    Takes what ``histogram_from_list`` gives. A list of counts is one row: time, plate value, counts. An object
    (``categorical``) is one row for each category, in alphabetical order: time, plate value, category, count.

    Output: text. Rows are in the order of the plate values and quoted as in RFC 4180, each ends with a line feed, and
    there is no header, so that the outputs one after the other are a CSV file. Times are ISO 8601 in UTC. A missing
    count (``None``, NaN) is an empty field. No row for a value that is ``None``, no output without a row; ``TypeError``
    for what is neither a list nor an object of numbers.

    >>> streams = Sources([Batch.of([(0, [1, 0, 2])]), Batch.of([(0, [4, 0, 0])])], ["hall", "kitchen"])
    >>> [(_, text)] = HistogramsToCsv().evaluate(TimeInterval(-1, 0), streams)
    >>> text.splitlines()
    ['1970-01-01T00:00:00Z,hall,1,0,2', '1970-01-01T00:00:00Z,kitchen,4,0,0']
    """

    name = "histograms_to_csv"
    version = "1.0.0"
    output_kind = "same"
    output_unit = "none"
    takes = "[number]"

    def cells(self, key: str, value: Value) -> list[list[Value]]:
        """The counts in one row, or a row for each category."""
        if isinstance(value, dict):
            categories = sorted(value)
            counts = self.numbers(key, [value[category] for category in categories])
            return [[category, count] for category, count in zip(categories, counts, strict=True)]
        if not isinstance(value, list):
            raise wrong(self.name, "lists or objects of counts", value, f" from {key!r}")
        return [self.numbers(key, value)]


@dataclass(frozen=True, kw_only=True)
class PercentilesToCsv(_ToCsv):
    r"""The percentiles of a plate as rows of CSV, at each time at which any stream has some.

    Takes what ``percentiles_from_list`` gives, a list of numbers. One row for each stream: time, plate value, numbers.
    Output: text as of ``histograms_to_csv``. No row for a value that is ``None``, no output without a row;
    ``TypeError`` for what is no list of numbers.

    >>> streams = Sources([Batch.of([(0, [18.5, 21.0])])], ["hall"])
    >>> list(PercentilesToCsv().evaluate(TimeInterval(-1, 0), streams))
    [(0, '1970-01-01T00:00:00Z,hall,18.5,21.0\n')]
    """

    name = "percentiles_to_csv"
    version = "1.0.0"
    output_kind = "same"
    output_unit = "none"
    takes = "[number]"

    def cells(self, key: str, value: Value) -> list[list[Value]]:
        """The numbers in one row."""
        if not isinstance(value, list):
            raise wrong(self.name, "lists of numbers", value, f" from {key!r}")
        return [self.numbers(key, value)]
