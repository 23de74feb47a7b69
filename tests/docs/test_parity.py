"""No row of docs/guides/from-hyperstream.md is claimed without running."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.docs.parity_rows import REGISTRY, evaluate

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "guides" / "from-hyperstream.md").read_text(encoding="utf-8")
FROM_THERE, _, NEW = GUIDE.partition("## Tools for a house")
TOOL = re.compile(r"^\| `(\w+)` \| `(\{.*?\})` \| `(.+?)` \| `(.+?)` \| (.*)\|$", re.MULTILINE)
FEATURE = re.compile(r"^\| (F\d+): .* \| .* \| `(tests/[\w/]+\.py)(?:::(\w+))?` \|$", re.MULTILINE)
NAMES = """
aggregate aggregate_into_dict_and_apply aggregate_plate aligned_merge aligning_window apply asset_plate_generator
asset_splitter asset_writer clock component component_filter component_set copy dict_argmax dict_values_to_const
histogram_from_list histograms_to_csv index_of index_of_by_stream jsonify list_dict_mean list_dict_sum list_length
list_mean list_sum meta_instance meta_instance_from_list percentiles_from_list percentiles_to_csv plate_sink product
relative_apply relative_apply2 relative_window sink slice sliding_apply sliding_listify sliding_sink sliding_window
splitter splitter_from_stream splitter_of_dict splitter_of_list splitter_time_aware splitter_time_aware_from_stream
splitter_with_unlist stream_broadcaster stream_broadcaster_from_stream betavariate custom expovariate gammavariate gauss
lognormvariate normalvariate paretovariate randint random randrange triangular uniform vonmisesvariate weibullvariate
"""
HOUSE_NAMES = """
sliding_mean sliding_min sliding_max sliding_sum sliding_count sliding_median sliding_std sliding_percentile
sliding_first sliding_last derivative integral time_in_state utility_meter increase threshold debounce
state_duration change_detect last_value as_of_join combine_latest resample interpolate gap_detect offline_detect
ewma outlier_filter session_window followed_by merge_events absence expression
"""
ORIGINAL, HOUSE = NAMES.split(), HOUSE_NAMES.split()


@pytest.mark.parametrize("row", TOOL.findall(GUIDE), ids=lambda row: row[0])
def test_a_tool_does_what_its_row_says(row: tuple[str, ...]) -> None:
    name, parameters, inputs, output, _ = row
    assert evaluate(name, parameters, inputs) == json.loads(output)


def test_every_tool_of_the_original_has_a_row() -> None:
    assert [row[0] for row in TOOL.findall(FROM_THERE)] == ORIGINAL
    assert set(ORIGINAL) <= set(REGISTRY.names())


def test_every_tool_for_a_house_has_a_row() -> None:
    assert [row[0] for row in TOOL.findall(NEW)] == HOUSE
    assert len(TOOL.findall(GUIDE)) == GUIDE.count("\n| `"), "a row that is not run"


@pytest.mark.parametrize(("feature", "path", "test"), FEATURE.findall(GUIDE), ids=lambda value: value)
def test_what_a_feature_names_is_there(feature: str, path: str, test: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    assert f"def {test or 'test_'}" in text, f"{feature}: {path} has no {test}"
    assert len(FEATURE.findall(GUIDE)) == GUIDE.count("| F")
