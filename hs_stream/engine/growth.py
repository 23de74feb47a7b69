"""Plates that grow by results: their values are not recorded anywhere but in the streams that found them."""

from __future__ import annotations

from hs_stream.core.time import MAX_TIME, MIN_TIME
from hs_stream.engine.graph import Graph
from hs_stream.engine.ports import Store

__all__ = ["regrow"]


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
