"""The paths that stream their answer: ``/api/streams/{stream}/live`` and ``POST /api/compute``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Annotated, Any, Final

from fastapi import FastAPI, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from hs_stream.core.errors import HsStreamError, Unavailable
from hs_stream.core.stream import StreamId
from hs_stream.core.time import TimeIntervals
from hs_stream.engine.engine import Engine
from hs_stream.service.http.answers import JsonResponse, status_of
from hs_stream.service.http.context import ApiContext
from hs_stream.service.http.live import Hub
from hs_stream.service.http.lookup import bounded_span, find_stream, parse_instant
from hs_stream.service.http.security import access_of
from hs_stream.service.http.sse import EventStream, event

__all__ = ["LiveRoutes"]

_MOST_REQUESTS: Final = 4
"""Computations on request at the same time."""
_PROGRESS_EVERY: Final = 0.2
_KEEP_ALIVE: Final = 15.0
_NAMED: Final = 100


class ComputeRequest(BaseModel):
    """What to compute: ``streams`` by text or id, in ``(start, end]``; times as in the rest of the API."""

    model_config = ConfigDict(extra="forbid")

    streams: Annotated[list[str], Field(min_length=1, max_length=1000)]
    start: str
    end: str = "now"


class LiveRoutes:
    """See the module."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._computing = 0

    def register(self, app: FastAPI) -> None:
        """Add the paths to ``app``; before `StreamRoutes`, whose paths match these too."""
        events: dict[int | str, dict[str, Any]] = {
            200: {"content": {"text/event-stream": {}}, "description": "Server-sent events"}
        }
        app.add_api_route(
            "/api/streams/{stream:path}/live",
            self.live,
            methods=["GET"],
            tags=["streams"],
            response_class=Response,
            responses=events,
        )
        app.add_api_route(
            "/api/compute",
            self.compute,
            methods=["POST"],
            tags=["streams"],
            response_class=JsonResponse,
            responses=events,
        )

    async def live(
        self,
        request: Request,
        stream: str,
        start: Annotated[
            str | None, Query(alias="from", description="send what is stored after this instant first; -inf for all")
        ] = None,
        last_event_id: Annotated[str, Header(description="the id of the last event that was received")] = "",
        last_id: Annotated[
            str, Query(alias="last_event_id", description="the same, for clients that cannot set headers")
        ] = "",
    ) -> Response:
        """What happens to the stream, as it happens: the events insert, revise, retract, reset, ready and end.

        A client that keeps a table by ``time``, and does what the events say, has what is stored. With the header
        ``Last-Event-ID`` it goes on where it was, also after a restart of the service. With the read-write token, what
        no workflow keeps up to date is computed while somebody looks at it.
        """
        status = find_stream(self._context, stream)
        since = None if start is None else parse_instant("from", start, self._context.clock.now())
        if self._context.hub is None:
            self._context.hub = Hub(self._context.engine)
        subscription = await self._context.hub.subscribe(
            status, last_event_id or last_id, since, computes=access_of(request.scope) == "write"
        )

        def close(in_time: bool) -> None:
            if not in_time:
                subscription.reason = "slow"
            subscription.close()

        return EventStream(subscription.chunks(), close)

    async def compute(self, request: Request, wanted: ComputeRequest) -> Response:
        """Compute exactly what is missing. Needs the read-write token.

        With ``Accept: text/event-stream`` the answer is events: progress with ``done`` and ``total`` milliseconds of
        stream time, then done or error, which has the status of the other answer. Leaving ends the computation; what is
        computed by then stays. ``incomplete`` are streams of which something could not be computed (yet), at most 100.
        """
        engine = self._context.engine
        start, end = bounded_span(wanted.start, wanted.end, self._context.clock.now())
        streams = [find_stream(self._context, text).stream for text in wanted.streams]
        if self._computing >= _MOST_REQUESTS:
            raise Unavailable(f"{self._computing} computations are under way already", hint="try again later")
        self._computing += 1
        work = _Work(engine, streams, start, end)
        if "text/event-stream" in request.headers.get("accept", ""):
            return EventStream(work.events(), self._done)
        try:
            return JsonResponse(await work.result())
        finally:
            self._done()

    def _done(self, _: bool = True) -> None:
        self._computing -= 1


class _Work:
    """One computation on request."""

    def __init__(self, engine: Engine, streams: list[StreamId], start: int, end: int) -> None:
        self._engine = engine
        self._what = (streams, start, end)
        self._progress = {"done": 0, "total": 0}
        self._news = asyncio.Event()

    def _on_progress(self, done: int, total: int) -> None:
        self._progress = {"done": done, "total": total}
        self._news.set()

    async def result(self) -> dict[str, Any]:
        """Compute; raises what `Engine.compute` raises."""
        await self._engine.compute(*self._what, self._on_progress)
        total = self._progress["total"]
        streams, start, end = self._what
        window = TimeIntervals.of(start, end)
        left = [str(stream) for stream in streams if window - self._engine.find(stream).coverage]
        return {
            "streams": [str(stream) for stream in streams],
            "done": total,
            "total": total,
            "incomplete": left[:_NAMED],
        }

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The same as server-sent events."""
        task = asyncio.create_task(self.result(), name="compute")
        task.add_done_callback(lambda _: self._news.set())
        try:
            while not task.done():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_KEEP_ALIVE):
                        await self._news.wait()
                if task.done():
                    break
                self._news.clear()
                yield event("progress", self._progress)
                await asyncio.wait((task,), timeout=_PROGRESS_EVERY)
            try:
                yield event("done", task.result())
            except HsStreamError as error:
                yield event("error", {"error": error.message, "hint": error.hint, "status": status_of(error)})
        finally:
            task.cancel()
            await asyncio.wait((task,))
