"""The list of streams, one stream, and several streams of a node next to each other."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from nicegui import ui

from hs_stream.core.batch import Batch
from hs_stream.core.errors import HsStreamError
from hs_stream.core.size import is_full
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME, format_time, parse_time
from hs_stream.core.value import Value
from hs_stream.service.http.lookup import find_stream
from hs_stream.service.json_documents import partition, stream_states
from hs_stream.service.json_values import encode
from hs_stream.viewer.chart import LiveChart
from hs_stream.viewer.explain import explain_link
from hs_stream.viewer.frame import STATES, coverage_bar, empty, frame, section
from hs_stream.viewer.pages import Pages
from hs_stream.viewer.series import number_at, numeric_fields

if TYPE_CHECKING:
    from hs_stream.engine.engine import StreamStatus

__all__ = ["StreamPages", "shown", "stream_link"]

_PAGE: Final = 25
_COVERED: Final = 3_600_000
_TABLE: Final = 50
_EXPORT: Final = 100_000
_CHARTS: Final = 12
_WIDE: Final = {"classes": "gt-xs", "headerClasses": "gt-xs"}


def shown(value: Value, most: int = 60) -> str:
    """A value in one short line."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    text = value if isinstance(value, str) else json.dumps(encode(value), ensure_ascii=False)
    return text if len(text) <= most else text[: most - 1] + "…"


def stream_link(stream: StreamId) -> str:
    """The path of a stream's page."""
    return f"/stream/{quote(str(stream), safe='')}"


def _ago(now: int, time: int | None) -> str:
    if time is None:
        return "never"
    seconds = (now - time) / 1000
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if abs(seconds) >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"


