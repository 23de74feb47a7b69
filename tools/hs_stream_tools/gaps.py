"""Tools on when readings come, whatever they say: gaps, silence, sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hs_stream.core.batch import Batch
from hs_stream.core.errors import ToolError
from hs_stream.core.time import Grid, TimeInterval, format_duration, from_ms
from hs_stream.core.tool import (
    SKIP,
    Drive,
    Duration,
    FromInput,
    OnGrid,
    Previous,
    PreviousTool,
    Support,
    Tool,
    Window,
    grid_times_near,
)
from hs_stream.core.value import Value
from hs_stream_tools._expression import Formula
from hs_stream_tools._lasting import UNKNOWN, Lasting, Said
from hs_stream_tools._values import number, wrong
from hs_stream_tools.states import equal

__all__ = ["GapDetect", "OfflineDetect", "SessionWhile", "SessionWindow"]


def _positive(tool: Tool, *names: str) -> None:
    for name in names:
        if getattr(tool, name) <= 0:
            raise ValueError(f"{name} must be longer than 0, not {format_duration(getattr(tool, name))}")


@dataclass(frozen=True, kw_only=True)
class GapDetect(PreviousTool):
    """How long nothing came, at the reading that ends the silence.

    ``max_gap``: only where the reading before is further away than this (exactly this far is no gap). ``unit``: the
    time that the output counts in (default 1s). Output: float, the distance to the reading before, so that the gap is
    ``(t - output, t)``. Readings of any value count, missing ones (``None``, NaN) too: something came. A gap that has
    not ended is seen by ``offline_detect``.

    >>> GapDetect(max_gap=60_000).combine([(0, 1.0), (90_000, 1.0)], 90_000)
    90.0
    """

    name = "gap_detect"
    version = "1.0.0"
    output_kind = "event"
    output_unit = "parameter"
    samples = ({"max_gap": "10s"}, {"max_gap": "1m", "unit": "1h"})
    max_gap: Duration
    unit: Duration = Duration(1000)

    def __post_init__(self) -> None:
        _positive(self, "max_gap", "unit")

    def combine(self, previous: Sequence[tuple[int, Value]], time: int) -> Value:
        """The distance of the two readings, or SKIP."""
        if len(previous) < 2 or time - previous[0][0] <= self.max_gap:
            return SKIP
        return (time - previous[0][0]) / self.unit


@dataclass(frozen=True, kw_only=True)
class OfflineDetect(Tool):
    """Whether nothing has come for some time, told on a grid, so that silence alone is enough.

    Output, at each grid instant t (``every``; ``tz``: IANA zone): ``true`` if there is no reading in ``(t - after,
    t]``, otherwise ``false``. So a reading that is exactly ``after`` old is too old. Readings of any value count,
    missing ones (``None``, NaN) too: something came. A ``change_detect`` that reads it passes on only changes.

    There is no output before the first reading ever: nobody knows then that there should be any. Nor is there one when
    the last reading is ``forget`` old or older (default 7d, longer than ``after``), so that a sensor that was taken
    away does not fill the store for ever.

    t is told as soon as the stream is known up to t: at the next reading after t, or when silence proves that nothing
    came (``idle``, 10 s unless set otherwise, after t). While the broker is away silence proves nothing, so nothing is
    told; a reading that comes late turns the answers that it should have been in.

    >>> readings = Batch.of([(1_000, 20.0), (62_000, 20.1)])
    >>> tool = OfflineDetect(after=45_000, every=20_000)
    >>> list(tool.evaluate(TimeInterval(0, 80_000), [readings]))
    [(20000, False), (40000, False), (60000, True), (80000, False)]
    """

    name = "offline_detect"
    version = "1.0.0"
    kind = "previous"
    output_kind = "state"
    output_unit = "none"
    samples = (
        {"after": "10s", "every": "5s"},
        {"after": "2s", "every": "10s", "forget": "1m"},
        {"after": "25h", "every": "1d", "tz": "Europe/Brussels"},
    )
    after: Duration
    every: Duration
    tz: str | None = None
    forget: Duration = Duration(7 * 86_400_000)

    def __post_init__(self) -> None:
        _positive(self, "after", "every")
        if self.forget <= self.after:
            raise ValueError(
                f"forget must be longer than after ({format_duration(self.after)}), not {format_duration(self.forget)}"
            )
        Grid(self.every, self.tz)

    def support(self, slot: int) -> Support:
        """The last reading."""
        return Previous(1)

    def drive(self) -> Drive:
        """The grid."""
        return OnGrid(Grid(self.every, self.tz))

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """The age of the last reading at the grid instants in ``interval``, against ``after``."""
        readings = sources[0].times
        times = grid_times_near(Grid(self.every, self.tz), readings, interval, self.forget)
        last = readings.searchsorted(times, "right") - 1
        times, last = times[last >= 0], last[last >= 0]
        ages = times - readings[last]
        known = ages < self.forget
        return Batch.build(times[known], ages[known] >= self.after)


@dataclass(frozen=True, kw_only=True)
class SessionWindow(Tool):
    """Runs of readings without a long gap: one output per session, at its last reading.

    Readings less than ``gap`` apart are of one session; at exactly ``gap`` another one begins. Output, at the last
    reading of a session: an object of ``start`` and ``end`` (the times of its first and last reading, UTC),
    ``seconds`` between them (0.0 for a single reading), ``count`` of readings and ``complete``; with ``values: true``
    also ``values``, a list of the readings in time order. Readings of any value count, missing ones (``None``, NaN)
    too: something came.

    A session is told ``gap`` after its end, when it is known that nothing follows. A late reading that lengthens,
    joins or begins one retracts and revises what it makes wrong, however late it is.

    ``max_length`` (default 1d) bounds how far back is looked: a session of up to this length (exactly this long is
    fine) is told as a whole. Of a longer one the same is told of its readings in ``[end - max_length, end]`` only, and
    ``complete`` is ``false``.

    >>> motion = Batch.of([(0, 1), (20_000, 1), (300_000, 1)])
    >>> found = SessionWindow(gap=60_000).evaluate(TimeInterval(-1, 300_000), [motion])
    >>> [(time, session["count"], session["seconds"]) for time, session in found]
    [(20000, 2, 20.0), (300000, 1, 0.0)]
    """

    name = "session_window"
    version = "1.0.0"
    kind = "window"
    output_kind = "event"
    samples = (
        {"gap": "10s"},
        {"gap": "2s", "max_length": "5s", "values": True},
        {"gap": "1ms", "max_length": "1ms"},
        {"gap": "1m", "max_length": "20s"},
    )
    gap: Duration
    max_length: Duration = Duration(86_400_000)
    values: bool = False

    def __post_init__(self) -> None:
        _positive(self, "gap", "max_length")

    def support(self, slot: int) -> Support:
        """Ahead, whether a reading follows; back, the longest session and whether one precedes."""
        return Window(self.max_length + self.gap, self.gap - 1)

    def drive(self) -> Drive:
        """The input's times."""
        return FromInput(0)

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """The sessions that end in ``interval``."""
        source = sources[0]
        breaks = np.flatnonzero(np.diff(source.times) >= self.gap)
        firsts = np.concatenate(([0], breaks + 1))
        lasts = np.concatenate((breaks, [len(source) - 1]))
        low, high = source.times.searchsorted((interval.start, interval.end), "right")
        inside = (low <= lasts) & (lasts < high)
        outputs = [
            self._session(source, first, last)
            for first, last in zip(firsts[inside].tolist(), lasts[inside].tolist(), strict=True)
        ]
        return Batch.build([time for time, _ in outputs], [value for _, value in outputs])

    def _session(self, source: Batch, first: int, last: int) -> tuple[int, Value]:
        end = int(source.times[last])
        bound = int(source.times.searchsorted(end - self.max_length))
        complete, first = first >= bound, max(first, bound)
        start = int(source.times[first])
        session: dict[str, Value] = {
            "start": from_ms(start),
            "end": from_ms(end),
            "seconds": (end - start) / 1000,
            "count": last - first + 1,
            "complete": complete,
        }
        if self.values:
            session["values"] = source.slice_index(first, last + 1).plain()
        return end, session


