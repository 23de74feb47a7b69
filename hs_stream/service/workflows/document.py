"""A workflow as a JSON-like document in the shape of its file."""

from __future__ import annotations

from typing import Any

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.plate import Plate
from hs_stream.core.time import format_duration, format_time
from hs_stream.core.workflow import NodeDefinition, SourceDefinition, WorkflowDefinition
from hs_stream.service.json_values import intervals

__all__ = ["plate_document", "to_document"]


def to_document(workflow: WorkflowDefinition, *, resolved: bool = False) -> dict[str, Any]:
    """The workflow as a JSON-like document in the shape of the file; ``resolved`` pins tools to exact versions.

    `ConfigurationError` for what has no text: a function without an import path.
    """
    document: dict[str, Any] = {"workflow": workflow.name}
    if workflow.description:
        document["description"] = workflow.description
    document["online"] = workflow.online
    if workflow.start is not None:
        document["start"] = format_time(workflow.start)
    if workflow.requested_intervals:
        document["requested_intervals"] = intervals(workflow.requested_intervals)
    document["plates"] = {plate.name: plate_document(plate) for plate in workflow.plates.values()}
    kept = {name: {"retention": format_duration(after)} for name, after in workflow.retention.items()}
    document["sources"] = {
        source.name: dict(source.options)
        | ({} if source.options else {"plates": list(source.plates)})
        | _source_meaning(source)
        | kept.get(source.name, {})
        for source in workflow.sources.values()
    }
    document["nodes"] = {}
    for name, node in workflow.nodes.items():
        try:
            document["nodes"][name] = _node_document(node, resolved) | kept.get(name, {})
        except ConfigurationError as error:
            raise workflow.error(f"nodes.{name}", f"node {name}: {error.message}", error.hint) from None
    document["publish"] = {
        node.name: dict(node.publish) for node in workflow.nodes.values() if node.publish is not None
    }
    return document


def plate_document(plate: Plate) -> dict[str, Any]:
    """The plate in the shape of the file."""
    document: dict[str, Any] = {"parent": plate.parent} if plate.parent else {}
    if plate.of is None:
        document["max"] = plate.max
    else:
        document["of"] = plate.of
    if plate.complement:
        document["complement"] = True
    if plate.source is not None:
        document["from"] = plate.source
    if plate.values:
        tied = any(len(meta) > 1 for meta in plate.values)
        document["values"] = [dict(meta) if tied else dict(meta)[plate.key] for meta in plate.values]
    return document


def _source_meaning(source: SourceDefinition) -> dict[str, Any]:
    document: dict[str, Any] = {**source.meaning.said()}
    if source.meaning.fields:
        named = source.options.get("fields") or source.meaning.fields
        document["fields"] = {key: source.meaning.field(key).said() for key in named}
    return document


def _node_document(node: NodeDefinition, resolved: bool) -> dict[str, Any]:
    exact = f"{node.tool.name}@=={node.tool.version}"
    document: dict[str, Any] = {"tool": exact if resolved else node.pin or exact}
    for key, values in (("from", node.inputs), ("over", node.over), ("on", node.on)):
        if values:
            document[key] = values[0] if len(values) == 1 else list(values)
    if node.into is not None:
        document["into"] = node.into
    if parameters := node.tool.parameters():
        document["with"] = parameters
    return document | node.meaning.said()
