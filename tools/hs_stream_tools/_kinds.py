"""What tools of one family say of kinds (`hs_stream.core.kinds`): what they make, and what is probably not meant.

Each ``not_...`` is what `Tool.unmeant` returns: why, and what to write instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hs_stream.core.kinds import Kind, Meaning

__all__ = [
    "NOT_AN_INTEGRAL",
    "Unmeant",
    "named",
    "not_a_counter",
    "not_a_mean",
    "not_a_sum",
    "not_an_extreme",
    "of_window",
]

Unmeant = tuple[str, str] | None

_PER_PERIOD = "write utility_meter@^2 for what it counted per period, or increase for the time before now"

NOT_AN_INTEGRAL: dict[Kind, tuple[str, str]] = {
    "counter": ("integral adds up a rate over time, and a counter is such a total already", _PER_PERIOD),
    "amount": ("integral adds up a rate over time, and amounts are added as they are", "write sliding_sum@^2"),
}


def of_window(tool: Any) -> Kind:
    """What a sum, a count or an increase over windows is: an amount, where each instant lies in one of them."""
    if getattr(tool, "running", False):
        return "counter"
    tiled = getattr(tool, "period", None) is not None or tool.width == tool.every
    return "amount" if tiled else "sample"


def not_a_mean(what: str, kind: Kind, weigh: str | None) -> Unmeant:
    """Of a mean or the like; ``weigh``: what to write instead for a state, ``None`` where it is weighed by time."""
    if kind == "counter":
        return f"{what} of a total says how old the meter is, not what it counted", _PER_PERIOD
    if kind == "state" and weigh is not None:
        return f"{what} counts each message once, however long it lasted", weigh
    return None


def not_an_extreme(what: str, kind: Kind, held: bool) -> Unmeant:
    """Of a minimum or maximum."""
    if kind == "state" and not held:
        return f"{what} leaves out what held as its window began", f"write {what}@^2 with held: true"
    return None


def not_a_sum(what: str, kind: Kind) -> Unmeant:
    """Of a sum over time."""
    if kind == "counter":
        return f"{what} adds a total once for each message", _PER_PERIOD
    if kind == "state":
        return (
            f"{what} adds each message once, however long it lasted",
            "write integral@^2 for what it adds up to over time, or say kind: amount if each reading is one",
        )
    return None


def not_a_counter(tool: str, kind: Kind) -> Unmeant:
    """Of what reads counters."""
    if kind == "counter":
        return None
    instead = "write sliding_sum@^2" if kind == "amount" else "write integral@^2 for what a rate adds up to"
    return f"{tool} reads a counter, a total that rises", f"{instead}, or say kind: counter if it is one"


def named(names: Sequence[str] | None, inputs: Sequence[Meaning]) -> Meaning:
    """Of an object that has the ``inputs`` in fields called so; of a list nothing is known."""
    return Meaning(fields={name: one for name, one in zip(names or (), inputs, strict=False) if one})
