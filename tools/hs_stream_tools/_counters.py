"""What a counter grew by from one reading to the next: one model for every tool that reads counters.

1. A counter rises. What it rose by since the reading before is its increase.
2. A *dip* is a fall that is small: the counter still stands at ``reset`` times its highest reading or above (two
   senders, rounding, a correction). It is no increase, and the highest reading stays the base: climbing back to it is
   not counted again.
3. A *reset* is a fall below that: the counter began again at 0, so what it shows is the increase. With ``wrap`` it went
   on from its largest value instead, where it was near that.
4. A *jump* is an increase faster than ``max_rate``: another meter, or a wrong reading. It counts as nothing, and the
   counter is taken to stand there now.
5. What follows tells whether a reset or a jump was a wrong reading, for up to ``glitch``. The counter as it was before
   is kept beside it. Where a reading goes on from there (after a reset: at ``1 - reset`` times the highest reading or
   above; after a jump: back down, and nearer to there), it was wrong: what was counted of it meanwhile is void, and the
   increase is taken from before it.
6. After a reset a reading in between tells that it was one. Whoever falls again, without having risen since, was wrong
   before already.
7. Increases are exact: a tool adds up what `Step.terms` are, and rounds once (`hs_stream_tools._exact`).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from hs_stream.core.time import format_duration, parse_duration
from hs_stream.core.tool import Duration
from hs_stream.core.value import Value
from hs_stream_tools._exact import Number
from hs_stream_tools._values import instant, wrong

__all__ = ["CounterModel", "Step", "reading"]

_HOUR: Final = 3_600_000
_NEAR: Final = 0.9
"""A register is near its end in its last tenth."""
_UNITS: Final = ("ms", "s", "min", "m", "h", "d", "w")


def reading(tool: str, value: Value) -> Number | None:
    """``value`` as a number, or ``None`` where it is missing (``None``, NaN, an infinity). Else a ``TypeError``."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None:
        return None
    if isinstance(value, int):
        return int(value)
    raise wrong(tool, "numbers", value)


class Step(NamedTuple):
    """What one reading says.

    ``terms``: numbers that add up to the increase. ``known``: whether there is one, 0 included (there is none at the
    first reading, at that of a new meter, and at a jump). ``doubtful``: it may turn out to be void. ``void``: what was
    doubtful before is. ``settled``: what was doubtful before counts.
    """

    terms: tuple[Number, ...]
    known: bool
    doubtful: bool = False
    void: bool = False
    settled: bool = False


