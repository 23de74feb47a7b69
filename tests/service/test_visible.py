"""No control character of a device reaches a terminal: not in tables, rows and JSON, nor in logs and errors."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pty
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
import structlog

from hs_stream.cli.common import say, say_error, show_table
from hs_stream.core.batch import Batch
from hs_stream.core.errors import PayloadError
from hs_stream.core.stream import StreamId
from hs_stream.core.visible import visible, visible_json
from hs_stream.engine.ports import Append, DeadLetter, StreamRecord
from hs_stream.service.logs import configure_logging
from hs_stream.store.sqlite import SqliteStore

EVIL = "\x1b]0;title\x07\x9b2J\u202edlrow\x00\r\x7f\u2028end"
HIDDEN = ("\x1b]", "\x07", "\x9b", "\u202e", "\x00", "\x7f", "\u2028")


def shows(text: str) -> list[str]:
    return [char for char in HIDDEN if char in text]


def test_what_is_printable_stays_and_the_rest_is_an_escape() -> None:
    assert visible("21.5 °C 温度 🌡") == "21.5 °C 温度 🌡"
    assert visible("a\n\x1bb") == "a\\n\\x1bb"
    assert visible("a\n\x1bb", lines=True) == "a\n\\x1bb"
    assert visible("\U000e0041x", 2) == "\\U000e0041x"
    assert visible("abc", 2) == "ab..."
    assert shows(visible(EVIL)) == []


def test_json_means_the_same() -> None:
    text = json.dumps([EVIL, "\U000e0041", "°"], ensure_ascii=False)
    assert json.loads(visible_json(text)) == [EVIL, "\U000e0041", "°"]
    assert shows(visible_json(text)) == []


def test_what_a_codec_says_is_visible_and_bounded() -> None:
    error = PayloadError("json", EVIL + "x" * 10_000)
    assert shows(error.message) == []
    assert len(error.message) < 4200


def test_tables_lines_and_errors_of_commands(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("a",), [[EVIL]], EVIL)
    say(EVIL)
    say_error(EVIL)
    out, errors = capsys.readouterr()
    assert "title" in out
    assert "title" in errors
    assert shows(out + errors) == []


@pytest.mark.parametrize("form", ["console", "json"])
def test_logs(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    configure_logging("info", "console" if form == "console" else "json")
    try:
        structlog.get_logger("test").warning(EVIL, topic=EVIL, **{f"k{EVIL}": 1})
        logging.getLogger("library").warning("it says %s", EVIL)
        try:
            int(EVIL)
        except ValueError as error:
            error.add_note(EVIL)
            structlog.get_logger("test").exception("raised")
    finally:
        monkeypatch.undo()
        configure_logging()
    text = screen.getvalue()
    assert text.count("title") >= 5
    assert "Traceback" in text
    assert shows(text) == []


def on_a_terminal(directory: Path, *arguments: str) -> str:
    """What a command writes to a terminal."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "hs_stream.cli", *arguments],
        cwd=directory,
        stdin=its,
        stdout=its,
        stderr=its,
        env={**os.environ, "HS_STREAM__STORE__URL": "sqlite:///x.db", "TERM": "dumb", "HS_STREAM__WORKFLOWS": "[]"},
    )
    os.close(its)
    read = b""
    try:
        while piece := os.read(ours, 65536):
            read += piece
    except OSError:  # the terminal is closed with its last user
        pass
    finally:
        os.close(ours)
    assert process.wait(30) == 0, read
    return read.decode()


def test_a_command_on_a_terminal(tmp_path: Path) -> None:
    async def fill() -> None:
        store = SqliteStore(tmp_path / "x.db")
        await store.open()
        await store.register([StreamRecord(1, StreamId.make("note", {}), "raw")])
        letter = DeadLetter(1, "note", "json", EVIL, f"home/{EVIL}", EVIL.encode())
        await store.append(Append(1, [(1, Batch.of([(1, EVIL)]))], dead_letters=[letter]))
        await store.close()

    asyncio.run(fill())
    for form in ("table", "json", "csv"):
        for command in (["query", "note"], ["dead-letters"]):
            text = on_a_terminal(tmp_path, *command, "--format", form)
            assert "title" in text
            assert shows(text) == [], (command, form)
