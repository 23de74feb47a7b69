"""What the engine reports of itself while it works. The service turns it into Prometheus metrics.

Every method must be cheap (microseconds) and must not raise. Gauges are not reported here: whoever wants them reads
``Engine.statistics()``.
"""

from __future__ import annotations

__all__ = ["Telemetry"]


class Telemetry:
    """Does nothing; subclass what you want to count."""

    def readings(self, source: str, count: int) -> None:
        """``count`` readings of ``source`` were stored (repeats included)."""

    def dead_letters(self, source: str, reason: str, count: int) -> None:
        """``count`` things from ``source`` could not be used."""

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

    def end_to_end(self, seconds: float, count: int) -> None:
        """``count`` results were published this long after the arrival of the oldest reading behind them."""

    def unpublished(self, reason: str, count: int) -> None:
        """``count`` results were not published: the other side will not have them. ``reason`` is one of few words."""

    def failed(self, tool: str) -> None:
        """An evaluation of ``tool`` raised."""

    def interval_failed(self, node: str, stream: str, start: int, end: int, error: str) -> None:
        """``(start, end]`` of ``stream`` is failed now: the tool raised an ``error``, which is the exception's type.

        Not its message, which may have values in it.
        """
