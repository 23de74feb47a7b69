"""How intervals travel through a support: what a change touches, what an output needs, what can be computed.

For a support and sets of instants (all boundaries exact to the millisecond):

==================  ==================================  =========================  ===================================
support             `affected` by a change on (s, e]     `required` for (a, b]      `available` from coverage (c, d]
==================  ==================================  =========================  ===================================
Pointwise           (s, e]                               (a, b]                     (c, d]
Window(l, r)        (s - r, e + l - 1]                   (a - l + 1, b + r]         (c + l - 1, d - r]
 before=n           (s - r, m + l - 1]                   (-inf, b + r]              (c, d - r] if c is -inf
 after=1            (k - r - 1, e + l - 1]               (a - l + 1, inf)           as without
Previous(n)         (s, m - 1]                           (-inf, b]                  (c, d] if c is -inf
Prefix              (s, inf)                             (-inf, b]                  (c, d] if c is -inf
 after=1            (k, inf)                             everything                 as without
==================  ==================================  =========================  ===================================

m is the time of the n-th instance later than e, and k that of the last one at or before s. An instance at x is read by
the window of t when ``t - l < x <= t + r``, that is ``x - r <= t <= x + l - 1``.

What comes ``after`` is not waited for: an output is available before it is there, and affected when it comes.
"""

from __future__ import annotations

from collections.abc import Sequence

from hs_stream.core.support import Pointwise, Prefix, Previous, Support, Window
from hs_stream.core.time import EMPTY, MAX_TIME, MIN_TIME, TimeIntervals, shift

__all__ = ["affected", "available", "counts_after", "looks_on", "required"]


def counts_after(support: Support) -> int:
    """How many instances after a change say how far it reaches; 0 where time alone does."""
    if isinstance(support, Previous):
        return support.n
    return support.before if isinstance(support, Window) else 0


def looks_on(support: Support) -> bool:
    """Whether the instance before a change says how far back it reaches."""
    return isinstance(support, (Window, Prefix)) and bool(support.after)


def affected(
    support: Support,
    changed: TimeIntervals,
    later: Sequence[int | None] = (),
    earlier: Sequence[int | None] = (),
) -> TimeIntervals:
    """The instants at which outputs may differ after an input changed on ``changed``.

    ``later[i]``: the time of the n-th instance after the end of the i-th interval of ``changed`` in the input's *new*
    contents, with n of `counts_after`; ``None`` when there are fewer. (An instance between them that is new has its own
    interval in ``changed``, which reaches as far as the old contents did.) ``earlier[i]``: that of the last one at or
    before its start, where the support `looks_on`.
    """
    if not changed or isinstance(support, Pointwise):
        return changed
    if isinstance(support, Window):
        ahead, back = support.lookahead, max(support.lookback - 1, 0)
        if not support.before and not support.after:
            return changed.dilate(ahead, back)
        pairs = changed.pairs
        starts = [start for start, _ in pairs]
        if support.after:
            starts = [MIN_TIME if first is None else first - 1 for first in earlier]
        ends = [end for _, end in pairs]
        if support.before:
            ends = [MAX_TIME if until is None else until for until in later]
        return TimeIntervals((shift(start, -ahead), shift(end, back)) for start, end in zip(starts, ends, strict=True))
    if isinstance(support, Previous):
        return TimeIntervals(
            (start, MAX_TIME if until is None else max(end, until - 1))
            for (start, end), until in zip(changed.pairs, later, strict=True)
        )
    start: int | None = earlier[0] if support.after else changed.start
    return TimeIntervals.of(MIN_TIME if start is None else start, MAX_TIME)


def required(support: Support, demand: TimeIntervals) -> TimeIntervals:
    """The part of an input that outputs in ``demand`` may read."""
    if not demand or isinstance(support, Pointwise):
        return demand
    if isinstance(support, Window):
        found = demand.dilate(max(support.lookback - 1, 0), support.lookahead)
        start = MIN_TIME if support.before else found.start
        end = MAX_TIME if support.after else found.end
        return found if (start, end) == (found.start, found.end) else TimeIntervals.of(start, end)
    return TimeIntervals.of(MIN_TIME, MAX_TIME if looks_on(support) else demand.end)


def available(support: Support, coverage: TimeIntervals) -> TimeIntervals:
    """The instants whose outputs read nothing of an input outside of ``coverage``, but for what comes after."""
    if not coverage or isinstance(support, Pointwise):
        return coverage
    ahead = support.lookahead if isinstance(support, Window) else 0
    if isinstance(support, Window) and not support.before:
        back = max(support.lookback - 1, 0)
        return TimeIntervals(
            (shift(start, back), shift(end, -ahead))
            for start, end in coverage.pairs
            if shift(start, back) < shift(end, -ahead)
        )
    start, end = coverage.pairs[0]
    return TimeIntervals.of(start, shift(end, -ahead)) if start <= MIN_TIME else EMPTY
