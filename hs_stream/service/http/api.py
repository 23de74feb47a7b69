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

import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from hs_stream.core.errors import (
    BrokerUnavailable,
    ConfigurationError,
    Fenced,
    HsStreamError,
    NotFound,
    StoreUnavailable,
    Unavailable,
)
from hs_stream.core.registry import ToolRegistry
from hs_stream.core.size import PAGE
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.service.http.gate import Gate
from hs_stream.service.http.live import Hub
from hs_stream.service.http.security import Guard, Tokens, access_of
from hs_stream.service.json_values import dumps
from hs_stream.service.metrics import CONTENT_TYPE
from hs_stream.service.purging import NotConfirmed
from hs_stream.service.silence import Witness
from hs_stream.service.workflows.catalog import FromFile, Plan, Unread

if TYPE_CHECKING:
    from hs_stream.engine.engine import Engine
    from hs_stream.engine.ports import Clock, Store

__all__ = [
    "ApiContext",
    "Changes",
    "JsonResponse",
    "TaggedResponse",
    "Viewer",
    "create_api",
    "problem",
    "require_write",
    "status_of",
]

logger = structlog.get_logger(__name__)

_COMPRESSED: Final = 1024
"""Bytes from which on an answer is compressed for who accepts it; never live events."""


class Changes(Protocol):
    """How workflows are changed: see `hs_stream.service.app.Service`."""

    async def save(self, name: str, text: str, *, as_json: bool) -> Plan: ...
    async def remove(self, name: str) -> Plan: ...
    def origin(self, name: str) -> str: ...
    def unread(self) -> Unread | None: ...


@dataclass(slots=True)
class ApiContext:
    """What the API shows. ``ready()`` gives ``{"ready": bool, "parts": {name: {"ok": bool, ...}}}``.

    ``engine`` and ``workflows`` are those of the moment: they may be replaced while nobody is inside of ``gate``.
    Without ``changes`` everything is read-only.
    """

    engine: Engine
    store: Store
    clock: Clock
    workflows: Sequence[WorkflowDefinition]
    registry: ToolRegistry
    metrics: Callable[[], bytes]
    ready: Callable[[], Awaitable[dict[str, Any]]]
    version: str
    tokens: Tokens = field(default_factory=Tokens)
    hub: Hub | None = None
    origins: Sequence[str] = ()
    """Origins whose pages may use the API (CORS)."""
    tls: bool = False
    gate: Gate = field(default_factory=Gate)
    changes: Changes | None = None
    witness: Callable[[], Witness | None] = lambda: None
    """What came of each source since this round began."""
    page: int = PAGE
    """How many bytes of values one answer has, about; the next page goes on behind it."""
    lease: str = ""
    """`hs_stream.service.lease.name_of` who writes to the store."""


Viewer = Callable[[FastAPI, ApiContext], None]
"""Adds pages to an application: `hs_stream.viewer.mount`."""


class JsonResponse(Response):
    """JSON of a document whose values are encoded."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return dumps(content)


class TaggedResponse(JsonResponse):
    """The same with an ``ETag``; rule 5."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tag = f'W/"{hashlib.blake2b(self.body, digest_size=12).hexdigest()}"'
        self.headers["ETag"] = tag
        self.headers["Cache-Control"] = "private, no-cache"
        given = dict(scope["headers"]).get(b"if-none-match", b"").decode("latin-1")
        if tag in (part.strip() for part in given.split(",")):
            kept = {name: self.headers[name] for name in ("ETag", "Cache-Control")}
            await Response(status_code=304, headers=kept)(scope, receive, send)
            return
        await super().__call__(scope, receive, send)


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


def require_write(request: Request) -> None:
    """Refuse a request whose token may only read."""
    if access_of(request.scope) != "write":
        raise HTTPException(403, "this token may only read")


def create_api(context: ApiContext, viewer: Viewer | None = None) -> FastAPI:
    """The application. It holds no state of its own. ``viewer`` adds its pages; without it ``/`` is a status page."""
    from hs_stream.service.http.live_routes import LiveRoutes  # noqa: PLC0415 - routes use JsonResponse from here
    from hs_stream.service.http.routes import Routes  # noqa: PLC0415

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
    Routes(context, app.openapi).register(app, overview=viewer is None)

    @app.get("/metrics", tags=["service"], response_class=Response)
    async def metrics() -> Response:
        """Figures for Prometheus, in its text format."""
        return Response(context.metrics(), media_type=CONTENT_TYPE)

    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HsStreamError, _on_ours)
    app.add_exception_handler(Exception, _on_bug)
    if viewer is not None:
        viewer(app, context)
    # The last one is the outermost.
    app.add_middleware(GZipMiddleware, minimum_size=_COMPRESSED, compresslevel=5)
    guard: dict[str, Any] = {"tokens": context.tokens, "gate": context.gate, "lease": context.lease}
    app.add_middleware(Guard, **guard, origins=context.origins, tls=context.tls)
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


def problem(
    status: int, error: str, hint: str = "", headers: dict[str, str] | None = None, more: dict[str, Any] | None = None
) -> JsonResponse:
    """The answer for an error."""
    return JsonResponse({"error": error, "hint": hint, **(more or {})}, status, headers)


async def _on_http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    headers = dict(error.headers or {})
    if error.status_code == 404:
        return problem(404, f"there is nothing at {request.url.path}", "see /docs for what there is", headers)
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods(request))
        return problem(405, f"{request.method} is not possible here", f"use {headers['Allow']}", headers)
    return problem(error.status_code, str(error.detail), "", headers)


def _methods(request: Request) -> list[str]:
    """What is possible at this path: the framework looks at the first route only."""
    routes = [route for route in request.app.routes if route.matches(request.scope)[0] != Match.NONE]
    return sorted({method for route in routes for method in route.methods or () if method != "HEAD"})


async def _on_validation(_: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    return problem(422, f"{place}: {first['msg']}", "see /docs for the parameters")


_STATUS: Final[tuple[tuple[type[HsStreamError], int], ...]] = (
    (NotFound, 404),
    (FromFile, 409),
    (NotConfirmed, 409),
    (ConfigurationError, 422),
    (Fenced, 503),
    (StoreUnavailable, 503),
    (BrokerUnavailable, 503),
    (Unavailable, 503),
)


def status_of(error: HsStreamError) -> int:
    """The status of the answer for ``error``."""
    return next((code for kind, code in _STATUS if isinstance(error, kind)), 500)


async def _on_ours(request: Request, error: Exception) -> Response:
    if not isinstance(error, HsStreamError):
        raise error
    status = status_of(error)
    if status == 500:
        logger.error("request failed", path=request.url.path, error=str(error))
    again = {"Retry-After": "5"} if status == 503 else None
    more = {"extent": error.extent.document()} if isinstance(error, NotConfirmed) else None
    return problem(status, _located(error), error.hint, again, more)


def _located(error: HsStreamError) -> str:
    """With the place of the mistake, where that is known."""
    path, line = getattr(error, "path", ""), getattr(error, "line", None)
    return f"{path}{f':{line}' if line else ''}: {error.message}" if path else error.message


async def _on_bug(request: Request, error: Exception) -> Response:
    logger.error("request failed", path=request.url.path, exc_info=error)
    return problem(500, "the service failed to answer", "see its log; this is a bug")
