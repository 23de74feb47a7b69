"""What a chart is given: bounded, and exact where that is said."""

from __future__ import annotations

import logging
from typing import cast

import numpy as np
import pytest

from hs_stream.core.batch import Batch
from hs_stream.core.size import fitting, size_of_batch
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MIN_TIME
from hs_stream.engine.engine import Engine
from hs_stream.viewer import series
from hs_stream.viewer.frame import coverage_bar
from hs_stream.viewer.series import MOST, POINTS, number_at, numeric_fields, read_series
from hs_stream.viewer.site import _gone
from hs_stream.viewer.streams import shown
from hs_stream.viewer.workflows import drawing, layout


def test_numbers_and_components() -> None:
    assert [number_at(value, None) for value in (1, 2.5, True, None, "x", float("nan"), {"t": 1})] == [
        1, 2.5, 1, None, None, None, None,
    ]  # fmt: skip
    assert number_at({"t": 20.5}, "t") == 20.5
    assert number_at({"t": "warm"}, "t") is None
    assert numeric_fields([{"t": 1, "name": "x"}, {"h": True}, 3]) == ["h", "t"]


def test_few_instances_are_drawn_as_they_are() -> None:
    found = series._series(Batch.of([(1, 2.0), (5, None), (9, 4)]), "exact")
    assert found.points == [[1, 2.0], [5, None], [9, 4]]
    assert (found.kind, found.read, found.numeric, found.last_time) == ("exact", 3, True, 9)


def test_many_are_thinned_out_and_keep_their_extremes() -> None:
    times = np.arange(MOST, dtype=np.int64) * 1000
    values = np.sin(times / 1e6)
    values[12_345] = 50.0
    values[7_000] = np.nan
    found = series._series(series._numbers(Batch(times, values), None), "exact")
    assert found.kind == "thinned"
    assert len(found.points) <= POINTS
    assert [12_345_000, 50.0] in found.points
    assert all(values[int(point[0]) // 1000] == point[1] for point in found.points if point[1] is not None and point[0])


class _Counted:
    """The part of an engine that is read from."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.reads: list[int] = []
        self.bytes: list[int] = []

    async def read(
        self,
        _: StreamId,
        start: int,
        end: int,
        *,
        limit: int | None = None,
        newest: bool = False,
        budget: int | None = None,
    ) -> Batch:
        found = self.batch.slice(start, end)
        if limit is not None and len(found) > limit:
            found = found.slice_index(len(found) - limit, len(found)) if newest else found.slice_index(0, limit)
        if budget is not None:
            count = fitting(reversed(found.plain()) if newest else found.plain(), budget)
            found = found.slice_index(len(found) - count, len(found)) if newest else found.slice_index(0, count)
        self.reads.append(len(found))
        self.bytes.append(size_of_batch(found))
        return found


async def test_a_million_instances_cost_a_bounded_read() -> None:
    times = np.arange(1, 1_000_001, dtype=np.int64) * 1000
    counted = _Counted(Batch(times, times.astype(np.float64)))
    engine, stream = cast("Engine", counted), StreamId("raw", ())
    found = await read_series(engine, stream, MIN_TIME, 1_000_000_000)
    assert found.kind == "sampled"
    assert sum(counted.reads) < 2 * MOST
    assert found.points[0][0] == 1000
    assert found.last_time == 1_000_000_000
    gaps = np.diff([float(point[0] or 0) for point in found.points])
    assert gaps.max() < 1_000_000_000 / 100
    exact = await read_series(engine, stream, 500_000_000, 500_900_000)
    assert (exact.kind, exact.read) == ("exact", 900)


def test_values_are_one_short_line() -> None:
    assert [shown(value) for value in (1.23456789, True, None, "x", {"a": [1]})] == [
        "1.23457", "true", "null", "x", '{"a": [1]}',
    ]  # fmt: skip
    assert len(shown("x" * 1000)) == 60


async def test_large_values_cost_a_bounded_read_too() -> None:
    value = {"number": 1.0, "text": "x" * 100_000}  # one, and counted each time
    counted = _Counted(Batch.of((1000 * at, value) for at in range(1, 5001)))
    found = await read_series(cast("Engine", counted), StreamId("raw", ()), MIN_TIME, 5_000_000, "number")
    assert found.kind == "sampled"
    assert max(counted.bytes) < 9_000_000
    assert found.numeric
    assert found.last_time == 5_000_000


def test_the_graph_is_drawn_from_left_to_right() -> None:
    nodes = [
        {"id": "a", "kind": "source", "plates": []},
        {"id": "b", "kind": "node", "plates": ["room"], "tool": "copy", "version": "1.0.0", "published": True},
        {"id": "<c>", "kind": "node", "plates": [], "tool": "copy", "version": "1.0.0", "published": False},
    ]
    graph = {
        "nodes": nodes,
        "edges": [{"from": "a", "to": "b"}, {"from": "b", "to": "<c>"}, {"from": "a", "to": "<c>"}],
    }
    places = layout(graph)
    assert [places[name][0] for name in ("a", "b", "<c>")] == [0, 1, 2]
    drawn = drawing(graph, places)
    assert drawn.count('<path d="M') == 4, "three edges and the arrow's head"
    assert "<c>" not in drawn
    assert "&lt;c&gt;" in drawn


def test_no_two_nodes_lie_on_each_other() -> None:
    nodes = [{"id": str(at)} for at in range(30)]
    edges = [{"from": str(at // 3), "to": str(at)} for at in range(1, 30)]
    places = layout({"nodes": nodes, "edges": edges})
    assert len(set(places.values())) == 30


@pytest.mark.parametrize("pieces", [[], [("computed", 40.0, "t"), ("failed", 60.0, "t")]])
def test_the_bar_has_one_part_for_each_piece(pieces: list[tuple[str, float, str]]) -> None:
    assert coverage_bar(pieces).count("<i ") == len(pieces)


def test_a_browser_that_left_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("a viewer")
    log.addFilter(_gone)
    for text in ("The client this element belongs to has been deleted.", "of ours"):
        error = RuntimeError(text)
        log.error(error, exc_info=error)
    assert [record.getMessage() for record in caplog.records] == ["of ours"]
