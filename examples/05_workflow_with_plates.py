# %% [markdown]
# # A workflow with plates
#
# Monthly temperatures of cities, in one file for each country. The workflow splits the countries into cities, takes the
# middle of each, and goes back to countries with the mean of their cities; for countries of which rainfall is known,
# both stand side by side. Every node is written once, and runs for every country and every city.

# %%
import csv
from collections.abc import Iterator
from pathlib import Path

import example_files

from hs_stream import HyperStream

hs = HyperStream()
data = example_files.climate()
print((data / "TempNZ.csv").read_text(encoding="utf-8")[:120], "...")

# %% [markdown]
# ## The workflow
#
# `city` is a plate below `country`: its values are found in the readings themselves, by the node `names`.

# %%
with hs.create_workflow("climate") as w:
    country = w.plate("country")
    city = w.plate("city", parent=country, source="names")
    temperatures = w.source("temperatures", plates=[country])
    rainfall = w.source("rainfall", plates=[country])

    temperatures.plate_values(name="names")
    range_of_city = temperatures.splitter_of_dict(into=city, name="range_of_city")
    city_mean = range_of_city.expression("(low + high) / 2", name="city_mean")
    country_mean = city_mean.aggregate("mean", over=city, name="country_mean")
    city_rain = rainfall.splitter_of_dict(into=city, name="city_rain")
    country_rain = city_rain.aggregate("mean", over=city, name="country_rain")
    country_mean.aligned_merge(country_rain, names=("temperature", "rainfall"), name="both")

print(w)

# %% [markdown]
# ## The readings
#
# A reading is one row: for each city the lowest and highest temperature. Months are written `2010M01`, and a column is
# a city with `Max` or `Min` after it. Where a month is not known of a city, there is a dash.


# %%
def months(path: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Time and columns of each row."""
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.reader(lines):
            if row[0].upper() == "DATE":
                names = row[1:]
            else:
                known = {name: float(text) for name, text in zip(names, row[1:], strict=True) if text != "-"}
                yield f"{row[0].replace('M', '-')}-01T00:00:00Z", known


def by_city(columns: dict[str, float]) -> dict[str, dict[str, float]]:
    """``{"AucklandMax": 23.4, ...}`` as ``{"Auckland": {"high": 23.4, ...}, ...}``."""
    cities: dict[str, dict[str, float]] = {}
    for name, value in columns.items():
        cities.setdefault(name[:-3], {})["high" if name.lower().endswith("max") else "low"] = value
    return cities


for path in sorted(data.glob("Temp*.csv")):
    stream = hs.get_or_create_stream("temperatures", country=path.stem.removeprefix("Temp"))
    print(stream, stream.write((month, by_city(columns)) for month, columns in months(path)))
hs.get_or_create_stream("rainfall", country="NZ").write(months(data / "NZRainfall.csv"))

# %% [markdown]
# ## The results
#
# One call computes all of it. What is listed are the streams that have come to be.

# %%
year = ("2009-12-31T00:00:00Z", "2010-12-31T00:00:00Z")
print(len(w.execute(year)), "streams")
for name in ("city_mean", "country_mean"):
    for stream in hs.streams(name):
        values = stream.window(year).values()
        print(f"{stream!s:45} {sum(values) / len(values):5.1f} in the mean of {len(values)} months")

# %%
print("New Zealand, temperature and rainfall:")
for timestamp, value in hs.find_stream("both", country="NZ").window(year):
    print(f"{timestamp:%Y-%m}  {value['temperature']:5.1f}  {value['rainfall']:6.1f}")

# %% [markdown]
# ## A country more
#
# A row with a new country and a new city brings all of their streams with it.

# %%
row = by_city({"HobartMax": 22.0, "HobartMin": 12.0})
hs.get_or_create_stream("temperatures", country="Tasmania").write([("2010-01-01T00:00:00Z", row)])
w.execute(year)
print(hs.find_stream("city_mean", country="Tasmania", city="Hobart").window(year).items())
print(hs.find_stream("country_mean", country="Tasmania").window(year).values())

# %%
hs.close()
