# %% [markdown]
# # Introduction
#
# A clock, a function of its ticks, a sliding mean, and reading all of it back. Run this as a script, cell by cell in an
# editor that knows `# %%`, or as the notebook beside it.
#
# A HyperStream works over a store: here over a file that is gone at the end. `HyperStream()` alone keeps everything in
# memory.

# %%
import math
import tempfile
from datetime import datetime
from pathlib import Path

from hs_stream import HyperStream

folder = tempfile.TemporaryDirectory()
store = f"sqlite:///{Path(folder.name) / 'introduction.db'}"
hs = HyperStream(store)

# %% [markdown]
# ## A clock
#
# Executed into a stream. Intervals are `(start, end]`: the start is excluded, the end included.

# %%
minute = ("2026-01-01T12:00:00Z", "2026-01-01T12:01:00Z")
ticker = hs.tools.clock(every="1s").execute(sources=[], sink="ticker", interval=minute)

print("The last ticks:")
for timestamp, value in ticker.window().tail(3):
    print(f"  {timestamp:%H:%M:%S}  {value:%H:%M:%S}")

# %% [markdown]
# ## A function of each tick
#
# A temperature that swings once a minute. A function of a script is not stored with the stream. One that lives in a
# module is, by its import path: `apply(function="my_module:temperature")`.


# %%
def temperature(tick: datetime) -> float:
    """Twenty degrees, and five up and down."""
    return 20 + 5 * math.sin(2 * math.pi * tick.second / 60)


degrees = hs.tools.apply(function=temperature).execute(sources=[ticker], sink="degrees", interval=minute)

# %% [markdown]
# ## A mean of it
#
# Over the last 15 seconds, at every fifth second. `hs.tools.` and TAB lists all tools.

# %%
smooth = hs.tools.sliding_mean(width="15s", every="5s").execute(sources=[degrees], sink="smooth", interval=minute)

# %% [markdown]
# ## Reading back
#
# A view of an interval reads the store when somebody looks, a page at a time.

# %%
print("\nThe mean in the first half minute:")
for timestamp, value in smooth.window(("2026-01-01T12:00:00Z", "2026-01-01T12:00:30Z")):
    print(f"  {timestamp:%H:%M:%S}  {value:.2f}")

times, values = smooth.window().to_numpy()
print(f"\nIn all of it: {len(values)} values between {values.min():.2f} and {values.max():.2f}.")

# %% [markdown]
# ## Half a minute more
#
# Only what is missing is computed, of the mean and of everything that it reads.

# %%
longer = ("2026-01-01T12:00:00Z", "2026-01-01T12:01:30Z")
print(f"With half a minute more: {smooth.window(longer, compute=True).count()} values.")

print("\nWhat was computed, the newest first:")
for entry in hs.history():
    print(f"  {entry.stream:8} {entry.tool:20} {(entry.end - entry.start) // 1000:3} s {entry.instances:3} instances")

# %% [markdown]
# ## Readings of your own
#
# They are written to a stream. A late one changes exactly the results that rest on it.

# %%
power = hs.get_or_create_stream("power")
power.write([(f"2026-01-01T12:00:{second:02}Z", 100.0) for second in range(0, 60, 10)])
total = hs.tools.sliding_sum(width="20s").execute(sources=[power], sink="total", interval=minute)
power.write([("2026-01-01T12:00:25Z", 50.0)])
print(f"\nA late reading at 12:00:25 takes back {total.window(minute).missing()}.")
print(f"Computed again: {total.window(minute, compute=True).values()}")

# %% [markdown]
# At the end. `with HyperStream(...) as hs:` does it by itself.

# %%
hs.close()
folder.cleanup()
