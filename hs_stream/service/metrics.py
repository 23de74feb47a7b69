"""What the service shows to Prometheus: `ServiceTelemetry` counts, gauges are read from the engine at scrape time.

1. All names begin with ``hs_``; every service has a registry of its own, so two in one process do not mix.
2. Label values are bounded: of each label the first `MAX_LABELS` values keep their own series, the rest are ``other``.
3. Label children are kept, never looked up through the client library per call.
4. A scrape is answered on the event loop, which alone changes the engine: in a thread it would fail while a room joins.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Protocol

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

from hs_stream.core.size import Use
from hs_stream.core.time import TimeInterval, format_time
from hs_stream.engine.engine import EngineStatistics
from hs_stream.engine.ports import DeadLetter
from hs_stream.engine.telemetry import Telemetry
from hs_stream.service.accounts import Accounts

__all__ = ["CONTENT_TYPE", "MAX_LABELS", "Gauges", "ServiceTelemetry"]

logger = structlog.get_logger(__name__)

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
MAX_LABELS: Final = 200
OTHER: Final = "other"

_SAID_AGAIN: Final = 3600.0
"""Seconds for which a node that goes on failing with the same type of error is not in the log again."""
_STEP_BUCKETS: Final = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0)
_END_TO_END_BUCKETS: Final = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0),
)


class Gauges(Protocol):
    """What a scrape asks for, each once. ``ignored``, ``remembered`` and ``missing`` are per source."""

    def statistics(self) -> EngineStatistics: ...
    def mqtt_connected(self) -> bool: ...
    def store_available(self) -> bool: ...
    def mqtt_reconnects(self) -> int: ...
    def mqtt_refused(self) -> int: ...
    def live_subscribers(self) -> int: ...
    def ignored(self) -> dict[str, int]: ...
    def remembered(self) -> dict[str, int]: ...
    def missing(self) -> dict[str, int]: ...
    def memory(self) -> dict[str, Use]: ...


class _Bounded:
    """Words as label values, at most `MAX_LABELS` of them."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def __call__(self, word: str) -> str:
        if word in self._known:
            return word
        if len(self._known) >= MAX_LABELS:
            return OTHER
        self._known.add(word)
        return word


