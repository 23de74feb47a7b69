"""How long to wait until what has failed is tried again: brokers, stores and side tasks alike."""

from __future__ import annotations

import random

__all__ = ["backoff"]


def backoff(attempt: int, first: float, most: float) -> float:
    """Seconds to wait before one more attempt, where ``attempt`` (from 0 on) of them have failed before the last one.

    ``first`` at the beginning, twice as long each time, never more than ``most``; and of that half to all, by chance,
    so that not everybody who has lost the same broker comes back at the same moment.
    """
    return min(first * 2.0 ** min(attempt, 30), most) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
