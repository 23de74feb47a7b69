"""Readings as people have them: pairs, mappings, and what pandas holds."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.value import Value, canonical
from hs_stream.hyperstream.spans import instant_of

__all__ = ["readings_of"]


def readings_of(data: Any, now: int) -> Iterator[tuple[int, Value]]:
    """``(milliseconds, canonical value)`` of each reading in ``data``, one after the other.

    ``data``: ``(time, value)`` pairs, a mapping of times to values, or a pandas Series or DataFrame whose index holds
    times with a zone (each row of a DataFrame is one object). `ConfigurationError` names the reading that is wrong.
    """
    for number, (when, value) in enumerate(_pairs(data), start=1):
        try:
            yield instant_of(when, now), canonical(value)
        except ConfigurationError as error:
            raise ConfigurationError(f"reading {number}: {error.message}", hint=error.hint) from None
        except ValueError as error:  # it begins with the place in the value
            raise ConfigurationError(f"reading {number}{error}") from None


def _pairs(data: Any) -> Iterable[tuple[Any, Any]]:
    # Who has a Series has imported pandas; nobody else pays for it.
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(data, (pandas.Series, pandas.DataFrame)):
        return _rows(pandas, data)
    if isinstance(data, Mapping):
        return data.items()
    if isinstance(data, (str, bytes)) or not isinstance(data, Iterable):
        raise ConfigurationError(f"{data!r} are no readings", hint="write [(time, value), ...]")
    return map(_pair, data)


def _pair(item: Any) -> tuple[Any, Any]:
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return item[0], item[1]
    raise ConfigurationError(f"{item!r} is no reading", hint="write (time, value)")


def _rows(pandas: Any, data: Any) -> Iterable[tuple[int, Any]]:
    index = data.index
    if not isinstance(index, pandas.DatetimeIndex) or index.hasnans:
        raise ConfigurationError("the index holds no times", hint='use .set_index("time") with a column of datetimes')
    if index.tz is None:
        raise ConfigurationError("the times of the index name no instants", hint='use .tz_localize("UTC")')
    times = index.as_unit("ms").asi8.tolist()

    def plain(column: Any) -> list[Any]:
        return [None if value is pandas.NA or value is pandas.NaT else value for value in column.tolist()]

    if isinstance(data, pandas.Series):
        return zip(times, plain(data), strict=True)
    names = [str(name) for name in data.columns]
    rows = zip(*(plain(data.iloc[:, at]) for at in range(len(names))), strict=True)
    return ((time, dict(zip(names, row, strict=True))) for time, row in zip(times, rows, strict=True))