@dataclass(frozen=True, kw_only=True)
class SessionWhile(Lasting):
    """How long a condition was met, short breaks included: one output per session, told in silence.

    Give one of ``condition`` (a formula as of ``expression`` with one input, such as ``value > 5``), ``above`` and
    ``below`` (a limit that itself is not enough), and ``state`` (the value that counts; every other, of any type, does
    not; ``1`` and ``1.0`` are equal). What a reading says holds until the next one: a session begins at the first
    reading that meets the condition, and goes on though nothing is sent. It ends at the reading from which on the
    condition is not met for ``gap``; where one meets it again before, or at exactly that time, the session goes on.

    Output, at ``gap`` after the end, when it is known: an object of ``start`` and ``end`` (UTC), ``seconds`` between
    them and ``count``, how many readings met the condition. A session that has not ended has none. A late reading
    that lengthens, joins or begins one retracts and revises what it makes wrong.

    ``missing: ends`` (default): a reading that is unknown (``None``, NaN, ``unavailable``, ``unknown``) does not meet
    the condition; ``missing: keeps``: it is as if it were not there. ``max_age``: a reading is believed for so long.
    A formula without a result is not met; one whose result is neither a boolean nor a number is a ``TypeError``.

    >>> from hs_stream.core.batch import Batch
    >>> washer = Batch.of([(0, 8.0), (60_000, 2100.0), (400_000, 2.0), (460_000, 180.0), (900_000, 1.0)])
    >>> [(end, session)] = SessionWhile(above=5.0, gap=300_000).evaluate(TimeInterval(-1, 2_000_000), [washer])
    >>> end, session["seconds"], session["count"]
    (1200000, 900.0, 3)
    """

    name = "session_window"
    version = "2.0.0"
    kind = "fold"
    input_kinds = ("state", "sample")
    output_kind = "event"
    takes = "number"
    ignores = ("",)
    samples = (
        {"gap": "10s", "above": 0},
        {"gap": "1ms", "below": 0.5, "max_age": "5s"},
        {"gap": "2s", "state": 1, "missing": "keeps", "max_age": "1m"},
        {"gap": "5s", "condition": "0 < value < 2"},
    )
    gap: Duration
    condition: str | None = None
    above: float | None = None
    below: float | None = None
    state: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "gap")
        if sum(one is not None for one in (self.condition, self.above, self.below, self.state)) != 1:
            raise ValueError("give one of condition, above, below and state: what the session is of")
        self.formula  # noqa: B018 - parses it now, so that a mistake is found before the first reading

    @cached_property
    def formula(self) -> Formula | None:
        """The parsed condition."""
        return None if self.condition is None else Formula(self.condition)

    def keys_named(self) -> tuple[str, ...]:
        """The names in the formula that must be fields."""
        return () if self.formula is None else tuple(sorted(self.formula.names - {"a", "value", "time"}))

    def keys_made(self, keys: frozenset[str] | None) -> frozenset[str] | None:
        """Those of a session."""
        return frozenset(("start", "end", "seconds", "count"))

    def means(self, value: Value) -> Value:
        """The state itself is always known."""
        return value if self.state is not None and equal(value, self.state) else super().means(value)

    def _met(self, time: int, value: Value) -> bool:
        if self.state is not None:
            return equal(value, self.state)
        if self.formula is None:
            found = number("session_window", value)
            assert found is not None
            return found > self.above if self.above is not None else found < (self.below or 0.0)
        fields = value if isinstance(value, dict) else None
        try:
            result = self.formula.result(time, {"a": value, "value": value}, fields)
        except (ToolError, TypeError) as error:
            raise type(error)(f"session_window: {error}") from error
        if result is SKIP:
            return False
        if not isinstance(result, (bool, int, float)):
            raise wrong("session_window", "a condition that is true or false", result)
        return bool(result)

    def begin(self) -> Value:
        """``None``, or ``[start, end, count]`` of a session; ``end`` is ``None`` while the condition is met."""
        return None

    def turn(self, now: Value, time: int, value: Value) -> Value:
        """A session begins, goes on, or may have ended."""
        met = value is not UNKNOWN and self._met(time, value)
        if now is not None:
            start, end, count = now
            if end is None or end + self.gap >= time:
                return [start, None, count + 1] if met else [start, time if end is None else end, count]
        return [time, None, 1] if met else None

    def says(self, now: Value, after: int) -> Said:
        """The session, when it has ended."""
        if now is None or now[1] is None or now[1] + self.gap <= after:
            return None
        start, end, count = now
        told = {"start": from_ms(start), "end": from_ms(end), "seconds": (end - start) / 1000, "count": count}
        return end + self.gap, told
