"""Each gateway's messages, published by plain paho, through mosquitto and ``hs-stream serve`` to stored streams.

The service runs the workflow files of ``config/workflows/gateways`` as they are.
"""

from __future__ import annotations

import json
import queue
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from hs_stream.core.time import to_ms
from hs_stream_connectors.simulated_house import SimulatedHouse
from tests.acceptance.conftest import ROOT
from tests.connectors.sparkplug_messages import payload

FILES = sorted((ROOT / "config/workflows/gateways").glob("*.yaml"))
T0 = 1_486_765_200_000
ARRIVED = None
"""Where the time of a reading is its arrival."""

Messages = Sequence[tuple[str, bytes | str]]

RETAINED: Messages = [
    ("esphome/hall/sensor/temperature/state", "1.0"),
    ("statestream/light/lamp/state", "off"),
    ("shellies/one/relay/0/power", "1.0"),
    ("stat/plug/POWER", "OFF"),
    ("zigbee2mqtt/attic/lamp", '{"temperature": 20.5, "last_seen": "2017-02-10T22:19:00Z"}'),
]
"""Published before the service subscribes for the first time."""


def shelly(ts: float, **components: Any) -> str:
    named = {name.replace("_", ":"): value for name, value in components.items()}
    return json.dumps({"src": "one", "method": "NotifyStatus", "params": {"ts": ts} | named})


TEMPERATURE = {"name": "Temperature", "alias": 1, "timestamp": T0, "datatype": 10, "double": 21.5}
LIMIT = {"name": "Limit", "alias": 2, "timestamp": T0, "datatype": 3, "int": -40}

CASES: dict[str, tuple[Messages, dict[str, list[tuple[int | None, Any]]]]] = {
    "zigbee2mqtt": (
        [
            ("zigbee2mqtt/bridge/state", '{"state": "online"}'),
            ("zigbee2mqtt/attic/lamp", '{"temperature": 21.5, "last_seen": "2017-02-10T22:20:00Z"}'),
            ("zigbee2mqtt/attic/lamp", '{"temperature": 21.5, "last_seen": "2017-02-10T22:20:00Z"}'),
            ("zigbee2mqtt/attic/lamp/availability", '{"state": "online"}'),
        ],
        {"zigbee_temperature[zigbee=attic/lamp]": [(T0 - 60_000, 20.5), (T0, 21.5)]},
    ),
    "tasmota": (
        [
            ("tele/plug/LWT", "Online"),
            ("tele/plug/SENSOR", '{"Time": "2017-02-10T23:20:00", "ENERGY": {"Power": 9.5, "Voltage": 230}}'),
            ("tele/plug/SENSOR", '{"Time": "2017-07-10T23:20:00", "ENERGY": {"Power": 12}}'),
            ("stat/plug/RESULT", '{"POWER": "ON"}'),
            ("stat/plug/POWER", "ON"),
        ],
        {
            "tasmota_watts[tasmota=plug]": [(T0, 9.5), (1_499_721_600_000, 12)],
            "tasmota_power[tasmota=plug]": [(ARRIVED, "ON")],
        },
    ),
    "shelly": (
        [
            ("one/online", "true"),
            ("one/events/rpc", shelly(T0 / 1000, switch_0={"id": 0, "output": True, "source": "http"})),
            ("one/events/rpc", shelly(T0 / 1000 + 0.25, switch_0={"id": 0, "apower": 7.5}, sys={"cfg_rev": 2})),
            ("one/events/rpc", shelly(T0 / 1000 + 0.25, switch_1={"id": 1, "apower": 3})),
        ],
        {
            "shelly_output[channel=switch:0,shelly=one]": [(T0, True)],
            "shelly_watts[channel=switch:0,shelly=one]": [(T0 + 250, 7.5)],
            "shelly_watts[channel=switch:1,shelly=one]": [(T0 + 250, 3)],
        },
    ),
    "shelly1": (
        [
            ("shellies/one/relay/0/power", "12.30"),
            ("shellies/one/sensor/temperature", "21.5"),
            ("shellies/one/info", "{"),
        ],
        {
            "shelly1_watts[relay=0,shelly1=one]": [(ARRIVED, 12.3)],
            "shelly1_temperature[shelly1=one]": [(ARRIVED, 21.5)],
        },
    ),
    "esphome": (
        [("esphome/hall/status", "online"), ("esphome/hall/sensor/temperature/state", "21.4")],
        {"esphome_sensor[esphome=hall,sensor=temperature]": [(ARRIVED, 21.4)]},
    ),
    "statestream": (
        [("statestream/light/lamp/last_changed", "x"), ("statestream/light/lamp/state", "on")],
        {"ha_light[entity=lamp]": [(ARRIVED, "on")]},
    ),
    "sparkplug": (
        [
            ("spBv1.0/plant/NBIRTH/north", payload(0, {"name": "bdSeq", "timestamp": T0, "datatype": 4, "long": 0})),
            ("spBv1.0/plant/DBIRTH/north/plc", payload(1, TEMPERATURE, LIMIT)),
            (
                "spBv1.0/plant/DDATA/north/plc",
                payload(
                    2,
                    {"alias": 1, "timestamp": T0 + 2_000, "double": 22.0},
                    {"alias": 1, "timestamp": T0 + 1_000, "double": 21.0, "is_historical": True},
                    {"alias": 2, "timestamp": T0 + 1_000, "int": -41},
                ),
            ),
        ],
        {
            "plant[device=plc,edge=north,group=plant,metric=Temperature]": [
                (T0, 21.5),
                (T0 + 1_000, 21.0),
                (T0 + 2_000, 22.0),
            ],
            "plant[device=plc,edge=north,group=plant,metric=Limit]": [(T0, -40), (T0 + 1_000, -41)],
        },
    ),
    "sphere": (
        [
            (
                "sphere/1/environment",
                '{"uid":"a1","bt":"2017-02-10T22:20:00.123Z","e":[{"n":"TEMP","v":21.5},{"n":"HUM","v":40}]}',
            )
        ],
        {"sphere_environment[uid=a1]": [(T0 + 123, {"TEMP": 21.5, "HUM": 40})]},
    ),
}


