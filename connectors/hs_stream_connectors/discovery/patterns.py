"""Topics that differ in an identifier become one pattern; names for its plates and for sources.

1. Topics are put together when they have the same shape, first level and number of levels. Where one last level follows
   several others (``.../kitchen/climate``, ``.../bath/climate``), it says what is measured: a pattern for each.
2. A level that differs, or looks like an identifier (a number, a hardware address), is a plate. A plate is named after
   the level before it; one that follows another plate is its child.
3. What stands at one place of the topics has one plate, in every pattern.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Sequence
from typing import Final

__all__ = ["Names", "split", "word"]

_IDENTIFIER: Final = re.compile(r"\d+|(?:0x)?(?=[0-9a-fA-F:-]*\d)[0-9a-fA-F:-]{6,}|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}")
_WORD: Final = re.compile(r"[^A-Za-z0-9_]+")


def split(topics: Sequence[Sequence[str]]) -> list[list[Sequence[str]]]:
    """Groups of topics (as levels) of one length, each for one pattern."""
    lasts = Counter(topic[-1] for topic in topics)
    if len(topics[0]) < 2 or max(lasts.values()) == 1:
        return [list(topics)]
    groups: dict[str, list[Sequence[str]]] = defaultdict(list)
    for topic in topics:
        groups[topic[-1]].append(topic)
    return list(groups.values())


class Names:
    """Plates, sources and nodes of one workflow. ``taken``: names that others have.

    ``plates``: parent by name; ``parts``: plate and plate value by the name of a part of a plate.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.plates: dict[str, str | None] = {}
        self.parts: dict[str, tuple[str, str]] = {}
        self._of_place: dict[tuple[str, ...], str] = {}
        self._sources = set(taken)

    def plate(self, name: str, parent: str | None = None) -> str:
        """A plate called ``name``, the same at every call."""
        self.plates.setdefault(name, parent)
        return name

    def source(self, *words: str) -> str:
        """A name that no other source or node has."""
        name = _unused("_".join(filter(None, map(word, words))) or "readings", self._sources)
        self._sources.add(name)
        return name

    def node(self, name: str) -> str:
        """``name``, or what no other source or node is called."""
        name = _unused(name, self._sources)
        self._sources.add(name)
        return name

    def part(self, plate: str, value: str) -> str:
        """The part of ``plate`` that is one value."""
        for name, part in self.parts.items():
            if part == (plate, value):
                return name
        name = _unused(word(value) or "part", {*self.plates, *self.parts})
        self.parts[name] = plate, value
        return name

    def pattern(self, topics: Sequence[Sequence[str]]) -> tuple[str, list[str]]:
        """The template that all ``topics`` match, and its literal levels."""
        levels: list[str] = []
        place: tuple[str, ...] = ()
        literals: list[str] = []
        parent: str | None = None
        for values in map(set, zip(*topics, strict=True)):
            value = min(values)
            if len(values) == 1 and not _IDENTIFIER.fullmatch(value):
                levels.append(value)
                literals.append(value)
                place = (*place, value)
                continue
            place = (*place, "{}")
            if place not in self._of_place:
                wanted = word(literals[-1]).removesuffix("s") if literals else ""
                self._of_place[place] = self.plate(_unused(wanted or "device", {*self.plates, *self.parts}), parent)
            parent = self._of_place[place]
            levels.append(f"{{{parent}}}")
        return "/".join(levels), literals


def word(text: str) -> str:
    """``text`` as a part of a name; empty where nothing is left of it."""
    plain = _WORD.sub("_", text).strip("_").lower()
    return f"n{plain}" if plain[:1].isdigit() else plain


def _unused(name: str, taken: Container[str]) -> str:
    found, number = name, 2
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    return found
