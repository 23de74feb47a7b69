"""Which streams readings may be put into that no connector brings: over HTTP and by commands."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from hs_stream.core.errors import ConfigurationError, did_you_mean
from hs_stream.core.workflow import WorkflowDefinition

__all__ = ["check_target"]


def check_target(workflows: Iterable[WorkflowDefinition], name: str, plates: Collection[str], *, new: bool) -> bool:
    """Whether a workflow declares the source ``name``, which is on ``plates``.

    `ConfigurationError` for a node, for other plates, and for what nothing declares unless ``new``.
    """
    sources: list[str] = []
    for workflow in workflows:
        if name in workflow.nodes:
            raise ConfigurationError(
                f"{name} is computed by the workflow {workflow.name}", hint="import into a raw stream, a source"
            )
        sources += workflow.sources
        if name in workflow.sources:
            wanted = workflow.node_plates[name]
            if set(wanted) != set(plates):
                text = ",".join(f"{plate}=..." for plate in wanted)
                raise ConfigurationError(
                    f"the source {name} is on {', '.join(wanted) or 'no plate'}",
                    hint=f"write {name}[{text}]" if wanted else f"write {name}",
                )
            return True
    if not new:
        raise ConfigurationError(
            f"no workflow has a source {name}, and --new is not given", hint=did_you_mean(name, sources)
        )
    return False
