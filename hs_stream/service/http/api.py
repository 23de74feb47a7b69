"""The HTTP API: ``create_api(context)`` gives the ASGI application.

1. Every error is ``{"error": ..., "hint": ...}`` with its status: 401, 403, 404, 405, 409, 413, 421, 422, 429, 500,
   503.
2. Who may do what: `hs_stream.service.http.security`.
3. Times are ISO 8601 in and out; going in also ``now``, ``-1h`` and integer milliseconds since the epoch.
   Values are encoded as in `hs_stream.service.json_values`.
4. No page loads anything from another host.
5. What changes seldom has an ``ETag``: with ``If-None-Match`` the answer is 304 while it is the same.
6. While the workflows are being replaced, requests wait at the gate, but for ``/healthz`` and ``/metrics``.
7. No body is longer than `hs_stream.service.http.security.MOST_BODY`, and none is read before its sender may write.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI, Response
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from hs_stream.service.http.answers import JsonResponse, answer_errors
from hs_stream.service.http.context import ApiContext
from hs_stream.service.http.live_routes import LiveRoutes
from hs_stream.service.http.security import AccessMiddleware
from hs_stream.service.http.service_routes import ServiceRoutes
from hs_stream.service.http.stream_routes import StreamRoutes
from hs_stream.service.http.workflow_routes import WorkflowRoutes
from hs_stream.service.metrics import CONTENT_TYPE

__all__ = ["Viewer", "create_api"]

_COMPRESSED: Final = 1024
"""Bytes from which on an answer is compressed for who accepts it; never live events."""


Viewer = Callable[[FastAPI, ApiContext], None]
"""Adds pages to an application: `hs_stream.viewer.mount`."""


class _Api(FastAPI):
    """Its descriptions are our docstrings, which are reStructuredText, as the Markdown that OpenAPI wants."""

    def openapi(self) -> dict[str, Any]:
        return {key: _markdown(part) for key, part in super().openapi().items()}


def _markdown(part: Any) -> Any:
    """``part`` of a document with every literal in Markdown's form."""
    if isinstance(part, str):
        return re.sub(r"``(.+?)``", r"`\1`", part, flags=re.DOTALL)
    if isinstance(part, dict):
        return {key: _markdown(value) for key, value in part.items()}
    return [_markdown(value) for value in part] if isinstance(part, list) else part


def create_api(context: ApiContext, viewer: Viewer | None = None) -> FastAPI:
    """The application. It holds no state of its own. ``viewer`` adds its pages; without it ``/`` is a status page."""
    app = _Api(
        title="hs-stream",
        version=context.version,
        description="Streams, workflows and tools of this service. What changes something says so.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        default_response_class=JsonResponse,
    )
    LiveRoutes(context).register(app)
    StreamRoutes(context).register(app)
    WorkflowRoutes(context).register(app)
    ServiceRoutes(context, app.openapi).register(app, overview=viewer is None)

    @app.get("/metrics", tags=["service"], response_class=Response)
    async def metrics() -> Response:
        """Figures for Prometheus, in its text format."""
        return Response(context.metrics(), media_type=CONTENT_TYPE)

    answer_errors(app)
    if viewer is not None:
        viewer(app, context)
    # The last one is the outermost.
    app.add_middleware(GZipMiddleware, minimum_size=_COMPRESSED, compresslevel=5)
    guard: dict[str, Any] = {"tokens": context.tokens, "gate": context.gate, "lease": context.lease}
    app.add_middleware(AccessMiddleware, **guard, origins=context.origins, tls=context.tls)
    if context.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(context.origins),
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "If-None-Match", "Last-Event-ID", "X-Request-Id"],
            expose_headers=["ETag", "Retry-After", "X-Request-Id"],
            max_age=3600,
        )
    return app
