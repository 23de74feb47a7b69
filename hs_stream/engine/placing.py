"""Which readings of a round are stored, and at which times: the rules of `hs_stream.engine.ports.Placing`.

1. Readings of a stream are placed one by one, in the order of arrival, against what is stored and what came before in
   the same round. So it does not matter how they are cut into rounds.
2. The same value at the same time changes nothing, whoever sends it.
3. ``ARRIVAL``: a reading without a time of its own is stored at its arrival, and where the newest instance of its
   stream is not before that, a millisecond after it. So these times rise strictly, over restarts and clocks that step
   back; a burst of N takes N milliseconds and may run ahead of the clock. What is final by retention is passed over.
4. ``REPLACE``: another value replaces the stored one; it is counted, as is every overwriting below.
5. ``CORRECT``: so does another value, where it may be of the same device. It is refused (``other_device``), and the
   earlier one stays, where both messages are known and came on different topics, or are JSON objects that differ in a
   member that names a device (`DEVICE_NAMES` of ``origins.py``) and is none of the source's ``fields``. Known is the
   message of the newest instance of each stream, within `Origins`, and none from before the start. So that a redelivery
   ends in the same contents, what was refused once is refused again, as far as `Placer` remembers and the newest dead
   letters tell; and what overwrites a reading whose message is not known is as unknown.
6. ``MERGE``: two objects become one, member by member, the later one winning; objects within objects too. Where no
   member differs, nothing is lost and nothing is counted. Otherwise rule 5 decides whether it is refused. (Were the
   whole object replaced then, a redelivery of the later messages would not end in the same contents.) What would grow
   beyond `MOST_MERGED` is refused (``too_large``).
7. ``UPDATE``: another value than the one at its time is a reading at its arrival (rule 3), and nothing is overwritten.
   It is a repeat, and changes nothing, where the newest instance has its value already. The value that stands at its
   time is a repeat too, unless the newest instance is such a reading of that very time, and another value: then it
   went there and back.
8. ``REPEAT``: also a repeat where any instance at or after its time has its value. ``RETAINED``: and refused where
   none has.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

from hs_stream.core.batch import Batch
from hs_stream.core.errors import PayloadError
from hs_stream.core.time import MAX_TIME, format_time
from hs_stream.core.value import Value, same
from hs_stream.engine.contents import PatientStore
from hs_stream.engine.origins import MOST_PAYLOAD, Origin, Origins, stranger
from hs_stream.engine.ports import Delivery, Placing, Reading
from hs_stream.plan.streams import Stream

__all__ = [
    "MOST_MERGED",
    "OTHER_DEVICE",
    "Came",
    "Placed",
    "Placer",
    "merge",
]

OTHER_DEVICE: Final = "other_device"
MOST_MERGED: Final = 1 << 20
"""Bytes of an object that messages are merged into, about."""
_REFUSED: Final = 5_000
"""Refused messages that are remembered."""
_LETTERS: Final = 1_000
"""Newest dead letters that are looked at once after a start, for what was refused before."""
_LATER: Final = 1_000
"""Instances later than a time among which a repeat is looked for."""

_ARRIVAL, _UPDATE, _REPEAT, _RETAINED = Placing.ARRIVAL, Placing.UPDATE, Placing.REPEAT, Placing.RETAINED
_CORRECT, _MERGE = Placing.CORRECT, Placing.MERGE
_AGED: Final = (_UPDATE, _REPEAT, _RETAINED)

Came = tuple[Reading, Delivery, int]
"""A reading of a round, which is ``delivery.readings[at]``; the delivery, and ``at``."""


def _origin(one: Came) -> Origin | None:
    """The message that a reading came in, where devices are told apart by it."""
    reading, delivery, at = one
    placing = reading.placing  # compared by identity: the hash of an Enum is a function in Python
    return delivery.origin(at) if placing is _CORRECT or placing is _MERGE else None


class Placed(NamedTuple):
    """What one round brings to one stream.

    ``times``: where its readings are, repeats included, ascending. ``contents``: what the round leaves at the times
    that it wrote to. ``stored``: what stood at some of these times before. ``overwritten``: times at which a different
    value was, once for each.
    """

    times: Sequence[int]
    contents: Batch
    stored: dict[int, Value]
    refused: Sequence[tuple[Came, PayloadError]] = ()
    overwritten: Sequence[int] = ()


class Placer:
    """Places the readings of one engine. ``fields_of`` gives the fields that a source chooses."""

    def __init__(self, store: PatientStore, fields_of: Callable[[str], Collection[str]]) -> None:
        self.store = store
        self.fields_of = fields_of
        self.origins = Origins()
        self.given: dict[int, tuple[int, int]] = {}
        """Rule 7, per stream: of the last reading that was given its arrival its own time, and the given one."""
        self._refused: OrderedDict[bytes, str] | None = None

    async def place(self, stream: Stream, came: Sequence[Came]) -> Placed:
        """By the module's rules. ``came`` are the readings of ``stream``, in the order of arrival."""
        return await _Round(self, stream).place(came)

    def place_in_order(self, stream: Stream, came: Sequence[Came]) -> Placed | None:
        """The same at once in the usual case, where each is later than everything before it; else ``None``."""
        newest = max(stream.state.frontier, stream.limit)
        times = []
        for reading, _, _ in came:
            time = reading.time
            if time <= newest:
                if reading.placing is not _ARRIVAL:
                    return None
                time = newest + 1
            times.append(time)
            newest = time
        values = [one[0].value for one in came]
        self.origins.note(stream.id, newest, _origin(came[-1]))
        return Placed(times, Batch.build(times, values), {})

    async def refused_before(self, digest: bytes) -> str:
        """Why this message was refused before (rule 5); empty where it was not."""
        if self._refused is None:
            letters = await self.store("dead_letters", self.store.store.dead_letters, _LETTERS)
            self._refused = OrderedDict(
                (_digest(letter.source, letter.topic, letter.payload), letter.message)
                for letter in reversed(letters)
                if letter.reason == OTHER_DEVICE
            )
        return self._refused.get(digest, "")

    def refuse(self, digest: bytes, why: str) -> None:
        """Remember that this message is refused."""
        if self._refused is not None:
            self._refused[digest] = why
            while len(self._refused) > _REFUSED:
                self._refused.popitem(last=False)


