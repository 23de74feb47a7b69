"""The Python builder gives what the YAML file gives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from hs_stream import Workflow
from hs_stream.core.errors import ConfigurationError, UnknownToolError
from hs_stream.service.workflows.document import to_document
from hs_stream.service.workflows.file import parse_workflow

SAME = """
workflow: comfort
online: true
plates: {house: {}, room: {parent: house}}
sources:
  climate: {mqtt: "home/{house}/{room}/climate", time: {field: ts, unit: ms}}
nodes:
  climate_component: {tool: component, from: climate, with: {key: temperature}}
  smooth: {tool: sliding_mean@^1, from: climate_component, with: {width: 5m, every: 30s}}
  house_mean: {tool: aggregate, from: smooth, over: room, with: {function: mean}}
  too_hot: {tool: threshold, from: house_mean, with: {above: 26, hysteresis: 0.5}}
publish: {smooth: {retain: true}, too_hot: {}}
"""


def test_the_same_graph_as_the_file() -> None:
    with Workflow("comfort", online=True) as w:
        house = w.plate("house")
        room = w.plate("room", parent=house)
        topic = "home/{house}/{room}/climate"
        climate = w.source("climate", plates=[house, room], mqtt=topic, time=("ts", "ms"))
        temperature = climate.component(key="temperature")
        smooth = temperature.sliding_mean(width="5m", every="30s", name="smooth", version="^1").publish(retain=True)
        house_mean = smooth.aggregate("mean", over=room, name="house_mean")
        house_mean.threshold(above=26, hysteresis=0.5, name="too_hot").publish()
    from_file = parse_workflow(SAME, w.registry)
    assert w.definition.fingerprints == from_file.fingerprints
    assert w.definition.node_plates == from_file.node_plates
    assert to_document(w.definition) == to_document(from_file)


def test_default_names_and_several_inputs() -> None:
    w = Workflow("join")
    light, occupancy = w.source("light", mqtt="l"), w.source("occupancy", mqtt="o")
    joined = light.as_of_join(occupancy, names=["light", "occupancy"])
    assert joined.name == "light_as_of_join"
    assert w.definition.nodes[joined.name].inputs == ("light", "occupancy")
    assert w.factor("clock", every="1m").name == "clock"
    assert w.definition.nodes["clock"].inputs == ()


def test_connectors_and_retention() -> None:
    with Workflow("x") as w:
        country, city = w.plate("country"), w.plate("city")
        time = {"field": "Date", "format": "%Y", "zone": "UTC"}
        source = w.source("s", plates=[country, city], csv="data/{country}.csv", bind={"city": "town"}, time=time)
        source.keep("30d").sliding_mean("1h", name="mean").keep("90m")
    assert w.definition.node_plates["mean"] == ("country", "city")
    assert w.definition.retention == {"s": 30 * 86_400_000, "mean": 5_400_000}
    with pytest.raises(ConfigurationError, match="its topic binds country, not city"):
        w.source("t", plates=[city], csv="data/{country}.csv", time=time)


def test_parameters_may_be_python_values() -> None:
    w = Workflow("x", start=datetime(2026, 1, 1, tzinfo=UTC))
    node = w.source("s", mqtt="s").sliding_mean(timedelta(minutes=5))
    assert w.definition.nodes[node.name].tool.parameters()["width"] == "5m"
    assert w.definition.start == 1_767_225_600_000


def test_a_name_that_is_taken_must_be_given() -> None:
    w = Workflow("x")
    source = w.source("s", mqtt="s")
    source.component(key="a")
    with pytest.raises(ConfigurationError, match="give this one a name"):
        source.component(key="b")
    assert source.component(key="b", name="b").name == "b"


def test_mistakes_are_found_where_they_are_made() -> None:
    w = Workflow("x")
    source = w.source("s", mqtt="t/{room}", plates=["room"])
    with pytest.raises(AttributeError, match="did you mean sliding_mean"):
        source.sliding_maen(width="1m")
    with pytest.raises(UnknownToolError, match=r"there is 1\.0\.0"):
        source.component(key="a", version="^7")
    with pytest.raises(ConfigurationError, match="no parameter 'kee'"):
        source.component(kee="a")
    with pytest.raises(ConfigurationError, match="given twice"):
        source.component("a", key="a")
    with pytest.raises(ConfigurationError, match="1 parameters, but 2"):
        source.component("a", "b")
    with pytest.raises(ConfigurationError, match="binds room, not house"):
        w.source("other", mqtt="t/{room}", plates=["house"])
    with pytest.raises(ConfigurationError, match="another workflow"):
        w.factor("as_of_join", source, Workflow("y").source("z", mqtt="z"), name="j")


def test_leaving_the_block_checks_the_graph() -> None:
    with pytest.raises(ConfigurationError, match="'room' is not declared"), Workflow("x") as w:
        w.source("s", mqtt="t/{room}")
