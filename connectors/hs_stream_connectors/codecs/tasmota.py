"""Tasmota: telemetry with local times, ``tele/<topic>/SENSOR`` and ``STATE``, and switches, ``stat/<topic>/POWER<n>``.

::

    mqtt: "tele/{device}/SENSOR"
    codec: tasmota
    zone: Europe/Berlin              # of the device's clock (its commands Timezone, TimeStd, TimeDst); required
    fields: [ENERGY.Power, DS18B20.Temperature]      # optional; a path goes into a sensor

``SENSOR`` and ``STATE`` hold an object with ``Time``, which is local, without an offset, and in whole seconds unless
the device is told otherwise. It is read with ``zone``:

* ``Epoch`` wins where the device sends it (command ``Time 2``), and ``Time`` may be a number (``Time 3``): seconds, or
  milliseconds from 10^11 on. Then no hour is ambiguous.
* Of an hour that occurs twice the arrival tells the pass, and a time that does not exist is refused: `codecs.local`.
* Before its clock is set, a device sends 1970: ``before_earliest``.

A gateway for Bluetooth sends a message per sensor, several in one second. Messages of one time are one value with the
members of all; where one differs, the later wins.

``POWER`` and ``POWER<n>`` are ``ON`` or ``OFF`` and have no time, so theirs is the arrival, and a retained one
(``PowerRetain``) is no reading. No readings either: ``LWT``, ``RESULT``, ``STATUS<n>``, ``INFO<n>``, ``cmnd/...``, and
every other topic of a device.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from hs_stream.core.errors import ConfigurationError, PayloadError
from hs_stream_connectors.codecs.bare import to_text
from hs_stream_connectors.codecs.base import CodecOptions, Decoded, Placing, TimeSpec, no_time
from hs_stream_connectors.codecs.objects import load_json

__all__ = ["TasmotaCodec"]

_TELEMETRY: Final = frozenset({"SENSOR", "STATE"})
_POWER: Final = re.compile(r"POWER[0-9]{0,2}")
_MILLISECONDS_FROM: Final = 100_000_000_000
_SECONDS: Final = TimeSpec("Time", "s")
_MILLISECONDS: Final = TimeSpec("Time", "ms")


@dataclass(frozen=True, slots=True)
class TasmotaCodec:
    """See the module."""

    options: CodecOptions
    name: str = "tasmota"
    plates: tuple[str, ...] = ()
    placing: Placing = Placing.MERGE

    @classmethod
    def make(cls, options: Mapping[str, Any]) -> Self:
        """From the options of a workflow file."""
        no_time("tasmota", options, "Time, read with `zone`")
        parsed = CodecOptions.parse("tasmota", options, ("zone",))
        if parsed.bind:
            raise ConfigurationError(
                "codec tasmota: bind: the device is in the topic", hint="write tele/{device}/SENSOR"
            )
        if options.get("zone") is None:
            raise ConfigurationError(
                "codec tasmota: zone is missing, and devices send local time",
                hint="write zone: Europe/Berlin, the zone of the devices' clocks",
            )
        spec = TimeSpec.parse({"field": "Time", "unit": "iso", "zone": options["zone"]})
        return cls(replace(parsed, time=spec))

    def decode(self, topic: str, payload: bytes, arrival: int, retained: bool) -> Decoded:
        """See `hs_stream_connectors.codecs.base.Codec`."""
        levels = topic.split("/")
        last = levels[-1]
        if not payload or "cmnd" in levels[:-1]:
            return []
        if last in _TELEMETRY:
            self.options.check_size(payload)
            return self._telemetry(load_json(payload), arrival, retained)
        if _POWER.fullmatch(last) and not retained:
            self.options.check_size(payload)
            return [(None, to_text(payload))]
        return []

    def _telemetry(self, item: Any, arrival: int, retained: bool) -> Decoded:
        if type(item) is not dict:
            raise PayloadError("type", "the payload is not an object with Time")
        local, epoch = item.pop("Time", None), item.pop("Epoch", None)
        raw = local if epoch is None else epoch
        if raw is None:
            raise PayloadError("time_missing", "the object has no Time")
        if isinstance(raw, (int, float)) and not isinstance(raw, bool):
            spec = _MILLISECONDS if abs(raw) >= _MILLISECONDS_FROM else _SECONDS
            time = spec.instant(raw, self.options.earliest)
        else:
            time = self.options.time.instant(raw, self.options.earliest, arrival, retained)
        return [self.options.timed(time, item, None)]
