"""The paths about streams: what they hold, taking readings in, and removing instances."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from hs_stream.core.errors import ConfigurationError, ToolError, Unavailable, did_you_mean
from hs_stream.core.size import is_full
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME, format_time
from hs_stream.core.value import canonical
from hs_stream.engine.engine import StreamStatus
from hs_stream.engine.explain import LIMITS, Limits
from hs_stream.engine.ports import Reading
from hs_stream.service.explaining import explanation_json
from hs_stream.service.http.answers import JsonResponse
from hs_stream.service.http.context import ApiContext
from hs_stream.service.http.lookup import MAX_ROWS, ROWS, find_stream, parse_instant, parse_span, parse_stream
from hs_stream.service.http.security import require_write
from hs_stream.service.intake import check_target
from hs_stream.service.json_documents import stream_json, stream_states
from hs_stream.service.json_values import encode
from hs_stream.service.purging import matching, purge
from hs_stream.service.silence import lacking

__all__ = ["StreamRoutes"]

_MAX_INSTANCES: Final = 10_000
_STREAM_QUERY: Final = ("name", "limit", "cursor")
_PURGE_QUERY: Final = ("name", "start", "end", "confirm")
_MOST_STREAMS: Final = 1000
_MOST_TAKEN: Final = 4
"""Pieces of readings that are taken in at the same time: each may have `security.MOST_BODY` bytes."""

Start = Annotated[str, Query(description="excluded; ISO 8601, now, -1h, or milliseconds since the epoch")]
End = Annotated[str, Query(description="included; in the same forms")]
Confirm = Annotated[
    int | None, Query(ge=1, description="how many streams are meant: for more than one, or without start or end")
]


class GivenInstance(BaseModel):
    """``time`` in milliseconds since the epoch, or as a text in the forms of the rest of the API; any JSON value."""

    model_config = ConfigDict(extra="forbid")

    time: int | str
    value: Any = None


class GivenStream(BaseModel):
    """A raw stream by its text, ``name[house=1,room=kitchen]``, and instances of it. At equal times the later wins."""

    model_config = ConfigDict(extra="forbid")

    stream: str
    instances: Annotated[list[GivenInstance], Field(max_length=_MAX_INSTANCES)]


class GivenReadings(BaseModel):
    """``new`` is what ``--new`` is on the command line: also into streams that no workflow declares."""

    model_config = ConfigDict(extra="forbid")

    streams: Annotated[list[GivenStream], Field(min_length=1, max_length=_MOST_STREAMS)]
    new: bool = False


class StreamRoutes:
    """See the module."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._taking = 0

    def register(self, app: FastAPI) -> None:
        """Add the paths to ``app``. The order matters: a stream's text may hold slashes."""
        for path, endpoint in (
            ("/api/streams", self.streams),
            ("/api/streams/{stream:path}/instances", self.instances),
            ("/api/streams/{stream:path}/explain", self.explain),
            ("/api/streams/{stream:path}", self.stream),
        ):
            app.add_api_route(path, endpoint, methods=["GET"], tags=["streams"], response_class=JsonResponse)
        for path, remove in (("/api/streams", self.purge_all), ("/api/streams/{stream:path}/instances", self.purge)):
            app.add_api_route(path, remove, methods=["DELETE"], tags=["streams"], response_class=JsonResponse)
        app.add_api_route("/api/readings", self.take, methods=["POST"], tags=["streams"], response_class=JsonResponse)

    async def streams(
        self,
        request: Request,
        name: Annotated[str | None, Query(description="the source's or node's name")] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_ROWS)] = ROWS,
        cursor: Annotated[int, Query(description="next of the page before")] = -1,
    ) -> Response:
        """Streams by id. Every plate is a parameter too: ``?room=kitchen``. ``next`` is the cursor of the next page.

        Where there is none of a ``name``, ``hint`` says what it waits for.
        """
        found = self._named(name, request, _STREAM_QUERY)
        rest = [status for status in found if status.id > cursor]
        page = rest[:limit]
        answer: dict[str, Any] = {
            "streams": [stream_json(status) for status in page],
            "total": len(found),
            "next": page[-1].id if len(rest) > len(page) else None,
        }
        context = self._context
        if name and not found and (why := lacking(context.engine, context.workflows, name, context.witness())):
            answer["hint"] = why
        return JsonResponse(answer)

    async def stream(self, stream: str, start: Start = "-inf", end: End = "now") -> Response:
        """One stream, by id or as ``name[house=1,room=kitchen]``, with the states of ``(start, end]``."""
        status = find_stream(self._context, stream)
        first, last = parse_span(start, end, self._context.clock.now())
        states = await stream_states(self._context.engine, status, first, last)
        return JsonResponse(stream_json(status) | {"start": format_time(first), "end": format_time(last)} | states)

    async def instances(
        self,
        request: Request,
        stream: str,
        start: Start = "-inf",
        end: End = "inf",
        limit: Annotated[int, Query(ge=1, le=_MAX_INSTANCES)] = 1000,
        cursor: Annotated[str | None, Query(description="next of the page before")] = None,
        newest: Annotated[bool, Query(description="the last instances instead of the first; no pages")] = False,
        compute: Annotated[bool, Query(description="compute what is missing first; needs start and end")] = False,
    ) -> Response:
        """Instances in ``(start, end]``, ascending in time, with the states of that interval.

        Where there are more, ``next`` is the cursor of the next page. A page ends earlier where values are large, by
        ``memory.page`` of the settings. ``revision`` is there when it is not 0.
        """
        status = find_stream(self._context, stream)
        first, last = parse_span(start, end, self._context.clock.now())
        error = None
        if compute:
            require_write(request)
            error = await self._compute(status, first, last)
            status = find_stream(self._context, stream)
        low = first if cursor is None else max(first, self._cursor(cursor))
        if low >= last:
            raise ConfigurationError(f"cursor: {cursor!r} is later than end", hint="pass the cursor of the page before")
        budget = self._context.page
        batch = await self._context.engine.read(status.stream, low, last, limit=limit + 1, newest=newest, budget=budget)
        more = is_full(batch, limit + 1, budget)
        page = batch.slice_index(1 if newest else 0, limit + (1 if newest else 0)) if len(batch) > limit else batch
        times = page.times.tolist()
        revisions = await self._context.store.revisions(status.id, times) if status.kind == "derived" and times else {}
        rows = [
            {"time": format_time(time), "value": encode(value)}
            | ({"revision": revisions[time]} if time in revisions else {})
            for time, value in page
        ]
        return JsonResponse(
            {
                "stream": str(status.stream),
                "id": status.id,
                "start": format_time(first),
                "end": format_time(last),
                "instances": rows,
                "next": str(times[-1]) if more and not newest else None,
                "floor": None if status.floor is None else format_time(status.floor),
                "error": error or status.error or None,
                **await stream_states(self._context.engine, status, first, last),
            }
        )

    async def explain(
        self,
        stream: str,
        at: Annotated[str | None, Query(description="the time of the value; without it the newest one")] = None,
        depth: Annotated[int, Query(ge=0, le=LIMITS.depth, description="levels of inputs")] = LIMITS.depth,
        rows: Annotated[int, Query(ge=1, le=1000, description="the first and the last so many of each")] = LIMITS.rows,
    ) -> Response:
        """Why a stream has a value: what was read for it, by which tools, down to the readings, and what changes it.

        ``levels`` are the stream itself, then what it rests on, each once. ``spans`` say what of it may be read:
        ``instances`` of them, of which the ``first`` and the ``last`` are there. ``changes``: where a reading would
        change the value. 404 where there is no value at that time, with the nearest ones.
        """
        context = self._context
        status = find_stream(context, stream)
        time = None if at is None else parse_instant("at", at, context.clock.now())
        found = await context.engine.explain(status.stream, time, Limits(depth=depth, rows=rows))
        return JsonResponse(explanation_json(found, context.workflows))

    async def _compute(self, status: StreamStatus, start: int, end: int) -> str | None:
        if start <= MIN_TIME or end >= MAX_TIME:
            raise ConfigurationError("compute=true needs start and end", hint="pass for example start=-1h&end=now")
        if status.kind == "raw":
            return None
        try:
            await self._context.engine.compute([status.stream], start, end)
        except ToolError as error:
            return str(error)
        return None

    async def purge(self, stream: str, start: Start = "-inf", end: End = "inf", confirm: Confirm = None) -> Response:
        """Remove the instances of one stream in ``(start, end]``. Needs the read-write token.

        What is demanded of it, and of what is computed from it, is computed again from what is left. Without start or
        end, ``confirm=1`` says that all of it is meant. Otherwise nothing is removed, and the answer is 409 with the
        ``extent`` of what would go.
        """
        return await self._purge([find_stream(self._context, stream)], start, end, confirm)

    async def purge_all(
        self,
        request: Request,
        name: Annotated[str, Query(description="the source's or node's name; or a text such as climate[room=kitchen]")],
        start: Start = "-inf",
        end: End = "inf",
        confirm: Confirm = None,
    ) -> Response:
        """The same for all streams of a source or node, or with plate values (``&room=kitchen``) for some of them.

        Plate values that are not said match all. Where that is more than one stream, or start or end is missing,
        ``confirm`` says how many streams are meant. Otherwise nothing is removed, and the answer is 409 with the
        ``extent`` of what would go.
        """
        wanted = parse_stream(name)
        meta = {key: value for key, value in request.query_params.items() if key not in _PURGE_QUERY}
        try:
            wanted = StreamId.make(wanted.name, (*wanted.meta, *meta.items()))
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        return await self._purge(matching(self._context.engine, wanted), start, end, confirm)

    async def _purge(self, found: Sequence[StreamStatus], start: str, end: str, confirm: int | None) -> Response:
        first, last = parse_span(start, end, self._context.clock.now())
        rows = await purge(self._context.engine, found, first, last, confirm)
        return JsonResponse({"start": format_time(first), "end": format_time(last), "purged": rows})

    async def take(self, given: GivenReadings) -> Response:
        """Take readings in, as if a source had brought them; answers when they are durable. Needs the read-write token.

        At most 10,000, of raw streams. ``refused`` are those that cannot be stored, each with its reason; they are dead
        letters too. All the others are ``taken``. What is computed from them follows: ask ``/api/settled``. To send the
        same again changes nothing.
        """
        readings = self._readings(given)
        if self._taking >= _MOST_TAKEN:
            raise Unavailable(f"{self._taking} pieces of readings are being taken in already", hint="try again later")
        self._taking += 1
        try:
            refused = await self._context.engine.take(readings)
        finally:
            self._taking -= 1
        rows = [{"reason": letter.reason, "message": letter.message} for letter in refused]
        return JsonResponse({"taken": len(readings) - len(rows), "refused": rows})

    def _readings(self, given: GivenReadings) -> list[Reading]:
        if (count := sum(len(one.instances) for one in given.streams)) > _MAX_INSTANCES:
            raise ConfigurationError(
                f"{count} instances are more than {_MAX_INSTANCES}", hint="send them in several pieces"
            )
        now = self._context.clock.now()
        readings: list[Reading] = []
        for one in given.streams:
            stream = parse_stream(one.stream)
            check_target(self._context.workflows, stream.name, [key for key, _ in stream.meta], new=given.new)
            for item in one.instances:
                time = parse_instant("time", str(item.time)[:64], now)
                try:
                    readings.append(Reading(stream.name, stream.meta, time, canonical(item.value)))
                except ValueError as error:
                    raise ConfigurationError(f"{stream} at {format_time(time)}: the value{error}") from None
        return readings

    def _named(self, name: str | None, request: Request, others: Sequence[str]) -> list[StreamStatus]:
        """Streams by id; each query parameter but for ``others`` is a plate."""
        meta = {key: value for key, value in request.query_params.items() if key not in others}
        plates = {plate for workflow in self._context.workflows for plate in workflow.plates}
        for key in meta:
            if key not in plates:
                raise ConfigurationError(
                    f"there is no plate {key!r}", hint=did_you_mean(key, [*others, *sorted(plates)])
                )
        return sorted(self._context.engine.status(name, meta), key=lambda status: status.id)

    def _cursor(self, text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text):
            raise ConfigurationError(f"cursor: {text[:40]!r} is none", hint="pass what the page before had as next")
        return int(text)
