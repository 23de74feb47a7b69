"""Metrics: the names that dashboards rely on, and labels that stay bounded."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from hs_stream.core.size import Use
from hs_stream.core.time import MAX_TIME
from hs_stream.engine.engine import EngineStatistics
from hs_stream.engine.ports import DeadLetter
from hs_stream.service.metrics import MAX_LABELS, Samples, ServiceTelemetry


class Figures:
    asked = 0

    def statistics(self) -> EngineStatistics:
        self.asked += 1
        return EngineStatistics(3, 4, 5, 0, 0, 0, 0, 0, 0, 0, True, {"comfort": 1.5}, {"comfort": 2.5})

    def mqtt_connected(self) -> bool:
        return True

    def store_available(self) -> bool:
        return False

    def mqtt_reconnects(self) -> int:
        return 2

    def mqtt_refused(self) -> int:
        return 1

    def live_subscribers(self) -> int:
        return 6

    def ignored(self) -> dict[str, int]:
        return {"climate": 6}

    def remembered(self) -> dict[str, int]:
        return {"plc": 8}

    def missing(self) -> dict[str, int]:
        return {"climate": 1}

    def memory(self) -> dict[str, Use]:
        return {"tails": Use(100, 200, 3)}


def exercised() -> ServiceTelemetry:
    telemetry = ServiceTelemetry()
    telemetry.attach(Figures())
    telemetry.readings("climate", 7)
    telemetry.side_task_failed("mqtt log")
    telemetry.unpublished("not_authorized", 2)
    telemetry.dead_letters([DeadLetter(0, "climate", "json", "broken")])
    telemetry.unkept(3)
    telemetry.late(2)
    telemetry.overwritten("climate", "climate[room=attic]", 1000, 2)
    telemetry.backdated("climate", "climate[room=attic]", 1000, 2000, 4, clocks=False)
    telemetry.written("raw", 7)
    telemetry.forgotten(6)
    telemetry.recomputed("late", 1)
    telemetry.step("sliding_mean", 0.002)
    telemetry.store("append", 0.001)
    telemetry.end_to_end(0.004, 10)
    telemetry.failed("sliding_mean", "smooth", "smooth[room=kitchen]", 0, 1000, 3, "TypeError")
    return telemetry


def test_overwriting_is_in_the_log_once_for_each_source() -> None:
    telemetry = ServiceTelemetry()
    with capture_logs() as logs:
        for source in ("radio", "radio", "climate", "radio"):
            telemetry.overwritten(source, f"{source}[room=a]", 1000, 1)
    assert [(log["source"], log["stream"], log["time"]) for log in logs] == [
        ("radio", "radio[room=a]", "1970-01-01T00:00:01Z"),
        ("climate", "climate[room=a]", "1970-01-01T00:00:01Z"),
    ]
    assert "bind: {device: id}" in logs[0]["event"]


def test_old_readings_are_counted_and_said_once() -> None:
    """`WF-14`. Only where something begins with them."""
    telemetry = ServiceTelemetry()
    with capture_logs() as logs:
        telemetry.backdated("meter", "meter", 1000, 5000, 1, clocks=False)
        for _ in range(2):
            telemetry.backdated("radio", "radio[room=a]", 1000, 5000, 2, clocks=True)
    [log] = logs
    assert (log["time"], log["begin"]) == ("1970-01-01T00:00:01Z", "1970-01-01T00:00:05Z")
    assert "write start: into the workflow or import" in log["event"]
    text = telemetry.exposition().decode()
    assert 'hs_backdated_readings_total{source="radio"} 4.0' in text


def test_what_is_owed_is_shown_by_workflow_and_what_waits_by_sink() -> None:
    """`IE-23`. Of one that owes nothing too: a series that is not there is no zero."""
    telemetry = ServiceTelemetry()
    figures = Figures()
    telemetry.attach(figures)
    assert 'hs_owed_streams{workflow="comfort"} 0.0' in telemetry.exposition().decode()
    some = replace(figures.statistics(), owed={"energy": 3}, pending_by_sink={"mqtt": 0, "jsonl": 7})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "statistics", lambda: some)
        text = telemetry.exposition().decode()
    assert 'hs_owed_streams{workflow="energy"} 3.0' in text
    assert 'hs_sink_pending{sink="jsonl"} 7.0' in text
    assert 'hs_sink_pending{sink="mqtt"} 0.0' in text


def test_a_node_that_goes_on_failing_is_in_the_log_once_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("hs_stream.service.metrics.time.monotonic", lambda: now)
    telemetry = ServiceTelemetry()
    with capture_logs() as logs:
        for error in ("TypeError", "TypeError", "ValueError", "TypeError"):
            for room in ("kitchen", "bath"):
                telemetry.failed("sliding_mean", "smooth", f"smooth[room={room}]", 0, 1000, 2, error)
        assert logs == [
            {
                "event": "a tool failed; hs-stream failed lists where and why",
                "log_level": "warning",
                "node": "smooth",
                "stream": "smooth[room=kitchen]",
                "interval": "(1970-01-01T00:00:00Z, 1970-01-01T00:00:01Z]",
                "instants": 2,
                "error": error,
            }
            for error in ("TypeError", "ValueError")
        ]
        now = 3600.0
        telemetry.failed("sliding_mean", "smooth", "smooth[room=bath]", 1000, MAX_TIME, 1, "TypeError")
        assert (logs[-1]["stream"], logs[-1]["interval"]) == ("smooth[room=bath]", "(1970-01-01T00:00:01Z, inf]")
        assert logs[-1]["instants"] == 2 * 5 + 1, "with all that the log did not say since"
        telemetry.attach(Figures())
        telemetry.failed("sliding_mean", "smooth", "smooth[room=bath]", 1000, 2000, 1, "TypeError")
        assert len(logs) == 4, "a new generation says it anew"
        for number in range(3 * MAX_LABELS):
            telemetry.failed("sliding_mean", "smooth", "smooth[room=bath]", 1000, 2000, 1, f"Error{number}")
        assert len(logs) == 4 + MAX_LABELS


@pytest.mark.parametrize(
    "sample",
    [
        'hs_readings_total{source="climate"} 7.0',
        'hs_dead_letters_total{reason="json",source="climate"} 1.0',
        "hs_late_readings_total 2.0",
        'hs_overwritten_readings_total{source="climate"} 2.0',
        'hs_instances_written_total{kind="raw"} 7.0',
        "hs_forgotten_instances_total 6.0",
        'hs_recomputed_instances_total{cause="late"} 1.0',
        'hs_step_seconds_count{tool="sliding_mean"} 1.0',
        'hs_store_seconds_count{operation="append"} 1.0',
        "hs_end_to_end_seconds_count 1.0",
        'hs_event_lag_seconds{workflow="comfort"} 1.5',
        "hs_pending_steps 3.0",
        "hs_in_flight_readings 4.0",
        "hs_outbox_pending 5.0",
        "hs_mqtt_connected 1.0",
        "hs_store_available 0.0",
        "hs_mqtt_reconnects_total 2.0",
        "hs_mqtt_refused_subscriptions 1.0",
        'hs_side_task_failures_total{task="mqtt log"} 1.0',
        'hs_unpublished_total{reason="not_authorized"} 2.0',
        "hs_live_subscribers 6.0",
        'hs_ignored_messages_total{source="climate"} 6.0',
        'hs_missing_fields{source="climate"} 1.0',
        'hs_codec_entries{source="plc"} 8.0',
        'hs_memory_bytes{what="tails"} 100.0',
        'hs_memory_limit_bytes{what="tails"} 200.0',
        'hs_memory_forgotten_total{what="tails"} 3.0',
        'hs_backdated_readings_total{source="climate"} 4.0',
    ],
)
def test_every_metric_by_its_name(sample: str) -> None:
    assert re.search(rf"^{re.escape(sample)}$", exercised().exposition().decode(), re.MULTILINE)


def test_all_metrics_have_the_prefix_and_a_description() -> None:
    families = list(text_string_to_metric_families(exercised().exposition().decode()))
    assert len(families) >= 15
    assert all(family.name.startswith("hs_") and family.documentation for family in families)


def test_label_values_are_bounded() -> None:
    telemetry = ServiceTelemetry()
    for number in range(10 * MAX_LABELS):
        telemetry.readings(f"source{number}", 1)
        telemetry.dead_letters([DeadLetter(0, f"source{number}", f"reason{number}", "broken")])
    text = telemetry.exposition().decode()
    assert len(re.findall(r"^hs_readings_total", text, re.MULTILINE)) == MAX_LABELS + 1
    assert f'hs_readings_total{{source="other"}} {9 * MAX_LABELS}.0' in text


def test_two_services_do_not_mix() -> None:
    first, second = ServiceTelemetry(), ServiceTelemetry()
    first.late(1)
    assert "hs_late_readings_total 0.0" in second.exposition().decode()


def test_percentiles_of_the_latest_samples() -> None:
    samples = Samples(size=100)
    assert samples.percentile(50) is None
    for number in range(1, 201):
        samples.add(float(number), 1)
    assert samples.percentile(50) == 150.0
    assert samples.percentile(99) == 199.0
    samples.clear()
    assert samples.percentile(99) is None


def test_a_scrape_looks_at_the_streams_once() -> None:
    telemetry, figures = ServiceTelemetry(), Figures()
    telemetry.attach(figures)
    figures.asked = 0
    text = telemetry.exposition().decode()
    assert figures.asked == 1
    assert 'hs_event_lag_seconds{workflow="comfort"} 1.5' in text
    assert 'hs_watermark_seconds{workflow="comfort"} 2.5' in text
