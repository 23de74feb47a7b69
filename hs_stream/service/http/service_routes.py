"""The paths about the service itself: whether it works, what it did, what it could not use; and its plain pages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any, Final

from fastapi import FastAPI, Query, Response
from fastapi.responses import HTMLResponse

from hs_stream.service.http.answers import JsonResponse
from hs_stream.service.http.context import ApiContext
from hs_stream.service.http.lookup import MAX_ROWS, ROWS
from hs_stream.service.http.pages import docs_page, overview_page
from hs_stream.service.http.workflow_routes import workflow_rows
from hs_stream.service.json_documents import entry_json, failed_json, letter_json, overwritten_json
from hs_stream.service.json_values import encode

__all__ = ["ServiceRoutes"]

_SETTLE_SECONDS: Final = 0.02
_MAX_WAIT: Final = 10


class ServiceRoutes:
    """See the module. ``openapi`` gives the description that ``/docs`` shows."""

    def __init__(self, context: ApiContext, openapi: Callable[[], dict[str, Any]]) -> None:
        self._context = context
        self._openapi = openapi

    def register(self, app: FastAPI, *, overview: bool = True) -> None:
        """Add the paths to ``app``, and the status page at ``/`` where no viewer is."""
        for path, endpoint in (
            ("/healthz", self.healthz),
            ("/readyz", self.readyz),
            ("/api/sessions", self.sessions),
            ("/api/history", self.history),
            ("/api/deadletters", self.dead_letters),
            ("/api/failed", self.failed),
            ("/api/settled", self.settled),
        ):
            app.add_api_route(path, endpoint, methods=["GET"], tags=["service"], response_class=JsonResponse)
        if overview:
            app.add_api_route("/", self.overview, methods=["GET"], include_in_schema=False)
        app.add_api_route("/docs", self.docs, methods=["GET"], include_in_schema=False)

    async def healthz(self) -> Response:
        """Whether the process answers. Needs no token; where others do, it says nothing else."""
        open_to_all = not self._context.tokens
        return JsonResponse({"ok": True} | ({"version": self._context.version} if open_to_all else {}))

    async def readyz(self) -> Response:
        """Whether broker, store and lag are fine: 200 or 503, with each part."""
        ready = await self._context.ready()
        return JsonResponse(ready, 200 if ready["ready"] else 503)

    async def sessions(self) -> Response:
        """Every run of the service, newest first."""
        documents = await self._context.store.documents("sessions")
        rows = [{"id": key, **encode(document)} for key, document in documents.items()]
        return JsonResponse({"sessions": sorted(rows, key=lambda row: str(row.get("started", "")), reverse=True)})

    async def history(
        self,
        node: Annotated[str | None, Query(description="only what was computed of this node")] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_ROWS)] = ROWS,
    ) -> Response:
        """What was computed, newest first: of which interval, by which version of which tool, and why."""
        entries = await self._context.store.history(limit, node)
        return JsonResponse({"history": [entry_json(entry) for entry in entries]})

    async def dead_letters(self, limit: Annotated[int, Query(ge=1, le=MAX_ROWS)] = ROWS) -> Response:
        """What could not be used, newest first, with its reason. ``payload`` is text, or ``{"$binary": base64}``.

        Fewer than ``limit`` where payloads are large. ``overwritten``: by source, the readings that another value of
        the same time replaced since the start.
        """
        letters = await self._context.store.dead_letters(limit, budget=self._context.page)
        overwritten = [overwritten_json(found) for found in self._context.engine.overwritten()]
        return JsonResponse({"dead_letters": [letter_json(letter) for letter in letters], "overwritten": overwritten})

    async def failed(self) -> Response:
        """Streams of which something failed, with the failed intervals and the error. At most 100 of each."""
        return JsonResponse({"failed": failed_json(self._context.engine)})

    async def settled(self, seconds: Annotated[float, Query(ge=0, le=_MAX_WAIT)] = 0) -> Response:
        """Whether everything that was taken in is durable, computed and committed; waits for it for so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._context.engine.settled:  # noqa: ASYNC110 - it falls silent between any two steps
                    await asyncio.sleep(_SETTLE_SECONDS)
        return JsonResponse({"settled": self._context.engine.settled})

    async def overview(self) -> Response:
        """The status page."""
        ready = await self._context.ready()
        statistics = self._context.engine.statistics()
        figures = {
            "readings": statistics.readings,
            "results": statistics.results,
            "late readings": statistics.late,
            "published": statistics.published,
            "overwritten readings": statistics.overwritten,
            "dead letters": statistics.dead_letters,
            "streams": statistics.streams,
            "steps": statistics.steps,
            "steps pending": statistics.pending_steps,
            "readings in flight": statistics.in_flight_readings,
            "changes to publish": statistics.outbox_pending,
        }
        return HTMLResponse(overview_page(self._context.version, ready, figures, workflow_rows(self._context)))

    async def docs(self) -> Response:
        """The API in words."""
        return HTMLResponse(docs_page(self._openapi()))
