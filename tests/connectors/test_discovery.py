"""What `discover` makes of the simulated house, of each gateway's golden messages, and of junk."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from hs_stream.core.kinds import Meaning
from hs_stream.core.stream import StreamId
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.ports import Change, Publication
from hs_stream.plugins import default_registry
from hs_stream.service.settings import Settings
from hs_stream.service.workflows.doubts import doubts_about
from hs_stream.service.workflows.file import parse_workflow
from hs_stream.service.workflows.loading import checks_of
from hs_stream_connectors.discovery import survey as survey_module
from hs_stream_connectors.discovery.discover import Discovery, discover
from hs_stream_connectors.discovery.examples import choose
from hs_stream_connectors.discovery.patterns import word
from hs_stream_connectors.discovery.survey import Survey
from hs_stream_connectors.mqtt.homeassistant import Entity
from hs_stream_connectors.mqtt.sink import encode
from hs_stream_connectors.simulated_house import HOUSE_SOURCES, SimulatedHouse

NOW = 1_700_000_000_000
REGISTRY = default_registry()


def heard(messages: Iterable[tuple[str, bytes | str]], **options: Any) -> Discovery:
    survey = Survey()
    for topic, payload in messages:
        survey.add(topic, payload.encode() if isinstance(payload, str) else payload, NOW)
    return discover(survey, **options)


def workflow(found: Discovery) -> WorkflowDefinition:
    """The file is accepted as `hs-stream workflow check` would."""
    return parse_workflow(found.workflow_file("found"), REGISTRY, "found.yaml", checks_of(Settings()))


def sources(messages: Iterable[tuple[str, bytes | str]], **options: Any) -> dict[str, dict[str, Any]]:
    found = heard(messages, **options)
    workflow(found)
    return {source.name: source.options for source in found.sources}


def test_the_simulated_house_is_found_as_its_authors_describe_it() -> None:
    houses = [SimulatedHouse(house, ("kitchen", "living", "bath"), 1, 1.0) for house in ("1", "2")]
    found = heard((one.topic, one.payload) for house in houses for one in house.live(NOW - 600_000, NOW))
    made = workflow(found)
    assert made.sources["climate"].options == {
        **HOUSE_SOURCES["climate"],
        "mqtt": "home/{home}/{home_2}/climate",
        "fields": ["humidity", "temperature"],
    }
    assert made.sources["co2"].options == {"mqtt": "home/{home}/{home_2}/co2", "codec": "number"}
    assert made.sources["power"].options["codec"] == "msgpack"
    assert made.sources["power"].options["time"] == {"field": "ts", "unit": "ms"}
    assert made.sources["zigbee"].options == {"mqtt": "zigbee2mqtt/{zigbee_device#}", "codec": "zigbee2mqtt"}
    assert made.plates["home_2"].parent == "home"
    components = {"climate.humidity", "climate.temperature", "power.watts", "zigbee.illuminance"}
    means = {"climate.temperature_5m", "co2_5m", "power.watts_5m", "zigbee.illuminance_5m"}
    assert set(made.nodes) == components | means
    assert {name for name, node in made.nodes.items() if node.publish is not None} == means
    assert found.unknown == []


def golden(*codecs: str) -> list[tuple[str, bytes]]:
    """The topics and payloads of the golden cases that are readings."""
    cases = YAML(typ="safe").load(Path(__file__).with_name("golden") / "gateways.yaml")
    return [
        (case["topic"], bytes.fromhex(case["hex"]) if "hex" in case else case["text"].encode())
        for title, group in cases.items()
        if title in codecs
        for case in group["cases"]
        if case.get("readings") and not case.get("retained")
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tasmota", {"tasmota", "tasmota_sensor", "tasmota_state", "tasmota_power"}),
        ("shelly", {"shelly"}),
        ("shelly1", {"shelly1"}),
        ("esphome", {"esphome"}),
        ("statestream", {"statestream"}),
        ("sparkplug", {"sparkplug"}),
        ("zigbee2mqtt base", {"zigbee2mqtt"}),
    ],
)
def test_gateways_are_recognised_by_their_golden_messages(name: str, expected: set[str]) -> None:
    messages = golden(name)
    if name == "statestream":
        messages.append(("homeassistant/sensor/outside/last_changed", b'"2023-11-14T22:13:20+00:00"'))
    if name == "zigbee2mqtt base":
        messages.append(("home/zigbee/bridge/state", b'{"state":"online"}'))
    found = heard(messages)
    workflow(found)
    assert found.sources
    assert {source.options["codec"] for source in found.sources} == {name.partition(" ")[0]}
    assert {source.name.partition("_")[0] for source in found.sources} <= {
        *(word.partition("_")[0] for word in expected),
        "zigbee",
        "ha",
    }


def test_topics_of_the_gateways() -> None:
    assert sources([("tele/a/SENSOR", '{"Time":"2023-11-15T00:13:20","X":1}'), ("stat/a/POWER1", "ON")]) == {
        "tasmota_sensor": {"mqtt": "tele/{tasmota_device}/SENSOR", "codec": "tasmota", "zone": "Etc/GMT-2"},
        "tasmota_power1": {"mqtt": "stat/{tasmota_device}/POWER1", "codec": "tasmota", "zone": "Etc/GMT-2"},
    }
    given = sources([("tele/a/SENSOR", '{"Time":"2023-11-15T00:13:20","X":1}')], zone="Europe/Brussels")
    assert given["tasmota_sensor"]["zone"] == "Europe/Brussels"
    shelly = '{"method":"NotifyStatus","params":{"ts":1699999999.5,"switch:0":{"output":true}}}'
    assert sources([("a/events/rpc", shelly), ("b/events/rpc", shelly), ("a/online", "true")]) == {
        "shelly": {
            "mqtt": "{shelly}/events/rpc",
            "codec": "shelly",
            "bind": {"component": "component", "property": "property"},
        }
    }
    sphere = '{"uid":"a","bt":"2023-11-14T22:13:20Z","e":[{"n":"T","v":1}]}'
    assert sources([("sphere/house1/env", sphere), ("sphere/house2/env", sphere)]) == {
        "sphere_env": {"mqtt": "sphere/{sphere}/env", "codec": "sphere", "bind": {"uid": "uid"}}
    }
    assert sources(
        [("hall/sensor/t/state", "21.5"), ("hall/status", "online"), ("hall/debug", "[D] x"), ("hall/other", "1")]
    ) == {
        "other": {"mqtt": "hall/other", "codec": "number"},
        "esphome_sensor": {"mqtt": "{esphome_node}/sensor/{esphome_name}/state", "codec": "esphome"},
    }


PLUG = '{"Time":"2023-11-14T22:13:20","ENERGY":{"Total":13.1,"ApparentPower":12,"Power":9.8,"Voltage":230},"Id":7}'
SWITCH = {"id": 0, "apower": 7.5, "temperature": {"tC": 37.6, "tF": 99.8}, "aenergy": {"total": 11.9}}
NEWCOMER: list[tuple[str, bytes | str]] = [
    ("zigbee2mqtt/bridge/state", '{"state":"online"}'),
    ("zigbee2mqtt/bedroom", '{"battery":98,"humidity":50.1,"temperature":20.5,"last_seen":"2023-11-14T22:13:20Z"}'),
    ("zigbee2mqtt/bedroom/availability", '{"state":"online"}'),
    ("zigbee2mqtt/attic/lamp", '{"state":"ON","linkquality":88,"last_seen":"2023-11-14T22:13:20Z"}'),
    *(
        (topic.replace("+", plug), payload)
        for plug in ("washer", "fridge")
        for topic, payload in [
            ("tele/+/LWT", "Online"),
            ("tele/+/SENSOR", PLUG),
            ("tele/+/STATE", '{"Time":"2023-11-14T22:13:20","UptimeSec":615,"POWER":"ON","Wifi":{"RSSI":100}}'),
            ("stat/+/POWER", "ON"),
            ("stat/+/RESULT", '{"POWER":"ON"}'),
        ]
    ),
    ("shellies/announce", '{"id":"plug-1A2B3C"}'),
    ("shellies/plug-1A2B3C/online", "true"),
    ("shellies/plug-1A2B3C/relay/0", "on"),
    ("shellies/plug-1A2B3C/relay/0/power", "12.30"),
    ("shellies/plug-1A2B3C/relay/0/energy", "1530"),
    (
        "plus1pm-44/events/rpc",
        json.dumps({"method": "NotifyStatus", "params": {"ts": 1699999999.5, "switch:0": SWITCH}}),
    ),
    ("plus1pm-44/status/switch:0", '{"output":true}'),
]


def test_the_file_for_the_gateways_of_a_newcomer() -> None:
    found = heard(NEWCOMER)
    workflow(found)
    head, _, rest = found.workflow_file("home").partition("workflow: home\n")
    assert "21 messages on 21 topics: 12 are read by 8 sources" in head
    assert "9 carry no readings" in head
    assert (
        rest
        == """description: What hs-stream discover has found
