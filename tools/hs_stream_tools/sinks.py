"""Tools that end a graph, or begin an asset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.tool import MapTool
from hs_stream.core.value import Value

__all__ = ["AssetWriter", "Sink"]


@dataclass(frozen=True, kw_only=True)
class Sink(MapTool):
    """Nothing: it only makes its input wanted, so that it is computed.

    >>> len(Sink().map_batch(Batch.of([(1, 2.0)])))
    0
    """

    name = "sink"
    version = "1.0.0"
    output_kind = "same"
    output_unit = "same"
    samples = ({},)

    def map_batch(self, batch: Batch) -> Batch:
        """Nothing."""
        return NOTHING


@dataclass(frozen=True, kw_only=True)
class AssetWriter(MapTool):
    """A document, again at each instance of the input.

    ``value``: the document. The input says when, its values do not matter: a ``clock`` that ticks once a day writes it
    once a day. Documents that are written by people come in as readings instead: ``hs-stream assets put``.

    >>> AssetWriter(value={"floor": 2}).map(None)
    {'floor': 2}
    """

    name = "asset_writer"
    version = "1.0.0"
    alignment = 0
    samples = ({"value": {"a": 1}}, {"value": "text"})
    value: Any

    def map(self, value: Value) -> Value:
        """The document."""
        return self.value
