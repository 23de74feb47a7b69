"""How a stream is wired into its workflows: what defines it, and who wants it. The `Graph` sets it as plates grow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from hs_stream.core.kinds import UNKNOWN, Meaning
from hs_stream.core.stream import StreamId
from hs_stream.core.time import EMPTY, TimeIntervals
from hs_stream.core.tool import AggregateTool, FoldTool, FromInput, FromUnion, OnGrid, Support, Tool
from hs_stream.core.workflow import WorkflowDefinition

__all__ = ["Outlet", "Wiring"]


class Outlet(NamedTuple):
    """A workflow that publishes a stream. ``plates`` are in its order, ``options`` are the sink's."""

    workflow: str
    plates: tuple[str, ...]
    options: Mapping[str, Any]
    meaning: Meaning


class Wiring:
    """All of a stream that its workflows say, but for its inputs."""

    __slots__ = (
        "aggregate",
        "begin",
        "demand",
        "drive",
        "fingerprint",
        "grows",
        "id",
        "into",
        "kind",
        "lookaheads",
        "meaning",
        "node",
        "outlets",
        "rank",
        "requests",
        "retention",
        "stream",
        "supports",
        "tool",
        "workflow",
    )

    def __init__(self, identity: int, stream: StreamId, kind: Literal["raw", "derived"]) -> None:
        self.id = identity
        self.stream = stream
        self.kind = kind
        self.workflow = ""
        """The first of those that have it."""
        self.node = stream.name
        self.rank = 0
        self.tool: Tool | None = None
        self.into: str | None = None
        """The plate that its tool splits into."""
        self.drive: FromInput | FromUnion | OnGrid | None = None
        self.supports: list[Support] = []
        self.lookaheads: list[int] = []
        self.aggregate = False
        self.begin: int | None = None
        """Of a stream without inputs: it has nothing at or before it. ``None``: it begins with its readings."""
        self.grows = False
        """Its results are values of a plate."""
        self.meaning = UNKNOWN
        """What its values are, as far as its workflows know."""
        self.fingerprint = ""
        self.outlets: list[Outlet] = []
        """Who publishes it: each workflow that does, on topics of its own."""
        self.demand = EMPTY
        self.requests: dict[int, TimeIntervals] = {}

        self.retention: int | None = None
        """Instances are kept so long (ms) before its watermark; ``None`` is for ever."""

    def __repr__(self) -> str:
        return f"<{self.stream} #{self.id}>"

    @property
    def name(self) -> str:
        """The text of the stream id."""
        return str(self.stream)

    def support(self, slot: int) -> Support:
        """How this stream reads its input ``slot``."""
        return self.supports[0 if self.aggregate else slot]

    @property
    def is_fold(self) -> bool:
        """Whether the engine carries a state for it."""
        return isinstance(self.tool, FoldTool)

    def define(self, workflow: WorkflowDefinition, name: str) -> None:
        """It is node or source ``name`` of ``workflow``, the first of those that have it."""
        self.workflow = workflow.name
        self.node = name
        self.meaning = workflow.meanings[name]
        self.fingerprint = workflow.fingerprints[name]
        self.retention = workflow.retention.get(name)
        if (node := workflow.nodes.get(name)) is not None:
            self.into = node.into
            self.tool = node.tool.bound_to(dict(self.stream.meta), node.into)

    def share(self, workflow: WorkflowDefinition, name: str) -> None:
        """It is one of ``workflow`` too. Of retentions the longest counts."""
        self.meaning = self.meaning.over(workflow.meanings[name])
        kept = workflow.retention.get(name)
        self.retention = None if kept is None or self.retention is None else max(kept, self.retention)
        node = workflow.nodes.get(name)
        if node is None:
            return
        self.demand |= workflow.demand
        self.grows = self.grows or any(plate.source == name for plate in workflow.plates.values())
        if node.publish is not None:
            self.outlets.append(
                Outlet(workflow.name, workflow.node_plates[name], node.publish, workflow.meanings[name])
            )

    def know_tool(self, inputs: int) -> None:
        """Take over what its tool says of so many inputs."""
        assert self.tool is not None
        self.aggregate = isinstance(self.tool, AggregateTool)
        self.drive = self.tool.drive()
        self.supports = [self.tool.support(slot) for slot in range(1 if self.aggregate else inputs)]

    def rank_after(self, ranks: Iterable[int]) -> None:
        """It is computed after inputs of these ranks."""
        self.rank = 1 + max(ranks, default=0)

    def begin_at(self, begin: int | None) -> None:
        """See ``begin``."""
        self.begin = begin

    def want(self, demand: TimeIntervals) -> None:
        """That much of it is always wanted."""
        self.demand = demand