class House:
    """mosquitto, the service, and paho."""

    def __init__(self, parts: Any) -> None:
        self.broker = parts.mosquitto()
        self.heard: queue.Queue[MQTTMessage] = queue.Queue()
        self.client = Client(CallbackAPIVersion.VERSION2)
        self.client.on_message = lambda _client, _data, message: self.heard.put(message)
        self.client.connect("127.0.0.1", self.broker.port)
        self.client.loop_start()
        self.publish(RETAINED, retain=True)
        self.service = parts.service()
        store = f"sqlite:///{self.service.directory / 'hs_stream.db'}"
        self.service.configure(workflows=FILES, broker=self.broker.url, store=store)
        self.service.start()

    def publish(self, messages: Messages, *, retain: bool = False) -> None:
        """One after the other, confirmed."""
        for topic, content in messages:
            self.client.publish(topic, content, qos=1, retain=retain).wait_for_publish(10)

    def stored(self, stream: str) -> list[tuple[int, Any]]:
        """The instances of a stream, none where there is no such stream."""
        found = json.loads(self.service.ask(f"/api/streams?name={stream.partition('[')[0]}"))["streams"]
        if stream not in [one["stream"] for one in found]:
            return []
        page = json.loads(self.service.ask(f"/api/streams/{quote(stream, safe='')}/instances"))
        return [(to_ms(datetime.fromisoformat(one["time"])), one["value"]) for one in page["instances"]]

    def close(self) -> None:
        self.client.loop_stop()
        self.client.disconnect()


@pytest.fixture(scope="module")
def house(shared_parts: Any) -> Iterator[House]:
    made = House(shared_parts)
    yield made
    made.close()


