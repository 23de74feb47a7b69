"""What a tool makes of values of every type, at every place of every input.

A value is *ignored* where the outputs are those without its instance. That is fine for what is missing (``None``, NaN),
and for what the tool says that it ignores; else it has to be an error, or to change something.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from hs_stream.core.batch import Batch
from hs_stream.core.time import MIN_TIME, TimeInterval
from hs_stream.core.tool import AggregateTool, Sources, SplitTool, Tool
from hs_stream.core.value import Value, canonical
from hs_stream.testing.material import Material

__all__ = ["TYPES", "Findings", "findings"]

TYPES: Final[Mapping[str, tuple[Value, ...]]] = {
    "number": (7, 2.5, True),
    "text": ("word",),
    "list": ([[1.0]], [{"q": "word"}], ["word", "word"]),
    "object": ({"q": "word"}, {"q": [1.0]}),
    "time": (datetime(2026, 1, 1, tzinfo=UTC),),
    "bytes": (b"word",),
    "interval": (TimeInterval(0, 10),),
}
"""Values of each type. None of them is empty: in what is empty there is nothing to be wrong."""
_ORIGIN: Final = 1_423_072_260_000
_LONG: Final = 6
_GOOD: Final = 4
"""So many values of those that a tool takes are tried at a place, until one of them changes something."""
_DRAWN: Final = 40
"""So many are looked at for the types that it takes."""

Place = tuple[int, str]
"""The input, and the path in its value: ``""`` is the value itself, ``[]`` an element of a list, ``.`` a field."""


@dataclass
class Findings:
    """By place: what the tool takes there, and how it took values of other types."""

    right: dict[Place, set[str]] = field(default_factory=lambda: defaultdict(set))
    taken: dict[Place, dict[str, set[str]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(set)))
    """Type to ``effect``, ``ignored``, and the texts of errors."""

    def ignored(self) -> dict[Place, set[str]]:
        """The wrong types that are ignored where a right one changes something."""
        found = {
            place: {word for word, told in words.items() if "ignored" in told and word not in self.right[place]}
            for place, words in self.taken.items()
        }
        return {place: words for place, words in found.items() if words}

    def errors(self) -> set[str]:
        """What is said of wrong types."""
        told = {text for words in self.taken.values() for texts in words.values() for text in texts}
        return told - {"effect", "ignored"}


def _word(value: Value) -> str:
    """The word of `TYPES` for ``value``, empty for what is missing."""
    if value is None or value != value:
        return ""
    words = {bool: "number", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    return (words | {datetime: "time", bytes: "bytes", TimeInterval: "interval"})[type(value)]


def _places(value: Value, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Value]]:
    """Every value inside of ``value``, itself included, and where it is; of a list not more than two."""
    yield path, value
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, one in inner:
        yield from _places(one, (*path, key))


def _path(path: tuple[Any, ...]) -> str:
    return "".join("[]" if isinstance(key, int) else "." for key in path)


def _with(value: Value, path: tuple[Any, ...], other: Value) -> Value:
    if not path:
        return other
    changed = place = canonical(value)
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = other
    return changed


class _Bench:
    """One tool among instances that it takes, one of which is exchanged."""

    def __init__(self, tool: Tool, seed: int) -> None:
        self.tool = tool
        self.material = Material(tool, seed)
        if tool.arity is None:
            self.material.inputs = 2
        scales = self.material.scales
        step = scales[seed % len(scales)]
        self.times = [_ORIGIN // step * step + index * step for index in range(_LONG)]
        reach = 3 * (self.material.lookback + self.material.lookahead + max(self.material.lengths)) + 100 * step
        self.interval = TimeInterval(MIN_TIME, self.times[-1] + reach)
        self.values = [self.material.values(slot, self.times) for slot in range(self.material.inputs)]
        self.at = 2 + seed % (_LONG - 2)

    def outputs(self, slot: int, *given: Value) -> Batch:
        """With ``given`` instead of the value at the place, or without it. Raises what the tool raises."""
        batches = []
        for index, values in enumerate(self.values):
            rows = list(zip(self.times, values, strict=True))
            if index == slot:
                rows[self.at : self.at + 1] = [(self.times[self.at], value) for value in given]
            batches.append(Batch.of((time, canonical(value)) for time, value in rows))
        keys = [f"value{index}" for index in range(len(batches))]
        sources: Sequence[Batch] = Sources(batches, keys) if isinstance(self.tool, AggregateTool) else batches
        return self.tool.evaluate(self.interval, sources)

    def look(self, slot: int, result: Findings) -> None:
        """Exchange every part of a value that changes something, if there is one."""
        absent = self.outputs(slot)
        if self.tool.takes_at(slot) != "any":
            for value in self.material.values(slot, range(_DRAWN)):
                for path, inner in _places(value):
                    result.right[slot, _path(path)].add(_word(inner))
        for _ in range(_GOOD):
            good = self.material.values(slot, [self.times[self.at]])[0]
            if self.outputs(slot, good) != absent:
                break
        else:
            return
        for path, inner in _places(good):
            place = slot, _path(path)
            result.right[place].add(_word(inner))
            for word, values in TYPES.items():
                for value in values if word != _word(inner) else ():
                    result.taken[place][word].add(self._told(slot, _with(good, path, value), absent))

    def _told(self, slot: int, value: Value, absent: Batch) -> str:
        try:
            return "ignored" if self.outputs(slot, value) == absent else "effect"
        except Exception as error:  # noqa: BLE001 - a tool may raise anything; that it says what it wants is looked at
            return f"{type(error).__name__}: {error}"


def findings(tool: Tool, seeds: Iterable[int]) -> Findings:
    """Of ``tool`` in the surroundings that come of each seed."""
    result = Findings()
    tools = [tool]
    if isinstance(tool, SplitTool):
        tools = [tool.bound_to({"plate": value}, "plate") for value in tool.plate_values]
    for seed in seeds:
        for one in tools:
            bench = _Bench(one, seed)
            for slot in range(bench.material.inputs):
                bench.look(slot, result)
    return result
