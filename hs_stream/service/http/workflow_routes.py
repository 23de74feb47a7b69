"""The paths about workflows, their plates, and tools."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException

from hs_stream.core.errors import ConfigurationError, NotFound, did_you_mean
from hs_stream.core.time import format_time
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.service.http.answers import JsonResponse, TaggedResponse
from hs_stream.service.http.context import ApiContext
from hs_stream.service.json_values import encode, intervals
from hs_stream.service.tool_docs import tool_json
from hs_stream.service.workflows.catalog import Plan
from hs_stream.service.workflows.document import plate_document, to_document
from hs_stream.service.workflows.file import MAX_FILE
from hs_stream.service.workflows.graph import dot, graph_json, mermaid

__all__ = ["WorkflowRoutes", "workflow_rows"]


class WorkflowRoutes:
    """See the module."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def register(self, app: FastAPI) -> None:
        """Add the paths to ``app``; those that change something, where the service lets its workflows be changed."""
        for path, endpoint, tag in (
            ("/api/workflows", self.workflows, "workflows"),
            ("/api/workflows/{workflow}/graph", self.graph, "workflows"),
            ("/api/workflows/{workflow}", self.workflow, "workflows"),
            ("/api/tools", self.tools, "tools"),
            ("/api/plates", self.plates, "workflows"),
        ):
            app.add_api_route(path, endpoint, methods=["GET"], tags=[tag], response_class=JsonResponse)
        if self._context.changes is not None:
            change: dict[str, Any] = {"tags": ["workflows"], "status_code": 202, "response_class": JsonResponse}
            app.add_api_route("/api/workflows/{workflow}", self.save, methods=["PUT"], **change)
            app.add_api_route("/api/workflows/{workflow}", self.remove, methods=["DELETE"], **change)

    async def workflows(self) -> Response:
        """Every workflow of this service. ``unread``: files that differ from what runs, and how to load them."""
        unread = None if self._context.changes is None else self._context.changes.unread()
        return JsonResponse(
            {"workflows": workflow_rows(self._context), "unread": None if unread is None else unread.document()}
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
            for workflow in self._context.workflows
            for plate in workflow.plates.values()
        ]
        return JsonResponse({"plates": rows})

    async def tools(self) -> Response:
        """Every version of every tool, with its parameters."""
        return TaggedResponse({"tools": [tool_json(tool) for tool in self._context.registry]})

    def _workflow(self, name: str) -> WorkflowDefinition:
        workflows = {workflow.name: workflow for workflow in self._context.workflows}
        if name not in workflows:
            raise NotFound(f"there is no workflow {name!r}", hint=did_you_mean(name, workflows))
        return workflows[name]


def workflow_rows(context: ApiContext) -> list[dict[str, Any]]:
    """Every workflow in short, for lists of them."""
    engine, changes = context.engine, context.changes
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
        for workflow in context.workflows
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
