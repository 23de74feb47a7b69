"""What every codec shares: reasons, options, the time of a reading, and objects and batches of them.

1. A codec turns one payload into readings ``(event time in ms, canonical value)``, or raises `PayloadError` with a
   reason from `REASONS`. Nothing else is ever raised, whatever the bytes are.
2. With a time field, an object is one reading and an array is a batch of them. An element that is no reading does not
   lose the others: `BatchError` carries both. Without ``fields`` the value is the object without its time field.
3. With ``time: arrival`` any payload is exactly one reading, at the arrival; an array is then a value. (A batch would
   put many readings on one millisecond, where only one can stay.) A retained message says nothing about when it was
   measured, so it is no reading: reason ``retained``. With a time in the payload it is one; a repeat changes nothing.
4. A time is refused when it is earlier than ``earliest`` (a device whose clock was never set) or outside of the years
   1 to 9999. Whether it lies too far in the future is decided by the engine, which has the clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol, cast, get_args
from zoneinfo import ZoneInfo

from hs_stream.core.errors import ConfigurationError, PayloadError
from hs_stream.core.time import format_time, to_ms, zone
from hs_stream.core.value import MAX_DEPTH, Value, canonical

__all__ = [
    "ARRIVAL",
    "DEFAULT_EARLIEST",
    "DEFAULT_MAX_PAYLOAD",
    "REASONS",
    "BatchError",
    "Codec",
    "CodecOptions",
    "Decoded",
    "TimeSpec",
    "to_value",
]

Decoded = list[tuple[int, Value]]
Unit = Literal["ms", "s", "us", "ns", "iso"]

REASONS: Final = frozenset(
    {
        "before_earliest",
        "csv",
        "depth",
        "encoding",
        "fields_missing",
        "future",
        "json",
        "msgpack",
        "not_finite",
        "number",
        "plate_full",
        "plate_value",
        "retained",
        "time_invalid",
        "time_missing",
        "too_large",
        "type",
        "value",
    }
)
"""Every reason of a dead letter. ``future`` and ``plate_full`` are given by the engine, ``csv`` by files."""

DEFAULT_EARLIEST: Final = 31_536_000_000  # 1971-01-01T00:00:00Z
DEFAULT_MAX_PAYLOAD: Final = 1 << 20
_FIRST: Final = to_ms(datetime(1, 1, 2, tzinfo=UTC))
_LAST: Final = to_ms(datetime(9999, 12, 30, tzinfo=UTC))
_PER_MS: Final = {"us": 1_000, "ns": 1_000_000}
_PER_SECOND: Final = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_TIME_HINT: Final = "write for example {field: ts, unit: ms}, {field: Time, unit: iso, zone: Europe/Berlin} or arrival"


class BatchError(PayloadError):
    """Some elements of a batch are no readings. ``reason`` and message are those of the first.

    ``readings`` are the good ones in their order, ``errors`` one per bad element; each message begins with its index.
    """

    def __init__(self, readings: Decoded, errors: list[PayloadError]) -> None:
        super().__init__(errors[0].reason, errors[0].message)
        self.readings = readings
        self.errors = errors


class Codec(Protocol):
    """See the module's rules."""

    @property
    def name(self) -> str:
        """The word for it in a workflow file."""

    def decode(self, topic: str, payload: bytes, arrival: int, retained: bool) -> Decoded:
        """Readings in the payload's order; an empty list when the message is no reading and no error either."""


def to_value(value: Any) -> Value:
    """``value`` in canonical form. `PayloadError` with ``depth`` or ``value``."""
    try:
        return canonical(value)
    except ValueError as error:
        deep = _deeper(value, MAX_DEPTH)
        raise PayloadError("depth" if deep else "value", f"the value{error}") from None


