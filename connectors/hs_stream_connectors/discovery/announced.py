"""What gateways say of their readings: kinds and units.

1. A description for Home Assistant (``homeassistant/<component>/.../config``) names the topic of a state, where in its
   payload the state is, its unit and its state class. Zigbee2mqtt, ESPHome, Shelly and Tasmota send them when asked to.
2. ``<base>/bridge/devices`` of zigbee2mqtt names the properties of each device, and their units.
3. What a gateway says of no topic of a source, or differently of two, is not known.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from hs_stream.core.kinds import UNKNOWN, Kind, Meaning, is_unit
from hs_stream_connectors.discovery.payloads import decoded, objects
from hs_stream_connectors.discovery.survey import Seen

__all__ = ["Announced", "announced", "meaning_of"]

Announced = Mapping[str, Mapping[tuple[str, ...], Meaning]]
"""By topic, and by the path in its payload; the empty path is the payload itself."""

_KINDS: Final[Mapping[str, Kind]] = {
    "measurement": "state",
    "measurement_angle": "state",
    "total": "counter",
    "total_increasing": "counter",
}
_TOTALS: Final = frozenset({"Wh", "kWh", "MWh", "m³", "L", "gal", "ft³"})
"""Units of which a zigbee device has totals."""
_SAME: Final = r"(?:\|\s*(?:float|int|round|default|is_defined)\s*(?:\([^()]*\)\s*)?)*"
"""What leaves a number in its unit."""
_BARE: Final = re.compile(rf"\{{\{{\s*value\s*{_SAME}\}}\}}")
_KEY: Final = r"""(?:\.[A-Za-z_]\w*|\[\s*(?:'[^']+'|"[^"]+")\s*\])"""
_PATH: Final = re.compile(rf"\{{\{{\s*value_json(?P<path>{_KEY}+)\s*{_SAME}\}}\}}")
_DEEPEST: Final = 8


def announced(topics: Iterable[Seen]) -> Announced:
    """What is said in all of ``topics``."""
    found: dict[str, dict[tuple[str, ...], Meaning]] = defaultdict(dict)
    for seen in topics:
        levels = seen.levels
        if levels[0] == "homeassistant" and levels[-1] == "config" and len(levels) > 2:
            for item in objects(list(seen.samples)[-1:]):
                for topic, path, meaning in _described(item, levels[1]):
                    _note(found[topic], path, meaning)
        elif levels[-2:] == ["bridge", "devices"] and seen.samples:
            devices = decoded(seen.samples[-1])
            for device in devices if isinstance(devices, list) else []:
                name, definition = _field(device, "friendly_name"), _field(device, "definition")
                if isinstance(name, str):
                    for key, meaning in _exposed(_field(definition, "exposes"), 0):
                        _note(found[f"{'/'.join(levels[:-2])}/{name}"], (key,), meaning)
    return found


def meaning_of(said: Announced, topics: Iterable[str], path: tuple[str, ...]) -> Meaning:
    """That of what stands at ``path`` in the payloads of ``topics``, where nothing contradicts it."""
    found = [meaning for topic in topics if (meaning := said.get(topic, {}).get(path)) is not None]
    return found[0] if found and all(one == found[0] for one in found) else UNKNOWN


def _note(paths: dict[tuple[str, ...], Meaning], path: tuple[str, ...], meaning: Meaning) -> None:
    """Two descriptions of one value, such as on and off of a switch, say what both say."""
    before = paths.get(path)
    if before is not None and before != meaning:
        kind = before.kind if before.kind == meaning.kind else None
        meaning = Meaning(kind, before.unit if before.unit == meaning.unit else None)
    paths[path] = meaning


def _field(item: Any, *names: str) -> Any:
    return next((item[name] for name in names if name in item), None) if isinstance(item, dict) else None


def _unit(text: Any) -> str | None:
    """A unit as a workflow file takes it."""
    return text if isinstance(text, str) and is_unit(text) else None


def _described(item: dict[str, Any], component: str) -> Iterator[tuple[str, tuple[str, ...], Meaning]]:
    """Home Assistant's words may be shortened, and ``~`` is the base of topics."""
    topic = _field(item, "state_topic", "stat_t")
    if not isinstance(topic, str) or component not in ("sensor", "binary_sensor"):
        return
    base = item.get("~")
    if isinstance(base, str):
        topic = base + topic[1:] if topic.startswith("~") else topic.removesuffix("~") + base * topic.endswith("~")
    path = _path(_field(item, "value_template", "val_tpl"))
    if path is None:
        return
    state = _field(item, "state_class", "stat_cla")
    kind = "state" if component == "binary_sensor" else _KINDS.get(state) if isinstance(state, str) else None
    meaning = Meaning(kind, _unit(_field(item, "unit_of_measurement", "unit_of_meas")))
    if meaning:
        yield topic, path, meaning


def _path(template: Any) -> tuple[str, ...] | None:
    """Where a template takes the state from; ``None`` where it does more than that."""
    if template is None or (isinstance(template, str) and _BARE.fullmatch(template.strip())):
        return ()
    found = _PATH.fullmatch(template.strip()) if isinstance(template, str) else None
    return None if found is None else tuple(key.strip(".[]'\" ") for key in re.findall(_KEY, found["path"]))


def _exposed(exposes: Any, depth: int) -> Iterator[tuple[str, Meaning]]:
    for item in exposes if isinstance(exposes, list) and depth < _DEEPEST else []:
        key, unit = _field(item, "property"), _unit(_field(item, "unit"))
        if isinstance(key, str) and _field(item, "type") == "numeric" and unit is not None:
            yield key, Meaning("counter" if unit in _TOTALS else "state", unit)
        elif isinstance(key, str) and _field(item, "type") == "binary":
            yield key, Meaning("state")
        else:
            yield from _exposed(_field(item, "features"), depth + 1)
