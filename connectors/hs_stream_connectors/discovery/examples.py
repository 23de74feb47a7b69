"""One small example of what a source is good for: nodes, the last of which is published.

1. Of numbers a mean of five minutes, of states over time; of switches and reports how many came within an hour.
2. Of an object's numbers the one is taken that people ask for first: a temperature or a power before a battery's
   voltage. Counters, times and identifiers are never averaged.
3. Only what held a number (or nothing) in every sample is a number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hs_stream.core.kinds import UNKNOWN, Meaning
from hs_stream_connectors.discovery.patterns import Names

__all__ = ["COUNT", "MEAN", "Example", "choose", "is_averaged", "nodes_of"]

_FIRST: Final = (
    *("temperature", "power", "apower", "act_power", "tc", "local_temperature", "humidity", "co2", "illuminance"),
    *("pressure", "pm25", "moisture", "brightness"),
)
_LAST: Final = re.compile(r"battery|linkquality|signal|rssi|voltage|factor|freq")
_NEVER: Final = re.compile(
    r"energy$|total|today|yesterday|period$|count|cnt|uptime|over|update|version|rev$|heap|time|_ts$|^ts$|(^|[._])id$|tf$"
)
_MOST_NODES: Final = 10


@dataclass(frozen=True, slots=True)
class Example:
    """``tool`` over ``width``: of the value at ``path`` in objects, or of the streams on one plate value, ``part``."""

    tool: str
    width: str
    path: tuple[str, ...] = ()
    part: tuple[str, str] | None = None

    @property
    def suffix(self) -> str:
        """What the node's name ends with."""
        return f"_{'count_' if 'count' in self.tool else ''}{self.width}"


MEAN: Final = Example("sliding_mean@^1", "5m")
COUNT: Final = Example("sliding_count@^1", "1h")


def is_averaged(name: str) -> bool:
    """Whether a mean of what has this name says anything (rule 2)."""
    return _NEVER.search(name.lower()) is None


def choose(items: Iterable[Mapping[str, Any]], depth: int = 1) -> tuple[str, ...]:
    """The path to the number that is asked for first, at most ``depth`` keys long; empty when there is none."""
    numbers: dict[tuple[str, ...], bool | None] = {}
    for item in items:
        for path, value in _leaves(item, depth):
            if value is not None:
                is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
                numbers[path] = is_number and numbers.get(path) is not False
    found = [path for path, is_number in numbers.items() if is_number and is_averaged(".".join(path))]
    return min(found, key=_order, default=())


def _order(path: tuple[str, ...]) -> tuple[int, int, tuple[str, ...]]:
    name, last = ".".join(path).lower(), path[-1].lower()
    if last in _FIRST:
        return 0, _FIRST.index(last), path
    at = next((at for at, word in enumerate(_FIRST) if word in name), len(_FIRST))
    return (3 if _LAST.search(name) else 1 if at < len(_FIRST) else 2), at, path


def _leaves(item: Mapping[str, Any], depth: int) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in item.items():
        if isinstance(value, dict):
            if depth > 1:
                yield from (((key, *path), leaf) for path, leaf in _leaves(value, depth - 1))
        else:
            yield (key,), value


def nodes_of(
    source: str,
    numbers: Iterable[str],
    example: Example | None,
    names: Names,
    meaning: Callable[[tuple[str, ...]], Meaning] = lambda _: UNKNOWN,
) -> tuple[dict[str, dict[str, Any]], str]:
    """Nodes by name: a component for each of the first ``numbers``, and the ``example``, whose last one is returned.

    ``meaning``: what is known of the value at a path. A state is weighed by time, and a counter has no mean.
    """
    nodes: dict[str, dict[str, Any]] = {}
    made: dict[tuple[str, ...], str] = {(): source}

    def component(path: tuple[str, ...]) -> None:
        before = made[path[:-1]]
        made[path] = names.node(f"{before}.{_plain(path[-1])}")
        nodes[made[path]] = {"tool": "component@^1", "from": before, "with": {"key": path[-1]}} | meaning(path).said()

    wanted = [*numbers][:_MOST_NODES]
    for key in wanted:
        if _plain(key) not in {_plain(other[0]) for other in made if other}:
            component((key,))
    kind = None if example is None else meaning(example.path).kind
    if example is None or (kind == "counter" and "mean" in example.tool):
        return nodes, ""
    for length in range(1, len(example.path) + 1):
        if example.path[:length] not in made:
            component(example.path[:length])
    before = made[example.path]
    weighed = kind == "state" and example.tool == MEAN.tool
    node: dict[str, Any] = {"tool": "sliding_mean@^2" if weighed else example.tool, "from": before}
    if example.part is not None:
        node["on"] = names.part(*example.part)
        before = f"{before}.{_plain(example.part[1])}"
    last = names.node(before + example.suffix)
    nodes[last] = node | {"with": {"width": example.width} | ({"weight": "time"} if weighed else {})}
    return nodes, last


def _plain(key: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in key)
