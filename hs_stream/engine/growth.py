"""Plates that grow by results: their values are not recorded anywhere but in the streams that found them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hs_stream.core.plate import PlateFull
from hs_stream.core.time import MAX_TIME, MIN_TIME
from hs_stream.engine.contents import PatientStore
from hs_stream.engine.executor import Executor
from hs_stream.engine.graph import Graph
from hs_stream.engine.ingest import Ingest
from hs_stream.engine.ports import Clock, DeadLetter, Store
from hs_stream.plan.streams import Stream

__all__ = ["Growth", "regrow"]


async def regrow(graph: Graph, store: Store) -> None:
    """Ground ``graph`` over all plate values that are stored. A `PlateTool` names each value once: there are few."""
    read: set[int] = set()
    known = {value for stream in graph.records for _, value in stream.meta} if graph.growing() else set()
    """What was taken in once stays: rules may have become stricter."""
    while waiting := [stream for stream in graph.growing() if stream.id not in read]:
        for stream in waiting:
            read.add(stream.id)
            if stream.stream not in graph.records:
                continue
            for _, values in await store.read(stream.id, MIN_TIME, MAX_TIME):
                for value in values:
                    try:
                        graph.grow(stream, value, stored=value in known)
                    except ValueError:
                        continue  # it was refused, and said so, when it was found


class Growth:
    """Plates grow while a step is in progress.

    A step that is broken off leaves the graph as it has grown. So the next one makes the new streams durable before
    anything that it finds: they would have no record, and their numbers be given away after a restart.
    """

    def __init__(self, graph: Graph, store: PatientStore, executor: Executor, ingest: Ingest, clock: Clock) -> None:
        self._graph = graph
        self._store = store
        self._executor = executor
        self._ingest = ingest
        self._clock = clock
        self._fresh: list[Stream] = []
        """Streams of the graph that are not durable yet."""

    async def make_sure(self) -> None:
        """Make durable what has come to the graph, if it is not."""
        if self._fresh:
            fresh = self._fresh
            await self._store("register", self._store.store.register, [one.record() for one in fresh])
            self._fresh = []
            self._executor.welcome((one for one in fresh if one.kind == "derived"), "backfill")
            self._executor.schedule.look_at(self._graph.disturbed(), "backfill")

    async def grow(self, stream: Stream, values: Sequence[str]) -> None:
        """Plates grow by what ``stream`` found: their streams are durable before the results that name them."""
        refused: list[DeadLetter] = []
        for value in values:
            try:
                self._fresh += self._graph.grow(stream, value)
            except ValueError as error:
                reason = "plate_full" if isinstance(error, PlateFull) else "plate_value"
                payload = json.dumps({"stream": stream.name, "value": value}).encode()
                refused.append(DeadLetter(self._clock.now(), stream.node, reason, str(error), "", payload))
        await self.make_sure()
        if refused:
            await self._ingest.bury(refused)
