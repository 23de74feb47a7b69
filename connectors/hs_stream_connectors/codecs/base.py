"""What every codec shares: reasons, options, and objects and batches of them. Times are in `times`.

1. A codec turns one payload into readings ``(event time in ms, canonical value)``, or raises `PayloadError` with a
   reason from `REASONS`. Nothing else is ever raised, whatever the bytes are. The time of a reading without one of its
   own is ``None``: the engine gives it its arrival, or a millisecond after the newest instance of its stream where
   that is later, so that readings that come together stay apart and in order.
2. With a time field, an object is one reading and an array is a batch of them. An element that is no reading does not
   lose the others: `BatchError` carries both. Of a message with `MOST_REFUSED` such elements or other parts what
   follows them is not looked at (``too_many``): each costs time, and a device decides how many it sends. Without
   ``fields`` the value is the object without its time field.
3. With ``time: arrival`` any payload is exactly one reading without a time of its own; an array is then a value. (As a
   batch its elements would lie one millisecond apart, which nobody measured.) A retained message says nothing about
   when it was measured, so it is no reading: reason ``retained``. With a time in the payload it is one; a repeat
   changes nothing.
4. ``bind`` takes plate values from the payload: ``bind: {device: id}`` makes a stream of each ``id``. Such a reading is
   ``(time, value, plate values)``. What is bound is not part of the value, unless ``fields`` names it.
5. A key may be a path, that of the time too: ``ENERGY.Power`` is the ``Power`` inside of ``ENERGY``, where no key is
   called so as a whole.
6. A codec of a gateway knows which topics of it are no readings at all (availability, commands, logs); for them
   `Codec.decode` returns an empty list, and for a retained repeat where the gateway retains by default.
7. A time is refused when it is earlier than ``earliest`` (a device whose clock was never set) or outside of the years
   1 to 9999. Whether it lies too far in the future is decided by the engine, which has the clock. A local time without
   an offset is read as `codecs.local` says.
8. `Codec.placing` says what the engine does with a reading at whose time another value stands already. A codec of a
   format whose messages hold parts of what happened at one time says ``MERGE``; one whose time does not move with the
   content says ``UPDATE``; one whose topics say what kind of message it is, ``REPLACE``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import islice
from typing import Any, Final, Protocol

from hs_stream.core.errors import ConfigurationError, PayloadError
from hs_stream.core.stream import Meta, check_plate_value
from hs_stream.core.time import to_ms
from hs_stream.core.value import MAX_DEPTH, Value, canonical
from hs_stream.engine.ports import Placing
from hs_stream_connectors.codecs.local import Twice, by_order
from hs_stream_connectors.codecs.times import ARRIVAL, TimeSpec

__all__ = [
    "ARRIVAL",
    "DEFAULT_EARLIEST",
    "DEFAULT_MAX_PAYLOAD",
    "MISSING",
    "MOST_REFUSED",
    "REASONS",
    "BatchError",
    "Codec",
    "CodecOptions",
    "Decoded",
    "Gathered",
    "Placing",
    "Time",
    "TimeSpec",
    "has",
    "is_command",
    "no_time",
    "pick",
    "to_value",
]

Time = int | None
"""Event time in ms; ``None`` for a reading without one of its own."""
Decoded = list[tuple[Time, Value] | tuple[Time, Value, Meta]]
"""Readings in the payload's order; with plate values where the codec binds some."""

REASONS: Final = frozenset(
    {
        "before_earliest",
        "csv",
        "depth",
        "encoding",
        "expired",
        "fields_missing",
        "future",
        "json",
        "msgpack",
        "no_birth",
        "not_finite",
        "number",
        "other_device",
        "plate_full",
        "plate_value",
        "protobuf",
        "retained",
        "time_invalid",
        "time_missing",
        "too_large",
        "too_many",
        "type",
        "value",
    }
)
"""Every reason of a dead letter.

The engine gives ``expired``, ``future``, ``other_device`` and ``plate_full``, files give ``csv``.
"""

