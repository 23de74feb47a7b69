"""Kinds and units: said by sources and nodes, carried by tools, and doubted where they are probably not meant."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from typer.testing import CliRunner

from hs_stream.cli import app
from hs_stream.core.errors import ConfigurationError
from hs_stream.core.kinds import KINDS, Meaning
from hs_stream.core.workflow import WorkflowDefinition, check_shared
from hs_stream.plugins import default_registry
from hs_stream.service.settings import Settings
from hs_stream.service.tool_docs import tool_json
from hs_stream.service.workflows.catalog import plan
from hs_stream.service.workflows.document import to_document
from hs_stream.service.workflows.doubts import doubts_about
from hs_stream.service.workflows.file import parse_workflow
from hs_stream.service.workflows.graph import graph_json
from hs_stream.service.workflows.loading import checks_of
from tests.service.conftest import ROOT

HEAD = """\
workflow: w
plates: {room: {}}
sources:
  climate: {mqtt: "{room}", fields: {temperature: {kind: state, unit: °C}, humidity: , rain: {unit: mm, kind: amount}}}
  power: {mqtt: "h/{room}/power", codec: number, kind: state, unit: W}
  meter: {mqtt: "h/{room}/meter", codec: number, kind: counter, unit: kWh}
  pulse: {mqtt: "h/{room}/pulse", codec: number, kind: amount, unit: L}
  bell: {mqtt: "h/{room}/bell", codec: number, kind: event}
  lux: {mqtt: "h/{room}/lux", codec: number, kind: sample}
  raw: {mqtt: "h/{room}/raw", codec: number}
nodes:
"""
SOLAR = HEAD.replace(
    "nodes:\n",
    """  solar: {mqtt: "h/{room}/solar", codec: number, kind: state, unit: kW}
  price: {mqtt: "h/{room}/price", codec: number, kind: state, unit: EUR/kWh}
