"""The workflows, each as its factor graph with live rates on the nodes."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from nicegui import ui

from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.service.workflows.graph import graph_json, mermaid
from hs_stream.viewer.frame import empty, frame, section, verbatim
from hs_stream.viewer.pages import Pages

if TYPE_CHECKING:
    pass

__all__ = ["WorkflowPages", "drawing", "layout"]

_TICK: Final = 2.0
_WIDTH: Final = 176
_HEIGHT: Final = 44
_ACROSS: Final = 224
_DOWN: Final = 62
_WIDE: Final = {"classes": "gt-xs", "headerClasses": "gt-xs"}


def layout(graph: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """``(column, row)`` of every node: one column right of its furthest input, in the order of the inputs' rows."""
    inputs: dict[str, list[str]] = {node["id"]: [] for node in graph["nodes"]}
    for edge in graph["edges"]:
        inputs[edge["to"]].append(edge["from"])
    column: dict[str, int] = {}
    for node in graph["nodes"]:  # topological
        column[node["id"]] = max((column[name] + 1 for name in inputs[node["id"]]), default=0)
    rows: dict[str, float] = {}
    placed: dict[str, tuple[int, int]] = {}
    for at in range(max(column.values(), default=-1) + 1):
        names = [node["id"] for node in graph["nodes"] if column[node["id"]] == at]
        wanted = {
            name: sum(rows[other] for other in inputs[name]) / len(inputs[name]) if inputs[name] else index
            for index, name in enumerate(names)
        }
        taken = -1
        for name in sorted(names, key=wanted.__getitem__):
            taken = max(taken + 1, round(wanted[name]))
            rows[name] = taken
            placed[name] = (at, taken)
    return placed


class WorkflowPages(Pages):
    """The pages over ``context``."""

    async def workflows(self) -> None:
        """All workflows."""
        with frame("Workflows", "/workflows"):
            self._unread()
            if not self._context.workflows:
                empty(
                    "No workflow runs.",
                    'Name files in the settings: workflows = ["config/workflows/*.yaml"]; '
                    "hs-stream discover --for 30 -o config/workflows/home.yaml writes one for what your gateways send.",
                )
            for workflow in self._context.workflows:
                with section(""):
                    with ui.row().classes("w-full items-center"):
                        ui.link(workflow.name, f"/workflow/{workflow.name}").classes("text-base font-medium")
                        ui.badge("online" if workflow.online else "on request").props("outline color=secondary")
                        ui.space()
                        ui.link("streams", f"/streams?{urlencode({'workflow': workflow.name})}")
                    ui.label(workflow.description or "").classes("text-sm opacity-70")
                    ui.label(
                        f"{len(workflow.sources)} sources, {len(workflow.nodes)} nodes, {len(workflow.plates)} plates"
                    ).classes("text-sm")

    async def workflow(self, name: str) -> None:
        """One workflow, drawn."""
        found = next((item for item in self._context.workflows if item.name == name), None)
        with frame(name, "/workflows"):
            if found is None:
                empty(f"There is no workflow {name}.", "It may have been removed.")
                ui.link("All workflows", "/workflows")
                return
            ui.label(found.description or "").classes("opacity-70")
            with section("Factor graph"):
                ui.label("Sources are round, published nodes have a bold border. A node opens its streams.").classes(
                    "text-xs opacity-70"
                )
                self._graph(found)
            with section("Nodes"):
                self._table(found)
            with ui.expansion("As Mermaid text").classes("w-full hs-card"):
                verbatim(mermaid(found))

    def _counts(self, workflow: WorkflowDefinition) -> dict[str, tuple[int, int]]:
        """Per node: streams, and changes since the start."""
        counts: dict[str, tuple[int, int]] = {}
        for status in self._engine.status():
            if status.workflow == workflow.name:
                streams, changes = counts.get(status.node, (0, 0))
                counts[status.node] = (streams + 1, changes + status.changes)
        return counts

    def _graph(self, workflow: WorkflowDefinition) -> None:
        graph = graph_json(workflow)
        places = layout(graph)
        before = self._counts(workflow)

        ui.html(drawing(graph, places), sanitize=False).classes("w-full overflow-x-auto")

        def tick() -> None:
            nonlocal before
            now = self._counts(workflow)
            rates = [
                f"{(now[node['id']][1] - before.get(node['id'], (0, 0))[1]) / _TICK:.1f}/s"
                if node["id"] in now
                else "-"
                for node in graph["nodes"]
            ]
            before = now
            ui.run_javascript(
                f"{json.dumps(rates)}.forEach((rate, at) => {{"
                "const text = document.getElementById('hs-rate-' + at); if (text) text.textContent = rate; })"
            )

        ui.timer(_TICK, tick)

    def _table(self, workflow: WorkflowDefinition) -> None:
        counts = self._counts(workflow)
        columns = [
            {"name": key, "label": label, "field": key, "align": "left"} | (_WIDE if key in ("with", "plates") else {})
            for key, label in (
                ("node", "Node"),
                ("tool", "Tool"),
                ("inputs", "From"),
                ("with", "With"),
                ("plates", "Plates"),
                ("streams", "Streams"),
            )
        ]
        rows = []
        for node in graph_json(workflow)["nodes"]:
            name = node["id"]
            inputs = workflow.nodes[name].inputs if name in workflow.nodes else ()
            parameters = {key: value for key, value in node.get("parameters", {}).items() if value is not None}
            rows.append(
                {
                    "node": name,
                    "href": f"/streams?{urlencode({'node': name})}",
                    "tool": f"{node['tool']}@{node['version']}" if node["kind"] == "node" else "source",
                    "inputs": ", ".join(inputs),
                    "with": json.dumps(parameters, ensure_ascii=False) if parameters else "",
                    "plates": ", ".join(node["plates"]),
                    "streams": counts.get(name, (0, 0))[0],
                }
            )
        table = (
            ui.table(columns=columns, rows=rows, row_key="node").props("flat dense hide-pagination").classes("w-full")
        )
        table.props(':pagination="{rowsPerPage:0}"')
        table.add_slot(
            "body-cell-node",
            '<q-td :props="props"><a class="text-primary" :href="props.row.href">{{ props.row.node }}</a></q-td>',
        )


