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
    """Input instances in ``(t - lookback, t + lookahead]`` (milliseconds, both >= 0, not both 0), and some around them.

    ``before``: also the last so many at or before ``t - lookback``, however old: what held as the window began.
    ``after``, 0 or 1: also the first one later than ``t + lookahead``, however late. An output does not wait for it: it
    is made without it, and anew when it comes. A tool that reads it has outputs only where there is an instance at or
    before t.
    """

    lookback: int
    lookahead: int = 0
    before: int = 0
    after: int = 0

    def __post_init__(self) -> None:
        if self.lookback < 0 or self.lookahead < 0 or self.lookback + self.lookahead == 0:
            raise ConfigurationError("a window needs lookback >= 0 and lookahead >= 0, and one of them > 0")
        if self.before < 0 or self.after not in (0, 1):
            raise ConfigurationError("a window needs before >= 0, and after is 0 or 1")

    def __str__(self) -> str:
        ahead = f" +{format_duration(self.lookahead)}" if self.lookahead else ""
        before = f", {self.before} before" if self.before else ""
        after = f", {self.after} after" if self.after else ""
        return f"window {format_duration(self.lookback)}{ahead}{before}{after}"


@dataclass(frozen=True, slots=True)
class Previous:
    """The last ``n`` >= 1 input instances at or before t, however old."""

    n: int = 1

    def __str__(self) -> str:
        return f"previous {self.n}"


@dataclass(frozen=True, slots=True)
class Prefix:
    """Every input instance at or before t.

    ``after``, 0 or 1: also the first one later than t, however late, unless there is one at t. As for `Window`, an
    output does not wait for it, and there are outputs only where there is an instance at or before t. For a `FoldTool`
    on a grid.
    """

    after: int = 0

    def __post_init__(self) -> None:
        if self.after not in (0, 1):
            raise ConfigurationError("after of a prefix is 0 or 1")

    def __str__(self) -> str:
        return f"prefix, {self.after} after" if self.after else "prefix"


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
