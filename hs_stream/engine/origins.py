"""In which message the newest instance of each raw stream came, and whether another one is of the same device."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, Final

__all__ = ["DEVICE_NAMES", "MOST_PAYLOAD", "Origin", "Origins", "stranger"]

Origin = tuple[str, bytes]
"""Topic and payload of a message."""

MOST_PAYLOAD: Final = 65_536
"""Bytes of a payload that a dead letter keeps, and that are looked into for a device."""
DEVICE_NAMES: Final = frozenset(
    {
        *("address", "addr", "mac", "macaddress", "ieeeaddr", "ieeeaddress", "eui", "deveui", "serial", "serialnumber"),
        *("device", "deviceid", "devicename", "devid", "friendlyname", "id", "model", "name", "node", "nodeid", "src"),
        *("sensor", "sensorid", "sensorname", "channel", "uid"),
    }
)
"""Top-level members of a JSON payload that name a device, in lower case and without ``_``, ``-`` and spaces."""
_APART: Final = str.maketrans("", "", "_- ")
_SHOWN: Final = 80
"""Characters of what a device sent that a message shows."""


def stranger(before: Origin, now: Origin, fields: Collection[str]) -> str:
    """How the message ``now`` tells that it is of another device than ``before``, and what to write; else empty.

    >>> stranger(("radio", b'{"id": 5, "t": 1}'), ("radio", b'{"id": 7, "t": 2}'), ["t"])
    'its id is 5, and here 7; give each device a stream of its own: bind: {device: id}'
    """
    if before[0] != now[0]:
        how = f"it came on {_show(before[0])}, and this on {_show(now[0])}"
        todo = f"mqtt: {_show(_template(before[0], now[0]))}"
    elif found := _named(before[1], now[1], fields):
        name, old, new = found
        how = f"its {name} is {_show(old)}, and here {_show(new)}"
        todo = f"bind: {{device: {name}}}"
    else:
        return ""
    return f"{how}; give each device a stream of its own: {todo}"


class Origins:
    """The message of the newest instance of each raw stream, the last ones within ``most`` bytes together.

    A long payload is left out, and then only the topic tells devices apart.
    """

    _LONGEST: Final = 2_048
    _EACH: Final = 128
    """Bytes that count for every entry, besides topic and payload."""

    def __init__(self, most: int = 4 << 20) -> None:
        self._most = most
        self._kept: dict[int, tuple[int, Origin, int]] = {}
        self.size = 0

    def note(self, stream: int, time: int, origin: Origin | None) -> None:
        """The newest instance of ``stream`` is at ``time``, and came in ``origin``; ``None`` where nobody knows."""
        kept = self._kept
        old = kept.pop(stream, None)
        if old is not None:
            self.size -= old[2]
        if origin is None:
            return
        topic, payload = origin
        if len(payload) > self._LONGEST:
            origin = topic, b""
        size = len(topic) + len(origin[1]) + self._EACH
        if size > 2 * self._LONGEST:
            return
        kept[stream] = time, origin, size
        self.size += size
        while self.size > self._most:
            self.size -= kept.pop(next(iter(kept)))[2]

    def get(self, stream: int, time: int) -> Origin | None:
        """The message of the instance at ``time``, if it is the newest of ``stream`` and its message is known."""
        kept = self._kept.get(stream)
        return None if kept is None or kept[0] != time else kept[1]


def _named(before: bytes, now: bytes, fields: Collection[str]) -> tuple[str, Any, Any] | None:
    """The first member that names a device in both payloads, and differently; with both of its contents."""
    old, new = _object(before), _object(now)
    for name, value in new.items():
        if name not in old or name.lower().translate(_APART) not in DEVICE_NAMES:
            continue
        if any(field == name or field.startswith(f"{name}.") for field in fields):
            continue
        if isinstance(value, (str, int)) and isinstance(old[name], (str, int)) and value != old[name]:
            return name[:_SHOWN], old[name], value
    return None


def _object(payload: bytes) -> dict[str, Any]:
    if not payload or len(payload) > MOST_PAYLOAD:
        return {}
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _template(before: str, now: str) -> str:
    """The topic of a source that tells both apart.

    >>> _template("home/hall/t", "home/attic/t"), _template("a/b", "a/c/d")
    ('home/{device}/t', 'a/{device#}')
    """
    old, new = before.split("/"), now.split("/")
    if len(old) != len(new):
        same_until = next((at for at, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]), len(old))
        return "/".join([*new[: min(same_until, len(new) - 1)], "{device#}"])
    names = iter(["{device}", *(f"{{device{number}}}" for number in range(2, len(new) + 1))])
    return "/".join([level if level == other else next(names) for level, other in zip(new, old, strict=True)])


def _show(text: object) -> str:
    return repr(text)[:_SHOWN]
