"""A workflow's factor graph as JSON, Mermaid and DOT: sources and nodes are vertices, inputs are edges."""

from __future__ import annotations

from typing import Any

from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.service.json_documents import meaning_json
from hs_stream.service.workflows.document import plate_document

__all__ = ["dot", "graph_json", "mermaid"]


def graph_json(workflow: WorkflowDefinition) -> dict[str, Any]:
    """``{workflow, plates, nodes, edges}``; nodes in topological order, ``slot`` of an edge is the input's position.

    ``meaning`` is what is known of a node's values: ``{kind, unit, fields}``, each only where it is.
    """
    nodes: list[dict[str, Any]] = [
        {"id": source.name, "kind": "source", "plates": list(workflow.node_plates[source.name])}
        | {"options": dict(source.options), "meaning": meaning_json(workflow.meanings[source.name])}
        for source in workflow.sources.values()
    ]
    edges = []
    for name in workflow.order:
        node = workflow.nodes[name]
        nodes.append(
            {
                "id": name,
                "kind": "node",
                "plates": list(workflow.node_plates[name]),
                "tool": node.tool.name,
                "version": node.tool.version,
                "parameters": node.tool.parameters(),
                "over": list(node.over),
                "on": list(node.on),
                "into": node.into,
                "published": node.publish is not None,
                "meaning": meaning_json(workflow.meanings[name]),
            }
        )
        edges += [{"from": other, "to": name, "slot": slot} for slot, other in enumerate(node.inputs)]
    return {
        "workflow": workflow.name,
        "description": workflow.description,
        "online": workflow.online,
        "plates": [
            {"name": plate.name, "parent": plate.parent, **plate_document(plate)} for plate in workflow.plates.values()
        ],
        "nodes": nodes,
        "edges": edges,
    }


def mermaid(workflow: WorkflowDefinition) -> str:
    """A ``flowchart LR``; sources are rounded, published nodes have a double border."""
    graph = graph_json(workflow)
    keys = {node["id"]: f"n{index}" for index, node in enumerate(graph["nodes"])}
    lines = ["flowchart LR"]
    for node in graph["nodes"]:
        label = "<br/>".join(_mermaid_text(line) for line in _label(node))
        left, right = ("([", "])") if node["kind"] == "source" else ("[[", "]]") if node["published"] else ("[", "]")
        lines.append(f'    {keys[node["id"]]}{left}"{label}"{right}')
    lines += [f"    {keys[edge['from']]} --> {keys[edge['to']]}" for edge in graph["edges"]]
    return "\n".join(lines) + "\n"


def dot(workflow: WorkflowDefinition) -> str:
    """A Graphviz ``digraph``; sources are ellipses, published nodes have a double border."""
    graph = graph_json(workflow)
    lines = [f"digraph {_quoted(workflow.name)} {{", "    rankdir=LR;", "    node [shape=box];"]
    for node in graph["nodes"]:
        shape = "shape=ellipse" if node["kind"] == "source" else f"peripheries={2 if node['published'] else 1}"
        label = "\\n".join(_quoted(line)[1:-1] for line in _label(node))
        lines.append(f'    {_quoted(node["id"])} [label="{label}", {shape}];')
    lines += [f"    {_quoted(edge['from'])} -> {_quoted(edge['to'])};" for edge in graph["edges"]]
    return "\n".join([*lines, "}"]) + "\n"


def _label(node: dict[str, Any]) -> list[str]:
    lines = [str(node["id"])]
    if node["kind"] == "node":
        lines.append(f"{node['tool']}@{node['version']}")
    if node["plates"]:
        lines.append(f"per {', '.join(node['plates'])}")
    return lines


def _mermaid_text(text: str) -> str:
    return "".join(char if char.isalnum() or char in " _-.,:@/" else f"#{ord(char)};" for char in text)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
