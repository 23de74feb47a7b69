"""The books about results that the other side will not have (`hs_stream.engine.ports.Unpublished`).

1. Each is counted by its reason.
2. The first of a topic and reason is a dead letter, and then at most one each `LETTER_EVERY`, which says how many there
   were: a topic that is refused is refused with each result.
3. At most `MOST_TOPICS` topics have letters of their own; all others share one.

The results stay in the store: a letter names stream, time and size, and does not repeat the value.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hs_stream.core.time import format_time
from hs_stream.engine.ports import DeadLetter, Unpublished

__all__ = ["LETTER_EVERY", "MOST_TOPICS", "Refusals", "Unsent"]

LETTER_EVERY: Final = 3_600_000
"""Milliseconds."""
MOST_TOPICS: Final = 1_000


@dataclass(slots=True)
class Unsent:
    """What was not published for one reason: how many since the start, and the last of them (ms)."""

    count: int
    time: int
    topic: str
    message: str


@dataclass(slots=True)
class _Since:
    """How many of a topic there were since its last letter, which was at ``time``."""

    count: int
    time: int


class Refusals:
    """Since the engine was made."""

    def __init__(self) -> None:
        self.by_reason: dict[str, Unsent] = {}
        """Reasons are a small fixed set of words."""
        self._topics: dict[tuple[str, str], _Since] = {}

    def take(self, unpublished: Sequence[Unpublished], now: int) -> list[DeadLetter]:
        """Count them; the letters that are due."""
        letters = []
        for one in unpublished:
            known = self.by_reason.get(one.reason)
            count = 1 if known is None else known.count + 1
            self.by_reason[one.reason] = Unsent(count, now, _printable(one.topic)[:200], one.message)
            key = (one.reason, one.topic)
            if key not in self._topics and len(self._topics) >= MOST_TOPICS:
                key = (one.reason, "")
            since = self._topics.setdefault(key, _Since(0, 0))
            since.count += 1
            if now >= since.time + LETTER_EVERY:
                letters.append(_letter(one, since, now))
                self._topics[key] = _Since(0, now)
        return letters


def _letter(one: Unpublished, since: _Since, now: int) -> DeadLetter:
    publication = one.publication
    message = one.message
    if since.count > 1:
        message += f" ({since.count} results since {format_time(since.time)})"
    what = {
        "stream": str(publication.stream),
        "time": publication.change.time,
        "revision": publication.change.revision,
        "kind": publication.change.kind,
        "size": one.size,
    }
    topic = _printable(one.topic)[:1_000]
    return DeadLetter(now, publication.stream.name, one.reason, message, topic, json.dumps(what).encode())


def _printable(topic: str) -> str:
    return topic if topic.isprintable() else repr(topic)[1:-1]
