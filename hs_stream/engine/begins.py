"""Where streams without inputs begin: at the earliest reading of their workflow.

A reading that is older than ``backdate`` as it arrives counts as one of that age, unless somebody asked for it. That is
durable no later than the reading (``StreamState.since``), and each reading decides for itself: neither order nor rounds
matter.
"""

from __future__ import annotations

from collections.abc import Sequence

from hs_stream.core.time import EMPTY, MAX_TIME, MIN_TIME, Grid, TimeIntervals
from hs_stream.core.tool import OnGrid
from hs_stream.engine.contents import PatientStore
from hs_stream.engine.graph import Graph
from hs_stream.engine.placing import Came, Placed
from hs_stream.engine.ports import Placing
from hs_stream.engine.schedule import Schedule
from hs_stream.engine.telemetry import Telemetry
from hs_stream.plan.streams import Stream

__all__ = ["Begins"]

_ARRIVAL = Placing.ARRIVAL


class Begins:
    """Per workflow its earliest reading, as far as it counts. ``backdate`` in ms, or ``ticks`` if that is longer."""

    def __init__(
        self, graph: Graph, store: PatientStore, schedule: Schedule, telemetry: Telemetry, *, backdate: int, ticks: int
    ) -> None:
        self._graph = graph
        self._store = store
        self._schedule = schedule
        self._telemetry = telemetry
        self._backdate = backdate
        self._ticks = ticks
        self._begin: dict[str, int] = {}
        self._sourceless: list[Stream] = []
        self._first: dict[int, int] = {}
        """Per raw stream its earliest reading, `MAX_TIME` without one, where somebody has looked."""
        self._doubted: dict[str, None] = {}
        """Workflows whose earliest reading may have been purged."""
        self._meanwhile: dict[str, int] = {}
        """Of the workflow that is looked at, the earliest reading that has come since."""

    def of(self, stream: Stream) -> int | None:
        """A stream without inputs has nothing at or before this instant; ``None`` while there is no reading."""
        earliest = self._begin.get(stream.workflow)
        return stream.begin if stream.begin is not None else None if earliest is None else earliest - 1

    def begin_at(self, workflow: str, first: int) -> None:
        """The earliest reading of ``workflow`` is now at ``first``: streams without inputs begin there."""
        known = self._begin.get(workflow)
        self._begin[workflow] = first
        for stream in self._sourceless:
            if stream.workflow == workflow and stream.begin is None:
                if known is not None:
                    stream.agenda.move(TimeIntervals.of(MIN_TIME, max(known, first) - 1))
                self._schedule.look_at([stream], "arrival")

    def doubt(self, stream: Stream) -> None:
        """Readings of a raw stream were purged: see `make_sure`."""
        self._doubted |= dict.fromkeys(self._graph.readers(stream))

    async def make_sure(self) -> None:
        """Begin at the earliest reading that is left, where some were purged. Before each step."""
        while self._doubted:
            workflow = next(iter(self._doubted))
            del self._doubted[workflow]
            try:
                await self._begin_again(workflow)
            except BaseException:
                self._doubted[workflow] = None
                raise

    async def _begin_again(self, workflow: str) -> None:
        known = self._begin.get(workflow)
        if known is None or not any(stream.workflow == workflow for stream in self._sourceless):
            return
        if self._graph.forgets(workflow):
            return
        self._meanwhile[workflow] = MAX_TIME
        try:
            first = await self._earliest(workflow)
        finally:
            came = self._meanwhile.pop(workflow)
        first = came if first is None else min(first, came)
        if first != known:
            self.begin_at(workflow, first)

    async def _earliest(self, workflow: str) -> int | None:
        """The time of the earliest reading of any raw stream of ``workflow`` that did not come too late to count."""
        firsts = []
        for stream in list(self._graph.streams.values()):  # rooms may join meanwhile
            if stream.kind == "raw" and workflow in self._graph.readers(stream):
                found = await self._store("read", self._store.store.read, stream.id, MIN_TIME, MAX_TIME, limit=1)
                firsts += [max(found.first_time, stream.state.since)] if found else []
        return min(firsts, default=None)

    # --- after a start ---

    async def recover(self, now: int) -> None:
        """Where they begin by what is stored: only asked for where there are such streams."""
        self._sourceless = [one for one in self._graph.streams.values() if one.tool is not None and not one.inputs]
        for workflow in {stream.workflow for stream in self._sourceless}:
            first = await self._earliest(workflow)
            if first is not None:
                self._begin[workflow] = first
        for stream in self._sourceless:
            if not isinstance(stream.drive, OnGrid):
                continue
            if stream.begin is None and self._graph.forgets(stream.workflow):
                await self._keep_begin(stream)
            elif stream.state.coverage:
                begin = self.of(stream)
                if begin is None:
                    # All readings were purged, and then we were killed.
                    begin = self._begin[stream.workflow] = MAX_TIME
                lost = await self._begun_elsewhere(stream, stream.drive.grid, begin)
                self._void(stream, lost - TimeIntervals.of(MIN_TIME, stream.limit), now)

    def _void(self, stream: Stream, lost: TimeIntervals, now: int) -> None:
        """Take ``lost`` out of the coverage, for a reason that lies before our start. What is final stays."""
        state = stream.state
        stream.replace(state._replace(coverage=state.coverage - lost, stale=state.stale | lost))
        # What is wanted is computed again, and compared. What rests on the rest of it is not right any more either.
        if unwanted := lost - stream.demand:
            self._schedule.arrived(stream, unwanted, now)

    async def _keep_begin(self, stream: Stream) -> None:
        """``stream`` began before what is left of the readings, and does not begin anew."""
        found = await self._store.store.read(stream.id, MIN_TIME, MAX_TIME, limit=1)
        begin = self._begin.get(stream.workflow)
        if found and (begin is None or found.first_time < begin):
            self._begin[stream.workflow] = found.first_time

    async def _begun_elsewhere(self, stream: Stream, grid: Grid, begin: int) -> TimeIntervals:
        """What ``stream``, without inputs, covers as it is not with this ``begin``: it had another one when it ran."""
        read, lost = self._store.store.read, EMPTY
        for low, high in stream.state.coverage.pairs:
            if low < begin and await read(stream.id, low, min(high, begin), limit=1):
                lost |= TimeIntervals.of(low, min(high, begin))
            if begin < high:
                start = max(low, begin)
                found = await read(stream.id, start, high, limit=1)
                first = found.first_time if found else high + 1
                if grid.next(start) < first:
                    lost |= TimeIntervals.of(start, first - 1)
        return lost

    # --- what readings say ---

    def may_hold_back(self, stream: Stream, placed: Placed, oldest: int) -> bool:
        """Whether a reading of the round may be too old, so that `hold_back` is to be asked."""
        return placed.times[0] < max(oldest - self._backdate, stream.state.since)

    async def hold_back(self, stream: Stream, readings: Sequence[Came], placed: Placed, oldest: int) -> int | None:
        """Some of ``readings`` may be old: ``oldest`` is the arrival of the first of the round.

        Returns `StreamState.since` where the stream's record has to say so, or says too much; it must be durable no
        later than the readings.
        """
        backdate = self._backdate_of(stream)
        if placed.times[0] >= max(oldest - backdate, stream.state.since):
            return None
        if stream.state.since <= MIN_TIME and all(delivery.asked for _, delivery, _ in readings):
            return None
        refused = {id(one) for (one, _, _), _ in placed.refused}
        times = [
            (reading.time, reading.time if delivery.asked else max(reading.time, delivery.arrival - backdate))
            for reading, delivery, _ in readings
            if reading.placing is not _ARRIVAL and id(reading) not in refused
        ]
        if not times:
            return None
        first = self._first.get(stream.id)
        if first is None:
            found = await self._store("read", self._store.store.read, stream.id, MIN_TIME, MAX_TIME, limit=1)
            first = found.first_time if found else MAX_TIME
        begin = min(max(first, stream.state.since), *(counts for _, counts in times))
        earliest = min(time for time, _ in times)
        self._first[stream.id] = first = min(first, earliest)
        if count := sum(time < begin for time, _ in times):
            clocks = any(self._has_clocks(workflow) for workflow in self._graph.readers(stream))
            self._telemetry.backdated(stream.node, stream.name, earliest, begin, count, clocks=clocks)
        return None if max(first, stream.state.since) == begin else begin

    def _backdate_of(self, stream: Stream) -> int:
        """What a reading of ``stream`` may bring about is so many ticks of the fastest clock that begins with it."""
        readers = set(self._graph.readers(stream))
        clocks = [one.drive for one in self._sourceless if one.workflow in readers and one.begin is None]
        every = min((drive.grid.every for drive in clocks if isinstance(drive, OnGrid)), default=0)
        return max(self._backdate, self._ticks * every)

    def _has_clocks(self, workflow: str) -> bool:
        """Whether a stream without inputs begins with the readings of ``workflow``."""
        return any(stream.workflow == workflow and stream.begin is None for stream in self._sourceless)

    def notice(self, stream: Stream, changed: TimeIntervals) -> None:
        """A raw stream's durable contents changed."""
        first = self._first.get(stream.id)
        if first is not None and changed:
            first = self._first[stream.id] = min(first, changed.start + 1)
        if stream.state.since > MIN_TIME and first is not None:
            begin = max(first, stream.state.since)
        elif changed:
            begin = max(changed.start + 1, stream.state.since)
        else:
            return
        for workflow in self._graph.readers(stream):
            if workflow in self._meanwhile:
                self._meanwhile[workflow] = min(self._meanwhile[workflow], begin)
            known = self._begin.get(workflow)
            if known is None or (begin < known and not self._graph.forgets(workflow)):
                self.begin_at(workflow, begin)

    def forget(self, stream: Stream) -> None:
        """Readings are gone: which one is the earliest is not known any more."""
        self._first.pop(stream.id, None)
