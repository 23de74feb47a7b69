"""Live streams: what happens to a stream's instances, to many subscribers at once.

The rules for clients are in docs/specs/live.md. Inside:

1. Each subscribed stream has one `Ring`: its latest events, encoded once, numbered from 1. A subscriber is a cursor
   into it, so it costs no memory of its own, and one that falls out of the ring is ended. Nobody waits for one.
2. An event's id is ``store.stream.ring.number.epoch.newest``. While the ring lives, ``ring.number`` finds the next
   event; later ``(epoch, newest)`` is the position of `hs_stream.engine.feed`, which knows what may have changed since.
3. Contents are sent page by page, ascending. Events that come meanwhile are sent where their times have been sent
   already, merged into the page where they lie in it, and left to the next pages where they are later.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from typing import Final

import structlog

from hs_stream.core.errors import NotFound, StoreUnavailable, Unavailable
from hs_stream.core.size import Use, is_full
from hs_stream.core.time import EMPTY, MAX_TIME, MIN_TIME, TimeIntervals, format_time
from hs_stream.engine.engine import Engine, StreamStatus
from hs_stream.service.http.live_ring import MOST_BYTES, PAGE, PIECE, Ring, instance_json
from hs_stream.service.http.sse import event

__all__ = ["EVENTS", "Hub", "Subscription"]

logger = structlog.get_logger(__name__)

_KEEP_ALIVE: Final = 15.0
_RETRY_MS: Final = 1000
EVENTS: Final = 64 << 20
_LINGER: Final = 600.0
"""Seconds that a ring outlives its last subscriber, so that a short absence costs nothing."""
_MOST_IDLE: Final = 256
_PACE: Final = 0.0002
_SLOWEST_PACE: Final = 0.1
"""Seconds per subscriber, and at the most, between two deliveries: a little patience makes one write of many events."""
_OPENING: Final = 5.0


class Hub:
    """Every live subscription of the service. ``ended(reason)`` counts; ``limit`` bounds how many there are.

    ``events``: how many bytes the rings of all streams may have.
    """

    def __init__(
        self,
        engine: Engine,
        limit: int = 500,
        ended: Callable[[str], None] = lambda _: None,
        *,
        events: int = EVENTS,
    ) -> None:
        self._events = events
        self.engine = engine
        self.limit = limit
        self.count = 0
        self.over = ""
        """Why there are no subscriptions any more."""
        self.ended = ended
        self._rings: dict[int, Ring] = {}
        self._idle: dict[int, asyncio.TimerHandle] = {}
        self._lock = asyncio.Lock()

    async def subscribe(
        self, status: StreamStatus, last_id: str = "", start: int | None = None, *, computes: bool = True
    ) -> Subscription:
        """A new subscription: to the events after ``last_id``; else with the contents from ``start`` on, or only news.

        ``computes``: what no workflow keeps up to date is computed while it lasts.
        Raises `Unavailable` when there are too many, or the store does not answer.
        """
        if self.over:
            raise Unavailable("live events have ended for now", hint="connect again in a moment")
        if self.count >= self.limit:
            raise Unavailable(
                f"there are {self.count} live subscribers, the most that http.max_subscribers allows",
                hint="connect again later, or raise http.max_subscribers",
            )
        self.count += 1
        try:
            async with asyncio.timeout(_OPENING), self._lock:
                ring = await self._ring(status.id)
                subscription = Subscription(self, ring, status, last_id, start, computes=computes)
                ring.subscribers.add(subscription)
        except TimeoutError:
            self.count -= 1
            raise StoreUnavailable("the store does not answer", hint="connect again in a moment") from None
        except BaseException:
            self.count -= 1
            raise
        return subscription

    async def _ring(self, stream: int) -> Ring:
        if (timer := self._idle.pop(stream, None)) is not None:
            timer.cancel()
        ring = self._rings.get(stream)
        if ring is None:
            feed = self.engine.feed
            await feed.watch(stream)
            ring = Ring(stream, f"{feed.token}.{stream}.{secrets.token_hex(3)}", self._pace)
            try:
                await feed.listen(stream, ring.add)
            except BaseException:
                feed.ignore(stream, ring.add)
                raise
            self._rings[stream] = ring
            self._share_out()
        return ring

    def _share_out(self) -> None:
        share = self._events // max(len(self._rings), 1)
        for ring in self._rings.values():
            ring.limit = min(share, MOST_BYTES)
            ring.trim()

    def use(self) -> Use:
        """The bytes of all rings. That they forget is no sign of anything."""
        return Use(sum(ring.bytes for ring in self._rings.values()), self._events)

    def _pace(self) -> float:
        return min(_PACE * self.count, _SLOWEST_PACE)

    def leave(self, subscription: Subscription, reason: str) -> None:
        """The subscription has ended."""
        ring = subscription.ring
        if subscription not in ring.subscribers:
            return
        ring.subscribers.remove(subscription)
        self.count -= 1
        self.ended(reason)
        if not ring.subscribers:
            self._idle[ring.stream] = asyncio.get_running_loop().call_later(_LINGER, self._drop, ring.stream)
            if len(self._idle) > _MOST_IDLE:
                self._drop(next(iter(self._idle)))

    def _drop(self, stream: int) -> None:
        timer = self._idle.pop(stream, None)
        if timer is not None:
            timer.cancel()
            ring = self._rings.pop(stream)
            self.engine.feed.ignore(stream, ring.add)
            self._share_out()

    def stop(self, reason: str = "stopping") -> None:
        """End every subscription with this reason, and take no more."""
        self.over = reason
        for stream in list(self._idle):
            self._drop(stream)
        for ring in self._rings.values():
            ring.wake()


class _Behind(Exception):
    """The subscriber is further back than the ring reaches."""


class Subscription:
    """One subscriber. `chunks` gives what to send until it ends; `close` must be called after that."""

    def __init__(
        self, hub: Hub, ring: Ring, status: StreamStatus, last_id: str, start: int | None, *, computes: bool
    ) -> None:
        self.ring = ring
        self.news = asyncio.Event()
        self.reason = "left"
        self._hub = hub
        self._status = status
        self._computes = computes and status.kind == "derived"
        self._start = MIN_TIME if start is None else start
        self._position = hub.engine.feed.position(ring.stream)
        self._cursor = ring.last
        self._spans = EMPTY
        self._anew = ""
        self._wanted: int | None = None
        if last_id:
            self._resume(last_id)
        elif start is not None:
            self._anew = "start"
        if self._anew:
            self._spans = TimeIntervals.of(self._start, MAX_TIME)

    def _resume(self, last_id: str) -> None:
        parts = re.fullmatch(r"(\w{1,20}\.\d{1,19}\.\w{1,20})\.(\d{1,19})\.(\d{1,19})\.(-?\d{1,19})(~?)", last_id)
        prefix = self.ring.prefix
        if parts is None or parts[1].rpartition(".")[0] != prefix.rpartition(".")[0]:
            self._anew = "the id is not one of this stream"
            return
        number, epoch, newest = int(parts[2]), int(parts[3]), int(parts[4])
        if parts[1] == prefix and self.ring.holds(number):
            self._cursor = number
            if parts[5]:
                self._spans = TimeIntervals.of(newest, MAX_TIME)
            return
        changed = self._hub.engine.feed.changed_since(self.ring.stream, epoch, newest)
        if changed is None:
            self._anew = "it is not known what changed since"
        else:
            self._spans = changed

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """What to send: the contents asked for, then news, and ``: keep-alive`` where there is none."""
        yield b"retry: %d\n\n" % _RETRY_MS
        try:
            self._want()
            if self._anew:
                yield event("reset", {"start": "-inf", "end": "inf", "reason": self._anew})
            async for page in self._contents():
                yield page
            async for piece in self._catch_up():
                yield piece
            yield event("ready", {"stream": str(self._status.stream)}, self._identity())
            async for piece in self._follow():
                yield piece
        except _Behind:
            self.reason = "slow"
        except StoreUnavailable:
            self.reason = "store"
        except NotFound:
            self.reason = "removed"
        if self._hub.over:
            self.reason = self._hub.over
        yield event("end", {"reason": self.reason})

    def close(self) -> None:
        """Free what the subscription holds. Idempotent."""
        if self._wanted is not None:
            self._hub.engine.unwant(self._wanted)
            self._wanted = None
        self._hub.leave(self, self.reason)

    def _want(self) -> None:
        """A stream that no workflow keeps up to date is computed for as long as somebody looks at it."""
        if self._computes:
            start = self._start if self._anew else self._hub.engine.clock.now()
            self._wanted = self._hub.engine.want(self._status.stream, start, self._wanted)

    def _identity(self) -> str:
        return self.ring.identity(self._cursor, *self._position)

    async def _catch_up(self) -> AsyncIterator[bytes]:
        """All events up to now; then the position is that of now."""
        while self._cursor != self.ring.last:
            if not self.ring.holds(self._cursor):
                raise _Behind
            piece, self._cursor = self.ring.piece(self._cursor)
            yield piece
        self._position = self._hub.engine.feed.position(self.ring.stream)

    async def _follow(self) -> AsyncIterator[bytes]:
        known = self._identity()
        while not self._hub.over:
            self.news.clear()
            if self._cursor == self.ring.last:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_KEEP_ALIVE):
                        await self.news.wait()
            if self._cursor == self.ring.last and not self._hub.over:
                await self._hub.engine.feed.watch(self.ring.stream)
                self._want()
            if self._cursor == self.ring.last:
                self._position = self._hub.engine.feed.position(self.ring.stream)
                # After a correction the position gets better with time: the client should have the new one.
                known, before = self._identity(), known
                yield b": keep-alive\n\n" if known == before else b": keep-alive\nid: %s\n\n" % known.encode()
            async for piece in self._catch_up():
                yield piece

    async def _contents(self) -> AsyncIterator[bytes]:
        """Rule 3: the contents of ``_spans``, ascending, exact at the end of each page."""
        sent = self._spans.complement()
        last = self._spans.pairs[-1] if self._spans else None
        for start, end in self._spans.pairs:
            if not self._anew:
                reset = {"start": format_time(start), "end": format_time(end), "reason": "changed"}
                yield event("reset", reset)
            low = start
            while low < end:
                rows, high = await self._page(low, end)
                if not self.ring.holds(self._cursor):
                    raise _Behind
                pieces = []
                resumable = (start, end) == last
                for number, one in enumerate(self.ring.after(self._cursor), self._cursor + 1):
                    if one.gone is not None:
                        rows = {time: row for time, row in rows.items() if not one.gone[0] < time <= one.gone[1]}
                    elif low < one.time <= high and one.time not in sent:
                        if one.kind == "retract":
                            rows.pop(one.time, None)
                        else:
                            rows[one.time] = one.data
                        continue
                    elif one.time not in sent:
                        continue
                    pieces.append(self._partial(number, low) + one.block if resumable else one.block)
                self._cursor = self.ring.last
                self._position = self._hub.engine.feed.position(self.ring.stream)
                pieces += [b"event: insert\ndata: %s\n\n" % rows[time] for time in sorted(rows)]
                if rows and resumable and high < end:
                    pieces[-1] = self._partial(self._cursor, high) + pieces[-1]
                sent |= TimeIntervals.of(low, high)
                low = high
                if pieces:
                    yield b"".join(pieces)

    def _partial(self, number: int, until: int) -> bytes:
        """The id of who knows the contents up to ``until`` as they were after event ``number``, and no others."""
        return b"id: %s\n" % self.ring.identity(number, self._position[0], until, "~").encode()

    async def _page(self, low: int, end: int) -> tuple[dict[int, bytes], int]:
        """Encoded instances after ``low``, and up to where they are all. Every write that they may show is told."""
        engine = self._hub.engine
        batch = await engine.store.read(self.ring.stream, low, end, limit=PAGE, budget=PIECE)
        revisions: dict[int, int] = {}
        if self._status.kind == "derived" and batch:
            revisions = await engine.store.revisions(self.ring.stream, batch.times.tolist())
        await engine.feed.settled()
        rows = {time: instance_json(time, value, revisions.get(time, 0)) for time, value in batch}
        return rows, batch.last_time if is_full(batch, PAGE, PIECE) else end
