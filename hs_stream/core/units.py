"""Units of measurement: how one becomes another, exactly.

1. A unit is a text: ``W``, ``°C``, ``m³/h``, ``EUR/kWh``. ``pint`` knows what it means; it is imported when two units
   that differ meet first, and never for a value.
2. A text that pint does not know (``lqi``, ``dB(A)``, and what is logarithmic, such as ``dBm``) is a unit that nothing
   else becomes. So is each currency.
3. Factors are fractions: 1 kWh is exactly 60,000 Wmin, and 212 °F are exactly 100 °C.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any, Final

__all__ = ["SAME", "Conversion", "conversion", "difference", "per", "scaled", "times"]

_WORDS: Final = (("€", "EUR"), ("£", "GBP"), ("$", "USD"), ("·", "*"))
_POWERS: Final = re.compile(r"(?<![^\W\d_])(m|cm|mm|ft)([23])(?!\w)")
_OURS: Final = (
    *("Wmin = watt * minute", "var = watt", "varh = watt * hour", "CCF = 100 * foot ** 3", "gpm = gallon / minute"),
    *(f"{name} = [{name}]" for name in ("AUD", "BRL", "CAD", "CHF", "CNY", "CZK", "DKK", "EUR", "GBP", "HUF", "INR")),
    *(f"{name} = [{name}]" for name in ("JPY", "NOK", "NZD", "PLN", "RON", "SEK", "TRY", "UAH", "USD", "ZAR")),
)
_NAMES: Final = (
    *("1", "s", "min", "h", "d", "m", "mm", "cm", "km", "g", "kg", "K", "V", "mV", "A", "mA", "Hz", "lx", "W", "kW"),
    *("MW", "Wh", "kWh", "MWh", "J", "kJ", "MJ", "GJ", "Pa", "hPa", "bar", "L", "mL", "m³", "ft³", "gal", "L/min"),
    *("L/h", "L/s", "m³/h", "m³/s", "mm/h", "m/s", "km/h", "EUR", "USD", "GBP", "CHF", "SEK", "NOK", "DKK", "EUR/kWh"),
)
"""What a product or quotient is called where it is one of them; the first that fits."""
_POWER: Final = re.compile(r"\*\*|\^|[²³¹⁰⁴-⁹⁻]")
_TAME: Final = re.compile(r"(?<=[^\W\d_])(?:(?:\*\*|\^)-?[1-9](?!\d)|[²³])(?!\*\*|\^|[²³¹⁰⁴-⁹⁻])")
"""A power that is a digit, of a letter. Another one could take for ever to work out."""
_NO_UNIT: Final = re.compile(r"\d{4}|[^\W\d_]\(|\w \w")
"""What pint would make something else of than was meant, such as decibel-ampere of dB(A)."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """``value * factor + offset``."""

    factor: Fraction
    offset: Fraction


SAME: Final = Conversion(Fraction(1), Fraction(0))
"""Of two words for one unit."""


@dataclass(frozen=True, slots=True)
class _Unit:
    """Its ``dimension``, in units of which a value of it is ``value * factor + offset``."""

    dimension: frozenset[tuple[str, Fraction]]
    factor: Fraction
    offset: Fraction = Fraction(0)


def conversion(of: str, to: str) -> Conversion | None:
    """How a value in ``of`` becomes one in ``to``; ``None`` where it cannot."""
    if of == to:
        return SAME
    one, other = _unit(of), _unit(to)
    if one.dimension != other.dimension:
        return None
    return Conversion(one.factor / other.factor, (one.offset - other.offset) / other.factor)


def times(one: str | None, other: str | None) -> str | None:
    """The unit of a product; ``None`` where it is not known, or has no name that people use."""
    return _combined(one, other, 1)


def per(one: str | None, other: str | None) -> str | None:
    """The unit of a quotient, as `times`."""
    return _combined(one, other, -1)


def scaled(unit: str | None, factor: float) -> str | None:
    """The unit of values in ``unit`` after they were multiplied by ``factor``: kWh of Wh by 0.001. As `times`."""
    if unit is None or factor == 1:
        return unit
    if not factor or not math.isfinite(factor):
        return None
    found = _of_difference(unit)
    return _name(found.dimension, found.factor / Fraction(repr(factor)))


def difference(unit: str | None) -> str | None:
    """The unit of a difference: K of °C, as 3 °C more is not 3 °C. ``None`` where it has no name."""
    if unit is None or ("°" not in unit and "deg" not in unit):
        return unit
    found = _unit(unit)
    return unit if not found.offset else _name(found.dimension, found.factor)


def _combined(one: str | None, other: str | None, power: int) -> str | None:
    if one is None or other is None:
        return None
    left, right = _of_difference(one), _of_difference(other)
    dimension = dict(left.dimension)
    for name, exponent in right.dimension:
        dimension[name] = dimension.get(name, Fraction(0)) + exponent * power
    together = frozenset((name, exponent) for name, exponent in dimension.items() if exponent)
    return _name(together, left.factor * right.factor**power) or (f"{one}/{other}" if power < 0 else None)


def _of_difference(text: str) -> _Unit:
    found = _unit(text)
    return _Unit(found.dimension, found.factor)


def _name(dimension: frozenset[tuple[str, Fraction]], factor: Fraction) -> str | None:
    return next((name for name in _NAMES if _unit(name) == _Unit(dimension, factor)), None)


@cache
def _registry() -> Any:
    from pint import UnitRegistry  # noqa: PLC0415 - takes its time, and only who has units that differ needs it

    registry: Any = UnitRegistry(non_int_type=Fraction, cache_folder=None)
    for definition in _OURS:
        registry.define(definition)
    return registry


@lru_cache(maxsize=1024)
def _unit(text: str) -> _Unit:
    whole = _Unit(frozenset({(text, Fraction(1))}), Fraction(1))
    written = _POWERS.sub(r"\1**\2", text)
    for word, meant in _WORDS:
        written = written.replace(word, meant)
    if _NO_UNIT.search(written) or _POWER.search(_TAME.sub("", written)):
        return whole
    try:
        unit = _registry().parse_units(written)
        points = [_registry().Quantity(Fraction(at), unit).to_base_units() for at in range(3)]
        zero, one, two = (Fraction(point.magnitude) for point in points)
        dimension = frozenset((str(name), Fraction(power)) for name, power in points[0].unit_items())
    except Exception:  # noqa: BLE001 - whatever pint makes of a text that is none of its units
        return whole
    return whole if two - one != one - zero else _Unit(dimension, one - zero, zero)
