"""What is inside of windows that are values of a stream, or that lie around the instances of one.

Rules of this module:

1. A window is ``(start, end]``. The window that counts at t is the value of input 0 at t. One that is missing
   (``None``, NaN) has no output; any other value that is no `TimeInterval` raises ``TypeError``.
2. What an output may read is declared before there is any window: ``(t - max_width, t + max_ahead]`` of input 1. A
   window that reaches further raises `ToolError` that says what to write.
3. Windows may overlap, leave gaps, and come in any order: each counts for itself.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.errors import ToolError
from hs_stream.core.time import MAX_TIME, MIN_TIME, TimeInterval, format_duration, format_time
from hs_stream.core.tool import Drive, Duration, FromInput, Pointwise, Support, Takes, Tool, Window
from hs_stream_tools._sliding import Ints
from hs_stream_tools._values import wrong
from hs_stream_tools._window_functions import WindowFunction, instances
from hs_stream_tools.functions import import_path
from hs_stream_tools.joins import check_count
from hs_stream_tools.window_streams import check_order

__all__ = ["RelativeWindow", "SlidingApply", "SlidingListify", "SlidingSink"]


class OverWindows(Tool):
    """Two inputs: what drives, with a window at each of its times, and the data that the windows lie over."""

    kind = "window"
    arity = 2
    alignment = 0

    @abstractmethod
    def reach(self) -> tuple[int, int]:
        """How far a window may reach before and after t."""

    @abstractmethod
    def windows(self, driving: Batch) -> tuple[Ints, Ints, Ints]:
        """``(times, starts, ends)`` of the windows."""

    @abstractmethod
    def over(self, data: Batch, low: Ints, high: Ints, times: Ints) -> Batch:
        """The outputs at ``times`` for the windows ``data.slice_index(low[i], high[i])``, some of them empty."""

    def support(self, slot: int) -> Support:
        """What drives at t; of the data what a window at t may reach."""
        return Pointwise() if slot == 0 else Window(*self.reach())

    def drive(self) -> Drive:
        """Input 0's times."""
        return FromInput(0)

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """`over` all windows at the times of ``interval``."""
        check_count(self, sources, 2)
        driving, data = sources[0].slice(interval.start, interval.end), sources[1]
        times, starts, ends = self.windows(driving)
        if not len(times):
            return NOTHING
        return self.over(data, data.times.searchsorted(starts, "right"), data.times.searchsorted(ends, "right"), times)


@dataclass(frozen=True, kw_only=True)
class GivenWindows(OverWindows):
    """Input 0 holds the windows (rules 1 and 2 of the module)."""

    takes: ClassVar[Takes | tuple[Takes, ...]] = ("interval", "any")
    samples: ClassVar[Sequence[Mapping[str, Any]]] = (
        {"max_width": "10s"},
        {"max_width": "1m", "max_ahead": "20s"},
        {"max_width": "0s", "max_ahead": "1m"},
    )
    max_width: Duration
    max_ahead: Duration = Duration(0)

    def __post_init__(self) -> None:
        if self.max_width < 0 or self.max_ahead < 0 or not self.max_width + self.max_ahead:
            raise ValueError(
                "max_width and max_ahead say how far windows reach before and ahead of their time: neither may be "
                f"negative, nor both 0, as {format_duration(self.max_width)} and {format_duration(self.max_ahead)} are"
            )

    def reach(self) -> tuple[int, int]:
        """As declared."""
        return self.max_width, self.max_ahead

    def windows(self, driving: Batch) -> tuple[Ints, Ints, Ints]:
        """The instances that are there, all of them inside of what is declared."""
        rows = []
        for time, window in driving:
            if window is None or window != window:
                continue
            if not isinstance(window, TimeInterval):
                raise wrong(self.name, "windows (TimeInterval values) as its first input", window, _at(time))
            self._check(time, window)
            rows.append((time, window.start, window.end))
        times, starts, ends = np.array(rows, np.int64).reshape(-1, 3).T
        return times, starts, ends

    def _check(self, time: int, window: TimeInterval) -> None:
        if window.start < time - self.max_width:
            needed = time - window.start
            raise ToolError(
                f"{self.name}: the window {window}{_at(time)} begins more than max_width before its time",
                hint="give it a start" if window.start <= MIN_TIME else f"write max_width: {format_duration(needed)}",
            )
        if window.end > time + self.max_ahead:
            needed = window.end - time
            raise ToolError(
                f"{self.name}: the window {window}{_at(time)} ends more than max_ahead after its time",
                hint="give it an end" if window.end >= MAX_TIME else f"write max_ahead: {format_duration(needed)}",
            )


def _at(time: int) -> str:
    return f" at {format_time(time)}"


