"""Overview, plates, tools, sessions with history, and dead letters."""

from __future__ import annotations

import inspect
import json
from collections import deque
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from nicegui import ui

from hs_stream.core.errors import HsStreamError
from hs_stream.core.time import format_time
from hs_stream.core.visible import visible
from hs_stream.service.tool_docs import kinds_of, tool_json
from hs_stream.viewer.frame import empty, frame, section, verbatim
from hs_stream.viewer.pages import Pages

if TYPE_CHECKING:
    from hs_stream.engine.engine import EngineStatistics

__all__ = ["ListPages"]

_LETTERS: Final = 100
_HISTORY: Final = 100
_SESSIONS: Final = 50
_KEPT: Final = 300
_PAYLOAD: Final = 2000
_TOPIC: Final = 200
_MEAN_OF: Final = 6


class ListPages(Pages):
    """The pages over ``context``."""

    # --- overview ---

    async def overview(self) -> None:
        """Rates, lag, health, workflows, dead letters."""
        with frame("Overview", "/"):
            health = ui.row().classes("w-full gap-2 items-center")
            with ui.element("div").classes("grid grid-cols-2 md:grid-cols-5 gap-3 w-full"):
                figures = {}
                for key, label in (
                    ("readings", "readings/s"),
                    ("results", "results/s"),
                    ("published", "published/s"),
                    ("lag", "seconds since the newest reading"),
                    ("streams", "streams"),
                    ("pending", "steps pending"),
                    ("late", "late readings"),
                    ("overwritten", "overwritten readings"),
                    ("dead", "dead letters"),
                ):
                    with ui.card().classes("hs-card gap-0 p-3"):
                        figures[key] = ui.label("-").classes("hs-num")
                        ui.label(label).classes("text-xs opacity-70")
            with section("Rates since this page was opened, of five minutes at most"):
                chart = ui.echart(_rates_options()).classes("w-full").style("height:13rem")
            with ui.element("div").classes("grid grid-cols-1 md:grid-cols-2 gap-4 w-full"):
                with section("Workflows"):
                    workflows = ui.column().classes("w-full gap-1")
                with section("Newest dead letters"):
                    letters = ui.column().classes("w-full gap-1")
            seen: deque[tuple[int, EngineStatistics]] = deque(maxlen=_MEAN_OF)
            shown: dict[str, ui.label] = {}

            def tick() -> None:
                now, figure = self._context.clock.now(), self._engine.statistics()
                seen.append((now, figure))
                figures["streams"].text = f"{figure.streams:,}"
                figures["pending"].text = f"{figure.pending_steps:,}"
                figures["late"].text = f"{figure.late:,}"
                figures["overwritten"].text = f"{figure.overwritten:,}"
                figures["dead"].text = f"{figure.dead_letters:,}"
                figures["lag"].text = f"{min(figure.lag.values()):.1f}" if figure.lag else "-"
                if now == seen[0][0]:
                    return
                seconds = (now - seen[0][0]) / 1000
                old = seen[0][1]
                rates = {
                    "readings": (figure.readings - old.readings) / seconds,
                    "results": (figure.results - old.results) / seconds,
                    "published": (figure.published - old.published) / seconds,
                }
                for key, rate in rates.items():
                    figures[key].text = f"{rate:,.1f}"
                added = [[[now, round(rate, 2)]] for rate in rates.values()]
                ui.run_javascript(f"hsAppend({chart.id}, {added!r}, {now - _KEPT * 1000}, {now})")

            async def slow() -> None:
                self._workflow_rows(workflows, shown)
                await self._health(health)
                await self._letters(letters)

            ui.timer(1.0, tick)
            ui.timer(0.01, slow, once=True)
            ui.timer(5.0, slow)

    async def _health(self, row: ui.row) -> None:
        ready = await self._context.ready()
        row.clear()
        with row:
            good = ready["ready"]
            ui.chip("Ready" if good else "Not ready", icon="check_circle" if good else "error").props(
                f"color={'positive' if good else 'negative'} text-color=white dense"
            )
            for name, part in ready["parts"].items():
                ui.chip(name, icon="check" if part["ok"] else "close").props(
                    f"outline dense color={'positive' if part['ok'] else 'negative'}"
                )
                if not part["ok"]:
                    ui.label(str(part.get("error", "not ok"))).classes("text-sm text-negative")
            self._unread()
            for one in ready.get("degraded", ()):
                ui.label(f"{one['what']}: {one['error']}").classes("text-sm text-warning")

    def _workflow_rows(self, column: ui.column, shown: dict[str, ui.label]) -> None:
        """Set the texts of ``shown``; the rows are made anew, and put there, only when there are other workflows."""
        if not shown or [*shown] != [workflow.name for workflow in self._context.workflows]:
            column.clear()
            shown.clear()
            with column:
                for workflow in self._context.workflows:
                    with ui.row().classes("w-full items-baseline gap-2"):
                        ui.link(workflow.name, f"/workflow/{quote(workflow.name)}").classes("font-medium")
                        ui.label(workflow.description or "").classes("text-sm opacity-70 grow")
                        shown[workflow.name] = ui.label().classes("text-sm")
                if not shown:
                    empty("No workflow runs.")
        lag = self._engine.statistics().lag
        for name, label in shown.items():
            label.text = f"{lag[name]:.1f} s ago" if name in lag else "no reading yet"

    async def _letters(self, column: ui.column) -> None:
        try:
            letters = await self._context.store.dead_letters(5)
        except HsStreamError as error:
            letters, problem = [], error.message
        else:
            problem = ""
        column.clear()
        with column:
            if problem:
                ui.label(problem).classes("text-negative text-sm")
            elif not letters:
                ui.label("None: everything that came in was used.").classes("text-sm opacity-70")
            for letter in letters:
                with ui.row().classes("items-baseline gap-2 text-sm w-full no-wrap"):
                    ui.badge(letter.reason).props("outline color=warning")
                    ui.label(visible((letter.topic or letter.source)[:_TOPIC])).classes("ellipsis")
            if letters:
                ui.link("All", "/dead-letters").classes("text-sm")

    # --- plates, tools ---

    async def plates(self) -> None:
        """The tree of plates with the values seen so far."""
        with frame("Plates", "/plates"):
            known = self._engine.plates()
            for workflow in self._context.workflows:
                with section(workflow.name):
                    if not workflow.plates:
                        ui.label("No plate: one stream per node.").classes("text-sm opacity-70")
                        continue
                    roots = [plate for plate in workflow.plates.values() if plate.parent is None]
                    values = known.get(workflow.name, {})
                    nodes = [_plate_node(workflow.plates, plate.name, values, {}) for plate in roots]
                    ui.tree(nodes, label_key="label", node_key="id").expand().classes("w-full")

    async def tools(self) -> None:
        """Every tool, searched."""
        with frame("Tools", "/tools"):
            rows = [
                {
                    "pin": f"{tool['name']}@{tool['version']}",
                    "href": f"/tool/{quote(tool['name'] + '@' + tool['version'])}",
                    "kind": tool["kind"],
                    "summary": tool["summary"].replace("``", ""),
                }
                for tool in map(tool_json, self._context.registry)
            ]
            search = ui.input("Search").props("dense outlined clearable type=search").classes("w-full")
            columns: list[dict[str, Any]] = [
                {"name": "pin", "label": "Tool", "field": "pin", "align": "left", "sortable": True},
                {"name": "kind", "label": "Kind", "field": "kind", "align": "left", "sortable": True},
                {"name": "summary", "label": "What it does", "field": "summary", "align": "left"},
            ]
            table = (
                ui.table(columns=columns, rows=rows, row_key="pin", pagination=25)
                .props("flat")
                .classes("w-full hs-card")
            )
            table.add_slot(
                "body-cell-pin",
                '<q-td :props="props"><a class="text-primary" :href="props.row.href">{{ props.row.pin }}</a></q-td>',
            )
            search.bind_value(table, "filter")

    async def tool(self, pin: str) -> None:
        """One version of a tool: its documentation and where it runs."""
        found = next((tool for tool in self._context.registry if f"{tool.name}@{tool.version}" == pin), None)
        with frame(pin, "/tools"):
            if found is None:
                empty(f"There is no tool {pin}.", "It may have been a version of before.")
                ui.link("All tools", "/tools")
                return
            document = tool_json(found)
            with section("What it does"):
                ui.restructured_text(inspect.cleandoc(found.__doc__ or "")).classes("w-full overflow-x-auto")
                if kinds := kinds_of(found):
                    ui.label(f"Kinds: {kinds}").classes("text-sm opacity-70")
            with section("Parameters"):
                if not document["parameters"]:
                    ui.label("None.").classes("text-sm opacity-70")
                for parameter in document["parameters"]:
                    default = "" if parameter["required"] else f" = {json.dumps(parameter['default'])}"
                    ui.label(f"{parameter['name']}: {parameter['type']}{default}").classes("font-mono text-sm")
            with section("Versions"), ui.row():
                for other in self._context.registry.versions(found.name):
                    ui.link(f"{other.name}@{other.version}", f"/tool/{quote(other.name + '@' + other.version)}")
            with section("Where it runs"):
                used = [
                    (workflow.name, node.name)
                    for workflow in self._context.workflows
                    for node in workflow.nodes.values()
                    if node.tool.pin == pin
                ]
                if not used:
                    ui.label("In no running workflow.").classes("text-sm opacity-70")
                for workflow, node in used:
                    ui.link(f"{workflow}: {node}", f"/streams?node={quote(node)}")

    # --- sessions, dead letters ---

    async def sessions(self) -> None:
        """Runs of the service, and what was computed last."""
        with frame("Sessions", "/sessions"):
            ui.label("Times are UTC.").classes("text-sm opacity-70")
            with section("Runs of the service"):
                documents = await self._context.store.documents("sessions")
                rows = [
                    {
                        "id": key,
                        "started": _second(str(document.get("started", ""))),
                        "stopped": _second(str(document.get("stopped") or "running, or killed")),
                        "version": str((document.get("versions") or {}).get("hs_stream", "")),
                        **{name: f"{count:,}" for name, count in (document.get("counters") or {}).items()},
                    }
                    for key, document in sorted(documents.items(), reverse=True)[:_SESSIONS]
                ]
                counters = ("readings", "results", "published", "late", "overwritten", "dead_letters")
                _table(("started", "stopped", "version", *counters), rows, "id")
            with section("What was computed last"):
                entries = await self._context.store.history(_HISTORY)
                computed: list[dict[str, Any]] = [
                    {
                        "at": index,
                        "time": _second(format_time(entry.time)),
                        "stream": entry.stream,
                        "cause": entry.cause,
                        "tool": entry.tool,
                        "from": format_time(entry.start),
                        "to": format_time(entry.end),
                        "instances": f"{entry.instances:,}",
                        "changed": f"{entry.changed:,}",
                    }
                    for index, entry in enumerate(entries)
                ]
                if not computed:
                    empty("Nothing is recorded yet.")
                else:
                    names = ("time", "stream", "tool", "cause", "from", "to", "instances", "changed")
                    _table(names, computed, "at", page=20)

    async def dead_letters(self) -> None:
        """What could not be used, with reason and payload."""
        with frame("Dead letters", "/dead-letters"):
            letters = await self._context.store.dead_letters(_LETTERS, budget=self._context.page)
            if overwritten := self._engine.overwritten():
                with section("Overwritten readings"):
                    ui.label(
                        "Another value of the same time replaced them. If both are not of one device, give each device "
                        "a stream of its own: {device} in the topic, or bind: {device: id}."
                    ).classes("text-sm opacity-70")
                    for found in overwritten:
                        where = f"the last in {found.stream} at {format_time(found.time)}"
                        ui.label(f"{found.count:,} of source {found.source}, {where}").classes("text-sm")
            if not letters:
                empty("No dead letters.", "" if overwritten else "Everything that came in was used.")
                return
            reasons: dict[str, int] = {}
            for letter in letters:
                reasons[letter.reason] = reasons.get(letter.reason, 0) + 1
            with ui.row().classes("gap-2"):
                for reason, count in sorted(reasons.items(), key=lambda item: -item[1]):
                    ui.chip(f"{reason}: {count}").props("outline dense color=warning")
            ui.label(f"The newest {len(letters)}.").classes("text-sm opacity-70")
            for letter in letters:
                topic = visible((letter.topic or letter.source)[:_TOPIC])
                with ui.expansion(f"{format_time(letter.time)}  {letter.reason}  {topic}").classes("w-full hs-card"):
                    ui.label(visible(letter.message, lines=True))
                    ui.label(f"source {letter.source}").classes("text-sm opacity-70")
                    verbatim(_payload(letter.payload))


