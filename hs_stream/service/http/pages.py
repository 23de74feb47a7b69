"""Two plain HTML pages, without scripts and without another host: the overview at ``/`` and ``/docs``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

__all__ = ["computed", "docs_page", "overview_page"]

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:64rem;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;width:100%;margin:.5rem 0 1.5rem}"
    "th,td{text-align:left;padding:.25rem .75rem .25rem 0;border-bottom:1px solid #ddd;vertical-align:top}"
    "code{background:#f2f2f2;padding:0 .25rem}.bad{color:#b00}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}code{background:#2a2a2a}"
    "th,td{border-color:#333}a{color:#8bf}.bad{color:#f77}}"
)


def _page(title: str, body: str, refresh: int | None = None) -> str:
    again = f'<meta http-equiv="refresh" content="{refresh}">' if refresh else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width">{again}<title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{body}</body></html>"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """``rows`` hold HTML."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def computed(online: bool, requested: bool) -> str:
    """When a workflow is computed, in words."""
    words = ["online"] * online + ["in requested intervals"] * requested
    return " and ".join(words) or "on request"


def overview_page(
    version: str, ready: dict[str, Any], figures: dict[str, Any], workflows: Sequence[dict[str, Any]]
) -> str:
    """The overview. It is a status page, not the viewer: it draws no streams."""
    parts = [
        (
            escape(name),
            "ok" if part["ok"] else f'<span class="bad">{escape(str(part.get("error", "not ok")))}</span>',
        )
        for name, part in ready["parts"].items()
    ]
    parts += [
        (escape(one["what"]), f'<span class="bad">{escape(one["error"])}</span>') for one in ready.get("degraded", ())
    ]
    rows = [
        (
            f'<a href="/api/workflows/{escape(item["name"])}/graph">{escape(item["name"])}</a>',
            escape(item["description"] or ""),
            escape(item["from"]),
            computed(item["online"], bool(item["requested_intervals"])),
            str(len(item["sources"])),
            str(len(item["nodes"])),
            str(item["streams"]),
            "-" if item["lag_seconds"] is None else f"{item['lag_seconds']:.1f} s",
        )
        for item in workflows
    ]
    links = " &middot; ".join(
        f'<a href="{path}">{path}</a>'
        for path in (
            "/docs",
            "/api/streams",
            "/api/tools",
            "/api/plates",
            "/api/sessions",
            "/api/deadletters",
            "/api/failed",
            "/metrics",
        )
    )
    body = (
        f"<h1>hs-stream {escape(version)}</h1>"
        "<p>A status page, made by the server and loaded again every 5 seconds. It draws no streams: "
        f"query them through the API or <code>hs-stream query</code>.</p><p>{links}</p>"
        f"<h2>{'Ready' if ready['ready'] else 'Not ready'}</h2>{_table(('part', 'state'), parts)}"
        "<h2>Since the workflows were loaded</h2>"
        + _table(("figure", "value"), [(escape(name), escape(f"{value}")) for name, value in figures.items()])
        + "<h2>Workflows</h2>"
        + _table(("workflow", "description", "from", "computed", "sources", "nodes", "streams", "lag"), rows)
    )
    return _page("hs-stream", body, refresh=5)


def _text(markdown: str) -> str:
    """One paragraph as HTML: its `code`, and the rest as it is."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(markdown))


def docs_page(openapi: dict[str, Any]) -> str:
    """The paths of ``openapi`` with their parameters."""
    sections = []
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            rows = [
                (
                    f"<code>{escape(parameter['name'])}</code>",
                    escape(parameter["in"]),
                    _text(parameter.get("description", "")),
                )
                for parameter in operation.get("parameters", [])
            ]
            text = "".join(f"<p>{_text(part)}</p>" for part in operation.get("description", "").split("\n\n") if part)
            table = _table(("parameter", "in", "meaning"), rows) if rows else ""
            sections.append(f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2>{text}{table}")
    info = openapi["info"]
    body = (
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{_text(info.get('description', ''))}</p>"
        f'<p><a href="/openapi.json">openapi.json</a></p>{"".join(sections)}'
    )
    return _page(f"{info['title']}: HTTP API", body)
