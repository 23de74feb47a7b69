"""Which topics belong to a gateway that has a codec, and the sources that read it.

Each function takes the topics that are left, returns the ones that it takes, and adds sources. By topic and payload:

=============  ========================================================================================================
sparkplug      ``spBv1.0/...``
zigbee2mqtt    ``<base>/bridge/...``, or objects with ``linkquality`` or ``last_seen``
tasmota        ``.../SENSOR`` and ``.../STATE`` with ``Time``; ``POWER<n>`` below ``stat``
shelly         ``.../events/rpc`` with a notification
shelly1        ``shellies/<device>/...``
statestream    ``<base>/<domain>/<entity>/state`` with attributes beside it, or domains that only Home Assistant has
esphome        ``<prefix>/<component>/<name>/state``
sphere         objects with ``bt`` and a list ``e``
=============  ========================================================================================================
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from hs_stream_connectors.codecs.states import Shelly1Codec
from hs_stream_connectors.codecs.zigbee2mqtt import Zigbee2MqttCodec
from hs_stream_connectors.discovery.patterns import Names
from hs_stream_connectors.discovery.payloads import objects
from hs_stream_connectors.discovery.survey import Seen
from hs_stream_connectors.mqtt.topics import TopicTemplate

__all__ = ["GATEWAYS", "Context", "Found"]

_ESPHOME: Final = frozenset(
    {
        *("sensor", "binary_sensor", "switch", "light", "fan", "cover", "climate", "number", "select", "text_sensor"),
        *("button", "lock", "valve"),
    }
)
_HOME_ASSISTANT: Final = frozenset(
    {
        *("sun", "person", "zone", "weather", "automation", "device_tracker", "group", "media_player", "script"),
        *("scene", "input_boolean", "input_number", "input_select", "input_datetime", "input_text", "update"),
        *("camera", "calendar", "todo", "event", "remote", "vacuum"),
    }
)
_ATTRIBUTES: Final = frozenset({"last_changed", "last_updated", "friendly_name"})
_POWER: Final = re.compile(r"POWER\d{0,2}")
_PREFIXES: Final = frozenset({"tele", "stat", "cmnd"})
_QUARTER: Final = 900


@dataclass(slots=True)
class Found:
    """A source: its options, the topics that it reads, which fields hold numbers, and what to say about it."""

    name: str
    options: dict[str, Any]
    topics: tuple[str, ...]
    numbers: tuple[str, ...] = ()
    note: str = ""


@dataclass(slots=True)
class Context:
    """What the functions share. ``zone``: of Tasmota devices, if it is known. ``read``: what others read already."""

    names: Names
    zone: str | None = None
    read: Sequence[TopicTemplate] = ()
    found: list[Found] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    """Topics that are left to those others."""

    def is_known(self, seen: Seen) -> bool:
        """Whether others read this topic."""
        return any(template.matches(seen.levels) for template in self.read)

    def add(
        self,
        name: str,
        options: dict[str, Any],
        topics: Collection[Seen],
        note: str = "",
        numbers: tuple[str, ...] = (),
    ) -> None:
        """A source, unless others read all that was heard of its ``topics``."""
        read = tuple(seen.topic for seen in topics)
        if topics and all(map(self.is_known, topics)):
            self.known.update(read)
        else:
            self.found.append(Found(self.names.source(name), options, read, numbers, note))


def sparkplug(topics: Sequence[Seen], context: Context) -> list[Seen]:
    mine = [seen for seen in topics if seen.levels[0] == "spBv1.0"]
    kinds = {seen.levels[2] for seen in mine if len(seen.levels) > 3}
    if not kinds:
        return []
    for plate in ("group", "edge", "metric"):
        context.names.plate(plate)
    topic = "spBv1.0/{group}/+/{edge}/#"
    if kinds & {"DBIRTH", "DDATA"}:
        context.names.plate("device")
        bind = {"device": "device", "metric": "name"}
        part = [seen for seen in mine if len(seen.levels) == 5]
        context.add("sparkplug_device", {"mqtt": topic, "codec": "sparkplug", "bind": bind}, part)
    if kinds & {"NBIRTH", "NDATA"}:
        part = [seen for seen in mine if len(seen.levels) == 4]
        context.add("sparkplug_node", {"mqtt": topic, "codec": "sparkplug", "bind": {"metric": "name"}}, part)
    return mine


def zigbee2mqtt(topics: Sequence[Seen], context: Context) -> list[Seen]:
    bases = set()
    for seen in topics:
        if "bridge" in seen.levels[1:-1] and seen.levels[-1] in ("state", "info", "devices", "logging", "groups"):
            bases.add(seen.topic.rpartition("/bridge/")[0])
    for seen in topics:
        if len(seen.levels) > 1 and not any(seen.topic.startswith(f"{base}/") for base in bases):
            items = objects(seen.samples)
            if items and all("linkquality" in item or "last_seen" in item for item in items):
                bases.add(seen.levels[0])
    taken = []
    for base in sorted(bases):
        mine = [seen for seen in topics if seen.topic.startswith(f"{base}/")]
        plate = context.names.plate("zigbee_device")
        options: dict[str, Any] = {"mqtt": f"{base}/{{{plate}#}}", "codec": "zigbee2mqtt"}
        if "/" in base:
            options["base"] = base
        codec = Zigbee2MqttCodec.make({"base": base})
        devices = [seen for seen in mine if not codec.is_ignored(seen.topic)]
        seen_time = any("last_seen" in item for seen in devices for item in objects(seen.samples))
        context.add("zigbee", options, devices, "" if seen_time else "set last_seen in zigbee2mqtt, see the guide")
        taken += mine
    return taken


def tasmota(topics: Sequence[Seen], context: Context) -> list[Seen]:
    telemetry = [
        seen
        for seen in topics
        if seen.levels[-1] in ("SENSOR", "STATE") and any("Time" in item for item in objects(seen.samples))
    ]
    powers = [seen for seen in topics if _POWER.fullmatch(seen.levels[-1]) and "stat" in seen.levels]
    if not telemetry and not powers:
        return []
    zone, note = (context.zone, "") if context.zone else _zone(telemetry)
    for place in (-2, -3, None):  # the device behind the prefix (the default), before it, or somewhere
        part = [seen for seen in (*telemetry, *powers) if _device_at(seen.levels) == place]
        places: dict[int, str] = {} if place is None else {place: "tasmota_device"}
        _by_pattern(
            part, context, lambda levels: f"tasmota_{levels[-1]}", places, {"codec": "tasmota", "zone": zone}, note
        )
    devices = {_without(seen.levels) for seen in (*telemetry, *powers)}
    return [seen for seen in topics if _PREFIXES & set(seen.levels) and _without(seen.levels) in devices]


def _device_at(levels: Sequence[str]) -> int | None:
    return (-2 if levels[0] in _PREFIXES else -3) if len(levels) == 3 else None


def _without(levels: Sequence[str]) -> tuple[str, ...]:
    """What is left of a topic without its prefix and its last level: the device."""
    return tuple(level for level in levels[:-1] if level not in _PREFIXES)


def _zone(telemetry: Iterable[Seen]) -> tuple[str, str]:
    """The zone in which devices that speak now have the time that they say."""
    hint = "the zone is a guess from the clock of a device: write its real one, such as Europe/Brussels"
    for seen in telemetry:
        for item in objects(list(seen.samples)[-1:]):
            try:
                local = datetime.fromisoformat(str(item.get("Time"))).replace(tzinfo=UTC)
            except ValueError:
                continue
            ahead = (local - datetime.fromtimestamp(seen.arrival / 1000, UTC)) / timedelta(seconds=_QUARTER)
            hours = round(ahead) * _QUARTER / 3600
            if hours == int(hours) and -12 <= hours <= 14:
                return (f"Etc/GMT{-int(hours):+d}" if hours else "UTC"), hint
    return "UTC", hint


def shelly(topics: Sequence[Seen], context: Context) -> list[Seen]:
    mine = [
        seen
        for seen in topics
        if seen.levels[-2:] == ["events", "rpc"] and any("params" in item for item in objects(seen.samples))
    ]
    bind = {"component": "component", "property": "property"}
    if mine:
        context.names.plate("component")
        context.names.plate("property")
        _by_pattern(mine, context, lambda _: "shelly", {-3: "shelly"}, {"codec": "shelly", "bind": bind})
    prefixes = tuple(seen.topic.removesuffix("events/rpc") for seen in mine)
    return [seen for seen in topics if prefixes and seen.topic.startswith(prefixes)]


def shelly1(topics: Sequence[Seen], context: Context) -> list[Seen]:
    mine = [seen for seen in topics if seen.levels[0] == "shellies"]
    if any(len(seen.levels) > 2 for seen in mine):
        device, quantity = context.names.plate("shelly1"), context.names.plate("quantity")
        options = {"mqtt": f"shellies/{{{device}}}/{{{quantity}#}}", "codec": "shelly1"}
        codec = Shelly1Codec.make({})
        context.add("shelly1", options, [seen for seen in mine if codec.is_reading(seen.levels, b"")])
    return mine


def states(topics: Sequence[Seen], context: Context) -> list[Seen]:
    """ESPHome and statestream: their topics have the same form."""
    mine = [
        seen
        for seen in topics
        if len(seen.levels) >= 4 and seen.levels[-1] == "state" and seen.levels[-3] in _ESPHOME | _HOME_ASSISTANT
    ]
    bases: dict[tuple[str, ...], list[Seen]] = defaultdict(list)
    for seen in mine:
        bases[tuple(seen.levels[:-3])].append(seen)
    esphome: list[Seen] = []
    taken: list[Seen] = []
    for base, entities in bases.items():
        below = [seen for seen in topics if _is_of(seen.levels, base)]
        only = {seen.levels[-3] for seen in entities} & _HOME_ASSISTANT
        if not only and not any(seen.levels[-1] in _ATTRIBUTES for seen in below):
            esphome += entities
        else:
            plate = context.names.plate("entity")
            for domain in sorted({seen.levels[-3] for seen in entities}):
                topic = "/".join((*base, domain, f"{{{plate}}}", "state"))
                part = [seen for seen in entities if seen.levels[-3] == domain]
                context.add(f"ha_{domain}", {"mqtt": topic, "codec": "statestream"}, part)
        taken += below
    for component in sorted({seen.levels[-3] for seen in esphome}):
        part = [seen for seen in esphome if seen.levels[-3] == component]
        _by_pattern(
            part,
            context,
            lambda levels: f"esphome_{levels[-2]}",
            {-4: "esphome_node", -2: "esphome_name"},
            {"codec": "esphome"},
        )
    return taken


def _is_of(levels: list[str], base: tuple[str, ...]) -> bool:
    """Whether an ESPHome node or a statestream at ``base`` publishes a topic."""
    rest = levels[len(base) :]
    if tuple(levels[: len(base)]) != base or not rest:
        return False
    return rest in (["status"], ["debug"]) or (len(rest) > 1 and rest[0] in _ESPHOME | _HOME_ASSISTANT)


def sphere(topics: Sequence[Seen], context: Context) -> list[Seen]:
    mine = []
    for seen in topics:
        items = objects(seen.samples)
        if items and all("bt" in item and isinstance(item.get("e"), list) for item in items):
            mine.append(seen)
    with_uid = all("uid" in item for seen in mine for item in objects(seen.samples))
    options: dict[str, Any] = {"codec": "sphere"}
    if mine and with_uid:
        options["bind"] = {context.names.plate("uid"): "uid"}
    _by_pattern(mine, context, lambda levels: f"sphere_{levels[-1]}" if levels else "sphere", {}, options)
    return mine


def _by_pattern(
    topics: Iterable[Seen],
    context: Context,
    name: Callable[[list[str]], str],
    places: Mapping[int, str],
    options: Mapping[str, Any],
    note: str = "",
) -> None:
    """A source for each pattern. ``places``: plates by level, counted from the end; without any they are found."""
    groups: dict[Any, list[Seen]] = defaultdict(list)
    for seen in topics:
        levels = seen.levels
        kept = [level for at, level in enumerate(levels) if at - len(levels) not in places]
        groups[len(levels), *(kept if places else (levels[0], levels[-1]))].append(seen)
    for group in groups.values():
        if places:
            template = [*group[0].levels]
            for place, plate in places.items():
                template[place] = f"{{{context.names.plate(plate)}}}"
            topic, literals = "/".join(template), [level for level in template if level[0] != "{"]
        else:
            topic, literals = context.names.pattern([seen.levels for seen in group])
        context.add(name(literals), {"mqtt": topic} | dict(options), group, note)


GATEWAYS: Final = (sparkplug, zigbee2mqtt, tasmota, shelly, shelly1, states, sphere)
"""In the order in which they are asked."""
