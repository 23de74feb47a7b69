"""What the devices of a simulated house send, and what must become of it. Pure: no clock, no network.

Every value depends on ``(seed, device, time)`` only, so two runs over the same time send the same values.

=========  ====================================  =====================================================================
source     topic                                 payload
=========  ====================================  =====================================================================
climate    ``home/{house}/{room}/climate``       JSON ``{"ts": ms, "temperature", "humidity"}``
motion     ``zigbee2mqtt/{house}/{room}``        zigbee2mqtt object with ``last_seen`` and cached properties
co2        ``home/{house}/{room}/co2``           a bare number, timed by its arrival
power      ``home/{house}/power``                MessagePack ``{"ts": ms, "watts"}``
=========  ====================================  =====================================================================

And what goes wrong in a house: a room is silent for a minute now and then; a message comes twice; a value is corrected
a moment later; the gateway of the last room sends its readings late, as one array; the sensor in the garden is an hour
ahead; a payload is cut off.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.time import format_time

__all__ = ["HOUSE_SOURCES", "Outgoing", "SimulatedHouse"]

HOUSE_SOURCES: Final[Mapping[str, Mapping[str, Any]]] = {
    "climate": {
        "mqtt": "home/{house}/{room}/climate",
        "codec": "json",
        "time": {"field": "ts", "unit": "ms"},
        "fields": ["temperature", "humidity"],
    },
    "motion": {"mqtt": "zigbee2mqtt/{house}/{room}", "codec": "zigbee2mqtt", "fields": ["occupancy", "illuminance"]},
    "co2": {"mqtt": "home/{house}/{room}/co2", "codec": "number", "time": "arrival"},
    "power": {"mqtt": "home/{house}/power", "codec": "msgpack", "time": {"field": "ts", "unit": "ms"}},
}
"""The sources as a workflow file names them."""

_PERIODS: Final = {"climate": 5_000, "motion": 10_000, "co2": 10_000, "power": 2_000}
_LATE_FLUSH: Final = 30_000
_AHEAD: Final = 3_600_000
_DAY: Final = 86_400_000
_BATCH: Final = 100


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message. ``readings`` good ones are in it, ``instances`` of them new; ``dead``: dead letters by reason."""

    source: str
    topic: str
    payload: bytes
    readings: int = 0
    instances: int = 0
    dead: Mapping[str, int] = field(default_factory=dict)


