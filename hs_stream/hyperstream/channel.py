"""One store as its user sees it: streams, workflows, sessions and history. Every call blocks until it is done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from hs_stream.builder import Node, Workflow
from hs_stream.core.time import (
    MAX_TIME,
    MIN_TIME,
    Instant,
    TimeIntervals,
    format_duration,
    format_time,
)
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.ports import HistoryEntry
from hs_stream.hyperstream.handles import StoreHandle, StreamLike
from hs_stream.hyperstream.spans import Interval, finite, interval_of, now_ms
from hs_stream.hyperstream.streams import Stream
from hs_stream.hyperstream.tables import Listing, span_text
from hs_stream.service.workflows.file import load_workflow

__all__ = ["Channel", "NotebookWorkflow", "Session"]


_HISTORY: Final = 1_000


class Channel(StoreHandle):
    """The streams of one store. ``hs.memory`` is one; a `HyperStream` is the one of its own store."""

    # --- streams ---

    def get_or_create_stream(self, stream: StreamLike, /, **plates: str) -> Stream:
        """The stream ``"ticker"`` or ``"climate[house=1,room=kitchen]"``, whether it exists yet or not.

        Plate values may also be given as keywords: ``get_or_create_stream("climate", house="1", room="kitchen")``.
        """
        return Stream(self, self.identity(stream, plates))

    def find_stream(self, stream: StreamLike, /, **plates: str) -> Stream:
        """The same for a stream that exists; else `NotFound` with what there is instead."""
        found = self.get_or_create_stream(stream, **plates)
        _ = found.status
        return found

    __getitem__ = find_stream

    def streams(self, name: str | None = None, /, **plates: str) -> Listing[Stream]:
        """Every stream (of this name) that has these plate values."""
        found = {status.stream: status for status in self._run(self._workspace.streams(name, plates))}

        def row(stream: Stream) -> Sequence[str]:
            status = found[stream.id]
            return str(stream), status.kind, status.tool, status.workflow, span_text(status.coverage)

        head = ("stream", "kind", "tool", "workflow", "known")
        return Listing((Stream(self, identity) for identity in found), "streams", head, row)

    # --- workflows ---

    def create_workflow(
        self, name: str, *, description: str = "", online: bool = False, start: Instant | None = None
    ) -> NotebookWorkflow:
        """A workflow to be built in a ``with`` block, after which it is known here. See `hs_stream.Workflow`."""
        return NotebookWorkflow(self, name, description=description, online=online, start=start)

    def add_workflow(self, workflow: Workflow | WorkflowDefinition | str | Path) -> str:
        """Know a workflow that was built elsewhere, or the one in a YAML file; returns its name.

        One of that name is replaced; of its results exactly those are recomputed that it defines differently.
        """
        if isinstance(workflow, (str, Path)):
            workflow = load_workflow(workflow, self._workspace.registry)
        elif isinstance(workflow, Workflow):
            workflow = workflow.definition
        self._run(self._workspace.add_workflow(workflow))
        return workflow.name

    def execute_workflow(self, name: str, interval: Interval, nodes: Iterable[str] = ()) -> Listing[Stream]:
        """Compute exactly what is missing of a workflow in ``interval`` (or of some of its nodes); their streams."""
        span = finite(interval_of(interval, now_ms()))
        found = self._run(self._workspace.compute_workflow(name, list(nodes), span.start, span.end))
        coverage = {stream: self.status(stream).coverage for stream in found}
        head = ("stream", "computed", "not computed")

        def row(stream: Stream) -> Sequence[str]:
            known = coverage[stream.id]
            return str(stream), span_text(known & span), span_text(TimeIntervals([span]) - known)

        return Listing((Stream(self, identity) for identity in found), f"streams of {name}", head, row)

    @property
    def workflows(self) -> Listing[WorkflowDefinition]:
        """Every workflow that is known here; what was executed tool by tool is not one of them."""
        known = self._workspace.catalog.workflows.values()

        def row(item: WorkflowDefinition) -> Sequence[str]:
            return item.name, ", ".join(item.sources), ", ".join(item.order), item.description

        return Listing(known, "workflows", ("workflow", "sources", "nodes", "description"), row)

    # --- books ---

    @property
    def current_session(self) -> Session | None:
        """The session that this is; ``None`` when the store is only read."""
        return next((item for item in self.sessions if item.id == self._workspace.session), None)

    @property
    def sessions(self) -> Listing[Session]:
        """Every run of the service, and of a HyperStream, over this store; the newest first."""
        documents = self._run(self._workspace.sessions())
        found = [Session(self, name, document) for name, document in documents.items()]
        found.sort(key=lambda item: item.id, reverse=True)
        head = ("session", "started", "stopped", "workflows", "results")

        def row(item: Session) -> Sequence[str]:
            return item.id, item.started, item.stopped or "-", ", ".join(item.workflows), str(item.counters["results"])

        return Listing(found, "sessions", head, row)

    def history(self, limit: int = 100, *, stream: StreamLike | None = None) -> Listing[HistoryEntry]:
        """What was computed (or recomputed) when, by which tool and why; the newest first.

        One entry may sum up what one node computed for one cause: ``start`` and ``end`` are its bounds then.
        """
        node = None if stream is None else self.identity(stream, {}).name
        return _listed(self._run(self._workspace.history(limit, node)))


class Session:
    """One run over a store, as it was last written down."""

    def __init__(self, channel: Channel, name: str, document: dict[str, Any]) -> None:
        self.id = name
        self.started: str = document["started"]
        self.stopped: str | None = document.get("stopped")
        self.workflows: list[str] = document.get("workflows", [])
        self.versions: dict[str, Any] = document.get("versions", {})
        self.counters: dict[str, int] = {"results": 0, **document.get("counters", {})}
        self._channel = channel

    @property
    def active(self) -> bool:
        """Whether it has not ended in order. One that was killed never does."""
        return self.stopped is None

    @property
    def history(self) -> Listing[HistoryEntry]:
        """What it computed, among the newest 1,000 entries."""
        return _listed(entry for entry in self._channel.history(_HISTORY) if entry.session == self.id)

    def __repr__(self) -> str:
        return f"<session {self.id}: {'active' if self.active else f'until {self.stopped}'}>"


class NotebookWorkflow(Workflow):
    """A workflow that is built for a channel."""

    def __init__(self, channel: Channel, name: str, **options: Any) -> None:
        super().__init__(name, registry=channel._workspace.registry, **options)
        self._channel = channel

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        if kind is None:
            self._channel.add_workflow(self)

    def execute(self, interval: Interval, nodes: Iterable[Node | str] = ()) -> Listing[Stream]:
        """Compute exactly what is missing of it in ``interval`` (or of some of its nodes); their streams."""
        self._channel.add_workflow(self)
        names = [node.name if isinstance(node, Node) else node for node in nodes]
        return self._channel.execute_workflow(self.name, interval, names)

    def __repr__(self) -> str:
        return f"<workflow {self.name}: {', '.join([*self._sources, *self._nodes]) or 'empty'}>"


def _listed(entries: Iterable[HistoryEntry]) -> Listing[HistoryEntry]:
    head = ("time", "stream", "tool", "interval", "instances", "cause")

    def row(entry: HistoryEntry) -> Sequence[str]:
        bounded = entry.start > MIN_TIME and entry.end < MAX_TIME
        end = f"+{format_duration(entry.end - entry.start)}" if bounded else format_time(entry.end)
        span = f"({format_time(entry.start)}, {end}]"
        at = format_time(entry.time // 1000 * 1000)
        return at, entry.stream, entry.tool, span, str(entry.instances), entry.cause

    return Listing(entries, "history entries", head, row)
