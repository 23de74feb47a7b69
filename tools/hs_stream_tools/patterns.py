"""Tools on events of two kinds: one that follows another in time, and one that does not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.kinds import Meaning
from hs_stream.core.time import Grid, TimeInterval, format_duration, from_ms
from hs_stream.core.tool import (
    SKIP,
    Drive,
    Duration,
    FoldTool,
    FromInput,
    FromUnion,
    OnGrid,
    Pointwise,
    Support,
    Tool,
    Window,
)
from hs_stream.core.value import Value
from hs_stream_tools._kinds import named
from hs_stream_tools._lasting import at, unknown, unknowns
from hs_stream_tools._values import wrong
from hs_stream_tools.joins import check_count, check_names
from hs_stream_tools.states import equal

__all__ = ["Absence", "FollowedBy", "MergeEvents"]

_ANY_INSTANT: Final = OnGrid(Grid(1))


def _check_within(within: int) -> None:
    if within <= 0:
        raise ValueError(f"within must be longer than 0, not {format_duration(within)}")


def _events(source: Batch, wanted: Value) -> Batch:
    """The instances that are events: with the value ``wanted``, or for ``None`` any that is known."""
    if wanted is None:
        return source.take(np.flatnonzero(~unknowns(source)))
    kept = [index for index, value in enumerate(source.plain()) if equal(value, wanted)]
    return source.take(np.array(kept, np.int64))


@dataclass(frozen=True, kw_only=True)
class FollowedBy(Tool):
    """An event of input 0, and then one of input 1 within some time.

    ``first`` and ``second``: the value that is an event (``1`` and ``1.0`` are equal); without it each reading is one
    that is not unknown (``None``, NaN, ``unavailable``, ``unknown``). Both inputs may be the same stream. Output, at an
    event of input 1: an object of the last event of input 0 and of this one, under the two ``names`` (default
    ``first`` and ``second``), and ``seconds`` between them. They are more than 0 and at most ``within`` apart, and no
    other event of input 1 lies between them: an event is followed once. An event of input 0 at the time of one of
    input 1 is followed by the next one.

    A late event takes back what it makes wrong.

    >>> door, motion = Batch.of([(0, "open")]), Batch.of([(20_000, 1), (30_000, 1)])
    >>> tool = FollowedBy(within=60_000, names=("door", "motion"))
    >>> list(tool.evaluate(TimeInterval(0, 60_000), [door, motion]))
    [(20000, {'door': 'open', 'motion': 1, 'seconds': 20.0})]
    """

    name = "followed_by"
    version = "1.0.0"
    kind = "pattern"
    output_kind = "event"
    output_unit = "none"
    arity = 2
    ignores = ("",)
    samples = ({"within": "5s"}, {"within": "1m", "first": True, "names": ["a", "b"]}, {"within": "10s", "second": 1})
    within: Duration
    first: Any = None
    second: Any = None
    names: tuple[str, ...] = ("first", "second")

    def __post_init__(self) -> None:
        _check_within(self.within)
        check_names(self.names, 2)
        if "seconds" in self.names:
            raise ValueError("names must not be 'seconds': that is how long it took")

    def keys_made(self, keys: frozenset[str] | None) -> frozenset[str] | None:
        """``names`` and ``seconds``."""
        return frozenset((*self.names, "seconds"))

    def support(self, slot: int) -> Support:
        """``[t - within, t]``, of both: whether another event of input 1 came first."""
        return Window(self.within + 1)

    def drive(self) -> Drive:
        """Input 1's times."""
        return FromInput(1)

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """The pairs whose second event lies in ``interval``."""
        check_count(self, sources, 2)
        begins, ends = _events(sources[0], self.first), _events(sources[1], self.second)
        times = ends.slice(interval.start, interval.end).times
        if not len(times) or not begins:
            return NOTHING
        found = begins.times.searchsorted(times, "left") - 1
        earlier = ends.times.searchsorted(times, "left") - 1
        kept, rows = [], []
        for time, one, before in zip(times.tolist(), found.tolist(), earlier.tolist(), strict=True):
            since = int(begins.times[one]) if one >= 0 else time - self.within - 1
            if since >= time - self.within and (before < 0 or ends.times[before] <= since):
                kept.append(time)
                rows.append(
                    {
                        self.names[0]: at(begins, one),
                        self.names[1]: ends.get(time),
                        "seconds": (time - since) / 1000,
                    }
                )
        return Batch.build(kept, rows)


