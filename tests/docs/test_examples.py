"""Every example runs, as a script and as a notebook, and the guide to notebooks prints what it says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hs_stream.plugins import default_registry
from hs_stream.service.embedded.broker import EmbeddedBroker
from hs_stream.testing.check_tool import check_tool

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*.py"))
REAL_TIME = ROOT / "examples" / "04_real_time.py"
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PRINTS = re.compile(r"^ *print\(.*\)  # (.*)$", re.MULTILINE)
NOTEBOOK = """
import subprocess
import sys
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
options = {"timeout": 50, "extra_arguments": ["--IPKernelApp.log_level=40"]}
client = NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": sys.argv[2]}}, **options)
# What cells write to stderr is among their outputs. The kernel may grumble on its own as it ends.
client.execute(stderr=subprocess.DEVNULL)
outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
print("".join(output.text for output in outputs if output.output_type == "stream"), end="")
"""


@pytest.fixture
async def broker_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with EmbeddedBroker(tmp_path_factory.mktemp("broker"), kind="mosquitto") as broker:
        yield broker.url


async def start(broker_url: str, folder: Path, *command: str | Path, **more: str) -> asyncio.subprocess.Process:
    """As its reader runs it: in a process of its own. ``more`` of the environment."""
    paths = os.pathsep.join(str(ROOT / folder) for folder in (".", "connectors", "tools"))
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, "HS_STREAM__MQTT__URL": broker_url, **more},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run(broker_url: str, folder: Path, *command: str | Path, **more: str) -> str:
    """What it prints; what it writes to stderr is an error."""
    process = await start(broker_url, folder, *command, **more)
    output, errors = await process.communicate()
    assert (process.returncode, errors.decode()) == (0, "")
    return output.decode()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
async def test_script_and_notebook_run_and_print_the_same(path: Path, tmp_path: Path, broker_url: str) -> None:
    printed = await run(broker_url, tmp_path, "-W", "error", path)
    assert len(printed.splitlines()) > 5
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - nothing else runs in this loop
    notebook = path.with_suffix(".ipynb")
    assert await run(broker_url, tmp_path, "-c", NOTEBOOK, notebook, notebook.parent) == printed


async def test_the_service_of_the_example_keeps_away_from_the_readers_own_settings(
    tmp_path: Path, broker_url: str
) -> None:
    theirs = {
        "HS_STREAM_CONFIG": "/nowhere.toml",
        "HS_STREAM__STORE__URL": f"sqlite:///{tmp_path / 'theirs.db'}",
        "HS_STREAM__MQTT__PREFIX": "theirs",
        "hs_stream__workflows": "theirs.yaml",  # names of settings are read in any case
    }
    printed = await run(broker_url, tmp_path, "-W", "error", REAL_TIME, **theirs)
    assert printed.endswith("The service ended with 0\n")
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - nothing else runs in this loop


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("raise RuntimeError('a cell fails')", 1),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)", 143),
        ("os.kill(os.getpid(), signal.SIGHUP); time.sleep(30)", 129),
    ],
)
async def test_the_service_of_the_example_ends_with_it(end: str, code: int, tmp_path: Path, broker_url: str) -> None:
    cells, found, _ = REAL_TIME.read_text(encoding="utf-8").partition("# %% [markdown]\n# ## A sensor\n")
    assert found
    script = tmp_path / "script.py"
    script.write_text(f"{cells}print(service.pid, flush=True)\nimport signal\n{end}\n", encoding="utf-8")
    (tmp_path / "here").mkdir()
    process = await start(broker_url, tmp_path, script, TMPDIR=str(tmp_path / "here"))
    assert process.stdout is not None
    pid = int(await process.stdout.readline())
    try:
        await process.communicate()
        assert process.returncode == code
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert list((tmp_path / "here").iterdir()) == []
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_notebooks_are_as_their_scripts() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "notebooks.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert [path.stem for path in sorted((ROOT / "examples").glob("*.ipynb"))] == [path.stem for path in EXAMPLES]


def test_examples_are_the_five_tutorials_and_tell_what_they_do() -> None:
    assert [path.stem for path in EXAMPLES] == [
        "01_introduction",
        "02_own_tool",
        "03_composition",
        "04_real_time",
        "05_workflow_with_plates",
    ]
    for path in EXAMPLES:
        assert path.read_text(encoding="utf-8").startswith("# %% [markdown]\n# # "), path


def test_the_examples_do_without_the_shared_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A clone alone, in a place of its own."""
    for name in ("examples", "hs_stream", "connectors", "tools"):
        shutil.copytree(ROOT / name, tmp_path / "clone" / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join(str(tmp_path / "clone" / it) for it in (".", "connectors", "tools"))
    )
    for path in EXAMPLES:
        if path.stem != "04_real_time":
            copy = tmp_path / "clone" / "examples" / path.name
            result = subprocess.run([sys.executable, copy], capture_output=True, text=True, check=False)
            assert (result.returncode, result.stderr) == (0, "")


def test_the_tool_of_the_examples_keeps_the_law() -> None:
    found = {tool.name: tool for tool in default_registry([ROOT / "examples" / "my_tools"])}
    check_tool(found["balance"], examples=20, seed=1)


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
