"""The workflows of a service: those of its files, and those that are saved in its store.

1. In the store, a document of kind ``workflows`` says of each what it was last run as: ``definition``, with exact
   versions of tools, and ``path``. A saved one has its own definition besides, ``saved``, with pins as they were given.
2. A file wins over a saved workflow of its name.
3. Nothing is saved, and no file is taken up while running, that does not load, that contradicts another workflow
   (`check_names`) or that a connector does not take. What has no text, such as a function without an import path, is
   refused.
4. A workflow that is not saved any more leaves its document and its results behind.

Who saves or removes must have the right to write to the store (`hs_stream.service.lease`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import structlog

from hs_stream.core.errors import ConfigurationError, NotFound, did_you_mean
from hs_stream.core.registry import ToolRegistry
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.ports import Store
from hs_stream.service.connectors import Author, Connectors
from hs_stream.service.host import reading_store
from hs_stream.service.settings import Settings
from hs_stream.service.sinks import Sinks
from hs_stream.service.stores import has_store
from hs_stream.service.workflows.document import to_document
from hs_stream.service.workflows.file import MAX_FILE, WorkflowText, from_document
from hs_stream.service.workflows.loading import check_names, load_workflows, matching_files, read_workflows
from hs_stream.service.workflows.parser import Checks

__all__ = ["STORE", "Catalog", "FromFile", "Plan", "Unread", "plan", "saved_workflows"]

logger = structlog.get_logger(__name__)

STORE: Final = "store"
"""Where a saved workflow comes from; of the others that is the path of their file."""


_NAMED: Final = 5
"""Files and workflows that a line names."""


class FromFile(ConfigurationError):
    """A workflow comes from a file, so it cannot be changed or removed in the store."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of a workflow. Nodes that are ``new`` or ``changed`` are computed (again), with all history."""

    workflow: str
    action: Literal["add", "change", "remove", "nothing"]
    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.action == "nothing":
            return f"{self.workflow} stays as it is"
        verb = {"add": "is added", "change": "is changed", "remove": "is removed; its results stay"}[self.action]
        groups = {"new": self.new, "changed": self.changed, "gone": self.removed if self.action == "change" else ()}
        parts = [f"{word}: {', '.join(names)}" for word, names in groups.items() if names]
        return f"{self.workflow} {verb}" + (f" ({'; '.join(parts)})" if parts else "")


def plan(
    name: str,
    old: WorkflowDefinition | None,
    new: WorkflowDefinition | None,
    others: Sequence[WorkflowDefinition] = (),
) -> Plan:
    """What it means that the workflow ``name`` was ``old`` and is to be ``new``; ``None``: there is none.

    A node that one of ``others`` has too is computed already, and goes on being computed.
    """
    shared = {node for other in others for node in other.nodes}
    if old is None or new is None:
        if old is new:
            return Plan(name, "nothing")
        if new is not None:
            return Plan(
                name,
                "add",
                new=tuple(node for node in new.order if node not in shared),
                unchanged=tuple(node for node in new.order if node in shared),
            )
        assert old is not None
        return Plan(name, "remove", removed=tuple(node for node in old.order if node not in shared))
    if to_document(old) == to_document(new):
        return Plan(name, "nothing", unchanged=new.order)
    same = {node for node in new.order if node in shared or old.fingerprints.get(node) == new.fingerprints[node]}
    return Plan(
        name,
        "change",
        tuple(node for node in new.order if node not in old.nodes and node not in same),
        tuple(node for node in new.order if node in old.nodes and node not in same),
        tuple(node for node in new.order if node in same),
        tuple(node for node in old.order if node not in new.nodes and node not in shared),
    )


@dataclass(frozen=True, slots=True)
class Unread:
    """Workflow files that differ from what runs. ``files``: pairs of a path and ``changed``, ``new`` or ``gone``."""

    files: tuple[tuple[str, str], ...]
    text: str
    hint: str

    def document(self) -> dict[str, Any]:
        """JSON-like."""
        return {"files": [{"file": path, "is": how} for path, how in self.files], "text": self.text, "hint": self.hint}


