"""What a workflow file says, as a `WorkflowDefinition`: see `hs_stream.service.workflows.file` for its keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from hs_stream.core.errors import ConfigurationError, did_you_mean
from hs_stream.core.kinds import KINDS, UNKNOWN, Kind, Meaning, is_unit
from hs_stream.core.plate import Plate
from hs_stream.core.registry import ToolRegistry
from hs_stream.core.stream import Meta, check_plate_value
from hs_stream.core.time import EMPTY, TimeIntervals, parse_duration, parse_time
from hs_stream.core.tool import Tool
from hs_stream.core.workflow import NodeDefinition, SourceDefinition, WorkflowDefinition
from hs_stream.entry_points import CONNECTORS
from hs_stream.service.settings import Settings
from hs_stream.service.sinks import Sinks
from hs_stream.service.workflows.yaml_items import Item, Reader

__all__ = ["Checks", "PublishCheck", "SourceCheck", "WorkflowParser", "source_options", "topic_plates"]

SourceCheck = Callable[[str, Mapping[str, Any]], tuple[str, ...]]
"""``check(name, options)``: the plates that the options bind, or a `ConfigurationError` without path and line."""


class PublishCheck(Protocol):
    """What sinks say of ``publish``."""

    @property
    def keys(self) -> Sequence[str]:
        """All that are known."""

    def check(self, key: str, value: Any) -> None:
        """A `ConfigurationError` without path and line where ``value`` cannot stand under ``key``."""


@dataclass(frozen=True, slots=True)
class Checks:
    """What only those know who bring connectors and sinks."""

    source: SourceCheck
    publish: PublishCheck


_TOP: Final = (
    *("workflow", "description", "online", "start", "requested_intervals", "plates", "sources", "nodes", "publish"),
)
_NODE: Final = ("tool", "from", "over", "on", "into", "with", "kind", "unit")
_MEANING: Final = ("kind", "unit")
_PLATE: Final = ("parent", "max", "values", "of", "complement", "from")
_VARIABLE: Final = re.compile(r"\{([^{}#]*)#?\}")
_PARAMETER: Final = re.compile(r"parameter '?(\w+)'?")


def source_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options in the form in which equal sources are equal: the codec of a topic is written out."""
    return {"mqtt": options["mqtt"], "codec": "json", **options} if "mqtt" in options else dict(options)


