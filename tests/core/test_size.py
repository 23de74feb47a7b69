"""The one measure of what is bounded in bytes."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import hypothesis.strategies as st
from hypothesis import given

from hs_stream.core.batch import Batch
from hs_stream.core.packing import pack
from hs_stream.core.size import is_full, size_of, size_of_batch
from hs_stream.core.time import TimeInterval

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats()
    | st.text()
    | st.binary(max_size=99)
)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30)


def deep(value: Any) -> int:
    """What Python says of every object in it, shared or not."""
    inside = [*value.keys(), *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sys.getsizeof(value) + sum(map(deep, inside))


@given(values)
def test_it_is_about_what_python_says_and_never_less_than_what_is_stored(value: Any) -> None:
    assert deep(value) / 3 - 64 <= size_of(value) <= 3 * deep(value) + 64
    assert size_of(value) >= len(pack(value)), "a store may stop at the packed bytes"


def test_every_kind_of_value_has_a_size() -> None:
    assert size_of(datetime(2026, 1, 1, tzinfo=UTC)) > 0
    assert size_of(TimeInterval(0, 1)) > 0
    assert size_of((1.0, "x" * 1000)) > 1000


def test_a_batch_of_numbers_has_the_bytes_of_its_arrays() -> None:
    assert size_of_batch(Batch.of((time, 1.0) for time in range(1000))) == 16_000


def test_a_read_is_full_by_number_or_by_bytes() -> None:
    batch = Batch.of([(1, "x" * 1000), (2, "y" * 1000)])
    assert [is_full(batch, limit, None) for limit in (2, 3, None)] == [True, False, False]
    assert [is_full(batch, 3, budget) for budget in (1, 2000, 1 << 20)] == [True, True, False]
