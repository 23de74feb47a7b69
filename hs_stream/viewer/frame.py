"""What every page has: header, navigation, colours, and how it says that there is nothing or that something failed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from nicegui import ui

__all__ = ["NAVIGATION", "STATES", "coverage_bar", "empty", "frame", "section", "verbatim"]

NAVIGATION: Final = (
    ("Overview", "/", "dashboard"),
    ("Streams", "/streams", "timeline"),
    ("Compare", "/compare", "stacked_line_chart"),
    ("Workflows", "/workflows", "account_tree"),
    ("Plates", "/plates", "layers"),
    ("Tools", "/tools", "build"),
    ("Sessions", "/sessions", "history"),
    ("Dead letters", "/dead-letters", "mark_email_unread"),
)
STATES: Final = {
    "computed": "computed",
    "computed-empty": "computed: no instance",
    "stale": "stale: will be computed again",
    "failed": "failed: the tool raised",
    "not-computed": "not computed",
}
_STYLE: Final = """
:root { --ok:#2e9e6b; --none:#b9dccb; --stale:#e0a526; --failed:#d23f4b; --nothing:#c9ccd3; --line:#00000018; }
.body--dark { --none:#2f5d49; --nothing:#454a55; --line:#ffffff20; }
body { font-variant-numeric: tabular-nums; }
.cov { display:flex; height:12px; width:100%; min-width:90px; border-radius:3px; overflow:hidden;
  background:var(--nothing); }
.cov i { display:block; height:100%; min-width:1px; }
.cov .computed { background:var(--ok); } .cov .computed-empty { background:var(--none); }
.cov .stale { background:var(--stale); } .cov .failed { background:var(--failed); }
.cov .not-computed { background:var(--nothing); }
.hs-card { border:1px solid var(--line); border-radius:10px; box-shadow:none; }
.hs-page { max-width: 1280px; margin: 0 auto; width: 100%; }
.hs-num { font-size:1.6rem; line-height:1.1; font-weight:600; }
.q-table tbody td { white-space: normal; overflow-wrap: anywhere; }
.hs-whole.q-table__card tbody td { white-space: nowrap; }
.body--dark .text-primary, .body--dark a.nicegui-link { color:#79b3ec !important; }
:focus-visible { outline: 2px solid var(--q-primary); outline-offset: 2px; }
"""
_HEAD: Final = """
<script>
window.hsTheme = (mode) => { localStorage.setItem('hs-theme', mode); };
window.hsAppend = (id, added, low, high) => {
  const chart = getElement(id)?.chart;
  if (!chart) return;
  const series = chart.getOption().series;
  added.forEach((points, at) => {
    if (points.length) series[at].data = series[at].data.concat(points);
    series[at].data = series[at].data.filter((point) => point[0] >= low);
  });
  chart.setOption({ xAxis: { min: low, max: high }, series: series.map((one) => ({ data: one.data })) });
};
</script>
"""


@contextmanager
def frame(title: str, here: str = "") -> Iterator[None]:
    """A page: ``title`` in the tab and at the top; ``here`` is the path that the navigation marks."""
    ui.page_title(f"{title} - hs-stream")
    ui.colors(primary="#2f6fb2", secondary="#5b6b7f", accent="#2e9e6b", dark_page="#14171c", dark="#1b1f26")
    ui.add_css(_STYLE)
    ui.add_head_html(_HEAD)
    dark = ui.dark_mode(None)
    # Without a value NiceGUI asks the browser for it, and logs a traceback when that takes longer than a second.
    with ui.left_drawer(value=False, bordered=True).props("breakpoint=900 width=200 show-if-above") as drawer:
        with ui.element("nav").props('aria-label="Pages"').classes("w-full"), ui.list().classes("w-full"):
            for name, path, icon in NAVIGATION:
                active = " active" if path == here else ""
                with ui.item(on_click=lambda path=path: ui.navigate.to(path)).props(
                    f'clickable{active} tag=a href="{path}" dense'
                ):
                    with ui.item_section().props("avatar").classes("min-w-0 pr-3"):
                        ui.icon(icon)
                    with ui.item_section():
                        ui.item_label(name)
        ui.link("HTTP API", "/docs").classes("q-ma-md text-sm")
    with ui.header().classes("items-center justify-between py-1 px-3"):
        with ui.row().classes("items-center gap-2 no-wrap"):
            ui.button(icon="menu", on_click=drawer.toggle).props('flat round dense color=white aria-label="Menu"')
            ui.label("hs-stream").classes("text-lg font-medium")
        with ui.row().classes("items-center gap-1 no-wrap"):

            def turn(mode: bool | None) -> None:
                dark.value = mode
                ui.run_javascript(f"hsTheme({'null' if mode is None else str(mode).lower()})")

            for icon, mode, label in (("light_mode", False, "Light"), ("dark_mode", True, "Dark")):
                ui.button(icon=icon, on_click=lambda _, mode=mode: turn(mode)).props(
                    f'flat round dense color=white aria-label="{label}"'
                )
    ui.timer(0.05, lambda: _restore_theme(dark), once=True)
    with ui.column().classes("hs-page p-2 sm:p-4 gap-4"):
        ui.label(title).classes("text-2xl font-medium max-w-full").style("overflow-wrap: anywhere").props(
            "role=heading aria-level=1"
        )
        yield


async def _restore_theme(dark: ui.dark_mode) -> None:
    try:
        mode = await ui.run_javascript("localStorage.getItem('hs-theme')", timeout=5.0)
    except TimeoutError:
        return
    if mode in ("true", "false"):
        dark.value = mode == "true"


@contextmanager
def section(title: str) -> Iterator[ui.card]:
    """A titled part of a page."""
    with ui.card().classes("hs-card w-full gap-2") as card:
        if title:
            ui.label(title).classes("text-base font-medium").props("role=heading aria-level=2")
        yield card


def empty(text: str, hint: str = "") -> None:
    """Says that there is nothing, and what would change that."""
    with ui.column().classes("w-full items-center p-6 gap-1"):
        ui.label(text).classes("text-base")
        if hint:
            ui.label(hint).classes("text-sm opacity-70 text-center")


def verbatim(text: str) -> None:
    """``text`` as it is, line for line, whoever wrote it: never as Markdown or HTML."""
    ui.label(text).classes("w-full text-sm font-mono whitespace-pre-wrap").style("overflow-wrap: anywhere")


def coverage_bar(pieces: Sequence[tuple[str, float, str]]) -> str:
    """A bar as HTML: ``(state, percent, title)`` from left to right. All three are ours, none from a payload."""
    parts = "".join(
        f'<i class="{state}" style="width:{percent:.3f}%" title="{title}"></i>' for state, percent, title in pieces
    )
    return f'<div class="cov" role="img" aria-label="coverage">{parts}</div>'
