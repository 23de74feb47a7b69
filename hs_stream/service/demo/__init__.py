"""``hs-stream demo``: a broker, a store, a simulated house and the service, and at the end a balance.

The balance compares three independent accounts: what the simulator knows to have sent (and the broker to have
confirmed), what is in the store, and what an evaluation from scratch gives.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table

from hs_stream.core.time import MAX_TIME, MIN_TIME
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.service.app import Service, loop_factory
from hs_stream.service.embedded.broker import EmbeddedBroker
from hs_stream.service.http.api import Viewer
from hs_stream.service.logs import configure_logging
from hs_stream.service.settings import HttpSettings, MqttSettings, Settings, StoreSettings
from hs_stream.service.wiring import load_registry
from hs_stream.service.workflows.file import load_workflow
from hs_stream.service.workflows.loading import checks_of
from hs_stream.testing.oracle import Verification, verify
from hs_stream_connectors.simulator import HouseSimulator, SimulatorStatistics

__all__ = ["run_demo"]

_PORT: Final = 8080
_HISTORY: Final = "10m"
_SETTLE_SECONDS: Final = 20.0
_BACKLOG_SECONDS: Final = 5.0
_TICK_SECONDS: Final = 0.5
_LINE_EVERY: Final = 10.0
_LETTERS: Final = 100_000
_WHY: Final = {
    "future": "expected: the clock of the sensor in the garden is an hour ahead",
    "json": "expected: a payload is cut off now and then",
}


def run_demo(
    seconds: float | None, port: int | None, data: Path | None, *, debug: bool = False, viewer: Viewer | None = None
) -> int:
    """Run for ``seconds``, or until Ctrl-C; the exit code: 0 when nothing is lost and `verify` is clean, else 1.

    ``port`` ``None``: 8080, or a free one where that is taken. ``data`` ``None``: a directory that is removed again.
    """
    configure_logging("info" if debug else "error")
    place = nullcontext(str(data)) if data else tempfile.TemporaryDirectory(prefix="hs-stream-demo-")
    with place as directory, asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_demo(Path(directory), seconds, _free(_PORT) if port is None else port, viewer))


def _free(port: int) -> int:
    """``port`` when nobody listens there, else 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port


@dataclass(slots=True)
class _Balance:
    """What the demo ends with."""

    sent: SimulatorStatistics
    stored: dict[str, int]
    letters: Counter[str]
    verification: Verification
    problems: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """Instances that the house sent and the store does not have."""
        return sum(max(count - self.stored.get(source, 0), 0) for source, count in self.sent.instances.items())

    @property
    def doubled(self) -> int:
        """Instances that are in the store and were not sent. A message that was sent twice may be two for co2."""
        surplus = sum(max(count - self.sent.instances.get(source, 0), 0) for source, count in self.stored.items())
        return max(surplus - self.sent.retries, 0)

    @property
    def good(self) -> bool:
        return not self.lost and not self.doubled and self.verification.clean and not self.problems


async def _demo(directory: Path, seconds: float | None, port: int, viewer: Viewer | None) -> int:
    console = Console()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with EmbeddedBroker(directory / "broker") as broker:
        base = Settings()
        settings = base.model_copy(
            update={
                "store": StoreSettings(url="embedded://", data_dir=str(directory / "store")),
                "mqtt": MqttSettings(url=broker.url, client_id="hs-stream-demo"),
                "http": HttpSettings(port=port),
            }
        )
        service = Service(settings, [_workflow(settings)], viewer=viewer)
        async with _running(service):
            before = await _stored(service)
            history = 0 if sum(before.values()) else _HISTORY
            simulator = HouseSimulator(broker.url, seed=time.time_ns() % 1_000_000, history=history)
            _announce(console, service, broker, seconds)
            await _live(console, service, simulator, stop, seconds)
            balance = await _settle(service, simulator, before)
            lag = [service.telemetry.end_to_end_samples.percentile(percent) for percent in (50, 99)]
            _summary(console, service, balance, lag)
    return 0 if balance.good else 1


def _workflow(settings: Settings) -> WorkflowDefinition:
    with as_file(files(__package__).joinpath("house.yaml")) as path:
        return load_workflow(path, load_registry(settings), checks_of(settings))


@asynccontextmanager
async def _running(service: Service) -> AsyncIterator[None]:
    """The service while the block runs. What ends the service's start is raised here."""
    task = asyncio.create_task(service.run(), name="service")
    started = asyncio.create_task(service.started.wait(), name="service has started")
    await asyncio.wait((task, started), return_when=asyncio.FIRST_COMPLETED)
    started.cancel()
    if task.done():
        task.result()
    try:
        yield
    finally:
        service.stop()
        await task