class _Round:
    """The readings of one stream in one round, one by one."""

    def __init__(self, placer: Placer, stream: Stream) -> None:
        self._placer = placer
        self._stream = stream
        self._newest = stream.state.frontier
        self._origin = placer.origins.get(stream.id, stream.state.frontier)
        self._stored: dict[int, Value] = {}
        self._now: dict[int, Value] = {}
        self._refused: list[tuple[Came, PayloadError]] = []
        self._overwritten: list[int] = []

    async def place(self, came: Sequence[Came]) -> Placed:
        """See `Placer.place`."""
        own = {reading.time for reading, _, _ in came if reading.placing is not _ARRIVAL}
        if earlier := sorted(time for time in own if time <= self._stream.state.frontier):
            self._stored = dict(await self._get(earlier))
        repeated = []
        for one in came:
            time, value, placing = one[0].time, one[0].value, one[0].placing
            if placing is _ARRIVAL:
                self._put(self._free(time), value, None)
            elif time in self._now or time in self._stored:
                repeated.append(time)
                await self._meet(one, self._now[time] if time in self._now else self._stored[time])
            else:
                self._put(time, value, _origin(one))
                self._heard(time, placing)
        self._placer.origins.note(self._stream.id, self._newest, self._origin)
        times = sorted({*self._now, *repeated})
        return Placed(times, Batch.of(self._now.items()), self._stored, self._refused, self._overwritten)

    async def _get(self, times: list[int]) -> Batch:
        tail, store = self._stream.tail, self._placer.store
        if times[0] > tail.low:
            wanted = set(times)
            return Batch.of(item for item in tail.batch.slice(times[0] - 1, times[-1]) if item[0] in wanted)
        return await store("get", store.store.get, self._stream.id, times)

    def _free(self, arrival: int) -> int:
        """The time of a reading that is given its arrival (rule 3)."""
        return max(arrival, self._newest + 1, self._stream.limit + 1)

    def _put(self, time: int, value: Value, origin: Origin | None) -> None:
        self._now[time] = value
        if time >= self._newest:
            self._newest, self._origin = time, origin

    def _heard(self, time: int, placing: Placing) -> None:
        """A device was heard at ``time``: what came of a time before that is over."""
        given = self._placer.given.get(self._stream.id)
        if given is not None and placing in _AGED and time > given[0]:
            del self._placer.given[self._stream.id]

    async def _meet(self, one: Came, there: Value) -> None:
        """``there`` stands at the time of ``one`` already."""
        time, value, placing = one[0].time, one[0].value, one[0].placing
        origin = self._origin if time == self._newest else None
        if placing in _AGED:
            await self._update(one, there)
        elif same(there, value):
            return
        elif placing is _MERGE and isinstance(there, dict) and isinstance(value, dict):
            merged, differs = merge(there, value)
            if same(merged, there) or await self._is_refused(one, origin if differs else None):
                return
            if _size(merged) > MOST_MERGED:
                text = f"what is sent with this one time has more than {MOST_MERGED} bytes together"
                self._refused.append((one, PayloadError("too_large", text)))
                return
            mine = _origin(one)
            if differs:
                self._overwritten.append(time)
            elif origin is None or mine is None or self._why(one, origin, mine):
                mine = None
            self._put(time, merged, None if origin is None else mine)
        elif placing is Placing.REPLACE or not await self._is_refused(one, origin):
            self._put(time, value, None if origin is None else _origin(one))
            self._overwritten.append(time)

    async def _is_refused(self, one: Came, origin: Origin | None) -> bool:
        """Rule 5. ``origin``: the message of what stands there, if it is known."""
        mine = _origin(one)
        if mine is None:
            return False
        digest = _digest(one[0].source, *mine)
        why = await self._placer.refused_before(digest)
        if not why:
            how = "" if origin is None else self._why(one, origin, mine)
            if not how:
                return False
            where = f"{self._stream.name} at {format_time(one[0].time)}"
            why = f"another device's reading is in {where} and stays: {how}"
            self._placer.refuse(digest, why)
        self._refused.append((one, PayloadError(OTHER_DEVICE, why)))
        return True

    def _why(self, one: Came, origin: Origin, mine: Origin) -> str:
        return stranger(origin, mine, self._placer.fields_of(one[0].source))

    async def _update(self, one: Came, there: Value) -> None:
        """Rules 7 and 8."""
        time, value, placing = one[0].time, one[0].value, one[0].placing
        later = await self._later(time, 1 if placing is _UPDATE else _LATER)
        if later and same(later[-1][1], value):
            return
        if placing is _UPDATE:
            repeat = same(there, value) and not (later and self._is_given(time, later[-1][0]))
        else:
            repeat = same(there, value) or any(same(other, value) for _, other in later)
        if repeat:
            return
        if placing is _RETAINED:
            text = "a retained message with the time of another reading and other content: when it changed is not known"
            self._refused.append((one, PayloadError("retained", text)))
            return
        given = self._free(one[1].arrival)
        self._put(given, value, None)
        self._placer.given[self._stream.id] = time, given

    def _is_given(self, time: int, newest: int) -> bool:
        return self._placer.given.get(self._stream.id) == (time, newest)

    async def _later(self, time: int, count: int) -> list[tuple[int, Value]]:
        """The last ``count`` instances later than ``time``."""
        tail, store = self._stream.tail, self._placer.store
        if time >= tail.low:
            stored = tail.batch.slice(time, MAX_TIME).last(MAX_TIME, count)
        else:
            stored = await store("read", store.store.read, self._stream.id, time, MAX_TIME, limit=count, newest=True)
        found = dict(stored) | {at: value for at, value in self._now.items() if at > time}
        return sorted(found.items())[-count:]


