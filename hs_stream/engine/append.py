"""One append after the other, each with a number of its own.

An append that is broken off (whoever waits for it is cancelled) may be durable or not, and the next one would have its
number: the store would take it for the same, and its readings would be lost. So it is written again before anything
else is: the store takes an append of the same number by the same writer once.
"""

from __future__ import annotations

from collections.abc import Callable

from hs_stream.engine.contents import PatientStore
from hs_stream.engine.feed import Feed
from hs_stream.engine.ports import Append

__all__ = ["Appender"]


class Appender:
    """The only one who appends, one call at a time. ``seq`` is the last append."""

    def __init__(self, store: PatientStore, feed: Feed, *, seq: int) -> None:
        self.seq = seq
        self._store = store
        self._feed = feed
        self._unsure: tuple[Append, Callable[[], None]] | None = None

    async def write(self, append: Append, durable: Callable[[], None]) -> None:
        """``durable`` is called once, as soon as ``append`` is."""
        self._unsure = append, durable
        await self.make_sure()

    async def make_sure(self) -> None:
        """Write the append again of which it is not known whether it is durable, if there is one."""
        if self._unsure is None:
            return
        append, durable = self._unsure
        async with self._feed.append(append):
            await self._store("append", self._store.store.append, append)
        self._unsure = None
        self.seq = append.seq
        durable()
