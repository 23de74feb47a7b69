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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from hs_stream.core.clocks import fixed_zone, offset_near
from hs_stream.core.time import to_ms
from hs_stream_connectors.codecs.states import Shelly1Codec
from hs_stream_connectors.codecs.zigbee2mqtt import Zigbee2MqttCodec
from hs_stream_connectors.discovery.announced import Announced, meaning_of
from hs_stream_connectors.discovery.examples import COUNT, MEAN, Example, choose, is_averaged, nodes_of
from hs_stream_connectors.discovery.patterns import Names, word
from hs_stream_connectors.discovery.payloads import decoded, objects
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
_REPORTING: Final = frozenset(
    {"sensor", "binary_sensor", "switch", "light", "fan", "cover", "lock", "input_boolean", "device_tracker"}
)
_MOST_PATTERNS: Final = 50


@dataclass(slots=True)
class Found:
    """A source: its options, the topics that it reads, its nodes, which of them is published, and what to say."""

    name: str
    options: dict[str, Any]
    topics: tuple[str, ...]
    nodes: dict[str, dict[str, Any]]
    published: str
    note: str


@dataclass(slots=True)
class Context:
    """What the functions share.

    ``zone``: of Tasmota devices, if it is known. ``read``: what others read already. ``announced``: what
    gateways say of values.
    """

    names: Names
    zone: str | None = None
    read: Sequence[TopicTemplate] = ()
    announced: Announced = field(default_factory=dict)
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
        numbers: Iterable[str] = (),
        example: Example | None = None,
    ) -> None:
        """A source, unless others read all that was heard of its ``topics``; see `nodes_of`."""
        read = tuple(seen.topic for seen in topics)
        if topics and all(map(self.is_known, topics)):
            self.known.update(read)
        else:
            name = self.names.source(name)
            meaning = partial(meaning_of, self.announced, read)
            options = options | meaning(()).said()
            nodes, published = nodes_of(name, numbers, example, self.names, meaning)
            if "zone" in options and any(one.note == note for one in self.found):
                note = ""
            self.found.append(Found(name, options, read, nodes, published, note))


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
        context.add("sparkplug_device", {"mqtt": topic, "codec": "sparkplug", "bind": bind}, part, example=COUNT)
    if kinds & {"NBIRTH", "NDATA"}:
        part = [seen for seen in mine if len(seen.levels) == 4]
        options = {"mqtt": topic, "codec": "sparkplug", "bind": {"metric": "name"}}
        context.add("sparkplug_node", options, part, example=COUNT)
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
        items = [item for seen in devices for item in objects(seen.samples)]
        note = "" if any("last_seen" in item for item in items) else "set last_seen in zigbee2mqtt, see the guide"
        context.add("zigbee", options, devices, note, example=_mean(choose(items)))
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
    for place in (-2, -3, None):  # the device after the prefix (the default), before it, or somewhere
        part = [seen for seen in (*telemetry, *powers) if _device_at(seen.levels) == place]
        places: dict[int, str] = {} if place is None else {place: "tasmota_device"}
        _by_pattern(
            part,
            context,
            lambda levels: f"tasmota_{levels[-1]}",
            places,
            {"codec": "tasmota", "zone": zone},
            note,
            _tasmota_example,
        )
    devices = {_without(seen.levels) for seen in (*telemetry, *powers)}
    return [seen for seen in topics if _PREFIXES & set(seen.levels) and _without(seen.levels) in devices]


def _tasmota_example(topics: Sequence[Seen]) -> Example | None:
    last = topics[0].levels[-1]
    if last == "SENSOR":
        return _mean(choose((item for seen in topics for item in objects(seen.samples)), 2))
    return COUNT if _POWER.fullmatch(last) else None


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
            offset = offset_near(to_ms(local) - seen.arrival)
            name = None if offset is None else fixed_zone(offset)
            if name is not None:
                return name, hint
    return "UTC", hint


def shelly(topics: Sequence[Seen], context: Context) -> list[Seen]:
    mine = [
        seen
        for seen in topics
        if seen.levels[-2:] == ["events", "rpc"] and any("params" in item for item in objects(seen.samples))
    ]
    bind = {"component": "component", "property": "property"}
    if mine:
        context.names.plate("shelly")
        context.names.plate("component")
        context.names.plate("property")
        options = {"codec": "shelly", "bind": bind}
        _by_pattern(mine, context, lambda _: "shelly", {-3: "shelly"}, options, example=_shelly_example)
    prefixes = tuple(seen.topic.removesuffix("events/rpc") for seen in mine)
    return [seen for seen in topics if prefixes and seen.topic.startswith(prefixes)]


