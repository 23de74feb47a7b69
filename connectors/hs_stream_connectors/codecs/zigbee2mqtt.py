"""zigbee2mqtt: a JSON object of properties per device, ``zigbee2mqtt/<friendly name>``.

::

    mqtt: "zigbee2mqtt/{device#}"    # a friendly name may hold /, so bind all remaining levels
    codec: zigbee2mqtt
    fields: [temperature, humidity]  # optional
    base: zigbee2mqtt                # optional: mqtt.base_topic of zigbee2mqtt, if it has more than one level

The event time is ``last_seen`` where zigbee2mqtt sends it (``advanced.last_seen: ISO_8601``, ``ISO_8601_local`` or
``epoch``; numbers from 10^11 on are milliseconds, smaller ones seconds), and the arrival otherwise. It is not part of
the value.

zigbee2mqtt publishes a device's *cached* properties along with those that just changed, and everything again after its
own restart. With ``last_seen`` a repeat is the same reading at the same time and changes nothing, so switch it on.
Without it, a repeat is a reading of its own at its arrival, and a retained one is none at all (reason ``retained``).

``last_seen`` is when the device was heard, not when the content came to be: ``occupancy: false`` after a timeout, the
empty ``action`` after each button press and a switching that the device did not confirm have that of the message
before. What differs from the reading at its ``last_seen`` is a reading at its arrival (`Placing.UPDATE`).

``<base>/bridge/...``, ``.../availability``, ``.../set`` and ``.../get`` (also ``.../set/state``) are no readings:
`Zigbee2MqttCodec.decode` returns an empty list for them, and for an empty payload, which only removes a retained one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from hs_stream.core.errors import ConfigurationError, PayloadError
from hs_stream_connectors.codecs.base import CodecOptions, Decoded, Placing, Time, TimeSpec, is_command, retained_error
from hs_stream_connectors.codecs.objects import load_json

__all__ = ["Zigbee2MqttCodec"]

_FIELD: Final = "last_seen"
_COMMANDS: Final = frozenset({"set", "get"})
_MILLISECONDS_FROM: Final = 100_000_000_000
_ISO: Final = TimeSpec(_FIELD, "iso")
_MS: Final = TimeSpec(_FIELD, "ms")
_S: Final = TimeSpec(_FIELD, "s")


@dataclass(frozen=True, slots=True)
class Zigbee2MqttCodec:
    """See the module."""

    options: CodecOptions
    base: str = ""
    name: str = "zigbee2mqtt"
    placing: Placing = Placing.UPDATE

    @classmethod
    def make(cls, options: Mapping[str, Any]) -> Self:
        """From the options of a workflow file. ``time`` cannot be chosen."""
        if "time" in options and TimeSpec.parse(options["time"]).field not in (None, _FIELD):
            raise ConfigurationError(
                "codec zigbee2mqtt: the time is last_seen or the arrival", hint="leave `time` out, or use codec: json"
            )
        base = options.get("base", "")
        if not isinstance(base, str) or not set(base).isdisjoint("+#{}"):
            raise ConfigurationError(f"codec zigbee2mqtt: base is {base!r}", hint="write base: zigbee2mqtt")
        parsed = CodecOptions.parse("zigbee2mqtt", options, ("base",))
        return cls(replace(parsed, time=_ISO), base.strip("/"))

    @property
    def plates(self) -> tuple[str, ...]:
        """See `hs_stream_connectors.codecs.base.Codec`."""
        return self.options.plates

    def decode(self, topic: str, payload: bytes, arrival: int, retained: bool) -> Decoded:
        """See `hs_stream_connectors.codecs.base.Codec`."""
        if not payload or self.is_ignored(topic):
            return []
        self.options.check_size(payload)
        item = load_json(payload)
        if type(item) is not dict:
            raise PayloadError("type", "the payload is not an object of properties")
        seen = item.pop(_FIELD, None)
        time: Time
        if seen is None:
            if retained:
                raise retained_error()
            time = None
        else:
            number = isinstance(seen, (int, float)) and not isinstance(seen, bool)
            spec = _ISO if not number else _MS if abs(seen) >= _MILLISECONDS_FROM else _S
            time = spec.instant(seen, self.options.earliest)
        return [self.options.timed(time, item, None)]

    def is_ignored(self, topic: str) -> bool:
        """Whether the topic carries something else than a device's properties."""
        base = self.base + "/"
        rest = topic.removeprefix(base) if self.base and topic.startswith(base) else topic.partition("/")[2]
        levels = rest.split("/")
        return levels[0] == "bridge" or levels[-1] == "availability" or is_command(levels, _COMMANDS)
