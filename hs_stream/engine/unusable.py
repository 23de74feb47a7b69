"""What a round could not use: one dead letter for each message and reason, and how many of them are kept.

1. A message with many parts that are no readings is one letter for each reason, with a count and the first
   `EXAMPLES` of them: a device decides how many parts it sends, and each letter holds the whole message.
2. At once, `BURST` letters with `BURST_BYTES` of payloads are kept; after that `PER_SECOND` and `BYTES_PER_SECOND`. A
   letter whose payload is too much is kept with its first `CUT_PAYLOAD` bytes. One that is too many is counted, as all
   are, and not kept.
3. Of a topic and of a message `MOST_TEXT` characters are kept: MQTT lets a topic have 65,535 bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from hs_stream.core.errors import PayloadError
from hs_stream.core.stream import StreamId
from hs_stream.engine.origins import MOST_PAYLOAD
from hs_stream.engine.ports import DeadLetter, Delivery, gist

__all__ = [
    "BURST",
    "BURST_BYTES",
    "BYTES_PER_SECOND",
    "CUT_PAYLOAD",
    "EXAMPLES",
    "MOST_TEXT",
    "PER_SECOND",
    "Allowance",
    "Unusable",
]

EXAMPLES: Final = 3
BURST: Final = 10_000
PER_SECOND: Final = 2.0
BURST_BYTES: Final = 16 << 20
BYTES_PER_SECOND: Final = 1024.0
CUT_PAYLOAD: Final = 256
MOST_TEXT: Final = 1000


class Unusable:
    """The dead letters of one round (rule 1)."""

    def __init__(self, letters: Iterable[DeadLetter], now: int) -> None:
        self._letters = list(letters)
        self._now = now
        self._found: dict[tuple[int, str, str], _Found] = {}

    def add(self, delivery: Delivery, index: int, error: PayloadError) -> None:
        """Reading ``index`` of ``delivery`` cannot be used because of ``error``."""
        reading = delivery.readings[index]
        origin = delivery.origin(index)
        if delivery.refused is not None:
            delivery.refused(DeadLetter(self._now, reading.source, error.reason, error.message))
        key = id(delivery if origin is None else origin[1]), reading.source, error.reason
        found = self._found.get(key)
        if found is None:
            if origin is None:
                # Of an import the reading itself is all there is.
                what = {"stream": str(StreamId(reading.source, reading.meta)), "time": reading.time}
                origin = "", json.dumps(what | {"value": reading.value}, default=str).encode()
            found = self._found[key] = _Found(*origin)
        found.count += 1
        if len(found.examples) < EXAMPLES:
            found.examples.append(error.message)

    def letters(self) -> list[DeadLetter]:
        """All of them."""
        return self._letters + [
            DeadLetter(
                self._now,
                source,
                reason,
                gist(one.examples, one.count),
                one.topic,
                one.payload[:MOST_PAYLOAD],
                one.count,
            )
            for (_, source, reason), one in self._found.items()
        ]


class _Found:
    __slots__ = ("count", "examples", "payload", "topic")

    def __init__(self, topic: str, payload: bytes) -> None:
        self.topic, self.payload = topic, payload
        self.count = 0
        self.examples: list[str] = []


def _cut(text: str) -> str:
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}..."


class Allowance:
    """How much is kept (rules 2 and 3)."""

    def __init__(self) -> None:
        self._at: int | None = None
        self._letters = float(BURST)
        self._bytes = float(BURST_BYTES)

    def kept(self, letters: Iterable[DeadLetter], now: int) -> list[DeadLetter]:
        """Those of ``letters`` that are kept at ``now`` (ms), as they are kept."""
        if self._at is not None and now > self._at:
            seconds = (now - self._at) / 1000
            self._letters = min(self._letters + PER_SECOND * seconds, BURST)
            self._bytes = min(self._bytes + BYTES_PER_SECOND * seconds, BURST_BYTES)
        self._at = now if self._at is None else max(now, self._at)
        found = []
        for letter in letters:
            if self._letters < 1:
                break
            self._letters -= 1
            if len(letter.topic) > MOST_TEXT or len(letter.message) > MOST_TEXT:
                topic, message = _cut(letter.topic), _cut(letter.message)
                letter = replace(letter, topic=topic, message=message)  # noqa: PLW2901
            size = len(letter.payload)
            if size > CUT_PAYLOAD and size > self._bytes:
                message = f"{letter.message} (payload cut to {CUT_PAYLOAD} bytes: too many dead letters)"
                letter = replace(letter, payload=letter.payload[:CUT_PAYLOAD], message=message)  # noqa: PLW2901
            self._bytes = max(self._bytes - len(letter.payload), 0.0)
            found.append(letter)
        return found
