"""Plates: named dimensions (house, room, sensor) over which a workflow is repeated.

1. A plate may have a parent: a ``room`` is the room of one ``house``. A stream on a plate is also on its ancestors.
2. Values are declared, and grow while running: as topics bind them, and as a node says that is named as the plate's
   ``source``. There are at most ``max`` under one parent value. Values never go away.
3. Streams of two nodes belong together when they agree on every plate that both are on.
4. A sub-plate names some values of a plate, or with ``complement`` all others. Streams never have a sub-plate in their
   meta data: it only says which streams of a plate a node is made for, or aggregates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.stream import Meta

__all__ = [
    "MOST_ANCESTORS",
    "Admitted",
    "KnownPlateValues",
    "Plate",
    "PlateFull",
    "check_plates",
    "closure",
    "in_order",
]


MOST_ANCESTORS: Final = 20


@dataclass(frozen=True, slots=True)
class Plate:
    """One dimension, or with ``of`` a part of another one (rule 4).

    ``max`` >= 1 is the number of values that it may grow to under one value of its parent. ``values`` are declared:
    each holds the plate's value, and those of the ancestors that it is tied to; without any it is there under every
    parent value. ``source`` is a node whose results are further values.
    """

    name: str
    parent: str | None = None
    max: int = 1000
    values: tuple[Meta, ...] = ()
    of: str | None = None
    complement: bool = False
    source: str | None = None

    @property
    def key(self) -> str:
        """The plate that stands in the meta data of streams."""
        return self.of or self.name

    def holds(self, meta: Mapping[str, str]) -> bool:
        """Whether a stream with this meta data is on the sub-plate."""
        return any(all(meta.get(key) == value for key, value in one) for one in self.values) != self.complement


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
    result: dict[str, None] = {}

    def visit(name: str) -> None:
        parent = plates[name].parent
        if parent is not None and parent in wanted and parent not in result:
            visit(parent)
        result[name] = None

    for name in plates:
        if name in wanted:
            visit(name)
    return tuple(result)


def check_plates(plates: Mapping[str, Plate]) -> None:
    """`ConfigurationError` for an unknown parent, a circle of parents, ``max`` below 1, or values that cannot be."""
    for plate in plates.values():
        if plate.of is not None:
            _check_part(plate, plates)
            continue
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
            if plates[parent].of is not None:
                raise ConfigurationError(
                    f"plate {plate.name}: its parent {parent} is a part of {plates[parent].of}",
                    hint=f"write parent: {plates[parent].of}",
                )
            if len(seen) > MOST_ANCESTORS:
                raise ConfigurationError(
                    f"plate {plate.name} has more than {MOST_ANCESTORS} plates above it",
                    hint="each is a level of the topics; leave out those that no node needs",
                )
            seen.append(parent)
            parent = plates[parent].parent
        _check_values(plate, plates)


def _check_part(plate: Plate, plates: Mapping[str, Plate]) -> None:
    whole = plates.get(plate.of or "")
    if whole is None:
        hint = f"add '{plate.of}: {{}}' to plates"
        raise ConfigurationError(f"plate {plate.name}: there is no plate {plate.of!r} to be a part of", hint=hint)
    if whole.of is not None:
        raise ConfigurationError(
            f"plate {plate.name}: {whole.name} is itself a part of {whole.of}", hint=f"write of: {whole.of}"
        )
    if plate.parent is not None or plate.source is not None or not plate.values:
        raise ConfigurationError(
            f"plate {plate.name} is a part of {plate.of}: it needs values, and has neither parent nor from",
            hint="write for example {of: room, values: [kitchen, bath]}, with complement: true for all others",
        )
    _check_values(plate, plates)


def _check_values(plate: Plate, plates: Mapping[str, Plate]) -> None:
    allowed = closure(plates, [plate.key])
    for meta in plate.values:
        keys = [key for key, _ in meta]
        if plate.key not in keys or not set(keys) <= allowed:
            raise ConfigurationError(
                f"plate {plate.name}: the value {dict(meta)} is not on {', '.join(in_order(plates, allowed))}"
            )
    siblings = Counter(tuple(pair for pair in meta if pair[0] != plate.key) for meta in set(plate.values))
    if plate.of is None and siblings.total() and max(siblings.values()) > plate.max:
        raise ConfigurationError(
            f"plate {plate.name}: {max(siblings.values())} values are declared and max is {plate.max}", hint="raise max"
        )


class Admitted(NamedTuple):
    """A new value: of ``plate``, with the values of its ancestors."""

    plate: str
    meta: Meta


class KnownPlateValues:
    """The values of each plate of one workflow that have been seen or declared."""

    def __init__(self, plates: Mapping[str, Plate]) -> None:
        self._plates = {name: plate for name, plate in plates.items() if plate.of is None}
        self._seen: dict[str, dict[Meta, set[str]]] = {name: {} for name in self._plates}
        self._everywhere: dict[str, list[str]] = {name: [] for name in self._plates}
        for name in in_order(plates, self._plates):
            for meta in self._plates[name].values:
                if {key for key, _ in meta} == closure(plates, [name]):
                    self.admit(tuple(sorted(meta)))
                else:
                    self._everywhere[name].append(dict(meta)[name])

    def admit(self, meta: Meta) -> list[Admitted]:
        """Take the values of ``meta`` in, all or none; those that are new. `PlateFull` says which plate is full."""
        self.check(meta)
        values = dict(meta)
        new: list[Admitted] = []
        for name, value in meta:
            under = self._under(name, values)
            known = self._seen[name].setdefault(under, set())
            if value not in known:
                known.add(value)
                new.append(Admitted(name, tuple(sorted((*under, (name, value))))))
        return new

    def check(self, meta: Meta) -> None:
        """What `admit` would raise."""
        values = dict(meta)
        for name, value in meta:
            under, most = self._under(name, values), self._plates[name].max
            known = self._seen[name].get(under, set())
            if value not in known and len(known) >= most:
                where = f" of {dict(under)}" if under else ""
                raise PlateFull(f"plate {name}{where} holds {most} values and takes no more (plates.{name}.max)")

    def of(self, name: str, meta: Meta) -> list[str]:
        """The values of plate ``name`` under the values that ``meta`` has of its ancestors, sorted."""
        seen = self._seen[name].get(self._under(name, dict(meta)), ())
        return sorted({*seen, *self._everywhere[name]})

    def _under(self, name: str, values: Mapping[str, str]) -> Meta:
        ancestors = closure(self._plates, [name]) - {name}
        return tuple((key, values[key]) for key in sorted(ancestors) if key in values)

    def tree(self) -> dict[str, list[dict[str, str]]]:
        """Each plate's values, with the values of its ancestors, sorted. Declared ones that nobody uses yet too."""
        return {
            name: [
                {**dict(under), name: value} for under, values in sorted(by_parent.items()) for value in sorted(values)
            ]
            for name, by_parent in self._seen.items()
        }
