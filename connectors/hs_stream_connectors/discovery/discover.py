"""The workflow file for what a broker carries.

1. Gateways first (`gateways`), then every other topic by its payload (`payloads`) and pattern (`patterns`).
2. What services of ours publish is left out (`ours`). The discovery topics of Home Assistant, and topics that only say
   ``online`` or ``offline``, are no readings. What no codec reads is unknown. All are counted, and named in the head.
3. What other workflows read already is left to them: a topic, and a source of a gateway of which they read every topic.
4. What gateways say of kinds and units is taken from them (`announced`).
5. A number in an object becomes a node, so that it can be looked at and computed with at once. Each source has one
   example at most that is published (`examples`).
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from hs_stream.core.visible import visible
from hs_stream_connectors.discovery.announced import announced
from hs_stream_connectors.discovery.examples import MEAN, Example, choose, is_averaged
from hs_stream_connectors.discovery.gateways import GATEWAYS, Context, Found
from hs_stream_connectors.discovery.ours import ours
from hs_stream_connectors.discovery.patterns import Names, split
from hs_stream_connectors.discovery.payloads import Shape, shape_of
from hs_stream_connectors.discovery.survey import Seen, Survey
from hs_stream_connectors.mqtt.topics import TopicTemplate

__all__ = ["Discovery", "discover"]

_AVAILABILITY: Final = frozenset({b"online", b"offline", b"Online", b"Offline", b'{"state":"online"}'})
# A template gives these a meaning of their own.
_UNREADABLE: Final = frozenset("{}")
_MOST_FIELDS: Final = 30
# Text in YAML 1.1 and 1.2 alike: a word, or a duration.
_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.@^/+-]*|[1-9][0-9]*[smh]")
_NO_TEXT: Final = frozenset({"true", "false", "yes", "no", "on", "off", "y", "n", "null"})
_SHOWN: Final = 5


@dataclass(slots=True)
class Discovery:
    """What was found.

    ``own``: topics that services of ours publish. ``known``: that other workflows read. ``silent``: without readings.
    ``unknown``: no codec reads them.
    """

    sources: list[Found]
    plates: dict[str, dict[str, Any]]
    messages: int
    topics: int
    beyond: int
    own: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def counts(self) -> list[str]:
        """Lines for people: what was heard, and what became of it."""
        read = len({topic for source in self.sources for topic in source.topics})
        sources = f"{len(self.sources)} source{'s' * (len(self.sources) != 1)}"
        lines = [f"{self.messages} messages on {self.topics} topics: {read} are read by {sources}"]
        for what, topics in (
            ("are published by hs-stream itself", self.own),
            ("are left out, as the workflows of the configuration read them already", self.known),
            ("carry no readings", self.silent),
            ("are unknown", self.unknown),
        ):
            if topics:
                shown = ", ".join(topic[:80] for topic in topics[:_SHOWN])
                lines.append(f"{len(topics)} {what}: {shown}{', ...' if len(topics) > _SHOWN else ''}")
        if self.beyond:
            lines.append(f"{self.beyond} messages on more topics than can be kept were not looked at")
        return lines

    def workflow_file(self, name: str) -> str:
        """The text of a workflow file."""
        lines = [f"# {line}" for line in map(_comment, self.counts())]
        lines += [f"workflow: {name}", "description: What hs-stream discover has found"]
        if self.plates:
            lines.append("plates:")
        lines += [f"  {_key(plate)}: {_flow(definition)}" for plate, definition in self.plates.items()]
        lines.append("sources:" if self.sources else "sources: {}")
        for source in self.sources:
            count = len(source.topics)
            lines.append(f"  # {count} topic{'s' * (count != 1)}" + (f"; {source.note}" if source.note else ""))
            lines.append(f"  {_key(source.name)}: {_flow(source.options)}")
        nodes = [f"  {_key(name)}: {_flow(node)}" for source in self.sources for name, node in source.nodes.items()]
        if nodes:
            lines += ["nodes: # examples: change them to what you want to know", *nodes]
        published = [f"  {_key(source.published)}: {{}}" for source in self.sources if source.published]
        if published:
            lines += ["publish:", *published]
        return "\n".join([*lines, ""])


def _flow(value: Any) -> str:
    """YAML in one line: JSON, but plain words where they can be nothing else."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_key(key)}: {_flow(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _NO_TEXT:
        return value
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    return name if name == "on" else _flow(name)


