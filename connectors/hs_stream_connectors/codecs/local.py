"""What a local time without an offset means in a zone, for every codec and file.

1. A time that the zone never shows, since clocks went forward over it, is refused: the zone is not that of the clock.
2. A time that the zone shows twice, since clocks went back, has two passes (`Twice`). What else is known tells which:

   a message       Its arrival. A pass more than a quarter of the shift ahead of it (of an hour: 15 minutes) is not
                   meant; so until then it is the first, and up to 15 minutes after the second pass it is the second.
                   Later, it may have waited since either. A retained message is of any age.
   an array        The order: the times of a stream rise up to the arrival, or fall from it. What that leaves open, the
                   arrival tells as above.
   rows of a file  The order: they are the first pass until local time steps back into the hour, then the second; rows
                   at equal steps go on at equal steps. Where a file is sorted newest first, the other way round.

   What nothing tells is refused. The order of *messages* is no proof: a broker sends again what was not acknowledged,
   and such a step back looks as if the hour began again.
3. A date alone is the beginning of its day, the first one where midnight occurs twice or never.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from hs_stream.core.clocks import fixed_zone, offset_near
from hs_stream.core.errors import PayloadError
from hs_stream.core.time import format_duration, format_time, to_ms

__all__ = ["RowOrder", "Twice", "by_arrival", "by_order", "passes", "twice_error"]

Twice = tuple[int, int]
"""The two instants (ms) at which a zone shows the same local time, in their order."""

_MS: Final = timedelta(milliseconds=1)
_STREAMS: Final = 20_000


def passes(moment: datetime, text: str, zone: ZoneInfo, *, day: bool, arrival: int | None, key: str) -> int | Twice:
    """When ``zone`` shows ``moment``, which was written ``text``: ms, or both where it does twice. ``day``: rule 3.

    `PayloadError` with ``time_invalid`` where it never does. It says which zone the clock may keep, by the ``arrival``
    of a live message if there is one; ``key`` is how a user writes a zone, such as ``zone: ``.
    """
    wall = to_ms(moment.replace(tzinfo=UTC))
    before, after = _offset(moment.replace(tzinfo=zone, fold=0)), _offset(moment.replace(tzinfo=zone, fold=1))
    if before == after or day:
        return wall - before
    if before > after:
        return wall - before, wall - after
    seen = None if arrival is None else offset_near(wall - arrival)
    keeps = before if seen is None else seen
    name = fixed_zone(keeps)
    write = f"{key}{name} if its clock keeps {_utc(keeps)} all year" if name else f"{key}the zone of its clock"
    raise PayloadError(
        "time_invalid",
        f"the time {text[:40]!r} does not exist in {zone}, where clocks went forward: that is probably not the zone of "
        f"this device; write {write}, or let it send UTC",
    )


def _offset(moment: datetime) -> int:
    offset = moment.utcoffset()
    assert offset is not None
    return offset // _MS


def _utc(offset: int) -> str:
    return f"UTC{'-' if offset < 0 else '+'}{format_duration(abs(offset))}" if offset else "UTC"


def twice_error(text: str, found: Twice, why: str, instead: str) -> PayloadError:
    """The refusal of ``text``, of whose passes ``found`` nothing tells which is meant."""
    return PayloadError(
        "time_invalid",
        f"the time {text[:40]!r} occurs twice, at {format_time(found[0])} and {format_time(found[1])}, and {why}: "
        f"{instead}, or an offset",
    )


def by_arrival(found: Twice, arrival: int) -> int | None:
    """The pass that a message of ``arrival`` means, if it is not retained; ``None`` if that cannot be told (rule 2)."""
    first, second = found
    near = (second - first) // 4
    if arrival < second - near:
        return first
    return second if arrival <= second + near else None


def by_order(found: Sequence[int | Twice], arrival: int) -> list[int | None]:
    """The times of an array's readings of one stream, as every choice of passes has them that rises up to ``arrival``.

    Or that falls, since an array may be sorted newest first. ``None`` for those of which that leaves both.
    """
    rising, falling = _rising(found, arrival), _rising(found[::-1], arrival)
    if rising is None or falling is None:
        return rising or (falling or [None] * len(found))[::-1]
    return [a if a == b else None for a, b in zip(rising, reversed(falling), strict=True)]


def _rising(found: Sequence[int | Twice], arrival: int) -> list[int | None] | None:
    """As `by_order`, in this order only; ``None`` where no choice rises."""
    earliest, latest = list[int](), list[int]()
    for times in found:
        first, second = (times, times) if isinstance(times, int) else times
        earliest.append(second if earliest and first < earliest[-1] else first)
    for times in reversed(found):
        first, second = (times, times) if isinstance(times, int) else times
        latest.append(first if second > (latest[-1] if latest else arrival + (second - first) // 4) else second)
    latest.reverse()
    for chosen in (earliest, latest):
        if any(a > b for a, b in pairwise(chosen)):
            return None
    return [a if a == b else None for a, b in zip(earliest, latest, strict=True)]


class RowOrder:
    """Which pass the rows of one file mean, stream by stream in their order (rule 2).

    It follows the newest `_STREAMS` streams of a file. Of a stream whose order once told nothing, no row has a place
    until local time is unambiguous again.
    """

    __slots__ = ("_before", "_rows")

    def __init__(self) -> None:
        self._rows: dict[Hashable, _Row] = {}
        self._before: tuple[Hashable, _Row | None] | None = None

    def place(self, stream: Hashable, found: int | Twice) -> int | None:
        """The time of the next row of ``stream``; ``None`` where the order does not tell."""
        known = self._rows.get(stream)
        self._before = stream, known
        if known is None:
            time = found if isinstance(found, int) else found[0]
            if len(self._rows) >= _STREAMS:
                del self._rows[next(iter(self._rows))]
            self._rows[stream] = _Row(time, 0, False, _IN_FIRST)
            return time
        if isinstance(found, int):
            time, state = found, _IN_FIRST
        else:
            time, state = _next(known, found)
        if state == _LOST:
            self._rows[stream] = known._replace(state=_LOST)
            return None
        step = time - known.time
        steady = step == known.step if step else known.steady
        self._rows[stream] = _Row(time, step or known.step, steady, state)
        return time

    def begin(self) -> None:
        """A row begins."""
        self._before = None

    def take_back(self) -> None:
        """Forget what the row that began last has placed: it will be read again."""
        if self._before is not None:
            stream, known = self._before
            if known is None:
                self._rows.pop(stream, None)
            else:
                self._rows[stream] = known


_IN_FIRST: Final = 0
_IN_SECOND: Final = 1
_LOST: Final = 2


class _Row(NamedTuple):
    """The last row of a stream: its time, the step to it, and in which pass it is in the direction of the file.

    ``steady``: the step before was equal.
    """

    time: int
    step: int
    steady: bool
    state: int


def _next(known: _Row, found: Twice) -> tuple[int, int]:
    """The pass of ``found`` that the row after ``known`` means, in the direction of the file."""
    sign = -1 if known.step < 0 else 1
    first, second = found[::sign]
    ahead, beyond = (first - known.time) * sign, (second - known.time) * sign
    shift = found[1] - found[0]
    # After the hour no row of it is in its place; in its second pass, one that is a little out of order is.
    if known.state == _LOST or beyond < (-shift // 2 if known.state == _IN_SECOND else 0):
        return 0, _LOST
    if known.steady and known.step in (first - known.time, second - known.time):
        return known.time + known.step, _IN_FIRST if known.time + known.step == first else _IN_SECOND
    if ahead > 0:
        return first, _IN_FIRST
    # Rows a little out of order step back too, but not by about the shift, unless they are that far apart themselves.
    if known.state == _IN_SECOND or beyond <= shift // 2 or beyond < 2 * abs(known.step):
        return second, _IN_SECOND
    return (first, _IN_FIRST) if not ahead and known.step else (0, _LOST)
