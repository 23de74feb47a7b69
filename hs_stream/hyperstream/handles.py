"""Handles on a store and on one of its streams: the calls that streams and views need, each of which blocks.

A `hs_stream.hyperstream.channel.Channel` is a handle on its store, and more; a `hs_stream.hyperstream.streams.Stream`
is a handle on itself, and more. What only reads or computes knows no more than this.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from hs_stream.builder import Node
from hs_stream.core.batch import Batch
from hs_stream.core.errors import ConfigurationError
from hs_stream.core.stream import StreamId
from hs_stream.core.time import TimeInterval, TimeIntervals
from hs_stream.core.value import Value
from hs_stream.core.workflow import NodeDefinition
from hs_stream.engine.engine import StreamStatus
from hs_stream.engine.ports import DeadLetter
from hs_stream.hyperstream.background import Background
from hs_stream.hyperstream.spans import Interval, finite, interval_of, now_ms
from hs_stream.hyperstream.workspace import Workspace

__all__ = ["StoreHandle", "StreamHandle", "StreamLike"]

T = TypeVar("T")


class StoreHandle:
    """A store that a workspace has open. While ``keeper`` is held here, it is not collected and closed."""

    def __init__(self, background: Background, workspace: Workspace, keeper: StoreHandle | None = None) -> None:
        self._background = background
        self._workspace = workspace
        self._keeper = keeper

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._background.run(work)

    def is_same(self, other: StoreHandle) -> bool:
        """Whether both are one store, opened once."""
        return self._workspace is other._workspace

    def identity(self, stream: StreamLike, plates: dict[str, str]) -> StreamId:
        """The name and plate values that ``stream`` stands for."""
        if isinstance(stream, StreamHandle):
            if not self.is_same(stream.channel):
                raise ConfigurationError(
                    f"{stream} is in another store", hint="what a tool reads and where it writes are in one store"
                )
            known = stream.id
        elif isinstance(stream, StreamId):
            known = stream
        elif isinstance(stream, Node):
            known = StreamId(stream.name)
        elif isinstance(stream, str):
            known = _identity(lambda: StreamId.parse(stream))
        else:
            raise ConfigurationError(f"{stream!r} is no stream", hint='write its name, such as "ticker"')
        return _identity(lambda: StreamId.make(known.name, [*known.meta, *plates.items()])) if plates else known

    def status(self, stream: StreamId) -> StreamStatus:
        """What is known of a stream now. `NotFound` when it does not exist."""
        return self._run(self._workspace.find(stream))

    def read(self, stream: int, start: int, end: int, limit: int, *, newest: bool = False) -> Batch:
        """The first (or ``newest``) instances in ``(start, end]`` of the stream with this id."""
        return self._run(self._workspace.read(stream, start, end, limit=limit, newest=newest))

    def count(self, stream: int, interval: TimeInterval) -> int:
        """How many instances the stream with this id has in ``interval``."""
        return self._run(self._workspace.count(stream, interval.start, interval.end))

    def write(self, stream: StreamId, readings: Sequence[tuple[int, Value]]) -> list[DeadLetter]:
        """Store readings; what could not be stored is returned."""
        return self._run(self._workspace.write(stream, readings))

    def not_taken_back(self, name: str) -> list[str]:
        """Workflows that would have to know of readings of ``name``, and cannot be loaded."""
        return self._workspace.not_taken_back(name)

    def compute(self, stream: StreamId, interval: TimeInterval) -> None:
        """Compute exactly what is missing in ``interval``. `ToolError` where a tool failed; the rest is computed."""
        self._run(self._workspace.compute(stream, interval.start, interval.end))

    def purge(self, stream: StreamId, interval: TimeInterval) -> None:
        """Forget what is stored in ``interval``; what rests on it is not right any more."""
        self._run(self._workspace.purge(stream, interval.start, interval.end))

    def execute(self, node: NodeDefinition, meta: dict[str, str], interval: TimeInterval) -> list[StreamId]:
        """Define ``node`` and compute its streams with these plate values, which are returned."""
        return self._run(self._workspace.execute(node, meta, interval.start, interval.end))


class StreamHandle:
    """The stream ``identity`` of the store of ``channel``. It need not exist yet."""

    def __init__(self, channel: StoreHandle, identity: StreamId) -> None:
        self.channel = channel
        self.id = identity

    @property
    def name(self) -> str:
        """Its name, without plate values."""
        return self.id.name

    @property
    def meta(self) -> dict[str, str]:
        """Its plate values by plate."""
        return dict(self.id.meta)

    @property
    def status(self) -> StreamStatus:
        """What is known of it now. `NotFound` when it does not exist."""
        return self.channel.status(self.id)

    @property
    def calculated_intervals(self) -> TimeIntervals:
        """Its coverage: where its contents are known to be right. Of a raw stream everything up to its watermark."""
        return self.status.coverage

    def compute(self, interval: Interval) -> None:
        """Compute exactly what is missing of ``interval``. `ToolError` where a tool failed; the rest is computed."""
        self.channel.compute(self.id, finite(interval_of(interval, now_ms())))

    def __str__(self) -> str:
        return str(self.id)


StreamLike = StreamHandle | StreamId | Node | str


def _identity(make: Any) -> StreamId:
    try:
        found: StreamId = make()
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    return found
