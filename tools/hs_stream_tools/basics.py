"""Tools for single values of any kind: pass on, write as JSON, multiply."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hs_stream.core.batch import Batch
from hs_stream.core.json_form import encode
from hs_stream.core.kinds import Kind, Meaning
from hs_stream.core.time import TimeInterval, format_time
from hs_stream.core.tool import Drive, FromInput, MapTool, Pointwise, Support, Tool
from hs_stream.core.units import times
from hs_stream.core.value import Value
from hs_stream_tools.joins import check_count, common_times

__all__ = ["Copy", "Jsonify", "Product"]


@dataclass(frozen=True, kw_only=True)
class Copy(MapTool):
    """Every instance as it is, under another name.

    For a stream that is to be published or kept in its own way. One input: ``aligned_merge`` and ``aggregate_plate``
    put several together without losing what happens in the same millisecond.

    >>> Copy().map({"a": 1})
    {'a': 1}
    """

    name = "copy"
    version = "1.0.0"
    output_kind = "same"
    output_unit = "same"

    def keys_made(self, keys: frozenset[str] | None) -> frozenset[str] | None:
        """The same."""
        return keys

    def map(self, value: Value) -> Value:
        """The value itself."""
        return value

    def map_batch(self, batch: Batch) -> Batch:
        """The batch itself."""
        return batch


@dataclass(frozen=True, kw_only=True)
class Jsonify(MapTool):
    """Each instance as a JSON text: its time and its value.

    The text is a list of the time (ISO 8601, UTC) and the value, with the fields of objects in alphabetical order. What
    JSON has no form for is written as in `hs_stream.core.json_form`: NaN is ``{"$number": "NaN"}``.

    >>> Jsonify().map_at(1_423_072_260_000, {"b": 1.5, "a": [True, None]})
    '["2015-02-04T17:51:00Z", {"a": [true, null], "b": 1.5}]'
    """

    name = "jsonify"
    version = "1.0.0"
    output_kind = "same"
    output_unit = "none"

    def map_at(self, time: int, value: Value) -> Value:
        """The text."""
        return json.dumps([format_time(time), encode(value)], sort_keys=True, allow_nan=False)


@dataclass(frozen=True, kw_only=True)
class Product(Tool):
    """The product of two streams, at the times at which both have a number.

    Output: float. No output where one of them has no instance at exactly this time, or a missing one (``None``, NaN):
    ``last_value`` brings a stream onto the times of another before. ``TypeError`` for what is no number.

    >>> volts, amperes = Batch.of([(1, 230.0), (2, 229.0)]), Batch.of([(2, 2), (3, 5)])
    >>> list(Product().evaluate(TimeInterval(0, 9), [volts, amperes]))
    [(2, 458.0)]
    """

    name = "product"
    version = "1.0.0"
    output_unit = "product"
    arity = 2
    takes = "number"

    def meaning(self, inputs: Sequence[Meaning]) -> Meaning:
        """Of an amount, such as kWh by a price, an amount; of two of a kind the same."""
        kinds = {one.kind for one in inputs}
        kind: Kind | None = "amount" if "amount" in kinds else kinds.pop() if len(kinds) == 1 else None
        return Meaning("sample" if kind == "counter" else kind, times(inputs[0].unit, inputs[1].unit))

    def support(self, slot: int) -> Support:
        """The instances at t."""
        return Pointwise()

    def drive(self) -> Drive:
        """The first input's times."""
        return FromInput(0)

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """The products in ``interval``."""
        check_count(self, sources, 2)
        parts = [source.slice(interval.start, interval.end) for source in sources]
        common = common_times(parts)
        left, right = (self._numbers(part.take(part.times.searchsorted(common))) for part in parts)
        there = ~(np.isnan(left) | np.isnan(right))
        with np.errstate(all="ignore"):
            return Batch.build(common[there], left[there] * right[there])

    def _numbers(self, batch: Batch) -> npt.NDArray[np.float64]:
        try:
            return batch.numbers()
        except TypeError as error:
            raise TypeError(f"{self.name} needs numbers: {error}") from None
