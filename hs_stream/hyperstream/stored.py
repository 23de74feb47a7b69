"""Workflows in the store: what a catalog knows is written there, and known again in the next session."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.registry import ToolRegistry
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.hyperstream.catalog import NotebookCatalog, executed
from hs_stream.service.workflows.document import to_document
from hs_stream.service.workflows.file import from_document

__all__ = ["Unloaded", "documents", "load"]


@dataclass(frozen=True, slots=True)
class Unloaded:
    """A stored workflow that is not known, why, and which streams it would read."""

    reason: str
    reads: frozenset[str]


def documents(catalog: NotebookCatalog, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What is stored of the workflows ``names``. One with a lambda in it runs, and is not stored."""
    result = {}
    for name in names:
        try:
            workflow = catalog.workflows.get(name)
            if workflow is not None:
                document = {"path": workflow.path, "definition": to_document(workflow, resolved=True)}
            else:
                sink = name.removeprefix(executed(""))
                made = to_document(catalog.factor_workflow(sink), resolved=True)
                document = {"path": "", "definition": made, "sink": sink}
        except ConfigurationError:
            continue
        result[name] = document
    return result


def load(
    catalog: NotebookCatalog, found: Mapping[str, Mapping[str, Any]], registry: ToolRegistry
) -> tuple[NotebookCatalog, dict[str, Unloaded]]:
    """The catalog with those of the stored workflows ``found`` that it does not contradict; and the others."""
    unloaded: dict[str, Unloaded] = {}
    loaded: list[tuple[str | None, WorkflowDefinition]] = []
    for name, document in found.items():
        if name in catalog.workflows:
            continue
        try:
            definition = from_document(document["definition"], registry, f"workflow {name} in the store")
        except ConfigurationError as error:
            unloaded[name] = Unloaded(str(error), frozenset(document["definition"].get("sources", ())))
        else:
            loaded.append((document.get("sink"), definition))
    # What was executed comes after what it reads, and that is fewer nodes.
    loaded.sort(key=lambda item: (item[0] is not None, len(item[1].nodes), item[1].name))
    for sink, definition in loaded:
        try:
            catalog = catalog.with_workflow(definition) if sink is None else _with_sink(catalog, definition, sink)
        except ConfigurationError as error:
            unloaded[definition.name] = Unloaded(str(error), frozenset(definition.sources))
    return catalog, unloaded


def _with_sink(catalog: NotebookCatalog, definition: WorkflowDefinition, sink: str) -> NotebookCatalog:
    node = definition.nodes[sink]
    return catalog.with_factor(node, [item for item in definition.sources.values() if item.name in node.inputs])
