"""A live chart of one or several streams: loads a window once, then sends what is new; zooming loads finer points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from nicegui import background_tasks, events, ui

from hs_stream.core.errors import HsStreamError, NotFound
from hs_stream.core.size import PAGE
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MIN_TIME
from hs_stream.viewer.pages import Pages
from hs_stream.viewer.series import Series, number_at, read_series

if TYPE_CHECKING:
    from hs_stream.service.http.context import ApiContext

__all__ = ["RANGES", "LiveChart"]

RANGES: Final = {"5 min": 300_000, "1 h": 3_600_000, "24 h": 86_400_000, "7 d": 604_800_000, "All": 0}
_TICK: Final = 1.0
_MOST_NEW: Final = 500
_REVISED: Final = 200
_COLOURS: Final = ("#3b82c4", "#d9822b", "#2e9e6b", "#b3478f", "#7a6bd1", "#c2453d", "#5f8a8b", "#8a6d3b")


class LiveChart(Pages):
    """``streams`` in one chart. Builds its elements where it is made; ``names`` are the legend."""

    def __init__(
        self,
        context: ApiContext,
        streams: Sequence[StreamId],
        *,
        names: Sequence[str] = (),
        field: str | None = None,
        stepped: bool = False,
        height: str = "22rem",
        on_window: Callable[[int, int], Any] | None = None,
    ) -> None:
        super().__init__(context)
        self._streams = list(streams)
        self._names = list(names or map(str, streams))
        self.field = field
        self._stepped = stepped
        self._on_window = on_window
        self._span = RANGES["1 h"]
        self._fixed: tuple[int, int] | None = None
        self._units = [""] * len(self._streams)
        self._known_changes = [-1] * len(self._streams)
        self._last = [MIN_TIME] * len(self._streams)
        self._sent = 0
        self._empty = True
        self._loading = 0
        self.window = (0, 0)
        with ui.row().classes("w-full items-center gap-1"):
            self._choice = ui.toggle(list(RANGES), value="1 h", on_change=self._chosen).props("dense no-caps size=sm")
            ui.space()
            for icon, label, call in (
                ("chevron_left", "Earlier", lambda: self._move(-0.5)),
                ("chevron_right", "Later", lambda: self._move(0.5)),
                ("zoom_in", "Zoom in", lambda: self._scale(0.5)),
                ("zoom_out", "Zoom out", lambda: self._scale(2.0)),
            ):
                ui.button(icon=icon, on_click=call).props(f'flat dense round size=sm aria-label="{label}"')
            self._live = ui.button("Live", icon="play_arrow", on_click=self._go_live).props(
                "dense no-caps size=sm flat"
            )
        self._plot = ui.echart(self._options()).classes("w-full").style(f"height:{height}")
        self._plot.on("chart:datazoom", self._zoomed, ["start", "end", "batch"], throttle=0.3, leading_events=False)
        self._note = ui.label("").classes("text-xs opacity-70")
        # Not when the browser has connected: reading takes no longer than that does.
        background_tasks.create(self.load(), name=f"chart of {self._names}", context=ui.context.slot)
        ui.timer(_TICK, self._tick)

    def _options(self) -> dict[str, Any]:
        lines: list[dict[str, Any]] = [
            {
                "type": "line",
                "name": name,
                "data": [],
                "showSymbol": False,
                "step": "end" if self._stepped else False,
                "lineStyle": {"width": 1.6},
                "emphasis": {"disabled": True},
                "animation": False,
            }
            for name in self._names
        ]
        revised = {
            "type": "scatter",
            "name": "revised",
            "data": [],
            "symbol": "diamond",
            "symbolSize": 8,
            "itemStyle": {"color": "#d23f4b"},
            "animation": False,
        }
        return {
            "animation": False,
            "useUTC": True,
            "color": list(_COLOURS),
            "grid": {"left": 8, "right": 16, "top": 34, "bottom": 46, "containLabel": True},
            "legend": {"top": 0, "type": "scroll", "textStyle": {"color": "#888"}, "show": len(self._names) > 1},
            "tooltip": {"trigger": "axis", "confine": True},
            "xAxis": {"type": "time", "axisLabel": {"color": "#888", "hideOverlap": True}},
            "yAxis": {
                "type": "value",
                "nameLocation": "end",
                "nameTextStyle": {"color": "#888"},
                "scale": True,
                "axisLabel": {"color": "#888"},
                "splitLine": {"lineStyle": {"color": "rgba(128,128,128,.18)"}},
            },
            "dataZoom": [
                {"type": "inside", "filterMode": "none"},
                {"type": "slider", "height": 18, "bottom": 8, "filterMode": "none", "showDataShadow": False},
            ],
            "series": [*lines, revised],
        }

    # --- what is shown ---

    async def _chosen(self, event: events.ValueChangeEventArguments[Any]) -> None:
        if event.value in RANGES:
            self._span, self._fixed = RANGES[event.value], None
            await self.load()

    async def _go_live(self) -> None:
        self._fixed = None
        await self.load()

    async def _move(self, share: float) -> None:
        low, high = self.window
        step = round((high - low) * share)
        await self._fix(low + step, high + step)

    async def _scale(self, factor: float) -> None:
        low, high = self.window
        middle, half = (low + high) / 2, (high - low) * factor / 2
        await self._fix(round(middle - half), round(middle + half))

    async def _zoomed(self, event: events.GenericEventArguments) -> None:
        found = event.args
        part = (found.get("batch") or [found])[0]
        first, last = part.get("start"), part.get("end")
        if first is None or last is None or last - first > 99.5:
            return
        low, high = self.window
        width = high - low
        await self._fix(low + round(width * first / 100), low + round(width * last / 100))

    async def _fix(self, low: int, high: int) -> None:
        self._fixed = (low, max(high, low + 1000))
        self._choice.value = None
        await self.load()

    async def _range(self) -> tuple[int, int]:
        now = self._clock.now()
        if self._fixed is not None:
            return self._fixed
        if self._span:
            return now - self._span, now
        firsts = [await self._engine.read(stream, MIN_TIME, now, limit=1) for stream in self._streams]
        return min((found.first_time for found in firsts if found), default=now - 60_000) - 1, now

    async def load(self) -> None:
        """Read and draw the whole window."""
        self._loading += 1
        try:
            await self._load()
        except HsStreamError as error:
            self._note.text = f"cannot be read: {error.message}"
        finally:
            self._loading -= 1

    async def _load(self) -> None:
        low, high = self.window = await self._range()
        loaded = [await self._one(at, low, high) for at in range(len(self._streams))]
        revised = await self._revised(loaded)
        if self._plot.is_deleted:
            return
        options = self._plot.options  # what is changed in it is sent at the next await
        for at, series in enumerate(loaded):
            options["series"][at]["data"] = series.points
        options["series"][-1]["data"] = revised
        options["legend"]["show"] = len(self._names) > 1 or bool(revised)
        one = len(set(self._units)) == 1
        options["yAxis"]["name"] = self._units[0] if one else ""
        for at, unit in enumerate(self._units):
            options["series"][at]["name"] = self._names[at] if one or not unit else f"{self._names[at]} ({unit})"
        options["xAxis"].update(min=low, max=high)
        for zoom in options["dataZoom"]:
            zoom.update(start=0, end=100)
        self._plot.update()
        self._sent = 0
        self._empty = not any(series.points for series in loaded)
        self._note.text = self._told(loaded)
        self._live.set_visibility(self._fixed is not None)
        if self._on_window is not None:
            found = self._on_window(low, high)
            if found is not None:
                await found

    async def _one(self, at: int, low: int, high: int) -> Series:
        status = self._engine.find(self._streams[at])
        meaning = status.meaning if self.field is None else status.meaning.field(self.field)
        self._units[at] = meaning.unit or ""
        series = await read_series(self._engine, self._streams[at], low, high, self.field)
        self._known_changes[at] = status.changes_before_newest
        self._last[at] = max(series.last_time or MIN_TIME, low)
        return series

    async def _revised(self, loaded: Sequence[Series]) -> list[list[float | int | None]]:
        if len(loaded) != 1 or loaded[0].kind != "exact":
            return []
        status = self._engine.find(self._streams[0])
        if status.kind != "derived":
            return []
        times = [int(point[0] or 0) for point in loaded[0].points]
        found = await self._engine.store.revisions(status.id, times) if times else {}
        return [point for point in loaded[0].points if point[0] in found][-_REVISED:]

    def _told(self, loaded: Sequence[Series]) -> str:
        if all(not series.points for series in loaded):
            return "No instance in this window."
        if not any(series.numeric for series in loaded):
            return "These values are no numbers: they are in the table below."
        kinds = {series.kind for series in loaded}
        count = sum(series.read for series in loaded)
        if "sampled" in kinds:
            return f"Too many instances to draw each: {count:,} of them sampled. Zoom in for all."
        if "thinned" in kinds:
            return f"{count:,} instances, thinned out without losing extremes. Zoom in for all."
        return f"{count:,} instances, each drawn."

    # --- live ---

    async def _tick(self) -> None:
        if self._loading:
            return
        try:
            states = [self._engine.find(stream) for stream in self._streams]
            changes = [state.changes_before_newest for state in states]
            began = self._empty and not self._span and any(state.newest is not None for state in states)
            if changes != self._known_changes or (began and self._fixed is None):
                await self.load()
                return
            if self._fixed is None:
                await self._append([state.newest for state in states])
        except NotFound:
            self._note.text = "This stream is gone."
        except HsStreamError as error:
            self._note.text = f"cannot be read: {error.message}"

    async def _append(self, newest: Sequence[int | None]) -> None:
        low, high = await self._range() if self._span else (self.window[0], self._clock.now())
        added = []
        for at, last in enumerate(newest):
            points = []
            if last is not None and last > self._last[at]:
                batch = await self._engine.read(self._streams[at], self._last[at], high, limit=_MOST_NEW, budget=PAGE)
                points = [[time, number_at(value, self.field)] for time, value in batch]
                if batch:
                    self._last[at] = batch.last_time
            added.append(points)
        self.window = (low, high)
        self._sent += sum(map(len, added))
        if self._sent > 2 * _MOST_NEW:
            await self.load()
            return
        ui.run_javascript(f"hsAppend({self._plot.id}, {added!r}, {low}, {high})".replace("None", "null"))
