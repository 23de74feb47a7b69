"""Readings without a clock, and several at one time: nothing merges, nothing is overwritten without a word."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

WORKFLOW = """\
workflow: same_time
plates: {meter: {}, node: {}, device: {}}
sources:
  pulse: {mqtt: "pulse/{meter}", codec: number}
  event: {mqtt: "event/{meter}", codec: json, time: arrival}
  state: {mqtt: "esphome/{node}/sensor/count/state", codec: esphome}
  relay: {mqtt: "stat/{device}/POWER", codec: tasmota, zone: UTC}
  zigbee: {mqtt: "zigbee2mqtt/{device#}", codec: zigbee2mqtt, fields: [state]}
  bluetooth: {mqtt: "tele/{device}/SENSOR", codec: tasmota, zone: UTC}
  radio: {mqtt: "rtl_433/events", time: {field: time, zone: UTC}, fields: [temperature_C]}
  corrected: {mqtt: "corrected", time: {field: ts, unit: ms}, fields: [v]}
nodes:
  pulses: {tool: sliding_count@^1, from: pulse, with: {width: 1h}}
"""
KINDS: dict[str, tuple[str, Callable[[int], str]]] = {
    "pulse[meter=water]": ("pulse/water", str),
    "event[meter=gas]": ("event/gas", lambda n: f'{{"n": {n}}}'),
    "state[node=hall]": ("esphome/hall/sensor/count/state", lambda n: f"{n}.5"),
    "relay[device=plug]": ("stat/plug/POWER", lambda n: "ON" if n % 2 else "OFF"),
}
SECOND = "2026-03-02T15:05:30"


class Site:
    """A broker and the service of this module."""

    def __init__(self, parts: Any) -> None:
        self.broker = parts.mosquitto()
        self.service = parts.service()
        path = self.service.directory / "same_time.yaml"
        path.write_text(WORKFLOW, encoding="utf-8")
        store = f"sqlite:///{self.service.directory / 'hs_stream.db'}"
        self.service.configure(workflows=[path], broker=self.broker.url, store=store)
        self.service.start()

    def publish(self, topic: str, *payloads: Any) -> None:
        self.broker.publish(*((topic, json.dumps(one).encode()) for one in payloads))

    def values(self, stream: str) -> list[Any]:
        page = json.loads(self.service.ask(f"/api/streams/{quote(stream, safe='')}/instances"))
        return [row["value"] for row in page.get("instances", [])]


@pytest.fixture(scope="module")
def site(shared_parts: Any) -> Site:
    return Site(shared_parts)


def test_a_backlog_and_a_burst_without_clocks_are_all_there(site: Site, waiting: Callable[..., Any]) -> None:
    service = site.service
    service.stop()
    for topic, payload in KINDS.values():
        site.broker.publish(*((topic, payload(number).encode()) for number in range(60)))
    service.start()
    service.settle(4 * 60)
    for topic, payload in KINDS.values():
        site.broker.publish(*((topic, payload(number).encode()) for number in range(60, 80)))
    service.settle(4 * 80)
    for stream in KINDS:
        assert len(site.values(stream)) == 80, stream
    assert site.values("pulse[meter=water]") == list(range(80))
    assert site.values("pulses[meter=water]") == list(range(1, 81))
    code, out, errors = service.run("verify", "same_time", "--from", "-1d", "--to", "now")
    assert code == 0, out + errors


def test_what_differs_at_one_last_seen_is_kept(site: Site, waiting: Callable[..., Any]) -> None:
    seen = f"{SECOND}.292Z"
    messages = [{"state": state, "last_seen": seen, "linkquality": 61} for state in ("ON", "OFF", "OFF", "ON", "OFF")]
    site.publish("zigbee2mqtt/lamp", *messages)
    waiting(lambda: len(site.values("zigbee[device=lamp]")) >= 4, "the switchings")
    assert site.values("zigbee[device=lamp]") == [{"state": state} for state in ("ON", "OFF", "ON", "OFF")]


def test_sensors_of_one_second_are_one_value(site: Site, waiting: Callable[..., Any]) -> None:
    bath, hall = {"bath": {"Temperature": 23.6}}, {"hall": {"Temperature": 23.8}}
    site.publish("tele/ble/SENSOR", *({"Time": SECOND, "TempUnit": "C"} | sensor for sensor in (bath, hall)))
    stream = "bluetooth[device=ble]"
    waiting(lambda: site.values(stream) == [{"TempUnit": "C"} | bath | hall], stream)


def test_another_device_is_a_dead_letter_and_an_overwriting_is_told(site: Site, waiting: Callable[..., Any]) -> None:
    service = site.service
    for model, value in (("Prologue-TH", 21.5), ("Nexus-TH", 3.5)):
        site.publish("rtl_433/events", {"time": SECOND, "model": model, "id": 5, "temperature_C": value})
    at = time.time_ns() // 1_000_000
    site.publish("corrected", *({"ts": at, "v": value} for value in (1, 2, 2, 3)))
    waiting(lambda: site.values("corrected") == [{"v": 3}], "the last correction")
    assert site.values("radio") == [{"temperature_C": 21.5}]
    (letter,) = json.loads(service.run("dead-letters", "--format", "json")[1])
    assert letter["reason"] == "other_device"
    assert "bind: {device: model}" in letter["message"]
    metrics = service.metrics()
    assert metrics['hs_overwritten_readings_total{source="corrected"}'] == 2
    assert metrics['hs_readings_total{source="radio"}'] == 1
    assert service.errors().count("a reading was overwritten") == 1
    (told,) = json.loads(service.ask("/api/deadletters"))["overwritten"]
    assert (told["source"], told["count"], told["stream"]) == ("corrected", 2, "corrected")
    doctor = service.run("doctor")[1]
    assert "2 of source corrected were overwritten" in doctor
    assert "bind: {device: id}" in doctor