@dataclass(frozen=True, kw_only=True)
class SlidingApply(GivenWindows):
    """A function of the data inside of each window. Inputs: the windows (`TimeInterval` values), then the data.

    ``function``: ``mean``, ``sum``, ``min``, ``max``, ``count``, ``median``, ``std``, ``first`` or ``last``, each as
    the tool ``sliding_mean``, ...; or an import path ``package.module:function`` or, in Python, the function itself,
    as for ``apply``. Such a function gets a list of the values in the window, in time order; with ``with_time: true``
    a list of ``[time, value]``, the times being aware UTC datetimes.

    ``max_width``: how long before its time a window may begin. ``max_ahead``: how long after its time one may end; an
    output waits until the data is known that far. A window that reaches further is an error. Output: what the function
    gives, at the time of the window. None for a window without an instance.

    >>> windows = Batch.of([(4000, TimeInterval(0, 4000)), (5000, TimeInterval(2000, 4000))])
    >>> data = Batch.of([(1000, 1.0), (2000, 2.0), (4000, 6.0)])
    >>> list(SlidingApply(function="mean", max_width=5000).evaluate(TimeInterval(0, 5000), [windows, data]))
    [(4000, 3.0), (5000, 6.0)]
    """

    name = "sliding_apply"
    version = "1.0.0"
    takes = ("interval", "number")
    samples = (
        {"function": "mean", "max_width": "1h"},
        {"function": "sum", "max_width": "1m", "max_ahead": "20s"},
        {"function": "max", "max_width": "0s", "max_ahead": "1m"},
        *({"function": name, "max_width": "10s"} for name in ("min", "count", "median", "std", "first", "last")),
        {"function": "builtins:repr", "max_width": "1m", "with_time": True},
    )
    function: Any
    with_time: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.call  # noqa: B018 - loads it now, so that a wrong path is found before the first reading

    @cached_property
    def call(self) -> WindowFunction:
        """The function."""
        return WindowFunction(self.name, self.function, self.with_time)

    def parameters(self) -> dict[str, Any]:
        """With the import path of the function. `ConfigurationError` when it has none."""
        return super().parameters() | {"function": import_path(self.function)}

    def over(self, data: Batch, low: Ints, high: Ints, times: Ints) -> Batch:
        """The function's results for the windows that are not empty."""
        filled = low < high
        return self.call.over(data, low[filled], high[filled], times[filled]) if filled.any() else NOTHING


@dataclass(frozen=True, kw_only=True)
class SlidingListify(GivenWindows):
    """The values inside of each window as a list. Inputs: the windows (`TimeInterval` values), then the data.

    Output: the values in time order; with ``include_time: true`` ``[time, value]`` for each, the times being aware UTC
    datetimes. None for a window without an instance. ``max_width``, ``max_ahead``: as for ``sliding_apply``.

    >>> windows = Batch.of([(4000, TimeInterval(1000, 4000))])
    >>> data = Batch.of([(1000, "a"), (2000, "b"), (4000, "c")])
    >>> list(SlidingListify(max_width=5000).evaluate(TimeInterval(0, 5000), [windows, data]))
    [(4000, ['b', 'c'])]
    """

    name = "sliding_listify"
    version = "1.0.0"
    samples = (*GivenWindows.samples, {"max_width": "10s", "include_time": True})
    include_time: bool = False

    def over(self, data: Batch, low: Ints, high: Ints, times: Ints) -> Batch:
        """The lists that are not empty."""
        filled = low < high
        return Batch.build(times[filled], list(instances(data, low[filled], high[filled], self.include_time)))


@dataclass(frozen=True, kw_only=True)
class SlidingSink(GivenWindows):
    """No output: whoever asks for it has the windows computed, and the data that they lie over.

    Inputs: the windows (`TimeInterval` values), then the data. ``max_width``, ``max_ahead``: as for ``sliding_apply``;
    a window that reaches further is an error here too, because its data would not be computed.

    >>> windows = Batch.of([(4000, TimeInterval(1000, 4000))])
    >>> list(SlidingSink(max_width=5000).evaluate(TimeInterval(0, 5000), [windows, Batch.of([(2000, 1.0)])]))
    []
    """

    name = "sliding_sink"
    version = "1.0.0"
    output_kind = "same"
    output_unit = "same"

    def over(self, data: Batch, low: Ints, high: Ints, times: Ints) -> Batch:
        """Nothing."""
        return NOTHING


@dataclass(frozen=True, kw_only=True)
class RelativeWindow(OverWindows):
    """What lies around each instance of a stream: the values of another in ``(t + relative_start, t + relative_end]``.

    Inputs: the stream at whose times the outputs are (its values do not matter), then the data. Output: a list of the
    data's values in time order, ``[]`` where there are none; with ``values_only: false`` ``[time, value]`` for each,
    the times being aware UTC datetimes. With a ``relative_end`` > 0 an output waits until the data is known that far.

    >>> doors, power = Batch.of([(5000, True), (9000, False)]), Batch.of([(2000, 60.0), (5000, 0.0), (6000, 55.0)])
    >>> tool = RelativeWindow(relative_start=-3000, relative_end=1000)
    >>> list(tool.evaluate(TimeInterval(0, 9000), [doors, power]))
    [(5000, [0.0, 55.0]), (9000, [])]
    """

    name = "relative_window"
    version = "1.0.0"
    samples = (
        {"relative_start": "-10s", "relative_end": "0s"},
        {"relative_start": "-1m", "relative_end": "-10s", "values_only": False},
        {"relative_start": "-5s", "relative_end": "20s"},
        {"relative_start": "5s", "relative_end": "20s"},
    )
    relative_start: Duration
    relative_end: Duration
    values_only: bool = True

    def __post_init__(self) -> None:
        check_order(self.relative_start, self.relative_end, "relative_start and relative_end")

    def reach(self) -> tuple[int, int]:
        """From the start, if it is before t, to the end, if it is after t."""
        return max(-self.relative_start, 0), max(self.relative_end, 0)

    def windows(self, driving: Batch) -> tuple[Ints, Ints, Ints]:
        """One at each instance."""
        return driving.times, driving.times + self.relative_start, driving.times + self.relative_end

    def over(self, data: Batch, low: Ints, high: Ints, times: Ints) -> Batch:
        """The lists."""
        return Batch.build(times, list(instances(data, low, high, not self.values_only)))
