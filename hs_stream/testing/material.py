"""Random histories for checkers, from a counter-based generator: one seed, one history, on every machine.

Histories are made to hurt: instants at the bounds of windows and a millisecond beside them, bursts and long gaps, equal
values, days on which the clock changes, magnitudes that lose digits.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Final, TypeVar

import numpy as np

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.time import MIN_TIME, TimeInterval
from hs_stream.core.tool import Duration, OnGrid, Tool, Window
from hs_stream.core.value import Value, canonical

__all__ = ["ORIGINS", "Material"]

T = TypeVar("T")

ORIGINS: Final = (
    0,
    -987_654_321,
    1_423_072_260_000,  # 2015-02-04T17:51Z
    1_427_590_800_000,  # 2015-03-29T01:00Z: 02:00 becomes 03:00 in Brussels
    1_445_734_800_000,  # 2015-10-25T01:00Z: 03:00 becomes 02:00 in Brussels
    2_147_483_648_000,
)
_TEXTS: Final = ("a", "b", "c", "value", "temperature", "humidity", "x", "y")
_KEYS: Final = ("value0", "value1", "value2")
"""The plate values of an aggregate's inputs, where `hs_stream.testing.check_tool` makes them up."""
_NUMBERS: Final = ("floats", "ints", "mixed", "few", "offset", "extreme")
_BAD: Final[tuple[Value, ...]] = (
    "unknown",
    "",
    "12,5",
    None,
    True,
    [],
    [1.0, "a"],
    {},
    {"a": "b"},
    b"\xff",
    float("inf"),
    -(1 << 62),
    TimeInterval(0, 1),
)
_OBJECTS: Final = ("object", "full")
_ANY: Final = (*_NUMBERS, "bools", "texts", "lists", *_OBJECTS, "intervals", "anything")
_KINDS: Final[dict[str, tuple[str, ...]]] = {
    "number": _NUMBERS,
    "boolean": ("bools",),
    "object": _OBJECTS,
    "any": _ANY,
    "[number]": ("lists",),
    "{number}": ("counts",),
    "[{number}]": ("rows",),
    "[any, text]": ("pairs",),
    "interval": ("intervals",),
    "{interval}": ("schedules",),
}


