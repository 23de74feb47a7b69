"""What a wrong time tells about the clock that it is from. Times and differences are in milliseconds.

1. A difference is that of a zone when it is within a minute of an offset that some place on earth has: a reading
   arrives at most seconds after it was measured, and clocks are that exact.
2. GPS counts 1024 weeks and begins again. A receiver that does not know that is behind by 1024 weeks, or twice that.
"""

from __future__ import annotations

from typing import Final

from hs_stream.core.time import format_duration

__all__ = ["advice", "fixed_zone", "offset_near", "rolled_over"]

_MINUTE: Final = 60_000
_HOUR: Final = 3_600_000
_DAY: Final = 86_400_000
_GPS_CYCLE: Final = 1024 * 7 * _DAY
_ODD: Final = (-570, -210, 30, 210, 270, 330, 345, 390, 525, 570, 630, 765)
"""Offsets in minutes that are no whole hours, and the half hour by which Lord Howe Island moves its clocks."""
_OFFSETS: Final = frozenset((*(hours * _HOUR for hours in range(-12, 15)), *(minutes * _MINUTE for minutes in _ODD)))


def offset_near(difference: int) -> int | None:
    """The offset from UTC that ``difference`` is, ``None`` where it is none (rule 1).

    >>> offset_near(7_199_000), offset_near(7_100_000), offset_near(19_800_000)
    (7200000, None, 19800000)
    """
    quarter = 15 * _MINUTE
    near = (difference + quarter // 2) // quarter * quarter
    return near if near in _OFFSETS and abs(difference - near) <= _MINUTE else None


def fixed_zone(offset: int) -> str | None:
    """The IANA zone that is always ``offset`` ahead of UTC; ``None`` where there is none.

    >>> fixed_zone(3_600_000), fixed_zone(-18_000_000), fixed_zone(0), fixed_zone(19_800_000)
    ('Etc/GMT-1', 'Etc/GMT+5', 'UTC', None)
    """
    hours, rest = divmod(offset, _HOUR)
    if rest or not -12 <= hours <= 14:
        return None
    return f"Etc/GMT{-hours:+d}" if hours else "UTC"


def advice(ahead: int) -> str:
    """What to do about a reading whose time is ``ahead`` of its arrival, and too far.

    >>> advice(3_599_000)[:54]
    'it is 1h ahead, as much as a zone: is it local time wi'
    >>> advice(400_000)
    'check the clock of the device'
    """
    offset = offset_near(ahead)
    if not offset:
        return "check the clock of the device"
    return (
        f"it is {format_duration(offset)} ahead, as much as a zone: is it local time without an offset, or the zone "
        "of the source wrong? Write that of the device, such as zone: Europe/Berlin, at the source, or let it send UTC"
    )


def rolled_over(time: int, now: int) -> bool:
    """Whether ``time`` is that of a GPS receiver at about ``now`` (within a day) that began to count again (rule 2)."""
    return any(abs(time + cycles * _GPS_CYCLE - now) < _DAY for cycles in (1, 2))