@dataclass(frozen=True, kw_only=True)
class CounterModel:
    """The parameters of the model, and the model. A mixin: tools call `check_counter` when they are made."""

    reset: float = 0.1
    glitch: Duration = Duration(24 * _HOUR)
    net: bool = False
    delta: bool = False
    wrap: int | float | None = None
    max_rate: float | str | None = None
    segments: tuple[str, ...] = ()

    def check_counter(self) -> None:
        """``ValueError`` for parameters that do not fit."""
        if not 0 <= self.reset <= 1:
            raise ValueError(f"reset is a share of the last value, from 0 to 1, not {self.reset}")
        if self.glitch < 0:
            raise ValueError(f"glitch must not be negative, but is {format_duration(self.glitch)}")
        if self.wrap is not None and self.wrap <= 0:
            raise ValueError(f"wrap is how far the counter counts, more than 0, not {self.wrap}")
        if self.net and (self.delta or self.wrap is not None):
            raise ValueError("net: true counts every difference as it is: give no delta and no wrap with it")
        if self.delta and (self.wrap is not None or self.segments):
            raise ValueError("delta: true takes readings as increments: give no wrap and no segments with it")
        self._limit  # noqa: B018 - reads max_rate and segments now, so that wrong ones are found before the first reading
        self._begins  # noqa: B018

    @cached_property
    def _limit(self) -> float | None:
        """``max_rate`` per hour."""
        if self.max_rate is None:
            return None
        given = self.max_rate if isinstance(self.max_rate, str) else f"{self.max_rate!r}/h"
        number, _, unit = (part.strip() for part in given.partition("/"))
        try:
            per = parse_duration(f"1{unit}" if unit in _UNITS else unit)
            limit = float(number) * (_HOUR / per)
        except (ValueError, ZeroDivisionError):
            limit = math.nan
        if not 0 <= limit < math.inf:
            raise ValueError(f"max_rate is {self.max_rate!r}: write a number per hour, or for example 5/h, 0.2/min")
        return limit

    @cached_property
    def _begins(self) -> list[int]:
        return sorted(instant("segments", text) for text in self.segments)

    # --- the model ---

    def first(self, time: int, value: Number) -> tuple[Value, Step]:
        """The line of a counter after its very first reading."""
        return [value, time, time, None], Step((value,), True) if self.delta else Step((), False)

    def advance(self, line: list[Value], time: int, value: Number) -> tuple[list[Value], Step]:
        """The line after another reading, and what that says.

        A line is ``[base, since, last, doubt]``: the highest reading, when it was reached first, the time of the last
        reading; and, while rule 5 applies, the ``[base, since]`` of before, when the counter left that, and where to.
        """
        base, since, last, doubt = line
        if self.delta:
            slow = not self._fast(abs(value), time - last)
            return [value, time, time, None], Step((value,), True) if slow else Step((), False)
        if self._begins and bisect_right(self._begins, last) < bisect_right(self._begins, time):
            return [value, time, time, None], Step((), False, settled=True)
        void = settled = False
        new, terms, odd = self._from(base, since, time, value)
        if doubt is not None:
            before, before_since, left, entry = doubt
            fell = entry < before and not self.net
            if time - left > self.glitch:
                settled = True
            elif self._is_back(before, base, value, fell):
                void = True
            elif not odd:
                settled = fell and value >= self._low(before)
            elif base != entry:
                settled = True
            else:
                void = True
            if void:
                base, since = before, before_since
                new, terms, odd = self._from(base, since, time, value)
            if void or settled:
                doubt = None
        if odd:
            doubt = [base, since, time, new]
        # A base that did not move was reached when it was reached.
        moved = odd or new != base
        known = bool(terms) or not odd
        line = [new if moved else base, time if moved else since, time, doubt]
        return line, Step(terms, known, doubt is not None, void, settled)

    def _is_back(self, before: Number, base: Number, value: Number, fell: bool) -> bool:
        """Rule 5: whether ``value`` goes on from ``before`` instead of ``base``."""
        if fell:
            return value >= (max(self.reset, 1 - self.reset) * before if before > 0 else before)
        inside = value < base if base > before else value > base
        return inside and abs(value - before) < abs(value - base)

    def _low(self, base: Number) -> Number:
        """Below it a fall is a reset."""
        return self.reset * base if base > 0 else base

    def _from(self, base: Number, since: int, time: int, value: Number) -> tuple[Number, tuple[Number, ...], bool]:
        """From ``base`` to ``value``: the new base, the terms of the increase, and whether it is a reset or a jump."""
        elapsed = time - since
        rise = value - base
        if rise >= 0 or self.net:
            if self._fast(abs(rise), elapsed):
                return value, (), True
            return value, (value, -base) if rise else (), False
        if self._wraps(base, value):
            assert self.wrap is not None
            if not self._fast(self.wrap - base + value, elapsed):
                return value, (self.wrap, -base, value), True
        if value < self._low(base):
            counts = value >= 0 and not self._fast(value, elapsed)
            return value, (value,) if counts else (), True
        return base, (), False

    def _wraps(self, base: Number, value: Number) -> bool:
        if self.wrap is None or 2 * (base - value) <= self.wrap:
            return False
        return not self.reset or base >= _NEAR * self.wrap

    def _fast(self, increase: Number, elapsed: int) -> bool:
        return self._limit is not None and increase * _HOUR > self._limit * elapsed
