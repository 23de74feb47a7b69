"""What stands behind a name: ours and what installed distributions add, in one table per group of entry points.

1. A group maps names to objects, each written as ``module:attribute``. Nothing is imported before its name is used.
2. Our own names stand in the same tables. Who takes a name that is taken is refused.
3. Whatever is wrong with an entry is a `ConfigurationError` that names the distribution that brings it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from hs_stream.core.errors import ConfigurationError, HsStreamError

__all__ = ["CODECS", "CONNECTORS", "SINKS", "STORES", "TOOLS", "Group", "load", "owner"]

TOOLS: Final = "hs_stream.tools"
"""The group whose entries name modules that define tools (see `hs_stream.plugins`)."""


def owner(entry: EntryPoint) -> str:
    """The distribution that brings ``entry``, with its version: ``"hs-kettle 1.2.0"``."""
    return "hs_stream" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def load(entry: EntryPoint, what: str) -> Any:
    """The object of ``entry``. ``what`` says in the error what it is, such as ``"store"``."""
    try:
        return entry.load()
    except Exception as error:
        raise ConfigurationError(
            f"the {what} {entry.name} = {entry.value!r} of {owner(entry)} cannot be loaded: "
            f"{type(error).__name__}: {error}",
            hint=f"repair or uninstall {owner(entry)}",
        ) from error


class Group:
    """The factories of one group, by name. ``own``: what we bring ourselves."""

    def __init__(self, name: str, what: str, own: Mapping[str, str]) -> None:
        self.name = name
        self._what = what
        self._own = [EntryPoint(key, value, name) for key, value in own.items()]

    def table(self) -> dict[str, EntryPoint]:
        """Every entry there is now. `ConfigurationError` when two distributions use one name."""
        found = {entry.name: entry for entry in self._own}
        for entry in entry_points(group=self.name):
            taken = found.setdefault(entry.name, entry)
            if taken is not entry:
                raise ConfigurationError(
                    f"{owner(taken)} and {owner(entry)} both bring a {self._what} {entry.name}",
                    hint=f"uninstall {owner(entry)}",
                )
        return found

    def names(self) -> list[str]:
        """Every name, sorted."""
        return sorted(self.table())

    def is_own(self, name: str) -> bool:
        """Whether it is ours."""
        return any(entry.name == name for entry in self._own)

    def owner(self, name: str) -> str:
        """The distribution behind ``name``, which must be there."""
        return owner(self.table()[name])

    def make(self, name: str, *arguments: Any) -> Any:
        """What the factory behind ``name``, which must be there, makes of ``arguments``.

        Our errors come through as they are, every other one becomes a `ConfigurationError`.
        """
        entry = self.table()[name]
        factory = load(entry, self._what)
        try:
            return factory(*arguments)
        except HsStreamError:
            raise
        except Exception as error:
            raise ConfigurationError(
                f"the {self._what} {name} of {owner(entry)} cannot be made: {type(error).__name__}: {error}",
                hint=f"tell the authors of {owner(entry)}",
            ) from error


STORES: Final = Group(
    "hs_stream.stores",
    "store",
    {
        "memory": "hs_stream.store.factories:memory",
        "mongodb": "hs_stream.store.factories:mongodb",
        "mongodb+srv": "hs_stream.store.factories:mongodb",
        "sqlite": "hs_stream.store.factories:sqlite",
    },
)
"""Schemes of ``store.url``; a factory is a `hs_stream.store.open.StoreFactory`."""

CONNECTORS: Final = Group(
    "hs_stream.connectors",
    "connector",
    {"csv": "hs_stream.service.connectors:csv_files", "mqtt": "hs_stream.service.connectors:mqtt"},
)
"""Keys of a source in a workflow file; a factory is a `hs_stream.service.connectors.ConnectorFactory`."""

SINKS: Final = Group(
    "hs_stream.sinks",
    "sink",
    {"homeassistant": "hs_stream.service.sinks:homeassistant", "mqtt": "hs_stream.service.sinks:mqtt"},
)
"""Where published nodes go; a factory is a `hs_stream.service.sinks.SinkFactory`."""

CODECS: Final = Group(
    "hs_stream.codecs",
    "codec",
    {
        "esphome": "hs_stream_connectors.codecs.states:EspHomeCodec.make",
        "json": "hs_stream_connectors.codecs.objects:JsonCodec.make",
        "msgpack": "hs_stream_connectors.codecs.objects:MsgpackCodec.make",
        "number": "hs_stream_connectors.codecs.bare:NumberCodec.make",
        "shelly": "hs_stream_connectors.codecs.shelly:ShellyCodec.make",
        "shelly1": "hs_stream_connectors.codecs.states:Shelly1Codec.make",
        "sparkplug": "hs_stream_connectors.codecs.sparkplug:SparkplugCodec.make",
        "sphere": "hs_stream_connectors.codecs.sphere:SphereCodec.make",
        "statestream": "hs_stream_connectors.codecs.states:StatestreamCodec.make",
        "tasmota": "hs_stream_connectors.codecs.tasmota:TasmotaCodec.make",
        "text": "hs_stream_connectors.codecs.bare:TextCodec.make",
        "zigbee2mqtt": "hs_stream_connectors.codecs.zigbee2mqtt:Zigbee2MqttCodec.make",
    },
)
"""The ``codec`` of an MQTT source; a factory takes its options and makes a `hs_stream_connectors.codecs.Codec`."""
