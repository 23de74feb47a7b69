"""Functions of what is inside of a window: a few by name, or the user's.

The named ones are the statistics of `hs_stream_tools.windows`: what ``mean`` gives for some instances is what
``sliding_mean`` gives for a window that holds exactly these, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from hs_stream.core.batch import Batch
from hs_stream.core.time import TimeInterval, from_ms
from hs_stream.core.tool import SKIP, Duration, batch_of
from hs_stream.core.value import Value, canonical
from hs_stream_tools._sliding import Ints, Sliding
from hs_stream_tools.functions import function_of, stored
from hs_stream_tools.windows import (
    SlidingCount,
    SlidingFirst,
    SlidingLast,
    SlidingMax,
    SlidingMean,
    SlidingMedian,
    SlidingMin,
    SlidingStd,
    SlidingSum,
)

__all__ = ["NAMED", "WindowFunction", "instances", "named"]

NAMED: Final[Mapping[str, Sliding]] = {
    kind.name.removeprefix("sliding_"): kind(width=Duration(1 << 40))
    for kind in (
        SlidingMean,
        SlidingSum,
        SlidingMin,
        SlidingMax,
        SlidingCount,
        SlidingMedian,
        SlidingStd,
        SlidingFirst,
        SlidingLast,
    )
}
"""The functions that have a name. Their width only matters to `WindowFunction.of`: it is longer than any list."""


def named(function: Any) -> Sliding | None:
    """The function of this name, if it is one. ``ValueError`` for a text that is neither a name nor an import path."""
    if not isinstance(function, str) or ":" in function:
        return None
    if function not in NAMED:
        raise ValueError(
            f"function is {function!r}: write one of {', '.join(NAMED)}, or an import path package.module:function"
        )
    return NAMED[function]


def instances(data: Batch, low: Ints, high: Ints, with_time: bool) -> Iterator[list[Value]]:
    """The values of each ``data.slice_index(low[i], high[i])`` as a list, or ``[time, value]`` for each of them."""
    for first, last in zip(low.tolist(), high.tolist(), strict=True):
        part = data.slice_index(first, last)
        yield [[from_ms(time), value] for time, value in part] if with_time else list(part.plain())


class WindowFunction:
    """``function`` of the tool ``tool``: a name, an import path, or a Python function."""

    def __init__(self, tool: str, function: Any, with_time: bool = False) -> None:
        self._tool = tool
        self._function = function
        self._with_time = with_time
        self._named = named(function)
        if self._named is not None and with_time:
            raise ValueError(f"with_time is for functions of yours: {function} looks at values only")
        self._call: Callable[[list[Value]], Any] | None = None if self._named is not None else function_of(function)

    def over(self, data: Batch, low: Ints, high: Ints, times: Ints) -> Batch:
        """The outputs at ``times`` for the windows ``data.slice_index(low[i], high[i])``, none of them empty."""
        if self._named is not None:
            try:
                return batch_of(times, self._named.reduce_windows(data, low, high, times))
            except TypeError as error:
                raise TypeError(f"{self._tool} with function={self._function}: {error}") from None
        lists = instances(data, low, high, self._with_time)
        if isinstance(data.values, list):
            # Windows may share objects, and a function may change what it is given.
            lists = map(canonical, lists)
        return batch_of(times, [self.result(*given) for given in zip(times.tolist(), lists, strict=True)])

    def result(self, time: int, values: list[Value]) -> Value:
        """What the user's function returns for ``values``, in canonical form, or `SKIP`."""
        assert self._call is not None
        return stored(self._tool, self._function, time, self._call(values))

    def of(self, time: int, values: Sequence[float]) -> Value:
        """The output at ``time`` for these numbers (at least one), or `SKIP`."""
        if self._named is None:
            return self.result(time, list(values))
        places = range(1, len(values) + 1)
        found = self._named.evaluate(TimeInterval(len(values) - 1, len(values)), [Batch.build(places, list(values))])
        return found.get(len(values)) if found else SKIP