@dataclass(frozen=True, kw_only=True)
class MergeEvents(Tool):
    """The readings of all inputs in one stream, each at its own time.

    Output, at each time at which any input has a reading: an object of the values of those that have one at exactly
    that time, under ``names`` (one for each input). Values of any type are passed on unchanged. ``combine_latest``
    gives what all of them hold instead.

    >>> door, motion = Batch.of([(10, "open")]), Batch.of([(10, 1), (20, 0)])
    >>> list(MergeEvents(names=("door", "motion")).evaluate(TimeInterval(0, 60), [door, motion]))
    [(10, {'door': 'open', 'motion': 1}), (20, {'motion': 0})]
    """

    name = "merge_events"
    version = "1.0.0"
    kind = "merge"
    output_kind = "event"
    arity = None
    samples = ({"names": ["a", "b"]}, {"names": ["a", "b", "c"]})
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        check_names(self.names)
        # Whoever connects the inputs then sees how many there must be.
        object.__setattr__(self, "arity", len(self.names))

    def keys_made(self, keys: frozenset[str] | None) -> frozenset[str] | None:
        """``names``."""
        return frozenset(self.names)

    def meaning(self, inputs: Sequence[Meaning]) -> Meaning:
        """Events, and each field as its input."""
        return replace(named(self.names, inputs), kind="event")

    def support(self, slot: int) -> Support:
        """The instances at t."""
        return Pointwise()

    def drive(self) -> Drive:
        """The times of all inputs."""
        return FromUnion()

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """The readings in ``interval``."""
        check_count(self, sources, len(self.names))
        rows: dict[int, dict[str, Value]] = {}
        for name, source in zip(self.names, sources, strict=True):
            for time, value in source.slice(interval.start, interval.end):
                rows.setdefault(time, {})[name] = value
        return Batch.of(rows.items())


@dataclass(frozen=True, kw_only=True)
class Absence(FoldTool):
    """An event that another one did not follow in time, told in silence.

    Input: events of several kinds as ``merge_events`` gives them, an object with a field for each that happened.
    ``after`` and ``of``: the fields of the one and of the other. A reading that is unknown (``None``, NaN,
    ``unavailable``, ``unknown``) is no event; with ``after_value`` and ``of_value`` only this value is (``1`` and
    ``1.0`` are equal). Output, at ``within`` after each event of ``after`` that no event of ``of`` followed up to
    that time or at it: an object of its value under its name and ``since``, its time (UTC). One of ``of`` at the time
    of the event itself was before it. No further reading is needed for that, and a late event takes back what it makes
    wrong.

    What it keeps are the events of ``after`` of the last ``within``. ``TypeError`` for what is no object.

    >>> events = Batch.of([(0, {"door": "open"}), (90_000, {"door": "open"}), (100_000, {"light": 1})])
    >>> tool = Absence(after="door", of="light", within=60_000)
    >>> [(time, found["door"]) for time, found in tool.evaluate(TimeInterval(-1, 600_000), [events])]
    [(60000, 'open')]
    """

    name = "absence"
    version = "1.0.0"
    kind = "pattern"
    output_kind = "event"
    output_unit = "none"
    takes = "object"
    samples = (
        {"after": "a", "of": "b", "within": "5s"},
        {"after": "temperature", "of": "value", "within": "1ms"},
        {"after": "a", "of": "b", "within": "1m", "of_value": True},
        {"after": "a", "of": "a", "within": "10s"},
    )
    after: str
    of: str
    within: Duration
    after_value: Any = None
    of_value: Any = None

    def __post_init__(self) -> None:
        _check_within(self.within)
        if self.after == "since":
            raise ValueError("after must not be 'since': that is when it was")

    def keys_named(self) -> tuple[str, ...]:
        """``after`` and ``of``."""
        return (self.after, self.of)

    def keys_made(self, keys: frozenset[str] | None) -> frozenset[str] | None:
        """``after`` and ``since``."""
        return frozenset((self.after, "since"))

    def drive(self) -> Drive:
        """Any instant."""
        return _ANY_INSTANT

    def initial(self) -> Value:
        """The events that wait, ``[time, value]`` each, oldest first."""
        return []

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        """One of ``of`` ends what waits; one of ``after`` waits."""
        if value is None:
            return state, SKIP
        if not isinstance(value, dict):
            raise wrong("absence", "objects", value)
        ended = _is_event(value, self.of, self.of_value)
        waits = [] if ended else [one for one in state if one[0] + self.within >= time]
        if _is_event(value, self.after, self.after_value):
            waits.append([time, value[self.after]])
        return waits, SKIP

    def quiet(self, state: Value, start: int, end: int) -> Iterable[tuple[int, Value]]:
        """Those that have waited long enough."""
        for time, value in state:
            if start < time + self.within <= end:
                yield time + self.within, {self.after: value, "since": from_ms(time)}

    def due(self, state: Value, after: int) -> int | None:
        """When the next one has."""
        return next((time + self.within for time, _ in state if time + self.within > after), None)


def _is_event(value: dict[str, Value], name: str, wanted: Value) -> bool:
    if name not in value:
        return False
    return not unknown(value[name]) if wanted is None else equal(value[name], wanted)
