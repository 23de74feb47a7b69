"""The incremental law, tried: random histories of arrivals, restarts and crashes, compared with the oracle.

A history publishes, repeats, corrects and delays readings of every source, turns the clock, stops and starts the
engine, and crashes it between any two durable writes. Whatever happens, in the end

1. every delivery that was acknowledged is stored (the latest value per stream and time),
2. stored contents equal a from-scratch evaluation, bit for bit, and everything that can be computed is,
3. a subscriber that applies each ``insert``, ``revise`` and ``retract`` (and skips repeats and older revisions)
   holds exactly what is stored.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from hs_stream.core.value import Value
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.engine import EngineSettings
from hs_stream.engine.ports import Reading, Store
from hs_stream.testing.faults import When
from hs_stream.testing.history import History, Subscriber

__all__ = ["Report", "Subscriber", "check_workflow"]

Values = Mapping[str, Callable[[random.Random, int], Value]]
"""Per source: draws the value of a reading at this time."""


@dataclass(slots=True)
class Report:
    """What a history did."""

    readings: int = 0
    instances: int = 0
    published: int = 0
    restarts: int = 0
    crashes: int = 0


def _draw(
    rng: random.Random, now: int, values: Values, metas: Mapping[str, Sequence[tuple[tuple[str, str], ...]]]
) -> list[Reading]:
    readings = []
    for _ in range(rng.randint(1, 30)):
        source = rng.choice(list(values))
        late = rng.choice([0, 0, 0, 500, 5_000, 60_000, 600_000])
        time = now - late - rng.randrange(0, 3000, rng.choice([1, 100, 500]))
        readings.append(Reading(source, rng.choice(metas[source]), time, values[source](rng, time)))
    return readings


async def check_workflow(
    factory: Callable[[], Awaitable[Store]],
    workflows: Sequence[WorkflowDefinition],
    values: Values,
    metas: Mapping[str, Sequence[tuple[tuple[str, str], ...]]],
    *,
    seed: int,
    rounds: int = 25,
    crash_moments: Sequence[When] = (),
) -> Report:
    """Play the random history ``seed`` and raise `LawViolation` where the module's promises do not hold.

    ``factory`` gives an unopened store over the same storage every time it is called. ``metas``: per source the plate
    values to publish under. ``crash_moments``: at which moments of a durable write to crash (none by default).
    """
    rng = random.Random(seed)  # noqa: S311 - reproducible, no secret
    settings = EngineSettings(chunk=rng.choice([5, 50, 20_000]), lateness=rng.choice([0, 0, 2000]), max_future=5000)
    history = History(factory, workflows, settings)
    report = Report()

    def arm() -> None:
        if crash_moments and rng.random() < 0.7:
            history.arm(rng.randint(1, 30), rng.choice(crash_moments))

    arm()
    await history.begin()
    for _ in range(rng.randint(1, rounds)):
        readings = _draw(rng, history.clock.now(), values, metas)
        report.readings += len(readings)
        crashes = history.crashes
        await history.survive(lambda readings=readings: history.deliver(readings))  # type: ignore[misc]
        if rng.random() < 0.5:
            await history.settle()
        history.clock.advance(rng.choice([0, 10, 1000, 30_000]))
        if rng.random() < 0.15:
            await history.restart()
            arm()
        elif history.crashes > crashes:
            arm()
    history.arm(0)
    for advance in (60_000, 60_000, 60_000, 1):
        await history.pass_time(advance)
    found = await history.check()
    await history.end()
    report.instances = found.instances
    report.published = sum(map(len, history.subscriber.contents.values()))
    report.restarts, report.crashes = history.restarts, history.crashes
    return report
