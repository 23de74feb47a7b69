"""Who hears what is published, and the connections over which it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hs_stream.core.stream import StreamId
from hs_stream.core.value import Value
from hs_stream.engine.ports import Publication, Sink, Unpublished
from hs_stream.testing.faults import Gate

__all__ = ["Line", "Subscriber"]


class Subscriber:
    """A sink that keeps, per stream, what its messages say."""

    name = "subscriber"
    forgets_ms = 0

    def __init__(self) -> None:
        self.contents: dict[StreamId, dict[int, Value]] = {}
        self.revisions: dict[tuple[StreamId, int], int] = {}
        self.received = 0

    async def run(self, connected: Callable[[bool], None]) -> None:
        """Always connected."""
        connected(True)

    async def publish(self, publications: Sequence[Publication]) -> Sequence[Unpublished]:
        """Apply what is not a repeat."""
        for publication in publications:
            self.received += 1
            change, stream = publication.change, publication.stream
            key = (stream, change.time)
            if change.revision <= self.revisions.get(key, -1):
                continue
            self.revisions[key] = change.revision
            contents = self.contents.setdefault(stream, {})
            if change.kind == "retract":
                contents.pop(change.time, None)
            else:
                contents[change.time] = change.value
        return ()


class Line:
    """The connection of one process to ``sink``: what has stood still has lost it, and hears nothing of that."""

    def __init__(self, sink: Sink, gate: Gate) -> None:
        self.name = sink.name
        self.forgets_ms = sink.forgets_ms
        self.run = sink.run
        self._sink = sink
        self._gate = gate

    async def publish(self, publications: Sequence[Publication]) -> Sequence[Unpublished]:
        """To nobody, if the process has stood still."""
        await self._gate.passed()
        return () if self._gate.where else await self._sink.publish(publications)
