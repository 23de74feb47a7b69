"""The command line. Exit codes: 0 fine, 1 the check failed, 2 usage or configuration, 3 broker or store unreachable."""

from __future__ import annotations

from hs_stream.cli.main import app, main

__all__ = ["app", "main"]
