"""Published nodes as entities of Home Assistant, by its MQTT discovery.

::

    publish:                                # in a workflow file
      smooth: {homeassistant: {device_class: temperature, unit_of_measurement: "°C"}}
      too_hot: {homeassistant: {component: binary_sensor, device_class: heat, expire_after: 10m}}

1. Every stream of such a node is one entity. Its description is retained at
   ``homeassistant/<component>/<unique id>/config``, its state at ``homeassistant/<component>/<unique id>/state``.
2. The state is the value of the newest instance and of nothing else: a late reading and a correction of an older
   instance never become the current state. A retraction of the newest one is ``None`` (unknown).
3. An entity is available while ``<prefix>/status`` is ``online``. With ``expire_after`` it is unavailable when no newer
   instance came for so long.
4. Descriptions and states are sent when we connect, when they change, and again when Home Assistant says ``online`` on
   ``homeassistant/status``.
5. A description of ours that is still retained and belongs to no stream any more is removed. Ours are those whose
   availability is our status topic.
6. What is sent follows from what is stored: nothing needs to be remembered over a crash.
7. Where it is not given, ``unit_of_measurement`` is the unit of the node's values, and ``state_class`` follows from
   their kind, as far as they are known and go with ``device_class``.
8. Whatever others retain below ``homeassistant`` is theirs: what is longer than `_LONGEST_CONFIG` or cannot be read is
   left alone. What a broker will not have of us is counted and left out; the others go on.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import re
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from hs_stream.core.errors import ConfigurationError, PayloadError, did_you_mean
from hs_stream.core.kinds import NO_UNIT, UNKNOWN, Meaning
from hs_stream.core.stream import StreamId
from hs_stream.core.time import parse_duration
from hs_stream.core.value import Value
from hs_stream.engine.ports import Publication, PublishedStream
from hs_stream_connectors.codecs.objects import load_json
from hs_stream_connectors.mqtt.client import ClientStatistics
from hs_stream_connectors.mqtt.homeassistant_classes import DEVICE_CLASSES, STATE_CLASSES, STATE_CLASSES_OF, UNITS
from hs_stream_connectors.mqtt.options import MqttOptions
from hs_stream_connectors.mqtt.outgoing import Outgoing, Refusal
from hs_stream_connectors.mqtt.packets import Message
from hs_stream_connectors.mqtt.topics import COMPONENTS, HOMEASSISTANT, OURS

__all__ = ["ORIGIN", "Entity", "HomeAssistant", "check_homeassistant", "doubts_of_entity", "state_text"]

logger = logging.getLogger(__name__)

ORIGIN: Final = "hs-stream"
"""Who a description is from, as it says."""
_BIRTH: Final = f"{HOMEASSISTANT}/status"
_TEXTS: Final = (
    "name",
    "icon",
    "device_class",
    "state_class",
    "unit_of_measurement",
    "entity_category",
    "value_template",
)
_SWITCHES: Final = ("enabled_by_default", "force_update")
_KEYS: Final = ("component", *_TEXTS, *_SWITCHES, "expire_after", "suggested_display_precision")
_UNKNOWN: Final = "None"
_STATE_CLASS: Final[Mapping[str, str]] = {
    "sample": "measurement",
    "state": "measurement",
    "counter": "total_increasing",
}
"""By kind."""
_BIRTH_JITTER: Final = 1.0
_LONGEST_CONFIG: Final = 64 * 1024
"""Bytes of a description that may be ours."""
_LONGEST_STATE: Final = 64 * 1024
"""Bytes. Home Assistant itself takes states of 255 characters; a template may take one out of more."""
_WINDOW: Final = 10

_json: Final = msgspec.json.Encoder()


def check_homeassistant(options: Mapping[str, Any]) -> None:
    """``ConfigurationError`` unless ``options`` (what stands under ``homeassistant``) describe an entity."""
    for key, value in options.items():
        if key not in _KEYS:
            raise ConfigurationError(
                f"homeassistant: there is no key {key!r}", hint=did_you_mean(key, _KEYS, "the keys are")
            )
        if key == "component" and value not in COMPONENTS:
            raise ConfigurationError(
                f"homeassistant: component is {value!r}", hint=did_you_mean(str(value), COMPONENTS, "write one of")
            )
        if key in _TEXTS and not isinstance(value, str):
            raise ConfigurationError(f"homeassistant: {key} is {value!r}", hint="write a text")
        if key in _SWITCHES and not isinstance(value, bool):
            raise ConfigurationError(f"homeassistant: {key} is {value!r}", hint="write true or false")
    precision = options.get("suggested_display_precision", 0)
    if not isinstance(precision, int) or isinstance(precision, bool) or not 0 <= precision <= 20:
        raise ConfigurationError(
            f"homeassistant: suggested_display_precision is {precision!r}", hint="write a number of digits, 0 to 20"
        )
    if "expire_after" in options:
        _seconds(options["expire_after"])
    _check_classes(options, str(options.get("component", "sensor")))
    if options.get("component") == "binary_sensor" and "unit_of_measurement" in options:
        raise ConfigurationError("homeassistant: a binary_sensor has no unit_of_measurement", hint="take it out")


def _check_classes(options: Mapping[str, Any], component: str) -> None:
    state, device = options.get("state_class"), options.get("device_class")
    if state is not None and state not in STATE_CLASSES:
        raise ConfigurationError(
            f"homeassistant: there is no state_class {state!r}", hint=did_you_mean(state, STATE_CLASSES, "write one of")
        )
    if device is None:
        return
    if device in DEVICE_CLASSES[component]:
        _check_unit(options.get("unit_of_measurement"), device, component)
        return
    hint = did_you_mean(device, DEVICE_CLASSES[component], "the classes are")
    if other := [name for name, classes in DEVICE_CLASSES.items() if device in classes]:
        hint = f"it is one of a {other[0]}: add component: {other[0]}, or take another"
    raise ConfigurationError(f"homeassistant: a {component} has no device_class {device!r}", hint=hint)


def _check_unit(unit: Any, device: str, component: str) -> None:
    """A unit of something else: Home Assistant refuses the entity.

    Classes that share a unit measure the same. Of them a newer Home Assistant may take more than the table here knows.
    """
    units = UNITS.get(device)
    if component != "sensor" or unit is None or units is None or _plain_unit(unit) in units:
        return
    others = [name for name, known in UNITS.items() if _plain_unit(unit) in known]
    if others and all(set(units).isdisjoint(UNITS[name]) for name in others):
        measured = f"write {' or '.join(units)}" if units else "take unit_of_measurement out"
        raise ConfigurationError(
            f"homeassistant: a sensor of device_class {device} has no unit {unit!r}",
            hint=f"{measured}, or device_class: {' or '.join(others[:3])}",
        )


def _plain_unit(unit: str) -> str:
    """With one of the two letters that look like a micro."""
    return unit.replace("\u03bc", "\u00b5")


def doubts_of_entity(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What Home Assistant will hardly make of ``options``, which `check_homeassistant` takes: messages and hints."""
    if options.get("component", "sensor") != "sensor":
        return []
    device, unit, state = (options.get(key) for key in ("device_class", "unit_of_measurement", "state_class"))
    found = []
    units = UNITS.get(device or "")
    if unit is not None and units is not None and _plain_unit(unit) not in units:
        close = [known for known in units if known.lower() == unit.lower()]
        known = f"did you mean {close[0]}?" if close else f"it knows {', '.join(units) or 'none'}"
        found.append(
            (f"homeassistant: a sensor of device_class {device} has no unit {unit!r} that is known here", known)
        )
    states = STATE_CLASSES_OF.get(device or "")
    if state is not None and states is not None and state not in states:
        hint = f"write state_class: {' or '.join(states)}" if states else "take state_class out"
        if state == "measurement" and "total_increasing" in states:
            hint += "; for what is measured at one moment, take another device_class"
        found.append((f"homeassistant: device_class {device} goes with no state_class {state}", hint))
    return found


