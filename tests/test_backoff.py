"""The wait before another try grows to its most, and half of it is chance."""

from __future__ import annotations

from hs_stream.backoff import backoff


def test_it_doubles_up_to_the_most_and_is_spread() -> None:
    for attempt, whole in ((0, 0.5), (1, 1.0), (3, 4.0), (6, 30.0), (10**9, 30.0)):
        waits = [backoff(attempt, 0.5, 30.0) for _ in range(200)]
        assert whole / 2 <= min(waits) < 0.7 * whole
        assert 0.8 * whole < max(waits) <= whole
