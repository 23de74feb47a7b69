"""Shelly of the second generation and later: JSON-RPC notifications, ``<prefix>/events/rpc``.

::

    mqtt: "{device}/events/rpc"
    codec: shelly
    bind: {component: component, property: property}     # shelly[component=switch:0,device=...,property=apower]

    bind: {channel: component}       # or: a stream per channel
    fields: [apower]                 #     of one property

    fields: ["switch:0.apower"]      # or: one value, no plate; the word `name` binds such names

``NotifyStatus`` holds the components that changed, and of each the properties that changed; ``NotifyFullStatus`` holds
all of them. Nothing is merged (see `hs_stream_connectors.codecs.parts`): each property is a stream, and what stands
inside of an object is one too (``aenergy.total``, ``temperature.tC``). A property that did not change is not repeated,
so use tools that know the last value (``as_of_join``, ``last_value``) where two meet. A component's ``id`` is no
property.

The time is ``params.ts``, seconds since the epoch with a fraction. Before its clock is set, a device sends the seconds
since its start (``before_earliest``) or none. ``NotifyEvent`` (buttons, configuration) and answers to requests are no
readings, nor is any topic but ``.../events/rpc``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from hs_stream.core.errors import PayloadError
from hs_stream.core.value import MAX_DEPTH
from hs_stream_connectors.codecs.base import Decoded, Gathered, Placing, TimeSpec
from hs_stream_connectors.codecs.objects import load_json
from hs_stream_connectors.codecs.parts import PartOptions, must_identify

__all__ = ["ShellyCodec"]

_WORDS: Final = ("component", "property", "name")
_STATUS: Final = frozenset({"NotifyStatus", "NotifyFullStatus"})
_TIME: Final = TimeSpec("ts", "s")


@dataclass(frozen=True, slots=True)
class ShellyCodec:
    """See the module."""

    parts: PartOptions
    name: str = "shelly"
    placing: Placing = Placing.CORRECT

    @classmethod
    def make(cls, options: Mapping[str, Any]) -> Self:
        """From the options of a workflow file."""
        parts = PartOptions.parse("shelly", options, _WORDS, "params.ts")
        words, single = parts.words, parts.single
        must_identify(
            "shelly",
            "name" in words
            or {"component", "property"} <= words
            or (single is not None and ("component" in words or "." in single)),
            "write bind: {component: component, property: property}, or fields: [switch:0.apower]",
        )
        return cls(parts)

    @property
    def plates(self) -> tuple[str, ...]:
        """See `hs_stream_connectors.codecs.base.Codec`."""
        return self.parts.options.plates

    def decode(self, topic: str, payload: bytes, arrival: int, retained: bool) -> Decoded:
        """See `hs_stream_connectors.codecs.base.Codec`."""
        if not topic.endswith("events/rpc"):
            return []
        self.parts.options.check_size(payload)
        frame = load_json(payload)
        if type(frame) is not dict:
            raise PayloadError("type", "the payload is not a JSON-RPC frame")
        method = frame.get("method")
        if not isinstance(method, str) or method not in _STATUS:
            return []
        params = frame.get("params")
        if type(params) is not dict:
            raise PayloadError("type", "params is not an object")
        if "ts" not in params:
            raise PayloadError("time_missing", "params has no ts")
        time = _TIME.instant(params["ts"], self.parts.options.earliest)
        gathered = Gathered()
        for component, status in params.items():
            if type(status) is dict:
                self._component(component, status, time, gathered)
        return gathered.done()

    def _component(self, component: str, status: dict[str, Any], time: int, gathered: Gathered) -> None:
        only = self.parts.only
        for key, value in _leaves(status, MAX_DEPTH):
            full = f"{component}.{key}"
            if key == "id" or (only is not None and full not in only and key not in only):
                continue
            try:
                words = {"component": component, "property": key, "name": full}
                gathered.readings.append(self.parts.reading(time, value, words))
            except PayloadError as error:
                gathered.refuse(full, error)


def _leaves(status: dict[str, Any], levels: int) -> Iterator[tuple[str, Any]]:
    """Each value that is no object, with its path."""
    if not levels:
        raise PayloadError("depth", "the status is nested too deep")
    for key, value in status.items():
        if type(value) is dict:
            for path, leaf in _leaves(value, levels - 1):
                yield f"{key}.{path}", leaf
        else:
            yield key, value
