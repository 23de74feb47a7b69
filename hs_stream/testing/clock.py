"""A clock that tests turn by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["VirtualClock"]


class VirtualClock:
    """Starts at ``start`` (ms) and moves only by `advance`. Whoever sleeps on it just lets others run."""

    def __init__(self, start: int = 0) -> None:
        self._now = start
        self._turned: list[Callable[[], None]] = []

    def now(self) -> int:
        """Milliseconds since the epoch."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Yield once; the time does not move."""
        await asyncio.sleep(0)

    def subscribe(self, turned: Callable[[], None]) -> None:
        """Call ``turned`` at every `advance`."""
        self._turned.append(turned)

    def advance(self, milliseconds: int) -> None:
        """Move on by ``milliseconds`` >= 0."""
        if milliseconds < 0:
            raise ValueError("a clock does not go back")
        self._now += milliseconds
        for turned in self._turned:
            turned()
