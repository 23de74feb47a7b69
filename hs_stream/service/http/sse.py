"""Server-sent events over ASGI.

A piece of bytes is sent as it is, so one encoding serves many clients. A client that does not read holds up nobody
else, and is given up after `PATIENCE` seconds, or earlier where too much waits (`hs_stream.service.http.outgoing`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hs_stream.service.http.outgoing import PATIENCE, Outgoing
from hs_stream.service.json_values import dumps

__all__ = ["PATIENCE", "EventStream", "event"]


def event(kind: str, document: Any, identity: str = "") -> bytes:
    r"""One event.

    >>> event("end", {"reason": "slow"}, "7")
    b'id: 7\nevent: end\ndata: {"reason":"slow"}\n\n'
    """
    head = f"id: {identity}\n" if identity else ""
    return b"%sevent: %s\ndata: %s\n\n" % (head.encode(), kind.encode(), dumps(document))


class EventStream(Response):
    """Sends ``chunks`` until they end or the client leaves; calls ``close(in_time)`` in any case."""

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncGenerator[bytes, None], close: Callable[[bool], None] = lambda _: None) -> None:
        # What buffers answers (nginx) must not buffer this one.
        super().__init__(headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._chunks = chunks
        self._close = close
        self._in_time = True
        self._outgoing: Outgoing | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        outgoing = self._outgoing = scope.get("state", {}).get("outgoing", self._outgoing)
        pump = asyncio.create_task(self._pump(send), name="events")
        leaving = asyncio.create_task(_disconnected(receive), name="events: client")
        try:
            await asyncio.wait((pump, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            pump.cancel()
            leaving.cancel()
            await asyncio.wait((pump, leaving))
            self._close(self._in_time and not (outgoing is not None and outgoing.given_up))
        if not pump.cancelled():
            pump.result()

    async def _pump(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with aclosing(self._chunks) as chunks:
            async for chunk in chunks:
                if not await self._sent(send, chunk, more=True):
                    return
        await self._sent(send, b"", more=False)

    async def _sent(self, send: Send, chunk: bytes, *, more: bool) -> bool:
        outgoing = self._outgoing
        if outgoing is not None:
            outgoing.wait(len(chunk))
        try:
            async with asyncio.timeout(PATIENCE):
                await send({"type": "http.response.body", "body": chunk, "more_body": more})
        except TimeoutError:
            self._in_time = False
        if outgoing is not None:
            outgoing.wait(0)
        return self._in_time


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
