"""Workflow files: the graph they give, and every mistake with its line and what to write instead."""

from __future__ import annotations

import json
import typing
from pathlib import Path
from typing import Any

import pytest

from hs_stream.core.errors import ConfigurationError, HsStreamError
from hs_stream.core.registry import ToolRegistry
from hs_stream.core.time import parse_time
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.plugins import default_registry
from hs_stream.service.connectors import Connectors
from hs_stream.service.settings import Settings, WatermarkSettings
from hs_stream.service.workflows.document import to_document
from hs_stream.service.workflows.file import MAX_FILE, WorkflowText, from_document, load_workflow, parse_workflow
from hs_stream.service.workflows.graph import dot, graph_json, mermaid
from hs_stream.service.workflows.loading import check_names, checks_of
from hs_stream_connectors.mqtt.packets import Message
from hs_stream_connectors.mqtt.source import MqttSource

COMFORT = """\
workflow: comfort
description: Comfort per room and house
online: true
start: 2026-01-01T00:00:00Z
plates:
  house: {}
  room: {parent: house, max: 200}
sources:
  climate:
    mqtt: "home/{house}/{room}/climate"
    codec: json
    time: {field: ts, unit: ms}
    fields: [temperature, humidity]
nodes:
  temperature: {tool: component@^1, from: climate, with: {key: temperature}}
  smooth: {tool: sliding_mean@^1, from: temperature, with: {width: 5m, every: 30s}}
  house_mean: {tool: aggregate@^1, from: smooth, over: room, with: {function: mean}}
  too_hot: {tool: threshold@^1, from: [house_mean], with: {above: 26, hysteresis: 0.5}}
publish:
  smooth: {retain: true, homeassistant: {device_class: temperature}}
  too_hot:
"""


@pytest.fixture(scope="module")
def registry() -> ToolRegistry:
    return default_registry()


def parse(text: str, registry: ToolRegistry) -> WorkflowDefinition:
    return parse_workflow(text, registry, "x.yaml", checks_of(Settings()))


def test_the_graph_of_a_file(registry: ToolRegistry) -> None:
    workflow = parse(COMFORT, registry)
    assert workflow.order == ("temperature", "smooth", "house_mean", "too_hot")
    assert workflow.node_plates["smooth"] == ("house", "room")
    assert workflow.node_plates["too_hot"] == ("house",)
    assert workflow.plates["room"].max == 200
    assert workflow.start == 1_767_225_600_000
    assert workflow.nodes["smooth"].publish == {"retain": True, "homeassistant": {"device_class": "temperature"}}
    assert workflow.nodes["too_hot"].publish == {}
    assert workflow.nodes["house_mean"].publish is None
    assert workflow.nodes["smooth"].tool.parameters()["width"] == "5m"


def test_how_old_readings_over_mqtt_may_be(registry: ToolRegistry) -> None:
    """2010 where neither the settings nor the source say otherwise, as dead letters tell."""

    def reads(moment: str, text: str, settings: Settings) -> bool:
        workflow = parse(COMFORT.replace("unit: ms}", f"unit: iso}}{text}"), registry)
        (source,) = Connectors(settings).sources_of([workflow])
        assert isinstance(source.source, MqttSource)
        payload = json.dumps({"ts": moment, "temperature": 1}).encode()
        message = Message(b"home/1/kitchen/climate", payload, 0, 0, False, False)
        return bool(source.source.decode([message], lambda: None).readings)

    old = Settings(watermark=WatermarkSettings(earliest=parse_time("1990-01-01T00:00:00Z", now=0)))
    assert not reads("2000-01-01T00:00:12Z", "", Settings())
    assert reads("2000-01-01T00:00:12Z", "", old)
    assert reads("2010-01-01T00:00:00Z", "", Settings())
    assert reads("2000-01-01T00:00:12Z", "\n    earliest: 2000-01-01T00:00:00Z", Settings())
    assert not reads("1999-12-31T23:59:59Z", "\n    earliest: 2000-01-01T00:00:00Z", old)


