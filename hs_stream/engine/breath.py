"""Letting others run in between: a long piece of work that waits for nothing would else stop HTTP and the broker."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Final

__all__ = ["Breath"]

_LONG: Final = 0.02


class Breath:
    """``await breath()`` now and then: it yields to the event loop, once in about 20 ms of work."""

    __slots__ = ("_since",)

    def __init__(self) -> None:
        self._since = perf_counter()

    def begin(self) -> None:
        """Nobody waits yet: the others ran just now."""
        self._since = perf_counter()

    def is_due(self) -> bool:
        """Whether it is time."""
        return perf_counter() - self._since > _LONG

    async def __call__(self) -> None:
        """Let others run, if it is time."""
        if self.is_due():
            await asyncio.sleep(0)
            self._since = perf_counter()