def _deeper(value: Any, levels: int) -> bool:
    level = [value]
    for _ in range(levels + 1):
        level = [
            child
            for item in level
            if isinstance(item, (dict, list))
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return True


# --- time ---


@dataclass(frozen=True, slots=True)
class TimeSpec:
    """Where the event time of a reading is.

    ``field`` is the key of it, ``None`` for the arrival. ``unit`` is that of a number (also of one sent as text) since
    the Unix epoch; what is finer than a millisecond is cut off towards the past. A text is ISO 8601; with ``unit: iso``
    nothing else is allowed. A text without an offset needs ``zone``; of an hour that occurs twice it means the first.
    """

    field: str | None = None
    unit: Unit = "iso"
    zone: ZoneInfo | None = None

    @classmethod
    def parse(cls, spec: object) -> TimeSpec:
        """From ``arrival``, ``{field, unit, zone}``, ``(field, unit)`` or a `TimeSpec`; else `ConfigurationError`."""
        if isinstance(spec, TimeSpec):
            return spec
        if spec is None or spec == "arrival":
            return ARRIVAL
        if isinstance(spec, Sequence) and not isinstance(spec, str) and 1 <= len(spec) <= 2:
            spec = dict(zip(("field", "unit"), spec, strict=False))
        if not isinstance(spec, Mapping) or not set(spec) <= {"field", "unit", "zone"} or "field" not in spec:
            raise ConfigurationError(f"time: {spec!r} is not understood", hint=_TIME_HINT)
        field, unit, name = spec["field"], spec.get("unit", "iso"), spec.get("zone")
        if not isinstance(field, str) or not field:
            raise ConfigurationError(f"time.field: {field!r} is not a key", hint=_TIME_HINT)
        if unit not in get_args(Unit):
            raise ConfigurationError(f"time.unit: {unit!r} is unknown", hint="write ms, s, us, ns or iso")
        try:
            where = zone(name) if name is not None else None
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"time.zone: {error}", hint="write an IANA name such as Europe/Brussels") from None
        return cls(field, cast(Unit, unit), where)

    def instant(self, raw: Any, earliest: int) -> int:
        """Milliseconds since the epoch of a field's content. `PayloadError`: ``time_invalid``, ``before_earliest``."""
        if type(raw) is int and self.unit == "ms":
            time = raw
        elif isinstance(raw, str):
            time = self._from_text(raw)
        elif isinstance(raw, (int, float)) and not isinstance(raw, bool):
            time = self._from_number(raw)
        elif isinstance(raw, datetime) and raw.tzinfo is not None:
            time = to_ms(raw)
        else:
            raise self._invalid(raw, "is neither a number nor a text")
        if not _FIRST <= time <= _LAST:
            raise self._invalid(raw, "is outside of the years 1 to 9999; is the unit right?")
        if time < earliest:
            raise PayloadError(
                "before_earliest",
                f"the time {format_time(time)} is before {format_time(earliest)}; is the device's clock set?",
            )
        return time

    def _from_number(self, raw: float) -> int:
        unit = self.unit
        if unit == "iso":
            raise self._invalid(raw, "is a number, but the time is configured as text; add `unit: ms` or `unit: s`")
        if isinstance(raw, int):
            return raw * 1000 if unit == "s" else raw // _PER_MS.get(unit, 1)
        # To whole microseconds first: 1423072260.123 s is stored as ...122999 and must not lose its millisecond.
        microseconds = raw / _PER_SECOND[unit] * 1_000_000
        if not math.isfinite(microseconds):
            raise self._invalid(raw, "is not finite")
        return round(microseconds) // 1000

    def _from_text(self, raw: str) -> int:
        if self.unit != "iso":
            number = _number(raw)
            if number is not None:
                return self._from_number(number)
        try:
            moment = datetime.fromisoformat(raw.strip())
            if moment.tzinfo is None:
                if self.zone is None:
                    raise self._invalid(raw, "has no offset; send it with Z or +01:00, or configure `zone`")
                moment = moment.replace(tzinfo=self.zone)
            return to_ms(moment)
        except (ValueError, OverflowError):
            raise self._invalid(raw, "is not an ISO 8601 time") from None

    def _invalid(self, raw: object, why: str) -> PayloadError:
        return PayloadError("time_invalid", f"the time in {self.field!r}, {repr(raw)[:60]}, {why}")


def _number(text: str) -> int | float | None:
    text = text.strip()
    if len(text) > 32 or "_" in text:
        return None
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return None


ARRIVAL: Final = TimeSpec()


# --- options, objects and batches ---