plates:
  zigbee_device: {}
  tasmota_device: {}
  shelly: {}
  component: {}
  property: {}
  shelly1: {}
  relay: {}
  apower: {of: property, values: [apower]}
sources:
  # 2 topics
  zigbee: {mqtt: "zigbee2mqtt/{zigbee_device#}", codec: zigbee2mqtt}
  # 2 topics; the zone is a guess from the clock of a device: write its real one, such as Europe/Brussels
  tasmota_sensor: {mqtt: "tele/{tasmota_device}/SENSOR", codec: tasmota, zone: UTC}
  # 2 topics
  tasmota_state: {mqtt: "tele/{tasmota_device}/STATE", codec: tasmota, zone: UTC}
  # 2 topics
  tasmota_power: {mqtt: "stat/{tasmota_device}/POWER", codec: tasmota, zone: UTC}
  # 1 topic
  shelly: {mqtt: "{shelly}/events/rpc", codec: shelly, bind: {component: component, property: property}}
  # 1 topic
  shelly1_relay: {mqtt: "shellies/{shelly1}/relay/{relay}", codec: shelly1}
  # 1 topic
  shelly1_relay_energy: {mqtt: "shellies/{shelly1}/relay/{relay}/energy", codec: shelly1}
  # 1 topic
  shelly1_relay_power: {mqtt: "shellies/{shelly1}/relay/{relay}/power", codec: shelly1}
