"""Codecs: golden cases from `golden/cases.yaml`, and no byte string that crashes one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from hs_stream.core.errors import ConfigurationError, PayloadError
from hs_stream.core.value import canonical, same
from hs_stream_connectors.codecs import CODECS, REASONS, BatchError, Codec, TimeSpec, codec

ARRIVAL = 1_700_000_000_000
MS = {"field": "ts", "unit": "ms"}


def golden() -> list[Any]:
    groups = YAML(typ="safe").load(Path(__file__).with_name("golden").joinpath("cases.yaml"))
    return [
        pytest.param(title.split()[0], group["options"], case, id=f"{title}-{index}")
        for title, group in groups.items()
        for index, case in enumerate(group["cases"])
    ]


@pytest.mark.parametrize(("name", "options", "case"), golden())
def test_golden_case(name: str, options: dict[str, Any], case: dict[str, Any]) -> None:
    payload = bytes.fromhex(case["hex"]) if "hex" in case else case["text"].encode()
    arguments = (case.get("topic", "a/b"), payload, ARRIVAL, case.get("retained", False))
    if "reason" in case:
        with pytest.raises(PayloadError) as caught:
            codec(name, **options).decode(*arguments)
        assert caught.value.reason == case["reason"]
        assert caught.value.reason in REASONS
        assert len(caught.value.message) < 300
    else:
        readings = [list(reading) for reading in codec(name, **options).decode(*arguments)]
        assert same(readings, canonical(case["readings"]))


def every_codec() -> list[Codec]:
    timed = [codec(name, time=MS, fields=fields) for name in ("json", "msgpack") for fields in (None, ["a"])]
    return [*timed, *(codec(name) for name in CODECS)]


def decode(which: Codec, payload: bytes) -> None:
    """Decode, and check what may come of it."""
    errors: list[PayloadError] = []
    readings: list[tuple[int, Any]] = []
    try:
        readings = which.decode("zigbee2mqtt/lamp", payload, ARRIVAL, False)
    except BatchError as error:
        readings, errors = error.readings, error.errors
    except PayloadError as error:
        errors = [error]
    assert {error.reason for error in errors} <= REASONS
    for time, value in readings:
        assert type(time) is int
        assert same(canonical(value), value)


@pytest.mark.parametrize("which", every_codec(), ids=lambda which: which.name)
@given(payload=st.binary(max_size=200))
@settings(max_examples=40, deadline=None)
def test_random_bytes_never_crash(which: Codec, payload: bytes) -> None:
    decode(which, payload)


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["ts", "a", "last_seen", "x"]), inner),
    max_leaves=12,
)


@pytest.mark.parametrize("which", every_codec(), ids=lambda which: which.name)
@given(document=documents)
@settings(max_examples=40, deadline=None)
def test_valid_documents_of_any_shape_never_crash(which: Codec, document: Any) -> None:
    try:
        payload = msgspec.msgpack.encode(document) if which.name == "msgpack" else msgspec.json.encode(document)
    except (OverflowError, UnicodeEncodeError):
        return
    decode(which, payload)


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
    ("name", "options", "match"),
    [
        ("xml", {}, "json, msgpack, number, text, zigbee2mqtt"),
        ("json", {"tiem": "arrival"}, "unknown option 'tiem'"),
        ("json", {"time": "ts"}, "time: 'ts'"),
        ("json", {"time": {"field": "ts", "unit": "m"}}, "time.unit"),
        ("json", {"time": {"unit": "ms"}}, "field: ts"),
        ("json", {"time": {"field": "ts", "zone": "Mars/Base"}}, "time.zone"),
        ("json", {"time": {"field": 7}}, "time.field"),
        ("json", {"fields": "temperature"}, "list of keys"),
        ("json", {"fields": []}, "list of keys"),
        ("json", {"max_payload": 0}, "bytes"),
        ("json", {"earliest": "long ago"}, "1971-01-01"),
        ("json", {"earliest": "1971-01-01"}, "1971-01-01T"),
        ("number", {"time": MS}, "bare payload"),
        ("text", {"fields": ["a"]}, "bare payload"),
        ("zigbee2mqtt", {"time": MS}, "last_seen"),
    ],
)
def test_wrong_options_are_named(name: str, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        codec(name, **options)


def test_earliest_can_be_moved() -> None:
    early = codec("json", time=MS, earliest="1969-01-01T00:00:00Z")
    assert early.decode("a", b'{"ts": 0}', ARRIVAL, False) == [(0, {})]
