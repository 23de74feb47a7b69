"""The blocking facade for notebooks and scripts: `HyperStream`.

>>> from hs_stream import HyperStream
>>> with HyperStream() as hs:
...     interval = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:30Z")
...     ticker = hs.tools.clock(every="1s").execute(sources=[], sink="ticker", interval=interval)
...     print([timestamp.second for timestamp, value in ticker.window().tail(5)])
[26, 27, 28, 29, 30]

1. Every call blocks until it is done. The work is done by an event loop in a thread of its own (`background`), so that
   it may be called where a loop runs already, as in Jupyter. Tools compute, and code of the user's is imported, on the
   thread that calls.
2. Nothing is computed that nobody asks for: by ``execute`` or by looking at ``window(interval, compute=True)``. Then
   exactly what is missing is computed, by the engine of the service (`workspace`).
3. A request takes what is stored as complete up to where it reads, but for the last seconds (``watermark.idle``) before
   now: readings that come later are late, and take back what was computed without them.
4. A store has one writer: a service, a command, or one `HyperStream`.
5. Views hold nothing: they read the store page by page whenever somebody looks (`views`).
"""

from hs_stream.hyperstream.facade import HyperStream
from hs_stream.hyperstream.streams import Stream
from hs_stream.hyperstream.views import Instance, NotComputedWarning, View

__all__ = ["HyperStream", "Instance", "NotComputedWarning", "Stream", "View"]