class ServiceTelemetry(Telemetry):
    """Counts into ``registry``, and per source into ``accounts``. `exposition` is the text that ``/metrics`` serves."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=True)
        self.accounts = Accounts()
        self._sources, self._reasons, self._tools, self._operations = _Bounded(), _Bounded(), _Bounded(), _Bounded()
        self._readings = self._counter("readings", "Readings stored, repeats included", "source")
        self._dead = self._counter("dead_letters", "What could not be used", "source", "reason")
        self._live_ended = self._counter("live_ended", "Live subscriptions that ended", "reason")
        self._overwritten = self._counter(
            "overwritten_readings", "Readings replaced by another value of the same time", "source"
        )
        self._backdated = self._counter(
            "backdated_readings", "Readings too old to say where nodes without inputs begin", "source"
        )
        self._side_failures = self._counter("side_task_failures", "Failures of what never ends the service", "task")
        self._unpublished = self._counter("unpublished", "Results that could not be published", "reason")
        self._unkept = self._counter("unkept_dead_letters", "Dead letters that were counted and not kept")
        self._late = self._counter("late_readings", "Readings below the watermark of their stream")
        self._written = self._counter("instances_written", "Instances written", "kind")
        self._forgotten = self._counter("forgotten_instances", "Instances removed by retention")
        self._recomputed = self._counter("recomputed_instances", "Derived instances evaluated again", "cause")
        self._failed = self._counter("failed_steps", "Instants at which a tool raised", "tool")
        self._store_errors = self._counter(
            "store_errors", "Store operations that failed, to be tried again", "operation"
        )
        self._log_dropped = self._counter("log_records_dropped", "Log records that did not get onto logging.mqtt_topic")
        self._step = self._histogram("step_seconds", "One evaluation of a tool", _STEP_BUCKETS, "tool")
        self._store = self._histogram("store_seconds", "One store operation", _STEP_BUCKETS, "operation")
        self._end_to_end = self._histogram("end_to_end_seconds", "From arrival to published", _END_TO_END_BUCKETS)
        self._said: dict[tuple[str, str], tuple[float, int]] = {}
        """When the log last said that a node failed with a type of error, and how many instants have failed since."""
        self._collector: _GaugeCollector | None = None
        self._count_of: dict[tuple[str, ...], Counter] = {}
        self._histogram_of: dict[tuple[str, str], Histogram] = {}
        self.end_to_end_samples = Samples()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace="hs", registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, namespace="hs", buckets=buckets, registry=self.registry)

    def attach(self, gauges: Gauges) -> None:
        """Serve these gauges too, instead of those before; a new generation begins."""
        self._said.clear()
        self.accounts.begin(gauges.ignored)
        if self._collector is None:
            self._collector = _GaugeCollector(gauges)
            self.registry.register(self._collector)
        self._collector.gauges = gauges

    def exposition(self) -> bytes:
        """The text format of Prometheus, `CONTENT_TYPE`. On the loop of the engine (rule 4)."""
        return generate_latest(self.registry)

    # --- Telemetry ---

    def readings(self, source: str, count: int) -> None:
        child = self._count_of.get(("readings", source))
        if child is None:
            child = self._keep(("readings", source), self._readings.labels(self._sources(source)))
        child.inc(count)
        self.accounts.readings(source, count)

    def dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            key = ("dead", letter.source, letter.reason)
            child = self._count_of.get(key)
            if child is None:
                labels = self._dead.labels(self._sources(letter.source), self._reasons(letter.reason))
                child = self._keep(key, labels)
            child.inc(letter.count)
        self.accounts.dead_letters(letters)

    def unkept(self, count: int) -> None:
        self._unkept.inc(count)

    def store_failed(self, operation: str, error: str, *, first: bool) -> None:
        child = self._count_of.get(("store_errors", operation))
        if child is None:
            child = self._keep(("store_errors", operation), self._store_errors.labels(self._operations(operation)))
        child.inc()
        if first:
            logger.warning("the store fails; trying again until it answers", operation=operation, error=error)

    def store_back(self) -> None:
        logger.info("the store answers again")

    def backend_failed(self, error: str, *, first: bool) -> None:
        if first:
            logger.warning("a step is broken off; trying again until it is done", error=error)

    def live_ended(self, reason: str) -> None:
        """A live subscription ended; ``reason`` is one of few words."""
        self._live_ended.labels(reason).inc()

    def side_task_failed(self, task: str) -> None:
        """A side task failed and is started again; ``task`` is one of few words."""
        self._side_failures.labels(task).inc()

    def unpublished(self, reason: str, count: int) -> None:
        self._unpublished.labels(self._reasons(reason)).inc(count)

    def late(self, count: int) -> None:
        self._late.inc(count)

    def backdated(self, source: str, stream: str, time: int, since: int, count: int, *, clocks: bool) -> None:
        child = self._count_of.get(("backdated", source))
        if child is None:
            child = self._keep(("backdated", source), self._backdated.labels(self._sources(source)))
            if clocks:
                logger.warning(
                    "a reading is older than watermark.backdate: nodes without inputs do not begin with it; if its "
                    "clock is right, write start: into the workflow or import the readings of that time; said once for "
                    "each source, hs_backdated_readings_total counts",
                    source=source,
                    stream=stream,
                    time=format_time(time),
                    begin=format_time(since),
                )
        child.inc(count)

    def overwritten(self, source: str, stream: str, time: int, count: int) -> None:
        child = self._count_of.get(("overwritten", source))
        if child is None:
            child = self._keep(("overwritten", source), self._overwritten.labels(self._sources(source)))
            logger.warning(
                "a reading was overwritten by another value of the same time; if both are not of one device, give each "
                "device a stream of its own ({device} in the topic, or bind: {device: id}), else finer times; said "
                "once for each source, hs_overwritten_readings_total counts",
                source=source,
                stream=stream,
                time=format_time(time),
            )
        child.inc(count)

    def written(self, kind: str, count: int) -> None:
        child = self._count_of.get(("written", kind))
        if child is None:
            child = self._keep(("written", kind), self._written.labels(kind))
        child.inc(count)

    def forgotten(self, count: int) -> None:
        self._forgotten.inc(count)

    def recomputed(self, cause: str, count: int) -> None:
        child = self._count_of.get(("recomputed", cause))
        if child is None:
            child = self._keep(("recomputed", cause), self._recomputed.labels(cause))
        child.inc(count)

    def step(self, tool: str, seconds: float) -> None:
        child = self._histogram_of.get(("step", tool))
        if child is None:
            child = self._step.labels(self._tools(tool))
            self._keep_histogram(("step", tool), child)
        child.observe(seconds)

    def store(self, operation: str, seconds: float) -> None:
        child = self._histogram_of.get(("store", operation))
        if child is None:
            child = self._store.labels(self._operations(operation))
            self._keep_histogram(("store", operation), child)
        child.observe(seconds)

    def end_to_end(self, seconds: float, count: int) -> None:
        self._end_to_end.observe(seconds)
        self.end_to_end_samples.add(seconds, count)

    def failed(self, tool: str, node: str, stream: str, start: int, end: int, count: int, error: str) -> None:
        child = self._count_of.get(("failed", tool))
        if child is None:
            child = self._keep(("failed", tool), self._failed.labels(self._tools(tool)))
        child.inc(count)
        # One bad device fails at every reading, and one bad tool in every room.
        key = (node, error) if (node, error) in self._said or len(self._said) < MAX_LABELS else (OTHER, OTHER)
        now = time.monotonic()
        said, since = self._said.get(key, (-math.inf, 0))
        count += since
        if now - said >= _SAID_AGAIN:
            where = {"node": node, "stream": stream, "interval": str(TimeInterval(start, end)), "instants": count}
            logger.warning("a tool failed; hs-stream failed lists where and why", **where, error=error)
            said, count = now, 0
        self._said[key] = said, count

    def log_dropped(self) -> None:
        """One log record was not published. From any thread."""
        self._log_dropped.inc()

    def _keep(self, key: tuple[str, ...], child: Counter) -> Counter:
        # What shares the series `other` is looked up each time: keeping a child for each would not be bounded.
        if len(self._count_of) < 4 * MAX_LABELS:
            self._count_of[key] = child
        return child

    def _keep_histogram(self, key: tuple[str, str], child: Histogram) -> None:
        if len(self._histogram_of) < 4 * MAX_LABELS:
            self._histogram_of[key] = child


class Samples:
    """The latest ``size`` durations, for percentiles without buckets."""

    def __init__(self, size: int = 20_000) -> None:
        self._size, self._at = size, 0
        self._values: list[float] = []

    def add(self, seconds: float, count: int) -> None:
        """``count`` results took so long; at most 100 of them are kept, so that one step cannot push out all others."""
        for _ in range(min(count, 100)):
            if len(self._values) < self._size:
                self._values.append(seconds)
            else:
                self._values[self._at] = seconds
                self._at = (self._at + 1) % self._size

    def clear(self) -> None:
        """Forget all."""
        self._values.clear()
        self._at = 0

    def percentile(self, percent: float) -> float | None:
        """The sample at rank ``ceil(percent / 100 * n)``, ``None`` without samples."""
        if not self._values:
            return None
        rank = -(-percent * len(self._values) // 100)
        return sorted(self._values)[max(int(rank) - 1, 0)]


class _GaugeCollector(Collector):
    def __init__(self, gauges: Gauges) -> None:
        self.gauges = gauges

    def collect(self) -> Iterator[Metric]:
        gauges = self.gauges
        statistics = gauges.statistics()  # looks at every stream
        simple: tuple[tuple[str, str, float], ...] = (
            (
                "hs_pending_steps",
                "Streams with something owed and available, and those of the step under way",
                statistics.pending_steps,
            ),
            ("hs_in_flight_readings", "Readings taken in but not yet durable", statistics.in_flight_readings),
            ("hs_outbox_pending", "Steps with results that are not published yet", statistics.outbox_pending),
            ("hs_mqtt_connected", "1 while connected to the broker", gauges.mqtt_connected()),
            ("hs_mqtt_refused_subscriptions", "Topics that the broker does not let us read", gauges.mqtt_refused()),
            ("hs_store_available", "0 while the store is away or refuses something", gauges.store_available()),
            ("hs_live_subscribers", "Live subscribers over HTTP", gauges.live_subscribers()),
        )
        for name, text, value in simple:
            yield GaugeMetricFamily(name, text, value=float(value))
        yield CounterMetricFamily(
            "hs_mqtt_reconnects", "Connections to the broker after the first", gauges.mqtt_reconnects()
        )
        ignored = CounterMetricFamily(
            "hs_ignored_messages", "Messages that are neither readings nor errors", labels=["source"]
        )
        for source, count in _first(gauges.ignored()):
            ignored.add_metric([source], count)
        yield ignored
        remembered = GaugeMetricFamily(
            "hs_codec_entries", "What the codec of a source remembers between messages", labels=["source"]
        )
        for source, count in _first(gauges.remembered()):
            remembered.add_metric([source], count)
        yield remembered
        missing = GaugeMetricFamily(
            "hs_missing_fields", "Fields that a source names and no message has had", labels=["source"]
        )
        for source, count in _first(gauges.missing()):
            missing.add_metric([source], count)
        yield missing
        yield from _memory(gauges.memory())
        lag = GaugeMetricFamily("hs_event_lag_seconds", "How far results are behind the clock", labels=["workflow"])
        for workflow, seconds in _first(statistics.lag):
            lag.add_metric([workflow], seconds)
        yield lag
        complete = GaugeMetricFamily(
            "hs_watermark_seconds",
            "How long ago the instant is up to which all raw streams are complete",
            labels=["workflow"],
        )
        for workflow, seconds in _first(statistics.watermark):
            complete.add_metric([workflow], seconds)
        yield complete
        owed = GaugeMetricFamily(
            "hs_owed_streams", "Streams with something owed that waits for live data", labels=["workflow"]
        )
        for workflow, count in _first({**dict.fromkeys(statistics.lag, 0), **statistics.owed}):
            owed.add_metric([workflow], count)
        yield owed
        pending = GaugeMetricFamily("hs_sink_pending", "What hs_outbox_pending is of each sink", labels=["sink"])
        for sink, count in _first(statistics.pending_by_sink):
            pending.add_metric([sink], count)
        yield pending


def _memory(parts: Mapping[str, Use]) -> Iterator[Metric]:
    used = GaugeMetricFamily("hs_memory_bytes", "Bytes held of data whose size others decide", labels=["what"])
    limit = GaugeMetricFamily("hs_memory_limit_bytes", "How many there may be, by [memory]", labels=["what"])
    forgotten = CounterMetricFamily(
        "hs_memory_forgotten", "How often something was forgotten or cut off to keep to it", labels=["what"]
    )
    for what, use in sorted(parts.items()):
        used.add_metric([what], use.used)
        limit.add_metric([what], use.limit)
        forgotten.add_metric([what], use.forgotten)
    yield from (used, limit, forgotten)


def _first(values: Mapping[str, float]) -> list[tuple[str, float]]:
    """Rule 2 for what is read at scrape time."""
    return sorted(values.items())[:MAX_LABELS]
