"""A backend that is as far away as another machine, and answers in any order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from random import Random
from typing import Final

from hs_stream.compute.packed import pack_result, pack_task, unpack_result, unpack_task
from hs_stream.compute.run import run
from hs_stream.compute.task import Result, Task
from hs_stream.core.errors import BackendUnavailable, ConfigurationError
from hs_stream.core.registry import ToolRegistry

__all__ = ["ShuffledBackend"]

_TURNS: Final = (0, 0, 1, 2, 5, 20)


class ShuffledBackend:
    """Nothing but bytes goes there and comes back, each way some turns of the event loop later: so many as are drawn.

    What has no bytes is run here.
    """

    def __init__(self, random: Random, registry: ToolRegistry, slots: int = 4) -> None:
        self.slots: Final = slots
        self.under_way = 0
        self.most = 0
        """So many were under way at once."""
        self.overtaken = 0
        """How often a result came before that of a task that was sent earlier."""
        self.here = 0
        self._random = random
        self._registry = registry
        self._waiting: list[int] = []
        self._sent = 0
        self._lost = 0

    def lose(self, task: int) -> None:
        """The worker that gets the ``task``-th task from now on (from 1) dies; 0: none does."""
        self._lost = task

    def run(self, task: Task) -> Result | Awaitable[Result]:
        """See `hs_stream.engine.ports.Backend`."""
        try:
            packed = pack_task(task)
        except (ConfigurationError, ValueError):
            self.here += 1
            return run(task)
        return self._elsewhere(packed, task)

    async def _elsewhere(self, packed: bytes, task: Task) -> Result:
        self._sent += 1
        number = self._sent
        self._waiting.append(number)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self._dawdle()
            self._lost -= 1
            if not self._lost:
                raise BackendUnavailable("a worker has died")
            try:
                answer = pack_result(run(unpack_task(packed, self._registry)))
            except ValueError:  # a state that has no bytes
                self.here += 1
                return run(task)
            await self._dawdle()
            self.overtaken += number != min(self._waiting)
            return unpack_result(answer)
        finally:
            self._waiting.remove(number)
            self.under_way -= 1

    async def _dawdle(self) -> None:
        for _ in range(self._random.choice(_TURNS)):
            await asyncio.sleep(0)
