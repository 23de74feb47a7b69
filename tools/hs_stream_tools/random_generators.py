"""Random values that belong to their time: the base class, and the tools whose values are spread evenly or by you.

1. The value at t depends on the tool's name, its parameters, its ``seed``, the plate values of the stream and t, and on
   nothing else: not on what was drawn before, not on where an evaluation begins, not on which plate value was there
   first. A restart, a late reading, another machine give the same value.
2. So nothing draws from a sequence that goes on. Each instance has a ``random.Random`` of Python of its own, seeded
   with 128 bits: 64 of a digest of name, seed and plate values, then the 64 of t. The distributions are Python's, under
   its names.
3. Tools of two names, and of one name with two seeds, are independent of each other. Of one name *and* one seed they
   draw the same numbers and only use them by their parameters: give each of several nodes a seed of its own.
4. Streams of one node are as independent of each other. Versions 1.0.0 did not look at plate values: over a plate, all
   streams had the same value at one time. Without plates the versions give the same numbers.

Python promises that ``Random.random()`` stays what it is in later versions. That the distributions do is watched over
by the values in ``tests/tools/test_random_generators.py``; if one changes, its tool needs a new version.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import math
import random
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar, Final, Self, TypeVar

import numpy as np
import numpy.typing as npt

from hs_stream.core.batch import Batch
from hs_stream.core.errors import ToolError
from hs_stream.core.time import MIN_TIME, Grid, TimeInterval, format_duration, from_ms
from hs_stream.core.tool import SKIP, Drive, Duration, FromInput, OnGrid, Pointwise, Support, Tool
from hs_stream.core.value import Value
from hs_stream_tools.functions import function_of, import_path, stored

__all__ = [
    "Custom",
    "Randint",
    "RandomGenerator",
    "RandomUnit",
    "Randrange",
    "Triangular",
    "Uniform",
    "without_plates",
]

_64_BITS: Final = (1 << 64) - 1
_INT64: Final = range(-(1 << 63), 1 << 63)


class RandomGenerator(Tool):
    """At each of its times a value drawn for that time: the base class of the tools here, and of your own.

    Without ``every`` there is one input, whose times are the output's and whose values do not matter. With ``every``
    there is no input: the times are those of a grid, with ``tz`` on the wall clock of that zone.

    Each stream over a plate has its own numbers. A tool that was released without that sets ``by_plates = False``.

    A subclass is a dataclass that writes `draw` and declares those of the three parameters below that it has, after
    its own: where parameters are given without names, their order counts.
    """

    kind = "generator"
    output_kind = "sample"
    output_unit = "none"
    alignment = 0
    by_plates: ClassVar[bool] = True
    """Whether the plate values of the stream count (rule 1 of the module)."""
    _plates: ClassVar[str] = ""
    """Set on what `bound_to` returns: the plate values of the stream, if they count and there are any."""
    seed: int = 0
    every: Duration | None = None
    tz: str | None = None

    def __post_init__(self) -> None:
        if self.seed not in _INT64:
            raise ValueError(f"seed must fit into 64 bits, and {self.seed} does not")
        if self.every is None:
            if self.tz is not None:
                raise ValueError("tz needs every: it says on whose clock the grid lies")
            return
        if self.every <= 0:
            raise ValueError(f"every must be longer than 0, not {format_duration(self.every)}")
        Grid(self.every, self.tz)
        # Whoever connects the inputs then sees that there must be none.
        object.__setattr__(self, "arity", 0)

    def support(self, slot: int) -> Support:
        """The input's instance at t. Never asked with ``every``."""
        if self.every is not None:
            raise ToolError(f"{self.name} with every has no inputs, so there is no input {slot}")
        return Pointwise()

    def drive(self) -> Drive:
        """The grid, or the input's times."""
        return FromInput(0) if self.every is None else OnGrid(Grid(self.every, self.tz))

    def bound_to(self, meta: Mapping[str, str], into: str | None) -> Self:
        """The tool for the stream with these plate values."""
        if not meta or not self.by_plates:
            return self
        bound = copy.copy(self)
        object.__setattr__(bound, "_plates", json.dumps(dict(meta), sort_keys=True))
        vars(bound).pop("_key", None)
        return bound

    @abstractmethod
    def draw(self, rng: random.Random, time: int) -> Value:
        """The value at ``time``, or `SKIP`. ``rng`` is made for this time and tool."""

    @cached_property
    def _key(self) -> int:
        digest = hashlib.blake2b(f"{self.name}:{self.seed}{self._plates}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") << 64

    def at(self, time: int) -> Value:
        """The value at ``time`` (ms), or `SKIP`: rule 2 of the module."""
        return self.draw(random.Random(self._key | (time & _64_BITS)), time)  # noqa: S311 - no secret

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """`at` for each time in ``interval``."""
        times = self._times(interval, sources)
        values = [self.at(time) for time in times.tolist()]
        kept = [index for index, value in enumerate(values) if value is not SKIP]
        if len(kept) < len(values):
            times, values = times[kept], [values[index] for index in kept]
        return Batch.build(times, values)

    def _times(self, interval: TimeInterval, sources: Sequence[Batch]) -> npt.NDArray[np.int64]:
        if self.every is None:
            return sources[0].slice(interval.start, interval.end).times
        if interval.start <= MIN_TIME:
            raise ToolError(f"{self.name} with every has no first time", hint="ask for an interval with a finite start")
        return Grid(self.every, self.tz).times(interval.start, interval.end)


