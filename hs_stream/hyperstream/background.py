"""An event loop in a thread of its own, for callers that block and may run in a loop already.

1. The loop's thread does the engine's work. Code of the user's runs on the thread that calls, which waits meanwhile:
   there functions and modules are imported, and there tools compute (`at_caller`, `AtCaller`).
2. So a module may build and compute while it is imported: its import lock is held by the thread that waits, and no
   other thread ever asks for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, InvalidStateError
from contextvars import ContextVar, copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from hs_stream.compute.run import run
from hs_stream.compute.task import Result, Task
from hs_stream.core.errors import ConfigurationError

__all__ = ["AtCaller", "Background", "at_caller"]

T = TypeVar("T")
_LAST_SECONDS: Final = 1.0


class _Caller:
    """A thread that waits in `Background.run`, and does meanwhile what the loop's thread hands to it."""

    def __init__(self) -> None:
        self._work: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._waits = True
        self._interrupted = False
        self._asked: Future[Any] | None = None
        """At most one: the loop's thread waits for it."""

    def do(self, function: Callable[[], T]) -> T:
        """For the loop's thread: what ``function`` returns or raises on the thread that waits.

        What goes on when the call has ended is done here. ``CancelledError`` when it was interrupted.
        """
        with self._lock:
            asked: Future[Any] | None = None
            if self._interrupted:
                raise asyncio.CancelledError
            if self._waits:
                asked = self._asked = Future()
                self._work.put((function, asked))
        return function() if asked is None else asked.result()

    def serve(self) -> None:
        """For the thread that waits: do what is asked, until `end`. Raises what interrupts it."""
        while (item := self._work.get()) is not None:
            function, asked = item
            try:
                result = function()
            except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
                asked.set_exception(error)
            else:
                asked.set_result(result)

    def end(self) -> None:
        """From now on nobody waits. Any thread."""
        with self._lock:
            self._waits = False
            self._work.put(None)

    def interrupted(self) -> None:
        """`end`, and what is under way is cancelled."""
        with self._lock:
            self._interrupted = True
        self.end()
        if self._asked is not None:
            with contextlib.suppress(InvalidStateError):
                self._asked.set_exception(asyncio.CancelledError())


_caller: ContextVar[_Caller | None] = ContextVar("caller", default=None)


def at_caller(function: Callable[..., T], *arguments: Any) -> T:
    """What ``function`` returns, called on the thread that waits in `Background.run` for the work that asks.

    The loop stands still until then. Without such a thread the function is called here.
    """
    waiting = _caller.get()
    return function(*arguments) if waiting is None else waiting.do(partial(function, *arguments))


class AtCaller:
    """The backend that runs tasks on the thread that calls (see `at_caller`)."""

    slots: Final = 1

    def run(self, task: Task) -> Result:
        """See `hs_stream.engine.ports.Backend`."""
        return at_caller(run, task)


class Background:
    """Runs coroutines for other threads, until `close`. Any thread but its own may call."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop
        self._end: asyncio.Event
        self._ready = threading.Event()
        self._closed = False
        self._callers: set[int] = set()
        """Threads that wait in `run`. Who calls from one of them is called by the work that it waits for."""
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
        try:
            self._check()
        except ConfigurationError:
            work.close()
            raise
        caller, context, me = _Caller(), copy_context(), threading.get_ident()
        context.run(_caller.set, caller)
        future: Future[T] | None = None
        try:
            self._callers.add(me)
            future = context.run(asyncio.run_coroutine_threadsafe, work, self._loop)
            future.add_done_callback(lambda _: caller.end())
            caller.serve()
            return future.result()
        except BaseException:
            caller.interrupted()
            if future is not None:
                future.cancel()
            raise
        finally:
            self._callers.discard(me)

    def _check(self) -> None:
        if self._closed:
            raise ConfigurationError("this HyperStream is closed", hint="make a new one")
        if threading.get_ident() in self._callers or threading.current_thread() is self._thread:
            raise ConfigurationError(
                "a tool asks the HyperStream that runs it", hint="give it what it needs as a source"
            )

    def close(self) -> None:
        """Cancel what still runs, and end the thread. Idempotent. `ConfigurationError` from what runs on it."""
        if not self._closed:
            self._check()
            self._closed = True
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()
