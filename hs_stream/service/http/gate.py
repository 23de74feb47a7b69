"""A gate for requests: open, or closed for as long as what they ask is being replaced."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from hs_stream.core.errors import Unavailable

__all__ = ["Gate"]

_PATIENCE: Final = 10.0


class Gate:
    """Open from the beginning."""

    def __init__(self) -> None:
        self._inside = 0
        self._is_open, self._is_empty = asyncio.Event(), asyncio.Event()
        self._is_open.set()
        self._is_empty.set()

    @asynccontextmanager
    async def passing(self, patience: float | None = _PATIENCE) -> AsyncIterator[None]:
        """Wait until it is open, and be inside meanwhile. `Unavailable` when that takes ``patience`` seconds."""
        try:
            async with asyncio.timeout(patience):
                await self._is_open.wait()
        except TimeoutError:
            raise Unavailable("the service is loading its workflows again", hint="ask again in a moment") from None
        self._inside += 1
        self._is_empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._is_empty.set()

    def close(self) -> None:
        """Let nobody in from now on. Who is inside stays there."""
        self._is_open.clear()

    def open(self) -> None:
        """Let everybody in who waits."""
        self._is_open.set()

    async def emptied(self, patience: float) -> None:
        """Return when nobody is inside, or after ``patience`` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._is_empty.wait()
