"""Workflow files: the YAML of a workflow to a `WorkflowDefinition`, and back to a JSON-like document.

::

    workflow: comfort               # its name; the keys below are optional
    description: Comfort per room
    online: true                    # false: computed on request only
    start: 2026-01-01T00:00:00Z     # the beginning of online demand; default: the earliest reading
    requested_intervals: [[2025-06-01T00:00:00Z, 2025-07-01T00:00:00Z]]     # computed too; (start, end] each
    plates:
      house: {}
      room: {parent: house, max: 200}
      wet: {of: room, values: [kitchen, bath]}      # a part of a plate; complement: true for all the others
      city: {values: [Bristol, Ghent]}              # declared; {1: [hall, attic]} ties them to a value of the parent
      sensor: {from: sensors}                       # grows by what the node sensors finds
    sources:
      climate: {mqtt: "home/{house}/{room}/climate", codec: json, time: {field: ts, unit: ms}}
      tariff: {csv: "data/{house}.csv", time: {field: date, zone: UTC}, retention: 400d}    # a key names the connector
      history: {plates: [house]}    # no connector: fed by hs-stream import and hs-stream assets
      power: {mqtt: "home/{house}/power", codec: number, kind: state, unit: W}      # what it means; also of each field
    nodes:
      smooth: {tool: sliding_mean@^1, from: climate, with: {width: 5m}}
      damp: {tool: threshold@^1, from: smooth, on: wet, with: {above: 70}}          # only these rooms
      per_city: {tool: splitter@^1, from: report, into: city, with: {element: city}}    # a stream per city
    publish:
      smooth: {retain: true}

1. Unknown keys are refused everywhere. Every mistake is a `ConfigurationError` with file, line and what to write.
2. What a connector's options mean is the connector's business: a `SourceCheck` that the service passes in says whether
   they are right, and which plates they bind. Without one, each ``{name}`` in their texts is a plate, and each key of
   ``bind``.
3. What a key of ``publish`` means is the business of the sink that knows it, which a `PublishCheck` asks. Without one,
   it is asked under settings that nobody changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.registry import ToolRegistry
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.service.workflows.parser import Checks, WorkflowParser
from hs_stream.service.workflows.yaml_items import Item, read_json, read_yaml

__all__ = ["MAX_FILE", "WorkflowText", "from_document", "load_workflow", "parse_workflow"]

MAX_FILE: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class WorkflowText:
    """A workflow that is read and not yet understood. Reading takes long, and any thread may do it.

    Understanding it may import code that it names: that is for the thread which the code may then run in.
    """

    path: str
    item: Item

    @classmethod
    def read(cls, text: str, path: str, *, as_json: bool = False) -> WorkflowText:
        """Of YAML or JSON; ``path`` only serves error messages."""
        return cls(path, read_json(text, path) if as_json else read_yaml(text, path))

    @classmethod
    def read_file(cls, path: str | Path) -> WorkflowText:
        """Of the file at ``path``, at most `MAX_FILE` bytes of UTF-8."""
        return cls.read(_text_of(path), str(path))

    def workflow(
        self, registry: ToolRegistry, checks: Checks | None = None, *, allow_code: bool = True
    ) -> WorkflowDefinition:
        """What it says; see `parse_workflow`."""
        return WorkflowParser(self.path, registry, checks, allow_code=allow_code).workflow(self.item)


def load_workflow(path: str | Path, registry: ToolRegistry, checks: Checks | None = None) -> WorkflowDefinition:
    """The workflow in the file at ``path``, at most `MAX_FILE` bytes of UTF-8."""
    return WorkflowText.read_file(path).workflow(registry, checks)


def _text_of(path: str | Path) -> str:
    name = str(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"cannot read it: {error.strerror}", hint="name an existing workflow file", path=name
        ) from None
    if len(data) > MAX_FILE:
        raise ConfigurationError(
            f"{len(data)} bytes; a workflow file has at most {MAX_FILE}",
            hint="split it into several workflows",
            path=name,
        )
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigurationError("this is not UTF-8 text", hint="save it as UTF-8", path=name, line=line) from None


def parse_workflow(
    text: str,
    registry: ToolRegistry,
    path: str = "<text>",
    checks: Checks | None = None,
    *,
    as_json: bool = False,
    allow_code: bool = True,
) -> WorkflowDefinition:
    """The workflow in ``text``; ``path`` only serves error messages.

    With ``allow_code=False``, tools are refused that run code which their parameters name: ``text`` is of somebody who
    may not do that here.
    """
    return WorkflowText.read(text, path, as_json=as_json).workflow(registry, checks, allow_code=allow_code)


def from_document(
    document: Mapping[str, Any], registry: ToolRegistry, path: str = "<document>", checks: Checks | None = None
) -> WorkflowDefinition:
    """The inverse of `hs_stream.service.workflows.document.to_document`."""
    return WorkflowParser(path, registry, checks).workflow(Item.of(document))
