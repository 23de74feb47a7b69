"""What lasts: until the next reading, until it is unknown, or until it is too old.

1. A reading says what holds from its time on. ``None``, NaN and the texts ``unavailable`` and ``unknown`` say that it
   is not known from then on (``missing: ends``), or are as if they were not there (``missing: keeps``).
2. ``max_age``: for how long a reading is believed: one of exactly this age is not.
3. `Lasting` is a fold over what holds that can speak at any instant; `held` looks it up at given times.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from hs_stream.core.batch import Batch
from hs_stream.core.time import Grid, format_duration
from hs_stream.core.tool import SKIP, Drive, Duration, FoldTool, FromInput, OnGrid
from hs_stream.core.value import Value

__all__ = ["UNKNOWN", "Lasting", "Missing", "Said", "at", "check_age", "held", "unknown", "unknowns"]

Missing = Literal["ends", "keeps"]
"""Whether an unknown reading ends what lasts, or is as if it were not there."""
Said = tuple[int, Value] | None
"""An output and its time."""

_WORDS: Final = ("unavailable", "unknown")
_ANY_INSTANT: Final = OnGrid(Grid(1))


class _Unknown:
    """The type of `UNKNOWN`."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = _Unknown()
"""What holds where it is not known what holds. ``None`` is never that: it is a value that outputs have."""


def unknown(value: Value) -> bool:
    """Whether a reading says that nothing is known: ``None``, NaN, ``unavailable`` and ``unknown``."""
    return value is None or (isinstance(value, str) and value in _WORDS) or bool(value != value)


def unknowns(batch: Batch) -> npt.NDArray[np.bool_]:
    """`unknown` of each value."""
    values = batch.values
    if isinstance(values, np.ndarray):
        return np.isnan(values) if values.dtype == np.float64 else np.zeros(len(values), np.bool_)
    return np.fromiter(map(unknown, values), np.bool_, len(values))


def held(
    source: Batch, times: npt.NDArray[np.int64], max_age: int | None, missing: Missing = "ends", *, strict: bool = False
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """For each of ``times`` the position of the reading that holds there, and whether there is one.

    ``strict``: the one that holds just before it. That was set earlier, and may be exactly ``max_age`` old.
    """
    lost = unknowns(source)
    positions = np.flatnonzero(~lost) if missing == "keeps" else np.arange(len(source))
    ranks = source.times[positions].searchsorted(times, "left" if strict else "right") - 1
    if not len(positions):
        return ranks, np.zeros(len(times), np.bool_)
    found = positions[np.maximum(ranks, 0)]
    valid = (ranks >= 0) & ~lost[found]
    if max_age is not None:
        ages = times - source.times[found]
        valid &= (ages <= max_age) if strict else (ages < max_age)
    return found, valid


def at(source: Batch, position: int) -> Value:
    """The value at ``position``, as Python has it."""
    value = source.values[position]
    return value.item() if isinstance(value, np.generic) else value


def check_age(max_age: int | None) -> None:
    """``ValueError`` unless ``max_age`` is longer than 0."""
    if max_age is not None and max_age <= 0:
        raise ValueError(f"max_age must be longer than 0, not {format_duration(max_age)}")


@dataclass(frozen=True, kw_only=True)
class Lasting(FoldTool):
    """A fold over what holds (see the module), which speaks at any instant.

    Its author writes `begin`, `turn` and `says`. The state is ``[what turn gave, when the last reading is too old]``.
    """

    max_age: Duration | None = None
    missing: Missing = "ends"

    def __post_init__(self) -> None:
        check_age(self.max_age)

    @property
    def timed(self) -> bool:
        """Whether it may speak without a reading."""
        return True

    @abstractmethod
    def begin(self) -> Value:
        """Before the first reading. Nothing is said before that."""

    @abstractmethod
    def turn(self, now: Value, time: int, value: Value) -> Value:
        """From ``time`` on ``value`` holds, or `UNKNOWN`. Must not change ``now`` in place."""

    @abstractmethod
    def says(self, now: Value, after: int) -> Said:
        """The first output later than ``after``, if nothing else comes to hold before it."""

    def means(self, value: Value) -> Value:
        """What a reading says that holds, or `UNKNOWN`."""
        return UNKNOWN if unknown(value) else value

    def drive(self) -> Drive:
        """Any instant, or the input's times."""
        return _ANY_INSTANT if self.timed else FromInput(0)

    def initial(self) -> Value:
        """Nothing holds."""
        return [self.begin(), None]

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        """What holds ends where it is too old, and another one begins."""
        meant = self.means(value)
        if meant is UNKNOWN and self.missing == "keeps":
            return state, SKIP
        now, expires = state
        if expires is not None and expires < time:
            now = self.turn(now, expires, UNKNOWN)
        now = self.turn(now, time, meant)
        expires = None if meant is UNKNOWN or self.max_age is None else time + self.max_age
        if self.timed:
            return [now, expires], SKIP
        said = self.says(now, time - 1)
        return [now, expires], said[1] if said is not None and said[0] == time else SKIP

    def quiet(self, state: Value, start: int, end: int) -> Iterator[tuple[int, Value]]:
        """What is said in silence, also of the end of what is too old."""
        now, expires = state
        if expires is not None and expires <= end:
            yield from self._until(now, start, expires - 1)
            now, start = self.turn(now, expires, UNKNOWN), max(start, expires - 1)
        yield from self._until(now, start, end)

    def _until(self, now: Value, start: int, end: int) -> Iterator[tuple[int, Value]]:
        said = self.says(now, start) if start < end else None
        while said is not None and said[0] <= end:
            yield said
            said = self.says(now, said[0])

    def due(self, state: Value, after: int) -> int | None:
        """When it speaks next, if no reading comes."""
        now, expires = state
        said = self.says(now, after)
        if expires is not None and (said is None or said[0] >= expires):
            said = self.says(self.turn(now, expires, UNKNOWN), max(after, expires - 1))
        return None if said is None else said[0]
