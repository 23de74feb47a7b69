"""The workflow files of the settings: which they are, and what they hold together."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.registry import ToolRegistry
from hs_stream.core.workflow import WorkflowDefinition, check_shared
from hs_stream.service.connectors import Connectors
from hs_stream.service.settings import Settings
from hs_stream.service.sinks import Sinks
from hs_stream.service.workflows.file import WorkflowText
from hs_stream.service.workflows.parser import Checks

__all__ = [
    "check_names",
    "checks_of",
    "first_workflow",
    "load_workflows",
    "matching_files",
    "read_workflows",
    "workflow_files",
]


def checks_of(settings: Settings) -> Checks:
    """Checks that ask the connector of each source, and the sink of each key of ``publish``.

    A connector builds the real topic template and codec, path and columns.
    """
    return Checks(Connectors(settings).check, Sinks(settings))


def workflow_files(patterns: Sequence[str]) -> list[Path]:
    """The files that the patterns name, sorted, each once. `ConfigurationError` when a plain name has no file."""
    for pattern in patterns:
        if not glob.has_magic(pattern) and not Path(pattern).exists():
            where = "" if Path(pattern).is_absolute() else f" in {Path.cwd()}"
            raise ConfigurationError(
                f"workflows: there is no file {pattern}{where}", hint="correct workflows in the settings"
            )
    return matching_files(patterns)


def matching_files(patterns: Sequence[str]) -> list[Path]:
    """The same, without those that are not there."""
    found = [
        Path(match)
        for pattern in patterns
        for match in sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - the pattern may be absolute
    ]
    return list(dict.fromkeys(found))


def read_workflows(settings: Settings) -> list[WorkflowText]:
    """The text of every workflow of the settings. Any thread may read it."""
    return [WorkflowText.read_file(path) for path in workflow_files(settings.workflows)]


def load_workflows(
    settings: Settings, registry: ToolRegistry, texts: Sequence[WorkflowText] | None = None
) -> list[WorkflowDefinition]:
    """Every workflow of the settings (or of ``texts``); what two of them name alike, they define equally."""
    checks = checks_of(settings)
    found = read_workflows(settings) if texts is None else texts
    workflows = [text.workflow(registry, checks) for text in found]
    check_names(workflows)
    return workflows


def check_names(workflows: Sequence[WorkflowDefinition]) -> None:
    """`ConfigurationError` for a workflow whose name another one has, or that names a source or node differently."""
    for index, workflow in enumerate(workflows):
        for other in workflows[:index]:
            if other.name == workflow.name:
                raise workflow.error(
                    "workflow", f"{other.path} is a workflow {workflow.name!r} too", "rename one of them"
                )
            check_shared(workflow, other)


def first_workflow(settings: Settings) -> str:
    """The command that writes a first workflow where the settings look for one."""
    pattern = next((pattern for pattern in settings.workflows if pattern.count("*") == 1), "config/workflows/*.yaml")
    return f"hs-stream discover --for 30 -o {pattern.replace('*', 'home')}"
