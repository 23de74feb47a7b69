"""Tools on units of measurement."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

from hs_stream.core.kinds import Meaning, Met, is_unit
from hs_stream.core.tool import SKIP, MapTool
from hs_stream.core.units import Conversion, conversion
from hs_stream.core.value import Value
from hs_stream_tools._values import number

__all__ = ["Convert"]


@dataclass(frozen=True, kw_only=True)
class Convert(MapTool):
    """Each number in another unit: kW of W, °C of °F, L of m³, kWh of Wmin.

    ``of``: the unit of the input. ``to``: that of the output. Units are written as people write them (``W``, ``kWh``,
    ``°C``, ``m³/h``, ``µg/m³``, ``EUR/kWh``); capitals matter. ``m3`` is m³, and ``gal`` the US gallon. What one is of
    the other is exact, and the result is rounded once. Of a whole number, a whole factor makes a whole number. No
    output where the value is missing (``None``, NaN). ``TypeError`` for what is no number.

    >>> Convert(of="°F", to="°C").map(98.6), Convert(of="Wmin", to="kWh").map(184_223)
    (37.0, 3.0703833333333335)
    """

    name = "convert"
    version = "1.0.0"
    takes = "number"
    output_kind = "same"
    output_unit = "parameter"
    samples = (
        {"of": "W", "to": "kW"},
        {"of": "°F", "to": "°C"},
        {"of": "kWh", "to": "Wh"},
        {"of": "m³/h", "to": "L/min"},
        {"of": "%", "to": "%"},
    )
    of: str
    to: str

    def __post_init__(self) -> None:
        for name, unit in (("of", self.of), ("to", self.to)):
            if not is_unit(unit):
                raise ValueError(f"{name} is no unit: {reprlib.repr(unit)}")
        self._conversion  # noqa: B018 - works it out now, so that a mistake is found before the first reading

    @cached_property
    def _conversion(self) -> Conversion:
        found = conversion(self.of, self.to)
        if found is None:
            raise ValueError(f"no {self.of} becomes {self.to}: they measure different things, or one is not known")
        return found

    @cached_property
    def _simple(self) -> tuple[int, int] | None:
        """``(n, 1)`` or ``(1, n)`` where one operation on floats is as exact as fractions are."""
        factor = self._conversion.factor
        pair = (factor.numerator, factor.denominator)
        return pair if not self._conversion.offset and 1 in pair and 0 < max(pair) <= 1 << 53 else None

    def meaning(self, inputs: Sequence[Meaning]) -> Meaning:
        """In ``to``."""
        return replace(super().meaning(inputs), unit=self.to)

    def meets(self, inputs: Sequence[Meaning]) -> Iterable[Met]:
        """The input is in ``of``."""
        unit = inputs[0].unit
        if unit is not None and unit != self.of:
            yield Met(0, unit, "of", self.of, f"write of: {unit}")

    def map(self, value: Value) -> Value:
        """The number in ``to``, or SKIP."""
        if isinstance(value, int):
            return self._exactly(value)
        found = number(self.name, value)
        if found is None:
            return SKIP
        if self._simple is not None:
            times, by = self._simple
            # Adding 0.0 turns -0.0 into 0.0.
            return (found * times if by == 1 else found / by) + 0.0
        return self._exactly(found) if math.isfinite(found) else found

    def _exactly(self, value: int | float) -> Value:
        factor, offset = self._conversion.factor, self._conversion.offset
        result = Fraction(value) * factor + offset
        if isinstance(value, int) and factor.denominator == offset.denominator == 1:
            whole = int(result)
            if -(1 << 63) <= whole < 1 << 63:
                return whole
        try:
            return float(result)
        except OverflowError:
            return math.copysign(math.inf, result)
