"""Short by default, long with ``HS_STREAM_CHAOS=long`` (``make chaos``), which prints a table at its end."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator

import pytest

from tests.chaos.rig import Report

REPORTS: list[Report] = []
TABLES: list[list[tuple[str, ...]]] = []


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Clients whose peer was killed may leave sockets behind: they go here, not in the middle of another test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="session")
def long() -> bool:
    """Whether this is the long form."""
    return os.environ.get("HS_STREAM_CHAOS") == "long"


@pytest.fixture
def reports() -> list[Report]:
    """Where tests put their rows."""
    return REPORTS


@pytest.fixture
def tables() -> list[list[tuple[str, ...]]]:
    """Where tests put tables of their own: rows of equally many cells."""
    return TABLES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The tables."""
    found = [[Report.HEAD, *(report.row() for report in REPORTS)]] if REPORTS else []
    for rows in [*found, *TABLES]:
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        terminalreporter.section("chaos")
        for row in rows:
            terminalreporter.write_line("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