def topic_plates(name: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Each ``{name}`` in the texts of ``options``, each key of ``bind``: a `SourceCheck` that checks nothing else."""
    topic = options.get("mqtt", "")
    if not isinstance(topic, str):
        raise ConfigurationError(f"source {name}: mqtt is not text", hint='write mqtt: "home/{room}/climate"')
    bind = options.get("bind")
    named = {key: value for key, value in options.items() if key not in ("fields", "time")}  # names in payloads
    return tuple(dict.fromkeys([*_variables(named), *(bind if isinstance(bind, Mapping) else ())]))


def _variables(value: Any) -> list[str]:
    if isinstance(value, str):
        return _VARIABLE.findall(value)
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [name for item in inside for name in _variables(item)]


class WorkflowParser(Reader):
    """Understands one text. ``checks`` look at the options of sources and at ``publish``.

    With ``allow_code=False``, tools are refused that run code which their parameters name.
    """

    def __init__(self, path: str, registry: ToolRegistry, checks: Checks | None, *, allow_code: bool = True) -> None:
        super().__init__(path)
        self._registry = registry
        self._allow_code = allow_code
        self._checks = checks or Checks(topic_plates, Sinks(Settings.model_construct()))
        self._connectors = CONNECTORS.names()
        self._lines: dict[str, int] = {}

    def workflow(self, item: Item) -> WorkflowDefinition:
        top = self.mapping(item, "a workflow file", _TOP)
        if "workflow" not in top:
            raise self.error("the workflow has no name", item, "begin with workflow: NAME")
        plates = {name: self._plate(name, child, top["plates"]) for name, child in self._group(top, "plates")}
        sources = {name: self._source(name, child, plates) for name, child in self._group(top, "sources")}
        groups = dict(self._group(top, "nodes"))
        for name, child in groups.items():
            if name in sources:
                raise self.error(f"{name} is both a source and a node", child.key_line, "rename one of them")
        names = [*sources, *groups]
        publish = self._publish(top, groups, sources)
        nodes = {name: self._node(name, child, names, plates, publish.get(name)) for name, child in groups.items()}
        self._lines["workflow"] = top["workflow"].line or 0
        return WorkflowDefinition(
            name=self.text(top["workflow"], "workflow"),
            plates=plates,
            sources=sources,
            nodes=nodes,
            description=self._description(top),
            online=self.boolean(top["online"], "online") if "online" in top else True,
            start=self._instant(top["start"], "start") if "start" in top else None,
            requested_intervals=self._intervals(top),
            path=self.path,
            lines={place: line for place, line in self._lines.items() if line},
            retention=self._retention(top),
        )

    def _group(self, top: Mapping[str, Item], group: str) -> list[tuple[str, Item]]:
        if group not in top:
            return []
        self._lines[group] = top[group].key_line or 0
        children = self.mapping(top[group], group)
        for name, child in children.items():
            self._lines[f"{group}.{name}"] = child.key_line or 0
        return list(children.items())

    def _description(self, top: Mapping[str, Item]) -> str:
        item = top.get("description")
        return "" if item is None or item.value is None else self.text(item, "description")

    def _instant(self, item: Item, what: str) -> int:
        text = self.text(item, what)
        if text.strip()[:1] in "+-" or text.strip() in ("now", "inf"):
            raise self.error(f"{what}: {text!r} is relative", item, "write an ISO time such as 2026-01-01T00:00:00Z")
        try:
            return parse_time(text, now=0)
        except ValueError as error:
            raise self.error(f"{what}: {error}", item) from None

    def _intervals(self, top: Mapping[str, Item]) -> TimeIntervals:
        what = "requested_intervals"
        if not self._has(top, what):
            return EMPTY
        self._lines[what] = top[what].key_line or 0
        found = []
        for pair in top[what].value if isinstance(top[what].value, list) else [top[what]]:
            if not isinstance(pair.value, list) or len(pair.value) != 2:
                hint = "write [[2026-01-01T00:00:00Z, 2026-02-01T00:00:00Z]], each with its start and its end"
                raise self.error(f"{what}: {pair.plain()!r} is not an interval", pair, hint)
            start, end = (self._instant(item, what) for item in pair.value)
            if start >= end:
                raise self.error(f"{what}: {pair.plain()!r} does not end after its start", pair)
            found.append((start, end))
        return TimeIntervals(found)

    def _retention(self, top: Mapping[str, Item]) -> dict[str, int]:
        """Of sources and nodes, which their other keys do not concern."""
        found = {}
        for group in ("sources", "nodes"):
            for name, item in self._group(top, group):
                given = self.mapping(item, name).get("retention")
                if given is None or given.value == "forever":
                    continue
                try:
                    found[name] = parse_duration(self.text(given, f"{name}: retention"))
                except ValueError as error:
                    raise self.error(f"{name}: retention: {error}", given, "write 30d, or forever") from None
        return found

    # --- plates and sources ---

    def _plate(self, name: str, item: Item, plates: Item) -> Plate:
        what = f"plate {name}"
        options = self.mapping(item, what, _PLATE)
        known = self.mapping(plates, "plates")
        named: dict[str, str | None] = {"parent": None, "of": None}
        for key, role in (("parent", "its parent"), ("of", "what it is a part of,")):
            other = options.get(key)
            if other is not None and other.value is not None:
                named[key] = self.text(other, f"{what}: {key}")
                if other.value not in known:
                    hint = did_you_mean(other.value, [candidate for candidate in known if candidate != name])
                    raise self.error(
                        f"{what}: {role} {other.value!r} is not declared", other, hint or f"add '{other.value}: {{}}'"
                    )
        plate = Plate(name, named["parent"], of=named["of"])
        if self._has(options, "from"):
            plate = replace(plate, source=self.text(options["from"], f"{what}: from"))
        if "complement" in options:
            plate = replace(plate, complement=self.boolean(options["complement"], f"{what}: complement"))
        if self._has(options, "values"):
            plate = replace(plate, values=self._values(plate, options["values"], known))
        if "max" in options:
            most = self.whole(options["max"], f"{what}: max")
            if most < 1:
                raise self.error(f"{what}: max must be at least 1, not {most}", options["max"])
            plate = replace(plate, max=most)
        return plate

    def _values(self, plate: Plate, item: Item, plates: Mapping[str, Item]) -> tuple[Meta, ...]:
        """A list of texts, of mappings from plates to values, or a tree of the ancestors' values down to lists."""
        what = f"plate {plate.name}: values"
        path = [plate.key]
        while len(path) <= len(plates):
            declared = plates[path[-1]].plain()
            above = declared.get("parent") if isinstance(declared, dict) else None
            if not isinstance(above, str) or above not in plates:
                break
            path.append(above)
        found: list[Meta] = []

        def text(value: Any, line: Item) -> str:
            try:
                return check_plate_value(str(value) if type(value) in (str, int) else "")
            except ValueError as error:
                raise self.error(f"{what}: {value!r}: {error}", line, "write texts, such as [kitchen, bath]") from None

        def walk(node: Any, level: int, above: Meta) -> None:
            if isinstance(node, dict) and 0 < level < len(path):
                for key, below in node.items():
                    walk(below, level - 1, ((path[level], text(key, item)), *above))
            elif isinstance(node, list):
                for one in node:
                    pairs = one.items() if isinstance(one, dict) else [(plate.key, one)]
                    found.append(tuple(sorted((*above, *((key, text(value, item)) for key, value in pairs)))))
            else:
                hint = "write values: [kitchen, bath], or {1: [kitchen]} for house 1"
                raise self.error(f"{what}: {node!r} is not a list", item, hint)

        probe, depth = item.plain(), 0
        while isinstance(probe, dict) and probe:
            probe, depth = next(iter(probe.values())), depth + 1
        walk(item.plain(), depth, ())
        return tuple(found)

    def _source(self, name: str, item: Item, plates: Mapping[str, Plate]) -> SourceDefinition:
        children = self.mapping(item, f"source {name}")
        meaning, fields = self._meaning(f"source {name}", children), None
        if "fields" in children and isinstance(children["fields"].value, dict):
            parts = self.mapping(children["fields"], f"source {name}: fields")
            if not parts:
                raise self.error(f"source {name}: fields names none", children["fields"], "write a list of keys")
            found = {key: self._field(f"source {name}: field {key}", part) for key, part in parts.items()}
            meaning = replace(meaning, fields={key: one for key, one in found.items() if one})
            fields = list(parts)
        given = {
            key: fields if key == "fields" and fields else child.plain()
            for key, child in children.items()
            if key not in ("plates", "retention", *_MEANING)
        }
        kinds = [key for key in given if key in self._connectors]
        if kinds and "plates" in children:
            raise self.error(
                f"source {name}: its topic says on which plates it is", children["plates"].key_line, "remove plates"
            )
        if len(kinds) > 1:
            line = children[kinds[1]].key_line
            raise self.error(f"source {name}: {' and '.join(kinds)} exclude each other", line, "make them two sources")
        if not kinds:
            if given:
                key = next(iter(given))
                line = children[key].key_line or children[key].line
                hint = did_you_mean(key, [*self._connectors, "plates"])
                hint = hint if "?" in hint else f"add mqtt: TOPIC, or one of {', '.join(self._connectors)}"
                raise self.error(f"source {name}: {key} without a connector", line, hint)
            bound = self.texts(children["plates"], f"source {name}: plates") if self._has(children, "plates") else ()
        else:
            try:
                bound = self._checks.source(name, given)
            except ConfigurationError as error:
                line = self._line_of(children, kinds[0], error)
                raise self.error(_named("source", name, error.message), line, error.hint) from None
        for plate in bound:
            if plate not in plates:
                hint = did_you_mean(plate, plates)
                line = (children[kinds[0]] if kinds else children.get("plates") or item).line
                raise self.error(
                    f"source {name}: the plate {plate!r} is not declared",
                    line,
                    hint if "?" in hint else f"add '{plate}: {{}}' to plates",
                )
        return SourceDefinition(name, bound, source_options(given), meaning)

    def _field(self, what: str, item: Item) -> Meaning:
        return UNKNOWN if item.value is None else self._meaning(what, self.mapping(item, what, _MEANING))

    def _meaning(self, what: str, children: Mapping[str, Item]) -> Meaning:
        """What ``kind`` and ``unit`` say, where they are given."""
        kind: Kind | None = None
        if "kind" in children:
            given = self.text(children["kind"], f"{what}: kind")
            kind = next((one for one in KINDS if one == given), None)
            if kind is None:
                hint = did_you_mean(given, KINDS, "the kinds are")
                raise self.error(f"{what}: there is no kind {given!r}", children["kind"], hint)
        if "unit" not in children:
            return Meaning(kind)
        unit = self.text(children["unit"], f"{what}: unit")
        if not is_unit(unit):
            hint = "write for example unit: kWh; unit: '1' for what has none"
            raise self.error(f"{what}: {unit!r} is not a unit", children["unit"], hint)
        return Meaning(kind, unit)

    def _has(self, children: Mapping[str, Item], key: str) -> bool:
        return key in children and children[key].value not in (None, [])

    def _line_of(self, children: Mapping[str, Item], kind: str, error: ConfigurationError) -> int | None:
        """Of the option that the message names first, else of the connector's own."""
        named = [key for key in children if re.search(rf"\b{re.escape(key)}\b", error.message)]
        named.sort(key=error.message.find)
        child = children[named[0] if named else kind]
        return child.key_line or child.line

    # --- nodes ---

    def _node(
        self,
        name: str,
        item: Item,
        names: list[str],
        plates: Mapping[str, Plate],
        publish: Mapping[str, Any] | None,
    ) -> NodeDefinition:
        what = f"node {name}"
        children = self.mapping(item, what, (*_NODE, "retention"))
        if "tool" not in children:
            raise self.error(f"{what} has no tool", item.key_line or item.line, "write tool: NAME@^VERSION")
        pin = self.text(children["tool"], f"{what}: tool")
        inputs = self.texts(children["from"], f"{what}: from") if self._has(children, "from") else ()
        over, on, into = (
            self.texts(children[key], f"{what}: {key}") if self._has(children, key) else ()
            for key in ("over", "on", "into")
        )
        if len(into) > 1:
            raise self.error(f"{what}: into names one plate", children["into"], "split once more for another plate")
        dimensions = list(plates)
        for key, given, known in (
            ("from", inputs, names),
            ("over", over, dimensions),
            ("on", on, dimensions),
            ("into", into, dimensions),
        ):
            for word in given:
                if word not in known:
                    kind = "node or source" if key == "from" else "plate"
                    candidates = [other for other in known if other != name]
                    hint = did_you_mean(word, candidates)
                    raise self.error(f"{what}: there is no {kind} {word!r}", children[key], hint)
        tool = self._tool(what, pin, children)
        meaning = self._meaning(what, children)
        return NodeDefinition(name, tool, inputs, over, publish, pin, on, into[0] if into else None, meaning)

    def _tool(self, what: str, pin: str, children: Mapping[str, Item]) -> Tool:
        try:
            tool = self._registry.resolve(pin)
        except ConfigurationError as error:
            raise self.error(f"{what}: {error.message}", children["tool"], error.hint) from None
        given = self.mapping(children["with"], f"{what}: with") if "with" in children else {}
        parameters = {key: child.plain() for key, child in given.items()}
        if not self._allow_code and (code := tool.imports(parameters)):
            raise self.error(
                f"{what}: {tool.name} runs the code of {', '.join(code)}",
                children["with"],
                "that is left to who has the token of the service: set http.token_file, or write a workflow file",
            )
        try:
            return tool.build(parameters)
        except ConfigurationError as error:
            match = _PARAMETER.search(error.message)
            culprit = given.get(match.group(1)) if match else None
            line = (culprit or children.get("with") or children["tool"]).line
            hint = error.hint
            if culprit is not None and "has no parameter" in error.message and match:
                close = did_you_mean(match.group(1), tool.__dataclass_fields__)  # type: ignore[attr-defined]
                hint = close if close.endswith("?") else hint
            raise self.error(f"{what}: {error.message}", line, hint) from None

    # --- publish ---

    def _publish(
        self, top: Mapping[str, Item], nodes: Mapping[str, Item], sources: Mapping[str, Any]
    ) -> dict[str, dict[str, Any]]:
        result = {}
        for name, item in self._group(top, "publish"):
            what = f"publish {name}"
            if name not in nodes:
                hint = "its readings are on MQTT already" if name in sources else did_you_mean(name, nodes)
                kind = "a source, not a node" if name in sources else "no node"
                raise self.error(f"{what}: this is {kind}", item.key_line or item.line, hint)
            sinks = self._checks.publish
            options = self.mapping(item, what, sinks.keys)
            result[name] = {key: child.plain() for key, child in options.items()}
            for key, value in result[name].items():
                try:
                    sinks.check(key, value)
                except ConfigurationError as error:
                    raise self.error(f"{what}: {error.message}", options[key], error.hint) from None
        return result


def _named(kind: str, name: str, message: str) -> str:
    return message if name in message else f"{kind} {name}: {message}"
