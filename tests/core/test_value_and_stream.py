"""What a value is, when two are the same, and names of streams."""

from __future__ import annotations

import copy
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.stream import StreamId, check_plate_value, difference, unpublishable
from hs_stream.core.time import TimeInterval
from hs_stream.core.value import MAX_DEPTH, Value, canonical, same
from hs_stream.testing.strategies import batches, values


@given(values("any", missing=True))
def test_canonical_values_stay(value: Value) -> None:
    got = canonical(value)
    assert same(got, value)
    assert same(canonical(got), got)
    if isinstance(value, (dict, list)):
        assert got is not value


@given(values("any"), values("any"))
def test_same_is_an_equivalence(left: Value, right: Value) -> None:
    assert same(left, copy.deepcopy(left))
    assert same(left, right) == same(right, left)


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        ((1, (2,)), [1, [2]]),
        (np.float64(1.5), 1.5),
        (np.int32(3), 3),
        (np.bool_(True), True),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (datetime(2015, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), datetime(2015, 1, 1, tzinfo=UTC)),
        (datetime(2015, 1, 1, 0, 0, 0, 1_999, tzinfo=UTC), datetime(2015, 1, 1, 0, 0, 0, 1_000, tzinfo=UTC)),
        (TimeInterval(1, 2), TimeInterval(1, 2)),
        (b"\xff", b"\xff"),
        ((1 << 63) - 1, (1 << 63) - 1),
    ],
)
def test_canonical_form(given_value: Any, expected: Value) -> None:
    got = canonical(given_value)
    assert same(got, expected)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"a": [1, {2}]}, r"\.a\[1\]: set cannot be stored"),
        ({1: 2}, ": the key 1 of an object is not text"),
        ({"a\0": 2}, "NUL"),
        (1 << 63, "does not fit into 64 bits"),
        (datetime(2015, 1, 1), "naive datetime"),  # noqa: DTZ001 - what is refused
        ("\ud800", "lone surrogate"),
        (1j, "complex cannot be stored"),
        (object(), "object cannot be stored"),
    ],
)
def test_what_is_no_value(wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        canonical(wrong)


def test_depth_is_bounded() -> None:
    value: Any = 0
    for _ in range(MAX_DEPTH):
        value = [value]
    assert same(canonical(value), value)
    with pytest.raises(ValueError, match="nested more than"):
        canonical([value])


def test_same_looks_at_type_and_bits() -> None:
    assert same(math.nan, math.nan)
    assert not same(1, True)
    assert not same(1, 1.0)
    assert not same(0.0, -0.0)
    assert same({"a": [math.nan]}, {"a": [math.nan]})
    assert not same({"a": 1}, {"a": 1, "b": 2})


@given(batches(), batches())
def test_difference_turns_old_into_new(old: Batch, new: Batch) -> None:
    found = difference(old, new)
    contents = {time: value for time, value in old if time not in found.retracted}
    contents.update(dict(found.inserted))
    contents.update(dict(found.revised))
    assert Batch.of(contents.items()) == new
    assert not set(dict(found.inserted)) & set(dict(old))
    assert set(dict(found.revised)) <= set(dict(old))
    assert bool(found) == (old != new)
    assert found.times() == sorted(found.times())
    assert len(found) == len(found.times())
    assert not difference(new, new)
    assert difference(NOTHING, new).inserted == new


@pytest.mark.parametrize(
    "text", ["smooth", "smooth[house=1]", "smooth[house=1,room=kitchen]", "a.b-c_1[room=living room/ß]"]
)
def test_stream_text_round_trip(text: str) -> None:
    assert str(StreamId.parse(text)) == text


def test_stream_meta_is_sorted() -> None:
    stream = StreamId.make("x", {"room": "kitchen", "house": "1"})
    assert stream.meta == (("house", "1"), ("room", "kitchen"))
    assert stream == StreamId.parse("x[room=kitchen,house=1]")
    assert (stream.value_of("room"), stream.value_of("floor")) == ("kitchen", None)


@pytest.mark.parametrize("wrong", ["", "1x", "x[", "x[a]", "x[a=1,a=2]", "x[a=]", "x[a=b]c", "x y"])
def test_wrong_stream_names(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        StreamId.parse(wrong)


@pytest.mark.parametrize("wrong", ["", "  ", "a+b", "#", "a=b", "a,b", "[", "x\ny", "x" * 129, "\x7f"])
def test_wrong_plate_values(wrong: str) -> None:
    with pytest.raises(ValueError, match="plate value"):
        check_plate_value(wrong)


@pytest.mark.parametrize(
    "bad", ["\x00", "\x01", "\x1f", "\x7f", "\x80", "\x85", "\x9f", "\ud800", "\udfff", "\ufdd0", "\ufdef", "\ufffe"]
    + [chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF)],
)  # fmt: skip
def test_what_mqtt_forbids_is_no_plate_value_but_a_stored_stream_can_be_named(bad: str) -> None:
    assert unpublishable(f"a{bad}b") == bad
    with pytest.raises(ValueError, match="plate value"):
        check_plate_value(f"a{bad}b")
    if bad >= "\x80":
        assert StreamId.parse(f"x[room=a{bad}b]").value_of("room") == f"a{bad}b"


@given(st.characters(codec="utf-8", exclude_categories=["Cc"]))
def test_every_other_character_is_fine(good: str) -> None:
    is_no_character = "\ufdd0" <= good <= "\ufdef" or ord(good) & 0xFFFE == 0xFFFE
    assert bool(unpublishable(good)) == is_no_character
