"""The paths of the HTTP API, and the shapes of their answers."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, Any, Final

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from hs_stream.core.errors import ConfigurationError, NotFound, ToolError, Unavailable, did_you_mean
from hs_stream.core.size import is_full
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME, format_time
from hs_stream.core.value import canonical
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.engine import StreamStatus
from hs_stream.engine.ports import Reading
from hs_stream.service.http.api import ApiContext, JsonResponse, TaggedResponse, require_write
from hs_stream.service.http.lookup import find_stream, parse_instant, parse_span, parse_stream
from hs_stream.service.http.pages import docs_page, overview_page
from hs_stream.service.intake import check_target
from hs_stream.service.json_values import encode, intervals
from hs_stream.service.purging import matching, purge
from hs_stream.service.silence import lacking
from hs_stream.service.states import entry_json, failed_json, letter_json, overwritten_json, stream_json, stream_states
from hs_stream.service.tool_docs import tool_json
from hs_stream.service.workflows.catalog import Plan
from hs_stream.service.workflows.file import MAX_FILE, plate_document, to_document
from hs_stream.service.workflows.graph import dot, graph_json, mermaid

__all__ = ["Routes"]

_PAGE: Final = 100
_MAX_PAGE: Final = 1000
_MAX_INSTANCES: Final = 10_000
_STREAM_QUERY: Final = ("name", "limit", "cursor")
_PURGE_QUERY: Final = ("name", "start", "end", "confirm")
_MOST_STREAMS: Final = 1000
_MOST_TAKEN: Final = 4
"""Pieces of readings that are taken in at the same time: each may have `security.MOST_BODY` bytes."""
_SETTLE_SECONDS: Final = 0.02
_MAX_WAIT: Final = 10

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


class Routes:
    """The API over ``context``. ``openapi`` gives the description that ``/docs`` shows."""

    def __init__(self, context: ApiContext, openapi: Callable[[], dict[str, Any]]) -> None:
        self._context = context
        self._openapi = openapi
        self._taking = 0

    def register(self, app: FastAPI, *, overview: bool = True) -> None:
        """Add every path to ``app``, and the status page at ``/`` where no viewer is.

        The order matters: a stream's text may hold slashes.
        """
        for path, endpoint, tag in (
            ("/healthz", self.healthz, "service"),
            ("/readyz", self.readyz, "service"),
            ("/api/streams", self.streams, "streams"),
            ("/api/streams/{stream:path}/instances", self.instances, "streams"),
            ("/api/streams/{stream:path}", self.stream, "streams"),
            ("/api/workflows", self.workflows, "workflows"),
            ("/api/workflows/{workflow}/graph", self.graph, "workflows"),
            ("/api/workflows/{workflow}", self.workflow, "workflows"),
            ("/api/tools", self.tools, "tools"),
            ("/api/plates", self.plates, "workflows"),
            ("/api/sessions", self.sessions, "service"),
            ("/api/history", self.history, "service"),
            ("/api/deadletters", self.dead_letters, "service"),
            ("/api/failed", self.failed, "service"),
            ("/api/settled", self.settled, "service"),
        ):
            app.add_api_route(path, endpoint, methods=["GET"], tags=[tag], response_class=JsonResponse)
        for path, remove in (("/api/streams", self.purge_all), ("/api/streams/{stream:path}/instances", self.purge)):
            app.add_api_route(path, remove, methods=["DELETE"], tags=["streams"], response_class=JsonResponse)
        app.add_api_route("/api/readings", self.take, methods=["POST"], tags=["streams"], response_class=JsonResponse)
        if self._context.changes is not None:
            change: dict[str, Any] = {"tags": ["workflows"], "status_code": 202, "response_class": JsonResponse}
            app.add_api_route("/api/workflows/{workflow}", self.save, methods=["PUT"], **change)
            app.add_api_route("/api/workflows/{workflow}", self.remove, methods=["DELETE"], **change)
        if overview:
            app.add_api_route("/", self.overview, methods=["GET"], include_in_schema=False)
        app.add_api_route("/docs", self.docs, methods=["GET"], include_in_schema=False)

    # --- service ---

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
        limit: Annotated[int, Query(ge=1, le=_MAX_PAGE)] = _PAGE,
    ) -> Response:
        """What was computed, newest first: of which interval, by which version of which tool, and why."""
        entries = await self._context.store.history(limit, node)
        return JsonResponse({"history": [entry_json(entry) for entry in entries]})

    async def dead_letters(self, limit: Annotated[int, Query(ge=1, le=_MAX_PAGE)] = _PAGE) -> Response:
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
        return HTMLResponse(overview_page(self._context.version, ready, figures, self._workflow_rows()))

    async def docs(self) -> Response:
        """The API in words."""
        return HTMLResponse(docs_page(self._openapi()))

    # --- streams ---

    async def streams(
        self,
        request: Request,
        name: Annotated[str | None, Query(description="the source's or node's name")] = None,
        limit: Annotated[int, Query(ge=1, le=_MAX_PAGE)] = _PAGE,
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
            raise ConfigurationError(f"cursor: {cursor!r} lies behind end", hint="pass the cursor of the page before")
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
        plates = {plate for workflow in self._workflows.values() for plate in workflow.plates}
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

    # --- workflows, plates, tools ---

    async def workflows(self) -> Response:
        """Every workflow of this service. ``unread``: files that differ from what runs, and how to load them."""
        unread = None if self._context.changes is None else self._context.changes.unread()
        return JsonResponse(
            {"workflows": self._workflow_rows(), "unread": None if unread is None else unread.document()}
        )

    async def workflow(
        self,
        workflow: str,
        resolved: Annotated[bool, Query(description="false: pins as they were given, not exact versions")] = True,
    ) -> Response:
        """One workflow as a document in the shape of its file."""
        return TaggedResponse(encode(to_document(self._workflow(workflow), resolved=resolved)))

    async def save(self, workflow: str, request: Request) -> Response:
        """Save a workflow and run it. The body is that of a workflow file: YAML, or JSON with that content type.

        It is checked before anything happens; 422 says what is wrong, with its line. 409: a file has this workflow.
        202: it is saved, and loaded next; ``nodes`` says what is new, computed again, as it was, and gone. Whoever asks
        for something from now on waits for that. 200: nothing is different.
        """
        assert self._context.changes is not None
        as_json = request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
        text = await _body(request)
        return _planned(await self._context.changes.save(workflow, text, as_json=as_json))

    async def remove(self, workflow: str) -> Response:
        """Save a workflow no longer, and do not run it any more. Its results stay. 409: it comes from a file."""
        assert self._context.changes is not None
        return _planned(await self._context.changes.remove(workflow))

    async def graph(
        self, workflow: str, form: Annotated[str, Query(alias="format", description="json, mermaid or dot")] = "json"
    ) -> Response:
        """The factor graph of a workflow."""
        found = self._workflow(workflow)
        if form == "json":
            return TaggedResponse(encode(graph_json(found)))
        if form in ("mermaid", "dot"):
            return PlainTextResponse(mermaid(found) if form == "mermaid" else dot(found))
        raise ConfigurationError(f"format: {form!r} is not one of json, mermaid, dot")

    async def plates(self) -> Response:
        """Every plate of every workflow with the values seen so far, each with those of its parents."""
        values = self._context.engine.plates()
        rows = [
            {
                "workflow": workflow.name,
                "name": plate.name,
                **plate_document(plate),
                "parent": plate.parent,
                "values": values.get(workflow.name, {}).get(plate.name, plate_document(plate).get("values", [])),
            }
            for workflow in self._workflows.values()
            for plate in workflow.plates.values()
        ]
        return JsonResponse({"plates": rows})

    async def tools(self) -> Response:
        """Every version of every tool, with its parameters."""
        return TaggedResponse({"tools": [tool_json(tool) for tool in self._context.registry]})

    @property
    def _workflows(self) -> dict[str, WorkflowDefinition]:
        return {workflow.name: workflow for workflow in self._context.workflows}

    def _workflow(self, name: str) -> WorkflowDefinition:
        workflows = self._workflows
        if name not in workflows:
            raise NotFound(f"there is no workflow {name!r}", hint=did_you_mean(name, workflows))
        return workflows[name]

    def _workflow_rows(self) -> list[dict[str, Any]]:
        engine, changes = self._context.engine, self._context.changes
        lag = engine.statistics().lag
        counts = Counter(status.node for status in engine.status())
        return [
            {
                "name": workflow.name,
                "description": workflow.description,
                "from": workflow.path if changes is None else changes.origin(workflow.name),
                "online": workflow.online,
                "start": None if workflow.start is None else format_time(workflow.start),
                "requested_intervals": intervals(workflow.requested_intervals),
                "sources": list(workflow.sources),
                "nodes": list(workflow.order),
                "published": [name for name in workflow.order if workflow.nodes[name].publish is not None],
                "streams": sum(counts[name] for name in (*workflow.sources, *workflow.order)),
                "lag_seconds": lag.get(workflow.name),
            }
            for workflow in self._workflows.values()
        ]


async def _body(request: Request) -> str:
    """The text of a workflow file, at most `MAX_FILE` bytes of UTF-8."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MAX_FILE:
            raise HTTPException(413, f"a workflow has at most {MAX_FILE} bytes: split it into several")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigurationError(f"line {line} is not UTF-8 text", hint="save it as UTF-8") from None


def _planned(plan: Plan) -> Response:
    nodes = {"new": plan.new, "changed": plan.changed, "unchanged": plan.unchanged, "removed": plan.removed}
    answer = {"workflow": plan.workflow, "action": plan.action, "message": str(plan)}
    return JsonResponse(
        answer | {"nodes": {state: list(names) for state, names in nodes.items()}},
        200 if plan.action == "nothing" else 202,
    )
