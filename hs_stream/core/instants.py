"""Instants and durations: milliseconds, and the texts that people write for them. See `hs_stream.core.time`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np

__all__ = [
    "MAX_TIME",
    "MILLISECOND",
    "MIN_TIME",
    "Instant",
    "format_duration",
    "format_time",
    "from_ms",
    "parse_duration",
    "parse_time",
    "shift",
    "to_ms",
]

Instant = int | datetime
"""What the edges accept as an instant: integer milliseconds since the epoch or an aware datetime."""

MIN_TIME: Final = -(1 << 62)
MAX_TIME: Final = 1 << 62
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND: Final = timedelta(milliseconds=1)
_FIRST_DATETIME: Final = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // MILLISECOND
_LAST_DATETIME: Final = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) // MILLISECOND


def to_ms(instant: Instant) -> int:
    """Milliseconds since the epoch; microseconds are cut off towards the past.

    Raises ``TypeError`` for a naive datetime and for anything that is neither an int nor a datetime.

    >>> to_ms(datetime(2015, 2, 4, 17, 51, tzinfo=UTC))
    1423072260000
    """
    if type(instant) is int:
        return instant
    if isinstance(instant, datetime):
        if instant.tzinfo is None:
            raise TypeError(
                f"naive datetime {instant.isoformat()}: it names no instant; give it a time zone, "
                "for example .replace(tzinfo=timezone.utc)"
            )
        return (instant - _EPOCH) // MILLISECOND
    if isinstance(instant, (int, np.integer)) and not isinstance(instant, bool):
        return int(instant)
    raise TypeError(f"an instant is an aware datetime or integer milliseconds since the epoch, not {instant!r}")


def from_ms(instant: int) -> datetime:
    """The aware UTC datetime of ``instant``. Raises ``OverflowError`` outside of the years 1 to 9999."""
    return _EPOCH + instant * MILLISECOND


def shift(instant: int, by: int) -> int:
    """``instant + by`` in milliseconds, with the infinities fixed and the result kept within them.

    >>> shift(MIN_TIME, 5) == MIN_TIME
    True
    """
    if instant <= MIN_TIME or instant >= MAX_TIME:
        return instant
    return min(max(instant + by, MIN_TIME), MAX_TIME)


def format_time(instant: int) -> str:
    """ISO 8601 with ``Z``, with milliseconds only where there are any; ``-inf`` and ``inf`` for the infinities.

    >>> format_time(1423072260000), format_time(1423072260001)
    ('2015-02-04T17:51:00Z', '2015-02-04T17:51:00.001Z')
    """
    if instant <= MIN_TIME:
        return "-inf"
    if instant >= MAX_TIME:
        return "inf"
    if not _FIRST_DATETIME <= instant <= _LAST_DATETIME:
        return f"{instant}ms"
    precision = "milliseconds" if instant % 1000 else "seconds"
    return from_ms(instant).isoformat(timespec=precision).replace("+00:00", "Z")


_UNITS: Final = {
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "min": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d|w)")


def parse_duration(value: str | int | float | timedelta) -> int:
    """Milliseconds of a duration: ``"5m"``, ``"1h30m"``, ``"-250ms"``, a ``timedelta``, or a number of *seconds*.

    Units: ``ms s m (or min) h d w``. Raises ``ValueError`` with what to write instead.

    >>> parse_duration("1h30m"), parse_duration(2.5), parse_duration("-1m")
    (5400000, 2500, -60000)
    """
    if isinstance(value, timedelta):
        return value // MILLISECOND
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        milliseconds = value * 1000
        if milliseconds != milliseconds or abs(milliseconds) > MAX_TIME:
            raise ValueError(f"{value!r} is not a duration: write for example '30s', '5m' or '1h30m'")
        return round(milliseconds)
    if isinstance(value, str):
        text = value.strip()
        sign = -1 if text.startswith("-") else 1
        text = text.lstrip("+-").strip()
        parts = _DURATION.findall(text)
        amount = -1.0
        if parts and not _DURATION.sub("", text).strip():
            amount = sum(float(number) * _UNITS[unit] for number, unit in parts)
        elif text.replace(".", "", 1).isdigit():
            amount = float(text) * 1000
        if 0 <= amount <= MAX_TIME:
            return sign * round(amount)
        if amount > MAX_TIME:
            raise ValueError(f"{text[:40]!r} is longer than all of time: write for example '30s', '5m' or '1h30m'")
    raise ValueError(f"{value!r} is not a duration: write for example '30s', '5m' or '1h30m'")


def format_duration(milliseconds: int) -> str:
    """The shortest text that `parse_duration` reads back.

    >>> format_duration(5_400_000), format_duration(0), format_duration(-250)
    ('1h30m', '0s', '-250ms')
    """
    if milliseconds == 0:
        return "0s"
    rest, text = abs(milliseconds), "-" if milliseconds < 0 else ""
    for unit in ("d", "h", "m", "s", "ms"):
        amount, rest = divmod(rest, _UNITS[unit])
        if amount:
            text += f"{amount}{unit}"
    return text


def parse_time(text: str, *, now: int) -> int:
    """An instant from ISO 8601 with an offset, ``now``, or a duration relative to ``now`` (``-1h``).

    Raises ``ValueError`` for anything else, a date and time without an offset included.

    >>> parse_time("-1m", now=60_000), parse_time("2015-02-04T17:51:00Z", now=0)
    (0, 1423072260000)
    """
    text = text.strip()
    if text == "now":
        return now
    if text in ("-inf", "inf"):
        return MIN_TIME if text == "-inf" else MAX_TIME
    if text[:1] in "+-" and text[1:2].isdigit():
        return shift(now, parse_duration(text))
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a time: write 2015-02-04T17:51:00Z, now, or -1h") from None
    if instant.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone: write {instant.isoformat()}Z for UTC")
    return to_ms(instant)
