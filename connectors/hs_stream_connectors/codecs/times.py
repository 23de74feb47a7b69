"""Where the time of a reading is in a payload, and how it is written there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final, Literal, cast, get_args
from zoneinfo import ZoneInfo

from hs_stream.core.clocks import rolled_over
from hs_stream.core.errors import ConfigurationError, PayloadError
from hs_stream.core.time import format_time, from_ms, to_ms, zone
from hs_stream_connectors.codecs.local import Twice, by_arrival, passes, twice_error

__all__ = ["ARRIVAL", "TimeSpec", "is_date"]

Unit = Literal["ms", "s", "us", "ns", "iso"]

_FIRST: Final = to_ms(datetime(1, 1, 2, tzinfo=UTC))
_LAST: Final = to_ms(datetime(9999, 12, 30, tzinfo=UTC))
_LIKELY: Final = to_ms(datetime(2000, 1, 1, tzinfo=UTC)), to_ms(datetime(2100, 1, 1, tzinfo=UTC))
"""When a number that is far off in its unit would be a reading in another one."""
_PER_MS: Final = {"us": 1_000, "ns": 1_000_000}
_PER_SECOND: Final = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_LONGEST_DATE: Final = 10
_TIME_HINT: Final = "write for example {field: ts, unit: ms}, {field: Time, unit: iso, zone: Europe/Berlin} or arrival"


@dataclass(frozen=True, slots=True)
class TimeSpec:
    """Where the event time of a reading is.

    ``field`` is the key of it, ``None`` for the arrival. ``unit`` is that of a number (also of one sent as text) since
    the Unix epoch; what is finer than a millisecond is cut off towards the past. A text is ISO 8601; with ``unit: iso``
    nothing else is allowed. A text without an offset needs ``zone``, and is read as `codecs.local` says.
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

    def instant(
        self,
        raw: Any,
        earliest: int,
        arrival: int | None = None,
        retained: bool = False,
        known: int | None = None,
    ) -> int:
        """Milliseconds since the epoch of a field's content. `PayloadError`: ``time_invalid``, ``before_earliest``.

        Which pass of an hour that occurs twice is meant is ``known`` from elsewhere, or told by the ``arrival`` of the
        message and whether it is ``retained``.
        """
        time = raw if type(raw) is int and self.unit == "ms" else self.read(raw, None if retained else arrival)
        if not isinstance(time, int):
            time = known if known is not None else self._pass(str(raw), time, arrival, retained)
        if not earliest <= time <= _LAST:
            self._check(raw, time)
            raise PayloadError("before_earliest", self._too_early(raw, time, earliest, arrival))
        return time

    def read(self, raw: Any, arrival: int | None = None) -> int | Twice:
        """Milliseconds since the epoch of a field's content, or both where a local time occurs twice.

        `PayloadError` with ``time_invalid``; where a local time does not exist, the ``arrival`` of a live message helps
        to say which zone it is of.
        """
        if isinstance(raw, str):
            found = self._from_text(raw, arrival)
        elif isinstance(raw, (int, float)) and not isinstance(raw, bool):
            found = self._from_number(raw)
        elif isinstance(raw, datetime) and raw.tzinfo is not None:
            found = to_ms(raw)
        else:
            raise self._invalid(raw, "is neither a number nor a text")
        self._check(raw, found if isinstance(found, int) else found[0])
        return found

    def _check(self, raw: Any, time: int) -> None:
        if not _FIRST <= time <= _LAST:
            raise self._invalid(raw, f"is not in the years 1 to 9999; {self._other_unit(raw) or 'is the unit right?'}")

    def _pass(self, text: str, found: Twice, arrival: int | None, retained: bool) -> int:
        time = None if retained or arrival is None else by_arrival(found, arrival)
        if time is None:
            kind = "retained message" if retained else "message this late"
            raise twice_error(text, found, f"a {kind} may be of either", "let the device send UTC")
        return time

    def _too_early(self, raw: Any, time: int, earliest: int, arrival: int | None) -> str:
        question = self._other_unit(raw)
        if not question and arrival is not None and rolled_over(time, arrival):
            question = "1024 weeks later is about now, so the week number of a GPS receiver has rolled over"
        if not question:
            year = f"{from_ms(time).year:04d}-01-01T00:00:00Z"
            question = f"is the device's clock set? If this is history, write earliest: {year} at the source"
        return f"the time {format_time(time)} is before {format_time(earliest)}; {question}"

    def _other_unit(self, raw: Any) -> str:
        """A question, where ``raw`` is a likely time in another unit: seconds read as milliseconds are 1970."""
        number = _number(raw) if isinstance(raw, str) else raw
        if self.unit == "iso" or isinstance(number, bool) or not isinstance(number, (int, float)):
            return ""
        for unit, per_second in _PER_SECOND.items():
            time = number * 1000 // per_second
            if unit != self.unit and _LIKELY[0] <= time < _LIKELY[1]:
                return f"or is time.unit {unit}? It would be {format_time(int(time))}"
        return ""

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

    def _from_text(self, raw: str, arrival: int | None) -> int | Twice:
        if self.unit != "iso":
            number = _number(raw)
            if number is not None:
                return self._from_number(number)
        try:
            text = raw.strip()
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is None:
                if self.zone is None:
                    raise self._invalid(raw, "has no offset; send it with Z or +01:00, or configure `zone`")
                return passes(moment, text, self.zone, day=is_date(text), arrival=arrival, key="zone: ")
            return to_ms(moment)
        except (ValueError, OverflowError):
            raise self._invalid(raw, "is not an ISO 8601 time") from None

    def _invalid(self, raw: object, why: str) -> PayloadError:
        return PayloadError("time_invalid", f"the time in {self.field!r}, {repr(raw)[:60]}, {why}")


def is_date(text: str) -> bool:
    """Whether an ISO 8601 text has a date and no time of day."""
    if len(text) > _LONGEST_DATE:
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


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
