"""The connector for the key ``mqtt`` of a source: all of them share one `MqttSource`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from hs_stream.core.doubts import SourceFacts
from hs_stream.core.errors import ConfigurationError
from hs_stream_connectors.codecs import OPTIONS, CodecOptions, codec, is_ours
from hs_stream_connectors.mqtt.options import MqttOptions
from hs_stream_connectors.mqtt.source import MqttSource, SourceSpec
from hs_stream_connectors.mqtt.topics import TopicTemplate

__all__ = ["MqttConnector"]

_KEYS: Final = ("mqtt", "codec", *OPTIONS)


class MqttConnector:
    """Sources such as ``{mqtt: "home/{room}/climate", codec: json, time: {field: ts, unit: ms}}``.

    ``options`` are only asked for by `connect`, since they read the password. ``defaults``: codec options
    (``earliest``, ``max_payload``) of sources that do not say otherwise. ``memory``: bytes for what codecs remember.
    """

    def __init__(
        self, options: Callable[[], MqttOptions], defaults: Mapping[str, Any], *, memory: int = 32 << 20
    ) -> None:
        self._options = options
        self._memory = memory
        self._defaults = dict(defaults)

    def plates(self, source: str, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The names in the topic, and those that ``bind`` takes from payloads.

        `ConfigurationError` for a bad topic, codec, time or key.
        """
        return self._spec(source, options).plates

    def facts(self, source: str, options: Mapping[str, Any]) -> SourceFacts:
        """The ``fields``, what its value leaves out, and that each topic has times of its own."""
        spec = self._spec(source, options)
        chosen = getattr(spec.codec, "options", None)
        if not isinstance(chosen, CodecOptions):
            return SourceFacts(apart=spec.template.names)
        if chosen.fields is not None:
            return SourceFacts(frozenset(chosen.fields), apart=spec.template.names)
        dropped = {key: f"it is the plate {plate}" for plate, key in chosen.bind}
        if chosen.time.field is not None:
            dropped[chosen.time.field] = "it is the time of its readings"
        return SourceFacts(None, dropped, spec.template.names)

    def connect(self, sources: Mapping[str, Mapping[str, Any]]) -> MqttSource:
        """One connection and one session for all ``sources``."""
        specs = [self._spec(name, options) for name, options in sources.items()]
        return MqttSource("mqtt", self._options(), specs, memory=self._memory)

    def _spec(self, name: str, options: Mapping[str, Any]) -> SourceSpec:
        kind = options.get("codec", "json")
        for key in options:
            if key not in _KEYS and (not isinstance(kind, str) or is_ours(kind)):
                raise ConfigurationError(
                    f"source {name}: there is no key {key!r}", hint=f"the keys are {', '.join(_KEYS)}"
                )
        if not isinstance(kind, str):
            raise ConfigurationError(f"source {name}: codec is not a name", hint="write codec: json")
        if not isinstance(options["mqtt"], str):
            raise ConfigurationError(f"source {name}: mqtt is not text", hint='write mqtt: "home/{room}/climate"')
        rest = {key: value for key, value in options.items() if key not in ("mqtt", "codec")}
        spec = SourceSpec(name, TopicTemplate(options["mqtt"]), codec(kind, **(self._defaults | rest)))
        if twice := set(spec.template.names) & set(spec.codec.plates):
            raise ConfigurationError(
                f"source {name}: bind: the topic binds {min(twice)} already",
                hint="use + in the topic, or drop it in bind",
            )
        return spec
