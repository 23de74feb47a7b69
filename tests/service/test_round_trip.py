"""Python builder, definition, document and YAML text are views of one object."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from hs_stream import Workflow
from hs_stream.core.errors import ConfigurationError
from hs_stream.core.kinds import KINDS, Meaning
from hs_stream.core.plate import Plate
from hs_stream.core.time import TimeInterval, TimeIntervals, from_ms
from hs_stream.core.workflow import NodeDefinition, SourceDefinition, WorkflowDefinition
from hs_stream.plugins import default_registry
from hs_stream.service.workflows.document import to_document
from hs_stream.service.workflows.file import from_document, parse_workflow
from hs_stream.service.workflows.yaml_items import write_yaml
from hs_stream.testing.strategies import demands, workflows
from hs_stream_tools import functions

REGISTRY = default_registry()
NOW = 1_700_000_000_123


def comparable(workflow: WorkflowDefinition) -> dict[str, Any]:
    """Everything that is said, with tools as name, version and parameters; not where it was said."""
    fields = {
        field.name: getattr(workflow, field.name)
        for field in dataclasses.fields(workflow)
        if field.name not in ("path", "lines", "nodes", "order")
    }
    nodes = {
        name: dataclasses.replace(node, tool=None, pin="")  # type: ignore[arg-type]
        for name, node in workflow.nodes.items()
    }
    tools = {name: (node.tool.pin, node.tool.parameters()) for name, node in workflow.nodes.items()}
    return fields | {"nodes": nodes, "tools": tools, "order": list(workflow.order)}


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\x85\u2028\u2029\ufeff"), min_size=1)


BARE = workflows(REGISTRY)  # once: it tries every tool


@st.composite
def dressed(draw: st.DrawFn) -> WorkflowDefinition:
    """Any graph, with everything that a workflow may say besides: topics, parts, pins, publications, times."""
    bare = draw(BARE)
    part = Plate("part", of="room", values=draw(st.sampled_from(PARTS)), complement=draw(st.booleans()))
    sources = {name: draw(sources_like(source)) for name, source in bare.sources.items()}
    nodes = {name: draw(nodes_like(bare, node)) for name, node in bare.nodes.items()}
    workflow = dataclasses.replace(
        bare,
        description=draw(st.just("") | texts.filter(str.strip)),
        plates={**bare.plates, "part": part},
        sources=sources,
        nodes=nodes,
    )
    return draw(demands(workflow, NOW))


PARTS = [
    ((("room", "a"),), (("room", "No"),)),
    ((("house", "1"), ("room", "0x1f")),),
    ((("house", "1"), ("room", "a")), (("house", "2"), ("room", "1e3"))),
]


MEANINGS = st.builds(
    Meaning, st.none() | st.sampled_from(KINDS), st.none() | st.sampled_from(["W", "°C", "1", "EUR/kWh", "%"])
)


@st.composite
def sources_like(draw: st.DrawFn, source: SourceDefinition) -> SourceDefinition:
    options: dict[str, Any] = {
        "mqtt": f"home/{{house}}/{source.name}/{{room}}",
        "codec": draw(st.sampled_from(["json", "msgpack"])),
    }
    if draw(st.booleans()):
        options["time"] = draw(st.sampled_from(["arrival", {"field": "ts", "unit": "ms"}]))
    if draw(st.booleans()):
        options["fields"] = draw(st.lists(texts, min_size=1, max_size=3, unique=True))
    options = draw(st.just({}) | st.just(options))
    fields = draw(st.dictionaries(st.sampled_from(options["fields"]), MEANINGS)) if "fields" in options else {}
    meaning = dataclasses.replace(draw(MEANINGS), fields={name: one for name, one in fields.items() if one})
    return dataclasses.replace(source, options=options, meaning=meaning)


@st.composite
def nodes_like(draw: st.DrawFn, workflow: WorkflowDefinition, node: NodeDefinition) -> NodeDefinition:
    publish = draw(
        st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "retain": st.booleans(),
                "payload": st.sampled_from(["json", "msgpack", "value"]),
                "homeassistant": st.fixed_dictionaries(
                    {},
                    optional={
                        "name": texts,
                        "icon": texts,
                        "force_update": st.booleans(),
                        "expire_after": st.sampled_from(["10m", "1h", 60]),
                        "suggested_display_precision": st.integers(0, 20),
                    },
                ),
            },
        )
    )
    on = node.on
    if not on and "room" in workflow.node_plates[node.name] and draw(st.booleans()):
        on = ("part",)
    over = node.over
    if over and over[-1] == "room" and draw(st.booleans()):
        over = (*over[:-1], "part")
    pin = f"{node.tool.name}@^1"
    if REGISTRY.resolve(pin) is not type(node.tool) or draw(st.booleans()):
        pin = ""  # it is saved with its exact version
    return dataclasses.replace(node, publish=publish, pin=pin, on=on, over=over, meaning=draw(MEANINGS))


def fields_of(source: SourceDefinition) -> dict[str, Any]:
    """The fields, each with its kind and unit, where one has any."""
    said = source.meaning.fields
    if not said:
        return {}
    pairs = {
        name: {"kind": said[name].kind, "unit": said[name].unit} if name in said else {}
        for name in source.options["fields"]
    }
    return {"fields": {name: {key: value for key, value in pair.items() if value} for name, pair in pairs.items()}}


def build(workflow: WorkflowDefinition) -> WorkflowDefinition:
    """The same in Python."""
    made = Workflow(
        workflow.name,
        description=workflow.description,
        online=workflow.online,
        start=None if workflow.start is None else from_ms(workflow.start),
        requested_intervals=list(workflow.requested_intervals),
        registry=REGISTRY,
    )
    plates = {
        plate.name: made.plate(
            plate.name,
            parent=plate.parent,
            max=None if plate.of else plate.max,
            values=[dict(meta) for meta in plate.values],
            of=plate.of,
            complement=plate.complement,
            source=plate.source,
        )
        for plate in workflow.plates.values()
    }
    nodes = {
        source.name: made.source(
            source.name,
            plates=[plates[name] for name in source.plates],
            kind=source.meaning.kind,
            unit=source.meaning.unit,
            **{**source.options, **fields_of(source)},
        )
        for source in workflow.sources.values()
    }
    for node in workflow.nodes.values():
        nodes[node.name] = made.factor(
            node.tool.name,
            *[nodes[name] for name in node.inputs],
            name=node.name,
            version=node.pin.partition("@")[2] or f"=={node.tool.version}",
            over=[plates[name] for name in node.over],
            on=[plates[name] for name in node.on],
            into=None if node.into is None else plates[node.into],
            **node.tool.parameters(),
        )
        nodes[node.name].means(node.meaning.kind, node.meaning.unit)
        if node.publish is not None:
            nodes[node.name].publish(**node.publish)
    return made.definition


@given(workflow=dressed())
@settings(max_examples=30, deadline=None, derandomize=True, phases=[Phase.generate])  # learning tools draw slowly
@pytest.mark.timeout(240)
def test_every_view_is_the_same_object(workflow: WorkflowDefinition) -> None:
    document = to_document(workflow)
    text = write_yaml(document)
    views = {
        "builder": build(workflow),
        "document": from_document(document, REGISTRY),
        "JSON": parse_workflow(json.dumps(document), REGISTRY, as_json=True),
        "YAML": parse_workflow(text, REGISTRY),
    }
    for name, view in views.items():
        assert comparable(view) == comparable(workflow), name
        assert to_document(view) == document, name
    assert write_yaml(to_document(views["YAML"])) == text
    exact = to_document(workflow, resolved=True)
    again = from_document(exact, REGISTRY)
    assert comparable(again) == comparable(workflow)
    assert to_document(again) == exact


def test_what_is_drawn_says_everything() -> None:
    """The test above means something."""
    seen: set[str] = set()

    @given(workflow=dressed())
    @settings(max_examples=150, deadline=None, derandomize=True)
    def look(workflow: WorkflowDefinition) -> None:
        document = to_document(workflow)
        seen.update(document)
        for group in ("plates", "nodes", "publish", "sources"):
            seen.update(f"{group}.{key}" for item in document[group].values() for key in item)

    look()
    assert seen >= {"description", "start", "requested_intervals", "plates.of", "plates.values", "plates.complement"}
    assert seen >= {"plates.from", "plates.parent", "nodes.on", "nodes.into", "nodes.over", "nodes.with"}
    assert seen >= {"publish.retain", "publish.payload", "publish.homeassistant", "sources.mqtt", "sources.plates"}


def test_what_has_no_text_is_refused() -> None:
    with Workflow("w", registry=REGISTRY) as w:
        w.source("s", mqtt="s").apply(lambda value: value + 1, name="n")
    with pytest.raises(
        ConfigurationError, match=r"workflow w: node n: .*cannot be saved: it has no import path .*move it"
    ):
        w.to_yaml()


def test_a_function_of_a_module_is_saved_by_its_import_path() -> None:
    with Workflow("w", registry=REGISTRY) as w:
        w.source("s", mqtt="s").apply(math.sqrt, name="n")
    text = w.to_yaml()
    assert "function: math:sqrt" in text
    assert comparable(parse_workflow(text, REGISTRY)) == comparable(w.definition)


def test_code_that_parameters_name_is_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else who may not run code here could name it in a workflow that is put over HTTP."""
    load = functions.load
    loaded: set[str] = set()
    naming: set[str] = set()

    def spy(path: str) -> Any:
        loaded.add(path)
        return load(path)

    monkeypatch.setattr(functions, "load", spy)
    for tool in REGISTRY:
        for sample in tool.samples:
            loaded.clear()
            tool.build(sample)
            assert loaded <= set(tool.imports(sample)), f"{tool.name} needs a Tool.imports of its own"
            naming |= {tool.name} if loaded else set()
    assert naming >= {"apply", "relative_apply2", "custom", "meta_instance"}