async def _live(
    console: Console, service: Service, simulator: HouseSimulator, stop: asyncio.Event, seconds: float | None
) -> None:
    """Let the house live, and show how it goes, until ``stop`` or for ``seconds``."""
    began = time.monotonic()
    task = asyncio.create_task(simulator.run(), name="simulator")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    said = 0.0
    backlog = True
    try:
        with (
            Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else nullcontext() as live
        ):
            while not stop.is_set() and not task.done():
                elapsed = time.monotonic() - began
                if seconds is not None and elapsed >= seconds:
                    break
                left = _TICK_SECONDS if seconds is None else min(_TICK_SECONDS, seconds - elapsed)
                await asyncio.wait((task, stopping), timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if backlog and elapsed >= _BACKLOG_SECONDS:
                    # The history comes as fast as it can: how long that waits says nothing about a live house.
                    service.telemetry.end_to_end_samples.clear()
                    backlog = False
                line = _line(service, elapsed)
                if live is not None:
                    live.update(line, refresh=True)
                elif elapsed - said >= _LINE_EVERY:
                    said = elapsed
                    console.print(line, highlight=False, soft_wrap=True)
    finally:
        stopping.cancel()
        simulator.stop()
        await task


def _line(service: Service, elapsed: float) -> str:
    statistics = service.engine.statistics()
    lag = service.telemetry.end_to_end_samples.percentile(50)
    return (
        f"{elapsed:4.0f} s   readings in {statistics.readings:,}   results {statistics.results:,}   "
        f"published {statistics.published:,}   lag {_milliseconds(lag)}   streams {statistics.streams}"
    )


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms"


async def _stored(service: Service) -> dict[str, int]:
    """Instances of raw streams, by source."""
    counts: Counter[str] = Counter()
    for status in service.engine.status():
        if status.kind == "raw":
            counts[status.node] += await service.store.count(status.id, MIN_TIME, MAX_TIME)
    return dict(counts)


async def _settle(service: Service, simulator: HouseSimulator, before: dict[str, int]) -> _Balance:
    """Wait until everything that was sent is there and published, then draw the balance."""
    sent = simulator.statistics()
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        await service.engine.settle()
        now = await _stored(service)
        stored = {source: count - before.get(source, 0) for source, count in now.items()}
        statistics = service.engine.statistics()
        complete = all(stored.get(source, 0) >= count for source, count in sent.instances.items())
        complete &= statistics.dead_letters >= sum(sent.dead_letters.values()) and not statistics.outbox_pending
        if complete or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.1)
    letters = Counter(
        letter.reason for letter in await service.store.dead_letters(min(statistics.dead_letters, _LETTERS))
    )
    balance = _Balance(sent, stored, letters, Verification())
    for _ in range(3):
        balance.verification = await verify(service.store, service.workflows, MIN_TIME, MAX_TIME)
        if balance.verification.clean:
            break
        await asyncio.sleep(1.0)
    for reason, count in letters.items():
        if not sent.retries and count != sent.dead_letters.get(reason, 0):
            balance.problems.append(
                f"{count} dead letters ({reason}), but {sent.dead_letters.get(reason, 0)} were sent"
            )
    if statistics.outbox_pending:
        balance.problems.append(f"{statistics.outbox_pending} results are not published")
    return balance


def _announce(console: Console, service: Service, broker: EmbeddedBroker, seconds: float | None) -> None:
    console.print(
        f"HTTP     {service.url}/   {service.url}/docs   {service.url}/metrics", highlight=False, soft_wrap=True
    )
    console.print(
        f"MQTT     {broker.url}   try: mosquitto_sub -p {broker.port} -t 'hs/#' -v", highlight=False, soft_wrap=True
    )
    console.print(f"store    {service.store.name}", highlight=False, soft_wrap=True)
    console.print(
        f"runs for {seconds:g} s" if seconds is not None else "runs until Ctrl-C", highlight=False, soft_wrap=True
    )


def _found(verification: Verification) -> str:
    if verification.clean:
        return "clean"
    return f"{verification.count} differ, {len(verification.missing)} streams incomplete"


def _summary(console: Console, service: Service, balance: _Balance, lag: list[float | None]) -> None:
    statistics = service.engine.statistics()
    table = Table("summary", "", "", box=SIMPLE_HEAD, pad_edge=False)
    instances = sum(balance.sent.instances.values())
    again = sum(balance.sent.readings.values()) - instances
    rows: list[tuple[str, str, str]] = [
        ("readings in", f"{statistics.readings:,}", ", ".join(f"{k} {v:,}" for k, v in balance.sent.readings.items())),
        ("results out", f"{statistics.published:,}", f"of {statistics.results:,} computed: those of published nodes"),
        ("late", f"{statistics.late:,}", "below the watermark; what they changed was computed again"),
        *(
            (f"dead: {reason}", f"{count:,}", _WHY.get(reason, "not expected"))
            for reason, count in balance.letters.items()
        ),
        ("lag p50", _milliseconds(lag[0]), "arrival to published, without the history at the beginning"),
        ("lag p99", _milliseconds(lag[1]), ""),
        (
            "lost",
            f"{balance.lost:,}",
            f"of {instances:,} instances sent; readings that repeat or correct one: {again:,}",
        ),
        ("doubled", f"{balance.doubled:,}", ""),
        (
            "verify",
            _found(balance.verification),
            f"{balance.verification.instances:,} instances of {balance.verification.streams} streams from scratch",
        ),
    ]
    for row in rows:
        table.add_row(*row)
    (console if console.is_terminal else Console(width=160)).print(table)
    for mismatch in balance.verification.mismatches[:5]:
        console.print(f"  {mismatch}", markup=False, highlight=False, soft_wrap=True)
    for problem in balance.problems:
        console.print(f"  {problem}", markup=False, highlight=False, soft_wrap=True)
