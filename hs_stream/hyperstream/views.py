"""Views: what a stream holds in an interval, read from the store page by page when somebody looks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from hs_stream.core.batch import Batch, Values
from hs_stream.core.errors import ConfigurationError
from hs_stream.core.time import MAX_TIME, MIN_TIME, TimeInterval, TimeIntervals, format_time, from_ms, to_ms
from hs_stream.core.value import Value, canonical
from hs_stream.hyperstream.handles import StreamHandle
from hs_stream.hyperstream.spans import finite, now_ms
from hs_stream.hyperstream.tables import Table, shown

__all__ = ["Instance", "NotComputedWarning", "View"]

_PAGE: Final = 10_000
_SHOWN: Final = 5
"""Instances of each end that a view shows of itself."""
_RECENT: Final = 60_000
"""Milliseconds: what is younger may well come by itself, so nobody is warned that it is missing."""
_POINTS: Final = 4_000
"""About as many points are drawn at the most."""


class NotComputedWarning(UserWarning):
    """A view has holes: part of its interval was never computed, or is not right any more."""


class Instance(NamedTuple):
    """One instance of a stream: an aware UTC datetime and a value."""

    timestamp: datetime
    value: Value


class View:
    """The instances of ``stream`` in ``interval``, ascending in time. It holds none: every look reads the store.

    ``compute``: every look computes what is missing first, and nothing else. Without it, a hole is a
    `NotComputedWarning` (unless it is younger than a minute). Raises `hs_stream.core.errors.ToolError` where a tool
    failed.
    """

    def __init__(self, stream: StreamHandle, interval: TimeInterval, *, compute: bool = False) -> None:
        if compute:
            finite(interval)
        self.stream = stream
        self.interval = interval
        self._compute = compute

    # --- looking ---

    def missing(self) -> TimeIntervals:
        """Where nothing is known; instances that are there nevertheless are not right any more."""
        return TimeIntervals([self.interval]) - self.stream.calculated_intervals

    def _ready(self) -> int:
        """Compute or warn; the id of the stream in the store."""
        if self._compute:
            self.stream.compute(self.interval)
        status = self.stream.status
        if status.kind == "derived" and self.interval.start > MIN_TIME:
            until = min(self.interval.end, now_ms() - _RECENT)
            if missing := TimeIntervals.of(self.interval.start, until) - status.coverage:
                warnings.warn(f"{self.stream}: {missing} is not computed", NotComputedWarning, stacklevel=4)
        return status.id

    def _batch(self, limit: int, *, newest: bool = False) -> Batch:
        interval = self.interval
        return self.stream.channel.read(self._ready(), interval.start, interval.end, limit, newest=newest)

    def _pages(self) -> Iterator[Batch]:
        identity, start = self._ready(), self.interval.start
        while page := self.stream.channel.read(identity, start, self.interval.end, _PAGE):
            yield page
            if len(page) < _PAGE:
                return
            start = page.last_time

    def __iter__(self) -> Iterator[Instance]:
        """Instance by instance; a page of them is in memory at a time."""
        for page in self._pages():
            yield from _instances(page)

    def items(self) -> list[Instance]:
        """All instances."""
        return list(self)

    def values(self) -> list[Value]:
        """All values."""
        return [value for _, value in self]

    def timestamps(self) -> list[datetime]:
        """All times."""
        return [timestamp for timestamp, _ in self]

    def first(self, default: Any = None) -> Any:
        """The earliest instance, or ``default``."""
        return next(iter(self.head(1)), default)

    def last(self, default: Any = None) -> Any:
        """The latest instance, or ``default``."""
        return next(iter(self.tail(1)), default)

    def head(self, n: int = _SHOWN) -> list[Instance]:
        """The ``n`` earliest instances, or all if there are less."""
        return _instances(self._batch(n)) if n > 0 else []

    def tail(self, n: int = _SHOWN) -> list[Instance]:
        """The ``n`` latest instances, or all if there are less."""
        return _instances(self._batch(n, newest=True)) if n > 0 else []

    def count(self) -> int:
        """How many instances there are."""
        return self.stream.channel.count(self._ready(), self.interval)

    # --- for other libraries ---

    def _all(self) -> Batch:
        return Batch.concat(list(self._pages()))

    def to_numpy(self) -> tuple[npt.NDArray[np.datetime64], npt.NDArray[Any]]:
        """Times (``datetime64[ms]``, UTC) and values.

        Values are floats, ints or bools if all of them are; floats if they are numbers and ``None`` (which is NaN);
        else objects.
        """
        batch = self._all()
        return batch.times.astype("datetime64[ms]"), _array(batch)

    def to_pandas(self) -> Any:
        """A Series with a UTC index, or a DataFrame with a column for each key if all values are objects."""
        pandas = _library("pandas")
        batch = self._all()
        index = pandas.DatetimeIndex(batch.times.astype("datetime64[ms]"), name="time").tz_localize("UTC")
        if batch and _objects(batch.values):
            return pandas.DataFrame([_own(value) for value in batch.values], index=index)
        return pandas.Series(_array(batch), index=index, name=str(self.stream))

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Draw numbers over time with matplotlib, the keys of objects as lines of their own; the axes are returned.

        ``options`` are those of ``matplotlib.axes.Axes.plot``. Of many points the lowest and highest of each piece of
        time are drawn. `ConfigurationError` for values that are no numbers.
        """
        batch = self._all()
        lines = _lines(batch)
        if batch and not lines:
            raise ConfigurationError(f"{self.stream} holds no numbers to draw", hint="look at items() instead")
        if ax is None:
            ax = _library("matplotlib.pyplot").subplots()[1]
        for name, numbers in lines.items():
            at = _thinned(numbers)
            label = f"{self.stream} {name}".strip()
            ax.plot(batch.times[at].astype("datetime64[ms]"), numbers[at], **{"label": label, **options})
        ax.set_xlabel("UTC")
        if len(lines) > 1:
            ax.legend()
        elif lines:
            ax.set_title(str(self.stream))
        return ax

    # --- for the screen ---

    def _table(self) -> Table:
        first = self.head(2 * _SHOWN + 1)
        note = ""
        rows = _rows(first)
        if len(first) > 2 * _SHOWN:
            rows = [*rows[:_SHOWN], ("...", "..."), *_rows(self.tail(_SHOWN))]
        start, end = self.interval.start, self.interval.end
        span = "" if start <= MIN_TIME and end >= MAX_TIME else f" in {self.interval}"
        if not rows:
            note = "no instances"
        if start > MIN_TIME and (missing := self.missing()):
            note = f"{note}; not computed: {missing}".removeprefix("; ")
        return Table(f"{self.stream}{span}", ("time", "value"), rows, note)

    def __repr__(self) -> str:
        return _quietly(lambda: self._table().text(), f"<view of {self.stream} in {self.interval}>")

    def _repr_html_(self) -> str:
        return _quietly(lambda: self._table().html(), "")


