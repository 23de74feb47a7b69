"""Explanations of a value (`hs_stream.engine.explain`) as JSON and as text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from hs_stream.core.errors import NotFound
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME, format_duration, format_time
from hs_stream.core.value import Value
from hs_stream.core.visible import visible_json
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.explain import Explanation, Level, Limits, explain
from hs_stream.engine.graph import Graph
from hs_stream.engine.growth import regrow
from hs_stream.engine.ports import Store
from hs_stream.service.json_values import encode, intervals

__all__ = ["explain_stored", "explanation_json", "explanation_text"]

_LONGEST: Final = 1_000
"""Bytes of a value, as JSON, that are shown."""
_MOST_READS: Final = 20
_NOT_KEPT: Final = "when a reading arrived, in which message, and what it replaced"


async def explain_stored(
    store: Store, workflows: Sequence[WorkflowDefinition], stream: StreamId, time: int | None, limits: Limits
) -> Explanation:
    """`hs_stream.engine.explain.explain` of what ``store`` has, without an engine. `NotFound`."""
    graph = Graph(await store.streams())
    for workflow in workflows:
        graph.add_workflow(workflow)
    await regrow(graph, store)
    record = graph.records.get(stream)
    if stream not in graph.streams and record is not None:
        if record.kind == "derived":
            raise NotFound(
                f"no workflow computes {stream} any more",
                hint=f"give these settings the workflow {record.workflow} that did, or ask hs-stream query",
            )
        graph.adopt(stream)
    found = graph.find(stream)
    return await explain(graph, store, found, time, found.covered_of(found.state, MIN_TIME), limits)


# --- as JSON ---


def explanation_json(found: Explanation, workflows: Sequence[WorkflowDefinition]) -> dict[str, Any]:
    """``levels`` are the stream itself and what it rests on; of `docs/guides/http-api.md`."""
    target = found.levels[0]
    [(time, value)] = target.first
    sources = {name: source.options for workflow in workflows for name, source in workflow.sources.items()}
    return {
        "stream": str(target.stream),
        **_row(time, value, target.revisions),
        "state": found.state,
        "levels": [_level(level, sources) for level in found.levels],
        "left_off": found.left_off,
        "changes": [_changes(level) for level in found.levels if level.record.kind == "raw"],
        "joins": [str(level.stream) for level in found.levels if level.aggregate],
        "not_kept": _NOT_KEPT,
    }


def _level(level: Level, sources: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    record, tool = level.record, level.record.tool
    document: dict[str, Any] = {
        "stream": str(level.stream),
        "id": record.id,
        "kind": record.kind,
        "depth": level.depth,
        "spans": intervals(level.spans),
        "instances": level.count,
        "more": level.more,
        "first": [_row(time, value, level.revisions) for time, value in level.first],
        "last": [_row(time, value, level.revisions) for time, value in level.last],
        "forgotten": None if record.floor is None else format_time(record.floor),
    }
    if record.kind == "raw":
        return document | {"source": _source(level.stream, sources)}
    reads = [{"stream": str(stream), "support": support} for stream, support in level.reads[:_MOST_READS]]
    assert tool is not None
    return document | {
        "workflow": record.workflow,
        "tool": {"name": tool.name, "version": tool.version, "parameters": dict(tool.parameters)},
        "reads": reads,
        "reads_more": len(level.reads) - len(reads),
    }


def _row(time: int, value: Value, revisions: Mapping[int, int]) -> dict[str, Any]:
    row: dict[str, Any] = {"time": format_time(time)}
    encoded = encode(value)
    text = orjson.dumps(encoded)
    if len(text) <= _LONGEST:
        row["value"] = encoded
    else:
        row |= {"begins": text[: _LONGEST // 4].decode(errors="replace"), "bytes": len(text)}
    return row | ({"revision": revisions[time]} if time in revisions else {})


def _source(stream: StreamId, sources: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the workflow says of where its readings come from, the topic with the plate values in their places."""
    found = {key: value for key, value in sources.get(stream.name, {}).items() if key in ("mqtt", "csv", "codec")}
    meta = dict(stream.meta)
    return {
        key: re.sub(r"\{(\w+)#?\}", lambda match: meta.get(match[1], match[0]), value)
        if isinstance(value, str)
        else value
        for key, value in found.items()
    }