_Generator = TypeVar("_Generator", bound=type[RandomGenerator])


def without_plates(kind: _Generator) -> _Generator:
    """Version 1.0.0 of ``kind``, to stand beside it: rule 4 of the module."""
    body = {"__module__": kind.__module__, "__doc__": kind.__doc__, "version": "1.0.0", "by_plates": False}
    return type(f"{kind.__name__}WithoutPlates", (kind,), body)  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class RandomUnit(RandomGenerator):
    """A random number from 0 (included) to 1 (excluded), evenly spread.

    ``seed``: a whole number of up to 64 bits. At one time and with one seed the value is always the same, whenever and
    wherever it is computed; another seed gives other, independent values. Nodes of one tool need different seeds, or
    they draw the same numbers. The streams of one node over a plate have values of their own; in version
    1.0.0 they have the same value where they have the same time.

    Without ``every`` there is one input: an output at each of its instances, whose values do not matter. With
    ``every`` there is no input: an output at each instant of a grid, as the tool ``clock`` has; ``tz``: its IANA zone.

    >>> list(RandomUnit(every=1000).evaluate(TimeInterval(0, 2000), []))
    [(1000, 0.5412402073174243), (2000, 0.5090214915880624)]
    """

    name = "random"
    version = "1.1.0"
    samples = ({}, {"seed": -5}, {"every": "1s"}, {"seed": (1 << 63) - 1, "every": "7m", "tz": "Europe/Brussels"})
    seed: int = 0
    every: Duration | None = None
    tz: str | None = None

    def draw(self, rng: random.Random, time: int) -> Value:
        """A multiple of 2**-53."""
        return rng.random()


def _check_width(low: float, high: float) -> None:
    if not math.isfinite(high - low):
        raise ValueError(f"{low:g} and {high:g} are further apart than a 64-bit float can say")


@dataclass(frozen=True, kw_only=True)
class Uniform(RandomGenerator):
    """A random number between ``a`` and ``b``, evenly spread.

    ``b`` may be less than ``a``. Whether the value can be exactly ``b`` depends on rounding; it can be ``a``.
    ``seed``, ``every``, ``tz``: as for ``random``.

    >>> Uniform(a=18, b=22).at(0)
    20.031862330408583
    """

    name = "uniform"
    version = "1.1.0"
    samples = ({"a": 18, "b": 22}, {"a": 1, "b": -1, "every": "1m"})
    a: float
    b: float
    seed: int = 0
    every: Duration | None = None
    tz: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_width(self.a, self.b)

    def draw(self, rng: random.Random, time: int) -> Value:
        """``a + (b - a) * u``."""
        return rng.uniform(self.a, self.b)


@dataclass(frozen=True, kw_only=True)
class Triangular(RandomGenerator):
    """A random number between ``low`` and ``high``, most often near ``mode``.

    The density rises in a straight line from ``low`` to ``mode`` and falls in one to ``high``. ``mode``: from ``low``
    to ``high``, both included; without it half-way. ``low`` and ``high`` may be equal, and the value is then constant.
    ``seed``, ``every``, ``tz``: as for ``random``.

    >>> Triangular(low=0, high=10, mode=9).at(0)
    2.8931498374973814
    """

    name = "triangular"
    version = "1.1.0"
    samples = ({}, {"low": -2, "high": 8, "mode": 8}, {"low": 5, "high": 5, "mode": 5, "every": "1m"})
    low: float = 0.0
    high: float = 1.0
    mode: float | None = None
    seed: int = 0
    every: Duration | None = None
    tz: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.low <= self.high:
            raise ValueError(f"low must not be above high, but {self.low:g} is above {self.high:g}")
        if self.mode is not None and not self.low <= self.mode <= self.high:
            raise ValueError(f"mode must lie from low {self.low:g} to high {self.high:g}, not at {self.mode:g}")
        _check_width(self.low, self.high)

    def draw(self, rng: random.Random, time: int) -> Value:
        """By the inverse of the distribution."""
        return rng.triangular(self.low, self.high, self.mode)


def _check_integers(numbers: range, said: str) -> None:
    """``ValueError`` unless there are numbers to choose from, all of which can be stored."""
    if not numbers:
        raise ValueError(f"there is no whole number {said}")
    if numbers[0] not in _INT64 or numbers[-1] not in _INT64:
        raise ValueError(f"the whole numbers {said} do not all fit into 64 bits")


