"""Doubts: what loads and is probably not meant, said with file, line and what to write instead."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hs_stream.cli import app
from hs_stream.core.errors import ConfigurationError
from hs_stream.plugins import default_registry
from hs_stream.service.settings import Settings
from hs_stream.service.workflows.doubts import doubts_about
from hs_stream.service.workflows.file import parse_workflow
from hs_stream.service.workflows.loading import checks_of
from hs_stream_connectors.mqtt.homeassistant import check_homeassistant, doubts_of_entity
from tests.service.conftest import ROOT

HEAD = """\
workflow: w
plates: {house: {}, room: {parent: house}, device: {}}
sources:
  climate: {mqtt: "h/{house}/{room}/climate", time: {field: ts, unit: ms}, fields: [temperature, data.humidity]}
  whole: {mqtt: "h/{house}/{room}/whole", time: {field: ts, unit: ms}}
  radio: {mqtt: "radio", time: {field: ts, unit: ms}, bind: {device: id}}
  power: {mqtt: "h/{house}/power", codec: number}
  meter: {mqtt: "h/{house}/meter", codec: number}
  files: {csv: "data/{room}_{house}.csv", time: {field: day, unit: iso}}
  prices: {csv: "prices/{house}.csv", time: {field: day, unit: iso}}
nodes:
  t: {tool: component@^1, from: climate, with: {key: temperature}}
  smooth: {tool: sliding_mean@^1, from: t, with: {width: 5m, every: 30s}}
  five: {tool: sliding_mean@^1, from: t, with: {width: 5m, every: 5m}}
