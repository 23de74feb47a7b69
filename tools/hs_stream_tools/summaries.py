"""Tools that summarise lists of numbers: histograms and percentiles."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hs_stream.core.tool import SKIP, MapTool
from hs_stream.core.value import Value
from hs_stream_tools._values import items, numbers, wrong

__all__ = ["HistogramFromList", "PercentilesFromList"]


@dataclass(frozen=True, kw_only=True)
class HistogramFromList(MapTool):
    """How many numbers of each list lie between which breaks, or how often each category occurs.

    ``breaks``: ascending, or evenly spaced by ``first_break`` (default 0), ``break_width`` (1) and ``n_breaks`` (101).
    Output for n breaks: n + 1 ints, the counts of ``numpy.histogram`` with minus and plus infinity put around the
    breaks. A number that equals a break is counted above it: the first count is of numbers below the first break, the
    last one of those at or above the last, and each between is of ``break <= number < next break``.

    ``categorical: true`` takes no breaks and counts equal elements instead. Output: an object of ints, named by the
    elements' text (``kitchen``, ``3``, ``1.5``, ``True``).

    Missing elements (``None``, NaN) are not counted. No output where the whole value is ``None``; ``TypeError`` for
    what is no list, and for an element that is no number (``categorical``: nor a text), with its index.

    >>> HistogramFromList(breaks=(0.0, 10.0, 20.0)).map([-1, 0, 9.9, 10, 20, None])
    [1, 2, 1, 1]
    >>> HistogramFromList(categorical=True).map(["hall", "kitchen", "hall"])
    {'hall': 2, 'kitchen': 1}
    """

    name = "histogram_from_list"
    version = "1.0.0"
    takes = "[number]"
    samples = (
        {},
        {"breaks": [-2, 0, 0.5, 3]},
        {"first_break": -5, "break_width": 0.5, "n_breaks": 21},
        {"categorical": True},
    )
    first_break: float | None = None
    break_width: float | None = None
    n_breaks: int | None = None
    breaks: tuple[float, ...] | None = None
    categorical: bool = False

    def __post_init__(self) -> None:
        spaced = (self.first_break, self.break_width, self.n_breaks) != (None, None, None)
        if (self.breaks is not None) + spaced + self.categorical > 1:
            raise ValueError("give breaks, or first_break, break_width and n_breaks, or categorical")
        if self.n_breaks is not None and self.n_breaks < 1:
            raise ValueError(f"n_breaks must be at least 1, but is {self.n_breaks}")
        if not self.categorical and not (self.edges[:-1] < self.edges[1:]).all():
            raise ValueError(f"breaks must be finite and ascend, but are {self.edges[1:-1].tolist()}")
        if self.breaks == ():
            raise ValueError("breaks must hold at least one")

    @cached_property
    def edges(self) -> npt.NDArray[np.float64]:
        """The breaks between minus and plus infinity."""
        breaks = self.breaks
        if breaks is None:
            first = 0.0 if self.first_break is None else self.first_break
            width = 1.0 if self.break_width is None else self.break_width
            breaks = tuple(first + at * width for at in range(101 if self.n_breaks is None else self.n_breaks))
        return np.array([-math.inf, *breaks, math.inf])

    def map(self, value: Value) -> Value:
        """The counts, or SKIP."""
        if self.categorical:
            found = items(self.name, value)
            return SKIP if found is None else _categories(self.name, found)
        floats = numbers(self.name, value)
        return SKIP if floats is None else np.histogram(np.array(floats), self.edges)[0].tolist()


def _categories(tool: str, elements: list[Value]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for index, element in enumerate(elements):
        if not isinstance(element, (str, int, float, type(None))):
            raise wrong(tool, "texts or numbers", element, f" at index {index}")
        if element is not None and element == element:
            counts[str(element)] += 1
    return dict(counts)


@dataclass(frozen=True, kw_only=True)
class PercentilesFromList(MapTool):
    """Percentiles of the numbers in each list, interpolated linearly between neighbours.

    ``percentiles``: a list of 0 (minimum) to 100 (maximum), in any order; or ``n_segments`` (default 100) of equal
    width between 0 and 100: 4 gives 0, 25, 50, 75 and 100. Output: a list of as many floats, as ``numpy.percentile``
    gives them (type 7 of Hyndman and Fan, 1996), also for a single percentile.

    Missing elements (``None``, NaN) are ignored. No output for a list without a number, nor where the whole value is
    ``None``; ``TypeError`` for what is no list, and for an element that is no number, with its index.

    >>> PercentilesFromList(n_segments=4).map([4.0, 1.0, 2.0])
    [1.0, 1.5, 2.0, 3.0, 4.0]
    """

    name = "percentiles_from_list"
    version = "1.0.0"
    takes = "[number]"
    samples = ({}, {"n_segments": 4}, {"percentiles": [90, 50, 2.5]})
    n_segments: int | None = None
    percentiles: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.n_segments is not None and self.percentiles is not None:
            raise ValueError("give n_segments or percentiles, not both")
        if self.n_segments is not None and self.n_segments < 1:
            raise ValueError(f"n_segments must be at least 1, but is {self.n_segments}")
        if self.percentiles == ():
            raise ValueError("percentiles must hold at least one")
        for percentile in self.percentiles or ():
            if not 0 <= percentile <= 100:
                raise ValueError(f"percentiles must be 0 to 100, but one is {percentile}")

    @cached_property
    def places(self) -> npt.NDArray[np.float64]:
        """The percentiles."""
        if self.percentiles is not None:
            return np.array(self.percentiles)
        segments = 100 if self.n_segments is None else self.n_segments
        return np.array([at * 100.0 / segments for at in range(segments + 1)])

    def map(self, value: Value) -> Value:
        """The percentiles, or SKIP."""
        found = numbers(self.name, value)
        if not found:
            return SKIP
        with np.errstate(all="ignore"):
            return np.percentile(np.array(found), self.places).tolist()