def _changes(level: Level) -> dict[str, Any]:
    final = level.spans - level.changes
    return {
        "stream": str(level.stream),
        "spans": intervals(level.changes),
        "final": intervals(final) if final else [],
        "retention": None if level.retention is None else format_duration(level.retention),
    }


# --- as text ---


def explanation_text(document: Mapping[str, Any]) -> str:
    """`explanation_json` for people."""
    return "\n".join(_lines(document))


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    shown = _value(document)
    yield f"{document['stream']} at {document['time']} is {shown}{_revision(document)}"
    if document["state"] == "stale":
        yield "  not sure any more: something before it has changed, and it is not computed again yet"
    for index, level in enumerate(document["levels"]):
        if index:
            yield ""
            yield f"{level['stream']}: {_count(level)} {_spans(level['spans'])}"
            yield from _rows(level)
        yield from _origin(level)
    if document["left_off"]:
        yield ""
        yield f"{document['left_off']} more streams are left off"
    yield ""
    yield "What would change it:"
    for one in document["changes"]:
        if one["spans"]:
            until = f", until it is final by the retention of {one['retention']}" if one["retention"] else ""
            yield f"  a reading of {one['stream']} {_spans(one['spans'])}{until}"
        else:
            yield f"  no reading of {one['stream']}: it is final by retention"
    for one in document["joins"]:
        yield f"  one more stream that {one} is over"
    yield "  another tool version, parameter or input of a node above"
    yield f"Not kept: {document['not_kept']}."


def _value(row: Mapping[str, Any]) -> str:
    if "value" not in row:
        return f"{row['begins']}... ({row['bytes']} bytes)"
    return visible_json(orjson.dumps(row["value"]).decode())


def _revision(row: Mapping[str, Any]) -> str:
    return f" (revision {row['revision']})" if "revision" in row else ""


def _count(level: Mapping[str, Any]) -> str:
    what = "reading" if level["kind"] == "raw" else "value"
    count = f"{level['instances']} or more" if level["more"] else str(level["instances"])
    return f"{count} {what}{'' if count == '1' else 's'}"


def _rows(level: Mapping[str, Any]) -> Iterator[str]:
    for part in ("first", "last"):
        if part == "last" and level["last"]:
            yield "  ..."
        for row in level[part]:
            yield f"  {row['time']}  {_value(row)}{_revision(row)}"


def _origin(level: Mapping[str, Any]) -> Iterator[str]:
    if level["forgotten"] is not None:
        yield f"  what lies up to {level['forgotten']} is forgotten"
    if level["kind"] == "raw":
        source = ", ".join(f"{key} {value}" for key, value in level["source"].items())
        yield f"  raw, from {source}" if source else "  raw"
        return
    tool = level["tool"]
    given = ", ".join(
        f"{name}: {_parameter(value)}" for name, value in tool["parameters"].items() if value not in (None, [])
    )
    yield f"  by {tool['name']}@{tool['version']} of workflow {level['workflow']}{': ' if given else ''}{given}"
    if level["reads"]:
        reads = ", ".join(f"{one['stream']} ({one['support']})" for one in level["reads"])
        more = f" and {level['reads_more']} more" if level["reads_more"] else ""
        yield f"  reads {reads}{more}"


def _parameter(value: Any) -> str:
    return value if isinstance(value, str) else visible_json(orjson.dumps(value, default=str).decode())


def _spans(spans: Sequence[Sequence[str]]) -> str:
    return " and ".join(map(_span, spans))


def _span(span: Sequence[str]) -> str:
    start, end = span
    if start == format_time(MIN_TIME):
        return "at any time" if end == format_time(MAX_TIME) else f"up to {end}"
    return f"after {start}" if end == format_time(MAX_TIME) else f"in ({start}, {end}]"