def _comment(text: str) -> str:
    return visible(text)


def discover(
    survey: Survey,
    *,
    own_prefix: str = "hs",
    log_topic: str = "",
    zone: str | None = None,
    taken: Iterable[str] = (),
    read: Sequence[str] = (),
) -> Discovery:
    """The sources for what ``survey`` has heard.

    ``own_prefix`` is that of our results, ``log_topic`` that of our log; ``zone`` is that of Tasmota; ``taken`` are
    names that other workflows have, which are global; ``read`` are the topic templates of what they read.
    """
    left = list(survey)
    context = Context(Names(taken), zone, [TopicTemplate(template) for template in read], announced(survey))
    own = ours(left, own_prefix, log_topic)
    left = _without(left, own)
    silent = [seen.topic for seen in left if _is_silent(seen)]
    unreadable = [seen.topic for seen in left if not _UNREADABLE.isdisjoint(seen.topic) and seen.topic not in silent]
    left = _without(left, [*silent, *unreadable])
    of_gateways: set[str] = set()
    for gateway in GATEWAYS:
        taken_now = [seen.topic for seen in gateway(left, context)]
        left = _without(left, taken_now)
        of_gateways.update(taken_now)
    unknown = [*unreadable, *_others(left, context)]
    heard = {topic for source in context.found for topic in source.topics} | context.known
    return Discovery(
        context.found,
        _used(context),
        survey.messages,
        len(survey),
        survey.beyond,
        own,
        sorted(context.known),
        sorted([*silent, *(of_gateways - heard)]),
        unknown,
    )


def _used(context: Context) -> dict[str, dict[str, Any]]:
    """The plates of the sources that are left and their parents, and the parts of plates."""
    wanted: list[str | None] = []
    for source in context.found:
        wanted += [*TopicTemplate(source.options["mqtt"]).names, *source.options.get("bind", {})]
    used = set()
    while wanted:
        plate = wanted.pop()
        if plate is not None and plate not in used:
            used.add(plate)
            wanted.append(context.names.plates[plate])
    whole = {plate: parent for plate, parent in context.names.plates.items() if plate in used}
    return {plate: {"parent": parent} if parent else {} for plate, parent in whole.items()} | {
        part: {"of": plate, "values": [value]} for part, (plate, value) in context.names.parts.items()
    }


def _without(left: Iterable[Seen], topics: Sequence[str]) -> list[Seen]:
    gone = set(topics)
    return [seen for seen in left if seen.topic not in gone]


def _is_silent(seen: Seen) -> bool:
    levels = seen.levels
    if levels[0] == "homeassistant" and levels[-1] == "config":
        return True
    return not seen.samples or all(sample in _AVAILABILITY for sample in seen.samples)


def _others(left: Iterable[Seen], context: Context) -> list[str]:
    groups: dict[Any, list[tuple[Seen, Shape]]] = defaultdict(list)
    unknown = []
    for seen in left:
        if context.is_known(seen):
            context.known.add(seen.topic)
            continue
        shape = shape_of(seen.samples, seen.arrival)
        if shape is None or len(seen.topic) > 1000:
            unknown.append(seen.topic)
        else:
            alike = shape.fields if len(shape.fields) <= _MOST_FIELDS else ()
            groups[shape.codec, shape.time, alike, len(seen.levels), seen.levels[0]].append((seen, shape))
    for members in groups.values():
        of_topic = {seen.topic: (seen, shape) for seen, shape in members}
        for topics in split([seen.levels for seen, _ in members]):
            _, shape = of_topic["/".join(topics[0])]
            topic, literals = context.names.pattern(topics)
            options: dict[str, Any] = {"mqtt": topic, "codec": shape.codec}
            if shape.time:
                options["time"] = dict(shape.time)
            if 0 < len(shape.fields) <= _MOST_FIELDS:
                options["fields"] = list(shape.fields)
            note = "times without an offset: is the zone right?" if "zone" in dict(shape.time) else ""
            part = [of_topic["/".join(levels)][0] for levels in topics]
            context.add("".join(literals[-1:]), options, part, note, shape.numbers, _example(shape, literals))
    return unknown


def _example(shape: Shape, literals: Sequence[str]) -> Example | None:
    if shape.codec == "number":
        return MEAN if all(map(is_averaged, literals[-1:])) else None
    path = choose([dict.fromkeys(shape.numbers, 0)])
    return replace(MEAN, path=path) if path else None