class Catalog:
    """See the module. ``files`` replaces those of the settings. The constructor reads files: `ConfigurationError`."""

    def __init__(
        self, settings: Settings, registry: ToolRegistry, files: Sequence[WorkflowDefinition] | None = None
    ) -> None:
        self._settings, self._registry = settings, registry
        self._connectors = Connectors(settings)
        self._sinks = Sinks(settings)
        self._checks = Checks(self._connectors.check, self._sinks)
        self._given = files is not None
        # Before they are loaded: what changes meanwhile counts as unread.
        self._loaded = {} if self._given else self._digests()
        self._files = {one.name: one for one in (load_workflows(settings, registry) if files is None else files)}
        self._saved: dict[str, WorkflowDefinition] = {}
        self._told: dict[str, set[str]] = {}

    @property
    def told(self) -> set[str]:
        """The lasting sinks (Home Assistant) that were ever told of streams, by whatever ran over this store."""
        return {sink for sinks in self._told.values() for sink in sinks}

    @property
    def workflows(self) -> list[WorkflowDefinition]:
        """All that are to run."""
        return self._together(self._files, self._saved)

    @staticmethod
    def _together(
        files: Mapping[str, WorkflowDefinition], saved: Mapping[str, WorkflowDefinition]
    ) -> list[WorkflowDefinition]:
        return [*files.values(), *(workflow for name, workflow in saved.items() if name not in files)]

    def origin(self, name: str) -> str:
        """The path of the file that the workflow comes from, else `STORE`."""
        return self._files[name].path if name in self._files else STORE

    # --- reading ---

    async def open(self, store: Store) -> None:
        """Read what is saved. `ConfigurationError` for what does not load or contradicts a file."""
        documents = await store.documents("workflows")
        lasting = self._sinks.lasting()
        self._told = {name: {sink for sink in lasting if one.get(sink) is True} for name, one in documents.items()}
        saved = {name: self._load(name, one["saved"]) for name, one in documents.items() if one.get("saved")}
        for name in saved.keys() & self._files.keys():
            logger.warning("a file wins over the saved workflow", workflow=name, file=self._files[name].path)
        check_names(self._together(self._files, saved))
        self._saved = saved

    def _load(self, name: str, document: Mapping[str, Any]) -> WorkflowDefinition:
        try:
            return from_document(document, self._registry, f"saved workflow {name}", self._checks)
        except ConfigurationError as error:
            hint = f"{error.hint}; or give it up: hs-stream workflow remove {name}".removeprefix("; or ")
            raise ConfigurationError(error.message, hint=hint, path=error.path) from None

    async def read_files(self) -> bool:
        """Read the files of the settings again; whether anything is different now. `ConfigurationError`: nothing is.

        They are read beside the loop, and understood in its thread: only there code that they name is imported.
        """
        if self._given:
            return False
        digests = await asyncio.to_thread(self._digests)
        files = await self._read()
        before, self._files, self._loaded = self._files, files, digests
        return list(before) != list(files) or any(
            plan(name, before[name], files[name]).action != "nothing" for name in files
        )

    async def _read(self) -> dict[str, WorkflowDefinition]:
        texts = await asyncio.to_thread(read_workflows, self._settings)
        files = {one.name: one for one in load_workflows(self._settings, self._registry, texts)}
        self._check_running(self._together(files, self._saved))
        return files

    def stamps(self) -> dict[str, tuple[int, int]]:
        """When each of the settings' files was written last, and its size: where they are equal, nothing was done."""
        found = {}
        for path in self._paths():
            with contextlib.suppress(OSError):
                state = path.stat()
                found[str(path)] = state.st_mtime_ns, state.st_size
        return found

    async def unread(self) -> Unread | None:
        """How the files differ from those that run; ``None``: not at all, or in what nothing depends on."""
        if self._given:
            return None
        digests, loaded = await asyncio.to_thread(self._digests), self._loaded
        files = tuple(
            (path, "new" if path not in loaded else "gone" if path not in digests else "changed")
            for path in sorted({*digests, *loaded})
            if digests.get(path) != loaded.get(path)
        )
        if not files:
            return None
        named = ", ".join(f"{path} is {how}" for path, how in files[:_NAMED]) + ", ..." * (len(files) > _NAMED)
        try:
            there = await self._read()
        except ConfigurationError as error:
            text = f"{named}, and does not load: {error.where}{error.message}"
            return Unread(files, text, f"{error.hint}; what runs stays as it is".removeprefix("; "))
        names = dict.fromkeys((*self._files, *there))
        plans = [plan(name, self._files.get(name), there.get(name)) for name in names]
        said = [str(one) for one in plans if one.action != "nothing"]
        if not said:
            return None
        text = f"{named}, and is not loaded: {'; '.join(said[:_NAMED])}"
        return Unread(files, text, f"send the service SIGHUP to load it: kill -HUP {os.getpid()}")

    def _paths(self) -> list[Path]:
        return list(matching_files(self._settings.workflows))

    def _digests(self) -> dict[str, bytes]:
        found = {}
        for path in self._paths():
            try:
                with path.open("rb") as file:
                    found[str(path)] = hashlib.blake2b(file.read(MAX_FILE + 1)).digest()
            except OSError:
                found[str(path)] = b""
        return found

    def _check_running(self, workflows: Sequence[WorkflowDefinition]) -> None:
        """`ConfigurationError` for what would keep them from running together."""
        check_names(workflows)
        Connectors(self._settings).sources_of(workflows)

    async def parse(
        self, name: str, text: str, *, as_json: bool = False, author: Author = "operator"
    ) -> WorkflowDefinition:
        """The workflow ``name`` in ``text``, of the shape of a workflow file. `ConfigurationError` with its line.

        As in `read_files`, code that it names is imported in the loop's thread.
        """
        read = await asyncio.to_thread(WorkflowText.read, text, f"workflow {name}", as_json=as_json)
        checks = Checks(partial(self._connectors.check, author=author), self._sinks)
        found = read.workflow(self._registry, checks, allow_code=author != "anybody")
        if found.name != name:
            raise found.error("workflow", f"this is the workflow {found.name}, not {name}", "make both names equal")
        return found

    # --- writing ---

    async def save(self, store: Store, workflow: WorkflowDefinition) -> Plan:
        """Save it; what that means for those that run. `FromFile`, `ConfigurationError`, `StoreUnavailable`."""
        name = workflow.name
        if name in self._files:
            raise FromFile(
                f"the workflow {name} comes from the file {self._files[name].path}, which wins over a saved one",
                hint="change the file and send the service SIGHUP, or take it out of the settings first",
            )
        others = [one for one in self.workflows if one.name != name]
        self._check_running([*others, workflow])
        document = to_document(workflow)
        # What is kept is what must load at the next start.
        kept = self._load(name, document)
        await store.put("workflows", name, self._record(kept, document))
        before, self._saved[name] = self._saved.get(name), kept
        return plan(name, before, kept, others)

    async def remove(self, store: Store, name: str) -> Plan:
        """Save it no longer. Works without `open`. `FromFile`, `NotFound`, `StoreUnavailable`."""
        documents = await store.documents("workflows")
        saved = [key for key, document in documents.items() if document.get("saved")]
        if name not in saved:
            if name in self._files:
                raise FromFile(
                    f"the workflow {name} comes from the file {self._files[name].path}",
                    hint="remove the file, or take it out of the settings, and send the service SIGHUP",
                )
            raise NotFound(f"there is no saved workflow {name!r}", hint=did_you_mean(name, saved))
        await store.put("workflows", name, {**documents[name], "saved": None})
        self._saved.pop(name, None)
        if name in self._files:
            return Plan(name, "nothing")
        shared = {node for other in self.workflows for node in other.nodes}
        nodes = documents[name]["definition"]["nodes"]
        return Plan(name, "remove", removed=tuple(node for node in nodes if node not in shared))

    async def record(self, store: Store) -> None:
        """Write down what all of them are now (rule 1)."""
        for workflow in self.workflows:
            saved = self._saved.get(workflow.name)
            document = self._record(workflow, None if saved is None else to_document(saved))
            await store.put("workflows", workflow.name, document)
            plates = {"workflow": workflow.name, "plates": document["definition"]["plates"]}
            await store.put("plates", workflow.name, plates)

    def _record(self, workflow: WorkflowDefinition, saved: Mapping[str, Any] | None) -> dict[str, Any]:
        document: dict[str, Any] = {
            "path": workflow.path,
            "definition": to_document(workflow, resolved=True),
            "saved": saved,
        }
        # It stays: whatever is changed, Home Assistant may still have to be told that something is gone.
        told = self._sinks.used(workflow) & {*self._sinks.lasting()} | self._told.get(workflow.name, set())
        return dict.fromkeys(sorted(told), True) | document


async def saved_workflows(settings: Settings) -> list[str]:
    """The names of the workflows that are saved in the store; none where there is no store yet."""
    if not has_store(settings):
        return []
    async with reading_store(settings) as store:
        return [name for name, document in (await store.documents("workflows")).items() if document.get("saved")]
