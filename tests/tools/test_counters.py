"""The model of a counter: by hand, and against the truth of meters that are made up with all that befalls them."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hs_stream.core.batch import Batch
from hs_stream.core.errors import ConfigurationError
from hs_stream.core.time import TimeInterval, format_time
from hs_stream.core.value import canonical, same
from hs_stream.plugins import default_registry
from hs_stream_tools._exact import added, negative, rounded, together
from hs_stream_tools.metering import UtilityMeter2
from hs_stream_tools.signals import Derivative2

HOUR = 3_600_000
MINUTE = 60_000
DAY = 24 * HOUR


def meter(**parameters: Any) -> UtilityMeter2:
    built = default_registry().resolve("utility_meter@^2").build(parameters)
    assert isinstance(built, UtilityMeter2)
    return built


def total(readings: list[Any], step: int = MINUTE, **parameters: Any) -> list[Any]:
    """The total so far at each reading, one every ``step``."""
    items = [(step * k, value) for k, value in enumerate(readings)]
    found = meter(period="none", **parameters).evaluate(TimeInterval(-1, DAY * 1000), [Batch.of(items)])
    return [value for _, value in found]


def periods(items: list[tuple[int, Any]], known: int = DAY, **parameters: Any) -> list[tuple[int, Any]]:
    """What is told of periods when everything up to ``known`` is."""
    source = Batch.of([item for item in items if item[0] <= known])
    return list(meter(**parameters).evaluate(TimeInterval(-1, known), [source]))


def rates(items: list[tuple[int, Any]], **parameters: Any) -> list[tuple[int, Any]]:
    built = default_registry().resolve("derivative@^2").build({"unit": "1h"} | parameters)
    assert isinstance(built, Derivative2)
    return list(built.evaluate(TimeInterval(-1, DAY * 1000), [Batch.of(items)]))


# --- dips, resets, glitches ---


def test_what_rises_counts() -> None:
    assert total([5.0, 6.5, 6.5, 8.0]) == [0.0, 1.5, 1.5, 3.0]


def test_a_reset_counts_what_the_counter_shows() -> None:
    assert total([10.0, 10.5, 0.0, 0.25, 0.75]) == [0.0, 0.5, 0.5, 0.75, 1.25]
    assert total([100.0, 9.75, 10.0]) == [0.0, 9.75, 10.0]


def test_a_dip_counts_nothing_and_climbing_back_neither() -> None:
    assert total([500.0, 500.25, 500.0, 500.25, 499.0, 500.5]) == [0.0, 0.25, 0.25, 0.25, 0.25, 0.5]


@pytest.mark.parametrize(("reset", "expected"), [(0.1, 0.0), (0.5, 0.0), (0.51, 5.0), (1.0, 5.0), (0.0, 0.0)])
def test_reset_is_a_share_of_the_highest_reading(reset: float, expected: float) -> None:
    """A fall to exactly that share is a dip."""
    assert total([10.0, 5.0], reset=reset)[-1] == expected


def test_a_wrong_reading_of_0_is_taken_back_when_the_counter_goes_on() -> None:
    assert total([5000.0, 5000.5, 0, 5000.75, 5001.0]) == [0.0, 0.5, 0.5, 0.75, 1.0]
    assert total([5000.0, 5000.5, 0, 0, 0, 5000.75]) == [0.0, 0.5, 0.5, 0.5, 0.5, 0.75]
    assert total([5000.0, 5000.5, 300.0, 300.0, 5000.75]) == [0.0, 0.5, 300.5, 300.5, 0.75]
    assert total([5000.0, 300.0, 0.0, 5001.0]) == [0.0, 300.0, 0.0, 1.0]


def test_coming_back_a_little_below_is_coming_back() -> None:
    assert total([5000.0, 0, 4999.5, 5000.5])[-1] == 0.5
    assert total([5000.0, 0, 4500.0, 5000.5])[-1] == 0.5


def test_a_reset_stands_when_the_counter_climbs() -> None:
    """A counter of each day that passes the day before."""
    assert total([8.0, 0.0, 0.5, 1.0, 4.0, 8.0, 9.0]) == [0.0, 0.0, 0.5, 1.0, 4.0, 8.0, 9.0]


def test_for_how_long_a_reset_may_turn_out_to_be_none() -> None:
    assert total([5000.0, 0, 5001.0], glitch="1m")[-1] == 1.0
    assert total([5000.0, 0, 5001.0], glitch="59s")[-1] == 5001.0
    assert total([12.0, 0, 12.5, 0, 11.0], glitch="0s")[-1] == 23.5


def test_a_second_wrong_reading_after_a_real_reset() -> None:
    assert total([5000.0, 0.0, 2.0, 0.0, 2.5, 3.0])[-1] == 3.0


def test_below_zero_is_no_consumption() -> None:
    assert total([1.0, -5.0, -4.0], glitch="0s") == [0.0, 0.0, 1.0]
    assert total([1.0, -5.0, 1.5]) == [0.0, 0.0, 0.5]


def test_a_period_that_ended_between_a_wrong_reading_and_its_correction() -> None:
    """The next reading tells it of one wrong reading. Of several it told what was known, and the sum is right."""
    items = [(1_000, 5000.0), (59_000, 300.0), (62_000, 5001.0), (130_000, 5001.5)]
    assert periods(items, every="1m") == [(60_000, 0.0), (120_000, 1.0), (180_000, 0.5)]
    assert periods(items, 61_000, every="1m") == [(60_000, 300.0)]
    assert periods(items, every="1m", fill=0)[:3] == [(60_000, 300.0), (120_000, -299.0), (180_000, 0.5)]
    several = sorted([*items, (61_000, 300.0)])
    assert periods(several, every="1m") == [(60_000, 300.0), (120_000, -299.0), (180_000, 0.5)]
    zero = [(time, 0 if value == 300.0 else value) for time, value in several]
    assert periods(zero, every="1m") == [(60_000, 0.0), (120_000, 1.0), (180_000, 0.5)]


def test_what_was_told_for_good_is_taken_off_later() -> None:
    """The period ended with the wrong reading itself, or with one that says nothing after it."""
    items = [(1_000, 5000.0), (60_000, 300.0), (62_000, 5001.0)]
    assert periods(items, every="1m") == [(60_000, 300.0), (120_000, -299.0)]
    silent = [(1_000, 5000.0), (59_000, 300.0), (61_000, None), (62_000, 5001.0)]
    assert periods(silent, every="1m") == [(60_000, 300.0), (120_000, -299.0)]


def test_a_reset_that_stands_is_told_where_it_was() -> None:
    items = [(1_000, 5000.0), (59_000, 2.0), (61_000, 3.0), (62_000, 600.0), (130_000, 601.0)]
    found = list(meter(every="1m").evaluate(TimeInterval(-1, DAY), [Batch.of(items)]))
    assert found == [(60_000, 2.0), (120_000, 598.0), (180_000, 1.0)]


# --- rates ---


def test_a_rate_is_per_time_and_not_per_step() -> None:
    assert total([100.0, 108.0, 116.0, 164.0], step=DAY, max_rate=2)[-1] == 64.0
    assert total([100.0, 148.0], step=DAY, max_rate=2)[-1] == 48.0
    assert total([100.0, 148.5], step=DAY, max_rate=2)[-1] == 0.0


@pytest.mark.parametrize("rate", ["60/h", "1/min", "1 / m", "1440/d", "15/15m", 60, 60.0])
def test_how_a_rate_is_written(rate: Any) -> None:
    assert total([0.0, 1.0, 2.25], max_rate=rate) == [0.0, 1.0, 1.0]


def test_a_step_of_a_coarse_counter_is_as_fast_as_the_time_since_the_step_before() -> None:
    """One unit every five minutes, read each minute: 12 an hour."""
    assert total([k // 5 for k in range(31)], max_rate="12/h")[-1] == 6


def test_another_meter_counts_from_where_it_stands() -> None:
    assert total([100.0, 101.0, 8000.0, 8000.5, 8001.5], max_rate="2/min")[-1] == 2.5
    assert total([8123.0, 8123.5, 3.25, 4.0], max_rate="1/min")[-1] == 1.25


def test_a_wrong_reading_upwards_is_taken_back() -> None:
    assert total([5000.0, 99999.0, 5001.0], max_rate="1/min") == [0.0, 0.0, 1.0]
    assert total([5000.0, 99999.0, 99999.0, 99999.5, 5001.0], max_rate="1/min")[-1] == 1.0
    assert total([5000.0, 0.0, 99999.0, 5001.0], max_rate="1/min")[-1] == 1.0
    assert total([50000.0, 50010.0, 50001.0], max_rate="1/min")[-1] == 1.0


def test_wrong_readings_in_between_are_none() -> None:
    assert total([5000.0, 0.0, 3000.0, 5001.0], max_rate="1/min")[-1] == 1.0


# --- net, wrap, delta, segments ---


def test_net_counts_every_difference() -> None:
    assert total([500.0, 502.0, 499.0, 500.5, 0.0], net=True) == [0.0, 2.0, -1.0, 0.5, -500.0]
    assert total([5.0, 4.5, 900.0, 4.0], net=True, max_rate="1/min") == [0.0, -0.5, -0.5, -1.0]


def test_wrap_goes_on_over_the_end() -> None:
    assert total([838831.0, 838857.6, 12.0, 30.0], wrap=838860.8)[-1] == pytest.approx(59.8, rel=1e-12)
    assert total([65530, 65535, 3, 10], wrap=65536) == [0, 5, 9, 16]


def test_far_from_its_end_a_register_is_reset() -> None:
    assert total([500_000.0, 12.0, 13.0], wrap=838860.8)[-1] == 13.0
    assert total([500_000, 12], wrap=838861, reset=0)[-1] == 338_873
    assert total([838_850.0, 830_000.0, 838_851.0], wrap=838860.8)[-1] == 1.0


def test_a_wrong_reading_near_the_end_of_a_register() -> None:
    assert total([65530, 0, 65531], wrap=65536)[-1] == 1


def test_delta_adds_what_is_read() -> None:
    assert total([1.0, 0.25, -0.5, None, 2.0], delta=True) == [1.0, 1.25, 0.75, 2.75]
    assert total([1, 1, 50, 1], delta=True, max_rate="1/min")[-1] == 3


def test_a_device_that_was_replaced() -> None:
    begin = "1970-01-01T00:02:00Z"
    assert total([100.0, 101.0, 90.0, 91.0], segments=[begin]) == [0.0, 1.0, 1.0, 2.0]
    assert total([100.0, 101.0, None, 5000.0, 5001.0], segments=[begin]) == [0.0, 1.0, 1.0, 2.0]
    assert total([100.0, 101.0, 101.5, 102.0], segments=["1970-01-01T00:02:00.001Z"])[-1] == 1.5


# --- numbers ---


def test_integers_stay_integers() -> None:
    big = 2**53
    assert total([big, big + 1, big + 2]) == [0, 1, 2]
    assert all(type(value) is int for value in total([big, big + 1, 0, 7]))
    mixed = total([1, 2, 2.5, 3])
    assert mixed == [0, 1, 1.5, 2.0]
    assert [type(value) for value in mixed] == [int, int, float, float]
    assert [type(value) for value in total([1.0, 1.0])] == [float, float]


def test_sums_are_exact() -> None:
    assert total([1.0, 1e16, 1.0, -1e16], delta=True)[-1] == 2.0
    tenths = [k / 10 for k in range(1000)]
    assert total(tenths)[-1] == 99.9
    assert total([0.1] * 1000, delta=True)[-1] == math.fsum([0.1] * 1000)


def test_missing_readings_are_as_if_they_were_not_there() -> None:
    nothing = [None, math.nan, math.inf, -math.inf]
    assert total([*nothing, 1.0, *nothing, 4.0]) == [0.0, 3.0]


def test_text_is_an_error() -> None:
    with pytest.raises(TypeError, match="utility_meter needs numbers, but got str 'unknown'"):
        total(["unknown"])


def test_a_sum_beyond_64_bits_is_a_float() -> None:
    assert rounded(added(0, [2**63 - 1])) == 2**63 - 1
    assert repr(rounded(added(0, [2**63 - 1, 1]))) == repr(float(2**63))
    assert same(canonical(negative(-(2**63))), negative(-(2**63)))


@given(st.lists(st.floats(-1e300, 1e300) | st.integers(-(2**53), 2**53), max_size=99))
def test_a_sum_is_rounded_once(numbers: list[float]) -> None:
    found = added(0, numbers)
    exact = sum(map(Fraction, numbers), Fraction(0))
    assert rounded(found) == (int(exact) if all(type(number) is int for number in numbers) else float(exact))
    assert rounded(negative(found)) == -rounded(found)
    assert rounded(together(found, negative(found))) == 0
    assert same(canonical(found), found)


# --- made up meters ---


@dataclass
class Made:
    """A meter of whole units: what it showed, and what it really counted, by the time of the reading."""

    value: int
    time: int = 0
    wrap: int | None = None
    readings: list[tuple[int, int]] = field(default_factory=list)
    used: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    replaced: list[str] = field(default_factory=list)

    def shows(self, value: int, pause: int) -> None:
        self.time += pause
        self.readings.append((self.time, value))

    def uses(self, amount: int, pause: int) -> None:
        self.value += amount
        if self.wrap is not None and self.value >= self.wrap:
            self.value -= self.wrap
        self.shows(self.value, pause)
        self.used[self.time] += amount


@st.composite
def made_meters(draw: st.DrawFn, only_zero: bool = False) -> Made:
    """Consumption, small dips, resets, wrong readings low down, another device; nothing that could be either."""
    wrap = draw(st.sampled_from([None, 100_000]))
    made = Made(draw(st.integers(2000, 99_000)), draw(st.integers(0, 2 * DAY)), wrap)
    made.uses(0, 1)
    begun = -1
    for event in draw(st.lists(st.sampled_from("uuuuuudrgs"), max_size=40)):
        pause, amount = draw(st.integers(1, 8 * HOUR)), draw(st.integers(0, 100))
        near_the_end = wrap is not None and made.value > 0.9 * wrap - 200
        if event == "d":
            made.shows(made.value - draw(st.integers(0, made.value // 20)), pause)
        elif event == "r" and made.value >= 2000 and not near_the_end:
            made.value = 0
            made.uses(amount, pause)
            begun = made.value
        elif event == "g" and made.value not in (0, begun):
            low = 0 if only_zero else draw(st.sampled_from([0, 0, made.value // 10 - 1]))
            for _ in range(draw(st.integers(1, 3))):
                made.shows(max(low, 0), pause // 4 + 1)
            made.uses(amount if not near_the_end else 0, 1)
        elif event == "s":
            made.time += pause
            made.replaced.append(format_time(made.time))
            made.value = draw(st.integers(0, 99_000))
            made.shows(made.value, draw(st.integers(0, HOUR)))
        else:
            made.uses(amount, pause)
    return made


@given(made_meters())
def test_totals_are_what_was_really_used(made: Made) -> None:
    built = meter(period="none", wrap=made.wrap, segments=made.replaced)
    found = dict(built.evaluate(TimeInterval(-1, 400 * DAY), [Batch.of(made.readings)]))
    assert found[max(made.used)] == sum(made.used.values())


@given(made_meters(), st.sampled_from([{"period": "6h"}, {"period": "day", "tz": "Asia/Kathmandu", "offset": "9h"}]))
def test_periods_add_up_to_what_was_really_used(made: Made, cells: dict[str, Any]) -> None:
    built = meter(**cells, wrap=made.wrap, segments=made.replaced)
    found = list(built.evaluate(TimeInterval(-1, 400 * DAY), [Batch.of(made.readings)]))
    if made.readings[-1][0] == max(made.used):
        assert sum(value for _, value in found) == sum(made.used.values())


@given(made_meters(only_zero=True), st.sampled_from([{"period": "6h"}, {"period": "day", "tz": "Asia/Kathmandu"}]))
def test_periods_are_what_was_really_used_in_each(made: Made, cells: dict[str, Any]) -> None:
    built = meter(**cells, wrap=made.wrap, segments=made.replaced)
    found = dict(built.evaluate(TimeInterval(-1, 400 * DAY), [Batch.of(made.readings)]))
    assert built.cells is not None
    first, last = made.readings[0][0], made.readings[-1][0]
    expected = dict.fromkeys(built.cells.times(first - 1, built.cells.end(last)).tolist(), 0)
    for time, amount in made.used.items():
        expected[built.cells.end(time)] += amount
    assert found == expected
    running = meter(**cells, wrap=made.wrap, segments=made.replaced, running=True)
    told = running.evaluate(TimeInterval(-1, 400 * DAY), [Batch.of(made.readings)])
    ends = {built.cells.end(time): value for time, value in told}
    assert ends == {end: expected[end] for end in ends}
    assert ends.keys() == {built.cells.end(time) for time, _ in made.readings}


@given(made_meters(only_zero=True), st.sampled_from([{"period": "6h"}, {"period": "day", "tz": "Asia/Kathmandu"}]))
def test_what_lies_between_two_readings_is_of_the_periods_between_them(made: Made, cells: dict[str, Any]) -> None:
    """Against a straight line between what was used up to each reading."""
    built = meter(**cells, wrap=made.wrap, segments=made.replaced, split="linear")
    found = list(built.evaluate(TimeInterval(-1, 400 * DAY), [Batch.of(made.readings)]))
    assert built.cells is not None
    times = [time for time, _ in made.readings]
    used = np.cumsum([made.used[time] for time in times])
    ends = built.cells.times(times[0] - 1, built.cells.end(times[-1]))
    line = np.interp([built.cells.begin(int(ends[0])), *ends.tolist()], times, used)
    assert [time for time, _ in found] == ends.tolist()
    assert [value for _, value in found] == pytest.approx(np.diff(line).tolist(), abs=1e-9)
    running = meter(**cells, wrap=made.wrap, segments=made.replaced, split="linear", running=True)
    for time, value in running.evaluate(TimeInterval(-1, 400 * DAY), [Batch.of(made.readings)]):
        begin = built.cells.begin(time)
        expected = np.interp(time, times, used) - np.interp(begin, times, used)
        assert value == pytest.approx(expected, abs=1e-9)


@given(made_meters())
def test_a_rate_is_never_negative(made: Made) -> None:
    found = rates(made.readings, counter=True, wrap=made.wrap, segments=made.replaced)
    assert all(rate >= 0 for _, rate in found)
    assert len(found) == len(made.readings) - 1 - len(made.replaced)


# --- rates by derivative ---


def test_the_rate_over_a_reset_is_what_was_counted_since() -> None:
    items = [(0, 100.0), (HOUR, 100.5), (2 * HOUR, 0.25), (3 * HOUR, 0.75)]
    assert rates(items, counter=True) == [(HOUR, 0.5), (2 * HOUR, 0.25), (3 * HOUR, 0.5)]
    assert rates(items)[1] == (2 * HOUR, -100.25)


def test_the_rate_over_a_wrong_reading_is_since_the_one_before_it() -> None:
    items = [(0, 5000.0), (HOUR, 5000.5), (2 * HOUR, 0.0), (4 * HOUR, 5002.0), (5 * HOUR, 5001.0), (6 * HOUR, 5002.5)]
    assert rates(items, counter=True) == [
        (HOUR, 0.5),
        (2 * HOUR, 0.0),
        (4 * HOUR, 0.5),
        (5 * HOUR, 0.0),
        (6 * HOUR, 0.5),
    ]


def test_no_rate_where_nothing_is_known() -> None:
    items = [(0, 1.0), (HOUR, 500.0), (2 * HOUR, 501.0), (3 * HOUR, None), (4 * HOUR, 503.0)]
    assert rates(items, counter=True, max_rate=10) == [(2 * HOUR, 1.0), (4 * HOUR, 1.0)]
    assert rates(items, counter=True, segments=["1970-01-01T00:30:00Z"]) == [(2 * HOUR, 1.0), (4 * HOUR, 1.0)]
    assert rates(items) == [(HOUR, 499.0), (2 * HOUR, 1.0)]
    assert rates([*items, (6 * HOUR, 504.0)], max_gap="1h") == [(HOUR, 499.0), (2 * HOUR, 1.0)]


def test_the_rate_of_increments_and_of_a_net_meter() -> None:
    assert rates([(0, 1.0), (HOUR // 2, 1.0)], counter=True, delta=True) == [(HOUR // 2, 2.0)]
    assert rates([(0, 1.0), (HOUR, 0.0)], counter=True, net=True) == [(HOUR, -1.0)]


def test_the_rate_is_0_where_no_reading_follows() -> None:
    items: list[tuple[int, Any]] = [(0, 1.0), (HOUR, 2.0), (2 * HOUR, 3.0), (5 * HOUR, 6.0), (6 * HOUR, 6.0)]
    told = [(HOUR, 1.0), (2 * HOUR, 1.0), (3 * HOUR, 0.0), (5 * HOUR, 1.0), (6 * HOUR, 0.0)]
    assert rates(items, timeout="1h") == told
    assert rates(items, timeout="1h", counter=True) == told
    # The first reading has no rate; a missing one ends what lasts, but not of a counter.
    assert rates(items[:1], timeout="1h") == [(HOUR, 0.0)]
    missing = [(0, 1.0), (HOUR, 2.0), (HOUR + 1, None)]
    assert rates(missing, timeout="1h") == [(HOUR, 1.0)]
    assert rates(missing, timeout="1h", counter=True) == [(HOUR, 1.0), (2 * HOUR, 0.0)]
    assert rates([(0, 1.0), (2 * HOUR, 2.0)], timeout="30m", max_gap="1h") == [
        (HOUR // 2, 0.0),
        (2 * HOUR + HOUR // 2, 0.0),
    ]


# --- sliding windows ---


def increases(items: list[tuple[int, Any]], **parameters: Any) -> list[tuple[int, Any]]:
    built = default_registry().resolve("increase").build(parameters)
    return list(built.evaluate(TimeInterval(-1, DAY * 1000), [Batch.of(items)]))


def test_increase_is_told_as_long_as_a_reading_lies_in_the_window() -> None:
    items = [(5_000, 7.0), (10_000, 9.0), (10_001, 0.5), (32_000, 1.0)]
    assert increases(items, width="20s", every="10s") == [
        (10_000, 2.0),
        (20_000, 2.5),
        (30_000, 0.5),
        (40_000, 0.5),
        (50_000, 0.5),
    ]
    assert increases([(5_000, 7), (20_000, 8)], width="10s", every="10s") == [(10_000, 0), (20_000, 1)]
    assert increases([(10_000, 7)], width="10s", every="10s") == [(10_000, 0)]


def test_a_wrong_reading_is_taken_out_of_the_windows_to_come() -> None:
    items = [(5_000, 5000.0), (15_000, 300.0), (25_000, 5001.0)]
    assert increases(items, width="30s", every="10s") == [
        (10_000, 0.0),
        (20_000, 300.0),
        (30_000, 1.0),
        (40_000, 1.0),
        (50_000, 1.0),
    ]


@settings(max_examples=50)
@given(made_meters(only_zero=True), st.sampled_from([(DAY, 2 * HOUR), (6 * HOUR, 6 * HOUR), (4 * HOUR, HOUR)]))
def test_increase_is_what_was_really_used_in_the_window(made: Made, cells: tuple[int, int]) -> None:
    width, every = cells
    found = increases(made.readings, width=width / 1000, every=every / 1000, wrap=made.wrap, segments=made.replaced)
    windows: dict[int, int] = {}
    for time, _ in made.readings:
        for at in range(-(-time // every) * every, time + width, every):
            windows[at] = windows.get(at, 0) + made.used[time]
    assert found == sorted(windows.items())


@pytest.mark.parametrize(("width", "every"), [("25s", "10s"), ("5s", "10s"), ("10001s", "1s"), ("10s", "0s")])
def test_wrong_windows(width: str, every: str) -> None:
    with pytest.raises(ConfigurationError, match=r"increase: (width must be a multiple of every|every must be longer)"):
        increases([], width=width, every=every)


# --- periods ---


def test_a_period_between_two_readings_is_told_when_the_later_one_comes() -> None:
    items = [(10_000, 5.0), (50_000, 6.5), (190_000, 6.5), (200_000, 8.5)]
    assert periods(items, 189_999, every="1m") == [(60_000, 1.5)]
    assert periods(items, every="1m") == [(60_000, 1.5), (120_000, 0.0), (180_000, 0.0), (240_000, 2.0)]
    assert periods(items, every="1m", forget="140s")[1] == (120_000, 0.0)
    assert periods(items, every="1m", forget="139s") == [(60_000, 1.5), (240_000, 2.0)]
    whole = [(time, int(2 * value)) for time, value in items]
    assert [type(value) for _, value in periods(whole, every="1m")] == [int] * 4


def test_an_outage_is_spread_over_its_periods() -> None:
    items = [(30_000, 100.0), (90_000, 112.0), (270_000, 148.0), (330_000, 160.0)]
    assert periods(items, 100_000, every="1m", split="linear") == [(60_000, 6.0)]
    assert periods(items, 120_000, every="1m", split="linear") == [(60_000, 6.0), (120_000, 6.0)]
    assert periods(items, every="1m", split="linear") == [
        (60_000, 6.0),
        (120_000, 12.0),
        (180_000, 12.0),
        (240_000, 12.0),
        (300_000, 12.0),
        (360_000, 6.0),
    ]
    assert periods(items, every="1m", split="linear", forget="179s")[1:3] == [(120_000, 6.0), (300_000, 42.0)]
    assert periods(items, every="1m", split="linear", fill=0, forget="2m")[1:4] == [
        (120_000, 6.0),
        (180_000, 0.0),
        (300_000, 42.0),
    ]


def test_a_reset_is_spread_too() -> None:
    items = [(30_000, 100.0), (90_000, 124.0), (150_000, 12.0)]
    assert periods(items, every="1m", split="linear") == [(60_000, 12.0), (120_000, 18.0), (180_000, 6.0)]


def test_what_is_spread_and_turns_out_to_be_void_is_taken_back() -> None:
    items = [(30_000, 5000.0), (90_000, 300.0), (100_000, 300.0), (110_000, 5006.0)]
    found = periods(items, every="1m", split="linear")
    assert found == [(60_000, 150.0), (120_000, -144.0)]
    assert sum(value for _, value in found) == 6.0


def test_nothing_is_spread_over_what_was_told_at_a_reading_without_a_value() -> None:
    items = [(10_000, 100.0), (90_000, None), (150_000, 190.0)]
    assert periods(items, 100_000, every="1m", split="linear") == [(60_000, 0.0)]
    assert periods(items, every="1m", split="linear") == [(60_000, 0.0), (120_000, 60.0), (180_000, 30.0)]
    assert periods(items, every="1m") == [(60_000, 0.0), (120_000, 0.0), (180_000, 90.0)]


def test_a_period_has_a_value_only_when_it_has_ended() -> None:
    source = [Batch.of([(10_000, 5.0), (60_000, 7.0), (60_001, 10.0)])]
    assert list(meter(every="1m").evaluate(TimeInterval(-1, 59_999), source)) == []
    assert list(meter(every="1m").evaluate(TimeInterval(-1, 119_999), source)) == [(60_000, 2.0)]
    assert list(meter(period="1m").evaluate(TimeInterval(-1, 120_000), source)) == [(60_000, 2.0), (120_000, 3.0)]


def test_fill_tells_periods_without_a_reading_until_forget() -> None:
    source = [Batch.of([(10_000, 5), (20_000, 7), (200_000, 8)])]
    found = list(meter(every="1m", fill=0, forget="2m").evaluate(TimeInterval(-1, DAY), source))
    assert found == [(60_000, 2), (120_000, 0), (240_000, 1), (300_000, 0)]


def test_a_running_total_says_0_as_its_period_begins() -> None:
    source = [Batch.of([(10_000, 5.0), (60_000, 7.0), (130_000, 8.0)])]
    built = meter(every="1m", fill=0, forget="2m", running=True)
    found = list(built.evaluate(TimeInterval(-1, DAY), source))
    assert found == [
        (10_000, 0.0),
        (60_000, 2.0),
        (60_001, 0.0),
        (120_000, 0.0),
        (130_000, 1.0),
        (180_000, 0.0),
        (240_000, 0.0),
    ]
    assert built.due(None, 5) is None
    state, _ = built.step(None, 60_000, 1.0)
    assert [built.due(state, after) for after in (0, 59_999, 60_000, 60_001, 120_000, 180_000)] == [
        60_000,
        60_000,
        60_001,
        120_000,
        180_000,
        None,
    ]


def test_when_a_period_is_due() -> None:
    built = meter(every="1m")
    state, _ = built.step(None, 10_000, 1.0)
    assert [built.due(state, after) for after in (10_000, 59_999, 60_000)] == [60_000, 60_000, None]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "give one of period and every"),
        ({"period": "day", "every": "1d"}, "give one of period and every"),
        ({"period": "fortnight"}, "'fortnight' is not one of 'hour', 'day', .* is not a duration"),
        ({"period": "day", "offset": "1d"}, "offset is how much later"),
        ({"period": "none", "offset": "1h"}, "period: none has no periods"),
        ({"period": "none", "split": "linear"}, "period: none has no periods"),
        ({"period": "none", "tz": "Europe/Brussels"}, "period: none has no periods"),
        ({"period": "day", "tz": "Europe/Brussel"}, "'Europe/Brussel' is not a known time zone"),
        ({"period": "day", "forget": "0s"}, "forget must be longer than 0"),
        ({"period": "day", "reset": 1.5}, "reset is a share of the last value, from 0 to 1, not 1.5"),
        ({"period": "day", "glitch": "-1s"}, "glitch must not be negative"),
        ({"period": "day", "max_rate": "5"}, "max_rate is '5': write a number per hour, or for example 5/h"),
        ({"period": "day", "max_rate": "5/0s"}, "max_rate is '5/0s'"),
        ({"period": "day", "max_rate": -1}, "max_rate is -1.0"),
        ({"period": "day", "wrap": 0}, "wrap is how far the counter counts"),
        ({"period": "day", "net": True, "wrap": 5}, "give no delta and no wrap with it"),
        ({"period": "day", "delta": True, "segments": ["2026-01-01T00:00:00Z"]}, "give no wrap and no segments"),
        ({"period": "day", "segments": ["2026-01-01T00:00:00"]}, "which has no offset"),
    ],
)
def test_wrong_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        meter(**parameters)


def test_a_counter_is_declared() -> None:
    with pytest.raises(ConfigurationError, match="write counter: true with them"):
        rates([], wrap=5)