DEFAULT_EARLIEST: Final = 1_262_304_000_000  # 2010-01-01T00:00:00Z
"""Clocks that were never set count from 1970 (Unix), 1980 (FAT, GPS) or 2000 (real-time clocks, MicroPython)."""
DEFAULT_MAX_PAYLOAD: Final = 1 << 20
_SHOWN: Final = 20
"""Fields of a payload that an error names: a device chooses how many there are, and how long they are."""
_SHOWN_LENGTH: Final = 60
_EXAMPLES: Final = 3
"""Bad parts of a message that are told of, for each reason."""
MOST_REFUSED: Final = 10_000
"""Bad parts of a message after which no more of it is looked at. An element of an array that is no object costs nothing
and is none of them."""
_PLATE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class BatchError(PayloadError):
    """Some elements of a batch are no readings. ``reason`` and message are those of the first.

    ``readings`` are the good ones in their order. ``errors``: the first few bad elements of each reason; each message
    begins with its index. ``counts``: how many bad elements there are, by reason.
    """

    def __init__(self, readings: Decoded, errors: list[PayloadError], counts: Mapping[str, int]) -> None:
        super().__init__(errors[0].reason, errors[0].message)
        self.readings = readings
        self.errors = errors
        self.counts = counts


class Codec(Protocol):
    """See the module's rules."""

    @property
    def name(self) -> str:
        """The word for it in a workflow file."""

    @property
    def plates(self) -> tuple[str, ...]:
        """The plates whose values it takes from payloads."""

    @property
    def placing(self) -> Placing:
        """Of readings with a time of their own: by rule 8."""

    def decode(self, topic: str, payload: bytes, arrival: int, retained: bool) -> Decoded:
        """Readings in the payload's order; an empty list when the message is no reading and no error either."""


class _Missing:
    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()
"""What `pick` returns for a path that an object does not have."""


def pick(item: Mapping[str, Any], path: str) -> Any:
    """What stands in ``item`` under ``path`` (rule 5), or `MISSING`.

    >>> pick({"ENERGY": {"Power": 12.5}, "a.b": 1}, "ENERGY.Power"), pick({"a.b": 1}, "a.b"), pick({}, "a.b")
    (12.5, 1, MISSING)
    """
    found = item.get(path, MISSING)
    if found is MISSING and "." in path:
        found = item
        for key in path.split("."):
            if not isinstance(found, dict) or key not in found:
                return MISSING
            found = found[key]
    return found


def _drop(item: dict[str, Any], path: str) -> None:
    """Take what `pick` finds out of ``item``."""
    keys = [path] if path in item else path.split(".")
    for key in keys[:-1]:
        found = item.get(key)
        if not isinstance(found, dict):
            return
        item = found
    item.pop(keys[-1], None)


def has(item: Mapping[str, Any], wanted: Sequence[str]) -> str:
    """The fields that ``item`` has, for an error about those that it has not.

    >>> has({"temperature": 21.5, "wifi": {"rssi": -60}}, ["temprature"])
    'it has temperature, wifi.rssi: did you mean temperature?'
    """
    return _has(tuple(islice(_paths(item, "", MAX_DEPTH), _SHOWN + 1)), tuple(wanted))


def _paths(item: Mapping[str, Any], before: str, levels: int) -> Iterator[str]:
    for key, value in item.items():
        if type(value) is dict and value and levels:
            yield from _paths(value, f"{before}{key}.", levels - 1)
        else:
            yield f"{before}{key}"[:_SHOWN_LENGTH]


@lru_cache(256)  # what a device sends without end is looked at once
def _has(names: tuple[str, ...], wanted: tuple[str, ...]) -> str:
    others = [name for name in names if name not in wanted]
    close = dict.fromkeys(near for word in wanted for near in difflib.get_close_matches(word, others, n=1))
    shown = ", ".join((*names[:_SHOWN], "...") if len(names) > _SHOWN else names)
    return f"it has {shown or 'none'}" + (f": did you mean {', '.join(close)}?" if close else "")


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


# --- options, objects and batches ---


