"""The viewer's pages on an application."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI, Request, Response
from nicegui import app as nicegui_app
from nicegui import ui
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hs_stream.core.errors import NotFound
from hs_stream.viewer.explain import ExplainPages
from hs_stream.viewer.lists import ListPages
from hs_stream.viewer.streams import StreamPages
from hs_stream.viewer.workflows import WorkflowPages

if TYPE_CHECKING:
    from hs_stream.service.http.context import ApiContext

__all__ = ["CONTENT_SECURITY_POLICY", "Site"]

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self' ws: wss:; "
    "frame-ancestors 'none'; base-uri 'self'; form-action 'self'; object-src 'none'"
)
"""Vue compiles templates in the browser, which needs eval; nothing comes from another host."""


class Site:
    """All pages over one context."""

    def __init__(self, context: ApiContext) -> None:
        lists, streams, workflows = ListPages(context), StreamPages(context), WorkflowPages(context)
        self._pages: list[tuple[str, Any]] = [
            ("/", lists.overview),
            ("/streams", streams.streams),
            ("/stream/{name:path}", streams.stream),
            ("/explain/{name:path}", ExplainPages(context).explain),
            ("/compare", streams.compare),
            ("/workflows", workflows.workflows),
            ("/workflow/{name}", workflows.workflow),
            ("/plates", lists.plates),
            ("/tools", lists.tools),
            ("/tool/{pin}", lists.tool),
            ("/sessions", lists.sessions),
            ("/dead-letters", lists.dead_letters),
        ]

    def mount(self, app: FastAPI) -> None:
        """Add the pages to ``app``, after everything that it serves already."""

        async def unknown(request: Request) -> Response:
            raise NotFound(f"there is no {request.url.path}", hint="see /docs")

        app.add_api_route("/api/{path:path}", unknown, methods=["GET"], include_in_schema=False)
        for path, page in self._pages:
            ui.page(path)(page)
        nicegui_app.add_middleware(_Headers)
        logging.getLogger("nicegui").addFilter(_gone)
        logging.getLogger("nicegui").addFilter(_no_query)
        ui.run_with(app, title="hs-stream", favicon="📈", dark=None, show_welcome_message=False)


def _gone(record: logging.LogRecord) -> bool:
    """Whether to log it: a page that goes on for a moment after its browser has left is no error."""
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, RuntimeError) and str(error).endswith("has been deleted."))


def _no_query(record: logging.LogRecord) -> bool:
    """Query strings may hold secrets: they never reach the log."""
    if isinstance(record.msg, str) and "?" in record.msg:
        record.msg = re.sub(r"\?\S*", "?...", record.msg)
    return True


class _Headers:
    """The viewer's own content security policy, in place of the API's."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
                ]
            await send(message)

        await self._app(scope, receive, add if scope["type"] == "http" else send)
