"""Gateways with a topic for each value: ESPHome, Home Assistant's statestream, Shelly of the first generation.

::

    mqtt: "{node}/sensor/{sensor}/state"                codec: esphome
    mqtt: "homeassistant/{domain}/{entity}/state"       codec: statestream
    mqtt: "shellies/{device}/relay/{relay}/power"       codec: shelly1

1. A payload is a number where it looks like one, JSON where it begins like an object or array, else text: ``21.5``,
   ``{"event": "S"}``, ``on``. (`hs_stream_connectors.codecs.bare.guess`)
2. There is no time but the arrival. A retained message is of unknown age and no reading: these gateways retain by
   default or on request, so it is normal and not an error.
3. What a gateway sends for "no value" is no reading: ``nan`` (ESPHome), ``unknown`` and ``unavailable`` (statestream).
   Nor is what this service publishes as an entity of Home Assistant, whose topic has the form of theirs: a node that
   read its own result would never end.
4. Which topics are readings:

   =============  ====================================================================================================
   ``esphome``    ``.../state``. Not: ``<prefix>/status`` (availability), ``<prefix>/debug`` (the log), ``.../command``
   ``statestream``  ``.../state``; of attributes (``publish_attributes``) every topic, whose payload is JSON.
                  Not: ``last_changed``, ``last_updated``
   ``shelly1``    every one, but ``online``, ``announce``, ``info``, ``command``, ``set`` and what is below of them
   =============  ====================================================================================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from hs_stream.core.errors import ConfigurationError
from hs_stream_connectors.codecs.bare import guess
from hs_stream_connectors.codecs.base import CodecOptions, Decoded, Placing, is_command, no_time, to_value
from hs_stream_connectors.codecs.objects import load_json
from hs_stream_connectors.mqtt.topics import is_entity_topic

__all__ = ["EspHomeCodec", "Shelly1Codec", "StatestreamCodec"]

_NO_NUMBER: Final = frozenset({b"nan", b"NaN", b"NAN"})
_NO_STATE: Final = frozenset({b"unknown", b"unavailable"})
_TIMESTAMPS: Final = frozenset({"last_changed", "last_updated"})
_NOT_SHELLY: Final = frozenset({"online", "announce", "info", "command", "set"})


@dataclass(frozen=True, slots=True)
class _States(ABC):
    """See the module."""

    options: CodecOptions
    name: str = ""
    plates: tuple[str, ...] = ()
    placing: Placing = Placing.CORRECT

    @classmethod
    def make(cls, options: Mapping[str, Any]) -> Self:
        """From the options of a workflow file."""
        made = cls(CodecOptions())
        no_time(made.name, options, "the arrival")
        parsed = CodecOptions.parse(made.name, options)
        if parsed.fields is not None or parsed.bind:
            raise ConfigurationError(
                f"codec {made.name}: a bare payload has no fields", hint="leave `fields` and `bind` out"
            )
        return cls(parsed)

    def decode(self, topic: str, payload: bytes, arrival: int, retained: bool) -> Decoded:
        """See `hs_stream_connectors.codecs.base.Codec`."""
        levels = topic.split("/")
        if retained or not payload or is_entity_topic(levels) or not self.is_reading(levels, payload):
            return []
        self.options.check_size(payload)
        return [(None, self.value(topic, payload))]

    @abstractmethod
    def is_reading(self, levels: list[str], payload: bytes) -> bool:
        """By rules 3 and 4."""

    def value(self, topic: str, payload: bytes) -> Any:
        """By rule 1."""
        return guess(payload)


@dataclass(frozen=True, slots=True)
class EspHomeCodec(_States):
    """See the module."""

    name: str = "esphome"

    def is_reading(self, levels: list[str], payload: bytes) -> bool:
        """By rules 3 and 4."""
        return levels[-1] == "state" and payload.strip() not in _NO_NUMBER


@dataclass(frozen=True, slots=True)
class StatestreamCodec(_States):
    """See the module."""

    name: str = "statestream"

    def is_reading(self, levels: list[str], payload: bytes) -> bool:
        """By rules 3 and 4."""
        return levels[-1] not in _TIMESTAMPS and not (levels[-1] == "state" and payload in _NO_STATE)

    def value(self, topic: str, payload: bytes) -> Any:
        """A state is a bare text, an attribute is JSON."""
        return guess(payload) if topic.endswith("/state") else to_value(load_json(payload))


@dataclass(frozen=True, slots=True)
class Shelly1Codec(_States):
    """See the module."""

    name: str = "shelly1"

    def is_reading(self, levels: list[str], payload: bytes) -> bool:
        """By rules 3 and 4."""
        return not is_command(levels, _NOT_SHELLY)
