"""Tools on what lasts: by hand, and against plain Python that replays each instant."""

from __future__ import annotations

import itertools
import math
import random
from datetime import UTC, date, datetime
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hs_stream.core.batch import Batch
from hs_stream.core.errors import ConfigurationError
from hs_stream.core.time import MAX_TIME, MIN_TIME, Grid, TimeInterval, from_ms, to_ms
from hs_stream.core.tool import FoldTool, Pointwise, Previous, Sources, Support, Tool, Window
from hs_stream.plugins import default_registry

REGISTRY = default_registry()
NAN = float("nan")
LAST = 400
PATIENT = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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


@PATIENT
@given(readings(st.sampled_from([1, 2, 3, 4, None, NAN])), AGES, st.booleans())
def test_threshold_against_each_instant(items: Items, max_age: int | None, keeps: bool) -> None:
    parameters: dict[str, Any] = {} if max_age is None else {"max_age": ms(max_age)}
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


@PATIENT
@given(readings(STATES), st.integers(0, 30), AGES, st.booleans())
def test_debounce_against_a_replay_of_timers(items: Items, hold: int, max_age: int | None, keeps: bool) -> None:
    parameters: dict[str, Any] = {} if max_age is None else {"max_age": ms(max_age)}
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
    rooms: list[Items] = [[(0, 20.0), (10, None)], [(0, 24.0), (20, 25.0)]]
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


@PATIENT
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


@PATIENT
@given(st.lists(readings(STATES), min_size=2, max_size=3), AGES, st.booleans(), st.booleans())
def test_combine_latest_against_each_instant(
    streams: list[Items], max_age: int | None, outer: bool, keeps: bool
) -> None:
    keeps = keeps and max_age is not None
    parameters: dict[str, Any] = {} if max_age is None else {"max_age": ms(max_age)}
    got = joined("combine_latest", streams, outer=outer, missing="keeps" if keeps else "ends", **parameters)
    each = [instant_by_instant(items, max_age=max_age, keeps=keeps) for items in streams]
    expected = []
    for now in sorted({time for items in streams for time, _ in items}):
        held = [some[now] for some in each]
        if all(held) or (outer and any(held)):
            expected.append((now, [some[0] if some else None for some in held]))
    assert repr(got) == repr(expected)


@PATIENT
@given(readings(STATES), readings(STATES), AGES, st.booleans())
def test_a_strict_join_against_each_instant(left: Items, right: Items, max_age: int | None, strict: bool) -> None:
    parameters: dict[str, Any] = {} if max_age is None else {"max_age": ms(max_age)}
    got = joined("as_of_join@^2", [left, right], strict=strict, **parameters)
    held = [[], *instant_by_instant(right, max_age=max_age)]
    expected = []
    for now, value in left:
        other = held[now if strict else now + 1]
        if other and not lost(value):
            expected.append((now, {"left": value, "right": other[0]}))
    assert repr(got) == repr(expected)


# --- per period ---

HOUR = 3_600_000


def at(text: str) -> int:
    return to_ms(datetime.fromisoformat(text))


def test_a_pump_that_runs_over_midnight() -> None:
    berlin = {"period": "day", "tz": "Europe/Berlin", "unit": "1h"}
    pump = [
        (at("2026-03-03T08:00+01:00"), "off"),
        (at("2026-03-03T22:00+01:00"), "on"),
        (at("2026-03-04T02:00+01:00"), "off"),
        (at("2026-03-04T09:00+01:00"), "off"),
    ]
    midnights = [at(f"2026-03-0{day}T00:00+01:00") for day in range(4, 9)]
    later = at("2026-06-01T00:00+02:00")
    got = run("time_in_state", pump, later, state="on", **berlin)
    assert got == [(midnights[0], 2.0), (midnights[1], 2.0)]
    got = run("time_in_state", pump, later, state="on", fill=0, forget="3d", **berlin)
    assert got == [*zip(midnights[:4], [2.0, 2.0, 0.0, 0.0], strict=True)]
    # Until the second day is over, it has no output.
    assert run("time_in_state", pump, midnights[1] - 1, state="on", **berlin) == [(midnights[0], 2.0)]


def test_a_plug_that_draws_the_same_for_two_days() -> None:
    plug = [(at("2026-03-03T10:00+01:00"), 60), (at("2026-03-05T10:00+01:00"), 0)]
    energy = {"period": "day", "tz": "Europe/Berlin", "unit": "1h", "scale": 0.001}
    got = run("integral@^2", plug, at("2026-06-01T00:00+02:00"), **energy)
    assert [value for _, value in got] == pytest.approx([0.84, 1.44, 0.6])
    # A reading that is believed for a day only.
    got = run("integral@^2", plug, at("2026-06-01T00:00+02:00"), max_age="1d", **energy)
    assert [value for _, value in got] == pytest.approx([0.84, 0.6, 0.0])


