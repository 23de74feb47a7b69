"""Tools on what lasts: by hand, and against plain Python that replays each instant."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hs_stream.core.batch import Batch
from hs_stream.core.errors import ConfigurationError
from hs_stream.core.time import MIN_TIME, TimeInterval
from hs_stream.core.tool import Pointwise, Previous, Sources, Support, Tool, Window
from hs_stream.plugins import default_registry

REGISTRY = default_registry()
NAN = float("nan")
LAST = 400
Items = list[tuple[int, Any]]


def build(pin: str, **parameters: Any) -> Tool:
    return REGISTRY.resolve(pin).build(parameters)


def ms(milliseconds: int) -> float:
    """A duration as parameters have it."""
    return milliseconds / 1000


def run(pin: str, items: Items, end: int = LAST, **parameters: Any) -> Items:
    return list(build(pin, **parameters).evaluate(TimeInterval(MIN_TIME, end), [Batch.of(items)]))


def readings(values: st.SearchStrategy[Any], last: int = 60) -> st.SearchStrategy[Items]:
    return st.dictionaries(st.integers(0, last), values, max_size=12).map(lambda found: sorted(found.items()))


def lost(value: Any) -> bool:
    return value is None or value in ("unavailable", "unknown") or value != value


def instant_by_instant(items: Items, *, max_age: int | None = None, keeps: bool = False) -> list[Any]:
    """For each millisecond of (-1, LAST] what holds, ``[value]``, or ``[]`` where it is unknown."""
    found: list[Any] = []
    for now in range(LAST + 1):
        before = [(time, value) for time, value in items if time <= now and not (keeps and lost(value))]
        old = not before or lost(before[-1][1]) or (max_age is not None and now - before[-1][0] >= max_age)
        found.append([] if old else [before[-1][1]])
    return found


STATES = st.sampled_from(["open", "closed", 1, 1.0, True, None, NAN, "unavailable"])
AGES = st.none() | st.integers(1, 40)


# --- threshold ---


def test_without_hysteresis_above_is_above() -> None:
    assert [v for _, v in run("threshold@^2", [(0, 27), (1, 26), (2, 25), (3, 26)], above=26)] == [
        True,
        False,
        False,
        False,
    ]
    assert [v for _, v in run("threshold@^2", [(0, 17), (1, 18), (2, 19), (3, 18)], below=18)] == [
        True,
        False,
        False,
        False,
    ]


def test_with_hysteresis_it_is_as_it_was() -> None:
    items = [(k, value) for k, value in enumerate([26.0, 26.1, 25.5, 26.0, 25.4, 26.0])]
    old = run("threshold@^1", items, above=26, hysteresis=0.5)
    assert run("threshold@^2", items, above=26, hysteresis=0.5) == old
    assert [value for _, value in old] == [False, True, True, True, False, False]


def test_unknown_ends_the_hysteresis_and_is_said_once() -> None:
    items = [(0, 27), (1, None), (2, "unavailable"), (3, 25.8), (4, 27)]
    assert run("threshold@^2", items, above=26, hysteresis=0.5) == [(0, True), (1, None), (3, False), (4, True)]
    assert run("threshold@^2", items, above=26, hysteresis=0.5, missing="keeps") == [(0, True), (3, True), (4, True)]
    assert run("threshold@^2", [(0, 27), (1, 27), (9, 27)], above=26, changes_only=True, max_age="5ms") == [
        (0, True),
        (6, None),
        (9, True),
        (14, None),
    ]
    with pytest.raises(TypeError, match=r"threshold needs numbers, but got str 'warm'"):
        run("threshold@^2", [(0, "warm")], above=26)


@given(readings(st.sampled_from([1, 2, 3, 4, None, NAN])), AGES, st.booleans())
def test_threshold_against_each_instant(items: Items, max_age: int | None, keeps: bool) -> None:
    parameters = {} if max_age is None else {"max_age": ms(max_age)}
    got = dict(run("threshold@^2", items, above=2, missing="keeps" if keeps else "ends", **parameters))
    held = instant_by_instant(items, max_age=max_age, keeps=keeps)
    at = {time for time, value in items if not lost(value)}
    for now in range(LAST + 1):
        if now in at:
            assert got.pop(now) is (held[now][0] > 2)
        elif not held[now] and now and held[now - 1]:
            assert got.pop(now) is None
    assert not got


# --- debounce ---


def test_a_contact_that_only_sends_changes() -> None:
    minute = 60_000
    door = [(0, "closed"), (120 * minute, "open"), (150 * minute, "closed")]
    assert run("debounce@^2", door, end=10**9, hold="1m") == [
        (minute, "closed"),
        (121 * minute, "open"),
        (151 * minute, "closed"),
    ]


def test_on_and_off_have_their_own_delay() -> None:
    items = [(0, False), (100, True), (130, False), (140, True), (200, False)]
    assert run("debounce@^2", items, on="5ms", off="20ms") == [(20, False), (105, True), (220, False)]
    assert run("debounce@^2", items, on="50ms") == [(0, False), (190, True), (200, False)]
    assert run("debounce@^2", items, hold="1ms", off="20ms") == [(20, False), (101, True), (220, False)]
    words = [(time, "open" if value else "closed") for time, value in items]
    expected = [(20, "closed"), (105, "open"), (220, "closed")]
    assert run("debounce@^2", words, on="5ms", off="20ms", state="open") == expected
    with pytest.raises(TypeError, match="debounce needs booleans or numbers for on and off, but got str 'open'"):
        run("debounce@^2", [(0, "open")], on="5ms")
    with pytest.raises(ConfigurationError, match="give hold, or on and off"):
        build("debounce@^2")


def test_what_ends_at_that_very_instant_has_not_lasted() -> None:
    assert run("debounce@^2", [(0, 1), (10, 2), (19, 3)], hold="10ms") == [(29, 3)]
    assert run("debounce@^2", [(0, 1), (11, 2)], hold="10ms") == [(10, 1), (21, 2)]


def test_unknown_ends_a_run_and_what_was_given_out() -> None:
    items = [(0, True), (100, None), (110, "unknown"), (150, True), (155, None), (160, True)]
    assert run("debounce@^2", items, hold="20ms") == [(20, True), (100, None), (180, True)]
    assert run("debounce@^2", items, hold="20ms", missing="keeps") == [(20, True)]
    assert run("debounce@^2", items, hold="20ms", missing="keeps", max_age="30ms") == [
        (20, True),
        (30, None),
        (170, True),
        (190, None),
    ]


@given(readings(STATES), st.integers(0, 30), AGES, st.booleans())
def test_debounce_against_a_replay_of_timers(items: Items, hold: int, max_age: int | None, keeps: bool) -> None:
    parameters = {} if max_age is None else {"max_age": ms(max_age)}
    got = run("debounce@^2", items, hold=ms(hold), missing="keeps" if keeps else "ends", **parameters)
    told: list[Any] = []
    value: list[Any] = []
    timer: int | None = None
    expected: Items = []
    for now, held in enumerate(instant_by_instant(items, max_age=max_age, keeps=keeps)):
        if not held:
            timer = None
            if told and told != [None]:
                told = [None]
                expected.append((now, None))
        elif not value or (value[0] is True) != (held[0] is True) or value[0] != held[0]:
            timer = now + hold
            value = held
        value = held and value
        if timer == now and (not told or (told[0] is True) != (value[0] is True) or told[0] != value[0]):
            told = value
            expected.append((now, value[0]))
    assert [(time, repr(value)) for time, value in got] == [(time, repr(value)) for time, value in expected]


# --- aggregate ---

KEYS = ("a", "b", "c")


def together(function: str, streams: list[Items], **parameters: Any) -> Items:
    tool = build("aggregate@^2", function=function, **parameters)
    sources = Sources([Batch.of(items) for items in streams], KEYS[: len(streams)])
    return list(tool.evaluate(TimeInterval(MIN_TIME, LAST), sources))


def test_three_phases_are_summed_when_all_are_known() -> None:
    phases = [[(0, 100.0), (100, 110.0)], [(1, 200.0), (101, 220.0)], [(2, 300.0), (102, 330.0)]]
    got = together("sum", phases, hold="60ms", require=3)
    assert got == [(2, 600.0), (102, 660.0)]
    assert together("sum", phases, hold="200ms", require=3)[1:] == [(100, 610.0), (101, 630.0), (102, 660.0)]
    assert together("sum", phases, hold="60ms") == [(0, 100.0), (1, 300.0), (2, 600.0), (102, 660.0)]
    assert together("count", phases, hold="60ms")[3:] == [(100, 1), (101, 2), (102, 3)]


def test_somebody_is_at_home_until_the_last_one_leaves() -> None:
    phones = [[(0, True), (90, False)], [(20, True), (60, False)]]
    assert together("any", phones, hold="forever") == [(0, True), (20, True), (60, True), (90, False)]
    assert together("all", phones, hold="forever", require="all") == [(0, True), (20, True), (60, False), (90, False)]


def test_what_is_unknown_does_not_count() -> None:
    rooms = [[(0, 20.0), (10, None)], [(0, 24.0), (20, 25.0)]]
    assert together("mean", rooms, hold="100ms") == [(0, 22.0), (10, 24.0), (20, 25.0)]
    assert together("mean", rooms, hold="100ms", missing="keeps") == [(0, 22.0), (10, 22.0), (20, 22.5)]
    assert together("sum", rooms, hold="100ms") == [(0, 44.0)]
    assert together("sum", rooms, hold="100ms", require=0.5) == [(0, 44.0), (10, 24.0), (20, 25.0)]
    assert together("sum", rooms) == [(0, 44.0), (20, 25.0)]


def test_whole_numbers_stay_whole_and_sums_are_exact() -> None:
    assert together("sum", [[(0, 2**53)], [(0, 1)], [(0, 0)]]) == [(0, 2**53 + 1)]
    assert together("sum", [[(0, 2**62)], [(0, 2**62)]]) == [(0, 2.0**63)]
    assert together("sum", [[(0, 0.1)], [(0, 0.2)], [(0, -0.3)]]) == [(0, math.fsum([0.1, 0.2, -0.3]))]
    assert together("max", [[(0, 2**53 + 1)], [(0, 3)]]) == [(0, 2**53 + 1)]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"hold": "0s"}, "hold must be longer than 0"),
        ({"require": 0}, "require must be at least 1, but is 0"),
        ({"hold": "1s", "require": 1.5}, "require is a share above 0 and not above 1, or a whole number, not 1.5"),
        ({"require": "all"}, "require with all or a share needs hold"),
        ({"hold": "forever", "missing": "keeps"}, "missing: keeps needs hold with a duration"),
    ],
)
def test_aggregate_refuses(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build("aggregate@^2", function="mean", **parameters)


def test_aggregate_reads_no_more_than_it_needs() -> None:
    def support(**parameters: Any) -> Support:
        return build("aggregate@^2", **parameters).support(0)

    assert support(function="sum") == Pointwise()
    assert support(function="mean", hold="1m") == Window(60_000)
    assert support(function="sum", hold="1m") == Window(60_000, before=1)
    assert support(function="sum", hold="1m", require=3) == Window(60_000)
    assert support(function="any", hold="forever") == Previous(1)
    tool = build("aggregate@^2", function="any", hold="forever", require="all")
    assert type(tool).build(tool.parameters()) == tool


@given(
    st.lists(readings(st.sampled_from([1, 2.5, True, None, NAN])), min_size=1, max_size=3),
    st.none() | st.integers(1, 30) | st.just("forever"),
    st.sampled_from([None, 1, 2, 3, 0.5, 0.7, "all"]),
    st.booleans(),
)
def test_hold_and_require_against_each_instant(streams: list[Items], hold: Any, require: Any, keeps: bool) -> None:
    if hold is None and not (require is None or isinstance(require, int)):
        return
    keeps = keeps and isinstance(hold, int)
    parameters = {
        **({} if hold is None else {"hold": ms(hold) if isinstance(hold, int) else hold}),
        **({} if require is None else {"require": require}),
        **({"missing": "keeps"} if keeps else {}),
    }
    got = together("mean", streams, **parameters)
    max_age = 1 if hold is None else hold if isinstance(hold, int) else None
    each = [instant_by_instant(items, max_age=max_age, keeps=keeps) for items in streams]
    expected = []
    for now in sorted({time for items in streams for time, _ in items}):
        values = [value for held in each for value in held[now]]
        begun = sum(any(time <= now for time, _ in items) for items in streams)
        share = Fraction(1) if require == "all" else Fraction(str(require)) if isinstance(require, float) else None
        wanted = share * begun if share is not None else require or 1
        if values and len(values) >= wanted:
            expected.append((now, math.fsum(values) / len(values)))
    assert got == expected


# --- joins ---


def joined(pin: str, streams: list[Items], **parameters: Any) -> Items:
    tool = build(pin, **parameters)
    return list(tool.evaluate(TimeInterval(MIN_TIME, LAST), [Batch.of(items) for items in streams]))


def test_the_hour_is_paid_at_the_price_that_was_set_as_it_began() -> None:
    used, price = [(10, 1.0), (20, 2.0)], [(0, 0.3), (10, 0.4), (20, 0.5)]
    names = {"names": ["kwh", "eur"]}
    assert joined("as_of_join@^2", [used, price], strict=True, **names) == [
        (10, {"kwh": 1.0, "eur": 0.3}),
        (20, {"kwh": 2.0, "eur": 0.4}),
    ]
    # It held for exactly max_age, until then.
    assert len(joined("as_of_join@^2", [used, price], strict=True, max_age="10ms", **names)) == 2
    assert len(joined("as_of_join@^2", [used, price], strict=True, max_age="9ms", **names)) == 0
    assert joined("as_of_join@^2", [used, price], **names) == joined("as_of_join@^1", [used, price], **names)


def test_both_sensors_change_the_result() -> None:
    celsius, humidity = [(0, 20.0), (300, 22.0)], [(60, 50.0), (320, 80.0), (330, None)]
    expected = [(60, [20.0, 50.0]), (300, [22.0, 50.0]), (320, [22.0, 80.0])]
    assert joined("combine_latest", [celsius, humidity], max_age="301ms") == expected
    assert joined("combine_latest", [celsius, humidity], max_age="300ms") == expected
    assert joined("combine_latest", [celsius, humidity], max_age="240ms") == [expected[0], expected[2]]
    either = joined("as_of_join@^2", [celsius, humidity], driven_by="either", names=["c", "rh"], outer=True)
    assert either == joined("combine_latest", [celsius, humidity], names=["c", "rh"], outer=True)
    assert either[0] == (0, {"c": 20.0, "rh": None})
    assert either[-1] == (330, {"c": 22.0, "rh": None})


@given(st.lists(readings(STATES), min_size=2, max_size=3), AGES, st.booleans(), st.booleans())
def test_combine_latest_against_each_instant(
    streams: list[Items], max_age: int | None, outer: bool, keeps: bool
) -> None:
    keeps = keeps and max_age is not None
    parameters = {} if max_age is None else {"max_age": ms(max_age)}
    got = joined("combine_latest", streams, outer=outer, missing="keeps" if keeps else "ends", **parameters)
    each = [instant_by_instant(items, max_age=max_age, keeps=keeps) for items in streams]
    expected = []
    for now in sorted({time for items in streams for time, _ in items}):
        held = [some[now] for some in each]
        if all(held) or (outer and any(held)):
            expected.append((now, [some[0] if some else None for some in held]))
    assert repr(got) == repr(expected)


@given(readings(STATES), readings(STATES), AGES, st.booleans())
def test_a_strict_join_against_each_instant(left: Items, right: Items, max_age: int | None, strict: bool) -> None:
    parameters = {} if max_age is None else {"max_age": ms(max_age)}
    got = joined("as_of_join@^2", [left, right], strict=strict, **parameters)
    held = [[], *instant_by_instant(right, max_age=max_age)]
    expected = []
    for now, value in left:
        other = held[now if strict else now + 1]
        if other and not lost(value):
            expected.append((now, {"left": value, "right": other[0]}))
    assert repr(got) == repr(expected)


@pytest.mark.parametrize(
    ("pin", "parameters", "message"),
    [
        ("as_of_join@^2", {"strict": True, "driven_by": "either"}, "strict needs driven_by: left"),
        ("as_of_join@^2", {"missing": "keeps"}, "missing: keeps needs max_age"),
        ("combine_latest", {"missing": "keeps"}, "missing: keeps needs max_age"),
        ("combine_latest", {"max_age": "0s"}, "max_age must be longer than 0"),
        ("combine_latest", {"names": ["a", "a"]}, "names must differ"),
        ("debounce@^2", {"hold": "-1s"}, "hold must not be negative, but is -1s"),
        ("threshold@^2", {}, "give one of above and below"),
        ("threshold@^2", {"above": 1, "hysteresis": -1}, "hysteresis must not be negative, but is -1.0"),
    ],
)
def test_wrong_parameters_say_what_to_write(pin: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build(pin, **parameters)