def drawing(graph: dict[str, Any], places: dict[str, tuple[int, int]]) -> str:
    """The factor graph as SVG: every node is a link to its streams, and has a text ``hs-rate-N`` for its live rate."""
    columns = max((place[0] for place in places.values()), default=0) + 1
    rows = max((place[1] for place in places.values()), default=0) + 1
    width, height = columns * _ACROSS - (_ACROSS - _WIDTH) + 8, rows * _DOWN - (_DOWN - _HEIGHT) + 8
    parts = []
    for edge in graph["edges"]:
        (left, above), (right, below) = places[edge["from"]], places[edge["to"]]
        x1, y1 = left * _ACROSS + _WIDTH + 4, above * _DOWN + _HEIGHT / 2 + 4
        x2, y2 = right * _ACROSS + 4 - 5, below * _DOWN + _HEIGHT / 2 + 4
        bend = min(max((x2 - x1) / 2, 18), 60)
        parts.append(f'<path d="M{x1},{y1} C{x1 + bend},{y1} {x2 - bend},{y2} {x2},{y2}" marker-end="url(#hs-arrow)"/>')
    edges = f'<g fill="none" stroke="#8892a0" stroke-width="1.4">{"".join(parts)}</g>'
    parts = []
    for at, node in enumerate(graph["nodes"]):
        column, row = places[node["id"]]
        source = node["kind"] == "source"
        what = "source" if source else f"{node['tool']}@{node['version']}"
        title = escape(f"{node['id']}: {what}, {', '.join(node['plates']) or 'one stream'}")
        border = "#f0b429" if node.get("published") else "none"
        href = escape(f"/streams?{urlencode({'node': node['id']})}")
        parts.append(
            f'<a href="{href}" aria-label="{title}"><g transform="translate({column * _ACROSS + 4},{row * _DOWN + 4})">'
            f'<title>{title}</title><rect width="{_WIDTH}" height="{_HEIGHT}" rx="{_HEIGHT / 2 if source else 6}" '
            f'fill="{"#5b6b7f" if source else "#2f6fb2"}" stroke="{border}" stroke-width="3"/>'
            f'<text x="12" y="18" font-weight="600">{escape(_cut(node["id"]))}</text>'
            f'<text x="12" y="34" opacity=".85">{escape(_cut(what, 20))}</text>'
            f'<text id="hs-rate-{at}" x="{_WIDTH - 12}" y="34" text-anchor="end">-</text></g></a>'
        )
    return (
        f'<svg viewBox="0 0 {width} {height}" style="width:100%;max-width:{width}px;min-width:{min(width, 640)}px" '
        'role="img" aria-label="factor graph" font-size="12" fill="#fff"><defs><marker id="hs-arrow" viewBox="0 0 8 8" '
        'refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#8892a0"/>'
        f"</marker></defs>{edges}{''.join(parts)}</svg>"
    )


def _cut(text: str, most: int = 22) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