@dataclass(frozen=True, slots=True)
class CodecOptions:
    """The options that every codec takes. ``fields`` keeps only these keys or paths; ``None`` keeps all.

    ``bind``: pairs of a plate and the key or path whose content is its value.
    """

    time: TimeSpec = ARRIVAL
    fields: tuple[str, ...] | None = None
    earliest: int = DEFAULT_EARLIEST
    max_payload: int = DEFAULT_MAX_PAYLOAD
    bind: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, codec: str, options: Mapping[str, Any], also: Sequence[str] = ()) -> CodecOptions:
        """From a workflow file's options. ``also``: further ones, which the codec reads itself.

        `ConfigurationError` names the bad one.
        """
        known = ("time", "fields", "bind", "earliest", "max_payload", *also)
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise ConfigurationError(
                f"codec {codec}: unknown option {unknown[0]!r}", hint=f"the options are {', '.join(known)}"
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
        time, earliest = TimeSpec.parse(options.get("time")), _earliest(codec, options.get("earliest"))
        return cls(time, fields, earliest, size, _bind(codec, options.get("bind")))

    @property
    def plates(self) -> tuple[str, ...]:
        """The plates in ``bind``."""
        return tuple([plate for plate, _ in self.bind])

    def bound(self, item: Mapping[str, Any]) -> Meta:
        """The plate values in ``item``. `PayloadError` with ``plate_value`` where one is missing or cannot be one."""
        return tuple([(plate, _plate_value(plate, key, item)) for plate, key in self.bind])

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

    def readings(self, decoded: Any, arrival: int, retained: bool = False) -> Decoded:
        """The readings of a decoded object, batch or (with arrival time) bare value. See the module's rules 2 and 3."""
        if type(decoded) is list and self.time.field is not None:
            return self._batch(decoded, arrival, retained)
        return [self.reading(decoded, arrival, retained)]

    def reading(
        self, item: Any, arrival: int, retained: bool = False, known: int | None = None
    ) -> tuple[Time, Value] | tuple[Time, Value, Meta]:
        """One reading; ``known`` as in `TimeSpec.instant`. ``item`` may be changed."""
        field = self.time.field
        if type(item) is not dict:
            if field is not None or self.fields is not None or self.bind:
                wanted = f"the time field {field!r}" if field is not None else "the fields"
                raise PayloadError("type", f"the payload is {_kind(item)}, not an object, so {wanted} cannot be in it")
            return None, to_value(item)
        time = None
        if field is not None:
            raw = item.get(field, MISSING)
            if raw is MISSING and (raw := pick(item, field)) is MISSING:
                raise PayloadError(
                    "time_missing", f"the object has no {field!r}, where its time is expected; {has(item, [field])}"
                )
            time = self.time.instant(raw, self.earliest, arrival, retained, known)
        return self.timed(time, item, field)

    def timed(
        self, time: Time, item: dict[str, Any], drop: str | None
    ) -> tuple[Time, Value] | tuple[Time, Value, Meta]:
        """The reading at ``time`` whose value is in ``item``, which may be changed."""
        if self.bind:
            meta = self.bound(item)
            return time, to_value(self.select(item, drop)), meta
        return time, to_value(self.select(item, drop))

    def select(self, item: dict[str, Any], drop: str | None) -> dict[str, Any]:
        """The part of ``item`` that is the value: ``fields``, or everything but ``drop`` and what is bound."""
        if self.fields is None:
            if drop is not None:
                _drop(item, drop)
            for _, key in self.bind:
                _drop(item, key)
            return item
        chosen = {key: found for key in self.fields if (found := pick(item, key)) is not MISSING}
        if not chosen:
            raise PayloadError(
                "fields_missing",
                f"the object has none of the fields {', '.join(self.fields)}; {has(item, self.fields)}",
            )
        return chosen

    def _batch(self, items: list[Any], arrival: int, retained: bool) -> Decoded:
        gathered = Gathered()
        known = self._ordered(items, arrival) if self.time.zone is not None else {}
        for index, item in enumerate(items):
            if type(item) is not dict and gathered.refused("type") >= _EXAMPLES:
                gathered.refuse_another("type")
                continue
            try:
                gathered.readings.append(self.reading(item, arrival, retained, known.get(index)))
            except PayloadError as error:
                gathered.refuse(f"element {index}", error)
        return gathered.done()

    def _ordered(self, items: list[Any], arrival: int) -> Mapping[int, int | None]:
        """By index, the times that occur twice of which the order of their stream tells the pass."""
        field, streams = self.time.field, dict[Meta, list[tuple[int, int | Twice]]]()
        for index, item in enumerate(items):
            try:
                streams.setdefault(self.bound(item), []).append((index, self.time.read(pick(item, str(field)))))
            except (PayloadError, KeyError, TypeError, AttributeError):
                continue  # `reading` says what is wrong with it
        return {
            index: time
            for found in streams.values()
            if not all(isinstance(times, int) for _, times in found)
            for (index, _), time in zip(found, by_order([times for _, times in found], arrival), strict=True)
        }


class Gathered:
    """The readings of one payload, part by part: a part that is none does not lose the others, up to `MOST_REFUSED`."""

    __slots__ = ("_counts", "_errors", "_left", "readings")

    def __init__(self) -> None:
        self.readings: Decoded = []
        self._errors: list[PayloadError] = []
        self._counts: dict[str, int] = {}
        self._left = MOST_REFUSED

    def refuse(self, part: str, error: PayloadError) -> None:
        """``part`` is no reading, because of ``error``. A device decides how many there are: few are kept.

        `BatchError` with all that came before where there are too many.
        """
        count = self._counts.get(error.reason, 0)
        self._counts[error.reason] = count + 1
        if count < _EXAMPLES:
            self._errors.append(PayloadError(error.reason, f"{part[:80]}: {error.message}"))
        self._left -= 1
        if not self._left:
            text = f"{MOST_REFUSED} parts of this message are no readings; what follows {part[:80]} was not looked at"
            self._errors.append(PayloadError("too_many", text))
            self._counts["too_many"] = 1
        if self._left <= 0:
            self.done()

    def refused(self, reason: str) -> int:
        """How many parts are none because of ``reason``."""
        return self._counts.get(reason, 0)

    def refuse_another(self, reason: str) -> None:
        """The same for a part that is told of no more and cost nothing."""
        self._counts[reason] += 1

    def done(self) -> Decoded:
        """All readings. `BatchError` when a part was none."""
        if self._errors:
            raise BatchError(self.readings, self._errors, self._counts)
        return self.readings


def no_time(codec: str, options: Mapping[str, Any], where: str) -> None:
    """`ConfigurationError` where a workflow file chooses a time although the format says ``where`` it is."""
    if options.get("time", "arrival") != "arrival":
        raise ConfigurationError(
            f"codec {codec}: time: cannot be chosen, it is {where}", hint="leave `time` out, or use codec: json"
        )


def is_command(levels: Sequence[str], words: frozenset[str]) -> bool:
    """Whether one of a topic's levels after the first says that the message is for the gateway, not from it."""
    return not words.isdisjoint(levels[1:])


def retained_error() -> PayloadError:
    """The error for rule 3 of the module."""
    return PayloadError("retained", "a retained message without a time of its own is a repeat of unknown age")


def _kind(item: object) -> str:
    return {list: "an array", str: "a text", bool: "a boolean", type(None): "null", bytes: "binary data"}.get(
        type(item), "a number" if isinstance(item, (int, float)) else f"a {type(item).__name__}"
    )


def _plate_value(plate: str, key: str, item: Mapping[str, Any]) -> str:
    raw = pick(item, key)
    if raw is MISSING:
        raise PayloadError(
            "plate_value", f"plate {plate}: {key!r} is not there, where its value is expected; {has(item, [key])}"
        )
    text = str(raw) if type(raw) is int else raw
    if not isinstance(text, str):
        raise PayloadError("plate_value", f"plate {plate}: {key!r} is {_kind(raw)}, where its value is expected")
    try:
        return check_plate_value(text)
    except ValueError as error:
        raise PayloadError("plate_value", f"plate {plate}: {error}") from None


def _bind(codec: str, bind: object) -> tuple[tuple[str, str], ...]:
    if bind is None:
        return ()
    if not isinstance(bind, Mapping) or not bind or not all(isinstance(word, str) and word for word in bind.values()):
        raise ConfigurationError(f"codec {codec}: bind is {bind!r}", hint="write bind: {PLATE: KEY}")
    for plate in bind:
        if not isinstance(plate, str) or not _PLATE.fullmatch(plate):
            raise ConfigurationError(
                f"codec {codec}: bind: {plate!r} is not a plate's name",
                hint="a plate name has letters, digits and _, and begins with a letter",
            )
    return tuple(bind.items())


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
    raise ConfigurationError(f"codec {codec}: earliest is {value!r}", hint="write 2010-01-01T00:00:00Z")
