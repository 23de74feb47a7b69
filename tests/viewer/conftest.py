"""The demo as a process, and Debian's chromium driven by Playwright."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright


@dataclass
class Site:
    """A running service with a viewer, the broker that feeds it, and the file with all that the demo says."""

    url: str
    broker_port: int
    log: Path


@dataclass
class Visit:
    """A page, and what a browser found wrong with it."""

    page: Page
    url: str
    problems: list[str] = field(default_factory=list)

    def open(self, path: str, heading: str) -> Page:
        self.page.goto(self.url + path)
        self.page.get_by_role("heading", name=heading, level=1).wait_for()
        return self.page


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("demo") / "out.txt"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "hs_stream.cli", "demo", "--port", str(port)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
        )
        try:
            broker = _wait_for_broker(process, log)
            url = f"http://127.0.0.1:{port}"
            with urllib.request.urlopen(f"{url}/readyz", timeout=10):
                pass
            yield Site(url, broker, log)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for_broker(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = re.search(r"mqtt://127\.0\.0\.1:(\d+)", log.read_text())
        if found:
            return int(found.group(1))
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(f"the demo did not start: {log.read_text()}")


@pytest.fixture(scope="module")  # while it is open, no test of this process can be async
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(site: Site, browser: Browser) -> Iterator[Visit]:
    """A page whose errors, and whose requests to other hosts, fail the test that it was opened in."""
    yield from _visit(site, browser, 1280, 900)


@pytest.fixture
def phone(site: Site, browser: Browser) -> Iterator[Visit]:
    yield from _visit(site, browser, 390, 844)


def _visit(site: Site, browser: Browser, width: int, height: int) -> Iterator[Visit]:
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme="dark")
    page = context.new_page()
    page.set_default_timeout(20_000)
    visit = Visit(page, site.url)
    own = (site.url, site.url.replace("http", "ws"), "data:")
    page.on("console", lambda message: visit.problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: visit.problems.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(own) else visit.problems.append(request.url))
    yield visit
    context.close()
    assert not visit.problems
