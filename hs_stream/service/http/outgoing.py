"""What is on its way to clients of HTTP and not read: a bound in bytes for all of them, and one in time for each.

1. While a client reads, what it is sent does not pile up. What does is in its connection's buffer, from the moment at
   which that asks whoever writes to pause, and besides what waits to be sent then (`Outgoing.waiting`).
2. A client that reads nothing for `PATIENCE` seconds is given up; one that reads slowly is not.
3. When all together have more than the limit, those who have been reading nothing or slowly for the longest are given
   up, until the rest fits. One alone may have as much as it asked for.
4. Given up means that the connection is aborted: to close it would wait until what is in its buffer is read.
"""

from __future__ import annotations

import asyncio
from typing import Final

from hs_stream.core.size import Use

__all__ = ["PATIENCE", "SENDING", "Backlog", "Outgoing"]

PATIENCE: Final = 30.0
SENDING: Final = 64 << 20


class Outgoing:
    """One connection. Whoever serves a request on it says what ``waiting`` is; ``given_up`` is said to them."""

    def __init__(self, backlog: Backlog, transport: asyncio.WriteTransport) -> None:
        self.given_up = False
        self._backlog = backlog
        self._transport = transport
        self._waiting = 0
        self._left = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def size(self) -> int:
        """Bytes that are not read."""
        return self._transport.get_write_buffer_size() + self._waiting

    def paused(self) -> None:
        """The buffer is full."""
        self._left = self._transport.get_write_buffer_size()
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._look)
        self._backlog.add(self)

    def resumed(self) -> None:
        """It is nearly empty, or the connection is lost. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._backlog.remove(self)

    def wait(self, size: int) -> None:
        """So many bytes wait to be sent, besides what is in the buffer."""
        self._waiting = size
        if size and self._timer is not None:
            self._backlog.add(self)

    def give_up(self) -> None:
        """Rule 4."""
        self.given_up = True
        self.resumed()
        self._transport.abort()

    def _look(self) -> None:
        left = self._transport.get_write_buffer_size()
        if left < self._left:
            self._left = left
            self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._look)
        else:
            self.give_up()


class Backlog:
    """All connections of a server of which something is not read."""

    def __init__(self, limit: int = SENDING) -> None:
        self.limit = limit
        self.cut = 0
        self._stuck: dict[Outgoing, int] = {}
        """Those that are paused, the longest first, and how much they had when that was looked at."""
        self._known = 0

    def use(self) -> Use:
        """Bytes that are not read, and how many clients were given up for the limit."""
        return Use(self._measure(), self.limit, self.cut)

    def add(self, one: Outgoing) -> None:
        """``one`` is paused, or has more waiting."""
        size = one.size
        self._known += size - self._stuck.get(one, 0)
        self._stuck[one] = size
        if self._known > self.limit and self._measure() > self.limit:
            self._make_room()

    def remove(self, one: Outgoing) -> None:
        """``one`` goes on, or has gone."""
        self._known -= self._stuck.pop(one, 0)

    def _measure(self) -> int:
        for one in self._stuck:
            self._stuck[one] = one.size
        self._known = sum(self._stuck.values())
        return self._known

    def _make_room(self) -> None:
        for one in list(self._stuck)[:-1]:
            self.cut += 1
            one.give_up()
            if self._known <= self.limit:
                return
