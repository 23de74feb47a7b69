"""Topic templates: what they subscribe to and what they bind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from hs_stream.core.errors import ConfigurationError, PayloadError
from hs_stream_connectors.mqtt.topics import TopicTemplate, overlapping


@pytest.mark.parametrize(
    ("template", "topic_filter", "topic", "meta"),
    [
        ("home/{house}/{room}/climate", "home/+/+/climate", "home/1/k/climate", (("house", "1"), ("room", "k"))),
        ("home/{room}/{house}", "home/+/+", "home/k/1", (("house", "1"), ("room", "k"))),
        ("home/{house}/{room}/climate", "home/+/+/climate", "home/1/k/power", None),
        ("home/{house}/{room}/climate", "home/+/+/climate", "home/1/k", None),
        ("home/{house}/{room}/climate", "home/+/+/climate", "home/1/k/climate/x", None),
        ("zigbee2mqtt/{device#}", "zigbee2mqtt/#", "zigbee2mqtt/attic/lamp", (("device", "attic/lamp"),)),
        ("zigbee2mqtt/{device#}", "zigbee2mqtt/#", "zigbee2mqtt", None),
        ("{a}/{rest#}", "+/#", "x/y/z", (("a", "x"), ("rest", "y/z"))),
        ("+/power/#", "+/power/#", "x/power", ()),
        ("+/power/#", "+/power/#", "x/power/1/2", ()),
        ("#", "#", "a/b", ()),
        ("#", "#", "$SYS/b", None),
        ("{x}/b", "+/b", "$SYS/b", None),
        ("plain", "plain", "plain", ()),
        ("/{a}", "/+", "/x", (("a", "x"),)),
    ],
)
def test_filter_and_binding(template: str, topic_filter: str, topic: str, meta: object) -> None:
    assert TopicTemplate(template).filter == topic_filter
    assert TopicTemplate(template).bind(topic) == meta


@pytest.mark.parametrize(
    "template",
    ["", "a\x85", "\uffff/{x}",
     "a/#/b", "a/{x#}/b", "{x}/{x}", "{x}/{x#}", "a/{}", "a/{1x}", "a/b{x}", "a/{x", "a/x}", "a/b+", "a#", "\0",
     "$share/g/a", "a/{x y}", "a/" + "b" * 70_000],
)  # fmt: skip
def test_malformed_templates_are_refused(template: str) -> None:
    with pytest.raises(ConfigurationError):
        TopicTemplate(template)


@pytest.mark.parametrize("value", ["", " ", "a=b", "a,b", "a[b]", "x" * 129, "a\nb", "a\x7f", "a\x85b", "\uffff"])
def test_a_hostile_plate_value_is_a_payload_error(value: str) -> None:
    with pytest.raises(PayloadError, match="plate room") as caught:
        TopicTemplate("home/{room}").bind(f"home/{value}")
    assert caught.value.reason == "plate_value"


def test_the_names_are_those_of_the_plates() -> None:
    assert TopicTemplate("home/{house}/+/{room#}").names == ("house", "room")


_level = st.sampled_from(["a", "b", "home", ""])


@given(
    st.lists(st.one_of(_level, st.just("+")), min_size=1, max_size=4),
    st.booleans(),
    st.lists(_level, min_size=1, max_size=5),
)
def test_matching_agrees_with_paho(levels: list[str], rest: bool, topic: list[str]) -> None:
    text = "/".join([*levels, "#"] if rest else levels)
    if not text:
        return
    assert (TopicTemplate(text).bind("/".join(topic)) is not None) == topic_matches_sub(text, "/".join(topic))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a/+/c", "+/b/c", True),
        ("a/#", "a", True),
        ("a/#", "b/#", False),
        ("a/+", "a/b/c", False),
        ("a/b", "a/c", False),
        ("#", "x/y", True),
        ("a/+/c", "a/b/d", False),
    ],
)
def test_overlapping(one: str, other: str, expected: bool) -> None:
    assert (overlapping(["x", one, "y/z", other, one]) is not None) == expected or one == "#"
    assert (overlapping([one, other]) == (one, other)) == expected
    assert (overlapping([other, one]) == (other, one)) == expected
    assert overlapping([one, one]) is None
