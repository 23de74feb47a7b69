"""Countries into cities and back, with rainfall: CSV files through hs-stream serve and MongoDB, against pandas."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pymongo import MongoClient

from tests.climate import ROOT, Contents, by_ms, need_data, read_instances

WORKFLOW = ROOT / "config" / "workflows" / "climate.yaml"


def generate(folder: Path) -> None:
    """Two countries, one with rain, with empty cells and endings of both spellings; three years of months."""
    chance = random.Random(4)
    months = [f"{2000 + index // 12}M{index % 12 + 1:02}" for index in range(36)]

    def write(name: str, header: list[str], holes: float, empty: str = "") -> None:
        rows = [
            [month, *(empty if chance.random() < holes else str(round(chance.uniform(-9, 39), 1)) for _ in header[1:])]
            for month in months
        ]
        text = "".join(",".join(row) + "\n" for row in [header, *rows])
        (folder / name).write_text(text, encoding="utf-8")

    write("TempBE.csv", ["Date", "GhentMax", "GhentMin", "Brugesmax", "BrugesMin"], 0.1)
    write("TempNZ.csv", ["Date", "AucklandMax", "AucklandMin", "TaupoMax", "Taupomin"], 0)
    write("NZRainfall.csv", ["DATE", "Auckland", "Taupo"], 0.1, "-")


def read_csv(path: Path, time: str) -> pd.DataFrame:
    frame = pd.read_csv(path, index_col=time, na_values=["-"])
    frame.index = pd.to_datetime(frame.index, format="%YM%m", utc=True).as_unit("ns")
    return frame


def expected(folder: Path) -> Contents:
    """Every mean and join of the files, by pandas."""
    result: Contents = {}
    countries: dict[str, dict[str, pd.Series]] = {}
    for path in sorted(folder.glob("Temp*.csv")):
        frame = read_csv(path, "Date")
        frame.columns = pd.MultiIndex.from_tuples([(name[:-3], name[-3:].lower()) for name in frame.columns])
        means = (frame.xs("max", axis=1, level=1) + frame.xs("min", axis=1, level=1)) / 2
        country = path.stem.removeprefix("Temp")
        countries[country] = {"temperature": means.mean(axis=1)}
        result |= {f"city_mean[city={city},country={country}]": by_ms(means[city]) for city in means}
        rainfall = folder / f"{country}Rainfall.csv"
        if rainfall.exists():
            rain = read_csv(rainfall, "DATE")
            countries[country]["rain"] = rain.mean(axis=1)
            for city in rain:
                both = pd.DataFrame({"temperature": means[city], "rain": rain[city]}).dropna()
                result[f"city_climate[city={city},country={country}]"] = by_ms(both.apply(dict, axis=1))
    for country, found in countries.items():
        result[f"country_mean[country={country}]"] = by_ms(found["temperature"])
        if "rain" in found:
            both = pd.DataFrame(found).dropna().apply(dict, axis=1)
            result[f"country_climate[country={country}]"] = by_ms(both)
    return result


def numbers(contents: dict[int, Any]) -> np.ndarray[Any, Any]:
    rows = [[*value.values()] if isinstance(value, dict) else [value] for value in contents.values()]
    return np.array(rows, float)


def check(contents: Contents, wanted: Contents) -> None:
    computed = ("city_mean", "city_climate", "country_mean", "country_climate")
    assert {name for name in contents if name.startswith(computed)} == set(wanted)
    for name, series in wanted.items():
        assert list(contents[name]) == list(series), f"{name}: other months than pandas"
        np.testing.assert_allclose(numbers(contents[name]), numbers(series), rtol=1e-12, err_msg=name)


def add_city(path: Path, city: str) -> int:
    """Columns for a city of which the first two months are not known; how many are."""
    lines = path.read_text(encoding="utf-8").splitlines()
    known = len(lines) - 3
    cells = [f"{city}Max,{city}Min", ",", ",", *(f"{20 + index % 7}.5,{10 + index % 5}" for index in range(known))]
    text = "".join(f"{line},{more}\n" for line, more in zip(lines, cells, strict=True))
    # As an editor does it: nobody sees half a file.
    fresh = path.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
    return known


def history_of(url: str) -> list[dict[str, Counter[str]]]:
    """Per session, in order: what was looked at and changed, by node, and because of what."""
    with MongoClient[dict[str, Any]](url) as client:
        database = client.get_default_database()
        sessions: dict[str, dict[str, Counter[str]]] = {}
        for entry in database["history"].find().sort("_id", 1):
            sums = sessions.setdefault(entry["session"], {}).setdefault(entry["stream"], Counter())
            sums += Counter({name: entry[name] for name in ("instances", "changed")} | {entry["cause"]: 1})
        return list(sessions.values())


@pytest.fixture(params=["generated", "real"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    if request.param == "real":
        shutil.copytree(need_data(), folder)
    else:
        folder.mkdir()
        generate(folder)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_cities_and_countries_are_what_pandas_says_and_a_new_column_computes_only_what_is_new(
    files: Path, parts: Any, mongo_url: str
) -> None:
    broker = parts.mosquitto()
    service = parts.service()
    service.configure(workflows=[WORKFLOW], broker=broker.url, store=mongo_url)
    data = service.directory / "data" / "climate"
    shutil.copytree(files, data)
    paths = [*data.glob("Temp*.csv"), *data.glob("*Rainfall.csv")]
    rows = sum(len(path.read_text(encoding="utf-8").splitlines()) - 1 for path in paths)

    service.start()
    service.settle(rows)
    service.stop()
    first, _ = read_instances(mongo_url)
    check(first, expected(data))
    assert set(history_of(mongo_url)[0]) == set(NODES)

    # Another process reads the same files, and then a city is added to one of them.
    service.start()
    service.settle(rows)
    grown = data / ("TempAsia.csv" if (data / "TempAsia.csv").exists() else "TempBE.csv")
    country = grown.stem.removeprefix("Temp")
    before = len(first[f"temperatures[country={country}]"])
    known = add_city(grown, "Osaka")
    service.settle(rows + before)
    service.stop()
    second, revisions = read_instances(mongo_url)
    check(second, expected(data))
    new = {name for name in second if f"city=Osaka,country={country}" in name}
    assert set(second) - set(first) == new
    assert {name.partition("[")[0] for name in new} == {"city_range", "city_mean"}

    # What has changed: the rows, what is made of them as a whole, and nothing of another city or country.
    changed = {name for name in first if second[name] != first[name]}
    whole = ("temperatures", "temperatures_by_city", "city_names", "country_mean")
    assert changed == {f"{name}[country={country}]" for name in whole}
    assert {name for name in second if any(revisions[name].values())} <= changed
    # What was computed: of the means those of the new city, and its country's at the months that it has.
    (_, again) = history_of(mongo_url)
    means = again["city_mean"]
    assert (means["instances"], means["changed"]) == (known, known)
    assert again["country_mean"]["instances"] == again["country_mean"]["changed"] == known
    # Each old city takes its part of a changed row, finds it the same, and that is the end of it.
    old = sum(name.startswith("city_range[") and f"country={country}" in name for name in first)
    assert again["city_range"]["changed"] == known
    assert again["city_range"]["instances"] <= known + old * before
    assert set(again) == {"temperatures_by_city", "city_names", "city_range", "city_mean", "country_mean"}
    code, out, errors = service.run("verify", "climate")
    assert code == 0, (out, errors)
    assert "clean" in out


NODES = (
    "temperatures_by_city",
    "city_names",
    "city_range",
    "city_mean",
    "city_rain",
    "city_climate",
    "country_mean",
    "country_rain",
    "country_climate",
)
