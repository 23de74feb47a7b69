"""The kinds of sinks for the keys ``retain``, ``payload`` and ``homeassistant`` of ``publish``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hs_stream.core.errors import ConfigurationError
from hs_stream.engine.ports import Results
from hs_stream_connectors.mqtt.homeassistant import HomeAssistant, check_homeassistant, doubts_of_entity
from hs_stream_connectors.mqtt.options import MqttOptions
from hs_stream_connectors.mqtt.sink import MAX_SIZE, MqttSink, check_publish_option

__all__ = ["HomeAssistantKind", "MqttKind"]


class MqttKind:
    """Every published node goes out on MQTT. ``options`` are only asked for by `connect`: they read the password."""

    keys = ("retain", "payload")
    everything = True

    def __init__(self, options: Callable[[], MqttOptions], *, prefix: str = "hs", max_size: int = MAX_SIZE) -> None:
        self._options = options
        self._prefix, self._max_size = prefix, max_size

    def check(self, key: str, value: Any) -> None:
        """`ConfigurationError` unless ``retain`` and ``payload`` are what they may be."""
        check_publish_option(key, value)

    def connect(self, results: Results) -> MqttSink:
        """One connection for all of them."""
        return MqttSink("mqtt", self._options(), prefix=self._prefix, max_size=self._max_size)


class HomeAssistantKind:
    """Nodes with ``homeassistant`` are entities there. What went while nobody looked has to be removed: ``lasting``."""

    keys = ("homeassistant",)
    lasting = True

    def __init__(self, options: Callable[[], MqttOptions], *, prefix: str, version: str) -> None:
        self._options = options
        self._prefix, self._version = prefix, version

    def check(self, key: str, value: Any) -> None:
        """`ConfigurationError` unless it describes an entity."""
        if value is not None and not isinstance(value, Mapping):
            raise ConfigurationError("homeassistant is not a mapping", hint="write key: value pairs")
        check_homeassistant(value or {})

    def doubts(self, options: Mapping[str, Any]) -> list[tuple[str, str]]:
        """What Home Assistant will hardly make of the options of a node."""
        return doubts_of_entity(options.get("homeassistant") or {})

    def connect(self, results: Results) -> HomeAssistant:
        """One connection for all entities."""
        return HomeAssistant(
            self._options(),
            prefix=self._prefix,
            version=self._version,
            newest=results.newest,
            published=results.published,
        )
