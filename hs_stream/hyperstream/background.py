"""An event loop in a thread of its own, for callers that block and may run in a loop already."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from hs_stream.core.errors import ConfigurationError

__all__ = ["Background"]

T = TypeVar("T")
_LAST_SECONDS: Final = 1.0


class Background:
    """Runs coroutines for other threads, until `close`. Any thread but its own may call."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop
        self._end: asyncio.Event
        self._ready = threading.Event()
        self._closed = False
        # A daemon, because nobody else would end a script that forgot to close it.
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="hs-stream", daemon=True)
        self._thread.start()
        self._ready.wait()

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        await self._end.wait()
        # A driver ends its tasks by itself, and leaves sockets open where they are cancelled.
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=_LAST_SECONDS)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` returns or raises. An interrupt (Ctrl-C) cancels it.

        `ConfigurationError` when closed, and when called from ``work`` itself, which would wait for itself for ever.
        """
        if self._closed or threading.current_thread() is self._thread:
            work.close()
            if self._closed:
                raise ConfigurationError("this HyperStream is closed", hint="make a new one")
            raise ConfigurationError(
                "a tool asks the HyperStream that runs it", hint="give it what it needs as a source"
            )
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel what still runs, and end the thread. Idempotent."""
        if not self._closed:
            self._closed = True
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()