nodes:
""",
)
FIRST = HEAD.count("\n") + 1


def loaded(*nodes: str, head: str = HEAD) -> WorkflowDefinition:
    text = head + "".join(f"  {node}\n" for node in nodes)
    return parse_workflow(text, default_registry(), "w.yaml", checks_of(Settings()))


def said(*nodes: str, head: str = HEAD) -> list[str]:
    """Without what is said of instants, which other tests are about."""
    doubts = doubts_about(Settings(), [loaded(*nodes, head=head)])
    return [str(doubt) for doubt in doubts if "by chance only" not in str(doubt)]


def test_kinds_and_units_are_carried_from_sources_to_outputs() -> None:
    workflow = loaded(
        "t: {tool: component, from: climate, with: {key: temperature}}",
        "h: {tool: component, from: climate, with: {key: humidity}}",
        "both: {tool: as_of_join, from: [power, t], with: {names: [p, t]}}",
        "again: {tool: component, from: both, with: {key: p}}",
        "only: {tool: component_set, from: both, with: {keys: [t]}}",
        "on: {tool: threshold@^2, from: power, with: {above: 5}}",
        "hours: {tool: time_in_state, from: on, with: {state: true, period: day, unit: 1h}}",
        "day: {tool: utility_meter@^2, from: meter, with: {period: day}}",
        "today: {tool: utility_meter@^2, from: meter, with: {period: day, running: true}}",
        "month: {tool: sliding_sum@^2, from: day, with: {period: month}}",
        "lately: {tool: sliding_sum@^2, from: pulse, with: {width: 1h}}",
        "total: {tool: sliding_sum@^2, from: month, over: , with: {period: year}, kind: amount, unit: MWh}",
        "all: {tool: aggregate@^2, from: power, over: room, with: {function: sum, hold: 5m}}",
        "many: {tool: aggregate@^2, from: power, over: room, with: {function: count, hold: 5m}}",
        "held: {tool: last_value, from: [bell, power]}",
        "made: {tool: expression, from: power, with: {expression: value / 1000}}",
        "made_and_said: {tool: expression, from: power, with: {expression: value / 1000}, kind: state, unit: kW}",
    )
    found = {name: workflow.meanings[name] for name in workflow.nodes}
    watts, celsius = Meaning("state", "W"), Meaning("state", "°C")
    assert found == {
        "t": celsius,
        "h": Meaning(),
        "both": Meaning(fields={"p": watts, "t": celsius}),
        "again": watts,
        "only": Meaning(fields={"t": celsius}),
        "on": Meaning("state", "1"),
        "hours": Meaning("amount", "h"),
        "day": Meaning("amount", "kWh"),
        "today": Meaning("counter", "kWh"),
        "month": Meaning("amount", "kWh"),
        "lately": Meaning("sample", "L"),
        "total": Meaning("amount", "MWh"),
        "all": watts,
        "many": Meaning("state", "1"),
        "held": watts,
        "made": Meaning(),
        "made_and_said": Meaning("state", "kW"),
    }
    shown = {node["id"]: node["meaning"] for node in graph_json(workflow)["nodes"]}
    assert shown["t"] == {"kind": "state", "unit": "°C"}
    assert shown["h"] == {}
    assert shown["climate"] == {
        "fields": {"temperature": {"kind": "state", "unit": "°C"}, "rain": {"kind": "amount", "unit": "mm"}}
    }
    assert workflow.sources["climate"].options["fields"] == ["temperature", "humidity", "rain"]


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (
            "{tool: sliding_mean@^2, from: power, with: {period: day}}",
            "counts each message once, however long it lasted (write weight: time)",
        ),
        ("{tool: sliding_mean@^1, from: power, with: {width: 1h}}", "(write sliding_mean@^2 with weight: time)"),
        ("{tool: sliding_std@^2, from: power, with: {period: day}}", "(write weight: time)"),
        ("{tool: sliding_median@^2, from: power, with: {period: day}}", "put it on a grid first, with last_value"),
        ("{tool: sliding_min@^1, from: power, with: {width: 1h}}", "(write sliding_min@^2 with held: true)"),
        ("{tool: sliding_max@^2, from: power, with: {period: day}}", "leaves out what held as its window began"),
        ("{tool: resample, from: power, with: {every: 1h, method: mean}}", "write sliding_mean@^2"),
        ("{tool: resample, from: power, with: {every: 1h, method: max}}", "(write sliding_max@^2 with held: true)"),
        ("{tool: sliding_sum@^2, from: power, with: {period: day}}", "write integral@^2"),
        (
            "{tool: sliding_sum@^1, from: meter, with: {width: 1d}}",
            "meter is a counter, and sliding_sum adds a total once",
        ),
        (
            "{tool: sliding_mean@^2, from: meter, with: {period: day}}",
            "write utility_meter@^2 for what it counted per period",
        ),
        ("{tool: ewma, from: meter, with: {time_constant: 1h}}", "says how old the meter is"),
        ("{tool: sliding_change, from: meter, with: {period: day}}", "takes a reset for a fall"),
        (
            "{tool: utility_meter@^1, from: power, with: {period: day}}",
            "power is a state, and utility_meter reads a counter",
        ),
        (
            "{tool: utility_meter@^2, from: pulse, with: {period: day}}",
            "(write sliding_sum@^2, or say kind: counter if it is one)",
        ),
        ("{tool: utility_meter@^2, from: meter, with: {period: day, delta: true}}", "(remove delta: true)"),
        ("{tool: increase, from: lux, with: {width: 1h, every: 1h}}", "lux is a sample, and increase reads a counter"),
        ("{tool: integral@^2, from: meter, with: {unit: 1h}}", "a counter is such a total already"),
        ("{tool: integral@^1, from: pulse}", "pulse is an amount, and integral adds up a rate over time"),
        ("{tool: integral@^2, from: bell}", "bell is an event, and integral reads a state or a sample"),
        ("{tool: derivative@^1, from: meter}", "(write derivative@^2 with counter: true)"),
        ("{tool: derivative@^2, from: meter}", "(write counter: true)"),
        ("{tool: change_detect, from: pulse}", "leaves out those that are equal"),
        ("{tool: aggregate@^2, from: power, over: room, with: {function: sum}}", "write aggregate@^2 with hold: 10m"),
    ],
)
def test_what_a_kind_is_probably_not_meant_for(node: str, words: str) -> None:
    [line] = said(f"x: {node}")
    assert line.startswith(f"w.yaml:{FIRST}: node x: ")
    assert words in line


@pytest.mark.parametrize(
    "node",
    [
        "{tool: sliding_mean@^2, from: power, with: {period: day, weight: time, max_age: 1h}}",
        "{tool: sliding_min@^2, from: power, with: {period: day, held: true}}",
        "{tool: sliding_mean, from: lux, with: {width: 1h}}",
        "{tool: sliding_max, from: meter, with: {width: 1h}}",
        "{tool: sliding_sum, from: pulse, with: {width: 1h}}",
        "{tool: sliding_count, from: power, with: {width: 1h}}",
        "{tool: resample, from: power, with: {every: 1h, method: last}}",
        "{tool: utility_meter, from: meter, with: {period: day}}",
        "{tool: utility_meter@^2, from: pulse, with: {period: day, delta: true}}",
        "{tool: derivative@^2, from: meter, with: {counter: true}}",
        "{tool: integral, from: power, with: {unit: 1h}}",
        "{tool: last_value, from: [meter, power]}",
        *(
            f"{{tool: {tool}, from: raw, with: {{period: day}}}}"
            for tool in ("sliding_mean", "sliding_sum", "utility_meter", "integral")
        ),
    ],
)
def test_what_may_well_be_meant_gives_no_doubt(node: str) -> None:
    assert said(f"x: {node}") == []


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (
            "{tool: expression, from: [power, solar], with: {expression: a + b}}",
            "(put a node between that converts one of them: {tool: convert, from: solar, with: {of: kW, to: W}})",
        ),
        (
            "{tool: expression, from: [power, solar], with: {expression: 'a if a > 2 * b else b'}}",
            "power (W) and solar (kW)",
        ),
        ("{tool: expression, from: [power, solar], with: {expression: 'max(abs(a), b)'}}", "abs(a) (W) and solar (kW)"),
        ("{tool: expression, from: both, with: {expression: p - s > 5}}", "p (W) and s (kW)"),
        (
            "{tool: convert, from: power, with: {of: kW, to: W}}",
            "convert puts together power (W) and of (kW) as if they were in one unit (write of: W)",
        ),
    ],
)
def test_units_that_differ_meet(node: str, words: str) -> None:
    both = "both: {tool: combine_latest, from: [power, solar], with: {names: [p, s]}}"
    [line] = said(both, f"x: {node}", head=SOLAR)
    assert line.startswith(f"w.yaml:{SOLAR.count(chr(10)) + 2}: node x: ")
    assert words in line


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (
            "{tool: expression, from: [power, meter], with: {expression: a + b}}",
            "expression puts together power (W) and meter (kWh): neither becomes the other",
        ),
        ("{tool: expression, from: climate, with: {expression: temperature > rain}}", "temperature (°C) and rain (mm)"),
        ("{tool: convert, from: power, with: {of: °C, to: °F}}", "power (W) and of (°C)"),
        ("{tool: convert, from: power, with: {of: W, to: °F}}", "no W becomes °F"),
    ],
)
def test_units_that_do_not_become_each_other_are_refused(node: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded("fine: {tool: copy, from: lux}", f"x: {node}")
    assert str(caught.value).startswith(f"w.yaml:{FIRST + 1}: node x: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("node", "unit"),
    [
        ("{tool: expression, from: power, with: {expression: value + 5}}", "W"),
        ("{tool: expression, from: power, with: {expression: value / 1000}}", None),
        ("{tool: expression, from: climate, with: {expression: (temperature - 32) / 1.8}}", None),
        ("{tool: expression, from: climate, with: {expression: temperature + 273.15}}", None),
        ("{tool: expression, from: [t, t], with: {expression: a - b}}", "K"),
        ("{tool: expression, from: [t, t, t], with: {expression: a + (b - c)}}", "°C"),
        ("{tool: expression, from: power, with: {expression: value > 5}}", "1"),
        ("{tool: expression, from: [meter, price], with: {expression: a * b}}", "EUR"),
        ("{tool: product, from: [meter, price]}", "EUR"),
        ("{tool: integral@^2, from: power, with: {unit: 1h, period: day}}", "Wh"),
        ("{tool: integral@^2, from: power, with: {unit: 1h, scale: 0.001}}", "kWh"),
        ("{tool: integral@^1, from: power}", "J"),
        ("{tool: integral@^1, from: power, with: {unit: 7s}}", None),
        ("{tool: derivative@^2, from: meter, with: {unit: 1h, counter: true}}", "kW"),
        ("{tool: derivative@^1, from: t, with: {unit: 1h}}", "K/h"),
        ("{tool: sliding_std@^2, from: t, with: {width: 1h, every: 1h, weight: time}}", "K"),
        ("{tool: convert, from: power, with: {of: W, to: kW}}", "kW"),
    ],
)
def test_units_of_what_tools_make(node: str, unit: str | None) -> None:
    t = "t: {tool: component, from: climate, with: {key: temperature}}"
    assert loaded(t, f"x: {node}", head=SOLAR).meanings["x"].unit == unit


def test_pint_is_imported_when_units_meet_first() -> None:
    """And not by who names units that need nobody to know what they mean."""
    code = """if True:
        import sys
        from tests.service.test_kinds import loaded
        loaded("x: {tool: sliding_max@^2, from: power, with: {period: day, held: true}}")
        assert "pint" not in sys.modules
        loaded("x: {tool: integral, from: power, with: {unit: 1h}}")
        assert "pint" in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=50)


