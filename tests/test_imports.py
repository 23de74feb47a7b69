"""The direction of imports (ARCHITECTURE.md), as the import-linter contracts in pyproject.toml state it."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

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