def merge(old: dict[str, Value], new: dict[str, Value]) -> tuple[dict[str, Value], bool]:
    """Both objects in one, and whether a member of ``old`` that ``new`` has too was another (rule 6).

    >>> merge({"a": {"t": 1}, "unit": "C"}, {"a": {"h": 2}, "unit": "C"})
    ({'a': {'t': 1, 'h': 2}, 'unit': 'C'}, False)
    >>> merge({"a": 1, "b": 2}, {"a": 3})
    ({'a': 3, 'b': 2}, True)
    """
    merged, differs = dict(old), False
    for key, value in new.items():
        there = merged.get(key)
        if key not in merged:
            merged[key] = value
        elif isinstance(there, dict) and isinstance(value, dict):
            merged[key], deeper = merge(there, value)
            differs = differs or deeper
        elif not same(there, value):
            merged[key], differs = value, True
    return merged, differs


def _size(value: Value) -> int:
    """Bytes of a value, about."""
    if isinstance(value, dict):
        return sum(len(key) + _size(member) for key, member in value.items())
    if isinstance(value, list):
        return sum(map(_size, value)) + 8
    return 8 + (len(value) if isinstance(value, (str, bytes)) else 0)


def _digest(source: str, topic: str, payload: bytes) -> bytes:
    known = b"\0".join((source.encode(), topic.encode("utf-8", "surrogateescape"), payload[:MOST_PAYLOAD]))
    return blake2b(known, digest_size=16).digest()
