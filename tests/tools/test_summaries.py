"""Histograms and percentiles against numpy, statistics and counting by hand."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter
from typing import Any

import numpy as np
import pytest

from hs_stream.core.batch import Batch
from hs_stream.core.errors import ConfigurationError
from hs_stream.core.time import TimeInterval
from hs_stream.core.tool import Tool
from hs_stream.plugins import default_registry

REGISTRY = default_registry()
NAN, INF = float("nan"), float("inf")


def build(name: str, **parameters: Any) -> Tool:
    return REGISTRY.resolve(name).build(parameters)


def outputs(name: str, *values: Any, **parameters: Any) -> list[Any]:
    """The outputs for ``values``, one a millisecond; a value without an output gives ``...``."""
    there = dict(build(name, **parameters).evaluate(TimeInterval(-1, 1000), [Batch.of(enumerate(values))]))
    return [there.get(time, ...) for time in range(len(values))]


def random_lists(count: int) -> list[list[float]]:
    random = np.random.default_rng(20_150_204)
    return [(random.standard_normal(random.integers(1, 40)) * 3).round(1).tolist() for _ in range(count)]


# --- histogram_from_list ---


def test_histogram_of_numbers_on_breaks() -> None:
    """A break belongs to the bin above it."""
    breaks = [0, 10, 20]
    assert outputs("histogram_from_list", [0, 10, 20], breaks=breaks) == [[0, 1, 1, 1]]
    below = [float(np.nextafter(at, -INF)) for at in breaks]
    assert outputs("histogram_from_list", below, breaks=breaks) == [[1, 1, 1, 0]]
    assert outputs("histogram_from_list", [-INF, INF, -5, 25], breaks=breaks) == [[2, 0, 0, 2]]


def test_histogram_equals_numpy_and_a_plain_count() -> None:
    breaks = [-4.0, -1.5, 0.0, 0.1, 3.3]
    lists = random_lists(60)
    got = outputs("histogram_from_list", *lists, breaks=breaks)
    assert got == [np.histogram(found, [-INF, *breaks, INF])[0].tolist() for found in lists]
    edges = [-INF, *breaks, INF]
    assert got == [
        [sum(low <= number < high for number in found) for low, high in itertools.pairwise(edges)] for found in lists
    ]
    assert {type(count) for counts in got for count in counts} == {int}


def test_histogram_of_spaced_breaks() -> None:
    numbers = [-0.5, 0, 0.3, 0.95, 1.0, 7]
    spaced = outputs("histogram_from_list", numbers, first_break=0, break_width=0.1, n_breaks=11)
    assert spaced == [np.histogram(numbers, [-INF, *(0 + k * 0.1 for k in range(11)), INF])[0].tolist()]
    [default] = outputs("histogram_from_list", numbers)
    assert len(default) == 102
    assert (default[0], default[1], default[2], default[8], default[-1], sum(default)) == (1, 3, 1, 1, 0, 6)
    assert outputs("histogram_from_list", [99.5, 100.0], n_breaks=101)[0][-2:] == [1, 1]


def test_histogram_ignores_what_is_missing() -> None:
    assert outputs("histogram_from_list", [], [None, NAN], [None, 1, True], None, breaks=[1]) == [
        [0, 0],
        [0, 0],
        [0, 2],
        ...,
    ]


def test_histogram_of_categories() -> None:
    rooms = ["hall", "kitchen", "hall", None, NAN, "bath", "hall"]
    expected = dict(Counter(room for room in rooms if isinstance(room, str)))
    assert outputs("histogram_from_list", rooms, [], None, categorical=True) == [expected, {}, ...]
    mixed = [1, 1, 1.5, True, "a.b", "$"]
    assert outputs("histogram_from_list", mixed, categorical=True) == [
        {"1": 2, "1.5": 1, "True": 1, "a.b": 1, "$": 1},
    ]


def test_histogram_names_what_it_cannot_count() -> None:
    with pytest.raises(TypeError, match="histogram_from_list needs numbers, but got str 'on' at index 1"):
        outputs("histogram_from_list", [1, "on"])
    with pytest.raises(TypeError, match=r"histogram_from_list needs texts or numbers, but got list \[1\] at index 0"):
        outputs("histogram_from_list", [[1]], categorical=True)
    for categorical in (False, True):
        with pytest.raises(TypeError, match=r"histogram_from_list needs lists, but got float 1\.5"):
            outputs("histogram_from_list", 1.5, categorical=categorical)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"breaks": [1, 2], "n_breaks": 3}, "give breaks, or first_break, break_width and n_breaks, or categorical"),
        ({"breaks": [1, 2], "categorical": True}, "or categorical"),
        ({"first_break": 1, "categorical": True}, "or categorical"),
        ({"breaks": []}, "breaks must hold at least one"),
        ({"breaks": [1, 1]}, r"breaks must be finite and ascend, but are \[1\.0, 1\.0\]"),
        ({"breaks": [2, 1]}, "must be finite and ascend"),
        ({"breaks": [1, INF]}, "inf is not a finite number"),
        ({"break_width": 0}, "must be finite and ascend"),
        ({"first_break": 1e300, "n_breaks": 2}, "must be finite and ascend"),
        ({"n_breaks": 0}, "n_breaks must be at least 1, but is 0"),
    ],
)
def test_histogram_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build("histogram_from_list", **parameters)


def test_histogram_takes_the_parameters_of_hyperstream() -> None:
    given = {"first_break": -120, "break_width": 1, "n_breaks": 101, "breaks": None}
    assert len(outputs("histogram_from_list", [-70], **given)[0]) == 102


# --- percentiles_from_list ---


def test_percentiles_equal_numpy_and_statistics() -> None:
    lists = random_lists(60)
    wanted = [90, 0, 50, 2.5, 100, 33.3]
    got = outputs("percentiles_from_list", *lists, percentiles=wanted)
    assert got == [np.percentile(found, wanted).tolist() for found in lists]
    for found, segmented in zip(lists, outputs("percentiles_from_list", *lists, n_segments=8), strict=True):
        if len(found) > 1:
            assert segmented[1:-1] == pytest.approx(statistics.quantiles(found, n=8, method="inclusive"), rel=1e-12)
        assert (segmented[0], segmented[-1]) == (min(found), max(found))


def test_percentiles_of_few_numbers() -> None:
    assert outputs("percentiles_from_list", [3, 1], [7], [], [None, NAN], [2, None], None, n_segments=4) == [
        [1.0, 1.5, 2.0, 2.5, 3.0],
        [7.0] * 5,
        ...,
        ...,
        [2.0] * 5,
        ...,
    ]
    assert outputs("percentiles_from_list", [1, 2], percentiles=[50]) == [[1.5]]
    assert len(outputs("percentiles_from_list", [1, 2])[0]) == 101


def test_percentiles_between_infinities_are_those_of_numpy() -> None:
    found = [-INF, 1.0, 2.0, INF]
    with np.errstate(all="ignore"):
        expected = np.percentile(found, [0, 40, 50, 90, 100])
    [got] = outputs("percentiles_from_list", found, percentiles=[0, 40, 50, 90, 100])
    np.testing.assert_array_equal(got, expected)


def test_percentiles_leave_list_and_parameters_alone() -> None:
    """HyperStream divides the caller's list of percentiles by 100, so that the next instance gets other ones."""
    wanted, found = [50, 100], [3.0, 1.0, 2.0]
    tool = build("percentiles_from_list", percentiles=wanted)
    batch = Batch.of([(1, found), (2, found), (3, found)])
    assert [value for _, value in tool.evaluate(TimeInterval(0, 9), [batch])] == [[2.0, 3.0]] * 3
    assert (wanted, found) == ([50, 100], [3.0, 1.0, 2.0])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_segments": 4, "percentiles": [50]}, "give n_segments or percentiles, not both"),
        ({"n_segments": 0}, "n_segments must be at least 1, but is 0"),
        ({"percentiles": []}, "percentiles must hold at least one"),
        ({"percentiles": [50, 100.5]}, r"percentiles must be 0 to 100, but one is 100\.5"),
        ({"percentiles": [-1]}, r"percentiles must be 0 to 100, but one is -1\.0"),
        ({"percentiles": 50}, r"parameter percentiles: 50 is not a list"),
    ],
)
def test_percentiles_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build("percentiles_from_list", **parameters)


def test_percentiles_name_what_they_cannot_use() -> None:
    with pytest.raises(TypeError, match=r"percentiles_from_list needs numbers, but got dict \{\} at index 0"):
        outputs("percentiles_from_list", [{}])
    with pytest.raises(TypeError, match="percentiles_from_list needs lists, but got int 1"):
        outputs("percentiles_from_list", 1)
