"""One value: what was read for it, and what would change it."""

from __future__ import annotations

from urllib.parse import quote

from nicegui import ui

from hs_stream.core.errors import HsStreamError
from hs_stream.core.stream import StreamId
from hs_stream.core.time import format_time, parse_time
from hs_stream.engine.explain import LIMITS
from hs_stream.service.explaining import explanation_json, explanation_text
from hs_stream.service.http.lookup import find_stream
from hs_stream.viewer.frame import empty, frame, section, verbatim
from hs_stream.viewer.pages import Pages

__all__ = ["ExplainPages", "explain_link"]


def explain_link(stream: StreamId, time: int) -> str:
    """The path of the page about its value at ``time``."""
    return f"/explain/{quote(str(stream), safe='')}?at={quote(format_time(time))}"


class ExplainPages(Pages):
    """The pages over ``context``."""

    async def explain(self, name: str, at: str = "") -> None:
        """Why stream ``name`` has the value that it has at ``at``, or its newest one."""
        try:
            stream = find_stream(self._context, name).stream
            time = parse_time(at, now=self._clock.now()) if at else None
            found = await self._engine.explain(stream, time, LIMITS)
        except (ValueError, HsStreamError) as error:
            with frame("Nothing to explain", "/streams"):
                empty(str(error), getattr(error, "hint", "") or "")
                ui.link("All streams", "/streams")
            return
        document = explanation_json(found, self._context.workflows)
        with frame(f"Why {stream} is what it is", "/streams"):
            ui.link("The stream", f"/stream/{quote(str(stream), safe='')}")
            with section(""):
                verbatim(explanation_text(document))
