"""The system's clock, and waiting on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

__all__ = ["SystemClock"]


class SystemClock:
    """Wall-clock time, never going back within one process even when the machine's clock is set back."""

    def __init__(self) -> None:
        self._latest = 0

    def now(self) -> int:
        """Milliseconds since the epoch."""
        self._latest = max(self._latest, time.time_ns() // 1_000_000)
        return self._latest

    async def sleep(self, seconds: float) -> None:
        """Wait on the event loop."""
        await asyncio.sleep(seconds)

    def subscribe(self, turned: Callable[[], None]) -> None:
        """Nobody turns this clock."""
