"""SPHERE research gateways: an object like SenML's, ``{"uid": ..., "bt": ISO time, "e": [{"n": ..., "v": ...}, ...]}``.

::

    mqtt: "sphere/{house}/environmental"
    codec: sphere
    bind: {sensor: uid}              # optional: a stream per device
    fields: [TEMP, HUM]              # optional

``bt`` is the time of all entries: ISO 8601 with an offset, or milliseconds since the epoch. The entries make one value,
``{n: v}``. With ``name`` in ``bind`` (``bind: {sensor: uid, quantity: name}``) each entry is a stream, and the value is
its ``v``. ``bind`` may name any other key of the object. An entry without ``n`` and ``v`` is a dead letter, and does
not lose the others; so is a name that is there already. What else is in the object or in an entry is left out. Entries
of several messages with the same ``bt`` are one value with all names.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Self

from hs_stream.core.errors import PayloadError
from hs_stream_connectors.codecs.base import (
    BatchError,
    CodecOptions,
    Decoded,
    Gathered,
    Placing,
    TimeSpec,
    no_time,
    to_value,
)
from hs_stream_connectors.codecs.objects import load_json

__all__ = ["SphereCodec"]

_NAME: Final = "name"
_TIME: Final = TimeSpec("bt", "ms")


@dataclass(frozen=True, slots=True)
class SphereCodec:
    """See the module."""

    options: CodecOptions
    each: bool = False
    name: str = "sphere"
    placing: Placing = Placing.MERGE

    @classmethod
    def make(cls, options: Mapping[str, Any]) -> Self:
        """From the options of a workflow file."""
        no_time("sphere", options, "bt")
        parsed = CodecOptions.parse("sphere", options)
        return cls(parsed, any(word == _NAME for _, word in parsed.bind))

    @property
    def plates(self) -> tuple[str, ...]:
        """See `hs_stream_connectors.codecs.base.Codec`."""
        return self.options.plates

    def decode(self, topic: str, payload: bytes, arrival: int, retained: bool) -> Decoded:
        """See `hs_stream_connectors.codecs.base.Codec`."""
        self.options.check_size(payload)
        item = load_json(payload)
        if type(item) is not dict or type(item.get("e")) is not list:
            raise PayloadError("type", "the payload is not an object with a list of entries `e`")
        if "bt" not in item:
            raise PayloadError("time_missing", "the object has no bt")
        time = _TIME.instant(item["bt"], self.options.earliest)
        gathered = Gathered()
        found: dict[str, Any] = {}
        with suppress(BatchError):  # of too many bad ones: `done` says it again, with what was found before
            self._entries(item["e"], found, gathered)
        if self.each:
            words = dict(item)
            for name, value in found.items():
                words[_NAME] = name
                try:
                    gathered.readings.append((time, to_value(value), self.options.bound(words)))
                except PayloadError as error:
                    gathered.refuse(name, error)
        elif found:
            meta = self.options.bound(item)
            value = to_value(found)
            gathered.readings.append((time, value, meta) if meta else (time, value))
        return gathered.done()

    def _entries(self, entries: list[Any], found: dict[str, Any], gathered: Gathered) -> None:
        fields = self.options.fields
        for index, entry in enumerate(entries):
            name = entry.get("n") if type(entry) is dict else None
            if not isinstance(name, str) or "v" not in entry:
                gathered.refuse(f"entry {index}", PayloadError("type", "it has no n and v"))
            elif name in found:
                gathered.refuse(f"entry {index}", PayloadError("value", f"{name[:60]!r} is there already"))
            elif fields is None or name in fields:
                found[name] = entry["v"]
