"""The viewer of a service that asks for a token: nothing without it, everything with it, live included."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

TOKEN = "of-the-viewer-0123456789"
WORKFLOW = """
workflow: ticks
start: 2026-01-01T00:00:00Z
plates: {}
sources: {}
nodes:
  tick: {tool: clock@^1, with: {every: 1d}}
"""
WAITING = """
workflow: waiting
sources: {door: {csv: door.csv, time: {field: time}}}
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("token")
    (directory / "token").write_text(TOKEN, encoding="utf-8")
    (directory / "ticks.yaml").write_text(WORKFLOW, encoding="utf-8")
    (directory / "waiting.yaml").write_text(WAITING, encoding="utf-8")
    (directory / "door.csv").write_text("time,open\n", encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "HS_STREAM__STORE__URL": "sqlite:///x.db",
        "HS_STREAM__WORKFLOWS": '["ticks.yaml", "waiting.yaml"]',
        "HS_STREAM__HTTP__PORT": str(port),
        "HS_STREAM__HTTP__READ_TOKEN_FILE": "token",
        "HS_STREAM__HTTP__TOKEN_FILE": "",
    }
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "hs_stream.cli", "serve"],
            cwd=directory,
            stdout=log,
            stderr=log,
            env={**os.environ, **settings},
        )
        try:
            _wait(f"http://127.0.0.1:{port}/healthz", process, directory / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 40
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except urllib.error.URLError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)


@pytest.mark.parametrize("path", ["/", "/streams", "/_nicegui/auto/static/nothing.js", "/stream/tick"])
def test_without_it_there_is_nothing(url: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url + path, timeout=10)
    with refused.value as answer:
        assert answer.code == 401
        assert b"hs-stream" not in answer.read()


def test_with_it_pages_are_live(url: str, browser: Browser) -> None:
    context = browser.new_context(http_credentials={"username": "anybody", "password": TOKEN})
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.goto(url + "/stream/tick")
    page.get_by_role("heading", name="tick", level=1).wait_for()
    page.get_by_text("No instance in this window.").first.wait_for()  # comes over the WebSocket
    page.get_by_text("All", exact=True).click()
    page.get_by_text("These values are no numbers").wait_for()
    page.locator("table tbody tr").nth(20).wait_for()
    context.close()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("workflow=waiting", "Waiting for the first reading."),
        ("node=door", "Waiting for the first reading."),
        ("workflow=ticks&q=other", "No stream matches."),
        ("node=nothing", "No stream matches."),
    ],
)
def test_an_empty_list_says_why(url: str, browser: Browser, query: str, said: str) -> None:
    context = browser.new_context(http_credentials={"username": "anybody", "password": TOKEN})
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.goto(f"{url}/streams?{query}")
    page.get_by_text(said).wait_for()
    context.close()
