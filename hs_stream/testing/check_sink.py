"""Conformance of a `Sink`: what the engine relies on, checked from outside over the real thing.

::

    async def test_my_sink(tmp_path):
        await check_sink(MyHarness(tmp_path))

1. ``publish`` returns when the other side has everything, and not before: not while that is away.
2. Each stream's changes come in their order, each at least once. Whatever comes again, the newest one comes last.
3. After an interruption it goes on by itself, and ``connected(False)`` and ``connected(True)`` tell.
4. What was being published when the call was cancelled is published again by the next one, under rule 2.
5. What the other side will never have is returned, and holds up nothing that was published with it.
6. Another object, as after a start, goes on where the one before ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from hs_stream.core.errors import LawViolation
from hs_stream.core.stream import StreamId
from hs_stream.engine.ports import Change, Publication, Sink

__all__ = ["SinkHarness", "check_sink"]

_QUIET_SECONDS = 0.3
_PATIENCE = 30.0
_START = 1_600_000_000_000
_STREAMS = ("one", "two", "three")

Message = tuple[str, int, int]


class SinkHarness(Protocol):
    """What the suite needs from the author of a sink."""

    options: Mapping[str, Any]
    """What stands under ``publish`` for the nodes that it publishes."""

    def make(self) -> Sink:
        """A new sink object with the same identity as every other one of this harness."""

    async def received(self) -> Sequence[Message]:
        """``(stream, time, revision)`` of each message that the other side has had by now, from the first on.

        The stream as text, as in ``str(publication.stream)``.
        """

    async def interrupt(self) -> None:
        """Take the other side away. Return when nothing can be confirmed any more."""

    async def resume(self) -> None:
        """Bring it back."""

    def unwanted(self, good: Publication) -> Publication | None:
        """``good``, changed so that the other side will never have it; ``None`` where it has everything."""


class _Run:
    """One run of a sink."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.states: list[bool] = []
        self._changed = asyncio.Event()

    def connected(self, state: bool) -> None:
        self.states.append(state)
        self._changed.set()

    async def until(self, state: bool, since: int = 0) -> None:
        """Return when `connected` was called with ``state``, after the first ``since`` calls."""
        try:
            async with asyncio.timeout(_PATIENCE):
                while state not in self.states[since:]:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise LawViolation(
                f"sink: connected({state}) was not called within {_PATIENCE:g} s: {self.states}"
            ) from None


class _Check:
    def __init__(self, harness: SinkHarness) -> None:
        self.harness = harness
        self.sent: dict[str, list[Message]] = {}
        self._time = _START

    def publications(self, rounds: int) -> list[Publication]:
        """One of each stream, ``rounds`` times; each third one corrects the one before."""
        made = []
        for number in range(rounds):
            correction = number % 3 == 2
            self._time += 0 if correction else 1000
            for stream in _STREAMS:
                change = Change(self._time, "revise" if correction else "insert", float(number), int(correction))
                made.append(
                    Publication(StreamId(stream), "check", (), "check@1.0.0", change, True, self.harness.options)
                )
        self._time += 1000
        return made

    def note(self, publications: Sequence[Publication]) -> None:
        """They are to be there from now on."""
        for one in publications:
            name = str(one.stream)
            self.sent.setdefault(name, []).append((name, one.change.time, one.change.revision))

    async def compare(self, when: str) -> None:
        """Rules 1 and 2."""
        received = await self.harness.received()
        for stream, wanted in self.sent.items():
            got = [message for message in received if message[0] == stream]
            first = list(dict.fromkeys(got))
            if missing := [message for message in wanted if message not in set(got)]:
                raise LawViolation(f"sink: {when}: confirmed, and not there: {missing[:3]} ({len(missing)} of them)")
            _require(first == wanted, f"{when}: {stream} came in another order: {first[:5]}... ({len(first)})")
            _require(got[-1] == wanted[-1], f"{when}: the last message of {stream} is {got[-1]}, an older one")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[_Run]:
        run = _Run(self.harness.make())
        task = asyncio.create_task(run.sink.run(run.connected), name="sink under test")
        try:
            await run.until(True)
            yield run
        finally:
            if task.done() and not task.cancelled() and task.exception() is not None:
                task.result()
            _require(not task.done(), "run() returned before it was cancelled")
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def publish(self, run: _Run, publications: Sequence[Publication]) -> None:
        """Publish what the other side takes."""
        refused = await _patiently(run.sink.publish(publications), "publish() did not return")
        _require(not refused, f"what the other side takes was refused: {refused}")
        self.note(publications)


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise LawViolation(f"sink: {text}")


async def _patiently(call: Any, text: str) -> Any:
    try:
        async with asyncio.timeout(_PATIENCE):
            return await call
    except TimeoutError:
        raise LawViolation(f"sink: {text} within {_PATIENCE:g} s") from None


async def check_sink(harness: SinkHarness, *, many: int = 1_000) -> None:
    """Run the whole suite; `LawViolation` says what does not hold. About ``many`` changes of each stream are published.

    Not for a `Mirror`, which promises less.
    """
    sink, other = harness.make(), harness.make()
    _require(bool(sink.name) and sink.name == other.name, "its name is not the same each time")
    _require(sink.forgets_ms >= 0, "forgets_ms is negative")
    check = _Check(harness)
    async with check.running() as run:
        await _check_order(check, run, many)
        await _check_refusal(check, run)
        await _check_interruption(check, run)
        await _check_cancellation(check, run)
    async with check.running() as run:
        await check.publish(run, check.publications(3))
        await check.compare("after a restart")


async def _check_order(check: _Check, run: _Run, many: int) -> None:
    await check.publish(run, [])
    for rounds in (1, 2, many):
        await check.publish(run, check.publications(rounds))
        await check.compare("when publish() had returned")


async def _check_refusal(check: _Check, run: _Run) -> None:
    good = check.publications(2)
    unwanted = check.harness.unwanted(check.publications(1)[0])
    if unwanted is None:
        return
    together = [*good[:2], unwanted, *good[2:]]
    refused = await _patiently(run.sink.publish(together), "what the other side will not have held the others up")
    found = [one.publication for one in refused or ()]
    _require(found == [unwanted], f"one publication was to be returned, and {len(found)} were")
    _require(bool(refused[0].reason and refused[0].message), "what was refused has no reason or no message")
    check.note(good)
    await check.compare("with one that was refused")


async def _check_interruption(check: _Check, run: _Run) -> None:
    since = len(run.states)
    await check.harness.interrupt()
    waiting = check.publications(30)
    task = asyncio.create_task(check.publish(run, waiting), name="publishing")
    await asyncio.sleep(_QUIET_SECONDS)
    _require(not task.done(), "publish() returned while the other side was away")
    await check.harness.resume()
    await task
    await check.compare("after an interruption")
    await run.until(False, since)
    await run.until(True, since + 1)


async def _check_cancellation(check: _Check, run: _Run) -> None:
    await check.harness.interrupt()
    waiting = check.publications(30)
    task = asyncio.create_task(run.sink.publish(waiting), name="publishing")
    await asyncio.sleep(_QUIET_SECONDS)
    task.cancel()
    await asyncio.wait({task}, timeout=_PATIENCE)
    _require(task.cancelled(), "publish() went on when it was cancelled")
    await check.harness.resume()
    await check.publish(run, [*waiting, *check.publications(3)])
    await check.compare("after a call that was cancelled")
