"""How the API answers: JSON, and ``{"error": ..., "hint": ...}`` with its status for every error."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
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
from hs_stream.service.json_values import dumps
from hs_stream.service.purging import NotConfirmed
from hs_stream.service.workflows.catalog import FromFile

__all__ = ["JsonResponse", "TaggedResponse", "answer_errors", "status_of"]

logger = structlog.get_logger(__name__)


class JsonResponse(Response):
    """JSON of a document whose values are encoded."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return dumps(content)


class TaggedResponse(JsonResponse):
    """The same with an ``ETag``; rule 5 of the API."""

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


def answer_errors(app: FastAPI) -> None:
    """What is raised in ``app`` becomes an answer."""
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HsStreamError, _on_ours)
    app.add_exception_handler(Exception, _on_bug)


def _problem(
    status: int, error: str, hint: str = "", headers: dict[str, str] | None = None, more: dict[str, Any] | None = None
) -> JsonResponse:
    """The answer for an error."""
    return JsonResponse({"error": error, "hint": hint, **(more or {})}, status, headers)


async def _on_http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    headers = dict(error.headers or {})
    if error.status_code == 404:
        return _problem(404, f"there is nothing at {request.url.path}", "see /docs for what there is", headers)
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods(request))
        return _problem(405, f"{request.method} is not possible here", f"use {headers['Allow']}", headers)
    return _problem(error.status_code, str(error.detail), "", headers)


def _methods(request: Request) -> list[str]:
    """What is possible at this path: the framework looks at the first route only."""
    routes = [route for route in request.app.routes if route.matches(request.scope)[0] != Match.NONE]
    return sorted({method for route in routes for method in route.methods or () if method != "HEAD"})


async def _on_validation(_: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    return _problem(422, f"{place}: {first['msg']}", "see /docs for the parameters")


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
    return _problem(status, _located(error), error.hint, again, more)


def _located(error: HsStreamError) -> str:
    """With the place of the mistake, where that is known."""
    path, line = getattr(error, "path", ""), getattr(error, "line", None)
    return f"{path}{f':{line}' if line else ''}: {error.message}" if path else error.message


async def _on_bug(request: Request, error: Exception) -> Response:
    logger.error("request failed", path=request.url.path, exc_info=error)
    return _problem(500, "the service failed to answer", "see its log; this is a bug")
