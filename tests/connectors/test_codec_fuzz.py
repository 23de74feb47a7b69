"""No payload makes a codec raise anything but `PayloadError`, give what is no reading, or grow.

CI tries some thousand payloads per codec; ``make fuzz`` 100,000 of each (``make fuzz PAYLOADS=... SEED=...``).
"""

from __future__ import annotations

import gc
import os
import random
import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from hs_stream.core.errors import PayloadError
from hs_stream.core.stream import check_plate_value
from hs_stream.core.value import canonical, same
from hs_stream.entry_points import CODECS
from hs_stream_connectors.codecs import REASONS, BatchError, Codec, Decoded, codec

ARRIVAL = 1_700_000_000_000
PER_EXAMPLE = 20
PAYLOADS = int(os.environ.get("HS_STREAM_FUZZ", "2000"))
WORDS = [
    *("ts", "t", "v", "a", "last_seen", "Time", "Epoch", "ENERGY", "Power", "method", "NotifyStatus", "params", "id"),
    *("switch:0", "apower", "uid", "bt", "e", "n", "name", "meta", "data"),
]

Message = tuple[str, bytes]


def groups() -> dict[str, tuple[str, dict[str, Any], list[Message]]]:
    """Codec, options and messages of each group of golden cases."""
    found = {}
    for file in sorted(Path(__file__).with_name("golden").glob("*.yaml")):
        for title, group in YAML(typ="safe").load(file).items():
            messages = [
                (case.get("topic", "a/b"), bytes.fromhex(case["hex"]) if "hex" in case else case["text"].encode())
                for case in group["cases"]
            ]
            found[title] = (title.split()[0], group["options"], messages)
    return found


GROUPS = groups()


def check(which: Codec, topic: str, payload: bytes, retained: bool = False) -> None:
    """Decode, and look at what comes of it."""
    errors: list[PayloadError] = []
    readings: Decoded = []
    try:
        readings = which.decode(topic, payload, ARRIVAL, retained)
    except BatchError as error:
        readings, errors = error.readings, error.errors
    except PayloadError as error:
        errors = [error]
    assert {error.reason for error in errors} <= REASONS
    assert all(len(error.message) < 500 for error in errors)
    for time, value, *meta in readings:
        assert time is None or type(time) is int
        assert same(canonical(value), value)
        bound = dict(meta[0]) if meta else {}
        assert tuple(bound) == which.plates
        assert all(check_plate_value(content) for content in bound.values())


def mutate(payload: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """Replace some bytes at some places, lengths and places taken modulo what is there."""
    out = bytearray(payload)
    for place, length, piece in edits:
        at = place % (len(out) + 1)
        out[at : at + length] = piece
    return bytes(out)


PIECES = st.sampled_from(
    [b"", b"\x00", b"\xff", b"{", b"}", b"[", b"]", b'"', b"null", b"1e999", b"-", b"9" * 25, b"."]
)
EDITS = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 9), PIECES | st.binary(max_size=5)), max_size=4)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
    max_leaves=12,
)


def encoded(name: str, document: Any) -> bytes:
    try:
        return msgspec.msgpack.encode(document) if name == "msgpack" else msgspec.json.encode(document)
    except (OverflowError, UnicodeEncodeError):
        return b""


def payloads(title: str) -> st.SearchStrategy[list[tuple[str, bytes, bool]]]:
    name, _, messages = GROUPS[title]
    topics = sorted({topic for topic, _ in messages})
    mutated = st.tuples(st.sampled_from(messages), EDITS).map(lambda pair: (pair[0][0], mutate(pair[0][1], pair[1])))
    arbitrary = st.tuples(st.sampled_from(topics), st.binary(max_size=200))
    document = st.tuples(st.sampled_from(topics), DOCUMENTS.map(lambda document: encoded(name, document)))
    one = st.tuples(mutated | arbitrary | document, st.booleans()).map(lambda pair: (*pair[0], pair[1]))
    return st.lists(one, min_size=PER_EXAMPLE, max_size=PER_EXAMPLE)


def test_every_codec_has_golden_cases() -> None:
    assert {name for name, _, _ in GROUPS.values()} == set(CODECS.names())


@pytest.mark.timeout(0 if "HS_STREAM_FUZZ" in os.environ else 60)
@pytest.mark.parametrize("title", GROUPS)
def test_no_payload_crashes(title: str) -> None:
    name, options, _ = GROUPS[title]
    which = codec(name, **options)
    share = PAYLOADS // sum(other == name for other, _, _ in GROUPS.values())

    @settings(
        max_examples=-(-share // PER_EXAMPLE), deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(payloads(title))
    def run(batch: list[tuple[str, bytes, bool]]) -> None:
        for topic, payload, retained in batch:
            check(which, topic, payload, retained)

    run()


@pytest.mark.parametrize("title", GROUPS)
def test_nothing_grows(title: str) -> None:
    name, options, messages = GROUPS[title]
    which = codec(name, **options)
    random_ = random.Random(title)

    def run(count: int) -> None:
        for _ in range(count):
            topic, payload = random_.choice(messages)
            edits = [(random_.randrange(1 << 16), random_.randrange(4), random_.randbytes(2)) for _ in range(2)]
            check(which, topic, mutate(payload, edits))

    run(300)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        run(300)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 20_000
