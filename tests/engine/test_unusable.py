"""One dead letter for each message and reason, and how many of them are kept."""

from __future__ import annotations

from hs_stream.core.errors import PayloadError
from hs_stream.engine.ports import DeadLetter, Delivery, Reading, gist
from hs_stream.engine.unusable import (
    BURST,
    BURST_BYTES,
    BYTES_PER_SECOND,
    CUT_PAYLOAD,
    EXAMPLES,
    MOST_TEXT,
    PER_SECOND,
    Allowance,
    Unusable,
)
from tests.engine.conftest import Bench

NOW = 1_600_000_000_000


def letter(payload: bytes = b"", count: int = 1) -> DeadLetter:
    return DeadLetter(NOW, "climate", "json", "broken", "t", payload, count)


def test_a_message_is_one_letter_for_each_reason() -> None:
    payload = b"x" * 100_000
    readings = [Reading("climate", (), NOW + index, 1.0) for index in range(1000)]
    delivery = Delivery(readings, [], NOW, lambda: None, 1, [(0, "home/climate", payload), (900, "other", b"y")])
    unusable = Unusable([letter()], NOW)
    for index in range(1000):
        unusable.add(delivery, index, PayloadError("future" if index % 3 else "expired", f"reading {index}"))
    first, *letters = unusable.letters()
    assert first == letter()
    assert [(one.reason, one.topic, one.count) for one in letters] == [
        ("expired", "home/climate", 300),
        ("future", "home/climate", 600),
        ("expired", "other", 34),
        ("future", "other", 66),
    ]
    assert letters[0].message == "reading 0; reading 3; reading 6; 297 more (300 in this message)"
    assert max(len(one.payload) for one in letters) <= 65_536


def test_what_an_import_brings_is_one_letter_for_each_reason() -> None:
    delivery = Delivery([Reading("climate", (), NOW, 1.0), Reading("climate", (), NOW + 1, 2.0)], [], NOW, lambda: None)
    unusable = Unusable([], NOW)
    for index in range(2):
        unusable.add(delivery, index, PayloadError("expired", f"reading {index}"))
    [one] = unusable.letters()
    assert (one.message, one.count) == ("reading 0; reading 1", 2)
    assert one.payload == b'{"stream": "climate", "time": 1600000000000, "value": 1.0}'


def test_the_message_of_few_names_all() -> None:
    assert gist(["a"] * EXAMPLES, EXAMPLES) == "a; a; a"


def test_so_many_are_kept_and_then_so_many_a_second() -> None:
    allowance = Allowance()
    assert len(allowance.kept([letter()] * (BURST + 5), NOW)) == BURST
    assert allowance.kept([letter()], NOW) == []
    assert allowance.kept([letter()], NOW - 60_000) == [], "a clock that steps back gives nothing"
    assert len(allowance.kept([letter()] * 1000, NOW + 60_000)) == 60 * PER_SECOND
    assert len(allowance.kept([letter()] * 2 * BURST, NOW + 10**9)) == BURST


def test_payloads_have_a_bound_together() -> None:
    allowance = Allowance()
    payload = bytes(64 * 1024)
    kept = allowance.kept([letter(payload)] * 1000, NOW)
    assert len(kept) == 1000
    whole = [one for one in kept if len(one.payload) == len(payload)]
    assert len(whole) == BURST_BYTES // len(payload)
    cut = kept[-1]
    assert len(cut.payload) == CUT_PAYLOAD
    assert cut.message == f"broken (payload cut to {CUT_PAYLOAD} bytes: too many dead letters)"
    later = allowance.kept([letter(payload)] * 10, NOW + int(2 * len(payload) / BYTES_PER_SECOND * 1000))
    assert [len(one.payload) for one in later] == [len(payload)] * 2 + [CUT_PAYLOAD] * 8


def test_texts_have_a_bound_each() -> None:
    """A topic may have 65,535 bytes: ten thousand letters would be 655 MB of them."""
    [one] = Allowance().kept([DeadLetter(NOW, "climate", "json", "m" * 5000, "t" * 65_535)], NOW)
    assert one.topic == "t" * MOST_TEXT + "..."
    assert one.message == "m" * MOST_TEXT + "..."


async def test_all_are_counted_and_few_are_stored(bench: Bench) -> None:
    """Twenty thousand readings of one message, eighty years ahead."""
    await bench.start(bench.workflow())
    first = bench.clock.now() + 80 * 365 * 86_400_000
    readings = [Reading("power", (("room", "a"),), first + index, 1.0) for index in range(20_000)]
    payload = b"[" + b"0," * 100_000 + b"0]"
    acknowledged = []
    delivery = Delivery(readings, [], bench.clock.now(), lambda: acknowledged.append(True), 1, [(0, "x", payload)])
    await bench.engine.deliver(delivery)
    await bench.engine.settle()
    assert acknowledged
    [one] = await bench.store.dead_letters(10)
    assert one.reason == "future"
    assert one.message.endswith("19997 more (20000 in this message)")
    assert bench.engine.statistics().dead_letters == 20_000