def test_a_node_that_says_its_kind_is_believed() -> None:
    scaled = "k: {tool: expression, from: meter, with: {expression: value / 1000}%s}"
    mean = "x: {tool: sliding_mean@^2, from: k, with: {period: day}}"
    assert said(scaled % "", mean) == []
    [line] = said(scaled % ", kind: counter", mean)
    assert line.startswith(f"w.yaml:{FIRST + 1}: node x: k is a counter")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("kind: sample", "kind: gauge", "w.yaml:9: source lux: there is no kind 'gauge' (the kinds are sample, state,"),
        ("kind: sample", "kind: sampel", "(did you mean sample?)"),
        ("kind: sample", "kind: 3", "w.yaml:9: source lux: kind is not text"),
        ("unit: kWh", "unit: [kWh]", "w.yaml:6: source meter: unit is not text"),
        ("unit: kWh", "unit: ' kWh'", "w.yaml:6: source meter: ' kWh' is not a unit"),
        ("unit: mm", "units: mm", "w.yaml:4: source climate: field rain: there is no key 'units' (did you mean unit?)"),
        ("unit: mm, kind: amount", "kind: total", "w.yaml:4: source climate: field rain: there is no kind 'total'"),
        ("rain: {unit: mm, kind: amount}", "rain: mm", "w.yaml:4: source climate: field rain is not a mapping"),
    ],
)
def test_what_is_said_wrongly_is_refused(old: str, new: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(head=HEAD.replace(old, new))
    assert words in str(caught.value)


def test_a_node_that_says_it_wrongly_is_refused() -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded("x: {tool: copy, from: lux, kind: gauge}")
    assert f"w.yaml:{FIRST}: node x: there is no kind 'gauge'" in str(caught.value)


def without_meaning(workflow: WorkflowDefinition) -> WorkflowDefinition:
    return replace(
        workflow,
        sources={name: replace(source, meaning=Meaning()) for name, source in workflow.sources.items()},
        nodes={name: replace(node, meaning=Meaning()) for name, node in workflow.nodes.items()},
    )


def test_what_values_mean_changes_no_result_and_nothing_is_computed_again() -> None:
    with_kinds = loaded("x: {tool: copy, from: lux, kind: state, unit: lx}")
    without = without_meaning(with_kinds)
    assert with_kinds.fingerprints == without.fingerprints
    assert to_document(with_kinds) != to_document(without)
    changes = plan("w", without, with_kinds)
    assert (changes.action, changes.changed, changes.new, changes.unchanged) == ("change", (), (), ("x",))


def test_two_workflows_say_the_same_of_what_they_share_or_one_says_nothing() -> None:
    one = loaded("x: {tool: copy, from: lux, kind: state}")
    check_shared(one, without_meaning(one))
    check_shared(without_meaning(one), one)
    other = replace(one, nodes={"x": replace(one.nodes["x"], meaning=Meaning("sample"))}, path="other.yaml")
    with pytest.raises(ConfigurationError) as caught:
        check_shared(one, other)
    assert "(other.yaml), differently: the kind state and the kind sample" in str(caught.value)


PARAMETERS_DECIDE = {
    *("apply", "expression", "relative_apply", "relative_apply2", "sliding_apply", "aggregate_into_dict_and_apply"),
    *("aligned_merge", "as_of_join", "combine_latest", "group_fields", "dict_values_to_const"),
    *("aggregate_plate", "asset_splitter", "asset_writer", "dataset", "histogram_from_list", "index_of_by_stream"),
    *("list_dict_mean", "list_dict_sum", "list_mean", "list_sum", "minibatch", "minibatch_by_time", "slice"),
    *("percentiles_from_list", "product", "relative_window", "sliding_listify", "splitter_of_dict"),
    *("splitter_of_list", "splitter_with_unlist"),
}


def test_every_tool_says_what_it_makes() -> None:
    """But for those of which parameters, or a function, decide it."""
    silent = {tool.name for tool in default_registry() if tool.output_kind == "unknown"}
    assert silent == PARAMETERS_DECIDE
    for tool in default_registry():
        assert set(tool.input_kinds) <= set(KINDS)
        document: dict[str, Any] = tool_json(tool)
        assert document["output_kind"] == tool.output_kind


def test_tools_show_says_the_kinds() -> None:
    result = CliRunner().invoke(app, ["tools", "show", "integral@^2"])
    assert result.exit_code == 0
    assert "kinds: reads state or sample, makes amount, in the unit of its input times the time `unit`" in result.stdout
