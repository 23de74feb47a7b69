"""What one append and one commit cost in MongoDB: ``python -m benchmarks.store [--rounds 5] [--commands]``.

On a replica set of one and on a standalone mongod, each started for it: the median of the milliseconds of an append of
one reading and of a commit of one result, and documents a second in appends of 1,000. Rounds are told apart, so that
two versions can take turns. ``--commands`` lists what is sent for one of each instead, with the server's milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable

from pymongo import monitoring

from hs_stream.core.batch import Batch
from hs_stream.core.stream import StreamId
from hs_stream.core.time import TimeIntervals
from hs_stream.engine.ports import Append, Commit, Store, StreamChange, StreamRecord
from hs_stream.service.embedded.mongod import EmbeddedMongod
from hs_stream.store.mongo import MongoStore

RAW, OUT = 1, 2
SMALL, LARGE, MANY = 300, 20, 1_000


class Commands(monitoring.CommandListener):
    """What is sent."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None: ...

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        self.sent.append(f"{event.command_name} {event.duration_micros / 1000:.2f}")

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        self.sent.append(f"{event.command_name} failed")


class Writing:
    """One store, with what comes next in it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.appended = self.committed = self.at = 0

    async def begin(self) -> None:
        """Open it, and write once."""
        await self.store.claim("benchmark", 3_600_000)
        self.committed = (await self.store.open()).commit_seq
        await self.store.sinks(["benchmark"])
        await self.store.register(
            [
                StreamRecord(RAW, StreamId("raw"), "raw"),
                StreamRecord(OUT, StreamId("out"), "derived"),
            ]
        )
        await self.append(1)
        await self.commit(1)

    def batch(self, count: int) -> Batch:
        """The next ``count`` instances."""
        self.at += count
        return Batch.of([(self.at - count + i + 1, float(i)) for i in range(count)])

    async def append(self, count: int) -> None:
        """An append of ``count`` readings."""
        self.appended += 1
        await self.store.append(Append(self.appended, [(RAW, self.batch(count))]))

    async def commit(self, count: int) -> None:
        """A commit of ``count`` results."""
        self.committed += 1
        change = StreamChange(OUT, TimeIntervals.of(0, self.at), self.at, inserted=self.batch(count), publish=True)
        await self.store.commit(Commit(self.committed, [change], self.appended, self.at))
        await self.store.published("benchmark", self.committed)


async def median(work: Callable[[int], Awaitable[None]], count: int, times: int) -> float:
    """Milliseconds of ``work(count)``."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        await work(count)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1000


async def measure(kind: str, rounds: int) -> None:
    """Print one line a round."""
    with tempfile.TemporaryDirectory(prefix="hs-stream-benchmark-") as directory:
        mongod = EmbeddedMongod(directory, replica_set="hs" if kind == "replica" else None)
        await mongod.start()
        try:
            for number in range(rounds):
                writing = Writing(MongoStore(mongod.database_url(f"round_{number}")))
                await writing.begin()
                append, commit = await median(writing.append, 1, SMALL), await median(writing.commit, 1, SMALL)
                large = await median(writing.append, MANY, LARGE)
                print(
                    f"{kind:10} append {append:6.2f} ms  commit {commit:6.2f} ms  {MANY / large * 1000:9,.0f} docs/s",
                    flush=True,
                )
                await writing.store.close()
        finally:
            await mongod.stop()


async def commands(kind: str) -> None:
    """Print what is sent."""
    with tempfile.TemporaryDirectory(prefix="hs-stream-benchmark-") as directory:
        mongod = EmbeddedMongod(directory, replica_set="hs" if kind == "replica" else None)
        await mongod.start()
        listener = Commands()
        monitoring.register(listener)
        try:
            writing = Writing(MongoStore(mongod.database_url("commands"), checkpoint_seconds=3600))
            await writing.begin()
            for name, work, count in (
                ("append", writing.append, 1),
                ("commit", writing.commit, 1),
                ("append", writing.append, MANY),
                ("commit", writing.commit, MANY),
            ):
                await work(count)
                listener.sent.clear()
                await work(count)
                print(f"{kind:10} {name} of {count:5}: {', '.join(listener.sent)}", flush=True)
            await writing.store.close()
        finally:
            await mongod.stop()


async def main() -> None:
    """As the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--commands", action="store_true")
    parser.add_argument("--only", choices=["replica", "standalone"])
    options = parser.parse_args()
    for kind in ("replica", "standalone"):
        if options.only in (None, kind):
            await (commands(kind) if options.commands else measure(kind, options.rounds))


if __name__ == "__main__":
    asyncio.run(main())
