"""Whether the workflow files say what runs: they are loaded when somebody asks, and looked at all the time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

import structlog

from hs_stream.core.errors import HsStreamError
from hs_stream.service.workflows.catalog import Catalog, Unread

__all__ = ["FileWatch"]

logger = structlog.get_logger(__name__)

_LOOK_SECONDS: Final = 2.0
"""Between two looks at when the workflow files were written."""


class FileWatch:
    """The files of ``catalog``. Both of `load` and `look` go on until they are cancelled.

    ``changing`` is held by who changes workflows. `load` does so within ``undisturbed()``, and calls ``changed`` when
    something else is to run now.
    """

    def __init__(
        self,
        catalog: Catalog,
        changing: asyncio.Lock,
        undisturbed: Callable[[], AbstractAsyncContextManager[None]],
        changed: Callable[[], None],
    ) -> None:
        self._catalog, self._changing, self._undisturbed, self._changed = catalog, changing, undisturbed, changed
        self._asked = asyncio.Event()
        self.unread: Unread | None = None
        """The files that differ from what runs, as they were looked at last."""

    def ask(self) -> None:
        """Let `load` read the files again. May be called from a signal handler of the loop."""
        self._asked.set()

    async def load(self) -> None:
        """Read the files again whenever `ask` was called. What is wrong with them is said, and nothing changes."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                async with self._undisturbed(), self._changing:
                    different = await self._catalog.read_files()
                    self.unread = None
                    if different:
                        self._changed()
                    else:
                        logger.info("the workflow files say nothing new")
            except HsStreamError as error:
                logger.warning("the workflows stay as they are", error=str(error))

    async def look(self) -> None:
        """Say once when workflow files differ from what runs. Nothing is loaded."""
        seen, settled = None, True
        while True:
            began = time.monotonic()
            stamps = await asyncio.to_thread(self._catalog.stamps)
            if stamps != seen:
                # Perhaps it is still being written.
                seen, settled = stamps, False
            elif not settled:
                settled = True
                await self._compare()
            # A pattern with ** may look at many directories.
            await asyncio.sleep(max(_LOOK_SECONDS, 50 * (time.monotonic() - began)))

    async def _compare(self) -> None:
        async with self._changing:
            unread = await self._catalog.unread()
            if unread is not None and unread != self.unread:
                logger.warning(unread.text, hint=unread.hint)
            self.unread = unread
