"""A real Prometheus with config/prometheus.yml scrapes the service and answers a query."""

from __future__ import annotations

import json
import os
import shutil
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
READINGS = 25

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])) is None,
    reason="prometheus is not installed",
)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_prometheus_answers_for_the_service(
    parts: Any, tmp_path: Path, free_ports: Callable[[], int], waiting: Callable[..., Any]
) -> None:
    broker = parts.mosquitto()
    service = parts.service()
    workflow = ROOT / "config" / "workflows" / "occupancy.yaml"
    service.configure(workflows=[workflow], broker=broker.url, store="sqlite:///occupancy.db")
    service.start()
    base = time.time_ns() // 1_000_000 - 60_000
    broker.publish(*[("sensors/lab/office", b'{"ts": %d, "CO2": 700.5}' % (base + index)) for index in range(READINGS)])
    broker.publish(("sensors/lab/office", b"{"))
    service.settle(READINGS)

    text = (ROOT / "config" / "prometheus.yml").read_text(encoding="utf-8")
    assert text.count("127.0.0.1:8080") == 1
    config = tmp_path / "prometheus.yml"
    config.write_text(text.replace("127.0.0.1:8080", f"127.0.0.1:{service.port}"), encoding="utf-8")
    port = free_ports()
    parts.program(
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )

    def query(text: str) -> list[tuple[dict[str, str], float]]:
        url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": text})
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                found = json.load(answer)
        except OSError:
            return []
        assert found["status"] == "success"
        return [(item["metric"], float(item["value"][1])) for item in found["data"]["result"]]

    [(labels, value)] = waiting(lambda: query("hs_readings_total"), "Prometheus has scraped", 40)
    assert (labels["job"], labels["source"], value) == ("hs_stream", "office", READINGS)
    assert labels["instance"] == f"127.0.0.1:{service.port}"
    assert query("up") == [({"__name__": "up", "instance": labels["instance"], "job": "hs_stream"}, 1.0)]
    [(dead, count)] = query("hs_dead_letters_total")
    assert (dead["source"], dead["reason"], count) == ("office", "json", 1)
    wanted = [
        "hs_late_readings_total",
        "hs_instances_written_total",
        "hs_step_seconds_bucket",
        "hs_end_to_end_seconds_count",
        "hs_event_lag_seconds",
        "hs_pending_steps",
        "hs_in_flight_readings",
        "hs_store_seconds_sum",
        "hs_outbox_pending",
        "hs_mqtt_connected",
        "hs_mqtt_reconnects_total",
        "hs_live_subscribers",
    ]
    assert [name for name in wanted if not query(name)] == []
    assert query("histogram_quantile(0.5, sum by (le) (hs_end_to_end_seconds_bucket))")[0][1] > 0
    service.stop()
