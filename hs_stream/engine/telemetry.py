"""What the engine reports of itself while it works. The service turns it into Prometheus metrics.

Every method must be cheap (microseconds) and must not raise. Gauges are not reported here: whoever wants them reads
``Engine.statistics()``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hs_stream.engine.ports import DeadLetter

__all__ = ["Telemetry"]


class Telemetry:
    """Does nothing; subclass what you want to count."""

    def readings(self, source: str, count: int) -> None:
        """``count`` readings of ``source`` were stored (repeats included, dead letters not)."""

    def dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """These could not be used; at least one."""

    def overwritten(self, source: str, stream: str, time: int, count: int) -> None:
        """``count`` readings in ``stream``, the last one at ``time``, were replaced by others of the same times."""

    def backdated(self, source: str, stream: str, time: int, since: int, count: int, *, clocks: bool) -> None:
        """``count`` readings in ``stream``, one at ``time``, came too late to say where streams without inputs begin.

        These begin at ``since`` or later. ``clocks``: there are any.
        """

    def late(self, count: int) -> None:
        """``count`` readings arrived below their stream's watermark."""

    def written(self, kind: str, count: int) -> None:
        """``count`` instances were written; ``kind``: raw, insert, revise, retract."""

    def forgotten(self, count: int) -> None:
        """``count`` instances were removed since their retention has passed."""

    def recomputed(self, cause: str, count: int) -> None:
        """``count`` derived instances were evaluated for another reason than arrival."""

    def step(self, tool: str, seconds: float) -> None:
        """One evaluation of ``tool`` took so long."""

    def store(self, operation: str, seconds: float) -> None:
        """One store operation took so long."""

    def store_failed(self, operation: str, error: str, *, first: bool) -> None:
        """The store failed, for the ``first`` time since it answered; it is asked again until it answers."""

    def store_back(self) -> None:
        """The store answers again."""

    def backend_failed(self, error: str, *, first: bool) -> None:
        """The backend broke a step off, for the ``first`` time since one was done; it is done again."""

    def end_to_end(self, seconds: float, count: int) -> None:
        """``count`` results were published this long after the oldest reading that they rest on arrived."""

    def unkept(self, count: int) -> None:
        """``count`` dead letters were counted and not kept: there were too many (`hs_stream.engine.unusable`)."""

    def unpublished(self, reason: str, count: int) -> None:
        """``count`` results were not published: the other side will not have them. ``reason`` is one of few words."""

    def failed(self, tool: str, node: str, stream: str, start: int, end: int, count: int, error: str) -> None:
        """``count`` instants of ``stream`` in ``(start, end]`` failed, with an exception of the type ``error``.

        Not its message, which may have values in it.
        """
