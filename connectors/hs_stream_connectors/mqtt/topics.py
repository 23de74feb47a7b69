"""Topic templates: which topics a source reads, and which plate values they bind.

======================================  ==================  ====================================================
template                                filter              ``bind`` of a matching topic
======================================  ==================  ====================================================
``home/{house}/{room}/climate``         home/+/+/climate    ``(("house", "1"), ("room", "kitchen"))``
``zigbee2mqtt/{device#}``               zigbee2mqtt/#       ``(("device", "attic/lamp"),)``: all remaining levels
``+/power/#``                           +/power/#           ``()``
======================================  ==================  ====================================================
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from itertools import combinations, zip_longest
from typing import Final

from hs_stream.core.errors import ConfigurationError, PayloadError
from hs_stream.core.stream import check_plate_value, unpublishable

__all__ = [
    "COMPONENTS",
    "HOMEASSISTANT",
    "OURS",
    "Meta",
    "TopicTemplate",
    "identifier_of",
    "is_entity_topic",
    "overlapping",
]

HOMEASSISTANT: Final = "homeassistant"
COMPONENTS: Final = ("sensor", "binary_sensor")
OURS: Final = "hs"
"""Below which topics, as what, and with which first word in their names we publish entities of Home Assistant."""

Meta = tuple[tuple[str, str], ...]

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLACEHOLDER: Final = re.compile(r"\{([^{}#]*)(#?)\}")
_MAX_TOPIC: Final = 65_535
_HINT: Final = "write for example home/{house}/{room}/climate, or zigbee2mqtt/{device#} for all remaining levels"


class TopicTemplate:
    """A topic filter whose levels may be named. ``ConfigurationError`` for one that is malformed.

    A placeholder is a whole level. ``{name}`` binds one level, ``{name#}`` (last level only) one or more. ``+`` and
    ``#`` are MQTT's. A wildcard at the first level does not match topics that begin with ``$``.

    >>> TopicTemplate("home/{house}/{room}/climate").bind("home/1/kitchen/climate")
    (('house', '1'), ('room', 'kitchen'))
    """

    __slots__ = ("_levels", "_names", "_rest", "filter", "identifier", "names", "text")

    def __init__(self, text: str) -> None:
        if not text or len(text.encode(errors="replace")) > _MAX_TOPIC or unpublishable(text):
            raise ConfigurationError(f"{text[:80]!r} is not a topic template", hint=_HINT)
        if text.startswith("$share/"):
            raise ConfigurationError(f"{text!r}: a shared subscription does not keep the order", hint="drop $share/...")
        self.text = text
        self._levels: list[str] = []
        self._names: list[tuple[int, str]] = []
        self._rest = ""
        parts = text.split("/")
        for index, part in enumerate(parts):
            self._levels.append(self._level(part, index, last=index == len(parts) - 1))
        self.filter = "/".join(self._levels)
        self.identifier = identifier_of(self.filter)
        self.names = tuple([name for _, name in self._names] + ([self._rest] if self._rest else []))
        if len(set(self.names)) != len(self.names):
            raise ConfigurationError(f"{text!r} names a plate twice", hint="use + where a level must only match")

    def _level(self, part: str, index: int, *, last: bool) -> str:
        match = _PLACEHOLDER.fullmatch(part)
        if match is None:
            if "{" in part or "}" in part:
                raise self._error(part, "a placeholder must be a whole level")
            if part == "#" and not last:
                raise self._error(part, "# must be the last level")
            if part not in ("+", "#") and ("+" in part or "#" in part):
                raise self._error(part, "+ and # must be whole levels")
            return part
        name, rest = match.groups()
        if not _NAME.fullmatch(name):
            raise self._error(part, "a plate name has letters, digits and _, and begins with a letter")
        if rest:
            if not last:
                raise self._error(part, "{name#} must be the last level")
            self._rest = name
            return "#"
        self._names.append((index, name))
        return "+"

    def _error(self, part: str, why: str) -> ConfigurationError:
        return ConfigurationError(f"topic template {self.text!r}, level {part!r}: {why}", hint=_HINT)

    def bind(self, topic: str) -> Meta | None:
        """The plate values in ``topic``, sorted by plate, or ``None`` when the topic does not match.

        Raises `PayloadError` with reason ``plate_value`` when a bound level cannot be a plate value.
        """
        levels = topic.split("/")
        if not self.matches(levels):
            return None
        bound = [(name, levels[index]) for index, name in self._names]
        if self._rest:
            bound.append((self._rest, "/".join(levels[len(self._levels) - 1 :])))
        for name, value in bound:
            try:
                check_plate_value(value)
            except ValueError as error:
                raise PayloadError("plate_value", f"plate {name}: {error}") from None
        return tuple(sorted(bound))

    def matches(self, levels: Sequence[str]) -> bool:
        """Whether a topic, as its levels, is one of those that are read."""
        mine = self._levels
        if levels[0].startswith("$") and mine[0] in ("+", "#"):
            return False
        if mine[-1] == "#":
            # MQTT's # also matches the parent level; {name#} needs something to bind.
            if len(levels) < len(mine) - (0 if self._rest else 1):
                return False
            mine = mine[:-1]
        elif len(levels) != len(mine):
            return False
        return all(wanted in ("+", level) for wanted, level in zip(mine, levels, strict=False))

    def __repr__(self) -> str:
        return f"TopicTemplate({self.text!r})"


def identifier_of(name: str) -> int:
    """The subscription identifier (MQTT 5: from 1 to 268,435,455) of the topic filter ``name``, the same for ever.

    A session outlives the service, and so do the identifiers in it.
    """
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest()) % 268_435_455 + 1


def overlapping(filters: Sequence[str]) -> tuple[str, str] | None:
    """Two different ``filters`` that the same topic can match, or ``None``."""
    return next((pair for pair in combinations(dict.fromkeys(filters), 2) if _overlap(*pair)), None)


def _overlap(one: str, other: str) -> bool:
    for mine, its in zip_longest(one.split("/"), other.split("/")):
        if "#" in (mine, its):
            return True
        if mine is None or its is None or (mine != its and "+" not in (mine, its)):
            return False
    return True


def is_entity_topic(levels: Sequence[str]) -> bool:
    """Whether a topic is the ``config`` or ``state`` of an entity that an hs_stream service publishes.

    >>> is_entity_topic("homeassistant/sensor/hs-comfort-smooth-1-kitchen/state".split("/"))
    True
    """
    return (
        len(levels) == 4
        and levels[0] == HOMEASSISTANT
        and levels[1] in COMPONENTS
        and levels[2].startswith(f"{OURS}-")
        and levels[3] in ("config", "state")
    )