@dataclass(frozen=True, slots=True)
class CodecOptions:
    """The options that every codec takes. ``fields`` keeps only these keys; ``None`` keeps all."""

    time: TimeSpec = ARRIVAL
    fields: tuple[str, ...] | None = None
    earliest: int = DEFAULT_EARLIEST
    max_payload: int = DEFAULT_MAX_PAYLOAD

    @classmethod
    def parse(cls, codec: str, options: Mapping[str, Any]) -> CodecOptions:
        """From a workflow file's ``time fields earliest max_payload``. `ConfigurationError` names the bad one."""
        unknown = sorted(set(options) - {"time", "fields", "earliest", "max_payload"})
        if unknown:
            raise ConfigurationError(
                f"codec {codec}: unknown option {unknown[0]!r}",
                hint="the options are time, fields, earliest, max_payload",
            )
        fields = options.get("fields")
        if fields is not None:
            if isinstance(fields, str) or not isinstance(fields, Sequence) or not fields:
                raise ConfigurationError(
                    f"codec {codec}: fields is {fields!r}", hint="write a list of keys: [temperature]"
                )
            if not all(isinstance(key, str) and key for key in fields):
                raise ConfigurationError(f"codec {codec}: fields holds something else than keys: {fields!r}")
            fields = tuple(dict.fromkeys(fields))
        size = options.get("max_payload", DEFAULT_MAX_PAYLOAD)
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ConfigurationError(f"codec {codec}: max_payload is {size!r}", hint="write a number of bytes")
        return cls(TimeSpec.parse(options.get("time")), fields, _earliest(codec, options.get("earliest")), size)

    def check(self, payload: bytes, retained: bool) -> None:
        """Refuse what needs no decoding: ``too_large``, and ``retained`` where the time is the arrival."""
        if retained and self.time.field is None:
            raise retained_error()
        self.check_size(payload)

    def check_size(self, payload: bytes) -> None:
        """Refuse ``too_large``."""
        if len(payload) > self.max_payload:
            raise PayloadError(
                "too_large", f"the payload has {len(payload)} bytes; at most {self.max_payload} are allowed"
            )

    def readings(self, decoded: Any, arrival: int) -> Decoded:
        """The readings of a decoded object, batch or (with arrival time) bare value. See the module's rules 2 and 3."""
        if type(decoded) is list and self.time.field is not None:
            return self._batch(decoded, arrival)
        return [self.reading(decoded, arrival)]

    def reading(self, item: Any, arrival: int) -> tuple[int, Value]:
        """One reading. ``item`` may be changed."""
        field = self.time.field
        if type(item) is not dict:
            if field is not None or self.fields is not None:
                wanted = f"the time field {field!r}" if field is not None else "the fields"
                raise PayloadError("type", f"the payload is {_kind(item)}, not an object, so {wanted} cannot be in it")
            return arrival, to_value(item)
        time = arrival
        if field is not None:
            try:
                raw = item[field]
            except KeyError:
                raise PayloadError("time_missing", f"the object has no {field!r}, where its time is expected") from None
            time = self.time.instant(raw, self.earliest)
        return time, to_value(self.select(item, field))

    def select(self, item: dict[str, Any], drop: str | None) -> dict[str, Any]:
        """The part of ``item`` that is the value: ``fields``, or everything but ``drop``."""
        if self.fields is None:
            if drop is not None:
                item.pop(drop, None)
            return item
        chosen = {key: item[key] for key in self.fields if key in item}
        if not chosen:
            raise PayloadError("fields_missing", f"the object has none of the fields {', '.join(self.fields)}")
        return chosen

    def _batch(self, items: list[Any], arrival: int) -> Decoded:
        good: Decoded = []
        bad: list[PayloadError] = []
        for index, item in enumerate(items):
            try:
                good.append(self.reading(item, arrival))
            except PayloadError as error:
                bad.append(PayloadError(error.reason, f"element {index}: {error.message}"))
        if bad:
            raise BatchError(good, bad)
        return good


def retained_error() -> PayloadError:
    """The error for rule 3 of the module."""
    return PayloadError("retained", "a retained message without a time of its own is a repeat of unknown age")


def _kind(item: object) -> str:
    return {list: "an array", str: "a text", bool: "a boolean", type(None): "null", bytes: "binary data"}.get(
        type(item), "a number" if isinstance(item, (int, float)) else f"a {type(item).__name__}"
    )


def _earliest(codec: str, value: object) -> int:
    if value is None:
        return DEFAULT_EARLIEST
    try:
        if isinstance(value, str):
            return to_ms(datetime.fromisoformat(value))
        if isinstance(value, (int, datetime)):
            return to_ms(value)
    except (ValueError, TypeError):
        pass
    raise ConfigurationError(f"codec {codec}: earliest is {value!r}", hint="write 1971-01-01T00:00:00Z")
