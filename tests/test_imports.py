"""The direction of imports (ARCHITECTURE.md), as the import-linter contracts in pyproject.toml state it."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_contracts() -> None:
    program = Path(sysconfig.get_path("scripts")) / "lint-imports"
    path = ":".join(str(ROOT / folder) for folder in (".", "connectors", "tools"))
    result = subprocess.run(
        [sys.executable, program, "--config", ROOT / "pyproject.toml", "--no-cache"],
        cwd=ROOT,
        env={"PYTHONPATH": path, "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert " kept, 0 broken" in result.stdout


def test_imports_make_no_circle() -> None:
    """Imports for types only and those inside of functions count too."""
    graph = grimp.build_graph("hs_stream", "hs_stream_connectors", "hs_stream_tools", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 150
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_a_command_loads_no_server() -> None:
    """FastAPI and the viewer are a third of what a command takes to start; only `serve` needs them."""
    found = (
        "import sys, hs_stream.cli.main as _; print([name for name in ('fastapi', 'nicegui') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", found], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