def test_unknown_is_not_still_the_same() -> None:
    items = [(0, 2000), (HOUR // 10, None), (4 * HOUR, 0), (5 * HOUR, 0)]
    kwh = {"unit": "1h", "scale": 0.001}
    assert run("integral@^2", items, 10**9, **kwh) == [(0, 0.0), (4 * HOUR, 0.2), (5 * HOUR, 0.2)]
    assert run("integral@^2", items, 10**9, missing="keeps", **kwh)[1] == (4 * HOUR, 8.0)
    assert run("integral@^2", items, 10**9, missing="keeps", max_age="2h", **kwh)[1] == (4 * HOUR, 4.0)
    assert run("integral@^2", items, 10**9, rule="trapezoid", **kwh)[1] == (4 * HOUR, 0.0)
    assert run("integral@^2", [(0, math.inf), (HOUR, 1.0), (2 * HOUR, 0.0)], 10**9, unit="1h") == [
        (HOUR, 0.0),
        (2 * HOUR, 1.0),
    ]


def test_without_gaps_and_unknown_readings_it_is_the_old_integral() -> None:
    items = [(0, 1.0), (7, 3.5), (20, 2.0), (21, -1.0)]
    for rule in ("left", "trapezoid"):
        got = run("integral@^2", items, rule=rule, unit="1ms")
        assert got == [(time, pytest.approx(v)) for time, v in run("integral@^1", items, rule=rule, unit="1ms")]


@PATIENT
@given(
    readings(st.sampled_from([0, 1, 2.5, -3, None, NAN])),
    st.integers(1, 50),
    st.integers(1, 40),
    st.booleans(),
    st.none() | st.integers(1, 60),
)
def test_per_period_against_each_instant(
    items: Items, every: int, max_age: int, keeps: bool, forget: int | None
) -> None:
    parameters: dict[str, Any] = {} if forget is None else {"fill": 0, "forget": ms(forget)}
    kept: dict[str, Any] = {
        "every": ms(every),
        "max_age": ms(max_age),
        "missing": "keeps" if keeps else "ends",
        "unit": "1ms",
    }
    held = instant_by_instant(items, max_age=max_age, keeps=keeps)
    known = [time for time, value in items if not lost(value)]
    counted = [time for time, value in items if not (keeps and lost(value)) and known and time >= known[0]]
    amounts, lasted = [], []
    for end in range(0, 201, every):
        rates = [held[now][0] if now >= 0 and held[now] else 0 for now in range(end - every, end)]
        before = [time for time in counted if time <= end]
        filled = forget is not None and before and (end - every < before[-1] or end <= before[-1] + forget)
        read = any(end - every < time <= end for time in known)
        # Also where a reading in it is unknown, and something came before that.
        if read or any(rates) or filled:
            amounts.append((end, pytest.approx(math.fsum(rates))))
        if read or filled or 1 in rates:
            lasted.append((end, float(rates.count(1))))
    assert run("integral@^2", items, 200, **kept, **parameters) == amounts
    assert run("time_in_state", items, 200, state=1, **kept, **parameters) == lasted


ZONES = (
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/St_Johns",
    "America/Santiago",
    "Australia/Lord_Howe",
    "Australia/Adelaide",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Pacific/Apia",
)


@pytest.mark.parametrize("seed", range(150))
def test_many_readings_at_once_are_added_as_one_by_one(seed: int) -> None:
    """Bit for bit, whatever the first of them find."""
    rng = random.Random(seed)
    odd = [None, None, NAN, math.inf, 0.1, -0.0, 3, 1e17, 1e308][: rng.choice([3, 8, 9])]
    values = [rng.choice(odd) if rng.random() < 0.4 else rng.uniform(-1e6, 1e6) for _ in range(120)]
    if seed % 3 == 1:
        values = [NAN if value is None else float(value) for value in values]
    if seed % 3 == 2:
        values = [bool(value) for value in values]
    times = list(itertools.accumulate(rng.randint(1, 12) for _ in values))
    length, before = rng.choice([200, 300, 100_000]), rng.choice([0, 1, 20])
    parameters: dict[str, Any] = {"missing": rng.choice(["ends", "keeps"]), "period": ms(length)}
    parameters["max_age"] = ms(rng.choice([1, 5, 15, 50_000]))
    for pin in ("integral@^2", "time_in_state@^1"):
        tool = build(pin, **parameters)
        assert isinstance(tool, FoldTool)
        state = tool.initial()
        for time, value in zip(times[:before], values[:before], strict=True):
            state, _ = tool.step(state, time, value)
        rest = Batch.build(times[before:], values[before:])
        while rest:
            end = Grid(length).next(rest.first_time - 1)
            some, rest = rest.slice(MIN_TIME, end), rest.slice(end, MAX_TIME)
            expected = state
            for time, value in some:
                expected, _ = tool.step(expected, time, value)
            state = tool.steps(state, some)
            assert repr(state) == repr(expected)


@PATIENT
@given(
    st.sampled_from(ZONES),
    st.sampled_from(["2011-12-29", "2015-03-28", "2015-10-24", "2016-04-02", "2020-09-05"]),
    st.lists(st.integers(0, 6 * 86_400), min_size=1, max_size=8, unique=True),
)
def test_hours_on_per_local_day_over_every_change_of_clock(zone: str, day: str, seconds: list[int]) -> None:
    """Counted second by second would be slow: the day of each stretch is asked of the wall clock at its quarters."""
    tz, first = ZoneInfo(zone), date.fromisoformat(day)
    begin = int(datetime(first.year, first.month, first.day, tzinfo=UTC).timestamp())
    changes = sorted(begin + second // 900 * 900 for second in set(seconds))
    items = [(1000 * second, index % 2 == 0) for index, second in enumerate(dict.fromkeys(changes))]
    stop = begin + 8 * 86_400
    expected: dict[date, float] = {}
    for quarter in range(items[0][0] // 1000, stop, 900):
        on = [value for time, value in items if time <= quarter * 1000][-1]
        local = datetime.fromtimestamp(quarter, tz).date()
        expected[local] = expected.get(local, 0.0) + 0.25 * on
    got = run("time_in_state", items, stop * 1000, period="day", tz=zone, unit="1h", fill=0, forget="30d")
    days = [datetime.fromtimestamp(time / 1000 - 1, tz).date() for time, _ in got]
    # A reading at midnight is of the day that ends, in which nothing holds yet.
    assert dict(zip(days, [value for _, value in got], strict=True)) == {day: expected.get(day, 0.0) for day in days}
    assert set(expected) - set(days) <= {max(expected)}, "only the day that is not over"


# --- sessions of a condition ---


def told_session(start: int, end: int, count: int) -> dict[str, Any]:
    return {"start": from_ms(start), "end": from_ms(end), "seconds": (end - start) / 1000, "count": count}


def test_a_programme_with_a_pause_and_long_heating_is_one_session() -> None:
    watts = [(0, 0.4), (10, 8.0), (15, 2100.0), (100, 2.0), (119, 180.0), (250, 1.2), (260, 0.3)]
    expected = [(270, told_session(10, 250, 3))]
    assert run("session_window@^2", watts, above=5, gap="20ms") == expected
    assert run("session_window@^2", watts, condition="value > 5 and value < 1e9", gap="20ms") == expected
    assert run("session_window@^2", watts, end=269, above=5, gap="20ms") == []
    assert run("session_window@^2", watts, above=5, gap="19ms")[0] == (269, told_session(10, 250, 3))
    assert [time for time, _ in run("session_window@^2", watts, above=5, gap="18ms")] == [118, 268]


def test_sessions_of_objects_texts_and_what_is_unknown() -> None:
    items = [(0, {"m": 1}), (10, {"m": 0}), (50, {"x": 1}), (60, {"m": 1}), (70, None)]
    assert run("session_window@^2", items, condition="m == 1", gap="5ms") == [
        (15, told_session(0, 10, 1)),
        (75, told_session(60, 70, 1)),
    ]
    words = [(0, "on"), (30, "unavailable"), (32, "on"), (40, "on")]
    assert run("session_window@^2", words, state="on", gap="5ms") == []
    assert run("session_window@^2", words, state="on", gap="1ms") == [(31, told_session(0, 30, 1))]
    assert run("session_window@^2", words, state="on", gap="5ms", max_age="20ms") == [
        (25, told_session(0, 20, 1)),
        (65, told_session(32, 60, 2)),
    ]
    with pytest.raises(TypeError, match="a condition that is true or false, but got str 'on'"):
        run("session_window@^2", [(0, "on")], condition="value", gap="1s")


@PATIENT
@given(readings(st.sampled_from([0, 3, None])), st.integers(1, 25), AGES, st.booleans())
def test_sessions_against_each_instant(items: Items, gap: int, max_age: int | None, keeps: bool) -> None:
    parameters: dict[str, Any] = {} if max_age is None else {"max_age": ms(max_age)}
    held = instant_by_instant(items, max_age=max_age, keeps=keeps)
    met = [bool(one) and one[0] > 1 for one in held]
    expected, start = [], None
    for now in range(LAST + 1):
        if met[now]:
            start = now if start is None else start
        # Not met at all of the gap before it, and not at it.
        elif start is not None and now - gap >= start and not any(met[now - gap : now + 1]):
            count = sum(start <= time <= now and value == 3 for time, value in items)
            expected.append((now, told_session(start, now - gap, count)))
            start = None
    assert run(
        "session_window@^2", items, above=1, gap=ms(gap), missing="keeps" if keeps else "ends", **parameters
    ) == (expected)


# --- patterns ---

EVENTS = st.sampled_from(["a", "b", None])


def test_the_door_and_then_motion() -> None:
    door, motion = [(0, "open"), (100, "open"), (105, "open"), (200, "open")], [(20, 1), (30, 1), (110, 1), (261, 1)]
    got = joined("followed_by", [door, motion], within="60ms", names=["door", "motion"])
    assert got == [
        (20, {"door": "open", "motion": 1, "seconds": 0.02}),
        (110, {"door": "open", "motion": 1, "seconds": 0.005}),
    ]
    assert [time for time, _ in joined("followed_by", [door, motion], within="61ms")] == [20, 110, 261]


@PATIENT
@given(readings(EVENTS), readings(EVENTS), st.integers(1, 30), st.booleans())
def test_followed_by_against_all_pairs(left: Items, right: Items, within: int, chosen: bool) -> None:
    parameters = {"first": "a"} if chosen else {}
    got = joined("followed_by", [left, right], within=ms(within), **parameters)
    begins = [(time, value) for time, value in left if (value == "a" if chosen else value is not None)]
    ends = [(time, value) for time, value in right if value is not None]
    pairs = [
        (end, {"first": value, "second": found, "seconds": (end - time) / 1000})
        for end, found in ends
        for time, value in begins
        if 0 < end - time <= within
        and not any(time < other < end for other, _ in begins)
        and not any(time < other < end for other, _ in ends)
    ]
    assert got == pairs


@PATIENT
@given(readings(EVENTS), readings(EVENTS), st.integers(1, 30))
def test_absence_against_all_pairs(left: Items, right: Items, within: int) -> None:
    merged = joined("merge_events", [left, right], names=["door", "light"])
    assert [time for time, _ in merged] == sorted({time for time, _ in left + right})
    got = run("absence", merged, after="door", of="light", within=ms(within), of_value="b")
    expected = [
        (time + within, {"door": value, "since": from_ms(time)})
        for time, value in left
        if value is not None and not any(time < other <= time + within and word == "b" for other, word in right)
    ]
    assert got == expected


@pytest.mark.parametrize(
    ("pin", "parameters", "message"),
    [
        ("as_of_join@^2", {"strict": True, "driven_by": "either"}, "strict needs driven_by: left"),
        ("as_of_join@^2", {"missing": "keeps"}, "missing: keeps needs max_age"),
        ("combine_latest", {"missing": "keeps"}, "missing: keeps needs max_age"),
        ("combine_latest", {"max_age": "0s"}, "max_age must be longer than 0"),
        ("combine_latest", {"names": ["a", "a"]}, "names must differ"),
        ("debounce@^2", {"hold": "-1s"}, "hold must not be negative, but is -1s"),
        ("integral@^2", {"every": "1h"}, "periods of less than a day need max_age"),
        ("integral@^2", {"period": "day", "rule": "trapezoid"}, "rule: trapezoid has no periods"),
        ("integral@^2", {"period": "day", "every": "1d"}, "give one of period and every"),
        ("integral@^2", {"tz": "Europe/Berlin"}, "give period or every with them"),
        ("time_in_state", {"period": "day", "tz": "Mars"}, "'Mars' is not a known time zone"),
        ("time_in_state", {"unit": "0s"}, "unit must be longer than 0"),
        ("session_window@^2", {"gap": "1s"}, "give one of condition, above, below and state"),
        ("session_window@^2", {"gap": "0s", "above": 1}, "gap must be longer than 0"),
        ("followed_by", {"within": "0s"}, "within must be longer than 0"),
        ("followed_by", {"within": "1s", "names": ["a", "seconds"]}, "names must not be 'seconds'"),
        ("absence", {"within": "1s", "after": "since", "of": "b"}, "after must not be 'since'"),
        ("threshold@^2", {}, "give one of above and below"),
        ("threshold@^2", {"above": 1, "hysteresis": -1}, "hysteresis must not be negative, but is -1.0"),
    ],
)
def test_wrong_parameters_say_what_to_write(pin: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build(pin, **parameters)
