"""Whose clock: a zone, or a zone for each value of a plate.

``tz: Europe/Berlin`` is a zone. A plate with the zone of each of its values is that of the stream's plate value, and
``default`` beside the plate that of all values that are not named::

    tz: {house: {nyc: America/New_York}, default: Europe/Brussels}

A stream whose plate value has no zone fails with an error that says what to add.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Self

from hs_stream.core.time import zone
from hs_stream.core.tool import Tool

__all__ = ["Zoned"]

_DEFAULT: Final = "default"


class Zoned(Tool):
    """A tool with a parameter ``tz`` (see the module), which its dataclass declares."""

    tz: Any
    _zone: ClassVar[str | None] = None
    _stray: ClassVar[str] = ""
    """Set on what `bound_to` returns: the zone of the stream, or why it has none."""

    def check_tz(self) -> None:
        """``ValueError`` for what names no zones. The tool is on the default clock until it is bound to a stream."""
        if self.tz is None or isinstance(self.tz, str):
            self._put(self.tz and zone(self.tz).key)
            return
        plates = sorted(set(self.tz) - {_DEFAULT}) if isinstance(self.tz, Mapping) else []
        if len(plates) != 1 or not isinstance(self.tz[plates[0]], Mapping) or not self.tz[plates[0]]:
            raise ValueError(
                f"tz is {self.tz!r}: write a zone such as Europe/Berlin, or a plate with the zone of each value: "
                "{house: {nyc: America/New_York}, default: Europe/Berlin}"
            )
        for name in (*self.tz[plates[0]].values(), *([self.tz[_DEFAULT]] if _DEFAULT in self.tz else [])):
            if not isinstance(name, str):
                raise ValueError(f"{name!r} is not a known time zone: write for example 'Europe/Brussels'")
            zone(name)
        self._put(self.tz.get(_DEFAULT))

    def _put(self, name: str | None, stray: str = "") -> None:
        object.__setattr__(self, "_zone", name)
        object.__setattr__(self, "_stray", stray)

    @property
    def local_zone(self) -> str | None:
        """The zone of the stream; ``None`` for UTC."""
        return self._zone

    def check_zone(self) -> None:
        """``ValueError`` where the stream has no zone."""
        if self._stray:
            raise ValueError(self._stray)

    def bound_to(self, meta: Mapping[str, str], into: str | None) -> Self:
        """The tool on the clock of the stream with these plate values."""
        if not isinstance(self.tz, Mapping):
            return self
        (plate,) = set(self.tz) - {_DEFAULT}
        bound = copy.copy(self)
        vars(bound).pop("grid", None)
        name = self.tz[plate].get(meta.get(plate), self.tz.get(_DEFAULT))
        stray = f"tz has no zone for {plate}={meta.get(plate)}: add it, or a default beside {plate}"
        bound._put(name, "" if name is not None else stray)
        return bound