class Material:
    """Draws histories for one tool. ``size`` bounds how many instances an input has."""

    def __init__(self, tool: Tool, seed: int, *, missing: bool = False) -> None:
        self.random = np.random.Generator(np.random.Philox(seed))
        self.tool = tool
        self.missing = missing
        self.inputs = tool.arity if tool.arity is not None else self.between(1, 3)
        self.scales = self._scales()
        self.step = self.pick(self.scales)
        self.origin = self.pick(ORIGINS)
        self.texts = (*_TEXTS, *_texts_in(tool))

    def between(self, low: int, high: int) -> int:
        """An integer, both bounds included."""
        return int(self.random.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return bool(self.random.random() < probability)

    def pick(self, options: Sequence[T]) -> T:
        """One of ``options``."""
        return options[self.between(0, len(options) - 1)]

    def _scales(self) -> list[int]:
        lengths = set()
        windows = [support for slot in range(self.inputs) if isinstance(support := self.tool.support(slot), Window)]
        for window in windows:
            lengths |= {window.lookback, window.lookahead}
        self.lookback = max((window.lookback for window in windows), default=1000)
        self.lookahead = max((window.lookahead for window in windows), default=1000)
        drive = self.tool.drive()
        if isinstance(drive, OnGrid):
            lengths |= {drive.grid.every} if drive.grid.every > 1 else _durations_in(self.tool)
        self.lengths = sorted(length for length in lengths if length > 0) or [1000]
        return sorted({1} | {max(length * part // 12, 1) for length in self.lengths for part in (1, 4, 12)})

    # --- times ---

    def times(self, size: int) -> list[int]:
        """Up to ``size`` instants around `origin`, ascending."""
        time = self.origin - self.between(0, size) * self.step
        times = set()
        for _ in range(self.between(0, size)):
            kind = self.random.random()
            if kind < 0.15:
                time += 1
            elif kind < 0.25:
                time += self.pick(self.lengths) + self.between(-1, 1)
            elif kind < 0.3:
                time += 12 * self.step
            else:
                time += max(round(self.step * (0.5 + self.random.random())), 1)
            if self.chance(0.2):
                length = self.pick(self.lengths)
                time = time // length * length
            times.add(time)
        return sorted(times)

    def instant(self, sources: Sequence[Batch]) -> int:
        """An instant near those of ``sources``, often exactly at the bound of something."""
        known = [source for source in sources if source]
        if known and self.chance(0.8):
            time = int(self.pick(self.pick(known).times.tolist()))
            kind = self.random.random()
            if kind < 0.4:
                return time + self.between(-1, 1)
            if kind < 0.8:
                return time + self.pick(self.lengths) * self.pick((-1, 1)) + self.between(-1, 1)
            return time + self.between(-3, 3) * self.step
        length = self.pick(self.lengths)
        return (self.origin // length + self.between(-3, 3)) * length + self.pick((0, 0, 0, -1, 1, length // 3))

    def interval(self, sources: Sequence[Batch]) -> TimeInterval:
        """A bounded interval around ``sources``; now and then one from minus infinity on, if the tool has inputs."""
        ends = {self.instant(sources) for _ in range(2)}
        known = [source for source in sources if source]
        if known and self.chance(0.5):
            ends |= {min(source.first_time for source in known) - 1, max(source.last_time for source in known)}
        start, end = min(ends), max(ends)
        if start == end:
            end += 1 + self.pick(self.lengths)
        if self.tool.arity != 0 and self.chance(0.15):
            start = MIN_TIME
        return TimeInterval(start, end)

    def cuts(self, interval: TimeInterval, sources: Sequence[Batch]) -> list[int]:
        """Instants strictly inside of ``interval``: one to four, unless there is none."""
        drawn = {self.instant(sources) for _ in range(self.between(1, 3))}
        drawn |= {time for source in sources if source for time in (self.pick(source.times.tolist()),)}
        if interval.start > MIN_TIME and self.chance(0.5):
            drawn.add(self.between(interval.start, interval.end))
        return sorted(cut for cut in drawn if interval.start < cut < interval.end)

    # --- values ---

    def sources(self, size: int) -> list[Batch]:
        """One batch for each input; several inputs share many of their times."""
        result: list[Batch] = []
        for slot in range(self.inputs):
            times = self.times(size)
            if result and self.chance(0.7):
                shared = [time for time in result[0].times.tolist() if self.chance(0.7)]
                times = sorted({*shared, *times[: len(times) // 3]})
            result.append(Batch.build(times, self.values(slot, times)))
        return result

    def values(self, slot: int, times: Sequence[int]) -> list[Value]:
        """Values at ``times`` that the tool says it takes."""
        takes = self.tool.takes_at(slot)
        kind = "" if takes == "examples" else self.pick(_KINDS[takes])
        if kind:
            values = [self.value(kind, time) for time in times]
        else:
            examples = self.tool.examples(slot)
            values = [canonical(self.pick(examples)) for _ in times]
        if (self.missing or kind == "anything") and self.chance(0.5):
            values = [None if self.chance(0.2) else value for value in values]
        return values

    def value(self, kind: str, time: int = 0) -> Value:
        """One value of this kind, for an instance at ``time``."""
        if kind == "anything":
            kind = self.pick(_ANY[:-1])
        if kind == "mixed":
            kind = self.pick(("floats", "ints"))
        if kind == "floats":
            return float("nan") if self.chance(0.05) else float(self.random.normal()) * 3
        if kind == "ints":
            return self.between(-5, 5)
        if kind == "few":
            return self.pick((0.0, -0.0, 1.0, 0.5))
        if kind == "offset":
            return 1e9 + float(self.random.random())
        if kind == "extreme":
            return self.pick((1e300, -1e300, 5e-324, 1e16, 1.0, -1e16, 0.1))
        if kind == "bools":
            return self.chance(0.5)
        if kind == "texts":
            return self.pick(self.texts)
        if kind == "lists":
            return [self.element() for _ in range(self.between(0, 3))]
        if kind == "counts":
            return {self.pick(self.texts): self.element() for _ in range(self.between(0, 3))}
        if kind == "pairs":
            return [self.value("anything", time), self.pick((*self.texts, *_KEYS))]
        if kind == "schedules":
            return {self.pick(self.texts): self.window(time) for _ in range(self.between(0, 3))}
        if kind == "rows":
            return [self.value("counts") for _ in range(self.between(0, 3))]
        if kind == "intervals":
            return self.window(time)
        count = len(self.texts) if kind == "full" else self.between(0, 4)
        keys = self.texts if kind == "full" else [self.pick(self.texts) for _ in range(count)]
        return {key: self.value(self.pick(("floats", "ints", "bools", "texts", "lists"))) for key in keys}

    def element(self) -> Value:
        """A number inside of a list or an object."""
        return None if self.missing and self.chance(0.1) else self.value("mixed")

    def window(self, time: int) -> TimeInterval:
        """An interval inside of ``(time - lookback, time + lookahead]``, often with a bound in common with it."""
        low, high = time - self.lookback, time + self.lookahead
        start = low if self.chance(0.5) else self.between(low, high - 1)
        end = self.pick([end for end in (time, high, self.between(start + 1, high)) if end > start])
        return TimeInterval(start, end)

    def hurt(self, sources: Sequence[Batch]) -> list[Batch]:
        """``sources``, some of whose values are of another kind, as a whole or in one of their parts."""
        return [
            Batch.build(source.times, [self.bad(value) if self.chance(0.3) else value for value in source.plain()])
            for source in sources
        ]

    def bad(self, value: Value) -> Value:
        """What a device may send instead of ``value``."""
        if isinstance(value, dict) and value and self.chance(0.6):
            return value | {self.pick(sorted(value)): self.pick(_BAD)}
        if isinstance(value, list) and value and self.chance(0.6):
            at = self.between(0, len(value) - 1)
            return [*value[:at], self.pick(_BAD), *value[at + 1 :]]
        return self.pick(_BAD)

    def noise(self, slot: int, low: int, high: int, count: int) -> Batch:
        """Up to ``count`` instances in ``(low, high]``, near `origin` or a bound."""
        near = [bound for bound in (low + 1, high) if abs(bound) < 1 << 60]
        drawn = set()
        for _ in range(count):
            time = self.pick(near) + self.pick((0, 1, -1, self.step, -self.step, 5 * self.step, -5 * self.step))
            if low < time <= high:
                drawn.add(time)
        times = sorted(drawn)
        return Batch.build(times, self.values(slot, times)) if times else NOTHING


def _durations_in(tool: Tool) -> set[int]:
    """What a tool waits for that may speak at any instant is among its parameters only."""
    hints = typing.get_type_hints(type(tool))
    given = {name: value for name, value in vars(tool).items() if type(value) is int}
    return {value for name, value in given.items() if Duration in (hints.get(name), *typing.get_args(hints.get(name)))}


def _texts_in(tool: Tool) -> tuple[str, ...]:
    found: list[str] = []
    for value in vars(tool).values():
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, tuple):
            found += [item for item in value if isinstance(item, str)]
    return tuple(found)
