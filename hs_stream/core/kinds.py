"""What a value means beyond its type: its kind, and its unit.

========  ====================================================================  ======================
kind      means                                                                 how it is combined
========  ====================================================================  ======================
sample    a measurement at an instant, which says nothing of the time between   counted once each
state     holds until the next reading, or until nobody knows                   weighted by time
counter   a total that rises; it may be reset, replaced, wrapped, or dip        differences
amount    what belongs to an interval: kWh of an hour, litres of a pulse        added
event     happened at an instant                                                counted
========  ====================================================================  ======================

1. A `Meaning` is declared: a source or a node says it, or a tool carries it from its inputs to its output. It changes
   no value and no fingerprint; what is not known is ``None``.
2. A unit is text: ``W``, ``°C``, ``kWh``, ``EUR``. `NO_UNIT` is that of counts, shares of 1 and booleans.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, get_args

__all__ = ["KINDS", "NO_UNIT", "UNKNOWN", "Carried", "Kind", "Meaning", "Met", "UnitRule", "is_unit", "unit_of_time"]

Kind = Literal["sample", "state", "counter", "amount", "event"]
Carried = Kind | Literal["same", "unknown"]
"""What kind a tool's output has; ``same``: that of its first input."""
UnitRule = Literal["same", "difference", "times time", "per time", "product", "none", "parameter", "unknown"]
"""What unit a tool's output has: that of its first input; that of a difference of it (K of °C); that, times or per the
time that its parameter ``unit`` is; the product of its inputs' units; none (counts, booleans); that of a parameter,
``unit`` where it is a time."""

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
NO_UNIT: Final = "1"
"""UCUM's unit of what has none."""

_LONGEST: Final = 40
_TIMES: Final = {1: "ms", 1000: "s", 60_000: "min", 3_600_000: "h", 86_400_000: "d"}


@dataclass(frozen=True, slots=True)
class Meaning:
    """The kind and unit of a value, and of the fields where it is an object. ``None``: not known."""

    kind: Kind | None = None
    unit: str | None = None
    fields: Mapping[str, Meaning] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether anything is known."""
        return self != UNKNOWN

    def said(self) -> dict[str, str]:
        """``kind`` and ``unit`` by name, as far as they are known; of the value, not of its fields."""
        pairs = {"kind": self.kind, "unit": self.unit}
        return {key: value for key, value in pairs.items() if value is not None}

    def field(self, name: str) -> Meaning:
        """That of a field; `UNKNOWN` where nothing is known of it."""
        return self.fields.get(name, UNKNOWN)

    def over(self, other: Meaning) -> Meaning:
        """What this says, and ``other`` where this says nothing."""
        return Meaning(self.kind or other.kind, self.unit or other.unit, {**other.fields, **self.fields})

    def conflict(self, other: Meaning) -> str:
        """What both say, differently: ``the kind state and the kind counter``; empty where nothing is."""
        for name in sorted({*self.fields} & {*other.fields}):
            if found := self.field(name).conflict(other.field(name)):
                return f"of {name} {found}"
        for what, mine, its in (("kind", self.kind, other.kind), ("unit", self.unit, other.unit)):
            if mine is not None and its is not None and mine != its:
                return f"the {what} {mine} and the {what} {its}"
        return ""


class Met(NamedTuple):
    """Two values that a tool puts together and that must be in one unit: which input or field each is, and its unit.

    ``instead``: what to write where they are not, if there is something better than to convert one.
    """

    one: int | str
    unit: str
    other: int | str
    other_unit: str
    instead: str = ""


UNKNOWN: Final = Meaning()


def is_unit(text: str) -> bool:
    """Whether ``text`` may be a unit: up to 40 characters that can be seen, without a space at an end."""
    return 0 < len(text) <= _LONGEST and text.isprintable() and text == text.strip()


def unit_of_time(duration: int) -> str | None:
    """``h`` for 3,600,000 milliseconds; ``None`` for a duration that is no unit of its own."""
    return _TIMES.get(duration)