nodes: # examples: change them to what you want to know
  zigbee.temperature: {tool: component@^1, from: zigbee, with: {key: temperature}}
  zigbee.temperature_5m: {tool: sliding_mean@^1, from: zigbee.temperature, with: {width: 5m}}
  tasmota_sensor.ENERGY: {tool: component@^1, from: tasmota_sensor, with: {key: ENERGY}}
  tasmota_sensor.ENERGY.Power: {tool: component@^1, from: tasmota_sensor.ENERGY, with: {key: Power}}
  tasmota_sensor.ENERGY.Power_5m: {tool: sliding_mean@^1, from: tasmota_sensor.ENERGY.Power, with: {width: 5m}}
  tasmota_power_count_1h: {tool: sliding_count@^1, from: tasmota_power, with: {width: 1h}}
  shelly.apower_5m: {tool: sliding_mean@^1, from: shelly, on: apower, with: {width: 5m}}
  shelly1_relay_power_5m: {tool: sliding_mean@^1, from: shelly1_relay_power, with: {width: 5m}}
publish:
  zigbee.temperature_5m: {}
  tasmota_sensor.ENERGY.Power_5m: {}
  tasmota_power_count_1h: {}
  shelly.apower_5m: {}
  shelly1_relay_power_5m: {}
"""
    )


def test_the_first_shellies_have_a_source_per_quantity_unless_there_are_too_many() -> None:
    deep = [("shellies/a/relay/0/1/power", "1"), ("shellies/a/0", "1"), ("shellies/a/relay/0/energy", "1")]
    assert [options["mqtt"] for options in sources(deep).values()] == [
        "shellies/{shelly1}/{channel}",
        "shellies/{shelly1}/relay/{relay}/{relay_channel}/power",
        "shellies/{shelly1}/relay/{relay}/energy",
    ]
    many = heard((f"shellies/a/{number}x/0", "1") for number in range(60))
    assert [source.options["mqtt"] for source in many.sources] == ["shellies/{shelly1}/{quantity#}"]
    assert workflow(many).nodes == {}


@pytest.mark.parametrize(
    ("items", "path"),
    [
        ([{"voltage": 3, "power": 1, "device_temperature": 20}], ("power",)),
        ([{"battery": 90, "brightness_raw": 1}, {"linkquality": 3}], ("brightness_raw",)),
        ([{"temperature": None, "x": 1}, {"temperature": 20}], ("temperature",)),
        ([{"temperature": 20}, {"temperature": "high"}], ()),
        ([{"power": True, "energy": 3, "update_count": 3, "id": 7}], ()),
        ([{"ENERGY": {"Power": [1, 2], "Total": 7, "Voltage": 230}}], ("ENERGY", "Voltage")),
    ],
)
def test_the_number_of_an_example(items: list[dict[str, Any]], path: tuple[str, ...]) -> None:
    assert choose(items, 2) == path


@pytest.mark.parametrize("name", ["true", "null", "on", "no", "1e3", "y"])
def test_names_that_mean_something_in_yaml(name: str) -> None:
    payload = json.dumps({name: 1})
    made = workflow(heard([(f"{name}/1/{name}", payload), ("tele/a/b", payload)]))
    assert set(made.sources) == {word(name), "b"}


@pytest.mark.parametrize(
    ("payload", "time"),
    [
        ('{"ts": 1699999999000, "v": 1}', {"field": "ts", "unit": "ms"}),
        ('{"time": 1699999999, "v": 1}', {"field": "time", "unit": "s"}),
        ('{"timestamp": 1699999999000000, "v": 1}', {"field": "timestamp", "unit": "us"}),
        ('[{"t": "2023-11-14T22:13:20Z", "v": 1}]', {"field": "t", "unit": "iso"}),
        ('{"date": "2023-11-14T22:13:20", "v": 1}', {"field": "date", "unit": "iso", "zone": "UTC"}),
        ('{"t": 21.5, "v": 1}', None),
        ('{"ts": 4102444800000, "v": 1}', None),
        ('{"v": 1}', None),
    ],
)
def test_times_are_found(payload: str, time: dict[str, str] | None) -> None:
    (options,) = sources([("a/b", payload)]).values()
    assert options.get("time") == time
    assert "v" in options["fields"]


@pytest.mark.parametrize(
    ("topics", "templates"),
    [
        (["sensors/a/t", "sensors/b/t", "sensors/a/h", "sensors/b/h"], ["sensors/{sensor}/h", "sensors/{sensor}/t"]),
        (["sensors/a", "sensors/b"], ["sensors/{sensor}"]),
        (["plug/17/power"], ["plug/{plug}/power"]),
        (["x/00:1a:2b:3c:4d:5e/t"], ["x/{x}/t"]),
        (["house/power"], ["house/power"]),
        (["single"], ["single"]),
        (["a//c"], ["a//c"]),
    ],
)
def test_patterns(topics: list[str], templates: list[str]) -> None:
    assert sorted(one["mqtt"] for one in sources((topic, "21.5") for topic in topics).values()) == templates


def config(entity: str, topic: str, **words: Any) -> tuple[str, str]:
    """A description for Home Assistant, with its short words."""
    return f"homeassistant/{entity}/config", json.dumps({"name": "x", "stat_t": topic, **words})


CELSIUS = {"unit_of_measurement": "°C", "state_class": "measurement", "value_template": "{{ value_json.temperature }}"}
PERCENT = {"unit_of_meas": "%", "stat_cla": "measurement", "val_tpl": "{{ value_json['humidity'] | round(1) }}"}
EXPOSES: list[dict[str, Any]] = [
    {"type": "switch", "features": [{"type": "binary", "property": "state"}]},
    {"type": "numeric", "property": "power", "unit": "W"},
    {"type": "numeric", "property": "energy", "unit": "kWh"},
]
CLIMATE = '{"temperature": 21.5, "humidity": 40, "raw": 10130}'
SAID = [
    config("sensor/hall_t", "hall/climate", **CELSIUS),
    config("sensor/hall_h", "hall/climate", **PERCENT),
    config("sensor/hall_x", "hall/climate", val_tpl="{{ value_json.raw / 10 }}", unit_of_meas="hPa"),
    config("sensor/node/meter", "~/energy", **{"~": "meters/attic"}, unit_of_meas="kWh", stat_cla="total_increasing"),
    config("binary_sensor/door", "hall/door", value_template="{{ value_json.open }}"),
    ("homeassistant/sensor/own/config", "no JSON"),
    (
        "zigbee2mqtt/bridge/devices",
        json.dumps([{"friendly_name": "plug", "definition": {"exposes": EXPOSES}}, {"friendly_name": "x"}]),
    ),
    ("zigbee2mqtt/plug", '{"power": 5.5, "energy": 3, "linkquality": 80, "state": "ON"}'),
    ("hall/climate", CLIMATE),
    ("hall/door", '{"open": 1}'),
    ("meters/attic/energy", "1234.5"),
]


def test_kinds_and_units_are_what_gateways_say() -> None:
    made = workflow(heard(SAID))
    found = {name: one for name, one in made.meanings.items() if one}
    assert found == {
        "energy": Meaning("counter", "kWh"),
        "climate.temperature": Meaning("state", "°C"),
        "climate.temperature_5m": Meaning("sample", "°C"),
        "climate.humidity": Meaning("state", "%"),
        "door.open": Meaning("state"),
        "door.open_5m": Meaning("sample"),
        "zigbee.power": Meaning("state", "W"),
        "zigbee.power_5m": Meaning("sample", "W"),
    }
    assert doubts_about(Settings(), [made]) == []
    assert made.nodes["zigbee.power_5m"].tool.parameters()["weight"] == "time"
    assert not any(name.startswith("energy_") for name in made.nodes), "a counter has no mean"


def test_what_gateways_say_differently_is_not_known() -> None:
    rooms = [f"home/{room}/climate" for room in ("hall", "attic", "bath")]
    units = {topic: {**CELSIUS, "unit_of_measurement": unit} for topic, unit in zip(rooms, ("°C", "°F"), strict=False)}
    messages = [config(f"sensor/t{at}", topic, **units[topic]) for at, topic in enumerate(units)]
    messages += [config("sensor/h", rooms[2], **PERCENT), *((topic, CLIMATE) for topic in rooms)]
    made = workflow(heard(messages))
    assert set(made.sources) == {"climate"}
    assert made.meanings["climate.temperature"] == Meaning()
    assert made.meanings["climate.humidity"] == Meaning("state", "%")


@pytest.mark.parametrize(
    "words",
    [
        {"stat_t": 5},
        {"val_tpl": 7},
        {"val_tpl": "{{ value_json.temperature | multiply(0.1) }}", "unit_of_meas": "K"},
        {"unit_of_meas": " "},
        {"unit_of_meas": "x" * 50},
        {"stat_cla": ["total"]},
        {"~": 3, "stat_t": "~"},
    ],
)
def test_what_others_announce_wrongly_is_left_alone(words: dict[str, Any]) -> None:
    template = {"val_tpl": CELSIUS["value_template"]}
    made = workflow(heard([config("sensor/x", **{"topic": "hall/climate", **template, **words}), *SAID[8:]]))
    assert made.meanings["climate.temperature"] == Meaning()


def test_what_is_no_reading_and_what_is_unknown_is_counted() -> None:
    found = heard(
        [
            ("hs/comfort/smooth/1", '{"time": 1, "value": 2}'),
            ("homeassistant/sensor/x/config", '{"name": "x"}'),
            ("lamp/status", "online"),
            ("camera/image", b"\xff\xd8\xff\xe0" + bytes(200)),
            ("cut", '{"ts": 1699999999000, "v'),
            ("climate", '{"ts": 1699999999000, "v": 1}'),
        ]
    )
    workflow(found)
    assert (found.messages, found.topics) == (6, 6)
    assert found.own == ["hs/comfort/smooth/1"]
    assert found.silent == ["homeassistant/sensor/x/config", "lamp/status"]
    assert found.unknown == ["camera/image", "cut"]
    assert "2 are unknown: camera/image, cut" in found.workflow_file("found")


def test_what_services_of_ours_publish_is_left_out() -> None:
    stream = StreamId.make("temperature", {"room": "hall"})
    entity = Entity(stream, "mine", ("hall",), "component@1.0.0", {})

    def result(kind: str) -> bytes:
        change = Change(NOW, "insert", 21.5, 0)
        return encode(Publication(stream, "mine", ("hall",), "t", change, True, {"payload": kind}))

    record = '{"event": "started", "level": "info", "logger": "a", "timestamp": "2023-11-14T22:13:20Z", "service": "b"}'
    own: list[tuple[str, bytes | str]] = [
        ("attic/hs/mine/bare", "21.5"),  # the prefix is known by the description of the entity
        ("cellar/hs/mine/temperature/hall", result("json")),
        ("cellar/hs/mine/packed/hall", result("msgpack")),
        (entity.topic("config"), entity.config("attic/hs/status", "1")),
        (entity.topic("state"), "21.5"),
        ("hs/status", "online"),
        ("hs/mine/bare", "21.5"),
        ("logs/here", "by the settings"),
        ("logs/there", record),
    ]
    other = '{"availability_topic": "lab/status", "origin": {"name": "TP-Link"}}'
    messages = [*own, ("homeassistant/sensor/hall/state", "21.5"), ("lab/co2", "400")]
    messages.append(("homeassistant/sensor/hs-100/config", other))
    own.append(messages[-1])
    found = heard(messages, log_topic="logs/here")
    assert found.own == sorted(topic for topic, _ in own)
    assert [source.options["mqtt"] for source in found.sources] == [
        "{esphome_node}/sensor/{esphome_name}/state",
        "lab/co2",
    ]
    assert "10 are published by hs-stream itself: attic/hs/mine/bare, " in found.workflow_file("found")


def test_one_cut_off_message_does_not_hide_what_a_topic_is() -> None:
    good = '{"ts": 1699999999000, "v": 1}'
    assert sources([("a", good), ("a", good[:-5]), ("a", good)])["a"]["codec"] == "json"


def test_names_of_other_workflows_are_left_to_them() -> None:
    messages = [("home/1/kitchen/co2", "400"), ("home/1/bath/co2", "410")]
    assert set(sources(messages)) == {"co2"}
    assert set(sources(messages, taken=["co2", "co2_2"])) == {"co2_3"}


def test_what_other_workflows_read_is_left_to_them() -> None:
    messages = [
        ("home/1/kitchen/co2", "400"),
        ("home/1/bath/co2", "410"),
        ("attic/co2", "420"),
        ("zigbee2mqtt/bridge/state", '{"state":"online"}'),
        ("zigbee2mqtt/attic/lamp", '{"brightness":200}'),
        ("tele/a/SENSOR", '{"Time":"2023-11-15T00:13:20","X":1}'),
        ("tele/b/SENSOR", '{"Time":"2023-11-15T00:13:20","X":1}'),
    ]
    everything = heard(messages)
    again = heard(messages, read=[source.options["mqtt"] for source in everything.sources])
    assert (again.sources, again.plates, again.unknown) == ([], {}, [])
    assert again.known == sorted(topic for topic, _ in messages if "bridge" not in topic)
    assert "6 are left out, as the workflows of the configuration read them already" in again.workflow_file("found")
    # A filter that covers it is enough; a gateway of which a part is read is found as a whole.
    part = heard(messages, read=["home/+/{room}/co2", "zigbee2mqtt/#", "tele/a/SENSOR"])
    workflow(part)
    assert part.known == ["home/1/bath/co2", "home/1/kitchen/co2", "zigbee2mqtt/attic/lamp"]
    assert [source.options["mqtt"] for source in part.sources] == ["tele/{tasmota_device}/SENSOR", "attic/co2"]
    assert set(part.plates) == {"tasmota_device"}


def test_nothing_heard_is_a_workflow_without_sources() -> None:
    assert workflow(heard([])).sources == {}


def test_a_survey_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey_module, "MAX_TOPICS", 10)
    found = heard((f"sensors/{n % 12}", "1") for n in range(24))
    assert (found.topics, found.beyond, found.messages) == (10, 4, 24)
    assert "4 messages on more topics" in found.workflow_file("found")


def test_any_broker_gives_a_file_that_is_accepted() -> None:
    """Random trees of topics with random payloads, golden messages among them."""
    random_ = random.Random(7)
    words = ["a", "b-1", "é", "12", "{x}", "", "state", "sensor", "SENSOR", "tele", "stat", "POWER", "events", "rpc"]
    words += ["spBv1.0", "NDATA", "DDATA", "shellies", "bridge", "zigbee2mqtt", '"', "yes", "*", "- x", "#c", "a: b"]
    contents = ["1", "on", "{}", "[]", "null", '{"Time":"x"}', '{"bt":1,"e":[]}', '{"last_seen":1}', '{"a b":1,"":2}']
    contents += ['{"params":{}}', '{"ts":1699999999000,"\\u0007":1}', json.dumps({str(n): n for n in range(40)})]
    for _ in range(100):
        messages = [
            (
                "/".join(random_.choice(words) for _ in range(random_.randint(1, 5))).replace("#", ""),
                random_.choice(contents),
            )
            for _ in range(random_.randint(0, 25))
        ]
        workflow(heard([(topic or "x", content) for topic, content in messages]))
