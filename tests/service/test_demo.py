"""The demo end to end: a house that lives for some seconds, and a balance that is right."""

from __future__ import annotations

import re
import socket
from typing import Any

import pytest


@pytest.mark.timeout(120)
async def test_the_demo_loses_nothing_and_leaves_nothing_running(site: Any) -> None:
    process = await site.start("demo", "--for", "6", "--port", "0", "--data", str(site.directory / "demo"))
    out, errors = await process.process.communicate()
    text = out.decode()
    assert process.process.returncode == 0, text + errors.decode()
    assert re.search(r"lost +0 ", text)
    assert re.search(r"verify +clean", text)
    readings = re.search(r"readings in +([1-9][\d,]*) ", text)
    sent = re.search(r"of ([\d,]+) instances sent; readings that repeat or correct one: ([\d,]+)", text)
    assert readings
    assert sent
    assert _number(readings[1]) == _number(sent[1]) + _number(sent[2])
    results = re.search(r"results out +([\d,]+) +of ([\d,]+) computed: those of published nodes", text)
    assert results
    assert 0 < _number(results[1]) < _number(results[2])
    assert "http://127.0.0.1:" in text
    port = re.search(r"mqtt://127\.0\.0\.1:(\d+)", text)
    assert port
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(port.group(1)))) != 0


def _number(text: str) -> int:
    return int(text.replace(",", ""))
