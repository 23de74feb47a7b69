"""Every example runs, and the guide to notebooks prints what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PRINTS = re.compile(r"^ *print\(.*\)  # (.*)$", re.MULTILINE)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example(path: Path, tmp_path: Path) -> None:
    """As its reader runs it: a process of its own, elsewhere; warnings and whatever is left open are errors."""
    paths = os.pathsep.join(str(ROOT / folder) for folder in (".", "connectors", "tools"))
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", path],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert len(result.stdout.splitlines()) > 5
    assert list(tmp_path.iterdir()) == []


def test_examples_have_cells() -> None:
    assert EXAMPLES
    for path in EXAMPLES:
        assert re.match(r"\d\d_", path.name)
        assert len(re.findall(r"^# %% \w", path.read_text(encoding="utf-8"), re.MULTILINE)) >= 4, path


def test_the_guide_to_notebooks_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs/guides/notebooks.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for code in FENCE.findall(text):
        exec(compile(code, "notebooks.md", "exec"), names)
        assert capsys.readouterr().out.splitlines() == PRINTS.findall(code)


def test_the_ticker_takes_five_lines(capsys: pytest.CaptureFixture[str]) -> None:
    code = FENCE.findall((ROOT / "docs/guides/notebooks.md").read_text(encoding="utf-8"))[0]
    assert len([line for line in code.splitlines() if line]) <= 5
    names: dict[str, Any] = {}
    exec(compile(code, "notebooks.md", "exec"), names)
    with names["hs"]:
        assert len(names["ticker"].window().items()) == 60
    assert capsys.readouterr().out == "2026-01-01 12:01:00+00:00\n"