def _instances(batch: Batch) -> list[Instance]:
    """With values of their own: what a caller does to an object or a list must not reach the store."""
    return [Instance(from_ms(time), _own(value)) for time, value in batch]


def _own(value: Value) -> Value:
    return canonical(value) if isinstance(value, (dict, list)) else value


def _rows(items: list[Instance]) -> list[tuple[str, str]]:
    return [(format_time(to_ms(timestamp)), shown(value)) for timestamp, value in items]


def _quietly(make: Callable[[], str], otherwise: str) -> str:
    """What is shown by itself neither raises nor warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotComputedWarning)
        try:
            return make()
        except Exception as error:  # noqa: BLE001 - a repr that raises hides what it is about
            return f"{otherwise}: {error}" if otherwise else ""


def _library(name: str) -> Any:
    """A library that need not be there. `ConfigurationError` says what to install."""
    import importlib  # noqa: PLC0415 - only who asks for one

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise ConfigurationError(f"this needs {package}", hint=f"pip install {package}") from None


def _objects(values: Values) -> bool:
    return isinstance(values, list) and all(isinstance(value, dict) for value in values)


def _array(batch: Batch) -> npt.NDArray[Any]:
    if isinstance(batch.values, np.ndarray):
        return batch.values.copy()
    try:
        return batch.numbers()
    except TypeError:
        result = np.empty(len(batch), object)
        result[:] = [_own(value) for value in batch.values]
        return result


def _lines(batch: Batch) -> dict[str, npt.NDArray[np.float64]]:
    """What can be drawn, by name; gaps are NaN."""
    if not _objects(batch.values):
        columns: dict[str, list[Value]] = {"": batch.plain()}
    else:
        names = dict.fromkeys(key for value in batch.values for key in value)
        columns = {name: [value.get(name) for value in batch.values] for name in names}
    lines = {}
    for name, column in columns.items():
        try:
            numbers = Batch(batch.times, column).numbers()
        except TypeError:
            continue
        if not np.isnan(numbers).all():
            lines[name] = numbers
    return lines


def _thinned(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Positions of what is drawn: all, or the lowest and highest of each of `_POINTS` / 2 pieces."""
    if len(numbers) <= _POINTS:
        return np.arange(len(numbers))
    found: set[int] = {0, len(numbers) - 1}
    for piece in np.array_split(np.arange(len(numbers)), _POINTS // 2):
        here = numbers[piece]
        if not np.isnan(here).all():
            found |= {int(piece[np.nanargmin(here)]), int(piece[np.nanargmax(here)])}
    return np.array(sorted(found), np.int64)
