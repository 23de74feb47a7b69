"""Conformance of a `Source`: what the engine relies on, checked from outside over the real thing.

::

    async def test_my_source(tmp_path):
        await check_source(MyHarness(tmp_path))

1. Readings come in the order in which they were sent, and ``deliver`` is never called while an earlier call waits.
2. What is not acknowledged comes again, in order, to the next run with the same identity; what is, does not.
3. After a lost connection it reconnects by itself, ``connected(False)`` and ``connected(True)`` tell, un-acknowledged
   readings come again, and a late acknowledgement for the old connection is harmless.
4. While nobody takes, it holds at most one delivery; nothing is lost by that.
5. After ``stop()`` nothing more is delivered, and acknowledgements still count.

Where the other side keeps no session (a file, which every run reads from its beginning), ``session=False`` leaves out
rules 2 and 3: then everything that was sent before comes again, first and in order.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from hs_stream.core.errors import LawViolation
from hs_stream.engine.ports import Delivery, Source

__all__ = ["SourceHarness", "check_source"]

_QUIET_SECONDS = 0.5


class SourceHarness(Protocol):
    """What the suite needs from the author of a source."""

    def make(self) -> Source:
        """A new source object with the same identity as every other one of this harness (same session, offset, ...)."""

    async def send(self, numbers: Sequence[int]) -> None:
        """Send one reading per number from outside, in this order, with the number as its value, each at its own time.

        Return when the other side has taken them. The source may or may not run.
        """

    async def interrupt(self) -> None:
        """Break the source's connection; a new one must be possible at once."""


