"""Codecs: golden cases from `golden/*.yaml`, and options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from hs_stream.core.errors import ConfigurationError, PayloadError, did_you_mean
from hs_stream.core.stream import StreamId
from hs_stream.core.value import canonical, same
from hs_stream_connectors.codecs import REASONS, BatchError, TimeSpec, codec
from hs_stream_connectors.codecs.base import MOST_REFUSED, has
from hs_stream_connectors.mqtt.homeassistant import Entity

ARRIVAL = 1_700_000_000_000
MS = {"field": "ts", "unit": "ms"}


def golden() -> list[Any]:
    files = sorted(Path(__file__).with_name("golden").glob("*.yaml"))
    return [
        pytest.param(title.split()[0], group["options"], case, id=f"{title}-{index}")
        for file in files
        for title, group in YAML(typ="safe").load(file).items()
        for index, case in enumerate(group["cases"])
    ]


@pytest.mark.parametrize(("name", "options", "case"), golden())
def test_golden_case(name: str, options: dict[str, Any], case: dict[str, Any]) -> None:
    payload = bytes.fromhex(case["hex"]) if "hex" in case else case["text"].encode()
    arguments = (case.get("topic", "a/b"), payload, case.get("arrival", ARRIVAL), case.get("retained", False))
    if "reason" in case:
        with pytest.raises(PayloadError) as caught:
            codec(name, **options).decode(*arguments)
        assert caught.value.reason == case["reason"]
        assert caught.value.reason in REASONS
        assert len(caught.value.message) < 300
    else:
        assert same(canonical(codec(name, **options).decode(*arguments)), canonical(case["readings"]))


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"[" * 1_000 + b"]" * 1_000, "depth"),
        (b"[" * 100_000, "depth"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "depth"),
        (b"9" * 10_000, "not_finite"),
        (b"9" * 30, "value"),
        (b"[" * 64 + b"]" * 64, None),
    ],
)
def test_depth_and_size_of_json(payload: bytes, reason: str | None) -> None:
    if reason is None:
        assert len(codec("json").decode("a", payload, ARRIVAL, False)) == 1
        return
    with pytest.raises(PayloadError) as caught:
        codec("json").decode("a", payload, ARRIVAL, False)
    assert caught.value.reason == reason


def test_deep_msgpack_is_refused() -> None:
    with pytest.raises(PayloadError) as caught:
        codec("msgpack").decode("a", b"\x91" * 100_000 + b"\xc0", ARRIVAL, False)
    assert caught.value.reason == "depth"


BAD = {
    "an array": ("json", {"time": MS}, b'[{"ts": 1423072260000}, ', b"{}", b"]", "element 10000"),
    "entries": (
        *("sphere", {"bind": {"quantity": "name"}}, b'{"bt": 1423072260000, "e": [{"n": "T", "v": 1}, ', b"0", b"]}"),
        "entry 10000",
    ),
    "one value": ("sphere", {}, b'{"bt": 1423072260000, "e": [{"n": "T", "v": 1}, ', b"0", b"]}", "entry 10000"),
    "metrics": ("sparkplug", {"bind": {"metric": "name"}}, b"", b"\x12\x02\x50\x01", b"", "metric 9999"),
}


@pytest.mark.parametrize("case", BAD)
def test_after_so_many_bad_parts_no_more_is_looked_at(case: str) -> None:
    """Each costs time, and a device decides how many it sends: 330,000 of them kept everybody else waiting for 2 s."""
    name, options, before, part, after, last = BAD[case]
    between = b"" if name == "sparkplug" else b","
    topic = "spBv1.0/g/NDATA/e" if name == "sparkplug" else "a"

    def refused(count: int) -> BatchError:
        payload = before + between.join([part] * count) + after
        with pytest.raises(BatchError) as caught:
            codec(name, **options).decode(topic, payload, ARRIVAL, False)
        return caught.value

    some = refused(MOST_REFUSED - 1)
    assert sum(some.counts.values()) == MOST_REFUSED - 1
    assert "too_many" not in some.counts
    many = refused(4 * MOST_REFUSED)
    assert many.counts == {some.reason: MOST_REFUSED, "too_many": 1}
    assert many.readings == some.readings
    assert len(many.readings) == (name != "sparkplug"), "what came before is not lost"
    assert many.errors[-1].message == (
        f"{MOST_REFUSED} parts of this message are no readings; what follows {last} was not looked at"
    )


def test_what_is_no_object_costs_nothing_and_is_counted() -> None:
    payload = b"[" + b"0," * 4 * MOST_REFUSED + b'{"ts": 1423072260000, "v": 1}]'
    with pytest.raises(BatchError) as caught:
        codec("json", time=MS).decode("a", payload, ARRIVAL, False)
    assert caught.value.readings == [(1_423_072_260_000, {"v": 1})]
    assert caught.value.counts == {"type": 4 * MOST_REFUSED}


def test_a_bad_element_leaves_the_good_ones() -> None:
    payload = b'[{"ts": 1423072260000, "v": 1}, 5, {"v": 2}, {"ts": 1423072262000, "v": 3}]'
    with pytest.raises(BatchError) as caught:
        codec("json", time=MS).decode("a", payload, ARRIVAL, False)
    assert caught.value.readings == [(1_423_072_260_000, {"v": 1}), (1_423_072_262_000, {"v": 3})]
    assert [(error.reason, error.message[:9]) for error in caught.value.errors] == [
        ("type", "element 1"),
        ("time_missing", "element 2"),
    ]


def test_time_specs() -> None:
    assert TimeSpec.parse("arrival") == TimeSpec.parse(None) == TimeSpec()
    assert TimeSpec.parse(("ts", "ms")) == TimeSpec.parse(["ts", "ms"]) == TimeSpec.parse(MS) == TimeSpec("ts", "ms")
    assert TimeSpec.parse({"field": "Time"}).unit == "iso"
    assert str(TimeSpec.parse({"field": "Time", "zone": "Europe/Berlin"}).zone) == "Europe/Berlin"


@pytest.mark.parametrize(
    ("options", "ends"),
    [
        ({"fields": ["temprature", "humidty"]}, ": did you mean temperature, humidity?"),
        ({"fields": ["wifi.rsi"]}, ": did you mean wifi.rssi?"),
        ({"fields": ["x"]}, "none of the fields x; it has tss, temperature, humidity, wifi.rssi"),
        ({"time": {"field": "ts", "unit": "ms"}}, "; it has tss, temperature, humidity, wifi.rssi: did you mean tss?"),
        ({"bind": {"device": "temperture"}}, ": did you mean temperature?"),
    ],
)
def test_a_missing_field_says_which_there_are(options: dict[str, Any], ends: str) -> None:
    payload = b'{"tss": 1, "temperature": 21.5, "humidity": 40, "wifi": {"rssi": -60}}'
    with pytest.raises(PayloadError) as caught:
        codec("json", **options).decode("a", payload, ARRIVAL, False)
    assert str(caught.value).endswith(ends), str(caught.value)


def test_the_fields_that_an_error_names_are_bounded() -> None:
    payload = json.dumps({f"{number}{'x' * 1000}": number for number in range(1000)}).encode()
    with pytest.raises(PayloadError) as caught:
        codec("json", fields=["y"]).decode("a", payload, ARRIVAL, False)
    assert str(caught.value).endswith(", ...")
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(
    ("unit", "raw", "reason", "ends"),
    [
        ("ms", "1700000000", "before_earliest", "; or is time.unit s? It would be 2023-11-14T22:13:20Z"),
        ("ms", "1700000000.5", "before_earliest", "; or is time.unit s? It would be 2023-11-14T22:13:20.500Z"),
        ("ms", '"1700000000"', "before_earliest", "; or is time.unit s? It would be 2023-11-14T22:13:20Z"),
        ("us", "1700000000000", "before_earliest", "; or is time.unit ms? It would be 2023-11-14T22:13:20Z"),
        ("s", "1700000000000", "time_invalid", "; or is time.unit ms? It would be 2023-11-14T22:13:20Z"),
        ("ms", "1700000000000000", "time_invalid", "; or is time.unit us? It would be 2023-11-14T22:13:20Z"),
        ("ms", "86400000", "before_earliest", "write earliest: 1970-01-01T00:00:00Z at the source"),
        ("s", "12", "before_earliest", "write earliest: 1970-01-01T00:00:00Z at the source"),
        ("s", "946684812", "before_earliest", "write earliest: 2000-01-01T00:00:00Z at the source"),
        ("s", str(1_700_000_000 - 1024 * 7 * 86_400), "before_earliest", "of a GPS receiver has rolled over"),
        ("ms", "1e300", "time_invalid", "; is the unit right?"),
        ("ns", "1.7e308", "time_invalid", "; is the unit right?"),
    ],
)
def test_a_time_that_is_likely_in_another_unit_says_so(unit: str, raw: str, reason: str, ends: str) -> None:
    with pytest.raises(PayloadError) as caught:
        codec("json", time={"field": "ts", "unit": unit}).decode("a", f'{{"ts": {raw}}}'.encode(), ARRIVAL, False)
    assert caught.value.reason == reason
    assert str(caught.value).endswith(ends), str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("xml", {}, "write one of esphome, json, msgpack, number"),
        ("json", {"tiem": "arrival"}, "unknown option 'tiem'"),
        ("json", {"time": "ts"}, "time: 'ts'"),
        ("json", {"time": {"field": "ts", "unit": "m"}}, "time.unit"),
        ("json", {"time": {"unit": "ms"}}, "field: ts"),
        ("json", {"time": {"field": "ts", "zone": "Mars/Base"}}, "time.zone"),
        ("json", {"time": {"field": 7}}, "time.field"),
        ("json", {"fields": "temperature"}, "list of keys"),
        ("json", {"fields": []}, "list of keys"),
        ("json", {"max_payload": 0}, "bytes"),
        ("json", {"earliest": "long ago"}, "2010-01-01"),
        ("json", {"earliest": "1971-01-01"}, "2010-01-01T"),
        ("number", {"time": MS}, "bare payload"),
        ("text", {"fields": ["a"]}, "bare payload"),
        ("text", {"bind": {"device": "id"}}, "bare payload"),
        ("zigbee2mqtt", {"time": MS}, "last_seen"),
        ("zigbee2mqtt", {"base": "a/#"}, "base: zigbee2mqtt"),
        ("zigbee2mqtt", {"zone": "UTC"}, "unknown option 'zone'"),
        ("json", {"bind": "device"}, "{PLATE: KEY}"),
        ("json", {"bind": {"de vice": "id"}}, "not a plate's name"),
        ("tasmota", {}, "zone: Europe/Berlin"),
        ("tasmota", {"zone": "Mars/Base"}, "time.zone"),
        ("tasmota", {"zone": "UTC", "time": MS}, "read with `zone`"),
        ("tasmota", {"zone": "UTC", "bind": {"device": "Id"}}, "tele/{device}/SENSOR"),
        ("shelly", {}, "component: component, property: property"),
        ("shelly", {"fields": ["apower"]}, "component: component, property: property"),
        ("shelly", {"bind": {"channel": "component"}}, "component: component, property: property"),
        ("shelly", {"bind": {"channel": "switch"}}, "one of component, property, name"),
        ("shelly", {"bind": {"value": "name"}, "time": MS}, "params.ts"),
        ("shelly1", {"fields": ["a"]}, "bare payload"),
        ("esphome", {"time": MS}, "the arrival"),
        ("statestream", {"bind": {"a": "b"}}, "bare payload"),
        ("sparkplug", {}, "metric: name"),
        ("sparkplug", {"fields": ["a", "b"]}, "metric: name"),
        ("sparkplug", {"fields": ["a"], "scope": "edge"}, "scope is 'edge'"),
        ("sparkplug", {"bind": {"d": "device", "m": "name"}, "scope": "node"}, "scope is 'node'"),
        ("sparkplug", {"fields": ["a"], "rebirth": "no"}, "rebirth is 'no'"),
        ("sphere", {"time": MS}, "it is bt"),
    ],
)
def test_wrong_options_are_named(name: str, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        codec(name, **options)


@pytest.mark.parametrize("moment", ["1995-07-01T12:00:00Z", "1960-01-01T00:00:00Z", "0001-05-01T00:00:00Z"])
def test_the_line_that_a_time_of_long_ago_is_told_to_write_is_enough(moment: str) -> None:
    payload = json.dumps({"ts": moment}).encode()
    with pytest.raises(PayloadError) as caught:
        codec("json", time=("ts", "iso")).decode("a", payload, ARRIVAL, False)
    line = caught.value.message.partition("If this is history, write ")[2].removesuffix(" at the source")
    options = YAML(typ="safe").load(line)
    assert len(codec("json", time=("ts", "iso"), **options).decode("a", payload, ARRIVAL, False)) == 1


def test_earliest_can_be_moved() -> None:
    early = codec("json", time=MS, earliest="1969-01-01T00:00:00Z")
    assert early.decode("a", b'{"ts": 0}', ARRIVAL, False) == [(0, {})]


@pytest.mark.parametrize("name", ["esphome", "statestream"])
def test_our_own_entities_are_no_readings(name: str) -> None:
    """The filter of nodes without a common prefix, ``+/sensor/+/state``, is sent them too."""
    entity = Entity(StreamId.make("smooth", {"house": "1"}), "comfort", ("1",), "sliding_mean", {})
    assert codec(name).decode(entity.topic("state"), b"21.5", 7, False) == []
    assert codec(name).decode("homeassistant/sensor/outside/state", b"3.5", 7, False) == [(None, 3.5)]


def test_a_suggestion_never_repeats_what_was_written() -> None:
    assert has({"data": {"rtc": 1, "rtd": 2}}, ["data.rtc"]) == "it has data.rtc, data.rtd: did you mean data.rtd?"
    assert has({"data": {"rtc": 1}}, ["data.rtc"]) == "it has data.rtc"
    assert did_you_mean("rtc", ["rtc", "rtd"]) == "did you mean rtd?"
    assert did_you_mean("rtc", ["rtc"]) == "there is rtc"


@pytest.mark.parametrize(
    ("name", "payload", "words"),
    [("json", b" ", "the payload is empty"), ("number", b'{"w": 3}', "but JSON: use codec: json")],
)
def test_what_is_easily_mistaken_is_named(name: str, payload: bytes, words: str) -> None:
    with pytest.raises(PayloadError, match=words):
        codec(name).decode("a", payload, ARRIVAL, False)