def test_every_gateway_is_tried() -> None:
    assert sorted(CASES) == [path.stem for path in FILES]


@pytest.mark.parametrize("name", CASES)
def test_messages_become_stored_streams_at_their_event_times(house: House, waiting: Any, name: str) -> None:
    messages, expected = CASES[name]
    before = time.time_ns() // 1_000_000
    house.publish(messages)
    for stream, wanted in expected.items():
        waiting(lambda stream=stream, wanted=wanted: len(house.stored(stream)) >= len(wanted), stream)
        found = house.stored(stream)
        assert [value for _, value in found] == [value for _, value in wanted]
        for (at, _), (event_time, _) in zip(found, wanted, strict=True):
            if event_time is ARRIVED:
                assert before <= at <= time.time_ns() // 1_000_000
            else:
                assert at == event_time


def test_an_edge_node_whose_birth_was_missed_is_asked_for_it(house: House, waiting: Any) -> None:
    house.client.subscribe("spBv1.0/plant/NCMD/south", 1)
    house.publish([("spBv1.0/plant/DDATA/south/plc", payload(7, {"alias": 1, "timestamp": T0 + 1_000, "double": 9.0}))])
    asked = house.heard.get(timeout=10)
    assert (asked.topic, asked.qos, asked.retain) == ("spBv1.0/plant/NCMD/south", 0, False)
    assert b"Node Control/Rebirth" in asked.payload
    house.publish(
        [
            ("spBv1.0/plant/NBIRTH/south", payload(0, {"name": "bdSeq", "timestamp": T0, "datatype": 4, "long": 0})),
            ("spBv1.0/plant/DBIRTH/south/plc", payload(1, TEMPERATURE)),
        ]
    )
    stream = "plant[device=plc,edge=south,group=plant,metric=Temperature]"
    waiting(lambda: house.stored(stream) == [(T0, 21.5)], stream)
    letters = json.loads(house.service.ask("/api/deadletters"))["dead_letters"]
    assert [letter["topic"] for letter in letters if letter["reason"] == "no_birth"] == [
        "spBv1.0/plant/DDATA/south/plc"
    ]
    found = house.service.metrics()
    assert found['hs_codec_entries{source="plant"}'] >= 2
    assert found['hs_ignored_messages_total{source="esphome_sensor"}'] >= 1


def test_nothing_else_is_a_dead_letter(house: House) -> None:
    letters = json.loads(house.service.ask("/api/deadletters"))["dead_letters"]
    assert {letter["reason"] for letter in letters} <= {"no_birth"}


# --- hs-stream discover ---


def now() -> int:
    return time.time_ns() // 1_000_000


class Publisher:
    """The simulated house of the demo and every gateway, by plain paho, until it is told to stop."""

    def __init__(self, port: int) -> None:
        self.nodes: set[str] = set()
        """Of the workflow ``found``: what the service has published."""
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = lambda _client, _data, message: self.nodes.add(message.topic.split("/")[2])
        self._client.connect("127.0.0.1", port)
        self._client.subscribe("hs/found/#", 1)
        self._client.loop_start()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        house = SimulatedHouse("1", ("kitchen", "living", "bath"), 1, 20.0)
        last = now()
        while not self._ended.wait(0.3):
            last, start = now(), last
            messages: list[tuple[str, bytes | str]] = [(one.topic, one.payload) for one in house.live(start, last)]
            messages += [message for case, _ in CASES.values() for message in case]
            messages.append(("camera/image", b"\xff\xd8" + bytes(100)))
            for topic, content in messages:
                self._client.publish(topic, content, qos=1)

    def close(self) -> None:
        self._ended.set()
        self._thread.join(10)
        self._client.loop_stop()
        self._client.disconnect()


