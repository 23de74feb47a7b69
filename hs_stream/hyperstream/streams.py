"""Streams: handles that know a name and a store, and ask it."""

from __future__ import annotations

import warnings
from itertools import islice
from typing import Any, Final

from hs_stream.core.errors import ConfigurationError, HsStreamError
from hs_stream.core.time import format_time
from hs_stream.engine.engine import StreamStatus
from hs_stream.hyperstream.handles import StreamHandle
from hs_stream.hyperstream.readings import readings_of
from hs_stream.hyperstream.spans import Interval, interval_of, now_ms
from hs_stream.hyperstream.tables import Table, span_text
from hs_stream.hyperstream.views import NotComputedWarning, View

__all__ = ["Stream"]

_ROUND: Final = 5_000


class Stream(StreamHandle):
    """A stream of one store. It need not exist yet: it comes to be with what is written or executed into it."""

    def window(self, interval: Interval = None, *, compute: bool = False) -> View:
        """A view of ``interval`` (see `hs_stream.hyperstream.spans`), by default of all that is stored.

        ``compute``: what is missing is computed, whenever somebody looks at the view.
        """
        return View(self, interval_of(interval, now_ms()), compute=compute)

    def write(self, data: Any) -> int:
        """Store readings; returns how many, once they are durable and what rests on them is taken back.

        ``data``: ``(time, value)`` pairs (any iterable of them, taken in piece by piece), a mapping of times to values,
        or a pandas Series or DataFrame. The same time again replaces the value. `ConfigurationError` for what cannot be
        stored; readings before it are.
        """
        for workflow in self.channel.not_taken_back(self.name):
            reason = f"{workflow} reads {self.name}, and cannot be loaded: what it has computed is not taken back"
            warnings.warn(reason, NotComputedWarning, stacklevel=2)
        readings, count = readings_of(data, now_ms()), 0
        while chunk := list(islice(readings, _ROUND)):
            letters = self.channel.write(self.id, chunk)
            if letters:
                raise ConfigurationError(
                    f"{len(letters)} of {len(chunk)} readings were not stored: {letters[-1].message}",
                    hint="they are kept as dead letters",
                )
            count += len(chunk)
        return count

    def purge(self, interval: Interval = None) -> None:
        """Forget what is stored in ``interval`` (by default all); what rests on it is not right any more."""
        self.channel.purge(self.id, interval_of(interval, now_ms()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.id == other.id and self.channel.is_same(other.channel)

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        try:
            status = self.status
        except HsStreamError:
            return f"<stream {self.id}>"
        how = f"{status.kind}, {status.tool}" if status.tool else status.kind
        return f"<stream {self.id}: {how}, {_extent(status)}>"

    def _repr_html_(self) -> str:
        try:
            status = self.status
        except HsStreamError as error:
            return Table("", ("stream", str(self.id)), (), str(error)).html()
        rows = [("kind", status.kind), ("workflow", status.workflow), ("tool", status.tool), ("known", _extent(status))]
        if status.error:
            rows.append(("error", status.error))
        table = Table("", ("stream", str(self.id)), [row for row in rows if row[1]])
        return table.html() + self.window()._repr_html_()


def _extent(status: StreamStatus) -> str:
    if status.kind == "raw":
        return "no readings" if status.upper is None else f"up to {format_time(status.upper)}"
    return f"computed {span_text(status.coverage)}" if status.coverage else "nothing computed"
