"""Which topics an hs_stream service publishes: they are results, and no readings.

1. Of the service that the settings describe: everything below its prefix, and the topic of its log.
2. Of every service: its entities of Home Assistant, ``homeassistant/sensor/hs-.../state`` and ``config``, and what is
   below the prefix of the status topic that their descriptions name.
3. Results and log records elsewhere, by their keys: of a service with another prefix.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final

from hs_stream_connectors.discovery.payloads import objects
from hs_stream_connectors.discovery.survey import Seen
from hs_stream_connectors.mqtt.homeassistant import ORIGIN
from hs_stream_connectors.mqtt.topics import is_entity_topic

__all__ = ["ours"]

_RESULT: Final = {"time", "value", "revision", "kind", "stream", "tool"}
_RECORD: Final = {"event", "level", "logger", "timestamp", "service"}


def ours(topics: Collection[Seen], prefix: str, log_topic: str = "") -> list[str]:
    """Those of ``topics`` that a service publishes. ``prefix``, ``log_topic``: of the one of the settings."""
    below = tuple({f"{prefix}/", *_prefixes(topics)})
    return [
        seen.topic
        for seen in topics
        if seen.topic.startswith(below)
        or seen.topic == log_topic
        or is_entity_topic(seen.levels)
        or _is_output(objects(seen.samples, msgpack=True))
    ]


def _prefixes(topics: Iterable[Seen]) -> Iterable[str]:
    for seen in topics:
        if is_entity_topic(seen.levels) and seen.levels[-1] == "config":
            for item in objects(seen.samples):
                status, origin = item.get("availability_topic"), item.get("origin")
                if not isinstance(origin, dict) or origin.get("name") != ORIGIN:
                    continue
                if isinstance(status, str) and len(prefix := status.removesuffix("status")) > 1 and prefix != status:
                    yield prefix


def _is_output(items: list[dict[str, Any]]) -> bool:
    return bool(items) and all(item.keys() == _RESULT or item.keys() >= _RECORD for item in items)