@dataclass(frozen=True, kw_only=True)
class Randint(RandomGenerator):
    """A random whole number from ``a`` to ``b``, both included, each as often.

    ``seed``, ``every``, ``tz``: as for ``random``.

    >>> [Randint(a=1, b=6).at(time) for time in range(8)]
    [4, 4, 2, 5, 3, 2, 5, 6]
    """

    name = "randint"
    version = "1.1.0"
    samples = ({"a": 1, "b": 6}, {"a": -(1 << 63), "b": (1 << 63) - 1}, {"a": 4, "b": 4, "every": "1m"})
    a: int
    b: int
    seed: int = 0
    every: Duration | None = None
    tz: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_integers(range(self.a, self.b + 1), f"from a = {self.a} to b = {self.b}")

    def draw(self, rng: random.Random, time: int) -> Value:
        """By rejection, so that no number is favoured."""
        return rng.randint(self.a, self.b)


@dataclass(frozen=True, kw_only=True)
class Randrange(RandomGenerator):
    """A random element of Python's ``range(start, stop, step)``, each as often.

    ``stop`` is excluded; with ``start`` alone it is one of 0 to ``start - 1``. ``step`` may be negative, not 0.
    ``seed``, ``every``, ``tz``: as for ``random``.

    >>> [Randrange(start=0, stop=100, step=10).at(time) for time in range(8)]
    [40, 0, 20, 60, 40, 20, 70, 60]
    """

    name = "randrange"
    version = "1.1.0"
    samples = ({"start": 3}, {"start": 0, "stop": 100, "step": 7}, {"start": 5, "stop": -5, "step": -2, "every": "1m"})
    start: int
    stop: int | None = None
    step: int = 1
    seed: int = 0
    every: Duration | None = None
    tz: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step == 0:
            raise ValueError("step must not be 0")
        if self.stop is None and self.step != 1:
            raise ValueError("step needs stop: with start alone the numbers are those from 0 to below it")
        numbers = self.numbers
        _check_integers(numbers, f"from {numbers.start} to before {numbers.stop} in steps of {numbers.step}")

    @property
    def numbers(self) -> range:
        """What is chosen from."""
        return range(self.start) if self.stop is None else range(self.start, self.stop, self.step)

    def draw(self, rng: random.Random, time: int) -> Value:
        """By rejection, so that no number is favoured."""
        numbers = self.numbers
        return rng.randrange(numbers.start, numbers.stop, numbers.step)


def day_curve(rng: random.Random, time: datetime) -> float:
    """A function for ``custom``: degrees Celsius of a made-up climate, warmest at 15:00 UTC, with some noise."""
    return 12.0 + 6.0 * math.cos((time.hour + time.minute / 60 - 15) / 12 * math.pi) + rng.gauss(0.0, 0.5)


@dataclass(frozen=True, kw_only=True)
class Custom(RandomGenerator):
    """What a Python function makes of a random generator and a time.

    ``function``: its import path ``package.module:function``; in Python also the function itself (a workflow with a
    lambda runs, but cannot be saved). It is called as ``function(rng, time)`` with a ``random.Random`` that is seeded
    for this time, and with an aware UTC datetime. It must draw from that generator only, and not keep it. Output: what
    it returns; ``None`` is a value; ``hs_stream.core.tool.SKIP`` gives no output. ``seed``, ``every``, ``tz``: as for
    ``random``.

    An import path runs code of that module with the rights of the service.

    >>> climate = Custom(function="hs_stream_tools.random_generators:day_curve", every=43_200_000)
    >>> [round(degrees, 2) for _, degrees in climate.evaluate(TimeInterval(0, 86_400_000), [])]
    [15.84, 8.19]
    """

    name = "custom"
    version = "1.1.0"
    samples = (
        {"function": f"{__name__}:day_curve"},
        {"function": f"{__name__}:day_curve", "seed": 1, "every": "7m"},
        {"function": "operator:ne"},
    )
    function: Any
    seed: int = 0
    every: Duration | None = None
    tz: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        function = self.call
        try:
            inspect.signature(function).bind(None, None)
        except TypeError as error:
            raise ValueError(f"function must take a random.Random and a time: {error}") from None
        except ValueError:
            pass  # some functions that are written in C do not say what they take

    @cached_property
    def call(self) -> Callable[..., Any]:
        """The function itself."""
        return function_of(self.function)

    def parameters(self) -> dict[str, Any]:
        """With the import path of the function. `ConfigurationError` when it has none."""
        return super().parameters() | {"function": import_path(self.function)}

    def draw(self, rng: random.Random, time: int) -> Value:
        """What the function returns, in canonical form."""
        return stored(self.name, self.function, time, self.call(rng, from_ms(time)))


# --- 1.0.0 -----------------------------------------------------------------------------------------------------------

RandomUnitWithoutPlates = without_plates(RandomUnit)
UniformWithoutPlates = without_plates(Uniform)
TriangularWithoutPlates = without_plates(Triangular)
RandintWithoutPlates = without_plates(Randint)
RandrangeWithoutPlates = without_plates(Randrange)
CustomWithoutPlates = without_plates(Custom)