def test_what_discover_writes_is_accepted_and_runs_unchanged(parts: Any) -> None:
    broker, service = parts.mosquitto(), parts.service()
    publisher = Publisher(broker.port)
    file = service.directory / "new" / "found.yaml"
    try:
        code, out, errors = service.run("discover", "--for", "3", "--url", broker.url, "-o", str(file))
        assert (code, out) == (0, ""), errors
        assert "1 are unknown: camera/image" in errors
        assert service.run("discover", "--for", "1", "--url", broker.url, "-o", str(file))[0] == 2
        code, out, errors = service.run("workflow", "check", str(file))
        assert code == 0, errors
        store = f"sqlite:///{service.directory / 'hs_stream.db'}"
        service.configure(workflows=[file], broker=broker.url, store=store)
        service.start()
        wanted = {
            "climate",
            "co2",
            "power",
            "zigbee",
            "tasmota_sensor",
            "tasmota_power",
            "shelly",
            "shelly1_relay_power",
        }
        wanted |= {"esphome_sensor", "ha_light", "sparkplug_device", "sphere_environment"}
        deadline = time.monotonic() + 30
        while missing := {
            name for name in wanted if not service.metrics().get(f'hs_readings_total{{source="{name}"}}')
        }:
            assert time.monotonic() < deadline, missing
            time.sleep(0.2)
        examples = {"zigbee.temperature_5m", "tasmota_sensor.ENERGY.Power_5m", "tasmota_power_count_1h"}
        examples |= {"shelly.apower_5m", "shelly1_relay_power_5m", "climate.temperature_5m", "co2_5m"}
        while missing := examples - publisher.nodes:
            assert time.monotonic() < deadline, missing
            time.sleep(0.2)
        assert json.loads(service.ask("/api/failed")) == {"failed": []}
        letters = json.loads(service.ask("/api/deadletters"))["dead_letters"]
        # The garden's clock is ahead, some payloads are cut off, and births were not heard by everyone yet.
        assert {letter["reason"] for letter in letters} <= {"future", "json", "no_birth"}
    finally:
        publisher.close()
    service.stop()


def test_what_discover_writes_runs_beside_the_sample_workflows(parts: Any) -> None:
    """The way of the README: names are global, and the samples have some that a house would have too."""
    broker, service = parts.mosquitto(), parts.service()
    samples = service.directory / "workflows"
    shutil.copytree(ROOT / "config" / "workflows", samples, ignore=shutil.ignore_patterns("gateways"))
    publisher = Publisher(broker.port)
    try:
        store = f"sqlite:///{service.directory / 'hs_stream.db'}"
        service.configure(workflows=[samples / "*.yaml"], broker=broker.url, store=store)
        code, _, errors = service.run("discover", "--for", "3", "-o", str(samples / "home.yaml"))
        assert code == 0, errors
        assert "are left out, as the workflows of the configuration read them already: home/" in errors
        assert "  climate" not in errors
        service.start()
        deadline = time.monotonic() + 30
        while not all(service.metrics().get(f'hs_readings_total{{source="{name}"}}') for name in ("climate", "zigbee")):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        # A second run has nothing to add: not even what the service publishes meanwhile.
        code, _, errors = service.run("discover", "--for", "3", "-o", str(samples / "more.yaml"))
        assert code == 0, errors
        assert "are read by 0 sources" in errors
        assert not (samples / "more.yaml").exists()
        code, _, errors = service.run("discover", "--for", "1", "--name", "home")
        assert (code, "home.yaml is a workflow 'home' already" in errors) == (2, True), errors
    finally:
        publisher.close()
    service.stop()


def test_discover_says_what_is_wrong(parts: Any) -> None:
    service = parts.service()
    service.configure(workflows=[], broker="mqtt://127.0.0.1:1", store="memory://")
    code, _, errors = service.run("discover", "--for", "1")
    assert (code, errors.count("\n")) == (3, 1)
    assert "127.0.0.1:1" in errors
    assert service.run("discover", "--for", "0")[0] == 2
    assert service.run("discover", "--tz", "Mars/Base")[0] == 2
    assert service.run("discover", "--name", "a b")[0] == 2
