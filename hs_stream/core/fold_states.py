"""States of a fold that are no values: they are never stored, and a copy of one is itself."""

from __future__ import annotations

from typing import Final

__all__ = ["HALTED", "INITIAL"]


class _NoValue:
    """The type of `INITIAL` and `HALTED`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name

    def __reduce__(self) -> str:
        return self._name


INITIAL: Final = _NoValue("INITIAL")
"""The state of a fold before its first instance: what its tool says."""
HALTED: Final = _NoValue("HALTED")
"""The state of a fold after a value with which it must not go on."""
