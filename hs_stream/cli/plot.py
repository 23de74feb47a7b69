"""A stream as a line of text: ``--plot``."""

from __future__ import annotations

import math

from hs_stream.core.batch import Batch
from hs_stream.core.errors import ConfigurationError
from hs_stream.core.time import format_time

__all__ = ["plot"]

_BARS = "▁▂▃▄▅▆▇█"


def plot(batch: Batch, width: int) -> str:
    """The mean of each of ``width`` equal parts of the time between first and last instance; blank where there is none.

    Raises `ConfigurationError` for values that are no numbers.
    """
    if not batch:
        return "no instances"
    try:
        numbers = batch.numbers().tolist()
    except TypeError:
        raise ConfigurationError("only numbers can be drawn", hint="leave --plot out") from None
    first, last = batch.first_time, batch.last_time
    width = max(min(width, 200), 10)
    parts: list[list[float]] = [[] for _ in range(width)]
    for time, number in zip(batch.times.tolist(), numbers, strict=True):
        if math.isfinite(number):
            parts[min((time - first) * width // max(last - first, 1), width - 1)].append(number)
    means = [sum(part) / len(part) if part else None for part in parts]
    known = [mean for mean in means if mean is not None]
    if not known:
        return "no finite numbers"
    low, high = min(known), max(known)
    step = (high - low) / len(_BARS) or 1.0
    bars = ("".join(" " if m is None else _BARS[min(int((m - low) / step), len(_BARS) - 1)] for m in means)).rstrip()
    return f"{bars}\n{format_time(first)} to {format_time(last)}, {len(batch)} instances, {low:g} to {high:g}"
