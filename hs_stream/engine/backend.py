"""Where tasks are run when nobody says otherwise: here. And how several are under way at once, elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from hs_stream.compute.run import run

__all__ = ["INLINE", "Inline", "at_once"]

T = TypeVar("T")


class Inline:
    """Runs each task at once, as a plain call: nothing is awaited."""

    slots: Final = 1
    run = staticmethod(run)


INLINE: Final = Inline()


async def at_once(calls: Sequence[Callable[[], Coroutine[Any, Any, T]]], slots: int) -> list[T]:
    """What ``calls`` return, in their order. They begin in their order, and at most ``slots`` are under way at once.

    Where one raises, or who waits is cancelled, no more begin and the others are cancelled. None is under way any more
    when this returns or raises, however often who waits is cancelled meanwhile.
    """
    found: dict[int, T] = {}
    waiting = enumerate(calls)

    async def work() -> None:
        for index, call in waiting:
            found[index] = await call()

    workers = [asyncio.create_task(work(), name="evaluate") for _ in range(min(slots, len(calls)))]
    try:
        await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        error = await _end(workers)
    if error is not None:
        raise error
    return [found[index] for index in range(len(calls))]


async def _end(workers: Sequence[asyncio.Task[None]]) -> BaseException | None:
    """Return when all have ended, and what one of them raised by itself. A cancellation is raised after that."""
    for worker in workers:
        worker.cancel()
    cancelled = False
    while not all(worker.done() for worker in workers):
        try:
            await asyncio.wait(workers)
        except asyncio.CancelledError:
            cancelled = True
    errors = [asyncio.CancelledError() if worker.cancelled() else worker.exception() for worker in workers]
    if cancelled:
        raise asyncio.CancelledError
    errors.sort(key=lambda error: isinstance(error, asyncio.CancelledError))
    return next((error for error in errors if error is not None), None)
