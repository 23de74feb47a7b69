"""Sparkplug B: aliases, births, gaps, restarts, bounds; and the wire format against Google's implementation."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hs_stream.core.errors import PayloadError
from hs_stream_connectors.codecs import REASONS, BatchError, codec, sparkplug
from hs_stream_connectors.codecs.protobuf import encode, fields
from hs_stream_connectors.codecs.sparkplug import SparkplugCodec
from hs_stream_connectors.codecs.sparkplug_payload import parse
from tests.connectors.sparkplug_messages import payload

T0 = 1_486_765_200_000
NOW = 1_700_000_000_000
DEVICES = {"bind": {"device": "device", "metric": "name"}}
INT32, INT64, DOUBLE = 3, 4, 10
TEMPERATURE = {"name": "Inputs/Temperature", "alias": 7, "timestamp": T0, "datatype": DOUBLE, "double": 21.5}
ASKED = {"name": "Node Control/Rebirth", "timestamp": NOW, "datatype": 11, "bool": True}
REBIRTH = ("spBv1.0/plant/NCMD/edge", payload(None, ASKED, timestamp=NOW))


class Edge:
    """An edge node and the codec that hears it."""

    def __init__(self, **options: Any) -> None:
        made = codec("sparkplug", **(options or DEVICES))
        assert isinstance(made, SparkplugCodec)
        self.codec, self.seq = made, 0

    def send(self, kind: str, *metrics: dict[str, Any], device: str = "", seq: int | None = -1, now: int = NOW) -> Any:
        """What comes of one message: readings, or the reasons of all errors. The sequence goes on by itself."""
        if kind == "NBIRTH":
            self.seq = 0
        number = self.seq if seq == -1 else seq
        self.seq = (self.seq + 1) % 256
        topic = f"spBv1.0/plant/{kind}/edge" + (f"/{device}" if device else "")
        try:
            return self.codec.decode(topic, payload(number, *metrics), now, False)
        except BatchError as error:
            return [*error.readings, *(bad.reason for bad in error.errors)]
        except PayloadError as error:
            return [error.reason]

    def born(self) -> Edge:
        """With a device that has said what its alias means."""
        self.send("NBIRTH", {"name": "bdSeq", "timestamp": T0, "datatype": INT64, "long": 3})
        self.send("DBIRTH", TEMPERATURE, device="plc")
        return self


def named(time: int, value: Any) -> Any:
    return (time, value, (("device", "plc"), ("metric", "Inputs/Temperature")))


def data(double: float, time: int = T0 + 1_000, **more: Any) -> dict[str, Any]:
    return {"alias": 7, "timestamp": time, "double": double} | more


def test_births_and_data_with_aliases_are_readings_at_each_metrics_own_time() -> None:
    edge = Edge()
    assert edge.send("NBIRTH", {"name": "Uptime", "timestamp": T0, "datatype": INT64, "long": 5}) == []
    assert edge.send("DBIRTH", TEMPERATURE, device="plc") == [named(T0, 21.5)]
    assert edge.send("DDATA", data(22.0), data(20.0, T0 - 9, is_historical=True), device="plc") == [
        named(T0 + 1_000, 22.0),
        named(T0 - 9, 20.0),
    ]
    assert edge.codec.requests() == []


def test_the_nodes_own_metrics_are_a_source_of_their_own() -> None:
    edge = Edge(fields=["Uptime"])
    edge.send("NBIRTH", {"name": "Uptime", "alias": 1, "timestamp": T0, "datatype": INT32, "int": -5})
    assert edge.send("DBIRTH", TEMPERATURE, device="plc") == []
    assert edge.send("NDATA", {"alias": 1, "timestamp": T0 + 1, "int": -6}) == [(T0 + 1, -6)]


def test_a_topic_that_binds_the_device() -> None:
    edge = Edge(fields=["Inputs/Temperature"], scope="device").born()
    assert edge.send("DDATA", data(1.0), device="plc") == [(T0 + 1_000, 1.0)]


def test_after_a_restart_data_is_dead_until_the_birth_that_is_asked_for() -> None:
    before = Edge().born()
    after = Edge()
    after.seq = before.seq
    assert after.send("DDATA", data(22.0), device="plc") == ["no_birth"]
    assert after.codec.requests() == [REBIRTH]
    assert after.send("DDATA", data(22.0), device="plc", now=NOW + 59_999) == ["no_birth"]
    assert after.codec.requests() == []
    assert after.send("DDATA", data(22.0), device="plc", now=NOW + 60_000) == ["no_birth"]
    assert len(after.codec.requests()) == 1
    after.born()
    assert after.send("DDATA", data(22.0), device="plc") == [named(T0 + 1_000, 22.0)]


def test_rebirth_can_be_switched_off() -> None:
    edge = Edge(**DEVICES, rebirth=False)
    assert edge.send("DDATA", data(22.0), device="plc") == ["no_birth"]
    assert edge.codec.requests() == []


def test_data_with_name_and_type_needs_no_birth() -> None:
    assert Edge().send("DDATA", TEMPERATURE, device="plc") == [named(T0, 21.5)]


def test_a_gap_may_hide_a_birth_so_aliases_are_forgotten() -> None:
    edge = Edge().born()
    edge.seq += 1
    assert edge.send("DDATA", data(22.0), device="plc") == ["no_birth"]
    assert edge.send("DDATA", data(22.0), device="plc") == ["no_birth"]
    assert edge.send("DBIRTH", TEMPERATURE, device="plc") == [named(T0, 21.5)]
    assert edge.send("DDATA", data(22.0), device="plc") == [named(T0 + 1_000, 22.0)]


def test_a_message_without_a_sequence_number_is_a_gap() -> None:
    edge = Edge().born()
    assert edge.send("DDATA", data(22.0), device="plc", seq=None) == ["no_birth"]


def test_the_sequence_wraps_and_a_repeat_is_no_gap() -> None:
    edge = Edge().born()
    for step in range(600):
        assert edge.send("DDATA", data(float(step)), device="plc") == [named(T0 + 1_000, float(step))]
        edge.seq = (edge.seq - 1) % 256
        assert edge.send("DDATA", data(float(step)), device="plc") == [named(T0 + 1_000, float(step))]


def test_a_new_birth_gives_an_alias_another_meaning() -> None:
    edge = Edge().born()
    edge.send("NBIRTH")
    edge.send("DBIRTH", TEMPERATURE | {"name": "Other"}, device="plc")
    assert edge.send("DDATA", data(1.0), device="plc") == [(T0 + 1_000, 1.0, (("device", "plc"), ("metric", "Other")))]


def test_deaths() -> None:
    edge = Edge().born()
    old = {"name": "bdSeq", "timestamp": T0, "datatype": INT64, "long": 2}
    edge.send("NDEATH", old, seq=None)  # the will of the session before
    edge.seq -= 1
    assert edge.send("DDATA", data(1.0), device="plc") == [named(T0 + 1_000, 1.0)]
    assert edge.send("DDEATH", device="plc") == []
    assert edge.send("DDATA", data(1.0), device="plc") == ["no_birth"]
    edge.born()
    edge.send("NDEATH", old | {"long": 3}, seq=None)
    edge.seq -= 1
    assert edge.send("DDATA", data(1.0), device="plc") == ["no_birth"]


@pytest.mark.parametrize(
    ("datatype", "content", "expected"),
    [
        (1, {"int": 0xFF}, -1),
        (1, {"int": -1}, -1),
        (2, {"int": -32_768}, -32_768),
        (3, {"int": 2**31 - 1}, 2**31 - 1),
        (4, {"long": -(2**63)}, -(2**63)),
        (7, {"int": 2**32 - 1}, 2**32 - 1),
        (8, {"long": 2**63 - 1}, 2**63 - 1),
        (8, {"long": 2**63}, "value"),
        (9, {"float": 0.5}, 0.5),
        (9, {"float": float("nan")}, "not_finite"),
        (10, {"double": float("inf")}, "not_finite"),
        (11, {"bool": True}, True),
        (12, {"string": "é"}, "é"),
        (12, {"string": b"\xff"}, "encoding"),
        (13, {"long": T0}, T0),
        (15, {"string": "2f1c"}, "2f1c"),
        (16, {"dataset": b""}, "type"),
        (17, {"bytes": b"\x00\xff"}, b"\x00\xff"),
        (24, {"bytes": b"\x01\x00\x00\x00\xff\xff\xff\xff"}, [1, -1]),
        (30, {"bytes": b"\x00\x00\x00?"}, [0.5]),
        (30, {"bytes": b"\x00\x00\xc0\x7f"}, "not_finite"),
        (31, {"bytes": b"\x00"}, "type"),
        (32, {"bytes": b"\x00"}, "type"),
        (12, {"int": 1}, "type"),
        (99, {"int": 1}, "type"),
        (0, {"int": 1}, "no_birth"),
        (0, {"double": 1.5}, 1.5),
        (3, {"is_null": True}, None),
        (3, {}, "type"),
    ],
)
def test_values_by_data_type(datatype: int, content: dict[str, Any], expected: Any) -> None:
    edge = Edge(fields=["m"])
    given = {"name": "m", "timestamp": T0} | ({"datatype": datatype} if datatype else {}) | content
    failed = isinstance(expected, str) and expected in REASONS
    assert edge.send("NDATA", given) == [expected if failed else (T0, expected)]


def test_what_is_no_reading() -> None:
    edge = Edge(bind={"metric": "name"})
    for one in (
        {"name": "bdSeq", "datatype": INT64, "long": 0},
        {"name": "Node Control/Rebirth", "datatype": 11, "bool": False},
        {"name": "x", "datatype": 11, "bool": False, "is_transient": True},
    ):
        assert edge.send("NBIRTH", one | {"timestamp": T0}) == []
    assert edge.send("NCMD", {"name": "x", "datatype": 11, "bool": True, "timestamp": T0}) == []
    for topic in (
        "spBv1.0/STATE/host",
        "spBv1.0/plant/NDATA/edge/device",
        "spBv1.0/plant/DDATA/edge",
        "other/a/NDATA/b",
    ):
        assert edge.codec.decode(topic, b"\xff", NOW, False) == []
    assert edge.codec.decode("spBv1.0/plant/NDATA/edge", b"\xff", NOW, True) == []


def test_times() -> None:
    edge = Edge(fields=["m"])
    bare = {"name": "m", "datatype": 11, "bool": True}
    assert edge.send("NDATA", bare) == ["time_missing"]
    assert edge.send("NDATA", bare | {"timestamp": 5}) == ["before_earliest"]
    assert edge.send("NDATA", bare | {"timestamp": 2**64 - 1}) == ["time_invalid"]
    message = payload(9, bare, timestamp=T0)
    assert edge.codec.decode("spBv1.0/plant/NDATA/edge", message, NOW, False) == [(T0, True)]


@pytest.mark.parametrize("broken", ["ff", "08", "12ff", "1205", "0b", "00", "1203080000", "ffffffffffffffffffff01"])
def test_broken_bytes_are_named(broken: str) -> None:
    with pytest.raises(PayloadError) as caught:
        codec("sparkplug", fields=["m"]).decode("spBv1.0/p/NDATA/e", bytes.fromhex(broken), NOW, False)
    assert caught.value.reason == "protobuf"


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparkplug, "MAX_METRICS", 50)
    monkeypatch.setattr(sparkplug, "MAX_EDGES", 20)
    which = codec("sparkplug", **DEVICES)
    assert isinstance(which, SparkplugCodec)
    metrics = [TEMPERATURE | {"name": f"m{n}", "alias": n} for n in range(10)]
    for n in range(100):
        which.decode(f"spBv1.0/p/DBIRTH/edge{n}/plc", payload(0, *metrics), NOW, False)
        with pytest.raises(PayloadError):
            which.decode(f"spBv1.0/p/DDATA/other{n}/plc", payload(0, data(1.0)), NOW, False)
        assert which.remembered <= 70
    last = which.decode("spBv1.0/p/DDATA/edge99/plc", payload(1, data(1.0)), NOW, False)
    assert last == [(T0 + 1_000, 1.0, (("device", "plc"), ("metric", "m7")))]
    with pytest.raises(PayloadError, match="alias 7"):
        which.decode("spBv1.0/p/DDATA/edge1/plc", payload(1, data(1.0)), NOW, False)
    many = [TEMPERATURE | {"name": f"m{n}", "alias": n} for n in range(51)]
    which.decode("spBv1.0/p/DBIRTH/huge/plc", payload(0, *many), NOW, False)
    assert which.remembered <= 70


def test_memory_is_bounded_in_bytes() -> None:
    which = codec("sparkplug", **DEVICES)
    assert isinstance(which, SparkplugCodec)
    which.remember_within(60_000)
    name = "m" * 100
    metrics = [TEMPERATURE | {"name": f"{name}{n}", "alias": n} for n in range(20)]
    for n in range(100):
        which.decode(f"spBv1.0/{'g' * 500}/DBIRTH/edge{n}/plc", payload(0, *metrics), NOW, False)
        sequence = {"name": "bdSeq", "datatype": 12, "string": f"{n}" * 1_000}
        which.decode(f"spBv1.0/p/NBIRTH/node{n}", payload(0, sequence), NOW, False)
        use = which.remembered_bytes
        assert use.used <= use.limit
    assert use.forgotten >= 100 + 100 - which.remembered
    last = which.decode(f"spBv1.0/{'g' * 500}/DDATA/edge99/plc", payload(1, data(1.0)), NOW, False)
    assert len(last) == 1, "who spoke last is remembered"
    many = [TEMPERATURE | {"name": f"{name}{n}", "alias": n} for n in range(60)]
    before = which.remembered
    which.decode("spBv1.0/p/DBIRTH/huge/plc", payload(0, *many), NOW, False)
    assert which.remembered == before + 1, "one that takes too much itself pushes nobody out"
    with pytest.raises(PayloadError, match="alias 7"):
        which.decode("spBv1.0/p/DDATA/huge/plc", payload(1, data(1.0)), NOW, False)
    assert which.requests() == [("spBv1.0/p/NCMD/huge", REBIRTH[1])]
    kept = list(which._memory.edges.items())
    assert which.remembered_bytes.used == sum(edge.size + sum(map(sys.getsizeof, key)) for key, edge in kept)


# --- the wire format ---


@given(st.integers(1, (1 << 29) - 1), st.integers(0, (1 << 64) - 1) | st.binary(max_size=300))
def test_fields_reads_what_encode_writes(number: int, content: int | bytes) -> None:
    assert list(fields(encode(number, content))) == [(number, 0 if isinstance(content, int) else 2, content)]


@pytest.fixture(scope="module")
def google() -> Any:
    """The message class of Google's implementation, made from the documented field numbers."""
    pb = pytest.importorskip("google.protobuf.descriptor_pb2")
    from google.protobuf import descriptor_pool, message_factory

    kinds = pb.FieldDescriptorProto
    file = pb.FileDescriptorProto(name="sparkplug.proto", package="test", syntax="proto2")
    message = file.message_type.add(name="Payload")
    inner = message.nested_type.add(name="Metric")
    inner.oneof_decl.add(name="value")
    for name, number, kind in (
        ("name", 1, kinds.TYPE_STRING), ("alias", 2, kinds.TYPE_UINT64), ("timestamp", 3, kinds.TYPE_UINT64),
        ("datatype", 4, kinds.TYPE_UINT32), ("is_historical", 5, kinds.TYPE_BOOL), ("is_transient", 6, kinds.TYPE_BOOL),
        ("is_null", 7, kinds.TYPE_BOOL), ("int", 10, kinds.TYPE_UINT32), ("long", 11, kinds.TYPE_UINT64),
        ("float", 12, kinds.TYPE_FLOAT), ("double", 13, kinds.TYPE_DOUBLE), ("bool", 14, kinds.TYPE_BOOL),
        ("string", 15, kinds.TYPE_STRING), ("bytes", 16, kinds.TYPE_BYTES),
    ):  # fmt: skip
        one = inner.field.add(name=name, number=number, type=kind, label=kinds.LABEL_OPTIONAL)
        if number >= 10:
            one.oneof_index = 0
    message.field.add(name="timestamp", number=1, type=kinds.TYPE_UINT64, label=kinds.LABEL_OPTIONAL)
    message.field.add(
        name="metrics", number=2, type=kinds.TYPE_MESSAGE, label=kinds.LABEL_REPEATED, type_name=".test.Payload.Metric"
    )
    message.field.add(name="seq", number=3, type=kinds.TYPE_UINT64, label=kinds.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.Payload"))


U64 = st.integers(0, (1 << 64) - 1)
VALUES = st.one_of(
    st.tuples(st.just("int"), st.integers(0, (1 << 32) - 1)),
    st.tuples(st.just("long"), U64),
    st.tuples(st.just("float"), st.floats(width=32, allow_nan=False)),
    st.tuples(st.just("double"), st.floats(allow_nan=False)),
    st.tuples(st.just("bool"), st.booleans()),
    st.tuples(st.just("string"), st.text()),
    st.tuples(st.just("bytes"), st.binary()),
)
METRICS = st.fixed_dictionaries(
    {"value": VALUES},
    optional={
        "name": st.text(),
        "alias": U64,
        "timestamp": U64,
        "datatype": st.integers(0, 40),
        "is_null": st.booleans(),
    },
)


@given(U64, st.integers(0, 255), st.lists(METRICS, max_size=4))
@settings(max_examples=200, deadline=None)
def test_payloads_of_googles_implementation_are_read(google: Any, time: int, seq: int, metrics: list[Any]) -> None:
    message = google(timestamp=time, seq=seq)
    for given_ in metrics:
        rest = {key: value for key, value in given_.items() if key != "value"}
        message.metrics.add(**rest, **dict([given_["value"]]))
    found = parse(message.SerializeToString())
    assert (found.timestamp, found.seq, len(found.metrics)) == (time, seq, len(metrics))
    for read, given_ in zip(found.metrics, metrics, strict=True):
        assert read.name == given_.get("name", "")
        assert read.alias == given_.get("alias")
        assert read.timestamp == given_.get("timestamp")
        assert read.datatype == given_.get("datatype", 0)
        assert read.null == given_.get("is_null", False)
        assert read.content == given_["value"][1]


@given(st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_bytes_that_we_refuse_are_refused_by_google_too(google: Any, junk: bytes) -> None:
    from google.protobuf.message import DecodeError

    try:
        parse(junk)
    except PayloadError as error:
        if error.reason == "protobuf" and "unknown kind" not in error.message:
            with pytest.raises(DecodeError):
                google.FromString(junk)


def test_googles_implementation_reads_our_rebirth_command(google: Any) -> None:
    edge = Edge()
    edge.send("DDATA", data(1.0), device="plc")
    ((topic, command),) = edge.codec.requests()
    message = google.FromString(command)
    assert topic == "spBv1.0/plant/NCMD/edge"
    assert message.timestamp == NOW
    assert [(m.name, m.datatype, m.bool, m.timestamp) for m in message.metrics] == [
        ("Node Control/Rebirth", 11, True, NOW)
    ]
