"""What people write for instants and intervals, in milliseconds.

================================  ======================================================================
an interval                       means
================================  ======================================================================
``"-1h"``                         the last hour: ``(now - 1 h, now]``
``(start, end)``                  ``(start, end]``; each an instant
``TimeInterval``                  itself
``RelativeTimeInterval``          as seen from now
``None``                          all of the time
================================  ======================================================================

An instant is an aware datetime (or ``pandas.Timestamp``), integer milliseconds since the epoch, or text: ISO 8601 with
an offset, ``now``, or relative to now (``-1h``).
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import TypeAlias

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.time import (
    EVERYTHING,
    MAX_TIME,
    MIN_TIME,
    RelativeTimeInterval,
    TimeInterval,
    parse_duration,
    parse_time,
    to_ms,
)

__all__ = ["Interval", "When", "finite", "instant_of", "interval_of", "now_ms"]

When: TypeAlias = datetime | int | str
Interval: TypeAlias = TimeInterval | RelativeTimeInterval | tuple[When, When] | str | None

_HINT = 'write ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"), ("-2h", "-1h"), or "-1h" for the last hour'


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def instant_of(when: When, now: int) -> int:
    """Milliseconds since the epoch. `ConfigurationError` for what is no instant."""
    try:
        return parse_time(when, now=now) if isinstance(when, str) else to_ms(when)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(str(error)) from None


def interval_of(interval: Interval, now: int) -> TimeInterval:
    """The interval by the module's table. `ConfigurationError` for everything else."""
    if interval is None:
        return EVERYTHING.span()
    if isinstance(interval, TimeInterval):
        return interval
    if isinstance(interval, RelativeTimeInterval):
        return interval.absolute(now)
    if isinstance(interval, str):
        try:
            width = -parse_duration(interval)
        except ValueError:
            width = 0
        if width <= 0:
            raise ConfigurationError(f"{interval!r} is no interval", hint=_HINT)
        return TimeInterval(now - width, now)
    if not isinstance(interval, (tuple, list)) or len(interval) != 2:
        raise ConfigurationError(f"{interval!r} is no interval", hint=_HINT)
    start, end = (instant_of(when, now) for when in interval)
    try:
        return TimeInterval(start, end)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def finite(interval: TimeInterval) -> TimeInterval:
    """``interval``, if something can be computed in all of it; else `ConfigurationError`."""
    if interval.start <= MIN_TIME or interval.end >= MAX_TIME:
        raise ConfigurationError("to compute takes an interval with a start and an end", hint=_HINT)
    return interval
