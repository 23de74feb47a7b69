"""The watermark of one raw stream, and what silence proves.

1. ``upper = max(previous upper, newest event time - lateness, proven - idle)``; it never falls.
2. ``proven`` is the latest instant up to which silence of a stream means that nothing was sent: the current time while
   the source is connected and has been for at least ``idle``; frozen otherwise. It is one value for all streams, so a
   silent stream costs nothing.
3. An event more than ``max_future`` ahead of now is quarantined: it is never stored and never moves a watermark.
"""

from __future__ import annotations

from hs_stream.core.time import MIN_TIME, shift

__all__ = ["Silence"]


class Silence:
    """Rule 2. Times in ms; ``now`` is always given by the caller."""

    def __init__(self, idle: int, proven: int = MIN_TIME) -> None:
        self.idle = idle
        self._proven = proven
        self._trusted_from: int | None = None

    @property
    def proven(self) -> int:
        """The latest instant that silence was derived from."""
        return self._proven

    @property
    def horizon(self) -> int:
        """``proven - idle``: every raw stream's upper is at least this."""
        return shift(self._proven, -self.idle)

    def connected(self, up: bool, now: int) -> None:
        """The source's connection came (``up``) or went."""
        if not up:
            self.advance(now)
            self._trusted_from = None
        elif self._trusted_from is None:
            self._trusted_from = now + self.idle

    def advance(self, now: int) -> int:
        """Take note of the time; returns the new `horizon`."""
        if self._trusted_from is not None and now >= self._trusted_from:
            self._proven = max(self._proven, now)
        return self.horizon

    def assume(self, until: int, now: int) -> None:
        """Take it that up to ``until`` nothing was sent but what is here, as far as silence could prove that by now."""
        self._proven = max(self._proven, min(shift(until, self.idle), now))

    def wait(self, horizon: int, now: int) -> int | None:
        """Milliseconds from ``now`` until `horizon` can reach ``horizon``; ``None`` while silence proves nothing."""
        if self._trusted_from is None:
            return None
        return max(self._trusted_from, horizon + self.idle) - now