def test_a_document_and_back(registry: ToolRegistry) -> None:
    workflow = parse(COMFORT, registry)
    document = json.loads(json.dumps(to_document(workflow)))
    again = from_document(document, registry)
    assert to_document(again) == document
    assert again.fingerprints == workflow.fingerprints
    assert to_document(workflow, resolved=True)["nodes"]["smooth"]["tool"] == "sliding_mean@==1.0.0"
    assert parse(json.dumps(document), registry).fingerprints == workflow.fingerprints


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("component@^1", "componnt@^1", 15, "did you mean component"),
        ("component@^1", "component@^9", 15, "there is 1.0.0"),
        ("component@^1", "component@what", 15, "version range"),
        ("width: 5m", "wdth: 5m", 16, "did you mean width"),
        ("width: 5m", "width: 5 parsecs", 16, "'5m'"),
        ("{key: temperature}", "{}", 15, "needs the parameter 'key'"),
        ("from: climate", "from: climat", 15, "did you mean climate"),
        ("over: room", "over: rom", 17, "did you mean room"),
        ("over: room, ", "", 17, "needs 'over'"),
        ("from: temperature", "from: too_hot", 17, "form a circle"),
        ("online: true", "online: yes", 3, "true or false"),
        ("online:", "onlin:", 3, "did you mean online"),
        ("2026-01-01T00:00:00Z", "2026-01-01", 4, "no time zone"),
        ("2026-01-01T00:00:00Z", "-1h", 4, "relative"),
        ("  house: {}", "  house: {}\n  house: {}", 7, "occurs twice"),
        ("room: {parent", "rooms: {parent", 10, "'room' is not declared"),
        ("parent: house", "parent: hous", 7, "did you mean house"),
        ("max: 200", "max: 0", 7, "at least 1"),
        ("max: 200", "mx: 200", 7, "did you mean max"),
        ("{room}", "{ro om}", 10, "ro om"),
        ("codec: json", "codec: jsn", 11, "json, msgpack"),
        ("unit: ms", "unit: parsec", 12, "ms, s, us, ns"),
        ("    fields:", "    feilds:", 13, "feilds"),
        ("retain: true", "retian: true", 20, "did you mean retain"),
        ("device_class: temp", "device_clas: temp", 20, "did you mean device_class"),
        ("device_class: temperature", "device_class: temperatur", 20, "did you mean temperature"),
        ("retain: true", "retain: maybe", 20, "true or false"),
        ("retain: true", "payload: xml", 20, "json, msgpack, value"),
        ("  too_hot:\n", "  to_hot:\n", 21, "did you mean too_hot"),
        ("  smooth: {retain", "  climate: {retain", 20, "a source, not a node"),
        ("workflow: comfort", "workflow: 'two words'", 1, "not a stream name"),
        ("    codec: json", "   codec: json", 11, "not YAML"),
        ("  temperature: {tool", "  climate: {tool", 15, "both a source and a node"),
    ],
)
def test_a_mistake_names_its_line(registry: ToolRegistry, old: str, new: str, line: int, words: str) -> None:
    # publish has some names of nodes: the last occurrence counts there
    before, found, after = COMFORT.rpartition(old) if line >= 20 else COMFORT.partition(old)
    assert found
    with pytest.raises(ConfigurationError) as caught:
        parse(before + new + after, registry)
    message = str(caught.value)
    assert message.startswith(f"x.yaml:{line}: "), message
    assert words in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("- a", "not a mapping"),
        ("description: x", "no name"),
        ("a: [", "not YAML"),
        ("workflow: x\nnodes:\n\ta: b", "not YAML"),
        ("a: 1\n---\nb: 2", "not YAML"),
        ("!!python/object/apply:os.system [x]", "tag"),
        ("workflow: !!python/name:os.system x", "tag"),
        ("workflow: x\n<<: {a: 1}", "merge keys"),
        ("workflow: x\n? [a]\n: b", "key is not text"),
        ("a: &a [*a]", "nested more than"),
        ("[" * 5_000, "nested more than 40 deep"),
        ("workflow: .inf", "finite"),
        ("\x00", "not YAML"),
        ("workflow: x\nsources: {a: {codec: json}}", "add mqtt"),
        ("workflow: x\nsources: {a: {mqtt: 3}}", "mqtt is not text"),
        ("workflow: x\nnodes: {s: {}}", "no tool"),
        ("workflow: x\nnodes: {s: {tool: 3}}", "not text but 3"),
    ],
)
def test_what_is_no_workflow_is_refused(registry: ToolRegistry, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^x\.yaml") as caught:
        parse(text, registry)
    assert words in str(caught.value)


def test_aliases_cannot_blow_up(registry: ToolRegistry) -> None:
    lines = ["a0: &a0 [1, 1]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40))]
    with pytest.raises(ConfigurationError, match=r"more than 20000 keys and values|nested more than"):
        parse("\n".join(lines), registry)


def test_a_large_file_is_refused_where_it_becomes_too_large(registry: ToolRegistry) -> None:
    """Not at its end: reading 1 MB of small values took 22 s."""
    many = "workflow: big\nsources:\n" + "".join(f"  s{number}: {{mqtt: t/{number}}}\n" for number in range(30_000))
    with pytest.raises(ConfigurationError, match="more than 20000 keys and values") as caught:
        parse_workflow(many, registry, "big.yaml")
    assert caught.value.line is not None
    assert caught.value.line < 8_000
    document = {"workflow": "big", "sources": {f"s{number}": {"mqtt": "t"} for number in range(30_000)}}
    with pytest.raises(ConfigurationError, match="more than 20000 keys and values"):
        WorkflowText.read(json.dumps(document), "big", as_json=True)


def test_what_is_nested_too_deep_is_refused_at_its_level(registry: ToolRegistry) -> None:
    for deep in ("[" * 100_000, "{a: " * 100_000, "\n".join(" " * level + "a:" for level in range(1, 500))):
        with pytest.raises(ConfigurationError, match="nested more than 40 deep"):
            parse_workflow(f"workflow: deep\nx:\n {deep}", registry, "deep.yaml")
    for text in ("[" * 60 + "]" * 60, '{"a":' * 60 + "1" + "}" * 60):
        with pytest.raises(ConfigurationError, match="nested more than 40 deep"):
            WorkflowText.read(text, "deep", as_json=True)


def test_plates_are_not_nested_without_end(registry: ToolRegistry) -> None:
    plates = "".join(f"  p{number}: {{parent: p{number - 1}}}\n" for number in range(1, 3000))
    with pytest.raises(ConfigurationError, match="plate p21 has more than 20 plates above it"):
        parse_workflow(f"workflow: deep\nplates:\n  p0: {{}}\n{plates}", registry, "deep.yaml")


def test_the_types_of_a_tool_are_looked_up_once(registry: ToolRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Any] = []
    real = typing.get_type_hints

    def look(kind: Any) -> Any:
        looked.append(kind)
        return real(kind)

    monkeypatch.setattr(typing, "get_type_hints", look)
    nodes = "".join(f"  n{number}: {{tool: component, from: s, with: {{key: k{number}}}}}\n" for number in range(50))
    parse_workflow(f"workflow: many\nsources: {{s: {{mqtt: t}}}}\nnodes:\n{nodes}", registry, "many.yaml")
    assert len(looked) <= 3


def test_files_that_cannot_be_read(registry: ToolRegistry, tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_bytes(b"#" * (MAX_FILE + 1))
    with pytest.raises(ConfigurationError, match="at most"):
        load_workflow(path, registry)
    path.write_bytes(b"workflow: x\ndescription: \xff\n")
    with pytest.raises(ConfigurationError, match=r"big\.yaml:2: this is not UTF-8"):
        load_workflow(path, registry)
    with pytest.raises(ConfigurationError, match="No such file"):
        load_workflow(tmp_path / "none.yaml", registry)


def test_a_source_without_a_topic_says_its_plates(registry: ToolRegistry) -> None:
    workflow = parse("workflow: x\nplates: {room: {}}\nsources: {a: {plates: [room]}, b: {}}", registry)
    assert workflow.node_plates == {"a": ("room",), "b": ()}
    assert from_document(to_document(workflow), registry).node_plates == workflow.node_plates
    with pytest.raises(ConfigurationError, match=r"x\.yaml:2: .*its topic says"):
        parse("workflow: x\nsources: {a: {mqtt: t, plates: [room]}}", registry)


KEPT = """\
workflow: kept
plates: {room: {}}
sources:
  climate: {mqtt: "home/{room}/climate", retention: 30d}
  old: {plates: [room], retention: forever}
nodes:
  smooth: {tool: sliding_mean@^1, from: climate, with: {width: 5m}, retention: 1h30m}
"""


def test_how_long_things_are_kept(registry: ToolRegistry) -> None:
    workflow = parse(KEPT, registry)
    assert workflow.retention == {"climate": 30 * 86_400_000, "smooth": 5_400_000}
    assert workflow.sources["climate"].options == {"mqtt": "home/{room}/climate", "codec": "json"}
    assert workflow.fingerprints == parse(KEPT.replace(", retention: 30d", ""), registry).fingerprints
    document = json.loads(json.dumps(to_document(workflow)))
    assert document["sources"]["climate"]["retention"] == "30d"
    assert document["nodes"]["smooth"]["retention"] == "1h30m"
    again = from_document(document, registry)
    assert again.retention == workflow.retention
    assert to_document(again) == document


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("30d", "long", 4, "climate: retention: 'long'"),
        ("30d", "5", 4, "retention is not text but 5"),
        ("30d", "0s", 4, "longer than 0"),
        ("1h30m", "-1h", 7, "longer than 0"),
        ("retention: 30d", "retentoin: 30d", 4, "retentoin"),
        ("retention: 1h30m", "retentoin: 1h", 7, "did you mean retention"),
        ("{room: {}}", "{room: {from: smooth}}", 7, "the values of a plate come from it"),
    ],
)
def test_mistakes_in_retention(registry: ToolRegistry, old: str, new: str, line: int, words: str) -> None:
    assert old in KEPT
    with pytest.raises(ConfigurationError) as caught:
        parse(KEPT.replace(old, new), registry)
    assert str(caught.value).startswith(f"x.yaml:{line}: ")
    assert words in str(caught.value)


def test_names_are_global(registry: ToolRegistry) -> None:
    first = parse(COMFORT, registry)
    second = parse("workflow: other\nsources: {climate: {mqtt: x}}", registry)
    with pytest.raises(ConfigurationError, match="rename one of them"):
        check_names([first, second])
    with pytest.raises(HsStreamError, match="rename one of them"):
        check_names([first, first])


def test_graphs(registry: ToolRegistry) -> None:
    workflow = parse(COMFORT, registry)
    graph = graph_json(workflow)
    assert [node["id"] for node in graph["nodes"]] == ["climate", "temperature", "smooth", "house_mean", "too_hot"]
    assert {"from": "smooth", "to": "house_mean", "slot": 0} in graph["edges"]
    assert json.loads(json.dumps(graph)) == graph
    assert "n1 --> n2" in mermaid(workflow)
    assert mermaid(workflow).startswith("flowchart LR\n")
    assert '"smooth" -> "house_mean";' in dot(workflow)
