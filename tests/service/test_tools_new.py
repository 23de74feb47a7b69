"""``hs-stream tools new``: what it writes passes at once, and it overwrites nothing."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from hs_stream.cli import app
from hs_stream.cli.new_tool import Kind
from hs_stream.plugins import default_registry, keeps_law

pytestmark = pytest.mark.usefixtures("in_site")
ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
    return result


@pytest.mark.parametrize("mode", ["prepend", "importlib"])
def test_the_new_tests_pass_at_once(site: Any, mode: str) -> None:
    for kind in Kind:
        run("tools", "new", f"my_{kind}", "--kind", kind.value, "--path", f"made/{kind}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--import-mode={mode}", "made"]
    tests = subprocess.run(command, capture_output=True, text=True, env=site.environment(), check=False)
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert f"{2 * len(Kind)} passed" in tests.stdout


def test_what_it_says_to_run_is_in_the_extra_that_it_names() -> None:
    command = "python -m pytest boil_time (to install pytest: pip install 'hs_stream[testing]')"
    assert f"Next: {command}\n" in run("tools", "new", "boil_time").stdout
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    names = {re.split(r"[^\w-]", requirement)[0] for requirement in extra["testing"]}
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "hs_stream" / "testing").glob("*.py"))
    imported = set(re.findall(r"^ *(?:from|import) (hypothesis|pytest)\b", code, re.MULTILINE))
    assert names >= {"pytest", *imported}
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()}
    assert names <= pinned


@pytest.mark.parametrize("kind", list(Kind))
def test_it_can_be_used_at_once(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    written = run("tools", "new", "boil_time", "--kind", kind.value).stdout.splitlines()
    assert written[:3] == ["boil_time/boil_time.py", "boil_time/test_boil_time.py", "boil_time/README.md"]
    monkeypatch.setenv("HS_STREAM__TOOLS__PATHS", "boil_time")
    assert "ok   boil_time@0.1.0" in run("tools", "check", "boil_time", "--examples", "5").stdout
    tool = default_registry(["boil_time"]).resolve("boil_time@^0.1")
    assert tool.kind == kind.value
    assert tool.__name__ == "BoilTime"
    assert keeps_law(tool)
    readme = Path("boil_time/README.md").read_text(encoding="utf-8")
    [use] = re.findall(r"^  result: (.*)$", readme, re.MULTILINE)
    use = use.replace("SOURCE", "temperature").replace("PLATE", "room")
    text = Path("comfort.yaml").read_text(encoding="utf-8")
    Path("comfort.yaml").write_text(text.replace("publish:", f"  result: {use}\npublish:"), encoding="utf-8")
    assert "3 nodes" in run("workflow", "check", "comfort.yaml").stdout


def test_what_it_writes_is_good_style() -> None:
    for kind in Kind:
        run("tools", "new", f"a_rather_long_name_for_{kind}", "--kind", kind.value)
    config = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    ignored = ["--extend-ignore", "D103"]  # a test's name says what it is
    for command in (["check", *config, *ignored, "."], ["format", "--check", *config, "."]):
        result = subprocess.run([sys.executable, "-m", "ruff", *command], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
    mypy = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", ".mypy"]
    tools = [str(path) for path in Path().glob("a_rather*/a_rather*.py")]
    result = subprocess.run([*mypy, *tools], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("there", ["boil.py", "test_boil.py", "README.md"])
def test_nothing_is_overwritten(there: str) -> None:
    Path("here").mkdir()
    (Path("here") / there).write_text("mine", encoding="utf-8")
    line = run("tools", "new", "boil", "--path", "here", code=2).stderr
    assert f"here/{there} is there already (name another folder with --path)" in line
    assert [path.name for path in Path("here").iterdir()] == [there]
    assert (Path("here") / there).read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Boil", "small letters"),
        ("boil-time", "small letters"),
        ("2boil", "beginning with a letter"),
        ("../boil", "small letters"),
        ("_boil", "small letters"),
        ("boil__time", "small letters"),
        ("class", "a word of Python's own"),
        ("match", "a word of Python's own"),
        ("sliding_mean", "there is a tool sliding_mean already (1.0.0, 2.0.0)"),
        ("statistics", "would hide Python's module statistics"),
        ("test_boil", "taken for a test"),
        ("conftest", "taken for a test"),
        ("publish", "a method publish already"),
    ],
)
def test_names_are_refused_with_the_reason(name: str, words: str) -> None:
    before = set(Path().iterdir())
    line = run("tools", "new", name, code=2).stderr
    assert words in line
    assert set(Path().iterdir()) == before


def test_a_folder_that_cannot_be_written() -> None:
    Path("file").touch()
    assert "cannot write into file/x" in run("tools", "new", "boil", "--path", "file/x", code=2).stderr
