"""Tasks: which of them the service cannot do without, and what becomes of the others when they fail.

===================  =========  ===========================================================================
task                 essential  since
===================  =========  ===========================================================================
engine: ingest       yes        what is acknowledged must be stored; an error in the middle of an append
                                leaves open what is durable, and only a start settles that
engine: executor     yes        the same for commits; it writes the history too
engine: outbox       yes        results wait for it
engine: retention    yes        it writes with the sequence numbers of the ingest
sink of each kind    yes        results wait for it; it waits for a broker that is away by itself. What it
                                raises is a mistake in the settings, or in a plug-in, which is named
source of each kind  yes        readings wait for it; it waits by itself too. What it raises is a mistake
                                in the settings, or in a plug-in, which is named
lease                yes        whoever has lost the right to write must end
mirror of each kind  no         `SideTasks` (Home Assistant); what it shows follows from what is stored
mqtt log             no         `SideTasks`
session (heartbeat)  no         `SideTasks`
files (SIGHUP)       no         `SideTasks`
http, with viewer    no         `SideTasks`; a request that fails is answered by 500, and is no task
metrics              no         a request of HTTP; what is counted on the way of a reading: `careful`
===================  =========  ===========================================================================

A task of a request (live events, compute) ends with its request. MongoDB's checkpoint is part of the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, ParamSpec

import structlog

from hs_stream.backoff import backoff
from hs_stream.core.errors import Fenced, HsStreamError
from hs_stream.engine.telemetry import Telemetry

__all__ = ["SideTasks", "careful", "first_error"]

logger = structlog.get_logger(__name__)

Arguments = ParamSpec("Arguments")
_FIRST_DELAY: Final = 1.0
_LAST_DELAY: Final = 60.0
_CALM: Final = 60.0
"""Seconds without a failure after which a task is in order again."""
_MOST_SAID: Final = 10
_LONGEST: Final = 500
_FRAMES: Final = 4


@dataclass(slots=True)
class _State:
    failures: int = 0
    """Since the start."""
    in_a_row: int = 0
    since: float = -math.inf
    """When it was started last, or failed last."""
    error: str = ""
    waiting: bool = False
    """To be started again."""
    said: set[str] = field(default_factory=set)
    """What the log has by now."""


class SideTasks:
    """Keeps tasks going that must never end the service, unless the store was taken over. ``failed(name)`` counts.

    A task that fails is started again after a delay: at first a second, twice as long each time, at most a minute, and
    jittered. The log has each cause once, until the task has run for a minute. `troubles` names what failed within the
    last minute, or waits to be started again.
    """

    def __init__(self, failed: Callable[[str], None], *, first: float = _FIRST_DELAY, calm: float = _CALM) -> None:
        self._failed = failed
        self._first, self._calm = first, calm
        self._states: dict[str, _State] = {}
        self._stopping = asyncio.Event()

    async def keep(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run ``run`` until it returns, again and again when it raises. Ends when cancelled, and after `stop`."""
        state = self._states.setdefault(name, _State())
        while not self._stopping.is_set():
            try:
                await run()
                return
            except Fenced:
                raise  # whoever has lost the right to write must end
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                self._note(name, state, error)  # something inside was cancelled, not this task
            except Exception as error:  # noqa: BLE001 - whatever it is, the service goes on
                self._note(name, state, error)
            state.waiting = True
            try:
                async with asyncio.timeout(backoff(state.in_a_row - 1, self._first, _LAST_DELAY)):
                    await self._stopping.wait()
            except TimeoutError:
                state.waiting, state.since = False, time.monotonic()

    def guarded(self, name: str, call: Callable[Arguments, None]) -> Callable[Arguments, None]:
        """``call``, for where an essential task tells a side task something: what it raises stays in there."""
        state = self._states.setdefault(name, _State())

        def safe(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
            try:
                call(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - as above
                self._note(name, state, error)

        return safe

    def stop(self) -> None:
        """Start nothing again."""
        self._stopping.set()

    def troubles(self) -> list[dict[str, Any]]:
        """``{what, error, count}`` of each that is not in order; ``count`` is that of all failures since the start."""
        now = time.monotonic()
        return [
            {"what": f"side task {name}", "error": state.error, "count": state.failures}
            for name, state in self._states.items()
            if state.failures and (state.waiting or now - state.since < self._calm)
        ]

    def _note(self, name: str, state: _State, error: BaseException) -> None:
        now = time.monotonic()
        text = _text(error)
        if now - state.since > self._calm:
            state.in_a_row = 0
            state.said.clear()
        if text not in state.said and len(state.said) < _MOST_SAID:
            state.said.add(text)
            logger.error("a side task failed; the service goes on", task=name, error=text, where=_where(error))
        state.failures += 1
        state.in_a_row += 1
        state.since, state.error = now, text
        with contextlib.suppress(Exception):  # counting is a side task itself
            self._failed(name)


def careful(telemetry: Telemetry, side: SideTasks) -> Telemetry:
    """``telemetry`` for the engine: whatever goes wrong in there is a failure of the side task ``metrics``."""
    made = Telemetry()
    for name, own in vars(Telemetry).items():
        if not name.startswith("_") and callable(own):
            setattr(made, name, side.guarded("metrics", getattr(telemetry, name)))
    return made


def _root(error: BaseException) -> BaseException:
    return first_error(error) if isinstance(error, BaseExceptionGroup) else error


def _where(error: BaseException) -> str:
    """The last lines of code that it came through. Not its traceback: that may have values of devices in it."""
    frames = traceback.extract_tb(_root(error).__traceback__)[-_FRAMES:]
    return " > ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames)


def _text(error: BaseException) -> str:
    root = _root(error)
    text = str(root) if isinstance(root, HsStreamError) else f"{type(root).__name__}: {root}"
    return (text if text.isprintable() else repr(text)[1:-1])[:_LONGEST]


def first_error(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error to report: ours before others, whichever came first."""
    flat: list[BaseException] = []
    stack: list[BaseException] = [errors]
    while stack:
        error = stack.pop(0)
        if isinstance(error, BaseExceptionGroup):
            stack[:0] = error.exceptions
        else:
            flat.append(error)
    return next((error for error in flat if isinstance(error, HsStreamError)), flat[0])