def _seconds(value: Any) -> int:
    try:
        milliseconds = parse_duration(value)
    except ValueError as error:
        raise ConfigurationError(f"homeassistant: expire_after: {error}") from None
    if milliseconds < 1000:
        raise ConfigurationError(
            f"homeassistant: expire_after is {value!r}", hint="write a second or more, such as 10m"
        )
    return milliseconds // 1000


def state_text(value: Value, component: str) -> str:
    """A state as Home Assistant reads it (rule 2); ``None`` is unknown."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return _UNKNOWN
    if isinstance(value, bool) and component == "binary_sensor":
        return "ON" if value else "OFF"
    if isinstance(value, str):
        return value
    return _json.encode(value).decode()


def _state(value: Value, component: str) -> str:
    """`state_text`; unknown where that is no text that Home Assistant could use."""
    try:
        text = state_text(value, component)
        return text if len(text.encode()) <= _LONGEST_STATE else _UNKNOWN
    except (ValueError, TypeError, OverflowError, RecursionError):
        return _UNKNOWN


@dataclass(frozen=True, slots=True)
class Entity:
    """One stream as an entity. ``options`` are those under ``homeassistant``; ``meaning`` is that of its values."""

    stream: StreamId
    workflow: str
    plates: tuple[str, ...]
    tool: str
    options: Mapping[str, Any]
    meaning: Meaning = UNKNOWN

    @property
    def component(self) -> str:
        """``sensor`` or ``binary_sensor``."""
        return str(self.options.get("component", "sensor"))

    @property
    def unique_id(self) -> str:
        """Letters, digits, ``_`` and ``-``, stable for as long as workflow, node and plate values keep their names."""
        return _identifier((OURS, self.workflow, self.stream.name, *self.plates))

    def topic(self, what: str) -> str:
        """The topic of its ``config`` or ``state``."""
        return f"{HOMEASSISTANT}/{self.component}/{self.unique_id}/{what}"

    def config(self, status_topic: str, version: str) -> bytes:
        """The description that is retained."""
        given = {key: value for key, value in self.options.items() if key != "component"}
        if "expire_after" in given:
            given["expire_after"] = _seconds(given["expire_after"])
        place = " ".join(self.plates)
        document: dict[str, Any] = {
            "name": self.stream.name.replace("_", " "),
            "unique_id": self.unique_id,
            "state_topic": self.topic("state"),
            "availability_topic": status_topic,
            "device": {
                "identifiers": [_identifier((OURS, self.workflow, *self.plates))],
                "name": f"{self.workflow} {place}".strip(),
                "manufacturer": "hs-stream",
                "model": f"workflow {self.workflow}",
            },
            "origin": {"name": ORIGIN, "sw_version": version},
        }
        return _json.encode(document | _measured(self.meaning, given, self.component) | given)


def _measured(meaning: Meaning, given: Mapping[str, Any], component: str) -> dict[str, str]:
    """What follows from the meaning, where it is not given: what does not go with the given ``device_class`` does not.

    An amount, such as the kWh of a day, has no state class: Home Assistant takes totals to go on.
    """
    device, found = given.get("device_class"), {}
    unit = given.get("unit_of_measurement")
    if component != "sensor" or "value_template" in given:
        return {}
    if unit is None and meaning.unit not in (None, NO_UNIT):
        units = None if device is None else UNITS.get(device)
        if units is None or _plain_unit(meaning.unit) in units:
            unit = found["unit_of_measurement"] = meaning.unit
    state = _STATE_CLASS.get(meaning.kind or "")
    # What has no unit may be no number, and then no class goes with it.
    if unit is not None and state is not None and state in STATE_CLASSES_OF.get(device or "", STATE_CLASSES):
        found["state_class"] = state
    return found


def _identifier(parts: Sequence[str]) -> str:
    plain = [re.sub(r"[^A-Za-z0-9]+", "_", part) for part in parts]
    text = "-".join(plain)
    # What is not written as it is gets a sum of what it was, so that no two are one.
    return text if list(parts) == plain else f"{text}-{zlib.crc32(repr(tuple(parts)).encode()):08x}"


class HomeAssistant:
    """Keeps Home Assistant's picture of our published streams up to date, over a connection of its own.

    Implements `hs_stream.engine.ports.Mirror`. ``newest(stream)``: the newest stored value, ``None`` if there is none.
    ``published()``: every stream that is published; those with ``homeassistant`` are announced when it begins.
    """

    name = "home assistant"

    def __init__(
        self,
        options: MqttOptions,
        *,
        prefix: str,
        version: str,
        newest: Callable[[StreamId], Awaitable[Value]],
        published: Callable[[], Iterable[PublishedStream]] | None = None,
    ) -> None:
        self._options = options
        self._status_topic = f"{prefix}/status"
        self._version = version
        self._newest = newest
        self._published = published
        self._report: Callable[[bool], None] = lambda _: None
        self._entities: dict[tuple[str, StreamId], Entity] = {}
        """By workflow and stream: two workflows may publish one stream."""
        self._topics: set[str] = set()
        self._states: dict[str, str] = {}
        self._due: dict[str, tuple[Entity | None, str]] = {}
        """What is to be sent, by topic: the newest word for each, so that it is bounded by the number of entities."""
        self._told = False
        self._news = asyncio.Event()
        self.sent = 0
        self.refused = 0
        self._outgoing = Outgoing(
            options.with_client_id(f"{options.client_id}-ha"),
            window=_WINDOW,
            max_size=2 * _LONGEST_STATE,
            connected=self._on_connected,
        )
        self._outgoing.client.set_filters([_BIRTH, f"{HOMEASSISTANT}/+/+/config"])

    def announce(self, entities: Iterable[Entity]) -> None:
        """These are all entities there are; those that were announced before and are not among them are removed."""
        wanted = {(entity.workflow, entity.stream): entity for entity in entities}
        topics = {entity.topic("config") for entity in wanted.values()}
        for topic in self._topics - topics:
            self._remove(topic)
        for key, entity in wanted.items():
            if self._entities.get(key) != entity:
                self._describe(entity)
        self._entities, self._topics, self._told = wanted, topics, True

    def observe(self, publications: Iterable[Publication]) -> None:
        """Take notice of changes that are published; those of older instances are left alone (rule 2)."""
        for item in publications:
            if "homeassistant" not in item.options or not item.newest:
                continue
            options = item.options["homeassistant"] or {}
            key = item.workflow, item.stream
            entity = self._entities.get(key)
            if entity is None:
                entity = self._entities[key] = Entity(
                    item.stream, item.workflow, item.plates, item.tool, options, item.meaning
                )
                self._topics.add(entity.topic("config"))
                self._describe(entity)
            topic = entity.topic("state")
            self._states[topic] = _state(item.change.value, entity.component)
            self._due[topic] = (entity, "state")
            self._news.set()

    async def run(self, connected: Callable[[bool], None]) -> None:
        """Stay connected until cancelled; reconnect with a bounded, jittered delay. Raises what the store raises."""
        self._report = connected
        if self._published is not None:
            self.announce(
                Entity(one.stream, one.workflow, one.plates, one.tool, one.options["homeassistant"] or {}, one.meaning)
                for one in self._published()
                if "homeassistant" in one.options
            )
        async with asyncio.TaskGroup() as group:
            group.create_task(self._outgoing.client.run(), name="home assistant: connection")
            group.create_task(self._listen(), name="home assistant: listen")
            group.create_task(self._send(), name="home assistant: send")

    def connection_statistics(self) -> ClientStatistics:
        """The live counters of the connection; read only."""
        return self._outgoing.client.statistics()

    def _on_connected(self, up: bool) -> None:
        self._report(up)
        if up:
            self._everything()

    # --- what is due ---

    def _describe(self, entity: Entity) -> None:
        for what in ("config", "state"):
            self._due[entity.topic(what)] = (entity, what)
        self._news.set()

    def _remove(self, config_topic: str) -> None:
        self._due[config_topic] = (None, "")
        self._due[config_topic.removesuffix("config") + "state"] = (None, "")
        self._news.set()

    def _everything(self) -> None:
        for entity in self._entities.values():
            self._describe(entity)
        self._news.set()

    async def _send(self) -> None:
        while True:
            while self._due:
                topic = next(iter(self._due))
                due = self._due[topic]
                payload = await self._payload(*due)
                await self._publish(topic, payload)
                # It is due until it is confirmed, unless something newer is due by now.
                if self._due.get(topic) == due and payload == await self._payload(*due):
                    del self._due[topic]
            self._news.clear()
            await self._news.wait()

    async def _publish(self, topic: str, payload: bytes) -> None:
        """Return when it is confirmed, or will not be sent."""
        done: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()
        self._outgoing.send(topic, payload, retain=True, done=lambda it: None if done.done() else done.set_result(it))
        self._outgoing.pump()
        refusal = await done
        if refusal is None:
            self.sent += 1
            return
        if not self.refused:
            logger.error("home assistant is not told: %s", refusal.message)
        self.refused += 1

    async def _payload(self, entity: Entity | None, what: str) -> bytes:
        if entity is None:
            return b""
        if what == "config":
            return entity.config(self._status_topic, self._version)
        topic = entity.topic("state")
        if topic not in self._states:
            found = _state(await self._newest(entity.stream), entity.component)
            self._states.setdefault(topic, found)
        return self._states[topic].encode()

    # --- what comes in ---

    async def _listen(self) -> None:
        while True:
            connection, messages = await self._outgoing.client.receive()
            for message in messages:
                self._heard(message)
            connection.acknowledge(messages)

    def _heard(self, message: Message) -> None:
        """Whatever stands in ``message``, nothing is raised."""
        topic, payload = message.topic.decode(errors="replace"), message.payload
        if topic == _BIRTH:
            if payload == b"online" and not message.retain:
                # Home Assistant asks for it: everybody who starts answers at the same moment.
                delay = random.uniform(0, _BIRTH_JITTER)  # noqa: S311 - jitter, no secret
                asyncio.get_running_loop().call_later(delay, self._everything)
        elif self._told and payload and self._is_lost(topic, payload):
            self._remove(topic)

    def _is_lost(self, topic: str, payload: bytes) -> bool:
        """Rule 5."""
        if topic in self._topics or len(payload) > _LONGEST_CONFIG:
            return False
        try:
            document = load_json(payload)
        except PayloadError:
            return False
        return isinstance(document, dict) and document.get("availability_topic") == self._status_topic
