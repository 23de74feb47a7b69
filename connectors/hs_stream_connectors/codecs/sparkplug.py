"""Sparkplug B: metrics of edge nodes and their devices, ``spBv1.0/<group>/<type>/<edge>[/<device>]``, in protobuf.

::

    mqtt: "spBv1.0/{group}/+/{edge}/#"         # all types: births say what the aliases in data mean
    codec: sparkplug
    bind: {device: device, metric: name}       # without `device`: the edge node's own metrics
    fields: [Inputs/Temperature]               # optional: only these metrics
    scope: device                              # optional: where the topic binds the device, {device}
    rebirth: true                              # optional: ask for a birth when one was missed; false: never publish

1. Every metric of a birth (``NBIRTH``, ``DBIRTH``) and of data (``NDATA``, ``DDATA``) is a reading at its own time in
   milliseconds, or the payload's where it has none. Historical ones (``is_historical``) are late readings like others.
   Transient metrics, ``bdSeq`` and ``Node Control/...`` are none; nor are deaths, commands and ``STATE``.
2. Nothing is merged: see `hs_stream_connectors.codecs.parts`. Types of values: `sparkplug_payload`.
3. Names and data types that data leaves out come from the births, which are remembered in memory only. After a restart
   data with aliases is therefore a dead letter (``no_birth``) until the edge node's next birth; so that it comes at
   once, the edge node is asked for it (``NCMD``, ``Node Control/Rebirth``), at most once a minute. Data that carries
   name and data type needs no birth.
4. A birth that was missed could give an alias another meaning. So the sequence number of each edge node's messages is
   followed, and at a gap everything known of the edge node is forgotten (then as in 3). A message that is delivered
   twice by the broker counts as a gap, unless it follows itself at once.
5. At most `MAX_METRICS` metrics and `MAX_EDGES` edge nodes are remembered, in so many bytes as `remember_within` says;
   the one that was silent for the longest is forgotten first (then as in 3). One that needs more than `ONE_EDGE` of
   the bytes is forgotten at once. `SparkplugCodec.remembered` and `remembered_bytes` are the metrics of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from sys import getsizeof
from typing import Any, Final, NamedTuple, Self

from hs_stream.core.errors import ConfigurationError, PayloadError
from hs_stream.core.size import Use
from hs_stream_connectors.codecs.base import Decoded, Gathered, Placing, TimeSpec
from hs_stream_connectors.codecs.parts import PartOptions, must_identify
from hs_stream_connectors.codecs.sparkplug_payload import (
    BIRTH_SEQUENCE,
    Metric,
    Payload,
    parse,
    rebirth_command,
    value_of,
)

__all__ = ["MAX_EDGES", "MAX_METRICS", "ONE_EDGE", "SparkplugCodec"]

MAX_METRICS: Final = 100_000
MAX_EDGES: Final = 10_000
MAX_BYTES: Final = 32 << 20
ONE_EDGE: Final = 1 / 4
_EMPTY_EDGE: Final = 1_000
_ENTRY: Final = 170
"""What a name with its data type, or an alias with its name, costs in a dictionary, without the text of the name."""
_WORDS: Final = ("device", "name")
_SCOPES: Final = ("node", "device")
_TYPES: Final = frozenset({"NBIRTH", "NDEATH", "NDATA", "DBIRTH", "DDEATH", "DDATA"})
_ASK_EVERY: Final = 60_000
_LONGEST_NAME: Final = 1_000
_CONTROL: Final = "Node Control/"
_TIME: Final = TimeSpec("timestamp", "ms")
_HINT: Final = "does the source read the births too? its topic should be spBv1.0/{group}/+/{edge}/#"


class _Topic(NamedTuple):
    group: str
    kind: str
    edge: str
    device: str

    @classmethod
    def parse(cls, topic: str) -> _Topic | None:
        """``None`` for what is no message of an edge node. ``device`` is empty where the node itself speaks."""
        levels = topic.split("/")
        if levels[0] != "spBv1.0" or len(levels) not in (4, 5) or levels[2] not in _TYPES:
            return None
        if (levels[2][0] == "D") != (len(levels) == 5):
            return None
        return cls(levels[1], levels[2], levels[3], levels[4] if len(levels) == 5 else "")


@dataclass(slots=True)
class _Edge:
    """What is known of one edge node: data types by device and name, names by device and alias; ``size`` in bytes."""

    seq: int | None = None
    last: int = 0
    birth: Any = None
    asked: int | None = None
    types: dict[tuple[str, str], int] = field(default_factory=dict)
    aliases: dict[tuple[str, int], str] = field(default_factory=dict)
    size: int = _EMPTY_EDGE

    def measure(self) -> None:
        """Work out ``size`` again: call it after every change of what is known."""
        names = sum([getsizeof(name) for _, name in self.types])
        devices = sum([getsizeof(device) for device in {device for device, _ in self.types}])
        self.size = _EMPTY_EDGE + _ENTRY * (len(self.types) + len(self.aliases)) + names + devices

    def forget(self, device: str | None = None) -> None:
        """The metrics of ``device``, or all."""
        if device is None:
            self.types, self.aliases = {}, {}  # `clear` would keep the room of the largest
            self.size = _EMPTY_EDGE
            return
        self.types = {key: kind for key, kind in self.types.items() if key[0] != device}
        self.aliases = {key: name for key, name in self.aliases.items() if key[0] != device}
        self.measure()

    def follow(self, seq: int | None, payload: bytes) -> None:
        """Rule 4."""
        digest = hash(payload)
        if seq is not None and seq == self.seq and digest == self.last:
            return
        if seq is None or self.seq is None or seq != (self.seq + 1) % 256:
            self.forget()
        self.seq, self.last = seq, digest


class _Memory:
    """The edge nodes, within rule 5."""

    def __init__(self) -> None:
        self.edges: OrderedDict[tuple[str, str], _Edge] = OrderedDict()
        self.requests: list[tuple[str, bytes]] = []
        self.limit = MAX_BYTES
        self.used = 0
        self.forgotten = 0
        self._count = 0

    def edge(self, key: tuple[str, str]) -> _Edge:
        """The edge node ``key``, which has just said something."""
        edge = self.edges.get(key)
        if edge is None:
            edge = self.edges[key] = _Edge()
            self.used += edge.size + getsizeof(key[0]) + getsizeof(key[1])
        self.edges.move_to_end(key)
        return edge

    def account(self, size: int, count: int, edge: _Edge) -> None:
        """``edge``, the last that spoke, had ``size`` and ``count`` metrics before. Keep to rule 5."""
        self.used += edge.size - size
        self._count += len(edge.types) - count
        if edge.size > self.limit * ONE_EDGE or len(edge.types) > MAX_METRICS:
            self.forgotten += 1
            self.used -= edge.size
            self._count -= len(edge.types)
            edge.forget()
            self.used += edge.size
        while len(self.edges) > 1 and (
            len(self.edges) > MAX_EDGES or self._count > MAX_METRICS or self.used > self.limit
        ):
            key, gone = self.edges.popitem(last=False)
            self.forgotten += 1
            self.used -= gone.size + getsizeof(key[0]) + getsizeof(key[1])
            self._count -= len(gone.types)

    def metrics(self) -> int:
        """How many metrics are known."""
        return self._count


@dataclass(frozen=True, slots=True)
class SparkplugCodec:
    """See the module. The one codec with a memory: each source has its own."""

    parts: PartOptions
    device: bool
    rebirth: bool = True
    name: str = "sparkplug"
    placing: Placing = Placing.REPLACE  # a birth and data about one metric have different topics
    _memory: _Memory = field(default_factory=_Memory, repr=False, compare=False)

    @classmethod
    def make(cls, options: Mapping[str, Any]) -> Self:
        """From the options of a workflow file."""
        also = ("scope", "rebirth")
        parts = PartOptions.parse("sparkplug", options, _WORDS, "the metric's timestamp", also)
        must_identify(
            "sparkplug",
            "name" in parts.words or parts.single is not None,
            "write bind: {metric: name}, or fields: with one name",
        )
        scope = options.get("scope", "device" if "device" in parts.words else "node")
        if scope not in _SCOPES or (scope == "node" and "device" in parts.words):
            raise ConfigurationError(
                f"codec sparkplug: scope is {scope!r}", hint="write device, or node without binding a device"
            )
        rebirth = options.get("rebirth", True)
        if not isinstance(rebirth, bool):
            raise ConfigurationError(f"codec sparkplug: rebirth is {rebirth!r}", hint="write true or false")
        return cls(parts, scope == "device", rebirth)

    @property
    def plates(self) -> tuple[str, ...]:
        """See `hs_stream_connectors.codecs.base.Codec`."""
        return self.parts.options.plates

    @property
    def remembered(self) -> int:
        """How many metrics and edge nodes are in memory."""
        return self._memory.metrics() + len(self._memory.edges)

    @property
    def remembered_bytes(self) -> Use:
        """How many bytes that takes, of how many, and how often an edge node was forgotten for it."""
        memory = self._memory
        return Use(memory.used, memory.limit, memory.forgotten)

    def remember_within(self, size: int) -> None:
        """Remember at most so many bytes, from the next message on."""
        self._memory.limit = size

    def requests(self) -> list[tuple[str, bytes]]:
        """Topics and payloads to publish at QoS 0, each once."""
        requests, self._memory.requests = self._memory.requests, []
        return requests

    def decode(self, topic: str, payload: bytes, arrival: int, retained: bool) -> Decoded:
        """See `hs_stream_connectors.codecs.base.Codec`."""
        where = _Topic.parse(topic)
        if where is None or retained:  # the specification forbids retained messages: what they say is over
            return []
        self.parts.options.check_size(payload)
        message = parse(payload)
        edge = self._memory.edge((where.group, where.edge))
        size, count = edge.size, len(edge.types)
        if where.kind == "NDEATH":
            if _birth_of(message) == edge.birth:
                edge.forget()
                edge.seq = None
        elif where.kind == "NBIRTH":
            edge.forget()
            edge.seq, edge.last, edge.birth, edge.asked = message.seq, hash(payload), _birth_of(message), None
        else:
            edge.follow(message.seq, payload)
        if where.kind.endswith("BIRTH"):
            _remember(edge, where.device, message)
        elif where.kind == "DDEATH":
            edge.forget(where.device)
        self._memory.account(size, count, edge)
        if where.kind.endswith("DEATH") or bool(where.device) != self.device:
            return []
        return self._metrics(where, message, edge, arrival)

    def _metrics(self, where: _Topic, message: Payload, edge: _Edge, arrival: int) -> Decoded:
        gathered = Gathered()
        for index, metric in enumerate(message.metrics):
            name = metric.name
            try:
                name, datatype = _identify(where.device, metric, edge)
                if self._is_reading(metric, name):
                    time = self._time(metric, message)
                    words = {"name": name, "device": where.device}
                    gathered.readings.append(self.parts.reading(time, value_of(metric, datatype), words))
            except PayloadError as error:
                if error.reason == "no_birth":
                    self._ask(where, edge, arrival)
                gathered.refuse(name or f"metric {index}", error)
        return gathered.done()

    def _time(self, metric: Metric, message: Payload) -> int:
        raw = metric.timestamp if metric.timestamp is not None else message.timestamp
        if raw is None:
            raise PayloadError("time_missing", "neither the metric nor the payload has a timestamp")
        return _TIME.instant(raw, self.parts.options.earliest)

    def _is_reading(self, metric: Metric, name: str) -> bool:
        if metric.transient or name == BIRTH_SEQUENCE or name.startswith(_CONTROL):
            return False
        return self.parts.only is None or name in self.parts.only

    def _ask(self, where: _Topic, edge: _Edge, arrival: int) -> None:
        if self.rebirth and (edge.asked is None or not 0 <= arrival - edge.asked < _ASK_EVERY):
            edge.asked = arrival
            topic = f"spBv1.0/{where.group}/NCMD/{where.edge}"
            self._memory.requests.append((topic, rebirth_command(max(arrival, 0))))


def _birth_of(message: Payload) -> Any:
    """What tells a birth from others: the hash of its number, which may be anything of any size."""
    found = next((metric.content for metric in message.metrics if metric.name == BIRTH_SEQUENCE), None)
    return None if found is None else hash(found)


def _remember(edge: _Edge, device: str, message: Payload) -> None:
    edge.forget(device)
    for metric in message.metrics:
        if 0 < len(metric.name) <= _LONGEST_NAME:
            edge.types[device, metric.name] = metric.datatype
            if metric.alias is not None:
                edge.aliases[device, metric.alias] = metric.name
    edge.measure()


def _identify(device: str, metric: Metric, edge: _Edge) -> tuple[str, int]:
    """Name and data type of a metric. `PayloadError` with ``no_birth`` where only a birth would say it."""
    name = metric.name
    if not name:
        if metric.alias is None:
            raise PayloadError("type", "it has neither a name nor an alias")
        name = edge.aliases.get((device, metric.alias), "")
        if not name:
            raise PayloadError("no_birth", f"no birth says what the alias {metric.alias} means; {_HINT}")
    datatype = metric.datatype or edge.types.get((device, name), 0)
    if not datatype and metric.kind in ("int", "bytes") and not metric.null:
        raise PayloadError("no_birth", f"no birth says of which data type it is; {_HINT}")
    return name, datatype
