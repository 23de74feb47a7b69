"""Batches against plain dictionaries."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hs_stream.core.batch import NOTHING, Batch, column
from hs_stream.core.time import TimeIntervals
from hs_stream.core.value import same
from hs_stream.testing.strategies import batches, interval_sets

SPAN = st.integers(-70_000, 70_000)


@given(batches())
def test_batch_is_its_items(batch: Batch) -> None:
    items = list(batch)
    assert Batch.of(reversed(items)) == batch
    assert all(type(time) is int for time, _ in items)
    assert [time for time, _ in items] == sorted({time for time, _ in items})
    assert bool(batch) == bool(len(batch)) == bool(items)
    if items:
        assert (batch.first_time, batch.last_time) == (items[0][0], items[-1][0])


@given(st.lists(st.one_of(st.floats(), st.integers(-9, 9), st.booleans(), st.none(), st.text(max_size=2)), max_size=6))
def test_values_keep_their_type(values: list[object]) -> None:
    batch = Batch.build(range(len(values)), values)
    assert all(map(same, batch.plain(), values))
    kinds = {type(value) for value in values}
    numeric = len(kinds) == 1 and kinds <= {float, int, bool}
    assert isinstance(batch.values, np.ndarray) == numeric


@given(batches(), SPAN, SPAN)
def test_slice_is_half_open(batch: Batch, start: int, end: int) -> None:
    expected = Batch.of([(time, value) for time, value in batch if start < time <= end])
    assert batch.slice(start, end) == expected if start < end else not batch.slice(start, end)


@given(batches(), SPAN, st.integers(1, 4))
def test_last_and_get(batch: Batch, instant: int, count: int) -> None:
    before = [(time, value) for time, value in batch if time <= instant]
    assert batch.last(instant, count) == Batch.of(before[-count:])
    known = dict(batch)
    for time in [instant, *known]:
        got = batch.get(time, "nothing")
        assert same(got, known.get(time, "nothing"))
        assert not isinstance(got, np.generic)


@given(batches(), st.lists(SPAN, max_size=4))
def test_concat_undoes_slicing(batch: Batch, edges: list[int]) -> None:
    bounds = [-(10**12), *sorted(set(edges)), 10**12]
    parts = [batch.slice(start, end) for start, end in itertools.pairwise(bounds)]
    assert Batch.concat(parts) == batch


@given(batches(), batches())
def test_update_lets_the_new_win(old: Batch, new: Batch) -> None:
    assert old.update(new) == Batch.of([*old, *new])


@given(batches(max_size=15), batches(max_size=15), interval_sets(-90, 90))
def test_replace_is_by_interval(old: Batch, new: Batch, spans: TimeIntervals) -> None:
    inside = Batch.of([(time, value) for time, value in new if time in spans])
    expected = Batch.of([*((time, value) for time, value in old if time not in spans), *inside])
    assert old.replace(spans.pairs, inside) == expected


@given(batches("number", missing=True))
def test_numbers(batch: Batch) -> None:
    got = batch.numbers()
    assert got.dtype == np.float64
    expected = [math.nan if value is None else float(value) for _, value in batch]
    assert all(map(same, got.tolist(), expected))


def test_numbers_names_what_is_none() -> None:
    with pytest.raises(TypeError, match="'on' at time 7 is not a number"):
        Batch.of([(5, 1), (7, "on")]).numbers()
    assert Batch.of([(5, True), (6, None)]).numbers().tolist()[0] == 1.0


def test_equality_is_by_bits() -> None:
    assert Batch.of([(1, math.nan)]) == Batch.of([(1, math.nan)])
    assert Batch.of([(1, 0.0)]) != Batch.of([(1, -0.0)])
    assert Batch.of([(1, 1)]) != Batch.of([(1, 1.0)])
    assert Batch.of([(1, True)]) != Batch.of([(1, 1)])
    assert Batch.of([(1, [0.0])]) != Batch.of([(1, [-0.0])])
    assert Batch.of([]) == NOTHING
    assert Batch.of([(1, 1)]) != {1: 1}


def test_slice_of_a_mixed_batch_equals_the_same_built_alone() -> None:
    """A slice of a list may hold numbers only; that is a list, and equal to the array of the same numbers."""
    mixed = Batch.of([(1, "x"), (2, 1.5), (3, 2.5)])
    assert mixed.slice(1, 3) == Batch.of([(2, 1.5), (3, 2.5)])
    assert Batch.of([(2, 1.5), (3, 2.5)]) == mixed.slice(1, 3)
    assert mixed.slice(1, 3) != Batch.of([(2, 1), (3, 2)])


def test_slices_share_memory_and_print_short() -> None:
    batch = Batch.of([(time, float(time)) for time in range(10)])
    assert np.shares_memory(batch.slice(2, 5).values, batch.values)
    assert repr(batch) == "Batch(10: {0: 0.0, 1: 1.0, 2: 2.0, 3: 3.0, ...})"
    assert isinstance(column(np.array([1.5], np.float32)), np.ndarray)
    with pytest.raises(IndexError):
        _ = NOTHING.first_time
    with pytest.raises(TypeError):
        hash(batch)
