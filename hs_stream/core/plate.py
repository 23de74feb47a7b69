"""Plates: named dimensions (house, room, sensor) over which a workflow is repeated.

1. A plate may have a parent: a ``room`` is the room of one ``house``. A stream on a plate is also on its ancestors.
2. Values grow while running, as topics bind them, up to ``max`` values (under one parent value).
3. Streams of two nodes belong together when they agree on every plate that both are on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.stream import Meta

__all__ = ["Plate", "PlateFull", "PlateValues", "closure", "in_order"]


@dataclass(frozen=True, slots=True)
class Plate:
    """One dimension. ``max`` >= 1 is the number of values that it may grow to under one value of its parent."""

    name: str
    parent: str | None = None
    max: int = 1000


class PlateFull(ValueError):
    """A plate refuses one more value."""


def closure(plates: Mapping[str, Plate], names: Iterable[str]) -> frozenset[str]:
    """``names`` and all their ancestors."""
    result: set[str] = set()
    for name in names:
        current: str | None = name
        while current is not None and current not in result:
            result.add(current)
            current = plates[current].parent
    return frozenset(result)


def in_order(plates: Mapping[str, Plate], names: Iterable[str]) -> tuple[str, ...]:
    """``names``, ancestors before descendants, otherwise as declared: the order of topic levels."""
    wanted = set(names)
    result: list[str] = []

    def visit(name: str) -> None:
        parent = plates[name].parent
        if parent is not None and parent in wanted and parent not in result:
            visit(parent)
        if name not in result:
            result.append(name)

    for name in plates:
        if name in wanted:
            visit(name)
    return tuple(result)


def check_plates(plates: Mapping[str, Plate]) -> None:
    """`ConfigurationError` for an unknown parent, a circle of parents or ``max`` below 1."""
    for plate in plates.values():
        if plate.max < 1:
            raise ConfigurationError(f"plate {plate.name}: max must be at least 1, not {plate.max}")
        seen = [plate.name]
        parent = plate.parent
        while parent is not None:
            if parent not in plates:
                raise ConfigurationError(
                    f"plate {seen[-1]}: its parent {parent!r} is not declared", hint=f"add '{parent}: {{}}' to plates"
                )
            if parent in seen:
                raise ConfigurationError(f"plates {' -> '.join([*seen, parent])} are each other's parents")
            seen.append(parent)
            parent = plates[parent].parent


class PlateValues:
    """The values of each plate of one workflow that have been seen."""

    def __init__(self, plates: Mapping[str, Plate]) -> None:
        self._plates = plates
        self._seen: dict[str, dict[Meta, set[str]]] = {name: {} for name in plates}

    def admit(self, meta: Meta) -> None:
        """Take the values of ``meta`` in; all or none. `PlateFull` says which plate is full."""
        values = dict(meta)
        fresh: list[tuple[set[str], str]] = []
        for name, value in meta:
            plate = self._plates[name]
            under = tuple((key, values[key]) for key in sorted(closure(self._plates, [name]) - {name}) if key in values)
            known = self._seen[name].setdefault(under, set())
            if value not in known:
                if len(known) >= plate.max:
                    where = f" of {dict(under)}" if under else ""
                    raise PlateFull(
                        f"plate {name}{where} holds {plate.max} values and takes no more (plates.{name}.max)"
                    )
                fresh.append((known, value))
        for known, value in fresh:
            known.add(value)

    def tree(self) -> dict[str, list[dict[str, str]]]:
        """Each plate's values, with the values of its ancestors, sorted."""
        return {
            name: [
                {**dict(under), name: value} for under, values in sorted(by_parent.items()) for value in sorted(values)
            ]
            for name, by_parent in self._seen.items()
        }