class _Run:
    """One run of a source, recording what it delivers."""

    def __init__(self, source: Source, again: int) -> None:
        self.source = source
        self._again = again
        self.deliveries: list[Delivery] = []
        self.states: list[bool] = []
        self.open = asyncio.Event()
        self.open.set()
        self._changed = asyncio.Event()
        self._delivering = 0

    async def deliver(self, delivery: Delivery) -> None:
        self._delivering += 1
        try:
            _require(self._delivering == 1, "deliver() was called while an earlier call was still waiting")
            _require(not delivery.dead_letters, f"a good reading became a dead letter: {delivery.dead_letters[:1]}")
            self.deliveries.append(delivery)
            self._changed.set()
            await self.open.wait()
        finally:
            self._delivering -= 1

    def connected(self, state: bool) -> None:
        self.states.append(state)
        self._changed.set()

    @property
    def numbers(self) -> list[int]:
        """What came, without the readings of earlier runs that a source without a session brings first."""
        every = [int(reading.value) for delivery in self.deliveries for reading in delivery.readings]
        return every[self._again :]

    async def until(self, count: int, seconds: float = 20.0) -> list[int]:
        """The numbers so far, as soon as there are ``count`` of them (or time is up)."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while len(self.numbers) < count:
                    self._changed.clear()
                    await self._changed.wait()
        return self.numbers

    async def until_states(self, *states: bool, seconds: float = 20.0) -> None:
        """Return when `connected` was called with ``states``, from the beginning; more may have come since."""
        try:
            async with asyncio.timeout(seconds):
                while len(self.states) < len(states):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            missing = states[len(self.states)]
            raise LawViolation(f"connected({missing}) was not called within {seconds:g} s: {self.states}") from None
        _require(self.states[: len(states)] == [*states], f"connected() was called with {self.states}")


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise LawViolation(f"source: {text}")


def _same(got: list[int], wanted: Sequence[int], what: str) -> None:
    if got != list(wanted):
        first = next(
            (i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), min(len(got), len(wanted))
        )
        raise LawViolation(
            f"source: {what}: {len(got)} readings where {len(wanted)} were expected; first difference at {first}: "
            f"{got[first : first + 5]} instead of {list(wanted[first : first + 5])}"
        )


@contextlib.asynccontextmanager
async def _running(harness: SourceHarness, again: int = 0) -> AsyncIterator[_Run]:
    run = _Run(harness.make(), again)
    task = asyncio.create_task(run.source.run(run.deliver, run.connected), name="source under test")
    try:
        await run.until_states(True)
        yield run
    finally:
        if task.done() and not task.cancelled() and task.exception() is not None:
            task.result()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def check_source(harness: SourceHarness, *, many: int = 3_000, session: bool = True) -> None:
    """Run the whole suite; `LawViolation` says what does not hold. ``many`` readings are sent where it takes many."""
    await _check_order(harness, range(many))
    sent = 0 if session else many
    if session:
        await _check_redelivery(harness, range(10_000, 10_040))
        await _check_interrupt(harness, range(20_000, 20_020))
    await _check_bounded(harness, range(30_000, 30_000 + many), sent)
    await _check_stop(harness, range(40_000, 40_010), 2 * sent)


async def _check_order(harness: SourceHarness, numbers: Sequence[int]) -> None:
    async with _running(harness) as run:
        await harness.send(numbers)
        _same(await run.until(len(numbers)), numbers, "in order, each once")
        for delivery in run.deliveries:
            _require(delivery.arrival > 0 and delivery.size > 0, "a delivery has no arrival or no size")
            delivery.ack()


async def _check_redelivery(harness: SourceHarness, numbers: Sequence[int]) -> None:
    # One at a time, so that there are several deliveries and some of them can be acknowledged.
    async with _running(harness) as run:
        for count, number in enumerate(numbers, 1):
            await harness.send([number])
            await run.until(count)
        _same(run.numbers, numbers, "before the restart")
        acknowledged = len(run.deliveries) // 2
        for delivery in run.deliveries[:acknowledged]:
            delivery.ack()
        done = sum(len(delivery.readings) for delivery in run.deliveries[:acknowledged])
    async with _running(harness) as run:
        rest = numbers[done:]
        _same(await run.until(len(rest)), rest, "what was not acknowledged comes again after a restart")
        for delivery in run.deliveries:
            delivery.ack()
    async with _running(harness) as run:
        await asyncio.sleep(_QUIET_SECONDS)
        _same(run.numbers, [], "what was acknowledged does not come again")


async def _check_interrupt(harness: SourceHarness, numbers: Sequence[int]) -> None:
    half = len(numbers) // 2
    async with _running(harness) as run:
        await harness.send(numbers[:half])
        _same(await run.until(half), numbers[:half], "before the connection is lost")
        old, run.deliveries = run.deliveries, []
        await harness.interrupt()
        await run.until_states(True, False)
        for delivery in old:
            delivery.ack()
        await run.until_states(True, False, True)
        await harness.send(numbers[half:])
        _same(await run.until(len(numbers)), numbers, "un-acknowledged readings come again after a lost connection")
        for delivery in run.deliveries:
            delivery.ack()


async def _check_bounded(harness: SourceHarness, numbers: Sequence[int], again: int) -> None:
    async with _running(harness, again) as run:
        before = len(run.deliveries)
        run.open.clear()
        await harness.send(numbers)
        await asyncio.sleep(_QUIET_SECONDS)
        taken = len(run.deliveries) - before
        _require(taken == 1, f"{taken} deliveries while nobody took the first one")
        run.open.set()
        _same(await run.until(len(numbers)), numbers, "after a time in which nobody took anything")
        for delivery in run.deliveries:
            delivery.ack()


async def _check_stop(harness: SourceHarness, numbers: Sequence[int], again: int) -> None:
    half = len(numbers) // 2
    async with _running(harness, again) as run:
        await harness.send(numbers[:half])
        await run.until(half)
        await run.source.stop()
        taken = len(run.deliveries)
        await harness.send(numbers[half:])
        await asyncio.sleep(_QUIET_SECONDS)
        _require(len(run.deliveries) == taken, "a delivery came after stop()")
        for delivery in run.deliveries:
            delivery.ack()
        await asyncio.sleep(0.1)
    async with _running(harness, again and again + half) as run:
        rest = numbers[half:]
        _same(await run.until(len(rest)), rest, "acknowledgements after stop() count")
        for delivery in run.deliveries:
            delivery.ack()
