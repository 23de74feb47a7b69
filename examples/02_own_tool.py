# %% [markdown]
# # Your own tool
#
# A tool is a frozen dataclass of parameters with a name, a version and one method. [my_tools/ice.py](my_tools/ice.py)
# is one: of each object, how much more one field is than another. HyperStream's tutorial wrote a reader of CSV files
# at this place. Here whatever reads files is not a tool but a source, because the results of a tool depend on nothing
# but its inputs and parameters.

# %%
import csv
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import example_files

from hs_stream import HyperStream

folder = Path(example_files.__file__).parent / "my_tools"
print((folder / "ice.py").read_text(encoding="utf-8").partition("    def map")[0])

# %% [markdown]
# ## Use it
#
# Folders of tools are named when a HyperStream is opened, or in the settings of the service (`tools.paths`).

# %%
hs = HyperStream(tools=[folder])
print(hs.tools.balance(more="Arctic", less="Antarctica"))

# %% [markdown]
# The readings: the extent of the sea ice around both poles, in millions of square kilometres, once a month.


# %%
def rows() -> Iterator[tuple[str, dict[str, float]]]:
    """Time and value of each row."""
    with (example_files.climate() / "sea_ice.csv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            yield row["Time"], {"Arctic": float(row["Arctic"]), "Antarctica": float(row["Antarctica"])}


sea_ice = hs.get_or_create_stream("sea_ice")
sea_ice.write(rows())

# %%
year = ("1990-01-01T00:00:00Z", "1991-01-01T00:00:00Z")
balance = hs.tools.balance(more="Arctic", less="Antarctica").execute([sea_ice], "balance", year)
for timestamp, value in balance.window(year):
    print(f"{timestamp:%Y-%m}  {value:+.2f}")

# %% [markdown]
# ## What it is sure of
#
# The base class `MapTool` owns the loop over time, so that the tool gives the same in one piece and in many. Here in
# twelve pieces, one for each month, and then late: a correction is computed anew, and nothing else.

# %%
again = hs.get_or_create_stream("balance_by_month")
tool = hs.tools.balance(more="Arctic", less="Antarctica")
months = [f"1990-{month:02}-01T00:00:00Z" for month in range(1, 13)] + ["1991-01-01T00:00:00Z"]
for piece in pairwise(months):
    tool.execute([sea_ice], again, piece)
print("In twelve pieces the same:", again.window(year).items() == balance.window(year).items())

sea_ice.write([("1990-06-01T00:00:00Z", {"Arctic": 9.0, "Antarctica": 10.0})])
print("A correction takes back", balance.window(year).missing())
print("and becomes", balance.window(("1990-05-31T00:00:00Z", "1990-06-01T00:00:00Z"), compute=True).values())

# %% [markdown]
# `hs-stream tools check --help` says how to try a tool of your own with random parameters and readings.

# %%
hs.close()
