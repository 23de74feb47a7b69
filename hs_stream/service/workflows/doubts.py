"""Doubts about a workflow: of its graph (`hs_stream.core.doubts`), and of what it publishes."""

from __future__ import annotations

from collections.abc import Iterable

from hs_stream.core.doubts import doubts
from hs_stream.core.errors import ConfigurationError
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.service.connectors import Connectors
from hs_stream.service.settings import Settings
from hs_stream.service.sinks import Sinks

__all__ = ["doubts_about"]


def doubts_about(settings: Settings, workflows: Iterable[WorkflowDefinition]) -> list[ConfigurationError]:
    """What ``workflows``, which load, may say and their author hardly means; each with its place. Not raised."""
    connectors, sinks = Connectors(settings), Sinks(settings)
    found = []
    for workflow in workflows:
        try:
            facts = {name: connectors.facts(name, source.options) for name, source in workflow.sources.items()}
            found += doubts(workflow, facts)
        except Exception as error:  # noqa: BLE001 - of a tool of others: a workflow that loads is to run all the same
            text = f"its nodes were not looked at for doubts: {type(error).__name__}: {error}"
            found.append(
                workflow.error("nodes", text, "see keys_named, keys_made of its tools, facts of its connectors")
            )
        for node in workflow.nodes.values():
            for message, hint in sinks.doubts(node.publish or {}):
                found.append(workflow.error(f"publish.{node.name}", f"publish {node.name}: {message}", hint))
    return found