class StreamPages(Pages):
    """The pages over ``context``."""

    # --- the list ---

    async def streams(self, q: str = "", workflow: str = "", node: str = "") -> None:
        """Every stream, searched and filtered, with coverage and live value."""
        with frame("Streams", "/streams"):
            plates = sorted({plate for item in self._context.workflows for plate in item.plates})
            chosen: dict[str, str | None] = dict.fromkeys(plates)
            state: dict[str, Any] = {"q": q, "page": 0, "kind": None, "lacking": None}
            with ui.row().classes("w-full items-center gap-2"):
                search = ui.input("Search", value=q).props("dense outlined clearable type=search").classes("grow")
                kind = ui.select([None, "raw", "derived"], label="Kind", value=None).props(
                    "dense outlined options-dense"
                )
                kind.classes("w-28")
                selects = {
                    plate: ui.select([None, *self._values(plate)], label=plate, value=None, with_input=True)
                    .props("dense outlined options-dense clearable")
                    .classes("w-36")
                    for plate in plates
                }
            columns = [
                {"name": "stream", "label": "Stream", "field": "stream", "align": "left"},
                {"name": "value", "label": "Newest value", "field": "value", "align": "left"},
                {"name": "seen", "label": "Seen", "field": "seen", "align": "left"},
                {"name": "tool", "label": "Tool", "field": "tool", "align": "left", **_WIDE},
                {"name": "coverage", "label": "Last hour", "field": "coverage", "align": "left", **_WIDE},
            ]
            table = (
                ui.table(columns=columns, rows=[], row_key="id").props("flat hide-pagination").classes("w-full hs-card")
            )
            table.props(':rows-per-page-options="[0]" :pagination="{rowsPerPage:0}"')
            table.add_slot(
                "body-cell-stream",
                '<q-td :props="props"><a class="text-primary" :href="props.row.href">{{ props.row.stream }}</a></q-td>',
            )
            table.add_slot("body-cell-coverage", '<q-td :props="props"><div v-html="props.row.coverage"></div></q-td>')
            none = ui.column().classes("w-full")
            with ui.row().classes("w-full items-center justify-between"):
                total = ui.label("").classes("text-sm opacity-70")
                pages = ui.pagination(1, 1, direction_links=True)

            def matching() -> list[StreamStatus]:
                meta = {plate: value for plate, value in chosen.items() if value}
                needle = (state["q"] or "").lower()
                return [
                    status
                    for status in self._engine.status(node or None, meta)
                    if needle in str(status.stream).lower()
                    and (not workflow or status.workflow == workflow)
                    and state["kind"] in (None, status.kind)
                ]

            async def draw() -> None:
                found = matching()
                pages.max = max(-(-len(found) // _PAGE), 1)
                pages.value = min(pages.value or 1, pages.max)
                pages.set_visibility(pages.max > 1)
                first = (pages.value - 1) * _PAGE
                table.rows = [await self._row(status) for status in found[first : first + _PAGE]]
                table.set_visibility(bool(found))
                lacking = None if found else self._lacking(workflow, node)
                if lacking != state["lacking"]:
                    state["lacking"] = lacking
                    none.clear()
                    if lacking is not None:
                        with none:
                            empty(*lacking)
                where = f" of {node or workflow}" if node or workflow else ""
                total.text = f"{len(found):,} streams{where}"

            async def changed() -> None:
                state.update(q=search.value, kind=kind.value)
                chosen.update({plate: select.value for plate, select in selects.items()})
                pages.value = 1
                await draw()

            for element in (search, kind, *selects.values()):
                element.on_value_change(changed)
            pages.on_value_change(draw)
            await draw()
            ui.timer(2.0, draw)

    def _lacking(self, workflow: str, node: str) -> tuple[str, str]:
        """Why the list is empty, and what would change that."""
        asked = [item for item in self._context.workflows if workflow in ("", item.name)]
        if not self._context.workflows:
            return "No workflow runs.", ""
        known = any(node in ("", *item.sources, *item.nodes) for item in asked)
        if known and not any(workflow in ("", status.workflow) for status in self._engine.status(node or None)):
            # The workflow's first source, where none is asked for: what is wrong with one is mostly wrong with all.
            names = [node] if node else [name for item in asked for name in item.sources][:1]
            why = "".join(map(self._why_nothing, names))
            return (
                "Waiting for the first reading.",
                why or "Streams appear with the first reading that belongs to them.",
            )
        return "No stream matches.", "Change the search or the filters."

    async def _row(self, status: StreamStatus) -> dict[str, Any]:
        now = self._clock.now()
        batch = await self._engine.read(status.stream, MIN_TIME, MAX_TIME, limit=1, newest=True)
        return {
            "id": status.id,
            "stream": str(status.stream),
            "href": stream_link(status.stream),
            "value": shown(next(iter(batch))[1]) if batch else "-",
            "seen": _ago(now, batch.last_time if batch else None),
            "tool": status.tool or "source",
            "coverage": _bar(partition(status, now - _COVERED, now), now - _COVERED, now),
        }

    async def _read_newest(self, stream: StreamId, low: int = MIN_TIME, high: int = MAX_TIME) -> Batch:
        """What a table shows."""
        budget = self._context.page
        return await self._engine.read(stream, low, high, limit=_TABLE, newest=True, budget=budget)

    def _values(self, plate: str) -> list[str]:
        found = {value[plate] for tree in self._engine.plates().values() for value in tree.get(plate, ())}
        return sorted(found)[:500]

    # --- one stream ---

    async def stream(self, name: str) -> None:
        """One stream: live chart, table, coverage, provenance, export."""
        try:
            stream = StreamId.parse(name)
            status = find_stream(self._context, str(stream))
        except (ValueError, HsStreamError) as error:
            with frame("No such stream", "/streams"):
                empty(f"There is no stream {name}.", getattr(error, "hint", "") or str(error))
                ui.link("All streams", "/streams")
            return
        newest = await self._read_newest(stream)
        values = [value for _, value in newest]
        fields = numeric_fields(values)
        stepped = bool(values) and all(isinstance(value, (bool, str)) for value in values)
        stepped = stepped or status.meaning.kind == "state"
        with frame(str(stream), "/streams"):
            self._facts(status)
            if status.newest is None:
                empty("It has no instance.", self._why_nothing(stream.name))
            with section(""):
                field = (
                    fields[0] if fields and not any(number_at(value, None) is not None for value in values) else None
                )
                choice = ui.select(fields, label="Component", value=field).props("dense outlined options-dense")
                choice.classes("w-48").set_visibility(field is not None)
                bar = ui.html("", sanitize=False).classes("w-full")
                legend = ui.row().classes("gap-3 text-xs opacity-80")

                async def cover(low: int, high: int) -> None:
                    found = await stream_states(self._engine, self._engine.find(stream), low, high)
                    parts = [
                        (piece["state"], _ms(piece["start"], low), _ms(piece["end"], high)) for piece in found["states"]
                    ]
                    bar.content = _bar(parts, low, high)

                chart = LiveChart(self._context, [stream], field=field, stepped=stepped, on_window=cover)
                with legend:
                    for state, text in STATES.items():
                        with ui.row().classes("items-center gap-1"):
                            with ui.element("div").classes("cov").style("min-width:14px; width:14px"):
                                ui.element("i").classes(state).style("width:100%")
                            ui.label(text)

                async def component(event: Any) -> None:
                    chart.field = event.value
                    await chart.load()

                choice.on_value_change(component)
            await self._newest(stream, chart)
            with ui.element("div").classes("grid grid-cols-1 md:grid-cols-2 gap-4 w-full"):
                self._provenance(status)
                await self._history(status.node)

    def _facts(self, status: StreamStatus) -> None:
        with ui.row().classes("w-full items-center gap-2"):
            ui.badge(status.kind).props("color=secondary")
            ui.link(status.workflow, f"/workflow/{quote(status.workflow)}")
            if status.tool:
                ui.link(status.tool, f"/tool/{quote(status.tool)}")
            for plate, value in status.stream.meta:
                ui.badge(f"{plate} = {value}").props("outline color=secondary")
            if status.failed:
                ui.badge("failed").props("color=negative")
            ui.space()
            live = ui.label("").classes("hs-num")
            seen = ui.label("").classes("text-sm opacity-70")
        error = ui.label(status.error).classes("text-negative")
        error.set_visibility(bool(status.error))

        async def tick() -> None:
            try:
                now, current = self._clock.now(), self._engine.find(status.stream)
                batch = await self._engine.read(status.stream, MIN_TIME, MAX_TIME, limit=1, newest=True)
            except HsStreamError:
                return
            unit = f" {current.meaning.unit}" if batch and current.meaning.unit else ""
            live.text = shown(next(iter(batch))[1], 40) + unit if batch else "-"
            seen.text = _ago(now, batch.last_time if batch else None)
            error.text = current.error
            error.set_visibility(bool(current.error))

        ui.timer(0.01, tick, once=True)
        ui.timer(1.0, tick)

    async def _newest(self, stream: StreamId, chart: LiveChart) -> None:
        with section("Newest instances in the window"):
            columns = [
                {"name": "time", "label": "Time (UTC)", "field": "time", "align": "left"},
                {"name": "value", "label": "Value", "field": "value", "align": "left"},
                {"name": "revision", "label": "Revision", "field": "revision", "align": "left"},
                {"name": "why", "label": "", "field": "why", "align": "left"},
            ]
            table = (
                ui.table(columns=columns, rows=[], row_key="time").props("flat dense hide-pagination").classes("w-full")
            )
            table.props(':pagination="{rowsPerPage:0}"').style("max-height:22rem")
            table.add_slot("no-data", "<div class='q-pa-md'>No instance in this window.</div>")
            table.add_slot(
                "body-cell-why", '<q-td :props="props"><a class="text-primary" :href="props.row.why">Why?</a></q-td>'
            )

            async def draw() -> None:
                low, high = chart.window
                if high <= low:
                    return
                try:
                    batch = await self._read_newest(stream, low, high)
                    identity = self._engine.find(stream)
                    times = batch.times.tolist()
                    revisions = (
                        await self._context.store.revisions(identity.id, times)
                        if identity.kind == "derived" and times
                        else {}
                    )
                except HsStreamError:
                    return
                rows = [
                    {
                        "time": format_time(time),
                        "value": shown(value, 400),
                        "revision": revisions.get(time, ""),
                        "why": explain_link(stream, time),
                    }
                    for time, value in reversed(list(batch))
                ]
                if rows != table.rows:
                    table.rows = rows

            async def export() -> None:
                low, high = chart.window
                budget = self._context.page
                batch = await self._engine.read(stream, low, high, limit=_EXPORT + 1, budget=budget)
                if is_full(batch, _EXPORT + 1, budget):
                    ui.notify(
                        f"More than {_EXPORT:,} instances, or large ones: export with hs-stream export, or zoom in",
                        type="warning",
                    )
                    return
                text = io.StringIO()
                writer = csv.writer(text)
                writer.writerow(["time", "value"])
                writer.writerows([format_time(time), json.dumps(encode(value))] for time, value in batch)
                ui.download.content(text.getvalue().encode(), f"{stream.name}.csv", "text/csv")

            with ui.row().classes("gap-2"):
                ui.button("Download CSV", icon="download", on_click=export).props("flat dense no-caps")
                ui.link("JSON", f"/api/streams/{quote(str(stream), safe='')}/instances?limit=1000&newest=true")
            ui.timer(0.3, draw, once=True)
            ui.timer(2.0, draw)

    def _provenance(self, status: StreamStatus) -> None:
        with section("Where it comes from"):
            workflow = next((item for item in self._context.workflows if item.name == status.workflow), None)
            if workflow is None or (status.node not in workflow.nodes and status.node not in workflow.sources):
                empty("Not in a running workflow.")
                return
            if status.node in workflow.nodes:
                node = workflow.nodes[status.node]
                parameters = {key: value for key, value in _safe_parameters(node.tool).items() if value is not None}
                ui.label(f"{node.tool.pin} {json.dumps(parameters, ensure_ascii=False) if parameters else ''}")
                _nodes("from", node.inputs)
                if node.over:
                    ui.label(f"over {', '.join(node.over)}").classes("text-sm")
            else:
                options = {key: value for key, value in workflow.sources[status.node].options.items() if key != "codec"}
                ui.label(shown(encode(options), 300)).classes("text-sm break-all")
            _nodes("used by", [name for name in workflow.order if status.node in workflow.nodes[name].inputs])

    async def _history(self, node: str) -> None:
        with section(f"What computed {node} last"):
            entries = await self._context.store.history(8, node)
            if not entries:
                ui.label("Nothing is recorded yet.").classes("text-sm opacity-70")
            for entry in entries:
                with ui.row().classes("items-baseline gap-2 text-sm"):
                    ui.label(format_time(entry.time)).classes("opacity-70")
                    ui.badge(entry.cause).props("outline color=secondary")
                    ui.label(f"{entry.instances:,} instances, {entry.changed:,} changed")

    # --- side by side ---

    async def compare(self, node: str = "", show: str = "") -> None:
        """The streams of one node next to each other: a view is its address, and can be kept under a name."""
        names = sorted({status.stream.name for status in self._engine.status()})
        with frame("Compare", "/compare"):
            with ui.row().classes("w-full items-center gap-2"):
                ui.select(
                    names,
                    label="Node or source",
                    value=node if node in names else None,
                    with_input=True,
                    on_change=lambda event: ui.navigate.to(f"/compare?{urlencode({'node': event.value})}"),
                ).props("dense outlined options-dense").classes("grow")
                label = ui.input("Save this view as").props("dense outlined")
                ui.button(
                    "Save",
                    on_click=lambda: ui.run_javascript(
                        "const views=JSON.parse(localStorage.getItem('hs-views')||'{}');"
                        f"views[{json.dumps(label.value or node)}]=location.pathname+location.search;"
                        "localStorage.setItem('hs-views',JSON.stringify(views));location.reload();"
                    ),
                ).props("no-caps flat")
            saved = ui.row().classes("gap-2")
            ui.timer(0.1, lambda: self._saved_views(saved), once=True)
            if not node:
                empty("Choose a node.", "Its streams are drawn next to each other, one for each plate value.")
                return
            found = self._engine.status(node)
            if not found:
                why = self._why_nothing(node) or "Streams appear with the first reading that belongs to them."
                empty(f"{node} has no stream yet.", why)
                return
            every = [str(status.stream) for status in found]
            chosen = [name for name in show.split(";") if name in every] or every[:_CHARTS]
            ui.select(
                every,
                multiple=True,
                value=chosen,
                label=f"Streams (at most {_CHARTS})",
                on_change=lambda event: ui.navigate.to(
                    f"/compare?{urlencode({'node': node, 'show': ';'.join(event.value[:_CHARTS])})}"
                ),
            ).props("dense outlined options-dense use-chips").classes("w-full")
            field = await self._field_of(StreamId.parse(chosen[0]))
            with ui.element("div").classes("grid grid-cols-1 md:grid-cols-2 gap-4 w-full"):
                for name in chosen:
                    with section(""):
                        ui.link(name, stream_link(StreamId.parse(name))).classes("font-medium")
                        LiveChart(self._context, [StreamId.parse(name)], field=field, height="15rem")

    async def _field_of(self, stream: StreamId) -> str | None:
        batch = await self._read_newest(stream)
        values = [value for _, value in batch]
        if any(number_at(value, None) is not None for value in values):
            return None
        return next(iter(numeric_fields(values)), None)

    @staticmethod
    async def _saved_views(row: ui.row) -> None:
        try:
            views = await ui.run_javascript("JSON.parse(localStorage.getItem('hs-views')||'{}')", timeout=5.0)
        except TimeoutError:
            return
        with row:
            for name, path in list((views or {}).items())[:20]:
                if isinstance(path, str) and path.startswith("/compare"):
                    ui.link(str(name), path)


def _nodes(word: str, names: Any) -> None:
    with ui.row().classes("items-center gap-2 text-sm"):
        ui.label(word).classes("opacity-70")
        for name in names:
            ui.link(name, f"/streams?{urlencode({'node': name})}")
        if not names:
            ui.label("nothing")


def _safe_parameters(tool: Any) -> dict[str, Any]:
    try:
        return dict(tool.parameters())
    except HsStreamError:
        return {}


def _ms(text: str, otherwise: int) -> int:
    return otherwise if text.endswith("inf") else parse_time(text, now=0)


def _bar(pieces: Any, low: int, high: int) -> str:
    width = max(high - low, 1)
    parts = []
    for state, start, end in pieces:
        first, last = max(start, low), min(end, high)
        if last > first:
            parts.append((state, 100 * (last - first) / width, f"{state}: {format_time(first)} to {format_time(last)}"))
    return coverage_bar(parts)