def test_requested_intervals_in_a_file() -> None:
    text = "workflow: w\nonline: false\nrequested_intervals:\n{}\nsources: {{r: {{}}}}\n"

    def parse(lines: str) -> WorkflowDefinition:
        return parse_workflow(text.format(lines), REGISTRY, "x.yaml")

    made = parse("  - [2026-01-01T00:00:00Z, 2026-01-02T00:00:00Z]\n  - [2026-01-02T00:00:00Z, '2026-01-03T00:00:00Z']")
    day = 86_400_000
    assert made.requested_intervals == TimeIntervals([(1_767_225_600_000, 1_767_225_600_000 + 2 * day)])
    assert to_document(made)["requested_intervals"] == [["2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z"]]
    for lines, words in (
        ("  - [2026-01-02T00:00:00Z, 2026-01-01T00:00:00Z]", "x.yaml:4: requested_intervals: .* does not end after"),
        ("  - [2026-01-02T00:00:00Z]", "x.yaml:4: .* is not an interval .*write"),
        ("  [2026-01-02T00:00:00Z, 2026-01-03T00:00:00Z]", "x.yaml:4: .* is not an interval"),
        ("  - [-1h, now]", "x.yaml:4: .* is relative"),
        ("  - [2026-01-02, 2026-01-03]", "x.yaml:4: .*no time zone"),
        ("  7", "x.yaml:4: requested_intervals: 7 is not an interval"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            parse(lines)
    with pytest.raises(ConfigurationError, match=r"x\.yaml:2: requested_intervals ask for parts of what is online"):
        parse_workflow(
            "workflow: w\nrequested_intervals: [[2026-01-01T00:00:00Z, 2026-01-02T00:00:00Z]]", REGISTRY, "x.yaml"
        )


def test_requested_intervals_in_python() -> None:
    pairs: list[Any] = [(from_ms(0), from_ms(1000)), TimeInterval(2000, 3000)]
    w = Workflow("w", online=False, requested_intervals=pairs, registry=REGISTRY)
    w.source("s")
    assert w.definition.requested_intervals == TimeIntervals([(0, 1000), (2000, 3000)])


def test_what_two_nodes_share_is_written_twice() -> None:
    shared = {"a": [0, 1]}
    assert write_yaml({"one": shared, "two": shared}) == "one:\n  a: [0, 1]\ntwo:\n  a: [0, 1]\n"