"""
FIRST = HEAD.count("\n") + 1


def said(*nodes: str) -> list[str]:
    text = HEAD + "".join(f"  {node}\n" for node in nodes)
    settings = Settings()
    workflow = parse_workflow(text, default_registry(), "w.yaml", checks_of(settings))
    return [str(doubt) for doubt in doubts_about(settings, [workflow])]


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ("x: {tool: component, from: climate, with: {key: temperatur}}", "did you mean temperature?"),
        ("x: {tool: component, from: climate, with: {key: humidity}}", "did you mean data.humidity?"),
        (
            "x: {tool: component, from: climate, with: {key: co2}}",
            "climate never has a field 'co2' (it has data.humidity, temperature; or add co2 to its fields)",
        ),
        (
            "x: {tool: component, from: whole, with: {key: ts}}",
            "whole has no field 'ts': it is the time of its readings",
        ),
        ("x: {tool: component, from: radio, with: {key: id}}", "radio has no field 'id': it is the plate device"),
        (
            "x: {tool: component_set, from: climate, with: {keys: [temperature, dew]}}",
            "climate never has a field 'dew'",
        ),
        ("x: {tool: component_filter, from: climate, with: {key: on, values: [1]}}", "climate never has a field 'on'"),
        ("x: {tool: expression, from: climate, with: {expression: temprature * 2}}", "did you mean temperature?"),
        ("x: {tool: aggregate, from: t, over: room, with: {function: mean}}", "times of its own for each room"),
        ("x: {tool: aggregate, from: t, over: [house, room], with: {function: max}}", "for each house, room"),
        ("x: {tool: expression, from: [power, meter], with: {expression: a + b}}", "as_of_join"),
        ("x: {tool: aligned_merge, from: [smooth, t]}", "smooth (every 30s) and t (whenever climate sends)"),
    ],
)
def test_what_is_probably_not_meant(node: str, words: str) -> None:
    [line] = said(node)
    assert line.startswith(f"w.yaml:{FIRST}: node x: ")
    assert words in line


@pytest.mark.parametrize(
    "nodes",
    [
        ["x: {tool: component, from: whole, with: {key: anything}}"],
        ["x: {tool: component, from: radio, with: {key: anything}}"],
        ["x: {tool: expression, from: climate, with: {expression: 'temperature * 2 if time.second else value'}}"],
        ["x: {tool: expression, from: power, with: {expression: value / 60}}"],
        ["x: {tool: aggregate, from: smooth, over: room, with: {function: mean}}"],
        ["x: {tool: aggregate_plate, from: t, over: room}"],
        ["x: {tool: plate_sink, from: t, over: room}"],
        ["x: {tool: aligned_merge, from: [smooth, five]}"],
        ["u: {tool: component, from: climate, with: {key: data.humidity}}", "x: {tool: aligned_merge, from: [t, u]}"],
        ["x: {tool: as_of_join, from: [power, meter]}", "y: {tool: component, from: x, with: {key: left}}"],
        ["x: {tool: last_value, from: [power, meter]}"],
        ["x: {tool: aligned_merge, from: [files, prices]}", "y: {tool: aggregate_plate, from: files, over: room}"],
        ["x: {tool: splitter_of_dict, from: power, into: device}", "y: {tool: aggregate_plate, from: x, over: device}"],
    ],
)
def test_what_may_well_be_meant_gives_no_doubt(nodes: list[str]) -> None:
    assert said(*nodes) == []


def test_what_is_split_from_one_stream_shares_its_instants() -> None:
    into = "x: {tool: splitter_of_dict, from: prices, into: device}"
    assert said(into, "y: {tool: aggregate, from: x, over: device, with: {function: mean}}") == []
    into = "x: {tool: splitter_of_dict, from: whole, into: device}"
    assert said(into, "y: {tool: aggregate, from: x, over: device, with: {function: mean}}") == []
    [line] = said(into, "y: {tool: aggregate, from: x, over: [room, device], with: {function: mean}}")
    assert "times of its own for each room" in line


def test_what_speaks_at_any_instant_has_times_of_its_own() -> None:
    steady = "x: {tool: debounce@^2, from: t, with: {hold: 5s}}"
    [line] = said(steady, "y: {tool: aggregate, from: x, over: room, with: {function: max}}")
    assert "times of its own for each room" in line
    assert "write aggregate@^2 with hold: 10m" in line
    assert said(steady, "y: {tool: aggregate@^2, from: x, over: room, with: {function: max, hold: 1h}}") == []
    assert said(steady, "y: {tool: combine_latest, from: [x, power]}") == []


def test_doubts_go_through_what_passes_fields_on() -> None:
    kept = "x: {tool: component_set, from: climate, with: {keys: [temperature]}}"
    [line] = said(kept, "y: {tool: copy, from: x}", "z: {tool: component, from: y, with: {key: temperatur}}")
    assert f"w.yaml:{FIRST + 2}: node z: y never has a field 'temperatur' (did you mean temperature?)" in line


def ours() -> list[Any]:
    """Every workflow that we ship or print."""
    files = sorted((ROOT / "config" / "workflows").rglob("*.yaml"))
    found = [pytest.param(path.read_text(encoding="utf-8"), id=path.name) for path in files]
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        blocks = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        for index, block in enumerate(blocks):
            if block.lstrip().startswith("workflow:"):
                found.append(pytest.param(block, id=f"{page.name}-{index}"))
    return found


@pytest.mark.parametrize("text", ours())
def test_none_of_ours_is_doubtful(text: str) -> None:
    settings = Settings()
    workflow = parse_workflow(text, default_registry(), "ours", checks_of(settings))
    assert [str(doubt) for doubt in doubts_about(settings, [workflow])] == []


# --- Home Assistant ---


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device_class": "temperature", "unit_of_measurement": "kWh"}, "write °C or °F or K, or device_class: energy"),
        ({"device_class": "power", "unit_of_measurement": "A"}, "or device_class: current"),
        ({"device_class": "timestamp", "unit_of_measurement": "s"}, "take unit_of_measurement out"),
    ],
)
def test_a_unit_of_another_class_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_homeassistant(options)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device_class": "volume_flow_rate", "unit_of_measurement": "l/min"}, "did you mean L/min?"),
        ({"device_class": "energy", "unit_of_measurement": "kwh"}, "did you mean kWh?"),
        ({"device_class": "temperature", "unit_of_measurement": "Grad"}, "it knows °C, °F, K"),
        ({"device_class": "carbon_dioxide", "unit_of_measurement": "ppb"}, "it knows ppm"),
        ({"device_class": "energy", "state_class": "measurement"}, "write state_class: total or total_increasing"),
        ({"device_class": "timestamp", "state_class": "measurement"}, "take state_class out"),
        ({"device_class": "temperature", "state_class": "total"}, "write state_class: measurement"),
    ],
)
def test_what_home_assistant_will_hardly_take_is_doubtful(options: dict[str, Any], words: str) -> None:
    check_homeassistant(options)
    [(message, hint)] = doubts_of_entity(options)
    assert words in f"{message} ({hint})"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"unit_of_measurement": "bananas"},
        {"device_class": "pm25", "unit_of_measurement": "\u03bcg/m³"},
        {"device_class": "power_factor"},
        {"device_class": "volume", "unit_of_measurement": "fl. oz."},
        {"device_class": "monetary", "unit_of_measurement": "EUR", "state_class": "total"},
        {"device_class": "energy", "unit_of_measurement": "kWh", "state_class": "total_increasing"},
        {"device_class": "radon", "unit_of_measurement": "Bq/m³", "state_class": "measurement"},
        {"component": "binary_sensor", "device_class": "power"},
    ],
)
def test_what_home_assistant_takes_gives_no_doubt(options: dict[str, Any]) -> None:
    check_homeassistant(options)
    assert doubts_of_entity(options) == []


# --- where they are said ---


def test_check_warns_and_is_content(in_site: Any) -> None:
    text = (
        HEAD + "  x: {tool: component, from: climate, with: {key: temperatur}}\npublish:\n  x: {homeassistant: {%s}}\n"
    )
    Path("w.yaml").write_text(text % "device_class: energy, state_class: measurement", encoding="utf-8")
    result = CliRunner().invoke(app, ["workflow", "check", "w.yaml"])
    assert result.exit_code == 0
    head, first, second = result.stderr.splitlines()
    assert head == "probably not meant:"
    assert first.startswith(f"warning: w.yaml:{FIRST}: node x: climate never has a field 'temperatur'")
    assert second.startswith(f"warning: w.yaml:{FIRST + 2}: publish x: homeassistant: device_class energy goes with no")
    assert "w.yaml: it loads, with 2 warnings. Workflow w: " in result.stdout
    Path("w.yaml").write_text(text % "device_class: temperature, unit_of_measurement: kWh", encoding="utf-8")
    result = CliRunner().invoke(app, ["workflow", "check", "w.yaml"])
    assert result.exit_code == 2
    assert f"w.yaml:{FIRST + 2}: publish x: homeassistant: a sensor of device_class temperature" in result.stderr


def test_a_tool_of_others_that_fails_here_keeps_nothing_from_running(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any) -> Any:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("hs_stream_tools.dicts.Component.keys_named", broken)
    [line] = said()
    assert "its nodes were not looked at for doubts: ZeroDivisionError: oops" in line


async def test_serve_says_a_doubt_once(in_site: Any) -> None:
    path = in_site.directory / "comfort.yaml"
    text = path.read_text(encoding="utf-8").replace("unit: ms}}", "unit: ms}, fields: [temperature]}")
    path.write_text(text.replace("key: temperature", "key: temperatur"), encoding="utf-8")
    service = await in_site.start("serve")
    await service.until("/api/workflows", lambda answer: answer["workflows"], 60)
    path.write_text(
        text.replace("key: temperature", "key: temperatur").replace("width: 1m", "width: 2m"), encoding="utf-8"
    )
    await service.until("/api/workflows", lambda answer: answer["unread"])
    service.process.send_signal(signal.SIGHUP)
    await service.until("/api/workflows", lambda answer: answer.get("workflows") and not answer["unread"])
    service.process.send_signal(signal.SIGTERM)
    code, errors = await service.end()
    assert code == 0
    assert errors.count("climate never has a field 'temperatur' (did you mean temperature?") == 1
    assert errors.count("workflows loaded") == 1
