"""Where the examples find their data."""

from __future__ import annotations

from pathlib import Path

__all__ = ["climate"]

_HERE = Path(__file__).resolve().parent


def climate() -> Path:
    """The folder of monthly series: real ones beside the clone where there are any, else those of the project."""
    real = _HERE.parents[1] / "shared" / "data" / "climate"
    return real if real.is_dir() else _HERE / "data" / "climate"