def _payload(payload: bytes) -> str:
    text = visible(payload[:_PAYLOAD].decode("utf-8", "backslashreplace"), lines=True)
    return text + (f"\n… {len(payload) - _PAYLOAD:,} bytes more" if len(payload) > _PAYLOAD else "")


def _second(text: str) -> str:
    """An ISO time to the second, to be read; another text as it is."""
    return text[:19].replace("T", " ") if text[:1].isdigit() else text


def _table(names: Any, rows: list[dict[str, Any]], key: str, page: int = 0) -> None:
    """Rows of one line each: where they are too long, the table scrolls."""
    columns = [{"name": name, "label": name.replace("_", " "), "field": name, "align": "left"} for name in names]
    table = (
        ui.table(columns=columns, rows=rows, row_key=key, pagination=page or None)
        .props("flat dense")
        .classes("w-full hs-whole")
    )
    if not page:
        table.props('hide-pagination :pagination="{rowsPerPage:0}"')


def _rates_options() -> dict[str, Any]:
    return {
        "animation": False,
        "useUTC": True,
        "color": ["#5b6b7f", "#2f6fb2", "#2e9e6b"],
        "grid": {"left": 8, "right": 16, "top": 30, "bottom": 8, "containLabel": True},
        "legend": {"top": 0, "textStyle": {"color": "#888"}},
        "tooltip": {"trigger": "axis", "confine": True},
        "xAxis": {"type": "time", "axisLabel": {"color": "#888", "hideOverlap": True}},
        "yAxis": {
            "type": "value",
            "axisLabel": {"color": "#888"},
            "splitLine": {"lineStyle": {"color": "rgba(128,128,128,.18)"}},
        },
        "series": [
            {"type": "line", "name": name, "data": [], "showSymbol": False, "animation": False}
            for name in ("readings/s", "results/s", "published/s")
        ],
    }


def _plate_node(
    plates: Any, name: str, values: dict[str, list[dict[str, str]]], above: dict[str, str]
) -> dict[str, Any]:
    """A plate below the values ``above`` of its ancestors, with its values and, below each, the plates within it."""
    inside = [plate.name for plate in plates.values() if plate.parent == name]
    here = [value for value in values.get(name, ()) if above.items() <= value.items()][:500]
    path = "/".join(f"{key}={value}" for key, value in above.items())
    return {
        "id": f"{path}/{name}",
        "label": f"{name} ({len(here)})",
        "icon": "layers",
        "children": [
            {
                "id": f"{path}/{name}={value[name]}",
                "label": value[name],
                "children": [_plate_node(plates, other, values, value) for other in inside],
            }
            for value in here
        ],
    }