class SimulatedHouse:
    """One house. ``speed`` makes every device report so many times more often."""

    def __init__(self, house: str, rooms: Sequence[str], seed: int, speed: float) -> None:
        if not rooms or len(set(rooms)) != len(rooms) or "garden" in rooms:
            raise ConfigurationError(f"the rooms {list(rooms)} need different names, and the garden is there already")
        if not 0 < speed <= 1000:
            raise ConfigurationError(f"a speed of {speed} is not possible", hint="write a number up to 1000")
        self.house, self.rooms, self._seed = house, tuple(rooms), seed
        self._late_room = rooms[-1] if len(rooms) > 1 else ""
        self._periods = {source: max(round(period / speed), 1) for source, period in _PERIODS.items()}
        self._flush = max(round(_LATE_FLUSH / speed), 1)
        self._flushed: int | None = None

    def period(self, source: str) -> int:
        """Milliseconds between two readings of a device of ``source``."""
        return self._periods[source]

    # --- signals ---

    def chance(self, *what: object) -> float:
        """A number in [0, 1) that depends on the seed and on ``what`` only."""
        text = "/".join(map(str, (self._seed, self.house, *what)))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest()) / (1 << 56)

    def _noise(self, *what: object) -> float:
        return self.chance(*what, 1) + self.chance(*what, 2) - 1.0

    def _day(self, time: int, peak_hour: float) -> float:
        return math.cos(2 * math.pi * (time / _DAY - peak_hour / 24))

    def climate(self, room: str, time: int) -> dict[str, Any]:
        """Warmest at 16 h UTC; every room has its own level."""
        base = 19.5 + 4 * self.chance(room, "level")
        temperature = base + 2.5 * self._day(time, 16) + 0.15 * self._noise(room, "t", time)
        humidity = 55 - 1.8 * (temperature - 20) + 0.6 * self._noise(room, "h", time)
        return {"ts": time, "temperature": round(temperature, 2), "humidity": round(humidity, 1)}

    def motion(self, room: str, time: int) -> dict[str, Any]:
        """Somebody is there for whole quarters of an hour, more often in the evening."""
        there = self.chance(room, "there", time // 900_000) < 0.25 + 0.2 * self._day(time, 20)
        light = max(0.0, 300 * self._day(time, 13)) + (120 if there else 0) + 5 * self.chance(room, "l", time)
        seen = format_time(time)
        return {"battery": 97, "illuminance": round(light), "last_seen": seen, "linkquality": 120, "occupancy": there}

    def co2(self, room: str, time: int) -> int:
        """ppm, around a slow wave."""
        return round(620 + 220 * math.sin(time / 1_700_000 + self.chance(room)) + 12 * self._noise(room, "co2", time))

    def power(self, time: int) -> dict[str, Any]:
        """A base load, and a kettle in some minutes."""
        kettle = 2000 if self.chance("kettle", time // 60_000) < 0.06 else 0
        return {"ts": time, "watts": round(180 + 60 * self._day(time, 19) + kettle + 8 * self._noise("power", time), 1)}

    # --- messages ---

    def history(self, start: int, end: int) -> Iterator[Outgoing]:
        """What devices with a memory send at once for ``(start, end]``: batches, without any mishap."""
        for room in self.rooms:
            topic = f"home/{self.house}/{room}/climate"
            items = [self.climate(room, time) for time in self._times("climate", start, end)]
            yield from _batches("climate", topic, items, msgspec.json.encode)
            for time in self._times("motion", start, end):
                payload = msgspec.json.encode(self.motion(room, time))
                yield Outgoing("motion", f"zigbee2mqtt/{self.house}/{room}", payload, 1, 1)
        items = [self.power(time) for time in self._times("power", start, end)]
        yield from _batches("power", f"home/{self.house}/power", items, msgspec.msgpack.encode)

    def live(self, start: int, end: int) -> Iterator[Outgoing]:
        """What the devices send in ``(start, end]``. Calls must follow one another without a gap."""
        if self._flushed is None:
            self._flushed = start
        for room in self.rooms:
            yield from self._live_room(room, start, end)
        for time in self._times("power", start, end):
            payload = msgspec.msgpack.encode(self.power(time))
            yield Outgoing("power", f"home/{self.house}/power", payload, 1, 1)
        for time in self._times("climate", start, end):
            item = self.climate("garden", time) | {"ts": time + _AHEAD}
            topic = f"home/{self.house}/garden/climate"
            yield Outgoing("climate", topic, msgspec.json.encode(item), dead={"future": 1})
        if end // self._flush > start // self._flush:
            yield from self.flush(end)

    def flush(self, end: int) -> Iterator[Outgoing]:
        """The backlog of the late gateway up to ``end``."""
        start, self._flushed = self._flushed, end
        if self._late_room and start is not None:
            items = [self.climate(self._late_room, time) for time in self._times("climate", start, end)]
            topic = f"home/{self.house}/{self._late_room}/climate"
            yield from _batches("climate", topic, items, msgspec.json.encode)

    def _live_room(self, room: str, start: int, end: int) -> Iterator[Outgoing]:
        if room != self._late_room:
            for time in self._times("climate", start, end):
                if self.chance(room, "gap", time // 60_000) >= 0.03:
                    yield from self._climate_messages(room, time)
        for time in self._times("motion", start, end):
            payload = msgspec.json.encode(self.motion(room, time))
            yield Outgoing("motion", f"zigbee2mqtt/{self.house}/{room}", payload, 1, 1)
        for time in self._times("co2", start, end):
            yield Outgoing("co2", f"home/{self.house}/{room}/co2", str(self.co2(room, time)).encode(), 1, 1)

    def _climate_messages(self, room: str, time: int) -> Iterator[Outgoing]:
        topic, item, mishap = (
            f"home/{self.house}/{room}/climate",
            self.climate(room, time),
            self.chance(room, "x", time),
        )
        payload = msgspec.json.encode(item)
        if mishap < 0.01:
            yield Outgoing("climate", topic, payload[:-9], dead={"json": 1})
        if 0.01 <= mishap < 0.02:
            yield Outgoing("climate", topic, msgspec.json.encode(item | {"temperature": 85.0}), 1, 1)
            yield Outgoing("climate", topic, payload, 1, 0)
            return
        yield Outgoing("climate", topic, payload, 1, 1)
        if 0.02 <= mishap < 0.04:
            yield Outgoing("climate", topic, payload, 1, 0)

    def _times(self, source: str, start: int, end: int) -> range:
        period = self._periods[source]
        return range((start // period + 1) * period, end + 1, period)


def _batches(source: str, topic: str, items: list[dict[str, Any]], encode: Any) -> Iterator[Outgoing]:
    for first in range(0, len(items), _BATCH):
        part = items[first : first + _BATCH]
        yield Outgoing(source, topic, encode(part), len(part), len(part))
