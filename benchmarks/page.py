"""``python -m benchmarks.page [--instances N] [--runs N]``: how long the page of a stream takes to draw its chart.

A million instances in the last hour, which is what the page opens with, on the embedded store; a real service and a
real headless Chromium. Measured from the request to the chart with points in it, with an empty cache of the browser
(cold) and with a full one (warm). The bar is 2 s.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, sync_playwright

from benchmarks.steady.parts import _environment
from benchmarks.steady.report import machine, save
from hs_stream.service.embedded.child import free_port

_HOUR: Final = 3_600_000
_START_SECONDS: Final = 60.0
_WORKFLOW: Final = 'workflow: page\nsources: {power: {mqtt: "home/power", codec: json, time: {field: ts, unit: ms}}}\n'
_DRAWN: Final = """() => {
  const element = document.querySelector('canvas')?.closest('[id^=c]');
  const option = element && getElement(Number(element.id.slice(1)))?.chart?.getOption();
  return option && option.series[0].data.length;
}"""


def _hs_stream(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "hs_stream.cli", *arguments]


def _fill(directory: Path, instances: int, environment: dict[str, str]) -> None:
    """All but the last tenth of the hour, which may pass until it is looked at."""
    first = time.time_ns() // 1_000_000 - _HOUR * 9 // 10
    step = _HOUR * 8 / 10 / instances
    with (directory / "power.csv").open("w", encoding="utf-8") as file:
        file.write("ts,watts\n")
        file.writelines(f"{first + round(at * step)},{200 + 60 * math.sin(at / 5e4):.2f}\n" for at in range(instances))
    command = _hs_stream("import", "power.csv", "--stream", "power", "--time", "ts")
    subprocess.run(command, cwd=directory, env=environment, check=True, capture_output=True)


@contextlib.contextmanager
def _service(directory: Path, environment: dict[str, str], port: int) -> Iterator[str]:
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(_hs_stream("serve"), cwd=directory, env=environment, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(f"{url}/healthz", timeout=5):
                break
            time.sleep(0.1)
        else:
            raise RuntimeError(f"the service does not answer within {_START_SECONDS:.0f} s")
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _measure(browser: Browser, url: str, runs: int, *, cold: bool) -> list[float]:
    seconds = []
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    for _ in range(runs + 1):  # the first one warms the service, or the cache
        if cold:
            context.close()
            context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        began = time.perf_counter()
        page.goto(f"{url}/stream/power", wait_until="commit")
        page.wait_for_function(_DRAWN, polling=20)
        seconds.append(time.perf_counter() - began)
        page.close()
    context.close()
    return seconds[1:]


def main() -> None:
    """Measure, print, and save to ``benchmarks/results``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    port = free_port()
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        directory = Path(name)
        (directory / "page.yaml").write_text(_WORKFLOW, encoding="utf-8")
        environment = {
            **_environment(),
            "HS_STREAM__WORKFLOWS": '["page.yaml"]',
            "HS_STREAM__STORE__URL": "embedded://",
            "HS_STREAM__STORE__DATA_DIR": "store",
            "HS_STREAM__MQTT__URL": "mqtt://127.0.0.1:1",
            "HS_STREAM__HTTP__PORT": str(port),
        }
        _fill(directory, arguments.instances, environment)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        with _service(directory, environment, port) as url:
            found = {
                "cold": _measure(browser, url, arguments.runs, cold=True),
                "warm": _measure(browser, url, arguments.runs, cold=False),
            }
        browser.close()
    for word, seconds in found.items():
        middle = statistics.median(seconds)
        print(f"{word}: {middle:.2f} s ({min(seconds):.2f} to {max(seconds):.2f}), median of {len(seconds)}")
    where = machine()
    print(json.dumps(where))
    save({"machine": where, "instances": arguments.instances, "seconds": found}, "page")


if __name__ == "__main__":
    main()
