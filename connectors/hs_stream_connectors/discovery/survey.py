"""A bounded sample of what is published: topics, and the latest payloads of each."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

__all__ = ["MAX_TOPICS", "Seen", "Survey"]

MAX_TOPICS: Final = 20_000
_SAMPLES: Final = 5
_LARGEST: Final = 64 * 1024


@dataclass(slots=True)
class Seen:
    """What one topic said: how often, the arrival of the last message (ms), and samples of payloads."""

    topic: str
    count: int = 0
    arrival: int = 0
    samples: deque[bytes] = field(default_factory=lambda: deque(maxlen=_SAMPLES))

    @property
    def levels(self) -> list[str]:
        """The topic's levels."""
        return self.topic.split("/")


class Survey:
    """Takes messages. Of more than `MAX_TOPICS` topics the rest is only counted, in ``beyond``."""

    def __init__(self) -> None:
        self.messages = 0
        self.beyond = 0
        self._topics: dict[str, Seen] = {}

    def add(self, topic: str, payload: bytes, arrival: int) -> None:
        """One message. Large payloads are counted, not kept."""
        self.messages += 1
        seen = self._topics.get(topic)
        if seen is None:
            if len(self._topics) >= MAX_TOPICS:
                self.beyond += 1
                return
            seen = self._topics[topic] = Seen(topic)
        seen.count += 1
        seen.arrival = arrival
        if payload and len(payload) <= _LARGEST:
            seen.samples.append(payload)

    def __iter__(self) -> Iterator[Seen]:
        """By topic."""
        return iter(sorted(self._topics.values(), key=lambda seen: seen.topic))

    def __len__(self) -> int:
        return len(self._topics)
