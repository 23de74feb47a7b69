"""What a payload is when no gateway is recognised: its codec, its time field, and its fields.

A topic is what most of its samples are: one cut-off payload does not make a JSON topic a text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from hs_stream.core.errors import PayloadError
from hs_stream_connectors.codecs.bare import to_number
from hs_stream_connectors.codecs.objects import load_json, load_msgpack

__all__ = ["Shape", "decoded", "objects", "shape_of"]

_TIME_KEYS: Final = (
    *("ts", "time", "timestamp", "Time", "Timestamp", "@timestamp", "datetime", "date", "last_seen", "created_at"),
    *("event_time", "eventTime", "t"),
)
# Numbers since the epoch from 2000 on, by their size.
_UNITS: Final = (("ns", 10**17), ("us", 10**14), ("ms", 10**11), ("s", 9 * 10**8))
_PER_MS: Final = {"ns": 10**-6, "us": 10**-3, "ms": 1, "s": 1000}
_AHEAD: Final = 86_400_000
_LONGEST_TEXT: Final = 256


class Shape(NamedTuple):
    """``codec`` and, for objects, ``time`` as pairs of an option and its value, and the keys in ``fields``."""

    codec: str
    time: tuple[tuple[str, str], ...] = ()
    fields: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Sample:
    kind: str
    items: tuple[dict[str, Any], ...] = ()


def decoded(payload: bytes) -> Any:
    """The JSON in ``payload``, ``None`` where it is something else."""
    try:
        return load_json(payload)
    except PayloadError:
        return None


def objects(samples: Iterable[bytes], *, msgpack: bool = False) -> list[dict[str, Any]]:
    """The JSON objects among ``samples``; with ``msgpack`` those of MessagePack too."""
    found = [decoded(sample) if not msgpack or sample[:1] < b"\x80" else _unpacked(sample) for sample in samples]
    return [item for item in found if isinstance(item, dict)]


def _unpacked(payload: bytes) -> Any:
    try:
        return load_msgpack(payload)
    except PayloadError:
        return None


def _look(payload: bytes) -> _Sample | None:
    for kind, load in (("json", load_json), ("msgpack", load_msgpack)):
        if kind == "msgpack" and payload[:1] < b"\x80":
            continue  # a text or a number, which MessagePack could read as anything
        try:
            found = load(payload)
        except PayloadError:
            continue
        items = found if isinstance(found, list) else [found]
        if items and all(isinstance(item, dict) for item in items):
            return _Sample(kind, tuple(items))
        if kind == "json" and not isinstance(found, (int, float)):
            return _Sample("json value")
    try:
        if to_number(payload) is not None:
            return _Sample("number")
        text = payload.decode()
    except (PayloadError, UnicodeDecodeError):
        return None
    return _Sample("text") if len(text) <= _LONGEST_TEXT and text.isprintable() and text[:1] not in "{[" else None


def shape_of(samples: Sequence[bytes], arrival: int) -> Shape | None:
    """What most of ``samples`` are, ``None`` where that is nothing that a codec reads."""
    looks = [look for look in map(_look, samples) if look is not None]
    if not looks or len(looks) * 2 < len(samples):
        return None
    (kind, _), *_ = Counter(look.kind for look in looks).most_common(1)
    if kind not in ("json", "msgpack"):
        return Shape("json" if kind == "json value" else kind)
    items = [item for look in looks if look.kind == kind for item in look.items]
    field, time = _time_of(items, arrival)
    if not time and any(len(look.items) > 1 for look in looks):
        return Shape(kind)  # an array without a time is one value
    keys = list(dict.fromkeys(key for item in items for key in item if key != field))
    if not all(key.isprintable() for key in keys):
        keys = []
    numbers = [key for key in keys if all(_is_number(item[key]) for item in items if key in item)]
    return Shape(kind, time, tuple(sorted(keys)), tuple(sorted(numbers)))


def _time_of(items: Sequence[dict[str, Any]], arrival: int) -> tuple[str, tuple[tuple[str, str], ...]]:
    for key in _TIME_KEYS:
        units = {_unit(item.get(key), arrival) for item in items}
        if len(units) == 1 and (unit := units.pop()) is not None:
            options = [("field", key), ("unit", unit.removesuffix(" local"))]
            if unit.endswith(" local"):
                options.append(("zone", "UTC"))
            return key, tuple(options)
    return "", ()


def _unit(raw: Any, arrival: int) -> str | None:
    if isinstance(raw, str):
        try:
            return "iso" if datetime.fromisoformat(raw.strip()).tzinfo is not None else "iso local"
        except ValueError:
            raw = int(raw) if raw.isdecimal() and len(raw) < 20 else None
    if _is_number(raw):
        for unit, least in _UNITS:
            if raw >= least:
                return unit if raw * _PER_MS[unit] <= arrival + _AHEAD else None
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
