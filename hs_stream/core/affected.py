"""How intervals travel through a support: what a change touches, what an output needs, what can be computed.

For a support and sets of instants (all boundaries exact to the millisecond):

=============  ==================================  =========================  ===================================
support        `affected` by a change on (s, e]     `required` for (a, b]      `available` from coverage (c, d]
=============  ==================================  =========================  ===================================
Pointwise      (s, e]                               (a, b]                     (c, d]
Window(l, r)   (s - r, e + l - 1]                   (a - l + 1, b + r]         (c + l - 1, d - r]
Previous(n)    (s, n-th instance after e - 1]       (-inf, b]                  (c, d] if c is -inf
Prefix         (s, inf)                             (-inf, b]                  (c, d] if c is -inf
=============  ==================================  =========================  ===================================

An instance at x is read by the window of t when ``t - l < x <= t + r``, that is ``x - r <= t <= x + l - 1``.
"""

from __future__ import annotations

from collections.abc import Sequence

from hs_stream.core.support import Pointwise, Previous, Support, Window
from hs_stream.core.time import EMPTY, MAX_TIME, MIN_TIME, TimeIntervals, shift

__all__ = ["affected", "available", "required"]


def affected(support: Support, changed: TimeIntervals, later: Sequence[int | None] = ()) -> TimeIntervals:
    """The instants at which outputs may differ after an input changed on ``changed``.

    For `Previous` (n), ``later[i]`` is the time of the n-th instance after the end of the i-th interval of ``changed``
    in the input's *new* contents, or ``None`` when there are fewer. (An instance between them that is new has its own
    interval in ``changed``, which reaches as far as the old contents did.)
    """
    if not changed or isinstance(support, Pointwise):
        return changed
    if isinstance(support, Window):
        return changed.dilate(support.lookahead, max(support.lookback - 1, 0))
    if isinstance(support, Previous):
        return TimeIntervals(
            (start, MAX_TIME if until is None else max(end, until - 1))
            for (start, end), until in zip(changed.pairs, later, strict=True)
        )
    return TimeIntervals.of(changed.start, MAX_TIME)


def required(support: Support, demand: TimeIntervals) -> TimeIntervals:
    """The part of an input that outputs in ``demand`` may read."""
    if not demand or isinstance(support, Pointwise):
        return demand
    if isinstance(support, Window):
        return demand.dilate(max(support.lookback - 1, 0), support.lookahead)
    return TimeIntervals.of(MIN_TIME, demand.end)


def available(support: Support, coverage: TimeIntervals) -> TimeIntervals:
    """The instants whose outputs read nothing of an input outside of ``coverage``."""
    if not coverage or isinstance(support, Pointwise):
        return coverage
    if isinstance(support, Window):
        back, ahead = max(support.lookback - 1, 0), support.lookahead
        return TimeIntervals(
            (shift(start, back), shift(end, -ahead))
            for start, end in coverage.pairs
            if shift(start, back) < shift(end, -ahead)
        )
    start, end = coverage.pairs[0]
    return TimeIntervals.of(start, end) if start <= MIN_TIME else EMPTY
