"""Supports and drives: which part of an input the output of a tool at t may read, and where its times come from.

All of it is to be imported from `hs_stream.core.tool`; `hs_stream.core.affected` says what follows from a support.
"""

from __future__ import annotations

from dataclasses import dataclass

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.time import Grid, format_duration

__all__ = ["Drive", "FromInput", "FromUnion", "OnGrid", "Pointwise", "Prefix", "Previous", "Support", "Window"]


@dataclass(frozen=True, slots=True)
class Pointwise:
    """The input instance at t."""

    def __str__(self) -> str:
        return "pointwise"


@dataclass(frozen=True, slots=True)
class Window:
    """Input instances in ``(t - lookback, t + lookahead]`` (milliseconds, both >= 0, not both 0)."""

    lookback: int
    lookahead: int = 0

    def __post_init__(self) -> None:
        if self.lookback < 0 or self.lookahead < 0 or self.lookback + self.lookahead == 0:
            raise ConfigurationError("a window needs lookback >= 0 and lookahead >= 0, and one of them > 0")

    def __str__(self) -> str:
        ahead = f" +{format_duration(self.lookahead)}" if self.lookahead else ""
        return f"window {format_duration(self.lookback)}{ahead}"


@dataclass(frozen=True, slots=True)
class Previous:
    """The last ``n`` >= 1 input instances at or before t, however old."""

    n: int = 1

    def __str__(self) -> str:
        return f"previous {self.n}"


@dataclass(frozen=True, slots=True)
class Prefix:
    """Every input instance at or before t."""

    def __str__(self) -> str:
        return "prefix"


Support = Pointwise | Window | Previous | Prefix


# --- drives: where output times come from ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FromInput:
    """A subset of the times of input ``slot``."""

    slot: int = 0


@dataclass(frozen=True, slots=True)
class FromUnion:
    """A subset of the union of the times of all inputs."""


@dataclass(frozen=True, slots=True)
class OnGrid:
    """A subset of the instants of ``grid``."""

    grid: Grid


Drive = FromInput | FromUnion | OnGrid
