"""The latest events of one stream, encoded once for all who follow it (see `hs_stream.service.http.live`, rule 1)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

from hs_stream.core.time import format_time
from hs_stream.core.value import Value
from hs_stream.engine.feed import News
from hs_stream.service.json_values import dumps, encode

__all__ = ["MOST_BYTES", "PAGE", "PIECE", "Event", "Ring", "Subscriber", "instance_json"]

PAGE: Final = 500
"""Events or instances that are sent at once, at most."""
PIECE: Final = 256 << 10
"""Bytes that are sent at once, about: so much waits for each who does not read. One event or instance may have more."""
MOST_BYTES: Final = 8 << 20
"""That one ring may have, however few there are."""
_MOST_EVENTS: Final = 50_000
_AT_ONCE: Final = 8 << 20
"""Bytes that are sent to all subscribers of a stream in one turn of the loop, about."""
_PIECES: Final = 16
"""Of each ring, that are kept for who is as far."""
_BESIDE: Final = 400
"""What an event takes besides its bytes."""


def instance_json(time: int, value: Value, revision: int) -> bytes:
    """An instance as clients get it."""
    return dumps({"time": format_time(time), "value": encode(value), "revision": revision})


@dataclass(frozen=True, slots=True)
class Event:
    """``gone``: nothing is left in this interval. ``block`` has no id, ``whole`` has one."""

    time: int
    kind: str
    whole: bytes
    gone: tuple[int, int] | None = None

    @property
    def block(self) -> bytes:
        return self.whole[self.whole.index(b"\n") + 1 :]

    @property
    def data(self) -> bytes:
        """JSON, which has no line ends in it."""
        return self.whole[self.whole.rindex(b"\ndata: ") + 7 : -2]


class Subscriber(Protocol):
    """Who is woken when there is something."""

    news: asyncio.Event


class Ring:
    """The latest events of one stream (rule 1): numbers ``first`` to ``last``."""

    def __init__(self, stream: int, prefix: str, pace: Callable[[], float]) -> None:
        self.stream = stream
        self.prefix = prefix
        self.first = 1
        self.last = 0
        self.limit = MOST_BYTES
        self.subscribers: set[Subscriber] = set()
        self._pace = pace
        self._events: deque[Event] = deque()
        self.bytes = 0
        self._pieces: dict[int, tuple[bytes, int]] = {}
        self._due: asyncio.TimerHandle | None = None

    def identity(self, number: int, epoch: int, newest: int, partial: str = "") -> str:
        """The id after event ``number``."""
        return f"{self.prefix}.{number}.{epoch}.{newest}{partial}"

    def add(self, news: News) -> None:
        """Encode what happened, once for all subscribers, and wake them soon."""
        middle = min(news.before, news.after)
        pairs = news.gone.pairs
        rest = len(pairs) + len(news.changes)
        for start, end in pairs:
            rest -= 1
            data = dumps({"start": format_time(start), "end": format_time(end), "reason": "purged"})
            self._put(end, "reset", data, news.epoch, middle if rest else news.after, (start, end))
        for change in news.changes:
            rest -= 1
            data = instance_json(change.time, change.value, change.revision)
            self._put(change.time, change.kind, data, news.epoch, middle if rest else news.after)
        self._pieces.clear()
        if self._due is None and self.subscribers:
            self._due = asyncio.get_running_loop().call_later(self._pace(), self.wake)

    def _put(
        self, time: int, kind: str, data: bytes, epoch: int, newest: int, gone: tuple[int, int] | None = None
    ) -> None:
        self.last += 1
        identity = self.identity(self.last, epoch, newest).encode()
        whole = b"id: %s\nevent: %s\ndata: %s\n\n" % (identity, kind.encode(), data)
        self._events.append(Event(time, kind, whole, gone))
        self.bytes += len(whole) + _BESIDE
        self.trim()

    def trim(self) -> None:
        """Forget the oldest events that are too many."""
        events = self._events
        while events and (self.bytes > self.limit or len(events) > _MOST_EVENTS):
            self.bytes -= len(events.popleft().whole) + _BESIDE
            self.first += 1

    def wake(self) -> None:
        """Tell the subscribers that there is something."""
        self._due = None
        self._wake_some(list(self.subscribers))

    def _wake_some(self, subscribers: list[Subscriber]) -> None:
        """As many at once as do not take too much together: what each is sent is a copy until the loop has turned."""
        size = len(self._events[-1].whole) if self._events else 1
        count = _AT_ONCE // size + 1
        for subscription in subscribers[:count]:
            subscription.news.set()
        if len(subscribers) > count:
            asyncio.get_running_loop().call_later(0.001, self._wake_some, subscribers[count:])

    def holds(self, number: int) -> bool:
        """Whether everything after event ``number`` is here."""
        return self.first - 1 <= number <= self.last

    def after(self, number: int) -> Iterable[Event]:
        """The events after ``number``, which must be here."""
        return islice(self._events, number - self.first + 1, None)

    def piece(self, number: int) -> tuple[bytes, int]:
        """The next of them as one piece of bytes, shared by all who are as far as that, and up to which number."""
        found = self._pieces.get(number)
        if found is None:
            events: list[bytes] = []
            size = 0
            for one in islice(self.after(number), PAGE):
                size += len(one.whole)
                if size > PIECE and events:
                    break
                events.append(one.whole)
            if len(self._pieces) >= _PIECES:
                del self._pieces[next(iter(self._pieces))]
            joined = events[0] if len(events) == 1 else b"".join(events)
            found = self._pieces[number] = joined, number + len(events)
        return found
