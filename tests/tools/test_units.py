"""Units: exact factors, what a product is called, and the tool that converts."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.tool import SKIP
from hs_stream.core.units import conversion, difference, per, scaled, times
from hs_stream_tools.units import Convert

GOLDEN = [
    ("W", "kW", 1234, 1.234),
    ("kW", "W", 1.1, 1100.0),
    ("kWh", "Wh", 7, 7000),
    ("kWh", "MJ", 1, 3.6),
    ("Wmin", "kWh", 184_223, 3.0703833333333335),
    ("J", "kWh", 3_600_000, 1.0),
    ("°F", "°C", 98.6, 37.0),
    ("°F", "°C", 212, 100.0),
    ("°F", "°C", -40, -40.0),
    ("°F", "°C", 32, 0.0),
    ("°C", "°F", 21.5, 70.7),
    ("°C", "K", 0, 273.15),
    ("m³/h", "L/min", 1.2, 20.0),
    ("m3", "L", 3, 3000),
    ("gal", "L", 1, 3.785411784),
    ("CCF", "m³", 1, 2.8316846592),
    ("µg/m³", "mg/m³", 35.5, 0.0355),
    ("hPa", "mbar", 1013.25, 1013.25),
    ("mph", "km/h", 60, 96.56064),
    ("%", "1", 45, 0.45),
    ("EUR/kWh", "EUR/MWh", 0.31, 310.0),
    ("€/kWh", "EUR/kWh", 0.31, 0.31),
    ("min", "h", 90, 1.5),
    ("kWh", "Wh", 1 << 60, 1152921504606846976000.0),
    ("kWh", "Wh", (1 << 53) + 1, 9007199254740993000),
]


@pytest.mark.parametrize(("of", "to", "value", "expected"), GOLDEN)
def test_convert(of: str, to: str, value: float, expected: float) -> None:
    result = Convert(of=of, to=to).map(value)
    assert (type(result), result) == (type(expected), expected)


FACTORS = {("W", "kW"): "0.001", ("L/min", "m³/h"): "0.06", ("Wh", "J"): "3600", ("in", "mm"): "25.4", ("d", "h"): "24"}


@given(pair=st.sampled_from(sorted(FACTORS)), value=st.floats(allow_nan=False) | st.integers(-(1 << 63), (1 << 63) - 1))
def test_converted_is_the_exact_product_rounded_once(pair: tuple[str, str], value: float) -> None:
    result = Convert(of=pair[0], to=pair[1]).map(value)
    if isinstance(value, float) and math.isinf(value):
        assert result == value
        return
    # A decimal fraction of its own, and not the one of the registry.
    exact = Fraction(value) * Fraction(Decimal(FACTORS[pair]))
    try:
        rounded = float(exact)
    except OverflowError:
        rounded = math.copysign(math.inf, exact)
    if isinstance(value, int) and Fraction(FACTORS[pair]).denominator == 1 and -(1 << 63) <= exact < 1 << 63:
        assert (type(result), result) == (int, int(exact))
    else:
        assert (type(result), result) == (float, rounded)
        assert math.copysign(1, result) == 1 or result < 0


@given(value=st.floats(-1e9, 1e9))
def test_degrees_with_an_offset_are_rounded_once(value: float) -> None:
    assert Convert(of="°F", to="°C").map(value) == float((Fraction(value) - 32) * 5 / 9)


def test_missing_values_and_what_is_no_number() -> None:
    tool = Convert(of="W", to="kW")
    assert (tool.map(None), tool.map(math.nan), tool.map(math.inf)) == (SKIP, SKIP, math.inf)
    with pytest.raises(TypeError, match="convert needs numbers, but got str"):
        tool.map("5 W")


@pytest.mark.parametrize(
    ("of", "to"),
    [
        ("°C", "kWh"),
        ("EUR", "USD"),
        ("dBm", "W"),
        ("lqi", "W"),
        ("kwh", "kWh"),
        ("W" + "**9" * 9, "W"),
        ("9**9**9*W", "W"),
    ],
)
def test_what_does_not_become_the_other_is_refused(of: str, to: str) -> None:
    with pytest.raises(ConfigurationError, match="becomes"):
        Convert.build({"of": of, "to": to})


@pytest.mark.parametrize("unit", ["", " W", "W\n", "W*" * 30 + "W"])
def test_what_is_no_unit_is_refused(unit: str) -> None:
    with pytest.raises(ConfigurationError, match="to is no unit"):
        Convert.build({"of": "W", "to": unit})


def test_products_and_quotients_have_the_names_that_people_use() -> None:
    assert times("W", "h") == "Wh"
    assert scaled(times("W", "h"), 0.001) == "kWh"
    assert times("kWh", "€/kWh") == times("EUR/kWh", "kWh") == "EUR"
    assert times("mm/h", "h") == "mm"
    assert per("kWh", "h") == "kW"
    assert per("L", "min") == "L/min"
    assert per("°C", "h") == "°C/h"
    assert times("lx", "h") is None
    assert [scaled("Wh", factor) for factor in (0.0, math.inf, math.nan, 0.3)] == [None] * 4
    assert times("W", None) is None
    assert (difference("°C"), difference("°F"), difference("W"), difference(None)) == ("K", None, "W", None)


def test_what_is_unknown_is_itself_and_nothing_else() -> None:
    assert conversion("lqi", "lqi") is not None
    assert conversion("dB(A)", "dB") is None
