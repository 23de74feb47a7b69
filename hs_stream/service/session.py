"""Sessions: each run of the service as a document in its store, with a heartbeat.

The heartbeat tells readers that a service is at work. Who may write is the business of `hs_stream.service.lease`.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog

from hs_stream.core.errors import StoreUnavailable
from hs_stream.core.time import format_time, parse_time
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.ports import Clock, Store

__all__ = ["SessionBook", "running_session"]

logger = structlog.get_logger(__name__)

_BEAT_SECONDS: Final = 10.0
_SOON_SECONDS: Final = 1.0
_ALIVE_MS: Final = 30_000


class SessionBook:
    """The document of one run.

    ``counters()`` gives the figures that it keeps, ``failed()`` what failed by now, ``sources()`` what came of each
    source (`hs_stream.service.accounts`), ``broker()`` why the broker cannot be used (empty: it can), ``pending()`` the
    nodes of which something is left to compute. ``workflows`` may grow meanwhile. ``news`` asks for the document to be
    written soon. ``address`` says how a service is asked: its ``url``, and the ``lease`` that it has
    (`hs_stream.service.remote`).
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        workflows: Sequence[WorkflowDefinition],
        version: str,
        counters: Callable[[], Mapping[str, int]],
        failed: Callable[[], Sequence[Mapping[str, Any]]] = tuple,
        sources: Callable[[], Mapping[str, Mapping[str, Any]]] = dict,
        broker: Callable[[], str] = str,
        news: asyncio.Event | None = None,
        *,
        pending: Callable[[], Sequence[str]] = tuple,
        address: Mapping[str, str] | None = None,
    ) -> None:
        self._store, self._clock, self._workflows = store, clock, workflows
        self._counters, self._failed, self._sources, self._broker = counters, failed, sources, broker
        self._pending = pending
        self._address = dict(address or {})
        self._news = asyncio.Event() if news is None else news
        self.trouble = ""
        """What the store said to the last heartbeat; empty when it took it."""
        self.started = format_time(clock.now())
        self.id = f"{self.started}-{secrets.token_hex(3)}"
        self._versions = {"hs_stream": version, "python": platform.python_version()}

    async def write(self, *, stopped: bool = False) -> None:
        """Put the document. Raises `StoreUnavailable`."""
        now = format_time(self._clock.now())
        tools = {node.tool.pin for workflow in self._workflows for node in workflow.nodes.values()}
        document = {
            "started": self.started,
            **self._address,
            "versions": {**self._versions, "tools": sorted(tools)},
            "workflows": [workflow.name for workflow in self._workflows],
            "seen": now,
            "stopped": now if stopped else None,
            "counters": dict(self._counters()),
            "failed": [dict(stream) for stream in self._failed()],
            "sources": {name: dict(account) for name, account in self._sources().items()},
            "broker": self._broker(),
            "pending": list(self._pending()),
        }
        await self._store.put("sessions", self.id, document)

    async def beat(self) -> None:
        """Write the document again and again, until cancelled. A store that is away is tried at the next beat."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_BEAT_SECONDS):
                    await self._news.wait()
                    await asyncio.sleep(_SOON_SECONDS)
            self._news.clear()
            try:
                await self.write()
                self.trouble = ""
            except StoreUnavailable as error:
                self.trouble = str(error)
                logger.debug("session not written", error=error.message)


async def running_session(store: Store, now: int) -> str | None:
    """The id of a session that has shown itself within the last 30 s and has not stopped."""
    for key, document in (await store.documents("sessions")).items():
        seen = document.get("seen")
        if document.get("stopped") is None and isinstance(seen, str) and now - parse_time(seen, now=now) < _ALIVE_MS:
            return key
    return None
