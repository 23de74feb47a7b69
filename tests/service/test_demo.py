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
    assert re.search(r"readings in +[1-9]", text)
    assert "http://127.0.0.1:" in text
    port = re.search(r"mqtt://127\.0\.0\.1:(\d+)", text)
    assert port
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(port.group(1)))) != 0
