"""Random values from the distributions of statistics. Their rules are those of `hs_stream_tools.random_generators`.

The formulas are those of Python's module ``random``, which names their sources: for ``normalvariate`` Kinderman and
Monahan, ACM TOMS 3 (1977); for ``gammavariate`` Cheng, Applied Statistics 26 (1977), and below an alpha of 1 Kennedy
and Gentle, Statistical Computing, algorithm GS; for ``betavariate`` Knuth, volume 2, 3.4.1; for ``vonmisesvariate``
Fisher, Statistical Analysis of Circular Data (1993). ``gauss`` is Box and Muller's; the others are inverted.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hs_stream.core.tool import Duration
from hs_stream.core.value import Value
from hs_stream_tools.random_generators import RandomGenerator, without_plates

__all__ = [
    "Betavariate",
    "Expovariate",
    "Gammavariate",
    "Gauss",
    "Lognormvariate",
    "Normalvariate",
    "Paretovariate",
    "Vonmisesvariate",
    "Weibullvariate",
]

_SMALLEST: Final = 2.0**-53
"""The smallest number above 0 that a distribution draws from 0 to 1."""
_DEVIATIONS: Final = 13
"""No normal number lies further out: that of `_SMALLEST` is at 12.1 standard deviations."""


def _check_positive(**parameters: float) -> None:
    for name, value in parameters.items():
        if not value > 0:
            raise ValueError(f"{name} must be greater than 0, not {value:g}")


def _check_largest(largest: Callable[[], float]) -> None:
    """``ValueError`` if ``largest()``, which no value exceeds, is too large, so that it never happens while drawing."""
    try:
        fits = math.isfinite(largest())
    except OverflowError:
        fits = False
    if not fits:
        raise ValueError("with these parameters a value may be too large for a 64-bit float")


@dataclass(frozen=True, kw_only=True)
class _Normal(RandomGenerator):
    mu: float = 0.0
    sigma: float = 1.0
    seed: int = 0
    every: Duration | None = None
    tz: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sigma >= 0:
            raise ValueError(f"sigma must not be negative, and is {self.sigma:g}")
        _check_largest(self.largest)

    def largest(self) -> float:
        """What no value exceeds."""
        return abs(self.mu) + _DEVIATIONS * self.sigma


@dataclass(frozen=True, kw_only=True)
class Gauss(_Normal):
    """A random number with mean ``mu`` and standard deviation ``sigma``, normally distributed.

    ``sigma`` may be 0: every value is ``mu`` then. ``seed``, ``every``, ``tz``: as for ``random``.

    >>> Gauss(mu=21, sigma=0.5).at(0)
    21.580186272611265
    """

    name = "gauss"
    version = "1.1.0"
    samples = ({}, {"mu": 21, "sigma": 0.5, "seed": 1, "every": "1m"}, {"sigma": 0})

    def draw(self, rng: random.Random, time: int) -> Value:
        """One of the two numbers of a pair; the other is not kept."""
        return rng.gauss(self.mu, self.sigma)


@dataclass(frozen=True, kw_only=True)
class Normalvariate(_Normal):
    """A random number with mean ``mu`` and standard deviation ``sigma``, normally distributed.

    The same distribution as ``gauss``, from another formula, and independent of it. ``sigma`` may be 0: every value is
    ``mu`` then. ``seed``, ``every``, ``tz``: as for ``random``.

    >>> Normalvariate(mu=21, sigma=0.5).at(0)
    21.74495623769116
    """

    name = "normalvariate"
    version = "1.1.0"
    samples = ({}, {"mu": 21, "sigma": 0.5, "seed": 1, "every": "1m"})

    def draw(self, rng: random.Random, time: int) -> Value:
        """By rejection."""
        return rng.normalvariate(self.mu, self.sigma)


@dataclass(frozen=True, kw_only=True)
class Lognormvariate(_Normal):
    """A random number whose natural logarithm is normally distributed.

    ``mu``, ``sigma``: mean and standard deviation of the logarithm, not of the value, whose median is ``exp(mu)`` and
    whose mean is ``exp(mu + sigma**2 / 2)``. ``seed``, ``every``, ``tz``: as for ``random``.

    >>> Lognormvariate(mu=2, sigma=0.25).at(0)
    7.061304502325299
    """

    name = "lognormvariate"
    version = "1.1.0"
    samples = ({}, {"mu": 2, "sigma": 0.25, "seed": 1, "every": "1m"})

    def largest(self) -> float:
        """What no value exceeds."""
        return math.exp(self.mu + _DEVIATIONS * self.sigma)

    def draw(self, rng: random.Random, time: int) -> Value:
        """``exp`` of a normal number."""
        return rng.lognormvariate(self.mu, self.sigma)


@dataclass(frozen=True, kw_only=True)
class Expovariate(RandomGenerator):
    """A random number from an exponential distribution: a waiting time between events that come independently.

    ``lambd``: how many events in one unit, that is 1 divided by the mean. Not 0; if it is negative, so are the values.
    ``seed``, ``every``, ``tz``: as for ``random``.

    >>> Expovariate(lambd=0.2).at(0)
    0.9298300429426959
    """

    name = "expovariate"
    version = "1.1.0"
    samples = ({"lambd": 0.2}, {"lambd": -3, "every": "1m"})
    lambd: float
    seed: int = 0
    every: Duration | None = None
    tz: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not abs(self.lambd) > 0:
            raise ValueError(f"lambd must not be {self.lambd:g}: it is 1 divided by the mean")
        _check_largest(lambda: -math.log(_SMALLEST) / abs(self.lambd))

    def draw(self, rng: random.Random, time: int) -> Value:
        """``-log(u) / lambd``."""
        return rng.expovariate(self.lambd)


@dataclass(frozen=True, kw_only=True)
class Paretovariate(RandomGenerator):
    """A random number from 1 on from a Pareto distribution, of which few are large.

    ``alpha``: shape, greater than 0; a value is above x with the probability ``x**-alpha``, and the mean is infinite
    unless alpha is above 1. ``seed``, ``every``, ``tz``: as for ``random``.

    >>> Paretovariate(alpha=3).at(0)
    1.3155132359466268
    """

    name = "paretovariate"
    version = "1.1.0"
    samples = ({"alpha": 3}, {"alpha": 0.5, "every": "1m"})
    alpha: float
    seed: int = 0
    every: Duration | None = None
    tz: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive(alpha=self.alpha)
        _check_largest(lambda: _SMALLEST ** (-1 / self.alpha))

    def draw(self, rng: random.Random, time: int) -> Value:
        """``u**(-1 / alpha)``."""
        return rng.paretovariate(self.alpha)


@dataclass(frozen=True, kw_only=True)
class Vonmisesvariate(RandomGenerator):
    """A random angle near ``mu`` from a von Mises distribution, the normal distribution of directions.

    Output: radians from 0 to 2 pi. ``mu``: mean direction in radians. ``kappa``: concentration, not negative; with 0
    all directions are as likely, with a large one the standard deviation is about ``kappa**-0.5``.
    ``seed``, ``every``, ``tz``: as for ``random``.

    >>> Vonmisesvariate(mu=0, kappa=4).at(0)
    0.14548775262971164
    """

    name = "vonmisesvariate"
    version = "1.1.0"
    samples = ({"mu": 0, "kappa": 4}, {"mu": 1, "kappa": 0, "every": "1m"})
    mu: float
    kappa: float
    seed: int = 0
    every: Duration | None = None
    tz: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.kappa >= 0:
            raise ValueError(f"kappa must not be negative, and is {self.kappa:g}")

    def draw(self, rng: random.Random, time: int) -> Value:
        """By rejection."""
        return rng.vonmisesvariate(self.mu, self.kappa)


@dataclass(frozen=True, kw_only=True)
class _Shaped(RandomGenerator):
    alpha: float
    beta: float
    seed: int = 0
    every: Duration | None = None
    tz: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive(alpha=self.alpha, beta=self.beta)
        _check_largest(self.largest)

    def largest(self) -> float:
        """What no value exceeds."""
        # A gamma number of shape alpha is drawn as at most 1e7 times alpha, or below 40.
        return (40 + 1e7 * self.alpha) * self.beta


@dataclass(frozen=True, kw_only=True)
class Gammavariate(_Shaped):
    """A random number from 0 on from a gamma distribution, such as the waiting time for several events.

    ``alpha``: shape; ``beta``: scale; both greater than 0. The mean is ``alpha * beta``, the variance
    ``alpha * beta**2``. ``seed``, ``every``, ``tz``: as for ``random``.

    >>> Gammavariate(alpha=3, beta=2).at(0)
    3.7639338027496185
    """

    name = "gammavariate"
    version = "1.1.0"
    samples = ({"alpha": 3, "beta": 2}, {"alpha": 1, "beta": 2}, {"alpha": 0.5, "beta": 2, "every": "1m"})

    def draw(self, rng: random.Random, time: int) -> Value:
        """By rejection, except for an alpha of 1."""
        return rng.gammavariate(self.alpha, self.beta)


@dataclass(frozen=True, kw_only=True)
class Betavariate(_Shaped):
    """A random number between 0 and 1 from a beta distribution, such as a share or a probability.

    ``alpha``, ``beta``: shapes, greater than 0. The mean is ``alpha / (alpha + beta)``; the larger both are, the
    closer to it the values lie. ``seed``, ``every``, ``tz``: as for ``random``.

    >>> Betavariate(alpha=2, beta=5).at(0)
    0.3690494549475338
    """

    name = "betavariate"
    version = "1.1.0"
    samples = ({"alpha": 2, "beta": 5}, {"alpha": 0.5, "beta": 0.5, "every": "1m"})

    def largest(self) -> float:
        """What neither of the two gamma numbers, of which a value is a share, exceeds."""
        return 80 + 1e7 * (self.alpha + self.beta)

    def draw(self, rng: random.Random, time: int) -> Value:
        """The share of one of two gamma numbers in their sum."""
        return rng.betavariate(self.alpha, self.beta)


@dataclass(frozen=True, kw_only=True)
class Weibullvariate(_Shaped):
    """A random number from 0 on from a Weibull distribution, such as a time to failure or a wind speed.

    ``alpha``: scale; ``beta``: shape; both greater than 0. A value is above x with the probability
    ``exp(-(x / alpha)**beta)``. ``seed``, ``every``, ``tz``: as for ``random``.

    >>> Weibullvariate(alpha=6, beta=2).at(0)
    11.16171561712216
    """

    name = "weibullvariate"
    version = "1.1.0"
    samples = ({"alpha": 6, "beta": 2}, {"alpha": 1, "beta": 0.5, "every": "1m"})

    def largest(self) -> float:
        """What no value exceeds."""
        return float(self.alpha * (-math.log(_SMALLEST)) ** (1 / self.beta))

    def draw(self, rng: random.Random, time: int) -> Value:
        """``alpha * (-log(u))**(1 / beta)``."""
        return rng.weibullvariate(self.alpha, self.beta)


# --- 1.0.0 -----------------------------------------------------------------------------------------------------------

GaussWithoutPlates = without_plates(Gauss)
NormalvariateWithoutPlates = without_plates(Normalvariate)
LognormvariateWithoutPlates = without_plates(Lognormvariate)
ExpovariateWithoutPlates = without_plates(Expovariate)
ParetovariateWithoutPlates = without_plates(Paretovariate)
VonmisesvariateWithoutPlates = without_plates(Vonmisesvariate)
GammavariateWithoutPlates = without_plates(Gammavariate)
BetavariateWithoutPlates = without_plates(Betavariate)
WeibullvariateWithoutPlates = without_plates(Weibullvariate)
