# %% [markdown]
# # Composition
#
# What a tool computes is a stream, and a stream is what a tool reads. Here: sea ice of both poles, their sum, its mean
# over a year, and how that changes. Only the last one is asked for; whatever it needs is computed with it.

# %%
import csv
import tempfile
from pathlib import Path

import example_files

from hs_stream import HyperStream

folder = tempfile.TemporaryDirectory()
hs = HyperStream(f"sqlite:///{Path(folder.name) / 'ice.db'}")

# %% [markdown]
# Lists of two numbers, in millions of square kilometres, once a month.

# %%
sea_ice = hs.get_or_create_stream("sea_ice")
with (example_files.climate() / "sea_ice.csv").open(encoding="utf-8", newline="") as lines:
    count = sea_ice.write(
        (row["Time"], [float(row["Arctic"]), float(row["Antarctica"])]) for row in csv.DictReader(lines)
    )
print(f"{count} months; the first: {sea_ice.window().first().value}")

# %% [markdown]
# ## A chain
#
# Each line defines a stream, and computes the first year of it.

# %%
year = ("1990-01-01T00:00:00Z", "1991-01-01T00:00:00Z")
total = hs.tools.list_sum().execute([sea_ice], "total", year)
smooth = hs.tools.sliding_mean(width="365d").execute([total], "smooth", year)
for (timestamp, ice), (_, mean) in zip(total.window(year), smooth.window(year), strict=True):
    print(f"{timestamp:%Y-%m}  {ice:5.2f}  {mean:5.2f}")

# %% [markdown]
# ## More of it
#
# `compute=True` at the end of the chain: the history says that each stream got exactly the year that it did not have.

# %%
two_years = ("1990-01-01T00:00:00Z", "1992-01-01T00:00:00Z")
print(smooth.window(two_years, compute=True).count(), "means")
for entry in hs.history(2):
    print(f"{entry.stream:7} {entry.tool:20} {entry.instances} instances, because of a {entry.cause}")

# %% [markdown]
# ## A correction
#
# It goes through the whole chain: the sum at its time, and all means whose year holds it.

# %%
sea_ice.write([("1991-10-01T00:00:00Z", [10.0, 10.0])])
print("total: ", total.window(two_years).missing())
print("smooth:", smooth.window(two_years).missing())
for timestamp, mean in smooth.window(two_years, compute=True).tail(4):
    print(f"{timestamp:%Y-%m}  {mean:5.2f}")

# %% [markdown]
# In the next session all of it is there, the definitions too.

# %%
hs.close()
with HyperStream(f"sqlite:///{Path(folder.name) / 'ice.db'}") as hs:
    print([str(stream) for stream in hs.streams()], hs["smooth"].window(two_years).count())
folder.cleanup()