def _shelly_example(topics: Sequence[Seen]) -> Example | None:
    """A mean of one property of the components that there may be several of, such as ``switch:0``."""
    parts = (
        item["params"] for seen in topics for item in objects(seen.samples) if isinstance(item.get("params"), dict)
    )
    path = choose(part for params in parts for name, part in params.items() if ":" in name and isinstance(part, dict))
    return replace(MEAN, part=("property", ".".join(path))) if path else None


def shelly1(topics: Sequence[Seen], context: Context) -> list[Seen]:
    mine = [seen for seen in topics if seen.levels[0] == "shellies"]
    codec = Shelly1Codec.make({})
    groups: dict[str, list[Seen]] = defaultdict(list)
    for seen in mine:
        if len(seen.levels) > 2 and codec.is_reading(seen.levels, b""):
            groups["/".join(_channels(seen.levels[2:]))].append(seen)
    if len(groups) > _MOST_PATTERNS:
        groups = {"{quantity#}": [seen for group in groups.values() for seen in group]}
    for rest, group in groups.items():
        options = {"mqtt": f"shellies/{{{context.names.plate('shelly1')}}}/{rest}", "codec": "shelly1"}
        for plate in TopicTemplate(options["mqtt"]).names:
            context.names.plate(plate)
        words = [level for level in rest.split("/") if level[:1] != "{"]
        example = None if rest.endswith("#}") else _mean_of_values(words[-1:], group)
        context.add("_".join(("shelly1", *words)), options, group, example=example)
    return mine


def _channels(levels: Iterable[str]) -> Iterator[str]:
    """``relay/0/power`` as ``relay/{relay}/power``: a number is the channel of what stands before it."""
    plate, used = "channel", set()
    for level in levels:
        if not level.isdecimal():
            plate = word(level) or "channel"
            yield level
        else:
            while plate in used or plate == "shelly1":
                plate += "_channel"
            used.add(plate)
            yield f"{{{plate}}}"


def _mean(path: tuple[str, ...]) -> Example | None:
    return replace(MEAN, path=path) if path else None


def _mean_of_values(words: Iterable[str], topics: Iterable[Seen]) -> Example | None:
    """A mean where each payload is a number, and not a counter by the ``words`` of the topic."""
    samples = [sample for seen in topics for sample in seen.samples]
    return MEAN if samples and all(map(is_averaged, words)) and all(map(_is_number, samples)) else None


def _is_number(payload: bytes) -> bool:
    value = decoded(payload)
    return isinstance(value, (int, float)) and not isinstance(value, bool)


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
                example = COUNT if domain in _REPORTING else None
                context.add(f"ha_{domain}", {"mqtt": topic, "codec": "statestream"}, part, example=example)
        taken += below
    for component in sorted({seen.levels[-3] for seen in esphome}):
        part = [seen for seen in esphome if seen.levels[-3] == component]
        _by_pattern(
            part,
            context,
            lambda levels: f"esphome_{levels[-2]}",
            {-4: "esphome_node", -2: "esphome_name"},
            {"codec": "esphome"},
            example=_esphome_example,
        )
    return taken


def _esphome_example(topics: Sequence[Seen]) -> Example | None:
    return _mean_of_values([], topics) if topics[0].levels[-3] == "sensor" else None


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
    _by_pattern(
        mine, context, lambda levels: f"sphere_{levels[-1]}" if levels else "sphere", {}, options, "", _sphere_example
    )
    return mine


def _sphere_example(topics: Sequence[Seen]) -> Example | None:
    entries = (entry for seen in topics for item in objects(seen.samples) for entry in item["e"])
    named = (entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("n"), str))
    return _mean(choose({entry["n"]: entry.get("v")} for entry in named))


def _by_pattern(
    topics: Iterable[Seen],
    context: Context,
    name: Callable[[list[str]], str],
    places: Mapping[int, str],
    options: Mapping[str, Any],
    note: str = "",
    example: Callable[[Sequence[Seen]], Example | None] = lambda _: None,
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
        context.add(name(literals), {"mqtt": topic} | dict(options), group, note, example=example(group))


GATEWAYS: Final = (sparkplug, zigbee2mqtt, tasmota, shelly, shelly1, states, sphere)
"""In the order in which they are asked."""
