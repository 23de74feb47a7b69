"""The HTTP API: ``create_api(context)`` gives the ASGI application.

1. Every error is ``{"error": ..., "hint": ...}`` with its status: 401, 403, 404, 405, 409, 413, 422, 500, 503.
2. With a token every request needs ``Authorization: Bearer TOKEN``, but for ``/healthz``. Without one, who reaches us
   may read and change; but not a web page that a name of its own led here (403), and no code runs that a request names.
3. Times are ISO 8601 in and out; going in also ``now``, ``-1h`` and integer milliseconds since the epoch.
   Values are encoded as in `hs_stream.service.json_values`.
4. No page loads anything from another host.
5. While the workflows are being replaced, requests wait at the gate, but for ``/healthz`` and ``/metrics``.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from hs_stream.core.errors import (
    BrokerUnavailable,
    ConfigurationError,
    HsStreamError,
    NotFound,
    StoreUnavailable,
    Unavailable,
)
from hs_stream.core.registry import ToolRegistry
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.service.catalog import FromFile, Plan
from hs_stream.service.gate import Gate
from hs_stream.service.json_values import dumps
from hs_stream.service.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from hs_stream.engine.engine import Engine
    from hs_stream.engine.ports import Clock, Store

__all__ = ["ApiContext", "Changes", "JsonResponse", "Viewer", "create_api"]

logger = structlog.get_logger(__name__)

_SECURITY_HEADERS: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
]


class Changes(Protocol):
    """How workflows are changed: see `hs_stream.service.app.Service`."""

    async def save(self, name: str, text: str, *, as_json: bool) -> Plan: ...
    async def remove(self, name: str) -> Plan: ...
    def origin(self, name: str) -> str: ...


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
    token: str = ""
    gate: Gate = field(default_factory=Gate)
    changes: Changes | None = None


Viewer = Callable[[FastAPI, ApiContext], None]
"""Adds pages to an application: `hs_stream.viewer.mount`."""


class JsonResponse(Response):
    """JSON of a document whose values are encoded."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return dumps(content)


def create_api(context: ApiContext, viewer: Viewer | None = None) -> FastAPI:
    """The application. It holds no state of its own. ``viewer`` adds its pages; without it ``/`` is a status page."""
    from hs_stream.service.routes import Routes  # noqa: PLC0415 - routes use JsonResponse from here

    app = FastAPI(
        title="hs-stream",
        version=context.version,
        description="Streams, workflows and tools of this service. Only PUT and DELETE of a workflow change anything.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        default_response_class=JsonResponse,
    )
    Routes(context, app.openapi).register(app, overview=viewer is None)

    @app.get("/metrics", tags=["service"], response_class=Response)
    def metrics() -> Response:
        """Figures for Prometheus, in its text format."""
        return Response(context.metrics(), media_type=CONTENT_TYPE)

    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HsStreamError, _on_ours)
    app.add_exception_handler(Exception, _on_bug)
    if viewer is not None:
        viewer(app, context)
    app.add_middleware(_Guard, token=context.token, gate=context.gate)
    return app


def problem(status: int, error: str, hint: str = "", headers: dict[str, str] | None = None) -> JsonResponse:
    """The answer for an error."""
    return JsonResponse({"error": error, "hint": hint}, status, headers)


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
    (ConfigurationError, 422),
    (StoreUnavailable, 503),
    (BrokerUnavailable, 503),
    (Unavailable, 503),
)


async def _on_ours(request: Request, error: Exception) -> Response:
    if not isinstance(error, HsStreamError):
        raise error
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    if status == 500:
        logger.error("request failed", path=request.url.path, error=str(error))
    return problem(status, _located(error), error.hint)


def _located(error: HsStreamError) -> str:
    """With the place of the mistake, where that is known."""
    path, line = getattr(error, "path", ""), getattr(error, "line", None)
    return f"{path}{f':{line}' if line else ''}: {error.message}" if path else error.message


async def _on_bug(request: Request, error: Exception) -> Response:
    logger.error("request failed", path=request.url.path, exc_info=error)
    return problem(500, "the service failed to answer", "see its log; this is a bug")


class _Guard:
    """Checks the token in constant time, waits at the gate, and adds headers that keep browsers careful."""

    def __init__(self, app: ASGIApp, token: str, gate: Gate) -> None:
        self._app = app
        self._gate = gate
        self._expected = f"Bearer {token}".encode() if token else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_careful(message: Any) -> None:
            if message["type"] == "http.response.start":
                given = message.get("headers", [])
                names = {name for name, _ in given}
                message["headers"] = [*given, *(header for header in _SECURITY_HEADERS if header[0] not in names)]
            await send(message)

        denied = None
        if self._expected and scope["path"] != "/healthz" and not self._allowed(scope):
            denied = problem(
                401,
                "this service asks for a token",
                "send the header Authorization: Bearer TOKEN with the content of http.token_file",
                {"WWW-Authenticate": "Bearer"},
            )
        elif not self._expected and scope["method"] in ("PUT", "DELETE") and not _is_for_us(scope):
            denied = problem(
                403,
                "this service changes nothing for a request to a name that anybody may give it",
                "use its IP address or localhost, or set http.token_file",
            )
        if denied is not None:
            await denied(scope, receive, send_careful)
            return
        try:
            async with nullcontext() if scope["path"] in ("/healthz", "/metrics") else self._gate.passing():
                await self._app(scope, receive, send_careful)
        except Unavailable as error:
            await problem(503, error.message, error.hint)(scope, receive, send_careful)

    def _allowed(self, scope: Scope) -> bool:
        given = b""
        for name, value in scope["headers"]:
            if name == b"authorization":
                given = value
        # Everything but the scheme's case is compared in constant time.
        scheme, _, rest = given.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(b"Bearer " + rest.strip(), self._expected)


def _is_for_us(scope: Scope) -> bool:
    """Whether the request names this machine in a way that no name server decides.

    A web page may let its own name lead to 127.0.0.1, and then ask us whatever it likes.
    """
    given = next((value for name, value in scope["headers"] if name == b"host"), b"")
    host = urlsplit(f"//{given.decode('latin-1')}").hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
